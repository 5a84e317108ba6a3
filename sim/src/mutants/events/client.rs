//! What can be wrong with a client.

use std::collections::VecDeque;
use std::time::Duration;

use gapless::events::client::{Client, HandlerOutcome, Input, Notice, Offer, Output};
use gapless::events::wire::{ClientFrame, Gap, ServerFrame, Stream};
use gapless::events::{ConnectionId, Ticket};
use gapless::recovery::{Epoch, Instant};

use crate::mutants::ClientCore;
use crate::mutants::twist::{Hands, Twist, Twisted};

/// An event that arrived, with its number.
fn arrived(input: &Input) -> Option<(ConnectionId, u64)> {
    match input {
        Input::Frame { conn, frame: ServerFrame::Event(event), .. } => {
            Some((*conn, event.sequence()?))
        }
        _ => None,
    }
}

/// The third event vanishes.
#[derive(Default)]
struct Canary(u32);

impl Twist<Client> for Canary {
    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        if let Output::Offer(offer) = &output {
            self.0 += 1;
            if self.0 == 3 {
                hands.inputs.push_back(done(offer));
                return;
            }
        }
        hands.outputs.push_back(output);
    }
}

fn done(offer: &Offer) -> Input {
    let outcomes = offer.handlers.iter().map(|_| HandlerOutcome::Done).collect();
    Input::Handled { ticket: offer.ticket, outcomes }
}

pub(in crate::mutants) fn canary(core: Client) -> ClientCore {
    Twisted::boxed(core, Canary::default())
}

/// The highest number that arrived is the cursor.
#[derive(Default)]
struct CursorJumps(u64);

