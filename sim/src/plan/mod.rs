//! A plan: everything that a run does, spelled out.
//!
//! Drawing happens once, from a scenario and a seed ([`draw`](crate::scenario::draw)). The plan that comes out names
//! every workload step and every fault with its virtual time. It can be printed, saved, compared
//! and run again after the code has changed; a seed is good for one commit, a plan is what one
//! keeps. Times are milliseconds of virtual time since the start of the run.

mod unusual;

use serde::{Deserialize, Serialize};

pub use self::unusual::Unusual;
use crate::mutants;

/// The version of the plan format.
pub const FORMAT: u32 = 1;

/// Everything that a run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// The id of the scenario from which it was drawn.
    pub scenario: String,
    /// The seed from which it was drawn; the ids and jitter of the hosts follow from it.
    pub seed: u64,
    /// The known-bad variant of the implementation that is run, by its id; absent = the implementation as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// How much virtual time one step of the world is.
    pub tick_ms: u64,
    /// When the faults end and the world heals.
    pub duration_ms: u64,
    /// How long after healing everything may take to arrive.
    pub settle_ms: u64,
    /// The statements of the specification that the scenario is about.
    pub statements: Vec<String>,
    /// The marks that the run must reach.
    pub reaches: Vec<String>,
    /// The hosts and the network between them.
    pub topology: Topology,
    /// The protocol, with the options of both sides.
    pub options: Options,
    /// What happens, in the order of the file or of the draw.
    pub steps: Vec<Step>,
}

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Event streams: a `server`, and `client-1` and so on.
    Events,
    /// Tasks: a `controller`, and `agent-1` and so on.
    Tasks,
    /// Sessions: a `server`, and `client-1` and so on.
    Session,
}

/// The options of both sides of a protocol: those of their configuration that scenarios vary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Options {
    /// Of event streams.
    Events {
        /// The server's.
        server: ServerOptions,
        /// The clients'.
        client: ClientOptions,
    },
    /// Of tasks.
    Tasks {
        /// The controller's.
        controller: ControllerOptions,
        /// The agents'.
        agent: AgentOptions,
    },
    /// Of sessions.
    Session {
        /// The server's.
        server: SessionServerOptions,
        /// The clients'.
        client: SessionClientOptions,
    },
}

impl Options {
    /// Whose options they are.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Events { .. } => Protocol::Events,
            Self::Tasks { .. } => Protocol::Tasks,
            Self::Session { .. } => Protocol::Session,
        }
    }
}

/// The hosts and the network between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The number of agents, `agent-1` and so on; each has a stream. With tasks, as many as
    /// clients. With sessions, the number of users; each has a conversation.
    pub agents: u32,
    /// The number of client hosts, `client-1` and so on. Client k follows the stream of agent
    /// `(k - 1) % agents + 1`, or belongs to this user. With tasks, client k is the host
    /// `agent-k`.
    pub clients: u32,
    /// One way, between any two hosts.
    pub latency_ms: u64,
    /// How many writes a connection holds before the writer waits; also the accept backlog.
    pub tcp_capacity: usize,
}

impl Default for Topology {
    fn default() -> Self {
        Self { agents: 1, clients: 1, latency_ms: 5, tcp_capacity: 64 }
    }
}

impl Topology {
    /// The agent that a client follows; both count from 1.
    pub fn agent_of(&self, client: u32) -> u32 {
        (client - 1) % self.agents + 1
    }

    /// The user to whom a client belongs; both count from 1.
    pub fn user_of(&self, client: u32) -> u32 {
        self.agent_of(client)
    }
}

