//! The lockstep adapter protocol, version 1: what a simulator and the adapter of a foreign
//! implementation say to each other.
//!
//! One JSON object per line, strictly request and reply, on the adapter's standard input and
//! output. The simulator owns the network, the clock and the disk; the adapter owns nothing but the
//! implementation, to which it passes on what the requests say, and of which it tells in the reply
//! what it did. `docs/conformance.md` explains it; the schemas there are made from these types.
//!
//! Times are whole milliseconds of virtual time since the case began. Seeds are decimal text,
//! because not every language has whole numbers of 64 bits. Fields that are not known are ignored;
//! a type that is not known is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the protocol that this program speaks.
pub const VERSION: u32 = 1;

/// The longest line, in bytes, without its end.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Which part of which protocol an implementation plays.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Role {
    /// Follows event streams.
    #[serde(rename = "events.client")]
    EventsClient,
    /// Serves event streams.
    #[serde(rename = "events.server")]
    EventsServer,
    /// Shows a conversation to a user.
    #[serde(rename = "session.client")]
    SessionClient,
    /// Serves conversations.
    #[serde(rename = "session.server")]
    SessionServer,
    /// Runs tasks.
    #[serde(rename = "tasks.agent")]
    TasksAgent,
    /// Hands tasks out.
    #[serde(rename = "tasks.controller")]
    TasksController,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::EventsClient,
        Self::EventsServer,
        Self::SessionClient,
        Self::SessionServer,
        Self::TasksAgent,
        Self::TasksController,
    ];

    /// Its name on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventsClient => "events.client",
            Self::EventsServer => "events.server",
            Self::SessionClient => "session.client",
            Self::SessionServer => "session.server",
            Self::TasksAgent => "tasks.agent",
            Self::TasksController => "tasks.controller",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: there are {list}", list = Role::ALL.map(|role| format!("`{role}`")).join(", "))]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// What the simulator says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// The first line, once per process. Answered by [`Reply::Hello`].
    Hello {
        /// The versions that the simulator speaks.
        protocol: Vec<u32>,
        /// To be said back, so that an answer that was written before the question shows.
        nonce: String,
    },
    /// A case begins, or a process of it starts again. Everything that the implementation keeps in
    /// memory is as in a new process. Answered by [`Reply::Done`] without effects, or
    /// [`Reply::Unsupported`].
    Reset(Box<Reset>),
    /// Something happened. Answered by [`Reply::Done`].
    Deliver {
        /// Counts the requests of a process from 1; the reply repeats it.
        n: u64,
        /// The virtual time now, not before that of any earlier request.
        at: u64,
        /// How far the host's wall clock is from `epoch_ms` plus `at`, in milliseconds.
        #[serde(default, skip_serializing_if = "is_zero")]
        skew_ms: i64,
        /// What.
        event: Event,
    },
    /// Time has passed, and nothing else happened: timers up to `until` are due. `until` is what the
    /// last reply called `next`, or later if the process was suspended meanwhile. Answered by
    /// [`Reply::Done`], whose `now` is the first instant that had an effect, or `until`.
    Advance {
        /// As in `deliver`.
        n: u64,
        /// The virtual time now.
        until: u64,
        /// As in `deliver`.
        #[serde(default, skip_serializing_if = "is_zero")]
        skew_ms: i64,
    },
    /// Virtual time stands still while the adapter does what takes real time, as a reply with `busy`
    /// has asked for. Answered by [`Reply::Done`].
    Settle {
        /// As in `deliver`.
        n: u64,
    },
    /// From now until `stop` the implementation runs by itself, on real sockets and by its own clock.
    /// Instead of `reset`, at most once per process. Answered by [`Reply::Done`] without effects, or
    /// [`Reply::Unsupported`]; from then on the adapter says [`Reply::Effect`] whenever something
    /// happens, without having been asked.
    Live(Box<Live>),
    /// The last line. The adapter exits with status 0 and says nothing.
    Stop,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A case begins, or a process of it starts again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reset {
    /// As in [`Request::Deliver`].
    pub n: u64,
    /// The scenario, for a log.
    pub case: String,
    /// From which all randomness is to be drawn, together with `host` and `life`: decimal text.
    pub seed: String,
    /// Which part is to be played.
    pub role: Role,
    /// Which host of the world it is, as `client-1`.
    pub host: String,
    /// Which life of its process, from 1.
    pub life: u64,
    /// The virtual time now: 0 in the first life.
    pub now: u64,
    /// The wall time when virtual time was 0, in milliseconds since 1970.
    pub epoch_ms: i64,
    /// As in `deliver`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skew_ms: i64,
    /// What the implementation is to be configured with.
    pub config: Config,
    /// What it has committed ([`Effect::StoreCommit`]) in earlier lives: base64 by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage: BTreeMap<String, String>,
}

