//! The agent's side of the task protocol, without I/O.
//!
//! An [`Agent`] takes attempts, runs each once, streams what it writes, and keeps its result until
//! the controller has it. Whatever it says is in its store before it is said [TK-1]: so a
//! disconnect changes nothing but when it is said, and a crash nothing but what was running.
//!
//! It does not open sockets, start processes or touch a database: the driver does, and reports
//! back. Frames, replies and closings of a connection that has been replaced change nothing.

mod fallback;
mod runs;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use self::fallback::Fallback;
use self::runs::Runs;
use self::session::Link;
use super::store::{Command, Recovered, Reply};
use super::wire::{AgentMessage, ControllerMessage, Deliver, Envelope, Final, FrameError};
use super::{Attempt, MessageId, Outcome, OutputStream};
use crate::mark;
use crate::recovery::{
    Backoff, BackoffConfig, Entropy, Epoch, Instant, LivenessConfig, Timers, WallTime,
    random_hex_128,
};
use crate::storage::{StoreError, StoreId};
use crate::{CloseCode, ConnectionId, Ticket};

/// The limits and intervals of an agent. The defaults are those of the specification.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// What the agent calls itself in `client_version`.
    pub client_version: String,
    /// Whether the extension is offered.
    pub extension: bool,
    /// How many attempts run side by side: 1.
    pub parallel: usize,
    /// How many accepted attempts may wait for their turn: 16.
    pub queue_max: usize,
    /// How long a connection may take to open: 10 s.
    pub connect_timeout: Duration,
    /// How long the controller may take to answer the hello: 15 s.
    pub handshake_timeout: Duration,
    /// Pings, and how long to wait for a sign of life: 30 s, 10 s.
    pub liveness: LivenessConfig,
    /// The pauses between attempts to connect: 1 s to 5 min, ± 25 %.
    pub reconnect: BackoffConfig,
    /// How long no message may be acknowledged before the oldest is sent again: 30 s.
    pub ack_timeout: Duration,
    /// How often the oldest is sent again before the link is given up: 3.
    pub resends_max: u32,
    /// How many messages may be unacknowledged on a connection: 256.
    pub window_messages: usize,
    /// The same in bytes: 1 MiB.
    pub window_bytes: usize,
    /// How many messages are read from the store at once: 64.
    pub page_messages: usize,
    /// The same in bytes: 256 KiB.
    pub page_bytes: usize,
    /// The largest piece of output: 16 KiB.
    pub chunk_bytes: usize,
    /// How long output waits for more: 100 ms.
    pub flush_after: Duration,
    /// How much output of an attempt may wait for the store before its pipes are left alone: 1 MiB.
    pub buffer_bytes: usize,
    /// How many results a hello lists: 1,000.
    pub hello_finals_max: usize,
    /// How many runs of output a hello lists: 1,000.
    pub hello_ranges_max: usize,
    /// How large the results and runs of output of a hello are at most, in bytes: 256 KiB.
    pub hello_bytes_max: usize,
    /// How long the link is down before results go over HTTP, and tasks are asked for: 30 s.
    pub fallback_after: Duration,
    /// How often tasks are asked for while the link is down: 10 s.
    pub poll_every: Duration,
    /// How long an HTTP request may take: 10 s.
    pub request_timeout: Duration,
    /// The pauses between HTTP requests that fail: 1 s to 16 s.
    pub request_retry: BackoffConfig,
    /// How many commands may wait for the store before a controller that wants more is dropped:
    /// 8,192, which is more than a hello of every size leads to.
    pub waiting_max: usize,
    /// The pauses between attempts to store something: 100 ms to 5 s.
    pub store_retry: BackoffConfig,
}

impl Default for AgentConfig {
    fn default() -> Self {
        let backoff = |min_ms, max_s| BackoffConfig {
            min: Duration::from_millis(min_ms),
            max: Duration::from_secs(max_s),
            jitter_percent: 25,
        };
        Self {
            client_version: concat!("gapless/", env!("CARGO_PKG_VERSION")).to_owned(),
            extension: true,
            parallel: 1,
            queue_max: 16,
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(15),
            liveness: LivenessConfig {
                ping_every: Duration::from_secs(30),
                pong_timeout: Duration::from_secs(10),
            },
            reconnect: backoff(1_000, 300),
            ack_timeout: Duration::from_secs(30),
            resends_max: 3,
            window_messages: 256,
            window_bytes: 1 << 20,
            page_messages: 64,
            page_bytes: 256 << 10,
            chunk_bytes: 16 << 10,
            flush_after: Duration::from_millis(100),
            buffer_bytes: 1 << 20,
            hello_finals_max: 1_000,
            hello_ranges_max: 1_000,
            hello_bytes_max: 256 << 10,
            fallback_after: Duration::from_secs(30),
            poll_every: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            request_retry: backoff(1_000, 16),
            waiting_max: 8_192,
            store_retry: backoff(100, 5),
        }
    }
}

