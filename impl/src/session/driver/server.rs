//! The server's core over sockets and HTTP.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, REFERRER_POLICY};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::application::{Application, Speaker};
use crate::Core;
use crate::frame::integer;
use crate::net::http::{self, Service, UpgradedStream};
use crate::net::{
    Access, Admission, Clock, Holder, Limits, OpenSockets, Socket, SocketEvent, Transactions,
    farewell, trace,
};
use crate::recovery::Epoch;
use crate::session::conversation::{Command, Ending, Saying};
use crate::session::server::{Attempt, Input, Output, Work};
use crate::session::wire::{ClientFrame, FrameError, SUBPROTOCOL};
use crate::session::{CloseCode, ConnectionId, Identity, InvalidName, Name, Turn};
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
}

/// What the task is asked to do. One queue for all of it, so that no one's turn comes before
/// another's.
pub(super) enum ServerRequest {
    Input(Input),
    Connect { conn: ConnectionId, hello: Hello, link: Link },
    Say { turn: Turn, saying: Saying, heard: oneshot::Sender<()> },
    End { turn: Turn, ending: Ending },
    Drain,
}

/// What a client says about itself on the URL.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Who it is.
    pub identity: Identity,
    /// Whether the extension was negotiated.
    pub extension: bool,
    /// The highest contiguous number that it has applied; 0 = nothing.
    pub since: u64,
    /// The epoch of `since`.
    pub epoch: Option<Epoch>,
    /// Which attempt to connect this is.
    pub attempt: Option<Attempt>,
}

/// The way from the core to a connection's task.
pub(super) struct Link {
    extension: bool,
    /// Bounded by the core's window.
    frames: mpsc::UnboundedSender<Bytes>,
    close: oneshot::Sender<(CloseCode, &'static str)>,
}

impl Link {
    fn go_away(self) {
        // A task that has ended has closed its socket.
        let _ = self.close.send((CloseCode::GOING_AWAY, "the server is stopping"));
    }
}

impl ServerHandle {
    /// Ends the server in good order: connections are closed with [`CloseCode::GOING_AWAY`], and the
    /// application's turns run to their end, which may be long. Returns when all of that is done;
    /// whoever calls it sets the time limit. A turn that is cut short is shown as interrupted.
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

