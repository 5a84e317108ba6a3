//! The run: the engine, the servers and the clients start, processes are killed, everything is healed,
//! and is judged.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Pace;
use super::engine::{self, Place};
use super::kills::{Kill, Kills};
use super::watch::Watch;
use crate::failure::Result;
use crate::judge::Verdict;
use crate::mix::Mix;
use crate::nodes::{Node, in_time, marks};
use crate::run::{Settling, connected, prepare, settled, verdict_told};

/// How often to look whether it is time for something.
const STEP: Duration = Duration::from_millis(50);

/// How many nodes of the engine have each event.
const REPLICAS: usize = 3;

/// What no server may find: the engine keeps what it has acknowledged, whoever is killed.
const ALARMS: [&str; 2] = ["cluster.engine_went_back", "cluster.number_given_twice"];

/// Somebody who is away, by `SIGKILL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Server(usize),
    Engine(usize),
}

/// What has happened.
#[derive(Debug, Default)]
struct Happened {
    servers: u64,
    engine: u64,
    /// How many of the engine's were the leader's.
    leaders: u64,
    /// The longest time from a kill of a node of the engine until all had caught up.
    whole_again: Duration,
    /// Which of [`ALARMS`] servers gave, where they were asked.
    alarms: BTreeSet<String>,
}

/// Everything that runs.
struct Run {
    mix: Mix,
    servers: Vec<Node>,
    engine: Vec<Node>,
    workers: Vec<Node>,
    watch: Watch,
    away: Vec<(Instant, Away)>,
    /// When a node of the engine was killed of which it is not known that it has caught up.
    engine_killed: Option<Instant>,
    /// When the last one was started: what was seen before says nothing of it.
    engine_started: Instant,
    began: Instant,
    happened: Happened,
}

/// Carries out the load; whether nothing is wrong.
pub(crate) async fn run(
    mix: Mix,
    gapless: &Path,
    nats_server: &Path,
    engine_nodes: usize,
    pace: Pace,
) -> Result<bool> {
    prepare(&mix)?;
    let path = mix.file("mix.json");
    std::fs::write(&path, serde_json::to_vec(&mix)?)?;
    let mut places = Vec::new();
    for _ in 0..engine_nodes {
        places.push(Place::free().await?);
    }
    let log = [
        "--log-replicas".to_owned(),
        REPLICAS.to_string(),
        "--log".to_owned(),
        engine::url(&places),
    ];
    let server = |(number, at): (usize, &SocketAddr)| {
        Node::server(gapless, &mix.folder, &format!("server-{number}"), *at, &log)
    };
    let workers = (0..mix.workers).map(|number| Node::worker(&mix.folder, &path, number));
    let mut run = Run {
        servers: mix.servers.iter().enumerate().map(server).collect(),
        engine: engine::nodes(nats_server, &mix.folder, &places)?,
        workers: workers.collect::<Result<_>>()?,
        watch: Watch::begin(mix.servers.clone(), places),
        away: Vec::new(),
        engine_killed: None,
        engine_started: Instant::now(),
        began: Instant::now(),
        happened: Happened::default(),
        mix,
    };
    run.begin().await?;
    run.kill(pace).await?;
    let settling = run.settle(pace.settle).await?;
    run.report(pace, settling)
}

impl Run {
    /// Starts everything, and waits until everybody is connected.
    async fn begin(&mut self) -> Result<()> {
        for node in &mut self.engine {
            node.start().await?;
        }
        let since = Instant::now();
        self.wait("waiting for the engine", |run| {
            let seen = run.watch.seen();
            seen.at > since && seen.well.iter().all(|well| *well)
        })
        .await?;
        for server in &mut self.servers {
            server.start().await?;
        }
        let since = Instant::now();
        self.wait("waiting for the servers", |run| {
            let seen = run.watch.seen();
            seen.at > since && seen.ready.iter().all(|ready| *ready) && seen.engine.whole
        })
        .await?;
        for worker in &mut self.workers {
            worker.start().await?;
        }
        let (servers, wanted) = (self.mix.servers.clone(), self.mix.connections as u64);
        connected(&servers, wanted, || self.check()).await?;
        self.began = Instant::now();
        Ok(())
    }

    async fn wait(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        in_time(what, async {
            while !is_so(self) {
                self.check()?;
                sleep(STEP).await;
            }
            Ok(())
        })
        .await
    }

    /// An error if a process has ended that nobody has killed.
    fn check(&mut self) -> Result<()> {
        let all = self.servers.iter_mut().chain(&mut self.engine).chain(&mut self.workers);
        all.into_iter().try_for_each(Node::check)
    }

