//! Tasks: a command that runs once, while the controller is stopped and started again.
//!
//! ```text
//! cargo run -p gapless --example tasks
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gapless::AgentId;
use gapless::net::http::{self, HttpConfig};
use gapless::net::{Limits, SystemClock, TcpConnector, Tokens};
use gapless::recovery::{BackoffConfig, Entropy};
use gapless::storage::Threaded;
use gapless::tasks::agent::{Agent, AgentConfig};
use gapless::tasks::auth::{RsaKeys, RsaSigner};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::controller::{Controller, ControllerConfig};
use gapless::tasks::driver::{
    AgentTarget, ControllerHandle, ControllerService, ControllerTaskConfig, ProcessExecutor,
    Submitter, SubmitterConfig, Wish, agent as run_agent, controller as run_controller,
};
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::{Outcome, OutputStream, TaskId};
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The key pair of the agent. Everybody has this one: make another with OpenSSL.
const PRIVATE_KEY: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/agent.pk8"));
const PUBLIC_KEY: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/agent.pub"));

/// Where ids and jitter come from.
fn entropy() -> Box<dyn Entropy> {
    Box::new(UnwrapErr(SysRng))
}

/// A controller: a core, its record in a database, and HTTP. It knows users by their tokens, and
/// agents by their keys.
fn serve(
    listener: TcpListener,
    folder: &Path,
    agent: &AgentId,
) -> Result<(ControllerHandle, JoinHandle<()>), Box<dyn Error>> {
    let record = SqliteRecord::open(RecordConfig::new(folder.join("controller.db")))?;
    let core = Controller::new(ControllerConfig::default(), entropy());
    let wall = Arc::new(SystemClock);
    let (handle, task) = run_controller(
        core,
        Threaded::spawn(record)?,
        wall.clone(),
        Box::new(|_| {}),
        ControllerTaskConfig::default(),
    );
    tokio::spawn(task);
    let tokens = Arc::new(Tokens::default().publisher("secret", "ada"));
    let keys = Arc::new(RsaKeys::default().with(agent.clone(), PUBLIC_KEY.to_vec()));
    let service = ControllerService::new(handle.clone(), tokens, keys, wall, Limits::default());
    let serving = http::serve(listener, service, HttpConfig::default(), std::future::pending());
    Ok((handle, tokio::spawn(serving)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let name = AgentId::parse("builder")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (handle, serving) = serve(listener, folder.path(), &name)?;

    // The agent. All that it tells is in its database first: that it took a task, that it began,
    // each piece of output, and the result.
    let store = SqliteTaskStore::open(TaskStoreConfig::new(folder.path().join("agent.db")))?;
    let soon = BackoffConfig {
        min: Duration::from_millis(50),
        max: Duration::from_millis(200),
        jitter_percent: 25,
    };
    let config = AgentConfig { reconnect: soon, ..AgentConfig::default() };
    let target = AgentTarget {
        host: address.to_string(),
        agent: name.clone(),
        signer: Arc::new(RsaSigner::from_pkcs8(PRIVATE_KEY)?),
        limits: Limits::default(),
        request_timeout: config.request_timeout,
    };
    let (agent, run) = run_agent(
        Agent::new(config, entropy()),
        TcpConnector::new(address.to_string()),
        target,
        Threaded::spawn(store)?,
        ProcessExecutor::default(),
        Arc::new(SystemClock),
        entropy(),
        Box::new(|_| {}),
    );
    let running = tokio::spawn(run);

    // A wish has an id, so it can be made again and is fulfilled once.
    let config = SubmitterConfig { retry: soon, ..SubmitterConfig::default() };
    let connector = TcpConnector::new(address.to_string());
    let mut submitter = Submitter::new(connector, address.to_string(), "secret", config, entropy());
    let task = TaskId::parse("count")?;
    let command = "for n in 1 2 3 4 5; do echo $n; sleep 0.1; done".to_owned();
    let wish = Wish { task: task.clone(), agent: name.clone(), command, priority: 0 };
    let attempt = submitter.submit(&wish).await?;
    while submitter.output(&attempt, OutputStream::Stdout, 0).await?.pieces.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // The controller stops in the middle of it, and comes back with the same database. The agent
    // goes on with its command, and tells what is not acknowledged when it is connected again.
    serving.abort();
    drop(serving.await);
    handle.drain().await;
    drop(handle);
    let (_handle, _serving) = serve(TcpListener::bind(address).await?, folder.path(), &name)?;
    assert_eq!(submitter.submit(&wish).await?, attempt);
    let ended = loop {
        let status = submitter.look(&task).await?;
        match status.attempts.into_iter().find(|attempt| attempt.has_ended()) {
            Some(ended) => break ended,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(ended.outcome, Some(Outcome::Completed));
    let page = submitter.output(&attempt, OutputStream::Stdout, 0).await?;
    let pieces: Vec<&[u8]> = page.pieces.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(pieces.concat(), b"1\n2\n3\n4\n5\n");
    assert!(page.lost.is_empty());

    agent.stop().await;
    running.await?;
    println!("the command ran once, and all of its output is there");
    Ok(())
}