/// The server's options: those of its configuration that scenarios vary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerOptions {
    /// Whether it offers the extension.
    pub extension: bool,
    /// Events per stream in memory.
    pub ring: usize,
    /// How long live events wait for a `resync`.
    pub resync_grace_ms: u64,
    /// Frames on their way to a socket.
    pub window_frames: usize,
    /// How long a socket may take nothing.
    pub write_stall_ms: u64,
    /// How long a client may say nothing.
    pub silence_ms: u64,
    /// Events per stream in the log; absent = all.
    pub retain_events: Option<u64>,
    /// Events per page of the log.
    pub page_events: usize,
    /// Virtual time that a commit takes.
    pub commit_ms: u64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            extension: true,
            ring: 500,
            resync_grace_ms: 2_000,
            window_frames: 64,
            write_stall_ms: 30_000,
            silence_ms: 75_000,
            retain_events: None,
            page_events: 256,
            commit_ms: 2,
        }
    }
}

/// The clients' options: those of their configuration that scenarios vary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientOptions {
    /// Whether they offer the extension.
    pub extension: bool,
    /// Whether they begin with the oldest event instead of the first new one.
    pub from_beginning: bool,
    /// Between pings.
    pub ping_every_ms: u64,
    /// How long a ping may stay without any sign of life.
    pub pong_timeout_ms: u64,
    /// Shortest and longest pause before connecting again.
    pub reconnect_ms: (u64, u64),
    /// Events that may wait for the application.
    pub queue_events: usize,
    /// How often an event is offered to a failing handler.
    pub offers_max: u32,
    /// How long an open handler takes.
    pub open_handler_ms: u64,
    /// How long a handler takes for an event.
    pub handler_ms: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            extension: true,
            from_beginning: false,
            ping_every_ms: 30_000,
            pong_timeout_ms: 10_000,
            reconnect_ms: (1_000, 30_000),
            queue_events: 256,
            offers_max: 5,
            open_handler_ms: 0,
            handler_ms: 0,
        }
    }
}

/// The controller's options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerOptions {
    /// Whether it takes up the extension.
    pub extension: bool,
    /// How long an agent may say nothing.
    pub silence_ms: u64,
    /// Shortest and longest pause before an attempt is delivered again.
    pub redelivery_ms: (u64, u64),
    /// Attempts on their way to one agent.
    pub deliveries: usize,
    /// Virtual time that a commit takes.
    pub commit_ms: u64,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            extension: true,
            silence_ms: 90_000,
            redelivery_ms: (5_000, 60_000),
            deliveries: 64,
            commit_ms: 2,
        }
    }
}

/// The agents' options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentOptions {
    /// Whether they offer the extension.
    pub extension: bool,
    /// Attempts that run side by side.
    pub parallel: usize,
    /// Accepted attempts that may wait.
    pub queue: usize,
    /// How long the controller may take to answer a hello.
    pub handshake_ms: u64,
    /// Between pings.
    pub ping_every_ms: u64,
    /// How long a ping may stay without any sign of life.
    pub pong_timeout_ms: u64,
    /// Shortest and longest pause before connecting again.
    pub reconnect_ms: (u64, u64),
    /// How long nothing may be acknowledged before the oldest message is sent again.
    pub ack_timeout_ms: u64,
    /// Messages that may be unacknowledged on a connection.
    pub window: usize,
    /// Messages that are read from the store at once.
    pub page: usize,
    /// The largest piece of output.
    pub chunk_bytes: usize,
    /// How long output waits for more.
    pub flush_ms: u64,
    /// Output of an attempt that may wait for the store.
    pub buffer_bytes: usize,
    /// Results, and runs of output, that a hello lists.
    pub hello_max: usize,
    /// How long the link is down before results go over HTTP.
    pub fallback_ms: u64,
    /// What the store may take on the disk.
    pub spool_bytes: u64,
    /// What is kept of it for the result of each attempt.
    pub reserve_bytes: u64,
    /// Ended attempts that are remembered after their result was acknowledged.
    pub finished: u64,
    /// Virtual time that a commit takes.
    pub commit_ms: u64,
    /// Whether requests are signed and checked with RSA-PSS instead of with a cheap stand-in.
    pub rsa: bool,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            extension: true,
            parallel: 1,
            queue: 16,
            handshake_ms: 15_000,
            ping_every_ms: 30_000,
            pong_timeout_ms: 10_000,
            reconnect_ms: (1_000, 300_000),
            ack_timeout_ms: 30_000,
            window: 256,
            page: 64,
            chunk_bytes: 4 << 10,
            flush_ms: 100,
            buffer_bytes: 64 << 10,
            hello_max: 1_000,
            fallback_ms: 30_000,
            spool_bytes: 4 << 20,
            reserve_bytes: 64 << 10,
            finished: 1_000,
            commit_ms: 2,
            rsa: false,
        }
    }
}

