//! Agents that run tasks, and for each somebody who wants them done, one after the other.
//!
//! A task is wanted until an attempt has come to its end, and its output is compared byte by byte. Each
//! attempt that is run is written down when it begins: none may be there twice.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gapless::AgentId;
use gapless::net::{Limits, SystemClock};
use gapless::storage::Threaded;
use gapless::tasks::agent::{Agent, AgentConfig, Exit};
use gapless::tasks::auth::RsaSigner;
use gapless::tasks::driver::{
    AgentTarget, AttemptStatus, Execution, Executor, ExecutorEvent, Submitter, SubmitterConfig,
    Wish, agent,
};
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::{Attempt, Outcome, OutputStream, TaskId};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{From, Shop, entropy};
use crate::failure::{Failure, Result};
use crate::mix::{JOBS, TOKEN, done_file, runs_file};
use crate::slots::Slots;
use crate::tally::Counts;

/// How many lines a task writes, and how long after one another.
const LINES: usize = 5;
const BETWEEN_LINES: Duration = Duration::from_millis(60);

/// How often somebody looks how a task is.
const LOOK_EVERY: Duration = Duration::from_millis(700);

/// How long it is until the next task is wanted, in milliseconds.
const REST_MS: std::ops::Range<u64> = 2_000..8_000;

/// The key of all agents of the load, which is public.
pub(crate) const KEY: &[u8] = include_bytes!("../../../../impl/tests/keys/agent.pk8");

/// What somebody wants of an agent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Job {
    /// How many tasks may be wanted.
    pub(crate) wanted: u64,
    /// How many are done.
    pub(crate) done: u64,
    pub(crate) counts: Counts,
    /// How many attempts were cut short by the end of the agent.
    pub(crate) interrupted: u64,
}

/// The name of an agent.
pub(crate) fn agent_id(number: usize) -> Result<AgentId> {
    Ok(AgentId::parse(&format!("agent-{number}"))?)
}

/// What the n-th task of an agent writes.
fn output(command: &str) -> impl Iterator<Item = Bytes> {
    (1..=LINES).map(move |line| Bytes::from(format!("{command}, line {line}\n")))
}

/// Lets an agent work, and wants something of it.
pub(crate) fn begin(shop: &Arc<Shop>, number: usize) -> Result<()> {
    let mix = &shop.mix;
    let id = agent_id(number)?;
    let store =
        SqliteTaskStore::open(TaskStoreConfig::new(mix.file(&format!("agent-{number}.db"))))?;
    let config = AgentConfig {
        liveness: mix.liveness(),
        reconnect: mix.reconnect(),
        ..AgentConfig::default()
    };
    let target = AgentTarget {
        host: mix.host(),
        agent: id.clone(),
        signer: Arc::new(RsaSigner::from_pkcs8(KEY)?),
        limits: Limits::default(),
        request_timeout: config.request_timeout,
    };
    let nth = mix.subscribers() + mix.sessions() + number;
    let (handle, running) = agent(
        Agent::new(config, entropy()?),
        shop.connector(mix.way(nth)),
        target,
        Threaded::spawn(store)?,
        Script { runs: append(shop, &runs_file(shop.worker))? },
        Arc::new(SystemClock),
        entropy()?,
        Box::new(|_| {}),
    );
    let shop = shop.clone();
    tokio::spawn(async move {
        let wanting = want(&shop, number, &id);
        tokio::select! { biased;
            () = running => shop.fail(&Failure::new(format!("{id} has ended"))),
            Err(failure) = wanting => shop.fail(&failure.context(format_args!("tasks of {id}"))),
        }
        drop(handle);
    });
    Ok(())
}

fn append(shop: &Shop, name: &str) -> Result<File> {
    Ok(File::options().create(true).append(true).open(shop.mix.file(name))?)
}

// ---- who runs tasks ---------------------------------------------------------------------------

/// Does what a task says: writes its lines.
struct Script {
    runs: File,
}

