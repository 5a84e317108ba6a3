//! Whether a request that was not answered may have arrived.
#![cfg(feature = "net")]

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use gapless::net::{Connector, RequestError, Requester};
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many bytes a stream holds that nobody has read.
const STREAM_BYTES: usize = 256;

/// Takes up one stream, once.
struct Once(Mutex<Option<DuplexStream>>);

impl Once {
    /// With the end of the server.
    fn new() -> (Self, DuplexStream) {
        let (client, server) = tokio::io::duplex(STREAM_BYTES);
        (Self(Mutex::new(Some(client))), server)
    }
}

impl Connector for Once {
    type Stream = DuplexStream;

    fn connect(&self) -> impl Future<Output = io::Result<DuplexStream>> + Send + 'static {
        let stream = self.0.lock().expect("no panic").take();
        async { stream.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()) }
    }
}

fn post(body: &[u8]) -> Request<Full<Bytes>> {
    let request = Request::builder().method(Method::POST).uri("/").header("host", "h");
    request.body(Full::new(Bytes::copy_from_slice(body))).expect("valid")
}

/// Reads so many bytes of a request, and answers 204 to it.
async fn answer(server: &mut DuplexStream, bytes: usize) {
    server.read_exact(&mut vec![0; bytes]).await.expect("a request");
    server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it is taken");
}

/// A requester with a request that was answered before its body was read, which is still being sent.
async fn sending() -> (Requester, Once, DuplexStream) {
    let (connector, mut server) = Once::new();
    let mut requester = Requester::new(PATIENCE);
    let body = [b'x'; 4 * STREAM_BYTES];
    let (answered, ()) =
        tokio::join!(requester.send(&connector, post(&body)), answer(&mut server, 16));
    assert_eq!(answered.expect("an answer").0, StatusCode::NO_CONTENT);
    (requester, connector, server)
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_connection_which_ends_was_not_sent() {
    let (mut requester, connector, server) = sending().await;
    let closing = async {
        // The request waits by now.
        tokio::time::sleep(PATIENCE / 2).await;
        drop(server);
    };
    let (answered, ()) = tokio::join!(requester.send(&connector, post(b"")), closing);
    assert!(matches!(answered, Err(RequestError::NotSent(_))), "{answered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_too_long_for_a_connection_was_not_sent() {
    let (mut requester, connector, _server) = sending().await;
    let answered = requester.send(&connector, post(b"")).await;
    assert!(matches!(answered, Err(RequestError::NotSent(_))), "{answered:?}");
}

#[tokio::test]
async fn a_request_on_a_connection_that_ended_unnoticed_was_not_sent() {
    let (connector, mut server) = Once::new();
    let mut requester = Requester::new(PATIENCE);
    let (answered, ()) =
        tokio::join!(requester.send(&connector, post(b"")), answer(&mut server, 16));
    assert_eq!(answered.expect("an answer").0, StatusCode::NO_CONTENT);
    // Nothing else runs on this thread before the next request is on its way to the connection.
    drop(server);
    let answered = requester.send(&connector, post(b"")).await;
    assert!(matches!(answered, Err(RequestError::NotSent(_))), "{answered:?}");
}

#[tokio::test]
async fn a_request_of_which_something_was_read_may_have_arrived() {
    let (connector, mut server) = Once::new();
    let mut requester = Requester::new(PATIENCE);
    let read = async {
        server.read_exact(&mut [0; 16]).await.expect("a request");
        drop(server);
    };
    let (answered, ()) = tokio::join!(requester.send(&connector, post(b"")), read);
    assert!(matches!(answered, Err(RequestError::Unknown(_))), "{answered:?}");
}