/// The options of a server of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionServerOptions {
    /// Whether it offers the extension.
    pub extension: bool,
    /// Frames of each outbox in memory.
    pub ring: usize,
    /// The same in bytes.
    pub ring_bytes: usize,
    /// How long a frame is kept.
    pub ring_age_ms: u64,
    /// How often age and idleness are looked at.
    pub prune_every_ms: u64,
    /// How long an outbox without a connection is kept.
    pub idle_max_ms: u64,
    /// How many outboxes there are at most.
    pub outboxes: usize,
    /// Between pings; a client may be silent for twice as long after one.
    pub ping_every_ms: u64,
    /// Frames on their way to a socket.
    pub window_frames: usize,
    /// How long a socket may take nothing.
    pub write_stall_ms: u64,
    /// Rows of a history.
    pub history_messages: usize,
    /// The same in bytes.
    pub history_bytes: usize,
    /// Messages that may wait for their turn.
    pub queue: usize,
    /// Inputs of a conversation that may wait for the store.
    pub inputs: usize,
    /// Turns that may run at once, of all conversations.
    pub turns: usize,
    /// The longest input.
    pub text_bytes: usize,
    /// Rows of a conversation that are kept.
    pub retain_rows: u64,
    /// Virtual time that a commit takes.
    pub commit_ms: u64,
}

impl Default for SessionServerOptions {
    fn default() -> Self {
        Self {
            extension: true,
            ring: 500,
            ring_bytes: 1 << 20,
            ring_age_ms: 300_000,
            prune_every_ms: 60_000,
            idle_max_ms: 3_600_000,
            outboxes: 20_000,
            ping_every_ms: 25_000,
            window_frames: 64,
            write_stall_ms: 30_000,
            history_messages: 200,
            // No message in the world is longer.
            history_bytes: 8 << 10,
            queue: 10,
            inputs: 64,
            turns: 1_024,
            text_bytes: 4 << 10,
            retain_rows: 100_000,
            commit_ms: 2,
        }
    }
}

/// The options of a client of sessions, and of the user in front of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionClientOptions {
    /// Whether they offer the extension.
    pub extension: bool,
    /// Whether all clients of a user call themselves the same, as the tabs of a browser that share
    /// what they store.
    pub shared_id: bool,
    /// How long a connection may take to open.
    pub connect_ms: u64,
    /// How often the server is expected to send a ping.
    pub ping_every_ms: u64,
    /// Shortest and longest pause before connecting again.
    pub reconnect_ms: (u64, u64),
    /// How often what was applied is acknowledged.
    pub ack_every_ms: u64,
    /// How long a verdict may take before an input is sent again.
    pub ack_timeout_ms: u64,
    /// Inputs that may be in flight.
    pub in_flight: usize,
    /// How long after opening inputs are sent to a base server.
    pub base_grace_ms: u64,
    /// Rows that a view holds.
    pub messages: usize,
    /// How long the user thinks before an answer to a question.
    pub answer_ms: u64,
    /// Virtual time that a commit takes.
    pub commit_ms: u64,
}