    /// How many requests wait for the core.
    pub fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    async fn input(&self, input: Input) {
        // A server that has ended has no state that the input could change.
        let _ = self.requests.send(ServerRequest::Input(input)).await;
    }
}

/// A server: a handle, and the future that runs it until the last handle is dropped. The turns
/// that run then are dropped with it.
pub fn server<C, S>(
    core: C,
    store: S,
    application: Arc<dyn Application>,
    config: ServerTaskConfig,
) -> (ServerHandle, impl Future<Output = ()> + Send)
where
    C: Core<Input = Input, Output = Output>,
    S: Store<Command>,
{
    let (requests, inbox) = mpsc::channel(config.requests_max);
    let task = Task {
        core,
        clock: Clock::start(),
        store: Transactions::new(store, config.batch_max),
        application,
        requests: requests.downgrade(),
        config,
        links: BTreeMap::new(),
        running: JoinSet::new(),
        turns: BTreeMap::new(),
        draining: false,
    };
    let sockets = OpenSockets::default();
    (ServerHandle { requests, connections: Arc::default(), sockets }, task.run(inbox))
}

struct Task<C, S> {
    core: C,
    clock: Clock,
    store: Transactions<Command, S>,
    application: Arc<dyn Application>,
    requests: mpsc::WeakSender<ServerRequest>,
    config: ServerTaskConfig,
    links: BTreeMap<ConnectionId, Link>,
    /// The application's futures: at most one for each conversation.
    running: JoinSet<()>,
    turns: BTreeMap<Turn, Voice>,
    /// Nobody is let in; the task ends with the turns that run.
    draining: bool,
}

/// What is under way between a turn and the core.
#[derive(Default)]
struct Voice {
    /// Waits for what was said to be heard.
    unheard: Option<oneshot::Sender<()>>,
    /// How the turn ends, once that is heard.
    ending: Option<Ending>,
}

impl<C, S> Task<C, S>
where
    C: Core<Input = Input, Output = Output>,
    S: Store<Command>,
{
    async fn run(mut self, mut inbox: mpsc::Receiver<ServerRequest>) {
        self.perform();
        let mut requests = Vec::new();
        while !(self.draining && self.turns.is_empty() && self.store.is_idle()) {
            let deadline = self.core.deadline();
            tokio::select! { biased;
                replies = self.store.next() => {
                    for (id, reply) in replies {
                        self.feed(Input::Stored(id, reply));
                    }
                }
                // Before the inbox: timers are due also while requests never end.
                () = self.clock.sleep_until(deadline) => self.feed(Input::Timeout),
                Some(_) = self.running.join_next() => {}
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
            ServerRequest::Connect { conn, hello, link } => {
                self.links.insert(conn, link);
                let Hello { identity, extension, since, epoch, attempt } = hello;
                self.feed(Input::Connected { conn, identity, extension, since, epoch, attempt });
            }
            ServerRequest::Say { turn, saying, heard } => {
                // Whoever speaks for a turn that is over learns it from the dropped answer.
                if let Some(voice) = self.turns.get_mut(&turn) {
                    voice.unheard = Some(heard);
                    self.feed(Input::Say { turn, saying });
                }
            }
            ServerRequest::End { turn, ending } => match self.turns.get_mut(&turn) {
                Some(voice) if voice.unheard.is_some() => voice.ending = Some(ending),
                Some(_) => self.end(turn, ending),
                None => {}
            },
            ServerRequest::Drain => {
                self.draining = true;
                for (conn, link) in std::mem::take(&mut self.links) {
                    link.go_away();
                    self.feed(Input::Disconnected { conn });
                }
            }
        }
    }

    /// One input, and everything that it leads to.
    fn feed(&mut self, input: Input) {
        self.core.handle(self.clock.now(), input);
        self.perform();
    }

    fn perform(&mut self) {
        let mut ended = Vec::new();
        while let Some(output) = self.core.poll() {
            match output {
                Output::Store(id, command) => self.store.push(id, command),
                Output::Send { conn, frame } => {
                    if let Some(link) = self.links.get(&conn) {
                        // A task that has ended reports its connection as gone by itself.
                        let _ = link.frames.send(frame.to_text(link.extension).into());
                    }
                }
                Output::Close { conn, code, reason } => {
                    if let Some(link) = self.links.remove(&conn) {
                        let _ = link.close.send((code, reason));
                    }
                }
                Output::Run(work) => self.start(work),
                Output::Heard { turn } => {
                    let Some(voice) = self.turns.get_mut(&turn) else { continue };
                    if let Some(unheard) = voice.unheard.take() {
                        // A turn that no longer waits for it goes on without it.
                        let _ = unheard.send(());
                    }
                    ended.extend(voice.ending.take().map(|ending| (turn, ending)));
                }
            }
        }
        // Inputs, so only after the outputs are drained.
        for (turn, ending) in ended {
            self.end(turn, ending);
        }
    }

    fn start(&mut self, work: Work) {
        let turn = work.turn.clone();
        self.turns.insert(turn.clone(), Voice::default());
        let speaker = Speaker::new(turn.clone(), self.requests.clone());
        let (application, requests) = (self.application.clone(), self.requests.clone());
        self.running.spawn(async move {
            let run = async { application.turn(work, speaker).await };
            let ending = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!(?turn, "the application panicked");
                Ending::Failed("the application failed".to_owned())
            });
            if let Some(requests) = requests.upgrade() {
                // A server that has ended takes the turn for interrupted when it begins again.
                let _ = requests.send(ServerRequest::End { turn, ending }).await;
            }
        });
    }

    fn end(&mut self, turn: Turn, ending: Ending) {
        self.turns.remove(&turn);
        self.feed(Input::End { turn, ending });
    }
}

/// The HTTP side: `GET /ws`, `GET /health`, and `GET /` if there is a page.
#[derive(Clone)]
pub struct SessionService {
    handle: ServerHandle,
    access: Arc<dyn Access>,
    limits: Limits,
    admission: Admission,
    extension: bool,
    page: Option<&'static str>,
}

impl SessionService {
    /// Serves the conversations of a server; a conversation belongs to the principal of a token.
    /// `extension` is that of the core's configuration.
    pub fn new(
        handle: ServerHandle,
        access: Arc<dyn Access>,
        limits: Limits,
        extension: bool,
    ) -> Self {
        let admission = Admission::default();
        Self { handle, access, limits, admission, extension, page: None }
    }

