//! Carries a plan out on real sockets and in real time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::Instant;

use super::client::{Application, Client, Kinds, hear};
use super::gate::{Address, Gate, LiveWatch};
use super::plan::Speed;
use super::server::{ForeignServer, ReferenceServer, Server};
use super::tap::Tap;
use crate::check::violations;
use crate::conform::process::Launch;
use crate::conform::{
    self, Config, EventsClientConfig, EventsServerConfig, Hello, Live, NodeError, Role, feature,
};
use crate::history::Seen;
use crate::plan::{
    Action, ClientOptions, Cut, Fault, Host, Plan, Protocol, ServerOptions, Topology, When,
};
use crate::proxy::Pace;
use crate::seed::Seed;
use crate::world::events::client::Known;
use crate::world::events::publisher::{Press, job};
use crate::world::events::server::{PUBLISHER_TOKEN, agent_id, agent_token};
use crate::world::events::watch::EventWatch;
use crate::world::host::HostState;
use crate::world::link::{Connecting, Link, Reading};
use crate::world::record::Recorder;

/// How often the world looks what is due, in real time.
const TICK: Duration = Duration::from_millis(2);

/// How long everything may take to arrive after the faults, in real time. It is no measure of the
/// implementation: a slow computer must not make a verdict.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// How often the world looks whether something is violated already, in real time.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How long the world goes on after everything has arrived, to see what comes twice, in real time.
const QUIET: Duration = Duration::from_millis(700);

/// How long a foreign server may take to say where it listens.
const LISTEN_MAX: Duration = Duration::from_secs(10);

/// What a run is made of.
pub(super) struct Stage<'a> {
    pub(super) role: Role,
    pub(super) launch: &'a Launch,
    pub(super) hello: &'a Hello,
    pub(super) plan: &'a Plan,
    pub(super) speed: Speed,
    pub(super) recorder: Recorder,
    /// Where files are kept while it runs.
    pub(super) folder: &'a Path,
}

/// How a fault that lasts ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Connecting(u32),
    Reading(u32),
    Held(u32),
    Latency(u32),
    Restart(Host),
}

pub(super) struct World<'a> {
    stage: Stage<'a>,
    server: Server,
    address: Address,
    clients: Vec<Client>,
    /// The clients' ways to the server.
    ways: Vec<(Link, Pace)>,
    lasting: Vec<(u64, Lasting)>,
    /// When the plan began: once everybody was there.
    began_ms: u64,
}

impl<'a> World<'a> {
    /// Everybody enters, and the server begins.
    pub(super) async fn new(
        stage: Stage<'a>,
        server_options: &ServerOptions,
        client_options: &ClientOptions,
    ) -> Result<Self, NodeError> {
        let address = Address::default();
        let server_options = stage.speed.server(server_options);
        let client_options = stage.speed.client(client_options);
        let mut world = Self {
            server: server(&stage, &address, &server_options),
            address,
            clients: Vec::new(),
            ways: Vec::new(),
            lasting: Vec::new(),
            began_ms: 0,
            stage,
        };
        for number in 1..=world.stage.plan.topology.clients {
            let gate = Gate::open().await.map_err(|error| simulator(&error))?;
            let client = client(&world.stage, number, &gate, &client_options);
            let tap = match &client.kind {
                Kinds::Foreign { tap, .. } => Some(tap.clone()),
                Kinds::Reference { .. } => None,
            };
            let recorder = world.stage.recorder.clone();
            let marks = matches!(client.kind, Kinds::Foreign { marks: true, .. });
            let events = EventWatch { client: number, recorder, marks };
            let watch = Arc::new(LiveWatch { events, tap });
            let process = Arc::clone(&client.state.process);
            let (link, pace, carry) = gate.carry(world.address.clone(), watch, process);
            pace.set_latency(world.stage.speed.real(world.stage.plan.topology.latency_ms));
            spawn_local(carry);
            world.ways.push((link, pace));
            world.clients.push(client);
        }
        Ok(world)
    }

