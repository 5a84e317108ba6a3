//! The agent's core, with a real store and a test that plays the controller and the commands.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use gapless::database::Synchronous;
use gapless::recovery::{Instant, WallTime};
use gapless::storage::{StoreError, StoreId, Transact as _};
use gapless::tasks::agent::{Agent, AgentConfig, Exit, Input, Notice, Output, Posted};
use gapless::tasks::store::Command;
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::wire::{
    Ack, AgentMessage, ControllerMessage, Deliver, Discarded, Envelope, ErrorFrame, Hello,
    HelloAck, Output as Piece, ReplayFrom, codes,
};
use gapless::tasks::{Attempt, AttemptId, MessageId, Outcome, OutputStream, TaskId};
use gapless::{AgentId, ConnectionId, Core as _};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

const AT: WallTime = WallTime::from_millis(1_000_000);

fn attempt(name: &str) -> Attempt {
    Attempt {
        task: TaskId::parse(name).expect("valid"),
        id: AttemptId::parse("a1").expect("valid"),
    }
}

struct Fixture {
    _folder: tempfile::TempDir,
    agent: Agent,
    store: SqliteTaskStore,
    /// The store fails.
    broken: bool,
    /// Commands wait for [`Fixture::store_works`].
    slow: bool,
    commands: Vec<(StoreId, Command)>,
    now: u64,
    conn: ConnectionId,
    sent: Vec<(MessageId, AgentMessage)>,
    ran: Vec<String>,
    listening: BTreeMap<Attempt, bool>,
    notices: Vec<Notice>,
    posts: Vec<(gapless::Ticket, MessageId)>,
    polls: Vec<gapless::Ticket>,
    closed: Vec<ConnectionId>,
    dials: usize,
}

impl Fixture {
    fn new(config: AgentConfig) -> Self {
        Self::with_cap(config, 64 << 20)
    }

    fn with_cap(config: AgentConfig, cap: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = TaskStoreConfig::new(folder.path().join("store.db"));
        store.synchronous = Synchronous::Normal;
        store.spool_cap_bytes = cap;
        store.terminal_reserve_bytes = 8 << 10;
        let mut fixture = Self {
            _folder: folder,
            agent: Agent::new(config, Box::new(ChaCha12Rng::seed_from_u64(1))),
            store: SqliteTaskStore::open(store).expect("it opens"),
            broken: false,
            slow: false,
            commands: vec![],
            now: 0,
            conn: ConnectionId(0),
            sent: vec![],
            ran: vec![],
            listening: BTreeMap::new(),
            notices: vec![],
            posts: vec![],
            polls: vec![],
            closed: vec![],
            dials: 0,
        };
        fixture.feed(Input::Start { at: AT });
        fixture
    }

    /// An agent whose hello is answered with nothing to do.
    fn active(config: AgentConfig) -> Self {
        let mut fixture = Self::new(config);
        fixture.open();
        fixture.answer(|_| {});
        fixture.sent.clear();
        fixture
    }

    fn feed(&mut self, input: Input) {
        self.agent.handle(Instant::from_millis(self.now), input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            while let Some(output) = self.agent.poll() {
                match output {
                    Output::Dial { conn } => {
                        self.conn = conn;
                        self.dials += 1;
                    }
                    Output::Send { conn, message_id, message, .. } => {
                        assert_eq!(conn, self.conn, "nothing is sent on an old connection");
                        self.sent.push((message_id, message));
                    }
                    Output::Close { conn, .. } => self.closed.push(conn),
                    Output::Store(id, command) => self.commands.push((id, command)),
                    Output::Run { attempt, .. } => self.ran.push(attempt.task.to_string()),
                    Output::Listen { attempt, on } => {
                        self.listening.insert(attempt, on);
                    }
                    Output::Post { ticket, message_id, .. } => {
                        self.posts.push((ticket, message_id));
                    }
                    Output::Poll { ticket } => self.polls.push(ticket),
                    Output::Notify(notice) => self.notices.push(notice),
                    Output::Ping { .. } | Output::Kill { .. } => {}
                }
            }
            if self.slow || self.commands.is_empty() {
                return;
            }
            self.run_commands();
        }
    }

