//! The run: everything starts, goes wrong once in a while, is healed, and is judged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gapless::tasks::auth::RsaSigner;
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::failure::{Failure, Result};
use crate::faults::{Fault, Faults, Kind};
use crate::judge::Verdict;
use crate::memory::{Memory, Sample, mib};
use crate::mix::{JOBS, Mix, PUBLISHERS, SUBSCRIBERS, TALKS, TOKEN, user_token};
use crate::nodes::{self, Node, Programs};
use crate::slots::Slots;
use crate::worker::tasks::{KEY, agent_id};

/// How long all clients may take to connect at the beginning.
const CONNECT_MAX: Duration = Duration::from_secs(300);

/// How long everything may take to arrive after the last fault.
const SETTLE_MAX: Duration = Duration::from_secs(300);

/// How often to look whether it has.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the server may take to say how many are connected; otherwise that is not known.
const ANSWER_MAX: Duration = Duration::from_millis(250);

/// How long to go on after that, to see what comes twice.
const QUIET: Duration = Duration::from_secs(2);

/// How many of those who wait are named.
const NAMED_MAX: usize = 10;

/// How many lines about faults there are at most; of a long run the rest is counted.
const TOLD_MAX: u64 = 40;

/// A node that is away, or is not as it should be, until some time.
enum Lasting {
    Server,
    Worker(usize),
    Proxy,
    FrozenServer,
    FrozenWorker(usize),
    FullDisk,
}

/// Everything that runs.
struct Run {
    mix: Mix,
    server: Node,
    proxy: Node,
    workers: Vec<Node>,
    lasting: Vec<(Instant, Lasting)>,
    happened: BTreeMap<Kind, u64>,
    memory: Memory,
    began: Instant,
    /// Where the samples go.
    csv: Option<PathBuf>,
}

/// Carries out the load; whether nothing is wrong.
pub(crate) async fn run(
    mix: Mix,
    proxy: SocketAddr,
    programs: &Programs,
    fault_every: Duration,
    csv: Option<PathBuf>,
) -> Result<bool> {
    prepare(&mix)?;
    let path = mix.file("mix.json");
    std::fs::write(&path, serde_json::to_vec(&mix)?)?;
    let workers = (0..mix.workers).map(|number| Node::worker(&mix.folder, &path, number));
    let server = mix.servers[0];
    let mut run = Run {
        server: Node::server(&programs.gapless, &mix.folder, "server", server, &[]),
        proxy: Node::proxy(&programs.sim, &mix.folder, proxy, server),
        workers: workers.collect::<Result<_>>()?,
        lasting: Vec::new(),
        happened: BTreeMap::new(),
        memory: Memory::default(),
        began: Instant::now(),
        csv,
        mix,
    };
    run.begin().await?;
    run.go_wrong(fault_every).await?;
    let settling = run.settle().await?;
    run.report(settling)
}

