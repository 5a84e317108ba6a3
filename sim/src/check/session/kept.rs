//! A client keeps what the user says before it sends it, and sends it in order.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Conn, SessionSeen};

/// So that it survives a restart of the client.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "kept_before_sent",
    statements: &["SE-5"],
    liveness: false,
    demands: "an input is durable at the client before it is sent, and on every connection what \
              was sent first before comes first",
    check: Check::Session(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut kept: BTreeSet<(u32, &str)> = BTreeSet::new();
    // In which order inputs were sent for the first time.
    let mut ranks: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    // What was sent on each connection.
    let mut sent: BTreeMap<(u32, Conn), BTreeSet<usize>> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        match seen {
            SessionSeen::Kept { client, input } => {
                kept.insert((*client, input));
            }
            SessionSeen::StoreReplaced { client } => kept.retain(|(of, _)| of != client),
            SessionSeen::Began { client, in_flight, .. } => {
                kept.extend(in_flight.iter().map(|input| (*client, input.as_str())));
            }
            SessionSeen::InputSent { client, conn, input } => {
                if !kept.contains(&(*client, input.as_str())) {
                    let message = format!("client-{client} sent {input} before it was stored");
                    findings.push(finding(at_ms, Some(*client), message));
                }
                let next = ranks.len();
                let rank = *ranks.entry((*client, input)).or_insert(next);
                let sent = sent.entry((*client, *conn)).or_default();
                let later = sent.last().is_some_and(|last| *last > rank);
                if sent.insert(rank) && later {
                    let message = format!(
                        "client-{client} sent {input} on connection {conn} after what was said later"
                    );
                    findings.push(finding(at_ms, Some(*client), message));
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

    #[test]
    fn what_is_sent_before_it_is_stored_is_found() {
        let right = vec![kept("a"), input_sent(1, "a"), input_sent(1, "a")];
        assert_eq!(findings(&CHECKER, right), [""; 0]);
        assert_eq!(findings(&CHECKER, vec![input_sent(1, "a"), kept("a")]).len(), 1);
        let restarted = vec![began_with(1, true, 2, &["a"]), input_sent(1, "a")];
        assert_eq!(findings(&CHECKER, restarted), [""; 0]);
    }

    #[test]
    fn what_was_sent_first_goes_first_again() {
        let with = |again: [&str; 2]| {
            let first = vec![kept("a"), kept("b"), input_sent(1, "a"), input_sent(1, "b")];
            [first, again.map(|input| input_sent(2, input)).to_vec()].concat()
        };
        assert_eq!(findings(&CHECKER, with(["a", "b"])), [""; 0]);
        assert_eq!(findings(&CHECKER, with(["b", "a"])).len(), 1);
    }
}
