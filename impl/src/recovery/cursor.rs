//! Where a receiver is: an epoch and the highest contiguous sequence that it has fully applied.
//!
//! Carries the naming of `[CORE-1]`, the opaque epochs of `[CORE-2]` and the position of `[CORE-3]`. Whether a cursor
//! can be resumed from is not decided here: ask a [`Lineage`](super::Lineage) or a [`ReplayRing`](super::ReplayRing).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Entropy, random_hex_128};

/// The highest sequence (`[CORE-1]`): every JSON reader holds it exactly.
pub const MAX_SEQUENCE: u64 = (1 << 53) - 1;

/// One incarnation of a stream's numbering.
///
/// Opaque: epochs are compared for equality and have no order (`[CORE-2]`). On the wire it is a string. Cheap to clone.
///
/// ```
/// use gapless::recovery::{Epoch, InvalidEpoch};
///
/// let epoch = Epoch::parse("b81f").unwrap();
/// assert_eq!(epoch.as_str(), "b81f");
/// assert_eq!(Epoch::parse(""), Err(InvalidEpoch::Length { bytes: 0 }));
/// assert_eq!(Epoch::parse("a b"), Err(InvalidEpoch::Character { at: 1 }));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// Takes 1 to 128 bytes of printable ASCII without spaces.
    ///
    /// # Errors
    ///
    /// [`InvalidEpoch`] tells which of the two rules is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidEpoch> {
        if !(1..=EPOCH_BYTES_MAX).contains(&text.len()) {
            return Err(InvalidEpoch::Length { bytes: text.len() });
        }
        match text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            Some(at) => Err(InvalidEpoch::Character { at }),
            None => Ok(Self(text.into())),
        }
    }

    /// A fresh epoch of 128 random bits. Make it durable before it is announced.
    #[must_use]
    pub fn random(entropy: &mut dyn Entropy) -> Self {
        Self(random_hex_128(entropy).into())
    }

    /// The text of the epoch.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const EPOCH_BYTES_MAX: usize = 128;

/// Why a text is not an [`Epoch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidEpoch {
    /// Empty or too long.
    #[error("an epoch has 1 to 128 bytes, not {bytes}")]
    Length {
        /// Length found, in bytes.
        bytes: usize,
    },
    /// A space, a control character or something outside ASCII.
    #[error("an epoch is printable ASCII without spaces, which the byte at {at} is not")]
    Character {
        /// Offset of the first offending byte.
        at: usize,
    },
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Epoch {
    type Error = InvalidEpoch;

    fn try_from(text: String) -> Result<Self, InvalidEpoch> {
        Self::parse(&text)
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        epoch.as_str().to_owned()
    }
}

/// A receiver's position (`[CORE-3]`).
///
/// ```
/// use gapless::recovery::{Cursor, Epoch};
///
/// let cursor = Cursor::new(Epoch::parse("b81f").unwrap(), 42);
/// assert_eq!(cursor.to_string(), "b81f/42");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Cursor {
    /// The epoch in which `sequence` was allocated or confirmed.
    pub epoch: Epoch,
    /// The highest contiguous sequence that is fully applied; 0 is "nothing yet".
    pub sequence: u64,
}

impl Cursor {
    /// The position `sequence` in `epoch`.
    #[must_use]
    pub const fn new(epoch: Epoch, sequence: u64) -> Self {
        Self { epoch, sequence }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.sequence)
    }
}
