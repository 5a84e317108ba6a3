//! The store of a task agent: what it keeps, what it gives up, and how large it gets.

use bytes::Bytes;
use gapless::database::{OpenError, Synchronous};
use gapless::recovery::{Epoch, WallTime};
use gapless::storage::Transact as _;
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::store::{
    Append, Appended, Command, Finish, Message, MessageBody, Receipt, ReceiptStore as _, Received,
    Recovered, RecoveryStore as _, Reply, ResultOutbox as _, Started, StoredFinal,
};
use gapless::tasks::{Attempt, AttemptId, Outcome, OutputStream, Range, Status, TaskId};

const AT: WallTime = WallTime::from_millis(1_000_000);

fn attempt(task: &str, id: &str) -> Attempt {
    Attempt { task: TaskId::parse(task).expect("valid"), id: AttemptId::parse(id).expect("valid") }
}

fn receipt(attempt: &Attempt) -> Receipt {
    let (attempt, command) = (attempt.clone(), "uptime".to_owned());
    Receipt { attempt, command, priority: 0, at: AT }
}

fn piece(attempt: &Attempt, stream: OutputStream, sequence: u64, data: &[u8]) -> Append {
    let (attempt, data) = (attempt.clone(), Bytes::copy_from_slice(data));
    Append { attempt, stream, sequence, data }
}

fn end(attempt: &Attempt) -> Finish {
    Finish {
        attempt: attempt.clone(),
        outcome: Outcome::Completed,
        exit_code: 0,
        error: String::new(),
        truncated: vec![],
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    config: TaskStoreConfig,
    store: Option<SqliteTaskStore>,
    lives: u32,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut TaskStoreConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = TaskStoreConfig::new(folder.path().join("tasks.db"));
        config.synchronous = Synchronous::Normal;
        change(&mut config);
        let mut fixture = Self { folder, config, store: None, lives: 0 };
        fixture.restart();
        fixture
    }

    fn restart(&mut self) -> Recovered {
        self.store = None;
        self.store = Some(SqliteTaskStore::open(self.config.clone()).expect("it opens"));
        self.lives += 1;
        let epoch = Epoch::parse(&format!("{:032x}", self.lives)).expect("valid");
        self.store().recover(epoch, AT).expect("a life begins")
    }

    fn store(&mut self) -> &mut SqliteTaskStore {
        self.store.as_mut().expect("it is open")
    }

    /// An attempt that runs.
    fn running(&mut self, task: &str) -> Attempt {
        let attempt = attempt(task, "a1");
        assert_eq!(self.store().receive(receipt(&attempt)), Ok(Received::New));
        assert_eq!(self.store().start(attempt.clone(), AT), Ok(Started::Now));
        attempt
    }

    fn write(&mut self, attempt: &Attempt, sequence: u64, data: &[u8]) -> Appended {
        let piece = piece(attempt, OutputStream::Stdout, sequence, data);
        self.store().append(piece).expect("it is stored")
    }

    fn status(&mut self, attempt: &Attempt) -> Option<Status> {
        let replies = self.store().transact(vec![Command::Find(attempt.clone())]);
        let Ok([Reply::Found(known)]) = replies.as_deref() else { panic!("{replies:?}") };
        known.as_ref().map(|known| known.status)
    }

    fn waiting(&mut self) -> Vec<Message> {
        self.store().unacked(0, usize::MAX).expect("it reads")
    }

    /// The numbers of the output that waits.
    fn numbers(&mut self) -> Vec<u64> {
        let waiting = self.waiting().into_iter();
        let output = waiting.filter_map(|message| match message.body {
            MessageBody::Output { chunk, .. } => Some(chunk.sequence),
            MessageBody::Final(_) => None,
        });
        output.collect()
    }

    fn finish(&mut self, attempt: &Attempt) -> StoredFinal {
        self.store().finish(end(attempt)).expect("it is stored")
    }

    fn disk_bytes(&self) -> u64 {
        let files = std::fs::read_dir(self.folder.path()).expect("a folder");
        files
            .map(|file| file.and_then(|file| file.metadata()).map_or(0, |metadata| metadata.len()))
            .sum()
    }
}

