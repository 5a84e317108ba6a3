//! The client's side of the session protocol, without I/O.
//!
//! A [`Client`] keeps one connection alive, applies each numbered frame once and in order to its
//! [`View`], and holds what the user said until the server has given its verdict [SE-4] [SE-5].
//!
//! It does not open sockets or store anything: the driver does, and reports back. Frames and
//! closings of a connection that has been replaced change nothing.
//!
//! This file has the link and the numbers; what the user said is in `inputs`.

mod inputs;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::inputs::Inputs;
use super::conversation::Input as UserInput;
use super::in_flight::Command;
use super::view::{Connection, View};
use super::wire::{Attachment, Begin, Body, ClientFrame, FrameError, History, ServerFrame};
use super::{CloseCode, ConnectionId, DialFailure, Name, StoreId, Ticket};
use crate::mark;
use crate::recovery::{
    Backoff, BackoffConfig, Entropy, Epoch, Instant, Observed, SequenceTracker, Timers,
    random_hex_128,
};
use crate::storage::StoreError;

/// The limits and intervals of a client. The defaults are those of the specification.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Whether the extension is offered.
    pub extension: bool,
    /// How long a connection may take to open, and then its first frame to come: 10 s.
    pub connect_timeout: Duration,
    /// How often the server sends a ping: 25 s. After two and a half times that without a frame
    /// the client connects anew [SE-9c].
    pub ping_every: Duration,
    /// The pauses between attempts to connect: 1 s to 10 s, ± 25 %.
    pub reconnect: BackoffConfig,
    /// How often what was applied is acknowledged: 5 s.
    pub ack_every: Duration,
    /// How long a verdict may take before the oldest input in flight is sent again: 30 s.
    pub ack_timeout: Duration,
    /// How many inputs may be in flight: 32.
    pub in_flight_max: usize,
    /// How long after opening, or after the history if one is due, the inputs in flight are sent
    /// to a base server: 1 s.
    pub base_grace: Duration,
    /// The longest input, text and attachments, in bytes: 64 KiB.
    pub text_bytes_max: usize,
    /// How many rows the view holds: 1,000; the oldest leave first.
    pub messages_max: usize,
    /// How many rejected inputs the view holds: 32; the oldest leave first.
    pub rejected_max: usize,
    /// The pauses between attempts to store: 100 ms to 5 s.
    pub store_retry: BackoffConfig,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            extension: true,
            connect_timeout: Duration::from_secs(10),
            ping_every: Duration::from_secs(25),
            reconnect: BackoffConfig {
                min: Duration::from_secs(1),
                max: Duration::from_secs(10),
                jitter_percent: 25,
            },
            ack_every: Duration::from_secs(5),
            ack_timeout: Duration::from_secs(30),
            in_flight_max: 32,
            base_grace: Duration::from_secs(1),
            text_bytes_max: 64 << 10,
            messages_max: 1_000,
            rejected_max: 32,
            store_retry: BackoffConfig {
                min: Duration::from_millis(100),
                max: Duration::from_secs(5),
                jitter_percent: 25,
            },
        }
    }
}

/// What can happen to a client.
#[derive(Debug)]
pub enum Input {
    /// Begin, with what was in flight when the last process ended.
    Start {
        /// In the order in which it was first sent.
        in_flight: Vec<UserInput>,
    },
    /// The connection is open.
    Opened {
        /// Which.
        conn: ConnectionId,
        /// Whether the server took up the offer of the extension.
        extension: bool,
    },
    /// The connection could not be opened.
    DialFailed {
        /// Which.
        conn: ConnectionId,
        /// Why.
        failure: DialFailure,
    },
    /// A frame arrived.
    Frame {
        /// Where.
        conn: ConnectionId,
        /// What.
        frame: ServerFrame,
    },
    /// A frame arrived that is none of the protocol's.
    Malformed {
        /// Where.
        conn: ConnectionId,
        /// What is wrong with it.
        error: FrameError,
    },
    /// A WebSocket ping or pong arrived: a sign of life and nothing else.
    Alive {
        /// Where.
        conn: ConnectionId,
    },
    /// The connection is gone.
    Closed {
        /// Which.
        conn: ConnectionId,
        /// The code of the close frame, if there was one.
        code: Option<CloseCode>,
    },
    /// The user says something; answered by [`Output::Submitted`].
    Submit {
        /// Names the request.
        ticket: Ticket,
        /// What.
        what: Submission,
    },
    /// The user wants to be connected: now, and also after the connection was superseded.
    Reconnect,
    /// The store answered.
    Stored(StoreId, Result<(), StoreError>),
    /// Close and stay closed.
    Stop,
    /// The deadline has come.
    Timeout,
}

