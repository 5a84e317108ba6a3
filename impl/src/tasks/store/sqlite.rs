//! The store of an agent on SQLite.
//!
//! The database belongs to one process at a time, is written through a write-ahead log, and a
//! transaction counts only when it is on the disk.
//!
//! # How large it gets
//!
//! The cap is on what the files take: the database and its write-ahead log. A quarter of it, at most
//! 16 MiB, is the log's, and is written back when a quarter of that is used, so that the rest is
//! room for one transaction; the database has what is left. Output makes room for itself: before a piece is stored, the oldest pieces are given up
//! until the new one fits beside the results that may still come. Pages that become free are used
//! again, and given back to the file system when they are many [TK-5].

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    Append, Appended, Command, Finish, Known, LastOutput, Message, MessageBody, Receipt, Received,
    Recovered, Reply, Snapshot, Started, StoredFinal,
};
use crate::database::{self, Medium, OpenError, Schema, Synchronous, Transaction, damaged};
use crate::mark;
use crate::recovery::{Epoch, WallTime};
use crate::storage::{StoreCommand, StoreError, Transact};
use crate::tasks::wire::{
    EARLIER_LIVES_MAX, Final, LostOutput, ReceivedAttempt, RunningAttempt, SpoolStatus, StoreLife,
    UnackedOutput,
};
use crate::tasks::{Attempt, AttemptId, MessageId, Outcome, OutputStream, Range, Status, TaskId};

/// "gplt".
const SCHEMA: Schema = Schema {
    application_id: 0x6770_6c74,
    what: "the store of a task agent",
    versions: &[VERSION_1],
    incremental_vacuum: true,
};

const VERSION_1: &str = "
CREATE TABLE lives (
    life         INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch        TEXT NOT NULL UNIQUE,
    predecessor  TEXT,
    acknowledged INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE attempts (
    attempt          INTEGER PRIMARY KEY AUTOINCREMENT,
    task             TEXT NOT NULL,
    id               TEXT NOT NULL,
    status           INTEGER NOT NULL,
    command          TEXT NOT NULL,
    priority         INTEGER NOT NULL,
    received_ms      INTEGER NOT NULL,
    started_ms       INTEGER,
    stdout_last      INTEGER NOT NULL DEFAULT 0,
    stderr_last      INTEGER NOT NULL DEFAULT 0,
    stdout_truncated INTEGER NOT NULL DEFAULT 0,
    stderr_truncated INTEGER NOT NULL DEFAULT 0,
    outcome          TEXT,
    exit_code        INTEGER,
    error            TEXT,
    stdout_said_truncated INTEGER NOT NULL DEFAULT 0,
    stderr_said_truncated INTEGER NOT NULL DEFAULT 0,
    life             INTEGER REFERENCES lives,
    UNIQUE (task, id)
) STRICT;
CREATE INDEX attempts_by_status ON attempts (status);
CREATE TABLE outbox (
    row      INTEGER PRIMARY KEY AUTOINCREMENT,
    attempt  INTEGER NOT NULL REFERENCES attempts,
    stream   INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    life     INTEGER NOT NULL,
    data     BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX outbox_by_number ON outbox (attempt, stream, sequence);
CREATE TABLE lost (
    attempt INTEGER NOT NULL REFERENCES attempts,
    stream  INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    PRIMARY KEY (attempt, stream, last)
) STRICT, WITHOUT ROWID;
";

/// `attempts.status`.
const RECEIVED: i64 = 0;
const RUNNING: i64 = 1;
/// Ended, and the result is not acknowledged.
const ENDED: i64 = 2;
/// Ended, and nobody waits for the result.
const SETTLED: i64 = 3;

/// `outbox.stream` of a result; those of output are 0 and 1.
const RESULT: i64 = 2;

/// The size of a page: SQLite's default, which the schema does not change.
const PAGE_BYTES: u64 = 4096;

/// What a page takes of the write-ahead log: with the header of its frame.
const FRAME_BYTES: u64 = PAGE_BYTES + 24;

/// What a row costs beside its bytes, at most.
const ROW_BYTES: u64 = 96;

/// How many pages one change of a row can touch that is not about its bytes: both trees, split.
const SLACK_PAGES: u64 = 8;

/// How many rows are given up at once.
const ROTATE_ROWS: usize = 16;

/// The longest name of a life, in bytes: with it the longest message id has 256.
const EPOCH_BYTES_MAX: usize = 38;

/// How many runs of lost numbers are remembered of a stream; older ones are forgotten.
const LOST_RUNS_MAX: i64 = 64;

/// How many free pages are given back to the file system after a transaction.
const VACUUM_PAGES: u64 = 64;

/// Where and how the store is kept.
#[derive(Debug, Clone)]
pub struct TaskStoreConfig {
    /// The database file.
    pub path: PathBuf,
    /// The name of a SQLite VFS to open it with; `None` = the operating system's.
    pub vfs: Option<String>,
    /// How many bytes the database and its write-ahead log may take on the disk: 64 MiB.
    pub spool_cap_bytes: u64,
    /// How much room is kept for the result of each attempt that has not ended: 1 MiB.
    pub terminal_reserve_bytes: u64,
    /// The longest error text of a result, in bytes: 64 KiB, and never more than half the reserve.
    pub error_bytes_max: usize,
    /// How many attempts are remembered after their result was acknowledged: 1,000 [TK-17].
    pub finished_max: u64,
    /// What a commit survives: a loss of power.
    pub synchronous: Synchronous,
}

impl TaskStoreConfig {
    /// The limits of the specification, in `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            vfs: None,
            spool_cap_bytes: 64 << 20,
            terminal_reserve_bytes: 1 << 20,
            error_bytes_max: 64 << 10,
            finished_max: 1_000,
            synchronous: Synchronous::Full,
        }
    }

    /// How many bytes of the cap are the write-ahead log's.
    fn log_bytes(&self) -> u64 {
        (self.spool_cap_bytes / 4).min(16 << 20)
    }

    /// How many pages one transaction may touch to release output: half of those that the log has
    /// room for. The other half is for what is stored with it.
    fn released_pages_max(&self) -> u64 {
        ((self.log_bytes() / FRAME_BYTES).saturating_sub(SLACK_PAGES) / 2).max(1)
    }

    /// How many pages the database may have.
    fn pages_max(&self) -> u64 {
        (self.spool_cap_bytes - self.log_bytes()) / PAGE_BYTES
    }

    /// How many pages are kept for a result.
    fn reserve_pages(&self) -> u64 {
        self.terminal_reserve_bytes.div_ceil(PAGE_BYTES)
    }

    fn error_bytes(&self) -> usize {
        let half = usize::try_from(self.terminal_reserve_bytes / 2).unwrap_or(usize::MAX);
        self.error_bytes_max.min(half)
    }
}

