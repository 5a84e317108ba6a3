//! The server's core over sockets and HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};

use super::publishing::{Answer, answer, publication};
use crate::Core;
use crate::events::log::Command;
use crate::events::server::{Input, Output, PublishError, Receipt};
use crate::events::wire::{ClientFrame, EventBody, FrameError, SUBPROTOCOL};
use crate::events::{AgentId, CloseCode, ConnectionId, Ticket};
use crate::net::http::{self, BodyError, Service, UpgradedStream};
use crate::net::{
    Access, Clock, Grant, Limits, Socket, SocketEvent, Transactions, WallClock, farewell,
};
use crate::storage::Store;

/// The limits of the task that runs a server's core.
#[derive(Debug, Clone)]
pub struct ServerTaskConfig {
    /// How many requests may wait for the core: 1,024.
    pub requests_max: usize,
    /// How many commands are joined to one transaction: 256.
    pub batch_max: usize,
}

impl Default for ServerTaskConfig {
    fn default() -> Self {
        Self { requests_max: 1_024, batch_max: 256 }
    }
}

/// Talks to the task that runs a server's core.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    requests: mpsc::Sender<ServerRequest>,
    connections: Arc<AtomicU64>,
}

enum ServerRequest {
    Input(Input),
    Connect { conn: ConnectionId, agent: AgentId, extension: bool, link: Link },
    Publish { publish: Publish, answer: oneshot::Sender<Result<Receipt, PublishError>> },
}

struct Publish {
    principal: String,
    agent: AgentId,
    body: EventBody,
    after: Option<u64>,
}

/// The way from the core to a connection's task.
struct Link {
    /// Bounded by the core's window.
    frames: mpsc::UnboundedSender<Bytes>,
    close: oneshot::Sender<(CloseCode, &'static str)>,
}

impl ServerHandle {
    /// Stores an event and returns its number.
    ///
    /// # Errors
    ///
    /// [`PublishError`] says whether the event may have been stored.
    pub async fn publish(
        &self,
        principal: String,
        agent: AgentId,
        body: EventBody,
        after: Option<u64>,
    ) -> Result<Receipt, PublishError> {
        let (answer, receipt) = oneshot::channel();
        let publish = Publish { principal, agent, body, after };
        let request = ServerRequest::Publish { publish, answer };
        self.requests.send(request).await.map_err(|_| PublishError::Unavailable)?;
        receipt.await.unwrap_or(Err(PublishError::Unknown))
    }

    /// Forgets the events of a stream below `oldest`.
    pub async fn retain(&self, agent: AgentId, oldest: u64) {
        self.input(Input::Retain { agent, oldest }).await;
    }

