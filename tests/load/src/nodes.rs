//! The processes: the server, the proxy, and those of the load. Each ends with the value that stands
//! for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rand::rngs::SysRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::failure::{Failure, Result};
use crate::worker::FINISH;

/// How long a process may take to start or to end, and the server to say how it is.
const PATIENCE: Duration = Duration::from_secs(60);

/// The programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) gapless: PathBuf,
    pub(crate) sim: PathBuf,
}

pub(crate) async fn in_time<T>(what: &str, doing: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, doing).await {
        Ok(done) => done.map_err(|failure| failure.context(what)),
        Err(_) => Err(Failure::new(format!("{what} takes longer than {PATIENCE:?}"))),
    }
}

/// With nothing of this process's environment that the command would take for an option.
fn command(program: &Path, log: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GAPLESS_") {
            command.env_remove(name);
        }
    }
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    Ok(command)
}

/// A process over its lives.
pub(crate) struct Node {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    /// Where it listens, if it does.
    listens: Option<SocketAddr>,
}

impl Node {
    pub(crate) fn new(name: &str, program: &Path, arguments: Vec<String>, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let (name, program) = (name.to_owned(), program.to_owned());
        Self { name, program, arguments, log, child: None, listens: None }
    }

    /// A server by its name, with its own data; what else it is told.
    pub(crate) fn server(
        gapless: &Path,
        folder: &Path,
        name: &str,
        at: SocketAddr,
        more: &[String],
    ) -> Self {
        let data = folder.join(format!("{name}-data")).display().to_string();
        let tokens = folder.join("tokens.toml").display().to_string();
        // A file that cannot grow is an error to it, as on a full disk, instead of its end.
        let mut arguments = vec!["-c".to_owned(), "trap '' XFSZ; exec \"$0\" \"$@\"".to_owned()];
        arguments.push(gapless.display().to_string());
        let listen = at.to_string();
        arguments.extend(
            ["serve", "--data", &data, "--tokens", &tokens, "--listen", &listen].map(str::to_owned),
        );
        // As many as there are subscribers, and those of whom the server does not know that they left.
        arguments.extend(["--sockets-per-agent", "20000"].map(str::to_owned));
        arguments.extend(["--max-connections-per-principal", "20000"].map(str::to_owned));
        arguments.extend_from_slice(more);
        let listens = Some(at);
        Self { listens, ..Self::new(name, Path::new("/bin/sh"), arguments, folder) }
    }

    pub(crate) fn proxy(sim: &Path, folder: &Path, at: SocketAddr, to: SocketAddr) -> Self {
        let (listen, upstream) = (at.to_string(), format!("http://{to}"));
        let arguments = ["proxy", "--upstream", &upstream, "--listen", &listen, "--strikes"]
            .into_iter()
            .chain(["--rate", "0", "--connections", "9000"]);
        let arguments = arguments.map(str::to_owned).collect();
        let listens = Some(at);
        Self { listens, ..Self::new("proxy", sim, arguments, folder) }
    }

    pub(crate) fn worker(folder: &Path, mix: &Path, number: usize) -> Result<Self> {
        let program = std::env::current_exe()?;
        let arguments = vec!["worker".to_owned(), mix.display().to_string(), number.to_string()];
        Ok(Self::new(&format!("load-{number}"), &program, arguments, folder))
    }

