//! The hosts of event streams: `server`, `client-1` … and `publisher`.

pub(crate) mod client;
pub(crate) mod node;
pub(crate) mod publisher;
pub(crate) mod server;
mod server_node;
pub(crate) mod watch;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use self::client::{Known, Moods};
use self::server::{Copies, Order};
use self::server_node::Line;
use super::host::HostState;
use super::link::Link;
use super::record::Recorder;
use super::{Cast, Client, Company, Stage, lock};
use crate::conform::{Event, Role, feature};
use crate::plan::{Action, ClientOptions, Fault, Host, Protocol, ServerOptions, Topology};

/// The name of the server's host.
const SERVER: &str = "server";

/// Bytes of a page of the databases of server and clients. Small ones, because what a run costs grows
/// with the bytes that its disks take.
const PAGE_BYTES: u32 = 1_024;

struct Events {
    recorder: Recorder,
    topology: Topology,
    jobs: mpsc::UnboundedSender<publisher::Job>,
    orders: Arc<Mutex<Option<mpsc::UnboundedSender<Order>>>>,
    /// The way to a foreign server.
    line: Line,
    clients: Vec<(Moods, Known)>,
}

/// Lets the hosts of a plan enter.
pub(super) fn enter(
    stage: &mut Stage<'_>,
    server_options: &ServerOptions,
    client_options: &ClientOptions,
) -> Company {
    let (seed, recorder, distorted) = (stage.seed, stage.recorder.clone(), stage.distorted);
    let topology = &stage.plan.topology;
    let server = HostState::new(SERVER, seed, &recorder, distorted.settings().lying_disk);
    let (orders, line) = (Arc::new(Mutex::new(None)), Line::default());
    let foreign = stage.attached.filter(|attached| attached.role() == Role::EventsServer).cloned();
    // One that does not say what its log holds has what publishers were told.
    let silent = foreign.as_ref().is_some_and(|server| !server.has(feature::LOG_REPORTS));
    if let Some(attached) = foreign {
        let (process, vault, copies) =
            (server.process.clone(), server.vault.clone(), Copies::default());
        let (topology, options) = (topology.clone(), server_options.clone());
        let (inspecting, case) = (stage.inspecting.clone(), stage.plan.scenario.clone());
        let line = line.clone();
        stage.host(SERVER, move || {
            let process = lock(&process).clone();
            let side = server_node::Side {
                attached: attached.clone(),
                case: case.clone(),
                topology: topology.clone(),
                options: options.clone(),
                copies: copies.clone(),
                vault: vault.clone(),
                line: line.clone(),
                inspecting: *lock(&inspecting),
                process: process.clone(),
            };
            process.live(server_node::serve(side))
        });
    } else {
        let (process, vault, copies) =
            (server.process.clone(), server.vault.clone(), Copies::default());
        let (topology, options) = (topology.clone(), server_options.clone());
        let (orders, inspecting) = (orders.clone(), stage.inspecting.clone());
        stage.host(SERVER, move || {
            let process = lock(&process).clone();
            let (topology, options) = (topology.clone(), options.clone());
            let (inspecting, vault, copies) = (*lock(&inspecting), vault.clone(), copies.clone());
            let (sender, receiver) = mpsc::unbounded_channel();
            *lock(&orders) = Some(sender);
            process.clone().live(async move {
                if inspecting {
                    return server::inspect(process, &topology, &options, &copies).await;
                }
                let orders = receiver;
                server::serve(process, &topology, &options, distorted, orders, vault, copies).await
            })
        });
    }
    let (mut clients, mut minds) = (Vec::new(), Vec::new());
    let nodes = stage.attached.filter(|attached| attached.role() == Role::EventsClient).cloned();
    for number in 1..=topology.clients {
        let name = Host::Client(number).name(Protocol::Events);
        let state = HostState::new(name, seed, &recorder, false);
        let (link, moods) = (Link::default(), Moods::default());
        let known = Known::new(number, topology.agent_of(number));
        minds.push((moods.clone(), known.clone()));
        let (process, state_vault) = (state.process.clone(), state.vault.clone());
        clients.push(Client { state, link: link.clone() });
        let (topology, options) = (topology.clone(), client_options.clone());
        if let Some(nodes) = nodes.clone() {
            let (vault, case) = (state_vault, stage.plan.scenario.clone());
            stage.host(name, move || {
                let process = lock(&process).clone();
                let side = node::Side {
                    attached: nodes.clone(),
                    case: case.clone(),
                    agent: topology.agent_of(number),
                    options: options.clone(),
                    link: link.clone(),
                    moods: moods.clone(),
                    known: known.clone(),
                    vault: vault.clone(),
                    process: process.clone(),
                };
                process.live(node::live(side, number))
            });
            continue;
        }
        stage.host(name, move || {
            let process = lock(&process).clone();
            let (topology, options) = (topology.clone(), options.clone());
            let (link, moods, known) = (link.clone(), moods.clone(), known.clone());
            process.clone().live(async move {
                let (topology, options) = (&topology, &options);
                client::live(process, number, topology, options, distorted, link, moods, known)
                    .await
            })
        });
    }
    let (jobs, inbox) = mpsc::unbounded_channel();
    let inbox = Mutex::new(Some(inbox));
    {
        let recorder = recorder.clone();
        stage.host(publisher::HOST, move || {
            let inbox = lock(&inbox).take();
            let recorder = recorder.clone();
            async move {
                match inbox {
                    Some(inbox) => publisher::work(inbox, recorder, seed, silent).await,
                    None => Ok(()),
                }
            }
        });
    }
    let topology = topology.clone();
    let cast = Events { recorder, topology, jobs, orders, line, clients: minds };
    Company { server, clients, workload: Some(publisher::HOST), cast: Box::new(cast) }
}

