//! The client of sessions, with a store that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gapless::recovery::{BackoffConfig, Epoch, MAX_SEQUENCE};
use gapless::session::client::{Client, ClientConfig, Input, Output, Submission};
use gapless::session::conversation::{Input as UserInput, Kind, Role, What};
use gapless::session::in_flight::Command;
use gapless::session::view::View;
use gapless::session::wire::{
    Assistant, Begin, Body, ClientFrame, CursorVerdict, History, HistoryMessage, InputRejection,
    Question, ServerFrame, Status,
};
use gapless::session::{CloseCode, ConnectionId, DialFailure, Name, StoreId, Ticket};
use gapless::storage::StoreError;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::rig::{Rig, STEPS_MAX};
use crate::source::Source;
use crate::wire::session_server_text;

fn backoff(max_ms: u64) -> BackoffConfig {
    let (min, max) = (Duration::from_millis(20), Duration::from_millis(max_ms));
    BackoffConfig { min, max, jitter_percent: 25 }
}

fn config(source: &mut Source<'_>) -> ClientConfig {
    ClientConfig {
        extension: !source.rarely(4),
        ping_every: Duration::from_secs(3),
        reconnect: backoff(2_000),
        ack_every: Duration::from_millis(500),
        ack_timeout: Duration::from_secs(2),
        in_flight_max: 1 + source.below(4),
        text_bytes_max: 64,
        messages_max: 2 + source.below(6),
        rejected_max: 1 + source.below(3),
        store_retry: backoff(100),
        ..ClientConfig::default()
    }
}

/// What can be seen of the connection that there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    None,
    Dialing(ConnectionId),
    Open(ConnectionId),
    Superseded,
    Stopped,
}

struct World {
    rig: Rig<Client>,
    config: ClientConfig,
    link: Link,
    last_conn: ConnectionId,
    /// What the store holds, in the order of keeping.
    kept: Vec<UserInput>,
    storing: Option<(StoreId, Command)>,
    /// Inputs that were durable at some time of this life.
    durable: BTreeSet<Name>,
    /// What was sent on the connection that is open, in order, each for the first time.
    sent: Vec<Name>,
    unanswered: BTreeSet<Ticket>,
    tickets: u64,
    /// The order in which inputs were taken.
    order: BTreeMap<Name, usize>,
    acknowledged: Option<(Option<Epoch>, u64)>,
    lives: u64,
}

impl World {
    fn new(source: &mut Source<'_>) -> Self {
        let config = config(source);
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(1));
        let kept = (0..source.below(3)).map(|nth| UserInput {
            id: Name::parse(&format!("kept-{nth}")).expect("valid"),
            what: match source.flip() {
                true => What::Message { attachments: Vec::new(), after: None },
                false => What::Answer { question: None, asked: Some("?".to_owned()) },
            },
            text: "x".to_owned(),
        });
        let kept = kept.collect();
        let mut world = Self {
            rig: Rig::new(Client::new(config.clone(), entropy)),
            config,
            link: Link::None,
            last_conn: ConnectionId(0),
            kept,
            storing: None,
            durable: BTreeSet::new(),
            sent: Vec::new(),
            unanswered: BTreeSet::new(),
            tickets: 0,
            order: BTreeMap::new(),
            acknowledged: None,
            lives: 1,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.durable = self.kept.iter().map(|input| input.id.clone()).collect();
        self.order.clear();
        for input in &self.kept {
            let place = self.order.len();
            self.order.insert(input.id.clone(), place);
        }
        let in_flight = self.kept.clone();
        self.feed(Input::Start { in_flight });
    }

