//! What the user said, from the moment it is taken until there is a verdict.
//!
//! An input is stored, then sent, then sent again, in the order in which it was said, until the
//! server has accepted or rejected it; then it leaves the store [SE-5].

use std::collections::{BTreeMap, VecDeque};

use super::{Client, Link, Mode, Output, Phase, Session, Submission, SubmitError, Timer};
use crate::mark;
use crate::recovery::{Backoff, BackoffConfig, Instant, random_hex_128};
use crate::session::conversation::{Input, What};
use crate::session::in_flight::Command;
use crate::session::view::Pending;
use crate::session::wire::{Attachment, Body, ClientFrame, History, InputRejection, Status};
use crate::session::{CloseCode, ConnectionId, Name, StoreId, Ticket};
use crate::storage::StoreError;

/// What is known of the inputs beyond what the view shows.
pub(super) struct Inputs {
    /// Each pending input has one.
    trails: BTreeMap<Name, Trail>,
    /// The oldest input that was sent on this connection: [`Timer::Verdict`] is about it.
    awaited: Option<Name>,
    /// The message that was acknowledged last on this connection.
    acknowledged: Option<Name>,
    /// The last history had positions.
    has_positions: bool,
    /// What is to be stored, one after the other: so the order of keeping is that of saying, and
    /// nothing is dropped before it is kept.
    commands: VecDeque<Command>,
    /// The first command is with the store.
    storing: Option<StoreId>,
    store_ids: u64,
    backoff: Backoff,
}

/// How far an input has got.
#[derive(Default)]
struct Trail {
    /// The last connection on which it was sent.
    sent_on: Option<ConnectionId>,
    /// The server may have it: it was sent, or is of an earlier life.
    may_be_known: bool,
    /// Base contract: a history came after it may have been known, and may show it.
    may_be_shown: bool,
}

impl Inputs {
    pub(super) fn new(store_retry: BackoffConfig) -> Self {
        Self {
            trails: BTreeMap::new(),
            awaited: None,
            acknowledged: None,
            has_positions: false,
            commands: VecDeque::new(),
            storing: None,
            store_ids: 0,
            backoff: Backoff::new(store_retry),
        }
    }

    /// [`Timer::Verdict`] is stopped.
    pub(super) fn disconnected(&mut self) {
        self.awaited = None;
        self.acknowledged = None;
    }

    fn trail(&mut self, id: &Name) -> &mut Trail {
        self.trails.entry(id.clone()).or_default()
    }

    fn is_sent_on(&self, conn: ConnectionId, id: &Name) -> bool {
        self.trails.get(id).is_some_and(|trail| trail.sent_on == Some(conn))
    }
}

impl Client {
    // ---- taking ------------------------------------------------------------------------------

    /// What an earlier life has left.
    pub(super) fn restore(&mut self, in_flight: Vec<Input>) {
        for input in in_flight {
            self.inputs.trail(&input.id).may_be_known = true;
            self.view.pending.push(Pending { input, kept: true });
        }
    }

    pub(super) fn submit(&mut self, ticket: Ticket, what: Submission) {
        let taken = self.take(what);
        let result = taken.as_ref().map(|input| input.id.clone()).map_err(Clone::clone);
        self.outputs.push_back(Output::Submitted { ticket, result });
        if let Ok(input) = taken {
            self.store(Command::Keep(input));
        }
    }

    fn take(&mut self, what: Submission) -> Result<Input, SubmitError> {
        if let Link::NotBegun | Link::Stopped = self.link {
            return Err(SubmitError::Stopped);
        }
        let bytes_max = self.config.text_bytes_max;
        let bytes = what.cost();
        if bytes > bytes_max {
            return Err(SubmitError::TooLarge { bytes, bytes_max });
        }
        if self.view.pending.len() >= self.config.in_flight_max {
            return Err(SubmitError::TooManyInFlight);
        }
        let (what, text) = match what {
            Submission::Message { text, attachments } => {
                (What::Message { attachments, after: self.newest_position() }, text)
            }
            Submission::Answer { text } => {
                let open = self.view.open_question.as_ref().ok_or(SubmitError::NoQuestion)?;
                let asked = Some(open.text.clone());
                let what = What::Answer { question: open.id.clone(), asked };
                if self.view.pending.iter().any(|pending| pending.input.what == what) {
                    return Err(SubmitError::NoQuestion);
                }
                (what, text)
            }
        };
        let id = Name::parse(&random_hex_128(&mut *self.entropy)).expect("digits are a name");
        let input = Input { id: id.clone(), what, text };
        self.inputs.trails.insert(id, Trail::default());
        self.view.pending.push(Pending { input: input.clone(), kept: false });
        Ok(input)
    }

