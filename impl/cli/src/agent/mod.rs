//! `gapless agent`: runs the tasks that a server has for it.

pub(crate) mod args;
mod key;
mod supervised;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gapless::AgentId;
use gapless::net::{Limits, SystemClock};
use gapless::storage::Threaded;
use gapless::tasks::agent::{Agent, AgentConfig, Notice};
use gapless::tasks::driver::{AgentTarget, ProcessExecutor, agent};
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use self::args::{AgentArgs, AgentCommand};
use self::supervised::Supervised;
use crate::failure::Failure;
use crate::serve::data::DataFolder;
use crate::signals::Stop;
use crate::tls::ServerConnector;
use crate::{entropy, exit};

/// The database in the folder of an agent.
const DATABASE: &str = "agent.db";

/// How long the server may take to acknowledge the last results before the agent ends; they are sent
/// at its next start otherwise.
const GOODBYE: Duration = Duration::from_secs(3);

/// How many news may wait.
const NEWS_MAX: usize = 8;

pub(crate) fn run(mut args: AgentArgs, runtime: &Runtime) -> Result<u8, Failure> {
    if let Some(AgentCommand::Keygen(args)) = args.command {
        return key::make(&args);
    }
    match (args.id.take(), args.key.take(), args.data.take()) {
        (Some(id), Some(key), Some(data)) => {
            runtime.block_on(work(Work { id, key, data, options: args }))
        }
        _ => Err(Failure::usage("`--id`, `--key` and `--data` are needed")),
    }
}

/// What an agent is started with.
struct Work {
    id: AgentId,
    key: PathBuf,
    data: PathBuf,
    options: AgentArgs,
}

/// What changes what is done next.
enum News {
    Idle,
    Drained,
    Forked(String),
}

async fn work(Work { id, key, data, options }: Work) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let signer = Arc::new(key::read(&key)?);
    let folder = DataFolder::take(&data, "agent")?;
    let store = SqliteTaskStore::open(TaskStoreConfig::new(folder.file(DATABASE)))
        .map_err(|error| Failure::new(error.to_string()))?;
    let store = Threaded::spawn(store)
        .map_err(|error| Failure::new(format!("the database gets no thread: {error}")))?;
    let connector = ServerConnector::new(&options.url, options.tls_ca.as_deref())?;
    let config = AgentConfig { parallel: options.parallel.into(), ..AgentConfig::default() };
    let target = AgentTarget {
        host: options.url.authority(),
        agent: id.clone(),
        signer,
        limits: Limits::default(),
        request_timeout: config.request_timeout,
    };
    // The longest end of a process, and then some.
    let processes = ProcessExecutor::default();
    let end_within = processes.kill_after + processes.drain_timeout + GOODBYE;
    let (interrupt, interrupted) = watch::channel(false);
    let executor = Supervised { processes, allowed: options.allow, interrupt: interrupted };
    let (sender, mut news) = mpsc::channel(NEWS_MAX);
    let (handle, running) = agent(
        Agent::new(config, entropy()?),
        connector,
        target,
        store,
        executor,
        Arc::new(SystemClock),
        entropy()?,
        Box::new(move |notice| log(notice, &sender)),
    );
    let mut running = tokio::spawn(running);
    tracing::info!(agent = %id, url = %options.url, data = %data.display(), "starts");

    let signal = tokio::select! { biased;
        signal = stop.asked() => signal,
        reason = forked(&mut news) => {
            handle.stop().await;
            let _ = tokio::time::timeout(end_within, running).await;
            return Err(Failure::new(format!("the server does not serve this agent: {reason}"))
                .hint("another copy of its data folder is in use; only the newest one may be"));
        }
        _ = &mut running => return Err(Failure::new("the agent has ended by itself")),
    };
    tracing::info!(signal, limit = ?options.drain, "draining");
    handle.drain().await;
    let idle = tokio::select! { biased;
        () = until(&mut news, |it| matches!(it, News::Idle)) => true,
        () = tokio::time::sleep(options.drain) => false,
        _ = stop.asked() => false,
    };
    if !idle {
        tracing::warn!("what runs is interrupted");
        // The commands hold the other end.
        let _ = interrupt.send(true);
        let ended = until(&mut news, |it| matches!(it, News::Idle));
        if tokio::time::timeout(end_within, ended).await.is_err() {
            tracing::error!("not every result is stored; the next start stores them");
        }
    }
    let said = until(&mut news, |it| matches!(it, News::Drained));
    match tokio::time::timeout(GOODBYE, said).await {
        Ok(()) => tracing::info!("drained"),
        Err(_) => {
            tracing::warn!("the server has not acknowledged everything; the next start says it")
        }
    }
    handle.stop().await;
    let _ = tokio::time::timeout(end_within, running).await;
    Ok(exit::OK)
}

async fn until(news: &mut mpsc::Receiver<News>, wanted: impl Fn(&News) -> bool) {
    while let Some(news) = news.recv().await {
        if wanted(&news) {
            return;
        }
    }
    // An agent that has ended has no news; its end is seen elsewhere.
    std::future::pending().await
}

async fn forked(news: &mut mpsc::Receiver<News>) -> String {
    while let Some(news) = news.recv().await {
        if let News::Forked(reason) = news {
            return reason;
        }
    }
    std::future::pending().await
}

fn log(notice: Notice, news: &mpsc::Sender<News>) {
    let told = match notice {
        Notice::Recovered { interrupted } => {
            for attempt in interrupted {
                tracing::warn!(%attempt, "was interrupted by the end of the process before");
            }
            return;
        }
        Notice::Active => return tracing::info!("in step with the server"),
        Notice::Disconnected { reason, retry_in } => {
            return tracing::warn!(reason, ?retry_in, "disconnected");
        }
        Notice::Refused { attempt, code } => return tracing::warn!(%attempt, code, "not taken"),
        Notice::Quarantined { message_id, reason } => {
            let message = message_id.as_str();
            return tracing::error!(message, reason, "the server will never take a message");
        }
        Notice::StreamStopped { attempt, stream } => {
            let stream = stream.as_str();
            return tracing::warn!(%attempt, stream, "the server does not follow");
        }
        Notice::StoreFailed { error } => return tracing::error!(error, "the database failed"),
        Notice::Ignored { error } => return tracing::warn!(%error, "a frame was ignored"),
        Notice::Forked { reason } => News::Forked(reason),
        Notice::Idle => News::Idle,
        Notice::Drained => News::Drained,
    };
    // There are three at most, each once.
    let _ = news.try_send(told);
}
