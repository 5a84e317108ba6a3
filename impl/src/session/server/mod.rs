//! The server's side of the session protocol, without I/O.
//!
//! One [`Server`] holds every conversation that is in use, an outbox for every client that is or
//! was connected lately, and every connection. Each connection has one *pump*: a send cursor that
//! reads from the ring of its outbox, so nothing newer can overtake a replay, and a slow reader
//! costs no memory [SE-4].
//!
//! It does not parse frames, authenticate, run the application, or keep time: the driver does. It
//! shows a row, or acknowledges an input, only when the store has said that it is durable [SE-3].

mod conversation;
mod frames;
mod jobs;
mod outbox;
mod pump;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use self::conversation::{Conversation, Job};
use self::frames::rejection;
use self::outbox::{Outbox, Since};
use super::conversation::{Command, Ending, Input as UserInput, Reply, Row, Saying, What};
use super::wire::{
    Attachment, Body, ClientFrame, CursorVerdict, FrameError, InputRejection, Notice, ServerFrame,
    Status,
};
use super::{CloseCode, ConnectionId, Identity, Name, StoreId, Turn};
use crate::mark;
use crate::recovery::{
    Backoff, BackoffConfig, Entropy, Epoch, Generation, Generations, Instant, Liveness,
    LivenessConfig, RingLimits, Timers, random_hex_128,
};
use crate::storage::StoreError;

/// The limits and intervals of a server. The defaults are those of the specification.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Whether the extension is offered to clients that ask for it.
    pub extension: bool,
    /// How much of each outbox is kept: 500 frames, 1 MiB, 5 min.
    pub ring: RingLimits,
    /// How often age and idleness are looked at: 60 s.
    pub prune_every: Duration,
    /// How long an outbox without a connection is kept: 1 h.
    pub idle_max: Duration,
    /// How many outboxes there are at most: 20,000.
    pub outboxes_max: usize,
    /// Pings, and how long a client may be silent after one: 25 s, 50 s.
    pub liveness: LivenessConfig,
    /// How many frames of a connection may be on their way to its socket: 64.
    pub window_frames: usize,
    /// The same in bytes: 256 KiB.
    pub window_bytes: usize,
    /// How long a socket may take nothing before the connection is closed: 30 s.
    pub write_stall: Duration,
    /// How many rows a history has at most: 200.
    pub history_messages: usize,
    /// The same in bytes: 96 KiB. The newest row is in it in any case. With every character
    /// escaped, and a question besides, that still fits into a message of 1 MiB.
    pub history_bytes: usize,
    /// How many messages may wait for their turn: 10.
    pub queue_max: usize,
    /// How many inputs of a conversation may wait for the store: 64.
    pub inputs_max: usize,
    /// The longest input, text and attachments, in bytes: 64 KiB. What the application says is
    /// cut there, visibly: a frame that no client takes would be sent for ever.
    pub text_bytes_max: usize,
    /// How many turns run at once, of all conversations; others wait: 1,024.
    pub turns_max: usize,
    /// The pauses between attempts to store: 100 ms to 10 s.
    pub store_retry: BackoffConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            extension: true,
            ring: RingLimits { count: 500, bytes: 1 << 20, age: Some(5 * minute) },
            prune_every: minute,
            idle_max: 60 * minute,
            outboxes_max: 20_000,
            liveness: LivenessConfig {
                ping_every: Duration::from_secs(25),
                pong_timeout: Duration::from_secs(50),
            },
            window_frames: 64,
            window_bytes: 256 << 10,
            write_stall: Duration::from_secs(30),
            history_messages: 200,
            history_bytes: 96 << 10,
            queue_max: 10,
            inputs_max: 64,
            text_bytes_max: 64 << 10,
            turns_max: 1_024,
            store_retry: BackoffConfig {
                min: Duration::from_millis(100),
                max: Duration::from_secs(10),
                jitter_percent: 25,
            },
        }
    }
}

/// Which rows of a conversation its clients see: live and in a history, the same.
pub trait Presentation: Send {
    /// Whether a row of the application is shown. What the user says and what is asked is shown
    /// in any case, and a row that is not shown still takes effect.
    fn shows(&self, row: &Row) -> bool;
}

/// Every row is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShowAll;

impl Presentation for ShowAll {
    fn shows(&self, _row: &Row) -> bool {
        true
    }
}