    /// The newest row that the user can have seen; `None` if the server does not tell positions.
    fn newest_position(&self) -> Option<u64> {
        match self.view.messages.last() {
            Some(row) => row.position,
            None => self.inputs.has_positions.then_some(0),
        }
    }

    // ---- storing -----------------------------------------------------------------------------

    fn store(&mut self, command: Command) {
        self.inputs.commands.push_back(command);
        if self.inputs.storing.is_none() && self.timers.get(Timer::Store).is_none() {
            self.store_next();
        }
    }

    pub(super) fn store_next(&mut self) {
        if let Some(command) = self.inputs.commands.front() {
            self.inputs.store_ids += 1;
            let id = StoreId(self.inputs.store_ids);
            self.inputs.storing = Some(id);
            self.outputs.push_back(Output::Store(id, command.clone()));
        }
    }

    /// Both commands can be given again, so it does not matter whether a failure stored something.
    pub(super) fn stored(&mut self, now: Instant, id: StoreId, result: Result<(), StoreError>) {
        if self.inputs.storing != Some(id) {
            mark!("session.stale_store_reply_ignored");
            return;
        }
        self.inputs.storing = None;
        if result.is_err() {
            mark!("session.store_failed");
            let delay = self.inputs.backoff.next_delay(&mut *self.entropy);
            self.timers.set(Timer::Store, now + delay);
            return;
        }
        self.inputs.backoff.reset();
        if let Some(Command::Keep(input)) = self.inputs.commands.pop_front() {
            let kept = self.view.pending.iter_mut().find(|pending| pending.input.id == input.id);
            if let Some(pending) = kept {
                pending.kept = true;
            }
        }
        self.store_next();
        self.send_inputs(now);
    }

    // ---- sending -----------------------------------------------------------------------------

    /// Sends what was not sent on this connection, oldest first. One that is not stored yet holds
    /// up those after it [SE-5a] [SE-5c].
    pub(super) fn send_inputs(&mut self, now: Instant) {
        let Link::Open(session) = &self.link else { return };
        if session.phase != Phase::Live {
            return;
        }
        let (conn, mode, has_pinged) = (session.conn, session.mode, session.has_pinged);
        for pending in &self.view.pending {
            if !pending.kept {
                break;
            }
            let trail = self.inputs.trail(&pending.input.id);
            if trail.sent_on == Some(conn) {
                continue;
            }
            if trail.may_be_known && is_base_answer(&pending.input, mode) && !has_pinged {
                mark!("session.answer_waits_for_ping");
                break;
            }
            if trail.may_be_known {
                mark!("session.in_flight_sent_on_connect");
            }
            trail.sent_on = Some(conn);
            trail.may_be_known = true;
            let frame = client_frame(&pending.input, mode);
            self.outputs.push_back(Output::Send { conn, frame });
        }
        self.await_oldest(now);
    }

    /// Gives the oldest input that was sent its time.
    fn await_oldest(&mut self, now: Instant) {
        let Link::Open(session) = &self.link else { return };
        let oldest = self.view.pending.first().map(|pending| &pending.input.id);
        let oldest = oldest.filter(|id| self.inputs.is_sent_on(session.conn, id));
        if oldest == self.inputs.awaited.as_ref() {
            return;
        }
        match oldest {
            Some(_) => self.timers.set(Timer::Verdict, now + self.config.ack_timeout),
            None => self.timers.stop(Timer::Verdict),
        }
        self.inputs.awaited = oldest.cloned();
    }

