//! The server of sessions as a node.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gapless::net::http;
use gapless::recovery::{Instant, LivenessConfig, RingLimits};
use gapless::session::conversation::{
    self, Command, Ending, Kind, Loaded, Reply, Role, Saying, Verdict, What,
};
use gapless::session::driver::Hello;
use gapless::session::server::{Input, Output, Server, ServerConfig, ShowAll};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations};
use gapless::session::wire::{self, ClientFrame, FrameError, Notice, SUBPROTOCOL};
use gapless::session::{ConnectionId, Identity, Name, Turn};
use gapless::storage::{StoreError, Transact};
use serde_json::value::RawValue;

use super::store::{Answer, NodeStore, Step};
use super::{Endpoint, Moment};
use crate::conform::protocol::{Config, Conn, Effect, Event, Reset, feature};
use crate::conform::session::{
    Held, RejectedInput, RowHeld, SessionServerConfig, TurnEnding, Usage,
};
use crate::mutants::{Distorted, SessionServerCore};
use crate::seed::Seed;

pub(super) const FEATURES: &[&str] = &[
    feature::EXTENSION,
    feature::SOCK_SENT,
    feature::SOCK_ALIVE,
    feature::SUSPEND,
    feature::CONVERSATION_REPORTS,
];

/// The database's pages are stored as `conversations/NUMBER`.
const PAGES: &str = "conversations";

type Shared<T> = Arc<Mutex<T>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store, and what of it is told to the simulator.
struct Told {
    store: SqliteConversations,
    held: Shared<Vec<Held>>,
}

impl Transact<Command> for Told {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let replies = self.store.transact(commands.clone())?;
        let told = commands.iter().zip(&replies);
        lock(&self.held).extend(told.flat_map(|(command, reply)| held(command, reply)));
        Ok(replies)
    }
}

/// What a store holds after a command.
fn held(command: &Command, reply: &Reply) -> Vec<Held> {
    let row = |principal: &str, row: RowHeld| Held::Row { principal: principal.to_owned(), row };
    let named = |turn: &Turn| (turn.principal.to_string(), turn.position);
    match (command, reply) {
        // Also what a recovery has made of a turn that was interrupted.
        (Command::Load { principal, .. }, Reply::Loaded(loaded)) => {
            let rows = loaded.rows.iter().chain(&loaded.waiting);
            rows.map(|loaded| row(principal, loaded.into())).collect()
        }
        (Command::Input { principal, input, .. }, Reply::Input(verdict)) => vec![match verdict {
            Verdict::Accepted(accepted) => row(principal, accepted.into()),
            Verdict::Known { position, question } => {
                row(principal, known(*position, input, question.as_ref()))
            }
            Verdict::Rejected(reason) => Held::Refused {
                principal: principal.to_string(),
                input: RejectedInput::new(input.id.as_str(), *reason),
            },
        }],
        (Command::Begin(turn), Reply::Begun(true)) => {
            let (principal, position) = named(turn);
            vec![Held::Begun { principal, position }]
        }
        (Command::Say { turn, .. }, Reply::Row(said)) => vec![row(&turn.principal, said.into())],
        (Command::End { turn, .. }, Reply::Ended(said)) => {
            let said = said.as_ref().map(|said| row(&turn.principal, said.into()));
            let (principal, position) = named(turn);
            said.into_iter().chain([Held::Over { principal, position }]).collect()
        }
        _ => Vec::new(),
    }
}

/// The row of an input that was accepted before.
fn known(position: u64, input: &conversation::Input, question: Option<&Name>) -> RowHeld {
    let kind = match input.what {
        What::Message { .. } => Kind::Message,
        What::Answer { .. } => Kind::Answer,
    };
    RowHeld {
        id: position,
        role: Role::User.into(),
        kind: kind.into(),
        text: input.text.clone(),
        input_id: Some(input.id.to_string()),
        question_id: question.map(ToString::to_string),
    }
}

