//! What a controller asks of its durable record.
//!
//! The rules of the record are in the transactions: a number is accepted, a result is taken, a
//! hello is reconciled all or nothing. The core sends what follows from the [`Reply`], after it.

use bytes::Bytes;

use crate::AgentId;
use crate::recovery::{Epoch, WallTime};
use crate::storage::StoreCommand;
use crate::tasks::wire::{Deliver, Discarded, Final, Hello, LostOutput, Output, ReplayFrom};
use crate::tasks::{Attempt, MessageId, Outcome, OutputStream, Range, TaskId};

/// One thing that the record is asked to do. Every command that changes something may be repeated
/// after an unknown outcome and gets the same answer.
#[derive(Debug, Clone)]
pub enum Command {
    /// Somebody wants a task to be done.
    Submit(Submission),
    /// Somebody wants another attempt at a task whose last one has ended.
    Retry {
        /// The task.
        task: TaskId,
        /// The ordinal of the attempt that has ended; a repeated wish is the same wish.
        after: u64,
    },
    /// Somebody does not want a task any more. What has begun goes on [TK-18].
    Cancel(TaskId),
    /// What is known of a task?
    Look(TaskId),
    /// What tasks are there?
    List(Listing),
    /// The output of a stream, in order.
    ReadOutput {
        /// The attempt.
        attempt: Attempt,
        /// The stream.
        stream: OutputStream,
        /// After this number.
        after: u64,
        /// At most this many pieces.
        count_max: usize,
    },
    /// An agent says what it knows [TK-7] [TK-8] [TK-16].
    Reconcile {
        /// Whose hello it is.
        agent: AgentId,
        /// What it says.
        hello: Box<Hello>,
    },
    /// An agent has said something that it says only after its hello was answered: it knows that
    /// this life of its store is known here.
    Confirm {
        /// Who.
        agent: AgentId,
        /// The life.
        epoch: Epoch,
    },
    /// What is to be delivered to an agent, oldest first.
    Deliverable {
        /// To whom.
        agent: AgentId,
        /// Also what was delivered and is not known to have arrived. Only for an agent whose hello
        /// was reconciled: another store would make it a second time.
        again: bool,
        /// At most this many.
        count_max: usize,
    },
    /// An attempt is about to be delivered: from here on the agent may have it.
    Delivering {
        /// To whom.
        agent: AgentId,
        /// Which.
        attempt: Attempt,
    },
    /// The agent has an attempt, or has begun it.
    Progress {
        /// Who says so.
        agent: AgentId,
        /// Which.
        attempt: Attempt,
        /// Whether it has begun.
        started: bool,
    },
    /// The agent knows nothing of an attempt that it was asked about [TK-16].
    Absent {
        /// Who says so.
        agent: AgentId,
        /// Which.
        attempt: Attempt,
    },
    /// The end of a stream will never come [TK-11].
    Lost {
        /// Who says so.
        agent: AgentId,
        /// What.
        lost: LostOutput,
    },
    /// A piece of output arrived [TK-11].
    Output {
        /// Who says so.
        agent: AgentId,
        /// The piece.
        piece: Output,
    },
    /// A result arrived [TK-11].
    Final {
        /// Who says so.
        agent: AgentId,
        /// The name of the message.
        message_id: MessageId,
        /// The result.
        result: Final,
    },
    /// A signed handshake names this nonce [TK-14].
    UseNonce {
        /// Whose.
        agent: AgentId,
        /// The nonce.
        nonce: String,
        /// When it was made, by the agent's clock, within the window.
        at: WallTime,
        /// What is older is forgotten: no handshake from then is accepted any more.
        forget_before: WallTime,
    },
}

impl StoreCommand for Command {
    type Reply = Reply;

    fn is_read_only(&self) -> bool {
        matches!(
            self,
            Self::Look(_) | Self::List(_) | Self::ReadOutput { .. } | Self::Deliverable { .. }
        )
    }
}

/// A wish for a task to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Names the wish: the same wish may be made again.
    pub task: TaskId,
    /// Who has it.
    pub principal: String,
    /// Who is to do it.
    pub agent: AgentId,
    /// What to run. Not empty.
    pub command: String,
    /// For the order: higher first.
    pub priority: i64,
}

/// The answer to a command, in the order of the commands.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To [`Command::Submit`] and [`Command::Retry`].
    Submitted(Submitted),
    /// To [`Command::Cancel`]: the last attempt; `None` if there is no such task.
    Cancelled(Option<Cancelled>),
    /// To [`Command::Look`].
    Task(Option<TaskView>),
    /// To [`Command::List`].
    Tasks(TaskPage),
    /// To [`Command::ReadOutput`].
    Output(OutputPage),
    /// To [`Command::Reconcile`].
    Reconciled(Reconciled),
    /// To [`Command::Deliverable`].
    Deliverable(Vec<Deliver>),
    /// To [`Command::Delivering`], [`Command::Progress`] and [`Command::Absent`]: what the attempt is now; `None` if it
    /// is another agent's. To [`Command::Confirm`]: `None`.
    State(Option<AttemptState>),
    /// To [`Command::Output`] and [`Command::Lost`].
    OutputTaken(OutputTaken),
    /// To [`Command::Final`].
    FinalTaken(FinalTaken),
    /// To [`Command::UseNonce`]: whether it was new.
    Nonce(bool),
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// It is stored, now or since before; this is the attempt at it.
    Stored {
        /// The attempt.
        attempt: Attempt,
        /// Who is to make it.
        agent: AgentId,
        /// Whether it was stored just now.
        new: bool,
    },
    /// The id names another wish, or somebody else's.
    Conflict,
    /// The last attempt has not ended, so there is no other one [TK-8].
    NotEnded,
    /// There is no such task.
    Unknown,
    /// Only the agent knows what to run: the record was lost since. The task is to be submitted
    /// again first.
    NoCommand,
}

