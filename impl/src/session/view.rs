//! What a user interface shows of a conversation.
//!
//! A [`View`] is rebuilt by a history and advanced by frames. It holds no rule about numbers:
//! that each frame is applied once and in order is what the [client](super::client) sees to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::conversation::{Input, Kind, Role, What};
use super::wire::{Body, History, HistoryMessage, InputRejection, Notice, Question, Status};

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Connection {
    /// Not connected, and an attempt is under way.
    #[default]
    Connecting,
    /// Connected, and the replay or the history is on its way.
    CatchingUp,
    /// Connected, and everything is shown.
    Live,
    /// Not connected; the next attempt follows after a pause.
    Waiting {
        /// Why, for a person.
        reason: String,
        /// The pause.
        retry_in: Duration,
    },
    /// Another connection took this one's place; it stays so until the user connects again.
    Superseded,
    /// The client was stopped.
    Stopped,
}

/// Something that the user said and that has no verdict yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// What.
    pub input: Input,
    /// Whether it is durable at the client, so that it survives a restart.
    pub kept: bool,
}

/// Something that the user said and that was not accepted, for good [SE-5j].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// What.
    pub input: Input,
    /// Why.
    pub reason: InputRejection,
}

/// Everything that there is to show.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// How the connection is.
    pub connection: Connection,
    /// Whether a history was ever applied: before, that there are no messages means nothing.
    pub loaded: bool,
    /// The newest rows, ascending.
    pub messages: Vec<Arc<HistoryMessage>>,
    /// Whether there are older ones.
    pub truncated: bool,
    /// What has no verdict yet, in the order in which it was said.
    pub pending: Vec<Pending>,
    /// What was rejected, the newest last.
    pub rejected: Vec<Rejected>,
    /// What the application is doing.
    pub status: Status,
    /// How it is getting on; `None` when it is idle.
    pub progress: Option<Notice>,
    /// The question that waits for the user's answer.
    pub open_question: Option<Question>,
}

impl View {
    /// Replaces what is shown; what is in flight stays [SE-2e]. Returns those of it that are rows
    /// of the history: they are accepted, and no longer pending.
    pub fn replace(&mut self, history: &History) -> Vec<Name> {
        self.loaded = true;
        self.messages = history.messages.iter().cloned().map(Arc::new).collect();
        self.truncated = history.truncated;
        self.status = history.status.unwrap_or_default();
        self.progress = None;
        self.open_question = history.open_question.clone();
        let rows: BTreeSet<&Name> =
            history.messages.iter().filter_map(|row| row.input.as_ref()).collect();
        self.pending
            .extract_if(.., |pending| rows.contains(&pending.input.id))
            .map(|pending| pending.input.id)
            .collect()
    }

    /// Advances by a frame. Verdicts are not for here: see [`accept`](Self::accept) and
    /// [`reject`](Self::reject).
    pub fn apply(&mut self, body: &Body) {
        match body {
            Body::Assistant(said) => {
                // Nothing is said while a question is open [SE-12b].
                self.open_question = None;
                self.progress = None;
                self.insert(HistoryMessage {
                    role: Role::Assistant,
                    text: said.text.clone(),
                    position: said.position,
                    kind: said.kind.or(Some(Kind::Message)),
                    input: None,
                    question: None,
                    attachments: Vec::new(),
                });
            }
            Body::Question { question, position } => {
                self.open_question = Some(question.clone());
                self.status = Status::Waiting;
                self.progress = None;
                self.ask(question, *position);
            }
            Body::UserMessage { position, id, text, attachments } => {
                self.insert(HistoryMessage {
                    role: Role::User,
                    text: text.clone(),
                    position: Some(*position),
                    kind: Some(Kind::Message),
                    input: id.clone(),
                    question: None,
                    attachments: attachments.clone(),
                });
            }
            Body::UserAnswer { position, question, text } => {
                self.close_question(question.as_ref());
                self.insert(HistoryMessage {
                    role: Role::User,
                    text: text.clone(),
                    position: Some(*position),
                    kind: Some(Kind::Answer),
                    input: None,
                    question: question.clone(),
                    attachments: Vec::new(),
                });
            }
            Body::Status(status) => {
                self.status = *status;
                if *status == Status::Idle {
                    self.progress = None;
                }
            }
            Body::Thinking => self.status = Status::Thinking,
            Body::Notice(notice) if notice.is_progress() => self.progress = Some(notice.clone()),
            Body::Notice(_)
            | Body::Unknown { .. }
            | Body::Begin(_)
            | Body::History(_)
            | Body::MessageAck { .. }
            | Body::MessageRejected { .. }
            | Body::AnswerAck { .. }
            | Body::AnswerRejected { .. }
            | Body::Ping { .. } => {}
        }
    }

