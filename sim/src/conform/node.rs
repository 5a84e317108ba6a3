//! An implementation that stands in the place of a host, however it is reached.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::protocol::{Hello, Reply, Request};

/// An implementation that is driven in lockstep.
pub trait Node: Send {
    /// Who it is.
    fn hello(&self) -> &Hello;

    /// Passes a request on and waits for the reply, whose number is that of the request.
    ///
    /// # Errors
    ///
    /// [`NodeError`]; the node is of no use after it.
    fn exchange(&mut self, request: &Request) -> Result<Reply, NodeError>;

    /// Nothing more will be asked: sees to it that nothing was said unasked, and lets go of what the
    /// node holds. A node that is asked again begins anew.
    ///
    /// # Errors
    ///
    /// [`NodeError`] if something is wrong at the end.
    fn finish(&mut self) -> Result<(), NodeError> {
        Ok(())
    }
}

/// A node, for the world and whoever made it.
pub type SharedNode = Arc<Mutex<dyn Node>>;

/// An implementation, or its adapter, did not do what it has to do whatever it implements.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The program cannot be started.
    #[error("the adapter cannot be started: {0}")]
    NotStarted(String),
    /// The process ended in the middle of a case.
    #[error("the adapter ended ({status}) without an answer to `{asked}`{said}", said = said(stderr))]
    Died {
        /// How it ended, and in the middle of what.
        status: String,
        /// What it was asked.
        asked: String,
        /// The last lines that it wrote to its standard error.
        stderr: String,
    },
    /// There was no answer in time.
    #[error("the adapter did not answer `{asked}` within {:?}{said}",
        Duration::from_millis(*waited_ms), said = said(stderr))]
    Hung {
        /// How long it had, in real time.
        waited_ms: u64,
        /// What it was asked.
        asked: String,
        /// The last lines that it wrote to its standard error.
        stderr: String,
    },
    /// The answer is none.
    #[error("the adapter answered `{asked}` with `{line}`, which is no reply: {problem}")]
    Garbage {
        /// What it was asked.
        asked: String,
        /// The beginning of what it said.
        line: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It said something that nobody had asked for.
    #[error("the adapter answered twice, or without having been asked: `{line}`")]
    Unasked {
        /// The beginning of what it said.
        line: String,
    },
    /// The reply breaks a rule of the adapter protocol.
    #[error("the adapter broke the adapter protocol: {0}")]
    Misused(String),
    /// The implementation crashed, and the adapter said so.
    #[error("the implementation crashed: {0}")]
    Panicked(String),
    /// It did something else, or at another time, than the last time or than it had said.
    #[error("the implementation is not deterministic: {0}")]
    Nondeterministic(String),
    /// It cannot play the case.
    #[error("the implementation cannot play this: {}", .0.join(", "))]
    Unsupported(Vec<String>),
}

fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        text => format!("; it wrote:\n{text}"),
    }
}
