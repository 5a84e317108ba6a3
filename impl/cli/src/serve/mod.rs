//! `gapless serve`: the three protocols on one port, over databases in one folder.

pub(crate) mod backup;
mod counted;
pub(crate) mod data;
mod metrics;
mod observed;
pub(crate) mod tokens;

use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use gapless::events;
use gapless::events::cluster::{EngineLog, EngineLogConfig};
use gapless::events::server::SharedLog;
use gapless::gateway::Gateway;
use gapless::net::http::{self, HttpConfig, Service};
use gapless::net::{
    Admission, AdmissionConfig, FrameRate, Limits, LingerConfig, Lingering, Origins, SystemClock,
};
use gapless::session;
use gapless::storage::Threaded;
use gapless::tasks;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::backup::Operator;
use self::counted::CountedListener;
use self::data::{DataFolder, EventLog, Stores};
use self::metrics::{Handles, Metrics};
use self::observed::Observed;
use self::tokens::{Stamp, TokenFile, Tokens};
use crate::args::ServeArgs;
use crate::failure::Failure;
use crate::logging::MarkCounts;
use crate::signals::Stop;
use crate::tls::{CertificateFiles, PortListener};
use crate::{engine, entropy, exit, signals};

/// The token file of a data folder that nobody has named.
const TOKENS: &str = "tokens.toml";

/// How many seconds' worth of frames may come at once.
const BURST: NonZeroU32 = NonZeroU32::new(4).expect("not zero");

/// Serves until it is stopped.
pub(crate) async fn run(args: ServeArgs, marks: MarkCounts) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let hang_up = signals::hang_up()?;
    // What is in the folder is its owner's matter: also what SQLite makes.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    allow_descriptors();
    // Before the folder is made: who misspells an address leaves nothing behind.
    let engine = engine::config(&args)?;
    let folder = DataFolder::take(&args.data, "server")?;
    let certificate = certificate(&args)?;
    let (token_path, made) = token_file(&args, &folder)?;
    let seen = Stamp::of(&token_path);
    let tokens = Tokens::new(TokenFile::read(&token_path)?);
    let listener = listen(args.listen).map_err(|error| {
        Failure::new(format!("cannot listen on {}: {error}", args.listen))
            .hint("name another address with `--listen`; with port 0 the system takes a free one")
    })?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::new(format!("the address is not known: {error}")))?;
    let metrics = Arc::new(Metrics::new(&marks));
    let events = events::server::ServerConfig {
        sockets_per_agent_max: args.sockets_per_agent.get(),
        // Real threads pay for each time that they wait for each other; the bounds in bytes hold.
        window_frames: 256,
        page_events: 1_024,
        ..events::server::ServerConfig::default()
    };
    let engine = engine::connect(engine).await?;
    let stores = folder.open(engine, args.retain_events)?;
    let backups = folder.file(backup::FOLDER);
    let (limits, admission) = (limits(&args), admission(&args));
    let server =
        Server::start(stores, backups, events, &tokens, metrics.clone(), limits, admission)?;

    let (shutdown, stopped) = oneshot::channel::<()>();
    let listener = PortListener::new(listener, certificate, metrics.handshake_failures.clone())?;
    let listener = Lingering::new(listener, LingerConfig::default());
    let lingerers = listener.lingerers().clone();
    let listener = CountedListener {
        inner: listener,
        received: metrics.received_bytes.clone(),
        sent: metrics.sent_bytes.clone(),
    };
    let stopped = async { drop(stopped.await) };
    let service = server.service.clone();
    let http = HttpConfig { connections_max: args.max_connections, ..HttpConfig::default() };
    let serving = http::serve_and_drain(listener, service, http, stopped, args.drain);
    let serving = tokio::spawn(serving);
    let mut background = server.background;
    background.spawn(tokens::reload(token_path, seen, hang_up, tokens, metrics));
    announce(address, &args, &made);
    let shared = args.log.as_ref().map(|_| args.log_stream.as_str());
    tracing::info!(%address, data = %args.data.display(), shared_log = shared, "serving");

    let signal = tokio::select! { biased;
        signal = stop.asked() => signal,
        ended = background.join_next() => {
            let problem = match ended {
                Some(Err(error)) => error.to_string(),
                Some(Ok(())) | None => "it ended".to_owned(),
            };
            return Err(Failure::new(format!("a part of the server is gone: {problem}"))
                .hint("start the server again; what was acknowledged is in the databases"));
        }
    };
    tracing::info!(signal, limit = ?args.drain, "draining");
    drop(shutdown);
    let Handles { events, tasks, sessions } = &*server.service.handles;
    let drained = async {
        let (served, (), (), ()) =
            tokio::join!(serving, events.drain(), tasks.drain(), sessions.drain());
        if let Err(error) = served {
            tracing::error!(%error, "the listener broke");
        }
        lingerers.none().await;
    };
    tokio::select! { biased;
        () = drained => tracing::info!("drained"),
        () = tokio::time::sleep(args.drain) => {
            tracing::warn!("not everything had come to its end; it is dropped");
        }
        signal = stop.asked() => tracing::warn!(signal, "draining was cut short"),
    }
    Ok(exit::OK)
}

