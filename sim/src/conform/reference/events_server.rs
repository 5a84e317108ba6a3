//! The server of event streams as a node.

use std::collections::BTreeMap;
use std::time::Duration;

use gapless::events::driver::publishing::{Answer, answer, publication};
use gapless::events::log::{Appended, Command, Read, Reply};
use gapless::events::server::{Input, Output, Server, ServerConfig};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::events::wire::{ClientFrame, FrameError, SUBPROTOCOL};
use gapless::events::{AgentId, ConnectionId, Ticket};
use gapless::net::http::query;
use gapless::recovery::{Instant, RingLimits};

use super::store::{self, NodeStore, Step};
use super::{Endpoint, Moment};
use crate::conform::protocol::{Config, Conn, Effect, Event, EventsServerConfig, Reset, feature};
use crate::mutants::{Distorted, ServerCore};
use crate::seed::Seed;

pub(super) const FEATURES: &[&str] = &[
    feature::EXTENSION,
    feature::SOCK_SENT,
    feature::SOCK_ALIVE,
    feature::SUSPEND,
    feature::RETAIN,
    feature::LOG_REPORTS,
];

/// One life of a server.
pub(super) fn begin(reset: &Reset, distorted: Distorted) -> Result<Box<dyn Endpoint>, String> {
    let Config::EventsServer(config) = &reset.config else {
        return Err("the configuration is of another role".to_owned());
    };
    let seed: Seed = reset.seed.parse().map_err(|error| format!("{error}"))?;
    let ms = Duration::from_millis;
    let core = ServerConfig {
        extension: config.extension,
        ring: RingLimits { count: config.ring, ..ServerConfig::default().ring },
        resync_grace: ms(config.resync_grace_ms),
        window_frames: config.window_frames,
        write_stall: ms(config.write_stall_ms),
        silence: ms(config.silence_ms),
        page_events: config.page_events,
        ..ServerConfig::default()
    };
    let bytes_max = core.event_bytes_max;
    let entropy = distorted.entropy(Box::new(seed.stream("server", &reset.host, reset.life)));
    let retain_events = config.retain_events;
    let open = Box::new(move |path: &std::path::Path, again| {
        let config = LogConfig { retain_events, ..LogConfig::new(path) };
        let mut log = SqliteLog::open(config).map_err(|error| error.to_string())?;
        if again {
            log.resume().map_err(|error| error.to_string())?;
        }
        Ok(distorted.log(log))
    });
    let mut agents = BTreeMap::new();
    for (agent, token) in &config.agents {
        let agent = AgentId::parse(agent).map_err(|error| error.to_string())?;
        agents.insert(token.clone(), agent);
    }
    Ok(Box::new(Life {
        core: distorted.server(Server::new(core, entropy)),
        store: NodeStore::open("log", &reset.storage, open)?,
        config: config.clone(),
        agents,
        bytes_max,
        opening: BTreeMap::new(),
        effects: Vec::new(),
    }))
}

struct Life {
    core: ServerCore,
    store: NodeStore<Command>,
    config: EventsServerConfig,
    /// Whose stream a token stands for.
    agents: BTreeMap<String, AgentId>,
    /// The largest event, in bytes.
    bytes_max: usize,
    /// Connections that were taken and are not open yet, and whose stream they want.
    opening: BTreeMap<Conn, AgentId>,
    effects: Vec<Effect>,
}

