//! The options of both sides of a protocol: those of their configuration that scenarios vary.

use serde::{Deserialize, Serialize};

use serde_json::{Map, Value};

use super::Protocol;
use crate::custom::Custom;

/// The options of both sides of a protocol: those of their configuration that scenarios vary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Options {
    /// Of event streams.
    Events {
        /// The server's.
        server: ServerOptions,
        /// The clients'.
        client: ClientOptions,
    },
    /// Of tasks.
    Tasks {
        /// The controller's.
        controller: ControllerOptions,
        /// The agents'.
        agent: AgentOptions,
    },
    /// Of sessions.
    Session {
        /// The server's.
        server: SessionServerOptions,
        /// The clients'.
        client: SessionClientOptions,
    },
    /// Of a protocol that the user brought.
    Custom {
        /// Which.
        protocol: Custom,
        /// The server's.
        server: Map<String, Value>,
        /// The clients'.
        client: Map<String, Value>,
    },
}

impl Options {
    /// Whose options they are.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Events { .. } => Protocol::Events,
            Self::Tasks { .. } => Protocol::Tasks,
            Self::Session { .. } => Protocol::Session,
            Self::Custom { protocol, .. } => Protocol::Custom(*protocol),
        }
    }
}

/// The server's options: those of its configuration that scenarios vary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerOptions {
    /// Whether it offers the extension.
    pub extension: bool,
    /// Events per stream in memory.
    pub ring: usize,
    /// How long live events wait for a `resync`.
    pub resync_grace_ms: u64,
    /// Frames on their way to a socket.
    pub window_frames: usize,
    /// How long a socket may take nothing.
    pub write_stall_ms: u64,
    /// How long a client may say nothing.
    pub silence_ms: u64,
    /// Events per stream in the log; absent = all.
    pub retain_events: Option<u64>,
    /// Events per page of the log.
    pub page_events: usize,
    /// Virtual time that a commit takes.
    pub commit_ms: u64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            extension: true,
            ring: 500,
            resync_grace_ms: 2_000,
            window_frames: 64,
            write_stall_ms: 30_000,
            silence_ms: 75_000,
            retain_events: None,
            page_events: 256,
            commit_ms: 2,
        }
    }
}

/// The clients' options: those of their configuration that scenarios vary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientOptions {
    /// Whether they offer the extension.
    pub extension: bool,
    /// Whether they begin with the oldest event instead of the first new one.
    pub from_beginning: bool,
    /// Between pings.
    pub ping_every_ms: u64,
    /// How long a ping may stay without any sign of life.
    pub pong_timeout_ms: u64,
    /// Shortest and longest pause before connecting again.
    pub reconnect_ms: (u64, u64),
    /// Events that may wait for the application.
    pub queue_events: usize,
    /// How often an event is offered to a failing handler.
    pub offers_max: u32,
    /// How long an open handler takes.
    pub open_handler_ms: u64,
    /// How long a handler takes for an event.
    pub handler_ms: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            extension: true,
            from_beginning: false,
            ping_every_ms: 30_000,
            pong_timeout_ms: 10_000,
            reconnect_ms: (1_000, 30_000),
            queue_events: 256,
            offers_max: 5,
            open_handler_ms: 0,
            handler_ms: 0,
        }
    }
}

/// The controller's options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerOptions {
    /// Whether it takes up the extension.
    pub extension: bool,
    /// How long an agent may say nothing.
    pub silence_ms: u64,
    /// Shortest and longest pause before an attempt is delivered again.
    pub redelivery_ms: (u64, u64),
    /// Attempts on their way to one agent.
    pub deliveries: usize,
    /// Virtual time that a commit takes.
    pub commit_ms: u64,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            extension: true,
            silence_ms: 90_000,
            redelivery_ms: (5_000, 60_000),
            deliveries: 64,
            commit_ms: 2,
        }
    }
}