/// What can happen to an agent.
#[derive(Debug)]
pub enum Input {
    /// Begin.
    Start {
        /// The agent's wall clock.
        at: WallTime,
    },
    /// The connection is open.
    Opened {
        /// Which.
        conn: ConnectionId,
        /// The agent's wall clock.
        at: WallTime,
    },
    /// The connection could not be opened.
    DialFailed {
        /// Which.
        conn: ConnectionId,
        /// Why, for a person.
        reason: String,
    },
    /// A frame arrived.
    Frame {
        /// Where.
        conn: ConnectionId,
        /// What.
        frame: Envelope<ControllerMessage>,
        /// The agent's wall clock.
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
    /// The store answered.
    Stored(StoreId, Result<Reply, StoreError>),
    /// A command has written something.
    Wrote {
        /// Whose.
        attempt: Attempt,
        /// Where.
        stream: OutputStream,
        /// What.
        data: Bytes,
    },
    /// A command has ended; everything that it wrote has been reported.
    Exited {
        /// Whose.
        attempt: Attempt,
        /// How.
        exit: Exit,
    },
    /// An HTTP request for a result was answered, or was not.
    Posted {
        /// Which.
        ticket: Ticket,
        /// How.
        answer: Posted,
    },
    /// An HTTP request for tasks was answered, or was not.
    Polled {
        /// Which.
        ticket: Ticket,
        /// The tasks, or why there is no answer, for a person.
        answer: Result<Vec<Deliver>, String>,
        /// The agent's wall clock.
        at: WallTime,
    },
    /// Begin nothing more. What runs goes on, and so does everything else; told when it has ended by
    /// [`Notice::Idle`] and [`Notice::Drained`].
    Drain,
    /// Close, end what runs, and stay closed.
    Stop,
    /// The deadline has come.
    Timeout,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// How.
    pub outcome: Outcome,
    /// The exit code; -1 if there is none.
    pub exit_code: i64,
    /// What went wrong, if it did not run to its end by itself.
    pub error: String,
    /// Streams of which some could not be read.
    pub truncated: Vec<OutputStream>,
}

/// The answer to a result over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// The controller has it.
    Accepted,
    /// The controller will never take it.
    Refused(String),
    /// Nobody knows; it is to be sent again over the same channel [TK-13].
    Unknown(String),
}

