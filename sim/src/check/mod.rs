//! Invariants: one per file, each a pure function over a history.
//!
//! A checker knows no fault and no implementation: it reads what the outside could see and says
//! what must not have happened, as one sentence that names the events. Checks are never relaxed
//! while faults are on.

mod events;
mod session;
mod symptom;
mod tasks;

pub use self::symptom::Symptom;
use crate::custom::{self, Sighting};
use crate::history::History;
use crate::plan::{Plan, Protocol, Topology};
use crate::world::Run;

/// The result of judging a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything held, and every required mark was reached.
    Pass,
    /// Safety was violated: the first violation first.
    Violation(Vec<Violation>),
    /// After healing, progress was not made in time.
    Liveness(Vec<Violation>),
    /// Nothing was violated, but these marks were not reached.
    Inconclusive(Vec<String>),
}

impl Verdict {
    /// What was violated; nothing if the run only did not show what it should.
    pub fn violations(&self) -> &[Violation] {
        match self {
            Self::Violation(violations) | Self::Liveness(violations) => violations,
            Self::Pass | Self::Inconclusive(_) => &[],
        }
    }
}

/// One invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The checker, by name.
    pub checker: &'static str,
    /// The statements of the specification that it stands for.
    pub statements: &'static [&'static str],
    /// What is wrong, as one sentence that names the events.
    pub message: String,
    /// When it became visible.
    pub at_ms: u64,
    /// The client that it concerns, if it is one.
    pub client: Option<u32>,
}

/// A named invariant.
#[derive(Clone, Copy)]
pub struct Checker {
    /// Its name, in messages and tables.
    pub name: &'static str,
    /// The statements that it stands for.
    pub statements: &'static [&'static str],
    /// Whether it judges progress after healing instead of safety.
    pub liveness: bool,
    /// What it demands, as one sentence.
    pub demands: &'static str,
    check: Check,
}

