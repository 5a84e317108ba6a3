//! The record of a task controller: what it accepts, and what it makes of a hello.

use bytes::Bytes;
use gapless::AgentId;
use gapless::database::{OpenError, Synchronous};
use gapless::recovery::{Epoch, MAX_SEQUENCE, WallTime};
use gapless::storage::Transact as _;
use gapless::tasks::controller::record::{
    Agreement, AttemptState, COMMAND_CHARS, Cancelled, Command, FinalTaken, Listing, OutputTaken,
    Reconciled, Reply, Submission, Submitted, TaskPage, TaskView,
};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::wire::{
    Final, Hello, LostOutput, Output, ReceivedAttempt, RunningAttempt, SpoolStatus, StoreLife,
    UnackedOutput,
};
use gapless::tasks::{Attempt, AttemptId, MessageId, Outcome, OutputStream, Range, TaskId};
use proptest::prelude::*;

const AT: WallTime = WallTime::from_millis(1_000_000);

fn task(name: &str) -> TaskId {
    TaskId::parse(name).expect("valid")
}

fn attempt(name: &str, id: &str) -> Attempt {
    Attempt { task: task(name), id: AttemptId::parse(id).expect("valid") }
}

fn agent(n: u32) -> AgentId {
    AgentId::parse(&format!("agent-{n}")).expect("valid")
}

fn message(text: &str) -> MessageId {
    MessageId::parse(text).expect("valid")
}

fn result(attempt: &Attempt, exit_code: i64) -> Final {
    Final {
        attempt: attempt.clone(),
        outcome: if exit_code == 0 { Outcome::Completed } else { Outcome::Failed },
        exit_code,
        error: String::new(),
        output_truncated: false,
        error_truncated: false,
        last_output: None,
    }
}

/// A piece of an attempt that is known is stored.
fn stored(highest: u64) -> OutputTaken {
    OutputTaken::Stored { highest, unexpected: false }
}

/// A complete hello that names nothing.
fn hello(epoch: &str, predecessor: Option<&str>) -> Hello {
    let parse = |text: &str| Epoch::parse(text).expect("valid");
    Hello {
        running_task: None,
        running_tasks: vec![],
        received_not_started: vec![],
        unacked_finals: vec![],
        unacked_output: vec![],
        lost_output: vec![],
        spool: SpoolStatus::default(),
        client_version: "x".to_owned(),
        store: Some(StoreLife {
            epoch: parse(epoch),
            predecessor: predecessor.map(parse),
            earlier: vec![],
        }),
        complete: true,
    }
}

fn running(attempt: &Attempt) -> RunningAttempt {
    let (attempt, last_output) = (attempt.clone(), Default::default());
    RunningAttempt { attempt, started_at: AT, last_output }
}

fn received(attempt: &Attempt) -> ReceivedAttempt {
    ReceivedAttempt { attempt: attempt.clone(), received_at: AT }
}