/// How many connections may wait for being accepted; the system may allow fewer. When a server was
/// away, its clients come back at once, and whoever finds no room comes again a second later.
const BACKLOG: u32 = 4_096;

/// Takes the address.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of the process before may not have ended.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What may come on one WebSocket.
fn limits(args: &ServeArgs) -> Limits {
    let per_second = args.max_frame_rate;
    let burst = per_second.saturating_mul(BURST);
    Limits { frame_rate: Some(FrameRate { per_second, burst }), ..Limits::default() }
}

/// Who may open WebSockets, and how many.
fn admission(args: &ServeArgs) -> Admission {
    let origins = args.allow_origin.as_ref().map(|list| list.0.clone()).unwrap_or_default();
    Admission::new(AdmissionConfig {
        origins: Origins::SameHostAnd(origins),
        sockets_max: args.max_connections,
        sockets_per_principal_max: args.max_connections_per_principal,
        ..AdmissionConfig::default()
    })
}

/// Takes as many descriptors as the system lets it have: each connection is one.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// The files for TLS, if it is wanted.
fn certificate(args: &ServeArgs) -> Result<Option<CertificateFiles>, Failure> {
    match (args.tls_cert.clone(), args.tls_key.clone()) {
        (Some(chain), Some(key)) => Ok(Some(CertificateFiles { chain, key })),
        (None, None) => Ok(None),
        _ => Err(Failure::usage("TLS needs both `--tls-cert` and `--tls-key`")),
    }
}

/// The token file, and what was made because there was none.
fn token_file(args: &ServeArgs, folder: &DataFolder) -> Result<(PathBuf, Vec<PathBuf>), Failure> {
    let path = match &args.tokens {
        Some(path) => return Ok((path.clone(), vec![])),
        None => folder.file(TOKENS),
    };
    if path.exists() {
        return Ok((path, vec![]));
    }
    if !args.listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "without a token file it does not listen on {}, where others can come in",
            args.listen.ip()
        ))
        .hint(
            "name a token file with `--tokens`, or start once on a loopback address to have one made",
        ));
    }
    let made = tokens::make(&path)?;
    Ok((path, made))
}

/// Says what there is, one line for each.
fn announce(address: SocketAddr, args: &ServeArgs, made: &[PathBuf]) {
    let (http, ws) = match args.tls_cert {
        Some(_) => ("https", "wss"),
        None => ("http", "ws"),
    };
    let mut lines = format!(
        "listening on {http}://{address}/v1/agents/AGENT/events to publish\n\
         listening on {ws}://{address}/v1/ws for subscribers\n\
         listening on {http}://{address}/v1/tasks to submit tasks\n\
         listening on {ws}://{address}/api/v1/agents/ws for agents that run tasks\n\
         listening on {ws}://{address}/ws for sessions\n\
         listening on {http}://{address}/v1/backups/NAME for backups\n\
         listening on {http}://{address}/healthz and /metrics\n"
    );
    for path in made {
        lines += &format!("made a token: {}\n", path.display());
    }
    let user = args.data.join("user.token");
    let token = match args.tokens.is_none() && user.exists() {
        true => format!("$(cat {})", user.display()),
        false => "TOKEN".to_owned(),
    };
    lines += &format!("demo: {http}://{address}/?token={token}\n");
    // Whoever does not read it has no use for it.
    let _ = std::io::stdout().write_all(lines.as_bytes());
}

/// The three servers, and what runs them.
struct Server {
    service: HttpService,
    background: JoinSet<()>,
}

