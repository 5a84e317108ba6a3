//! The server's side of the event protocol, without I/O.
//!
//! One [`Server`] holds every stream that is in use and every connection. Each connection has one
//! *pump*: a send cursor that reads from the ring, or from the log where the ring no longer
//! reaches. Live delivery is a replay that has caught up, so nothing newer can overtake a replay
//! and a slow reader costs no memory [CORE-5] [EV-11].
//!
//! It does not parse frames, authenticate, or keep time: the driver does. It never answers a
//! publisher or shows an event before the log has said that it is stored [EV-1].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use self::shared::SharedLog;
use self::shared::Sharing;
use super::log::{Append, Appended, Command, Read, Reply, StreamState};
use super::wire::{
    ClientFrame, Event, EventBody, FrameError, Gap, Pong, Range, Resync, ResyncAck, ResyncBegin,
    ResyncVerdict, ServerFrame, Stream as StreamFrame,
};
use super::{AgentId, CloseCode, ConnectionId, StoreId, Ticket};
use crate::mark;
use crate::recovery::{
    Backoff, BackoffConfig, Cursor, Entropy, Epoch, Instant, Lineage, ReplayRing, RingLimits,
    Timers, Verdict, WallTime,
};
use crate::storage::StoreError;

mod shared;

/// The limits and intervals of a server. The defaults are those of the specification.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Whether the extension is offered to clients that ask for it.
    pub extension: bool,
    /// How much of each stream is kept in memory: 500 events, 4 MiB.
    pub ring: RingLimits,
    /// How long live events of a new connection wait for its `resync`: 2 s.
    pub resync_grace: Duration,
    /// How many frames of a connection may be on their way to its socket: 64.
    pub window_frames: usize,
    /// The same in bytes: 256 KiB.
    pub window_bytes: usize,
    /// How long a socket may take nothing before the connection is closed: 30 s.
    pub write_stall: Duration,
    /// How long a client may say nothing before the connection is closed: 75 s.
    pub silence: Duration,
    /// How many sockets an agent may have; the oldest is closed: 16.
    pub sockets_per_agent_max: usize,
    /// How many connections the server has at most: 20,000.
    pub connections_max: usize,
    /// How many streams are kept in memory; those without a connection are dropped first: 10,000.
    pub streams_max: usize,
    /// How many events may wait for the log: 4,096.
    pub publishes_max: usize,
    /// How many reads for connections may wait for the log: 40,000.
    pub reads_max: usize,
    /// How many events are read from the log at once: 256. The next ones are asked for while half of
    /// these are still to be sent.
    pub page_events: usize,
    /// The same in bytes: 256 KiB.
    pub page_bytes: usize,
    /// The largest event, in bytes of JSON: 64 KiB.
    pub event_bytes_max: usize,
    /// How far before a base client's `since` a replay by time begins: 5 s.
    pub since_margin: Duration,
    /// The pauses between attempts to open an epoch: 100 ms to 10 s.
    pub store_retry: BackoffConfig,
    /// For a log that other servers append to as well.
    pub shared: Option<SharedLog>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            extension: true,
            ring: RingLimits { count: 500, bytes: 4 << 20, age: None },
            resync_grace: Duration::from_secs(2),
            window_frames: 64,
            window_bytes: 256 << 10,
            write_stall: Duration::from_secs(30),
            silence: Duration::from_secs(75),
            sockets_per_agent_max: 16,
            connections_max: 20_000,
            streams_max: 10_000,
            publishes_max: 4_096,
            reads_max: 40_000,
            page_events: 256,
            page_bytes: 256 << 10,
            event_bytes_max: 64 << 10,
            since_margin: Duration::from_secs(5),
            store_retry: BackoffConfig {
                min: Duration::from_millis(100),
                max: Duration::from_secs(10),
                jitter_percent: 25,
            },
            shared: None,
        }
    }
}

/// Control frames that may wait for a socket on top of the window before its peer counts as
/// flooding.
const CONTROL_FRAMES_MAX: usize = 64;

/// How many reads of a connection the log may have to answer before a `resync` waits for them: each
/// one leaves the read before it to nobody. Of those that wait, only the newest counts.
const READS_MAX: usize = 8;

/// What can happen to a server.
#[derive(Debug)]
pub enum Input {
    /// An authenticated client connected.
    Connected {
        /// The new connection.
        conn: ConnectionId,
        /// Whose stream it wants.
        agent: AgentId,
        /// Whether the extension was negotiated.
        extension: bool,
    },
    /// A frame arrived.
    Frame {
        /// Where.
        conn: ConnectionId,
        /// What.
        frame: ClientFrame,
        /// The server's wall clock.
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
    /// A publisher wants an event stored.
    Publish {
        /// The request.
        ticket: Ticket,
        /// Who publishes, for the idempotency key.
        principal: String,
        /// The stream.
        agent: AgentId,
        /// The event.
        body: EventBody,
        /// See [`Append::after`].
        after: Option<u64>,
        /// The server's wall clock.
        at: WallTime,
    },
    /// Forget the events of a stream below a sequence.
    Retain {
        /// The stream.
        agent: AgentId,
        /// The lowest sequence to keep.
        oldest: u64,
    },
    /// The log answered.
    Stored(StoreId, Result<Reply, StoreError>),
    /// A server appended to a shared log, this one or another. These come in the order of the log,
    /// and may come again.
    Followed {
        /// The stream.
        agent: AgentId,
        /// The number of the first event.
        first: u64,
        /// The events, whose numbers step by one.
        events: Vec<EventBody>,
        /// The epoch of the numbers.
        epoch: Epoch,
    },
    /// A shared log is followed from here on.
    FollowBegun {
        /// Whether from where it broke, so that nothing was missed.
        resumed: bool,
    },
    /// A shared log is not followed any more, until it is again.
    FollowBroken,
    /// A shared log is written in another epoch.
    EpochChanged(Epoch),
    /// A shared log does not hold what it has shown.
    LogWentBack,
    /// The deadline has come.
    Timeout,
}

/// What a server wants done.
#[derive(Debug)]
pub enum Output {
    /// Ask the log.
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
    /// Answer a publisher.
    Published {
        /// The request.
        ticket: Ticket,
        /// The answer.
        result: Result<Receipt, PublishError>,
    },
    /// Say whether the server can be used; it can until it says otherwise.
    Available(bool),
}

/// An event is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The epoch of its number.
    pub epoch: Epoch,
    /// Its number.
    pub sequence: u64,
}

