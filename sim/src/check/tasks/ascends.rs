//! How far an attempt is only ascends.

use std::collections::BTreeMap;

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Stage, TaskSeen};

/// In the record of the controller, and in the store of the agent.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "state_ascends",
    statements: &["TK-3"],
    liveness: false,
    demands: "an attempt never is less far than it was, and its end never changes",
    check: Check::Tasks(check),
};

/// How long an agent may say what it knew.
const OLD_NEWS_MS: u64 = 2_000;

fn rank(state: &str) -> u32 {
    match state {
        "pending" => 0,
        "delivered" => 1,
        "received" => 2,
        "running" => 3,
        _ => 4,
    }
}

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut states: BTreeMap<&str, &str> = BTreeMap::new();
    let mut ended: BTreeMap<(u32, &str), u64> = BTreeMap::new();
    let mut stages: BTreeMap<(u32, &str), Stage> = BTreeMap::new();
    let step = |findings: &mut Vec<Finding>,
                at_ms: u64,
                attempt: &str,
                state: &str,
                before: Option<&str>| {
        let Some(before) = before else { return };
        if rank(state) < rank(before) || (rank(before) == 4 && state != before) {
            let message = format!("the record has {attempt} as {state}, and had it as {before}");
            findings.push(finding(at_ms, facts.agent_of(attempt), message));
        }
    };
    for (_, at_ms, seen) in facts.seen() {
        match seen {
            TaskSeen::State { attempt, state } => {
                let before = states.insert(attempt, state);
                step(&mut findings, at_ms, attempt, state, before);
            }
            TaskSeen::TaskEnd { attempts, .. } => {
                for end in attempts {
                    let before = states.get(end.attempt.as_str()).copied();
                    step(&mut findings, at_ms, &end.attempt, &end.state, before);
                }
            }
            TaskSeen::RecordReplaced => states.clear(),
            TaskSeen::StoreReplaced { agent } => {
                ended.retain(|(of, _), _| of != agent);
                stages.retain(|(of, _), _| of != agent);
            }
            TaskSeen::Kept { agent, attempt, stage } => {
                if *stage == Stage::Ended {
                    ended.entry((*agent, attempt)).or_insert(at_ms);
                }
                let before = stages.insert((*agent, attempt), *stage);
                // An attempt that was discarded may come again as a new one.
                let discarded = facts.was_discarded(attempt);
                if before.is_some_and(|before| before > *stage) && !discarded {
                    let message =
                        format!("the store of agent-{agent} has {attempt} as {stage:?} again");
                    findings.push(finding(at_ms, Some(*agent), message));
                }
            }
            TaskSeen::Hello { agent, received, running, .. } => {
                for attempt in received.iter().chain(running) {
                    let since = ended.get(&(*agent, attempt.as_str()));
                    if since.is_some_and(|since| since + OLD_NEWS_MS < at_ms) {
                        let message =
                            format!("agent-{agent} says that {attempt} has not ended, and it has");
                        findings.push(finding(at_ms, Some(*agent), message));
                    }
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
    use crate::history::Stage;

    #[test]
    fn the_record_goes_one_way() {
        assert_eq!(tasks(&CHECKER, vec![state("received"), state("final")]), [""; 0]);
        assert_eq!(tasks(&CHECKER, vec![state("running"), state("received")]).len(), 1);
        assert_eq!(tasks(&CHECKER, vec![state("interrupted"), state("final")]).len(), 1);
        let end = task_end(vec![attempt_end("running", None)]);
        assert_eq!(tasks(&CHECKER, vec![state("final"), end]).len(), 1);
    }

    #[test]
    fn so_does_the_store() {
        assert_eq!(tasks(&CHECKER, vec![kept(Stage::Running), kept(Stage::Ended)]), [""; 0]);
        assert_eq!(tasks(&CHECKER, vec![kept(Stage::Ended), kept(Stage::Running)]).len(), 1);
    }
}
