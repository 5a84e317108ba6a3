//! What remains of plans, under predicates that are made up and under bugs that are planted.

use super::*;
use crate::mutants;
use crate::plan::{
    ClientOptions, Cut, FORMAT, Fault, Host, Options, Publish, Script, ServerOptions, Step, Submit,
    Text, Topology,
};
use crate::scenario::{Library, draw};
use crate::seed::Seed;

/// A plan of event streams.
fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        format: FORMAT,
        scenario: "events/made-up".to_owned(),
        seed: 7,
        mutant: None,
        tick_ms: 5,
        duration_ms: 100_000,
        settle_ms: 1_000,
        statements: vec![],
        reaches: vec!["events.joined".to_owned()],
        topology: Topology::default(),
        options: Options::Events {
            server: ServerOptions::default(),
            client: ClientOptions::default(),
        },
        drawn: None,
        steps,
    }
}

/// A step that can be told from others by a number, with nothing to make simple but its time.
fn numbered(number: i64) -> Step {
    let fault = Fault::ClockStep { host: Host::Server, by_ms: number };
    Step { when: When::At(number.unsigned_abs() * 1_000), action: Action::Fault(fault) }
}

fn plan_of(numbers: impl IntoIterator<Item = i64>) -> Plan {
    plan(numbers.into_iter().map(numbered).collect())
}

/// The numbers of the steps that remain.
fn numbers_in(plan: &Plan) -> Vec<i64> {
    let numbers = plan.steps.iter().filter_map(|step| match step.action {
        Action::Fault(Fault::ClockStep { by_ms, .. }) => Some(by_ms),
        _ => None,
    });
    numbers.collect()
}

fn symptom(checker: &str) -> Symptom {
    Symptom { checker: checker.to_owned(), liveness: false, at_ms: 90_000 }
}

/// Shrinks a plan that fails as long as a predicate holds.
fn shrunk_while(plan: &Plan, fails: impl Fn(&Plan) -> bool) -> Shrunk {
    assert!(fails(plan), "it fails before");
    let mut look = |plan: &Plan| match fails(plan) {
        true => vec![symptom("one")],
        false => vec![],
    };
    let shrunk = shrink(plan, &symptom("one"), &mut look, Limits::default(), &mut |_| ());
    assert!(fails(&shrunk.plan), "it still fails");
    assert_eq!(shrunk.ended, Ended::Minimal);
    shrunk
}

#[test]
fn only_the_steps_that_the_violation_needs_remain() {
    let needed = [3, 17, 40];
    let needs = |plan: &Plan| needed.iter().all(|number| numbers_in(plan).contains(number));
    let shrunk = shrunk_while(&plan_of(0..60), needs);
    assert_eq!(numbers_in(&shrunk.plan), needed);
    assert!(shrunk.runs < 150, "{} runs", shrunk.runs);
}

#[test]
fn no_step_of_the_result_can_be_left_out() {
    // Steps that stand for each other: what can go depends on what has gone.
    let fails = |plan: &Plan| {
        let numbers = numbers_in(plan);
        let odd = numbers.iter().filter(|number| *number % 2 == 1).count();
        odd >= 2 && (numbers.len() - odd) * 2 >= odd && numbers.iter().sum::<i64>() >= 100
    };
    for count in [20, 33, 50] {
        let small = shrunk_while(&plan_of(0..count), fails).plan;
        for index in 0..small.steps.len() {
            let mut smaller = small.clone();
            smaller.steps.remove(index);
            assert!(!fails(&smaller), "{index} of {:?} can go", numbers_in(&small));
        }
    }
}

#[test]
fn another_violation_is_not_followed() {
    let all = plan_of(0..20);
    let mut look = |plan: &Plan| match plan.steps.len() {
        12.. => vec![symptom("other"), symptom("one")],
        6..12 => vec![symptom("other")],
        0..6 => vec![Symptom { liveness: true, ..symptom("one") }],
    };
    let shrunk = shrink(&all, &symptom("one"), &mut look, Limits::default(), &mut |_| ());
    assert_eq!(shrunk.plan.steps.len(), 12);
}

#[test]
fn a_bound_ends_the_search_and_is_named() {
    let all = plan_of(0..60);
    let fails = |plan: &Plan| numbers_in(plan).contains(&31);
    let with = |limits| {
        let mut look = |plan: &Plan| if fails(plan) { vec![symptom("one")] } else { vec![] };
        shrink(&all, &symptom("one"), &mut look, limits, &mut |_| ())
    };
    let few = with(Limits { runs: 5, ..Limits::default() });
    assert_eq!((few.ended, few.runs), (Ended::Runs, 5));
    assert!(fails(&few.plan) && few.plan.steps.len() > 1);
    let none = with(Limits { time: Duration::ZERO, ..Limits::default() });
    assert_eq!((none.ended, none.runs), (Ended::Time, 0));
    assert_eq!(none.plan.steps, all.steps);
}