impl Executor for Script {
    fn start(&mut self, attempt: &Attempt, command: String) -> Execution {
        let (events, receiver) = mpsc::channel(1);
        let (kill, killed) = oneshot::channel();
        let noted = writeln!(self.runs, "{attempt}");
        let work = async move {
            for line in output(&command) {
                tokio::time::sleep(BETWEEN_LINES).await;
                events.send(ExecutorEvent::Wrote(OutputStream::Stdout, line)).await.ok()?;
            }
            let (outcome, exit_code) = match noted {
                Ok(()) => (Outcome::Completed, 0),
                Err(_) => (Outcome::Failed, 1),
            };
            let exit = Exit { outcome, exit_code, error: String::new(), truncated: vec![] };
            events.send(ExecutorEvent::Exited(exit)).await.ok()
        };
        tokio::spawn(async move {
            tokio::select! { biased;
                _ = killed => {}
                _ = work => {}
            }
        });
        Execution { events: receiver, kill }
    }
}

// ---- who wants them ---------------------------------------------------------------------------

async fn want(shop: &Shop, number: usize, agent: &AgentId) -> Result<()> {
    let mix = &shop.mix;
    let slots = Slots::open(&mix.file(JOBS))?;
    let mut done = append(shop, &done_file(shop.worker))?;
    let mut finish = shop.finish.clone();
    let mut rng = entropy()?;
    let mut job: Job = slots.read(number)?;
    let connector = shop.connector(mix.way(mix.connections - 1 - number));
    // All requests may be repeated, and are, for as long as it takes.
    let config = SubmitterConfig { attempts_max: u32::MAX, ..SubmitterConfig::default() };
    let mut submitter = Submitter::new(connector, mix.host(), TOKEN, config, entropy()?);
    loop {
        if job.wanted == job.done {
            let rest = Duration::from_millis(rng.random_range(REST_MS));
            let finished = finish.wait_for(|finish| *finish);
            if tokio::time::timeout(rest, finished).await.is_ok() {
                return std::future::pending().await;
            }
            job.wanted += 1;
            slots.write(number, &job)?;
        }
        let command = format!("task-{number}-{}", job.wanted);
        let wish =
            Wish { task: TaskId::parse(&command)?, agent: agent.clone(), command, priority: 0 };
        let attempt = see_done(&mut submitter, &wish, &mut job).await?;
        writeln!(done, "{attempt}")?;
        job.done = job.wanted;
        slots.write(number, &job)?;
    }
}

/// Wants a task until it is done and its output is there; the attempt that did it.
async fn see_done(submitter: &mut Submitter<From>, wish: &Wish, job: &mut Job) -> Result<Attempt> {
    submitter.submit(wish).await?;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let status = submitter.look(&wish.task).await?;
        let Some(last) = status.attempts.last() else { continue };
        if !last.has_ended() {
            continue;
        }
        let attempt = Attempt { task: wish.task.clone(), id: last.attempt.clone() };
        match last.outcome {
            Some(Outcome::Completed) => {}
            Some(Outcome::Failed) => {
                job.counts.refused += 1;
                return Ok(attempt);
            }
            // It was cut short, or the agent never had it.
            Some(Outcome::Interrupted) | None => {
                job.interrupted += 1;
                let after = last.ordinal;
                submitter.retry(&wish.task, after).await?;
                continue;
            }
        }
        if is_whole(last) {
            let written = submitter.output(&attempt, OutputStream::Stdout, 0).await?;
            let bytes: Vec<u8> =
                written.pieces.iter().flat_map(|(_, piece)| piece.clone()).collect();
            let expected: Vec<u8> = output(&wish.command).flatten().collect();
            job.counts.lost += written.lost.len() as u64;
            job.counts.damaged += u64::from(bytes != expected);
            return Ok(attempt);
        }
    }
}

/// Whether all output of an attempt that has ended has come.
fn is_whole(attempt: &AttemptStatus) -> bool {
    attempt.stdout.last.is_none_or(|last| attempt.stdout.highest >= last)
}
