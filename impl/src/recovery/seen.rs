//! A bounded memory of ids that were handled already.
//!
//! When it is full the id that was used least recently is forgotten (`[CORE-12]`): a duplicate is recognised for as
//! long as fewer than `capacity` other ids were used since.
//!
//! Deliberately absent: any way to list the ids, because their order in memory is not deterministic.

use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;

/// A set that keeps the `capacity` ids used most recently.
///
/// ```
/// use gapless::recovery::SeenIds;
///
/// let mut seen = SeenIds::new(2);
/// assert!(seen.insert("a"));
/// assert!(seen.insert("b"));
/// assert!(!seen.insert("a"));
/// assert!(seen.insert("c"));
/// assert!(seen.contains(&"a"));
/// assert!(!seen.contains(&"b"));
/// ```
#[derive(Debug)]
pub struct SeenIds<K: Hash + Eq> {
    capacity: NonZeroUsize,
    ids: LruCache<K, ()>,
}

impl<K: Hash + Eq> SeenIds<K> {
    /// A memory of `capacity` ids; 0 counts as 1.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        // A bounded `LruCache` reserves its whole capacity at once, which is much for a set that mostly stays small.
        Self {
            capacity: NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN),
            ids: LruCache::unbounded(),
        }
    }

    /// Whether `id` is remembered. A hit counts as a use.
    pub fn contains(&mut self, id: &K) -> bool {
        self.ids.get(id).is_some()
    }

    /// Remembers `id`, or counts a use of it. True if it was not remembered.
    pub fn insert(&mut self, id: K) -> bool {
        let is_new = self.ids.put(id, ()).is_none();
        if self.ids.len() == self.capacity.get() {
            // From here on it is bounded, and a new id takes the place of the one used least recently.
            self.ids.resize(self.capacity);
        }
        is_new
    }

    /// The number of ids remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no id is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The most ids that are remembered.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity.get()
    }

    /// Forgets all ids.
    pub fn clear(&mut self) {
        self.ids.clear();
    }
}
