//! The controller of tasks, over the real record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use gapless::database::Synchronous;
use gapless::recovery::{BackoffConfig, Epoch, MAX_SEQUENCE, Range, WallTime};
use gapless::tasks::controller::record::{AttemptState, Command, Listing, Submission};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::controller::{Controller, ControllerConfig, Input, Output};
use gapless::tasks::wire::{
    AgentMessage, ControllerMessage, Envelope, ErrorFrame, Final, Hello, LostOutput,
    Output as Piece, ReceivedAttempt, RunningAttempt, SpoolStatus, StoreLife, UnackedOutput, codes,
    parse_agent,
};
use gapless::tasks::{Attempt, AttemptId, MessageId, Outcome, OutputStream, TaskId};
use gapless::{AgentId, ConnectionId, Ticket};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::desk::Desk;
use super::rig::{Rig, STEPS_MAX};
use crate::source::Source;
use crate::wire::task_agent_text;

const AGENTS: [&str; 2] = ["agent-1", "agent-2"];

fn config(source: &mut Source<'_>) -> ControllerConfig {
    ControllerConfig {
        extension: !source.rarely(8),
        redelivery: BackoffConfig {
            min: Duration::from_millis(100),
            max: Duration::from_secs(1),
            jitter_percent: 25,
        },
        deliveries_max: 1 + source.below(3),
        inbound_max: 1 + source.below(6),
        outbound_bytes: 256 * (1 + source.below(4)),
        outbound_max: 16 + source.below(64),
        ..ControllerConfig::default()
    }
}

/// What can be seen of a connection.
struct Seen {
    agent: AgentId,
    /// Its hello was answered.
    active: bool,
    extension: bool,
}

struct World {
    rig: Rig<Controller>,
    desk: Desk<Command, SqliteRecord>,
    config: ControllerConfig,
    connections: BTreeMap<ConnectionId, Seen>,
    last_conn: u64,
    tickets: u64,
    unanswered: BTreeSet<Ticket>,
    /// Attempts that were delivered, by agent.
    delivered: BTreeMap<Attempt, AgentId>,
    lives: u64,
}

fn agent(source: &mut Source<'_>) -> AgentId {
    AgentId::parse(source.word(&AGENTS)).expect("valid")
}

fn task(source: &mut Source<'_>) -> TaskId {
    TaskId::parse(source.word(&["t1", "t2", "t3"])).expect("valid")
}

fn message_id(source: &mut Source<'_>) -> MessageId {
    MessageId::parse(&format!("m{}", source.below(12))).expect("valid")
}

