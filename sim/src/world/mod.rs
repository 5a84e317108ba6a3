//! Carries out a plan: the production code of clients and server in turmoil's network, on
//! turmoil's disk, with its clock.
//!
//! The hosts are `server`, `client-1` … and `publisher`. The world steps turmoil tick by tick and
//! does between the ticks what the plan says. A run has two phases: until `duration_ms` faults
//! come and go while the workload runs; then everything heals, and within `settle_ms` what is owed
//! has to arrive.
//!
//! What turmoil does differently from a real network is made up for here: a connection that dies
//! silently, loses a frame or carries a strange one is a matter of `link`, which stands between
//! the client's driver and turmoil's TCP; a process that dies keeps what it wrote and nothing that
//! it does while it is torn down reaches the disk ([`disk`]).

mod client;
pub mod disk;
mod frames;
mod host;
mod link;
mod marks;
mod pause;
mod publisher;
mod record;
mod server;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use turmoil::Sim;

use self::client::{Known, Moods};
use self::disk::DiskFault;
use self::host::HostState;
use self::link::{Connecting, Link, Reading};
use self::record::Recorder;
use self::server::{Order, Replace, Vault};
use crate::history::{History, Seen};
use crate::mutants::Distorted;
use crate::plan::{Action, Fault, Host, Plan, When};
use crate::seed::Seed;
use crate::trace::{Kind, Trace};

/// The largest message that any WebSocket of the world reads, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 10;

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

/// A run could not be carried out: a bug of the simulator, or a panic of the code under test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct RunError {
    /// What went wrong.
    pub problem: String,
    /// The last things that happened before.
    pub last: Vec<String>,
}

/// Carries out a plan, on the thread of the caller.
///
/// # Errors
///
/// [`RunError`] if the simulation itself broke, or the code under test panicked.
pub fn run(plan: &Plan) -> Result<Run, RunError> {
    let recorder = Recorder::default();
    let failed = |problem: String| RunError { problem, last: recorder.last(40) };
    let _listening = marks::Listening::start(recorder.clone()).map_err(failed)?;
    let done = catch_unwind(AssertUnwindSafe(|| World::new(plan, &recorder).run()));
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

struct World<'a> {
    plan: &'a Plan,
    recorder: Recorder,
    server: HostState,
    clients: Vec<Client>,
    jobs: mpsc::UnboundedSender<publisher::Job>,
    orders: Arc<Mutex<Option<mpsc::UnboundedSender<Order>>>>,
    inspecting: Arc<Mutex<bool>>,
    vault: Vault,
    /// When a host whose disk loses power is started again.
    restarts: BTreeMap<Host, u64>,
    /// Faults that last, and when they end, in the order in which they began.
    lasting: Vec<(u64, Lasting)>,
    // Last, so that the hosts are torn down while everything that they use is still there.
    sim: Sim<'static>,
}

