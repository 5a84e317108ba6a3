//! The scenarios against an implementation: one case at a time.

use std::sync::{Arc, Mutex};

use super::node::{Node, NodeError, SharedNode};
use super::on_demand::OnDemand;
use super::process::{Launch, Process};
use super::profile::{Fit, Profile};
use super::protocol::{ClockKind, Hello, Role};
use super::recorded::{Recorded, SharedLines};
use super::reference::Reference;
use crate::check::{CHECKERS, Verdict, Violation, judge, violations};
use crate::plan::{Plan, Protocol};
use crate::spec::Spec;
use crate::world::{Attached, Run, run_with};

/// Where the nodes of an implementation come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The reference implementation, in this process; or a known-bad variant of it.
    Reference(Option<String>),
    /// An adapter.
    Adapter(Launch),
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdicted {
    /// Everything held.
    Pass,
    /// Nothing that must hold did not, but something that should.
    Warn(Vec<Violation>),
    /// Something that must hold did not.
    Fail(Vec<Violation>),
    /// What the scenario is about did not happen: these marks were not reached.
    Inconclusive(Vec<String>),
    /// The implementation has not announced what it needs.
    Unsupported(Vec<String>),
    /// The implementation crashed.
    Crash(String),
    /// The adapter did not do its part, or the simulator.
    Error(String),
    /// It does something else each time.
    Nondeterminism(String),
}

/// One case that was played.
#[derive(Debug, Clone)]
pub struct Played {
    /// What came of it.
    pub verdict: Verdicted,
    /// What was left out of what a seed drew.
    pub left_out: Vec<String>,
    /// The run, if there was one to the end.
    pub run: Option<Box<Run>>,
    /// The error of a node that ended it, if one did.
    pub error: Option<NodeError>,
    /// The last things that happened, if it did not come to an end.
    pub last: Vec<String>,
}

/// The most hosts that a side has.
pub const SEATS_MAX: usize = 4;

/// The protocol of which a role is a part.
pub fn protocol(role: Role) -> Protocol {
    match role {
        Role::EventsClient | Role::EventsServer => Protocol::Events,
        Role::SessionClient | Role::SessionServer => Protocol::Session,
        Role::TasksAgent | Role::TasksController => Protocol::Tasks,
    }
}

/// Makes as many nodes of an implementation as a plan may need. The first process of an adapter is
/// started at once, the others when they are needed.
///
/// # Errors
///
/// [`NodeError`] if the first of them cannot be made; [`NodeError::Unsupported`] if it does not play
/// the role, or cannot be driven in lockstep.
pub fn attach(role: Role, source: &Source, seats: usize) -> Result<Attached, NodeError> {
    let (hello, nodes) = nodes(role, source, seats)?;
    Ok(Attached::new(role, hello, nodes))
}

fn nodes(role: Role, source: &Source, seats: usize) -> Result<(Hello, Vec<SharedNode>), NodeError> {
    let (hello, first): (Hello, SharedNode) = match source {
        Source::Reference(mutant) => {
            let node = reference(role, mutant.as_deref())?;
            (node.hello().clone(), Arc::new(Mutex::new(node)))
        }
        Source::Adapter(launch) => {
            let process = Process::start(launch, &nonce(role, 0))?;
            let node = OnDemand::running(launch, process);
            (node.hello().clone(), Arc::new(Mutex::new(node)))
        }
    };
    if !hello.roles.contains(&role) {
        let plays: Vec<&str> = hello.roles.iter().map(|role| role.as_str()).collect();
        let plays = if plays.is_empty() { "nothing".to_owned() } else { plays.join(", ") };
        return Err(NodeError::Unsupported(vec![format!("the role {role} (it plays {plays})")]));
    }
    if hello.clock == ClockKind::Real {
        return Err(NodeError::Unsupported(vec!["lockstep (its clock is real)".to_owned()]));
    }
    let mut nodes = vec![first];
    for seat in 1..seats {
        nodes.push(another(role, source, &hello, seat)?);
    }
    Ok((hello, nodes))
}

/// As [`attach`], and what is said to each node is written down.
///
/// # Errors
///
/// As [`attach`].
pub fn attach_recorded(
    role: Role,
    source: &Source,
    seats: usize,
) -> Result<(Attached, Vec<SharedLines>), NodeError> {
    let (hello, nodes) = nodes(role, source, seats)?;
    let (mut recorded, mut lines) = (Vec::<SharedNode>::new(), Vec::new());
    for (seat, node) in nodes.into_iter().enumerate() {
        let said = SharedLines::default();
        let hello = Hello { nonce: nonce(role, seat), ..hello.clone() };
        recorded.push(Arc::new(Mutex::new(Recorded::new(node, &hello, Arc::clone(&said)))));
        lines.push(said);
    }
    Ok((Attached::new(role, hello, recorded), lines))
}

