//! Makes databases and tapes of frames with the release that it is built in: see `README.md` beside.
//!
//! Each protocol is run three times: both sides with the extension, a base client, a base server. In
//! the middle everything ends, and the databases are copied; then both sides go on. A tape has what each
//! side said: `>` the client or agent, `<` the server or controller, `=` where a connection was asked for.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::events::{self, client::StartAt, driver as events_driver};
use gapless::net::http::{self, HttpConfig, Service};
use gapless::net::{BoxFuture, Limits, SystemClock, TcpConnector, Tokens, WallClock as _};
use gapless::recovery::{BackoffConfig, Entropy};
use gapless::session::{self, driver as session_driver};
use gapless::storage::Threaded;
use gapless::tasks::{self, driver as tasks_driver, wire::Envelope};
use gapless::{AgentId, Core};
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use rusqlite::Connection;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(30);
const SOON: BackoffConfig = BackoffConfig {
    min: Duration::from_millis(20),
    max: Duration::from_millis(100),
    jitter_percent: 0,
};

fn entropy() -> Box<dyn Entropy> {
    Box::new(UnwrapErr(SysRng))
}

fn agent() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

#[derive(Clone)]
struct Tape(Arc<Mutex<fs::File>>);

impl Tape {
    fn new(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(fs::File::create(path).expect("a file"))))
    }

    fn line(&self, mark: char, text: &str) {
        writeln!(self.0.lock().expect("no panic"), "{mark} {text}").expect("written");
    }
}

/// A core whose words are taped.
struct Taped<C: Core> {
    core: C,
    tape: Tape,
    hear: Box<dyn Fn(&C::Output) -> Option<(char, String)> + Send>,
}

impl<C: Core> Core for Taped<C> {
    type Input = C::Input;
    type Output = C::Output;

    fn handle(&mut self, now: gapless::recovery::Instant, input: C::Input) {
        self.core.handle(now, input);
    }

    fn poll(&mut self) -> Option<C::Output> {
        let output = self.core.poll()?;
        if let Some((mark, text)) = (self.hear)(&output) {
            self.tape.line(mark, &text);
        }
        Some(output)
    }

    fn deadline(&self) -> Option<gapless::recovery::Instant> {
        self.core.deadline()
    }
}

/// One of the three ways in which the two sides can be mixed.
#[derive(Clone, Copy)]
struct Mix {
    name: &'static str,
    client: bool,
    server: bool,
}

const MIXES: [Mix; 3] = [
    Mix { name: "extension", client: true, server: true },
    Mix { name: "base-client", client: false, server: true },
    Mix { name: "base-server", client: true, server: false },
];

struct Running {
    address: String,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    async fn start<S: Service>(service: S, task: JoinHandle<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let serving = http::serve(listener, service, HttpConfig::default(), std::future::pending());
        Self { address, tasks: vec![tokio::spawn(serving), task] }
    }

