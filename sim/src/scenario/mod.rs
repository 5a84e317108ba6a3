//! Scenarios: one TOML file each; its path under `scenarios/` is its permanent id.
//!
//! A file says what is to happen ([`Step`]s), what a seed may add ([`Swarm`]), which statements of
//! the specification it is about, and which marks a run must reach to count. Reading is strict:
//! every problem of a file is reported, at its place and with its remedy ([`Invalid`]).

mod draw;
mod examples;
mod library;
mod reader;
mod schema;
mod step;
mod writer;

use miette::{Diagnostic, NamedSource, SourceSpan};

pub use draw::{draw, redraw};
pub use library::{Library, LibraryError};
pub(crate) use reader::{Problems, Table, document, nearest, parse_duration};
pub use schema::reference;
pub(crate) use writer::{action as action_text, duration as duration_text};

use self::reader::DURATION_MS_MAX;
use self::step::{End, Hosts};
use crate::check;
use crate::custom::{self, Custom};
use crate::mutants::catalogue;
use crate::plan::{
    Action, AgentOptions, ClientOptions, ControllerOptions, Fault, Host, Options, Protocol,
    SERVERS_MAX, ServerOptions, SessionClientOptions, SessionServerOptions, Step, Topology, When,
};
use crate::seed::Seed;
use crate::spec::is_id;

/// A scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its path under `scenarios/`, without `.toml`.
    pub id: String,
    /// What it shows, as a sentence.
    pub title: String,
    /// The statements of the specification that it is about.
    pub statements: Vec<String>,
    /// Where it comes from: names of public defects and of other catalogues.
    pub reference: Vec<String>,
    /// The marks that a run must reach to count; of a swarm, that its sweep must reach.
    pub reaches: Vec<String>,
    /// When the faults end.
    pub duration_ms: u64,
    /// How long after healing everything may take to arrive.
    pub settle_ms: u64,
    /// How much virtual time one step of the world is.
    pub tick_ms: u64,
    /// The hosts and the network between them.
    pub topology: Topology,
    /// The protocol that it is about, with the options of both sides.
    pub options: Options,
    /// What happens.
    pub steps: Vec<Step>,
    /// What a seed adds.
    pub swarm: Option<Swarm>,
    /// Where it was found, if it is a plan that was frozen.
    pub frozen: Option<Frozen>,
}

/// Where a scenario comes from that was found by a seed instead of being made up.
///
/// Nobody chose its times, so a fault may go on after the end: everything heals there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// The seed under which it failed.
    pub seed: Seed,
    /// The known-bad variant with which it failed; absent = the implementation as it was.
    pub mutant: Option<String>,
    /// The checker that said so.
    pub checker: String,
    /// What the checker said.
    pub shows: String,
}

/// What a seed adds to a scenario. It also draws the options of both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swarm {
    /// The groups of faults that may occur.
    pub groups: Vec<Group>,
    /// How many clients there are, at least and at most; with tasks, agents.
    pub clients: (u32, u32),
    /// How many agents there are, at least and at most; with tasks, as many as clients; with
    /// sessions, users.
    pub agents: (u32, u32),
    /// How many servers there are, at least and at most.
    pub servers: (u32, u32),
    /// How many faults there are, at least and at most.
    pub faults_per_minute: (u32, u32),
    /// How many events are published, tasks submitted, or messages said, at least and at most.
    pub work_per_minute: (u32, u32),
}

/// A group of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Connections and what lies under them.
    Link,
    /// Processes that die.
    Process,
    /// The state of the server.
    Server,
    /// Frames that a peer should not have sent, or did not.
    Peer,
    /// The application and its machine.
    Application,
    /// The disks under the log and under the applications.
    Disk,
    /// Wall clocks.
    Clock,
    /// The engine under the log of several servers, and the way to it.
    Engine,
}

/// A file is no scenario. Every problem is listed, with its place and its remedy.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("scenario `{id}` cannot be used")]
pub struct Invalid {
    id: String,
    #[source_code]
    file: NamedSource<String>,
    #[related]
    problems: Vec<Problem>,
}

impl Invalid {
    /// What is wrong, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Where.
    #[label("{label}")]
    pub span: SourceSpan,
    /// What stands there.
    pub label: String,
    /// What to do about it.
    #[help]
    pub remedy: String,
}

