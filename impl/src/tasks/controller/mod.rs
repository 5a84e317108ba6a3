//! The controller's side of the task protocol, without I/O.
//!
//! A [`Controller`] gives attempts to agents, and takes what comes of them into its record. It
//! acknowledges nothing before the record has it, and gives an agent nothing new before the two
//! agree on what there is [TK-8].
//!
//! What is accepted and what is not is decided in the record's transactions, see [`record`]; the
//! core decides who is told what, and when.

mod outbound;
pub mod record;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use self::outbound::Outbound;
use self::record::{
    AttemptState, Cancelled, Command, FinalTaken, OutputTaken, Reconciled, Reply, Submitted,
};
use super::wire::{
    Ack, AgentMessage, ControllerMessage, Deliver, Envelope, ErrorFrame, Final, FrameError,
    HelloAck, codes,
};
use super::{Attempt, MessageId};
use crate::mark;
use crate::recovery::{Backoff, BackoffConfig, Entropy, Epoch, Instant, Timers, random_hex_128};
use crate::storage::{StoreError, StoreId};
use crate::{AgentId, CloseCode, ConnectionId, Ticket};

/// The limits and intervals of a controller. The defaults are those of the specification.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// Whether the extension is taken up.
    pub extension: bool,
    /// How long an agent may take to say hello: 15 s.
    pub handshake_timeout: Duration,
    /// How long an agent may say nothing: 90 s.
    pub silence: Duration,
    /// The pauses before an attempt is delivered again: 5 s to 60 s.
    pub redelivery: BackoffConfig,
    /// How many attempts are on their way to one agent: 64.
    pub deliveries_max: usize,
    /// How many frames of a connection may wait for the record: 1,024.
    pub inbound_max: usize,
    /// How many attempts an agent is still to be asked about; what is beyond is asked about after
    /// its next hello: 4,096.
    pub unasked_max: usize,
    /// How many bytes may wait for the socket of an agent before deliveries wait with them: 256 KiB.
    pub outbound_bytes: usize,
    /// How many frames may wait for the socket of an agent: 2,048. Beyond, more is asked than answers
    /// are read.
    pub outbound_max: usize,
    /// How long a socket may take nothing: 30 s.
    pub write_stall: Duration,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            extension: true,
            handshake_timeout: Duration::from_secs(15),
            silence: Duration::from_secs(90),
            redelivery: BackoffConfig {
                min: Duration::from_secs(5),
                max: Duration::from_secs(60),
                jitter_percent: 25,
            },
            deliveries_max: 64,
            inbound_max: 1_024,
            unasked_max: 4_096,
            outbound_bytes: 256 << 10,
            outbound_max: 2_048,
            write_stall: Duration::from_secs(30),
        }
    }
}

/// What can happen to a controller.
#[derive(Debug)]
pub enum Input {
    /// An agent has connected; who it is has been checked [TK-14].
    Connected {
        /// The new connection.
        conn: ConnectionId,
        /// Who.
        agent: AgentId,
    },
    /// A frame arrived.
    Frame {
        /// Where.
        conn: ConnectionId,
        /// What.
        frame: Envelope<AgentMessage>,
    },
    /// A frame arrived that is none of the protocol's.
    Malformed {
        /// Where.
        conn: ConnectionId,
        /// What is wrong with it.
        error: FrameError,
    },
    /// A WebSocket ping or pong arrived: a sign of life and nothing else.
    Alive {
        /// Where.
        conn: ConnectionId,
    },
    /// The oldest messages that were to be sent have left for the network.
    Written {
        /// Where.
        conn: ConnectionId,
        /// How many.
        frames: usize,
    },
    /// The connection is gone.
    Disconnected {
        /// Which.
        conn: ConnectionId,
    },
    /// The record answered.
    Stored(StoreId, Result<Reply, StoreError>),
    /// Somebody asks the record for something; answered by [`Output::Answer`].
    Ask {
        /// Names the question.
        ticket: Ticket,
        /// One that no agent's frame leads to: to submit, retry, cancel, look, read output, or use
        /// a nonce.
        command: Command,
    },
    /// A result came over HTTP [TK-13]; answered by [`Output::Answer`].
    Post {
        /// Names the request.
        ticket: Ticket,
        /// From whom.
        agent: AgentId,
        /// The name of the message.
        message_id: MessageId,
        /// The result.
        result: Final,
    },
    /// An agent asks for tasks over HTTP; answered by [`Output::Tasks`].
    Poll {
        /// Names the request.
        ticket: Ticket,
        /// Who.
        agent: AgentId,
    },
    /// The deadline has come.
    Timeout,
}

