//! Old and new programs with each other. `PREVIOUS_GAPLESS` names an old `gapless`, as
//! `impl/tests/previous/make command` builds it; without it nothing is tried, and that is said.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::support::{
    Said, Server, assert_events, ended, in_time, lines, payloads, program, run_command, signal,
    until,
};

/// The variable with the path of an old program.
const PREVIOUS: &str = "PREVIOUS_GAPLESS";

/// A key that need not be made.
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/keys/agent.pk8");

fn new() -> OsString {
    env!("CARGO_BIN_EXE_gapless").into()
}

/// The path of an old program, if there is one.
fn old() -> Option<OsString> {
    let path = std::env::var_os(PREVIOUS);
    match &path {
        Some(path) => assert!(PathBuf::from(path).is_file(), "{PREVIOUS} names no file"),
        None => eprintln!(
            "skipped: {PREVIOUS} is not set; `impl/tests/previous/make command` prints what to set it to"
        ),
    }
    path
}

/// What one program says to the server of another.
struct Clients<'a> {
    program: OsString,
    server: &'a Server,
}

impl Clients<'_> {
    /// A command for the server.
    fn command(&self, name: &[&str], token: &str, options: &[&str]) -> Command {
        let (url, token) = (self.server.url(), self.server.path(&format!("data/{token}.token")));
        let args = [name, &["--url", &url, "--token-file", &token], options].concat();
        program(&self.program, &args)
    }

    async fn publish(&self, from: u64, to: u64) {
        let publish = self.command(&["publish"], "publisher", &["--agent", "demo"]);
        // Whoever begins with the same lines publishes the same events.
        let said = run_command(publish, &payloads(1, to)).await;
        assert_eq!(said.code, Some(0), "{from} to {to}: {said:?}");
    }

    fn tail(&self, options: &[&str]) -> Command {
        let (cursor, output) = (self.server.path("cursor"), self.server.path("output"));
        let files = ["--agent", "demo", "--cursor", &cursor, "--output", &output];
        self.command(&["tail"], "subscriber", &[&files, options].concat())
    }

    fn agent(&self) -> Child {
        let (url, data) = (self.server.url(), self.server.path("agent"));
        let args = ["agent", "--url", &url, "--id", "worker", "--key", KEY, "--data", &data];
        program(&self.program, &args).stderr(Stdio::null()).spawn().expect("it starts")
    }

    /// Runs a task to its end.
    async fn task(&self, id: &str, command: &str) -> Said {
        let options = ["--agent", "worker", "--id", id, "--follow", command];
        run_command(self.command(&["task", "submit"], "publisher", &options), "").await
    }

    async fn chat(&self, input: &str) -> Said {
        let data = self.server.path("chat");
        run_command(self.command(&["chat"], "user", &["--data", &data]), input).await
    }
}

/// Makes the agent known to a server that runs.
async fn add_agent(server: &Server) {
    let tokens = server.path("data/tokens.toml");
    let keygen = ["agent", "keygen", "--id", "worker", "--key", KEY, "--add", &tokens];
    let said = run_command(program(&new(), &keygen), "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    until("the new entry is read", async || server.log().contains("token file was read")).await;
}

fn replies(said: &Said) -> usize {
    said.out.lines().filter(|line| line.starts_with("reply: ")).count()
}

/// Everything, with a server of one program and clients of another.
async fn serves(server: OsString, clients: OsString) {
    let server = Server::start_program(server).await;
    add_agent(&server).await;
    let clients = Clients { program: clients, server: &server };

    clients.publish(1, 500).await;
    let tailed = run_command(clients.tail(&["--count", "500"]), "").await;
    assert_eq!(tailed.code, Some(0), "{tailed:?}");
    clients.publish(501, 1_000).await;
    let tailed = run_command(clients.tail(&["--count", "500"]), "").await;
    assert_eq!(tailed.code, Some(0), "{tailed:?}");
    assert_events(&lines(&server.path("output")), 1, 1_000);

    let _agent = clients.agent();
    let said = clients.task("t", "seq 1 5000; exit 3").await;
    let all: String = (1..=5_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(said.code, Some(3), "{}", said.err);
    assert!(said.out == all, "{} bytes, {}", said.out.len(), said.err);

    let said = clients.chat("hello\n").await;
    assert_eq!((said.code, replies(&said)), (Some(0), 4), "{said:?}");
    let again = clients.chat("").await;
    assert_eq!((again.code, &again.out), (Some(0), &said.out), "{again:?}");
}

#[tokio::test]
async fn old_clients_have_all_three_protocols_of_a_new_server() {
    let Some(old) = old() else { return };
    serves(new(), old).await;
}

#[tokio::test]
async fn new_clients_have_all_three_protocols_of_an_old_server() {
    let Some(old) = old() else { return };
    serves(old, new()).await;
}

#[tokio::test]
async fn old_clients_go_on_when_the_server_is_upgraded_under_them_and_are_upgraded_themselves() {
    let Some(old) = old() else { return };
    let mut server = Server::start_program(old.clone()).await;
    add_agent(&server).await;
    let output = server.path("output");
    let ran = server.path("ran");
    let clients = Clients { program: old.clone(), server: &server };
    clients.publish(1, 500).await;
    let mut tailing = clients.tail(&[]).stderr(Stdio::null()).spawn().expect("it starts");
    let agent = clients.agent();
    let chatted = clients.chat("hello\n").await;
    assert_eq!((chatted.code, replies(&chatted)), (Some(0), 4), "{chatted:?}");
    let command = format!("echo run >> {ran}; for i in $(seq 1 40); do echo $i; sleep 0.1; done");
    let submit = ["--agent", "worker", "--id", "t", &command];
    let submitted = run_command(clients.command(&["task", "submit"], "publisher", &submit), "");
    assert_eq!(submitted.await.code, Some(0));
    until("the task runs", async || lines(&ran).len() == 1).await;
    until("the output grows", async || lines(&output).len() >= 500).await;

    // The server first, in the middle of all that.
    server.kill().await;
    server.program = new();
    server.restart().await;
    let clients = Clients { program: old.clone(), server: &server };
    clients.publish(501, 1_000).await;
    until("the old tail goes on", async || lines(&output).len() >= 1_000).await;
    let follow = clients.command(&["task", "follow"], "publisher", &["t"]);
    let followed = run_command(follow, "").await;
    let all: String = (1..=40).map(|n| format!("{n}\n")).collect();
    assert_eq!((followed.code, &followed.out), (Some(0), &all), "{followed:?}");
    let again = clients.chat("").await;
    assert_eq!((again.code, &again.out), (Some(0), &chatted.out), "{again:?}");

    // Then the clients, with what the old ones have left behind.
    signal(&tailing, Signal::TERM);
    assert_eq!(ended(&mut tailing).await.code(), Some(0));
    let mut agent = agent;
    in_time(agent.kill()).await.expect("it runs");
    let clients = Clients { program: new(), server: &server };
    clients.publish(1_001, 1_500).await;
    let tailed = run_command(clients.tail(&["--count", "500"]), "").await;
    assert_eq!(tailed.code, Some(0), "{tailed:?}");
    assert_events(&lines(&output), 1, 1_500);
    let _agent = clients.agent();
    assert_eq!(clients.task("u", "echo new").await.out, "new\n");
    assert_eq!(lines(&ran).len(), 1, "the first task has run once");
    let again = clients.chat("").await;
    assert_eq!((again.code, &again.out), (Some(0), &chatted.out), "{again:?}");
}