/// One life of a client in memory, and which of its attempts to connect this is. An attempt that
/// was made earlier never takes the place of a later one, however late it arrives [SE-8b].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The view id.
    pub view: String,
    /// Counts from 1.
    pub number: u64,
}

/// What can happen to a server.
#[derive(Debug)]
pub enum Input {
    /// An authenticated client connected.
    Connected {
        /// The new connection.
        conn: ConnectionId,
        /// Who it is.
        identity: Identity,
        /// Whether the extension was negotiated.
        extension: bool,
        /// The highest contiguous number that it has applied; 0 = nothing.
        since: u64,
        /// The epoch of `since`.
        epoch: Option<Epoch>,
        /// Which attempt this is, if the client says so.
        attempt: Option<Attempt>,
    },
    /// A frame arrived.
    Frame {
        /// Where.
        conn: ConnectionId,
        /// What.
        frame: ClientFrame,
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
    /// The socket took the oldest frames that were sent.
    Written {
        /// Where.
        conn: ConnectionId,
        /// How many.
        frames: usize,
    },
    /// The connection is gone.
    Disconnected {
        /// Which.
        conn: ConnectionId,
    },
    /// The application says something in the turn that it runs; answered by [`Output::Heard`].
    Say {
        /// Which.
        turn: Turn,
        /// What.
        saying: Saying,
    },
    /// The application tells how it is getting on; shown to whoever is connected, and lost.
    Progress {
        /// Which turn.
        turn: Turn,
        /// What.
        notice: Notice,
    },
    /// The application is done with a turn.
    End {
        /// Which.
        turn: Turn,
        /// How.
        ending: Ending,
    },
    /// The store answered.
    Stored(StoreId, Result<Reply, StoreError>),
    /// The deadline has come.
    Timeout,
}

/// What a server wants done.
#[derive(Debug)]
pub enum Output {
    /// Ask the store.
    Store(StoreId, Command),
    /// Put a frame into the socket's queue; confirmed by [`Input::Written`].
    Send {
        /// Where.
        conn: ConnectionId,
        /// What.
        frame: ServerFrame,
    },
    /// Close a connection. No [`Input::Disconnected`] needs to follow.
    Close {
        /// Which.
        conn: ConnectionId,
        /// The code of the close frame.
        code: CloseCode,
        /// The reason in the close frame.
        reason: &'static str,
    },
    /// Have the application run a turn; answered by [`Input::Say`] any number of times, each
    /// after the last was heard, and one [`Input::End`].
    Run(Work),
    /// What the application said last in this turn is durable, and shown.
    Heard {
        /// Which turn.
        turn: Turn,
    },
}

/// A turn for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Which.
    pub turn: Turn,
    /// What it is about: a message or an answer of the user.
    pub input: Row,
}

/// The server's core. See the [module](self).
pub struct Server {
    config: ServerConfig,
    presentation: Box<dyn Presentation>,
    entropy: Box<dyn Entropy>,
    start: Start,
    start_backoff: Backoff,
    conversations: BTreeMap<Arc<str>, Conversation>,
    outboxes: BTreeMap<Identity, Outbox>,
    /// Outboxes without a connection, idle longest first.
    idle: BTreeSet<(Instant, Identity)>,
    generations: Generations<Identity>,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Turns that begin, run or end.
    turns: usize,
    /// Conversations that have something to do, and wait for other turns to end.
    queue: VecDeque<Arc<str>>,
    pending: BTreeMap<StoreId, Pending>,
    store_ids: u64,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

/// What a new process does first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    /// Turns that had begun are over. Nothing else is asked of the store before.
    Recovering,
    /// Inputs whose turn had not begun are taken up, those after this principal.
    TakingUp {
        after: Option<Arc<str>>,
        asked: bool,
    },
    Done,
}

