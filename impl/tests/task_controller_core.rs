//! The controller's core, with a test that plays the record and the agent.

use gapless::recovery::{Epoch, Instant, WallTime};
use gapless::storage::StoreId;
use gapless::tasks::controller::record::{
    Agreement, AttemptState, Command, OutputTaken, Reconciled, Reply,
};
use gapless::tasks::controller::{Controller, ControllerConfig, Input, Output};
use gapless::tasks::wire::{
    AgentMessage, ControllerMessage, Envelope, ErrorFrame, Hello, Output as Piece, SpoolStatus,
    StoreLife, codes,
};
use gapless::tasks::{Attempt, AttemptId, MessageId, OutputStream, TaskId};
use gapless::{AgentId, CloseCode, ConnectionId, Core as _};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

const CONN: ConnectionId = ConnectionId(1);

fn agent() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

fn attempt(n: usize) -> Attempt {
    Attempt {
        task: TaskId::parse(&format!("t{n}")).expect("valid"),
        id: AttemptId::parse("a1").expect("valid"),
    }
}

struct Fixture {
    controller: Controller,
    messages: u64,
    queried: Vec<Attempt>,
    commands: Vec<(StoreId, Command)>,
    closed: Vec<CloseCode>,
    sent: usize,
}

impl Fixture {
    /// A controller with an agent whose hello does not name some attempts.
    fn new(config: ControllerConfig, unnamed: Vec<Attempt>) -> Self {
        let mut fixture = Self {
            controller: Controller::new(config, Box::new(ChaCha12Rng::seed_from_u64(1))),
            messages: 0,
            queried: vec![],
            commands: vec![],
            closed: vec![],
            sent: 0,
        };
        fixture.feed(Input::Connected { conn: CONN, agent: agent() });
        let epoch = Epoch::parse("0123456789abcdef0123456789abcdef").expect("valid");
        fixture.frame(AgentMessage::Hello(Box::new(Hello {
            running_task: None,
            running_tasks: vec![],
            received_not_started: vec![],
            unacked_finals: vec![],
            unacked_output: vec![],
            lost_output: vec![],
            spool: SpoolStatus::default(),
            client_version: "1".to_owned(),
            store: Some(StoreLife { epoch, predecessor: None, earlier: vec![] }),
            complete: true,
        })));
        let (id, _) = fixture.commands.remove(0);
        let agreement = Agreement { unnamed, ..Agreement::default() };
        fixture.reply(id, Reply::Reconciled(Reconciled::Agreed(agreement)));
        fixture.commands.clear();
        fixture
    }

    fn feed(&mut self, input: Input) {
        self.feed_at(0, input);
    }

    fn feed_at(&mut self, millis: u64, input: Input) {
        self.controller.handle(Instant::from_millis(millis), input);
        while let Some(output) = self.controller.poll() {
            self.sent += usize::from(matches!(output, Output::Send { .. }));
            match output {
                Output::Store(id, command) => self.commands.push((id, command)),
                Output::Send { message: ControllerMessage::Query(attempt), .. } => {
                    self.queried.push(attempt);
                }
                Output::Close { code, .. } => self.closed.push(code),
                _ => {}
            }
        }
    }

    fn reply(&mut self, id: StoreId, reply: Reply) {
        self.feed(Input::Stored(id, Ok(reply)));
    }

    fn frame(&mut self, message: AgentMessage) {
        self.messages += 1;
        let frame = Envelope {
            message_id: MessageId::parse(&format!("m{}", self.messages)).expect("valid"),
            agent: agent(),
            sent_at: WallTime::from_millis(0),
            message,
        };
        self.feed(Input::Frame { conn: CONN, frame });
    }

    /// Output of an attempt that is not known to have begun, and is stored.
    fn unexpected(&mut self, attempt: Attempt) {
        let stream = OutputStream::Stdout;
        let data = "x".into();
        let piece = Piece { attempt, stream, sequence: 1, data, truncated_locally: false };
        self.frame(AgentMessage::Output(piece));
        for (id, command) in std::mem::take(&mut self.commands) {
            if matches!(command, Command::Output { .. }) {
                let taken = OutputTaken::Stored { highest: 1, unexpected: true };
                self.reply(id, Reply::OutputTaken(taken));
            }
        }
    }

    fn absent(&mut self, attempt: Attempt) {
        self.frame(AgentMessage::Error(ErrorFrame {
            code: codes::UNKNOWN_ATTEMPT.to_owned(),
            message: String::new(),
            retryable: false,
            related: None,
            highest_accepted_sequence: None,
            attempt: Some(attempt),
        }));
    }