/// The store of an agent, on the caller's thread.
#[derive(Debug)]
pub struct SqliteTaskStore {
    connection: Connection,
    config: TaskStoreConfig,
    /// What is known without asking for it. Nobody else changes the database.
    known: Cache,
}

/// What is known of the database without asking for it.
#[derive(Debug, Clone, Default)]
struct Cache {
    tally: Tally,
    /// The life that has begun, by its row.
    life: Option<i64>,
    /// Attempts that were looked at, by name.
    attempts: BTreeMap<Attempt, AttemptRow>,
    /// How many pages are in use at most; `None` when that is to be counted.
    pages: Option<u64>,
    /// Rows were deleted, so pages may be free.
    deleted: bool,
}

/// How many attempts are remembered from one transaction to the next.
const ATTEMPTS_MAX: usize = 64;

/// What one transaction releases of a stream.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// The highest number of it.
    through: u64,
    /// How many pages it touches at most.
    pages: u64,
    /// There is nothing else to be released.
    whole: bool,
}

/// What would otherwise be counted with every command.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// Attempts that have not ended: for each there is a reserve.
    open: u64,
    /// Attempts that have ended and are settled.
    settled: u64,
    /// No output is before this row.
    oldest_output: i64,
    /// Some output was given up, of an attempt that is known.
    truncated: bool,
}

impl SqliteTaskStore {
    /// Opens the store, and creates it if there is none. What is on the disk is counted anew.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; an existing file is left as it is.
    pub fn open(config: TaskStoreConfig) -> Result<Self, OpenError> {
        let medium = Medium {
            vfs: config.vfs.as_deref(),
            synchronous: config.synchronous,
            page_bytes: None,
        };
        let connection = database::open(&config.path, medium, &SCHEMA)?;
        let failed = |error: rusqlite::Error| database::open_error(&config.path, &error);
        // The log is written back, and then overwritten from its start, when it is this large; what
        // a large transaction has added is cut off.
        let log_bytes = config.log_bytes() / 4;
        for (name, value) in
            [("wal_autocheckpoint", log_bytes / PAGE_BYTES), ("journal_size_limit", log_bytes)]
        {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            connection.pragma_update_and_check(None, name, value, |_| Ok(())).map_err(failed)?;
        }
        let tally = Tally::of(&connection).map_err(failed)?;
        Ok(Self { connection, config, known: Cache { tally, ..Cache::default() } })
    }

    /// Goes on with the newest life, in a process that has begun it and opens its store once more.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the database cannot be read.
    pub fn resume(&mut self) -> Result<(), StoreError> {
        let newest = self.connection.query_row("SELECT max(life) FROM lives", [], |row| row.get(0));
        self.known.life = newest.map_err(|error| StoreError::NotApplied(error.to_string()))?;
        Ok(())
    }

    /// How full the store is, in bytes on the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the database cannot be read.
    pub fn spool(&self) -> Result<SpoolStatus, StoreError> {
        spool(&self.connection, &self.config, self.known.tally)
            .map_err(|error| StoreError::NotApplied(error.to_string()))
    }

    /// What of a stream one transaction releases that may touch so many pages: all of it, or what
    /// comes first; one piece at least.
    fn share(
        &self,
        attempt: &Attempt,
        stream: OutputStream,
        through: u64,
        pages_max: u64,
    ) -> Result<Share, StoreError> {
        let share = || -> rusqlite::Result<Share> {
            let mut pieces = self.connection.prepare_cached(
                "SELECT sequence, length(data) FROM outbox
                 WHERE attempt = (SELECT attempt FROM attempts WHERE task = ?1 AND id = ?2)
                   AND stream = ?3 AND sequence <= ?4
                 ORDER BY sequence",
            )?;
            let (task, id) = (attempt.task.as_str(), attempt.id.as_str());
            let mut rows = pieces.query(params![task, id, index(stream), through])?;
            let mut share = Share { through: 0, pages: 0, whole: false };
            while let Some(row) = rows.next()? {
                let (sequence, bytes): (u64, u64) = (row.get(0)?, row.get(1)?);
                // Pieces of several streams lie between each other: for each another page.
                let pages = share.pages + 1 + (bytes + ROW_BYTES) / PAGE_BYTES;
                if pages > pages_max && share.pages > 0 {
                    return Ok(share);
                }
                (share.through, share.pages) = (sequence, pages);
            }
            share.whole = true;
            Ok(share)
        };
        share().map_err(|error| StoreError::NotApplied(error.to_string()))
    }

    /// Runs a part of a group. `after_others` says that something of it is stored already.
    fn run_part(
        &mut self,
        commands: Vec<Command>,
        after_others: bool,
    ) -> Result<Vec<Reply>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        self.run_as_one(commands).map_err(|error| match error {
            StoreError::NotApplied(problem) if after_others => StoreError::Unknown(problem),
            error => error,
        })
    }

    fn run_as_one(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let read_only = commands.iter().all(Command::is_read_only);
        let not_applied = |error: rusqlite::Error| StoreError::NotApplied(error.to_string());
        let transaction = Transaction::begin(&self.connection, read_only).map_err(not_applied)?;
        // A transaction that fails leaves nothing that was known in it.
        let known = std::mem::take(&mut self.known);
        let before = Cache { tally: known.tally, life: known.life, ..Cache::default() };
        self.known = before;
        let mut run = Run { transaction: &transaction, config: &self.config, known };
        let replies: rusqlite::Result<Vec<Reply>> =
            commands.into_iter().map(|command| run.command(command)).collect();
        let replies = replies.and_then(|replies| {
            run.write_back()?;
            Ok(replies)
        });
        let known = run.known;
        let replies = replies.map_err(not_applied)?;
        transaction.commit().map_err(|error| match read_only {
            true => StoreError::NotApplied(error.to_string()),
            false => StoreError::Unknown(error.to_string()),
        })?;
        self.known = known;
        if self.known.attempts.len() > ATTEMPTS_MAX {
            self.known.attempts.clear();
        }
        if std::mem::take(&mut self.known.deleted) {
            self.give_pages_back();
        }
        Ok(replies)
    }

    /// Empties the write-ahead log. What the life before has left in it would take the room of what
    /// this one writes, and both together may be more than its share of the cap [TK-5a].
    fn write_log_back(&self) -> Result<(), StoreError> {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        let done = self.connection.query_row(checkpoint, [], |_| Ok(()));
        done.map_err(|error| StoreError::NotApplied(error.to_string()))
    }

    /// Gives some free pages back to the file system, if they are many. What fails is tried again
    /// after the next transaction that deletes something.
    fn give_pages_back(&mut self) {
        self.known.pages = None;
        let shrink = || -> rusqlite::Result<()> {
            let (pages, free) = pages(&self.connection)?;
            if free * 2 > pages && free > VACUUM_PAGES {
                mark!("tasks.pages_given_back");
                let mut vacuum = self
                    .connection
                    .prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
                let mut rows = vacuum.query([])?;
                while rows.next()?.is_some() {}
            }
            Ok(())
        };
        if let Err(error) = shrink() {
            mark!("tasks.pages_not_given_back");
            tracing::warn!(%error, "the store could not be made smaller");
        }
    }
}

