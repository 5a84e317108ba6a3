//! Where everything that happens is written down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gapless::events::wire::EventBody;

use crate::branches::Branches;
use crate::chain::{Chain, Digest, Prefixes, Streams};
use crate::history::{Entry, History, Seen, TaskSeen};
use crate::trace::{Fact, Kind, Record, Text, Trace};

/// The notebook of one run. Cheap to clone; all clones write to the same pages.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    pages: Arc<Mutex<Pages>>,
    /// Nobody will read the trace: only what is judged and counted is written down.
    untraced: bool,
}

/// What has been written so far.
#[derive(Default)]
pub(crate) struct Pages {
    /// The records; sorted by time at the end.
    records: Vec<Record>,
    entries: Vec<Entry>,
    /// How often each mark was reached.
    marks: BTreeMap<&'static str, u64>,
    /// When each mark was reached, as far as the plan waits for it.
    reached_at: BTreeMap<&'static str, Vec<u64>>,
    /// How many faults of each kind were injected.
    faults: BTreeMap<&'static str, u64>,
    /// The newest mark: where its record is, what it was at first, and how often it came.
    repeated: Option<(usize, Record, u64)>,
    /// The step of the plan that the world carries out right now.
    step: Option<usize>,
    /// The virtual time when no host is running.
    between_ticks_ms: u64,
    /// The highest sequence in the log per agent.
    heads: BTreeMap<u32, u64>,
    /// The lowest sequence that can be read in the log per agent, if it is not the first.
    oldest: BTreeMap<u32, u64>,
    /// What each event is, by agent and key, as its publisher made it.
    published: BTreeMap<(u32, String), Made>,
    /// The chains of the log, one set for each branch of its history.
    chains: Vec<Streams>,
    /// Which log the numbers belong to.
    branches: Branches,
    /// How far each client's application is: the branch of the log, and the number in it.
    positions: BTreeMap<u32, (usize, u64)>,
    workers_running: u64,
    /// When a run on real sockets began, and how much faster than real time its own time goes.
    real: Option<(tokio::time::Instant, u64)>,
}

/// An event as its publisher made it.
struct Made {
    body: EventBody,
    digest: Digest,
}

/// How many times of a mark a plan can refer to.
const REMEMBERED_MAX: usize = 1_000;

/// The virtual time: of the host that runs, or of the world between two ticks.
fn now_ms(pages: &Pages) -> u64 {
    if let Some((began, speed)) = pages.real {
        let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        return elapsed.saturating_mul(speed);
    }
    turmoil::sim_elapsed().map_or(pages.between_ticks_ms, |elapsed| {
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    })
}

fn reached(pages: &mut Pages, client: u32, epoch: Option<&str>, sequence: u64) {
    let branch = epoch.and_then(|epoch| pages.branches.of_epoch(epoch));
    let branch = branch.unwrap_or(pages.branches.current());
    pages.positions.insert(client, (branch, sequence));
}

impl Recorder {
    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The notebook of a run of which nobody reads the trace.
    pub(crate) fn untraced() -> Self {
        Self { untraced: true, ..Self::default() }
    }

    /// Whether there is no trace, so that nothing needs to be done for one.
    pub(crate) fn is_untraced(&self) -> bool {
        self.untraced
    }

    /// The notebook of a run on real sockets that begins now: its time goes `speed` times as fast as
    /// real time.
    pub(crate) fn real(speed: u64) -> Self {
        let recorder = Self::default();
        recorder.pages().real = Some((tokio::time::Instant::now(), speed));
        recorder
    }

    /// The time of the run.
    pub(crate) fn now_ms(&self) -> u64 {
        now_ms(&self.pages())
    }

    pub(crate) fn set_time(&self, at_ms: u64) {
        self.pages().between_ticks_ms = at_ms;
    }

    /// Writes a record of a host.
    pub(crate) fn record(
        &self,
        host: &'static str,
        incarnation: u64,
        kind: Kind,
        text: impl Into<Text>,
        fact: Option<Fact>,
    ) {
        if self.untraced {
            return;
        }
        let text = text.into();
        let mut pages = self.pages();
        let at_ms = now_ms(&pages);
        pages.records.push(Record { at_ms, host, incarnation, kind, text, fact });
    }

    /// Writes a record of the world.
    pub(crate) fn step(&self, text: impl Into<Text>) {
        let fact = self.pages().step.map(Fact::Step);
        self.record("world", 0, Kind::Step, text, fact);
    }

    /// What the world writes from here on is about this step of the plan.
    pub(crate) fn carries_out(&self, step: Option<usize>) {
        self.pages().step = step;
    }

