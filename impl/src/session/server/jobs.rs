//! What the store is asked, one command of a conversation after the other, and the turns that
//! follow from its answers [SE-3] [SE-12].

use std::sync::Arc;

use super::conversation::{Job, Known};
use super::frames::{acknowledgement, frame_of, rejection};
use super::{Output, Pending, Presentation, Server, Start, Timer, Work};
use crate::mark;
use crate::recovery::Instant;
use crate::session::conversation::{
    Command, Ending, Input as UserInput, Kind, Reply, Role, Row, Saying, Verdict,
};
use crate::session::wire::{Body, Notice};
use crate::session::{Identity, Name, StoreId, Turn};
use crate::storage::StoreError;

/// How many conversations with inputs that wait are taken up at once after a start.
const TAKE_UP_PAGE: usize = 64;

impl Server {
    // ---- the store ---------------------------------------------------------------------------

    pub(super) fn store(&mut self, pending: Pending) {
        let command = match &pending {
            Pending::Recover => Command::Recover,
            Pending::TakeUp => {
                let Start::TakingUp { after, .. } = &self.start else { return };
                Command::Waiting { after: after.clone(), count_max: TAKE_UP_PAGE }
            }
            Pending::Job(principal) => {
                let head = self.conversations.get(principal).and_then(|it| it.jobs.front());
                let Some(job) = head else { return };
                job.command(principal, &self.config)
            }
        };
        self.store_ids += 1;
        let id = StoreId(self.store_ids);
        self.pending.insert(id, pending);
        self.outputs.push_back(Output::Store(id, command));
    }

    /// Gives the head of a conversation's jobs to the store, if nothing of it is there already.
    pub(super) fn ask(&mut self, principal: &Arc<str>) {
        if self.start == Start::Recovering {
            return;
        }
        let Some(conversation) = self.conversations.get_mut(principal) else { return };
        if !conversation.asked && !conversation.jobs.is_empty() {
            conversation.asked = true;
            self.store(Pending::Job(principal.clone()));
        }
    }

    pub(super) fn stored(&mut self, now: Instant, id: StoreId, result: Result<Reply, StoreError>) {
        let Some(pending) = self.pending.get(&id).cloned() else { return };
        let done = match (&pending, result) {
            (_, Err(error)) => {
                mark!("session.store_failed");
                tracing::warn!(%error, "the store failed; it is asked again");
                false
            }
            (Pending::Recover, Ok(Reply::Recovered(_))) => {
                self.start = Start::TakingUp { after: None, asked: false };
                for principal in self.conversations.keys().cloned().collect::<Vec<_>>() {
                    self.ask(&principal);
                }
                true
            }
            (Pending::TakeUp, Ok(Reply::Waiting(page))) => {
                self.took_up(page);
                true
            }
            (Pending::Job(principal), Ok(reply)) => self.replied(now, principal, reply),
            (_, Ok(_)) => false,
        };
        if done {
            self.pending.remove(&id);
            self.take_up();
            return;
        }
        // Every command can be given again, also when it is not known what became of it.
        let backoff = match &pending {
            Pending::Recover | Pending::TakeUp => &mut self.start_backoff,
            Pending::Job(principal) => match self.conversations.get_mut(principal) {
                Some(conversation) => &mut conversation.backoff,
                None => return,
            },
        };
        let delay = backoff.next_delay(&mut *self.entropy);
        self.timers.set(Timer::Retry(id), now + delay);
    }

    /// Looks for inputs whose turn had not begun when the last process ended [SE-3e], a page at a
    /// time, and no faster than turns get done.
    pub(super) fn take_up(&mut self) {
        if let Start::TakingUp { asked, .. } = &mut self.start
            && !*asked
            && self.queue.is_empty()
        {
            *asked = true;
            self.store(Pending::TakeUp);
        }
    }

    pub(super) fn took_up(&mut self, page: Vec<Arc<str>>) {
        self.start = match page.last() {
            Some(last) if page.len() >= TAKE_UP_PAGE => {
                Start::TakingUp { after: Some(last.clone()), asked: false }
            }
            _ => Start::Done,
        };
        for principal in page {
            mark!("session.waiting_taken_up");
            self.open(&principal);
            self.ask(&principal);
        }
    }

