//! The server of sessions, over the real store of conversations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gapless::ConnectionId;
use gapless::database::Synchronous;
use gapless::recovery::{BackoffConfig, Epoch, LivenessConfig, RingLimits};
use gapless::session::conversation::{Command, Ending, Saying};
use gapless::session::server::{Attempt, Input, Output, Server, ServerConfig, ShowAll};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations};
use gapless::session::wire::{Attachment, Body, ClientFrame, Notice, ServerFrame};
use gapless::session::{Identity, Name, Turn};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::value::RawValue;

use super::desk::Desk;
use super::rig::{Rig, STEPS_MAX};
use crate::source::Source;
use crate::wire::session_client_text;

/// Pings that a socket may have on top of the window: one is never behind another.
const PINGS_MAX: usize = 2;

fn config(source: &mut Source<'_>) -> ServerConfig {
    ServerConfig {
        extension: !source.rarely(8),
        ring: RingLimits {
            count: 1 + source.below(5),
            bytes: 2_048,
            age: source.maybe(|_| Duration::from_secs(20)),
        },
        prune_every: Duration::from_secs(7),
        idle_max: Duration::from_secs(15),
        outboxes_max: 1 + source.below(4),
        liveness: LivenessConfig {
            ping_every: Duration::from_secs(3),
            pong_timeout: Duration::from_secs(6),
        },
        window_frames: 1 + source.below(4),
        window_bytes: 512,
        write_stall: Duration::from_secs(5),
        history_messages: 1 + source.below(6),
        history_bytes: 1_024,
        queue_max: 1 + source.below(3),
        inputs_max: 1 + source.below(4),
        text_bytes_max: 64,
        turns_max: 1 + source.below(3),
        store_retry: BackoffConfig {
            min: Duration::from_millis(10),
            max: Duration::from_secs(1),
            jitter_percent: 25,
        },
    }
}

/// What can be seen of a connection.
struct Seen {
    identity: Identity,
    extension: bool,
    in_flight: usize,
    begun: bool,
    /// The last number that was sent, once there was one.
    last: Option<u64>,
    /// A numbered frame that is to come first: of the replay, or of the history.
    due: Option<u64>,
}

struct World {
    rig: Rig<Server>,
    desk: Desk<Command, SqliteConversations>,
    config: ServerConfig,
    connections: BTreeMap<ConnectionId, Seen>,
    last_conn: u64,
    epochs: Vec<Epoch>,
    running: BTreeMap<Arc<str>, Turn>,
    /// What was said and is not heard, by turn.
    unheard: BTreeMap<Turn, u64>,
    begun: BTreeSet<Turn>,
    /// The row of each input that was acknowledged.
    rows: BTreeMap<(Arc<str>, Name), Option<u64>>,
    lives: u64,
}

fn principal(source: &mut Source<'_>) -> Arc<str> {
    (*source.pick(&["p", "q"])).into()
}

fn name(source: &mut Source<'_>) -> Name {
    Name::parse(source.word(&["in-1", "in-2", "in-3", "in-4"])).expect("valid")
}

