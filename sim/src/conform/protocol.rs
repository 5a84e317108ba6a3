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

use super::session::{
    Attachment, Held, NotTaken, Question, RowHeld, SessionClientConfig, SessionServerConfig,
    TurnEnding, Usage, ViewUpdate,
};
pub use super::tasks::{PublicKey, SigningKey, Stream, TasksAgentConfig, TasksControllerConfig};
use crate::history::Stage;

/// The version of the protocol that this program speaks.
pub const VERSION: u32 = 1;

/// The longest line, in bytes, without its end.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// How much of what an implementation has stored is handed back in one line, in bytes of keys and
/// values; one value may be longer.
pub const STORAGE_BYTES_MAX: usize = 512 << 10;

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
    /// What did not fit into the line of a `reset`, or of the `load` before: it belongs to the
    /// `storage` there. Only for implementations that commit much. Answered by [`Reply::Done`] without
    /// effects.
    Load {
        /// As in `deliver`.
        n: u64,
        /// As in `reset`.
        storage: BTreeMap<String, String>,
        /// Another `load` follows, and nothing else.
        #[serde(default, skip_serializing_if = "is_false")]
        more: bool,
    },
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
    /// Not all of it fits into a line: [`Request::Load`] follows, and nothing else.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
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
    /// Who runs tasks.
    TasksAgent(Box<TasksAgentConfig>),
    /// Who hands tasks out.
    TasksController(TasksControllerConfig),
    /// A view of a conversation.
    SessionClient(SessionClientConfig),
    /// A server of conversations.
    SessionServer(Box<SessionServerConfig>),
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
        /// The body of that answer, as text.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
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
    /// What does the log hold? Answered at once with one [`Effect::LogState`], then with the events
    /// above `after`, `count` at most, as [`Effect::LogEvent`]. It comes before `app.connect`, too,
    /// and changes nothing. Only for `events.server` with the feature `log.reports`.
    #[serde(rename = "log.read")]
    LogRead {
        /// Whose.
        agent: String,
        /// The number above which events are wanted.
        after: u64,
        /// How many events at most.
        count: usize,
    },
    /// A command has written something. Only for `tasks.agent`, as the next two.
    #[serde(rename = "exec.output")]
    ExecOutput {
        /// Whose, as in [`Effect::ExecStart`].
        attempt: String,
        /// Where.
        stream: Stream,
        /// The bytes, in base64; not always text, and cut anywhere.
        b64: String,
    },
    /// A command has ended, and everything that it wrote was told. Nothing follows for it. What
    /// runs when the process ends is ended with it, and not told.
    #[serde(rename = "exec.exit")]
    ExecExit {
        /// Whose.
        attempt: String,
        /// The exit code: 0 is `completed`, everything else `failed`; -1 if it was ended.
        code: i64,
        /// What went wrong, for the result; empty if nothing did.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        error: String,
    },
    /// What does the store hold? Answered at once by [`Effect::TaskKnown`] for each attempt, and one
    /// [`Effect::TaskWaits`]. Only with the feature `task.reports`. It comes before `app.connect`,
    /// when the store is as the last life has left it; from time to time when the faults are over;
    /// and after a run in a life of its own, in which there is no `app.connect`.
    #[serde(rename = "task.look")]
    TaskLook {
        /// The attempts of which the store has ever held something.
        attempts: Vec<String>,
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
    /// The user says a message. Answered, at once or later, by [`Effect::AppInput`] or
    /// [`Effect::AppRefused`]. Only for `session.client`, as the next two.
    #[serde(rename = "app.say")]
    AppSay {
        /// Names the wish.
        ticket: u64,
        /// The text.
        text: String,
        /// What comes with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        attachments: Vec<Attachment>,
    },
    /// The user answers the question that is shown; as `app.say`.
    #[serde(rename = "app.answer")]
    AppAnswer {
        /// Names the wish.
        ticket: u64,
        /// The text.
        text: String,
    },
    /// The user wants to be connected: now, and also after another connection took the place of this
    /// client's.
    #[serde(rename = "app.reconnect")]
    AppReconnect,
    /// The application says something in a turn; answered by [`Effect::TurnHeard`] as soon as that is
    /// durable and on its way, and before anything else happens in this turn. Only for
    /// `session.server`, as the next three.
    #[serde(rename = "turn.say")]
    TurnSay {
        /// Which turn.
        ticket: u64,
        /// The text.
        text: String,
        /// The model that says it.
        model: String,
        /// What it cost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// The application tells how it is getting on: a `notification` that has no number.
    #[serde(rename = "turn.progress")]
    TurnProgress {
        /// Which turn.
        ticket: u64,
        /// Its kind, as `tool_calling`.
        kind: String,
        /// Its other fields.
        fields: serde_json::Value,
    },
    /// The application is done with a turn.
    #[serde(rename = "turn.end")]
    TurnEnd {
        /// Which turn.
        ticket: u64,
        /// How.
        ending: TurnEnding,
    },
    /// What does the store hold? Answered at once by one [`Effect::SessionHolds`] for each principal.
    /// Only with the feature `conversation.reports`. It comes from time to time when the faults are
    /// over, and after a run in a life of its own, in which there is no `app.connect`.
    #[serde(rename = "session.look")]
    SessionLook {
        /// Whose conversations.
        principals: Vec<String>,
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
    /// It sends a WebSocket ping. `sock.sent` counts it as a message, and `sock.alive` tells of the
    /// pong.
    #[serde(rename = "sock.ping")]
    SockPing {
        /// Where.
        conn: Conn,
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
    /// The log has opened an epoch: it is durable. Only of `events.server` with the feature
    /// `log.reports`, as the next two: with them the simulator can judge what a log holds, and put an
    /// older one in its place.
    #[serde(rename = "log.epoch")]
    LogEpoch {
        /// Its name.
        epoch: String,
    },
    /// The log holds this of a stream: the answer to [`Event::LogRead`], and told after each commit
    /// that changed it.
    #[serde(rename = "log.state")]
    LogState {
        /// Whose.
        agent: String,
        /// The lowest number that can be read.
        oldest: u64,
        /// The highest number that was given.
        head: u64,
    },
    /// The log holds this event: in the answer to [`Event::LogRead`], and told after it was stored.
    #[serde(rename = "log.event")]
    LogEvent {
        /// Whose.
        agent: String,
        /// Its number.
        sequence: u64,
        /// The event as it is stored: a JSON object with the payload's `key`.
        event: String,
    },
    /// It runs a command; what comes of it is told by [`Event::ExecOutput`] and [`Event::ExecExit`].
    /// Only of `tasks.agent`, as all that follows up to `task.waits`.
    #[serde(rename = "exec.start")]
    ExecStart {
        /// Whose: the id of the task, `/`, and that of the attempt. Neither id has a `/` in it.
        attempt: String,
        /// What to run: the text that came with the task.
        command: String,
    },
    /// It reads what a command writes, or leaves it in the pipe, which has room for 8 pieces; at
    /// first it reads.
    #[serde(rename = "exec.read")]
    ExecRead {
        /// Whose.
        attempt: String,
        /// Whether it reads.
        on: bool,
    },
    /// It ends a command and everything that it started.
    #[serde(rename = "exec.kill")]
    ExecKill {
        /// Whose.
        attempt: String,
    },
    /// Its store has it durably that an attempt is this far: told before anything is said or done
    /// because of it. Only with the feature `task.reports`, as all that follows. With them the
    /// simulator judges what is durable; an agent without them is taken at its word: what it says
    /// and does is taken to have been stored just before.
    #[serde(rename = "task.kept")]
    TaskKept {
        /// Which.
        attempt: String,
        /// How far.
        stage: Stage,
    },
    /// Its store has forgotten an attempt that had not begun.
    #[serde(rename = "task.forgot")]
    TaskForgot {
        /// Which.
        attempt: String,
    },
    /// Its store has bound a number of a stream to these bytes: told before they are sent.
    #[serde(rename = "task.bound")]
    TaskBound {
        /// Whose.
        attempt: String,
        /// The stream.
        stream: Stream,
        /// The number.
        sequence: u64,
        /// The bytes, in base64, as the command wrote them.
        b64: String,
    },
    /// Its store takes so many bytes, more than ever before in this life.
    #[serde(rename = "task.spool")]
    TaskSpool {
        /// How many.
        bytes: u64,
    },
    /// Answers [`Event::TaskLook`]: what its store knows of an attempt.
    #[serde(rename = "task.known")]
    TaskKnown {
        /// Which.
        attempt: String,
        /// How far it is; absent if nothing is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stage: Option<Stage>,
    },
    /// Answers [`Event::TaskLook`]: what waits in its store.
    #[serde(rename = "task.waits")]
    TaskWaits {
        /// Attempts that have not ended.
        open: Vec<String>,
        /// Attempts of which a result waits for an acknowledgement.
        results: Vec<String>,
        /// How many runs of output wait for an acknowledgement.
        output: usize,
    },
    /// Its record has it durably that an attempt is in a state: told before anybody else hears of it.
    /// Only of `tasks.controller` with the feature `record.reports`; without, that states only
    /// ascend is judged by the last look alone.
    #[serde(rename = "record.state")]
    RecordState {
        /// Which attempt, as in `exec.start`.
        attempt: String,
        /// `delivered`, `received`, `running`, `discarded`, `interrupted` or `final`.
        state: String,
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
    /// The client has taken what the user said, under this id. Only of `session.client`, as the next
    /// two.
    #[serde(rename = "app.input")]
    AppInput {
        /// That of `app.say` or `app.answer`.
        ticket: u64,
        /// The id: that under which a message is sent. The answer of a client that knows only the base
        /// contract has none on the wire; its adapter makes one up that was not used before.
        id: String,
    },
    /// The client has not taken what the user said.
    #[serde(rename = "app.refused")]
    AppRefused {
        /// That of `app.say` or `app.answer`.
        ticket: u64,
        /// Why.
        problem: NotTaken,
        /// For a log.
        message: String,
    },
    /// What the user sees has changed.
    #[serde(rename = "app.view")]
    AppView(Box<ViewUpdate>),
    /// What a commit, which has to follow in the same reply, means for the inputs in flight. Only of
    /// `session.client` with the feature `in_flight.reports`: without, an input counts as stored when
    /// it is sent, so that one that is sent too early shows when it does not survive.
    #[serde(rename = "store.in_flight")]
    StoreInFlight {
        /// Which commit.
        id: u64,
        /// The inputs that it keeps.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kept: Vec<String>,
        /// The inputs that it keeps no longer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dropped: Vec<String>,
    },
    /// The application is to take a turn: what the user said is durable as a row, and so is that its
    /// turn has begun. Answered by any number of [`Event::TurnSay`] and [`Event::TurnProgress`], and
    /// one [`Event::TurnEnd`]. Only of `session.server`, as all that follows up to `session.holds`.
    #[serde(rename = "app.turn")]
    AppTurn {
        /// A name that was not used before in this life of the process.
        ticket: u64,
        /// Whose conversation.
        principal: String,
        /// The position of the row that it is about.
        position: u64,
        /// What the user said, as it was said.
        text: String,
    },
    /// What the application said last in this turn is durable, and on its way to whoever is connected.
    #[serde(rename = "turn.heard")]
    TurnHeard {
        /// Which turn.
        ticket: u64,
    },
    /// What a commit means for the conversations, in the order in which it was done. Only with the
    /// feature `conversation.reports`; without, nobody judges what is durable, how turns are taken, or
    /// whether something is a row that is shown as one.
    #[serde(rename = "store.conversations")]
    StoreConversations {
        /// Which commit: it has to follow in the same reply. Absent: all of it is durable already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        /// What.
        held: Vec<Held>,
    },
    /// What the next message on a connection of the base contract would be on one of the extension:
    /// with it the simulator knows the positions of the rows in it. With `conversation.reports`.
    #[serde(rename = "session.frame")]
    SessionFrame {
        /// Where.
        conn: Conn,
        /// The message.
        text: String,
    },
    /// Answers [`Event::SessionLook`].
    #[serde(rename = "session.holds")]
    SessionHolds {
        /// Whose conversation.
        principal: String,
        /// All of its rows, ascending.
        rows: Vec<RowHeld>,
        /// The question that is open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        question: Option<Question>,
        /// The positions of the inputs whose turn has not begun.
        waiting: Vec<u64>,
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
            Self::Load { n, .. }
            | Self::Deliver { n, .. }
            | Self::Advance { n, .. }
            | Self::Settle { n } => Some(*n),
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
    /// Takes the times of its pings from the configuration. Those of others are left alone, and the
    /// server is as patient with them as the specification says.
    pub const PING_CONFIGURED: &str = "ping.configured";
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
    /// An agent that reports what its store holds.
    pub const TASK_REPORTS: &str = "task.reports";
    /// A controller that reports in which state each attempt is.
    pub const RECORD_REPORTS: &str = "record.reports";
    /// Signs, or checks, with the cheap stand-in for RSA-PSS.
    pub const SIGN_FNV1A: &str = "sign.fnv1a";
    /// Reports which inputs its commits keep.
    pub const IN_FLIGHT_REPORTS: &str = "in_flight.reports";
    /// Reports what its store of conversations holds.
    pub const CONVERSATION_REPORTS: &str = "conversation.reports";
}
