//! What the roles of sessions say in the lockstep protocol, beside what all roles say.
//!
//! `session.client` is a view of a conversation, with a user in front of it. `docs/spec/session.md`
//! has the words: a *row* is an entry of the conversation, an *input* is what the user said, and it
//! is *in flight* until its verdict is known. Texts travel as they are.
//!
//! `session.server` holds the conversations of users, and has an application behind it that takes
//! *turns*: the simulator plays the application.

mod words;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a client of sessions is configured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionClientConfig {
    /// Where the server is: `http://server`; the WebSocket is at `/ws` of it.
    pub base_url: String,
    /// The token of the user, for `Authorization: Bearer`.
    pub token: String,
    /// What it has to call itself, as tabs of a browser do that share what they store; absent: a name
    /// of its own, which it draws once and stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Whether the extension is to be offered; see `docs/spec/session.md`.
    pub extension: bool,
    /// How long a connection may take to open, and then its first frame to come, in milliseconds.
    pub connect_ms: u64,
    /// How often the server sends a ping, in milliseconds.
    pub ping_every_ms: u64,
    /// The shortest and longest pause before connecting again, in milliseconds.
    pub reconnect_ms: (u64, u64),
    /// How often what was applied is acknowledged, in milliseconds.
    pub ack_every_ms: u64,
    /// How long a verdict may take before the oldest input in flight is sent again, in milliseconds.
    pub ack_timeout_ms: u64,
    /// How many inputs may be in flight.
    pub in_flight: usize,
    /// How long after opening, or after the history, inputs are sent to a server of the base
    /// contract, in milliseconds.
    pub base_grace_ms: u64,
    /// How many rows the view holds; the oldest leave first.
    pub messages: usize,
}

/// What a server of sessions is configured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionServerConfig {
    /// The token of each user, by the principal: a conversation belongs to a principal.
    pub users: BTreeMap<String, String>,
    /// Whether the extension is offered.
    pub extension: bool,
    /// Frames of each outbox in memory.
    pub ring: usize,
    /// The same in bytes.
    pub ring_bytes: usize,
    /// How long a frame is kept, in milliseconds.
    pub ring_age_ms: u64,
    /// How often age and idleness are looked at, in milliseconds.
    pub prune_every_ms: u64,
    /// How long an outbox without a connection is kept, in milliseconds.
    pub idle_max_ms: u64,
    /// How many outboxes there are at most.
    pub outboxes: usize,
    /// Between pings, in milliseconds; a client may be silent for twice as long after one.
    pub ping_every_ms: u64,
    /// Frames on their way to a socket.
    pub window_frames: usize,
    /// How long a socket may take nothing, in milliseconds.
    pub write_stall_ms: u64,
    /// Rows of a history.
    pub history_messages: usize,
    /// The same in bytes.
    pub history_bytes: usize,
    /// Messages that may wait for their turn.
    pub queue: usize,
    /// Inputs of a conversation that may wait for the store.
    pub inputs: usize,
    /// Turns that may run at once, of all conversations.
    pub turns: usize,
    /// The longest input, in bytes.
    pub text_bytes: usize,
    /// Rows of a conversation that are kept.
    pub retain_rows: u64,
}

/// What a message of the application cost, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Read.
    pub input: u64,
    /// Written.
    pub output: u64,
}

/// How the application ends a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnEnding {
    /// Everything is said.
    Done,
    /// With a question: the answer to it will be a turn.
    Ask {
        /// The id of the question, which was not used before; the base contract has none.
        question: String,
        /// The text.
        text: String,
        /// Who asks.
        source: String,
    },
    /// It failed; the text is shown as a row.
    Failed(String),
}

/// A row, as the store of a server holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RowHeld {
    /// Its position, from 1.
    pub id: u64,
    /// Who said it.
    pub role: SpeakerRole,
    /// What it is.
    pub kind: RowKind,
    /// What was said.
    pub text: String,
    /// The client's id of the input that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_id: Option<String>,
    /// The question that it asks or answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question_id: Option<String>,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// Something that was said, by either.
    Message,
    /// A question of the application.
    Question,
    /// The user's answer to one.
    Answer,
    /// The application could not finish a turn.
    Interrupted,
}

