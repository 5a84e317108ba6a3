//! What a host of a protocol is given.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use gapless::net::{Connector as _, WallClock as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use turmoil::net::TcpListener;

use super::{Connection, CustomSeen, Database, Listener, Rng, Work};
use crate::history::Seen;
use crate::plan::Host;
use crate::trace::{Fact, Kind};
use crate::world::host::Process;
use crate::world::link::{LinkConnector, PORT};
use crate::world::traced::TracedListener;
use crate::world::vault::Vault;

/// The work that waits for a host, over the lives of its process; each with its step.
#[derive(Clone, Default)]
pub(super) struct Inbox {
    waiting: Arc<Mutex<VecDeque<(usize, Work)>>>,
    more: Arc<Notify>,
}

impl Inbox {
    /// Puts work in, of which there is as much as the plan has steps.
    pub(super) fn put(&self, step: usize, work: Work) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back((step, work));
        self.more.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn take(&self) -> Option<(usize, Work)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// The name under which the work of a step is known to the trace.
pub(crate) fn name_of_work(step: usize) -> String {
    format!("w{step}")
}

/// A host of the simulated world, as its process has it: everything that it may touch. Cheap to clone.
///
/// Each life of the process is given a new one. Faults are felt through it: of the link where
/// [`Self::connect`] fails or a connection breaks, of the disk in [`Self::database`], of the clock in
/// [`Self::wall_ms`]. A process that is killed is dropped where it waits; one that is suspended makes no
/// progress, as long as what it does is in its [`Life`](super::Life) or begun with [`Self::spawn`].
#[derive(Clone)]
pub struct Node {
    pub(super) host: Host,
    pub(super) server: &'static str,
    pub(super) clients: u32,
    pub(super) mutant: Option<&'static str>,
    pub(super) options: Arc<Map<String, Value>>,
    pub(super) inbox: Inbox,
    pub(super) vault: Vault,
    /// How the server is reached; the server itself has no such link.
    pub(super) link: Option<Arc<LinkConnector>>,
    pub(super) process: Process,
}

impl Node {
    /// Which host it is.
    pub fn host(&self) -> Host {
        self.host
    }

    /// The name of the host: `server`, `client-1` and so on.
    pub fn name(&self) -> &'static str {
        self.process.name
    }

    /// The name of the server's host, for the URL of a WebSocket.
    pub fn server_name(&self) -> &'static str {
        self.server
    }

    /// Which life of the host's process this is, from 1.
    pub fn life(&self) -> u64 {
        self.process.life
    }

    /// How many clients there are.
    pub fn clients(&self) -> u32 {
        self.clients
    }

    /// The options of the host's side.
    ///
    /// # Errors
    ///
    /// Those of a `T` that cannot hold what [`CustomProtocol::options`](super::CustomProtocol::options)
    /// says, or what a scenario makes of it.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&Value::Object((*self.options).clone()))
    }

    /// Whether the run has a bug switched on: that of `--mutant ID`.
    pub fn is_mutant(&self, id: &str) -> bool {
        self.mutant == Some(id)
    }

    /// Random numbers for one purpose, in this life of this host.
    pub fn rng(&self, purpose: &str) -> Rng {
        self.process.entropy(purpose)
    }

    /// What the wall clock of the host shows, in milliseconds since 1970; faults set and bend it. For
    /// everything else there is `tokio::time`, which shows virtual time.
    pub fn wall_ms(&self) -> i64 {
        self.process.clock.wall_time().as_millis()
    }

    /// The next thing that the workload wants from this host; waits for it. What a process has taken
    /// when it dies nobody asks for again.
    pub async fn work(&self) -> Work {
        loop {
            if let Some((step, work)) = self.inbox.take() {
                let fact = Fact::Work(vec![name_of_work(step)]);
                self.process.record_fact(
                    Kind::App,
                    format_args!("is to {}", work.describe()),
                    fact,
                );
                return work;
            }
            self.inbox.more.notified().await;
        }
    }

    /// Connects to the server; with a fault on the link this may take for ever.
    ///
    /// # Errors
    ///
    /// Those of the network; on the server itself `Unsupported`.
    pub async fn connect(&self) -> io::Result<Connection> {
        match &self.link {
            Some(link) => Ok(Connection::of_client(link.connect().await?)),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "the server has no server")),
        }
    }

    /// Listens for clients, on the only port that they connect to.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn listen(&self) -> io::Result<Listener> {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        Ok(Listener(TracedListener { listener, process: self.process.clone() }))
    }

    /// Opens the database of the host, and carries out the statements of `schema`. Waits, and tries
    /// again, as long as the disk does not let it.
    pub async fn database(&self, schema: &str) -> Database {
        Database::open(self.process.clone(), self.vault.clone(), schema).await
    }

    /// Does something beside, which ends with the process and is suspended with it.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::spawn(self.process.pause.clone().apply(future))
    }

    /// Tells what the outside could see: an entry of the history, for the checkers, and its text in the
    /// trace, for a person.
    pub fn see(&self, what: &(impl Serialize + Display)) {
        self.note(&what.to_string());
        let what = serde_json::to_value(what).unwrap_or(Value::Null);
        let (host, life) = (self.host, self.process.life);
        self.process.recorder.see(Seen::Custom(CustomSeen { host, life, what }));
    }

    /// Tells something to the person who reads the trace, and to nobody else.
    pub fn note(&self, text: &str) {
        self.process.record(Kind::App, text);
    }
}
