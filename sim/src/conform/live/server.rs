//! The server of a live run: the reference in this process, or a foreign one behind its adapter.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gapless::net::SystemClock;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::gate::Address;
use super::tap::{Hear, Tap};
use crate::conform::{Effect, Live, NodeError};
use crate::mutants::{Distorted, Settings};
use crate::plan::{ServerOptions, Topology};
use crate::trace::{Fact, Kind};
use crate::world::events::server::{Copies, Life, look_into, open_log_at, tell_heads};
use crate::world::host::HostState;
use crate::world::vault::Vault;

/// The server, over its lives.
pub(super) enum Server {
    Reference(ReferenceServer),
    Foreign(ForeignServer),
}

impl Server {
    /// A life begins.
    pub(super) async fn start(&mut self) -> Result<(), NodeError> {
        match self {
            Self::Reference(server) => {
                let started = server.start().await;
                started.map_err(|problem| NodeError::Misused(format!("the simulator: {problem}")))
            }
            Self::Foreign(server) => server.start().await,
        }
    }

    /// The process dies.
    pub(super) async fn kill(&mut self) {
        match self {
            Self::Reference(server) => server.kill().await,
            Self::Foreign(server) => server.kill(),
        }
    }

    /// The run is over: what is in the log?
    pub(super) async fn finish(&mut self) -> Result<(), String> {
        match self {
            Self::Reference(server) => {
                server.kill().await;
                let log = server.log()?;
                look_into(log, &server.state.process(), &server.topology)
            }
            Self::Foreign(server) => {
                if let Some(task) = server.task.take() {
                    task.abort();
                    // It ends because it was told to.
                    let _ = task.await;
                }
                server.tap.stop().await;
                Ok(())
            }
        }
    }

    pub(super) fn problem(&self) -> Option<NodeError> {
        match self {
            Self::Reference(_) => None,
            Self::Foreign(server) => server.tap.problem(),
        }
    }
}

/// The production server on a real socket, with its log in a real file.
pub(super) struct ReferenceServer {
    pub(super) state: HostState,
    pub(super) topology: Topology,
    pub(super) options: ServerOptions,
    /// Where its log is.
    pub(super) path: PathBuf,
    pub(super) address: Address,
    pub(super) task: Option<JoinHandle<()>>,
}

impl ReferenceServer {
    fn log(&self) -> Result<gapless::events::sqlite::SqliteLog, String> {
        open_log_at(&self.path, None, &self.options, Settings::default())
    }

    async fn start(&mut self) -> Result<(), String> {
        let process = self.state.process();
        let mut log = self.log()?;
        tell_heads(&mut log, &process, &self.topology, &Copies::default())?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        self.address.set(Some(listener.local_addr().map_err(|error| error.to_string())?));
        process.record_fact(Kind::Life, "starts", Fact::Starts);
        let (topology, options) = (self.topology.clone(), self.options.clone());
        self.task = Some(tokio::task::spawn_local(async move {
            // Nobody gives it orders.
            let (_orders, inbox) = mpsc::unbounded_channel();
            let life = Life {
                process,
                topology: &topology,
                options: &options,
                distorted: Distorted::default(),
                orders: inbox,
                vault: Vault::default(),
                copies: Copies::default(),
            };
            // It serves until it is killed.
            let _ = life.run(log, Arc::new(SystemClock), listener).await;
        }));
        Ok(())
    }

    async fn kill(&mut self) {
        self.address.set(None);
        if let Some(task) = self.task.take() {
            task.abort();
            // It ends because it was told to.
            let _ = task.await;
        }
        self.state.kill(Duration::ZERO);
    }
}

/// A server that runs by itself.
pub(super) struct ForeignServer {
    pub(super) state: HostState,
    pub(super) tap: Tap,
    pub(super) live: Live,
    pub(super) address: Address,
    pub(super) task: Option<JoinHandle<()>>,
}

impl ForeignServer {
    /// Hears what it says.
    pub(super) fn hear(address: Address, state: &HostState) -> Hear {
        let process = Arc::clone(&state.process);
        Box::new(move |effect| match effect {
            Effect::ServerListening { address: at } => {
                let parsed: std::net::SocketAddr = at
                    .parse()
                    .map_err(|_| format!("`{at}` is no address: say it as `127.0.0.1:49152`"))?;
                match parsed.ip().is_loopback() {
                    true => address.set(Some(parsed)),
                    false => return Err(format!("`{at}` is not on the loopback interface")),
                }
                Ok(())
            }
            Effect::AppState { text } => {
                let process = process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                process.record(Kind::App, text);
                Ok(())
            }
            Effect::Mark { .. } => Ok(()),
            other => Err(format!("no server that runs by itself does {other:?}")),
        })
    }

    async fn start(&mut self) -> Result<(), NodeError> {
        let process = self.state.process();
        process.record_fact(Kind::Life, "starts", Fact::Starts);
        self.tap.start(&format!("{}-{}", process.name, process.life)).await?;
        self.tap.live(Live { life: process.life, ..self.live.clone() }).await?;
        let tap = self.tap.clone();
        self.task = Some(tokio::task::spawn_local(async move {
            // The tap keeps what went wrong.
            let _ = tap.listen().await;
        }));
        Ok(())
    }

    fn kill(&mut self) {
        self.address.set(None);
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.tap.kill();
        self.state.kill(Duration::ZERO);
    }
}
