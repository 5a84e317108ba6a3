//! What led to what, as far as it can be told from a trace.
//!
//! A record has its causes before it:
//!
//! * what its host did before, in this life or, if it is the first of a life, in the one before;
//! * the departure of the frame that arrived or was swallowed;
//! * the step of the plan whose work it is, and what the server did about the same work before;
//! * the step of the plan that hit its host, if it is the first thing that happened there since.
//!
//! So the causal past of a record is everything that could have made a difference to it. It is not
//! the least that did: a host remembers. What travels over HTTP leaves no frames, so of the answer
//! to a request it is only said that it could depend on everything that the server had done until
//! it must have left.

use std::collections::BTreeMap;

use super::{Fact, Kind, Passage, Record, Trace};
use crate::custom::name_of_work;
use crate::plan::{Action, Fault, Host, Plan, When};

/// The causes of all records of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Causality {
    /// For each record the records that led to it at once, ascending.
    pub causes: Vec<Vec<usize>>,
    /// Each frame that left a host and was seen again: its departure, and where it arrived or was
    /// swallowed. One that arrived twice is there twice.
    pub passages: Vec<(usize, usize)>,
}

impl Causality {
    /// What led to what in the trace of a plan.
    pub fn of(trace: &Trace, plan: &Plan) -> Self {
        let mut found = Finder::new(plan);
        let causes = trace.records.iter().enumerate().map(|(at, record)| {
            let mut causes = found.causes(record);
            found.saw(at, record);
            causes.sort_unstable();
            causes.dedup();
            causes
        });
        Self { causes: causes.collect(), passages: found.passages }
    }

    /// The causal past of a record, with itself: for each record whether it belongs to it.
    pub fn past(&self, of: usize) -> Vec<bool> {
        let mut past = vec![false; self.causes.len()];
        let mut open = vec![of];
        while let Some(at) = open.pop() {
            if let Some(seen) = past.get_mut(at)
                && !std::mem::replace(seen, true)
            {
                open.extend(&self.causes[at]);
            }
        }
        past
    }
}

/// The host of what the world does itself. It has no memory, so one thing does not lead to the next.
const WORLD: &str = "world";

/// The name of a frame on its way.
type Name<'a> = (&'a str, u16, bool, u64);

fn name(passage: &Passage) -> Name<'_> {
    (&passage.client, passage.port, passage.to_server, passage.nth)
}

/// Goes through a trace from its beginning.
struct Finder<'a> {
    plan: &'a Plan,
    server: &'static str,
    /// The steps that ask for each piece of work.
    asked: BTreeMap<String, Vec<usize>>,
    passages: Vec<(usize, usize)>,
    /// The newest record of each host.
    newest: BTreeMap<&'a str, usize>,
    /// The records of the server, with their times.
    served: Vec<(u64, usize)>,
    /// Frames that have left.
    departed: BTreeMap<Name<'a>, usize>,
    /// Where each step was carried out.
    carried_out: BTreeMap<usize, usize>,
    /// The newest record of the server about each piece of work.
    done: BTreeMap<&'a str, usize>,
    /// Steps that hit a host where nothing has happened since.
    hit: BTreeMap<&'static str, Vec<usize>>,
    /// Where each mark was reached, from the first time on.
    marks: BTreeMap<&'a str, Vec<usize>>,
    /// The record that is looked at.
    at: usize,
}

