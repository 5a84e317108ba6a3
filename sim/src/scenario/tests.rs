//! What a file may say, and what is said of one that is wrong.

use super::{Library, Scenario};
use crate::plan::{Action, Fault, Host, When};

const GOOD: &str = r#"
title      = "a replay is cut and goes on"
protocol   = "events"
statements = ["CORE-3", "EV-5"]
reference  = ["relaycast:RC-01"]
reaches    = ["events.replay_interrupted"]
duration   = "10s"
tick       = "10ms"

[topology]
clients = 2
latency = "20ms"

[server]
ring = 16

[client]
reconnect = "100ms..2s"
start = "beginning"

[[step]]
at = "1s"
publish = { to = "agent-1", count = 4, every = "10ms" }

[[step]]
on = { mark = "events.replay_started", nth = 2, after = "10ms" }
fault = { crash = "client-2", restart = "500ms" }
"#;

fn problems(text: &str) -> Vec<(String, String, String)> {
    let invalid = Scenario::parse("events/x", text).expect_err("the text is wrong");
    invalid
        .problems()
        .iter()
        .map(|problem| {
            let place = &text[problem.span.offset()..problem.span.offset() + problem.span.len()];
            (problem.message.clone(), place.to_owned(), problem.remedy.clone())
        })
        .collect()
}

/// The good text with one line replaced.
fn with(line: &str, replacement: &str) -> String {
    assert!(GOOD.contains(line), "{line}");
    GOOD.replacen(line, replacement, 1)
}

#[test]
fn a_good_file_is_read_whole() {
    let scenario = Scenario::parse("events/x", GOOD).expect("the text is right");
    assert_eq!((scenario.topology.clients, scenario.topology.latency_ms), (2, 20));
    assert_eq!(scenario.client.reconnect_ms, (100, 2_000));
    assert!(scenario.client.from_beginning);
    assert_eq!((scenario.server.ring, scenario.tick_ms, scenario.settle_ms), (16, 10, 60_000));
    assert_eq!(scenario.steps[0].when, When::At(1_000));
    let crash = Fault::Crash { host: Host::Client(2), restart_ms: 500 };
    assert_eq!(scenario.steps[1].action, Action::Fault(crash));
}

#[test]
fn each_problem_is_reported_at_its_place_with_its_remedy() {
    let cases = [
        (with("latency =", "latancy ="), "latancy", "did you mean `latency`?"),
        (with("\"20ms\"", "20"), "20", "write a duration such as"),
        (with("\"20ms\"", "\"20 parsec\""), "\"20 parsec\"", "write a duration such as"),
        (with("client-2", "client-3"), "\"client-3\"", "`client-1` to `client-2`"),
        (with("agent-1", "agent-2"), "\"agent-2\"", "there is `agent-1`"),
        (with("\"1s\"", "\"11s\""), "\"11s\"", "raise `duration`"),
        (with("replay_started", "replay_startet"), "\"events.replay_startet\"", "did you mean"),
        (with("EV-5", "EV5"), "\"EV5\"", "statements are written"),
        (with("\"10ms\"\n\n", "\"0ms\"\n\n"), "\"0ms\"", "a tick is between"),
        (with("clients = 2", "clients = 9"), "9", "write an integer from 1 to 4"),
        (
            with("crash =", "krash ="),
            "{ krash = \"client-2\", restart = \"500ms\" }",
            "name one of",
        ),
        (with("restart = \"500ms\"", "hold = \"client-1\""), "hold", "a step of its own"),
        (with("\"events\"", "\"event\""), "\"event\"", "did you mean `events`?"),
        (with("\"beginning\"", "\"end\""), "\"end\"", "known here: `live`, `beginning`"),
        (with("\"a replay is cut and goes on\"", "\" \""), "\" \"", "say in one sentence"),
    ];
    for (text, place, remedy) in cases {
        let found = problems(&text);
        assert!(
            found.iter().any(|(_, at, help)| at == place && help.contains(remedy)),
            "{place}: {found:?}"
        );
    }
}

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let text = with("latency =", "latancy =").replace("client-2", "client-7");
    assert_eq!(problems(&text).len(), 2);
}

#[test]
fn a_step_has_one_time_and_one_action() {
    let none = problems(&with("at = \"1s\"", ""));
    assert_eq!(none[0].0, "a step happens some time");
    let two = problems(&with(
        "at = \"1s\"",
        "at = \"1s\"\nfault = { refuse = \"client-1\", for = \"1s\" }",
    ));
    assert_eq!(two[0].0, "a step does one thing");
}

#[test]
fn what_is_held_is_not_partitioned() {
    let clash = "[[step]]\nat = \"1s\"\nfault = { hold = \"client-1\", for = \"3s\" }\n\
                 [[step]]\nat = \"2s\"\nfault = { partition = \"client-1\", for = \"1s\" }\n";
    let found = problems(&format!("{GOOD}{clash}"));
    assert_eq!(found[0].0, "client-1 is held and partitioned at the same time");
    let apart = clash.replace("3s", "500ms");
    assert!(Scenario::parse("events/x", &format!("{GOOD}{apart}")).is_ok());
}

#[test]
fn a_scenario_in_which_nothing_happens_is_refused() {
    let found = problems("title = \"x\"\nprotocol = \"events\"\n");
    assert_eq!(found[0].0, "nothing happens in this scenario");
}

#[test]
fn text_that_is_no_toml_is_refused_at_its_place() {
    let found = problems("title = \"x\"\nprotocol = events\n");
    assert_eq!(found[0].0, "this is not TOML");
}

#[test]
fn every_embedded_scenario_is_right() {
    let library = Library::embedded();
    assert!(library.ids().contains(&"events/swarm"));
    for id in library.ids() {
        library.get(id).unwrap_or_else(|error| panic!("{id}: {error:?}"));
    }
}

#[test]
fn an_unknown_id_is_answered_with_the_nearest_one() {
    let error = Library::embedded().get("events/swrm").expect_err("there is none");
    let help = miette::Diagnostic::help(&error).expect("there is a remedy").to_string();
    assert!(help.contains("`events/swarm`"), "{help}");
}