/// Something that the user says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// A message.
    Message {
        /// The text.
        text: String,
        /// What comes with it.
        attachments: Vec<Attachment>,
    },
    /// An answer to the question that is open in the view.
    Answer {
        /// The text.
        text: String,
    },
}

/// What was said is not taken. Nothing of it is stored or sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too much has no verdict yet.
    #[error("too many messages wait for the server; try again when it has answered")]
    TooManyInFlight,
    /// It is longer than allowed.
    #[error("the message has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// There is no question to answer, or it is answered already.
    #[error("no question is open")]
    NoQuestion,
    /// The client was stopped, or has not begun.
    #[error("the client is not running")]
    Stopped,
}

/// What a client wants done.
#[derive(Debug)]
pub enum Output {
    /// Open a connection.
    Dial {
        /// The new connection.
        conn: ConnectionId,
        /// Whether to offer the extension.
        offer_extension: bool,
        /// From where.
        resume: Resume,
    },
    /// Send a frame.
    Send {
        /// Where.
        conn: ConnectionId,
        /// What.
        frame: ClientFrame,
    },
    /// Close a connection, or give up opening it. No [`Input::Closed`] needs to follow.
    Close {
        /// Which.
        conn: ConnectionId,
        /// The code of the close frame.
        code: CloseCode,
        /// The reason in the close frame.
        reason: &'static str,
    },
    /// Change what is kept; answered by [`Input::Stored`].
    Store(StoreId, Command),
    /// What the user said is taken, under this id, or it is not.
    Submitted {
        /// The request.
        ticket: Ticket,
        /// The answer.
        result: Result<Name, SubmitError>,
    },
    /// The view has changed. At most once for each input, and before anything else.
    Show(Arc<View>),
}

/// What a client says about itself on the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The highest contiguous number that was applied; 0 = begin anew [SE-10].
    pub since: u64,
    /// Its epoch, if the server speaks the extension.
    pub epoch: Option<Epoch>,
    /// This life of the client in memory.
    pub view: String,
    /// Which attempt to connect this is, from 1.
    pub attempt: u64,
}

/// After so many holes in a row the client begins anew: what is missing cannot be had otherwise
/// [CORE-8].
const HOLES_MAX: u32 = 3;

/// The client's core. See the [module](self).
pub struct Client {
    config: ClientConfig,
    entropy: Box<dyn Entropy>,
    link: Link,
    /// This life in memory, on the URL.
    view_id: String,
    /// Names the connections, and counts the attempts.
    connections: u64,
    offer_extension: bool,
    reconnect: Backoff,
    /// The cursor: the epoch, if the server has told one, and the number.
    epoch: Option<Epoch>,
    numbers: SequenceTracker,
    /// How many connections in a row ended because numbers were missing.
    holes: u32,
    view: View,
    shown: Arc<View>,
    inputs: Inputs,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

enum Link {
    NotBegun,
    Dialing(ConnectionId),
    Open(Session),
    /// [`Timer::Reconnect`] is armed.
    Waiting,
    Superseded,
    Stopped,
}

struct Session {
    conn: ConnectionId,
    mode: Mode,
    phase: Phase,
    /// A numbered frame was applied on this connection.
    is_numbered: bool,
    /// Base contract: a history came, which the open question follows [SE-2d].
    question_follows: bool,
    /// A ping came after the rest was here: nothing that the server said before is still on its
    /// way.
    has_pinged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The extension was taken up; its first frame has not come.
    Undecided,
    Base,
    Extension,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The mode is undecided.
    Opening,
    /// Base contract: nothing says when everything is here, so it is given some time.
    Grace,
    /// Extension: a history is due, and nothing else.
    History,
    /// Extension: what was missed is due, up to this number.
    Replay {
        to: u64,
    },
    Live,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The connection does not open.
    Connect,
    /// What has to come first, or was missed, does not come.
    CatchUp,
    /// Nothing comes at all.
    Silence,
    /// Time to connect again.
    Reconnect,
    /// Time to acknowledge what was applied.
    Ack,
    /// The oldest input in flight gets no verdict.
    Verdict,
    /// Time to store again.
    Store,
}

impl Client {
    /// A client that has not begun. Its first input is [`Input::Start`].
    pub fn new(config: ClientConfig, entropy: Box<dyn Entropy>) -> Self {
        Self {
            link: Link::NotBegun,
            view_id: String::new(),
            connections: 0,
            offer_extension: config.extension,
            reconnect: Backoff::new(config.reconnect),
            epoch: None,
            numbers: SequenceTracker::default(),
            holes: 0,
            view: View::default(),
            shown: Arc::default(),
            inputs: Inputs::new(config.store_retry),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            config,
            entropy,
        }
    }

