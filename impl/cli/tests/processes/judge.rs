//! What was seen from outside, as a history of the simulator, judged by its checkers.
//!
//! What a publisher was fed, which receipts it got (its log), what `tail` wrote, and what the log of the
//! server holds after the last life. The checkers know neither the processes nor what was done to them.
//! Here it is not seen what went over the wire: that `tail` asked for the right place is judged by what
//! came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gapless::AgentId;
use gapless::events::log::{Command, Read, Reply};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::storage::Transact as _;
use gapless_sim::check::event_violations;
use gapless_sim::history::{Entry, History, Seen};
use gapless_sim::plan::Topology;
use serde::Deserialize;

/// The one stream, and the one client, of a campaign.
const AGENT: u32 = 1;
const CLIENT: u32 = 1;

/// How many events of the log are read at once.
const PAGE: usize = 1_000;

/// An event, of the output or of the log: its number in the stream, and whose how-manieth it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Line {
    #[serde(rename = "agent_seq")]
    pub(crate) sequence: u64,
    #[serde(rename = "who")]
    pub(crate) publisher: String,
    pub(crate) n: u64,
}

impl Line {
    fn key(&self) -> String {
        key(&self.publisher, self.n)
    }
}

fn key(publisher: &str, n: u64) -> String {
    format!("{publisher}-{n}")
}

/// The lines of an output; an error for one that is no event of the campaign, as a declared gap.
pub(crate) fn parse(lines: &[String]) -> Result<Vec<Line>, String> {
    let parse = |line: &String| {
        serde_json::from_str(line).map_err(|error| format!("no event: {error}: {line}"))
    };
    lines.iter().map(parse).collect()
}

/// A receipt, as `publish` logs it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) line: u64,
    pub(crate) epoch: String,
    pub(crate) sequence: u64,
}

/// The receipts in the log of a publisher. Its last line may be cut.
pub(crate) fn receipts(log: &str) -> Vec<Receipt> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A publisher: what it was to publish, and what it heard of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    /// It was given lines 1 to this one.
    pub(crate) given: u64,
    pub(crate) receipts: Vec<Receipt>,
    /// It has ended with the word that everything is acknowledged.
    pub(crate) all: bool,
}

/// What the log of a server that does not run holds.
pub(crate) fn stored(path: &Path) -> Vec<Line> {
    let mut log = SqliteLog::open(LogConfig::new(path)).expect("the log opens");
    let agent = AgentId::parse("demo").expect("an agent");
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let after = lines.last().map_or(0, |line| line.sequence);
        let (to, bytes_max) = (gapless::recovery::MAX_SEQUENCE, usize::MAX);
        let read = Read { agent: agent.clone(), after, to, count_max: PAGE, bytes_max };
        let replies = log.transact(vec![Command::Read(read)]).expect("the log is read");
        let [Reply::Page(page)] = &replies[..] else { panic!("a page was expected: {replies:?}") };
        if page.is_empty() {
            return lines;
        }
        let whole = page.iter().map(|(sequence, body)| {
            let mut event: serde_json::Value = serde_json::from_str(body.as_str()).expect("JSON");
            event["agent_seq"] = (*sequence).into();
            serde_json::from_value::<Line>(event).expect("an event of the campaign")
        });
        lines.extend(whole);
    }
}

/// Everything that was seen of a campaign.
pub(crate) fn history(
    publishers: &BTreeMap<String, Published>,
    output: &[Line],
    log: &[Line],
) -> History {
    let mut seen = Vec::new();
    for (who, publisher) in publishers {
        let keys = (1..=publisher.given).map(|n| key(who, n));
        seen.extend(keys.map(|key| Seen::Publishing { agent: AGENT, key }));
        let mut known = BTreeSet::new();
        for Receipt { line, epoch, sequence } in &publisher.receipts {
            known.insert(*line);
            seen.push(Seen::Published {
                agent: AGENT,
                key: key(who, *line),
                epoch: epoch.clone(),
                sequence: *sequence,
            });
        }
        // Where all are acknowledged, one without a receipt waits for ever.
        let unknown = (1..=publisher.given).filter(|n| !publisher.all && !known.contains(n));
        let unknown = unknown.map(|n| Seen::PublishUnknown { agent: AGENT, key: key(who, n) });
        seen.extend(unknown);
    }
    seen.push(Seen::Connected { client: CLIENT, incarnation: 1 });
    seen.push(Seen::Joined { client: CLIENT, epoch: None, sequence: 0 });
    seen.extend(output.iter().map(|line| Seen::Delivered {
        client: CLIENT,
        incarnation: 1,
        epoch: None,
        sequence: Some(line.sequence),
        key: Some(line.key()),
    }));
    seen.push(Seen::Healed);
    let (oldest, head) = (1, log.last().map_or(0, |line| line.sequence));
    seen.push(Seen::LogEnd { agent: AGENT, oldest, head });
    seen.extend(log.iter().map(|line| Seen::Stored {
        agent: AGENT,
        sequence: line.sequence,
        key: line.key(),
    }));
    let entries = seen.into_iter().zip(0..).map(|(what, at_ms)| Entry { at_ms, what });
    History { entries: entries.collect() }
}

