//! The frames of the session protocol: one JSON object per WebSocket text frame.
//!
//! Carries the base contract and the extension [`SUBPROTOCOL`]. Parsing is total: what comes out
//! is well formed, what is not well formed is a [`FrameError`], and unknown types and fields are
//! no reason to drop a link [CORE-13]. Nothing here knows about state.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Name;
use super::conversation::{Kind, Role, Row};
pub use crate::frame::FrameError;
use crate::frame::{bad, fields, integer, parse_object, unknown};
use crate::recovery::{Epoch, MAX_SEQUENCE, RingAnswer};

/// The WebSocket subprotocol under which the extension is negotiated.
pub const SUBPROTOCOL: &str = "gapless.session.v1";

/// A document that comes with a message; the server does not look into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl Attachment {
    /// How many bytes it is counted with.
    pub fn cost(&self) -> usize {
        let title = self.title.as_ref().map_or(0, String::len);
        self.filename.len() + self.doc_id.len() + self.slug.len() + title + 64
    }
}

/// What a message of the assistant cost, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Read.
    pub input: u64,
    /// Written.
    pub output: u64,
}

/// A question to the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Extension: its id.
    #[serde(rename = "question_id", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Name>,
    /// What is asked.
    pub text: String,
    /// Who asks: `cognitive`, `agent:NAME`.
    #[serde(default)]
    pub source: String,
}

/// What the application is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing.
    #[default]
    Idle,
    /// It is at a turn.
    Thinking,
    /// It waits for an answer.
    Waiting,
}

impl Status {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Thinking => "thinking",
            Self::Waiting => "waiting",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Idle, Self::Thinking, Self::Waiting].into_iter().find(|it| it.as_str() == text)
    }
}

/// Why an input was rejected, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputRejection {
    /// As many messages wait as may wait.
    QueueFull {
        /// How many that is.
        queue_cap: u64,
    },
    /// The id names another input.
    Conflict,
    /// The id may have been used so long ago that it is forgotten.
    Expired,
    /// It is larger than an input may be.
    TooLarge,
    /// The question is not open.
    NotOpen,
}

impl InputRejection {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull { .. } => "queue_full",
            Self::Conflict => "conflict",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::NotOpen => "not_open",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Conflict, Self::Expired, Self::TooLarge, Self::NotOpen]
            .into_iter()
            .find(|it| it.as_str() == text)
    }
}

/// The answer to a cursor, by name [CORE-4].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CursorVerdict {
    /// Nothing was missed.
    UpToDate,
    /// Everything missed follows.
    Replay,
    /// Some of what was missed is no longer kept.
    TooOld,
    /// The number was never given.
    Ahead,
    /// The number is of another outbox.
    OtherEpoch,
    /// Nothing is known of the client, or it has nothing. So is a name that this side does not
    /// know: a history is always right.
    #[serde(other)]
    Unknown,
}

impl CursorVerdict {
    /// Whether a history follows, and not what was missed.
    pub fn is_history(self) -> bool {
        !matches!(self, Self::UpToDate | Self::Replay)
    }
}

