//! Nothing is delivered twice.

use std::collections::BTreeMap;

use super::{Check, Checker, ClientFacts, Delivery, Facts, Finding, GapSeen};

/// An application is given each event once, over all lives of its process.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "no_duplicate",
    statements: &["CORE-3", "EV-8", "EV-9"],
    liveness: false,
    demands: "no event is delivered to the same application twice",
    check: Check::Events(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (client, seen) in &facts.clients {
        let mut before: BTreeMap<&str, &Delivery<'_>> = BTreeMap::new();
        for delivery in &seen.deliveries {
            let Some(key) = delivery.key else { continue };
            if let Some(first) = before.insert(key, delivery) {
                if began_anew(seen, first, delivery) {
                    continue;
                }
                let first = first.at_ms;
                findings.push(Finding {
                    at_ms: delivery.at_ms,
                    client: Some(*client),
                    message: format!(
                        "client-{client} was given event {} ({key}) twice: at {first} ms and at {} ms",
                        delivery.sequence.unwrap_or(0),
                        delivery.at_ms
                    ),
                });
            }
        }
    }
    findings
}

/// Whether the log was replaced by an older copy between two deliveries and the client was told, at
/// the latest before the second: what was published again, or what the client could not know to be
/// the same, is another event then. A handler may have begun with the first before the client was
/// told, and ended after it.
fn began_anew(seen: &ClientFacts<'_>, first: &Delivery<'_>, second: &Delivery<'_>) -> bool {
    let told = |gap: &GapSeen<'_>| {
        gap.index < second.index
            && gap.place.branch > first.branch
            && matches!(gap.verdict, "ahead" | "other_epoch")
    };
    second.branch > first.branch && seen.gaps.iter().any(told)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;

    #[test]
    fn the_same_event_twice_is_a_duplicate_under_any_number() {
        let same = findings(&CHECKER, vec![delivered(1), delivered(2), delivered(1)]);
        assert_eq!(same, ["client-1 was given event 1 (k1) twice: at 1 ms and at 3 ms"]);
        let other = findings(&CHECKER, vec![delivered(1), delivered_as(2, "k1", "e1")]);
        assert_eq!(other.len(), 1);
    }

    #[test]
    fn different_events_are_no_duplicates() {
        assert_eq!(findings(&CHECKER, vec![delivered(1), delivered(2)]), [""; 0]);
    }

    #[test]
    fn what_is_published_again_after_the_log_went_back_may_be_given_again() {
        let first = || vec![published(1), delivered(1)];
        let again = delivered_as(1, "k1", "e2");
        let mut told = first();
        told.extend([replaced(0), went_back("other_epoch", "e2", 0), again.clone()]);
        assert_eq!(findings(&CHECKER, told), [""; 0]);
        let gap = went_back("other_epoch", "e2", 0);
        let while_handling = vec![published(1), replaced(0), gap, delivered(1), again.clone()];
        assert_eq!(findings(&CHECKER, while_handling), [""; 0]);
        let mut not_told = first();
        not_told.extend([replaced(0), again]);
        assert_eq!(findings(&CHECKER, not_told).len(), 1);
    }
}
