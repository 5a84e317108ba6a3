//! HTTP, while the link is down for long [TK-13].

use std::collections::VecDeque;

use super::{Agent, Delivery, Output, Pending, Phase, Posted, Timer};
use crate::Ticket;
use crate::mark;
use crate::recovery::{Backoff, BackoffConfig, Instant};
use crate::tasks::MessageId;
use crate::tasks::store::Command;
use crate::tasks::wire::{Deliver, Final};

/// The requests of an agent whose link is down.
pub(super) struct Fallback {
    /// The link has been down for long.
    on: bool,
    /// The store is asked for results.
    asking: bool,
    /// Results that wait for their turn, oldest first.
    results: VecDeque<(MessageId, Final)>,
    /// The result that is on its way; it stays first in `results` until it is answered.
    posting: Option<Ticket>,
    polling: Option<Ticket>,
    retry: Backoff,
}

/// How many results are read from the store at once.
const RESULTS_MAX: usize = 16;

impl Fallback {
    pub(super) fn new(retry: BackoffConfig) -> Self {
        Self {
            on: false,
            asking: false,
            results: VecDeque::new(),
            posting: None,
            polling: None,
            retry: Backoff::new(retry),
        }
    }
}

impl Agent {
    /// There is no active link.
    pub(super) fn link_is_down(&mut self, now: Instant) {
        if !self.fallback.on && self.timers.get(Timer::Fallback).is_none() {
            self.timers.set(Timer::Fallback, now + self.config.fallback_after);
        }
    }

    /// The link is active: it carries everything.
    pub(super) fn link_is_up(&mut self) {
        self.fallback = Fallback::new(self.config.request_retry);
        for timer in
            [Timer::Fallback, Timer::Poll, Timer::PollTimeout, Timer::Post, Timer::PostTimeout]
        {
            self.timers.stop(timer);
        }
    }

    pub(super) fn fall_back(&mut self, now: Instant) {
        mark!("tasks.fell_back_to_http");
        self.fallback.on = true;
        self.ask_for_finals();
        self.poll_for_tasks(now);
    }

    // ---- tasks -------------------------------------------------------------------------------

    pub(super) fn poll_for_tasks(&mut self, now: Instant) {
        self.timers.set(Timer::Poll, now + self.config.poll_every);
        if self.fallback.polling.is_none()
            && !self.forked
            && matches!(self.phase, Phase::Ready { .. })
        {
            let ticket = self.ticket();
            self.fallback.polling = Some(ticket);
            self.timers.set(Timer::PollTimeout, now + self.config.request_timeout);
            self.outputs.push_back(Output::Poll { ticket });
        }
    }

    pub(super) fn polled(
        &mut self,
        _now: Instant,
        ticket: Ticket,
        answer: Result<Vec<Deliver>, String>,
    ) {
        if self.fallback.polling != Some(ticket) {
            return;
        }
        self.fallback.polling = None;
        self.timers.stop(Timer::PollTimeout);
        for deliver in answer.unwrap_or_default() {
            mark!("tasks.delivered_over_http");
            self.deliver(Delivery { deliver, message_id: None });
        }
    }

    pub(super) fn poll_timed_out(&mut self, _now: Instant) {
        self.fallback.polling = None;
    }

    // ---- results -----------------------------------------------------------------------------

    /// A result was stored.
    pub(super) fn result_is_there(&mut self, _now: Instant) {
        if self.fallback.results.is_empty() {
            self.ask_for_finals();
        }
    }

    pub(super) fn ask_for_finals(&mut self) {
        let idle = !self.fallback.asking && self.fallback.posting.is_none();
        if self.fallback.on && idle {
            self.fallback.asking = true;
            let command = Command::Snapshot { finals_max: RESULTS_MAX, ranges_max: 0 };
            self.store(Pending::Finals, command);
        }
    }

    pub(super) fn finals_for_http(&mut self, now: Instant, results: Vec<(MessageId, Final)>) {
        if self.fallback.on && self.fallback.asking {
            self.fallback.asking = false;
            self.fallback.results = results.into();
            self.post(now);
        }
    }

    fn post(&mut self, now: Instant) {
        let Some((message_id, result)) = self.fallback.results.front().cloned() else {
            // What is stored meanwhile is asked for when it is there.
            return;
        };
        let ticket = self.ticket();
        self.fallback.posting = Some(ticket);
        self.timers.set(Timer::PostTimeout, now + self.config.request_timeout);
        self.outputs.push_back(Output::Post { ticket, message_id, result });
    }

    pub(super) fn posted(&mut self, now: Instant, ticket: Ticket, answer: Posted) {
        if self.fallback.posting != Some(ticket) {
            return;
        }
        self.fallback.posting = None;
        self.timers.stop(Timer::PostTimeout);
        match answer {
            Posted::Accepted => {
                mark!("tasks.result_over_http");
                self.fallback.retry.reset();
                if let Some((message_id, _)) = self.fallback.results.pop_front() {
                    self.release(Command::Ack(message_id));
                }
                self.post_or_ask(now);
            }
            Posted::Refused(reason) => {
                mark!("tasks.result_refused_over_http");
                tracing::warn!(reason, "a result was refused; it stays until the link is back");
                self.fallback.results.pop_front();
                self.post_or_ask(now);
            }
            // It may have arrived. The same request may be made again, over the same channel.
            Posted::Unknown(_) => self.http_later(now),
        }
    }

    fn post_or_ask(&mut self, now: Instant) {
        if self.fallback.results.is_empty() {
            self.timers.set(Timer::Post, now + self.config.poll_every);
        } else {
            self.post(now);
        }
    }

    pub(super) fn post_timed_out(&mut self, now: Instant) {
        mark!("tasks.request_timed_out");
        self.fallback.posting = None;
        self.http_later(now);
    }

    pub(super) fn http_later(&mut self, now: Instant) {
        self.fallback.asking = false;
        if self.fallback.on {
            let delay = self.fallback.retry.next_delay(&mut *self.entropy);
            self.timers.set(Timer::Post, now + delay);
        }
    }
}