    /// The configuration that the client was made with.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// What is to be shown: the last [`Output::Show`], or an empty view before.
    pub fn view(&self) -> &Arc<View> {
        &self.shown
    }

    // ---- connecting --------------------------------------------------------------------------

    fn start(&mut self, now: Instant, in_flight: Vec<UserInput>) {
        if let Link::NotBegun = self.link {
            self.view_id = random_hex_128(&mut *self.entropy);
            self.restore(in_flight);
            self.dial(now);
        }
    }

    fn dial(&mut self, now: Instant) {
        self.connections += 1;
        let conn = ConnectionId(self.connections);
        self.link = Link::Dialing(conn);
        self.view.connection = Connection::Connecting;
        self.timers.stop(Timer::Reconnect);
        self.timers.set(Timer::Connect, now + self.config.connect_timeout);
        let offer_extension = self.offer_extension;
        if !offer_extension && self.epoch.is_some() {
            // A server of the base contract would take the number for one of its own.
            self.forget_cursor();
        }
        let resume = Resume {
            since: self.numbers.highest(),
            epoch: self.epoch.clone(),
            view: self.view_id.clone(),
            attempt: self.connections,
        };
        self.outputs.push_back(Output::Dial { conn, offer_extension, resume });
    }

    fn dial_failed(&mut self, now: Instant, conn: ConnectionId, failure: DialFailure) {
        match self.link {
            Link::Dialing(dialing) if dialing == conn => {}
            _ => return,
        }
        if failure == DialFailure::ExtensionRefused && self.offer_extension {
            mark!("session.extension_refused");
            self.offer_extension = false;
            self.dial(now);
            return;
        }
        mark!("session.dial_failed");
        self.lost(now, failure.to_string());
    }

    fn opened(&mut self, now: Instant, conn: ConnectionId, extension: bool) {
        match self.link {
            Link::Dialing(dialing) if dialing == conn => {}
            _ => {
                let (code, reason) = (CloseCode::NORMAL, "replaced");
                self.outputs.push_back(Output::Close { conn, code, reason });
                return;
            }
        }
        self.timers.stop(Timer::Connect);
        self.timers.set(Timer::Silence, now + self.silence());
        self.timers.set(Timer::CatchUp, now + self.config.connect_timeout);
        self.view.connection = Connection::CatchingUp;
        self.link = Link::Open(Session {
            conn,
            mode: Mode::Undecided,
            phase: Phase::Opening,
            is_numbered: false,
            question_follows: false,
            has_pinged: false,
        });
        if !(extension && self.offer_extension) {
            self.begin_base(now);
        }
    }

    /// The connection is gone, or never came to be: wait and try again [CORE-11].
    fn lost(&mut self, now: Instant, reason: String) {
        self.disconnected();
        let retry_in = self.reconnect.next_delay(&mut *self.entropy);
        self.link = Link::Waiting;
        self.view.connection = Connection::Waiting { reason, retry_in };
        self.timers.set(Timer::Reconnect, now + retry_in);
    }

    fn closed(&mut self, now: Instant, conn: ConnectionId, code: Option<CloseCode>) {
        if !self.is_current(conn) {
            mark!("session.close_of_replaced_connection");
            return;
        }
        match code {
            Some(CloseCode::SUPERSEDED) => {
                mark!("session.superseded");
                self.disconnected();
                self.link = Link::Superseded;
                self.view.connection = Connection::Superseded;
            }
            Some(code) => {
                self.lost(now, format!("the server closed the connection with code {code}"));
            }
            None => self.lost(now, "the connection broke".to_owned()),
        }
    }

