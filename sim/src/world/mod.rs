//! Carries out a plan: the production code of clients and server in turmoil's network, on
//! turmoil's disk, with its clock.
//!
//! Who the hosts are is a matter of the protocol: see `events`, `tasks`, `session` and
//! [`custom`]. The world steps turmoil tick by tick and
//! does between the ticks what the plan says. A run has two phases: until `duration_ms` faults
//! come and go while the workload runs; then everything heals, and within `settle_ms` what is owed
//! has to arrive.
//!
//! What turmoil does differently from a real network is made up for here: a connection that dies
//! silently, loses a frame or carries a strange one is a matter of `link`, which stands between
//! the client's driver and turmoil's TCP; a process that dies keeps what it wrote and nothing that
//! it does while it is torn down reaches the disk ([`disk`]).

pub mod disk;
pub(crate) mod events;
pub(crate) mod frames;
pub(crate) mod host;
pub(crate) mod link;
pub(crate) mod marks;
pub(crate) mod node;
mod orphans;
pub(crate) mod pause;
pub(crate) mod record;
mod session;
mod tasks;
pub(crate) mod traced;
pub(crate) mod vault;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use gapless::net::Limits;
use turmoil::Sim;

use self::disk::DiskFault;
pub(crate) use self::host::HostClock;
use self::host::HostState;
use self::link::{Connecting, Link, Reading};
pub use self::node::Attached;
use self::record::Recorder;
use self::vault::Replace;
use crate::conform::NodeError;
use crate::custom::{self, Sides};
use crate::history::{History, Seen};
use crate::mutants::Distorted;
use crate::plan::{Action, EngineFault, Fault, Host, Options, Plan, Protocol, When};
use crate::seed::Seed;
use crate::trace::{Fact, Kind, Trace};

/// The largest message that any WebSocket of the world reads, in bytes: more than the largest piece of
/// output takes whose bytes are all escaped.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The largest hello of an agent, in bytes, with everything around what it lists.
pub(crate) const HELLO_BYTES_MAX: usize = 16 << 10;

/// How long the world runs on after everything has arrived, to see what comes twice.
const QUIET_MS: u64 = 2_000;

/// How often the world looks whether everything has arrived.
const LOOK_EVERY_MS: u64 = 100;

/// What came of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The plan that was carried out.
    pub plan: Plan,
    /// Everything that happened.
    pub trace: Trace,
    /// What of it the outside could see.
    pub history: History,
    /// How often each mark was reached.
    pub marks: BTreeMap<&'static str, u64>,
    /// How many faults of each kind were injected.
    pub faults: BTreeMap<&'static str, u64>,
    /// How much virtual time went by.
    pub virtual_ms: u64,
}

/// A run could not be carried out: a bug of the simulator, a panic of the code under test, or an
/// adapter that did not do its part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct RunError {
    /// What went wrong.
    pub problem: String,
    /// If it went wrong with a foreign implementation.
    pub node: Option<Box<NodeError>>,
    /// The last things that happened before.
    pub last: Vec<String>,
}

/// Carries out a plan, on the thread of the caller.
///
/// # Errors
///
/// [`RunError`] if the simulation itself broke, or the code under test panicked.
pub fn run(plan: &Plan) -> Result<Run, RunError> {
    carry_out(plan, None, &Recorder::default())
}

/// The same for whoever does not read the trace, which stays empty: faster, and nothing else differs.
///
/// # Errors
///
/// [`RunError`] as from [`run`], without the last things that happened.
pub fn run_untraced(plan: &Plan) -> Result<Run, RunError> {
    carry_out(plan, None, &Recorder::untraced())
}

/// Carries out a plan with foreign implementations in the place of the hosts of one side.
///
/// # Errors
///
/// [`RunError`] as from [`run`], and if a node does not do its part.
pub fn run_with(plan: &Plan, attached: Option<&Attached>) -> Result<Run, RunError> {
    carry_out(plan, attached, &Recorder::default())
}