#[test]
fn what_was_received_is_there_after_a_restart_with_its_command() {
    let mut fixture = Fixture::new();
    let (first, second) = (attempt("t1", "a1"), attempt("t2", "a1"));
    fixture.store().receive(receipt(&first)).expect("stored");
    fixture.store().receive(receipt(&second)).expect("stored");
    let recovered = fixture.restart();
    assert_eq!(recovered.received, [receipt(&first), receipt(&second)]);
    assert_eq!(recovered.interrupted, []);
}

#[test]
fn what_was_running_is_interrupted_by_a_restart_with_one_result() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    fixture.write(&attempt, 1, b"half");
    assert_eq!(fixture.restart().interrupted, std::slice::from_ref(&attempt));
    assert_eq!(fixture.status(&attempt), Some(Status::Final(Outcome::Interrupted)));
    let waiting = fixture.waiting();
    let [_, Message { body: MessageBody::Final(result), message_id, .. }] = &waiting[..] else {
        panic!("the output, then the result: {waiting:?}")
    };
    assert_eq!((result.outcome, result.exit_code), (Outcome::Interrupted, -1));
    assert_eq!(result.last_output.as_ref().map(|last| last[&OutputStream::Stdout]), Some(1));
    // The next restart finds nothing that runs, and makes no second result.
    let message_id = message_id.clone();
    assert_eq!(fixture.restart().interrupted, []);
    let again = fixture.waiting();
    assert_eq!(again.last().map(|message| &message.message_id), Some(&message_id));
}

#[test]
fn a_life_that_begins_twice_is_one_life() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    let first = fixture.restart();
    let epoch = first.life.epoch.clone();
    let again = fixture.store().recover(epoch, AT).expect("again");
    assert_eq!((&again.life, &again.interrupted), (&first.life, &vec![attempt]));
    assert_eq!(fixture.waiting().len(), 1);
}

#[test]
fn a_life_names_the_last_one_that_a_controller_has_answered() {
    let mut fixture = Fixture::new();
    let first = fixture.restart().life;
    assert_eq!(first.predecessor, None);
    let answered = Command::Acknowledged(first.epoch.clone());
    fixture.store().transact(vec![answered]).expect("stored");
    assert_eq!(fixture.restart().life.predecessor, Some(first.epoch.clone()));
    assert_eq!(fixture.restart().life.predecessor, Some(first.epoch));
}

#[test]
fn a_number_is_bound_to_its_bytes() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    assert!(matches!(fixture.write(&attempt, 1, b"one"), Appended::Stored { row } if row > 0));
    let again = fixture.write(&attempt, 1, b"one");
    assert!(matches!(again, Appended::Stored { row } if row > 0), "a repetition is the same");
    assert_eq!(fixture.write(&attempt, 1, b"two"), Appended::Conflict);
    assert_eq!(fixture.write(&attempt, 3, b"three"), Appended::Conflict, "2 is next");
    // Also when it is acknowledged and gone.
    let through =
        Command::AckOutput { attempt: attempt.clone(), stream: OutputStream::Stdout, through: 1 };
    fixture.store().transact(vec![through]).expect("acknowledged");
    assert_eq!(fixture.write(&attempt, 1, b"one"), Appended::Stored { row: 0 });
    assert_eq!(fixture.numbers(), [0_u64; 0]);
}

#[test]
fn rows_come_in_the_order_in_which_they_were_stored_whatever_the_clock_says() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    for sequence in 1..=5 {
        fixture.write(&attempt, sequence, b"x");
    }
    assert_eq!(fixture.numbers(), [1, 2, 3, 4, 5]);
}

#[test]
fn an_attempt_has_one_result_for_ever() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    let first = fixture.finish(&attempt);
    let other = Finish { outcome: Outcome::Failed, exit_code: 7, ..end(&attempt) };
    assert_eq!(fixture.store().finish(other), Ok(first.clone()));
    fixture.store().ack(first.message_id.clone()).expect("acknowledged");
    let later = fixture.finish(&attempt);
    assert_eq!((later.row, later.result), (0, first.result), "it is remembered, and not sent");
    assert_eq!(fixture.write(&attempt, 1, b"late"), Appended::NotRunning);
}

#[test]
fn acknowledged_rows_are_gone_and_acknowledging_again_is_nothing() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    fixture.write(&attempt, 1, b"one");
    fixture.write(&attempt, 2, b"two");
    fixture.finish(&attempt);
    let ids: Vec<_> = fixture.waiting().into_iter().map(|message| message.message_id).collect();
    assert_eq!(ids.len(), 3);
    for id in &ids {
        assert_eq!(fixture.store().ack(id.clone()), Ok(1));
        assert_eq!(fixture.store().ack(id.clone()), Ok(0));
    }
    assert_eq!(fixture.waiting(), []);
}

