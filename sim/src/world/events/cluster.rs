//! Several servers on one log, which is on an engine.

use std::sync::{Arc, Mutex};

use gapless::events::cluster::{EngineLog, EngineLogConfig};
use gapless::events::driver::{EventService, ServerHandle, ServerTaskConfig, shared_server};
use gapless::events::log::{Command, Reply};
use gapless::events::server::{Server, ServerConfig, SharedLog};
use gapless::net::http::{self, HttpConfig};
use gapless::storage::{Store, StoreError};
use tokio::sync::mpsc;
use turmoil::net::TcpListener;

use super::engine::host::{self, Engine};
use super::engine::remote::Remote;
use super::server::{Order, configuration, describe, describe_reply, tokens};
use crate::mutants::Distorted;
use crate::plan::{Host, Protocol, ServerOptions, Topology};
use crate::trace::Kind;
use crate::world::host::{HostState, Process};
use crate::world::link::PORT;
use crate::world::traced::TracedListener;
use crate::world::{Stage, limits, lock};

/// Where a server that runs takes orders.
pub(super) type Orders = Arc<Mutex<Option<mpsc::UnboundedSender<Order>>>>;

/// What has entered besides the first server.
pub(super) struct Cluster {
    pub(super) members: Vec<HostState>,
    pub(super) engine: HostState,
    pub(super) knows: Knows,
}

/// What the world knows of a cluster.
pub(super) struct Knows {
    pub(super) engine: Engine,
}

/// Lets the servers and their engine enter. The first of them is there already.
pub(super) fn enter(
    stage: &mut Stage<'_>,
    server: &HostState,
    options: &ServerOptions,
    orders: &Orders,
) -> Cluster {
    let (seed, recorder, distorted) = (stage.seed, stage.recorder.clone(), stage.distorted);
    let topology = stage.plan.topology.clone();
    let name = |host: Host| host.name(Protocol::Events);
    let state = |host| HostState::new(name(host), seed, &recorder, false);
    let members: Vec<HostState> = (2..=topology.servers).map(Host::Member).map(state).collect();
    for (nth, (host, state)) in
        topology.servers().into_iter().zip(std::iter::once(server).chain(&members)).enumerate()
    {
        let process = state.process.clone();
        let (topology, options) = (topology.clone(), options.clone());
        // The orders of the world go to the first server.
        let orders = (nth == 0).then(|| orders.clone());
        stage.host(name(host), move || {
            let process = lock(&process).clone();
            let (topology, options) = (topology.clone(), options.clone());
            let (sender, orders_in) = mpsc::unbounded_channel();
            if let Some(orders) = &orders {
                *lock(orders) = Some(sender);
            }
            process.clone().live(async move {
                serve(process, &topology, &options, distorted, orders_in).await
            })
        });
    }
    let retained = options.retain_events.and_then(|max| usize::try_from(max).ok());
    let engine = Engine::new(&recorder, topology.agents, options.commit_ms, retained);
    let state = state(Host::Engine);
    let (process, vault) = (state.process.clone(), state.vault.clone());
    {
        let engine = engine.clone();
        stage.host(name(Host::Engine), move || {
            let process = lock(&process).clone();
            let (engine, vault) = (engine.clone(), vault.clone());
            process.clone().live(host::serve(process, engine, vault))
        });
    }
    Cluster { members, engine: state, knows: Knows { engine } }
}

/// One life of a server.
async fn serve(
    process: Process,
    topology: &Topology,
    options: &ServerOptions,
    distorted: Distorted,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> turmoil::Result {
    process.boot().await;
    let listener = TracedListener {
        listener: TcpListener::bind(("0.0.0.0", PORT)).await?,
        process: process.clone(),
    };
    let (remote, line) = Remote::new(process.clone(), distorted.settings());
    let entropy = Box::new(process.entropy("log"));
    let (log, follower) = EngineLog::new(remote, EngineLogConfig::default(), entropy);
    let store = Told { log, process: process.clone() };
    let config = ServerConfig { shared: Some(SharedLog::default()), ..configuration(options) };
    let bytes_max = config.event_bytes_max;
    let wall = Arc::new(process.clock.clone());
    let entropy = distorted.entropy(Box::new(process.entropy("server")));
    let core = distorted.server(Server::new(config, entropy));
    let (handle, task) =
        shared_server(core, store, follower, wall.clone(), ServerTaskConfig::default());
    let tokens = Arc::new(tokens(topology));
    let service =
        EventService::new(handle.clone(), tokens, wall, limits(), options.extension, bytes_max);
    let http = HttpConfig { date_header: false, ..HttpConfig::default() };
    let never = std::future::pending();
    tokio::select! { biased;
        () = line.run() => {}
        () = task => {}
        () = http::serve(listener, service, http, never) => {}
        () = obey(&handle, &mut orders) => {}
    }
    Ok(())
}

async fn obey(handle: &ServerHandle, orders: &mut mpsc::UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Retain { agent, oldest } => handle.retain(agent, oldest).await,
            // The engine does it.
            Order::Backup => {}
        }
    }
    std::future::pending().await
}

/// The log of a server, which writes down what it is asked and answers.
struct Told {
    log: EngineLog<Remote>,
    process: Process,
}

impl Store<Command> for Told {
    async fn run(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let wanted: Vec<String> = commands.iter().map(describe).collect();
        let result = self.log.run(commands).await;
        let outcome = match &result {
            Ok(replies) => replies.iter().filter_map(describe_reply).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        };
        let sign = if outcome.is_empty() { "" } else { " = " };
        let text = format!("log: {}{sign}{outcome}", wanted.join(", "));
        self.process.record(Kind::Store, text);
        result
    }
}