impl From<RingAnswer> for CursorVerdict {
    fn from(answer: RingAnswer) -> Self {
        match answer {
            RingAnswer::UpToDate => Self::UpToDate,
            RingAnswer::Replay { .. } => Self::Replay,
            RingAnswer::TooOld { .. } => Self::TooOld,
            RingAnswer::Ahead { .. } => Self::Ahead,
            RingAnswer::EpochMismatch => Self::OtherEpoch,
        }
    }
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// The user says something.
    UserMessage {
        /// The client's id of it; absent: it cannot be recognised when it comes again.
        id: Option<Name>,
        /// The text.
        text: String,
        /// What comes with it.
        attachments: Vec<Attachment>,
        /// Extension: the newest position that the client knew when it was written.
        after: Option<u64>,
    },
    /// The user answers.
    UserAnswer {
        /// Extension: the client's id of it.
        id: Option<Name>,
        /// Extension: what it answers.
        question: Option<Name>,
        /// The text.
        text: String,
    },
    /// Everything up to this number was applied.
    Ack {
        /// The number.
        seq: u64,
        /// Extension: its epoch.
        epoch: Option<Epoch>,
    },
    /// I am here.
    Pong,
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFrame {
    /// Its number; 0 = none.
    pub seq: u64,
    /// What it says.
    pub body: Body,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Extension: the verdict on the cursor.
    Begin(Begin),
    /// Everything that is to be shown.
    History(Arc<History>),
    /// The assistant said something.
    Assistant(Assistant),
    /// The assistant asks something.
    Question {
        /// The question.
        question: Question,
        /// Extension: the position of its row.
        position: Option<u64>,
    },
    /// Extension: another client of the principal said something.
    UserMessage {
        /// The position of its row.
        position: u64,
        /// The id that the other client gave it.
        id: Option<Name>,
        /// The text.
        text: String,
        /// What came with it.
        attachments: Vec<Attachment>,
    },
    /// Extension: another client of the principal answered.
    UserAnswer {
        /// The position of its row.
        position: u64,
        /// What was answered.
        question: Option<Name>,
        /// The text.
        text: String,
    },
    /// A message is accepted.
    MessageAck {
        /// Which.
        id: Name,
        /// Extension: the position of its row.
        position: Option<u64>,
    },
    /// A message is rejected.
    MessageRejected {
        /// Which; a server of the base contract does not say.
        id: Option<Name>,
        /// Why.
        reason: InputRejection,
    },
    /// Extension: an answer is accepted.
    AnswerAck {
        /// Which.
        id: Name,
        /// What it answered.
        question: Option<Name>,
        /// The position of its row.
        position: u64,
    },
    /// Extension: an answer is rejected.
    AnswerRejected {
        /// Which.
        id: Name,
        /// What it should have answered.
        question: Option<Name>,
        /// Why.
        reason: InputRejection,
    },
    /// What the application is doing.
    Status(Status),
    /// Something else that is good to know.
    Notice(Notice),
    /// The application begins a turn.
    Thinking,
    /// Are you there?
    Ping {
        /// Extension: the highest number that was sent on this connection.
        sent: Option<u64>,
    },
    /// Of a type that this side does not know; newer servers may send such frames [CORE-13]. It
    /// says nothing, but its number counts: otherwise it would be missing for ever.
    Unknown {
        /// The type.
        kind: String,
    },
}

impl Body {
    /// Whether it has no number [SE-6].
    pub fn is_ephemeral(&self) -> bool {
        match self {
            Self::Begin(_) | Self::Status(_) | Self::Thinking | Self::Ping { .. } => true,
            Self::Notice(notice) => notice.is_ephemeral(),
            _ => false,
        }
    }

    /// Whether the base contract has no frame for it.
    pub fn is_extension(&self) -> bool {
        match self {
            Self::Begin(_)
            | Self::UserMessage { .. }
            | Self::UserAnswer { .. }
            | Self::AnswerAck { .. }
            | Self::AnswerRejected { .. } => true,
            Self::MessageRejected { reason, .. } => {
                !matches!(reason, InputRejection::QueueFull { .. })
            }
            _ => false,
        }
    }

    /// How many bytes it is counted with; about what it takes on the wire.
    pub fn cost(&self) -> usize {
        256 + match self {
            Self::History(history) => history.cost(),
            Self::Assistant(said) => said.text.len() + said.model.len(),
            Self::Question { question, .. } => question.text.len(),
            Self::UserMessage { text, attachments, .. } => {
                text.len() + attachments.iter().map(Attachment::cost).sum::<usize>()
            }
            Self::UserAnswer { text, .. } => text.len(),
            Self::Notice(notice) => notice.fields.get().len(),
            Self::Begin(_)
            | Self::MessageAck { .. }
            | Self::MessageRejected { .. }
            | Self::AnswerAck { .. }
            | Self::AnswerRejected { .. }
            | Self::Status(_)
            | Self::Thinking
            | Self::Ping { .. }
            | Self::Unknown { .. } => 0,
        }
    }
}

/// The verdict on a cursor, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The epoch of the numbers.
    pub epoch: Epoch,
    /// The verdict.
    pub verdict: CursorVerdict,
    /// The first number of what follows.
    #[serde(deserialize_with = "sequence")]
    pub from: u64,
    /// The last number of it; `from - 1` if there is none.
    #[serde(deserialize_with = "sequence")]
    pub to: u64,
}

