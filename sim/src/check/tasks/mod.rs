//! What must not happen to tasks.

mod agreed_first;
mod answered;
mod ascends;
mod bounds;
mod cause;
mod declared;
mod kept;
mod once;
mod output;
mod progress;
mod result;
mod stored_first;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::agreed_first::CHECKER as AGREED_FIRST;
pub(super) use self::answered::CHECKER as ANSWERED;
pub(super) use self::ascends::CHECKER as ASCENDS;
pub(super) use self::bounds::CHECKER as BOUNDS;
pub(super) use self::cause::CHECKER as CAUSE;
pub(super) use self::declared::CHECKER as DECLARED;
pub(super) use self::kept::CHECKER as KEPT;
pub(super) use self::once::CHECKER as ONCE;
pub(super) use self::output::CHECKER as OUTPUT;
pub(super) use self::progress::CHECKER as PROGRESS;
pub(super) use self::result::CHECKER as RESULT;
pub(super) use self::stored_first::CHECKER as STORED_FIRST;
use super::{Check, Checker, Finding};
use crate::history::{AttemptEnd, History, Seen, TaskSeen};
use crate::plan::Plan;

/// A history, sorted by what checkers ask for.
pub(super) struct Facts<'a> {
    history: &'a History,
    /// Whether both sides speak the extension.
    extension: bool,
    /// How much of an error always fits into a result.
    error_room: u64,
    /// When each agent's process ended, by the index of the entry.
    crashes: BTreeMap<u32, Vec<usize>>,
    /// When each agent's store was replaced.
    stores_replaced: BTreeMap<u32, Vec<usize>>,
    /// When the record was replaced.
    record_replaced: Vec<usize>,
    /// Whose task each is, by its name.
    agents: BTreeMap<&'a str, u32>,
    /// Attempts that an answer to a hello has discarded, and when.
    discarded: BTreeMap<&'a str, Vec<usize>>,
    /// Those that a fault has discarded, and not the controller.
    thrown_away: BTreeSet<&'a str>,
    /// What the record holds in the end, by the name of the attempt.
    ends: BTreeMap<&'a str, &'a AttemptEnd>,
    /// Agents whose store was refused, and has not been served since.
    refused: BTreeSet<u32>,
    end_ms: u64,
}

/// The task of an attempt, by name.
fn task_of(attempt: &str) -> &str {
    attempt.rsplit_once('/').map_or(attempt, |(task, _)| task)
}

impl<'a> Facts<'a> {
    pub(super) fn new(history: &'a History, plan: &Plan) -> Self {
        let extension = match &plan.options {
            crate::plan::Options::Tasks { controller, agent } => {
                controller.extension && agent.extension
            }
            _ => false,
        };
        let error_room = match &plan.options {
            crate::plan::Options::Tasks { agent, .. } => agent.reserve_bytes / 2,
            _ => 0,
        };
        Self::of(history, extension, error_room)
    }

    fn of(history: &'a History, extension: bool, error_room: u64) -> Self {
        let mut facts = Self {
            history,
            extension,
            error_room,
            crashes: BTreeMap::new(),
            stores_replaced: BTreeMap::new(),
            record_replaced: Vec::new(),
            agents: BTreeMap::new(),
            discarded: BTreeMap::new(),
            thrown_away: BTreeSet::new(),
            ends: BTreeMap::new(),
            refused: BTreeSet::new(),
            end_ms: history.entries.last().map_or(0, |entry| entry.at_ms),
        };
        for (index, entry) in history.entries.iter().enumerate() {
            match &entry.what {
                Seen::Crashed { host } => {
                    let agent = host.strip_prefix("agent-").and_then(|it| it.parse().ok());
                    if let Some(agent) = agent {
                        facts.crashes.entry(agent).or_default().push(index);
                    }
                }
                Seen::Task(seen) => facts.take(index, seen),
                _ => {}
            }
        }
        facts
    }

    fn take(&mut self, index: usize, seen: &'a TaskSeen) {
        match seen {
            TaskSeen::Submitting { agent, task } => {
                self.agents.insert(task, *agent);
            }
            TaskSeen::StoreReplaced { agent } => {
                self.stores_replaced.entry(*agent).or_default().push(index);
            }
            TaskSeen::RecordReplaced => self.record_replaced.push(index),
            TaskSeen::Answered { agent, discarded, refused, changed, .. } => {
                for attempt in discarded {
                    if *changed {
                        self.thrown_away.insert(attempt);
                    }
                    self.discarded.entry(attempt).or_default().push(index);
                }
                match refused {
                    true => self.refused.insert(*agent),
                    false => self.refused.remove(agent),
                };
            }
            TaskSeen::TaskEnd { attempts, .. } => {
                for attempt in attempts {
                    self.ends.insert(&attempt.attempt, attempt);
                }
            }
            _ => {}
        }
    }