/// The most connections in a row that a client opens to one server.
const STAYS_MAX: u64 = 1_000;

/// The most clients that a world has.
const CLIENTS_MAX: u32 = 4;

impl Scenario {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// [`Invalid`], with every problem of the file.
    pub fn parse(id: &str, text: &str) -> Result<Self, Invalid> {
        let problems = Problems::default();
        let scenario = reader::document(text, &problems)
            .and_then(|document| read(id, &Table::root(&document, text, &problems)));
        let mut problems = problems.into_inner();
        match scenario {
            Some(scenario) if problems.is_empty() => Ok(scenario),
            _ => {
                problems.sort_by_key(|problem| problem.span.offset());
                let file = NamedSource::new(format!("scenarios/{id}.toml"), text.to_owned());
                Err(Invalid { id: id.to_owned(), file: file.with_language("TOML"), problems })
            }
        }
    }
}

/// Reads what it can; `None` if something without which there is no scenario is missing. Problems
/// go where the table says.
fn read(id: &str, root: &Table<'_>) -> Option<Scenario> {
    let title = root.text("title");
    if let Some((title, span)) = &title
        && title.trim().is_empty()
    {
        root.problem(
            "a scenario needs a title",
            span,
            "empty",
            "say in one sentence what it shows",
        );
    }
    let mut protocols = vec![
        ("events", Protocol::Events),
        ("tasks", Protocol::Tasks),
        ("session", Protocol::Session),
    ];
    let brought = custom::registered().into_iter();
    protocols.extend(brought.map(|protocol| (protocol.name(), Protocol::Custom(protocol))));
    let known = root.one_of("protocol", &protocols);
    let protocol = known.unwrap_or(Protocol::Events);
    let statements = root.texts("statements");
    for (statement, span) in &statements {
        // Those of a protocol that was brought are its own.
        if !is_id(statement) && !matches!(protocol, Protocol::Custom(_)) {
            root.problem(
                format!("`{statement}` is no statement"),
                span,
                "not the form of a statement",
                "statements are written `CORE-5`, `EV-12` or `EV-5a`; see docs/spec",
            );
        }
    }
    let reference = root.texts("reference");
    let marks = gapless::marks::all();
    let reaches = root.texts("reaches");
    for (mark, span) in &reaches {
        reader::known_mark(root, mark, span, &marks);
    }
    // What is wrong is taken for the largest, so that nothing else is called wrong because of it.
    let duration_ms = match root.duration_above_zero("duration") {
        Some((duration, _)) => duration,
        None if root.has("duration") => DURATION_MS_MAX,
        None => 60_000,
    };
    let settle_ms = root.duration("settle").map_or(60_000, |(settle, _)| settle);
    let tick_ms = match root.duration("tick") {
        Some((tick, span)) if !(1..=100).contains(&tick) => {
            let remedy = "a tick is between 1ms and 100ms; 5ms is usual";
            root.problem("the tick is out of range", &span, "this tick", remedy);
            5
        }
        Some((tick, _)) => tick,
        None => 5,
    };
    let topology = topology(protocol, root.table("topology").as_ref());
    let sides = match protocol {
        Protocol::Events | Protocol::Session | Protocol::Custom(_) => ["server", "client"],
        Protocol::Tasks => ["controller", "agent"],
    };
    let options = match protocol {
        Protocol::Events => Options::Events {
            server: server_options(root.table("server").as_ref()),
            client: client_options(root.table("client").as_ref()),
        },
        Protocol::Tasks => Options::Tasks {
            controller: controller_options(root.table("controller").as_ref()),
            agent: agent_options(root.table("agent").as_ref()),
        },
        Protocol::Session => Options::Session {
            server: session_server_options(root.table("server").as_ref()),
            client: session_client_options(root.table("client").as_ref()),
        },
        Protocol::Custom(protocol) => own_options(protocol, root),
    };
    let swarm = root.table("swarm").map(|table| swarm(protocol, &table));
    for key in sides {
        if let Some(table) = root.table(key).filter(|_| root.has("swarm")) {
            let remedy = "take the table out: each seed draws these options";
            root.problem(
                format!("a swarm has no `[{key}]`"),
                &table.span(),
                "has no effect",
                remedy,
            );
        }
    }
    let frozen = root.table("frozen").map(|table| {
        if root.has("swarm") {
            let remedy = "take one of them out: a frozen plan has nothing to draw";
            table.problem("a swarm is not frozen", &table.span(), "of a swarm", remedy);
        }
        frozen(&table, protocol)
    });
    let tables = root.tables("step");
    let may_be_empty = root.has("swarm") || root.has("frozen");
    if tables.as_ref().is_some_and(Vec::is_empty) && !may_be_empty {
        root.problem(
            "nothing happens in this scenario",
            &(0..0),
            "no `[[step]]` and no `[swarm]`",
            "add a `[[step]]` with work and one with a fault",
        );
    }
    let steps = steps(
        &tables.unwrap_or_default(),
        &hosts(protocol, &topology, swarm.as_ref()),
        if frozen.is_some() { End::Open } else { End::At(duration_ms) },
        duration_ms,
        &marks,
        swarm.as_ref(),
    );
    root.finish();
    Some(Scenario {
        id: id.to_owned(),
        title: title?.0,
        statements: statements.into_iter().map(|(statement, _)| statement).collect(),
        reference: reference.into_iter().map(|(reference, _)| reference).collect(),
        reaches: reaches.into_iter().map(|(mark, _)| mark).collect(),
        duration_ms,
        settle_ms,
        tick_ms,
        topology,
        options: known.map(|_| options)?,
        steps,
        swarm,
        frozen: match frozen {
            Some(frozen) => Some(frozen?),
            None => None,
        },
    })
}