    fn run_commands(&mut self) {
        let (ids, commands): (Vec<_>, Vec<_>) = self.commands.drain(..).unzip();
        let now = Instant::from_millis(self.now);
        let replies = match self.broken {
            true => Err(StoreError::NotApplied("no space".to_owned())),
            false => self.store.transact(commands),
        };
        let count = ids.len();
        let replies: Vec<_> = match replies {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); count],
        };
        for (id, reply) in ids.into_iter().zip(replies) {
            self.agent.handle(now, Input::Stored(id, reply));
        }
    }

    fn store_works(&mut self) {
        (self.slow, self.broken) = (false, false);
        self.drain();
    }

    fn wait(&mut self, time: Duration) {
        let end = Instant::from_millis(self.now) + time;
        while let Some(deadline) = self.agent.deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline.as_millis().max(self.now + 1);
            self.feed(Input::Timeout);
            // A live controller.
            let conn = self.conn;
            self.agent.handle(Instant::from_millis(self.now), Input::PingWritten { conn });
            self.agent.handle(Instant::from_millis(self.now), Input::Alive { conn });
            self.drain();
        }
        self.now = end.as_millis();
    }

    fn open(&mut self) {
        self.feed(Input::Opened { conn: self.conn, at: AT });
    }

    fn reconnect(&mut self) {
        self.feed(Input::Closed { conn: self.conn, code: None });
        let before = self.dials;
        self.wait(Duration::from_secs(3));
        assert!(self.dials > before, "it dials again");
        self.sent.clear();
        self.open();
    }

    fn hello(&self) -> (MessageId, Hello) {
        let hello = self.sent.iter().rev().find_map(|(id, message)| match message {
            AgentMessage::Hello(hello) => Some((id.clone(), (**hello).clone())),
            _ => None,
        });
        hello.expect("it said hello")
    }

    fn frame(&mut self, message: ControllerMessage) {
        let frame = Envelope {
            message_id: MessageId::parse("c1").expect("valid"),
            agent: AgentId::parse("agent-1").expect("valid"),
            sent_at: AT,
            message,
        };
        self.feed(Input::Frame { conn: self.conn, frame, at: AT });
    }

    fn answer(&mut self, change: impl FnOnce(&mut HelloAck)) {
        let mut ack = HelloAck {
            acked: self.hello().0,
            acknowledged_finals: None,
            discarded: None,
            output_replay: None,
            extension: true,
        };
        change(&mut ack);
        self.frame(ControllerMessage::HelloAck(ack));
    }

    fn deliver(&mut self, name: &str) {
        self.deliver_with(name, 0);
    }

    fn deliver_with(&mut self, name: &str, priority: i64) {
        let (attempt, command) = (attempt(name), "x".to_owned());
        self.frame(ControllerMessage::Deliver(Deliver { attempt, command, priority }));
    }

    fn write(&mut self, name: &str, text: &str) {
        let (attempt, stream) = (attempt(name), OutputStream::Stdout);
        let data = Bytes::copy_from_slice(text.as_bytes());
        self.feed(Input::Wrote { attempt, stream, data });
        self.wait(Duration::from_millis(200));
    }

    fn exit(&mut self, name: &str) {
        let exit = Exit {
            outcome: Outcome::Completed,
            exit_code: 0,
            error: String::new(),
            truncated: vec![],
        };
        self.feed(Input::Exited { attempt: attempt(name), exit });
    }

    /// The numbers of the output that was sent since they were asked for.
    fn numbers(&mut self) -> Vec<u64> {
        self.pieces().iter().map(|(_, piece)| piece.sequence).collect()
    }

    fn pieces(&mut self) -> Vec<(MessageId, Piece)> {
        let sent = std::mem::take(&mut self.sent).into_iter();
        sent.filter_map(|(id, message)| match message {
            AgentMessage::Output(piece) => Some((id, piece)),
            _ => None,
        })
        .collect()
    }

    fn gap(&mut self, related: &MessageId, highest: u64) {
        self.frame(ControllerMessage::Error(ErrorFrame {
            code: codes::OUTPUT_SEQUENCE_GAP.to_owned(),
            message: String::new(),
            retryable: true,
            related: Some(related.clone()),
            highest_accepted_sequence: Some(highest),
            attempt: None,
        }));
    }

    fn ack(&mut self, id: &MessageId, kind: &str, highest: Option<u64>) {
        self.frame(ControllerMessage::Ack(Ack {
            acked: id.clone(),
            acked_type: kind.to_owned(),
            attempt: None,
            highest_output_sequence: highest,
        }));
    }

    fn said(&self, wanted: impl Fn(&AgentMessage) -> bool) -> usize {
        self.sent.iter().filter(|(_, message)| wanted(message)).count()
    }
}

