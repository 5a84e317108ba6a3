//! The store of a core, which answers late, fails, and says that it does not know.

use gapless::storage::{StoreCommand, StoreError, StoreId, Transact, next_batch};

use crate::source::Source;

/// What waits for a store.
pub(crate) struct Desk<C: StoreCommand, S> {
    pub(crate) store: S,
    waiting: Vec<(StoreId, C)>,
    last: u64,
}

/// How many commands are one transaction at most.
const BATCH_MAX: usize = 8;

impl<C: StoreCommand, S: Transact<C>> Desk<C, S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, waiting: Vec::new(), last: 0 }
    }

    pub(crate) fn push(&mut self, id: StoreId, command: C) {
        assert!(id.0 > self.last, "commands are numbered in ascending order");
        self.last = id.0;
        self.waiting.push((id, command));
    }

    /// How many commands wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nothing of what waits is ever answered: the process has ended.
    pub(crate) fn restart(&mut self) {
        self.waiting.clear();
        self.last = 0;
    }

    /// Carries out one transaction, as a driver would choose it: it succeeds, fails, or succeeds or
    /// fails without anybody knowing.
    pub(crate) fn serve(
        &mut self,
        source: &mut Source<'_>,
    ) -> Vec<(StoreId, Result<C::Reply, StoreError>)> {
        let batch = next_batch(&mut self.waiting, 1 + source.below(BATCH_MAX));
        let (ids, commands): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        if ids.is_empty() {
            return Vec::new();
        }
        let result = match source.below(16) {
            13 => Err(StoreError::NotApplied("no space".to_owned())),
            14 => Err(StoreError::Unknown("the disk is gone".to_owned())),
            15 => {
                let _ = self.store.transact(commands);
                Err(StoreError::Unknown("the answer is lost".to_owned()))
            }
            _ => {
                let replies = self.store.transact(commands);
                Ok(replies.unwrap_or_else(|error| panic!("the store refuses: {error}")))
            }
        };
        match result {
            Ok(replies) => {
                assert_eq!(replies.len(), ids.len(), "each command has one reply");
                ids.into_iter().zip(replies.into_iter().map(Ok)).collect()
            }
            Err(error) => ids.into_iter().map(|id| (id, Err(error.clone()))).collect(),
        }
    }
}
