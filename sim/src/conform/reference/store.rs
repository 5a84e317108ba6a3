//! A SQLite store inside of a node: in memory, and committed page by page with `store.commit`.
//!
//! A transaction is carried out at once on a database in memory. What it says is held back until
//! the pages that it changed are durable; if they are not, the store is opened again as it was
//! before. Nothing here touches a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gapless::storage::{StoreCommand, StoreError, StoreId, Transact, next_batch};
use rusqlite::backup::Backup;
use rusqlite::{Connection, MAIN_DB};

use crate::conform::protocol::{Effect, StoreProblem};

/// SQLite's default, which no schema changes.
const PAGE_BYTES: usize = 4096;

/// How many commands are joined to one transaction.
const BATCH_MAX: usize = 256;

/// Opens the store at a path that SQLite understands, with the operating system's VFS. `again` says
/// that the process had it open before, and that a commit has failed since.
pub(super) type Opener<C> =
    Box<dyn FnMut(&Path, bool) -> Result<Box<dyn Transact<C>>, String> + Send>;

/// A store, and what of it is durable.
pub(super) struct NodeStore<C: StoreCommand> {
    /// The keys of its pages are `NAME/NUMBER`.
    name: &'static str,
    open: Opener<C>,
    memory: Memory,
    store: Box<dyn Transact<C>>,
    /// The database, as it is known to be durable.
    durable: Vec<u8>,
    /// Pages that a commit of unknown outcome may have written: the next one writes them too.
    unsure: BTreeSet<usize>,
    waiting: Vec<(StoreId, C)>,
    committing: Option<Committing<C>>,
    commits: u64,
}

/// A transaction whose pages are on their way.
struct Committing<C: StoreCommand> {
    id: u64,
    pages: BTreeSet<usize>,
    image: Vec<u8>,
    answers: Vec<Answer<C>>,
}

/// What came of a command.
pub(super) struct Answer<C: StoreCommand> {
    pub(super) id: StoreId,
    pub(super) command: C,
    pub(super) result: Result<C::Reply, StoreError>,
}

/// What a store does next.
pub(super) enum Step<C: StoreCommand> {
    /// It answers.
    Answered(Vec<Answer<C>>),
    /// It answers when this is done: a [`Effect::StoreCommit`].
    Commits(Effect),
}

impl<C: StoreCommand + Clone> NodeStore<C> {
    /// Opens the store with what was committed in earlier lives.
    ///
    /// # Errors
    ///
    /// A sentence, if what was committed is no database.
    pub(super) fn open(
        name: &'static str,
        storage: &BTreeMap<String, String>,
        mut open: Opener<C>,
    ) -> Result<Self, String> {
        let durable = pages_of(name, storage)?;
        let memory = Memory::holding(&durable)?;
        let store = open(&memory.path, false)?;
        Ok(Self {
            name,
            open,
            memory,
            store,
            durable,
            unsure: BTreeSet::new(),
            waiting: Vec::new(),
            committing: None,
            commits: 0,
        })
    }

    /// A command that is to be carried out.
    pub(super) fn push(&mut self, id: StoreId, command: C) {
        self.waiting.push((id, command));
    }

    /// The store, for a look.
    pub(super) fn look(&mut self) -> &mut dyn Transact<C> {
        &mut *self.store
    }

