//! The server of events, over the real log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gapless::events::log::{Command, Read, Reply};
use gapless::events::server::{Input, Output, Server, ServerConfig};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::events::wire::{ClientFrame, Event, EventBody, Resync, ServerFrame};
use gapless::recovery::{BackoffConfig, Epoch, RingLimits};
use gapless::storage::Transact as _;
use gapless::{AgentId, CloseCode, ConnectionId, Core as _, Ticket};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::value::RawValue;

use super::desk::Desk;
use super::rig::{Rig, STEPS_MAX};
use crate::source::Source;
use crate::wire::events_client_text;

const AGENTS: [&str; 3] = ["agent-1", "agent-2", "agent-3"];

/// Frames beside the window that a socket may have: questions and their answers.
const CONTROL_FRAMES_MAX: usize = 64;

fn config(source: &mut Source<'_>) -> ServerConfig {
    ServerConfig {
        extension: !source.rarely(8),
        ring: RingLimits { count: 1 + source.below(4), bytes: 4_096, age: None },
        window_frames: 1 + source.below(4),
        window_bytes: 64 + source.below(200),
        sockets_per_agent_max: 1 + source.below(3),
        connections_max: 4,
        streams_max: 2,
        publishes_max: 1 + source.below(4),
        page_events: 1 + source.below(3),
        page_bytes: 128,
        store_retry: BackoffConfig {
            min: Duration::from_millis(10),
            max: Duration::from_secs(1),
            jitter_percent: 25,
        },
        ..ServerConfig::default()
    }
}

/// What can be seen of a connection.
struct Seen {
    agent: AgentId,
    extension: bool,
    in_flight: usize,
    begun: bool,
    /// The number up to which everything was sent or declared; base connections that have asked
    /// begin anew, wherever.
    position: Option<u64>,
    /// A replay runs to its end.
    replay_to: Option<u64>,
}

struct World {
    rig: Rig<Server>,
    desk: Desk<Command, SqliteLog>,
    config: ServerConfig,
    connections: BTreeMap<ConnectionId, Seen>,
    last_conn: u64,
    tickets: u64,
    unanswered: BTreeSet<Ticket>,
    epochs: Vec<Epoch>,
}

