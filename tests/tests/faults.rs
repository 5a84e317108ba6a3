//! The tables of known faults and the scenarios that claim them name each other; and what a checker
//! cannot see in a scenario, because it costs no event, is looked at here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gapless_sim::history::Seen;
use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;
use gapless_sim::world::{Run, run};

/// What a row of a table says.
struct Row {
    /// The scenarios that it names.
    scenarios: BTreeSet<String>,
    /// The last cell without them.
    reason: String,
}

/// How a scenario's `reference` names a row.
fn reference_of(id: &str) -> String {
    match id {
        _ if id.starts_with("FS-") => id.to_owned(),
        _ if id.starts_with('H') => format!("hostlink:{id}"),
        _ if id.starts_with('S') => format!("springdrift:{id}"),
        _ => format!("relaycast:{id}"),
    }
}

/// Whether a `reference` names a row of the tables; others say in words where a scenario is from.
fn names_a_row(reference: &str) -> bool {
    ["FS-", "relaycast:", "hostlink:", "springdrift:"]
        .iter()
        .any(|prefix| reference.starts_with(prefix))
}

/// The rows of all tables, by what scenarios call them.
fn rows() -> BTreeMap<String, Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/faults.md");
    let text = std::fs::read_to_string(path).expect("the tables are there");
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (Some(id), Some(last)) = (cells.first(), cells.last()) else { continue };
        let number = id
            .trim_start_matches("FS-")
            .trim_start_matches("RC-")
            .trim_start_matches("HL-")
            .trim_start_matches("SD-")
            .trim_start_matches(['R', 'H', 'S']);
        if !line.starts_with('|') || !number.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let mut row = Row { scenarios: BTreeSet::new(), reason: String::new() };
        for (nth, part) in last.split('`').enumerate() {
            let is_scenario =
                ["events/", "tasks/", "session/"].iter().any(|folder| part.starts_with(folder));
            match nth % 2 == 1 && is_scenario {
                true => drop(row.scenarios.insert(part.to_owned())),
                false => row.reason.push_str(part.trim_matches([' ', ',', ';'])),
            }
        }
        let before = rows.insert(reference_of(id), row);
        assert!(before.is_none(), "{id} has two rows");
    }
    rows
}

/// The scenarios that claim each row.
fn claims() -> BTreeMap<String, BTreeSet<String>> {
    let library = Library::embedded();
    let mut claims: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for id in library.ids() {
        for reference in library.get(id).expect("it can be used").reference {
            if names_a_row(&reference) {
                claims.entry(reference).or_default().insert(id.to_owned());
            }
        }
    }
    claims
}

#[test]
fn every_known_fault_has_a_row() {
    let rows = rows();
    let ids = (1..=76)
        .map(|number| format!("FS-{number:02}"))
        .chain((1..=16).map(|number| format!("RC-{number:02}")))
        .chain((1..=17).filter(|number| *number != 5).map(|number| format!("R{number}")))
        .chain(('a'..='h').map(|letter| format!("R5{letter}")))
        .chain((1..=25).map(|number| format!("HL-{number:02}")))
        .chain((1..=33).map(|number| format!("H{number}")))
        .chain((1..=10).map(|number| format!("SD-{number:02}")))
        .chain((1..=19).map(|number| format!("S{number}")));
    let missing: Vec<_> = ids.filter(|id| !rows.contains_key(&reference_of(id))).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn a_row_names_exactly_the_scenarios_that_claim_it_or_has_a_reason() {
    let (rows, claims) = (rows(), claims());
    let none = BTreeSet::new();
    for (id, row) in &rows {
        assert_eq!(&row.scenarios, claims.get(id).unwrap_or(&none), "{id}");
        assert!(!row.scenarios.is_empty() || row.reason.len() > 10, "{id} has no reason");
    }
    let unknown: Vec<_> = claims.keys().filter(|id| !rows.contains_key(*id)).collect();
    assert_eq!(unknown, [""; 0]);
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