    pub(crate) fn mark(&self, mark: &'static str) {
        let mut pages = self.pages();
        *pages.marks.entry(mark).or_default() += 1;
        let at_ms = now_ms(&pages);
        let reached = pages.reached_at.entry(mark).or_default();
        if reached.len() < REMEMBERED_MAX {
            reached.push(at_ms);
        }
        if self.untraced {
            return;
        }
        let (host, incarnation) = super::host::current();
        let text = mark.into();
        let record = Record { at_ms, host, incarnation, kind: Kind::Mark, text, fact: None };
        // The same place again and again is one line.
        let length = pages.records.len();
        match &mut pages.repeated {
            Some((at, first, times)) if *at + 1 == length && *first == record => {
                *times += 1;
                let (at, text) = (*at, format!("{mark} ×{times}"));
                pages.records[at].text = text.into();
            }
            repeated => {
                *repeated = Some((length, record.clone(), 1));
                pages.records.push(record);
            }
        }
    }

    /// When a mark was reached for the `nth` time.
    pub(crate) fn mark_reached(&self, mark: &str, nth: u32) -> Option<u64> {
        let pages = self.pages();
        pages.reached_at.get(mark)?.get((nth as usize).checked_sub(1)?).copied()
    }

    pub(crate) fn fault(&self, kind: &'static str) {
        *self.pages().faults.entry(kind).or_default() += 1;
    }

    /// Writes what the outside can see.
    pub(crate) fn see(&self, what: Seen) {
        let mut pages = self.pages();
        pages.branches.see(&what);
        match &what {
            // Nobody else says how far the log of a server goes that runs by itself.
            Seen::Published { agent, sequence, .. } if pages.real.is_some() => {
                let head = pages.heads.entry(*agent).or_default();
                *head = (*head).max(*sequence);
            }
            Seen::Delivered { client, epoch, sequence: Some(sequence), .. }
            | Seen::Joined { client, epoch, sequence }
            | Seen::Gap { client, epoch, sequence, .. } => {
                reached(&mut pages, *client, epoch.as_deref(), *sequence);
            }
            Seen::LogReplaced { parent, streams } => {
                let mut chains = pages.chains.get(*parent).cloned().unwrap_or_default();
                for (agent, chain) in &mut chains {
                    let copy = streams.iter().find(|state| state.agent == *agent);
                    chain.cut(copy.map_or(0, |state| state.head));
                }
                let branch = pages.branches.current();
                pages.chains.resize_with(branch, Streams::default);
                pages.chains.push(chains);
                pages.heads = streams.iter().map(|state| (state.agent, state.head)).collect();
                pages.oldest = streams.iter().map(|state| (state.agent, state.oldest)).collect();
            }
            _ => {}
        }
        let at_ms = now_ms(&pages);
        pages.entries.push(Entry { at_ms, what });
    }

    /// Writes what the outside can see of tasks.
    pub(crate) fn see_task(&self, what: TaskSeen) {
        self.see(Seen::Task(what));
    }

    /// Whether everybody who works has ended.
    pub(crate) fn workers_are_done(&self) -> bool {
        self.pages().workers_running == 0
    }

    /// A client's application is done with everything up to a number.
    pub(crate) fn reached(&self, client: u32, epoch: Option<&str>, sequence: u64) {
        reached(&mut self.pages(), client, epoch, sequence);
    }

    /// Which log an epoch belongs to; the one that is there now if that is not known.
    pub(crate) fn branch_of(&self, epoch: Option<&str>) -> usize {
        let pages = self.pages();
        let known = epoch.and_then(|epoch| pages.branches.of_epoch(epoch));
        known.unwrap_or(pages.branches.current())
    }

    /// Which log is there now.
    pub(crate) fn branch(&self) -> usize {
        self.pages().branches.current()
    }

    pub(crate) fn worker_started(&self) {
        self.pages().workers_running += 1;
    }

    pub(crate) fn worker_ended(&self) {
        self.pages().workers_running -= 1;
    }

    /// A publisher has made an event.
    pub(crate) fn publishing(&self, agent: u32, key: &str, body: EventBody) {
        let digest = Digest::of_body(&body);
        self.pages().published.insert((agent, key.to_owned()), Made { body, digest });
    }

