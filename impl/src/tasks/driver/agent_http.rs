//! What an agent asks over HTTP, and what the answers say [TK-13] [TK-14].
//!
//! Nothing here sends or signs anything.

use super::http_wire::{ErrorBody, FinalBody, TasksBody};
use crate::AgentId;
use crate::recovery::WallTime;
use crate::tasks::MessageId;
use crate::tasks::agent::Posted;
use crate::tasks::wire::{Deliver, Final};

/// Where the WebSocket of agents is.
pub const WEBSOCKET_PATH: &str = "/api/v1/agents/ws";

/// A request that is still to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRequest {
    /// As `PUT`.
    pub method: &'static str,
    /// The path.
    pub path: String,
    /// The body, which is JSON; empty if there is none.
    pub body: Vec<u8>,
}

impl AgentRequest {
    /// Brings a result.
    pub fn post(message_id: MessageId, result: &Final) -> Self {
        let path = format!("/api/v1/tasks/{}", result.attempt.task);
        let body = FinalBody::of(message_id, result);
        Self { method: "PUT", path, body: serde_json::to_vec(&body).unwrap_or_default() }
    }

    /// Asks for tasks.
    pub fn poll(agent: &AgentId) -> Self {
        let path = format!("/api/v1/agents/{agent}/tasks");
        Self { method: "GET", path, body: Vec::new() }
    }
}

/// What the answer to [`AgentRequest::post`] says.
pub fn posted(status: u16, body: &[u8]) -> Posted {
    let said = || {
        let said: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        format!("status {status}: {}", said.error)
    };
    match status {
        200..300 => Posted::Accepted,
        // It is not the result that was refused, or not for good.
        401 | 500..600 => Posted::Unknown(said()),
        _ => Posted::Refused(said()),
    }
}

/// What the answer to [`AgentRequest::poll`] says.
///
/// # Errors
///
/// Why it says nothing, for a person.
pub fn polled(status: u16, body: &[u8]) -> Result<Vec<Deliver>, String> {
    if status != 200 {
        return Err(format!("status {status}"));
    }
    let body: TasksBody = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is not readable: {error}"))?;
    let tasks = body.tasks.into_iter().map(Deliver::from);
    Ok(tasks.filter(|deliver| !deliver.command.is_empty()).collect())
}

/// An answer to a handshake that opens no WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why, for a person.
    pub reason: String,
    /// The controller's time, if it refuses the agent's [TK-14].
    pub server_time: Option<WallTime>,
}

impl Refused {
    /// A request that came to nothing before it was answered.
    pub fn unanswered(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), server_time: None }
    }

    /// What the answer says.
    pub fn by(status: u16, body: &[u8]) -> Self {
        let said: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        let reason = format!("the controller answered with status {status}: {}", said.error);
        let server_time = said.server_time.filter(|_| status == 401);
        let server_time =
            server_time.map(|seconds| WallTime::from_millis(seconds.saturating_mul(1_000)));
        Self { reason, server_time }
    }
}
