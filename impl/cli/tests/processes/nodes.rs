//! The processes of a campaign. Every wait has a bound.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// How much more than the largest may be written to files that are limited, in blocks of 512 or 1,024
/// bytes, as the shell has it.
const BLOCKS: u64 = 16;

pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes too long")
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
    kill_process(id, signal).expect("it takes the signal");
}

/// With nothing of this process's environment that the command would take for an option.
fn quiet(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GAPLESS_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command
}

fn log(folder: &Path, name: &str) -> std::fs::File {
    let path = folder.join(name);
    std::fs::OpenOptions::new().create(true).append(true).open(path).expect("a log")
}

pub(crate) struct Server {
    folder: PathBuf,
    data: PathBuf,
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) async fn start(folder: &Path, data: &Path) -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        let command = Command::new(env!("CARGO_BIN_EXE_gapless"));
        let (child, address) = serve(command, folder, data, any).await;
        Self { folder: folder.to_owned(), data: data.to_owned(), child, address }
    }

    /// Starts it again on the same port.
    pub(crate) async fn restart(&mut self) {
        let command = Command::new(env!("CARGO_BIN_EXE_gapless"));
        (self.child, _) = serve(command, &self.folder, &self.data, self.address).await;
    }

    /// Starts it again with files that cannot grow.
    pub(crate) async fn restart_limited(&mut self) {
        let mut command = Command::new("sh");
        let files = std::fs::read_dir(&self.data).expect("there");
        let files = files.map(|file| file.expect("there").metadata().expect("there").len());
        let log = self.folder.join("serve.log").metadata().expect("there").len();
        let blocks = files.chain([log]).max().unwrap_or(0) / 512 + BLOCKS;
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_gapless")]);
        (self.child, _) = serve(command, &self.folder, &self.data, self.address).await;
    }

    pub(crate) async fn kill(&mut self) {
        in_time(self.child.kill()).await.expect("it runs");
    }
}

async fn serve(
    command: Command,
    folder: &Path,
    data: &Path,
    listen: SocketAddr,
) -> (Child, SocketAddr) {
    let mut command = quiet(command);
    command.arg("serve").arg("--data").arg(data).args(["--listen", &listen.to_string()]);
    command.stdout(Stdio::piped()).stderr(log(folder, "serve.log"));
    let mut child = command.spawn().expect("it starts");
    let stdout = child.stdout.take().expect("piped");
    let mut line = String::new();
    in_time(BufReader::new(stdout).read_line(&mut line)).await.expect("UTF-8");
    let address = line
        .strip_prefix("listening on http://")
        .and_then(|line| line.split('/').next()?.parse().ok())
        .unwrap_or_else(|| panic!("it does not listen: {line}"));
    (child, address)
}

/// A client of a server that is reached by some address.
fn client(folder: &Path, data: &Path, address: SocketAddr, name: &str, token: &str) -> Command {
    let mut command = quiet(Command::new(env!("CARGO_BIN_EXE_gapless")));
    command.arg(name).args(["--url", &format!("http://{address}"), "--agent", "demo"]);
    command.arg("--token-file").arg(data.join(token));
    command.stderr(log(folder, &format!("{name}.log")));
    command
}

pub(crate) fn tail(folder: &Path, data: &Path, address: SocketAddr) -> Child {
    let mut command = client(folder, data, address, "tail", "subscriber.token");
    command.arg("--cursor").arg(folder.join("cursor"));
    command.arg("--output").arg(folder.join("output"));
    command.spawn().expect("it starts")
}

/// The complete lines of the output of `tail`.
pub(crate) fn output(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("output")).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
    complete.lines().map(str::to_owned).collect()
}

/// Publishes lines `{"who":"main","n":1}`, `{"who":"main","n":2}`, … as they are wanted; ends once the
/// sender of `wanted` is gone.
pub(crate) fn publish(
    folder: &Path,
    data: &Path,
    address: SocketAddr,
    who: &str,
    wanted: watch::Receiver<u64>,
) -> Child {
    let mut command = client(folder, data, address, "publish", "publisher.token");
    // Each receipt is a line of the log.
    command.args(["--log-format", "json", "--log-level", "debug"]);
    command.stderr(log(folder, &publisher_log(who)));
    command.args(["--id-prefix", who]).stdin(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    tokio::spawn(feed(child.stdin.take().expect("piped"), who.to_owned(), wanted));
    child
}

/// The log of a publisher, over its lives.
pub(crate) fn publisher_log(who: &str) -> String {
    format!("publish-{who}.log")
}

async fn feed(mut stdin: ChildStdin, who: String, mut wanted: watch::Receiver<u64>) {
    let mut fed = 0;
    loop {
        let through = *wanted.borrow_and_update();
        let lines: String =
            (fed + 1..=through).map(|n| format!("{{\"who\":\"{who}\",\"n\":{n}}}\n")).collect();
        // One that was killed reads nothing more.
        if stdin.write_all(lines.as_bytes()).await.is_err() {
            return;
        }
        fed = fed.max(through);
        if wanted.changed().await.is_err() {
            return;
        }
    }
}
