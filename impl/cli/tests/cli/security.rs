//! `serve` towards those who have no business there, or take more than their share.

use std::collections::BTreeMap;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{Server, gapless, in_time, payloads, run, run_command, until};

type Socket = WebSocketStream<TcpStream>;

/// What a handshake was answered with, if it was refused.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    status: u16,
    retry_after: Option<String>,
}

async fn open(server: &Server, path: &str, origin: Option<&str>) -> Result<Socket, Refusal> {
    let stream = TcpStream::connect(server.address).await.expect("it listens");
    let url = format!("ws://{}{path}", server.address);
    let mut request = url.into_client_request().expect("valid");
    if let Some(origin) = origin {
        let origin = HeaderValue::from_str(origin).expect("valid");
        request.headers_mut().insert("origin", origin);
    }
    match in_time(tokio_tungstenite::client_async(request, stream)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(Refusal {
            status: response.status().as_u16(),
            retry_after: response
                .headers()
                .get("retry-after")
                .map(|value| value.to_str().expect("text").to_owned()),
        }),
        Err(error) => panic!("no answer: {error}"),
    }
}

fn refused(opened: Result<Socket, Refusal>) -> Refusal {
    opened.expect_err("it is refused")
}

async fn say(socket: &mut Socket, text: &str) {
    in_time(socket.send(Message::text(text))).await.expect("it is taken");
}

/// The texts that come, through the first that has something in it.
async fn texts_through(socket: &mut Socket, part: &str) -> Vec<String> {
    in_time(async {
        let mut texts = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message {
                texts.push(text.to_string());
                if text.contains(part) {
                    return texts;
                }
            }
        }
        panic!("`{part}` does not come: {texts:?}")
    })
    .await
}

/// The status of the answer to a request.
async fn ask(server: &Server, method: &str, path: &str, token: Option<&str>, body: &str) -> u16 {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{token}Content-Length: {}\r\n\r\n{body}",
        server.address,
        body.len()
    );
    in_time(async {
        let mut stream = TcpStream::connect(server.address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("UTF-8");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    })
    .await
}

/// A token with a role, which the server knows when this returns.
async fn token(server: &Server, principal: &str, role: &str) -> String {
    let file = server.path("data/tokens.toml");
    let args = ["token", "new", "--principal", principal, "--role", role, "--add", &file];
    let token = run(&args, "").await.out.trim().to_owned();
    until("the token is taken", async || {
        let path = format!("/v1/agents/{principal}/events");
        ask(server, "POST", &path, Some(&token), "").await != 401
    })
    .await;
    token
}

/// Everything in the databases and their logs.
fn databases(server: &Server) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(server.path("data")).expect("there");
    let files = files.map(|file| file.expect("there").path());
    let contents = files.filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        // The shared memory of readers holds no data.
        let is_data = name.ends_with(".db") || name.ends_with(".db-wal");
        is_data.then(|| (name, std::fs::read(path).expect("there")))
    });
    contents.collect()
}