#[test]
fn only_what_has_not_begun_is_discarded() {
    let mut fixture = Fixture::new();
    let (received, running, ended) =
        (attempt("t1", "a1"), fixture.running("t2"), fixture.running("t3"));
    fixture.store().receive(receipt(&received)).expect("stored");
    fixture.finish(&ended);
    let all = vec![received.clone(), running.clone(), ended.clone()];
    let replies = fixture.store().transact(vec![Command::Discard(all)]).expect("stored");
    let [Reply::Discarded(gone)] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(gone, std::slice::from_ref(&received));
    assert_eq!(fixture.status(&received), None);
    assert_eq!(fixture.status(&running), Some(Status::Running));
    assert_eq!(fixture.status(&ended), Some(Status::Final(Outcome::Completed)));
}

#[test]
fn ids_that_look_alike_when_joined_are_different() {
    let mut fixture = Fixture::new();
    let (one, two) = (attempt("task-1", "x"), attempt("task", "1-x"));
    for attempt in [&one, &two] {
        fixture.store().receive(receipt(attempt)).expect("stored");
        fixture.store().start(attempt.clone(), AT).expect("stored");
    }
    fixture.restart();
    let ids: Vec<_> = fixture.waiting().into_iter().map(|message| message.message_id).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(fixture.store().ack(ids[0].clone()), Ok(1));
    assert_eq!(fixture.waiting().len(), 1);
}

/// A store of 256 KiB with room for a few results of 8 KiB.
fn small() -> Fixture {
    Fixture::with(|config| {
        config.spool_cap_bytes = 256 << 10;
        config.terminal_reserve_bytes = 8 << 10;
        config.finished_max = 4;
    })
}

#[test]
fn the_oldest_output_is_given_up_first_and_said_to_be() {
    let mut fixture = small();
    let attempt = fixture.running("t");
    for sequence in 1..=100 {
        assert!(matches!(
            fixture.write(&attempt, sequence, &[7; 4096]),
            Appended::Stored { row } if row > 0
        ));
    }
    let kept = fixture.numbers();
    let first = kept[0];
    assert!(first > 20, "{first}");
    assert_eq!(kept, (first..=100).collect::<Vec<_>>());
    let waiting = fixture.waiting();
    let MessageBody::Output { lost_before, .. } = &waiting[0].body else { panic!("output") };
    assert_eq!(*lost_before, Some(Range { from: 1, to: first - 1 }), "one run");
    let snapshot = fixture.store().snapshot().expect("it reads");
    assert!(snapshot.spool.has_rotated_chunks);
    let [output] = &snapshot.output[..] else { panic!("{:?}", snapshot.output) };
    assert_eq!((output.range.from, output.range.to), (first, 100));
    assert!(output.truncated_locally);
    assert_eq!(fixture.status(&attempt), Some(Status::Running), "a rotation lowers nothing");
    let stored = fixture.finish(&attempt);
    assert!(stored.result.output_truncated && !stored.result.error_truncated);
}

#[test]
fn giving_up_output_of_an_ended_attempt_leaves_it_ended() {
    let mut fixture = small();
    let ended = fixture.running("ended");
    fixture.write(&ended, 1, &[1; 4096]);
    let stored = fixture.finish(&ended);
    fixture.store().ack(stored.message_id).expect("acknowledged");
    let other = fixture.running("other");
    for sequence in 1..=100 {
        fixture.write(&other, sequence, &[7; 4096]);
    }
    assert_eq!(fixture.status(&ended), Some(Status::Final(Outcome::Completed)));
    assert_eq!(fixture.restart().interrupted, [other]);
}