/// What an agent wants done.
#[derive(Debug)]
pub enum Output {
    /// Open a connection.
    Dial {
        /// The new connection.
        conn: ConnectionId,
    },
    /// Send a message.
    Send {
        /// Where.
        conn: ConnectionId,
        /// Its name.
        message_id: MessageId,
        /// What.
        message: AgentMessage,
        /// Whether fields of the extension may be used.
        extension: bool,
    },
    /// Send a WebSocket ping; confirmed by [`Input::PingWritten`].
    Ping {
        /// Where.
        conn: ConnectionId,
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
    /// Run a storage command; answered by [`Input::Stored`].
    Store(StoreId, Command),
    /// Run a command; answered by [`Input::Wrote`] and [`Input::Exited`].
    Run {
        /// Whose.
        attempt: Attempt,
        /// What.
        command: String,
    },
    /// Read what a command writes, or leave it in the pipe.
    Listen {
        /// Whose.
        attempt: Attempt,
        /// Whether to read.
        on: bool,
    },
    /// End a command and everything that it started.
    Kill {
        /// Whose.
        attempt: Attempt,
    },
    /// Send a result over HTTP; answered by [`Input::Posted`].
    Post {
        /// Names the request.
        ticket: Ticket,
        /// The name of the message.
        message_id: MessageId,
        /// The result.
        result: Final,
    },
    /// Ask for tasks over HTTP; answered by [`Input::Polled`].
    Poll {
        /// Names the request.
        ticket: Ticket,
    },
    /// Tell the operator.
    Notify(Notice),
}

/// What the operator is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The store is open; these were interrupted by the end of the last life.
    Recovered {
        /// The attempts.
        interrupted: Vec<Attempt>,
    },
    /// Both sides agree on what there is.
    Active,
    /// A connection could not be opened or was lost; the next attempt follows after a pause.
    Disconnected {
        /// Why, for a person.
        reason: String,
        /// The pause.
        retry_in: Duration,
    },
    /// An attempt was not accepted [TK-6].
    Refused {
        /// Which.
        attempt: Attempt,
        /// One of [`codes`](super::wire::codes).
        code: &'static str,
    },
    /// The controller will never take a message; it is passed over [TK-10].
    Quarantined {
        /// The message.
        message_id: MessageId,
        /// Why, for a person.
        reason: String,
    },
    /// The controller does not follow a stream behind a hole; it stops on this connection [TK-10].
    StreamStopped {
        /// Whose.
        attempt: Attempt,
        /// Which.
        stream: OutputStream,
    },
    /// Another copy of the store has taken this agent's place: it is not served any more.
    Forked {
        /// What the controller says.
        reason: String,
    },
    /// The store failed; what was to be stored is tried again.
    StoreFailed {
        /// Why.
        error: String,
    },
    /// A frame was ignored [CORE-13].
    Ignored {
        /// What is wrong with it.
        error: FrameError,
    },
    /// After [`Input::Drain`]: nothing runs any more, and everything that came of it is stored.
    Idle,
    /// After [`Notice::Idle`]: the controller has acknowledged everything as well.
    Drained,
}

impl fmt::Display for Notice {
    /// In one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovered { interrupted } => {
                let names: Vec<_> = interrupted.iter().map(ToString::to_string).collect();
                write!(f, "opens its store; interrupted: {}", names.join(", "))
            }
            Self::Active => f.write_str("agrees with the controller"),
            Self::Disconnected { reason, retry_in } => {
                write!(f, "disconnected: {reason}; again in {} ms", retry_in.as_millis())
            }
            Self::Refused { attempt, code } => write!(f, "does not take {attempt}: {code}"),
            Self::Quarantined { message_id, reason } => {
                write!(f, "passes over {}: {reason}", message_id.as_str())
            }
            Self::StreamStopped { attempt, stream } => {
                write!(f, "stops {} of {attempt}", stream.as_str())
            }
            Self::Forked { reason } => write!(f, "is not served any more: {reason}"),
            Self::StoreFailed { error } => write!(f, "the store failed: {error}"),
            Self::Ignored { error } => write!(f, "ignores a frame: {error}"),
            Self::Idle => f.write_str("runs nothing any more"),
            Self::Drained => f.write_str("has said everything"),
        }
    }
}

/// The agent's core. See the [module](self).
pub struct Agent {
    config: AgentConfig,
    entropy: Box<dyn Entropy>,
    phase: Phase,
    /// The agent's wall clock, when it was last seen. For people only.
    wall: (Instant, WallTime),
    link: Link,
    connections: u64,
    reconnect: Backoff,
    /// Both sides have agreed on what there is since the agent started, and nothing that they agreed
    /// on has been left undone since [TK-8].
    reconciled: bool,
    /// Another copy of the store has taken this agent's place: it takes nothing new.
    forked: bool,
    runs: Runs,
    draining: Draining,
    fallback: Fallback,
    /// The highest row that the store is known to have given.
    newest_row: u64,
    /// Acknowledgements that could not be stored.
    unreleased: Vec<Command>,
    pending: BTreeMap<StoreId, Pending>,
    store_ids: u64,
    store_retry: Backoff,
    tickets: u64,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Not started.
    New,
    /// The store is being asked what there is. The epoch stays the same when it is asked again.
    Recovering(Epoch),
    Ready {
        life: super::wire::StoreLife,
    },
    Stopped,
}

/// How far an agent is that begins nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draining {
    /// It begins what there is.
    No,
    /// Something runs.
    Busy,
    /// Nothing runs, and the controller may not have everything.
    Idle,
    /// It was told that there is nothing left to wait for.
    Done,
}

