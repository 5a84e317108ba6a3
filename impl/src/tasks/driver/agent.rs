//! The agent's core over sockets, HTTP and processes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::agent_http::{self, AgentRequest, Refused, WEBSOCKET_PATH};
use super::executor::{Execution, Executor, ExecutorEvent};
use crate::net::{
    BoxFuture, Clock, Connector, Limits, RequestError, Requester, Socket, SocketEvent,
    Transactions, WallClock, farewell,
};
use crate::recovery::{Entropy, WallTime};
use crate::storage::Store;
use crate::tasks::Attempt;
use crate::tasks::agent::{Input, Notice, Output, Posted};
use crate::tasks::auth::{ClockOffset, SignedHeaders, Signer};
use crate::tasks::store::Command;
use crate::tasks::wire::{self, Deliver, Envelope, FrameError};
use crate::{AgentId, CloseCode, ConnectionId, Core, Ticket};

/// What an agent connects to, besides the network address, and who it is.
#[derive(Clone)]
pub struct AgentTarget {
    /// The host for the `Host` header, with the port if it is not the default.
    pub host: String,
    /// Who the agent is.
    pub agent: AgentId,
    /// Signs in its name.
    pub signer: Arc<dyn Signer>,
    /// The limits of the WebSocket.
    pub limits: Limits,
    /// How long an HTTP request may take; that of the core's configuration.
    pub request_timeout: std::time::Duration,
}

impl fmt::Debug for AgentTarget {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, agent, signer: _, limits, request_timeout } = self;
        f.debug_struct("AgentTarget")
            .field("host", host)
            .field("agent", agent)
            .field("limits", limits)
            .field("request_timeout", request_timeout)
            .finish_non_exhaustive()
    }
}

/// Talks to a running agent.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    requests: mpsc::Sender<Wanted>,
}

impl AgentHandle {
    /// Begins nothing more, and goes on with what runs; a notice tells when that is over.
    pub async fn drain(&self) {
        // An agent that has ended begins nothing.
        let _ = self.requests.send(Wanted::Drain).await;
    }

    /// Closes the connection, ends what runs, and ends the agent.
    pub async fn stop(&self) {
        // An agent that has ended is stopped.
        let _ = self.requests.send(Wanted::Stop).await;
    }
}

/// An agent: a handle, and the future that runs it until it is stopped or the handle is dropped.
#[expect(clippy::too_many_arguments, reason = "each is one thing that the world gives an agent")]
pub fn agent<C, N, S, E>(
    core: C,
    connector: N,
    target: AgentTarget,
    store: S,
    executor: E,
    wall: Arc<dyn WallClock>,
    entropy: Box<dyn Entropy>,
    notices: Box<dyn FnMut(Notice) + Send>,
) -> (AgentHandle, impl Future<Output = ()> + Send)
where
    C: Core<Input = Input, Output = Output>,
    N: Connector,
    S: Store<Command>,
    E: Executor,
{
    let (requests, inbox) = mpsc::channel(1);
    let driver = Driver {
        core,
        connector: Arc::new(connector),
        store: Transactions::new(store, BATCH_MAX),
        executor,
        wall,
        entropy,
        notices,
        clock: Clock::start(),
        inbox,
        offset: ClockOffset::default(),
        dialing: None,
        socket: None,
        executions: BTreeMap::new(),
        posting: None,
        polling: None,
        stopping: false,
        target,
    };
    (AgentHandle { requests }, driver.run())
}

/// What a handle wants.
#[derive(Debug)]
enum Wanted {
    Drain,
    Stop,
}

/// How many commands are joined to one transaction.
const BATCH_MAX: usize = 256;

type Dialed<S> = Result<WebSocketStream<S>, Refused>;

type Polled = Result<Vec<Deliver>, String>;