/// Everything that a client must show.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Extension: the epoch of its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The newest rows, ascending.
    pub messages: Vec<HistoryMessage>,
    /// Extension: what the application is doing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_or_none")]
    pub status: Option<Status>,
    /// Extension: the question that waits for its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_question: Option<Question>,
    /// Extension: whether there are older rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

impl History {
    /// How many bytes it is counted with.
    pub fn cost(&self) -> usize {
        let cost = |message: &HistoryMessage| {
            message.text.len()
                + message.attachments.iter().map(Attachment::cost).sum::<usize>()
                + 128
        };
        self.messages.iter().map(cost).sum()
    }
}

/// A row, in a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryMessage {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub text: String,
    /// Extension: the position of the row.
    #[serde(
        rename = "id",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "position"
    )]
    pub position: Option<u64>,
    /// Extension: what the row is.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_or_none")]
    pub kind: Option<Kind>,
    /// Extension: the client's id of the input that it came from.
    #[serde(rename = "input_id", default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Name>,
    /// Extension: the question that it asks or answers.
    #[serde(rename = "question_id", default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Name>,
    /// Extension: what came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

impl From<&Row> for HistoryMessage {
    fn from(row: &Row) -> Self {
        Self {
            role: row.role,
            text: row.text.clone(),
            position: Some(row.position),
            kind: Some(row.kind),
            input: row.input.clone(),
            question: row.question.clone(),
            attachments: row.attachments.clone(),
        }
    }
}

/// What the assistant said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assistant {
    /// The text.
    pub text: String,
    /// The model.
    #[serde(default)]
    pub model: String,
    /// What it cost.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// Extension: the position of its row.
    #[serde(
        rename = "id",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "position"
    )]
    pub position: Option<u64>,
    /// Extension: `interrupted` if it says that a turn failed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_or_none")]
    pub kind: Option<Kind>,
}

/// A `notification` that changes no view but what is going on just now.
#[derive(Debug, Clone)]
pub struct Notice {
    /// Its kind, for example `tool_calling`.
    pub kind: String,
    /// Its other fields: a JSON object.
    pub fields: Box<RawValue>,
}

impl PartialEq for Notice {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.fields.get() == other.fields.get()
    }
}

/// The kinds of notifications that have no number.
pub const EPHEMERAL_KINDS: [&str; 5] =
    ["tool_calling", "agent_progress", "status_transition", "input_queued", "affect_tick"];

impl Notice {
    /// Whether it has no number.
    pub fn is_ephemeral(&self) -> bool {
        EPHEMERAL_KINDS.contains(&self.kind.as_str())
    }

    /// Whether it tells how a turn is getting on.
    pub fn is_progress(&self) -> bool {
        // The mood of the application is ephemeral, too, and comes while nothing is going on.
        self.is_ephemeral() && self.kind != "affect_tick"
    }
}

// ---- reading and writing ---------------------------------------------------------------------

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    seq: Option<Value>,
}

#[derive(Serialize, Deserialize)]
struct RawMessage {
    text: String,
    #[serde(rename = "client_msg_id", default)]
    id: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attachments: Option<Vec<Attachment>>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "sequence_or_none"
    )]
    after: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct RawAnswer {
    text: String,
    #[serde(rename = "answer_id", default, skip_serializing_if = "Option::is_none")]
    id: Option<Name>,
    #[serde(rename = "question_id", default, skip_serializing_if = "Option::is_none")]
    question: Option<Name>,
}

#[derive(Serialize, Deserialize)]
struct RawAck {
    #[serde(deserialize_with = "sequence")]
    seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
}

/// The fields of the frames about inputs and rows.
#[derive(Default, Serialize, Deserialize)]
struct Raw {
    #[serde(
        rename = "id",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "position"
    )]
    position: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer_id: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    question_id: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attachments: Option<Vec<Attachment>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent: Option<Value>,
}

/// The notification that is a verdict.
#[derive(Serialize)]
struct RawQueueFull {
    kind: &'static str,
    queue_cap: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<Name>,
}

