//! The record of a controller on SQLite.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::record::{
    Agreement, AttemptState, AttemptView, COMMAND_CHARS, Cancelled, Command, FinalTaken, Listing,
    OutputPage, OutputTaken, Reconciled, Reply, StreamView, Submission, Submitted, TaskPage,
    TaskSummary, TaskView,
};
use crate::AgentId;
use crate::database::{self, Medium, OpenError, Schema, Synchronous, Transaction, damaged};
use crate::mark;
use crate::recovery::{Epoch, MAX_SEQUENCE, WallTime};
use crate::storage::{Copied, StoreCommand, StoreError, Transact};
use crate::tasks::wire::{
    Deliver, Discarded, Final, Hello, LostOutput, Output, ReplayFrom, StoreLife,
};
use crate::tasks::{Attempt, AttemptId, MessageId, Outcome, OutputStream, Range, TaskId};

/// "gplc".
const SCHEMA: Schema = Schema {
    application_id: 0x6770_6c63,
    what: "the record of a task controller",
    versions: &[VERSION_1],
    incremental_vacuum: false,
};

const VERSION_1: &str = "
CREATE TABLE lives (
    life      INTEGER PRIMARY KEY AUTOINCREMENT,
    agent     TEXT NOT NULL,
    epoch     TEXT NOT NULL,
    confirmed INTEGER NOT NULL DEFAULT 0,
    replaced  INTEGER NOT NULL DEFAULT 0,
    UNIQUE (agent, epoch)
) STRICT;
CREATE TABLE tasks (
    task      TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    agent     TEXT NOT NULL,
    command   TEXT NOT NULL,
    priority  INTEGER NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE attempts (
    attempt          INTEGER PRIMARY KEY AUTOINCREMENT,
    task             TEXT NOT NULL REFERENCES tasks,
    id               TEXT NOT NULL,
    ordinal          INTEGER NOT NULL,
    agent            TEXT NOT NULL,
    state            INTEGER NOT NULL,
    stdout_highest   INTEGER NOT NULL DEFAULT 0,
    stderr_highest   INTEGER NOT NULL DEFAULT 0,
    message_id       TEXT,
    outcome          TEXT,
    exit_code        INTEGER,
    error            TEXT,
    output_truncated INTEGER,
    error_truncated  INTEGER,
    stdout_last      INTEGER,
    stderr_last      INTEGER,
    offered          INTEGER,
    UNIQUE (task, id)
) STRICT;
CREATE INDEX attempts_by_state ON attempts (agent, state);
CREATE TABLE output (
    attempt  INTEGER NOT NULL REFERENCES attempts,
    stream   INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    data     BLOB NOT NULL,
    PRIMARY KEY (attempt, stream, sequence)
) STRICT;
CREATE TABLE lost (
    attempt INTEGER NOT NULL REFERENCES attempts,
    stream  INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    PRIMARY KEY (attempt, stream, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE nonces (
    agent TEXT NOT NULL,
    nonce TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (agent, nonce)
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_by_time ON nonces (at_ms);
";

/// Where and how the record is kept.
#[derive(Debug, Clone)]
pub struct RecordConfig {
    /// The database file.
    pub path: PathBuf,
    /// The name of a SQLite VFS to open it with; `None` = the operating system's.
    pub vfs: Option<String>,
    /// How many lives of an agent's store are remembered: 64.
    pub lives_max: u64,
    /// How many nonces are remembered; a handshake beyond is refused: 100,000.
    pub nonces_max: u64,
    /// What a commit survives: a loss of power.
    pub synchronous: Synchronous,
}

impl RecordConfig {
    /// The limits of the specification, in `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            vfs: None,
            lives_max: 64,
            nonces_max: 100_000,
            synchronous: Synchronous::Full,
        }
    }
}

/// The record of a controller, on the caller's thread.
#[derive(Debug)]
pub struct SqliteRecord {
    connection: Connection,
    config: RecordConfig,
    /// How many nonces are kept; `None` when they are to be counted.
    nonces: Cell<Option<u64>>,
}

impl SqliteRecord {
    /// Opens the record, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; an existing file is left as it is.
    pub fn open(config: RecordConfig) -> Result<Self, OpenError> {
        let medium = Medium {
            vfs: config.vfs.as_deref(),
            synchronous: config.synchronous,
            page_bytes: None,
        };
        let connection = database::open(&config.path, medium, &SCHEMA)?;
        Ok(Self { connection, config, nonces: Cell::new(None) })
    }

    fn run_as_one(&self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let read_only = commands.iter().all(Command::is_read_only);
        let not_applied = |error: rusqlite::Error| StoreError::NotApplied(error.to_string());
        // What a transaction that fails has counted is counted anew.
        let nonces = Cell::new(self.nonces.take());
        let transaction = Transaction::begin(&self.connection, read_only).map_err(not_applied)?;
        let run = Run { transaction: &transaction, config: &self.config, nonces: &nonces };
        let replies: rusqlite::Result<Vec<Reply>> =
            commands.into_iter().map(|command| run.command(command)).collect();
        let replies = replies.map_err(not_applied)?;
        let committed = transaction.commit();
        if committed.is_ok() {
            self.nonces.set(nonces.get());
        }
        committed.map_err(|error| match read_only {
            true => StoreError::NotApplied(error.to_string()),
            false => StoreError::Unknown(error.to_string()),
        })?;
        Ok(replies)
    }
}

impl Transact<Command> for SqliteRecord {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        self.run_as_one(commands)
    }
}

impl Copied<Command> for SqliteRecord {
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
    config: &'a RecordConfig,
    nonces: &'a Cell<Option<u64>>,
}

/// An attempt, as far as a decision needs it.
#[derive(Debug, Clone)]
struct AttemptRow {
    row: i64,
    /// Nothing was known of it before.
    adopted: bool,
    state: AttemptState,
    highest: [u64; 2],
}

/// What is known of who may speak of an attempt.
enum Owned {
    Here(AttemptRow),
    /// It is another agent's.
    Foreign,
}

fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

fn state_of(number: i64) -> AttemptState {
    match number {
        0 => AttemptState::Pending,
        1 => AttemptState::Delivered,
        2 => AttemptState::Received,
        3 => AttemptState::Running,
        4 => AttemptState::Discarded,
        5 => AttemptState::Interrupted,
        _ => AttemptState::Final,
    }
}

fn number_of(state: AttemptState) -> i64 {
    match state {
        AttemptState::Pending => 0,
        AttemptState::Delivered => 1,
        AttemptState::Received => 2,
        AttemptState::Running => 3,
        AttemptState::Discarded => 4,
        AttemptState::Interrupted => 5,
        AttemptState::Final => 6,
    }
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

fn attempt_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Attempt> {
    let (task, id): (String, String) = (row.get(column)?, row.get(column + 1)?);
    Ok(Attempt {
        task: TaskId::parse(&task).map_err(|error| damaged(column, error))?,
        id: AttemptId::parse(&id).map_err(|error| damaged(column + 1, error))?,
    })
}

fn agent_of(row: &Row<'_>, column: usize) -> rusqlite::Result<AgentId> {
    let agent: String = row.get(column)?;
    AgentId::parse(&agent).map_err(|error| damaged(column, error))
}

/// The highest ordinal of an attempt that is read from its id.
const ORDINAL_MAX: u64 = 1 << 32;

fn attempt_id(ordinal: u64) -> AttemptId {
    AttemptId::parse(&format!("a{ordinal}")).expect("a letter and digits")
}

impl Run<'_> {
    fn command(&self, command: Command) -> rusqlite::Result<Reply> {
        match command {
            Command::Submit(submission) => self.submit(&submission).map(Reply::Submitted),
            Command::Retry { task, after } => self.retry(&task, after).map(Reply::Submitted),
            Command::Cancel(task) => self.cancel(&task).map(Reply::Cancelled),
            Command::Look(task) => self.look(&task).map(Reply::Task),
            Command::List(listing) => self.list(&listing).map(Reply::Tasks),
            Command::ReadOutput { attempt, stream, after, count_max } => {
                self.read_output(&attempt, stream, after, count_max).map(Reply::Output)
            }
            Command::Reconcile { agent, hello } => {
                self.reconcile(&agent, &hello).map(Reply::Reconciled)
            }
            Command::Confirm { agent, epoch } => {
                self.confirm(&agent, epoch.as_str())?;
                Ok(Reply::State(None))
            }
            Command::Deliverable { agent, again, count_max } => {
                self.deliverable(&agent, again, count_max).map(Reply::Deliverable)
            }
            Command::Delivering { agent, attempt } => {
                self.delivering(&agent, &attempt).map(Reply::State)
            }
            Command::Absent { agent, attempt } => self.absent(&agent, &attempt).map(Reply::State),
            Command::Lost { agent, lost } => self.lost_end(&agent, &lost).map(Reply::OutputTaken),
            Command::Progress { agent, attempt, started } => {
                let state = if started { AttemptState::Running } else { AttemptState::Received };
                self.progress(&agent, &attempt, state).map(Reply::State)
            }
            Command::Output { agent, piece } => self.output(&agent, &piece).map(Reply::OutputTaken),
            Command::Final { agent, message_id, result } => {
                self.result(&agent, &message_id, &result).map(Reply::FinalTaken)
            }
            Command::UseNonce { agent, nonce, at, forget_before } => {
                self.use_nonce(&agent, &nonce, at, forget_before).map(Reply::Nonce)
            }
        }
    }

    // ---- wishes ------------------------------------------------------------------------------

    fn submit(&self, wish: &Submission) -> rusqlite::Result<Submitted> {
        let known = self
            .transaction
            .prepare_cached(
                "SELECT principal, agent, command, priority FROM tasks WHERE task = ?1",
            )?
            .query_row([wish.task.as_str()], |row| {
                Ok(Submission {
                    task: wish.task.clone(),
                    principal: row.get(0)?,
                    agent: agent_of(row, 1)?,
                    command: row.get(2)?,
                    priority: row.get(3)?,
                })
            })
            .optional()?;
        if let Some(known) = known {
            // One that only its agent knew of is whoever's wish it was.
            let adopted = known.principal.is_empty() && known.command.is_empty();
            if adopted && known.agent == wish.agent {
                mark!("tasks.adopted_task_claimed");
                self.transaction
                    .prepare_cached(
                        "UPDATE tasks SET principal = ?2, command = ?3, priority = ?4
                         WHERE task = ?1",
                    )?
                    .execute(params![
                        wish.task.as_str(),
                        wish.principal,
                        wish.command,
                        wish.priority
                    ])?;
            } else if known != *wish {
                return Ok(Submitted::Conflict);
            }
            mark!("tasks.submitted_again");
            return self.stored_after(&wish.task, 0);
        }
        self.transaction
            .prepare_cached(
                "INSERT INTO tasks (task, principal, agent, command, priority)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                wish.task.as_str(),
                wish.principal,
                wish.agent.as_str(),
                wish.command,
                wish.priority
            ])?;
        self.insert(&wish.task, &attempt_id(1), 1, &wish.agent, AttemptState::Pending)?;
        let attempt = Attempt { task: wish.task.clone(), id: attempt_id(1) };
        Ok(Submitted::Stored { attempt, agent: wish.agent.clone(), new: true })
    }

    /// The first attempt at a task after an ordinal, as the answer to a wish that is known.
    fn stored_after(&self, task: &TaskId, after: u64) -> rusqlite::Result<Submitted> {
        let found: Option<(Attempt, AgentId)> = self
            .transaction
            .prepare_cached(
                "SELECT task, id, agent FROM attempts
                 WHERE task = ?1 AND ordinal > ?2 ORDER BY ordinal LIMIT 1",
            )?
            .query_row(params![task.as_str(), after], |row| {
                Ok((attempt_of(row, 0)?, agent_of(row, 2)?))
            })
            .optional()?;
        Ok(match found {
            Some((attempt, agent)) => Submitted::Stored { attempt, agent, new: false },
            None => Submitted::Unknown,
        })
    }

    fn insert(
        &self,
        task: &TaskId,
        id: &AttemptId,
        ordinal: u64,
        agent: &AgentId,
        state: AttemptState,
    ) -> rusqlite::Result<i64> {
        self.transaction
            .prepare_cached(
                "INSERT INTO attempts (task, id, ordinal, agent, state)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                task.as_str(),
                id.as_str(),
                ordinal,
                agent.as_str(),
                number_of(state)
            ])?;
        Ok(self.transaction.last_insert_rowid())
    }

    fn retry(&self, task: &TaskId, after: u64) -> rusqlite::Result<Submitted> {
        let last: Option<(u64, i64, AgentId, bool)> = self
            .transaction
            .prepare_cached(
                "SELECT ordinal, state, attempts.agent, command = ''
                 FROM attempts JOIN tasks USING (task)
                 WHERE task = ?1 ORDER BY ordinal DESC LIMIT 1",
            )?
            .query_row([task.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?, agent_of(row, 2)?, row.get(3)?))
            })
            .optional()?;
        let Some((ordinal, state, agent, no_command)) = last else {
            return Ok(Submitted::Unknown);
        };
        if ordinal > after {
            return self.stored_after(task, after);
        }
        if ordinal != after || !state_of(state).has_ended() {
            return Ok(Submitted::NotEnded);
        }
        if no_command {
            return Ok(Submitted::NoCommand);
        }
        mark!("tasks.retried");
        self.transaction
            .prepare_cached("UPDATE tasks SET cancelled = 0 WHERE task = ?1")?
            .execute([task.as_str()])?;
        let id = attempt_id(after + 1);
        self.insert(task, &id, after + 1, &agent, AttemptState::Pending)?;
        let attempt = Attempt { task: task.clone(), id };
        Ok(Submitted::Stored { attempt, agent, new: true })
    }

    fn cancel(&self, task: &TaskId) -> rusqlite::Result<Option<Cancelled>> {
        let last: Option<(i64, i64, Attempt, AgentId)> = self
            .transaction
            .prepare_cached(
                "SELECT attempt, state, task, id, agent FROM attempts
                 WHERE task = ?1 ORDER BY ordinal DESC LIMIT 1",
            )?
            .query_row([task.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?, attempt_of(row, 2)?, agent_of(row, 4)?))
            })
            .optional()?;
        let Some((row, state, attempt, agent)) = last else { return Ok(None) };
        let mut state = state_of(state);
        // What has begun goes on, and what has ended has ended.
        if state < AttemptState::Running {
            self.transaction
                .prepare_cached("UPDATE tasks SET cancelled = 1 WHERE task = ?1")?
                .execute([task.as_str()])?;
        }
        if state == AttemptState::Pending {
            // Nobody was told of it.
            self.set_state(row, AttemptState::Discarded)?;
            state = AttemptState::Discarded;
        }
        Ok(Some(Cancelled { attempt, agent, state }))
    }

    // ---- attempts ----------------------------------------------------------------------------

    fn set_state(&self, row: i64, state: AttemptState) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("UPDATE attempts SET state = ?2 WHERE attempt = ?1")?
            .execute(params![row, number_of(state)])?;
        Ok(())
    }

    /// An attempt that an agent speaks of. What is not known is believed: the record may have been
    /// lost or restored, and the agent's store has proof.
    fn owned(&self, agent: &AgentId, attempt: &Attempt) -> rusqlite::Result<Owned> {
        let found: Option<(AttemptRow, String)> = self
            .transaction
            .prepare_cached(
                "SELECT attempt, state, stdout_highest, stderr_highest, agent
                 FROM attempts WHERE task = ?1 AND id = ?2",
            )?
            .query_row([attempt.task.as_str(), attempt.id.as_str()], |row| {
                let known = AttemptRow {
                    row: row.get(0)?,
                    adopted: false,
                    state: state_of(row.get(1)?),
                    highest: [row.get(2)?, row.get(3)?],
                };
                Ok((known, row.get(4)?))
            })
            .optional()?;
        match found {
            Some((_, owner)) if owner != agent.as_str() => {
                mark!("tasks.foreign_attempt");
                Ok(Owned::Foreign)
            }
            Some((row, _)) => Ok(Owned::Here(row)),
            None => self.adopt(agent, attempt),
        }
    }

    fn adopt(&self, agent: &AgentId, attempt: &Attempt) -> rusqlite::Result<Owned> {
        let task = attempt.task.as_str();
        let owner: Option<String> = self
            .transaction
            .prepare_cached("SELECT agent FROM tasks WHERE task = ?1")?
            .query_row([task], |row| row.get(0))
            .optional()?;
        match owner {
            Some(owner) if owner != agent.as_str() => return Ok(Owned::Foreign),
            Some(_) => {}
            None => {
                self.transaction
                    .prepare_cached(
                        "INSERT INTO tasks (task, principal, agent, command, priority)
                         VALUES (?1, '', ?2, '', 0)",
                    )?
                    .execute([task, agent.as_str()])?;
            }
        }
        mark!("tasks.attempt_adopted");
        let last: Option<u64> = self
            .transaction
            .prepare_cached("SELECT max(ordinal) FROM attempts WHERE task = ?1")?
            .query_row([task], |row| row.get(0))?;
        let named = attempt.id.as_str().strip_prefix('a').and_then(|it| it.parse::<u64>().ok());
        let named = named.filter(|ordinal| *ordinal <= ORDINAL_MAX);
        let ordinal = named.unwrap_or(0).max(last.unwrap_or(0) + 1);
        let state = AttemptState::Delivered;
        let row = self.insert(&attempt.task, &attempt.id, ordinal, agent, state)?;
        Ok(Owned::Here(AttemptRow { row, adopted: true, state, highest: [0, 0] }))
    }

    /// The attempt is at least this far.
    fn progress(
        &self,
        agent: &AgentId,
        attempt: &Attempt,
        state: AttemptState,
    ) -> rusqlite::Result<Option<AttemptState>> {
        let Owned::Here(row) = self.owned(agent, attempt)? else { return Ok(None) };
        if row.state < state {
            self.set_state(row.row, state)?;
        }
        Ok(Some(row.state.max(state)))
    }

    /// The attempt is about to be delivered to the newest known store of the agent.
    fn delivering(
        &self,
        agent: &AgentId,
        attempt: &Attempt,
    ) -> rusqlite::Result<Option<AttemptState>> {
        let state = self.progress(agent, attempt, AttemptState::Delivered)?;
        if state == Some(AttemptState::Delivered) {
            self.transaction
                .prepare_cached(
                    "UPDATE attempts SET offered = (SELECT max(life) FROM lives WHERE agent = ?3)
                     WHERE task = ?1 AND id = ?2",
                )?
                .execute([attempt.task.as_str(), attempt.id.as_str(), agent.as_str()])?;
        }
        Ok(state)
    }

    /// The agent was asked about an attempt, and knows nothing of it.
    fn absent(&self, agent: &AgentId, attempt: &Attempt) -> rusqlite::Result<Option<AttemptState>> {
        let Owned::Here(row) = self.owned(agent, attempt)? else { return Ok(None) };
        let state = match row.state {
            state if state.has_ended() => state,
            // It was received, and is not there any more.
            AttemptState::Running => AttemptState::Interrupted,
            _ if self.is_cancelled(attempt)? => {
                mark!("tasks.discard_confirmed");
                AttemptState::Discarded
            }
            // It has not arrived yet.
            AttemptState::Delivered if self.is_wanted(attempt)? => AttemptState::Delivered,
            _ => AttemptState::Interrupted,
        };
        if state == AttemptState::Interrupted && !row.state.has_ended() {
            mark!("tasks.attempt_lost_by_its_agent");
        }
        self.set_state(row.row, state)?;
        Ok(Some(state))
    }

    /// Whether it can be delivered: somebody wants it, and it is known what to run.
    fn is_wanted(&self, attempt: &Attempt) -> rusqlite::Result<bool> {
        self.transaction
            .prepare_cached("SELECT cancelled = 0 AND command <> '' FROM tasks WHERE task = ?1")?
            .query_row([attempt.task.as_str()], |row| row.get(0))
    }

    fn is_cancelled(&self, attempt: &Attempt) -> rusqlite::Result<bool> {
        self.transaction
            .prepare_cached("SELECT cancelled FROM tasks WHERE task = ?1")?
            .query_row([attempt.task.as_str()], |row| row.get(0))
    }

    fn deliverable(
        &self,
        agent: &AgentId,
        again: bool,
        count_max: usize,
    ) -> rusqlite::Result<Vec<Deliver>> {
        self.transaction
            .prepare_cached(
                "SELECT task, id, command, priority FROM attempts JOIN tasks USING (task)
                 WHERE attempts.agent = ?1 AND state IN (0, ?2) AND cancelled = 0 AND command <> ''
                 ORDER BY priority DESC, attempt LIMIT ?3",
            )?
            .query_map(
                params![
                    agent.as_str(),
                    i64::from(again),
                    i64::try_from(count_max).unwrap_or(i64::MAX)
                ],
                |row| {
                    Ok(Deliver {
                        attempt: attempt_of(row, 0)?,
                        command: row.get(2)?,
                        priority: row.get(3)?,
                    })
                },
            )?
            .collect()
    }

    // ---- what comes of them ------------------------------------------------------------------

    fn output(&self, agent: &AgentId, piece: &Output) -> rusqlite::Result<OutputTaken> {
        let Owned::Here(row) = self.owned(agent, &piece.attempt)? else {
            return Ok(OutputTaken::Foreign);
        };
        let stream = index(piece.stream);
        let highest = row.highest[stream];
        if piece.sequence <= highest {
            mark!("tasks.output_came_again");
            return Ok(OutputTaken::Stored { highest, unexpected: false });
        }
        if piece.sequence > highest + 1 {
            if !piece.truncated_locally {
                return Ok(OutputTaken::Gap { highest });
            }
            mark!("tasks.hole_accepted");
            self.transaction
                .prepare_cached(
                    "INSERT INTO lost (attempt, stream, first, last) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![row.row, stream, highest + 1, piece.sequence - 1])?;
        }
        self.transaction
            .prepare_cached(
                "INSERT INTO output (attempt, stream, sequence, data) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![row.row, stream, piece.sequence, &piece.data[..]])?;
        let mut highest = row.highest;
        highest[stream] = piece.sequence;
        let state = row.state.max(AttemptState::Running);
        self.transaction
            .prepare_cached(
                "UPDATE attempts SET state = ?2, stdout_highest = ?3, stderr_highest = ?4
                 WHERE attempt = ?1",
            )?
            .execute(params![row.row, number_of(state), highest[0], highest[1]])?;
        let begun = row.state >= AttemptState::Running;
        Ok(OutputTaken::Stored { highest: piece.sequence, unexpected: !begun })
    }

    fn result(
        &self,
        agent: &AgentId,
        message_id: &MessageId,
        result: &Final,
    ) -> rusqlite::Result<FinalTaken> {
        let Owned::Here(row) = self.owned(agent, &result.attempt)? else {
            return Ok(FinalTaken::Foreign);
        };
        if row.state.has_ended() {
            let known: Option<String> = self
                .transaction
                .prepare_cached("SELECT message_id FROM attempts WHERE attempt = ?1")?
                .query_row([row.row], |row| row.get(0))?;
            return Ok(match known.as_deref() == Some(message_id.as_str()) {
                true => {
                    mark!("tasks.result_came_again");
                    FinalTaken::Stored
                }
                false => {
                    mark!("tasks.result_came_too_late");
                    FinalTaken::TooLate
                }
            });
        }
        let last = |stream| {
            let last = result.last_output.as_ref();
            last.map(|last| last.get(&stream).copied().unwrap_or(0))
        };
        self.transaction
            .prepare_cached(
                "UPDATE attempts SET state = ?2, message_id = ?3, outcome = ?4, exit_code = ?5,
                        error = ?6, output_truncated = ?7, error_truncated = ?8,
                        stdout_last = ?9, stderr_last = ?10
                 WHERE attempt = ?1",
            )?
            .execute(params![
                row.row,
                number_of(AttemptState::Final),
                message_id.as_str(),
                outcome_name(result.outcome),
                result.exit_code,
                result.error,
                result.output_truncated,
                result.error_truncated,
                last(OutputStream::Stdout),
                last(OutputStream::Stderr),
            ])?;
        Ok(FinalTaken::Stored)
    }

    // ---- reconciling -------------------------------------------------------------------------

    fn reconcile(&self, agent: &AgentId, hello: &Hello) -> rusqlite::Result<Reconciled> {
        let mut agreement = Agreement::default();
        let mut named = BTreeSet::new();
        named.extend(hello.running_tasks.iter().map(|it| it.attempt.clone()));
        named.extend(hello.running_task.iter().map(|it| it.attempt.clone()));
        named.extend(hello.received_not_started.iter().map(|it| it.attempt.clone()));
        named.extend(hello.unacked_finals.iter().map(|(_, result)| result.attempt.clone()));
        let follows = match &hello.store {
            Some(life) => self.follow(agent, life)?,
            None => Follows::Yes,
        };
        if let Follows::Fork = follows {
            mark!("tasks.fork_found");
            return Ok(Reconciled::Forked);
        }
        // Results are true whatever became of the store that they come from.
        for (message_id, result) in &hello.unacked_finals {
            match self.result(agent, message_id, result)? {
                // What is too late is not to come again either.
                FinalTaken::Stored | FinalTaken::TooLate => {
                    agreement.acknowledged_finals.push(message_id.clone());
                }
                // It is refused when it comes, so that somebody hears of it.
                FinalTaken::Foreign => {}
            }
        }
        match follows {
            Follows::Perhaps(lives) => {
                // What was offered to a store that may be gone may have run there.
                let delivered = (AttemptState::Delivered, AttemptState::Delivered);
                for (row, attempt) in self.open(agent, delivered.0, delivered.1)? {
                    let offered: Option<i64> = self
                        .transaction
                        .prepare_cached("SELECT offered FROM attempts WHERE attempt = ?1")?
                        .query_row([row], |row| row.get(0))?;
                    let there = offered.is_some_and(|life| !lives.contains(&life));
                    if !there && !named.contains(&attempt) {
                        self.close(row, attempt, &mut agreement)?;
                    }
                }
                self.close_what_went_back(agent, hello, &mut agreement)?;
            }
            // Even what was only delivered may have run in the one that is gone.
            Follows::No => {
                mark!("tasks.other_store_found");
                let open = (AttemptState::Delivered, AttemptState::Running);
                for (row, attempt) in self.open(agent, open.0, open.1)? {
                    self.close(row, attempt, &mut agreement)?;
                }
            }
            Follows::Yes => self.close_what_went_back(agent, hello, &mut agreement)?,
            Follows::Fork => {}
        }
        let running = hello.running_tasks.iter().chain(&hello.running_task);
        for it in running {
            self.progress(agent, &it.attempt, AttemptState::Running)?;
        }
        for it in &hello.received_not_started {
            self.received(agent, &it.attempt, &mut agreement)?;
        }
        for it in &hello.lost_output {
            self.lost_end(agent, it)?;
        }
        self.replay(agent, hello, &mut agreement)?;
        // Of what was taken over just now only output may be left: its end is asked for as well.
        if hello.store.is_some() {
            for (_, attempt) in self.open(agent, AttemptState::Delivered, AttemptState::Running)? {
                let Owned::Here(row) = self.owned(agent, &attempt)? else { continue };
                let wanted = row.state == AttemptState::Delivered && self.is_wanted(&attempt)?;
                let discarded = agreement.discarded.iter().any(|it| it.attempt == attempt);
                if discarded || (!wanted && !named.contains(&attempt)) {
                    agreement.unnamed.push(attempt);
                }
            }
        }
        Ok(Reconciled::Agreed(agreement))
    }

    /// An attempt is lost with the store of its agent.
    fn close(&self, row: i64, attempt: Attempt, agreement: &mut Agreement) -> rusqlite::Result<()> {
        mark!("tasks.attempt_lost_with_its_store");
        self.set_state(row, AttemptState::Interrupted)?;
        agreement.interrupted.push(attempt);
        Ok(())
    }

    /// A store that has not begun what it is known to have begun is an older state of itself: a copy
    /// that was made since the last life that it names. Without the extension nothing tells an older
    /// state from a receipt that was said again.
    fn close_what_went_back(
        &self,
        agent: &AgentId,
        hello: &Hello,
        agreement: &mut Agreement,
    ) -> rusqlite::Result<()> {
        if hello.store.is_none() {
            return Ok(());
        }
        for it in &hello.received_not_started {
            let Owned::Here(row) = self.owned(agent, &it.attempt)? else { continue };
            if row.state == AttemptState::Running {
                mark!("tasks.store_went_back");
                self.close(row.row, it.attempt.clone(), agreement)?;
            }
        }
        Ok(())
    }

    /// The end of a stream was given up, and no piece follows that could say so.
    fn lost_end(&self, agent: &AgentId, lost: &LostOutput) -> rusqlite::Result<OutputTaken> {
        let Owned::Here(row) = self.owned(agent, &lost.attempt)? else {
            return Ok(OutputTaken::Foreign);
        };
        let stream = index(lost.stream);
        let mut highest = row.highest;
        if lost.range.to <= highest[stream] {
            return Ok(OutputTaken::Stored { highest: highest[stream], unexpected: false });
        }
        // What is before it may still come; then it is named again.
        if lost.range.from > highest[stream] + 1 {
            return Ok(OutputTaken::Gap { highest: highest[stream] });
        }
        mark!("tasks.lost_end_accepted");
        self.transaction
            .prepare_cached(
                "INSERT INTO lost (attempt, stream, first, last) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![row.row, stream, highest[stream] + 1, lost.range.to])?;
        highest[stream] = lost.range.to;
        self.transaction
            .prepare_cached(
                "UPDATE attempts SET stdout_highest = ?2, stderr_highest = ?3 WHERE attempt = ?1",
            )?
            .execute(params![row.row, highest[0], highest[1]])?;
        Ok(OutputTaken::Stored { highest: lost.range.to, unexpected: row.adopted })
    }

    /// An agent knows that a life of its store is known.
    fn confirm(&self, agent: &AgentId, epoch: &str) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("UPDATE lives SET confirmed = 1 WHERE agent = ?1 AND epoch = ?2")?
            .execute([agent.as_str(), epoch])?;
        Ok(())
    }

    /// Whether a life of an agent's store follows what is known of it.
    fn follow(&self, agent: &AgentId, life: &StoreLife) -> rusqlite::Result<Follows> {
        struct Life {
            id: i64,
            epoch: String,
            confirmed: bool,
            replaced: bool,
        }
        let known: Vec<Life> = self
            .transaction
            .prepare_cached(
                "SELECT life, epoch, confirmed, replaced FROM lives
                 WHERE agent = ?1 ORDER BY life DESC",
            )?
            .query_map([agent.as_str()], |row| {
                Ok(Life {
                    id: row.get(0)?,
                    epoch: row.get(1)?,
                    confirmed: row.get(2)?,
                    replaced: row.get(3)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let at = |epoch: &Epoch| known.iter().position(|known| known.epoch == epoch.as_str());
        match at(&life.epoch) {
            Some(0) => return Ok(Follows::Yes),
            Some(_) => return Ok(Follows::Fork),
            None => {}
        }
        // The newest life before this one that is known. A record that was restored may not know
        // those after it.
        let mut before = life.predecessor.iter().chain(&life.earlier);
        let before = before.find_map(|epoch| Some((at(epoch)?, epoch)));
        if let Some((at, epoch)) = before {
            // Who comes from a life that another copy has replaced is replaced itself.
            if known[at].replaced {
                return Ok(Follows::Fork);
            }
            // Who names a life has heard that it was answered.
            self.confirm(agent, epoch.as_str())?;
        }
        let skipped = before.map_or(&known[..], |(at, _)| &known[..at]);
        let unknown = before.is_none() && life.predecessor.is_some();
        let follows = match skipped {
            // A record that was lost knows nothing, and has nothing to close.
            _ if known.is_empty() => Follows::Yes,
            _ if unknown || skipped.iter().any(|life| life.confirmed) => Follows::No,
            [] => Follows::Yes,
            lives => Follows::Perhaps(lives.iter().map(|life| life.id).collect()),
        };
        // A store without a known past replaces none: a backup of the one that was lost may follow.
        for life in skipped.iter().filter(|_| before.is_some()) {
            self.transaction
                .prepare_cached("UPDATE lives SET replaced = 1 WHERE life = ?1")?
                .execute([life.id])?;
        }
        self.transaction
            .prepare_cached("INSERT INTO lives (agent, epoch) VALUES (?1, ?2)")?
            .execute([agent.as_str(), life.epoch.as_str()])?;
        self.transaction
            .prepare_cached(
                "DELETE FROM lives WHERE agent = ?1 AND life <= (
                     SELECT life FROM lives WHERE agent = ?1
                     ORDER BY life DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![agent.as_str(), self.config.lives_max])?;
        Ok(follows)
    }

    /// The agent has an attempt and has not begun it.
    fn received(
        &self,
        agent: &AgentId,
        attempt: &Attempt,
        agreement: &mut Agreement,
    ) -> rusqlite::Result<()> {
        let discard = match self.owned(agent, attempt)? {
            Owned::Foreign => Some("the attempt is another agent's"),
            Owned::Here(row) if row.state.has_ended() => {
                Some("the attempt has ended for the controller")
            }
            Owned::Here(_) if self.is_cancelled(attempt)? => {
                Some("the task is not wanted any more")
            }
            Owned::Here(_) => None,
        };
        match discard {
            Some(reason) => {
                let (attempt, reason) = (attempt.clone(), reason.to_owned());
                agreement.discarded.push(Discarded { attempt, reason });
            }
            None => {
                self.progress(agent, attempt, AttemptState::Received)?;
            }
        }
        Ok(())
    }

    /// The attempts of an agent between two states.
    fn open(
        &self,
        agent: &AgentId,
        from: AttemptState,
        to: AttemptState,
    ) -> rusqlite::Result<Vec<(i64, Attempt)>> {
        self.transaction
            .prepare_cached(
                "SELECT attempt, task, id FROM attempts
                 WHERE agent = ?1 AND state BETWEEN ?2 AND ?3 ORDER BY attempt",
            )?
            .query_map(params![agent.as_str(), number_of(from), number_of(to)], |row| {
                Ok((row.get(0)?, attempt_of(row, 1)?))
            })?
            .collect()
    }

    /// Where the replay of each stream begins that the hello names.
    fn replay(
        &self,
        agent: &AgentId,
        hello: &Hello,
        agreement: &mut Agreement,
    ) -> rusqlite::Result<()> {
        let running = hello.running_tasks.iter().flat_map(|it| {
            OutputStream::ALL.into_iter().map(|stream| (it.attempt.clone(), stream))
        });
        let waiting = hello.unacked_output.iter().map(|it| (it.attempt.clone(), it.stream));
        let lost = hello.lost_output.iter().map(|it| (it.attempt.clone(), it.stream));
        let streams: BTreeSet<(Attempt, OutputStream)> =
            running.chain(waiting).chain(lost).collect();
        for (attempt, stream) in streams {
            let Owned::Here(row) = self.owned(agent, &attempt)? else { continue };
            // A stream that has used up its numbers has no next one.
            let next_sequence = (row.highest[index(stream)] + 1).min(MAX_SEQUENCE);
            agreement.output_replay.push(ReplayFrom { attempt, stream, next_sequence });
        }
        Ok(())
    }

    // ---- looking -----------------------------------------------------------------------------

    fn look(&self, task: &TaskId) -> rusqlite::Result<Option<TaskView>> {
        let found: Option<(AgentId, String, bool)> = self
            .transaction
            .prepare_cached("SELECT agent, command, cancelled FROM tasks WHERE task = ?1")?
            .query_row([task.as_str()], |row| Ok((agent_of(row, 0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((agent, command, cancelled)) = found else { return Ok(None) };
        let mut attempts: Vec<(i64, AttemptView)> = self
            .transaction
            .prepare_cached(
                "SELECT attempt, task, id, state, stdout_highest, stderr_highest, outcome,
                        exit_code, error, output_truncated, error_truncated, stdout_last,
                        stderr_last, ordinal
                 FROM attempts WHERE task = ?1 ORDER BY ordinal",
            )?
            .query_map([task.as_str()], view)?
            .collect::<rusqlite::Result<_>>()?;
        for (row, attempt) in &mut attempts {
            for stream in &mut attempt.streams {
                stream.lost = self.lost(*row, stream.stream)?;
            }
        }
        let attempts = attempts.into_iter().map(|(_, attempt)| attempt).collect();
        Ok(Some(TaskView { agent, command, cancelled, attempts }))
    }

    /// A page of the tasks, which is found by looking at a bounded number of attempts.
    fn list(&self, listing: &Listing) -> rusqlite::Result<TaskPage> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT task, id, tasks.agent, substr(command, 1, ?3), priority, cancelled, ordinal,
                    state, outcome, exit_code, attempt,
                    NOT EXISTS (SELECT 1 FROM attempts AS later WHERE later.task = attempts.task
                                AND later.ordinal > attempts.ordinal)
             FROM attempts JOIN tasks USING (task)
             WHERE attempt < ?1 ORDER BY attempt DESC LIMIT ?2",
        )?;
        let before = listing.before.map_or(i64::MAX, |it| i64::try_from(it).unwrap_or(i64::MAX));
        let mut rows =
            statement.query(params![before, listing.look_max as i64, COMMAND_CHARS as i64])?;
        let (mut page, mut looked) = (TaskPage::default(), 0);
        while let Some(row) = rows.next()? {
            looked += 1;
            let (attempt, is_last): (u64, bool) = (row.get(10)?, row.get(11)?);
            let outcome: Option<String> = row.get(8)?;
            let task = TaskSummary {
                attempt: attempt_of(row, 0)?,
                agent: agent_of(row, 2)?,
                command: row.get(3)?,
                priority: row.get(4)?,
                cancelled: row.get(5)?,
                ordinal: row.get(6)?,
                state: state_of(row.get(7)?),
                outcome: outcome.as_deref().map(outcome_of),
                exit_code: row.get(9)?,
            };
            let wanted = is_last
                && listing.agent.as_ref().is_none_or(|agent| *agent == task.agent)
                && listing.state.is_none_or(|state| state == task.state);
            if wanted {
                page.tasks.push(task);
            }
            if page.tasks.len() >= listing.count_max || looked >= listing.look_max {
                page.next = Some(attempt);
                break;
            }
        }
        Ok(page)
    }

    fn lost(&self, attempt: i64, stream: OutputStream) -> rusqlite::Result<Vec<Range>> {
        self.transaction
            .prepare_cached(
                "SELECT first, last FROM lost WHERE attempt = ?1 AND stream = ?2 ORDER BY first",
            )?
            .query_map(params![attempt, index(stream)], |row| {
                Ok(Range { from: row.get(0)?, to: row.get(1)? })
            })?
            .collect()
    }

    fn read_output(
        &self,
        attempt: &Attempt,
        stream: OutputStream,
        after: u64,
        count_max: usize,
    ) -> rusqlite::Result<OutputPage> {
        let found: Option<(i64, [u64; 2])> = self
            .transaction
            .prepare_cached(
                "SELECT attempt, stdout_highest, stderr_highest
                 FROM attempts WHERE task = ?1 AND id = ?2",
            )?
            .query_row([attempt.task.as_str(), attempt.id.as_str()], |row| {
                Ok((row.get(0)?, [row.get(1)?, row.get(2)?]))
            })
            .optional()?;
        let Some((row, highest)) = found else {
            return Ok(OutputPage { pieces: vec![], lost: vec![], highest: 0 });
        };
        let limit = i64::try_from(count_max).unwrap_or(i64::MAX);
        let pieces = self
            .transaction
            .prepare_cached(
                "SELECT sequence, data FROM output
                 WHERE attempt = ?1 AND stream = ?2 AND sequence > ?3 ORDER BY sequence LIMIT ?4",
            )?
            .query_map(params![row, index(stream), after, limit], |row| {
                Ok((row.get(0)?, Bytes::from(row.get::<_, Vec<u8>>(1)?)))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let lost = self.lost(row, stream)?;
        Ok(OutputPage { pieces, lost, highest: highest[index(stream)] })
    }

    // ---- nonces ------------------------------------------------------------------------------

    fn use_nonce(
        &self,
        agent: &AgentId,
        nonce: &str,
        at: WallTime,
        forget_before: WallTime,
    ) -> rusqlite::Result<bool> {
        // It would be forgotten at once, and could be used again.
        if at < forget_before {
            return Ok(false);
        }
        let count = || -> rusqlite::Result<u64> {
            self.transaction
                .prepare_cached("SELECT count(*) FROM nonces")?
                .query_row([], |row| row.get(0))
        };
        let kept = self.nonces.get().map_or_else(count, Ok)?;
        let gone = self
            .transaction
            .prepare_cached("DELETE FROM nonces WHERE at_ms < ?1")?
            .execute([forget_before.as_millis()])?;
        let kept = kept.saturating_sub(gone as u64);
        self.nonces.set(Some(kept));
        if kept >= self.config.nonces_max {
            mark!("tasks.too_many_nonces");
            return Ok(false);
        }
        let new = self
            .transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO nonces (agent, nonce, at_ms) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![agent.as_str(), nonce, at.as_millis()])?;
        self.nonces.set(Some(kept + new as u64));
        if new == 0 {
            mark!("tasks.nonce_used_again");
        }
        Ok(new > 0)
    }
}

/// Whether a life follows the lives that are known.
enum Follows {
    Yes,
    /// The agent may not have heard of the lives between, or have another store: their rows.
    Perhaps(Vec<i64>),
    /// It is another store, or an older state of the known one.
    No,
    /// It is one that another has replaced.
    Fork,
}

fn view(row: &Row<'_>) -> rusqlite::Result<(i64, AttemptView)> {
    let attempt = attempt_of(row, 1)?;
    let state = state_of(row.get(3)?);
    let outcome: Option<String> = row.get(6)?;
    let result = match &outcome {
        Some(outcome) => {
            let last: [Option<u64>; 2] = [row.get(11)?, row.get(12)?];
            let streams = OutputStream::ALL.into_iter();
            let last = streams.map(|it| last[index(it)].map(|last| (it, last)));
            Some(Final {
                attempt: attempt.clone(),
                outcome: outcome_of(outcome),
                exit_code: row.get(7)?,
                error: row.get(8)?,
                output_truncated: row.get(9)?,
                error_truncated: row.get(10)?,
                last_output: last.collect(),
            })
        }
        None => None,
    };
    let highest: [u64; 2] = [row.get(4)?, row.get(5)?];
    let streams = OutputStream::ALL.into_iter();
    let streams =
        streams.map(|stream| StreamView { stream, highest: highest[index(stream)], lost: vec![] });
    let ended = match state {
        AttemptState::Interrupted => Some(Outcome::Interrupted),
        _ => outcome.as_deref().map(outcome_of),
    };
    Ok((
        row.get(0)?,
        AttemptView {
            attempt,
            ordinal: row.get(13)?,
            state,
            result,
            outcome: ended,
            streams: streams.collect(),
        },
    ))
}
