//! What a client that does not read costs a server, over real sockets: a bounded queue, until it is
//! closed with the code of the specification. Others go on.
#![cfg(all(feature = "net", feature = "rsa", feature = "sqlite"))]

mod session_support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use gapless::database::Synchronous;
use gapless::events::driver as events;
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::events::wire::EventBody;
use gapless::net::http::{self, HttpConfig, Service};
use gapless::net::{BoxFuture, Limits, SystemClock, Tokens, WallClock as _};
use gapless::recovery::{BackoffConfig, Instant};
use gapless::session::conversation::{Ending, Saying};
use gapless::session::driver as session;
use gapless::session::server::{ShowAll, Work};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations};
use gapless::storage::Threaded;
use gapless::tasks::auth::{RsaKeys, RsaSigner, SignedHeaders};
use gapless::tasks::controller::record::{Command, Submission};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::driver as tasks;
use gapless::tasks::wire::ControllerMessage;
use gapless::tasks::{TaskId, controller};
use gapless::{
    AgentId, CloseCode, ConnectionId, Core, events as events_protocol, session as sessions,
};
use serde_json::{Value, json};
use session_support::{PATIENCE, SOON, entropy};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// How long a socket may take nothing in these tests.
const WRITE_STALL: Duration = Duration::from_millis(500);

/// More than two sockets hold: the buffers of the kernel grow to 6 MiB and 4 MiB.
const MUCH: usize = 24 << 20;

/// A text in a frame, in bytes: under every limit of an event, of a text and of a command.
const PIECE: usize = 60_000;

// ---- what a server holds --------------------------------------------------------------------------

/// What was handed out for a connection's socket, and has not left.
#[derive(Debug, Default)]
struct Held {
    queued: BTreeMap<ConnectionId, VecDeque<usize>>,
    frames_max: usize,
    bytes_max: usize,
    closed: Vec<(ConnectionId, CloseCode)>,
}

#[derive(Debug, Clone, Default)]
struct Book(Arc<Mutex<Held>>);

impl Book {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().expect("no panic")
    }

    async fn closed(&self) -> CloseCode {
        let closed = async {
            loop {
                if let Some((_, code)) = self.held().closed.first() {
                    return *code;
                }
                tokio::time::sleep(SOON).await;
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.expect("it is closed")
    }
}

/// What matters of an output or an input.
enum Seen {
    Sent(ConnectionId, usize),
    Closed(ConnectionId, CloseCode),
    Written(ConnectionId, usize),
    Else,
}

/// A core, and the book of what it has handed out.
struct Watched<C: Core> {
    core: C,
    book: Book,
    output: fn(&C::Output) -> Seen,
    input: fn(&C::Input) -> Seen,
}

impl<C: Core> Watched<C> {
    fn saw(&self, seen: &Seen) {
        let mut held = self.book.held();
        match seen {
            Seen::Sent(conn, bytes) => {
                let queue = held.queued.entry(*conn).or_default();
                queue.push_back(*bytes);
                let (frames, bytes) = (queue.len(), queue.iter().sum());
                held.frames_max = held.frames_max.max(frames);
                held.bytes_max = held.bytes_max.max(bytes);
            }
            Seen::Written(conn, frames) => {
                if let Some(queue) = held.queued.get_mut(conn) {
                    queue.drain(..*frames);
                }
            }
            Seen::Closed(conn, code) => held.closed.push((*conn, *code)),
            Seen::Else => {}
        }
    }
}

impl<C: Core> Core for Watched<C> {
    type Input = C::Input;
    type Output = C::Output;

    fn handle(&mut self, now: Instant, input: C::Input) {
        self.saw(&(self.input)(&input));
        self.core.handle(now, input);
    }

    fn poll(&mut self) -> Option<C::Output> {
        let output = self.core.poll()?;
        self.saw(&(self.output)(&output));
        Some(output)
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }
}

// ---- sockets ----------------------------------------------------------------------------------------

type Socket = WebSocketStream<tokio::net::TcpStream>;

/// Serves, and tells the port.
async fn serve(service: impl Service) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(http::serve(listener, service, HttpConfig::default(), std::future::pending()));
    port
}

/// A goodbye may take as long as the peer does.
fn limits() -> Limits {
    Limits { close_timeout: PATIENCE, ..Limits::default() }
}

