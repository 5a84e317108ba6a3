//! Only what can have been lost is called lost.

use super::{Check, Checker, Facts, Finding, finding};

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
    for (attempt, end) in &facts.ends {
        if end.state != "interrupted" && !end.interrupted {
            continue;
        }
        let agent = facts.agent_of(attempt);
        let lost = agent.is_some_and(|agent| {
            facts.crashes.contains_key(&agent) || facts.store_was_replaced(agent)
        });
        if !lost && facts.record_replaced.is_empty() && !facts.was_discarded(attempt) {
            let message = format!("{attempt} was interrupted, and nothing happened to its agent");
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
        let with = vec![Seen::Task(submitting()), crash, Seen::Task(end())];
        assert_eq!(findings(&CHECKER, with), [""; 0]);
    }
}
