//! What can be wrong with the clients of sessions, with a server, and with their stores.

pub(super) mod client;
pub(super) mod server;
pub(super) mod store;