/// An event was not stored, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The id is taken by an event with other bytes or of another publisher.
    #[error("the id is taken by another event of this agent")]
    Conflict,
    /// The id may have been stored so long ago that the log has forgotten it.
    #[error("the id is older than the log's memory of ids; it may be stored already")]
    Expired,
    /// The stream has used up its numbers.
    #[error("the stream has used up its sequence numbers")]
    Exhausted,
    /// Too much is waiting for the log. Nothing was stored: try again later.
    #[error("too many events are waiting for the log; try again later")]
    Overloaded,
    /// The log cannot store now. Nothing was stored: try again later.
    #[error("the log cannot store events now; try again later")]
    Unavailable,
    /// The log failed while it stored. Try again with the same id.
    #[error("it is not known whether the event was stored; try again with the same id")]
    Unknown,
}

/// The server's core. See the [module](self).
pub struct Server {
    config: ServerConfig,
    entropy: Box<dyn Entropy>,
    epoch: EpochPhase,
    store_backoff: Backoff,
    streams: BTreeMap<AgentId, Stream>,
    /// Streams without a connection, least recently used first.
    idle_streams: BTreeSet<(u64, AgentId)>,
    uses: u64,
    connections: BTreeMap<ConnectionId, Connection>,
    pending: BTreeMap<StoreId, Pending>,
    publishes: usize,
    /// How many reads for connections the log has not answered, also for those that are gone.
    reads: usize,
    store_ids: u64,
    timers: Timers<Timer>,
    /// The streams whose connections are to be pumped, and the time at which that was found.
    unpumped: BTreeMap<AgentId, Instant>,
    outputs: VecDeque<Output>,
    sharing: Sharing,
}

#[derive(Debug)]
enum EpochPhase {
    /// The command is with the log, and only the answer to it counts.
    Opening(StoreId),
    /// The log failed; [`Timer::OpenEpoch`] is armed.
    Waiting,
    Open(Epoch),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Try again to open an epoch.
    OpenEpoch,
    /// The `resync` of a new connection is overdue: send live events.
    Grace(ConnectionId),
    /// The socket took nothing.
    WriteStall(ConnectionId),
    /// The client said nothing.
    Silence(ConnectionId),
    /// A shared log has failed for long.
    EnginePatience,
}

enum Pending {
    OpenEpoch,
    Load(AgentId),
    Append(Ticket, AgentId),
    Read(ConnectionId),
    FindSince(ConnectionId, Resync),
    Retain(AgentId),
}

struct Stream {
    connections: BTreeSet<ConnectionId>,
    last_use: u64,
    /// The highest sequence that was ever seen in the log.
    head_seen: u64,
    /// `None` while the log is asked.
    known: Option<Known>,
    /// The question whose answer counts.
    loading: Option<StoreId>,
    /// The log has to confirm the state that it answers.
    confirm: bool,
    /// The highest sequence that had been seen when it was asked.
    floor: u64,
}

struct Known {
    ring: ReplayRing<Event>,
    oldest: u64,
    head: u64,
    lineage: Lineage,
    /// What was shown since the connections of the stream were pumped.
    shown: Shown,
}

#[derive(Default)]
struct Shown {
    events: usize,
    bytes: usize,
}

struct Connection {
    agent: AgentId,
    extension: bool,
    /// The `stream` frame was sent and `position` is set.
    begun: bool,
    /// Live events wait for the first `resync` or the grace.
    held: bool,
    /// The newest `resync` that came before it could be answered: the stream was not known, or too
    /// many reads were waiting.
    early_resync: Option<(Resync, WallTime)>,
    /// The state that is awaited is confirmed, and what it says of the early `resync` holds.
    confirmed: bool,
    /// The highest sequence that the pump has passed.
    position: u64,
    /// The highest sequence that was sent on this connection.
    sent: u64,
    replay: Option<Replay>,
    /// What was read from the log and is to be sent: two pages at most.
    page: VecDeque<(u64, EventBody)>,
    /// The read of the next page, or of the place where to begin.
    asking: Option<StoreId>,
    /// How many of its reads the log has not answered, those included that nobody waits for any more.
    reads: usize,
    in_flight: VecDeque<usize>,
    in_flight_bytes: usize,
    /// Something is to be sent, and what is in flight leaves no room for it.
    waits_for_socket: bool,
}

/// The answer to a cursor [CORE-4].
struct Answer {
    verdict: ResyncVerdict,
    /// The first sequence that follows.
    from: u64,
    /// The last one; `from - 1` if there is none.
    to: u64,
    lost: Vec<Range>,
}

struct Replay {
    /// The answer that ends it; `current_seq` is its last sequence.
    ack: ResyncAck,
}

