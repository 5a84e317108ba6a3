//! The agent of tasks as a node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gapless::recovery::{BackoffConfig, Entropy, Instant, LivenessConfig, WallTime};
use gapless::tasks::agent::{Agent, AgentConfig, Exit, Input, Output, Posted};
use gapless::tasks::auth::{ClockOffset, SignedHeaders, Signer};
use gapless::tasks::driver::agent_http::{self, AgentRequest, Refused, WEBSOCKET_PATH};
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::store::{
    Append, Appended, Command, MessageBody, Received, RecoveryStore as _, Reply, Started,
};
use gapless::tasks::wire::{self, Envelope, FrameError};
use gapless::tasks::{Attempt, AttemptId, Outcome, OutputStream, Status, TaskId};
use gapless::{AgentId, CloseCode, ConnectionId, Ticket};

use super::store::{Answer, NodeStore, Step};
use super::{Endpoint, Moment};
use crate::conform::keys;
use crate::conform::protocol::{Config, Effect, Event, Reset, TasksAgentConfig, feature};
use crate::history::Stage;
use crate::mutants::{AgentCore, Distorted};
use crate::seed::Seed;
use crate::world::HostClock;

pub(super) const FEATURES: &[&str] = &[
    feature::EXTENSION,
    feature::SOCK_SENT,
    feature::SOCK_ALIVE,
    feature::SUSPEND,
    feature::TASK_REPORTS,
    feature::SIGN_FNV1A,
];

/// The keys under which the store commits its pages begin with this.
const PAGES: &str = "page";

/// One life of an agent.
pub(super) fn begin(reset: &Reset, distorted: Distorted) -> Result<Box<dyn Endpoint>, String> {
    let Config::TasksAgent(config) = &reset.config else {
        return Err("the configuration is of another role".to_owned());
    };
    let seed: Seed = reset.seed.parse().map_err(|error| format!("{error}"))?;
    let entropy = distorted.entropy(Box::new(seed.stream("agent", &reset.host, reset.life)));
    let clock = HostClock::default();
    let store = NodeStore::open(PAGES, &reset.storage, opener(config, distorted, clock.clone()))?;
    Ok(Box::new(Life {
        core: distorted.agent(Agent::new(core_config(config, distorted), entropy)),
        agent: AgentId::parse(&config.agent).map_err(|error| error.to_string())?,
        signer: keys::signer(&config.key)?,
        nonces: Box::new(seed.stream("nonces", &reset.host, reset.life)),
        offset: ClockOffset::default(),
        base_url: config.base_url.clone(),
        clock,
        store,
        spool: 0,
        kept: BTreeMap::new(),
        bound: BTreeMap::new(),
        queued: BTreeMap::new(),
        asked: BTreeMap::new(),
        effects: Vec::new(),
    }))
}

fn core_config(config: &TasksAgentConfig, distorted: Distorted) -> AgentConfig {
    let ms = Duration::from_millis;
    let defaults = AgentConfig::default();
    AgentConfig {
        extension: config.extension,
        parallel: config.parallel,
        queue_max: match distorted.settings().endless_queue {
            true => usize::MAX,
            false => config.queue_max,
        },
        handshake_timeout: ms(config.handshake_timeout_ms),
        liveness: LivenessConfig {
            ping_every: ms(config.ping_every_ms),
            pong_timeout: ms(config.pong_timeout_ms),
        },
        reconnect: BackoffConfig {
            min: ms(config.reconnect_ms.0),
            max: ms(config.reconnect_ms.1),
            ..defaults.reconnect
        },
        ack_timeout: ms(config.ack_timeout_ms),
        window_messages: config.window_messages,
        page_messages: config.page_messages,
        chunk_bytes: config.chunk_bytes,
        flush_after: ms(config.flush_after_ms),
        buffer_bytes: config.buffer_bytes,
        hello_finals_max: config.hello_finals_max,
        hello_ranges_max: config.hello_ranges_max,
        hello_bytes_max: config.hello_bytes_max,
        fallback_after: ms(config.fallback_after_ms),
        poll_every: ms(config.poll_every_ms),
        request_timeout: ms(config.request_timeout_ms),
        ..defaults
    }
}