fn frozen(table: &Table<'_>, protocol: Protocol) -> Option<Frozen> {
    let seed = table.text("seed").and_then(|(text, span)| match text.parse::<Seed>() {
        Ok(seed) => Some(seed),
        Err(error) => {
            table.problem(error.to_string(), &span, "no seed", "write it as `\"42\"`");
            None
        }
    });
    let mutants: Vec<_> = catalogue().map(|mutant| (mutant.id, mutant.id)).collect();
    let mutant = table.one_of_optional("mutant", &mutants);
    let checkers: Vec<_> =
        check::of(protocol).into_iter().map(|checker| (checker.name, checker.name)).collect();
    let checker = table.one_of("checker", &checkers);
    let shows = table.text("shows");
    table.finish();
    Some(Frozen {
        seed: seed?,
        mutant: mutant.map(str::to_owned),
        checker: checker?.to_owned(),
        shows: shows?.0,
    })
}

/// The options of a protocol that the user brought: as they are by default, but for what stands here.
fn own_options(protocol: Custom, root: &Table<'_>) -> Options {
    let mut sides = protocol.options();
    for (key, options) in [("server", &mut sides.server), ("client", &mut sides.client)] {
        if let Some(table) = root.table(key) {
            table.set_json(options);
        }
    }
    protocol.with(sides)
}

fn topology(protocol: Protocol, table: Option<&Table<'_>>) -> Topology {
    let mut topology = Topology::default();
    let Some(table) = table else { return topology };
    let count = |key| {
        let (number, span) = table.integer(key, 1..=u64::from(CLIENTS_MAX))?;
        Some((u32::try_from(number).ok()?, span))
    };
    let (agents, what) = followed(protocol);
    if protocol == Protocol::Tasks {
        match count("agents") {
            Some((agents, _)) => (topology.clients, topology.agents) = (agents, agents),
            None if table.has("agents") => {
                (topology.clients, topology.agents) = (CLIENTS_MAX, CLIENTS_MAX);
            }
            None => {}
        }
        network(&mut topology, protocol, table);
        return topology;
    }
    match count("clients") {
        Some((clients, _)) => topology.clients = clients,
        None if table.has("clients") => topology.clients = CLIENTS_MAX,
        None => {}
    }
    if let Protocol::Custom(_) = protocol {
        network(&mut topology, protocol, table);
        return topology;
    }
    if protocol == Protocol::Events {
        if let Some((servers, _)) = table.integer("servers", 1..=u64::from(SERVERS_MAX)) {
            topology.servers = u32::try_from(servers).unwrap_or(1);
        }
        if let Some((stays, _)) = table.integer("stays", 1..=STAYS_MAX) {
            topology.stays = u32::try_from(stays).unwrap_or(1);
        }
    }
    match count(agents) {
        Some((count, span)) if count > topology.clients => {
            let remedy = format!("each {what}; raise `clients`");
            let (message, label) =
                (format!("more {agents} than clients"), format!("this many {agents}"));
            table.problem(message, &span, label, remedy);
            topology.agents = CLIENTS_MAX;
        }
        Some((count, _)) => topology.agents = count,
        None if table.has(agents) => topology.agents = CLIENTS_MAX,
        None => {}
    }
    network(&mut topology, protocol, table);
    topology
}

