//! `chat`: lines in, the conversation out, whoever is killed.

use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::{
    Said, Server, ended, gapless, in_time, lines, run, run_command, signal, until,
};

fn chat(server: &Server) -> Command {
    let (url, token, data) = (server.url(), server.path("data/user.token"), server.path("chat"));
    gapless(&["chat", "--url", &url, "--token-file", &token, "--data", &data])
}

fn spoken(said: &Said) -> Vec<&str> {
    said.out.lines().collect()
}

const ONE_WORD: [&str; 5] = [
    "you: hello",
    "reply: That is one word.",
    "reply: Backwards: olleh",
    "reply: Reload the page or restart the server while I speak: nothing is lost, nothing comes twice.",
    "reply: Write “ask me about …” and I will ask you.",
];

#[tokio::test]
async fn a_pipe_is_a_conversation_with_answers_and_the_next_start_shows_it() {
    let server = Server::start().await;
    let said = run_command(chat(&server), "hello\n\nask me about tea\ngreen\n").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut all = ONE_WORD.to_vec();
    all.extend(["you: ask me about tea", "question: What do you say about tea?"]);
    all.extend(["you answer: green", "reply: “green”, then."]);
    all.push("reply: Thank you. I have written that down.");
    assert_eq!(spoken(&said), all, "{}", said.err);
    assert!(said.err.contains("connected"), "{said:?}");
    let again = run_command(chat(&server), "").await;
    assert_eq!((again.code, spoken(&again)), (Some(0), all), "{}", again.err);
}

#[tokio::test]
async fn what_is_said_is_said_once_when_client_and_server_are_killed() {
    let mut server = Server::start().await;
    let mut first = chat(&server);
    let (out, err) = (server.path("chat.out"), server.path("chat.err"));
    let file = |path: &str| std::fs::File::create(path).expect("a file");
    first.stdin(Stdio::piped()).stdout(file(&out)).stderr(file(&err));
    let mut first = first.spawn().expect("it starts");
    let mut stdin = first.stdin.take().expect("piped");
    stdin.write_all(b"hello\n").await.expect("it reads");
    until("it is heard", async || lines(&out).contains(&"you: hello".to_owned())).await;
    server.kill().await;
    in_time(first.kill()).await.expect("it runs");
    server.restart().await;
    let said = run_command(chat(&server), "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let heard = |text: &str| spoken(&said).iter().filter(|line| **line == text).count();
    assert_eq!(heard("you: hello"), 1, "{said:?}");
    // The turn was cut short; what was said of it is there once.
    assert!(ONE_WORD[1..].iter().all(|line| heard(line) <= 1), "{said:?}");
}

#[tokio::test]
async fn what_was_kept_without_a_server_is_said_once_by_the_next_start() {
    let mut server = Server::start().await;
    let mut first = chat(&server);
    let err = server.path("chat.err");
    first.args(["--log-level", "debug"]).stdin(Stdio::piped()).stdout(Stdio::null());
    first.stderr(std::fs::File::create(&err).expect("a file"));
    let mut first = first.spawn().expect("it starts");
    until("it is connected", async || lines(&err).contains(&"connected".to_owned())).await;
    signal(&server.child, Signal::STOP);
    let mut stdin = first.stdin.take().expect("piped");
    stdin.write_all(b"hello\n").await.expect("it reads");
    // With the server stopped, it can only be kept here.
    until("it is taken", async || lines(&err).iter().any(|line| line.contains("taken"))).await;
    signal(&first, Signal::TERM);
    assert_eq!(ended(&mut first).await.code(), Some(0));
    let told = std::fs::read_to_string(&err).expect("there");
    assert!(told.contains("1 things are not confirmed yet"), "{told}");
    server.kill().await;
    server.restart().await;
    let said = run_command(chat(&server), "").await;
    assert_eq!((said.code, spoken(&said)), (Some(0), ONE_WORD.to_vec()), "{}", said.err);
}

#[tokio::test]
async fn two_chats_do_not_share_a_folder_and_a_wrong_token_is_told() {
    let server = Server::start().await;
    let mut first = chat(&server);
    let err = server.path("chat.err");
    first.stdin(Stdio::piped()).stdout(Stdio::null());
    first.stderr(std::fs::File::create(&err).expect("a file"));
    let mut first = first.spawn().expect("it starts");
    until("it is connected", async || lines(&err).contains(&"connected".to_owned())).await;
    let said = run_command(chat(&server), "").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("in use by another chat"), "{said:?}");
    in_time(first.kill()).await.expect("it runs");
    let (url, token, data) =
        (server.url(), server.path("data/publisher.token"), server.path("other"));
    let said = run(&["chat", "--url", &url, "--token-file", &token, "--data", &data], "").await;
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.err.contains("role `user`"), "{said:?}");
}
