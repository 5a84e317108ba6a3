//! The cores over sockets, HTTP and processes.
//!
//! A driver moves frames between a WebSocket and a core, runs storage commands, and arms one
//! timer. It decides nothing: what it does with an input or an output follows from the type.

mod agent;
pub mod agent_http;
mod controller;
pub mod controller_http;
mod executor;
mod http_wire;
mod submitter;

pub use agent::{AgentHandle, AgentTarget, agent};
pub use controller::{ControllerHandle, ControllerService, ControllerTaskConfig, controller};
pub use executor::{Execution, Executor, ExecutorEvent, ProcessExecutor};
pub use submitter::{
    AttemptStatus, OutputPage, StreamStatus, SubmitFailure, Submitter, SubmitterConfig, TaskFilter,
    TaskPage, TaskStatus, TaskSummary, Wish,
};