    /// What an event is that an application has as `text`, whatever it did to the form of it: the
    /// order of fields, spaces, its number.
    pub(crate) fn digest_of(&self, agent: u32, key: Option<&str>, text: &str) -> Digest {
        let fields = |text: &str| {
            let mut fields: serde_json::Map<_, _> = serde_json::from_str(text).ok()?;
            fields.remove("agent_seq");
            Some(fields)
        };
        let digest = Digest::of_event(text);
        let pages = self.pages();
        let made = key.and_then(|key| pages.published.get(&(agent, key.to_owned())));
        match made {
            // Most have the form that their publisher gave them.
            Some(made) if made.digest == digest => digest,
            Some(made) if fields(made.body.as_str()) == fields(text) => made.digest,
            Some(_) | None => digest,
        }
    }

    /// The log holds an event. `digest` counts for one that no publisher has made.
    pub(crate) fn appended(&self, agent: u32, sequence: u64, key: Option<String>, digest: Digest) {
        let mut pages = self.pages();
        let made = key.and_then(|key| pages.published.get(&(agent, key)).map(|made| made.digest));
        let branch = pages.branches.current();
        if pages.chains.len() <= branch {
            pages.chains.resize_with(branch + 1, Streams::default);
        }
        pages.chains[branch].entry(agent).or_default().append(sequence, made.unwrap_or(digest));
    }

    /// How far the chain of a stream goes.
    pub(crate) fn chained(&self, agent: u32) -> u64 {
        let pages = self.pages();
        let chains = pages.chains.get(pages.branches.current());
        chains.and_then(|chains| chains.get(&agent)).map_or(0, Prefixes::head)
    }

    /// A client's application has taken a run of events in an epoch.
    pub(crate) fn see_chain(&self, client: u32, agent: u32, epoch: Option<&str>, taken: Chain) {
        let published = {
            let pages = self.pages();
            let branch = epoch.and_then(|epoch| pages.branches.of_epoch(epoch));
            let chains = pages.chains.get(branch.unwrap_or(pages.branches.current()));
            chains
                .and_then(|chains| chains.get(&agent))
                .and_then(|chain| chain.between(taken.from, taken.to))
        };
        self.see(Seen::Chained { client, taken, published });
    }

    /// The log has stored an event, whether or not anybody will be told.
    pub(crate) fn stored(&self, agent: u32, sequence: u64) {
        let mut pages = self.pages();
        let head = pages.heads.entry(agent).or_default();
        *head = (*head).max(sequence);
    }

    /// The log has forgotten what is below a number, if it is not the first.
    pub(crate) fn retained(&self, agent: u32, oldest: u64) {
        let known = self.pages().oldest.get(&agent).copied().unwrap_or(1);
        if oldest > known {
            self.pages().oldest.insert(agent, oldest);
            self.see(Seen::Retained { agent, oldest });
        }
    }

    /// The highest sequence in the log of an agent.
    pub(crate) fn head(&self, agent: u32) -> u64 {
        self.pages().heads.get(&agent).copied().unwrap_or(0)
    }

    /// What is still owed: the publishers that have not ended, the clients that are behind.
    pub(crate) fn is_converged(&self, clients: impl IntoIterator<Item = (u32, u32)>) -> bool {
        let pages = self.pages();
        pages.workers_running == 0
            && clients.into_iter().all(|(client, agent)| {
                let head = pages.heads.get(&agent).copied().unwrap_or(0);
                let (branch, sequence) = pages.positions.get(&client).copied().unwrap_or_default();
                let now = pages.branches.current();
                pages.branches.common(agent, branch, sequence, now) >= head
            })
    }

    /// The last records, for a person who looks at a run that broke.
    pub(crate) fn last(&self, count: usize) -> Vec<String> {
        let pages = self.pages();
        let from = pages.records.len().saturating_sub(count);
        pages.records[from..].iter().map(ToString::to_string).collect()
    }

    /// What could be seen so far.
    pub(crate) fn so_far(&self) -> History {
        History { entries: self.pages().entries.clone() }
    }

    /// Closes the notebook.
    ///
    /// Hosts run one after the other within a tick, so their records interleave by tick. Nothing
    /// crosses from one host to another within a tick, so sorting by time keeps causes before
    /// effects.
    pub(crate) fn finish(
        &self,
    ) -> (Trace, History, BTreeMap<&'static str, u64>, BTreeMap<&'static str, u64>) {
        let mut pages = self.pages();
        let mut records = std::mem::take(&mut pages.records);
        records.sort_by_key(|record| record.at_ms);
        let mut entries = std::mem::take(&mut pages.entries);
        entries.sort_by_key(|entry| entry.at_ms);
        let marks = std::mem::take(&mut pages.marks);
        let faults = std::mem::take(&mut pages.faults);
        (Trace { records }, History { entries }, marks, faults)
    }
}
