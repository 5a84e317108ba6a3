//! The client of event streams as a node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gapless::events::client::{
    Client, ClientConfig, DialFailure, HandlerOutcome, Input, Notice, Output, Position, StartAt,
};
use gapless::events::wire::{FrameError, SUBPROTOCOL, ServerFrame};
use gapless::events::{CloseCode, ConnectionId, StoreId, Ticket};
use gapless::recovery::{BackoffConfig, Epoch, Instant, LivenessConfig};
use serde::{Deserialize, Serialize};

use super::{Endpoint, Moment};
use crate::conform::protocol::{
    Config, DialProblem, Effect, Event, EventsClientConfig, Reset, feature,
};
use crate::mutants::{ClientCore, Distorted};
use crate::seed::Seed;

pub(super) const FEATURES: &[&str] = &[
    feature::EXTENSION,
    feature::HANDLER_ASYNC,
    feature::HANDLER_FAIL,
    feature::OPEN_HANDLER_FAIL,
    feature::SOCK_SENT,
    feature::SOCK_ALIVE,
    feature::PING_CONFIGURED,
    feature::SUSPEND,
    feature::FROM_BEGINNING,
];

/// Under which the cursor is stored.
const CURSOR: &str = "cursor";

/// The cursor, as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredPosition {
    epoch: Option<String>,
    sequence: u64,
}

/// One life of a client.
pub(super) fn begin(reset: &Reset, distorted: Distorted) -> Result<Box<dyn Endpoint>, String> {
    let Config::EventsClient(config) = &reset.config else {
        return Err("the configuration is of another role".to_owned());
    };
    let seed: Seed = reset.seed.parse().map_err(|error| format!("{error}"))?;
    let ms = Duration::from_millis;
    let defaults = ClientConfig::default();
    let core = ClientConfig {
        extension: config.extension,
        start: if config.from_beginning { StartAt::Beginning } else { StartAt::Live },
        liveness: LivenessConfig {
            ping_every: ms(config.ping_every_ms),
            pong_timeout: ms(config.pong_timeout_ms),
        },
        reconnect: BackoffConfig {
            min: ms(config.reconnect_ms.0),
            max: ms(config.reconnect_ms.1),
            ..defaults.reconnect
        },
        queue_events: config.queue_events,
        offers_max: config.offers_max,
        ..defaults
    };
    let entropy = Box::new(seed.stream("client", &reset.host, reset.life));
    Ok(Box::new(Life {
        core: distorted.client(Client::new(core, entropy)),
        config: config.clone(),
        position: reset.storage.get(CURSOR).map(|text| stored(text)).transpose()?,
        saving: BTreeMap::new(),
        offered: BTreeMap::new(),
        opening: BTreeMap::new(),
        pings: BTreeMap::new(),
        tickets: 0,
        effects: Vec::new(),
    }))
}

fn stored(text: &str) -> Result<Position, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("the stored cursor is none: {error}");
    let bytes = STANDARD.decode(text).map_err(|error| wrong(&error))?;
    let stored: StoredPosition = serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
    let epoch = stored.epoch.as_deref().map(Epoch::parse).transpose();
    Ok(Position { epoch: epoch.map_err(|error| wrong(&error))?, sequence: stored.sequence })
}

fn to_store(position: &Position) -> String {
    let epoch = position.epoch.as_ref().map(Epoch::to_string);
    let stored = StoredPosition { epoch, sequence: position.sequence };
    STANDARD.encode(serde_json::to_vec(&stored).expect("a position is always JSON"))
}

struct Life {
    core: ClientCore,
    config: EventsClientConfig,
    /// What was stored when the life began.
    position: Option<Position>,
    /// Positions whose commit is not answered yet.
    saving: BTreeMap<u64, Position>,
    /// The offers that the application has, by ticket: how many handlers, and whether the position is
    /// stored with the effect.
    offered: BTreeMap<u64, (Ticket, usize, bool)>,
    /// The connections for which open handlers run, by ticket.
    opening: BTreeMap<u64, ConnectionId>,
    /// Which of the queued frames are pings, oldest first, by connection.
    pings: BTreeMap<u64, VecDeque<bool>>,
    tickets: u64,
    effects: Vec<Effect>,
}

