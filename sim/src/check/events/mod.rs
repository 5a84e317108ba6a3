//! What must not happen to events.

mod chain;
mod cursor;
mod duplicate;
mod durable;
mod gap;
mod loss;
mod name;
mod order;
mod phantom;
mod progress;
mod replay;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::chain::CHECKER as CHAIN;
pub(super) use self::cursor::CHECKER as CURSOR;
pub(super) use self::duplicate::CHECKER as DUPLICATE;
pub(super) use self::durable::CHECKER as DURABLE;
pub(super) use self::gap::CHECKER as GAP;
pub(super) use self::loss::CHECKER as LOSS;
pub(super) use self::name::CHECKER as NAME;
pub(super) use self::order::CHECKER as ORDER;
pub(super) use self::phantom::CHECKER as PHANTOM;
pub(super) use self::progress::CHECKER as PROGRESS;
pub(super) use self::replay::CHECKER as REPLAY;
use super::{Check, Checker, Finding};
use crate::branches::Branches;
use crate::history::{Entry, History, Seen};
use crate::plan::Topology;

/// A history, sorted by what checkers ask for.
pub(super) struct Facts<'a> {
    history: &'a History,
    topology: &'a Topology,
    branches: Branches,
    /// Per agent: what is known to be in the stream, by the branch of the log in which it got its
    /// number, and that number: its key.
    streams: BTreeMap<u32, BTreeMap<(usize, u64), &'a str>>,
    clients: BTreeMap<u32, ClientFacts<'a>>,
    end_ms: u64,
}

/// What one client's application saw.
#[derive(Default)]
struct ClientFacts<'a> {
    agent: u32,
    /// The branch of the newest connection, for a client of the base contract.
    connected: usize,
    /// The highest number that came out of the network, per branch of the log.
    arrived: BTreeMap<usize, u64>,
    /// Everything above this place is owed.
    joined_after: Option<Place>,
    deliveries: Vec<Delivery<'a>>,
    /// The keys of all deliveries.
    given: BTreeSet<&'a str>,
    gaps: Vec<GapSeen<'a>>,
    /// What the client gave up on, and said so.
    given_up: BTreeSet<&'a str>,
}

/// A number, in a branch of the log that has it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    branch: usize,
    sequence: u64,
}

struct Delivery<'a> {
    at_ms: u64,
    index: usize,
    epoch: Option<&'a str>,
    branch: usize,
    sequence: Option<u64>,
    key: Option<&'a str>,
}

struct GapSeen<'a> {
    at_ms: u64,
    index: usize,
    verdict: &'a str,
    lost: &'a [(u64, u64)],
    epoch: Option<&'a str>,
    /// It goes on after this place.
    place: Place,
    /// What the client had asked for when it was told.
    asked: Option<Place>,
    /// Whether a number had come to the client by then that the branch in which it goes on does not
    /// have.
    ahead: bool,
}

impl<'a> Facts<'a> {
    pub(super) fn new(history: &'a History, topology: &'a Topology) -> Self {
        let mut facts = Self {
            history,
            topology,
            branches: Branches::default(),
            streams: BTreeMap::new(),
            clients: BTreeMap::new(),
            end_ms: history.entries.last().map_or(0, |entry| entry.at_ms),
        };
        for client in 1..=topology.clients {
            let agent = topology.agent_of(client);
            facts.clients.insert(client, ClientFacts { agent, ..ClientFacts::default() });
        }
        let mut asked: BTreeMap<u32, Place> = BTreeMap::new();
        for (index, entry) in history.entries.iter().enumerate() {
            facts.branches.see(&entry.what);
            facts.take(index, entry, &mut asked);
        }
        facts
    }

