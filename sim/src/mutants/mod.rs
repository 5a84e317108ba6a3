//! Known-bad variants of the implementation, to prove that the checkers can see.
//!
//! Each mutant is the bug of a real system. It enters where production code lets something be put
//! in anyway: around a core (`twist`), around the log (`store`), in the configuration of the
//! world, or in a policy that a core takes when it is made. Each names the scenario in which it
//! shows and the checker that has to catch it there; one that survives is a hole in the checkers.

mod events;
mod session;
mod tasks;
mod twist;

use gapless::Core;
use gapless::database::Synchronous;
use gapless::events::client::{self as client_core, Client};
use gapless::events::log::Command;
use gapless::events::server::{self as server_core, Server};
use gapless::events::sqlite::SqliteLog;
use gapless::recovery::Entropy;
use gapless::session::client as session_client;
use gapless::session::server as session_server;
use gapless::session::{conversation, in_flight};
use gapless::storage::Transact;
use gapless::tasks::agent::{self as agent_core, Agent};
use gapless::tasks::controller::record;
use gapless::tasks::controller::sqlite::SqliteRecord;
use gapless::tasks::controller::{self as controller_core, Controller};
use gapless::tasks::store as task_store;
use gapless::tasks::store::sqlite::SqliteTaskStore;

use crate::world::HostClock;

/// A client's core, as it is or distorted.
pub(crate) type ClientCore =
    Box<dyn Core<Input = client_core::Input, Output = client_core::Output>>;

/// A server's core, as it is or distorted.
pub(crate) type ServerCore =
    Box<dyn Core<Input = server_core::Input, Output = server_core::Output>>;

/// An agent's core, as it is or distorted.
pub(crate) type AgentCore = Box<dyn Core<Input = agent_core::Input, Output = agent_core::Output>>;

/// A controller's core, as it is or distorted.
pub(crate) type ControllerCore =
    Box<dyn Core<Input = controller_core::Input, Output = controller_core::Output>>;

/// An agent's store, as it is or distorted.
pub(crate) type TaskStore = Box<dyn Transact<task_store::Command>>;

/// A controller's record, as it is or distorted.
pub(crate) type Record = Box<dyn Transact<record::Command>>;

/// The core of a session's client, as it is or distorted.
pub(crate) type SessionClientCore =
    Box<dyn Core<Input = session_client::Input, Output = session_client::Output>>;

/// The core of a session's server, as it is or distorted.
pub(crate) type SessionServerCore =
    Box<dyn Core<Input = session_server::Input, Output = session_server::Output>>;

/// The store of a session's client, as it is or distorted.
pub(crate) type InFlightStore = Box<dyn Transact<in_flight::Command>>;

/// The store of a session's server, as it is or distorted.
pub(crate) type ConversationStore = Box<dyn Transact<conversation::Command>>;

/// A known-bad variant of the implementation.
pub struct Mutant {
    /// Names it on the command line.
    pub id: &'static str,
    /// What it does wrong, as a sentence without a subject.
    pub does: &'static str,
    /// Where the bug comes from.
    pub reference: &'static [&'static str],
    /// The statements that it breaks.
    pub statements: &'static [&'static str],
    /// The scenario in which it shows.
    pub home: &'static str,
    /// The checker that has to catch it there.
    pub checker: &'static str,
    distortion: Distortion,
}

/// How a mutant enters.
enum Distortion {
    Client(fn(Client) -> ClientCore),
    Server(fn(Server) -> ServerCore),
    Store(fn(SqliteLog) -> Box<dyn Transact<Command>>),
    Agent(fn(Agent) -> AgentCore),
    Controller(fn(Controller) -> ControllerCore),
    TaskStore(fn(SqliteTaskStore, HostClock) -> TaskStore),
    Record(fn(SqliteRecord) -> Record),
    SessionClient(fn(session_client::Client) -> SessionClientCore),
    SessionServer(fn(session_server::Server) -> SessionServerCore),
    InFlight(fn(InFlightStore) -> InFlightStore),
    Conversations(fn(ConversationStore) -> ConversationStore),
    World(fn(&mut Settings)),
    Entropy(fn() -> Box<dyn Entropy>),
}

/// What of the world a mutant can configure.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings {
    /// What a commit of the log survives.
    pub(crate) synchronous: Synchronous,
    /// The server's disk says that a sync is done, and has not begun.
    pub(crate) lying_disk: bool,
    /// Agents keep room for one result, however many attempts they have.
    pub(crate) reserve_once: bool,
    /// Agents let every attempt wait.
    pub(crate) endless_queue: bool,
}

/// The mutant that always has to fail: it shows that a failure is reported as one.
pub const CANARY: &str = "canary";