    /// Kills servers and nodes of the engine until the time is over.
    async fn kill(&mut self, pace: Pace) -> Result<()> {
        let mut kills = Kills::new(self.mix.seed, pace);
        let mut step = interval(STEP);
        step.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.began.elapsed() < self.mix.length {
            step.tick().await;
            self.check()?;
            self.end_away(Instant::now())?;
            let mut seen = self.watch.seen();
            seen.engine.whole &= self.is_engine_back(seen.at);
            if let (true, Some(killed)) = (seen.engine.whole, self.engine_killed) {
                self.engine_killed = None;
                self.happened.whole_again = self.happened.whole_again.max(killed.elapsed());
            }
            let now = self.began.elapsed();
            let runs: Vec<bool> = self.servers.iter().map(|it| it.pid().is_some()).collect();
            if let Some(Kill { number, away }) = kills.server(now, &runs) {
                self.look_for_alarms(number).await;
                self.servers[number].kill().await?;
                self.away.push((Instant::now() + away, Away::Server(number)));
                self.happened.servers += 1;
                println!(
                    "  {:>9.3}  server {number} is killed, and is away for {away:?}; ready were {}",
                    now.as_secs_f64(),
                    numbers(&seen.ready)
                );
            }
            if let Some(Kill { number, away }) = kills.engine(now, self.engine.len(), seen.engine) {
                self.engine[number].kill().await?;
                self.engine_killed = Some(Instant::now());
                self.away.push((Instant::now() + away, Away::Engine(number)));
                let leads = seen.engine.leader == Some(number);
                self.happened.engine += 1;
                self.happened.leaders += u64::from(leads);
                println!(
                    "  {:>9.3}  node {number} of the engine{} is killed, and is away for {away:?}",
                    now.as_secs_f64(),
                    if leads { ", which leads the log," } else { "" }
                );
            }
        }
        Ok(())
    }

    /// Adds what a server has found in this life, if it answers.
    async fn look_for_alarms(&mut self, number: usize) {
        if let Ok(alarms) = marks(self.mix.servers[number], &ALARMS).await {
            self.happened.alarms.extend(alarms);
        }
    }

    /// Whether what was seen at a time is about an engine of which every node has been started.
    fn is_engine_back(&self, seen: Instant) -> bool {
        let away = self.away.iter().any(|(_, who)| matches!(who, Away::Engine(_)));
        !away && seen > self.engine_started
    }

    /// Starts who has been away for long enough.
    fn end_away(&mut self, now: Instant) -> Result<()> {
        let (over, away) = self.away.drain(..).partition(|(until, _)| *until <= now);
        self.away = away;
        let over: Vec<(Instant, Away)> = over;
        for (_, who) in over {
            match who {
                Away::Server(number) => self.servers[number].begin()?,
                Away::Engine(number) => {
                    self.engine[number].begin()?;
                    self.engine_started = Instant::now();
                }
            }
        }
        Ok(())
    }

    /// No more kills, and nothing new; whether everything has come to where it belongs in time.
    async fn settle(&mut self, max: Duration) -> Result<Settling> {
        self.end_away(self.began + self.mix.length + Duration::from_secs(1 << 30))?;
        for worker in &mut self.workers {
            worker.finish().await?;
        }
        let mix = self.mix.clone();
        let settling = settled(&mix, max, || self.check()).await?;
        for number in 0..self.servers.len() {
            self.look_for_alarms(number).await;
        }
        Ok(settling)
    }

    /// Judges, and says what was found; whether nothing is wrong.
    fn report(&mut self, pace: Pace, settling: Settling) -> Result<bool> {
        self.check()?;
        // Nobody writes any more.
        self.workers.clear();
        let verdict = Verdict::of(&self.mix)?;
        let Happened { servers, engine, leaders, whole_again, ref alarms } = self.happened;
        println!(
            "  killed     {servers} servers; {engine} nodes of the engine, {leaders} of them the leader of the \
             log; it was whole again after {:.1} s at most",
            whole_again.as_secs_f64()
        );
        println!(
            "  publishing {:.1} s at most until a batch was acknowledged",
            verdict.slowest.as_secs_f64()
        );
        print!("{}", verdict.events_told());
        let mut problems = verdict_told(&verdict, settling, pace.settle);
        if (servers, engine) == (0, 0) {
            problems.push("nothing was killed".to_owned());
        }
        problems.extend(
            alarms.iter().map(|mark| format!("a server reached `{mark}`, or does not count it")),
        );
        for problem in &problems {
            println!("  × {problem}");
        }
        if problems.is_empty() {
            println!("  ok         nothing lost, doubled or reordered");
        }
        Ok(problems.is_empty())
    }
}

/// The numbers of those that are.
fn numbers(are: &[bool]) -> String {
    let numbers: Vec<String> =
        (0..are.len()).filter(|number| are[*number]).map(|number| number.to_string()).collect();
    match numbers.is_empty() {
        true => "none".to_owned(),
        false => numbers.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_ready_are_named() {
        assert_eq!(numbers(&[true, false, true]), "0, 2");
        assert_eq!(numbers(&[false]), "none");
    }
}
