//! The rows of a conversation, and what a server asks of the store that keeps them.
//!
//! Every command that writes can be given again after an outcome that is not known: it is told by
//! its ids what it has done already. That makes the retries of a core harmless.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::wire::{Attachment, InputRejection, Question, Usage};
use super::{Name, Turn};
use crate::storage::StoreCommand;

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The user.
    User,
    /// The application.
    Assistant,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something that was said, by either.
    Message,
    /// A question of the application.
    Question,
    /// The user's answer to one.
    Answer,
    /// The application could not finish a turn: it failed, or its process ended.
    Interrupted,
}

/// One entry of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its place, from 1. Never used twice in a conversation.
    pub position: u64,
    /// Who said it.
    pub role: Role,
    /// What it is.
    pub kind: Kind,
    /// What was said.
    pub text: String,
    /// The client's id of the input that it came from.
    pub input: Option<Name>,
    /// The question that it asks or answers.
    pub question: Option<Name>,
    /// What came with it.
    pub attachments: Vec<Attachment>,
    /// Who asks: `cognitive`, `agent:NAME`. Questions only.
    pub source: Option<String>,
    /// The model that said it.
    pub model: String,
    /// What it cost.
    pub usage: Option<Usage>,
}

impl Row {
    /// The row that an input is at this position; `question` is what it answers.
    pub fn of_input(position: u64, input: &Input, question: Option<Name>) -> Self {
        let (kind, attachments) = match &input.what {
            What::Message { attachments, .. } => (Kind::Message, attachments.clone()),
            What::Answer { .. } => (Kind::Answer, Vec::new()),
        };
        Self {
            position,
            role: Role::User,
            kind,
            text: input.text.clone(),
            input: Some(input.id.clone()),
            question,
            attachments,
            source: None,
            model: String::new(),
            usage: None,
        }
    }

    /// The question, if the row asks one.
    pub fn as_question(&self) -> Option<Question> {
        let id = self.question.clone().filter(|_| self.kind == Kind::Question)?;
        let source = self.source.clone().unwrap_or_default();
        Some(Question { id: Some(id), text: self.text.clone(), source })
    }

    /// How much memory the row is counted with, in bytes.
    pub fn cost(&self) -> usize {
        let attachments: usize = self.attachments.iter().map(Attachment::cost).sum();
        self.text.len() + self.model.len() + attachments + 256
    }
}

/// Something that the user wants said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The client's id of it: who sends it again uses the same.
    pub id: Name,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// The text.
    pub text: String,
}

/// A message or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum What {
    /// A message.
    Message {
        /// What comes with it.
        attachments: Vec<Attachment>,
        /// The newest position that the client knew when it was written; absent: unknown.
        after: Option<u64>,
    },
    /// An answer.
    Answer {
        /// To which question; absent: to the one that is open (base contract).
        question: Option<Name>,
        /// What was asked. It is for the client alone: a base server's questions have no ids by
        /// which one could be told from the next [SE-5l].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
    },
}

/// What a server asks of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// At the start of a process: turns that had begun are over. [`Reply::Recovered`]
    Recover,
    /// Which conversations have inputs whose turn has not begun? [`Reply::Waiting`]
    Waiting {
        /// Those after this principal, in the order of the store.
        after: Option<Arc<str>>,
        /// At most so many.
        count_max: usize,
    },
    /// The newest rows of a conversation. [`Reply::Loaded`]
    Load {
        /// Whose.
        principal: Arc<str>,
        /// At most so many rows.
        count_max: usize,
        /// At most so many bytes, as rows count them; the newest row is in any case.
        bytes_max: usize,
    },
    /// Accept an input, or say what was said about it before. [`Reply::Input`]
    Input {
        /// Whose.
        principal: Arc<str>,
        /// What.
        input: Input,
        /// At most so many messages may wait for their turn.
        queue_max: usize,
    },
    /// A turn begins. [`Reply::Begun`]
    Begin(Turn),
    /// The application said something during a turn. [`Reply::Row`]
    Say {
        /// During which turn.
        turn: Turn,
        /// The n-th thing that it said, from 1.
        nth: u64,
        /// What.
        saying: Saying,
    },
    /// A turn is over. [`Reply::Ended`]
    End {
        /// Which.
        turn: Turn,
        /// How.
        ending: Ending,
    },
}

/// Something that the application says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saying {
    /// The text.
    pub text: String,
    /// The model.
    pub model: String,
    /// What it cost.
    pub usage: Option<Usage>,
}

/// How a turn ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Everything is said.
    Done,
    /// With a question: the answer will be a turn.
    Ask {
        /// The id of the question: fresh.
        question: Name,
        /// The text.
        text: String,
        /// Who asks.
        source: String,
    },
    /// It failed; the text is shown.
    Failed(String),
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Command::Recover`]: how many turns were interrupted.
    Recovered(u64),
    /// To [`Command::Waiting`]: the principals, in the order of the store.
    Waiting(Vec<Arc<str>>),
    /// To [`Command::Load`].
    Loaded(Loaded),
    /// To [`Command::Input`].
    Input(Verdict),
    /// To [`Command::Begin`]: whether the turn runs; `false` if it is over already.
    Begun(bool),
    /// To [`Command::Say`]: the row that it is.
    Row(Row),
    /// To [`Command::End`]: the row that the ending is, if it is one.
    Ended(Option<Row>),
}

/// The state of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The newest rows, ascending.
    pub rows: Vec<Row>,
    /// Whether there are older ones.
    pub truncated: bool,
    /// The question that is open, whatever its age.
    pub question: Option<Question>,
    /// The inputs whose turn has not begun, ascending. An answer is first.
    pub waiting: Vec<Row>,
}

/// What becomes of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is a row now.
    Accepted(Row),
    /// It was accepted before, at this position.
    Known {
        /// The position of its row.
        position: u64,
        /// The question that it answered, if it is an answer.
        question: Option<Name>,
    },
    /// It is rejected, now or before.
    Rejected(InputRejection),
}

impl StoreCommand for Command {
    type Reply = Reply;

    fn is_read_only(&self) -> bool {
        matches!(self, Self::Load { .. } | Self::Waiting { .. })
    }
}