/// Every mutant; the canary is the first.
pub const CATALOGUE: &[Mutant] = &[
    Mutant {
        id: CANARY,
        does: "takes the third event for handled and never gives it to the application",
        reference: &[],
        statements: &["CORE-3"],
        home: "events/server-restart",
        checker: "no_loss",
        distortion: Distortion::Client(events::client::canary),
    },
    Mutant {
        id: "cursor-jumps",
        does: "resumes from the highest number that it has seen instead of the highest contiguous one",
        reference: &["relaycast:R1", "relaycast:R2", "relaycast:R10"],
        statements: &["CORE-3", "EV-4"],
        home: "events/live-before-replay-cut",
        checker: "cursor_is_contiguous",
        distortion: Distortion::Client(events::client::cursor_jumps),
    },
    Mutant {
        id: "live-before-replay",
        does: "sends live events while an older replay is on its way",
        reference: &["relaycast:R3", "FS-24", "FS-25"],
        statements: &["CORE-5", "EV-5"],
        home: "events/publishing-faster-than-the-reader",
        checker: "replay_is_in_order",
        distortion: Distortion::Server(events::server::live_before_replay),
    },
    Mutant {
        id: "counter-reset",
        does: "counts from 0 after a restart, and calls whoever is beyond its count up to date",
        reference: &["relaycast:R4", "FS-08"],
        statements: &["CORE-2", "CORE-4", "EV-2"],
        home: "events/server-restart",
        checker: "no_loss",
        distortion: Distortion::Server(events::server::counter_reset),
    },
    Mutant {
        id: "empty-ring-up-to-date",
        does: "calls everybody up to date as long as its ring is empty",
        reference: &["springdrift:S5", "relaycast:R5a", "FS-34"],
        statements: &["CORE-4", "EV-5"],
        home: "events/empty-ring",
        checker: "no_loss",
        distortion: Distortion::Server(events::server::empty_ring_up_to_date),
    },
    Mutant {
        id: "client-clock",
        does: "replays to base clients what came after the time of their own clock",
        reference: &["relaycast:R5b", "relaycast:R5c", "FS-11"],
        statements: &["EV-6"],
        home: "events/clock-steps-base",
        checker: "gap_is_true",
        distortion: Distortion::Server(events::server::client_clock),
    },
    Mutant {
        id: "page-limit",
        does: "replays at most 1,000 events from the log and goes on with the ring",
        reference: &["relaycast:R5d", "FS-12", "FS-29"],
        statements: &["CORE-5", "EV-5"],
        home: "events/ring-overflow-1700",
        checker: "replay_is_in_order",
        distortion: Distortion::Server(events::server::page_limit),
    },
    Mutant {
        id: "newest-first",
        does: "replays the newest events first",
        reference: &["relaycast:R5e", "FS-15"],
        statements: &["CORE-5", "EV-5"],
        home: "events/cut-between-log-and-ring",
        checker: "replay_is_in_order",
        distortion: Distortion::Server(events::server::newest_first),
    },
    Mutant {
        id: "failure-swallowed",
        does: "takes an event for handled although its handler failed",
        reference: &["relaycast:R6", "springdrift:S14", "relaycast:N1"],
        statements: &["CORE-3", "EV-9"],
        home: "events/handler-fails",
        checker: "no_loss",
        distortion: Distortion::Client(events::client::failure_swallowed),
    },
    Mutant {
        id: "hole-unnoticed",
        does: "takes the next event as it comes, whatever its number",
        reference: &["relaycast:R7", "FS-10"],
        statements: &["CORE-6", "EV-8"],
        home: "events/hole-in-the-live-stream",
        checker: "no_loss",
        distortion: Distortion::Client(events::client::hole_unnoticed),
    },
    Mutant {
        id: "no-first-cursor",
        does: "has no cursor before its first event, and begins with what is new each time",
        reference: &["relaycast:R8", "relaycast:R16", "FS-01", "FS-14"],
        statements: &["EV-3"],
        home: "events/first-connection-without-events",
        checker: "cursor_is_contiguous",
        distortion: Distortion::Client(events::client::no_first_cursor),
    },
    Mutant {
        id: "gives-up-dialing",
        does: "stops connecting after ten failures in a row",
        reference: &["relaycast:R11"],
        statements: &["CORE-11"],
        home: "events/refused-for-ten-minutes",
        checker: "progress",
        distortion: Distortion::Client(events::client::gives_up_dialing),
    },
    Mutant {
        id: "handled-before-done",
        does: "moves its cursor when it hands an event over, not when the handler is done",
        reference: &["springdrift:S9", "FS-38"],
        statements: &["CORE-3", "EV-9", "EV-12"],
        home: "events/slow-handler-over-reconnect",
        checker: "cursor_is_contiguous",
        distortion: Distortion::Client(events::client::handled_before_done),
    },
    Mutant {
        id: "duplicates-applied",
        does: "gives the application an event again when it arrives again",
        reference: &["springdrift:S10", "FS-02", "FS-35"],
        statements: &["EV-8"],
        home: "events/slow-handler-over-reconnect",
        checker: "no_duplicate",
        distortion: Distortion::Client(events::client::duplicates_applied),
    },
    Mutant {
        id: "out-of-order",
        does: "hands some events over after their successors",
        reference: &["FS-23", "FS-26"],
        statements: &["EV-8", "EV-12"],
        home: "events/server-restart",
        checker: "in_order",
        distortion: Distortion::Client(events::client::out_of_order),
    },
    Mutant {
        id: "wrong-stream",
        does: "serves everybody the stream of whoever connected first",
        reference: &["relaycast:N4"],
        statements: &["CORE-14", "EV-13"],
        home: "events/muted-and-edited",
        checker: "no_phantom",
        distortion: Distortion::Server(events::server::wrong_stream),
    },
    Mutant {
        id: "replay-differs",
        does: "replays events from the log without a field that they had when they were live",
        reference: &["relaycast:R5g", "relaycast:R5h"],
        statements: &["CORE-1", "CORE-5"],
        home: "events/empty-ring",
        checker: "chain_is_the_publishers",
        distortion: Distortion::Store(events::store::replay_differs),
    },
    Mutant {
        id: "gap-swallowed",
        does: "tells the application nothing of events that will never come",
        reference: &["FS-29", "FS-30"],
        statements: &["CORE-4", "EV-7", "EV-10"],
        home: "events/retention-past-the-cursor",
        checker: "no_loss",
        distortion: Distortion::Client(events::client::gap_swallowed),
    },
    Mutant {
        id: "backoff-never-resets",
        does: "waits longer after each lost connection, also after one that worked",
        reference: &["hostlink:H17"],
        statements: &["CORE-11"],
        home: "events/backoff-starts-anew",
        checker: "progress",
        distortion: Distortion::Client(events::client::backoff_never_resets),
    },
    Mutant {
        id: "old-close-removes-new",
        does: "takes the newest connection of an agent out of delivery when an older one closes",
        reference: &["FS-52"],
        statements: &["CORE-9"],
        home: "events/late-close-of-an-old-socket",
        checker: "replay_is_in_order",
        distortion: Distortion::Server(events::server::old_close_removes_new),
    },
    Mutant {
        id: "restore-unnoticed",
        does: "judges a cursor by its number and not by its epoch",
        reference: &["FS-07", "relaycast:R4"],
        statements: &["CORE-2", "CORE-4", "EV-2"],
        home: "events/restore-behind-a-cut",
        checker: "gap_is_true",
        distortion: Distortion::Server(events::server::restore_unnoticed),
    },
    Mutant {
        id: "epochs-repeat",
        does: "names epochs after how many there were, so that a restored log names them again",
        reference: &["FS-07"],
        statements: &["CORE-2"],
        home: "events/restore-twice",
        checker: "one_name_one_payload",
        distortion: Distortion::Entropy(events::server::counting_entropy),
    },
    Mutant {
        id: "numbers-reused",
        does: "counts from the rows of the log, and so from 0 again when retention has removed all",
        reference: &["hostlink:H3", "FS-32"],
        statements: &["CORE-1", "EV-1"],
        home: "events/retention-empties-the-log",
        checker: "one_name_one_payload",
        distortion: Distortion::Store(events::store::numbers_reused),
    },
    Mutant {
        id: "stored-twice",
        does: "stores an event anew when it is published again under its id",
        reference: &["FS-39", "FS-43"],
        statements: &["EV-1"],
        home: "events/publish-repeated",
        checker: "one_name_one_payload",
        distortion: Distortion::Store(events::store::stored_twice),
    },
    Mutant {
        id: "ack-before-durable",
        does: "acknowledges what its disk has only promised to keep",
        reference: &["springdrift:S9", "FS-76"],
        statements: &["EV-1"],
        home: "events/power-loss",
        checker: "acknowledged_is_durable",
        distortion: Distortion::World(|settings| settings.lying_disk = true),
    },
    Mutant {
        id: "synchronous-normal",
        does: "commits with `synchronous=NORMAL`",
        reference: &["FS-76"],
        statements: &["EV-1"],
        home: "events/power-loss",
        checker: "acknowledged_is_durable",
        distortion: Distortion::World(|settings| settings.synchronous = Synchronous::Normal),
    },
    Mutant {
        id: "result-never-said",
        does: "keeps every result to itself",
        reference: &["hostlink:H11"],
        statements: &["TK-8", "TK-9"],
        home: "tasks/started-reply-lost",
        checker: "tasks_progress",
        distortion: Distortion::Agent(tasks::result_never_said),
    },
    Mutant {
        id: "received-never-runs",
        does: "remembers what waited when its process ended, and does not run it",
        reference: &["hostlink:H1", "hostlink:H2"],
        statements: &["TK-2"],
        home: "tasks/crash-with-a-queue",
        checker: "tasks_progress",
        distortion: Distortion::Agent(tasks::received_never_runs),
    },
    Mutant {
        id: "output-number-reused",
        does: "sends a piece that was lost with its connection again together with what follows",
        reference: &["hostlink:H3"],
        statements: &["TK-4"],
        home: "tasks/cut-while-it-writes",
        checker: "output_is_as_written",
        distortion: Distortion::Agent(tasks::number_reused),
    },
    Mutant {
        id: "hole-undeclared",
        does: "sends what it kept behind a hole as if there were none",
        reference: &["hostlink:H4", "hostlink:H5"],
        statements: &["TK-5", "TK-10"],
        home: "tasks/spool-overflow",
        checker: "agreed_first",
        distortion: Distortion::Agent(tasks::hole_undeclared),
    },
    Mutant {
        id: "tail-lost",
        does: "forgets what a command wrote last when it ends",
        reference: &["hostlink:H5", "FS-68"],
        statements: &["TK-4", "TK-5"],
        home: "tasks/cut-while-it-writes",
        checker: "loss_is_declared",
        distortion: Distortion::Agent(tasks::tail_lost),
    },
    Mutant {
        id: "rotation-resurrects",
        does: "says that an attempt runs whose output it has given up after the end",
        reference: &["hostlink:H6"],
        statements: &["TK-3"],
        home: "tasks/overflow-after-the-end",
        checker: "state_ascends",
        distortion: Distortion::TaskStore(tasks::resurrected),
    },
    Mutant {
        id: "known-attempt-refused",
        does: "refuses an attempt that it has when there is no room for another one",
        reference: &["hostlink:H7"],
        statements: &["TK-6"],
        home: "tasks/queue-full",
        checker: "known_is_answered",
        distortion: Distortion::Agent(tasks::known_refused),
    },
    Mutant {
        id: "discard-kills",
        does: "ends a command that runs when its attempt is discarded, and throws its result away",
        reference: &["hostlink:H8"],
        statements: &["TK-18"],
        home: "tasks/discard-in-each-state",
        checker: "tasks_progress",
        distortion: Distortion::Agent(tasks::discard_kills),
    },
    Mutant {
        id: "discard-stays-queued",
        does: "forgets what is discarded, and runs it when its turn comes",
        reference: &["hostlink:H9"],
        statements: &["TK-8"],
        home: "tasks/discard-in-each-state",
        checker: "runs_once",
        distortion: Distortion::Agent(tasks::discard_stays_queued),
    },
    Mutant {
        id: "runs-twice",
        does: "takes what is delivered again for something new",
        reference: &["hostlink:H10"],
        statements: &["TK-2"],
        home: "tasks/delivered-again-after-a-restore",
        checker: "runs_once",
        distortion: Distortion::TaskStore(tasks::runs_twice),
    },
    Mutant {
        id: "two-results",
        does: "gives a result another message id for each request over HTTP",
        reference: &["hostlink:H12", "FS-60"],
        statements: &["TK-3", "TK-13"],
        home: "tasks/result-over-http",
        checker: "one_result",
        distortion: Distortion::Agent(tasks::result_renamed),
    },
    Mutant {
        id: "lost-answer-wedges",
        does: "waits for the answer to its hello without a limit",
        reference: &["hostlink:H13"],
        statements: &["TK-9"],
        home: "tasks/one-answer-lost",
        checker: "tasks_progress",
        distortion: Distortion::Agent(tasks::handshake_without_timer),
    },
    Mutant {
        id: "live-output-first",
        does: "sends the newest output first",
        reference: &["hostlink:H14"],
        statements: &["TK-8"],
        home: "tasks/long-replay-and-live-output",
        checker: "agreed_first",
        distortion: Distortion::Agent(tasks::live_first),
    },
    Mutant {
        id: "stale-answer-counts",
        does: "takes the answer to any hello for the answer to its own",
        reference: &["hostlink:H16"],
        statements: &["TK-8"],
        home: "tasks/hello-answer-lost",
        checker: "agreed_first",
        distortion: Distortion::Agent(tasks::any_answer),
    },
    Mutant {
        id: "agent-backoff-never-resets",
        does: "waits longer after each lost session, also after one that worked",
        reference: &["hostlink:H17"],
        statements: &["TK-9"],
        home: "tasks/flapping-link",
        checker: "tasks_progress",
        distortion: Distortion::Agent(tasks::backoff_never_resets),
    },
    Mutant {
        id: "said-before-stored",
        does: "says that it has an attempt before its store does",
        reference: &["hostlink:H1", "FS-76"],
        statements: &["TK-1"],
        home: "tasks/power-loss-of-the-agent",
        checker: "stored_before_said",
        distortion: Distortion::Agent(tasks::said_before_stored),
    },
    Mutant {
        id: "clock-orders-the-spool",
        does: "sends what waits in the order of its wall clock",
        reference: &["hostlink:H22"],
        statements: &["TK-15"],
        home: "tasks/wrong-clocks",
        checker: "agreed_first",
        distortion: Distortion::TaskStore(tasks::clock_orders),
    },
    Mutant {
        id: "message-ids-collide",
        does: "builds the names of messages so that two results have the same one",
        reference: &["hostlink:H23"],
        statements: &["TK-15"],
        home: "tasks/names-that-run-together",
        checker: "tasks_progress",
        distortion: Distortion::TaskStore(tasks::ids_collide),
    },
    Mutant {
        id: "reserve-counted-once",
        does: "keeps room for one result, however many attempts it has",
        reference: &["hostlink:H24"],
        statements: &["TK-6"],
        home: "tasks/many-results-and-little-room",
        checker: "one_result",
        distortion: Distortion::World(|settings| settings.reserve_once = true),
    },
    Mutant {
        id: "delivers-before-the-answer",
        does: "delivers again what it had delivered before it answers a hello",
        reference: &["hostlink:H15"],
        statements: &["TK-8"],
        home: "tasks/received-reply-lost",
        checker: "agreed_first",
        distortion: Distortion::Controller(tasks::delivers_first),
    },
    Mutant {
        id: "stores-alike",
        does: "does not look which store an agent has",
        reference: &["FS-62"],
        statements: &["TK-16"],
        home: "tasks/store-lost",
        checker: "tasks_progress",
        distortion: Distortion::Record(tasks::stores_alike),
    },
    Mutant {
        id: "every-start-another-store",
        does: "takes every start of an agent for another store",
        reference: &["FS-62"],
        statements: &["TK-16"],
        home: "tasks/crash-with-a-queue",
        checker: "interruption_has_a_cause",
        distortion: Distortion::Record(tasks::every_start_is_another_store),
    },
    Mutant {
        id: "retried-too-early",
        does: "gives up a first attempt for lost as soon as somebody wants a second",
        reference: &["FS-62"],
        statements: &["TK-8"],
        home: "tasks/retry-after-an-interruption",
        checker: "runs_once",
        distortion: Distortion::Record(tasks::retries_early),
    },
    Mutant {
        id: "result-acked-before-stored",
        does: "acknowledges results that are in memory only",
        reference: &["hostlink:H11", "FS-64", "FS-71"],
        statements: &["TK-1", "TK-8"],
        home: "tasks/power-loss-of-the-controller",
        checker: "acknowledged_is_kept",
        distortion: Distortion::Record(tasks::acked_before_stored),
    },
    Mutant {
        id: "agent-synchronous-normal",
        does: "commits with `synchronous=NORMAL` on both sides",
        reference: &["FS-76"],
        statements: &["TK-1"],
        home: "tasks/power-loss-of-the-agent",
        checker: "stored_before_said",
        distortion: Distortion::World(|settings| settings.synchronous = Synchronous::Normal),
    },
    Mutant {
        id: "record-synchronous-normal",
        does: "commits with `synchronous=NORMAL` on both sides",
        reference: &["FS-71", "FS-76"],
        statements: &["TK-1"],
        home: "tasks/power-loss-of-the-controller",
        checker: "acknowledged_is_kept",
        distortion: Distortion::World(|settings| settings.synchronous = Synchronous::Normal),
    },
    Mutant {
        id: "queue-without-bound",
        does: "lets every attempt wait that it is given",
        reference: &["hostlink:H18"],
        statements: &["TK-6", "CORE-12"],
        home: "tasks/queue-full",
        checker: "bounds_hold",
        distortion: Distortion::World(|settings| settings.endless_queue = true),
    },
    Mutant {
        id: "session-cursor-jumps",
        does: "acknowledges and resumes from the highest number that it has seen",
        reference: &["springdrift:S1", "springdrift:S2"],
        statements: &["SE-4", "SE-11"],
        home: "session/hole-in-the-live-stream",
        checker: "views_are_runs",
        distortion: Distortion::SessionClient(session::client::cursor_jumps),
    },
    Mutant {
        id: "cursor-before-applied",
        does: "moves its cursor when a frame arrives, and applies it a little later",
        reference: &["springdrift:S2", "springdrift:S14"],
        statements: &["SE-4", "SE-11"],
        home: "session/replay-cut-at-each-frame",
        checker: "acked_is_applied",
        distortion: Distortion::SessionClient(session::client::cursor_first),
    },
    Mutant {
        id: "cursor-outlives-view",
        does: "resumes from a number when its page is loaded, and has nothing to which a replay could be added",
        reference: &["springdrift:S11"],
        statements: &["SE-10"],
        home: "session/refresh",
        checker: "acked_is_applied",
        distortion: Distortion::SessionClient(session::client::cursor_outlives_view),
    },
    Mutant {
        id: "frames-shown-twice",
        does: "shows what comes again once more",
        reference: &["springdrift:S10"],
        statements: &["SE-4"],
        home: "session/frames-that-come-twice",
        checker: "views_are_runs",
        distortion: Distortion::SessionClient(session::client::shown_again),
    },
    Mutant {
        id: "input-sent-once",
        does: "never sends an input again",
        reference: &["springdrift:S8"],
        statements: &["SE-5"],
        home: "session/message-lost-on-its-way",
        checker: "inputs_settle",
        distortion: Distortion::SessionClient(session::client::sent_once),
    },
    Mutant {
        id: "sent-before-kept",
        does: "sends a message before it is stored",
        reference: &["springdrift:S8"],
        statements: &["SE-5"],
        home: "session/power-loss-of-a-client",
        checker: "kept_before_sent",
        distortion: Distortion::SessionClient(session::client::sent_first),
    },
    Mutant {
        id: "kept-in-memory",
        does: "keeps what is in flight in memory only",
        reference: &["springdrift:S8"],
        statements: &["SE-5"],
        home: "session/power-loss-of-a-client",
        checker: "kept_before_sent",
        distortion: Distortion::InFlight(session::store::kept_in_memory),
    },
    Mutant {
        id: "in-flight-forgotten",
        does: "forgets what was in flight when its page is loaded again",
        reference: &["springdrift:S8"],
        statements: &["SE-5"],
        home: "session/power-loss-of-a-client",
        checker: "inputs_settle",
        distortion: Distortion::SessionClient(session::client::flight_forgotten),
    },
    Mutant {
        id: "rejection-not-shown",
        does: "takes rejected inputs away without a word",
        reference: &["springdrift:S8", "springdrift:S9"],
        statements: &["SE-5"],
        home: "session/queue-full",
        checker: "inputs_settle",
        distortion: Distortion::SessionClient(session::client::rejection_not_shown),
    },
    Mutant {
        id: "thinking-for-ever",
        does: "shows that it thinks until a message of the assistant comes as a frame",
        reference: &["springdrift:S7"],
        statements: &["SE-2", "SE-6"],
        home: "session/thinking-over-a-reconnect",
        checker: "views_converge",
        distortion: Distortion::SessionClient(session::client::thinks_for_ever),
    },
    Mutant {
        id: "superseded-dials-again",
        does: "takes a connection that was superseded for one that broke",
        reference: &["springdrift:S13", "FS-53"],
        statements: &["SE-8"],
        home: "session/another-client-takes-over",
        checker: "superseded_is_final",
        distortion: Distortion::SessionClient(session::client::pushes_back),
    },
    Mutant {
        id: "live-overtakes-replay",
        does: "sends a new frame before the end of a replay",
        reference: &["springdrift:S1", "hostlink:H14", "FS-24"],
        statements: &["SE-4"],
        home: "session/live-during-a-replay",
        checker: "numbers_ascend",
        distortion: Distortion::SessionServer(session::server::live_first),
    },
    Mutant {
        id: "too-old-up-to-date",
        does: "calls a client up to date whose next frame is not kept",
        reference: &["springdrift:S5", "FS-34"],
        statements: &["SE-1"],
        home: "session/ring-overflow",
        checker: "verdict_is_true",
        distortion: Distortion::SessionServer(session::server::too_old_up_to_date),
    },
    Mutant {
        id: "lost-outbox-up-to-date",
        does: "calls a client up to date of whose outbox it knows nothing",
        reference: &["springdrift:S3", "FS-08"],
        statements: &["SE-1", "SE-3"],
        home: "session/server-restart",
        checker: "verdict_is_true",
        distortion: Distortion::SessionServer(session::server::lost_outbox_up_to_date),
    },
    Mutant {
        id: "stale-ack-prunes",
        does: "takes the acknowledgement of another outbox for one of this",
        reference: &["springdrift:S3"],
        statements: &["SE-3"],
        home: "session/outbox-dropped-while-away",
        checker: "verdict_is_true",
        distortion: Distortion::SessionServer(session::server::stale_ack_prunes),
    },
    Mutant {
        id: "janitor-drops-live",
        does: "gives a client that is connected and quiet another outbox",
        reference: &["springdrift:S4"],
        statements: &["SE-7"],
        home: "session/idle-connection-outlives-its-outbox",
        checker: "numbers_ascend",
        distortion: Distortion::SessionServer(session::server::janitor_drops_live),
    },
    Mutant {
        id: "question-not-in-history",
        does: "leaves the open question out of histories",
        reference: &["springdrift:S6"],
        statements: &["SE-2"],
        home: "session/question-over-a-reload",
        checker: "question_is_shown",
        distortion: Distortion::SessionServer(session::server::question_not_in_history),
    },
    Mutant {
        id: "history-of-old",
        does: "sends the first history of a conversation again and again",
        reference: &["springdrift:S16"],
        statements: &["SE-2"],
        home: "session/history-while-it-speaks",
        checker: "history_is_whole",
        distortion: Distortion::SessionServer(session::server::history_of_old),
    },
    Mutant {
        id: "answer-to-what-is-open",
        does: "takes an answer for one to whatever is asked when it comes",
        reference: &["springdrift:S6"],
        statements: &["SE-5"],
        home: "session/late-answer",
        checker: "accepted_once",
        distortion: Distortion::SessionServer(session::server::answers_anything),
    },
    Mutant {
        id: "one-outbox-for-all-tabs",
        does: "has one outbox for all clients of a user",
        reference: &["springdrift:S11", "springdrift:S13"],
        statements: &["SE-8"],
        home: "session/two-clients-of-one-user",
        checker: "superseded_is_final",
        distortion: Distortion::SessionServer(session::server::one_outbox),
    },
    Mutant {
        id: "old-end-removes-new",
        does: "sends nothing more to a client when its old connection has ended",
        reference: &["springdrift:S13", "springdrift:S15", "FS-52"],
        statements: &["SE-8"],
        home: "session/old-connection-ends-late",
        checker: "views_converge",
        distortion: Distortion::SessionServer(session::server::old_end_removes_new),
    },
    Mutant {
        id: "turns-side-by-side",
        does: "begins the turn of the next message while another one runs",
        reference: &["springdrift:S9"],
        statements: &["SE-12"],
        home: "session/crash-with-a-queue",
        checker: "turns_are_single",
        distortion: Distortion::SessionServer(session::server::side_by_side),
    },
    Mutant {
        id: "acked-before-durable",
        does: "acknowledges messages that are in memory only",
        reference: &["springdrift:S9"],
        statements: &["SE-3", "SE-5"],
        home: "session/power-loss-of-the-server",
        checker: "durable_before_shown",
        distortion: Distortion::Conversations(session::store::accepted_in_memory),
    },
    Mutant {
        id: "accepted-twice",
        does: "takes an input that comes again for another one",
        reference: &["springdrift:S8"],
        statements: &["SE-5"],
        home: "session/acknowledgement-lost",
        checker: "accepted_once",
        distortion: Distortion::Conversations(session::store::accepted_twice),
    },
    Mutant {
        id: "waiting-forgotten",
        does: "does not take up after a restart what waited for its turn",
        reference: &["springdrift:S9"],
        statements: &["SE-3"],
        home: "session/crash-with-a-queue",
        checker: "inputs_settle",
        distortion: Distortion::Conversations(session::store::waiting_forgotten),
    },
    Mutant {
        id: "turn-begun-late",
        does: "stores that a turn has begun when the application says something",
        reference: &["springdrift:S9"],
        statements: &["SE-3", "SE-12"],
        home: "session/crash-with-a-queue",
        checker: "turns_are_single",
        distortion: Distortion::Conversations(session::store::begun_late),
    },
    Mutant {
        id: "messages-without-bound",
        does: "lets every message wait",
        reference: &["springdrift:S9"],
        statements: &["SE-5", "CORE-12"],
        home: "session/queue-full",
        checker: "session_bounds",
        distortion: Distortion::Conversations(session::store::endless_queue),
    },
    Mutant {
        id: "rows-synchronous-normal",
        does: "commits with `synchronous=NORMAL`",
        reference: &["FS-71", "FS-76"],
        statements: &["SE-3", "SE-5"],
        home: "session/power-loss-of-the-server",
        checker: "durable_before_shown",
        distortion: Distortion::World(|settings| settings.synchronous = Synchronous::Normal),
    },
];

