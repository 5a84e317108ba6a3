//! The newest frames of a stream, kept for replay.
//!
//! The ring is contiguous (`[EV-1]`, `[CORE-5]`) and bounded by count, bytes and age (`[CORE-12]`). It says "up to
//! date" only when that is proven: an emptied ring still knows its last number (`[CORE-4]`).
//!
//! Deliberately absent: the numbering, which belongs to the stream's owner, the log that a pump reads where the ring no
//! longer reaches, and a clock. Age is looked at only in [`ReplayRing::prune_age`].

use std::collections::VecDeque;
use std::time::Duration;

use super::{Cursor, Epoch, Instant};

/// The bounds of a [`ReplayRing`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingLimits {
    /// Most entries kept; 0 counts as 1.
    pub count: usize,
    /// Most bytes kept, as declared with each entry. The newest entry stays even if it is larger by itself.
    pub bytes: usize,
    /// How long an entry is kept; `None` is without limit.
    pub age: Option<Duration>,
}

/// A contiguous run of numbered entries that ends with the last one pushed.
///
/// ```
/// use gapless::recovery::{Instant, ReplayRing, RingAnswer, RingLimits};
///
/// let mut ring = ReplayRing::new(RingLimits { count: 2, bytes: 1 << 20, age: None });
/// for (sequence, item) in [(1, "a"), (2, "b"), (3, "c")] {
///     ring.push(Instant::default(), sequence, item.len(), item);
/// }
/// assert_eq!(ring.answer(1), RingAnswer::Replay { from: 2, to: 3 });
/// assert_eq!(ring.answer(0), RingAnswer::TooOld { oldest: Some(2) });
/// assert_eq!(ring.answer(3), RingAnswer::UpToDate);
///
/// ring.clear();
/// assert_eq!(ring.answer(2), RingAnswer::TooOld { oldest: None });
/// ```
#[derive(Clone, Debug)]
pub struct ReplayRing<T> {
    limits: RingLimits,
    /// The entry at the back has the sequence `last`, the one before it `last - 1`, and so on.
    entries: VecDeque<Entry<T>>,
    last: u64,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    pushed: Instant,
    bytes: usize,
    item: T,
}

impl<T> ReplayRing<T> {
    /// An empty ring of a stream that has no sequence yet.
    #[must_use]
    pub const fn new(limits: RingLimits) -> Self {
        Self::starting_after(limits, 0)
    }

    /// An empty ring of a stream whose highest sequence is `head`.
    #[must_use]
    pub const fn starting_after(limits: RingLimits, head: u64) -> Self {
        Self { limits, entries: VecDeque::new(), last: head, bytes: 0 }
    }

    /// Adds the entry `sequence`, of `bytes` bytes, then evicts the oldest beyond the limits on count and bytes.
    ///
    /// Any sequence but the one after [`last`](Self::last) clears the ring first: it never holds a hole.
    pub fn push(&mut self, now: Instant, sequence: u64, bytes: usize, item: T) {
        if self.last.checked_add(1) != Some(sequence) {
            self.clear();
        }
        self.last = sequence;
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.push_back(Entry { pushed: now, bytes, item });
        while self.entries.len() > 1
            && (self.entries.len() > self.limits.count || self.bytes > self.limits.bytes)
        {
            self.evict_oldest();
        }
    }

    /// What can be said, from the ring alone, to a receiver that has everything up to `after`.
    pub fn answer(&self, after: u64) -> RingAnswer {
        if after > self.last {
            return RingAnswer::Ahead { last: self.last };
        }
        if after == self.last {
            return RingAnswer::UpToDate;
        }
        match self.oldest() {
            Some(oldest) if oldest <= after + 1 => {
                RingAnswer::Replay { from: after + 1, to: self.last }
            }
            oldest => RingAnswer::TooOld { oldest },
        }
    }

    /// Like [`answer`](Self::answer), for a ring that serves the epoch `current` only.
    pub fn answer_cursor(&self, cursor: &Cursor, current: &Epoch) -> RingAnswer {
        if cursor.epoch == *current {
            self.answer(cursor.sequence)
        } else {
            RingAnswer::EpochMismatch
        }
    }

    /// The entry `sequence`, if it is kept. Constant time.
    #[must_use]
    pub fn get(&self, sequence: u64) -> Option<&T> {
        let at = sequence.checked_sub(self.oldest()?)?;
        self.entries.get(usize::try_from(at).ok()?).map(|entry| &entry.item)
    }

    /// The entries from `sequence` on, or from the oldest kept if that is later, with their sequences, ascending.
    pub fn iter_from(&self, sequence: u64) -> impl Iterator<Item = (u64, &T)> {
        let oldest = self.oldest().unwrap_or(self.last);
        let skip = usize::try_from(sequence.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let kept = self.entries.iter().map(|entry| &entry.item);
        (oldest..).zip(kept).skip(skip)
    }

    /// The lowest sequence kept; `None` if the ring is empty.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.last - (self.entries.len() as u64 - 1))
    }

    /// The highest sequence ever pushed, kept or not.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The number of entries kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no entry is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of the entries kept, as declared when they were pushed.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops the entries that are older than the limit on age at `now`; that may be all of them.
    pub fn prune_age(&mut self, now: Instant) {
        let Some(age) = self.limits.age else { return };
        while self.entries.front().is_some_and(|entry| now.saturating_since(entry.pushed) > age) {
            self.evict_oldest();
        }
    }

    /// Drops the entries up to and including `sequence`; what is not pushed yet is not affected.
    pub fn prune_through(&mut self, sequence: u64) {
        while self.oldest().is_some_and(|oldest| oldest <= sequence) {
            self.evict_oldest();
        }
    }

    /// Drops all entries. The last sequence stays known.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn evict_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }
}

/// What a [`ReplayRing`] can say to a receiver (`[CORE-4]`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum RingAnswer {
    /// The receiver has the last entry ever pushed.
    UpToDate,
    /// All that the receiver lacks is kept.
    Replay {
        /// First sequence to send.
        from: u64,
        /// Last sequence to send.
        to: u64,
    },
    /// Some of what the receiver lacks is no longer kept.
    TooOld {
        /// The lowest sequence kept; `None` if the ring is empty.
        oldest: Option<u64>,
    },
    /// The receiver claims a sequence that was never pushed.
    Ahead {
        /// The highest sequence ever pushed.
        last: u64,
    },
    /// The cursor is of another epoch than the ring.
    EpochMismatch,
}
