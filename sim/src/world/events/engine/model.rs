//! The engine, as its documentation describes it, without network and clock.
//!
//! It is one stream on three nodes that is never lost: what is acknowledged was committed by a
//! majority, and a majority always comes back. Publishing is a compare-and-set on the last message
//! of a subject, decided when the message is applied. What can go wrong is what the documentation
//! leaves open: an acknowledgement is lost, a message that was not acknowledged is stored later or
//! never, or comes twice; there is no leader for a while; a leader that has been deposed answers
//! reads with what it knew; followers lag, are told again, and lose their place.
//!
//! It draws nothing: each of these happens when a step of the plan says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::log::{Log, Message};
use super::wire::{Answer, FollowFrom, Request};

/// A connection to the engine.
pub(super) type Conn = u64;

/// What the engine is configured with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Config {
    /// How long a majority takes to have a message.
    pub(super) commit_ms: u64,
    /// How many messages of a subject are kept; `None` = all.
    pub(super) per_subject_max: Option<usize>,
}

/// What the engine wants told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// Answer a request.
    Answer { conn: Conn, id: u64, answer: Answer },
    /// A message for a follower, who has the name of its request.
    Follow { conn: Conn, id: u64, message: Message },
    /// A follower has lost its place.
    FollowEnds { conn: Conn, id: u64 },
    /// A message was committed.
    Committed(Message),
    /// Messages of a subject were removed.
    Purged(Arc<str>),
}

/// A message on its way to a majority.
#[derive(Debug, Clone)]
struct Proposal {
    due_ms: u64,
    expected_last: Option<u64>,
    subject: Arc<str>,
    payload: Arc<str>,
    /// Who is told; `None` if nobody is.
    asked: Option<(Conn, u64)>,
}

/// Who follows.
#[derive(Debug)]
struct Follower {
    /// The next number that it is to be given.
    next: u64,
    /// The first number that it was to be given.
    first: u64,
    /// It is shown what has not been committed.
    uncommitted: bool,
}

/// Who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leader {
    Leads,
    /// The old one is gone; nobody has noticed until then.
    Missing {
        noticed_ms: u64,
        elected_ms: u64,
    },
}

/// A leader that goes as soon as something is on its way, and at the latest then.
#[derive(Debug, Clone, Copy)]
struct Doomed {
    until_ms: u64,
    for_ms: u64,
    lost: bool,
}

/// How long an election waits for something to be on its way: what comes at such a time is what it is
/// about.
const DOOMED_MS: u64 = 500;

/// A leader that has been deposed and does not know it.
struct Deposed {
    until_ms: u64,
    /// What it knows.
    log: Log,
}

/// The engine. See the [module](self).
pub(super) struct Model {
    config: Config,
    log: Log,
    leader: Leader,
    doomed: Option<Doomed>,
    /// In the order in which they are applied.
    proposals: VecDeque<Proposal>,
    /// What is applied when its time has come, wherever it was held up.
    late: Vec<Proposal>,
    followers: BTreeMap<(Conn, u64), Follower>,
    /// Who is connected, by the name of the host.
    callers: BTreeMap<Conn, Arc<str>>,
    /// The servers whose requests a deposed leader takes.
    deposed: BTreeMap<Arc<str>, Deposed>,
    /// The servers whose followers get nothing for a while.
    lagging: BTreeMap<Arc<str>, u64>,
    /// How many acknowledgements are lost next.
    lose_acks: u32,
    /// How many messages take effect late next, and how much.
    late_writes: (u32, u64),
    /// How many messages come twice next.
    double_writes: u32,
    full_until_ms: u64,
    outputs: VecDeque<Output>,
}