#[test]
fn the_end_of_a_stream_that_is_given_up_is_listed_until_it_is_acknowledged() {
    let mut fixture = small();
    let ended = fixture.running("ended");
    for sequence in 1..=3 {
        fixture.write(&ended, sequence, &[1; 4096]);
    }
    fixture.finish(&ended);
    let other = fixture.running("other");
    for sequence in 1..=100 {
        fixture.write(&other, sequence, &[7; 4096]);
    }
    let kept = fixture.store().snapshot().expect("it reads").output;
    let tail = kept.iter().find(|it| it.attempt == ended).expect("the last piece goes last");
    assert_eq!(tail.range, Range { from: 3, to: 3 });
    assert!(tail.truncated_locally, "it declares what is lost before it");
    assert_eq!(fixture.store().snapshot().expect("it reads").lost, []);
    fixture.finish(&other);
    // Until there are only last pieces.
    for nth in 0..100 {
        let attempt = fixture.running(&format!("small-{nth}"));
        fixture.write(&attempt, 1, &[7; 4096]);
        let stored = fixture.finish(&attempt);
        fixture.store().ack(stored.message_id).expect("acknowledged");
    }
    let lost = fixture.store().snapshot().expect("it reads").lost;
    assert_eq!((&lost[0].attempt, lost[0].range), (&ended, Range { from: 1, to: 3 }));
    let (stream, through) = (OutputStream::Stdout, 3);
    let ack = Command::AckOutput { attempt: ended.clone(), stream, through };
    fixture.store().transact(vec![ack]).expect("acknowledged");
    let lost = fixture.store().snapshot().expect("it reads").lost;
    assert!(lost.iter().all(|end| end.attempt != ended));
}

#[test]
fn a_known_attempt_is_answered_when_there_is_no_room_for_a_new_one() {
    let mut fixture = small();
    let known = attempt("known", "a1");
    fixture.store().receive(receipt(&known)).expect("stored");
    let refused = (0..100).find(|n| {
        let attempt = attempt(&format!("t{n}"), "a1");
        fixture.store().receive(receipt(&attempt)) == Ok(Received::NoRoom)
    });
    assert!(refused.is_some_and(|n| n > 3), "{refused:?}");
    let again = fixture.store().receive(receipt(&known));
    assert!(matches!(again, Ok(Received::Known(known)) if known.status == Status::Received));
}

#[test]
fn a_result_always_fits() {
    let mut fixture = small();
    let mut attempts = Vec::new();
    for n in 0.. {
        let attempt = attempt(&format!("t{n}"), "a1");
        match fixture.store().receive(receipt(&attempt)).expect("stored") {
            Received::New => attempts.push(attempt),
            _ => break,
        }
    }
    for attempt in &attempts {
        fixture.store().start(attempt.clone(), AT).expect("stored");
    }
    let first = attempts[0].clone();
    for sequence in 1..=100 {
        fixture.write(&first, sequence, &[7; 4096]);
    }
    for attempt in &attempts {
        let long = Finish { error: "é".repeat(1 << 20), ..end(attempt) };
        let stored = fixture.store().finish(long).expect("it fits");
        assert!(stored.result.error.len() <= 4 << 10);
        assert!(fixture.disk_bytes() <= 256 << 10);
    }
}

#[test]
fn a_piece_that_is_larger_than_the_store_is_lost_and_said_to_be() {
    let mut fixture = small();
    let attempt = fixture.running("t");
    assert_eq!(fixture.write(&attempt, 1, &[7; 300 << 10]), Appended::TooLarge);
    assert!(matches!(fixture.write(&attempt, 2, b"small"), Appended::Stored { .. }));
    let waiting = fixture.waiting();
    let MessageBody::Output { chunk, lost_before } = &waiting[0].body else { panic!("output") };
    assert_eq!((chunk.sequence, *lost_before), (2, Some(Range { from: 1, to: 1 })));
}

#[test]
fn a_message_that_nobody_takes_is_passed_over() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    for sequence in 1..=3 {
        fixture.write(&attempt, sequence, b"x");
    }
    let poison = fixture.waiting()[1].message_id.clone();
    fixture.store().transact(vec![Command::Quarantine(poison)]).expect("stored");
    assert_eq!(fixture.numbers(), [1, 3]);
    let MessageBody::Output { lost_before, .. } = fixture.waiting()[1].body.clone() else {
        panic!("output")
    };
    assert_eq!(lost_before, Some(Range { from: 2, to: 2 }));
    assert!(fixture.finish(&attempt).result.output_truncated);
}

