//! Conversations, and what a client has in flight, on SQLite.
//!
//! Each database belongs to one process at a time (`locking_mode=EXCLUSIVE`) and is written through
//! a write-ahead log. Everything that is ready is one transaction, all or nothing, and is answered
//! when it is on the disk [SE-3a] [SE-5e].
//!
//! Both stores work on the thread that calls them.
//! [`Threaded`](crate::storage::Threaded) gives them one of their own.

mod conversations;
mod in_flight;

pub use conversations::{ConversationsConfig, SqliteConversations};
pub use in_flight::SqliteInFlight;
