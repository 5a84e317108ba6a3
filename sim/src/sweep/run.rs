//! Carries a sweep out on several threads.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use super::{Outcome, Summary, outcome};
use crate::real_time::now;
use crate::scenario::Scenario;
use crate::seed::Seed;

/// What a sweep does.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The scenarios. Swarms have half of the runs if there are others as well, because a fixed one
    /// has less that can happen; within each half they are dealt round-robin.
    pub scenarios: Vec<Scenario>,
    /// The seed from which the seeds of the runs follow.
    pub base: Seed,
    /// How many runs there are at most, over all scenarios and shards; absent = until something
    /// else ends it.
    pub seeds: Option<u64>,
    /// For how long runs are begun.
    pub time: Option<Duration>,
    /// It ends after this many runs in a row, of this shard, in which no scenario reached a mark for
    /// the first time.
    pub plateau: Option<u64>,
    /// How many threads work.
    pub jobs: usize,
    /// The known-bad variant that is run instead of the implementation, by its id.
    pub mutant: Option<&'static str>,
    /// The part of the runs that is done here: the first of it, and how many parts there are.
    pub shard: (u64, u64),
}

/// The runs of a sweep that have been counted, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Their sum.
    pub summary: Summary,
    /// How many there were since a scenario reached a mark for the first time.
    pub since_news: u64,
}

impl Tally {
    /// No run yet.
    pub fn new(plan: &Sweep) -> Self {
        Self { summary: Summary::new(&plan.scenarios), since_news: 0 }
    }

    /// Counts the next run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.since_news = if self.summary.add(outcome) { 0 } else { self.since_news + 1 };
    }
}

/// Is told how a sweep gets on, from the thread that started it.
pub trait Progress {
    /// A run has ended. Runs are told in their order, whichever thread carried them out.
    fn ended(&mut self, outcome: &Outcome, tally: &Tally);

    /// Some time has passed.
    fn waited(&mut self, tally: &Tally);
}

/// Why a sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything was run.
    Complete,
    /// Nothing new was reached any more.
    Plateau,
    /// Its time was over.
    Time,
}

/// How often [`Progress::waited`] is called at least.
const WAIT: Duration = Duration::from_millis(250);

/// How many runs may have begun before one that has not ended. A slow run holds the others up, so
/// that what waits for its turn has a bound.
const AHEAD_MAX: u64 = 1_024;

impl Sweep {
    /// A run of this shard: its scenario and its seed. `None` if there are not so many.
    pub fn nth(&self, nth: u64) -> Option<(&Scenario, Seed)> {
        let index = nth.checked_mul(self.shard.1)?.checked_add(self.shard.0)?;
        if self.seeds.is_some_and(|seeds| index >= seeds) {
            return None;
        }
        let (swarms, fixed): (Vec<_>, Vec<_>) =
            self.scenarios.iter().partition(|scenario| scenario.swarm.is_some());
        let (among, turn) = match (swarms.is_empty(), fixed.is_empty()) {
            (true, _) => (fixed, index),
            (_, true) => (swarms, index),
            (false, false) if is_of_a_swarm(index) => (swarms, index / 2),
            (false, false) => (fixed, index / 2),
        };
        let at = usize::try_from(turn.checked_rem(among.len() as u64)?).ok()?;
        Some((among[at], self.base.derive(index)))
    }
}

/// Of two runs one is of a swarm. Which one it is changes with the pair, so that no shard has only such.
fn is_of_a_swarm(index: u64) -> bool {
    // Multiples of the golden ratio are spread evenly, those of each shard too.
    let is_first = (index / 2).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 0;
    is_first == index.is_multiple_of(2)
}

/// Who runs what.
struct Desk {
    state: Mutex<DeskState>,
    moved: Condvar,
}