#[test]
fn each_improvement_is_told() {
    let fails = |plan: &Plan| numbers_in(plan).contains(&5);
    let mut look = |plan: &Plan| if fails(plan) { vec![symptom("one")] } else { vec![] };
    let mut told = Vec::new();
    let shrunk =
        shrink(&plan_of(0..9), &symptom("one"), &mut look, Limits::default(), &mut |better| {
            told.push((better.plan.clone(), better.runs))
        });
    assert_eq!(told.last().map(|(plan, _)| plan), Some(&shrunk.plan));
    assert!(told.is_sorted_by(|(_, before), (_, after)| before < after));
}

#[test]
fn a_step_that_is_never_due_goes() {
    let mut all = plan_of([1, 2]);
    all.steps[0].when =
        When::Mark { mark: "events.gap_reported".to_owned(), nth: 900, after_ms: 0 };
    let shrunk = shrunk_while(&all, |plan| numbers_in(plan).contains(&2));
    assert_eq!(numbers_in(&shrunk.plan), [2]);
}

#[test]
fn a_plan_becomes_short_and_its_steps_come_together() {
    let order = |plan: &Plan| {
        let times: Vec<u64> = plan
            .steps
            .iter()
            .filter_map(|step| match step.when {
                When::At(at) => Some(at),
                When::Mark { .. } => None,
            })
            .collect();
        matches!(times[..], [first, second] if first + 2_000 <= second)
    };
    let small = shrunk_while(&plan_of([11, 70]), order).plan;
    assert_eq!(small.steps[0].when, When::At(0));
    let When::At(second) = small.steps[1].when else { panic!("it has a time") };
    assert!((2_000..2_700).contains(&second), "{second}");
    assert!(small.duration_ms <= second + 100, "{}", small.duration_ms);
}

#[test]
fn one_client_remains_and_what_hit_another_hits_it() {
    let mut all = plan(vec![
        Step { when: When::At(1_000), action: Action::Fault(Fault::Lose { client: 3, frames: 1 }) },
        Step { when: When::At(2_000), action: Action::Fault(Fault::Retain { agent: 2, keep: 1 }) },
    ]);
    (all.topology.clients, all.topology.agents) = (4, 2);
    let lost = |plan: &Plan| {
        plan.steps.iter().any(|step| matches!(step.action, Action::Fault(Fault::Lose { .. })))
    };
    let small = shrunk_while(&all, lost).plan;
    assert_eq!((small.topology.clients, small.topology.agents), (1, 1));
    assert_eq!(small.steps.len(), 1);
    let hits_two = |plan: &Plan| plan.topology.clients >= 2 && lost(plan);
    let small = shrunk_while(&all, hits_two).plan;
    assert_eq!((small.topology.clients, small.topology.agents), (2, 1));
}

#[test]
fn work_and_faults_become_as_small_as_the_violation_allows() {
    let publish =
        Publish { agent: 1, count: 700, every_ms: 40, bytes: 2_000, ids: false, twice: true };
    let cut = Fault::Cut { client: 1, how: Cut::HalfOpenUp, after_frames: Some(9), for_ms: 8_000 };
    let step = |action| Step { when: When::At(0), action };
    let all = plan(vec![step(Action::Publish(publish)), step(Action::Fault(cut))]);
    let fails = |plan: &Plan| {
        let [publish, cut] = &plan.steps[..] else { return false };
        matches!(&publish.action, Action::Publish(publish) if publish.count >= 501)
            && matches!(cut.action, Action::Fault(Fault::Cut { for_ms: 2_000.., .. }))
    };
    let small = shrunk_while(&all, fails).plan;
    let publish = Publish { agent: 1, count: 501, every_ms: 0, bytes: 16, ids: true, twice: false };
    assert_eq!(small.steps[0].action, Action::Publish(publish));
    let Action::Fault(Fault::Cut { how, after_frames, for_ms, .. }) = small.steps[1].action else {
        panic!("the cut is needed")
    };
    assert_eq!((how, after_frames), (Cut::Reset, None));
    assert!((2_000..2_700).contains(&for_ms), "{for_ms}");
}

