//! What an agent asks of its durable store.
//!
//! As with the log of events, the store is commands and replies: the core emits [`Command`]s, its
//! driver runs all that are ready as one transaction, and hands back the [`Reply`]s. Every command
//! that changes something may be repeated after an unknown outcome and gets the same answer.
//!
//! Three views of the store, for those who need but one: [`ReceiptStore`], [`ResultOutbox`],
//! [`RecoveryStore`].

#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::wire::{
    Final, LostOutput, ReceivedAttempt, RunningAttempt, SpoolStatus, StoreLife, UnackedOutput,
};
use super::{Attempt, MessageId, Outcome, OutputStream, Range, Status};
use crate::recovery::{Epoch, WallTime};
use crate::storage::{StoreCommand, StoreError, Transact};

/// One thing that the store is asked to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Begin a new life: name it, and end every attempt that was running as interrupted, each with
    /// one result [TK-2] [TK-7].
    Recover {
        /// The new life.
        epoch: Epoch,
        /// The agent's wall clock.
        at: WallTime,
    },
    /// A controller has answered a hello of this life: the next life names it [TK-7].
    Acknowledged(Epoch),
    /// Take an attempt, unless it is known, or there is no room for its result [TK-1] [TK-6].
    Receive(Receipt),
    /// The attempt is about to run [TK-1].
    Start {
        /// Which.
        attempt: Attempt,
        /// The agent's wall clock.
        at: WallTime,
    },
    /// Bind the next number of a stream to some bytes [TK-4]. The oldest output makes room [TK-5].
    Append(Append),
    /// The attempt has ended. Its result always fits [TK-3] [TK-6].
    Finish(Finish),
    /// The controller has this message: a result, or a piece of output [TK-9].
    Ack(MessageId),
    /// The controller has all of a stream up to a number [TK-9].
    AckOutput {
        /// The attempt.
        attempt: Attempt,
        /// The stream.
        stream: OutputStream,
        /// The number.
        through: u64,
    },
    /// The controller will never take this message: pass it over, and if it is output, remember its
    /// number as lost [TK-10].
    Quarantine(MessageId),
    /// Forget these attempts, as far as they have not begun [TK-8] [TK-18].
    Discard(Vec<Attempt>),
    /// What is known of an attempt?
    Find(Attempt),
    /// All that the agent knows, of one moment [TK-7].
    Snapshot {
        /// At most this many results; attempts are never cut.
        finals_max: usize,
        /// At most this many runs of output.
        ranges_max: usize,
    },
    /// Ends of streams of ended attempts that were given up, and that nobody has acknowledged.
    LostEnds {
        /// At most this many.
        count_max: usize,
    },
    /// What is to be sent, in the order in which it was stored.
    ReadOutbox {
        /// After this row; 0 = from the start.
        after: u64,
        /// At most this many messages.
        count_max: usize,
        /// Stop after the message with which this many bytes are reached.
        bytes_max: usize,
    },
}

impl StoreCommand for Command {
    type Reply = Reply;

    fn is_read_only(&self) -> bool {
        matches!(
            self,
            Self::Find(_) | Self::Snapshot { .. } | Self::LostEnds { .. } | Self::ReadOutbox { .. }
        )
    }
}

/// The answer to a command, in the order of the commands.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To [`Command::Recover`].
    Recovered(Recovered),
    /// To [`Command::Receive`].
    Received(Received),
    /// To [`Command::Start`]: what the attempt was before.
    Started(Started),
    /// To [`Command::Append`].
    Appended(Appended),
    /// To [`Command::Finish`]: the result of the attempt. If it had one, that one [TK-3].
    Finished(StoredFinal),
    /// To [`Command::Ack`], [`Command::AckOutput`], [`Command::Quarantine`] and
    /// [`Command::Acknowledged`]: how many messages are not waiting any more.
    Released(u64),
    /// To [`Command::Discard`]: those that are forgotten; the others had begun, or were not known.
    Discarded(Vec<Attempt>),
    /// To [`Command::Find`].
    Found(Option<Known>),
    /// To [`Command::Snapshot`].
    Snapshot(Snapshot),
    /// To [`Command::LostEnds`].
    LostEnds(Vec<LostOutput>),
    /// To [`Command::ReadOutbox`].
    Outbox(Vec<Message>),
}

