//! What many runs say together.

use std::collections::BTreeMap;

use super::{Outcome, Word};
use crate::exit;
use crate::scenario::Scenario;

/// The sum of many outcomes. Its size depends on what can happen, not on how often it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many runs there were.
    pub runs: u64,
    /// How many of them passed.
    pub passed: u64,
    /// How many events the applications got.
    pub delivered: u64,
    /// How many faults of each kind were injected.
    pub faults: BTreeMap<String, u64>,
    /// In how many runs of each scenario each mark was reached.
    marks: BTreeMap<String, BTreeMap<String, u64>>,
    /// What the runs of each protocol reached, in all and under each kind of fault.
    by_fault: BTreeMap<String, ByFault>,
    /// How many runs each scenario had.
    runs_of: BTreeMap<String, u64>,
    /// The marks that each swarm has to reach.
    required: BTreeMap<String, Vec<String>>,
    /// What went wrong, by what it is.
    groups: BTreeMap<(Word, String), Group>,
}

/// What some runs reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// How many runs there were.
    pub runs: u64,
    /// In how many of them each mark was reached.
    pub marks: BTreeMap<String, u64>,
}

/// What runs reached, by the faults that they had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByFault {
    /// Of all of them.
    pub all: Reached,
    /// Of those in which faults of a kind were injected.
    pub with: BTreeMap<String, Reached>,
}

impl Reached {
    fn add(&mut self, marks: &[String]) {
        self.runs += 1;
        for mark in marks {
            *self.marks.entry(mark.clone()).or_default() += 1;
        }
    }
}

/// Runs that failed alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// How.
    pub verdict: Word,
    /// The checker that found it first.
    pub checker: String,
    /// How many.
    pub runs: u64,
    /// The shortest of them, and among those the one with the lowest seed.
    pub shortest: Outcome,
}

/// Whether the runs of a swarm reached what they have to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The swarm.
    pub scenario: String,
    /// How many runs it had.
    pub runs: u64,
    /// Each required mark, and in how many runs it was reached.
    pub marks: Vec<(String, u64)>,
}

impl Summary {
    /// The sum of nothing yet, of these scenarios.
    pub fn new(scenarios: &[Scenario]) -> Self {
        // A fixed scenario is judged by its marks in each run already.
        let swarms = scenarios.iter().filter(|scenario| scenario.swarm.is_some());
        let required =
            swarms.map(|scenario| (scenario.id.clone(), scenario.reaches.clone())).collect();
        Self { required, ..Self::default() }
    }

    /// Adds what came of a run. Says whether it reached a mark that no run of its scenario had.
    pub fn add(&mut self, outcome: &Outcome) -> bool {
        self.runs += 1;
        self.delivered += outcome.delivered;
        let protocol = outcome.scenario.split('/').next().unwrap_or_default();
        let by_fault = self.by_fault.entry(protocol.to_owned()).or_default();
        by_fault.all.add(&outcome.marks);
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
            by_fault.with.entry(kind.clone()).or_default().add(&outcome.marks);
        }
        *self.runs_of.entry(outcome.scenario.clone()).or_default() += 1;
        let marks = self.marks.entry(outcome.scenario.clone()).or_default();
        let mut news = false;
        for mark in &outcome.marks {
            let runs = marks.entry(mark.clone()).or_default();
            *runs += 1;
            news |= *runs == 1;
        }
        if outcome.verdict == Word::Pass {
            self.passed += 1;
            return news;
        }
        let checker = outcome.findings.first().map_or_else(
            || format!("marks of {}", outcome.scenario),
            |(checker, _)| checker.clone(),
        );
        let group = self.groups.entry((outcome.verdict, checker.clone())).or_insert_with(|| {
            Group { verdict: outcome.verdict, checker, runs: 0, shortest: outcome.clone() }
        });
        group.runs += 1;
        let size = |outcome: &Outcome| (outcome.seen, outcome.seed);
        if size(outcome) < size(&group.shortest) {
            group.shortest = outcome.clone();
        }
        news
    }

    /// What went wrong, the worst first.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values().rev()
    }

    /// How many runs did not pass.
    pub fn failed(&self) -> u64 {
        self.runs - self.passed
    }

    /// In how many runs each mark was reached, over all scenarios.
    pub fn marks(&self) -> BTreeMap<&str, u64> {
        let mut sum = BTreeMap::new();
        for (mark, runs) in self.marks.values().flatten() {
            *sum.entry(mark.as_str()).or_default() += runs;
        }
        sum
    }

    /// What the runs of each protocol reached, in all and under each kind of fault. The protocol
    /// is the first part of a scenario's id.
    pub fn by_fault(&self) -> &BTreeMap<String, ByFault> {
        &self.by_fault
    }

    /// How many runs each scenario had.
    pub fn scenarios(&self) -> &BTreeMap<String, u64> {
        &self.runs_of
    }

    /// What each swarm reached of what it has to.
    pub fn reach(&self) -> Vec<Reach> {
        let none = BTreeMap::new();
        let reach = self.required.iter().map(|(scenario, required)| {
            let reached = self.marks.get(scenario).unwrap_or(&none);
            let marks =
                required.iter().map(|mark| (mark.clone(), reached.get(mark).copied().unwrap_or(0)));
            let runs = self.runs_of.get(scenario).copied().unwrap_or(0);
            Reach { scenario: scenario.clone(), runs, marks: marks.collect() }
        });
        reach.collect()
    }

    /// The exit code: of the worst that happened. Reachability counts from `reach_seeds` runs of a
    /// swarm on.
    pub fn exit_code(&self, reach_seeds: u64) -> u8 {
        let worst = self.groups.keys().map(|(word, _)| *word).max();
        match worst {
            Some(Word::Broken) => exit::INTERNAL,
            Some(Word::Violation) => exit::VIOLATION,
            Some(Word::Liveness) => exit::LIVENESS,
            Some(Word::Inconclusive) => exit::INCONCLUSIVE,
            _ if self.reach().iter().any(|reach| reach.is_short(reach_seeds)) => exit::INCONCLUSIVE,
            _ if self.runs == 0 => exit::NOTHING_RAN,
            _ => exit::OK,
        }
    }
}

