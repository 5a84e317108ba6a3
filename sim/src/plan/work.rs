//! What happens when nothing goes wrong: what is published, submitted and said.

use serde::{Deserialize, Serialize};

/// Events to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The agent, by number.
    pub agent: u32,
    /// How many.
    pub count: u32,
    /// The time from one to the next.
    pub every_ms: u64,
    /// How many bytes of filler each has.
    pub bytes: u32,
    /// Whether they have ids. Without an id, an event of unknown outcome is not repeated.
    pub ids: bool,
    /// Whether each is published a second time with the same id after it was acknowledged.
    pub twice: bool,
}

/// Tasks to submit. If there are several, the k-th of them is called `<name>-<k>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// The id of the task.
    pub name: String,
    /// The agent, by number.
    pub agent: u32,
    /// How many.
    pub count: u32,
    /// The time from one to the next.
    pub every_ms: u64,
    /// Higher first.
    pub priority: i64,
    /// Whether each is submitted a second time after it was accepted.
    pub twice: bool,
    /// What each does.
    pub script: Script,
}

impl Submit {
    /// The id of the `nth` task, from 1.
    pub fn task(&self, nth: u32) -> String {
        match self.count {
            1 => self.name.clone(),
            _ => format!("{}-{nth}", self.name),
        }
    }
}

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// How often it writes to its standard output.
    pub stdout: u32,
    /// How often it writes to its standard error.
    pub stderr: u32,
    /// How many bytes each time.
    pub bytes: u32,
    /// The time from one to the next.
    pub every_ms: u64,
    /// What the bytes are.
    pub text: Text,
    /// The code with which it ends.
    pub exit: u8,
}

/// What a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    /// ASCII.
    Plain,
    /// Code points of several bytes, torn between two writes.
    Wide,
    /// Bytes that are no UTF-8.
    Binary,
}

/// Messages that a user says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Say {
    /// At which client, by number.
    pub client: u32,
    /// How many.
    pub count: u32,
    /// The time from one to the next.
    pub every_ms: u64,
    /// How many bytes of filler each has.
    pub bytes: u32,
    /// How many documents come with each.
    pub attachments: u32,
    /// Whether all of them say the same.
    pub same: bool,
    /// What the application does about each.
    pub script: TurnScript,
}

/// What the application does in a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TurnScript {
    /// How often it tells how it is getting on, before it says anything.
    pub progress: u32,
    /// How many messages it says.
    pub say: u32,
    /// How many bytes of filler each has.
    pub bytes: u32,
    /// How long each of these takes.
    pub each_ms: u64,
    /// How many questions it asks: one at the end of this turn, the next at the end of the turn
    /// for its answer, and so on.
    pub asks: u32,
    /// Whether it fails in the end instead.
    pub fails: bool,
}
