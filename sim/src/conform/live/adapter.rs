//! The reference implementation as one that runs by itself: what `gapless-sim adapter --live` does.

use std::io::{self, BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gapless::database::{Medium, open_connection};
use gapless::events::AgentId;
use gapless::events::client::{Client, Offer, Position};
use gapless::events::driver::{
    Application, CursorStore, EventService, Handled, Handler, HandlerError, OpenHandler,
    ServerTaskConfig, Target, client as client_task, server as server_task,
};
use gapless::events::log::{Command, Reply as LogReply};
use gapless::events::server::Server;
use gapless::events::sqlite::SqliteCursor;
use gapless::net::http::{self, HttpConfig};
use gapless::net::{BoxFuture, SystemClock, TcpConnector, Tokens};
use gapless::recovery::Epoch;
use gapless::storage::{Store, StoreError, Transact};
use rusqlite::Connection;
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::runtime;

use super::plan::hurried;
use crate::conform::protocol::{
    ClockKind, Config, Done, Effect, EntropyKind, EventsClientConfig, EventsServerConfig, Hello,
    LINE_BYTES_MAX, Live, Reply, Request, Role, StorageKind, VERSION, feature,
};
use crate::conform::reference::NotAttachable;
use crate::conform::reference::events_client::{core_config, told};
use crate::mutants::Distorted;
use crate::plan::ServerOptions;
use crate::seed::Seed;
use crate::world::events::server::{configuration, open_log_at};
use crate::world::limits;

/// Introduces itself, and runs until the input ends.
///
/// # Errors
///
/// [`NotAttachable`] if the reference does not run by itself in this role, or a sentence that says
/// which request was wrong, or what broke.
pub fn serve(role: Role, mutant: Option<&str>) -> Result<(), String> {
    let features: &[&str] = match role {
        Role::EventsClient => {
            &[feature::EXTENSION, feature::HANDLER_ASYNC, feature::FROM_BEGINNING]
        }
        Role::EventsServer => &[feature::EXTENSION],
        Role::SessionClient | Role::SessionServer | Role::TasksAgent | Role::TasksController => {
            return Err(NotAttachable(role).to_string());
        }
    };
    let (voice, distorted) = (Voice::default(), Distorted::by(mutant));
    let live = loop {
        match request()? {
            None | Some(Request::Stop) => return Ok(()),
            Some(Request::Hello { protocol, .. }) if !protocol.contains(&VERSION) => {
                return Err(format!("version {VERSION} is not offered, but {protocol:?}"));
            }
            Some(Request::Hello { nonce, .. }) => voice.say(&Reply::Hello(Hello {
                protocol: VERSION,
                nonce,
                name: "gapless".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                language: "Rust".to_owned(),
                homepage: None,
                issues: None,
                roles: vec![role],
                features: features.iter().map(ToString::to_string).collect(),
                clock: ClockKind::Real,
                entropy: EntropyKind::Seeded,
                storage: StorageKind::Folder,
            }))?,
            Some(Request::Live(live)) => break live,
            Some(other) => return Err(format!("one that runs by itself does not do {other:?}")),
        }
    };
    voice.say(&Reply::Done(Done { n: live.n, ..Done::default() }))?;
    let seed: Seed = live.seed.parse().map_err(|error| format!("{error}"))?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let running = async {
            match &live.config {
                Config::EventsClient(config) => client(&live, config, seed, distorted, voice).await,
                Config::EventsServer(config) => server(&live, config, seed, distorted, voice).await,
                Config::SessionClient(_)
                | Config::SessionServer(_)
                | Config::TasksAgent(_)
                | Config::TasksController(_) => {
                    Err("the configuration is of another role".to_owned())
                }
            }
        };
        tokio::select! { biased;
            ended = input_ends() => ended,
            ended = running => ended,
        }
    })
}

/// The next line of the input; nothing follows the end of it.
fn request() -> Result<Option<Request>, String> {
    let mut line = Vec::new();
    let mut input = io::Read::take(io::stdin().lock(), LINE_BYTES_MAX as u64 + 1);
    let read = input.read_until(b'\n', &mut line);
    if read.map_err(|error| format!("the pipe is broken: {error}"))? == 0 {
        return Ok(None);
    }
    let request = serde_json::from_slice(&line);
    request.map(Some).map_err(|error| format!("a line is no request: {error}"))
}

