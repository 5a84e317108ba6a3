//! How much memory the server takes, and how much it may.

use std::time::Duration;

/// What a server with databases, caches and code takes before anybody connects, in bytes: measured
/// some 20 MiB, with room for the page caches of three databases and what an allocator keeps.
pub(crate) const RESIDENT_BASE_MAX: u64 = 96 << 20;

/// What each connection may cost at the worst moment, in bytes. An idle one costs 11 KiB; in a storm
/// of reconnects there are the buffers of a handshake (hyper reads 8 KiB at once, and writes), a page
/// of a replay, and for up to 75 s the old connection of a client that came back from a half-open one.
pub(crate) const PER_CONNECTION_MAX: u64 = 64 << 10;

/// How much the peak of the last quarter may be above that of the quarter before, in percent: the load
/// is the same in both, so a leak of what each fault or event leaves behind would show, and the luck of
/// the faults does not.
pub(crate) const GROWTH_PERCENT_MAX: u64 = 25;

/// What that is at least, in bytes: a small run has small peaks, and one storm more is no leak.
pub(crate) const GROWTH_BYTES_MIN: u64 = 24 << 20;

/// What was seen once in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) resident: u64,
    pub(crate) connections: Option<u64>,
}

/// The samples of a run.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) before: u64,
    /// When all were connected and nothing had gone wrong yet.
    pub(crate) connected: u64,
    pub(crate) samples: Vec<Sample>,
}

impl Memory {
    pub(crate) fn max(&self) -> u64 {
        self.samples.iter().map(|sample| sample.resident).max().unwrap_or(0).max(self.connected)
    }

    /// The peak of a quarter of the run, from 0 to 3.
    fn peak(&self, quarter: usize) -> u64 {
        let count = self.samples.len();
        let samples = &self.samples[count * quarter / 4..count * (quarter + 1) / 4];
        samples.iter().map(|sample| sample.resident).max().unwrap_or(0)
    }

    /// By how much the peak of the last quarter is above that of the one before.
    pub(crate) fn growth(&self) -> u64 {
        self.peak(3).saturating_sub(self.peak(2))
    }

    pub(crate) fn per_connection(&self, connections: usize) -> u64 {
        self.connected.saturating_sub(self.before) / connections.max(1) as u64
    }

    /// The least, the median and the most that were connected at once.
    pub(crate) fn connected_at_once(&self) -> Option<(u64, u64, u64)> {
        let mut counts: Vec<u64> = self.samples.iter().filter_map(|it| it.connections).collect();
        counts.sort_unstable();
        Some((*counts.first()?, counts[counts.len() / 2], *counts.last()?))
    }

    /// A line for each sample.
    pub(crate) fn csv(&self) -> String {
        let line = |sample: &Sample| {
            let Sample { at, resident, connections } = sample;
            let connections = connections.map_or_else(String::new, |count| count.to_string());
            format!("{:.1},{resident},{connections}\n", at.as_secs_f64())
        };
        let lines: String = self.samples.iter().map(line).collect();
        format!("seconds,resident_bytes,websockets\n{lines}")
    }

    /// What is not as it must be.
    pub(crate) fn problems(&self, connections: usize) -> Vec<String> {
        let mut problems = Vec::new();
        let (max, bound) =
            (self.max(), RESIDENT_BASE_MAX + PER_CONNECTION_MAX * connections as u64);
        if max > bound {
            problems.push(format!(
                "the server took {} of memory, and may take {}",
                mib(max),
                mib(bound)
            ));
        }
        let (growth, bound) =
            (self.growth(), (self.peak(2) * GROWTH_PERCENT_MAX / 100).max(GROWTH_BYTES_MIN));
        if growth > bound {
            problems.push(format!(
                "the peak of the last quarter is {} above that of the third, and may be {}",
                mib(growth),
                mib(bound)
            ));
        }
        problems
    }
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(mib: impl Fn(u64) -> u64) -> Memory {
        let sample = |second| Sample {
            at: Duration::from_secs(second),
            resident: mib(second) << 20,
            connections: Some(second),
        };
        Memory { before: 20 << 20, connected: 120 << 20, samples: (0..100).map(sample).collect() }
    }

    #[test]
    fn memory_that_goes_up_and_down_is_bounded_and_one_that_grows_is_not() {
        let steady = memory(|second| 100 + second % 10);
        assert_eq!(steady.problems(1_000), [""; 0]);
        assert_eq!(steady.per_connection(1_000), (100 << 20) / 1_000);
        assert_eq!(steady.connected_at_once(), Some((0, 50, 99)));
        let grows = memory(|second| 20 + second * 2);
        assert_eq!(grows.problems(10_000).len(), 1, "a quarter above the one before");
        let large = memory(|_| 500);
        assert_eq!(large.problems(1_000).len(), 1, "above the bound of 1,000 connections");
        assert_eq!(large.problems(10_000), [""; 0]);
    }
}