/// Something that a store of conversations holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// A row.
    Row {
        /// Whose.
        principal: String,
        /// The row.
        row: RowHeld,
    },
    /// That an input is rejected, or never will be accepted.
    Refused {
        /// Whose, and why; `queue_full` needs no number here.
        principal: String,
        /// The input.
        input: RejectedInput,
    },
    /// That a turn has begun.
    Begun {
        /// Whose.
        principal: String,
        /// The position of the input's row.
        position: u64,
    },
    /// That a turn is over.
    Over {
        /// Whose.
        principal: String,
        /// The position of the input's row.
        position: u64,
    },
}

/// A document that comes with a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    /// The name of the file.
    pub filename: String,
    /// Which document.
    pub doc_id: String,
    /// Its short name.
    pub slug: String,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// Why a client did not take what the user said. Nothing of it is stored or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotTaken {
    /// Too much has no verdict yet; the user says an answer again a little later.
    TooMany,
    /// It is longer than allowed.
    TooLarge,
    /// There is no question to answer, or it is answered already.
    NoQuestion,
    /// The client is not running.
    Stopped,
}

/// What has changed in what the user sees, all at once. What is absent stays as it was. Of a view that
/// begins anew nothing is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ViewUpdate {
    /// How the connection is. Without it, as long as it was never told in this life, a client is taken
    /// to be connected from the first frame of a connection to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkState>,
    /// How the rows that are shown have changed, one change after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Splice>,
    /// What is in flight now, all of it, in the order in which it was said. Empty as long as it was
    /// never told: what becomes of an input is then judged by the conversation alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Vec<PendingInput>>,
    /// What is newly shown as rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedInput>,
    /// The question that waits for the user's answer, and whether there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<QuestionShown>,
    /// What the application is doing. As long as it was never told, it is taken to wait while a
    /// question is shown, and to do nothing otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusShown>,
}

/// How a connection is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// An attempt to connect is under way.
    Connecting,
    /// The replay or the history is on its way.
    CatchingUp,
    /// Everything is shown.
    Live,
    /// The next attempt follows after a pause.
    Waiting,
    /// Another connection took its place, and it stays away until the user wants it back.
    Superseded,
    /// The client was stopped.
    Stopped,
}

/// A change of a list, as of `Array.prototype.splice` in JavaScript: from `at`, counted from 0, `gone`
/// entries are taken away, or as many as there are, and the new ones are put there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Splice {
    /// Where.
    pub at: usize,
    /// How many go.
    #[serde(default, skip_serializing_if = "is_none")]
    pub gone: usize,
    /// What comes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<RowShown>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

/// A row that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RowShown {
    /// Its position, if the server has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Who said it.
    pub role: SpeakerRole,
    /// What was said.
    pub text: String,
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpeakerRole {
    /// The user.
    User,
    /// The application.
    Assistant,
}

/// An input whose verdict is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingInput {
    /// Which.
    pub id: String,
    /// Whether it is an answer, and not a message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answer: bool,
}

/// An input that is shown as rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RejectedInput {
    /// Which.
    pub id: String,
    /// Why.
    pub reason: RejectionReason,
    /// With `queue_full`: how many messages may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_cap: Option<u64>,
}

/// Why an input was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectionReason {
    /// As many messages wait as may wait.
    QueueFull,
    /// The id names another input.
    Conflict,
    /// The id may have been used so long ago that it is forgotten.
    Expired,
    /// It is larger than an input may be.
    TooLarge,
    /// The question is not open.
    NotOpen,
}

/// Whether a question is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuestionShown {
    /// None.
    Nothing,
    /// This one.
    Open(Question),
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// Its id; the base contract has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it asks.
    pub text: String,
}

/// What the application is shown to be doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusShown {
    /// Nothing.
    Idle,
    /// It is at a turn.
    Thinking,
    /// It waits for an answer.
    Waiting,
}
