//! The durable log and the durable cursor, on SQLite.
//!
//! The database belongs to one process at a time (`locking_mode=EXCLUSIVE`), is written through a
//! write-ahead log, and a transaction counts only when it is on the disk (`synchronous=FULL`).
//! Everything that is ready is one transaction: that is the group commit of [EV-1].
//!
//! [`SqliteLog`] works on the thread that calls it. [`Threaded`](crate::storage::Threaded) gives it a thread of its own,
//! which is what a server wants; a simulation wants the former.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::AgentId;
use super::client::Position;
use super::log::{Append, Appended, Command, Read, Reply, StreamState};
use super::wire::EventBody;
use crate::database::{self, Medium, OpenError, Schema, Synchronous, Transaction, damaged};
use crate::mark;
use crate::recovery::{Epoch, EpochStart, Lineage, MAX_SEQUENCE, WallTime};
use crate::storage::{Copied, StoreCommand, StoreError, Transact};

/// "gple".
const SCHEMA: Schema = Schema {
    application_id: 0x6770_6c65,
    what: "an event log",
    versions: &[VERSION_1],
    incremental_vacuum: false,
};

const VERSION_1: &str = "
CREATE TABLE epochs (
    ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch   TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE streams (
    stream    INTEGER PRIMARY KEY AUTOINCREMENT,
    agent     TEXT NOT NULL UNIQUE,
    head      INTEGER NOT NULL,
    oldest    INTEGER NOT NULL,
    keys_from INTEGER NOT NULL
) STRICT;
CREATE TABLE lineage (
    stream  INTEGER NOT NULL REFERENCES streams,
    ordinal INTEGER NOT NULL REFERENCES epochs,
    first   INTEGER NOT NULL,
    PRIMARY KEY (stream, ordinal)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    stream     INTEGER NOT NULL REFERENCES streams,
    sequence   INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (stream, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_by_time ON events (stream, created_ms);
CREATE TABLE event_keys (
    stream    INTEGER NOT NULL REFERENCES streams,
    id        TEXT NOT NULL,
    principal TEXT NOT NULL,
    sequence  INTEGER NOT NULL,
    digest    BLOB NOT NULL,
    PRIMARY KEY (stream, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_keys_by_sequence ON event_keys (stream, sequence);
";

/// Where and how the log is kept.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The database file.
    pub path: PathBuf,
    /// The name of a SQLite VFS to open it with; `None` = the operating system's.
    pub vfs: Option<String>,
    /// How many events of a stream are kept; `None` = all.
    pub retain_events: Option<u64>,
    /// How many numbers back an id is remembered after its event was forgotten: 100,000.
    pub remember_ids: u64,
    /// How many epochs are remembered: 4,096. A cursor of an older one is answered "other epoch".
    pub epochs_max: u64,
    /// What a commit survives: a loss of power.
    pub synchronous: Synchronous,
    /// Bytes of a page of a new database, a power of two from 512 to 65,536; `None` = SQLite's
    /// choice, which is 4,096. One that is there keeps its own.
    pub page_bytes: Option<u32>,
}

impl LogConfig {
    /// Keeps everything, in `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            vfs: None,
            retain_events: None,
            remember_ids: 100_000,
            epochs_max: 4_096,
            synchronous: Synchronous::Full,
            page_bytes: None,
        }
    }
}

/// The log on SQLite, on the caller's thread.
#[derive(Debug)]
pub struct SqliteLog {
    connection: Connection,
    config: LogConfig,
    era: RefCell<Era>,
}

/// The log as this process has written it: nobody else does.
#[derive(Debug, Default)]
struct Era {
    /// The newest epoch, and its place among all.
    epoch: Option<(i64, Epoch)>,
    /// Streams that were in use since the epoch began, as the last commit left them.
    streams: BTreeMap<AgentId, StreamRow>,
}

/// How many streams are kept in memory. Beyond, the database is asked again.
const STREAMS_MAX: usize = 16_384;

impl SqliteLog {
    /// Opens the log, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; an existing file is left as it is.
    pub fn open(config: LogConfig) -> Result<Self, OpenError> {
        let medium = Medium {
            vfs: config.vfs.as_deref(),
            synchronous: config.synchronous,
            page_bytes: config.page_bytes,
        };
        let connection = database::open(&config.path, medium, &SCHEMA)?;
        Ok(Self { connection, config, era: RefCell::default() })
    }

    /// Goes on with the newest epoch, in a process that has opened it and opens its log once more.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the database cannot be read.
    pub fn resume(&mut self) -> Result<(), StoreError> {
        let read = |connection: &Connection| {
            connection
                .query_row(
                    "SELECT ordinal, epoch FROM epochs ORDER BY ordinal DESC LIMIT 1",
                    [],
                    |row| {
                        let epoch: String = row.get(1)?;
                        let epoch = Epoch::parse(&epoch).map_err(|error| damaged(1, error))?;
                        Ok((row.get(0)?, epoch))
                    },
                )
                .optional()
        };
        let epoch = read(&self.connection);
        let epoch = epoch.map_err(|error| StoreError::NotApplied(error.to_string()))?;
        self.era = Era { epoch, streams: BTreeMap::new() }.into();
        Ok(())
    }

    fn run_as_one(&self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let read_only = commands.iter().all(Command::is_read_only);
        let not_applied = |error: rusqlite::Error| StoreError::NotApplied(error.to_string());
        if commands.len() > 1 {
            mark!("events.group_commit");
        }
        let transaction = Transaction::begin(&self.connection, read_only).map_err(not_applied)?;
        let mut era = self.era.borrow_mut();
        // Of a transaction that fails it may not be known what is stored: then the database is asked.
        let Era { epoch, streams } = std::mem::take(&mut *era);
        era.epoch.clone_from(&epoch);
        let mut run = Run { transaction: &transaction, config: &self.config, epoch, streams };
        let replies: Result<Vec<_>, _> =
            commands.into_iter().map(|command| run.command(command)).collect();
        let Run { epoch, mut streams, .. } = run;
        let replies = replies.map_err(not_applied)?;
        transaction.commit().map_err(|error| match read_only {
            true => StoreError::NotApplied(error.to_string()),
            false => StoreError::Unknown(error.to_string()),
        })?;
        if streams.len() > STREAMS_MAX {
            streams.clear();
        }
        *era = Era { epoch, streams };
        Ok(replies)
    }

    /// The streams of the log, for inspection.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the database cannot be read.
    pub fn agents(&self) -> Result<Vec<AgentId>, StoreError> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut statement =
                self.connection.prepare_cached("SELECT agent FROM streams ORDER BY stream")?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        let agents = read().map_err(|error| StoreError::NotApplied(error.to_string()))?;
        Ok(agents.iter().filter_map(|agent| AgentId::parse(agent).ok()).collect())
    }
}

impl Transact<Command> for SqliteLog {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        self.run_as_one(commands)
    }
}

