//! How every database is opened: by one process at a time, through a write-ahead log, and never
//! overwritten when it is not what it should be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// What a database is, and how it came to be what it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema {
    /// Marks the file, in `PRAGMA application_id`.
    pub(crate) application_id: i64,
    /// What it holds, for a person: "an event log".
    pub(crate) what: &'static str,
    /// The statements that lead from each version to the next; the first makes an empty database
    /// the first version. The version is kept in `PRAGMA user_version`.
    pub(crate) versions: &'static [&'static str],
    /// Whether pages that are free are given back to the file system one by one.
    pub(crate) incremental_vacuum: bool,
}

impl Schema {
    fn version(&self) -> i64 {
        self.versions.len() as i64
    }
}

/// What a commit survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// A loss of power, as [EV-1] demands: `synchronous=FULL`.
    #[default]
    Full,
    /// The end of the process, but not a loss of power: `synchronous=NORMAL`. The database stays
    /// whole and may lose the newest events that were acknowledged; their numbers are given again.
    /// For throw-away logs.
    Normal,
}

/// How a database lies on its disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Medium<'a> {
    /// The name of a SQLite VFS; `None` = the operating system's.
    pub vfs: Option<&'a str>,
    /// What a commit survives.
    pub synchronous: Synchronous,
    /// Bytes of a page of a new database, a power of two from 512 to 65,536; `None` = SQLite's
    /// choice, which is 4,096. One that is there keeps its own.
    pub page_bytes: Option<u32>,
}

impl Medium<'_> {
    /// To be done before anything is written.
    fn lay_out(self, connection: &Connection) -> rusqlite::Result<()> {
        match self.page_bytes {
            Some(page_bytes) => connection.pragma_update(None, "page_size", page_bytes),
            None => Ok(()),
        }
    }
}

/// A database cannot be used. Nothing was written to it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("`{path}` is in use by another process; stop it, or use another data folder")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error(
        "`{path}` has schema version {found}, this program knows up to {known}; \
         use the newer program, or another data folder"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The version of the file.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// It is a database of some other program.
    #[error("`{path}` is a database, but not {what}; use another data folder")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// It is damaged, or no database at all.
    #[error(
        "`{path}` is not a usable database: {problem}; restore it from a backup, or move it away"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        problem: String,
    },
    /// The file system refuses.
    #[error(
        "`{path}` cannot be opened: {problem}; check that the folder exists, is writable and has space"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        problem: String,
    },
}

/// How long to wait for a process that is just letting go of the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a database with the pragmas of production, on any VFS.
///
/// # Errors
///
/// SQLite's.
pub fn open_connection(path: &Path, medium: Medium<'_>) -> rusqlite::Result<Connection> {
    let connection = connect(path, medium.vfs)?;
    medium.lay_out(&connection)?;
    configure(&connection, medium.synchronous)?;
    Ok(connection)
}

/// Opens a database and asks for its lock. Nothing is changed yet.
fn connect(path: &Path, vfs: Option<&str>) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs)?,
        None => Connection::open_with_flags(path, flags)?,
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_query_value(None, "user_version", |_| Ok(()))?;
    Ok(connection)
}

fn configure(connection: &Connection, synchronous: Synchronous) -> rusqlite::Result<()> {
    let synchronous = match synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A statement is prepared once: otherwise SQLite prepares those with a `LIMIT ?` anew whenever
    // another number is bound, because its plan could be a better one.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// What a database file is.
enum Contents {
    /// Nothing yet.
    Empty,
    /// The right thing, in this version of its schema.
    Ours(i64),
    /// Somebody else's.
    Foreign,
}

fn contents(connection: &Connection, application_id: i64) -> rusqlite::Result<Contents> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, version, tables) {
        (0, 0, 0) => Contents::Empty,
        (application, version, _) if application == application_id => Contents::Ours(version),
        _ => Contents::Foreign,
    })
}

/// Opens the database of a schema, and creates it or brings it up to date where it is older.
///
/// # Errors
///
/// [`OpenError`]; an existing file is left as it is.
pub(crate) fn open(
    path: &Path,
    medium: Medium<'_>,
    schema: &Schema,
) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| open_error(path, &error);
    let connection = connect(path, medium.vfs).map_err(failed)?;
    // What is not ours is left as it is, down to its journal mode.
    let version = match contents(&connection, schema.application_id).map_err(failed)? {
        Contents::Foreign => {
            return Err(OpenError::Foreign { path: path.to_owned(), what: schema.what });
        }
        Contents::Ours(found) if found > schema.version() => {
            let path = path.to_owned();
            return Err(OpenError::TooNew { path, found, known: schema.version() });
        }
        Contents::Ours(found) => found,
        Contents::Empty => {
            medium.lay_out(&connection).map_err(failed)?;
            if schema.incremental_vacuum {
                connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
            }
            0
        }
    };
    configure(&connection, medium.synchronous).map_err(failed)?;
    if version < schema.version() {
        migrate(&connection, schema, version).map_err(failed)?;
    }
    Ok(connection)
}

/// A transaction whose beginning and end are prepared once, which SQLite does not do by itself. Without
/// [`commit`](Self::commit) it is rolled back.
#[derive(Debug)]
pub struct Transaction<'a> {
    connection: &'a Connection,
    is_open: bool,
}

impl<'a> Transaction<'a> {
    /// Begins one that only reads, or one that may write and therefore takes the lock at once.
    ///
    /// # Errors
    ///
    /// SQLite's, also if one is open already.
    pub fn begin(connection: &'a Connection, reads_only: bool) -> rusqlite::Result<Self> {
        let begin = if reads_only { "BEGIN DEFERRED" } else { "BEGIN IMMEDIATE" };
        connection.prepare_cached(begin)?.execute([])?;
        Ok(Self { connection, is_open: true })
    }

    /// Makes what was done count.
    ///
    /// # Errors
    ///
    /// SQLite's; it is rolled back then.
    pub fn commit(mut self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.is_open = false;
        Ok(())
    }
}

impl std::ops::Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // After some errors SQLite has rolled back already.
        if self.is_open && !self.connection.is_autocommit() {
            let _lost = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// Brings a database from a version to the newest, all or nothing.
fn migrate(connection: &Connection, schema: &Schema, from: i64) -> rusqlite::Result<()> {
    let transaction = Transaction::begin(connection, false)?;
    for version in schema.versions.iter().skip(usize::try_from(from).unwrap_or(0)) {
        transaction.execute_batch(version)?;
    }
    transaction.pragma_update(None, "application_id", schema.application_id)?;
    transaction.pragma_update(None, "user_version", schema.version())?;
    transaction.commit()
}

pub(crate) fn open_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    use rusqlite::ErrorCode;
    let (path, problem) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { path, problem }
        }
        None if is_damage(error) => OpenError::Damaged { path, problem },
        _ => OpenError::Io { path, problem },
    }
}

/// Whether SQLite has read something, and it is not what was written.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..)
    )
}

/// What a column holds is not what was written into it.
pub(crate) fn damaged(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}
