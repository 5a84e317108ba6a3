//! The client's side of the event protocol, without I/O.
//!
//! A [`Client`] keeps one connection alive, asks for what it missed each time it comes back, and
//! hands events to the application one at a time and in order. Its *position* is the highest
//! contiguous sequence that the application has finished with; that number, and no other, is what
//! it resumes from [CORE-3] [EV-9].
//!
//! It does not open sockets, run handlers or store cursors: the driver does, and reports back.
//! Frames, completions and closings of a connection that has been replaced change nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::wire::{
    ClientFrame, Event, EventKey, FrameError, Gap, Pong, Range, Resync, ResyncAck, ResyncBegin,
    ResyncVerdict, ServerFrame, Stream,
};
use super::{CloseCode, ConnectionId, StoreId, Ticket};
pub use crate::connection::DialFailure;
use crate::mark;
use crate::recovery::{
    Backoff, BackoffConfig, Entropy, Epoch, Instant, Liveness, LivenessAction, LivenessConfig,
    SeenIds, Timers, WallTime,
};

/// The limits and intervals of a client. The defaults are those of the specification.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Whether the extension is offered.
    pub extension: bool,
    /// Where a client without a cursor begins.
    pub start: StartAt,
    /// How many handlers the application has, at least 1. The first owns the cursor and is offered
    /// an event once the others are done with it.
    pub handlers: usize,
    /// How long a connection may take to open: 10 s.
    pub connect_timeout: Duration,
    /// How long to wait for the first frame of the extension before base rules hold: 5 s.
    pub negotiation_timeout: Duration,
    /// How often in a row a server that has spoken the extension may be too slow for that: 5.
    pub slow_negotiations_max: u32,
    /// How long `resync` waits for the application's open handlers: 5 s.
    pub open_handlers_max: Duration,
    /// How long a resync may make no progress: 15 s.
    pub resync_timeout: Duration,
    /// Pings, and how long to wait for a sign of life: 30 s, 10 s.
    pub liveness: LivenessConfig,
    /// The pauses between attempts to connect: 1 s to 30 s, ± 50 %.
    pub reconnect: BackoffConfig,
    /// How many received events may wait for the application: 256.
    pub queue_events: usize,
    /// The same in bytes: 1 MiB.
    pub queue_bytes: usize,
    /// How many events of a base server may wait for its `resync_ack`: 8,192.
    pub held_events: usize,
    /// The same in bytes: 8 MiB.
    pub held_bytes: usize,
    /// How many ids are remembered to recognise repeated events: 2,048.
    pub seen_ids: usize,
    /// How often an event is offered to a handler that fails: 5.
    pub offers_max: u32,
    /// The pauses between offers: 100 ms to 5 s.
    pub offer_retry: BackoffConfig,
    /// How often the same gap is asked for before it is declared: 3.
    pub gap_asks_max: u32,
    /// How far before the last event a base server is asked to look: 30 s.
    pub since_margin: Duration,
    /// The pauses between attempts to store the cursor: 100 ms to 5 s.
    pub save_retry: BackoffConfig,
}

impl Default for ClientConfig {
    fn default() -> Self {
        let retry = BackoffConfig {
            min: Duration::from_millis(100),
            max: Duration::from_secs(5),
            jitter_percent: 25,
        };
        Self {
            extension: true,
            start: StartAt::Live,
            handlers: 1,
            connect_timeout: Duration::from_secs(10),
            negotiation_timeout: Duration::from_secs(5),
            slow_negotiations_max: 5,
            open_handlers_max: Duration::from_secs(5),
            resync_timeout: Duration::from_secs(15),
            liveness: LivenessConfig {
                ping_every: Duration::from_secs(30),
                pong_timeout: Duration::from_secs(10),
            },
            reconnect: BackoffConfig {
                min: Duration::from_secs(1),
                max: Duration::from_secs(30),
                jitter_percent: 50,
            },
            queue_events: 256,
            queue_bytes: 1 << 20,
            held_events: 8_192,
            held_bytes: 8 << 20,
            seen_ids: 2_048,
            offers_max: 5,
            offer_retry: retry,
            gap_asks_max: 3,
            since_margin: Duration::from_secs(30),
            save_retry: retry,
        }
    }
}

/// The handler that owns the cursor.
const OWNER: usize = 0;

/// Where a client without a stored position begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// With the first event after the first connection.
    Live,
    /// With the oldest event that the server keeps.
    Beginning,
}

/// How far the application has got: the highest contiguous sequence that it has finished with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The epoch of the number; `None` when it comes from a base server.
    pub epoch: Option<Epoch>,
    /// The number; 0 = nothing yet, from the start.
    pub sequence: u64,
}

/// What can happen to a client.
#[derive(Debug)]
pub enum Input {
    /// Begin, with the position that is stored.
    Start {
        /// The stored position; `None` if nothing was ever stored.
        position: Option<Position>,
    },
    /// The connection is open.
    Opened {
        /// Which.
        conn: ConnectionId,
        /// Whether the server took up the offer of the extension.
        extension: bool,
        /// The client's wall clock.
        at: WallTime,
    },
    /// The connection could not be opened.
    DialFailed {
        /// Which.
        conn: ConnectionId,
        /// Why.
        failure: DialFailure,
    },
    /// The application's open handlers are done with this connection, well or badly.
    OpenHandlersRan {
        /// Which.
        conn: ConnectionId,
    },
    /// A frame arrived.
    Frame {
        /// Where.
        conn: ConnectionId,
        /// What.
        frame: ServerFrame,
        /// The client's wall clock.
        at: WallTime,
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
    /// A ping has left for the socket.
    PingWritten {
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
    /// The handlers to which an event was offered are done.
    Handled {
        /// The offer.
        ticket: Ticket,
        /// One outcome for each handler of the offer, in its order.
        outcomes: Vec<HandlerOutcome>,
    },
    /// The cursor store answered.
    Stored(StoreId, Result<(), String>),
    /// Send `subscribe` or `unsubscribe` on the connection that is open.
    Send(ClientFrame),
    /// Close and stay closed.
    Stop,
    /// The deadline has come.
    Timeout,
}

/// What became of an event at one handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerOutcome {
    /// It is done.
    Done,
    /// It is done, and the handler stored the position together with its effect.
    DoneAndStored,
    /// It failed; the event is to be offered again.
    Failed(String),
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
    },
    /// Send a frame. A ping is confirmed by [`Input::PingWritten`].
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
    /// Read from the socket, or leave it alone.
    Read {
        /// Which connection.
        conn: ConnectionId,
        /// Whether to read.
        on: bool,
    },
    /// Hand an event to some of the handlers; answered by [`Input::Handled`].
    Offer(Offer),
    /// Store the position; answered by [`Input::Stored`].
    Store(StoreId, Position),
    /// Tell the application.
    Notify(Notice),
}

