//! Which connection of an identity is the live one.
//!
//! Each accepted connection gets a number. The newest one of an identity is current; whatever an older one still
//! delivers, acknowledges or closes changes nothing (`[CORE-9]`).
//!
//! Deliberately absent: closing the older connection, which is the caller's, and a bound on the identities, which is
//! that on open connections.

use std::collections::BTreeMap;

/// The number of one accepted connection. Never given twice by the same [`Generations`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(u64);

impl Generation {
    /// The number, for traces.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// The current connection of every identity that has one.
///
/// ```
/// use gapless::recovery::Generations;
///
/// let mut generations = Generations::default();
/// let first = generations.accept("agent").generation;
/// let second = generations.accept("agent");
/// assert_eq!(second.superseded, Some(first));
///
/// // The late close of the first does not take the second down.
/// assert!(!generations.close(&"agent", first));
/// assert!(generations.is_current(&"agent", second.generation));
/// ```
#[derive(Clone, Debug)]
pub struct Generations<I> {
    current: BTreeMap<I, Generation>,
    /// Shared by all identities, so that a number is not reused even after its identity is forgotten.
    last: u64,
}

impl<I: Ord + Clone> Generations<I> {
    /// No connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { current: BTreeMap::new(), last: 0 }
    }

    /// A connection of `identity` is accepted and becomes its current one.
    #[must_use]
    pub fn accept(&mut self, identity: I) -> Accepted {
        self.last += 1;
        let generation = Generation(self.last);
        let superseded = self.current.insert(identity, generation);
        Accepted { generation, superseded }
    }

    /// Whether `generation` is the current connection of `identity`.
    #[must_use]
    pub fn is_current(&self, identity: &I, generation: Generation) -> bool {
        self.current.get(identity) == Some(&generation)
    }

    /// The connection `generation` of `identity` is closed. True if it was the current one; otherwise nothing changes.
    pub fn close(&mut self, identity: &I, generation: Generation) -> bool {
        let was_current = self.is_current(identity, generation);
        if was_current {
            self.current.remove(identity);
        }
        was_current
    }

    /// The number of identities with a connection.
    #[must_use]
    pub fn len(&self) -> usize {
        self.current.len()
    }

    /// Whether no identity has a connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }
}

impl<I: Ord + Clone> Default for Generations<I> {
    fn default() -> Self {
        Self::new()
    }
}

/// The outcome of [`Generations::accept`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// The number of the new connection.
    pub generation: Generation,
    /// The connection that it replaced: close it with "superseded".
    pub superseded: Option<Generation>,
}
