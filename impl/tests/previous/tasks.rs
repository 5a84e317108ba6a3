//! Tasks that go on from where the previous release left them: one has ended, one has ended unheard, one
//! was cut in its middle, and one waits.

use std::path::Path;
use std::sync::Arc;

use gapless::net::{Limits, SystemClock, TcpConnector, Tokens, WallClock as _};
use gapless::storage::{Threaded, Transact as _};
use gapless::tasks::agent::{Agent, AgentConfig};
use gapless::tasks::auth::{RsaKeys, RsaSigner, SignedHeaders};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::controller::{Controller, ControllerConfig};
use gapless::tasks::driver::{
    AgentHandle, AgentTarget, AttemptStatus, ControllerService, ControllerTaskConfig,
    ProcessExecutor, Submitter, SubmitterConfig, agent as run_agent, controller as run_controller,
};
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::store::{Command, Reply};
use gapless::tasks::{Attempt, AttemptId, Outcome, OutputStream, TaskId};
use tokio::task::JoinHandle;

use crate::play::{self, Played};
use crate::support::{MIXES, PATIENCE, SOON, agent, databases, entropy, serve, tape, until};

fn signer() -> RsaSigner {
    RsaSigner::from_pkcs8(include_bytes!("../keys/agent.pk8")).expect("a key")
}

/// Today's controller, on the record of the previous release.
async fn start_controller(folder: &Path) -> String {
    let record =
        SqliteRecord::open(RecordConfig::new(folder.join("controller.db"))).expect("it opens");
    let wall = Arc::new(SystemClock);
    let (handle, task) = run_controller(
        Controller::new(ControllerConfig::default(), entropy()),
        Threaded::spawn(record).expect("a thread"),
        wall.clone(),
        Box::new(|_| {}),
        ControllerTaskConfig::default(),
    );
    tokio::spawn(task);
    let tokens = Arc::new(Tokens::default().publisher("secret", "somebody"));
    let keys = RsaKeys::default().with(agent(), include_bytes!("../keys/agent.pub").to_vec());
    let service = ControllerService::new(handle, tokens, Arc::new(keys), wall, Limits::default());
    serve(service).await.0
}

/// Today's agent, on the store of the previous release.
fn start_agent(folder: &Path, address: &str) -> (AgentHandle, JoinHandle<()>) {
    let store =
        SqliteTaskStore::open(TaskStoreConfig::new(folder.join("agent.db"))).expect("it opens");
    let config = AgentConfig { reconnect: SOON, ..AgentConfig::default() };
    let target = AgentTarget {
        host: address.to_owned(),
        agent: agent(),
        signer: Arc::new(signer()),
        limits: Limits::default(),
        request_timeout: config.request_timeout,
    };
    let (handle, run) = run_agent(
        Agent::new(config, entropy()),
        TcpConnector::new(address),
        target,
        Threaded::spawn(store).expect("a thread"),
        ProcessExecutor::default(),
        Arc::new(SystemClock),
        entropy(),
        Box::new(|_| {}),
    );
    (handle, tokio::spawn(run))
}

fn submitter(address: &str) -> Submitter<TcpConnector> {
    let config = SubmitterConfig { retry: SOON, ..SubmitterConfig::default() };
    Submitter::new(TcpConnector::new(address), address, "secret", config, entropy())
}

