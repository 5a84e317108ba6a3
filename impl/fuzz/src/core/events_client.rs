//! The client of events, with handlers and a cursor store that fail.

use std::time::Duration;

use gapless::events::client::{
    Client, ClientConfig, DialFailure, HandlerOutcome, Input, Notice, Output, Position, StartAt,
};
use gapless::events::wire::{
    ClientFrame, Event, EventBody, Gap, Pong, Range, ResyncAck, ResyncBegin, ResyncVerdict,
    ServerFrame, Stream,
};
use gapless::recovery::{BackoffConfig, Epoch, LivenessConfig, MAX_SEQUENCE};
use gapless::storage::StoreId;
use gapless::{CloseCode, ConnectionId, Ticket};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::value::RawValue;

use super::rig::{Rig, STEPS_MAX};
use crate::source::Source;
use crate::wire::events_server_text;

fn backoff(max_ms: u64) -> BackoffConfig {
    let (min, max) = (Duration::from_millis(20), Duration::from_millis(max_ms));
    BackoffConfig { min, max, jitter_percent: 25 }
}

fn config(source: &mut Source<'_>) -> ClientConfig {
    ClientConfig {
        extension: !source.rarely(4),
        start: if source.flip() { StartAt::Live } else { StartAt::Beginning },
        handlers: 1 + source.below(3),
        slow_negotiations_max: 2,
        liveness: LivenessConfig {
            ping_every: Duration::from_secs(3),
            pong_timeout: Duration::from_secs(1),
        },
        reconnect: backoff(2_000),
        queue_events: 2 + source.below(4),
        queue_bytes: 1_024,
        held_events: 2 + source.below(4),
        held_bytes: 2_048,
        seen_ids: 1 + source.below(4),
        offers_max: 1 + source.below(3) as u32,
        offer_retry: backoff(100),
        gap_asks_max: 1 + source.below(3) as u32,
        save_retry: backoff(100),
        ..ClientConfig::default()
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
    rig: Rig<Client>,
    config: ClientConfig,
    link: Link,
    reading: bool,
    last_conn: ConnectionId,
    stopped: bool,
    /// The offer that is with the handlers.
    offered: Option<(Ticket, usize)>,
    /// The position that is with the store, and of how many gaps the application was told before.
    storing: Option<(StoreId, Position, u64)>,
    /// The same of the one that is stored.
    stored: Option<Position>,
    stored_after: Option<u64>,
    gaps: u64,
    lives: u64,
}

impl World {
    fn new(source: &mut Source<'_>) -> Self {
        let config = config(source);
        let stored = source
            .maybe(|source| Position { epoch: source.maybe(epoch), sequence: source.sequence() });
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(1));
        let mut world = Self {
            rig: Rig::new(Client::new(config.clone(), entropy)),
            config,
            link: Link::None,
            reading: true,
            last_conn: ConnectionId(0),
            stopped: false,
            offered: None,
            storing: None,
            stored,
            stored_after: None,
            gaps: 0,
            lives: 1,
        };
        let position = world.stored.clone();
        world.feed(Input::Start { position });
        world
    }

    /// The process ends, and another begins with the position that is stored.
    fn restart(&mut self) {
        self.lives += 1;
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(self.lives));
        self.rig.core = Client::new(self.config.clone(), entropy);
        (self.link, self.last_conn, self.stopped) = (Link::None, ConnectionId(0), false);
        (self.offered, self.storing) = (None, None);
        self.stored_after = None;
        let position = self.stored.clone();
        self.feed(Input::Start { position });
    }

    fn feed(&mut self, input: Input) {
        let before = self.rig.core.position().map(|position| position.sequence);
        let outputs = self.rig.feed(input);
        let told = outputs.iter().any(|it| matches!(it, Output::Notify(Notice::Gap { .. })));
        let after = self.rig.core.position().map(|position| position.sequence);
        assert!(after >= before || told, "the position goes back from {before:?} to {after:?}");
        assert!(after.is_none_or(|after| after <= MAX_SEQUENCE), "the position is {after:?}");
        self.gaps += u64::from(told);
        for output in outputs {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { conn, offer_extension } => {
                assert!(self.link == Link::None, "one connection at a time");
                assert!(!self.stopped, "a client that was stopped dials");
                assert!(conn > self.last_conn, "connections are numbered in ascending order");
                assert!(self.config.extension || !offer_extension);
                (self.link, self.last_conn) = (Link::Dialing(conn), conn);
            }
            Output::Send { conn, frame } => {
                assert!(self.link == Link::Open(conn), "it sends on a connection that is not open");
                if let ClientFrame::Resync(resync) = frame {
                    let position = self.rig.core.position();
                    let sequence = position.map_or(0, |position| position.sequence);
                    assert!(resync.last_seen_seq <= sequence, "it claims what it has not done");
                    assert!(resync.epoch.is_none() || resync.since.is_none());
                }
            }
            Output::Close { conn, .. } => {
                let current = self.link == Link::Open(conn) || self.link == Link::Dialing(conn);
                assert!(current || conn <= self.last_conn, "it closes what it never opened");
                if current {
                    self.link = Link::None;
                }
            }
            Output::Read { conn, on } => {
                assert!(self.link == Link::Open(conn), "it reads from what is not open");
                assert_ne!(self.reading, on, "nothing is said twice");
                self.reading = on;
            }
            Output::Offer(offer) => {
                assert!(self.offered.is_none(), "one event at a time");
                assert!(!offer.handlers.is_empty() && offer.attempt >= 1);
                assert!(offer.attempt <= self.config.offers_max, "offered too often");
                assert!(offer.handlers.iter().all(|it| *it < self.config.handlers.max(1)));
                self.offered = Some((offer.ticket, offer.handlers.len()));
            }
            Output::Store(id, position) => {
                assert!(self.storing.is_none(), "one write at a time");
                let back = self.stored.as_ref().is_some_and(|it| position.sequence < it.sequence);
                let told = self.stored_after.is_none_or(|after| self.gaps > after);
                assert!(!back || told, "an older position is stored over a newer one");
                self.storing = Some((id, position, self.gaps));
            }
            Output::Notify(Notice::Gap { position, .. }) => {
                assert!(position.sequence <= MAX_SEQUENCE);
            }
            Output::Notify(_) => {}
        }
    }

    fn conn(&mut self, source: &mut Source<'_>) -> ConnectionId {
        match (self.link, source.rarely(12)) {
            (Link::Open(conn) | Link::Dialing(conn), false) => conn,
            _ => ConnectionId(self.last_conn.0.saturating_sub(source.below(3) as u64)),
        }
    }

    fn step(&mut self, source: &mut Source<'_>) {
        match source.below(24) {
            0 => {
                let conn = self.conn(source);
                if self.link == Link::Open(conn) {
                    return;
                }
                if self.link == Link::Dialing(conn) {
                    (self.link, self.reading) = (Link::Open(conn), true);
                }
                let (extension, at) = (!source.rarely(4), self.rig.wall(source));
                self.feed(Input::Opened { conn, extension, at });
            }
            1 => {
                let conn = self.conn(source);
                if let Link::Dialing(dialing) = self.link
                    && dialing == conn
                {
                    self.link = Link::None;
                    let failure = match source.below(3) {
                        0 => DialFailure::ExtensionRefused,
                        1 => DialFailure::Status(503),
                        _ => DialFailure::Other("?".to_owned()),
                    };
                    self.feed(Input::DialFailed { conn, failure });
                }
            }
            2..=8 => {
                let (conn, frame) = (self.conn(source), frame(source));
                self.frame(source, conn, frame);
            }
            9 => {
                let (conn, text) = (self.conn(source), events_server_text(source));
                match ServerFrame::parse(&text) {
                    Ok(frame) => self.frame(source, conn, frame),
                    Err(error) => self.feed(Input::Malformed { conn, error }),
                }
            }
            10 | 11 => {
                let conn = self.conn(source);
                self.feed(Input::OpenHandlersRan { conn });
            }
            12..=14 => self.handle(source),
            15 | 16 => self.store(source),
            17 => {
                let conn = self.conn(source);
                self.feed(match source.flip() {
                    true => Input::Alive { conn },
                    false => Input::PingWritten { conn },
                });
            }
            18 => {
                let conn = self.conn(source);
                if self.link == Link::Open(conn) {
                    self.link = Link::None;
                }
                if self.link != Link::Dialing(conn) {
                    let code = source.maybe(|source| CloseCode(4_000 + source.below(6) as u16));
                    self.feed(Input::Closed { conn, code });
                }
            }
            19 => self.feed(Input::Send(ClientFrame::Subscribe(Vec::new()))),
            20 if source.rarely(8) => {
                self.stopped = true;
                self.feed(Input::Stop);
                assert!(self.link == Link::None, "a client that was stopped has no connection");
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

    /// Nothing is read from a socket that is to be left alone.
    fn frame(&mut self, source: &mut Source<'_>, conn: ConnectionId, frame: ServerFrame) {
        if self.link == Link::Open(conn) && !self.reading {
            return;
        }
        let at = self.rig.wall(source);
        self.feed(Input::Frame { conn, frame, at });
    }

    fn handle(&mut self, source: &mut Source<'_>) {
        let Some((ticket, handlers)) = self.offered.take() else { return };
        let outcomes = (0..handlers).map(|_| match source.below(8) {
            6 => HandlerOutcome::DoneAndStored,
            7 => HandlerOutcome::Failed("no".to_owned()),
            _ => HandlerOutcome::Done,
        });
        let outcomes = outcomes.collect();
        self.feed(Input::Handled { ticket, outcomes });
    }

    fn store(&mut self, source: &mut Source<'_>) {
        let Some((id, position, gaps)) = self.storing.take() else { return };
        let result = match source.below(6) {
            5 => Err("no space".to_owned()),
            _ => {
                (self.stored, self.stored_after) = (Some(position), Some(gaps));
                Ok(())
            }
        };
        self.feed(Input::Stored(id, result));
    }
}

fn epoch(source: &mut Source<'_>) -> Epoch {
    Epoch::parse(source.word(&["e1", "e2", "e3"])).expect("valid")
}

fn event(source: &mut Source<'_>) -> Event {
    let sequence = source.sequence().max(1);
    let id = source.maybe(|source| format!("id-{}", source.below(8)));
    let payload = format!(r#"{{"n":{}}}"#, source.below(2));
    let payload = RawValue::from_string(payload).expect("JSON");
    let body = EventBody::new(id.as_deref(), "note", &payload, 256).expect("valid");
    let event = Event::stamped(sequence, &body);
    match source.rarely(8) {
        // A base server replays from its database without numbers.
        true => match ServerFrame::parse(body.as_str()) {
            Ok(ServerFrame::Event(event)) => event,
            _ => event,
        },
        false => event,
    }
}

fn verdict(source: &mut Source<'_>) -> ResyncVerdict {
    *source.pick(&[
        ResyncVerdict::Replay,
        ResyncVerdict::UpToDate,
        ResyncVerdict::TooOld,
        ResyncVerdict::Ahead,
        ResyncVerdict::OtherEpoch,
        ResyncVerdict::Unknown,
    ])
}

fn lost(source: &mut Source<'_>) -> Vec<Range> {
    let ranges =
        (0..source.below(3)).map(|_| Range { from: source.sequence(), to: source.sequence() });
    ranges.collect()
}

/// A frame that is well formed, of a server that keeps no other rule.
fn frame(source: &mut Source<'_>) -> ServerFrame {
    match source.below(12) {
        0 => ServerFrame::Pong(Pong {
            sent: source.maybe(Source::sequence),
            head: source.maybe(Source::sequence),
        }),
        1 => ServerFrame::Stream(Stream {
            epoch: epoch(source),
            oldest: source.sequence(),
            head: source.sequence(),
        }),
        2 | 3 => {
            let from = source.sequence().max(1);
            ServerFrame::ResyncBegin(ResyncBegin {
                epoch: epoch(source),
                verdict: verdict(source),
                from,
                to: (from - 1).saturating_add(source.number() % 32).min(MAX_SEQUENCE),
                lost: lost(source),
            })
        }
        4 | 5 => ServerFrame::ResyncAck(ResyncAck {
            last_seen_seq: source.sequence(),
            current_seq: source.sequence(),
            replayed: source.sequence(),
            gap_detected: source.flip(),
            epoch: source.maybe(epoch),
            verdict: source.maybe(verdict),
            lost: lost(source),
        }),
        6 => {
            let from = source.sequence().max(1);
            let to = from.saturating_add(source.number() % 8).min(MAX_SEQUENCE);
            ServerFrame::Gap(Gap { epoch: epoch(source), from, to })
        }
        _ => ServerFrame::Event(event(source)),
    }
}

/// Feeds a client with connections, frames, outcomes of its handlers, answers of its store and
/// time.
pub fn events_client(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new(&mut source);
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
}
