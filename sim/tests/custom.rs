//! What the simulator does for its own protocols it does for one that is brought: the example.

#[path = "../examples/pubsub/protocol/mod.rs"]
mod protocol;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use gapless_sim::check::{Symptom, Verdict, judge};
use gapless_sim::custom::{CustomProtocol, Work, find};
use gapless_sim::freeze::freeze;
use gapless_sim::plan::{Action, Fault, Host, Plan, Step, When};
use gapless_sim::scenario::{Library, Scenario, draw};
use gapless_sim::seed::Seed;
use gapless_sim::shrink::{Ended, Limits, look_for, shrink, symptoms};
use gapless_sim::world;
use protocol::PubSub;

/// How many seeds are drawn: enough for each kind of step to occur.
const SEEDS: u64 = 100;

/// How many seeds are run.
const RUNS: u64 = 40;

const BUG: &str = "resumes-after-received";

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pubsub/scenarios")
}

fn scenario(id: &str) -> Scenario {
    let library = Library::from_dir(&folder()).expect("the folder is there");
    library.get(id).unwrap_or_else(|error| panic!("{id}: {:?}", miette::Report::new(error)))
}

/// What is wrong with a scenario that is the server's restart with a change.
fn problems(from: &str, to: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder().join("pubsub/server-restart.toml"));
    let text = text.expect("the scenario is there");
    assert!(text.contains(from), "{from}");
    match Scenario::parse("pubsub/x", &text.replace(from, to)) {
        Ok(_) => Vec::new(),
        Err(invalid) => {
            let told = invalid.problems().iter();
            told.map(|problem| format!("{}; {}", problem.message, problem.remedy)).collect()
        }
    }
}

#[test]
fn a_scenario_is_read_with_an_eye_on_the_work_of_its_protocol() {
    assert_eq!(problems("\"news\" }", "\"news\" }"), [""; 0]);
    let told = |from, to| problems(from, to).join("\n");
    assert!(told("at = \"client-1\", sub", "at = \"client-3\", sub").contains("no `client-3`"));
    assert!(told("at = \"client-1\", sub", "at = \"server\", sub").contains("only clients"));
    assert!(told("count = 20", "count = 0").contains("`count` is between 1 and 1000"));
    assert!(told("count = 20", "cuont = 20").contains("unknown field `cuont`"));
    assert!(told("count = 20", "count = 2.5").contains("cannot be kept in a plan"));
    assert!(told("power-off = \"server\"", "retain = \"agent-1\"").contains("another protocol"));
    assert!(told("power-off = \"server\"", "backup = \"server\"").contains("another protocol"));
    let publish = "work = { at = \"client-1\", subscribe = \"news\" }";
    assert!(told(publish, "publish = { to = \"agent-1\" }").contains("another protocol"));
    assert!(told("[topology]", "[client]\nhandler_ms = \"1s\"\n[topology]").contains("an integer"));
    let misspelt = told("[topology]", "[client]\nhandler_sm = 1\n[topology]");
    assert!(misspelt.contains("did you mean `handler_ms`?"), "{misspelt}");
    assert!(told("pubsub.resumed", "pubsub.resmued").contains("no code emits the mark"));
    let agents = told("clients = 2", "clients = 2\nagents = 1");
    assert!(agents.contains("unknown key `agents`"), "{agents}");
}

