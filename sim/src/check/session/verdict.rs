//! The answer to a cursor is true.

use std::collections::BTreeMap;

use gapless::session::wire::CursorVerdict;

use super::{Check, Checker, Facts, Finding, Peer, finding};
use crate::history::{Conn, Numbered, SessionSeen};

/// For clients of the extension, which are told.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "verdict_is_true",
    statements: &["SE-1", "SE-3", "SE-7", "SE-11", "CORE-4"],
    liveness: false,
    demands: "a client is called up to date, or given a replay, only from its place in its outbox \
              and with nothing left out; a history has a cause; what was acknowledged does not \
              come again",
    check: Check::Session(check),
};

/// What was seen of an outbox.
#[derive(Default)]
struct Outbox<'a> {
    /// Whose it is, and in which life of the server.
    owner: Option<(u32, &'a str, u64)>,
    /// The highest number that was sent.
    last: u64,
    /// When it ended with which number, as far as verdicts told.
    ended_at: BTreeMap<u64, u64>,
    /// The number of the newest history.
    history: u64,
    /// The highest number that was acknowledged where it was sent.
    acked: u64,
}

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut outboxes: BTreeMap<&str, Outbox<'_>> = BTreeMap::new();
    // Per connection: its epoch, and the highest number that was sent on it.
    let mut connections: BTreeMap<Conn, (&str, u64)> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        match seen {
            SessionSeen::Verdict { conn, epoch, verdict, from, to } => {
                let Some(peer) = facts.peers.get(conn) else { continue };
                let outbox = outboxes.entry(epoch).or_default();
                let owner = (peer.user, peer.name, conn.life);
                let first = *outbox.owner.get_or_insert(owner);
                if first != owner {
                    let message = format!("{} and {} were given one epoch", first.1, peer.name);
                    findings.push(finding(at_ms, None, message));
                }
                let range = (*from, *to);
                if let Some(wrong) = wrong(facts, outbox, peer, epoch, *verdict, range, at_ms) {
                    let message = format!(
                        "{} at {} was answered `{verdict:?}`, {from} to {to}, on connection {conn}: \
                         {wrong}",
                        peer.name, peer.since
                    );
                    findings.push(finding(at_ms, None, message));
                }
                outbox.ended_at.insert(*to, at_ms);
                connections.insert(*conn, (epoch, from - 1));
            }
            SessionSeen::Sent { conn, seq, what } => {
                let Some((epoch, sent)) = connections.get_mut(conn) else { continue };
                let outbox = outboxes.entry(epoch).or_default();
                if *seq <= outbox.acked {
                    let message = format!("{seq} was sent again, and it was acknowledged");
                    findings.push(finding(at_ms, None, message));
                }
                *sent = (*sent).max(*seq);
                outbox.last = outbox.last.max(*seq);
                if matches!(what, Numbered::History { .. }) {
                    outbox.history = *seq;
                }
            }
            SessionSeen::AckCame { conn, seq, epoch: Some(of) } => {
                let Some((epoch, sent)) = connections.get(conn) else { continue };
                let outbox = outboxes.entry(epoch).or_default();
                if of == epoch && seq <= sent {
                    outbox.acked = outbox.acked.max(*seq);
                }
            }
            _ => {}
        }
    }
    findings
}

