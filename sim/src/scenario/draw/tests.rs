//! What many seeds draw.

use std::collections::{BTreeMap, BTreeSet};

use super::draw;
use crate::check::{Verdict, judge};
use crate::plan::{Action, Host, Plan};
use crate::scenario::Library;
use crate::seed::Seed;
use crate::trace::Kind;
use crate::world;

const SWARMS: [&str; 3] = ["events/swarm", "session/swarm", "tasks/swarm"];

/// The plans of many seeds.
fn plans(id: &str, seeds: u64) -> Vec<Plan> {
    let scenario = Library::embedded().get(id).expect("it is there");
    (0..seeds).map(|index| draw(&scenario, Seed(3).derive(index))).collect()
}

#[test]
fn a_swarm_has_one_to_four_clients_and_any_of_them_may_come_first() {
    for id in SWARMS {
        let plans = plans(id, 400);
        let sizes: BTreeSet<u32> = plans.iter().map(|plan| plan.topology.clients).collect();
        assert_eq!(sizes, (1..=4).collect(), "{id}");
        let first: BTreeSet<Host> = plans.iter().map(|plan| plan.topology.order[0]).collect();
        let hosts = std::iter::once(Host::Server).chain((1..=4).map(Host::Client));
        assert_eq!(first, hosts.collect(), "{id}");
        assert!(plans.iter().all(|plan| plan.check() == Ok(())), "{id}");
    }
}

#[test]
fn a_fault_with_a_larger_weight_comes_more_often() {
    for id in SWARMS {
        let (mut kinds, mut light, mut heavy) = (BTreeSet::new(), (0, 0), (0, 0));
        for plan in plans(id, 600) {
            let drawn = plan.drawn.as_ref().expect("a swarm draws");
            kinds.extend(drawn.weights.keys().cloned());
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            for step in &plan.steps {
                if let Action::Fault(fault) = &step.action {
                    *counts.entry(fault.kind()).or_default() += 1;
                }
            }
            // A kind whose faults have its name.
            let clocks = counts.get("clock-step").copied().unwrap_or_default();
            match drawn.weights.get("clock-step") {
                Some(1) => light = (light.0 + clocks, light.1 + 1),
                Some(16) => heavy = (heavy.0 + clocks, heavy.1 + 1),
                Some(_) => {}
                None => assert_eq!(clocks, 0, "{id}: what is not drawn does not happen"),
            }
        }
        let mean = |(count, plans): (u64, u64)| count as f64 / plans as f64;
        assert!(light.1 > 20 && heavy.1 > 20, "{id}: {light:?} {heavy:?}");
        assert!(mean(heavy) > 4.0 * mean(light), "{id}: {light:?} {heavy:?}");
        assert!(kinds.len() > 18, "{id}: {kinds:?}");
    }
}

#[test]
fn hosts_have_their_turn_in_the_order_of_the_plan() {
    for id in SWARMS {
        let plan = plans(id, 60).into_iter().find(|plan| {
            plan.topology.clients > 1 && plan.topology.order[1..].contains(&Host::Server)
        });
        let mut plan = plan.expect("one of them is like that");
        plan.steps.clear();
        for turns in [plan.topology.order.clone(), plan.topology.hosts()] {
            plan.topology.order.clone_from(&turns);
            let run = world::run(&plan).expect("the simulator works");
            assert_eq!(judge(&run), Verdict::Pass, "{id}");
            let records = run.trace.records.iter();
            let begun: Vec<&str> = records
                .filter(|record| record.kind == Kind::Life && record.text == "starts")
                .map(|record| record.host)
                .take(turns.len())
                .collect();
            let protocol = plan.options.protocol();
            let names: Vec<&str> = turns.iter().map(|host| host.name(protocol)).collect();
            assert_eq!(begun, names, "{id}");
        }
    }
}

#[test]
fn a_swarm_of_a_cluster_has_two_to_four_servers_and_everything_goes_wrong_with_their_engine() {
    let plans = plans("events/cluster-swarm", 300);
    let sizes: BTreeSet<u32> = plans.iter().map(|plan| plan.topology.servers).collect();
    assert_eq!(sizes, (2..=4).collect());
    let mut kinds = BTreeSet::new();
    let mut hosts = BTreeSet::new();
    for plan in &plans {
        assert_eq!(plan.check(), Ok(()));
        for step in &plan.steps {
            if let Action::Fault(fault) = &step.action {
                kinds.insert(fault.kind());
                hosts.extend(fault.host());
            }
        }
    }
    for kind in [
        "election",
        "stale-leader",
        "isolate",
        "lag-follow",
        "break-follow",
        "redeliver",
        "lose-ack",
        "late-write",
        "double-write",
        "full",
        "restore",
        "lose-log",
    ] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
    let all = [Host::Server, Host::Member(2), Host::Member(3), Host::Member(4), Host::Engine];
    assert!(all.iter().all(|host| hosts.contains(host)), "{hosts:?}");
}