struct Fixture {
    _folder: tempfile::TempDir,
    config: RecordConfig,
    record: Option<SqliteRecord>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = RecordConfig::new(folder.path().join("record.db"));
        config.synchronous = Synchronous::Normal;
        config.nonces_max = 4;
        let mut fixture = Self { _folder: folder, config, record: None };
        fixture.reopen();
        fixture
    }

    fn reopen(&mut self) {
        self.record = None;
        self.record = Some(SqliteRecord::open(self.config.clone()).expect("it opens"));
    }

    fn ask(&mut self, command: Command) -> Reply {
        let record = self.record.as_mut().expect("it is open");
        record.transact(vec![command]).expect("it works").remove(0)
    }

    fn submit(&mut self, name: &str) -> Attempt {
        match self.ask(Command::Submit(wish(name, "uptime"))) {
            Reply::Submitted(Submitted::Stored { attempt, .. }) => attempt,
            other => panic!("{other:?}"),
        }
    }

    /// An attempt that agent 1 is known to run.
    fn running(&mut self, name: &str) -> Attempt {
        let attempt = self.submit(name);
        self.progress(&attempt, true);
        attempt
    }

    fn progress(&mut self, attempt: &Attempt, started: bool) -> Option<AttemptState> {
        let (agent, attempt) = (agent(1), attempt.clone());
        match self.ask(Command::Progress { agent, attempt, started }) {
            Reply::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    fn absent(&mut self, attempt: &Attempt) -> Option<AttemptState> {
        match self.ask(Command::Absent { agent: agent(1), attempt: attempt.clone() }) {
            Reply::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    fn delivering(&mut self, attempt: &Attempt) {
        self.ask(Command::Delivering { agent: agent(1), attempt: attempt.clone() });
    }

    fn output(&mut self, attempt: &Attempt, sequence: u64, hole: bool) -> OutputTaken {
        let piece = Output {
            attempt: attempt.clone(),
            stream: OutputStream::Stdout,
            sequence,
            data: Bytes::from(vec![sequence as u8; 3]),
            truncated_locally: hole,
        };
        match self.ask(Command::Output { agent: agent(1), piece }) {
            Reply::OutputTaken(taken) => taken,
            other => panic!("{other:?}"),
        }
    }

    fn finish(&mut self, attempt: &Attempt, id: &str, exit_code: i64) -> FinalTaken {
        let (message_id, result) = (message(id), result(attempt, exit_code));
        match self.ask(Command::Final { agent: agent(1), message_id, result }) {
            Reply::FinalTaken(taken) => taken,
            other => panic!("{other:?}"),
        }
    }

    fn reconcile(&mut self, hello: Hello) -> Reconciled {
        let hello = Box::new(hello);
        match self.ask(Command::Reconcile { agent: agent(1), hello }) {
            Reply::Reconciled(reconciled) => reconciled,
            other => panic!("{other:?}"),
        }
    }

    fn agreed(&mut self, hello: Hello) -> Agreement {
        match self.reconcile(hello) {
            Reconciled::Agreed(agreement) => agreement,
            Reconciled::Forked => panic!("forked"),
        }
    }

    fn confirm(&mut self, epoch: &str) {
        let epoch = Epoch::parse(epoch).expect("valid");
        self.ask(Command::Confirm { agent: agent(1), epoch });
    }

    fn view(&mut self, name: &str) -> TaskView {
        match self.ask(Command::Look(task(name))) {
            Reply::Task(Some(view)) => view,
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self, name: &str) -> AttemptState {
        self.view(name).attempts.last().expect("an attempt").state
    }

    fn deliverable(&mut self) -> Vec<String> {
        self.deliverable_to(true)
    }

    fn deliverable_to(&mut self, again: bool) -> Vec<String> {
        let command = Command::Deliverable { agent: agent(1), again, count_max: 10 };
        let Reply::Deliverable(list) = self.ask(command) else { panic!("a list") };
        list.iter().map(|deliver| deliver.attempt.to_string()).collect()
    }
}

fn wish(name: &str, command: &str) -> Submission {
    Submission {
        task: task(name),
        principal: "somebody".to_owned(),
        agent: agent(1),
        command: command.to_owned(),
        priority: 0,
    }
}

#[test]
fn the_same_wish_is_one_task_and_another_one_under_its_name_is_refused() {
    let mut fixture = Fixture::new();
    let first = fixture.submit("t");
    assert_eq!(fixture.submit("t"), first);
    fixture.reopen();
    assert_eq!(fixture.submit("t"), first);
    let other = fixture.ask(Command::Submit(wish("t", "reboot")));
    assert!(matches!(other, Reply::Submitted(Submitted::Conflict)));
    let mut stranger = wish("t", "uptime");
    stranger.principal = "else".to_owned();
    let other = fixture.ask(Command::Submit(stranger));
    assert!(matches!(other, Reply::Submitted(Submitted::Conflict)));
    assert_eq!(fixture.deliverable(), ["t/a1"]);
}

#[test]
fn there_is_no_second_attempt_before_the_first_has_ended() {
    let mut fixture = Fixture::new();
    let first = fixture.running("t");
    let retry = || Command::Retry { task: task("t"), after: 1 };
    assert!(matches!(fixture.ask(retry()), Reply::Submitted(Submitted::NotEnded)));
    fixture.finish(&first, "f1", 1);
    for new in [true, false] {
        let Reply::Submitted(Submitted::Stored { attempt, new: is_new, .. }) = fixture.ask(retry())
        else {
            panic!("stored")
        };
        assert_eq!((attempt.to_string().as_str(), is_new), ("t/a2", new));
    }
    assert_eq!(fixture.deliverable(), ["t/a2"]);
    let unknown = fixture.ask(Command::Retry { task: task("none"), after: 1 });
    assert!(matches!(unknown, Reply::Submitted(Submitted::Unknown)));
}

#[test]
fn output_is_accepted_in_order_once_and_over_declared_holes() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    assert_eq!(fixture.output(&attempt, 1, false), stored(1));
    assert_eq!(fixture.output(&attempt, 1, false), stored(1));
    assert_eq!(fixture.output(&attempt, 3, false), OutputTaken::Gap { highest: 1 });
    assert_eq!(fixture.output(&attempt, 5, true), stored(5));
    assert_eq!(fixture.output(&attempt, 3, false), stored(5));
    fixture.finish(&attempt, "f", 0);
    assert_eq!(fixture.output(&attempt, 6, false), stored(6));
    assert_eq!(fixture.state("t"), AttemptState::Final, "late output lowers nothing");
    let stream = OutputStream::Stdout;
    let command = Command::ReadOutput { attempt, stream, after: 0, count_max: 10 };
    let Reply::Output(page) = fixture.ask(command) else { panic!("a page") };
    let numbers: Vec<u64> = page.pieces.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(numbers, [1, 5, 6]);
    assert_eq!(page.lost, [Range { from: 2, to: 4 }]);
}

#[test]
fn the_first_result_holds() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    assert_eq!(fixture.finish(&attempt, "f1", 0), FinalTaken::Stored);
    assert_eq!(fixture.finish(&attempt, "f1", 0), FinalTaken::Stored);
    assert_eq!(fixture.finish(&attempt, "f2", 7), FinalTaken::TooLate);
    let view = fixture.view("t");
    assert_eq!(view.attempts[0].result.as_ref().map(|result| result.exit_code), Some(0));
    assert_eq!(fixture.progress(&attempt, false), Some(AttemptState::Final));
}

#[test]
fn what_one_agent_says_of_anothers_attempt_changes_nothing() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    let (other, message_id) = (agent(2), message("f"));
    let result = result(&attempt, 0);
    let taken = fixture.ask(Command::Final { agent: other.clone(), message_id, result });
    assert!(matches!(taken, Reply::FinalTaken(FinalTaken::Foreign)));
    let started = Command::Progress { agent: other, attempt, started: true };
    assert!(matches!(fixture.ask(started), Reply::State(None)));
    assert_eq!(fixture.state("t"), AttemptState::Running);
}

#[test]
fn an_attempt_that_is_not_known_is_taken_over_from_its_agent() {
    let mut fixture = Fixture::new();
    let attempt = attempt("lost", "a3");
    assert_eq!(
        fixture.output(&attempt, 1, false),
        OutputTaken::Stored { highest: 1, unexpected: true }
    );
    assert_eq!(fixture.state("lost"), AttemptState::Running);
    fixture.finish(&attempt, "f", 0);
    let retry = || Command::Retry { task: task("lost"), after: 3 };
    let refused = fixture.ask(retry());
    assert!(matches!(refused, Reply::Submitted(Submitted::NoCommand)), "{refused:?}");
    assert_eq!(fixture.submit("lost"), attempt, "who submits it again is told of the attempt");
    let Reply::Submitted(Submitted::Stored { attempt, .. }) = fixture.ask(retry()) else {
        panic!("the command is known now")
    };
    assert_eq!(attempt.to_string(), "lost/a4");
    assert_eq!(fixture.deliverable(), ["lost/a4"]);
}

#[test]
fn an_attempt_with_any_id_can_be_taken_over_and_tried_again() {
    let mut fixture = Fixture::new();
    for (name, id) in [("t", "a18446744073709551615"), ("u", "x"), ("v", "a9007199254740993")] {
        let attempt = attempt(name, id);
        assert_eq!(
            fixture.output(&attempt, 1, false),
            OutputTaken::Stored { highest: 1, unexpected: true }
        );
        fixture.finish(&attempt, id, 0);
        assert_eq!(fixture.submit(name), attempt);
        let after = fixture.view(name).attempts[0].ordinal;
        let retried = fixture.ask(Command::Retry { task: task(name), after });
        let Reply::Submitted(Submitted::Stored { attempt: second, .. }) = retried else {
            panic!("{retried:?}")
        };
        assert_ne!(second, attempt);
        let again = fixture.ask(Command::Retry { task: task(name), after });
        let Reply::Submitted(Submitted::Stored { attempt, new: false, .. }) = again else {
            panic!("{again:?}")
        };
        assert_eq!(attempt, second, "the same wish gets the same answer");
    }
}

#[test]
fn results_of_a_hello_are_stored_and_acknowledged() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    let mut said = hello("e1", None);
    said.unacked_finals = vec![(message("f"), result(&attempt, 0))];
    said.unacked_output = vec![UnackedOutput {
        attempt,
        stream: OutputStream::Stdout,
        range: Range { from: 1, to: 9 },
        truncated_locally: false,
    }];
    let agreement = fixture.agreed(said);
    assert_eq!(agreement.acknowledged_finals, [message("f")]);
    assert_eq!(agreement.output_replay[0].next_sequence, 1);
    assert_eq!(fixture.state("t"), AttemptState::Final);
}

