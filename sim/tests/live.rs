//! The reference, and known-bad variants of it, on real sockets: what the checkers say of them there
//! is what they say in lockstep.

use std::time::Duration;

use gapless_sim::check::{Verdict, judge};
use gapless_sim::conform::live::{Implementation, Speed};
use gapless_sim::conform::suite::Verdicted;
use gapless_sim::conform::{Launch, NodeError, Role};
use gapless_sim::plan::Plan;
use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;
use gapless_sim::world;

/// How long an adapter may take to answer on a computer that does much else.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// How many times as fast as in the scenarios.
const SPEED: u64 = 4;

/// How often a mutant may get away live: there it depends on what the computer does first.
const TRIALS: u32 = 3;

fn adapter(words: &[&str]) -> Launch {
    let program = env!("CARGO_BIN_EXE_gapless-sim");
    let words = [program].into_iter().chain(words.iter().copied());
    Launch { words: words.map(str::to_owned).collect(), answer_max: ANSWER_MAX }
}

fn reference(role: Role, mutant: Option<&str>) -> Implementation {
    let mut words = vec!["adapter", "--live", "--role", role.as_str()];
    if let Some(mutant) = mutant {
        words.extend(["--mutant", mutant]);
    }
    Implementation::meet(role, adapter(&words)).expect("the reference introduces itself")
}

fn plan(id: &str) -> Plan {
    draw(&Library::embedded().get(id).expect("the scenario is there"), Seed(1))
}

fn live(implementation: &Implementation, id: &str) -> Verdicted {
    let speed = Speed::new(SPEED).expect("a speed");
    implementation.play(&plan(id), false, speed).verdict
}

/// The checkers that complain, by name.
fn complaints(verdict: &Verdicted) -> Vec<&'static str> {
    match verdict {
        Verdicted::Pass => Vec::new(),
        Verdicted::Fail(violations) => violations.iter().map(|it| it.checker).collect(),
        other => panic!("a verdict of the checkers was expected instead of {other:?}"),
    }
}

/// What the simulated world says of a mutant in a scenario.
fn simulated(id: &str, mutant: Option<&str>) -> Vec<&'static str> {
    let plan = Plan { mutant: mutant.map(str::to_owned), ..plan(id) };
    let run = world::run(&plan).expect("the run is carried out");
    match judge(&run) {
        Verdict::Pass => Vec::new(),
        Verdict::Violation(violations) | Verdict::Liveness(violations) => {
            violations.iter().map(|it| it.checker).collect()
        }
        Verdict::Inconclusive(marks) => panic!("{marks:?} were not reached"),
    }
}

/// A mutant is caught live by a checker that catches it in the simulated world.
fn is_caught(role: Role, id: &str, mutant: &str) {
    let expected = simulated(id, Some(mutant));
    assert!(!expected.is_empty(), "{mutant} is caught in the simulated world");
    let implementation = reference(role, Some(mutant));
    let mut seen = Vec::new();
    for _ in 0..TRIALS {
        seen = complaints(&live(&implementation, id));
        if seen.iter().any(|checker| expected.contains(checker)) {
            return;
        }
    }
    panic!("{mutant} in {id}: {expected:?} simulated, {seen:?} live");
}

#[test]
fn the_reference_client_passes_as_in_the_simulated_world() {
    let implementation = reference(Role::EventsClient, None);
    for id in [
        "events/live-before-replay-cut",
        "events/hole-in-the-live-stream",
        "events/server-restart",
        "events/client-crash",
        "events/strange-frames",
    ] {
        assert_eq!(simulated(id, None), [""; 0], "{id}");
        assert_eq!(complaints(&live(&implementation, id)), [""; 0], "{id}");
    }
}

#[test]
fn the_reference_server_passes_as_in_the_simulated_world() {
    let implementation = reference(Role::EventsServer, None);
    for id in ["events/server-restart", "events/empty-ring", "events/cut-after-the-first-ping"] {
        assert_eq!(simulated(id, None), [""; 0], "{id}");
        assert_eq!(complaints(&live(&implementation, id)), [""; 0], "{id}");
    }
}

#[test]
fn a_client_that_resumes_from_the_highest_number_is_caught() {
    is_caught(Role::EventsClient, "events/live-before-replay-cut", "cursor-jumps");
}

#[test]
fn a_client_that_does_not_notice_a_hole_is_caught() {
    is_caught(Role::EventsClient, "events/hole-in-the-live-stream", "hole-unnoticed");
}

#[test]
fn a_client_that_takes_events_out_of_order_is_caught() {
    is_caught(Role::EventsClient, "events/server-restart", "out-of-order");
}

#[test]
fn a_server_whose_empty_ring_means_up_to_date_is_caught() {
    is_caught(Role::EventsServer, "events/empty-ring", "empty-ring-up-to-date");
}

#[test]
fn a_scenario_that_breaks_a_disk_is_unsupported_and_no_pass() {
    let implementation = reference(Role::EventsClient, None);
    let verdict = live(&implementation, "events/failing-disk");
    assert!(matches!(verdict, Verdicted::Unsupported(_)), "{verdict:?}");
}

#[test]
fn an_adapter_that_ends_before_it_answers_is_an_error_and_what_it_wrote_is_shown() {
    let launch = Launch {
        words: ["sh", "-c", "echo nobody is there >&2"].map(str::to_owned).to_vec(),
        answer_max: ANSWER_MAX,
    };
    match Implementation::meet(Role::EventsClient, launch) {
        Err(NodeError::Died { stderr, .. }) => assert_eq!(stderr, "nobody is there\n"),
        other => panic!("an end was expected instead of {other:?}"),
    }
}

#[test]
fn an_adapter_that_speaks_no_json_is_garbage() {
    let words = ["sh", "-c", "echo ready; cat >/dev/null"].map(str::to_owned).to_vec();
    let launch = Launch { words, answer_max: ANSWER_MAX };
    match Implementation::meet(Role::EventsClient, launch) {
        Err(NodeError::Garbage { line, .. }) => assert_eq!(line, "ready"),
        other => panic!("garbage was expected instead of {other:?}"),
    }
}

#[test]
fn a_role_that_is_not_played_live_says_so() {
    match Implementation::meet(Role::TasksAgent, adapter(&["adapter"])) {
        Err(NodeError::Unsupported(what)) => {
            assert_eq!(what, ["`tasks.agent` live: only `events.client` and `events.server`"]);
        }
        other => panic!("it is not supported: {other:?}"),
    }
}