    pub(super) fn send_oldest_again(&mut self, now: Instant) {
        let (Link::Open(session), Some(pending)) = (&self.link, self.view.pending.first()) else {
            return;
        };
        self.timers.set(Timer::Verdict, now + self.config.ack_timeout);
        if session.phase != Phase::Live {
            return;
        }
        if is_base_answer(&pending.input, session.mode) {
            return self.doubt_base_answer(now);
        }
        mark!("session.input_sent_again");
        let (conn, frame) = (session.conn, client_frame(&pending.input, session.mode));
        self.outputs.push_back(Output::Send { conn, frame });
    }

    /// Nothing came of an answer. Sent once more, it might be taken for the answer to the next
    /// question, so another connection has to show that the question is still open [SE-5l].
    fn doubt_base_answer(&mut self, now: Instant) {
        self.settle_answers_without_question(now);
        let pending = self.view.pending.first();
        if pending.is_some_and(|pending| is_base_answer(&pending.input, Mode::Base)) {
            mark!("session.answer_in_doubt");
            self.drop_link(now, CloseCode::RESUME, "nothing came of an answer");
        }
    }

    // ---- verdicts ----------------------------------------------------------------------------

    /// Takes a frame that is a verdict; gives back any other.
    pub(super) fn verdict(&mut self, now: Instant, body: Body) -> Option<Body> {
        match body {
            Body::MessageAck { id, position } => {
                self.accept(now, &id, position);
                self.inputs.acknowledged = Some(id);
            }
            Body::UserMessage { position, id: Some(id), .. } if self.is_pending(&id) => {
                self.accept(now, &id, Some(position));
            }
            Body::AnswerAck { id, question, position } => {
                self.accept(now, &id, Some(position));
                if question.is_some() {
                    self.view.close_question(question.as_ref());
                }
            }
            Body::MessageRejected { id: Some(id), reason }
            | Body::AnswerRejected { id, reason, question: _ } => self.reject(now, &id, reason),
            Body::MessageRejected { id: None, reason } => self.rejected_by_base(now, reason),
            other => return Some(other),
        }
        None
    }

    fn accept(&mut self, now: Instant, id: &Name, position: Option<u64>) {
        let may_be_shown = self.inputs.trails.get(id).is_some_and(|trail| trail.may_be_shown);
        match self.view.accept(id, position, may_be_shown) {
            true => self.settled(now, id),
            false => mark!("session.known_verdict_ignored"),
        }
    }

    fn reject(&mut self, now: Instant, id: &Name, reason: InputRejection) {
        match self.view.reject(id, reason) {
            true => {
                mark!("session.input_rejected");
                self.settled(now, id);
            }
            false => mark!("session.known_verdict_ignored"),
        }
    }

    /// A base server acknowledges a message, and only then finds that its queue is full; it does
    /// not say which message that was.
    fn rejected_by_base(&mut self, now: Instant, reason: InputRejection) {
        let acknowledged = self.inputs.acknowledged.take();
        if acknowledged.is_some_and(|id| self.view.revoke(&id, reason)) {
            mark!("session.acknowledgement_revoked");
        } else if let Some(id) = self.oldest_message_sent_to_base() {
            mark!("session.rejection_without_id");
            self.reject(now, &id, reason);
        }
    }

    /// Nothing of an input is needed any more.
    fn settled(&mut self, now: Instant, id: &Name) {
        self.inputs.trails.remove(id);
        self.store(Command::Drop(id.clone()));
        self.await_oldest(now);
    }

    /// Whether something is acknowledged that was said by nobody that this view knows of: by an
    /// earlier life whose store has gone back, or by a copy of it. No frame but a history shows it.
    pub(super) fn lacks_the_row_of(&self, body: &Body) -> bool {
        let (id, position) = match body {
            Body::MessageAck { id, position: Some(position) } => (id, *position),
            Body::AnswerAck { id, position, .. } => (id, *position),
            _ => return false,
        };
        !self.is_pending(id) && self.newest_position().is_some_and(|newest| newest < position)
    }

    fn is_pending(&self, id: &Name) -> bool {
        self.view.pending.iter().any(|pending| pending.input.id == *id)
    }

