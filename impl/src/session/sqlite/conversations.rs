//! The conversations of a server: their rows, whose ids make sure that no input is a row twice,
//! and the inputs that were rejected, so that the verdict holds [SE-5d] [SE-5f].
//!
//! Rows, and with them the ids of their inputs, are forgotten from the oldest on. Everything from
//! `kept_from` on is there; below are only inputs whose turn is not over, and the open question.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::database::{self, Medium, OpenError, Schema, Synchronous, Transaction, damaged};
use crate::mark;
use crate::recovery::MAX_SEQUENCE;
use crate::session::conversation::{
    Command, Ending, Input, Kind, Loaded, Reply, Role, Row, Saying, Verdict, What,
};
use crate::session::wire::InputRejection;
use crate::session::{Name, Turn};
use crate::storage::{Copied, StoreCommand, StoreError, Transact};

/// "gpsc".
const SCHEMA: Schema = Schema {
    application_id: 0x6770_7363,
    what: "the conversations of a session server",
    versions: &[VERSION_1],
    incremental_vacuum: false,
};

const VERSION_1: &str = "
CREATE TABLE conversations (
    conversation  INTEGER PRIMARY KEY,
    principal     TEXT NOT NULL UNIQUE,
    next_position INTEGER NOT NULL,
    kept_from     INTEGER NOT NULL,
    open_question INTEGER,
    FOREIGN KEY (conversation, open_question) REFERENCES rows (conversation, position)
) STRICT;
CREATE TABLE rows (
    conversation INTEGER NOT NULL REFERENCES conversations,
    position     INTEGER NOT NULL,
    role         TEXT NOT NULL,
    kind         TEXT NOT NULL,
    text         TEXT NOT NULL,
    input        TEXT,
    digest       BLOB,
    state        INTEGER,
    turn         INTEGER,
    nth          INTEGER,
    question     TEXT,
    attachments  TEXT NOT NULL,
    source       TEXT,
    model        TEXT NOT NULL,
    usage        TEXT,
    PRIMARY KEY (conversation, position)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX rows_by_input ON rows (conversation, input) WHERE input IS NOT NULL;
CREATE UNIQUE INDEX rows_by_turn ON rows (conversation, turn, nth) WHERE turn IS NOT NULL;
CREATE INDEX rows_by_state ON rows (state, conversation, position) WHERE state IS NOT NULL;
CREATE TABLE rejections (
    conversation INTEGER NOT NULL REFERENCES conversations,
    ordinal      INTEGER NOT NULL,
    id           TEXT NOT NULL,
    digest       BLOB NOT NULL,
    reason       TEXT NOT NULL,
    PRIMARY KEY (conversation, ordinal),
    UNIQUE (conversation, id)
) STRICT, WITHOUT ROWID;
";

/// `rows.state` of an input whose turn has not begun. An input whose turn is over has none.
const WAITING: i64 = 0;
/// `rows.state` of an input whose turn has begun.
const RUNNING: i64 = 1;

/// `rows.nth` of the row that a turn ends with. What is said before is counted from 1.
const ENDING: u64 = 0;

/// How many rows, and how many rejections, a transaction forgets at most for each that it adds.
const FORGET_MAX: u64 = 64;

/// What is shown of a turn that the end of the process interrupted.
const INTERRUPTED: &str = "The reply was interrupted.";

/// How a [`SqliteConversations`] is opened.
#[derive(Debug, Clone)]
pub struct ConversationsConfig {
    /// How many rows of a conversation are kept, and as long their ids: 100,000. As many
    /// rejections are remembered.
    pub retain_rows: u64,
    /// What a commit survives.
    pub synchronous: Synchronous,
    /// The SQLite VFS to use; `None` = the operating system's.
    pub vfs: Option<String>,
}

impl Default for ConversationsConfig {
    fn default() -> Self {
        Self { retain_rows: 100_000, synchronous: Synchronous::Full, vfs: None }
    }
}

/// The conversations of a server.
#[derive(Debug)]
pub struct SqliteConversations {
    connection: Connection,
    /// At least one.
    retain_rows: u64,
}

impl SqliteConversations {
    /// Opens a database, or makes a new one if there is no file.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing was written.
    pub fn open(path: &Path, config: &ConversationsConfig) -> Result<Self, OpenError> {
        let medium = Medium {
            vfs: config.vfs.as_deref(),
            synchronous: config.synchronous,
            page_bytes: None,
        };
        let connection = database::open(path, medium, &SCHEMA)?;
        Ok(Self { connection, retain_rows: config.retain_rows.max(1) })
    }
}

impl Transact<Command> for SqliteConversations {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        self.transact_while_copied(commands)
    }
}

