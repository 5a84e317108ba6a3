//! Names of agents.

use std::fmt;
use std::sync::Arc;

/// Who an agent is, and whose stream it is: 1 to 128 printable ASCII characters without spaces or `/`.
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