#[tokio::test]
async fn without_a_token_no_route_changes_a_database() {
    let server = Server::start().await;
    let event = r#"{"type":"note","payload":{"n":1},"id":"x"}"#;
    let batch = format!(r#"{{"events":[{event}]}}"#);
    let task = r#"{"id":"t","agent":"demo","command":"true"}"#;
    let result = r#"{"message_id":"m","execution_attempt_id":"a","status":"completed"}"#;
    // What a start stores is stored.
    until("nothing is written any more", async || {
        let before = databases(&server);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        databases(&server) == before
    })
    .await;
    let before = databases(&server);
    assert!(before.len() >= 3, "{:?}", before.keys());
    let mut asked = 0;
    for token in [None, Some("wrong"), Some("wrong@demo")] {
        for (method, path, body) in [
            ("POST", "/v1/agents/demo/events", event),
            ("POST", "/v1/agents/demo/events/batch", batch.as_str()),
            ("GET", "/v1/ws", ""),
            ("POST", "/v1/tasks", task),
            ("GET", "/v1/tasks/t", ""),
            ("DELETE", "/v1/tasks/t", ""),
            ("POST", "/v1/tasks/t/attempts", r#"{"after":1}"#),
            ("GET", "/v1/tasks/t/attempts/a/stdout", ""),
            ("GET", "/api/v1/agents/ws", ""),
            ("GET", "/api/v1/agents/demo/tasks", ""),
            ("PUT", "/api/v1/tasks/t", result),
            ("GET", "/ws", ""),
        ] {
            assert_eq!(ask(&server, method, path, token, body).await, 401, "{method} {path}");
            asked += 1;
        }
        let query = token.map(|token| format!("?token={token}")).unwrap_or_default();
        for path in ["/v1/ws", "/ws", "/api/v1/agents/ws"] {
            let refusal = refused(open(&server, &format!("{path}{query}"), None).await);
            assert_eq!(refusal.status, 401, "{path}");
            asked += 1;
        }
    }
    assert_eq!(asked, 45);
    assert!(databases(&server) == before, "something was stored");
    // The same request with a token does change them: the comparison sees it.
    let publisher = server.token("publisher");
    let status = ask(&server, "POST", "/v1/agents/demo/events", Some(&publisher), event).await;
    assert_eq!(status, 201);
    assert!(databases(&server) != before, "an event is seen in the databases");
}

#[tokio::test]
async fn a_page_from_elsewhere_gets_no_websocket_and_a_page_that_is_named_does() {
    let server =
        Server::start_with(&["--allow-origin", "https://app.example,http://b.example"]).await;
    let (reader, user) = (server.token("subscriber"), server.token("user"));
    let here = format!("http://{}", server.address);
    for path in [format!("/v1/ws?token={reader}@demo"), format!("/ws?token={user}")] {
        for origin in
            [None, Some(here.as_str()), Some("https://app.example"), Some("http://b.example")]
        {
            assert!(open(&server, &path, origin).await.is_ok(), "{origin:?}");
        }
        for origin in
            ["https://evil.example", "http://127.0.0.1", "https://app.example:8443", "null"]
        {
            assert_eq!(refused(open(&server, &path, Some(origin)).await).status, 403, "{origin}");
        }
    }
    assert_eq!(server.metric("gapless_marks_total{mark=\"net.origin_refused\"}").await, Some(8));
}

#[tokio::test]
async fn who_has_too_many_connections_is_told_when_to_ask_again_and_others_are_served() {
    let limits = ["--max-connections-per-principal", "2", "--max-connections", "3"];
    let server = Server::start_with(&limits).await;
    let path = format!("/v1/ws?token={}@demo", server.token("subscriber"));
    let other = format!("/ws?token={}", server.token("user"));
    let busy = Refusal { status: 503, retry_after: Some("5".to_owned()) };
    let first = open(&server, &path, None).await.expect("there is room");
    let _second = open(&server, &path, None).await.expect("there is room");
    assert_eq!(refused(open(&server, &path, None).await), busy, "of one principal");
    let _third = open(&server, &other, None).await.expect("another principal");
    assert_eq!(refused(open(&server, &other, None).await), busy, "of all");
    drop(first);
    until("there is room again", async || open(&server, &path, None).await.is_ok()).await;
}

#[tokio::test]
async fn who_sends_more_frames_than_allowed_is_closed_with_1008() {
    let server = Server::start_with(&["--max-frame-rate", "5"]).await;
    for path in [
        format!("/v1/ws?token={}@demo", server.token("subscriber")),
        format!("/ws?token={}", server.token("user")),
    ] {
        let mut socket = open(&server, &path, None).await.expect("let in");
        for _ in 0..200 {
            // It may be closed before the last.
            let _ = socket.send(Message::text(r#"{"type":"ping"}"#)).await;
        }
        let code = in_time(async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Close(frame))) => break frame.map(|it| u16::from(it.code)),
                    Some(Ok(_)) => {}
                    other => panic!("no close frame: {other:?}"),
                }
            }
        });
        assert_eq!(code.await, Some(1008));
    }
}

