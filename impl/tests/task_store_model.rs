//! The store of a task agent against a model that is too simple to be wrong, and against `kill -9`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use bytes::Bytes;
use gapless::database::Synchronous;
use gapless::recovery::{Epoch, WallTime};
use gapless::storage::Transact as _;
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::store::{
    Append, Appended, Command, Finish, Message, MessageBody, Receipt, ReceiptStore as _, Received,
    RecoveryStore as _, Reply, ResultOutbox as _, Started,
};
use gapless::tasks::{Attempt, AttemptId, Outcome, OutputStream, Range, Status, TaskId};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

const AT: WallTime = WallTime::from_millis(1_000_000);

fn attempt(name: &str) -> Attempt {
    Attempt {
        task: TaskId::parse(name).expect("valid"),
        id: AttemptId::parse("a1").expect("valid"),
    }
}

fn receipt(attempt: &Attempt) -> Receipt {
    Receipt { attempt: attempt.clone(), command: "x".to_owned(), priority: 0, at: AT }
}

fn finish(attempt: &Attempt) -> Finish {
    Finish {
        attempt: attempt.clone(),
        outcome: Outcome::Completed,
        exit_code: 0,
        error: String::new(),
        truncated: vec![],
    }
}

fn epoch(number: u64) -> Epoch {
    Epoch::parse(&format!("{number:032x}")).expect("valid")
}

