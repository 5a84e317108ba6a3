//! The frames of the task protocol: one JSON object per WebSocket text frame.
//!
//! Carries the base contract and the extension [`EXTENSION`]. Parsing is total: what comes out is
//! well formed, what is not well formed is a [`FrameError`], and unknown types and fields are no
//! reason to drop a link [CORE-13]. Nothing here knows about state.

mod json;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Attempt, MessageId, Outcome, OutputStream};
use crate::AgentId;
use crate::recovery::{Epoch, Range, WallTime};

#[cfg(feature = "net")]
pub(super) use json::{RawFinal, whole};
pub use json::{parse_agent, parse_controller};

/// The extension: offered in `agent.hello`, in force once `agent.hello_ack` repeats it.
pub const EXTENSION: &str = "gapless.tasks.v1";

/// The version of the envelope.
pub const PROTOCOL_VERSION: u64 = 1;

/// A frame: what is said, by which name, about which agent, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<M> {
    /// Names the message.
    pub message_id: MessageId,
    /// Whose connection it is.
    pub agent: AgentId,
    /// The sender's wall clock. For people.
    pub sent_at: WallTime,
    /// What is said.
    pub message: M,
}

/// What an agent sends.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentMessage {
    /// `agent.hello`: the first frame of a connection, all that the agent knows.
    Hello(Box<Hello>),
    /// `task.received`: the attempt is accepted, durably.
    Received(Attempt),
    /// `task.started`: the command is about to run, durably.
    Started(Attempt),
    /// `task.output`: a piece of output.
    Output(Output),
    /// `task.output_lost`, extension only: the end of a stream will never come, and no piece follows
    /// that could say so.
    Lost(LostOutput),
    /// `task.final`: how the attempt ended.
    Final(Final),
    /// `error`, extension only: the agent does not do what was asked.
    Error(ErrorFrame),
}

/// What a controller sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ControllerMessage {
    /// `agent.hello_ack`: what the controller makes of the hello.
    HelloAck(HelloAck),
    /// `task.deliver`: an attempt to be made.
    Deliver(Deliver),
    /// `task.query`, extension only: what became of an attempt? It is not to be made.
    Query(Attempt),
    /// `ack`: a message is durable at the controller.
    Ack(Ack),
    /// `error`: a message was not accepted.
    Error(ErrorFrame),
}

/// All that an agent knows, from one moment of its store [TK-7].
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// The newest attempt that runs, for the base contract.
    pub running_task: Option<RunningAttempt>,
    /// Extension: all attempts that run.
    pub running_tasks: Vec<RunningAttempt>,
    /// What was accepted and has not begun.
    pub received_not_started: Vec<ReceivedAttempt>,
    /// Results that are not acknowledged, oldest first.
    pub unacked_finals: Vec<(MessageId, Final)>,
    /// Output that is not acknowledged: one entry per stream and run of numbers, oldest first.
    pub unacked_output: Vec<UnackedOutput>,
    /// Extension: ends of streams of ended attempts that were given up. No piece follows that could
    /// say so.
    pub lost_output: Vec<LostOutput>,
    /// How full the store is.
    pub spool: SpoolStatus,
    /// The version of the agent's program.
    pub client_version: String,
    /// Extension: the life of the store, and the one before it.
    pub store: Option<StoreLife>,
    /// Extension: whether results and output are listed to the last; attempts always are.
    pub complete: bool,
}

/// An attempt that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningAttempt {
    /// Which.
    pub attempt: Attempt,
    /// Since when, by the agent's clock.
    pub started_at: WallTime,
    /// The highest sequence of each stream; 0 = nothing yet.
    pub last_output: BTreeMap<OutputStream, u64>,
}

/// An attempt that was accepted and has not begun.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedAttempt {
    /// Which.
    pub attempt: Attempt,
    /// Since when, by the agent's clock.
    pub received_at: WallTime,
}

/// Numbers of a stream that wait for an acknowledgement.
#[derive(Debug, Clone, PartialEq)]
pub struct UnackedOutput {
    /// The attempt.
    pub attempt: Attempt,
    /// The stream.
    pub stream: OutputStream,
    /// The numbers.
    pub range: Range,
    /// Whether numbers before the range were given up for want of space.
    pub truncated_locally: bool,
}

/// Numbers of a stream that will never come.
#[derive(Debug, Clone, PartialEq)]
pub struct LostOutput {
    /// The attempt.
    pub attempt: Attempt,
    /// The stream.
    pub stream: OutputStream,
    /// The numbers.
    pub range: Range,
}

/// How full an agent's store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolStatus {
    /// Bytes on disk.
    pub bytes_used: u64,
    /// At most.
    pub byte_cap: u64,
    /// Whether output of an attempt that is known was given up.
    pub has_rotated_chunks: bool,
}

/// One life of a store: each start of the agent opens a new one [TK-7] [CORE-2].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLife {
    /// This life.
    pub epoch: Epoch,
    /// The last one before it of which a controller has answered a hello; `None` if there is none.
    pub predecessor: Option<Epoch>,
    /// Those before it, newest first, as far as they are listed: a controller that was restored may
    /// know only one of them.
    pub earlier: Vec<Epoch>,
}

