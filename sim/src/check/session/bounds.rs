//! What grows has a bound.

use std::collections::{BTreeMap, BTreeSet};

use gapless::session::conversation::Kind;

use super::{Check, Checker, Facts, Finding, Screens, finding};
use crate::history::{Numbered, SessionSeen};

/// Queues, rings, histories and views.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "session_bounds",
    statements: &["SE-2", "SE-5", "SE-7", "CORE-12"],
    liveness: false,
    demands: "no more messages wait for their turn, are replayed, are in a history, are shown, or \
              are in flight at a client than may be",
    check: Check::Session(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut screens = Screens::default();
    let mut known: BTreeSet<(u32, u64)> = BTreeSet::new();
    let mut waiting: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    let limits = &facts.limits;
    for (_, at_ms, seen) in facts.seen() {
        screens.see(seen);
        let (client, what, count, max) = match seen {
            SessionSeen::Durable { user, row } => {
                let is_message = row.kind == Kind::Message && row.input.is_some();
                if !is_message || !known.insert((*user, row.position)) {
                    continue;
                }
                let waiting = waiting.entry(*user).or_default();
                waiting.insert(row.position);
                let what = format!("messages of user-{user} wait for their turn");
                (None, what, waiting.len(), limits.queue)
            }
            SessionSeen::Begun { user, position } | SessionSeen::Doubted { user, position } => {
                waiting.entry(*user).or_default().remove(position);
                continue;
            }
            SessionSeen::Verdict { conn, verdict, from, to, .. } if !verdict.is_history() => {
                let count = usize::try_from((to + 1).saturating_sub(*from)).unwrap_or(usize::MAX);
                let max = usize::try_from(limits.ring).unwrap_or(usize::MAX);
                (None, format!("frames are replayed on connection {conn}"), count, max)
            }
            SessionSeen::Sent { conn, what: Numbered::History { rows, .. }, .. } => {
                let what = format!("rows are in the history of connection {conn}");
                (None, what, rows.len(), limits.history_messages)
            }
            SessionSeen::Shown { client, change } => {
                let Some(screen) = screens.of(*client) else { continue };
                match (&change.rows, &change.pending) {
                    (Some(_), _) if screen.rows.len() > limits.messages => {
                        let what = format!("rows are shown by client-{client}");
                        (Some(*client), what, screen.rows.len(), limits.messages)
                    }
                    (_, Some(pending)) => {
                        let what = format!("inputs are in flight at client-{client}");
                        (Some(*client), what, pending.len(), limits.in_flight)
                    }
                    _ => continue,
                }
            }
            _ => continue,
        };
        if count > max {
            findings.push(finding(at_ms, client, format!("{count} {what}, and {max} may")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use gapless::session::wire::CursorVerdict;

    use super::super::Limits;
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::{Seen, SessionSeen};

    fn found(entries: Vec<SessionSeen>) -> usize {
        let limits = Limits {
            queue: 2,
            ring: 3,
            in_flight: 2,
            history_messages: 2,
            messages: 3,
            ..Limits::NONE
        };
        bounded(&CHECKER, entries.into_iter().map(Seen::Session).collect(), limits).len()
    }

    #[test]
    fn what_is_beyond_its_bound_is_found() {
        let queue = |count| (1..=count).map(|nth| durable(input_row(nth, "a"))).collect();
        assert_eq!((found(queue(2)), found(queue(3))), (0, 1));
        let begun = vec![durable(input_row(1, "a")), begun(1), durable(input_row(2, "b"))];
        assert_eq!(found([begun, vec![durable(input_row(3, "c"))]].concat()), 0);
        let replay = |to| {
            let answer = verdict(2, "e", CursorVerdict::Replay, 2..=to);
            vec![connected(2, 1, Some("e")), answer]
        };
        assert_eq!((found(replay(4)), found(replay(5))), (0, 1));
        let history = |rows| vec![connected(1, 0, None), sent_history(1, 1, 1..=rows)];
        assert_eq!((found(history(2)), found(history(3))), (0, 1));
        let view = |rows| vec![began(1), added(1, 1..=rows)];
        assert_eq!((found(view(3)), found(view(4))), (0, 1));
        let flight = |inputs: &[&str]| vec![began(1), pending(1, inputs)];
        assert_eq!((found(flight(&["a", "b"])), found(flight(&["a", "b", "c"]))), (0, 1));
    }
}