/// What clients belong to: the key of their number, and why there are no more of them.
fn followed(protocol: Protocol) -> (&'static str, &'static str) {
    match protocol {
        Protocol::Events | Protocol::Tasks | Protocol::Custom(_) => {
            ("agents", "agent needs a client that follows it")
        }
        Protocol::Session => ("users", "user has a client at least"),
    }
}

fn network(topology: &mut Topology, protocol: Protocol, table: &Table<'_>) {
    table.set(&mut topology.latency_ms, table.duration("latency"));
    if let Some((capacity, _)) = table.integer("tcp-capacity", 4..=4_096) {
        topology.tcp_capacity = usize::try_from(capacity).unwrap_or(64);
    }
    if table.has("order") {
        topology.order = order(topology, protocol, table);
    }
    table.finish();
}

/// The order in which the hosts have their turn.
fn order(topology: &Topology, protocol: Protocol, table: &Table<'_>) -> Vec<Host> {
    let hosts = topology.hosts();
    let known: Vec<_> = hosts.iter().map(|host| (host.name(protocol), *host)).collect();
    let mut order = Vec::new();
    for (name, span) in table.texts("order") {
        let Some(host) = table.choose(&name, &span, &known) else { continue };
        if order.contains(&host) {
            let remedy = "take it out once: each host has one turn in a tick";
            table.problem(format!("`{name}` comes twice"), &span, "a second time", remedy);
        }
        order.push(host);
    }
    if let Some(host) = hosts.iter().find(|host| !order.contains(host)) {
        table.problem(
            format!("`order` leaves out `{}`", host.name(protocol)),
            &table.span(),
            "not all hosts",
            "name each host once, or take `order` out: then the server comes first",
        );
    }
    order
}

fn controller_options(table: Option<&Table<'_>>) -> ControllerOptions {
    let mut options = ControllerOptions::default();
    let Some(table) = table else { return options };
    table.set(&mut options.extension, table.boolean("extension"));
    table.set(&mut options.silence_ms, table.duration_above_zero("silence"));
    table.set(&mut options.redelivery_ms, table.duration_range("redelivery"));
    table.set(&mut options.deliveries, table.size("deliveries", 1..=10_000));
    table.set(&mut options.commit_ms, table.duration("commit"));
    table.finish();
    options
}

fn agent_options(table: Option<&Table<'_>>) -> AgentOptions {
    let mut options = AgentOptions::default();
    let Some(table) = table else { return options };
    table.set(&mut options.extension, table.boolean("extension"));
    table.set(&mut options.parallel, table.size("parallel", 1..=64));
    table.set(&mut options.queue, table.size("queue", 1..=10_000));
    table.set(&mut options.handshake_ms, table.duration_above_zero("handshake"));
    table.set(&mut options.ping_every_ms, table.duration_above_zero("ping-every"));
    table.set(&mut options.pong_timeout_ms, table.duration_above_zero("pong-timeout"));
    table.set(&mut options.reconnect_ms, table.duration_range("reconnect"));
    table.set(&mut options.ack_timeout_ms, table.duration_above_zero("ack-timeout"));
    table.set(&mut options.window, table.size("window", 1..=10_000));
    table.set(&mut options.page, table.size("page", 1..=10_000));
    table.set(&mut options.chunk_bytes, table.size("chunk-bytes", 4..=8_192));
    table.set(&mut options.flush_ms, table.duration_above_zero("flush"));
    table.set(&mut options.buffer_bytes, table.size("buffer-bytes", 64..=16_777_216));
    table.set(&mut options.hello_max, table.size("hello-max", 1..=100_000));
    table.set(&mut options.fallback_ms, table.duration_above_zero("fallback"));
    table.set(&mut options.spool_bytes, table.integer("spool-bytes", 262_144..=1_073_741_824));
    table.set(&mut options.reserve_bytes, table.integer("reserve-bytes", 1_024..=16_777_216));
    table.set(&mut options.finished, table.integer("finished", 1..=1_000_000));
    table.set(&mut options.commit_ms, table.duration("commit"));
    table.set(&mut options.rsa, table.boolean("rsa"));
    table.finish();
    options
}

