//! Power is lost at every single operation of a disk, one after the other, not at a sample of them.

use gapless_sim::check::{Verdict, judge};
use gapless_sim::plan::{Action, Fault, Host, Plan, Publish, Step, When};
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
        publish(300, 4),
        fault(
            1_000,
            Fault::Cut {
                client: 1,
                how: gapless_sim::plan::Cut::Reset,
                after_frames: None,
                for_ms: 1_500,
            },
        ),
        publish(1_200, 12),
        fault(5_000, Fault::Crash { host: Host::Server, restart_ms: 200 }),
        publish(6_000, 4),
    ];
    plan
}

/// Runs the script with power lost after each number of operations, until there are no more;
/// returns how many there were.
fn exhaust(host: Host, at_ms: u64, torn_percent: Option<u8>) -> u64 {
    for after_ops in 0.. {
        let mut plan = script();
        let fault = Fault::PowerOff { host, after_ops, torn_percent, restart_ms: 150 };
        plan.steps.push(Step { when: When::At(at_ms), action: Action::Fault(fault) });
        let run = world::run(&plan).expect("the run is carried out");
        assert_eq!(judge(&run), Verdict::Pass, "{host} after {after_ops} operations");
        if !run.marks.contains_key("disk.power_loss_inside_commit") {
            return after_ops;
        }
    }
    unreachable!("a run has an end")
}

#[test]
fn the_server_loses_power_after_every_operation_of_its_first_life() {
    assert!(exhaust(Host::Server, 0, None) > 50);
}

#[test]
fn the_server_loses_power_after_every_operation_of_its_second_life() {
    assert!(exhaust(Host::Server, 5_010, None) > 20);
}

#[test]
fn the_server_tears_every_write_of_its_first_life() {
    assert!(exhaust(Host::Server, 0, Some(50)) > 30);
}

#[test]
fn the_client_loses_power_after_every_operation() {
    assert!(exhaust(Host::Client(1), 0, None) > 50);
}
