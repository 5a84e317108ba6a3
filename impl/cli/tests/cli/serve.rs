//! `serve`: who is let in, what it says, and how it ends.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Server, ended, in_time, run, signal, until};

type Socket = WebSocketStream<TcpStream>;

async fn connect(server: &Server, path: &str) -> Result<Socket, String> {
    let stream = TcpStream::connect(server.address).await.expect("it listens");
    let url = format!("ws://{}{path}", server.address);
    let opened = tokio_tungstenite::client_async(url, stream).await;
    opened.map(|(socket, _)| socket).map_err(|error| error.to_string())
}

/// Reads to the end; the code of the close frame.
async fn close_code(socket: &mut Socket) -> Option<u16> {
    in_time(async {
        let mut code = None;
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(frame) = message {
                code = frame.map(|frame| u16::from(frame.code));
            }
        }
        code
    })
    .await
}

#[tokio::test]
async fn a_server_that_is_stopped_says_goodbye_on_every_protocol_and_exits_with_0() {
    for stop in [Signal::TERM, Signal::INT] {
        let mut server = Server::start().await;
        let (reader, user) = (server.token("subscriber"), server.token("user"));
        let mut events =
            connect(&server, &format!("/v1/ws?token={reader}@demo")).await.expect("in");
        let mut session = connect(&server, &format!("/ws?token={user}")).await.expect("let in");
        until("both are counted", async || {
            let count = |protocol| format!("gapless_connections{{protocol=\"{protocol}\"}}");
            server.metric(&count("events")).await == Some(1)
                && server.metric(&count("sessions")).await == Some(1)
        })
        .await;
        signal(&server.child, stop);
        let codes = tokio::join!(close_code(&mut events), close_code(&mut session));
        assert_eq!(codes, (Some(1001), Some(1001)));
        assert_eq!(ended(&mut server.child).await.code(), Some(0));
        assert!(server.log().contains("drained"), "{}", server.log());
        assert!(TcpStream::connect(server.address).await.is_err(), "it accepts no more");
    }
}

#[tokio::test]
async fn a_turn_that_takes_longer_than_the_drain_does_not_hold_the_server_up() {
    let mut server = Server::start_with(&["--drain", "300ms"]).await;
    let user = server.token("user");
    let mut session = connect(&server, &format!("/ws?token={user}")).await.expect("let in");
    let say = r#"{"type":"user_message","text":"hello to the demo, which is slow"}"#;
    futures_util::SinkExt::send(&mut session, Message::text(say)).await.expect("sent");
    let answered = in_time(async {
        while let Some(Ok(message)) = session.next().await {
            if message.to_text().is_ok_and(|text| text.contains("agent_progress")) {
                return true;
            }
        }
        false
    });
    assert!(answered.await, "the turn does not begin");
    signal(&server.child, Signal::TERM);
    assert_eq!(ended(&mut server.child).await.code(), Some(0));
    assert!(server.log().contains("not everything had come to its end"), "{}", server.log());
}