/// The implementation is to run by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Live {
    /// As in [`Request::Deliver`].
    pub n: u64,
    /// The scenario, for a log.
    pub case: String,
    /// As in [`Reset`]; of use to an implementation whose pauses are drawn.
    pub seed: String,
    /// Which part is to be played.
    pub role: Role,
    /// Which host of the scenario it is, as `client-1`.
    pub host: String,
    /// Which life of its process, from 1: it is killed and started again when the scenario says so.
    pub life: u64,
    /// What the implementation is to be configured with. URLs are of the loopback interface, and
    /// times are as short as the scenario is fast.
    pub config: Config,
    /// How many times as fast as usual everything goes. `config` and `application` are as short
    /// already; an implementation that has other pauses and time limits divides them by it, as far as
    /// it can be told. Otherwise it is only later.
    pub speed: u64,
    /// What the application in front of the implementation does. It is the adapter's.
    pub application: Application,
    /// A folder that outlives the process, empty at first: of use to an implementation with
    /// `storage: folder`.
    pub folder: String,
    /// How many `app.event` of earlier lives have been read that did not fail. An application that
    /// stores what it takes, and has stored more than that, says the others again, before anything
    /// else: its process was killed before it could say so.
    #[serde(default)]
    pub taken: u64,
}

/// What the application does that an adapter puts in front of an implementation that runs by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Application {
    /// How long its handler takes for an event, in milliseconds; more than 0 only with the feature
    /// `handler.async`.
    pub handler_ms: u64,
    /// How long its open handler takes, likewise.
    pub open_handler_ms: u64,
}

/// What an implementation is configured with, by role. What it cannot be told it leaves as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    /// A follower of an event stream.
    EventsClient(EventsClientConfig),
    /// A server of event streams.
    EventsServer(EventsServerConfig),
    /// Those of the other roles.
    Other(BTreeMap<String, serde_json::Value>),
}

/// What a client of events is configured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsClientConfig {
    /// Where the server is: `http://server`; the WebSocket is at `/v1/ws` of it.
    pub base_url: String,
    /// The token of the agent whose stream is wanted.
    pub token: String,
    /// Whether the extension is to be offered; see `docs/spec/events.md`.
    pub extension: bool,
    /// Whether a client without a cursor begins with the oldest event instead of the first new one.
    pub from_beginning: bool,
    /// Between pings, in milliseconds.
    pub ping_every_ms: u64,
    /// How long a ping may stay without any sign of life, in milliseconds.
    pub pong_timeout_ms: u64,
    /// The shortest and longest pause before connecting again, in milliseconds.
    pub reconnect_ms: (u64, u64),
    /// How many events may wait for the application.
    pub queue_events: usize,
    /// How often an event is offered to a handler that fails.
    pub offers_max: u32,
}

/// What a server of events is configured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsServerConfig {
    /// The agents, and the token that stands for the stream of each.
    pub agents: BTreeMap<String, String>,
    /// The token of the publishers.
    pub publisher_token: String,
    /// Whether the extension is offered.
    pub extension: bool,
    /// Events per stream in memory.
    pub ring: usize,
    /// How long live events wait for a `resync`, in milliseconds.
    pub resync_grace_ms: u64,
    /// Frames on their way to a socket.
    pub window_frames: usize,
    /// How long a socket may take nothing, in milliseconds.
    pub write_stall_ms: u64,
    /// How long a client may say nothing, in milliseconds.
    pub silence_ms: u64,
    /// Events per stream in the log; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_events: Option<u64>,
    /// Events per page of the log.
    pub page_events: usize,
}

