//! What an agent has is never refused.

use std::collections::BTreeSet;

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Message, TaskSeen};

/// However full its spool and its queue are.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "known_is_answered",
    statements: &["TK-6"],
    liveness: false,
    demands: "an attempt that an agent has is never refused for want of room",
    check: Check::Tasks(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut known: BTreeSet<(u32, &str)> = BTreeSet::new();
    for (_, at_ms, seen) in facts.seen() {
        match seen {
            TaskSeen::Said { agent, attempt, message, .. } => match message {
                Message::Refused(code)
                    if code != "unknown_attempt" && known.contains(&(*agent, attempt.as_str())) =>
                {
                    let message = format!(
                        "agent-{agent} refused {attempt} with `{code}`, though it had it before"
                    );
                    findings.push(finding(at_ms, Some(*agent), message));
                }
                Message::Refused(_) | Message::Output { .. } => {}
                _ => {
                    known.insert((*agent, attempt));
                }
            },
            TaskSeen::Answered { agent, discarded, .. } => {
                for attempt in discarded {
                    known.remove(&(*agent, attempt.as_str()));
                }
            }
            // It may be forgotten after that [TK-17].
            TaskSeen::Acked { agent, attempt, kind, .. } if kind == "task.final" => {
                known.remove(&(*agent, attempt.as_str()));
            }
            TaskSeen::StoreReplaced { agent } => known.retain(|(of, _)| of != agent),
            _ => {}
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::Message;

    #[test]
    fn a_refusal_of_what_was_received_is_found() {
        let refused = || said(2, Message::Refused("spool_full".to_owned()));
        assert_eq!(tasks(&CHECKER, vec![refused()]), [""; 0]);
        assert_eq!(tasks(&CHECKER, vec![said(1, Message::Received), refused()]).len(), 1);
    }
}