impl Default for SessionClientOptions {
    fn default() -> Self {
        Self {
            extension: true,
            shared_id: false,
            connect_ms: 10_000,
            ping_every_ms: 25_000,
            reconnect_ms: (1_000, 10_000),
            ack_every_ms: 5_000,
            ack_timeout_ms: 30_000,
            in_flight: 32,
            base_grace_ms: 1_000,
            messages: 1_000,
            answer_ms: 2_000,
            commit_ms: 2,
        }
    }
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When.
    pub when: When,
    /// What.
    pub action: Action,
}

/// When a step happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum When {
    /// At a virtual time, in milliseconds.
    At(u64),
    /// When a mark is reached for the `nth` time since the run began, and `after_ms` later.
    Mark {
        /// The name of the mark.
        mark: String,
        /// Counts from 1.
        nth: u32,
        /// How much later.
        after_ms: u64,
    },
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Publish events.
    Publish(Publish),
    /// Give tasks to an agent.
    Submit(Submit),
    /// Want a task no more.
    Cancel {
        /// Its id.
        task: String,
    },
    /// Want another attempt at a task whose last one has ended.
    Retry {
        /// Its id.
        task: String,
    },
    /// Say something to the application.
    Say(Say),
    /// Reload the page: the client's memory is gone, and what it stored is not.
    Refresh {
        /// Which client, by number.
        client: u32,
    },
    /// The user comes back to a client and wants to be connected.
    Reconnect {
        /// Which client, by number.
        client: u32,
    },
    /// Break something.
    Fault(Fault),
}

/// Events to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The agent, by number.
    pub agent: u32,
    /// How many.
    pub count: u32,
    /// The time from one to the next.
    pub every_ms: u64,
    /// How many bytes of filler each has.
    pub bytes: u32,
    /// Whether they have ids. Without an id, an event of unknown outcome is not repeated.
    pub ids: bool,
    /// Whether each is published a second time with the same id after it was acknowledged.
    pub twice: bool,
}

/// Tasks to submit. If there are several, the k-th of them is called `<name>-<k>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// The id of the task.
    pub name: String,
    /// The agent, by number.
    pub agent: u32,
    /// How many.
    pub count: u32,
    /// The time from one to the next.
    pub every_ms: u64,
    /// Higher first.
    pub priority: i64,
    /// Whether each is submitted a second time after it was accepted.
    pub twice: bool,
    /// What each does.
    pub script: Script,
}

impl Submit {
    /// The id of the `nth` task, from 1.
    pub fn task(&self, nth: u32) -> String {
        match self.count {
            1 => self.name.clone(),
            _ => format!("{}-{nth}", self.name),
        }
    }
}

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// How often it writes to its standard output.
    pub stdout: u32,
    /// How often it writes to its standard error.
    pub stderr: u32,
    /// How many bytes each time.
    pub bytes: u32,
    /// The time from one to the next.
    pub every_ms: u64,
    /// What the bytes are.
    pub text: Text,
    /// The code with which it ends.
    pub exit: u8,
}

/// What a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    /// ASCII.
    Plain,
    /// Code points of several bytes, torn between two writes.
    Wide,
    /// Bytes that are no UTF-8.
    Binary,
}

/// Messages that a user says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Say {
    /// At which client, by number.
    pub client: u32,
    /// How many.
    pub count: u32,
    /// The time from one to the next.
    pub every_ms: u64,
    /// How many bytes of filler each has.
    pub bytes: u32,
    /// How many documents come with each.
    pub attachments: u32,
    /// Whether all of them say the same.
    pub same: bool,
    /// What the application does about each.
    pub script: TurnScript,
}

/// What the application does in a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TurnScript {
    /// How often it tells how it is getting on, before it says anything.
    pub progress: u32,
    /// How many messages it says.
    pub say: u32,
    /// How many bytes of filler each has.
    pub bytes: u32,
    /// How long each of these takes.
    pub each_ms: u64,
    /// How many questions it asks: one at the end of this turn, the next at the end of the turn
    /// for its answer, and so on.
    pub asks: u32,
    /// Whether it fails in the end instead.
    pub fails: bool,
}