impl Transact<Command> for SqliteTaskStore {
    /// What is more than the write-ahead log has room for, output that is stored or rows that are
    /// deleted, is several transactions: then a failure leaves some of it done, and doing it again
    /// changes nothing.
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let bytes_max = usize::try_from(self.config.log_bytes() / 8).unwrap_or(usize::MAX);
        let pages_max = self.config.released_pages_max();
        let (mut replies, mut part) = (Vec::with_capacity(commands.len()), vec![]);
        // What is written, and how many pages are touched to delete, by what is in the part.
        let (mut bytes, mut pages) = (0, 0);
        let mut released_before = Vec::new();
        if commands.iter().any(|command| matches!(command, Command::Recover { .. })) {
            self.write_log_back()?;
        }
        for command in commands {
            match &command {
                Command::Append(append) => {
                    if bytes > 0 && bytes + append.data.len() > bytes_max {
                        let part = std::mem::take(&mut part);
                        replies.extend(self.run_part(part, !replies.is_empty())?);
                        (bytes, pages) = (0, 0);
                    }
                    bytes += append.data.len();
                }
                Command::AckOutput { attempt, stream, through } => {
                    let mut released = 0;
                    loop {
                        let room = pages_max.saturating_sub(pages);
                        let share = self.share(attempt, *stream, *through, room)?;
                        if share.whole && (pages == 0 || share.pages <= room) {
                            pages += share.pages;
                            break;
                        }
                        if part.is_empty() {
                            let (attempt, stream, through) =
                                (attempt.clone(), *stream, share.through);
                            let step = Command::AckOutput { attempt, stream, through };
                            if let [Reply::Released(count)] = self.run_part(vec![step], true)?[..] {
                                released += count;
                            }
                        } else {
                            let part = std::mem::take(&mut part);
                            replies.extend(self.run_part(part, !replies.is_empty())?);
                            (bytes, pages) = (0, 0);
                        }
                    }
                    released_before.push((replies.len() + part.len(), released));
                }
                _ => {}
            }
            part.push(command);
        }
        replies.extend(self.run_part(part, !replies.is_empty())?);
        for (at, before) in released_before {
            if let Some(Reply::Released(count)) = replies.get_mut(at) {
                *count += before;
            }
        }
        Ok(replies)
    }
}

impl Tally {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0));
        Ok(Self {
            open: count("SELECT count(*) FROM attempts WHERE status IN (0, 1)")?,
            settled: count("SELECT count(*) FROM attempts WHERE status = 3")?,
            oldest_output: 0,
            truncated: count(
                "SELECT count(*) FROM attempts WHERE stdout_truncated + stderr_truncated > 0",
            )? > 0,
        })
    }
}

/// How many pages the database has, and how many of them are free.
fn pages(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let pragma = |sql: &str| -> rusqlite::Result<u64> {
        connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
    };
    Ok((pragma("PRAGMA page_count")?, pragma("PRAGMA freelist_count")?))
}

fn spool(
    connection: &Connection,
    config: &TaskStoreConfig,
    tally: Tally,
) -> rusqlite::Result<SpoolStatus> {
    let (pages, free) = pages(connection)?;
    Ok(SpoolStatus {
        bytes_used: (pages - free) * PAGE_BYTES,
        byte_cap: config.spool_cap_bytes,
        has_rotated_chunks: tally.truncated,
    })
}

/// One transaction in progress.
struct Run<'a> {
    transaction: &'a Transaction<'a>,
    config: &'a TaskStoreConfig,
    known: Cache,
}

/// A piece of output: its row, attempt, stream and number, and the attempt's name.
type OldOutput = (i64, i64, i64, u64, Attempt);

/// What is known of an attempt. `changed` says that it is to be written at the end.
///
/// The highest numbers are written when rows are deleted: until then the rows say them, so that a
/// piece costs no more than its own row.
#[derive(Debug, Clone)]
struct AttemptRow {
    row: i64,
    status: i64,
    last: [u64; 2],
    truncated: [bool; 2],
    changed: bool,
}

fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

fn stream_of(index: i64) -> Option<OutputStream> {
    usize::try_from(index).ok().and_then(|index| OutputStream::ALL.get(index)).copied()
}

fn attempt_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Attempt> {
    let (task, id): (String, String) = (row.get(column)?, row.get(column + 1)?);
    Ok(Attempt {
        task: TaskId::parse(&task).map_err(|error| damaged(column, error))?,
        id: AttemptId::parse(&id).map_err(|error| damaged(column + 1, error))?,
    })
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Failed => "failed",
        Outcome::Interrupted => "interrupted",
    }
}

fn outcome_of(name: &str) -> Outcome {
    match name {
        "completed" => Outcome::Completed,
        "failed" => Outcome::Failed,
        _ => Outcome::Interrupted,
    }
}

/// The name of a message: its life, attempt, stream and number, each of which can be told from the
/// others [TK-15]. It fits: 32 + 2 × 100 + 1 + 16 digits and dots.
fn message_id(epoch: &str, attempt: &Attempt, stream: i64, sequence: u64) -> MessageId {
    let (task, id) = (attempt.task.as_str(), attempt.id.as_str());
    let kind = ["o", "e", "f"][usize::try_from(stream).unwrap_or(2).min(2)];
    let text = format!("{epoch}.{}.{task}.{}.{id}.{kind}{sequence}", task.len(), id.len());
    MessageId::parse(&text).expect("its parts are bounded")
}

/// What [`message_id`] says.
fn parts_of(message_id: &MessageId) -> Option<(Attempt, i64, u64)> {
    fn text(rest: &str) -> Option<(&str, &str)> {
        let (length, rest) = rest.split_once('.')?;
        let (text, rest) = rest.split_at_checked(length.parse().ok()?)?;
        Some((text, rest.strip_prefix('.')?))
    }
    let (_epoch, rest) = message_id.as_str().split_once('.')?;
    let (task, rest) = text(rest)?;
    let (id, rest) = text(rest)?;
    let stream = ["o", "e", "f"].iter().position(|kind| rest.starts_with(kind))?;
    let sequence = rest.get(1..)?.parse().ok()?;
    let attempt = Attempt { task: TaskId::parse(task).ok()?, id: AttemptId::parse(id).ok()? };
    Some((attempt, i64::try_from(stream).ok()?, sequence))
}

