//! The server's core over sockets and HTTP.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument as _;

use super::publishing::{Answer, BatchAnswer, answer, publication, publications};
use crate::Core;
use crate::events::log::Command;
use crate::events::server::{Input, Output, PublishError, Receipt};
use crate::events::wire::{ClientFrame, EventBody, FrameError, SUBPROTOCOL};
use crate::events::{AgentId, CloseCode, ConnectionId, Ticket};
use crate::net::http::{self, BodyError, Service, UpgradedStream};
use crate::net::{
    Access, Admission, Clock, Grant, Holder, Limits, OpenSockets, Socket, SocketEvent,
    Transactions, WallClock, farewell, trace,
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
    sockets: OpenSockets,
    available: Arc<AtomicBool>,
}

enum ServerRequest {
    Input(Input),
    Connect {
        conn: ConnectionId,
        agent: AgentId,
        extension: bool,
        link: Link,
    },
    Publish(Asked),
    /// In one transaction.
    PublishAll(Vec<Asked>),
    Drain,
}

/// What a publisher asks for, and where it waits for the answer.
struct Asked {
    publish: Publish,
    answer: oneshot::Sender<Result<Receipt, PublishError>>,
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
    frames: mpsc::UnboundedSender<Vec<Bytes>>,
    /// What is to be sent together.
    next: Vec<Bytes>,
    close: oneshot::Sender<(CloseCode, &'static str)>,
}

impl Link {
    /// Hands on what is to be sent. A task that has ended reports its connection as gone by itself.
    fn send(&mut self) {
        if !self.next.is_empty() {
            let _ = self.frames.send(std::mem::take(&mut self.next));
        }
    }

    fn go_away(self) {
        // A task that has ended has closed its socket.
        let _ = self.close.send((CloseCode::GOING_AWAY, "the server is stopping"));
    }
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
        let request = ServerRequest::Publish(Asked { publish, answer });
        self.requests.send(request).await.map_err(|_| PublishError::Unavailable)?;
        receipt.await.unwrap_or(Err(PublishError::Unknown))
    }

    /// Stores events in one transaction, in their order, and returns an answer for each.
    ///
    /// If the log fails, it fails for all of them; so whoever repeats them all, each with its id,
    /// has them in their order. Those beyond [`ServerTaskConfig::batch_max`] are refused as
    /// [`PublishError::Overloaded`].
    pub async fn publish_all(
        &self,
        principal: &str,
        agent: &AgentId,
        events: Vec<(EventBody, Option<u64>)>,
    ) -> Vec<Result<Receipt, PublishError>> {
        let (mut asked, mut receipts) = (Vec::new(), Vec::new());
        for (body, after) in events {
            let (answer, receipt) = oneshot::channel();
            let (principal, agent) = (principal.to_owned(), agent.clone());
            asked.push(Asked { publish: Publish { principal, agent, body, after }, answer });
            receipts.push(receipt);
        }
        if self.requests.send(ServerRequest::PublishAll(asked)).await.is_err() {
            return receipts.iter().map(|_| Err(PublishError::Unavailable)).collect();
        }
        let mut results = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            results.push(receipt.await.unwrap_or(Err(PublishError::Unknown)));
        }
        results
    }

    /// Ends the server in good order: connections are closed with [`CloseCode::GOING_AWAY`], events
    /// that wait for the log are stored and answered, later ones are refused as
    /// [`PublishError::Unavailable`]. Returns when all of that is done; whoever calls it sets the
    /// time limit.
    pub async fn drain(&self) {
        // A server that has ended has nothing left to do.
        let _ = self.requests.send(ServerRequest::Drain).await;
        self.requests.closed().await;
        self.sockets.none().await;
    }

    /// The WebSockets of the server.
    pub fn sockets(&self) -> &OpenSockets {
        &self.sockets
    }

    /// Whether the log can be used, as far as known; only one that is shared is ever away.
    pub fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    /// How many requests wait for the core.
    pub fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
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

