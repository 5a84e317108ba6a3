//! Agent and controller over real sockets, with real processes, real keys and real files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gapless::AgentId;
use gapless::database::Synchronous;
use gapless::net::http::{self, HttpConfig, Service};
use gapless::net::{Limits, SystemClock, TcpConnector, Tokens, WallClock};
use gapless::recovery::{BackoffConfig, WallTime};
use gapless::storage::Threaded;
use gapless::tasks::agent::{Agent, AgentConfig};
use gapless::tasks::auth::{RsaKeys, RsaSigner, SignedHeaders};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::controller::{Controller, ControllerConfig};
use gapless::tasks::driver::{
    AgentHandle, AgentTarget, ControllerHandle, ControllerService, ControllerTaskConfig,
    ProcessExecutor, agent as agent_task, controller as controller_task,
};
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn name() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

fn signer() -> Arc<RsaSigner> {
    Arc::new(RsaSigner::from_pkcs8(include_bytes!("keys/agent.pk8")).expect("a key"))
}

/// Another stream of random numbers each time, as each life of a process has.
fn entropy() -> Box<ChaCha12Rng> {
    static SEEDS: AtomicU64 = AtomicU64::new(1);
    Box::new(ChaCha12Rng::seed_from_u64(SEEDS.fetch_add(1, Ordering::Relaxed)))
}

/// A clock that is off.
struct Off(i64);

impl WallClock for Off {
    fn wall_time(&self) -> WallTime {
        WallTime::from_millis(SystemClock.wall_time().as_millis() + self.0)
    }
}

/// The controller's service, whose WebSocket can be shut.
#[derive(Clone)]
struct Shuttable {
    service: ControllerService,
    shut: Arc<AtomicBool>,
}

impl Service for Shuttable {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let shut = self.shut.load(Ordering::Relaxed);
        if shut && request.uri().path().ends_with("/ws") {
            return http::empty(StatusCode::SERVICE_UNAVAILABLE);
        }
        self.service.call(request).await
    }
}

struct ControllerSide {
    handle: ControllerHandle,
    task: JoinHandle<()>,
    serving: JoinHandle<()>,
    shut: Arc<AtomicBool>,
}

