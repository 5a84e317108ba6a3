//! Power is lost at every single operation of a disk, one after the other, not at a sample of them.

use gapless_sim::check::{Verdict, judge};
use gapless_sim::plan::{
    Action, Cut, Fault, Host, Plan, Publish, Say, Script, Step, Submit, Text, TurnScript, When,
};
use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;
use gapless_sim::world;

/// Publishes, lets the ring overflow while the client is away, resyncs, and restarts the server.
fn script() -> Plan {
    let scenario = Library::embedded().get("events/power-loss").expect("the scenario is there");
    let mut plan = draw(&scenario, Seed(7));
    let publish = |at, count| Step {
        when: When::At(at),
        action: Action::Publish(Publish {
            agent: 1,
            count,
            every_ms: 20,
            bytes: 200,
            ids: true,
            twice: false,
        }),
    };
    let fault = |at, fault| Step { when: When::At(at), action: Action::Fault(fault) };
    plan.duration_ms = 9_000;
    plan.reaches.clear();
    plan.steps = vec![
        publish(300, 8),
        fault(1_000, Fault::Cut { client: 1, how: Cut::Reset, after_frames: None, for_ms: 1_500 }),
        publish(1_200, 12),
        fault(5_000, Fault::Crash { host: Host::Server, restart_ms: 200 }),
        publish(6_000, 4),
    ];
    plan
}

/// Runs commands, loses the link in the middle of their output, queues, cancels and retries, and
/// starts the controller again.
fn task_script() -> Plan {
    let scenario =
        Library::embedded().get("tasks/power-loss-of-the-agent").expect("the scenario is there");
    let mut plan = draw(&scenario, Seed(7));
    let submit = |at, name: &str, count, stdout| Step {
        when: When::At(at),
        action: Action::Submit(Submit {
            name: name.to_owned(),
            agent: 1,
            count,
            every_ms: 50,
            priority: 0,
            twice: false,
            script: Script {
                stdout,
                stderr: 1,
                bytes: 150,
                every_ms: 120,
                text: Text::Wide,
                exit: 3,
            },
        }),
    };
    let step = |at, action| Step { when: When::At(at), action };
    let fault = |at, fault| step(at, Action::Fault(fault));
    plan.duration_ms = 9_000;
    plan.reaches.clear();
    plan.steps = vec![
        submit(300, "first", 3, 6),
        step(700, Action::Cancel { task: "first-3".to_owned() }),
        fault(1_000, Fault::Cut { client: 1, how: Cut::Reset, after_frames: None, for_ms: 0 }),
        submit(2_500, "second", 1, 3),
        fault(3_000, Fault::Crash { host: Host::Server, restart_ms: 200 }),
        step(5_000, Action::Retry { task: "first-1".to_owned() }),
    ];
    plan
}

/// Says things that queue, are answered, ask back and fail, loses the link in the middle of a turn,
/// loads the page again, and starts the server again.
fn session_script() -> Plan {
    let scenario =
        Library::embedded().get("session/power-loss-of-the-server").expect("the scenario is there");
    let mut plan = draw(&scenario, Seed(7));
    let say = |at, count, asks, fails| Step {
        when: When::At(at),
        action: Action::Say(Say {
            client: 1,
            count,
            every_ms: 50,
            bytes: 150,
            attachments: 1,
            same: false,
            script: TurnScript { progress: 2, say: 2, bytes: 150, each_ms: 60, asks, fails },
        }),
    };
    let step = |at, action| Step { when: When::At(at), action };
    let fault = |at, fault| step(at, Action::Fault(fault));
    plan.duration_ms = 9_000;
    plan.reaches.clear();
    plan.steps = vec![
        say(300, 2, 1, false),
        fault(900, Fault::Cut { client: 1, how: Cut::Reset, after_frames: None, for_ms: 0 }),
        step(1_500, Action::Refresh { client: 1 }),
        say(2_500, 2, 0, true),
        fault(3_000, Fault::Crash { host: Host::Server, restart_ms: 200 }),
        say(3_500, 1, 0, false),
    ];
    plan
}

/// Runs the script with power lost after each number of operations, until there are no more, and
/// hands each verdict on; returns how many there were.
fn exhaust(
    plan: &Plan,
    host: Host,
    at_ms: u64,
    torn_percent: Option<u8>,
    see: &mut dyn FnMut(u64, Verdict),
) -> u64 {
    for after_ops in 0.. {
        let mut plan = plan.clone();
        let fault = Fault::PowerOff { host, after_ops, torn_percent, restart_ms: 150 };
        plan.steps.push(Step { when: When::At(at_ms), action: Action::Fault(fault) });
        let run = world::run(&plan).expect("the run is carried out");
        see(after_ops, judge(&run));
        if !run.marks.contains_key("disk.power_loss_inside_commit") {
            return after_ops;
        }
    }
    unreachable!("a run has an end")
}

