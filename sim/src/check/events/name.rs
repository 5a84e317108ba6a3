//! One name, one payload, for ever.

use std::collections::BTreeMap;

use super::{Check, Checker, Delivery, Facts, Finding};
use crate::history::Seen;

/// A number of a stream stands for one event, and an event has one number, whoever says so: the
/// publisher's acknowledgement, the log, or any client. Numbers that were given before an older
/// copy took the place of the log, and that the copy does not have, are other names.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "one_name_one_payload",
    statements: &["CORE-1", "EV-1"],
    liveness: false,
    demands: "a sequence names one event, and an event has one sequence",
    check: Check::Events(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut by_sequence: BTreeMap<(u32, usize, u64), (&str, String)> = BTreeMap::new();
    let mut by_key: BTreeMap<(u32, usize, &str), (u64, String)> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut deliveries: BTreeMap<u32, std::slice::Iter<'_, Delivery<'_>>> =
        facts.clients.iter().map(|(client, seen)| (*client, seen.deliveries.iter())).collect();
    for entry in &facts.history.entries {
        let (agent, branch, sequence, key, who, client) = match &entry.what {
            Seen::Published { agent, key, epoch, sequence } => {
                let branch = facts.branches.of_epoch(epoch).unwrap_or(0);
                (*agent, branch, *sequence, key, "the acknowledgement".to_owned(), None)
            }
            Seen::Stored { agent, key, sequence } => {
                let branch = facts.branches.current();
                (*agent, branch, *sequence, key, "the log".to_owned(), None)
            }
            Seen::Delivered { client, sequence, key, .. } => {
                let delivery = deliveries.get_mut(client).and_then(Iterator::next);
                let (Some(delivery), Some(sequence), Some(key)) = (delivery, sequence, key) else {
                    continue;
                };
                let agent = facts.topology.agent_of(*client);
                (agent, delivery.branch, *sequence, key, format!("client-{client}"), Some(*client))
            }
            _ => continue,
        };
        let origin = facts.branches.origin(agent, branch, sequence);
        let mut say = |message: String| {
            findings.push(Finding { at_ms: entry.at_ms, client, message });
        };
        let (other, by) =
            by_sequence.entry((agent, origin, sequence)).or_insert_with(|| (key, who.clone()));
        if *other != key {
            say(format!(
                "event {sequence} of agent-{agent} is {other} according to {by}, and {key} according to {who}"
            ));
        }
        let (other, by) =
            by_key.entry((agent, origin, key)).or_insert_with(|| (sequence, who.clone()));
        if *other != sequence {
            say(format!(
                "{key} of agent-{agent} is event {other} according to {by}, and event {sequence} according to {who}"
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;

    #[test]
    fn a_number_that_was_used_twice_is_found() {
        let said = findings(&CHECKER, vec![published(1), delivered_as(1, "other", "e1")]);
        assert_eq!(
            said,
            [
                "event 1 of agent-1 is k1 according to the acknowledgement, and other according to client-1"
            ]
        );
    }

    #[test]
    fn an_event_that_was_stored_twice_is_found() {
        let said = findings(&CHECKER, vec![published(1), delivered_as(2, "k1", "e1")]);
        assert_eq!(said.len(), 1);
    }

    #[test]
    fn agreement_is_no_finding() {
        assert_eq!(findings(&CHECKER, vec![published(1), delivered(1), stored(1)]), [""; 0]);
    }

    #[test]
    fn a_log_that_went_back_gives_its_numbers_again() {
        let again = vec![published(1), published(2), replaced(1), published_as(2, "new", "e2")];
        assert_eq!(findings(&CHECKER, again), [""; 0]);
        let common = vec![published(1), replaced(1), published_as(1, "new", "e2")];
        assert_eq!(findings(&CHECKER, common).len(), 1, "1 is in the copy");
    }
}