/// An event for the application.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Names this offer.
    pub ticket: Ticket,
    /// The event.
    pub event: Event,
    /// The position that holds once this event is done: what a handler stores in the transaction
    /// of its effect to get exactly-once across a crash [EV-9].
    pub position: Option<Position>,
    /// The handlers that still have to take it.
    pub handlers: Arc<[usize]>,
    /// Counts from 1.
    pub attempt: u32,
}

/// What the application is told beside the events.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A connection is open; open handlers are to run now.
    Opened {
        /// Which.
        conn: ConnectionId,
    },
    /// The client has its first position: from here on nothing is missed.
    Joined {
        /// The position.
        position: Position,
    },
    /// A connection could not be opened or was lost; the next attempt follows after a pause.
    Disconnected {
        /// Why, for a person.
        reason: String,
        /// The pause.
        retry_in: Duration,
    },
    /// Some events will never come [EV-10] [CORE-4].
    Gap {
        /// What the server said of the cursor.
        verdict: ResyncVerdict,
        /// The sequences that are lost, as far as known.
        lost: Vec<Range>,
        /// The position from which it goes on.
        position: Position,
    },
    /// A resync is complete, and everything that it brought has been handled [EV-7].
    Resynced {
        /// How many different events it had.
        replayed: u64,
        /// Whether something could not be supplied.
        gap_detected: bool,
    },
    /// An event was offered as often as allowed and is passed over [EV-9].
    GaveUp {
        /// The event.
        event: Event,
        /// The handlers that failed, with their last error.
        failures: Vec<(usize, String)>,
    },
    /// A frame was ignored [CORE-13].
    Ignored {
        /// What is wrong with it.
        error: FrameError,
    },
    /// The position could not be stored; it will be tried again.
    CursorNotStored {
        /// Why.
        error: String,
    },
}

