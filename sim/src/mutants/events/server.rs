//! What can be wrong with a server.

use std::collections::{BTreeMap, BTreeSet};

use gapless::events::log::{Appended, Command, Reply};
use gapless::events::server::{Input, Output, Server};
use gapless::events::wire::{ClientFrame, Event, Resync, ServerFrame};
use gapless::events::{AgentId, ConnectionId, StoreId};
use gapless::recovery::{Entropy, Epoch, Instant, MAX_SEQUENCE};

use crate::mutants::ServerCore;
use crate::mutants::twist::{Hands, Twist, Twisted};

/// What every twist of a server needs to know: who is connected, and how far the streams are.
#[derive(Default)]
struct Notes {
    agents: BTreeMap<ConnectionId, AgentId>,
    epochs: BTreeMap<ConnectionId, Epoch>,
    appends: BTreeMap<StoreId, AgentId>,
    heads: BTreeMap<AgentId, u64>,
    /// Events of each stream since the process started.
    counted: BTreeMap<AgentId, u64>,
    /// The last number of the replay that a connection is in.
    replaying: BTreeMap<ConnectionId, u64>,
}

impl Notes {
    fn input(&mut self, input: &Input) {
        match input {
            Input::Connected { conn, agent, .. } => {
                self.agents.insert(*conn, agent.clone());
            }
            Input::Disconnected { conn } => self.forget(*conn),
            Input::Stored(id, Ok(Reply::Appended(Appended::New { sequence, .. }))) => {
                if let Some(agent) = self.appends.get(id) {
                    *self.counted.entry(agent.clone()).or_default() += 1;
                    self.heads.insert(agent.clone(), *sequence);
                }
            }
            _ => {}
        }
    }

    fn output(&mut self, output: &Output) {
        match output {
            Output::Store(id, Command::Append(append)) => {
                self.appends.insert(*id, append.agent.clone());
            }
            Output::Close { conn, .. } => self.forget(*conn),
            Output::Send { conn, frame: ServerFrame::Stream(stream) } => {
                self.epochs.insert(*conn, stream.epoch.clone());
                if let Some(agent) = self.agents.get(conn) {
                    self.heads.insert(agent.clone(), stream.head);
                }
            }
            Output::Send { conn, frame: ServerFrame::ResyncBegin(begin) } => {
                self.replaying.insert(*conn, begin.to);
            }
            Output::Send { conn, frame: ServerFrame::ResyncAck(_) } => {
                self.replaying.remove(conn);
            }
            _ => {}
        }
    }

    fn forget(&mut self, conn: ConnectionId) {
        self.agents.remove(&conn);
        self.epochs.remove(&conn);
        self.replaying.remove(&conn);
    }

    /// Events of the connection's stream since the process started.
    fn counted(&self, conn: ConnectionId) -> u64 {
        let agent = self.agents.get(&conn);
        agent.and_then(|agent| self.counted.get(agent)).copied().unwrap_or(0)
    }

    /// The cursor of somebody who has everything.
    fn newest(&self, conn: ConnectionId) -> Option<(Epoch, u64)> {
        let epoch = self.epochs.get(&conn)?.clone();
        Some((epoch, *self.heads.get(self.agents.get(&conn)?)?))
    }
}

/// A `resync` that is on its way in.
fn resync(input: &mut Input) -> Option<(ConnectionId, &mut Resync)> {
    match input {
        Input::Frame { conn, frame: ClientFrame::Resync(resync), .. } => Some((*conn, resync)),
        _ => None,
    }
}

/// Changes a `resync` before the server judges it.
struct Judging {
    notes: Notes,
    change: fn(&Notes, ConnectionId, &mut Resync),
}

impl Twist<Server> for Judging {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Server>) {
        self.notes.input(&input);
        if let Some((conn, resync)) = resync(&mut input) {
            (self.change)(&self.notes, conn, resync);
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Server>) {
        self.notes.output(&output);
        hands.outputs.push_back(output);
    }
}

fn judging(core: Server, change: fn(&Notes, ConnectionId, &mut Resync)) -> ServerCore {
    Twisted::boxed(core, Judging { notes: Notes::default(), change })
}

fn call_up_to_date(notes: &Notes, conn: ConnectionId, resync: &mut Resync) {
    if let Some((epoch, head)) = notes.newest(conn) {
        (resync.epoch, resync.last_seen_seq) = (Some(epoch), head);
    }
}

pub(in crate::mutants) fn counter_reset(core: Server) -> ServerCore {
    judging(core, |notes, conn, resync| {
        if resync.last_seen_seq >= notes.counted(conn) {
            call_up_to_date(notes, conn, resync);
        }
    })
}

pub(in crate::mutants) fn empty_ring_up_to_date(core: Server) -> ServerCore {
    judging(core, |notes, conn, resync| {
        if notes.counted(conn) == 0 {
            call_up_to_date(notes, conn, resync);
        }
    })
}

pub(in crate::mutants) fn restore_unnoticed(core: Server) -> ServerCore {
    judging(core, |notes, conn, resync| {
        if let Some((epoch, _)) = notes.newest(conn).filter(|_| resync.epoch.is_some()) {
            resync.epoch = Some(epoch);
        }
    })
}

/// Base clients are served by their own clock.
#[derive(Default)]
struct ClientClock {
    asked: BTreeMap<ConnectionId, u64>,
}

