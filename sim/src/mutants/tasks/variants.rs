//! What can be wrong with an agent, a controller, and their stores.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gapless::net::WallClock as _;
use gapless::recovery::Instant;
use gapless::storage::{StoreError, Transact};
use gapless::tasks::agent::{Agent, Input, Notice, Output};
use gapless::tasks::controller::sqlite::SqliteRecord;
use gapless::tasks::controller::{self, Controller, record};
use gapless::tasks::store::sqlite::SqliteTaskStore;
use gapless::tasks::store::{
    Command, Message, MessageBody, Received, Recovered, Reply, StoredFinal,
};
use gapless::tasks::wire::{
    AgentMessage, ControllerMessage, Deliver, Envelope, Hello, HelloAck, codes,
};
use gapless::tasks::{Attempt, MessageId, OutputStream};
use gapless::{AgentId, ConnectionId};

use crate::mutants::twist::{Hands, Twist, Twisted};
use crate::mutants::{AgentCore, ControllerCore, Record, TaskStore};
use crate::world::HostClock;

// ---- agents ------------------------------------------------------------------------------------

/// Nothing of a result leaves before it is asked for, which it never is.
struct CanaryAgent;

impl Twist<Agent> for CanaryAgent {
    fn output(&mut self, output: Output, hands: &mut Hands<Agent>) {
        match output {
            Output::Send { message: AgentMessage::Final(_), .. } | Output::Post { .. } => {}
            Output::Send {
                conn,
                message_id,
                message: AgentMessage::Hello(mut hello),
                extension,
            } => {
                hello.unacked_finals.clear();
                let message = AgentMessage::Hello(hello);
                hands.outputs.push_back(Output::Send { conn, message_id, message, extension });
            }
            output => hands.outputs.push_back(output),
        }
    }
}

pub(in crate::mutants) fn result_never_said(core: Agent) -> AgentCore {
    Twisted::boxed(core, CanaryAgent)
}

/// What waited when the process ended is remembered and not run.
struct ReceivedForgotten;

impl Twist<Agent> for ReceivedForgotten {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Agent>) {
        if let Input::Stored(_, Ok(Reply::Recovered(Recovered { received, .. }))) = &mut input {
            received.clear();
        }
        hands.inputs.push_back(input);
    }
}

pub(in crate::mutants) fn received_never_runs(core: Agent) -> AgentCore {
    Twisted::boxed(core, ReceivedForgotten)
}

/// A piece that was sent on a connection that broke gets its number again with what follows it.
#[derive(Default)]
struct NumberReused {
    sent: BTreeMap<(Attempt, OutputStream, u64), ConnectionId>,
}