fn server_options(table: Option<&Table<'_>>) -> ServerOptions {
    let mut options = ServerOptions::default();
    let Some(table) = table else { return options };
    table.set(&mut options.extension, table.boolean("extension"));
    table.set(&mut options.ring, table.size("ring", 1..=1_000_000));
    table.set(&mut options.resync_grace_ms, table.duration("resync-grace"));
    table.set(&mut options.window_frames, table.size("window-frames", 1..=10_000));
    table.set(&mut options.write_stall_ms, table.duration_above_zero("write-stall"));
    table.set(&mut options.silence_ms, table.duration_above_zero("silence"));
    if let Some((keep, _)) = table.integer("retain-events", 1..=1_000_000_000) {
        options.retain_events = Some(keep);
    }
    table.set(&mut options.page_events, table.size("page-events", 1..=100_000));
    table.set(&mut options.commit_ms, table.duration("commit"));
    table.finish();
    options
}

fn client_options(table: Option<&Table<'_>>) -> ClientOptions {
    let mut options = ClientOptions::default();
    let Some(table) = table else { return options };
    table.set(&mut options.extension, table.boolean("extension"));
    if let Some(beginning) = table.one_of_optional("start", &[("live", false), ("beginning", true)])
    {
        options.from_beginning = beginning;
    }
    table.set(&mut options.ping_every_ms, table.duration_above_zero("ping-every"));
    table.set(&mut options.pong_timeout_ms, table.duration_above_zero("pong-timeout"));
    table.set(&mut options.reconnect_ms, table.duration_range("reconnect"));
    table.set(&mut options.queue_events, table.size("queue-events", 1..=1_000_000));
    if let Some((offers, _)) = table.integer("offers", 1..=1_000) {
        options.offers_max = u32::try_from(offers).unwrap_or(u32::MAX);
    }
    table.set(&mut options.open_handler_ms, table.duration("open-handler"));
    table.set(&mut options.handler_ms, table.duration("handler"));
    table.finish();
    options
}

fn session_server_options(table: Option<&Table<'_>>) -> SessionServerOptions {
    let mut options = SessionServerOptions::default();
    let Some(table) = table else { return options };
    table.set(&mut options.extension, table.boolean("extension"));
    table.set(&mut options.ring, table.size("ring", 1..=1_000_000));
    table.set(&mut options.ring_bytes, table.size("ring-bytes", 1_024..=16_777_216));
    table.set(&mut options.ring_age_ms, table.duration_above_zero("ring-age"));
    table.set(&mut options.prune_every_ms, table.duration_above_zero("prune-every"));
    table.set(&mut options.idle_max_ms, table.duration_above_zero("idle"));
    table.set(&mut options.outboxes, table.size("outboxes", 1..=1_000_000));
    table.set(&mut options.ping_every_ms, table.duration_above_zero("ping-every"));
    table.set(&mut options.window_frames, table.size("window-frames", 1..=10_000));
    table.set(&mut options.write_stall_ms, table.duration_above_zero("write-stall"));
    table.set(&mut options.history_messages, table.size("history-messages", 1..=10_000));
    table.set(&mut options.history_bytes, table.size("history-bytes", 256..=8_192));
    table.set(&mut options.queue, table.size("queue", 1..=10_000));
    table.set(&mut options.turns, table.size("turns", 1..=10_000));
    table.set(&mut options.inputs, table.size("inputs", 1..=10_000));
    table.set(&mut options.text_bytes, table.size("text-bytes", 64..=8_192));
    table.set(&mut options.retain_rows, table.integer("retain-rows", 1..=1_000_000_000));
    table.set(&mut options.commit_ms, table.duration("commit"));
    table.finish();
    options
}