mod model {
    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Receive(usize),
        Start(usize),
        Append { who: usize, stream: usize, bytes: usize },
        Again { who: usize, stream: usize },
        Finish(usize),
        Discard(usize),
        Ack(usize),
        AckOutput { who: usize, stream: usize, behind: u64 },
        Quarantine(usize),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let who = 0_usize..4;
        prop_oneof![
            2 => who.clone().prop_map(Step::Receive),
            3 => who.clone().prop_map(Step::Start),
            8 => (who.clone(), 0_usize..2, 1_usize..6_000)
                .prop_map(|(who, stream, bytes)| Step::Append { who, stream, bytes }),
            1 => (who.clone(), 0_usize..2).prop_map(|(who, stream)| Step::Again { who, stream }),
            1 => who.clone().prop_map(Step::Finish),
            1 => who.clone().prop_map(Step::Discard),
            3 => (0_usize..20).prop_map(Step::Ack),
            1 => (who, 0_usize..2, 0_u64..4)
                .prop_map(|(who, stream, behind)| Step::AckOutput { who, stream, behind }),
            1 => (0_usize..20).prop_map(Step::Quarantine),
            1 => Just(Step::Restart),
        ]
    }

    #[derive(Debug, Clone, Default)]
    struct Model {
        /// 0 received, 1 running, 2 completed, 3 interrupted.
        status: BTreeMap<usize, u8>,
        last: BTreeMap<(usize, usize), u64>,
        truncated: BTreeMap<(usize, usize), bool>,
        /// What of it was known when the attempt ended: what its result says.
        said: BTreeMap<(usize, usize), bool>,
        /// In the order of the store: who, the stream (2 = the result), and the number.
        waiting: Vec<(usize, usize, u64)>,
        lost: BTreeMap<(usize, usize), Vec<u64>>,
    }

    impl Model {
        fn lose(&mut self, who: usize, stream: usize, sequence: u64) {
            self.lost.entry((who, stream)).or_default().push(sequence);
            self.truncated.insert((who, stream), true);
        }

        fn end(&mut self, who: usize, status: u8) {
            self.status.insert(who, status);
            for stream in 0..2 {
                if self.truncated.contains_key(&(who, stream)) {
                    self.said.insert((who, stream), true);
                }
            }
        }

        /// Runs of lost numbers that end below a number are not spoken of any more.
        fn forget_lost(&mut self, who: usize, stream: usize, through: u64) {
            let Some(lost) = self.lost.get_mut(&(who, stream)) else { return };
            let all = lost.clone();
            lost.retain(|sequence| (*sequence..).find(|it| !all.contains(it)) > Some(through + 1));
        }

        /// The run of lost numbers right before a number.
        fn lost_before(&self, who: usize, stream: usize, sequence: u64) -> Option<Range> {
            let lost = self.lost.get(&(who, stream))?;
            let mut from = sequence;
            while lost.contains(&(from - 1)) {
                from -= 1;
            }
            (from < sequence).then(|| Range { from, to: sequence - 1 })
        }
    }

    fn name(who: usize) -> Attempt {
        attempt(&format!("task-{who}"))
    }

    fn data(sequence: u64, bytes: usize) -> Bytes {
        vec![sequence as u8; bytes].into()
    }

    struct Test {
        model: Model,
        config: TaskStoreConfig,
        store: Option<SqliteTaskStore>,
        sizes: BTreeMap<(usize, usize, u64), usize>,
        lives: u64,
        folder: tempfile::TempDir,
    }

    impl Test {
        fn new(cap: u64) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let mut config = TaskStoreConfig::new(folder.path().join("tasks.db"));
            config.synchronous = Synchronous::Normal;
            config.spool_cap_bytes = cap;
            config.terminal_reserve_bytes = 8 << 10;
            let (model, sizes) = Default::default();
            let mut test = Self { model, config, store: None, sizes, lives: 0, folder };
            test.restart();
            test
        }

        fn store(&mut self) -> &mut SqliteTaskStore {
            self.store.as_mut().expect("it is open")
        }

        fn restart(&mut self) {
            self.store = None;
            self.store = Some(SqliteTaskStore::open(self.config.clone()).expect("it opens"));
            self.lives += 1;
            let epoch = epoch(self.lives);
            let recovered = self.store().recover(epoch, AT).expect("a life begins");
            let running: Vec<usize> =
                self.model.status.iter().filter(|(_, it)| **it == 1).map(|(who, _)| *who).collect();
            let mut interrupted: Vec<Attempt> = running.iter().map(|who| name(*who)).collect();
            let mut said = recovered.interrupted;
            interrupted.sort();
            said.sort();
            assert_eq!(said, interrupted);
            // The order in which they were received is the order of their results.
            for message in self.waiting().iter().rev().take(running.len()).rev() {
                let MessageBody::Final(result) = &message.body else { panic!("{message:?}") };
                let who = running.iter().find(|who| name(**who) == result.attempt);
                let who = *who.expect("it was running");
                self.model.end(who, 3);
                self.model.waiting.push((who, 2, 0));
            }
        }

        fn waiting(&mut self) -> Vec<Message> {
            self.store().unacked(0, usize::MAX).expect("it reads")
        }

        fn step(&mut self, step: &Step) {
            match *step {
                Step::Receive(who) => {
                    let received = self.store().receive(receipt(&name(who))).expect("stored");
                    match self.model.status.get(&who) {
                        Some(_) => assert!(matches!(received, Received::Known(_))),
                        None if received == Received::NoRoom => {}
                        None => {
                            assert_eq!(received, Received::New);
                            self.model.status.insert(who, 0);
                        }
                    }
                }
                Step::Start(who) => {
                    let started = self.store().start(name(who), AT).expect("stored");
                    let expected = match self.model.status.get(&who) {
                        None => Started::Unknown,
                        Some(0) => Started::Now,
                        Some(1) => Started::Before,
                        Some(_) => Started::Ended,
                    };
                    assert_eq!(started, expected);
                    if started == Started::Now {
                        self.model.status.insert(who, 1);
                    }
                }
                Step::Append { who, stream, bytes } => {
                    let last = self.model.last.get(&(who, stream)).copied().unwrap_or(0);
                    let appended = self.append(who, stream, last + 1, bytes);
                    if self.model.status.get(&who) != Some(&1) {
                        assert_eq!(appended, Appended::NotRunning);
                        return;
                    }
                    self.model.last.insert((who, stream), last + 1);
                    self.sizes.insert((who, stream, last + 1), bytes);
                    match appended {
                        Appended::Stored { row } => {
                            assert!(row > 0);
                            self.model.waiting.push((who, stream, last + 1));
                        }
                        Appended::TooLarge => self.model.lose(who, stream, last + 1),
                        other => panic!("{other:?}"),
                    }
                }
                Step::Again { who, stream } => {
                    let last = self.model.last.get(&(who, stream)).copied().unwrap_or(0);
                    if last > 0 {
                        let bytes = self.sizes[&(who, stream, last)];
                        let appended = self.append(who, stream, last, bytes);
                        assert!(matches!(appended, Appended::Stored { .. }), "{appended:?}");
                    }
                }
                Step::Finish(who) => {
                    if !self.model.status.contains_key(&who) {
                        return;
                    }
                    let stored = self.store().finish(finish(&name(who))).expect("stored");
                    if self.model.status[&who] < 2 {
                        self.model.end(who, 2);
                        self.model.waiting.push((who, 2, 0));
                    }
                    let interrupted = self.model.status[&who] == 3;
                    assert_eq!(stored.result.outcome == Outcome::Interrupted, interrupted);
                }
                Step::Discard(who) => {
                    let command = Command::Discard(vec![name(who)]);
                    let replies = self.store().transact(vec![command]).expect("stored");
                    let [Reply::Discarded(gone)] = &replies[..] else { panic!("{replies:?}") };
                    let discarded = self.model.status.get(&who).is_none_or(|it| *it == 0);
                    assert_eq!(gone.len(), usize::from(discarded));
                    if discarded {
                        self.model.status.remove(&who);
                    }
                }
                Step::Ack(index) | Step::Quarantine(index) => {
                    let waiting = self.waiting();
                    self.take_rotated(&waiting);
                    if waiting.is_empty() {
                        return;
                    }
                    let index = index % waiting.len();
                    let id = waiting[index].message_id.clone();
                    let (who, stream, sequence) = self.model.waiting.remove(index);
                    let command = match step {
                        Step::Ack(_) => Command::Ack(id),
                        _ => {
                            if stream < 2 {
                                self.model.lose(who, stream, sequence);
                            }
                            Command::Quarantine(id)
                        }
                    };
                    let replies = self.store().transact(vec![command]).expect("stored");
                    assert!(matches!(replies[..], [Reply::Released(1)]), "{replies:?}");
                }
                Step::AckOutput { who, stream, behind } => {
                    let last = self.model.last.get(&(who, stream)).copied().unwrap_or(0);
                    let through = last.saturating_sub(behind);
                    let command = Command::AckOutput {
                        attempt: name(who),
                        stream: OutputStream::ALL[stream],
                        through,
                    };
                    self.store().transact(vec![command]).expect("stored");
                    self.model.waiting.retain(|(of, at, sequence)| {
                        (*of, *at) != (who, stream) || *sequence > through
                    });
                    self.model.forget_lost(who, stream, through);
                }
                Step::Restart => {
                    let waiting = self.waiting();
                    self.take_rotated(&waiting);
                    self.restart();
                }
            }
        }

        fn append(&mut self, who: usize, stream: usize, sequence: u64, bytes: usize) -> Appended {
            let (attempt, stream) = (name(who), OutputStream::ALL[stream]);
            let data = data(sequence, bytes);
            self.store().append(Append { attempt, stream, sequence, data }).expect("stored")
        }

        /// What the store has given up, oldest output first, is lost in the model, too.
        fn take_rotated(&mut self, waiting: &[Message]) {
            let mut kept: Vec<(usize, usize, u64)> = Vec::new();
            for message in waiting {
                let (attempt, stream, sequence) = match &message.body {
                    MessageBody::Output { chunk, .. } => {
                        let stream = OutputStream::ALL.iter().position(|it| *it == chunk.stream);
                        (&chunk.attempt, stream.expect("one of two"), chunk.sequence)
                    }
                    MessageBody::Final(result) => (&result.attempt, 2, 0),
                };
                let who = (0..4).find(|who| name(*who) == *attempt).expect("one of four");
                kept.push((who, stream, sequence));
            }
            let output = |list: &[(usize, usize, u64)]| -> Vec<(usize, usize, u64)> {
                list.iter().filter(|(_, stream, _)| *stream < 2).copied().collect()
            };
            let (before, after) = (output(&self.model.waiting), output(&kept));
            assert!(before.ends_with(&after), "the oldest go first: {before:?} {after:?}");
            for (who, stream, sequence) in &before[..before.len() - after.len()] {
                self.model.lose(*who, *stream, *sequence);
            }
            let gone = &before[..before.len() - after.len()];
            self.model.waiting.retain(|it| !gone.contains(it));
            assert_eq!(self.model.waiting, kept, "the order is the store's");
        }

        fn check(&mut self) {
            let waiting = self.waiting();
            self.take_rotated(&waiting);
            for (message, (who, stream, sequence)) in waiting.iter().zip(&self.model.waiting) {
                match &message.body {
                    MessageBody::Output { chunk, lost_before } => {
                        let bytes = self.sizes[&(*who, *stream, *sequence)];
                        assert_eq!(chunk.data, data(*sequence, bytes));
                        let lost = self.model.lost_before(*who, *stream, *sequence);
                        assert_eq!(*lost_before, lost);
                    }
                    MessageBody::Final(result) => {
                        let last = |stream| self.model.last.get(&(*who, stream)).copied();
                        let said = result.last_output.clone().expect("it says");
                        for (index, stream) in OutputStream::ALL.into_iter().enumerate() {
                            assert_eq!(said[&stream], last(index).unwrap_or(0));
                        }
                        let cut = |stream| self.model.said.contains_key(&(*who, stream));
                        assert_eq!(result.output_truncated, cut(0));
                        assert_eq!(result.error_truncated, cut(1));
                    }
                }
            }
            for who in 0..4 {
                let command = Command::Find(name(who));
                let replies = self.store().transact(vec![command]).expect("it reads");
                let [Reply::Found(known)] = &replies[..] else { panic!("{replies:?}") };
                let expected = self.model.status.get(&who).map(|status| match status {
                    0 => Status::Received,
                    1 => Status::Running,
                    2 => Status::Final(Outcome::Completed),
                    _ => Status::Final(Outcome::Interrupted),
                });
                assert_eq!(known.as_ref().map(|known| known.status), expected);
            }
            let files = std::fs::read_dir(self.folder.path()).expect("a folder");
            let bytes: u64 =
                files.map(|file| file.and_then(|it| it.metadata()).map_or(0, |it| it.len())).sum();
            assert!(bytes <= self.config.spool_cap_bytes, "{bytes} bytes");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 96, failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn a_roomy_store_keeps_everything(steps in prop::collection::vec(step(), 1..60)) {
            let mut test = Test::new(16 << 20);
            for step in &steps {
                test.step(step);
                test.check();
            }
            let truncated = !test.model.truncated.is_empty();
            let spool = test.store().spool().expect("it reads");
            prop_assert_eq!(spool.has_rotated_chunks, truncated);
        }

        #[test]
        fn a_small_store_gives_up_the_oldest_output_and_nothing_else(
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let mut test = Test::new(192 << 10);
            for step in &steps {
                test.step(step);
                test.check();
            }
        }
    }
}

