//! A table of timers, one per key.
//!
//! Every wait has a timer (`[CORE-11]`), on monotonic time (`[CORE-10]`). A core keeps its deadlines here and tells its
//! driver the earliest.
//!
//! Deliberately absent: firing by itself. Nothing happens until [`Timers::pop_expired`] is called.

use std::collections::{BTreeMap, BTreeSet};

use super::Instant;

/// At most one deadline per key.
///
/// ```
/// use gapless::recovery::{Instant, Timers};
///
/// let at = Instant::from_millis;
/// let mut timers = Timers::default();
/// timers.set("ack", at(20));
/// timers.set("ping", at(10));
/// timers.set("ack", at(30));
/// assert_eq!(timers.next(), Some(at(10)));
/// assert_eq!(timers.pop_expired(at(29)), Some("ping"));
/// assert_eq!(timers.pop_expired(at(29)), None);
/// assert_eq!(timers.next(), Some(at(30)));
/// ```
#[derive(Clone, Debug)]
pub struct Timers<K> {
    by_key: BTreeMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Timers<K> {
    /// No timer.
    #[must_use]
    pub const fn new() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    /// Sets the timer `key` to `at`, whether it is running or not.
    pub fn set(&mut self, key: K, at: Instant) {
        if self.get(key) == Some(at) {
            // As frames of the same millisecond set it.
            return;
        }
        self.stop(key);
        self.by_key.insert(key, at);
        self.by_time.insert((at, key));
    }

    /// Stops the timer `key`, if it is running.
    pub fn stop(&mut self, key: K) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
        }
    }

    /// When the timer `key` is due; `None` if it is not running.
    #[must_use]
    pub fn get(&self, key: K) -> Option<Instant> {
        self.by_key.get(&key).copied()
    }

    /// When the next timer is due; `None` if none is running.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// Stops and returns the first timer that is due at `now`, in the order of time, then key.
    ///
    /// Call it until it returns `None`.
    #[must_use]
    pub fn pop_expired(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.stop(key);
        Some(key)
    }

    /// The number of timers running.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no timer is running.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}
