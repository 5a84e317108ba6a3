//! The client's core over sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::WebSocketStream;

use crate::Core;
use crate::net::{
    BoxFuture, Clock, Connector, Limits, Socket, SocketEvent, Transactions, dial, farewell, http,
};
use crate::session::client::{Input, Output, Resume, Submission, SubmitError};
use crate::session::in_flight::{Command, Kept};
use crate::session::view::View;
use crate::session::wire::{FrameError, SUBPROTOCOL, ServerFrame};
use crate::session::{CloseCode, ConnectionId, DialFailure, Name, Ticket};
use crate::storage::Store;

/// What a client connects to, besides the network address.
#[derive(Clone)]
pub struct Target {
    /// The host for the `Host` header, with the port if it is not the default.
    pub host: String,
    /// The token that says whose conversation is wanted.
    pub token: String,
    /// The limits of the WebSocket.
    pub limits: Limits,
}

impl fmt::Debug for Target {
    /// Without the token, so that it does not end up in a log [CORE-14].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, token: _, limits } = self;
        f.debug_struct("Target").field("host", host).field("limits", limits).finish_non_exhaustive()
    }
}

impl Target {
    /// A target with the default limits.
    pub fn new(host: impl Into<String>, token: impl Into<String>) -> Self {
        Self { host: host.into(), token: token.into(), limits: Limits::default() }
    }
}

/// Talks to a running client.
#[derive(Debug, Clone)]
pub struct ClientHandle {
    requests: mpsc::Sender<ClientRequest>,
    view: watch::Receiver<Arc<View>>,
}

#[derive(Debug)]
enum ClientRequest {
    Submit { what: Submission, answer: oneshot::Sender<Result<Name, SubmitError>> },
    Reconnect,
    Stop,
}

impl ClientHandle {
    /// How many requests may wait for the client.
    const REQUESTS_MAX: usize = 64;

    /// The newest view, and each one that follows.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Says something, and returns its id when it is taken: it is in the view then. What becomes
    /// of it is told by the view.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]
    pub async fn submit(&self, what: Submission) -> Result<Name, SubmitError> {
        let (answer, submitted) = oneshot::channel();
        let request = ClientRequest::Submit { what, answer };
        self.requests.send(request).await.map_err(|_| SubmitError::Stopped)?;
        submitted.await.unwrap_or(Err(SubmitError::Stopped))
    }

    /// Connects now, also after the connection was superseded.
    pub async fn reconnect(&self) {
        // A client that has ended stays so.
        let _ = self.requests.send(ClientRequest::Reconnect).await;
    }

    /// Closes the connection and ends the client.
    pub async fn stop(&self) {
        let _ = self.requests.send(ClientRequest::Stop).await;
    }
}

/// A client: a handle, and the future that runs it until it is stopped or the last handle is
/// dropped. `kept` is what the store had when it was opened.
pub fn client<C, N, S>(
    core: C,
    connector: N,
    target: Target,
    store: S,
    kept: Kept,
) -> (ClientHandle, impl Future<Output = ()> + Send)
where
    C: Core<Input = Input, Output = Output>,
    N: Connector,
    S: Store<Command>,
{
    let (requests, inbox) = mpsc::channel(ClientHandle::REQUESTS_MAX);
    let (show, view) = watch::channel(Arc::default());
    let driver = Driver {
        core,
        connector,
        target,
        name: kept.client,
        store: Transactions::new(store, BATCH_MAX),
        clock: Clock::start(),
        inbox,
        show,
        dialing: None,
        socket: None,
        submitters: BTreeMap::new(),
        tickets: 0,
        stopping: false,
    };
    (ClientHandle { requests, view }, driver.run(kept.in_flight))
}

/// How many commands are joined to one transaction.
const BATCH_MAX: usize = 64;

type Dialed<S> = Result<(WebSocketStream<S>, bool), DialFailure>;

