//! A copy of a database that is in use: a prefix of what is stored, and others go on meanwhile.
#![cfg(feature = "sqlite")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gapless::AgentId;
use gapless::database::Synchronous;
use gapless::events::log::{Append, Command, Read, Reply};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::events::wire::EventBody;
use gapless::recovery::{Epoch, WallTime};
use gapless::storage::{
    BACKUP_STEP_PAGES, BackupError, Backups, Store as _, Threaded, Transact as _,
};
use rusqlite::Connection;
use serde_json::json;

/// How many events are there at first, each of 60 KB: several steps of a backup.
const FIRST: u64 = 150;

const EVENT_BYTES: usize = 60_000;

fn agent() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

fn append(n: u64) -> Command {
    let payload = json!({ "n": n, "filling": "x".repeat(EVENT_BYTES) });
    let payload = serde_json::value::to_raw_value(&payload).expect("JSON");
    let body = EventBody::new(Some(&format!("id-{n}")), "note", &payload, 1 << 20);
    Command::Append(Append {
        principal: "p".to_owned(),
        agent: agent(),
        body: body.expect("an event"),
        after: None,
        created_at: WallTime::from_millis(0),
    })
}

fn config(path: &Path) -> LogConfig {
    LogConfig { synchronous: Synchronous::Normal, ..LogConfig::new(path) }
}

fn epoch(digit: &str) -> Command {
    Command::OpenEpoch { proposed: Epoch::parse(&digit.repeat(32)).expect("valid"), broken: None }
}

/// A log with events.
async fn log(folder: &Path) -> (Threaded<Command>, Backups<Command>) {
    let log = SqliteLog::open(config(&folder.join("events.db"))).expect("a log");
    let (mut log, backups) = Threaded::spawn_with_backups(log).expect("a thread");
    log.run(vec![epoch("1")]).await.expect("it is stored");
    for n in 1..=FIRST {
        log.run(vec![append(n)]).await.expect("it is stored");
    }
    (log, backups)
}

/// The numbers of the events of a copy, which a new epoch can be opened on.
fn numbers(path: &Path) -> Vec<u64> {
    let connection = Connection::open(path).expect("a database");
    let check: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it runs");
    assert_eq!(check, "ok");
    drop(connection);
    let mut log = SqliteLog::open(config(path)).expect("a log");
    log.transact(vec![epoch("2")]).expect("it is stored");
    let (mut numbers, mut after) = (Vec::new(), 0);
    loop {
        let read =
            Read { agent: agent(), after, to: u64::MAX >> 12, count_max: 100, bytes_max: 1 << 30 };
        let replies = log.transact(vec![Command::Read(read)]).expect("it reads");
        let [Reply::Page(page)] = &replies[..] else { panic!("{replies:?}") };
        let Some((last, _)) = page.last() else { return numbers };
        after = *last;
        numbers.extend(page.iter().map(|(number, _)| *number));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_a_prefix_and_events_are_stored_while_it_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, backups) = log(folder.path()).await;
    let copy = folder.path().join("copy.db");
    let done = Arc::new(AtomicBool::new(false));
    let appending = tokio::spawn({
        let done = done.clone();
        async move {
            let mut n = FIRST;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                log.run(vec![append(n)]).await.expect("it is stored");
            }
            (n, log)
        }
    });
    backups.copy(copy.clone()).await.expect("a copy");
    done.store(true, Ordering::Relaxed);
    let (last, _log) = appending.await.expect("it ends");
    let steps = FIRST * EVENT_BYTES as u64 / (BACKUP_STEP_PAGES as u64 * 4096);
    assert!(steps > 5);
    // At each step but the last, an event that waited went first.
    assert!(last >= FIRST + steps, "{last}");
    let numbers = numbers(&copy);
    let length = numbers.len() as u64;
    assert!((FIRST..=last).contains(&length), "{length} of {last}");
    assert_eq!(numbers, (1..=length).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_copy_at_a_time_and_none_where_a_file_cannot_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_log, backups) = log(folder.path()).await;
    let (one, two) = (folder.path().join("one.db"), folder.path().join("two.db"));
    let (first, second) = tokio::join!(backups.copy(one.clone()), backups.copy(two));
    assert_eq!((first, second), (Ok(()), Err(BackupError::UnderWay)));
    assert_eq!(numbers(&one).len() as u64, FIRST);
    let nowhere = backups.copy(folder.path().join("none/copy.db")).await;
    assert!(matches!(nowhere, Err(BackupError::Failed(_))), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_nobody_waits_for_ends_and_makes_room_for_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_log, backups) = log(folder.path()).await;
    let unwanted = backups.copy(folder.path().join("one.db"));
    // Asked for, and given up.
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(1), unwanted).await;
    given_up.expect_err("it takes longer");
    let mut tries = 0;
    let two = folder.path().join("two.db");
    while let Err(error) = backups.copy(two.clone()).await {
        assert_eq!(error, BackupError::UnderWay);
        tries += 1;
        assert!(tries < 1_000, "the other one does not end");
    }
    assert_eq!(numbers(&two).len() as u64, FIRST);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_copy_of_a_store_that_has_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, backups) = log(folder.path()).await;
    drop(log);
    assert_eq!(backups.copy(folder.path().join("one.db")).await, Err(BackupError::Ending));
}
