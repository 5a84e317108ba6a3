//! The controller's core over sockets and HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::http_wire::{
    self, ErrorBody, FinalBody, OutputBody, RetryBody, SubmitBody, SubmittedBody, TaskBody,
    TasksBody,
};
use crate::net::http::{self, BodyError, Service, UpgradedStream};
use crate::net::{Access, Clock, Grant, Limits, Socket, SocketEvent, Transactions, WallClock};
use crate::storage::{Store, StoreError};
use crate::tasks::auth::{Refusal, SignedHeaders, Verifier, WINDOW};
use crate::tasks::controller::record::{Command, FinalTaken, Reply, Submission, Submitted};
use crate::tasks::controller::{Input, Notice, Output};
use crate::tasks::wire::{self, Deliver, Envelope, Final, FrameError};
use crate::tasks::{Attempt, AttemptId, MessageId, OutputStream, TaskId};
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
}

/// The way from the core to a connection's task.
struct Link {
    frames: mpsc::UnboundedSender<Bytes>,
    close: oneshot::Sender<(CloseCode, &'static str)>,
}

impl ControllerHandle {
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
    let handle = ControllerHandle { requests, connections: Arc::default() };
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
}

impl<C, S> Task<C, S>
where
    C: Core<Input = Input, Output = Output>,
    S: Store<Command>,
{
    async fn run(mut self, mut inbox: mpsc::Receiver<ControllerRequest>) {
        let mut requests = Vec::new();
        loop {
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
        }
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
/// | `/v1/tasks` | POST | token | submit |
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
}

/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 256 << 10;

/// How many pieces of output one answer has at most.
const PIECES_MAX: usize = 256;

type Answer = Response<Full<Bytes>>;

impl ControllerService {
    /// Serves a controller.
    pub fn new(
        handle: ControllerHandle,
        access: Arc<dyn Access>,
        verifier: Arc<dyn Verifier>,
        wall: Arc<dyn WallClock>,
        limits: Limits,
    ) -> Self {
        Self { handle, access, verifier, wall, limits }
    }

    // ---- who asks ----------------------------------------------------------------------------

    /// The agent that has signed the request; before any state is read [TK-14].
    async fn agent(&self, request: &Request<Incoming>) -> Result<AgentId, Box<Answer>> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let now = self.wall.wall_time();
        let checked = SignedHeaders::read(header)
            .and_then(|headers| headers.check(&*self.verifier, now).map(|()| headers));
        let refused = |refusal: &Refusal| {
            let server_time = Some(now.as_millis().div_euclid(1_000));
            let body = ErrorBody { error: refusal.to_string(), server_time };
            Box::new(http::json(StatusCode::UNAUTHORIZED, &body))
        };
        let headers = checked.map_err(|refusal| refused(&refusal))?;
        let command = Command::UseNonce {
            agent: headers.agent.clone(),
            nonce: headers.nonce.clone(),
            at: headers.at(),
            forget_before: now.saturating_sub(WINDOW * 2),
        };
        match self.handle.ask(command).await {
            Ok(Reply::Nonce(true)) => Ok(headers.agent),
            Ok(_) => Err(refused(&Refusal::Replayed)),
            Err(_) => Err(Box::new(unavailable("the record cannot be asked"))),
        }
    }

    /// Who wants tasks done.
    fn grant(&self, request: &Request<Incoming>) -> Result<Grant, Box<Answer>> {
        let grant = http::token(request).and_then(|token| self.access.grant(&token));
        match grant {
            Some(grant) if grant.publish => Ok(grant),
            Some(_) => {
                let error = "the token does not allow tasks";
                Err(Box::new(http::error(StatusCode::FORBIDDEN, error)))
            }
            None => {
                let error = "the token is missing or not valid";
                Err(Box::new(http::error(StatusCode::UNAUTHORIZED, error)))
            }
        }
    }

    // ---- agents ------------------------------------------------------------------------------

    async fn connect(&self, request: Request<Incoming>) -> Result<Answer, Box<Answer>> {
        let agent = self.agent(&request).await?;
        match http::upgrade(request, None, &self.limits) {
            Ok(http::Upgrade { response, pending, .. }) => {
                let service = self.clone();
                tokio::spawn(async move {
                    if let Some(stream) = pending.open().await {
                        let socket = Socket::new(stream, &service.limits);
                        service.serve_socket(socket, agent).await;
                    }
                });
                Ok(response)
            }
            Err(http::NotAnUpgrade) => {
                let error = "this is a WebSocket endpoint";
                Ok(http::error(StatusCode::UPGRADE_REQUIRED, error))
            }
        }
    }

    async fn serve_socket(&self, mut socket: Socket<UpgradedStream>, agent: AgentId) {
        let conn = ConnectionId(self.handle.connections.fetch_add(1, Ordering::Relaxed) + 1);
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
                        SocketEvent::Wrote(_) => continue,
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
                            if code == Some(CloseCode::TOO_BIG.0) {
                                break (CloseCode::TOO_BIG, "the message is too large");
                            }
                            return;
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
        socket.close(goodbye.0.0, goodbye.1).await;
    }

    async fn take_final(
        &self,
        request: Request<Incoming>,
        task: &str,
    ) -> Result<Answer, Box<Answer>> {
        let agent = self.agent(&request).await?;
        let task = id(task, TaskId::parse)?;
        let body: FinalBody = body(request).await?;
        let (message_id, result) = body.result(task);
        let (answer, reply) = oneshot::channel();
        self.handle.send(ControllerRequest::Post { agent, message_id, result, answer }).await;
        Ok(match reply.await.unwrap_or_else(|_| Err(gone())) {
            Ok(Reply::FinalTaken(FinalTaken::Stored | FinalTaken::TooLate)) => {
                http::empty(StatusCode::NO_CONTENT)
            }
            Ok(_) => http::error(StatusCode::FORBIDDEN, "the attempt is another agent's"),
            Err(error) => unavailable(&error.to_string()),
        })
    }

    async fn tasks(&self, request: Request<Incoming>, asked: &str) -> Result<Answer, Box<Answer>> {
        let agent = self.agent(&request).await?;
        if agent.as_str() != asked {
            return Ok(http::error(StatusCode::FORBIDDEN, "these are another agent's tasks"));
        }
        let (answer, reply) = oneshot::channel();
        self.handle.send(ControllerRequest::Poll { agent, answer }).await;
        Ok(match reply.await.unwrap_or_else(|_| Err(gone())) {
            Ok(tasks) => {
                let tasks = tasks.into_iter().map(Into::into).collect();
                http::json(StatusCode::OK, &TasksBody { tasks })
            }
            Err(error) => unavailable(&error.to_string()),
        })
    }

    // ---- those who want tasks done -----------------------------------------------------------

    async fn submit(&self, request: Request<Incoming>) -> Result<Answer, Box<Answer>> {
        let grant = self.grant(&request)?;
        let wish: SubmitBody = body(request).await?;
        if wish.command.is_empty() {
            return Ok(http::error(StatusCode::BAD_REQUEST, "`command` is empty"));
        }
        let agent = AgentId::parse(&wish.agent)
            .map_err(|error| Box::new(http::error(StatusCode::BAD_REQUEST, &error.to_string())))?;
        let submission = Submission {
            task: wish.id,
            principal: grant.principal,
            agent,
            command: wish.command,
            priority: wish.priority,
        };
        Ok(submitted(self.handle.ask(Command::Submit(submission)).await))
    }

    async fn retry(&self, request: Request<Incoming>, task: &str) -> Result<Answer, Box<Answer>> {
        self.grant(&request)?;
        let task = id(task, TaskId::parse)?;
        let RetryBody { after } = body(request).await?;
        Ok(submitted(self.handle.ask(Command::Retry { task, after }).await))
    }

    async fn cancel(&self, request: Request<Incoming>, task: &str) -> Result<Answer, Box<Answer>> {
        self.grant(&request)?;
        let task = id(task, TaskId::parse)?;
        Ok(match self.handle.ask(Command::Cancel(task)).await {
            Ok(Reply::Cancelled(Some(cancelled))) => {
                let state = http_wire::state_name(cancelled.state);
                let body = serde_json::json!({ "state": state });
                http::json(StatusCode::OK, &body)
            }
            Ok(_) => http::error(StatusCode::NOT_FOUND, "there is no such task"),
            Err(error) => unavailable(&error.to_string()),
        })
    }

    async fn look(&self, request: Request<Incoming>, task: &str) -> Result<Answer, Box<Answer>> {
        self.grant(&request)?;
        let task = id(task, TaskId::parse)?;
        Ok(match self.handle.ask(Command::Look(task.clone())).await {
            Ok(Reply::Task(Some(view))) => http::json(StatusCode::OK, &TaskBody::of(task, view)),
            Ok(_) => http::error(StatusCode::NOT_FOUND, "there is no such task"),
            Err(error) => unavailable(&error.to_string()),
        })
    }

    async fn output(
        &self,
        request: Request<Incoming>,
        task: &str,
        attempt: &str,
        stream: OutputStream,
    ) -> Result<Answer, Box<Answer>> {
        self.grant(&request)?;
        let attempt =
            Attempt { task: id(task, TaskId::parse)?, id: id(attempt, AttemptId::parse)? };
        let after = http_wire::after(request.uri().query())
            .map_err(|error| Box::new(http::error(StatusCode::BAD_REQUEST, &error)))?;
        let command = Command::ReadOutput { attempt, stream, after, count_max: PIECES_MAX };
        Ok(match self.handle.ask(command).await {
            Ok(Reply::Output(page)) => http::json(StatusCode::OK, &OutputBody::from(page)),
            Ok(_) => http::error(StatusCode::NOT_FOUND, "there is no such attempt"),
            Err(error) => unavailable(&error.to_string()),
        })
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Box<Answer>> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let method = request.method().clone();
        match (&method, &parts[..]) {
            (&Method::GET, ["api", "v1", "agents", "ws"]) => self.connect(request).await,
            (&Method::GET, ["api", "v1", "agents", agent, "tasks"]) => {
                self.tasks(request, agent).await
            }
            (&Method::PUT, ["api", "v1", "tasks", task]) => self.take_final(request, task).await,
            (&Method::POST, ["v1", "tasks"]) => self.submit(request).await,
            (&Method::GET, ["v1", "tasks", task]) => self.look(request, task).await,
            (&Method::DELETE, ["v1", "tasks", task]) => self.cancel(request, task).await,
            (&Method::POST, ["v1", "tasks", task, "attempts"]) => self.retry(request, task).await,
            (&Method::GET, ["v1", "tasks", task, "attempts", attempt, "stdout"]) => {
                self.output(request, task, attempt, OutputStream::Stdout).await
            }
            (&Method::GET, ["v1", "tasks", task, "attempts", attempt, "stderr"]) => {
                self.output(request, task, attempt, OutputStream::Stderr).await
            }
            (&Method::GET, ["healthz"]) => Ok(http::empty(StatusCode::NO_CONTENT)),
            (
                _,
                ["api", "v1", "agents", "ws"]
                | ["api", "v1", "agents", _, "tasks"]
                | ["api", "v1", "tasks", _]
                | ["v1", "tasks", ..]
                | ["healthz"],
            ) => Ok(http::error(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")),
            _ => Ok(http::error(StatusCode::NOT_FOUND, "there is nothing here")),
        }
    }
}

impl Service for ControllerService {
    async fn call(&self, request: Request<Incoming>) -> Answer {
        self.answer(request).await.unwrap_or_else(|refusal| *refusal)
    }
}

fn id<T, E: std::fmt::Display>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Box<Answer>> {
    parse(text).map_err(|error| Box::new(http::error(StatusCode::BAD_REQUEST, &error.to_string())))
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Box<Answer>> {
    let refused = |status, error: &str| Box::new(http::error(status, error));
    let bytes = match http::body(request, BODY_BYTES_MAX, BODY_TIMEOUT).await {
        Ok(bytes) => bytes,
        Err(BodyError::TooLarge) => {
            let error = format!("a body has at most {BODY_BYTES_MAX} bytes");
            return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, &error));
        }
        Err(BodyError::Broken) => {
            return Err(refused(StatusCode::BAD_REQUEST, "the body did not arrive whole"));
        }
    };
    // A list would be taken for the fields in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(refused(StatusCode::BAD_REQUEST, "the body does not begin with `{`"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| refused(StatusCode::BAD_REQUEST, &format!("the body: {error}")))
}

fn submitted(result: Result<Reply, StoreError>) -> Answer {
    match result {
        Ok(Reply::Submitted(Submitted::Stored { attempt, .. })) => {
            http::json(StatusCode::CREATED, &SubmittedBody::from(attempt))
        }
        Ok(Reply::Submitted(Submitted::Conflict)) => {
            http::error(StatusCode::CONFLICT, "the id names another task")
        }
        Ok(Reply::Submitted(Submitted::NotEnded)) => {
            http::error(StatusCode::CONFLICT, "the last attempt has not ended")
        }
        Ok(Reply::Submitted(Submitted::NoCommand)) => {
            let error = "the command is not known any more; submit the task again first";
            http::error(StatusCode::CONFLICT, error)
        }
        Ok(_) => http::error(StatusCode::NOT_FOUND, "there is no such task"),
        Err(error) => unavailable(&error.to_string()),
    }
}

/// The outcome may be unknown; the same request may be made again.
fn unavailable(error: &str) -> Answer {
    let mut response = http::error(StatusCode::SERVICE_UNAVAILABLE, error);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
