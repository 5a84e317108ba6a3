//! The log of event streams on a storage engine.
//!
//! A message has the events that are appended to one stream at once, with their numbers, and is
//! published after the last one that is known: so numbers have neither holes nor repetitions,
//! whoever appends. Commands of a run are no transaction; each has its own reply.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, future, stream};
use lru::LruCache;
use tokio::sync::Notify;

use super::engine::{Engine, EngineError, Stored};
use super::follower::EngineFollower;
use super::index::{Applied, Index};
use super::message::{Damaged, Epochs, Message, Subjects};
use crate::events::AgentId;
use crate::events::log::{Append, Command, Reply};
use crate::mark;
use crate::recovery::{BackoffConfig, Entropy, Epoch, random_hex_128};
use crate::storage::{Store, StoreError};

/// The limits of a log on an engine. The defaults are those of the specification.
#[derive(Debug, Clone)]
pub struct EngineLogConfig {
    /// What all subjects begin with: `gapless`.
    pub prefix: String,
    /// How many of the newest events of a stream have their ids remembered: 4,096.
    pub ids_max: u64,
    /// How many ids are kept in memory, of all streams that are appended to: 500,000. Those of the
    /// streams that were not used for longest are read again when they are needed.
    pub ids_total_max: usize,
    /// Of how many streams the end is kept in memory: 10,000.
    pub streams_max: NonZeroUsize,
    /// Of how many numbers it is remembered where they are: 100,000.
    pub places_max: NonZeroUsize,
    /// How many epochs are remembered: 64.
    pub epochs_max: usize,
    /// The largest message that holds more than one event, in bytes: 512 KiB.
    pub message_bytes: usize,
    /// How often an append gives way to another server's before it is refused: 64.
    pub conflicts_max: u32,
    /// How often an append of unknown outcome is looked for and tried again: 3.
    pub doubts_max: u32,
    /// How many reads are with the engine at once: 32.
    pub reads_max: usize,
    /// How many messages one command removes at most: 256.
    pub removals_max: usize,
    /// How many messages are read at once: 1,024.
    pub page_messages: usize,
    /// The same in bytes: 1 MiB.
    pub page_bytes: usize,
    /// The pauses between attempts to follow: 100 ms to 2 s.
    pub follow_retry: BackoffConfig,
}

impl Default for EngineLogConfig {
    fn default() -> Self {
        Self {
            prefix: "gapless".to_owned(),
            ids_max: 4_096,
            ids_total_max: 500_000,
            streams_max: NonZeroUsize::new(10_000).expect("not zero"),
            places_max: NonZeroUsize::new(100_000).expect("not zero"),
            epochs_max: 64,
            message_bytes: 512 << 10,
            conflicts_max: 64,
            doubts_max: 3,
            reads_max: 32,
            removals_max: 256,
            page_messages: 1_024,
            page_bytes: 1 << 20,
            follow_retry: BackoffConfig {
                min: std::time::Duration::from_millis(100),
                max: std::time::Duration::from_secs(2),
                jitter_percent: 25,
            },
        }
    }
}

/// The log on an engine, which other servers append to as well.
pub struct EngineLog<E> {
    shared: Arc<Shared<E>>,
}

/// What the log and its follower have in common.
pub(super) struct Shared<E> {
    pub(super) engine: E,
    pub(super) config: EngineLogConfig,
    pub(super) subjects: Subjects,
    /// What the attempts of this process to append are called, before their number.
    pub(super) server: String,
    state: Mutex<State>,
    /// Held by whoever places a barrier.
    pub(super) barrier: tokio::sync::Mutex<()>,
    /// The log was found to have gone back.
    pub(super) gone_back: Notify,
}

pub(super) struct State {
    /// The record of epochs as it was when the server joined its last one.
    pub(super) joined: Option<Record>,
    /// How often another epoch was joined than the one before.
    pub(super) joins: u64,
    /// The newest record that was seen.
    pub(super) newest: Option<Record>,
    /// The log went back: nothing is appended before another epoch is open.
    pub(super) went_back: bool,
    /// The log is not followed yet, or not any more. It may be replaced meanwhile, so nothing is
    /// appended or read before it is followed and its epochs have been looked at.
    pub(super) blind: bool,
    /// Epochs that streams have and the record has forgotten, as far as that was looked up.
    pub(super) forgotten: VecDeque<Epoch>,
    pub(super) indices: LruCache<AgentId, Index>,
    /// How many ids the indices hold.
    pub(super) ids: usize,
    /// The stream sequence at which to look for what follows a number of a stream.
    pub(super) places: LruCache<(AgentId, u64), u64>,
    attempts: u64,
}

/// The epochs of the log, and the stream sequence of the message that has them.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) stream_seq: u64,
    pub(super) epochs: Epochs,
}