/// One life of a server.
pub(super) fn begin(reset: &Reset, distorted: Distorted) -> Result<Box<dyn Endpoint>, String> {
    let Config::SessionServer(config) = &reset.config else {
        return Err("the configuration is of another role".to_owned());
    };
    let seed: Seed = reset.seed.parse().map_err(|error| format!("{error}"))?;
    let (held, path) = (Shared::default(), Shared::default());
    let conversations = ConversationsConfig {
        retain_rows: config.retain_rows,
        synchronous: distorted.settings().synchronous,
        vfs: None,
    };
    let store = {
        let (held, path) = (Arc::clone(&held), Arc::clone(&path));
        let conversations = conversations.clone();
        NodeStore::open(
            PAGES,
            &reset.storage,
            Box::new(move |at, _| {
                let store = SqliteConversations::open(at, &conversations);
                let store = store.map_err(|error| error.to_string())?;
                *lock(&path) = at.to_owned();
                Ok(distorted.conversations(Told { store, held: Arc::clone(&held) }))
            }),
        )?
    };
    let entropy = distorted.entropy(Box::new(seed.stream("server", &reset.host, reset.life)));
    let core = Server::new(server_config(config), Box::new(ShowAll), entropy);
    Ok(Box::new(Life {
        core: distorted.session_server(core),
        config: config.clone(),
        conversations,
        store,
        held,
        path,
        hellos: BTreeMap::new(),
        speaks: BTreeMap::new(),
        tickets: 0,
        turns: BTreeMap::new(),
        effects: Vec::new(),
    }))
}

fn server_config(config: &SessionServerConfig) -> ServerConfig {
    let ms = Duration::from_millis;
    ServerConfig {
        extension: config.extension,
        ring: RingLimits {
            count: config.ring,
            bytes: config.ring_bytes,
            age: Some(ms(config.ring_age_ms)),
        },
        prune_every: ms(config.prune_every_ms),
        idle_max: ms(config.idle_max_ms),
        outboxes_max: config.outboxes,
        liveness: LivenessConfig {
            ping_every: ms(config.ping_every_ms),
            pong_timeout: ms(2 * config.ping_every_ms),
        },
        window_frames: config.window_frames,
        write_stall: ms(config.write_stall_ms),
        history_messages: config.history_messages,
        history_bytes: config.history_bytes,
        queue_max: config.queue,
        inputs_max: config.inputs,
        turns_max: config.turns,
        text_bytes_max: config.text_bytes,
        ..ServerConfig::default()
    }
}

struct Life {
    core: SessionServerCore,
    config: Box<SessionServerConfig>,
    conversations: ConversationsConfig,
    store: NodeStore<Command>,
    /// What the store holds since the transaction that runs.
    held: Shared<Vec<Held>>,
    /// Where the store is.
    path: Shared<PathBuf>,
    /// Who is about to connect: the principal and the query.
    hellos: BTreeMap<Conn, (String, String)>,
    /// Whether the extension is spoken, by connection.
    speaks: BTreeMap<Conn, bool>,
    tickets: u64,
    /// The turns that the application is at.
    turns: BTreeMap<u64, Turn>,
    effects: Vec<Effect>,
}

impl Life {
    fn feed(&mut self, now: Instant, input: Input) -> Result<(), String> {
        self.core.handle(now, input);
        self.drain(now)
    }

    fn drain(&mut self, now: Instant) -> Result<(), String> {
        while let Some(output) = self.core.poll() {
            self.perform(output);
        }
        self.step(now)
    }

    /// What the store is to do next.
    fn step(&mut self, now: Instant) -> Result<(), String> {
        match self.store.next()? {
            None => Ok(()),
            Some(Step::Commits(commit)) => {
                self.report(&commit);
                self.effects.push(commit);
                Ok(())
            }
            Some(Step::Answered(answers)) => {
                // What a transaction without a change found was durable before.
                self.tell(None);
                self.answered(now, answers)
            }
        }
    }

    fn report(&mut self, commit: &Effect) {
        if let Effect::StoreCommit { id, .. } = commit {
            self.tell(Some(*id));
        }
    }

    fn tell(&mut self, id: Option<u64>) {
        let held = std::mem::take(&mut *lock(&self.held));
        if !held.is_empty() {
            self.effects.push(Effect::StoreConversations { id, held });
        }
    }

    fn answered(&mut self, now: Instant, answers: Vec<Answer<Command>>) -> Result<(), String> {
        for Answer { id, result, .. } in answers {
            self.feed(now, Input::Stored(id, result))?;
        }
        self.step(now)
    }

