//! Plans with a planted cause: no world is needed to find it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::plan::{Action, Fault, Host, When};
use crate::scenario::{Library, draw, redraw};

/// A plan of the events' swarm whose steps are crashes, one each second.
fn failing(steps: usize) -> Failing {
    let scenario = Library::embedded().get("events/swarm").expect("the scenario is there");
    let mut plan = draw(&scenario, Seed(1));
    plan.steps = (0..steps)
        .map(|nth| Step {
            when: When::At(nth as u64 * 1_000),
            action: Action::Fault(Fault::Crash { host: Host::Server, restart_ms: nth as u64 }),
        })
        .collect();
    let steps = (0..steps).map(|nth| (nth, nth as u64 * 1_000)).collect();
    Failing { plan, steps, marks: BTreeMap::new() }
}

/// Whether the step with a number is carried out as it was.
fn keeps(plan: &Plan, number: usize) -> bool {
    plan.steps[number].when == When::At(number as u64 * 1_000)
}

#[test]
fn the_step_that_decides_is_found_between_the_first_points() {
    let failing = failing(200);
    let ran = AtomicUsize::new(0);
    let recurs = |plan: &Plan| {
        ran.fetch_add(1, Ordering::Relaxed);
        keeps(plan, 137)
    };
    let rest = |_| Some(Vec::new());
    let likelihood = localise(&failing, &rest, &recurs, 2);
    let (before, turn) = likelihood.turn().expect("it is inevitable in the end");
    assert_eq!((turn.kept, turn.last, turn.alone), (138, Some((137, 137_000)), true));
    assert_eq!(before.map(|point| (point.kept, point.percent())), Some((137, 0)));
    assert_eq!(likelihood.runs, ran.into_inner());
    assert!(likelihood.runs <= RUNS_MAX, "{}", likelihood.runs);
}

#[test]
fn the_answer_does_not_depend_on_the_number_of_threads() {
    let failing = failing(40);
    let scenario = Library::embedded().get("events/swarm").expect("the scenario is there");
    let rest = |seed| redraw(&scenario, &failing.plan, seed);
    // Something that a part of the other rests has.
    let recurs = |plan: &Plan| plan.steps.len().is_multiple_of(3) || keeps(plan, 30);
    let one = localise(&failing, &rest, &recurs, 1);
    assert_eq!(localise(&failing, &rest, &recurs, 4), one);
    assert!(one.points.iter().any(|point| (1..100).contains(&point.percent())), "{one:#?}");
}

#[test]
fn without_another_rest_only_leaving_it_out_is_tried() {
    let failing = failing(3);
    let likelihood = localise(&failing, &|_| None, &|plan| keeps(plan, 1), 1);
    let points: Vec<_> = likelihood
        .points
        .iter()
        .map(|point| (point.kept, point.redrawn, point.percent()))
        .collect();
    assert_eq!(points, [(0, None, 0), (1, None, 0), (2, None, 100), (3, None, 100)]);
    assert_eq!(likelihood.runs, 4);
}

#[test]
fn what_is_kept_keeps_its_number_and_the_rest_comes_later() {
    let mut failing = failing(5);
    failing.marks.insert("events.replay_started".to_owned(), vec![500, 600, 4_500]);
    let other = |when| Step { when, action: Action::Fault(Fault::Backup { host: Host::Server }) };
    let mark = |nth| When::Mark { mark: "events.replay_started".to_owned(), nth, after_ms: 0 };
    let rest = vec![other(When::At(1_000)), other(When::At(1_001)), other(mark(1))];
    let plan = splice(&failing, 2, rest);
    assert!(keeps(&plan, 0) && keeps(&plan, 1) && !keeps(&plan, 2), "{:#?}", plan.steps);
    let added: Vec<_> = plan.steps[5..].iter().map(|step| step.when.clone()).collect();
    assert_eq!(added, [When::At(1_001), mark(3)]);
    assert_eq!(plan.check(), Ok(()));
}

#[test]
fn a_beginning_that_is_kept_is_the_same_run_until_there() {
    let scenario = Library::embedded().get("session/swarm").expect("the scenario is there");
    let plan = draw(&scenario, Seed(3));
    let run = crate::world::run(&plan).expect("it is carried out");
    let failing = Failing::new(&run, run.virtual_ms);
    let kept = failing.steps.len() / 2;
    let until_ms = failing.steps[kept - 1].1;
    let other = redraw(&scenario, &plan, Seed(99)).expect("a swarm");
    let other = crate::world::run(&splice(&failing, kept, other)).expect("it is carried out");
    let lines = |run: &Run| -> Vec<String> {
        let records = run.trace.records.iter().take_while(|record| record.at_ms <= until_ms);
        records.map(ToString::to_string).collect()
    };
    assert_eq!(lines(&run), lines(&other));
    assert_ne!(run.trace, other.trace);
}