impl Events {
    fn moods(&self, client: u32) -> &Moods {
        &self.clients[client as usize - 1].0
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &*lock(&self.orders) {
            // A server that is just starting again has nobody who listens.
            let _ = orders.send(order);
        } else if let Some(outside) = &*lock(&self.line) {
            match order {
                Order::Retain { agent, oldest } => {
                    outside.happened(Event::ServerRetain { agent: agent.to_string(), oldest });
                }
                Order::Backup => outside.nudge(),
            }
        }
    }
}

impl Cast for Events {
    fn work(&mut self, index: usize, action: &Action, _now_ms: u64) {
        let Action::Publish(publish) = action else { return };
        self.recorder.step(format_args!(
            "publish {} events to agent-{}, one every {} ms",
            publish.count, publish.agent, publish.every_ms
        ));
        self.recorder.worker_started();
        // The publishers' host never ends before the world does.
        let _ = self.jobs.send((index, publish.clone()));
    }

    fn fault(&mut self, fault: &Fault) {
        match *fault {
            Fault::SlowHandler { client, each_ms, .. } => {
                self.moods(client).state().handler = Some(Duration::from_millis(each_ms));
            }
            Fault::FailHandler { client, times } => {
                self.moods(client).state().fail_handler += times;
            }
            Fault::FailOpenHandler { client, times } => {
                self.moods(client).state().fail_open_handler += times;
            }
            Fault::Retain { agent, keep } => {
                let oldest = (self.recorder.head(agent) + 1).saturating_sub(keep).max(1);
                self.order(Order::Retain { agent: server::agent_id(agent), oldest });
            }
            _ => {}
        }
    }

    fn handler_recovers(&mut self, client: u32) {
        self.moods(client).state().handler = None;
    }

    fn backup_due(&mut self, _host: Host) {
        // A server that is just starting again does it before it serves.
        self.order(Order::Backup);
    }

    fn killed(&mut self, host: Host, committed: bool) {
        let mark = match host {
            Host::Server => committed.then_some(true),
            Host::Client(number) => self.moods(number).end_handling().then_some(false),
        };
        match mark {
            Some(true) => gapless::mark!("world.died_between_commit_and_send"),
            Some(false) => gapless::mark!("world.died_between_send_and_commit"),
            None => {}
        }
    }

    fn heal(&mut self) {
        for (moods, _) in &self.clients {
            moods.heal();
        }
    }

    fn is_converged(&mut self) -> bool {
        let topology = &self.topology;
        let owed = (1..=topology.clients).map(|client| (client, topology.agent_of(client)));
        self.recorder.is_converged(owed)
    }

    fn finish(&mut self) -> Vec<Host> {
        for (_, known) in &self.clients {
            known.end_chain(&self.recorder);
        }
        self.recorder.step("over: a look into the log".to_owned());
        vec![Host::Server]
    }
}
