//! The link: dialing, the hello and its answer, and the pump that sends what waits.
//!
//! The pump has one position: a row of the store. Everything behind it that is not acknowledged is
//! sent in the order of the rows; what is stored later comes later. A replay and live output are
//! the same thing, so nothing can overtake [TK-8].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Agent, Delivery, Notice, Output, Pending, Phase, Timer};
use crate::mark;
use crate::recovery::{Backoff, BackoffConfig, Instant, Liveness, LivenessAction};
use crate::tasks::store::{Command, Known, Message, MessageBody, Snapshot, StoredFinal};
use crate::tasks::wire::{
    Ack, AgentMessage, ControllerMessage, Envelope, ErrorFrame, Hello, HelloAck, LostOutput,
    Output as Piece, codes,
};
use crate::tasks::{Attempt, MessageId, OutputStream, Status};
use crate::{CloseCode, ConnectionId};

pub(super) enum Link {
    /// Not started, or stopped.
    Down,
    Dialing(ConnectionId),
    Open(Box<Session>),
    /// [`Timer::Reconnect`] is armed.
    Waiting,
}

pub(super) struct Session {
    conn: ConnectionId,
    stage: Stage,
    /// The message id of the hello.
    hello: Option<MessageId>,
    /// The extension is in force.
    extension: bool,
    /// What of the hello_ack is not stored yet.
    applying: usize,
    liveness: Liveness,
    pump: Pump,
    /// The pauses before streams are taken up again that the controller did not follow.
    stopped: Backoff,
    /// Ends of streams that were declared lost, by the names of the messages.
    lost: BTreeMap<MessageId, StreamKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The store is asked what there is.
    Asking,
    /// The hello is sent.
    Greeted,
    /// The answer is being stored.
    Applying,
    /// Both sides agree on what there is.
    Active,
}

/// The longest pause before streams are taken up again, in acknowledgement timeouts.
const STOPPED_PAUSE_MAX: u32 = 16;

/// How many gaps are remembered. Beyond, the stream of a new one is stopped as if it was named again,
/// and when it is taken up, all are forgotten.
const GAPS_MAX: usize = 1_024;

/// A stream of an attempt.
type StreamKey = (Attempt, OutputStream);

#[derive(Default)]
struct Pump {
    /// Everything up to this row has been looked at.
    position: u64,
    page: VecDeque<Message>,
    /// The store is asked for a page; the newest row that was known then.
    reading: Option<u64>,
    /// The position was set back meanwhile: the page that comes is not the next one.
    stale: bool,
    /// What is sent and not acknowledged, by row.
    window: BTreeMap<u64, Sent>,
    rows: BTreeMap<MessageId, u64>,
    bytes: usize,
    /// The highest number of each stream that was sent here, or that the controller says it has.
    highest: BTreeMap<StreamKey, u64>,
    /// The controller does not want to have output up to this row replayed now …
    withheld_through: u64,
    /// … but for these streams.
    wanted: BTreeSet<StreamKey>,
    /// Streams of which something is held back: what is newer waits for it.
    held_back: BTreeSet<StreamKey>,
    /// The gaps that were asked for, at most [`GAPS_MAX`] [TK-10].
    gaps: BTreeSet<(StreamKey, u64)>,
    /// Streams that the controller does not follow, until [`Timer::Stopped`].
    stopped: BTreeSet<StreamKey>,
    /// How often the oldest message was sent again.
    resends: u32,
    /// How many messages were sent on this connection.
    sends: u64,
}

/// A message that waits for its acknowledgement.
struct Sent {
    message_id: MessageId,
    bytes: usize,
    /// Its number, if it is output.
    number: Option<(StreamKey, u64)>,
    /// It was the n-th that was sent on this connection.
    nth: u64,
    /// It was sent because nothing was acknowledged.
    again: bool,
}

