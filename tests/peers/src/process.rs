//! The processes of the servers. Each ends with the value that stands for it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::failure::{Failure, Result};

/// How long a server may take to listen, and a process to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How long to wait before looking again.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// A process that reads lines and answers with lines.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    name: String,
}

impl Process {
    pub(crate) fn spawn(mut command: Command) -> Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::from(error).context(format!("`{name}` does not start")))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| Failure::new("a process has no pipes"))?;
        Ok(Self { child, input, output: BufReader::new(output).lines(), name })
    }

    /// The next line that it says.
    pub(crate) async fn line(&mut self) -> Result<String> {
        match tokio::time::timeout(PATIENCE, self.output.next_line()).await {
            Ok(line) => line?.ok_or_else(|| Failure::new(format!("`{}` has ended", self.name))),
            Err(_) => Err(Failure::new(format!("`{}` does not answer", self.name))),
        }
    }

    /// Says a line.
    pub(crate) async fn say(&mut self, line: &str) -> Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    /// How much memory of it is resident, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let id = self.child.id().ok_or_else(|| Failure::new("the server has ended"))?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map(|kib: u64| kib * 1024)
            .ok_or_else(|| Failure::new("`/proc` does not say how much memory the server has"))
    }
}

/// An address on which nobody listens yet.
pub(crate) async fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

/// Waits until somebody listens.
pub(crate) async fn listening(address: SocketAddr) -> Result<()> {
    let looking = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let looked = tokio::time::timeout(PATIENCE, looking).await;
    looked.map_err(|_| Failure::new(format!("no server comes to listen on {address}")))
}

/// Whether a server says at `/healthz` that it is well.
pub(crate) async fn is_well(address: SocketAddr) -> bool {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    asking.await.is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}