fn carry_out(
    plan: &Plan,
    attached: Option<&Attached>,
    recorder: &Recorder,
) -> Result<Run, RunError> {
    let failed = |problem: String| RunError { problem, node: None, last: recorder.last(40) };
    let _listening = marks::Listening::start(recorder.clone()).map_err(failed)?;
    if let Some(attached) = attached {
        attached.begin();
    }
    let done = catch_unwind(AssertUnwindSafe(|| World::new(plan, recorder, attached).run()));
    if let Some(node) = attached.and_then(Attached::failure) {
        let problem = node.to_string();
        return Err(RunError { problem, node: Some(Box::new(node)), last: recorder.last(40) });
    }
    let virtual_ms = match done {
        Ok(Ok(virtual_ms)) => virtual_ms,
        Ok(Err(problem)) => return Err(failed(problem)),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            return Err(failed(format!("panic: {}", said.unwrap_or("without a message"))));
        }
    };
    let (trace, history, marks, faults) = recorder.finish();
    Ok(Run { plan: plan.clone(), trace, history, marks, faults, virtual_ms })
}

/// The limits of every WebSocket in the world.
pub(crate) fn limits() -> Limits {
    Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() }
}

/// What of a world is a matter of its protocol.
pub(crate) trait Cast {
    /// Carries out a step of the workload.
    fn work(&mut self, index: usize, action: &Action, now_ms: u64);

    /// Carries out a fault that only this protocol knows.
    fn fault(&mut self, fault: &Fault);

    /// A slow handler is as fast as before.
    fn handler_recovers(&mut self, client: u32);

    /// A running host is to copy its database.
    fn backup_due(&mut self, host: Host);

    /// A process is gone, with what was on its way in it.
    fn killed(&mut self, host: Host, committed: bool);

    /// Faults are over.
    fn heal(&mut self);

    /// Whether everything has arrived.
    fn is_converged(&mut self) -> bool;

    /// The run is over: which hosts are to be started once more, for a look into their databases?
    fn finish(&mut self) -> Vec<Host>;
}

/// Where the hosts of a protocol enter.
pub(crate) struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    /// Nodes that take the place of hosts.
    attached: Option<&'a Attached>,
    pub(crate) recorder: &'a Recorder,
    pub(crate) seed: Seed,
    distorted: Distorted,
    /// Whether a host that starts only looks into its database.
    inspecting: Arc<Mutex<bool>>,
    /// The hosts that wait for their place in the order of turns.
    waiting: Vec<(&'static str, Enter)>,
}

/// Lets a host enter.
type Enter = Box<dyn FnOnce(&mut Sim<'static>)>;

impl Stage<'_> {
    /// A host, and what runs on it in each of its lives.
    pub(crate) fn host<F, S>(&mut self, name: &'static str, software: F)
    where
        F: Fn() -> S + 'static,
        S: Future<Output = turmoil::Result> + 'static,
    {
        self.waiting.push((name, Box::new(move |sim| sim.host(name, software))));
    }

    /// Lets the hosts enter in the order of their turns; who is not in it comes last.
    fn enter(self, sim: &mut Sim<'static>) {
        let protocol = self.plan.options.protocol();
        let turns: Vec<_> =
            self.plan.topology.turns().into_iter().map(|host| host.name(protocol)).collect();
        let mut waiting = self.waiting;
        waiting.sort_by_key(|(name, _)| {
            turns.iter().position(|turn| turn == name).unwrap_or(turns.len())
        });
        for (_, enter) in waiting {
            enter(sim);
        }
    }
}

/// The hosts that have entered.
pub(crate) struct Company {
    pub(crate) server: HostState,
    /// The other servers of a shared log.
    pub(crate) members: Vec<HostState>,
    /// The engine under a shared log.
    pub(crate) engine: Option<HostState>,
    pub(crate) clients: Vec<Client>,
    /// The host that works off the workload, if it has one of its own.
    pub(crate) workload: Option<&'static str>,
    pub(crate) cast: Box<dyn Cast>,
}

struct World<'a> {
    plan: &'a Plan,
    protocol: Protocol,
    attached: Option<&'a Attached>,
    recorder: Recorder,
    company: Company,
    inspecting: Arc<Mutex<bool>>,
    /// When a host whose disk loses power is started again.
    restarts: BTreeMap<Host, u64>,
    /// Faults that last, and when they end, in the order in which they began.
    lasting: Vec<(u64, Lasting)>,
    // Last, so that the hosts are torn down while everything that they use is still there.
    sim: Sim<'static>,
}