/// The client's core. See the [module](self).
pub struct Client {
    config: ClientConfig,
    entropy: Box<dyn Entropy>,
    link: Link,
    connections: u64,
    offer_extension: bool,
    /// How often in a row a server that speaks the extension was too slow to begin.
    slow_negotiations: u32,
    reconnect: Backoff,
    position: Option<Position>,
    /// Which run of numbers `position` belongs to: counts the gaps after which it began anew.
    timeline: u64,
    /// A base server without a cursor is asked by time from here.
    first_opened_at: Option<WallTime>,
    last_event_at: Option<WallTime>,
    gap_asks: GapAsks,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    in_flight: Option<InFlight>,
    /// The newest event of the timeline that is done.
    last_done: Option<Event>,
    tickets: u64,
    seen: SeenIds<EventKey>,
    /// Those to whom an event is offered first.
    first_handlers: Arc<[usize]>,
    /// The one that owns the cursor.
    owner: Arc<[usize]>,
    cursor: CursorState,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

enum Link {
    Stopped,
    Dialing(ConnectionId),
    Open(Session),
    /// [`Timer::Reconnect`] is armed.
    Waiting,
}

struct Session {
    conn: ConnectionId,
    mode: Mode,
    /// The handshake took up the offer of the extension.
    offer_taken: bool,
    open_handlers_ran: bool,
    /// The client has never been connected before.
    first: bool,
    phase: Phase,
    /// The highest contiguous sequence that was received, done or not.
    received: u64,
    /// The new epoch of the position, once the replay has shown that the newest event that was
    /// offered is in it [CORE-3].
    unconfirmed: Option<Epoch>,
    /// Events of a base server that wait for its `resync_ack`.
    held: Vec<Event>,
    held_bytes: usize,
    liveness: Liveness,
    reading: bool,
    /// What was received when the last pong showed a head beyond it.
    behind_at: Option<u64>,
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
    /// Open handlers run, or the mode is undecided.
    Opening,
    /// `resync` was sent; its verdict, or in the base contract its end, has not come.
    Asked,
    /// Extension: between `resync_begin` and `resync_ack`.
    Replaying,
    /// Live.
    Active,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The connection does not open.
    Connect,
    /// The first frame of the extension does not come.
    Negotiation,
    /// The open handlers do not finish.
    OpenHandlers,
    /// A resync makes no progress.
    Resync,
    /// Time to connect again.
    Reconnect,
    /// Time to offer the event again.
    Offer,
    /// Time to store the cursor again.
    Save,
}

enum Queued {
    Event(Event),
    Lost {
        range: Range,
        verdict: ResyncVerdict,
    },
    /// A base server has counted up to here without numbering what it sent.
    CaughtUp {
        sequence: u64,
    },
    Resynced {
        replayed: u64,
        gap_detected: bool,
    },
}

struct InFlight {
    ticket: Ticket,
    event: Event,
    key: Option<EventKey>,
    position: Option<Position>,
    /// Those that still have to take it.
    handlers: Arc<[usize]>,
    attempt: u32,
    timeline: u64,
    /// Of the last attempt.
    failures: Vec<(usize, String)>,
    /// The handlers that failed as often as allowed.
    given_up: Vec<(usize, String)>,
    backoff: Backoff,
    stored: bool,
}

impl InFlight {
    fn offer(&self) -> Offer {
        Offer {
            ticket: self.ticket,
            event: self.event.clone(),
            position: self.position.clone(),
            handlers: self.handlers.clone(),
            attempt: self.attempt,
        }
    }
}

#[derive(Default)]
struct GapAsks {
    /// The sequence after which the gap begins.
    after: u64,
    asks: u32,
}

struct CursorState {
    /// The position differs from what is stored.
    dirty: bool,
    /// The first position is not stored yet; nothing is offered before it is.
    unsaved_join: bool,
    saving: Option<StoreId>,
    store_ids: u64,
    backoff: Backoff,
}

impl Client {
    /// A client that does nothing until [`Input::Start`].
    pub fn new(config: ClientConfig, entropy: Box<dyn Entropy>) -> Self {
        Self {
            link: Link::Stopped,
            connections: 0,
            offer_extension: config.extension,
            slow_negotiations: 0,
            reconnect: Backoff::new(config.reconnect),
            position: None,
            timeline: 0,
            first_opened_at: None,
            last_event_at: None,
            gap_asks: GapAsks::default(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            in_flight: None,
            last_done: None,
            tickets: 0,
            seen: SeenIds::new(config.seen_ids),
            // The owner of the cursor comes last: once it has stored the position, nobody else is
            // offered the event again after a crash.
            first_handlers: match config.handlers {
                0 | 1 => [OWNER].into(),
                handlers => (OWNER + 1..handlers).collect(),
            },
            owner: [OWNER].into(),
            cursor: CursorState {
                dirty: false,
                unsaved_join: false,
                saving: None,
                store_ids: 0,
                backoff: Backoff::new(config.save_retry),
            },
            timers: Timers::default(),
            outputs: VecDeque::new(),
            config,
            entropy,
        }
    }

    /// How far the application has got.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    // ---- connecting --------------------------------------------------------------------------

    fn dial(&mut self, now: Instant) {
        self.connections += 1;
        let conn = ConnectionId(self.connections);
        self.link = Link::Dialing(conn);
        self.timers.set(Timer::Connect, now + self.config.connect_timeout);
        let offer_extension = self.offer_extension;
        self.outputs.push_back(Output::Dial { conn, offer_extension });
    }

    fn dial_failed(&mut self, now: Instant, conn: ConnectionId, failure: DialFailure) {
        match self.link {
            Link::Dialing(dialing) if dialing == conn => {}
            _ => return,
        }
        if failure == DialFailure::ExtensionRefused && self.offer_extension {
            mark!("events.extension_refused");
            self.offer_extension = false;
            self.dial(now);
            return;
        }
        mark!("events.dial_failed");
        self.lost(now, failure.to_string());
    }

    fn opened(&mut self, now: Instant, conn: ConnectionId, extension: bool, at: WallTime) {
        match self.link {
            Link::Dialing(dialing) if dialing == conn => {}
            _ => {
                let (code, reason) = (CloseCode::NORMAL, "replaced");
                self.outputs.push_back(Output::Close { conn, code, reason });
                return;
            }
        }
        self.timers.stop(Timer::Connect);
        let mode = if extension && self.offer_extension { Mode::Undecided } else { Mode::Base };
        if mode == Mode::Undecided {
            self.timers.set(Timer::Negotiation, now + self.config.negotiation_timeout);
        }
        self.timers.set(Timer::OpenHandlers, now + self.config.open_handlers_max);
        self.link = Link::Open(Session {
            conn,
            mode,
            offer_taken: mode == Mode::Undecided,
            open_handlers_ran: false,
            first: self.first_opened_at.is_none(),
            phase: Phase::Opening,
            received: 0,
            unconfirmed: None,
            held: Vec::new(),
            held_bytes: 0,
            liveness: Liveness::new(self.config.liveness, now),
            reading: true,
            behind_at: None,
        });
        // What was received and not yet offered comes again with the resync.
        self.clear_queue();
        self.gap_asks = GapAsks::default();
        self.first_opened_at.get_or_insert(at);
        self.outputs.push_back(Output::Notify(Notice::Opened { conn }));
    }

    /// The link is gone, or never came to be: wait and try again [CORE-11].
    fn lost(&mut self, now: Instant, reason: String) {
        if let Link::Open(session) = &self.link {
            match session.phase {
                Phase::Asked | Phase::Replaying => mark!("events.resync_interrupted"),
                Phase::Opening | Phase::Active => {}
            }
            if self.in_flight.is_some() {
                mark!("events.cut_while_handling");
            }
        }
        for timer in [Timer::Connect, Timer::Negotiation, Timer::OpenHandlers, Timer::Resync] {
            self.timers.stop(timer);
        }
        let retry_in = self.reconnect.next_delay(&mut *self.entropy);
        self.link = Link::Waiting;
        self.timers.set(Timer::Reconnect, now + retry_in);
        self.outputs.push_back(Output::Notify(Notice::Disconnected { reason, retry_in }));
    }

    fn drop_link(&mut self, now: Instant, code: CloseCode, reason: &'static str) {
        let conn = match &self.link {
            Link::Open(session) => session.conn,
            Link::Dialing(conn) => *conn,
            Link::Stopped | Link::Waiting => return,
        };
        self.outputs.push_back(Output::Close { conn, code, reason });
        self.lost(now, reason.to_owned());
    }

    fn stop(&mut self) {
        let conn = match &self.link {
            Link::Open(session) => Some(session.conn),
            Link::Dialing(conn) => Some(*conn),
            Link::Stopped | Link::Waiting => None,
        };
        if let Some(conn) = conn {
            let (code, reason) = (CloseCode::NORMAL, "stopped");
            self.outputs.push_back(Output::Close { conn, code, reason });
        }
        self.link = Link::Stopped;
        self.clear_queue();
        for timer in [
            Timer::Connect,
            Timer::Negotiation,
            Timer::OpenHandlers,
            Timer::Resync,
            Timer::Reconnect,
            Timer::Offer,
        ] {
            self.timers.stop(timer);
        }
    }

    // ---- resync ------------------------------------------------------------------------------

    /// Sends `resync` once the mode is decided and the open handlers ran [EV-4].
    fn ask_when_ready(&mut self, now: Instant) {
        if let Link::Open(session) = &self.link
            && session.phase == Phase::Opening
            && session.mode != Mode::Undecided
            && session.open_handlers_ran
        {
            match session.mode {
                Mode::Base
                    if session.first
                        && self.position.is_none()
                        && self.config.start == StartAt::Live =>
                {
                    self.go_live(now);
                }
                _ => self.ask(now),
            }
        }
    }

    /// The first connection to a base server has nothing to ask for [EV-3].
    fn go_live(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        let held = session.take_held();
        self.activate();
        for event in held {
            self.event(now, event);
        }
        self.read_on(now);
    }

    fn ask(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        let (conn, mode) = (session.conn, session.mode);
        session.phase = Phase::Asked;
        session.unconfirmed = None;
        session.behind_at = None;
        session.take_held();
        self.clear_queue();
        let since = match (mode, self.last_event_at.or(self.first_opened_at)) {
            (Mode::Base, Some(at)) => Some(at.saturating_sub(self.config.since_margin)),
            _ => None,
        };
        let (last_seen_seq, epoch) = match &self.position {
            Some(position) if mode == Mode::Extension => {
                (position.sequence, position.epoch.clone())
            }
            Some(position) => (position.sequence, None),
            None => (0, None),
        };
        mark!("events.resync_sent");
        let frame = ClientFrame::Resync(Resync { last_seen_seq, since, epoch });
        self.timers.set(Timer::Resync, now + self.config.resync_timeout);
        self.outputs.push_back(Output::Send { conn, frame });
        self.read_on(now);
    }

    /// Asks again for what is missing after `received`, or declares it lost once it has been asked
    /// for as often as allowed [CORE-8]. Returns whether it was declared.
    fn ask_again(&mut self, now: Instant, received: u64, lost_to: u64) -> bool {
        if self.gap_asks.after != received {
            self.gap_asks = GapAsks { after: received, asks: 0 };
        }
        if self.gap_asks.asks < self.config.gap_asks_max {
            mark!("events.hole_asked_for");
            self.gap_asks.asks += 1;
            self.ask(now);
            return false;
        }
        mark!("events.hole_declared");
        let range = Range { from: received + 1, to: lost_to };
        self.enqueue(now, Queued::Lost { range, verdict: ResyncVerdict::Unknown });
        if let Link::Open(session) = &mut self.link {
            session.received = lost_to;
        }
        true
    }

    fn stream(&mut self, now: Instant, stream: Stream) {
        let Link::Open(session) = &mut self.link else { return };
        if session.mode == Mode::Base && session.offer_taken {
            // It speaks the extension after all; on this connection it is too late for that.
            mark!("events.extension_came_late");
            self.drop_link(now, CloseCode::NORMAL, "the server speaks the extension after all");
            return;
        }
        if session.mode != Mode::Undecided {
            mark!("events.unexpected_frame_ignored");
            return;
        }
        self.slow_negotiations = 0;
        session.mode = Mode::Extension;
        self.timers.stop(Timer::Negotiation);
        if self.position.is_none() {
            let sequence = match self.config.start {
                StartAt::Live => stream.head,
                StartAt::Beginning => 0,
            };
            self.join(Position { epoch: Some(stream.epoch), sequence });
            self.save();
        }
        self.ask_when_ready(now);
    }

    fn join(&mut self, position: Position) {
        mark!("events.joined");
        self.position = Some(position.clone());
        self.cursor.dirty = true;
        self.cursor.unsaved_join = true;
        self.outputs.push_back(Output::Notify(Notice::Joined { position }));
    }

    fn resync_begin(&mut self, begin: ResyncBegin) {
        let Link::Open(session) = &mut self.link else { return };
        if (session.mode, session.phase) != (Mode::Extension, Phase::Asked) {
            mark!("events.unexpected_frame_ignored");
            return;
        }
        session.phase = Phase::Replaying;
        session.received = begin.from - 1;
        let Some(position) = &self.position else { return };
        if begin.verdict.is_gap() {
            self.begin_timeline(Position { epoch: Some(begin.epoch), sequence: begin.from - 1 });
            self.gap(begin.verdict, begin.lost);
            return self.save();
        }
        if position.epoch.as_ref() == Some(&begin.epoch) {
            return;
        }
        // The verdict is on the position that was sent. What the application has been given since
        // is the log's only if the log still has it.
        let offered = self.last_offered_sequence();
        match offered.is_some_and(|sequence| sequence >= begin.from) {
            false => self.continue_in(begin.epoch),
            true if begin.to < begin.from => self.log_went_back(begin.epoch, begin.from - 1),
            true => {
                if let Link::Open(session) = &mut self.link {
                    session.unconfirmed = Some(begin.epoch);
                }
            }
        }
    }

    /// The position counts in another epoch; its number stays.
    fn continue_in(&mut self, epoch: Epoch) {
        mark!("events.epoch_continued");
        if let Some(position) = &mut self.position {
            position.epoch = Some(epoch);
        }
        self.cursor.dirty = true;
        self.save();
    }

    /// The replay has come to this number: with its event, or to say that there is none. If the
    /// application was given another event under the number, the log is not the one that it was.
    fn confirm(&mut self, sequence: u64, replayed: Option<&Event>) {
        let Link::Open(session) = &mut self.link else { return };
        let Some(epoch) = session.unconfirmed.take() else { return };
        let offered = self.last_offered().filter(|event| event.sequence() == Some(sequence));
        match (offered, replayed) {
            (Some(offered), Some(replayed)) if offered != replayed => {
                self.log_went_back(epoch, sequence - 1);
            }
            _ => self.continue_in(epoch),
        }
    }

    /// A log was restored under an event that the application had been given [CORE-3].
    fn log_went_back(&mut self, epoch: Epoch, sequence: u64) {
        mark!("events.log_went_back_while_handling");
        self.begin_timeline(Position { epoch: Some(epoch), sequence });
        self.gap(ResyncVerdict::Ahead, vec![]);
        self.save();
    }

    /// From here on the position counts other numbers: what is still being handled moves nothing. It
    /// is to be stored after the application was told, so that whoever comes back with it has been.
    fn begin_timeline(&mut self, position: Position) {
        if self.in_flight.is_some() {
            mark!("events.timeline_replaced_while_handling");
        }
        self.timeline += 1;
        self.last_done = None;
        self.position = Some(position);
        self.cursor.dirty = true;
    }

    fn gap(&mut self, verdict: ResyncVerdict, lost: Vec<Range>) {
        let Some(position) = self.position.clone() else { return };
        mark!("events.gap_reported");
        self.outputs.push_back(Output::Notify(Notice::Gap { verdict, lost, position }));
    }

    fn resync_ack(&mut self, now: Instant, ack: ResyncAck) {
        let Link::Open(session) = &mut self.link else { return };
        match (session.mode, session.phase) {
            (Mode::Extension, Phase::Replaying) => {
                let received = session.received;
                if ack.current_seq > received && !self.ask_again(now, received, ack.current_seq) {
                    return;
                }
                self.confirm(ack.current_seq, None);
            }
            (Mode::Base, Phase::Asked) => {
                if !self.release_held(now, &ack) {
                    return;
                }
            }
            // What could not be held has been taken already.
            (Mode::Base, Phase::Active) => {}
            _ => {
                mark!("events.unexpected_frame_ignored");
                return;
            }
        }
        let (replayed, gap_detected) = (ack.replayed, ack.gap_detected);
        self.enqueue(now, Queued::Resynced { replayed, gap_detected });
        self.activate();
        self.offer_next(now);
    }

    /// The session is live: everything missed is here, and the next pause starts short again.
    fn activate(&mut self) {
        self.timers.stop(Timer::Resync);
        self.reconnect.reset();
        if let Link::Open(session) = &mut self.link {
            session.phase = Phase::Active;
        }
    }

    /// A base server has ended its replay: what was held is sorted out. Returns whether the replay
    /// was complete, or its holes are declared.
    fn release_held(&mut self, now: Instant, ack: &ResyncAck) -> bool {
        let Link::Open(session) = &mut self.link else { return false };
        let held = session.take_held();
        let (mut numbered, unnumbered): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|event| event.sequence().is_some());
        numbered.sort_by_key(Event::sequence);
        numbered.dedup_by_key(|event| event.sequence());
        let newest = numbered.last().and_then(Event::sequence);
        if self.position.is_none() {
            // It asked for everything after 0.
            self.join(Position { epoch: None, sequence: 0 });
            self.save();
        }
        let position = self.position.as_ref().map_or(0, |position| position.sequence);
        let offered = self.last_offered_sequence().unwrap_or(0);
        let restarted = ack.current_seq < position.max(offered);
        let unnumbered_any = !unnumbered.is_empty();
        if restarted {
            mark!("events.base_server_restarted");
            let first = numbered.first().and_then(Event::sequence);
            let sequence = first.map_or(ack.current_seq, |first| first - 1);
            self.begin_timeline(Position { epoch: None, sequence });
            self.set_received(sequence);
        } else {
            self.set_received(position);
            // A hole is closed by asking again, unless the server sent what belongs there without
            // numbers, or said that it cannot: that speaks for what follows the position only.
            let explained = |received| unnumbered_any || (ack.gap_detected && received == position);
            let mut received = position;
            let mut hole = None;
            for sequence in numbered.iter().filter_map(Event::sequence) {
                if sequence > received + 1 && !explained(received) {
                    hole = Some(received);
                    break;
                }
                received = received.max(sequence);
            }
            if received < ack.current_seq && !explained(received) {
                hole = hole.or(Some(received));
            }
            if let Some(received) = hole
                && self.may_ask_again(received)
            {
                mark!("events.hole_asked_for");
                self.gap_asks.asks += 1;
                self.ask(now);
                return false;
            }
        }
        let mut gap_told = restarted;
        if restarted {
            self.gap(ResyncVerdict::Ahead, vec![]);
            self.save();
        } else if ack.gap_detected && unnumbered_any {
            // What came without numbers may be all of it or not; nobody can tell.
            gap_told = true;
            self.gap_before(ack.current_seq);
        }
        for event in unnumbered {
            self.enqueue(now, Queued::Event(event));
        }
        for event in numbered {
            let sequence = event.sequence().expect("partitioned above");
            let received = self.received();
            if sequence <= received {
                continue;
            }
            if sequence > received + 1 && !unnumbered_any {
                gap_told = true;
                let range = Range { from: received + 1, to: sequence - 1 };
                self.enqueue(now, Queued::Lost { range, verdict: ResyncVerdict::TooOld });
            }
            self.set_received(sequence);
            self.enqueue_new(now, event, sequence);
        }
        let received = self.received();
        let caught_up = ack.current_seq.max(newest.unwrap_or(0));
        if caught_up > received {
            self.set_received(caught_up);
            if unnumbered_any || restarted {
                self.enqueue(now, Queued::CaughtUp { sequence: caught_up });
            } else {
                gap_told = true;
                let range = Range { from: received + 1, to: caught_up };
                self.enqueue(now, Queued::Lost { range, verdict: ResyncVerdict::TooOld });
            }
        }
        if ack.gap_detected && !gap_told {
            self.gap_before(caught_up);
        }
        true
    }