    async fn kill(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

async fn patiently<T, E: std::fmt::Display>(mut open: impl FnMut() -> Result<T, E>) -> T {
    for _ in 0..50 {
        if let Ok(opened) = open() {
            return opened;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    open().unwrap_or_else(|error| panic!("{error}"))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not so: {what}"));
}

async fn ends(task: JoinHandle<()>) {
    tokio::time::timeout(PATIENCE, task).await.expect("in time").expect("no panic");
}

/// A folder for the second half, with what was there after the first one.
fn copied(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.path().extension().is_some_and(|it| it == "db") {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
        }
    }
    copy
}

// ---- events ----------------------------------------------------------------------------------

async fn events_server(folder: &Path, mix: Mix, tape: &Tape) -> Running {
    use events::server::{Output, Server, ServerConfig};
    let path = folder.join("server.db");
    let log = patiently(|| {
        events::sqlite::SqliteLog::open(events::sqlite::LogConfig::new(path.clone()))
    })
    .await;
    let config = ServerConfig { extension: mix.server, ..ServerConfig::default() };
    let bytes_max = config.event_bytes_max;
    let core = Taped {
        core: Server::new(config, entropy()),
        tape: tape.clone(),
        hear: Box::new(|output| match output {
            Output::Send { frame, .. } => {
                Some(('<', String::from_utf8(frame.to_bytes().to_vec()).expect("text")))
            }
            _ => None,
        }),
    };
    let wall = Arc::new(SystemClock);
    let log = Threaded::spawn(log).expect("a thread");
    let (handle, task) =
        events_driver::server(core, log, wall.clone(), events_driver::ServerTaskConfig::default());
    let tokens = Tokens::default().publisher("publish", "somebody").subscriber("read", agent());
    let service = events_driver::EventService::new(
        handle,
        Arc::new(tokens),
        wall,
        Limits::default(),
        mix.server,
        bytes_max,
    );
    Running::start(service, tokio::spawn(task)).await
}

struct Cursor(Arc<Mutex<Connection>>, events::sqlite::SqliteCursor);

impl events_driver::CursorStore for Cursor {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<events::client::Position>, String>> {
        let loaded = self.1.load(&self.0.lock().expect("no panic"));
        Box::pin(async move { loaded.map_err(|error| error.to_string()) })
    }

    fn save(&mut self, position: events::client::Position) -> BoxFuture<'_, Result<(), String>> {
        let stored = self.1.store(&self.0.lock().expect("no panic"), &position);
        Box::pin(async move { stored.map_err(|error| error.to_string()) })
    }
}

/// A client that writes what it takes into its database, with its position.
async fn events_client(
    folder: &Path,
    address: &str,
    mix: Mix,
    tape: &Tape,
    count: i64,
    meanwhile: impl Future<Output = ()>,
) {
    use events::client::{Client, ClientConfig, Output};
    let connection = Connection::open(folder.join("client.db")).expect("a database");
    connection
        .execute("CREATE TABLE IF NOT EXISTS taken (id TEXT NOT NULL, text TEXT NOT NULL)", [])
        .expect("a table");
    let cursor = events::sqlite::SqliteCursor::create(&connection, "agent-1").expect("a cursor");
    let database = Arc::new(Mutex::new(connection));
    let (writes, of) = (database.clone(), cursor.clone());
    let mut application =
        events_driver::Application::new(events_driver::handler_fn(move |offer| {
            let write = |connection: &mut Connection| -> rusqlite::Result<()> {
                let transaction = connection.transaction()?;
                transaction.execute(
                    "INSERT INTO taken VALUES (?1, ?2)",
                    [offer.event.id().unwrap_or(""), offer.event.text()],
                )?;
                if let Some(position) = &offer.position {
                    of.store(&transaction, position)?;
                }
                transaction.commit()
            };
            write(&mut writes.lock().expect("no panic"))
                .map_err(|error| events_driver::HandlerError(error.to_string()))?;
            Ok(match offer.position {
                Some(_) => events_driver::Handled::Stored,
                None => events_driver::Handled::Done,
            })
        }));
    application.cursor = Box::new(Cursor(database.clone(), cursor));
    let config = ClientConfig {
        extension: mix.client,
        start: StartAt::Beginning,
        reconnect: SOON,
        ..ClientConfig::default()
    };
    let core = Taped {
        core: Client::new(config, entropy()),
        tape: tape.clone(),
        hear: Box::new(|output| match output {
            Output::Send { frame, .. } => Some(('>', frame.to_text())),
            Output::Dial { offer_extension, .. } => {
                Some(('=', format!("extension offered: {offer_extension}")))
            }
            _ => None,
        }),
    };
    let (handle, run) = events_driver::client(
        core,
        TcpConnector::new(address),
        events_driver::Target::new(address, "read"),
        Arc::new(SystemClock),
        application,
    );
    let running = tokio::spawn(async move { run.await.expect("it runs") });
    meanwhile.await;
    until("all is taken", || {
        let count_of = "SELECT count(*) FROM taken";
        let database = database.lock().expect("no panic");
        database.query_row(count_of, [], |row| row.get::<_, i64>(0)).expect("it reads") >= count
    })
    .await;
    // The position of a base server moves a little later.
    tokio::time::sleep(Duration::from_millis(300)).await;
    handle.stop().await;
    ends(running).await;
}

async fn publish(address: &str, numbers: std::ops::RangeInclusive<u32>) {
    let mut publisher = events_driver::Publisher::new(
        TcpConnector::new(address),
        address,
        "publish",
        events_driver::PublisherConfig::default(),
        entropy(),
    );
    for number in numbers {
        let publication = events_driver::Publication {
            agent: agent(),
            id: Some(format!("e-{number}")),
            kind: "message".to_owned(),
            payload: RawValue::from_string(format!("{{\"text\":\"{number} €\"}}")).expect("JSON"),
            after: None,
        };
        publisher.publish(&publication).await.expect("stored");
    }
}

async fn record_events(out: &Path, mix: Mix) {
    let folder = out.join("events").join(mix.name);
    fs::create_dir_all(&folder).expect("a folder");
    let tape = Tape::new(folder.join("first.tape"));
    let server = events_server(&folder, mix, &tape).await;
    publish(&server.address, 1..=3).await;
    server.kill().await;
    let server = events_server(&folder, mix, &tape).await;
    let address = server.address.clone();
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        publish(&address, 4..=5).await;
    };
    events_client(&folder, &server.address, mix, &tape, 5, meanwhile).await;
    publish(&server.address, 6..=8).await;
    server.kill().await;
    tokio::time::sleep(Duration::from_millis(200)).await;

    let tape = Tape::new(folder.join("then.tape"));
    let copy = copied(&folder);
    let server = events_server(copy.path(), mix, &tape).await;
    let address = server.address.clone();
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        publish(&address, 9..=10).await;
    };
    events_client(copy.path(), &server.address, mix, &tape, 10, meanwhile).await;
    server.kill().await;
}

