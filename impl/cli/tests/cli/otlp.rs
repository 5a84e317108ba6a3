//! `serve --otlp-endpoint`: what a collector is told, also when it does not answer.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gapless::net::http::{self, HttpConfig, Service};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::{PATIENCE, Server, ended, in_time, run, signal};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// How much a request may have.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A collector that keeps what it is told.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Service for Collector {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (path, kind) = (request.uri().path().to_owned(), request.headers().get("content-type"));
        if path != "/v1/traces" || kind.is_none_or(|kind| kind != "application/x-protobuf") {
            return http::empty(StatusCode::NOT_FOUND);
        }
        let body = http::body(request, BODY_BYTES_MAX, PATIENCE).await.expect("a body");
        let told = ExportTraceServiceRequest::decode(body).expect("it is protobuf");
        self.0.lock().expect("no panic").push(told);
        http::empty(StatusCode::OK)
    }
}

impl Collector {
    /// One that listens, and its URL.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let this = Self::default();
        let (service, config) = (this.clone(), HttpConfig::default());
        tokio::spawn(http::serve(listener, service, config, std::future::pending()));
        (this, url)
    }

    fn spans(&self) -> Vec<Span> {
        let told = self.0.lock().expect("no panic");
        let scopes = told.iter().flat_map(|it| &it.resource_spans).flat_map(|it| &it.scope_spans);
        scopes.flat_map(|it| it.spans.clone()).collect()
    }

    /// The one span with this name and this value of a field.
    fn span(&self, name: &str, field: &str, value: &str) -> Span {
        let all = self.spans();
        let is_it = |it: &&Span| it.name == name && text(it, field).as_deref() == Some(value);
        let found: Vec<_> = all.iter().filter(is_it).collect();
        let [span] = found[..] else { panic!("{name} with {field} = {value}: {all:#?}") };
        span.clone()
    }

    /// What the spans are of.
    fn service(&self) -> Option<String> {
        let told = self.0.lock().expect("no panic");
        let resource = told.first()?.resource_spans.first()?.resource.as_ref()?;
        let name = resource.attributes.iter().find(|it| it.key == "service.name")?;
        as_text(name.value.as_ref()?.value.as_ref()?)
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The value of a field.
fn text(span: &Span, field: &str) -> Option<String> {
    let field = span.attributes.iter().find(|it| it.key == field)?;
    as_text(field.value.as_ref()?.value.as_ref()?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A WebSocket that says whose trace it is part of, opened and closed.
async fn connect_and_close(server: &Server, parent: &str, flags: &str) {
    let stream = TcpStream::connect(server.address).await.expect("it listens");
    let token = server.token("subscriber");
    let url = format!("ws://{}/v1/ws?token={token}@demo", server.address);
    let mut request = url.into_client_request().expect("valid");
    let traceparent = format!("00-{TRACE}-{parent}-{flags}");
    request.headers_mut().insert("traceparent", traceparent.parse().expect("valid"));
    let opened = in_time(tokio_tungstenite::client_async(request, stream)).await;
    let (mut socket, _) = opened.expect("let in");
    in_time(socket.close(None)).await.expect("it is open");
}

#[tokio::test]
async fn the_spans_of_a_server_that_is_stopped_are_all_with_the_collector_in_the_trace_of_the_caller()
 {
    let (collector, url) = Collector::start().await;
    let mut server = Server::start_with(&["--otlp-endpoint", &url]).await;
    let parent = "00f067aa0ba902b7";
    connect_and_close(&server, parent, "01").await;
    // Its caller keeps no trace of it.
    connect_and_close(&server, "00f067aa0ba902b8", "00").await;
    assert_eq!(server.get("/healthz").await.0, 204);
    signal(&server.child, Signal::TERM);
    assert_eq!(ended(&mut server.child).await.code(), Some(0));

    let request = collector.span("gapless.request", "route", "/v1/ws");
    assert_eq!(
        (hex(&request.trace_id), hex(&request.parent_span_id)),
        (TRACE.into(), parent.into())
    );
    assert_eq!(text(&request, "status").as_deref(), Some("101"));
    let connection = collector.span("gapless.connection", "protocol", "events");
    assert_eq!(hex(&connection.trace_id), TRACE);
    assert_eq!(connection.parent_span_id, request.span_id);
    assert_eq!(text(&connection, "agent").as_deref(), Some("demo"));
    assert!(connection.end_time_unix_nano >= connection.start_time_unix_nano);
    // Without a caller it is a trace of its own.
    let health = collector.span("gapless.request", "status", "204");
    assert_ne!(hex(&health.trace_id), TRACE);
    assert!(health.parent_span_id.is_empty());
    assert_eq!(collector.service().as_deref(), Some("gapless"));
    let told = format!("{:?}", collector.spans());
    assert!(!told.contains(&server.token("subscriber")), "no token is told");
}

#[tokio::test]
async fn a_collector_that_does_not_answer_holds_no_server_up() {
    // Connections wait in the system's queue.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let mut server = Server::start_with(&["--otlp-endpoint", &url]).await;
    assert_eq!(server.get("/healthz").await.0, 204);
    signal(&server.child, Signal::TERM);
    assert_eq!(ended(&mut server.child).await.code(), Some(0));
    assert!(server.log().contains("the last spans were not exported"), "{}", server.log());
    drop(listener);
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_told_in_the_log() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", free.local_addr().expect("bound"));
    drop(free);
    let mut server = Server::start_with(&["--otlp-endpoint", &url]).await;
    assert_eq!(server.get("/healthz").await.0, 204);
    signal(&server.child, Signal::TERM);
    assert_eq!(ended(&mut server.child).await.code(), Some(0));
    assert!(server.log().contains("spans are not exported"), "{}", server.log());
}

#[tokio::test]
async fn the_endpoint_is_an_option_like_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gapless.toml").to_str().expect("UTF-8").to_owned();
    let text = "[serve]\ndata = \"d\"\notlp-endpoint = \"http://127.0.0.1:4318\"\n";
    std::fs::write(&path, text).expect("written");
    let said = run(&["serve", "--config", &path, "--print-config"], "").await;
    let line = said.out.lines().find(|line| line.starts_with("otlp-endpoint")).expect("printed");
    assert!(line.contains("\"http://127.0.0.1:4318\"") && line.contains(&path), "{line}");
    let said = run(&["serve", "--data", "d", "--otlp-endpoint", "127.0.0.1:4318"], "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("http://host:port"), "{said:?}");
}