impl Link {
    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Open(session) => Some(session.conn),
            Self::Dialing(conn) => Some(*conn),
            Self::Down | Self::Waiting => None,
        }
    }

    pub(super) fn liveness_deadline(&self) -> Option<Instant> {
        match self {
            Self::Open(session) => session.liveness.deadline(),
            Self::Down | Self::Dialing(_) | Self::Waiting => None,
        }
    }

    /// Whether both sides agree, and everything up to a row is acknowledged.
    pub(super) fn has_said_all(&self, newest_row: u64) -> bool {
        match self {
            Self::Open(session) => {
                let pump = &session.pump;
                session.stage == Stage::Active
                    && pump.position >= newest_row
                    && pump.page.is_empty()
                    && pump.window.is_empty()
                    && pump.held_back.is_empty()
            }
            Self::Down | Self::Dialing(_) | Self::Waiting => false,
        }
    }

    fn session(&mut self, conn: ConnectionId) -> Option<&mut Session> {
        match self {
            Self::Open(session) if session.conn == conn => Some(session),
            _ => None,
        }
    }
}

impl Agent {
    // ---- connecting --------------------------------------------------------------------------

    pub(super) fn dial(&mut self, now: Instant) {
        self.connections += 1;
        let conn = ConnectionId(self.connections);
        self.link = Link::Dialing(conn);
        self.timers.set(Timer::Connect, now + self.config.connect_timeout);
        self.outputs.push_back(Output::Dial { conn });
    }

    pub(super) fn dial_failed(&mut self, now: Instant, conn: ConnectionId, reason: String) {
        if matches!(self.link, Link::Dialing(dialing) if dialing == conn) {
            mark!("tasks.dial_failed");
            self.lost(now, reason);
        }
    }

    pub(super) fn opened(&mut self, now: Instant, conn: ConnectionId) {
        if !matches!(self.link, Link::Dialing(dialing) if dialing == conn) {
            let (code, reason) = (CloseCode::NORMAL, "replaced");
            self.outputs.push_back(Output::Close { conn, code, reason });
            return;
        }
        self.timers.stop(Timer::Connect);
        self.timers.set(Timer::Handshake, now + self.config.handshake_timeout);
        self.link = Link::Open(Box::new(Session {
            conn,
            stage: Stage::Asking,
            hello: None,
            extension: false,
            applying: 0,
            liveness: Liveness::new(self.config.liveness, now),
            pump: Pump::default(),
            stopped: Backoff::new(BackoffConfig {
                min: self.config.ack_timeout,
                max: self.config.ack_timeout * STOPPED_PAUSE_MAX,
                jitter_percent: 25,
            }),
            lost: BTreeMap::new(),
        }));
        // What waits now is listed in the hello; the controller may not want it any more.
        self.runs.hold(true);
        let (finals_max, ranges_max) = (self.config.hello_finals_max, self.config.hello_ranges_max);
        self.store(Pending::Snapshot(conn), Command::Snapshot { finals_max, ranges_max });
    }

    pub(super) fn closed(&mut self, now: Instant, conn: ConnectionId, code: Option<CloseCode>) {
        if self.link.connection() == Some(conn) {
            let reason = match code {
                Some(code) => format!("the controller closed the connection with code {code}"),
                None => "the connection broke".to_owned(),
            };
            self.lost(now, reason);
        } else {
            mark!("tasks.close_of_replaced_connection");
        }
    }

    /// The link is gone, or never came to be: wait and try again [CORE-11].
    fn lost(&mut self, now: Instant, reason: String) {
        if let Link::Open(session) = &self.link {
            match session.stage {
                Stage::Asking | Stage::Greeted | Stage::Applying => {
                    mark!("tasks.cut_in_the_handshake");
                }
                Stage::Active if !session.pump.window.is_empty() => {
                    mark!("tasks.cut_with_messages_unacknowledged");
                }
                Stage::Active => {}
            }
        }
        for timer in [
            Timer::Connect,
            Timer::Handshake,
            Timer::Ack,
            Timer::Withheld,
            Timer::LostEnds,
            Timer::Stopped,
        ] {
            self.timers.stop(timer);
        }
        let retry_in = self.reconnect.next_delay(&mut *self.entropy);
        self.link = Link::Waiting;
        // Whatever the controller wanted to say of it, it has not said: see [TK-18].
        self.runs.hold(false);
        self.timers.set(Timer::Reconnect, now + retry_in);
        self.notify(Notice::Disconnected { reason, retry_in });
        self.link_is_down(now);
    }

