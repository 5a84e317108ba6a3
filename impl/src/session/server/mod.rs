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
mod outbox;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use self::conversation::{Conversation, Job, Known};
use self::outbox::{Outbox, Since};
use super::conversation::{
    Command, Ending, Input as UserInput, Kind, Reply, Role, Row, Saying, Verdict, What,
};
use super::wire::{
    Assistant, Attachment, Body, ClientFrame, CursorVerdict, FrameError, InputRejection, Notice,
    ServerFrame, Status,
};
use super::{CloseCode, ConnectionId, Identity, Name, StoreId, Turn};
use crate::mark;
use crate::recovery::{
    Backoff, BackoffConfig, Entropy, Epoch, Generation, Generations, Instant, Liveness,
    LivenessAction, LivenessConfig, RingLimits, Timers, random_hex_128,
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

/// How many conversations with inputs that wait are taken up at once after a start.
const TAKE_UP_PAGE: usize = 64;

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
        if let Some((superseded, _)) = known_live(&self.outboxes, &identity) {
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

    // ---- outboxes ----------------------------------------------------------------------------

    /// Gives a frame to one client, if it has an outbox.
    fn push_to(&mut self, now: Instant, identity: &Identity, body: Body) {
        let Some(outbox) = self.outboxes.get_mut(identity) else { return };
        outbox.push(now, body);
        if let Some((conn, _)) = outbox.live {
            let exhausted = outbox.is_exhausted();
            self.pump(now, conn);
            if exhausted {
                mark!("session.numbers_used_up");
                self.close(now, conn, CloseCode::RESUME, "the outbox has used up its numbers");
            }
        }
    }

    /// The identities of a conversation that have an outbox.
    fn identities(&self, principal: &Arc<str>) -> Vec<Identity> {
        let clients = self.conversations.get(principal).map(|it| &it.clients);
        let identity =
            |client: &Name| Identity { principal: principal.clone(), client: client.clone() };
        clients.into_iter().flatten().map(identity).collect()
    }

    /// The open connections of a conversation.
    fn live(&self, principal: &Arc<str>) -> Vec<ConnectionId> {
        let live = |identity| known_live(&self.outboxes, &identity).map(|(conn, _)| conn);
        self.identities(principal).into_iter().filter_map(live).collect()
    }

    /// Gives a row to every client of its conversation.
    fn push_row(&mut self, now: Instant, principal: &Arc<str>, row: &Row) {
        for identity in self.identities(principal) {
            self.push_to(now, &identity, frame_of(row));
        }
    }

    /// Tells every connection that has caught up, and has room, something that may be lost.
    fn tell(&mut self, now: Instant, principal: &Arc<str>, body: &Body) {
        for conn in self.live(principal) {
            let connection = &self.connections[&conn];
            let last = self.outboxes.get(&connection.identity).map(Outbox::last);
            let caught_up = connection.status.is_some() && last == Some(connection.position);
            match caught_up && !connection.window_is_full(&self.config) {
                true => self.send(now, conn, ServerFrame { seq: 0, body: body.clone() }),
                false => mark!("session.ephemeral_left_out"),
            }
        }
    }

    fn drop_outbox(&mut self, identity: &Identity) {
        let Some(outbox) = self.outboxes.remove(identity) else { return };
        self.idle.remove(&(outbox.idle_since, identity.clone()));
        if let Some(conversation) = self.conversations.get_mut(&identity.principal) {
            conversation.clients.remove(&identity.client);
        }
        self.forget_unused(&identity.principal);
    }

    fn forget_unused(&mut self, principal: &Arc<str>) {
        if self.conversations.get(principal).is_some_and(Conversation::is_unused) {
            self.conversations.remove(principal);
        }
    }

    /// Drops what is too old: frames, and outboxes that nobody came back for [SE-7].
    fn prune(&mut self, now: Instant) {
        let outboxes: Vec<Identity> = self.outboxes.keys().cloned().collect();
        for identity in outboxes {
            let Some(outbox) = self.outboxes.get_mut(&identity) else { continue };
            outbox.prune_age(now);
            if let Some((conn, _)) = outbox.live {
                self.pump(now, conn);
            }
        }
        while let Some((since, identity)) = self.idle.first().cloned()
            && now >= since + self.config.idle_max
        {
            mark!("session.idle_outbox_dropped");
            self.drop_outbox(&identity);
        }
        if !self.outboxes.is_empty() {
            self.timers.set(Timer::Prune, now + self.config.prune_every);
        }
    }

    // ---- the pump ----------------------------------------------------------------------------

    /// Sends what may be sent now.
    fn pump(&mut self, now: Instant, conn: ConnectionId) {
        while self.pump_one(now, conn) {}
    }

    /// One step; `false` when there is nothing more to do until something happens.
    fn pump_one(&mut self, now: Instant, conn: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(&conn) else { return false };
        if connection.since.is_some() || connection.window_is_full(&self.config) {
            return false;
        }
        let Some(outbox) = self.outboxes.get(&connection.identity) else { return false };
        let Some(conversation) = self.conversations.get(&connection.identity.principal) else {
            return false;
        };
        let next = connection.position + 1;
        let status = Some(conversation.status());
        let is_behind = next <= outbox.last();
        // Once after the replay or the history [SE-6b], and again whenever it has changed.
        let status_is_due = match connection.status {
            None => connection.position >= connection.caught_up_at,
            known => !is_behind && known != status,
        };
        let frame = if status_is_due {
            connection.status = status;
            ServerFrame { seq: 0, body: Body::Status(conversation.status()) }
        } else if !is_behind {
            return false;
        } else if let Some(body) = outbox.get(next) {
            connection.position = next;
            ServerFrame { seq: next, body: body.clone() }
        } else {
            mark!("session.evicted_before_sent");
            let reason = "the client does not keep up";
            self.close(now, conn, CloseCode::RESUME, reason);
            return false;
        };
        self.send(now, conn, frame);
        true
    }

    fn send(&mut self, now: Instant, conn: ConnectionId, frame: ServerFrame) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if connection.in_flight.is_empty() {
            self.timers.set(Timer::WriteStall(conn), now + self.config.write_stall);
        }
        let (bytes, is_ping) = (frame.body.cost(), matches!(frame.body, Body::Ping { .. }));
        connection.in_flight.push_back(Sent { bytes, is_ping });
        connection.in_flight_bytes += bytes;
        self.outputs.push_back(Output::Send { conn, frame });
    }

    fn written(&mut self, now: Instant, conn: ConnectionId, frames: usize) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        for sent in connection.in_flight.drain(..frames.min(connection.in_flight.len())) {
            connection.in_flight_bytes -= sent.bytes;
            if sent.is_ping {
                connection.liveness.on_ping_written(now);
            }
        }
        match connection.in_flight.is_empty() {
            true => self.timers.stop(Timer::WriteStall(conn)),
            false => self.timers.set(Timer::WriteStall(conn), now + self.config.write_stall),
        }
        self.arm_liveness(conn);
        self.pump(now, conn);
    }

    fn heard(&mut self, now: Instant, conn: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.liveness.on_inbound(now);
            self.arm_liveness(conn);
        }
    }

    fn arm_liveness(&mut self, conn: ConnectionId) {
        let deadline = self.connections.get(&conn).and_then(|it| it.liveness.deadline());
        if let Some(at) = deadline {
            self.timers.set(Timer::Liveness(conn), at);
        }
    }

    fn check_liveness(&mut self, now: Instant, conn: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        match connection.liveness.handle_timeout(now) {
            LivenessAction::None => {}
            LivenessAction::SendPing => {
                let sent = Some(connection.position);
                self.send(now, conn, ServerFrame { seq: 0, body: Body::Ping { sent } });
            }
            LivenessAction::Dead => {
                mark!("session.silent_client_closed");
                let reason = "nothing was heard from the client";
                return self.close(now, conn, CloseCode::SILENT, reason);
            }
        }
        self.arm_liveness(conn);
    }

    // ---- the store ---------------------------------------------------------------------------

    fn store(&mut self, pending: Pending) {
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
    fn ask(&mut self, principal: &Arc<str>) {
        if self.start == Start::Recovering {
            return;
        }
        let Some(conversation) = self.conversations.get_mut(principal) else { return };
        if !conversation.asked && !conversation.jobs.is_empty() {
            conversation.asked = true;
            self.store(Pending::Job(principal.clone()));
        }
    }

    fn stored(&mut self, now: Instant, id: StoreId, result: Result<Reply, StoreError>) {
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
    fn take_up(&mut self) {
        if let Start::TakingUp { asked, .. } = &mut self.start
            && !*asked
            && self.queue.is_empty()
        {
            *asked = true;
            self.store(Pending::TakeUp);
        }
    }

    fn took_up(&mut self, page: Vec<Arc<str>>) {
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
    fn replied(&mut self, now: Instant, principal: &Arc<str>, reply: Reply) -> bool {
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

    fn judged(
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
    fn is_news(&self, principal: &Arc<str>, position: u64) -> bool {
        let known = self.conversations.get(principal).and_then(|it| it.known.as_ref());
        known.is_some_and(|known| position > known.newest())
    }

    /// An input is durable as a row: whoever said it gets the acknowledgement, the others see it.
    fn accepted(&mut self, now: Instant, asker: &Identity, id: Option<&Name>, row: Row) {
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
    fn show(&mut self, now: Instant, principal: &Arc<str>, row: Row) {
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
    fn advance(&mut self, principal: &Arc<str>) {
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
    fn turn_begun(&mut self, now: Instant, turn: &Turn, runs: bool) {
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

    fn turn_ended(&mut self, now: Instant, principal: &Arc<str>, row: Option<Row>) {
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

    fn say(&mut self, turn: Turn, mut saying: Saying) {
        cut(&mut saying.text, self.config.text_bytes_max);
        let Some(conversation) = self.conversations.get_mut(&turn.principal) else { return };
        let Some(running) = conversation.running(&turn) else { return };
        running.said += 1;
        let nth = running.said;
        conversation.push(Job::Say { turn: turn.clone(), nth, saying });
        self.ask(&turn.principal);
    }

    fn progress(&mut self, now: Instant, turn: &Turn, notice: Notice) {
        let running = self.conversations.get_mut(&turn.principal).and_then(|it| it.running(turn));
        if running.is_some() && notice.is_ephemeral() {
            self.tell(now, &turn.principal, &Body::Notice(notice));
        }
    }

    fn end(&mut self, turn: Turn, mut ending: Ending) {
        if let Ending::Ask { text, .. } | Ending::Failed(text) = &mut ending {
            cut(text, self.config.text_bytes_max);
        }
        let Some(conversation) = self.conversations.get_mut(&turn.principal) else { return };
        let Some(running) = conversation.running(&turn) else { return };
        running.ending = true;
        conversation.push(Job::End { turn: turn.clone(), ending });
        self.ask(&turn.principal);
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

fn known_live(
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

/// Whether clients see the row. What is asked is not for the application to hide: nobody could
/// answer.
fn shows(presentation: &dyn Presentation, row: &Row) -> bool {
    row.role == Role::User || row.kind == Kind::Question || presentation.shows(row)
}

/// What shows the row to a client that did not say it itself.
fn frame_of(row: &Row) -> Body {
    let position = row.position;
    match (row.role, row.kind) {
        (Role::User, Kind::Answer) => {
            Body::UserAnswer { position, question: row.question.clone(), text: row.text.clone() }
        }
        (Role::User, _) => Body::UserMessage {
            position,
            id: row.input.clone(),
            text: row.text.clone(),
            attachments: row.attachments.clone(),
        },
        (Role::Assistant, kind) => match row.as_question() {
            Some(question) => Body::Question { question, position: Some(position) },
            None => Body::Assistant(Assistant {
                text: row.text.clone(),
                model: row.model.clone(),
                usage: row.usage,
                position: Some(position),
                kind: (kind == Kind::Interrupted).then_some(kind),
            }),
        },
    }
}

fn acknowledgement(id: &Name, row: &Row) -> Body {
    let (id, position) = (id.clone(), row.position);
    match row.kind {
        Kind::Answer => Body::AnswerAck { id, question: row.question.clone(), position },
        _ => Body::MessageAck { id, position: Some(position) },
    }
}

/// `id` is what the client called it; an answer without an id is one of the base contract, which
/// has no word for its rejection.
fn rejection(id: Option<Name>, what: &What, reason: InputRejection) -> Body {
    match (what, id) {
        (What::Answer { question, .. }, Some(id)) => {
            Body::AnswerRejected { id, question: question.clone(), reason }
        }
        (_, id) => Body::MessageRejected { id, reason },
    }
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
