//! What can be wrong with a client of sessions.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gapless::recovery::Instant;
use gapless::session::client::{Client, Input, Output};
use gapless::session::conversation::{Role, What};
use gapless::session::in_flight::Command;
use gapless::session::view::{Connection, View};
use gapless::session::wire::{Body, ClientFrame, HistoryMessage, ServerFrame, Status};
use gapless::session::{CloseCode, ConnectionId, Name};

use crate::mutants::SessionClientCore;
use crate::mutants::twist::{Hands, Twist, Twisted};

/// The cursor follows the newest frame. The core is given numbers without holes instead.
#[derive(Default)]
struct CursorJumps {
    /// The highest number that came.
    seen: u64,
    /// The number that the core takes it for.
    given: u64,
}

impl Twist<Client> for CursorJumps {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Client>) {
        if let Input::Frame { conn, frame } = &mut input {
            match &mut frame.body {
                Body::History(_) => (self.seen, self.given) = (frame.seq, frame.seq),
                Body::Begin(begin) => (begin.from, begin.to) = (self.given + 1, self.given),
                Body::Ping { sent } => *sent = None,
                _ if frame.seq > self.seen => {
                    (self.seen, self.given) = (frame.seq, self.given + 1);
                    frame.seq = self.given;
                }
                _ if frame.seq > 0 => input = Input::Alive { conn: *conn },
                _ => {}
            }
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, mut output: Output, hands: &mut Hands<Client>) {
        match &mut output {
            Output::Send { frame: ClientFrame::Ack { seq, .. }, .. } => *seq = self.seen,
            Output::Dial { resume, .. } if resume.since > 0 => resume.since = self.seen,
            _ => {}
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn cursor_jumps(core: Client) -> SessionClientCore {
    Twisted::boxed(core, CursorJumps::default())
}

/// The cursor moves when a frame arrives. It is applied a little later, if the link holds so long.
#[derive(Default)]
struct CursorFirst {
    arrived: u64,
    held: VecDeque<(Instant, Input)>,
}

impl CursorFirst {
    const LATER: Duration = Duration::from_millis(80);
}

impl Twist<Client> for CursorFirst {
    fn input(&mut self, now: Instant, mut input: Input, hands: &mut Hands<Client>) {
        while let Some((_, applied)) = self.held.pop_front_if(|(due, _)| *due <= now) {
            hands.inputs.push_back(applied);
        }
        match &mut input {
            Input::Frame { frame: ServerFrame { seq, body: Body::History(_) }, .. } => {
                self.held.clear();
                self.arrived = *seq;
            }
            Input::Frame { frame: ServerFrame { body: Body::Ping { sent }, .. }, .. } => {
                *sent = None;
            }
            Input::Frame { frame, .. } if frame.seq > 0 => {
                if frame.seq == self.arrived + 1 {
                    self.arrived = frame.seq;
                }
                self.held.push_back((now + Self::LATER, input));
                return;
            }
            Input::Closed { .. } => self.held.clear(),
            _ => {}
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, mut output: Output, hands: &mut Hands<Client>) {
        match &mut output {
            Output::Send { frame: ClientFrame::Ack { seq, .. }, .. } => *seq = self.arrived,
            Output::Dial { resume, .. } if resume.since > 0 => resume.since = self.arrived,
            _ => {}
        }
        hands.outputs.push_back(output);
    }

    fn deadline(&self) -> Option<Instant> {
        self.held.front().map(|(due, _)| *due)
    }
}

pub(in crate::mutants) fn cursor_first(core: Client) -> SessionClientCore {
    Twisted::boxed(core, CursorFirst::default())
}

/// A view that begins anew still has a number.
struct CursorOutlivesView;

impl Twist<Client> for CursorOutlivesView {
    fn output(&mut self, mut output: Output, hands: &mut Hands<Client>) {
        if let Output::Dial { resume, .. } = &mut output
            && resume.attempt == 1
        {
            resume.since = 1;
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn cursor_outlives_view(core: Client) -> SessionClientCore {
    Twisted::boxed(core, CursorOutlivesView)
}

/// What comes again is shown again.
#[derive(Default)]
struct ShownAgain {
    seen: u64,
    view: Arc<View>,
    again: Vec<Arc<HistoryMessage>>,
}

impl ShownAgain {
    fn show(&self) -> Output {
        let mut view = View::clone(&self.view);
        view.messages.extend(self.again.iter().cloned());
        Output::Show(Arc::new(view))
    }
}

impl Twist<Client> for ShownAgain {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Client>) {
        if let Input::Frame { frame: ServerFrame { seq, body }, .. } = &input {
            match body {
                Body::History(_) => {
                    self.again.clear();
                    self.seen = *seq;
                }
                Body::Assistant(said) if (1..=self.seen).contains(seq) => {
                    self.again.push(Arc::new(HistoryMessage {
                        role: Role::Assistant,
                        text: said.text.clone(),
                        position: said.position,
                        kind: said.kind,
                        input: None,
                        question: None,
                        attachments: Vec::new(),
                    }));
                    hands.outputs.push_back(self.show());
                }
                _ => self.seen = self.seen.max(*seq),
            }
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        match output {
            Output::Show(view) => {
                self.view = view;
                hands.outputs.push_back(self.show());
            }
            output => hands.outputs.push_back(output),
        }
    }
}

pub(in crate::mutants) fn shown_again(core: Client) -> SessionClientCore {
    Twisted::boxed(core, ShownAgain::default())
}

/// An input is sent once.
#[derive(Default)]
struct SentOnce(BTreeSet<Name>);

impl Twist<Client> for SentOnce {
    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        if let Output::Send { frame, .. } = &output
            && let ClientFrame::UserMessage { id: Some(id), .. }
            | ClientFrame::UserAnswer { id: Some(id), .. } = frame
            && !self.0.insert(id.clone())
        {
            return;
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn sent_once(core: Client) -> SessionClientCore {
    Twisted::boxed(core, SentOnce::default())
}

/// A message is sent as soon as it is said.
#[derive(Default)]
struct SentFirst {
    live: bool,
    conn: Option<ConnectionId>,
}

impl Twist<Client> for SentFirst {
    fn output(&mut self, output: Output, hands: &mut Hands<Client>) {
        match &output {
            Output::Dial { conn, .. } => self.conn = Some(*conn),
            Output::Show(view) => self.live = view.connection == Connection::Live,
            Output::Store(_, Command::Keep(input)) if self.live => {
                if let (Some(conn), What::Message { attachments, after }) = (self.conn, &input.what)
                {
                    let frame = ClientFrame::UserMessage {
                        id: Some(input.id.clone()),
                        text: input.text.clone(),
                        attachments: attachments.clone(),
                        after: *after,
                    };
                    hands.outputs.push_back(Output::Send { conn, frame });
                }
            }
            _ => {}
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn sent_first(core: Client) -> SessionClientCore {
    Twisted::boxed(core, SentFirst::default())
}

/// What was in flight is forgotten when the page is loaded again.
struct FlightForgotten;

impl Twist<Client> for FlightForgotten {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Client>) {
        if let Input::Start { in_flight } = &mut input {
            in_flight.clear();
        }
        hands.inputs.push_back(input);
    }
}

pub(in crate::mutants) fn flight_forgotten(core: Client) -> SessionClientCore {
    Twisted::boxed(core, FlightForgotten)
}

/// The view is not what the core shows.
struct Misshown {
    change: fn(&mut View),
}

impl Twist<Client> for Misshown {
    fn output(&mut self, mut output: Output, hands: &mut Hands<Client>) {
        if let Output::Show(view) = &mut output {
            (self.change)(Arc::make_mut(view));
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn rejection_not_shown(core: Client) -> SessionClientCore {
    Twisted::boxed(core, Misshown { change: |view| view.rejected.clear() })
}

/// It thinks until a message of the assistant comes as a frame.
#[derive(Default)]
struct ThinksForEver {
    thinks: bool,
}

impl Twist<Client> for ThinksForEver {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Client>) {
        if let Input::Frame { frame, .. } = &input {
            match &frame.body {
                Body::Thinking | Body::Status(Status::Thinking) => self.thinks = true,
                Body::Assistant(_) | Body::Question { .. } => self.thinks = false,
                _ => {}
            }
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, mut output: Output, hands: &mut Hands<Client>) {
        if let Output::Show(view) = &mut output
            && self.thinks
        {
            Arc::make_mut(view).status = Status::Thinking;
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn thinks_for_ever(core: Client) -> SessionClientCore {
    Twisted::boxed(core, ThinksForEver::default())
}

/// Whoever is pushed aside pushes back.
struct PushesBack;

impl Twist<Client> for PushesBack {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Client>) {
        if let Input::Closed { conn, code: Some(CloseCode::SUPERSEDED) } = input {
            input = Input::Closed { conn, code: None };
        }
        hands.inputs.push_back(input);
    }
}

pub(in crate::mutants) fn pushes_back(core: Client) -> SessionClientCore {
    Twisted::boxed(core, PushesBack)
}
