//! The client's core over sockets.

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;

use super::application::{Application, CursorStore, Handled, Handler, NoticeSink, OpenHandler};
use super::work::Work;
use crate::Core;
use crate::events::client::{DialFailure, HandlerOutcome, Input, Notice, Offer, Output, Position};
use crate::events::wire::{ClientFrame, FrameError, SUBPROTOCOL, ServerFrame};
use crate::events::{CloseCode, ConnectionId, StoreId, Ticket};
use crate::net::{
    BoxFuture, Clock, Connector, Limits, Socket, SocketEvent, WallClock, dial, farewell,
};
use crate::recovery::{Instant, WallTime};

/// What a client connects to, besides the network address.
#[derive(Clone)]
pub struct Target {
    /// The host for the `Host` header, with the port if it is not the default.
    pub host: String,
    /// The token that says whose stream is wanted.
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
    commands: mpsc::Sender<Input>,
}

impl ClientHandle {
    /// How many commands may wait for the client.
    const COMMANDS_MAX: usize = 64;

    /// Sends a frame, usually `subscribe`, on the connection that is open; dropped if none is.
    pub async fn send(&self, frame: ClientFrame) {
        // A client that has ended has nobody to send it to.
        let _ = self.commands.send(Input::Send(frame)).await;
    }

    /// Closes the connection and ends the client.
    pub async fn stop(&self) {
        let _ = self.commands.send(Input::Stop).await;
    }
}

/// A client: a handle, and the future that runs it until it is stopped.
///
/// # Errors
///
/// The future ends with an error if the stored position cannot be read. Nothing is connected
/// then: a client that does not know where it was would lose or repeat events.
pub fn client<C, N>(
    core: C,
    connector: N,
    target: Target,
    wall: Arc<dyn WallClock>,
    application: Application,
) -> (ClientHandle, impl Future<Output = Result<(), String>> + Send)
where
    C: Core<Input = Input, Output = Output>,
    N: Connector,
{
    let (commands, inbox) = mpsc::channel(ClientHandle::COMMANDS_MAX);
    let run = async move {
        let Application { handlers, open_handlers, mut cursor, notices } = application;
        let position = cursor.load().await?;
        let clock = Clock::start();
        let driver = Driver {
            core,
            connector,
            target,
            at: wall.wall_time(),
            wall,
            now: clock.now(),
            clock,
            inbox,
            notices,
            handlers: Some(handlers),
            open_handlers: Some(open_handlers),
            cursor: Some(cursor),
            dialing: None,
            socket: None,
            handling: Work::idle(),
            offers: None,
            opening: Work::idle(),
            saving: Work::idle(),
            save_next: None,
            open_next: None,
            inputs: VecDeque::new(),
            done_at_once: 0,
            stopping: false,
        };
        driver.run(position).await;
        Ok(())
    };
    (ClientHandle { commands }, run)
}

type Handlers = Vec<Box<dyn Handler>>;
/// What was lent to a future comes back with its result.
type HandledBy = (Handlers, Ticket, Vec<HandlerOutcome>);
type Saved = (Box<dyn CursorStore>, StoreId, Result<(), String>);
type OpenHandlers = Vec<Box<dyn OpenHandler>>;
type Dialed<S> = Result<(WebSocketStream<S>, bool), DialFailure>;

