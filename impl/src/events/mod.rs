//! Event streams: server to client, with resync from a ring and a durable log.
//!
//! Every agent has one stream. The server numbers its events from 1, stores them, and sends them
//! to each of the agent's connections; a client that comes back names the last event that it has
//! *applied* and gets everything after it before anything newer.
//!
//! The protocol is written down, statement by statement, in `docs/spec/events.md`. The modules:
//!
//! * [`wire`]: the frames of the base contract and of the extension;
//! * [`log`]: what the server asks of its durable log;
//! * [`server`] and [`client`]: the two sans-IO cores;
//! * `sqlite`: the log and the client's cursor on SQLite (feature `sqlite`);
//! * `driver`: the cores over sockets, and publishing over HTTP (feature `net`).

pub mod client;
#[cfg(feature = "net")]
pub mod driver;
pub mod log;
pub mod server;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod wire;

use std::fmt;
use std::sync::Arc;

/// Whose stream it is: 1 to 128 printable ASCII characters without spaces or `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(Arc<str>);

/// The text is no agent id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an agent id has 1 to 128 printable ASCII characters, no space and no `/`; got {0:?}")]
pub struct InvalidAgentId(String);

impl AgentId {
    /// The longest id, in bytes.
    pub const LENGTH_MAX: usize = 128;

    /// Checks and takes the text of an id.
    ///
    /// # Errors
    ///
    /// [`InvalidAgentId`] if the text is empty, too long, or has other characters.
    pub fn parse(text: &str) -> Result<Self, InvalidAgentId> {
        let fits = (1..=Self::LENGTH_MAX).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
            Ok(Self(text.into()))
        } else {
            Err(InvalidAgentId(text.chars().take(Self::LENGTH_MAX).collect()))
        }
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentId({})", self.0)
    }
}

/// A connection, as whoever makes them numbers them: ascending, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Something that is out of the core's hands and will be answered: a publisher's request at the
/// server, an event that is with the application at the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A storage command that waits for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

/// Why a connection was closed by one side on purpose: the code of the WebSocket close frame.
///
/// The verdict for the client is the same for all of them: reconnect with backoff and resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Done; nothing went wrong.
    pub const NORMAL: Self = Self(1000);
    /// The process is going away.
    pub const GOING_AWAY: Self = Self(1001);
    /// A frame or message was larger than the limit.
    pub const TOO_BIG: Self = Self(1009);
    /// The server cannot serve the stream now.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// The reader fell too far behind, or retention passed it: connect again and resume.
    pub const RESUME: Self = Self(4001);
    /// The agent opened more sockets than allowed; this was the oldest.
    pub const TOO_MANY_SOCKETS: Self = Self(4002);
    /// Nothing was heard for too long.
    pub const SILENT: Self = Self(4003);
    /// The peer broke the protocol in a way that leaves no common state.
    pub const PROTOCOL: Self = Self(4004);
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