    pub(super) fn drop_link(&mut self, now: Instant, code: CloseCode, reason: &'static str) {
        if let Some(conn) = self.link.connection() {
            self.outputs.push_back(Output::Close { conn, code, reason });
            self.lost(now, reason.to_owned());
        }
    }

    // ---- liveness ----------------------------------------------------------------------------

    /// Any frame is a sign of life [CORE-10].
    pub(super) fn heard(&mut self, now: Instant, conn: ConnectionId) -> bool {
        match self.link.session(conn) {
            Some(session) => {
                session.liveness.on_inbound(now);
                true
            }
            None => false,
        }
    }

    pub(super) fn ping_written(&mut self, now: Instant, conn: ConnectionId) {
        if let Some(session) = self.link.session(conn) {
            session.liveness.on_ping_written(now);
        }
    }

    pub(super) fn check_liveness(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        match session.liveness.handle_timeout(now) {
            LivenessAction::None => {}
            LivenessAction::SendPing => {
                let conn = session.conn;
                self.outputs.push_back(Output::Ping { conn });
            }
            LivenessAction::Dead => {
                mark!("tasks.silent_controller_dropped");
                self.drop_link(now, CloseCode::SILENT, "nothing was heard from the controller");
            }
        }
    }

    // ---- saying ------------------------------------------------------------------------------

    /// Sends a message that the next hello makes up for if it is lost.
    pub(super) fn say(&mut self, message: AgentMessage) {
        if let Link::Open(session) = &self.link
            && session.stage >= Stage::Greeted
        {
            let (conn, extension) = (session.conn, session.extension);
            let message_id = self.message_id();
            self.outputs.push_back(Output::Send { conn, message_id, message, extension });
        }
    }

    /// Sends a result again to a controller that does not know it [TK-17].
    pub(super) fn say_final(&mut self, stored: StoredFinal) {
        if let Link::Open(session) = &self.link
            && session.stage == Stage::Active
        {
            let (conn, extension) = (session.conn, session.extension);
            let (message_id, message) = (stored.message_id, AgentMessage::Final(stored.result));
            self.outputs.push_back(Output::Send { conn, message_id, message, extension });
        }
    }