/// The mutant of a name.
pub fn find(id: &str) -> Option<&'static Mutant> {
    CATALOGUE.iter().find(|mutant| mutant.id == id)
}

impl Mutant {
    /// Where it enters.
    pub fn seam(&self) -> &'static str {
        match self.distortion {
            Distortion::Client(_) => "client core",
            Distortion::Server(_) => "server core",
            Distortion::Store(_) => "log",
            Distortion::Agent(_) => "agent core",
            Distortion::Controller(_) => "controller core",
            Distortion::TaskStore(_) => "store",
            Distortion::Record(_) => "record",
            Distortion::SessionClient(_) => "client core",
            Distortion::SessionServer(_) => "server core",
            Distortion::InFlight(_) => "inputs in flight",
            Distortion::Conversations(_) => "conversations",
            Distortion::World(_) => "world",
            Distortion::Entropy(_) => "policy",
        }
    }
}

/// The mutant of a run, if it has one; what it does not distort stays as it is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Distorted(Option<&'static Mutant>);

impl Distorted {
    /// The mutant of a plan that was checked.
    pub(crate) fn by(id: Option<&str>) -> Self {
        Self(id.and_then(find))
    }

    fn distortion(self) -> Option<&'static Distortion> {
        self.0.map(|mutant| &mutant.distortion)
    }

    pub(crate) fn client(self, core: Client) -> ClientCore {
        match self.distortion() {
            Some(Distortion::Client(distort)) => distort(core),
            _ => Box::new(core),
        }
    }

    pub(crate) fn server(self, core: Server) -> ServerCore {
        match self.distortion() {
            Some(Distortion::Server(distort)) => distort(core),
            _ => Box::new(core),
        }
    }

    pub(crate) fn log(self, log: SqliteLog) -> Box<dyn Transact<Command>> {
        match self.distortion() {
            Some(Distortion::Store(distort)) => distort(log),
            _ => Box::new(log),
        }
    }

    pub(crate) fn agent(self, core: Agent) -> AgentCore {
        match self.distortion() {
            Some(Distortion::Agent(distort)) => distort(core),
            _ => Box::new(core),
        }
    }

    pub(crate) fn controller(self, core: Controller) -> ControllerCore {
        match self.distortion() {
            Some(Distortion::Controller(distort)) => distort(core),
            _ => Box::new(core),
        }
    }

    pub(crate) fn task_store(self, store: SqliteTaskStore, clock: &HostClock) -> TaskStore {
        match self.distortion() {
            Some(Distortion::TaskStore(distort)) => distort(store, clock.clone()),
            _ => Box::new(store),
        }
    }

    pub(crate) fn record(self, record: SqliteRecord) -> Record {
        match self.distortion() {
            Some(Distortion::Record(distort)) => distort(record),
            _ => Box::new(record),
        }
    }

    pub(crate) fn session_client(self, core: session_client::Client) -> SessionClientCore {
        match self.distortion() {
            Some(Distortion::SessionClient(distort)) => distort(core),
            _ => Box::new(core),
        }
    }

    pub(crate) fn session_server(self, core: session_server::Server) -> SessionServerCore {
        match self.distortion() {
            Some(Distortion::SessionServer(distort)) => distort(core),
            _ => Box::new(core),
        }
    }

    pub(crate) fn in_flight(
        self,
        store: impl Transact<in_flight::Command> + 'static,
    ) -> InFlightStore {
        match self.distortion() {
            Some(Distortion::InFlight(distort)) => distort(Box::new(store)),
            _ => Box::new(store),
        }
    }

    pub(crate) fn conversations(
        self,
        store: impl Transact<conversation::Command> + 'static,
    ) -> ConversationStore {
        match self.distortion() {
            Some(Distortion::Conversations(distort)) => distort(Box::new(store)),
            _ => Box::new(store),
        }
    }

    pub(crate) fn entropy(self, entropy: Box<dyn Entropy>) -> Box<dyn Entropy> {
        match self.distortion() {
            Some(Distortion::Entropy(make)) => make(),
            _ => entropy,
        }
    }

    pub(crate) fn settings(self) -> Settings {
        let mut settings = Settings::default();
        if let Some(Distortion::World(set)) = self.distortion() {
            set(&mut settings);
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::CATALOGUE;
    use crate::check::CHECKERS;
    use crate::scenario::Library;

    #[test]
    fn every_checker_has_a_mutant_that_it_has_to_catch() {
        for checker in CHECKERS {
            assert!(
                CATALOGUE.iter().any(|mutant| mutant.checker == checker.name),
                "nothing shows that `{}` can see",
                checker.name
            );
        }
    }

    #[test]
    fn every_mutant_has_a_name_of_its_own_a_home_and_a_checker() {
        let ids: BTreeSet<_> = CATALOGUE.iter().map(|mutant| mutant.id).collect();
        assert_eq!(ids.len(), CATALOGUE.len());
        let library = Library::embedded();
        for mutant in CATALOGUE {
            assert!(
                CHECKERS.iter().any(|checker| checker.name == mutant.checker),
                "`{}` names a checker that is not there",
                mutant.id
            );
            assert!(mutant.does.chars().next().is_some_and(char::is_lowercase));
            assert!(library.get(mutant.home).is_ok(), "`{}` has no home", mutant.id);
        }
    }
}