impl World {
    fn new(source: &mut Source<'_>) -> Self {
        let mut log = LogConfig::new(":memory:");
        log.retain_events = source.maybe(|source| 1 + source.below(12) as u64);
        log.remember_ids = source.below(8) as u64;
        log.epochs_max = 1 + source.below(4) as u64;
        let log = SqliteLog::open(log).expect("it opens");
        let config = config(source);
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(1));
        let mut world = Self {
            rig: Rig::new(Server::new(config.clone(), entropy)),
            desk: Desk::new(log),
            config,
            connections: BTreeMap::new(),
            last_conn: 0,
            tickets: 0,
            unanswered: BTreeSet::new(),
            epochs: Vec::new(),
        };
        let outputs = world.rig.drain();
        world.perform(outputs);
        world
    }

    /// The process ends, and another begins on the same log.
    fn restart(&mut self) {
        let seed = self.epochs.len() as u64 + 2;
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(seed));
        self.rig.core = Server::new(self.config.clone(), entropy);
        self.desk.restart();
        self.connections.clear();
        self.unanswered.clear();
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
                Output::Store(id, command) => {
                    if let Command::OpenEpoch { proposed: epoch, .. } = &command {
                        assert!(!self.epochs.contains(epoch), "an epoch is fresh");
                        self.epochs.push(epoch.clone());
                    }
                    self.desk.push(id, command);
                }
                Output::Send { conn, frame } => self.sent(conn, frame),
                Output::Close { conn, code, .. } => {
                    let known = self.connections.remove(&conn).is_some();
                    assert!(known, "a connection that is not there is closed");
                    assert!((1000..=4005).contains(&code.0));
                    assert_ne!(code, CloseCode::SUPERSEDED, "of no use in this protocol");
                }
                Output::Published { ticket, .. } => {
                    assert!(self.unanswered.remove(&ticket), "a publisher is answered once");
                }
                Output::Available(_) => panic!("only a shared log is away"),
            }
        }
    }

    fn sent(&mut self, conn: ConnectionId, frame: ServerFrame) {
        let Some(seen) = self.connections.get_mut(&conn) else {
            panic!("something is sent to a connection that is not there: {frame:?}");
        };
        seen.in_flight += 1;
        assert!(seen.in_flight <= self.config.window_frames + CONTROL_FRAMES_MAX, "the window");
        match frame {
            ServerFrame::Pong(pong) => {
                assert!(seen.extension || (pong.sent, pong.head) == (None, None), "base fields");
            }
            ServerFrame::Stream(stream) => {
                assert!(seen.extension && !seen.begun, "`stream` comes once, and first");
                assert!(stream.oldest >= 1 && stream.oldest <= stream.head + 1, "{stream:?}");
                seen.begun = true;
                seen.position = Some(stream.head);
            }
            ServerFrame::ResyncBegin(begin) => {
                assert!(seen.extension && seen.begun, "`stream` comes first");
                assert!(begin.from >= 1 && begin.to + 1 >= begin.from, "{begin:?}");
                let lost: u64 = begin.lost.iter().map(|lost| lost.to + 1 - lost.from).sum();
                assert_eq!(lost > 0, !begin.lost.is_empty(), "no range is empty: {begin:?}");
                seen.position = Some(begin.from - 1);
                seen.replay_to = Some(begin.to);
            }
            ServerFrame::ResyncAck(ack) => {
                if seen.extension {
                    assert_eq!(seen.replay_to.take(), Some(ack.current_seq), "the end as said");
                    assert_eq!(seen.position, Some(ack.current_seq), "everything was sent before");
                    let gap = ack.verdict.is_some_and(|verdict| verdict.is_gap());
                    assert_eq!(gap, ack.gap_detected, "{ack:?}");
                } else {
                    assert!(ack.epoch.is_none() && ack.verdict.is_none() && ack.lost.is_empty());
                }
            }
            ServerFrame::Gap(gap) => {
                assert!(seen.extension && seen.begun);
                assert_eq!(Some(gap.from - 1), seen.position, "a gap begins where it is");
                assert!(gap.to >= gap.from);
                seen.position = Some(gap.to);
            }
            ServerFrame::Event(event) => {
                let sequence = event.sequence().expect("this server numbers all events");
                if seen.extension {
                    assert!(seen.begun, "`stream` comes first");
                    assert_eq!(seen.position, Some(sequence - 1), "no hole, no repetition");
                    assert!(seen.replay_to.is_none_or(|to| sequence <= to), "beyond the replay");
                } else {
                    assert!(seen.position.is_none_or(|position| position < sequence), "ascending");
                }
                seen.position = Some(sequence);
                let agent = seen.agent.clone();
                self.is_stored(&agent, sequence, &event);
            }
        }
    }

    /// An event is shown as the log has it, unless it has forgotten it.
    fn is_stored(&mut self, agent: &AgentId, sequence: u64, event: &Event) {
        let read = Read {
            agent: agent.clone(),
            after: sequence - 1,
            to: sequence,
            count_max: 1,
            bytes_max: 1,
        };
        let replies = self.desk.store.transact(vec![Command::Read(read)]).expect("it reads");
        let [Reply::Page(page)] = &replies[..] else { panic!("a page: {replies:?}") };
        if let Some((found, body)) = page.first() {
            assert_eq!((*found, &Event::stamped(sequence, body)), (sequence, event));
        }
    }

    fn any_conn(&mut self, source: &mut Source<'_>) -> ConnectionId {
        ConnectionId(self.last_conn.saturating_sub(source.below(4) as u64))
    }

    fn step(&mut self, source: &mut Source<'_>) {
        match source.below(16) {
            0 | 1 => {
                self.last_conn += 1;
                let conn = ConnectionId(self.last_conn);
                let agent = AgentId::parse(source.word(&AGENTS)).expect("valid");
                let offered = !source.rarely(3);
                let seen = Seen {
                    agent: agent.clone(),
                    extension: offered && self.config.extension,
                    in_flight: 0,
                    begun: false,
                    position: None,
                    replay_to: None,
                };
                self.connections.insert(conn, seen);
                self.feed(Input::Connected { conn, agent, extension: offered });
            }
            2 => {
                let (conn, text) = (self.any_conn(source), events_client_text(source));
                match ClientFrame::parse(&text) {
                    Ok(frame) => self.frame(source, conn, frame),
                    Err(error) => self.feed(Input::Malformed { conn, error }),
                }
            }
            3 | 4 => {
                let conn = self.any_conn(source);
                let known = self.epochs.len();
                let epoch = match source.below(4) {
                    0 => None,
                    1 => Some(Epoch::parse("none").expect("valid")),
                    _ if known == 0 => None,
                    back => {
                        Some(self.epochs[known.saturating_sub(back - 1).min(known - 1)].clone())
                    }
                };
                let since = source.maybe(|source| self.rig.wall(source));
                let resync = Resync { last_seen_seq: source.sequence(), since, epoch };
                self.frame(source, conn, ClientFrame::Resync(resync));
            }
            5 | 6 => {
                let (conn, frames) = (self.any_conn(source), source.below(80));
                if let Some(seen) = self.connections.get_mut(&conn) {
                    let frames = frames.min(seen.in_flight);
                    seen.in_flight -= frames;
                    self.feed(Input::Written { conn, frames });
                }
            }
            7 => {
                let conn = self.any_conn(source);
                self.connections.remove(&conn);
                self.feed(Input::Disconnected { conn });
            }
            8 | 9 => self.publish(source),
            10 => {
                let agent = AgentId::parse(source.word(&AGENTS)).expect("valid");
                let oldest = source.sequence();
                self.feed(Input::Retain { agent, oldest });
            }
            11 | 12 => {
                // Together, as the driver hands in what was one transaction.
                for (id, result) in self.desk.serve(source) {
                    self.rig.core.handle(self.rig.now(), Input::Stored(id, result));
                }
                let outputs = self.rig.drain();
                self.perform(outputs);
            }
            13 => {
                let conn = self.any_conn(source);
                self.feed(Input::Alive { conn });
            }
            14 if source.rarely(8) => self.restart(),
            _ => {
                self.rig.pass(source);
                self.timeouts();
            }
        }
    }

    fn frame(&mut self, source: &mut Source<'_>, conn: ConnectionId, frame: ClientFrame) {
        if let ClientFrame::Resync(_) = &frame
            && let Some(seen) = self.connections.get_mut(&conn)
        {
            seen.replay_to = None;
            if !seen.extension {
                seen.position = None;
            }
        }
        let at = self.rig.wall(source);
        self.feed(Input::Frame { conn, frame, at });
    }

    fn publish(&mut self, source: &mut Source<'_>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let id = source.maybe(|source| format!("id-{}", source.below(6)));
        let payload = format!(r#"{{"n":{}}}"#, source.below(3));
        let payload = RawValue::from_string(payload).expect("JSON");
        let body = EventBody::new(id.as_deref(), "note", &payload, 256).expect("valid");
        let input = Input::Publish {
            ticket,
            principal: (*source.pick(&["p", "q"])).to_owned(),
            agent: AgentId::parse(source.word(&AGENTS)).expect("valid"),
            body,
            after: source.maybe(Source::sequence),
            at: self.rig.wall(source),
        };
        self.unanswered.insert(ticket);
        self.feed(input);
        assert!(self.unanswered.len() <= self.config.publishes_max, "publishes that wait");
    }

    fn timeouts(&mut self) {
        for () in Rig::<Server>::rounds() {
            self.feed(Input::Timeout);
            if !self.rig.due() {
                break;
            }
        }
    }
}

/// Feeds a server with connections, frames, publications, answers of the log and time.
pub fn events_server(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new(&mut source);
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
}
