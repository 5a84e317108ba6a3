//! Output is what the command wrote, and a number names the same bytes everywhere.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Message, TaskSeen};

/// From the pipe of the command to the record of the controller.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "output_is_as_written",
    statements: &["TK-4", "TK-11"],
    liveness: false,
    demands: "every number names one piece of what the command wrote, in order, wherever it is",
    check: Check::Tasks(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut names: BTreeMap<(&str, &str, u64), Vec<u64>> = BTreeMap::new();
    // Names of a store that was replaced: a run that nobody knows of may come again.
    let mut forgotten: BTreeSet<(&str, &str, u64)> = BTreeSet::new();
    for (_, at_ms, seen) in facts.seen() {
        match seen {
            TaskSeen::StoreReplaced { agent } => {
                let of_agent = names.keys().filter(|it| facts.agent_of(it.0) == Some(*agent));
                forgotten.extend(of_agent.copied());
            }
            TaskSeen::Bound { agent, attempt, stream, sequence, digest, as_written, .. } => {
                if !as_written {
                    let message = format!(
                        "{stream} {sequence} of {attempt} is not what the command wrote there"
                    );
                    findings.push(finding(at_ms, Some(*agent), message));
                }
                let name = (attempt.as_str(), stream.as_str(), *sequence);
                let known = names.entry(name).or_default();
                if known.contains(digest) {
                    continue;
                }
                known.push(*digest);
                if known.len() > 1 && !forgotten.remove(&name) {
                    let message =
                        format!("{stream} {sequence} of {attempt} was bound to other bytes");
                    findings.push(finding(at_ms, Some(*agent), message));
                }
            }
            TaskSeen::Said {
                agent,
                attempt,
                message: Message::Output { stream, sequence, digest, .. },
                ..
            } => {
                let name = (attempt.as_str(), stream.as_str(), *sequence);
                if names.get(&name).is_some_and(|bound| !bound.contains(digest)) {
                    let message = format!(
                        "agent-{agent} sent other bytes as {stream} {sequence} of {attempt}"
                    );
                    findings.push(finding(at_ms, Some(*agent), message));
                }
            }
            _ => {}
        }
    }
    for (attempt, end) in &facts.ends {
        let agent = facts.agent_of(attempt);
        for (stream, name) in end.streams.iter().zip(["stdout", "stderr"]) {
            for (sequence, digest) in &stream.pieces {
                let bound = names.get(&(*attempt, name, *sequence));
                if !bound.is_some_and(|bound| bound.contains(digest)) {
                    let message =
                        format!("the record has other bytes as {name} {sequence} of {attempt}");
                    findings.push(finding(facts.end_ms, agent, message));
                }
            }
            let pieces = stream.pieces.iter().map(|(sequence, _)| (*sequence, *sequence));
            let mut parts: Vec<_> = pieces.chain(stream.lost.iter().copied()).collect();
            parts.sort_unstable();
            let mut next = 1;
            let whole = parts.iter().all(|(from, to)| {
                let fits = *from == next && to >= from;
                next = to + 1;
                fits
            });
            if !whole || next != stream.highest + 1 {
                let message = format!(
                    "the record has {name} of {attempt} up to {}, and not each number of it once",
                    stream.highest
                );
                findings.push(finding(facts.end_ms, agent, message));
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

    fn end(pieces: &[(u64, u64)], lost: &[(u64, u64)], highest: u64) -> TaskSeen {
        let mut end = attempt_end("final", None);
        end.streams[0].pieces = pieces.to_vec();
        end.streams[0].lost = lost.to_vec();
        end.streams[0].highest = highest;
        task_end(vec![end])
    }

    #[test]
    fn a_number_names_the_same_bytes_in_the_store_on_the_wire_and_in_the_record() {
        let same = vec![bound(1, 7), said(1, piece(1, 7, false)), end(&[(1, 7)], &[], 1)];
        assert_eq!(tasks(&CHECKER, same), [""; 0]);
        assert_eq!(tasks(&CHECKER, vec![bound(1, 7), said(1, piece(1, 8, false))]).len(), 1);
        assert_eq!(tasks(&CHECKER, vec![bound(1, 7), bound(1, 8)]).len(), 1);
        assert_eq!(tasks(&CHECKER, vec![bound(1, 7), end(&[(1, 8)], &[], 1)]).len(), 1);
        assert_eq!(tasks(&CHECKER, vec![end(&[(1, 8)], &[], 1)]).len(), 1);
    }

    #[test]
    fn pieces_and_holes_are_all_numbers_once() {
        let bound = || vec![bound(1, 7), bound(4, 7)];
        let with = |end| bound().into_iter().chain([end]).collect();
        assert_eq!(tasks(&CHECKER, with(end(&[(1, 7), (4, 7)], &[(2, 3)], 4))), [""; 0]);
        assert_eq!(tasks(&CHECKER, with(end(&[(1, 7), (4, 7)], &[(2, 2)], 4))).len(), 1);
        assert_eq!(tasks(&CHECKER, with(end(&[(1, 7), (4, 7)], &[(1, 3)], 4))).len(), 1);
        assert_eq!(tasks(&CHECKER, with(end(&[(1, 7)], &[], 4))).len(), 1);
    }

    #[test]
    fn other_bytes_than_the_command_wrote_are_found_where_they_are_bound() {
        let TaskSeen::Bound { agent, attempt, stream, sequence, digest, bytes, .. } = bound(1, 7)
        else {
            panic!("a piece is bound")
        };
        let as_written = false;
        let wrong = TaskSeen::Bound { agent, attempt, stream, sequence, digest, bytes, as_written };
        assert_eq!(tasks(&CHECKER, vec![wrong]).len(), 1);
    }
}