#[test]
fn what_a_complete_hello_does_not_name_is_asked_about_and_what_was_only_delivered_is_not() {
    let mut fixture = Fixture::new();
    fixture.agreed(hello("e1", None));
    let (lost, kept) = (fixture.running("lost"), fixture.running("kept"));
    let delivered = fixture.submit("delivered");
    fixture.delivering(&delivered);
    let mut base = hello("e1", None);
    base.store = None;
    assert_eq!(fixture.agreed(base).unnamed, [], "it proves nothing");
    let mut whole = hello("e1", None);
    whole.running_tasks = vec![running(&kept)];
    assert_eq!(fixture.agreed(whole).unnamed, std::slice::from_ref(&lost));
    assert_eq!(fixture.state("lost"), AttemptState::Running, "the agent may know how it ended");
    assert_eq!(fixture.absent(&lost), Some(AttemptState::Interrupted));
    assert_eq!(fixture.absent(&delivered), Some(AttemptState::Delivered));
    assert_eq!(fixture.finish(&lost, "f", 0), FinalTaken::TooLate, "the closing holds");
    assert_eq!(fixture.deliverable(), ["delivered/a1"]);
    assert_eq!(fixture.deliverable_to(false), [""; 0], "over HTTP, nobody knows which store asks");
}

#[test]
fn an_agent_that_starts_often_without_a_link_has_the_same_store() {
    let mut fixture = Fixture::new();
    fixture.agreed(hello("e1", None));
    fixture.confirm("e1");
    let attempt = fixture.running("t");
    let mut later = hello("e4", Some("e1"));
    later.running_tasks = vec![running(&attempt)];
    assert_eq!(fixture.agreed(later).interrupted, []);
    // The answer to that was lost, and the agent started again.
    let mut again = hello("e5", Some("e1"));
    again.running_tasks = vec![running(&attempt)];
    assert_eq!(fixture.agreed(again).interrupted, []);
}

