//! After healing, everything that is owed arrives.

use std::collections::BTreeSet;

use super::{Checker, Facts, Finding, name_events};
use crate::history::Seen;

/// At the end of the run every event of the stream has been given to every client that follows it,
/// or declared; every client has joined; and every publisher has its answer.
pub(super) const CHECKER: Checker = Checker {
    name: "progress",
    statements: &["CORE-8", "CORE-11", "EV-5"],
    liveness: true,
    demands: "after healing, every event is delivered or declared in time",
    check,
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let at_ms = facts.end_ms;
    let mut findings = Vec::new();
    for (client, seen) in &facts.clients {
        let mut say = |message| findings.push(Finding { at_ms, client: Some(*client), message });
        let Some(joined_after) = seen.joined_after else {
            if facts.stream_of(*client).next().is_some() {
                say(format!("client-{client} never joined its stream, which has events"));
            }
            continue;
        };
        let given: BTreeSet<u64> =
            seen.deliveries.iter().filter_map(|delivery| delivery.sequence).collect();
        let owed: Vec<_> = facts
            .stream_of(*client)
            .filter(|(sequence, _)| *sequence > joined_after && !given.contains(sequence))
            .filter(|(sequence, _)| !seen.is_declared(*sequence))
            .collect();
        if !owed.is_empty() {
            say(format!(
                "client-{client} still waits for {} when the time after healing is over",
                name_events(owed)
            ));
        }
    }
    let mut waiting: BTreeSet<(u32, &str)> = BTreeSet::new();
    for entry in &facts.history.entries {
        match &entry.what {
            Seen::Publishing { agent, key } => {
                waiting.insert((*agent, key));
            }
            Seen::Published { agent, key, .. }
            | Seen::NotPublished { agent, key }
            | Seen::PublishUnknown { agent, key } => {
                waiting.remove(&(*agent, key));
            }
            _ => {}
        }
    }
    for (agent, key) in waiting {
        let message = format!("the publisher of {key} to agent-{agent} still waits for an answer");
        findings.push(Finding { at_ms, client: None, message });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::Seen;

    #[test]
    fn an_event_that_never_arrives_is_owed() {
        let said = findings(&CHECKER, vec![joined(0), published(1), published(2), delivered(1)]);
        assert_eq!(
            said,
            ["client-1 still waits for 2 (k2) when the time after healing is over"]
        );
    }

    #[test]
    fn a_client_that_never_joins_is_found() {
        assert_eq!(findings(&CHECKER, vec![published(1)]).len(), 1);
        assert_eq!(findings(&CHECKER, vec![]), [""; 0]);
    }

    #[test]
    fn a_publisher_without_an_answer_is_found() {
        let publishing = Seen::Publishing { agent: 1, key: "k1".to_owned() };
        assert_eq!(findings(&CHECKER, vec![publishing.clone()]).len(), 1);
        let unknown = Seen::PublishUnknown { agent: 1, key: "k1".to_owned() };
        assert_eq!(findings(&CHECKER, vec![publishing, unknown]), [""; 0]);
    }
}
