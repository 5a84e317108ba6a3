//! The connections of a process that dies.
//!
//! A runtime that is torn down drops its tasks in an order that follows from numbers which tokio
//! counts over all threads of the program. The connections of a process end in the order in which they
//! were opened all the same: whoever drops one of a dead process leaves it here, and all of them are
//! dropped together with the first future of the process, which is after its tasks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use turmoil::net::TcpStream;

use super::lock;

/// The connections that one life of a process leaves behind.
#[derive(Clone, Default)]
pub(crate) struct Orphans(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    opened: u64,
    left: BTreeMap<u64, TcpStream>,
    ended: bool,
}

impl Orphans {
    /// The number of a connection that is just opened.
    pub(crate) fn number(&self) -> u64 {
        let mut state = lock(&self.0);
        state.opened += 1;
        state.opened
    }

    /// A connection of a dead process; when all of them have ended, it ends at once.
    pub(crate) fn leave(&self, number: u64, stream: TcpStream) {
        let mut state = lock(&self.0);
        if !state.ended {
            state.left.insert(number, stream);
        }
    }

    /// Ends all of them when it is dropped.
    pub(super) fn end(&self) -> End {
        End(self.clone())
    }
}

/// The end of the connections.
pub(super) struct End(Orphans);

impl Drop for End {
    fn drop(&mut self) {
        let left = {
            let mut state = lock(&self.0.0);
            state.ended = true;
            std::mem::take(&mut state.left)
        };
        // In the order of their numbers.
        drop(left);
    }
}