    async fn input(&self, input: Input) {
        // A server that has ended has no state that the input could change.
        let _ = self.requests.send(ServerRequest::Input(input)).await;
    }
}

/// A server: a handle, and the future that runs it until the last handle is dropped.
pub fn server<C, S>(
    core: C,
    store: S,
    wall: Arc<dyn WallClock>,
    config: ServerTaskConfig,
) -> (ServerHandle, impl Future<Output = ()> + Send)
where
    C: Core<Input = Input, Output = Output>,
    S: Store<Command>,
{
    let (requests, inbox) = mpsc::channel(config.requests_max);
    let handle = ServerHandle { requests, connections: Arc::default() };
    let task = Task {
        core,
        clock: Clock::start(),
        wall,
        store: Transactions::new(store, config.batch_max),
        config,
        links: BTreeMap::new(),
        publishers: BTreeMap::new(),
        tickets: 0,
    };
    (handle, task.run(inbox))
}

struct Task<C, S> {
    core: C,
    clock: Clock,
    wall: Arc<dyn WallClock>,
    store: Transactions<Command, S>,
    config: ServerTaskConfig,
    links: BTreeMap<ConnectionId, Link>,
    publishers: BTreeMap<Ticket, oneshot::Sender<Result<Receipt, PublishError>>>,
    tickets: u64,
}

impl<C, S> Task<C, S>
where
    C: Core<Input = Input, Output = Output>,
    S: Store<Command>,
{
    async fn run(mut self, mut inbox: mpsc::Receiver<ServerRequest>) {
        self.perform();
        let mut requests = Vec::new();
        loop {
            let deadline = self.core.deadline();
            tokio::select! { biased;
                replies = self.store.next() => {
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

    fn take(&mut self, request: ServerRequest) {
        match request {
            ServerRequest::Input(Input::Disconnected { conn }) => {
                self.links.remove(&conn);
                self.feed(Input::Disconnected { conn });
            }
            ServerRequest::Input(input) => self.feed(input),
            ServerRequest::Connect { conn, agent, extension, link } => {
                self.links.insert(conn, link);
                self.feed(Input::Connected { conn, agent, extension });
            }
            ServerRequest::Publish { publish, answer } => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.publishers.insert(ticket, answer);
                let Publish { principal, agent, body, after } = publish;
                let at = self.wall.wall_time();
                self.feed(Input::Publish { ticket, principal, agent, body, after, at });
            }
        }
    }

    /// One input, and everything that it leads to.
    fn feed(&mut self, input: Input) {
        self.core.handle(self.clock.now(), input);
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(output) = self.core.poll() {
            match output {
                Output::Store(id, command) => self.store.push(id, command),
                Output::Send { conn, frame } => {
                    if let Some(link) = self.links.get(&conn) {
                        // A task that has ended reports its connection as gone by itself.
                        let _ = link.frames.send(frame.to_bytes());
                    }
                }
                Output::Close { conn, code, reason } => {
                    if let Some(link) = self.links.remove(&conn) {
                        let _ = link.close.send((code, reason));
                    }
                }
                Output::Published { ticket, result } => {
                    if let Some(answer) = self.publishers.remove(&ticket) {
                        // A publisher that has gone will ask again with the same id.
                        let _ = answer.send(result);
                    }
                }
            }
        }
    }
}

/// The HTTP side: `GET /v1/ws`, `POST /v1/agents/{agent}/events`, `GET /healthz`.
#[derive(Clone)]
pub struct EventService {
    handle: ServerHandle,
    access: Arc<dyn Access>,
    wall: Arc<dyn WallClock>,
    limits: Limits,
    extension: bool,
    event_bytes_max: usize,
}

/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

impl EventService {
    /// Serves the streams of a server. `extension` and `event_bytes_max` are those of the core's
    /// configuration.
    pub fn new(
        handle: ServerHandle,
        access: Arc<dyn Access>,
        wall: Arc<dyn WallClock>,
        limits: Limits,
        extension: bool,
        event_bytes_max: usize,
    ) -> Self {
        Self { handle, access, wall, limits, extension, event_bytes_max }
    }

    /// Who asks; before any state is read [CORE-14].
    fn grant(&self, request: &Request<Incoming>) -> Result<Grant, Box<Response<Full<Bytes>>>> {
        http::token(request).and_then(|token| self.access.grant(&token)).ok_or_else(|| {
            Box::new(http::error(StatusCode::UNAUTHORIZED, "the token is missing or not valid"))
        })
    }

    fn connect(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let grant = match self.grant(&request) {
            Ok(grant) => grant,
            Err(refusal) => return *refusal,
        };
        let Some(agent) = grant.stream else {
            return http::error(StatusCode::FORBIDDEN, "the token does not stand for a stream");
        };
        let subprotocol = self.extension.then_some(SUBPROTOCOL);
        match http::upgrade(request, subprotocol, &self.limits) {
            Ok(http::Upgrade { response, subprotocol, pending }) => {
                let service = self.clone();
                tokio::spawn(async move {
                    if let Some(stream) = pending.open().await {
                        let socket = Socket::new(stream, &service.limits);
                        service.serve_socket(socket, agent, subprotocol).await;
                    }
                });
                response
            }
            Err(http::NotAnUpgrade) => {
                http::error(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint")
            }
        }
    }

    async fn serve_socket(
        &self,
        mut socket: Socket<UpgradedStream>,
        agent: AgentId,
        extension: bool,
    ) {
        let conn = ConnectionId(self.handle.connections.fetch_add(1, Ordering::Relaxed) + 1);
        let (frames, mut outgoing) = mpsc::unbounded_channel();
        let (close, mut closing) = oneshot::channel();
        let link = Link { frames, close };
        let connect = ServerRequest::Connect { conn, agent, extension, link };
        if self.handle.requests.send(connect).await.is_err() {
            return socket.close(CloseCode::GOING_AWAY.0, "the server is stopping").await;
        }
        let goodbye = loop {
            tokio::select! { biased;
                goodbye = &mut closing => {
                    break goodbye.unwrap_or((CloseCode::GOING_AWAY, "the server is stopping"));
                }
                Some(frame) = outgoing.recv() => {
                    socket.queue(frame);
                    while let Ok(frame) = outgoing.try_recv() {
                        socket.queue(frame);
                    }
                }
                event = socket.next(true) => match event {
                    SocketEvent::Closed { code } => {
                        self.handle.input(Input::Disconnected { conn }).await;
                        match farewell(code) {
                            Some(goodbye) => break goodbye,
                            None => return,
                        }
                    }
                    event => self.handle.input(self.input(conn, event)).await,
                },
            }
        };
        socket.close(goodbye.0.0, goodbye.1).await;
    }

    fn input(&self, conn: ConnectionId, event: SocketEvent) -> Input {
        match event {
            SocketEvent::Wrote(frames) => Input::Written { conn, frames },
            SocketEvent::Text(text) => match ClientFrame::parse(&text) {
                Ok(frame) => Input::Frame { conn, frame, at: self.wall.wall_time() },
                Err(error) => Input::Malformed { conn, error },
            },
            SocketEvent::Binary(bytes) => {
                let error =
                    FrameError::NotAnObject(format!("a binary frame of {} bytes", bytes.len()));
                Input::Malformed { conn, error }
            }
            SocketEvent::Alive => Input::Alive { conn },
            SocketEvent::Closed { .. } => Input::Disconnected { conn },
        }
    }

    async fn publish(&self, request: Request<Incoming>, agent: &str) -> Response<Full<Bytes>> {
        let grant = match self.grant(&request) {
            Ok(grant) => grant,
            Err(refusal) => return *refusal,
        };
        if !grant.publish {
            return http::error(StatusCode::FORBIDDEN, "the token does not allow publishing");
        }
        let agent = match AgentId::parse(agent) {
            Ok(agent) => agent,
            Err(error) => return http::error(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        // The envelope is small; what counts is the event in it.
        let body = match http::body(request, self.event_bytes_max + 4096, BODY_TIMEOUT).await {
            Ok(body) => body,
            Err(BodyError::TooLarge) => {
                let error = format!("an event has at most {} bytes", self.event_bytes_max);
                return http::error(StatusCode::PAYLOAD_TOO_LARGE, &error);
            }
            Err(BodyError::Broken) => {
                return http::error(StatusCode::BAD_REQUEST, "the body did not arrive whole");
            }
        };
        let (body, after) = match publication(&body, self.event_bytes_max) {
            Ok(publication) => publication,
            Err((status, error)) => return http::error(status, &error),
        };
        let Answer { status, body, retry_after } =
            answer(&self.handle.publish(grant.principal, agent, body, after).await);
        let mut response = http::json(status, &body);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl Service for EventService {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let agent = path.strip_prefix("/v1/agents/").and_then(|path| path.strip_suffix("/events"));
        match (request.method(), path.as_str(), agent) {
            (&Method::GET, "/v1/ws", _) => self.connect(request),
            (&Method::POST, _, Some(agent)) => self.publish(request, agent).await,
            (&Method::GET, "/healthz", _) => http::empty(StatusCode::NO_CONTENT),
            (_, "/v1/ws" | "/healthz", _) | (_, _, Some(_)) => {
                http::error(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
            }
            _ => http::error(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }
}
