//! Copies of a host's database, over the lives of the host.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::{Snapshot, restore, snapshot};
use super::host::Process;
use crate::trace::Kind;

/// What the world knows of a host's database. Shared by the world and the host.
#[derive(Clone, Default)]
pub(crate) struct Vault(Arc<Mutex<VaultState>>);

#[derive(Default)]
pub(crate) struct VaultState {
    /// A copy is to be made as soon as the host can.
    pub(crate) backup_due: bool,
    /// What takes the place of the database when the host is started next.
    pub(crate) replace: Option<Replace>,
    /// How many copies were made, for their names; the one with which a run begins is 0.
    copies: usize,
    /// The newest copy.
    copy: Stored,
    /// A transaction is committed and nobody has been told yet.
    pub(crate) committed: bool,
    /// The files may hold a transaction that failed: the database does not show it, and writes over
    /// it with the next one. A copy of them would not be a copy of the database.
    pub(crate) unsettled: bool,
    /// How many transactions that write were carried out, in all lives.
    pub(crate) written: u64,
    /// How long commits take instead of what the options say.
    pub(crate) slow: Option<Duration>,
}

/// A copy of a database. The one with which a run begins is empty.
#[derive(Clone, Default)]
struct Stored {
    files: Snapshot,
    name: CopyName,
}

/// Names a copy; 0 is the empty one.
pub(crate) type CopyName = usize;

/// What takes the place of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replace {
    /// The newest copy.
    Copy,
    /// The newest copy, and what was there becomes the newest copy.
    Swap,
    /// Nothing: the database is gone.
    Nothing,
}

impl Vault {
    pub(crate) fn state(&self) -> MutexGuard<'_, VaultState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the copy that is due, unless the files are not what the database shows; its name.
    pub(crate) fn back_up_if_due(
        &self,
        process: &Process,
        path: &str,
    ) -> io::Result<Option<CopyName>> {
        let due = self.state().backup_due && !self.state().unsettled;
        // A machine without power copies nothing; it will when it starts again.
        if !due || process.disk.powered_off() {
            return Ok(None);
        }
        let files = snapshot(process.disk.path(Path::new(path)))?;
        let mut state = self.state();
        state.copies += 1;
        let name = state.copies;
        state.copy = Stored { files, name };
        state.backup_due = false;
        Ok(Some(name))
    }

    /// Puts in the place of the database what is to be there; the name of that copy, if any.
    pub(crate) fn replace_if_due(
        &self,
        process: &Process,
        path: &str,
    ) -> io::Result<Option<CopyName>> {
        let (replace, copy) = {
            let mut state = self.state();
            (state.replace.take(), state.copy.clone())
        };
        let path = process.disk.path(Path::new(path));
        let (copy, what) = match replace {
            None => return Ok(None),
            Some(Replace::Copy | Replace::Swap) => (copy, "an older copy"),
            Some(Replace::Nothing) => (Stored::default(), "an empty one"),
        };
        if replace == Some(Replace::Swap) {
            let files = snapshot(&path)?;
            let mut state = self.state();
            state.copies += 1;
            let name = state.copies;
            state.copy = Stored { files, name };
        }
        process.record(Kind::Store, format_args!("the database is replaced by {what}"));
        restore(&path, &copy.files)?;
        Ok(Some(copy.name))
    }
}