struct Driver<C, N: Connector, S> {
    core: C,
    connector: N,
    target: Target,
    name: Name,
    store: Transactions<Command, S>,
    clock: Clock,
    inbox: mpsc::Receiver<ClientRequest>,
    show: watch::Sender<Arc<View>>,
    dialing: Option<(ConnectionId, BoxFuture<'static, Dialed<N::Stream>>)>,
    socket: Option<Open<N::Stream>>,
    submitters: BTreeMap<Ticket, oneshot::Sender<Result<Name, SubmitError>>>,
    tickets: u64,
    stopping: bool,
}

struct Open<S> {
    conn: ConnectionId,
    extension: bool,
    socket: Socket<S>,
}

enum Event<S> {
    Request(ClientRequest),
    Inputs(Vec<Input>),
    Dialed(Box<Dialed<S>>),
    Socket(SocketEvent),
    Deadline,
}

impl<C, N, S> Driver<C, N, S>
where
    C: Core<Input = Input, Output = Output>,
    N: Connector,
    S: Store<Command>,
{
    async fn run(mut self, in_flight: Vec<crate::session::conversation::Input>) {
        self.feed(Input::Start { in_flight });
        // What the user said is kept before the client ends.
        while !self.stopping || !self.store.is_idle() {
            let event = self.next_event().await;
            self.take(event);
        }
    }

    async fn next_event(&mut self) -> Event<N::Stream> {
        let deadline = self.core.deadline();
        tokio::select! { biased;
            request = self.inbox.recv(), if !self.stopping => {
                Event::Request(request.unwrap_or(ClientRequest::Stop))
            }
            replies = self.store.next() => {
                Event::Inputs(replies.into_iter().map(|(id, it)| Input::Stored(id, it)).collect())
            }
            dialed = dialed(&mut self.dialing) => Event::Dialed(Box::new(dialed)),
            // Before the socket: timers are due also while frames never end.
            () = self.clock.sleep_until(deadline) => Event::Deadline,
            event = socket_event(&mut self.socket) => Event::Socket(event),
        }
    }

    fn take(&mut self, event: Event<N::Stream>) {
        match event {
            Event::Request(ClientRequest::Submit { what, answer }) => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.submitters.insert(ticket, answer);
                self.feed(Input::Submit { ticket, what });
            }
            Event::Request(ClientRequest::Reconnect) => self.feed(Input::Reconnect),
            Event::Request(ClientRequest::Stop) => {
                self.stopping = true;
                self.feed(Input::Stop);
            }
            Event::Inputs(inputs) => {
                for input in inputs {
                    self.feed(input);
                }
            }
            Event::Dialed(dialed) => {
                let Some((conn, _)) = self.dialing.take() else { return };
                match *dialed {
                    Ok((stream, extension)) => {
                        let socket = Socket::new(stream, &self.target.limits);
                        self.socket = Some(Open { conn, extension, socket });
                        self.feed(Input::Opened { conn, extension });
                    }
                    Err(failure) => self.feed(Input::DialFailed { conn, failure }),
                }
            }
            Event::Socket(event) => self.socket_event(event),
            Event::Deadline => self.feed(Input::Timeout),
        }
    }

    fn socket_event(&mut self, event: SocketEvent) {
        let Some(open) = &self.socket else { return };
        let conn = open.conn;
        match event {
            SocketEvent::Wrote(_) => {}
            SocketEvent::Text(text) => self.feed(match ServerFrame::parse(&text) {
                Ok(frame) => Input::Frame { conn, frame },
                Err(error) => Input::Malformed { conn, error },
            }),
            SocketEvent::Binary(bytes) => {
                let error =
                    FrameError::NotAnObject(format!("a binary frame of {} bytes", bytes.len()));
                self.feed(Input::Malformed { conn, error });
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

    /// One input, and everything that it leads to.
    fn feed(&mut self, input: Input) {
        self.core.handle(self.clock.now(), input);
        while let Some(output) = self.core.poll() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { conn, offer_extension, resume } => {
                let (stream, target) = (self.connector.connect(), self.target.clone());
                let subprotocol = offer_extension.then_some(SUBPROTOCOL);
                let place = place(&target.host, &self.name, offer_extension, &resume);
                let dial = async move {
                    dial(stream, &place, &target.token, subprotocol, &target.limits).await
                };
                self.dialing = Some((conn, Box::pin(dial)));
            }
            Output::Send { conn, frame } => {
                if let Some(open) = self.socket.as_mut().filter(|open| open.conn == conn) {
                    open.socket.queue(frame.to_text(open.extension).into());
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
            Output::Submitted { ticket, result } => {
                if let Some(answer) = self.submitters.remove(&ticket) {
                    // What becomes of it is in the view, whether somebody waits or not.
                    let _ = answer.send(result);
                }
            }
            Output::Show(view) => {
                self.show.send_replace(view);
            }
        }
    }
}

/// Where to connect, and what the client says about itself there. The token is no part of it.
fn place(host: &str, client: &Name, extension: bool, resume: &Resume) -> String {
    let Resume { since, epoch, view, attempt } = resume;
    let mut place = format!("{host}/ws?client_id={}&since={since}", http::escape(client.as_str()));
    if extension {
        if let Some(epoch) = epoch {
            place += &format!("&epoch={}", http::escape(epoch.as_str()));
        }
        place += &format!("&view={}&attempt={attempt}", http::escape(view));
    }
    place
}

/// Waits for a connection that may not be under way: then for ever.
async fn dialed<S>(
    dialing: &mut Option<(ConnectionId, BoxFuture<'static, Dialed<S>>)>,
) -> Dialed<S> {
    match dialing {
        Some((_, dialed)) => dialed.await,
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