/// Tokens and slots.
pub(crate) fn prepare(mix: &Mix) -> Result<()> {
    let digest = |token: &str| -> String {
        Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let mut tokens = format!(
        "[[token]]\nsha256 = \"{}\"\nprincipal = \"load\"\n\
         roles = [\"publish\", \"tasks\", \"subscribe:*\"]\n",
        digest(TOKEN)
    );
    for user in 0..mix.sessions() {
        let digest = digest(&user_token(user));
        // Writing to a string cannot fail.
        let _ = write!(
            tokens,
            "[[token]]\nsha256 = \"{digest}\"\nprincipal = \"user-{user}\"\nroles = [\"user\"]\n"
        );
    }
    let key = BASE64.encode(RsaSigner::from_pkcs8(KEY)?.public_key());
    for number in 0..mix.agents() {
        let id = agent_id(number)?;
        let _ = write!(tokens, "[[agent]]\nid = \"{id}\"\npublic_key = \"{key}\"\n");
    }
    std::fs::write(mix.file("tokens.toml"), tokens)?;
    let files = [
        (PUBLISHERS, mix.publishers()),
        (SUBSCRIBERS, mix.subscribers()),
        (TALKS, mix.sessions()),
        (JOBS, mix.agents()),
    ];
    for (name, count) in files {
        Slots::make(&mix.file(name), count)?;
    }
    Ok(())
}

/// Waits until as many are connected to some servers together, as these count; what `check` finds
/// ends it.
pub(crate) async fn connected(
    servers: &[SocketAddr],
    wanted: u64,
    mut check: impl FnMut() -> Result<()>,
) -> Result<()> {
    let began = Instant::now();
    loop {
        check()?;
        let mut connected = 0;
        for server in servers {
            connected += nodes::connections(*server).await?;
        }
        if connected >= wanted {
            break;
        }
        if began.elapsed() > CONNECT_MAX {
            return Err(Failure::new(format!(
                "{connected} of {wanted} are connected after {CONNECT_MAX:?}"
            ))
            .hint("give the machine less to do, or take fewer of them"));
        }
        sleep(LOOK_EVERY).await;
    }
    println!("  connected  {wanted} in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Whether everything came to where it belongs in time, after the last fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settling {
    InTime,
    Late,
}

/// Waits until everything has come to where it belongs, and a little longer, to see what comes twice;
/// what `check` finds ends it.
pub(crate) async fn settled(
    mix: &Mix,
    max: Duration,
    mut check: impl FnMut() -> Result<()>,
) -> Result<Settling> {
    let healed = Instant::now();
    while healed.elapsed() < max {
        sleep(LOOK_EVERY).await;
        check()?;
        // A slot may just be written.
        if Verdict::of(mix).is_ok_and(|verdict| verdict.waiting.is_empty()) {
            println!(
                "  healed     everything had arrived {:.1} s later",
                healed.elapsed().as_secs_f64()
            );
            sleep(QUIET).await;
            return Ok(Settling::InTime);
        }
    }
    Ok(Settling::Late)
}

/// What is wrong with what the clients have.
pub(crate) fn verdict_told(verdict: &Verdict, settling: Settling, max: Duration) -> Vec<String> {
    let mut problems = Vec::new();
    let named = |all: &[String]| all[..all.len().min(NAMED_MAX)].join("\n    ");
    if !verdict.is_exact() {
        problems.push(format!(
            "something was lost, doubled, reordered, damaged or refused:\n    {}",
            named(&verdict.wrong)
        ));
    }
    if settling == Settling::Late {
        problems.push(format!(
            "{} still wait {max:?} after the last fault:\n    {}",
            verdict.waiting.len(),
            named(&verdict.waiting)
        ));
    }
    problems
}

impl Run {
    /// Starts everything, and waits until everybody is connected.
    async fn begin(&mut self) -> Result<()> {
        self.server.start().await?;
        self.proxy.start().await?;
        self.memory.before = self.server.resident_bytes().unwrap_or(0);
        for worker in &mut self.workers {
            worker.start().await?;
        }
        let (servers, wanted) = (self.mix.servers.clone(), self.mix.connections as u64);
        connected(&servers, wanted, || self.check()).await?;
        self.memory.connected = self.server.resident_bytes().unwrap_or(0);
        self.began = Instant::now();
        Ok(())
    }

    /// An error if a process has ended that nobody has killed.
    fn check(&mut self) -> Result<()> {
        self.server.check()?;
        self.proxy.check()?;
        self.workers.iter_mut().try_for_each(Node::check)
    }

    /// Lets something go wrong every now and then until the time is over.
    async fn go_wrong(&mut self, fault_every: Duration) -> Result<()> {
        let mut faults = Faults::new(self.mix.seed, self.mix.workers);
        // What is late because a process had to be waited for is made up for.
        let mut next = interval(fault_every);
        next.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = self.began + self.mix.length;
        loop {
            let over = self.lasting.iter().map(|(until, _)| *until).min();
            tokio::select! { biased;
                () = tokio::time::sleep_until(end) => return Ok(()),
                () = tokio::time::sleep_until(over.unwrap_or(end)) => {
                    self.end_lasting(Instant::now()).await?;
                }
                _ = look.tick() => self.sample().await?,
                _ = next.tick() => {
                    let fault = faults.next().expect("faults do not end");
                    self.tell(&fault);
                    self.happen(fault).await?;
                }
            }
        }
    }

    async fn sample(&mut self) -> Result<()> {
        self.check()?;
        let Some(resident) = self.server.resident_bytes() else { return Ok(()) };
        let held = self
            .lasting
            .iter()
            .any(|(_, what)| matches!(what, Lasting::Server | Lasting::FrozenServer));
        // A server in trouble is not asked, so that nothing waits for it.
        let connections = match held {
            true => None,
            false => {
                let asked = nodes::connections(self.mix.servers[0]);
                tokio::time::timeout(ANSWER_MAX, asked).await.ok().and_then(Result::ok)
            }
        };
        self.memory.samples.push(Sample { at: self.began.elapsed(), resident, connections });
        Ok(())
    }

    fn tell(&mut self, fault: &Fault) {
        *self.happened.entry(fault.kind()).or_default() += 1;
        match self.happened.values().sum::<u64>() {
            count if count < TOLD_MAX => {
                println!("  {:>9.3}  {fault}", self.began.elapsed().as_secs_f64());
            }
            TOLD_MAX => println!("          …  more of the same, from the same seed"),
            _ => {}
        }
    }

    async fn happen(&mut self, fault: Fault) -> Result<()> {
        // Real time: everything here is real processes. The seed only draws which fault it is, and how long.
        let now = Instant::now();
        let (length, what) = match fault {
            Fault::Strike { strike, .. } => return self.proxy.strike(&strike).await,
            Fault::FreezeServer(length) => {
                self.server.signal(Signal::STOP)?;
                (length, Lasting::FrozenServer)
            }
            Fault::FreezeWorker(worker, length) => {
                self.workers[worker].signal(Signal::STOP)?;
                (length, Lasting::FrozenWorker(worker))
            }
            Fault::FullDisk(length) => {
                self.server.let_write(Some(0))?;
                (length, Lasting::FullDisk)
            }
            Fault::KillServer(pause) => {
                self.server.kill().await?;
                (pause, Lasting::Server)
            }
            Fault::KillWorker(worker, pause) => {
                self.workers[worker].kill().await?;
                (pause, Lasting::Worker(worker))
            }
            Fault::KillProxy(pause) => {
                self.proxy.kill().await?;
                (pause, Lasting::Proxy)
            }
        };
        self.lasting.push((now + length, what));
        Ok(())
    }

    async fn end_lasting(&mut self, now: Instant) -> Result<()> {
        let (over, lasting) = self.lasting.drain(..).partition(|(until, _)| *until <= now);
        self.lasting = lasting;
        let over: Vec<(Instant, Lasting)> = over;
        for (_, what) in over {
            // One that was killed meanwhile is started when its own time is over.
            match what {
                Lasting::Server => self.server.revive().await?,
                Lasting::Worker(worker) => self.workers[worker].revive().await?,
                Lasting::Proxy => self.proxy.revive().await?,
                Lasting::FrozenServer => self.server.signal(Signal::CONT)?,
                Lasting::FrozenWorker(worker) => self.workers[worker].signal(Signal::CONT)?,
                Lasting::FullDisk => self.server.let_write(None)?,
            }
        }
        Ok(())
    }

    /// No more faults, and nothing new; whether everything has come to where it belongs in time.
    async fn settle(&mut self) -> Result<Settling> {
        self.end_lasting(self.began + Duration::from_secs(1 << 40)).await?;
        // What is half-open or slow ends with the proxy.
        self.proxy.kill().await?;
        self.proxy.start().await?;
        for worker in &mut self.workers {
            worker.finish().await?;
        }
        let mix = self.mix.clone();
        settled(&mix, SETTLE_MAX, || self.check()).await
    }

    /// Judges, and says what was found; whether nothing is wrong.
    fn report(&mut self, settling: Settling) -> Result<bool> {
        self.check()?;
        let last = self.server.resident_bytes().unwrap_or(0);
        // Nobody writes any more.
        self.workers.clear();
        let verdict = Verdict::of(&self.mix)?;
        let kinds: Vec<String> =
            self.happened.iter().map(|(kind, count)| format!("{kind:?} ×{count}")).collect();
        println!("  faults     {}: {}", self.happened.values().sum::<u64>(), kinds.join(", "));
        print!("{verdict}");
        let (connections, memory) = (self.mix.connections, &self.memory);
        if let Some((least, median, most)) = memory.connected_at_once() {
            println!(
                "  WebSockets {least} to {most} open at once, median {median}, as the server counts"
            );
        }
        println!(
            "  memory     {} before, {} with all connected ({} bytes each), {} at most, {} at the end; \
             the peak of the last quarter is {} above that of the third",
            mib(memory.before),
            mib(memory.connected),
            memory.per_connection(connections),
            mib(memory.max()),
            mib(last),
            mib(memory.growth())
        );
        if let Some(path) = &self.csv {
            std::fs::write(path, memory.csv())?;
        }
        let mut problems = memory.problems(connections);
        problems.extend(verdict_told(&verdict, settling, SETTLE_MAX));
        for problem in &problems {
            println!("  × {problem}");
        }
        if problems.is_empty() {
            println!("  ok         nothing lost, doubled or reordered; memory is bounded");
        }
        Ok(problems.is_empty())
    }
}

impl Node {
    /// Starts it, unless it runs.
    async fn revive(&mut self) -> Result<()> {
        match self.pid() {
            Some(_) => Ok(()),
            None => self.start().await,
        }
    }
}