    /// Says no, to a controller that understands it.
    pub(super) fn say_error(
        &mut self,
        (code, retryable): (&'static str, bool),
        text: &str,
        attempt: Attempt,
        related: &MessageId,
    ) {
        if let Link::Open(session) = &self.link
            && session.extension
        {
            self.say(AgentMessage::Error(ErrorFrame {
                code: code.to_owned(),
                message: text.to_owned(),
                retryable,
                related: Some(related.clone()),
                highest_accepted_sequence: None,
                attempt: Some(attempt),
            }));
        }
    }

    /// Tells what became of an attempt that the controller did not want any more [TK-18].
    pub(super) fn tell_state(
        &mut self,
        conn: ConnectionId,
        attempt: &Attempt,
        known: Option<Known>,
    ) {
        if self.link.session(conn).is_none() {
            return;
        }
        match known {
            Some(Known { status: Status::Running, .. }) => {
                mark!("tasks.discard_came_too_late");
                self.say(AgentMessage::Started(attempt.clone()));
            }
            Some(Known { status: Status::Final(_), result: Some(stored), .. }) => {
                mark!("tasks.discard_came_too_late");
                self.say_final(stored);
            }
            _ => {}
        }
    }

    /// Tells what became of an attempt, to a controller that does not want it to be made.
    fn query(&mut self, conn: ConnectionId, attempt: Attempt, asked: MessageId) {
        // What the hello_ack says is stored before the answer is looked up. Earlier nothing is agreed
        // on; it is asked again.
        if self.link.session(conn).is_none_or(|session| session.stage < Stage::Applying) {
            return;
        }
        self.store(Pending::Query(conn, attempt.clone(), asked), Command::Find(attempt));
    }

    pub(super) fn answer_query(
        &mut self,
        conn: ConnectionId,
        attempt: &Attempt,
        known: Option<Known>,
        asked: &MessageId,
    ) {
        if self.link.session(conn).is_none() {
            return;
        }
        match known {
            Some(Known { status: Status::Received, .. }) => {
                self.say(AgentMessage::Received(attempt.clone()));
            }
            Some(Known { status: Status::Running, .. }) => {
                self.say(AgentMessage::Started(attempt.clone()));
            }
            Some(Known { status: Status::Final(_), result, .. }) => {
                mark!("tasks.finished_attempt_answered");
                if let Some(stored) = result {
                    self.say_final(stored);
                }
            }
            None => {
                mark!("tasks.unknown_attempt_answered");
                let (code, attempt) = (codes::UNKNOWN_ATTEMPT, attempt.clone());
                self.say_error((code, false), "nothing is known of the attempt", attempt, asked);
            }
        }
    }

    /// Looks for ends of streams that were given up since the hello, once nothing else waits: no
    /// piece follows that could say so.
    pub(super) fn look_for_lost_ends(&mut self, now: Instant) {
        let (newest_row, count_max) = (self.newest_row, self.config.hello_ranges_max);
        self.timers.set(Timer::LostEnds, now + self.config.ack_timeout);
        let Link::Open(session) = &self.link else { return };
        let pump = &session.pump;
        if session.stage == Stage::Active
            && pump.window.is_empty()
            && pump.page.is_empty()
            && pump.position >= newest_row
        {
            let conn = session.conn;
            self.store(Pending::LostEnds(conn), Command::LostEnds { count_max });
        }
    }

    pub(super) fn say_lost(&mut self, conn: ConnectionId, ends: Vec<LostOutput>) {
        let mut lost = BTreeMap::new();
        for end in ends {
            mark!("tasks.lost_end_declared");
            let message_id = self.message_id();
            lost.insert(message_id.clone(), (end.attempt.clone(), end.stream));
            let (message, extension) = (AgentMessage::Lost(end), true);
            self.outputs.push_back(Output::Send { conn, message_id, message, extension });
        }
        if let Some(session) = self.link.session(conn) {
            session.lost = lost;
        }
    }

    // ---- the handshake -----------------------------------------------------------------------

    pub(super) fn greet(&mut self, _now: Instant, conn: ConnectionId, mut snapshot: Snapshot) {
        cut(&mut snapshot, self.config.hello_bytes_max);
        let Phase::Ready { life } = &self.phase else { return };
        let life = life.clone();
        let message_id = self.message_id();
        let offer = self.config.extension;
        let Some(session) = self.link.session(conn) else { return };
        session.stage = Stage::Greeted;
        session.hello = Some(message_id.clone());
        session.pump.withheld_through = snapshot.newest_row;
        self.newest_row = self.newest_row.max(snapshot.newest_row);
        if !snapshot.complete {
            mark!("tasks.hello_cut");
        }
        let hello = Hello {
            running_task: snapshot.running.last().cloned(),
            running_tasks: snapshot.running,
            received_not_started: snapshot.received,
            unacked_finals: snapshot.finals,
            unacked_output: snapshot.output,
            lost_output: snapshot.lost,
            spool: snapshot.spool,
            client_version: self.config.client_version.clone(),
            store: offer.then_some(life),
            complete: snapshot.complete,
        };
        mark!("tasks.hello_sent");
        let message = AgentMessage::Hello(Box::new(hello));
        self.outputs.push_back(Output::Send { conn, message_id, message, extension: offer });
    }

    fn hello_ack(&mut self, now: Instant, conn: ConnectionId, ack: HelloAck) {
        let offered = self.config.extension;
        let Some(session) = self.link.session(conn) else { return };
        if session.stage != Stage::Greeted || session.hello.as_ref() != Some(&ack.acked) {
            mark!("tasks.stale_hello_ack_ignored");
            return;
        }
        self.timers.stop(Timer::Handshake);
        session.stage = Stage::Applying;
        session.extension = ack.extension && offered;
        let mut commands: Vec<Command> =
            ack.acknowledged_finals.unwrap_or_default().into_iter().map(Command::Ack).collect();
        match ack.output_replay {
            // Nothing is said about output: all of it is replayed.
            None => session.pump.withheld_through = 0,
            Some(replay) => {
                mark!("tasks.replay_directed");
                for from in replay {
                    let (attempt, stream) = (from.attempt, from.stream);
                    let through = from.next_sequence - 1;
                    let key = (attempt.clone(), stream);
                    session.pump.highest.insert(key.clone(), through);
                    session.pump.wanted.insert(key);
                    if through > 0 {
                        commands.push(Command::AckOutput { attempt, stream, through });
                    }
                }
            }
        }
        if let Phase::Ready { life } = &self.phase
            && ack.extension
        {
            commands.push(Command::Acknowledged(life.epoch.clone()));
        }
        let discarded: Vec<Attempt> =
            ack.discarded.unwrap_or_default().into_iter().map(|it| it.attempt).collect();
        session.applying = commands.len() + usize::from(!discarded.is_empty());
        let nothing = session.applying == 0;
        for command in commands {
            self.store(Pending::Apply(conn), command);
        }
        if !discarded.is_empty() {
            let command = Command::Discard(discarded.clone());
            self.store(Pending::Discard(conn, discarded), command);
        }
        if nothing {
            self.activate(now);
        }
    }

    /// Something of the hello_ack is stored.
    pub(super) fn applied(&mut self, now: Instant, conn: ConnectionId) {
        let Some(session) = self.link.session(conn) else { return };
        session.applying -= 1;
        if session.applying == 0 {
            self.activate(now);
        }
    }

    pub(super) fn discarded(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        wanted: &[Attempt],
        gone: &[Attempt],
    ) {
        for attempt in gone {
            mark!("tasks.discarded");
            self.runs.drop_waiting(attempt);
        }
        for attempt in wanted.iter().filter(|attempt| !gone.contains(attempt)) {
            let command = Command::Find((*attempt).clone());
            self.store(Pending::Tell(conn, (*attempt).clone()), command);
        }
        self.applied(now, conn);
    }

    /// Both sides agree on what there is: from here on everything that waits is sent.
    fn activate(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        session.stage = Stage::Active;
        if session.pump.withheld_through > 0 {
            self.timers.set(Timer::Withheld, now + self.config.ack_timeout);
        }
        if session.extension {
            self.timers.set(Timer::LostEnds, now + self.config.ack_timeout);
        }
        mark!("tasks.active");
        self.reconnect.reset();
        self.reconciled = true;
        self.forked = false;
        self.runs.hold(false);
        self.link_is_up();
        self.notify(Notice::Active);
    }

    // ---- frames ------------------------------------------------------------------------------

    pub(super) fn frame(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        frame: Envelope<ControllerMessage>,
    ) {
        if !self.heard(now, conn) {
            mark!("tasks.frame_of_replaced_connection");
            return;
        }
        if self.pending.len() + self.unreleased.len() >= self.config.waiting_max {
            mark!("tasks.agent_flooded");
            self.drop_link(now, CloseCode::PROTOCOL, "more frames than the store can take");
            return;
        }
        match frame.message {
            ControllerMessage::HelloAck(ack) => self.hello_ack(now, conn, ack),
            ControllerMessage::Deliver(deliver) => {
                self.deliver(Delivery { deliver, message_id: Some(frame.message_id) });
            }
            ControllerMessage::Query(attempt) => self.query(conn, attempt, frame.message_id),
            ControllerMessage::Ack(ack) => self.ack(now, conn, &ack),
            ControllerMessage::Error(error) => self.error(now, conn, error),
        }
    }

    /// The controller has a message, and perhaps everything of its stream before it [TK-9].
    fn ack(&mut self, now: Instant, conn: ConnectionId, ack: &Ack) {
        let Some(session) = self.link.session(conn) else { return };
        if let Some((attempt, stream)) = session.lost.remove(&ack.acked) {
            if let Some(through) = ack.highest_output_sequence {
                self.release(Command::AckOutput { attempt, stream, through });
            }
            return;
        }
        let pump = &mut session.pump;
        let mut released = Vec::new();
        if let Some(row) = pump.rows.get(&ack.acked).copied() {
            let sent = pump.forget(row);
            if let Some(nth) = sent.as_ref().filter(|sent| sent.again).map(|sent| sent.nth) {
                pump.forget_before(nth);
            }
            if let Some((key, sequence)) = sent.and_then(|sent| sent.number) {
                let through = ack.highest_output_sequence.filter(|it| *it >= sequence);
                if let Some(through) = through {
                    pump.forget_stream(&key, through);
                    let (attempt, stream) = key;
                    released.push(Command::AckOutput { attempt, stream, through });
                }
            }
            pump.resends = 0;
            match pump.window.is_empty() {
                true => self.timers.stop(Timer::Ack),
                false => self.timers.set(Timer::Ack, now + self.config.ack_timeout),
            }
        } else {
            mark!("tasks.acknowledged_again");
        }
        // It may be of an earlier connection; what is durable there is not needed here.
        if matches!(ack.acked_type.as_str(), "task.output" | "task.final") {
            released.push(Command::Ack(ack.acked.clone()));
        }
        for command in released {
            self.release(command);
        }
    }

    fn error(&mut self, now: Instant, conn: ConnectionId, error: ErrorFrame) {
        let Some(session) = self.link.session(conn) else { return };
        let pump = &mut session.pump;
        let row = error.related.as_ref().and_then(|id| pump.rows.get(id)).copied();
        match (error.code.as_str(), row) {
            (codes::OUTPUT_SEQUENCE_GAP, Some(row)) if error.retryable => {
                let number = pump.window.get(&row).and_then(|sent| sent.number.clone());
                if let (Some((key, _)), Some(highest)) = (number, error.highest_accepted_sequence) {
                    self.gap(now, conn, key, highest);
                }
            }
            (codes::STORE_FORKED, _) => {
                mark!("tasks.store_forked");
                self.forked = true;
                self.notify(Notice::Forked { reason: error.message });
                self.drop_link(now, CloseCode::NORMAL, "another copy of the store is in use");
            }
            (_, Some(row)) if !error.retryable => {
                mark!("tasks.quarantined");
                if let Some(sent) = pump.forget(row) {
                    let (message_id, reason) = (sent.message_id, error.message);
                    self.release(Command::Quarantine(message_id.clone()));
                    self.notify(Notice::Quarantined { message_id, reason });
                }
            }
            // It is sent again when its acknowledgement does not come.
            _ => mark!("tasks.error_ignored"),
        }
    }

    /// The controller has a stream up to a number only: the rest is sent once more. The same gap is
    /// filled once on a connection; who names it again does not follow [TK-10].
    fn gap(&mut self, now: Instant, conn: ConnectionId, key: StreamKey, highest: u64) {
        let Some(session) = self.link.session(conn) else { return };
        let pump = &mut session.pump;
        let is_new = pump.gaps.len() < GAPS_MAX && pump.gaps.insert((key.clone(), highest));
        if is_new {
            mark!("tasks.gap_filled");
            pump.forget_stream(&key, u64::MAX);
            pump.highest.insert(key.clone(), highest);
            pump.wanted.insert(key.clone());
            pump.held_back.remove(&key);
            pump.set_back();
            let (attempt, stream) = key;
            if highest > 0 {
                self.release(Command::AckOutput { attempt, stream, through: highest });
            }
        } else if pump.highest.get(&key).is_some_and(|sent| *sent > highest)
            && pump.stopped.insert(key.clone())
        {
            mark!("tasks.stream_stopped");
            pump.forget_stream(&key, u64::MAX);
            let pause = session.stopped.next_delay(&mut *self.entropy);
            self.timers.set(Timer::Stopped, now + pause);
            let (attempt, stream) = key;
            self.notify(Notice::StreamStopped { attempt, stream });
        }
    }

    /// The controller may follow now: a record that could not be written may be written again.
    pub(super) fn take_up_stopped(&mut self) {
        let Link::Open(session) = &mut self.link else { return };
        mark!("tasks.stopped_stream_taken_up");
        let stopped = std::mem::take(&mut session.pump.stopped);
        match session.pump.gaps.len() < GAPS_MAX {
            true => session.pump.gaps.retain(|(key, _)| !stopped.contains(key)),
            false => session.pump.gaps.clear(),
        }
        session.pump.wanted.extend(stopped);
        session.pump.set_back();
    }

    // ---- the pump ----------------------------------------------------------------------------

    /// Sends what waits, as far as the window allows.
    pub(super) fn pump(&mut self, now: Instant) {
        let newest_row = self.newest_row;
        loop {
            let Link::Open(session) = &mut self.link else { return };
            let pump = &mut session.pump;
            let full = pump.window.len() >= self.config.window_messages
                || pump.bytes >= self.config.window_bytes;
            if session.stage != Stage::Active || full {
                return;
            }
            let Some(message) = pump.page.pop_front() else {
                if pump.position < newest_row && pump.reading.is_none() {
                    pump.reading = Some(newest_row);
                    let command = Command::ReadOutbox {
                        after: pump.position,
                        count_max: self.config.page_messages,
                        bytes_max: self.config.page_bytes,
                    };
                    let conn = session.conn;
                    self.store(Pending::Page(conn), command);
                }
                return;
            };
            pump.position = message.row;
            if pump.wants(&message) {
                self.send(now, message, false);
            }
        }
    }

    fn send(&mut self, now: Instant, message: Message, again: bool) {
        let Link::Open(session) = &mut self.link else { return };
        let (conn, extension) = (session.conn, session.extension);
        let pump = &mut session.pump;
        let (content, bytes, number) = match message.body {
            MessageBody::Output { chunk, lost_before } => {
                let key = (chunk.attempt.clone(), chunk.stream);
                let before = pump.highest.get(&key).copied();
                let skips = before.is_some_and(|before| chunk.sequence > before + 1);
                let truncated_locally = skips || lost_before.is_some();
                if truncated_locally {
                    mark!("tasks.hole_declared");
                }
                pump.highest.insert(key.clone(), chunk.sequence.max(before.unwrap_or(0)));
                let piece = Piece {
                    attempt: chunk.attempt,
                    stream: chunk.stream,
                    sequence: chunk.sequence,
                    data: chunk.data,
                    truncated_locally,
                };
                let bytes = piece.data.len();
                let number = Some((key, piece.sequence));
                (AgentMessage::Output(piece), bytes, number)
            }
            MessageBody::Final(result) => {
                let bytes = result.error.len();
                (AgentMessage::Final(result), bytes, None)
            }
        };
        let message_id = message.message_id;
        if pump.window.is_empty() {
            self.timers.set(Timer::Ack, now + self.config.ack_timeout);
        }
        pump.bytes += bytes;
        pump.rows.insert(message_id.clone(), message.row);
        pump.sends += 1;
        let sent = Sent { message_id: message_id.clone(), bytes, number, nth: pump.sends, again };
        pump.window.insert(message.row, sent);
        self.outputs.push_back(Output::Send { conn, message_id, message: content, extension });
    }

    pub(super) fn page(&mut self, _now: Instant, conn: ConnectionId, messages: Vec<Message>) {
        let Some(session) = self.link.session(conn) else { return };
        let pump = &mut session.pump;
        let newest_row = pump.reading.take();
        if std::mem::take(&mut pump.stale) {
            return;
        }
        if messages.is_empty() {
            // What was there is acknowledged or given up.
            pump.position = pump.position.max(newest_row.unwrap_or(0));
        }
        pump.page = messages.into();
    }

    /// Nothing was acknowledged for long: the oldest message is sent again, and no other [TK-9].
    pub(super) fn ack_timed_out(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        let Some(row) = session.pump.window.keys().next().copied() else { return };
        if session.pump.resends >= self.config.resends_max {
            mark!("tasks.nothing_acknowledged");
            self.drop_link(now, CloseCode::SILENT, "nothing is acknowledged");
            return;
        }
        session.pump.resends += 1;
        let conn = session.conn;
        self.timers.set(Timer::Ack, now + self.config.ack_timeout);
        let (count_max, bytes_max) = (1, usize::MAX);
        let command = Command::ReadOutbox { after: row - 1, count_max, bytes_max };
        self.store(Pending::Resend(conn, row), command);
    }

    /// What was not acknowledged in time, the message of `row`, is sent again as the store has it.
    pub(super) fn resend(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        row: u64,
        messages: Vec<Message>,
    ) {
        let Some(session) = self.link.session(conn) else { return };
        if !session.pump.window.contains_key(&row) {
            mark!("tasks.acknowledged_before_sent_again");
            return;
        }
        session.pump.forget(row);
        match messages.into_iter().next() {
            Some(message) if message.row == row => {
                mark!("tasks.sent_again");
                self.send(now, message, true);
            }
            // It was given up for want of space.
            _ => mark!("tasks.given_up_while_unacknowledged"),
        }
    }

    /// What the controller did not want to have replayed at once is sent now [TK-8].
    pub(super) fn send_withheld(&mut self, _now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        mark!("tasks.withheld_output_sent");
        session.pump.withheld_through = 0;
        session.pump.held_back.clear();
        session.pump.set_back();
    }
}

/// What an entry of a hello takes beside its texts, at most.
const ENTRY_BYTES: usize = 512;

/// Cuts results and runs of output to a size, keeping the oldest. What is left out is sent all the
/// same, once both sides agree.
fn cut(snapshot: &mut Snapshot, bytes_max: usize) {
    let mut bytes = 0;
    let mut fits = |more: usize| {
        bytes += more;
        bytes <= bytes_max
    };
    let finals = snapshot.finals.iter().take_while(|it| fits(ENTRY_BYTES + 2 * it.1.error.len()));
    let finals = finals.count();
    let output = snapshot.output.iter().take_while(|_| fits(ENTRY_BYTES)).count();
    let lost = snapshot.lost.iter().take_while(|_| fits(ENTRY_BYTES)).count();
    snapshot.complete &= finals == snapshot.finals.len()
        && output == snapshot.output.len()
        && lost == snapshot.lost.len();
    snapshot.finals.truncate(finals);
    snapshot.output.truncate(output);
    snapshot.lost.truncate(lost);
}

impl Pump {
    /// Whether a message is to be sent now.
    fn wants(&mut self, message: &Message) -> bool {
        if self.window.contains_key(&message.row) {
            return false;
        }
        let MessageBody::Output { chunk, .. } = &message.body else { return true };
        let key = (chunk.attempt.clone(), chunk.stream);
        let replayed = message.row <= self.withheld_through && !self.wanted.contains(&key);
        if replayed || self.held_back.contains(&key) {
            self.held_back.insert(key);
            return false;
        }
        !self.stopped.contains(&key)
    }