    fn drop_link(&mut self, now: Instant, code: CloseCode, reason: &'static str) {
        if let Some(conn) = self.conn() {
            self.outputs.push_back(Output::Close { conn, code, reason });
            self.lost(now, reason.to_owned());
        }
    }

    fn connect_now(&mut self, now: Instant) {
        match self.link {
            Link::Waiting | Link::Superseded => self.dial(now),
            Link::NotBegun | Link::Dialing(_) | Link::Open(_) | Link::Stopped => {}
        }
    }

    /// Nothing is sent or dialled from here on. What is being stored is stored.
    fn stop(&mut self) {
        if let Some(conn) = self.conn() {
            let (code, reason) = (CloseCode::NORMAL, "stopped");
            self.outputs.push_back(Output::Close { conn, code, reason });
        }
        self.disconnected();
        self.timers.stop(Timer::Reconnect);
        self.link = Link::Stopped;
        self.view.connection = Connection::Stopped;
    }

    /// Ends what belongs to one connection.
    fn disconnected(&mut self) {
        for timer in [Timer::Connect, Timer::CatchUp, Timer::Silence, Timer::Ack, Timer::Verdict] {
            self.timers.stop(timer);
        }
        self.inputs.disconnected();
        self.view.disconnected();
    }

    /// The connection that there is, open or not yet.
    fn conn(&self) -> Option<ConnectionId> {
        match &self.link {
            Link::Dialing(conn) => Some(*conn),
            Link::Open(session) => Some(session.conn),
            Link::NotBegun | Link::Waiting | Link::Superseded | Link::Stopped => None,
        }
    }

    fn is_current(&self, conn: ConnectionId) -> bool {
        self.conn() == Some(conn)
    }

    fn silence(&self) -> Duration {
        self.config.ping_every * 5 / 2
    }

    // ---- catching up -------------------------------------------------------------------------

    /// The verdict on the cursor: the extension is in force.
    fn begin(&mut self, now: Instant, begin: Begin) {
        let Link::Open(session) = &mut self.link else { return };
        if session.mode != Mode::Undecided {
            mark!("session.unexpected_frame_ignored");
            return;
        }
        session.mode = Mode::Extension;
        if begin.verdict.is_history() {
            mark!("session.history_due");
            session.phase = Phase::History;
            self.forget_cursor();
        } else if self.epoch.as_ref() == Some(&begin.epoch) {
            session.phase = Phase::Replay { to: begin.to };
        } else {
            mark!("session.verdict_of_another_epoch");
            self.forget_cursor();
            self.drop_link(now, CloseCode::PROTOCOL, "the verdict is about another epoch");
            return;
        }
        self.timers.set(Timer::CatchUp, now + self.silence());
        self.go_live_when_caught_up(now);
    }

    /// The server does not speak the extension on this connection. Whether it did not take the
    /// offer or merely echoes any, base rules hold.
    fn begin_base(&mut self, now: Instant) {
        if self.epoch.is_some() {
            mark!("session.extension_gone");
            self.forget_cursor();
            self.drop_link(now, CloseCode::NORMAL, "the server no longer speaks the extension");
            return;
        }
        let Link::Open(session) = &mut self.link else { return };
        session.mode = Mode::Base;
        session.phase = Phase::Grace;
        if self.numbers.highest() > 0 {
            self.timers.set(Timer::CatchUp, now + self.config.base_grace);
        }
        // Else a history is due. It gets as long as the first frame of any connection.
    }

    fn go_live_when_caught_up(&mut self, now: Instant) {
        if let Link::Open(session) = &self.link
            && let Phase::Replay { to } = session.phase
            && to <= self.numbers.highest()
        {
            self.go_live(now);
        }
    }

    /// Everything missed is here. The next pause is short again, unless numbers were missing: then
    /// that has to show.
    fn go_live(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        session.phase = Phase::Live;
        session.question_follows = false;
        if session.mode == Mode::Base {
            self.settle_answers_without_question(now);
        }
        self.timers.stop(Timer::CatchUp);
        self.view.connection = Connection::Live;
        if self.holes == 0 {
            self.reconnect.reset();
        }
        self.send_inputs(now);
    }