// ---- session ---------------------------------------------------------------------------------

/// Repeats what the user says; `ask X` asks X.
struct Script;

impl session_driver::Application for Script {
    fn turn(
        &self,
        work: session::server::Work,
        mut speaker: session_driver::Speaker,
    ) -> BoxFuture<'static, session::conversation::Ending> {
        use session::conversation::{Ending, Kind, Saying};
        Box::pin(async move {
            let text = work.input.text;
            let text = match (work.input.kind, text.strip_prefix("ask ")) {
                (Kind::Answer, _) => format!("you answered {text}"),
                (_, Some(what)) => {
                    return Ending::Ask {
                        question: session::Name::parse("question-1").expect("a name"),
                        text: what.to_owned(),
                        source: "script".to_owned(),
                    };
                }
                (_, None) => format!("you said {text}"),
            };
            match speaker.say(Saying { text, model: "script".to_owned(), usage: None }).await {
                Ok(()) => Ending::Done,
                Err(stopped) => Ending::Failed(stopped.to_string()),
            }
        })
    }
}

async fn session_server(folder: &Path, mix: Mix, tape: &Tape) -> Running {
    use session::server::{Output, Server, ServerConfig, ShowAll};
    use session::sqlite::{ConversationsConfig, SqliteConversations};
    let path = folder.join("server.db");
    let store =
        patiently(|| SqliteConversations::open(&path, &ConversationsConfig::default())).await;
    let config = ServerConfig { extension: mix.server, ..ServerConfig::default() };
    let extension = mix.client && mix.server;
    let core = Taped {
        core: Server::new(config, Box::new(ShowAll), entropy()),
        tape: tape.clone(),
        hear: Box::new(move |output| match output {
            Output::Send { frame, .. } => Some(('<', frame.to_text(extension))),
            _ => None,
        }),
    };
    let store = Threaded::spawn(store).expect("a thread");
    let (handle, task) = session_driver::server(
        core,
        store,
        Arc::new(Script),
        session_driver::ServerTaskConfig::default(),
    );
    let tokens = Tokens::default().user("secret", "somebody");
    let service = session_driver::SessionService::new(
        handle,
        Arc::new(tokens),
        Limits::default(),
        mix.server,
    );
    Running::start(service, tokio::spawn(task)).await
}

struct User {
    handle: session_driver::ClientHandle,
    running: JoinHandle<()>,
}

impl User {
    async fn start(folder: &Path, address: &str, mix: Mix, tape: &Tape) -> Self {
        use session::client::{Client, ClientConfig, Output};
        let path = folder.join("client.db");
        let (store, kept) = patiently(|| {
            session::sqlite::SqliteInFlight::open(&path, None, &mut *entropy())
        })
        .await;
        let config =
            ClientConfig { extension: mix.client, reconnect: SOON, ..ClientConfig::default() };
        let extension = mix.client && mix.server;
        let core = Taped {
            core: Client::new(config, entropy()),
            tape: tape.clone(),
            hear: Box::new(move |output| match output {
                Output::Send { frame, .. } => Some(('>', frame.to_text(extension))),
                Output::Dial { offer_extension, resume, .. } => {
                    Some(('=', format!("extension offered: {offer_extension}, {resume:?}")))
                }
                _ => None,
            }),
        };
        let (handle, run) = session_driver::client(
            core,
            TcpConnector::new(address),
            session_driver::Target::new(address, "secret"),
            Threaded::spawn(store).expect("a thread"),
            kept,
        );
        Self { handle, running: tokio::spawn(run) }
    }

