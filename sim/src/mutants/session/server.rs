//! What can be wrong with a server of sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gapless::recovery::Instant;
use gapless::session::conversation::{Command, Kind, Reply, Row, Verdict};
use gapless::session::server::{Input, Output, Server, Work};
use gapless::session::wire::{Begin, Body, ClientFrame, CursorVerdict, History, ServerFrame};
use gapless::session::{CloseCode, ConnectionId, Identity, Name, StoreId, Turn};

use crate::mutants::SessionServerCore;
use crate::mutants::twist::{Hands, Twist, Twisted};

/// The last frame of a replay waits a little for a newer one, and lets it pass.
#[derive(Default)]
struct LiveFirst {
    /// Where the replay of a connection ends.
    replays: BTreeMap<ConnectionId, u64>,
    /// What waits, and how long.
    held: BTreeMap<ConnectionId, (Instant, Vec<Output>)>,
    now: Option<Instant>,
}

impl LiveFirst {
    const PATIENCE: Duration = Duration::from_millis(300);
}

impl Twist<Server> for LiveFirst {
    fn input(&mut self, now: Instant, input: Input, hands: &mut Hands<Server>) {
        self.now = Some(now);
        for (_, (_, held)) in self.held.extract_if(.., |_, (until, _)| *until <= now) {
            hands.outputs.extend(held);
        }
        if let Input::Disconnected { conn } = input {
            self.held.remove(&conn);
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Server>) {
        match &output {
            Output::Send { conn, frame: ServerFrame { seq, body } } => {
                if let Body::Begin(Begin { verdict: CursorVerdict::Replay, to, .. }) = body {
                    self.replays.insert(*conn, *to);
                }
                let to = self.replays.get(conn).copied();
                if let (Some(to), Some(now)) = (to, self.now)
                    && (*seq == to || (*seq == 0 && self.held.contains_key(conn)))
                {
                    let (_, held) =
                        self.held.entry(*conn).or_insert((now + Self::PATIENCE, Vec::new()));
                    held.push(output);
                    return;
                }
                let held = self.held.remove(conn);
                hands.outputs.push_back(output);
                hands.outputs.extend(held.into_iter().flat_map(|(_, held)| held));
            }
            Output::Close { conn, .. } => {
                self.held.remove(conn);
                hands.outputs.push_back(output);
            }
            _ => hands.outputs.push_back(output),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.held.values().map(|(until, _)| *until).min()
    }
}

pub(in crate::mutants) fn live_first(core: Server) -> SessionServerCore {
    Twisted::boxed(core, LiveFirst::default())
}

/// Some cursors are called up to date, whatever is missing.
struct UpToDate {
    whom: fn(CursorVerdict) -> bool,
    /// Where the client of each connection is.
    since: BTreeMap<ConnectionId, u64>,
    /// Connections whose history is not sent.
    without_history: BTreeSet<ConnectionId>,
}

impl Twist<Server> for UpToDate {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Server>) {
        if let Input::Connected { conn, since, .. } = &input {
            self.since.insert(*conn, *since);
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, mut output: Output, hands: &mut Hands<Server>) {
        if let Output::Send { conn, frame } = &mut output {
            let since = self.since.get(conn).copied().unwrap_or(0);
            match &mut frame.body {
                Body::Begin(begin) if since > 0 && (self.whom)(begin.verdict) => {
                    begin.verdict = CursorVerdict::UpToDate;
                    (begin.from, begin.to) = (since + 1, since);
                    self.without_history.insert(*conn);
                }
                Body::History(_) if self.without_history.remove(conn) => return,
                _ => {}
            }
        }
        hands.outputs.push_back(output);
    }
}

fn up_to_date(core: Server, whom: fn(CursorVerdict) -> bool) -> SessionServerCore {
    let twist = UpToDate { whom, since: BTreeMap::new(), without_history: BTreeSet::new() };
    Twisted::boxed(core, twist)
}

pub(in crate::mutants) fn too_old_up_to_date(core: Server) -> SessionServerCore {
    up_to_date(core, |verdict| verdict == CursorVerdict::TooOld)
}

pub(in crate::mutants) fn lost_outbox_up_to_date(core: Server) -> SessionServerCore {
    up_to_date(core, |verdict| {
        matches!(verdict, CursorVerdict::Unknown | CursorVerdict::OtherEpoch | CursorVerdict::Ahead)
    })
}

/// An acknowledgement frees whatever has its number, whenever that was sent.
#[derive(Default)]
struct StaleAckPrunes {
    connections: BTreeMap<ConnectionId, Identity>,
    acked: BTreeMap<Identity, u64>,
    /// The highest number that was sent since the last history.
    sent: BTreeMap<Identity, u64>,
}

impl Twist<Server> for StaleAckPrunes {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Server>) {
        match &mut input {
            Input::Connected { conn, identity, since, .. } => {
                let acked = self.acked.get(identity).copied().unwrap_or(0);
                let freed = acked.min(self.sent.get(identity).copied().unwrap_or(0));
                if *since > 0 {
                    *since = (*since).max(freed);
                }
                self.connections.insert(*conn, identity.clone());
            }
            Input::Frame { conn, frame: ClientFrame::Ack { seq, .. } } => {
                if let Some(identity) = self.connections.get(conn) {
                    let acked = self.acked.entry(identity.clone()).or_default();
                    *acked = (*acked).max(*seq);
                }
            }
            _ => {}
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Server>) {
        if let Output::Send { conn, frame } = &output
            && frame.seq > 0
            && let Some(identity) = self.connections.get(conn)
        {
            self.sent.insert(identity.clone(), frame.seq);
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn stale_ack_prunes(core: Server) -> SessionServerCore {
    Twisted::boxed(core, StaleAckPrunes::default())
}

/// Who acknowledges nothing for long loses its outbox, connected or not, and gets another one.
struct JanitorDropsLive {
    idle_max: Duration,
    now: Option<Instant>,
    /// Since when a connection was not heard, and the last number of an outbox that is gone.
    connections: BTreeMap<ConnectionId, Watched>,
}

struct Watched {
    touched: Instant,
    last: u64,
    dropped: u64,
}

impl Twist<Server> for JanitorDropsLive {
    fn input(&mut self, now: Instant, input: Input, hands: &mut Hands<Server>) {
        self.now = Some(now);
        match &input {
            Input::Connected { conn, since, .. } => {
                let watched = Watched { touched: now, last: *since, dropped: 0 };
                self.connections.insert(*conn, watched);
            }
            Input::Frame { conn, frame: ClientFrame::Ack { .. } } => {
                if let Some(watched) = self.connections.get_mut(conn) {
                    watched.touched = now;
                }
            }
            _ => {}
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, mut output: Output, hands: &mut Hands<Server>) {
        if let (Output::Send { conn, frame }, Some(now)) = (&mut output, self.now)
            && let Some(watched) = self.connections.get_mut(conn)
        {
            if now >= watched.touched + self.idle_max {
                (watched.touched, watched.dropped) = (now, watched.last);
            }
            if let Body::Ping { sent: Some(sent) } = &mut frame.body {
                *sent -= watched.dropped.min(*sent);
            }
            if frame.seq > 0 {
                watched.last = frame.seq;
                frame.seq -= watched.dropped.min(frame.seq - 1);
            }
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn janitor_drops_live(core: Server) -> SessionServerCore {
    let idle_max = core.config().idle_max;
    let twist = JanitorDropsLive { idle_max, now: None, connections: BTreeMap::new() };
    Twisted::boxed(core, twist)
}

/// Histories are not what they should be.
struct Mistold<T> {
    change: fn(&mut T, &Identity, &mut History),
    connections: BTreeMap<ConnectionId, Identity>,
    memory: T,
}

impl<T: Send + 'static> Twist<Server> for Mistold<T> {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Server>) {
        if let Input::Connected { conn, identity, .. } = &input {
            self.connections.insert(*conn, identity.clone());
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, mut output: Output, hands: &mut Hands<Server>) {
        if let Output::Send { conn, frame: ServerFrame { body: Body::History(history), .. } } =
            &mut output
            && let Some(identity) = self.connections.get(conn)
        {
            (self.change)(&mut self.memory, identity, Arc::make_mut(history));
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn question_not_in_history(core: Server) -> SessionServerCore {
    let change = |(): &mut (), _: &Identity, history: &mut History| history.open_question = None;
    Twisted::boxed(core, Mistold { change, connections: BTreeMap::new(), memory: () })
}

pub(in crate::mutants) fn history_of_old(core: Server) -> SessionServerCore {
    let change =
        |first: &mut BTreeMap<Arc<str>, History>, who: &Identity, history: &mut History| {
            let first = first.entry(who.principal.clone()).or_insert_with(|| history.clone());
            *history = History { epoch: history.epoch.take(), ..first.clone() };
        };
    Twisted::boxed(core, Mistold { change, connections: BTreeMap::new(), memory: BTreeMap::new() })
}

/// An answer is taken for whatever is asked when it comes.
struct AnswersAnything;

impl Twist<Server> for AnswersAnything {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Server>) {
        if let Input::Frame { frame: ClientFrame::UserAnswer { question, .. }, .. } = &mut input {
            *question = None;
        }
        hands.inputs.push_back(input);
    }
}

pub(in crate::mutants) fn answers_anything(core: Server) -> SessionServerCore {
    Twisted::boxed(core, AnswersAnything)
}

/// All clients of a user share one outbox.
struct OneOutbox;

impl Twist<Server> for OneOutbox {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Server>) {
        if let Input::Connected { identity, .. } = &mut input {
            identity.client = Name::parse("tab").expect("it is short");
        }
        hands.inputs.push_back(input);
    }
}

pub(in crate::mutants) fn one_outbox(core: Server) -> SessionServerCore {
    Twisted::boxed(core, OneOutbox)
}

/// The end of a connection removes the one that took its place: nothing but pings is sent there.
#[derive(Default)]
struct OldEndRemovesNew {
    now: Option<Instant>,
    connections: BTreeMap<ConnectionId, Identity>,
    newest: BTreeMap<Identity, ConnectionId>,
    /// When the end of the old connection is noticed, and what it removes.
    ending: Vec<(Instant, ConnectionId)>,
    deaf: BTreeSet<ConnectionId>,
    sent: BTreeMap<ConnectionId, u64>,
}

impl OldEndRemovesNew {
    const LATER: Duration = Duration::from_millis(300);
}

impl Twist<Server> for OldEndRemovesNew {
    fn input(&mut self, now: Instant, input: Input, hands: &mut Hands<Server>) {
        self.now = Some(now);
        if let Input::Connected { conn, identity, .. } = &input {
            self.connections.insert(*conn, identity.clone());
            self.newest.insert(identity.clone(), *conn);
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, mut output: Output, hands: &mut Hands<Server>) {
        let Some(now) = self.now else { return hands.outputs.push_back(output) };
        let ended = self.ending.extract_if(.., |(at, _)| *at <= now);
        self.deaf.extend(ended.map(|(_, conn)| conn));
        match &mut output {
            Output::Close { conn, code: CloseCode::SUPERSEDED, .. } => {
                let identity = self.connections.get(conn);
                let newest = identity.and_then(|identity| self.newest.get(identity));
                self.ending.extend(newest.map(|newest| (now + Self::LATER, *newest)));
            }
            Output::Send { conn, frame } => {
                let last = self.sent.entry(*conn).or_default();
                match &mut frame.body {
                    Body::Ping { sent } => *sent = sent.map(|sent| sent.min(*last)),
                    _ if self.deaf.contains(conn) => {
                        // The core waits for the socket to take it.
                        let conn = *conn;
                        hands.inputs.push_back(Input::Written { conn, frames: 1 });
                        return;
                    }
                    _ => *last = (*last).max(frame.seq),
                }
            }
            _ => {}
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn old_end_removes_new(core: Server) -> SessionServerCore {
    Twisted::boxed(core, OldEndRemovesNew::default())
}

/// With the turn of a message begins that of the next one that waits.
#[derive(Default)]
struct SideBySide {
    asked: BTreeMap<StoreId, Arc<str>>,
    waiting: BTreeMap<Turn, Row>,
    /// Turns that the core has not begun, and what the application has said in them.
    early: BTreeMap<Turn, Vec<Input>>,
}

impl Twist<Server> for SideBySide {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Server>) {
        match &input {
            Input::Stored(id, Ok(Reply::Input(Verdict::Accepted(row)))) => {
                if let Some(principal) = self.asked.remove(id).filter(|_| row.kind == Kind::Message)
                {
                    self.waiting.insert(Turn { principal, position: row.position }, row.clone());
                }
            }
            Input::Say { turn, .. } | Input::End { turn, .. } => {
                if let Some(said) = self.early.get_mut(turn) {
                    said.push(input);
                    return;
                }
            }
            Input::Progress { turn, .. } if self.early.contains_key(turn) => return,
            _ => {}
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Server>) {
        match &output {
            Output::Store(id, Command::Input { principal, .. }) => {
                self.asked.insert(*id, principal.clone());
            }
            Output::Run(Work { turn, .. }) => {
                self.waiting.remove(turn);
                if let Some(said) = self.early.remove(turn) {
                    hands.inputs.extend(said);
                    return;
                }
                let principal = turn.principal.clone();
                hands.outputs.push_back(output);
                let is_next = |(turn, _): &(&Turn, &Row)| turn.principal == principal;
                if let Some((turn, row)) = self.waiting.iter().find(is_next) {
                    let work = Work { turn: turn.clone(), input: row.clone() };
                    self.early.insert(work.turn.clone(), Vec::new());
                    hands.outputs.push_back(Output::Run(work));
                }
                return;
            }
            _ => {}
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn side_by_side(core: Server) -> SessionServerCore {
    Twisted::boxed(core, SideBySide::default())
}