impl Server {
    /// A server that begins a new epoch. Drain [`poll`](crate::Core::poll) once before the first
    /// input: the command that opens the epoch is waiting.
    pub fn new(config: ServerConfig, entropy: Box<dyn Entropy>) -> Self {
        let mut server = Self {
            store_backoff: Backoff::new(config.store_retry),
            config,
            entropy,
            epoch: EpochPhase::Waiting,
            streams: BTreeMap::new(),
            idle_streams: BTreeSet::new(),
            uses: 0,
            connections: BTreeMap::new(),
            pending: BTreeMap::new(),
            publishes: 0,
            reads: 0,
            store_ids: 0,
            timers: Timers::default(),
            unpumped: BTreeMap::new(),
            outputs: VecDeque::new(),
            sharing: Sharing::default(),
        };
        server.open_epoch();
        server
    }

    /// The configuration that the server was made with.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    fn open_epoch(&mut self) {
        let proposed = Epoch::random(&mut *self.entropy);
        let broken = self.sharing.broken();
        self.timers.stop(Timer::OpenEpoch);
        let command = Command::OpenEpoch { proposed, broken };
        self.epoch = EpochPhase::Opening(self.store(Pending::OpenEpoch, command));
    }

    fn store(&mut self, pending: Pending, command: Command) -> StoreId {
        self.store_ids += 1;
        let id = StoreId(self.store_ids);
        self.pending.insert(id, pending);
        self.outputs.push_back(Output::Store(id, command));
        id
    }

    /// Asks the log for something that a connection waits for.
    fn read(&mut self, conn: ConnectionId, pending: Pending, command: Command) {
        if self.reads >= self.config.reads_max {
            mark!("events.read_limit");
            self.close(conn, CloseCode::TRY_AGAIN_LATER, "too much is to be read from the log");
            return;
        }
        self.reads += 1;
        let id = self.store(pending, command);
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.asking = Some(id);
            connection.reads += 1;
        }
    }

    // ---- connections -------------------------------------------------------------------------

    fn connected(&mut self, now: Instant, conn: ConnectionId, agent: AgentId, extension: bool) {
        if self.connections.len() >= self.config.connections_max {
            mark!("events.connection_limit");
            self.refuse(conn, CloseCode::TRY_AGAIN_LATER, "too many connections");
            return;
        }
        if self.sharing.is_away() {
            self.refuse(conn, CloseCode::TRY_AGAIN_LATER, "the log is away");
            return;
        }
        let extension = extension && self.config.extension;
        self.connections.insert(
            conn,
            Connection {
                agent: agent.clone(),
                extension,
                begun: false,
                held: true,
                early_resync: None,
                confirmed: false,
                position: 0,
                sent: 0,
                replay: None,
                page: VecDeque::new(),
                asking: None,
                reads: 0,
                in_flight: VecDeque::new(),
                in_flight_bytes: 0,
                waits_for_socket: false,
            },
        );
        self.timers.set(Timer::Silence(conn), now + self.config.silence);
        self.attach(&agent, conn);
        if self.streams[&agent].connections.len() > self.config.sockets_per_agent_max {
            let oldest = *self.streams[&agent].connections.first().expect("it has several");
            mark!("events.oldest_socket_closed");
            self.close(oldest, CloseCode::TOO_MANY_SOCKETS, "the agent opened too many sockets");
        }
        self.begin(now, conn);
    }

    /// Adds the connection to its stream, and asks the log for the stream if nobody has.
    fn attach(&mut self, agent: &AgentId, conn: ConnectionId) {
        self.uses += 1;
        let uses = self.uses;
        if let Some(stream) = self.streams.get_mut(agent) {
            self.idle_streams.remove(&(stream.last_use, agent.clone()));
            stream.last_use = uses;
            stream.connections.insert(conn);
            return;
        }
        if self.streams.len() >= self.config.streams_max
            && let Some((_, unused)) = self.idle_streams.pop_first()
        {
            mark!("events.idle_stream_dropped");
            self.streams.remove(&unused);
        }
        let stream = Stream {
            connections: [conn].into(),
            last_use: uses,
            head_seen: 0,
            known: None,
            loading: None,
            confirm: false,
            floor: 0,
        };
        self.streams.insert(agent.clone(), stream);
        self.load(agent);
    }

    /// Starts to serve a connection once the epoch is open and its stream is known.
    fn begin(&mut self, now: Instant, conn: ConnectionId) {
        let EpochPhase::Open(epoch) = &self.epoch else { return };
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let Some(known) = known(&mut self.streams, &connection.agent) else { return };
        if connection.begun {
            return;
        }
        connection.begun = true;
        connection.position = known.head;
        connection.sent = 0;
        let hello = StreamFrame { epoch: epoch.clone(), oldest: known.oldest, head: known.head };
        let early = connection.early_resync.take();
        if connection.extension {
            self.send(now, conn, ServerFrame::Stream(hello));
        }
        match early {
            Some((resync, at)) => self.resync(now, conn, resync, at),
            None => self.timers.set(Timer::Grace(conn), now + self.config.resync_grace),
        }
    }

    fn frame(&mut self, now: Instant, conn: ConnectionId, frame: ClientFrame, at: WallTime) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            mark!("events.frame_after_close");
            return;
        };
        match frame {
            ClientFrame::Ping => {
                let pong = match known(&mut self.streams, &connection.agent) {
                    Some(known) if connection.extension => {
                        Pong { sent: Some(connection.sent), head: Some(known.head) }
                    }
                    _ => Pong::default(),
                };
                self.send(now, conn, ServerFrame::Pong(pong));
            }
            ClientFrame::Subscribe(_) | ClientFrame::Unsubscribe(_) => {}
            ClientFrame::Resync(resync) => self.resync(now, conn, resync, at),
        }
    }

    fn resync(&mut self, now: Instant, conn: ConnectionId, resync: Resync, at: WallTime) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        self.timers.stop(Timer::Grace(conn));
        let open = matches!(self.epoch, EpochPhase::Open(_)) && connection.begun;
        let ready = open.then(|| known(&mut self.streams, &connection.agent)).flatten();
        let Some(known) = ready else {
            connection.early_resync = Some((resync, at));
            connection.confirmed = false;
            return;
        };
        if connection.reads >= READS_MAX {
            mark!("events.resync_waits_for_reads");
            connection.early_resync = Some((resync, at));
            return;
        }
        let confirmed = std::mem::take(&mut connection.confirmed);
        if self.config.shared.is_some() && !confirmed && is_beyond(known, &resync) {
            mark!("cluster.cursor_beyond_the_known");
            connection.early_resync = Some((resync, at));
            connection.confirmed = true;
            let agent = connection.agent.clone();
            return self.confirm(&agent);
        }
        if connection.replay.is_some() {
            mark!("events.resync_during_replay");
        }
        connection.held = false;
        connection.replay = None;
        connection.page.clear();
        connection.asking = None;
        let verdict = match &resync.epoch {
            Some(epoch) => {
                let cursor = Cursor::new(epoch.clone(), resync.last_seen_seq);
                known.lineage.judge(&cursor, known.oldest, known.head)
            }
            None => judge_without_epoch(resync.last_seen_seq, known.oldest, known.head),
        };
        // A number from a base connection may or may not be one of this log's.
        let unproven = connection.extension && resync.epoch.is_none() && resync.last_seen_seq > 0;
        if let (Verdict::Ahead { .. }, None, Some(since)) = (&verdict, &resync.epoch, resync.since)
            && !connection.extension
        {
            // The number is of no use, so the base contract's only other hint has to do.
            mark!("events.replay_by_time");
            let since = since.min(at).saturating_sub(self.config.since_margin);
            connection.held = true;
            let agent = connection.agent.clone();
            self.read(conn, Pending::FindSince(conn, resync), Command::FindSince(agent, since));
            return;
        }
        let end = resync.epoch.as_ref().and_then(|epoch| known.lineage.end_of(epoch, known.head));
        let lost = lost_after(&verdict, end);
        let answer = Answer {
            verdict: if unproven { ResyncVerdict::Unknown } else { (&verdict).into() },
            from: verdict.from().unwrap_or(resync.last_seen_seq + 1),
            to: verdict.to().unwrap_or(resync.last_seen_seq),
            lost,
        };
        self.start_replay(now, conn, resync.last_seen_seq, answer);
    }

    fn start_replay(&mut self, now: Instant, conn: ConnectionId, last_seen: u64, answer: Answer) {
        let EpochPhase::Open(epoch) = &self.epoch else { return };
        let epoch = epoch.clone();
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        match answer.verdict {
            ResyncVerdict::UpToDate => mark!("events.verdict_up_to_date"),
            ResyncVerdict::Replay => mark!("events.verdict_replay"),
            ResyncVerdict::TooOld => mark!("events.verdict_too_old"),
            ResyncVerdict::Ahead => mark!("events.verdict_ahead"),
            ResyncVerdict::OtherEpoch => mark!("events.verdict_other_epoch"),
            ResyncVerdict::Unknown => mark!("events.verdict_unknown"),
        }
        let Answer { verdict, from, to, lost } = answer;
        let extension = connection.extension;
        connection.held = false;
        connection.asking = None;
        connection.position = from - 1;
        connection.replay = Some(Replay {
            ack: ResyncAck {
                last_seen_seq: last_seen,
                current_seq: to,
                replayed: 0,
                gap_detected: verdict.is_gap(),
                epoch: extension.then(|| epoch.clone()),
                verdict: extension.then_some(verdict),
                lost: if extension { lost.clone() } else { vec![] },
            },
        });
        if to >= from {
            mark!("events.replay_started");
        }
        if extension {
            let begin = ResyncBegin { epoch, verdict, from, to, lost };
            self.send(now, conn, ServerFrame::ResyncBegin(begin));
        }
        self.pump(now, conn);
    }

    fn disconnected(&mut self, conn: ConnectionId) {
        let Some(connection) = self.connections.remove(&conn) else { return };
        if connection.replay.is_some() {
            mark!("events.replay_interrupted");
        }
        for timer in [Timer::Grace(conn), Timer::WriteStall(conn), Timer::Silence(conn)] {
            self.timers.stop(timer);
        }
        if let Some(stream) = self.streams.get_mut(&connection.agent) {
            stream.connections.remove(&conn);
            if stream.connections.is_empty() {
                self.idle_streams.insert((stream.last_use, connection.agent));
            }
        }
    }

    fn close(&mut self, conn: ConnectionId, code: CloseCode, reason: &'static str) {
        if self.connections.contains_key(&conn) {
            self.refuse(conn, code, reason);
            self.disconnected(conn);
        }
    }

    fn refuse(&mut self, conn: ConnectionId, code: CloseCode, reason: &'static str) {
        self.outputs.push_back(Output::Close { conn, code, reason });
    }

    // ---- the pump ----------------------------------------------------------------------------

    /// Sends what may be sent now: the end of a replay, events from the ring or a page, or a
    /// request for the next page.
    fn pump(&mut self, now: Instant, conn: ConnectionId) {
        while self.pump_one(now, conn) {}
    }

    /// One step; `false` when there is nothing more to do until something happens.
    fn pump_one(&mut self, now: Instant, conn: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(&conn) else { return false };
        let Some(known) = known(&mut self.streams, &connection.agent) else { return false };
        if connection.held || !connection.begun {
            return false;
        }
        let limit = match &connection.replay {
            Some(replay) if connection.position >= replay.ack.current_seq => {
                let replay = connection.replay.take().expect("just seen");
                self.send(now, conn, ServerFrame::ResyncAck(replay.ack));
                return true;
            }
            Some(replay) => replay.ack.current_seq,
            None => known.head,
        };
        let next = connection.position + 1;
        if next > limit || connection.has_to_wait(&self.config) {
            return false;
        }
        if next < known.oldest {
            let oldest = known.oldest;
            return self.skip(now, conn, oldest);
        }
        if known.ring.get(next).is_some() {
            for (sequence, event) in known.ring.iter_from(next) {
                if sequence > limit || connection.has_to_wait(&self.config) {
                    break;
                }
                if connection.replay.is_some() {
                    mark!("events.replay_from_ring");
                }
                if connection.put_in_flight(event.bytes().len()) {
                    self.timers.set(Timer::WriteStall(conn), now + self.config.write_stall);
                }
                connection.passes(sequence);
                let frame = ServerFrame::Event(event.clone());
                self.outputs.push_back(Output::Send { conn, frame });
            }
            return true;
        }
        match connection.page.pop_front() {
            Some((sequence, body)) if sequence == next => {
                let event = Event::stamped(sequence, &body);
                connection.passes(sequence);
                self.send(now, conn, ServerFrame::Event(event));
                self.read_ahead(conn, limit);
                true
            }
            Some((sequence, body)) if sequence > next => {
                connection.page.push_front((sequence, body));
                self.skip(now, conn, sequence)
            }
            Some(_) => true,
            None if connection.asking.is_some() => false,
            None => {
                match connection.replay {
                    Some(_) => mark!("events.replay_from_log"),
                    None => mark!("events.live_from_log"),
                }
                self.read_page(conn, next - 1, limit);
                false
            }
        }
    }

    /// Asks for the next page while there is still half of one to send, so that the log and the socket
    /// do not wait for each other.
    fn read_ahead(&mut self, conn: ConnectionId, limit: u64) {
        let Some(connection) = self.connections.get(&conn) else { return };
        let Some(&(last, _)) = connection.page.back() else { return };
        let is_due = connection.page.len() <= self.config.page_events / 2 && last < limit;
        if !is_due || connection.asking.is_some() || self.reads >= self.config.reads_max {
            return;
        }
        let Some(known) = known(&mut self.streams, &connection.agent) else { return };
        if last + 1 >= known.oldest && known.ring.get(last + 1).is_none() {
            mark!("events.read_ahead");
            self.read_page(conn, last, limit);
        }
    }

    fn read_page(&mut self, conn: ConnectionId, after: u64, to: u64) {
        let Some(connection) = self.connections.get(&conn) else { return };
        let agent = connection.agent.clone();
        let (count_max, bytes_max) = (self.config.page_events, self.config.page_bytes);
        let read = Read { agent, after, to, count_max, bytes_max };
        self.read(conn, Pending::Read(conn), Command::Read(read));
    }

    /// Retention has overtaken the pump: declares what is missing before `oldest` [EV-10].
    fn skip(&mut self, now: Instant, conn: ConnectionId, oldest: u64) -> bool {
        let EpochPhase::Open(epoch) = &self.epoch else { return false };
        let epoch = epoch.clone();
        let Some(connection) = self.connections.get_mut(&conn) else { return false };
        mark!("events.retention_overtook_pump");
        if connection.replay.is_none() && !connection.extension {
            // The base contract has no word for it on a live link, only in the next resync.
            self.close(conn, CloseCode::RESUME, "events were removed before they were sent");
            return false;
        }
        // A replay ends where it said; what is missing beyond is the live stream's to say [CORE-5].
        let end = connection.replay.as_ref().map_or(u64::MAX, |replay| replay.ack.current_seq);
        let range = Range { from: connection.position + 1, to: end.min(oldest - 1) };
        connection.position = range.to;
        let extension = connection.extension;
        if let Some(replay) = &mut connection.replay {
            replay.ack.gap_detected = true;
            if extension {
                replay.ack.verdict = Some(ResyncVerdict::TooOld);
                replay.ack.lost.push(range);
            }
        }
        if extension {
            let gap = Gap { epoch, from: range.from, to: range.to };
            self.send(now, conn, ServerFrame::Gap(gap));
        }
        true
    }

    fn send(&mut self, now: Instant, conn: ConnectionId, frame: ServerFrame) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if connection.in_flight.len() >= self.config.window_frames + CONTROL_FRAMES_MAX {
            mark!("events.control_flood");
            self.close(conn, CloseCode::PROTOCOL, "more questions than answers are read");
            return;
        }
        let bytes = match &frame {
            ServerFrame::Event(event) => event.bytes().len(),
            _ => 128,
        };
        if connection.put_in_flight(bytes) {
            self.timers.set(Timer::WriteStall(conn), now + self.config.write_stall);
        }
        self.outputs.push_back(Output::Send { conn, frame });
    }

    fn written(&mut self, now: Instant, conn: ConnectionId, frames: usize) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        for bytes in connection.in_flight.drain(..frames.min(connection.in_flight.len())) {
            connection.in_flight_bytes -= bytes;
        }
        match connection.in_flight.is_empty() {
            true => self.timers.stop(Timer::WriteStall(conn)),
            false => self.timers.set(Timer::WriteStall(conn), now + self.config.write_stall),
        }
        self.pump(now, conn);
    }

    // ---- publishing and the log --------------------------------------------------------------

    fn publish(&mut self, ticket: Ticket, append: Append) {
        let refusal = match &self.epoch {
            EpochPhase::Open(_) if self.publishes < self.config.publishes_max => None,
            EpochPhase::Open(_) => Some(PublishError::Overloaded),
            EpochPhase::Opening(_) | EpochPhase::Waiting => Some(PublishError::Unavailable),
        };
        let refusal = refusal.or(self.sharing.is_away().then_some(PublishError::Unavailable));
        if let Some(error) = refusal {
            mark!("events.publish_refused");
            self.outputs.push_back(Output::Published { ticket, result: Err(error) });
            return;
        }
        self.publishes += 1;
        self.store(Pending::Append(ticket, append.agent.clone()), Command::Append(append));
    }

    fn stored(&mut self, now: Instant, id: StoreId, result: Result<Reply, StoreError>) {
        let Some(pending) = self.pending.remove(&id) else { return };
        let result = match result {
            Ok(Reply::Failed(error)) => Err(error),
            result => result,
        };
        if self.config.shared.is_some() {
            self.answered(now, &pending, &result);
        }
        let reader = match pending {
            Pending::Read(conn) | Pending::FindSince(conn, _) => Some(conn),
            Pending::OpenEpoch | Pending::Load(_) | Pending::Append(..) | Pending::Retain(_) => {
                None
            }
        };
        if let Some(conn) = reader {
            self.reads -= 1;
            if let Some(connection) = self.connections.get_mut(&conn) {
                connection.reads -= 1;
            }
        }
        self.replied(now, id, pending, result);
        if let Some(conn) = reader {
            self.resume_early(now, conn);
        }
    }

    fn replied(
        &mut self,
        now: Instant,
        id: StoreId,
        pending: Pending,
        result: Result<Reply, StoreError>,
    ) {
        match pending {
            Pending::OpenEpoch => self.epoch_opened(now, id, result),
            Pending::Load(agent) => {
                self.loaded(now, id, &agent, result);
                self.load_answered();
            }
            Pending::Append(ticket, agent) => self.appended(now, ticket, &agent, result),
            Pending::Retain(agent) => {
                if let Ok(Reply::Retained(oldest)) = result {
                    self.retained(now, &agent, oldest);
                }
            }
            Pending::Read(conn) | Pending::FindSince(conn, _) if !self.awaits(conn, id) => {
                mark!("events.stale_read_ignored");
            }
            Pending::Read(conn) => {
                let page = match result {
                    Ok(Reply::Page(page)) => page,
                    _ => return self.close(conn, CloseCode::RESUME, "the log cannot be read"),
                };
                let Some(connection) = self.connections.get_mut(&conn) else { return };
                connection.asking = None;
                if page.is_empty() {
                    return self.close(conn, CloseCode::RESUME, "the log does not hold the event");
                }
                connection.page.extend(page);
                self.pump(now, conn);
            }
            Pending::FindSince(conn, resync) => {
                let first = match result {
                    Ok(Reply::Since(first)) => first,
                    _ => return self.close(conn, CloseCode::RESUME, "the log cannot be read"),
                };
                let Some(connection) = self.connections.get(&conn) else { return };
                let Some(known) = known(&mut self.streams, &connection.agent) else {
                    return self.close(conn, CloseCode::RESUME, "the stream is being read again");
                };
                let from = first.unwrap_or(known.head + 1).max(known.oldest);
                let verdict = ResyncVerdict::Ahead;
                let answer = Answer { verdict, from, to: known.head, lost: vec![] };
                self.start_replay(now, conn, resync.last_seen_seq, answer);
            }
        }
    }

    fn awaits(&self, conn: ConnectionId, id: StoreId) -> bool {
        self.connections.get(&conn).is_some_and(|connection| connection.asking == Some(id))
    }

    fn epoch_opened(&mut self, now: Instant, id: StoreId, result: Result<Reply, StoreError>) {
        match &self.epoch {
            EpochPhase::Opening(asked) if *asked == id => {}
            _ => return,
        }
        let Ok(Reply::EpochOpened(epoch)) = result else {
            // Whether it was stored is not known, so the next attempt is another epoch.
            mark!("events.open_epoch_failed");
            self.wait_for_the_log(now);
            return;
        };
        self.store_backoff.reset();
        self.epoch = EpochPhase::Open(epoch.clone());
        if self.config.shared.is_some() {
            return self.joined(now, &epoch);
        }
        for stream in self.streams.values_mut() {
            if let Some(known) = &mut stream.known {
                known.lineage.push_epoch(epoch.clone());
            }
        }
        let waiting: Vec<_> = self.connections.keys().copied().collect();
        for conn in waiting {
            self.begin(now, conn);
        }
    }

    fn wait_for_the_log(&mut self, now: Instant) {
        self.epoch = EpochPhase::Waiting;
        let delay = self.store_backoff.next_delay(&mut *self.entropy);
        self.timers.set(Timer::OpenEpoch, now + delay);
    }

    fn loaded(
        &mut self,
        now: Instant,
        id: StoreId,
        agent: &AgentId,
        result: Result<Reply, StoreError>,
    ) {
        let Some(stream) = self.streams.get_mut(agent) else { return };
        if stream.loading != Some(id) {
            mark!("cluster.stale_load_ignored");
            return;
        }
        stream.loading = None;
        let confirmed = std::mem::take(&mut stream.confirm);
        let waiting: Vec<_> = stream.connections.iter().copied().collect();
        let Ok(Reply::Loaded(StreamState { oldest, head, lineage })) = result else {
            mark!("events.load_failed");
            for conn in waiting {
                self.close(conn, CloseCode::TRY_AGAIN_LATER, "the log cannot be read");
            }
            if let Some(stream) = self.streams.remove(agent) {
                self.idle_streams.remove(&(stream.last_use, agent.clone()));
            }
            return;
        };
        let went_back = head < stream.floor;
        if went_back && !confirmed && self.config.shared.is_some() {
            return self.confirm(agent);
        }
        // What was seen meanwhile may be newer than the answer.
        let answered = head;
        let head = if went_back { head } else { head.max(stream.head_seen) };
        stream.head_seen = head;
        let ring = ReplayRing::starting_after(self.config.ring, head);
        let known =
            stream.known.insert(Known { ring, oldest, head, lineage, shown: Shown::default() });
        if went_back {
            return self.log_went_back();
        }
        if self.config.shared.is_some()
            && let EpochPhase::Open(epoch) = &self.epoch
        {
            if known.lineage.current() != Some(epoch) {
                return self.open_epoch();
            }
            if head > answered {
                known.lineage.record_first(epoch, answered + 1);
            }
        }
        for conn in waiting {
            self.begin(now, conn);
            self.resume_early(now, conn);
            self.pump(now, conn);
        }
    }

    /// The log no longer holds what it had acknowledged, so its numbers may be given again: what
    /// follows is another epoch, and every client has to ask [CORE-2].
    fn log_went_back(&mut self) {
        mark!("events.log_went_back");
        for conn in self.connections.keys().copied().collect::<Vec<_>>() {
            self.close(conn, CloseCode::RESUME, "the log was replaced");
        }
        self.forget_streams();
        self.broke();
        self.open_epoch();
    }

    /// Takes up a `resync` that came before it could be answered.
    fn resume_early(&mut self, now: Instant, conn: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && let Some((resync, at)) = connection.early_resync.take()
        {
            self.resync(now, conn, resync, at);
        }
    }

    fn appended(
        &mut self,
        now: Instant,
        ticket: Ticket,
        agent: &AgentId,
        result: Result<Reply, StoreError>,
    ) {
        self.publishes -= 1;
        let result = match result {
            Ok(Reply::Appended(Appended::New { sequence, oldest, body })) => {
                if let EpochPhase::Open(epoch) = &self.epoch {
                    let epoch = epoch.clone();
                    self.show(now, agent, &epoch, sequence, oldest, std::slice::from_ref(&body));
                }
                self.receipt(sequence)
            }
            Ok(Reply::Appended(Appended::Existing { sequence, epoch })) => {
                mark!("events.publish_repeated");
                Ok(Receipt { epoch, sequence })
            }
            Ok(Reply::Appended(Appended::Conflict)) => Err(PublishError::Conflict),
            Ok(Reply::Appended(Appended::Expired)) => Err(PublishError::Expired),
            Ok(Reply::Appended(Appended::Exhausted)) => Err(PublishError::Exhausted),
            Ok(_) | Err(StoreError::Unknown(_)) => {
                mark!("events.append_outcome_unknown");
                self.reload(agent);
                Err(PublishError::Unknown)
            }
            Err(StoreError::NotApplied(_)) => {
                mark!("events.append_failed");
                Err(PublishError::Unavailable)
            }
        };
        self.outputs.push_back(Output::Published { ticket, result });
    }

    fn receipt(&self, sequence: u64) -> Result<Receipt, PublishError> {
        match &self.epoch {
            EpochPhase::Open(epoch) => Ok(Receipt { epoch: epoch.clone(), sequence }),
            EpochPhase::Opening(_) | EpochPhase::Waiting => Err(PublishError::Unknown),
        }
    }

    /// Stored events become visible: in the ring, and to every connection that has caught up. On a
    /// shared log some may be visible already, and others may be missing before them.
    fn show(
        &mut self,
        now: Instant,
        agent: &AgentId,
        epoch: &Epoch,
        first: u64,
        oldest: u64,
        events: &[EventBody],
    ) {
        for (sequence, body) in (first..).zip(events) {
            let Some(stream) = self.streams.get_mut(agent) else { return };
            let Some(known) = &mut stream.known else {
                // Part of what the log is about to answer, or newer.
                stream.head_seen = stream.head_seen.max(first + events.len() as u64 - 1);
                return;
            };
            if sequence <= known.head {
                continue;
            }
            let event = Event::stamped(sequence, body);
            let cost = event.cost();
            known.lineage.record_first(epoch, sequence);
            known.ring.push(now, sequence, cost, event);
            known.head = sequence;
            known.shown.events += 1;
            known.shown.bytes += cost;
            stream.head_seen = sequence;
            let RingLimits { count, bytes, age: _ } = self.config.ring;
            if known.shown.events * 2 >= count || known.shown.bytes * 2 >= bytes {
                // Before the ring loses what nobody has been sent.
                self.pump_all(now, agent);
            }
        }
        self.unpumped.insert(agent.clone(), now);
        self.retained(now, agent, oldest);
    }

    fn retained(&mut self, now: Instant, agent: &AgentId, oldest: u64) {
        let is_newer = |known: &&mut Known| oldest > known.oldest;
        let Some(before) = known(&mut self.streams, agent).filter(is_newer) else { return };
        mark!("events.retention");
        if before.head - before.shown.events as u64 + 1 < oldest {
            // Whoever is there is sent an event before it is removed.
            self.pump_all(now, agent);
        }
        let Some(known) = known(&mut self.streams, agent) else { return };
        known.oldest = oldest;
        known.ring.prune_through(oldest - 1);
        self.unpumped.insert(agent.clone(), now);
    }

    /// Pumps every connection of a stream: once for all that was shown, while nobody looks at the
    /// outputs.
    fn pump_all(&mut self, now: Instant, agent: &AgentId) {
        self.unpumped.remove(agent);
        let Some(stream) = self.streams.get_mut(agent) else { return };
        let Some(known) = &mut stream.known else { return };
        let shown = std::mem::take(&mut known.shown);
        for conn in stream.connections.iter().copied().collect::<Vec<_>>() {
            let replays = |connection: &Connection| connection.replay.is_some();
            if shown.events > 0 && self.connections.get(&conn).is_some_and(replays) {
                mark!("events.live_during_replay");
            }
            self.pump(now, conn);
        }
    }

    /// What the log holds is in doubt: nothing of the stream is served until it has been read
    /// again.
    fn reload(&mut self, agent: &AgentId) {
        let Some(stream) = self.streams.get_mut(agent) else { return };
        if stream.known.take().is_some() {
            self.load(agent);
        }
    }

    fn timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::OpenEpoch => self.open_epoch(),
                Timer::EnginePatience => self.log_away(now),
                Timer::Grace(conn) => {
                    if let Some(connection) = self.connections.get_mut(&conn) {
                        mark!("events.grace_ended");
                        connection.held = false;
                        self.pump(now, conn);
                    }
                }
                Timer::WriteStall(conn) => {
                    mark!("events.slow_reader_closed");
                    self.close(conn, CloseCode::RESUME, "the client does not read");
                }
                Timer::Silence(conn) => {
                    mark!("events.silent_client_closed");
                    self.close(conn, CloseCode::SILENT, "nothing was heard from the client");
                }
            }
        }
    }

    fn heard(&mut self, now: Instant, conn: ConnectionId) {
        if self.connections.contains_key(&conn) {
            self.timers.set(Timer::Silence(conn), now + self.config.silence);
        }
    }
}