/// What became of a task that is not wanted any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled {
    /// Its last attempt.
    pub attempt: Attempt,
    /// Whose it is.
    pub agent: AgentId,
    /// How far it is.
    pub state: AttemptState,
}

/// How far an attempt is, as far as the controller knows. It only ever ascends [TK-3].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttemptState {
    /// Nobody was told of it.
    Pending,
    /// It was delivered; whether it arrived is not known.
    Delivered,
    /// The agent has it.
    Received,
    /// The agent has begun it.
    Running,
    /// It was not wanted any more, and is not begun: confirmed, or never delivered.
    Discarded,
    /// It is lost with the store of its agent, or ended with its process [TK-16].
    Interrupted,
    /// It has a result.
    Final,
}

impl AttemptState {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Delivered,
        Self::Received,
        Self::Running,
        Self::Discarded,
        Self::Interrupted,
        Self::Final,
    ];

    /// The state with a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Its name for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Received => "received",
            Self::Running => "running",
            Self::Discarded => "discarded",
            Self::Interrupted => "interrupted",
            Self::Final => "final",
        }
    }

    /// Whether nothing more is to come but output.
    pub fn has_ended(self) -> bool {
        self >= Self::Discarded
    }
}

/// A task, for whoever wants to know.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskView {
    /// Who is to do it.
    pub agent: AgentId,
    /// What is to be run; empty if only the agent knows.
    pub command: String,
    /// Whether it is not wanted any more.
    pub cancelled: bool,
    /// The attempts, oldest first.
    pub attempts: Vec<AttemptView>,
}

/// Which tasks somebody wants to see. A task stands where its last attempt does, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Only those of this agent.
    pub agent: Option<AgentId>,
    /// Only those whose last attempt is in this state.
    pub state: Option<AttemptState>,
    /// Only those after [`TaskPage::next`] of the page before.
    pub before: Option<u64>,
    /// At most this many.
    pub count_max: usize,
    /// How many attempts are looked at, so that a page of what is rare takes no longer than others.
    pub look_max: usize,
}

/// Some of the tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskPage {
    /// The newest first; there may be none although there are more on the next page.
    pub tasks: Vec<TaskSummary>,
    /// Where the next page begins, if there may be more.
    pub next: Option<u64>,
}

/// A task in a list: with its last attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSummary {
    /// The last attempt at it.
    pub attempt: Attempt,
    /// Who is to do it.
    pub agent: AgentId,
    /// How what is to be run begins: [`COMMAND_CHARS`] characters at most.
    pub command: String,
    /// For the order: higher first.
    pub priority: i64,
    /// Whether it is not wanted any more.
    pub cancelled: bool,
    /// Counts the attempts of the task, with holes.
    pub ordinal: u64,
    /// How far the last attempt is.
    pub state: AttemptState,
    /// How it ended, once it has a result.
    pub outcome: Option<Outcome>,
    /// Its exit code, once it has a result.
    pub exit_code: Option<i64>,
}

/// How much of a command is shown in a list, in characters.
pub const COMMAND_CHARS: usize = 256;

/// An attempt, for whoever wants to know.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptView {
    /// Which.
    pub attempt: Attempt,
    /// Counts the attempts of the task, with holes.
    pub ordinal: u64,
    /// How far it is.
    pub state: AttemptState,
    /// Its result. The outcome of one that was lost is [`Outcome::Interrupted`].
    pub result: Option<Final>,
    /// The outcome, once it has ended.
    pub outcome: Option<Outcome>,
    /// Each stream: how far it is, and what of it will never come.
    pub streams: Vec<StreamView>,
}

/// A stream of an attempt, for whoever wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamView {
    /// Which.
    pub stream: OutputStream,
    /// Everything up to this number is here or lost.
    pub highest: u64,
    /// What is lost.
    pub lost: Vec<Range>,
}

/// Output of a stream, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPage {
    /// The numbers and their bytes, ascending.
    pub pieces: Vec<(u64, Bytes)>,
    /// What is lost of the stream.
    pub lost: Vec<Range>,
    /// Everything up to this number is here or lost.
    pub highest: u64,
}

/// What the controller makes of a hello.
#[derive(Debug, Clone, PartialEq)]
pub enum Reconciled {
    /// The two sides agree.
    Agreed(Agreement),
    /// The life of the store, or one after it, was replaced by another copy: it is not served.
    Forked,
}

/// What two sides agree on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Agreement {
    /// Results that are stored here.
    pub acknowledged_finals: Vec<MessageId>,
    /// Attempts that are not to be begun.
    pub discarded: Vec<Discarded>,
    /// Where the replay of each stream begins that the hello names.
    pub output_replay: Vec<ReplayFrom>,
    /// Attempts that were lost with the agent's store.
    pub interrupted: Vec<Attempt>,
    /// Attempts that the agent should have, and does not name, or that it is not to begin: it is to be
    /// asked about them. They may have ended before the record was restored from a copy.
    pub unnamed: Vec<Attempt>,
}

/// What became of a piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputTaken {
    /// It is stored, now or since before: everything up to this number is here or lost.
    Stored {
        /// The number.
        highest: u64,
        /// It was not known that the attempt had begun.
        unexpected: bool,
    },
    /// A number before it is missing: everything up to this number is here or lost.
    Gap {
        /// The number.
        highest: u64,
    },
    /// The attempt is another agent's.
    Foreign,
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalTaken {
    /// It is stored, now or since before.
    Stored,
    /// The attempt ended otherwise before: what was said first holds.
    TooLate,
    /// The attempt is another agent's.
    Foreign,
}