/// Waits for `stop`, or for the end of the input: nothing else follows `live`.
async fn input_ends() -> Result<(), String> {
    let failed = |error: io::Error| format!("the pipe is broken: {error}");
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let input = pipe::Receiver::from_owned_fd(input).map_err(failed)?;
    input.readable().await.map_err(failed)
}

/// Says what happens, a line at once.
#[derive(Clone, Default)]
struct Voice(Arc<Mutex<()>>);

impl Voice {
    fn say(&self, reply: &Reply) -> Result<(), String> {
        let mut line = serde_json::to_vec(reply).expect("a reply is always JSON");
        line.push(b'\n');
        let _one_at_a_time = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut output = io::stdout().lock();
        let said = output.write_all(&line).and_then(|()| output.flush());
        said.map_err(|error| format!("the pipe is broken: {error}"))
    }

    fn did(&self, effect: Effect) {
        // Without a listener the input ends too.
        let _ = self.say(&Reply::Effect { effect });
    }
}

/// What the application keeps: what it was given, in the transaction of the cursor.
const TABLES: &str = "CREATE TABLE IF NOT EXISTS taken (
    nth INTEGER PRIMARY KEY, event TEXT NOT NULL, epoch TEXT) STRICT";

/// An application that stores what it takes, and says so.
#[derive(Clone)]
struct App {
    database: Arc<Mutex<Connection>>,
    cursor: SqliteCursor,
    voice: Voice,
    handler: Duration,
    open_handler: Duration,
    /// The last row that was said.
    said: Arc<Mutex<u64>>,
}

impl App {
    fn open(live: &Live, voice: Voice) -> rusqlite::Result<Self> {
        let database = open_connection(&Path::new(&live.folder).join("app.db"), Medium::default())?;
        database.execute_batch(TABLES)?;
        let cursor = SqliteCursor::create(&database, "events")?;
        Ok(Self {
            database: Arc::new(Mutex::new(database)),
            cursor,
            voice,
            handler: Duration::from_millis(live.application.handler_ms),
            open_handler: Duration::from_millis(live.application.open_handler_ms),
            said: Arc::new(Mutex::new(live.taken)),
        })
    }

    fn take(&self, offer: &Offer) -> rusqlite::Result<()> {
        let epoch = offer.position.as_ref().and_then(|position| position.epoch.as_ref());
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = database.transaction()?;
        transaction.execute(
            "INSERT INTO taken (event, epoch) VALUES (?1, ?2)",
            rusqlite::params![offer.event.text(), epoch.map(Epoch::as_str)],
        )?;
        if let Some(position) = &offer.position {
            self.cursor.store(&transaction, position)?;
        }
        transaction.commit()
    }

    /// Says what is stored and has not been said.
    fn say_taken(&self) -> rusqlite::Result<()> {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = database
            .prepare_cached("SELECT nth, event, epoch FROM taken WHERE nth > ?1 ORDER BY nth")?;
        let mut rows = statement.query([*said])?;
        while let Some(row) = rows.next()? {
            let (event, epoch) = (row.get(1)?, row.get(2)?);
            let (failed, ticket, commits) = (false, None, Default::default());
            self.voice.did(Effect::AppEvent { event, epoch, failed, ticket, commits });
            *said = row.get(0)?;
        }
        Ok(())
    }

    fn say_position(&self, position: &Position) {
        let epoch = position.epoch.as_ref().map(Epoch::to_string);
        let sequence = position.sequence;
        self.voice.did(Effect::AppPosition { epoch: epoch.clone(), sequence });
        self.voice.did(Effect::AppJoined { epoch, sequence });
    }
}