    /// Who is let in, and how many; shared with other services.
    pub fn with_admission(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// Serves a page of HTML on `/`.
    pub fn with_page(self, page: &'static str) -> Self {
        Self { page: Some(page), ..self }
    }

    fn connect(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        // Before any state is read [CORE-14].
        let Some(grant) = http::token(&request).and_then(|token| self.access.grant(&token)) else {
            let error = "the token is missing or not valid";
            return http::error(StatusCode::UNAUTHORIZED, error);
        };
        let holder = Holder::Principal(grant.principal.clone());
        let admitted = match self.admission.admit(request.headers(), holder) {
            Ok(admitted) => admitted,
            Err(refusal) => return *refusal,
        };
        let conn = ConnectionId(self.handle.connections.fetch_add(1, Ordering::Relaxed) + 1);
        let query = request.uri().query().unwrap_or_default().to_owned();
        let client = match Hello::client(&query, conn) {
            Ok(client) => client,
            Err(error) => {
                let error = format!("`client_id` on the URL: {error}");
                return http::error(StatusCode::BAD_REQUEST, &error);
            }
        };
        let subprotocol = self.extension.then_some(SUBPROTOCOL);
        let headers = request.headers().clone();
        match http::upgrade(request, subprotocol, &self.limits) {
            Ok(http::Upgrade { response, subprotocol, pending }) => {
                let who = trace::Connected {
                    protocol: "sessions",
                    principal: Some(&grant.principal),
                    client_id: Some(client.as_str()),
                    extension: Some(subprotocol),
                    ..trace::Connected::default()
                };
                let span = trace::connection(&who, &headers);
                let identity = Identity { principal: grant.principal.into(), client };
                let hello = Hello::parse(identity, subprotocol, &query);
                let service = self.clone();
                let open = self.handle.sockets.enter();
                let serve = async move {
                    let _open = (open, admitted);
                    if let Some(stream) = pending.open().await {
                        let socket = Socket::new(stream, &service.limits);
                        service.serve_socket(socket, conn, hello).await;
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
        conn: ConnectionId,
        hello: Hello,
    ) {
        trace::connection_number(conn.0);
        let (frames, mut outgoing) = mpsc::unbounded_channel();
        let (close, mut closing) = oneshot::channel();
        let link = Link { extension: hello.extension, frames, close };
        let connect = ServerRequest::Connect { conn, hello, link };
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
                            None => return trace::closed(code),
                        }
                    }
                    event => self.handle.input(input(conn, event)).await,
                },
            }
        };
        trace::closed(Some(goodbye.0.0));
        self.handle.sockets.closed(goodbye.0);
        socket.close(goodbye.0.0, goodbye.1).await;
    }
}

impl Service for SessionService {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path(), self.page) {
            (&Method::GET, "/ws", _) => {
                trace::route("/ws");
                self.connect(request)
            }
            (&Method::GET, "/health", _) => {
                trace::route("/health");
                http::empty(StatusCode::NO_CONTENT)
            }
            (&Method::GET, "/", Some(page)) => {
                trace::route("/");
                html(page)
            }
            (_, "/ws" | "/health", _) | (_, "/", Some(_)) => {
                http::error(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
            }
            _ => http::error(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }
}

impl Hello {
    /// What the client calls itself. A name that is made up is not used again while there may be an
    /// outbox for it: both are gone when the process ends.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if it is no name.
    pub fn client(query: &str, conn: ConnectionId) -> Result<Name, InvalidName> {
        match http::query(query, "client_id").as_deref().map(str::trim) {
            None | Some("") => Name::parse(&format!("anonymous-{}", conn.0)),
            Some(client) => Name::parse(client),
        }
    }

    /// What the query of the URL says. What is no number, epoch or view counts as absent: the
    /// client gets a history then.
    pub fn parse(identity: Identity, extension: bool, query: &str) -> Self {
        let number = |name| {
            let text = http::query(query, name)?;
            integer(&serde_json::from_str(&text).ok()?)
        };
        // The base contract has no such parameters.
        let extended = |name| http::query(query, name).filter(|_| extension);
        let view = extended("view").and_then(|view| Name::parse(&view).ok());
        Self {
            identity,
            extension,
            since: number("since").unwrap_or(0),
            epoch: extended("epoch").and_then(|epoch| Epoch::parse(&epoch).ok()),
            attempt: view
                .zip(number("attempt"))
                .map(|(view, number)| Attempt { view: view.into(), number }),
        }
    }
}

fn input(conn: ConnectionId, event: SocketEvent) -> Input {
    match event {
        SocketEvent::Wrote(frames) => Input::Written { conn, frames },
        SocketEvent::Text(text) => match ClientFrame::parse(&text) {
            Ok(frame) => Input::Frame { conn, frame },
            Err(error) => Input::Malformed { conn, error },
        },
        SocketEvent::Binary(bytes) => {
            let error = FrameError::NotAnObject(format!("a binary frame of {} bytes", bytes.len()));
            Input::Malformed { conn, error }
        }
        SocketEvent::Alive => Input::Alive { conn },
        SocketEvent::Closed { .. } => Input::Disconnected { conn },
    }
}

/// A page. Its URL may carry a token, which it must not hand on.
fn html(page: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(page.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