/// How a checker looks at a history.
#[derive(Clone, Copy)]
enum Check {
    Events(fn(&events::Facts<'_>) -> Vec<Finding>),
    Tasks(fn(&tasks::Facts<'_>) -> Vec<Finding>),
    Session(fn(&session::Facts<'_>) -> Vec<Finding>),
    Custom(fn(&History, &Plan) -> Vec<Finding>),
}

impl Checker {
    /// A checker of safety for a protocol that the user brought: `check` reads a history, and has a
    /// finding for each thing in it that must not have happened.
    pub const fn custom(
        name: &'static str,
        demands: &'static str,
        check: fn(&History, &Plan) -> Vec<Finding>,
    ) -> Self {
        let check = Check::Custom(check);
        Self { name, statements: &[], liveness: false, demands, check }
    }

    /// The same, for progress: what is owed at the end of a run, and did not arrive in time after
    /// healing.
    #[must_use]
    pub const fn of_progress(self) -> Self {
        Self { liveness: true, ..self }
    }

    /// The same, with the statements of a specification that it stands for.
    #[must_use]
    pub const fn standing_for(self, statements: &'static [&'static str]) -> Self {
        Self { statements, ..self }
    }
}

/// What a checker has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// When it became visible.
    pub at_ms: u64,
    /// The client that it concerns, if it is one.
    pub client: Option<u32>,
    /// What is wrong, as one sentence.
    pub message: String,
}

impl Finding {
    /// A finding that became visible with something that a host told.
    pub fn at<T>(seen: &Sighting<T>, message: impl Into<String>) -> Self {
        Self { at_ms: seen.at_ms, client: seen.host.client(), message: message.into() }
    }
}

/// The checkers of a protocol.
pub fn of(protocol: Protocol) -> Vec<&'static Checker> {
    if let Protocol::Custom(custom) = protocol {
        return custom.checkers().iter().collect();
    }
    let is_of = |checker: &&Checker| match checker.check {
        Check::Events(_) => protocol == Protocol::Events,
        Check::Tasks(_) => protocol == Protocol::Tasks,
        Check::Session(_) => protocol == Protocol::Session,
        Check::Custom(_) => false,
    };
    CHECKERS.iter().filter(is_of).collect()
}

/// The checker of a name, of any protocol of this program.
pub fn find(name: &str) -> Option<&'static Checker> {
    let custom = custom::registered().into_iter().flat_map(|protocol| protocol.checkers());
    CHECKERS.iter().chain(custom).find(|checker| checker.name == name)
}

/// Every invariant of the three protocols, safety first.
pub const CHECKERS: &[Checker] = &[
    events::LOSS,
    events::CURSOR,
    events::DUPLICATE,
    events::ORDER,
    events::NAME,
    events::CHAIN,
    events::PHANTOM,
    events::DURABLE,
    events::GAP,
    events::REPLAY,
    events::PROGRESS,
    tasks::ONCE,
    tasks::RESULT,
    tasks::KEPT,
    tasks::OUTPUT,
    tasks::DECLARED,
    tasks::STORED_FIRST,
    tasks::AGREED_FIRST,
    tasks::ASCENDS,
    tasks::CAUSE,
    tasks::ANSWERED,
    tasks::BOUNDS,
    tasks::PROGRESS,
    session::VIEWS,
    session::HISTORIES,
    session::VERDICT,
    session::NUMBERS,
    session::ACCEPTED,
    session::KEPT,
    session::DURABLE,
    session::APPLIED,
    session::QUESTION,
    session::TURNS,
    session::SUPERSEDED,
    session::BOUNDS,
    session::CONVERGE,
    session::SETTLE,
];

/// Judges a run: safety first, then progress, then whether the interesting things happened.
pub fn judge(run: &Run) -> Verdict {
    let (safety, liveness) = violations(&run.history, &run.plan);
    if !safety.is_empty() {
        return Verdict::Violation(safety);
    }
    if !liveness.is_empty() {
        return Verdict::Liveness(liveness);
    }
    let unreached: Vec<String> = run
        .plan
        .reaches
        .iter()
        .filter(|mark| !run.marks.contains_key(mark.as_str()))
        .cloned()
        .collect();
    match unreached.is_empty() {
        true => Verdict::Pass,
        false => Verdict::Inconclusive(unreached),
    }
}

/// What the checkers say of a history: violations of safety, and of progress, oldest first.
pub fn violations(history: &History, plan: &Plan) -> (Vec<Violation>, Vec<Violation>) {
    let mut found = Found::default();
    match plan.options.protocol() {
        Protocol::Events => return event_violations(history, &plan.topology),
        Protocol::Tasks => {
            let facts = tasks::Facts::new(history, plan);
            for checker in CHECKERS {
                if let Check::Tasks(check) = checker.check {
                    found.take(checker, check(&facts));
                }
            }
        }
        Protocol::Session => {
            let facts = session::Facts::new(history, plan);
            for checker in CHECKERS {
                if let Check::Session(check) = checker.check {
                    found.take(checker, check(&facts));
                }
            }
        }
        Protocol::Custom(custom) => {
            for checker in custom.checkers() {
                if let Check::Custom(check) = checker.check {
                    found.take(checker, check(history, plan));
                }
            }
        }
    }
    found.in_order()
}

/// The same of a history of events that no plan led to: of real processes, say.
pub fn event_violations(
    history: &History,
    topology: &Topology,
) -> (Vec<Violation>, Vec<Violation>) {
    let facts = events::Facts::new(history, topology);
    let mut found = Found::default();
    for checker in CHECKERS {
        if let Check::Events(check) = checker.check {
            found.take(checker, check(&facts));
        }
    }
    found.in_order()
}

/// What the checkers have said so far.
#[derive(Default)]
struct Found {
    safety: Vec<Violation>,
    liveness: Vec<Violation>,
}

impl Found {
    fn take(&mut self, checker: &Checker, findings: Vec<Finding>) {
        let list = if checker.liveness { &mut self.liveness } else { &mut self.safety };
        list.extend(findings.into_iter().map(|finding| Violation {
            checker: checker.name,
            statements: checker.statements,
            message: finding.message,
            at_ms: finding.at_ms,
            client: finding.client,
        }));
    }

    fn in_order(self) -> (Vec<Violation>, Vec<Violation>) {
        let Self { mut safety, mut liveness } = self;
        safety.sort_by_key(|violation| violation.at_ms);
        liveness.sort_by_key(|violation| violation.at_ms);
        (safety, liveness)
    }
}