impl Copied<Command> for SqliteLog {
    fn database(&self) -> &Connection {
        &self.connection
    }

    fn transact_while_copied(&self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        self.run_as_one(commands)
    }
}

/// One transaction in progress.
struct Run<'a> {
    transaction: &'a Transaction<'a>,
    config: &'a LogConfig,
    epoch: Option<(i64, Epoch)>,
    /// As the transaction leaves them.
    streams: BTreeMap<AgentId, StreamRow>,
}

#[derive(Debug, Clone, Copy)]
struct StreamRow {
    stream: i64,
    head: u64,
    oldest: u64,
    keys_from: u64,
    /// Whether it is known to have numbers in the newest epoch.
    begun: bool,
}

impl Run<'_> {
    fn command(&mut self, command: Command) -> rusqlite::Result<Reply> {
        match command {
            // The log has one writer, so each start is another epoch, and every answer confirmed.
            Command::OpenEpoch { proposed, broken: _ } => self.open_epoch(proposed),
            Command::Load { agent, confirmed: _ } => self.load(&agent).map(Reply::Loaded),
            Command::Append(append) => self.append(append).map(Reply::Appended),
            Command::Read(read) => self.read(&read).map(Reply::Page),
            Command::FindSince(agent, since) => self.find_since(&agent, since).map(Reply::Since),
            Command::Retain { agent, oldest } => self.retain(&agent, oldest).map(Reply::Retained),
        }
    }

    fn open_epoch(&mut self, epoch: Epoch) -> rusqlite::Result<Reply> {
        self.transaction
            .prepare_cached("INSERT INTO epochs (epoch) VALUES (?1)")?
            .execute([epoch.as_str()])?;
        let ordinal = self.transaction.last_insert_rowid();
        // Epochs in which some stream still has its numbers are kept whatever their age.
        self.transaction
            .prepare_cached(
                "DELETE FROM epochs WHERE ordinal <= ?1
                 AND NOT EXISTS (SELECT 1 FROM lineage WHERE lineage.ordinal = epochs.ordinal)",
            )?
            .execute([ordinal.saturating_sub_unsigned(self.config.epochs_max)])?;
        self.epoch = Some((ordinal, epoch.clone()));
        self.streams.clear();
        Ok(Reply::EpochOpened(epoch))
    }

    fn stream(&mut self, agent: &AgentId) -> rusqlite::Result<Option<StreamRow>> {
        if let Some(row) = self.streams.get(agent) {
            return Ok(Some(*row));
        }
        let row = self
            .transaction
            .prepare_cached("SELECT stream, head, oldest, keys_from FROM streams WHERE agent = ?1")?
            .query_row([agent.as_str()], |row| {
                Ok(StreamRow {
                    stream: row.get(0)?,
                    head: row.get(1)?,
                    oldest: row.get(2)?,
                    keys_from: row.get(3)?,
                    begun: false,
                })
            })
            .optional()?;
        if let Some(row) = row {
            self.streams.insert(agent.clone(), row);
        }
        Ok(row)
    }

    fn load(&mut self, agent: &AgentId) -> rusqlite::Result<StreamState> {
        let row = self.stream(agent)?;
        let stream = row.as_ref().map_or(-1, |row| row.stream);
        let mut statement = self.transaction.prepare_cached(
            "SELECT epochs.epoch, lineage.first FROM epochs
             LEFT JOIN lineage ON lineage.ordinal = epochs.ordinal AND lineage.stream = ?1
             ORDER BY epochs.ordinal",
        )?;
        let rows = statement
            .query_map([stream], |row| {
                let epoch: String = row.get(0)?;
                let epoch = Epoch::parse(&epoch).map_err(|error| damaged(0, error))?;
                Ok(EpochStart { epoch, first: row.get(1)? })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(StreamState {
            oldest: row.as_ref().map_or(1, |row| row.oldest),
            head: row.as_ref().map_or(0, |row| row.head),
            lineage: Lineage::new(rows),
        })
    }

    fn append(&mut self, append: Append) -> rusqlite::Result<Appended> {
        let Some((ordinal, _)) = self.epoch else {
            return Err(rusqlite::Error::InvalidParameterName("no epoch is open".to_owned()));
        };
        let mut row = match self.stream(&append.agent)? {
            Some(row) => row,
            None => {
                self.transaction
                    .prepare_cached(
                        "INSERT INTO streams (agent, head, oldest, keys_from) VALUES (?1, 0, 1, 1)",
                    )?
                    .execute([append.agent.as_str()])?;
                let stream = self.transaction.last_insert_rowid();
                StreamRow { stream, head: 0, oldest: 1, keys_from: 1, begun: false }
            }
        };
        let sequence = row.head + 1;
        if let Some(id) = append.body.id() {
            let digest = Sha256::digest(append.body.as_str());
            let expired = append.after.is_some_and(|after| after.saturating_add(1) < row.keys_from);
            let is_new = !expired
                && sequence <= MAX_SEQUENCE
                && self.remember(&row, id, &append.principal, sequence, &digest)?;
            if !is_new && let Some(known) = self.known_id(&row, id, &append.principal, &digest)? {
                return Ok(known);
            }
            if expired {
                mark!("events.publish_expired");
                return Ok(Appended::Expired);
            }
        }
        if sequence > MAX_SEQUENCE {
            return Ok(Appended::Exhausted);
        }
        self.transaction
            .prepare_cached(
                "INSERT INTO events (stream, sequence, created_ms, body) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                row.stream,
                sequence,
                append.created_at.as_millis(),
                append.body.as_str()
            ])?;
        self.transaction
            .prepare_cached("UPDATE streams SET head = ?2 WHERE stream = ?1")?
            .execute(params![row.stream, sequence])?;
        row.head = sequence;
        if !row.begun {
            self.transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO lineage (stream, ordinal, first) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![row.stream, ordinal, sequence])?;
            row.begun = true;
        }
        // Removing a sixteenth at a time keeps the cost per append flat.
        if let Some(keep) = self.config.retain_events
            && sequence - row.oldest + 1 > keep + keep / 16
        {
            self.forget(&mut row, sequence + 1 - keep)?;
        }
        self.streams.insert(append.agent, row);
        Ok(Appended::New { sequence, oldest: row.oldest, body: append.body })
    }

    /// Remembers an id for a number. `false` if it is remembered for another one.
    fn remember(
        &self,
        row: &StreamRow,
        id: &str,
        principal: &str,
        sequence: u64,
        digest: &[u8],
    ) -> rusqlite::Result<bool> {
        let inserted = self
            .transaction
            .prepare_cached(
                "INSERT INTO event_keys (stream, id, principal, sequence, digest)
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            )?
            .execute(params![row.stream, id, principal, sequence, digest])?;
        Ok(inserted > 0)
    }

    fn known_id(
        &self,
        row: &StreamRow,
        id: &str,
        principal: &str,
        digest: &[u8],
    ) -> rusqlite::Result<Option<Appended>> {
        let known: Option<(String, u64, Vec<u8>)> = self
            .transaction
            .prepare_cached(
                "SELECT principal, sequence, digest FROM event_keys WHERE stream = ?1 AND id = ?2",
            )?
            .query_row(params![row.stream, id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((owner, sequence, stored)) = known else { return Ok(None) };
        if owner != principal || stored != digest {
            return Ok(Some(Appended::Conflict));
        }
        let epoch: String = self
            .transaction
            .prepare_cached(
                "SELECT epochs.epoch FROM lineage JOIN epochs USING (ordinal)
                 WHERE lineage.stream = ?1 AND lineage.first <= ?2
                 ORDER BY lineage.first DESC, lineage.ordinal DESC LIMIT 1",
            )?
            .query_row(params![row.stream, sequence], |row| row.get(0))?;
        let epoch = Epoch::parse(&epoch).map_err(|error| damaged(0, error))?;
        Ok(Some(Appended::Existing { sequence, epoch }))
    }

    fn read(&mut self, read: &Read) -> rusqlite::Result<Vec<(u64, EventBody)>> {
        let Some(row) = self.stream(&read.agent)? else { return Ok(vec![]) };
        let mut statement = self.transaction.prepare_cached(
            "SELECT sequence, body FROM events
             WHERE stream = ?1 AND sequence > ?2 AND sequence <= ?3 ORDER BY sequence LIMIT ?4",
        )?;
        let limit = i64::try_from(read.count_max).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![row.stream, read.after, read.to, limit])?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let text = row.get_ref(1)?.as_str()?;
            let body = EventBody::from_stored(text).map_err(|error| damaged(1, error))?;
            bytes += text.len();
            page.push((row.get(0)?, body));
            if bytes >= read.bytes_max {
                break;
            }
        }
        Ok(page)
    }

    fn find_since(&mut self, agent: &AgentId, since: WallTime) -> rusqlite::Result<Option<u64>> {
        let Some(row) = self.stream(agent)? else { return Ok(None) };
        self.transaction
            .prepare_cached(
                "SELECT min(sequence) FROM events WHERE stream = ?1 AND created_ms >= ?2",
            )?
            .query_row(params![row.stream, since.as_millis()], |row| row.get(0))
    }

    fn retain(&mut self, agent: &AgentId, oldest: u64) -> rusqlite::Result<u64> {
        let Some(mut row) = self.stream(agent)? else { return Ok(1) };
        if oldest > row.oldest {
            let oldest = oldest.min(row.head + 1);
            self.forget(&mut row, oldest)?;
            self.streams.insert(agent.clone(), row);
        }
        Ok(row.oldest)
    }

    /// Removes all events below `oldest`, and what is known of them once it is of no more use.
    fn forget(&self, row: &mut StreamRow, oldest: u64) -> rusqlite::Result<()> {
        let keys_from =
            oldest.min((row.head + 1).saturating_sub(self.config.remember_ids)).max(row.keys_from);
        let run = |sql: &str, bound: u64| -> rusqlite::Result<usize> {
            self.transaction.prepare_cached(sql)?.execute(params![row.stream, bound])
        };
        run("DELETE FROM events WHERE stream = ?1 AND sequence < ?2", oldest)?;
        run("DELETE FROM event_keys WHERE stream = ?1 AND sequence < ?2", keys_from)?;
        run("UPDATE streams SET oldest = ?2 WHERE stream = ?1", oldest)?;
        run("UPDATE streams SET keys_from = ?2 WHERE stream = ?1", keys_from)?;
        // An epoch of the stream ends where the next begins; one that ends below what a cursor
        // can continue from, or whose ids are forgotten, answers nothing any more.
        run(
            "DELETE FROM lineage WHERE stream = ?1 AND EXISTS (
                 SELECT 1 FROM lineage AS next WHERE next.stream = lineage.stream
                 AND next.ordinal > lineage.ordinal AND next.first < ?2)",
            oldest.min(keys_from),
        )?;
        (row.oldest, row.keys_from) = (oldest, keys_from);
        Ok(())
    }
}

