//! Which statements a sweep has exercised, from its `--jsonl` files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::sweep::read;
use super::{Failure, diagnostic};
use crate::check;
use crate::plan::Protocol;
use crate::scenario::{Library, Scenario};
use crate::spec::{Spec, Statement};
use crate::sweep::{Outcome, Word};

/// What counts, as the command prints it.
pub(super) const MEANS: &str = "a statement is exercised by a run in which a fixed scenario about \
     it reached all of its marks, or in which a swarm or a checker that stands for it saw a mark \
     that a fixed scenario about it has to reach (any run, where those name no mark)";

/// What a sweep has exercised.
pub(super) struct Swept {
    /// How many runs there were.
    pub(super) runs: u64,
    /// By id of a statement: in how many of them, and the first of these.
    by_statement: BTreeMap<String, (u64, String)>,
}

/// What has to happen in a run for a statement.
struct Wanted {
    id: String,
    /// The fixed scenarios about it.
    fixed: BTreeSet<String>,
    /// The marks that these have to reach.
    marks: BTreeSet<String>,
    /// The swarms about it.
    swarms: BTreeSet<String>,
    /// The protocols of which a checker stands for it.
    judged: Vec<Protocol>,
}

impl Swept {
    /// Reads the runs of some files.
    pub(super) fn of(files: &[PathBuf], spec: &Spec, library: &Library) -> Result<Self, Failure> {
        let mut scenarios = BTreeMap::new();
        for id in library.ids() {
            scenarios.insert(id.to_owned(), library.get(id).map_err(diagnostic)?);
        }
        let statements = spec.statements().filter(|one| one.not_simulated.is_none());
        let wanted: Vec<Wanted> = statements.map(|one| wanted(one, &scenarios)).collect();
        let mut swept = Self { runs: 0, by_statement: BTreeMap::new() };
        for path in files {
            read(path, &mut |_, outcome| {
                let Some(scenario) = scenarios.get(&outcome.scenario) else {
                    return Err(format!("there is no scenario `{}`", outcome.scenario));
                };
                swept.runs += 1;
                for wanted in &wanted {
                    if wanted.is_exercised_by(&outcome, scenario) {
                        let first = || (0, format!("{} {}", outcome.scenario, outcome.seed));
                        swept.by_statement.entry(wanted.id.clone()).or_insert_with(first).0 += 1;
                    }
                }
                Ok(())
            })?;
        }
        Ok(swept)
    }

    /// In how many runs a statement was exercised, and the first of them.
    pub(super) fn runs_of(&self, id: &str) -> Option<(u64, &str)> {
        self.by_statement.get(id).map(|(runs, first)| (*runs, first.as_str()))
    }
}

impl Wanted {
    fn is_exercised_by(&self, outcome: &Outcome, scenario: &Scenario) -> bool {
        if outcome.verdict == Word::Broken {
            return false;
        }
        if self.fixed.contains(&scenario.id) {
            return scenario.reaches.iter().all(|mark| outcome.marks.contains(mark));
        }
        let is_looked_at = self.swarms.contains(&scenario.id)
            || self.judged.contains(&scenario.options.protocol());
        is_looked_at
            && (self.marks.is_empty() || outcome.marks.iter().any(|mark| self.marks.contains(mark)))
    }
}

fn wanted(statement: &Statement, scenarios: &BTreeMap<String, Scenario>) -> Wanted {
    let stands = |cites: &[String]| cites.iter().any(|id| statement.is_covered_by(id));
    let mut wanted = Wanted {
        id: statement.id.clone(),
        fixed: BTreeSet::new(),
        marks: BTreeSet::new(),
        swarms: BTreeSet::new(),
        judged: [Protocol::Events, Protocol::Tasks, Protocol::Session]
            .into_iter()
            .filter(|protocol| {
                let mut cited = check::of(*protocol).into_iter().flat_map(|it| it.statements);
                cited.any(|id| statement.is_covered_by(id))
            })
            .collect(),
    };
    for scenario in scenarios.values().filter(|scenario| stands(&scenario.statements)) {
        match scenario.swarm {
            Some(_) => drop(wanted.swarms.insert(scenario.id.clone())),
            None => {
                wanted.fixed.insert(scenario.id.clone());
                wanted.marks.extend(scenario.reaches.iter().cloned());
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::Swept;
    use crate::scenario::Library;
    use crate::spec::Spec;
    use crate::sweep::{Outcome, Word};

    fn outcome(scenario: &str, verdict: Word, marks: &[&str]) -> Outcome {
        Outcome {
            scenario: scenario.to_owned(),
            seed: 7,
            verdict,
            findings: vec![],
            marks: marks.iter().map(|mark| (*mark).to_owned()).collect(),
            faults: BTreeMap::new(),
            delivered: 0,
            seen: 1,
            virtual_ms: 1,
        }
    }

    fn swept(outcomes: &[Outcome]) -> Swept {
        let folder = tempfile::tempdir().expect("a folder");
        let path: PathBuf = folder.path().join("runs.jsonl");
        let lines: Vec<_> = outcomes
            .iter()
            .map(|outcome| serde_json::to_string(outcome).expect("JSON") + "\n")
            .collect();
        std::fs::write(&path, lines.concat()).expect("it is written");
        let done = Swept::of(&[path], &Spec::embedded(), &Library::embedded());
        done.unwrap_or_else(|_| panic!("the file can be read"))
    }

    #[test]
    fn a_fixed_scenario_exercises_what_it_is_about_once_it_has_reached_its_marks() {
        let id = "events/cut-after-the-first-ping";
        let reached = swept(&[outcome(id, Word::Pass, &["events.verdict_replay"])]);
        assert_eq!(reached.runs_of("CORE-3a"), Some((1, "events/cut-after-the-first-ping 7")));
        assert_eq!(reached.runs_of("SE-1a"), None, "it is about another protocol");
        let missed = swept(&[outcome(id, Word::Inconclusive, &[])]);
        assert_eq!((missed.runs, missed.runs_of("CORE-3a")), (1, None));
    }

    #[test]
    fn a_swarm_exercises_a_statement_when_it_reaches_a_mark_that_a_scenario_about_it_names() {
        let nothing = swept(&[outcome("session/swarm", Word::Pass, &[])]);
        assert_eq!(nothing.runs_of("SE-1a"), None);
        let replayed = swept(&[outcome("session/swarm", Word::Pass, &["session.verdict_replay"])]);
        assert_eq!(replayed.runs_of("SE-1a").map(|(runs, _)| runs), Some(1));
        let broken = swept(&[outcome("session/swarm", Word::Broken, &["session.verdict_replay"])]);
        assert_eq!(broken.runs_of("SE-1a"), None);
    }
}