#[test]
fn what_was_delivered_to_a_life_that_nobody_confirmed_is_not_delivered_to_the_next() {
    let mut fixture = Fixture::new();
    fixture.agreed(hello("e1", None));
    let delivered = fixture.submit("delivered");
    fixture.delivering(&delivered);
    fixture.submit("pending");
    // Either the answer to e1 was lost, or the store was, and the attempt has run in it.
    assert_eq!(fixture.agreed(hello("e2", None)).interrupted, [delivered]);
    assert_eq!(fixture.deliverable(), ["pending/a1"]);
}

#[test]
fn another_store_closes_what_was_open() {
    let mut fixture = Fixture::new();
    fixture.agreed(hello("e1", None));
    fixture.confirm("e1");
    let running = fixture.running("running");
    let delivered = fixture.submit("delivered");
    fixture.delivering(&delivered);
    fixture.submit("pending");
    let interrupted = fixture.agreed(hello("other", None)).interrupted;
    assert_eq!(interrupted, [running, delivered], "it may have run in the one that is gone");
    assert_eq!(fixture.deliverable(), ["pending/a1"]);
}

/// A request over HTTP does not say which store asks: see TK-13e.
#[test]
fn what_a_new_store_got_over_http_is_taken_for_the_old_ones_and_is_not_run_again() {
    let mut fixture = Fixture::new();
    fixture.agreed(hello("e1", None));
    fixture.confirm("e1");
    let polled = fixture.submit("polled");
    assert_eq!(fixture.deliverable_to(false), ["polled/a1"]);
    fixture.delivering(&polled);
    let named = Hello { running_tasks: vec![running(&polled)], ..hello("other", None) };
    assert_eq!(fixture.agreed(named).interrupted, std::slice::from_ref(&polled));
    assert_eq!(fixture.finish(&polled, "f", 0), FinalTaken::TooLate);
    assert_eq!(fixture.state("polled"), AttemptState::Interrupted);
    assert_eq!(fixture.deliverable(), Vec::<String>::new());
}

