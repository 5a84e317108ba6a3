//! Processes, and what can be seen of them. Every wait has a bound.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(20);

/// The command, with nothing of this process's environment that it would take for an option.
pub(crate) fn gapless(args: &[&str]) -> Command {
    program(OsStr::new(env!("CARGO_BIN_EXE_gapless")), args)
}

/// The same of a program that may be another one.
pub(crate) fn program(path: &OsStr, args: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GAPLESS_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes too long")
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !so().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let looked = tokio::time::timeout(PATIENCE, looking).await;
    assert!(looked.is_ok(), "in vain: {what}");
}

/// What a command that ends says.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command to its end.
pub(crate) async fn run(args: &[&str], input: &str) -> Said {
    run_command(gapless(args), input).await
}

pub(crate) async fn run_command(mut command: Command, input: &str) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let feed = async {
        // A command that ends early does not read its input.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let ((), output) = in_time(async { tokio::join!(feed, child.wait_with_output()) }).await;
    let output = output.expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
    kill_process(id, signal).expect("it takes the signal");
}

pub(crate) async fn ended(child: &mut Child) -> ExitStatus {
    in_time(child.wait()).await.expect("it ends")
}

/// A folder, and a server on it.
pub(crate) struct Server {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// What is started.
    pub(crate) program: OsString,
    options: Vec<String>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Started with more options.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        Self::start_as(env!("CARGO_BIN_EXE_gapless").into(), options).await
    }

    /// Another program.
    pub(crate) async fn start_program(program: OsString) -> Self {
        Self::start_as(program, &[]).await
    }

    async fn start_as(program: OsString, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let (child, address) = spawn(&program, folder.path(), "127.0.0.1:0", &options).await;
        Self { folder, child, address, program, options }
    }

    /// Ends it without a word.
    pub(crate) async fn kill(&mut self) {
        in_time(self.child.kill()).await.expect("it runs");
    }

    /// Starts it again where it was.
    pub(crate) async fn restart(&mut self) {
        let listen = self.address.to_string();
        (self.child, _) = spawn(&self.program, self.folder.path(), &listen, &self.options).await;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn token(&self, name: &str) -> String {
        let path = self.path(&format!("data/{name}.token"));
        std::fs::read_to_string(path).expect("there").trim().to_owned()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("serve.log")).expect("there")
    }

    pub(crate) async fn publish(&self, options: &[&str], input: &str) -> Said {
        let (url, token) = (self.url(), self.path("data/publisher.token"));
        let mut args = vec!["publish", "--url", &url, "--token-file", &token, "--agent", "demo"];
        args.extend(options);
        run(&args, input).await
    }

    pub(crate) fn tail(&self, options: &[&str]) -> Command {
        let (url, token) = (self.url(), self.path("data/subscriber.token"));
        let cursor = self.path("cursor");
        let mut args = vec!["tail", "--url", &url, "--token-file", &token, "--agent", "demo"];
        args.extend(["--cursor", &cursor]);
        args.extend(options);
        gapless(&args)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        get(self.address, path).await
    }

    /// The value of a metric, by its name with labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = self.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }
}

async fn spawn(
    path: &OsStr,
    folder: &Path,
    listen: &str,
    options: &[String],
) -> (Child, SocketAddr) {
    let data = folder.join("data");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("serve.log"));
    let data = data.to_str().expect("UTF-8");
    let mut command = program(path, &["serve", "--data", data, "--listen", listen]);
    command.args(options).stdout(Stdio::piped()).stderr(log.expect("a log"));
    let mut child = command.spawn().expect("it starts");
    let stdout = child.stdout.take().expect("piped");
    let mut line = String::new();
    in_time(BufReader::new(stdout).read_line(&mut line)).await.expect("UTF-8");
    let address = line
        .strip_prefix("listening on http")
        .and_then(|line| line.trim_start_matches('s').strip_prefix("://")?.split('/').next())
        .and_then(|address| address.parse().ok())
        .unwrap_or_else(|| panic!("it does not listen: {line}"));
    (child, address)
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    in_time(async {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("UTF-8");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status.expect("a status"), body.expect("a body"))
    })
    .await
}

/// The lines of a file, without one that is not complete; none if there is no file.
pub(crate) fn lines(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(PathBuf::from(path)).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
    complete.lines().map(str::to_owned).collect()
}

/// Payloads that count from `from` to `to`.
pub(crate) fn payloads(from: u64, to: u64) -> String {
    (from..=to).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

/// Whether the lines are the events with these payloads, each once and in order.
pub(crate) fn assert_events(lines: &[String], from: u64, to: u64) {
    assert_eq!(lines.len() as u64, to - from + 1);
    for (line, n) in lines.iter().zip(from..) {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(event["n"], n, "{line}");
    }
}
