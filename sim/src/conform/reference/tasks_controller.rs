//! The controller of tasks as a node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gapless::net::http::query;
use gapless::recovery::{BackoffConfig, Instant, WallTime};
use gapless::storage::StoreError;
use gapless::tasks::Attempt;
use gapless::tasks::auth::Verifier;
use gapless::tasks::controller::record::{Command, FinalTaken, Reconciled, Reply};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::controller::{Controller, ControllerConfig, Input, Output};
use gapless::tasks::driver::controller_http::{self, Answer, Caller, Callers, Question, Route};
use gapless::tasks::wire::{self, Envelope, FrameError};
use gapless::{AgentId, ConnectionId, Ticket};

use super::store::{Answer as Stored, NodeStore, Step};
use super::{Endpoint, Moment};
use crate::conform::keys;
use crate::conform::protocol::{
    Config, Conn, Effect, Event, Reset, TasksControllerConfig, feature,
};
use crate::mutants::{ControllerCore, Distorted};
use crate::seed::Seed;

pub(super) const FEATURES: &[&str] = &[
    feature::EXTENSION,
    feature::SOCK_SENT,
    feature::SOCK_ALIVE,
    feature::SUSPEND,
    feature::RECORD_REPORTS,
    feature::SIGN_FNV1A,
];

/// The keys under which the record commits its pages begin with this.
const PAGES: &str = "page";

/// Who has the one token that there is.
const SUBMITTER: &str = "submitter";

/// One life of a controller.
pub(super) fn begin(reset: &Reset, distorted: Distorted) -> Result<Box<dyn Endpoint>, String> {
    let Config::TasksController(config) = &reset.config else {
        return Err("the configuration is of another role".to_owned());
    };
    let seed: Seed = reset.seed.parse().map_err(|error| format!("{error}"))?;
    let entropy = distorted.entropy(Box::new(seed.stream("controller", &reset.host, reset.life)));
    let open = Box::new(move |path: &std::path::Path, _| {
        let record = SqliteRecord::open(RecordConfig::new(path));
        Ok(distorted.record(record.map_err(|error| error.to_string())?))
    });
    Ok(Box::new(Life {
        core: distorted.controller(Controller::new(core_config(config), entropy)),
        verifier: keys::verifier(&config.agents)?,
        token: config.submitter_token.clone(),
        record: NodeStore::open(PAGES, &reset.storage, open)?,
        tickets: 0,
        asked: BTreeMap::new(),
        accepted: BTreeMap::new(),
        connected: BTreeMap::new(),
        effects: Vec::new(),
    }))
}

fn core_config(config: &TasksControllerConfig) -> ControllerConfig {
    let ms = Duration::from_millis;
    let defaults = ControllerConfig::default();
    ControllerConfig {
        extension: config.extension,
        silence: ms(config.silence_ms),
        redelivery: BackoffConfig {
            min: ms(config.redelivery_ms.0),
            max: ms(config.redelivery_ms.1),
            ..defaults.redelivery
        },
        deliveries_max: config.deliveries_max,
        ..defaults
    }
}

/// A question that the core has not answered.
enum Asked {
    /// Whether the nonce of a handshake is new.
    Handshake { conn: Conn, agent: AgentId },
    /// Whether the nonce of a request is new.
    Signed { request: Request, agent: AgentId },
    /// What a request wants to know.
    Request { id: u64, route: Route },
}

/// A request over HTTP.
struct Request {
    id: u64,
    route: Route,
    query: Option<String>,
    body: String,
}

struct Life {
    core: ControllerCore,
    verifier: Arc<dyn Verifier>,
    token: String,
    record: NodeStore<Command>,
    tickets: u64,
    asked: BTreeMap<Ticket, Asked>,
    /// Connections that are taken and not open yet.
    accepted: BTreeMap<Conn, AgentId>,
    connected: BTreeMap<Conn, AgentId>,
    effects: Vec<Effect>,
}

impl Life {
    /// An input, and everything that it leads to.
    fn feed(&mut self, moment: Moment, input: Input) -> Result<(), String> {
        let mut inputs = VecDeque::from([input]);
        loop {
            while let Some(input) = inputs.pop_front() {
                self.core.handle(moment.now, input);
                while let Some(output) = self.core.poll() {
                    inputs.extend(self.perform(moment, output));
                }
            }
            match self.record.next()? {
                None => return Ok(()),
                Some(Step::Commits(effect)) => self.effects.push(effect),
                Some(Step::Answered(answers)) => inputs.extend(self.heard(answers)),
            }
        }
    }