async fn ended(submitter: &mut Submitter<TcpConnector>, task: &str) -> AttemptStatus {
    let task = TaskId::parse(task).expect("valid");
    let wait = async {
        loop {
            let status = submitter.look(&task).await.expect("it is known");
            if let Some(ended) = status.attempts.into_iter().find(AttemptStatus::has_ended) {
                return ended;
            }
            tokio::time::sleep(SOON.min).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it ends")
}

/// Each of the four tasks has come to the end that it has to come to, with all of its output.
async fn check(address: &str, mix: &str) {
    let mut submitter = submitter(address);
    for (task, outcome, code, output) in [
        ("done", Some(Outcome::Failed), Some(3), "10 €\n"),
        ("unheard", Some(Outcome::Completed), Some(0), "before\nafter\n"),
        ("cut", Some(Outcome::Interrupted), Some(-1), "begun\n"),
        ("waits", Some(Outcome::Completed), Some(0), "at last\n"),
    ] {
        let ended = ended(&mut submitter, task).await;
        assert_eq!(ended.outcome, outcome, "{mix}: {task}: {ended:?}");
        assert_eq!(ended.exit_code, code, "{mix}: {task}: {ended:?}");
        let id = AttemptId::parse("a1").expect("valid");
        let attempt = Attempt { task: TaskId::parse(task).expect("valid"), id };
        // An end may be told before the output that it is the end of.
        let wait = async {
            loop {
                let page = submitter.output(&attempt, OutputStream::Stdout, 0).await;
                let page = page.expect("a page");
                assert!(page.lost.is_empty(), "{mix}: {task}");
                let pieces: Vec<&[u8]> = page.pieces.iter().map(|(_, bytes)| &bytes[..]).collect();
                let pieces = pieces.concat();
                if pieces.len() >= output.len() {
                    return pieces;
                }
                tokio::time::sleep(SOON.min).await;
            }
        };
        let pieces = tokio::time::timeout(PATIENCE, wait).await.expect("it arrives");
        assert_eq!(String::from_utf8_lossy(&pieces), output, "{mix}: {task}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_go_on_where_the_previous_release_left_both_sides() {
    for mix in MIXES {
        let folder = databases("tasks", mix);
        let address = start_controller(folder.path()).await;
        let (agent, running) = start_agent(folder.path(), &address);
        check(&address, mix).await;
        agent.stop().await;
        running.await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_of_the_previous_release_kept_is_taken_by_this_controller() {
    for mix in MIXES {
        let folder = databases("tasks", mix);
        let address = start_controller(folder.path()).await;
        let now = SystemClock.wall_time();
        let headers = SignedHeaders::sign(&signer(), &agent(), now, &mut *entropy());
        let headers = headers.expect("signed").pairs();
        let url = format!("ws://{address}/api/v1/agents/ws");
        let mut old = Played::connect(&url, None, &headers).await;
        old.play(&tape("tasks", mix, "then.tape"), '>').await;
        check(&address, mix).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_agent_kept_is_acknowledged_by_a_controller_of_the_previous_release() {
    for mix in MIXES {
        let folder = databases("tasks", mix);
        let (address, mut playing) = play::server(tape("tasks", mix, "then.tape"), None).await;
        let (agent, running) = start_agent(folder.path(), &address);
        let played = tokio::time::timeout(PATIENCE, &mut playing).await;
        let _open = played.expect("in time").expect("no panic");
        // The last acknowledgements may be on their way.
        until("the agent has read them", || outbox_is_empty(folder.path())).await;
        agent.stop().await;
        running.await.expect("no panic");
        let store = SqliteTaskStore::open(TaskStoreConfig::new(folder.path().join("agent.db")));
        let mut store = store.expect("it opens");
        let outbox = Command::ReadOutbox { after: 0, count_max: 100, bytes_max: 1 << 20 };
        let replies = store.transact(vec![outbox]).expect("it reads");
        assert!(matches!(&replies[..], [Reply::Outbox(waiting)] if waiting.is_empty()), "{mix}");
    }
}

/// Whether nothing waits to be acknowledged, as far as is committed.
fn outbox_is_empty(folder: &Path) -> bool {
    let copy = folder.join("copy.db");
    for suffix in ["", "-wal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        // Between two commits of the agent the log may be begun anew: then the next look sees it.
        if std::fs::copy(name(&folder.join("agent.db")), name(&copy)).is_err() {
            return false;
        }
    }
    let connection = rusqlite::Connection::open(copy).expect("a database");
    let count = connection.query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, i64>(0));
    count.is_ok_and(|count| count == 0)
}
