//! The cores over sockets.
//!
//! A driver moves bytes between a WebSocket and a core, runs storage commands, and arms one
//! timer. It decides nothing: what it does with an input or an output follows from the type.

mod application;
mod client;
mod publisher;
pub mod publishing;
mod server;
mod work;

pub use application::{
    Application, CursorStore, Handled, Handler, HandlerError, MemoryCursor, NoticeSink,
    OpenHandler, handler_fn,
};
pub use client::{ClientHandle, Target, client};
pub use publisher::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, BatchFailure, Publication, PublishFailure, Publisher,
    PublisherConfig,
};
pub use server::{EventService, Follower, ServerHandle, ServerTaskConfig, server, shared_server};