impl Life {
    fn feed(&mut self, now: Instant, input: Input) {
        self.core.handle(now, input);
        while let Some(output) = self.core.poll() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        let effect = match output {
            Output::Dial { conn, offer_extension } => {
                let base = self.config.base_url.replacen("http", "ws", 1);
                Effect::SockConnect {
                    conn: conn.0,
                    url: format!("{base}/v1/ws"),
                    headers: vec![(
                        "authorization".to_owned(),
                        format!("Bearer {}", self.config.token),
                    )],
                    protocols: offer_extension
                        .then(|| SUBPROTOCOL.to_owned())
                        .into_iter()
                        .collect(),
                }
            }
            Output::Send { conn, frame } => {
                let is_ping = frame == gapless::events::wire::ClientFrame::Ping;
                self.pings.entry(conn.0).or_default().push_back(is_ping);
                Effect::SockSend { conn: conn.0, text: frame.to_text() }
            }
            Output::Close { conn, code, reason } => {
                self.pings.remove(&conn.0);
                Effect::SockClose { conn: conn.0, code: Some(code.0), reason: reason.to_owned() }
            }
            Output::Read { conn, on } => Effect::SockRead { conn: conn.0, on },
            Output::Offer(offer) => {
                let ticket = self.ticket();
                let kept = offer.position.is_some();
                self.offered.insert(ticket, (offer.ticket, offer.handlers.len(), kept));
                let position = offer.position.as_ref();
                Effect::AppEvent {
                    event: offer.event.text().to_owned(),
                    epoch: position.and_then(|it| it.epoch.as_ref()).map(Epoch::to_string),
                    failed: false,
                    ticket: Some(ticket),
                    commits: position
                        .map(|it| (CURSOR.to_owned(), to_store(it)))
                        .into_iter()
                        .collect(),
                }
            }
            Output::Store(id, position) => {
                let writes = BTreeMap::from([(CURSOR.to_owned(), Some(to_store(&position)))]);
                self.saving.insert(id.0, position);
                Effect::StoreCommit { id: id.0, writes }
            }
            Output::Notify(notice) => return self.notify(notice),
        };
        self.effects.push(effect);
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn notify(&mut self, notice: Notice) {
        let effect = match notice {
            Notice::Opened { conn } => {
                let ticket = self.ticket();
                self.opening.insert(ticket, conn);
                Effect::AppOpen { ticket: Some(ticket) }
            }
            Notice::Joined { position } => {
                Effect::AppState { text: format!("joins at {}", position.sequence) }
            }
            Notice::Disconnected { reason, retry_in } => {
                let text = format!("disconnected: {reason}; again in {} ms", retry_in.as_millis());
                Effect::AppState { text }
            }
            Notice::Gap { verdict, lost, position } => Effect::AppGap {
                verdict: verdict.as_str().to_owned(),
                lost: lost.iter().map(|range| (range.from, range.to)).collect(),
                epoch: position.epoch.as_ref().map(Epoch::to_string),
                sequence: position.sequence,
            },
            Notice::Resynced { replayed, gap_detected } => {
                Effect::AppResynced { replayed, gap_detected }
            }
            Notice::GaveUp { event, .. } => Effect::AppGaveUp { event: event.text().to_owned() },
            Notice::Ignored { error } => {
                Effect::AppState { text: format!("ignores a frame: {error}") }
            }
            Notice::CursorNotStored { error } => {
                Effect::AppState { text: format!("cursor not stored: {error}") }
            }
        };
        self.effects.push(effect);
    }

    /// What is stored counts: from here on nothing is missed.
    fn kept(&mut self, position: &Position) {
        let epoch = position.epoch.as_ref().map(Epoch::to_string);
        let sequence = position.sequence;
        self.effects.push(Effect::AppPosition { epoch: epoch.clone(), sequence });
        self.effects.push(Effect::AppJoined { epoch, sequence });
    }

    fn done(&mut self, ticket: u64, ok: bool) -> Option<Input> {
        if let Some(conn) = self.opening.remove(&ticket) {
            return Some(Input::OpenHandlersRan { conn });
        }
        let (ticket, handlers, kept) = self.offered.remove(&ticket)?;
        let outcome = match (ok, kept) {
            (true, true) => HandlerOutcome::DoneAndStored,
            (true, false) => HandlerOutcome::Done,
            (false, _) => HandlerOutcome::Failed("the handler failed".to_owned()),
        };
        Some(Input::Handled { ticket, outcomes: vec![outcome; handlers] })
    }

    /// Whether a ping is among the frames that have left.
    fn pings_left(&mut self, conn: u64, count: u64) -> bool {
        let queued = self.pings.entry(conn).or_default();
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(queued.len());
        queued.drain(..count).any(|is_ping| is_ping)
    }
}

impl Endpoint for Life {
    fn event(&mut self, Moment { now, wall: at }: Moment, event: Event) -> Result<(), String> {
        let input = match event {
            Event::AppConnect => {
                let position = self.position.take();
                if let Some(position) = &position {
                    self.kept(position);
                }
                Some(Input::Start { position })
            }
            Event::AppDone { ticket, ok } => self.done(ticket, ok),
            Event::SockOpen { conn, protocol } => {
                let extension = protocol.as_deref() == Some(SUBPROTOCOL);
                Some(Input::Opened { conn: ConnectionId(conn), extension, at })
            }
            Event::SockError { conn, problem, status, message, .. } => {
                let failure = match (problem, status) {
                    (DialProblem::Subprotocol, _) => DialFailure::ExtensionRefused,
                    (DialProblem::Status, Some(status)) => DialFailure::Status(status),
                    (DialProblem::Status | DialProblem::Network, _) => DialFailure::Other(message),
                };
                Some(Input::DialFailed { conn: ConnectionId(conn), failure })
            }
            Event::SockMessage { conn, text: Some(text), .. } => {
                let conn = ConnectionId(conn);
                Some(match ServerFrame::parse(&text) {
                    Ok(frame) => Input::Frame { conn, frame, at },
                    Err(error) => Input::Malformed { conn, error },
                })
            }
            Event::SockMessage { conn, text: None, .. } => {
                let error = FrameError::NotAnObject("a binary frame".to_owned());
                Some(Input::Malformed { conn: ConnectionId(conn), error })
            }
            Event::SockSent { conn, count } => {
                let conn_ = ConnectionId(conn);
                self.pings_left(conn, count).then_some(Input::PingWritten { conn: conn_ })
            }
            Event::SockAlive { conn } => Some(Input::Alive { conn: ConnectionId(conn) }),
            Event::SockClose { conn, code } => {
                self.pings.remove(&conn);
                Some(Input::Closed { conn: ConnectionId(conn), code: code.map(CloseCode) })
            }
            Event::StoreDone { id, error } => {
                let position = self.saving.remove(&id);
                if let Some(position) = position.filter(|_| error.is_none()) {
                    self.kept(&position);
                }
                let result = match error {
                    None => Ok(()),
                    Some(problem) => Err(format!("{problem:?}")),
                };
                Some(Input::Stored(StoreId(id), result))
            }
            other => return Err(format!("no client of events knows {other:?}")),
        };
        if let Some(input) = input {
            self.feed(now, input);
        }
        Ok(())
    }

    fn timeout(&mut self, moment: Moment) {
        self.feed(moment.now, Input::Timeout);
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}
