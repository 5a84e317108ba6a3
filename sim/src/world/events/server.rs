//! The server's host: the production server on turmoil's network and disk.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gapless::events::AgentId;
use gapless::events::driver::{
    EventService, ServerHandle, ServerTaskConfig, server as server_task,
};
use gapless::events::log::{Appended, Command, Read, Reply};
use gapless::events::server::{Server, ServerConfig};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::events::wire::EventBody;
use gapless::net::http::{self, HttpConfig};
use gapless::net::{Listener, Tokens, WallClock};
use gapless::recovery::RingLimits;
use gapless::storage::{Store, StoreCommand as _, StoreError, Transact};
use tokio::sync::mpsc;
use turmoil::net::TcpListener;

use crate::chain::Digest;
use crate::history::{LogState, Seen};
use crate::mutants::{Distorted, Settings};
use crate::plan::{ServerOptions, Topology};
use crate::trace::{Fact, Kind};
use crate::world::disk::{VFS_NAME, create_dir};
use crate::world::host::Process;
use crate::world::limits;
use crate::world::link::PORT;
use crate::world::record::Recorder;
use crate::world::traced::TracedListener;
use crate::world::vault::{CopyName, Vault};

/// What the world tells a running server.
#[derive(Debug)]
pub(crate) enum Order {
    /// Forget what is below this number of an agent's stream.
    Retain { agent: AgentId, oldest: u64 },
    /// Copy the log, as a snapshot of the volume does.
    Backup,
}

/// What the copies of the log held, over the lives of the server.
#[derive(Clone, Default)]
pub(crate) struct Copies(Arc<Mutex<CopiesState>>);

#[derive(Default)]
struct CopiesState {
    copies: BTreeMap<CopyName, LogCopy>,
    /// The copy that has taken the place of the log, as long as the history does not say so.
    untold: Option<LogCopy>,
}

/// What a copy of the log held.
#[derive(Clone, Default)]
struct LogCopy {
    /// The branch of the log's history.
    branch: usize,
    /// What the log had acknowledged, per agent.
    heads: BTreeMap<u32, u64>,
}

impl Copies {
    fn state(&self) -> MutexGuard<'_, CopiesState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the copy that is due.
    pub(super) fn back_up_if_due(
        &self,
        process: &Process,
        vault: &Vault,
        topology: &Topology,
    ) -> io::Result<()> {
        let Some(name) = vault.back_up_if_due(process, LOG)? else { return Ok(()) };
        let heads: BTreeMap<_, _> =
            (1..=topology.agents).map(|agent| (agent, process.recorder.head(agent))).collect();
        process.record(Kind::Store, format_args!("the log is copied: {heads:?}"));
        let branch = process.recorder.branch();
        self.state().copies.insert(name, LogCopy { branch, heads });
        Ok(())
    }

    /// What is to be done while the server is down.
    pub(super) fn before_start(
        &self,
        process: &Process,
        vault: &Vault,
        topology: &Topology,
    ) -> io::Result<()> {
        // Opening the log takes what is in the files for true.
        vault.state().unsettled = false;
        self.back_up_if_due(process, vault, topology)?;
        if let Some(by) = vault.replace_if_due(process, LOG)? {
            let mut state = self.state();
            let copy = state.copies.get(&by).cloned().unwrap_or_default();
            state.untold = Some(copy);
        }
        Ok(())
    }

    /// Tells that a copy has taken the place of the log, if one has; the log is at `streams` now.
    pub(super) fn tell_replaced(&self, recorder: &Recorder, streams: &[LogState]) {
        let Some(copy) = self.state().untold.take() else { return };
        gapless::mark!("world.log_replaced");
        // What a commit left behind that was refused is no part of what was copied.
        let streams = streams.iter().map(|state| LogState {
            head: state.head.min(copy.heads.get(&state.agent).copied().unwrap_or(0)),
            ..*state
        });
        let what = Seen::LogReplaced { parent: copy.branch, streams: streams.collect() };
        recorder.see(what);
    }
}

/// Where the log is.
pub(super) const LOG: &str = "/data/log.db";

/// The name of an agent.
pub(crate) fn agent_id(agent: u32) -> AgentId {
    AgentId::parse(&format!("agent-{agent}")).expect("a fixed pattern")
}

