//! No attempt is run twice, and no two attempts at a task at once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Checker, Facts, Finding, finding, task_of};
use crate::history::{Seen, TaskSeen};

/// Over redelivery, reconnect, crash and every path of delivery.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "runs_once",
    statements: &["TK-2", "TK-8"],
    liveness: false,
    demands: "no attempt is run twice, none that was discarded, and no two of a task at once",
    check: Check::Tasks(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut ran: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    // Per task: the attempt that runs, and its agent.
    let mut running: BTreeMap<&str, (&str, u32)> = BTreeMap::new();
    // Discarded by an answer, and not delivered again since.
    let mut discarded: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    // Those of them that a fault discarded. The controller wants them, and does not say it again to
    // an agent that died before it had stored it.
    let mut by_fault: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    for (index, entry) in facts.history.entries.iter().enumerate() {
        let at_ms = entry.at_ms;
        match &entry.what {
            Seen::Task(TaskSeen::Ran { agent, attempt }) => {
                let before = ran.insert(attempt, (index, at_ms));
                if let Some((_, first)) =
                    before.filter(|it| !is_forgotten(facts, *agent, attempt, it.0, index))
                {
                    let message =
                        format!("{attempt} was run twice: at {first} ms and at {at_ms} ms");
                    findings.push(finding(at_ms, Some(*agent), message));
                } else if let Some((at, told)) = discarded.get(attempt.as_str())
                    // An older store and an older record know nothing of it.
                    && !(facts.record_was_replaced_after(*at)
                        && facts.store_was_replaced_after(*agent, *at))
                {
                    let message = format!(
                        "{attempt} was run at {at_ms} ms, though agent-{agent} was told at {told} ms \
                         that it is not wanted"
                    );
                    findings.push(finding(at_ms, Some(*agent), message));
                }
                let other = running.insert(task_of(attempt), (attempt, *agent));
                if let Some((other, _)) = other.filter(|(other, _)| other != attempt) {
                    let message = format!("{attempt} was run while {other} was still running");
                    findings.push(finding(at_ms, Some(*agent), message));
                }
            }
            Seen::Task(TaskSeen::Ended { attempt, .. }) => {
                running.remove(task_of(attempt));
            }
            Seen::Task(TaskSeen::Answered { agent, discarded: names, changed, .. }) => {
                let new = names.iter().filter(|name| !ran.contains_key(name.as_str()));
                if *changed {
                    by_fault.entry(*agent).or_default().extend(new.clone().map(String::as_str));
                }
                discarded.extend(new.map(|name| (name.as_str(), (index, at_ms))));
            }
            Seen::Task(TaskSeen::Delivered { attempt, .. }) => {
                discarded.remove(attempt.as_str());
            }
            // Over HTTP.
            Seen::Task(TaskSeen::State { attempt, state }) if state == "delivered" => {
                discarded.remove(attempt.as_str());
            }
            Seen::Crashed { host } => {
                running.retain(|_, (_, agent)| *host != format!("agent-{agent}"));
                for (_, names) in
                    by_fault.extract_if(.., |agent, _| *host == format!("agent-{agent}"))
                {
                    discarded.retain(|name, _| !names.contains(name));
                }
            }
            _ => {}
        }
    }
    findings
}

/// Whether nobody can know what happened at a place of the history: the store of the agent was
/// replaced by an older one since, and the controller has not heard of it, or has forgotten it too.
fn is_forgotten(facts: &Facts<'_>, agent: u32, attempt: &str, index: usize, again: usize) -> bool {
    let replaced = facts.stores_replaced.get(&agent).into_iter().flatten();
    let Some(replaced) = replaced.filter(|at| (index..again).contains(*at)).max() else {
        return false;
    };
    let told = |seen: &TaskSeen| match seen {
        TaskSeen::State { attempt: of, state } => {
            of == attempt && !matches!(state.as_str(), "delivered" | "received")
        }
        _ => false,
    };
    // What it learns after it has delivered the attempt to the older store comes too late for that.
    let between = || facts.seen().filter(|(at, ..)| (index..again).contains(at));
    let delivered = between().filter(|(at, _, seen)| {
        let again = |of: &str, state: &str| of == attempt && state == "delivered";
        at > replaced && matches!(seen, TaskSeen::State { attempt: of, state } if again(of, state))
    });
    let until = delivered.map(|(at, ..)| at).last().unwrap_or(again);
    let mut news = between().filter(|(at, _, seen)| *at < until && told(seen));
    news.all(|(at, ..)| facts.record_was_replaced_after(at))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::{Seen, TaskSeen};

    #[test]
    fn twice_is_too_often_also_over_a_crash() {
        let crash = Seen::Crashed { host: "agent-1".to_owned() };
        let twice = vec![Seen::Task(ran(A1)), crash.clone(), Seen::Task(ran(A1))];
        assert_eq!(findings(&CHECKER, twice).len(), 1);
        let retried = vec![Seen::Task(ran(A1)), crash, Seen::Task(ran("t1/a2"))];
        assert_eq!(findings(&CHECKER, retried), [""; 0]);
    }

    #[test]
    fn what_both_sides_have_forgotten_nobody_can_know() {
        let lost = || TaskSeen::StoreReplaced { agent: 1 };
        let told = || state("running");
        assert_eq!(tasks(&CHECKER, vec![ran(A1), told(), lost(), ran(A1)]).len(), 1);
        let both = vec![ran(A1), told(), lost(), TaskSeen::RecordReplaced, ran(A1)];
        assert_eq!(tasks(&CHECKER, both), [""; 0]);
        assert_eq!(tasks(&CHECKER, vec![ran(A1), lost(), ran(A1)]), [""; 0], "nobody was told");
        // It is given up while it is on its way again.
        let (sent, closed) = (|| state("delivered"), || state("interrupted"));
        let late = vec![ran(A1), TaskSeen::RecordReplaced, lost(), sent(), closed(), ran(A1)];
        assert_eq!(tasks(&CHECKER, late), [""; 0]);
        let known = vec![ran(A1), TaskSeen::RecordReplaced, lost(), closed(), sent(), ran(A1)];
        assert_eq!(tasks(&CHECKER, known).len(), 1, "it was known, and delivered again");
        assert_eq!(tasks(&CHECKER, vec![ran(A1), sent(), told(), lost(), ran(A1)]).len(), 1);
    }

    #[test]
    fn another_attempt_waits_for_the_end_of_the_first() {
        assert_eq!(tasks(&CHECKER, vec![ran(A1), ran("t1/a2")]).len(), 1);
        assert_eq!(tasks(&CHECKER, vec![ran(A1), ended(0, 0), ran("t1/a2")]), [""; 0]);
    }

    #[test]
    fn what_was_discarded_is_not_run() {
        assert_eq!(tasks(&CHECKER, vec![discarding(1), ran(A1)]).len(), 1);
        assert_eq!(tasks(&CHECKER, vec![ran(A1), discarding(1)]), [""; 0]);
        let died = |changed| {
            let mut told = discarding(1);
            if let TaskSeen::Answered { changed: by_fault, .. } = &mut told {
                *by_fault = changed;
            }
            let crash = Seen::Crashed { host: "agent-1".to_owned() };
            vec![Seen::Task(told), crash, Seen::Task(ran(A1))]
        };
        assert_eq!(findings(&CHECKER, died(false)).len(), 1);
        assert_eq!(findings(&CHECKER, died(true)), [""; 0], "the controller wants it");
    }
}
