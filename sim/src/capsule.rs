//! A capsule: a failing run in one file, to be had again after the code has changed.
//!
//! It holds the plan, with its seed, its options and the known-bad variant that was run, and what
//! came of it at which commit. Whoever carries it out again is told whether the same comes of it.

use std::collections::BTreeMap;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::check::Verdict;
use crate::plan::Plan;
use crate::sweep::Word;

/// The version of the format.
pub const FORMAT: u32 = 1;

/// A run that somebody wants to keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capsule {
    /// [`FORMAT`].
    pub capsule: u32,
    /// The commit of the program; absent = not known.
    pub commit: Option<String>,
    /// What came of the run.
    pub recorded: Recorded,
    /// What to do with it, by purpose.
    pub commands: BTreeMap<String, String>,
    /// Everything that the run does.
    pub plan: Plan,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// In one word.
    pub verdict: Word,
    /// What is wrong, the first first.
    pub findings: Vec<Found>,
    /// The marks that were not reached.
    pub unreached: Vec<String>,
    /// The hash of everything that happened.
    pub trace_hash: String,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// The checker that says so.
    pub checker: String,
    /// What is wrong, as one sentence.
    pub message: String,
    /// When it became visible.
    pub at_ms: u64,
}

impl Recorded {
    /// What came of a run, from its verdict and the hash of its trace.
    pub fn new(verdict: &Verdict, trace_hash: String) -> Self {
        let (verdict, findings, unreached) = match verdict {
            Verdict::Pass => (Word::Pass, &[][..], &[][..]),
            Verdict::Violation(violations) => (Word::Violation, &violations[..], &[][..]),
            Verdict::Liveness(violations) => (Word::Liveness, &violations[..], &[][..]),
            Verdict::Inconclusive(marks) => (Word::Inconclusive, &[][..], &marks[..]),
        };
        let findings = findings.iter().map(|violation| Found {
            checker: violation.checker.to_owned(),
            message: violation.message.clone(),
            at_ms: violation.at_ms,
        });
        let findings = findings.collect();
        Self { verdict, findings, unreached: unreached.to_vec(), trace_hash }
    }

    /// Whether the same came of both: the same verdict, by the same checkers.
    pub fn is_same(&self, other: &Self) -> bool {
        self.verdict == other.verdict
            && self.unreached == other.unreached
            && self.checkers() == other.checkers()
    }

    /// The checkers that failed, each once, in the order of their names.
    fn checkers(&self) -> Vec<&str> {
        let mut checkers: Vec<&str> =
            self.findings.iter().map(|found| found.checker.as_str()).collect();
        checkers.sort_unstable();
        checkers.dedup();
        checkers
    }

    /// The verdict with its checkers, in a few words.
    pub fn words(&self) -> String {
        let verdict = match self.verdict {
            Word::Pass => "everything held",
            other => other.describe(),
        };
        match self.checkers().as_slice() {
            [] => verdict.to_owned(),
            checkers => format!("{verdict} of {}", checkers.join(", ")),
        }
    }
}

/// The commit of the working tree in which the program lies, as `git describe` names it, with a
/// `+` if something was changed since. `None` where there is no git or no working tree.
pub fn commit() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let described = Command::new("git")
        .arg("-C")
        .arg(program.parent()?)
        .args(["describe", "--always", "--abbrev=12", "--dirty=+"])
        .output()
        .ok()?;
    let name = String::from_utf8(described.stdout).ok()?.trim().to_owned();
    (described.status.success() && !name.is_empty()).then_some(name)
}
