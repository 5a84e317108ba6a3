//! `task` and `agent`: a server, an agent and whoever follows, as processes that are killed.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::support::{
    Said, Server, ended, gapless, in_time, lines, run, run_command, signal, until,
};

/// A key that need not be made.
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/keys/agent.pk8");

/// A server, and an agent that it knows.
struct World {
    server: Server,
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        let tokens = server.path("data/tokens.toml");
        let keygen = ["agent", "keygen", "--id", "worker", "--key", KEY, "--add", &tokens];
        let said = run(&keygen, "").await;
        assert_eq!(said.code, Some(0), "{said:?}");
        until("the new entry is read", async || server.log().contains("token file was read")).await;
        Self { server }
    }

    fn agent(&self, options: &[&str]) -> Child {
        let (url, data) = (self.server.url(), self.server.path("agent"));
        let mut args = vec!["agent", "--url", &url, "--id", "worker", "--key", KEY];
        args.extend(["--data", &data]);
        args.extend(options);
        let path = self.server.path("agent.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path);
        gapless(&args).stderr(log.expect("a log")).spawn().expect("it starts")
    }

    fn agent_log(&self) -> String {
        std::fs::read_to_string(self.server.path("agent.log")).unwrap_or_default()
    }

    fn task(&self, verb: &str, rest: &[&str]) -> Command {
        let (url, token) = (self.server.url(), self.server.path("data/publisher.token"));
        let mut args = vec!["task", verb, "--url", &url, "--token-file", &token];
        args.extend(rest);
        gapless(&args)
    }

    async fn ask(&self, verb: &str, rest: &[&str]) -> Said {
        run_command(self.task(verb, rest), "").await
    }

    async fn submit(&self, id: &str, command: &str) {
        let said = self.ask("submit", &["--agent", "worker", "--id", id, command]).await;
        assert_eq!((said.code, said.out.trim()), (Some(0), id), "{said:?}");
    }

    /// The state of the last attempt.
    async fn state(&self, id: &str) -> String {
        let said = self.ask("show", &["--json", id]).await;
        let status: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
        let last = status["attempts"].as_array().and_then(|attempts| attempts.last());
        last.and_then(|last| last["state"].as_str()).expect("a state").to_owned()
    }
}

