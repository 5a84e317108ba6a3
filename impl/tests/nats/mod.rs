//! A `nats-server` for tests, if one is installed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server on a free port of the loopback, with its files in a folder of its own.
pub(crate) struct Nats {
    process: Child,
    pub(crate) url: String,
    folder: tempfile::TempDir,
}

impl Nats {
    /// `None` if there is no `nats-server` to be started.
    pub(crate) async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let (process, url) = Self::launch(folder.path(), "-1").await?;
        Some(Self { process, url, folder })
    }

    async fn launch(folder: &Path, port: &str) -> Option<(Child, String)> {
        let process = Command::new("nats-server")
            .args(["--jetstream", "--addr", "127.0.0.1", "--port", port])
            .arg("--store_dir")
            .arg(folder)
            .arg("--ports_file_dir")
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                eprintln!("skipped: `nats-server` cannot be started: {error}");
                return None;
            }
        };
        let ports = folder.join(format!("nats-server_{}.ports", process.id()));
        for _ in 0..400 {
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            if let Ok(ports) = serde_json::from_str::<serde_json::Value>(&text)
                && let Some(url) = ports["nats"][0].as_str()
            {
                return Some((process, url.to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("`nats-server` does not say where it listens");
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it ends");
    }

    pub(crate) async fn restart(&mut self) {
        let port = self.url.rsplit(':').next().expect("a port").to_owned();
        let (process, _) = Self::launch(self.folder.path(), &port).await.expect("as before");
        self.process = process;
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // One that was killed is gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
