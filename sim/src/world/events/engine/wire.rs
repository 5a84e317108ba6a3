//! What servers and the engine say to each other: lines of JSON, because nothing of it is measured.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::log::Message;

/// What a server asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Store a message, if the newest one of its subject is this one; 0 = there is none, `None` =
    /// whichever it is.
    Publish { subject: Arc<str>, expected_last: Option<u64>, payload: Arc<str> },
    /// The newest message of a subject.
    Last { subject: Arc<str> },
    /// The first message of a subject from a number on.
    Next { subject: Arc<str>, from: u64 },
    /// Messages of a subject from a number on, up to the one with which a bound is reached.
    Page { subject: Arc<str>, from: u64, messages_max: usize, bytes_max: usize },
    /// Remove the messages of a subject below a number.
    Purge { subject: Arc<str>, below: u64 },
    /// Tell everything that is committed, in order.
    Follow {
        from: FollowFrom,
        /// Tell it before that.
        uncommitted: bool,
    },
}

/// Where following begins.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FollowFrom {
    /// After this number.
    After(u64),
    /// With what comes next.
    New,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// A message was stored under this number.
    Stored(u64),
    /// Another message is the newest of the subject.
    WrongLast,
    /// It is not stored, and never will be.
    Refused(String),
    /// Nobody leads.
    Unavailable(String),
    /// A message, if there is one.
    Message(Option<Message>),
    /// Messages.
    Page(Vec<Message>),
    /// It is done.
    Done,
    /// It is told from now on; this number was given last.
    Follows { last: u64 },
}

/// A line from a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToEngine {
    /// A request, and the name of its answer.
    Request { id: u64, request: Request },
    /// Follow no more.
    Unfollow { id: u64 },
    /// It is still there.
    Ping,
}

/// A line from the engine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToServer {
    /// The answer to a request.
    Answer { id: u64, answer: Answer },
    /// A message for whoever asked to follow with that request.
    Follow { id: u64, message: Message },
    /// Whoever asked so has lost its place.
    FollowEnds { id: u64 },
    /// It is still there.
    Ping,
}