/// As [`attach`], of an implementation that has introduced itself in another process; nothing is
/// started yet.
///
/// # Errors
///
/// [`NodeError`] if the reference implementation does not play the role.
pub fn attach_again(
    role: Role,
    source: &Source,
    hello: &Hello,
    seats: usize,
) -> Result<Attached, NodeError> {
    let nodes: Result<Vec<SharedNode>, NodeError> =
        (0..seats).map(|seat| another(role, source, hello, seat)).collect();
    Ok(Attached::new(role, hello.clone(), nodes?))
}

fn another(
    role: Role,
    source: &Source,
    hello: &Hello,
    seat: usize,
) -> Result<SharedNode, NodeError> {
    Ok(match source {
        Source::Reference(mutant) => Arc::new(Mutex::new(reference(role, mutant.as_deref())?)),
        Source::Adapter(launch) => {
            Arc::new(Mutex::new(OnDemand::new(launch, nonce(role, seat), hello)))
        }
    })
}

fn reference(role: Role, mutant: Option<&str>) -> Result<Reference, NodeError> {
    Reference::new(role, mutant).map_err(|error| NodeError::NotStarted(error.to_string()))
}

fn nonce(role: Role, seat: usize) -> String {
    format!("{role}-{seat}")
}

/// Plays a case. `drawn` says that a seed drew the plan, so that what does not apply may be left out
/// of it.
pub fn play(attached: &Attached, plan: &Plan, drawn: bool) -> Played {
    let profile = Profile::new(attached.role(), attached.hello());
    let (plan, left_out) = match profile.fit(plan, drawn) {
        Fit::Runs { plan, left_out } => (plan, left_out),
        Fit::Unsupported(needs) => {
            let verdict = Verdicted::Unsupported(needs);
            let (left_out, last) = (Vec::new(), Vec::new());
            return Played { verdict, left_out, run: None, error: None, last };
        }
    };
    match run_with(&plan, Some(attached)) {
        Ok(run) => {
            let verdict = judged(&run);
            let (run, last) = (Some(Box::new(run)), Vec::new());
            Played { verdict, left_out, run, error: None, last }
        }
        Err(error) => {
            let problem = error.problem.clone();
            let verdict = match error.node.as_deref() {
                Some(NodeError::Died { .. } | NodeError::Panicked(_)) => Verdicted::Crash(problem),
                Some(NodeError::Nondeterministic(_)) => Verdicted::Nondeterminism(problem),
                Some(NodeError::Unsupported(needs)) => Verdicted::Unsupported(needs.clone()),
                Some(_) | None => Verdicted::Error(problem),
            };
            Played {
                verdict,
                left_out,
                run: None,
                error: error.node.map(|node| *node),
                last: error.last,
            }
        }
    }
}

/// As [`judge`], and what is advice apart.
fn judged(run: &Run) -> Verdicted {
    let advice = |violation: &Violation| is_advice(violation.statements);
    match judge(run) {
        Verdict::Pass => Verdicted::Pass,
        Verdict::Inconclusive(marks) => Verdicted::Inconclusive(marks),
        Verdict::Violation(safety) if safety.iter().all(advice) => {
            // Progress is judged behind safety, and advice hides no duty.
            let (_, liveness) = violations(&run.history, &run.plan);
            match liveness.iter().all(advice) {
                true => Verdicted::Warn(safety.into_iter().chain(liveness).collect()),
                false => Verdicted::Fail(safety.into_iter().chain(liveness).collect()),
            }
        }
        Verdict::Liveness(found) if found.iter().all(advice) => Verdicted::Warn(found),
        Verdict::Violation(found) | Verdict::Liveness(found) => Verdicted::Fail(found),
    }
}

/// Whether every one of these statements is a SHOULD or a MAY. What the specification does not know
/// is taken for a MUST.
pub(super) fn is_advice(ids: &[impl AsRef<str>]) -> bool {
    let spec = Spec::shared();
    !ids.is_empty()
        && ids.iter().all(|id| {
            let mut covered = spec
                .statements()
                .filter(|statement| statement.is_covered_by(id.as_ref()))
                .peekable();
            covered.peek().is_some() && covered.all(|statement| statement.level != "MUST")
        })
}

/// Whether a checker judges progress after healing.
pub(super) fn judges_progress(checker: &str) -> bool {
    CHECKERS.iter().any(|known| known.name == checker && known.liveness)
}

#[cfg(test)]
mod tests {
    use super::{is_advice, judges_progress};
    use crate::spec::Spec;

    #[test]
    fn only_what_no_must_demands_is_advice() {
        let of = |level: &str| {
            let mut all = Spec::shared().statements();
            all.find(|statement| statement.level == level).expect("one of the level").id.clone()
        };
        let (must, should) = (of("MUST"), of("SHOULD"));
        assert!(is_advice(std::slice::from_ref(&should)));
        assert!(!is_advice(&[should, must]));
        assert!(!is_advice(&["EV-999"]), "what is not known is a MUST");
        assert!(!is_advice(&[] as &[&str]));
    }

    #[test]
    fn a_group_is_advice_only_if_all_of_it_is() {
        assert!(!is_advice(&["CORE-1"]));
    }

    #[test]
    fn progress_is_told_from_safety() {
        assert!(judges_progress("progress"));
        assert!(!judges_progress("no_loss"));
    }
}
