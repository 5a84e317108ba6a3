//! What becomes of bytes that no peer should send, at each of the six endpoints, over real sockets:
//! ignored, answered with an error frame, or the close code of the specification [CORE-13].
#![cfg(all(feature = "net", feature = "rsa", feature = "sqlite"))]

mod session_support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use gapless::events::client::{Client, ClientConfig};
use gapless::events::driver::{self as events, Application, Handled, handler_fn};
use gapless::events::server::{Server, ServerConfig};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::net::http::{self, HttpConfig};
use gapless::net::{Limits, SystemClock, TcpConnector, Tokens, WallClock as _};
use gapless::recovery::BackoffConfig;
use gapless::session::driver as session;
use gapless::session::sqlite::SqliteInFlight;
use gapless::storage::{Inline, Threaded};
use gapless::tasks::agent::{Agent, AgentConfig};
use gapless::tasks::auth::{RsaKeys, RsaSigner, SignedHeaders};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::controller::{Controller, ControllerConfig};
use gapless::tasks::driver::{
    self as tasks, AgentTarget, ControllerService, ControllerTaskConfig, ProcessExecutor,
};
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::{AgentId, session as session_protocol};
use serde_json::{Value, json};
use session_support::{Host, PATIENCE, entropy};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// The largest message of the specification, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

// ---- what is sent -------------------------------------------------------------------------------