/// A process that writes what it has stored, line by line, until it is killed.
#[test]
#[ignore = "it is the process that the other test kills"]
fn a_process_that_stores() {
    let Ok(path) = std::env::var("GAPLESS_STORE") else { return };
    let life: u64 = std::env::var("GAPLESS_LIFE").expect("a number").parse().expect("a number");
    let mut store = SqliteTaskStore::open(TaskStoreConfig::new(path)).expect("it opens");
    store.recover(epoch(life), AT).expect("a life begins");
    let mut out = std::io::stdout().lock();
    let mut say = |text: String| {
        writeln!(out, "stored {text}").and_then(|()| out.flush()).expect("somebody reads");
    };
    for n in 0.. {
        let attempt = attempt(&format!("t{life}-{n}"));
        store.receive(receipt(&attempt)).expect("stored");
        say(format!("received {}", attempt.task));
        store.start(attempt.clone(), AT).expect("stored");
        say(format!("started {}", attempt.task));
        for sequence in 1..=5_u64 {
            let (attempt, data) = (attempt.clone(), vec![sequence as u8; 500].into());
            let stream = OutputStream::Stdout;
            let piece = Append { attempt, stream, sequence, data };
            store.append(piece).expect("stored");
            say(format!("appended t{life}-{n} {sequence}"));
        }
        store.finish(finish(&attempt)).expect("stored");
        say(format!("finished {}", attempt.task));
    }
}

