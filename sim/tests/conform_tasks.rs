//! The roles of tasks: the reference as a node, in this process and behind a pipe.

use std::sync::{Arc, Mutex};

use gapless_sim::conform::suite::{Played, SEATS_MAX, Source, Verdicted, attach, play};
use gapless_sim::conform::{
    ANSWER_MAX, Effect, Hello, Launch, Node, NodeError, Reference, Reply, Request, Role,
    SharedNode, feature,
};
use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;
use gapless_sim::world::Attached;

/// How many seeds of the swarm are compared.
const SEEDS: u64 = 3;

/// Within how many seeds of its home a known-bad variant shows.
const MUTANT_SEEDS: u64 = 40;

fn in_process(role: Role, mutant: Option<&str>) -> Attached {
    let source = Source::Reference(mutant.map(str::to_owned));
    attach(role, &source, SEATS_MAX).expect("the reference can be attached")
}

fn behind_a_pipe(role: Role) -> Attached {
    let words = [env!("CARGO_BIN_EXE_gapless-sim"), "adapter", "--role", role.as_str()];
    let words = words.map(str::to_owned).to_vec();
    let source = Source::Adapter(Launch { words, answer_max: ANSWER_MAX });
    attach(role, &source, SEATS_MAX).expect("the adapter starts")
}

fn case(attached: &Attached, id: &str, seed: u64) -> Played {
    let scenario = Library::embedded().get(id).expect("the scenario is there");
    play(attached, &draw(&scenario, Seed(seed)), scenario.swarm.is_some())
}

/// What was seen, as a hash.
fn seen(played: &Played) -> String {
    played.run.as_ref().map(|run| run.history.hash()).expect("there was a run")
}

fn the_pipe_makes_no_difference(role: Role, fixed: &[&str]) {
    let (here, there) = (in_process(role, None), behind_a_pipe(role));
    let swarm = (0..SEEDS).map(|seed| ("tasks/swarm", seed));
    for (id, seed) in swarm.chain(fixed.iter().map(|id| (*id, 7))) {
        let (one, other) = (case(&here, id, seed), case(&there, id, seed));
        assert_eq!(one.verdict, Verdicted::Pass, "{id} {seed}");
        assert_eq!(other.verdict, Verdicted::Pass, "{id} {seed}, behind a pipe");
        assert_eq!(seen(&one), seen(&other), "{id} {seed}");
    }
}

fn is_caught(role: Role, mutant: &str, home: &str, checker: &str) {
    is_caught_in(&in_process(role, Some(mutant)), mutant, home, checker);
}

fn is_caught_in(attached: &Attached, mutant: &str, home: &str, checker: &str) {
    let caught = (0..MUTANT_SEEDS).any(|seed| match case(attached, home, seed).verdict {
        Verdicted::Fail(violations) => violations.iter().any(|it| it.checker == checker),
        _ => false,
    });
    assert!(caught, "`{mutant}` survives as a node");
}

#[test]
fn an_agent_has_the_same_history_in_this_process_and_behind_a_pipe() {
    let fixed = ["tasks/power-loss-of-the-agent", "tasks/store-went-back", "tasks/three-paths"];
    the_pipe_makes_no_difference(Role::TasksAgent, &fixed);
}

#[test]
fn a_controller_has_the_same_history_in_this_process_and_behind_a_pipe() {
    let fixed = ["tasks/power-loss-of-the-controller", "tasks/record-restored"];
    the_pipe_makes_no_difference(Role::TasksController, &fixed);
}

#[test]
fn known_bad_agents_fail_as_nodes() {
    let role = Role::TasksAgent;
    is_caught(role, "result-never-said", "tasks/started-reply-lost", "tasks_progress");
    is_caught(role, "said-before-stored", "tasks/power-loss-of-the-agent", "stored_before_said");
    is_caught(role, "runs-twice", "tasks/delivered-again-after-a-restore", "runs_once");
}

#[test]
fn known_bad_controllers_fail_as_nodes() {
    let role = Role::TasksController;
    is_caught(role, "delivers-before-the-answer", "tasks/received-reply-lost", "agreed_first");
    is_caught(role, "stores-alike", "tasks/store-lost", "tasks_progress");
}

/// The reference without some of its features: what it would report, it does not.
struct Mute {
    node: Reference,
    hello: Hello,
}

impl Node for Mute {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn exchange(&mut self, request: &Request) -> Result<Reply, NodeError> {
        let mut reply = self.node.exchange(request)?;
        if let Reply::Done(done) = &mut reply {
            done.effects.retain(|effect| {
                !matches!(
                    effect,
                    Effect::Mark { .. }
                        | Effect::TaskKept { .. }
                        | Effect::TaskForgot { .. }
                        | Effect::TaskBound { .. }
                        | Effect::TaskSpool { .. }
                        | Effect::RecordState { .. }
                )
            });
        }
        Ok(reply)
    }
}

fn mute(role: Role, without: &[&str], mutant: Option<&str>) -> Attached {
    let nodes = (0..SEATS_MAX).map(|_| {
        let node = Reference::new(role, mutant).expect("the reference can be attached");
        let mut hello = node.hello().clone();
        hello.features.retain(|feature| !without.contains(&feature.as_str()));
        Mute { node, hello }
    });
    let nodes: Vec<Mute> = nodes.collect();
    let hello = nodes[0].hello.clone();
    let shared = |node| -> SharedNode { Arc::new(Mutex::new(node)) };
    Attached::new(role, hello, nodes.into_iter().map(shared).collect())
}

/// What somebody leaves out who knows the contract and nothing of a simulator.
const SILENT: [&str; 4] =
    [feature::MARKS, feature::TASK_REPORTS, feature::RECORD_REPORTS, feature::SIGN_FNV1A];

#[test]
fn who_reports_nothing_is_not_judged_falsely() {
    for role in [Role::TasksAgent, Role::TasksController] {
        let base = [SILENT.as_slice(), &[feature::EXTENSION]].concat();
        for without in [SILENT.as_slice(), &base] {
            let attached = mute(role, without, None);
            for seed in 0..SEEDS {
                let played = case(&attached, "tasks/swarm", seed);
                assert_eq!(played.verdict, Verdicted::Pass, "{role} {seed} without {without:?}");
            }
        }
    }
}

#[test]
fn who_reports_nothing_is_judged_by_what_it_says_and_does() {
    let agent = |mutant, home, checker| {
        let attached = mute(Role::TasksAgent, &SILENT, Some(mutant));
        is_caught_in(&attached, mutant, home, checker);
    };
    agent("output-number-reused", "tasks/cut-while-it-writes", "output_is_as_written");
    agent("runs-twice", "tasks/delivered-again-after-a-restore", "runs_once");
    agent("result-never-said", "tasks/started-reply-lost", "tasks_progress");
    let attached = mute(Role::TasksController, &SILENT, Some("delivers-before-the-answer"));
    let home = "tasks/received-reply-lost";
    is_caught_in(&attached, "delivers-before-the-answer", home, "agreed_first");
}