fn opener(
    config: &TasksAgentConfig,
    distorted: Distorted,
    clock: HostClock,
) -> super::store::Opener<Command> {
    let settings = distorted.settings();
    let (spool_cap_bytes, finished_max) = (config.spool_cap_bytes, config.finished_max);
    let terminal_reserve_bytes = match settings.reserve_once {
        true => config.terminal_reserve_bytes / 32,
        false => config.terminal_reserve_bytes,
    };
    Box::new(move |path, again| {
        let mut store = SqliteTaskStore::open(TaskStoreConfig {
            spool_cap_bytes,
            terminal_reserve_bytes,
            finished_max,
            ..TaskStoreConfig::new(path)
        })
        .map_err(|error| error.to_string())?;
        if again {
            store.resume().map_err(|error| error.to_string())?;
        }
        Ok(distorted.task_store(store, &clock))
    })
}

fn stage_of(status: Status) -> Stage {
    match status {
        Status::Received => Stage::Received,
        Status::Running => Stage::Running,
        Status::Final(_) => Stage::Ended,
    }
}

/// What was asked over HTTP.
enum Asked {
    Post,
    Poll,
}

struct Life {
    core: AgentCore,
    agent: AgentId,
    signer: Arc<dyn Signer>,
    nonces: Box<dyn Entropy>,
    offset: ClockOffset,
    base_url: String,
    /// The wall clock of the host, for known-bad variants that go by it.
    clock: HostClock,
    store: NodeStore<Command>,
    /// The most that the store has taken.
    spool: u64,
    /// How far each attempt was reported to be.
    kept: BTreeMap<Attempt, Stage>,
    /// Up to which number each stream was reported to be bound.
    bound: BTreeMap<(Attempt, OutputStream), u64>,
    /// Which of the queued frames are pings, oldest first, by connection.
    queued: BTreeMap<u64, VecDeque<bool>>,
    /// The requests that are on their way.
    asked: BTreeMap<u64, Asked>,
    effects: Vec<Effect>,
}

impl Life {
    /// Inputs, and everything that they lead to.
    fn feed(&mut self, moment: Moment, input: Input) -> Result<(), String> {
        let mut inputs = VecDeque::from([input]);
        loop {
            while let Some(input) = inputs.pop_front() {
                self.core.handle(moment.now, input);
                while let Some(output) = self.core.poll() {
                    inputs.extend(self.perform(moment, output));
                }
            }
            match self.store.next()? {
                None => return Ok(()),
                Some(Step::Commits(effect)) => self.effects.push(effect),
                Some(Step::Answered(answers)) => inputs.extend(self.heard(answers)),
            }
        }
    }

