//! What a listener does with those who take their time, and with too many.
#![cfg(feature = "net")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use gapless::net::http::{self, BodyError, HttpConfig, Service};
use gapless::net::{Limits, Socket};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a body in a second, and says how that went.
#[derive(Clone)]
struct Reads;

impl Service for Reads {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match http::body(request, 1_000, Duration::from_secs(1)).await {
            Ok(_) => http::empty(StatusCode::NO_CONTENT),
            Err(BodyError::TooLarge) => http::empty(StatusCode::PAYLOAD_TOO_LARGE),
            Err(BodyError::Broken) => http::empty(StatusCode::BAD_REQUEST),
        }
    }
}

#[derive(Clone)]
struct Ok204;

impl Service for Ok204 {
    async fn call(&self, _request: Request<Incoming>) -> Response<Full<Bytes>> {
        http::empty(StatusCode::NO_CONTENT)
    }
}

async fn listen(config: HttpConfig) -> SocketAddr {
    listen_with(config, Ok204).await
}

async fn listen_with(config: HttpConfig, service: impl Service) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(http::serve(listener, service, config, std::future::pending()));
    address
}

/// Sends something; what comes until the end.
async fn answer(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("it ends").expect("UTF-8");
    answer
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_request_that_does_not_come_to_its_end_is_not_waited_for() {
    let header_timeout = Duration::from_millis(100);
    let address = listen(HttpConfig { header_timeout, ..HttpConfig::default() }).await;
    for begun in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: h\r\nX-"] {
        let answer = answer(address, begun).await;
        assert!(!answer.contains(" 204 "), "{answer}");
    }
}

#[tokio::test]
async fn beyond_the_number_of_connections_requests_are_answered_503_until_there_is_room() {
    let config = HttpConfig { connections_max: 1, ..HttpConfig::default() };
    let address = listen(config).await;
    let mut first = TcpStream::connect(address).await.expect("it listens");
    first.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("it is taken");
    let mut status = [0; 12];
    first.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 204");
    for _ in 0..2 * http::REFUSALS_MAX {
        let refused = answer(address, REQUEST).await.to_ascii_lowercase();
        assert!(refused.starts_with("http/1.1 503 "), "{refused}");
        assert!(refused.contains("retry-after: 5\r\n"), "{refused}");
    }
    drop(first);
    let served = async { while !answer(address, REQUEST).await.contains(" 204 ") {} };
    tokio::time::timeout(PATIENCE, served).await.expect("there is room again");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_400_and_one_that_is_too_large_413() {
    let address = listen_with(HttpConfig::default(), Reads).await;
    let request = |length: u64, body: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let large = "x".repeat(2_000);
    for (length, body, status) in [(3, "abc", 204), (3, "ab", 400), (2_000, &*large, 413)] {
        let answer = answer(address, &request(length, body)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{length}: {answer}");
    }
}

#[tokio::test]
async fn beyond_those_that_are_told_so_connections_are_dropped() {
    let config = HttpConfig { connections_max: 1, ..HttpConfig::default() };
    let address = listen(config).await;
    let mut idle = Vec::new();
    // One is served, and the others wait to be told.
    for _ in 0..=http::REFUSALS_MAX {
        idle.push(TcpStream::connect(address).await.expect("it listens"));
    }
    let mut dropped = TcpStream::connect(address).await.expect("it listens");
    assert_eq!(read(&mut dropped).await, "", "closed without a word");
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_that_nobody_reads_is_given_up() {
    // The other end takes less than what is to be said before.
    let (stream, _peer) = tokio::io::duplex(64);
    let stream = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let limits = Limits { close_timeout: PATIENCE / 2, ..Limits::default() };
    let mut socket = Socket::new(stream, &limits);
    socket.queue("x".repeat(1_000).into());
    let closed = tokio::time::timeout(PATIENCE, socket.close(4001, "too slow")).await;
    closed.expect("nobody is waited for without end");
}
