//! A plan: everything that a run does, spelled out.
//!
//! Drawing happens once, from a scenario and a seed ([`draw`](crate::scenario::draw)). The plan that comes out names
//! every workload step and every fault with its virtual time. It can be printed, saved, compared
//! and run again after the code has changed; a seed is good for one commit, a plan is what one
//! keeps. Times are milliseconds of virtual time since the start of the run.

mod drawn;
mod engine;
mod fault;
mod options;
mod unusual;
mod work;

use serde::{Deserialize, Serialize};

pub use self::drawn::Drawn;
pub use self::engine::EngineFault;
pub use self::fault::{Answer, Cut, Fault, Strange};
pub use self::options::{
    AgentOptions, ClientOptions, ControllerOptions, Options, ServerOptions, SessionClientOptions,
    SessionServerOptions,
};
pub use self::unusual::Unusual;
pub use self::work::{Publish, Say, Script, Submit, Text, TurnScript};
use crate::custom::{Custom, Work};
use crate::mutants;

/// The version of the plan format.
pub const FORMAT: u32 = 1;

/// Everything that a run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// The id of the scenario from which it was drawn.
    pub scenario: String,
    /// The seed from which it was drawn; the ids and jitter of the hosts follow from it.
    pub seed: u64,
    /// The known-bad variant of the implementation that is run, by its id; absent = the implementation as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// How much virtual time one step of the world is.
    pub tick_ms: u64,
    /// When the faults end and the world heals.
    pub duration_ms: u64,
    /// How long after healing everything may take to arrive.
    pub settle_ms: u64,
    /// The statements of the specification that the scenario is about.
    pub statements: Vec<String>,
    /// The marks that the run must reach.
    pub reaches: Vec<String>,
    /// The hosts and the network between them.
    pub topology: Topology,
    /// The protocol, with the options of both sides.
    pub options: Options,
    /// What the seed drew of how much was to happen, to be read; absent = nothing was drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn: Option<Drawn>,
    /// What happens, in the order of the file or of the draw.
    pub steps: Vec<Step>,
}

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Event streams: a `server`, and `client-1` and so on.
    Events,
    /// Tasks: a `controller`, and `agent-1` and so on.
    Tasks,
    /// Sessions: a `server`, and `client-1` and so on.
    Session,
    /// One that the user of the simulator brought: a `server`, and `client-1` and so on.
    Custom(Custom),
}

/// The hosts and the network between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The number of agents, `agent-1` and so on; each has a stream. With tasks, as many as
    /// clients. With sessions, the number of users; each has a conversation.
    pub agents: u32,
    /// The number of client hosts, `client-1` and so on. Client k follows the stream of agent
    /// `(k - 1) % agents + 1`, or belongs to this user. With tasks, client k is the host
    /// `agent-k`.
    pub clients: u32,
    /// The number of servers. With more than one, which only event streams have, their log is on an
    /// engine, a host of its own: `server`, `server-2` and so on, and `engine`.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub servers: u32,
    /// How many connections in a row a client, or a publisher, opens to one server before it goes to
    /// the next one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub stays: u32,
    /// One way, between any two hosts.
    pub latency_ms: u64,
    /// How many writes a connection holds before the writer waits; also the accept backlog.
    pub tcp_capacity: usize,
    /// The order in which the hosts have their turn in a tick, each of them once; empty = the
    /// server, then the clients by number. Whoever hands out the workload comes last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<Host>,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            agents: 1,
            clients: 1,
            servers: 1,
            stays: 1,
            latency_ms: 5,
            tcp_capacity: 64,
            order: Vec::new(),
        }
    }
}

impl Topology {
    /// All hosts but the one that hands out the workload, in the usual order of their turns.
    pub fn hosts(&self) -> Vec<Host> {
        let clients = (1..=self.clients).map(Host::Client);
        self.servers().into_iter().chain(clients).chain(self.engine()).collect()
    }

    /// The servers.
    pub fn servers(&self) -> Vec<Host> {
        std::iter::once(Host::Server).chain((2..=self.servers).map(Host::Member)).collect()
    }

    /// Whether the servers share a log, which is on an engine then.
    pub fn is_cluster(&self) -> bool {
        self.servers > 1
    }

    /// The engine, if there is one.
    pub fn engine(&self) -> Option<Host> {
        self.is_cluster().then_some(Host::Engine)
    }

