//! One connection for an identity: the newest.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Conn, SessionSeen};

/// The code with which a connection is closed whose place another one took.
const SUPERSEDED: u16 = 4005;

/// And whose place was taken stays away.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "superseded_is_final",
    statements: &["SE-8"],
    liveness: false,
    demands: "a connection is superseded by one of the same client and no other, gets nothing any \
              more, and its client does not connect again by itself",
    check: Check::Session(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // The newest connection of each client's name.
    let mut newest: BTreeMap<(u32, &str), Conn> = BTreeMap::new();
    let mut gone: BTreeSet<Conn> = BTreeSet::new();
    let mut away: BTreeMap<u32, u64> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        match seen {
            SessionSeen::Connected { conn, .. } => {
                let Some(peer) = facts.peers.get(conn) else { continue };
                newest.insert((peer.user, peer.name), *conn);
            }
            SessionSeen::Left { conn, code } => {
                let Some(peer) = facts.peers.get(conn) else { continue };
                let by = newest.get(&(peer.user, peer.name)).filter(|by| *by != conn);
                let is_superseded = *code == Some(SUPERSEDED) && gone.insert(*conn);
                if is_superseded && by.is_none() && !is_earlier(facts, *conn) {
                    let message = format!(
                        "connection {conn} of {} was superseded, and there is no newer one",
                        peer.name
                    );
                    findings.push(finding(at_ms, None, message));
                }
                gone.insert(*conn);
            }
            SessionSeen::Sent { conn, seq, .. } if gone.contains(conn) => {
                let message = format!("{seq} was sent on connection {conn}, which was over");
                findings.push(finding(at_ms, None, message));
            }
            SessionSeen::Lost { client, code: Some(SUPERSEDED), .. } => {
                away.insert(*client, at_ms);
            }
            SessionSeen::Wanted { client } | SessionSeen::Began { client, .. } => {
                away.remove(client);
            }
            SessionSeen::Dialed { client, .. } => {
                if let Some(since) = away.remove(client) {
                    let message = format!(
                        "client-{client} connects again by itself, and was superseded at {since} ms"
                    );
                    findings.push(finding(at_ms, Some(*client), message));
                }
            }
            _ => {}
        }
    }
    findings
}

/// Whether a later attempt of the same view has connected before.
fn is_earlier(facts: &Facts<'_>, conn: Conn) -> bool {
    let Some((view, number)) = facts.peers.get(&conn).and_then(|peer| peer.attempt) else {
        return false;
    };
    let before = facts.peers.range(..conn).filter_map(|(_, peer)| peer.attempt);
    before.into_iter().any(|(of, other)| of == view && other > number)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;

    #[test]
    fn only_a_newer_connection_of_the_same_client_supersedes() {
        let closed =
            |by| vec![connected(1, 0, None), connected_as(by, 2, 0, None), left(1, Some(4005))];
        assert_eq!(findings(&CHECKER, closed(1)), [""; 0]);
        assert_eq!(findings(&CHECKER, closed(2)).len(), 1);
        let late = vec![connected(2, 0, None), left(2, Some(4005))];
        assert_eq!(findings(&CHECKER, late).len(), 1);
    }

    #[test]
    fn nothing_is_sent_after_the_end() {
        let after = vec![connected(1, 0, None), left(1, None), sent_row(1, 1, 1)];
        assert_eq!(findings(&CHECKER, after).len(), 1);
    }

    #[test]
    fn whose_place_was_taken_waits_for_the_user() {
        let wanted = crate::history::SessionSeen::Wanted { client: 1 };
        let lost = || vec![began(1), dialed(1, 0, None), lost(1, 4005)];
        assert_eq!(findings(&CHECKER, [lost(), vec![dialed(2, 0, None)]].concat()).len(), 1);
        assert_eq!(
            findings(&CHECKER, [lost(), vec![wanted, dialed(2, 0, None)]].concat()),
            [""; 0]
        );
    }
}
