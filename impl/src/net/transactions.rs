//! The transactions of a driver: one at a time, of everything that has come together meanwhile.

use std::pin::Pin;

use crate::storage::{Store, StoreCommand, StoreError, StoreId, next_batch};

/// Commands that wait for a store, and the transaction that is running.
pub(crate) struct Transactions<C: StoreCommand, S> {
    /// Here, or inside the transaction that is running.
    store: Option<S>,
    /// How many commands are joined to one transaction.
    batch_max: usize,
    waiting: Vec<(StoreId, C)>,
    running: Option<Running<C, S>>,
}

type Running<C, S> = Pin<Box<dyn Future<Output = Done<C, S>> + Send>>;

type Done<C, S> = (S, Vec<StoreId>, Result<Vec<<C as StoreCommand>::Reply>, StoreError>);

/// What came of the commands of a transaction, in their order.
pub(crate) type Replies<C> = Vec<(StoreId, Result<<C as StoreCommand>::Reply, StoreError>)>;

impl<C: StoreCommand, S: Store<C>> Transactions<C, S> {
    pub(crate) fn new(store: S, batch_max: usize) -> Self {
        Self { store: Some(store), batch_max, waiting: Vec::new(), running: None }
    }

    /// Whether nothing runs and nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    /// How many commands wait for the next transactions.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn push(&mut self, id: StoreId, command: C) {
        self.waiting.push((id, command));
    }

    /// Waits for the end of the transaction that runs, or that can be made; for ever if there is
    /// nothing to do. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Replies<C> {
        self.start();
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let (store, ids, result) = running.await;
        self.running = None;
        self.store = Some(store);
        match result {
            Ok(replies) => ids.into_iter().zip(replies.into_iter().map(Ok)).collect(),
            Err(error) => {
                tracing::error!(%error, "a transaction failed");
                ids.into_iter().map(|id| (id, Err(error.clone()))).collect()
            }
        }
    }

    /// What waits becomes a transaction.
    fn start(&mut self) {
        if self.running.is_some() || self.waiting.is_empty() {
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        let batch = next_batch(&mut self.waiting, self.batch_max);
        let (ids, commands) = batch.into_iter().unzip();
        self.running = Some(Box::pin(async move {
            let result = store.run(commands).await;
            (store, ids, result)
        }));
    }
}
