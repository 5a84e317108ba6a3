//! What was said last arrives, whatever else the peer has sent, and nobody is waited for without end.
#![cfg(feature = "net")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use gapless::net::http::{self, HttpConfig, Service};
use gapless::net::{
    Limits, LingerConfig, Lingering, Listener as _, OpenSockets, Socket, SocketEvent,
};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// More than a server reads of a message that is over the limit, in bytes.
const TOO_MUCH: usize = 3 << 20;

/// Answers without a look at the body; sockets are closed with 1009 at the first message over 1 KiB.
#[derive(Clone)]
struct Abrupt;

impl Service for Abrupt {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let limits = Limits { message_bytes_max: 1024, ..Limits::default() };
        let Ok(upgrade) = http::upgrade(request, None, &limits) else {
            return http::error(StatusCode::PAYLOAD_TOO_LARGE, "too much");
        };
        tokio::spawn(async move {
            let Some(stream) = upgrade.pending.open().await else { return };
            let mut socket = Socket::new(stream, &limits);
            while !matches!(socket.next(true).await, SocketEvent::Closed { .. }) {}
            socket.close(1009, "too much").await;
        });
        upgrade.response
    }
}

async fn listen(config: LingerConfig) -> (SocketAddr, OpenSockets) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let listener = Lingering::new(listener, config);
    let lingerers = listener.lingerers().clone();
    tokio::spawn(http::serve(listener, Abrupt, HttpConfig::default(), std::future::pending()));
    (address, lingerers)
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes too long")
}

/// A connection whose end here holds little, so that it is still sending when the server has seen enough.
async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(16 << 10).expect("it has one");
    socket.connect(address).await.expect("it listens")
}

/// A text frame with so many bytes, masked with zeros.
fn frame(bytes: usize) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 127];
    frame.extend((bytes as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.resize(frame.len() + bytes, b'x');
    frame
}

#[tokio::test]
async fn the_code_of_a_close_frame_arrives_behind_a_message_that_nobody_reads() {
    let (address, lingerers) = listen(LingerConfig::default()).await;
    for _ in 0..3 {
        let stream = connect(address).await;
        let url = format!("ws://{address}/");
        let (mut socket, _) =
            tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket");
        // All of it, and only then is anything read.
        in_time(socket.get_mut().write_all(&frame(TOO_MUCH))).await.expect("it is taken");
        let message = in_time(socket.next()).await.expect("it goes on").expect("no reset");
        let Message::Close(Some(frame)) = message else { panic!("{message:?}") };
        assert_eq!(u16::from(frame.code), 1009);
        drop(socket);
        in_time(lingerers.none()).await;
    }
}

#[tokio::test]
async fn the_answer_to_a_request_arrives_though_nobody_reads_its_body() {
    let (address, _) = listen(LingerConfig::default()).await;
    for _ in 0..3 {
        let mut stream = connect(address).await;
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {TOO_MUCH}\r\n\r\n");
        let mut request = head.into_bytes();
        request.resize(request.len() + TOO_MUCH, b'x');
        in_time(stream.write_all(&request)).await.expect("it is taken");
        let mut answer = String::new();
        in_time(stream.read_to_string(&mut answer)).await.expect("no reset");
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

/// A connection that the server has let go of, and the client has not.
async fn abandoned(config: LingerConfig) -> (TcpStream, OpenSockets) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut listener = Lingering::new(listener, config);
    let client = TcpStream::connect(address).await.expect("it listens");
    drop(in_time(listener.accept()).await.expect("a connection"));
    (client, listener.lingerers().clone())
}

#[tokio::test]
async fn a_peer_that_waits_for_the_end_sees_it_while_it_is_waited_for() {
    let config = LingerConfig { time: PATIENCE * 2, ..LingerConfig::default() };
    let (mut client, lingerers) = abandoned(config).await;
    assert_eq!(in_time(client.read(&mut [0; 8])).await.expect("no reset"), 0);
    drop(client);
    in_time(lingerers.none()).await;
}

#[tokio::test]
async fn a_peer_that_never_closes_is_waited_for_as_long_as_said() {
    let config = LingerConfig { time: Duration::from_millis(50), ..LingerConfig::default() };
    let (client, lingerers) = abandoned(config).await;
    assert_eq!(lingerers.count(), 1);
    in_time(lingerers.none()).await;
    drop(client);
}

#[tokio::test]
async fn a_peer_that_sends_without_end_is_read_as_far_as_said() {
    let config = LingerConfig { time: PATIENCE * 2, bytes_max: 1 << 20, connections_max: 1 };
    let (mut client, lingerers) = abandoned(config).await;
    let endless = async { while client.write_all(&[0; 4096]).await.is_ok() {} };
    in_time(endless).await;
    in_time(lingerers.none()).await;
}

#[tokio::test]
async fn no_more_connections_linger_than_said_and_none_that_the_peer_has_closed() {
    let config = LingerConfig { connections_max: 0, ..LingerConfig::default() };
    let (_client, lingerers) = abandoned(config).await;
    assert_eq!(lingerers.count(), 0);

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut listener = Lingering::new(listener, LingerConfig::default());
    let client = TcpStream::connect(address).await.expect("it listens");
    let mut stream = in_time(listener.accept()).await.expect("a connection");
    drop(client);
    assert_eq!(in_time(stream.read(&mut [0; 8])).await.expect("its end"), 0);
    drop(stream);
    assert_eq!(listener.lingerers().count(), 0);
}
