//! What a client says it has applied is in its view.

use std::collections::BTreeMap;

use super::{Check, Checker, Facts, Finding, Screen, Screens, finding};
use crate::history::{Conn, Numbered, SessionSeen, ShownRow};

/// When it acknowledges, and when it comes back.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "acked_is_applied",
    statements: &["SE-4", "SE-10", "SE-11", "CORE-3"],
    liveness: false,
    demands: "every number up to the one that a client acknowledges or resumes from has taken \
              effect in its view; a view that begins anew begins with nothing",
    check: Check::Session(check),
};

/// An outbox: the user, the name of the client, and the epoch if the client knows it.
type Outbox<'a> = (u32, &'a str, Option<&'a str>);

/// What was sent under each number. Without epochs that may be several things, when a server starts
/// again, or clients share a name: which of them went to whom is not known.
type Numbers<'a> = BTreeMap<u64, Vec<&'a Numbered>>;

/// Which frames went to whom.
#[derive(Default)]
struct Frames<'a> {
    outboxes: BTreeMap<Outbox<'a>, Numbers<'a>>,
    epochs: BTreeMap<Conn, &'a str>,
}

/// What a life of a client calls itself, how far it was checked, and whether it has connected.
struct Progress<'a> {
    name: &'a str,
    checked: (Option<&'a str>, u64),
    dialed: bool,
}

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut screens = Screens::default();
    let mut frames = Frames::default();
    let mut clients: BTreeMap<u32, Progress<'_>> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        screens.see(seen);
        let (client, says, seq, epoch) = match seen {
            SessionSeen::Verdict { conn, epoch, .. } => {
                frames.epochs.insert(*conn, epoch);
                continue;
            }
            SessionSeen::Sent { conn, seq, what } => {
                let Some(peer) = facts.peers.get(conn) else { continue };
                let outbox = (peer.user, peer.name, frames.epochs.get(conn).copied());
                frames.outboxes.entry(outbox).or_default().entry(*seq).or_default().push(what);
                continue;
            }
            SessionSeen::Began { client, name, .. } => {
                let progress = Progress { name, checked: (None, 0), dialed: false };
                clients.insert(*client, progress);
                continue;
            }
            SessionSeen::Dialed { client, since, epoch, .. } => {
                let Some(progress) = clients.get_mut(client) else { continue };
                if !std::mem::replace(&mut progress.dialed, true) && *since > 0 {
                    let message =
                        format!("client-{client} began anew and resumed from {since} at once");
                    findings.push(finding(at_ms, Some(*client), message));
                    continue;
                }
                (client, "resumes from", since, epoch)
            }
            SessionSeen::Acked { client, seq, epoch, .. } => (client, "acknowledges", seq, epoch),
            _ => continue,
        };
        let (Some(viewer), Some(screen)) = (facts.viewers.get(client), screens.of(*client)) else {
            continue;
        };
        let Some(progress) = clients.get_mut(client) else { continue };
        let epoch = epoch.as_deref();
        let floor = if progress.checked.0 == epoch { progress.checked.1 } else { 0 };
        progress.checked = (epoch, floor.max(*seq));
        let none = BTreeMap::new();
        let sent = frames.outboxes.get(&(viewer.user, progress.name, epoch)).unwrap_or(&none);
        let wrong = (floor < *seq).then(|| missing(facts, screen, sent, floor, *seq)).flatten();
        if let Some(wrong) = wrong {
            let message = format!("client-{client} {says} {seq}, and {wrong}");
            findings.push(finding(at_ms, Some(*client), message));
        }
    }
    findings
}

/// What of the numbers after `floor` up to `seq` the view does not show.
fn missing(
    facts: &Facts<'_>,
    screen: &Screen<'_>,
    sent: &Numbers<'_>,
    floor: u64,
    seq: u64,
) -> Option<String> {
    let is_history = |what: &Numbered| matches!(what, Numbered::History { .. });
    let histories =
        sent.range(floor + 1..=seq).filter(|(_, sent)| sent.iter().any(|what| is_history(what)));
    let from = histories.map(|(number, _)| *number).next_back();
    for number in from.unwrap_or(floor + 1)..=seq {
        let Some(sent) = sent.get(&number) else {
            return Some(format!("was never sent {number}"));
        };
        let is_shown = sent.iter().any(|what| match what {
            Numbered::History { rows, .. } => {
                rows.last().is_none_or(|row| shows(facts, screen, row))
            }
            Numbered::Row(row) | Numbered::Question { row, .. } => shows(facts, screen, row),
            Numbered::Accepted { input, .. } | Numbered::Rejected { input: Some(input), .. } => {
                !screen.pending.contains(input)
            }
            Numbered::Rejected { input: None, .. } | Numbered::Notice => true,
        });
        if !is_shown {
            return Some(format!("does not show {number}"));
        }
    }
    None
}

/// Whether a view shows a row, or has shown it and given it up because it is full.
fn shows(facts: &Facts<'_>, screen: &Screen<'_>, row: &ShownRow) -> bool {
    let oldest = screen.rows.first().and_then(|row| row.position);
    let is_older = row.position.zip(oldest).is_some_and(|(row, oldest)| row < oldest);
    let is_full = screen.rows.len() >= facts.limits.messages;
    screen.shows(row) || is_older || (oldest.is_none() && is_full) || is_base_and_shown(screen, row)
}

/// The server knows the position of a row and a view of the base contract does not.
fn is_base_and_shown(screen: &Screen<'_>, row: &ShownRow) -> bool {
    let same = |shown: &ShownRow| shown.position.is_none() && shown.digest == row.digest;
    screen.rows.iter().any(same)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::SessionSeen;

    /// The server has sent a history of one row, two rows and the verdict on `a`.
    fn then(next: Vec<SessionSeen>) -> Vec<SessionSeen> {
        let sent = vec![sent_row(1, 2, 2), sent_row(1, 3, 3), accepted(1, 4, "a", 4)];
        let first = vec![began(1), dialed(1, 0, None), connected(1, 0, None)];
        [first, welcome(1, "e", 1, 1), sent, next].concat()
    }

    #[test]
    fn a_number_is_acknowledged_when_it_is_shown() {
        let right = vec![
            history(1, 1..=1),
            acked(1, "e"),
            added(1, 2..=3),
            acked(3, "e"),
            pending(1, &[]),
            dialed(2, 4, Some("e")),
        ];
        assert_eq!(findings(&CHECKER, then(right)), [""; 0]);
        for wrong in [
            vec![acked(1, "e")],
            vec![history(1, 1..=1), acked(2, "e")],
            vec![history(1, 1..=1), added(1, 3..=3), dialed(2, 3, Some("e"))],
            vec![history(1, 1..=3), pending(1, &["a"]), acked(4, "e")],
            vec![history(1, 1..=3), acked(5, "e")],
            vec![history(1, 1..=3), acked(3, "another")],
        ] {
            assert_eq!(findings(&CHECKER, then(wrong.clone())).len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn a_view_that_begins_anew_has_nothing() {
        let again =
            |since| vec![history(1, 1..=3), began_with(1, true, 2, &[]), dialed(2, since, None)];
        assert_eq!(findings(&CHECKER, then(again(0))), [""; 0]);
        assert_eq!(findings(&CHECKER, then(again(3))).len(), 1);
    }
}
