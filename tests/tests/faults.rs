//! Every known fault is played, and seen; and what a checker cannot see in a scenario, because it
//! costs no event, is looked at here.

use std::collections::BTreeMap;

use gapless_sim::history::Seen;
use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;
use gapless_sim::world::{Run, run};

#[test]
fn every_known_fault_is_played_by_a_scenario_or_excused() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["gapless-sim", "scenarios", "--check"].map(Into::into);
    let code = gapless_sim::cli::main(args, &mut out, &mut err);
    assert_eq!(code, gapless_sim::exit::OK, "{}", String::from_utf8_lossy(&err));
}

#[test]
fn a_mutant_that_has_a_known_fault_fails_where_the_fault_is_played() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["gapless-sim", "mutants", "--corpus"].map(Into::into);
    let code = gapless_sim::cli::main(args, &mut out, &mut err);
    assert_eq!(code, gapless_sim::exit::OK, "{}", String::from_utf8_lossy(&out));
}

fn carry_out(id: &str) -> Run {
    let scenario = Library::embedded().get(id).expect("it is there");
    run(&draw(&scenario, Seed(1))).expect("it can be carried out")
}

#[test]
fn what_is_healthy_is_not_taken_for_dead() {
    const GIVEN_UP: [&str; 6] = [
        "events.resync_timed_out",
        "events.silent_client_closed",
        "events.silent_server_dropped",
        "events.slow_reader_closed",
        "session.silent_client_closed",
        "session.silent_server_dropped",
    ];
    for id in [
        "events/backlog-before-the-pong",
        "events/clock-steps",
        "events/clock-steps-base",
        "events/slow-application",
        "session/clock-steps",
        "session/clock-steps-base",
        "session/idle-connection-outlives-its-outbox",
    ] {
        let run = carry_out(id);
        let reached: Vec<_> =
            GIVEN_UP.into_iter().filter(|mark| run.marks.contains_key(mark)).collect();
        assert_eq!(reached, [""; 0], "{id}");
    }
}

#[test]
fn what_must_not_happen_does_not() {
    for (id, marks) in [
        ("events/half-open-ten-times", &["events.oldest_socket_closed"][..]),
        ("events/idle-longer-than-retention", &["events.gap_reported", "events.verdict_too_old"]),
        ("events/last-event-again-and-again", &["events.duplicate_dropped"]),
        (
            "events/resumed-and-cut-again",
            &["events.duplicate_dropped", "events.replayed_event_was_applied"],
        ),
        ("events/two-sockets-of-one-agent", &["events.oldest_socket_closed"]),
        ("session/clock-steps", &["session.ring_aged", "session.verdict_too_old"]),
        ("session/idle-connection-outlives-its-outbox", &["session.idle_outbox_dropped"]),
        ("session/replay-cut-at-each-frame", &["session.verdict_too_old"]),
    ] {
        let run = carry_out(id);
        let reached: Vec<_> = marks.iter().filter(|mark| run.marks.contains_key(*mark)).collect();
        assert_eq!(reached, [&""; 0], "{id}");
    }
}

#[test]
fn a_resync_counts_what_was_missed() {
    for missed in [501, 700, 1_700, 10_000] {
        let run = carry_out(&format!("events/ring-overflow-{missed}"));
        let counts: Vec<_> = run
            .history
            .entries
            .iter()
            .filter_map(|entry| match entry.what {
                Seen::Resynced { replayed, gap_detected, .. } => Some((replayed, gap_detected)),
                _ => None,
            })
            .collect();
        assert_eq!(counts, [(0, false), (missed, false)]);
    }
}

#[test]
fn retention_costs_those_behind_it_and_nobody_else() {
    let run = carry_out("events/retention-at-the-cursor");
    let gaps: Vec<_> = run
        .history
        .entries
        .iter()
        .filter_map(|entry| match &entry.what {
            Seen::Gap { client, lost, .. } => Some((*client, lost.clone())),
            _ => None,
        })
        .collect();
    // Client 4 had asked before more was forgotten.
    assert_eq!(gaps, [(3, vec![(6, 6)]), (4, vec![(6, 6)])]);
}

#[test]
fn a_live_start_begins_at_the_head_and_the_other_at_zero() {
    for (id, begins) in
        [("events/live-start-behind-history", 5), ("events/start-from-the-beginning", 0)]
    {
        let joined = carry_out(id).history.entries.into_iter().find_map(|entry| match entry.what {
            Seen::Joined { sequence, .. } => Some(sequence),
            _ => None,
        });
        assert_eq!(joined, Some(begins), "{id}");
    }
}

#[test]
fn nobody_waits_for_a_reader_that_stopped() {
    const LATE_MS: u64 = 500;
    let run = carry_out("events/stopped-reader");
    let mut published = BTreeMap::new();
    let mut delivered = 0;
    for entry in &run.history.entries {
        match &entry.what {
            Seen::Publishing { key, .. } => drop(published.insert(key, entry.at_ms)),
            Seen::Delivered { client: 2, key: Some(key), .. } => {
                delivered += 1;
                let took = entry.at_ms - published[key];
                assert!(took <= LATE_MS, "{key} took {took} ms to client-2");
            }
            _ => {}
        }
    }
    assert_eq!(delivered, 302);
}