    fn perform(&mut self, output: Output) {
        let effect = match output {
            Output::Store(id, command) => return self.store.push(id, command),
            Output::Send { conn, frame } => {
                let extension = self.speaks.get(&conn.0).copied().unwrap_or(false);
                if !extension {
                    let text = frame.to_text(true);
                    self.effects.push(Effect::SessionFrame { conn: conn.0, text });
                }
                Effect::SockSend { conn: conn.0, text: frame.to_text(extension) }
            }
            Output::Close { conn, code, reason } => {
                self.speaks.remove(&conn.0);
                Effect::SockClose { conn: conn.0, code: Some(code.0), reason: reason.to_owned() }
            }
            Output::Run(work) => {
                self.tickets += 1;
                self.turns.insert(self.tickets, work.turn.clone());
                Effect::AppTurn {
                    ticket: self.tickets,
                    principal: work.turn.principal.to_string(),
                    position: work.turn.position,
                    text: work.input.text,
                }
            }
            Output::Heard { turn } => {
                let ticket = self.turns.iter().find(|(_, known)| **known == turn);
                let Some((ticket, _)) = ticket else { return };
                Effect::TurnHeard { ticket: *ticket }
            }
        };
        self.effects.push(effect);
    }

    /// Decides about a WebSocket, before any state is read.
    fn requested(&mut self, conn: Conn, target: &str, headers: &[(String, String)]) -> Effect {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let refuse = |status, body: &str| Effect::SockRefuse {
            conn,
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        };
        if path != "/ws" {
            return refuse(404, "there is nothing here");
        }
        let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted);
        let bearer = header("authorization").and_then(|(_, value)| value.split_once(' '));
        let token = bearer.map(|(_, token)| token.trim().to_owned());
        let token = token.or_else(|| http::query(query, "token"));
        let user = token.and_then(|token| self.config.users.iter().find(|(_, own)| **own == token));
        let Some((principal, _)) = user else {
            return refuse(401, "the token is missing or not valid");
        };
        if Hello::client(query, ConnectionId(conn)).is_err() {
            return refuse(400, "`client_id` on the URL is no name");
        }
        self.hellos.insert(conn, (principal.clone(), query.to_owned()));
        let offered = header("sec-websocket-protocol").map_or("", |(_, value)| value);
        let offered = offered.split(',').any(|name| name.trim() == SUBPROTOCOL);
        let protocol = (self.config.extension && offered).then(|| SUBPROTOCOL.to_owned());
        Effect::SockAccept { conn, protocol }
    }

    fn connected(&mut self, conn: Conn, extension: bool) -> Option<Input> {
        let (principal, query) = self.hellos.remove(&conn)?;
        let client = Hello::client(&query, ConnectionId(conn)).ok()?;
        let identity = Identity { principal: principal.into(), client };
        let Hello { identity, extension, since, epoch, attempt } =
            Hello::parse(identity, extension, &query);
        self.speaks.insert(conn, extension);
        let conn = ConnectionId(conn);
        Some(Input::Connected { conn, identity, extension, since, epoch, attempt })
    }

    /// The application has something to say in a turn; `None` if that is over.
    fn said(&mut self, event: Event) -> Result<Option<Input>, String> {
        let (Event::TurnSay { ticket, .. }
        | Event::TurnProgress { ticket, .. }
        | Event::TurnEnd { ticket, .. }) = &event
        else {
            return Err(format!("no server of sessions knows {event:?}"));
        };
        let Some(turn) = self.turns.get(ticket).cloned() else { return Ok(None) };
        Ok(Some(match event {
            Event::TurnSay { text, model, usage, .. } => {
                let usage = usage.map(|Usage { input, output }| wire::Usage { input, output });
                Input::Say { turn, saying: Saying { text, model, usage } }
            }
            Event::TurnProgress { kind, fields, .. } => {
                let fields = RawValue::from_string(fields.to_string());
                let fields = fields.map_err(|error| error.to_string())?;
                Input::Progress { turn, notice: Notice { kind, fields } }
            }
            Event::TurnEnd { ticket, ending } => {
                self.turns.remove(&ticket);
                let ending = match ending {
                    TurnEnding::Done => Ending::Done,
                    TurnEnding::Failed(text) => Ending::Failed(text),
                    TurnEnding::Ask { question, text, source } => {
                        let question = Name::parse(&question).map_err(|error| error.to_string())?;
                        Ending::Ask { question, text, source }
                    }
                };
                Input::End { turn, ending }
            }
            _ => return Ok(None),
        }))
    }

    /// What the store holds, whatever the store in use says.
    fn look(&self, principal: &str) -> Result<Loaded, String> {
        let path = lock(&self.path).clone();
        let store = SqliteConversations::open(&path, &self.conversations);
        let mut store = store.map_err(|error| error.to_string())?;
        let command = Command::Load {
            principal: principal.into(),
            count_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        match store.transact(vec![command]).map_err(|error| error.to_string())?.pop() {
            Some(Reply::Loaded(loaded)) => Ok(loaded),
            _ => Err("the store answers something else".to_owned()),
        }
    }

    /// What earlier lives have left is durable, also what they did not know of.
    fn tell_left(&mut self) -> Result<(), String> {
        for principal in self.config.users.keys() {
            let loaded = self.look(principal)?;
            let rows = loaded
                .rows
                .iter()
                .map(|row| Held::Row { principal: principal.clone(), row: row.into() });
            lock(&self.held).extend(rows);
        }
        self.tell(None);
        Ok(())
    }
}

