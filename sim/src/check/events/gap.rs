//! A gap is declared exactly when something cannot be supplied.

use std::collections::BTreeMap;

use super::{Check, Checker, ClientFacts, Facts, Finding, GapSeen, Place};
use crate::history::Seen;

/// Every number that is declared lost was removed from the log before, or is of a log whose place an
/// older copy has taken; whoever was ahead of the copy is told; and a resync that speaks of a gap is
/// one in which a gap was declared.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "gap_is_true",
    statements: &["CORE-2", "CORE-4", "EV-2", "EV-7", "EV-10"],
    liveness: false,
    demands: "a gap is declared for events that the log no longer holds, and for no others",
    check: Check::Events(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let kept = kept(facts);
    for (client, seen) in &facts.clients {
        let of = |branch| kept.get(&(seen.agent, branch)).copied().unwrap_or(1);
        for gap in &seen.gaps {
            let kept = of(gap.place.branch);
            let by_retention = match gap.lost {
                // A base server does not say what is lost, only that something is.
                [] => kept > 1,
                ranges => ranges.iter().all(|(from, to)| from <= to && *to < kept),
            };
            if !by_retention && !log_went_back(facts, seen.agent, gap) {
                findings.push(Finding {
                    at_ms: gap.at_ms,
                    client: Some(*client),
                    message: format!(
                        "client-{client} was told of a gap ({}, lost {:?}) before event {}, but \
                         the log keeps everything from {kept}",
                        gap.verdict,
                        gap.lost,
                        gap.place.sequence + 1
                    ),
                });
            }
        }
        findings.extend(not_told(facts, *client, seen));
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

/// The lowest number that each branch of a log keeps, as far as anybody has asked for less.
fn kept(facts: &Facts<'_>) -> BTreeMap<(u32, usize), u64> {
    let mut kept: BTreeMap<(u32, usize), u64> = BTreeMap::new();
    let mut branch = 0;
    let mut raise = |agent, branch, oldest: u64| {
        let kept = kept.entry((agent, branch)).or_insert(1);
        *kept = (*kept).max(oldest);
    };
    for entry in &facts.history.entries {
        match &entry.what {
            Seen::Retained { agent, oldest } | Seen::LogEnd { agent, oldest, .. } => {
                raise(*agent, branch, *oldest);
            }
            Seen::LogReplaced { streams, .. } => {
                branch += 1;
                for state in streams {
                    raise(state.agent, branch, state.oldest);
                }
            }
            _ => {}
        }
    }
    kept
}

/// Whether the client had asked to go on after a number that the log does not have any more, or had
/// got one and may have been handling it, or had its number from a log of which this one cannot
/// know.
fn log_went_back(facts: &Facts<'_>, agent: u32, gap: &GapSeen<'_>) -> bool {
    let Some(asked) = gap.asked else { return false };
    match gap.verdict {
        // It was not told why.
        "unknown" if gap.place.branch > 0 => true,
        "ahead" => {
            facts.lacks(agent, gap.place.branch, asked)
                || gap.ahead
                || (gap.epoch.is_none() && gap.place.branch > 0)
        }
        "other_epoch" => asked.branch != gap.place.branch,
        _ => false,
    }
}

/// A client that was given events which an older copy of the log does not have, and that then went
/// on in the copy, was told of it in between.
fn not_told(facts: &Facts<'_>, client: u32, seen: &ClientFacts<'_>) -> Option<Finding> {
    let mut gaps = seen.gaps.iter().peekable();
    let mut at = Place { branch: 0, sequence: 0 };
    for delivery in &seen.deliveries {
        while let Some(gap) = gaps.next_if(|gap| gap.index < delivery.index) {
            // What is declared lost was not given.
            at = Place { sequence: at.sequence.min(gap.place.sequence), ..gap.place };
        }
        let Some(sequence) = delivery.sequence else { continue };
        let place = Place { branch: delivery.branch, sequence };
        if place.branch > at.branch {
            let common = facts.branches.common(seen.agent, at.branch, at.sequence, place.branch);
            if common < at.sequence {
                return Some(Finding {
                    at_ms: delivery.at_ms,
                    client: Some(client),
                    message: format!(
                        "client-{client} was given event {}, then event {sequence} of a log that \
                         had gone back to {common}, and was not told",
                        at.sequence
                    ),
                });
            }
            at = place;
        } else if place.branch == at.branch {
            at.sequence = at.sequence.max(sequence);
        }
        // Else the handler had begun before the client was told.
    }
    None
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

    #[test]
    fn a_gap_without_a_reason_is_true_if_there_is_one() {
        let asked = |then: Seen| vec![published(1), delivered(1), resumed(1), then];
        let no_reason = asked(gap("unknown", &[], 1));
        assert_eq!(findings(&CHECKER, no_reason).len(), 1);
        let mut replaced_before = asked(replaced(0));
        replaced_before.push(resumed(1));
        replaced_before.push(went_back("unknown", "e2", 0));
        assert_eq!(findings(&CHECKER, replaced_before), [""; 0]);
    }

    #[test]
    fn a_log_that_went_back_behind_the_cursor_is_a_gap_and_behind_nobody_is_none() {
        let before = [published(1), published(2), published(3), delivered(1), delivered(2)];
        let after = [resumed_as(2, "e1"), replaced(1), went_back("ahead", "e2", 1)];
        let behind = before.iter().cloned().chain(after).collect();
        assert_eq!(findings(&CHECKER, behind), [""; 0]);
        let after = [resumed_as(2, "e1"), replaced(2), went_back("ahead", "e2", 2)];
        let not_behind = before.into_iter().chain(after).collect();
        assert_eq!(findings(&CHECKER, not_behind).len(), 1);
    }

    #[test]
    fn a_log_that_went_back_behind_what_a_client_is_handling_is_a_gap() {
        let arrived = Seen::Arrived { client: 1, connection: 1, sequence: 3 };
        let seen = |arrived: &[Seen]| {
            let before = [published(1), published(2), delivered(1), delivered(2), published(3)];
            let after = [replaced(2), resumed_as(2, "e1"), went_back("ahead", "e2", 2)];
            before.iter().chain(arrived).chain(&after).cloned().collect()
        };
        assert_eq!(findings(&CHECKER, seen(&[arrived])), [""; 0]);
        assert_eq!(findings(&CHECKER, seen(&[])).len(), 1);
    }

    #[test]
    fn what_a_server_that_slept_has_sent_is_of_the_log_before() {
        let seen = |epoch: &str| {
            let before = [published(1), published(2), delivered(1), published(3), replaced(1)];
            let new = [published_as(2, "new2", "e2"), published_as(3, "new3", "e2")];
            let epoch = epoch.to_owned();
            let began = Seen::ReplayBegan { client: 1, connection: 2, epoch, from: 2, to: 3 };
            let connected = Seen::Connected { client: 1, incarnation: 1 };
            let arrived = Seen::Arrived { client: 1, connection: 2, sequence: 3 };
            let after =
                [connected, began, arrived, resumed_as(1, "e1"), went_back("ahead", "e2", 1)];
            before.into_iter().chain(new).chain(after).collect()
        };
        assert_eq!(findings(&CHECKER, seen("e1")), [""; 0]);
        assert_eq!(findings(&CHECKER, seen("e2")).len(), 1);
    }

    #[test]
    fn whoever_was_ahead_of_an_older_copy_has_to_be_told() {
        let silent = vec![
            published(1),
            published(2),
            delivered(1),
            delivered(2),
            replaced(1),
            published_as(2, "new2", "e2"),
            delivered_as(3, "new3", "e2"),
        ];
        assert_eq!(
            findings(&CHECKER, silent.clone()),
            ["client-1 was given event 2, then event 3 of a log that had gone back to 1, and was \
              not told"]
        );
        let mut told = silent;
        told.splice(6..6, [resumed_as(2, "e1"), went_back("ahead", "e2", 1)]);
        assert_eq!(findings(&CHECKER, told), [""; 0]);
    }
}