#[derive(Debug, Default, Clone)]
struct Acknowledged {
    started: bool,
    last: u64,
    finished: bool,
}

#[test]
fn what_a_killed_process_had_stored_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tasks.db");
    let mut rng = ChaCha12Rng::seed_from_u64(7);
    let mut seen = 0;
    for life in 1..=200 {
        let lines = killed(&path, life, Duration::from_millis(rng.random_range(2..25)));
        seen += lines.len();
        let mut acknowledged: BTreeMap<String, Acknowledged> = BTreeMap::new();
        for line in &lines {
            let words: Vec<&str> = line.split(' ').collect();
            let known = acknowledged.entry(words[2].to_owned()).or_default();
            match words[1] {
                "received" => {}
                "started" => known.started = true,
                "appended" => known.last = words[3].parse().expect("a number"),
                "finished" => known.finished = true,
                other => panic!("{other}"),
            }
        }
        check_killed(&path, &acknowledged);
    }
    assert!(seen > 1_000, "{seen} operations in all");
}

/// Lets a process store things, and kills it. What it said in whole lines comes back.
fn killed(path: &Path, life: u64, after: Duration) -> Vec<String> {
    let mut child = Process::new(std::env::current_exe().expect("a test"))
        .args(["--exact", "a_process_that_stores", "--ignored", "--nocapture"])
        .env("GAPLESS_STORE", path)
        .env("GAPLESS_LIFE", life.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut text = String::new();
    // From its first word on, so that it is killed at work.
    while !text.contains("stored ") && reader.read_line(&mut text).expect("it says something") > 0 {
    }
    #[expect(clippy::disallowed_methods, reason = "a real process works meanwhile")]
    std::thread::sleep(after);
    child.kill().expect("it runs");
    std::io::Read::read_to_string(&mut reader, &mut text).expect("text");
    child.wait().expect("it ended");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| line.find("stored ").map(|at| line[at..].to_owned())).collect()
}