const CURSOR_TABLE: &str = "
CREATE TABLE IF NOT EXISTS gapless_cursors (
    stream   TEXT PRIMARY KEY,
    epoch    TEXT,
    sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID";

/// Positions of clients, in a table of the application's own database.
///
/// A handler that writes its effect to the same database stores the position in the same
/// transaction ([`SqliteCursor::store`]); that makes delivery exactly-once across a crash [EV-9].
#[derive(Debug, Clone)]
pub struct SqliteCursor {
    stream: String,
}

impl SqliteCursor {
    /// The position of one stream, created in the database if it is not there.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn create(connection: &Connection, stream: &str) -> rusqlite::Result<Self> {
        connection.execute(CURSOR_TABLE, [])?;
        Ok(Self { stream: stream.to_owned() })
    }

    /// The stored position; `None` if nothing was ever stored.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn load(&self, connection: &Connection) -> rusqlite::Result<Option<Position>> {
        connection
            .prepare_cached("SELECT epoch, sequence FROM gapless_cursors WHERE stream = ?1")?
            .query_row([&self.stream], |row| {
                let epoch: Option<String> = row.get(0)?;
                let epoch = epoch.map(|epoch| Epoch::parse(&epoch)).transpose();
                let epoch = epoch.map_err(|error| damaged(0, error))?;
                Ok(Position { epoch, sequence: row.get(1)? })
            })
            .optional()
    }

    /// Stores the position, within the transaction that is open on the connection, if any.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn store(&self, connection: &Connection, position: &Position) -> rusqlite::Result<()> {
        let epoch = position.epoch.as_ref().map(Epoch::as_str);
        connection
            .prepare_cached(
                "INSERT INTO gapless_cursors (stream, epoch, sequence) VALUES (?1, ?2, ?3)
                 ON CONFLICT (stream) DO UPDATE SET epoch = ?2, sequence = ?3",
            )?
            .execute(params![self.stream, epoch, position.sequence])?;
        Ok(())
    }
}
