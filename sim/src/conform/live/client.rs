//! A client of a live run: a foreign one behind its adapter, or the reference in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gapless::net::{SystemClock, TcpConnector};
use tokio::task::JoinHandle;

use super::plan::hurried;
use super::tap::{Hear, Tap};
use crate::conform::{Live, NodeError};
use crate::mutants::Distorted;
use crate::plan::ClientOptions;
use crate::trace::{Fact, Kind};
use crate::world::events::client::{Desk, Known, Moods, configuration, follow, open_database_at};
use crate::world::events::node::Told;
use crate::world::host::HostState;

/// A client, over its lives.
pub(super) struct Client {
    pub(super) number: u32,
    pub(super) agent: u32,
    pub(super) state: HostState,
    pub(super) known: Known,
    /// In real time.
    pub(super) options: ClientOptions,
    pub(super) kind: Kinds,
    pub(super) task: Option<JoinHandle<()>>,
}

/// What kind of client it is.
pub(super) enum Kinds {
    Foreign {
        tap: Tap,
        live: Box<Live>,
        /// The application in front of the life that runs.
        told: Application,
        /// Whether marks are not told by the client.
        marks: bool,
    },
    Reference {
        /// Where its database is.
        path: PathBuf,
        /// Where it connects.
        gate: SocketAddr,
        /// How many times as fast as usual it is.
        speed: u64,
        problem: Arc<Mutex<Option<String>>>,
    },
}

/// The application in front of a foreign client, as the client tells of it.
pub(super) type Application = Arc<Mutex<Option<Told>>>;

/// Hears what a foreign client says.
pub(super) fn hear(told: &Application) -> Hear {
    let told = Arc::clone(told);
    Box::new(move |effect| match &mut *told.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(told) => told.did(effect),
        None => Err("it did something before `live`".to_owned()),
    })
}

impl Client {
    /// A life begins.
    pub(super) fn start(&mut self) -> Result<(), NodeError> {
        let process = self.state.process();
        process.record_fact(Kind::Life, "starts", Fact::Starts);
        let (name, life) = (process.name, process.life);
        let desk = Desk {
            known: self.known.clone(),
            process,
            client: self.number,
            moods: Moods::default(),
            options: self.options.clone(),
        };
        match &self.kind {
            Kinds::Foreign { tap, live, told, marks } => {
                *told.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Told::new(desk, *marks));
                let live = Live { life, taken: tap.taken(), ..(**live).clone() };
                let tap = tap.clone();
                self.task = Some(tokio::task::spawn_local(async move {
                    let began = async {
                        tap.start(&format!("{name}-{life}")).await?;
                        tap.live(live).await
                    };
                    match began.await {
                        // The tap keeps what goes wrong.
                        Ok(()) => drop(tap.listen().await),
                        Err(error) => tap.fail(error),
                    }
                }));
            }
            Kinds::Reference { path, gate, speed, problem } => {
                let database = open_database_at(path, None).map_err(|error| {
                    NodeError::Misused(format!("the simulator: no database: {error}"))
                })?;
                let (agent, host) = (self.agent, gate.to_string());
                let config = hurried(configuration(&self.options), *speed);
                let problem = Arc::clone(problem);
                self.task = Some(tokio::task::spawn_local(async move {
                    let (connector, wall) = (TcpConnector::new(&host), Arc::new(SystemClock));
                    let distorted = Distorted::default();
                    let done =
                        follow(desk, config, agent, database, distorted, connector, &host, wall)
                            .await;
                    *problem.lock().unwrap_or_else(PoisonError::into_inner) = done.err();
                }));
            }
        }
        Ok(())
    }

    /// The process dies.
    pub(super) async fn kill(&mut self) {
        if let Kinds::Foreign { tap, .. } = &self.kind {
            tap.kill();
        }
        if let Some(task) = self.task.take() {
            task.abort();
            // It ends because it was told to.
            let _ = task.await;
        }
        self.state.kill(Duration::ZERO);
    }

    /// The run is over.
    pub(super) async fn finish(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // It ends because it was told to.
            let _ = task.await;
        }
        if let Kinds::Foreign { tap, .. } = &self.kind {
            tap.stop().await;
        }
        self.known.end_chain(&self.state.process().recorder);
    }

    /// Whether its first process is there.
    pub(super) fn began(&self) -> bool {
        match &self.kind {
            Kinds::Foreign { tap, .. } => tap.began(),
            Kinds::Reference { .. } => true,
        }
    }

    pub(super) fn problem(&self) -> Option<NodeError> {
        match &self.kind {
            Kinds::Foreign { tap, .. } => tap.problem(),
            Kinds::Reference { problem, .. } => {
                let problem = problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
                problem.map(|problem| NodeError::Misused(format!("the simulator: {problem}")))
            }
        }
    }
}
