//! What a client has in flight: its own name, and the inputs without a verdict.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::database::{self, Medium, OpenError, Schema, Transaction, damaged};
use crate::mark;
use crate::recovery::{Entropy, random_hex_128};
use crate::session::Name;
use crate::session::conversation::Input;
use crate::session::in_flight::{Command, Kept};
use crate::storage::{StoreError, Transact};

/// "gpsi".
const SCHEMA: Schema = Schema {
    application_id: 0x6770_7369,
    what: "what a session client has in flight",
    versions: &[VERSION_1],
    incremental_vacuum: false,
};

const VERSION_1: &str = "
CREATE TABLE client (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    name TEXT NOT NULL
) STRICT;
CREATE TABLE inputs (
    ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
    id      TEXT NOT NULL UNIQUE,
    input   TEXT NOT NULL
) STRICT;
";

/// What a client has in flight, and its id.
#[derive(Debug)]
pub struct SqliteInFlight {
    connection: Connection,
}

impl SqliteInFlight {
    /// Opens a database, or makes a new one, with a client id of its own, if there is no file.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing was written. A client that shares the file with another one cannot
    /// be opened: two views have two client ids [SE-8e].
    pub fn open(
        path: &Path,
        vfs: Option<&str>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Kept), OpenError> {
        let medium = Medium { vfs, ..Medium::default() };
        let connection = database::open(path, medium, &SCHEMA)?;
        let kept =
            kept(&connection, entropy).map_err(|error| database::open_error(path, &error))?;
        Ok((Self { connection }, kept))
    }
}

impl Transact<Command> for SqliteInFlight {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<()>, StoreError> {
        let not_applied = |error: rusqlite::Error| StoreError::NotApplied(error.to_string());
        let transaction = Transaction::begin(&self.connection, false).map_err(not_applied)?;
        let replies: rusqlite::Result<Vec<()>> =
            commands.iter().map(|command| run(&transaction, command)).collect();
        let replies = replies.map_err(not_applied)?;
        transaction.commit().map_err(|error| StoreError::Unknown(error.to_string()))?;
        Ok(replies)
    }
}

fn run(transaction: &Transaction<'_>, command: &Command) -> rusqlite::Result<()> {
    match command {
        Command::Keep(input) => {
            let text = serde_json::to_string(input).expect("an input is always JSON");
            let kept = transaction
                .prepare_cached(
                    "INSERT INTO inputs (id, input) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING",
                )?
                .execute(params![input.id.as_str(), text])?;
            if kept == 0 {
                mark!("session.input_kept_again");
            }
        }
        Command::Drop(id) => {
            transaction
                .prepare_cached("DELETE FROM inputs WHERE id = ?1")?
                .execute([id.as_str()])?;
        }
    }
    Ok(())
}

/// What is stored, with a name that is drawn when there is none yet.
fn kept(connection: &Connection, entropy: &mut dyn Entropy) -> rusqlite::Result<Kept> {
    let in_flight = connection
        .prepare("SELECT input FROM inputs ORDER BY ordinal")?
        .query_map([], input_of)?
        .collect::<rusqlite::Result<_>>()?;
    let stored: Option<String> =
        connection.query_row("SELECT name FROM client", [], |row| row.get(0)).optional()?;
    let client = match stored {
        Some(name) => Name::parse(&name).map_err(|error| damaged(0, error))?,
        None => {
            let name = random_hex_128(entropy);
            connection.execute("INSERT INTO client (only, name) VALUES (1, ?1)", [&name])?;
            Name::parse(&name).expect("digits are a name")
        }
    };
    Ok(Kept { client, in_flight })
}

fn input_of(row: &Row<'_>) -> rusqlite::Result<Input> {
    serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|error| damaged(0, error))
}