struct Driver<C, N: Connector> {
    core: C,
    connector: N,
    target: Target,
    wall: Arc<dyn WallClock>,
    clock: Clock,
    /// The time of this turn, or of what the application has done in it.
    now: Instant,
    /// The wall time of this turn.
    at: WallTime,
    inbox: mpsc::Receiver<Input>,
    notices: NoticeSink,
    // Each of these is here, or inside the future that works with it.
    handlers: Option<Handlers>,
    open_handlers: Option<OpenHandlers>,
    cursor: Option<Box<dyn CursorStore>>,
    dialing: Option<(ConnectionId, BoxFuture<'static, Dialed<N::Stream>>)>,
    socket: Option<Open<N::Stream>>,
    handling: Work<HandledBy>,
    offers: Option<Offer>,
    opening: Work<(OpenHandlers, ConnectionId)>,
    open_next: Option<ConnectionId>,
    saving: Work<Saved>,
    save_next: Option<(StoreId, Position)>,
    /// What the core is to be told before anything else happens.
    inputs: VecDeque<Input>,
    /// How much the application has done at once in this turn.
    done_at_once: usize,
    stopping: bool,
}

/// How many frames are taken in one turn, and how often the application may be done at once in it,
/// before commands and timers get their turn.
const TURN: usize = 32;

struct Open<S> {
    conn: ConnectionId,
    socket: Socket<S>,
    reading: bool,
    /// Which of the queued frames are pings, oldest first.
    queued: VecDeque<bool>,
}

enum Event<S> {
    Command(Option<Input>),
    Handled(HandledBy),
    Ran((OpenHandlers, ConnectionId)),
    Saved(Saved),
    Dialed(Dialed<S>),
    Socket(SocketEvent),
    Deadline,
}

impl<C, N> Driver<C, N>
where
    C: Core<Input = Input, Output = Output>,
    N: Connector,
{
    async fn run(mut self, position: Option<Position>) {
        self.feed(Input::Start { position });
        while !self.stopping || self.saving.is_running() {
            let event = self.next_event().await;
            (self.now, self.at, self.done_at_once) = (self.clock.now(), self.wall.wall_time(), 0);
            let more = matches!(event, Event::Socket(_));
            self.take(event);
            if more {
                self.take_frames();
            }
        }
    }

    /// Takes the frames that are there without being waited for: a look at everything else after each
    /// of them costs more than they do.
    fn take_frames(&mut self) {
        for _ in 1..TURN {
            let Some(event) = socket_event(&mut self.socket).now_or_never() else { return };
            self.socket_event(event);
        }
    }

    async fn next_event(&mut self) -> Event<N::Stream> {
        let deadline = self.core.deadline();
        let is_due = deadline.is_some_and(|deadline| deadline <= self.clock.now());
        tokio::select! { biased;
            command = self.inbox.recv(), if !self.stopping => Event::Command(command),
            handled = self.handling.done() => Event::Handled(handled),
            saved = self.saving.done() => Event::Saved(saved),
            ran = self.opening.done() => Event::Ran(ran),
            dialed = dialed(&mut self.dialing) => Event::Dialed(dialed),
            // Before the socket: timers are due also while frames never end.
            () = std::future::ready(()), if is_due => Event::Deadline,
            event = socket_event(&mut self.socket) => Event::Socket(event),
            // After it: a timer that is armed for each frame costs more than reading one.
            () = self.clock.sleep_until(deadline) => Event::Deadline,
        }
    }

    fn take(&mut self, event: Event<N::Stream>) {
        match event {
            Event::Command(command) => self.feed(command.unwrap_or(Input::Stop)),
            Event::Handled((handlers, ticket, outcomes)) => {
                self.handlers = Some(handlers);
                self.start_handling();
                self.feed(Input::Handled { ticket, outcomes });
            }
            Event::Saved((cursor, id, result)) => {
                self.cursor = Some(cursor);
                self.start_saving();
                self.feed(Input::Stored(id, result));
            }
            Event::Ran((open_handlers, conn)) => {
                self.open_handlers = Some(open_handlers);
                self.start_opening();
                self.feed(Input::OpenHandlersRan { conn });
            }
            Event::Dialed(dialed) => {
                let Some((conn, _)) = self.dialing.take() else { return };
                match dialed {
                    Ok((stream, extension)) => {
                        let socket = Socket::new(stream, &self.target.limits);
                        let queued = VecDeque::new();
                        self.socket = Some(Open { conn, socket, reading: true, queued });
                        self.feed(Input::Opened { conn, extension, at: self.at });
                    }
                    Err(failure) => self.feed(Input::DialFailed { conn, failure }),
                }
            }
            Event::Socket(event) => self.socket_event(event),
            Event::Deadline => self.feed(Input::Timeout),
        }
    }

    fn socket_event(&mut self, event: SocketEvent) {
        let Some(open) = &mut self.socket else { return };
        let conn = open.conn;
        match event {
            SocketEvent::Wrote(frames) => {
                let pings = open.queued.drain(..frames.min(open.queued.len())).any(|ping| ping);
                if pings {
                    self.feed(Input::PingWritten { conn });
                }
            }
            SocketEvent::Text(text) => {
                let input = match ServerFrame::parse(&text) {
                    Ok(frame) => Input::Frame { conn, frame, at: self.at },
                    Err(error) => Input::Malformed { conn, error },
                };
                self.feed(input);
            }
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
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            self.stopping |= matches!(input, Input::Stop);
            self.core.handle(self.now, input);
            while let Some(output) = self.core.poll() {
                self.perform(output);
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { conn, offer_extension } => {
                let (stream, target) = (self.connector.connect(), self.target.clone());
                let subprotocol = offer_extension.then_some(SUBPROTOCOL);
                let dial = async move {
                    let place = format!("{}/v1/ws", target.host);
                    dial(stream, &place, &target.token, subprotocol, &target.limits).await
                };
                self.dialing = Some((conn, Box::pin(dial)));
            }
            Output::Send { conn, frame } => {
                if let Some(open) = self.socket.as_mut().filter(|open| open.conn == conn) {
                    open.queued.push_back(matches!(frame, ClientFrame::Ping));
                    open.socket.queue(frame.to_text().into());
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
            Output::Read { conn, on } => {
                if let Some(open) = self.socket.as_mut().filter(|open| open.conn == conn) {
                    open.reading = on;
                }
            }
            Output::Offer(offer) => {
                self.offers = Some(offer);
                self.start_handling();
            }
            Output::Store(id, position) => {
                self.save_next = Some((id, position));
                self.start_saving();
            }
            Output::Notify(notice) => {
                if let Notice::Opened { conn } = &notice {
                    self.open_next = Some(*conn);
                    self.start_opening();
                }
                (self.notices)(notice);
            }
        }
    }

    fn start_handling(&mut self) {
        if !self.handling.is_running()
            && let Some(offer) = self.offers.take()
            && let Some(mut handlers) = self.handlers.take()
        {
            self.handling.begin(async move {
                let mut outcomes = Vec::with_capacity(offer.handlers.len());
                for handler in &*offer.handlers {
                    outcomes.push(offer_to(handlers.get_mut(*handler), &offer).await);
                }
                (handlers, offer.ticket, outcomes)
            });
            if let Some((handlers, ticket, outcomes)) = self.at_once(|it| &mut it.handling) {
                self.handlers = Some(handlers);
                self.inputs.push_back(Input::Handled { ticket, outcomes });
            }
        }
    }

    fn start_saving(&mut self) {
        if !self.saving.is_running()
            && let Some((id, position)) = self.save_next.take()
            && let Some(mut cursor) = self.cursor.take()
        {
            self.saving.begin(async move {
                let result = cursor.save(position).await;
                (cursor, id, result)
            });
            if let Some((cursor, id, result)) = self.at_once(|it| &mut it.saving) {
                self.cursor = Some(cursor);
                self.inputs.push_back(Input::Stored(id, result));
            }
        }
    }

    fn start_opening(&mut self) {
        if !self.opening.is_running()
            && let Some(conn) = self.open_next.take()
            && let Some(mut open_handlers) = self.open_handlers.take()
        {
            self.opening.begin(async move {
                for handler in &mut open_handlers {
                    let opened = AssertUnwindSafe(handler.opened()).catch_unwind().await;
                    if !matches!(opened, Ok(Ok(()))) {
                        tracing::warn!("an open handler failed; resync goes on without it");
                    }
                }
                (open_handlers, conn)
            });
        }
    }

    /// The result of what has just been begun, if it needs no waiting.
    fn at_once<T>(&mut self, work: impl FnOnce(&mut Self) -> &mut Work<T>) -> Option<T> {
        if self.done_at_once == TURN {
            return None;
        }
        self.done_at_once += 1;
        let result = work(self).done_at_once();
        // It may have taken its time.
        self.now = self.clock.now();
        result
    }
}

/// Offers an event to one handler. One that panics has failed, like one that says so; the others
/// still run.
async fn offer_to(handler: Option<&mut Box<dyn Handler>>, offer: &Offer) -> HandlerOutcome {
    let Some(handler) = handler else {
        return HandlerOutcome::Failed("the application has no such handler".to_owned());
    };
    match AssertUnwindSafe(handler.handle(offer)).catch_unwind().await {
        Ok(Ok(Handled::Done)) => HandlerOutcome::Done,
        Ok(Ok(Handled::Stored)) => HandlerOutcome::DoneAndStored,
        Ok(Err(error)) => HandlerOutcome::Failed(error.0),
        Err(_) => HandlerOutcome::Failed("the handler panicked".to_owned()),
    }
}

/// Waits for a connection that is being opened; for ever if none is.
async fn dialed<T>(dialing: &mut Option<(ConnectionId, BoxFuture<'static, T>)>) -> T {
    match dialing {
        Some((_, dialing)) => dialing.await,
        None => std::future::pending().await,
    }
}

async fn socket_event<S>(open: &mut Option<Open<S>>) -> SocketEvent
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    match open {
        Some(open) => open.socket.next(open.reading).await,
        None => std::future::pending().await,
    }
}