    fn catch_up_timed_out(&mut self, now: Instant) {
        let Link::Open(session) = &self.link else { return };
        match session.phase {
            Phase::Grace => {
                mark!("session.base_grace_over");
                self.go_live(now);
            }
            Phase::Opening => {
                mark!("session.begin_timed_out");
                self.drop_link(now, CloseCode::SILENT, "the server did not begin to speak in time");
            }
            Phase::History | Phase::Replay { .. } => {
                mark!("session.catch_up_timed_out");
                self.hole(now);
            }
            Phase::Live => {}
        }
    }

    /// Something is missing: the connection is made anew with the cursor [SE-4d]. If that does not
    /// bring it, without [CORE-8].
    fn hole(&mut self, now: Instant) {
        mark!("session.hole");
        self.holes = self.holes.saturating_add(1);
        if self.holes >= HOLES_MAX {
            mark!("session.began_anew_after_holes");
            self.forget_cursor();
        }
        self.drop_link(now, CloseCode::RESUME, "frames are missing");
    }

    /// The view has nothing to which a replay could be added [SE-10a].
    fn forget_cursor(&mut self) {
        self.epoch = None;
        self.numbers.reset(0);
    }

    // ---- frames ------------------------------------------------------------------------------

    fn frame(&mut self, now: Instant, conn: ConnectionId, frame: ServerFrame) {
        if !self.heard(now, conn) {
            mark!("session.frame_of_replaced_connection");
            return;
        }
        let ServerFrame { seq, body } = frame;
        let body = match body {
            Body::Begin(begin) => return self.begin(now, begin),
            Body::Ping { sent } => {
                self.ping(now, conn, sent);
                if seq == 0 {
                    return;
                }
                Body::Ping { sent }
            }
            body => body,
        };
        if matches!(&self.link, Link::Open(session) if session.mode == Mode::Undecided) {
            mark!("session.echoed_offer_is_base");
            self.offer_extension = false;
            self.begin_base(now);
        }
        if !self.is_current(conn) {
            return;
        }
        match body {
            Body::History(history) if seq > 0 => self.history(now, seq, &history),
            body if seq > 0 => self.numbered(now, seq, body),
            Body::Status(_) | Body::Thinking | Body::Notice(_) => self.view.apply(&body),
            _ => mark!("session.frame_without_number_ignored"),
        }
    }

    /// Any frame is a sign of life [CORE-10]. Returns whether it came on the open connection.
    fn heard(&mut self, now: Instant, conn: ConnectionId) -> bool {
        let is_open = matches!(&self.link, Link::Open(session) if session.conn == conn);
        if is_open {
            self.timers.set(Timer::Silence, now + self.silence());
        }
        is_open
    }

    /// What was sent on this connection must be here [SE-4f].
    fn ping(&mut self, now: Instant, conn: ConnectionId, sent: Option<u64>) {
        self.outputs.push_back(Output::Send { conn, frame: ClientFrame::Pong });
        let Link::Open(session) = &mut self.link else { return };
        match session.mode {
            Mode::Extension if sent.is_some_and(|sent| sent > self.numbers.highest()) => {
                mark!("session.ping_shows_a_hole");
                self.hole(now);
            }
            Mode::Extension | Mode::Base if session.phase == Phase::Live => {
                session.has_pinged = true;
                self.holes = 0;
                self.reconnect.reset();
                if session.mode == Mode::Base {
                    self.settle_answers_without_question(now);
                    self.send_inputs(now);
                }
            }
            Mode::Undecided | Mode::Base | Mode::Extension => {}
        }
    }

    /// A frame with a number is applied if it is the next one [SE-4].
    fn numbered(&mut self, now: Instant, seq: u64, body: Body) {
        let Link::Open(session) = &self.link else { return };
        if session.phase == Phase::History {
            return self.hole(now);
        }
        let mut numbers = self.numbers;
        match numbers.observe(seq) {
            Observed::Duplicate => mark!("session.stale_frame_dropped"),
            Observed::Gap { .. } => self.hole(now),
            Observed::Accepted if self.lacks_the_row_of(&body) => {
                mark!("session.began_anew_for_a_row");
                self.forget_cursor();
                self.drop_link(now, CloseCode::RESUME, "a row is missing");
            }
            Observed::Accepted => {
                self.apply(now, body);
                self.numbers = numbers;
                self.moved(now);
                self.go_live_when_caught_up(now);
            }
        }
    }