impl World {
    fn new(source: &mut Source<'_>) -> Self {
        let conversations = ConversationsConfig {
            retain_rows: 1 + source.below(12) as u64,
            synchronous: Synchronous::Normal,
            vfs: None,
        };
        let store = SqliteConversations::open(":memory:".as_ref(), &conversations);
        let config = config(source);
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(1));
        let mut world = Self {
            rig: Rig::new(Server::new(config.clone(), Box::new(ShowAll), entropy)),
            desk: Desk::new(store.expect("it opens")),
            config,
            connections: BTreeMap::new(),
            last_conn: 0,
            epochs: Vec::new(),
            running: BTreeMap::new(),
            unheard: BTreeMap::new(),
            begun: BTreeSet::new(),
            rows: BTreeMap::new(),
            lives: 1,
        };
        let outputs = world.rig.drain();
        world.perform(outputs);
        world
    }

    /// The process ends, and another begins on the same store.
    fn restart(&mut self) {
        self.lives += 1;
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(self.lives));
        self.rig.core = Server::new(self.config.clone(), Box::new(ShowAll), entropy);
        self.desk.restart();
        self.connections.clear();
        self.running.clear();
        self.unheard.clear();
        let outputs = self.rig.drain();
        self.perform(outputs);
    }

    fn feed(&mut self, input: Input) {
        let outputs = self.rig.feed(input);
        self.perform(outputs);
    }

    fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Store(id, command) => self.desk.push(id, command),
                Output::Send { conn, frame } => self.sent(conn, frame),
                Output::Close { conn, code, .. } => {
                    let known = self.connections.remove(&conn).is_some();
                    assert!(known, "a connection that is not there is closed with {code}");
                }
                Output::Run(work) => {
                    assert!(self.begun.insert(work.turn.clone()), "a turn is run twice");
                    assert_eq!(work.turn.position, work.input.position);
                    let principal = work.turn.principal.clone();
                    let before = self.running.insert(principal, work.turn);
                    assert!(before.is_none(), "a conversation has one turn at a time");
                    assert!(self.running.len() <= self.config.turns_max, "turns at once");
                }
                Output::Heard { turn } => {
                    let waits = self.unheard.get_mut(&turn).filter(|waits| **waits > 0);
                    *waits.expect("what was not said is heard") -= 1;
                }
            }
        }
        // One command of each conversation, and those of the start.
        assert!(self.desk.len() <= 4, "{} commands wait for the store", self.desk.len());
    }

    fn sent(&mut self, conn: ConnectionId, frame: ServerFrame) {
        let Some(seen) = self.connections.get_mut(&conn) else {
            panic!("something is sent to a connection that is not there: {frame:?}");
        };
        seen.in_flight += 1;
        assert!(seen.in_flight <= self.config.window_frames + PINGS_MAX, "the window");
        let ServerFrame { seq, body } = frame;
        assert_eq!(seq == 0, body.is_ephemeral(), "what is ephemeral has no number: {body:?}");
        assert!(seen.extension || !body.is_extension(), "a base peer is sent {body:?}");
        if let Body::Begin(begin) = &body {
            assert!(seen.extension && !seen.begun, "`session_begin` comes once");
            assert!(begin.to + 1 >= begin.from);
            seen.due = (begin.to >= begin.from).then_some(begin.from);
            seen.last = Some(begin.from - 1);
            if self.epochs.last() != Some(&begin.epoch) {
                self.epochs.push(begin.epoch.clone());
            }
        } else {
            let ping = matches!(body, Body::Ping { .. });
            assert!(seen.begun || !seen.extension || ping, "`session_begin` comes first");
            if ping && !seen.begun {
                return;
            }
        }
        seen.begun = true;
        if seq > 0 {
            assert!(seen.last.is_none_or(|last| seq == last + 1), "{seq} after {:?}", seen.last);
            (seen.last, seen.due) = (Some(seq), None);
        } else if let Body::Status(_) = &body {
            assert_eq!(seen.due, None, "the status comes after the replay or the history");
        }
        let principal = seen.identity.principal.clone();
        if let Body::MessageAck { id, position } = &body {
            let known = self.rows.entry((principal, id.clone())).or_insert(*position);
            assert!(
                known.is_none() || position.is_none() || known == position,
                "an input is one row for ever"
            );
        }
        if let Body::History(history) = &body {
            assert!(history.messages.len() <= self.config.history_messages);
            let positions: Vec<_> = history.messages.iter().filter_map(|it| it.position).collect();
            assert!(positions.is_sorted_by(|a, b| a < b), "rows are in order: {positions:?}");
        }
    }

    fn any_conn(&mut self, source: &mut Source<'_>) -> ConnectionId {
        ConnectionId(self.last_conn.saturating_sub(source.below(4) as u64))
    }

    fn step(&mut self, source: &mut Source<'_>) {
        match source.below(20) {
            0..=2 => self.connect(source),
            3 => {
                let (conn, text) = (self.any_conn(source), session_client_text(source));
                match ClientFrame::parse(&text) {
                    Ok(frame) => self.feed(Input::Frame { conn, frame }),
                    Err(error) => self.feed(Input::Malformed { conn, error }),
                }
            }
            4..=7 => {
                let (conn, frame) = (self.any_conn(source), self.frame(source));
                self.feed(Input::Frame { conn, frame });
            }
            8 | 9 => {
                let (conn, frames) = (self.any_conn(source), source.below(8));
                if let Some(seen) = self.connections.get_mut(&conn) {
                    let frames = frames.min(seen.in_flight);
                    seen.in_flight -= frames;
                    self.feed(Input::Written { conn, frames });
                }
            }
            10 => {
                let conn = self.any_conn(source);
                self.connections.remove(&conn);
                self.feed(Input::Disconnected { conn });
            }
            11 | 12 => self.turn(source),
            13..=16 => {
                for (id, result) in self.desk.serve(source) {
                    self.feed(Input::Stored(id, result));
                }
            }
            17 => {
                let conn = self.any_conn(source);
                self.feed(Input::Alive { conn });
            }
            18 if source.rarely(8) => self.restart(),
            _ => {
                self.rig.pass(source);
                for () in Rig::<Server>::rounds() {
                    self.feed(Input::Timeout);
                    if !self.rig.due() {
                        break;
                    }
                }
            }
        }
    }

    fn connect(&mut self, source: &mut Source<'_>) {
        self.last_conn += 1;
        let conn = ConnectionId(self.last_conn);
        let client = Name::parse(source.word(&["tab-1", "tab-2", "tab-3"])).expect("valid");
        let identity = Identity { principal: principal(source), client };
        let offered = !source.rarely(4);
        let seen = Seen {
            identity: identity.clone(),
            extension: offered && self.config.extension,
            in_flight: 0,
            begun: false,
            last: None,
            due: None,
        };
        self.connections.insert(conn, seen);
        let known = self.epochs.len();
        let epoch = match source.below(4) {
            0 => None,
            1 => Some(Epoch::parse("none").expect("valid")),
            _ if known == 0 => None,
            back => Some(self.epochs[known.saturating_sub(back)].clone()),
        };
        let attempt = source.maybe(|source| Attempt {
            view: (*source.pick(&["v", "w"])).to_owned(),
            number: source.number(),
        });
        let since = source.sequence();
        self.feed(Input::Connected { conn, identity, extension: offered, since, epoch, attempt });
    }

    fn frame(&mut self, source: &mut Source<'_>) -> ClientFrame {
        let question = |source: &mut Source<'_>| {
            Name::parse(&format!("question-{}", source.below(12))).expect("valid")
        };
        match source.below(8) {
            0 => ClientFrame::Ack {
                seq: source.sequence(),
                epoch: self.epochs.last().cloned().filter(|_| source.flip()),
            },
            1 => ClientFrame::Pong,
            2 | 3 => ClientFrame::UserAnswer {
                id: source.maybe(name),
                question: source.maybe(question),
                text: source.text(),
            },
            _ => {
                let attachment = Attachment {
                    filename: source.text(),
                    doc_id: "d".to_owned(),
                    slug: "s".to_owned(),
                    title: None,
                };
                ClientFrame::UserMessage {
                    id: source.maybe(name),
                    text: source.text(),
                    attachments: source.maybe(|_| attachment).into_iter().collect(),
                    // What a client claims to know it has to know; others are in the texts.
                    after: source.maybe(|_| 0),
                }
            }
        }
    }

    /// The application says something in a turn that runs, or that does not.
    fn turn(&mut self, source: &mut Source<'_>) {
        let principal = principal(source);
        let running = self.running.get(&principal).cloned();
        let stray = Turn { principal: principal.clone(), position: source.sequence() };
        let turn = running.clone().filter(|_| !source.rarely(8)).unwrap_or(stray);
        match source.below(6) {
            0 => {
                let fields = RawValue::from_string("{}".to_owned()).expect("JSON");
                let kind = (*source.pick(&["tool_calling", "news"])).to_owned();
                self.feed(Input::Progress { turn, notice: Notice { kind, fields } });
            }
            1 | 2 => {
                let saying = Saying { text: source.text(), model: "m".to_owned(), usage: None };
                if running.as_ref() == Some(&turn) {
                    *self.unheard.entry(turn.clone()).or_default() += 1;
                }
                self.feed(Input::Say { turn, saying });
            }
            kind => {
                let ending = match kind {
                    3 => Ending::Done,
                    4 => Ending::Failed(source.text()),
                    _ => Ending::Ask {
                        question: Name::parse(&format!("question-{}", turn.position % 100))
                            .expect("valid"),
                        text: source.text(),
                        source: "cognitive".to_owned(),
                    },
                };
                if running.as_ref() == Some(&turn) {
                    self.running.remove(&principal);
                }
                self.feed(Input::End { turn, ending });
            }
        }
    }
}

/// Feeds a server with connections, frames, turns of the application, answers of the store and
/// time.
pub fn session_server(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new(&mut source);
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
}