impl ClientFrame {
    /// Reads a text frame that a client sent.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the frame is to be ignored, the link stays.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let head: Head<'_> = parse_object(text)?;
        match head.kind.as_deref().ok_or(FrameError::NoType)? {
            "user_message" => {
                let RawMessage { text, id, attachments, after } = fields("user_message", text)?;
                let attachments = attachments.unwrap_or_default();
                Ok(Self::UserMessage { id, text, attachments, after })
            }
            "user_answer" => {
                let RawAnswer { text, id, question } = fields("user_answer", text)?;
                Ok(Self::UserAnswer { id, question, text })
            }
            "ack" => {
                let RawAck { seq, epoch } = fields("ack", text)?;
                Ok(Self::Ack { seq, epoch })
            }
            "pong" => Ok(Self::Pong),
            other => Err(unknown(other)),
        }
    }

    /// The text of the frame, with or without the fields of the extension.
    pub fn to_text(&self, extension: bool) -> String {
        match self.clone() {
            Self::UserMessage { id, text, attachments, after } => {
                let after = after.filter(|_| extension);
                let attachments = Some(attachments).filter(|attachments| !attachments.is_empty());
                written(None, "user_message", &RawMessage { text, id, attachments, after })
            }
            Self::UserAnswer { id, question, text } => {
                let (id, question) = (id.filter(|_| extension), question.filter(|_| extension));
                written(None, "user_answer", &RawAnswer { text, id, question })
            }
            Self::Ack { seq, epoch } => {
                let epoch = epoch.filter(|_| extension);
                written(None, "ack", &RawAck { seq, epoch })
            }
            Self::Pong => r#"{"type":"pong"}"#.to_owned(),
        }
    }
}

