//! A gap is declared exactly when something cannot be supplied.

use std::collections::BTreeMap;

use super::{Checker, Facts, Finding};
use crate::history::Seen;

/// Every number that is declared lost was removed from the log before; and a resync that speaks of
/// a gap is one in which a gap was declared.
pub(super) const CHECKER: Checker = Checker {
    name: "gap_is_true",
    statements: &["CORE-4", "EV-7", "EV-10"],
    liveness: false,
    demands: "a gap is declared only for events that the log no longer holds",
    check,
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // The lowest number that each log keeps, as far as anybody has asked for less.
    let mut kept: BTreeMap<u32, u64> = BTreeMap::new();
    for entry in &facts.history.entries {
        if let Seen::Retained { agent, oldest } | Seen::LogEnd { agent, oldest, .. } = &entry.what {
            let kept = kept.entry(*agent).or_insert(1);
            *kept = (*kept).max(*oldest);
        }
    }
    for (client, seen) in &facts.clients {
        let agent = facts.topology.agent_of(*client);
        let kept = kept.get(&agent).copied().unwrap_or(1);
        for gap in &seen.gaps {
            // A base server does not say what is lost, only that something is.
            let unproven = match gap.lost {
                [] => kept == 1,
                ranges => ranges.iter().any(|(_, to)| *to >= kept),
            };
            if unproven {
                findings.push(Finding {
                    at_ms: gap.at_ms,
                    client: Some(*client),
                    message: format!(
                        "client-{client} was told of a gap ({}, lost {:?}) before event {}, but \
                         the log keeps everything from {kept}",
                        gap.verdict,
                        gap.lost,
                        gap.sequence + 1
                    ),
                });
            }
        }
    }
    for (index, entry) in facts.history.entries.iter().enumerate() {
        if let Seen::Resynced { client, gap_detected: true, .. } = &entry.what
            && let Some(seen) = facts.clients.get(client)
            && !seen.gaps.iter().any(|gap| gap.index < index)
        {
            findings.push(Finding {
                at_ms: entry.at_ms,
                client: Some(*client),
                message: format!(
                    "client-{client} finished a resync with a gap that nobody declared"
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
    use crate::history::Seen;

    #[test]
    fn a_gap_that_retention_does_not_explain_is_found() {
        let said = findings(&CHECKER, vec![gap("ahead", &[], 0)]);
        assert_eq!(said.len(), 1);
        let retained = Seen::Retained { agent: 1, oldest: 3 };
        let said = findings(&CHECKER, vec![retained, gap("too_old", &[(2, 3)], 3)]);
        assert_eq!(said.len(), 1);
    }

    #[test]
    fn a_gap_that_retention_explains_is_true() {
        let retained = Seen::Retained { agent: 1, oldest: 4 };
        assert_eq!(findings(&CHECKER, vec![retained, gap("too_old", &[(2, 3)], 3)]), [""; 0]);
    }

    #[test]
    fn a_resync_does_not_speak_of_a_gap_that_was_not_declared() {
        let resynced = Seen::Resynced { client: 1, replayed: 0, gap_detected: true };
        assert_eq!(findings(&CHECKER, vec![resynced]).len(), 1);
    }
}