/// A host that can be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Host {
    /// The server; with tasks, the controller.
    Server,
    /// A client, by number; with tasks, an agent.
    Client(u32),
}

impl Host {
    /// Its name in the world.
    pub fn name(self, protocol: Protocol) -> &'static str {
        const CLIENTS: [&str; 4] = ["client-1", "client-2", "client-3", "client-4"];
        const AGENTS: [&str; 4] = ["agent-1", "agent-2", "agent-3", "agent-4"];
        match (self, protocol) {
            (Self::Server, Protocol::Events | Protocol::Session) => "server",
            (Self::Server, Protocol::Tasks) => "controller",
            (Self::Client(number), Protocol::Events | Protocol::Session) => {
                CLIENTS[number as usize - 1]
            }
            (Self::Client(number), Protocol::Tasks) => AGENTS[number as usize - 1],
        }
    }
}

/// Something that goes wrong. Each kind happens in reality; its line says how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The client's connection ends. A proxy restarts, a radio cell is left, a cable is pulled.
    Cut {
        /// Whose.
        client: u32,
        /// How it ends.
        how: Cut,
        /// Only once this many more frames have arrived at the client; absent = now.
        after_frames: Option<u32>,
        /// How long new connections of the client go nowhere afterwards.
        for_ms: u64,
    },
    /// Nothing moves between client and server, then everything arrives at once. A congested
    /// link, a suspended virtual machine.
    Hold {
        /// Whose link.
        client: u32,
        /// How long.
        for_ms: u64,
    },
    /// Packets are dropped; open connections do not survive it. A routing change.
    Partition {
        /// Whose link.
        client: u32,
        /// How long.
        for_ms: u64,
    },
    /// The link becomes slow. A satellite hop, a full buffer.
    Latency {
        /// Whose link.
        client: u32,
        /// One way, while it lasts.
        latency_ms: u64,
        /// How long.
        for_ms: u64,
    },
    /// Connections are refused. The server's port is closed while it is deployed.
    Refuse {
        /// Whose.
        client: u32,
        /// How long.
        for_ms: u64,
    },
    /// Connections are accepted and never answered. A load balancer without a backend.
    NeverAnswer {
        /// Whose.
        client: u32,
        /// How long.
        for_ms: u64,
    },
    /// The process dies; what it wrote is kept. `kill -9`, out of memory, a panic.
    Crash {
        /// Which.
        host: Host,
        /// When it is started again.
        restart_ms: u64,
    },
    /// The machine loses power at its disk's n-th next operation, mostly inside a commit: what was
    /// not synced is gone, and nobody gets a goodbye. A plug is pulled.
    PowerOff {
        /// Which.
        host: Host,
        /// Disk operations that still succeed.
        after_ops: u64,
        /// How much of the next write is kept, in percent; absent = nothing of it.
        torn_percent: Option<u8>,
        /// When it is started again.
        restart_ms: u64,
    },
    /// Writes or syncs of the disk fail. A bad cable, a failing sector.
    DiskError {
        /// Whose.
        host: Host,
        /// Whether syncs fail instead of writes.
        sync: bool,
        /// Disk operations that still succeed.
        after_ops: u64,
        /// How many fail.
        count: u32,
    },
    /// Files cannot grow. The volume is full.
    DiskFull {
        /// Whose.
        host: Host,
        /// How long.
        for_ms: u64,
    },
    /// A commit takes long. A busy disk.
    SlowCommit {
        /// Whose.
        host: Host,
        /// How long each takes.
        each_ms: u64,
        /// How long this lasts.
        for_ms: u64,
    },
    /// The wall clock jumps. Somebody sets it, a time server corrects it, daylight saving ends.
    ClockStep {
        /// Whose.
        host: Host,
        /// By how much, forward or back.
        by_ms: i64,
    },
    /// The wall clock runs too fast or too slow. A quartz without a time server.
    ClockDrift {
        /// Whose.
        host: Host,
        /// Microseconds that it gains per second; negative = loses.
        ppm: i64,
        /// How long; it keeps what it has gained.
        for_ms: u64,
    },
    /// The process stands still and goes on later, while time and network do not wait. A suspended
    /// virtual machine, a stopped process, a long pause of a garbage collector.
    Suspend {
        /// Which.
        host: Host,
        /// How long.
        for_ms: u64,
    },
    /// The host's database is copied. Not a fault by itself: a nightly backup.
    Backup {
        /// Whose.
        host: Host,
    },
    /// The process dies and its database is replaced by the newest copy; without one, by an empty
    /// one. The volume broke, and an operator restored last night's backup.
    Restore {
        /// Which.
        host: Host,
        /// When it is started again.
        restart_ms: u64,
    },
    /// The process dies, and its database and the newest copy change places. Two clones of one
    /// machine are started in turns.
    Swap {
        /// Which.
        host: Host,
        /// When it is started again.
        restart_ms: u64,
    },
    /// The process dies and its database is gone. A container without a volume.
    LoseStore {
        /// Which.
        host: Host,
        /// When it is started again.
        restart_ms: u64,
    },
    /// The client's machine reads slowly or not at all. A suspended laptop, a stuck process.
    SlowReader {
        /// Whose.
        client: u32,
        /// The pause before each read; absent = does not read at all.
        pause_ms: Option<u64>,
        /// How long.
        for_ms: u64,
    },
    /// The application takes long for each event. A slow database behind it.
    SlowHandler {
        /// Whose.
        client: u32,
        /// How long each event takes.
        each_ms: u64,
        /// How long.
        for_ms: u64,
    },
    /// The application's handler fails. An exception, a constraint violated.
    FailHandler {
        /// Whose.
        client: u32,
        /// How many times.
        times: u32,
    },
    /// The application's open handler fails. It subscribes with a stale token.
    FailOpenHandler {
        /// Whose.
        client: u32,
        /// How many times.
        times: u32,
    },
    /// An event frame arrives twice. A proxy or a server library that retries a send.
    Duplicate {
        /// Whose.
        client: u32,
        /// How many of the next event frames.
        frames: u32,
    },
    /// An event frame does not arrive though the connection lives. A server whose send failed.
    Lose {
        /// Whose.
        client: u32,
        /// How many of the next event frames.
        frames: u32,
    },
    /// The next answer to a hello says something else. A controller that knows less, or one of the
    /// base contract.
    Answer {
        /// On whose connection.
        client: u32,
        /// What it says.
        how: Answer,
    },
    /// The next answers over HTTP do not arrive. A proxy that gives up while the server does not.
    LoseAnswer {
        /// Whose.
        client: u32,
        /// How many.
        times: u32,
    },
    /// A frame that does not belong there arrives. A newer peer, a bug, an attack.
    Inject {
        /// On whose connection.
        client: u32,
        /// What.
        frame: Strange,
        /// Whether it goes to the server instead of to the client.
        to_server: bool,
    },
    /// The log forgets events below its newest ones. Retention runs.
    Retain {
        /// The stream, by number.
        agent: u32,
        /// How many of the newest events are kept.
        keep: u64,
    },
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// With a close frame from the server's side.
    Close,
    /// At once, seen by both.
    Reset,
    /// In the middle of a frame, seen by both.
    MidFrame,
    /// Silently, both ways: nobody is told.
    HalfOpen,
    /// Silently, from the client to the server only.
    HalfOpenUp,
    /// Silently, from the server to the client only.
    HalfOpenDown,
}