/// Tells a server what is appended to a log that others append to as well.
pub trait Follower: Send + 'static {
    /// The next of [`Input::Followed`], [`Input::FollowBegun`], [`Input::FollowBroken`],
    /// [`Input::EpochChanged`] and [`Input::LogWentBack`]; waits for it. It is not asked while the
    /// line of requests to the core is full.
    fn next(&mut self) -> impl Future<Output = Input> + Send;
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
    let handle = ServerHandle {
        requests,
        connections: Arc::default(),
        sockets: OpenSockets::default(),
        available: Arc::new(AtomicBool::new(true)),
    };
    let task = Task {
        core,
        clock: Clock::start(),
        wall,
        store: Transactions::new(store, config.batch_max),
        config,
        links: BTreeMap::new(),
        publishers: BTreeMap::new(),
        batches: VecDeque::new(),
        tickets: 0,
        draining: false,
        available: handle.available.clone(),
    };
    (handle, task.run(inbox))
}

/// A server whose log others append to as well; its core is configured for that. See [`server()`].
pub fn shared_server<C, S, F>(
    core: C,
    store: S,
    follower: F,
    wall: Arc<dyn WallClock>,
    config: ServerTaskConfig,
) -> (ServerHandle, impl Future<Output = ()> + Send)
where
    C: Core<Input = Input, Output = Output>,
    S: Store<Command>,
    F: Follower,
{
    let (handle, task) = server(core, store, wall, config);
    let requests = handle.requests.downgrade();
    let run = async move {
        tokio::select! { biased;
            () = task => {}
            () = follow(follower, requests) => {}
        }
    };
    (handle, run)
}