#[test]
fn a_copy_of_a_store_that_another_copy_has_replaced_is_refused() {
    let mut fixture = Fixture::new();
    fixture.agreed(hello("e1", None));
    fixture.confirm("e1");
    fixture.agreed(hello("e2", Some("e1")));
    fixture.confirm("e2");
    let attempt = fixture.running("t");
    // An image of the first life is started somewhere else.
    let agreement = fixture.agreed(hello("copy", Some("e1")));
    assert_eq!(agreement.interrupted, [attempt]);
    fixture.reopen();
    assert_eq!(fixture.reconcile(hello("e2", Some("e1"))), Reconciled::Forked);
    assert!(matches!(fixture.reconcile(hello("copy", Some("e1"))), Reconciled::Agreed(_)));
}

#[test]
fn two_copies_that_take_turns_do_not_both_get_tasks() {
    let mut fixture = Fixture::new();
    fixture.agreed(hello("e1", None));
    fixture.confirm("e1");
    fixture.agreed(hello("left1", Some("e1")));
    fixture.confirm("left1");
    fixture.agreed(hello("right1", Some("e1")));
    fixture.confirm("right1");
    fixture.reopen();
    assert_eq!(fixture.reconcile(hello("left2", Some("left1"))), Reconciled::Forked);
    assert_eq!(fixture.reconcile(hello("left3", Some("left1"))), Reconciled::Forked);
    assert!(matches!(fixture.reconcile(hello("right2", Some("right1"))), Reconciled::Agreed(_)));
}

#[test]
fn a_store_that_has_not_begun_what_it_ran_went_back() {
    let mut fixture = Fixture::new();
    fixture.agreed(hello("e1", None));
    fixture.confirm("e1");
    let attempt = fixture.running("t");
    // A copy that was made in the first life, before the attempt began.
    let mut said = hello("e2", Some("e1"));
    said.received_not_started = vec![received(&attempt)];
    let agreement = fixture.agreed(said);
    assert_eq!(agreement.interrupted, std::slice::from_ref(&attempt));
    assert_eq!(agreement.discarded[0].attempt, attempt, "it does not run twice");
}

#[test]
fn a_result_counts_whatever_store_it_comes_from() {
    let mut fixture = Fixture::new();
    fixture.agreed(hello("e1", None));
    fixture.confirm("e1");
    let (done, open) = (fixture.running("done"), fixture.running("open"));
    let mut other = hello("x1", None);
    other.unacked_finals = vec![(message("f"), result(&done, 0))];
    let agreement = fixture.agreed(other);
    assert_eq!(agreement.interrupted, [open]);
    assert_eq!(fixture.state("done"), AttemptState::Final);
}

#[test]
fn a_record_that_was_restored_knows_the_store_by_an_earlier_life() {
    let mut fixture = Fixture::new();
    fixture.agreed(hello("e1", None));
    fixture.confirm("e1");
    let attempt = fixture.running("t");
    let mut later = hello("e4", Some("e3"));
    let earlier = ["e2", "e1"].map(|epoch| Epoch::parse(epoch).expect("valid"));
    later.store.as_mut().expect("it has one").earlier = earlier.to_vec();
    let agreement = fixture.agreed(later);
    assert_eq!(agreement.interrupted, [], "it is the same store");
    assert_eq!(agreement.unnamed, [attempt], "which may know how it ended");
}

