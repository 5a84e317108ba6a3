//! Faults from a seed, one after the other, and what has to be true after the last.

use std::collections::BTreeMap;
use std::time::Duration;

use gapless_sim::history::{History, Seen};
use rand::rngs::SysRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _, TryRng as _};
use rand_chacha::ChaCha12Rng;
use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::disk::Disk;
use crate::judge::{self, Published};
use crate::nodes::{self, Server, in_time, signal};
use crate::relay::Relay;

/// How long there are faults, unless the environment says something else.
const SECONDS: u64 = 15;

/// From so many seconds on, stops and silences are also longer than all time-outs.
const SECONDS_OF_LONG_RUNS: u64 = 120;

/// Longer than `ping_every` and `pong_timeout` of clients together (40 s), and longer than `silence` of
/// the server (75 s).
const LONG: [Duration; 2] = [Duration::from_secs(45), Duration::from_secs(80)];

/// How many lines are published with each fault.
const LINES: u64 = 200;

/// How often to look whether the full disk was felt.
const LOOKS_MAX: u32 = 60;

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillServer,
    KillTail,
    KillPublisher,
    StopServer,
    StopTail,
    Cut,
    SilentUp,
    SilentDown,
    SilentBoth,
    DiskFull,
}

const FAULTS: [Fault; 10] = [
    Fault::KillServer,
    Fault::KillTail,
    Fault::KillPublisher,
    Fault::StopServer,
    Fault::StopTail,
    Fault::Cut,
    Fault::SilentUp,
    Fault::SilentDown,
    Fault::SilentBoth,
    Fault::DiskFull,
];

struct Campaign {
    rng: ChaCha12Rng,
    long: bool,
    server: Server,
    relay: Relay,
    tail: Child,
    /// Publishes what is wanted until it has been acknowledged, however often it is killed.
    publisher: Child,
    wanted: watch::Sender<u64>,
    /// Publishers that were killed for good: nobody knows what of theirs is stored.
    given_up: u64,
    // In this order: the disk is mounted in the folder.
    disk: Disk,
    folder: tempfile::TempDir,
}

impl Campaign {
    async fn start(seed: u64, long: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::make(folder.path().join("data"));
        let server = Server::start(folder.path(), disk.path()).await;
        let relay = Relay::start(server.address).await;
        let (wanted, watched) = watch::channel(LINES);
        let tail = nodes::tail(folder.path(), disk.path(), relay.address);
        let publisher = nodes::publish(folder.path(), disk.path(), relay.address, "main", watched);
        let rng = ChaCha12Rng::seed_from_u64(seed);
        Self { rng, long, folder, disk, server, relay, tail, publisher, wanted, given_up: 0 }
    }

    fn publish(&self, who: &str, wanted: watch::Receiver<u64>) -> Child {
        nodes::publish(self.folder.path(), self.disk.path(), self.relay.address, who, wanted)
    }