#[derive(Debug, Clone)]
enum Pending {
    Recover,
    TakeUp,
    /// The head of a conversation's jobs.
    Job(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Give a command to the store again.
    Retry(StoreId),
    /// Look at the age of frames and the idleness of outboxes.
    Prune,
    /// The socket took nothing.
    WriteStall(ConnectionId),
    /// See [`Liveness`].
    Liveness(ConnectionId),
}

struct Connection {
    identity: Identity,
    generation: Generation,
    /// Where the client is, until it has its verdict.
    since: Option<Since>,
    /// The last number of the replay or the history.
    caught_up_at: u64,
    /// The highest number that was sent, or that the client had before.
    position: u64,
    /// The status that was sent last; `None` before the end of the replay or the history.
    status: Option<Status>,
    in_flight: VecDeque<Sent>,
    in_flight_bytes: usize,
    /// Something is to be sent, and what is in flight leaves no room for it.
    waits_for_socket: bool,
    liveness: Liveness,
}

struct Sent {
    bytes: usize,
    is_ping: bool,
}

impl Connection {
    fn window_is_full(&self, config: &ServerConfig) -> bool {
        self.in_flight.len() >= config.window_frames || self.in_flight_bytes >= config.window_bytes
    }

    /// Whether what is to be sent has to wait until its socket has taken more.
    fn has_to_wait(&mut self, config: &ServerConfig) -> bool {
        let is_full = self.window_is_full(config);
        if is_full && !self.waits_for_socket {
            mark!("session.waits_for_socket");
        }
        self.waits_for_socket = is_full;
        is_full
    }
}

impl Server {
    /// A server. Drain [`poll`](crate::Core::poll) once before the first input: the command that
    /// recovers the store is waiting.
    pub fn new(
        config: ServerConfig,
        presentation: Box<dyn Presentation>,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        let mut server = Self {
            start_backoff: Backoff::new(config.store_retry),
            config,
            presentation,
            entropy,
            start: Start::Recovering,
            conversations: BTreeMap::new(),
            outboxes: BTreeMap::new(),
            idle: BTreeSet::new(),
            generations: Generations::new(),
            connections: BTreeMap::new(),
            turns: 0,
            queue: VecDeque::new(),
            pending: BTreeMap::new(),
            store_ids: 0,
            timers: Timers::default(),
            outputs: VecDeque::new(),
        };
        server.store(Pending::Recover);
        server
    }

    /// The configuration that the server was made with.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    // ---- connections -------------------------------------------------------------------------

    fn connected(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        identity: Identity,
        extension: bool,
        since: Since,
        attempt: Option<Attempt>,
    ) {
        let extension = extension && self.config.extension;
        let known = self.outboxes.get(&identity);
        if known.is_some_and(|outbox| is_earlier(attempt.as_ref(), outbox.attempt.as_ref())) {
            mark!("session.earlier_attempt_refused");
            let reason = "a later attempt of the same view has connected";
            return self.refuse(conn, CloseCode::SUPERSEDED, reason);
        }
        if known.is_none() && !self.make_room() {
            mark!("session.outbox_limit");
            return self.refuse(conn, CloseCode::TRY_AGAIN_LATER, "too many clients");
        }
        let generation = self.generations.accept(identity.clone()).generation;
        if let Some((superseded, _)) = live_of(&self.outboxes, &identity) {
            mark!("session.superseded");
            let reason = "a newer connection of the same client took over";
            self.close(now, superseded, CloseCode::SUPERSEDED, reason);
        }
        self.attach(now, &identity, extension);
        let outbox = self.outboxes.get_mut(&identity).expect("just attached");
        outbox.live = Some((conn, generation));
        outbox.attempt = attempt.or(outbox.attempt.take());
        let liveness = Liveness::new(self.config.liveness, now);
        let connection = Connection {
            identity,
            generation,
            since: Some(since),
            caught_up_at: 0,
            position: 0,
            status: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            waits_for_socket: false,
            liveness,
        };
        self.connections.insert(conn, connection);
        self.arm_liveness(conn);
        self.begin(now, conn);
    }

    /// Makes sure that there is room for one more outbox.
    fn make_room(&mut self) -> bool {
        if self.outboxes.len() < self.config.outboxes_max {
            return true;
        }
        let Some((_, longest)) = self.idle.first().cloned() else { return false };
        mark!("session.idle_outbox_displaced");
        self.drop_outbox(&longest);
        true
    }

