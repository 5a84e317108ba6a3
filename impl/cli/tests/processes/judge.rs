//! Whether an output is what it has to be, by counting.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// An event of the output: its number in the stream, and whose how-manieth it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Line {
    #[serde(rename = "agent_seq")]
    pub(crate) sequence: u64,
    #[serde(rename = "who")]
    pub(crate) publisher: String,
    pub(crate) n: u64,
}

/// The lines of an output; an error for one that is no event of the campaign, as a declared gap.
pub(crate) fn parse(lines: &[String]) -> Result<Vec<Line>, String> {
    let parse = |line: &String| {
        serde_json::from_str(line).map_err(|error| format!("no event: {error}: {line}"))
    };
    lines.iter().map(parse).collect()
}

/// What is wrong with an output. Of each publisher in `acknowledged`, the events through that one are
/// acknowledged; of all others, and beyond, nobody knows.
pub(crate) fn judge(lines: &[Line], acknowledged: &BTreeMap<String, u64>) -> Vec<String> {
    let mut problems = Vec::new();
    for (line, expected) in lines.iter().zip(1..) {
        if line.sequence != expected {
            problems.push(format!("number {expected} is wanted here: {line:?}"));
            break;
        }
    }
    let mut seen: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for line in lines {
        let of_publisher = seen.entry(&line.publisher).or_default();
        if of_publisher.last().is_some_and(|last| *last > line.n) {
            problems.push(format!("it comes after a later one: {line:?}"));
        }
        if !of_publisher.insert(line.n) {
            problems.push(format!("it comes twice: {line:?}"));
        }
    }
    for (publisher, through) in acknowledged {
        let seen = seen.get(publisher.as_str()).cloned().unwrap_or_default();
        let lost: Vec<_> = (1..=*through).filter(|n| !seen.contains(n)).collect();
        if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
            let count = lost.len();
            problems.push(format!("{count} of `{publisher}` are lost, from {first} to {last}"));
        }
    }
    problems
}

/// An output of `main` with a few events of another publisher in it.
#[cfg(test)]
fn good() -> (Vec<Line>, BTreeMap<String, u64>) {
    let of = |sequence, publisher: &str, n| Line { sequence, publisher: publisher.to_owned(), n };
    let lines = vec![
        of(1, "main", 1),
        of(2, "main", 2),
        of(3, "other", 1),
        of(4, "main", 3),
        of(5, "other", 2),
        of(6, "main", 4),
    ];
    (lines, BTreeMap::from([("main".to_owned(), 4)]))
}

/// Numbers the lines anew, so that only the events are wrong.
#[cfg(test)]
fn numbered(mut lines: Vec<Line>) -> Vec<Line> {
    for (line, sequence) in lines.iter_mut().zip(1..) {
        line.sequence = sequence;
    }
    lines
}

#[test]
fn what_is_complete_and_in_order_is_good_and_what_nobody_knows_may_be_missing() {
    let (lines, acknowledged) = good();
    assert_eq!(judge(&lines, &acknowledged), [""; 0]);
    let without = lines.into_iter().filter(|line| line.publisher == "main").collect();
    assert_eq!(judge(&numbered(without), &acknowledged), [""; 0]);
}

#[test]
fn a_lost_event_is_seen_whether_its_number_is_missing_or_not() {
    let (mut lines, acknowledged) = good();
    lines.remove(1);
    let found = judge(&lines, &acknowledged).concat();
    assert!(found.contains("number 2 is wanted here"), "{found}");
    let found = judge(&numbered(lines), &acknowledged);
    assert_eq!(found, ["1 of `main` are lost, from 2 to 2"]);
    assert_eq!(judge(&[], &acknowledged), ["4 of `main` are lost, from 1 to 4"]);
}

#[test]
fn a_doubled_event_is_seen_also_if_it_was_not_acknowledged() {
    let (lines, acknowledged) = good();
    for doubled in [1, 4] {
        let mut lines = lines.clone();
        lines.insert(doubled, lines[doubled].clone());
        let found = judge(&lines, &acknowledged).concat();
        assert!(found.contains("is wanted here") && found.contains("comes twice"), "{found}");
        let found = judge(&numbered(lines), &acknowledged).concat();
        assert!(found.contains("comes twice"), "{found}");
    }
}

#[test]
fn swapped_events_are_seen_by_their_numbers_and_by_their_publisher() {
    let (mut lines, acknowledged) = good();
    lines.swap(0, 1);
    let found = judge(&lines, &acknowledged).concat();
    assert!(found.contains("number 1 is wanted here"), "{found}");
    let found = judge(&numbered(lines), &acknowledged).concat();
    assert!(found.contains("comes after a later one"), "{found}");
    // Of two publishers, only the numbers say it.
    let (mut lines, acknowledged) = good();
    lines.swap(1, 2);
    let found = judge(&lines, &acknowledged);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_declared_gap_is_no_event_of_the_campaign() {
    let gap = r#"{"type":"gap","verdict":"too_old","lost":[],"goes_on_after":3}"#.to_owned();
    assert!(parse(&[gap]).is_err());
    let event = r#"{"type":"message","who":"main","n":1,"agent_seq":1}"#.to_owned();
    assert_eq!(parse(&[event]).expect("an event")[0].n, 1);
}