    /// What an output leads to at once.
    fn perform(&mut self, Moment { wall, .. }: Moment, output: Output) -> Option<Input> {
        let effect = match output {
            Output::Dial { conn } => match self.signed(wall) {
                Ok(headers) => Effect::SockConnect {
                    conn: conn.0,
                    url: format!("{}{WEBSOCKET_PATH}", self.base_url.replacen("http", "ws", 1)),
                    headers,
                    protocols: vec![],
                },
                Err(reason) => return Some(Input::DialFailed { conn, reason }),
            },
            Output::Send { conn, message_id, message, extension } => {
                let agent = self.agent.clone();
                let envelope = Envelope { message_id, agent, sent_at: wall, message };
                self.queued.entry(conn.0).or_default().push_back(false);
                let text = String::from_utf8_lossy(&envelope.to_bytes(extension)).into_owned();
                Effect::SockSend { conn: conn.0, text }
            }
            Output::Ping { conn } => {
                self.queued.entry(conn.0).or_default().push_back(true);
                Effect::SockPing { conn: conn.0 }
            }
            Output::Close { conn, code, reason } => {
                self.queued.remove(&conn.0);
                Effect::SockClose { conn: conn.0, code: Some(code.0), reason: reason.to_owned() }
            }
            Output::Store(id, command) => {
                self.store.push(id, command);
                return None;
            }
            Output::Run { attempt, command } => {
                Effect::ExecStart { attempt: attempt.to_string(), command }
            }
            Output::Listen { attempt, on } => Effect::ExecRead { attempt: attempt.to_string(), on },
            Output::Kill { attempt } => Effect::ExecKill { attempt: attempt.to_string() },
            Output::Post { ticket, message_id, result } => {
                match self.request(wall, ticket, AgentRequest::post(message_id, &result)) {
                    Ok(effect) => {
                        self.asked.insert(ticket.0, Asked::Post);
                        effect
                    }
                    Err(problem) => {
                        let answer = Posted::Unknown(problem);
                        return Some(Input::Posted { ticket, answer });
                    }
                }
            }
            Output::Poll { ticket } => {
                match self.request(wall, ticket, AgentRequest::poll(&self.agent)) {
                    Ok(effect) => {
                        self.asked.insert(ticket.0, Asked::Poll);
                        effect
                    }
                    Err(problem) => {
                        return Some(Input::Polled { ticket, answer: Err(problem), at: wall });
                    }
                }
            }
            Output::Notify(notice) => Effect::AppState { text: notice.to_string() },
        };
        self.effects.push(effect);
        None
    }

