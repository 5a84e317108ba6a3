//! Which exit code stands for which outcomes, and what failed alike.

use std::collections::BTreeMap;

use super::{LeftOut, Results, Tally};
use crate::conform::expect::Expectations;
use crate::conform::outcome::{Cause, FORMAT, Finding, Outcome, Start, Word};
use crate::conform::protocol::{ClockKind, EntropyKind, Hello, Role, StorageKind, VERSION};
use crate::exit;

fn outcome(verdict: Word, cause: Option<Cause>) -> Outcome {
    Outcome {
        case: "events/one".to_owned(),
        seed: "7".to_owned(),
        swarm: true,
        statements: Vec::new(),
        verdict,
        expected: false,
        findings: Vec::new(),
        lacks: Vec::new(),
        cause,
        problem: None,
        left_out: Vec::new(),
        repeated: false,
        history: None,
        trace: None,
        records: 10,
        virtual_ms: 1,
    }
}

fn fails(checker: &str, liveness: bool, advice: bool) -> Outcome {
    let finding = Finding {
        checker: checker.to_owned(),
        statements: Vec::new(),
        message: "it is lost".to_owned(),
        at_ms: 1,
        liveness,
        advice,
    };
    Outcome { findings: vec![finding], ..outcome(Word::Fail, None) }
}

fn results(expectations: &Expectations, outcomes: Vec<Outcome>, stale: Vec<String>) -> Results {
    let mut tally = Tally::new(expectations);
    let outcomes = outcomes.into_iter().map(|outcome| tally.take(outcome)).collect();
    let implementation = Hello {
        protocol: VERSION,
        nonce: String::new(),
        name: "it".to_owned(),
        version: "1.0".to_owned(),
        language: String::new(),
        homepage: None,
        issues: None,
        roles: vec![Role::EventsClient],
        features: Vec::new(),
        clock: ClockKind::Virtual,
        entropy: EntropyKind::None,
        storage: StorageKind::None,
    };
    let start = Start {
        format: FORMAT,
        suite: String::new(),
        role: Role::EventsClient,
        implementation,
        adapter: Some("it --now 'or never'".to_owned()),
        mutant: None,
        live: None,
        base: "1".to_owned(),
        cases: 1,
    };
    Results { start, outcomes, end: tally.end(stale) }
}

fn code(outcomes: Vec<Outcome>) -> u8 {
    results(&Expectations::none(), outcomes, Vec::new()).end.exit
}

#[test]
fn each_verdict_has_its_exit_code() {
    let pass = || outcome(Word::Pass, None);
    let of = |verdict, cause| code(vec![pass(), outcome(verdict, cause)]);
    assert_eq!(code(vec![pass()]), exit::OK);
    assert_eq!(of(Word::Warn, None), exit::OK);
    assert_eq!(of(Word::Unsupported, None), exit::OK);
    assert_eq!(of(Word::Inconclusive, None), exit::INCONCLUSIVE);
    assert_eq!(of(Word::Crash, Some(Cause::Panicked)), exit::VIOLATION);
    for cause in [Cause::NotStarted, Cause::Hung, Cause::Garbage, Cause::Unasked, Cause::Misused] {
        assert_eq!(of(Word::Error, Some(cause)), exit::ADAPTER, "{cause:?}");
    }
    assert_eq!(of(Word::Crash, Some(Cause::Died)), exit::ADAPTER);
    assert_eq!(of(Word::Error, Some(Cause::Simulator)), exit::INTERNAL);
    assert_eq!(of(Word::Nondeterminism, Some(Cause::Nondeterministic)), exit::NONDETERMINISM);
}

#[test]
fn a_lack_of_progress_alone_has_a_code_of_its_own() {
    assert_eq!(code(vec![fails("progress", true, false)]), exit::LIVENESS);
    assert_eq!(code(vec![fails("no_loss", false, false)]), exit::VIOLATION);
    let both = vec![fails("progress", true, false), fails("no_loss", false, false)];
    assert_eq!(code(both), exit::VIOLATION);
}

#[test]
fn nothing_that_ran_is_not_green() {
    assert_eq!(code(vec![]), exit::NOTHING_RAN);
    assert_eq!(code(vec![outcome(Word::Unsupported, None)]), exit::NOTHING_RAN);
}

#[test]
fn what_is_expected_does_not_count_and_what_is_stale_does() {
    let expectations = Expectations::parse(
        "e.toml",
        "[[expect]]\nid = \"events/one\"\nverdict = \"fail\"\nchecker = \"no_loss\"\nreason = \"r\"\n",
    )
    .expect("in order");
    let known = results(&expectations, vec![fails("no_loss", false, false)], Vec::new());
    assert_eq!((known.end.exit, known.end.expected), (exit::OK, 1));
    assert!(known.outcomes[0].expected && known.groups().is_empty());
    assert_eq!(known.summary(), "0 passed, 1 failed as expected");
    let stale = vec!["e.toml:1: …".to_owned()];
    let stale = results(&expectations, vec![fails("no_loss", false, false)], stale);
    assert_eq!(stale.end.exit, exit::STALE_EXPECTATION);
}

#[test]
fn failures_are_grouped_by_what_found_them_and_shown_by_the_shortest() {
    let short = Outcome { records: 3, ..fails("no_loss", false, false) };
    let all = vec![fails("no_loss", false, false), short, outcome(Word::Error, Some(Cause::Hung))];
    let all = results(&Expectations::none(), all, Vec::new());
    let groups: Vec<_> = all
        .groups()
        .into_iter()
        .map(|group| (group.verdict, group.kind, group.runs, group.shortest.records))
        .collect();
    let wanted =
        [(Word::Error, "hung".to_owned(), 1, 10), (Word::Fail, "no_loss".to_owned(), 2, 3)];
    assert_eq!(groups, wanted);
    assert_eq!(
        all.start.again(&all.outcomes[0]),
        "gapless-sim conform --role events.client --adapter \"it --now 'or never'\" events/one --seed 7"
    );
}

#[test]
fn what_was_left_out_is_counted() {
    let left = |lines: &[&str]| Outcome {
        left_out: lines.iter().map(|line| (*line).to_owned()).collect(),
        ..outcome(Word::Pass, None)
    };
    let all = vec![left(&["crash ×2: needs storage"]), left(&["crash: needs storage"])];
    let all = results(&Expectations::none(), all, Vec::new());
    let wanted = BTreeMap::from([(("crash", "storage"), LeftOut { times: 3, runs: 2 })]);
    assert_eq!(all.left_out(), wanted);
}