#[test]
fn neighbours_are_one_hole_in_whatever_order_they_are_given_up() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3], [1, 3, 2], [3, 1, 2]] {
        let mut fixture = Fixture::new();
        let attempt = fixture.running("t");
        for sequence in 1..=4 {
            fixture.write(&attempt, sequence, b"x");
        }
        let ids: Vec<_> = fixture.waiting().into_iter().map(|it| it.message_id).collect();
        for sequence in order {
            let poison = Command::Quarantine(ids[sequence - 1].clone());
            fixture.store().transact(vec![poison]).expect("stored");
        }
        let waiting = fixture.waiting();
        let MessageBody::Output { lost_before, .. } = &waiting[0].body else { panic!("output") };
        assert_eq!(*lost_before, Some(Range { from: 1, to: 3 }), "given up in the order {order:?}");
    }
}

#[test]
fn finished_attempts_are_remembered_up_to_a_number() {
    let mut fixture = small();
    let attempts: Vec<_> = (0..8).map(|n| fixture.running(&format!("t{n}"))).collect();
    for attempt in &attempts {
        let stored = fixture.finish(attempt);
        fixture.store().ack(stored.message_id).expect("acknowledged");
    }
    let known: Vec<bool> = attempts.iter().map(|it| fixture.status(it).is_some()).collect();
    assert_eq!(known, [false, false, false, false, true, true, true, true]);
}

#[test]
fn a_snapshot_is_cut_at_its_end_and_says_so() {
    let mut fixture = Fixture::new();
    for n in 0..3 {
        let attempt = fixture.running(&format!("t{n}"));
        fixture.write(&attempt, 1, b"x");
        fixture.finish(&attempt);
    }
    let running = fixture.running("running");
    let snapshot = |fixture: &mut Fixture, finals_max, ranges_max| {
        let command = Command::Snapshot { finals_max, ranges_max };
        let replies = fixture.store().transact(vec![command]).expect("it reads");
        let [Reply::Snapshot(snapshot)] = &replies[..] else { panic!("{replies:?}") };
        snapshot.clone()
    };
    let whole = snapshot(&mut fixture, 3, 3);
    assert!(whole.complete);
    assert_eq!((whole.finals.len(), whole.output.len()), (3, 3));
    let cut = snapshot(&mut fixture, 2, 1);
    assert!(!cut.complete);
    assert_eq!(cut.finals, whole.finals[..2]);
    assert_eq!(cut.output, whole.output[..1]);
    assert_eq!(cut.running.len(), 1, "what runs is never cut");
    assert_eq!(cut.running[0].attempt, running);
}

#[test]
fn files_that_are_not_the_stores_are_refused_and_left_alone() {
    let mut fixture = Fixture::new();
    let path = fixture.config.path.clone();
    let error = SqliteTaskStore::open(fixture.config.clone()).expect_err("it is in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    fixture.store = None;
    let open = |bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).expect("a file");
        }
        SqliteTaskStore::open(TaskStoreConfig::new(&path)).map(|_| ())
    };
    {
        let connection = rusqlite::Connection::open(&path).expect("it opens");
        connection.pragma_update(None, "user_version", 99).expect("a version");
    }
    let error = open(None).expect_err("it is from a newer version");
    assert!(matches!(error, OpenError::TooNew { found: 99, .. }), "{error:?}");
    let text = b"this is no database, and it is long enough to be looked at by whoever opens it";
    let error = open(Some(text)).expect_err("it is a text");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read(&path).expect("a file"), text);
}

/// Drives a spool far over its cap, and looks at the files after every transaction.
fn flood(cap: u64, pieces: u64) {
    let mut fixture = Fixture::with(|config| {
        config.spool_cap_bytes = cap;
        config.terminal_reserve_bytes = cap / 64;
    });
    let attempt = fixture.running("t");
    let mut most = 0;
    for batch in 0..pieces / 64 {
        let batch = (1..=64).map(|n| {
            Command::Append(piece(&attempt, OutputStream::Stdout, batch * 64 + n, &[7; 256]))
        });
        let replies = fixture.store().transact(batch.collect()).expect("stored");
        assert!(replies.iter().all(|reply| {
            matches!(reply, Reply::Appended(Appended::Stored { row }) if *row > 0)
        }));
        most = most.max(fixture.disk_bytes());
        assert!(most <= cap, "{most} of {cap} bytes");
    }
    assert!(most > cap / 2, "the cap is used: {most} of {cap} bytes");
}

#[test]
fn the_files_stay_under_the_cap() {
    flood(4 << 20, 60_000);
}