fn session_client_options(table: Option<&Table<'_>>) -> SessionClientOptions {
    let mut options = SessionClientOptions::default();
    let Some(table) = table else { return options };
    table.set(&mut options.extension, table.boolean("extension"));
    table.set(&mut options.shared_id, table.boolean("shared-id"));
    table.set(&mut options.connect_ms, table.duration_above_zero("connect"));
    table.set(&mut options.ping_every_ms, table.duration_above_zero("ping-every"));
    table.set(&mut options.reconnect_ms, table.duration_range("reconnect"));
    table.set(&mut options.ack_every_ms, table.duration_above_zero("ack-every"));
    table.set(&mut options.ack_timeout_ms, table.duration_above_zero("ack-timeout"));
    table.set(&mut options.in_flight, table.size("in-flight", 1..=10_000));
    table.set(&mut options.base_grace_ms, table.duration("base-grace"));
    table.set(&mut options.messages, table.size("messages", 1..=100_000));
    table.set(&mut options.answer_ms, table.duration("answer"));
    table.set(&mut options.commit_ms, table.duration("commit"));
    table.finish();
    options
}

fn swarm(protocol: Protocol, table: &Table<'_>) -> Swarm {
    let names = [
        ("link", Group::Link),
        ("process", Group::Process),
        ("server", Group::Server),
        ("peer", Group::Peer),
        ("application", Group::Application),
        ("disk", Group::Disk),
        ("clock", Group::Clock),
        ("engine", Group::Engine),
    ];
    let mut groups = Vec::new();
    for (name, span) in table.texts_required("faults") {
        groups.extend(table.choose(&name, &span, &names));
    }
    let clients_max = u64::from(CLIENTS_MAX);
    let mut swarm = Swarm {
        groups,
        clients: (1, 1),
        agents: (1, 1),
        servers: (1, 1),
        faults_per_minute: (1, 10),
        work_per_minute: (10, 100),
    };
    let faults = table.integer_range("faults-per-minute", 0..=600);
    table.set(&mut swarm.faults_per_minute, faults);
    if protocol == Protocol::Tasks {
        if let Some((agents, _)) = table.integer_range("agents", 1..=clients_max) {
            (swarm.clients, swarm.agents) = (agents, agents);
        }
        let tasks = table.integer_range("tasks-per-minute", 1..=10_000);
        table.set(&mut swarm.work_per_minute, tasks);
        table.finish();
        return swarm;
    }
    match table.integer_range("clients", 1..=clients_max) {
        Some((clients, _)) => swarm.clients = clients,
        None if table.has("clients") => swarm.clients = (CLIENTS_MAX, CLIENTS_MAX),
        None => {}
    }
    if let Protocol::Custom(_) = protocol {
        let work = table.integer_range("work-per-minute", 1..=100_000);
        table.set(&mut swarm.work_per_minute, work);
        table.finish();
        return swarm;
    }
    let (agents, what) = followed(protocol);
    match table.integer_range(agents, 1..=clients_max) {
        Some((count, span)) => {
            swarm.agents = count;
            if count.0 > swarm.clients.0 || count.1 > swarm.clients.1 {
                let remedy =
                    format!("each {what}; both ends of `{agents}` are at most those of `clients`");
                let (message, label) =
                    (format!("more {agents} than clients"), format!("this many {agents}"));
                table.problem(message, &span, label, remedy);
            }
        }
        None if table.has(agents) => swarm.agents = (CLIENTS_MAX, CLIENTS_MAX),
        None => {}
    }
    if protocol == Protocol::Events {
        let servers = table.integer_range("servers", 1..=u64::from(SERVERS_MAX));
        table.set(&mut swarm.servers, servers);
        one_world(&swarm, table);
    }
    let work = match protocol {
        Protocol::Events | Protocol::Tasks | Protocol::Custom(_) => "events-per-minute",
        Protocol::Session => "messages-per-minute",
    };
    let work = table.integer_range(work, 1..=100_000);
    table.set(&mut swarm.work_per_minute, work);
    table.finish();
    swarm
}

