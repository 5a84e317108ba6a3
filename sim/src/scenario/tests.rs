//! What a file may say, and what is said of one that is wrong.

use super::{Library, Scenario};
use crate::plan::{Action, Fault, Host, Options, When};

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

/// What is wrong with a text: message, place, label, remedy.
fn problems(text: &str) -> Vec<(String, String, String, String)> {
    let invalid = Scenario::parse("events/x", text).expect_err("the text is wrong");
    let problems = invalid.problems().iter().map(|problem| {
        let place = &text[problem.span.offset()..problem.span.offset() + problem.span.len()];
        let (message, label) = (problem.message.clone(), problem.label.clone());
        (message, place.to_owned(), label, problem.remedy.clone())
    });
    problems.collect()
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
    let Options::Events { server, client } = &scenario.options else { panic!("events") };
    assert_eq!(client.reconnect_ms, (100, 2_000));
    assert!(client.from_beginning);
    assert_eq!((server.ring, scenario.tick_ms, scenario.settle_ms), (16, 10, 60_000));
    assert_eq!(scenario.steps[0].when, When::At(1_000));
    let crash = Fault::Crash { host: Host::Client(2), restart_ms: 500 };
    assert_eq!(scenario.steps[1].action, Action::Fault(crash));
}

#[test]
fn the_order_of_turns_names_every_host() {
    let text = with("clients = 2", "clients = 2\norder = [\"client-2\", \"server\", \"client-1\"]");
    let scenario = Scenario::parse("events/x", &text).expect("the text is right");
    let turns = [Host::Client(2), Host::Server, Host::Client(1)];
    assert_eq!(scenario.topology.turns(), turns);
    let short = with("clients = 2", "clients = 2\norder = [\"client-2\", \"server\"]");
    let messages: Vec<_> = problems(&short).into_iter().map(|(message, ..)| message).collect();
    assert_eq!(messages, ["`order` leaves out `client-1`"]);
}

#[test]
fn an_engine_is_there_with_several_servers_and_has_their_log() {
    let fault = |fault: &str| with("crash = \"client-2\", restart = \"500ms\"", fault);
    let cluster = |text: &str| text.replacen("clients = 2", "clients = 2\nservers = 3", 1);
    for there in [
        "isolate = \"server-3\", for = \"1s\"",
        "election = \"engine\", for = \"1s\"",
        "crash = \"engine\"",
        "backup = \"engine\"",
        "suspend = \"server-2\", for = \"1s\"",
    ] {
        let scenario = Scenario::parse("events/x", &cluster(&fault(there))).expect(there);
        assert_eq!(Scenario::parse("events/x", &scenario.text()).ok().as_ref(), Some(&scenario));
        assert!(Scenario::parse("events/x", &fault(there)).is_err(), "{there}");
    }
    for not_there in [
        "isolate = \"server-4\", for = \"1s\"",
        "election = \"server-2\", for = \"1s\"",
        "backup = \"server\"",
        "slow-commit = \"engine\", for = \"1s\"",
        "power-off = \"server-2\"",
    ] {
        assert!(Scenario::parse("events/x", &cluster(&fault(not_there))).is_err(), "{not_there}");
    }
}