#[test]
fn of_several_tasks_the_first_remains_by_its_name() {
    let script = Script { stdout: 9, stderr: 9, bytes: 90, every_ms: 9, text: Text::Wide, exit: 3 };
    let submit = Submit {
        name: "t".to_owned(),
        agent: 1,
        count: 3,
        every_ms: 0,
        priority: 5,
        twice: true,
        script,
    };
    let step = |action| Step { when: When::At(0), action };
    let cancel = |task: &str| Action::Cancel { task: task.to_owned() };
    let mut all =
        plan(vec![step(Action::Submit(submit)), step(cancel("t-1")), step(cancel("t-3"))]);
    all.options = Options::Tasks {
        controller: crate::plan::ControllerOptions::default(),
        agent: crate::plan::AgentOptions::default(),
    };
    let cancelled = |plan: &Plan| plan.steps.iter().any(|step| step.action == cancel("t-1"));
    let small = shrunk_while(&all, cancelled).plan;
    assert_eq!((small.tasks(), small.steps.len()), (vec!["t-1".to_owned()], 2));
    assert_eq!(small.check(), Ok(()));
}

#[test]
fn options_are_what_they_are_by_default_but_for_those_that_matter() {
    let mut all = plan_of([1]);
    all.options = Options::Events {
        server: ServerOptions { ring: 16, commit_ms: 60, ..ServerOptions::default() },
        client: ClientOptions { queue_events: 2, handler_ms: 40, ..ClientOptions::default() },
    };
    all.topology.latency_ms = 120;
    let fails = |plan: &Plan| match &plan.options {
        Options::Events { server, client } => server.ring == 16 && client.queue_events == 2,
        _ => false,
    };
    let small = shrunk_while(&all, fails).plan;
    let server = ServerOptions { ring: 16, ..ServerOptions::default() };
    let client = ClientOptions { queue_events: 2, ..ClientOptions::default() };
    assert_eq!(small.options, Options::Events { server, client });
    assert_eq!(small.topology, Topology::default());
}

#[test]
fn time_outs_stay_where_progress_is_missing() {
    let mut all = plan_of([1]);
    let client = ClientOptions { reconnect_ms: (100, 200), queue_events: 2, ..Default::default() };
    all.options = Options::Events { server: ServerOptions::default(), client };
    let late = Symptom { liveness: true, ..symptom("one") };
    let mut look = |_: &Plan| vec![late.clone()];
    let small = shrink(&all, &late, &mut look, Limits::default(), &mut |_| ()).plan;
    let client = ClientOptions { reconnect_ms: (100, 200), ..Default::default() };
    assert_eq!(small.options, Options::Events { server: ServerOptions::default(), client });
    assert_eq!(small.settle_ms, all.settle_ms);
}

/// The plan of a scenario and a seed with a known-bad variant, and what has to be found in it.
fn planted(scenario: &str, seed: u64, mutant: &str) -> (Plan, Symptom) {
    let scenario = Library::embedded().get(scenario).expect("it is there");
    let plan = Plan { mutant: Some(mutant.to_owned()), ..draw(&scenario, Seed(seed)) };
    let checker = mutants::find(mutant).expect("it is there").checker;
    let found = symptoms(&plan).expect("it can be carried out");
    let found = found.into_iter().find(|symptom| symptom.checker == checker);
    (plan, found.expect("it is caught"))
}

fn shrunk(plan: &Plan, of: &Symptom) -> Shrunk {
    shrink(plan, of, &mut |plan| look_for(plan, of), Limits::default(), &mut |_| ())
}

#[test]
fn a_cursor_jump_in_a_swarm_needs_at_most_eight_steps() {
    let (plan, of) = planted("events/swarm", 16, "cursor-jumps");
    assert!(plan.steps.len() > 20);
    let small = shrunk(&plan, &of);
    assert_eq!(small.ended, Ended::Minimal);
    assert!(small.plan.steps.len() <= 8, "{:#?}", small.plan.steps);
    assert_eq!(small, shrunk(&plan, &of), "the same plan gives the same small plan");
    for index in 0..small.plan.steps.len() {
        let mut smaller = small.plan.clone();
        smaller.steps.remove(index);
        let found = look_for(&smaller, &of);
        assert!(!found.iter().any(|symptom| symptom.is_same(&of)), "step {index} can go");
    }
}

#[test]
fn planted_bugs_of_all_protocols_need_at_most_twelve_steps() {
    let planted_bugs = [
        ("events/restore-twice", "epochs-repeat"),
        ("events/refused-for-ten-minutes", "gives-up-dialing"),
        ("events/power-loss", "synchronous-normal"),
        ("tasks/cut-while-it-writes", "output-number-reused"),
        ("session/hole-in-the-live-stream", "session-cursor-jumps"),
    ];
    for (scenario, mutant) in planted_bugs {
        let (plan, of) = planted(scenario, 1, mutant);
        let small = shrunk(&plan, &of).plan;
        assert!(small.steps.len() <= 12, "{mutant}: {:#?}", small.steps);
        let found = symptoms(&small).expect("it can be carried out");
        assert!(found.iter().any(|symptom| symptom.is_same(&of)), "{mutant}: {found:?}");
        let good = symptoms(&Plan { mutant: None, ..small }).expect("it can be carried out");
        assert_eq!(good, [], "{mutant}");
    }
}