    /// What an output leads to at once.
    fn perform(&mut self, moment: Moment, output: Output) -> Option<Input> {
        match output {
            Output::Send { conn, message_id, message } => {
                let agent = self.connected.get(&conn.0)?.clone();
                let envelope = Envelope { message_id, agent, sent_at: moment.wall, message };
                let text = String::from_utf8_lossy(&envelope.to_bytes()).into_owned();
                self.effects.push(Effect::SockSend { conn: conn.0, text });
            }
            Output::Close { conn, code, reason } => {
                self.connected.remove(&conn.0)?;
                let (code, reason) = (Some(code.0), reason.to_owned());
                self.effects.push(Effect::SockClose { conn: conn.0, code, reason });
            }
            Output::Store(id, command) => self.record.push(id, command),
            Output::Answer { ticket, result } => return self.answered(moment, ticket, result),
            Output::Tasks { ticket, result } => {
                if let Some(Asked::Request { id, .. }) = self.asked.remove(&ticket) {
                    self.respond(id, Route::tasks(result));
                }
            }
            Output::Notify(notice) => {
                self.effects.push(Effect::AppState { text: notice.to_string() });
            }
        }
        None
    }

    fn ask(&mut self, asked: Asked) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.asked.insert(ticket, asked);
        ticket
    }

    fn respond(&mut self, id: u64, answer: Answer) {
        let headers = headers(&answer);
        let Answer { status, body, .. } = answer;
        let body = body.unwrap_or_default();
        self.effects.push(Effect::HttpResponse { id, status, headers, body });
    }

    /// The core has answered a question.
    fn answered(
        &mut self,
        moment: Moment,
        ticket: Ticket,
        result: Result<Reply, StoreError>,
    ) -> Option<Input> {
        match self.asked.remove(&ticket)? {
            Asked::Handshake { conn, agent } => {
                match controller_http::nonce_is_new(result, moment.wall) {
                    Ok(()) => {
                        self.accepted.insert(conn, agent);
                        self.effects.push(Effect::SockAccept { conn, protocol: None });
                    }
                    Err(answer) => self.refuse(conn, answer),
                }
                None
            }
            Asked::Signed { request, agent } => {
                match controller_http::nonce_is_new(result, moment.wall) {
                    Ok(()) => self.question(request, Caller::Agent(agent)),
                    Err(answer) => {
                        self.respond(request.id, answer);
                        None
                    }
                }
            }
            Asked::Request { id, route } => {
                self.respond(id, route.answer(result));
                None
            }
        }
    }

    /// What the core is to be asked because of a request.
    fn question(&mut self, request: Request, caller: Caller) -> Option<Input> {
        let Request { id, route, query, body } = request;
        let question = match route.question(caller, query.as_deref(), body.as_bytes()) {
            Ok(question) => question,
            Err(answer) => {
                self.respond(id, answer);
                return None;
            }
        };
        let ticket = self.ask(Asked::Request { id, route });
        Some(match question {
            Question::Ask(command) => Input::Ask { ticket, command },
            Question::Post { agent, message_id, result } => {
                Input::Post { ticket, agent, message_id, result }
            }
            Question::Poll(agent) => Input::Poll { ticket, agent },
        })
    }

    fn refuse(&mut self, conn: Conn, answer: Answer) {
        let headers = headers(&answer);
        let Answer { status, body, .. } = answer;
        let body = body.unwrap_or_default();
        self.effects.push(Effect::SockRefuse { conn, status, headers, body });
    }

    // ---- what comes --------------------------------------------------------------------------

    fn handshake(
        &mut self,
        wall: WallTime,
        conn: Conn,
        target: &str,
        headers: &[(String, String)],
    ) -> Option<Input> {
        let signed = Route::of("GET", path(target).0).and_then(|route| match route {
            Route::Connect => controller_http::signed(header_of(headers), &*self.verifier, wall),
            _ => Err(Answer::error(404, "there is no WebSocket here")),
        });
        match signed {
            Ok((agent, command)) => {
                let ticket = self.ask(Asked::Handshake { conn, agent });
                Some(Input::Ask { ticket, command })
            }
            Err(answer) => {
                self.refuse(conn, answer);
                None
            }
        }
    }

    fn request(
        &mut self,
        wall: WallTime,
        request: Request,
        headers: &[(String, String)],
    ) -> Option<Input> {
        match request.route.callers() {
            Callers::Agents => {
                match controller_http::signed(header_of(headers), &*self.verifier, wall) {
                    Ok((agent, command)) => {
                        let ticket = self.ask(Asked::Signed { request, agent });
                        Some(Input::Ask { ticket, command })
                    }
                    Err(answer) => {
                        self.respond(request.id, answer);
                        None
                    }
                }
            }
            Callers::Submitters => match token(headers, request.query.as_deref()) {
                Some(token) if token == self.token => {
                    self.question(request, Caller::Submitter(SUBMITTER.to_owned()))
                }
                _ => {
                    let error = "the token is missing or not valid";
                    self.respond(request.id, Answer::error(401, error));
                    None
                }
            },
            Callers::All => self.question(request, Caller::Anybody),
        }
    }

    /// What an event is to the core, if it is anything to it.
    fn input(&mut self, wall: WallTime, event: Event) -> Result<Option<Input>, String> {
        Ok(match event {
            Event::AppConnect => None,
            Event::SockRequest { conn, target, headers } => {
                self.handshake(wall, conn, &target, &headers)
            }
            Event::HttpRequest { id, method, target, headers, body } => {
                let (path, query) = path(&target);
                match Route::of(&method, path) {
                    Ok(route) => {
                        let query = query.map(str::to_owned);
                        self.request(wall, Request { id, route, query, body }, &headers)
                    }
                    Err(answer) => {
                        self.respond(id, answer);
                        None
                    }
                }
            }
            Event::SockOpen { conn, .. } => self.accepted.remove(&conn).map(|agent| {
                self.connected.insert(conn, agent.clone());
                Input::Connected { conn: ConnectionId(conn), agent }
            }),
            Event::SockMessage { conn, text: Some(text), .. } => {
                let conn = ConnectionId(conn);
                Some(match wire::parse_agent(&text) {
                    Ok(frame) => Input::Frame { conn, frame },
                    Err(error) => Input::Malformed { conn, error },
                })
            }
            Event::SockMessage { conn, b64, .. } => {
                let bytes = STANDARD.decode(b64.unwrap_or_default()).unwrap_or_default();
                let error = FrameError::binary(bytes.len());
                Some(Input::Malformed { conn: ConnectionId(conn), error })
            }
            Event::SockSent { conn, count } => {
                let frames = usize::try_from(count).unwrap_or(usize::MAX);
                Some(Input::Written { conn: ConnectionId(conn), frames })
            }
            Event::SockAlive { conn } => Some(Input::Alive { conn: ConnectionId(conn) }),
            Event::SockClose { conn, .. } => {
                self.accepted.remove(&conn);
                self.connected
                    .remove(&conn)
                    .map(|_| Input::Disconnected { conn: ConnectionId(conn) })
            }
            other => return Err(format!("no controller knows {other:?}")),
        })
    }

    // ---- reports -----------------------------------------------------------------------------

    /// The record has answered: what it has is reported before the core hears of it.
    fn heard(&mut self, answers: Vec<Stored<Command>>) -> Vec<Input> {
        let mut inputs = Vec::new();
        for Stored { id, command, result } in answers {
            if let Ok(reply) = &result {
                self.report(&command, reply);
            }
            inputs.push(Input::Stored(id, result));
        }
        inputs
    }

    fn report(&mut self, command: &Command, reply: &Reply) {
        let mut state = |attempt: &Attempt, state: &str| {
            let (attempt, state) = (attempt.to_string(), state.to_owned());
            self.effects.push(Effect::RecordState { attempt, state });
        };
        match (command, reply) {
            (
                Command::Delivering { attempt, .. }
                | Command::Progress { attempt, .. }
                | Command::Absent { attempt, .. },
                Reply::State(Some(now)),
            ) => state(attempt, now.as_str()),
            (Command::Final { result, .. }, Reply::FinalTaken(FinalTaken::Stored)) => {
                state(&result.attempt, "final");
            }
            (_, Reply::Reconciled(Reconciled::Agreed(agreement))) => {
                for attempt in &agreement.interrupted {
                    state(attempt, "interrupted");
                }
            }
            _ => {}
        }
    }
}

/// Path and query.
fn path(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

fn header_of<'a>(headers: &'a [(String, String)]) -> impl Fn(&'static str) -> Option<&'a str> {
    move |name| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn token(headers: &[(String, String)], asked: Option<&str>) -> Option<String> {
    let bearer = header_of(headers)("authorization")
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    bearer.or_else(|| query(asked?, "token"))
}

fn headers(answer: &Answer) -> Vec<(String, String)> {
    let kind =
        answer.body.as_ref().map(|_| ("content-type".to_owned(), "application/json".to_owned()));
    let retry = answer.retry_after.map(|seconds| ("retry-after".to_owned(), seconds.to_string()));
    kind.into_iter().chain(retry).collect()
}

impl Endpoint for Life {
    fn event(&mut self, moment: Moment, event: Event) -> Result<(), String> {
        if let Event::StoreDone { id, error } = event {
            let answers = self.record.done(id, error)?;
            for input in self.heard(answers) {
                self.feed(moment, input)?;
            }
            return Ok(());
        }
        match self.input(moment.wall, event)? {
            Some(input) => self.feed(moment, input),
            None => Ok(()),
        }
    }

    fn timeout(&mut self, moment: Moment) {
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
