//! Output that is not in the record is declared lost.

use std::collections::BTreeMap;

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::TaskSeen;

/// For attempts with a result, once nothing waits in the agent's store any more.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "loss_is_declared",
    statements: &["TK-4", "TK-5", "TK-10"],
    liveness: false,
    demands: "of an attempt with a result, all output is in the record or declared lost",
    check: Check::Tasks(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Per attempt and stream: the highest number, and how many bytes have one.
    let mut bound: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    let mut wrote: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    let mut nothing_waits = Vec::new();
    for (_, _, seen) in facts.seen() {
        match seen {
            TaskSeen::Bound { attempt, stream, sequence, bytes, .. } => {
                let entry = bound.entry((attempt, stream)).or_default();
                entry.0 = entry.0.max(*sequence);
                entry.1 += bytes;
            }
            TaskSeen::Ended { attempt, wrote: bytes, .. } => {
                wrote.insert(attempt, *bytes);
            }
            TaskSeen::AgentEnd { agent, results, output: 0, .. } if results.is_empty() => {
                nothing_waits.push(*agent);
            }
            _ => {}
        }
    }
    for (attempt, end) in &facts.ends {
        let Some(agent) = facts.agent_of(attempt) else { continue };
        let replaced = facts.store_was_replaced(agent) || !facts.record_replaced.is_empty();
        if end.result.is_none() || replaced || !nothing_waits.contains(&agent) {
            continue;
        }
        let streams = end.streams.iter().zip(["stdout", "stderr"]).zip(end.truncated);
        for (nth, ((stream, name), truncated)) in streams.enumerate() {
            let (number, bytes) = bound.get(&(*attempt, name)).copied().unwrap_or_default();
            if stream.highest < number && !truncated {
                let message = format!(
                    "{name} of {attempt} has {number} pieces; the record has {} and knows of no \
                     loss",
                    stream.highest
                );
                findings.push(finding(facts.end_ms, Some(agent), message));
            }
            // With the extension the end of each stream is known.
            if facts.extension && stream.highest < number && truncated {
                let message = format!(
                    "{name} of {attempt} has {number} pieces; the record does not know which \
                     after {} are lost",
                    stream.highest
                );
                findings.push(finding(facts.end_ms, Some(agent), message));
            }
            let written = wrote.get(attempt).map_or(0, |wrote| wrote[nth]);
            if !end.interrupted && bytes < written && !truncated {
                let message = format!(
                    "{attempt} wrote {written} bytes to {name}; only {bytes} got a number, and \
                     the result says nothing of it"
                );
                findings.push(finding(facts.end_ms, Some(agent), message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::TaskSeen;

    fn entries(highest: u64, truncated: bool, wrote: u64) -> Vec<TaskSeen> {
        let mut end = attempt_end("final", Some(7));
        end.streams[0].highest = highest;
        end.truncated[0] = truncated;
        vec![
            submitting(),
            bound(1, 7),
            bound(2, 8),
            ended(0, wrote),
            task_end(vec![end]),
            agent_end(),
        ]
    }

    #[test]
    fn everything_is_there() {
        assert_eq!(tasks(&CHECKER, entries(2, false, 20)), [""; 0]);
    }

    #[test]
    fn a_tail_that_is_missing_is_found() {
        assert_eq!(tasks(&CHECKER, entries(1, false, 20)).len(), 1);
        assert_eq!(tasks(&CHECKER, entries(1, true, 20)).len(), 1);
    }

    #[test]
    fn bytes_that_never_got_a_number_are_found() {
        assert_eq!(tasks(&CHECKER, entries(2, false, 30)).len(), 1);
        assert_eq!(tasks(&CHECKER, entries(2, true, 30)), [""; 0]);
    }
}