impl Handler for App {
    fn handle<'a>(&'a mut self, offer: &'a Offer) -> BoxFuture<'a, Result<Handled, HandlerError>> {
        Box::pin(async move {
            tokio::time::sleep(self.handler).await;
            match self.take(offer).and_then(|()| self.say_taken()) {
                Ok(()) if offer.position.is_some() => Ok(Handled::Stored),
                Ok(()) => Ok(Handled::Done),
                Err(error) => Err(HandlerError(error.to_string())),
            }
        })
    }
}

impl OpenHandler for App {
    fn opened(&mut self) -> BoxFuture<'_, Result<(), HandlerError>> {
        Box::pin(async move {
            tokio::time::sleep(self.open_handler).await;
            Ok(())
        })
    }
}

impl CursorStore for App {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Position>, String>> {
        Box::pin(async move {
            let loaded = {
                let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
                self.cursor.load(&database).map_err(|error| error.to_string())?
            };
            self.say_taken().map_err(|error| error.to_string())?;
            if let Some(position) = &loaded {
                self.say_position(position);
            }
            Ok(loaded)
        })
    }

    fn save(&mut self, position: Position) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            {
                let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
                self.cursor.store(&database, &position).map_err(|error| error.to_string())?;
            }
            self.say_position(&position);
            Ok(())
        })
    }
}

async fn client(
    live: &Live,
    config: &EventsClientConfig,
    seed: Seed,
    distorted: Distorted,
    voice: Voice,
) -> Result<(), String> {
    let Some(host) = config.base_url.strip_prefix("http://") else {
        return Err(format!("`{}` is no base URL", config.base_url));
    };
    let app = App::open(live, voice.clone()).map_err(|error| error.to_string())?;
    let entropy = seed.stream("client", &live.host, live.life);
    let hurried = hurried(core_config(config), live.speed);
    let core = distorted.client(Client::new(hurried, Box::new(entropy)));
    let application = Application {
        handlers: vec![Box::new(app.clone())],
        open_handlers: vec![Box::new(app.clone())],
        cursor: Box::new(app),
        notices: Box::new(move |notice| voice.did(told(notice))),
    };
    let target = Target { limits: limits(), ..Target::new(host, &config.token) };
    let (_handle, run) =
        client_task(core, TcpConnector::new(host), target, Arc::new(SystemClock), application);
    run.await
}

/// The log in this process.
struct InlineLog(Box<dyn Transact<Command>>);

impl Store<Command> for InlineLog {
    async fn run(&mut self, commands: Vec<Command>) -> Result<Vec<LogReply>, StoreError> {
        self.0.transact(commands)
    }
}

async fn server(
    live: &Live,
    config: &EventsServerConfig,
    seed: Seed,
    distorted: Distorted,
    voice: Voice,
) -> Result<(), String> {
    let options = ServerOptions {
        extension: config.extension,
        ring: config.ring,
        resync_grace_ms: config.resync_grace_ms,
        window_frames: config.window_frames,
        write_stall_ms: config.write_stall_ms,
        silence_ms: config.silence_ms,
        retain_events: config.retain_events,
        page_events: config.page_events,
        commit_ms: 0,
    };
    let path = Path::new(&live.folder).join("log.db");
    let log = open_log_at(path, None, &options, distorted.settings())?;
    let mut tokens = Tokens::default().publisher(&config.publisher_token, "publisher");
    for (agent, token) in &config.agents {
        let agent = AgentId::parse(agent).map_err(|error| error.to_string())?;
        tokens = tokens.subscriber(token, agent);
    }
    let (core, wall) = (configuration(&options), Arc::new(SystemClock));
    let bytes_max = core.event_bytes_max;
    let entropy = distorted.entropy(Box::new(seed.stream("server", &live.host, live.life)));
    let core = distorted.server(Server::new(core, entropy));
    let store = InlineLog(distorted.log(log));
    let (handle, task) = server_task(core, store, wall.clone(), ServerTaskConfig::default());
    let service =
        EventService::new(handle, Arc::new(tokens), wall, limits(), options.extension, bytes_max);
    let failed = |error: io::Error| format!("it cannot listen: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?.to_string();
    voice.did(Effect::ServerListening { address });
    tokio::select! { biased;
        () = task => {}
        () = http::serve(listener, service, HttpConfig::default(), std::future::pending()) => {}
    }
    Ok(())
}