    /// A base server says that something is lost, and not what.
    fn gap_before(&mut self, sequence: u64) {
        let position = Position { epoch: None, sequence };
        mark!("events.gap_reported");
        let notice = Notice::Gap { verdict: ResyncVerdict::TooOld, lost: vec![], position };
        self.outputs.push_back(Output::Notify(notice));
    }

    fn may_ask_again(&mut self, received: u64) -> bool {
        if self.gap_asks.after != received {
            self.gap_asks = GapAsks { after: received, asks: 0 };
        }
        self.gap_asks.asks < self.config.gap_asks_max
    }

    fn received(&self) -> u64 {
        match &self.link {
            Link::Open(session) => session.received,
            Link::Stopped | Link::Dialing(_) | Link::Waiting => 0,
        }
    }

    fn set_received(&mut self, sequence: u64) {
        if let Link::Open(session) = &mut self.link {
            session.received = sequence;
        }
    }

    // ---- frames ------------------------------------------------------------------------------

    fn frame(&mut self, now: Instant, conn: ConnectionId, frame: ServerFrame, at: WallTime) {
        if !self.heard(now, conn) {
            mark!("events.frame_of_replaced_connection");
            return;
        }
        let Link::Open(session) = &mut self.link else { return };
        let decides = !matches!(frame, ServerFrame::Stream(_) | ServerFrame::Pong(_));
        if session.mode == Mode::Undecided && decides {
            // The server echoes any offer without knowing what it means.
            mark!("events.echoed_offer_is_base");
            session.mode = Mode::Base;
            self.timers.stop(Timer::Negotiation);
            self.ask_when_ready(now);
            if let ServerFrame::ResyncAck(_) = frame {
                // It came before the question, so it is no answer to it.
                mark!("events.unexpected_frame_ignored");
                return;
            }
        }
        match frame {
            ServerFrame::Stream(stream) => self.stream(now, stream),
            ServerFrame::ResyncBegin(begin) => self.resync_begin(begin),
            ServerFrame::ResyncAck(ack) => self.resync_ack(now, ack),
            ServerFrame::Gap(gap) => self.gap_frame(now, gap),
            ServerFrame::Pong(pong) => self.pong(now, pong),
            ServerFrame::Event(event) => {
                self.last_event_at = Some(at);
                self.event(now, event);
            }
        }
        self.offer_next(now);
    }

