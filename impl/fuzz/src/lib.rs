//! What every parser and every core of `gapless` has to bear.
//!
//! A *target* is a function over bytes. It reads them as a frame, or as the decisions of a run
//! (what arrives, what is stored and what fails, how time passes), and panics when something that
//! has to hold does not. libFuzzer feeds the targets from `libfuzzer/`, with a runtime and flags
//! that only it needs; the tests of this crate feed the same functions with the committed corpus
//! and with pseudo-random bytes, on any toolchain.
//!
//! A target judges one endpoint by what the outside can see of it: a core has no peer here that
//! keeps the protocol. What two sides make of each other is the simulator's to judge.

mod core;
mod source;
mod wire;

pub use crate::core::{
    events_client, events_engine, events_server, session_client, session_server, task_agent,
    task_controller,
};
pub use crate::wire::{events_wire, session_wire, tasks_auth, tasks_http, tasks_wire};

/// Something to be fed with bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Panics if something does not hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 12] = [
    Target { name: "events_wire", run: events_wire },
    Target { name: "session_wire", run: session_wire },
    Target { name: "tasks_wire", run: tasks_wire },
    Target { name: "tasks_http", run: tasks_http },
    Target { name: "tasks_auth", run: tasks_auth },
    Target { name: "events_server", run: events_server },
    Target { name: "events_client", run: events_client },
    Target { name: "events_engine", run: events_engine },
    Target { name: "session_server", run: session_server },
    Target { name: "session_client", run: session_client },
    Target { name: "task_agent", run: task_agent },
    Target { name: "task_controller", run: task_controller },
];
