//! Conformance: other implementations in the same world.
//!
//! A foreign implementation takes the place of the hosts of one side. Its adapter speaks the
//! lockstep protocol ([`protocol`]) over standard input and output; the scenarios, the faults and
//! the checkers are those by which the reference is judged. `docs/conformance.md` is for whoever
//! writes an adapter.

pub mod adapter;
pub mod expect;
pub(crate) mod keys;
pub mod live;
mod node;
mod on_demand;
pub mod outcome;
mod process;
pub mod profile;
pub mod protocol;
mod recorded;
mod reference;
pub mod report;
pub mod runner;
pub mod session;
pub mod suite;
pub mod summary;
mod tasks;
mod version;

pub use self::node::{Node, NodeError, SharedNode};
pub use self::process::{ANSWER_MAX, Launch, Process};
pub(crate) use self::protocol::STORAGE_BYTES_MAX;
pub use self::protocol::{
    Application, Config, Conn, DialProblem, Done, Effect, Event, EventsClientConfig,
    EventsServerConfig, Hello, Live, PublicKey, Reply, Request, Reset, Role, SigningKey,
    StorageKind, StoreProblem, Stream, TasksAgentConfig, TasksControllerConfig, feature,
};
pub use self::recorded::{Lines, SharedLines};
pub use self::reference::{NotAttachable, Reference};