    /// All that was seen of tasks, with its place and time.
    fn seen(&self) -> impl Iterator<Item = (usize, u64, &'a TaskSeen)> + use<'a> {
        self.history.entries.iter().enumerate().filter_map(|(index, entry)| match &entry.what {
            Seen::Task(seen) => Some((index, entry.at_ms, seen)),
            _ => None,
        })
    }

    fn agent_of(&self, attempt: &str) -> Option<u32> {
        self.agents.get(task_of(attempt)).copied()
    }

    fn store_was_replaced(&self, agent: u32) -> bool {
        self.stores_replaced.contains_key(&agent)
    }

    fn store_was_replaced_after(&self, agent: u32, index: usize) -> bool {
        let replaced = self.stores_replaced.get(&agent).and_then(|replaced| replaced.last());
        replaced.is_some_and(|replaced| *replaced > index)
    }

    fn record_was_replaced_after(&self, index: usize) -> bool {
        self.record_replaced.last().is_some_and(|replaced| *replaced > index)
    }

    fn was_discarded(&self, attempt: &str) -> bool {
        self.discarded.contains_key(attempt)
    }
}

fn finding(at_ms: u64, client: Option<u32>, message: String) -> Finding {
    Finding { at_ms, client, message }
}

#[cfg(test)]
mod fixture {
    //! Short histories for the tests of the checkers.

    use super::{Check, Checker, Facts};
    use crate::history::{AttemptEnd, Entry, History, Message, Seen, Stage, StreamEnd, TaskSeen};

    /// What the checker says of these entries, one millisecond apart.
    pub(super) fn findings(checker: &Checker, entries: Vec<Seen>) -> Vec<String> {
        let entries = entries.into_iter().zip(1..).map(|(what, at_ms)| Entry { at_ms, what });
        let history = History { entries: entries.collect() };
        let Check::Tasks(check) = checker.check else { panic!("not a checker of tasks") };
        let findings = check(&Facts::of(&history, true, 100));
        findings.into_iter().map(|finding| finding.message).collect()
    }

    pub(super) fn tasks(checker: &Checker, entries: Vec<TaskSeen>) -> Vec<String> {
        findings(checker, entries.into_iter().map(Seen::Task).collect())
    }

    pub(super) const A1: &str = "t1/a1";

    pub(super) fn submitting() -> TaskSeen {
        TaskSeen::Submitting { agent: 1, task: "t1".to_owned() }
    }

    pub(super) fn submitted() -> TaskSeen {
        TaskSeen::Submitted { task: "t1".to_owned(), attempt: A1.to_owned() }
    }

    pub(super) fn kept(stage: Stage) -> TaskSeen {
        TaskSeen::Kept { agent: 1, attempt: A1.to_owned(), stage }
    }

    pub(super) fn ran(attempt: &str) -> TaskSeen {
        TaskSeen::Ran { agent: 1, attempt: attempt.to_owned() }
    }

    pub(super) fn ended(exit_code: i64, stdout: u64) -> TaskSeen {
        let attempt = A1.to_owned();
        TaskSeen::Ended { agent: 1, attempt, exit_code, wrote: [stdout, 0], error_bytes: 0 }
    }

    pub(super) fn said(connection: u64, message: Message) -> TaskSeen {
        TaskSeen::Said { agent: 1, connection, attempt: A1.to_owned(), message }
    }

    pub(super) fn piece(sequence: u64, digest: u64, declares: bool) -> Message {
        Message::Output { stream: "stdout".to_owned(), sequence, digest, declares }
    }

    pub(super) fn result(message_id: &str, digest: u64) -> Message {
        Message::Final { message_id: message_id.to_owned(), digest }
    }

    pub(super) fn bound(sequence: u64, digest: u64) -> TaskSeen {
        TaskSeen::Bound {
            agent: 1,
            attempt: A1.to_owned(),
            stream: "stdout".to_owned(),
            sequence,
            digest,
            bytes: 10,
            as_written: true,
        }
    }

    pub(super) fn hello(connection: u64) -> TaskSeen {
        TaskSeen::Hello {
            agent: 1,
            connection,
            bytes: 300,
            received: vec![],
            running: vec![],
            finals: vec![],
            complete: true,
        }
    }

    pub(super) fn answered(connection: u64) -> TaskSeen {
        TaskSeen::Answered {
            agent: 1,
            connection,
            wanted: vec![],
            discarded: vec![],
            directed: true,
            refused: false,
            lost: false,
            changed: false,
        }
    }

    pub(super) fn discarding(connection: u64) -> TaskSeen {
        TaskSeen::Answered {
            agent: 1,
            connection,
            wanted: vec![],
            discarded: vec![A1.to_owned()],
            directed: true,
            refused: false,
            lost: false,
            changed: false,
        }
    }

    pub(super) fn acked(kind: &str, through: Option<u64>) -> TaskSeen {
        TaskSeen::Acked {
            agent: 1,
            connection: 1,
            attempt: A1.to_owned(),
            kind: kind.to_owned(),
            through: through.map(|through| ("stdout".to_owned(), through)),
        }
    }

    pub(super) fn state(state: &str) -> TaskSeen {
        TaskSeen::State { attempt: A1.to_owned(), state: state.to_owned() }
    }

    pub(super) fn attempt_end(state: &str, result: Option<u64>) -> AttemptEnd {
        AttemptEnd {
            attempt: A1.to_owned(),
            state: state.to_owned(),
            result,
            exit_code: result.map(|_| 0),
            error_bytes: 0,
            interrupted: false,
            truncated: [false; 2],
            streams: [StreamEnd::default(), StreamEnd::default()],
        }
    }

    pub(super) fn task_end(attempts: Vec<AttemptEnd>) -> TaskSeen {
        TaskSeen::TaskEnd { task: "t1".to_owned(), cancelled: false, attempts }
    }

    pub(super) fn agent_end() -> TaskSeen {
        TaskSeen::AgentEnd { agent: 1, open: vec![], results: vec![], output: 0 }
    }
}