impl Connection {
    /// The event is sent now.
    fn passes(&mut self, sequence: u64) {
        self.position = sequence;
        self.sent = self.sent.max(sequence);
        if let Some(replay) = &mut self.replay {
            replay.ack.replayed += 1;
        }
    }

    /// A frame goes to the socket; whether it is the only one there.
    fn put_in_flight(&mut self, bytes: usize) -> bool {
        self.in_flight.push_back(bytes);
        self.in_flight_bytes += bytes;
        self.in_flight.len() == 1
    }

    /// Whether what is to be sent has to wait until its socket has taken more.
    fn has_to_wait(&mut self, config: &ServerConfig) -> bool {
        let is_full = self.in_flight.len() >= config.window_frames
            || self.in_flight_bytes >= config.window_bytes;
        if is_full && !self.waits_for_socket {
            mark!("events.waits_for_socket");
        }
        self.waits_for_socket = is_full;
        is_full
    }
}

impl crate::Core for Server {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Connected { conn, agent, extension } => {
                self.connected(now, conn, agent, extension);
            }
            Input::Frame { conn, frame, at } => {
                self.heard(now, conn);
                self.frame(now, conn, frame, at);
            }
            Input::Malformed { conn, error } => {
                mark!("events.malformed_frame_ignored");
                tracing::debug!(conn = conn.0, %error, "ignored a frame");
                self.heard(now, conn);
            }
            Input::Alive { conn } => self.heard(now, conn),
            Input::Written { conn, frames } => self.written(now, conn, frames),
            Input::Disconnected { conn } => self.disconnected(conn),
            Input::Publish { ticket, principal, agent, body, after, at } => {
                self.publish(ticket, Append { principal, agent, body, after, created_at: at });
            }
            Input::Retain { agent, oldest } => {
                self.store(Pending::Retain(agent.clone()), Command::Retain { agent, oldest });
            }
            Input::Stored(id, result) => self.stored(now, id, result),
            Input::Followed { agent, first, events, epoch } => {
                self.followed(now, &agent, first, &events, &epoch);
            }
            Input::FollowBegun { resumed } => self.follow_begun(resumed),
            Input::FollowBroken => self.follow_broken(now),
            Input::EpochChanged(epoch) => self.epoch_changed(epoch),
            Input::LogWentBack => self.log_went_back(),
            Input::Timeout => self.timeout(now),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        while self.outputs.is_empty()
            && let Some((agent, now)) = self.unpumped.pop_first()
        {
            self.pump_all(now, &agent);
        }
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }
}