/// The power was lost after so many operations, one after the other, and more.
fn at_least(least: u64, operations: u64) {
    assert!(operations > least, "{operations}");
}

/// Everything holds wherever the power is lost.
fn holds(host: Host, at_ms: u64, torn_percent: Option<u8>) -> u64 {
    holds_in(&script(), host, at_ms, torn_percent)
}

fn holds_in(plan: &Plan, host: Host, at_ms: u64, torn_percent: Option<u8>) -> u64 {
    exhaust(plan, host, at_ms, torn_percent, &mut |after_ops, verdict| {
        assert_eq!(verdict, Verdict::Pass, "{host:?} after {after_ops} operations");
    })
}

/// How often a known-bad variant loses what it had acknowledged, and at how many operations the
/// power was lost.
fn losses(mutant: &str) -> (u64, u64) {
    let plan = Plan { mutant: Some(mutant.to_owned()), ..script() };
    let mut losses = 0;
    let operations = exhaust(&plan, Host::Server, 0, None, &mut |_, verdict| {
        if let Verdict::Violation(violations) = verdict
            && violations.iter().any(|found| found.checker == "acknowledged_is_durable")
        {
            losses += 1;
        }
    });
    (losses, operations)
}

#[test]
fn the_server_loses_power_after_every_operation_of_its_first_life() {
    at_least(50, holds(Host::Server, 0, None));
}

#[test]
fn the_server_loses_power_after_every_operation_of_its_second_life() {
    at_least(20, holds(Host::Server, 5_010, None));
}

#[test]
fn the_server_tears_every_write_of_its_first_life() {
    at_least(30, holds(Host::Server, 0, Some(50)));
}

#[test]
fn the_client_loses_power_after_every_operation() {
    at_least(50, holds(Host::Client(1), 0, None));
}

#[test]
fn commits_that_do_not_wait_for_the_disk_are_caught() {
    for mutant in ["synchronous-normal", "ack-before-durable"] {
        let (losses, operations) = losses(mutant);
        assert!(losses * 4 > operations, "{mutant}: {losses} of {operations}");
    }
}

#[test]
fn an_agent_loses_power_after_every_operation_of_its_disk() {
    at_least(80, holds_in(&task_script(), Host::Client(1), 0, None));
}

#[test]
fn an_agent_tears_every_write() {
    at_least(80, holds_in(&task_script(), Host::Client(1), 0, Some(50)));
}

#[test]
fn the_controller_loses_power_after_every_operation_of_its_disk() {
    at_least(60, holds_in(&task_script(), Host::Server, 0, None));
}

#[test]
fn a_server_of_sessions_loses_power_after_every_operation_of_its_disk() {
    at_least(60, holds_in(&session_script(), Host::Server, 0, None));
}

#[test]
fn a_server_of_sessions_tears_every_write() {
    at_least(40, holds_in(&session_script(), Host::Server, 0, Some(50)));
}

#[test]
fn a_server_of_sessions_loses_power_after_every_operation_of_its_second_life() {
    at_least(10, holds_in(&session_script(), Host::Server, 3_010, None));
}

#[test]
fn a_client_of_sessions_loses_power_after_every_operation_of_its_disk() {
    at_least(40, holds_in(&session_script(), Host::Client(1), 0, None));
}

#[test]
fn the_controller_loses_power_after_every_operation_of_its_second_life() {
    at_least(10, holds_in(&task_script(), Host::Server, 3_010, None));
}

/// Every step of store and wire, and not only those of the disk: the process dies whenever a mark of
/// the run without a fault was reached, and once a tick in between.
#[test]
fn every_process_dies_at_every_moment() {
    dies_at_every_moment(&task_script());
}

#[test]
fn every_process_of_a_session_dies_at_every_moment() {
    dies_at_every_moment(&session_script());
}

fn dies_at_every_moment(plan: &Plan) {
    for host in [Host::Client(1), Host::Server] {
        for at_ms in (300..4_000).step_by(usize::try_from(plan.tick_ms).expect("it is small")) {
            let mut plan = plan.clone();
            let fault = Fault::Crash { host, restart_ms: 150 };
            plan.steps.push(Step { when: When::At(at_ms), action: Action::Fault(fault) });
            let run = world::run(&plan).expect("the run is carried out");
            assert_eq!(judge(&run), Verdict::Pass, "{host:?} at {at_ms} ms");
        }
    }
}