impl<'a> Finder<'a> {
    fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            server: Host::Server.name(plan.options.protocol()),
            asked: asked(plan),
            passages: Vec::new(),
            newest: BTreeMap::new(),
            served: Vec::new(),
            departed: BTreeMap::new(),
            carried_out: BTreeMap::new(),
            done: BTreeMap::new(),
            hit: BTreeMap::new(),
            marks: BTreeMap::new(),
            at: 0,
        }
    }

    fn causes(&mut self, record: &'a Record) -> Vec<usize> {
        let mut causes = Vec::new();
        if record.kind == Kind::Step {
            if let Some(Fact::Step(step)) = &record.fact {
                causes.extend(self.awaited(*step));
            }
            return causes;
        }
        if record.host == WORLD {
            return causes;
        }
        causes.extend(self.newest.get(record.host));
        causes.extend(self.hit.remove(record.host).unwrap_or_default());
        match &record.fact {
            Some(Fact::Frame(passage)) if record.kind != Kind::Send => {
                if let Some(departure) = self.departed.get(&name(passage)) {
                    causes.push(*departure);
                    self.passages.push((*departure, self.at));
                }
            }
            Some(Fact::Work(work)) => {
                for name in work {
                    let steps = self.asked.get(name).into_iter().flatten();
                    causes.extend(steps.filter_map(|step| self.carried_out.get(step)));
                    causes.extend(self.done.get(name.as_str()));
                }
            }
            None if record.kind == Kind::Receive => causes.extend(self.answered(record)),
            _ => {}
        }
        causes
    }

    fn saw(&mut self, at: usize, record: &'a Record) {
        self.at = at + 1;
        if record.kind == Kind::Step {
            if let Some(Fact::Step(step)) = &record.fact {
                self.carried_out.insert(*step, at);
                if let Some(host) =
                    self.plan.steps.get(*step).and_then(|step| self.hits(&step.action))
                {
                    self.hit.entry(host).or_default().push(at);
                }
            }
            return;
        }
        self.newest.insert(record.host, at);
        if record.host == self.server {
            self.served.push((record.at_ms, at));
        }
        match &record.fact {
            Some(Fact::Frame(passage)) if record.kind == Kind::Send => {
                self.departed.insert(name(passage), at);
            }
            Some(Fact::Work(work)) if record.host == self.server => {
                self.done.extend(work.iter().map(|name| (name.as_str(), at)));
            }
            _ => {}
        }
        if record.kind == Kind::Mark {
            let (mark, times) = record.mark();
            let reached = self.marks.entry(mark).or_default();
            reached.extend(std::iter::repeat_n(at, times));
        }
    }

    /// What a step waited for.
    fn awaited(&self, step: usize) -> Option<usize> {
        match &self.plan.steps.get(step)?.when {
            When::At(_) => None,
            When::Mark { mark, nth, .. } => {
                let reached = self.marks.get(mark.as_str())?;
                reached.get((*nth as usize).checked_sub(1)?).copied()
            }
        }
    }

    /// The newest record of the server that an answer over HTTP can tell of.
    fn answered(&self, record: &Record) -> Option<usize> {
        let left_ms = record.at_ms.saturating_sub(self.plan.topology.latency_ms);
        let known = self.served.partition_point(|(at_ms, _)| *at_ms <= left_ms);
        known.checked_sub(1).map(|newest| self.served[newest].1)
    }

    /// The host that a step hits.
    fn hits(&self, action: &Action) -> Option<&'static str> {
        let protocol = self.plan.options.protocol();
        let host = match action {
            Action::Refresh { client } | Action::Reconnect { client } => Host::Client(*client),
            Action::Fault(fault) => host_of(fault),
            Action::Publish(_)
            | Action::Submit(_)
            | Action::Cancel { .. }
            | Action::Retry { .. }
            | Action::Say(_)
            | Action::Work(_) => return None,
        };
        Some(host.name(protocol))
    }
}

/// The host on which a fault is felt first.
pub(crate) fn host_of(fault: &Fault) -> Host {
    match fault.client() {
        Some(client) => Host::Client(client),
        None => fault.host().unwrap_or(Host::Server),
    }
}

