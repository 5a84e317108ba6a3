//! The databases of the previous release open; those of a newer one are refused and left alone.

use std::fs;
use std::path::Path;

use gapless::database::OpenError;
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations, SqliteInFlight};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use rusqlite::Connection;

use crate::support::{MIXES, databases, entropy};

type Open = fn(&Path) -> Result<(), OpenError>;

/// Each kind of database: its protocol, its file, and how it is opened.
const KINDS: [(&str, &str, Open); 5] = [
    ("events", "server.db", |path| SqliteLog::open(LogConfig::new(path)).map(drop)),
    ("session", "server.db", |path| {
        SqliteConversations::open(path, &ConversationsConfig::default()).map(drop)
    }),
    ("session", "client.db", |path| SqliteInFlight::open(path, None, &mut *entropy()).map(drop)),
    ("tasks", "agent.db", |path| SqliteTaskStore::open(TaskStoreConfig::new(path)).map(drop)),
    ("tasks", "controller.db", |path| SqliteRecord::open(RecordConfig::new(path)).map(drop)),
];

/// The statements that a database was made with, and its pragmas.
fn schema(path: &Path) -> (Vec<String>, [i64; 3]) {
    let connection = Connection::open(path).expect("a database");
    let mut statement = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name")
        .expect("a query");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    let rows = rows.collect::<Result<_, _>>().expect("text");
    let pragmas = ["application_id", "user_version", "auto_vacuum"]
        .map(|name| connection.pragma_query_value(None, name, |row| row.get(0)).expect("a number"));
    (rows, pragmas)
}

#[test]
fn a_database_of_the_previous_release_is_brought_to_the_schema_of_a_new_one() {
    for (protocol, file, open) in KINDS {
        for mix in MIXES {
            let folder = databases(protocol, mix);
            let (old, new) = (folder.path().join(file), folder.path().join("new.db"));
            for path in [&old, &new] {
                open(path).unwrap_or_else(|error| panic!("{protocol}/{mix}/{file}: {error}"));
            }
            assert_eq!(schema(&old), schema(&new), "{protocol}/{mix}/{file}");
        }
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused_with_the_remedy_and_left_as_it_is() {
    for (protocol, file, open) in KINDS {
        let folder = databases(protocol, "extension");
        let path = folder.path().join(file);
        let connection = Connection::open(&path).expect("a database");
        connection.pragma_update(None, "user_version", 99).expect("written");
        connection.close().expect("closed");
        let before = fs::read(&path).expect("a file");
        let error = open(&path).expect_err("it is newer");
        assert!(matches!(error, OpenError::TooNew { found: 99, .. }), "{error}");
        let says = error.to_string();
        assert!(says.contains("has schema version 99, this program knows up to"), "{says}");
        assert!(says.contains("use the newer program, or another data folder"), "{says}");
        assert!(fs::read(&path).expect("a file") == before, "{protocol}/{file} was touched");
    }
}
