//! What is written down of a conformance run: one JSON object per line, from which every report can
//! be made again.
//!
//! The first line says who was tested, each further one what came of a case, the last one the sum.
//! Seeds are decimal text, because not every reader has whole numbers of 64 bits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::node::NodeError;
use super::protocol::{Hello, Role};
use super::suite::{Played, Verdicted, is_advice, judges_progress};
use crate::exit;

/// The version of the form of these lines.
pub const FORMAT: u32 = 1;

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// The first.
    Start(Box<Start>),
    /// One for each case, in their order.
    Run(Box<Outcome>),
    /// The last.
    End(End),
}

/// Who was tested, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the suite.
    pub suite: String,
    /// The part that was played.
    pub role: Role,
    /// How the implementation introduced itself.
    pub implementation: Hello,
    /// The command that starts the adapter; absent for the reference in the same process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// The known-bad variant of the reference that was played, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// The seed from which the seeds of the cases follow.
    pub base: String,
    /// How many cases there are.
    pub cases: u64,
}

impl Start {
    /// Its name, and which variant it is if it is one.
    pub fn name(&self) -> String {
        let name = &self.implementation.name;
        self.mutant.as_ref().map_or_else(|| name.clone(), |mutant| format!("{name} as {mutant}"))
    }

    /// The command that plays one case again.
    pub fn again(&self, outcome: &Outcome) -> String {
        // What cannot be quoted holds a zero byte, which no command line can.
        let quoted =
            |text: &str| shlex::try_quote(text).map_or_else(|_| text.to_owned(), Into::into);
        let attach = match (&self.adapter, &self.mutant) {
            (Some(command), _) => format!(" --adapter {}", quoted(command)),
            (None, Some(mutant)) => format!(" --mutant {mutant}"),
            (None, None) => String::new(),
        };
        let (role, Outcome { case, seed, .. }) = (self.role, outcome);
        format!("gapless-sim conform --role {role}{attach} {case} --seed {seed}")
    }
}

/// A verdict in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Everything held.
    Pass,
    /// Only what should hold did not.
    Warn,
    /// The implementation has not announced what it needs.
    Unsupported,
    /// What the scenario is about did not happen.
    Inconclusive,
    /// Something that must hold did not.
    Fail,
    /// The implementation crashed.
    Crash,
    /// The adapter, or the simulator, did not do its part.
    Error,
    /// The same case went differently.
    Nondeterminism,
}

impl Word {
    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Unsupported => "unsupported",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
            Self::Crash => "crash",
            Self::Error => "error",
            Self::Nondeterminism => "nondeterminism",
        }
    }

    /// Whether it is something that has to be mended or expected.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Pass | Self::Warn | Self::Unsupported)
    }
}

/// What ended a case before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The implementation crashed, and its adapter said so.
    Panicked,
    /// The process cannot be started.
    NotStarted,
    /// The process ended.
    Died,
    /// There was no answer in time.
    Hung,
    /// The answer was none.
    Garbage,
    /// There was an answer without a question.
    Unasked,
    /// The reply broke a rule of the adapter protocol.
    Misused,
    /// It did something else, or at another time.
    Nondeterministic,
    /// The simulation broke.
    Simulator,
}

impl Cause {
    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Panicked => "panicked",
            Self::NotStarted => "not_started",
            Self::Died => "died",
            Self::Hung => "hung",
            Self::Garbage => "garbage",
            Self::Unasked => "unasked",
            Self::Misused => "misused",
            Self::Nondeterministic => "nondeterministic",
            Self::Simulator => "simulator",
        }
    }

    fn of(error: Option<&NodeError>) -> Option<Self> {
        Some(match error {
            None => Self::Simulator,
            Some(NodeError::NotStarted(_)) => Self::NotStarted,
            Some(NodeError::Died { .. }) => Self::Died,
            Some(NodeError::Hung { .. }) => Self::Hung,
            Some(NodeError::Garbage { .. }) => Self::Garbage,
            Some(NodeError::Unasked { .. }) => Self::Unasked,
            Some(NodeError::Misused(_)) => Self::Misused,
            Some(NodeError::Panicked(_)) => Self::Panicked,
            Some(NodeError::Nondeterministic(_)) => Self::Nondeterministic,
            Some(NodeError::Unsupported(_)) => return None,
        })
    }
}

/// Something that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The checker that found it.
    pub checker: String,
    /// The statements for which the checker stands.
    pub statements: Vec<String>,
    /// A sentence that names the events.
    pub message: String,
    /// When it became visible, in virtual time.
    pub at_ms: u64,
    /// Whether it is progress that was not made, and not safety.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub liveness: bool,
    /// Whether it only should hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub advice: bool,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario.
    pub case: String,
    /// The seed, as decimal text.
    pub seed: String,
    /// Whether the seed drew what happens: a swarm.
    pub swarm: bool,
    /// The statements that the scenario is about.
    pub statements: Vec<String>,
    /// In one word.
    pub verdict: Word,
    /// Whether an expectation covers it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expected: bool,
    /// What did not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// What is not supported, or which marks were not reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// What ended it before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The same as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What was left out of what the seed drew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Whether it was played again in a fresh process, and went the same way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// A hash over what the outside could see, without times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// A hash over everything that happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// How much happened.
    pub records: usize,
    /// How much virtual time went by.
    pub virtual_ms: u64,
}