/// What becomes of an answer to a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It does not come.
    Lost,
    /// It says nothing about results and output.
    Absent,
    /// It names no output.
    Empty,
    /// It discards all that the hello names, and the connection ends soon after.
    DiscardAll,
}

/// A frame that does not belong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strange {
    /// A well-formed object of a type that nobody knows.
    UnknownType,
    /// Text that is no JSON.
    Malformed,
    /// A known type with an impossible field.
    BadField,
    /// A binary frame.
    Binary,
    /// A frame beyond the limit of the receiver.
    Oversize,
    /// The newest answer to a hello of an earlier connection; nothing if there is none.
    StaleAnswer,
}

/// The longest time in a plan: a week.
const TIME_MS_MAX: u64 = 7 * 86_400_000;

impl Plan {
    /// Whether the plan can be carried out: a plan that was changed by hand may name hosts that
    /// are not there.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        let topology = &self.topology;
        let protocol = self.options.protocol();
        if !(1..=4).contains(&topology.clients)
            || !(1..=topology.clients).contains(&topology.agents)
        {
            return Err("there are 1 to 4 clients, and no more agents than clients".to_owned());
        }
        if let Some(mutant) = self.mutant.as_deref().filter(|id| mutants::find(id).is_none()) {
            return Err(format!(
                "there is no mutant `{mutant}`; `gapless-sim mutants --list` names all"
            ));
        }
        if !(1..=100).contains(&self.tick_ms) {
            return Err("`tick_ms` is between 1 and 100".to_owned());
        }
        if !(4..=4_096).contains(&topology.tcp_capacity) {
            return Err("`tcp_capacity` is between 4 and 4096".to_owned());
        }
        if self.duration_ms.max(self.settle_ms) > TIME_MS_MAX {
            return Err(format!("`duration_ms` and `settle_ms` are at most {TIME_MS_MAX}"));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let (client, agent) = match &step.action {
                Action::Publish(publish) => (None, Some(publish.agent)),
                Action::Submit(submit) => (None, Some(submit.agent)),
                Action::Cancel { task } | Action::Retry { task } => {
                    if !self.tasks().contains(task) {
                        return Err(format!("step {index} names task {task}, which is not there"));
                    }
                    (None, None)
                }
                Action::Say(say) => (Some(say.client), None),
                Action::Refresh { client } | Action::Reconnect { client } => (Some(*client), None),
                Action::Fault(Fault::Retain { agent, .. }) => (None, Some(*agent)),
                Action::Fault(fault) => (fault.client(), None),
            };
            if let Some(client) = client.filter(|client| !(1..=topology.clients).contains(client)) {
                return Err(format!("step {index} names client {client}, which is not there"));
            }
            if let Some(agent) = agent.filter(|agent| !(1..=topology.agents).contains(agent)) {
                return Err(format!("step {index} names agent {agent}, which is not there"));
            }
            if !step.action.is_of(protocol) {
                return Err(format!("step {index} is not one of the plan's protocol"));
            }
        }
        Ok(())
    }
}