    /// An input in flight is accepted: it becomes a row. Returns whether it was pending.
    ///
    /// A base server has neither positions nor ids in its history. `may_be_shown` says that the
    /// history may have brought the row already; then one with its text is taken for it.
    pub fn accept(&mut self, id: &Name, position: Option<u64>, may_be_shown: bool) -> bool {
        let Some(Pending { input, .. }) = self.take_pending(id) else { return false };
        let (kind, question, attachments) = match input.what {
            What::Message { attachments, .. } => (Kind::Message, None, attachments),
            What::Answer { question, .. } => {
                self.close_question(question.as_ref());
                (Kind::Answer, question, Vec::new())
            }
        };
        let row = HistoryMessage {
            role: Role::User,
            text: input.text,
            position,
            kind: Some(kind),
            input: Some(input.id),
            question,
            attachments,
        };
        let shown = self.messages.iter_mut().rev().find(|shown| {
            may_be_shown && is_anonymous(shown) && shown.role == row.role && shown.text == row.text
        });
        match shown {
            Some(shown) => *shown = Arc::new(row),
            None => self.insert(row),
        }
        true
    }

    /// An input in flight is rejected, for good [SE-5j]. Returns whether it was pending.
    pub fn reject(&mut self, id: &Name, reason: InputRejection) -> bool {
        let Some(Pending { input, .. }) = self.take_pending(id) else { return false };
        if let (What::Answer { question, .. }, InputRejection::NotOpen) = (&input.what, reason) {
            self.close_question(question.as_ref());
        }
        self.rejected.push(Rejected { input, reason });
        true
    }

    /// A message that was accepted is rejected after all. Returns whether it was shown as a row.
    pub fn revoke(&mut self, id: &Name, reason: InputRejection) -> bool {
        let is_it = |row: &Arc<HistoryMessage>| row.input.as_ref() == Some(id);
        let Some(index) = self.messages.iter().rposition(is_it) else { return false };
        let row = self.messages.remove(index);
        let what = What::Message { attachments: row.attachments.clone(), after: None };
        let input = Input { id: id.clone(), what, text: row.text.clone() };
        self.rejected.push(Rejected { input, reason });
        true
    }

    /// The question is answered, if it is the one that is open.
    pub fn close_question(&mut self, question: Option<&Name>) {
        if self.open_question.as_ref().is_some_and(|open| open.id.as_ref() == question) {
            self.open_question = None;
        }
    }

    /// The connection is lost, and with it what was known of a moment. Nobody will say that a turn
    /// is over, so nothing may wait for that.
    pub fn disconnected(&mut self) {
        self.progress = None;
        self.status = match self.open_question {
            Some(_) => Status::Waiting,
            None => Status::Idle,
        };
    }

    /// Forgets the oldest of what is beyond the limits.
    pub fn trim(&mut self, messages_max: usize, rejected_max: usize) {
        if let Some(excess @ 1..) = self.messages.len().checked_sub(messages_max) {
            self.messages.drain(..excess);
            self.truncated = true;
        }
        if let Some(excess @ 1..) = self.rejected.len().checked_sub(rejected_max) {
            self.rejected.drain(..excess);
        }
    }

    /// A question is a row, too. That of a base server follows its history, which may have it
    /// already [SE-2d]: nothing was said since.
    fn ask(&mut self, question: &Question, position: Option<u64>) {
        let row = HistoryMessage {
            role: Role::Assistant,
            text: question.text.clone(),
            position,
            kind: Some(Kind::Question),
            input: None,
            question: question.id.clone(),
            attachments: Vec::new(),
        };
        let said_last = self.messages.iter_mut().rev().find(|shown| shown.role == Role::Assistant);
        match said_last {
            Some(shown) if is_anonymous(shown) && shown.text == row.text => *shown = Arc::new(row),
            _ => self.insert(row),
        }
    }

    /// Shows a row in its place, once. Older ones than those that are shown stay out of sight.
    fn insert(&mut self, row: HistoryMessage) {
        let Some(position) = row.position else {
            self.messages.push(Arc::new(row));
            return;
        };
        let before = |shown: &Arc<HistoryMessage>| shown.position < Some(position);
        let place = self.messages.iter().rposition(before).map_or(0, |last| last + 1);
        let is_shown =
            self.messages.get(place).is_some_and(|shown| shown.position == Some(position));
        let is_out_of_sight = self.truncated && place == 0 && !self.messages.is_empty();
        if !is_shown && !is_out_of_sight {
            self.messages.insert(place, Arc::new(row));
        }
    }

    fn take_pending(&mut self, id: &Name) -> Option<Pending> {
        let index = self.pending.iter().position(|pending| pending.input.id == *id)?;
        Some(self.pending.remove(index))
    }
}

/// Whether nothing but its text is known of a row: a history of a base server brought it.
fn is_anonymous(row: &HistoryMessage) -> bool {
    row.kind.is_none() && row.position.is_none()
}
