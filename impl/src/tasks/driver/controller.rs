//! The controller's core over sockets and HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument as _;

use super::controller_http::{self, Answer, Caller, Callers, Question, Route};
use crate::net::http::{self, BodyError, Service, UpgradedStream};
use crate::net::{
    Access, Admission, Clock, Holder, Limits, OpenSockets, Socket, SocketEvent, Transactions,
    WallClock, farewell, trace,
};
use crate::storage::{Store, StoreError};
use crate::tasks::MessageId;
use crate::tasks::auth::Verifier;
use crate::tasks::controller::record::{Command, Reply};
use crate::tasks::controller::{Input, Notice, Output};
use crate::tasks::wire::{self, Deliver, Envelope, Final, FrameError};
use crate::{AgentId, CloseCode, ConnectionId, Core, Ticket};

/// The limits of the task that runs a controller's core.
#[derive(Debug, Clone)]
pub struct ControllerTaskConfig {
    /// How many requests may wait for the core: 1,024.
    pub requests_max: usize,
    /// How many commands are joined to one transaction: 256.
    pub batch_max: usize,
}

impl Default for ControllerTaskConfig {
    fn default() -> Self {
        Self { requests_max: 1_024, batch_max: 256 }
    }
}

/// Talks to the task that runs a controller's core.
#[derive(Debug, Clone)]
pub struct ControllerHandle {
    requests: mpsc::Sender<ControllerRequest>,
    connections: Arc<AtomicU64>,
    sockets: OpenSockets,
}

enum ControllerRequest {
    Input(Input),
    Connect {
        conn: ConnectionId,
        agent: AgentId,
        link: Link,
    },
    Ask {
        command: Command,
        answer: oneshot::Sender<Result<Reply, StoreError>>,
    },
    Post {
        agent: AgentId,
        message_id: MessageId,
        result: Final,
        answer: oneshot::Sender<Result<Reply, StoreError>>,
    },
    Poll {
        agent: AgentId,
        answer: oneshot::Sender<Result<Vec<Deliver>, StoreError>>,
    },
    Drain,
}

/// The way from the core to a connection's task.
struct Link {
    /// Bounded by the core: it closes what takes nothing, or asks for more than it reads.
    frames: mpsc::UnboundedSender<Bytes>,
    close: oneshot::Sender<(CloseCode, &'static str)>,
}

impl Link {
    fn go_away(self) {
        // A task that has ended has closed its socket.
        let _ = self.close.send((CloseCode::GOING_AWAY, "the controller is stopping"));
    }
}

impl ControllerHandle {
    /// Ends the controller in good order: agents are told with [`CloseCode::GOING_AWAY`], and what
    /// was asked is answered. Returns when all of that is done; whoever calls it sets the time limit.
    /// What is asked later has an unknown outcome, like everything that a controller does not answer.
    pub async fn drain(&self) {
        self.send(ControllerRequest::Drain).await;
        self.requests.closed().await;
        self.sockets.none().await;
    }

    /// The WebSockets of the agents.
    pub fn sockets(&self) -> &OpenSockets {
        &self.sockets
    }

    /// How many requests wait for the core.
    pub fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// Asks the record for something that no agent's frame leads to.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; if the controller has ended, the outcome is unknown.
    pub async fn ask(&self, command: Command) -> Result<Reply, StoreError> {
        let (answer, reply) = oneshot::channel();
        self.send(ControllerRequest::Ask { command, answer }).await;
        reply.await.unwrap_or_else(|_| Err(gone()))
    }