    /// Sees to it that there is an outbox for the identity, in the right mode, and its
    /// conversation [SE-7a].
    fn attach(&mut self, now: Instant, identity: &Identity, extension: bool) {
        if let Some(outbox) = self.outboxes.get(identity) {
            self.idle.remove(&(outbox.idle_since, identity.clone()));
            if outbox.extension() == extension && !outbox.is_exhausted() {
                return;
            }
            mark!("session.outbox_in_another_mode");
        }
        let outbox = Outbox::new(now, self.config.ring, extension, &mut *self.entropy);
        self.outboxes.insert(identity.clone(), outbox);
        if self.timers.get(Timer::Prune).is_none() {
            self.timers.set(Timer::Prune, now + self.config.prune_every);
        }
        self.open(&identity.principal).clients.insert(identity.client.clone());
        self.ask(&identity.principal);
    }

    /// The conversation of a principal, in memory.
    fn open(&mut self, principal: &Arc<str>) -> &mut Conversation {
        let retry = self.config.store_retry;
        self.conversations.entry(principal.clone()).or_insert_with(|| Conversation::new(retry))
    }

    /// Gives the client its verdict, once its conversation is known [SE-1].
    fn begin(&mut self, now: Instant, conn: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let principal = &connection.identity.principal;
        let Some(conversation) = self.conversations.get(principal) else { return };
        let Some(known) = &conversation.known else { return };
        let Some(outbox) = self.outboxes.get_mut(&connection.identity) else { return };
        let Some(since) = connection.since.take() else { return };
        let begin = outbox.judge(&since);
        mark_verdict(begin.verdict);
        connection.position = begin.from - 1;
        connection.caught_up_at = begin.to;
        let mut frames = Vec::new();
        let to = begin.to;
        if begin.verdict.is_history() {
            let history = known.history(&begin.epoch, conversation.status());
            outbox.begin_after_history(self.config.ring, to);
            connection.position = to;
            frames.push(ServerFrame { seq: to, body: Body::History(Arc::new(history)) });
            if let (false, Some(question)) = (outbox.extension(), &known.question) {
                mark!("session.question_after_history");
                let question = question.clone();
                outbox.push(now, Body::Question { question, position: None });
            }
        } else if begin.to >= begin.from {
            mark!("session.replay");
        }
        if outbox.extension() {
            frames.insert(0, ServerFrame { seq: 0, body: Body::Begin(begin) });
        }
        for frame in frames {
            self.send(now, conn, frame);
        }
        self.pump(now, conn);
    }

    fn frame(&mut self, now: Instant, conn: ConnectionId, frame: ClientFrame) {
        let Some(connection) = self.connections.get(&conn) else {
            // Also what a superseded connection still brings [SE-8c].
            mark!("session.frame_after_close");
            return;
        };
        let identity = connection.identity.clone();
        match frame {
            ClientFrame::Pong => {}
            ClientFrame::Ack { seq, epoch } => self.acked(conn, seq, epoch.as_ref()),
            ClientFrame::UserMessage { id, text, attachments, after } => {
                // Who knew of no row when it was written has none to name [SE-5h].
                let extension = self.outboxes.get(&identity).is_some_and(Outbox::extension);
                let after = after.or(extension.then_some(0));
                self.said(now, &identity, id, text, What::Message { attachments, after });
            }
            ClientFrame::UserAnswer { id, question, text } => {
                self.said(now, &identity, id, text, What::Answer { question, asked: None });
            }
        }
    }

    /// An acknowledgement frees nothing that was not sent on its connection [SE-3c].
    fn acked(&mut self, conn: ConnectionId, seq: u64, epoch: Option<&Epoch>) {
        let Some(connection) = self.connections.get(&conn) else { return };
        let Some(outbox) = self.outboxes.get_mut(&connection.identity) else { return };
        let of_this_outbox = match epoch {
            Some(epoch) => epoch == outbox.epoch(),
            None => !outbox.extension(),
        };
        if of_this_outbox && connection.since.is_none() && seq <= connection.position {
            outbox.prune_through(seq);
        } else {
            mark!("session.foreign_ack_ignored");
        }
    }

    /// The user said something.
    fn said(&mut self, now: Instant, by: &Identity, id: Option<Name>, text: String, what: What) {
        let attachments: usize = match &what {
            What::Message { attachments, .. } => attachments.iter().map(Attachment::cost).sum(),
            What::Answer { .. } => 0,
        };
        if text.len() + attachments > self.config.text_bytes_max {
            mark!("session.input_too_large");
            let verdict = rejection(id, &what, InputRejection::TooLarge);
            return self.push_to(now, by, verdict);
        }
        let inputs_max = self.config.inputs_max;
        let Some(conversation) = self.conversations.get_mut(&by.principal) else { return };
        if conversation.inputs >= inputs_max {
            // The client says it again when it has heard nothing.
            mark!("session.input_dropped");
            return;
        }
        let asked_by = id.is_some().then(|| by.client.clone());
        let id = id.unwrap_or_else(|| fresh_name(&mut *self.entropy));
        let input = UserInput { id, what, text };
        conversation.push(Job::Input { by: by.client.clone(), named: asked_by.is_some(), input });
        self.ask(&by.principal);
    }

