//! The epochs of a log: one after the other, for all of its servers.

use super::engine::{Engine, PublishFailure};
use super::log::{Record, Shared};
use super::message::Epochs;
use crate::events::log::Reply;
use crate::mark;
use crate::recovery::Epoch;
use crate::storage::StoreError;

/// How often somebody else may be first.
const ATTEMPTS_MAX: u32 = 8;

/// Why no epoch is open after all of them.
const RACED: &str = "other servers open epochs all the time";

impl Epochs {
    /// Whether an epoch was current once, as far as remembered.
    pub(super) fn has_had(&self, epoch: &Epoch) -> bool {
        self.begun.contains(epoch) || self.broken.contains(epoch)
    }

    /// None of the epochs goes on, nor any that somebody has known beside them.
    fn break_with(&mut self, known: &Self, broken: &Epoch) {
        let begun = std::mem::take(&mut self.begun);
        let others = known.broken.iter().chain(&known.begun).chain([broken]).cloned();
        for epoch in begun.into_iter().chain(others) {
            if !self.broken.contains(&epoch) {
                self.broken.push(epoch);
            }
        }
    }

    /// Forgets the oldest beyond so many of each kind.
    fn keep_newest(&mut self, epochs_max: usize) {
        for epochs in [&mut self.begun, &mut self.broken] {
            epochs.drain(..epochs.len().saturating_sub(epochs_max.max(2)));
        }
    }
}

/// The place and the content of a record that may not be there.
fn split(record: Option<Record>) -> (u64, Epochs) {
    record.map_or_else(Default::default, |record| (record.stream_seq, record.epochs))
}

impl<E: Engine> Shared<E> {
    /// Joins the current epoch of the log, or begins another one if there is none or it is broken. No
    /// epoch of before goes on in that one: what was stored since the log went back is not known.
    pub(super) async fn open_epoch(
        &self,
        proposed: Epoch,
        broken: Option<Epoch>,
    ) -> Result<Reply, StoreError> {
        self.confirm().await?;
        let (broken, known) = {
            let state = self.state();
            let current = state.joined.as_ref().and_then(Record::current);
            // Another one may have been joined since, which whoever asks does not know yet.
            let broken = broken.filter(|broken| current.is_none_or(|current| current == broken));
            let broken = broken.or_else(|| current.cloned().filter(|_| state.went_back));
            let known = state.joined.as_ref().map(|joined| joined.epochs.clone());
            (broken, known.unwrap_or_default())
        };
        for _ in 0..ATTEMPTS_MAX {
            let record = self.record().await?;
            if let Some(record) = &record
                && let Some(current) = record.current()
                // Another one followed the broken epoch, or was begun when the log had gone back. One
                // that was known before is of the time to which it went back.
                && broken.as_ref().is_none_or(|broken| {
                    broken != current
                        && (record.epochs.has_had(broken) || !known.has_had(current))
                })
            {
                mark!("cluster.epoch_joined");
                let current = current.clone();
                self.join(record.clone());
                return Ok(Reply::EpochOpened(current));
            }
            let (last, mut epochs) = split(record);
            if let Some(broken) = &broken {
                mark!("cluster.epochs_broken");
                epochs.break_with(&known, broken);
            }
            if let Some(record) = self.begin_epoch(last, epochs, &proposed).await? {
                self.join(record);
                return Ok(Reply::EpochOpened(proposed));
            }
        }
        Err(StoreError::NotApplied(RACED.to_owned()))
    }

    /// Begins another epoch, in which those of before go on.
    pub(super) async fn new_epoch(&self, proposed: Epoch) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            self.confirm().await?;
            let (last, epochs) = split(self.record().await?);
            if self.begin_epoch(last, epochs, &proposed).await?.is_some() {
                return Ok(());
            }
        }
        Err(StoreError::NotApplied(RACED.to_owned()))
    }

    /// Stores a record that ends with an epoch; `None` if somebody else was first.
    async fn begin_epoch(
        &self,
        last: u64,
        mut epochs: Epochs,
        proposed: &Epoch,
    ) -> Result<Option<Record>, StoreError> {
        epochs.begun.push(proposed.clone());
        epochs.keep_newest(self.config.epochs_max);
        match self.engine.publish(&self.subjects.epoch, last, epochs.to_payload()).await {
            Ok(stream_seq) => {
                mark!("cluster.epoch_begun");
                Ok(Some(Record { stream_seq, epochs }))
            }
            Err(PublishFailure::WrongLast) => {
                mark!("cluster.epoch_raced");
                Ok(None)
            }
            Err(PublishFailure::Refused(problem)) => Err(StoreError::NotApplied(problem)),
            Err(PublishFailure::Unknown(problem)) => Err(StoreError::Unknown(problem)),
        }
    }

    /// The record of the log's epochs; `None` before the first.
    pub(super) async fn record(&self) -> Result<Option<Record>, StoreError> {
        match self.engine.last(&self.subjects.epoch).await? {
            Some(stored) => {
                let (stream_seq, epochs) = (stored.stream_seq, Epochs::parse(&stored)?);
                Ok(Some(Record { stream_seq, epochs }))
            }
            None => Ok(None),
        }
    }

    fn join(&self, record: Record) {
        let mut state = self.state();
        let before = state.joined.as_ref().and_then(Record::current);
        if before != record.current() || state.went_back {
            state.joins += 1;
            state.forget();
        }
        state.went_back = false;
        state.newest = Some(record.clone());
        state.joined = Some(record);
    }

    /// Proves that what is read from here on has everything that was acknowledged before, by a
    /// message that the engine acknowledges and then shows. Returns its stream sequence.
    pub(super) async fn confirm(&self) -> Result<u64, StoreError> {
        let _one_at_a_time = self.barrier.lock().await;
        let barrier = &self.subjects.barrier;
        let stored = self.place_barrier().await?;
        let shown = self.engine.last(barrier).await?;
        if shown.is_none_or(|shown| shown.stream_seq < stored) {
            mark!("cluster.stale_leader");
            let problem = "the leader of the engine does not show what it acknowledged";
            return Err(StoreError::NotApplied(problem.to_owned()));
        }
        // What remains if that fails is one small message.
        if let Err(error) = self.engine.purge_below(barrier, stored).await {
            tracing::debug!(%error, "an older barrier stays");
        }
        Ok(stored)
    }

    async fn place_barrier(&self) -> Result<u64, StoreError> {
        let barrier = &self.subjects.barrier;
        for _ in 0..ATTEMPTS_MAX {
            let last = self.engine.last(barrier).await?.map_or(0, |stored| stored.stream_seq);
            match self.engine.publish(barrier, last, b"{}".to_vec()).await {
                Ok(stored) => return Ok(stored),
                // An earlier one of unknown outcome, or of one of the few servers with the same subject.
                Err(PublishFailure::WrongLast) => {}
                Err(failure) => return Err(StoreError::NotApplied(failure.to_string())),
            }
        }
        Err(StoreError::NotApplied("no barrier can be stored".to_owned()))
    }

    /// The engine does not hold what it had shown when so many epochs had been joined: nothing more is
    /// appended in the last of them.
    pub(super) fn went_back(&self, joins: u64) {
        let mut state = self.state();
        if !state.went_back && state.joins == joins {
            mark!("cluster.engine_went_back");
            state.went_back = true;
            state.forget();
            self.gone_back.notify_one();
        }
    }
}