#[test]
fn what_is_anothers_is_neither_begun_nor_taken_for_stored() {
    let mut fixture = Fixture::new();
    let (runs, waits) = (fixture.running("runs"), fixture.submit("waits"));
    let mut said = hello("x1", None);
    said.unacked_finals = vec![(message("f"), result(&runs, 0))];
    said.received_not_started = vec![received(&waits)];
    let command = Command::Reconcile { agent: agent(2), hello: Box::new(said) };
    let Reply::Reconciled(Reconciled::Agreed(agreement)) = fixture.ask(command) else {
        panic!("it is reconciled")
    };
    assert_eq!(agreement.acknowledged_finals, []);
    assert_eq!(agreement.discarded[0].attempt, waits);
}

#[test]
fn a_task_that_has_begun_is_not_cancelled() {
    let mut fixture = Fixture::new();
    let runs = fixture.running("runs");
    let Reply::Cancelled(Some(cancelled)) = fixture.ask(Command::Cancel(task("runs"))) else {
        panic!("it is there")
    };
    assert_eq!((cancelled.attempt, cancelled.state), (runs, AttemptState::Running));
    assert!(!fixture.view("runs").cancelled);
}

#[test]
fn a_stream_that_has_used_up_its_numbers_is_wanted_from_the_last() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    let mut said = hello("e1", None);
    let (stream, range) = (OutputStream::Stdout, Range { from: 1, to: MAX_SEQUENCE });
    said.lost_output = vec![LostOutput { attempt, stream, range }];
    let agreement = fixture.agreed(said);
    assert_eq!(agreement.output_replay[0].next_sequence, MAX_SEQUENCE, "there is none after it");
}

#[test]
fn the_end_of_a_stream_that_was_given_up_is_lost() {
    let mut fixture = Fixture::new();
    let attempt = fixture.running("t");
    fixture.output(&attempt, 1, false);
    fixture.finish(&attempt, "f", 0);
    let mut said = hello("e1", None);
    let (stream, range) = (OutputStream::Stdout, Range { from: 2, to: 4 });
    said.lost_output = vec![LostOutput { attempt, stream, range }];
    let agreement = fixture.agreed(said);
    assert_eq!(agreement.output_replay[0].next_sequence, 5, "it need not be said again");
    let view = fixture.view("t");
    assert_eq!(
        (view.attempts[0].streams[0].highest, &view.attempts[0].streams[0].lost[..]),
        (4, &[range][..])
    );
}

#[test]
fn a_discard_counts_when_a_complete_hello_no_longer_lists_the_attempt() {
    let mut fixture = Fixture::new();
    fixture.submit("pending");
    let cancel = |name: &str| Command::Cancel(task(name));
    assert!(matches!(
        fixture.ask(cancel("pending")),
        Reply::Cancelled(Some(Cancelled { state: AttemptState::Discarded, .. }))
    ));
    let waits = fixture.submit("waits");
    fixture.progress(&waits, false);
    let runs = fixture.running("runs");
    fixture.ask(cancel("waits"));
    fixture.ask(cancel("runs"));
    assert_eq!(fixture.deliverable(), [""; 0]);
    let mut said = hello("e1", None);
    said.received_not_started = vec![received(&waits)];
    said.running_tasks = vec![running(&runs)];
    let agreement = fixture.agreed(said);
    let discarded: Vec<&Attempt> = agreement.discarded.iter().map(|it| &it.attempt).collect();
    assert_eq!(discarded, [&waits]);
    assert_eq!(fixture.state("waits"), AttemptState::Received, "not yet");
    assert!(matches!(
        fixture.ask(Command::Retry { task: task("waits"), after: 1 }),
        Reply::Submitted(Submitted::NotEnded)
    ));
    let mut later = hello("e1", None);
    later.running_tasks = vec![running(&runs)];
    assert_eq!(fixture.agreed(later).unnamed, std::slice::from_ref(&waits));
    assert_eq!(fixture.absent(&waits), Some(AttemptState::Discarded));
    assert_eq!(fixture.state("runs"), AttemptState::Running, "what has begun goes on");
    assert!(matches!(fixture.ask(cancel("none")), Reply::Cancelled(None)));
}