fn wrong(
    facts: &Facts<'_>,
    outbox: &Outbox<'_>,
    peer: &Peer<'_>,
    epoch: &str,
    verdict: CursorVerdict,
    (from, to): (u64, u64),
    at_ms: u64,
) -> Option<String> {
    let (since, limits) = (peer.since, &facts.limits);
    let is_own = since > 0 && peer.epoch == Some(epoch);
    if verdict.is_history() {
        if from != to || to <= outbox.last {
            return Some(format!("a history under a number that is not above {}", outbox.last));
        }
    } else if !is_own {
        return Some("its cursor is of another outbox".to_owned());
    } else if from != since + 1 || to < outbox.last {
        return Some(format!("what follows {since} ends with {}", outbox.last));
    } else if since < outbox.history {
        return Some(format!("there was a history under {}, which is not kept", outbox.history));
    }
    match verdict {
        CursorVerdict::UpToDate if to != since => Some("and yet something follows".to_owned()),
        CursorVerdict::Replay if to <= since => Some("and nothing follows".to_owned()),
        CursorVerdict::Unknown if is_own && outbox.last > 0 => Some("it is known".to_owned()),
        CursorVerdict::OtherEpoch if is_own => Some("the epoch is the same".to_owned()),
        CursorVerdict::Ahead if since <= outbox.last => Some("it is not".to_owned()),
        CursorVerdict::TooOld => {
            let missed = to.saturating_sub(since + 1);
            // What is missed was not there yet.
            let young_at = outbox.ended_at.range(..=since).map(|(_, at)| *at).max().unwrap_or(0);
            let is_kept = is_own
                && since >= outbox.history.max(outbox.acked)
                && missed <= limits.ring
                && !limits.ring_bytes_matter
                && at_ms - young_at < limits.ring_age_ms;
            is_kept.then(|| format!("nothing can have thrown away the {missed} frames after it"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use gapless::session::wire::CursorVerdict as V;

    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::SessionSeen;

    /// An outbox `e` in which the client was sent 1 (a history), 2 and 3.
    fn then(next: Vec<SessionSeen>) -> Vec<SessionSeen> {
        let first = vec![connected(1, 0, None)];
        let rows = vec![sent_row(1, 2, 2), sent_row(1, 3, 3), left(1, None)];
        [first, welcome(1, "e", 1, 1), rows, next].concat()
    }

    fn answered(since: u64, epoch: &str, answer: V, from: u64, to: u64) -> Vec<SessionSeen> {
        then(vec![connected(2, since, Some(epoch)), verdict(2, "e", answer, from..=to)])
    }

    #[test]
    fn true_answers_pass() {
        for (since, answer, from, to) in [
            (3, V::UpToDate, 4, 3),
            (2, V::Replay, 3, 3),
            (3, V::Replay, 4, 5),
            (9, V::Ahead, 4, 4),
            (1, V::TooOld, 6, 6),
        ] {
            let entries = answered(since, "e", answer, from, to);
            assert_eq!(findings(&CHECKER, entries), [""; 0], "{since} {answer:?}");
        }
        assert_eq!(findings(&CHECKER, answered(3, "old", V::OtherEpoch, 4, 4)), [""; 0]);
    }

    #[test]
    fn false_answers_are_found() {
        for (since, epoch, answer, from, to) in [
            (2, "e", V::UpToDate, 3, 2),
            (3, "old", V::UpToDate, 4, 3),
            (1, "e", V::Replay, 2, 2),
            (1, "e", V::Replay, 3, 3),
            (3, "old", V::Replay, 4, 4),
            (3, "e", V::OtherEpoch, 4, 4),
            (3, "e", V::Ahead, 4, 4),
            (2, "e", V::TooOld, 4, 4),
            (2, "e", V::Unknown, 4, 4),
            (9, "e", V::Ahead, 3, 3),
        ] {
            let entries = answered(since, epoch, answer, from, to);
            assert_eq!(findings(&CHECKER, entries).len(), 1, "{since} {answer:?}");
        }
    }

    #[test]
    fn what_an_acknowledgement_frees_is_not_missed_or_sent_again() {
        let acked = vec![ack_came(1, 3, "e"), connected(2, 2, Some("e"))];
        let too_old = [acked.clone(), vec![verdict(2, "e", V::TooOld, 4..=4)]].concat();
        assert_eq!(findings(&CHECKER, then(too_old)), [""; 0]);
        let again = [acked, vec![verdict(2, "e", V::Replay, 3..=3), sent_row(2, 3, 3)]].concat();
        assert_eq!(findings(&CHECKER, then(again)).len(), 1);
        let of_another = vec![ack_came(1, 3, "old"), connected(2, 2, Some("e"))];
        let too_old = [of_another, vec![verdict(2, "e", V::TooOld, 4..=4)]].concat();
        assert_eq!(findings(&CHECKER, then(too_old)).len(), 1);
    }

    #[test]
    fn an_epoch_belongs_to_one_outbox() {
        let other = vec![connected_as(2, 2, 0, None), verdict(2, "e", V::Unknown, 9..=9)];
        assert_eq!(findings(&CHECKER, then(other)).len(), 1);
    }
}