    /// How large the database is, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.durable.len() as u64
    }

    /// What is to be done now; `None` if there is nothing, or a commit is awaited.
    ///
    /// # Errors
    ///
    /// A sentence, if SQLite fails in memory.
    pub(super) fn next(&mut self) -> Result<Option<Step<C>>, String> {
        if self.committing.is_some() || self.waiting.is_empty() {
            return Ok(None);
        }
        let batch = next_batch(&mut self.waiting, BATCH_MAX);
        let read_only = batch.iter().all(|(_, command)| command.is_read_only());
        let commands = batch.iter().map(|(_, command)| command.clone()).collect();
        let replies = match self.store.transact(commands) {
            Ok(replies) => replies,
            Err(error) => {
                self.go_back()?;
                return Ok(Some(Step::Answered(failed(batch, &error))));
            }
        };
        let answers = batch.into_iter().zip(replies);
        let answers = answers
            .map(|((id, command), reply)| Answer { id, command, result: Ok(reply) })
            .collect();
        if read_only {
            return Ok(Some(Step::Answered(answers)));
        }
        let image = self.memory.image()?;
        let mut pages = changed(&self.durable, &image);
        pages.extend(&self.unsure);
        if pages.is_empty() {
            return Ok(Some(Step::Answered(answers)));
        }
        self.commits += 1;
        let id = self.commits;
        let writes = pages.iter().map(|number| {
            let page = page(&image, *number).map(|bytes| STANDARD.encode(bytes));
            (format!("{}/{number}", self.name), page)
        });
        let effect = Effect::StoreCommit { id, writes: writes.collect() };
        self.committing = Some(Committing { id, pages, image, answers });
        Ok(Some(Step::Commits(effect)))
    }

    /// What came of a commit, and so of the commands in it.
    ///
    /// # Errors
    ///
    /// A sentence, if no such commit is awaited, or SQLite fails in memory.
    pub(super) fn done(
        &mut self,
        id: u64,
        error: Option<StoreProblem>,
    ) -> Result<Vec<Answer<C>>, String> {
        let Some(commit) = self.committing.take().filter(|commit| commit.id == id) else {
            return Err(format!("no commit {id} is awaited"));
        };
        let Some(problem) = error else {
            self.durable = commit.image;
            self.unsure.clear();
            return Ok(commit.answers);
        };
        let error = match problem {
            StoreProblem::NotApplied => StoreError::NotApplied("the disk refuses".to_owned()),
            StoreProblem::Unknown => {
                self.unsure.extend(commit.pages);
                StoreError::Unknown("the disk failed".to_owned())
            }
        };
        self.go_back()?;
        let commands = commit.answers.into_iter().map(|answer| (answer.id, answer.command));
        Ok(failed(commands, &error))
    }

    /// Everything is as it was when the last commit was done.
    fn go_back(&mut self) -> Result<(), String> {
        self.memory = Memory::holding(&self.durable)?;
        self.store = (self.open)(&self.memory.path, true)?;
        Ok(())
    }
}

fn failed<C: StoreCommand>(
    commands: impl IntoIterator<Item = (StoreId, C)>,
    error: &StoreError,
) -> Vec<Answer<C>> {
    let answer = |(id, command)| Answer { id, command, result: Err(error.clone()) };
    commands.into_iter().map(answer).collect()
}

// ---- pages ---------------------------------------------------------------------------------------

/// A page by its number, which counts from 1; `None` beyond the last.
fn page(image: &[u8], number: usize) -> Option<&[u8]> {
    image.chunks(PAGE_BYTES).nth(number - 1)
}

/// The numbers of the pages that differ.
fn changed(before: &[u8], after: &[u8]) -> BTreeSet<usize> {
    let count = before.len().max(after.len()).div_ceil(PAGE_BYTES);
    (1..=count).filter(|number| page(before, *number) != page(after, *number)).collect()
}

/// The database that was committed.
fn pages_of(name: &str, storage: &BTreeMap<String, String>) -> Result<Vec<u8>, String> {
    let mut pages: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    for (key, text) in storage {
        let Some(number) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('/')) else {
            continue;
        };
        let number = number.parse().map_err(|_| format!("`{key}` is not the key of a page"))?;
        let bytes = STANDARD.decode(text).map_err(|error| format!("`{key}`: {error}"))?;
        if bytes.len() != PAGE_BYTES {
            return Err(format!("`{key}` has {} bytes, and a page {PAGE_BYTES}", bytes.len()));
        }
        pages.insert(number, bytes);
    }
    let whole = pages.keys().copied().eq(1..=pages.len());
    match whole {
        true => Ok(pages.into_values().flatten().collect()),
        false => Err(format!("the pages of `{name}` are not all there")),
    }
}

// ---- memory --------------------------------------------------------------------------------------

/// A database in memory that several connections see.
struct Memory {
    path: PathBuf,
    /// Keeps it there.
    _kept: Connection,
}