/// What a controller wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a message.
    Send {
        /// Where.
        conn: ConnectionId,
        /// Its name.
        message_id: MessageId,
        /// What.
        message: ControllerMessage,
    },
    /// Close a connection. No [`Input::Disconnected`] needs to follow.
    Close {
        /// Which.
        conn: ConnectionId,
        /// The code of the close frame.
        code: CloseCode,
        /// The reason in the close frame.
        reason: &'static str,
    },
    /// Run a storage command; answered by [`Input::Stored`].
    Store(StoreId, Command),
    /// The answer to a question or a result over HTTP.
    Answer {
        /// Which.
        ticket: Ticket,
        /// What the record says.
        result: Result<Reply, StoreError>,
    },
    /// The answer to [`Input::Poll`].
    Tasks {
        /// Which.
        ticket: Ticket,
        /// What is to be done.
        result: Result<Vec<Deliver>, StoreError>,
    },
    /// Tell the operator.
    Notify(Notice),
}

/// What the operator is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// An agent and the controller agree on what there is.
    Active {
        /// Who.
        agent: AgentId,
    },
    /// Attempts were lost with the store of their agent, or by it [TK-16].
    Interrupted {
        /// Whose.
        agent: AgentId,
        /// The attempts.
        attempts: Vec<Attempt>,
    },
    /// An agent came with a store that another copy has replaced: it is not served.
    Forked {
        /// Who.
        agent: AgentId,
    },
    /// An agent did not accept an attempt; it is delivered again later.
    Refused {
        /// Who.
        agent: AgentId,
        /// Which.
        attempt: Attempt,
        /// What the agent says.
        reason: String,
    },
    /// A frame was ignored [CORE-13].
    Ignored {
        /// Whose.
        agent: AgentId,
        /// What is wrong with it.
        error: FrameError,
    },
}

impl fmt::Display for Notice {
    /// In one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active { agent } => write!(f, "agrees with {agent}"),
            Self::Interrupted { agent, attempts } => {
                let attempts: Vec<_> = attempts.iter().map(ToString::to_string).collect();
                write!(f, "lost with the store of {agent}: {}", attempts.join(", "))
            }
            Self::Forked { agent } => write!(f, "{agent} has a store that another has replaced"),
            Self::Refused { agent, attempt, reason } => {
                write!(f, "{agent} does not take {attempt}: {reason}")
            }
            Self::Ignored { agent, error } => write!(f, "ignores a frame of {agent}: {error}"),
        }
    }
}

/// The controller's core. See the [module](self).
pub struct Controller {
    config: ControllerConfig,
    entropy: Box<dyn Entropy>,
    peers: BTreeMap<ConnectionId, Peer>,
    /// The connection of each agent that is there.
    agents: BTreeMap<AgentId, ConnectionId>,
    /// Answers to [`Input::Poll`] that are being put together.
    polls: BTreeMap<Ticket, Polled>,
    pending: BTreeMap<StoreId, Pending>,
    store_ids: u64,
    deliveries: u64,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

/// An agent on a connection.
struct Peer {
    agent: AgentId,
    stage: Stage,
    /// The extension is in force.
    extension: bool,
    /// The life of its store, until it is confirmed that the agent knows that it is known.
    unconfirmed: Option<Epoch>,
    /// How many of its frames wait for the record.
    inbound: usize,
    /// What is on its way to it.
    deliveries: BTreeMap<Attempt, Delivery>,
    /// Attempts that it is to be asked about when there is room: each once.
    unasked: VecDeque<Attempt>,
    /// What its socket has not taken yet.
    outbound: Outbound,
    /// The numbers of deliveries that wait until it has.
    held: BTreeSet<u64>,
    /// The record is asked what there is to deliver.
    asking: bool,
    /// There may be more to deliver than was asked for.
    more: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not said hello.
    Greeting,
    /// Its hello is being reconciled.
    Reconciling,
    Active,
}

/// An attempt on its way.
struct Delivery {
    number: u64,
    deliver: Deliver,
    backoff: Backoff,
    /// The record says that it may be there.
    noted: bool,
    /// It is not wanted, or should be there: the agent is asked what became of it.
    query: bool,
}

struct Polled {
    waiting: usize,
    tasks: Vec<Deliver>,
    failed: Option<StoreError>,
}

/// What a storage command was for.
#[derive(Debug)]
enum Pending {
    Ask(Ticket),
    Reconcile {
        conn: ConnectionId,
        hello: MessageId,
        extension: bool,
    },
    /// Needs no answer: it is said again on the next connection.
    Confirm,
    Deliverable(ConnectionId),
    Delivering(ConnectionId, Attempt),
    Progress {
        conn: ConnectionId,
        message_id: MessageId,
        attempt: Attempt,
        kind: &'static str,
    },
    Output {
        conn: ConnectionId,
        message_id: MessageId,
        attempt: Attempt,
    },
    Lost {
        conn: ConnectionId,
        message_id: MessageId,
        attempt: Attempt,
    },
    Final {
        conn: ConnectionId,
        message_id: MessageId,
        attempt: Attempt,
    },
    Absent(ConnectionId, AgentId, Attempt),
    Poll(Ticket, AgentId),
    PollItem(Ticket, Deliver),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The hello does not come.
    Hello(ConnectionId),
    /// Nothing is heard.
    Silence(ConnectionId),
    /// The socket takes nothing.
    WriteStall(ConnectionId),
    /// Time to ask the record again what there is to deliver.
    Refill(ConnectionId),
    /// Time to deliver an attempt again, by the delivery's number.
    Delivery(u64),
}

impl Controller {
    /// A controller without agents.
    pub fn new(config: ControllerConfig, entropy: Box<dyn Entropy>) -> Self {
        Self {
            config,
            entropy,
            peers: BTreeMap::new(),
            agents: BTreeMap::new(),
            polls: BTreeMap::new(),
            pending: BTreeMap::new(),
            store_ids: 0,
            deliveries: 0,
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    fn store(&mut self, pending: Pending, command: Command) {
        self.store_ids += 1;
        let id = StoreId(self.store_ids);
        self.pending.insert(id, pending);
        self.outputs.push_back(Output::Store(id, command));
    }

    fn send(&mut self, now: Instant, conn: ConnectionId, message: ControllerMessage) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if peer.outbound.frames() >= self.config.outbound_max {
            mark!("tasks.answers_not_read");
            self.close(conn, CloseCode::PROTOCOL, "more questions than answers are read");
            return;
        }
        if peer.outbound.frames() == 0 {
            self.timers.set(Timer::WriteStall(conn), now + self.config.write_stall);
        }
        peer.outbound.push(&message);
        let id = random_hex_128(&mut *self.entropy);
        let message_id = MessageId::parse(&id).expect("32 digits are a message id");
        self.outputs.push_back(Output::Send { conn, message_id, message });
    }

    fn written(&mut self, now: Instant, conn: ConnectionId, frames: usize) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.outbound.written(frames);
        match peer.outbound.frames() {
            0 => self.timers.stop(Timer::WriteStall(conn)),
            _ => self.timers.set(Timer::WriteStall(conn), now + self.config.write_stall),
        }
        while let Some(peer) = self.peers.get_mut(&conn)
            && peer.outbound.bytes() < self.config.outbound_bytes
            && let Some(number) = peer.held.pop_first()
        {
            self.deliver(now, conn, number);
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notify(notice));
    }