/// The steps that ask for each piece of work, by its name.
fn asked(plan: &Plan) -> BTreeMap<String, Vec<usize>> {
    let mut asked: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let names: Vec<String> = match &step.action {
            Action::Publish(publish) => {
                (1..=publish.count).map(|nth| format!("p{index}-{nth}")).collect()
            }
            Action::Say(say) => (1..=say.count).map(|nth| format!("m{index}-{nth}")).collect(),
            Action::Submit(submit) => (1..=submit.count).map(|nth| submit.task(nth)).collect(),
            Action::Cancel { task } | Action::Retry { task } => vec![task.clone()],
            Action::Work(_) => vec![name_of_work(index)],
            Action::Refresh { .. } | Action::Reconnect { .. } | Action::Fault(_) => vec![],
        };
        for name in names {
            asked.entry(name).or_default().push(index);
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Step;
    use crate::scenario::{Library, draw};
    use crate::seed::Seed;
    use crate::world;

    /// A plan that publishes one event, and crashes the server when a mark is reached.
    fn plan() -> Plan {
        let scenario = Library::embedded().get("events/swarm").expect("the scenario is there");
        let mut plan = draw(&scenario, Seed(1));
        plan.steps.truncate(1);
        let Action::Publish(publish) = &mut plan.steps[0].action else { panic!("it publishes") };
        publish.count = 1;
        plan.steps.push(Step {
            when: When::Mark { mark: "m".to_owned(), nth: 2, after_ms: 0 },
            action: Action::Fault(Fault::Crash { host: Host::Server, restart_ms: 0 }),
        });
        plan
    }

    fn record(host: &'static str, life: u64, kind: Kind, fact: Option<Fact>) -> Record {
        let text = if kind == Kind::Mark { "m" } else { "…" }.into();
        Record { at_ms: 0, host, incarnation: life, kind, text, fact }
    }

    fn frame(nth: u64) -> Option<Fact> {
        let (client, payload) = ("client-1".into(), bytes::Bytes::new());
        Some(Fact::Frame(Passage { client, port: 1_024, to_server: false, nth, payload }))
    }

    fn work() -> Option<Fact> {
        Some(Fact::Work(vec!["p0-1".to_owned()]))
    }

    #[test]
    fn causes_are_the_host_before_the_frame_the_work_and_the_fault() {
        let records = vec![
            record("world", 0, Kind::Step, Some(Fact::Step(0))),
            record("client-2", 1, Kind::App, None),
            record("server", 1, Kind::Store, work()),
            record("server", 1, Kind::Mark, None),
            record("server", 1, Kind::Mark, None),
            record("server", 1, Kind::Send, frame(7)),
            record("world", 0, Kind::Step, Some(Fact::Step(1))),
            record("server", 1, Kind::Life, Some(Fact::Dies)),
            record("client-1", 1, Kind::Receive, frame(7)),
            record("client-1", 1, Kind::Receive, frame(8)),
            record("publisher", 1, Kind::App, work()),
            record("server", 2, Kind::Life, Some(Fact::Starts)),
        ];
        let causality = Causality::of(&Trace { records }, &plan());
        let causes: [&[usize]; 12] =
            [&[], &[], &[0], &[2], &[3], &[4], &[4], &[5, 6], &[5], &[8], &[0, 2], &[7]];
        assert_eq!(causality.causes, causes);
        assert_eq!(causality.passages, [(5, 8)]);
        let past: Vec<usize> = (0..12).filter(|at| causality.past(8)[*at]).collect();
        assert_eq!(past, [0, 2, 3, 4, 5, 8], "neither another client nor the crash after it");
    }

    #[test]
    fn every_frame_that_arrives_has_left_before_and_is_the_same() {
        for (id, seed) in [("events/swarm", 4), ("tasks/swarm", 2), ("session/swarm", 3)] {
            let scenario = Library::embedded().get(id).expect("the scenario is there");
            let run = world::run(&draw(&scenario, Seed(seed))).expect("it is carried out");
            let causality = Causality::of(&run.trace, &run.plan);
            let records = &run.trace.records;
            for &(from, to) in &causality.passages {
                let (Some(Fact::Frame(left)), Some(Fact::Frame(arrived))) =
                    (&records[from].fact, &records[to].fact)
                else {
                    panic!("{} and {}", records[from], records[to])
                };
                assert!(from < to && records[from].kind == Kind::Send, "{}", records[from]);
                assert_ne!(records[from].host, records[to].host);
                let strange = left.payload.is_empty();
                assert!(strange || left.payload == arrived.payload, "{}", records[to]);
            }
            let arrived = |record: &&Record| {
                record.kind == Kind::Receive && matches!(record.fact, Some(Fact::Frame(_)))
            };
            let seen = causality.passages.iter().filter(|(_, to)| arrived(&&records[*to])).count();
            assert_eq!(
                seen,
                records.iter().filter(arrived).count(),
                "{id}: each has left somewhere"
            );
            assert!(seen > 50, "{id}: {seen}");
            for (at, causes) in causality.causes.iter().enumerate() {
                assert!(causes.iter().all(|cause| *cause < at), "{}", records[at]);
            }
        }
    }
}