/// Attempts that run at once, so that output begins with the first delivery.
fn config() -> AgentConfig {
    AgentConfig { parallel: 2, ..AgentConfig::default() }
}

#[test]
fn an_attempt_of_the_lowest_priority_is_run_last() {
    let mut fixture = Fixture::active(AgentConfig::default());
    for (name, priority) in [("first", 0), ("lowest", i64::MIN), ("low", -1), ("high", i64::MAX)] {
        fixture.deliver_with(name, priority);
    }
    for name in ["first", "high", "low"] {
        fixture.exit(name);
    }
    assert_eq!(fixture.ran, ["first", "high", "low", "lowest"]);
}

#[test]
fn nothing_is_said_before_it_is_stored() {
    let mut fixture = Fixture::active(config());
    fixture.slow = true;
    fixture.deliver("t");
    assert!(fixture.sent.is_empty() && fixture.ran.is_empty());
    fixture.store_works();
    assert_eq!(fixture.ran, ["t"]);
    let kinds: Vec<&str> = fixture.sent.iter().map(|(_, message)| message.kind()).collect();
    assert_eq!(kinds, ["task.received", "task.started"]);
    fixture.slow = true;
    fixture.write("t", "x");
    fixture.exit("t");
    assert_eq!(fixture.sent.len(), 2);
    fixture.store_works();
    let kinds: Vec<&str> = fixture.sent.iter().map(|(_, message)| message.kind()).collect();
    assert_eq!(kinds[2..], ["task.output", "task.final"]);
}

#[test]
fn an_attempt_that_is_delivered_again_runs_once_and_is_answered() {
    let mut fixture = Fixture::active(AgentConfig::default());
    fixture.deliver("t");
    fixture.deliver("waits");
    fixture.deliver("t");
    fixture.deliver("waits");
    assert_eq!(fixture.ran, ["t"]);
    assert_eq!(fixture.said(|it| matches!(it, AgentMessage::Started(_))), 2);
    assert_eq!(fixture.said(|it| matches!(it, AgentMessage::Received(_))), 3);
    fixture.exit("t");
    assert_eq!(fixture.ran, ["t", "waits"]);
    let result = fixture.sent.iter().find(|(_, it)| matches!(it, AgentMessage::Final(_)));
    let id = result.expect("a result").0.clone();
    fixture.ack(&id, "task.final", None);
    fixture.sent.clear();
    fixture.deliver("t");
    assert!(matches!(&fixture.sent[..], [(again, AgentMessage::Final(_))] if *again == id));
    assert_eq!(fixture.ran, ["t", "waits"], "nothing ran again");
}

#[test]
fn a_full_queue_refuses_what_is_new_and_answers_what_is_known() {
    let mut fixture = Fixture::active(AgentConfig { queue_max: 2, ..AgentConfig::default() });
    for name in ["runs", "one", "two", "three"] {
        fixture.deliver(name);
    }
    let refused = |message: &AgentMessage| matches!(message, AgentMessage::Error(error) if error.code == codes::QUEUE_FULL);
    assert_eq!(fixture.said(refused), 1);
    fixture.sent.clear();
    fixture.deliver("one");
    assert_eq!(fixture.said(|it| matches!(it, AgentMessage::Received(_))), 1);
    fixture.exit("runs");
    fixture.deliver("three");
    assert_eq!(fixture.said(refused), 0, "there is room again");
    assert!(fixture.closed.is_empty(), "no link was dropped");
}