impl Plan {
    /// The ids of all tasks that are submitted.
    pub fn tasks(&self) -> Vec<String> {
        let submits = self.steps.iter().filter_map(|step| match &step.action {
            Action::Submit(submit) => Some(submit),
            _ => None,
        });
        submits.flat_map(|submit| (1..=submit.count).map(|nth| submit.task(nth))).collect()
    }
}

impl Action {
    /// Whether it can happen in a world of a protocol.
    pub fn is_of(&self, protocol: Protocol) -> bool {
        match self {
            Self::Publish(_) => protocol == Protocol::Events,
            Self::Submit(_) | Self::Cancel { .. } | Self::Retry { .. } => {
                protocol == Protocol::Tasks
            }
            Self::Say(_) | Self::Refresh { .. } | Self::Reconnect { .. } => {
                protocol == Protocol::Session
            }
            Self::Fault(fault) => match fault {
                Fault::SlowHandler { .. }
                | Fault::FailHandler { .. }
                | Fault::FailOpenHandler { .. }
                | Fault::Retain { .. } => protocol == Protocol::Events,
                Fault::SlowCommit { host, .. } => {
                    protocol != Protocol::Events || *host == Host::Server
                }
                Fault::Backup { host }
                | Fault::Restore { host, .. }
                | Fault::LoseStore { host, .. } => match protocol {
                    Protocol::Events => *host == Host::Server,
                    Protocol::Tasks => true,
                    // A conversation that is lost or goes back is nothing that a client can notice.
                    Protocol::Session => *host != Host::Server,
                },
                Fault::Swap { .. }
                | Fault::Answer { .. }
                | Fault::LoseAnswer { .. }
                | Fault::Inject { frame: Strange::StaleAnswer, .. } => protocol == Protocol::Tasks,
                _ => true,
            },
        }
    }
}