    fn disconnected(&mut self, now: Instant, conn: ConnectionId) {
        let Some(connection) = self.connections.remove(&conn) else { return };
        self.timers.stop(Timer::WriteStall(conn));
        self.timers.stop(Timer::Liveness(conn));
        let Connection { identity, generation, .. } = connection;
        if !self.generations.close(&identity, generation) {
            mark!("session.end_of_superseded");
            return;
        }
        if let Some(outbox) = self.outboxes.get_mut(&identity) {
            outbox.live = None;
            outbox.idle_since = now;
            self.idle.insert((now, identity));
        }
    }

    fn close(&mut self, now: Instant, conn: ConnectionId, code: CloseCode, reason: &'static str) {
        if self.connections.contains_key(&conn) {
            self.refuse(conn, code, reason);
            self.disconnected(now, conn);
        }
    }

    fn refuse(&mut self, conn: ConnectionId, code: CloseCode, reason: &'static str) {
        self.outputs.push_back(Output::Close { conn, code, reason });
    }

    fn timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::Retry(id) => {
                    if let Some(pending) = self.pending.remove(&id) {
                        self.store(pending);
                    }
                }
                Timer::Prune => self.prune(now),
                Timer::WriteStall(conn) => {
                    mark!("session.slow_reader_closed");
                    self.close(now, conn, CloseCode::RESUME, "the client does not read");
                }
                Timer::Liveness(conn) => self.check_liveness(now, conn),
            }
        }
    }
}

impl crate::Core for Server {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Connected { conn, identity, extension, since, epoch, attempt } => {
                let since = Since { number: since, epoch };
                self.connected(now, conn, identity, extension, since, attempt);
            }
            Input::Frame { conn, frame } => {
                self.heard(now, conn);
                self.frame(now, conn, frame);
            }
            Input::Malformed { conn, error } => {
                mark!("session.malformed_frame_ignored");
                tracing::debug!(conn = conn.0, %error, "ignored a frame");
                self.heard(now, conn);
            }
            Input::Alive { conn } => self.heard(now, conn),
            Input::Written { conn, frames } => self.written(now, conn, frames),
            Input::Disconnected { conn } => self.disconnected(now, conn),
            Input::Say { turn, saying } => self.say(turn, saying),
            Input::Progress { turn, notice } => self.progress(now, &turn, notice),
            Input::End { turn, ending } => self.end(turn, ending),
            Input::Stored(id, result) => self.stored(now, id, result),
            Input::Timeout => self.timeout(now),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }
}

fn live_of(
    outboxes: &BTreeMap<Identity, Outbox>,
    identity: &Identity,
) -> Option<(ConnectionId, Generation)> {
    outboxes.get(identity)?.live
}

/// Whether an attempt to connect was made before one of the same view that was accepted.
fn is_earlier(attempt: Option<&Attempt>, accepted: Option<&Attempt>) -> bool {
    matches!((attempt, accepted), (Some(attempt), Some(accepted))
        if attempt.view == accepted.view && attempt.number < accepted.number)
}

fn fresh_name(entropy: &mut dyn Entropy) -> Name {
    Name::parse(&random_hex_128(entropy)).expect("32 hexadecimal digits are a name")
}

fn mark_verdict(verdict: CursorVerdict) {
    match verdict {
        CursorVerdict::UpToDate => mark!("session.verdict_up_to_date"),
        CursorVerdict::Replay => mark!("session.verdict_replay"),
        CursorVerdict::TooOld => mark!("session.verdict_too_old"),
        CursorVerdict::Ahead => mark!("session.verdict_ahead"),
        CursorVerdict::OtherEpoch => mark!("session.verdict_other_epoch"),
        CursorVerdict::Unknown => mark!("session.verdict_unknown"),
    }
}