impl Run<'_> {
    fn command(&mut self, command: Command) -> rusqlite::Result<Reply> {
        match command {
            Command::Recover { epoch, at } => self.recover(epoch, at).map(Reply::Recovered),
            Command::Acknowledged(epoch) => self.acknowledged(&epoch).map(Reply::Released),
            Command::Receive(receipt) => self.receive(receipt).map(Reply::Received),
            Command::Start { attempt, at } => self.start(&attempt, at).map(Reply::Started),
            Command::Append(append) => self.append(append).map(Reply::Appended),
            Command::Finish(finish) => self.finish(finish).map(Reply::Finished),
            Command::Ack(id) => self.let_go(&id, false).map(Reply::Released),
            Command::Quarantine(id) => self.let_go(&id, true).map(Reply::Released),
            Command::AckOutput { attempt, stream, through } => {
                self.ack_output(&attempt, stream, through).map(Reply::Released)
            }
            Command::Discard(attempts) => self.discard(attempts).map(Reply::Discarded),
            Command::Find(attempt) => self.find(&attempt).map(Reply::Found),
            Command::Snapshot { finals_max, ranges_max } => {
                self.snapshot(finals_max, ranges_max).map(Reply::Snapshot)
            }
            Command::LostEnds { count_max } => {
                self.write_back()?;
                Ok(Reply::LostEnds(self.lost_ends(count_max)?.0))
            }
            Command::ReadOutbox { after, count_max, bytes_max } => {
                self.read_outbox(after, count_max, bytes_max).map(Reply::Outbox)
            }
        }
    }

    // ---- attempts ----------------------------------------------------------------------------

    /// What is known of an attempt, as it is in this transaction.
    fn attempt(&mut self, attempt: &Attempt) -> rusqlite::Result<Option<&mut AttemptRow>> {
        if !self.known.attempts.contains_key(attempt) {
            let found = self
                .transaction
                .prepare_cached(
                    "SELECT attempt, status,
                            max(stdout_last, (SELECT coalesce(max(sequence), 0) FROM outbox
                                WHERE outbox.attempt = attempts.attempt AND stream = 0)),
                            max(stderr_last, (SELECT coalesce(max(sequence), 0) FROM outbox
                                WHERE outbox.attempt = attempts.attempt AND stream = 1)),
                            stdout_truncated, stderr_truncated
                     FROM attempts WHERE task = ?1 AND id = ?2",
                )?
                .query_row([attempt.task.as_str(), attempt.id.as_str()], |row| {
                    Ok(AttemptRow {
                        row: row.get(0)?,
                        status: row.get(1)?,
                        last: [row.get(2)?, row.get(3)?],
                        truncated: [row.get(4)?, row.get(5)?],
                        changed: false,
                    })
                })
                .optional()?;
            let Some(found) = found else { return Ok(None) };
            self.known.attempts.insert(attempt.clone(), found);
        }
        Ok(self.known.attempts.get_mut(attempt))
    }

    /// Writes what has changed of the attempts. A row is written once, whatever happened to it.
    fn write_back(&mut self) -> rusqlite::Result<()> {
        for row in self.known.attempts.values_mut().filter(|row| row.changed) {
            row.changed = false;
            self.transaction
                .prepare_cached(
                    "UPDATE attempts SET status = ?2, stdout_last = ?3, stderr_last = ?4,
                            stdout_truncated = ?5, stderr_truncated = ?6
                     WHERE attempt = ?1",
                )?
                .execute(params![
                    row.row,
                    row.status,
                    row.last[0],
                    row.last[1],
                    row.truncated[0],
                    row.truncated[1]
                ])?;
        }
        Ok(())
    }

    fn receive(&mut self, receipt: Receipt) -> rusqlite::Result<Received> {
        if let Some(known) = self.find(&receipt.attempt)? {
            mark!("tasks.known_attempt_answered");
            return Ok(Received::Known(known));
        }
        let command = receipt.command.len() as u64;
        let reserves = (self.known.tally.open + 1) * self.config.reserve_pages();
        let needed = (command + ROW_BYTES).div_ceil(PAGE_BYTES) + SLACK_PAGES;
        let room = self.config.pages_max();
        if self.used()? + reserves + needed > room {
            // What was counted on the safe side is counted exactly.
            self.known.pages = None;
            if self.used()? + reserves + needed > room {
                mark!("tasks.no_room_for_a_result");
                return Ok(Received::NoRoom);
            }
        }
        self.spend(needed);
        self.transaction
            .prepare_cached(
                "INSERT INTO attempts (task, id, status, command, priority, received_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                receipt.attempt.task.as_str(),
                receipt.attempt.id.as_str(),
                RECEIVED,
                receipt.command,
                receipt.priority,
                receipt.at.as_millis()
            ])?;
        self.known.tally.open += 1;
        Ok(Received::New)
    }

    fn start(&mut self, attempt: &Attempt, at: WallTime) -> rusqlite::Result<Started> {
        let Some(row) = self.attempt(attempt)? else { return Ok(Started::Unknown) };
        match row.status {
            RECEIVED => {
                (row.status, row.changed) = (RUNNING, true);
                let id = row.row;
                self.transaction
                    .prepare_cached("UPDATE attempts SET started_ms = ?2 WHERE attempt = ?1")?
                    .execute(params![id, at.as_millis()])?;
                Ok(Started::Now)
            }
            RUNNING => Ok(Started::Before),
            _ => Ok(Started::Ended),
        }
    }

    fn discard(&mut self, attempts: Vec<Attempt>) -> rusqlite::Result<Vec<Attempt>> {
        let mut gone = Vec::new();
        for attempt in attempts {
            let Some(row) = self.attempt(&attempt)? else {
                // It was discarded before.
                gone.push(attempt);
                continue;
            };
            if row.status != RECEIVED {
                continue;
            }
            let id = row.row;
            self.transaction
                .prepare_cached("DELETE FROM attempts WHERE attempt = ?1")?
                .execute([id])?;
            self.known.attempts.remove(&attempt);
            self.known.tally.open -= 1;
            gone.push(attempt);
        }
        Ok(gone)
    }

    fn find(&mut self, attempt: &Attempt) -> rusqlite::Result<Option<Known>> {
        let Some(row) = self.attempt(attempt)?.cloned() else { return Ok(None) };
        let command = || -> rusqlite::Result<String> {
            self.transaction
                .prepare_cached("SELECT command FROM attempts WHERE attempt = ?1")?
                .query_row([row.row], |row| row.get(0))
        };
        Ok(Some(match row.status {
            RECEIVED | RUNNING => {
                let status =
                    if row.status == RECEIVED { Status::Received } else { Status::Running };
                Known { status, command: Some(command()?), result: None }
            }
            _ => {
                let stored = self.result(attempt, &row)?;
                let status = Status::Final(stored.result.outcome);
                Known { status, command: None, result: Some(stored) }
            }
        }))
    }

    // ---- results -----------------------------------------------------------------------------

    /// The result of an attempt that has ended.
    fn result(&self, attempt: &Attempt, row: &AttemptRow) -> rusqlite::Result<StoredFinal> {
        // What is given up later changes nothing of what the message says.
        let (outcome, exit_code, error, epoch, said): (String, i64, String, String, [bool; 2]) =
            self.transaction
                .prepare_cached(
                    "SELECT outcome, exit_code, error, epoch, stdout_said_truncated,
                            stderr_said_truncated
                     FROM attempts JOIN lives USING (life) WHERE attempt = ?1",
                )?
                .query_row([row.row], |row| {
                    let said = [row.get(4)?, row.get(5)?];
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, said))
                })?;
        let outbox: Option<u64> = self
            .transaction
            .prepare_cached(
                "SELECT row FROM outbox WHERE attempt = ?1 AND stream = 2 AND sequence = 0",
            )?
            .query_row([row.row], |row| row.get(0))
            .optional()?;
        Ok(StoredFinal {
            row: outbox.unwrap_or(0),
            message_id: message_id(&epoch, attempt, RESULT, 0),
            result: Final {
                attempt: attempt.clone(),
                outcome: outcome_of(&outcome),
                exit_code,
                error,
                output_truncated: said[0],
                error_truncated: said[1],
                last_output: Some(last_output(row.last)),
            },
        })
    }

    fn finish(&mut self, finish: Finish) -> rusqlite::Result<StoredFinal> {
        let life = self.life()?;
        let attempt = finish.attempt;
        let Some(row) = self.attempt(&attempt)? else {
            return Err(missing(&attempt));
        };
        if row.status < ENDED {
            (row.status, row.changed) = (ENDED, true);
            for stream in &finish.truncated {
                row.truncated[index(*stream)] = true;
            }
            let (id, truncated) = (row.row, row.truncated);
            self.known.tally.truncated |= !finish.truncated.is_empty();
            let error = cut(&finish.error, self.config.error_bytes());
            self.transaction
                .prepare_cached(
                    "UPDATE attempts
                     SET outcome = ?2, exit_code = ?3, error = ?4, life = ?5, command = '',
                         stdout_said_truncated = ?6, stderr_said_truncated = ?7
                     WHERE attempt = ?1",
                )?
                .execute(params![
                    id,
                    outcome_name(finish.outcome),
                    finish.exit_code,
                    error,
                    life,
                    truncated[0],
                    truncated[1]
                ])?;
            self.transaction
                .prepare_cached(
                    "INSERT INTO outbox (attempt, stream, sequence, life, data)
                     VALUES (?1, ?2, 0, ?3, x'')",
                )?
                .execute(params![id, RESULT, life])?;
            // The reserve pays for it.
            self.spend((error.len() as u64 + ROW_BYTES).div_ceil(PAGE_BYTES) + SLACK_PAGES);
            self.known.tally.open -= 1;
        } else {
            mark!("tasks.result_stored_before");
        }
        let row = self.known.attempts.get(&attempt).cloned().ok_or_else(|| missing(&attempt))?;
        self.result(&attempt, &row)
    }

    // ---- output ------------------------------------------------------------------------------

    fn append(&mut self, append: Append) -> rusqlite::Result<Appended> {
        let life = self.life()?;
        let stream = index(append.stream);
        let Some(row) = self.attempt(&append.attempt)? else { return Ok(Appended::NotRunning) };
        let (id, last, status) = (row.row, row.last[stream], row.status);
        if append.sequence <= last {
            return self.appended_before(id, &append);
        }
        if append.sequence != last + 1 {
            mark!("tasks.number_conflicts");
            return Ok(Appended::Conflict);
        }
        if status != RUNNING {
            return Ok(Appended::NotRunning);
        }
        let fits = self.make_room(append.data.len() as u64)?;
        let Some(row) = self.attempt(&append.attempt)? else { return Ok(Appended::NotRunning) };
        row.last[stream] = append.sequence;
        if !fits {
            row.changed = true;
            mark!("tasks.piece_larger_than_the_spool");
            row.truncated[stream] = true;
            self.known.tally.truncated = true;
            self.remember_lost(id, stream, append.sequence)?;
            return Ok(Appended::TooLarge);
        }
        let number = i64::try_from(stream).unwrap_or(0);
        self.transaction
            .prepare_cached(
                "INSERT INTO outbox (attempt, stream, sequence, life, data)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![id, number, append.sequence, life, &append.data[..]])?;
        let row = u64::try_from(self.transaction.last_insert_rowid()).unwrap_or(0);
        Ok(Appended::Stored { row })
    }

    /// A number that was given before: to the same bytes, as far as they are still here [TK-4].
    fn appended_before(&self, attempt: i64, append: &Append) -> rusqlite::Result<Appended> {
        let stored: Option<(u64, Vec<u8>)> = self
            .transaction
            .prepare_cached(
                "SELECT row, data FROM outbox WHERE attempt = ?1 AND stream = ?2 AND sequence = ?3",
            )?
            .query_row(params![attempt, index(append.stream), append.sequence], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        Ok(match stored {
            Some((_, data)) if data != append.data => {
                mark!("tasks.number_conflicts");
                Appended::Conflict
            }
            Some((row, _)) => Appended::Stored { row },
            None => Appended::Stored { row: 0 },
        })
    }

    /// Gives up the oldest output until a piece fits beside the results that may still come, and
    /// says whether it does.
    fn make_room(&mut self, bytes: u64) -> rusqlite::Result<bool> {
        let needed = (bytes + ROW_BYTES).div_ceil(PAGE_BYTES);
        let reserves = self.known.tally.open * self.config.reserve_pages();
        let room = self.config.pages_max().saturating_sub(reserves + SLACK_PAGES);
        if self.used()? + needed <= room {
            self.spend_bytes(bytes);
            return Ok(true);
        }
        // What was counted on the safe side is counted exactly.
        self.known.pages = None;
        while self.used()? + needed > room {
            if !self.rotate()? {
                return Ok(false);
            }
            self.known.pages = None;
        }
        self.spend_bytes(bytes);
        Ok(true)
    }

    /// Gives up some of the oldest output, of whatever attempt, and says whether there was any. How
    /// far the attempts are is not touched [TK-3].
    fn rotate(&mut self) -> rusqlite::Result<bool> {
        self.write_back()?;
        let mut oldest = self.oldest_output(self.known.tally.oldest_output, false)?;
        // What declares the loss of everything before it goes last.
        let tails = oldest.is_empty();
        if tails {
            oldest = self.oldest_output(0, true)?;
        }
        if oldest.is_empty() {
            return Ok(false);
        }
        mark!("tasks.output_given_up");
        self.known.deleted = true;
        self.known.tally.truncated = true;
        for (row, id, stream, sequence, attempt) in oldest {
            self.transaction.prepare_cached("DELETE FROM outbox WHERE row = ?1")?.execute([row])?;
            let stream = usize::try_from(stream).unwrap_or(0).min(1);
            self.remember_lost(id, stream, sequence)?;
            if let Some(known) = self.attempt(&attempt)? {
                (known.truncated[stream], known.changed) = (true, true);
            }
            if !tails {
                self.known.tally.oldest_output = row + 1;
            }
        }
        Ok(true)
    }

    /// Some of the oldest output from a row on: the last pieces of streams of attempts that have
    /// ended, or everything else.
    fn oldest_output(&self, from: i64, tails: bool) -> rusqlite::Result<Vec<OldOutput>> {
        self.transaction
            .prepare_cached(
                "SELECT row, attempt, stream, sequence, task, id
                 FROM outbox JOIN attempts USING (attempt)
                 WHERE row >= ?1 AND stream < 2
                   AND ?2 = (status >= 2 AND sequence = (
                       SELECT max(sequence) FROM outbox AS of_stream
                       WHERE of_stream.attempt = outbox.attempt
                         AND of_stream.stream = outbox.stream))
                 ORDER BY row LIMIT ?3",
            )?
            .query_map(params![from, tails, ROTATE_ROWS], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, attempt_of(row, 4)?))
            })?
            .collect()
    }

    /// A number will never be sent; neighbours are one run, in whatever order they are lost.
    fn remember_lost(&self, attempt: i64, stream: usize, sequence: u64) -> rusqlite::Result<()> {
        // Rotation goes upwards, so the run that a number continues is looked for first.
        let longer = self
            .transaction
            .prepare_cached(
                "UPDATE lost SET last = ?3 WHERE attempt = ?1 AND stream = ?2 AND last = ?3 - 1",
            )?
            .execute(params![attempt, stream, sequence])?;
        if longer == 0 {
            self.transaction
                .prepare_cached(
                    "INSERT INTO lost (attempt, stream, last, first) VALUES (?1, ?2, ?3, ?3)",
                )?
                .execute(params![attempt, stream, sequence])?;
        }
        let joined = self
            .transaction
            .prepare_cached(
                "UPDATE lost SET first = (
                     SELECT first FROM lost WHERE attempt = ?1 AND stream = ?2 AND last = ?3)
                 WHERE attempt = ?1 AND stream = ?2 AND first = ?3 + 1 AND last = (
                     SELECT min(last) FROM lost WHERE attempt = ?1 AND stream = ?2 AND last > ?3)",
            )?
            .execute(params![attempt, stream, sequence])?;
        if joined > 0 {
            self.transaction
                .prepare_cached(
                    "DELETE FROM lost WHERE attempt = ?1 AND stream = ?2 AND last = ?3",
                )?
                .execute(params![attempt, stream, sequence])?;
        }
        if longer > 0 {
            return Ok(());
        }
        self.transaction
            .prepare_cached(
                "DELETE FROM lost WHERE attempt = ?1 AND stream = ?2 AND last <= (
                     SELECT last FROM lost WHERE attempt = ?1 AND stream = ?2
                     ORDER BY last DESC LIMIT 1 OFFSET ?3)",
            )?
            .execute(params![attempt, stream, LOST_RUNS_MAX])?;
        Ok(())
    }

    // ---- acknowledgements --------------------------------------------------------------------

    /// A message is not to be sent any more. `given_up` says that nobody has it.
    fn let_go(&mut self, id: &MessageId, given_up: bool) -> rusqlite::Result<u64> {
        let Some((attempt, stream, sequence)) = parts_of(id) else { return Ok(0) };
        let Some(row) = self.attempt(&attempt)? else { return Ok(0) };
        row.changed = true;
        let number = row.row;
        let deleted = self
            .transaction
            .prepare_cached(
                "DELETE FROM outbox WHERE attempt = ?1 AND stream = ?2 AND sequence = ?3",
            )?
            .execute(params![number, stream, sequence])?;
        if deleted == 0 {
            return Ok(0);
        }
        self.known.deleted = true;
        if stream == RESULT {
            if let Some(row) = self.attempt(&attempt)?
                && row.status == ENDED
            {
                (row.status, row.changed) = (SETTLED, true);
                self.known.tally.settled += 1;
                self.forget_settled()?;
            }
        } else if given_up {
            let stream = usize::try_from(stream).unwrap_or(0).min(1);
            self.remember_lost(number, stream, sequence)?;
            self.known.tally.truncated = true;
            if let Some(row) = self.attempt(&attempt)? {
                (row.truncated[stream], row.changed) = (true, true);
            }
        }
        Ok(1)
    }

    fn ack_output(
        &mut self,
        attempt: &Attempt,
        stream: OutputStream,
        through: u64,
    ) -> rusqlite::Result<u64> {
        let Some(row) = self.attempt(attempt)? else { return Ok(0) };
        row.changed = true;
        let id = row.row;
        self.known.deleted = true;
        let deleted = self
            .transaction
            .prepare_cached(
                "DELETE FROM outbox WHERE attempt = ?1 AND stream = ?2 AND sequence <= ?3",
            )?
            .execute(params![id, index(stream), through])?;
        // What is lost up to there is known to the controller, too.
        self.transaction
            .prepare_cached("DELETE FROM lost WHERE attempt = ?1 AND stream = ?2 AND last <= ?3")?
            .execute(params![id, index(stream), through])?;
        Ok(deleted as u64)
    }

    /// Attempts whose result is acknowledged are remembered up to a number, so that whoever asks
    /// again gets the same answer; then the oldest are forgotten, but none of which output waits.
    fn forget_settled(&mut self) -> rusqlite::Result<()> {
        if self.known.tally.settled <= self.config.finished_max {
            return Ok(());
        }
        self.write_back()?;
        let oldest: Option<(i64, Attempt)> = self
            .transaction
            .prepare_cached(
                "SELECT attempt, task, id FROM attempts
                 WHERE status = 3
                   AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.attempt = attempts.attempt)
                 ORDER BY attempt LIMIT 1",
            )?
            .query_row([], |row| Ok((row.get(0)?, attempt_of(row, 1)?)))
            .optional()?;
        if let Some((id, attempt)) = oldest {
            mark!("tasks.finished_attempt_forgotten");
            self.transaction
                .prepare_cached("DELETE FROM lost WHERE attempt = ?1")?
                .execute([id])?;
            self.transaction
                .prepare_cached("DELETE FROM attempts WHERE attempt = ?1")?
                .execute([id])?;
            self.known.attempts.remove(&attempt);
            self.known.tally.settled -= 1;
        }
        Ok(())
    }

    // ---- room --------------------------------------------------------------------------------

    /// How many pages are in use, at most.
    fn used(&mut self) -> rusqlite::Result<u64> {
        if let Some(used) = self.known.pages {
            return Ok(used);
        }
        let (pages, free) = pages(self.transaction)?;
        let used = pages - free;
        self.known.pages = Some(used);
        Ok(used)
    }

    fn spend(&mut self, pages: u64) {
        if let Some(used) = &mut self.known.pages {
            *used += pages;
        }
    }

    /// A piece takes its share of a page, or pages of its own. Counted in whole pages when the
    /// limit is near, so this may be generous.
    fn spend_bytes(&mut self, bytes: u64) {
        self.spend((bytes + ROW_BYTES).div_ceil(PAGE_BYTES));
    }

    // ---- lives -------------------------------------------------------------------------------

    fn life(&self) -> rusqlite::Result<i64> {
        self.known.life.ok_or_else(|| {
            let text = "no life has begun: `Recover` comes first".to_owned();
            rusqlite::Error::ToSqlConversionFailure(text.into())
        })
    }

    fn recover(&mut self, epoch: Epoch, at: WallTime) -> rusqlite::Result<Recovered> {
        if epoch.as_str().len() > EPOCH_BYTES_MAX {
            let text = format!("the name of a life has at most {EPOCH_BYTES_MAX} bytes");
            return Err(rusqlite::Error::ToSqlConversionFailure(text.into()));
        }
        let known: Option<(i64, Option<String>)> = self
            .transaction
            .prepare_cached("SELECT life, predecessor FROM lives WHERE epoch = ?1")?
            .query_row([epoch.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (id, predecessor) = match known {
            Some(known) => known,
            None => self.begin_life(&epoch)?,
        };
        let predecessor = predecessor.map(|epoch| Epoch::parse(&epoch)).transpose();
        let predecessor = predecessor.map_err(|error| damaged(1, error))?;
        self.known.life = Some(id);
        let mut interrupted = Vec::new();
        for attempt in self.with_status(RUNNING)? {
            self.finish(Finish {
                attempt: attempt.clone(),
                outcome: Outcome::Interrupted,
                exit_code: -1,
                error: format!(
                    "the agent ended while the command ran; it was found at {}",
                    at.to_rfc3339()
                ),
                truncated: vec![],
            })?;
            interrupted.push(attempt);
        }
        self.write_back()?;
        if interrupted.is_empty() {
            interrupted = self.interrupted_by(id)?;
        }
        let received = self.received()?;
        let spool = spool(self.transaction, self.config, self.known.tally)?;
        let earlier = match &predecessor {
            Some(predecessor) => self.earlier(predecessor)?,
            None => Vec::new(),
        };
        let life = StoreLife { epoch, predecessor, earlier };
        Ok(Recovered { life, received, interrupted, spool })
    }

    /// The lives before one that a controller has heard of, newest first.
    fn earlier(&self, predecessor: &Epoch) -> rusqlite::Result<Vec<Epoch>> {
        let limit = i64::try_from(EARLIER_LIVES_MAX).unwrap_or(i64::MAX);
        self.transaction
            .prepare_cached(
                "SELECT epoch FROM lives WHERE acknowledged > 0
                   AND life < (SELECT life FROM lives WHERE epoch = ?1)
                 ORDER BY life DESC LIMIT ?2",
            )?
            .query_map(params![predecessor.as_str(), limit], |row| row.get::<_, String>(0))?
            .map(|epoch| Epoch::parse(&epoch?).map_err(|error| damaged(0, error)))
            .collect()
    }

    fn begin_life(&self, epoch: &Epoch) -> rusqlite::Result<(i64, Option<String>)> {
        let predecessor: Option<String> = self
            .transaction
            .query_row(
                "SELECT epoch FROM lives WHERE acknowledged = 1 ORDER BY life DESC LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()?;
        self.transaction.execute(
            "INSERT INTO lives (epoch, predecessor) VALUES (?1, ?2)",
            params![epoch.as_str(), predecessor],
        )?;
        let id = self.transaction.last_insert_rowid();
        // Those that no result was written in, and no hello names, are of no use any more.
        self.transaction.execute(
            "DELETE FROM lives WHERE life < ?1
               AND (acknowledged = 0 OR life <= (
                   SELECT life FROM lives WHERE acknowledged > 0
                   ORDER BY life DESC LIMIT 1 OFFSET ?2))
               AND life NOT IN (SELECT life FROM attempts WHERE life IS NOT NULL)
               AND life NOT IN (SELECT life FROM outbox)",
            params![id, i64::try_from(EARLIER_LIVES_MAX + 1).unwrap_or(i64::MAX)],
        )?;
        Ok((id, predecessor))
    }

    /// A controller knows this life: the next one follows it [TK-7].
    fn acknowledged(&mut self, epoch: &Epoch) -> rusqlite::Result<u64> {
        let changed = self.transaction.execute(
            "UPDATE lives SET acknowledged = 1 WHERE epoch = ?1 AND acknowledged = 0",
            [epoch.as_str()],
        )?;
        if changed > 0 {
            self.transaction.execute(
                "UPDATE lives SET acknowledged = 2 WHERE acknowledged = 1 AND epoch <> ?1",
                [epoch.as_str()],
            )?;
        }
        Ok(0)
    }

    fn with_status(&self, status: i64) -> rusqlite::Result<Vec<Attempt>> {
        self.transaction
            .prepare_cached("SELECT task, id FROM attempts WHERE status = ?1 ORDER BY attempt")?
            .query_map([status], |row| attempt_of(row, 0))?
            .collect()
    }

    /// What a life found running when it began, for one that begins twice.
    fn interrupted_by(&self, life: i64) -> rusqlite::Result<Vec<Attempt>> {
        self.transaction
            .prepare_cached(
                "SELECT task, id FROM attempts
                 WHERE life = ?1 AND outcome = 'interrupted' ORDER BY attempt",
            )?
            .query_map([life], |row| attempt_of(row, 0))?
            .collect()
    }

    fn received(&self) -> rusqlite::Result<Vec<Receipt>> {
        self.transaction
            .prepare_cached(
                "SELECT task, id, command, priority, received_ms
                 FROM attempts WHERE status = ?1 ORDER BY attempt",
            )?
            .query_map([RECEIVED], |row| {
                Ok(Receipt {
                    attempt: attempt_of(row, 0)?,
                    command: row.get(2)?,
                    priority: row.get(3)?,
                    at: WallTime::from_millis(row.get(4)?),
                })
            })?
            .collect()
    }

    // ---- reading -----------------------------------------------------------------------------

    fn snapshot(&mut self, finals_max: usize, ranges_max: usize) -> rusqlite::Result<Snapshot> {
        let running = self
            .transaction
            .prepare_cached(
                "SELECT task, id, started_ms,
                        max(stdout_last, (SELECT coalesce(max(sequence), 0) FROM outbox
                            WHERE outbox.attempt = attempts.attempt AND stream = 0)),
                        max(stderr_last, (SELECT coalesce(max(sequence), 0) FROM outbox
                            WHERE outbox.attempt = attempts.attempt AND stream = 1))
                 FROM attempts WHERE status = ?1 ORDER BY started_ms, attempt",
            )?
            .query_map([RUNNING], |row| {
                Ok(RunningAttempt {
                    attempt: attempt_of(row, 0)?,
                    started_at: WallTime::from_millis(
                        row.get::<_, Option<i64>>(2)?.unwrap_or_default(),
                    ),
                    last_output: last_output([row.get(3)?, row.get(4)?]),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let received = self
            .received()?
            .into_iter()
            .map(|receipt| ReceivedAttempt { attempt: receipt.attempt, received_at: receipt.at })
            .collect();
        let (finals, all_finals) = self.waiting_finals(finals_max)?;
        let (output, all_output) = self.waiting_output(ranges_max)?;
        let (lost, all_lost) = self.lost_ends(ranges_max)?;
        let newest_row: Option<u64> = self
            .transaction
            .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(Snapshot {
            running,
            received,
            finals,
            output,
            lost,
            complete: all_finals && all_output && all_lost,
            spool: spool(self.transaction, self.config, self.known.tally)?,
            newest_row: newest_row.unwrap_or(0),
        })
    }

    fn waiting_finals(
        &mut self,
        count_max: usize,
    ) -> rusqlite::Result<(Vec<(MessageId, Final)>, bool)> {
        let limit = i64::try_from(count_max.saturating_add(1)).unwrap_or(i64::MAX);
        let ended: Vec<Attempt> = self
            .transaction
            .prepare_cached(
                "SELECT task, id FROM attempts JOIN outbox USING (attempt)
                 WHERE status = ?1 AND stream = 2 AND sequence = 0 ORDER BY row LIMIT ?2",
            )?
            .query_map(params![ENDED, limit], |row| attempt_of(row, 0))?
            .collect::<rusqlite::Result<_>>()?;
        let all = ended.len() <= count_max;
        let mut finals = Vec::new();
        for attempt in ended.into_iter().take(count_max) {
            let Some(row) = self.attempt(&attempt)?.cloned() else { continue };
            let stored = self.result(&attempt, &row)?;
            finals.push((stored.message_id, stored.result));
        }
        Ok((finals, all))
    }

    fn waiting_output(&self, count_max: usize) -> rusqlite::Result<(Vec<UnackedOutput>, bool)> {
        if count_max == 0 {
            return Ok((Vec::new(), false));
        }
        let limit = i64::try_from(count_max.saturating_add(1)).unwrap_or(i64::MAX);
        // A run begins where the number before is not there.
        let mut runs: Vec<UnackedOutput> = self
            .transaction
            .prepare_cached(
                "SELECT task, id, stream, first, last,
                        EXISTS (SELECT 1 FROM lost WHERE lost.attempt = run.attempt
                                AND lost.stream = run.stream AND lost.last < run.first)
                 FROM (SELECT attempt, stream, min(sequence) AS first, max(sequence) AS last,
                              min(row) AS oldest
                       FROM (SELECT attempt, stream, sequence, row,
                                    sequence - row_number() OVER (
                                        PARTITION BY attempt, stream ORDER BY sequence) AS island
                             FROM outbox WHERE stream < 2)
                       GROUP BY attempt, stream, island ORDER BY oldest LIMIT ?1) AS run
                 JOIN attempts USING (attempt) ORDER BY oldest",
            )?
            .query_map([limit], |row| {
                Ok(UnackedOutput {
                    attempt: attempt_of(row, 0)?,
                    stream: stream_of(row.get(2)?).unwrap_or(OutputStream::Stdout),
                    range: Range { from: row.get(3)?, to: row.get(4)? },
                    truncated_locally: row.get(5)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let all = runs.len() <= count_max;
        runs.truncate(count_max);
        Ok((runs, all))
    }

    /// Lost numbers that no piece follows, of attempts that have ended. They are listed until the
    /// controller has acknowledged them.
    fn lost_ends(&self, count_max: usize) -> rusqlite::Result<(Vec<LostOutput>, bool)> {
        let limit = i64::try_from(count_max.saturating_add(1)).unwrap_or(i64::MAX);
        let mut ends: Vec<LostOutput> = self
            .transaction
            .prepare_cached(
                "SELECT task, id, stream, first, last FROM lost JOIN attempts USING (attempt)
                 WHERE status >= 2
                   AND last = CASE stream WHEN 0 THEN stdout_last ELSE stderr_last END
                 ORDER BY attempt, stream LIMIT ?1",
            )?
            .query_map([limit], |row| {
                Ok(LostOutput {
                    attempt: attempt_of(row, 0)?,
                    stream: stream_of(row.get(2)?).unwrap_or(OutputStream::Stdout),
                    range: Range { from: row.get(3)?, to: row.get(4)? },
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let all = ends.len() <= count_max;
        ends.truncate(count_max);
        Ok((ends, all))
    }

    fn read_outbox(
        &mut self,
        after: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> rusqlite::Result<Vec<Message>> {
        struct Waiting {
            row: u64,
            stream: i64,
            sequence: u64,
            data: Vec<u8>,
            attempt: Attempt,
            epoch: String,
            lost: Option<Range>,
        }
        let limit = i64::try_from(count_max).unwrap_or(i64::MAX);
        let mut waiting = Vec::new();
        {
            let mut statement = self.transaction.prepare_cached(
                "SELECT row, outbox.stream, sequence, data, task, id, epoch, lost.first, lost.last
                 FROM outbox
                 JOIN attempts USING (attempt)
                 JOIN lives ON lives.life = outbox.life
                 LEFT JOIN lost ON lost.attempt = outbox.attempt
                      AND lost.stream = outbox.stream AND lost.last = sequence - 1
                 WHERE row > ?1 ORDER BY row LIMIT ?2",
            )?;
            let mut rows = statement.query(params![after, limit])?;
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                let lost: (Option<u64>, Option<u64>) = (row.get(7)?, row.get(8)?);
                let data: Vec<u8> = row.get(3)?;
                bytes += data.len();
                waiting.push(Waiting {
                    row: row.get(0)?,
                    stream: row.get(1)?,
                    sequence: row.get(2)?,
                    data,
                    attempt: attempt_of(row, 4)?,
                    epoch: row.get(6)?,
                    lost: lost.0.zip(lost.1).map(|(from, to)| Range { from, to }),
                });
                if bytes >= bytes_max {
                    break;
                }
            }
        }
        let mut messages = Vec::with_capacity(waiting.len());
        for it in waiting {
            let body = match stream_of(it.stream) {
                Some(stream) => MessageBody::Output {
                    chunk: Append {
                        attempt: it.attempt.clone(),
                        stream,
                        sequence: it.sequence,
                        data: Bytes::from(it.data),
                    },
                    lost_before: it.lost,
                },
                None => {
                    let Some(row) = self.attempt(&it.attempt)?.cloned() else { continue };
                    MessageBody::Final(self.result(&it.attempt, &row)?.result)
                }
            };
            let message_id = message_id(&it.epoch, &it.attempt, it.stream, it.sequence);
            messages.push(Message { row: it.row, message_id, body });
        }
        Ok(messages)
    }
}

fn last_output(last: [u64; 2]) -> LastOutput {
    OutputStream::ALL.into_iter().map(|stream| (stream, last[index(stream)])).collect()
}

fn missing(attempt: &Attempt) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(format!("there is no attempt {attempt}").into())
}

/// The text, cut at the end of a character.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