impl Server {
    fn start(
        stores: Stores,
        backups: PathBuf,
        config: events::server::ServerConfig,
        tokens: &Tokens,
        metrics: Arc<Metrics>,
        limits: Limits,
        admission: Admission,
    ) -> Result<Self, Failure> {
        let thread = |error| Failure::new(format!("a database gets no thread: {error}"));
        let Stores { log, record, conversations } = stores;
        let (record, tasks_backups) = Threaded::spawn_with_backups(record).map_err(thread)?;
        let (conversations, sessions_backups) =
            Threaded::spawn_with_backups(conversations).map_err(thread)?;
        let wall = Arc::new(SystemClock);
        let mut background = JoinSet::new();

        let (extension, event_bytes_max) = (config.extension, config.event_bytes_max);
        let shared = matches!(log, EventLog::Shared(_)).then(SharedLog::default);
        let config = events::server::ServerConfig { shared, ..config };
        let core = events::server::Server::new(config, entropy()?);
        let core = Observed { core, metrics: metrics.clone() };
        let task_config = events::driver::ServerTaskConfig::default();
        let (events_handle, events_backups) = match log {
            EventLog::Own(log) => {
                let (log, backups) = Threaded::spawn_with_backups(*log).map_err(thread)?;
                let (handle, task) = events::driver::server(core, log, wall.clone(), task_config);
                background.spawn(task);
                (handle, Some(backups))
            }
            EventLog::Shared(engine) => {
                let prefix = engine.name().to_owned();
                let config = EngineLogConfig { prefix, ..EngineLogConfig::default() };
                let (log, follower) = EngineLog::new(*engine, config, entropy()?);
                let (handle, task) =
                    events::driver::shared_server(core, log, follower, wall.clone(), task_config);
                background.spawn(task);
                (handle, None)
            }
        };
        let operator =
            Operator::new(tokens.clone(), backups, events_backups, tasks_backups, sessions_backups);
        let events = events::driver::EventService::new(
            events_handle.clone(),
            tokens.for_events(),
            wall.clone(),
            limits,
            extension,
            event_bytes_max,
        )
        .with_admission(admission.clone());

        let config = tasks::controller::ControllerConfig::default();
        let (tasks_handle, task) = tasks::driver::controller(
            tasks::controller::Controller::new(config, entropy()?),
            record,
            wall.clone(),
            // A notice may have the text of a command in it, which is no matter of the log.
            Box::new(|_| {}),
            tasks::driver::ControllerTaskConfig::default(),
        );
        background.spawn(task);
        let tasks = tasks::driver::ControllerService::new(
            tasks_handle.clone(),
            tokens.for_tasks(),
            Arc::new(tokens.clone()),
            wall,
            limits,
        )
        .with_admission(admission.clone());

        let config = session::server::ServerConfig::default();
        let extension = config.extension;
        let show_all = Box::new(session::server::ShowAll);
        let (sessions_handle, task) = session::driver::server(
            session::server::Server::new(config, show_all, entropy()?),
            conversations,
            Arc::new(session::demo::Demo),
            session::driver::ServerTaskConfig::default(),
        );
        background.spawn(task);
        let sessions = session::driver::SessionService::new(
            sessions_handle.clone(),
            tokens.for_sessions(),
            limits,
            extension,
        )
        .with_admission(admission)
        .with_page(session::web::PAGE);

        let handles =
            Handles { events: events_handle, tasks: tasks_handle, sessions: sessions_handle };
        let gateway = Gateway { events, tasks, sessions };
        let handles = Arc::new(handles);
        let service = HttpService { gateway, operator, metrics, handles };
        Ok(Self { service, background })
    }
}

/// The protocols, what an operator asks for, and `/metrics`.
#[derive(Clone)]
struct HttpService {
    gateway: Gateway,
    operator: Operator,
    metrics: Arc<Metrics>,
    handles: Arc<Handles>,
}

impl Service for HttpService {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let response = self.answer(request).await;
        self.metrics.response(response.status().as_u16());
        response
    }
}

impl HttpService {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let route = |route: &'static str| {
            tracing::Span::current().record("route", route);
        };
        if request.uri().path().starts_with(backup::PATH) {
            route("/v1/backups/{name}");
            return self.operator.call(&request).await;
        }
        if (request.method(), request.uri().path()) != (&Method::GET, "/metrics") {
            return self.gateway.call(request).await;
        }
        route("/metrics");
        let mut response = Response::new(Full::new(self.metrics.text(&self.handles).into()));
        let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }
}
