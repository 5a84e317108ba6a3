//! Which failures a file of expectations covers, and when it is stale.

use super::{Cover, Expectations, Ledger};
use crate::conform::outcome::{Cause, Finding, Outcome, Word};

fn parsed(text: &str) -> Expectations {
    Expectations::parse("e.toml", text).unwrap_or_else(|error| panic!("{:?}", error.problems()))
}

fn outcome(case: &str, verdict: Word, checkers: &[&str]) -> Outcome {
    let findings = checkers.iter().map(|checker| Finding {
        checker: (*checker).to_owned(),
        statements: vec!["EV-5a".to_owned(), "CORE-1".to_owned()],
        message: format!("{checker} says that 7 is lost"),
        at_ms: 1,
        liveness: false,
        advice: false,
    });
    Outcome {
        case: case.to_owned(),
        seed: "7".to_owned(),
        swarm: case.ends_with("swarm"),
        statements: Vec::new(),
        verdict,
        expected: false,
        findings: findings.collect(),
        lacks: Vec::new(),
        cause: None,
        problem: None,
        left_out: Vec::new(),
        repeated: false,
        history: None,
        trace: None,
        records: 1,
        virtual_ms: 1,
    }
}

const KNOWN: [&str; 3] = ["events/one", "events/two", "events/swarm"];

/// What is stale after these outcomes.
fn stale(text: &str, version: &str, outcomes: &[Outcome]) -> Vec<String> {
    let expectations = parsed(text);
    let mut ledger = Ledger::default();
    for outcome in outcomes {
        ledger.take(&expectations, outcome);
    }
    ledger.stale(&expectations, version, &KNOWN, true)
}

#[test]
fn a_run_is_expected_only_if_everything_that_is_wrong_with_it_is() {
    let expectations = parsed(
        "[[expect]]\nid = \"events/*\"\nverdict = \"fail\"\nchecker = \"no_loss\"\nreason = \"r\"\n",
    );
    let cover =
        |checkers: &[&str]| expectations.cover(&outcome("events/one", Word::Fail, checkers));
    assert_eq!(cover(&["no_loss"]), Cover { entries: [0].into(), whole: true });
    assert_eq!(cover(&["no_loss", "in_order"]), Cover { entries: [0].into(), whole: false });
    assert_eq!(cover(&["in_order"]), Cover { entries: [].into(), whole: false });
}

#[test]
fn an_entry_is_narrowed_by_checker_statement_and_message() {
    let whole = |narrowed: &str| {
        let text = format!(
            "[[expect]]\nid = \"events/one\"\nverdict = \"fail\"\nreason = \"r\"\n{narrowed}\n"
        );
        parsed(&text).cover(&outcome("events/one", Word::Fail, &["no_loss"])).whole
    };
    for fits in ["", "checker = \"no_loss\"", "statement = \"EV-5a\"", "statement = \"EV-5\""] {
        assert!(whole(fits), "{fits}");
    }
    assert!(whole("statement = \"CORE-1b\""), "the checker stands for the whole group");
    assert!(whole("message = \"7 is lost\""));
    for other in ["checker = \"in_order\"", "statement = \"EV-5b\"", "message = \"8 is lost\""] {
        assert!(!whole(other), "{other}");
    }
}

#[test]
fn another_scenario_or_verdict_is_not_covered() {
    let expectations = parsed(
        "[[expect]]\nid = \"events/o*\"\nverdict = \"crash\"\nmessage = \"boom\"\nreason = \"r\"\n",
    );
    let crash = |case: &str, problem: &str| Outcome {
        cause: Some(Cause::Panicked),
        problem: Some(problem.to_owned()),
        ..outcome(case, Word::Crash, &[])
    };
    assert!(expectations.cover(&crash("events/one", "it went boom")).whole);
    assert!(!expectations.cover(&crash("events/one", "it went bang")).whole);
    assert!(!expectations.cover(&crash("events/two", "it went boom")).whole);
    assert!(!expectations.cover(&outcome("events/one", Word::Fail, &["no_loss"])).whole);
    assert!(!expectations.cover(&outcome("events/one", Word::Pass, &[])).whole);
}

const FAILS: &str = "[[expect]]\nid = \"events/*\"\nverdict = \"fail\"\nreason = \"r\"\n";