impl Record {
    pub(super) fn current(&self) -> Option<&Epoch> {
        self.epochs.begun.last()
    }

    /// Whether it is the record of a log that has, or had, the epoch of another one.
    pub(super) fn follows(&self, other: &Self) -> bool {
        other.current().is_none_or(|epoch| self.epochs.has_had(epoch)) || self.is_newer_than(other)
    }

    /// Whether it was made after another one. In a log that was replaced it may come earlier, but then
    /// it ends with an epoch that the other one does not have.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        let unknown = self.current().is_some_and(|current| !other.epochs.has_had(current));
        unknown || other.stream_seq < self.stream_seq
    }
}

impl<E: Engine> EngineLog<E> {
    /// A log on an engine, and what tells of all that is appended to it. The entropy names the
    /// server, which must be unlike all others, and spreads its attempts to follow.
    pub fn new(
        engine: E,
        config: EngineLogConfig,
        mut entropy: Box<dyn Entropy>,
    ) -> (Self, EngineFollower<E>) {
        let server = random_hex_128(&mut *entropy);
        let state = State {
            joined: None,
            joins: 0,
            newest: None,
            went_back: false,
            blind: true,
            forgotten: VecDeque::new(),
            indices: LruCache::new(config.streams_max),
            ids: 0,
            places: LruCache::new(config.places_max),
            attempts: 0,
        };
        let shared = Arc::new(Shared {
            engine,
            subjects: Subjects::new(&config.prefix, &server),
            config,
            server,
            state: Mutex::new(state),
            barrier: tokio::sync::Mutex::default(),
            gone_back: Notify::new(),
        });
        (Self { shared: shared.clone() }, EngineFollower::new(shared, entropy))
    }

    /// Begins another epoch on a log that was replaced by an older copy and that nobody has written to
    /// since. Those of before go on in it, so each cursor gets to know exactly what it has lost.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the engine did not take it, or may not have.
    pub async fn begin_epoch(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.shared.new_epoch(epoch).await
    }
}

impl<E: Engine> Store<Command> for EngineLog<E> {
    async fn run(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let shared = &*self.shared;
        let mut replies: Vec<Option<Reply>> = commands.iter().map(|_| None).collect();
        let (mut appends, mut reads) = (Appends::new(), Vec::new());
        for (at, command) in commands.into_iter().enumerate() {
            match command {
                Command::Append(append) => {
                    appends.entry(append.agent.clone()).or_default().push((at, append));
                }
                Command::OpenEpoch { proposed, broken } => {
                    shared.append_all(std::mem::take(&mut appends), &mut replies).await;
                    replies[at] = Some(reply(shared.open_epoch(proposed, broken).await));
                }
                Command::Retain { agent, oldest } => {
                    shared.append_all(std::mem::take(&mut appends), &mut replies).await;
                    replies[at] = Some(reply(shared.retain(&agent, oldest).await));
                }
                Command::Load { .. } | Command::Read(_) | Command::FindSince(..) => {
                    reads.push((at, command));
                }
            }
        }
        shared.append_all(appends, &mut replies).await;
        let confirmed =
            |(_, read): &(usize, Command)| matches!(read, Command::Load { confirmed: true, .. });
        let current = match reads.iter().any(confirmed) {
            true => shared.confirm().await.map(drop),
            false => Ok(()),
        };
        let current = &current;
        let reads = reads.into_iter().map(|(at, command)| async move {
            let reply = match command {
                Command::Load { confirmed: true, .. } if current.is_err() => {
                    reply(current.clone().map(|()| Reply::Since(None)))
                }
                Command::Load { agent, .. } => reply(shared.load(&agent).await),
                Command::Read(read) => reply(shared.read(&read).await),
                Command::FindSince(agent, since) => reply(shared.find_since(&agent, since).await),
                _ => Reply::Failed(StoreError::NotApplied("it is no read".to_owned())),
            };
            (at, reply)
        });
        let mut reads = stream::iter(reads).buffer_unordered(shared.config.reads_max);
        while let Some((at, reply)) = reads.next().await {
            replies[at] = Some(reply);
        }
        Ok(replies.into_iter().flatten().collect())
    }
}

/// Appends by stream, with their places among the commands.
type Appends = BTreeMap<AgentId, Vec<(usize, Append)>>;

fn reply(result: Result<Reply, StoreError>) -> Reply {
    result.unwrap_or_else(Reply::Failed)
}

