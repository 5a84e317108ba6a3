//! A store with a thread of its own, and copies of its database while it is in use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use tokio::sync::oneshot;

use super::{Store, StoreCommand, StoreError, Transact};

/// A store on a database that can be copied while it is in use.
pub trait Copied<C: StoreCommand>: Transact<C> {
    /// The database.
    fn database(&self) -> &Connection;

    /// Runs all commands as one transaction, while a copy of the database is under way. See
    /// [`Store::run`].
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing of the transaction is stored, or that is not known.
    fn transact_while_copied(&self, commands: Vec<C>) -> Result<Vec<C::Reply>, StoreError>;
}

/// How many pages of a database are copied at once: 1 MiB. After that, transactions that wait go first.
pub const BACKUP_STEP_PAGES: usize = 256;

/// How long a copy waits for a transaction after each step.
const BACKUP_PAUSE: Duration = Duration::from_millis(10);

/// How many transactions go first after each step.
const TRANSACTIONS_PER_STEP: usize = 8;

/// How often the database may be locked when a step is due.
const BUSY_MAX: u32 = 1_000;

/// Why there is no copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Another one is under way.
    #[error("another backup is under way")]
    UnderWay,
    /// The store has ended, or is about to.
    #[error("the store is ending")]
    Ending,
    /// It did not succeed.
    #[error("{0}")]
    Failed(String),
}

/// A store with a thread of its own, so that waiting for the disk holds up nothing else.
#[derive(Debug)]
pub struct Threaded<C: StoreCommand> {
    jobs: Arc<mpsc::Sender<Job<C>>>,
}

/// Makes copies of the database of a [`Threaded`] store, as long as that is there.
#[derive(Debug)]
pub struct Backups<C: StoreCommand> {
    jobs: Weak<mpsc::Sender<Job<C>>>,
}

type Replies<C> = Result<Vec<<C as StoreCommand>::Reply>, StoreError>;

enum Job<C: StoreCommand> {
    Run(Vec<C>, oneshot::Sender<Replies<C>>),
    Copy(PathBuf, oneshot::Sender<Result<(), BackupError>>),
}

impl<C: StoreCommand> Threaded<C> {
    /// Moves a store to a thread that lives as long as the returned value.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has no thread to give.
    pub fn spawn(mut store: impl Transact<C> + 'static) -> std::io::Result<Self> {
        Self::on_a_thread(move |queue| {
            for job in queue {
                match job {
                    // Nobody waits for the answer any more when the endpoint has been dropped.
                    Job::Run(commands, answer) => drop(answer.send(store.transact(commands))),
                    Job::Copy(_, answer) => drop(answer.send(Err(BackupError::Ending))),
                }
            }
        })
    }

    /// The same for a store that can be copied while it is in use. The thread lives as long as the
    /// first of the two.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has no thread to give.
    pub fn spawn_with_backups(
        mut store: impl Copied<C> + 'static,
    ) -> std::io::Result<(Self, Backups<C>)> {
        let this = Self::on_a_thread(move |queue| {
            while let Ok(job) = queue.recv() {
                match job {
                    Job::Run(commands, answer) => drop(answer.send(store.transact(commands))),
                    Job::Copy(to, mut answer) => {
                        let copied = copy(&store, &to, &queue, &mut answer);
                        // Whoever has gone does not want it.
                        let _ = answer.send(copied);
                    }
                }
            }
        })?;
        let jobs = Arc::downgrade(&this.jobs);
        Ok((this, Backups { jobs }))
    }

    fn on_a_thread(
        run: impl FnOnce(mpsc::Receiver<Job<C>>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        #[expect(clippy::disallowed_methods, reason = "the one thread that a database may own")]
        std::thread::Builder::new().name("gapless-store".to_owned()).spawn(move || run(queue))?;
        Ok(Self { jobs: Arc::new(jobs) })
    }
}

impl<C: StoreCommand> Store<C> for Threaded<C> {
    async fn run(&mut self, commands: Vec<C>) -> Replies<C> {
        let gone = || StoreError::Unknown("the thread of the store has ended".to_owned());
        let (answer, reply) = oneshot::channel();
        self.jobs.send(Job::Run(commands, answer)).map_err(|_| gone())?;
        reply.await.map_err(|_| gone())?
    }
}

impl<C: StoreCommand> Backups<C> {
    /// Copies the database into a new file, which then holds all transactions up to one moment
    /// between the call and its return. Transactions go on meanwhile.
    ///
    /// The file is not synced. If the future is dropped, the copy ends soon, and is of no use.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; what is in the file is of no use.
    pub async fn copy(&self, to: PathBuf) -> Result<(), BackupError> {
        let (answer, copied) = oneshot::channel();
        let jobs = self.jobs.upgrade().ok_or(BackupError::Ending)?;
        jobs.send(Job::Copy(to, answer)).map_err(|_| BackupError::Ending)?;
        // Nobody but the store keeps the thread.
        drop(jobs);
        copied.await.unwrap_or(Err(BackupError::Ending))
    }
}

/// Copies a database step by step, and runs transactions in between. SQLite repeats in the copy what
/// they change of pages that are copied already.
fn copy<C: StoreCommand>(
    store: &impl Copied<C>,
    to: &Path,
    queue: &mpsc::Receiver<Job<C>>,
    wanted: &mut oneshot::Sender<Result<(), BackupError>>,
) -> Result<(), BackupError> {
    let failed = |error: rusqlite::Error| BackupError::Failed(error.to_string());
    let mut target = Connection::open(to).map_err(failed)?;
    // Of a copy that is broken off nothing is used.
    target.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    let backup = Backup::new(store.database(), &mut target).map_err(failed)?;
    let (mut pages, mut grown, mut busy) = (None, 0, 0);
    loop {
        // As many more as have come meanwhile, so that it comes to an end.
        let step = i32::try_from(BACKUP_STEP_PAGES + grown).unwrap_or(i32::MAX);
        match backup.step(step).map_err(failed)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            StepResult::Busy | StepResult::Locked if busy < BUSY_MAX => busy += 1,
            _ => return Err(BackupError::Failed("the database is locked".to_owned())),
        }
        if wanted.is_closed() {
            return Err(BackupError::Ending);
        }
        let now = usize::try_from(backup.progress().pagecount).unwrap_or(0);
        grown = now.saturating_sub(pages.unwrap_or(now));
        pages = Some(now);
        for _ in 0..TRANSACTIONS_PER_STEP {
            match queue.recv_timeout(BACKUP_PAUSE) {
                Ok(Job::Run(commands, answer)) => {
                    drop(answer.send(store.transact_while_copied(commands)));
                }
                Ok(Job::Copy(_, answer)) => drop(answer.send(Err(BackupError::UnderWay))),
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(BackupError::Ending),
            }
        }
    }
}
