//! The hosts of tasks: `controller`, `agent-1` … and `submitter`.

mod agent;
mod agent_node;
mod controller;
mod controller_node;
mod executor;
mod script;
mod signing;
mod submitter;
mod watch;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use gapless::AgentId;
use gapless::tasks::{Attempt, OutputStream};
use tokio::sync::mpsc;

use super::host::HostState;
use super::link::Link;
use super::record::Recorder;
use super::{Cast, Client, Company, Stage, lock};
use crate::conform::Role;
use crate::plan::{Action, AgentOptions, ControllerOptions, Fault, Host, Protocol, Topology};

/// The name of the controller's host.
const CONTROLLER: &str = "controller";

/// The token of the submitter.
const SUBMITTER_TOKEN: &str = "st_live_1";

/// The name of an agent.
fn agent_id(agent: u32) -> AgentId {
    AgentId::parse(&format!("agent-{agent}")).expect("a fixed pattern")
}

/// What the world knows over the lives of all hosts.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<LedgerState>>);

#[derive(Default)]
struct LedgerState {
    /// Faults are over: whoever looks whether there is anything to do may begin.
    healed: bool,
    /// Tasks that were accepted.
    tasks: BTreeSet<String>,
    /// Attempts that an agent has spoken of, per agent.
    spoken_of: BTreeMap<u32, BTreeSet<Attempt>>,
    /// Hosts that have nothing to do any more.
    idle: BTreeSet<Host>,
    /// How many bytes of each stream have got numbers, and the highest number.
    bound: BTreeMap<(Attempt, OutputStream), (u64, u64)>,
    /// What each command writes, by the name of the attempt: the text of the command.
    commands: BTreeMap<String, String>,
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, LedgerState> {
        lock(&self.0)
    }

    fn set_idle(&self, host: Host, idle: bool) {
        let mut state = self.state();
        match idle {
            true => state.idle.insert(host),
            false => state.idle.remove(&host),
        };
    }
}

struct Tasks {
    recorder: Recorder,
    topology: Topology,
    jobs: mpsc::UnboundedSender<submitter::Job>,
    ledger: Ledger,
}

/// Lets the hosts of a plan enter.
pub(super) fn enter(
    stage: &mut Stage<'_>,
    controller_options: &ControllerOptions,
    agent_options: &AgentOptions,
) -> Company {
    let (seed, recorder, distorted) = (stage.seed, stage.recorder.clone(), stage.distorted);
    let topology = &stage.plan.topology;
    let lying = distorted.settings().lying_disk;
    let ledger = Ledger::default();
    let server = HostState::new(CONTROLLER, seed, &recorder, lying);
    {
        let (process, vault, ledger) =
            (server.process.clone(), server.vault.clone(), ledger.clone());
        let (options, inspecting) = (controller_options.clone(), stage.inspecting.clone());
        let (agents, rsa) = (topology.clients, agent_options.rsa);
        let extension = agent_options.extension && controller_options.extension;
        let attached = stage.attached.cloned();
        let attached = attached.filter(|attached| attached.role() == Role::TasksController);
        let case = stage.plan.scenario.clone();
        stage.host(CONTROLLER, move || {
            let process = lock(&process).clone();
            let (attached, case) = (attached.clone(), case.clone());
            let side = controller::Side {
                process: process.clone(),
                options: options.clone(),
                vault: vault.clone(),
                ledger: ledger.clone(),
                agents,
                rsa,
                extension,
            };
            let inspecting = *lock(&inspecting);
            process.live(async move {
                match (attached, inspecting) {
                    (Some(attached), _) => {
                        controller_node::serve(side, attached, case, inspecting).await
                    }
                    (None, true) => controller::inspect(side).await,
                    (None, false) => controller::serve(side, distorted).await,
                }
            })
        });
    }
    let mut clients = Vec::new();
    let agents = stage.attached.cloned();
    let agents = agents.filter(|attached| attached.role() == Role::TasksAgent);
    for number in 1..=topology.clients {
        let name = Host::Client(number).name(Protocol::Tasks);
        let state = HostState::new(name, seed, &recorder, lying);
        let link = Link::default();
        let (process, vault, ledger) = (state.process.clone(), state.vault.clone(), ledger.clone());
        clients.push(Client { state, link: link.clone() });
        let (options, inspecting) = (agent_options.clone(), stage.inspecting.clone());
        let extension = agent_options.extension && controller_options.extension;
        let (agents, case) = (agents.clone(), stage.plan.scenario.clone());
        stage.host(name, move || {
            let process = lock(&process).clone();
            let (agents, case) = (agents.clone(), case.clone());
            let side = agent::Side {
                process: process.clone(),
                number,
                options: options.clone(),
                extension,
                vault: vault.clone(),
                ledger: ledger.clone(),
                link: link.clone(),
            };
            let inspecting = *lock(&inspecting);
            process.live(async move {
                match (agents, inspecting) {
                    (Some(attached), _) => agent_node::live(side, attached, case, inspecting).await,
                    (None, true) => agent::inspect(side).await,
                    (None, false) => agent::live(side, distorted).await,
                }
            })
        });
    }
    let (jobs, inbox) = mpsc::unbounded_channel();
    let inbox = Mutex::new(Some(inbox));
    {
        let (recorder, ledger) = (recorder.clone(), ledger.clone());
        stage.host(submitter::HOST, move || {
            let inbox = lock(&inbox).take();
            let (recorder, ledger) = (recorder.clone(), ledger.clone());
            async move {
                match inbox {
                    Some(inbox) => submitter::work(inbox, recorder, ledger, seed).await,
                    None => Ok(()),
                }
            }
        });
    }
    let cast = Tasks { recorder, topology: topology.clone(), jobs, ledger };
    Company {
        server,
        members: Vec::new(),
        engine: None,
        clients,
        workload: Some(submitter::HOST),
        cast: Box::new(cast),
    }
}

impl Cast for Tasks {
    fn work(&mut self, index: usize, action: &Action, _now_ms: u64) {
        let text = match action {
            Action::Submit(submit) => format!(
                "submit {} tasks `{}` to agent-{}, one every {} ms",
                submit.count, submit.name, submit.agent, submit.every_ms
            ),
            Action::Cancel { task } => format!("cancel {task}"),
            Action::Retry { task } => format!("retry {task}"),
            _ => return,
        };
        self.recorder.step(text);
        self.recorder.worker_started();
        // The submitter's host never ends before the world does.
        let _ = self.jobs.send((index, action.clone()));
    }

    fn fault(&mut self, _fault: &Fault) {}

    fn handler_recovers(&mut self, _client: u32) {}

    // A copy is made after the next transaction.
    fn backup_due(&mut self, _host: Host) {}

    fn killed(&mut self, host: Host, committed: bool) {
        self.ledger.set_idle(host, false);
        if committed {
            gapless::mark!("world.died_between_commit_and_send");
        }
    }

    fn heal(&mut self) {
        self.ledger.state().healed = true;
    }

    fn is_converged(&mut self) -> bool {
        let hosts = 1 + usize::try_from(self.topology.clients).unwrap_or(0);
        self.recorder.workers_are_done() && self.ledger.state().idle.len() == hosts
    }

    fn finish(&mut self) -> Vec<Host> {
        self.recorder.step("over: a look into the record and the stores".to_owned());
        let agents = (1..=self.topology.clients).map(Host::Client);
        std::iter::once(Host::Server).chain(agents).collect()
    }
}