/// The token of an agent.
pub(crate) fn agent_token(agent: u32) -> String {
    format!("at_live_{agent}")
}

/// The token of the publishers.
pub(crate) const PUBLISHER_TOKEN: &str = "pt_live_1";

fn open_log(
    process: &Process,
    options: &ServerOptions,
    settings: Settings,
) -> Result<SqliteLog, String> {
    create_dir("/data").map_err(|error| error.to_string())?;
    open_log_at(process.disk.path(LOG), Some(VFS_NAME), options, settings)
}

/// Opens the log in a file.
///
/// # Errors
///
/// A sentence.
pub(crate) fn open_log_at(
    path: impl Into<PathBuf>,
    vfs: Option<&str>,
    options: &ServerOptions,
    settings: Settings,
) -> Result<SqliteLog, String> {
    let mut config = LogConfig::new(path);
    config.vfs = vfs.map(str::to_owned);
    config.retain_events = options.retain_events;
    config.synchronous = settings.synchronous;
    config.page_bytes = Some(super::PAGE_BYTES);
    SqliteLog::open(config).map_err(|error| error.to_string())
}

/// Tells the world what the log holds: a commit whose machine lost power may or may not be in it.
pub(crate) fn tell_heads(
    log: &mut SqliteLog,
    process: &Process,
    topology: &Topology,
    copies: &Copies,
) -> Result<(), String> {
    let streams = streams(log, topology)?;
    copies.tell_replaced(&process.recorder, &streams);
    for state in streams {
        process.recorder.stored(state.agent, state.head);
        process.recorder.retained(state.agent, state.oldest);
        let after = process.recorder.chained(state.agent);
        for (sequence, body) in read(log, state.agent, after, state.head)? {
            let key = super::publisher::key_of(body.as_str());
            process.recorder.appended(state.agent, sequence, key, Digest::of_body(&body));
        }
    }
    Ok(())
}

/// How far the log goes, per agent.
fn streams(log: &mut SqliteLog, topology: &Topology) -> Result<Vec<LogState>, String> {
    let mut streams = Vec::new();
    for agent in 1..=topology.agents {
        let replies =
            log.transact(vec![Command::Load { agent: agent_id(agent), confirmed: false }]);
        if let Some(Reply::Loaded(state)) = replies.map_err(|error| error.to_string())?.pop() {
            streams.push(LogState { agent, oldest: state.oldest, head: state.head });
        }
    }
    Ok(streams)
}

/// The events of a stream above a number.
fn read(
    log: &mut SqliteLog,
    agent: u32,
    after: u64,
    to: u64,
) -> Result<Vec<(u64, EventBody)>, String> {
    let (count_max, bytes_max) = (usize::MAX, usize::MAX);
    let read = Read { agent: agent_id(agent), after, to, count_max, bytes_max };
    let replies = log.transact(vec![Command::Read(read)]).map_err(|error| error.to_string())?;
    Ok(replies
        .into_iter()
        .flat_map(|reply| match reply {
            Reply::Page(page) => page,
            _ => Vec::new(),
        })
        .collect())
}

/// How long a server that cannot open its log waits before it tries again.
const OPEN_RETRY: Duration = Duration::from_secs(1);

