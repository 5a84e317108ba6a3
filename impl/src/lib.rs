//! Reconnect protocols that lose, double and reorder nothing.
//!
//! A WebSocket system loses data at one moment: when a connection comes back. This crate holds
//! the protocol that survives that moment, in three layers:
//!
//! * [`recovery`]: the building blocks (ring, cursor, lineage, backoff, liveness), free of I/O;
//! * [`events`]: the event-stream protocol as sans-IO cores, with a durable log and drivers;
//! * [`session`]: the session protocol: a conversation that survives reconnects on both sides;
//! * [`tasks`]: the task protocol: commands run once, output streamed, results kept until acked;
//! * [`net`]: what the drivers share: one listener for HTTP and WebSocket over any stream;
//! * `gateway`: the three protocols on one port (feature `net`).
//!
//! # The contract of a core
//!
//! A [`Core`] owns no socket, no thread, no clock, no randomness and no database. Whoever drives
//! it repeats one loop: feed one input, drain every output, arm one timer.
//!
//! ```text
//! core.handle(now, input);                  // exactly one mutation
//! while let Some(output) = core.poll() {    // drain before waiting
//!     perform(output);
//! }
//! sleep_until(core.deadline());             // then feed its timeout input
//! ```
//!
//! Storage is asked and answered: a core emits a command and whatever depends on it leaves only
//! after the reply has come back, so that "persist before send" holds by construction.
//!
//! # What is guaranteed
//!
//! * An event is in the server's log before anybody sees it, under a number that names it for ever.
//!   A client's handler gets each event of its stream once and in order, across cuts and restarts of
//!   both sides. What cannot be supplied any more is declared as a gap, never passed over.
//! * What a user says in a session is kept by the client until the server has given its verdict, and
//!   is accepted once. What is shown to the user is durable before.
//! * A task's command is begun at most once per attempt. Its output and its result are kept by the
//!   agent until the controller has them, and what has to be given up is said.
//!
//! "Once" reaches as far as the effect does: a handler that stores its effect and its position in one
//! transaction ([`Handled::Stored`](events::driver::Handled::Stored)) sees no event twice even when its
//! process is killed; one that does not may see the last one again.
//!
//! The rules stand in `docs/spec/` of the repository, statement by statement; marks like `[EV-1]` in
//! this documentation name them. Peers that know only the base contract of a protocol are served as
//! well, with what that contract can promise. A database of an earlier version is brought up to date
//! when it is opened; one of a later version is refused and left as it is.
//!
//! # Features
//!
//! | feature | default | what it brings | dependencies |
//! |---|---|---|---|
//! | `cluster` | yes | [`events::cluster`]: the event log of several servers, without the engine | those of `net` |
//! | `nats` | no | `events::cluster::nats`: NATS JetStream as its engine | async-nats |
//! | `net` | yes | the drivers over real sockets: [`net`], [`gateway`], `driver` of each protocol | tokio, hyper, tungstenite |
//! | `sqlite` | yes | the durable stores: [`database`], `sqlite` of each protocol, [`storage::Threaded`] | SQLite, which is built from its source by a C compiler |
//! | `rsa` | yes | keys and signatures of agents: `tasks::auth::RsaSigner` and `RsaKeys` | ring |
//!
//! Without all of them the cores build with neither tokio nor SQLite. `net` runs commands in process
//! groups and is for Unix.
//!
//! What the crate does with `tracing` is quiet: a driver reports what it repeats or drops. [`marks`]
//! are for test campaigns and cost nothing otherwise.
#![cfg_attr(
    all(feature = "cluster", feature = "net", feature = "sqlite", feature = "rsa"),
    doc = concat!(
        "\n# Event streams in five minutes\n\n",
        "Besides `gapless` this needs `rand` with its feature `sys_rng`, `serde_json`, `tempfile` and ",
        "`tokio`. It is `examples/events.rs` of the repository, as are the others.\n\n```standalone_crate\n",
        include_str!("../examples/events.rs"),
        "```\n\n# A session in five minutes\n\n```standalone_crate\n",
        include_str!("../examples/session.rs"),
        "```\n\n# A task in five minutes\n\n```standalone_crate\n",
        include_str!("../examples/tasks.rs"),
        "```\n",
    )
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod agent_id;
mod connection;
mod core;
#[cfg(feature = "sqlite")]
pub mod database;
pub mod events;
mod frame;
#[cfg(feature = "net")]
pub mod gateway;
pub mod marks;
#[cfg(feature = "net")]
pub mod net;
pub mod recovery;
pub mod session;
pub mod storage;
pub mod tasks;

pub use crate::agent_id::{AgentId, InvalidAgentId};
pub use crate::connection::{CloseCode, ConnectionId};
pub use crate::core::{Core, Ticket};

/// The blocks of the manual are compiled, and run, with the tests.
#[cfg(all(doctest, feature = "net", feature = "sqlite"))]
#[doc = include_str!("../../docs/embedding.md")]
struct Embedding;
