//! Is this frame the next one?
//!
//! Carries the receiver's side of `[CORE-3]` and `[CORE-6]`: the position moves by one at a time and never because a
//! higher number was seen.
//!
//! Deliberately absent: holding frames beyond a hole, and asking for them again.

/// The highest contiguous sequence received, and the judge of the next.
///
/// ```
/// use gapless::recovery::{Observed, SequenceTracker};
///
/// let mut tracker = SequenceTracker::new(4);
/// assert_eq!(tracker.observe(5), Observed::Accepted);
/// assert_eq!(tracker.observe(5), Observed::Duplicate);
/// assert_eq!(tracker.observe(7), Observed::Gap { expected: 6 });
/// assert_eq!(tracker.highest(), 5);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SequenceTracker {
    highest: u64,
}

impl SequenceTracker {
    /// A tracker that has everything up to `highest`; 0 is "nothing yet".
    #[must_use]
    pub const fn new(highest: u64) -> Self {
        Self { highest }
    }

    /// Judges `sequence` and moves by one if it is the next.
    #[must_use]
    pub const fn observe(&mut self, sequence: u64) -> Observed {
        if sequence <= self.highest {
            return Observed::Duplicate;
        }
        // No overflow: `sequence` is above it.
        let expected = self.highest + 1;
        if sequence > expected {
            return Observed::Gap { expected };
        }
        self.highest = sequence;
        Observed::Accepted
    }

    /// The highest contiguous sequence received.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Goes on after `highest`, as after a declared hole or in another epoch.
    pub const fn reset(&mut self, highest: u64) {
        self.highest = highest;
    }
}

/// What a sequence is to a [`SequenceTracker`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observed {
    /// The next one; the tracker moved.
    Accepted,
    /// Received before.
    Duplicate,
    /// Numbers before it are missing; the tracker did not move.
    Gap {
        /// The first one that is missing.
        expected: u64,
    },
}