#[test]
fn every_fixed_scenario_of_an_entry_has_to_fail() {
    let fails = |case| outcome(case, Word::Fail, &["no_loss"]);
    let passes = |case| outcome(case, Word::Pass, &[]);
    assert_eq!(stale(FAILS, "1.0", &[fails("events/one"), fails("events/two")]), [""; 0]);
    let said = stale(FAILS, "1.0", &[fails("events/one"), passes("events/two")]);
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("e.toml:1: `events/*`") && said[0].contains("`events/two` passes"));
    let some = format!("{FAILS}runs = \"some\"\n");
    assert_eq!(stale(&some, "1.0", &[fails("events/one"), passes("events/two")]), [""; 0]);
    assert_eq!(stale(&some, "1.0", &[passes("events/one"), passes("events/two")]).len(), 1);
}

#[test]
fn at_least_one_run_of_a_swarm_has_to_fail() {
    let (fails, passes) = (
        outcome("events/swarm", Word::Fail, &["no_loss"]),
        outcome("events/swarm", Word::Pass, &[]),
    );
    let text = "[[expect]]\nid = \"events/swarm\"\nverdict = \"fail\"\nreason = \"r\"\n";
    assert_eq!(stale(text, "1.0", &[passes.clone(), fails]), [""; 0]);
    let said = stale(text, "1.0", &[passes.clone(), passes]);
    assert!(said[0].contains("no run fails in that way"), "{said:?}");
}

#[test]
fn an_entry_is_judged_only_if_one_of_its_scenarios_was_played() {
    let text = "[[expect]]\nid = \"events/two\"\nverdict = \"fail\"\nreason = \"r\"\n";
    assert_eq!(stale(text, "1.0", &[outcome("events/one", Word::Pass, &[])]), [""; 0]);
}

#[test]
fn an_entry_for_no_scenario_is_stale() {
    let text = "[[expect]]\nid = \"events/tow\"\nverdict = \"fail\"\nreason = \"r\"\n";
    let said = stale(text, "1.0", &[]);
    assert!(
        said[0].contains("fits no scenario of this role; did you mean `events/two`?"),
        "{said:?}"
    );
}

#[test]
fn an_entry_holds_until_the_version_that_mends_it() {
    let text = format!("{FAILS}until = \"1.2\"\n");
    let fails = [outcome("events/one", Word::Fail, &["no_loss"])];
    assert_eq!(stale(&text, "1.1.9", &fails), [""; 0]);
    assert!(
        stale(&text, "1.2.0", &fails)[0].contains("holds until version 1.2, and this is 1.2.0")
    );
    assert!(stale(&text, "main", &fails)[0].contains("cannot be compared with `main`"));
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_remedy() {
    let entry = "[[expect]]\nid = \"events/one\"\nverdict = \"fail\"\nreason = \"r\"\n";
    let cases = [
        (entry.replace("reason = \"r\"\n", ""), "`reason` is missing"),
        (entry.replace("\"r\"", "\" \""), "`reason` says nothing"),
        (entry.replace("fail", "flail"), "`flail` is not known here"),
        (entry.replace("fail", "pass"), "`pass` is not known here"),
        (entry.replace("events/one", "events/{one"), "is no pattern"),
        (format!("{entry}checker = \"no_los\"\n"), "there is no checker `no_los`"),
        (format!("{entry}statement = \"five\"\n"), "`five` is no statement"),
        (format!("{entry}until = \"soon\"\n"), "`soon` is no version"),
        (format!("{entry}isue = \"x\"\n"), "unknown key `isue`"),
        (
            format!("{}checker = \"no_loss\"\n", entry.replace("fail", "crash")),
            "`checker` says nothing",
        ),
        ("[expect]\nid = \"x\"\n".to_owned(), "`expect` must be a list of tables"),
        ("expected = 1\n".to_owned(), "unknown key `expected`"),
        ("[[expect]\n".to_owned(), "this is not TOML"),
    ];
    for (text, said) in cases {
        let error = Expectations::parse("e.toml", &text).expect_err(said);
        let told: Vec<&str> = error.problems().iter().map(|it| it.message.as_str()).collect();
        assert!(told.iter().any(|message| message.contains(said)), "{said:?} is not in {told:?}");
        assert!(error.problems().iter().all(|problem| !problem.remedy.is_empty()));
    }
}

#[test]
fn a_file_of_comments_expects_nothing() {
    assert!(parsed("# nothing is known to fail\n").entries().is_empty());
}