    /// The head of a conversation's jobs is answered. `false` if that is no answer to it.
    pub(super) fn replied(&mut self, now: Instant, principal: &Arc<str>, reply: Reply) -> bool {
        let Some(conversation) = self.conversations.get_mut(principal) else { return true };
        let Some(job) = conversation.jobs.front().cloned() else { return true };
        let mut begun = Vec::new();
        match (job, reply) {
            (Job::Load, Reply::Loaded(loaded)) => {
                conversation.pop();
                let presentation = &*self.presentation;
                let known = Known::new(loaded, &self.config, |row| shows(presentation, row));
                conversation.known = Some(known);
                begun = self.live(principal);
            }
            (Job::Input { by, named, input }, Reply::Input(verdict)) => {
                conversation.pop();
                self.judged(now, principal, by, named, &input, verdict);
            }
            (Job::Begin(turn), Reply::Begun(runs)) => {
                conversation.pop();
                self.turn_begun(now, &turn, runs);
            }
            (Job::Say { turn, .. }, Reply::Row(row)) => {
                conversation.pop();
                self.show(now, principal, row);
                self.outputs.push_back(Output::Heard { turn });
            }
            (Job::End { .. }, Reply::Ended(row)) => {
                conversation.pop();
                self.turn_ended(now, principal, row);
            }
            _ => return false,
        }
        for conn in begun {
            self.begin(now, conn);
        }
        self.advance(principal);
        self.ask(principal);
        for conn in self.live(principal) {
            self.pump(now, conn);
        }
        self.forget_unused(principal);
        true
    }

    pub(super) fn judged(
        &mut self,
        now: Instant,
        principal: &Arc<str>,
        by: Name,
        named: bool,
        input: &UserInput,
        verdict: Verdict,
    ) {
        let asker = Identity { principal: principal.clone(), client: by };
        let id = named.then(|| input.id.clone());
        match verdict {
            Verdict::Accepted(row) => self.accepted(now, &asker, id.as_ref(), row),
            // It was accepted by an attempt whose outcome was not known.
            Verdict::Known { position, question } if self.is_news(principal, position) => {
                mark!("session.accepted_in_doubt");
                let row = Row::of_input(position, input, question);
                self.accepted(now, &asker, id.as_ref(), row);
            }
            Verdict::Known { position, question } => {
                mark!("session.acknowledged_again");
                if let Some(id) = &id {
                    let body = acknowledgement(id, &Row::of_input(position, input, question));
                    self.push_to(now, &asker, body);
                }
            }
            Verdict::Rejected(reason) => {
                mark!("session.input_rejected");
                self.push_to(now, &asker, rejection(id, &input.what, reason));
            }
        }
    }

    /// Whether the row at this position was never heard of.
    pub(super) fn is_news(&self, principal: &Arc<str>, position: u64) -> bool {
        let known = self.conversations.get(principal).and_then(|it| it.known.as_ref());
        known.is_some_and(|known| position > known.newest())
    }

    /// An input is durable as a row: whoever said it gets the acknowledgement, the others see it.
    pub(super) fn accepted(&mut self, now: Instant, asker: &Identity, id: Option<&Name>, row: Row) {
        let principal = &asker.principal;
        let Some(conversation) = self.conversations.get_mut(principal) else { return };
        let Some(known) = &mut conversation.known else { return };
        known.show(row.clone(), &self.config);
        known.accept(row.clone());
        for identity in self.identities(principal) {
            let body = match id {
                Some(id) if identity == *asker => acknowledgement(id, &row),
                _ => frame_of(&row),
            };
            self.push_to(now, &identity, body);
        }
    }

