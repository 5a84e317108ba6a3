//! What a server does differently because others append to its log as well.
//!
//! It follows the log: what any server appended comes as [`Input::Followed`](super::Input::Followed),
//! its own events too, and each is shown once, by whichever tells of it first. What it knows of a
//! stream can lag behind what a client has seen elsewhere, so a cursor beyond it is judged only by a
//! state that the log has confirmed [EV-14].
//!
//! A log that is away makes the server stop: clients are told to come back later, and publications
//! are refused before anything is tried with them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{EpochPhase, Pending, Server, Timer};
use crate::events::log::{Command, Reply};
use crate::events::wire::EventBody;
use crate::events::{AgentId, CloseCode};
use crate::mark;
use crate::recovery::{Epoch, Instant};
use crate::storage::StoreError;

/// The limits of a server whose log others append to as well.
#[derive(Debug, Clone)]
pub struct SharedLog {
    /// How long the log may fail before clients are told to come back later: 5 s.
    pub engine_patience: Duration,
    /// How many streams are read again at once: 256.
    pub loads_max: usize,
}

impl Default for SharedLog {
    fn default() -> Self {
        Self { engine_patience: Duration::from_secs(5), loads_max: 256 }
    }
}

/// The state of a server towards a shared log.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// The epoch that was joined last.
    joined: Option<Epoch>,
    /// An epoch in which the log went back, until another one is open.
    broken: Option<Epoch>,
    /// The newest epoch that was seen while one was being opened.
    seen: Option<Epoch>,
    /// What others append is told.
    following: bool,
    /// The last command that the log was given failed.
    failing: bool,
    /// Clients were told to come back later.
    away: bool,
    /// Streams that wait for being read again.
    doubted: BTreeSet<AgentId>,
    /// How many reads of a stream's state the log has not answered.
    loads: usize,
}

impl Sharing {
    pub(super) fn is_away(&self) -> bool {
        self.away
    }

    pub(super) fn broken(&self) -> Option<Epoch> {
        self.broken.clone()
    }
}

impl Server {
    // ---- the epoch of the log ----------------------------------------------------------------

    /// An epoch of the log was joined. What is known of streams may be of the one before.
    pub(super) fn joined(&mut self, now: Instant, epoch: &Epoch) {
        self.sharing.broken = None;
        let before = self.sharing.joined.replace(epoch.clone());
        if before.is_some_and(|before| before != *epoch) {
            mark!("cluster.joined_another_epoch");
            let begun = self.connections.iter().filter(|(_, connection)| connection.begun);
            for conn in begun.map(|(conn, _)| *conn).collect::<Vec<_>>() {
                self.close(conn, CloseCode::RESUME, "the log has another epoch");
            }
            // What was seen in the other one is no measure of this one.
            for stream in self.streams.values_mut() {
                stream.head_seen = 0;
            }
        }
        if !self.sharing.following {
            self.troubled(now);
        }
        self.doubt_all();
        if self.sharing.seen.take().is_some_and(|seen| seen != *epoch) {
            self.open_epoch();
        }
        self.worked();
    }

    /// The log is written in this epoch, as somebody has seen.
    pub(super) fn epoch_changed(&mut self, epoch: Epoch) {
        match &self.epoch {
            EpochPhase::Open(open) if *open == epoch => {}
            EpochPhase::Open(_) => self.open_epoch(),
            EpochPhase::Opening(_) => self.sharing.seen = Some(epoch),
            EpochPhase::Waiting => {}
        }
    }

    /// The log went back, so the numbers of the epoch may be given again.
    pub(super) fn broke(&mut self) {
        self.sharing.broken = self.sharing.joined.clone();
    }

    // ---- following ---------------------------------------------------------------------------

    pub(super) fn follow_begun(&mut self, resumed: bool) {
        self.sharing.following = true;
        // Whatever failed before is tried again by whoever needs it.
        self.sharing.failing = false;
        if !resumed {
            mark!("cluster.follow_begun_anew");
            self.doubt_all();
        }
        self.load_doubted();
        self.worked();
    }

    pub(super) fn follow_broken(&mut self, now: Instant) {
        mark!("cluster.follow_broken");
        self.sharing.following = false;
        self.troubled(now);
    }

    pub(super) fn followed(
        &mut self,
        now: Instant,
        agent: &AgentId,
        first: u64,
        events: &[EventBody],
        epoch: &Epoch,
    ) {
        // Something was stored since, so the log works.
        self.sharing.failing = false;
        self.worked();
        let Some(stream) = self.streams.get(agent) else { return };
        let of_its_lineage =
            |known: &super::Known| known.lineage.rows().iter().any(|row| row.epoch == *epoch);
        match &stream.known {
            Some(known) if !of_its_lineage(known) => {
                mark!("cluster.followed_unknown_epoch");
                self.doubt(agent);
            }
            Some(known) => {
                if first > known.head + 1 {
                    mark!("cluster.follow_with_a_hole");
                }
                let oldest = known.oldest;
                self.show(now, agent, epoch, first, oldest, events);
            }
            None => self.show(now, agent, epoch, first, 1, events),
        }
    }

