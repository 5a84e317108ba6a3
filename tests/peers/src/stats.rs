//! Medians, and how sure they are.

use serde::Serialize;

/// The median of a sample, with the interval that has the true one in it at a confidence of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Median {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

/// How probable it is at most that the true median is below, or above, the interval.
const TAIL: f64 = 0.025;

impl Median {
    /// By order statistics, so whatever the distribution is. A sample of less than six has no such
    /// interval; then it is the whole range. `None` of an empty sample.
    pub(crate) fn of(sample: &[f64]) -> Option<Self> {
        let mut sorted = sample.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let middle = (sorted.get(count.checked_sub(1)? / 2)? + sorted.get(count / 2)?) / 2.0;
        let rank = rank(count);
        Some(Self { low: sorted[rank], median: middle, high: sorted[count - 1 - rank] })
    }
}

/// How many values may be left out on each side: as many coins as may show heads with [`TAIL`].
fn rank(count: usize) -> usize {
    let (mut rank, mut tail) = (0, 0.0);
    // The probability of exactly `rank` heads.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    while 2 * rank < count && tail + exactly <= TAIL {
        tail += exactly;
        exactly *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    rank.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_fifteen_is_from_the_fourth_to_the_twelfth() {
        let sample: Vec<f64> = (1..=15).rev().map(f64::from).collect();
        assert_eq!(Median::of(&sample), Some(Median { low: 4.0, median: 8.0, high: 12.0 }));
    }

    #[test]
    fn a_small_sample_has_its_range_as_interval() {
        assert_eq!(Median::of(&[3.0, 1.0]), Some(Median { low: 1.0, median: 2.0, high: 3.0 }));
        assert_eq!(Median::of(&[]), None);
    }
}
