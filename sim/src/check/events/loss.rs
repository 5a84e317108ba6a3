//! Nothing is lost in silence: no event is passed over without a word.

use std::collections::BTreeMap;

use super::{Check, Checker, Facts, Finding, name_events};

/// An event that is in the stream, above the number at which the client joined, and below one
/// that the client was given, has been given too, or was declared lost.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "no_loss",
    statements: &["CORE-3", "CORE-5", "EV-5", "EV-10"],
    liveness: false,
    demands: "no event is passed over without being delivered or declared lost",
    check: Check::Events(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (client, seen) in &facts.clients {
        let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
        for delivery in &seen.deliveries {
            if let Some(sequence) = delivery.sequence {
                let newest = newest.entry(delivery.branch).or_default();
                *newest = sequence.max(*newest);
            }
        }
        for (branch, newest) in newest {
            let Some(owed_after) = facts.owed_after(seen, branch) else { continue };
            let mut lost: Vec<_> = facts
                .stream_of(*client, branch)
                .filter(|(sequence, _)| (owed_after + 1..newest).contains(sequence))
                .filter(|(_, key)| !seen.given.contains(key))
                .filter(|event| !facts.is_declared(seen, branch, *event))
                .collect();
            lost.sort_unstable();
            let Some((first, _)) = lost.first() else { continue };
            let passed = seen
                .deliveries
                .iter()
                .find(|delivery| {
                    delivery.branch == branch
                        && delivery.sequence.is_some_and(|sequence| sequence > *first)
                })
                .expect("something above the first lost event was delivered");
            findings.push(Finding {
                at_ms: passed.at_ms,
                client: Some(*client),
                message: format!(
                    "client-{client} was given event {}, but never {}: lost, and not declared",
                    passed.sequence.unwrap_or(0),
                    name_events(lost),
                ),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;

    #[test]
    fn an_event_that_is_passed_over_is_lost() {
        let history =
            vec![published(1), published(2), published(3), joined(0), delivered(1), delivered(3)];
        let said = findings(&CHECKER, history);
        assert_eq!(said, ["client-1 was given event 3, but never 2 (k2): lost, and not declared"]);
    }

    #[test]
    fn an_event_of_unknown_outcome_that_is_in_the_log_counts() {
        let history = vec![joined(0), delivered(2), stored(1), stored(2)];
        assert_eq!(findings(&CHECKER, history).len(), 1);
    }

    #[test]
    fn what_was_declared_or_came_before_joining_is_not_lost() {
        let history = vec![
            published(1),
            published(2),
            published(3),
            joined(1),
            gap("too_old", &[(2, 2)], 2),
            delivered(3),
        ];
        assert_eq!(findings(&CHECKER, history), [""; 0]);
    }

    #[test]
    fn what_a_log_forgot_when_it_went_back_is_not_owed_and_what_it_has_anew_is() {
        let before = vec![joined_at(0, "e1"), published(1), published(2), published(3)];
        let after = vec![
            replaced(1),
            published_as(2, "new2", "e2"),
            published_as(3, "new3", "e2"),
            delivered(1),
        ];
        let mut told = before.clone();
        told.extend(after.clone());
        told.extend([delivered_as(2, "new2", "e2"), delivered_as(3, "new3", "e2")]);
        assert_eq!(findings(&CHECKER, told), [""; 0], "2 and 3 of the first log are gone");
        let mut skipping = before;
        skipping.extend(after);
        skipping.push(delivered_as(3, "new3", "e2"));
        assert_eq!(
            findings(&CHECKER, skipping),
            ["client-1 was given event 3, but never 2 (new2): lost, and not declared"]
        );
    }
}