    /// Verdicts come in the order of the messages, so one without an id is about this one.
    fn oldest_message_sent_to_base(&self) -> Option<Name> {
        let Link::Open(session @ Session { mode: Mode::Base, .. }) = &self.link else {
            return None;
        };
        let inputs = self.view.pending.iter().map(|pending| &pending.input);
        let mut messages = inputs.filter(|input| matches!(input.what, What::Message { .. }));
        let oldest = messages.find(|input| self.inputs.is_sent_on(session.conn, &input.id))?;
        Some(oldest.id.clone())
    }

    pub(super) fn show_history(&mut self, now: Instant, history: &History) {
        let Link::Open(session) = &self.link else { return };
        self.inputs.has_positions = session.mode == Mode::Extension;
        if session.mode == Mode::Base {
            for trail in self.inputs.trails.values_mut() {
                trail.may_be_shown = trail.may_be_known;
            }
        }
        for id in self.view.replace(history) {
            mark!("session.accepted_by_history");
            self.settled(now, &id);
        }
    }

    // ---- answers in the base contract --------------------------------------------------------

    /// What a base server says after an answer is its only verdict [SE-5l].
    pub(super) fn settle_answers_of_base(&mut self, now: Instant, body: &Body) {
        let Link::Open(session) = &mut self.link else { return };
        if session.mode != Mode::Base {
            return;
        }
        match body {
            Body::Assistant(_) => {
                session.question_follows = false;
                self.settle_answers(now, |_| true);
            }
            Body::Question { question, .. } => {
                // After a history the same question is no other one: it is still open.
                let is_repeated = std::mem::take(&mut session.question_follows);
                self.settle_answers(now, |asked| {
                    !is_repeated || asked.is_some_and(|asked| asked != question.text)
                });
            }
            _ => {}
        }
    }

    /// Everything is here: an answer without a question that waits for it has come too late.
    pub(super) fn settle_answers_without_question(&mut self, now: Instant) {
        if self.view.open_question.is_none() || self.view.status == Status::Thinking {
            self.settle_answers(now, |_| true);
        }
    }

    /// Ends the answers whose question is over. One that the server may have is accepted, as far
    /// as anybody will ever know.
    fn settle_answers(&mut self, now: Instant, is_over: impl Fn(Option<&str>) -> bool) {
        let over = |pending: &Pending| match &pending.input.what {
            What::Answer { asked, .. } => is_over(asked.as_deref()),
            What::Message { .. } => false,
        };
        let over = self.view.pending.iter().filter(|pending| over(pending));
        let ids: Vec<Name> = over.map(|pending| pending.input.id.clone()).collect();
        for id in ids {
            let trail = self.inputs.trail(&id);
            if trail.may_be_known {
                mark!("session.answer_assumed_accepted");
                self.accept(now, &id, None);
            } else {
                self.reject(now, &id, InputRejection::NotOpen);
            }
        }
    }
}

impl Submission {
    /// How many bytes it is counted with.
    fn cost(&self) -> usize {
        match self {
            Self::Message { text, attachments } => {
                text.len() + attachments.iter().map(Attachment::cost).sum::<usize>()
            }
            Self::Answer { text } => text.len(),
        }
    }
}

/// Whether it is an answer, and nothing tells it from an answer to another question.
fn is_base_answer(input: &Input, mode: Mode) -> bool {
    mode == Mode::Base && matches!(input.what, What::Answer { .. })
}

/// An input as it travels. A base server is not told what it does not know.
fn client_frame(input: &Input, mode: Mode) -> ClientFrame {
    let (id, text) = (input.id.clone(), input.text.clone());
    let is_extension = mode == Mode::Extension;
    match &input.what {
        What::Message { attachments, after } => ClientFrame::UserMessage {
            id: Some(id),
            text,
            attachments: attachments.clone(),
            after: after.filter(|_| is_extension),
        },
        What::Answer { question, asked: _ } => ClientFrame::UserAnswer {
            id: is_extension.then_some(id),
            question: question.clone().filter(|_| is_extension),
            text,
        },
    }
}