    /// Both phases, then a look at the log.
    pub(super) async fn run(mut self) -> Result<u64, NodeError> {
        self.start_server().await?;
        for client in &mut self.clients {
            client.start()?;
        }
        // An adapter that does not answer has its own time limit.
        while !self.clients.iter().all(Client::began) {
            self.tick().await?;
        }
        self.began_ms = self.stage.recorder.now_ms();
        let mut waiting: Vec<usize> = (0..self.stage.plan.steps.len()).collect();
        while self.now_ms() < self.stage.plan.duration_ms {
            let now = self.now_ms();
            self.end_lasting(now).await?;
            let mut due = Vec::new();
            waiting.retain(|index| match self.due_ms(&self.stage.plan.steps[*index].when) {
                Some(at) if at <= now => {
                    due.push((at, *index));
                    false
                }
                _ => true,
            });
            due.sort_unstable();
            for (_, index) in due {
                self.carry_out(index, now).await;
            }
            self.tick().await?;
        }
        self.heal().await?;
        self.settle().await?;
        let virtual_ms = self.now_ms();
        for client in &mut self.clients {
            client.finish().await;
        }
        self.stage.recorder.step("over: a look into the log".to_owned());
        self.server.finish().await.map_err(|problem| simulator(&problem))?;
        match self.problem() {
            None => Ok(virtual_ms),
            Some(problem) => Err(problem),
        }
    }