impl ControllerSide {
    async fn start(folder: &Path, listener: TcpListener) -> Self {
        let mut config = RecordConfig::new(folder.join("controller.db"));
        config.synchronous = Synchronous::Normal;
        // The one before may be about to let go of the file.
        let mut tries = 0;
        let record = loop {
            match SqliteRecord::open(config.clone()) {
                Ok(record) => break record,
                Err(error) if tries > 50 => panic!("{error}"),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let core = Controller::new(
            ControllerConfig {
                redelivery: BackoffConfig {
                    min: Duration::from_millis(200),
                    max: Duration::from_secs(1),
                    jitter_percent: 25,
                },
                ..ControllerConfig::default()
            },
            entropy(),
        );
        let wall = Arc::new(SystemClock);
        let (handle, task) = controller_task(
            core,
            Threaded::spawn(record).expect("a thread"),
            wall.clone(),
            Box::new(|_| {}),
            ControllerTaskConfig::default(),
        );
        let access = Tokens::default().publisher("secret", "somebody");
        let keys = RsaKeys::default().with(name(), include_bytes!("keys/agent.pub").to_vec());
        let service = ControllerService::new(
            handle.clone(),
            Arc::new(access),
            Arc::new(keys),
            wall,
            Limits::default(),
        );
        let shut = Arc::new(AtomicBool::new(false));
        let service = Shuttable { service, shut: shut.clone() };
        let serving = http::serve(listener, service, HttpConfig::default(), std::future::pending());
        Self { handle, task: tokio::spawn(task), serving: tokio::spawn(serving), shut }
    }

    /// The process ends, without a word.
    async fn kill(self) {
        self.serving.abort();
        self.task.abort();
        let _ = (self.serving.await, self.task.await);
    }
}

struct World {
    folder: tempfile::TempDir,
    port: u16,
    controller: Option<ControllerSide>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let controller = ControllerSide::start(folder.path(), listener).await;
        Self { folder, port, controller: Some(controller) }
    }

    async fn restart_controller(&mut self) {
        self.controller.take().expect("it runs").kill().await;
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        self.controller = Some(ControllerSide::start(self.folder.path(), listener).await);
    }

    fn shut(&self, shut: bool) {
        self.controller.as_ref().expect("it runs").shut.store(shut, Ordering::Relaxed);
    }

    async fn start_agent(&self, clock_off_ms: i64) -> (AgentHandle, JoinHandle<()>) {
        let mut config = TaskStoreConfig::new(self.folder.path().join("agent.db"));
        config.synchronous = Synchronous::Normal;
        let mut tries = 0;
        let store = loop {
            match SqliteTaskStore::open(config.clone()) {
                Ok(store) => break store,
                Err(error) if tries > 50 => panic!("{error}"),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let reconnect = BackoffConfig {
            min: Duration::from_millis(50),
            max: Duration::from_millis(500),
            jitter_percent: 25,
        };
        let config = AgentConfig {
            reconnect,
            parallel: 4,
            fallback_after: Duration::from_millis(300),
            poll_every: Duration::from_millis(200),
            request_retry: reconnect,
            ..AgentConfig::default()
        };
        let target = AgentTarget {
            host: format!("127.0.0.1:{}", self.port),
            agent: name(),
            signer: signer(),
            limits: Limits::default(),
            request_timeout: config.request_timeout,
        };
        let (handle, task) = agent_task(
            Agent::new(config, entropy()),
            TcpConnector::new(format!("127.0.0.1:{}", self.port)),
            target,
            Threaded::spawn(store).expect("a thread"),
            ProcessExecutor::default(),
            Arc::new(Off(clock_off_ms)),
            entropy(),
            Box::new(|_| {}),
        );
        (handle, tokio::spawn(task))
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("it listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "x");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let body = body.map_or(Bytes::new(), |body| body.to_string().into());
        let request = request.body(Full::new(body)).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn user(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.ask(method, path, &[("authorization", "Bearer secret".to_owned())], body).await
    }

    async fn submit(&self, task: &str, command: &str) {
        let wish = json!({ "id": task, "agent": "agent-1", "command": command });
        let (status, answer) = self.user("POST", "/v1/tasks", Some(wish)).await;
        assert_eq!((status, &answer["attempt"]), (StatusCode::CREATED, &json!("a1")), "{answer}");
    }

    async fn attempt(&self, task: &str) -> Value {
        let (status, view) = self.user("GET", &format!("/v1/tasks/{task}"), None).await;
        assert_eq!(status, StatusCode::OK, "{view}");
        view["attempts"][0].clone()
    }

    /// Waits until the first attempt at a task is in a state.
    async fn until(&self, task: &str, state: &str) -> Value {
        let wait = async {
            loop {
                let attempt = self.attempt(task).await;
                if attempt["state"] == state {
                    return attempt;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it comes to that")
    }

    /// Everything that a command wrote, once all of it is there.
    async fn output(&self, task: &str, stream: &str, bytes: usize) -> Vec<u8> {
        use base64::Engine as _;
        let wait = async {
            loop {
                let (mut output, mut after) = (Vec::new(), 0);
                loop {
                    let path = format!("/v1/tasks/{task}/attempts/a1/{stream}?after={after}");
                    let (status, page) = self.user("GET", &path, None).await;
                    assert_eq!(status, StatusCode::OK, "{page}");
                    assert_eq!(page["lost"], json!([]));
                    let pieces = page["pieces"].as_array().expect("a list").clone();
                    for piece in &pieces {
                        after = piece["sequence"].as_u64().expect("a number");
                        match piece["data"].as_str() {
                            Some(text) => output.extend_from_slice(text.as_bytes()),
                            None => {
                                let text = piece["data_b64"].as_str().expect("bytes");
                                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                                output.extend(bytes.expect("base64"));
                            }
                        }
                    }
                    if pieces.is_empty() {
                        break;
                    }
                }
                if output.len() >= bytes {
                    return output;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it arrives")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_and_what_they_write_arrives() {
    let world = World::new().await;
    let (agent, running) = world.start_agent(0).await;
    world.submit("text", "printf '10 €\\n'; echo problem >&2; exit 3").await;
    world.submit("bytes", "head -c 300000 /dev/zero | tr '\\0' '\\377'").await;
    world.submit("signal", "kill -9 $$").await;
    let ended = world.until("text", "final").await;
    assert_eq!((&ended["outcome"], &ended["exit_code"]), (&json!("failed"), &json!(3)));
    assert_eq!(world.output("text", "stdout", 7).await, "10 €\n".as_bytes());
    assert_eq!(world.output("text", "stderr", 8).await, b"problem\n");
    let ended = world.until("bytes", "final").await;
    assert_eq!(ended["outcome"], "completed");
    assert_eq!(world.output("bytes", "stdout", 300_000).await, vec![0xff; 300_000]);
    let ended = world.until("signal", "final").await;
    assert_eq!(ended["exit_code"], json!(137));
    agent.stop().await;
    tokio::time::timeout(PATIENCE, running).await.expect("it ends").expect("without a panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_drained_ends_and_costs_nothing() {
    let mut world = World::new().await;
    let (agent, running) = world.start_agent(0).await;
    world.submit("t", "for n in 1 2 3 4 5 6 7 8 9; do echo line $n; sleep 0.1; done").await;
    world.until("t", "running").await;
    let controller = world.controller.as_ref().expect("it runs");
    assert_eq!(controller.handle.sockets().count(), 1);
    let drained = async {
        controller.handle.drain().await;
        assert_eq!(controller.handle.sockets().count(), 0);
        while !controller.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, drained).await.expect("it ends");
    world.restart_controller().await;
    let ended = world.until("t", "final").await;
    assert_eq!(ended["outcome"], "completed");
    let lines: String = (1..=9).map(|n| format!("line {n}\n")).collect();
    assert_eq!(world.output("t", "stdout", lines.len()).await, lines.as_bytes());
    agent.stop().await;
    tokio::time::timeout(PATIENCE, running).await.expect("it ends").expect("without a panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_controller_costs_nothing() {
    let mut world = World::new().await;
    let (agent, running) = world.start_agent(0).await;
    let count = "for n in 1 2 3 4 5 6 7 8 9; do echo line $n; sleep 0.1; done";
    world.submit("t", count).await;
    world.until("t", "running").await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        world.restart_controller().await;
    }
    world.until("t", "final").await;
    let whole: String = (1..=9).map(|n| format!("line {n}\n")).collect();
    let arrived = world.output("t", "stdout", whole.len()).await;
    assert_eq!(String::from_utf8_lossy(&arrived), whole);
    agent.stop().await;
    tokio::time::timeout(PATIENCE, running).await.expect("it ends").expect("without a panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_when_the_agent_ends_is_ended_and_interrupted() {
    let world = World::new().await;
    let (agent, running) = world.start_agent(0).await;
    let marker = world.folder.path().join("alive");
    let command = format!(
        "echo begun; (while true; do touch {0}; sleep 0.05; done) & sleep 1000",
        marker.display()
    );
    world.submit("t", &command).await;
    world.output("t", "stdout", 6).await;
    agent.stop().await;
    tokio::time::timeout(PATIENCE, running).await.expect("it ends").expect("without a panic");
    std::fs::remove_file(&marker).expect("it was there");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!marker.exists(), "what the command started is ended, too");
    let (agent, running) = world.start_agent(0).await;
    let ended = world.until("t", "final").await;
    assert_eq!(ended["outcome"], "interrupted");
    agent.stop().await;
    tokio::time::timeout(PATIENCE, running).await.expect("it ends").expect("without a panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_and_tasks_go_over_http_while_there_is_no_websocket() {
    let world = World::new().await;
    world.shut(true);
    let (agent, running) = world.start_agent(0).await;
    world.submit("t", "exit 5").await;
    let ended = world.until("t", "final").await;
    assert_eq!(ended["exit_code"], json!(5));
    world.shut(false);
    world.submit("later", "echo over the socket").await;
    world.until("later", "final").await;
    agent.stop().await;
    tokio::time::timeout(PATIENCE, running).await.expect("it ends").expect("without a panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_clock_is_a_day_off_gets_in() {
    let world = World::new().await;
    let (agent, running) = world.start_agent(-86_400_000).await;
    world.submit("t", "true").await;
    world.until("t", "final").await;
    agent.stop().await;
    tokio::time::timeout(PATIENCE, running).await.expect("it ends").expect("without a panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_repetitions_are_not_let_in() {
    let world = World::new().await;
    let path = "/api/v1/agents/agent-1/tasks";
    let mut entropy = ChaCha12Rng::seed_from_u64(3);
    let at = SystemClock.wall_time();
    let signed = SignedHeaders::sign(&*signer(), &name(), at, &mut entropy).expect("it signs");
    let pairs = signed.pairs();
    assert_eq!(world.ask("GET", path, &pairs, None).await.0, StatusCode::OK);
    let (status, refused) = world.ask("GET", path, &pairs, None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "the nonce was used: {refused}");
    let (status, refused) = world.ask("GET", path, &[], None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(refused["server_time"].is_i64(), "{refused}");
    let wish = json!({ "id": "t", "agent": "agent-1", "command": "true" });
    let refused = world.ask("POST", "/v1/tasks", &[], Some(wish)).await;
    assert_eq!(refused.0, StatusCode::UNAUTHORIZED);
    for (method, path, body, status) in [
        ("POST", "/v1/tasks", json!([]), StatusCode::BAD_REQUEST),
        ("POST", "/v1/tasks", json!({ "id": "t" }), StatusCode::BAD_REQUEST),
        (
            "POST",
            "/v1/tasks",
            json!({ "id": "t", "agent": "a b", "command": "x" }),
            StatusCode::BAD_REQUEST,
        ),
        (
            "POST",
            "/v1/tasks",
            json!({ "id": "t", "agent": "a", "command": "" }),
            StatusCode::BAD_REQUEST,
        ),
        ("PATCH", "/v1/tasks", json!({}), StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/v1/tasks/none", json!({}), StatusCode::NOT_FOUND),
        ("GET", "/nowhere", json!({}), StatusCode::NOT_FOUND),
    ] {
        let (answered, said) = world.user(method, path, Some(body.clone())).await;
        assert_eq!(answered, status, "{method} {path} {body}: {said}");
        assert!(said["error"].is_string(), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_page_by_page_to_whoever_may_ask() {
    let world = World::new().await;
    for n in 0..5 {
        world.submit(&format!("t{n}"), "true").await;
    }
    let refused = world.ask("GET", "/v1/tasks", &[], None).await;
    assert_eq!(refused.0, StatusCode::UNAUTHORIZED);
    let (status, page) = world.user("GET", "/v1/tasks?limit=3&agent=agent-1", None).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let names = |page: &Value| -> Vec<String> {
        let tasks = page["tasks"].as_array().expect("a list");
        tasks.iter().map(|it| it["task"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&page), ["t4", "t3", "t2"]);
    let rest = format!("/v1/tasks?limit=3&before={}", page["next"]);
    let (_, rest) = world.user("GET", &rest, None).await;
    assert_eq!(names(&rest), ["t1", "t0"]);
    assert_eq!(rest["next"], Value::Null);
    let (_, none) = world.user("GET", "/v1/tasks?state=running", None).await;
    assert_eq!(names(&none), Vec::<String>::new());
    for query in ["limit=0", "limit=101", "limit=x", "state=lost", "agent=a%20b", "before=0"] {
        let (status, said) = world.user("GET", &format!("/v1/tasks?{query}"), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {said}");
        let name = query.split('=').next().expect("a name");
        assert!(said["error"].as_str().is_some_and(|it| it.contains(name)), "{said}");
    }
}
