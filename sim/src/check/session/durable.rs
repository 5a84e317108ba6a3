//! What is shown is durable, and stays.

use std::collections::BTreeMap;

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Numbered, SessionSeen, ShownRow, StoredRow};

/// Also over a loss of power.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "durable_before_shown",
    statements: &["SE-3", "SE-5"],
    liveness: false,
    demands: "a row is durable before a frame shows it or acknowledges its input, and it is still \
              there in the end",
    check: Check::Session(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.blind {
        return findings;
    }
    let mut stored: BTreeMap<(u32, u64), &StoredRow> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        match seen {
            SessionSeen::Durable { user, row } => {
                let first = *stored.entry((*user, row.position)).or_insert(row);
                if first != row {
                    let message = format!("row {} of user-{user} is another one now", row.position);
                    findings.push(finding(at_ms, None, message));
                }
            }
            SessionSeen::Sent { conn, seq, what } => {
                let Some(peer) = facts.peers.get(conn) else { continue };
                let stored = |position: u64| stored.get(&(peer.user, position)).copied();
                let is_stored = |row: &&ShownRow| {
                    let stored = row.position.map(stored);
                    stored.is_none_or(|it| it.is_some_and(|it| it.digest == row.digest))
                };
                let wrong = match what {
                    Numbered::History { rows, .. } => rows.iter().find(|row| !is_stored(row)),
                    Numbered::Row(row) | Numbered::Question { row, .. } => {
                        Some(row).filter(|row| !is_stored(row))
                    }
                    Numbered::Accepted { input, position: Some(position) } => {
                        let names = |row: &StoredRow| row.input.as_ref() == Some(input);
                        if !stored(*position).is_some_and(names) {
                            let message = format!(
                                "{input} was acknowledged as row {position} of user-{} under {seq} \
                                 before it was durable",
                                peer.user
                            );
                            findings.push(finding(at_ms, None, message));
                        }
                        None
                    }
                    Numbered::Accepted { .. } | Numbered::Rejected { .. } | Numbered::Notice => {
                        None
                    }
                };
                if let Some(ShownRow { position: Some(position), .. }) = wrong {
                    let message = format!(
                        "{seq} on connection {conn} shows row {position} of user-{} before it is \
                         durable",
                        peer.user
                    );
                    findings.push(finding(at_ms, None, message));
                }
            }
            SessionSeen::ConversationEnd { user, rows, .. } => {
                let newest = facts.talks.get(user).map_or(0, super::Talk::newest);
                let kept: BTreeMap<u64, &StoredRow> =
                    rows.iter().map(|row| (row.position, row)).collect();
                let gone = stored.iter().find(|((of, position), row)| {
                    of == user
                        && !facts.is_forgotten(*position, newest)
                        && kept.get(position) != Some(row)
                });
                if let Some(((_, position), _)) = gone {
                    let message = format!("row {position} of user-{user} is gone in the end");
                    findings.push(finding(at_ms, None, message));
                }
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
    use crate::history::SessionSeen;

    fn with(entries: Vec<SessionSeen>) -> Vec<SessionSeen> {
        [vec![connected(1, 0, None)], entries].concat()
    }

    #[test]
    fn frames_come_after_their_rows() {
        let right = vec![
            durable(row(1)),
            sent_history(1, 1, 1..=1),
            durable(row(2)),
            sent_row(1, 2, 2),
            durable(input_row(3, "a")),
            accepted(1, 3, "a", 3),
        ];
        assert_eq!(findings(&CHECKER, with(right.clone())), [""; 0]);
        for (without, count) in [(0, 1), (2, 1), (4, 1)] {
            let mut wrong = right.clone();
            wrong.remove(without);
            assert_eq!(findings(&CHECKER, with(wrong)).len(), count, "without {without}");
        }
    }

    #[test]
    fn rows_stay_as_they_are() {
        let changed = vec![durable(row(1)), durable(input_row(1, "a"))];
        assert_eq!(findings(&CHECKER, changed).len(), 1);
        let ended = |rows| vec![durable(row(1)), durable(row(2)), end(rows, &[])];
        assert_eq!(findings(&CHECKER, ended(vec![row(1), row(2)])), [""; 0]);
        assert_eq!(findings(&CHECKER, ended(vec![row(1)])).len(), 1);
    }

    #[test]
    fn what_nobody_sees_is_not_judged() {
        let shown = with(vec![sent_row(1, 2, 2)]);
        assert_eq!(findings(&CHECKER, shown.clone()).len(), 1);
        assert_eq!(findings(&CHECKER, [vec![SessionSeen::Blind], shown].concat()), [""; 0]);
    }
}