/// One life of the server.
pub(crate) async fn serve(
    process: Process,
    topology: &Topology,
    options: &ServerOptions,
    distorted: Distorted,
    orders: mpsc::UnboundedReceiver<Order>,
    vault: Vault,
    copies: Copies,
) -> turmoil::Result {
    process.boot().await;
    copies.before_start(&process, &vault, topology)?;
    let log = loop {
        match open_log(&process, options, distorted.settings()).and_then(|mut log| {
            tell_heads(&mut log, &process, topology, &copies)?;
            Ok(log)
        }) {
            Ok(log) => break log,
            Err(problem) => {
                process.powered().await;
                process.record(Kind::Store, format_args!("the log cannot be opened: {problem}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    };
    let listener = TracedListener {
        listener: TcpListener::bind(("0.0.0.0", PORT)).await?,
        process: process.clone(),
    };
    let wall = Arc::new(process.clock.clone());
    let life = Life { process, topology, options, distorted, orders, vault, copies };
    life.run(log, wall, listener).await;
    Ok(())
}

/// What the options say to a server.
pub(crate) fn configuration(options: &ServerOptions) -> ServerConfig {
    ServerConfig {
        extension: options.extension,
        ring: RingLimits { count: options.ring, ..ServerConfig::default().ring },
        resync_grace: Duration::from_millis(options.resync_grace_ms),
        window_frames: options.window_frames,
        write_stall: Duration::from_millis(options.write_stall_ms),
        silence: Duration::from_millis(options.silence_ms),
        page_events: options.page_events,
        ..ServerConfig::default()
    }
}

/// What a life of the server is given.
pub(crate) struct Life<'a> {
    pub(crate) process: Process,
    pub(crate) topology: &'a Topology,
    pub(crate) options: &'a ServerOptions,
    pub(crate) distorted: Distorted,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) vault: Vault,
    pub(crate) copies: Copies,
}

impl Life<'_> {
    /// Serves what the listener accepts, until the core ends.
    pub(crate) async fn run(
        self,
        log: SqliteLog,
        wall: Arc<dyn WallClock>,
        listener: impl Listener,
    ) {
        let Self { process, topology, options, distorted, mut orders, vault, copies } = self;
        let config = configuration(options);
        let tokens = (1..=topology.agents)
            .fold(Tokens::default().publisher(PUBLISHER_TOKEN, "publisher"), |tokens, agent| {
                tokens.subscriber(&agent_token(agent), agent_id(agent))
            });
        let store = InlineLog {
            log: distorted.log(log),
            process: process.clone(),
            commit: Duration::from_millis(options.commit_ms),
            vault: vault.clone(),
            copies: copies.clone(),
            topology: topology.clone(),
        };
        let bytes_max = config.event_bytes_max;
        let entropy = distorted.entropy(Box::new(process.entropy("server")));
        let core = distorted.server(Server::new(config, entropy));
        let (handle, task) = server_task(core, store, wall.clone(), ServerTaskConfig::default());
        let service = EventService::new(
            handle.clone(),
            Arc::new(tokens),
            wall,
            limits(),
            options.extension,
            bytes_max,
        );
        let http = HttpConfig { date_header: false, ..HttpConfig::default() };
        let never = std::future::pending();
        tokio::select! { biased;
            () = task => {}
            () = http::serve(listener, service, http, never) => {}
            () = obey(&handle, &mut orders, &vault, &copies, &process, topology) => {}
        }
    }
}

async fn obey(
    handle: &ServerHandle,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    vault: &Vault,
    copies: &Copies,
    process: &Process,
    topology: &Topology,
) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Retain { agent, oldest } => handle.retain(agent, oldest).await,
            Order::Backup => {
                if let Err(error) = copies.back_up_if_due(process, vault, topology) {
                    process.record(Kind::Store, format_args!("the log cannot be copied: {error}"));
                }
            }
        }
    }
    std::future::pending().await
}

/// Reads what the log holds at the end of a run.
pub(crate) async fn inspect(
    process: Process,
    topology: &Topology,
    options: &ServerOptions,
    copies: &Copies,
) -> turmoil::Result {
    process.boot().await;
    let mut log = open_log(&process, options, Settings::default())?;
    // The server may have died before it could tell.
    copies.tell_replaced(&process.recorder, &streams(&mut log, topology)?);
    look_into(log, &process, topology)?;
    Ok(())
}

/// Tells the world what a log holds at the end.
///
/// # Errors
///
/// A sentence, if it cannot be read.
pub(crate) fn look_into(
    mut log: SqliteLog,
    process: &Process,
    topology: &Topology,
) -> Result<(), String> {
    for LogState { agent, oldest, head } in streams(&mut log, topology)? {
        // A commit whose sync failed is rolled back, and may come back when the log is opened anew,
        // as it was just now. No server that runs has it, so nobody is owed it.
        let head = head.min(process.recorder.head(agent));
        process.recorder.see(Seen::LogEnd { agent, oldest, head });
        for (sequence, body) in read(&mut log, agent, oldest - 1, head)? {
            let key = super::publisher::key_of(body.as_str()).unwrap_or_default();
            process.recorder.see(Seen::Stored { agent, sequence, key });
        }
    }
    Ok(())
}

