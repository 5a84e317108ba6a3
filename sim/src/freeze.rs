//! Makes a scenario of a failing plan, so that what it shows is looked for ever after.
//!
//! The scenario says everything that the plan says: drawn with its seed it is the same plan. It is
//! about what the checker that failed stands for.

use crate::check::find;
use crate::plan::Plan;
use crate::scenario::{Frozen, Invalid, Scenario, draw};
use crate::seed::Seed;
use crate::trace::Trace;

/// The folder of the scenarios that were frozen.
pub const FOLDER: &str = "regressions";

/// A plan cannot be frozen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FreezeError {
    /// The checker is not one of this program.
    #[error("there is no checker `{0}`")]
    Checker(String),
    /// What it says cannot be said in a file.
    #[error("the plan cannot be said in a scenario file")]
    Unsaid(#[source] Box<Invalid>),
    /// A file can be written, but another plan would be read from it.
    #[error("the scenario file would say something else than the plan")]
    Differs,
}

/// The scenario of a plan that fails, for the file `regressions/<name>`: `checker` says so, and
/// `shows` is its sentence.
///
/// # Errors
///
/// [`FreezeError`] if there is no file from which the same plan is drawn.
pub fn freeze(
    plan: &Plan,
    name: &str,
    checker: &str,
    shows: &str,
) -> Result<Scenario, FreezeError> {
    let known = find(checker).ok_or_else(|| FreezeError::Checker(checker.to_owned()))?;
    let seed = Seed(plan.seed);
    let scenario = Scenario {
        id: format!("{FOLDER}/{name}"),
        title: known.demands.to_owned(),
        statements: known.statements.iter().map(|statement| (*statement).to_owned()).collect(),
        reference: vec![format!("{} {seed}", plan.scenario)],
        reaches: plan.reaches.clone(),
        duration_ms: plan.duration_ms,
        settle_ms: plan.settle_ms,
        tick_ms: plan.tick_ms,
        topology: plan.topology.clone(),
        options: plan.options.clone(),
        steps: plan.steps.clone(),
        swarm: None,
        frozen: Some(Frozen {
            seed,
            mutant: plan.mutant.clone(),
            checker: checker.to_owned(),
            shows: shows.to_owned(),
        }),
    };
    let read = Scenario::parse(&scenario.id, &scenario.text())
        .map_err(|invalid| FreezeError::Unsaid(Box::new(invalid)))?;
    match read == scenario && same(plan, &draw(&read, seed)) {
        true => Ok(scenario),
        false => Err(FreezeError::Differs),
    }
}

/// Whether a plan that was drawn does what another one does.
fn same(plan: &Plan, drawn: &Plan) -> bool {
    let named = Plan {
        scenario: plan.scenario.clone(),
        statements: plan.statements.clone(),
        mutant: plan.mutant.clone(),
        drawn: plan.drawn.clone(),
        ..drawn.clone()
    };
    named == *plan
}

/// The snapshot of what happens in a scenario, in the format of `insta`: its title, and the trace.
pub fn snapshot(title: &str, trace: &Trace) -> String {
    format!("---\nsource: tests/tests/regressions.rs\n---\n{}", story(title, trace))
}

/// The title of a scenario and everything that happens in it, to be read.
pub fn story(title: &str, trace: &Trace) -> String {
    format!("{title}\n\n{trace}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Action, Fault, Host, Step, When};
    use crate::scenario::Library;

    /// How many seeds of each swarm are frozen: enough for each kind of step to occur.
    const SEEDS: u64 = 150;

    #[test]
    fn whatever_a_seed_draws_can_be_frozen() {
        let library = Library::embedded();
        for (id, checker) in [
            ("events/swarm", "no_loss"),
            ("tasks/swarm", "runs_once"),
            ("session/swarm", "views_are_runs"),
        ] {
            let scenario = library.get(id).expect("it is there");
            for seed in (0..SEEDS).map(|index| Seed(5).derive(index)) {
                let plan = draw(&scenario, seed);
                // `freeze` reads what it has written, and compares.
                freeze(&plan, "x", checker, "it \"says\" so\n")
                    .unwrap_or_else(|error| panic!("{id} {seed}: {error:?}"));
            }
        }
    }

    #[test]
    fn what_no_file_can_say_is_refused() {
        let scenario = Library::embedded().get("events/server-restart").expect("it is there");
        let plan = draw(&scenario, Seed(1));
        let unknown = freeze(&plan, "x", "no_such", "x").map(|_| ());
        assert!(matches!(unknown, Err(FreezeError::Checker(_))), "{unknown:?}");
        let two_days = Fault::Suspend { host: Host::Server, for_ms: 2 * 86_400_000 };
        let mut long = plan.clone();
        long.steps.push(Step { when: When::At(0), action: Action::Fault(two_days) });
        let unsaid = freeze(&long, "x", "no_loss", "x").map(|_| ());
        assert!(matches!(unsaid, Err(FreezeError::Unsaid(_))), "{unsaid:?}");
        let mut other = plan;
        other.topology.agents = 1;
        other.steps.push(Step {
            when: When::At(0),
            action: Action::Fault(Fault::LoseStore { host: Host::Client(1), restart_ms: 100 }),
        });
        assert!(freeze(&other, "x", "no_loss", "x").is_err(), "only the server has a log");
    }

    #[test]
    fn a_frozen_scenario_is_about_what_failed() {
        let scenario = Library::embedded().get("events/swarm").expect("it is there");
        let plan = Plan { mutant: Some("canary".to_owned()), ..draw(&scenario, Seed(42)) };
        let frozen = freeze(&plan, "lost", "no_loss", "one is lost").expect("it can be frozen");
        assert_eq!(frozen.id, "regressions/lost");
        assert_eq!(frozen.reference, ["events/swarm 42"]);
        assert!(frozen.statements.contains(&"CORE-3".to_owned()), "{:?}", frozen.statements);
        let from = frozen.frozen.expect("it says where it was found");
        assert_eq!((from.seed, from.mutant.as_deref()), (Seed(42), Some("canary")));
        assert_eq!((from.checker.as_str(), from.shows.as_str()), ("no_loss", "one is lost"));
    }
}