impl Twist<Client> for CursorJumps {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Client>) {
        if let Some((_, sequence)) = arrived(&input) {
            self.0 = self.0.max(sequence);
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, mut output: Output, hands: &mut Hands<Client>) {
        if let Output::Send { frame: ClientFrame::Resync(resync), .. } = &mut output {
            resync.last_seen_seq = resync.last_seen_seq.max(self.0);
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn cursor_jumps(core: Client) -> ClientCore {
    Twisted::boxed(core, CursorJumps::default())
}

/// Whatever a handler says, the event is done.
struct FailureSwallowed;

impl Twist<Client> for FailureSwallowed {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Client>) {
        if let Input::Handled { outcomes, .. } = &mut input {
            for outcome in outcomes {
                if let HandlerOutcome::Failed(_) = outcome {
                    *outcome = HandlerOutcome::Done;
                }
            }
        }
        hands.inputs.push_back(input);
    }
}

pub(in crate::mutants) fn failure_swallowed(core: Client) -> ClientCore {
    Twisted::boxed(core, FailureSwallowed)
}

/// A hole is explained away before anybody sees it.
#[derive(Default)]
struct HoleUnnoticed {
    epoch: Option<Epoch>,
    newest: Option<(ConnectionId, u64)>,
    swallow: u32,
}

impl Twist<Client> for HoleUnnoticed {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Client>) {
        if let Input::Frame { conn, frame: ServerFrame::ResyncBegin(begin), .. } = &input {
            self.epoch = Some(begin.epoch.clone());
            self.newest = Some((*conn, begin.from - 1));
        }
        if let Some((conn, sequence)) = arrived(&input)
            && let Some((of, newest)) = self.newest
            && conn == of
        {
            if let (Input::Frame { at, .. }, Some(epoch)) = (&input, &self.epoch)
                && sequence > newest + 1
            {
                let gap = Gap { epoch: epoch.clone(), from: newest + 1, to: sequence - 1 };
                self.swallow += 1;
                hands.inputs.push_back(Input::Frame {
                    conn,
                    frame: ServerFrame::Gap(gap),
                    at: *at,
                });
            }
            self.newest = Some((conn, newest.max(sequence)));
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        match output {
            Output::Notify(Notice::Gap { .. }) if self.swallow > 0 => self.swallow -= 1,
            output => hands.outputs.push_back(output),
        }
    }
}

pub(in crate::mutants) fn hole_unnoticed(core: Client) -> ClientCore {
    Twisted::boxed(core, HoleUnnoticed::default())
}

/// Until the first event, the cursor is the server's head.
#[derive(Default)]
struct NoFirstCursor {
    handled: bool,
    stream: Option<Stream>,
}

impl Twist<Client> for NoFirstCursor {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Client>) {
        match &input {
            Input::Handled { .. } => self.handled = true,
            Input::Frame { frame: ServerFrame::Stream(stream), .. } => {
                self.stream = Some(stream.clone());
            }
            _ => {}
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, mut output: Output, hands: &mut Hands<Client>) {
        if let Output::Send { frame: ClientFrame::Resync(resync), .. } = &mut output
            && let Some(stream) = self.stream.as_ref().filter(|_| !self.handled)
        {
            (resync.epoch, resync.last_seen_seq) = (Some(stream.epoch.clone()), stream.head);
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn no_first_cursor(core: Client) -> ClientCore {
    Twisted::boxed(core, NoFirstCursor::default())
}

/// A circuit breaker that never closes again.
#[derive(Default)]
struct GivesUpDialing(u32);

impl Twist<Client> for GivesUpDialing {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Client>) {
        match input {
            Input::DialFailed { .. } => self.0 += 1,
            Input::Opened { .. } => self.0 = 0,
            _ => {}
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        const FAILURES_MAX: u32 = 10;
        if !(matches!(output, Output::Dial { .. }) && self.0 >= FAILURES_MAX) {
            hands.outputs.push_back(output);
        }
    }
}

pub(in crate::mutants) fn gives_up_dialing(core: Client) -> ClientCore {
    Twisted::boxed(core, GivesUpDialing::default())
}

/// The driver takes one offer at a time; these wait for it.
#[derive(Default)]
struct Offers {
    waiting: VecDeque<Offer>,
    /// With the driver.
    out: Option<Ticket>,
}

impl Offers {
    fn push(&mut self, offer: Offer, hands: &mut Hands<Client>) {
        self.waiting.push_back(offer);
        self.next(hands);
    }

    fn next(&mut self, hands: &mut Hands<Client>) {
        if self.out.is_none()
            && let Some(offer) = self.waiting.pop_front()
        {
            self.out = Some(offer.ticket);
            hands.outputs.push_back(Output::Offer(offer));
        }
    }

    fn returned(&mut self, hands: &mut Hands<Client>) {
        self.out = None;
        self.next(hands);
    }
}

/// An event counts as handled as soon as it is offered.
#[derive(Default)]
struct HandledBeforeDone(Offers);

impl Twist<Client> for HandledBeforeDone {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Client>) {
        match input {
            Input::Handled { .. } => self.0.returned(hands),
            input => hands.inputs.push_back(input),
        }
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        match output {
            Output::Offer(offer) => {
                hands.inputs.push_back(done(&offer));
                self.0.push(offer, hands);
            }
            output => hands.outputs.push_back(output),
        }
    }
}

pub(in crate::mutants) fn handled_before_done(core: Client) -> ClientCore {
    Twisted::boxed(core, HandledBeforeDone::default())
}

/// Every fifth event is handed over after the next one.
#[derive(Default)]
struct OutOfOrder {
    offers: Offers,
    offered: u32,
    late: Option<Offer>,
}

impl Twist<Client> for OutOfOrder {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Client>) {
        match input {
            Input::Handled { .. } => self.offers.returned(hands),
            input => hands.inputs.push_back(input),
        }
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        match output {
            Output::Offer(offer) => {
                hands.inputs.push_back(done(&offer));
                self.offered += 1;
                if self.offered.is_multiple_of(5) {
                    self.late = Some(offer);
                } else {
                    self.offers.push(offer, hands);
                    if let Some(late) = self.late.take() {
                        self.offers.push(late, hands);
                    }
                }
            }
            output => hands.outputs.push_back(output),
        }
    }
}

pub(in crate::mutants) fn out_of_order(core: Client) -> ClientCore {
    Twisted::boxed(core, OutOfOrder::default())
}

/// What arrives again is offered again.
#[derive(Default)]
struct DuplicatesApplied {
    offers: Offers,
    offered: u64,
    again: u64,
}

impl DuplicatesApplied {
    /// Tickets that the core never gives.
    const AGAIN: u64 = u64::MAX / 2;
}

impl Twist<Client> for DuplicatesApplied {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Client>) {
        if let Input::Frame { frame: ServerFrame::Event(event), .. } = &input
            && event.sequence().is_some_and(|sequence| sequence <= self.offered)
        {
            self.again += 1;
            let offer = Offer {
                ticket: Ticket(Self::AGAIN + self.again),
                event: event.clone(),
                position: None,
                handlers: [0].into(),
                attempt: 1,
            };
            self.offers.push(offer, hands);
        }
        match input {
            Input::Handled { ticket, outcomes } => {
                self.offers.returned(hands);
                if ticket.0 < Self::AGAIN {
                    hands.inputs.push_back(Input::Handled { ticket, outcomes });
                }
            }
            input => hands.inputs.push_back(input),
        }
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        match output {
            Output::Offer(offer) => {
                self.offered = offer.event.sequence().unwrap_or(0).max(self.offered);
                self.offers.push(offer, hands);
            }
            output => hands.outputs.push_back(output),
        }
    }
}

pub(in crate::mutants) fn duplicates_applied(core: Client) -> ClientCore {
    Twisted::boxed(core, DuplicatesApplied::default())
}

/// Gaps are nobody's business.
struct GapSwallowed;

impl Twist<Client> for GapSwallowed {
    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        match output {
            Output::Notify(Notice::Gap { .. }) => {}
            Output::Notify(Notice::Resynced { replayed, .. }) => {
                let notice = Notice::Resynced { replayed, gap_detected: false };
                hands.outputs.push_back(Output::Notify(notice));
            }
            output => hands.outputs.push_back(output),
        }
    }
}

pub(in crate::mutants) fn gap_swallowed(core: Client) -> ClientCore {
    Twisted::boxed(core, GapSwallowed)
}

/// Each connection that is lost doubles the pause before the next, for ever.
#[derive(Default)]
struct BackoffNeverResets {
    now: Option<Instant>,
    lost: u32,
    /// When the next connection may be tried, and the attempt that waits for it.
    pause: Option<(Instant, Option<Output>)>,
}

impl BackoffNeverResets {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);
}

impl Twist<Client> for BackoffNeverResets {
    fn input(&mut self, now: Instant, input: Input, hands: &mut Hands<Client>) {
        self.now = Some(now);
        if let Some((until, waiting)) = &mut self.pause
            && *until <= now
        {
            hands.outputs.extend(waiting.take());
            self.pause = None;
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        match (&output, &mut self.pause, self.now) {
            (Output::Notify(Notice::Disconnected { .. }), None, Some(now)) => {
                let pause = Self::FIRST * 2_u32.saturating_pow(self.lost.min(10));
                self.lost += 1;
                self.pause = Some((now + pause.min(Self::LONGEST), None));
                hands.outputs.push_back(output);
            }
            (Output::Dial { .. }, Some((_, waiting)), _) => *waiting = Some(output),
            _ => hands.outputs.push_back(output),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.pause.as_ref().map(|(until, _)| *until)
    }
}

pub(in crate::mutants) fn backoff_never_resets(core: Client) -> ClientCore {
    Twisted::boxed(core, BackoffNeverResets::default())
}