/// What a storage command was for.
#[derive(Debug, Clone)]
enum Pending {
    Recover,
    /// Somebody wants the attempt to be made.
    Receive(Delivery),
    /// As `Receive`, while there is no room in the queue.
    Find(Delivery),
    Start(Attempt),
    Append(Attempt),
    Finish(Attempt),
    /// An acknowledgement, or a message that is passed over; repeated until it is stored.
    Release(Command),
    /// For the hello of a connection.
    Snapshot(ConnectionId),
    /// What a `hello_ack` says, to be stored before the connection is active.
    Apply(ConnectionId),
    /// The same, of the attempts that are not to be begun.
    Discard(ConnectionId, Vec<Attempt>),
    /// A page for the pump of a connection.
    Page(ConnectionId),
    /// A message that was not acknowledged in time.
    Resend(ConnectionId, u64),
    /// What became of an attempt, for whoever asked for something that cannot be done any more.
    Tell(ConnectionId, Attempt),
    /// What became of an attempt, for a controller that asks by this message.
    Query(ConnectionId, Attempt, MessageId),
    /// Ends of streams that were given up.
    LostEnds(ConnectionId),
    /// Results for HTTP.
    Finals,
}

/// Who wants an attempt to be made.
#[derive(Debug, Clone, PartialEq)]
struct Delivery {
    deliver: Deliver,
    /// The message that said so; `None` over HTTP.
    message_id: Option<MessageId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The connection does not open.
    Connect,
    /// The controller does not answer the hello.
    Handshake,
    /// Time to connect again.
    Reconnect,
    /// Nothing is acknowledged.
    Ack,
    /// Output that was held back by the controller's wish is due.
    Withheld,
    /// Time to look for ends of streams that were given up.
    LostEnds,
    /// Time to take up the streams again that the controller did not follow.
    Stopped,
    /// The link has been down for long.
    Fallback,
    /// Time to ask for tasks.
    Poll,
    /// An HTTP request takes too long.
    PostTimeout,
    PollTimeout,
    /// Time to send a result over HTTP again.
    Post,
    /// Time to store again what could not be stored.
    Store,
}

impl Agent {
    /// An agent that does nothing until [`Input::Start`].
    pub fn new(config: AgentConfig, entropy: Box<dyn Entropy>) -> Self {
        Self {
            phase: Phase::New,
            wall: (Instant::from_millis(0), WallTime::from_millis(0)),
            link: Link::Down,
            connections: 0,
            reconnect: Backoff::new(config.reconnect),
            reconciled: false,
            forked: false,
            runs: Runs::default(),
            draining: Draining::No,
            fallback: Fallback::new(config.request_retry),
            newest_row: 0,
            unreleased: Vec::new(),
            pending: BTreeMap::new(),
            store_ids: 0,
            store_retry: Backoff::new(config.store_retry),
            tickets: 0,
            timers: Timers::default(),
            outputs: VecDeque::new(),
            config,
            entropy,
        }
    }

    fn wall(&self, now: Instant) -> WallTime {
        let (then, at) = self.wall;
        let since = i64::try_from(now.saturating_since(then).as_millis()).unwrap_or(i64::MAX);
        WallTime::from_millis(at.as_millis().saturating_add(since))
    }

    fn store(&mut self, pending: Pending, command: Command) {
        self.store_ids += 1;
        let id = StoreId(self.store_ids);
        self.pending.insert(id, pending);
        self.outputs.push_back(Output::Store(id, command));
    }

    fn notify(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notify(notice));
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn message_id(&mut self) -> MessageId {
        let id = random_hex_128(&mut *self.entropy);
        MessageId::parse(&id).expect("32 digits are a message id")
    }

    // ---- life --------------------------------------------------------------------------------

    fn start(&mut self, now: Instant) {
        if self.phase == Phase::New {
            let epoch = Epoch::random(&mut *self.entropy);
            self.phase = Phase::Recovering(epoch);
            self.recover(now);
        }
    }

    fn recover(&mut self, now: Instant) {
        if let Phase::Recovering(epoch) = &self.phase {
            let epoch = epoch.clone();
            let at = self.wall(now);
            self.store(Pending::Recover, Command::Recover { epoch, at });
        }
    }

    fn recovered(&mut self, now: Instant, recovered: Recovered) {
        let Phase::Recovering(_) = self.phase else { return };
        self.phase = Phase::Ready { life: recovered.life };
        if !recovered.interrupted.is_empty() {
            mark!("tasks.interrupted_by_restart");
        }
        for receipt in recovered.received {
            mark!("tasks.received_before_restart");
            self.runs.accept(receipt.attempt, receipt.command, receipt.priority, false);
        }
        self.notify(Notice::Recovered { interrupted: recovered.interrupted });
        self.dial(now);
        self.link_is_down(now);
    }