impl Copied<Command> for SqliteConversations {
    fn database(&self) -> &Connection {
        &self.connection
    }

    fn transact_while_copied(&self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let read_only = commands.iter().all(Command::is_read_only);
        let not_applied = |error: rusqlite::Error| StoreError::NotApplied(error.to_string());
        let transaction = Transaction::begin(&self.connection, read_only).map_err(not_applied)?;
        let run = Run { transaction: &transaction, retain_rows: self.retain_rows };
        let replies: rusqlite::Result<Vec<Reply>> =
            commands.into_iter().map(|command| run.command(command)).collect();
        let replies = replies.map_err(not_applied)?;
        transaction.commit().map_err(|error| match read_only {
            true => StoreError::NotApplied(error.to_string()),
            false => StoreError::Unknown(error.to_string()),
        })?;
        Ok(replies)
    }
}

/// One transaction in progress.
struct Run<'a> {
    transaction: &'a Transaction<'a>,
    retain_rows: u64,
}

/// A conversation, without its rows.
struct Conversation {
    id: i64,
    /// The position of the next row.
    next: u64,
    /// Every row from here on is kept.
    kept_from: u64,
    /// The position of the open question's row.
    open: Option<u64>,
}

/// The content of an input. The same id with another one is a conflict [SE-5g].
type Digest = [u8; 32];

/// Where a row comes from, and how it is recognised when it comes again.
enum Origin<'a> {
    /// An input, by its id and content.
    Input(&'a Digest),
    /// The turn of the input at a position: the n-th thing that was said, or its [`ENDING`].
    Turn { turn: u64, nth: u64 },
}