    // ---- connections -------------------------------------------------------------------------

    fn connected(&mut self, now: Instant, conn: ConnectionId, agent: AgentId) {
        if let Some(old) = self.agents.insert(agent.clone(), conn) {
            mark!("tasks.connection_taken_over");
            self.close(old, CloseCode::NORMAL, "another connection of the agent has opened");
        }
        self.timers.set(Timer::Hello(conn), now + self.config.handshake_timeout);
        self.timers.set(Timer::Silence(conn), now + self.config.silence);
        let peer = Peer {
            agent,
            stage: Stage::Greeting,
            extension: false,
            unconfirmed: None,
            inbound: 0,
            deliveries: BTreeMap::new(),
            unasked: VecDeque::new(),
            outbound: Outbound::default(),
            held: BTreeSet::new(),
            asking: false,
            more: true,
        };
        self.peers.insert(conn, peer);
    }

    fn close(&mut self, conn: ConnectionId, code: CloseCode, reason: &'static str) {
        if self.peers.contains_key(&conn) {
            self.outputs.push_back(Output::Close { conn, code, reason });
            self.forget(conn);
        }
    }

    fn forget(&mut self, conn: ConnectionId) {
        let Some(peer) = self.peers.remove(&conn) else {
            mark!("tasks.disconnect_of_replaced_connection");
            return;
        };
        // An old connection that ends late takes nothing from the new one.
        if self.agents.get(&peer.agent) == Some(&conn) {
            self.agents.remove(&peer.agent);
        }
        self.timers.stop(Timer::Hello(conn));
        self.timers.stop(Timer::Silence(conn));
        self.timers.stop(Timer::WriteStall(conn));
        self.timers.stop(Timer::Refill(conn));
        for delivery in peer.deliveries.values() {
            self.timers.stop(Timer::Delivery(delivery.number));
        }
    }

    fn heard(&mut self, now: Instant, conn: ConnectionId) -> bool {
        let known = self.peers.contains_key(&conn);
        if known {
            self.timers.set(Timer::Silence(conn), now + self.config.silence);
        }
        known
    }

    // ---- frames ------------------------------------------------------------------------------