impl Endpoint for Life {
    fn event(&mut self, Moment { now, .. }: Moment, event: Event) -> Result<(), String> {
        let input = match event {
            Event::AppConnect => {
                self.tell_left()?;
                return self.drain(now);
            }
            Event::SessionLook { principals } => {
                for principal in principals {
                    let loaded = self.look(&principal)?;
                    self.effects.push(Effect::SessionHolds {
                        rows: loaded.rows.iter().map(Into::into).collect(),
                        question: loaded.question.as_ref().map(Into::into),
                        waiting: loaded.waiting.iter().map(|row| row.position).collect(),
                        principal,
                    });
                }
                return Ok(());
            }
            Event::StoreDone { id, error } => {
                let answers = self.store.done(id, error)?;
                return self.answered(now, answers);
            }
            Event::SockRequest { conn, target, headers } => {
                let decision = self.requested(conn, &target, &headers);
                self.effects.push(decision);
                return Ok(());
            }
            Event::HttpRequest { id, method, target, .. } => {
                let path = target.split('?').next().unwrap_or_default();
                let status = match (method.as_str(), path) {
                    ("GET", "/health") => 204,
                    ("GET", "/ws") => 426,
                    (_, "/ws" | "/health") => 405,
                    _ => 404,
                };
                let (headers, body) = (Vec::new(), String::new());
                self.effects.push(Effect::HttpResponse { id, status, headers, body });
                return Ok(());
            }
            Event::SockOpen { conn, protocol } => {
                match self.connected(conn, protocol.as_deref() == Some(SUBPROTOCOL)) {
                    Some(input) => input,
                    None => return Ok(()),
                }
            }
            Event::SockMessage { conn, text: Some(text), .. } => {
                let conn = ConnectionId(conn);
                match ClientFrame::parse(&text) {
                    Ok(frame) => Input::Frame { conn, frame },
                    Err(error) => Input::Malformed { conn, error },
                }
            }
            Event::SockMessage { conn, text: None, .. } => {
                let error = FrameError::NotAnObject("a binary frame".to_owned());
                Input::Malformed { conn: ConnectionId(conn), error }
            }
            Event::SockSent { conn, count } => {
                let frames = usize::try_from(count).unwrap_or(usize::MAX);
                Input::Written { conn: ConnectionId(conn), frames }
            }
            Event::SockAlive { conn } => Input::Alive { conn: ConnectionId(conn) },
            Event::SockClose { conn, .. } | Event::SockError { conn, .. } => {
                self.hellos.remove(&conn);
                self.speaks.remove(&conn);
                Input::Disconnected { conn: ConnectionId(conn) }
            }
            other => match self.said(other)? {
                Some(input) => input,
                None => return Ok(()),
            },
        };
        self.feed(now, input)
    }

    fn timeout(&mut self, Moment { now, .. }: Moment) {
        self.feed(now, Input::Timeout).expect("SQLite works in memory");
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}