#[test]
fn the_hello_is_answered_before_anything_is_sent_and_only_by_its_own_answer() {
    let mut fixture = Fixture::active(config());
    fixture.deliver("t");
    fixture.write("t", "before");
    fixture.reconnect();
    fixture.write("t", "meanwhile");
    assert_eq!(fixture.said(|it| matches!(it, AgentMessage::Output(_))), 0);
    let stale = MessageId::parse("another").expect("valid");
    let own = fixture.hello().0;
    fixture.answer(|ack| ack.acked = stale);
    assert_eq!(fixture.said(|it| matches!(it, AgentMessage::Output(_))), 0, "not its own");
    fixture.answer(|ack| ack.acked = own);
    assert_eq!(fixture.numbers(), [1, 2], "in the order of the store");
}

#[test]
fn a_hello_that_is_not_answered_ends_the_connection() {
    let mut fixture = Fixture::new(config());
    fixture.open();
    let conn = fixture.conn;
    fixture.wait(Duration::from_secs(16));
    assert_eq!(fixture.closed, [conn]);
    assert!(fixture.dials > 1, "it dials again");
}

#[test]
fn what_waits_is_not_begun_while_a_hello_is_not_answered() {
    let mut fixture = Fixture::active(AgentConfig::default());
    fixture.deliver("runs");
    fixture.deliver("waits");
    fixture.deliver("gone");
    fixture.reconnect();
    fixture.exit("runs");
    assert_eq!(fixture.ran, ["runs"]);
    assert_eq!(fixture.hello().1.received_not_started.len(), 2);
    let discarded = |name: &str| Discarded { attempt: attempt(name), reason: String::new() };
    fixture.answer(|ack| ack.discarded = Some(vec![discarded("gone"), discarded("runs")]));
    assert_eq!(fixture.ran, ["runs", "waits"]);
    fixture.exit("waits");
    assert_eq!(fixture.ran, ["runs", "waits"], "the other one was discarded");
    let finals = |it: &AgentMessage| matches!(it, AgentMessage::Final(result) if result.attempt == attempt("runs"));
    assert!(fixture.said(finals) >= 1, "the discard that came too late is answered by the truth");
}

#[test]
fn what_was_discarded_and_could_not_be_stored_waits_for_the_next_answer() {
    let discarded = |ack: &mut HelloAck| {
        ack.discarded = Some(vec![Discarded { attempt: attempt("gone"), reason: String::new() }]);
    };
    let told = || {
        let mut fixture = Fixture::active(AgentConfig::default());
        fixture.deliver("runs");
        fixture.deliver("gone");
        fixture.reconnect();
        fixture.broken = true;
        fixture.answer(discarded);
        assert_eq!(fixture.closed, [fixture.conn], "nothing is agreed on");
        fixture.store_works();
        fixture.exit("runs");
        fixture.wait(Duration::from_secs(1));
        assert_eq!(fixture.ran, ["runs"], "the link is down, and it is not wanted");
        fixture.wait(Duration::from_secs(5));
        fixture.open();
        fixture
    };
    let mut again = told();
    again.answer(discarded);
    assert_eq!(again.ran, ["runs"]);
    again.reconnect();
    assert_eq!(again.hello().1.received_not_started, [], "now it is stored");
    let mut wanted = told();
    wanted.answer(|_| {});
    assert_eq!(wanted.ran, ["runs", "gone"], "the newest answer counts");
    let mut delivered = told();
    delivered.answer(|_| {});
    delivered.deliver("gone");
    assert_eq!(delivered.ran, ["runs", "gone"], "once");
}

#[test]
fn directed_replay_begins_where_it_is_told_and_the_rest_comes_later() {
    let mut fixture = Fixture::active(config());
    fixture.deliver("one");
    fixture.deliver("two");
    for text in ["a", "b", "c"] {
        fixture.write("one", text);
        fixture.write("two", text);
    }
    fixture.exit("two");
    fixture.reconnect();
    fixture.answer(|ack| {
        ack.output_replay = Some(vec![ReplayFrom {
            attempt: attempt("one"),
            stream: OutputStream::Stdout,
            next_sequence: 3,
        }]);
    });
    assert_eq!(fixture.said(|it| matches!(it, AgentMessage::Final(_))), 1, "results always");
    let pieces = fixture.pieces();
    let of_one: Vec<_> = pieces.iter().map(|(_, it)| (it.attempt.clone(), it.sequence)).collect();
    assert_eq!(of_one, [(attempt("one"), 3)]);
    fixture.wait(Duration::from_secs(31));
    let pieces = fixture.pieces();
    let two: Vec<u64> = pieces
        .iter()
        .filter(|(_, piece)| piece.attempt == attempt("two"))
        .map(|(_, piece)| piece.sequence)
        .collect();
    assert_eq!(two, [1, 2, 3], "what was withheld");
}

