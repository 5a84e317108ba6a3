//! The server's side of the session protocol, without I/O.
//!
//! One [`Server`] holds every conversation that is in use, an outbox for every client that is or
//! was connected lately, and every connection. Each connection has one *pump*: a send cursor that
//! reads from the ring of its outbox, so nothing newer can overtake a replay, and a slow reader
//! costs no memory [SE-4].
//!
//! It does not parse frames, authenticate, run the application, or keep time: the driver does. It
//! shows a row, or acknowledges an input, only when the store has said that it is durable [SE-3].

use std::time::Duration;

use super::conversation::{Command, Ending, Reply, Row, Saying};
use super::wire::{ClientFrame, FrameError, Notice, ServerFrame};
use super::{CloseCode, ConnectionId, Identity, StoreId, Turn};
use crate::recovery::{BackoffConfig, Entropy, Epoch, Instant, LivenessConfig, RingLimits};
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
    /// The same in bytes: 256 KiB. The newest row is in it in any case.
    pub history_bytes: usize,
    /// How many messages may wait for their turn: 10.
    pub queue_max: usize,
    /// How many inputs of a conversation may wait for the store: 64.
    pub inputs_max: usize,
    /// The longest input, text and attachments, in bytes: 64 KiB.
    pub text_bytes_max: usize,
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
            history_bytes: 256 << 10,
            queue_max: 10,
            inputs_max: 64,
            text_bytes_max: 64 << 10,
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
    /// Whether the row is shown. A row that is not shown still takes effect.
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
}

impl Server {
    /// A server. Drain [`poll`](crate::Core::poll) once before the first input: the command that
    /// recovers the store is waiting.
    pub fn new(
        config: ServerConfig,
        presentation: Box<dyn Presentation>,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        let _ = (presentation, entropy);
        Self { config }
    }

    /// The configuration that the server was made with.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }
}

impl crate::Core for Server {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, _now: Instant, _input: Input) {
        todo!()
    }

    fn poll(&mut self) -> Option<Output> {
        todo!()
    }

    fn deadline(&self) -> Option<Instant> {
        todo!()
    }
}
