//! A database on the simulated disk of a host.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gapless::database::{Medium, open_connection};
use rusqlite::{Connection, Transaction};

use crate::trace::Kind;
use crate::world::disk::{VFS_NAME, create_dir};
use crate::world::host::Process;
use crate::world::vault::Vault;

/// Where the database is.
const PATH: &str = "/data/own.db";

/// How long a host whose database cannot be opened waits before it tries again.
const OPEN_RETRY: Duration = Duration::from_secs(1);

/// Virtual time that a commit takes, if no fault makes it slower.
const COMMIT: Duration = Duration::from_millis(2);

/// The SQLite database of a host, on its simulated disk: faults of the disk hit it, and after a loss of
/// power it holds what was synced. Cheap to clone; all clones are the same database.
#[derive(Clone)]
pub struct Database {
    connection: Arc<Mutex<Connection>>,
    process: Process,
    vault: Vault,
}

impl Database {
    /// Opens it, again and again until that works.
    pub(super) async fn open(process: Process, vault: Vault, schema: &str) -> Self {
        let connection = loop {
            match connect(&process, &vault, schema) {
                Ok(connection) => break connection,
                Err(problem) => {
                    process.powered().await;
                    process.record(
                        Kind::Store,
                        format_args!("the database cannot be opened: {problem}"),
                    );
                    tokio::time::sleep(OPEN_RETRY).await;
                }
            }
        };
        Self { connection: Arc::new(Mutex::new(connection)), process, vault }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it, in one transaction that is on the disk when this returns; `what` says in the trace
    /// what was done. It takes the virtual time of a commit, in which the process may die: then the
    /// change is made, and nobody was told.
    ///
    /// # Errors
    ///
    /// SQLite's. Nothing is changed then, unless it was the commit that failed: then nobody knows.
    pub async fn write<T>(
        &self,
        what: &str,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let done = self.transact(change);
        // Nothing goes on where there is no power.
        self.process.powered().await;
        match &done {
            Ok(_) => self.process.record(Kind::Store, what),
            Err(error) => self.process.record(Kind::Store, format_args!("{what}: {error}")),
        }
        if done.is_ok() {
            gapless::mark!("world.committed");
        }
        self.vault.state().committed = done.is_ok();
        let slow = self.vault.state().slow;
        tokio::time::sleep(slow.unwrap_or(COMMIT)).await;
        self.vault.state().committed = false;
        done
    }

    fn transact<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let done = change(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Reads from it.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub async fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let done = query(&self.connection());
        self.process.powered().await;
        done
    }
}

fn connect(process: &Process, vault: &Vault, schema: &str) -> Result<Connection, String> {
    create_dir("/data").map_err(|error| error.to_string())?;
    vault.replace_if_due(process, PATH).map_err(|error| error.to_string())?;
    let open = || {
        let medium = Medium { vfs: Some(VFS_NAME), ..Medium::default() };
        let connection = open_connection(&process.disk.path(PATH), medium)?;
        connection.execute_batch(schema)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| error.to_string())
}