impl ServerFrame {
    /// Reads a text frame that a server sent.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the frame is to be ignored, the link stays.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let head: Head<'_> = parse_object(text)?;
        let seq = match &head.seq {
            None => 0,
            Some(value) => integer(value).ok_or_else(|| {
                bad("server", format!("`seq` must be an integer from 0 to {MAX_SEQUENCE}"))
            })?,
        };
        let kind = head.kind.as_deref().ok_or(FrameError::NoType)?;
        let body = match Self::parse_body(kind, text) {
            Err(FrameError::UnknownType(kind)) if seq > 0 => Body::Unknown { kind },
            body => body?,
        };
        Ok(Self { seq, body })
    }

    fn parse_body(kind: &str, text: &str) -> Result<Body, FrameError> {
        Ok(match kind {
            "session_begin" => {
                let begin: Begin = fields("session_begin", text)?;
                let (from, to) = (begin.from, begin.to);
                if from == 0 || to + 1 < from {
                    let problem = format!("`from` {from} and `to` {to} are no range");
                    return Err(bad("session_begin", problem));
                }
                Body::Begin(begin)
            }
            "session_history" => Body::History(Arc::new(fields("session_history", text)?)),
            "assistant_message" => Body::Assistant(fields("assistant_message", text)?),
            "thinking" => Body::Thinking,
            "notification" => notification(text)?,
            "question" => {
                let raw: Raw = fields("question", text)?;
                let text = required("question", "text", raw.text)?;
                let source = raw.source.unwrap_or_default();
                let question = Question { id: raw.question_id, text, source };
                Body::Question { question, position: raw.position }
            }
            "user_message" => {
                let raw: Raw = fields("user_message", text)?;
                Body::UserMessage {
                    position: required("user_message", "id", raw.position)?,
                    id: raw.client_msg_id,
                    text: required("user_message", "text", raw.text)?,
                    attachments: raw.attachments.unwrap_or_default(),
                }
            }
            "user_answer" => {
                let raw: Raw = fields("user_answer", text)?;
                Body::UserAnswer {
                    position: required("user_answer", "id", raw.position)?,
                    question: raw.question_id,
                    text: required("user_answer", "text", raw.text)?,
                }
            }
            "user_message_ack" => {
                let raw: Raw = fields("user_message_ack", text)?;
                let id = required("user_message_ack", "client_msg_id", raw.client_msg_id)?;
                Body::MessageAck { id, position: raw.position }
            }
            "user_message_rejected" => {
                let raw: Raw = fields("user_message_rejected", text)?;
                let reason = rejection("user_message_rejected", raw.reason)?;
                Body::MessageRejected { id: raw.client_msg_id, reason }
            }
            "user_answer_ack" => {
                let raw: Raw = fields("user_answer_ack", text)?;
                Body::AnswerAck {
                    id: required("user_answer_ack", "answer_id", raw.answer_id)?,
                    question: raw.question_id,
                    position: required("user_answer_ack", "id", raw.position)?,
                }
            }
            "user_answer_rejected" => {
                let raw: Raw = fields("user_answer_rejected", text)?;
                Body::AnswerRejected {
                    id: required("user_answer_rejected", "answer_id", raw.answer_id)?,
                    question: raw.question_id,
                    reason: rejection("user_answer_rejected", raw.reason)?,
                }
            }
            "ping" => {
                let raw: Raw = fields("ping", text)?;
                Body::Ping { sent: raw.sent.as_ref().and_then(integer) }
            }
            other => return Err(unknown(other)),
        })
    }

    /// The text of the frame, with or without the fields of the extension.
    pub fn to_text(&self, extension: bool) -> String {
        let write = |kind: &str, raw: Raw| written(Some(self.seq), kind, &raw);
        let own = |position: Option<u64>| position.filter(|_| extension);
        let named = |name: &Option<Name>| name.clone().filter(|_| extension);
        match &self.body {
            Body::Begin(begin) => written(Some(self.seq), "session_begin", begin),
            Body::History(history) if extension => {
                written(Some(self.seq), "session_history", history)
            }
            Body::History(history) => {
                let base = |message: &HistoryMessage| HistoryMessage {
                    position: None,
                    kind: None,
                    input: None,
                    question: None,
                    attachments: Vec::new(),
                    ..message.clone()
                };
                let messages = history.messages.iter().map(base).collect();
                let base = History { messages, ..History::default() };
                written(Some(self.seq), "session_history", &base)
            }
            Body::Assistant(said) => {
                let kind = said.kind.filter(|_| extension);
                let said = Assistant { position: own(said.position), kind, ..said.clone() };
                written(Some(self.seq), "assistant_message", &said)
            }
            Body::Question { question, position } => write(
                "question",
                Raw {
                    text: Some(question.text.clone()),
                    source: Some(question.source.clone()),
                    question_id: named(&question.id),
                    position: own(*position),
                    ..Raw::default()
                },
            ),
            Body::UserMessage { position, id, text, attachments } => write(
                "user_message",
                Raw {
                    position: Some(*position),
                    client_msg_id: id.clone(),
                    text: Some(text.clone()),
                    attachments: Some(attachments.clone()),
                    ..Raw::default()
                },
            ),
            Body::UserAnswer { position, question, text } => write(
                "user_answer",
                Raw {
                    position: Some(*position),
                    question_id: question.clone(),
                    text: Some(text.clone()),
                    ..Raw::default()
                },
            ),
            Body::MessageAck { id, position } => write(
                "user_message_ack",
                Raw { client_msg_id: Some(id.clone()), position: own(*position), ..Raw::default() },
            ),
            Body::MessageRejected { id, reason: InputRejection::QueueFull { queue_cap } } => {
                let (kind, client_msg_id) = ("queue_full", id.clone());
                let raw = RawQueueFull { kind, queue_cap: *queue_cap, client_msg_id };
                written(Some(self.seq), "notification", &raw)
            }
            Body::MessageRejected { id, reason } => write(
                "user_message_rejected",
                Raw {
                    client_msg_id: id.clone(),
                    reason: Some(reason.as_str().to_owned()),
                    ..Raw::default()
                },
            ),
            Body::AnswerAck { id, question, position } => write(
                "user_answer_ack",
                Raw {
                    answer_id: Some(id.clone()),
                    question_id: question.clone(),
                    position: Some(*position),
                    ..Raw::default()
                },
            ),
            Body::AnswerRejected { id, question, reason } => write(
                "user_answer_rejected",
                Raw {
                    answer_id: Some(id.clone()),
                    question_id: question.clone(),
                    reason: Some(reason.as_str().to_owned()),
                    ..Raw::default()
                },
            ),
            Body::Status(status) => format!(
                "{{\"seq\":{},\"type\":\"notification\",\"kind\":\"status_transition\",\
                 \"status\":\"{}\",\"detail\":null}}",
                self.seq,
                status.as_str()
            ),
            Body::Notice(notice) => {
                let kind = serde_json::to_string(&notice.kind).expect("a string is always JSON");
                let head =
                    format!("{{\"seq\":{},\"type\":\"notification\",\"kind\":{kind}", self.seq);
                join(head, notice.fields.get())
            }
            Body::Thinking => format!("{{\"seq\":{},\"type\":\"thinking\"}}", self.seq),
            Body::Ping { sent } => {
                write("ping", Raw { sent: own(*sent).map(Value::from), ..Raw::default() })
            }
            Body::Unknown { kind } => {
                let kind = serde_json::to_string(kind).expect("a string is always JSON");
                format!("{{\"seq\":{},\"type\":{kind}}}", self.seq)
            }
        }
    }
}

