//! Sessions: a conversation between a user's clients and an application, over links that break.
//!
//! The server keeps the conversation in a durable store, and for each client an outbox of numbered
//! frames in memory. A client that comes back names the last frame that it has *applied*, and gets
//! what came after it, or a whole history where that is not proven. What the user says is kept by
//! the client until the server has given its verdict.
//!
//! The protocol is written down, statement by statement, in `docs/spec/session.md`. The modules:
//!
//! * [`wire`]: the frames of the base contract and of the extension;
//! * [`conversation`]: the rows of a conversation, and what the server asks of its store;
//! * [`in_flight`]: what a client asks of its store;
//! * [`server`] and [`client`]: the two sans-IO cores;
//! * [`view`]: what a user interface shows, advanced by frames;
//! * [`web`]: a page for a browser that is a client of its own;
//! * `sqlite`: the conversations, and the inputs in flight of a client, on SQLite (feature
//!   `sqlite`);
//! * `driver`: the cores over sockets, and the application's trait (feature `net`);
//! * `demo`: an application to try things with (feature `net`).

pub mod client;
pub mod conversation;
#[cfg(feature = "net")]
pub mod demo;
#[cfg(feature = "net")]
pub mod driver;
pub mod in_flight;
pub mod server;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod view;
pub mod web;
pub mod wire;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use crate::connection::{CloseCode, ConnectionId, DialFailure};
pub use crate::core::Ticket;
pub use crate::storage::StoreId;

/// What a client calls itself, or an input or a question: 1 to 128 printable ASCII characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// The text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to 128 printable ASCII characters and no space; got {0:?}")]
pub struct InvalidName(String);

impl Name {
    /// The longest name, in bytes.
    pub const LENGTH_MAX: usize = 128;

    /// Checks and takes a text.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if the text is empty, too long, or has other characters.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=Self::LENGTH_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName(text.chars().take(Self::LENGTH_MAX).collect()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

/// Whose outbox it is. Two principals that use the same client id are two identities.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Whom the token stands for.
    pub principal: Arc<str>,
    /// What the client calls itself.
    pub client: Name,
}

/// Which input of which conversation a turn is about. Never used twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turn {
    /// Whose conversation.
    pub principal: Arc<str>,
    /// The position of the input's row.
    pub position: u64,
}