    /// A row of the application is durable: it is shown, if it is to be shown.
    pub(super) fn show(&mut self, now: Instant, principal: &Arc<str>, row: Row) {
        let Some(conversation) = self.conversations.get_mut(principal) else { return };
        let Some(known) = &mut conversation.known else { return };
        known.heard_of(&row);
        if shows(&*self.presentation, &row) {
            known.show(row.clone(), &self.config);
            self.push_row(now, principal, &row);
        }
    }

    // ---- turns -------------------------------------------------------------------------------

    /// Lets the next turn of a conversation begin, if there is one and none runs.
    pub(super) fn advance(&mut self, principal: &Arc<str>) {
        let Some(conversation) = self.conversations.get_mut(principal) else { return };
        if self.turns >= self.config.turns_max {
            if conversation.has_next() && !self.queue.contains(principal) {
                mark!("session.turn_waits_for_others");
                self.queue.push_back(principal.clone());
            }
            return;
        }
        if let Some(turn) = conversation.next_turn(principal) {
            self.turns += 1;
            conversation.push(Job::Begin(turn));
        }
    }

    /// The turn is durable as begun, so that it is never run twice [SE-12a].
    pub(super) fn turn_begun(&mut self, now: Instant, turn: &Turn, runs: bool) {
        let principal = &turn.principal;
        let Some(conversation) = self.conversations.get_mut(principal) else { return };
        let Some(running) = &mut conversation.turn else { return };
        if !runs {
            mark!("session.turn_was_over");
            return self.turn_ended(now, principal, None);
        }
        running.begun = true;
        let work = Work { turn: turn.clone(), input: running.input.clone() };
        self.outputs.push_back(Output::Run(work));
        for conn in self.live(principal) {
            self.pump(now, conn);
        }
        self.tell(now, principal, &Body::Thinking);
    }

    pub(super) fn turn_ended(&mut self, now: Instant, principal: &Arc<str>, row: Option<Row>) {
        if let Some(conversation) = self.conversations.get_mut(principal) {
            conversation.turn = None;
        }
        self.turns -= 1;
        if let Some(row) = row {
            self.show(now, principal, row);
        }
        while self.turns < self.config.turns_max
            && let Some(next) = self.queue.pop_front()
        {
            self.advance(&next);
            self.ask(&next);
        }
    }

    pub(super) fn say(&mut self, turn: Turn, mut saying: Saying) {
        cut(&mut saying.text, self.config.text_bytes_max);
        let Some(conversation) = self.conversations.get_mut(&turn.principal) else { return };
        let Some(running) = conversation.running(&turn) else { return };
        running.said += 1;
        let nth = running.said;
        conversation.push(Job::Say { turn: turn.clone(), nth, saying });
        self.ask(&turn.principal);
    }

    pub(super) fn progress(&mut self, now: Instant, turn: &Turn, notice: Notice) {
        let running = self.conversations.get_mut(&turn.principal).and_then(|it| it.running(turn));
        if running.is_some() && notice.is_ephemeral() {
            self.tell(now, &turn.principal, &Body::Notice(notice));
        }
    }

    pub(super) fn end(&mut self, turn: Turn, mut ending: Ending) {
        if let Ending::Ask { text, .. } | Ending::Failed(text) = &mut ending {
            cut(text, self.config.text_bytes_max);
        }
        let Some(conversation) = self.conversations.get_mut(&turn.principal) else { return };
        let Some(running) = conversation.running(&turn) else { return };
        running.ending = true;
        conversation.push(Job::End { turn: turn.clone(), ending });
        self.ask(&turn.principal);
    }
}

/// Whether clients see the row. What is asked is not for the application to hide: nobody could
/// answer.
fn shows(presentation: &dyn Presentation, row: &Row) -> bool {
    row.role == Role::User || row.kind == Kind::Question || presentation.shows(row)
}

/// Cuts a text that is too long, and shows that it was.
fn cut(text: &mut String, bytes_max: usize) {
    const ELLIPSIS: &str = " […]";
    if text.len() > bytes_max {
        mark!("session.saying_cut");
        let end = text.floor_char_boundary(bytes_max.saturating_sub(ELLIPSIS.len()));
        text.truncate(end);
        text.push_str(ELLIPSIS);
    }
}