struct Driver<C, N: Connector, S, E> {
    core: C,
    connector: Arc<N>,
    target: AgentTarget,
    store: Transactions<Command, S>,
    executor: E,
    wall: Arc<dyn WallClock>,
    entropy: Box<dyn Entropy>,
    notices: Box<dyn FnMut(Notice) + Send>,
    clock: Clock,
    inbox: mpsc::Receiver<Wanted>,
    offset: ClockOffset,
    dialing: Option<(ConnectionId, BoxFuture<'static, Dialed<N::Stream>>)>,
    socket: Option<Open<N::Stream>>,
    executions: BTreeMap<Attempt, Running>,
    posting: Option<(Ticket, BoxFuture<'static, Posted>)>,
    polling: Option<(Ticket, BoxFuture<'static, Polled>)>,
    stopping: bool,
}

struct Open<S> {
    conn: ConnectionId,
    socket: Socket<S>,
    /// Which of the queued frames are pings, oldest first.
    queued: VecDeque<bool>,
}

struct Running {
    events: mpsc::Receiver<ExecutorEvent>,
    kill: Option<oneshot::Sender<()>>,
    listening: bool,
}

enum Event<S> {
    Stop,
    Inputs(Vec<Input>),
    Dialed(Dialed<S>),
    Socket(SocketEvent),
    Executed(Attempt, Option<ExecutorEvent>),
    Posted(Posted),
    Polled(Polled),
    Deadline,
}

impl<C, N, S, E> Driver<C, N, S, E>
where
    C: Core<Input = Input, Output = Output>,
    N: Connector,
    S: Store<Command>,
    E: Executor,
{
    async fn run(mut self) {
        let at = self.wall.wall_time();
        self.feed(Input::Start { at });
        while !self.stopping {
            let event = self.next_event().await;
            self.take(event);
        }
        // Everything that runs is asked to end, and is waited for.
        for (_, mut execution) in std::mem::take(&mut self.executions) {
            drop(execution.kill.take());
            while execution.events.recv().await.is_some() {}
        }
    }

    async fn next_event(&mut self) -> Event<N::Stream> {
        let deadline = self.core.deadline();
        tokio::select! { biased;
            request = self.inbox.recv() => match request {
                Some(Wanted::Drain) => Event::Inputs(vec![Input::Drain]),
                Some(Wanted::Stop) | None => Event::Stop,
            },
            replies = self.store.next() => {
                Event::Inputs(replies.into_iter().map(|(id, it)| Input::Stored(id, it)).collect())
            }
            dialed = ready(&mut self.dialing) => Event::Dialed(dialed),
            posted = ready(&mut self.posting) => Event::Posted(posted),
            polled = ready(&mut self.polling) => Event::Polled(polled),
            // Before what may never end.
            () = self.clock.sleep_until(deadline) => Event::Deadline,
            event = socket_event(&mut self.socket) => Event::Socket(event),
            (attempt, event) = executed(&mut self.executions) => Event::Executed(attempt, event),
        }
    }

    fn take(&mut self, event: Event<N::Stream>) {
        match event {
            Event::Stop => {
                self.stopping = true;
                self.feed(Input::Stop);
            }
            Event::Inputs(inputs) => {
                for input in inputs {
                    self.feed(input);
                }
            }
            Event::Deadline => self.feed(Input::Timeout),
            Event::Dialed(dialed) => {
                let Some((conn, _)) = self.dialing.take() else { return };
                match dialed {
                    Ok(stream) => {
                        let socket = Socket::new(stream, &self.target.limits);
                        self.socket = Some(Open { conn, socket, queued: VecDeque::new() });
                        let at = self.wall.wall_time();
                        self.feed(Input::Opened { conn, at });
                    }
                    Err(Refused { reason, server_time }) => {
                        self.learn(server_time);
                        self.feed(Input::DialFailed { conn, reason });
                    }
                }
            }
            Event::Socket(event) => self.socket_event(event),
            Event::Executed(attempt, event) => self.executed(attempt, event),
            Event::Posted(answer) => {
                if let Some((ticket, _)) = self.posting.take() {
                    self.feed(Input::Posted { ticket, answer });
                }
            }
            Event::Polled(answer) => {
                if let Some((ticket, _)) = self.polling.take() {
                    let at = self.wall.wall_time();
                    self.feed(Input::Polled { ticket, answer, at });
                }
            }
        }
    }

    /// The controller has refused a timestamp and told its time [TK-14].
    fn learn(&mut self, server_time: Option<WallTime>) {
        if let Some(server_time) = server_time {
            self.offset.learn(server_time, self.wall.wall_time());
        }
    }

    fn socket_event(&mut self, event: SocketEvent) {
        let Some(open) = &mut self.socket else { return };
        let conn = open.conn;
        match event {
            SocketEvent::Wrote(frames) => {
                let frames = frames.min(open.queued.len());
                if open.queued.drain(..frames).any(|ping| ping) {
                    self.feed(Input::PingWritten { conn });
                }
            }
            SocketEvent::Text(text) => {
                let at = self.wall.wall_time();
                let input = match wire::parse_controller(&text) {
                    Ok(frame) => Input::Frame { conn, frame, at },
                    Err(error) => Input::Malformed { conn, error },
                };
                self.feed(input);
            }
            SocketEvent::Binary(bytes) => {
                self.feed(Input::Malformed { conn, error: FrameError::binary(bytes.len()) });
            }
            SocketEvent::Alive => self.feed(Input::Alive { conn }),
            SocketEvent::Closed { code } => {
                if let (Some(open), Some(goodbye)) = (self.socket.take(), farewell(code)) {
                    tokio::spawn(open.socket.close(goodbye.0.0, goodbye.1));
                }
                self.feed(Input::Closed { conn, code: code.map(CloseCode) });
            }
        }
    }

    fn executed(&mut self, attempt: Attempt, event: Option<ExecutorEvent>) {
        let input = match event {
            Some(ExecutorEvent::Wrote(stream, data)) => Input::Wrote { attempt, stream, data },
            Some(ExecutorEvent::Exited(exit)) => {
                self.executions.remove(&attempt);
                Input::Exited { attempt, exit }
            }
            None => {
                self.executions.remove(&attempt);
                let exit = crate::tasks::agent::Exit {
                    outcome: crate::tasks::Outcome::Failed,
                    exit_code: -1,
                    error: "the executor lost the command".to_owned(),
                    truncated: vec![],
                };
                Input::Exited { attempt, exit }
            }
        };
        self.feed(input);
    }

    /// One input, and everything that it leads to.
    fn feed(&mut self, input: Input) {
        self.core.handle(self.clock.now(), input);
        while let Some(output) = self.core.poll() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { conn } => {
                let signed = self.sign();
                let (connector, target) = (self.connector.clone(), self.target.clone());
                let dial = async move {
                    let signed = signed?;
                    dial(connector.connect(), &target, &signed).await
                };
                self.dialing = Some((conn, Box::pin(dial)));
            }
            Output::Send { conn, message_id, message, extension } => {
                if let Some(open) = self.socket.as_mut().filter(|open| open.conn == conn) {
                    let agent = self.target.agent.clone();
                    let sent_at = self.wall.wall_time();
                    let envelope = Envelope { message_id, agent, sent_at, message };
                    open.queued.push_back(false);
                    open.socket.queue(envelope.to_bytes(extension));
                }
            }
            Output::Ping { conn } => {
                if let Some(open) = self.socket.as_mut().filter(|open| open.conn == conn) {
                    open.queued.push_back(true);
                    open.socket.queue_ping();
                }
            }
            Output::Close { conn, code, reason } => {
                if self.dialing.as_ref().is_some_and(|(dialing, _)| *dialing == conn) {
                    self.dialing = None;
                }
                if let Some(open) = self.socket.take_if(|open| open.conn == conn) {
                    // Saying goodbye may take a while; the next connection does not wait for it.
                    tokio::spawn(open.socket.close(code.0, reason));
                }
            }
            Output::Store(id, command) => self.store.push(id, command),
            Output::Run { attempt, command } => {
                let Execution { events, kill } = self.executor.start(&attempt, command);
                let running = Running { events, kill: Some(kill), listening: true };
                self.executions.insert(attempt, running);
            }
            Output::Listen { attempt, on } => {
                if let Some(running) = self.executions.get_mut(&attempt) {
                    running.listening = on;
                }
            }
            Output::Kill { attempt } => {
                if let Some(running) = self.executions.get_mut(&attempt) {
                    drop(running.kill.take());
                }
            }
            Output::Post { ticket, message_id, result } => {
                let request = self.request(AgentRequest::post(message_id, &result));
                let connector = self.connector.clone();
                let mut requester = Requester::new(self.target.request_timeout);
                self.posting = Some((
                    ticket,
                    Box::pin(async move {
                        let request = match request {
                            Ok(request) => request,
                            Err(refused) => return Posted::Unknown(refused.reason),
                        };
                        match requester.send(&*connector, request).await {
                            Ok((status, body)) => agent_http::posted(status.as_u16(), &body),
                            Err(
                                RequestError::NotSent(problem) | RequestError::Unknown(problem),
                            ) => Posted::Unknown(problem),
                        }
                    }),
                ));
            }
            Output::Poll { ticket } => {
                let request = self.request(AgentRequest::poll(&self.target.agent));
                let connector = self.connector.clone();
                let mut requester = Requester::new(self.target.request_timeout);
                self.polling = Some((
                    ticket,
                    Box::pin(async move {
                        let request = request.map_err(|refused| refused.reason)?;
                        match requester.send(&*connector, request).await {
                            Ok((status, body)) => agent_http::polled(status.as_u16(), &body),
                            Err(
                                RequestError::NotSent(problem) | RequestError::Unknown(problem),
                            ) => Err(problem),
                        }
                    }),
                ));
            }
            Output::Notify(notice) => (self.notices)(notice),
        }
    }

    fn sign(&mut self) -> Result<SignedHeaders, Refused> {
        let at = self.offset.apply(self.wall.wall_time());
        let AgentTarget { signer, agent, .. } = &self.target;
        SignedHeaders::sign(&**signer, agent, at, &mut *self.entropy)
            .map_err(|error| Refused::unanswered(error.to_string()))
    }

    fn request(&mut self, asked: AgentRequest) -> Result<Request<Full<Bytes>>, Refused> {
        let signed = self.sign()?;
        let mut request = Request::builder()
            .method(asked.method)
            .uri(asked.path)
            .header(HOST, &self.target.host)
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in signed.pairs() {
            request = request.header(name, value);
        }
        request
            .body(Full::new(asked.body.into()))
            .map_err(|error| Refused::unanswered(error.to_string()))
    }
}

async fn dial<S>(
    stream: impl Future<Output = std::io::Result<S>> + Send,
    target: &AgentTarget,
    signed: &SignedHeaders,
) -> Dialed<S>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let other = |error: &dyn fmt::Display| Refused::unanswered(error.to_string());
    let stream = stream.await.map_err(|error| other(&error))?;
    let mut request = format!("ws://{}{WEBSOCKET_PATH}", target.host)
        .into_client_request()
        .map_err(|error| other(&error))?;
    for (name, value) in signed.pairs() {
        let value = HeaderValue::from_str(&value).map_err(|error| other(&error))?;
        request.headers_mut().insert(HeaderName::from_static(name), value);
    }
    match client_async_with_config(request, stream, Some(target.limits.websocket())).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            Err(Refused::by(response.status().as_u16(), body))
        }
        Err(error) => Err(other(&error)),
    }
}

/// Waits for a future that may not be there: then for ever.
async fn ready<K, T>(future: &mut Option<(K, BoxFuture<'static, T>)>) -> T {
    match future {
        Some((_, future)) => future.await,
        None => std::future::pending().await,
    }
}

async fn socket_event<S>(open: &mut Option<Open<S>>) -> SocketEvent
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    match open {
        Some(open) => open.socket.next(true).await,
        None => std::future::pending().await,
    }
}

/// What a command has done, of those whose output is wanted.
async fn executed(executions: &mut BTreeMap<Attempt, Running>) -> (Attempt, Option<ExecutorEvent>) {
    std::future::poll_fn(|cx| {
        for (attempt, running) in executions.iter_mut().filter(|(_, it)| it.listening) {
            if let Poll::Ready(event) = running.events.poll_recv(cx) {
                return Poll::Ready((attempt.clone(), event));
            }
        }
        Poll::Pending
    })
    .await
}