/// What is no frame of any protocol.
fn no_frames() -> Vec<(&'static str, Message)> {
    let deep = format!(r#"{{"type":"dance","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let mut frames = vec![
        ("binary", Message::Binary(br#"{"type":"ping"}"#.as_slice().into())),
        ("binary, and no UTF-8", Message::Binary([0xff, 0, 0xc3].as_slice().into())),
        ("deep nesting", Message::text(deep)),
        ("deep nesting alone", Message::text("[".repeat(100_000))),
    ];
    for (kind, text) in [
        ("nothing", ""),
        ("no JSON", "hello"),
        ("JSON without an end", r#"{"type":"ping""#),
        ("JSON with more behind it", r#"{"type":"ping"} {"type":"ping"}"#),
        ("a list", r#"["ping"]"#),
        ("an empty list", "[]"),
        ("a text", r#""ping""#),
        ("a number", "4"),
        ("null", "null"),
        ("no type", "{}"),
        ("a type that is a number", r#"{"type":7}"#),
        ("a type that is null", r#"{"type":null}"#),
        ("a type that is a list", r#"{"type":["ping"]}"#),
        ("two types", r#"{"type":"ping","type":"pong"}"#),
        ("an unknown type", r#"{"type":"dance"}"#),
        ("NUL", "{\"type\":\"pi\0ng\"}"),
        ("NUL, escaped", r#"{"type":"ping\u0000"}"#),
        ("half of a code point", r#"{"type":"\ud800"}"#),
        ("a mark of byte order", "\u{feff}{\"type\":\"ping\"}"),
        ("letters that look like others", r#"{"type":"рing"}"#),
        ("single quotes", "{'type':'ping'}"),
        ("a number that is none", r#"{"type":"ping","n":NaN}"#),
        ("a number without an end", r#"{"type":"ping","n":1e999999}"#),
    ] {
        frames.push((kind, Message::text(text)));
    }
    frames
}

fn texts(list: &[(&'static str, &'static str)]) -> Vec<(&'static str, Message)> {
    list.iter().map(|(kind, text)| (*kind, Message::text(*text))).collect()
}

/// What breaks WebSocket or its limits.
enum Broken {
    Frame(Message),
    /// The header of a text frame with so many bytes. They do not follow: who closes a connection on
    /// which something is still to be read resets it, and the code may be lost.
    Announced(usize),
}

/// What breaks WebSocket or its limits, and the code with which the connection is closed.
fn broken() -> Vec<(&'static str, Broken, u16)> {
    let raw = |bytes: &'static [u8], data| {
        Broken::Frame(Message::Frame(Frame::message(bytes, OpCode::Data(data), true)))
    };
    vec![
        ("a message over the limit", Broken::Announced(MESSAGE_BYTES_MAX + 1), 1009),
        ("a text that is no UTF-8", raw(b"{\"type\":\"pi\xffng\"}", Data::Text), 1007),
        ("a frame of a kind that is not in use", raw(b"{}", Data::Reserved(3)), 1002),
    ]
}

// ---- a peer -------------------------------------------------------------------------------------

/// The other end of an endpoint's socket.
struct Peer(WebSocketStream<TcpStream>, Side);

/// Which end of a connection a peer is. What a client sends is masked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Peer {
    async fn break_with(&mut self, broken: Broken) {
        match broken {
            Broken::Frame(message) => self.say(message).await,
            Broken::Announced(bytes) => {
                // A text frame, whole, with the length in eight bytes.
                let masked = if self.1 == Side::Client { 0x80 } else { 0 };
                let mut header = vec![0x81, masked | 127];
                header.extend((bytes as u64).to_be_bytes());
                if self.1 == Side::Client {
                    header.extend([0; 4]);
                }
                self.0.get_mut().write_all(&header).await.expect("it is taken");
            }
        }
    }

    async fn say(&mut self, message: Message) {
        self.0.send(message).await.expect("it is taken");
    }

    async fn tell(&mut self, frame: Value) {
        self.say(Message::text(frame.to_string())).await;
    }

    async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        next.expect("something comes").expect("the link stays").expect("the link stays")
    }

    /// The next text frame.
    async fn hear(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("no text frame, but {other:?}"),
            }
        }
    }

    async fn hear_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.hear().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Asks something, and takes what comes until the answer.
    async fn until(&mut self, ask: Message, is_answer: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.say(ask).await;
        let mut before = Vec::new();
        loop {
            let frame = self.hear().await;
            if is_answer(&frame) {
                return before;
            }
            before.push(frame);
        }
    }

    /// The code of the close frame that comes.
    async fn closed(mut self) -> Option<u16> {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("something comes") {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// A socket with a server, under the token that it knows.
async fn connect(
    port: u16,
    path: &str,
    protocol: Option<&str>,
    headers: &[(&str, String)],
) -> Peer {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request().expect("a URL");
    let mut set = |name: &str, value: &str| {
        let name: hyper::header::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    };
    set("authorization", "Bearer secret");
    if let Some(protocol) = protocol {
        set("sec-websocket-protocol", protocol);
    }
    for (name, value) in headers {
        set(name, value);
    }
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("a WebSocket");
    Peer(socket, Side::Client)
}

/// A socket with the client that dials next.
async fn accept(listener: &TcpListener) -> Peer {
    #[expect(clippy::result_large_err, reason = "the type of the callback is tungstenite's")]
    fn take_offer(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        if let Some(offer) = request.headers().get("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", offer.clone());
        }
        Ok(response)
    }
    loop {
        let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept())
            .await
            .expect("it dials")
            .expect("a connection");
        // Requests over HTTP are not what is tested.
        if let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, take_offer).await {
            return Peer(socket, Side::Server);
        }
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

fn quick() -> BackoffConfig {
    let (min, max) = (Duration::from_millis(20), Duration::from_millis(100));
    BackoffConfig { min, max, jitter_percent: 25 }
}

fn agent() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

// ---- events -------------------------------------------------------------------------------------

async fn events_server(folder: &tempfile::TempDir) -> u16 {
    let log = SqliteLog::open(LogConfig::new(folder.path().join("events.db"))).expect("it opens");
    let config = ServerConfig::default();
    let (extension, event_bytes_max) = (config.extension, config.event_bytes_max);
    let wall = Arc::new(SystemClock);
    let (handle, task) = events::server(
        Server::new(config, entropy()),
        Threaded::spawn(log).expect("a thread"),
        wall.clone(),
        events::ServerTaskConfig::default(),
    );
    let access = Arc::new(Tokens::default().subscriber("secret", agent()));
    let limits = Limits::default();
    let service =
        events::EventService::new(handle, access, wall, limits, extension, event_bytes_max);
    let (listener, port) = listen().await;
    tokio::spawn(task);
    let serving = http::serve(listener, service, HttpConfig::default(), std::future::pending());
    tokio::spawn(serving);
    port
}

#[tokio::test]
async fn a_server_of_events_ignores_what_is_malformed() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = events_server(&folder).await;
    let open = || connect(port, "/v1/ws", Some("gapless.events.v1"), &[]);
    let mut peer = open().await;
    assert_eq!(peer.hear().await["type"], "stream");
    let frames = texts(&[
        ("a field that is missing", r#"{"type":"resync"}"#),
        ("a number that is null", r#"{"type":"resync","last_seen_seq":null}"#),
        ("a number that is a text", r#"{"type":"resync","last_seen_seq":"4"}"#),
        ("a negative number", r#"{"type":"resync","last_seen_seq":-1}"#),
        ("a fraction", r#"{"type":"resync","last_seen_seq":1.5}"#),
        ("a number out of range", r#"{"type":"resync","last_seen_seq":9007199254740992}"#),
        ("a number of 64 bits", r#"{"type":"resync","last_seen_seq":18446744073709551616}"#),
        ("a field twice", r#"{"type":"resync","last_seen_seq":1,"last_seen_seq":1}"#),
        ("an epoch that is none", r#"{"type":"resync","last_seen_seq":0,"epoch":"a b"}"#),
        ("a list that is a text", r#"{"type":"subscribe","channels":"general"}"#),
        ("a list of numbers", r#"{"type":"unsubscribe","channels":[1]}"#),
        ("a frame of the other side", r#"{"type":"resync_ack","last_seen_seq":1}"#),
    ]);
    for (kind, frame) in no_frames().into_iter().chain(frames) {
        peer.say(frame).await;
        let ping = Message::text(r#"{"type":"ping"}"#);
        let said = peer.until(ping, |frame| frame["type"] == "pong").await;
        assert!(said.is_empty(), "{kind}: {said:?}");
    }
    for (kind, broken, code) in broken() {
        let mut peer = open().await;
        peer.break_with(broken).await;
        assert_eq!(peer.closed().await, Some(code), "{kind}");
    }
}

#[tokio::test]
async fn a_client_of_events_ignores_what_is_malformed() {
    let (listener, port) = listen().await;
    let (handled, mut handlings) = tokio::sync::mpsc::unbounded_channel();
    let application = Application::new(handler_fn(move |offer| {
        // Whoever listens has failed if nobody does.
        let _ = handled.send(offer.event.sequence());
        Ok(Handled::Done)
    }));
    let config = ClientConfig { reconnect: quick(), ..ClientConfig::default() };
    let address = format!("127.0.0.1:{port}");
    let (_handle, run) = events::client(
        Client::new(config, entropy()),
        TcpConnector::new(address.clone()),
        events::Target::new(address, "secret"),
        Arc::new(SystemClock),
        application,
    );
    tokio::spawn(run);
    let mut sequence = 0;
    let mut peer = welcome_to_events(&listener, sequence).await;
    let frames = texts(&[
        ("a number out of range", r#"{"type":"note","agent_seq":9007199254740992}"#),
        ("number 0", r#"{"type":"note","agent_seq":0}"#),
        ("a negative number", r#"{"type":"note","agent_seq":-4}"#),
        ("a number that is a text", r#"{"type":"note","agent_seq":"1"}"#),
        ("an event without a number", r#"{"type":"note"}"#),
        ("a field twice", r#"{"type":"note","agent_seq":1,"agent_seq":1}"#),
        ("a pong out of range", r#"{"type":"pong","sent":9007199254740992}"#),
        ("a gap without an end", r#"{"type":"gap","epoch":"e1","from":1}"#),
        ("a gap that is none", r#"{"type":"gap","epoch":"e1","from":4,"to":3}"#),
        ("a gap without an epoch", r#"{"type":"gap","from":1,"to":4}"#),
        (
            "a verdict that is none",
            r#"{"type":"resync_begin","epoch":"e1","verdict":"?","from":1,"to":0}"#,
        ),
        ("an end that says nothing", r#"{"type":"resync_ack"}"#),
        ("a frame of the other side", r#"{"type":"resync","last_seen_seq":4}"#),
        ("an error", r#"{"type":"error"}"#),
    ]);
    for (kind, frame) in no_frames().into_iter().chain(frames) {
        peer.say(frame).await;
        sequence += 1;
        peer.tell(json!({"type": "note", "agent_seq": sequence})).await;
        let next = tokio::time::timeout(PATIENCE, handlings.recv()).await.expect("it is handled");
        assert_eq!(next, Some(Some(sequence)), "{kind}");
    }
    for (kind, broken, code) in broken() {
        peer.break_with(broken).await;
        assert_eq!(peer.closed().await, Some(code), "{kind}");
        peer = welcome_to_events(&listener, sequence).await;
    }
}

/// Accepts a client, and lets it go on after the last event that it has.
async fn welcome_to_events(listener: &TcpListener, head: u64) -> Peer {
    let mut peer = accept(listener).await;
    peer.tell(json!({"type": "stream", "epoch": "e1", "oldest": 1, "head": head})).await;
    let resync = peer.hear_of("resync").await;
    assert_eq!(resync["last_seen_seq"], head, "nothing is lost, and nothing is made up");
    let (from, verdict) = (head + 1, "up_to_date");
    peer.tell(json!({"type": "resync_begin", "epoch": "e1", "verdict": verdict, "from": from, "to": head}))
        .await;
    peer.tell(json!({
        "type": "resync_ack", "last_seen_seq": head, "current_seq": head, "replayed": 0,
        "gap_detected": false, "epoch": "e1", "verdict": verdict,
    }))
    .await;
    peer
}

// ---- session ------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_sessions_ignores_what_is_malformed() {
    let host = Host::start().await;
    let port = host.port;
    let open = |client: &'static str| async move {
        let path = format!("/ws?client_id={client}");
        let mut peer = connect(port, &path, Some("gapless.session.v1"), &[]).await;
        assert_eq!(peer.hear().await["type"], "session_begin");
        peer
    };
    let mut peer = open("a").await;
    let question = || {
        let frame = json!({"type": "user_message", "text": "hi", "client_msg_id": "probe"});
        Message::text(frame.to_string())
    };
    let is_answer = |frame: &Value| frame["type"] == "user_message_ack";
    peer.until(question(), is_answer).await;
    // The turn of the first one is over when the application has nothing more to do.
    peer.hear_of("assistant_message").await;
    while peer.hear_of("notification").await["status"] != "idle" {}
    let frames = texts(&[
        ("a message without a text", r#"{"type":"user_message","client_msg_id":"x"}"#),
        ("a text that is a number", r#"{"type":"user_message","text":7,"client_msg_id":"x"}"#),
        ("an id with a space", r#"{"type":"user_message","text":"x","client_msg_id":"a b"}"#),
        ("an id that is empty", r#"{"type":"user_message","text":"x","client_msg_id":""}"#),
        ("an id with NUL", r#"{"type":"user_message","text":"x","client_msg_id":"a\u0000"}"#),
        ("an id of another script", r#"{"type":"user_message","text":"x","client_msg_id":"é"}"#),
        ("half of a code point", r#"{"type":"user_message","text":"\udc00","client_msg_id":"x"}"#),
        ("a field twice", r#"{"type":"user_message","text":"x","text":"y","client_msg_id":"x"}"#),
        ("attachments that are none", r#"{"type":"user_message","text":"x","attachments":[7]}"#),
        (
            "a position out of range",
            r#"{"type":"user_message","text":"x","after":9007199254740992}"#,
        ),
        ("an answer without a text", r#"{"type":"user_answer","answer_id":"x"}"#),
        ("an acknowledgement of nothing", r#"{"type":"ack"}"#),
        ("an acknowledgement out of range", r#"{"type":"ack","seq":9007199254740992}"#),
        ("a negative acknowledgement", r#"{"type":"ack","seq":-1}"#),
        ("a fraction", r#"{"type":"ack","seq":0.5}"#),
        ("an epoch that is none", r#"{"type":"ack","seq":1,"epoch":""}"#),
        ("a frame of the other side", r#"{"type":"session_history","messages":[]}"#),
    ]);
    for (kind, frame) in no_frames().into_iter().chain(frames) {
        peer.say(frame).await;
        let said = peer.until(question(), is_answer).await;
        assert!(said.is_empty(), "{kind}: {said:?}");
    }
    for (kind, broken, code) in broken() {
        let mut peer = open("b").await;
        peer.break_with(broken).await;
        assert_eq!(peer.closed().await, Some(code), "{kind}");
    }
}

#[tokio::test]
async fn a_client_of_sessions_ignores_what_is_malformed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (listener, port) = listen().await;
    let path = folder.path().join("client.db");
    let (store, kept) = SqliteInFlight::open(&path, None, &mut *entropy()).expect("it opens");
    let config = session_protocol::client::ClientConfig {
        reconnect: quick(),
        ..session_protocol::client::ClientConfig::default()
    };
    let address = format!("127.0.0.1:{port}");
    let (_handle, run) = session::client(
        session_protocol::client::Client::new(config, entropy()),
        TcpConnector::new(address.clone()),
        session::Target::new(address, "secret"),
        Inline(store),
        kept,
    );
    tokio::spawn(run);
    let mut peer = welcome_to_session(&listener).await;
    let frames = texts(&[
        ("a number out of range", r#"{"seq":9007199254740992,"type":"thinking"}"#),
        ("a negative number", r#"{"seq":-1,"type":"thinking"}"#),
        ("a number that is a text", r#"{"seq":"2","type":"thinking"}"#),
        ("a field twice", r#"{"seq":2,"seq":2,"type":"assistant_message","text":"x"}"#),
        ("a message without a text", r#"{"seq":2,"type":"assistant_message"}"#),
        ("a text that is a number", r#"{"seq":2,"type":"assistant_message","text":7}"#),
        ("a question without a text", r#"{"seq":2,"type":"question","source":"x"}"#),
        ("row 0", r#"{"seq":2,"type":"user_message","text":"x","id":0}"#),
        ("a row without a place", r#"{"seq":2,"type":"user_answer","text":"x"}"#),
        ("a history of nothing", r#"{"seq":2,"type":"session_history"}"#),
        ("a history of numbers", r#"{"seq":2,"type":"session_history","messages":[7]}"#),
        ("an acknowledgement of nothing", r#"{"seq":2,"type":"user_message_ack"}"#),
        ("a reason that is none", r#"{"seq":2,"type":"user_message_rejected","reason":"?"}"#),
        ("a notification of nothing", r#"{"seq":2,"type":"notification"}"#),
        (
            "numbers that are no range",
            r#"{"seq":0,"type":"session_begin","epoch":"e","verdict":"replay","from":4,"to":2}"#,
        ),
        ("a frame of the other side", r#"{"type":"ack","seq":1}"#),
    ]);
    for (kind, frame) in no_frames().into_iter().chain(frames) {
        // Of two types the latter is a ping, or the former is: neither is answered.
        peer.say(frame).await;
        let ping = Message::text(r#"{"seq":0,"type":"ping","sent":1}"#);
        let said = peer.until(ping, |frame| frame["type"] == "pong").await;
        let said: Vec<_> = said.iter().filter(|frame| frame["type"] != "ack").collect();
        assert!(said.is_empty(), "{kind}: {said:?}");
    }
    for (kind, broken, code) in broken() {
        peer.break_with(broken).await;
        assert_eq!(peer.closed().await, Some(code), "{kind}");
        peer = welcome_to_session(&listener).await;
    }
}

/// Accepts a client, and shows it that there is nothing yet.
async fn welcome_to_session(listener: &TcpListener) -> Peer {
    let mut peer = accept(listener).await;
    let verdict = "unknown";
    peer.tell(json!({"seq": 0, "type": "session_begin", "epoch": "e1", "verdict": verdict, "from": 1, "to": 1}))
        .await;
    peer.tell(json!({"seq": 1, "type": "session_history", "messages": [], "epoch": "e1"})).await;
    peer
}

// ---- tasks --------------------------------------------------------------------------------------

/// A frame of the task protocol, as a test names it.
fn envelope(message_id: &str, kind: &str, rest: &str, payload: &str) -> String {
    format!(
        r#"{{"protocol_version":1,"message_id":"{message_id}","type":"{kind}","agent_id":"agent-1",{rest}"sent_at":"2025-11-21T04:40:00.000Z","payload":{payload}}}"#
    )
}

const ATTEMPT: &str = r#""task_id":"t1","execution_attempt_id":"a1","#;

#[tokio::test]
async fn a_controller_refuses_what_is_malformed_and_has_a_name_and_ignores_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = SqliteRecord::open(RecordConfig::new(folder.path().join("controller.db")));
    let wall = Arc::new(SystemClock);
    let (handle, task) = tasks::controller(
        Controller::new(ControllerConfig::default(), entropy()),
        Threaded::spawn(record.expect("it opens")).expect("a thread"),
        wall.clone(),
        Box::new(|_| {}),
        ControllerTaskConfig::default(),
    );
    let keys = RsaKeys::default().with(agent(), include_bytes!("keys/agent.pub").to_vec());
    let access = Arc::new(Tokens::default());
    let service = ControllerService::new(handle, access, Arc::new(keys), wall, Limits::default());
    let (listener, port) = listen().await;
    tokio::spawn(task);
    let serving = http::serve(listener, service, HttpConfig::default(), std::future::pending());
    tokio::spawn(serving);

    let open = || async move {
        let signer = RsaSigner::from_pkcs8(include_bytes!("keys/agent.pk8")).expect("a key");
        let at = SystemClock.wall_time();
        let signed = SignedHeaders::sign(&signer, &agent(), at, &mut *entropy()).expect("it signs");
        let mut peer = connect(port, "/api/v1/agents/ws", None, &signed.pairs()).await;
        let hello = r#"{"running_task":null,"received_not_started":[],"unacked_finals":[],"unacked_output":[],"spool_status":{"bytes_used":0,"byte_cap":1},"client_version":"v"}"#;
        peer.say(Message::text(envelope("hello", "agent.hello", "", hello))).await;
        peer.hear_of("agent.hello_ack").await;
        peer
    };
    let mut peer = open().await;
    let question = || Message::text(envelope("probe", "task.received", ATTEMPT, "{}"));
    let is_answer =
        |frame: &Value| frame["type"] == "ack" && frame["payload"]["acked_message_id"] == "probe";
    for (kind, frame) in no_frames() {
        peer.say(frame).await;
        let said = peer.until(question(), is_answer).await;
        assert!(said.is_empty(), "{kind}: {said:?}");
    }
    let numbered = |sequence: &str| format!("{ATTEMPT}\"sequence\":{sequence},");
    let output = r#"{"stream":"stdout","data":"x","byte_count":1}"#;
    let last = |n: &str| {
        format!(r#"{{"status":"completed","exit_code":0,"last_output_sequence":{{"stdout":{n}}}}}"#)
    };
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (kind, frame) in [
        ("an unknown type", envelope("bad", "task.dance", ATTEMPT, "{}")),
        ("no attempt", envelope("bad", "task.started", "", "{}")),
        (
            "an id with a slash",
            envelope(
                "bad",
                "task.started",
                r#""task_id":"a/b","execution_attempt_id":"a1","#,
                "{}",
            ),
        ),
        ("output without a number", envelope("bad", "task.output", ATTEMPT, output)),
        ("output of number 0", envelope("bad", "task.output", &numbered("0"), output)),
        ("a negative number", envelope("bad", "task.output", &numbered("-1"), output)),
        ("a fraction", envelope("bad", "task.output", &numbered("1.5"), output)),
        (
            "a number out of range",
            envelope("bad", "task.output", &numbered("9007199254740992"), output),
        ),
        ("a number that is a text", envelope("bad", "task.output", &numbered("\"1\""), output)),
        (
            "a field twice",
            envelope(
                "bad",
                "task.output",
                &numbered("1"),
                r#"{"stream":"stdout","stream":"stdout","data":"x","byte_count":1}"#,
            ),
        ),
        (
            "a stream that is none",
            envelope(
                "bad",
                "task.output",
                &numbered("1"),
                r#"{"stream":"stdin","data":"x","byte_count":1}"#,
            ),
        ),
        (
            "no data",
            envelope("bad", "task.output", &numbered("1"), r#"{"stream":"stdout","byte_count":0}"#),
        ),
        (
            "data that is no base64",
            envelope(
                "bad",
                "task.output",
                &numbered("1"),
                r#"{"stream":"stdout","data_b64":"?","byte_count":1}"#,
            ),
        ),
        (
            "half of a code point",
            envelope(
                "bad",
                "task.output",
                &numbered("1"),
                r#"{"stream":"stdout","data":"\ud800","byte_count":1}"#,
            ),
        ),
        ("a payload that is a list", envelope("bad", "task.output", &numbered("1"), "[]")),
        ("a payload that is deep", envelope("bad", "task.output", &numbered("1"), &nested)),
        (
            "a result that is none",
            envelope("bad", "task.final", ATTEMPT, r#"{"status":"perhaps","exit_code":0}"#),
        ),
        (
            "a result without a code",
            envelope("bad", "task.final", ATTEMPT, r#"{"status":"failed"}"#),
        ),
        (
            "a result that counts too far",
            envelope("bad", "task.final", ATTEMPT, &last("18446744073709551615")),
        ),
        (
            "an end that is no range",
            envelope(
                "bad",
                "task.output_lost",
                ATTEMPT,
                r#"{"stream":"stdout","first_sequence":4,"last_sequence":3}"#,
            ),
        ),
        (
            "another agent",
            envelope("bad", "task.started", ATTEMPT, "{}").replace("agent-1", "agent-2"),
        ),
        (
            "another version",
            envelope("bad", "task.started", ATTEMPT, "{}").replace("_version\":1", "_version\":2"),
        ),
        (
            "no time",
            envelope("bad", "task.started", ATTEMPT, "{}").replace("2025-11-21T04:40:00.000Z", ""),
        ),
    ] {
        peer.say(Message::text(frame)).await;
        let said = peer.until(question(), is_answer).await;
        let [error] = &said[..] else { panic!("{kind}: {said:?}") };
        assert_eq!(error["type"], "error", "{kind}: {error}");
        let payload = &error["payload"];
        assert_eq!(payload["code"], "invalid_message", "{kind}: {error}");
        assert_eq!(payload["retryable"], false, "{kind}: {error}");
        assert_eq!(payload["related_message_id"], "bad", "{kind}: {error}");
    }
    for (kind, broken, code) in broken() {
        let mut peer = open().await;
        peer.break_with(broken).await;
        assert_eq!(peer.closed().await, Some(code), "{kind}");
    }
}

#[tokio::test]
async fn an_agent_ignores_what_is_malformed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (listener, port) = listen().await;
    let store = SqliteTaskStore::open(TaskStoreConfig::new(folder.path().join("agent.db")));
    let config = AgentConfig { reconnect: quick(), ..AgentConfig::default() };
    let signer = RsaSigner::from_pkcs8(include_bytes!("keys/agent.pk8")).expect("a key");
    let target = AgentTarget {
        host: format!("127.0.0.1:{port}"),
        agent: agent(),
        signer: Arc::new(signer),
        limits: Limits::default(),
        request_timeout: config.request_timeout,
    };
    let (_handle, run) = tasks::agent(
        Agent::new(config, entropy()),
        TcpConnector::new(format!("127.0.0.1:{port}")),
        target,
        Threaded::spawn(store.expect("it opens")).expect("a thread"),
        ProcessExecutor::default(),
        Arc::new(SystemClock),
        entropy(),
        Box::new(|_| {}),
    );
    tokio::spawn(run);
    let mut peer = welcome_agent(&listener).await;
    let question = || Message::text(envelope("probe", "task.query", ATTEMPT, "{}"));
    let is_answer = |frame: &Value| frame["payload"]["related_message_id"] == "probe";
    let ack = |number: &str| {
        let payload = format!(
            r#"{{"acked_message_id":"m","acked_type":"task.output","highest_output_sequence":{number}}}"#
        );
        envelope("bad", "ack", "", &payload)
    };
    let frames = [
        ("an unknown type", envelope("bad", "task.dance", ATTEMPT, "{}")),
        ("no attempt", envelope("bad", "task.deliver", "", r#"{"command":"true"}"#)),
        ("no command", envelope("bad", "task.deliver", ATTEMPT, "{}")),
        ("an empty command", envelope("bad", "task.deliver", ATTEMPT, r#"{"command":""}"#)),
        (
            "a command that is a list",
            envelope("bad", "task.deliver", ATTEMPT, r#"{"command":["true"]}"#),
        ),
        (
            "a priority out of range",
            envelope(
                "bad",
                "task.deliver",
                ATTEMPT,
                r#"{"command":"true","priority":9223372036854775808}"#,
            ),
        ),
        (
            "a field twice",
            envelope("bad", "task.deliver", ATTEMPT, r#"{"command":"true","command":"true"}"#),
        ),
        (
            "an id with a space",
            envelope(
                "bad",
                "task.deliver",
                r#""task_id":"a b","execution_attempt_id":"a1","#,
                r#"{"command":"true"}"#,
            ),
        ),
        ("an acknowledgement out of range", ack("9007199254740992")),
        ("a negative acknowledgement", ack("-1")),
        ("an acknowledgement of nothing", envelope("bad", "ack", "", "{}")),
        ("an answer of nothing", envelope("bad", "agent.hello_ack", "", "{}")),
        ("an error of nothing", envelope("bad", "error", "", "{}")),
        ("a payload that is null", envelope("bad", "task.deliver", ATTEMPT, "null")),
        (
            "another version",
            envelope("bad", "task.query", ATTEMPT, "{}").replace("_version\":1", "_version\":2"),
        ),
        ("a message id that is empty", envelope("", "task.query", ATTEMPT, "{}")),
    ];
    let frames = frames.map(|(kind, text)| (kind, Message::text(text)));
    for (kind, frame) in no_frames().into_iter().chain(frames) {
        peer.say(frame).await;
        let said = peer.until(question(), is_answer).await;
        assert!(said.is_empty(), "{kind}: {said:?}");
    }
    for (kind, broken, code) in broken() {
        peer.break_with(broken).await;
        assert_eq!(peer.closed().await, Some(code), "{kind}");
        peer = welcome_agent(&listener).await;
    }
}

/// Accepts an agent, and agrees with it that there is nothing.
async fn welcome_agent(listener: &TcpListener) -> Peer {
    let mut peer = accept(listener).await;
    let hello = peer.hear_of("agent.hello").await;
    let payload = json!({
        "acked_message_id": hello["message_id"], "acked_type": "agent.hello",
        "acknowledged_final_message_ids": [], "discarded_attempts": [], "output_replay": [],
        "extension": "gapless.tasks.v1",
    });
    let answer = envelope("answer", "agent.hello_ack", "", &payload.to_string());
    peer.say(Message::text(answer)).await;
    peer
}