impl Model {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            log: Log::default(),
            leader: Leader::Leads,
            doomed: None,
            proposals: VecDeque::new(),
            late: Vec::new(),
            followers: BTreeMap::new(),
            callers: BTreeMap::new(),
            deposed: BTreeMap::new(),
            lagging: BTreeMap::new(),
            lose_acks: 0,
            late_writes: (0, 0),
            double_writes: 0,
            full_until_ms: 0,
            outputs: VecDeque::new(),
        }
    }

    /// All nodes start anew with a log.
    pub(super) fn restarted(&self, log: Log) -> Self {
        Self { log, ..Self::new(self.config) }
    }

    /// What is committed.
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // ---- what servers ask --------------------------------------------------------------------

    pub(super) fn connected(&mut self, conn: Conn, host: Arc<str>) {
        self.callers.insert(conn, host);
    }

    pub(super) fn disconnected(&mut self, conn: Conn) {
        self.callers.remove(&conn);
        self.followers.retain(|(of, _), _| *of != conn);
    }

    /// Somebody follows no more.
    pub(super) fn unfollow(&mut self, conn: Conn, id: u64) {
        self.followers.remove(&(conn, id));
    }

    pub(super) fn request(&mut self, now_ms: u64, conn: Conn, id: u64, request: Request) {
        self.advance(now_ms);
        match self.leader {
            Leader::Leads => {}
            Leader::Missing { noticed_ms, .. } if now_ms < noticed_ms => {
                gapless::mark!("engine.unanswered");
                return;
            }
            Leader::Missing { .. } => {
                gapless::mark!("engine.no_leader");
                return self.answer(conn, id, Answer::Unavailable("no leader".to_owned()));
            }
        }
        let deposed = self.callers.get(&conn).is_some_and(|host| self.deposed.contains_key(host));
        match request {
            Request::Publish { subject, expected_last, payload } => {
                if deposed {
                    // It has no majority, and what it has not committed ends with its term.
                    gapless::mark!("engine.written_to_a_deposed_leader");
                    return;
                }
                self.publish(now_ms, (conn, id), subject, expected_last, payload);
            }
            Request::Purge { subject, below } => {
                if deposed {
                    return;
                }
                self.log.purge_below(&subject, below);
                self.outputs.push_back(Output::Purged(subject));
                self.answer(conn, id, Answer::Done);
            }
            Request::Follow { from, uncommitted } => {
                if deposed {
                    // Where a follower is is something that a majority agrees upon.
                    return;
                }
                let first = match from {
                    FollowFrom::New => self.log.last_seq() + 1,
                    // It goes on with what comes next if it is beyond the end.
                    FollowFrom::After(after) => (after + 1).min(self.log.last_seq() + 1),
                };
                self.answer(conn, id, Answer::Follows { last: self.log.last_seq() });
                self.followers.insert((conn, id), Follower { next: first, first, uncommitted });
                self.feed(now_ms);
            }
            Request::Last { .. } | Request::Next { .. } | Request::Page { .. } => {
                if deposed {
                    gapless::mark!("engine.stale_read");
                }
                let answer = self.known_to(conn).read(&request);
                self.answer(conn, id, answer);
            }
        }
    }

    /// What the leader knows to which a connection talks.
    fn known_to(&self, conn: Conn) -> &Log {
        let deposed = self.callers.get(&conn).and_then(|host| self.deposed.get(host));
        deposed.map_or(&self.log, |deposed| &deposed.log)
    }

    fn publish(
        &mut self,
        now_ms: u64,
        asked: (Conn, u64),
        subject: Arc<str>,
        expected_last: Option<u64>,
        payload: Arc<str>,
    ) {
        if now_ms < self.full_until_ms {
            gapless::mark!("engine.full");
            return self.answer(asked.0, asked.1, Answer::Refused("no space is left".to_owned()));
        }
        let due_ms = now_ms + self.config.commit_ms;
        let mut proposal = Proposal { due_ms, expected_last, subject, payload, asked: Some(asked) };
        if self.late_writes.0 > 0 {
            self.late_writes.0 -= 1;
            (proposal.due_ms, proposal.asked) = (now_ms + self.late_writes.1, None);
            self.late.push(proposal);
        } else {
            if self.double_writes > 0 {
                self.double_writes -= 1;
                gapless::mark!("engine.written_twice");
                self.propose(Proposal { asked: None, ..proposal.clone() });
            }
            self.propose(proposal);
            if let Some(doomed) = self.doomed.take() {
                self.fall(now_ms, doomed);
            }
        }
        self.advance(now_ms);
    }

    fn propose(&mut self, proposal: Proposal) {
        let stream_seq = self.log.last_seq() + 1 + self.proposals.len() as u64;
        let Proposal { subject, payload, .. } = &proposal;
        let (subject, payload) = (Arc::clone(subject), Arc::clone(payload));
        let message = Message { stream_seq, subject, payload };
        for (&(conn, id), follower) in &mut self.followers {
            if follower.uncommitted && follower.next <= stream_seq {
                follower.next = stream_seq + 1;
                let message = message.clone();
                self.outputs.push_back(Output::Follow { conn, id, message });
            }
        }
        self.proposals.push_back(proposal);
    }

    fn answer(&mut self, conn: Conn, id: u64, answer: Answer) {
        self.outputs.push_back(Output::Answer { conn, id, answer });
    }

    // ---- time --------------------------------------------------------------------------------

    /// When [`advance`](Self::advance) has something to do at the latest.
    pub(super) fn deadline(&self) -> Option<u64> {
        let proposal = self.proposals.front().map(|proposal| proposal.due_ms);
        let proposal = proposal.filter(|_| self.leader == Leader::Leads);
        let elected = match self.leader {
            Leader::Leads => None,
            Leader::Missing { elected_ms, .. } => Some(elected_ms),
        };
        let late = self.late.iter().map(|proposal| proposal.due_ms).min();
        let deposed = self.deposed.values().map(|deposed| deposed.until_ms).min();
        let lagging = self.lagging.values().copied().min();
        let doomed = self.doomed.map(|doomed| doomed.until_ms);
        [proposal, elected, late, deposed, lagging, doomed].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, now_ms: u64) {
        if let Leader::Missing { elected_ms, .. } = self.leader
            && elected_ms <= now_ms
        {
            self.leader = Leader::Leads;
        }
        if let Some(doomed) = self.doomed.take_if(|doomed| doomed.until_ms <= now_ms) {
            self.fall(now_ms, doomed);
        }
        self.deposed.retain(|_, deposed| deposed.until_ms > now_ms);
        self.lagging.retain(|_, until_ms| *until_ms > now_ms);
        if self.leader == Leader::Leads {
            let (due, late): (Vec<_>, Vec<_>) =
                self.late.drain(..).partition(|proposal| proposal.due_ms <= now_ms);
            self.late = late;
            for proposal in due {
                gapless::mark!("engine.written_late");
                self.propose(proposal);
            }
            while let Some(proposal) =
                self.proposals.pop_front_if(|proposal| proposal.due_ms <= now_ms)
            {
                self.apply(proposal);
            }
        }
        self.feed(now_ms);
    }

    fn apply(&mut self, proposal: Proposal) {
        let Proposal { expected_last, subject, payload, asked, .. } = proposal;
        if expected_last.is_some_and(|expected| self.log.last_seq_of(&subject) != expected) {
            gapless::mark!("engine.wrong_last");
            if let Some((conn, id)) = asked {
                self.answer(conn, id, Answer::WrongLast);
            }
            return;
        }
        let message = self.log.append(&subject, payload);
        if let Some(max) = self.config.per_subject_max {
            self.log.keep_newest(&subject, max);
        }
        let stream_seq = message.stream_seq;
        self.outputs.push_back(Output::Committed(message));
        let Some((conn, id)) = asked else { return };
        if self.lose_acks > 0 {
            self.lose_acks -= 1;
            gapless::mark!("engine.acknowledgement_lost");
            return;
        }
        self.answer(conn, id, Answer::Stored(stream_seq));
    }

    /// Gives followers what they are to have.
    fn feed(&mut self, now_ms: u64) {
        for (&(conn, id), follower) in &mut self.followers {
            let host = self.callers.get(&conn);
            let waits = host.is_some_and(|host| {
                self.deposed.contains_key(host) || self.lagging.get(host) > Some(&now_ms)
            });
            if waits {
                continue;
            }
            while let Some(message) = self.log.from(follower.next) {
                follower.next = message.stream_seq + 1;
                let message = message.clone();
                self.outputs.push_back(Output::Follow { conn, id, message });
            }
        }
    }

    // ---- what goes wrong ---------------------------------------------------------------------

    /// The leader goes, and another one leads `for_ms` later. Half of that time nobody has noticed.
    /// What had no majority yet is lost, or found by the next leader and committed without anybody
    /// being told; if there is no such thing, the leader waits for it for a moment.
    pub(super) fn elect(&mut self, now_ms: u64, for_ms: u64, lost: bool) {
        self.advance(now_ms);
        let doomed = Doomed { until_ms: now_ms + DOOMED_MS, for_ms, lost };
        match self.proposals.is_empty() {
            true => self.doomed = Some(doomed),
            false => self.fall(now_ms, doomed),
        }
    }

    fn fall(&mut self, now_ms: u64, Doomed { for_ms, lost, .. }: Doomed) {
        let (noticed_ms, elected_ms) = (now_ms + for_ms / 2, now_ms + for_ms);
        self.leader = Leader::Missing { noticed_ms, elected_ms };
        if lost {
            if !self.proposals.is_empty() {
                gapless::mark!("engine.proposal_lost");
            }
            self.proposals.clear();
        }
        for proposal in &mut self.proposals {
            gapless::mark!("engine.proposal_in_doubt");
            proposal.asked = None;
        }
    }

    /// For a while the requests of a server go to a leader that has just been deposed.
    pub(super) fn depose(&mut self, now_ms: u64, host: &str, for_ms: u64) {
        self.advance(now_ms);
        let deposed = Deposed { until_ms: now_ms + for_ms, log: self.log.clone() };
        self.deposed.insert(host.into(), deposed);
    }

    /// The followers of a server get nothing for a while.
    pub(super) fn lag(&mut self, now_ms: u64, host: &str, for_ms: u64) {
        self.lagging.insert(host.into(), now_ms + for_ms);
    }

    pub(super) fn lose_acks(&mut self, times: u32) {
        self.lose_acks += times;
    }

    pub(super) fn late_writes(&mut self, times: u32, after_ms: u64) {
        self.late_writes = (self.late_writes.0 + times, after_ms);
    }

    pub(super) fn double_writes(&mut self, times: u32) {
        self.double_writes += times;
    }

    /// Nothing more can be stored for a while.
    pub(super) fn fill(&mut self, now_ms: u64, for_ms: u64) {
        self.full_until_ms = now_ms + for_ms;
    }

    /// The followers of a server are told the newest messages again.
    pub(super) fn redeliver(&mut self, now_ms: u64, host: &str, messages: u64) {
        for ((conn, _), follower) in &mut self.followers {
            if self.callers.get(conn).is_some_and(|name| **name == *host) {
                gapless::mark!("engine.redelivered");
                follower.next = follower.next.saturating_sub(messages).max(follower.first);
            }
        }
        self.feed(now_ms);
    }

    /// The followers of a server lose their place.
    pub(super) fn break_follow(&mut self, host: &str) {
        let is_of = |conn: &Conn| self.callers.get(conn).is_some_and(|name| **name == *host);
        let broken: Vec<(Conn, u64)> =
            self.followers.keys().filter(|(conn, _)| is_of(conn)).copied().collect();
        for (conn, id) in broken {
            gapless::mark!("engine.follower_broken");
            self.followers.remove(&(conn, id));
            self.outputs.push_back(Output::FollowEnds { conn, id });
        }
    }

    /// Nothing goes wrong any more. What was held up comes when it would have.
    pub(super) fn heal(&mut self, now_ms: u64) {
        if self.leader != Leader::Leads {
            self.leader = Leader::Missing { noticed_ms: now_ms, elected_ms: now_ms };
        }
        self.doomed = None;
        self.deposed.clear();
        self.lagging.clear();
        (self.lose_acks, self.late_writes.0, self.double_writes) = (0, 0, 0);
        self.full_until_ms = 0;
        self.advance(now_ms);
    }
}

impl Log {
    /// The answer to a request that changes nothing.
    fn read(&self, request: &Request) -> Answer {
        match request {
            Request::Last { subject } => Answer::Message(self.last(subject).cloned()),
            Request::Next { subject, from } => {
                Answer::Message(self.of(subject, *from).next().cloned())
            }
            Request::Page { subject, from, messages_max, bytes_max } => {
                let (mut page, mut bytes) = (Vec::new(), 0);
                for message in self.of(subject, *from).take(*messages_max) {
                    bytes += message.payload.len();
                    page.push(message.clone());
                    if bytes >= *bytes_max {
                        break;
                    }
                }
                Answer::Page(page)
            }
            Request::Publish { .. } | Request::Purge { .. } | Request::Follow { .. } => {
                Answer::Done
            }
        }
    }
}

#[cfg(test)]
mod tests;