#[test]
fn a_nonce_is_good_for_one_use_also_over_a_restart() {
    let mut fixture = Fixture::new();
    let mut take = |nonce: &str, at_s: i64, reopen: bool| {
        if reopen {
            fixture.reopen();
        }
        let at = WallTime::from_millis(at_s * 1_000);
        let forget_before = WallTime::from_millis((at_s - 600) * 1_000);
        let command =
            Command::UseNonce { agent: agent(1), nonce: nonce.to_owned(), at, forget_before };
        matches!(fixture.ask(command), Reply::Nonce(true))
    };
    assert!(take("a", 1_000, false));
    assert!(!take("a", 1_001, true));
    assert!(["b", "c", "d"].iter().all(|nonce| take(nonce, 1_002, false)));
    assert!(!take("e", 1_003, false), "no more than can be remembered");
    assert!(take("e", 2_000, false), "those of long ago are forgotten");
    let (at, forget_before) = (WallTime::from_millis(1), WallTime::from_millis(2));
    let old = Command::UseNonce { agent: agent(1), nonce: "f".to_owned(), at, forget_before };
    assert!(matches!(fixture.ask(old), Reply::Nonce(false)), "it could be used again");
}

#[test]
fn files_that_are_not_the_records_are_refused_and_left_alone() {
    let fixture = Fixture::new();
    let error = SqliteRecord::open(fixture.config.clone()).expect_err("it is in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.db");
    let store = gapless::tasks::store::sqlite::TaskStoreConfig::new(&path);
    drop(gapless::tasks::store::sqlite::SqliteTaskStore::open(store).expect("it opens"));
    let error = SqliteRecord::open(RecordConfig::new(&path)).expect_err("it is a store");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains("the record of a task controller"), "{error}");
}

#[derive(Debug, Clone)]
enum Step {
    Output { sequence: u64, hole: bool },
    Final(u8),
    Progress(bool),
    Hello { runs: bool, waits: bool, life: u8 },
    Cancel,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..12, any::<bool>()).prop_map(|(sequence, hole)| Step::Output { sequence, hole }),
        1 => (0_u8..3).prop_map(Step::Final),
        2 => any::<bool>().prop_map(Step::Progress),
        2 => (any::<bool>(), any::<bool>(), 0_u8..3)
            .prop_map(|(runs, waits, life)| Step::Hello { runs, waits, life }),
        1 => Just(Step::Cancel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_that_was_accepted_changes(steps in prop::collection::vec(step(), 1..40)) {
        let mut fixture = Fixture::new();
        let attempt = fixture.submit("t");
        let (mut state, mut highest, mut pieces) = (AttemptState::Pending, 0, Vec::new());
        let mut first: Option<Final> = None;
        for step in steps {
            match step {
                Step::Output { sequence, hole } => match fixture.output(&attempt, sequence, hole) {
                    OutputTaken::Stored { highest: now, .. } => prop_assert!(now >= sequence),
                    OutputTaken::Gap { highest: now } => {
                        prop_assert!(!hole && sequence > now + 1);
                    }
                    OutputTaken::Foreign => prop_assert!(false, "it is its own"),
                },
                Step::Final(n) => {
                    fixture.finish(&attempt, &format!("f{n}"), i64::from(n));
                }
                Step::Progress(started) => {
                    fixture.progress(&attempt, started);
                }
                Step::Hello { runs, waits, life } => {
                    let mut said = hello(&format!("e{life}"), None);
                    said.running_tasks = runs.then(|| running(&attempt)).into_iter().collect();
                    said.received_not_started =
                        waits.then(|| received(&attempt)).into_iter().collect();
                    fixture.reconcile(said);
                }
                Step::Cancel => {
                    fixture.ask(Command::Cancel(task("t")));
                }
            }
            let view = fixture.view("t").attempts.remove(0);
            prop_assert!(view.state >= state, "{:?} after {state:?}", view.state);
            state = view.state;
            prop_assert!(view.streams[0].highest >= highest);
            highest = view.streams[0].highest;
            if let Some(first) = &first {
                prop_assert_eq!(view.result.as_ref(), Some(first));
            }
            first = view.result;
            let (stream, after) = (OutputStream::Stdout, 0);
            let command =
                Command::ReadOutput { attempt: attempt.clone(), stream, after, count_max: 99 };
            let Reply::Output(page) = fixture.ask(command) else { panic!("a page") };
            prop_assert!(page.pieces.starts_with(&pieces));
            pieces = page.pieces;
            let there = pieces.iter().map(|(sequence, _)| *sequence);
            let lost = page.lost.iter().flat_map(|range| range.from..=range.to);
            let mut all: Vec<u64> = there.chain(lost).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (1..=highest).collect::<Vec<_>>(), "here or lost, each once");
        }
    }
}

