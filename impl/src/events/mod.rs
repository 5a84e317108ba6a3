//! Event streams: server to client, with resync from a ring and a durable log.
//!
//! Every agent has one stream. The server numbers its events from 1, stores them, and sends them
//! to each of the agent's connections; a client that comes back names the last event that it has
//! *applied* and gets everything after it before anything newer.
//!
//! The protocol is written down, statement by statement, in `docs/spec/events.md`. The modules:
//!
//! * [`wire`]: the frames of the base contract and of the extension;
//! * [`log`]: what the server asks of its durable log;
//! * [`server`] and [`client`]: the two sans-IO cores;
//! * `sqlite`: the log and the client's cursor on SQLite (feature `sqlite`);
//! * `cluster`: the log of several servers, on a replicated engine (feature `cluster`);
//! * `driver`: the cores over sockets, and publishing over HTTP (feature `net`).

pub mod client;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "net")]
pub mod driver;
pub mod log;
pub mod server;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod wire;

pub use crate::agent_id::{AgentId, InvalidAgentId};
pub use crate::connection::{CloseCode, ConnectionId};
pub use crate::core::Ticket;
pub use crate::storage::StoreId;