/// Names a connection within one life of a process: the adapter names those that it opens, the
/// simulator those that it accepts.
pub type Conn = u64;

/// Something that happens to an implementation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum Event {
    /// The application wants the implementation to begin: the first event of every life.
    #[serde(rename = "app.connect")]
    AppConnect,
    /// The application is done with what an effect handed it under this ticket.
    #[serde(rename = "app.done")]
    AppDone {
        /// Which.
        ticket: u64,
        /// Whether it went well. If not, it is as if a handler had failed.
        ok: bool,
    },
    /// The next so many calls of a handler of the application fail: the adapter's handler throws, and
    /// says so with `failed` in [`Effect::AppEvent`]. Only for implementations without the feature
    /// `handler.async`.
    #[serde(rename = "handler.fail")]
    HandlerFail {
        /// How many calls.
        times: u32,
    },
    /// The next so many calls of an open handler of the application fail, likewise.
    #[serde(rename = "open_handler.fail")]
    OpenHandlerFail {
        /// How many calls.
        times: u32,
    },
    /// A connection is open, with this subprotocol.
    #[serde(rename = "sock.open")]
    SockOpen {
        /// Which.
        conn: Conn,
        /// The subprotocol that was agreed upon.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<String>,
    },
    /// A message arrived: either `text` or `b64`.
    #[serde(rename = "sock.message")]
    SockMessage {
        /// Where.
        conn: Conn,
        /// A text message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// A binary message, in base64.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        b64: Option<String>,
    },
    /// The oldest messages that were to be sent have left for the network. Only for implementations
    /// with the feature `sock.sent`.
    #[serde(rename = "sock.sent")]
    SockSent {
        /// Where.
        conn: Conn,
        /// How many.
        count: u64,
    },
    /// A control frame arrived: a sign of life. Only for implementations with the feature
    /// `sock.alive`.
    #[serde(rename = "sock.alive")]
    SockAlive {
        /// Where.
        conn: Conn,
    },
    /// A connection is over. Nothing follows for it.
    #[serde(rename = "sock.close")]
    SockClose {
        /// Which.
        conn: Conn,
        /// The code of the close frame; absent if the connection broke.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
    },
    /// A connection could not be opened. Nothing follows for it.
    #[serde(rename = "sock.error")]
    SockError {
        /// Which.
        conn: Conn,
        /// What went wrong.
        problem: DialProblem,
        /// The status of the answer, if there was one that did not upgrade.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// For a log.
        message: String,
    },
    /// A client wants a WebSocket; answered by [`Effect::SockAccept`] or [`Effect::SockRefuse`]. Only
    /// for servers.
    #[serde(rename = "sock.request")]
    SockRequest {
        /// Names the connection.
        conn: Conn,
        /// Path and query.
        target: String,
        /// Names in lower case, with their values.
        headers: Vec<(String, String)>,
    },
    /// Somebody sent a request; answered by [`Effect::HttpResponse`]. Only for servers.
    #[serde(rename = "http.request")]
    HttpRequest {
        /// Names the request.
        id: u64,
        /// As `GET`.
        method: String,
        /// Path and query.
        target: String,
        /// Names in lower case, with their values.
        headers: Vec<(String, String)>,
        /// The body, as text.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
    },
    /// The answer to [`Effect::HttpRequest`].
    #[serde(rename = "http.response")]
    HttpResponse {
        /// Which request.
        id: u64,
        /// The status.
        status: u16,
        /// The body, as text.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
    },
    /// There is no answer to [`Effect::HttpRequest`].
    #[serde(rename = "http.error")]
    HttpError {
        /// Which request.
        id: u64,
        /// Whether the request did not leave; otherwise it may have arrived.
        not_sent: bool,
        /// For a log.
        message: String,
    },
    /// What came of [`Effect::StoreCommit`].
    #[serde(rename = "store.done")]
    StoreDone {
        /// Which.
        id: u64,
        /// Absent if all of it is durable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<StoreProblem>,
    },
    /// The process was stopped for so long, and goes on now: timers that were due meanwhile are due
    /// now, each once. Only for implementations with the feature `suspend`.
    #[serde(rename = "os.suspend")]
    OsSuspend {
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// The log of an agent is to forget what is below a number. Only for `events.server` with the
    /// feature `retain`.
    #[serde(rename = "server.retain")]
    ServerRetain {
        /// Whose.
        agent: String,
        /// The first number that is kept.
        oldest: u64,
    },
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DialProblem {
    /// Nobody listens, or the connection broke.
    Network,
    /// The answer was no upgrade; see `status`.
    Status,
    /// A subprotocol was offered and none was taken.
    Subprotocol,
}

/// What came of a commit that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreProblem {
    /// Nothing of it is stored.
    NotApplied,
    /// All or nothing of it is there when the process starts the next time.
    Unknown,
}