/// What the checkers say, each with its name.
pub(crate) fn judge(history: &History) -> Vec<String> {
    let (safety, liveness) = event_violations(history, &Topology::default());
    let all = safety.into_iter().chain(liveness);
    all.map(|violation| format!("{}: {}", violation.checker, violation.message)).collect()
}

/// A campaign in which everything is right: `main` with four events, and another publisher that was
/// killed after its second, of three.
#[cfg(test)]
fn good() -> (BTreeMap<String, Published>, Vec<Line>, Vec<Line>) {
    let of = |sequence, publisher: &str, n| Line { sequence, publisher: publisher.to_owned(), n };
    let lines = vec![
        of(1, "main", 1),
        of(2, "main", 2),
        of(3, "other", 1),
        of(4, "main", 3),
        of(5, "other", 2),
        of(6, "main", 4),
    ];
    let receipt = |(line, sequence)| Receipt { line, epoch: "e".to_owned(), sequence };
    let main = Published {
        given: 4,
        receipts: [(1, 1), (2, 2), (3, 4), (4, 6)].map(receipt).to_vec(),
        all: true,
    };
    let other = Published { given: 3, receipts: [(1, 3)].map(receipt).to_vec(), all: false };
    let publishers = BTreeMap::from([("main".to_owned(), main), ("other".to_owned(), other)]);
    (publishers, lines.clone(), lines)
}

/// What the checkers say when one thing is changed in a campaign that is right.
#[cfg(test)]
fn changed(
    change: impl FnOnce(&mut BTreeMap<String, Published>, &mut Vec<Line>, &mut Vec<Line>),
) -> Vec<String> {
    let (mut publishers, mut output, mut log) = good();
    change(&mut publishers, &mut output, &mut log);
    judge(&history(&publishers, &output, &log))
}

#[cfg(test)]
fn names(checker: &str, problems: &[String]) -> bool {
    problems.iter().any(|problem| problem.starts_with(&format!("{checker}: ")))
}

#[test]
fn what_is_complete_and_in_order_is_good_and_what_nobody_knows_may_be_missing() {
    assert_eq!(changed(|_, _, _| {}), [""; 0]);
    let without_the_unknown = changed(|_, output, log| {
        for lines in [output, log] {
            lines.remove(4);
            lines.iter_mut().zip(1..).for_each(|(line, sequence)| line.sequence = sequence);
        }
    });
    // Only that the receipt of the last one says another number.
    assert!(without_the_unknown.iter().all(|problem| problem.contains("main-4")));
}

#[test]
fn an_event_that_a_client_drops_is_found() {
    let found = changed(|_, output, _| drop(output.remove(1)));
    assert!(names("no_loss", &found), "{found:?}");
    let last = changed(|_, output, _| drop(output.pop()));
    assert!(names("progress", &last), "{last:?}");
}

#[test]
fn an_event_that_a_client_doubles_is_found_also_if_it_was_not_acknowledged() {
    for doubled in [1, 4] {
        let found = changed(|_, output, _| output.insert(doubled, output[doubled].clone()));
        assert!(names("no_duplicate", &found), "{found:?}");
    }
}

#[test]
fn events_that_a_client_swaps_are_found() {
    let found = changed(|_, output, _| output.swap(1, 2));
    assert!(names("in_order", &found), "{found:?}");
}

#[test]
fn an_acknowledged_event_that_the_log_lost_or_gave_another_number_is_found() {
    let found = changed(|_, _, log| drop(log.remove(3)));
    assert!(names("acknowledged_is_durable", &found), "{found:?}");
    let found = changed(|publishers, _, _| {
        publishers.get_mut("main").expect("there").receipts[0].sequence = 2;
    });
    assert!(names("one_name_one_payload", &found), "{found:?}");
}

#[test]
fn an_event_that_nobody_published_and_a_publisher_without_an_answer_are_found() {
    let found = changed(|publishers, _, _| publishers.get_mut("other").expect("there").given = 1);
    assert!(names("no_phantom", &found), "{found:?}");
    let found = changed(|publishers, _, _| {
        publishers.get_mut("main").expect("there").receipts.pop();
    });
    assert!(names("progress", &found), "{found:?}");
}

#[test]
fn a_declared_gap_is_no_event_of_the_campaign() {
    let gap = r#"{"type":"gap","verdict":"too_old","lost":[],"goes_on_after":3}"#.to_owned();
    assert!(parse(&[gap]).is_err());
    let event = r#"{"type":"message","who":"main","n":1,"agent_seq":1}"#.to_owned();
    assert_eq!(parse(&[event]).expect("an event")[0].n, 1);
}

#[test]
fn a_log_has_the_receipts_among_other_lines_and_its_last_one_may_be_cut() {
    let log = concat!(
        r#"{"level":"INFO","message":"events are published again"}"#,
        "\n",
        r#"{"level":"DEBUG","message":"published","line":7,"epoch":"e","sequence":9}"#,
        "\n",
        r#"{"level":"DEBUG","message":"published","line":8,"ep"#,
    );
    let expected = Receipt { line: 7, epoch: "e".to_owned(), sequence: 9 };
    assert_eq!(receipts(log), [expected]);
}
