//! The agent of tasks, over the real store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use gapless::database::Synchronous;
use gapless::recovery::{BackoffConfig, LivenessConfig, MAX_SEQUENCE};
use gapless::storage::Transact as _;
use gapless::tasks::agent::{Agent, AgentConfig, Exit, Input, Output, Posted};
use gapless::tasks::store::Command;
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::wire::{
    Ack, AgentMessage, ControllerMessage, Deliver, Discarded, Envelope, ErrorFrame, Final,
    HelloAck, ReplayFrom, codes, parse_controller,
};
use gapless::tasks::{Attempt, AttemptId, MessageId, Outcome, OutputStream, TaskId};
use gapless::{AgentId, CloseCode, ConnectionId, Ticket};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::desk::Desk;
use super::rig::{Rig, STEPS_MAX};
use crate::source::Source;
use crate::wire::task_controller_text;

fn backoff(max_ms: u64) -> BackoffConfig {
    let (min, max) = (Duration::from_millis(20), Duration::from_millis(max_ms));
    BackoffConfig { min, max, jitter_percent: 25 }
}

fn config(source: &mut Source<'_>) -> AgentConfig {
    AgentConfig {
        client_version: "fuzz".to_owned(),
        extension: !source.rarely(4),
        parallel: 1 + source.below(2),
        queue_max: 1 + source.below(3),
        liveness: LivenessConfig {
            ping_every: Duration::from_secs(3),
            pong_timeout: Duration::from_secs(1),
        },
        reconnect: backoff(2_000),
        ack_timeout: Duration::from_secs(2),
        resends_max: 1 + source.below(2) as u32,
        window_messages: 1 + source.below(4),
        window_bytes: 64 + source.below(128),
        page_messages: 1 + source.below(3),
        page_bytes: 128,
        chunk_bytes: 4 + source.below(16),
        buffer_bytes: 64,
        hello_finals_max: 1 + source.below(3),
        hello_ranges_max: 1 + source.below(3),
        hello_bytes_max: 2_048,
        fallback_after: Duration::from_secs(4),
        poll_every: Duration::from_secs(1),
        request_timeout: Duration::from_secs(2),
        request_retry: backoff(2_000),
        store_retry: backoff(500),
        ..AgentConfig::default()
    }
}

/// What can be seen of the connection that there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    None,
    Dialing(ConnectionId),
    Open(ConnectionId),
}

struct World {
    rig: Rig<Agent>,
    desk: Desk<Command, SqliteTaskStore>,
    config: AgentConfig,
    link: Link,
    last_conn: ConnectionId,
    /// The hello of the connection, once it was said.
    hello: Option<MessageId>,
    /// Output and results that were sent on the connection and not answered.
    window: BTreeSet<MessageId>,
    /// What was sent lately, to be acknowledged.
    recent: Vec<MessageId>,
    begun: BTreeSet<Attempt>,
    running: BTreeSet<Attempt>,
    /// What each number names.
    pieces: BTreeMap<(Attempt, OutputStream, u64), Bytes>,
    finals: BTreeMap<Attempt, (MessageId, Final)>,
    posts: BTreeSet<Ticket>,
    polls: BTreeSet<Ticket>,
    stopped: bool,
    lives: u64,
}

fn attempt(source: &mut Source<'_>) -> Attempt {
    Attempt {
        task: TaskId::parse(source.word(&["t1", "t2", "t3", "t4"])).expect("valid"),
        id: AttemptId::parse(source.word(&["a1", "a1", "a1", "a2"])).expect("valid"),
    }
}