    /// Any frame is a sign of life, and progress of a resync [CORE-10].
    fn heard(&mut self, now: Instant, conn: ConnectionId) -> bool {
        let Link::Open(session) = &mut self.link else { return false };
        if session.conn != conn {
            return false;
        }
        session.liveness.on_inbound(now);
        if session.makes_progress() {
            self.timers.set(Timer::Resync, now + self.config.resync_timeout);
        }
        true
    }

    fn event(&mut self, now: Instant, event: Event) {
        let Link::Open(session) = &mut self.link else { return };
        let phase = session.phase;
        match (session.mode, phase, event.sequence()) {
            (Mode::Undecided, ..) => {}
            (Mode::Base, Phase::Opening | Phase::Asked, _) => self.hold(now, event),
            (Mode::Base, _, None) => self.enqueue(now, Queued::Event(event)),
            (Mode::Base, _, Some(sequence)) => {
                if self.position.is_none() {
                    // The base contract gives a cursor with the first event only [EV-3].
                    self.join(Position { epoch: None, sequence: sequence - 1 });
                    self.save();
                    self.set_received(sequence - 1);
                }
                self.numbered(now, event, sequence);
            }
            (Mode::Extension, Phase::Opening | Phase::Asked, _) => {
                // Its place is in the replay that was, or is about to be, asked for.
                mark!("events.live_before_replay_dropped");
            }
            (Mode::Extension, _, None) => mark!("events.unexpected_frame_ignored"),
            (Mode::Extension, _, Some(sequence)) => self.numbered(now, event, sequence),
        }
    }