    fn take(&mut self, index: usize, entry: &'a Entry, asked: &mut BTreeMap<u32, Place>) {
        let at_ms = entry.at_ms;
        let current = self.branches.current();
        match &entry.what {
            Seen::Published { agent, key, epoch, sequence } => {
                let branch = self.branches.of_epoch(epoch).unwrap_or(current);
                self.hold(*agent, Place { branch, sequence: *sequence }, key);
            }
            Seen::Stored { agent, key, sequence } => {
                self.hold(*agent, Place { branch: current, sequence: *sequence }, key);
            }
            Seen::Connected { client, .. } => {
                self.client(*client).connected = current;
            }
            Seen::Arrived { client, sequence, .. } => {
                let client = self.client(*client);
                let arrived = client.arrived.entry(client.connected).or_default();
                *arrived = (*arrived).max(*sequence);
            }
            Seen::ReplayBegan { client, epoch, .. } => {
                // A server that slept may tell of a log that was replaced since.
                let branch = self.branches.of_epoch(epoch).unwrap_or(current);
                self.client(*client).connected = branch;
            }
            Seen::Joined { client, epoch, sequence } => {
                let place = self.place(*client, epoch.as_deref(), *sequence);
                self.client(*client).joined_after.get_or_insert(place);
            }
            Seen::Resumed { client, epoch, sequence } => {
                asked.insert(*client, self.place(*client, epoch.as_deref(), *sequence));
            }
            Seen::Delivered { client, epoch, sequence, key, .. } => {
                let epoch = epoch.as_deref();
                let Place { branch, .. } = self.place(*client, epoch, 0);
                let (sequence, key) = (*sequence, key.as_deref());
                let client = self.client(*client);
                client.deliveries.push(Delivery { at_ms, index, epoch, branch, sequence, key });
                client.given.extend(key);
            }
            Seen::Gap { client, verdict, lost, epoch, sequence } => {
                let epoch = epoch.as_deref();
                let place = self.place(*client, epoch, *sequence);
                let asked = asked.get(client).copied();
                let ahead = self.clients.get(client).is_some_and(|seen| {
                    seen.arrived.iter().any(|(&branch, &sequence)| {
                        self.lacks(seen.agent, place.branch, Place { branch, sequence })
                    })
                });
                let gap = GapSeen { at_ms, index, verdict, lost, epoch, place, asked, ahead };
                self.client(*client).gaps.push(gap);
            }
            Seen::GaveUp { client, key: Some(key), .. } => {
                self.client(*client).given_up.insert(key);
            }
            _ => {}
        }
    }

