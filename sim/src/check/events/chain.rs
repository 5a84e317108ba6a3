//! What was published is what was handled, byte by byte.

use super::{Check, Checker, Facts, Finding};
use crate::history::Seen;

/// A run of events that an application took without being told of anything missing has the same
/// chain hash as the events of these numbers when they were published.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "chain_is_the_publishers",
    statements: &["CORE-1", "CORE-5", "EV-8"],
    liveness: false,
    demands: "the events of a run are handled as they were published: all, in order, unchanged",
    check: Check::Events(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in &facts.history.entries {
        let Seen::Chained { client, taken, published } = &entry.what else { continue };
        if published.is_some_and(|published| published != taken.hash) {
            let message = format!(
                "client-{client} was given other events from {} to {} than were published: their \
                 chain hash is {:x}",
                taken.from, taken.to, taken.hash
            );
            findings.push(Finding { at_ms: entry.at_ms, client: Some(*client), message });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::{Chain, Seen};

    fn chained(published: Option<u64>) -> Seen {
        Seen::Chained { client: 1, taken: Chain { from: 2, to: 9, hash: 7 }, published }
    }

    #[test]
    fn another_chain_is_found() {
        assert_eq!(findings(&CHECKER, vec![chained(Some(8))]).len(), 1);
    }

    #[test]
    fn the_same_chain_is_right() {
        assert_eq!(findings(&CHECKER, vec![chained(Some(7)), chained(None)]), [""; 0]);
    }
}