impl Twist<Agent> for NumberReused {
    fn output(&mut self, mut output: Output, hands: &mut Hands<Agent>) {
        if let Output::Send { conn, message: AgentMessage::Output(piece), .. } = &mut output {
            let name = (piece.attempt.clone(), piece.stream, piece.sequence);
            let first = *self.sent.entry(name).or_insert(*conn);
            if first != *conn {
                piece.data = [&piece.data[..], b"and more"].concat().into();
            }
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn number_reused(core: Agent) -> AgentCore {
    Twisted::boxed(core, NumberReused::default())
}

/// Holes are never declared on the wire.
struct HoleUndeclared;

impl Twist<Agent> for HoleUndeclared {
    fn output(&mut self, mut output: Output, hands: &mut Hands<Agent>) {
        if let Output::Send { message: AgentMessage::Output(piece), .. } = &mut output {
            piece.truncated_locally = false;
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn hole_undeclared(core: Agent) -> AgentCore {
    Twisted::boxed(core, HoleUndeclared)
}

/// What a command wrote last is lost when it ends.
#[derive(Default)]
struct TailLost(BTreeMap<(Attempt, OutputStream), Input>);

impl Twist<Agent> for TailLost {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Agent>) {
        match input {
            Input::Wrote { ref attempt, stream, .. } => {
                let name = (attempt.clone(), stream);
                hands.inputs.extend(self.0.insert(name, input));
            }
            input => hands.inputs.push_back(input),
        }
    }
}

pub(in crate::mutants) fn tail_lost(core: Agent) -> AgentCore {
    Twisted::boxed(core, TailLost::default())
}

/// A known attempt is refused when there is no room for a new one.
#[derive(Default)]
struct KnownRefused {
    queue_full: bool,
}

impl Twist<Agent> for KnownRefused {
    fn output(&mut self, output: Output, hands: &mut Hands<Agent>) {
        match &output {
            Output::Send { message: AgentMessage::Error(error), .. }
                if error.code == codes::SPOOL_FULL || error.code == codes::QUEUE_FULL =>
            {
                self.queue_full = true;
            }
            Output::Send {
                conn,
                message: AgentMessage::Received(attempt),
                extension,
                message_id,
            } if self.queue_full => {
                let error = gapless::tasks::wire::ErrorFrame {
                    code: codes::SPOOL_FULL.to_owned(),
                    message: "no room".to_owned(),
                    retryable: true,
                    related: Some(message_id.clone()),
                    highest_accepted_sequence: None,
                    attempt: Some(attempt.clone()),
                };
                let conn = *conn;
                let (message_id, extension) = (message_id.clone(), *extension);
                hands.outputs.push_back(output);
                let message = AgentMessage::Error(error);
                hands.outputs.push_back(Output::Send { conn, message_id, message, extension });
                return;
            }
            _ => {}
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn known_refused(core: Agent) -> AgentCore {
    Twisted::boxed(core, KnownRefused::default())
}

/// A discard ends what runs, and what comes of it is thrown away.
#[derive(Default)]
struct DiscardKills {
    running: BTreeSet<Attempt>,
    killed: BTreeSet<Attempt>,
}

impl Twist<Agent> for DiscardKills {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Agent>) {
        match &input {
            Input::Frame { frame, .. } => {
                if let Some(discarded) = answer(frame).and_then(|ack| ack.discarded.as_ref()) {
                    for it in discarded.iter().filter(|it| self.running.contains(&it.attempt)) {
                        let attempt = it.attempt.clone();
                        self.killed.insert(attempt.clone());
                        hands.outputs.push_back(Output::Kill { attempt });
                    }
                }
            }
            Input::Wrote { attempt, .. } | Input::Exited { attempt, .. }
                if self.killed.contains(attempt) =>
            {
                return;
            }
            _ => {}
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Agent>) {
        if let Output::Run { attempt, .. } = &output {
            self.running.insert(attempt.clone());
        }
        hands.outputs.push_back(output);
    }
}

fn answer(frame: &Envelope<ControllerMessage>) -> Option<&HelloAck> {
    match &frame.message {
        ControllerMessage::HelloAck(ack) => Some(ack),
        _ => None,
    }
}

pub(in crate::mutants) fn discard_kills(core: Agent) -> AgentCore {
    Twisted::boxed(core, DiscardKills::default())
}

/// The store forgets what is discarded, and the queue does not.
#[derive(Default)]
struct DiscardStaysQueued {
    commands: BTreeMap<Attempt, String>,
}

impl Twist<Agent> for DiscardStaysQueued {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Agent>) {
        let mut run = Vec::new();
        match &input {
            Input::Frame { frame, .. } => {
                if let ControllerMessage::Deliver(deliver) = &frame.message {
                    self.commands.insert(deliver.attempt.clone(), deliver.command.clone());
                }
            }
            Input::Stored(_, Ok(Reply::Discarded(gone))) => {
                for attempt in gone {
                    if let Some(command) = self.commands.remove(attempt) {
                        run.push(Output::Run { attempt: attempt.clone(), command });
                    }
                }
            }
            _ => {}
        }
        hands.inputs.push_back(input);
        hands.outputs.extend(run);
    }
}

pub(in crate::mutants) fn discard_stays_queued(core: Agent) -> AgentCore {
    Twisted::boxed(core, DiscardStaysQueued::default())
}

/// Another message id for each request with a result.
#[derive(Default)]
struct ResultRenamed(u64);

impl Twist<Agent> for ResultRenamed {
    fn output(&mut self, mut output: Output, hands: &mut Hands<Agent>) {
        if let Output::Post { message_id, .. } = &mut output {
            self.0 += 1;
            let text = format!("http-{}-{}", self.0, message_id.as_str());
            *message_id = MessageId::parse(&text[..text.len().min(200)]).expect("it is short");
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn result_renamed(core: Agent) -> AgentCore {
    Twisted::boxed(core, ResultRenamed::default())
}

/// Nobody looks at the clock between a hello and its answer.
#[derive(Default)]
struct HandshakeWithoutTimer {
    greeted: Option<ConnectionId>,
}

impl Twist<Agent> for HandshakeWithoutTimer {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Agent>) {
        match &input {
            Input::Frame { frame, .. } if answer(frame).is_some() => self.greeted = None,
            Input::Closed { .. } => self.greeted = None,
            _ => {}
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Agent>) {
        match &output {
            Output::Send { conn, message: AgentMessage::Hello(_), .. } => {
                self.greeted = Some(*conn);
            }
            Output::Close { conn, .. } if self.greeted == Some(*conn) => return,
            Output::Dial { .. } if self.greeted.is_some() => return,
            _ => {}
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn handshake_without_timer(core: Agent) -> AgentCore {
    Twisted::boxed(core, HandshakeWithoutTimer::default())
}

/// Output that is stored while older output waits is sent first.
#[derive(Default)]
struct LiveFirst {
    held: Vec<Output>,
    active: bool,
}

impl Twist<Agent> for LiveFirst {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Agent>) {
        match &input {
            Input::Closed { .. } | Input::Opened { .. } => self.held.clear(),
            Input::Stored(_, Ok(Reply::Appended(_))) => self.active = true,
            _ => {}
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Agent>) {
        match output {
            Output::Send { message: AgentMessage::Output(_), .. } => self.held.push(output),
            output => hands.outputs.push_back(output),
        }
    }

    fn drained(&mut self, hands: &mut Hands<Agent>) {
        // The newest first, as if it had gone straight from the pipe to the wire.
        hands.outputs.extend(self.held.drain(..).rev());
    }
}

pub(in crate::mutants) fn live_first(core: Agent) -> AgentCore {
    Twisted::boxed(core, LiveFirst::default())
}

/// Any answer to any hello will do.
#[derive(Default)]
struct AnyAnswer(Option<MessageId>);

impl Twist<Agent> for AnyAnswer {
    fn input(&mut self, _: Instant, mut input: Input, hands: &mut Hands<Agent>) {
        if let Input::Frame { frame, .. } = &mut input
            && let ControllerMessage::HelloAck(ack) = &mut frame.message
            && let Some(hello) = &self.0
        {
            ack.acked = hello.clone();
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Agent>) {
        if let Output::Send { message_id, message: AgentMessage::Hello(_), .. } = &output {
            self.0 = Some(message_id.clone());
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn any_answer(core: Agent) -> AgentCore {
    Twisted::boxed(core, AnyAnswer::default())
}

/// Pauses grow from session to session.
#[derive(Default)]
struct BackoffNeverResets {
    lost: u32,
    now: Option<Instant>,
    pause: Option<(Instant, Option<Output>)>,
}

impl Twist<Agent> for BackoffNeverResets {
    fn input(&mut self, now: Instant, input: Input, hands: &mut Hands<Agent>) {
        self.now = Some(now);
        if let Some((until, waiting)) = &mut self.pause
            && *until <= now
        {
            hands.outputs.extend(waiting.take());
            self.pause = None;
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Agent>) {
        match (&output, &mut self.pause, self.now) {
            (Output::Notify(Notice::Disconnected { .. }), None, Some(now)) => {
                let pause = Duration::from_millis(200) * 2_u32.saturating_pow(self.lost.min(11));
                self.lost += 1;
                self.pause = Some((now + pause, None));
                hands.outputs.push_back(output);
            }
            (Output::Dial { .. }, Some((_, waiting)), _) => *waiting = Some(output),
            _ => hands.outputs.push_back(output),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.pause.as_ref().map(|(until, _)| *until)
    }
}

pub(in crate::mutants) fn backoff_never_resets(core: Agent) -> AgentCore {
    Twisted::boxed(core, BackoffNeverResets::default())
}

/// Every piece is said before the store has answered.
#[derive(Default)]
struct SaidBeforeStored {
    conn: Option<ConnectionId>,
    said: u64,
    /// What the store is given when something else happens.
    later: Vec<Output>,
}

impl Twist<Agent> for SaidBeforeStored {
    fn input(&mut self, _: Instant, input: Input, hands: &mut Hands<Agent>) {
        hands.outputs.extend(self.later.drain(..));
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: Output, hands: &mut Hands<Agent>) {
        match &output {
            Output::Send { conn, message: AgentMessage::Hello(_), .. } => self.conn = Some(*conn),
            Output::Close { .. } => self.conn = None,
            Output::Store(_, Command::Receive(receipt)) => {
                if let Some(conn) = self.conn {
                    self.said += 1;
                    let message_id = MessageId::parse(&format!("early-{}", self.said));
                    hands.outputs.push_back(Output::Send {
                        conn,
                        message_id: message_id.expect("it is short"),
                        message: AgentMessage::Received(receipt.attempt.clone()),
                        extension: true,
                    });
                    self.later.push(output);
                    return;
                }
            }
            _ => {}
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn said_before_stored(core: Agent) -> AgentCore {
    Twisted::boxed(core, SaidBeforeStored::default())
}

// ---- stores of agents --------------------------------------------------------------------------

/// What is delivered again is new again.
struct RunsTwice(SqliteTaskStore);

impl Transact<Command> for RunsTwice {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let mut replies = self.0.transact(commands)?;
        for reply in &mut replies {
            match reply {
                Reply::Received(received @ Received::Known(_)) => *received = Received::New,
                Reply::Started(started) => *started = gapless::tasks::store::Started::Now,
                _ => {}
            }
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn runs_twice(store: SqliteTaskStore, _: HostClock) -> TaskStore {
    Box::new(RunsTwice(store))
}

/// Giving up output makes its attempt run again, as far as a hello says.
struct Resurrected {
    store: SqliteTaskStore,
    ended: BTreeMap<Attempt, StoredFinal>,
    rotated: bool,
}

impl Transact<Command> for Resurrected {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let mut replies = self.store.transact(commands)?;
        for reply in &mut replies {
            match reply {
                Reply::Finished(stored) => {
                    self.ended.insert(stored.result.attempt.clone(), stored.clone());
                }
                Reply::Snapshot(snapshot) => {
                    self.rotated |= snapshot.spool.has_rotated_chunks;
                    if self.rotated {
                        let back = self.ended.keys().take(1).map(|attempt| {
                            gapless::tasks::wire::RunningAttempt {
                                attempt: attempt.clone(),
                                started_at: gapless::recovery::WallTime::from_millis(0),
                                last_output: BTreeMap::new(),
                            }
                        });
                        snapshot.running.extend(back);
                    }
                }
                _ => {}
            }
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn resurrected(store: SqliteTaskStore, _: HostClock) -> TaskStore {
    Box::new(Resurrected { store, ended: BTreeMap::new(), rotated: false })
}

/// What waits is sent in the order of the clock.
struct ClockOrders {
    store: SqliteTaskStore,
    clock: HostClock,
    at: BTreeMap<u64, i64>,
}

impl Transact<Command> for ClockOrders {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let mut replies = self.store.transact(commands)?;
        let now = self.clock.wall_time().as_millis();
        for reply in &mut replies {
            match reply {
                Reply::Appended(gapless::tasks::store::Appended::Stored { row }) => {
                    self.at.insert(*row, now);
                }
                Reply::Finished(stored) => {
                    self.at.insert(stored.row, now);
                }
                Reply::Outbox(messages) => {
                    let at = |message: &Message| self.at.get(&message.row).copied().unwrap_or(now);
                    messages.sort_by_key(at);
                }
                _ => {}
            }
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn clock_orders(store: SqliteTaskStore, clock: HostClock) -> TaskStore {
    Box::new(ClockOrders { store, clock, at: BTreeMap::new() })
}

/// The parts of a name are put side by side, so that some names are those of others.
struct IdsCollide(SqliteTaskStore);

impl Transact<Command> for IdsCollide {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let mut replies = self.0.transact(commands)?;
        for reply in &mut replies {
            match reply {
                Reply::Outbox(messages) => {
                    // The result of one attempt goes under the name of the first one's.
                    for message in messages {
                        if let MessageBody::Final(result) = &mut message.body {
                            let short = result.attempt.task.as_str().chars().next();
                            let text = format!("final-{}", short.unwrap_or('t'));
                            message.message_id = MessageId::parse(&text).expect("it is short");
                        }
                    }
                }
                Reply::Snapshot(snapshot) => snapshot.finals.clear(),
                _ => {}
            }
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn ids_collide(store: SqliteTaskStore, _: HostClock) -> TaskStore {
    Box::new(IdsCollide(store))
}

// ---- controllers -------------------------------------------------------------------------------

/// What was delivered before is delivered again as soon as an agent is back.
#[derive(Default)]
struct DeliversFirst {
    agents: BTreeMap<ConnectionId, AgentId>,
    delivered: BTreeMap<AgentId, (MessageId, Deliver)>,
}

impl Twist<Controller> for DeliversFirst {
    fn input(&mut self, _: Instant, input: controller::Input, hands: &mut Hands<Controller>) {
        if let controller::Input::Connected { conn, agent } = &input {
            self.agents.insert(*conn, agent.clone());
        }
        hands.inputs.push_back(input);
    }

    fn output(&mut self, output: controller::Output, hands: &mut Hands<Controller>) {
        if let controller::Output::Send { conn, message_id, message } = &output
            && let Some(agent) = self.agents.get(conn)
        {
            match message {
                ControllerMessage::Deliver(deliver) => {
                    let delivered = (message_id.clone(), deliver.clone());
                    self.delivered.insert(agent.clone(), delivered);
                }
                ControllerMessage::HelloAck(_) => {
                    if let Some((message_id, deliver)) = self.delivered.get(agent).cloned() {
                        let message = ControllerMessage::Deliver(deliver);
                        let conn = *conn;
                        let first = controller::Output::Send { conn, message_id, message };
                        hands.outputs.push_back(first);
                    }
                }
                _ => {}
            }
        }
        hands.outputs.push_back(output);
    }
}

pub(in crate::mutants) fn delivers_first(core: Controller) -> ControllerCore {
    Twisted::boxed(core, DeliversFirst::default())
}

// ---- records of controllers --------------------------------------------------------------------

/// Whatever store comes is the one that is known.
struct StoresAlike(SqliteRecord);

fn without_life(hello: &mut Hello) {
    if let Some(life) = &mut hello.store {
        life.epoch = gapless::recovery::Epoch::parse("the-store").expect("it is short");
        life.predecessor = None;
        life.earlier.clear();
    }
    hello.complete = false;
}

impl Transact<record::Command> for StoresAlike {
    fn transact(
        &mut self,
        mut commands: Vec<record::Command>,
    ) -> Result<Vec<record::Reply>, StoreError> {
        for command in &mut commands {
            if let record::Command::Reconcile { hello, .. } = command {
                without_life(hello);
                // Nor is it asked what became of what it does not name.
                hello.store = None;
            }
        }
        self.0.transact(commands)
    }
}

pub(in crate::mutants) fn stores_alike(record: SqliteRecord) -> Record {
    Box::new(StoresAlike(record))
}

/// A result is acknowledged when it arrives, and stored after the next one.
#[derive(Default)]
struct Postponed(VecDeque<record::Command>);

struct AckedBeforeStored {
    record: SqliteRecord,
    postponed: Postponed,
}

impl Transact<record::Command> for AckedBeforeStored {
    fn transact(
        &mut self,
        commands: Vec<record::Command>,
    ) -> Result<Vec<record::Reply>, StoreError> {
        let mut replies = Vec::new();
        for command in commands {
            if let record::Command::Final { .. } = &command {
                // It is in memory, and the disk can wait.
                self.postponed.0.push_back(command);
                replies.push(record::Reply::FinalTaken(record::FinalTaken::Stored));
                while self.postponed.0.len() > 2 {
                    if let Some(first) = self.postponed.0.pop_front() {
                        self.record.transact(vec![first])?;
                    }
                }
            } else {
                replies.extend(self.record.transact(vec![command])?);
            }
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn acked_before_stored(record: SqliteRecord) -> Record {
    Box::new(AckedBeforeStored { record, postponed: Postponed::default() })
}

/// A second attempt is made of whatever has not ended after a while.
struct RetriesEarly(SqliteRecord);

impl Transact<record::Command> for RetriesEarly {
    fn transact(
        &mut self,
        commands: Vec<record::Command>,
    ) -> Result<Vec<record::Reply>, StoreError> {
        let mut replies = Vec::new();
        for command in commands {
            if let record::Command::Retry { task, after } = &command {
                let look = record::Command::Look(task.clone());
                if let [record::Reply::Task(Some(view))] = &self.0.transact(vec![look])?[..]
                    && let Some(last) = view.attempts.last()
                    && !last.state.has_ended()
                {
                    // It is given up for lost, so that the wish can be granted.
                    let result = gapless::tasks::wire::Final {
                        attempt: last.attempt.clone(),
                        outcome: gapless::tasks::Outcome::Interrupted,
                        exit_code: -1,
                        error: String::new(),
                        output_truncated: false,
                        error_truncated: false,
                        last_output: None,
                    };
                    let message_id = MessageId::parse(&format!("lost-{task}-{after}"));
                    self.0.transact(vec![record::Command::Final {
                        agent: view.agent.clone(),
                        message_id: message_id.expect("it is short"),
                        result,
                    }])?;
                }
            }
            replies.extend(self.0.transact(vec![command])?);
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn retries_early(record: SqliteRecord) -> Record {
    Box::new(RetriesEarly(record))
}

/// What an agent does not name is lost, whatever it says.
struct UnnamedIsLost(SqliteRecord);

impl Transact<record::Command> for UnnamedIsLost {
    fn transact(
        &mut self,
        commands: Vec<record::Command>,
    ) -> Result<Vec<record::Reply>, StoreError> {
        let mut replies = Vec::new();
        for mut command in commands {
            if let record::Command::Reconcile { hello, .. } = &mut command
                && let Some(life) = &mut hello.store
                && life.predecessor.is_some()
            {
                // Each start is another store.
                life.predecessor = None;
                life.earlier.clear();
            }
            replies.extend(self.0.transact(vec![command])?);
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn every_start_is_another_store(record: SqliteRecord) -> Record {
    Box::new(UnnamedIsLost(record))
}
