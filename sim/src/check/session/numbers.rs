//! On a connection, numbers ascend without a hole.

use std::collections::BTreeMap;

use super::{Check, Checker, Facts, Finding, Peer, finding};
use crate::history::{Conn, Numbered, SessionSeen};

/// From what the client has, or from its history.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "numbers_ascend",
    statements: &["SE-1", "SE-4", "SE-6"],
    liveness: false,
    demands: "a connection begins with the verdict and with what is missed, or a history, and then \
              the status; its numbers ascend one by one",
    check: Check::Session(check),
};

/// What was sent on a connection.
#[derive(Default)]
struct Line {
    /// Whether there was a verdict, and where the replay or the history ends.
    caught_up_at: Option<u64>,
    /// Whether a history has to be the first numbered frame.
    wants_history: bool,
    last: Option<u64>,
    greeted: bool,
}

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut lines: BTreeMap<Conn, Line> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        let (conn, wrong) = match seen {
            SessionSeen::Verdict { conn, verdict, to, .. } => {
                let line = lines.entry(*conn).or_default();
                let late = line.last.is_some() || line.greeted || line.caught_up_at.is_some();
                line.caught_up_at = Some(*to);
                line.wants_history = verdict.is_history();
                (conn, late.then(|| "the verdict is not the first frame".to_owned()))
            }
            SessionSeen::Sent { conn, seq, what } => {
                let Some(peer) = facts.peers.get(conn) else { continue };
                (conn, lines.entry(*conn).or_default().wrong(peer, *seq, what))
            }
            SessionSeen::Greeted { conn, .. } => {
                let Some(peer) = facts.peers.get(conn) else { continue };
                let line = lines.entry(*conn).or_default();
                line.greeted = true;
                let reached = line.last.unwrap_or(peer.since);
                let early = match line.caught_up_at {
                    Some(to) => reached < to,
                    None => peer.extension,
                };
                (conn, early.then(|| "the status came before what was missed".to_owned()))
            }
            _ => continue,
        };
        if let Some(wrong) = wrong {
            let name = facts.peers.get(conn).map_or("somebody", |peer| peer.name);
            let message = format!("on connection {conn} of {name}: {wrong}");
            findings.push(finding(at_ms, None, message));
        }
    }
    findings
}

impl Line {
    /// What is wrong with the next frame.
    fn wrong(&mut self, peer: &Peer<'_>, seq: u64, what: &Numbered) -> Option<String> {
        let before = self.last.replace(seq);
        let is_history = matches!(what, Numbered::History { .. });
        let caught_up_at = self.caught_up_at.unwrap_or(0);
        if peer.extension && self.caught_up_at.is_none() {
            return Some(format!("{seq} came before the verdict"));
        }
        match before {
            None if is_history => {
                let own = !peer.extension || (self.wants_history && seq == caught_up_at);
                (!own).then(|| format!("a history under {seq}, of which the verdict says nothing"))
            }
            None if self.wants_history => Some(format!("{seq} came instead of a history")),
            None if seq != peer.since + 1 => {
                Some(format!("{seq} is the first number for a client at {}", peer.since))
            }
            Some(_) if is_history => Some(format!("a history under {seq} is not the first frame")),
            Some(before) if seq != before + 1 => Some(format!("{seq} follows {before}")),
            _ if peer.extension && seq > caught_up_at && !self.greeted => {
                Some(format!("{seq} came before the status"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use gapless::session::wire::CursorVerdict as V;

    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::SessionSeen;

    #[test]
    fn a_history_or_a_replay_then_the_status_then_what_is_new() {
        let new = [vec![connected(1, 0, None)], welcome(1, "e", 1, 1), vec![sent_row(1, 2, 2)]];
        let back = vec![
            connected(2, 2, Some("e")),
            verdict(2, "e", V::Replay, 3..=4),
            sent_row(2, 3, 3),
            sent_row(2, 4, 4),
            greeted(2),
            sent_row(2, 5, 5),
        ];
        let right = [new.concat(), back].concat();
        assert_eq!(findings(&CHECKER, right.clone()), [""; 0]);
        for without in [1, 2, 3, 6, 7, 8, 9] {
            let mut wrong = right.clone();
            wrong.remove(without);
            assert!(!findings(&CHECKER, wrong).is_empty(), "without {without}");
        }
        for first in [7, 8, 9] {
            let mut wrong: Vec<SessionSeen> = right.clone();
            wrong.swap(first, first + 1);
            assert!(!findings(&CHECKER, wrong).is_empty(), "{first} after its successor");
        }
    }

    #[test]
    fn a_number_does_not_come_twice() {
        let entries = vec![sent_row(1, 2, 2), sent_row(1, 2, 2)];
        let entries = [vec![connected(1, 0, None)], welcome(1, "e", 1, 1), entries].concat();
        assert_eq!(findings(&CHECKER, entries).len(), 1);
    }
}
