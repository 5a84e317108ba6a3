//! What was acknowledged is in the record.

use std::collections::BTreeMap;

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::TaskSeen;

/// As long as nobody puts an older record in its place.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "acknowledged_is_kept",
    statements: &["TK-1", "TK-3", "TK-8", "TK-9"],
    liveness: false,
    demands: "a task, a piece of output or a result that was acknowledged is in the record",
    check: Check::Tasks(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // When each connection was open: what comes over it was said by one life of the controller,
    // however long the network held it.
    let mut opened: BTreeMap<(u32, u64), usize> = BTreeMap::new();
    for (index, at_ms, seen) in facts.seen() {
        let said = match seen {
            TaskSeen::Hello { agent, connection, .. } => {
                opened.insert((*agent, *connection), index);
                index
            }
            TaskSeen::Acked { agent, connection, .. } => {
                opened.get(&(*agent, *connection)).copied().unwrap_or(index)
            }
            _ => index,
        };
        if facts.record_was_replaced_after(said) {
            continue;
        }
        match seen {
            TaskSeen::Submitted { task, attempt } if !facts.ends.contains_key(attempt.as_str()) => {
                let message = format!("{task} was accepted at {at_ms} ms and is not in the record");
                findings.push(finding(facts.end_ms, None, message));
            }
            TaskSeen::Acked { agent, attempt, kind, through, .. } => {
                let Some(end) = facts.ends.get(attempt.as_str()) else { continue };
                let missing = match (kind.as_str(), through) {
                    ("task.output", Some((stream, through))) => {
                        let stream = &end.streams[usize::from(stream == "stderr")];
                        stream.highest < *through
                    }
                    // What came too late for one that was given up is acknowledged as well.
                    ("task.final", _) => {
                        !matches!(end.state.as_str(), "final" | "interrupted" | "discarded")
                    }
                    ("task.received", _) => matches!(end.state.as_str(), "pending" | "delivered"),
                    ("task.started", _) => {
                        matches!(end.state.as_str(), "pending" | "delivered" | "received")
                    }
                    _ => false,
                };
                if missing {
                    let message = format!(
                        "`{kind}` of {attempt} was acknowledged at {at_ms} ms and is not in the \
                         record, which has it as {}",
                        end.state
                    );
                    findings.push(finding(facts.end_ms, Some(*agent), message));
                }
            }
            _ => {}
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;

    #[test]
    fn a_task_that_was_accepted_is_there() {
        assert_eq!(tasks(&CHECKER, vec![submitted()]).len(), 1);
        let end = task_end(vec![attempt_end("pending", None)]);
        assert_eq!(tasks(&CHECKER, vec![submitted(), end]), [""; 0]);
    }

    #[test]
    fn so_is_what_was_acknowledged_of_an_attempt() {
        let end = || task_end(vec![attempt_end("running", None)]);
        assert_eq!(tasks(&CHECKER, vec![acked("task.started", None), end()]), [""; 0]);
        assert_eq!(tasks(&CHECKER, vec![acked("task.final", None), end()]).len(), 1);
        assert_eq!(tasks(&CHECKER, vec![acked("task.output", Some(1)), end()]).len(), 1);
    }

    #[test]
    fn an_older_record_knows_less() {
        use crate::history::TaskSeen;
        let end = task_end(vec![attempt_end("running", None)]);
        let entries = vec![acked("task.final", None), TaskSeen::RecordReplaced, end];
        assert_eq!(tasks(&CHECKER, entries), [""; 0]);
    }

    #[test]
    fn what_the_network_held_since_before_is_of_the_older_record() {
        use crate::history::TaskSeen;
        let held = |opened_before: bool| {
            let mut entries = vec![TaskSeen::RecordReplaced, acked("task.final", None)];
            entries.insert(usize::from(!opened_before), hello(1));
            entries.push(task_end(vec![attempt_end("running", None)]));
            entries
        };
        assert_eq!(tasks(&CHECKER, held(true)), [""; 0]);
        assert_eq!(tasks(&CHECKER, held(false)).len(), 1);
    }
}