    /// The same in the order of their turns.
    pub fn turns(&self) -> Vec<Host> {
        match self.order.is_empty() {
            true => self.hosts(),
            false => self.order.clone(),
        }
    }

    /// The agent that a client follows; both count from 1.
    pub fn agent_of(&self, client: u32) -> u32 {
        (client - 1) % self.agents + 1
    }

    /// The user to whom a client belongs; both count from 1.
    pub fn user_of(&self, client: u32) -> u32 {
        self.agent_of(client)
    }
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When.
    pub when: When,
    /// What.
    pub action: Action,
}

/// When a step happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum When {
    /// At a virtual time, in milliseconds.
    At(u64),
    /// When a mark is reached for the `nth` time since the run began, and `after_ms` later.
    Mark {
        /// The name of the mark.
        mark: String,
        /// Counts from 1.
        nth: u32,
        /// How much later.
        after_ms: u64,
    },
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Publish events.
    Publish(Publish),
    /// Give tasks to an agent.
    Submit(Submit),
    /// Want a task no more.
    Cancel {
        /// Its id.
        task: String,
    },
    /// Want another attempt at a task whose last one has ended.
    Retry {
        /// Its id.
        task: String,
    },
    /// Say something to the application.
    Say(Say),
    /// Reload the page: the client's memory is gone, and what it stored is not.
    Refresh {
        /// Which client, by number.
        client: u32,
    },
    /// The user comes back to a client and wants to be connected.
    Reconnect {
        /// Which client, by number.
        client: u32,
    },
    /// Let a host of a protocol that the user brought do something.
    Work(Work),
    /// Break something.
    Fault(Fault),
}

/// A host that can be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Host {
    /// The server; with tasks, the controller. Of several servers, the first.
    Server,
    /// Another server of a shared log, by number, from 2.
    Member(u32),
    /// A client, by number; with tasks, an agent.
    Client(u32),
    /// The engine under a shared log.
    Engine,
}

impl Host {
    /// The number of the client, if it is one.
    pub fn client(self) -> Option<u32> {
        match self {
            Self::Server | Self::Member(_) | Self::Engine => None,
            Self::Client(number) => Some(number),
        }
    }

    /// Its name in the world.
    pub fn name(self, protocol: Protocol) -> &'static str {
        const CLIENTS: [&str; 4] = ["client-1", "client-2", "client-3", "client-4"];
        const AGENTS: [&str; 4] = ["agent-1", "agent-2", "agent-3", "agent-4"];
        const MEMBERS: [&str; 3] = ["server-2", "server-3", "server-4"];
        match (self, protocol) {
            (Self::Server, Protocol::Events | Protocol::Session | Protocol::Custom(_)) => "server",
            (Self::Server, Protocol::Tasks) => "controller",
            (Self::Client(number), Protocol::Events | Protocol::Session | Protocol::Custom(_)) => {
                CLIENTS[number as usize - 1]
            }
            (Self::Client(number), Protocol::Tasks) => AGENTS[number as usize - 1],
            (Self::Member(number), _) => MEMBERS[number as usize - 2],
            (Self::Engine, _) => "engine",
        }
    }
}

/// The most servers that a world has.
pub(crate) const SERVERS_MAX: u32 = 4;

/// The longest time in a plan: a week.
const TIME_MS_MAX: u64 = 7 * 86_400_000;