    fn frame(&mut self, now: Instant, conn: ConnectionId, frame: Envelope<AgentMessage>) {
        if !self.heard(now, conn) {
            mark!("tasks.frame_of_replaced_connection");
            return;
        }
        let inbound_max = self.config.inbound_max;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let (agent, message_id) = (peer.agent.clone(), frame.message_id);
        if frame.agent != agent {
            let problem = "the frame names another agent than the handshake".to_owned();
            self.refuse(now, conn, &message_id, &problem);
            return;
        }
        match (peer.stage, &frame.message) {
            (Stage::Greeting, AgentMessage::Hello(_)) => {}
            (Stage::Active, AgentMessage::Hello(_)) | (Stage::Greeting, _) => {
                mark!("tasks.unexpected_frame_ignored");
                return;
            }
            (Stage::Reconciling, AgentMessage::Hello(_)) => return,
            _ => {}
        }
        if peer.inbound >= inbound_max {
            mark!("tasks.controller_flooded");
            self.close(conn, CloseCode::PROTOCOL, "more frames than the record can take");
            return;
        }
        peer.inbound += 1;
        match frame.message {
            AgentMessage::Hello(mut hello) => {
                peer.stage = Stage::Reconciling;
                if !self.config.extension {
                    hello.store = None;
                }
                let extension = hello.store.is_some();
                peer.unconfirmed = hello.store.as_ref().map(|life| life.epoch.clone());
                self.timers.stop(Timer::Hello(conn));
                let pending = Pending::Reconcile { conn, hello: message_id, extension };
                self.store(pending, Command::Reconcile { agent, hello });
            }
            AgentMessage::Received(attempt) => {
                self.progress(conn, agent, message_id, attempt, "task.received");
            }
            AgentMessage::Started(attempt) => {
                self.progress(conn, agent, message_id, attempt, "task.started");
            }
            AgentMessage::Output(piece) => {
                self.confirm(conn);
                let attempt = piece.attempt.clone();
                let pending = Pending::Output { conn, message_id, attempt };
                self.store(pending, Command::Output { agent, piece });
            }
            AgentMessage::Lost(lost) => {
                let attempt = lost.attempt.clone();
                let pending = Pending::Lost { conn, message_id, attempt };
                self.store(pending, Command::Lost { agent, lost });
            }
            AgentMessage::Final(result) => {
                self.confirm(conn);
                let attempt = result.attempt.clone();
                let pending = Pending::Final { conn, message_id: message_id.clone(), attempt };
                self.store(pending, Command::Final { agent, message_id, result });
            }
            AgentMessage::Error(ErrorFrame { code, attempt: Some(attempt), .. })
                if code == codes::UNKNOWN_ATTEMPT =>
            {
                let asked = peer.deliveries.get(&attempt).is_some_and(|it| it.query);
                if asked {
                    let pending = Pending::Absent(conn, agent.clone(), attempt.clone());
                    self.store(pending, Command::Absent { agent, attempt });
                } else {
                    peer.inbound -= 1;
                }
            }
            AgentMessage::Error(error) => {
                peer.inbound -= 1;
                self.refused(now, conn, error);
            }
        }
    }

    /// An agent sends output and results only after its hello was answered.
    fn confirm(&mut self, conn: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&conn)
            && peer.stage == Stage::Active
            && let Some(epoch) = peer.unconfirmed.take()
        {
            let agent = peer.agent.clone();
            self.store(Pending::Confirm, Command::Confirm { agent, epoch });
        }
    }

    fn progress(
        &mut self,
        conn: ConnectionId,
        agent: AgentId,
        message_id: MessageId,
        attempt: Attempt,
        kind: &'static str,
    ) {
        let started = kind == "task.started";
        let pending = Pending::Progress { conn, message_id, attempt: attempt.clone(), kind };
        self.store(pending, Command::Progress { agent, attempt, started });
    }

    /// The message will never be accepted: the agent passes it over [TK-10].
    fn refuse(&mut self, now: Instant, conn: ConnectionId, message_id: &MessageId, problem: &str) {
        mark!("tasks.message_refused");
        self.send(
            now,
            conn,
            ControllerMessage::Error(ErrorFrame {
                code: codes::INVALID_MESSAGE.to_owned(),
                message: problem.to_owned(),
                retryable: false,
                related: Some(message_id.clone()),
                highest_accepted_sequence: None,
                attempt: None,
            }),
        );
    }

    fn malformed(&mut self, now: Instant, conn: ConnectionId, error: FrameError) {
        if !self.heard(now, conn) {
            return;
        }
        mark!("tasks.malformed_frame_refused");
        if let Some(message_id) = error.message_id.clone() {
            self.refuse(now, conn, &message_id, &error.problem);
        }
        if let Some(peer) = self.peers.get(&conn) {
            let agent = peer.agent.clone();
            self.notify(Notice::Ignored { agent, error });
        }
    }

