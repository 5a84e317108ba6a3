//! What the pages hold, before anybody looks at them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bands::{Trouble, bands};
use super::timeline::{RECORDS_MAX, Timeline, window};
use super::*;
use crate::check::{Verdict, judge};
use crate::localise::{Likelihood, Point};
use crate::scenario::{Library, draw};
use crate::seed::Seed;
use crate::sweep::{Outcome, Summary, Word};
use crate::world::{self, Run};

fn run(scenario: &str, seed: u64, mutant: Option<&str>) -> Run {
    let scenario = Library::embedded().get(scenario).expect("the scenario is there");
    let mut plan = draw(&scenario, Seed(seed));
    plan.mutant = mutant.map(str::to_owned);
    world::run(&plan).expect("it is carried out")
}

fn page(run: &Run, likelihood: Option<&Likelihood>) -> String {
    run_page(&RunPage {
        run,
        verdict: &judge(run),
        title: "a title",
        again: "events/x 1",
        commit: Some("0123456789ab"),
        facts: &[("hosts", "2 & 3".to_owned())],
        likelihood,
    })
}

/// The words of a page, as they stand in it.
#[track_caller]
fn has(page: &str, words: &[&str]) {
    for word in words {
        assert!(page.contains(word), "{word:?} is not in\n{page}");
    }
}

#[test]
fn the_same_run_is_the_same_page() {
    let one = page(&run("events/swarm", 4, None), None);
    assert_eq!(page(&run("events/swarm", 4, None), None), one);
    has(&one, &["Nothing was lost, duplicated or reordered.", "<b>events/swarm</b>", "2 &amp; 3"]);
    has(&one, &["cargo sim events/x 1", "0123456789ab", "options of the server"]);
}

#[test]
fn a_violation_is_anchored_where_its_client_showed_it() {
    let run = run("events/live-before-replay-cut", 1, Some("cursor-jumps"));
    let verdict = judge(&run);
    let timeline = Timeline::new(&run, &verdict);
    let Verdict::Violation(violations) = &verdict else { panic!("{verdict:?}") };
    let finding = &timeline.findings[0];
    assert_eq!(finding.message, violations[0].message);
    let record = &run.trace.records[finding.row];
    assert_eq!((record.at_ms, record.host), (finding.at_ms, "client-1"));
    assert!(record.text.starts_with("resync "), "{record}");
    has(&page(&run, None), &[&violations[0].message, "cursor-jumps", "found by"]);
}

#[test]
fn a_long_run_is_shown_around_its_finding() {
    let all = RECORDS_MAX * 3;
    assert_eq!(window(RECORDS_MAX, Some(5)), (0, RECORDS_MAX));
    assert_eq!(window(all, None), (0, RECORDS_MAX));
    assert_eq!(window(all, Some(5)), (0, RECORDS_MAX));
    assert_eq!(window(all, Some(all - 1)), (all - RECORDS_MAX, all));
    let (first, end) = window(all, Some(RECORDS_MAX * 2));
    assert!(first < RECORDS_MAX * 2 && RECORDS_MAX * 2 < end && end - first == RECORDS_MAX);
}

#[test]
fn bands_begin_and_end_with_what_they_stand_for() {
    let run = run("events/server-restart", 1, None);
    let down = bands(&run.trace, &run.plan);
    let down: Vec<_> = down.iter().filter(|band| band.kind == Trouble::Down).collect();
    assert!(!down.is_empty());
    for band in down {
        let at = |ms: u64| run.trace.records.iter().filter(move |record| record.at_ms == ms);
        assert!(at(band.from_ms).any(|record| record.text.starts_with("dies")), "{band:?}");
        assert!(at(band.to_ms).any(|record| record.text == "starts"), "{band:?}");
    }
    let silent = self::run("events/half-open-takeover", 1, None);
    let silent = bands(&silent.trace, &silent.plan);
    assert!(silent.iter().any(|band| band.kind == Trouble::HalfOpen), "{silent:?}");
}

#[test]
fn a_curve_is_told_and_drawn() {
    let run = run("events/live-before-replay-cut", 1, Some("cursor-jumps"));
    let point = |kept, redrawn, alone| Point { kept, last: Some((0, 1_000)), redrawn, alone };
    let none = Point { last: None, ..point(0, Some(1), false) };
    let likelihood = Likelihood { points: vec![none, point(1, Some(12), true)], runs: 26 };
    let page = page(&run, Some(&likelihood));
    has(&page, &["From 1.000 s on it is inevitable, with this step: publish 4 events", "26 runs."]);
    has(&page, &["came back in 1 of 12 runs with another rest", "Before, it comes back in 8 %"]);
}

#[test]
fn a_sweep_shows_what_failed_what_was_reached_and_how_to_have_it_again() {
    let scenario = Library::embedded().get("events/swarm").expect("the scenario is there");
    let mut summary = Summary::new(std::slice::from_ref(&scenario));
    let outcome = |seed, verdict, findings: &[(&str, &str)]| Outcome {
        scenario: "events/swarm".to_owned(),
        seed,
        verdict,
        findings: findings
            .iter()
            .map(|(by, what)| ((*by).to_owned(), (*what).to_owned()))
            .collect(),
        marks: vec!["events.joined".to_owned()],
        faults: BTreeMap::from([("crash".to_owned(), 2)]),
        delivered: 5,
        seen: 10,
        virtual_ms: 1_500,
    };
    summary.add(&outcome(1, Word::Pass, &[]));
    summary.add(&outcome(2, Word::Violation, &[("no_loss", "event <7> is lost")]));
    let page = |summary: &Summary| {
        sweep_page(&SweepPage {
            summary,
            origin: "base 7",
            real: Some((Duration::from_secs(2), 2)),
            reach_seeds: 500,
            again: " --mutant canary",
            commit: None,
        })
    };
    let text = page(&summary);
    has(&text, &["1 of 2 runs failed, all alike.", "event &lt;7&gt; is lost", "1.0 runs a second"]);
    has(&text, &["cargo sim events/swarm 2 --mutant canary --report failing.html"]);
    has(&text, &["title=\"2 of 2 runs (crash)\"", "<th>events.joined</th>"]);
    has(&page(&Summary::new(&[])), &["inconclusive"]);
}

#[test]
fn a_kill_table_shows_who_was_caught_and_who_was_not() {
    let kill = |mutant, caught: bool| Kill {
        mutant,
        caught,
        median_seeds: caught.then_some(3),
        seed: caught.then_some(42),
        others: vec!["no_loss"],
    };
    let page = mutants_page(&[kill("canary", true), kill("cursor-jumps", false)], 200, None);
    has(&page, &["1 of 2 known-bad variants survive.", "42 --mutant canary", "only no_loss"]);
    let page = mutants_page(&[kill("canary", true)], 200, None);
    has(&page, &["All 1 known-bad variants are caught."]);
}
