//! What a server sends on a connection is in order and whole.

use std::collections::BTreeMap;

use super::{Check, Checker, Facts, Finding};
use crate::history::Seen;

/// On each connection numbers follow one another without a hole, from where the server said that a
/// replay begins; the base contract has no word for that and is not judged here. A replay has what its verdict promised, is counted
/// right, and nothing newer is on the wire before it has ended. What is lost on the way to the
/// client's process, or comes twice there, is not the server's.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "replay_is_in_order",
    statements: &["CORE-5", "CORE-7b", "EV-5", "EV-7"],
    liveness: false,
    demands: "a server sends a replay oldest first, whole, and before anything newer",
    check: Check::Events(check),
};

/// What came on one connection.
#[derive(Default)]
struct Wire {
    /// `None` before the first replay.
    last: Option<u64>,
    replay: Option<Replay>,
}

struct Replay {
    to: u64,
    events: u64,
}

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wires: BTreeMap<(u32, u64), Wire> = BTreeMap::new();
    for entry in &facts.history.entries {
        let (problem, client) = match &entry.what {
            Seen::Arrived { client, connection, sequence } => {
                let wire = wires.entry((*client, *connection)).or_default();
                (wire.event(*sequence), client)
            }
            Seen::ReplayBegan { client, connection, from, to, .. } => {
                let wire = wires.entry((*client, *connection)).or_default();
                wire.last = Some(from - 1);
                wire.replay = Some(Replay { to: *to, events: 0 });
                continue;
            }
            Seen::ReplayEnded { client, connection, to, replayed } => {
                let wire = wires.entry((*client, *connection)).or_default();
                (wire.ended(*to, *replayed), client)
            }
            Seen::Skipped { client, connection, to, .. } => {
                if let Some(last) = &mut wires.entry((*client, *connection)).or_default().last {
                    *last = *to;
                }
                continue;
            }
            _ => continue,
        };
        if let Some(problem) = problem {
            let message = format!("the server sent to client-{client} {problem}");
            findings.push(Finding { at_ms: entry.at_ms, client: Some(*client), message });
        }
    }
    findings
}

impl Wire {
    fn event(&mut self, sequence: u64) -> Option<String> {
        let last = self.last?;
        self.last = Some(sequence);
        if let Some(replay) = &mut self.replay {
            replay.events += 1;
            if sequence > replay.to {
                let to = replay.to;
                return Some(format!("event {sequence} before a replay up to {to} had ended"));
            }
        }
        (sequence != last + 1).then(|| format!("event {sequence} after event {last}"))
    }

    fn ended(&mut self, to: u64, replayed: u64) -> Option<String> {
        let last = self.last?;
        let replay = self.replay.take()?;
        if last != replay.to || to != replay.to {
            return Some(format!("the end of a replay up to {} after event {last}", replay.to));
        }
        (replayed != replay.events)
            .then(|| format!("a replay of {} events that it counts as {replayed}", replay.events))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::Seen;

    fn arrived(sequence: u64) -> Seen {
        Seen::Arrived { client: 1, connection: 1, sequence }
    }

    fn began(from: u64, to: u64) -> Seen {
        Seen::ReplayBegan { client: 1, connection: 1, epoch: "e1".to_owned(), from, to }
    }

    fn ended(to: u64, replayed: u64) -> Seen {
        Seen::ReplayEnded { client: 1, connection: 1, to, replayed }
    }

    #[test]
    fn a_replay_that_is_whole_and_in_order_is_right_and_may_begin_anew() {
        let whole = vec![began(7, 8), arrived(7), arrived(8), began(5, 8)];
        let whole = whole.into_iter().chain((5..=8).map(arrived)).chain([ended(8, 4), arrived(9)]);
        assert_eq!(findings(&CHECKER, whole.collect()), [""; 0]);
        assert_eq!(findings(&CHECKER, vec![began(5, 4), ended(4, 0), arrived(5)]), [""; 0]);
    }

    #[test]
    fn a_live_event_before_the_end_is_found() {
        let said = findings(&CHECKER, vec![began(1, 2), arrived(1), arrived(3)]);
        assert_eq!(said, ["the server sent to client-1 event 3 before a replay up to 2 had ended"]);
    }

    #[test]
    fn a_replay_newest_first_or_with_a_hole_is_found() {
        let newest_first = findings(&CHECKER, vec![began(1, 2), arrived(2), arrived(1)]);
        assert_eq!(newest_first[0], "the server sent to client-1 event 2 after event 0");
        let short = findings(&CHECKER, vec![began(1, 2), arrived(1), ended(2, 1)]);
        assert_eq!(
            short,
            ["the server sent to client-1 the end of a replay up to 2 after event 1"]
        );
    }

    #[test]
    fn a_wrong_count_is_found() {
        let said = findings(&CHECKER, vec![began(1, 1), arrived(1), ended(1, 2)]);
        assert_eq!(said, ["the server sent to client-1 a replay of 1 events that it counts as 2"]);
    }

    #[test]
    fn a_declared_hole_is_none() {
        let skipped = Seen::Skipped { client: 1, connection: 1, from: 2, to: 4 };
        assert_eq!(findings(&CHECKER, vec![began(1, 5), arrived(1), skipped, arrived(5)]), [""; 0]);
    }
}
