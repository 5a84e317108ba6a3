//! Names of connections, and why they end.

use std::fmt;

/// A connection, as whoever makes them numbers them: ascending, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Why a connection was closed by one side on purpose: the code of the WebSocket close frame.
///
/// The verdict for the client is the same for nearly all of them: reconnect with backoff and resume.
/// It is another one for [`SUPERSEDED`](Self::SUPERSEDED).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Done; nothing went wrong.
    pub const NORMAL: Self = Self(1000);
    /// The process is going away.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke WebSocket itself.
    pub const WEBSOCKET_PROTOCOL: Self = Self(1002);
    /// A text frame was not UTF-8.
    pub const NOT_TEXT: Self = Self(1007);
    /// More frames came than the limit allows.
    pub const TOO_MANY_FRAMES: Self = Self(1008);
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
    /// A newer connection of the same identity took its place: do not connect again by yourself.
    pub const SUPERSEDED: Self = Self(4005);
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialFailure {
    /// The server does not know the extension; the next attempt does not offer it.
    #[error("the server does not take the extension")]
    ExtensionRefused,
    /// The server refused with an HTTP status.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}