/// A WebSocket with small buffers.
async fn connect(port: u16, path: &str, headers: &[(&str, String)]) -> Socket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(32 << 10).expect("it has one");
    let stream = socket.connect(([127, 0, 0, 1], port).into()).await.expect("it listens");
    let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request().expect("a URL");
    let bearer = ("authorization", "Bearer secret".to_owned());
    for (name, value) in headers.iter().chain([&bearer]) {
        let name: hyper::header::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    tokio_tungstenite::client_async(request, stream).await.expect("a WebSocket").0
}

async fn say(socket: &mut Socket, text: String) {
    socket.send(Message::text(text)).await.expect("it is taken");
}

/// The next frame.
async fn hear(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("it comes");
        match message.expect("it goes on").expect("a frame") {
            Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn hear_of(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let frame = hear(socket).await;
        if frame["type"] == kind {
            return frame;
        }
    }
}

/// Reads at last: the code of the close frame behind all that came before.
async fn read_to_the_end(socket: &mut Socket) -> u16 {
    let read = async {
        while let Some(message) = socket.next().await {
            if let Ok(Message::Close(frame)) = message {
                return frame.expect("it has a code").code.into();
            }
        }
        panic!("there is no close frame")
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it ends")
}

/// The slow one is closed, alone, and no more was ever held for a connection than a window of so many
/// frames and bytes, and what is on its way.
async fn costs_a_window_and_is_closed(book: &Book, window: (usize, usize), slow: &mut Socket) {
    assert_eq!(book.closed().await, CloseCode::RESUME);
    assert_eq!(book.held().closed.len(), 1, "the other one goes on");
    {
        let held = book.held();
        let (frames, bytes) = (window.0 + 64, window.1 + 2 * PIECE);
        assert!(held.frames_max <= frames, "{} of {frames} frames", held.frames_max);
        assert!(held.bytes_max <= bytes, "{} of {bytes} bytes", held.bytes_max);
    }
    assert_eq!(read_to_the_end(slow).await, 4001);
}

// ---- events -----------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_costs_a_window_and_is_closed_with_4001() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut log = LogConfig::new(folder.path().join("events.db"));
    log.synchronous = Synchronous::Normal;
    let config = events_protocol::server::ServerConfig {
        write_stall: WRITE_STALL,
        ..events_protocol::server::ServerConfig::default()
    };
    let window = (config.window_frames, config.window_bytes);
    let (extension, event_bytes_max) = (config.extension, config.event_bytes_max);
    let book = Book::default();
    let core = Watched {
        core: events_protocol::server::Server::new(config, entropy()),
        book: book.clone(),
        output: |output| match output {
            events_protocol::server::Output::Send { conn, frame } => {
                Seen::Sent(*conn, frame.to_bytes().len())
            }
            events_protocol::server::Output::Close { conn, code, .. } => Seen::Closed(*conn, *code),
            _ => Seen::Else,
        },
        input: |input| match input {
            events_protocol::server::Input::Written { conn, frames } => {
                Seen::Written(*conn, *frames)
            }
            _ => Seen::Else,
        },
    };
    let store = Threaded::spawn(SqliteLog::open(log).expect("a log")).expect("a thread");
    let wall = Arc::new(SystemClock);
    let (handle, task) =
        events::server(core, store, wall.clone(), events::ServerTaskConfig::default());
    tokio::spawn(task);
    let agent = AgentId::parse("agent-1").expect("valid");
    let access = Arc::new(Tokens::default().subscriber("secret", agent.clone()));
    let service = events::EventService::new(
        handle.clone(),
        access,
        wall,
        limits(),
        extension,
        event_bytes_max,
    );
    let port = serve(service).await;

    let mut slow = connect(port, "/v1/ws", &[]).await;
    let mut quick = connect(port, "/v1/ws", &[]).await;
    let resync = r#"{"type":"resync","last_seen_seq":0}"#.to_owned();
    for socket in [&mut slow, &mut quick] {
        say(socket, resync.clone()).await;
        hear_of(socket, "resync_ack").await;
    }
    let count = (MUCH / PIECE) as u64;
    let publish = async {
        let payload = serde_json::value::to_raw_value(&json!({"text": "x".repeat(PIECE)}));
        let payload = payload.expect("JSON");
        for _ in 0..count {
            let body = EventBody::new(None, "note", &payload, event_bytes_max).expect("an event");
            handle.publish("p".to_owned(), agent.clone(), body, None).await.expect("it is stored");
        }
    };
    let read = async {
        for sequence in 1..=count {
            assert_eq!(hear(&mut quick).await["agent_seq"], sequence);
        }
    };
    tokio::join!(publish, read);
    costs_a_window_and_is_closed(&book, window, &mut slow).await;
}

// ---- session ----------------------------------------------------------------------------------------

/// Says as much as it has permits for.
struct Talkative(Arc<Semaphore>);

impl session::Application for Talkative {
    fn turn(&self, _: Work, mut speaker: session::Speaker) -> BoxFuture<'static, Ending> {
        let permits = self.0.clone();
        Box::pin(async move {
            while let Ok(permit) = permits.acquire().await {
                permit.forget();
                let text = "x".repeat(PIECE);
                let saying = Saying { text, model: "m".to_owned(), usage: None };
                if speaker.say(saying).await.is_err() {
                    break;
                }
            }
            Ending::Done
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_session_that_does_not_read_costs_a_window_and_is_closed_with_4001() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sessions.db");
    let stored = ConversationsConfig { synchronous: Synchronous::Normal, ..Default::default() };
    let store = SqliteConversations::open(&path, &stored).expect("a store");
    let config = sessions::server::ServerConfig {
        write_stall: WRITE_STALL,
        ..sessions::server::ServerConfig::default()
    };
    let window = (config.window_frames, config.window_bytes);
    let extension = config.extension;
    let book = Book::default();
    let core = Watched {
        core: sessions::server::Server::new(config, Box::new(ShowAll), entropy()),
        book: book.clone(),
        output: |output| match output {
            sessions::server::Output::Send { conn, frame } => {
                Seen::Sent(*conn, frame.to_text(true).len())
            }
            sessions::server::Output::Close { conn, code, .. } => Seen::Closed(*conn, *code),
            _ => Seen::Else,
        },
        input: |input| match input {
            sessions::server::Input::Written { conn, frames } => Seen::Written(*conn, *frames),
            _ => Seen::Else,
        },
    };
    let permits = Arc::new(Semaphore::new(0));
    let (handle, task) = session::server(
        core,
        Threaded::spawn(store).expect("a thread"),
        Arc::new(Talkative(permits.clone())),
        session::ServerTaskConfig::default(),
    );
    tokio::spawn(task);
    let access = Arc::new(Tokens::default().user("secret", "somebody"));
    let port = serve(session::SessionService::new(handle, access, limits(), extension)).await;

    let mut slow = connect(port, "/ws?client_id=slow", &[]).await;
    let mut quick = connect(port, "/ws?client_id=quick", &[]).await;
    for socket in [&mut slow, &mut quick] {
        hear_of(socket, "session_history").await;
    }
    let input = json!({"type": "user_message", "text": "talk", "client_msg_id": "m1"});
    say(&mut quick, input.to_string()).await;
    for _ in 0..MUCH / PIECE {
        // One by one, so that the other client keeps up.
        permits.add_permits(1);
        hear_of(&mut quick, "assistant_message").await;
    }
    costs_a_window_and_is_closed(&book, window, &mut slow).await;
}

// ---- tasks ------------------------------------------------------------------------------------------

/// A frame of an agent.
fn envelope(agent: &str, message_id: &str, kind: &str, rest: &str, payload: &str) -> String {
    format!(
        r#"{{"protocol_version":1,"message_id":"{message_id}","type":"{kind}","agent_id":"{agent}",{rest}"sent_at":"2025-11-21T04:40:00.000Z","payload":{payload}}}"#
    )
}

/// A controller whose agents all have the same key.
struct Controller {
    _folder: tempfile::TempDir,
    port: u16,
    handle: tasks::ControllerHandle,
    book: Book,
}

impl Controller {
    async fn start(config: controller::ControllerConfig) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut record = RecordConfig::new(folder.path().join("controller.db"));
        record.synchronous = Synchronous::Normal;
        let book = Book::default();
        let core = Watched {
            core: controller::Controller::new(config, entropy()),
            book: book.clone(),
            output: |output| match output {
                controller::Output::Send { conn, message, .. } => {
                    let bytes = match message {
                        ControllerMessage::Deliver(deliver) => deliver.command.len(),
                        _ => 256,
                    };
                    Seen::Sent(*conn, bytes)
                }
                controller::Output::Close { conn, code, .. } => Seen::Closed(*conn, *code),
                _ => Seen::Else,
            },
            input: |input| match input {
                controller::Input::Written { conn, frames } => Seen::Written(*conn, *frames),
                _ => Seen::Else,
            },
        };
        let record = SqliteRecord::open(record).expect("a record");
        let wall = Arc::new(SystemClock);
        let (handle, task) = tasks::controller(
            core,
            Threaded::spawn(record).expect("a thread"),
            wall.clone(),
            Box::new(|_| {}),
            tasks::ControllerTaskConfig::default(),
        );
        tokio::spawn(task);
        let key = || include_bytes!("keys/agent.pub").to_vec();
        let keys = RsaKeys::default().with(named("slow"), key()).with(named("quick"), key());
        let access = Arc::new(Tokens::default());
        let service =
            tasks::ControllerService::new(handle.clone(), access, Arc::new(keys), wall, limits());
        Self { _folder: folder, port: serve(service).await, handle, book }
    }

    /// An agent that has said hello.
    async fn agent(&self, name: &str) -> Socket {
        let signer = RsaSigner::from_pkcs8(include_bytes!("keys/agent.pk8")).expect("a key");
        let at = SystemClock.wall_time();
        let signed =
            SignedHeaders::sign(&signer, &named(name), at, &mut *entropy()).expect("it signs");
        let mut socket = connect(self.port, "/api/v1/agents/ws", &signed.pairs()).await;
        let hello = r#"{"running_task":null,"received_not_started":[],"unacked_finals":[],"unacked_output":[],"spool_status":{"bytes_used":0,"byte_cap":1},"client_version":"v"}"#;
        say(&mut socket, envelope(name, "hello", "agent.hello", "", hello)).await;
        hear_of(&mut socket, "agent.hello_ack").await;
        socket
    }

    async fn submit(&self, agent: &str, task: &str, bytes: usize) {
        let submission = Submission {
            task: TaskId::parse(task).expect("valid"),
            principal: "p".to_owned(),
            agent: named(agent),
            command: "x".repeat(bytes),
            priority: 0,
        };
        self.handle.ask(Command::Submit(submission)).await.expect("it is stored");
    }
}

fn named(name: &str) -> AgentId {
    AgentId::parse(name).expect("valid")
}

fn config() -> controller::ControllerConfig {
    let (min, max) = (Duration::from_millis(20), Duration::from_millis(20));
    controller::ControllerConfig {
        // Each round of deliveries is some MiB.
        redelivery: BackoffConfig { min, max, jitter_percent: 0 },
        write_stall: WRITE_STALL,
        ..controller::ControllerConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_read_costs_a_window_and_is_closed_with_4001() {
    let config = config();
    let (outbound_bytes, outbound_max) = (config.outbound_bytes, config.outbound_max);
    let controller = Controller::start(config).await;
    let mut slow = controller.agent("slow").await;
    let mut quick = controller.agent("quick").await;
    for n in 0..64 {
        controller.submit("slow", &format!("slow-{n}"), PIECE).await;
    }
    let mut served = 0;
    while controller.book.held().closed.is_empty() {
        controller.submit("quick", &format!("quick-{served}"), 10).await;
        let deliver = hear_of(&mut quick, "task.deliver").await;
        let attempt = deliver["execution_attempt_id"].as_str().expect("a name");
        let rest = format!(r#""task_id":"quick-{served}","execution_attempt_id":"{attempt}","#);
        say(&mut quick, envelope("quick", "r", "task.received", &rest, "{}")).await;
        hear_of(&mut quick, "ack").await;
        served += 1;
    }
    assert!(served > 1, "the other one is served meanwhile");
    assert_eq!(controller.book.closed().await, CloseCode::RESUME);
    {
        let held = controller.book.held();
        assert_eq!(held.closed.len(), 1, "the other one goes on");
        let bytes = outbound_bytes + 2 * PIECE;
        assert!(held.frames_max <= outbound_max, "{}", held.frames_max);
        assert!(held.bytes_max <= bytes, "{} of {bytes} bytes", held.bytes_max);
    }
    assert_eq!(read_to_the_end(&mut slow).await, 4001);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_asks_and_asks_and_does_not_read_is_closed_with_4004() {
    let config = controller::ControllerConfig { outbound_max: 100, ..config() };
    let controller = Controller::start(config).await;
    let slow = controller.agent("slow").await;
    let (mut asking, mut reading) = slow.split();
    // Of an unknown type, so that it is answered at once.
    let question = envelope("slow", "bad", "task.dance", "", "{}");
    let ask = async {
        while controller.book.held().closed.is_empty() {
            // It may be closed meanwhile.
            if asking.send(Message::text(question.clone())).await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.expect("it is closed");
    assert_eq!(controller.book.closed().await, CloseCode::PROTOCOL);
    assert_eq!(controller.book.held().frames_max, 100);
    let code = async {
        while let Some(message) = reading.next().await {
            if let Ok(Message::Close(frame)) = message {
                return frame.map(|frame| u16::from(frame.code));
            }
        }
        None
    };
    let code = tokio::time::timeout(PATIENCE, code).await.expect("it ends");
    assert_eq!(code, Some(4004));
}
