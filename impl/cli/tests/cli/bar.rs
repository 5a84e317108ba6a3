//! Nothing is lost, doubled or reordered, whoever is killed.

use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;

use crate::support::{
    Server, assert_events, ended, gapless, in_time, lines, payloads, signal, until,
};

/// How many events the stream has.
const EVENTS: u64 = 5_000;

#[tokio::test]
async fn every_event_is_in_the_output_once_and_in_order_though_server_and_tail_are_killed() {
    let mut server = Server::start().await;
    let output = server.path("out.jsonl");
    let tail = || server.tail(&["--output", &output]).stderr(Stdio::null()).spawn();
    let mut tailing = tail().expect("it starts");
    let (url, token) = (server.url(), server.path("data/publisher.token"));
    let mut publish = gapless(&["publish", "--url", &url, "--token-file", &token]);
    publish.args(["--agent", "demo", "--batch", "16"]);
    let mut publishing =
        publish.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut stdin = publishing.stdin.take().expect("piped");
    // Each kill comes while a part of the input is still to be fed: in the middle of the stream.
    let mut feed = async |from: u64, to: u64| {
        in_time(stdin.write_all(payloads(from, to).as_bytes())).await.expect("it reads");
    };
    let written = |count: usize| {
        let output = output.clone();
        async move || lines(&output).len() >= count
    };

    feed(1, 1_500).await;
    until("the output grows", written(300)).await;
    tailing.kill().await.expect("it runs");
    feed(1_501, 2_500).await;
    tailing = tail().expect("it starts");
    until("the output grows after the kill of `tail`", written(1_600)).await;
    server.kill().await;
    feed(2_501, 4_000).await;
    server.restart().await;
    until("the output grows after the kill of the server", written(2_700)).await;
    let tail = || server.tail(&["--output", &output]).stderr(Stdio::null()).spawn();
    tailing.kill().await.expect("it runs");
    feed(4_001, EVENTS).await;
    tailing = tail().expect("it starts");

    drop(stdin);
    assert_eq!(ended(&mut publishing).await.code(), Some(0));
    until("the output is complete", written(EVENTS as usize)).await;
    signal(&tailing, Signal::TERM);
    assert_eq!(ended(&mut tailing).await.code(), Some(0));
    assert_events(&lines(&output), 1, EVENTS);
    assert_eq!(server.metric("gapless_gaps_total").await, Some(0));
}

#[tokio::test]
async fn the_same_input_is_published_once_however_often_it_is_given() {
    let server = Server::start().await;
    let said = server.publish(&[], &payloads(1, 300)).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("published 300 events, up to line 300"), "{said:?}");
    let said = server.publish(&[], &payloads(1, 310)).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("which has number 310"), "{said:?}");
    assert_eq!(server.metric("gapless_events_appended_total").await, Some(310));
    assert_eq!(server.metric("gapless_events_repeated_total").await, Some(300));
    let said = server.publish(&["--id-prefix", "again", "--batch", "1"], &payloads(1, 2)).await;
    assert!(said.err.contains("which has number 312"), "{said:?}");
}

#[tokio::test]
async fn a_gap_is_told_in_the_output_and_by_the_exit_code() {
    let server = Server::start_with(&["--retain-events", "16"]).await;
    let output = server.path("out.jsonl");
    server.publish(&[], &payloads(1, 3)).await;
    let first = server.tail(&["--output", &output, "--count", "3"]);
    assert_eq!(crate::support::run_command(first, "").await.code, Some(0));
    server.publish(&[], &payloads(1, 200)).await;
    let kept = server.tail(&["--output", &output, "--count", "16"]);
    let said = crate::support::run_command(kept, "").await;
    assert_eq!(said.code, Some(3), "{said:?}");
    let lines = lines(&output);
    assert_events(&lines[..3], 1, 3);
    let gap: serde_json::Value = serde_json::from_str(&lines[3]).expect("JSON");
    assert_eq!((&gap["type"], &gap["verdict"]), (&"gap".into(), &"too_old".into()), "{gap}");
    let oldest = gap["lost"][0]["to"].as_u64().expect("a number") + 1;
    assert_eq!(gap["lost"][0]["from"], 4);
    assert_events(&lines[4..], oldest, oldest + 15);
}