    async fn submit(&self, what: session::client::Submission) {
        self.handle.submit(what).await.expect("it is taken");
    }

    async fn shows(&self, texts: &[&str]) {
        until(&format!("it shows {texts:?}"), || {
            let view = self.handle.view();
            let view = view.borrow();
            // A reply may come before or after what is said next.
            let mut shown: Vec<_> = view.messages.iter().map(|it| it.text.as_str()).collect();
            let mut wanted = texts.to_vec();
            shown.sort_unstable();
            wanted.sort_unstable();
            shown == wanted
        })
        .await;
    }

    async fn stop(self) {
        self.handle.stop().await;
        ends(self.running).await;
    }
}

async fn record_session(out: &Path, mix: Mix) {
    use session::client::Submission;
    let message = |text: &str| Submission::Message { text: text.to_owned(), attachments: vec![] };
    let folder = out.join("session").join(mix.name);
    fs::create_dir_all(&folder).expect("a folder");
    let tape = Tape::new(folder.join("first.tape"));
    let server = session_server(&folder, mix, &tape).await;
    let user = User::start(&folder, &server.address, mix, &tape).await;
    user.submit(message("hello €")).await;
    user.shows(&["hello €", "you said hello €"]).await;
    user.submit(message("ask how old?")).await;
    user.shows(&["hello €", "you said hello €", "ask how old?", "how old?"]).await;
    until("it is asked", || user.handle.view().borrow().open_question.is_some()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.kill().await;
    user.submit(Submission::Answer { text: "seven".to_owned() }).await;
    user.submit(message("bye")).await;
    until("both are kept", || {
        let view = user.handle.view();
        let view = view.borrow();
        view.pending.len() == 2 && view.pending.iter().all(|it| it.kept)
    })
    .await;
    user.stop().await;
    tokio::time::sleep(Duration::from_millis(200)).await;

    let tape = Tape::new(folder.join("then.tape"));
    let copy = copied(&folder);
    let server = session_server(copy.path(), mix, &tape).await;
    let user = User::start(copy.path(), &server.address, mix, &tape).await;
    let all = [
        "hello €",
        "you said hello €",
        "ask how old?",
        "how old?",
        "seven",
        "you answered seven",
        "bye",
        "you said bye",
    ];
    user.shows(&all).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    user.stop().await;
    server.kill().await;
}

// ---- tasks -----------------------------------------------------------------------------------

async fn tasks_controller(folder: &Path, mix: Mix, tape: &Tape) -> Running {
    use tasks::controller::sqlite::{RecordConfig, SqliteRecord};
    use tasks::controller::{Controller, ControllerConfig, Output};
    let path = folder.join("controller.db");
    let record = patiently(|| SqliteRecord::open(RecordConfig::new(path.clone()))).await;
    let config = ControllerConfig { extension: mix.server, ..ControllerConfig::default() };
    let core = Taped {
        core: Controller::new(config, entropy()),
        tape: tape.clone(),
        hear: Box::new(|output| match output {
            Output::Send { message_id, message, .. } => {
                let envelope = Envelope {
                    message_id: message_id.clone(),
                    agent: agent(),
                    sent_at: SystemClock.wall_time(),
                    message: message.clone(),
                };
                Some(('<', String::from_utf8(envelope.to_bytes().to_vec()).expect("text")))
            }
            _ => None,
        }),
    };
    let wall = Arc::new(SystemClock);
    let (handle, task) = tasks_driver::controller(
        core,
        Threaded::spawn(record).expect("a thread"),
        wall.clone(),
        Box::new(|_| {}),
        tasks_driver::ControllerTaskConfig::default(),
    );
    let tokens = Tokens::default().publisher("secret", "somebody");
    let public = include_bytes!("../tests/keys/agent.pub").to_vec();
    let keys = tasks::auth::RsaKeys::default().with(agent(), public);
    let service = tasks_driver::ControllerService::new(
        handle,
        Arc::new(tokens),
        Arc::new(keys),
        wall,
        Limits::default(),
    );
    Running::start(service, tokio::spawn(task)).await
}

async fn tasks_agent(
    folder: &Path,
    address: &str,
    mix: Mix,
    tape: &Tape,
) -> (tasks_driver::AgentHandle, JoinHandle<()>) {
    use tasks::agent::{Agent, AgentConfig, Output};
    use tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
    let path = folder.join("agent.db");
    let store = patiently(|| SqliteTaskStore::open(TaskStoreConfig::new(path.clone()))).await;
    let config = AgentConfig { extension: mix.client, reconnect: SOON, ..AgentConfig::default() };
    let key = include_bytes!("../tests/keys/agent.pk8");
    let target = tasks_driver::AgentTarget {
        host: address.to_owned(),
        agent: agent(),
        signer: Arc::new(tasks::auth::RsaSigner::from_pkcs8(key).expect("a key")),
        limits: Limits::default(),
        request_timeout: config.request_timeout,
    };
    let core = Taped {
        core: Agent::new(config, entropy()),
        tape: tape.clone(),
        hear: Box::new(|output| match output {
            Output::Send { message_id, message, extension, .. } => {
                let envelope = Envelope {
                    message_id: message_id.clone(),
                    agent: agent(),
                    sent_at: SystemClock.wall_time(),
                    message: message.clone(),
                };
                let bytes = envelope.to_bytes(*extension).to_vec();
                Some(('>', String::from_utf8(bytes).expect("text")))
            }
            Output::Dial { .. } => Some(('=', "a connection".to_owned())),
            _ => None,
        }),
    };
    let (handle, run) = tasks_driver::agent(
        core,
        TcpConnector::new(address),
        target,
        Threaded::spawn(store).expect("a thread"),
        tasks_driver::ProcessExecutor::default(),
        Arc::new(SystemClock),
        entropy(),
        Box::new(|_| {}),
    );
    (handle, tokio::spawn(run))
}

fn submitter(address: &str) -> tasks_driver::Submitter<TcpConnector> {
    let config = tasks_driver::SubmitterConfig::default();
    tasks_driver::Submitter::new(TcpConnector::new(address), address, "secret", config, entropy())
}

async fn state(address: &str, task: &str, state: &str) {
    let id = tasks::TaskId::parse(task).expect("valid");
    let mut submitter = submitter(address);
    let wait = async {
        loop {
            let status = submitter.look(&id).await.expect("an answer");
            if status.attempts[0].state == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, wait).await;
    found.unwrap_or_else(|_| panic!("`{task}` does not become {state}"));
}

async fn record_tasks(out: &Path, mix: Mix) {
    let folder = out.join("tasks").join(mix.name);
    fs::create_dir_all(&folder).expect("a folder");
    let tape = Tape::new(folder.join("first.tape"));
    let controller = tasks_controller(&folder, mix, &tape).await;
    let (handle, running) = tasks_agent(&folder, &controller.address, mix, &tape).await;
    let wishes = [
        ("done", "printf '10 €\\n'; echo problem >&2; exit 3"),
        ("unheard", "echo before; sleep 1; echo after"),
        ("cut", "echo begun; sleep 60"),
        ("waits", "echo at last"),
    ];
    for (task, command) in wishes {
        let wish = tasks_driver::Wish {
            task: tasks::TaskId::parse(task).expect("valid"),
            agent: agent(),
            command: command.to_owned(),
            priority: 0,
        };
        submitter(&controller.address).submit(&wish).await.expect("it is taken");
    }
    state(&controller.address, "done", "final").await;
    state(&controller.address, "unheard", "running").await;
    state(&controller.address, "waits", "received").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    controller.kill().await;
    // `unheard` ends, and `cut` begins.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    handle.stop().await;
    ends(running).await;
    tokio::time::sleep(Duration::from_millis(200)).await;

    let tape = Tape::new(folder.join("then.tape"));
    let copy = copied(&folder);
    let controller = tasks_controller(copy.path(), mix, &tape).await;
    let (handle, running) = tasks_agent(copy.path(), &controller.address, mix, &tape).await;
    state(&controller.address, "waits", "final").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    handle.stop().await;
    ends(running).await;
    controller.kill().await;
}

#[tokio::main]
async fn main() {
    let out = PathBuf::from(std::env::args().nth(1).expect("usage: record FOLDER"));
    for mix in MIXES {
        record_events(&out, mix).await;
        record_session(&out, mix).await;
        record_tasks(&out, mix).await;
    }
}
