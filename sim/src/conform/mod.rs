//! Conformance: other implementations in the same world.
//!
//! A foreign implementation takes the place of the hosts of one side. Its adapter speaks the
//! lockstep protocol ([`protocol`]) over standard input and output; the scenarios, the faults and
//! the checkers are those by which the reference is judged. `docs/conformance.md` is for whoever
//! writes an adapter.

pub mod adapter;
pub mod live;
mod node;
mod process;
pub mod profile;
pub mod protocol;
mod reference;
pub mod suite;

pub use self::node::{Node, NodeError, SharedNode};
pub use self::process::{ANSWER_MAX, Launch, Process};
pub use self::protocol::{
    Application, Config, Conn, DialProblem, Done, Effect, Event, EventsClientConfig,
    EventsServerConfig, Hello, Live, Reply, Request, Reset, Role, StorageKind, StoreProblem,
    feature,
};
pub use self::reference::{NotAttachable, Reference};
