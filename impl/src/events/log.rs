//! What the server asks of its durable log.
//!
//! The log is commands and replies, not a handle: the core emits [`Command`]s, whoever drives it
//! runs all that are ready as one transaction and hands back the [`Reply`]s. That makes group
//! commit the normal case and lets the log be SQLite or a remote engine.
//!
//! A log belongs to one server, or is shared by several. What is said of a shared log here is no
//! matter of the other.

use super::AgentId;
use super::wire::EventBody;
use crate::recovery::{Epoch, Lineage, WallTime};
use crate::storage::{StoreCommand, StoreError};

/// One thing that the log is asked to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Begin a new epoch; on a shared log, join the one that is current unless it is broken. Must be
    /// durable before anything is told about it.
    OpenEpoch {
        /// The epoch that begins if none is to be joined.
        proposed: Epoch,
        /// An epoch in which the log went back, so that its numbers may be given again. On a shared
        /// log no cursor of it, or of one before it, proves anything afterwards.
        broken: Option<Epoch>,
    },
    /// What is known of a stream?
    Load {
        /// The stream.
        agent: AgentId,
        /// Whether the answer has to have everything that was acknowledged before the question to
        /// whomever. On a shared log that costs a write.
        confirmed: bool,
    },
    /// Give the event the next number of its stream and store it [EV-1].
    Append(Append),
    /// Read events, oldest first.
    Read(Read),
    /// The first sequence that was stored at or after a time of the server's wall clock.
    FindSince(AgentId, WallTime),
    /// Forget all events below a sequence [EV-10].
    Retain {
        /// The stream.
        agent: AgentId,
        /// The lowest sequence to keep.
        oldest: u64,
    },
}

impl StoreCommand for Command {
    type Reply = Reply;

    fn is_read_only(&self) -> bool {
        match self {
            Self::Load { .. } | Self::Read(_) | Self::FindSince(..) => true,
            Self::OpenEpoch { .. } | Self::Append(_) | Self::Retain { .. } => false,
        }
    }
}

/// An event that wants a number.
#[derive(Debug, Clone)]
pub struct Append {
    /// Who publishes. The same id from somebody else is a conflict.
    pub principal: String,
    /// The stream.
    pub agent: AgentId,
    /// The event.
    pub body: EventBody,
    /// The head that the publisher knew before it first tried to publish this id. With it, a
    /// repetition from beyond the log's memory of ids is recognised instead of stored again.
    pub after: Option<u64>,
    /// The server's wall clock, for base clients that can only ask by time.
    pub created_at: WallTime,
}

/// A page of a stream.
#[derive(Debug, Clone)]
pub struct Read {
    /// The stream.
    pub agent: AgentId,
    /// Read what comes after this sequence …
    pub after: u64,
    /// … up to and including this one.
    pub to: u64,
    /// At most this many events.
    pub count_max: usize,
    /// Stop after the event with which this many bytes are reached.
    pub bytes_max: usize,
}

/// The answer to a command, in the order of the commands.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To [`Command::OpenEpoch`]: the epoch in which the log is written now.
    EpochOpened(Epoch),
    /// To [`Command::Load`].
    Loaded(StreamState),
    /// To [`Command::Append`].
    Appended(Appended),
    /// To [`Command::Read`]: the sequence and the event, ascending, possibly fewer than asked for.
    Page(Vec<(u64, EventBody)>),
    /// To [`Command::FindSince`].
    Since(Option<u64>),
    /// To [`Command::Retain`]: the lowest sequence that can still be read.
    Retained(u64),
    /// To any command: it failed, and those with it did not. For logs whose runs are no transactions.
    Failed(StoreError),
}

/// A stream as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// The lowest sequence that can still be read; `head + 1` if there is none.
    pub oldest: u64,
    /// The highest sequence that was ever allocated; 0 = none.
    pub head: u64,
    /// The epochs of the log, and where each began in this stream.
    pub lineage: Lineage,
}

/// The answer to [`Command::Append`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// The event is stored under this number.
    New {
        /// The number.
        sequence: u64,
        /// The lowest sequence that can still be read now: retention may have moved.
        oldest: u64,
        /// The event.
        body: EventBody,
    },
    /// The same id with the same bytes is stored already.
    Existing {
        /// The number under which it is stored.
        sequence: u64,
        /// The epoch of that number.
        epoch: Epoch,
    },
    /// The same id is stored with other bytes, or by somebody else.
    Conflict,
    /// The id may have been stored and forgotten; it is not stored again.
    Expired,
    /// The stream has used up its numbers.
    Exhausted,
}
