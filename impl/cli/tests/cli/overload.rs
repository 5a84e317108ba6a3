//! What waits, or is turned away, because there is too much of it, is in the metrics.

use futures_util::SinkExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Server, in_time, payloads, until};

type Socket = WebSocketStream<TcpStream>;

async fn open(server: &Server, path: &str) -> Socket {
    let stream = TcpStream::connect(server.address).await.expect("it listens");
    let url = format!("ws://{}{path}", server.address);
    in_time(tokio_tungstenite::client_async(url, stream)).await.expect("let in").0
}

async fn say(socket: &mut Socket, text: String) {
    in_time(socket.send(Message::text(text))).await.expect("it is taken");
}

/// How often a mark was reached.
async fn reached(server: &Server, mark: &str) -> u64 {
    let metric = format!("gapless_marks_total{{mark=\"{mark}\"}}");
    server.metric(&metric).await.expect("marks are always there")
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_and_counted_and_one_that_is_idle_is_not_counted()
{
    let server = Server::start().await;
    let begun = ["", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"];
    let mut streams = Vec::new();
    for text in begun {
        let mut stream = TcpStream::connect(server.address).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it is taken");
        streams.push(stream);
    }
    for mut stream in streams {
        in_time(stream.read_to_end(&mut Vec::new())).await.expect("it is closed");
    }
    assert_eq!(reached(&server, "net.first_request_late").await, 2);
}

#[tokio::test]
async fn events_that_wait_for_a_socket_are_counted() {
    let server = Server::start().await;
    // More than are on their way to a socket at once.
    assert_eq!(server.publish(&[], &payloads(1, 400)).await.code, Some(0));
    assert_eq!(reached(&server, "events.waits_for_socket").await, 0);
    let path = format!("/v1/ws?token={}@demo", server.token("subscriber"));
    let mut slow = open(&server, &path).await;
    say(&mut slow, r#"{"type":"resync","last_seen_seq":0}"#.to_owned()).await;
    until("events wait", async || reached(&server, "events.waits_for_socket").await > 0).await;
}

#[tokio::test]
async fn messages_that_wait_for_their_turn_or_a_socket_are_counted() {
    let server = Server::start().await;
    let path = format!("/ws?token={}&client_id=tab", server.token("user"));
    let mut first = open(&server, &path).await;
    // One may have its turn, and ten may wait; of the others it is told that they may not.
    let mut sent = 0;
    until("messages are refused", async || {
        for _ in 0..10 {
            sent += 1;
            let input = serde_json::json!({
                "type": "user_message", "text": "hello", "client_msg_id": format!("m{sent}"),
            });
            say(&mut first, input.to_string()).await;
        }
        reached(&server, "session.queue_full").await >= 80
    })
    .await;
    drop(first);
    // Those are more frames than are on their way to a socket at once.
    let _again = open(&server, &format!("{path}&since=1")).await;
    until("a frame waits", async || reached(&server, "session.waits_for_socket").await > 0).await;
}