/// What the adapter says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// Answers [`Request::Hello`].
    Hello(Hello),
    /// Answers [`Request::Reset`] if the case cannot be played.
    Unsupported {
        /// Repeats that of the request.
        n: u64,
        /// What is missing, for a report.
        what: Vec<String>,
    },
    /// Answers everything else.
    Done(Done),
    /// Answers nothing: an implementation that runs by itself ([`Request::Live`]) did this, just now.
    /// The line has to be written, and not to wait in a buffer, before the implementation goes on: a
    /// client's `app.event` before its next `resync`, in particular.
    Effect {
        /// What it did: an effect that begins with `app.`, `server.`, `mark` or `panic`.
        effect: Effect,
    },
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// The version that was chosen, one of those that were offered.
    pub protocol: u32,
    /// That of the request.
    pub nonce: String,
    /// The name of the implementation.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The language in which it is written.
    #[serde(default)]
    pub language: String,
    /// Where people read about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// Where its defects are reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issues: Option<String>,
    /// The parts that it can play.
    pub roles: Vec<Role>,
    /// What else it can do: see `docs/conformance.md`. Names that are not known are ignored.
    #[serde(default)]
    pub features: Vec<String>,
    /// Whose clock it follows.
    pub clock: ClockKind,
    /// Where its randomness comes from.
    pub entropy: EntropyKind,
    /// What survives its process.
    pub storage: StorageKind,
}

/// Whose clock an implementation follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// The simulator's.
    Virtual,
    /// Its own: it cannot be driven in lockstep, only live.
    Real,
}

/// Where the randomness of an implementation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntropyKind {
    /// The seed of the case.
    Seeded,
    /// It has none.
    None,
}

/// What survives the process of an implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StorageKind {
    /// Nothing.
    None,
    /// What it commits with [`Effect::StoreCommit`].
    Virtual,
    /// What it writes to [`Live::folder`]. Only live.
    Folder,
}

/// A request has been carried out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// That of the request.
    pub n: u64,
    /// The virtual time that the implementation has now.
    pub now: u64,
    /// What it did, in this order.
    #[serde(default)]
    pub effects: Vec<Effect>,
    /// When it wants to be woken at the latest; absent or null if it waits for nothing. Anything that
    /// it does at another time without having been told of anything is nondeterminism.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Something that takes real time is not done yet: [`Request::Settle`] is wanted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub busy: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Something that an implementation does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type")]