    fn moment(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(0..300))
    }

    /// How long something is stopped or silent.
    fn length(&mut self) -> Duration {
        match self.long && self.rng.random_ratio(1, 3) {
            true => LONG[self.rng.random_range(0..LONG.len())],
            false => Duration::from_millis(self.rng.random_range(100..1_000)),
        }
    }

    /// Lets events flow, and in the middle of that the fault happen.
    async fn step(&mut self, fault: Fault) {
        self.wanted.send_modify(|wanted| *wanted += LINES);
        self.given_up += 1;
        // It gets its lines, and no end of them.
        let (_lines, watched) = watch::channel(LINES);
        let mut given_up = self.publish(&format!("given-up-{}", self.given_up), watched);
        let moment = self.moment();
        sleep(moment).await;
        self.happen(fault).await;
        let moment = self.moment();
        sleep(moment).await;
        in_time(given_up.kill()).await.expect("it runs");
    }

    async fn happen(&mut self, fault: Fault) {
        match fault {
            Fault::KillServer => {
                self.server.kill().await;
                let moment = self.moment();
                sleep(moment).await;
                self.server.restart().await;
            }
            Fault::KillTail => {
                in_time(self.tail.kill()).await.expect("it runs");
                self.tail = nodes::tail(self.folder.path(), self.disk.path(), self.relay.address);
            }
            Fault::KillPublisher => {
                in_time(self.publisher.kill()).await.expect("it runs");
                self.publisher = self.publish("main", self.wanted.subscribe());
            }
            Fault::StopServer => {
                let length = self.length();
                stop(&self.server.child, length).await;
            }
            Fault::StopTail => {
                let length = self.length();
                stop(&self.tail, length).await;
            }
            Fault::Cut => self.relay.cut(),
            Fault::SilentUp => self.silence(true, false).await,
            Fault::SilentDown => self.silence(false, true).await,
            Fault::SilentBoth => self.silence(true, true).await,
            Fault::DiskFull => self.fill().await,
        }
    }

    /// Afterwards connections go on, or are ended.
    async fn silence(&mut self, up: bool, down: bool) {
        self.relay.silence(up, down);
        let length = self.length();
        sleep(length).await;
        if self.rng.random() {
            self.relay.cut();
        }
        self.relay.heal();
    }

    async fn fill(&mut self) {
        if self.disk.can_be_full() {
            self.disk.fill();
            self.felt().await;
            self.disk.free();
        } else {
            self.server.kill().await;
            self.server.restart_limited().await;
            self.felt().await;
            self.server.kill().await;
            self.server.restart().await;
        }
    }

    /// Waits for a transaction that fails. It may be that none does: there may be room in a file.
    async fn felt(&mut self) {
        let before = self.failures();
        let (mut looks, length) = (0, self.moment());
        while looks < LOOKS_MAX && self.failures() == before {
            looks += 1;
            sleep(PAUSE).await;
        }
        sleep(length).await;
    }

    /// How many transactions of the server have failed.
    fn failures(&self) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("serve.log"));
        log.unwrap_or_default().matches("a transaction failed").count()
    }

    /// No more faults: everything that is wanted is published, and comes to the output.
    async fn settle(mut self) -> History {
        self.relay.cut();
        self.relay.heal();
        let through = *self.wanted.borrow();
        drop(self.wanted);
        let published = in_time(self.publisher.wait()).await.expect("it ends");
        assert_eq!(published.code(), Some(0), "everything is acknowledged");
        let last = format!("\"n\":{through},");
        let is_last = |line: &String| {
            line.contains("\"who\":\"main\"") && {
                line.contains(&last) || line.contains(&format!("\"n\":{through}}}"))
            }
        };
        let path = self.folder.path().to_owned();
        in_time(async {
            while !nodes::output(&path).iter().any(is_last) {
                let ended = self.tail.try_wait().expect("it can be asked");
                assert!(ended.is_none(), "`tail` has ended: {ended:?}");
                sleep(PAUSE).await;
            }
        })
        .await;
        // What others published may still come; what is there has to be right at any time.
        signal(&self.tail, Signal::TERM);
        let ended = in_time(self.tail.wait()).await.expect("it ends");
        assert_eq!(ended.code(), Some(0), "`tail` has heard of no gap");
        self.server.kill().await;
        let published = |who: &str, given, all| {
            let log = std::fs::read_to_string(path.join(nodes::publisher_log(who)));
            let receipts = judge::receipts(&log.unwrap_or_default());
            (who.to_owned(), Published { given, receipts, all })
        };
        let given_up = (1..=self.given_up).map(|number| format!("given-up-{number}"));
        let publishers = given_up.map(|who| published(&who, LINES, false));
        let publishers = publishers.chain([published("main", through, true)]).collect();
        let output = judge::parse(&nodes::output(&path)).expect("events only");
        judge::history(&publishers, &output, &judge::stored(&self.disk.path().join("events.db")))
    }
}

async fn stop(child: &Child, length: Duration) {
    signal(child, Signal::STOP);
    sleep(length).await;
    signal(child, Signal::CONT);
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("`{variable}` must be a number: {text}")))
}

#[tokio::test]
async fn every_acknowledged_event_is_in_the_output_once_and_in_order_whatever_breaks() {
    let seed = number("GAPLESS_PROCESSES_SEED")
        .unwrap_or_else(|| SysRng.try_next_u64().expect("the system has random numbers"));
    let seconds = number("GAPLESS_PROCESSES_SECONDS").unwrap_or(SECONDS);
    println!("GAPLESS_PROCESSES_SEED={seed} GAPLESS_PROCESSES_SECONDS={seconds}");
    let mut campaign = Campaign::start(seed, seconds >= SECONDS_OF_LONG_RUNS).await;
    let disk = match campaign.disk.can_be_full() {
        true => "a tmpfs that is filled",
        false => "a limit on the size of files",
    };
    println!("the disk is full by {disk}");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut happened = BTreeMap::<Fault, u64>::new();
    // Each fault happens at least once.
    while happened.is_empty() || Instant::now() < end {
        let mut faults = FAULTS;
        faults.shuffle(&mut campaign.rng);
        for fault in faults {
            campaign.step(fault).await;
            *happened.entry(fault).or_default() += 1;
        }
    }
    let failures = campaign.failures();
    let history = campaign.settle().await;
    let published =
        history.entries.iter().filter(|entry| matches!(entry.what, Seen::Published { .. })).count();
    println!("{} events, {published} receipts, {happened:?}", history.delivered());
    println!("{failures} transactions failed for want of space");
    assert!(history.delivered() > 0 && published > 0, "seed {seed}: something was seen");
    let problems = judge::judge(&history);
    assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
}
