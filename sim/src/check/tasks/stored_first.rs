//! What an agent says and does is in its store before.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Message, Stage, TaskSeen};

/// And it is still there after a restart.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "stored_before_said",
    statements: &["TK-1"],
    liveness: false,
    demands: "what an agent says, and that a command runs, is durable in its store before",
    check: Check::Tasks(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut kept: BTreeMap<(u32, &str), Stage> = BTreeMap::new();
    let mut said: BTreeMap<(u32, &str), Stage> = BTreeMap::new();
    let mut bound: BTreeSet<(&str, &str, u64)> = BTreeSet::new();
    let mut acked: BTreeSet<&str> = BTreeSet::new();
    for (_, at_ms, seen) in facts.seen() {
        let (agent, attempt, stage, what) = match seen {
            TaskSeen::Kept { agent, attempt, stage } => {
                let kept = kept.entry((*agent, attempt)).or_insert(*stage);
                *kept = (*kept).max(*stage);
                continue;
            }
            TaskSeen::Bound { attempt, stream, sequence, .. } => {
                bound.insert((attempt, stream, *sequence));
                continue;
            }
            TaskSeen::Acked { attempt, kind, .. } => {
                if kind == "task.final" {
                    acked.insert(attempt);
                }
                continue;
            }
            TaskSeen::StoreReplaced { agent } => {
                kept.retain(|(of, _), _| of != agent);
                said.retain(|(of, _), _| of != agent);
                continue;
            }
            TaskSeen::Remembered { agent, attempt, stage } => {
                if let Some(stage) = stage {
                    let kept = kept.entry((*agent, attempt)).or_insert(*stage);
                    *kept = (*kept).max(*stage);
                }
                let Some(told) = said.get(&(*agent, attempt.as_str())) else { continue };
                let gone = acked.contains(attempt.as_str()) || facts.was_discarded(attempt);
                if stage.is_none_or(|stage| stage < *told) && !(stage.is_none() && gone) {
                    let message = format!(
                        "agent-{agent} said of {attempt} that it is {told:?}, and its store knows \
                         {stage:?} after a restart"
                    );
                    findings.push(finding(at_ms, Some(*agent), message));
                }
                continue;
            }
            TaskSeen::Ran { agent, attempt } => (agent, attempt, Stage::Running, "ran"),
            TaskSeen::Said { agent, attempt, message, .. } => match message {
                Message::Received => (agent, attempt, Stage::Received, "said `task.received` of"),
                Message::Started => (agent, attempt, Stage::Running, "said `task.started` of"),
                Message::Final { .. } => (agent, attempt, Stage::Ended, "said `task.final` of"),
                Message::Output { stream, sequence, .. } => {
                    if !bound.contains(&(attempt.as_str(), stream.as_str(), *sequence)) {
                        let message = format!(
                            "agent-{agent} sent {stream} {sequence} of {attempt} before it was \
                             stored"
                        );
                        findings.push(finding(at_ms, Some(*agent), message));
                    }
                    continue;
                }
                Message::Refused(_) => continue,
            },
            _ => continue,
        };
        let key = (*agent, attempt.as_str());
        if kept.get(&key).is_none_or(|kept| *kept < stage) {
            let message = format!("agent-{agent} {what} {attempt} before it was stored");
            findings.push(finding(at_ms, Some(*agent), message));
        }
        let told = said.entry(key).or_insert(stage);
        *told = (*told).max(stage);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::{Message, Stage, TaskSeen};

    #[test]
    fn what_is_said_before_it_is_stored_is_found() {
        let right = vec![
            kept(Stage::Received),
            said(1, Message::Received),
            kept(Stage::Running),
            ran(A1),
            said(1, Message::Started),
            bound(1, 7),
            said(1, piece(1, 7, false)),
            kept(Stage::Ended),
            said(1, result("m", 7)),
        ];
        assert_eq!(tasks(&CHECKER, right.clone()), [""; 0]);
        for (without, count) in [(0, 1), (2, 2), (5, 1), (7, 1)] {
            let mut wrong = right.clone();
            wrong.remove(without);
            assert_eq!(tasks(&CHECKER, wrong).len(), count, "without {without}");
        }
    }

    #[test]
    fn what_was_said_is_remembered_after_a_restart() {
        let remembered = |stage| TaskSeen::Remembered { agent: 1, attempt: A1.to_owned(), stage };
        let before = || vec![kept(Stage::Running), said(1, Message::Started)];
        let with = |stage| before().into_iter().chain([remembered(stage)]).collect();
        assert_eq!(tasks(&CHECKER, with(Some(Stage::Running))), [""; 0]);
        assert_eq!(tasks(&CHECKER, with(Some(Stage::Received))).len(), 1);
        assert_eq!(tasks(&CHECKER, with(None)).len(), 1);
    }
}
