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

impl<E: Engine> Shared<E> {
    /// Joins the current epoch of the log, or begins another one if there is none or it is broken.
    pub(super) async fn open_epoch(
        &self,
        proposed: Epoch,
        broken: Option<Epoch>,
    ) -> Result<Reply, StoreError> {
        self.confirm().await?;
        let broken = broken.or_else(|| {
            let state = self.state();
            let joined = state.joined.as_ref().and_then(Record::current).cloned();
            joined.filter(|_| state.went_back)
        });
        let known = {
            let state = self.state();
            state.joined.as_ref().map(|joined| joined.epochs.0.clone()).unwrap_or_default()
        };
        for _ in 0..ATTEMPTS_MAX {
            let record = self.record().await?;
            if let Some(record) = &record
                && let Some(current) = record.current()
                // Another one followed the broken epoch, or was begun when the log had gone back. One
                // that was known before is of the time to which it went back.
                && broken.as_ref().is_none_or(|broken| {
                    broken != current
                        && (record.epochs.0.contains(broken) || !known.contains(current))
                })
            {
                mark!("cluster.epoch_joined");
                let current = current.clone();
                self.join(record.clone());
                return Ok(Reply::EpochOpened(current));
            }
            let (last, mut epochs) = match record {
                Some(record) => (record.stream_seq, record.epochs.0),
                None => (0, Vec::new()),
            };
            epochs.extend(broken.clone().filter(|broken| !epochs.contains(broken)));
            epochs.push(proposed.clone());
            epochs.drain(..epochs.len().saturating_sub(self.config.epochs_max.max(2)));
            let epochs = Epochs(epochs);
            match self.engine.publish(&self.subjects.epoch, last, epochs.to_payload()).await {
                Ok(stream_seq) => {
                    mark!("cluster.epoch_begun");
                    self.join(Record { stream_seq, epochs });
                    return Ok(Reply::EpochOpened(proposed));
                }
                Err(PublishFailure::WrongLast) => mark!("cluster.epoch_raced"),
                Err(PublishFailure::Refused(problem)) => {
                    return Err(StoreError::NotApplied(problem));
                }
                Err(PublishFailure::Unknown(problem)) => return Err(StoreError::Unknown(problem)),
            }
        }
        Err(StoreError::NotApplied("other servers open epochs all the time".to_owned()))
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

    /// The engine does not hold what it has shown: nothing more is appended in this epoch.
    pub(super) fn went_back(&self) {
        mark!("cluster.engine_went_back");
        let mut state = self.state();
        if !state.went_back {
            state.went_back = true;
            state.forget();
            self.gone_back.notify_one();
        }
    }
}