impl Reach {
    /// Whether there were enough runs, and still a mark was not reached.
    pub fn is_short(&self, reach_seeds: u64) -> bool {
        self.runs >= reach_seeds && self.marks.iter().any(|(_, runs)| *runs == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(seed: u64, verdict: Word, checker: Option<&str>, marks: &[&str]) -> Outcome {
        Outcome {
            scenario: "events/s".to_owned(),
            seed,
            verdict,
            findings: checker
                .map(|checker| (checker.to_owned(), "…".to_owned()))
                .into_iter()
                .collect(),
            marks: marks.iter().map(|mark| (*mark).to_owned()).collect(),
            faults: [("cut".to_owned(), 2)].into(),
            delivered: 1,
            seen: usize::try_from(100 - seed).expect("small"),
            virtual_ms: 1,
        }
    }

    fn summary(required: &[&str], outcomes: &[Outcome]) -> Summary {
        let required = required.iter().map(|mark| (*mark).to_owned()).collect();
        let mut summary =
            Summary { required: [("events/s".to_owned(), required)].into(), ..Summary::default() };
        for outcome in outcomes {
            summary.add(outcome);
        }
        summary
    }

    #[test]
    fn failures_are_grouped_by_what_was_found_and_shown_by_the_shortest() {
        let summary = summary(
            &[],
            &[
                outcome(1, Word::Violation, Some("no_loss"), &[]),
                outcome(2, Word::Violation, Some("no_loss"), &[]),
                outcome(3, Word::Liveness, Some("progress"), &[]),
                outcome(4, Word::Pass, None, &[]),
            ],
        );
        let groups: Vec<_> = summary
            .groups()
            .map(|group| (group.checker.as_str(), group.runs, group.shortest.seed))
            .collect();
        assert_eq!(groups, [("no_loss", 2, 2), ("progress", 1, 3)]);
        assert_eq!((summary.failed(), summary.faults["cut"]), (3, 8));
        assert_eq!(summary.exit_code(1), exit::VIOLATION);
    }

    #[test]
    fn the_order_of_outcomes_makes_no_difference() {
        let mut outcomes = vec![
            outcome(1, Word::Violation, Some("no_loss"), &["a"]),
            outcome(2, Word::Broken, Some("simulation"), &[]),
            outcome(3, Word::Pass, None, &["a", "b"]),
        ];
        let forward = summary(&["a"], &outcomes);
        outcomes.reverse();
        assert_eq!(summary(&["a"], &outcomes), forward);
        assert_eq!(forward.exit_code(1), exit::INTERNAL);
    }

    #[test]
    fn a_mark_that_is_never_reached_makes_a_large_sweep_inconclusive() {
        let summary = summary(
            &["a", "b"],
            &[outcome(1, Word::Pass, None, &["a"]), outcome(2, Word::Pass, None, &["a"])],
        );
        assert_eq!(summary.exit_code(2), exit::INCONCLUSIVE);
        assert_eq!(summary.exit_code(3), exit::OK, "too few runs to judge");
    }

    #[test]
    fn marks_are_counted_for_the_faults_that_the_run_had() {
        let mut other = outcome(2, Word::Pass, None, &["b"]);
        other.faults = [("crash".to_owned(), 1), ("cut".to_owned(), 1)].into();
        let summary = summary(&[], &[outcome(1, Word::Pass, None, &["a", "b"]), other]);
        let reached = |kind: &str, mark: &str| {
            let with = &summary.by_fault()["events"].with[kind];
            (with.runs, with.marks.get(mark).copied().unwrap_or(0))
        };
        assert_eq!((reached("cut", "a"), reached("cut", "b")), ((2, 1), (2, 2)));
        assert_eq!((reached("crash", "a"), reached("crash", "b")), ((1, 0), (1, 1)));
    }

    #[test]
    fn nothing_is_not_green() {
        assert_eq!(summary(&[], &[]).exit_code(1), exit::NOTHING_RAN);
    }
}