struct Client {
    state: HostState,
    link: Link,
    moods: Moods,
    known: Known,
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
    SlowCommits,
    Suspended(Host),
    Drift(Host),
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, recorder: &Recorder) -> Self {
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
        let shared = Arc::new(plan.clone());
        let settings = Distorted::by(plan.mutant.as_deref()).settings();
        let server = HostState::new(Host::Server, seed, recorder, settings.lying_disk);
        let orders = Arc::new(Mutex::new(None));
        let inspecting = Arc::new(Mutex::new(false));
        let vault = Vault::default();
        {
            let process = server.process.clone();
            let plan = Arc::clone(&shared);
            let (orders, inspecting, vault) = (orders.clone(), inspecting.clone(), vault.clone());
            sim.host("server", move || {
                let process = lock(&process).clone();
                let plan = Arc::clone(&plan);
                let (inspecting, vault) = (*lock(&inspecting), vault.clone());
                let (sender, receiver) = mpsc::unbounded_channel();
                *lock(&orders) = Some(sender);
                process.pause.clone().apply(async move {
                    match inspecting {
                        true => server::inspect(process, plan).await,
                        false => server::serve(process, plan, receiver, vault).await,
                    }
                })
            });
        }
        let mut clients = Vec::new();
        for number in 1..=plan.topology.clients {
            let state = HostState::new(Host::Client(number), seed, recorder, false);
            let (link, moods) = (Link::default(), Moods::default());
            let known = Known::new(number, plan.topology.agent_of(number));
            let client =
                Client { state, link: link.clone(), moods: moods.clone(), known: known.clone() };
            let process = client.state.process.clone();
            let plan = Arc::clone(&shared);
            sim.host(Host::Client(number).to_string(), move || {
                let process = lock(&process).clone();
                let (plan, link, moods) = (Arc::clone(&plan), link.clone(), moods.clone());
                let pause = process.pause.clone();
                let life = client::live(process, number, plan, link, moods, known.clone());
                pause.apply(life)
            });
            clients.push(client);
        }
        let (jobs, inbox) = mpsc::unbounded_channel();
        let inbox = Mutex::new(Some(inbox));
        {
            let recorder = recorder.clone();
            sim.host(publisher::HOST, move || {
                let inbox = lock(&inbox).take();
                let recorder = recorder.clone();
                async move {
                    match inbox {
                        Some(inbox) => publisher::work(inbox, recorder, seed).await,
                        None => Ok(()),
                    }
                }
            });
        }
        Self {
            plan,
            recorder: recorder.clone(),
            server,
            clients,
            jobs,
            orders,
            inspecting,
            vault,
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
            let owed = (1..=self.plan.topology.clients)
                .map(|client| (client, self.plan.topology.agent_of(client)));
            match self.recorder.is_converged(owed) {
                true if now >= *quiet_from.get_or_insert(now) + QUIET_MS => break,
                true => {}
                false => quiet_from = None,
            }
        }
        let virtual_ms = self.now_ms();
        for client in &self.clients {
            client.known.end_chain(&self.recorder);
        }
        self.recorder.step("over: a look into the log".to_owned());
        *lock(&self.inspecting) = true;
        self.server.kill(Duration::ZERO);
        self.sim.bounce("server");
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
            Host::Server => &mut self.server,
            Host::Client(number) => &mut self.clients[number as usize - 1].state,
        }
    }

    /// The disk of a host has gone dark: everything that runs there ends, what was not synced is
    /// gone, and no peer gets a goodbye.
    fn lose_power(&mut self, host: Host) {
        let Some(restart_ms) = self.restarts.remove(&host) else { return };
        gapless::mark!("disk.power_loss_inside_commit");
        let process = self.state(host).process();
        process.record(Kind::Life, format!("loses power; starts again after {restart_ms} ms"));
        self.recorder.see(Seen::Crashed { host: host.to_string() });
        let name = host.to_string();
        // Turmoil never delivers across a repair what was held, so nothing stays held.
        self.release_held();
        let peers: Vec<String> = match host {
            Host::Server => {
                let clients =
                    (1..=self.plan.topology.clients).map(|number| Host::Client(number).to_string());
                clients.chain([publisher::HOST.to_owned()]).collect()
            }
            Host::Client(_) => vec![Host::Server.to_string()],
        };
        for peer in &peers {
            self.sim.partition(name.as_str(), peer.as_str());
        }
        self.state(host).kill(Duration::from_millis(restart_ms));
        self.killed(host);
        self.sim.crash(name.as_str());
        for peer in &peers {
            self.sim.repair(name.as_str(), peer.as_str());
        }
        for (_, lasting) in &self.lasting {
            if let Lasting::Partitioned(client) = lasting {
                self.sim.partition(Host::Client(*client).to_string(), "server");
            }
        }
        self.sim.bounce(name.as_str());
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
        match &self.plan.steps[index].action {
            Action::Publish(publish) => {
                self.recorder.step(format!(
                    "publish {} events to agent-{}, one every {} ms",
                    publish.count, publish.agent, publish.every_ms
                ));
                self.recorder.publisher_started();
                // The publishers' host never ends before the world does.
                let _ = self.jobs.send((index, publish.clone()));
            }
            Action::Fault(fault) => {
                self.recorder.step(format!("fault: {fault:?}"));
                self.recorder.fault(fault.kind());
                self.inject(fault, now);
            }
        }
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
                self.sim.hold(Host::Client(client).to_string(), "server");
                self.lasts(now + for_ms, Lasting::Held(client));
            }
            Fault::Partition { client, for_ms } => {
                self.sim.partition(Host::Client(client).to_string(), "server");
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
            Fault::SlowCommit { each_ms, for_ms } => {
                self.vault.state().slow = Some(Duration::from_millis(each_ms));
                self.lasts(now + for_ms, Lasting::SlowCommits);
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
            Fault::Backup => {
                self.vault.state().backup_due = true;
                if let Some(orders) = &*lock(&self.orders) {
                    // A server that is just starting again does it before it serves.
                    let _ = orders.send(Order::Backup);
                }
            }
            Fault::Restore { restart_ms } => {
                self.vault.state().replace = Some(Replace::Copy);
                self.crash(Host::Server, Duration::from_millis(restart_ms));
            }
            Fault::LoseLog { restart_ms } => {
                self.vault.state().replace = Some(Replace::Nothing);
                self.crash(Host::Server, Duration::from_millis(restart_ms));
            }
            Fault::SlowReader { client, pause_ms, for_ms } => {
                let reading = match pause_ms {
                    Some(pause) => Reading::Paused(Duration::from_millis(pause)),
                    None => Reading::Stopped,
                };
                self.client(client).link.set_reading(reading);
                self.lasts(now + for_ms, Lasting::Reading(client));
            }
            Fault::SlowHandler { client, each_ms, for_ms } => {
                let each = Duration::from_millis(each_ms);
                self.client(client).moods.state().handler = Some(each);
                self.lasts(now + for_ms, Lasting::Handler(client));
            }
            Fault::FailHandler { client, times } => {
                self.client(client).moods.state().fail_handler += times;
            }
            Fault::FailOpenHandler { client, times } => {
                self.client(client).moods.state().fail_open_handler += times;
            }
            Fault::Duplicate { client, frames } => self.client(client).link.duplicate(frames),
            Fault::Lose { client, frames } => self.client(client).link.lose(frames),
            Fault::Inject { client, frame, to_server } => {
                self.client(client).link.inject(frame, to_server);
            }
            Fault::Retain { agent, keep } => {
                let oldest = (self.recorder.head(agent) + 1).saturating_sub(keep).max(1);
                if let Some(orders) = &*lock(&self.orders) {
                    // A server that is just starting again has nobody who listens.
                    let _ = orders.send(Order::Retain { agent: server::agent_id(agent), oldest });
                }
            }
        }
    }

    fn client(&self, number: u32) -> &Client {
        &self.clients[number as usize - 1]
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
        self.recorder.step(format!("over: {what:?}"));
        match what {
            Lasting::Connecting(client) => {
                self.client(client).link.set_connecting(Connecting::Works);
            }
            Lasting::Reading(client) => self.client(client).link.set_reading(Reading::Normal),
            Lasting::Handler(client) => self.client(client).moods.state().handler = None,
            Lasting::Held(client) => {
                self.sim.release(Host::Client(client).to_string(), "server");
            }
            Lasting::Partitioned(client) => {
                self.sim.repair(Host::Client(client).to_string(), "server");
            }
            Lasting::Latency(client) => self.set_latency(client, self.plan.topology.latency_ms),
            Lasting::Full(host) => self.state(host).process().disk.clear_faults(),
            Lasting::SlowCommits => self.vault.state().slow = None,
            Lasting::Suspended(host) => self.state(host).process().pause.set(false),
            Lasting::Drift(host) => {
                let now = self.now_ms();
                self.state(host).process().clock.drift(now, 0);
            }
        }
    }

    fn set_latency(&self, client: u32, latency_ms: u64) {
        let latency = Duration::from_millis(latency_ms);
        self.sim.set_link_latency(Host::Client(client).to_string(), "server", latency);
    }

    fn crash(&mut self, host: Host, restart: Duration) {
        self.recorder.see(Seen::Crashed { host: host.to_string() });
        let state = self.state(host);
        let process = state.process();
        process.record(Kind::Life, format!("dies; starts again after {} ms", restart.as_millis()));
        state.kill(restart);
        // What was to happen to the disk of the old process no longer can.
        self.restarts.remove(&host);
        self.killed(host);
        self.sim.bounce(host.to_string());
    }

    /// A process is gone, with what was on its way in it.
    fn killed(&mut self, host: Host) {
        self.lasting.retain(|(_, lasting)| *lasting != Lasting::Suspended(host));
        match host {
            Host::Server => {
                let committed = std::mem::take(&mut self.vault.state().committed);
                if committed {
                    gapless::mark!("world.died_between_commit_and_send");
                }
            }
            Host::Client(number) => {
                if self.client(number).moods.end_handling() {
                    gapless::mark!("world.died_between_send_and_commit");
                }
            }
        }
    }

    fn heal(&mut self) {
        self.end_lasting(u64::MAX);
        self.restarts.clear();
        for host in
            std::iter::once(Host::Server).chain((1..=self.plan.topology.clients).map(Host::Client))
        {
            self.state(host).process().disk.clear_faults();
        }
        for client in &self.clients {
            client.link.heal();
            client.moods.heal();
        }
        self.recorder.step("healed: faults are over".to_owned());
        self.recorder.see(Seen::Healed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