pub(crate) struct Client {
    pub(crate) state: HostState,
    pub(crate) link: Link,
}

/// How a fault that lasts ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Connecting(u32),
    Reading(u32),
    Handler(u32),
    Held(u32),
    Partitioned(u32),
    Latency(u32),
    Full(Host),
    SlowCommits(Host),
    Suspended(Host),
    Drift(Host),
    Isolated { host: Host, held: bool },
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, recorder: &Recorder, attached: Option<&'a Attached>) -> Self {
        let seed = Seed(plan.seed);
        let latency = Duration::from_millis(plan.topology.latency_ms);
        let mut sim = turmoil::Builder::new()
            .epoch(SystemTime::UNIX_EPOCH)
            .simulation_duration(Duration::from_millis(u64::MAX / 2))
            .tick_duration(Duration::from_millis(plan.tick_ms))
            .min_message_latency(latency)
            .max_message_latency(latency)
            .tcp_capacity(plan.topology.tcp_capacity)
            // A refused or cancelled connect never gives its port back.
            .ephemeral_ports(1_024..=65_535)
            .rng_seed(plan.seed)
            .build();
        let inspecting = Arc::new(Mutex::new(false));
        let mut stage = Stage {
            plan,
            attached,
            recorder,
            seed,
            distorted: Distorted::by(plan.mutant.as_deref()),
            inspecting: Arc::clone(&inspecting),
            waiting: Vec::new(),
        };
        let company = match &plan.options {
            Options::Events { server, client } => events::enter(&mut stage, server, client),
            Options::Tasks { controller, agent } => tasks::enter(&mut stage, controller, agent),
            Options::Session { server, client } => session::enter(&mut stage, server, client),
            Options::Custom { protocol, server, client } => {
                let options = Sides { server: server.clone(), client: client.clone() };
                custom::enter(&mut stage, *protocol, &options)
            }
        };
        stage.enter(&mut sim);
        Self {
            plan,
            protocol: plan.options.protocol(),
            attached,
            recorder: recorder.clone(),
            company,
            inspecting,
            restarts: BTreeMap::new(),
            lasting: Vec::new(),
            sim,
        }
    }

    /// Both phases, then a look at the log; the virtual time that went by.
    fn run(mut self) -> Result<u64, String> {
        let mut waiting: Vec<usize> = (0..self.plan.steps.len()).collect();
        while self.now_ms() < self.plan.duration_ms {
            let now = self.now_ms();
            self.end_lasting(now);
            let mut due = Vec::new();
            waiting.retain(|index| match self.due_ms(&self.plan.steps[*index].when) {
                Some(at) if at <= now => {
                    due.push((at, *index));
                    false
                }
                _ => true,
            });
            due.sort_unstable();
            for (_, index) in due {
                self.carry_out(index, now);
            }
            self.tick()?;
        }
        self.heal();
        let end = self.now_ms() + self.plan.settle_ms;
        let mut quiet_from = None;
        while self.now_ms() < end {
            self.tick()?;
            let now = self.now_ms();
            if !now.is_multiple_of(LOOK_EVERY_MS.next_multiple_of(self.plan.tick_ms)) {
                continue;
            }
            match self.company.cast.is_converged() {
                true if now >= *quiet_from.get_or_insert(now) + QUIET_MS => break,
                true => {}
                false => quiet_from = None,
            }
        }
        let virtual_ms = self.now_ms();
        let looked_into = self.company.cast.finish();
        *lock(&self.inspecting) = true;
        for host in looked_into {
            self.state(host).kill(Duration::ZERO);
            self.sim.bounce(self.name(host));
        }
        for _ in 0..3 {
            self.tick()?;
        }
        Ok(virtual_ms)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tick(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| error.to_string())?;
        self.recorder.set_time(self.now_ms());
        if let Some(error) = self.attached.and_then(Attached::failure) {
            return Err(error.to_string());
        }
        let dark: Vec<Host> = self.restarts.keys().copied().collect();
        for host in dark {
            if self.state(host).process().disk.powered_off() {
                self.lose_power(host);
            }
        }
        Ok(())
    }

    fn state(&mut self, host: Host) -> &mut HostState {
        match host {
            Host::Server => &mut self.company.server,
            Host::Member(number) => &mut self.company.members[number as usize - 2],
            Host::Engine => {
                self.company.engine.as_mut().expect("a plan that names the engine has one")
            }
            Host::Client(number) => &mut self.company.clients[number as usize - 1].state,
        }
    }

    fn name(&self, host: Host) -> &'static str {
        host.name(self.protocol)
    }

    /// The two ends of a client's link, one for each server.
    fn ends(&self, client: u32) -> Vec<(&'static str, &'static str)> {
        let servers = self.plan.topology.servers();
        servers.iter().map(|server| (self.name(Host::Client(client)), self.name(*server))).collect()
    }

    /// The disk of a host has gone dark: everything that runs there ends, what was not synced is
    /// gone, and no peer gets a goodbye.
    fn lose_power(&mut self, host: Host) {
        let Some(restart_ms) = self.restarts.remove(&host) else { return };
        gapless::mark!("disk.power_loss_inside_commit");
        let process = self.state(host).process();
        let text = format!("loses power; starts again after {restart_ms} ms");
        process.record_fact(Kind::Life, text, Fact::Dies);
        let name = self.name(host);
        self.recorder.see(Seen::Crashed { host: name.to_owned() });
        // Turmoil never delivers across a repair what was held, so nothing stays held.
        self.release_held();
        let peers: Vec<&'static str> = match host {
            Host::Server => {
                let clients = 1..=self.plan.topology.clients;
                let clients = clients.map(|number| self.name(Host::Client(number)));
                clients.chain(self.company.workload).collect()
            }
            Host::Client(_) => {
                self.plan.topology.servers().into_iter().map(|server| self.name(server)).collect()
            }
            // No disk of theirs is hit.
            Host::Member(_) | Host::Engine => Vec::new(),
        };
        for peer in &peers {
            self.sim.partition(name, *peer);
        }
        self.state(host).kill(Duration::from_millis(restart_ms));
        self.killed(host);
        self.sim.crash(name);
        for peer in &peers {
            self.sim.repair(name, *peer);
        }
        for (_, lasting) in &self.lasting {
            if let Lasting::Partitioned(client) = lasting {
                for (client, server) in self.ends(*client) {
                    self.sim.partition(client, server);
                }
            }
        }
        self.sim.bounce(name);
    }

    fn release_held(&mut self) {
        let (held, lasting) =
            self.lasting.drain(..).partition(|(_, lasting)| matches!(lasting, Lasting::Held(_)));
        self.lasting = lasting;
        for (_, what) in held {
            self.end(what);
        }
    }

    /// When a step is due, as far as known.
    fn due_ms(&self, when: &When) -> Option<u64> {
        match when {
            When::At(at) => Some(*at),
            When::Mark { mark, nth, after_ms } => {
                self.recorder.mark_reached(mark, *nth).map(|at| at + after_ms)
            }
        }
    }

    fn carry_out(&mut self, index: usize, now: u64) {
        self.recorder.carries_out(Some(index));
        match &self.plan.steps[index].action {
            Action::Fault(fault) => {
                self.recorder.step(format_args!("fault: {fault:?}"));
                self.recorder.fault(fault.kind());
                self.inject(fault, now);
            }
            action => self.company.cast.work(index, action, now),
        }
        self.recorder.carries_out(None);
    }

    fn inject(&mut self, fault: &Fault, now: u64) {
        match *fault {
            Fault::Cut { client, how, after_frames, for_ms } => {
                self.client(client).link.cut(how, after_frames.unwrap_or(0));
                if for_ms > 0 {
                    self.client(client).link.set_connecting(Connecting::Lost);
                    self.lasts(now + for_ms, Lasting::Connecting(client));
                }
            }
            Fault::Hold { client, for_ms } => {
                for (client, server) in self.ends(client) {
                    self.sim.hold(client, server);
                }
                self.lasts(now + for_ms, Lasting::Held(client));
            }
            Fault::Partition { client, for_ms } => {
                for (client, server) in self.ends(client) {
                    self.sim.partition(client, server);
                }
                self.lasts(now + for_ms, Lasting::Partitioned(client));
            }
            Fault::Latency { client, latency_ms, for_ms } => {
                self.set_latency(client, latency_ms);
                self.lasts(now + for_ms, Lasting::Latency(client));
            }
            Fault::Refuse { client, for_ms } => {
                self.client(client).link.set_connecting(Connecting::Refused);
                self.lasts(now + for_ms, Lasting::Connecting(client));
            }
            Fault::NeverAnswer { client, for_ms } => {
                self.client(client).link.set_connecting(Connecting::NeverAnswered);
                self.lasts(now + for_ms, Lasting::Connecting(client));
            }
            Fault::Crash { host, restart_ms } => {
                self.crash(host, Duration::from_millis(restart_ms));
            }
            Fault::PowerOff { host, after_ops, torn_percent, restart_ms } => {
                let fault = match torn_percent {
                    Some(keep_percent) => DiskFault::TornWrite { after_ops, keep_percent },
                    None => DiskFault::PowerOff { after_ops },
                };
                self.state(host).process().disk.schedule(fault);
                self.restarts.insert(host, restart_ms);
            }
            Fault::DiskError { host, sync, after_ops, count } => {
                let fault = match sync {
                    true => DiskFault::FailSync { after_ops, count },
                    false => DiskFault::FailWrite { after_ops, count },
                };
                self.state(host).process().disk.schedule(fault);
            }
            Fault::DiskFull { host, for_ms } => {
                self.state(host).process().disk.schedule(DiskFault::Full { capacity_bytes: 0 });
                self.lasts(now + for_ms, Lasting::Full(host));
            }
            Fault::SlowCommit { host, each_ms, for_ms } => {
                self.state(host).vault.state().slow = Some(Duration::from_millis(each_ms));
                self.lasts(now + for_ms, Lasting::SlowCommits(host));
            }
            Fault::ClockStep { host, by_ms } => self.state(host).process().clock.step(by_ms),
            Fault::ClockDrift { host, ppm, for_ms } => {
                self.state(host).process().clock.drift(now, ppm);
                self.lasts(now + for_ms, Lasting::Drift(host));
            }
            Fault::Suspend { host, for_ms } => {
                self.state(host).process().pause.set(true);
                self.lasts(now + for_ms, Lasting::Suspended(host));
            }
            Fault::Backup { host } => {
                self.state(host).vault.state().backup_due = true;
                self.company.cast.backup_due(host);
            }
            Fault::Restore { host, restart_ms } => {
                self.replace(host, Replace::Copy, restart_ms);
            }
            Fault::Swap { host, restart_ms } => self.replace(host, Replace::Swap, restart_ms),
            Fault::LoseStore { host, restart_ms } => {
                self.replace(host, Replace::Nothing, restart_ms);
            }
            Fault::SlowReader { client, pause_ms, for_ms } => {
                let reading = match pause_ms {
                    Some(pause) => Reading::Paused(Duration::from_millis(pause)),
                    None => Reading::Stopped,
                };
                self.client(client).link.set_reading(reading);
                self.lasts(now + for_ms, Lasting::Reading(client));
            }
            Fault::SlowHandler { client, for_ms, .. } => {
                self.company.cast.fault(fault);
                self.lasts(now + for_ms, Lasting::Handler(client));
            }
            Fault::FailHandler { .. } | Fault::FailOpenHandler { .. } | Fault::Retain { .. } => {
                self.company.cast.fault(fault);
            }
            Fault::Engine(EngineFault::Isolate { host, held, for_ms }) => {
                let (server, engine) = (self.name(host), self.name(Host::Engine));
                match held {
                    true => self.sim.hold(server, engine),
                    false => self.sim.partition(server, engine),
                }
                self.lasts(now + for_ms, Lasting::Isolated { host, held });
            }
            Fault::Engine(_) => self.company.cast.fault(fault),
            Fault::Answer { client, how } => self.client(client).link.answer(how),
            Fault::LoseAnswer { client, times } => self.client(client).link.lose_answers(times),
            Fault::Duplicate { client, frames } => self.client(client).link.duplicate(frames),
            Fault::Lose { client, frames } => self.client(client).link.lose(frames),
            Fault::Inject { client, frame, to_server } => {
                self.client(client).link.inject(frame, to_server);
            }
        }
    }

    fn replace(&mut self, host: Host, replace: Replace, restart_ms: u64) {
        self.state(host).vault.state().replace = Some(replace);
        self.crash(host, Duration::from_millis(restart_ms));
    }

    fn client(&self, number: u32) -> &Client {
        &self.company.clients[number as usize - 1]
    }

    /// A fault of the same kind on the same client ends when the newest one does.
    fn lasts(&mut self, until_ms: u64, what: Lasting) {
        self.lasting.retain(|(_, lasting)| *lasting != what);
        self.lasting.push((until_ms, what));
    }

    fn end_lasting(&mut self, now: u64) {
        let (over, lasting) = self.lasting.drain(..).partition(|(until, _)| *until <= now);
        self.lasting = lasting;
        for (_, what) in over {
            self.end(what);
        }
    }

    fn end(&mut self, what: Lasting) {
        self.recorder.step(format_args!("over: {what:?}"));
        match what {
            Lasting::Connecting(client) => {
                self.client(client).link.set_connecting(Connecting::Works);
            }
            Lasting::Reading(client) => self.client(client).link.set_reading(Reading::Normal),
            Lasting::Handler(client) => self.company.cast.handler_recovers(client),
            Lasting::Held(client) => {
                for (client, server) in self.ends(client) {
                    self.sim.release(client, server);
                }
            }
            Lasting::Partitioned(client) => {
                for (client, server) in self.ends(client) {
                    self.sim.repair(client, server);
                }
            }
            Lasting::Isolated { host, held } => {
                let (server, engine) = (self.name(host), self.name(Host::Engine));
                match held {
                    true => self.sim.release(server, engine),
                    false => self.sim.repair(server, engine),
                }
            }
            Lasting::Latency(client) => self.set_latency(client, self.plan.topology.latency_ms),
            Lasting::Full(host) => self.state(host).process().disk.clear_faults(),
            Lasting::SlowCommits(host) => self.state(host).vault.state().slow = None,
            Lasting::Suspended(host) => self.state(host).process().pause.set(false),
            Lasting::Drift(host) => {
                let now = self.now_ms();
                self.state(host).process().clock.drift(now, 0);
            }
        }
    }

    fn set_latency(&self, client: u32, latency_ms: u64) {
        let latency = Duration::from_millis(latency_ms);
        for (client, server) in self.ends(client) {
            self.sim.set_link_latency(client, server, latency);
        }
    }

    fn crash(&mut self, host: Host, restart: Duration) {
        self.recorder.see(Seen::Crashed { host: self.name(host).to_owned() });
        let state = self.state(host);
        let process = state.process();
        let text = format!("dies; starts again after {} ms", restart.as_millis());
        process.record_fact(Kind::Life, text, Fact::Dies);
        state.kill(restart);
        // What was to happen to the disk of the old process no longer can.
        self.restarts.remove(&host);
        self.killed(host);
        self.sim.bounce(self.name(host));
    }

    /// A process is gone, with what was on its way in it.
    fn killed(&mut self, host: Host) {
        self.lasting.retain(|(_, lasting)| *lasting != Lasting::Suspended(host));
        let committed = std::mem::take(&mut self.state(host).vault.state().committed);
        self.company.cast.killed(host, committed);
    }

    fn heal(&mut self) {
        self.end_lasting(u64::MAX);
        self.restarts.clear();
        for host in self.plan.topology.hosts() {
            self.state(host).process().disk.clear_faults();
        }
        for client in &self.company.clients {
            client.link.heal();
        }
        self.company.cast.heal();
        self.recorder.step("healed: faults are over".to_owned());
        self.recorder.see(Seen::Healed);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
