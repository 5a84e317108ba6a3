//! The spans of a server, as a subscriber sees them.
#![cfg(all(feature = "net", feature = "rsa", feature = "sqlite"))]

mod session_support;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex};

use futures_util::SinkExt as _;
use gapless::AgentId;
use gapless::events::driver as events;
use gapless::events::server::{Server, ServerConfig};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::net::http::{self, HttpConfig, Service};
use gapless::net::trace::TARGET;
use gapless::net::{Limits, SystemClock, Tokens, WallClock as _};
use gapless::storage::Threaded;
use gapless::tasks::auth::{RsaKeys, RsaSigner, SignedHeaders};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::controller::{Controller, ControllerConfig};
use gapless::tasks::driver::{ControllerService, ControllerTaskConfig, controller};
use session_support::{Host, PATIENCE, SOON, entropy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

// ---- a subscriber -----------------------------------------------------------------------------------

/// A span: its name, that of its parent, and its fields as text.
#[derive(Debug, Clone, Default)]
struct Seen {
    name: &'static str,
    parent: Option<&'static str>,
    fields: BTreeMap<&'static str, String>,
    ended: bool,
}

impl Seen {
    /// The values of some of its fields.
    fn values<const N: usize>(&self, names: [&'static str; N]) -> [Option<&str>; N] {
        names.map(|name| self.fields.get(name).map(String::as_str))
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Keeps every span of the library.
#[derive(Clone, Default)]
struct Tracer(Arc<Mutex<Vec<(Id, Seen)>>>);

impl Tracer {
    fn change(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        let mut spans = self.0.lock().expect("no panic");
        // The number of one that has ended may be given again.
        if let Some((_, seen)) = spans.iter_mut().rev().find(|(known, _)| known == id) {
            change(seen);
        }
    }

    /// The first span that has ended and is so, once there is one.
    async fn first(&self, name: &str, field: (&str, &str)) -> Seen {
        let is_it = |seen: &&Seen| {
            let value = seen.fields.get(field.0).map(String::as_str);
            seen.ended && seen.name == name && value == Some(field.1)
        };
        let looking = async {
            loop {
                let found = self.spans().iter().find(is_it).cloned();
                match found {
                    Some(seen) => return seen,
                    None => tokio::time::sleep(SOON).await,
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        found.unwrap_or_else(|_| panic!("no {name} with {field:?}: {:#?}", self.spans()))
    }

    fn spans(&self) -> Vec<Seen> {
        self.0.lock().expect("no panic").iter().map(|(_, seen)| seen.clone()).collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Tracer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() != TARGET {
            return;
        }
        let parent = context.span(id).and_then(|span| Some(span.parent()?.name()));
        let name = attributes.metadata().name();
        let mut seen = Seen { name, parent, ..Seen::default() };
        attributes.record(&mut seen);
        self.0.lock().expect("no panic").push((id.clone(), seen));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.change(id, |seen| values.record(seen));
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.change(&id, |seen| seen.ended = true);
    }
}

/// The one of the process.
static TRACER: LazyLock<Tracer> = LazyLock::new(|| {
    let tracer = Tracer::default();
    tracing_subscriber::registry().with(tracer.clone()).init();
    tracer
});

// ---- servers and clients ------------------------------------------------------------------------------

fn agent() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

async fn serve(service: impl Service) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(http::serve(listener, service, HttpConfig::default(), std::future::pending()));
    port
}

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
    tokio::spawn(task);
    let access =
        Tokens::default().subscriber("reads-a-secret", agent()).publisher("says-a-secret", "p");
    let limits = Limits::default();
    let access = Arc::new(access);
    serve(events::EventService::new(handle, access, wall, limits, extension, event_bytes_max)).await
}

async fn controller_server(folder: &tempfile::TempDir) -> u16 {
    let record = SqliteRecord::open(RecordConfig::new(folder.path().join("tasks.db")));
    let wall = Arc::new(SystemClock);
    let (handle, task) = controller(
        Controller::new(ControllerConfig::default(), entropy()),
        Threaded::spawn(record.expect("it opens")).expect("a thread"),
        wall.clone(),
        Box::new(|_| {}),
        ControllerTaskConfig::default(),
    );
    tokio::spawn(task);
    let keys = RsaKeys::default().with(agent(), include_bytes!("keys/agent.pub").to_vec());
    let access = Arc::new(Tokens::default().publisher("tasks-a-secret", "p"));
    serve(ControllerService::new(handle, access, Arc::new(keys), wall, Limits::default())).await
}

/// A `traceparent` of a test of its own.
fn traceparent(number: u8) -> String {
    format!("00-{TRACE}-{number:016x}-01")
}

/// The status of the answer to a request.
async fn ask(port: u16, request: &str, headers: &str, body: &str) -> u16 {
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    stream.write_all(text.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("it ends").expect("UTF-8");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

/// A WebSocket that is opened, and closed with a code.
async fn connect_and_close(port: u16, path: &str, headers: &[(&str, String)]) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request().expect("a URL");
    for (name, value) in headers {
        let name: hyper::header::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let (mut socket, _): (WebSocketStream<TcpStream>, _) =
        tokio_tungstenite::client_async(request, stream).await.expect("a WebSocket");
    // No UTF-8: the server closes with 1007.
    let frame = tokio_tungstenite::tungstenite::protocol::frame::Frame::message(
        &b"\xff"[..],
        tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode::Data(
            tokio_tungstenite::tungstenite::protocol::frame::coding::Data::Text,
        ),
        true,
    );
    socket.send(Message::Frame(frame)).await.expect("it is taken");
    while futures_util::StreamExt::next(&mut socket).await.is_some_and(|it| it.is_ok()) {}
}

fn assert_no_secret() {
    for seen in TRACER.spans() {
        for (field, value) in &seen.fields {
            assert!(!value.contains("secret"), "{} has {field} = {value}", seen.name);
        }
    }
}

// ---- tests --------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_with_the_trace_of_its_caller() {
    let tracer = &*TRACER;
    let folder = tempfile::tempdir().expect("a folder");
    let port = events_server(&folder).await;
    let traceparent = traceparent(1);
    let headers = format!("Authorization: Bearer says-a-secret\r\nTraceparent: {traceparent}\r\n");
    let event = r#"{"type":"note","payload":{"text":"a secret"}}"#;
    let publish = "POST /v1/agents/agent-1/events?token=a-secret";
    // A server that has just begun is not ready to store.
    while ask(port, publish, "Authorization: Bearer says-a-secret\r\n", event).await == 503 {}
    assert_eq!(ask(port, publish, &headers, event).await, 201);
    let span = tracer.first("gapless.request", ("traceparent", &traceparent)).await;
    let values = span.values(["method", "route", "agent", "status"]);
    let route = "/v1/agents/{agent}/events";
    assert_eq!(values, [Some("POST"), Some(route), Some("agent-1"), Some("201")]);
    // Whoever is not let in is a span as well, without a trace if it names none.
    let wrong = "Authorization: Bearer wrong-secret\r\nTraceparent: a-secret\r\n";
    assert_eq!(ask(port, "POST /v1/agents/agent-2/events", wrong, event).await, 401);
    let span = tracer.first("gapless.request", ("status", "401")).await;
    let values = span.values(["route", "agent", "traceparent"]);
    assert_eq!(values, [Some(route), None, None]);
    assert_no_secret();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_is_a_span_from_its_handshake_to_its_end() {
    let tracer = &*TRACER;
    let folder = tempfile::tempdir().expect("a folder");
    let port = events_server(&folder).await;
    let traceparent = traceparent(2);
    let headers = [
        ("traceparent", traceparent.clone()),
        ("sec-websocket-protocol", "gapless.events.v1".to_owned()),
    ];
    connect_and_close(port, "/v1/ws?token=reads-a-secret", &headers).await;
    let span = tracer.first("gapless.connection", ("traceparent", &traceparent)).await;
    assert_eq!(span.parent, Some("gapless.request"));
    let names = ["protocol", "agent", "extension", "close_code", "connection", "client_id"];
    let expected = [Some("events"), Some("agent-1"), Some("true"), Some("1007"), Some("1"), None];
    assert_eq!(span.values(names), expected);
    let request = tracer.first("gapless.request", ("traceparent", &traceparent)).await;
    assert_eq!(request.values(["route", "status"]), [Some("/v1/ws"), Some("101")]);
    assert_no_secret();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_session_is_a_span_with_its_principal_and_its_id() {
    let tracer = &*TRACER;
    let host = Host::start().await;
    let traceparent = traceparent(3);
    let headers = [("traceparent", traceparent.clone())];
    connect_and_close(host.port, "/ws?client_id=tab-1&token=secret", &headers).await;
    let span = tracer.first("gapless.connection", ("traceparent", &traceparent)).await;
    let names = ["protocol", "principal", "client_id", "extension", "close_code"];
    let expected = [Some("sessions"), Some("somebody"), Some("tab-1"), Some("false"), Some("1007")];
    assert_eq!(span.values(names), expected);
    assert_no_secret();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_runs_tasks_is_a_span_without_its_signature() {
    let tracer = &*TRACER;
    let folder = tempfile::tempdir().expect("a folder");
    let port = controller_server(&folder).await;
    let traceparent = traceparent(4);
    let signer = RsaSigner::from_pkcs8(include_bytes!("keys/agent.pk8")).expect("a key");
    let at = SystemClock.wall_time();
    let signed = SignedHeaders::sign(&signer, &agent(), at, &mut *entropy()).expect("it signs");
    let pairs = signed.pairs();
    let mut headers = pairs.to_vec();
    headers.push(("traceparent", traceparent.clone()));
    connect_and_close(port, "/api/v1/agents/ws", &headers).await;
    let span = tracer.first("gapless.connection", ("traceparent", &traceparent)).await;
    let names = ["protocol", "agent", "close_code"];
    assert_eq!(span.values(names), [Some("tasks"), Some("agent-1"), Some("1007")]);
    let asked = "Authorization: Bearer tasks-a-secret\r\n";
    assert_eq!(ask(port, "GET /v1/tasks/of-a-client", asked, "").await, 404);
    let span = tracer.first("gapless.request", ("route", "/v1/tasks/{task}")).await;
    assert_eq!(span.values(["method", "status"]), [Some("GET"), Some("404")]);
    for seen in tracer.spans() {
        for (name, value) in &pairs {
            let is_there = seen.fields.values().any(|field| field.contains(value.as_str()));
            let is_name = value == "agent-1";
            assert!(is_name || !is_there, "{} has {name}", seen.name);
        }
    }
    assert_no_secret();
}