#[tokio::test]
async fn what_one_principal_has_another_cannot_read_or_move() {
    let server = Server::start().await;
    // A cursor of a stream: the stream follows from the token.
    let reader = token(&server, "reader", "subscribe:other").await;
    server.publish(&[], &payloads(1, 3)).await;
    let refusal = refused(open(&server, &format!("/v1/ws?token={reader}@demo"), None).await);
    assert_eq!(refusal.status, 403);
    let path = format!("/v1/ws?token={reader}");
    let mut socket = open(&server, &path, None).await.expect("its own stream");
    say(&mut socket, r#"{"type":"resync","last_seen_seq":0}"#).await;
    let texts = texts_through(&mut socket, "resync_ack").await;
    assert!(texts.iter().all(|text| !text.contains("\"n\":")), "{texts:?}");

    // The id of an event.
    let rival = token(&server, "rival", "publish").await;
    let event = r#"{"type":"note","payload":{"n":1},"id":"mine"}"#;
    let (events, publisher) = ("/v1/agents/demo/events", server.token("publisher"));
    assert_eq!(ask(&server, "POST", events, Some(&publisher), event).await, 201);
    assert_eq!(ask(&server, "POST", events, Some(&rival), event).await, 409);
    let again = ask(&server, "POST", events, Some(&publisher), event).await;
    assert!(matches!(again, 200 | 201), "{again}");

    // The client id of a conversation, and its cursor.
    let stranger = token(&server, "stranger", "user").await;
    let tab = |token: &str| format!("/ws?token={token}&client_id=tab&since=0");
    let mut own = open(&server, &tab(&server.token("user")), None).await.expect("let in");
    say(&mut own, r#"{"type":"user_message","text":"of-the-user"}"#).await;
    texts_through(&mut own, "agent_progress").await;
    let mut others = open(&server, &tab(&stranger), None).await.expect("let in");
    say(&mut others, r#"{"type":"ack","seq":1000}"#).await;
    say(&mut others, r#"{"type":"user_message","text":"of-the-stranger"}"#).await;
    let texts = texts_through(&mut others, "agent_progress").await;
    assert!(texts.iter().all(|text| !text.contains("of-the-user")), "{texts:?}");
    // The first connection has not lost its place, nor its frames.
    say(&mut own, r#"{"type":"user_message","text":"more-of-the-user"}"#).await;
    let texts = texts_through(&mut own, "agent_progress").await;
    assert!(texts.iter().all(|text| !text.contains("of-the-stranger")), "{texts:?}");
}

#[tokio::test]
async fn no_token_is_in_a_log_at_any_level_or_in_the_metrics() {
    let server = Server::start_with(&["--log-level", "trace"]).await;
    let tokens = ["publisher", "subscriber", "user"].map(|name| server.token(name));
    let [publisher, subscriber, user] = &tokens;
    let mut said = server.publish(&["--log-level", "trace"], &payloads(1, 3)).await.err;
    let output = server.path("output");
    let tail = ["--output", &output, "--count", "3", "--log-level", "trace"];
    said += &run_command(server.tail(&tail), "").await.err;
    // A wrong one may be a right one elsewhere.
    let wrong = "wrong-but-a-secret-all-the-same";
    let file = server.path("wrong.token");
    std::fs::write(&file, wrong).expect("written");
    let (url, cursor) = (server.url(), server.path("cursor-2"));
    let args = ["tail", "--url", &url, "--token-file", &file, "--agent", "demo"];
    let mut refused_tail = gapless(&args);
    refused_tail.args(["--cursor", &cursor, "--log-level", "trace"]);
    said += &run_command(refused_tail, "").await.err;
    for path in [
        format!("/v1/ws?token={subscriber}@demo"),
        format!("/ws?token={user}"),
        format!("/v1/ws?token={wrong}"),
        format!("/ws?token={wrong}"),
    ] {
        let _ = open(&server, &path, None).await;
    }
    ask(&server, "GET", &format!("/?token={user}"), None, "").await;
    ask(&server, "POST", "/v1/tasks", Some(wrong), "{}").await;
    ask(&server, "POST", "/v1/agents/demo/events", Some(publisher), "{").await;
    let log = server.log();
    assert!(log.contains("serving") && said.contains("connected"), "{log}\n{said}");
    let (_, metrics) = server.get("/metrics").await;
    for token in tokens.iter().map(String::as_str).chain([wrong]) {
        for (place, text) in [("server", &log), ("clients", &said), ("metrics", &metrics)] {
            assert!(!text.contains(token), "{place}: {token}");
        }
    }
}

/// The code of the close frame that comes.
async fn closed(socket: &mut Socket) -> Option<u16> {
    in_time(async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => break frame.map(|it| u16::from(it.code)),
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    })
    .await
}

/// Waits until the server serves a socket, which is later than it let it in.
async fn answered(socket: &mut Socket) {
    in_time(async {
        socket.send(Message::text(r#"{"type":"ping"}"#)).await.expect("it is taken");
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) if text.contains("pong") => break,
                Some(Ok(_)) => {}
                other => panic!("no answer: {other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_or_closed_at_a_limit_is_counted_by_its_status_or_code() {
    let server = Server::start_with(&["--sockets-per-agent", "1"]).await;
    let path = format!("/v1/ws?token={}@demo", server.token("subscriber"));
    let mut oldest = open(&server, &path, None).await.expect("let in");
    answered(&mut oldest).await;
    let mut newest = open(&server, &path, None).await.expect("let in");
    assert_eq!(closed(&mut oldest).await, Some(4002));
    // Twice the limit, and all of it: the code comes although the server does not read that far.
    let message = Message::text("x".repeat(2 << 20));
    in_time(newest.send(message)).await.expect("it is taken");
    assert_eq!(closed(&mut newest).await, Some(1009));

    let (events, publisher) = ("/v1/agents/demo/events", server.token("publisher"));
    let large = format!(r#"{{"type":"note","payload":{{"t":"{}"}}}}"#, "x".repeat(70 << 10));
    assert_eq!(ask(&server, "POST", events, Some(&publisher), &large).await, 413);
    let event = r#"{"type":"note","payload":{}}"#;
    let batch = format!(r#"{{"events":[{}]}}"#, vec![event; 257].join(","));
    let batches = format!("{events}/batch");
    assert_eq!(ask(&server, "POST", &batches, Some(&publisher), &batch).await, 413);
    let task = format!(r#"{{"id":"t","agent":"a","command":"{}"}}"#, "x".repeat(300 << 10));
    assert_eq!(ask(&server, "POST", "/v1/tasks", Some(&publisher), &task).await, 413);
    assert_eq!(ask(&server, "GET", "/v1/tasks?limit=101", Some(&publisher), "").await, 400);

    for (metric, count) in [
        ("gapless_closes_total{protocol=\"events\",code=\"4002\"}", 1),
        ("gapless_closes_total{protocol=\"events\",code=\"1009\"}", 1),
        ("gapless_responses_total{status=\"413\"}", 3),
        ("gapless_responses_total{status=\"400\"}", 1),
        ("gapless_responses_total{status=\"101\"}", 2),
        ("gapless_marks_total{mark=\"events.oldest_socket_closed\"}", 1),
    ] {
        assert_eq!(server.metric(metric).await, Some(count), "{metric}");
    }
}

#[test]
fn every_mark_of_the_manual_is_one() {
    let manual = include_str!("../../../../docs/serve.md");
    let marks = gapless::marks::all();
    let table = manual.split("## Limits").nth(1).expect("there is one");
    let table = table.split("## The data folder").next().expect("it ends");
    let names: Vec<&str> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            ["net.", "events.", "tasks.", "session."].iter().any(|it| word.starts_with(it))
        })
        .collect();
    assert!(names.len() > 10, "{names:?}");
    let unknown: Vec<_> = names.iter().filter(|name| !marks.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
