//! After healing, everything that is owed arrives.

use std::collections::BTreeSet;

use super::{Check, Checker, Facts, Finding, name_events};
use crate::history::Seen;

/// At the end of the run every event of the stream has been given to every client that follows it,
/// or declared; every client has joined; and every publisher has its answer.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "progress",
    statements: &["CORE-8", "CORE-11", "EV-5"],
    liveness: true,
    demands: "after healing, every event is delivered or declared in time",
    check: Check::Events(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let at_ms = facts.end_ms;
    let mut findings = Vec::new();
    for (client, seen) in &facts.clients {
        let mut say = |message| findings.push(Finding { at_ms, client: Some(*client), message });
        let newest = facts.branches.current();
        let Some(owed_after) = facts.owed_after(seen, newest) else {
            if let Some(key) = owed_without_joining(facts, *client) {
                say(format!("client-{client} never joined its stream, where {key} was published"));
            }
            continue;
        };
        let mut owed: Vec<_> = facts
            .stream_of(*client, newest)
            .filter(|(sequence, key)| *sequence > owed_after && !seen.given.contains(key))
            .filter(|event| !facts.is_declared(seen, newest, *event))
            .collect();
        owed.sort_unstable();
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

/// An event that a client should have got though it has no cursor yet: one that was published
/// after the newest life of its process had connected, or any if it never did. What came before
/// is not owed: a base server gives a cursor with the first event only.
fn owed_without_joining<'a>(facts: &Facts<'a>, client: u32) -> Option<&'a str> {
    let entries = &facts.history.entries;
    let mut connected = entries.iter().enumerate().filter_map(|(index, entry)| match entry.what {
        Seen::Connected { client: who, incarnation } if who == client => Some((incarnation, index)),
        _ => None,
    });
    let newest = connected.clone().map(|(incarnation, _)| incarnation).max();
    let first = connected.find(|(incarnation, _)| Some(*incarnation) == newest);
    let since = first.map_or(0, |(_, index)| index);
    let agent = facts.topology.agent_of(client);
    entries[since..].iter().find_map(|entry| match &entry.what {
        Seen::Published { agent: to, key, .. } if *to == agent => Some(key.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::Seen;

    #[test]
    fn an_event_that_never_arrives_is_owed() {
        let said = findings(&CHECKER, vec![joined(0), published(1), published(2), delivered(1)]);
        assert_eq!(said, ["client-1 still waits for 2 (k2) when the time after healing is over"]);
    }

    #[test]
    fn a_client_that_never_joins_is_found() {
        let connected = |incarnation| Seen::Connected { client: 1, incarnation };
        assert_eq!(findings(&CHECKER, vec![published(1)]).len(), 1);
        assert_eq!(findings(&CHECKER, vec![connected(1), published(1)]).len(), 1);
        assert_eq!(findings(&CHECKER, vec![]), [""; 0]);
    }

    #[test]
    fn what_was_published_before_a_client_connected_is_not_owed() {
        let connected = |incarnation| Seen::Connected { client: 1, incarnation };
        assert_eq!(findings(&CHECKER, vec![published(1), connected(1)]), [""; 0]);
        let restarted = vec![connected(1), published(1), connected(2)];
        assert_eq!(findings(&CHECKER, restarted), [""; 0]);
    }

    #[test]
    fn a_publisher_without_an_answer_is_found() {
        let publishing = Seen::Publishing { agent: 1, key: "k1".to_owned() };
        assert_eq!(findings(&CHECKER, vec![publishing.clone()]).len(), 1);
        let unknown = Seen::PublishUnknown { agent: 1, key: "k1".to_owned() };
        assert_eq!(findings(&CHECKER, vec![publishing, unknown]), [""; 0]);
    }
}