#[test]
fn a_gap_is_filled_once_and_who_names_it_again_is_not_followed() {
    let mut fixture = Fixture::active(config());
    fixture.deliver("t");
    for text in ["a", "b", "c"] {
        fixture.write("t", text);
    }
    let pieces = fixture.pieces();
    fixture.gap(&pieces[2].0, 1);
    let again = fixture.pieces();
    let numbers: Vec<u64> = again.iter().map(|(_, piece)| piece.sequence).collect();
    assert_eq!(numbers, [2, 3]);
    assert_eq!(again[0].0, pieces[1].0, "the same message");
    fixture.gap(&again[1].0, 1);
    assert_eq!(fixture.numbers(), [0_u64; 0]);
    let stopped = |it: &Notice| matches!(it, Notice::StreamStopped { .. });
    assert!(fixture.notices.iter().any(stopped));
    fixture.exit("t");
    assert_eq!(fixture.said(|it| matches!(it, AgentMessage::Final(_))), 1, "the rest flows");
}

#[test]
fn a_hole_is_declared_where_the_next_number_is_not_kept() {
    let mut fixture = Fixture::with_cap(config(), 192 << 10);
    fixture.open();
    fixture.answer(|_| {});
    fixture.deliver("t");
    fixture.feed(Input::Closed { conn: fixture.conn, code: None });
    for _ in 0..60 {
        fixture.write("t", &"x".repeat(4_000));
    }
    fixture.reconnect();
    let hello = fixture.hello().1;
    assert!(hello.spool.has_rotated_chunks && hello.unacked_output[0].truncated_locally);
    let from = hello.unacked_output[0].range.from;
    assert!(from > 1);
    fixture.answer(|ack| {
        ack.output_replay = Some(vec![ReplayFrom {
            attempt: attempt("t"),
            stream: OutputStream::Stdout,
            next_sequence: 1,
        }]);
    });
    let pieces = fixture.pieces();
    assert_eq!(pieces[0].1.sequence, from);
    assert!(pieces[0].1.truncated_locally && !pieces[1].1.truncated_locally);
}

#[test]
fn a_message_that_is_refused_for_good_is_passed_over() {
    let mut fixture = Fixture::active(config());
    fixture.deliver("t");
    for text in ["a", "b"] {
        fixture.write("t", text);
    }
    let pieces = fixture.pieces();
    fixture.frame(ControllerMessage::Error(ErrorFrame {
        code: codes::INVALID_MESSAGE.to_owned(),
        message: "no".to_owned(),
        retryable: false,
        related: Some(pieces[0].0.clone()),
        highest_accepted_sequence: None,
        attempt: None,
    }));
    assert!(fixture.notices.iter().any(|it| matches!(it, Notice::Quarantined { .. })));
    assert!(fixture.closed.is_empty(), "the link stays");
    fixture.reconnect();
    fixture.answer(|_| {});
    let pieces = fixture.pieces();
    let numbers: Vec<u64> = pieces.iter().map(|(_, piece)| piece.sequence).collect();
    assert_eq!(numbers, [2]);
    assert!(pieces[0].1.truncated_locally);
}

#[test]
fn only_the_oldest_is_sent_again_when_nothing_is_acknowledged() {
    let mut fixture = Fixture::active(config());
    fixture.deliver("t");
    for text in ["a", "b", "c"] {
        fixture.write("t", text);
    }
    let pieces = fixture.pieces();
    fixture.wait(Duration::from_secs(31));
    assert_eq!(fixture.numbers(), [1]);
    // An acknowledgement by number frees what is below.
    fixture.ack(&pieces[1].0, "task.output", Some(2));
    fixture.wait(Duration::from_secs(31));
    assert_eq!(fixture.numbers(), [3]);
    fixture.ack(&pieces[2].0, "task.output", Some(3));
    fixture.wait(Duration::from_secs(120));
    assert_eq!(fixture.numbers(), [0_u64; 0]);
    assert!(fixture.closed.is_empty());
}