impl Run<'_> {
    fn command(&self, command: Command) -> rusqlite::Result<Reply> {
        match command {
            Command::Recover => self.recover().map(Reply::Recovered),
            Command::Waiting { after, count_max } => {
                self.waiting(after.as_deref(), count_max).map(Reply::Waiting)
            }
            Command::Load { principal, count_max, bytes_max } => {
                self.load(&principal, count_max, bytes_max).map(Reply::Loaded)
            }
            Command::Input { principal, input, queue_max } => {
                self.input(&principal, input, queue_max).map(Reply::Input)
            }
            Command::Begin(turn) => self.begin(&turn).map(Reply::Begun),
            Command::Say { turn, nth, saying } => self.say(&turn, nth, saying).map(Reply::Row),
            Command::End { turn, ending } => self.end(&turn, ending).map(Reply::Ended),
        }
    }

    // ---- reading -----------------------------------------------------------------------------

    fn conversation(&self, principal: &str) -> rusqlite::Result<Option<Conversation>> {
        self.transaction
            .prepare_cached(
                "SELECT conversation, next_position, kept_from, open_question
                 FROM conversations WHERE principal = ?1",
            )?
            .query_row([principal], |row| {
                Ok(Conversation {
                    id: row.get(0)?,
                    next: row.get(1)?,
                    kept_from: row.get(2)?,
                    open: row.get(3)?,
                })
            })
            .optional()
    }

    fn waiting(&self, after: Option<&str>, count_max: usize) -> rusqlite::Result<Vec<Arc<str>>> {
        self.transaction
            .prepare_cached(
                "SELECT principal FROM conversations
                 WHERE conversation IN (SELECT conversation FROM rows WHERE state = ?1)
                   AND (?2 IS NULL OR principal > ?2)
                 ORDER BY principal LIMIT ?3",
            )?
            .query_map(params![WAITING, after, limit(count_max)], |row| row.get(0))?
            .collect()
    }

    /// What a history shows [SE-2].
    fn load(
        &self,
        principal: &str,
        count_max: usize,
        bytes_max: usize,
    ) -> rusqlite::Result<Loaded> {
        let Some(conversation) = self.conversation(principal)? else {
            return Ok(Loaded::default());
        };
        let rows = self.newest(&conversation, count_max, bytes_max)?;
        let oldest = rows.first().map_or(conversation.next, |row| row.position);
        Ok(Loaded {
            truncated: oldest > 1 || conversation.kept_from > 1,
            question: self.open_question(&conversation)?.and_then(|row| row.as_question()),
            waiting: self.waiting_inputs(&conversation)?,
            rows,
        })
    }

    fn newest(
        &self,
        conversation: &Conversation,
        count_max: usize,
        bytes_max: usize,
    ) -> rusqlite::Result<Vec<Row>> {
        let sql = select("rows WHERE conversation = ?1 ORDER BY position DESC LIMIT ?2");
        let mut statement = self.transaction.prepare_cached(&sql)?;
        let found = statement.query_map(params![conversation.id, limit(count_max)], row_of)?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for row in found {
            let row = row?;
            bytes += row.cost();
            if bytes > bytes_max && !rows.is_empty() {
                break;
            }
            rows.push(row);
        }
        rows.reverse();
        Ok(rows)
    }

    fn open_question(&self, conversation: &Conversation) -> rusqlite::Result<Option<Row>> {
        let sql = select("rows WHERE conversation = ?1 AND position = ?2");
        self.transaction
            .prepare_cached(&sql)?
            .query_row(params![conversation.id, conversation.open], row_of)
            .optional()
    }

    /// The inputs whose turn has not begun, in the order of their turns.
    fn waiting_inputs(&self, conversation: &Conversation) -> rusqlite::Result<Vec<Row>> {
        let sql = select(
            "rows INDEXED BY rows_by_state WHERE state = ?1 AND conversation = ?2
             ORDER BY kind <> 'answer', position",
        );
        self.transaction
            .prepare_cached(&sql)?
            .query_map(params![WAITING, conversation.id], row_of)?
            .collect()
    }

    // ---- inputs ------------------------------------------------------------------------------

    fn input(&self, principal: &str, input: Input, queue_max: usize) -> rusqlite::Result<Verdict> {
        let mut conversation = match self.conversation(principal)? {
            Some(conversation) => conversation,
            None => self.new_conversation(principal)?,
        };
        let digest = digest(&input);
        if let Some(verdict) = self.verdict_before(&conversation, &input.id, &digest)? {
            return Ok(verdict);
        }
        let Input { id, what, text } = input;
        let row = match what {
            What::Message { after, attachments } => {
                // Its row would have been after that one, so that its id is remembered if there
                // was ever a row. `kept_from` only grows: the verdict needs not be remembered.
                if after.is_some_and(|after| after.saturating_add(1) < conversation.kept_from) {
                    mark!("session.input_expired");
                    return Ok(Verdict::Rejected(InputRejection::Expired));
                }
                if self.messages_waiting(&conversation)? >= queue_max {
                    mark!("session.queue_full");
                    let reason = InputRejection::QueueFull { queue_cap: queue_max as u64 };
                    return self.reject(&conversation, &id, &digest, reason);
                }
                Row { attachments, ..plain(Role::User, Kind::Message, text) }
            }
            What::Answer { question, asked: _ } => {
                let open = self.open_question(&conversation)?.and_then(|row| row.question);
                let open = open.filter(|open| question.is_none_or(|question| question == *open));
                if open.is_none() {
                    mark!("session.answer_not_open");
                    return self.reject(&conversation, &id, &digest, InputRejection::NotOpen);
                }
                Row { question: open, ..plain(Role::User, Kind::Answer, text) }
            }
        };
        let row = Row { input: Some(id), ..row };
        self.append(&mut conversation, row, &Origin::Input(&digest)).map(Verdict::Accepted)
    }

    fn new_conversation(&self, principal: &str) -> rusqlite::Result<Conversation> {
        let (next, kept_from) = (1, 1);
        self.transaction
            .prepare_cached(
                "INSERT INTO conversations (principal, next_position, kept_from)
                 VALUES (?1, ?2, ?3)",
            )?
            .execute(params![principal, next, kept_from])?;
        Ok(Conversation { id: self.transaction.last_insert_rowid(), next, kept_from, open: None })
    }

    /// What was said of an input when it came before [SE-5f].
    fn verdict_before(
        &self,
        conversation: &Conversation,
        id: &Name,
        digest: &Digest,
    ) -> rusqlite::Result<Option<Verdict>> {
        let accepted = self
            .transaction
            .prepare_cached(
                "SELECT digest, position, question FROM rows WHERE conversation = ?1 AND input = ?2",
            )?
            .query_row(params![conversation.id, id.as_str()], |row| {
                let known = Verdict::Known { position: row.get(1)?, question: name_of(row, 2)? };
                Ok((row.get::<_, Digest>(0)?, known))
            })
            .optional()?;
        let found = match accepted {
            Some(accepted) => Some(accepted),
            None => self
                .transaction
                .prepare_cached(
                    "SELECT digest, reason FROM rejections WHERE conversation = ?1 AND id = ?2",
                )?
                .query_row(params![conversation.id, id.as_str()], |row| {
                    Ok((row.get::<_, Digest>(0)?, Verdict::Rejected(json_of(row, 1)?)))
                })
                .optional()?,
        };
        let Some((stored, verdict)) = found else { return Ok(None) };
        if stored != *digest {
            mark!("session.input_conflict");
            return Ok(Some(Verdict::Rejected(InputRejection::Conflict)));
        }
        match verdict {
            Verdict::Rejected(_) => mark!("session.input_rejected_again"),
            _ => mark!("session.input_known"),
        }
        Ok(Some(verdict))
    }

    fn messages_waiting(&self, conversation: &Conversation) -> rusqlite::Result<usize> {
        self.transaction
            .prepare_cached(
                "SELECT count(*) FROM rows INDEXED BY rows_by_state
                 WHERE state = ?1 AND conversation = ?2 AND kind = 'message'",
            )?
            .query_row(params![WAITING, conversation.id], |row| row.get(0))
    }

    /// Rejects an input for good: the verdict is remembered beside its id, and forgotten only
    /// after as many others as rows are kept.
    fn reject(
        &self,
        conversation: &Conversation,
        id: &Name,
        digest: &Digest,
        reason: InputRejection,
    ) -> rusqlite::Result<Verdict> {
        let newest: u64 = self
            .transaction
            .prepare_cached(
                "SELECT coalesce(max(ordinal), 0) FROM rejections WHERE conversation = ?1",
            )?
            .query_row([conversation.id], |row| row.get(0))?;
        let ordinal = newest + 1;
        self.transaction
            .prepare_cached(
                "INSERT INTO rejections (conversation, ordinal, id, digest, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![conversation.id, ordinal, id.as_str(), digest, json(&reason)])?;
        let forgotten = self
            .transaction
            .prepare_cached(
                "DELETE FROM rejections WHERE conversation = ?1 AND ordinal IN (
                     SELECT ordinal FROM rejections WHERE conversation = ?1 AND ordinal <= ?2
                     ORDER BY ordinal LIMIT ?3)",
            )?
            .execute(params![
                conversation.id,
                ordinal.saturating_sub(self.retain_rows),
                FORGET_MAX
            ])?;
        if forgotten > 0 {
            mark!("session.rejections_forgotten");
        }
        Ok(Verdict::Rejected(reason))
    }

    // ---- turns -------------------------------------------------------------------------------

    fn begin(&self, turn: &Turn) -> rusqlite::Result<bool> {
        let Some(conversation) = self.conversation(&turn.principal)? else { return Ok(false) };
        let begun = self
            .transaction
            .prepare_cached(
                "UPDATE rows SET state = ?3
                 WHERE conversation = ?1 AND position = ?2 AND state IS NOT NULL",
            )?
            .execute(params![conversation.id, turn.position, RUNNING])?;
        Ok(begun > 0)
    }

    fn say(&self, turn: &Turn, nth: u64, saying: Saying) -> rusqlite::Result<Row> {
        let Some(mut conversation) = self.conversation(&turn.principal)? else {
            return Err(no_input(turn));
        };
        if let Some(said) = self.said(&conversation, turn, nth)? {
            mark!("session.said_again");
            return Ok(said);
        }
        if !self.is_input(&conversation, turn)? {
            return Err(no_input(turn));
        }
        let Saying { text, model, usage } = saying;
        let row = Row { model, usage, ..plain(Role::Assistant, Kind::Message, text) };
        self.append(&mut conversation, row, &Origin::Turn { turn: turn.position, nth })
    }

    fn end(&self, turn: &Turn, ending: Ending) -> rusqlite::Result<Option<Row>> {
        let Some(mut conversation) = self.conversation(&turn.principal)? else { return Ok(None) };
        let ended = self
            .transaction
            .prepare_cached(
                "UPDATE rows SET state = NULL
                 WHERE conversation = ?1 AND position = ?2 AND state IS NOT NULL",
            )?
            .execute(params![conversation.id, turn.position])?;
        if ended == 0 {
            mark!("session.ended_again");
            return self.said(&conversation, turn, ENDING);
        }
        let row = match ending {
            Ending::Done => return Ok(None),
            Ending::Ask { question, text, source } => Row {
                question: Some(question),
                source: Some(source),
                ..plain(Role::Assistant, Kind::Question, text)
            },
            Ending::Failed(text) => plain(Role::Assistant, Kind::Interrupted, text),
        };
        let origin = Origin::Turn { turn: turn.position, nth: ENDING };
        self.append(&mut conversation, row, &origin).map(Some)
    }

    /// Turns that had begun are over, and are not run again [SE-3d]. The next time there are none.
    fn recover(&self) -> rusqlite::Result<u64> {
        let running: Vec<Turn> = self
            .transaction
            .prepare_cached(
                "SELECT principal, position FROM rows JOIN conversations USING (conversation)
                 WHERE state = ?1 ORDER BY conversation, position",
            )?
            .query_map([RUNNING], |row| Ok(Turn { principal: row.get(0)?, position: row.get(1)? }))?
            .collect::<rusqlite::Result<_>>()?;
        for turn in &running {
            mark!("session.turn_interrupted");
            self.end(turn, Ending::Failed(INTERRUPTED.to_owned()))?;
        }
        Ok(running.len() as u64)
    }

    fn is_input(&self, conversation: &Conversation, turn: &Turn) -> rusqlite::Result<bool> {
        self.transaction
            .prepare_cached(
                "SELECT 1 FROM rows
                 WHERE conversation = ?1 AND position = ?2 AND input IS NOT NULL",
            )?
            .exists(params![conversation.id, turn.position])
    }

    fn said(
        &self,
        conversation: &Conversation,
        turn: &Turn,
        nth: u64,
    ) -> rusqlite::Result<Option<Row>> {
        let sql = select("rows WHERE conversation = ?1 AND turn = ?2 AND nth = ?3");
        self.transaction
            .prepare_cached(&sql)?
            .query_row(params![conversation.id, turn.position, nth], row_of)
            .optional()
    }

    // ---- rows --------------------------------------------------------------------------------

    /// Adds a row at the next position. A question is open from its row until that of its
    /// answer [SE-12c].
    fn append(
        &self,
        conversation: &mut Conversation,
        row: Row,
        origin: &Origin<'_>,
    ) -> rusqlite::Result<Row> {
        if conversation.next > MAX_SEQUENCE {
            let problem = "the conversation has no position left for another row";
            return Err(rusqlite::Error::ToSqlConversionFailure(problem.into()));
        }
        let row = Row { position: conversation.next, ..row };
        self.insert(conversation, &row, origin)?;
        conversation.next += 1;
        match row.kind {
            Kind::Question => conversation.open = Some(row.position),
            Kind::Answer => conversation.open = None,
            Kind::Message | Kind::Interrupted => {}
        }
        let surplus = conversation
            .next
            .saturating_sub(self.retain_rows)
            .saturating_sub(conversation.kept_from);
        conversation.kept_from += surplus.min(FORGET_MAX);
        self.transaction
            .prepare_cached(
                "UPDATE conversations SET next_position = ?2, kept_from = ?3, open_question = ?4
                 WHERE conversation = ?1",
            )?
            .execute(params![
                conversation.id,
                conversation.next,
                conversation.kept_from,
                conversation.open
            ])?;
        if surplus > 0 {
            self.forget_rows(conversation)?;
        }
        Ok(row)
    }

    fn insert(
        &self,
        conversation: &Conversation,
        row: &Row,
        origin: &Origin<'_>,
    ) -> rusqlite::Result<()> {
        let (digest, state, turn, nth) = match *origin {
            Origin::Input(digest) => (Some(digest), Some(WAITING), None, None),
            Origin::Turn { turn, nth } => (None, None, Some(turn), Some(nth)),
        };
        self.transaction
            .prepare_cached(
                "INSERT INTO rows (conversation, position, role, kind, text, input, digest, state,
                                   turn, nth, question, attachments, source, model, usage)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            )?
            .execute(params![
                conversation.id,
                row.position,
                role_name(row.role),
                kind_name(row.kind),
                row.text,
                row.input.as_ref().map(Name::as_str),
                digest,
                state,
                turn,
                nth,
                row.question.as_ref().map(Name::as_str),
                json(&row.attachments),
                row.source,
                row.model,
                row.usage.as_ref().map(json),
            ])?;
        Ok(())
    }

    /// Removes what is below `kept_from`, unless somebody still waits for it.
    fn forget_rows(&self, conversation: &Conversation) -> rusqlite::Result<()> {
        let forgotten = self
            .transaction
            .prepare_cached(
                "DELETE FROM rows WHERE conversation = ?1 AND position < ?2
                   AND state IS NULL AND position IS NOT ?3",
            )?
            .execute(params![conversation.id, conversation.kept_from, conversation.open])?;
        if forgotten > 0 {
            mark!("session.rows_forgotten");
        }
        Ok(())
    }
}