    fn apply(&mut self, now: Instant, body: Body) {
        if let Body::Unknown { .. } = body {
            mark!("session.unknown_frame_counted");
        }
        self.settle_answers_of_base(now, &body);
        if let Some(body) = self.verdict(now, body) {
            self.view.apply(&body);
        }
    }

    /// A history stands for every number up to its own [SE-2].
    fn history(&mut self, now: Instant, seq: u64, history: &History) {
        let Link::Open(session) = &mut self.link else { return };
        let is_above = seq > self.numbers.highest();
        let is_expected = match session.mode {
            Mode::Extension => {
                let is_other = history.epoch.is_some() && history.epoch != self.epoch;
                session.phase == Phase::History || is_other || is_above
            }
            // A base server has no epoch that could tell a restart. Its history is, if it is the
            // first numbered frame of a connection, whatever its number.
            Mode::Base | Mode::Undecided => !session.is_numbered || is_above,
        };
        if !is_expected {
            mark!("session.stale_frame_dropped");
            return;
        }
        mark!("session.history_applied");
        let mode = session.mode;
        self.epoch = match mode {
            Mode::Extension => history.epoch.clone(),
            Mode::Base | Mode::Undecided => None,
        };
        self.numbers.reset(seq);
        session.question_follows = mode == Mode::Base;
        self.show_history(now, history);
        self.moved(now);
        match mode {
            Mode::Extension => self.go_live(now),
            Mode::Base | Mode::Undecided => self.wait_for_the_question(now),
        }
    }

    /// A base server sends the open question after the history [SE-2d]. Only then is it known
    /// whether an answer in flight still has something to answer.
    fn wait_for_the_question(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        session.phase = Phase::Grace;
        self.view.connection = Connection::CatchingUp;
        self.timers.set(Timer::CatchUp, now + self.config.base_grace);
    }

    /// The cursor has moved [SE-4e] [SE-11a].
    fn moved(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        session.is_numbered = true;
        if let Phase::Replay { .. } = session.phase {
            self.timers.set(Timer::CatchUp, now + self.silence());
        }
        if self.timers.get(Timer::Ack).is_none() {
            self.timers.set(Timer::Ack, now + self.config.ack_every);
        }
    }

    fn acknowledge(&mut self) {
        if let Link::Open(session) = &self.link {
            let (conn, seq) = (session.conn, self.numbers.highest());
            let frame = ClientFrame::Ack { seq, epoch: self.epoch.clone() };
            self.outputs.push_back(Output::Send { conn, frame });
        }
    }

    // ---- time --------------------------------------------------------------------------------

    fn timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::Connect => {
                    mark!("session.connect_timed_out");
                    self.drop_link(now, CloseCode::NORMAL, "the connection did not open in time");
                }
                Timer::CatchUp => self.catch_up_timed_out(now),
                Timer::Silence => {
                    mark!("session.silent_server_dropped");
                    self.drop_link(now, CloseCode::SILENT, "nothing was heard from the server");
                }
                Timer::Reconnect => self.dial(now),
                Timer::Ack => self.acknowledge(),
                Timer::Verdict => self.send_oldest_again(now),
                Timer::Store => self.store_next(),
            }
        }
    }

    fn show(&mut self) {
        self.view.trim(self.config.messages_max, self.config.rejected_max);
        if *self.shown != self.view {
            self.shown = Arc::new(self.view.clone());
            // First: what is acknowledged, and whoever is told that something is taken, is shown.
            self.outputs.push_front(Output::Show(Arc::clone(&self.shown)));
        }
    }
}

impl crate::Core for Client {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Start { in_flight } => self.start(now, in_flight),
            Input::Opened { conn, extension } => self.opened(now, conn, extension),
            Input::DialFailed { conn, failure } => self.dial_failed(now, conn, failure),
            Input::Frame { conn, frame } => self.frame(now, conn, frame),
            Input::Malformed { conn, error: _ } => {
                if self.heard(now, conn) {
                    mark!("session.malformed_frame_ignored");
                }
            }
            Input::Alive { conn } => {
                self.heard(now, conn);
            }
            Input::Closed { conn, code } => self.closed(now, conn, code),
            Input::Submit { ticket, what } => self.submit(ticket, what),
            Input::Reconnect => self.connect_now(now),
            Input::Stored(id, result) => self.stored(now, id, result),
            Input::Stop => self.stop(),
            Input::Timeout => self.timeout(now),
        }
        self.show();
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }
}
