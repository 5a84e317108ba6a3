//! What a durable append costs, beside SQLite without anything around it; and whether it costs more
//! when much is stored.
//!
//! ```sh
//! cargo bench -p gapless --bench task_store
//! ```
//!
//! Both sides write rows of the same size through the same pragmas, in turns, to the same disk; what
//! counts are the ratios of the medians.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gapless::recovery::{Epoch, WallTime};
use gapless::storage::Transact as _;
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::store::{
    Append, Command, Receipt, ReceiptStore as _, RecoveryStore as _, Reply,
};
use gapless::tasks::{Attempt, AttemptId, OutputStream, TaskId};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

const ROUNDS: usize = 60;

/// Transactions of each side in a round.
const PER_ROUND: usize = 20;

struct Store {
    store: SqliteTaskStore,
    attempt: Attempt,
    sequence: u64,
    bytes: usize,
}

impl Store {
    fn new(folder: &Path, cap: u64, bytes: usize) -> Self {
        let mut config = TaskStoreConfig::new(folder.join("store.db"));
        config.spool_cap_bytes = cap;
        let mut store = SqliteTaskStore::open(config).expect("it opens");
        let at = WallTime::from_millis(0);
        store.recover(Epoch::parse("e").expect("valid"), at).expect("a life begins");
        let attempt = Attempt {
            task: TaskId::parse("t").expect("valid"),
            id: AttemptId::parse("a").expect("valid"),
        };
        let receipt =
            Receipt { attempt: attempt.clone(), command: "x".to_owned(), priority: 0, at };
        store.receive(receipt).expect("stored");
        store.start(attempt.clone(), at).expect("stored");
        Self { store, attempt, sequence: 0, bytes }
    }

    fn append(&mut self, batch: usize) {
        let commands: Vec<Command> = (0..batch)
            .map(|_| {
                self.sequence += 1;
                Command::Append(Append {
                    attempt: self.attempt.clone(),
                    stream: OutputStream::Stdout,
                    sequence: self.sequence,
                    data: Bytes::from(vec![7; self.bytes]),
                })
            })
            .collect();
        let replies = self.store.transact(commands).expect("stored");
        assert!(replies.iter().all(|reply| matches!(reply, Reply::Appended(_))));
    }
}

/// SQLite with the same pragmas and rows, and the index that finds a number.
struct Raw {
    connection: Connection,
    sequence: u64,
    bytes: usize,
}

impl Raw {
    fn new(folder: &Path, bytes: usize) -> Self {
        let path = folder.join("raw.db");
        let connection = Connection::open(&path).expect("it opens");
        connection
            .execute_batch(
                "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA locking_mode = EXCLUSIVE;
                 PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;
                 CREATE TABLE outbox (
                     row INTEGER PRIMARY KEY AUTOINCREMENT, attempt INTEGER NOT NULL,
                     stream INTEGER NOT NULL, sequence INTEGER NOT NULL, life INTEGER NOT NULL,
                     data BLOB NOT NULL) STRICT;
                 CREATE UNIQUE INDEX outbox_by_number ON outbox (attempt, stream, sequence);",
            )
            .expect("a table");
        Self { connection, sequence: 0, bytes }
    }

    fn append(&mut self, batch: usize) {
        let behavior = TransactionBehavior::Immediate;
        let transaction = Transaction::new(&mut self.connection, behavior).expect("begins");
        for _ in 0..batch {
            self.sequence += 1;
            transaction
                .prepare_cached(
                    "INSERT INTO outbox (attempt, stream, sequence, life, data)
                     VALUES (1, 0, ?1, 1, ?2)",
                )
                .and_then(|mut it| it.execute(params![self.sequence, vec![7_u8; self.bytes]]))
                .expect("stored");
        }
        transaction.commit().expect("durable");
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn timed(mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn against_raw(batch: usize, bytes: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = Store::new(folder.path(), 1 << 30, bytes);
    let mut raw = Raw::new(folder.path(), bytes);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut one = || ours.push(timed(|| (0..PER_ROUND).for_each(|_| store.append(batch))));
        let mut other = || theirs.push(timed(|| (0..PER_ROUND).for_each(|_| raw.append(batch))));
        if round % 2 == 0 {
            one();
            other();
        } else {
            other();
            one();
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let per = |time: Duration| time.as_secs_f64() * 1e6 / (PER_ROUND * batch) as f64;
    println!(
        "append of {batch:>2} × {bytes:>5} bytes   {:>8.1} µs a piece, bare {:>8.1} µs: {:.2} of its speed",
        per(ours),
        per(theirs),
        theirs.as_secs_f64() / ours.as_secs_f64(),
    );
}

/// Appends to stores of very different sizes, in turns.
fn with_much_stored(sizes: &[u64]) {
    let mut stores: Vec<(tempfile::TempDir, Store)> = sizes
        .iter()
        .map(|size| {
            let folder = tempfile::tempdir().expect("a folder");
            let mut store = Store::new(folder.path(), 1 << 30, 128);
            while store.sequence < *size {
                store.append(1_000);
            }
            (folder, store)
        })
        .collect();
    let mut times = vec![Vec::new(); sizes.len()];
    for _ in 0..ROUNDS {
        for (times, (_, store)) in times.iter_mut().zip(&mut stores) {
            times.push(timed(|| (0..PER_ROUND).for_each(|_| store.append(1))));
        }
    }
    let medians: Vec<Duration> = times.into_iter().map(median).collect();
    for (size, time) in sizes.iter().zip(&medians) {
        println!(
            "append with {size:>9} stored   {:>8.1} µs: {:.2} times the first",
            time.as_secs_f64() * 1e6 / PER_ROUND as f64,
            time.as_secs_f64() / medians[0].as_secs_f64(),
        );
    }
}

fn main() {
    // `cargo test --benches` wants to know that it builds, and no more.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    for (batch, bytes) in [(1, 256), (64, 256), (1, 16 << 10), (64, 16 << 10)] {
        against_raw(batch, bytes);
    }
    with_much_stored(&[1_000, 100_000, 1_000_000]);
}
