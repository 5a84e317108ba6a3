//! Makes a plan short: the faults end earlier, and the steps come closer together.

use super::Search;
use crate::plan::{Plan, When};

/// To what durations and times are rounded.
const ROUND_MS: u64 = 100;

impl Search<'_> {
    /// Lets the faults end as early as the violation allows. What a run costs is its virtual time,
    /// so this comes before everything else.
    pub(super) fn shorten(&mut self) {
        loop {
            let whole = self.plan.duration_ms;
            let seen = (self.of.at_ms + 1).next_multiple_of(ROUND_MS);
            let parts = [seen, whole / 4, whole / 2, whole / 4 * 3, last_ms(&self.plan) + 1];
            let shorter = parts
                .into_iter()
                .map(|part| part.next_multiple_of(ROUND_MS))
                .filter(|part| *part < whole);
            let shorter: Vec<u64> = shorter.collect();
            let taken = shorter
                .into_iter()
                .any(|duration_ms| self.takes_with(|plan| plan.duration_ms = duration_ms));
            if !taken {
                break;
            }
        }
    }

    /// Takes time out between the steps.
    pub(super) fn bring_together(&mut self) {
        for unit in [1_000, ROUND_MS] {
            self.takes_with(|plan| {
                for step in &mut plan.steps {
                    if let When::At(at) = &mut step.when {
                        *at -= *at % unit;
                    }
                }
            });
        }
        let mut nth = 0;
        while let Some((from, to)) = gap(&self.plan, nth) {
            for shorter in super::shorter(to - from, 0) {
                let earlier = to - from - shorter;
                if self.takes_with(|plan| move_up(plan, to, earlier)) {
                    break;
                }
            }
            nth += 1;
        }
    }
}

/// When the last step with a time of its own comes.
fn last_ms(plan: &Plan) -> u64 {
    times(plan).last().copied().unwrap_or(0)
}

/// The times of the steps, sorted, each once.
fn times(plan: &Plan) -> Vec<u64> {
    let mut times: Vec<u64> = plan
        .steps
        .iter()
        .filter_map(|step| match step.when {
            When::At(at) => Some(at),
            When::Mark { .. } => None,
        })
        .collect();
    times.sort_unstable();
    times.dedup();
    times
}

/// The time before the nth moment at which something happens: its begin and its end.
fn gap(plan: &Plan, nth: usize) -> Option<(u64, u64)> {
    let times = times(plan);
    let to = *times.get(nth)?;
    let from = nth.checked_sub(1).map_or(0, |before| times[before]);
    Some((from, to))
}

/// Lets everything from a moment on come earlier.
fn move_up(plan: &mut Plan, from_ms: u64, by_ms: u64) {
    for step in &mut plan.steps {
        match &mut step.when {
            When::At(at) if *at >= from_ms => *at -= by_ms,
            When::At(_) | When::Mark { .. } => {}
        }
    }
    plan.duration_ms = plan.duration_ms.saturating_sub(by_ms).max(ROUND_MS);
}