/// The agents' options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentOptions {
    /// Whether they offer the extension.
    pub extension: bool,
    /// Attempts that run side by side.
    pub parallel: usize,
    /// Accepted attempts that may wait.
    pub queue: usize,
    /// How long the controller may take to answer a hello.
    pub handshake_ms: u64,
    /// Between pings.
    pub ping_every_ms: u64,
    /// How long a ping may stay without any sign of life.
    pub pong_timeout_ms: u64,
    /// Shortest and longest pause before connecting again.
    pub reconnect_ms: (u64, u64),
    /// How long nothing may be acknowledged before the oldest message is sent again.
    pub ack_timeout_ms: u64,
    /// Messages that may be unacknowledged on a connection.
    pub window: usize,
    /// Messages that are read from the store at once.
    pub page: usize,
    /// The largest piece of output.
    pub chunk_bytes: usize,
    /// How long output waits for more.
    pub flush_ms: u64,
    /// Output of an attempt that may wait for the store.
    pub buffer_bytes: usize,
    /// Results, and runs of output, that a hello lists.
    pub hello_max: usize,
    /// How long the link is down before results go over HTTP.
    pub fallback_ms: u64,
    /// What the store may take on the disk.
    pub spool_bytes: u64,
    /// What is kept of it for the result of each attempt.
    pub reserve_bytes: u64,
    /// Ended attempts that are remembered after their result was acknowledged.
    pub finished: u64,
    /// Virtual time that a commit takes.
    pub commit_ms: u64,
    /// Whether requests are signed and checked with RSA-PSS instead of with a cheap stand-in.
    pub rsa: bool,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            extension: true,
            parallel: 1,
            queue: 16,
            handshake_ms: 15_000,
            ping_every_ms: 30_000,
            pong_timeout_ms: 10_000,
            reconnect_ms: (1_000, 300_000),
            ack_timeout_ms: 30_000,
            window: 256,
            page: 64,
            chunk_bytes: 4 << 10,
            flush_ms: 100,
            buffer_bytes: 64 << 10,
            hello_max: 1_000,
            fallback_ms: 30_000,
            spool_bytes: 4 << 20,
            reserve_bytes: 64 << 10,
            finished: 1_000,
            commit_ms: 2,
            rsa: false,
        }
    }
}

/// The options of a server of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionServerOptions {
    /// Whether it offers the extension.
    pub extension: bool,
    /// Frames of each outbox in memory.
    pub ring: usize,
    /// The same in bytes.
    pub ring_bytes: usize,
    /// How long a frame is kept.
    pub ring_age_ms: u64,
    /// How often age and idleness are looked at.
    pub prune_every_ms: u64,
    /// How long an outbox without a connection is kept.
    pub idle_max_ms: u64,
    /// How many outboxes there are at most.
    pub outboxes: usize,
    /// Between pings; a client may be silent for twice as long after one.
    pub ping_every_ms: u64,
    /// Frames on their way to a socket.
    pub window_frames: usize,
    /// How long a socket may take nothing.
    pub write_stall_ms: u64,
    /// Rows of a history.
    pub history_messages: usize,
    /// The same in bytes.
    pub history_bytes: usize,
    /// Messages that may wait for their turn.
    pub queue: usize,
    /// Inputs of a conversation that may wait for the store.
    pub inputs: usize,
    /// Turns that may run at once, of all conversations.
    pub turns: usize,
    /// The longest input.
    pub text_bytes: usize,
    /// Rows of a conversation that are kept.
    pub retain_rows: u64,
    /// Virtual time that a commit takes.
    pub commit_ms: u64,
}

impl Default for SessionServerOptions {
    fn default() -> Self {
        Self {
            extension: true,
            ring: 500,
            ring_bytes: 1 << 20,
            ring_age_ms: 300_000,
            prune_every_ms: 60_000,
            idle_max_ms: 3_600_000,
            outboxes: 20_000,
            ping_every_ms: 25_000,
            window_frames: 64,
            write_stall_ms: 30_000,
            history_messages: 200,
            // No message in the world is longer.
            history_bytes: 8 << 10,
            queue: 10,
            inputs: 64,
            turns: 1_024,
            text_bytes: 4 << 10,
            retain_rows: 100_000,
            commit_ms: 2,
        }
    }
}

/// The options of a client of sessions, and of the user in front of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionClientOptions {
    /// Whether they offer the extension.
    pub extension: bool,
    /// Whether all clients of a user call themselves the same, as the tabs of a browser that share
    /// what they store.
    pub shared_id: bool,
    /// How long a connection may take to open.
    pub connect_ms: u64,
    /// How often the server is expected to send a ping.
    pub ping_every_ms: u64,
    /// Shortest and longest pause before connecting again.
    pub reconnect_ms: (u64, u64),
    /// How often what was applied is acknowledged.
    pub ack_every_ms: u64,
    /// How long a verdict may take before an input is sent again.
    pub ack_timeout_ms: u64,
    /// Inputs that may be in flight.
    pub in_flight: usize,
    /// How long after opening inputs are sent to a base server.
    pub base_grace_ms: u64,
    /// Rows that a view holds.
    pub messages: usize,
    /// How long the user thinks before an answer to a question.
    pub answer_ms: u64,
    /// Virtual time that a commit takes.
    pub commit_ms: u64,
}

impl Default for SessionClientOptions {
    fn default() -> Self {
        Self {
            extension: true,
            shared_id: false,
            connect_ms: 10_000,
            ping_every_ms: 25_000,
            reconnect_ms: (1_000, 10_000),
            ack_every_ms: 5_000,
            ack_timeout_ms: 30_000,
            in_flight: 32,
            base_grace_ms: 1_000,
            messages: 1_000,
            answer_ms: 2_000,
            commit_ms: 2,
        }
    }
}