impl World {
    fn new(source: &mut Source<'_>) -> Self {
        let mut record = RecordConfig::new(":memory:");
        record.synchronous = Synchronous::Normal;
        record.lives_max = 2 + source.below(3) as u64;
        record.nonces_max = 1 + source.below(4) as u64;
        let record = SqliteRecord::open(record).expect("it opens");
        let config = config(source);
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(1));
        Self {
            rig: Rig::new(Controller::new(config.clone(), entropy)),
            desk: Desk::new(record),
            config,
            connections: BTreeMap::new(),
            last_conn: 0,
            tickets: 0,
            unanswered: BTreeSet::new(),
            delivered: BTreeMap::new(),
            lives: 1,
        }
    }

    /// The process ends, and another begins on the same record.
    fn restart(&mut self) {
        self.lives += 1;
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(self.lives));
        self.rig.core = Controller::new(self.config.clone(), entropy);
        self.desk.restart();
        self.connections.clear();
        self.unanswered.clear();
    }

    fn feed(&mut self, input: Input) {
        for output in self.rig.feed(input) {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { conn, message, .. } => self.sent(conn, message),
            Output::Close { conn, code, .. } => {
                let known = self.connections.remove(&conn).is_some();
                assert!(known, "a connection that is not there is closed with {code}");
            }
            Output::Store(id, command) => self.desk.push(id, command),
            Output::Answer { ticket, .. } | Output::Tasks { ticket, .. } => {
                assert!(self.unanswered.remove(&ticket), "who asks is answered once");
            }
            Output::Notify(_) => {}
        }
    }

    fn sent(&mut self, conn: ConnectionId, message: ControllerMessage) {
        let Some(seen) = self.connections.get_mut(&conn) else {
            panic!("something is sent to a connection that is not there: {message:?}");
        };
        match message {
            ControllerMessage::HelloAck(ack) => {
                assert!(!seen.active, "a hello is answered once");
                assert!(self.config.extension || !ack.extension);
                (seen.active, seen.extension) = (true, ack.extension);
                let starts = ack.output_replay.iter().flatten().map(|it| it.next_sequence);
                for start in starts {
                    assert!((1..=MAX_SEQUENCE).contains(&start), "{start} is no number");
                }
            }
            ControllerMessage::Deliver(deliver) => {
                assert!(seen.active, "nothing is delivered before the hello is answered");
                assert!(!deliver.command.is_empty(), "there is something to run");
                let agent = seen.agent.clone();
                let first = self.delivered.entry(deliver.attempt).or_insert(agent);
                assert_eq!(*first, seen.agent, "an attempt is one agent's");
            }
            ControllerMessage::Query(attempt) => {
                assert!(seen.active && seen.extension, "a base peer is asked about {attempt}");
            }
            ControllerMessage::Ack(ack) => {
                assert!(seen.active, "nothing is acknowledged before the hello is answered");
                let stream =
                    ack.acked_type == "task.output" || ack.acked_type == "task.output_lost";
                assert_eq!(stream, ack.highest_output_sequence.is_some());
                assert!(ack.highest_output_sequence.is_none_or(|it| it <= MAX_SEQUENCE));
            }
            ControllerMessage::Error(error) => {
                let codes =
                    [codes::OUTPUT_SEQUENCE_GAP, codes::STORE_FORKED, codes::INVALID_MESSAGE];
                assert!(codes.contains(&error.code.as_str()), "{error:?}");
                assert_eq!(error.retryable, error.code == codes::OUTPUT_SEQUENCE_GAP);
                assert!(error.highest_accepted_sequence.is_none_or(|it| it < MAX_SEQUENCE));
            }
        }
    }

    fn any_conn(&mut self, source: &mut Source<'_>) -> ConnectionId {
        ConnectionId(self.last_conn.saturating_sub(source.below(3) as u64))
    }

    fn step(&mut self, source: &mut Source<'_>) {
        match source.below(20) {
            0 | 1 => {
                self.last_conn += 1;
                let (conn, agent) = (ConnectionId(self.last_conn), agent(source));
                let seen = Seen { agent: agent.clone(), active: false, extension: false };
                self.connections.insert(conn, seen);
                self.feed(Input::Connected { conn, agent: agent.clone() });
                let of_agent = self.connections.values().filter(|it| it.agent == agent).count();
                assert_eq!(of_agent, 1, "an agent has one connection");
            }
            2 => {
                let (conn, text) = (self.any_conn(source), task_agent_text(source));
                match parse_agent(&text) {
                    Ok(frame) => self.feed(Input::Frame { conn, frame }),
                    Err(error) => self.feed(Input::Malformed { conn, error }),
                }
            }
            3 | 4 => {
                let (conn, hello) = (self.any_conn(source), self.hello(source));
                self.frame(source, conn, AgentMessage::Hello(Box::new(hello)));
            }
            5..=8 => {
                let (conn, message) = (self.any_conn(source), self.message(source));
                self.frame(source, conn, message);
            }
            9 => {
                let conn = self.any_conn(source);
                self.connections.remove(&conn);
                self.feed(Input::Disconnected { conn });
            }
            10..=12 => self.ask(source),
            13..=16 => {
                for (id, result) in self.desk.serve(source) {
                    self.feed(Input::Stored(id, result));
                }
            }
            17 => {
                let conn = self.any_conn(source);
                self.feed(match source.below(3) {
                    0 => Input::Alive { conn },
                    frames => Input::Written { conn, frames: 4 * frames },
                });
            }
            18 if source.rarely(8) => self.restart(),
            _ => {
                self.rig.pass(source);
                for () in Rig::<Controller>::rounds() {
                    self.feed(Input::Timeout);
                    if !self.rig.due() {
                        break;
                    }
                }
            }
        }
    }

    fn frame(&mut self, source: &mut Source<'_>, conn: ConnectionId, message: AgentMessage) {
        let agent = match self.connections.get(&conn) {
            Some(seen) if !source.rarely(12) => seen.agent.clone(),
            _ => agent(source),
        };
        let message_id = message_id(source);
        let sent_at = WallTime::from_millis(0);
        let frame = Envelope { message_id, agent, sent_at, message };
        self.feed(Input::Frame { conn, frame });
    }

    /// An attempt that was delivered, or another one.
    fn attempt(&mut self, source: &mut Source<'_>) -> Attempt {
        let known: Vec<&Attempt> = self.delivered.keys().collect();
        match known.is_empty() || source.rarely(4) {
            true => Attempt {
                task: task(source),
                id: AttemptId::parse(source.word(&["a1", "a2"])).expect("valid"),
            },
            false => (*source.pick(&known)).clone(),
        }
    }

    fn attempts(&mut self, source: &mut Source<'_>) -> Vec<Attempt> {
        (0..source.below(3)).map(|_| self.attempt(source)).collect()
    }

    fn result(&mut self, source: &mut Source<'_>) -> Final {
        let last = [(OutputStream::Stdout, source.sequence()), (OutputStream::Stderr, 0)];
        Final {
            attempt: self.attempt(source),
            outcome: *source.pick(&[Outcome::Completed, Outcome::Failed, Outcome::Interrupted]),
            exit_code: *source.pick(&[0, 1, -1, i64::MIN, i64::MAX]),
            error: source.text(),
            output_truncated: source.flip(),
            error_truncated: source.flip(),
            last_output: source.maybe(|_| last.into()),
        }
    }

    fn range(source: &mut Source<'_>) -> Range {
        let from = source.sequence().max(1);
        Range { from, to: from.saturating_add(source.number() % 8).min(MAX_SEQUENCE) }
    }

    /// A hello of a store that has lived through some lives, or says so.
    fn hello(&mut self, source: &mut Source<'_>) -> Hello {
        let wall = WallTime::from_millis(0);
        let life = |source: &mut Source<'_>| {
            Epoch::parse(source.word(&["l1", "l2", "l3", "l4", "l5"])).expect("valid")
        };
        let running = self.attempts(source);
        let received = self.attempts(source);
        let ended = self.attempts(source);
        let running: Vec<_> = running
            .into_iter()
            .map(|attempt| RunningAttempt {
                attempt,
                started_at: wall,
                last_output: [(OutputStream::Stdout, source.sequence())].into(),
            })
            .collect();
        let mut unacked_finals = Vec::new();
        for _ in 0..source.below(3) {
            unacked_finals.push((message_id(source), self.result(source)));
        }
        Hello {
            running_task: running.first().cloned(),
            running_tasks: running,
            received_not_started: received
                .into_iter()
                .map(|attempt| ReceivedAttempt { attempt, received_at: wall })
                .collect(),
            unacked_finals,
            unacked_output: ended
                .iter()
                .map(|attempt| UnackedOutput {
                    attempt: attempt.clone(),
                    stream: *source.pick(&OutputStream::ALL),
                    range: Self::range(source),
                    truncated_locally: source.flip(),
                })
                .collect(),
            lost_output: ended
                .into_iter()
                .map(|attempt| LostOutput {
                    attempt,
                    stream: *source.pick(&OutputStream::ALL),
                    range: Self::range(source),
                })
                .collect(),
            spool: SpoolStatus::default(),
            client_version: String::new(),
            store: source.maybe(|source| StoreLife {
                epoch: life(source),
                predecessor: source.maybe(life),
                earlier: source.maybe(life).into_iter().collect(),
            }),
            complete: source.flip(),
        }
    }

    /// A message that is well formed, of an agent that keeps no other rule.
    fn message(&mut self, source: &mut Source<'_>) -> AgentMessage {
        let attempt = self.attempt(source);
        let stream = *source.pick(&OutputStream::ALL);
        match source.below(8) {
            0 => AgentMessage::Received(attempt),
            1 => AgentMessage::Started(attempt),
            2..=4 => AgentMessage::Output(Piece {
                attempt,
                stream,
                sequence: source.sequence().max(1),
                data: Bytes::copy_from_slice(source.bytes(8)),
                truncated_locally: source.flip(),
            }),
            5 => AgentMessage::Lost(LostOutput { attempt, stream, range: Self::range(source) }),
            6 => AgentMessage::Final(self.result(source)),
            _ => AgentMessage::Error(ErrorFrame {
                code: (*source.pick(&[codes::UNKNOWN_ATTEMPT, codes::QUEUE_FULL, "other"]))
                    .to_owned(),
                message: source.text(),
                retryable: source.flip(),
                related: None,
                highest_accepted_sequence: source.maybe(Source::sequence),
                attempt: source.maybe(|_| attempt),
            }),
        }
    }

    /// Somebody asks for something over HTTP.
    fn ask(&mut self, source: &mut Source<'_>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.unanswered.insert(ticket);
        let command = match source.below(10) {
            0..=3 => Command::Submit(Submission {
                task: task(source),
                principal: (*source.pick(&["p", "q"])).to_owned(),
                agent: agent(source),
                command: (*source.pick(&["x", "y"])).to_owned(),
                priority: *source.pick(&[0, 1, i64::MIN, i64::MAX]),
            }),
            4 => Command::Retry { task: task(source), after: source.sequence() },
            5 => Command::Cancel(task(source)),
            6 if source.rarely(2) => Command::List(Listing {
                agent: source.rarely(2).then(|| agent(source)),
                state: source.rarely(2).then(|| *source.pick(&AttemptState::ALL)),
                before: source.rarely(2).then(|| source.sequence()),
                count_max: 1 + source.below(3),
                look_max: 1 + source.below(3),
            }),
            6 => Command::Look(task(source)),
            7 => Command::ReadOutput {
                attempt: self.attempt(source),
                stream: OutputStream::Stdout,
                after: source.sequence(),
                count_max: 1 + source.below(3),
            },
            8 => {
                let at = self.rig.wall(source);
                Command::UseNonce {
                    agent: agent(source),
                    nonce: source.text(),
                    at,
                    forget_before: at.saturating_sub(Duration::from_secs(600)),
                }
            }
            _ => {
                let agent = agent(source);
                match source.flip() {
                    true => self.feed(Input::Poll { ticket, agent }),
                    false => {
                        let (message_id, result) = (message_id(source), self.result(source));
                        self.feed(Input::Post { ticket, agent, message_id, result });
                    }
                }
                return;
            }
        };
        self.feed(Input::Ask { ticket, command });
    }
}

/// Feeds a controller with connections, frames, requests over HTTP, answers of the record and
/// time.
pub fn task_controller(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new(&mut source);
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
}