    /// The agent knows none of what it is asked about, until it is asked nothing more.
    fn answer_all(&mut self) -> usize {
        let mut asked = 0;
        while asked < self.queried.len() {
            self.absent(self.queried[asked].clone());
            asked += 1;
            for (id, command) in std::mem::take(&mut self.commands) {
                if matches!(command, Command::Absent { .. }) {
                    self.reply(id, Reply::State(Some(AttemptState::Interrupted)));
                }
            }
        }
        asked
    }
}

#[test]
fn an_attempt_whose_output_comes_again_and_again_is_asked_about_once_there_is_room() {
    let config = ControllerConfig { deliveries_max: 1, ..ControllerConfig::default() };
    let mut fixture = Fixture::new(config, vec![attempt(0)]);
    for _ in 0..1_000 {
        fixture.unexpected(attempt(1));
    }
    assert_eq!(fixture.answer_all(), 2);
}

#[test]
fn what_is_to_be_asked_about_has_a_bound() {
    let config =
        ControllerConfig { deliveries_max: 1, unasked_max: 10, ..ControllerConfig::default() };
    let mut fixture = Fixture::new(config.clone(), vec![attempt(0)]);
    for n in 1..100 {
        fixture.unexpected(attempt(n));
    }
    assert_eq!(fixture.answer_all(), 11);
    // Also what a hello leaves out.
    let mut fixture = Fixture::new(config, (0..100).map(attempt).collect());
    assert_eq!(fixture.answer_all(), 10);
}

#[test]
fn an_agent_that_repeats_its_answer_while_the_record_is_slow_is_cut_off() {
    let config = ControllerConfig { inbound_max: 10, ..ControllerConfig::default() };
    let mut fixture = Fixture::new(config, vec![attempt(0)]);
    for _ in 0..1_000 {
        fixture.absent(attempt(0));
    }
    assert_eq!(fixture.commands.len(), 10);
    assert_eq!(fixture.closed, [CloseCode::PROTOCOL]);
}

#[test]
fn an_agent_that_is_answered_more_than_it_reads_is_cut_off() {
    let config = ControllerConfig { outbound_max: 10, ..ControllerConfig::default() };
    let mut fixture = Fixture::new(config, vec![]);
    for _ in 0..1_000 {
        fixture.unexpected(attempt(0));
    }
    assert_eq!(fixture.closed, [CloseCode::PROTOCOL]);
    assert_eq!(fixture.sent, 10);
}

#[test]
fn what_is_to_be_sent_to_a_full_socket_waits_until_it_takes_something() {
    // The answer to the hello fills it.
    let config = ControllerConfig { outbound_bytes: 1, ..ControllerConfig::default() };
    let mut fixture = Fixture::new(config, (0..3).map(attempt).collect());
    assert_eq!(fixture.queried, []);
    for n in 1..=3 {
        fixture.feed(Input::Written { conn: CONN, frames: 1 });
        assert_eq!(fixture.queried.len(), n, "one at a time");
    }
    fixture.feed(Input::Written { conn: CONN, frames: 1 });
    assert_eq!(fixture.queried, [attempt(0), attempt(1), attempt(2)]);
}

#[test]
fn a_socket_that_takes_nothing_for_the_time_of_a_stall_is_closed_and_one_that_takes_is_not() {
    let config = ControllerConfig::default();
    let stall = u64::try_from(config.write_stall.as_millis()).expect("it fits");
    let mut fixture = Fixture::new(config, vec![attempt(0)]);
    fixture.feed_at(stall - 1, Input::Written { conn: CONN, frames: 1 });
    fixture.feed_at(2 * stall - 2, Input::Timeout);
    assert_eq!(fixture.closed, []);
    fixture.feed_at(2 * stall - 1, Input::Timeout);
    assert_eq!(fixture.closed, [CloseCode::RESUME]);
}

#[test]
fn an_agent_that_says_nothing_is_closed_and_one_that_pings_is_not() {
    let config = ControllerConfig::default();
    let silence = u64::try_from(config.silence.as_millis()).expect("it fits");
    let mut fixture = Fixture::new(config, vec![]);
    fixture.feed(Input::Written { conn: CONN, frames: 1 });
    fixture.feed_at(silence - 1, Input::Alive { conn: CONN });
    fixture.feed_at(2 * silence - 2, Input::Timeout);
    assert_eq!(fixture.closed, []);
    fixture.feed_at(2 * silence - 1, Input::Timeout);
    assert_eq!(fixture.closed, [CloseCode::SILENT]);
}