/// The sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How many cases had each verdict; those that are expected are counted apart.
    pub verdicts: BTreeMap<Word, u64>,
    /// How many failed as expected.
    pub expected: u64,
    /// How many were not played, because the adapter had failed too often.
    pub not_run: u64,
    /// What is wrong with the expectations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<String>,
    /// What went wrong outside of the cases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The exit code.
    pub exit: u8,
}

impl Outcome {
    /// What came of playing a case.
    pub fn new(case: &str, seed: u64, swarm: bool, statements: &[String], played: &Played) -> Self {
        let mut outcome = Self {
            case: case.to_owned(),
            seed: seed.to_string(),
            swarm,
            statements: statements.to_vec(),
            verdict: Word::Pass,
            expected: false,
            findings: Vec::new(),
            lacks: Vec::new(),
            cause: None,
            problem: None,
            left_out: played.left_out.clone(),
            repeated: false,
            history: played.run.as_ref().map(|run| run.history.hash()),
            trace: played.run.as_ref().map(|run| run.trace.hash()),
            records: played.run.as_ref().map_or(0, |run| run.trace.records.len()),
            virtual_ms: played.run.as_ref().map_or(0, |run| run.virtual_ms),
        };
        outcome.judge(&played.verdict, played.error.as_ref());
        outcome
    }

    /// Takes a verdict over.
    pub(super) fn judge(&mut self, verdict: &Verdicted, error: Option<&NodeError>) {
        self.verdict = match verdict {
            Verdicted::Pass => Word::Pass,
            Verdicted::Warn(_) => Word::Warn,
            Verdicted::Fail(_) => Word::Fail,
            Verdicted::Inconclusive(_) => Word::Inconclusive,
            Verdicted::Unsupported(_) => Word::Unsupported,
            Verdicted::Crash(_) => Word::Crash,
            Verdicted::Error(_) => Word::Error,
            Verdicted::Nondeterminism(_) => Word::Nondeterminism,
        };
        match verdict {
            Verdicted::Pass => {}
            Verdicted::Warn(violations) | Verdicted::Fail(violations) => {
                let findings = violations.iter().map(|violation| Finding {
                    checker: violation.checker.to_owned(),
                    statements: violation.statements.iter().map(ToString::to_string).collect(),
                    message: violation.message.clone(),
                    at_ms: violation.at_ms,
                    liveness: judges_progress(violation.checker),
                    advice: is_advice(violation.statements),
                });
                self.findings = findings.collect();
            }
            Verdicted::Inconclusive(lacks) | Verdicted::Unsupported(lacks) => {
                self.lacks.clone_from(lacks);
            }
            Verdicted::Crash(problem) | Verdicted::Error(problem) => {
                self.problem = Some(problem.clone());
                self.cause = Cause::of(error);
            }
            Verdicted::Nondeterminism(problem) => {
                self.problem = Some(problem.clone());
                self.cause = Some(Cause::Nondeterministic);
            }
        }
    }

    /// The exit code that it stands for if nothing covers it.
    pub fn code(&self) -> u8 {
        match (self.verdict, self.cause) {
            (Word::Pass | Word::Warn, _) => exit::OK,
            (Word::Unsupported, _) => exit::NOTHING_RAN,
            (Word::Inconclusive, _) => exit::INCONCLUSIVE,
            (Word::Fail, _) if self.duties().all(|finding| finding.liveness) => exit::LIVENESS,
            (Word::Fail, _) | (Word::Crash, Some(Cause::Panicked)) => exit::VIOLATION,
            (Word::Nondeterminism, _) => exit::NONDETERMINISM,
            (Word::Error, Some(Cause::Simulator)) => exit::INTERNAL,
            (Word::Crash | Word::Error, _) => exit::ADAPTER,
        }
    }

    /// What must hold, and did not.
    pub fn duties(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.advice)
    }

    /// What it was, for a group of those that failed alike.
    pub fn kind(&self) -> String {
        let checker = self.duties().next().or(self.findings.first()).map(|it| it.checker.clone());
        checker
            .or_else(|| self.cause.map(|cause| cause.as_str().to_owned()))
            .unwrap_or_else(|| format!("marks of {}", self.case))
    }

    /// What is wrong, as one sentence.
    pub fn sentence(&self) -> String {
        let finding = self.duties().next().or(self.findings.first());
        match (finding, &self.problem) {
            (Some(finding), _) => finding.message.clone(),
            (None, Some(problem)) => problem.clone(),
            (None, None) => match self.verdict {
                Word::Unsupported => format!("it needs {}", self.lacks.join(", ")),
                Word::Inconclusive => format!("not reached: {}", self.lacks.join(", ")),
                _ => String::new(),
            },
        }
    }
}