    fn client(&mut self, client: u32) -> &mut ClientFacts<'a> {
        self.clients.entry(client).or_default()
    }

    /// The place of a number that a client has in an epoch.
    fn place(&self, client: u32, epoch: Option<&str>, sequence: u64) -> Place {
        let connected = self.clients.get(&client).map_or(0, |client| client.connected);
        let branch = epoch.and_then(|epoch| self.branches.of_epoch(epoch)).unwrap_or(connected);
        Place { branch, sequence }
    }

    /// Whether a branch of the log does not have what is at a place of another one.
    fn lacks(&self, agent: u32, branch: usize, place: Place) -> bool {
        self.branches.common(agent, place.branch, place.sequence, branch) < place.sequence
    }

    fn hold(&mut self, agent: u32, place: Place, key: &'a str) {
        let origin = self.branches.origin(agent, place.branch, place.sequence);
        let stream = self.streams.entry(agent).or_default();
        stream.entry((origin, place.sequence)).or_insert(key);
    }

    /// What is in the stream that a client follows, as a branch of the log has it.
    fn stream_of(&self, client: u32, branch: usize) -> impl Iterator<Item = (u64, &'a str)> + '_ {
        self.stream(self.topology.agent_of(client), branch)
    }

    /// What is in a stream, as a branch of the log has it.
    fn stream(&self, agent: u32, branch: usize) -> impl Iterator<Item = (u64, &'a str)> + '_ {
        self.streams.get(&agent).into_iter().flatten().filter_map(
            move |((origin, sequence), key)| {
                let has = self.branches.origin(agent, branch, *sequence) == *origin;
                has.then_some((*sequence, *key))
            },
        )
    }

    /// Everything above this number of a branch is owed to a client; `None` before it joined.
    fn owed_after(&self, client: &ClientFacts<'_>, branch: usize) -> Option<u64> {
        let joined = client.joined_after?;
        Some(self.branches.common(client.agent, joined.branch, joined.sequence, branch))
    }

    /// Whether a client's application was told that this event will never come.
    fn is_declared(
        &self,
        client: &ClientFacts<'_>,
        branch: usize,
        (sequence, key): (u64, &str),
    ) -> bool {
        let agent = client.agent;
        let origin = self.branches.origin(agent, branch, sequence);
        client.given_up.contains(key)
            || client.gaps.iter().any(|gap| {
                let speaks_of_it = match (gap.lost, gap.verdict, gap.epoch) {
                    // The log went back; what it has now comes.
                    ([], "ahead", Some(_)) => false,
                    // A base server does not say what is lost, only that something is.
                    ([], ..) => sequence <= gap.place.sequence,
                    (ranges, ..) => {
                        ranges.iter().any(|(from, to)| (*from..=*to).contains(&sequence))
                    }
                };
                speaks_of_it && self.branches.origin(agent, gap.place.branch, sequence) == origin
            })
    }
}

/// A few events by name, for a sentence: `12 (p3-4), 13 (p3-5) and 7 more`.
fn name_events<'a>(events: impl IntoIterator<Item = (u64, &'a str)>) -> String {
    const NAMED_MAX: usize = 5;
    let events: Vec<_> = events.into_iter().collect();
    let mut named: Vec<String> = events
        .iter()
        .take(NAMED_MAX)
        .map(|(sequence, key)| format!("{sequence} ({key})"))
        .collect();
    let more = events.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        named.push(format!("{more} more"));
    }
    match named.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod fixture {
    //! Short histories for the tests of the checkers.

    use super::{Check, Checker, Facts};
    use crate::history::{Entry, History, LogState, Seen};
    use crate::plan::Topology;

    /// What the checker says of these entries, one millisecond apart, with one client and agent.
    pub(super) fn findings(checker: &Checker, entries: Vec<Seen>) -> Vec<String> {
        let entries = entries.into_iter().zip(1..).map(|(what, at_ms)| Entry { at_ms, what });
        let history = History { entries: entries.collect() };
        let topology = Topology { clients: 1, latency_ms: 1, ..Topology::default() };
        let Check::Events(check) = checker.check else { panic!("not a checker of events") };
        let findings = check(&Facts::new(&history, &topology));
        findings.into_iter().map(|finding| finding.message).collect()
    }

    pub(super) fn published(sequence: u64) -> Seen {
        let key = format!("k{sequence}");
        Seen::Published { agent: 1, key, epoch: "e1".to_owned(), sequence }
    }

    pub(super) fn stored(sequence: u64) -> Seen {
        Seen::Stored { agent: 1, key: format!("k{sequence}"), sequence }
    }

    pub(super) fn joined(sequence: u64) -> Seen {
        Seen::Joined { client: 1, epoch: None, sequence }
    }

    pub(super) fn joined_at(sequence: u64, epoch: &str) -> Seen {
        Seen::Joined { client: 1, epoch: Some(epoch.to_owned()), sequence }
    }

    pub(super) fn delivered(sequence: u64) -> Seen {
        delivered_as(sequence, &format!("k{sequence}"), "e1")
    }

    pub(super) fn delivered_as(sequence: u64, key: &str, epoch: &str) -> Seen {
        Seen::Delivered {
            client: 1,
            incarnation: 1,
            epoch: Some(epoch.to_owned()),
            sequence: Some(sequence),
            key: Some(key.to_owned()),
        }
    }

    /// The log goes back to what it held up to a number.
    pub(super) fn replaced(head: u64) -> Seen {
        let streams = vec![LogState { agent: 1, oldest: 1, head }];
        Seen::LogReplaced { parent: 0, streams }
    }

    pub(super) fn published_as(sequence: u64, key: &str, epoch: &str) -> Seen {
        Seen::Published { agent: 1, key: key.to_owned(), epoch: epoch.to_owned(), sequence }
    }

    /// A gap of a log that went back, after which the client goes on in another epoch.
    pub(super) fn went_back(verdict: &str, epoch: &str, sequence: u64) -> Seen {
        let (verdict, epoch) = (verdict.to_owned(), Some(epoch.to_owned()));
        Seen::Gap { client: 1, verdict, lost: vec![], epoch, sequence }
    }

    pub(super) fn resumed_as(sequence: u64, epoch: &str) -> Seen {
        Seen::Resumed { client: 1, epoch: Some(epoch.to_owned()), sequence }
    }

    pub(super) fn gap(verdict: &str, lost: &[(u64, u64)], sequence: u64) -> Seen {
        Seen::Gap {
            client: 1,
            verdict: verdict.to_owned(),
            lost: lost.to_vec(),
            epoch: Some("e1".to_owned()),
            sequence,
        }
    }
}