    fn signed(&mut self, wall: WallTime) -> Result<Vec<(String, String)>, String> {
        let at = self.offset.apply(wall);
        let signed = SignedHeaders::sign(&*self.signer, &self.agent, at, &mut *self.nonces);
        let signed = signed.map_err(|error| error.to_string())?;
        Ok(signed.pairs().into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn request(
        &mut self,
        wall: WallTime,
        ticket: Ticket,
        asked: AgentRequest,
    ) -> Result<Effect, String> {
        let mut headers = self.signed(wall)?;
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        Ok(Effect::HttpRequest {
            id: ticket.0,
            method: asked.method.to_owned(),
            url: format!("{}{}", self.base_url, asked.path),
            headers,
            body: String::from_utf8_lossy(&asked.body).into_owned(),
        })
    }

    /// What there is to say of an answer over HTTP.
    fn answered(
        &mut self,
        id: u64,
        answer: Result<(u16, String), String>,
        at: WallTime,
    ) -> Option<Input> {
        let ticket = Ticket(id);
        Some(match (self.asked.remove(&id)?, answer) {
            (Asked::Post, Ok((status, body))) => {
                Input::Posted { ticket, answer: agent_http::posted(status, body.as_bytes()) }
            }
            (Asked::Post, Err(problem)) => {
                Input::Posted { ticket, answer: Posted::Unknown(problem) }
            }
            (Asked::Poll, Ok((status, body))) => {
                let answer = agent_http::polled(status, body.as_bytes());
                Input::Polled { ticket, answer, at }
            }
            (Asked::Poll, Err(problem)) => Input::Polled { ticket, answer: Err(problem), at },
        })
    }

    // ---- reports -----------------------------------------------------------------------------

    /// The store has answered: what it has is reported before the core hears of it.
    fn heard(&mut self, answers: Vec<Answer<Command>>) -> Vec<Input> {
        let size = self.store.size();
        if size > self.spool {
            self.spool = size;
            self.effects.push(Effect::TaskSpool { bytes: size });
        }
        let mut inputs = Vec::new();
        for Answer { id, command, result } in answers {
            if let Ok(reply) = &result {
                self.report(&command, reply);
            }
            inputs.push(Input::Stored(id, result));
        }
        inputs
    }

    fn report(&mut self, command: &Command, reply: &Reply) {
        match (command, reply) {
            (Command::Receive(receipt), Reply::Received(Received::New)) => {
                self.keeps(&receipt.attempt, Stage::Received);
            }
            (Command::Receive(receipt), Reply::Received(Received::Known(known))) => {
                self.keeps(&receipt.attempt, stage_of(known.status));
            }
            (Command::Find(attempt), Reply::Found(Some(known))) => {
                self.keeps(attempt, stage_of(known.status));
            }
            (Command::Recover { .. }, Reply::Recovered(recovered)) => {
                for receipt in &recovered.received {
                    self.keeps(&receipt.attempt, Stage::Received);
                }
                for attempt in &recovered.interrupted {
                    self.keeps(attempt, Stage::Ended);
                }
            }
            (Command::Start { attempt, .. }, Reply::Started(started)) => match started {
                Started::Now => {
                    self.bound.retain(|(of, _), _| of != attempt);
                    self.keeps(attempt, Stage::Running);
                }
                Started::Before => self.keeps(attempt, Stage::Running),
                Started::Ended => self.keeps(attempt, Stage::Ended),
                Started::Unknown => self.forgets(attempt),
            },
            (Command::Discard(_), Reply::Discarded(gone)) => {
                for attempt in gone {
                    self.forgets(attempt);
                }
            }
            (Command::Append(piece), Reply::Appended(Appended::Stored { .. })) => {
                self.binds(piece);
            }
            (Command::Finish(finish), Reply::Finished(_)) => {
                self.keeps(&finish.attempt, Stage::Ended);
            }
            (_, Reply::Outbox(messages)) => {
                for message in messages {
                    match &message.body {
                        MessageBody::Final(result) => self.keeps(&result.attempt, Stage::Ended),
                        MessageBody::Output { chunk, .. } => self.binds(chunk),
                    }
                }
            }
            _ => {}
        }
    }

    fn keeps(&mut self, attempt: &Attempt, stage: Stage) {
        if self.kept.insert(attempt.clone(), stage) != Some(stage) {
            self.effects.push(Effect::TaskKept { attempt: attempt.to_string(), stage });
        }
    }

    fn forgets(&mut self, attempt: &Attempt) {
        self.kept.remove(attempt);
        self.effects.push(Effect::TaskForgot { attempt: attempt.to_string() });
    }

    fn binds(&mut self, piece: &Append) {
        let Append { attempt, stream, sequence, data } = piece;
        let highest = self.bound.entry((attempt.clone(), *stream)).or_default();
        if *sequence > *highest {
            *highest = *sequence;
            self.effects.push(Effect::TaskBound {
                attempt: attempt.to_string(),
                stream: (*stream).into(),
                sequence: *sequence,
                b64: STANDARD.encode(data),
            });
        }
    }

    /// What the store holds.
    fn look(&mut self, attempts: &[String]) -> Result<(), String> {
        let store = self.store.look();
        let mut known = Vec::new();
        for name in attempts {
            let find = vec![Command::Find(attempt(name)?)];
            let replies = store.transact(find).map_err(|error| error.to_string())?;
            if let [Reply::Found(found)] = &replies[..] {
                let stage = found.as_ref().map(|found| stage_of(found.status));
                known.push(Effect::TaskKnown { attempt: name.clone(), stage });
            }
        }
        let snapshot = store.snapshot().map_err(|error| error.to_string())?;
        let running = snapshot.running.iter().map(|it| &it.attempt);
        let open = running.chain(snapshot.received.iter().map(|it| &it.attempt));
        let results = snapshot.finals.iter().map(|(_, result)| result.attempt.to_string());
        known.push(Effect::TaskWaits {
            open: open.map(ToString::to_string).collect(),
            results: results.collect(),
            output: snapshot.output.len(),
        });
        self.effects.extend(known);
        Ok(())
    }

    // ---- events ------------------------------------------------------------------------------

    /// Whether a ping is among the frames that have left.
    fn pings_left(&mut self, conn: u64, count: u64) -> bool {
        let queued = self.queued.entry(conn).or_default();
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(queued.len());
        queued.drain(..count).any(|is_ping| is_ping)
    }

    /// What an event is to the core, if it is anything to it.
    fn input(&mut self, wall: WallTime, event: Event) -> Result<Option<Input>, String> {
        let at = wall;
        Ok(Some(match event {
            Event::AppConnect => Input::Start { at },
            Event::SockOpen { conn, .. } => Input::Opened { conn: ConnectionId(conn), at },
            Event::SockError { conn, status, body, message, .. } => {
                let Refused { reason, server_time } = match status {
                    Some(status) => Refused::by(status, body.as_bytes()),
                    None => Refused::unanswered(message),
                };
                if let Some(server_time) = server_time {
                    self.offset.learn(server_time, wall);
                }
                Input::DialFailed { conn: ConnectionId(conn), reason }
            }
            Event::SockMessage { conn, text: Some(text), .. } => {
                let conn = ConnectionId(conn);
                match wire::parse_controller(&text) {
                    Ok(frame) => Input::Frame { conn, frame, at },
                    Err(error) => Input::Malformed { conn, error },
                }
            }
            Event::SockMessage { conn, b64, .. } => {
                let bytes = STANDARD.decode(b64.unwrap_or_default()).unwrap_or_default();
                let error = FrameError::binary(bytes.len());
                Input::Malformed { conn: ConnectionId(conn), error }
            }
            Event::SockSent { conn, count } => {
                if !self.pings_left(conn, count) {
                    return Ok(None);
                }
                Input::PingWritten { conn: ConnectionId(conn) }
            }
            Event::SockAlive { conn } => Input::Alive { conn: ConnectionId(conn) },
            Event::SockClose { conn, code } => {
                self.queued.remove(&conn);
                Input::Closed { conn: ConnectionId(conn), code: code.map(CloseCode) }
            }
            Event::ExecOutput { attempt: name, stream, b64 } => {
                let data = STANDARD.decode(b64).map_err(|error| error.to_string())?;
                let (attempt, data) = (attempt(&name)?, Bytes::from(data));
                Input::Wrote { attempt, stream: stream.into(), data }
            }
            Event::ExecExit { attempt: name, code, error } => {
                let outcome = if code == 0 { Outcome::Completed } else { Outcome::Failed };
                let exit = Exit { outcome, exit_code: code, error, truncated: vec![] };
                Input::Exited { attempt: attempt(&name)?, exit }
            }
            Event::HttpResponse { id, status, body } => {
                return Ok(self.answered(id, Ok((status, body)), at));
            }
            Event::HttpError { id, message, .. } => {
                return Ok(self.answered(id, Err(message), at));
            }
            other => return Err(format!("no agent knows {other:?}")),
        }))
    }
}

fn attempt(name: &str) -> Result<Attempt, String> {
    let problem = || format!("`{name}` names no attempt");
    let (task, id) = name.split_once('/').ok_or_else(problem)?;
    let task = TaskId::parse(task).map_err(|_| problem())?;
    Ok(Attempt { task, id: AttemptId::parse(id).map_err(|_| problem())? })
}

impl Endpoint for Life {
    fn event(&mut self, moment: Moment, event: Event) -> Result<(), String> {
        self.clock.set(moment.wall);
        match event {
            Event::TaskLook { attempts } => self.look(&attempts),
            Event::StoreDone { id, error } => {
                let answers = self.store.done(id, error)?;
                for input in self.heard(answers) {
                    self.feed(moment, input)?;
                }
                Ok(())
            }
            event => match self.input(moment.wall, event)? {
                Some(input) => self.feed(moment, input),
                None => Ok(()),
            },
        }
    }

    fn timeout(&mut self, moment: Moment) {
        self.clock.set(moment.wall);
        if let Err(message) = self.feed(moment, Input::Timeout) {
            self.effects.push(Effect::Panic { message });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}