/// A row that only says something; its position is given when it is added.
fn plain(role: Role, kind: Kind, text: String) -> Row {
    Row {
        position: 0,
        role,
        kind,
        text,
        input: None,
        question: None,
        attachments: Vec::new(),
        source: None,
        model: String::new(),
        usage: None,
    }
}

/// Everything that the user said, and not what the client knew at that time.
fn digest(input: &Input) -> Digest {
    let content = match &input.what {
        What::Message { attachments, after: _ } => json(&("message", &input.text, attachments)),
        What::Answer { question, asked: _ } => json(&("answer", &input.text, question)),
    };
    Sha256::digest(content).into()
}

/// A query of rows as [`row_of`] reads them.
fn select(from: &str) -> String {
    format!(
        "SELECT position, role, kind, text, input, question, attachments, source, model, usage
         FROM {from}"
    )
}

fn row_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let usage: Option<String> = row.get(9)?;
    Ok(Row {
        position: row.get(0)?,
        role: word_of(row, 1)?,
        kind: word_of(row, 2)?,
        text: row.get(3)?,
        input: name_of(row, 4)?,
        question: name_of(row, 5)?,
        attachments: json_of(row, 6)?,
        source: row.get(7)?,
        model: row.get(8)?,
        usage: usage.map(|_| json_of(row, 9)).transpose()?,
    })
}

fn name_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Name>> {
    let name: Option<String> = row.get(column)?;
    name.map(|name| Name::parse(&name)).transpose().map_err(|error| damaged(column, error))
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data is always JSON")
}

fn json_of<T: DeserializeOwned>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| damaged(column, error))
}

fn limit(count_max: usize) -> i64 {
    i64::try_from(count_max).unwrap_or(i64::MAX)
}

fn no_input(turn: &Turn) -> rusqlite::Error {
    let problem = format!("`{}` has no input at position {}", turn.principal, turn.position);
    rusqlite::Error::ToSqlConversionFailure(problem.into())
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Message => "message",
        Kind::Question => "question",
        Kind::Answer => "answer",
        Kind::Interrupted => "interrupted",
    }
}

/// Reads what [`role_name`] or [`kind_name`] wrote.
fn word_of<'de, T: Deserialize<'de>>(
    row: &'de rusqlite::Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let word: StrDeserializer<'de, serde::de::value::Error> =
        row.get_ref(column)?.as_str()?.into_deserializer();
    T::deserialize(word).map_err(|error| damaged(column, error))
}
