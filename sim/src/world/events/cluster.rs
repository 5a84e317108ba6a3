//! Several servers on one log, which is on an engine.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::engine::host::{self, Engine};
use super::engine::remote::Remote;
use super::server::Order;
use crate::mutants::Distorted;
use crate::plan::{Host, Protocol, ServerOptions, Topology};
use crate::world::host::{HostState, Process};
use crate::world::{Stage, lock};

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

async fn serve(
    process: Process,
    _topology: &Topology,
    _options: &ServerOptions,
    distorted: Distorted,
    _orders: mpsc::UnboundedReceiver<Order>,
) -> turmoil::Result {
    process.boot().await;
    let (_remote, line) = Remote::new(process.clone(), distorted.settings());
    line.run().await;
    Ok(())
}