    /// An event with a number, on a connection that is replaying or live [CORE-6].
    fn numbered(&mut self, now: Instant, event: Event, sequence: u64) {
        let received = self.received();
        if sequence <= received {
            mark!("events.duplicate_dropped");
            return;
        }
        if sequence > received + 1 {
            mark!("events.hole_seen");
            if !self.ask_again(now, received, sequence - 1) {
                if let Link::Open(Session { mode: Mode::Base, .. }) = self.link {
                    self.hold(now, event);
                }
                return;
            }
        }
        self.set_received(sequence);
        self.enqueue_new(now, event, sequence);
    }

    /// Queues an event unless the application has it, or has had it.
    fn enqueue_new(&mut self, now: Instant, event: Event, sequence: u64) {
        self.confirm(sequence, Some(&event));
        if self.position.as_ref().is_some_and(|position| sequence <= position.sequence) {
            mark!("events.replayed_event_was_applied");
            return;
        }
        if let Some(in_flight) = &self.in_flight
            && in_flight.timeline == self.timeline
            && in_flight.event.sequence() == Some(sequence)
        {
            mark!("events.replayed_event_is_being_handled");
            return;
        }
        self.enqueue(now, Queued::Event(event));
    }

    /// Keeps an event of a base server until it can be told where it belongs [CORE-6].
    fn hold(&mut self, now: Instant, event: Event) {
        let Link::Open(session) = &mut self.link else { return };
        session.held_bytes += event.cost();
        session.held.push(event);
        if session.held.len() < self.config.held_events
            && session.held_bytes < self.config.held_bytes
        {
            return;
        }
        mark!("events.held_overflow");
        if session.phase == Phase::Opening {
            // The open handlers are slow; the rest can wait in the network.
            if session.reading {
                self.pause_reading(now);
            }
            return;
        }
        // More than can be sorted out at once. It is taken as it stands, with a word that
        // something may be missing; the end of the replay is still to come.
        let newest = session.held.iter().filter_map(Event::sequence).max().unwrap_or(0);
        let position = self.position.as_ref().map_or(0, |position| position.sequence);
        let offered = self.last_offered_sequence().unwrap_or(0);
        let ack = ResyncAck {
            last_seen_seq: position,
            current_seq: newest.max(position).max(offered),
            replayed: 0,
            gap_detected: true,
            epoch: None,
            verdict: None,
            lost: vec![],
        };
        self.release_held(now, &ack);
        self.activate();
    }

    fn gap_frame(&mut self, now: Instant, gap: Gap) {
        let Link::Open(session) = &mut self.link else { return };
        if session.mode != Mode::Extension
            || !matches!(session.phase, Phase::Replaying | Phase::Active)
            || gap.to <= session.received
            || gap.to < gap.from
        {
            mark!("events.unexpected_frame_ignored");
            return;
        }
        let received = session.received;
        if gap.from > received + 1 && !self.ask_again(now, received, gap.from - 1) {
            return;
        }
        let range = Range { from: self.received() + 1, to: gap.to };
        self.set_received(gap.to);
        self.confirm(gap.to, None);
        self.enqueue(now, Queued::Lost { range, verdict: ResyncVerdict::TooOld });
    }

    /// What was sent on this connection must be here; what the stream has must come soon.
    fn pong(&mut self, now: Instant, pong: Pong) {
        let Link::Open(session) = &mut self.link else { return };
        if session.phase != Phase::Active || session.mode != Mode::Extension {
            return;
        }
        let received = session.received;
        let missing = match (pong.sent, pong.head) {
            (Some(sent), _) if sent > received => Some(sent),
            (_, Some(head)) if head > received => {
                let twice = session.behind_at == Some(received);
                session.behind_at = Some(received);
                twice.then_some(head)
            }
            _ => {
                session.behind_at = None;
                None
            }
        };
        if let Some(missing) = missing {
            mark!("events.loss_at_the_tail_seen");
            self.ask_again(now, received, missing);
        }
    }

    // ---- the application ---------------------------------------------------------------------

    fn enqueue(&mut self, now: Instant, queued: Queued) {
        self.queue_bytes += queued.cost();
        self.queue.push_back(queued);
        let full = self.queue.len() >= self.config.queue_events
            || self.queue_bytes >= self.config.queue_bytes;
        if full
            && let Link::Open(session) = &self.link
            && session.reading
        {
            mark!("events.reading_paused");
            self.pause_reading(now);
        }
    }