    /// Waits until everything has arrived, or until it is certain that it will not.
    async fn settle(&mut self) -> Result<(), NodeError> {
        let end = Instant::now() + SETTLE_MAX;
        let mut look = Instant::now() + LOOK_EVERY;
        let mut quiet_from = None;
        while Instant::now() < end {
            self.tick().await?;
            let clients = self.clients.iter().map(|client| (client.number, client.agent));
            if self.stage.recorder.is_converged(clients) {
                if quiet_from.get_or_insert_with(Instant::now).elapsed() >= QUIET {
                    return Ok(());
                }
                continue;
            }
            quiet_from = None;
            if Instant::now() >= look {
                look = Instant::now() + LOOK_EVERY;
                // What is violated stays so.
                let (safety, _) = violations(&self.stage.recorder.so_far(), self.stage.plan);
                if !safety.is_empty() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn start_server(&mut self) -> Result<(), NodeError> {
        self.server.start().await?;
        let end = Instant::now() + LISTEN_MAX;
        while self.address.get().is_none() {
            self.tick().await?;
            if Instant::now() >= end {
                return Err(NodeError::Misused(
                    "the server does not say where it listens".to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        self.stage.recorder.now_ms() - self.began_ms
    }

    fn problem(&self) -> Option<NodeError> {
        self.clients.iter().find_map(Client::problem).or_else(|| self.server.problem())
    }

    async fn tick(&mut self) -> Result<(), NodeError> {
        tokio::time::sleep(TICK).await;
        match self.problem() {
            None => Ok(()),
            Some(problem) => Err(problem),
        }
    }

    /// When a step is due, as far as known.
    fn due_ms(&self, when: &When) -> Option<u64> {
        match when {
            When::At(at) => Some(*at),
            When::Mark { mark, nth, after_ms } => {
                let reached = self.stage.recorder.mark_reached(mark, *nth)?;
                Some(reached.saturating_sub(self.began_ms) + after_ms)
            }
        }
    }

    async fn carry_out(&mut self, index: usize, now: u64) {
        let recorder = self.stage.recorder.clone();
        recorder.carries_out(Some(index));
        match &self.stage.plan.steps[index].action {
            Action::Fault(fault) => {
                recorder.step(format!("fault: {fault:?}"));
                recorder.fault(fault.kind());
                self.inject(fault, now).await;
            }
            Action::Publish(publish) => {
                let (count, agent, every) = (publish.count, publish.agent, publish.every_ms);
                recorder
                    .step(format!("publish {count} events to agent-{agent}, one every {every} ms"));
                recorder.worker_started();
                let press = Press {
                    connector: self.address.clone(),
                    host: "localhost".to_owned(),
                    speed: self.stage.speed.times(),
                    silent: false,
                };
                let seed = Seed(self.stage.plan.seed);
                spawn_local(job(index, publish.clone(), recorder, seed, press));
            }
            // No plan of events has another.
            Action::Submit(_)
            | Action::Cancel { .. }
            | Action::Retry { .. }
            | Action::Say(_)
            | Action::Refresh { .. }
            | Action::Reconnect { .. }
            | Action::Work(_) => {}
        }
        self.stage.recorder.carries_out(None);
    }

    async fn inject(&mut self, fault: &Fault, now: u64) {
        let speed = self.stage.speed;
        match *fault {
            Fault::Cut { client, how, after_frames, for_ms } => {
                self.link(client).cut(how, after_frames.unwrap_or(0));
                if for_ms > 0 {
                    self.link(client).set_connecting(Connecting::Lost);
                    self.lasts(now + for_ms, Lasting::Connecting(client));
                }
            }
            Fault::Partition { client, for_ms } => {
                self.link(client).cut(Cut::HalfOpen, 0);
                self.link(client).set_connecting(Connecting::Lost);
                self.lasts(now + for_ms, Lasting::Connecting(client));
            }
            Fault::Hold { client, for_ms } => {
                self.pace(client).hold(true);
                self.lasts(now + for_ms, Lasting::Held(client));
            }
            Fault::Latency { client, latency_ms, for_ms } => {
                self.pace(client).set_latency(speed.real(latency_ms));
                self.lasts(now + for_ms, Lasting::Latency(client));
            }
            Fault::Refuse { client, for_ms } => {
                self.link(client).set_connecting(Connecting::Refused);
                self.lasts(now + for_ms, Lasting::Connecting(client));
            }
            Fault::NeverAnswer { client, for_ms } => {
                self.link(client).set_connecting(Connecting::NeverAnswered);
                self.lasts(now + for_ms, Lasting::Connecting(client));
            }
            Fault::SlowReader { client, pause_ms, for_ms } => {
                self.link(client).set_reading(match pause_ms {
                    Some(pause) => Reading::Paused(speed.real(pause)),
                    None => Reading::Stopped,
                });
                self.lasts(now + for_ms, Lasting::Reading(client));
            }
            Fault::Duplicate { client, frames } => self.link(client).duplicate(frames),
            Fault::Lose { client, frames } => self.link(client).lose(frames),
            Fault::Inject { client, frame, to_server } => {
                self.link(client).inject(frame, to_server)
            }
            Fault::Crash { host, restart_ms } => {
                let name = host.name(Protocol::Events).to_owned();
                self.stage.recorder.see(Seen::Crashed { host: name });
                match host {
                    Host::Server => self.server.kill().await,
                    Host::Client(number) => self.clients[number as usize - 1].kill().await,
                    // A plan with several servers does not come here.
                    Host::Member(_) | Host::Engine => {}
                }
                self.lasts(now + restart_ms, Lasting::Restart(host));
            }
            // A plan that has one of these does not come here.
            Fault::PowerOff { .. }
            | Fault::DiskError { .. }
            | Fault::DiskFull { .. }
            | Fault::SlowCommit { .. }
            | Fault::ClockStep { .. }
            | Fault::ClockDrift { .. }
            | Fault::Suspend { .. }
            | Fault::Backup { .. }
            | Fault::Restore { .. }
            | Fault::Swap { .. }
            | Fault::LoseStore { .. }
            | Fault::SlowHandler { .. }
            | Fault::FailHandler { .. }
            | Fault::FailOpenHandler { .. }
            | Fault::Answer { .. }
            | Fault::LoseAnswer { .. }
            | Fault::Retain { .. }
            | Fault::Engine(_) => {}
        }
    }

    fn link(&self, client: u32) -> &Link {
        &self.ways[client as usize - 1].0
    }

    fn pace(&self, client: u32) -> &Pace {
        &self.ways[client as usize - 1].1
    }

    /// A fault of the same kind on the same client ends when the newest one does.
    fn lasts(&mut self, until_ms: u64, what: Lasting) {
        self.lasting.retain(|(_, lasting)| *lasting != what);
        self.lasting.push((until_ms, what));
    }

    async fn end_lasting(&mut self, now: u64) -> Result<(), NodeError> {
        let (over, lasting) = self.lasting.drain(..).partition(|(until, _)| *until <= now);
        self.lasting = lasting;
        let over: Vec<(u64, Lasting)> = over;
        for (_, what) in over {
            self.stage.recorder.step(format!("over: {what:?}"));
            match what {
                Lasting::Connecting(client) => self.link(client).set_connecting(Connecting::Works),
                Lasting::Reading(client) => self.link(client).set_reading(Reading::Normal),
                Lasting::Held(client) => self.pace(client).hold(false),
                Lasting::Latency(client) => {
                    let latency = self.stage.speed.real(self.stage.plan.topology.latency_ms);
                    self.pace(client).set_latency(latency);
                }
                Lasting::Restart(Host::Server) => self.start_server().await?,
                Lasting::Restart(Host::Client(number)) => {
                    self.clients[number as usize - 1].start()?;
                }
                Lasting::Restart(Host::Member(_) | Host::Engine) => {}
            }
        }
        Ok(())
    }

    /// Faults are over. Processes that are down start again now.
    async fn heal(&mut self) -> Result<(), NodeError> {
        self.end_lasting(u64::MAX).await?;
        for (link, _) in &self.ways {
            link.heal();
        }
        self.stage.recorder.step("healed: faults are over".to_owned());
        self.stage.recorder.see(Seen::Healed);
        Ok(())
    }
}

fn simulator(problem: &dyn std::fmt::Display) -> NodeError {
    NodeError::Misused(format!("the simulator: {problem}"))
}

/// What an adapter is told, but for the configuration of its role.
fn live(stage: &Stage<'_>, host: &str, config: Config) -> Live {
    let folder = stage.folder.join(host);
    Live {
        n: 1,
        case: stage.plan.scenario.clone(),
        seed: stage.plan.seed.to_string(),
        role: stage.role,
        host: host.to_owned(),
        life: 1,
        config,
        speed: stage.speed.times(),
        application: conform::Application::default(),
        folder: folder.display().to_string(),
        taken: 0,
    }
}

fn server(stage: &Stage<'_>, address: &Address, options: &ServerOptions) -> Server {
    let seed = Seed(stage.plan.seed);
    let name = Host::Server.name(Protocol::Events);
    let state = HostState::new(name, seed, &stage.recorder, false);
    let (address, topology) = (address.clone(), stage.plan.topology.clone());
    match stage.role {
        Role::EventsServer => {
            let live = live(stage, name, server_config(&topology, options));
            let log = stage.folder.join(format!("{name}.stderr"));
            let hear = ForeignServer::hear(address.clone(), &state);
            let tap = Tap::new(stage.launch.clone(), log, hear);
            Server::Foreign(ForeignServer { state, tap, live, address, task: None })
        }
        _ => {
            let path = stage.folder.join("log.db");
            let options = options.clone();
            let server = ReferenceServer { state, topology, options, path, address, task: None };
            Server::Reference(server)
        }
    }
}

fn server_config(topology: &Topology, options: &ServerOptions) -> Config {
    let agents =
        (1..=topology.agents).map(|agent| (agent_id(agent).to_string(), agent_token(agent)));
    Config::EventsServer(EventsServerConfig {
        agents: agents.collect(),
        publisher_token: PUBLISHER_TOKEN.to_owned(),
        extension: options.extension,
        ring: options.ring,
        resync_grace_ms: options.resync_grace_ms,
        window_frames: options.window_frames,
        write_stall_ms: options.write_stall_ms,
        silence_ms: options.silence_ms,
        retain_events: options.retain_events,
        page_events: options.page_events,
    })
}

fn client(stage: &Stage<'_>, number: u32, gate: &Gate, options: &ClientOptions) -> Client {
    let name = Host::Client(number).name(Protocol::Events);
    let state = HostState::new(name, Seed(stage.plan.seed), &stage.recorder, false);
    let agent = stage.plan.topology.agent_of(number);
    let known = Known::new(number, agent);
    let kind = match stage.role {
        Role::EventsClient => {
            let config = Config::EventsClient(EventsClientConfig {
                base_url: format!("http://{}", gate.address),
                token: agent_token(agent),
                extension: options.extension,
                from_beginning: options.from_beginning,
                ping_every_ms: options.ping_every_ms,
                pong_timeout_ms: options.pong_timeout_ms,
                reconnect_ms: options.reconnect_ms,
                queue_events: options.queue_events,
                offers_max: options.offers_max,
            });
            let application = conform::Application {
                handler_ms: options.handler_ms,
                open_handler_ms: options.open_handler_ms,
            };
            let told = Application::default();
            let log = stage.folder.join(format!("{name}.stderr"));
            let tap = Tap::new(stage.launch.clone(), log, hear(&told));
            let marks = !stage.hello.features.iter().any(|known| known == feature::MARKS);
            let live = Box::new(Live { application, ..live(stage, name, config) });
            Kinds::Foreign { tap, live, told, marks }
        }
        _ => {
            let path = stage.folder.join(format!("{name}.db"));
            let speed = stage.speed.times();
            Kinds::Reference { path, gate: gate.address, speed, problem: Arc::default() }
        }
    };
    Client { number, agent, state, known, options: options.clone(), kind, task: None }
}
