//! A store of the reference as a node: it changes in memory at once, and what it answers is held
//! back until the simulator has made the changes durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gapless::storage::{StoreCommand, StoreError, StoreId, Transact};

use crate::conform::protocol::{Effect, StoreProblem};

/// What a store holds: bytes by key, and which of them are durable. Cheap to clone; all clones are the
/// same rows.
#[derive(Clone, Default)]
pub(super) struct Rows(Arc<Mutex<RowsState>>);

#[derive(Default)]
struct RowsState {
    now: BTreeMap<String, Vec<u8>>,
    durable: BTreeMap<String, Vec<u8>>,
}

impl Rows {
    /// What earlier lives have committed.
    ///
    /// # Errors
    ///
    /// A sentence, if something is no base64.
    pub(super) fn load(storage: &BTreeMap<String, String>) -> Result<Self, String> {
        let decode = |(key, text): (&String, &String)| {
            let value = STANDARD.decode(text).map_err(|error| format!("`{key}`: {error}"))?;
            Ok((key.clone(), value))
        };
        let durable: BTreeMap<_, _> = storage.iter().map(decode).collect::<Result<_, String>>()?;
        Ok(Self(Arc::new(Mutex::new(RowsState { now: durable.clone(), durable }))))
    }

    fn state(&self) -> MutexGuard<'_, RowsState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.state().now.get(key).cloned()
    }

    pub(super) fn put(&self, key: String, value: Vec<u8>) {
        self.state().now.insert(key, value);
    }

    pub(super) fn take_away(&self, key: &str) {
        self.state().now.remove(key);
    }

    /// The rows whose key begins so, ascending.
    pub(super) fn of(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let state = self.state();
        let rows = state.now.range(prefix.to_owned()..);
        let rows = rows.take_while(|(key, _)| key.starts_with(prefix));
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// What is to be made durable.
    fn changes(&self) -> BTreeMap<String, Option<String>> {
        let state = self.state();
        let changed = state.now.iter().filter(|(key, value)| state.durable.get(*key) != Some(value));
        let changed = changed.map(|(key, value)| (key.clone(), Some(STANDARD.encode(value))));
        let gone = state.durable.keys().filter(|key| !state.now.contains_key(*key));
        changed.chain(gone.map(|key| (key.clone(), None))).collect()
    }

    /// It is durable now, or it never was.
    fn settle(&self, stored: bool) {
        let RowsState { now, durable } = &mut *self.state();
        match stored {
            true => durable.clone_from(now),
            false => now.clone_from(durable),
        }
    }
}

/// How many commands are joined to one transaction.
const BATCH_MAX: usize = 64;

/// The transactions of a store: one at a time, of everything that has come together meanwhile.
pub(super) struct Transactions<C: StoreCommand> {
    /// The store over the rows, or a distorted one.
    store: Box<dyn Transact<C>>,
    rows: Rows,
    waiting: VecDeque<(StoreId, C)>,
    running: Option<Running<C::Reply>>,
    commits: u64,
}

struct Running<R> {
    commit: u64,
    ids: Vec<StoreId>,
    result: Result<Vec<R>, StoreError>,
}

/// What came of commands, in their order.
pub(super) type Replies<R> = Vec<(StoreId, Result<R, StoreError>)>;

impl<C: StoreCommand> Transactions<C> {
    pub(super) fn new(store: Box<dyn Transact<C>>, rows: Rows) -> Self {
        Self { store, rows, waiting: VecDeque::new(), running: None, commits: 0 }
    }

    pub(super) fn push(&mut self, id: StoreId, command: C) {
        self.waiting.push_back((id, command));
    }

    /// Begins the next transaction if none runs and something waits; its commit.
    pub(super) fn begin(&mut self) -> Option<(u64, Effect)> {
        if self.running.is_some() {
            return None;
        }
        let read_only = self.waiting.front()?.1.is_read_only();
        let (mut ids, mut commands) = (Vec::new(), Vec::new());
        while ids.len() < BATCH_MAX
            && let Some((id, command)) =
                self.waiting.pop_front_if(|(_, command)| command.is_read_only() == read_only)
        {
            ids.push(id);
            commands.push(command);
        }
        let result = self.store.transact(commands);
        let (commit, effect) = self.commit();
        self.running = Some(Running { commit, ids, result });
        Some((commit, effect))
    }

    /// Commits what has changed. Without a change it takes the time of a look into the store.
    pub(super) fn commit(&mut self) -> (u64, Effect) {
        self.commits += 1;
        (self.commits, Effect::StoreCommit { id: self.commits, writes: self.rows.changes() })
    }

    /// A commit is done; the replies that waited for it.
    pub(super) fn done(&mut self, commit: u64, error: Option<StoreProblem>) -> Replies<C::Reply> {
        self.rows.settle(error.is_none());
        let Some(running) = self.running.take_if(|running| running.commit == commit) else {
            return Vec::new();
        };
        let result = match error {
            None => running.result,
            Some(StoreProblem::NotApplied) => {
                Err(StoreError::NotApplied("nothing of it is stored".to_owned()))
            }
            Some(StoreProblem::Unknown) => {
                Err(StoreError::Unknown("it may be there after a restart".to_owned()))
            }
        };
        let ids = running.ids.into_iter();
        match result {
            Ok(replies) => ids.zip(replies.into_iter().map(Ok)).collect(),
            Err(error) => ids.map(|id| (id, Err(error.clone()))).collect(),
        }
    }
}