/// A server has its log on its own disk, or there are several and it is on the engine.
fn one_world(swarm: &Swarm, table: &Table<'_>) {
    let has = |group| swarm.groups.contains(&group);
    let (least, most) = swarm.servers;
    if (least == 1) != (most == 1) {
        let remedy = "write `servers = \"2..4\"`, or leave it out";
        let message = "a swarm has one server, or several in every run";
        table.problem(message, &table.span(), "both", remedy);
    }
    if most > 1 && has(Group::Disk) {
        let remedy = "take `disk` out: the log of several servers is on the engine";
        table.problem("several servers have no log on their disks", &table.span(), "has", remedy);
    }
    if most == 1 && has(Group::Engine) {
        let remedy = "add `servers = \"2..4\"`, or take `engine` out";
        table.problem("one server has no engine", &table.span(), "one server", remedy);
    }
}

/// The hosts that are there whatever the seed draws.
fn hosts(protocol: Protocol, topology: &Topology, swarm: Option<&Swarm>) -> Hosts {
    let (clients, agents, servers, table) = match swarm {
        Some(swarm) => (swarm.clients.0, swarm.agents.0, swarm.servers.0, "swarm"),
        None => (topology.clients, topology.agents, topology.servers, "topology"),
    };
    Hosts { protocol, clients, agents, servers, table }
}

fn steps(
    tables: &[Table<'_>],
    hosts: &Hosts,
    end: End,
    duration_ms: u64,
    marks: &[&str],
    swarm: Option<&Swarm>,
) -> Vec<Step> {
    let mut steps: Vec<(Step, &Table<'_>)> = Vec::new();
    for table in tables {
        let step = step::read(table, hosts, end, marks);
        table.finish();
        steps.extend(step.map(|step| (step, table)));
    }
    never_held_and_partitioned(&steps, duration_ms, swarm);
    steps.into_iter().map(|(step, _)| step).collect()
}

/// Turmoil never delivers what was held across a repair, so the two must not meet.
fn never_held_and_partitioned(
    steps: &[(Step, &Table<'_>)],
    duration_ms: u64,
    swarm: Option<&Swarm>,
) {
    const REMEDY: &str =
        "what is held across a partition is never delivered; let one end before the other";
    let held = lasting(steps, duration_ms, |fault| match fault {
        Fault::Hold { client, for_ms } => Some((*client, *for_ms)),
        _ => None,
    });
    let partitioned = lasting(steps, duration_ms, |fault| match fault {
        Fault::Partition { client, for_ms } => Some((*client, *for_ms)),
        _ => None,
    });
    for hold in &held {
        if let Some(partition) = partitioned.iter().find(|partition| hold.meets(partition)) {
            let certainty = if hold.waits || partition.waits { "may be" } else { "is" };
            hold.table.problem(
                format!("client-{} {certainty} held and partitioned at the same time", hold.client),
                &hold.table.span(),
                "held here",
                REMEDY,
            );
        }
    }
    if swarm.is_some_and(|swarm| swarm.groups.contains(&Group::Link)) {
        for fault in held.iter().chain(&partitioned) {
            fault.table.problem(
                format!("a seed may hold and partition client-{} at the same time", fault.client),
                &fault.table.span(),
                "the group `link` has both",
                "leave this step or the group `link` out: what is held across a partition is \
                 never delivered",
            );
        }
    }
}

/// A fault that lasts, and when it can be there at all.
struct Lasting<'a> {
    client: u32,
    from_ms: u64,
    to_ms: u64,
    /// Whether it waits for a mark.
    waits: bool,
    table: &'a Table<'a>,
}

impl Lasting<'_> {
    fn meets(&self, other: &Self) -> bool {
        self.client == other.client && self.from_ms < other.to_ms && other.from_ms < self.to_ms
    }
}

fn lasting<'a>(
    steps: &[(Step, &'a Table<'a>)],
    duration_ms: u64,
    of: impl Fn(&Fault) -> Option<(u32, u64)>,
) -> Vec<Lasting<'a>> {
    let found = steps.iter().filter_map(|(step, table)| {
        let Action::Fault(fault) = &step.action else { return None };
        let (client, for_ms) = of(fault)?;
        let waits = matches!(step.when, When::Mark { .. });
        let from_ms = step::begins_ms(&step.when);
        // A mark may be reached as late as the end.
        let to_ms = if waits { duration_ms } else { from_ms + for_ms };
        Some(Lasting { client, from_ms, to_ms, waits, table })
    });
    found.collect()
}

#[cfg(test)]
mod tests;
