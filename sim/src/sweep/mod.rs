//! Many runs: on all cores, counted, grouped, and judged together.
//!
//! Run `k` of a sweep has the seed `hash(base, k)` and depends on nothing else, so it reproduces
//! alone, and a sweep that is split over machines has the same runs as one that is not. What comes
//! of a run is an [`Outcome`], one line of JSON; a [`Summary`] is made of outcomes, in any order,
//! wherever they come from, and stays small however many there are.

mod render;
mod run;
mod summary;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::{Verdict, judge};
use crate::scenario::{Scenario, draw};
use crate::seed::Seed;
use crate::world;

pub use render::{ANNOTATIONS_MAX, annotations, junit};
pub use run::{Ended, Progress, Sweep, Tally, sweep};
pub use summary::{ByFault, Group, Reach, Reached, Summary};

/// What came of one run of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// In one word.
    pub verdict: Word,
    /// What is wrong: the checker and its sentence, the first first.
    pub findings: Vec<(String, String)>,
    /// The marks that the run reached.
    pub marks: Vec<String>,
    /// How many faults of each kind were injected.
    pub faults: BTreeMap<String, u64>,
    /// How many events the applications got.
    pub delivered: u64,
    /// How much of what happened the outside could see.
    pub seen: usize,
    /// How much virtual time went by.
    pub virtual_ms: u64,
}

/// A verdict in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Everything held.
    Pass,
    /// A fixed scenario did not reach its marks.
    Inconclusive,
    /// No progress after healing.
    Liveness,
    /// Safety was violated.
    Violation,
    /// The simulation broke.
    Broken,
}

/// How many findings of a run are kept.
const FINDINGS_MAX: usize = 3;

/// How many threads there are work for.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Carries out one run and judges it. `mutant` is the known-bad variant that is run instead of the
/// implementation, by its id.
pub fn outcome(scenario: &Scenario, seed: Seed, mutant: Option<&str>) -> Outcome {
    let mut plan = draw(scenario, seed);
    plan.mutant = mutant.map(str::to_owned);
    let run = match world::run_untraced(&plan) {
        Ok(run) => run,
        Err(error) => {
            return Outcome {
                scenario: scenario.id.clone(),
                seed: seed.0,
                verdict: Word::Broken,
                findings: vec![("simulation".to_owned(), error.problem)],
                marks: vec![],
                faults: BTreeMap::new(),
                delivered: 0,
                seen: 0,
                virtual_ms: 0,
            };
        }
    };
    let (verdict, findings) = match judge(&run) {
        Verdict::Pass => (Word::Pass, vec![]),
        Verdict::Violation(violations) => (Word::Violation, violations),
        Verdict::Liveness(violations) => (Word::Liveness, violations),
        Verdict::Inconclusive(_) => (Word::Inconclusive, vec![]),
    };
    let findings = findings.into_iter().take(FINDINGS_MAX);
    Outcome {
        scenario: scenario.id.clone(),
        seed: seed.0,
        verdict,
        findings: findings.map(|found| (found.checker.to_owned(), found.message)).collect(),
        marks: run.marks.keys().map(|mark| (*mark).to_owned()).collect(),
        faults: run.faults.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
        delivered: run.history.delivered(),
        seen: run.history.entries.len(),
        virtual_ms: run.virtual_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Library;
    use crate::trace::Trace;

    #[test]
    fn a_run_without_a_trace_is_the_same_in_all_that_is_judged_and_counted() {
        for scenario in ["events/swarm", "session/swarm", "tasks/swarm"] {
            let scenario = Library::embedded().get(scenario).expect("it is embedded");
            for seed in (1..=6).map(Seed) {
                let plan = draw(&scenario, seed);
                let traced = world::run(&plan).expect("it is carried out");
                let untraced = world::run_untraced(&plan).expect("it is carried out");
                assert!(!traced.trace.records.is_empty() && untraced.trace.records.is_empty());
                let traced = world::Run { trace: Trace::default(), ..traced };
                assert_eq!(traced, untraced, "{} {seed}", scenario.id);
            }
        }
    }
}
