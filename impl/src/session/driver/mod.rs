//! The cores over sockets and HTTP.
//!
//! A driver moves frames between a WebSocket and a core, runs storage commands and turns, and
//! arms one timer. It decides nothing: what it does with an input or an output follows from the
//! type.

mod application;
mod client;
mod server;

pub use application::{Application, Speaker, Stopped};
pub use client::{ClientHandle, Target, client};
pub use server::{Hello, ServerHandle, ServerTaskConfig, SessionService, server};