impl Plan {
    /// Whether the plan can be carried out: a plan that was changed by hand may name hosts that
    /// are not there.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        let topology = &self.topology;
        let protocol = self.options.protocol();
        if !(1..=4).contains(&topology.clients)
            || !(1..=topology.clients).contains(&topology.agents)
        {
            return Err("there are 1 to 4 clients, and no more agents than clients".to_owned());
        }
        if !(1..=SERVERS_MAX).contains(&topology.servers)
            || (topology.is_cluster() && protocol != Protocol::Events)
        {
            return Err("there are 1 to 4 servers, and several of event streams only".to_owned());
        }
        if !(1..=1_000).contains(&topology.stays) {
            return Err("`stays` is between 1 and 1000".to_owned());
        }
        if let Some(mutant) = self.mutant.as_deref().filter(|id| mutants::find(id).is_none()) {
            return Err(format!(
                "there is no mutant `{mutant}`; `gapless-sim mutants --list` names all"
            ));
        }
        let mut turns = topology.turns();
        turns.sort_unstable();
        if turns != topology.hosts() {
            return Err("`order` names each host once, or none".to_owned());
        }
        if !(1..=100).contains(&self.tick_ms) {
            return Err("`tick_ms` is between 1 and 100".to_owned());
        }
        if !(4..=4_096).contains(&topology.tcp_capacity) {
            return Err("`tcp_capacity` is between 4 and 4096".to_owned());
        }
        if self.duration_ms.max(self.settle_ms) > TIME_MS_MAX {
            return Err(format!("`duration_ms` and `settle_ms` are at most {TIME_MS_MAX}"));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let (client, agent) = match &step.action {
                Action::Publish(publish) => (None, Some(publish.agent)),
                Action::Submit(submit) => (None, Some(submit.agent)),
                Action::Cancel { task } | Action::Retry { task } => {
                    if !self.tasks().contains(task) {
                        return Err(format!("step {index} names task {task}, which is not there"));
                    }
                    (None, None)
                }
                Action::Say(say) => (Some(say.client), None),
                Action::Refresh { client } | Action::Reconnect { client } => (Some(*client), None),
                Action::Work(work) => (work.at.client(), None),
                Action::Fault(Fault::Retain { agent, .. }) => (None, Some(*agent)),
                Action::Fault(fault) => (fault.client(), None),
            };
            if let Some(client) = client.filter(|client| !(1..=topology.clients).contains(client)) {
                return Err(format!("step {index} names client {client}, which is not there"));
            }
            if let Some(agent) = agent.filter(|agent| !(1..=topology.agents).contains(agent)) {
                return Err(format!("step {index} names agent {agent}, which is not there"));
            }
            if let Action::Fault(fault) = &step.action {
                fault.check_hosts(topology).map_err(|problem| format!("step {index} {problem}"))?;
            }
            if !step.action.is_of(protocol) {
                return Err(format!("step {index} is not one of the plan's protocol"));
            }
            if let (Action::Work(work), Protocol::Custom(custom)) = (&step.action, protocol) {
                custom
                    .check_work(work)
                    .map_err(|problem| format!("step {index} cannot be done: {problem}"))?;
            }
        }
        Ok(())
    }
}

impl Plan {
    /// The ids of all tasks that are submitted.
    pub fn tasks(&self) -> Vec<String> {
        let submits = self.steps.iter().filter_map(|step| match &step.action {
            Action::Submit(submit) => Some(submit),
            _ => None,
        });
        submits.flat_map(|submit| (1..=submit.count).map(|nth| submit.task(nth))).collect()
    }
}

impl Action {
    /// Whether it can happen in a world of a protocol.
    pub fn is_of(&self, protocol: Protocol) -> bool {
        match self {
            Self::Publish(_) => protocol == Protocol::Events,
            Self::Submit(_) | Self::Cancel { .. } | Self::Retry { .. } => {
                protocol == Protocol::Tasks
            }
            Self::Say(_) | Self::Refresh { .. } | Self::Reconnect { .. } => {
                protocol == Protocol::Session
            }
            Self::Work(_) => matches!(protocol, Protocol::Custom(_)),
            Self::Fault(fault) => match fault {
                Fault::SlowHandler { .. }
                | Fault::FailHandler { .. }
                | Fault::FailOpenHandler { .. }
                | Fault::Engine(_)
                | Fault::Retain { .. } => protocol == Protocol::Events,
                Fault::SlowCommit { host, .. } => {
                    protocol != Protocol::Events || *host == Host::Server
                }
                // Nobody else knows when the files of a database that is in use are whole.
                Fault::Backup { .. } | Fault::Restore { .. }
                    if matches!(protocol, Protocol::Custom(_)) =>
                {
                    false
                }
                Fault::Backup { host }
                | Fault::Restore { host, .. }
                | Fault::LoseStore { host, .. } => match protocol {
                    Protocol::Events => matches!(host, Host::Server | Host::Engine),
                    Protocol::Tasks | Protocol::Custom(_) => true,
                    // A conversation that is lost or goes back is nothing that a client can notice.
                    Protocol::Session => *host != Host::Server,
                },
                Fault::Swap { .. }
                | Fault::Answer { .. }
                | Fault::LoseAnswer { .. }
                | Fault::Inject { frame: Strange::StaleAnswer, .. } => protocol == Protocol::Tasks,
                _ => true,
            },
        }
    }
}