/// The token of a request: `authorization: Bearer`, or `token` in the query.
fn token(target: &str, headers: &[(String, String)]) -> Option<String> {
    let header = headers.iter().find(|(name, _)| name == "authorization");
    let bearer = header
        .and_then(|(_, value)| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    bearer.or_else(|| query(target.split_once('?')?.1, "token"))
}

fn path(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

fn error(text: &str) -> String {
    serde_json::json!({ "error": text }).to_string()
}

impl Life {
    fn feed(&mut self, now: Instant, input: Input) -> Result<(), String> {
        self.core.handle(now, input);
        self.drain();
        self.turn(now)
    }

    /// Does what the core wants.
    fn drain(&mut self) {
        while let Some(output) = self.core.poll() {
            let effect = match output {
                Output::Store(id, command) => {
                    self.store.push(id, command);
                    continue;
                }
                Output::Send { conn, frame } => {
                    let text = String::from_utf8_lossy(&frame.to_bytes()).into_owned();
                    Effect::SockSend { conn: conn.0, text }
                }
                Output::Close { conn, code, reason } => {
                    let reason = reason.to_owned();
                    Effect::SockClose { conn: conn.0, code: Some(code.0), reason }
                }
                Output::Published { ticket, result } => {
                    let Answer { status, body, retry_after } = answer(&result);
                    let header = |seconds: u32| ("retry-after".to_owned(), seconds.to_string());
                    Effect::HttpResponse {
                        id: ticket.0,
                        status: status.as_u16(),
                        headers: retry_after.map(header).into_iter().collect(),
                        body: body.to_string(),
                    }
                }
                // Its log is its own.
                Output::Available(_) => continue,
            };
            self.effects.push(effect);
        }
    }

    /// Lets the log do what waits for it.
    fn turn(&mut self, now: Instant) -> Result<(), String> {
        while let Some(step) = self.store.next()? {
            match step {
                Step::Commits(effect) => self.effects.push(effect),
                Step::Answered(answers) => self.answered(now, answers),
            }
        }
        Ok(())
    }

    fn answered(&mut self, now: Instant, answers: Vec<store::Answer<Command>>) {
        for answer in &answers {
            if let Ok(reply) = &answer.result {
                self.report(&answer.command, reply);
            }
        }
        for store::Answer { id, result, .. } in answers {
            self.core.handle(now, Input::Stored(id, result));
            self.drain();
        }
    }

    /// Tells what the log holds now.
    fn report(&mut self, command: &Command, reply: &Reply) {
        match (command, reply) {
            (_, Reply::EpochOpened(epoch)) => {
                self.effects.push(Effect::LogEpoch { epoch: epoch.to_string() });
            }
            (
                Command::Append(append),
                Reply::Appended(Appended::New { sequence, oldest, body }),
            ) => {
                let agent = append.agent.to_string();
                self.effects.push(Effect::LogEvent {
                    agent: agent.clone(),
                    sequence: *sequence,
                    event: body.as_str().to_owned(),
                });
                self.effects.push(Effect::LogState { agent, oldest: *oldest, head: *sequence });
            }
            (Command::Retain { agent, .. }, Reply::Retained(_)) => {
                // One that cannot be read now will be told of later.
                let _ = self.tell_state(agent);
            }
            _ => {}
        }
    }

    fn tell_state(&mut self, agent: &AgentId) -> Result<(u64, u64), String> {
        let replies = self
            .store
            .look()
            .transact(vec![Command::Load { agent: agent.clone(), confirmed: false }]);
        let replies = replies.map_err(|error| error.to_string())?;
        let [Reply::Loaded(state)] = &replies[..] else {
            return Err("the log answers something else".to_owned());
        };
        let (oldest, head) = (state.oldest, state.head);
        self.effects.push(Effect::LogState { agent: agent.to_string(), oldest, head });
        Ok((oldest, head))
    }

    fn tell_events(&mut self, agent: &AgentId, after: u64, count: usize) -> Result<(), String> {
        let (oldest, head) = self.tell_state(agent)?;
        let after = after.max(oldest.saturating_sub(1));
        if after >= head || count == 0 {
            return Ok(());
        }
        let read =
            Read { agent: agent.clone(), after, to: head, count_max: count, bytes_max: usize::MAX };
        let replies = self.store.look().transact(vec![Command::Read(read)]);
        for reply in replies.map_err(|error| error.to_string())? {
            let Reply::Page(page) = reply else { continue };
            self.effects.extend(page.into_iter().map(|(sequence, body)| Effect::LogEvent {
                agent: agent.to_string(),
                sequence,
                event: body.as_str().to_owned(),
            }));
        }
        Ok(())
    }

    fn socket(&mut self, conn: Conn, target: &str, headers: &[(String, String)]) {
        let refuse = |status, text: &str| Effect::SockRefuse {
            conn,
            status,
            headers: Vec::new(),
            body: error(text),
        };
        let agent = token(target, headers).and_then(|token| self.agents.get(&token));
        let effect = match (path(target), agent) {
            ("/v1/ws", None) => refuse(401, "the token is missing or not valid"),
            ("/v1/ws", Some(agent)) => {
                self.opening.insert(conn, agent.clone());
                let offers = headers.iter().any(|(name, value)| {
                    name == "sec-websocket-protocol"
                        && value.split(',').any(|name| name.trim() == SUBPROTOCOL)
                });
                let takes = offers && self.config.extension;
                Effect::SockAccept { conn, protocol: takes.then(|| SUBPROTOCOL.to_owned()) }
            }
            _ => refuse(404, "there is nothing here"),
        };
        self.effects.push(effect);
    }

    /// A request for which the core is not needed is answered at once.
    fn request(
        &mut self,
        id: u64,
        (method, target): (&str, &str),
        headers: &[(String, String)],
        body: &str,
        moment: Moment,
    ) -> Option<Input> {
        let agent = path(target).strip_prefix("/v1/agents/");
        let agent = agent.and_then(|path| path.strip_suffix("/events"));
        let publisher = token(target, headers).is_some_and(|it| it == self.config.publisher_token);
        let refusal = match (method, path(target), agent) {
            ("POST", _, Some(_)) if !publisher => (401, error("the token is missing or not valid")),
            ("POST", _, Some(agent)) => match AgentId::parse(agent) {
                Err(problem) => (400, error(&problem.to_string())),
                Ok(agent) => match publication(body.as_bytes(), self.bytes_max) {
                    Err((status, problem)) => (status.as_u16(), error(&problem)),
                    Ok((body, after)) => {
                        return Some(Input::Publish {
                            ticket: Ticket(id),
                            principal: "publisher".to_owned(),
                            agent,
                            body,
                            after,
                            at: moment.wall,
                        });
                    }
                },
            },
            ("GET", "/healthz", _) => (204, String::new()),
            (_, "/v1/ws" | "/healthz", _) | (_, _, Some(_)) => {
                (405, error("this path has another method"))
            }
            _ => (404, error("there is nothing here")),
        };
        let (status, body) = refusal;
        self.effects.push(Effect::HttpResponse { id, status, headers: Vec::new(), body });
        None
    }
}

fn agent_id(agent: &str) -> Result<AgentId, String> {
    AgentId::parse(agent).map_err(|error| error.to_string())
}

impl Endpoint for Life {
    fn event(&mut self, moment: Moment, event: Event) -> Result<(), String> {
        let Moment { now, wall: at } = moment;
        let input = match event {
            Event::AppConnect => {
                // It may want to open its epoch.
                self.drain();
                return self.turn(now);
            }
            Event::SockRequest { conn, target, headers } => {
                self.socket(conn, &target, &headers);
                None
            }
            Event::SockOpen { conn, protocol } => self.opening.remove(&conn).map(|agent| {
                let extension = protocol.as_deref() == Some(SUBPROTOCOL);
                Input::Connected { conn: ConnectionId(conn), agent, extension }
            }),
            Event::SockMessage { conn, text: Some(text), .. } => {
                let conn = ConnectionId(conn);
                Some(match ClientFrame::parse(&text) {
                    Ok(frame) => Input::Frame { conn, frame, at },
                    Err(error) => Input::Malformed { conn, error },
                })
            }
            Event::SockMessage { conn, text: None, .. } => {
                let error = FrameError::NotAnObject("a binary frame".to_owned());
                Some(Input::Malformed { conn: ConnectionId(conn), error })
            }
            Event::SockSent { conn, count } => {
                let frames = usize::try_from(count).unwrap_or(usize::MAX);
                Some(Input::Written { conn: ConnectionId(conn), frames })
            }
            Event::SockAlive { conn } => Some(Input::Alive { conn: ConnectionId(conn) }),
            Event::SockClose { conn, .. } => match self.opening.remove(&conn) {
                Some(_) => None,
                None => Some(Input::Disconnected { conn: ConnectionId(conn) }),
            },
            Event::HttpRequest { id, method, target, headers, body } => {
                self.request(id, (&method, &target), &headers, &body, moment)
            }
            Event::StoreDone { id, error } => {
                let answers = self.store.done(id, error)?;
                self.answered(now, answers);
                return self.turn(now);
            }
            Event::ServerRetain { agent, oldest } => {
                Some(Input::Retain { agent: agent_id(&agent)?, oldest })
            }
            Event::LogRead { agent, after, count } => {
                self.tell_events(&agent_id(&agent)?, after, count)?;
                None
            }
            other => return Err(format!("no server of events knows {other:?}")),
        };
        match input {
            Some(input) => self.feed(now, input),
            None => Ok(()),
        }
    }

    fn timeout(&mut self, moment: Moment) {
        self.core.handle(moment.now, Input::Timeout);
        self.drain();
        // What fails now fails again when something else happens.
        let _ = self.turn(moment.now);
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}
