//! The log of several servers: on a replicated storage engine.
//!
//! Where one machine is not enough, several servers share one log. What orders their events is one
//! operation of the engine: store this message if that one is still the last of its subject. A
//! message has the events that are appended to one stream at once, with their numbers in it, so no
//! number is given twice, whichever servers append at the same time and whatever becomes of their
//! acknowledgements.
//!
//! * [`engine`]: what is asked of the engine, and what it promises;
//! * [`EngineLog`]: the log on it;
//! * [`EngineFollower`]: what any server appended to it;
//! * `nats`: NATS JetStream as the engine (feature `nats`).
//!
//! It does not choose who serves a client: any server serves any of them.

mod append;
pub mod engine;
mod epoch;
mod follower;
mod index;
mod log;
mod message;
#[cfg(feature = "nats")]
pub mod nats;
mod read;

pub use follower::EngineFollower;
pub use log::{EngineLog, EngineLogConfig};