    async fn send(&self, request: ControllerRequest) {
        // A controller that has ended has no state that the request could change.
        let _ = self.requests.send(request).await;
    }
}

fn gone() -> StoreError {
    StoreError::Unknown("the controller has ended".to_owned())
}

/// A controller: a handle, and the future that runs it until the last handle is dropped.
pub fn controller<C, S>(
    core: C,
    record: S,
    wall: Arc<dyn WallClock>,
    notices: Box<dyn FnMut(Notice) + Send>,
    config: ControllerTaskConfig,
) -> (ControllerHandle, impl Future<Output = ()> + Send)
where
    C: Core<Input = Input, Output = Output>,
    S: Store<Command>,
{
    let (requests, inbox) = mpsc::channel(config.requests_max);
    let sockets = OpenSockets::default();
    let handle = ControllerHandle { requests, connections: Arc::default(), sockets };
    let task = Task {
        core,
        clock: Clock::start(),
        wall,
        notices,
        record: Transactions::new(record, config.batch_max),
        config,
        links: BTreeMap::new(),
        asked: BTreeMap::new(),
        polled: BTreeMap::new(),
        tickets: 0,
        draining: false,
    };
    (handle, task.run(inbox))
}

struct Task<C, S> {
    core: C,
    clock: Clock,
    wall: Arc<dyn WallClock>,
    notices: Box<dyn FnMut(Notice) + Send>,
    record: Transactions<Command, S>,
    config: ControllerTaskConfig,
    links: BTreeMap<ConnectionId, (AgentId, Link)>,
    asked: BTreeMap<Ticket, oneshot::Sender<Result<Reply, StoreError>>>,
    polled: BTreeMap<Ticket, oneshot::Sender<Result<Vec<Deliver>, StoreError>>>,
    tickets: u64,
    /// Nobody is let in; the task ends once everything is answered.
    draining: bool,
}

impl<C, S> Task<C, S>
where
    C: Core<Input = Input, Output = Output>,
    S: Store<Command>,
{
    async fn run(mut self, mut inbox: mpsc::Receiver<ControllerRequest>) {
        let mut requests = Vec::new();
        while !(self.draining && self.is_idle()) {
            let deadline = self.core.deadline();
            tokio::select! { biased;
                replies = self.record.next() => {
                    for (id, reply) in replies {
                        self.feed(Input::Stored(id, reply));
                    }
                }
                // Before the inbox: timers are due also while requests never end.
                () = self.clock.sleep_until(deadline) => self.feed(Input::Timeout),
                count = inbox.recv_many(&mut requests, self.config.batch_max) => {
                    if count == 0 {
                        return;
                    }
                    for request in requests.drain(..) {
                        self.take(request);
                    }
                }
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn take(&mut self, request: ControllerRequest) {
        match request {
            ControllerRequest::Input(Input::Disconnected { conn }) => {
                self.links.remove(&conn);
                self.feed(Input::Disconnected { conn });
            }
            ControllerRequest::Input(input) => self.feed(input),
            ControllerRequest::Connect { link, .. } if self.draining => link.go_away(),
            ControllerRequest::Connect { conn, agent, link } => {
                self.links.insert(conn, (agent.clone(), link));
                self.feed(Input::Connected { conn, agent });
            }
            ControllerRequest::Ask { command, answer } => {
                let ticket = self.ticket();
                self.asked.insert(ticket, answer);
                self.feed(Input::Ask { ticket, command });
            }
            ControllerRequest::Post { agent, message_id, result, answer } => {
                let ticket = self.ticket();
                self.asked.insert(ticket, answer);
                self.feed(Input::Post { ticket, agent, message_id, result });
            }
            ControllerRequest::Poll { agent, answer } => {
                let ticket = self.ticket();
                self.polled.insert(ticket, answer);
                self.feed(Input::Poll { ticket, agent });
            }
            ControllerRequest::Drain => {
                self.draining = true;
                for (conn, (_, link)) in std::mem::take(&mut self.links) {
                    link.go_away();
                    self.feed(Input::Disconnected { conn });
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.polled.is_empty() && self.record.is_idle()
    }

    /// One input, and everything that it leads to.
    fn feed(&mut self, input: Input) {
        self.core.handle(self.clock.now(), input);
        while let Some(output) = self.core.poll() {
            match output {
                Output::Store(id, command) => self.record.push(id, command),
                Output::Send { conn, message_id, message } => {
                    if let Some((agent, link)) = self.links.get(&conn) {
                        let (agent, sent_at) = (agent.clone(), self.wall.wall_time());
                        let envelope = Envelope { message_id, agent, sent_at, message };
                        // A task that has ended reports its connection as gone by itself.
                        let _ = link.frames.send(envelope.to_bytes());
                    }
                }
                Output::Close { conn, code, reason } => {
                    if let Some((_, link)) = self.links.remove(&conn) {
                        let _ = link.close.send((code, reason));
                    }
                }
                // Whoever has gone asks again.
                Output::Answer { ticket, result } => {
                    if let Some(answer) = self.asked.remove(&ticket) {
                        let _ = answer.send(result);
                    }
                }
                Output::Tasks { ticket, result } => {
                    if let Some(answer) = self.polled.remove(&ticket) {
                        let _ = answer.send(result);
                    }
                }
                Output::Notify(notice) => (self.notices)(notice),
            }
        }
    }
}

/// The HTTP side: what agents ask (signed), and what those ask who want tasks done (with a token).
///
/// | path | method | who | what |
/// |---|---|---|---|
/// | `/api/v1/agents/ws` | GET | agent | the WebSocket |
/// | `/api/v1/agents/{agent}/tasks` | GET | agent | what is to be done, while the WebSocket is down |
/// | `/api/v1/tasks/{task}` | PUT | agent | a result, while the WebSocket is down |
/// | `/v1/tasks` | GET, POST | token | list, submit |
/// | `/v1/tasks/{task}` | GET, DELETE | token | look, cancel |
/// | `/v1/tasks/{task}/attempts` | POST | token | try again |
/// | `/v1/tasks/{task}/attempts/{attempt}/{stream}` | GET | token | output |
/// | `/healthz` | GET | anybody | whether it is there |
#[derive(Clone)]
pub struct ControllerService {
    handle: ControllerHandle,
    access: Arc<dyn Access>,
    verifier: Arc<dyn Verifier>,
    wall: Arc<dyn WallClock>,
    limits: Limits,
    admission: Admission,
}

/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 256 << 10;

impl ControllerService {
    /// Serves a controller.
    pub fn new(
        handle: ControllerHandle,
        access: Arc<dyn Access>,
        verifier: Arc<dyn Verifier>,
        wall: Arc<dyn WallClock>,
        limits: Limits,
    ) -> Self {
        Self { handle, access, verifier, wall, limits, admission: Admission::default() }
    }

    /// Who is let in, and how many; shared with other services.
    pub fn with_admission(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// Who asks; before any state is read.
    async fn caller(&self, route: &Route, request: &Request<Incoming>) -> Result<Caller, Answer> {
        match route.callers() {
            Callers::Agents => {
                let header =
                    |name| request.headers().get(name).and_then(|value| value.to_str().ok());
                let now = self.wall.wall_time();
                let (agent, command) = controller_http::signed(header, &*self.verifier, now)?;
                controller_http::nonce_is_new(self.handle.ask(command).await, now)?;
                Ok(Caller::Agent(agent))
            }
            Callers::Submitters => {
                let grant = http::token(request).and_then(|token| self.access.grant(&token));
                match grant {
                    Some(grant) if grant.publish => Ok(Caller::Submitter(grant.principal)),
                    Some(_) => Err(Answer::error(403, "the token does not allow tasks")),
                    None => Err(Answer::error(401, "the token is missing or not valid")),
                }
            }
            Callers::All => Ok(Caller::Anybody),
        }
    }

    fn connect(&self, request: Request<Incoming>, agent: AgentId) -> Response<Full<Bytes>> {
        let admitted = match self.admission.admit(request.headers(), Holder::Agent(agent.clone())) {
            Ok(admitted) => admitted,
            Err(refusal) => return *refusal,
        };
        trace::agent(agent.as_str());
        let who = trace::Connected {
            protocol: "tasks",
            agent: Some(agent.as_str()),
            ..trace::Connected::default()
        };
        let span = trace::connection(&who, request.headers());
        match http::upgrade(request, None, &self.limits) {
            Ok(http::Upgrade { response, pending, .. }) => {
                let service = self.clone();
                let open = self.handle.sockets.enter();
                let serve = async move {
                    let _open = (open, admitted);
                    if let Some(stream) = pending.open().await {
                        let socket = Socket::new(stream, &service.limits);
                        service.serve_socket(socket, agent).await;
                    }
                };
                tokio::spawn(serve.instrument(span));
                response
            }
            Err(http::NotAnUpgrade) => {
                let error = "this is a WebSocket endpoint";
                http::error(StatusCode::UPGRADE_REQUIRED, error)
            }
        }
    }

    async fn serve_socket(&self, mut socket: Socket<UpgradedStream>, agent: AgentId) {
        let conn = ConnectionId(self.handle.connections.fetch_add(1, Ordering::Relaxed) + 1);
        trace::connection_number(conn.0);
        let (frames, mut outgoing) = mpsc::unbounded_channel();
        let (close, mut closing) = oneshot::channel();
        let link = Link { frames, close };
        self.handle.send(ControllerRequest::Connect { conn, agent, link }).await;
        let goodbye = loop {
            tokio::select! { biased;
                goodbye = &mut closing => {
                    break goodbye.unwrap_or((CloseCode::GOING_AWAY, "the controller is stopping"));
                }
                Some(frame) = outgoing.recv() => {
                    socket.queue(frame);
                    while let Ok(frame) = outgoing.try_recv() {
                        socket.queue(frame);
                    }
                }
                event = socket.next(true) => {
                    let input = match event {
                        SocketEvent::Wrote(frames) => Input::Written { conn, frames },
                        SocketEvent::Text(text) => match wire::parse_agent(&text) {
                            Ok(frame) => Input::Frame { conn, frame },
                            Err(error) => Input::Malformed { conn, error },
                        },
                        SocketEvent::Binary(bytes) => {
                            Input::Malformed { conn, error: FrameError::binary(bytes.len()) }
                        }
                        SocketEvent::Alive => Input::Alive { conn },
                        SocketEvent::Closed { code } => {
                            let gone = ControllerRequest::Input(Input::Disconnected { conn });
                            self.handle.send(gone).await;
                            match farewell(code) {
                                Some(goodbye) => break goodbye,
                                None => return trace::closed(code),
                            }
                        }
                    };
                    self.handle.send(ControllerRequest::Input(input)).await;
                }
            }
        };
        // What was said before the goodbye is heard before it.
        while let Ok(frame) = outgoing.try_recv() {
            socket.queue(frame);
        }
        trace::closed(Some(goodbye.0.0));
        self.handle.sockets.closed(goodbye.0);
        socket.close(goodbye.0.0, goodbye.1).await;
    }

    async fn ask(
        &self,
        route: &Route,
        caller: Caller,
        request: Request<Incoming>,
    ) -> Result<Answer, Answer> {
        let query = request.uri().query().map(str::to_owned);
        let body = match route.has_body() {
            true => body(request).await?,
            false => Bytes::new(),
        };
        Ok(match route.question(caller, query.as_deref(), &body)? {
            Question::Ask(command) => route.answer(self.handle.ask(command).await),
            Question::Post { agent, message_id, result } => {
                let (answer, reply) = oneshot::channel();
                let post = ControllerRequest::Post { agent, message_id, result, answer };
                self.handle.send(post).await;
                route.answer(reply.await.unwrap_or_else(|_| Err(gone())))
            }
            Question::Poll(agent) => {
                let (answer, tasks) = oneshot::channel();
                self.handle.send(ControllerRequest::Poll { agent, answer }).await;
                Route::tasks(tasks.await.unwrap_or_else(|_| Err(gone())))
            }
        })
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Answer> {
        let route = Route::of(request.method().as_str(), request.uri().path())?;
        trace::route(route.template());
        match (self.caller(&route, &request).await?, &route) {
            (Caller::Agent(agent), Route::Connect) => Ok(self.connect(request, agent)),
            (caller, _) => self.ask(&route, caller, request).await.map(response),
        }
    }
}

impl Service for ControllerService {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.answer(request).await.unwrap_or_else(response)
    }
}

async fn body(request: Request<Incoming>) -> Result<Bytes, Answer> {
    http::body(request, BODY_BYTES_MAX, BODY_TIMEOUT).await.map_err(|error| match error {
        BodyError::TooLarge => {
            Answer::error(413, &format!("a body has at most {BODY_BYTES_MAX} bytes"))
        }
        BodyError::Broken => Answer::error(400, "the body did not arrive whole"),
    })
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let Answer { status, body, retry_after } = answer;
    let has_body = body.is_some();
    let mut response = Response::new(Full::new(Bytes::from(body.unwrap_or_default())));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
