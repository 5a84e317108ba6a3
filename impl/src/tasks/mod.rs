//! Tasks: commands that a controller gives to an agent, run once, with their output streamed back.
//!
//! The agent keeps everything in a durable store before it says it: that it took a task, that it
//! began, each piece of output, and the result. After a disconnect or a crash both sides compare
//! what they know, and go on where the other has proof of.
//!
//! The modules:
//!
//! * [`wire`]: the frames;
//! * [`agent`] and [`controller`]: the two sans-IO cores;
//! * [`store`]: what the agent asks of its durable store, and that store on SQLite;
//! * [`chunker`] and [`auth`]: how output is cut, and who is let in;
//! * `driver`: the cores over sockets, HTTP and processes (feature `net`).

pub mod agent;
pub mod auth;
pub mod chunker;
pub mod controller;
#[cfg(feature = "net")]
pub mod driver;
pub mod store;
pub mod wire;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The text is no name of a task or an attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to 96 printable ASCII characters, no space and no `/`; got {0:?}")]
pub struct InvalidId(String);

/// The longest id of a task or an attempt, in bytes.
pub const ID_LENGTH_MAX: usize = 96;

/// The longest id of a message, in bytes.
pub const MESSAGE_ID_LENGTH_MAX: usize = 256;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes the text of an id.
            ///
            /// # Errors
            ///
            /// [`InvalidId`] if the text is empty, too long, or has other characters.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let fits = (1..=ID_LENGTH_MAX).contains(&text.len());
                if fits && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidId(text.chars().take(ID_LENGTH_MAX).collect()))
                }
            }

            /// The text of the id.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

id! {
    /// What is to be done: 1 to 96 printable ASCII characters without spaces or `/`.
    TaskId
}

id! {
    /// One try at a task: 1 to 96 printable ASCII characters without spaces or `/`.
    AttemptId
}

/// A try at a task. The two ids together are its name; neither is one alone [TK-15].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The task.
    pub task: TaskId,
    /// The try.
    pub id: AttemptId,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.task, self.id)
    }
}

/// Names a message for ever: who gets it a second time knows that it is the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Checks and takes the text of an id: 1 to 256 bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidMessageId`] if the text is empty or too long.
    pub fn parse(text: &str) -> Result<Self, InvalidMessageId> {
        match (1..=MESSAGE_ID_LENGTH_MAX).contains(&text.len()) {
            true => Ok(Self(text.into())),
            false => Err(InvalidMessageId),
        }
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no name of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message id has 1 to 256 bytes")]
pub struct InvalidMessageId;

impl TryFrom<String> for MessageId {
    type Error = InvalidMessageId;

    fn try_from(text: String) -> Result<Self, InvalidMessageId> {
        Self::parse(&text)
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the two things that a command writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The command ended with exit code 0.
    Completed,
    /// It could not be started, or ended with another code.
    Failed,
    /// The agent ended while the command ran: how far it came is not known.
    Interrupted,
}

/// How far an attempt is. It only ever ascends [TK-3].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Accepted, and not begun.
    Received,
    /// Begun.
    Running,
    /// Ended.
    Final(Outcome),
}

pub use crate::recovery::Range;