    /// The process ends, and another begins with what is kept.
    fn restart(&mut self) {
        self.lives += 1;
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(self.lives));
        self.rig.core = Client::new(self.config.clone(), entropy);
        (self.link, self.last_conn) = (Link::None, ConnectionId(0));
        (self.storing, self.acknowledged) = (None, None);
        self.sent.clear();
        self.unanswered.clear();
        self.start();
    }

    fn feed(&mut self, input: Input) {
        let outputs = self.rig.feed(input);
        let shows = outputs.iter().filter(|it| matches!(it, Output::Show(_))).count();
        assert!(shows <= 1, "the view is shown at most once for each input");
        assert!(
            shows == 0 || matches!(outputs[0], Output::Show(_)),
            "the view is shown before anything else"
        );
        for output in outputs {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { conn, offer_extension, resume } => {
                assert!(self.link == Link::None, "one connection at a time, and none by itself");
                assert!(conn > self.last_conn, "connections are numbered in ascending order");
                assert!(self.config.extension || !offer_extension);
                assert!(resume.since <= MAX_SEQUENCE && resume.attempt == conn.0);
                assert!(offer_extension || resume.epoch.is_none(), "base servers know no epoch");
                (self.link, self.last_conn) = (Link::Dialing(conn), conn);
            }
            Output::Send { conn, frame } => {
                assert!(self.link == Link::Open(conn), "it sends on a connection that is not open");
                self.sent(frame);
            }
            Output::Close { conn, .. } => {
                let current = self.link == Link::Open(conn) || self.link == Link::Dialing(conn);
                assert!(current || conn <= self.last_conn, "it closes what it never opened");
                if current {
                    self.link = Link::None;
                }
            }
            Output::Store(id, command) => {
                assert!(self.storing.is_none(), "one command at a time");
                self.storing = Some((id, command));
            }
            Output::Submitted { ticket, result } => {
                assert!(self.unanswered.remove(&ticket), "who says something is answered once");
                if let Ok(id) = result {
                    let place = self.order.len();
                    assert!(self.order.insert(id, place).is_none(), "an id is fresh");
                }
            }
            Output::Show(view) => self.shown(&view),
        }
    }

    fn sent(&mut self, frame: ClientFrame) {
        match frame {
            ClientFrame::UserMessage { id: Some(id), .. }
            | ClientFrame::UserAnswer { id: Some(id), .. } => {
                assert!(self.durable.contains(&id), "an input is durable before it is sent");
                if self.sent.contains(&id) {
                    return;
                }
                let place = |id: &Name| self.order.get(id).copied();
                let before = self.sent.last().and_then(place);
                assert!(before < place(&id), "inputs are sent in the order of their saying");
                self.sent.push(id);
            }
            ClientFrame::UserMessage { id: None, .. } => {
                panic!("a message without an id cannot be recognised")
            }
            ClientFrame::Ack { seq, epoch } => {
                assert!(seq <= MAX_SEQUENCE);
                self.acknowledged = Some((epoch, seq));
            }
            // The base contract has no id for an answer.
            ClientFrame::UserAnswer { id: None, .. } | ClientFrame::Pong => {}
        }
    }

    fn shown(&self, view: &Arc<View>) {
        assert!(view.messages.len() <= self.config.messages_max, "rows of the view");
        assert!(view.rejected.len() <= self.config.rejected_max, "rejected inputs");
        let earlier = self.kept.len().max(3);
        assert!(view.pending.len() <= self.config.in_flight_max.max(earlier), "inputs in flight");
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
                    self.link = Link::Open(conn);
                    self.sent.clear();
                }
                let extension = !source.rarely(4);
                self.feed(Input::Opened { conn, extension });
            }
            2 => {
                let conn = self.conn(source);
                if self.link == Link::Dialing(conn) {
                    self.link = Link::None;
                    let failure = match source.below(3) {
                        0 => DialFailure::ExtensionRefused,
                        1 => DialFailure::Status(503),
                        _ => DialFailure::Other("?".to_owned()),
                    };
                    self.feed(Input::DialFailed { conn, failure });
                }
            }
            3..=9 => {
                let (conn, frame) = (self.conn(source), self.frame(source));
                self.feed(Input::Frame { conn, frame });
            }
            10 => {
                let (conn, text) = (self.conn(source), session_server_text(source));
                match ServerFrame::parse(&text) {
                    Ok(frame) => self.feed(Input::Frame { conn, frame }),
                    Err(error) => self.feed(Input::Malformed { conn, error }),
                }
            }
            11..=13 => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.unanswered.insert(ticket);
                let text = source.text();
                let what = match source.rarely(3) {
                    true => Submission::Answer { text },
                    false => Submission::Message { text, attachments: Vec::new() },
                };
                self.feed(Input::Submit { ticket, what });
                assert!(self.unanswered.is_empty(), "who says something is answered at once");
            }
            14..=16 => self.store(source),
            17 => {
                let conn = self.conn(source);
                self.feed(Input::Alive { conn });
            }
            18 => {
                let conn = self.conn(source);
                if self.link == Link::Dialing(conn) {
                    return;
                }
                let code = source.maybe(|source| CloseCode(4_000 + source.below(6) as u16));
                if self.link == Link::Open(conn) {
                    self.link = match code {
                        Some(CloseCode::SUPERSEDED) => Link::Superseded,
                        _ => Link::None,
                    };
                }
                self.feed(Input::Closed { conn, code });
            }
            19 => {
                if self.link == Link::Superseded {
                    self.link = Link::None;
                }
                self.feed(Input::Reconnect);
            }
            20 if source.rarely(8) => {
                self.feed(Input::Stop);
                self.link = Link::Stopped;
            }
            20 if source.rarely(3) => self.restart(),
            _ => {
                self.rig.pass(source);
                for () in Rig::<Client>::rounds() {
                    self.feed(Input::Timeout);
                    if !self.rig.due() {
                        break;
                    }
                }
            }
        }
    }

    fn store(&mut self, source: &mut Source<'_>) {
        let Some((id, command)) = self.storing.take() else { return };
        let (applies, result) = match source.below(8) {
            5 => (false, Err(StoreError::NotApplied("no space".to_owned()))),
            6 => (false, Err(StoreError::Unknown("the disk is gone".to_owned()))),
            7 => (true, Err(StoreError::Unknown("the answer is lost".to_owned()))),
            _ => (true, Ok(())),
        };
        match command {
            Command::Keep(input) if applies => {
                if result.is_ok() {
                    self.durable.insert(input.id.clone());
                }
                if !self.kept.iter().any(|kept| kept.id == input.id) {
                    self.kept.push(input);
                }
            }
            Command::Drop(name) if applies => self.kept.retain(|kept| kept.id != name),
            Command::Keep(_) | Command::Drop(_) => {}
        }
        self.feed(Input::Stored(id, result));
    }

    /// An input that was said, or another one.
    fn name(&mut self, source: &mut Source<'_>) -> Name {
        let known: Vec<&Name> = self.order.keys().collect();
        match known.is_empty() || source.rarely(6) {
            true => Name::parse("other").expect("valid"),
            false => (*source.pick(&known)).clone(),
        }
    }

    /// A frame that is well formed, of a server that keeps no other rule.
    fn frame(&mut self, source: &mut Source<'_>) -> ServerFrame {
        let epoch = Epoch::parse(source.word(&["e1", "e2"])).expect("valid");
        let question = |source: &mut Source<'_>| Question {
            id: source.maybe(|_| Name::parse("question-1").expect("valid")),
            text: (*source.pick(&["?", "??"])).to_owned(),
            source: String::new(),
        };
        let position = |source: &mut Source<'_>| source.sequence().max(1);
        let body = match source.below(14) {
            0 | 1 => {
                let from = position(source);
                let to = (from - 1).saturating_add(source.number() % 6).min(MAX_SEQUENCE);
                let verdicts =
                    [CursorVerdict::Replay, CursorVerdict::UpToDate, CursorVerdict::Unknown];
                Body::Begin(Begin { epoch, verdict: *source.pick(&verdicts), from, to })
            }
            2 | 3 => {
                let mut messages = Vec::new();
                for _ in 0..source.below(4) {
                    messages.push(HistoryMessage {
                        role: *source.pick(&[Role::User, Role::Assistant]),
                        text: source.text(),
                        position: source.maybe(position),
                        kind: source.maybe(|source| {
                            *source.pick(&[Kind::Message, Kind::Question, Kind::Answer])
                        }),
                        input: source.maybe(|source| self.name(source)),
                        question: None,
                        attachments: Vec::new(),
                    });
                }
                Body::History(Arc::new(History {
                    epoch: source.maybe(|_| epoch),
                    messages,
                    status: source.maybe(|_| Status::Waiting),
                    open_question: source.maybe(question),
                    truncated: source.flip(),
                }))
            }
            4 => Body::Question { question: question(source), position: source.maybe(position) },
            5 => Body::MessageAck { id: self.name(source), position: source.maybe(position) },
            6 => {
                let reasons = [
                    InputRejection::Conflict,
                    InputRejection::Expired,
                    InputRejection::QueueFull { queue_cap: 1 },
                ];
                let id = source.maybe(|source| self.name(source));
                Body::MessageRejected { id, reason: *source.pick(&reasons) }
            }
            7 => Body::AnswerAck {
                id: self.name(source),
                question: None,
                position: position(source),
            },
            8 => Body::AnswerRejected {
                id: self.name(source),
                question: None,
                reason: InputRejection::NotOpen,
            },
            9 => Body::Ping { sent: source.maybe(Source::sequence) },
            10 => Body::Status(*source.pick(&[Status::Idle, Status::Thinking, Status::Waiting])),
            11 => Body::UserMessage {
                position: position(source),
                id: source.maybe(|source| self.name(source)),
                text: source.text(),
                attachments: Vec::new(),
            },
            12 => {
                Body::UserAnswer { position: position(source), question: None, text: source.text() }
            }
            _ => Body::Assistant(Assistant {
                text: source.text(),
                model: String::new(),
                usage: None,
                position: source.maybe(position),
                kind: None,
            }),
        };
        let seq = match source.below(8) {
            0 => 0,
            1 => source.sequence(),
            // The next one, as far as it can be known from here.
            _ => {
                let last = self.acknowledged.as_ref().map_or(0, |(_, seq)| *seq);
                (last + 1 + source.below(3) as u64).min(MAX_SEQUENCE)
            }
        };
        ServerFrame { seq, body }
    }
}

/// Feeds a client with connections, frames, what the user says, answers of its store and time.
pub fn session_client(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new(&mut source);
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
}