    fn drain(&mut self) {
        if self.draining == Draining::No {
            self.draining = Draining::Busy;
        }
    }

    /// Tells how far an agent is that begins nothing more.
    fn tell_drained(&mut self) {
        if self.draining == Draining::Busy && self.runs.are_over() {
            self.draining = Draining::Idle;
            self.notify(Notice::Idle);
        }
        if self.draining == Draining::Idle && self.link.has_said_all(self.newest_row) {
            self.draining = Draining::Done;
            self.notify(Notice::Drained);
        }
    }

    fn stop(&mut self) {
        self.phase = Phase::Stopped;
        if let Some(conn) = self.link.connection() {
            let (code, reason) = (CloseCode::NORMAL, "stopped");
            self.outputs.push_back(Output::Close { conn, code, reason });
        }
        self.link = Link::Down;
        for attempt in self.runs.running() {
            self.outputs.push_back(Output::Kill { attempt });
        }
        self.timers = Timers::default();
    }

    // ---- the store ---------------------------------------------------------------------------

    fn stored(&mut self, now: Instant, id: StoreId, result: Result<Reply, StoreError>) {
        let Some(pending) = self.pending.remove(&id) else { return };
        if self.phase == Phase::Stopped {
            return;
        }
        match result {
            Ok(reply) => {
                self.replied(now, pending, reply);
            }
            Err(error) => self.not_stored(now, pending, &error),
        }
    }

    fn replied(&mut self, now: Instant, pending: Pending, reply: Reply) {
        match (pending, reply) {
            (Pending::Recover, Reply::Recovered(recovered)) => self.recovered(now, recovered),
            (Pending::Receive(delivery), Reply::Received(received)) => {
                self.received(now, delivery, received);
            }
            (Pending::Find(delivery), Reply::Found(known)) => self.found(now, delivery, known),
            (Pending::Start(attempt), Reply::Started(started)) => {
                self.started(now, &attempt, started);
            }
            (Pending::Append(attempt), Reply::Appended(appended)) => {
                self.appended(now, &attempt, Some(appended));
            }
            (Pending::Finish(attempt), Reply::Finished(stored)) => {
                self.finished(now, &attempt, stored);
            }
            (Pending::Release(_), Reply::Released(_)) => {}
            (Pending::Snapshot(conn), Reply::Snapshot(snapshot)) => {
                self.greet(now, conn, snapshot);
            }
            (Pending::Apply(conn), Reply::Released(_)) => self.applied(now, conn),
            (Pending::Discard(conn, wanted), Reply::Discarded(gone)) => {
                self.discarded(now, conn, &wanted, &gone);
            }
            (Pending::Page(conn), Reply::Outbox(messages)) => self.page(now, conn, messages),
            (Pending::Resend(conn, row), Reply::Outbox(messages)) => {
                self.resend(now, conn, row, messages);
            }
            (Pending::Tell(conn, attempt), Reply::Found(known)) => {
                self.tell_state(conn, &attempt, known);
            }
            (Pending::Query(conn, attempt, asked), Reply::Found(known)) => {
                self.answer_query(conn, &attempt, known, &asked);
            }
            (Pending::LostEnds(conn), Reply::LostEnds(ends)) => self.say_lost(conn, ends),
            (Pending::Finals, Reply::Snapshot(snapshot)) => {
                self.finals_for_http(now, snapshot.finals);
            }
            (pending, reply) => {
                tracing::error!(?pending, ?reply, "the store answered something else");
                let error = StoreError::Unknown("the store answered something else".to_owned());
                self.not_stored(now, pending, &error);
            }
        }
    }