#[test]
fn what_was_sent_before_an_acknowledged_repetition_is_sent_again_at_once() {
    let mut fixture = Fixture::active(config());
    fixture.deliver("t");
    for text in ["a", "b", "c"] {
        fixture.write("t", text);
    }
    assert_eq!(fixture.numbers(), [1, 2, 3]);
    fixture.wait(Duration::from_secs(31));
    let again = fixture.pieces();
    assert_eq!(again.len(), 1, "a probe of one message");
    fixture.write("t", "d");
    assert_eq!(fixture.numbers(), [4]);
    fixture.ack(&again[0].0, "task.output", Some(1));
    assert_eq!(fixture.numbers(), [2, 3], "and not what was sent after it");
}

#[test]
fn a_controller_that_acknowledges_nothing_is_left() {
    let mut fixture = Fixture::active(config());
    fixture.deliver("t");
    fixture.write("t", "a");
    fixture.wait(Duration::from_secs(31 * 4));
    assert_eq!(fixture.closed.len(), 1);
}

#[test]
fn a_store_that_fails_costs_nothing_and_stops_the_pipes() {
    let mut fixture = Fixture::active(AgentConfig { buffer_bytes: 1_000, ..config() });
    fixture.deliver("t");
    fixture.write("t", "a");
    fixture.sent.clear();
    fixture.broken = true;
    for _ in 0..4 {
        fixture.write("t", &"x".repeat(400));
    }
    assert_eq!(fixture.listening.get(&attempt("t")), Some(&false));
    assert_eq!(fixture.numbers(), [0_u64; 0]);
    fixture.store_works();
    fixture.wait(Duration::from_secs(10));
    assert_eq!(fixture.listening.get(&attempt("t")), Some(&true));
    let pieces = fixture.pieces();
    let bytes: usize = pieces.iter().map(|(_, piece)| piece.data.len()).sum();
    assert_eq!(bytes, 1_600);
    let numbers: Vec<u64> = pieces.iter().map(|(_, piece)| piece.sequence).collect();
    assert_eq!(numbers, (2..2 + numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn results_go_over_http_while_the_link_is_down_for_long() {
    let mut fixture = Fixture::active(config());
    fixture.deliver("t");
    let conn = fixture.conn;
    fixture.feed(Input::Closed { conn, code: None });
    fixture.exit("t");
    fixture.wait(Duration::from_secs(29));
    assert!(fixture.posts.is_empty());
    fixture.wait(Duration::from_secs(2));
    let (ticket, id) = fixture.posts.pop().expect("posted");
    let answer = Posted::Unknown("no answer".to_owned());
    fixture.feed(Input::Posted { ticket, answer });
    fixture.wait(Duration::from_secs(3));
    let (ticket, again) = fixture.posts.pop().expect("posted again");
    assert_eq!(again, id, "the same message");
    fixture.feed(Input::Posted { ticket, answer: Posted::Accepted });
    let ticket = fixture.polls.pop().expect("tasks are asked for");
    let (attempt, command) = (attempt("over-http"), "x".to_owned());
    let deliver = Deliver { attempt, command, priority: 0 };
    fixture.feed(Input::Polled { ticket, answer: Ok(vec![deliver.clone(), deliver]), at: AT });
    assert_eq!(fixture.ran, ["t", "over-http"], "once");
    fixture.open();
    assert_eq!(fixture.hello().1.unacked_finals, [], "the controller has it");
}

#[test]
fn a_copy_of_the_store_that_was_replaced_is_told() {
    let mut fixture = Fixture::new(config());
    fixture.open();
    let (acked, _) = fixture.hello();
    fixture.frame(ControllerMessage::Error(ErrorFrame {
        code: codes::STORE_FORKED.to_owned(),
        message: "another copy".to_owned(),
        retryable: false,
        related: Some(acked),
        highest_accepted_sequence: None,
        attempt: None,
    }));
    assert!(fixture.notices.iter().any(|it| matches!(it, Notice::Forked { .. })));
}

#[test]
fn an_agent_that_drains_begins_nothing_and_tells_when_all_is_stored_and_acknowledged() {
    let mut fixture = Fixture::active(AgentConfig::default());
    fixture.deliver("runs");
    fixture.deliver("waits");
    fixture.feed(Input::Drain);
    fixture.write("runs", "output");
    assert!(!fixture.notices.contains(&Notice::Idle));
    fixture.slow = true;
    fixture.exit("runs");
    assert!(!fixture.notices.contains(&Notice::Idle), "the result is not stored");
    fixture.store_works();
    assert!(fixture.notices.contains(&Notice::Idle));
    assert!(!fixture.notices.contains(&Notice::Drained), "nobody has acknowledged anything");
    for (id, message) in std::mem::take(&mut fixture.sent) {
        match message {
            AgentMessage::Output(piece) => {
                fixture.ack(&id, "task.output", Some(piece.sequence));
            }
            AgentMessage::Final(_) => fixture.ack(&id, "task.final", None),
            _ => {}
        }
    }
    assert!(fixture.notices.contains(&Notice::Drained));
    assert_eq!(fixture.ran, ["runs"]);
}

#[test]
fn a_controller_that_names_ever_other_gaps_is_not_followed_and_is_heard_again_after_the_pause() {
    let mut fixture = Fixture::active(config());
    fixture.deliver("t");
    for text in ["a", "b", "c"] {
        fixture.write("t", text);
    }
    let mut pieces = fixture.pieces();
    let mut filled = 0;
    for highest in (1_000..9_000).rev() {
        let Some((newest, _)) = pieces.last() else { break };
        let newest = newest.clone();
        fixture.gap(&newest, highest);
        // The claim is absurd, and nothing above it is there: what is sent is what is kept.
        filled += 1;
        fixture.write("t", "d");
        pieces = fixture.pieces();
    }
    assert_eq!(filled, 1_025, "the last of them stops the stream");
    let stopped = |it: &Notice| matches!(it, Notice::StreamStopped { .. });
    assert!(fixture.notices.iter().any(stopped));
    fixture.wait(Duration::from_secs(60));
    assert!(!fixture.numbers().is_empty(), "it is taken up again");
}

#[test]
fn a_controller_that_asks_more_than_the_store_takes_is_dropped() {
    let mut fixture = Fixture::active(AgentConfig { waiting_max: 100, ..AgentConfig::default() });
    fixture.slow = true;
    for n in 0..1_000 {
        fixture.frame(ControllerMessage::Query(attempt(&format!("t{n}"))));
        let id = MessageId::parse(&format!("m{n}")).expect("valid");
        fixture.ack(&id, "task.final", None);
    }
    assert_eq!(fixture.commands.len(), 100);
    assert_eq!(fixture.closed, [fixture.conn]);
    fixture.store_works();
    fixture.wait(Duration::from_secs(3));
    fixture.open();
    fixture.answer(|_| {});
    fixture.sent.clear();
    fixture.frame(ControllerMessage::Query(attempt("t")));
    assert_eq!(fixture.said(|it| matches!(it, AgentMessage::Error(_))), 1, "it is served again");
}

#[test]
fn what_is_acknowledged_while_it_is_read_again_takes_nothing_else_with_it() {
    let mut fixture = Fixture::active(config());
    fixture.deliver("t");
    fixture.write("t", "x");
    fixture.exit("t");
    let messages = std::mem::take(&mut fixture.sent);
    let id = |kind: &str| {
        let found = messages.iter().find(|(_, message)| message.kind() == kind);
        found.expect("it was sent").0.clone()
    };
    // The output is to be sent again; it is acknowledged before the store has answered.
    fixture.slow = true;
    let timeout = config().ack_timeout;
    fixture.wait(timeout);
    assert!(fixture.commands.iter().any(|(_, it)| matches!(it, Command::ReadOutbox { .. })));
    fixture.ack(&id("task.output"), "task.output", Some(1));
    fixture.store_works();
    assert_eq!(fixture.sent.len(), 0, "nothing is left to be sent at once");
    fixture.wait(timeout * 2);
    let again = |(id, message): &(MessageId, AgentMessage)| (id.clone(), message.kind());
    assert_eq!(fixture.sent.first().map(again), Some((id("task.final"), "task.final")));
}