impl<E: Engine> Shared<E> {
    /// Appends to all of the streams at once.
    async fn append_all(&self, appends: Appends, replies: &mut [Option<Reply>]) {
        let appended = appends.into_iter().map(|(agent, appends)| self.append(agent, appends));
        for (at, reply) in future::join_all(appended).await.into_iter().flatten() {
            replies[at] = Some(reply);
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first message of a stream at or after a stream sequence.
    pub(super) async fn next(
        &self,
        subject: &str,
        from: u64,
    ) -> Result<Option<(u64, Message)>, StoreError> {
        opened(self.engine.next(subject, from).await?)
    }

    /// The last message of a stream.
    pub(super) async fn last(&self, subject: &str) -> Result<Option<(u64, Message)>, StoreError> {
        opened(self.engine.last(subject).await?)
    }

    pub(super) async fn page(
        &self,
        subject: &str,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Message)>, StoreError> {
        let page = self.engine.page(subject, from, messages_max, bytes_max).await?;
        let open = |stored: Stored| Ok((stored.stream_seq, Message::parse(&stored)?));
        page.into_iter().map(open).collect::<Result<_, Damaged>>().map_err(StoreError::from)
    }
}

fn opened(stored: Option<Stored>) -> Result<Option<(u64, Message)>, StoreError> {
    match stored {
        Some(stored) => Ok(Some((stored.stream_seq, Message::parse(&stored)?))),
        None => Ok(None),
    }
}

impl From<EngineError> for StoreError {
    /// Of a question: nothing was tried.
    fn from(error: EngineError) -> Self {
        Self::NotApplied(error.to_string())
    }
}

impl From<Damaged> for StoreError {
    fn from(error: Damaged) -> Self {
        Self::NotApplied(error.to_string())
    }
}

impl State {
    /// The name of another attempt.
    pub(super) fn attempt(&mut self, server: &str) -> String {
        self.attempts += 1;
        format!("{server}-{}", self.attempts)
    }

    /// Takes in a message of a stream, if its index is there and is not behind.
    pub(super) fn tell(
        &mut self,
        agent: &AgentId,
        stream_seq: u64,
        message: &Message,
        config: &EngineLogConfig,
    ) {
        if let Some(index) = self.indices.peek_mut(agent) {
            let before = index.len();
            if index.apply(message, stream_seq, config.ids_max) == Applied::Twice {
                mark!("cluster.number_given_twice");
                let first = message.first;
                tracing::error!(%agent, first, stream_seq, "the engine has a number twice");
            }
            self.ids = self.ids + index.len() - before;
            self.keep_within(config.ids_total_max);
        }
        self.places.put((agent.clone(), message.last()), stream_seq + 1);
    }

    /// Keeps the index of a stream, and drops those that were not used for longest.
    pub(super) fn keep(&mut self, agent: &AgentId, index: Index, config: &EngineLogConfig) {
        self.ids += index.len();
        if let Some((_, dropped)) = self.indices.push(agent.clone(), index) {
            self.ids -= dropped.len();
        }
        self.keep_within(config.ids_total_max);
    }

    /// Drops the indices that were not used for longest, but never the last one.
    fn keep_within(&mut self, ids_total_max: usize) {
        while self.ids > ids_total_max && self.indices.len() > 1 {
            let Some((_, dropped)) = self.indices.pop_lru() else { return };
            self.ids -= dropped.len();
        }
    }

    /// Hands out the index of a stream, which is then not here.
    pub(super) fn take_index(&mut self, agent: &AgentId) -> Option<Index> {
        let index = self.indices.pop(agent)?;
        self.ids -= index.len();
        Some(index)
    }

    /// Forgets everything that was read.
    pub(super) fn forget(&mut self) {
        self.indices.clear();
        self.places.clear();
        self.ids = 0;
    }

    /// Takes in a record of the log's epochs; whether it is newer than the newest.
    pub(super) fn see(&mut self, record: Record) -> bool {
        let newer = self.newest.as_ref().is_none_or(|newest| record.is_newer_than(newest));
        if newer {
            self.newest = Some(record);
        }
        newer
    }

    /// Whether what the engine shows is the log of this server, as far as known.
    ///
    /// # Errors
    ///
    /// Why it may not be.
    pub(super) fn is_in_sight(&self) -> Result<(), StoreError> {
        let refuse = |text: &str| Err(StoreError::NotApplied(text.to_owned()));
        if self.went_back {
            return refuse(
                "the engine holds less than it has shown; another epoch is to be opened",
            );
        }
        match self.blind {
            true => refuse("the log is not followed; its epoch is in doubt"),
            false => Ok(()),
        }
    }

    /// The epoch in which this server appends and reads.
    ///
    /// # Errors
    ///
    /// Why it must not.
    pub(super) fn epoch(&self) -> Result<Epoch, StoreError> {
        self.is_in_sight()?;
        let refuse = |text: &str| Err(StoreError::NotApplied(text.to_owned()));
        let joined = self.joined.as_ref().and_then(Record::current);
        let newest = self.newest.as_ref().and_then(Record::current);
        match (joined, newest) {
            (Some(joined), Some(newest)) if joined == newest => Ok(joined.clone()),
            (Some(_), _) => refuse("the log has another epoch by now"),
            (None, _) => refuse("no epoch is open"),
        }
    }
}
