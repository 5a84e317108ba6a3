//! What a node commits: base64 by key, in a database on the host's disk, so that every fault of
//! the disk can happen to it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gapless::database::{Medium, open_connection};
use rusqlite::{Connection, Transaction};

use crate::conform::StoreProblem;
use crate::world::disk::{VFS_NAME, create_dir};
use crate::world::host::Process;
use crate::world::lock;
use crate::world::vault::Vault;

/// The storage of a node.
#[derive(Clone)]
pub(in crate::world) struct Storage {
    database: Arc<Mutex<Connection>>,
    path: &'static str,
}

impl Storage {
    /// Opens the storage at a path of the host's disk. `tables` are statements that make whatever
    /// else is to be in the database.
    pub(in crate::world) fn open(
        process: &Process,
        path: &'static str,
        tables: &str,
    ) -> Result<Self, String> {
        create_dir("/data").map_err(|error| error.to_string())?;
        let medium = Medium { vfs: Some(VFS_NAME), ..Medium::default() };
        let database = open_connection(&process.disk.path(path), medium);
        let database = database.and_then(|database| {
            database.execute_batch(
                "CREATE TABLE IF NOT EXISTS node (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT",
            )?;
            database.execute_batch(tables)?;
            Ok(database)
        });
        let database = database.map_err(|error| error.to_string())?;
        Ok(Self { database: Arc::new(Mutex::new(database)), path })
    }

    pub(in crate::world) fn database(&self) -> MutexGuard<'_, Connection> {
        lock(&self.database)
    }

    pub(super) fn load(&self) -> rusqlite::Result<BTreeMap<String, String>> {
        let database = self.database();
        let mut statement = database.prepare_cached("SELECT key, value FROM node")?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, STANDARD.encode(row.get_ref(1)?.as_blob()?))))?;
        rows.collect()
    }

    /// All of it or nothing. Fails with a sentence if it is no commit.
    pub(super) fn commit(
        &self,
        writes: &BTreeMap<String, Option<String>>,
    ) -> Result<Option<StoreProblem>, String> {
        let writes = decoded(writes)?;
        let mut database = self.database();
        let transaction = match database.transaction() {
            Ok(transaction) => transaction,
            Err(_) => return Ok(Some(StoreProblem::NotApplied)),
        };
        if write(&transaction, &writes).is_err() {
            return Ok(Some(StoreProblem::NotApplied));
        }
        Ok(transaction.commit().is_err().then_some(StoreProblem::Unknown))
    }

    pub(in crate::world) fn back_up_if_due(
        &self,
        process: &Process,
        vault: &Vault,
    ) -> io::Result<()> {
        vault.back_up_if_due(process, self.path).map(drop)
    }
}

/// What is to be written, by key; `None` takes the key away.
pub(in crate::world) type Writes = BTreeMap<String, Option<Vec<u8>>>;

/// The bytes of a commit.
///
/// # Errors
///
/// A sentence, if something is no base64.
pub(in crate::world) fn decoded(
    writes: &BTreeMap<String, Option<String>>,
) -> Result<Writes, String> {
    let decode = |(key, value): (&String, &Option<String>)| {
        let value = value.as_ref().map(|text| STANDARD.decode(text)).transpose();
        let value = value.map_err(|error| format!("what it commits as `{key}`: {error}"))?;
        Ok((key.clone(), value))
    };
    writes.iter().map(decode).collect()
}

/// Writes in a transaction of whoever has one.
pub(in crate::world) fn write(
    transaction: &Transaction<'_>,
    writes: &Writes,
) -> rusqlite::Result<()> {
    for (key, value) in writes {
        match value {
            Some(value) => transaction
                .prepare_cached(
                    "INSERT INTO node (key, value) VALUES (?1, ?2)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                )?
                .execute(rusqlite::params![key, value])?,
            None => {
                transaction.prepare_cached("DELETE FROM node WHERE key = ?1")?.execute([key])?
            }
        };
    }
    Ok(())
}