/// An attempt that the agent was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Which.
    pub attempt: Attempt,
    /// What to run.
    pub command: String,
    /// For the order in the queue: higher first.
    pub priority: i64,
    /// The agent's wall clock.
    pub at: WallTime,
}

/// What became of a receipt.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// It is stored, and is to be run.
    New,
    /// The attempt is known.
    Known(Known),
    /// There is no room for another result: nothing is stored [TK-6].
    NoRoom,
}

/// What the store knows of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// How far it is.
    pub status: Status,
    /// What to run; `None` once the attempt has ended.
    pub command: Option<String>,
    /// Its result, also after it was acknowledged [TK-17].
    pub result: Option<StoredFinal>,
}

/// What an attempt was when it was to be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// Received: it is to be run now.
    Now,
    /// Running: it was begun before, by the same command if that is repeated.
    Before,
    /// Ended.
    Ended,
    /// Not there: it was discarded.
    Unknown,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The attempt.
    pub attempt: Attempt,
    /// The stream.
    pub stream: OutputStream,
    /// The number; the one after the last.
    pub sequence: u64,
    /// The bytes.
    pub data: Bytes,
}

/// What became of a piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The number names these bytes, now or since before.
    Stored {
        /// Where it is in the order of the store; 0 if it is not kept any more.
        row: u64,
    },
    /// The piece is larger than the spool may be: the number is lost, and remembered as such.
    TooLarge,
    /// The number names other bytes, or is not the next one: a fault of the caller.
    Conflict,
    /// The attempt is not running: a fault of the caller.
    NotRunning,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// Which.
    pub attempt: Attempt,
    /// How.
    pub outcome: Outcome,
    /// The exit code; -1 if there is none.
    pub exit_code: i64,
    /// What went wrong; cut to the size that was reserved.
    pub error: String,
    /// Streams of which some was lost before it came to the store.
    pub truncated: Vec<OutputStream>,
}

/// A result, as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredFinal {
    /// Where it is in the order of the store; 0 once it was acknowledged.
    pub row: u64,
    /// Names the message.
    pub message_id: MessageId,
    /// The result.
    pub result: Final,
}

/// What a store knows when a new life begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// The life, and the one before.
    pub life: StoreLife,
    /// What was accepted and has not begun, in the order in which it was accepted.
    pub received: Vec<Receipt>,
    /// What was running, and is interrupted.
    pub interrupted: Vec<Attempt>,
    /// How full the store is.
    pub spool: SpoolStatus,
}

/// All that an agent knows, of one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What runs, in the order in which it began.
    pub running: Vec<RunningAttempt>,
    /// What was accepted and has not begun.
    pub received: Vec<ReceivedAttempt>,
    /// Results that are not acknowledged, oldest first.
    pub finals: Vec<(MessageId, Final)>,
    /// Output that is not acknowledged.
    pub output: Vec<UnackedOutput>,
    /// Ends of streams of ended attempts that were given up.
    pub lost: Vec<LostOutput>,
    /// Whether results and output are listed to the last.
    pub complete: bool,
    /// How full the store is.
    pub spool: SpoolStatus,
    /// The highest row that was ever given.
    pub newest_row: u64,
}

/// A message that waits for an acknowledgement.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Where it is in the order of the store.
    pub row: u64,
    /// Names the message.
    pub message_id: MessageId,
    /// What it says.
    pub body: MessageBody,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum MessageBody {
    /// A piece of output.
    Output {
        /// The piece.
        chunk: Append,
        /// Numbers right before it that were given up.
        lost_before: Option<Range>,
    },
    /// A result.
    Final(Final),
}

/// The highest number of each stream of an attempt; 0 = none.
pub type LastOutput = BTreeMap<OutputStream, u64>;

fn one(
    store: &mut (impl Transact<Command> + ?Sized),
    command: Command,
) -> Result<Reply, StoreError> {
    let mut replies = store.transact(vec![command])?;
    match replies.pop() {
        Some(reply) if replies.is_empty() => Ok(reply),
        _ => Err(StoreError::Unknown("the store did not answer one command once".to_owned())),
    }
}