    /// Leaves the socket alone. Its silence proves nothing from here on [EV-12].
    fn pause_reading(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        session.reading = false;
        session.liveness.pause(now);
        self.timers.stop(Timer::Resync);
        self.outputs.push_back(Output::Read { conn: session.conn, on: false });
    }

    fn clear_queue(&mut self) {
        self.queue.clear();
        self.queue_bytes = 0;
    }

    /// Goes on reading once the application has worked off half of what may wait [EV-12].
    fn read_on(&mut self, now: Instant) {
        let caught_up = self.queue.len() * 2 <= self.config.queue_events
            && self.queue_bytes * 2 <= self.config.queue_bytes;
        if caught_up
            && let Link::Open(session) = &mut self.link
            && !session.reading
            && session.phase != Phase::Opening
        {
            session.reading = true;
            session.liveness.resume(now);
            if matches!(session.phase, Phase::Asked | Phase::Replaying) {
                self.timers.set(Timer::Resync, now + self.config.resync_timeout);
            }
            self.outputs.push_back(Output::Read { conn: session.conn, on: true });
        }
    }

    fn offer_next(&mut self, now: Instant) {
        // A handler may store a position of its own, so none is being stored while it runs.
        while self.in_flight.is_none() && self.cursor.saving.is_none() && !self.cursor.unsaved_join
        {
            let Some(queued) = self.queue.pop_front() else { break };
            self.queue_bytes -= queued.cost();
            match queued {
                Queued::Event(event) => self.offer_first(event),
                Queued::Lost { range, verdict } => {
                    self.advance(range.to);
                    self.cursor.dirty = true;
                    self.gap(verdict, vec![range]);
                    self.save();
                }
                Queued::CaughtUp { sequence } => self.move_to(sequence, false),
                Queued::Resynced { replayed, gap_detected } => {
                    mark!("events.resynced");
                    let notice = Notice::Resynced { replayed, gap_detected };
                    self.outputs.push_back(Output::Notify(notice));
                }
            }
        }
        self.read_on(now);
    }

    fn offer_first(&mut self, event: Event) {
        let key = event.key();
        if key.as_ref().is_some_and(|key| self.seen.contains(key)) {
            // Known under another number. It is done, so its number is done too.
            mark!("events.known_id_dropped");
            if let Some(sequence) = event.sequence() {
                self.move_to(sequence, false);
            }
            return;
        }
        self.tickets += 1;
        let epoch = self.position.as_ref().and_then(|position| position.epoch.clone());
        let in_flight = InFlight {
            ticket: Ticket(self.tickets),
            position: event.sequence().map(|sequence| Position { epoch, sequence }),
            event,
            key,
            handlers: self.first_handlers.clone(),
            attempt: 1,
            timeline: self.timeline,
            failures: Vec::new(),
            given_up: Vec::new(),
            backoff: Backoff::new(self.config.offer_retry),
            stored: false,
        };
        self.outputs.push_back(Output::Offer(in_flight.offer()));
        self.in_flight = Some(in_flight);
    }

    fn handled(&mut self, now: Instant, ticket: Ticket, outcomes: Vec<HandlerOutcome>) {
        let Some(in_flight) = &mut self.in_flight else { return };
        if in_flight.ticket != ticket {
            return;
        }
        let to_owner = in_flight.handlers.first() == Some(&OWNER);
        in_flight.failures.clear();
        for (handler, outcome) in in_flight.handlers.iter().zip(outcomes) {
            match outcome {
                HandlerOutcome::Done => {}
                HandlerOutcome::DoneAndStored => in_flight.stored |= *handler == OWNER,
                HandlerOutcome::Failed(error) => in_flight.failures.push((*handler, error)),
            }
        }
        if !in_flight.failures.is_empty() && in_flight.attempt < self.config.offers_max {
            mark!("events.handler_failed");
            in_flight.handlers = in_flight.failures.iter().map(|(handler, _)| *handler).collect();
            in_flight.attempt += 1;
            let delay = in_flight.backoff.next_delay(&mut *self.entropy);
            self.timers.set(Timer::Offer, now + delay);
            return;
        }
        if !to_owner {
            in_flight.given_up.append(&mut in_flight.failures);
            in_flight.handlers = self.owner.clone();
            in_flight.attempt = 1;
            self.outputs.push_back(Output::Offer(in_flight.offer()));
            return;
        }
        in_flight.given_up.append(&mut in_flight.failures);
        let done = self.in_flight.take().expect("matched above");
        if !done.given_up.is_empty() {
            mark!("events.handler_gave_up");
            let notice = Notice::GaveUp { event: done.event.clone(), failures: done.given_up };
            self.outputs.push_back(Output::Notify(notice));
        }
        if let Some(key) = done.key {
            self.seen.insert(key);
        }
        let sequence = done.event.sequence();
        if done.timeline == self.timeline {
            self.last_done = Some(done.event);
            if let Some(sequence) = sequence {
                self.move_to(sequence, done.stored);
            }
        } else if sequence.is_some() {
            mark!("events.stale_completion_ignored");
        }
        // A position that was set while the handler ran had to wait for it.
        self.save();
        self.offer_next(now);
    }

    /// The newest event of the timeline that was offered, done or not.
    fn last_offered(&self) -> Option<&Event> {
        match &self.in_flight {
            Some(in_flight) if in_flight.timeline == self.timeline => Some(&in_flight.event),
            _ => self.last_done.as_ref(),
        }
    }

    fn last_offered_sequence(&self) -> Option<u64> {
        self.last_offered().and_then(Event::sequence)
    }

    fn offer_again(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            mark!("events.offered_again");
            self.outputs.push_back(Output::Offer(in_flight.offer()));
        }
    }

    /// The application is done with everything up to `sequence`.
    fn move_to(&mut self, sequence: u64, stored: bool) {
        if self.advance(sequence) && !stored {
            self.cursor.dirty = true;
            self.save();
        }
    }

    /// Whether the position was below `sequence`, and is there now.
    fn advance(&mut self, sequence: u64) -> bool {
        let Some(position) = &mut self.position else { return false };
        let below = sequence > position.sequence;
        position.sequence = position.sequence.max(sequence);
        below
    }

    // ---- the stored cursor -------------------------------------------------------------------