pub enum Effect {
    /// It opens a connection; answered by [`Event::SockOpen`] or [`Event::SockError`].
    #[serde(rename = "sock.connect")]
    SockConnect {
        /// A name that was not used before in this life of the process.
        conn: Conn,
        /// As `ws://server/v1/ws?token=…`.
        url: String,
        /// Headers beside those of the handshake.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// The subprotocols that are offered.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        protocols: Vec<String>,
    },
    /// It sends a text message. No protocol here has others.
    #[serde(rename = "sock.send")]
    SockSend {
        /// Where.
        conn: Conn,
        /// The message.
        text: String,
    },
    /// It closes a connection, or gives up opening it. The simulator answers with
    /// [`Event::SockClose`] only if the feature `sock.closed` is announced.
    #[serde(rename = "sock.close")]
    SockClose {
        /// Which.
        conn: Conn,
        /// The code of the close frame.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        /// The reason in the close frame.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// It reads from a connection, or leaves it alone; at first it reads.
    #[serde(rename = "sock.read")]
    SockRead {
        /// Which.
        conn: Conn,
        /// Whether it reads.
        on: bool,
    },
    /// It takes a connection.
    #[serde(rename = "sock.accept")]
    SockAccept {
        /// Which.
        conn: Conn,
        /// The subprotocol that it took, one of those that were offered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<String>,
    },
    /// It does not take a connection.
    #[serde(rename = "sock.refuse")]
    SockRefuse {
        /// Which.
        conn: Conn,
        /// The status of the answer.
        status: u16,
        /// The headers of the answer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// The body of the answer, as text.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
    },
    /// It answers a request.
    #[serde(rename = "http.response")]
    HttpResponse {
        /// Which.
        id: u64,
        /// The status.
        status: u16,
        /// Headers.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// The body, as text.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
    },
    /// It sends a request; answered by [`Event::HttpResponse`] or [`Event::HttpError`].
    #[serde(rename = "http.request")]
    HttpRequest {
        /// A name that was not used before in this life of the process.
        id: u64,
        /// As `POST`.
        method: String,
        /// As `http://server/v1/tasks`.
        url: String,
        /// Headers.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// The body, as text.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
    },
    /// It wants this to be durable, all or nothing; answered by [`Event::StoreDone`]. Only with
    /// `storage: virtual`.
    #[serde(rename = "store.commit")]
    StoreCommit {
        /// A name that was not used before in this life of the process.
        id: u64,
        /// Base64 by key; null takes a key away.
        writes: BTreeMap<String, Option<String>>,
    },
    /// It gives an event to the application's handler.
    #[serde(rename = "app.event")]
    AppEvent {
        /// The text of the frame in which the event came, or what the implementation made of it: a
        /// JSON object with `agent_seq`, if the event had one, and the payload's `key`.
        event: String,
        /// The epoch of the number, if the implementation knows of any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<String>,
        /// The handler failed, as [`Event::HandlerFail`] wanted it: it did not take the event.
        #[serde(default, skip_serializing_if = "is_false")]
        failed: bool,
        /// The implementation waits until the handler is done: [`Event::AppDone`] says so. Only with
        /// the feature `handler.async`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<u64>,
        /// What the application stores in the transaction of the event's effect: base64 by key. It is
        /// in the storage of later lives if and only if the event was taken. Only with `ticket` and
        /// `storage: virtual`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        commits: BTreeMap<String, String>,
    },
    /// It tells the application that it has joined a stream: everything above the number is owed from
    /// now on. An implementation that does not say so is taken to have joined just below the first
    /// event that it gives to the application.
    #[serde(rename = "app.joined")]
    AppJoined {
        /// The epoch of the number, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<String>,
        /// The number.
        sequence: u64,
    },
    /// It is done with everything up to this number, and will go on after it. Without it the simulator
    /// goes by what was given to the application, and waits longer for a run to end.
    #[serde(rename = "app.position")]
    AppPosition {
        /// The epoch of the number, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<String>,
        /// The number.
        sequence: u64,
    },
    /// It tells the application that a connection is open. With a ticket it waits for the
    /// application's open handlers.
    #[serde(rename = "app.open")]
    AppOpen {
        /// As in `app.event`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<u64>,
    },
    /// It tells the application that events are lost for good.
    #[serde(rename = "app.gap")]
    AppGap {
        /// What the server said of the cursor, as `too_old`.
        verdict: String,
        /// Which numbers, as inclusive ranges; empty if that is not known.
        lost: Vec<(u64, u64)>,
        /// The epoch in which it goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<String>,
        /// The number after which it goes on.
        sequence: u64,
    },
    /// It tells the application that a resync is complete.
    #[serde(rename = "app.resynced")]
    AppResynced {
        /// How many events it brought.
        replayed: u64,
        /// Whether some could not be supplied.
        gap_detected: bool,
    },
    /// It tells the application that it no longer offers an event to a handler that fails.
    #[serde(rename = "app.gave_up")]
    AppGaveUp {
        /// As in `app.event`.
        event: String,
    },
    /// Anything else that it tells the application, for the trace.
    #[serde(rename = "app.state")]
    AppState {
        /// As one line.
        text: String,
    },
    /// The log has opened an epoch. Only of `events.server` with the feature `log.reports`, as the
    /// next two: with them the simulator can judge what a log holds and take its place.
    #[serde(rename = "log.epoch")]
    LogEpoch {
        /// Its name.
        epoch: String,
    },
    /// The log holds this of a stream: told of every stream at the start, and after each commit that
    /// changed it.
    #[serde(rename = "log.state")]
    LogState {
        /// Whose.
        agent: String,
        /// The lowest number that can be read.
        oldest: u64,
        /// The highest number that was given.
        head: u64,
    },
    /// The log holds this event.
    #[serde(rename = "log.event")]
    LogEvent {
        /// Whose.
        agent: String,
        /// Its number.
        sequence: u64,
        /// The event as it is stored: a JSON object with the payload's `key`.
        event: String,
    },
    /// It listens. Only of servers that run by themselves, and the first that they do.
    #[serde(rename = "server.listening")]
    ServerListening {
        /// Where, as `127.0.0.1:49152`: on the loopback interface, at a port of its choice.
        address: String,
    },
    /// It reached a place that has a name in the simulator. Only with the feature `marks`: a scenario
    /// may wait for marks, and demand them; those of an implementation that has none are not
    /// demanded of it. Names that are not known are ignored.
    #[serde(rename = "mark")]
    Mark {
        /// As `events.resync_sent`.
        name: String,
    },
    /// The implementation crashed, with this message. Nothing follows.
    #[serde(rename = "panic")]
    Panic {
        /// What it said.
        message: String,
    },
}

impl Request {
    /// Its number; a `hello` and a `stop` have none.
    pub fn n(&self) -> Option<u64> {
        match self {
            Self::Hello { .. } | Self::Stop => None,
            Self::Reset(reset) => Some(reset.n),
            Self::Live(live) => Some(live.n),
            Self::Deliver { n, .. } | Self::Advance { n, .. } | Self::Settle { n } => Some(*n),
        }
    }
}

/// The features that mean something; see `docs/conformance.md`.
pub mod feature {
    /// The extension of the protocol is offered.
    pub const EXTENSION: &str = "extension";
    /// Handlers may take time: `app.event` and `app.open` carry tickets.
    pub const HANDLER_ASYNC: &str = "handler.async";
    /// Handlers of the application may fail, and the adapter can make them.
    pub const HANDLER_FAIL: &str = "handler.fail";
    /// Open handlers of the application may fail, and the adapter can make them.
    pub const OPEN_HANDLER_FAIL: &str = "open_handler.fail";
    /// Wants to be told what has left for the network.
    pub const SOCK_SENT: &str = "sock.sent";
    /// Wants to be told of control frames.
    pub const SOCK_ALIVE: &str = "sock.alive";
    /// Wants to be told that a connection is over that it has closed itself, as a browser does.
    pub const SOCK_CLOSED: &str = "sock.closed";
    /// Can be stopped for a while.
    pub const SUSPEND: &str = "suspend";
    /// Begins with the oldest event, if it is told to.
    pub const FROM_BEGINNING: &str = "from_beginning";
    /// A log that can be told to forget.
    pub const RETAIN: &str = "retain";
    /// Says which marks it reaches.
    pub const MARKS: &str = "marks";
    /// Reports what its log holds.
    pub const LOG_REPORTS: &str = "log.reports";
}
