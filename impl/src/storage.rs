//! What all durable stores have in common: commands go in, are one transaction, and are answered.
//!
//! A core never calls a store. It emits commands, its driver runs everything that is ready as one
//! transaction, and the replies come back as inputs. What depends on a write leaves after the reply.

/// A storage command that waits for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

/// Something that a store can do.
pub trait StoreCommand: Send + 'static {
    /// The answer.
    type Reply: Send + 'static;

    /// Whether it changes nothing. Reads and writes are not joined to one transaction, so that a
    /// write that fails takes no read with it.
    fn is_read_only(&self) -> bool;
}

/// A transaction did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing of it is stored.
    #[error("the transaction was not stored: {0}")]
    NotApplied(String),
    /// All or nothing of it is stored, and it is not known which.
    #[error("it is not known whether the transaction was stored: {0}")]
    Unknown(String),
}

/// Takes from what waits what the next transaction is made of: writes or reads, whichever was asked
/// for first, `max` at most. A write may overtake a read, which then sees more than it would have; a
/// read never overtakes a write, whose effect whoever asked counts on.
pub fn next_batch<C: StoreCommand>(
    waiting: &mut Vec<(StoreId, C)>,
    max: usize,
) -> Vec<(StoreId, C)> {
    let Some(read_only) = waiting.first().map(|(_, command)| command.is_read_only()) else {
        return Vec::new();
    };
    let (mut batch, mut rest) = (Vec::new(), Vec::new());
    let mut after_a_write = false;
    for (id, command) in waiting.drain(..) {
        after_a_write |= !command.is_read_only();
        let overtakes = read_only && after_a_write;
        let fits = command.is_read_only() == read_only && batch.len() < max;
        match fits && !overtakes {
            true => batch.push((id, command)),
            false => rest.push((id, command)),
        }
    }
    *waiting = rest;
    batch
}

/// A durable store.
pub trait Store<C: StoreCommand>: Send + 'static {
    /// Runs all commands as one transaction and answers when it is durable.
    ///
    /// The answer has one reply per command, in order. If the transaction fails, every command in
    /// it fails with the same error and nothing has changed.
    fn run(
        &mut self,
        commands: Vec<C>,
    ) -> impl Future<Output = Result<Vec<C::Reply>, StoreError>> + Send;
}

/// A durable store that works on the thread that calls it.
pub trait Transact<C: StoreCommand>: Send {
    /// Runs all commands as one transaction. See [`Store::run`].
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing of the transaction is stored, or that is not known.
    fn transact(&mut self, commands: Vec<C>) -> Result<Vec<C::Reply>, StoreError>;
}

impl<C: StoreCommand, T: Transact<C> + ?Sized> Transact<C> for Box<T> {
    fn transact(&mut self, commands: Vec<C>) -> Result<Vec<C::Reply>, StoreError> {
        (**self).transact(commands)
    }
}

/// A store on the thread of whoever drives it, which waits for the disk.
#[derive(Debug)]
pub struct Inline<T>(pub T);

impl<C: StoreCommand, T: Transact<C> + 'static> Store<C> for Inline<T> {
    async fn run(&mut self, commands: Vec<C>) -> Result<Vec<C::Reply>, StoreError> {
        self.0.transact(commands)
    }
}

#[cfg(feature = "sqlite")]
mod threaded;
#[cfg(feature = "sqlite")]
pub use threaded::{BACKUP_STEP_PAGES, BackupError, Backups, Copied, Threaded};
