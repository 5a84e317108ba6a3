//! What implementations of the task protocol are configured with.

use std::collections::BTreeMap;

use gapless::tasks::OutputStream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an agent is configured with. Who runs tasks, and cannot be told one of the limits, leaves it
/// as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TasksAgentConfig {
    /// Where the controller is: `http://controller`. The WebSocket is at `/api/v1/agents/ws` of it,
    /// requests go to `/api/v1/tasks/…` and `/api/v1/agents/…`.
    pub base_url: String,
    /// Who the agent is: `agent-1`.
    pub agent: String,
    /// Signs handshakes and requests: see `docs/spec/tasks.md`.
    pub key: SigningKey,
    /// Whether the extension is to be offered.
    pub extension: bool,
    /// How many attempts run side by side.
    pub parallel: usize,
    /// How many accepted attempts may wait for their turn.
    pub queue_max: usize,
    /// How long the controller may take to answer the hello, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// Between pings, in milliseconds.
    pub ping_every_ms: u64,
    /// How long a ping may stay without any sign of life, in milliseconds.
    pub pong_timeout_ms: u64,
    /// The shortest and longest pause before connecting again, in milliseconds.
    pub reconnect_ms: (u64, u64),
    /// How long no message may be acknowledged before the oldest is sent again, in milliseconds.
    pub ack_timeout_ms: u64,
    /// How many messages may be unacknowledged on a connection.
    pub window_messages: usize,
    /// How many messages are read from the store at once.
    pub page_messages: usize,
    /// The largest piece of output, in bytes.
    pub chunk_bytes: usize,
    /// How long output waits for more, in milliseconds.
    pub flush_after_ms: u64,
    /// How much output of an attempt may wait for the store, in bytes.
    pub buffer_bytes: usize,
    /// How many results a hello lists.
    pub hello_finals_max: usize,
    /// How many runs of output a hello lists.
    pub hello_ranges_max: usize,
    /// How large the results and runs of output of a hello are at most, in bytes.
    pub hello_bytes_max: usize,
    /// How long the link is down before results go over HTTP, and tasks are asked for, in
    /// milliseconds.
    pub fallback_after_ms: u64,
    /// How often tasks are asked for while the link is down, in milliseconds.
    pub poll_every_ms: u64,
    /// How long a request over HTTP may take, in milliseconds.
    pub request_timeout_ms: u64,
    /// How much the store may take, in bytes.
    pub spool_cap_bytes: u64,
    /// How much room is kept for the result of each attempt that has not ended, in bytes.
    pub terminal_reserve_bytes: u64,
    /// How many attempts are remembered after their result was acknowledged.
    pub finished_max: u64,
}

/// What a controller is configured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TasksControllerConfig {
    /// The agents, and with what their signatures are checked.
    pub agents: BTreeMap<String, PublicKey>,
    /// The bearer token of those who want tasks done.
    pub submitter_token: String,
    /// Whether the extension is to be taken up.
    pub extension: bool,
    /// How long an agent may say nothing, in milliseconds.
    pub silence_ms: u64,
    /// The shortest and longest pause before an attempt is delivered again, in milliseconds.
    pub redelivery_ms: (u64, u64),
    /// How many attempts are on their way to one agent.
    pub deliveries_max: usize,
}

/// Signs in the name of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum SigningKey {
    /// RSA-PSS with SHA-256 and a salt of 32 bytes, as the contract has it.
    RsaPss {
        /// The private key: PKCS#8, PEM.
        pem: String,
    },
    /// A stand-in that costs nothing, only for implementations with the feature `sign.fnv1a`: the
    /// signature is the FNV-1a hash, of 64 bits in 8 bytes, the highest first, of the secret
    /// followed by the text that is to be signed.
    #[serde(rename = "fnv1a")]
    Fnv1a {
        /// The secret, in base64.
        secret: String,
    },
}

/// Checks the signatures of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum PublicKey {
    /// As [`SigningKey::RsaPss`].
    RsaPss {
        /// The public key: PKCS#1, PEM.
        pem: String,
    },
    /// As [`SigningKey::Fnv1a`].
    #[serde(rename = "fnv1a")]
    Fnv1a {
        /// The secret, in base64.
        secret: String,
    },
}

/// A stream of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl From<OutputStream> for Stream {
    fn from(stream: OutputStream) -> Self {
        match stream {
            OutputStream::Stdout => Self::Stdout,
            OutputStream::Stderr => Self::Stderr,
        }
    }
}

impl From<Stream> for OutputStream {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self::Stdout,
            Stream::Stderr => Self::Stderr,
        }
    }
}
