//! What a client asks of the store that keeps what it has in flight.

use super::Name;
use super::conversation::Input;
use crate::storage::StoreCommand;

/// A change of what is in flight. Both can be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Keep an input until its verdict is known. Kept already: nothing changes.
    Keep(Input),
    /// Its verdict is known. Not kept: nothing changes.
    Drop(Name),
}

impl StoreCommand for Command {
    type Reply = ();

    fn is_read_only(&self) -> bool {
        false
    }
}

/// What a store has kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What the client calls itself: drawn when the store was made, and the same ever after.
    pub client: Name,
    /// The inputs in flight, in the order in which they were first kept.
    pub in_flight: Vec<Input>,
}