/// How many lives before the predecessor are listed.
pub const EARLIER_LIVES_MAX: usize = 16;

/// What the controller makes of a hello [TK-8].
#[derive(Debug, Clone, PartialEq)]
pub struct HelloAck {
    /// The hello's message id.
    pub acked: MessageId,
    /// Results that the controller has. `None` = nothing is said about results.
    pub acknowledged_finals: Option<Vec<MessageId>>,
    /// Attempts that are not to be begun. `None` = nothing is said about discards.
    pub discarded: Option<Vec<Discarded>>,
    /// Where the replay of each stream is to begin. `None` = everything is to be replayed.
    pub output_replay: Option<Vec<ReplayFrom>>,
    /// Whether the extension is in force.
    pub extension: bool,
}

/// An attempt that is not to be begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Discarded {
    /// Which.
    pub attempt: Attempt,
    /// Why, for a person.
    pub reason: String,
}

/// The next number of a stream that the controller wants.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayFrom {
    /// The attempt.
    pub attempt: Attempt,
    /// The stream.
    pub stream: OutputStream,
    /// The number; everything below it is acknowledged.
    pub next_sequence: u64,
}

/// An attempt to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Deliver {
    /// Which.
    pub attempt: Attempt,
    /// What to run. Not empty.
    pub command: String,
    /// For the order in the queue: higher first.
    pub priority: i64,
}

/// A piece of output [TK-4].
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The attempt.
    pub attempt: Attempt,
    /// The stream.
    pub stream: OutputStream,
    /// The number of the piece in its stream, from 1.
    pub sequence: u64,
    /// The bytes. Valid UTF-8 travels as `data`, anything else as `data_b64` (extension).
    pub data: Bytes,
    /// Whether numbers before this one were given up: those that the controller does not have will
    /// never come [TK-5].
    pub truncated_locally: bool,
}

/// How an attempt ended [TK-3].
#[derive(Debug, Clone, PartialEq)]
pub struct Final {
    /// Which.
    pub attempt: Attempt,
    /// How.
    pub outcome: Outcome,
    /// The exit code; -1 if there is none.
    pub exit_code: i64,
    /// What went wrong, if the command did not run to its end by itself.
    pub error: String,
    /// Whether some of the standard output will never come.
    pub output_truncated: bool,
    /// Whether some of the standard error will never come.
    pub error_truncated: bool,
    /// Extension: the highest sequence of each stream; 0 = there was none.
    pub last_output: Option<BTreeMap<OutputStream, u64>>,
}

/// A message is durable at the controller [TK-9].
#[derive(Debug, Clone, PartialEq)]
pub struct Ack {
    /// The message.
    pub acked: MessageId,
    /// Its type, as on the wire.
    pub acked_type: String,
    /// The attempt that it was about.
    pub attempt: Option<Attempt>,
    /// For output: everything of the stream up to this number is durable.
    pub highest_output_sequence: Option<u64>,
}

/// A message was not accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorFrame {
    /// Why, for a program.
    pub code: String,
    /// Why, for a person.
    pub message: String,
    /// Whether the same message may be accepted later.
    pub retryable: bool,
    /// The message.
    pub related: Option<MessageId>,
    /// With [`codes::OUTPUT_SEQUENCE_GAP`]: everything up to this number is there.
    pub highest_accepted_sequence: Option<u64>,
    /// The attempt that it is about; extension, where the envelope has one.
    pub attempt: Option<Attempt>,
}

/// The codes of [`ErrorFrame`].
pub mod codes {
    /// To the agent: a number before this one is missing. Retryable.
    pub const OUTPUT_SEQUENCE_GAP: &str = "output_sequence_gap";
    /// To the agent: another copy of its store has taken its place. Not retryable.
    pub const STORE_FORKED: &str = "store_forked";
    /// To the agent: the message is not well formed, or about something unknown. Not retryable.
    pub const INVALID_MESSAGE: &str = "invalid_message";
    /// To the controller: no room for another result. Retryable.
    pub const SPOOL_FULL: &str = "spool_full";
    /// To the controller: too many attempts wait. Retryable.
    pub const QUEUE_FULL: &str = "queue_full";
    /// To the controller: the attempt that it asked about is not known. Not retryable.
    pub const UNKNOWN_ATTEMPT: &str = "unknown_attempt";
}

/// A frame cannot be understood. It changes nothing, and the link stays [CORE-13].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct FrameError {
    /// What is wrong with it.
    pub problem: String,
    /// Its message id, as far as it has one.
    pub message_id: Option<MessageId>,
}

impl FrameError {
    fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), message_id: None }
    }

    /// A binary frame of so many bytes, which the protocol does not know.
    pub fn binary(bytes: usize) -> Self {
        Self::new(format!("a binary frame of {bytes} bytes"))
    }
}
