//! After the faults are over, everything comes to its end.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Stage, TaskSeen};

/// Within the time that the plan gives.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "tasks_progress",
    statements: &["TK-2", "TK-8", "TK-9", "TK-11", "TK-13", "CORE-11"],
    liveness: true,
    demands: "after healing every accepted task has ended, every result is in the record, and no \
              agent has anything left to send",
    check: Check::Tasks(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut asked: BTreeSet<&str> = BTreeSet::new();
    let mut results: BTreeMap<&str, (usize, u32)> = BTreeMap::new();
    let end_ms = facts.end_ms;
    let waits = |findings: &mut Vec<Finding>, agent: Option<u32>, message: String| {
        // One that is not served any more waits for an operator.
        if !agent.is_some_and(|agent| facts.refused.contains(&agent)) {
            findings.push(finding(end_ms, agent, message));
        }
    };
    for (index, _, seen) in facts.seen() {
        match seen {
            TaskSeen::Submitting { task, .. } => {
                asked.insert(task);
            }
            TaskSeen::Submitted { task, .. }
            | TaskSeen::NotSubmitted { task }
            | TaskSeen::SubmitUnknown { task } => {
                asked.remove(task.as_str());
            }
            TaskSeen::Kept { agent, attempt, stage: Stage::Ended } => {
                results.insert(attempt, (index, *agent));
            }
            TaskSeen::TaskEnd { task, attempts, cancelled } => {
                let agent = facts.agents.get(task.as_str()).copied();
                for end in attempts {
                    let ended = ["final", "interrupted", "discarded"];
                    // The base contract has no way to learn more of one that is not wanted.
                    let unknown = *cancelled
                        && !facts.extension
                        && matches!(end.state.as_str(), "delivered" | "received");
                    if !ended.contains(&end.state.as_str()) && !unknown {
                        let message = format!("{} is still {}", end.attempt, end.state);
                        waits(&mut findings, agent, message);
                    }
                }
            }
            TaskSeen::AgentEnd { agent, open, results, output } => {
                if !open.is_empty() {
                    let message = format!("agent-{agent} still has to do {}", open.join(", "));
                    waits(&mut findings, Some(*agent), message);
                }
                if !results.is_empty() {
                    let message =
                        format!("agent-{agent} still has results of {}", results.join(", "));
                    waits(&mut findings, Some(*agent), message);
                }
                if *output > 0 {
                    let message = format!("agent-{agent} still has {output} runs of output");
                    waits(&mut findings, Some(*agent), message);
                }
            }
            _ => {}
        }
    }
    for task in asked {
        waits(&mut findings, None, format!("the submission of {task} has not ended"));
    }
    for (attempt, (index, agent)) in results {
        let Some(end) = facts.ends.get(attempt) else { continue };
        // A record that was restored may think of an attempt that it was never delivered.
        let discarded = end.state == "discarded" && !facts.record_replaced.is_empty();
        let replaced =
            facts.store_was_replaced(agent) || facts.record_was_replaced_after(index) || discarded;
        if end.result.is_none() && end.state != "interrupted" && !replaced {
            let message = format!("{attempt} has a result, and the record has it as {}", end.state);
            waits(&mut findings, Some(agent), message);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::{Stage, TaskSeen};

    #[test]
    fn what_has_not_ended_is_found() {
        let end = |state| vec![submitting(), submitted(), task_end(vec![attempt_end(state, None)])];
        assert_eq!(tasks(&CHECKER, end("discarded")), [""; 0]);
        assert_eq!(tasks(&CHECKER, end("running")).len(), 1);
        assert_eq!(tasks(&CHECKER, vec![submitting()]).len(), 1);
    }

    #[test]
    fn what_waits_in_a_store_is_found() {
        let waiting = TaskSeen::AgentEnd {
            agent: 1,
            open: vec![A1.to_owned()],
            results: vec![A1.to_owned()],
            output: 1,
        };
        assert_eq!(tasks(&CHECKER, vec![waiting]).len(), 3);
        assert_eq!(tasks(&CHECKER, vec![agent_end()]), [""; 0]);
    }

    #[test]
    fn a_result_that_never_came_is_found() {
        let end = task_end(vec![attempt_end("discarded", None)]);
        assert_eq!(tasks(&CHECKER, vec![kept(Stage::Ended), end]).len(), 1);
    }
}
