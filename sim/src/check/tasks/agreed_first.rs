//! Nothing new passes before both sides agree, and nothing passes what is older.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Message, TaskSeen};

/// Per connection.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "agreed_first",
    statements: &["TK-7", "TK-8", "TK-10"],
    liveness: false,
    demands: "a connection begins with a hello, nothing is delivered, and no output or result \
              sent, before its answer; then output comes in order, and a hole is declared",
    check: Check::Tasks(check),
};

/// What was declared lost, by agent, attempt and stream: inclusive ranges.
type Holes<'a> = BTreeMap<(u32, &'a str, &'a str), Vec<(u64, u64)>>;

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut greeted: BTreeSet<(u32, u64)> = BTreeSet::new();
    // Its hello did not name everything.
    let mut cut: BTreeSet<(u32, u64)> = BTreeSet::new();
    let mut answered: BTreeSet<(u32, u64)> = BTreeSet::new();
    // The agent has heard the answer.
    let mut agreed: BTreeSet<(u32, u64)> = BTreeSet::new();
    // What the controller is known to have of a stream.
    let mut had: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    // What the agent was ever told that the controller has, whatever became of the record since.
    let mut acked: BTreeMap<u32, BTreeMap<(&str, &str), u64>> = BTreeMap::new();
    // The highest number of a stream on a connection.
    let mut sent: BTreeMap<(u32, u64, &str, &str), u64> = BTreeMap::new();
    // What was declared lost.
    let mut holes: Holes<'_> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        match seen {
            // Another copy may still have it.
            TaskSeen::StoreReplaced { agent } => holes.retain(|(of, ..), _| of != agent),
            TaskSeen::Hello { agent, connection, complete, .. } => {
                greeted.insert((*agent, *connection));
                if !complete {
                    cut.insert((*agent, *connection));
                }
            }
            TaskSeen::Answered { agent, connection, wanted, refused, lost, changed, .. } => {
                answered.insert((*agent, *connection));
                if !refused && !lost {
                    agreed.insert((*agent, *connection));
                }
                // A fault took out what the controller wants, or it was not told of everything that
                // it could want: the agent goes by what was acknowledged to it [TK-7c].
                if *changed || cut.contains(&(*agent, *connection)) {
                    for (stream, through) in acked.get(agent).into_iter().flatten() {
                        let had = had.entry(*stream).or_default();
                        *had = (*had).max(*through);
                    }
                }
                for (attempt, stream, next) in wanted {
                    had.insert((attempt, stream), next - 1);
                }
            }
            TaskSeen::Acked { agent, attempt, through: Some((stream, through)), .. } => {
                let acked = acked.entry(*agent).or_default();
                let acked = acked.entry((attempt, stream)).or_default();
                *acked = (*acked).max(*through);
                let had = had.entry((attempt, stream)).or_default();
                *had = (*had).max(*through);
            }
            TaskSeen::Delivered { agent, connection, attempt }
                if !answered.contains(&(*agent, *connection)) =>
            {
                let message = format!(
                    "{attempt} was delivered to agent-{agent} before its hello was answered"
                );
                findings.push(finding(at_ms, Some(*agent), message));
            }
            TaskSeen::Said { agent, connection, attempt, message } => {
                let conn = (*agent, *connection);
                if !greeted.contains(&conn) {
                    let message = format!("agent-{agent} spoke of {attempt} before its hello");
                    findings.push(finding(at_ms, Some(*agent), message));
                }
                let waits = matches!(message, Message::Output { .. } | Message::Final { .. });
                if waits && !agreed.contains(&conn) {
                    let message = format!(
                        "agent-{agent} sent output or a result of {attempt} before its hello was \
                         answered"
                    );
                    findings.push(finding(at_ms, Some(*agent), message));
                }
                let Message::Output { stream, sequence, declares, .. } = message else { continue };
                let had = had.get(&(attempt.as_str(), stream.as_str())).copied().unwrap_or(0);
                let top = sent.entry((*agent, *connection, attempt, stream)).or_default();
                let before = had.max(*top);
                if *sequence > before + 1 && !declares {
                    let message = format!(
                        "agent-{agent} sent {stream} {sequence} of {attempt} after {before}, and \
                         declared no hole"
                    );
                    findings.push(finding(at_ms, Some(*agent), message));
                }
                let holes = holes.entry((*agent, attempt, stream)).or_default();
                if holes.iter().any(|(from, to)| (*from..=*to).contains(sequence)) {
                    let message = format!(
                        "agent-{agent} sent {stream} {sequence} of {attempt}, which it had \
                         declared lost"
                    );
                    findings.push(finding(at_ms, Some(*agent), message));
                }
                if *sequence > before + 1 && *declares {
                    holes.push((before + 1, sequence - 1));
                }
                *top = (*top).max(*sequence);
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
    use crate::history::{Message, TaskSeen};

    #[test]
    fn a_connection_begins_with_hello_and_answer() {
        let delivered = || TaskSeen::Delivered { agent: 1, connection: 1, attempt: A1.to_owned() };
        let agreed = || vec![hello(1), answered(1)];
        let with = |seen| agreed().into_iter().chain([seen]).collect();
        assert_eq!(tasks(&CHECKER, with(delivered())), [""; 0]);
        assert_eq!(tasks(&CHECKER, vec![hello(1), delivered()]).len(), 1);
        assert_eq!(tasks(&CHECKER, with(said(1, result("m", 7)))), [""; 0]);
        assert_eq!(tasks(&CHECKER, with(said(2, result("m", 7)))).len(), 2);
        assert_eq!(tasks(&CHECKER, vec![hello(1), said(1, Message::Received)]), [""; 0]);
        assert_eq!(tasks(&CHECKER, vec![said(1, Message::Received)]).len(), 1);
    }

    #[test]
    fn a_jump_declares_its_hole() {
        let sends = |pieces: &[(u64, bool)]| {
            let pieces =
                pieces.iter().map(|(number, declares)| said(1, piece(*number, 7, *declares)));
            [hello(1), answered(1)].into_iter().chain(pieces).collect()
        };
        assert_eq!(tasks(&CHECKER, sends(&[(1, false), (2, false), (1, false)])), [""; 0]);
        assert_eq!(tasks(&CHECKER, sends(&[(1, false), (4, true), (5, false)])), [""; 0]);
        assert_eq!(tasks(&CHECKER, sends(&[(1, false), (4, false)])).len(), 1);
        assert_eq!(tasks(&CHECKER, sends(&[(2, false)])).len(), 1);
        let lost = &[(1, false), (4, true), (2, false)];
        assert_eq!(tasks(&CHECKER, sends(lost)).len(), 1, "it was there all the time");
    }

    #[test]
    fn what_a_hello_left_out_goes_on_behind_what_was_acknowledged() {
        let then = |whole| {
            let mut lost = answered(2);
            let TaskSeen::Answered { wanted, .. } = &mut lost else { unreachable!() };
            wanted.push((A1.to_owned(), "stdout".to_owned(), 1));
            let mut again = hello(3);
            let TaskSeen::Hello { complete, .. } = &mut again else { unreachable!() };
            *complete = whole;
            let before =
                [hello(1), answered(1), said(1, piece(1, 7, false)), acked("output", Some(1))];
            let after = [hello(2), lost, again, answered(3), said(3, piece(2, 7, false))];
            before.into_iter().chain(after).collect()
        };
        assert_eq!(tasks(&CHECKER, then(false)), [""; 0]);
        assert_eq!(tasks(&CHECKER, then(true)).len(), 1);
    }

    #[test]
    fn where_a_fault_took_the_answer_the_agent_goes_by_what_was_acknowledged() {
        let mut restored = answered(2);
        let TaskSeen::Answered { wanted, .. } = &mut restored else { unreachable!() };
        wanted.push((A1.to_owned(), "stdout".to_owned(), 1));
        let then = |changed| {
            let mut answer = answered(3);
            if let TaskSeen::Answered { changed: by_fault, .. } = &mut answer {
                *by_fault = changed;
            }
            let before =
                [hello(1), answered(1), said(1, piece(1, 7, false)), acked("output", Some(1))];
            let after = [hello(2), restored.clone(), hello(3), answer, said(3, piece(2, 7, false))];
            before.into_iter().chain(after).collect()
        };
        assert_eq!(tasks(&CHECKER, then(true)), [""; 0]);
        assert_eq!(tasks(&CHECKER, then(false)).len(), 1);
    }
}