    /// Stores the position: one write at a time, the newest wins. A running handler may be about
    /// to store one of its own, so nothing overtakes it.
    fn save(&mut self) {
        if !self.cursor.dirty || self.cursor.saving.is_some() || self.in_flight.is_some() {
            return;
        }
        let Some(position) = self.position.clone() else { return };
        self.cursor.store_ids += 1;
        let id = StoreId(self.cursor.store_ids);
        self.cursor.saving = Some(id);
        self.cursor.dirty = false;
        self.outputs.push_back(Output::Store(id, position));
    }

    fn stored(&mut self, now: Instant, id: StoreId, result: Result<(), String>) {
        if self.cursor.saving != Some(id) {
            return;
        }
        self.cursor.saving = None;
        match result {
            Ok(()) => {
                self.cursor.backoff.reset();
                self.cursor.unsaved_join = false;
                self.save();
                self.offer_next(now);
            }
            Err(error) => {
                mark!("events.cursor_not_stored");
                self.cursor.dirty = true;
                self.outputs.push_back(Output::Notify(Notice::CursorNotStored { error }));
                let delay = self.cursor.backoff.next_delay(&mut *self.entropy);
                self.timers.set(Timer::Save, now + delay);
                self.offer_next(now);
            }
        }
    }

    // ---- time --------------------------------------------------------------------------------

    fn timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::Connect => {
                    mark!("events.connect_timed_out");
                    self.drop_link(now, CloseCode::NORMAL, "the connection did not open in time");
                }
                Timer::Negotiation => self.negotiation_timed_out(now),
                Timer::OpenHandlers => self.open_handlers_ran(now),
                Timer::Resync => {
                    mark!("events.resync_timed_out");
                    self.drop_link(now, CloseCode::SILENT, "the resync made no progress");
                }
                Timer::Reconnect => self.dial(now),
                Timer::Offer => self.offer_again(),
                Timer::Save => self.save(),
            }
        }
        let Link::Open(session) = &mut self.link else { return };
        match session.liveness.handle_timeout(now) {
            LivenessAction::None => {}
            LivenessAction::SendPing => {
                let conn = session.conn;
                self.outputs.push_back(Output::Send { conn, frame: ClientFrame::Ping });
            }
            LivenessAction::Dead => {
                mark!("events.silent_server_dropped");
                self.drop_link(now, CloseCode::SILENT, "nothing was heard from the server");
            }
        }
    }

    /// The extension's first frame does not come. A server that has spoken the extension before is
    /// slow, and base rules would cost the proof that nothing was missed; so it gets another
    /// connection, a few times. Any other server merely echoes offers.
    fn negotiation_timed_out(&mut self, now: Instant) {
        mark!("events.negotiation_timed_out");
        let had_epoch = self.position.as_ref().is_some_and(|position| position.epoch.is_some());
        if had_epoch && self.slow_negotiations < self.config.slow_negotiations_max {
            self.slow_negotiations += 1;
            self.drop_link(now, CloseCode::SILENT, "the server did not begin to speak in time");
        } else if let Link::Open(session) = &mut self.link {
            session.mode = Mode::Base;
            self.ask_when_ready(now);
        }
    }

    fn open_handlers_ran(&mut self, now: Instant) {
        self.timers.stop(Timer::OpenHandlers);
        if let Link::Open(session) = &mut self.link {
            session.open_handlers_ran = true;
            self.ask_when_ready(now);
        }
    }
}

impl Session {
    fn take_held(&mut self) -> Vec<Event> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }

    /// Whether any frame is progress of a resync. Events that come before the extension's verdict
    /// are not: a busy stream would hide that the verdict was lost.
    fn makes_progress(&self) -> bool {
        matches!(
            (self.mode, self.phase),
            (_, Phase::Replaying) | (Mode::Base | Mode::Undecided, Phase::Asked)
        )
    }
}

impl Queued {
    /// How much memory it is counted with, in bytes.
    fn cost(&self) -> usize {
        match self {
            Self::Event(event) => event.cost(),
            Self::Lost { .. } | Self::CaughtUp { .. } | Self::Resynced { .. } => 64,
        }
    }
}

impl crate::Core for Client {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Start { position } => {
                self.position = position;
                self.dial(now);
            }
            Input::Opened { conn, extension, at } => self.opened(now, conn, extension, at),
            Input::DialFailed { conn, failure } => self.dial_failed(now, conn, failure),
            Input::OpenHandlersRan { conn } => {
                if matches!(&self.link, Link::Open(session) if session.conn == conn) {
                    self.open_handlers_ran(now);
                }
            }
            Input::Frame { conn, frame, at } => self.frame(now, conn, frame, at),
            Input::Malformed { conn, error } => {
                if self.heard(now, conn) {
                    mark!("events.malformed_frame_ignored");
                    self.outputs.push_back(Output::Notify(Notice::Ignored { error }));
                }
            }
            Input::Alive { conn } => {
                self.heard(now, conn);
            }
            Input::PingWritten { conn } => {
                if let Link::Open(session) = &mut self.link
                    && session.conn == conn
                {
                    session.liveness.on_ping_written(now);
                }
            }
            Input::Closed { conn, code } => {
                let current = match &self.link {
                    Link::Open(session) => session.conn == conn,
                    Link::Dialing(dialing) => *dialing == conn,
                    Link::Stopped | Link::Waiting => false,
                };
                if current {
                    let reason = match code {
                        Some(code) => format!("the server closed the connection with code {code}"),
                        None => "the connection broke".to_owned(),
                    };
                    self.lost(now, reason);
                } else {
                    mark!("events.close_of_replaced_connection");
                }
            }
            Input::Handled { ticket, outcomes } => self.handled(now, ticket, outcomes),
            Input::Stored(id, result) => self.stored(now, id, result),
            Input::Send(frame) => {
                if let Link::Open(session) = &self.link {
                    self.outputs.push_back(Output::Send { conn: session.conn, frame });
                }
            }
            Input::Stop => self.stop(),
            Input::Timeout => self.timeout(now),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        let liveness = match &self.link {
            Link::Open(session) => session.liveness.deadline(),
            Link::Stopped | Link::Dialing(_) | Link::Waiting => None,
        };
        [self.timers.next(), liveness].into_iter().flatten().min()
    }
}