fn notification(text: &str) -> Result<Body, FrameError> {
    // As they came: what is passed on is not read, and a number may have more digits than a float.
    let mut object: BTreeMap<String, Box<RawValue>> = parse_object(text)?;
    let read = |value: &RawValue| serde_json::from_str::<Value>(value.get()).ok();
    let kind = object.remove("kind").as_deref().and_then(read);
    let Some(Value::String(kind)) = kind else {
        return Err(bad("notification", "`kind` is missing, or no string".to_owned()));
    };
    let status = object.get("status").map(AsRef::as_ref).and_then(read);
    let status = status.as_ref().and_then(Value::as_str).and_then(Status::parse);
    let queue_cap =
        object.get("queue_cap").map(AsRef::as_ref).and_then(read).as_ref().and_then(integer);
    match (kind.as_str(), status, queue_cap) {
        ("status_transition", Some(status), _) => Ok(Body::Status(status)),
        ("queue_full", _, Some(queue_cap)) => {
            let id = object.remove("client_msg_id");
            let id = id.map(|id| serde_json::from_str::<Option<Name>>(id.get())).transpose();
            let id = id.map_err(|error| bad("notification", error.to_string()))?.flatten();
            Ok(Body::MessageRejected { id, reason: InputRejection::QueueFull { queue_cap } })
        }
        _ => {
            object.remove("seq");
            object.remove("type");
            let fields = serde_json::value::to_raw_value(&object)
                .map_err(|error| bad("notification", error.to_string()))?;
            Ok(Body::Notice(Notice { kind, fields }))
        }
    }
}

fn required<T>(frame: &'static str, name: &str, value: Option<T>) -> Result<T, FrameError> {
    value.ok_or_else(|| bad(frame, format!("`{name}` is missing")))
}

fn rejection(frame: &'static str, reason: Option<String>) -> Result<InputRejection, FrameError> {
    let reason = required(frame, "reason", reason)?;
    InputRejection::parse(&reason).ok_or_else(|| bad(frame, format!("unknown reason `{reason}`")))
}

/// A number, or 0.
fn sequence<'de, D: Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    integer(&Value::deserialize(value)?)
        .ok_or_else(|| D::Error::custom(format!("a number is an integer from 0 to {MAX_SEQUENCE}")))
}

fn sequence_or_none<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    match Value::deserialize(value)? {
        Value::Null => Ok(None),
        value => sequence(value).map(Some).map_err(D::Error::custom),
    }
}

/// The place of a row, from 1.
fn position<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    match sequence_or_none(value)? {
        Some(0) => Err(D::Error::custom("positions begin at 1")),
        position => Ok(position),
    }
}

/// One of the values that this side knows; newer peers may have others [CORE-13].
fn known_or_none<'de, T, D>(value: D) -> Result<Option<T>, D::Error>
where
    T: serde::de::DeserializeOwned,
    D: Deserializer<'de>,
{
    Ok(serde_json::from_value(Value::deserialize(value)?).ok())
}

/// A frame: its number, its type, and the fields of an object.
fn written<T: Serialize>(seq: Option<u64>, kind: &str, fields: &T) -> String {
    let head = match seq {
        Some(seq) => format!("{{\"seq\":{seq},\"type\":\"{kind}\""),
        None => format!("{{\"type\":\"{kind}\""),
    };
    join(head, &serde_json::to_string(fields).expect("a frame is always JSON"))
}

/// Puts an object's fields behind those of an unfinished one.
fn join(head: String, object: &str) -> String {
    let inner = object.trim().trim_start_matches('{').trim_start();
    match inner.starts_with('}') {
        true => head + "}",
        false => head + "," + inner,
    }
}
