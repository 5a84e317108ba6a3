//! A conversation that is in use: its newest rows, its turn, and what waits for the store.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::ServerConfig;
use crate::recovery::{Backoff, BackoffConfig, Epoch};
use crate::session::conversation::{Command, Ending, Input, Kind, Loaded, Row, Saying};
use crate::session::wire::{History, HistoryMessage, Question, Status};
use crate::session::{Name, Turn};

/// See the [module](self).
pub(super) struct Conversation {
    /// `None` until the store has answered.
    pub(super) known: Option<Known>,
    /// Those that have an outbox.
    pub(super) clients: BTreeSet<Name>,
    /// The turn that begins, runs or ends.
    pub(super) turn: Option<Running>,
    /// What waits for the store, in order. The head is with it while `asked`.
    pub(super) jobs: VecDeque<Job>,
    /// How many of the jobs are inputs.
    pub(super) inputs: usize,
    /// The head of the jobs is with the store, or waits for another attempt.
    pub(super) asked: bool,
    pub(super) backoff: Backoff,
}

/// What is known of a conversation: what the store holds, as far as it is needed.
pub(super) struct Known {
    /// The newest rows that are shown, ascending.
    rows: VecDeque<Row>,
    bytes: usize,
    truncated: bool,
    /// The position of the newest row, shown or not.
    newest: u64,
    pub(super) question: Option<Question>,
    /// Accepted, and not begun. An answer is first.
    waiting: VecDeque<Row>,
}

/// A turn, from when the store is asked to let it begin until it has its end.
pub(super) struct Running {
    pub(super) turn: Turn,
    pub(super) input: Row,
    /// The application has it.
    pub(super) begun: bool,
    /// The application is done with it.
    pub(super) ending: bool,
    /// How much it has said.
    pub(super) said: u64,
}

/// Something that the store is asked to do.
#[derive(Debug, Clone)]
pub(super) enum Job {
    Load,
    Input {
        /// Who gets the verdict.
        by: Name,
        /// Whether the client gave it an id; without, there is no acknowledgement.
        named: bool,
        input: Input,
    },
    Begin(Turn),
    Say {
        turn: Turn,
        nth: u64,
        saying: Saying,
    },
    End {
        turn: Turn,
        ending: Ending,
    },
}

impl Job {
    pub(super) fn command(&self, principal: &Arc<str>, config: &ServerConfig) -> Command {
        let principal = principal.clone();
        match self.clone() {
            Self::Load => Command::Load {
                principal,
                count_max: config.history_messages,
                bytes_max: config.history_bytes,
            },
            Self::Input { input, .. } => {
                Command::Input { principal, input, queue_max: config.queue_max }
            }
            Self::Begin(turn) => Command::Begin(turn),
            Self::Say { turn, nth, saying } => Command::Say { turn, nth, saying },
            Self::End { turn, ending } => Command::End { turn, ending },
        }
    }
}

impl Conversation {
    pub(super) fn new(retry: BackoffConfig) -> Self {
        Self {
            known: None,
            clients: BTreeSet::new(),
            turn: None,
            jobs: [Job::Load].into(),
            inputs: 0,
            asked: false,
            backoff: Backoff::new(retry),
        }
    }

    pub(super) fn push(&mut self, job: Job) {
        self.inputs += usize::from(matches!(job, Job::Input { .. }));
        self.jobs.push_back(job);
    }

    /// The head of the jobs is done.
    pub(super) fn pop(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front()?;
        self.inputs -= usize::from(matches!(job, Job::Input { .. }));
        self.asked = false;
        self.backoff.reset();
        Some(job)
    }

    /// Whether nobody needs it in memory: the store has everything, and nothing is to be done.
    pub(super) fn is_unused(&self) -> bool {
        let idle = self.turn.is_none() && self.jobs.is_empty() && !self.has_next();
        self.clients.is_empty() && idle
    }

    /// What the application is doing.
    pub(super) fn status(&self) -> Status {
        let question = self.known.as_ref().and_then(|known| known.question.as_ref());
        match (&self.turn, question) {
            (Some(_), _) => Status::Thinking,
            (None, Some(_)) => Status::Waiting,
            (None, None) => Status::Idle,
        }
    }

    /// Takes the next turn out of what waits: an answer before messages, and no message while a
    /// question is open [SE-12b].
    pub(super) fn next_turn(&mut self, principal: &Arc<str>) -> Option<Turn> {
        if self.turn.is_some() {
            return None;
        }
        let input = self.known.as_mut()?.next_input()?;
        let turn = Turn { principal: principal.clone(), position: input.position };
        let running = Running { turn: turn.clone(), input, begun: false, ending: false, said: 0 };
        self.turn = Some(running);
        Some(turn)
    }

    /// Whether there is a turn that could begin.
    pub(super) fn has_next(&self) -> bool {
        let waits = |known: &Known| known.question.is_none() && !known.waiting.is_empty();
        self.turn.is_none() && self.known.as_ref().is_some_and(waits)
    }

    /// The turn, if it is the one that runs and the application is not done with it.
    pub(super) fn running(&mut self, turn: &Turn) -> Option<&mut Running> {
        let running = self.turn.as_mut()?;
        (running.turn == *turn && running.begun && !running.ending).then_some(running)
    }
}

impl Known {
    pub(super) fn new(loaded: Loaded, config: &ServerConfig, shows: impl Fn(&Row) -> bool) -> Self {
        let Loaded { rows, truncated, question, waiting } = loaded;
        let mut known = Self {
            rows: VecDeque::new(),
            bytes: 0,
            truncated,
            newest: rows.last().map_or(0, |row| row.position),
            question,
            waiting: waiting.into(),
        };
        for row in rows.into_iter().filter(shows) {
            known.show(row, config);
        }
        known
    }

    /// Adds a row to what is shown, and forgets the oldest beyond the limits of a history.
    pub(super) fn show(&mut self, row: Row, config: &ServerConfig) {
        self.bytes += row.cost();
        self.rows.push_back(row);
        while self.rows.len() > 1
            && (self.rows.len() > config.history_messages || self.bytes > config.history_bytes)
        {
            let oldest = self.rows.pop_front().expect("there are several");
            self.bytes -= oldest.cost();
            self.truncated = true;
        }
    }

    /// The position of the newest row, shown or not.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// A row came to be: it is the newest, and if it asks something, that is open.
    pub(super) fn heard_of(&mut self, row: &Row) {
        self.newest = self.newest.max(row.position);
        if let Some(question) = row.as_question() {
            self.question = Some(question);
        }
    }

    /// An input is accepted, and waits for its turn.
    pub(super) fn accept(&mut self, row: Row) {
        self.heard_of(&row);
        match row.kind {
            Kind::Answer => {
                self.question = None;
                self.waiting.push_front(row);
            }
            _ => self.waiting.push_back(row),
        }
    }

    fn next_input(&mut self) -> Option<Row> {
        match self.question {
            Some(_) => None,
            None => self.waiting.pop_front(),
        }
    }

    /// Everything that a client must show.
    pub(super) fn history(&self, epoch: &Epoch, status: Status) -> History {
        History {
            epoch: Some(epoch.clone()),
            messages: self.rows.iter().map(HistoryMessage::from).collect(),
            status: Some(status),
            open_question: self.question.clone(),
            truncated: self.truncated,
        }
    }
}
