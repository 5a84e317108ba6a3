//! What goes wrong. Each kind happens in reality; its line says how.

use serde::{Deserialize, Serialize};

use super::{EngineFault, Host, Topology};

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
    /// The engine under the log of several servers, or the way to it.
    Engine(EngineFault),
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

/// What a fault is about.
enum Target {
    /// A client, or the way to it.
    Client(u32),
    Host(Host),
    /// A stream, on whichever host.
    Stream,
}

impl Fault {
    /// The client that it hits, if it hits one.
    pub fn client(&self) -> Option<u32> {
        match self.target() {
            Target::Client(client) | Target::Host(Host::Client(client)) => Some(client),
            Target::Host(_) | Target::Stream => None,
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
            Self::LoseStore { host: Host::Server | Host::Engine, .. } => "lose-log",
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
            Self::Engine(fault) => fault.kind(),
        }
    }

    /// The host that it names.
    pub fn host(&self) -> Option<Host> {
        match self.target() {
            Target::Host(host) => Some(host),
            Target::Client(_) | Target::Stream => None,
        }
    }

    fn target(&self) -> Target {
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
            | Self::Inject { client, .. } => Target::Client(client),
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
            | Self::LoseStore { host, .. } => Target::Host(host),
            Self::Engine(ref fault) => Target::Host(fault.host()),
            Self::Retain { .. } => Target::Stream,
        }
    }

    /// Whether the host that it names is there, and is one that it can hit. Clients are not looked at.
    ///
    /// # Errors
    ///
    /// What is wrong, as a sentence without its beginning.
    pub fn check_hosts(&self, topology: &Topology) -> Result<(), String> {
        let Some(host) = self.host() else { return Ok(()) };
        let is_there = match host {
            Host::Server | Host::Client(_) => true,
            Host::Member(number) => (2..=topology.servers).contains(&number),
            Host::Engine => topology.is_cluster(),
        };
        if !is_there {
            return Err(
                "names a server that is not there, or an engine without a cluster".to_owned()
            );
        }
        match self {
            // The log of several servers is not on their disks.
            Self::PowerOff { .. }
            | Self::DiskError { .. }
            | Self::DiskFull { .. }
            | Self::SlowCommit { .. }
                if topology.is_cluster() && host.client().is_none() =>
            {
                Err("hits the disk of a server that has its log on an engine".to_owned())
            }
            Self::Backup { .. }
            | Self::Restore { .. }
            | Self::Swap { .. }
            | Self::LoseStore { .. }
                if topology.is_cluster() && host == Host::Server =>
            {
                Err("names the log of a server that has it on an engine".to_owned())
            }
            Self::Engine(_) if !topology.is_cluster() => {
                Err("names an engine, and there is one server only".to_owned())
            }
            _ => Ok(()),
        }
    }
}