    // ---- streams in doubt --------------------------------------------------------------------

    /// Asks the log for the stream as it surely is.
    pub(super) fn confirm(&mut self, agent: &AgentId) {
        if let Some(stream) = self.streams.get_mut(agent) {
            stream.confirm = true;
            stream.known = None;
            self.load(agent);
        }
    }

    /// Everything that is known of streams may have a hole.
    fn doubt_all(&mut self) {
        for agent in self.streams.keys().cloned().collect::<Vec<_>>() {
            self.doubt(&agent);
        }
    }

    /// Nothing of the stream is served until it has been read again.
    fn doubt(&mut self, agent: &AgentId) {
        let Some(stream) = self.streams.get_mut(agent) else { return };
        if stream.connections.is_empty() {
            self.forget_stream(agent);
            return;
        }
        stream.known = None;
        stream.loading = None;
        self.sharing.doubted.insert(agent.clone());
        self.load_doubted();
    }

    fn load_doubted(&mut self) {
        // Nothing is said of a stream before it is known that the log is the one of before.
        if !self.sharing.following {
            return;
        }
        let loads_max = self.config.shared.as_ref().map_or(usize::MAX, |shared| shared.loads_max);
        while self.sharing.loads < loads_max
            && let Some(agent) = self.sharing.doubted.pop_first()
        {
            if self.streams.contains_key(&agent) {
                self.load(&agent);
            }
        }
    }

    /// Asks the log for the state of a stream, once it is followed; only the newest answer counts.
    pub(super) fn load(&mut self, agent: &AgentId) {
        if self.config.shared.is_some() && !self.sharing.following {
            self.sharing.doubted.insert(agent.clone());
            return;
        }
        let confirmed = self.streams.get(agent).is_some_and(|stream| stream.confirm);
        let command = Command::Load { agent: agent.clone(), confirmed };
        let id = self.store(Pending::Load(agent.clone()), command);
        self.sharing.loads += 1;
        if let Some(stream) = self.streams.get_mut(agent) {
            stream.loading = Some(id);
            stream.floor = stream.head_seen;
        }
    }

    pub(super) fn load_answered(&mut self) {
        self.sharing.loads -= 1;
        self.load_doubted();
    }

    // ---- a log that is away ------------------------------------------------------------------

    /// A command failed, or others are not heard of.
    pub(super) fn troubled(&mut self, now: Instant) {
        if let Some(shared) = &self.config.shared
            && !self.sharing.away
            && self.timers.get(Timer::EnginePatience).is_none()
        {
            self.timers.set(Timer::EnginePatience, now + shared.engine_patience);
        }
    }

    /// What the answer to a command shows of the log. That one event was not stored may be due to
    /// the event, or to a limit.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        pending: &Pending,
        result: &Result<Reply, StoreError>,
    ) {
        match (pending, result) {
            (Pending::Append(..), Err(StoreError::NotApplied(_))) => {}
            (_, Err(_)) => {
                self.sharing.failing = true;
                self.troubled(now);
            }
            (_, Ok(_)) => {
                self.sharing.failing = false;
                self.worked();
            }
        }
    }

    fn worked(&mut self) {
        if !self.sharing.following || self.sharing.failing {
            return;
        }
        self.timers.stop(Timer::EnginePatience);
        if self.sharing.away && matches!(self.epoch, EpochPhase::Open(_)) {
            mark!("cluster.log_back");
            self.sharing.away = false;
            self.outputs.push_back(super::Output::Available(true));
        }
    }

    /// The log was away for longer than clients are kept waiting.
    pub(super) fn log_away(&mut self, now: Instant) {
        mark!("cluster.log_away");
        self.sharing.away = true;
        self.outputs.push_back(super::Output::Available(false));
        for conn in self.connections.keys().copied().collect::<Vec<_>>() {
            self.close(conn, CloseCode::TRY_AGAIN_LATER, "the log is away");
        }
        self.forget_streams();
        if let EpochPhase::Open(_) = self.epoch {
            self.wait_for_the_log(now);
        }
    }

    pub(super) fn forget_streams(&mut self) {
        self.streams.clear();
        self.idle_streams.clear();
        self.sharing.doubted.clear();
    }

    fn forget_stream(&mut self, agent: &AgentId) {
        if let Some(stream) = self.streams.remove(agent) {
            self.idle_streams.remove(&(stream.last_use, agent.clone()));
        }
    }
}