/// The log on the simulation's own thread, with the virtual time that a disk would take.
struct InlineLog {
    log: Box<dyn Transact<Command>>,
    process: Process,
    commit: Duration,
    vault: Vault,
    copies: Copies,
    topology: Topology,
}

impl Store<Command> for InlineLog {
    async fn run(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let wanted: Vec<String> = commands.iter().map(describe).collect();
        let agents: Vec<Option<u32>> = commands.iter().map(changes).collect();
        let writes = commands.iter().any(|command| !command.is_read_only());
        let result = self.log.transact(commands);
        for reply in result.iter().flatten() {
            if let Reply::EpochOpened(epoch) = reply {
                self.process.recorder.see(Seen::EpochOpened { epoch: epoch.to_string() });
            }
        }
        let appended = result.iter().flatten().any(|reply| matches!(reply, Reply::Appended(_)));
        let mut work = Vec::new();
        for (agent, reply) in agents.into_iter().zip(result.iter().flatten()) {
            match (agent, reply) {
                (Some(agent), Reply::Appended(Appended::New { sequence, body, oldest })) => {
                    let key = super::publisher::key_of(body.as_str());
                    work.extend(key.clone());
                    self.process.recorder.appended(agent, *sequence, key, Digest::of_body(body));
                    self.process.recorder.stored(agent, *sequence);
                    self.process.recorder.retained(agent, *oldest);
                }
                (Some(agent), Reply::Retained(oldest)) => {
                    self.process.recorder.retained(agent, *oldest);
                }
                _ => {}
            }
        }
        if writes {
            self.vault.state().unsettled = matches!(result, Err(StoreError::Unknown(_)));
            let copies = &self.copies;
            if let Err(error) = copies.back_up_if_due(&self.process, &self.vault, &self.topology) {
                let text = format!("the log cannot be copied: {error}");
                self.process.record(Kind::Store, text);
            }
        }
        let outcome = match &result {
            Ok(replies) => replies.iter().filter_map(describe_reply).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        };
        let text = format!(
            "log: {}{}{outcome}",
            wanted.join(", "),
            if outcome.is_empty() { "" } else { " = " }
        );
        self.process.record_fact(Kind::Store, text, Fact::Work(work));
        self.process.powered().await;
        if appended {
            gapless::mark!("world.committed");
        }
        self.vault.state().committed = appended;
        let slow = self.vault.state().slow;
        tokio::time::sleep(slow.unwrap_or(self.commit)).await;
        self.vault.state().committed = false;
        result
    }
}

/// The number of the agent whose stream the command changes.
fn changes(command: &Command) -> Option<u32> {
    let agent = match command {
        Command::Append(append) => &append.agent,
        Command::Retain { agent, .. } => agent,
        _ => return None,
    };
    agent.as_str().strip_prefix("agent-")?.parse().ok()
}

fn describe(command: &Command) -> String {
    match command {
        Command::OpenEpoch { proposed, .. } => format!("open epoch {}", &proposed.as_str()[..8]),
        Command::Load { agent, .. } => format!("load {agent}"),
        Command::Append(append) => format!("append to {}", append.agent),
        Command::Read(read) => format!("read {} {}..={}", read.agent, read.after + 1, read.to),
        Command::FindSince(agent, since) => format!("find {agent} since {}", since.to_rfc3339()),
        Command::Retain { agent, oldest } => format!("keep {agent} from {oldest}"),
    }
}

fn describe_reply(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Appended(Appended::New { sequence, .. }) => Some(format!("{sequence}")),
        Reply::Appended(Appended::Existing { sequence, .. }) => Some(format!("{sequence} already")),
        Reply::Appended(other) => Some(format!("{other:?}")),
        Reply::Page(page) => Some(format!("{} events", page.len())),
        Reply::Loaded(state) => Some(format!("{}..={}", state.oldest, state.head)),
        Reply::Since(first) => Some(format!("{first:?}")),
        Reply::Retained(oldest) => Some(format!("from {oldest}")),
        Reply::EpochOpened(_) => None,
        Reply::Failed(error) => Some(error.to_string()),
    }
}