impl World {
    fn new(source: &mut Source<'_>) -> Self {
        let mut store = TaskStoreConfig::new(":memory:");
        store.synchronous = Synchronous::Normal;
        store.spool_cap_bytes = if source.flip() { 192 << 10 } else { 4 << 20 };
        store.terminal_reserve_bytes = 4 << 10;
        // More than there are attempts: one that is forgotten may be run again [TK-17].
        store.finished_max = 16;
        let store = SqliteTaskStore::open(store).expect("it opens");
        let config = config(source);
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(1));
        let mut world = Self {
            rig: Rig::new(Agent::new(config.clone(), entropy)),
            desk: Desk::new(store),
            config,
            link: Link::None,
            last_conn: ConnectionId(0),
            hello: None,
            window: BTreeSet::new(),
            recent: Vec::new(),
            begun: BTreeSet::new(),
            running: BTreeSet::new(),
            pieces: BTreeMap::new(),
            finals: BTreeMap::new(),
            posts: BTreeSet::new(),
            polls: BTreeSet::new(),
            stopped: false,
            lives: 1,
        };
        let at = world.rig.wall(source);
        world.feed(Input::Start { at });
        world
    }

    /// The process ends, and another begins on the same store.
    fn restart(&mut self, source: &mut Source<'_>) {
        self.lives += 1;
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(self.lives));
        self.rig.core = Agent::new(self.config.clone(), entropy);
        self.desk.restart();
        (self.link, self.last_conn, self.stopped) = (Link::None, ConnectionId(0), false);
        self.running.clear();
        self.posts.clear();
        self.polls.clear();
        let at = self.rig.wall(source);
        self.feed(Input::Start { at });
    }

    fn feed(&mut self, input: Input) {
        for output in self.rig.feed(input) {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { conn } => {
                assert!(self.link == Link::None, "one connection at a time");
                assert!(!self.stopped, "an agent that was stopped dials");
                assert!(conn > self.last_conn, "connections are numbered in ascending order");
                (self.link, self.last_conn) = (Link::Dialing(conn), conn);
            }
            Output::Send { conn, message_id, message, extension } => {
                assert!(self.link == Link::Open(conn), "it sends on a connection that is not open");
                assert!(self.config.extension || !extension, "the extension was not offered");
                self.sent(message_id, message);
            }
            Output::Ping { conn } => {
                assert!(self.link == Link::Open(conn), "it pings a connection that is not open");
            }
            Output::Close { conn, .. } => {
                let current = self.link == Link::Open(conn) || self.link == Link::Dialing(conn);
                assert!(current || conn <= self.last_conn, "it closes what it never opened");
                if current {
                    self.link = Link::None;
                }
            }
            Output::Store(id, command) => self.desk.push(id, command),
            Output::Run { attempt, command } => {
                assert!(!self.stopped, "an agent that was stopped runs something");
                assert!(!command.is_empty());
                assert!(self.begun.insert(attempt.clone()), "{attempt} is run twice");
                self.running.insert(attempt);
                assert!(self.running.len() <= self.config.parallel, "too many run at once");
            }
            Output::Listen { attempt, .. } | Output::Kill { attempt } => {
                assert!(self.running.contains(&attempt), "{attempt} does not run");
            }
            Output::Post { ticket, message_id, result } => {
                self.one_result(message_id, result);
                self.posts.insert(ticket);
            }
            Output::Poll { ticket } => {
                self.polls.insert(ticket);
            }
            Output::Notify(_) => {}
        }
    }

    fn sent(&mut self, message_id: MessageId, message: AgentMessage) {
        let is_hello = matches!(message, AgentMessage::Hello(_));
        assert_eq!(is_hello, self.hello.is_none(), "the hello comes first, and once: {message:?}");
        match message {
            AgentMessage::Hello(hello) => {
                self.hello = Some(message_id.clone());
                assert!(hello.unacked_finals.len() <= self.config.hello_finals_max);
                for (message_id, result) in hello.unacked_finals {
                    self.one_result(message_id, result);
                }
            }
            AgentMessage::Output(piece) => {
                assert!((1..=MAX_SEQUENCE).contains(&piece.sequence));
                let key = (piece.attempt, piece.stream, piece.sequence);
                let named = self.pieces.entry(key).or_insert_with(|| piece.data.clone());
                assert_eq!(named, &piece.data, "a number names its bytes for ever");
                self.in_window(&message_id);
            }
            AgentMessage::Final(result) => {
                self.one_result(message_id.clone(), result);
            }
            AgentMessage::Received(_)
            | AgentMessage::Started(_)
            | AgentMessage::Lost(_)
            | AgentMessage::Error(_) => {}
        }
        self.recent.push(message_id);
        if self.recent.len() > 8 {
            self.recent.remove(0);
        }
    }

    /// Results may be said out of turn, when somebody asks; output is not.
    fn in_window(&mut self, message_id: &MessageId) {
        self.window.insert(message_id.clone());
        assert!(self.window.len() <= self.config.window_messages, "the window");
    }

    /// An attempt has one result, ever, over all transports.
    fn one_result(&mut self, message_id: MessageId, result: Final) {
        let attempt = result.attempt.clone();
        let known =
            self.finals.entry(attempt).or_insert_with(|| (message_id.clone(), result.clone()));
        assert_eq!((&known.0, known.1.outcome), (&message_id, result.outcome), "one result");
        assert_eq!((known.1.exit_code, &known.1.error), (result.exit_code, &result.error));
    }

    fn conn(&mut self, source: &mut Source<'_>) -> ConnectionId {
        match (self.link, source.rarely(12)) {
            (Link::Open(conn) | Link::Dialing(conn), false) => conn,
            _ => ConnectionId(self.last_conn.0.saturating_sub(source.below(3) as u64)),
        }
    }

    fn step(&mut self, source: &mut Source<'_>) {
        match source.below(24) {
            0 | 1 => {
                let conn = self.conn(source);
                if self.link == Link::Open(conn) {
                    return;
                }
                if self.link == Link::Dialing(conn) {
                    (self.link, self.hello) = (Link::Open(conn), None);
                    self.window.clear();
                }
                let at = self.rig.wall(source);
                self.feed(Input::Opened { conn, at });
            }
            2 => {
                let conn = self.conn(source);
                if self.link == Link::Dialing(conn) {
                    self.link = Link::None;
                    self.feed(Input::DialFailed { conn, reason: "?".to_owned() });
                }
            }
            3..=8 => {
                let (conn, message) = (self.conn(source), self.message(source));
                self.frame(source, conn, message);
            }
            9 => {
                let (conn, text) = (self.conn(source), task_controller_text(source));
                match parse_controller(&text) {
                    Ok(frame) => self.frame(source, conn, frame.message),
                    Err(error) => self.feed(Input::Malformed { conn, error }),
                }
            }
            10 | 11 => {
                let (attempt, stream) = (attempt(source), *source.pick(&OutputStream::ALL));
                let data = Bytes::copy_from_slice(source.bytes(40));
                if self.running.contains(&attempt) {
                    self.feed(Input::Wrote { attempt, stream, data });
                }
            }
            12 | 13 => {
                let attempt = attempt(source);
                if self.running.remove(&attempt) {
                    let outcomes = [Outcome::Completed, Outcome::Failed];
                    let exit = Exit {
                        outcome: *source.pick(&outcomes),
                        exit_code: i64::from(source.byte()),
                        error: source.text(),
                        truncated: source.maybe(|_| OutputStream::Stdout).into_iter().collect(),
                    };
                    self.feed(Input::Exited { attempt, exit });
                }
            }
            14..=17 => {
                for (id, result) in self.desk.serve(source) {
                    self.feed(Input::Stored(id, result));
                }
            }
            18 => self.answer(source),
            19 => {
                let conn = self.conn(source);
                self.feed(match source.flip() {
                    true => Input::Alive { conn },
                    false => Input::PingWritten { conn },
                });
            }
            20 => {
                let conn = self.conn(source);
                if self.link == Link::Dialing(conn) {
                    return;
                }
                if self.link == Link::Open(conn) {
                    self.link = Link::None;
                }
                let code = source.maybe(|source| CloseCode(4_000 + source.below(6) as u16));
                self.feed(Input::Closed { conn, code });
            }
            21 if source.rarely(16) => {
                self.feed(Input::Stop);
                self.stopped = true;
            }
            21 if source.rarely(3) => self.restart(source),
            _ => {
                self.rig.pass(source);
                for () in Rig::<Agent>::rounds() {
                    self.feed(Input::Timeout);
                    if !self.rig.due() {
                        break;
                    }
                }
            }
        }
    }

    fn frame(&mut self, source: &mut Source<'_>, conn: ConnectionId, message: ControllerMessage) {
        if self.link == Link::Open(conn) {
            match &message {
                // An acknowledgement may free more than it names, and so may a gap.
                ControllerMessage::Ack(_) | ControllerMessage::Error(_) => self.window.clear(),
                ControllerMessage::HelloAck(_)
                | ControllerMessage::Deliver(_)
                | ControllerMessage::Query(_) => {}
            }
        }
        let frame = Envelope {
            message_id: MessageId::parse("c1").expect("valid"),
            agent: AgentId::parse("agent-1").expect("valid"),
            sent_at: self.rig.wall(source),
            message,
        };
        let at = self.rig.wall(source);
        self.feed(Input::Frame { conn, frame, at });
    }

    /// A message that was sent lately, or another one.
    fn message_id(&mut self, source: &mut Source<'_>) -> MessageId {
        match self.recent.is_empty() || source.rarely(8) {
            true => MessageId::parse("other").expect("valid"),
            false => source.pick(&self.recent).clone(),
        }
    }

    /// A message that is well formed, of a controller that keeps no other rule.
    fn message(&mut self, source: &mut Source<'_>) -> ControllerMessage {
        match source.below(10) {
            0..=2 => {
                let acked = match &self.hello {
                    Some(hello) if !source.rarely(8) => hello.clone(),
                    _ => MessageId::parse("other").expect("valid"),
                };
                let finals: Vec<_> =
                    (0..source.below(3)).map(|_| self.message_id(source)).collect();
                let discarded = (0..source.below(2))
                    .map(|_| Discarded { attempt: attempt(source), reason: String::new() });
                let discarded: Vec<_> = discarded.collect();
                let replay = (0..source.below(3)).map(|_| ReplayFrom {
                    attempt: attempt(source),
                    stream: *source.pick(&OutputStream::ALL),
                    next_sequence: source.sequence().max(1),
                });
                let replay: Vec<_> = replay.collect();
                ControllerMessage::HelloAck(HelloAck {
                    acked,
                    acknowledged_finals: source.maybe(|_| finals),
                    discarded: source.maybe(|_| discarded),
                    output_replay: source.maybe(|_| replay),
                    extension: self.config.extension && !source.rarely(4),
                })
            }
            3..=5 => ControllerMessage::Deliver(deliver(source)),
            6 => ControllerMessage::Query(attempt(source)),
            7 | 8 => ControllerMessage::Ack(Ack {
                acked: self.message_id(source),
                acked_type: (*source.pick(&["task.output", "task.final", "other"])).to_owned(),
                attempt: source.maybe(attempt),
                highest_output_sequence: source.maybe(Source::sequence),
            }),
            _ => {
                let codes =
                    [codes::OUTPUT_SEQUENCE_GAP, codes::INVALID_MESSAGE, codes::STORE_FORKED];
                ControllerMessage::Error(ErrorFrame {
                    code: (*source.pick(&codes)).to_owned(),
                    message: source.text(),
                    retryable: source.flip(),
                    related: source.maybe(|source| self.message_id(source)),
                    highest_accepted_sequence: source.maybe(Source::sequence),
                    attempt: None,
                })
            }
        }
    }

    /// A request over HTTP is answered, or is not.
    fn answer(&mut self, source: &mut Source<'_>) {
        if let Some(ticket) = self.posts.pop_first() {
            let answer = match source.below(3) {
                0 => Posted::Accepted,
                1 => Posted::Refused("no".to_owned()),
                _ => Posted::Unknown("?".to_owned()),
            };
            self.feed(Input::Posted { ticket, answer });
        }
        if let Some(ticket) = self.polls.pop_first() {
            let answer = match source.rarely(4) {
                true => Err("?".to_owned()),
                false => Ok((0..source.below(3)).map(|_| deliver(source)).collect()),
            };
            let at = self.rig.wall(source);
            self.feed(Input::Polled { ticket, answer, at });
        }
    }
}

fn deliver(source: &mut Source<'_>) -> Deliver {
    let priority = *source.pick(&[0, 1, -1, i64::MIN, i64::MAX]);
    Deliver { attempt: attempt(source), command: "x".to_owned(), priority }
}

/// Feeds an agent with connections, frames, what its commands do, answers of its store and of
/// HTTP, and time.
pub fn task_agent(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new(&mut source);
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
    let find = world.begun.iter().map(|attempt| Command::Find(attempt.clone())).collect();
    world.desk.store.transact(find).expect("the store can be read to the end");
}
