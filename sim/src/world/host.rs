//! A host of the simulated world: its lives, its disk, its clock.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gapless::net::WallClock;
use gapless::recovery::WallTime;
use rand::Rng;
use tokio::runtime::{self, Handle};

use super::disk::{Disk, DiskConfig, DiskGuard};
use super::orphans::Orphans;
use super::pause::Pause;
use super::record::Recorder;
use super::vault::Vault;
use crate::seed::Seed;
use crate::trace::{Fact, Kind, Text};

thread_local! {
    /// Which runtime of this thread is which life of which host.
    static RUNTIMES: RefCell<Vec<(runtime::Id, &'static str, u64)>> = const { RefCell::new(Vec::new()) };
}

/// The host and the life that run on this thread right now; the world itself has life 0.
pub(crate) fn current() -> (&'static str, u64) {
    let running = Handle::try_current().ok().map(|handle| handle.id());
    RUNTIMES.with_borrow(|runtimes| {
        let known = runtimes.iter().find(|(id, ..)| Some(*id) == running);
        known.map_or(("world", 0), |(_, host, life)| (*host, *life))
    })
}

/// Wall time at the start of every run: 2026-01-01T00:00:00Z.
pub(crate) const EPOCH_MS: i64 = 1_767_225_600_000;

/// The wall clock of a host.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostClock(Arc<Mutex<ClockState>>);

#[derive(Debug, Clone, Copy, Default)]
struct ClockState {
    /// How far the clock was off at `since_ms`.
    offset_ms: i64,
    /// Milliseconds that it gains per million.
    drift_ppm: i64,
    /// The virtual time since which it has this drift.
    since_ms: i64,
}

impl ClockState {
    fn offset_at(&self, elapsed_ms: i64) -> i64 {
        let drifted = elapsed_ms.saturating_sub(self.since_ms).saturating_mul(self.drift_ppm);
        self.offset_ms.saturating_add(drifted / 1_000_000)
    }
}

impl HostClock {
    fn state(&self) -> std::sync::MutexGuard<'_, ClockState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is from what it should be.
    pub(crate) fn skew_ms(&self) -> i64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        self.state().offset_at(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }

    /// Sets the clock to a time.
    pub(crate) fn set(&self, wall: WallTime) {
        self.step(wall.as_millis().saturating_sub(self.wall_time().as_millis()));
    }

    /// Sets the clock forward or back.
    pub(crate) fn step(&self, by_ms: i64) {
        let mut state = self.state();
        state.offset_ms = state.offset_ms.saturating_add(by_ms);
    }

    /// From `now_ms` of virtual time on the clock runs too fast, or too slow.
    pub(crate) fn drift(&self, now_ms: u64, drift_ppm: i64) {
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let mut state = self.state();
        let offset_ms = state.offset_at(now_ms);
        *state = ClockState { offset_ms, drift_ppm, since_ms: now_ms };
    }
}

impl WallClock for HostClock {
    fn wall_time(&self) -> WallTime {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        WallTime::from_millis(EPOCH_MS + elapsed + self.state().offset_at(elapsed))
    }
}

/// What a host's process is given when it starts.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) name: &'static str,
    /// Counts from 1.
    pub(crate) life: u64,
    pub(crate) disk: Disk,
    pub(crate) clock: HostClock,
    pub(crate) pause: Pause,
    pub(crate) orphans: Orphans,
    pub(crate) recorder: Recorder,
    pub(crate) seed: Seed,
    /// How long the process takes to start.
    pub(crate) delay: Duration,
}

impl Process {
    pub(crate) fn record(&self, kind: Kind, text: impl Into<Text>) {
        self.recorder.record(self.name, self.life, kind, text, None);
    }

    /// A record with what of it a program can use.
    pub(crate) fn record_fact(&self, kind: Kind, text: impl Into<Text>, fact: Fact) {
        self.recorder.record(self.name, self.life, kind, text, Some(fact));
    }

    /// Returns while the machine has power. Without, nothing that runs on it ever goes on.
    pub(crate) async fn powered(&self) {
        if self.disk.powered_off() {
            std::future::pending::<()>().await;
        }
    }

    /// Random numbers of this life of the process.
    pub(crate) fn entropy(&self, purpose: &str) -> rand_chacha::ChaCha12Rng {
        self.seed.stream(purpose, self.name, self.life)
    }

    /// A life: a future that makes no progress while the process is paused, and whose connections end
    /// in order.
    pub(crate) fn live<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let (pause, orphans) = (self.pause.clone(), self.orphans.clone());
        async move {
            let _end = orphans.end();
            pause.apply(future).await
        }
    }

    /// Tells who is running on the runtime of the caller, and waits as long as the process takes
    /// to start.
    pub(crate) async fn boot(&self) {
        RUNTIMES.with_borrow_mut(|runtimes| {
            runtimes.retain(|(_, host, _)| *host != self.name);
            runtimes.push((Handle::current().id(), self.name, self.life));
        });
        tokio::time::sleep(self.delay).await;
        self.record_fact(Kind::Life, "starts", Fact::Starts);
    }
}

/// The world's side of a host.
pub(crate) struct HostState {
    pub(crate) process: Arc<Mutex<Process>>,
    /// Copies of its database.
    pub(crate) vault: Vault,
    /// The disk says that a sync is done, and has not begun.
    lying_disk: bool,
    /// The disk is mounted as long as this lives.
    _mounted: DiskGuard,
}

impl HostState {
    pub(crate) fn new(
        name: &'static str,
        seed: Seed,
        recorder: &Recorder,
        lying_disk: bool,
    ) -> Self {
        let clock = HostClock::default();
        let (disk, mounted) = mount(name, 1, seed, &clock, lying_disk);
        let process = Process {
            name,
            life: 1,
            disk,
            clock,
            pause: Pause::default(),
            orphans: Orphans::default(),
            recorder: recorder.clone(),
            seed,
            delay: Duration::ZERO,
        };
        let process = Arc::new(Mutex::new(process));
        Self { process, vault: Vault::default(), lying_disk, _mounted: mounted }
    }

    pub(crate) fn process(&self) -> Process {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process dies and another one is prepared. To be followed by `Sim::bounce`.
    ///
    /// The disk of the old life is dead from here on, so that nothing that its connections do
    /// while they are dropped reaches the files; what was written stays.
    pub(crate) fn kill(&mut self, restart: Duration) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.disk.kill();
        process.life += 1;
        process.delay = restart;
        process.pause = Pause::default();
        process.orphans = Orphans::default();
        let (disk, mounted) =
            mount(process.name, process.life, process.seed, &process.clock, self.lying_disk);
        process.disk = disk;
        self._mounted = mounted;
    }
}

fn mount(name: &str, life: u64, seed: Seed, clock: &HostClock, lying: bool) -> (Disk, DiskGuard) {
    let mut entropy = seed.stream("disk", name, life);
    let clock = clock.clone();
    let disk = Disk::new(DiskConfig {
        name: format!("{name}.{life}"),
        entropy: Box::new(move || entropy.next_u64()),
        wall_ms: Arc::new(move || clock.wall_time().as_millis()),
        observer: None,
        lying,
    });
    let mounted = disk.install();
    (disk, mounted)
}