    fn forget(&mut self, row: u64) -> Option<Sent> {
        let sent = self.window.remove(&row)?;
        self.rows.remove(&sent.message_id);
        self.bytes -= sent.bytes;
        Some(sent)
    }

    /// The controller answers in order: what was sent before a message that it has answered, and is
    /// not answered, it did not store. It is sent once more [TK-9].
    fn forget_before(&mut self, nth: u64) {
        let unanswered = self.window.iter().filter(|(_, sent)| sent.nth < nth);
        let rows: Vec<u64> = unanswered.map(|(row, _)| *row).collect();
        if !rows.is_empty() {
            mark!("tasks.unanswered_sent_again");
            for row in rows {
                self.forget(row);
            }
            self.set_back();
        }
    }

    /// Forgets what was sent of a stream, up to a number.
    fn forget_stream(&mut self, key: &StreamKey, through: u64) {
        let of_stream = |sent: &Sent| {
            sent.number.as_ref().is_some_and(|(of, sequence)| of == key && *sequence <= through)
        };
        let rows: Vec<u64> =
            self.window.iter().filter(|(_, sent)| of_stream(sent)).map(|(row, _)| *row).collect();
        for row in rows {
            self.forget(row);
        }
    }

    /// Looks at everything that waits once more.
    fn set_back(&mut self) {
        self.position = 0;
        self.page.clear();
        self.stale = self.reading.is_some();
    }
}