#[test]
fn whatever_a_seed_draws_can_be_kept_as_a_plan_and_frozen() {
    let swarm = scenario("pubsub/swarm");
    let mut clients = BTreeSet::new();
    for seed in (0..SEEDS).map(|index| Seed(5).derive(index)) {
        let plan = draw(&swarm, seed);
        assert_eq!(plan.check(), Ok(()), "{seed}");
        clients.insert(plan.topology.clients);
        let text = serde_json::to_string(&plan).expect("a plan is JSON");
        assert_eq!(serde_json::from_str::<Plan>(&text).expect("it can be read"), plan);
        freeze(&plan, "x", "nothing_is_skipped", "it \"says\" so\n")
            .unwrap_or_else(|error| panic!("{seed}: {error:?}"));
    }
    assert_eq!(clients, BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_plan_of_a_protocol_that_is_not_there_is_refused() {
    let plan = draw(&scenario("pubsub/swarm"), Seed(1));
    let text = serde_json::to_string(&plan).expect("a plan is JSON");
    let other = text.replace("\"protocol\":\"pubsub\"", "\"protocol\":\"telex\"");
    let error = serde_json::from_str::<Plan>(&other).expect_err("nobody knows it").to_string();
    assert!(error.contains("no protocol `telex` in this program"), "{error}");
}

#[test]
fn a_plan_with_work_that_cannot_be_done_is_refused() {
    let mut plan = draw(&scenario("pubsub/server-restart"), Seed(1));
    let Action::Work(work) = &mut plan.steps[0].action else { panic!("it is work") };
    *work = Work { at: Host::Server, ..work.clone() };
    let problem = plan.check().expect_err("a server does not subscribe");
    assert_eq!(problem, "step 0 cannot be done: only clients subscribe and publish");
}

#[test]
fn the_protocol_holds_and_its_planted_bug_is_found() {
    let swarm = scenario("pubsub/swarm");
    let (mut hit, mut found) = (BTreeSet::new(), BTreeSet::new());
    for seed in (0..RUNS).map(|index| Seed(1).derive(index)) {
        let plan = draw(&swarm, seed);
        let run = world::run(&plan).expect("the run is carried out");
        assert_eq!(judge(&run), Verdict::Pass, "{seed}");
        hit.extend(run.faults.into_keys());
        let broken = world::run(&Plan { mutant: Some(BUG.to_owned()), ..plan });
        let verdict = judge(&broken.expect("the run is carried out"));
        found.extend(verdict.violations().iter().map(|violation| violation.checker));
    }
    // Of the link, of processes, of disks and of clocks.
    for kind in ["reset", "crash", "power-off", "disk-full", "clock-step", "suspend"] {
        assert!(hit.contains(kind), "{kind}: {hit:?}");
    }
    assert!(found.contains("nothing_is_skipped"), "{found:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let plan = draw(&scenario("pubsub/swarm"), Seed(7));
    let run = || world::run(&plan).expect("the run is carried out");
    assert_eq!(run(), run());
}

#[test]
fn a_loss_of_power_takes_what_was_not_synced_and_nothing_else() {
    let plan = draw(&scenario("pubsub/server-restart"), Seed(1));
    let run = world::run(&plan).expect("the run is carried out");
    assert_eq!(judge(&run), Verdict::Pass);
    let lives: BTreeSet<u64> = run.trace.records.iter().map(|record| record.incarnation).collect();
    assert_eq!(lives, BTreeSet::from([0, 1, 2]));
    // Without its database the server gives the numbers again, and the checkers see it.
    let mut forgets = plan;
    for step in &mut forgets.steps {
        if let Action::Fault(fault @ Fault::PowerOff { .. }) = &mut step.action {
            *fault = Fault::LoseStore { host: Host::Server, restart_ms: 2_000 };
        }
    }
    let run = world::run(&forgets).expect("the run is carried out");
    assert_ne!(judge(&run), Verdict::Pass);
}

#[test]
fn a_run_that_fails_becomes_small_and_its_work_simple() {
    let step = |at, action| Step { when: When::At(at), action };
    let work = |text: &str| {
        let what = serde_json::from_str(text).expect("it is JSON");
        Action::Work(Work { at: Host::Client(2), what })
    };
    let mut plan = draw(&scenario("pubsub/server-restart"), Seed(1));
    plan.mutant = Some(BUG.to_owned());
    plan.steps = vec![
        step(0, work(r#"{"subscribe":"news"}"#)),
        step(0, work(r#"{"subscribe":"sport"}"#)),
        step(1_000, work(r#"{"publish":{"topic":"sport","count":3}}"#)),
        step(2_000, work(r#"{"publish":{"topic":"news","count":9}}"#)),
        step(2_100, Action::Fault(Fault::Crash { host: Host::Server, restart_ms: 500 })),
        step(5_000, work(r#"{"publish":{"topic":"news","count":4}}"#)),
    ];
    let of = symptoms(&plan).expect("it can be carried out");
    let of = of.into_iter().find(|symptom| symptom.checker == "nothing_is_skipped");
    let of: Symptom = of.expect("it is found");
    let mut look = |plan: &Plan| look_for(plan, &of);
    let small = shrink(&plan, &of, &mut look, Limits::default(), &mut |_| ());
    assert_eq!(small.ended, Ended::Minimal);
    assert_eq!(small.plan.topology.clients, 1);
    assert!(small.plan.steps.len() <= 4, "{:#?}", small.plan.steps);
    let published: u64 = small
        .plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Work(work) => work.what.get("publish")?.get("count")?.as_u64(),
            _ => None,
        })
        .sum();
    assert!((2..9).contains(&published), "{:#?}", small.plan.steps);
}

#[test]
fn a_protocol_has_its_name_and_its_program() {
    let known = find("pubsub").expect("it is linked");
    assert_eq!((known.name(), known.promise()), (PubSub.name(), PubSub.promise()));
    assert!(find("events").is_none());
    let mut out = anstream::StripStream::new(Vec::new());
    let mut err = anstream::StripStream::new(Vec::new());
    let scenarios = folder().display().to_string();
    let args = ["pubsub", "pubsub/server-restart", "1", "--scenarios", &scenarios];
    let args = args.into_iter().map(OsString::from);
    let code = gapless_sim::cli::main(args, &mut out, &mut err);
    let printed = String::from_utf8(out.into_inner()).expect("UTF-8");
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("hosts      2 clients, 1 server, 5 ms apart\n"), "{printed}");
    assert!(printed.contains("every subscriber handled every message once"), "{printed}");
}