/// A place, the label there, and how its remedy begins or what is in it.
type Expected = (&'static str, &'static str, &'static str);

#[test]
fn each_problem_is_reported_at_its_place_with_its_remedy() {
    let cases: &[(&str, &str, Expected)] = &[
        ("latency =", "latancy =", ("latancy", "unknown", "did you mean `latency`?")),
        (
            "\"20ms\"",
            "20",
            ("20", "this is an integer that does not fit", "write a duration such as"),
        ),
        (
            "\"20ms\"",
            "\"20 parsec\"",
            ("\"20 parsec\"", "this is a string that does not fit", "write a duration such as"),
        ),
        ("\"20ms\"", "\"25h\"", ("\"25h\"", "this is a string that does not fit", "up to \"24h\"")),
        ("\"10s\"", "\"0s\"", ("\"0s\"", "no time at all", "write a duration of at least \"1ms\"")),
        (
            "\"client-2\"",
            "\"client-3\"",
            ("\"client-3\"", "no such client", "`client-1` to `client-2`"),
        ),
        ("agent-1", "agent-2", ("\"agent-2\"", "no such agent", "there is `agent-1`; `[topology]")),
        ("\"1s\"", "\"11s\"", ("\"11s\"", "too late", "raise `duration`")),
        (
            "after = \"10ms\"",
            "after = \"10s\"",
            ("\"10s\"", "too late", "lower `after`, or raise `duration`"),
        ),
        (
            "every = \"10ms\"",
            "every = \"4s\"",
            (
                "{ to = \"agent-1\", count = 4, every = \"4s\" }",
                "goes on for too long",
                "lower `count` or `every`",
            ),
        ),
        (
            "restart = \"500ms\"",
            "restart = \"10s\"",
            (
                "{ crash = \"client-2\", restart = \"10s\" }",
                "too long",
                "lower `for` or `restart`, or raise `duration`",
            ),
        ),
        (
            "replay_started",
            "replay_startet",
            ("\"events.replay_startet\"", "unknown mark", "did you mean `events.replay_started`?"),
        ),
        ("EV-5", "EV5", ("\"EV5\"", "not the form of a statement", "statements are written")),
        (
            "clients = 2",
            "clients = 2\norder = [\"client-2\", \"server\", \"client-3\", \"client-1\"]",
            ("\"client-3\"", "unknown", "did you mean `client-1`?"),
        ),
        (
            "clients = 2",
            "clients = 2\norder = [\"server\", \"client-2\", \"client-1\", \"server\"]",
            ("\"server\"", "a second time", "take it out once"),
        ),
        ("\"10ms\"\n\n", "\"0ms\"\n\n", ("\"0ms\"", "this tick", "a tick is between")),
        ("\"10ms\"\n\n", "\"101ms\"\n\n", ("\"101ms\"", "this tick", "a tick is between")),
        (
            "clients = 2",
            "clients = 9",
            ("9", "this is an integer that does not fit", "write an integer from 1 to 4"),
        ),
        (
            "clients = 2",
            "clients = 2\nagents = 3",
            ("3", "this many agents", "each agent needs a client"),
        ),
        ("crash =", "krash =", ("krash", "unknown", "did you mean `crash`?")),
        (
            "crash = \"client-2\", ",
            "",
            ("{ restart = \"500ms\" }", "no kind", "name one of: cut, hold"),
        ),
        (
            "restart = \"500ms\"",
            "hold = \"client-1\"",
            ("hold", "a second kind", "a step of its own"),
        ),
        (
            "crash = \"client-2\", restart = \"500ms\"",
            "hold = \"client-2\"",
            ("{ hold = \"client-2\" }", "no `for`", "add how long it lasts"),
        ),
        (
            "crash = \"client-2\", restart = \"500ms\"",
            "latency = \"client-2\", for = \"1s\"",
            ("{ latency = \"client-2\", for = \"1s\" }", "no `to`", "add how slow"),
        ),
        ("\"events\"", "\"event\"", ("\"event\"", "unknown", "did you mean `events`?")),
        ("\"beginning\"", "\"end\"", ("\"end\"", "unknown", "known here: `live`, `beginning`")),
        ("\"a replay is cut and goes on\"", "\" \"", ("\" \"", "empty", "say in one sentence")),
    ];
    for (line, replacement, (place, label, remedy)) in cases {
        let found = problems(&with(line, replacement));
        let (_, at, said, help) = &found[0];
        assert!(
            at == place && said == label && help.contains(remedy) && found.len() == 1,
            "{replacement}: {found:?}"
        );
    }
}

#[test]
fn all_problems_of_a_file_are_reported_at_once_and_nothing_else_is() {
    let text = GOOD
        .replace("latency =", "latancy =")
        .replace("mark =", "marke =")
        .replace("crash = \"client-2\", restart = \"500ms\"", "hold = \"client-7\", for = \"1s\"")
        .replace("at = \"1s\"\npublish = { to = \"agent-1\"", "at = 1\npublish = { too = \"x\"");
    let found: Vec<_> = problems(&text).into_iter().map(|(message, ..)| message).collect();
    assert_eq!(
        found,
        [
            "unknown key `latancy`",
            "`at` must be a duration such as \"250ms\", \"2s\", \"5m\" or \"1h\", up to \"24h\"",
            "`to` is missing",
            "unknown key `too`",
            "`mark` is missing",
            "unknown key `marke`",
            "there is no `client-7`",
        ]
    );
}

#[test]
fn every_place_that_is_no_toml_is_reported() {
    let found = problems(&GOOD.replace("\"events\"\n", "events\n").replace("[server]", "[server"));
    let found: Vec<_> = found.iter().map(|(message, at, ..)| (&message[..], &at[..])).collect();
    assert_eq!(found, [("this is not TOML", "events"), ("this is not TOML", "")]);
}

#[test]
fn a_step_has_one_time_and_one_action() {
    let first = |text: &str| problems(text).remove(0).0;
    assert_eq!(first(&with("at = \"1s\"", "")), "a step happens some time");
    let two = "at = \"1s\"\non = { mark = \"events.joined\" }";
    assert_eq!(first(&with("at = \"1s\"", two)), "a step happens once");
    let two = "at = \"1s\"\nfault = { refuse = \"client-1\", for = \"1s\" }";
    assert_eq!(first(&with("at = \"1s\"", two)), "a step does one thing");
    let none = with("publish = { to = \"agent-1\", count = 4, every = \"10ms\" }", "");
    assert_eq!(first(&none), "a step does something");
}

#[test]
fn what_is_held_is_not_partitioned() {
    let clash = "[[step]]\nat = \"1s\"\nfault = { hold = \"client-1\", for = \"3s\" }\n\
                 [[step]]\nat = \"2s\"\nfault = { partition = \"client-1\", for = \"1s\" }\n";
    let found = problems(&format!("{GOOD}{clash}"));
    assert_eq!(found[0].0, "client-1 is held and partitioned at the same time");
    for apart in [clash.replace("3s", "500ms"), clash.replacen("client-1", "client-2", 1)] {
        assert!(Scenario::parse("events/x", &format!("{GOOD}{apart}")).is_ok(), "{apart}");
    }
    // A mark may be reached at any time.
    let waits = clash.replacen("at = \"1s\"", "on = { mark = \"events.joined\" }", 1);
    let found = problems(&format!("{GOOD}{waits}"));
    assert_eq!(found[0].0, "client-1 may be held and partitioned at the same time");
}

#[test]
fn a_swarm_has_no_run_that_cannot_be_carried_out() {
    // A seed draws the options of server and client.
    let (before, rest) = GOOD.split_once("[server]").expect("it has options");
    let steps = rest.split_once("[[step]]").expect("it has steps").1;
    let fixed = format!("{before}[[step]]{steps}");
    let swarm = |lines: &str| format!("{fixed}[swarm]\nfaults = [\"link\"]\n{lines}");
    let good = "clients = \"2..3\"\nagents = \"1..2\"\n";
    assert!(Scenario::parse("events/x", &swarm(good)).is_ok());
    // The step crashes `client-2`.
    let found = problems(&swarm("clients = \"1..3\"\n"));
    assert_eq!(found[0].0, "there is no `client-2`");
    assert!(found[0].3.contains("`[swarm] clients = …`"), "{found:?}");
    let found = problems(&swarm("clients = \"2..3\"\nagents = \"3..3\"\n"));
    assert_eq!(found[0].0, "more agents than clients");
    let found = problems(&swarm(good).replace("faults = [\"link\"]\n", ""));
    assert_eq!(found[0].0, "`faults` is missing");
    let found = problems(&swarm(good).replace("\"link\"", "\"lnk\""));
    assert!(found[0].3.contains("did you mean `link`?"), "{found:?}");
    let hold = "crash = \"client-2\", restart = \"500ms\"";
    let found = problems(&swarm(good).replace(hold, "hold = \"client-2\", for = \"1s\""));
    assert_eq!(found[0].0, "a seed may hold and partition client-2 at the same time");
}

#[test]
fn a_scenario_in_which_nothing_happens_is_refused() {
    let found = problems("title = \"x\"\nprotocol = \"events\"\n");
    assert_eq!(found[0].0, "nothing happens in this scenario");
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
fn an_unknown_id_is_answered_with_the_nearest_ones() {
    let library = Library::embedded();
    let help = |id: &str| {
        let error = library.get(id).expect_err("there is none");
        miette::Diagnostic::help(&error).expect("there is a remedy").to_string()
    };
    assert!(help("events/swrm").contains("did you mean `events/swarm`?"));
    assert!(
        help("swarm").contains("did you mean `events/swarm` or `session/swarm` or `tasks/swarm`?")
    );
    assert!(
        help("half-open").contains("`events/half-open-one-way` or `events/half-open-takeover`")
    );
    assert_eq!(help("nothing/like-it"), "`gapless-sim scenarios` lists the scenarios");
}

#[test]
fn a_swarm_draws_the_options_that_a_fixed_scenario_sets() {
    let found = problems(&format!("{GOOD}[swarm]\nfaults = [\"link\"]\nclients = 2\n"));
    let messages: Vec<&str> = found.iter().map(|(message, ..)| message.as_str()).collect();
    assert_eq!(messages, ["a swarm has no `[server]`", "a swarm has no `[client]`"]);
}

#[test]
fn a_scenario_is_written_as_it_was_read() {
    let library = Library::embedded();
    for id in library.ids() {
        let scenario = library.get(id).unwrap_or_else(|error| panic!("{id}: {error:?}"));
        let text = scenario.text();
        let read = Scenario::parse(id, &text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        assert_eq!(read, scenario, "{text}");
    }
}

/// The good text as a plan that was frozen.
fn frozen(lines: &str) -> String {
    let frozen = format!("[frozen]\n{lines}\n\n[[step]]\nat = \"1s\"");
    with("[[step]]\nat = \"1s\"", &frozen)
}

const FROZEN: &str =
    "seed = \"7\"\nmutant = \"cursor-jumps\"\nchecker = \"no_loss\"\nshows = \"x\"";

#[test]
fn what_is_frozen_says_where_it_was_found() {
    let scenario = Scenario::parse("regressions/x", &frozen(FROZEN)).expect("the text is right");
    let from = scenario.frozen.expect("it is frozen");
    assert_eq!((from.seed.0, from.mutant.as_deref()), (7, Some("cursor-jumps")));
    let cases = [
        ("seed = \"7\"", "seed = \"x\"", "`x` is not a seed"),
        ("seed = \"7\"\n", "", "`seed` is missing"),
        ("cursor-jumps", "cursor-jump", "`cursor-jump` is not known here"),
        ("no_loss", "runs_once", "`runs_once` is not known here"),
        ("shows = \"x\"", "", "`shows` is missing"),
    ];
    for (line, replacement, message) in cases {
        let found = problems(&frozen(&FROZEN.replacen(line, replacement, 1)));
        assert!(found[0].0.starts_with(message) && found.len() == 1, "{found:?}");
    }
    let swarm = format!("{}[swarm]\nfaults = [\"link\"]\nclients = 2\n", frozen(FROZEN));
    assert!(problems(&swarm).iter().any(|(message, ..)| message == "a swarm is not frozen"));
}

#[test]
fn nobody_chose_the_times_of_what_is_frozen() {
    for (line, late) in
        [("500ms", "10s"), ("\"1s\"\n", "\"11s\"\n"), ("after = \"10ms\"", "after = \"10s\"")]
    {
        assert_eq!(problems(&with(line, late)).len(), 1, "{late}");
        let text = frozen(FROZEN).replacen(line, late, 1);
        assert!(Scenario::parse("regressions/x", &text).is_ok(), "{text}");
    }
}