/// Hands on what the follower tells, which never ends before the server does.
async fn follow(mut follower: impl Follower, requests: mpsc::WeakSender<ServerRequest>) {
    loop {
        let input = follower.next().await;
        // It is in line with everything else, so neither keeps the other from the core.
        let Some(requests) = requests.upgrade() else { break };
        if requests.send(ServerRequest::Input(input)).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

struct Task<C, S> {
    core: C,
    clock: Clock,
    wall: Arc<dyn WallClock>,
    store: Transactions<Command, S>,
    config: ServerTaskConfig,
    links: BTreeMap<ConnectionId, Link>,
    publishers: BTreeMap<Ticket, oneshot::Sender<Result<Receipt, PublishError>>>,
    /// What is to be stored in one transaction, and would not fit into the next.
    batches: VecDeque<Vec<Asked>>,
    tickets: u64,
    /// Nothing new is begun; the task ends with what is under way.
    draining: bool,
    /// What the handle says of the log.
    available: Arc<AtomicBool>,
}

impl<C, S> Task<C, S>
where
    C: Core<Input = Input, Output = Output>,
    S: Store<Command>,
{
    async fn run(mut self, mut inbox: mpsc::Receiver<ServerRequest>) {
        self.perform();
        let mut requests = Vec::new();
        while !(self.draining && self.is_idle()) {
            let deadline = self.core.deadline();
            tokio::select! { biased;
                replies = self.store.next() => {
                    // Together, so that what a transaction has stored is sent together.
                    for (id, reply) in replies {
                        self.core.handle(self.clock.now(), Input::Stored(id, reply));
                    }
                    self.perform();
                    self.take_batches();
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
            ServerRequest::Connect { link, .. } if self.draining => link.go_away(),
            ServerRequest::Connect { conn, agent, extension, link } => {
                self.links.insert(conn, link);
                self.feed(Input::Connected { conn, agent, extension });
            }
            ServerRequest::Publish(asked) => self.publish(asked),
            ServerRequest::PublishAll(batch) => {
                self.batches.push_back(batch);
                self.take_batches();
            }
            ServerRequest::Drain => self.drain(),
        }
    }

    fn publish(&mut self, Asked { publish, answer }: Asked) {
        if self.draining {
            // A publisher that has gone needs no answer.
            let _ = answer.send(Err(PublishError::Unavailable));
            return;
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.publishers.insert(ticket, answer);
        let Publish { principal, agent, body, after } = publish;
        let at = self.wall.wall_time();
        self.feed(Input::Publish { ticket, principal, agent, body, after, at });
    }

    /// Hands the core those batches that fit into the next transaction as a whole.
    fn take_batches(&mut self) {
        while let Some(batch) = self.batches.front() {
            let wanted = batch.len().min(self.config.batch_max);
            if self.store.waiting() + wanted > self.config.batch_max {
                return;
            }
            let mut batch = self.batches.pop_front().unwrap_or_default();
            for beyond in batch.drain(wanted..) {
                let _ = beyond.answer.send(Err(PublishError::Overloaded));
            }
            for asked in batch {
                self.publish(asked);
            }
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.take_batches();
        for (conn, link) in std::mem::take(&mut self.links) {
            link.go_away();
            self.feed(Input::Disconnected { conn });
        }
    }

    fn is_idle(&self) -> bool {
        self.publishers.is_empty() && self.batches.is_empty() && self.store.is_idle()
    }

    /// One input, and everything that it leads to.
    fn feed(&mut self, input: Input) {
        self.core.handle(self.clock.now(), input);
        self.perform();
    }

    fn perform(&mut self) {
        let mut talked = Vec::new();
        while let Some(output) = self.core.poll() {
            match output {
                Output::Store(id, command) => self.store.push(id, command),
                Output::Send { conn, frame } => {
                    if let Some(link) = self.links.get_mut(&conn) {
                        if link.next.is_empty() {
                            talked.push(conn);
                        }
                        link.next.push(frame.to_bytes());
                    }
                }
                Output::Close { conn, code, reason } => {
                    if let Some(mut link) = self.links.remove(&conn) {
                        link.send();
                        let _ = link.close.send((code, reason));
                    }
                }
                Output::Published { ticket, result } => {
                    if let Some(answer) = self.publishers.remove(&ticket) {
                        // A publisher that has gone will ask again with the same id.
                        let _ = answer.send(result);
                    }
                }
                Output::Available(available) => {
                    match available {
                        true => tracing::info!("the log is back"),
                        false => tracing::error!("the log is away; clients are sent away"),
                    }
                    self.available.store(available, Ordering::Relaxed);
                }
            }
        }
        for conn in talked {
            if let Some(link) = self.links.get_mut(&conn) {
                link.send();
            }
        }
    }
}

/// The HTTP side: `GET /v1/ws`, `POST /v1/agents/{agent}/events` and `…/events/batch`,
/// `GET /healthz`.
#[derive(Clone)]
pub struct EventService {
    handle: ServerHandle,
    access: Arc<dyn Access>,
    wall: Arc<dyn WallClock>,
    limits: Limits,
    admission: Admission,
    extension: bool,
    event_bytes_max: usize,
}

/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How many events a batch has at most: as many as one transaction.
pub const BATCH_EVENTS_MAX: usize = 256;

/// The largest body of a batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 2 << 20;

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
        let admission = Admission::default();
        Self { handle, access, wall, limits, admission, extension, event_bytes_max }
    }

    /// Who is let in, and how many; shared with other services.
    pub fn with_admission(self, admission: Admission) -> Self {
        Self { admission, ..self }
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
        trace::agent(agent.as_str());
        let who = trace::Connected {
            protocol: "events",
            principal: Some(&grant.principal),
            agent: Some(agent.as_str()),
            ..trace::Connected::default()
        };
        let span = trace::connection(&who, request.headers());
        let holder = Holder::Principal(grant.principal);
        let admitted = match self.admission.admit(request.headers(), holder) {
            Ok(admitted) => admitted,
            Err(refusal) => return *refusal,
        };
        let subprotocol = self.extension.then_some(SUBPROTOCOL);
        match http::upgrade(request, subprotocol, &self.limits) {
            Ok(http::Upgrade { response, subprotocol, pending }) => {
                let service = self.clone();
                let open = self.handle.sockets.enter();
                span.record("extension", subprotocol);
                let serve = async move {
                    let _open = (open, admitted);
                    if let Some(stream) = pending.open().await {
                        let socket = Socket::new(stream, &service.limits);
                        service.serve_socket(socket, agent, subprotocol).await;
                    }
                };
                tokio::spawn(serve.instrument(span));
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
        trace::connection_number(conn.0);
        let (frames, mut outgoing) = mpsc::unbounded_channel();
        let (close, mut closing) = oneshot::channel();
        let link = Link { frames, next: Vec::new(), close };
        let connect = ServerRequest::Connect { conn, agent, extension, link };
        if self.handle.requests.send(connect).await.is_err() {
            return socket.close(CloseCode::GOING_AWAY.0, "the server is stopping").await;
        }
        let goodbye = loop {
            tokio::select! { biased;
                goodbye = &mut closing => {
                    break goodbye.unwrap_or((CloseCode::GOING_AWAY, "the server is stopping"));
                }
                Some(frames) = outgoing.recv() => {
                    frames.into_iter().for_each(|frame| socket.queue(frame));
                    while let Ok(frames) = outgoing.try_recv() {
                        frames.into_iter().for_each(|frame| socket.queue(frame));
                    }
                }
                event = socket.next(true) => match event {
                    SocketEvent::Closed { code } => {
                        self.handle.input(Input::Disconnected { conn }).await;
                        match farewell(code) {
                            Some(goodbye) => break goodbye,
                            None => return trace::closed(code),
                        }
                    }
                    event => self.handle.input(self.input(conn, event)).await,
                },
            }
        };
        trace::closed(Some(goodbye.0.0));
        self.handle.sockets.closed(goodbye.0);
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

    /// Who publishes to which stream, and the body of the request; or the answer.
    async fn publisher(
        &self,
        request: Request<Incoming>,
        agent: &str,
        bytes_max: usize,
    ) -> Result<(Grant, AgentId, Bytes), Box<Response<Full<Bytes>>>> {
        let refused = |status, error: &str| Err(Box::new(http::error(status, error)));
        let grant = self.grant(&request)?;
        if !grant.publish {
            return refused(StatusCode::FORBIDDEN, "the token does not allow publishing");
        }
        let agent = match AgentId::parse(agent) {
            Ok(agent) => agent,
            Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        trace::agent(agent.as_str());
        match http::body(request, bytes_max, BODY_TIMEOUT).await {
            Ok(body) => Ok((grant, agent, body)),
            Err(BodyError::TooLarge) => {
                let error = format!("an event has at most {} bytes", self.event_bytes_max);
                refused(StatusCode::PAYLOAD_TOO_LARGE, &error)
            }
            Err(BodyError::Broken) => {
                refused(StatusCode::BAD_REQUEST, "the body did not arrive whole")
            }
        }
    }

    async fn publish(&self, request: Request<Incoming>, agent: &str) -> Response<Full<Bytes>> {
        // The envelope is small; what counts is the event in it.
        let bytes_max = self.event_bytes_max + 4096;
        let (grant, agent, body) = match self.publisher(request, agent, bytes_max).await {
            Ok(publisher) => publisher,
            Err(refusal) => return *refusal,
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

    async fn publish_all(&self, request: Request<Incoming>, agent: &str) -> Response<Full<Bytes>> {
        let bytes_max = BATCH_BYTES_MAX.max(self.event_bytes_max + 4096);
        let (grant, agent, body) = match self.publisher(request, agent, bytes_max).await {
            Ok(publisher) => publisher,
            Err(refusal) => return *refusal,
        };
        match publications(&body, self.event_bytes_max, BATCH_EVENTS_MAX) {
            Ok(events) => {
                let results = self.handle.publish_all(&grant.principal, &agent, events).await;
                http::json(StatusCode::OK, &BatchAnswer::new(&results))
            }
            Err((status, error)) => http::error(status, &error),
        }
    }
}

impl Service for EventService {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let agent = path.strip_prefix("/v1/agents/");
        let batch = agent.and_then(|path| path.strip_suffix("/events/batch"));
        let agent = agent.and_then(|path| path.strip_suffix("/events"));
        match (request.method(), path.as_str(), agent.or(batch)) {
            (&Method::GET, "/v1/ws", _) => {
                trace::route("/v1/ws");
                self.connect(request)
            }
            (&Method::POST, _, Some(agent)) if batch.is_some() => {
                trace::route("/v1/agents/{agent}/events/batch");
                self.publish_all(request, agent).await
            }
            (&Method::POST, _, Some(agent)) => {
                trace::route("/v1/agents/{agent}/events");
                self.publish(request, agent).await
            }
            (&Method::GET, "/healthz", _) => {
                trace::route("/healthz");
                match self.handle.is_available() {
                    true => http::empty(StatusCode::NO_CONTENT),
                    false => http::error(StatusCode::SERVICE_UNAVAILABLE, "the log is away"),
                }
            }
            (_, "/v1/ws" | "/healthz", _) | (_, _, Some(_)) => {
                http::error(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
            }
            _ => http::error(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }
}
