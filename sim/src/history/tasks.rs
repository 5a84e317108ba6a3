//! What of tasks the outside can see.
//!
//! An attempt is named `task/attempt`, a stream `stdout` or `stderr`. Bytes are seen as a digest:
//! equal bytes have equal ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far an agent has taken an attempt.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It has it.
    Received,
    /// It has begun it.
    Running,
    /// It has a result.
    Ended,
}

/// What an agent says of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// It has it.
    Received,
    /// It begins.
    Started,
    /// It has no room for it: the code.
    Refused(String),
    /// A piece of output.
    Output {
        /// The stream.
        stream: String,
        /// The number.
        sequence: u64,
        /// What the bytes are.
        digest: u64,
        /// Whether it declares that numbers before it will never come.
        declares: bool,
    },
    /// The result.
    Final {
        /// The name of the message.
        message_id: String,
        /// What the result is.
        digest: u64,
    },
}

/// A stream of an attempt, as the controller's record has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// The pieces: their numbers, and what their bytes are.
    pub pieces: Vec<(u64, u64)>,
    /// What will never come: inclusive ranges.
    pub lost: Vec<(u64, u64)>,
    /// Everything up to this number is there or lost.
    pub highest: u64,
}

/// An attempt, as the controller's record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// Which.
    pub attempt: String,
    /// `pending`, `delivered`, `received`, `running`, `discarded`, `interrupted` or `final`.
    pub state: String,
    /// What its result is, if it has one.
    pub result: Option<u64>,
    /// The exit code of the result.
    pub exit_code: Option<i64>,
    /// How much the result says of what went wrong, in bytes.
    pub error_bytes: u64,
    /// Whether the result is that the agent ended while the command ran.
    pub interrupted: bool,
    /// Whether the result says that output was lost, per stream.
    pub truncated: [bool; 2],
    /// Standard output and standard error.
    pub streams: [StreamEnd; 2],
}

/// What can be seen of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskSeen {
    /// Somebody began to submit a task.
    Submitting {
        /// The agent, by number.
        agent: u32,
        /// The task.
        task: String,
    },
    /// It was accepted, with this attempt.
    Submitted {
        /// The task.
        task: String,
        /// The attempt.
        attempt: String,
    },
    /// It was not accepted.
    NotSubmitted {
        /// The task.
        task: String,
    },
    /// Nobody knows whether it was accepted.
    SubmitUnknown {
        /// The task.
        task: String,
    },
    /// Somebody wants the task no more, and was told how far it is.
    Cancelled {
        /// The task.
        task: String,
        /// The state of its last attempt.
        state: String,
    },
    /// The first frame of a connection: what the agent says that it knows.
    Hello {
        /// The agent.
        agent: u32,
        /// Which of its connections.
        connection: u64,
        /// How large the frame is.
        bytes: usize,
        /// Attempts that it has not begun.
        received: Vec<String>,
        /// Attempts that run.
        running: Vec<String>,
        /// Attempts of which it has a result that is not acknowledged.
        finals: Vec<String>,
        /// Whether all results and all output that wait are named.
        complete: bool,
    },
    /// The answer to the hello of a connection came out of the network at the agent.
    Answered {
        /// The agent.
        agent: u32,
        /// Which of its connections.
        connection: u64,
        /// From which number each stream is wanted that is named.
        wanted: Vec<(String, String, u64)>,
        /// Attempts that are not to be begun.
        discarded: Vec<String>,
        /// Whether it says something about output at all.
        directed: bool,
        /// The agent's store has been replaced by another copy: it is not served.
        refused: bool,
        /// A fault took the answer: the agent has not heard it.
        lost: bool,
        /// A fault changed it: the controller has said something else.
        changed: bool,
    },
    /// An attempt came out of the network at the agent, to be made.
    Delivered {
        /// The agent.
        agent: u32,
        /// On which of its connections.
        connection: u64,
        /// The attempt.
        attempt: String,
    },
    /// The agent said something of an attempt.
    Said {
        /// The agent.
        agent: u32,
        /// On which of its connections.
        connection: u64,
        /// Which attempt.
        attempt: String,
        /// What.
        message: Message,
    },
    /// A result came to the controller, over whatever transport.
    Came {
        /// Which attempt.
        attempt: String,
        /// The name of the message.
        message_id: String,
        /// What the result is.
        digest: u64,
    },
    /// An acknowledgement came out of the network at the agent.
    Acked {
        /// The agent.
        agent: u32,
        /// On which of its connections.
        connection: u64,
        /// The attempt.
        attempt: String,
        /// `task.received`, `task.started`, `task.output` or `task.final`.
        kind: String,
        /// The stream and the number up to which the controller has it, of output.
        through: Option<(String, u64)>,
    },
    /// The agent's store has it that an attempt is at least this far.
    Kept {
        /// The agent.
        agent: u32,
        /// The attempt.
        attempt: String,
        /// How far.
        stage: Stage,
    },
    /// The agent's store has bound a number to bytes.
    Bound {
        /// The agent.
        agent: u32,
        /// The attempt.
        attempt: String,
        /// The stream.
        stream: String,
        /// The number.
        sequence: u64,
        /// What the bytes are, as far as the contract can carry them.
        digest: u64,
        /// How many.
        bytes: u64,
        /// Whether they are what the command wrote after those of the number before.
        as_written: bool,
    },
    /// At the start of an agent, its store knows this of an attempt; `None` = nothing.
    Remembered {
        /// The agent.
        agent: u32,
        /// The attempt.
        attempt: String,
        /// How far it is.
        stage: Option<Stage>,
    },
    /// The command of an attempt began to run.
    Ran {
        /// The agent.
        agent: u32,
        /// The attempt.
        attempt: String,
    },
    /// It ended by itself.
    Ended {
        /// The agent.
        agent: u32,
        /// The attempt.
        attempt: String,
        /// With this code.
        exit_code: i64,
        /// How many bytes it wrote, per stream.
        wrote: [u64; 2],
        /// How much it said of what went wrong.
        error_bytes: u64,
    },
    /// The agent's database takes more of the disk than ever before.
    Spool {
        /// The agent.
        agent: u32,
        /// Bytes, with the write-ahead log.
        bytes: u64,
        /// At most.
        cap: u64,
    },
    /// An attempt waits in the agent's queue, with so many others.
    Waiting {
        /// The agent.
        agent: u32,
        /// How many wait.
        count: usize,
        /// At most.
        max: usize,
    },
    /// An older copy took the place of the agent's store, or an empty one.
    StoreReplaced {
        /// The agent.
        agent: u32,
    },
    /// An older copy took the place of the controller's record, or an empty one.
    RecordReplaced,
    /// The record has it that an attempt is in this state.
    State {
        /// The attempt.
        attempt: String,
        /// As in [`AttemptEnd::state`].
        state: String,
    },
    /// At the end of the run, the record holds this of a task.
    TaskEnd {
        /// The task.
        task: String,
        /// Whether it is not wanted any more.
        cancelled: bool,
        /// The attempts, oldest first.
        attempts: Vec<AttemptEnd>,
    },
    /// At the end of the run, this waits in the agent's store.
    AgentEnd {
        /// The agent.
        agent: u32,
        /// Attempts that have not ended.
        open: Vec<String>,
        /// Attempts of which a result waits for an acknowledgement.
        results: Vec<String>,
        /// How many runs of output wait for an acknowledgement.
        output: usize,
    },
}