#[tokio::test]
async fn the_output_and_the_exit_code_of_a_task_are_those_of_whoever_follows_it() {
    let world = World::new().await;
    let _agent = world.agent(&[]);
    let command = "echo out; echo err >&2; printf '\\377'; exit 7";
    let options = ["--agent", "worker", "--id", "t", "--follow", command];
    let mut submit = world.task("submit", &options);
    submit.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = in_time(submit.output()).await.expect("it ends");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(output.stdout, b"out\n\xff");
    assert!(String::from_utf8_lossy(&output.stderr).contains("err\n"), "{output:?}");
    // The same wish is the same task; another one is refused.
    world.submit("t", command).await;
    let said = world.ask("submit", &["--agent", "worker", "--id", "t", "echo other"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("409") && said.err.contains("hint:"), "{said:?}");
    // Another attempt is made only when it is asked for.
    let said = world.ask("retry", &["t"]).await;
    assert_eq!((said.code, said.out.trim()), (Some(0), "a2"), "{said:?}");
    until("the second attempt has ended", async || world.state("t").await == "final").await;
    let said = world.ask("show", &["t"]).await;
    assert!(said.out.contains("attempt a1: final, exit code 7"), "{said:?}");
    assert!(said.out.contains("attempt a2: final, exit code 7"), "{said:?}");
}

#[tokio::test]
async fn a_large_output_comes_whole() {
    let mut world = World::new().await;
    let _agent = world.agent(&[]);
    world.submit("t", "seq 1 300000").await;
    let said = world.ask("follow", &["t"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(said.out == expected, "{} bytes, {}", said.out.len(), said.err);
    // And the database agrees with itself.
    world.server.kill().await;
    let said = run(&["log", "verify", &world.server.path("data")], "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[tokio::test]
async fn a_task_is_run_once_and_its_output_comes_once_whoever_is_killed() {
    let mut world = World::new().await;
    let mut agent = world.agent(&[]);
    let ran = world.server.path("ran");
    let command =
        format!("echo run >> {ran}; for i in $(seq 1 80); do echo $i; sleep 0.05; done; exit 3");
    world.submit("t", &command).await;
    let all: String = (1..=80).map(|n| format!("{n}\n")).collect();

    let mut first = world.task("follow", &["t"]);
    let mut first = first.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut second = world.task("follow", &["t"]);
    let second = second.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = first.stdout.take().expect("piped");
    let mut some = [0; 4];
    in_time(stdout.read_exact(&mut some)).await.expect("output");
    world.server.kill().await;
    in_time(first.kill()).await.expect("it runs");
    world.server.restart().await;
    // The one that was there all the time, and one that came late.
    let output = in_time(second.wait_with_output()).await.expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), all);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = world.ask("follow", &["t"]).await;
    assert_eq!((said.code, said.out), (Some(3), all));

    // An agent that is killed has run what it ran; it is not run again.
    let ran_then = world.server.path("ran-then");
    world.submit("u", &format!("echo run >> {ran_then}; echo begun; sleep 2")).await;
    until("it runs", async || lines(&ran_then).len() == 1).await;
    in_time(agent.kill()).await.expect("it runs");
    let _agent = world.agent(&[]);
    let said = world.ask("follow", &["u"]).await;
    assert_eq!(said.code, Some(124), "{said:?}");
    assert!(said.err.contains("without an exit code"), "{said:?}");
    // What comes after it is run, so it would have been its turn.
    world.submit("v", "true").await;
    assert_eq!(world.ask("follow", &["v"]).await.code, Some(0));
    assert_eq!((lines(&ran).len(), lines(&ran_then).len()), (1, 1));
}

#[tokio::test]
async fn an_agent_that_is_asked_to_end_ends_what_runs_and_begins_nothing() {
    let world = World::new().await;
    let mut agent = world.agent(&[]);
    world.submit("runs", "echo begun; sleep 1; echo done").await;
    until("it runs", async || world.state("runs").await == "running").await;
    world.submit("waits", "echo later").await;
    until("it waits", async || world.state("waits").await == "received").await;
    signal(&agent, Signal::TERM);
    assert_eq!(ended(&mut agent).await.code(), Some(0), "{}", world.agent_log());
    // The result has been acknowledged before the agent has ended.
    assert_eq!(world.state("runs").await, "final");
    assert_eq!(world.state("waits").await, "received");
    let _agent = world.agent(&[]);
    let said = world.ask("follow", &["waits"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "later\n"), "{said:?}");
    let said = world.ask("follow", &["runs"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "begun\ndone\n"), "{said:?}");
}

#[tokio::test]
async fn what_runs_for_too_long_after_that_is_interrupted_and_has_a_result() {
    let world = World::new().await;
    let mut agent = world.agent(&["--drain", "100ms"]);
    world.submit("t", "echo begun; exec sleep 600").await;
    until("it runs", async || world.state("t").await == "running").await;
    signal(&agent, Signal::TERM);
    assert_eq!(ended(&mut agent).await.code(), Some(0), "{}", world.agent_log());
    let said = world.ask("follow", &["t"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(124), "begun\n"), "{said:?}");
    assert!(said.err.contains("the agent was stopped"), "{said:?}");
}

#[tokio::test]
async fn a_cancelled_task_is_not_begun_and_a_command_that_is_not_allowed_is_not_run() {
    let world = World::new().await;
    world.submit("cancelled", "echo no").await;
    let said = world.ask("cancel", &["cancelled"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "discarded\n"), "{said:?}");
    let ran = world.server.path("ran");
    let _agent = world.agent(&["--allow", "echo yes"]);
    world.submit("no", &format!("echo yes; echo > {ran}")).await;
    world.submit("yes", "echo yes").await;
    let said = world.ask("follow", &["no"]).await;
    assert_eq!(said.code, Some(126), "{said:?}");
    assert!(said.err.contains("does not allow"), "{said:?}");
    let said = world.ask("follow", &["yes"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "yes\n"), "{said:?}");
    assert!(lines(&ran).is_empty());
    assert_eq!(world.ask("follow", &["cancelled"]).await.code, Some(124));
}

#[tokio::test]
async fn what_is_wrong_is_told_with_a_code_of_its_own() {
    let world = World::new().await;
    let said = world.ask("follow", &["nothing"]).await;
    assert_eq!(said.code, Some(125), "{said:?}");
    assert!(said.err.contains("404"), "{said:?}");
    let said = world.ask("show", &["nothing"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    let said = world.ask("show", &["no good"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    let (url, user) = (world.server.url(), world.server.path("data/user.token"));
    let said = run(&["task", "show", "--url", &url, "--token-file", &user, "t"], "").await;
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.err.contains("role `tasks`"), "{said:?}");
    let (data, none) = (world.server.path("agent"), world.server.path("none.pem"));
    let agent = |key: &str| {
        run_command(
            gapless(&["agent", "--url", &url, "--id", "worker", "--key", key, "--data", &data]),
            "",
        )
    };
    let said = agent(&none).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("none.pem") && said.err.contains("keygen"), "{said:?}");
    let said = agent(&world.server.path("data/tokens.toml")).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    let said = run(&["agent", "--url", &url], "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("--key"), "{said:?}");
    let mut first = world.agent(&[]);
    until("it is there", async || world.agent_log().contains("in step")).await;
    let said = agent(KEY).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("in use by another agent"), "{said:?}");
    first.kill().await.expect("it runs");
}

#[tokio::test]
async fn a_fresh_key_is_private_and_lets_its_agent_in() {
    let server = Server::start().await;
    let (key, tokens) = (server.path("worker.pem"), server.path("data/tokens.toml"));
    let keygen = ["agent", "keygen", "--id", "worker", "--key", &key];
    let said = run(&[&keygen[..], &["--add", &tokens]].concat(), "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let mode = std::fs::metadata(&key).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A second time, nothing is written over.
    let before = std::fs::read(&key).expect("there");
    let said = run(&keygen, "").await;
    assert!(said.out.contains("[[agent]]") && said.out.contains("worker"), "{said:?}");
    assert!(std::fs::read_to_string(&tokens).expect("there").contains(said.out.trim()));
    assert_eq!(std::fs::read(&key).expect("there"), before);
    let (url, data, log) = (server.url(), server.path("agent"), server.path("agent.log"));
    let agent = ["agent", "--url", &url, "--id", "worker", "--key", &key, "--data", &data];
    let file = std::fs::File::create(&log).expect("a log");
    let mut agent = gapless(&agent).stderr(file).spawn().expect("it starts");
    let said = async || std::fs::read_to_string(&log).unwrap_or_default();
    until("it is let in", async || said().await.contains("in step")).await;
    signal(&agent, Signal::TERM);
    assert_eq!(ended(&mut agent).await.code(), Some(0));
}

#[tokio::test]
async fn tasks_are_listed_with_how_they_ended() {
    let world = World::new().await;
    let _agent = world.agent(&[]);
    world.submit("good", "true").await;
    world.submit("bad", "exit 7").await;
    until("both have ended", async || {
        world.state("good").await == "final" && world.state("bad").await == "final"
    })
    .await;
    // More than the server gives at once.
    for n in 0..120 {
        let id = format!("w{n}");
        let said = world.ask("submit", &["--agent", "nobody", "--id", &id, "true"]).await;
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    let said = world.ask("list", &["--limit", "1000"]).await;
    assert_eq!((said.code, said.out.lines().count()), (Some(0), 122), "{said:?}");
    assert!(said.out.starts_with("pending       - nobody"), "{}", said.out);
    let said = world.ask("list", &["--agent", "worker"]).await;
    let words: Vec<Vec<&str>> =
        said.out.lines().map(|line| line.split_whitespace().collect()).collect();
    let (bad, good) = ("final 7 worker bad exit 7", "final 0 worker good true");
    assert_eq!(words, [bad, good].map(|line| line.split(' ').collect::<Vec<_>>()));
    let said = world.ask("list", &["--state", "final", "--limit", "1", "--json"]).await;
    let task: serde_json::Value = serde_json::from_str(said.out.trim()).expect("one object");
    assert_eq!((&task["task"], &task["exit_code"]), (&"bad".into(), &7.into()));
    let said = world.ask("list", &["--state", "lost"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    let token = world.server.path("data/subscriber.token");
    let url = world.server.url();
    let said = run(&["task", "list", "--url", &url, "--token-file", &token], "").await;
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.err.contains("hint:") && said.err.contains("`tasks`"), "{said:?}");
}