impl Fault {
    /// The client that it hits, if it hits one.
    pub fn client(&self) -> Option<u32> {
        match *self {
            Self::Cut { client, .. }
            | Self::Hold { client, .. }
            | Self::Partition { client, .. }
            | Self::Latency { client, .. }
            | Self::Refuse { client, .. }
            | Self::NeverAnswer { client, .. }
            | Self::SlowReader { client, .. }
            | Self::SlowHandler { client, .. }
            | Self::FailHandler { client, .. }
            | Self::FailOpenHandler { client, .. }
            | Self::Duplicate { client, .. }
            | Self::Lose { client, .. }
            | Self::Answer { client, .. }
            | Self::LoseAnswer { client, .. }
            | Self::Inject { client, .. } => Some(client),
            Self::Crash { host, .. }
            | Self::PowerOff { host, .. }
            | Self::DiskError { host, .. }
            | Self::DiskFull { host, .. }
            | Self::SlowCommit { host, .. }
            | Self::ClockStep { host, .. }
            | Self::ClockDrift { host, .. }
            | Self::Suspend { host, .. }
            | Self::Backup { host }
            | Self::Restore { host, .. }
            | Self::Swap { host, .. }
            | Self::LoseStore { host, .. } => match host {
                Host::Client(client) => Some(client),
                Host::Server => None,
            },
            Self::Retain { .. } => None,
        }
    }

    /// The name of the kind, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cut { how, .. } => match how {
                Cut::Close => "close",
                Cut::Reset => "reset",
                Cut::MidFrame => "mid-frame",
                Cut::HalfOpen | Cut::HalfOpenUp | Cut::HalfOpenDown => "half-open",
            },
            Self::Hold { .. } => "hold",
            Self::Partition { .. } => "partition",
            Self::Latency { .. } => "latency",
            Self::Refuse { .. } => "refuse",
            Self::NeverAnswer { .. } => "never-answer",
            Self::Crash { .. } => "crash",
            Self::PowerOff { torn_percent: None, .. } => "power-off",
            Self::PowerOff { torn_percent: Some(_), .. } => "torn-write",
            Self::DiskError { .. } => "disk-error",
            Self::DiskFull { .. } => "disk-full",
            Self::SlowCommit { .. } => "slow-commit",
            Self::ClockStep { .. } => "clock-step",
            Self::ClockDrift { .. } => "clock-drift",
            Self::Suspend { .. } => "suspend",
            Self::Backup { .. } => "backup",
            Self::Restore { .. } => "restore",
            Self::Swap { .. } => "swap",
            Self::LoseStore { host: Host::Server, .. } => "lose-log",
            Self::LoseStore { .. } => "lose-store",
            Self::Answer { .. } => "answer",
            Self::LoseAnswer { .. } => "lose-answer",
            Self::SlowReader { .. } => "slow-reader",
            Self::SlowHandler { .. } => "slow-handler",
            Self::FailHandler { .. } => "fail-handler",
            Self::FailOpenHandler { .. } => "fail-open-handler",
            Self::Duplicate { .. } => "duplicate",
            Self::Lose { .. } => "lose",
            Self::Inject { .. } => "inject",
            Self::Retain { .. } => "retain",
        }
    }
}