fn check_killed(path: &Path, acknowledged: &BTreeMap<String, Acknowledged>) {
    let mut store = SqliteTaskStore::open(TaskStoreConfig::new(path)).expect("it opens");
    let waiting = store.unacked(0, usize::MAX).expect("it reads");
    let numbers = |task: &str| -> Vec<u64> {
        let of = |message: &Message| match &message.body {
            MessageBody::Output { chunk, .. } if chunk.attempt.task.as_str() == task => {
                assert_eq!(chunk.data, vec![chunk.sequence as u8; 500]);
                Some(chunk.sequence)
            }
            _ => None,
        };
        waiting.iter().filter_map(of).collect()
    };
    for (task, known) in acknowledged {
        let replies = store.transact(vec![Command::Find(attempt(task))]).expect("it reads");
        let [Reply::Found(Some(found))] = &replies[..] else { panic!("{task}: {replies:?}") };
        match (known.started, known.finished) {
            (_, true) => assert_eq!(found.status, Status::Final(Outcome::Completed), "{task}"),
            (true, false) => assert_ne!(found.status, Status::Received, "{task}"),
            (false, false) => {}
        }
        let numbers = numbers(task);
        let last = numbers.len() as u64;
        assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "{task}");
        assert!(last >= known.last, "{task}: {last} of {}", known.last);
    }
    let acks = waiting.iter().map(|message| Command::Ack(message.message_id.clone())).collect();
    store.transact(acks).expect("stored");
}
