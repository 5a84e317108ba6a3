//! An attempt has one result, and it is true.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Message, TaskSeen};

/// Over all transports and lives of the agent.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "one_result",
    statements: &["TK-3", "TK-13"],
    liveness: false,
    demands: "an attempt has one result under one message id, and it says how the command ended",
    check: Check::Tasks(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut results: BTreeMap<&str, BTreeSet<(&str, u64)>> = BTreeMap::new();
    let mut codes: BTreeMap<&str, (i64, u64)> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        let (attempt, message_id, digest) = match seen {
            TaskSeen::Said { attempt, message: Message::Final { message_id, digest }, .. }
            | TaskSeen::Came { attempt, message_id, digest } => (attempt, message_id, digest),
            TaskSeen::Ended { attempt, exit_code, error_bytes, .. } => {
                codes.insert(attempt, (*exit_code, *error_bytes));
                continue;
            }
            _ => continue,
        };
        let known = results.entry(attempt).or_default();
        if !known.insert((message_id, *digest)) {
            continue;
        }
        let agent = facts.agent_of(attempt);
        // An older state of a store may end an attempt otherwise than the newer one.
        let stores = agent.and_then(|agent| facts.stores_replaced.get(&agent)).map_or(0, Vec::len);
        if known.len() > 1 + stores {
            let message = format!("{attempt} got a second result at {at_ms} ms, as `{message_id}`");
            findings.push(finding(at_ms, agent, message));
        }
    }
    for (attempt, end) in &facts.ends {
        let Some(exit_code) = end.exit_code.filter(|_| !end.interrupted) else { continue };
        let agent = facts.agent_of(attempt);
        let message = match codes.get(attempt) {
            // Room for the result is reserved when the attempt is taken.
            Some((code, error)) if *code == exit_code => {
                let room = (*error).min(facts.error_room);
                if end.error_bytes >= room {
                    continue;
                }
                let said = end.error_bytes;
                format!("{attempt} said {error} bytes of what went wrong; the record has {said}")
            }
            Some((code, _)) => {
                format!("{attempt} ended with code {code}, and the record has {exit_code}")
            }
            None => format!("the record has it that {attempt} ended, and it did not"),
        };
        findings.push(finding(facts.end_ms, agent, message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;

    #[test]
    fn a_result_that_is_said_again_is_the_same_one() {
        let again = vec![said(1, result("m", 7)), said(2, result("m", 7))];
        assert_eq!(tasks(&CHECKER, again), [""; 0]);
        let renamed = vec![said(1, result("m", 7)), said(2, result("n", 7))];
        assert_eq!(tasks(&CHECKER, renamed).len(), 1);
        let changed = vec![said(1, result("m", 7)), said(2, result("m", 8))];
        assert_eq!(tasks(&CHECKER, changed).len(), 1);
    }

    #[test]
    fn the_record_has_the_code_of_the_command() {
        let end = || task_end(vec![attempt_end("final", Some(7))]);
        assert_eq!(tasks(&CHECKER, vec![ended(0, 0), end()]), [""; 0]);
        assert_eq!(tasks(&CHECKER, vec![ended(3, 0), end()]).len(), 1);
        assert_eq!(tasks(&CHECKER, vec![end()]).len(), 1);
    }
}