    /// The agent has no room for an attempt: it is delivered again after a pause.
    fn refused(&mut self, now: Instant, conn: ConnectionId, error: ErrorFrame) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let Some(attempt) = error.attempt else { return };
        let Some(delivery) = peer.deliveries.get_mut(&attempt) else { return };
        mark!("tasks.delivery_refused");
        let delay = delivery.backoff.next_delay(&mut *self.entropy);
        self.timers.set(Timer::Delivery(delivery.number), now + delay);
        let (agent, reason) = (peer.agent.clone(), error.message);
        self.notify(Notice::Refused { agent, attempt, reason });
    }

    // ---- delivering --------------------------------------------------------------------------

    /// Asks the record what there is to deliver, as far as there is room on the way.
    fn refill(&mut self, conn: ConnectionId) {
        let room = self.config.deliveries_max;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let wanted = peer.stage == Stage::Active && peer.more && !peer.asking;
        if wanted && peer.deliveries.len() < room {
            peer.asking = true;
            peer.more = false;
            let (agent, count_max) = (peer.agent.clone(), room);
            self.store(
                Pending::Deliverable(conn),
                Command::Deliverable { agent, again: true, count_max },
            );
        }
    }

    fn deliverable(&mut self, conn: ConnectionId, list: Vec<Deliver>) {
        let room = self.config.deliveries_max;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.asking = false;
        let mut noted = Vec::new();
        let length = list.len();
        for deliver in list {
            let attempt = deliver.attempt.clone();
            if peer.deliveries.len() >= room || peer.deliveries.contains_key(&attempt) {
                continue;
            }
            self.deliveries += 1;
            let delivery = Delivery {
                number: self.deliveries,
                deliver,
                backoff: Backoff::new(self.config.redelivery),
                noted: false,
                query: false,
            };
            peer.deliveries.insert(attempt.clone(), delivery);
            noted.push(attempt);
        }
        peer.more |= length >= room && !noted.is_empty();
        let agent = peer.agent.clone();
        for attempt in noted {
            let command = Command::Delivering { agent: agent.clone(), attempt: attempt.clone() };
            self.store(Pending::Delivering(conn, attempt), command);
        }
    }

    /// The record knows that the agent may have the attempt: now it may.
    fn delivering(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        attempt: &Attempt,
        state: Option<AttemptState>,
    ) {
        if state != Some(AttemptState::Delivered) {
            self.arrived(now, conn, attempt);
            return;
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let Some(delivery) = peer.deliveries.get_mut(attempt) else { return };
        delivery.noted = true;
        let number = delivery.number;
        self.deliver(now, conn, number);
    }

    fn deliver(&mut self, now: Instant, conn: ConnectionId, number: u64) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let delivery = peer.deliveries.values_mut().find(|it| it.number == number && it.noted);
        let Some(delivery) = delivery else { return };
        if peer.outbound.bytes() >= self.config.outbound_bytes {
            mark!("tasks.delivery_waits_for_socket");
            peer.held.insert(number);
            return;
        }
        let delay = delivery.backoff.next_delay(&mut *self.entropy);
        self.timers.set(Timer::Delivery(number), now + delay);
        let message = match delivery.query {
            true => {
                mark!("tasks.queried");
                ControllerMessage::Query(delivery.deliver.attempt.clone())
            }
            false => ControllerMessage::Deliver(delivery.deliver.clone()),
        };
        self.send(now, conn, message);
    }

    fn deliver_again(&mut self, now: Instant, number: u64) {
        let with = |peer: &Peer| peer.deliveries.values().any(|it| it.number == number);
        let conn = self.peers.iter().find(|(_, peer)| with(peer)).map(|(conn, _)| *conn);
        if let Some(conn) = conn {
            mark!("tasks.delivered_again");
            self.deliver(now, conn, number);
        }
    }

    /// The agent has the attempt, or it is not to be delivered any more.
    fn arrived(&mut self, now: Instant, conn: ConnectionId, attempt: &Attempt) {
        if let Some(peer) = self.peers.get_mut(&conn)
            && let Some(delivery) = peer.deliveries.remove(attempt)
        {
            // What had no room on the way may have it now.
            peer.more = true;
            peer.held.remove(&delivery.number);
            self.timers.stop(Timer::Delivery(delivery.number));
            self.ask_about(now, conn);
            self.refill(conn);
        }
    }

    /// Asks an agent about attempts, as far as there is room on the way.
    fn ask_about(&mut self, now: Instant, conn: ConnectionId) {
        let room = self.config.deliveries_max;
        while let Some(peer) = self.peers.get_mut(&conn)
            && peer.deliveries.len() < room
            && let Some(attempt) = peer.unasked.pop_front()
        {
            self.deliveries += 1;
            let number = self.deliveries;
            let delivery = Delivery {
                number,
                deliver: Deliver { attempt: attempt.clone(), command: String::new(), priority: 0 },
                backoff: Backoff::new(self.config.redelivery),
                noted: true,
                query: true,
            };
            if let Some(before) = peer.deliveries.insert(attempt, delivery) {
                self.timers.stop(Timer::Delivery(before.number));
            }
            self.deliver(now, conn, number);
        }
    }

    /// Output came of an attempt that was not known to have begun: it may have ended, too.
    fn ask_about_unexpected(&mut self, now: Instant, conn: ConnectionId, attempt: Attempt) {
        if let Some(peer) = self.peers.get_mut(&conn)
            && peer.extension
        {
            peer.is_to_be_asked(attempt, self.config.unasked_max);
            self.ask_about(now, conn);
        }
    }

    /// A task is not wanted any more. What may be on its way is asked about instead of delivered.
    fn cancelled(&mut self, now: Instant, cancelled: &Cancelled) {
        let Some(conn) = self.agents.get(&cancelled.agent).copied() else { return };
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let open = cancelled.state == AttemptState::Delivered;
        if !open || peer.stage != Stage::Active || !peer.extension {
            return;
        }
        match peer.deliveries.get_mut(&cancelled.attempt) {
            Some(delivery) => {
                delivery.query = true;
                let number = delivery.number;
                self.deliver(now, conn, number);
            }
            None => {
                peer.is_to_be_asked(cancelled.attempt.clone(), self.config.unasked_max);
                self.ask_about(now, conn);
            }
        }
    }

    /// An agent knows nothing of an attempt that it was asked about.
    fn absent(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        agent: AgentId,
        attempt: Attempt,
        state: Option<AttemptState>,
    ) {
        self.arrived(now, conn, &attempt);
        if state == Some(AttemptState::Interrupted) {
            self.notify(Notice::Interrupted { agent, attempts: vec![attempt] });
        }
    }

    /// There is something new for an agent.
    fn wake(&mut self, agent: &AgentId) {
        if let Some(conn) = self.agents.get(agent).copied()
            && let Some(peer) = self.peers.get_mut(&conn)
        {
            peer.more = true;
            self.refill(conn);
        }
    }

    // ---- the record --------------------------------------------------------------------------

    fn stored(&mut self, now: Instant, id: StoreId, result: Result<Reply, StoreError>) {
        let Some(pending) = self.pending.remove(&id) else { return };
        if let Pending::Reconcile { conn, .. }
        | Pending::Progress { conn, .. }
        | Pending::Output { conn, .. }
        | Pending::Lost { conn, .. }
        | Pending::Final { conn, .. }
        | Pending::Absent(conn, ..) = &pending
            && let Some(peer) = self.peers.get_mut(conn)
        {
            peer.inbound -= 1;
        }
        match (pending, result) {
            (Pending::Ask(ticket), result) => self.answer(now, ticket, result),
            (Pending::Absent(conn, agent, attempt), Ok(Reply::State(state))) => {
                self.absent(now, conn, agent, attempt, state);
            }
            (Pending::Lost { conn, message_id, attempt }, Ok(Reply::OutputTaken(taken))) => {
                match taken {
                    OutputTaken::Stored { highest, unexpected } => {
                        let (kind, about) = ("task.output_lost", Some(attempt.clone()));
                        self.ack(now, conn, message_id, kind, about, Some(highest));
                        if unexpected {
                            self.ask_about_unexpected(now, conn, attempt);
                        }
                    }
                    // It is declared again when what is before it has come.
                    OutputTaken::Gap { .. } => mark!("tasks.lost_end_too_early"),
                    OutputTaken::Foreign => {
                        self.refuse(now, conn, &message_id, "the attempt is another agent's");
                    }
                }
            }
            // The agent is asked again.
            (Pending::Absent(..), _) => mark!("tasks.controller_did_not_store"),
            (Pending::Confirm, _) => {}
            (Pending::Reconcile { conn, hello, extension }, Ok(Reply::Reconciled(reconciled))) => {
                self.reconciled(now, conn, hello, extension, reconciled);
            }
            (Pending::Deliverable(conn), Ok(Reply::Deliverable(list))) => {
                self.deliverable(conn, list);
                self.refill(conn);
            }
            (Pending::Delivering(conn, attempt), Ok(Reply::State(state))) => {
                self.delivering(now, conn, &attempt, state);
            }
            (Pending::Progress { conn, message_id, attempt, kind }, Ok(Reply::State(state))) => {
                self.arrived(now, conn, &attempt);
                match state {
                    Some(_) => self.ack(now, conn, message_id, kind, Some(attempt), None),
                    None => self.refuse(now, conn, &message_id, "the attempt is another agent's"),
                }
            }
            (Pending::Output { conn, message_id, attempt }, Ok(Reply::OutputTaken(taken))) => {
                // It does not say what became of the attempt.
                let asked = self.peers.get(&conn).and_then(|peer| peer.deliveries.get(&attempt));
                if !asked.is_some_and(|delivery| delivery.query) {
                    self.arrived(now, conn, &attempt);
                }
                self.output_taken(now, conn, message_id, attempt, taken);
            }
            (Pending::Final { conn, message_id, attempt }, Ok(Reply::FinalTaken(taken))) => {
                self.arrived(now, conn, &attempt);
                match taken {
                    // What came too late is not wanted; the agent need not keep it.
                    FinalTaken::Stored | FinalTaken::TooLate => {
                        self.ack(now, conn, message_id, "task.final", Some(attempt), None);
                    }
                    FinalTaken::Foreign => {
                        self.refuse(now, conn, &message_id, "the attempt is another agent's");
                    }
                }
            }
            (Pending::Poll(ticket, agent), result) => self.poll_listed(ticket, &agent, result),
            (Pending::PollItem(ticket, deliver), result) => {
                self.poll_noted(ticket, deliver, result);
            }
            (Pending::Reconcile { conn, .. }, _) => {
                mark!("tasks.hello_not_reconciled");
                self.close(conn, CloseCode::TRY_AGAIN_LATER, "the record failed");
            }
            (Pending::Deliverable(conn), _) => {
                if let Some(peer) = self.peers.get_mut(&conn) {
                    peer.asking = false;
                    peer.more = true;
                }
                self.close(conn, CloseCode::TRY_AGAIN_LATER, "the record failed");
            }
            (Pending::Delivering(conn, attempt), _) => {
                // It is in the record, and is asked for again.
                if let Some(peer) = self.peers.get_mut(&conn) {
                    peer.deliveries.remove(&attempt);
                    peer.more = true;
                    self.timers.set(Timer::Refill(conn), now + self.config.redelivery.min);
                }
            }
            // Not acknowledged: the agent says it again.
            (
                Pending::Progress { .. }
                | Pending::Output { .. }
                | Pending::Lost { .. }
                | Pending::Final { .. },
                _,
            ) => {
                mark!("tasks.controller_did_not_store");
            }
        }
    }

    fn reconciled(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        hello: MessageId,
        extension: bool,
        reconciled: Reconciled,
    ) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let agent = peer.agent.clone();
        let agreement = match reconciled {
            Reconciled::Agreed(agreement) => agreement,
            Reconciled::Forked => {
                mark!("tasks.fork_refused");
                self.send(
                    now,
                    conn,
                    ControllerMessage::Error(ErrorFrame {
                        code: codes::STORE_FORKED.to_owned(),
                        message: "another copy of this store has taken its place; \
                                  give this one an empty store"
                            .to_owned(),
                        retryable: false,
                        related: Some(hello),
                        highest_accepted_sequence: None,
                        attempt: None,
                    }),
                );
                self.close(conn, CloseCode::PROTOCOL, "the store is a superseded copy");
                self.notify(Notice::Forked { agent });
                return;
            }
        };
        peer.stage = Stage::Active;
        peer.extension = extension;
        peer.unasked.clear();
        for attempt in agreement.unnamed {
            peer.is_to_be_asked(attempt, self.config.unasked_max);
        }
        self.send(
            now,
            conn,
            ControllerMessage::HelloAck(HelloAck {
                acked: hello,
                acknowledged_finals: Some(agreement.acknowledged_finals),
                discarded: Some(agreement.discarded),
                output_replay: Some(agreement.output_replay),
                extension,
            }),
        );
        if !agreement.interrupted.is_empty() {
            let (agent, attempts) = (agent.clone(), agreement.interrupted);
            self.notify(Notice::Interrupted { agent, attempts });
        }
        self.notify(Notice::Active { agent });
        self.ask_about(now, conn);
        self.refill(conn);
    }

    fn output_taken(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        message_id: MessageId,
        attempt: Attempt,
        taken: OutputTaken,
    ) {
        match taken {
            OutputTaken::Stored { highest, unexpected } => {
                self.ack(
                    now,
                    conn,
                    message_id,
                    "task.output",
                    Some(attempt.clone()),
                    Some(highest),
                );
                if unexpected {
                    self.ask_about_unexpected(now, conn, attempt);
                }
            }
            OutputTaken::Gap { highest } => {
                mark!("tasks.gap_named");
                self.send(
                    now,
                    conn,
                    ControllerMessage::Error(ErrorFrame {
                        code: codes::OUTPUT_SEQUENCE_GAP.to_owned(),
                        message: format!("sequence {} is next", highest + 1),
                        retryable: true,
                        related: Some(message_id),
                        highest_accepted_sequence: Some(highest),
                        attempt: Some(attempt),
                    }),
                );
            }
            OutputTaken::Foreign => {
                self.refuse(now, conn, &message_id, "the attempt is another agent's");
            }
        }
    }

    fn ack(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        acked: MessageId,
        kind: &str,
        attempt: Option<Attempt>,
        highest_output_sequence: Option<u64>,
    ) {
        let acked_type = kind.to_owned();
        let ack = Ack { acked, acked_type, attempt, highest_output_sequence };
        self.send(now, conn, ControllerMessage::Ack(ack));
    }

    fn answer(&mut self, now: Instant, ticket: Ticket, result: Result<Reply, StoreError>) {
        if let Ok(Reply::Cancelled(Some(cancelled))) = &result {
            self.cancelled(now, cancelled);
        }
        if let Ok(Reply::Submitted(Submitted::Stored { agent, .. })) = &result {
            let agent = agent.clone();
            self.wake(&agent);
        }
        self.outputs.push_back(Output::Answer { ticket, result });
    }

    // ---- HTTP --------------------------------------------------------------------------------

    fn poll_listed(&mut self, ticket: Ticket, agent: &AgentId, result: Result<Reply, StoreError>) {
        match result {
            Ok(Reply::Deliverable(list)) if !list.is_empty() => {
                let polled = Polled { waiting: list.len(), tasks: Vec::new(), failed: None };
                self.polls.insert(ticket, polled);
                for deliver in list {
                    let (agent, attempt) = (agent.clone(), deliver.attempt.clone());
                    let command = Command::Delivering { agent, attempt };
                    self.store(Pending::PollItem(ticket, deliver), command);
                }
            }
            Ok(_) => self.outputs.push_back(Output::Tasks { ticket, result: Ok(Vec::new()) }),
            Err(error) => self.outputs.push_back(Output::Tasks { ticket, result: Err(error) }),
        }
    }

    fn poll_noted(&mut self, ticket: Ticket, deliver: Deliver, result: Result<Reply, StoreError>) {
        let Some(polled) = self.polls.get_mut(&ticket) else { return };
        polled.waiting -= 1;
        match result {
            Ok(Reply::State(Some(AttemptState::Delivered))) => polled.tasks.push(deliver),
            Ok(_) => {}
            Err(error) => polled.failed = Some(error),
        }
        if polled.waiting == 0
            && let Some(polled) = self.polls.remove(&ticket)
        {
            let result = polled.failed.map_or(Ok(polled.tasks), Err);
            self.outputs.push_back(Output::Tasks { ticket, result });
        }
    }

    // ---- time --------------------------------------------------------------------------------

    fn timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::Hello(conn) => {
                    mark!("tasks.hello_timed_out");
                    self.close(conn, CloseCode::SILENT, "no hello came in time");
                }
                Timer::Silence(conn) => {
                    mark!("tasks.silent_agent_closed");
                    self.close(conn, CloseCode::SILENT, "nothing was heard from the agent");
                }
                Timer::WriteStall(conn) => {
                    mark!("tasks.slow_reader_closed");
                    self.close(conn, CloseCode::RESUME, "the agent does not read");
                }
                Timer::Refill(conn) => self.refill(conn),
                Timer::Delivery(number) => self.deliver_again(now, number),
            }
        }
    }

    /// Which agents are connected and agree with the controller.
    pub fn active(&self) -> BTreeSet<AgentId> {
        let active = self.peers.values().filter(|peer| peer.stage == Stage::Active);
        active.map(|peer| peer.agent.clone()).collect()
    }
}