impl Twist<Server> for ClientClock {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Server>) {
        let mut by_clock = None;
        if let Some((conn, resync)) = resync(&mut input)
            && resync.epoch.is_none()
            && let Some(since) = resync.since
        {
            self.asked.insert(conn, resync.last_seen_seq);
            // A number that nobody has makes the server look by time.
            resync.last_seen_seq = MAX_SEQUENCE;
            by_clock = Some(since);
        }
        if let (Input::Frame { at, .. }, Some(since)) = (&mut input, by_clock) {
            *at = since;
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, mut output: Output, hands: &mut Hands<Server>) {
        if let Output::Send { conn, frame: ServerFrame::ResyncAck(ack) } = &mut output
            && let Some(asked) = self.asked.remove(conn)
        {
            (ack.last_seen_seq, ack.gap_detected) = (asked, false);
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn client_clock(core: Server) -> ServerCore {
    Twisted::boxed(core, ClientClock::default())
}

/// New events overtake replays.
#[derive(Default)]
struct LiveBeforeReplay(Notes);

impl Twist<Server> for LiveBeforeReplay {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Server>) {
        self.0.input(&input);
        if let Input::Stored(id, Ok(Reply::Appended(Appended::New { sequence, body, .. }))) = &input
            && let Some(agent) = self.0.appends.get(id)
        {
            for conn in
                self.0.replaying.keys().filter(|conn| self.0.agents.get(conn) == Some(agent))
            {
                let frame = ServerFrame::Event(Event::stamped(*sequence, body));
                hands.outputs.push_back(Output::Send { conn: *conn, frame });
            }
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Server>) {
        self.0.output(&output);
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn live_before_replay(core: Server) -> ServerCore {
    Twisted::boxed(core, LiveBeforeReplay::default())
}

/// Replays have one page and the ring.
#[derive(Default)]
struct PageLimit {
    notes: Notes,
    sent: BTreeMap<ConnectionId, u64>,
}

impl PageLimit {
    const PAGE: u64 = 1_000;
    const RING: u64 = 500;
}

impl Twist<Server> for PageLimit {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Server>) {
        self.notes.input(&input);
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Server>) {
        self.notes.output(&output);
        match &output {
            Output::Send { conn, frame: ServerFrame::ResyncBegin(_) } => {
                self.sent.insert(*conn, 0);
            }
            Output::Send { conn, frame: ServerFrame::Event(event) } => {
                if let (Some(to), Some(sequence)) =
                    (self.notes.replaying.get(conn), event.sequence())
                {
                    let sent = self.sent.entry(*conn).or_default();
                    *sent += 1;
                    if *sent > Self::PAGE && sequence + Self::RING <= *to {
                        hands.inputs.push_back(Input::Written { conn: *conn, frames: 1 });
                        return;
                    }
                }
            }
            _ => {}
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn page_limit(core: Server) -> ServerCore {
    Twisted::boxed(core, PageLimit::default())
}

/// What a replay sends at once is turned around.
#[derive(Default)]
struct NewestFirst {
    notes: Notes,
    /// Where in the outputs the events of replays are, by connection.
    batch: BTreeMap<ConnectionId, Vec<usize>>,
}

impl Twist<Server> for NewestFirst {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Server>) {
        self.notes.input(&input);
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Server>) {
        self.notes.output(&output);
        if let Output::Send { conn, frame: ServerFrame::Event(_) } = &output
            && self.notes.replaying.contains_key(conn)
        {
            self.batch.entry(*conn).or_default().push(hands.outputs.len());
        }
        hands.outputs.push_back(output);
    }

    fn drained(&mut self, hands: &mut Hands<Server>) {
        for places in std::mem::take(&mut self.batch).into_values() {
            for (first, last) in places.iter().zip(places.iter().rev()).take(places.len() / 2) {
                hands.outputs.swap(*first, *last);
            }
        }
    }
}

pub(in crate::mutants) fn newest_first(core: Server) -> ServerCore {
    Twisted::boxed(core, NewestFirst::default())
}

/// The end of a connection makes the newest one of its agent deaf.
#[derive(Default)]
struct OldCloseRemovesNew {
    agents: BTreeMap<ConnectionId, AgentId>,
    deaf: BTreeSet<ConnectionId>,
}

impl OldCloseRemovesNew {
    fn ended(&mut self, conn: ConnectionId) {
        self.deaf.remove(&conn);
        let Some(agent) = self.agents.remove(&conn) else { return };
        let newest = self.agents.iter().rev().find(|(_, of)| **of == agent);
        self.deaf.extend(newest.map(|(conn, _)| *conn));
    }
}

impl Twist<Server> for OldCloseRemovesNew {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Server>) {
        match &input {
            Input::Connected { conn, agent, .. } => {
                self.agents.insert(*conn, agent.clone());
            }
            Input::Disconnected { conn } => self.ended(*conn),
            _ => {}
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Server>) {
        match &output {
            Output::Close { conn, .. } => self.ended(*conn),
            Output::Send { conn, frame: ServerFrame::Event(_) } if self.deaf.contains(conn) => {
                hands.inputs.push_back(Input::Written { conn: *conn, frames: 1 });
                return;
            }
            _ => {}
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn old_close_removes_new(core: Server) -> ServerCore {
    Twisted::boxed(core, OldCloseRemovesNew::default())
}

/// Whoever connects gets the stream of whoever connected first.
#[derive(Default)]
struct WrongStream(Option<AgentId>);

impl Twist<Server> for WrongStream {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Server>) {
        if let Input::Connected { agent, .. } = &mut input {
            *agent = self.0.get_or_insert_with(|| agent.clone()).clone();
        }
        hands.inputs.push_back(input);
    }
}

pub(in crate::mutants) fn wrong_stream(core: Server) -> ServerCore {
    Twisted::boxed(core, WrongStream::default())
}

/// Counts instead of drawing, anew in each process: the first epoch that the log does not hold yet
/// is taken.
struct Counting(u64);

impl Entropy for Counting {
    fn next_u64(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

pub(in crate::mutants) fn counting_entropy() -> Box<dyn Entropy> {
    Box::new(Counting(0))
}
