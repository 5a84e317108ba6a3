//! What can be wrong with the clients of event streams, with a server, and with its log.

pub(super) mod client;
pub(super) mod server;
pub(super) mod store;
