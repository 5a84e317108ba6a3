//! What a user interface shows of a conversation.
//!
//! A [`View`] is rebuilt by a history and advanced by frames. It holds no rule about numbers:
//! that each frame is applied once and in order is what the [client](super::client) sees to.

use std::sync::Arc;
use std::time::Duration;

use super::conversation::Input;
use super::wire::{HistoryMessage, InputRejection, Notice, Question, Status};

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Connection {
    /// Not connected, and an attempt is under way.
    #[default]
    Connecting,
    /// Connected, and the replay or the history is on its way.
    CatchingUp,
    /// Connected, and everything is shown.
    Live,
    /// Not connected; the next attempt follows after a pause.
    Waiting {
        /// Why, for a person.
        reason: String,
        /// The pause.
        retry_in: Duration,
    },
    /// Another connection took this one's place; it stays so until the user connects again.
    Superseded,
    /// The client was stopped.
    Stopped,
}

/// Something that the user said and that has no verdict yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// What.
    pub input: Input,
    /// Whether it is durable at the client, so that it survives a restart.
    pub kept: bool,
}

/// Something that the user said and that was not accepted, for good [SE-5j].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// What.
    pub input: Input,
    /// Why.
    pub reason: InputRejection,
}

/// Everything that there is to show.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// How the connection is.
    pub connection: Connection,
    /// Whether a history was ever applied: before, that there are no messages means nothing.
    pub loaded: bool,
    /// The newest rows, ascending.
    pub messages: Vec<Arc<HistoryMessage>>,
    /// Whether there are older ones.
    pub truncated: bool,
    /// What has no verdict yet, in the order in which it was said.
    pub pending: Vec<Pending>,
    /// What was rejected, the newest last.
    pub rejected: Vec<Rejected>,
    /// What the application is doing.
    pub status: Status,
    /// How it is getting on; `None` when it is idle.
    pub progress: Option<Notice>,
    /// The question that waits for the user's answer.
    pub open_question: Option<Question>,
}