#[tokio::test]
async fn a_token_is_taken_once_it_is_in_the_file_and_a_bad_file_changes_nothing() {
    let server = Server::start().await;
    let tokens = server.path("data/tokens.toml");
    let good = std::fs::read_to_string(&tokens).expect("there");
    let new = ["token", "new", "--principal", "late", "--role", "subscribe:late", "--add", &tokens];
    let token = run(&new, "").await.out.trim().to_owned();
    let path = format!("/v1/ws?token={token}");
    until("the new token is taken", async || connect(&server, &path).await.is_ok()).await;
    let mut open = connect(&server, &path).await.expect("let in");

    std::fs::write(&tokens, "[[token]]\nsha256 = \"no hash\"").expect("written");
    let failed = "gapless_token_reloads_total{result=\"failed\"}";
    until("the bad file is seen", async || server.metric(failed).await == Some(1)).await;
    assert!(server.log().contains("the tokens from before hold on"), "{}", server.log());
    assert!(connect(&server, &path).await.is_ok());

    std::fs::write(&tokens, good).expect("written");
    signal(&server.child, Signal::HUP);
    until("the old file is seen", async || connect(&server, &path).await.is_err()).await;
    let refused = connect(&server, &path).await.expect_err("its token is gone");
    assert!(refused.contains("401"), "{refused}");
    // What is open stays open: the demo of a stream that nobody publishes to answers a ping.
    futures_util::SinkExt::send(&mut open, Message::text(r#"{"type":"ping"}"#))
        .await
        .expect("sent");
    let pong = in_time(open.next()).await.expect("a frame").expect("open");
    assert!(pong.to_text().is_ok_and(|text| text.contains("pong")), "{pong:?}");
}

#[tokio::test]
async fn a_token_opens_only_what_its_roles_say() {
    let server = Server::start().await;
    let (reader, publisher) = (server.token("subscriber"), server.token("publisher"));
    for (path, status) in [
        (format!("/v1/ws?token={reader}"), "403"),
        (format!("/v1/ws?token={publisher}@demo"), "403"),
        ("/v1/ws?token=wrong@demo".to_owned(), "401"),
        ("/v1/ws".to_owned(), "401"),
        (format!("/ws?token={reader}"), "401"),
        ("/api/v1/agents/ws".to_owned(), "401"),
    ] {
        let refused = connect(&server, &path).await.expect_err("it is not allowed");
        assert!(refused.contains(status), "{path}: {refused}");
    }
    assert_eq!(server.get("/v1/tasks/none?token=wrong").await.0, 401);
    assert_eq!(server.get(&format!("/v1/tasks/none?token={reader}")).await.0, 403);
    assert_eq!(server.get(&format!("/v1/tasks/none?token={publisher}")).await.0, 404);
}

#[tokio::test]
async fn a_port_that_is_taken_and_a_folder_in_use_are_told_with_a_remedy() {
    let server = Server::start().await;
    let (address, data) = (server.address.to_string(), server.path("data"));
    let said = run(&["serve", "--data", &server.path("other"), "--listen", &address], "").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains(&address) && said.err.contains("`--listen`"), "{said:?}");
    let said = run(&["serve", "--data", &data, "--listen", "127.0.0.1:0"], "").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("in use by another server (process"), "{said:?}");
}

#[tokio::test]
async fn without_a_token_file_it_listens_on_loopback_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").to_str().expect("UTF-8").to_owned();
    let said = run(&["serve", "--data", &data, "--listen", "0.0.0.0:0"], "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("`--tokens`"), "{said:?}");
    assert!(!folder.path().join("data/tokens.toml").exists());
}

#[tokio::test]
async fn the_health_is_answered_and_the_metrics_are_those_of_the_manual() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await.0, 204);
    server.publish(&[], "{\"n\":1}\n").await;
    let tail = server.tail(&["--count", "1"]);
    assert_eq!(crate::support::run_command(tail, "").await.code, Some(0));
    let (status, text) = server.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let shown: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            _ => name.to_owned(),
        })
        .collect();
    let manual = include_str!("../../../../docs/serve.md");
    let documented: BTreeSet<String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `gapless_"))
        .map(|line| format!("gapless_{}", line.split(['`', '{']).next().unwrap_or_default()))
        .collect();
    let undocumented: Vec<_> = shown.difference(&documented).collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
    // Those with labels appear when they have something to say.
    let has_labels = |name: &str| manual.contains(&format!("| `{name}{{"));
    let unknown: Vec<_> = documented.difference(&shown).filter(|name| !has_labels(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert_eq!(server.metric("gapless_events_appended_total").await, Some(1));
    assert_eq!(server.metric("gapless_events_replayed_total").await, Some(1));
    assert_eq!(server.metric("gapless_resyncs_total{verdict=\"replay\"}").await, Some(1));
    let mark = "gapless_marks_total{mark=\"events.replay_from_log\"}";
    assert_eq!(server.metric(mark).await, Some(1));
    assert!(server.metric("gapless_sent_bytes_total").await > Some(100));
}

#[tokio::test]
async fn no_token_is_in_a_log_of_whatever_level() {
    let mut server = Server::start_with(&["--log-format", "json", "--log-level", "trace"]).await;
    let tokens: Vec<_> = ["publisher", "subscriber", "user"].map(|name| server.token(name)).into();
    server.publish(&["--log-level", "trace"], "{\"n\":1}\n").await;
    let tail = server.tail(&["--count", "1", "--log-level", "trace"]);
    let said = crate::support::run_command(tail, "").await;
    let user = &tokens[2];
    let session = connect(&server, &format!("/ws?token={user}")).await.expect("let in");
    drop(session);
    signal(&server.child, Signal::TERM);
    ended(&mut server.child).await;
    let log = server.log();
    assert!(log.lines().count() > 1, "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
    }
    for token in &tokens {
        assert!(!log.contains(token) && !said.err.contains(token));
    }
}