fn unexpected<T>(reply: Reply) -> Result<T, StoreError> {
    Err(StoreError::Unknown(format!("the store answered with {reply:?}")))
}

/// What was accepted, and how far it is.
pub trait ReceiptStore {
    /// Takes an attempt. See [`Command::Receive`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn receive(&mut self, receipt: Receipt) -> Result<Received, StoreError>;

    /// Says that an attempt is about to run. See [`Command::Start`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn start(&mut self, attempt: Attempt, at: WallTime) -> Result<Started, StoreError>;

    /// Forgets an attempt that has not begun, and says whether it did. See [`Command::Discard`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn discard(&mut self, attempt: Attempt) -> Result<bool, StoreError>;
}

/// Output and results, until they are acknowledged.
pub trait ResultOutbox {
    /// Stores a piece of output. See [`Command::Append`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn append(&mut self, append: Append) -> Result<Appended, StoreError>;

    /// Stores a result. See [`Command::Finish`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn finish(&mut self, finish: Finish) -> Result<StoredFinal, StoreError>;

    /// Lets go of a message. See [`Command::Ack`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn ack(&mut self, message: MessageId) -> Result<u64, StoreError>;

    /// What waits, after a row. See [`Command::ReadOutbox`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn unacked(&mut self, after: u64, count_max: usize) -> Result<Vec<Message>, StoreError>;
}

/// What is there after a restart.
pub trait RecoveryStore {
    /// Begins a new life. See [`Command::Recover`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn recover(&mut self, epoch: Epoch, at: WallTime) -> Result<Recovered, StoreError>;

    /// All that is known, of one moment. See [`Command::Snapshot`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn snapshot(&mut self) -> Result<Snapshot, StoreError>;
}

impl<T: Transact<Command> + ?Sized> ReceiptStore for T {
    fn receive(&mut self, receipt: Receipt) -> Result<Received, StoreError> {
        match one(self, Command::Receive(receipt))? {
            Reply::Received(received) => Ok(received),
            other => unexpected(other),
        }
    }

    fn start(&mut self, attempt: Attempt, at: WallTime) -> Result<Started, StoreError> {
        match one(self, Command::Start { attempt, at })? {
            Reply::Started(started) => Ok(started),
            other => unexpected(other),
        }
    }

    fn discard(&mut self, attempt: Attempt) -> Result<bool, StoreError> {
        match one(self, Command::Discard(vec![attempt]))? {
            Reply::Discarded(discarded) => Ok(!discarded.is_empty()),
            other => unexpected(other),
        }
    }
}

impl<T: Transact<Command> + ?Sized> ResultOutbox for T {
    fn append(&mut self, append: Append) -> Result<Appended, StoreError> {
        match one(self, Command::Append(append))? {
            Reply::Appended(appended) => Ok(appended),
            other => unexpected(other),
        }
    }

    fn finish(&mut self, finish: Finish) -> Result<StoredFinal, StoreError> {
        match one(self, Command::Finish(finish))? {
            Reply::Finished(result) => Ok(result),
            other => unexpected(other),
        }
    }

    fn ack(&mut self, message: MessageId) -> Result<u64, StoreError> {
        match one(self, Command::Ack(message))? {
            Reply::Released(count) => Ok(count),
            other => unexpected(other),
        }
    }

    fn unacked(&mut self, after: u64, count_max: usize) -> Result<Vec<Message>, StoreError> {
        match one(self, Command::ReadOutbox { after, count_max, bytes_max: usize::MAX })? {
            Reply::Outbox(messages) => Ok(messages),
            other => unexpected(other),
        }
    }
}

impl<T: Transact<Command> + ?Sized> RecoveryStore for T {
    fn recover(&mut self, epoch: Epoch, at: WallTime) -> Result<Recovered, StoreError> {
        match one(self, Command::Recover { epoch, at })? {
            Reply::Recovered(recovered) => Ok(recovered),
            other => unexpected(other),
        }
    }

    fn snapshot(&mut self) -> Result<Snapshot, StoreError> {
        let (finals_max, ranges_max) = (usize::MAX, usize::MAX);
        match one(self, Command::Snapshot { finals_max, ranges_max })? {
            Reply::Snapshot(snapshot) => Ok(snapshot),
            other => unexpected(other),
        }
    }
}
