//! What one client was given, counted as it comes: in a few bytes, however long it takes.

use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// How many missing numbers are remembered by name, to tell one that comes late from one that comes
/// twice. Of more, those that come late count as lost and as doubled.
const MISSING_MAX: usize = 16;

/// What went wrong, counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// What never came.
    pub(crate) lost: u64,
    /// What came again.
    pub(crate) doubled: u64,
    /// What came after a later one.
    pub(crate) swapped: u64,
    /// What is not as it was when it was published, or is nothing that anybody published.
    pub(crate) damaged: u64,
    /// How often a client was told that something is lost, or refused, for good.
    pub(crate) refused: u64,
}

impl Counts {
    pub(crate) fn is_exact(&self) -> bool {
        let Self { lost, doubled, swapped, damaged, refused } = self;
        lost + doubled + swapped + damaged + refused == 0
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, doubled, swapped, damaged, refused } = self;
        write!(
            f,
            "{lost} lost, {doubled} doubled, {swapped} swapped, {damaged} damaged, {refused} refused"
        )
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self { lost, doubled, swapped, damaged, refused } = other;
        self.lost += lost;
        self.doubled += doubled;
        self.swapped += swapped;
        self.damaged += damaged;
        self.refused += refused;
    }
}

/// Numbers that should come once each, ascending from 1.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// The highest that has come.
    pub(crate) highest: u64,
    pub(crate) counts: Counts,
    /// Of those below that have not come.
    missing: Vec<u64>,
}

impl Tally {
    /// Takes a number.
    pub(crate) fn see(&mut self, number: u64) {
        if number > self.highest {
            let skipped = number - self.highest - 1;
            self.counts.lost += skipped;
            let room = MISSING_MAX.saturating_sub(self.missing.len());
            self.missing.extend((self.highest + 1..number).take(room));
            self.highest = number;
        } else if let Some(index) = self.missing.iter().position(|missing| *missing == number) {
            self.missing.swap_remove(index);
            self.counts.lost -= 1;
            self.counts.swapped += 1;
        } else {
            self.counts.doubled += 1;
        }
    }

    /// What is wrong if the numbers end with `last`.
    pub(crate) fn counts(&self, last: u64) -> Counts {
        let mut counts = self.counts;
        counts.lost += last.saturating_sub(self.highest);
        counts.damaged += self.highest.saturating_sub(last);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: &[u64], last: u64) -> Counts {
        let mut tally = Tally::default();
        for number in numbers {
            tally.see(*number);
        }
        tally.counts(last)
    }

    #[test]
    fn what_comes_once_and_in_order_is_exact() {
        assert!(of(&[1, 2, 3], 3).is_exact());
        assert!(of(&[], 0).is_exact());
    }

    #[test]
    fn what_is_lost_doubled_swapped_or_nobodys_is_counted_each_by_itself() {
        let none = Counts::default();
        for numbers in [[2, 3], [1, 3], [1, 2]] {
            assert_eq!(of(&numbers, 3), Counts { lost: 1, ..none });
        }
        for numbers in [[1, 1, 2, 3], [1, 2, 3, 1]] {
            assert_eq!(of(&numbers, 3), Counts { doubled: 1, ..none });
        }
        assert_eq!(of(&[1, 3, 2], 3), Counts { swapped: 1, ..none });
        assert_eq!(of(&[1, 2, 3], 2), Counts { damaged: 1, ..none });
        let all = Counts { lost: 1, doubled: 1, swapped: 1, ..none };
        assert_eq!(of(&[1, 1, 4, 3], 4), all);
    }

    #[test]
    fn a_long_hole_is_counted_though_not_every_number_of_it_is_remembered() {
        assert_eq!(of(&[1_000], 1_000), Counts { lost: 999, ..Counts::default() });
        let late = of(&[1_000, 999], 1_000);
        assert_eq!(late, Counts { lost: 999, doubled: 1, ..Counts::default() });
    }
}