impl Peer {
    /// Puts an attempt among those that it is to be asked about. Beyond the limit it is left to the
    /// next hello, which does not name it either.
    fn is_to_be_asked(&mut self, attempt: Attempt, unasked_max: usize) {
        if self.unasked.contains(&attempt) {
            mark!("tasks.asked_about_already");
        } else if self.unasked.len() >= unasked_max {
            mark!("tasks.unasked_full");
        } else {
            self.unasked.push_back(attempt);
        }
    }
}

impl crate::Core for Controller {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Connected { conn, agent } => self.connected(now, conn, agent),
            Input::Frame { conn, frame } => self.frame(now, conn, frame),
            Input::Malformed { conn, error } => self.malformed(now, conn, error),
            Input::Alive { conn } => {
                self.heard(now, conn);
            }
            Input::Written { conn, frames } => self.written(now, conn, frames),
            Input::Disconnected { conn } => self.forget(conn),
            Input::Stored(id, result) => self.stored(now, id, result),
            Input::Ask { ticket, command } => self.store(Pending::Ask(ticket), command),
            Input::Post { ticket, agent, message_id, result } => {
                let command = Command::Final { agent, message_id, result };
                self.store(Pending::Ask(ticket), command);
            }
            Input::Poll { ticket, agent } => {
                let count_max = self.config.deliveries_max;
                let command =
                    Command::Deliverable { agent: agent.clone(), again: false, count_max };
                self.store(Pending::Poll(ticket, agent), command);
            }
            Input::Timeout => self.timeout(now),
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }
}
