//! Three nodes of `nats-server` with JetStream, which have a log together.

use std::net::SocketAddr;

use tokio::process::Command;

use crate::failure::{Failure, Result};
use crate::process::{PATIENCE, PAUSE, Process, free_address, is_well, listening};

/// How many nodes there are.
const NODES: usize = 3;

/// The nodes, which end with it.
pub(crate) struct Engine {
    clients: Vec<SocketAddr>,
    _nodes: Vec<Process>,
    _folder: tempfile::TempDir,
}

impl Engine {
    /// Starts them, and waits until they have found each other.
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (mut clients, mut monitors, mut routes) = (vec![], vec![], vec![]);
        for _ in 0..NODES {
            clients.push(free_address().await?);
            monitors.push(free_address().await?);
            routes.push(free_address().await?);
        }
        let all: Vec<String> = routes.iter().map(|at| format!("nats://{at}")).collect();
        let mut nodes = vec![];
        for node in 0..NODES {
            let mut command = Command::new("nats-server");
            let (at, monitor) = (clients[node], monitors[node]);
            command.args(["--name", &format!("node-{node}"), "--cluster_name", "engine"]);
            command.args(["--addr", &at.ip().to_string(), "--port", &at.port().to_string()]);
            command.args(["--http_port", &monitor.port().to_string()]);
            command.args(["--cluster", &format!("nats://{}", routes[node]), "--no_advertise"]);
            command.args(["--routes", &all.join(",")]);
            command.args(["--jetstream", "--store_dir"]).arg(folder.path().join(node.to_string()));
            nodes.push(Process::spawn(command)?);
        }
        for at in clients.iter().chain(&monitors) {
            listening(*at).await?;
        }
        let well = async {
            for monitor in &monitors {
                while !is_well(*monitor).await {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        let late = |_| Failure::new("the nodes of JetStream do not find each other");
        tokio::time::timeout(PATIENCE, well).await.map_err(late)?;
        Ok(Self { clients, _nodes: nodes, _folder: folder })
    }

    /// The log on it, for `gapless serve --log`.
    pub(crate) fn url(&self) -> String {
        let clients: Vec<String> = self.clients.iter().map(SocketAddr::to_string).collect();
        format!("nats://{}", clients.join(","))
    }
}