    /// What a failed transaction was for is tried again, each in its own way. Nobody is told
    /// anything that depends on it.
    fn not_stored(&mut self, now: Instant, pending: Pending, error: &StoreError) {
        mark!("tasks.not_stored");
        self.notify(Notice::StoreFailed { error: error.to_string() });
        if let Pending::Discard(_, attempts) = &pending {
            mark!("tasks.discard_not_stored");
            self.runs.hold_back(attempts);
            self.reconciled = false;
        }
        match pending {
            Pending::Recover | Pending::Start(_) | Pending::Finish(_) => {}
            Pending::Append(attempt) => self.appended(now, &attempt, None),
            // Whoever wants it says so again.
            Pending::Receive(delivery) => self.runs.forget(&delivery.deliver.attempt),
            Pending::Find(delivery) => self.runs.forget(&delivery.deliver.attempt),
            Pending::Tell(..) | Pending::Query(..) | Pending::LostEnds(_) => {}
            Pending::Release(command) => self.unreleased.push(command),
            Pending::Snapshot(conn)
            | Pending::Apply(conn)
            | Pending::Discard(conn, _)
            | Pending::Page(conn)
            | Pending::Resend(conn, _) => {
                if self.link.connection() == Some(conn) {
                    self.drop_link(now, CloseCode::GOING_AWAY, "the store failed");
                }
            }
            Pending::Finals => self.http_later(now),
        }
        if self.timers.get(Timer::Store).is_none() {
            let delay = self.store_retry.next_delay(&mut *self.entropy);
            self.timers.set(Timer::Store, now + delay);
        }
    }

    /// Time to store again what could not be stored.
    fn store_again(&mut self, now: Instant) {
        mark!("tasks.stored_again");
        let waits = |pending: &Pending| matches!(pending, Pending::Recover);
        if !self.pending.values().any(waits) {
            self.recover(now);
        }
        for command in std::mem::take(&mut self.unreleased) {
            self.release(command);
        }
        self.runs_again(now);
    }

    /// Lets go of a message.
    fn release(&mut self, command: Command) {
        self.store(Pending::Release(command.clone()), command);
    }

    // ---- time --------------------------------------------------------------------------------

    fn timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::Connect => {
                    mark!("tasks.connect_timed_out");
                    self.drop_link(now, CloseCode::NORMAL, "the connection did not open in time");
                }
                Timer::Handshake => {
                    mark!("tasks.handshake_timed_out");
                    self.drop_link(now, CloseCode::SILENT, "the hello was not answered in time");
                }
                Timer::Reconnect => self.dial(now),
                Timer::Ack => self.ack_timed_out(now),
                Timer::Withheld => self.send_withheld(now),
                Timer::LostEnds => self.look_for_lost_ends(now),
                Timer::Stopped => self.take_up_stopped(),
                Timer::Fallback => self.fall_back(now),
                Timer::Poll => self.poll_for_tasks(now),
                Timer::PostTimeout => self.post_timed_out(now),
                Timer::PollTimeout => self.poll_timed_out(now),
                Timer::Post => self.ask_for_finals(),
                Timer::Store => self.store_again(now),
            }
        }
        self.flush_due(now);
        self.check_liveness(now);
    }
}

impl crate::Core for Agent {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        if let Input::Start { at }
        | Input::Opened { at, .. }
        | Input::Frame { at, .. }
        | Input::Polled { at, .. } = &input
        {
            self.wall = (now, *at);
        }
        match input {
            Input::Start { .. } => self.start(now),
            Input::Opened { conn, .. } => self.opened(now, conn),
            Input::DialFailed { conn, reason } => self.dial_failed(now, conn, reason),
            Input::Frame { conn, frame, .. } => self.frame(now, conn, frame),
            Input::Malformed { conn, error } => {
                if self.heard(now, conn) {
                    mark!("tasks.malformed_frame_ignored");
                    self.notify(Notice::Ignored { error });
                }
            }
            Input::Alive { conn } => {
                self.heard(now, conn);
            }
            Input::PingWritten { conn } => self.ping_written(now, conn),
            Input::Closed { conn, code } => self.closed(now, conn, code),
            Input::Stored(id, result) => self.stored(now, id, result),
            Input::Wrote { attempt, stream, data } => self.wrote(now, &attempt, stream, &data),
            Input::Exited { attempt, exit } => self.exited(now, &attempt, exit),
            Input::Posted { ticket, answer } => self.posted(now, ticket, answer),
            Input::Polled { ticket, answer, .. } => self.polled(now, ticket, answer),
            Input::Drain => self.drain(),
            Input::Stop => self.stop(),
            Input::Timeout => self.timeout(now),
        }
        if self.draining == Draining::No {
            self.run_next(now);
        }
        self.pump(now);
        self.tell_drained();
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        [self.timers.next(), self.runs.flush_at(), self.link.liveness_deadline()]
            .into_iter()
            .flatten()
            .min()
    }
}