impl Memory {
    fn holding(image: &[u8]) -> Result<Self, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = COUNT.fetch_add(1, Ordering::Relaxed);
        // Without locks the store may keep the database to itself, and be looked at all the same.
        let path = PathBuf::from(format!("file:/gapless-node-{name}?vfs=memdb&nolock=1"));
        let open = || -> rusqlite::Result<Connection> {
            let mut connection = Connection::open(&path)?;
            if !image.is_empty() {
                let mut from = Connection::open_in_memory()?;
                from.deserialize_read_exact(MAIN_DB, image, image.len(), true)?;
                Backup::new(&from, &mut connection)?.step(-1)?;
            }
            Ok(connection)
        };
        let kept = open().map_err(|error| format!("what was committed: {error}"))?;
        Ok(Self { path, _kept: kept })
    }

    /// All of its pages. A connection that has looked before would not see that they have changed:
    /// whoever keeps a database to itself does not count its transactions for others.
    fn image(&self) -> Result<Vec<u8>, String> {
        let look = || -> rusqlite::Result<Vec<u8>> {
            Ok(Connection::open(&self.path)?.serialize(MAIN_DB)?.to_vec())
        };
        look().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use gapless::recovery::{Epoch, WallTime};
    use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
    use gapless::tasks::store::{Command, Receipt, Received, Reply};
    use gapless::tasks::{Attempt, AttemptId, TaskId};

    use super::*;

    fn opener() -> Opener<Command> {
        Box::new(|path, _| {
            let store = SqliteTaskStore::open(TaskStoreConfig::new(path));
            Ok(Box::new(store.map_err(|error| error.to_string())?))
        })
    }

    fn open(storage: &BTreeMap<String, String>) -> NodeStore<Command> {
        NodeStore::open("page", storage, opener()).expect("it opens")
    }

    fn attempt(task: &str) -> Attempt {
        Attempt {
            task: TaskId::parse(task).expect("valid"),
            id: AttemptId::parse("a1").expect("valid"),
        }
    }

    fn receive(task: &str) -> Command {
        Command::Receive(Receipt {
            attempt: attempt(task),
            command: "x".repeat(9_000),
            priority: 0,
            at: WallTime::from_millis(0),
        })
    }

    /// Asks for something, and lets the commit end like that.
    fn ask(
        store: &mut NodeStore<Command>,
        command: Command,
        error: Option<StoreProblem>,
        storage: &mut BTreeMap<String, String>,
        applied: bool,
    ) -> Result<Reply, StoreError> {
        store.push(StoreId(1), command);
        let mut answers = match store.next().expect("memory works").expect("there is a command") {
            Step::Answered(answers) => answers,
            Step::Commits(Effect::StoreCommit { id, writes }) => {
                if applied {
                    for (key, value) in writes {
                        match value {
                            Some(value) => storage.insert(key, value),
                            None => storage.remove(&key),
                        };
                    }
                }
                assert!(store.next().expect("memory works").is_none(), "one at a time");
                store.done(id, error).expect("it is awaited")
            }
            Step::Commits(other) => panic!("{other:?}"),
        };
        assert_eq!(answers.len(), 1);
        answers.remove(0).result
    }

    fn knows(store: &mut NodeStore<Command>, task: &str) -> bool {
        let found = store.look().transact(vec![Command::Find(attempt(task))]).expect("it reads");
        matches!(found[..], [Reply::Found(Some(_))])
    }

    #[test]
    fn what_is_committed_is_there_in_the_next_life_and_nothing_else() {
        let mut storage = BTreeMap::new();
        let mut store = open(&storage);
        let epoch = Epoch::parse("0123456789abcdef0123456789abcdef").expect("valid");
        let recover = Command::Recover { epoch, at: WallTime::from_millis(0) };
        ask(&mut store, recover, None, &mut storage, true).expect("it is stored");
        let received = ask(&mut store, receive("t1"), None, &mut storage, true);
        assert!(matches!(received, Ok(Reply::Received(Received::New))), "{received:?}");
        let not_applied = Some(StoreProblem::NotApplied);
        let refused = ask(&mut store, receive("t2"), not_applied, &mut storage, false);
        assert!(matches!(refused, Err(StoreError::NotApplied(_))), "{refused:?}");
        assert!(knows(&mut store, "t1") && !knows(&mut store, "t2"));
        let mut next = open(&storage);
        assert!(knows(&mut next, "t1") && !knows(&mut next, "t2"));
    }

    #[test]
    fn a_commit_of_unknown_outcome_is_undone_by_the_next_one() {
        for applied in [true, false] {
            let mut storage = BTreeMap::new();
            let mut store = open(&storage);
            ask(&mut store, receive("t1"), None, &mut storage, true).expect("it is stored");
            let unknown = Some(StoreProblem::Unknown);
            let failed = ask(&mut store, receive("t2"), unknown, &mut storage, applied);
            assert!(matches!(failed, Err(StoreError::Unknown(_))), "{failed:?}");
            assert!(!knows(&mut store, "t2"), "it goes on as before");
            assert_eq!(knows(&mut open(&storage), "t2"), applied, "nobody knew");
            ask(&mut store, receive("t3"), None, &mut storage, true).expect("it is stored");
            let mut next = open(&storage);
            let known = ["t1", "t2", "t3"].map(|task| knows(&mut next, task));
            assert_eq!(known, [true, false, true], "applied: {applied}");
        }
    }

    #[test]
    fn a_database_of_which_pages_are_missing_is_refused() {
        let mut storage = BTreeMap::new();
        let mut store = open(&storage);
        ask(&mut store, receive("t1"), None, &mut storage, true).expect("it is stored");
        storage.remove("page/2");
        assert!(NodeStore::open("page", &storage, opener()).is_err());
    }
}