struct DeskState {
    /// The next run that nobody has taken.
    next: u64,
    /// The first run that has not been counted.
    counted: u64,
    stop: bool,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a run; `None` if no more are to be begun.
    fn take(&self) -> Option<u64> {
        let waits = |state: &mut DeskState| !state.stop && state.next >= state.counted + AHEAD_MAX;
        let mut state =
            self.moved.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner);
        if state.stop {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    fn counted(&self, runs: u64) {
        self.state().counted = runs;
        self.moved.notify_all();
    }

    fn stop(&self) {
        self.state().stop = true;
        self.moved.notify_all();
    }
}

/// Carries a sweep out, of which the first runs may have been counted already. What comes out depends neither
/// on the number of threads nor on where it was interrupted, unless its time was over.
pub fn sweep(plan: &Sweep, mut tally: Tally, progress: &mut dyn Progress) -> (Tally, Ended) {
    let (began, first) = (now(), tally.summary.runs);
    let is_flat = |tally: &Tally| plan.plateau.is_some_and(|runs| tally.since_news >= runs);
    if is_flat(&tally) {
        return (tally, Ended::Plateau);
    }
    let state = DeskState { next: first, counted: first, stop: false };
    let desk = Desk { state: Mutex::new(state), moved: Condvar::new() };
    // Bounded, so that a slow reader holds the threads up instead of filling the memory.
    let (send, receive) = mpsc::sync_channel(64);
    let mut ended = Ended::Complete;
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            let (send, desk) = (send.clone(), &desk);
            scope.spawn(move || {
                while let Some(nth) = desk.take() {
                    let Some((scenario, seed)) = plan.nth(nth) else { return };
                    if send.send((nth, outcome(scenario, seed, plan.mutant))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        // Runs that ended before one that began earlier.
        let mut early: BTreeMap<u64, Outcome> = BTreeMap::new();
        loop {
            match receive.recv_timeout(WAIT) {
                Ok((nth, outcome)) => {
                    early.insert(nth, outcome);
                    // After a plateau nothing counts that was begun too much.
                    while ended != Ended::Plateau
                        && let Some(outcome) = early.remove(&tally.summary.runs)
                    {
                        tally.add(&outcome);
                        progress.ended(&outcome, &tally);
                        if is_flat(&tally) {
                            ended = Ended::Plateau;
                            desk.stop();
                        }
                    }
                    desk.counted(tally.summary.runs);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => progress.waited(&tally),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if ended == Ended::Complete && plan.time.is_some_and(|time| began.elapsed() >= time) {
                ended = Ended::Time;
                desk.stop();
            }
        }
    });
    if ended == Ended::Time && plan.nth(tally.summary.runs).is_none() {
        ended = Ended::Complete;
    }
    (tally, ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Library;

    struct Lines(Vec<u64>);

    impl Progress for Lines {
        fn ended(&mut self, outcome: &Outcome, _: &Tally) {
            self.0.push(outcome.seed);
        }

        fn waited(&mut self, _: &Tally) {}
    }

    fn plan(jobs: usize) -> Sweep {
        let scenarios = ["events/server-restart", "events/empty-ring"];
        let scenarios = scenarios.map(|id| Library::embedded().get(id).expect("it is built in"));
        let (base, shard) = (Seed(5), (0, 1));
        Sweep {
            scenarios: scenarios.into(),
            base,
            seeds: None,
            time: None,
            plateau: None,
            jobs,
            mutant: None,
            shard,
        }
    }

    #[test]
    fn swarms_have_half_of_the_runs_of_every_shard() {
        let ids = ["events/server-restart", "events/swarm", "events/empty-ring", "session/swarm"];
        let scenarios = ids.map(|id| Library::embedded().get(id).expect("it is built in"));
        let dealt = |shard: (u64, u64)| {
            let plan =
                Sweep { scenarios: scenarios.clone().into(), seeds: Some(240), shard, ..plan(1) };
            let mut runs = std::collections::BTreeMap::new();
            for nth in 0.. {
                let Some((scenario, _)) = plan.nth(nth) else { break };
                *runs.entry(scenario.id.clone()).or_insert(0) += 1;
            }
            ids.map(|id| runs.get(id).copied().unwrap_or(0))
        };
        assert_eq!(dealt((0, 1)), [60; 4]);
        for shard in [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)] {
            let [one, two, three, four] = dealt(shard);
            assert_eq!(one + two + three + four, 240 / shard.1);
            assert!((one + three).abs_diff(two + four) <= 6, "{:?}", dealt(shard));
        }
    }

    #[test]
    fn a_plateau_is_the_same_on_any_number_of_threads() {
        let run = |jobs| {
            let mut lines = Lines(vec![]);
            let plan = Sweep { plateau: Some(3), ..plan(jobs) };
            let (tally, ended) = sweep(&plan, Tally::new(&plan), &mut lines);
            assert_eq!(ended, Ended::Plateau);
            assert_eq!(tally.since_news, 3);
            (tally, lines.0)
        };
        let (tally, lines) = run(1);
        assert!(tally.summary.runs > 3, "the first run reached something");
        assert_eq!(run(4), (tally, lines));
    }

    #[test]
    fn what_is_carried_on_with_is_what_was_not_interrupted() {
        let whole = Sweep { seeds: Some(7), ..plan(2) };
        let mut lines = Lines(vec![]);
        let (all, ended) = sweep(&whole, Tally::new(&whole), &mut lines);
        assert_eq!((all.summary.runs, ended), (7, Ended::Complete));
        let mut first = Tally::new(&whole);
        for nth in 0..3 {
            let (scenario, seed) = whole.nth(nth).expect("there are seven");
            first.add(&outcome(scenario, seed, None));
        }
        let mut rest = Lines(vec![]);
        assert_eq!(sweep(&whole, first, &mut rest), (all, Ended::Complete));
        assert_eq!(rest.0, lines.0[3..]);
    }

    #[test]
    fn when_the_time_is_over_what_has_begun_still_counts() {
        let plan = Sweep { time: Some(Duration::ZERO), ..plan(2) };
        let (tally, ended) = sweep(&plan, Tally::new(&plan), &mut Lines(vec![]));
        assert_eq!(ended, Ended::Time);
        assert_eq!(tally.summary.runs, tally.summary.passed);
    }
}