fn known<'a>(streams: &'a mut BTreeMap<AgentId, Stream>, agent: &AgentId) -> Option<&'a mut Known> {
    streams.get_mut(agent)?.known.as_mut()
}

/// Whether the cursor may be beyond what is known only because that lags behind a shared log.
fn is_beyond(known: &Known, resync: &Resync) -> bool {
    let is_foreign = |epoch| known.lineage.end_of(epoch, known.head).is_none();
    resync.last_seen_seq > known.head || resync.epoch.as_ref().is_some_and(is_foreign)
}

/// What is known to be lost after a cursor whose epoch ended at `end`.
fn lost_after(verdict: &Verdict, end: Option<u64>) -> Vec<Range> {
    let range = match (verdict, end) {
        (Verdict::TooOld { lost_from, lost_to, .. }, _) => Some((*lost_from, *lost_to)),
        (Verdict::Ahead { from, .. }, Some(end)) if *from > end + 1 => Some((end + 1, from - 1)),
        _ => None,
    };
    range.map(|(from, to)| Range { from, to }).into_iter().collect()
}

/// The base contract's cursor is a number without an epoch.
fn judge_without_epoch(last_seen: u64, oldest: u64, head: u64) -> Verdict {
    if last_seen > head {
        Verdict::Ahead { from: oldest, to: head }
    } else if last_seen + 1 < oldest {
        Verdict::TooOld { lost_from: last_seen + 1, lost_to: oldest - 1, from: oldest, to: head }
    } else if last_seen == head {
        Verdict::UpToDate
    } else {
        Verdict::Replay { from: last_seen + 1, to: head }
    }
}
