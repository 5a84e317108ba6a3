//! Says what came of a conformance run.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use crate::cli::report::{BAD, QUIET};
use crate::conform::expect::Expectations;
use crate::conform::outcome::{Outcome, Word};
use crate::conform::runner::ADAPTER_FAILURES_MAX;
use crate::conform::summary::{Group, Results, Tally};
use crate::exit;

const GOOD: Style = AnsiColor::Green.on_default().bold();
const KNOWN: Style = AnsiColor::Yellow.on_default().bold();

/// How many scenarios are named beside what they need.
const NAMED_MAX: usize = 4;

/// The report for a person. What is wrong with a case that was `told` already is not said again.
pub(super) fn text(
    results: &Results,
    expectations: &Expectations,
    tally: &Tally<'_>,
    told: bool,
) -> String {
    let mut text = if told { "\n".to_owned() } else { String::new() };
    heading(&mut text, results);
    for group in results.groups() {
        let has_run = matches!(group.verdict, Word::Fail | Word::Warn | Word::Inconclusive);
        if !(told && has_run) {
            failed(&mut text, &group, results);
        }
    }
    expected(&mut text, expectations, tally);
    left(&mut text, results);
    let end = &results.end;
    for problem in &end.problems {
        let _ = writeln!(text, "\n  {BAD}×{BAD:#} at the end: {problem}");
    }
    if end.not_run > 0 {
        let _ = writeln!(
            text,
            "\n  {BAD}×{BAD:#} the adapter failed more than {ADAPTER_FAILURES_MAX} times; the other \
             {} runs were not played",
            end.not_run
        );
    }
    for stale in &end.stale {
        let _ = writeln!(text, "\n  {BAD}× stale{BAD:#} {stale}");
    }
    let style = if end.exit == exit::OK { GOOD } else { BAD };
    let _ = writeln!(text, "\n  {style}Summary:{style:#} {}", results.summary());
    text
}

/// What came of a case, on one line.
pub(super) fn line(outcome: &Outcome) -> String {
    let (style, word) = match (outcome.expected, outcome.verdict) {
        (true, word) => (KNOWN, format!("{} (expected)", word.as_str())),
        (false, Word::Pass) => (GOOD, "pass".to_owned()),
        (false, word @ (Word::Unsupported | Word::Warn)) => (KNOWN, word.as_str().to_owned()),
        (false, word) => (BAD, word.as_str().to_owned()),
    };
    let name = match outcome.swarm {
        true => format!("{} {}", outcome.case, outcome.seed),
        false => outcome.case.clone(),
    };
    let sentence = outcome.sentence();
    let sentence = sentence.lines().next().unwrap_or_default();
    let sentence = if sentence.is_empty() { String::new() } else { format!(": {sentence}") };
    format!("  {style}{word}{style:#} {name}{QUIET}{sentence}{QUIET:#}\n")
}

fn heading(text: &mut String, results: &Results) {
    let start = &results.start;
    let who = &start.implementation;
    let language = match who.language.as_str() {
        "" => String::new(),
        language => format!(" ({language})"),
    };
    let mutant = start.mutant.as_ref().map_or(String::new(), |id| format!(", as `{id}`"));
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "  {QUIET}{label:<14}{QUIET:#} {value}");
    };
    line("implementation", &format!("{} {}{language}{mutant}", who.name, who.version));
    line("role", start.role.as_str());
    let swarms = results.outcomes.iter().filter(|outcome| outcome.swarm).count();
    let repeated = results.outcomes.iter().filter(|outcome| outcome.repeated).count();
    let fixed = results.outcomes.len() - swarms;
    line(
        "runs",
        &format!("{fixed} fixed, {swarms} of swarms; base {}; {repeated} played twice", start.base),
    );
}

/// Those that failed alike, by the shortest of them.
fn failed(text: &mut String, group: &Group<'_>, results: &Results) {
    let Group { verdict, kind, runs, shortest } = group;
    let style = if *verdict == Word::Warn { KNOWN } else { BAD };
    let runs = if *runs == 1 { "1 run".to_owned() } else { format!("{runs} runs, the shortest") };
    let _ = writeln!(text, "\n  {style}× {}{style:#}: {kind}, in {runs}:", verdict.as_str());
    for line in shortest.sentence().lines() {
        let _ = writeln!(text, "    {line}");
    }
    let finding = shortest.duties().next().or(shortest.findings.first());
    if let Some(finding) = finding {
        let more = match shortest.findings.len() {
            1 => String::new(),
            count => format!("; {} more findings", count - 1),
        };
        let _ = writeln!(text, "    {QUIET}{}{more}{QUIET:#}", finding.statements.join(", "));
    }
    let _ = writeln!(text, "    reproduce  {}", results.start.again(shortest));
}

/// What failed as expected, by the entry that says so.
fn expected(text: &mut String, expectations: &Expectations, tally: &Tally<'_>) {
    for (at, entry) in expectations.entries().iter().enumerate() {
        let times = tally.ledger().applied(at);
        if times == 0 {
            continue;
        }
        let issue = entry.issue.as_ref().map_or(String::new(), |issue| format!(" ({issue})"));
        let _ = writeln!(
            text,
            "\n  {KNOWN}~ expected{KNOWN:#} `{}` of `{}` ×{times}: {}{issue}",
            entry.verdict.as_str(),
            entry.id,
            entry.reason
        );
    }
}

/// What was not played, and of what.
fn left(text: &mut String, results: &Results) {
    let unsupported = results.unsupported();
    if !unsupported.is_empty() {
        let _ = writeln!(text, "\n  unsupported: these scenarios need");
    }
    for (needs, cases) in unsupported {
        let named = cases.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = match cases.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let _ = writeln!(text, "    {needs:<18} {QUIET}{named}{more}{QUIET:#}");
    }
    let left_out = results.left_out();
    if !left_out.is_empty() {
        let _ = writeln!(text, "\n  left out of swarms");
    }
    for ((what, needs), left) in left_out {
        let runs = if left.runs == 1 { "1 run".to_owned() } else { format!("{} runs", left.runs) };
        let _ =
            writeln!(text, "    {what} ×{} {QUIET}in {runs}: needs {needs}{QUIET:#}", left.times);
    }
}
