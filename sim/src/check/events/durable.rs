//! What was acknowledged is in the log.

use std::collections::BTreeMap;

use super::{Check, Checker, Facts, Finding, name_events};
use crate::history::Seen;

/// At the end of the run the log holds every acknowledged event above its retention, and its
/// numbers have no hole. An event that an older copy of the log did not have when it took the
/// log's place need not be there.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "acknowledged_is_durable",
    statements: &["EV-1", "EV-2", "CORE-1", "CORE-7a"],
    liveness: false,
    demands: "an acknowledged event is in the log, and the log's numbers have no hole",
    check: Check::Events(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut stored: BTreeMap<u32, BTreeMap<u64, &str>> = BTreeMap::new();
    let mut ends = Vec::new();
    for entry in &facts.history.entries {
        match &entry.what {
            Seen::Stored { agent, sequence, key } => {
                stored.entry(*agent).or_default().insert(*sequence, key);
            }
            Seen::LogEnd { agent, oldest, head } => {
                ends.push((*agent, *oldest, *head, entry.at_ms))
            }
            _ => {}
        }
    }
    let mut findings = Vec::new();
    for (agent, oldest, head, at_ms) in ends {
        let none = BTreeMap::new();
        let stored = stored.get(&agent).unwrap_or(&none);
        let mut say = |message| findings.push(Finding { at_ms, client: None, message });
        let mut missing: Vec<_> = facts
            .stream(agent, facts.branches.current())
            .filter(|(sequence, key)| *sequence >= oldest && stored.get(sequence) != Some(key))
            .collect();
        missing.sort_unstable();
        if !missing.is_empty() {
            say(format!(
                "the log of agent-{agent} does not hold {}, which were acknowledged",
                name_events(missing)
            ));
        }
        if let Some(hole) = (oldest..=head).find(|sequence| !stored.contains_key(sequence)) {
            say(format!(
                "the log of agent-{agent} goes from {oldest} to {head} and has no event {hole}"
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::Seen;

    fn end(oldest: u64, head: u64) -> Seen {
        Seen::LogEnd { agent: 1, oldest, head }
    }

    #[test]
    fn an_acknowledged_event_that_is_not_in_the_log_is_found() {
        let said = findings(&CHECKER, vec![published(1), published(2), end(1, 1), stored(1)]);
        assert_eq!(said, ["the log of agent-1 does not hold 2 (k2), which were acknowledged"]);
    }

    #[test]
    fn a_hole_in_the_log_is_found() {
        let said = findings(&CHECKER, vec![end(1, 3), stored(1), stored(3)]);
        assert_eq!(said, ["the log of agent-1 goes from 1 to 3 and has no event 2"]);
    }

    #[test]
    fn what_retention_removed_need_not_be_there() {
        assert_eq!(findings(&CHECKER, vec![published(1), end(2, 2), stored(2)]), [""; 0]);
    }

    #[test]
    fn an_acknowledged_event_whose_number_another_one_has_is_found() {
        let said = findings(&CHECKER, vec![published_as(1, "k9", "e1"), end(1, 1), stored(1)]);
        assert_eq!(said, ["the log of agent-1 does not hold 1 (k9), which were acknowledged"]);
    }

    #[test]
    fn what_an_older_copy_did_not_have_need_not_be_there() {
        let gone = vec![published(1), published(2), replaced(1), end(1, 1), stored(1)];
        assert_eq!(findings(&CHECKER, gone), [""; 0]);
    }
}
