//! What many outcomes say together.

use std::collections::{BTreeMap, BTreeSet};

use super::expect::{Expectations, Ledger};
use super::node::NodeError;
use super::outcome::{End, Outcome, Start, Word};
use crate::exit;

/// Counts outcomes as they come, and holds them against what is expected.
#[derive(Debug, Clone)]
pub struct Tally<'a> {
    expectations: &'a Expectations,
    ledger: Ledger,
    /// How many had each verdict, without those that are expected.
    verdicts: BTreeMap<Word, u64>,
    expected: u64,
    adapter_failures: usize,
    not_run: u64,
    /// Sorted, because threads end in any order.
    problems: BTreeSet<String>,
    codes: BTreeSet<u8>,
}

impl<'a> Tally<'a> {
    /// Nothing yet.
    pub fn new(expectations: &'a Expectations) -> Self {
        Self {
            expectations,
            ledger: Ledger::default(),
            verdicts: BTreeMap::new(),
            expected: 0,
            adapter_failures: 0,
            not_run: 0,
            problems: BTreeSet::new(),
            codes: BTreeSet::new(),
        }
    }

    /// Takes an outcome down, and returns it with the word whether it is expected.
    pub fn take(&mut self, mut outcome: Outcome) -> Outcome {
        outcome.expected = self.ledger.take(self.expectations, &outcome);
        if outcome.expected {
            self.expected += 1;
            return outcome;
        }
        *self.verdicts.entry(outcome.verdict).or_default() += 1;
        let code = outcome.code();
        self.adapter_failures += usize::from(code == exit::ADAPTER);
        if outcome.verdict.is_failure() {
            self.codes.insert(code);
        }
        outcome
    }

    /// Something is wrong outside of the cases.
    pub fn problem(&mut self, error: &NodeError) {
        self.problems.insert(error.to_string());
    }

    /// So many cases were not played.
    pub fn not_run(&mut self, cases: usize) {
        self.not_run = cases as u64;
    }

    /// How many cases the adapter has failed in where nothing covers it.
    pub fn adapter_failures(&self) -> usize {
        self.adapter_failures
    }

    /// How many cases were played.
    pub fn played(&self) -> u64 {
        self.expected + self.verdicts.values().sum::<u64>()
    }

    /// How many of them failed where nothing covers it.
    pub fn failed(&self) -> u64 {
        let failures = self.verdicts.iter().filter(|(word, _)| word.is_failure());
        failures.map(|(_, count)| count).sum()
    }

    /// What was covered by what is expected.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The sum. `stale` is what is wrong with the expectations.
    pub fn end(&self, stale: Vec<String>) -> End {
        let unsupported = self.verdicts.get(&Word::Unsupported).copied().unwrap_or(0);
        let of_others = [
            (self.not_run > 0 || !self.problems.is_empty(), exit::ADAPTER),
            (!stale.is_empty(), exit::STALE_EXPECTATION),
            (self.played() == unsupported, exit::NOTHING_RAN),
        ];
        let of_others = of_others.into_iter().filter(|(holds, _)| *holds).map(|(_, code)| code);
        End {
            verdicts: self.verdicts.clone(),
            expected: self.expected,
            not_run: self.not_run,
            stale,
            problems: self.problems.iter().cloned().collect(),
            exit: exit::worst(self.codes.iter().copied().chain(of_others)),
        }
    }
}

/// Everything that is known after a conformance run, and from which every report is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// Who was tested.
    pub start: Start,
    /// What came of the cases, in their order.
    pub outcomes: Vec<Outcome>,
    /// The sum.
    pub end: End,
}

/// Cases that came out alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    /// How.
    pub verdict: Word,
    /// The checker that found it, or what went wrong.
    pub kind: String,
    /// How many.
    pub runs: u64,
    /// The shortest of them, and among those the first.
    pub shortest: &'a Outcome,
}

/// What was left out of swarms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How often.
    pub times: u64,
    /// In how many runs.
    pub runs: u64,
}

impl Results {
    /// Cases that failed, or only warn, where nothing covers it, the worst first.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let wanted = |outcome: &&Outcome| {
            !outcome.expected && !matches!(outcome.verdict, Word::Pass | Word::Unsupported)
        };
        let mut groups: BTreeMap<(Word, String), Group<'_>> = BTreeMap::new();
        for outcome in self.outcomes.iter().filter(wanted) {
            let (verdict, kind) = (outcome.verdict, outcome.kind());
            let group = groups.entry((verdict, kind.clone())).or_insert_with(|| Group {
                verdict,
                kind,
                runs: 0,
                shortest: outcome,
            });
            group.runs += 1;
            if outcome.records < group.shortest.records {
                group.shortest = outcome;
            }
        }
        groups.into_values().rev().collect()
    }

    /// What fixed scenarios need that the implementation does not have: the scenarios by what they
    /// need.
    pub fn unsupported(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for outcome in self.outcomes.iter().filter(|it| it.verdict == Word::Unsupported) {
            for lack in &outcome.lacks {
                needs.entry(lack).or_default().push(&outcome.case);
            }
        }
        needs
    }

    /// What was left out of swarms, by what it is and what it needs.
    pub fn left_out(&self) -> BTreeMap<(&str, &str), LeftOut> {
        let mut left: BTreeMap<(&str, &str), LeftOut> = BTreeMap::new();
        for line in self.outcomes.iter().flat_map(|outcome| &outcome.left_out) {
            let (what, needs) = line.split_once(": needs ").unwrap_or((line, ""));
            let counted = what
                .rsplit_once(" ×")
                .and_then(|(what, times)| times.parse::<u64>().ok().map(|times| (what, times)));
            let (what, times) = counted.unwrap_or((what, 1));
            let left = left.entry((what, needs)).or_default();
            left.times += times;
            left.runs += 1;
        }
        left
    }

    /// `598 passed, 4 failed as expected, 12 unsupported`.
    pub fn summary(&self) -> String {
        let count = |word: Word| self.end.verdicts.get(&word).copied().unwrap_or(0);
        let counts = [
            (count(Word::Pass), "passed"),
            (count(Word::Fail), "failed"),
            (count(Word::Crash), "crashed"),
            (count(Word::Error), "ended with an error"),
            (count(Word::Nondeterminism), "nondeterministic"),
            (count(Word::Inconclusive), "inconclusive"),
            (count(Word::Warn), "with a warning"),
            (self.end.expected, "failed as expected"),
            (count(Word::Unsupported), "unsupported"),
            (self.end.not_run, "not run"),
        ];
        let said = counts.iter().enumerate().filter(|(at, (count, _))| *at == 0 || *count > 0);
        said.map(|(_, (count, what))| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests;
