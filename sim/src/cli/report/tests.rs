//! What a person reads of a run that went wrong.

use std::collections::BTreeMap;

use super::*;
use crate::history::{Entry, History};
use crate::plan::{ClientOptions, FORMAT, Options, ServerOptions, Topology};
use crate::trace::Trace;

/// A run in which a client's application was given event 2 and never 1.
fn run(records: Vec<Record>) -> Run {
    let published = |sequence: u64| Seen::Published {
        agent: 1,
        key: format!("k{sequence}"),
        epoch: "e1".to_owned(),
        sequence,
    };
    let delivered = Seen::Delivered {
        client: 1,
        incarnation: 1,
        epoch: Some("e1".to_owned()),
        sequence: Some(2),
        key: Some("k2".to_owned()),
    };
    let seen = [published(1), published(2), delivered];
    let entries = seen.into_iter().zip(1..).map(|(what, at_ms)| Entry { at_ms, what });
    Run {
        plan: Plan {
            format: FORMAT,
            mutant: None,
            scenario: "events/made-up".to_owned(),
            seed: 7,
            tick_ms: 5,
            duration_ms: 1_000,
            settle_ms: 1_000,
            statements: vec![],
            reaches: vec!["events.joined".to_owned()],
            topology: Topology { clients: 2, latency_ms: 1, ..Topology::default() },
            options: Options::Events {
                server: ServerOptions::default(),
                client: ClientOptions::default(),
            },
            drawn: None,
            steps: vec![],
        },
        trace: Trace { records },
        history: History { entries: entries.collect() },
        marks: BTreeMap::new(),
        faults: BTreeMap::from([("reset", 2)]),
        virtual_ms: 2_500,
    }
}

fn record(at_ms: u64, host: &'static str, kind: Kind, text: &str) -> Record {
    Record { at_ms, host, incarnation: 1, kind, text: text.into(), fact: None }
}

fn lost(count: u64) -> Verdict {
    let violations = (0..count).map(|number| Violation {
        checker: "no_loss",
        statements: &["CORE-5"],
        message: format!("finding {number}"),
        at_ms: 1_000 + number,
        client: Some(1),
    });
    Verdict::Violation(violations.collect())
}

/// The report without colours.
fn text(run: &Run, verdict: &Verdict) -> String {
    let real = Duration::from_millis(3);
    let again = "events/made-up 7";
    let text =
        heading(&run.plan, "made up") + &Report { run, verdict, again, once: None, real }.text();
    anstream::adapter::strip_str(&text).to_string()
}

#[test]
fn a_violation_is_told_with_what_led_to_it_and_how_to_have_it_again() {
    let run = run(vec![
        record(10, "client-1", Kind::App, "applies 2 k2"),
        record(20, "client-1", Kind::Mark, "events.some_mark"),
        record(30, "client-2", Kind::App, "concerns somebody else"),
        record(40, "server", Kind::Send, "client-2: concerns somebody else"),
        record(50, "server", Kind::Send, "client-1: note agent_seq=2"),
        record(60, "world", Kind::Step, "fault: reset"),
        record(2_000, "client-1", Kind::App, "is later than the violation"),
    ]);
    let text = text(&run, &lost(1));
    for wanted in [
        "scenario   events/made-up: made up\n",
        "faults     2 injected: reset ×2\n",
        "× events.joined\n",
        "published  0 events: 2 acknowledged, 0 refused, 0 of unknown outcome\n",
        "delivered  1 events, 0 gaps declared\n",
        "time       2.500 s virtual, 3 ms real\n",
        "  × finding 0\n    no_loss (CORE-5), seen at 1.000 s\n",
        "  ╭─ the 3 records before 1.000 s, client-1\n",
        "client-1.1  *  applies 2 k2\n",
        "server.1    -> client-1: note agent_seq=2\n",
        "!! fault: reset\n",
        "reproduce    cargo sim events/made-up 7\n",
        "whole trace  cargo sim show events/made-up 7\n",
        "shrink       cargo sim shrink events/made-up 7\n",
        "freeze       cargo sim freeze events/made-up 7\n",
        "cargo sim events/made-up 7 --capsule failing.json\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    for unwanted in ["some_mark", "somebody else", "is later", "nothing lost"] {
        assert!(!text.contains(unwanted), "{unwanted:?} is in\n{text}");
    }
}

#[test]
fn a_long_report_names_the_first_findings_and_fits_a_screen() {
    let records = (0..500).map(|at_ms| record(at_ms, "client-1", Kind::App, "applies"));
    let text = text(&run(records.collect()), &lost(9));
    assert!(text.contains("finding 4\n") && !text.contains("finding 5\n"), "{text}");
    assert!(text.contains("and 4 more\n"), "{text}");
    let lines = text.lines().count();
    assert!(lines <= 60, "{lines} lines:\n{text}");
}

#[test]
fn options_are_told_as_far_as_they_are_not_those_by_default() {
    let usual = || (ServerOptions::default(), ClientOptions::default());
    let (server, client) = usual();
    assert_eq!(options(&Options::Events { server, client }), "as they are by default");
    let (mut server, mut client) = usual();
    (server.ring, client.reconnect_ms, client.handler_ms) = (16, (100, 200), 7);
    let told = "client: handler_ms=7, reconnect_ms=[100,200]\n             server: ring=16";
    assert_eq!(options(&Options::Events { server, client }), told);
}
