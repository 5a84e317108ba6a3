//! What failed, for continuous integrations. Both forms have a bound, however many runs there were.

use std::fmt::Write as _;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Group, Reach, Summary, Word};
use crate::custom::command;

/// How many annotations there are at most: GitHub shows no more than ten of a step.
pub const ANNOTATIONS_MAX: usize = 10;

/// How long the text of one is at most, in characters.
const TEXT_MAX: usize = 500;

/// JUnit XML: a test case per way to fail, shown by the shortest run, and one per swarm that says
/// whether it reached what it has to. `again` is added to the commands.
pub fn junit(summary: &Summary, origin: &str, reach_seeds: u64, again: &str) -> String {
    let mut report = Report::new("gapless-sim sweep");
    let mut runs = TestSuite::new("runs");
    runs.add_property(("origin", origin));
    runs.add_property(("runs", summary.runs.to_string().as_str()));
    runs.add_property(("passed", summary.passed.to_string().as_str()));
    for group in summary.groups() {
        let kind = match group.verdict {
            Word::Broken => NonSuccessKind::Error,
            _ => NonSuccessKind::Failure,
        };
        let mut status = TestCaseStatus::non_success(kind);
        status.set_type(group.verdict.describe());
        status.set_message(group.sentence());
        status.set_description(format!("{}\nreproduce: {}", group.title(), group.again(again)));
        let mut case = TestCase::new(group.checker.as_str(), status);
        case.set_classname(group.shortest.scenario.replace('/', "."));
        runs.add_test_case(case);
    }
    if summary.runs == 0 || summary.passed > 0 {
        let status = match summary.runs {
            0 => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message("there was no run");
                status
            }
            _ => TestCaseStatus::success(),
        };
        let name = format!("{} of {} runs pass", summary.passed, summary.runs);
        runs.add_test_case(TestCase::new(name, status));
    }
    report.add_test_suite(runs);
    let mut reached = TestSuite::new("reachability");
    for reach in summary.reach() {
        let status = match (reach.is_short(reach_seeds), reach.runs < reach_seeds) {
            (true, _) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(never_reached(&reach));
                status
            }
            (false, true) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(format!("not judged below {reach_seeds} runs"));
                status
            }
            (false, false) => TestCaseStatus::success(),
        };
        let mut case = TestCase::new(format!("{} reaches its marks", reach.scenario), status);
        case.set_classname(reach.scenario.replace('/', "."));
        reached.add_test_case(case);
    }
    report.add_test_suite(reached);
    report.to_string().expect("a report is always XML")
}

/// Workflow commands of GitHub Actions, the worst first.
pub fn annotations(summary: &Summary, reach_seeds: u64, again: &str) -> String {
    let failures = summary.groups().map(|group| {
        let text = format!("{}\n{}\n{}", group.title(), group.sentence(), group.again(again));
        (group.checker.clone(), text)
    });
    let short = summary.reach().into_iter().filter(|reach| reach.is_short(reach_seeds));
    let short = short.map(|reach| (reach.scenario.clone(), never_reached(&reach)));
    let mut all: Vec<(String, String)> = failures.chain(short).collect();
    if all.len() > ANNOTATIONS_MAX {
        let more = all.len() - (ANNOTATIONS_MAX - 1);
        all.truncate(ANNOTATIONS_MAX - 1);
        all.push(("sweep".to_owned(), format!("{more} more: see the output of the step")));
    }
    let mut text = String::new();
    for (title, said) in all {
        let said: String = said.chars().take(TEXT_MAX).collect();
        let title = escaped(&title).replace(':', "%3A").replace(',', "%2C");
        let _ = writeln!(text, "::error title={title}::{}", escaped(&said));
    }
    text
}

/// As GitHub's runner wants data: <https://github.com/actions/toolkit>, `escapeData`.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn never_reached(reach: &Reach) -> String {
    let marks = reach.marks.iter().filter(|(_, runs)| *runs == 0);
    let marks: Vec<&str> = marks.map(|(mark, _)| mark.as_str()).collect();
    format!("{} runs never reached {}", reach.runs, marks.join(", "))
}

impl Word {
    /// In words for a person.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Pass => "passed",
            Self::Inconclusive => "inconclusive",
            Self::Liveness => "no progress",
            Self::Violation => "violation",
            Self::Broken => "the simulation broke",
        }
    }
}

impl Group {
    /// How the runs failed, and how many.
    pub fn title(&self) -> String {
        let runs = if self.runs == 1 { "1 run".to_owned() } else { format!("{} runs", self.runs) };
        format!("{}: {}, in {runs}", self.verdict.describe(), self.checker)
    }

    /// What was found in the shortest of them.
    pub fn sentence(&self) -> &str {
        self.shortest.findings.first().map_or("its marks were not reached", |found| &found.1)
    }

    /// The command that carries the shortest of them out; `more` is added to it.
    pub fn again(&self, more: &str) -> String {
        format!("{} {} {}{more}", command(), self.shortest.scenario, self.shortest.seed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sweep::Outcome;

    fn failing(checkers: usize) -> Summary {
        let mut summary = Summary::default();
        for nth in 0..checkers {
            summary.add(&Outcome {
                scenario: "events/s".to_owned(),
                seed: 7,
                verdict: Word::Violation,
                findings: vec![(format!("checker_{nth:02}"), "50 % are\nlost <&".to_owned())],
                marks: vec![],
                faults: BTreeMap::new(),
                delivered: 0,
                seen: 1,
                virtual_ms: 1,
            });
        }
        summary
    }

    #[test]
    fn annotations_are_escaped_and_have_a_bound() {
        let one = annotations(&failing(1), 500, " --mutant canary");
        assert_eq!(
            one,
            "::error title=checker_00::violation: checker_00, in 1 run%0A50 %25 are%0Alost \
             <&%0Acargo sim events/s 7 --mutant canary\n"
        );
        let many = annotations(&failing(30), 500, "");
        assert_eq!(many.lines().count(), ANNOTATIONS_MAX);
        assert!(many.ends_with("::21 more: see the output of the step\n"), "{many}");
        assert_eq!(annotations(&Summary::default(), 500, ""), "");
    }

    #[test]
    fn junit_has_a_case_per_way_to_fail() {
        let xml = junit(&failing(2), "base 7", 500, "");
        assert!(xml.contains(r#"failures="2""#), "{xml}");
        assert!(xml.contains("reproduce: cargo sim events/s 7"), "{xml}");
        assert!(xml.contains("lost &lt;&amp;"), "{xml}");
        let none = junit(&Summary::default(), "base 7", 500, "");
        assert!(none.contains("there was no run"), "{none}");
    }
}
