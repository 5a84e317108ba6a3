//! Only what can have been lost is called lost.

use std::collections::BTreeSet;

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::TaskSeen;

/// An attempt is interrupted because something was.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "interruption_has_a_cause",
    statements: &["TK-2", "TK-16"],
    liveness: false,
    demands: "an attempt is interrupted only if its agent's process ended, a store was replaced, or \
              it was discarded",
    check: Check::Tasks(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut arrived: BTreeSet<&str> = BTreeSet::new();
    for (_, _, seen) in facts.seen() {
        if let TaskSeen::State { attempt, state } = seen
            && matches!(state.as_str(), "received" | "running")
        {
            arrived.insert(attempt);
        }
    }
    for (attempt, end) in &facts.ends {
        let by_controller = end.state == "interrupted";
        if !by_controller && !end.interrupted {
            continue;
        }
        let agent = facts.agent_of(attempt);
        let replaced = agent.is_some_and(|agent| facts.store_was_replaced(agent));
        // What is said to be in a store is still there after a crash.
        let crashed = agent.is_some_and(|agent| facts.crashes.contains_key(&agent))
            && !(by_controller && arrived.contains(attempt));
        let lost = replaced || crashed || !facts.record_replaced.is_empty();
        if !lost && !facts.thrown_away.contains(attempt) {
            let message = format!("{attempt} was interrupted, and nothing can have lost it");
            findings.push(finding(facts.end_ms, agent, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::Seen;

    #[test]
    fn an_interruption_without_a_cause_is_found() {
        let end = || task_end(vec![attempt_end("interrupted", None)]);
        assert_eq!(tasks(&CHECKER, vec![submitting(), end()]).len(), 1);
        let crash = Seen::Crashed { host: "agent-1".to_owned() };
        let with = vec![Seen::Task(submitting()), crash.clone(), Seen::Task(end())];
        assert_eq!(findings(&CHECKER, with), [""; 0]);
        let arrived = Seen::Task(state("received"));
        let kept = vec![Seen::Task(submitting()), arrived, crash, Seen::Task(end())];
        assert_eq!(findings(&CHECKER, kept).len(), 1, "it is in the store");
    }
}
