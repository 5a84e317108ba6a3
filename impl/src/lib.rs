//! Reconnect protocols that lose, double and reorder nothing.
//!
//! A WebSocket system loses data at one moment: when a connection comes back. This crate holds
//! the protocol that survives that moment, in three layers:
//!
//! * [`recovery`]: the building blocks (ring, cursor, lineage, backoff, liveness), free of I/O;
//! * [`events`]: the event-stream protocol as sans-IO cores, with a durable log and drivers;
//! * [`session`]: the session protocol: a conversation that survives reconnects on both sides;
//! * [`tasks`]: the task protocol: commands run once, output streamed, results kept until acked;
//! * [`net`]: what the drivers share: one listener for HTTP and WebSocket over any stream;
//! * `gateway`: the three protocols on one port (feature `net`).
//!
//! # The contract of a core
//!
//! A [`Core`] owns no socket, no thread, no clock, no randomness and no database. Whoever drives
//! it repeats one loop: feed one input, drain every output, arm one timer.
//!
//! ```text
//! core.handle(now, input);                  // exactly one mutation
//! while let Some(output) = core.poll() {    // drain before the next input
//!     perform(output);
//! }
//! sleep_until(core.deadline());             // then feed its timeout input
//! ```
//!
//! Storage is asked and answered: a core emits a command and whatever depends on it leaves only
//! after the reply has come back, so that "persist before send" holds by construction.
//!
//! # Features
//!
//! `net` (default) compiles the tokio drivers, `sqlite` (default) the durable stores. Without
//! both, the cores build with neither tokio nor SQLite.

mod agent_id;
mod connection;
mod core;
#[cfg(feature = "sqlite")]
pub mod database;
pub mod events;
mod frame;
#[cfg(feature = "net")]
pub mod gateway;
pub mod marks;
#[cfg(feature = "net")]
pub mod net;
pub mod recovery;
pub mod session;
pub mod storage;
pub mod tasks;

pub use crate::agent_id::{AgentId, InvalidAgentId};
pub use crate::connection::{CloseCode, ConnectionId};
pub use crate::core::{Core, Ticket};

/// The blocks of the manual are compiled, and run, with the tests.
#[cfg(all(doctest, feature = "net", feature = "sqlite"))]
#[doc = include_str!("../../docs/embedding.md")]
struct Embedding;
