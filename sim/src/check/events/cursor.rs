//! A client resumes from what its application has finished with, and from no other number.

use std::collections::BTreeSet;

use super::{Check, Checker, Facts, Finding, name_events};
use crate::history::Seen;

/// When a client asks to go on after a number, every event of the stream up to that number, above
/// the one at which it joined, has been given to its application before, or was declared lost.
/// Otherwise those in between will never be asked for.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "cursor_is_contiguous",
    statements: &["CORE-3", "EV-4", "EV-9"],
    liveness: false,
    demands: "a client asks to go on after events only that its application has finished with",
    check: Check::Events(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (client, seen) in &facts.clients {
        let mut given = BTreeSet::new();
        let mut deliveries = seen.deliveries.iter().peekable();
        for (index, entry) in facts.history.entries.iter().enumerate() {
            let Seen::Resumed { client: who, epoch, sequence: cursor } = &entry.what else {
                continue;
            };
            if who != client {
                continue;
            }
            while let Some(delivery) = deliveries.next_if(|delivery| delivery.index < index) {
                given.extend(delivery.key);
            }
            // A number of the base contract may stand for another log by now.
            let Some(branch) =
                epoch.as_deref().map_or((facts.branches.current() == 0).then_some(0), |epoch| {
                    facts.branches.of_epoch(epoch)
                })
            else {
                continue;
            };
            let owed_after = facts.owed_after(seen, branch).unwrap_or(u64::MAX);
            let mut skipped: Vec<_> = facts
                .stream_of(*client, branch)
                .filter(|(sequence, _)| *sequence > owed_after && sequence <= cursor)
                .filter(|(_, key)| !given.contains(key))
                .filter(|event| !facts.is_declared(seen, branch, *event))
                .collect();
            skipped.sort_unstable();
            if !skipped.is_empty() {
                findings.push(Finding {
                    at_ms: entry.at_ms,
                    client: Some(*client),
                    message: format!(
                        "client-{client} asks to go on after event {cursor}, but its application \
                         was never given {}: lost",
                        name_events(skipped)
                    ),
                });
                break;
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::Seen;

    fn resumed(sequence: u64) -> Seen {
        Seen::Resumed { client: 1, epoch: None, sequence }
    }

    #[test]
    fn a_cursor_beyond_what_was_given_loses_events() {
        let history =
            vec![joined(0), published(1), published(2), published(3), delivered(1), resumed(3)];
        assert_eq!(
            findings(&CHECKER, history),
            ["client-1 asks to go on after event 3, but its application was never given \
                 2 (k2) and 3 (k3): lost"]
        );
    }

    #[test]
    fn what_is_given_after_the_cursor_was_sent_does_not_count() {
        let history = vec![joined(0), published(1), resumed(1), delivered(1)];
        assert_eq!(findings(&CHECKER, history).len(), 1);
    }

    #[test]
    fn a_contiguous_cursor_is_right() {
        let history = vec![
            joined(1),
            published(1),
            published(2),
            published(3),
            delivered(2),
            resumed(2),
            gap("too_old", &[(3, 3)], 3),
            resumed(3),
        ];
        assert_eq!(findings(&CHECKER, history), [""; 0]);
    }
}