#[test]
#[ignore = "takes minutes on a slow disk"]
fn the_files_stay_under_the_cap_of_the_specification() {
    flood(64 << 20, 1_000_000);
}

#[test]
fn what_a_killed_life_left_in_the_log_takes_no_room_of_the_next() {
    let cap = 256 << 10;
    let small = |config: &mut TaskStoreConfig| {
        config.spool_cap_bytes = cap;
        config.terminal_reserve_bytes = 4 << 10;
    };
    let mut fixture = Fixture::with(small);
    let mut attempts = ["t1", "t2", "t3"].map(|task| (fixture.running(task), 0));
    let mut most = 0;
    for turn in 0..100 {
        let (attempt, sequence) = &mut attempts[turn / 2 % 3];
        // What was flushed, then what came meanwhile.
        let pieces = (0..[8, 1][turn % 2]).map(|_| {
            *sequence += 1;
            Command::Append(piece(attempt, OutputStream::Stdout, *sequence, &[7; 1_000]))
        });
        let pieces = pieces.collect();
        fixture.store().transact(pieces).expect("stored");
        // Both files as they are, and the next life on them.
        let next = Fixture::with(|config| {
            small(config);
            for file in ["tasks.db", "tasks.db-wal"] {
                let from = fixture.folder.path().join(file);
                std::fs::copy(from, config.path.with_file_name(file)).expect("copied");
            }
        });
        most = most.max(next.disk_bytes());
        assert!(most <= cap, "{most} of {cap} bytes in turn {turn}");
    }
    assert!(most > cap / 2, "the cap is used: {most} of {cap} bytes");
}

#[test]
fn what_is_acknowledged_at_once_takes_no_more_room_than_there_is() {
    let cap = 256 << 10;
    for (bytes, rows) in [(16, 400), (200, 90), (1_000, 20), (4_000, 5)] {
        let mut fixture = Fixture::with(|config| {
            config.spool_cap_bytes = cap;
            config.terminal_reserve_bytes = 4 << 10;
        });
        // Output of several attempts, one piece of each after the other.
        let attempts = ["t1", "t2", "t3", "t4"].map(|task| fixture.running(task));
        for sequence in 1..=rows {
            for attempt in &attempts {
                fixture.write(attempt, sequence, &vec![7; bytes]);
            }
        }
        let mut ids = Vec::new();
        for attempt in &attempts {
            let [Reply::Finished(stored)] = &fixture
                .store()
                .transact(vec![Command::Finish(end(attempt))])
                .expect("it ends")[..]
            else {
                panic!("an end is answered as one")
            };
            ids.push(stored.message_id.clone());
        }
        // All of it is acknowledged in one answer.
        let stream = OutputStream::Stdout;
        let ids = ids.into_iter().map(Command::Ack);
        let output = attempts.iter().map(|it| Command::AckOutput {
            attempt: it.clone(),
            stream,
            through: rows,
        });
        let replies = fixture.store().transact(ids.chain(output).collect()).expect("released");
        let released = replies.iter().map(|reply| match reply {
            Reply::Released(count) => *count,
            other => panic!("{other:?}"),
        });
        let expected = [[1; 4], [rows; 4]].concat();
        assert_eq!(released.collect::<Vec<_>>(), expected, "{rows} pieces of {bytes} bytes");
        // A quarter of the cap is for the log.
        let log = fixture.folder.path().join("tasks.db-wal");
        let log = std::fs::metadata(log).expect("there is a log").len();
        assert!(log <= cap / 4, "{log} of {} bytes, for {rows} pieces of {bytes}", cap / 4);
    }
}

#[test]
fn the_file_shrinks_when_its_output_is_acknowledged() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    for sequence in 1..=3_000 {
        fixture.write(&attempt, sequence, &[7; 4096]);
    }
    let full = fixture.disk_bytes();
    let stream = OutputStream::Stdout;
    let ack = |through| Command::AckOutput { attempt: attempt.clone(), stream, through };
    for through in 1..=3_000 {
        fixture.store().transact(vec![ack(through)]).expect("acknowledged");
    }
    for _ in 0..100 {
        fixture.store().transact(vec![ack(3_000)]).expect("acknowledged");
    }
    assert!(fixture.disk_bytes() * 2 < full, "{} of {full} bytes", fixture.disk_bytes());
}