// ---- lists ----------------------------------------------------------------------------------------

fn listing() -> Listing {
    Listing { count_max: 100, look_max: 1_000, ..Listing::default() }
}

impl Fixture {
    fn list(&mut self, listing: Listing) -> TaskPage {
        match self.ask(Command::List(listing)) {
            Reply::Tasks(page) => page,
            other => panic!("{other:?}"),
        }
    }

    /// The names of all tasks, page by page, and how many pages that took.
    fn names(&mut self, listing: &Listing) -> (Vec<String>, usize) {
        let (mut names, mut before) = (Vec::new(), None);
        for pages in 1..100 {
            let page = self.list(Listing { before, ..listing.clone() });
            assert!(page.tasks.len() <= listing.count_max);
            names.extend(page.tasks.iter().map(|it| it.attempt.task.to_string()));
            match page.next {
                Some(next) => before = Some(next),
                None => return (names, pages),
            }
        }
        panic!("it has no end")
    }
}

#[test]
fn a_task_is_listed_once_where_its_last_attempt_is() {
    let mut fixture = Fixture::new();
    let first = fixture.running("first");
    fixture.submit("second");
    let (agent, message_id) = (agent(1), message("m"));
    let ended = result(&first, 7);
    fixture.ask(Command::Final { agent, message_id, result: ended });
    let page = fixture.list(listing());
    let last = page.tasks.last().expect("two");
    assert_eq!((last.state, last.exit_code), (AttemptState::Final, Some(7)));
    assert_eq!(last.outcome, Some(Outcome::Failed));
    assert_eq!(fixture.names(&listing()).0, ["second", "first"]);
    fixture.ask(Command::Retry { task: task("first"), after: 1 });
    let page = fixture.list(listing());
    let first = page.tasks.first().expect("two");
    assert_eq!((first.attempt.clone(), first.ordinal), (attempt("first", "a2"), 2));
    assert_eq!((first.state, first.exit_code), (AttemptState::Pending, None));
    assert_eq!(fixture.names(&listing()).0, ["first", "second"]);
}

#[test]
fn pages_of_a_list_are_the_list_however_little_is_looked_at_for_each() {
    let mut fixture = Fixture::new();
    for n in 0..10 {
        fixture.submit(&format!("t{n}"));
    }
    fixture.progress(&attempt("t3", "a1"), true);
    let all: Vec<String> = (0..10).rev().map(|n| format!("t{n}")).collect();
    for count_max in [1, 3, 10, 11] {
        assert_eq!(fixture.names(&Listing { count_max, ..listing() }).0, all);
    }
    let running = Listing { state: Some(AttemptState::Running), look_max: 2, ..listing() };
    let (names, pages) = fixture.names(&running);
    assert_eq!((&names[..], pages), (&["t3".to_owned()][..], 6), "two are looked at for each page");
    let others = Listing { agent: Some(agent(2)), ..listing() };
    assert_eq!(fixture.names(&others).0, Vec::<String>::new());
    let own = Listing { agent: Some(agent(1)), ..listing() };
    assert_eq!(fixture.names(&own).0, all);
}

#[test]
fn a_list_has_the_beginning_of_a_command() {
    let mut fixture = Fixture::new();
    fixture.ask(Command::Submit(wish("t", &"ü".repeat(COMMAND_CHARS + 1))));
    let page = fixture.list(listing());
    assert_eq!(page.tasks[0].command, "ü".repeat(COMMAND_CHARS));
}
