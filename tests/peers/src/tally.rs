//! What has arrived, counted exactly.
//!
//! The events of a topic are numbered from 1. A tally keeps the numbers as they arrive, and judges
//! only at the end, so that nothing but the append is part of what is measured.

use std::collections::BTreeSet;
use std::ops::AddAssign;

use serde::Serialize;

/// The numbers that one receiver was given, in the order in which it was given them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    numbers: Vec<u64>,
    /// All numbers up to it have arrived.
    contiguous: u64,
    /// Those that have arrived beyond it.
    ahead: BTreeSet<u64>,
}

impl Tally {
    /// Makes room for that many more, so that no part of what is measured is moving them.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.numbers.reserve(more);
    }

    /// Takes a number; 0 stands for what is no event.
    pub(crate) fn see(&mut self, number: u64) {
        self.numbers.push(number);
        if number == self.contiguous + 1 {
            self.contiguous = number;
            while self.ahead.remove(&(self.contiguous + 1)) {
                self.contiguous += 1;
            }
        } else if number > self.contiguous {
            self.ahead.insert(number);
        }
    }

    /// The highest number up to which nothing is missing.
    pub(crate) fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// How many have arrived, whatever they were.
    pub(crate) fn arrived(&self) -> usize {
        self.numbers.len()
    }

    /// What came of the events from 1 to `last`.
    pub(crate) fn counts(&self, last: u64) -> Counts {
        Counts::of(&self.numbers, last)
    }
}

/// What came of events that somebody should have been given once each, in their order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// How many there were to be.
    pub(crate) expected: u64,
    /// How many never came.
    pub(crate) lost: u64,
    /// How often one came that had come before.
    pub(crate) doubled: u64,
    /// How many came for the first time after a later one.
    pub(crate) swapped: u64,
    /// How often something came that was none of them.
    pub(crate) foreign: u64,
}

impl Counts {
    /// Judges `numbers`, which should be 1 to `last`.
    pub(crate) fn of(numbers: &[u64], last: u64) -> Self {
        let mut counts = Self { expected: last, ..Self::default() };
        let mut seen = BTreeSet::new();
        for number in numbers {
            let highest = seen.last().copied().unwrap_or(0);
            if !(1..=last).contains(number) {
                counts.foreign += 1;
            } else if !seen.insert(*number) {
                counts.doubled += 1;
            } else if *number < highest {
                counts.swapped += 1;
            }
        }
        counts.lost = last - seen.len() as u64;
        counts
    }

    /// Whether each came once, in order.
    pub(crate) fn is_exact(&self) -> bool {
        let Self { expected: _, lost, doubled, swapped, foreign } = self;
        lost + doubled + swapped + foreign == 0
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self { expected, lost, doubled, swapped, foreign } = other;
        self.expected += expected;
        self.lost += lost;
        self.doubled += doubled;
        self.swapped += swapped;
        self.foreign += foreign;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_come_once_and_in_order_are_exact() {
        assert!(Counts::of(&[1, 2, 3], 3).is_exact());
        assert!(Counts::of(&[], 0).is_exact());
    }

    #[test]
    fn a_lost_event_is_seen_wherever_it_was() {
        for numbers in [[2, 3], [1, 3], [1, 2]] {
            let counts = Counts::of(&numbers, 3);
            assert_eq!(counts, Counts { expected: 3, lost: 1, ..Counts::default() });
            assert!(!counts.is_exact());
        }
    }

    #[test]
    fn a_doubled_event_is_seen_at_once_and_later() {
        for numbers in [[1, 1, 2, 3], [1, 2, 3, 1]] {
            let counts = Counts::of(&numbers, 3);
            assert_eq!(counts, Counts { expected: 3, doubled: 1, ..Counts::default() });
            assert!(!counts.is_exact());
        }
    }

    #[test]
    fn a_swapped_event_is_seen_and_is_not_lost() {
        let counts = Counts::of(&[1, 3, 2], 3);
        assert_eq!(counts, Counts { expected: 3, swapped: 1, ..Counts::default() });
        assert!(!counts.is_exact());
    }

    #[test]
    fn an_event_that_was_never_published_is_seen() {
        let counts = Counts::of(&[1, 2, 9, 0], 2);
        assert_eq!(counts, Counts { expected: 2, foreign: 2, ..Counts::default() });
        assert!(!counts.is_exact());
    }

    #[test]
    fn one_fault_does_not_hide_another() {
        let counts = Counts::of(&[1, 1, 4, 3, 7], 5);
        let expected = Counts { expected: 5, lost: 2, doubled: 1, swapped: 1, foreign: 1 };
        assert_eq!(counts, expected);
    }

    #[test]
    fn contiguous_stops_before_a_hole_and_goes_on_once_it_is_filled() {
        let mut tally = Tally::default();
        for number in [1, 2, 4, 5] {
            tally.see(number);
        }
        assert_eq!(tally.contiguous(), 2);
        tally.see(3);
        assert_eq!(tally.contiguous(), 5);
        assert_eq!(tally.counts(5).swapped, 1);
    }

    #[test]
    fn doubled_events_do_not_make_up_for_one_that_is_missing() {
        let mut tally = Tally::default();
        for number in [1, 1, 1, 3] {
            tally.see(number);
        }
        assert_eq!((tally.arrived(), tally.contiguous()), (4, 1));
    }
}
