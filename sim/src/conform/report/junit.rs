//! Results as JUnit XML: what continuous integrations read.

use std::collections::BTreeMap;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::conform::outcome::{Outcome, Word};
use crate::conform::summary::Results;

/// A case of the suite is a test case. What failed as expected is skipped with its sentence, as is
/// what is not supported; a warning is a success with its sentence in the output.
pub fn junit(results: &Results) -> String {
    let start = &results.start;
    let who = &start.implementation;
    let mut report = Report::new(format!("gapless-sim conform {}", start.role));
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for outcome in &results.outcomes {
        // The properties of the whole are said in each suite, since readers show nothing else.
        let suite = suites.entry(&outcome.case).or_insert_with(|| {
            let mut suite = TestSuite::new(outcome.case.as_str());
            suite
                .add_property(("implementation", format!("{} {}", who.name, who.version).as_str()));
            suite.add_property(("role", start.role.as_str()));
            suite
        });
        suite.add_test_case(case(results, outcome));
    }
    report.add_test_suites(suites.into_values());
    let others = results.end.stale.iter().map(|text| ("expectations", text));
    let others = others.chain(results.end.problems.iter().map(|text| ("adapter", text)));
    let mut rest = TestSuite::new("conform");
    for (name, text) in others {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(text);
        rest.add_test_case(TestCase::new(name, status));
    }
    if results.end.not_run > 0 {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(format!("{} cases were not played", results.end.not_run));
        rest.add_test_case(TestCase::new("not run", status));
    }
    if rest.tests > 0 {
        report.add_test_suite(rest);
    }
    report.to_string().expect("a report is always XML")
}

fn case(results: &Results, outcome: &Outcome) -> TestCase {
    let sentence = outcome.sentence();
    let mut status = match (outcome.expected, outcome.verdict) {
        (false, Word::Pass | Word::Warn) => TestCaseStatus::success(),
        (true, _) | (false, Word::Unsupported) => TestCaseStatus::skipped(),
        (false, Word::Fail | Word::Inconclusive) => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
        (false, Word::Crash | Word::Error | Word::Nondeterminism) => {
            TestCaseStatus::non_success(NonSuccessKind::Error)
        }
    };
    let known = if outcome.expected { "failed as expected: " } else { "" };
    let message = sentence.lines().next().unwrap_or_default();
    status.set_message(format!("{known}{message}"));
    status.set_type(outcome.verdict.as_str());
    if outcome.verdict.is_failure() && !outcome.expected {
        let statements = outcome.findings.iter().flat_map(|finding| &finding.statements);
        let statements: Vec<&str> = statements.map(String::as_str).collect();
        let again = results.start.again(outcome);
        status.set_description(format!("{sentence}\n{}\n{again}", statements.join(" ")));
    }
    let name = match outcome.swarm {
        true => format!("{} seed {}", outcome.case, outcome.seed),
        false => outcome.case.clone(),
    };
    let mut case = TestCase::new(name, status);
    case.set_classname(outcome.case.replace('/', "."));
    if outcome.verdict == Word::Warn {
        case.set_system_out(&sentence);
    }
    case
}
