//! Events are delivered in the order of their numbers.

use std::collections::BTreeMap;

use super::{Check, Checker, Delivery, Facts, Finding};

/// Numbers ascend within an epoch, and from one epoch to the next unless a gap was declared in
/// between: then the stream may have begun anew.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "in_order",
    statements: &["CORE-5", "CORE-6", "EV-8"],
    liveness: false,
    demands: "events are delivered in ascending order of their sequence",
    check: Check::Events(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (client, seen) in &facts.clients {
        // A base server has no epochs; another log begins anew all the same.
        let mut newest: BTreeMap<(Option<&str>, usize), u64> = BTreeMap::new();
        let mut last: Option<(&Delivery<'_>, u64)> = None;
        for delivery in &seen.deliveries {
            let Some(sequence) = delivery.sequence else { continue };
            let epoch = (delivery.epoch, delivery.branch);
            let in_epoch = newest.get(&epoch).copied();
            // Another log has other numbers; whether the client was told is another checker's.
            let over_epochs = last.filter(|(last, _)| {
                last.branch == delivery.branch
                    && !seen
                        .gaps
                        .iter()
                        .any(|gap| (last.index..delivery.index).contains(&gap.index))
            });
            let before = in_epoch.max(over_epochs.map(|(_, sequence)| sequence));
            if let Some(before) = before.filter(|before| sequence < *before) {
                findings.push(Finding {
                    at_ms: delivery.at_ms,
                    client: Some(*client),
                    message: format!(
                        "client-{client} was given event {sequence} ({}) after event {before}",
                        delivery.key.unwrap_or("?")
                    ),
                });
            }
            newest.insert(epoch, in_epoch.unwrap_or(0).max(sequence));
            last = Some((delivery, sequence));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;

    #[test]
    fn a_lower_number_after_a_higher_one_is_out_of_order() {
        let said = findings(&CHECKER, vec![delivered(1), delivered(3), delivered(2)]);
        assert_eq!(said, ["client-1 was given event 2 (k2) after event 3"]);
    }

    #[test]
    fn numbers_go_on_over_epochs_unless_a_gap_was_declared() {
        let on = vec![delivered_as(5, "a", "e1"), delivered_as(4, "b", "e2")];
        assert_eq!(findings(&CHECKER, on).len(), 1);
        let anew =
            vec![delivered_as(5, "a", "e1"), gap("ahead", &[], 3), delivered_as(4, "b", "e2")];
        assert_eq!(findings(&CHECKER, anew), [""; 0]);
    }
}
