//! Nothing is delivered that was not published.

use std::collections::BTreeSet;

use super::{Check, Checker, Facts, Finding};
use crate::history::Seen;

/// What an application is given was published to the agent that it follows, and its publisher was
/// not told that it is not stored.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "no_phantom",
    statements: &["EV-1", "EV-13", "CORE-14"],
    liveness: false,
    demands: "only events that were published to the agent are delivered",
    check: Check::Events(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let (mut begun, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let mut findings = Vec::new();
    for entry in &facts.history.entries {
        match &entry.what {
            Seen::Publishing { agent, key } => {
                begun.insert((*agent, key.as_str()));
            }
            Seen::NotPublished { agent, key } => {
                refused.insert((*agent, key.as_str()));
            }
            Seen::Delivered { client, sequence, key, .. } => {
                let name = (facts.topology.agent_of(*client), key.as_deref().unwrap_or("?"));
                let problem = match (begun.contains(&name), refused.contains(&name)) {
                    (false, _) => "which nobody published to its agent",
                    (true, true) => "whose publisher was told that it is not stored",
                    (true, false) => continue,
                };
                findings.push(Finding {
                    at_ms: entry.at_ms,
                    client: Some(*client),
                    message: format!(
                        "client-{client} was given event {} ({}), {problem}",
                        sequence.unwrap_or(0),
                        name.1
                    ),
                });
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
    use crate::history::Seen;

    fn publishing(key: &str) -> Seen {
        Seen::Publishing { agent: 1, key: key.to_owned() }
    }

    #[test]
    fn an_event_from_nowhere_is_a_phantom() {
        let said = findings(&CHECKER, vec![publishing("k2"), delivered(1)]);
        assert_eq!(said, ["client-1 was given event 1 (k1), which nobody published to its agent"]);
    }

    #[test]
    fn a_refused_event_is_a_phantom() {
        let refused = Seen::NotPublished { agent: 1, key: "k1".to_owned() };
        assert_eq!(findings(&CHECKER, vec![publishing("k1"), refused, delivered(1)]).len(), 1);
    }

    #[test]
    fn an_event_may_arrive_before_its_acknowledgement() {
        assert_eq!(findings(&CHECKER, vec![publishing("k1"), delivered(1)]), [""; 0]);
    }
}