    /// Begins a life.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let mut command = command(&self.program, &self.log)?;
        let child = command.args(&self.arguments).spawn();
        self.child = Some(child.map_err(|error| {
            Failure::from(error).context(format_args!("`{}` does not start", self.name))
        })?);
        Ok(())
    }

    /// Begins a life, and waits until it listens.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.begin()?;
        let Some(address) = self.listens else { return Ok(()) };
        let listening = async {
            while TcpStream::connect(address).await.is_err() {
                self.check()?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        in_time("starting to listen", listening).await
    }

    /// An error if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last = log.lines().rev().take(5).collect::<Vec<_>>();
                let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
                Err(Failure::new(format!("`{}` has ended: {status}\n  {last}", self.name)))
            }
        }
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.as_ref()?.id()?.cast_signed())
    }

    /// Ends its life without a warning.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        in_time("ending a process", async { Ok(child.kill().await?) }).await
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        match self.pid() {
            Some(pid) => Ok(kill_process(pid, signal)?),
            None => Ok(()),
        }
    }

    /// Lets it write no byte to a file, or as many as it wants.
    pub(crate) fn let_write(&self, bytes: Option<u64>) -> Result<()> {
        if let Some(pid) = self.pid() {
            prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None })?;
        }
        Ok(())
    }

    /// Says a line to it. One that is just away does not hear it.
    pub(crate) async fn say(&mut self, line: &str) -> Result<()> {
        let Some(stdin) = self.child.as_mut().and_then(|child| child.stdin.as_mut()) else {
            return Ok(());
        };
        in_time("telling a process something", async {
            stdin.write_all(format!("{line}\n").as_bytes()).await?;
            Ok(stdin.flush().await?)
        })
        .await
    }

    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.say(FINISH).await
    }

    pub(crate) async fn strike(&mut self, strike: &Value) -> Result<()> {
        self.say(&strike.to_string()).await
    }

    /// How much memory of it is resident, in bytes; `None` while it is away.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let pid = self.pid()?.as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        });
        kib.map(|kib| kib * 1024)
    }
}

/// The status and the body of what is at a path. HTTP 1.0, so that a body comes in one piece.
pub(crate) async fn get(server: SocketAddr, path: &str) -> Result<(u16, String)> {
    in_time("asking a server", async {
        let mut stream = TcpStream::connect(server).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| Failure::new(format!("no answer of HTTP: `{head}`")))?;
        Ok((status, body.to_owned()))
    })
    .await
}

/// How many WebSockets a server has open, by its own count.
pub(crate) async fn connections(server: SocketAddr) -> Result<u64> {
    let (_, text) = get(server, "/metrics").await?;
    let counts = text.lines().filter_map(|line| {
        line.strip_prefix("gapless_connections{")?.rsplit_once(' ')?.1.parse::<u64>().ok()
    });
    Ok(counts.sum())
}

/// Which of these marks a server has reached in this life, or does not count.
pub(crate) async fn marks(server: SocketAddr, wanted: &[&str]) -> Result<Vec<String>> {
    let (_, text) = get(server, "/metrics").await?;
    Ok(marks_of(&text, wanted))
}

fn marks_of(metrics: &str, wanted: &[&str]) -> Vec<String> {
    let is_zero = |mark: &str| {
        let line = format!("gapless_marks_total{{mark=\"{mark}\"}} 0");
        metrics.lines().any(|it| it == line)
    };
    wanted.iter().filter(|mark| !is_zero(mark)).map(|mark| (*mark).to_owned()).collect()
}

/// The ports from which the system takes none for a connection by itself. One of those would be taken
/// by a connection while the process that listens there is away, or be connected to itself.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// How many ports are tried.
const PORTS_TRIED_MAX: usize = 100;

/// An address on which nobody listens yet.
pub(crate) async fn free_address() -> Result<SocketAddr> {
    let mut entropy = ChaCha12Rng::try_from_rng(&mut SysRng)?;
    for _ in 0..PORTS_TRIED_MAX {
        let address = SocketAddr::from(([127, 0, 0, 1], entropy.random_range(PORTS)));
        if tokio::net::TcpListener::bind(address).await.is_ok() {
            return Ok(address);
        }
    }
    Err(Failure::new(format!("{PORTS_TRIED_MAX} ports of 127.0.0.1 are taken"))
        .hint("end what listens there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_what_a_server_counts_or_does_not_know() {
        let metrics = "gapless_marks_total{mark=\"a\"} 2\ngapless_marks_total{mark=\"b\"} 0\n";
        assert_eq!(marks_of(metrics, &["a", "b", "c"]), ["a", "c"]);
    }
}
