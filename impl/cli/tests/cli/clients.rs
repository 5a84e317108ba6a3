//! `publish` and `tail`: what they say when it does not work.

use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;

use crate::support::{
    Server, assert_events, gapless, in_time, payloads, run, run_command, signal, until,
};

#[tokio::test]
async fn a_wrong_token_is_told_at_once_by_exit_code_4() {
    let server = Server::start().await;
    let (url, wrong) = (server.url(), server.path("wrong.token"));
    std::fs::write(&wrong, "not-the-token-of-anybody\n").expect("written");
    let common = ["--url", &url, "--token-file", &wrong, "--agent", "demo"];
    let said = run(&[&["publish"], &common[..]].concat(), "{}\n").await;
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.err.contains("401") && !said.err.contains("not-the-token"), "{said:?}");
    let cursor = server.path("cursor");
    let tail = [&["tail"], &common[..], &["--cursor", &cursor]].concat();
    let said = run(&tail, "").await;
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.err.contains("401") && !said.err.contains("not-the-token"), "{said:?}");
}

#[tokio::test]
async fn the_token_is_that_of_the_flag_then_of_the_environment() {
    let server = Server::start().await;
    let (url, wrong) = (server.url(), server.path("wrong.token"));
    std::fs::write(&wrong, "not-the-token-of-anybody\n").expect("written");
    let publish = ["publish", "--url", &url, "--agent", "demo"];
    let good = server.token("publisher");
    let mut command = gapless(&publish);
    command.env("GAPLESS_TOKEN", &good).env("GAPLESS_TOKEN_FILE", &wrong);
    assert_eq!(run_command(command, "{}\n").await.code, Some(0));
    let mut command = gapless(&publish);
    command.env("GAPLESS_TOKEN", &good).args(["--token-file", &wrong]);
    assert_eq!(run_command(command, "{}\n").await.code, Some(4));
    let said = run_command(gapless(&publish), "{}\n").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("GAPLESS_TOKEN"), "{said:?}");
}

#[tokio::test]
async fn a_line_that_is_refused_ends_it_and_the_lines_before_are_published() {
    let server = Server::start().await;
    let said = server.publish(&[], "{\"n\":1}\n{\"n\":2}\n[3]\n{\"n\":4}\n").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("published 2 events, up to line 2"), "{said:?}");
    assert!(said.err.contains("line 3 does not begin"), "{said:?}");
    let reserved = format!("{}{{\"agent_seq\":1}}\n{{}}\n", payloads(10, 14));
    let said = server.publish(&[], &reserved).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("published 5 events, up to line 5"), "{said:?}");
    assert!(said.err.contains("line 6") && said.err.contains("400"), "{said:?}");
    let said = server.publish(&["--id-prefix", "p"], "{\"n\":1}\n").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = server.publish(&["--id-prefix", "p"], "{\"n\":\"another\"}\n").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("line 1") && said.err.contains("409"), "{said:?}");
}

#[tokio::test]
async fn publish_waits_for_a_server_and_says_how_far_it_got_when_it_is_stopped() {
    let mut server = Server::start().await;
    server.kill().await;
    let (url, token) = (server.url(), server.path("data/publisher.token"));
    let args = ["publish", "--url", &url, "--token-file", &token, "--agent", "demo"];
    let mut command = gapless(&args);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let lines = payloads(1, 10);
    tokio::io::AsyncWriteExt::write_all(&mut stdin, lines.as_bytes()).await.expect("it reads");
    let mut stderr = child.stderr.take().expect("piped");
    let mut said = String::new();
    in_time(async {
        let mut buffer = [0; 1024];
        while !said.contains("published again") {
            let count = stderr.read(&mut buffer).await.expect("open");
            said.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    })
    .await;
    signal(&child, Signal::INT);
    in_time(stderr.read_to_string(&mut said)).await.expect("UTF-8");
    assert_eq!(in_time(child.wait()).await.expect("it ends").code(), Some(130));
    assert!(said.contains("published no events") && said.contains("SIGINT"), "{said}");
}

#[tokio::test]
async fn standard_output_gets_every_event_and_goes_on_where_it_was() {
    let server = Server::start().await;
    server.publish(&[], &payloads(1, 50)).await;
    let first = run_command(server.tail(&["--count", "20"]), "").await;
    let rest = run_command(server.tail(&["--count", "30"]), "").await;
    let lines: Vec<_> = (first.out + &rest.out).lines().map(str::to_owned).collect();
    assert_events(&lines, 1, 50);
}

#[tokio::test]
async fn a_reader_that_has_gone_ends_the_tail() {
    let server = Server::start().await;
    let mut tail = server.tail(&[]);
    let mut child = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    server.publish(&[], &payloads(1, 5)).await;
    let mut said = String::new();
    in_time(child.stderr.take().expect("piped").read_to_string(&mut said)).await.expect("UTF-8");
    assert_eq!(in_time(child.wait()).await.expect("it ends").code(), Some(1));
    assert!(said.contains("nobody reads standard output"), "{said}");
}

#[tokio::test]
async fn a_tail_that_begins_live_gets_what_comes_after_it_has_joined() {
    let server = Server::start().await;
    server.publish(&[], &payloads(1, 5)).await;
    let cursor = server.path("cursor");
    let tail = server.tail(&["--start", "live", "--count", "5"]);
    let tailing = tokio::spawn(run_command(tail, ""));
    until("it has joined", async || {
        std::fs::read_to_string(&cursor).is_ok_and(|text| text.contains("\"sequence\":5"))
    })
    .await;
    server.publish(&[], &payloads(1, 10)).await;
    let said = in_time(tailing).await.expect("no panic");
    let lines: Vec<_> = said.out.lines().map(str::to_owned).collect();
    assert_events(&lines, 6, 10);
}

#[tokio::test]
async fn a_cursor_of_another_stream_or_output_is_refused() {
    let server = Server::start().await;
    server.publish(&[], "{}\n").await;
    let output = server.path("out.jsonl");
    let said = run_command(server.tail(&["--count", "1", "--output", &output]), "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = run_command(server.tail(&["--count", "1"]), "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("belongs to the output"), "{said:?}");
    let folder = server.path("data");
    let said = run_command(server.tail(&["--output", &folder]), "").await;
    assert_eq!(said.code, Some(1), "{said:?}");
}
