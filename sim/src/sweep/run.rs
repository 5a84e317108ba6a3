//! Carries a sweep out on several threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::{Outcome, Summary, outcome};
use crate::scenario::Scenario;
use crate::seed::Seed;

/// What a sweep does.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The scenarios, dealt round-robin.
    pub scenarios: Vec<Scenario>,
    /// The seed from which the seeds of the runs follow.
    pub base: Seed,
    /// How many runs there are, over all scenarios and shards.
    pub seeds: u64,
    /// How many threads work.
    pub jobs: usize,
    /// The known-bad variant that is run instead of the implementation, by its id.
    pub mutant: Option<&'static str>,
    /// The part of the runs that is done here: the first of it, and how many parts there are.
    pub shard: (u64, u64),
}

/// Is told how a sweep gets on, from the thread that started it.
pub trait Progress {
    /// A run has ended.
    fn ended(&mut self, outcome: &Outcome, summary: &Summary);

    /// Some time has passed.
    fn waited(&mut self, summary: &Summary);
}

/// How often [`Progress::waited`] is called at least.
const WAIT: Duration = Duration::from_millis(250);

impl Sweep {
    /// The runs of this shard: which of them, its scenario and its seed.
    fn nth(&self, nth: u64) -> Option<(&Scenario, Seed)> {
        let index = self.shard.0 + nth * self.shard.1;
        let scenario = &self.scenarios[usize::try_from(index).ok()? % self.scenarios.len()];
        (index < self.seeds).then(|| (scenario, self.base.derive(index)))
    }
}

/// Carries out a sweep. The summary does not depend on the number of threads.
pub fn sweep(sweep: &Sweep, progress: &mut dyn Progress) -> Summary {
    let mut summary = Summary::new(&sweep.scenarios);
    if sweep.scenarios.is_empty() {
        return summary;
    }
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    // Bounded, so that a slow reader holds the threads up instead of filling the memory.
    let (send, receive) = mpsc::sync_channel(64);
    std::thread::scope(|scope| {
        for _ in 0..sweep.jobs.max(1) {
            let (send, next, stop) = (send.clone(), &next, &stop);
            scope.spawn(move || {
                while let Some((scenario, seed)) = sweep
                    .nth(next.fetch_add(1, Ordering::Relaxed))
                    .filter(|_| !stop.load(Ordering::Relaxed))
                {
                    if send.send(outcome(scenario, seed, sweep.mutant)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        loop {
            match receive.recv_timeout(WAIT) {
                Ok(outcome) => {
                    summary.add(&outcome);
                    progress.ended(&outcome, &summary);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => progress.waited(&summary),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    summary
}
