//! The scenarios against an implementation.

use std::sync::{Arc, Mutex};

use super::node::{Node, NodeError, SharedNode};
use super::process::{Launch, Process};
use super::profile::{Fit, Profile};
use super::protocol::{Hello, Role};
use super::reference::Reference;
use crate::check::{Verdict, Violation, judge};
use crate::plan::Plan;
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
    /// The error that ended it, if one did.
    pub error: Option<NodeError>,
}

/// The most hosts that a side has.
pub const SEATS_MAX: usize = 4;

/// Makes as many nodes of an implementation as a plan may need.
///
/// # Errors
///
/// [`NodeError`] if the first of them cannot be made.
pub fn attach(role: Role, source: &Source, seats: usize) -> Result<Attached, NodeError> {
    let mut nodes: Vec<SharedNode> = Vec::new();
    let mut hello: Option<Hello> = None;
    for seat in 0..seats {
        let node: SharedNode = match source {
            Source::Reference(mutant) => {
                let node = Reference::new(role, mutant.as_deref())
                    .map_err(|error| NodeError::NotStarted(error.to_string()))?;
                hello.get_or_insert_with(|| node.hello().clone());
                Arc::new(Mutex::new(node))
            }
            Source::Adapter(launch) => {
                let node = Process::start(launch, &format!("{role}-{seat}"))?;
                hello.get_or_insert_with(|| node.hello().clone());
                Arc::new(Mutex::new(node))
            }
        };
        nodes.push(node);
    }
    let Some(hello) = hello else {
        return Err(NodeError::NotStarted("no node is wanted".to_owned()));
    };
    if !hello.roles.contains(&role) {
        return Err(NodeError::Unsupported(vec![role.to_string()]));
    }
    Ok(Attached::new(role, hello, nodes))
}

/// Plays a case. `drawn` says that a seed drew the plan.
pub fn play(attached: &Attached, plan: &Plan, drawn: bool) -> Played {
    let profile = Profile::new(attached.role(), attached.hello());
    let (plan, left_out) = match profile.fit(plan, drawn) {
        Fit::Runs { plan, left_out } => (plan, left_out),
        Fit::Unsupported(needs) => {
            let verdict = Verdicted::Unsupported(needs);
            return Played { verdict, left_out: Vec::new(), run: None, error: None };
        }
    };
    match run_with(&plan, Some(attached)) {
        Ok(run) => {
            let verdict = match judge(&run) {
                Verdict::Pass => Verdicted::Pass,
                Verdict::Violation(violations) | Verdict::Liveness(violations) => {
                    Verdicted::Fail(violations)
                }
                Verdict::Inconclusive(marks) => Verdicted::Inconclusive(marks),
            };
            Played { verdict, left_out, run: Some(Box::new(run)), error: None }
        }
        Err(error) => {
            let problem = error.problem.clone();
            let verdict = match &error.node {
                Some(NodeError::Died { .. } | NodeError::Panicked(_)) => Verdicted::Crash(problem),
                Some(NodeError::Nondeterministic(_)) => Verdicted::Nondeterminism(problem),
                Some(NodeError::Unsupported(needs)) => Verdicted::Unsupported(needs.clone()),
                Some(_) | None => Verdicted::Error(problem),
            };
            Played { verdict, left_out, run: None, error: error.node }
        }
    }
}
