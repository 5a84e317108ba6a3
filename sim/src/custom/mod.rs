//! Protocols that the user of the simulator brings.
//!
//! The simulator knows three protocols of its own. Any other that is spoken between one server and some
//! clients over WebSockets can be put in their place: it is run in the same world, under the same
//! faults, from scenario files of the same form, and its failures are shrunk, frozen, localised and
//! shown in the same way. Nothing of the simulator has to be changed for that.
//!
//! A protocol implements [`CustomProtocol`] and enters the program with [`protocol!`](crate::protocol).
//! Its program calls [`cli::main`](crate::cli::main), as `gapless-sim` does, and has all of the commands.
//! `sim/examples/pubsub` is one to begin with; `docs/tutorial.md` finds a bug in it.
//!
//! ```
//! use gapless_sim::check::Checker;
//! use gapless_sim::custom::{CustomProtocol, Life, Node, Program, Rng, Sides, Wanted, Work};
//! use gapless_sim::history::History;
//! use gapless_sim::plan::Topology;
//!
//! struct Hello;
//!
//! impl CustomProtocol for Hello {
//!     fn name(&self) -> &'static str {
//!         "hello"
//!     }
//!
//!     fn program(&self) -> Program {
//!         Program { command: "cargo hello", scenarios: "examples/hello/scenarios" }
//!     }
//!
//!     fn promise(&self) -> &'static str {
//!         "whoever came in was greeted"
//!     }
//!
//!     fn options(&self) -> Sides {
//!         Sides::default()
//!     }
//!
//!     fn server(&self, node: Node) -> Life {
//!         Box::pin(async move {
//!             let mut door = node.listen().await?;
//!             loop {
//!                 let _guest = door.accept().await?;
//!                 node.note("somebody came in");
//!             }
//!         })
//!     }
//!
//!     fn client(&self, node: Node) -> Life {
//!         Box::pin(async move {
//!             loop {
//!                 let _wanted = node.work().await;
//!                 // A fault of the link may refuse it.
//!                 let _connection = node.connect().await;
//!             }
//!         })
//!     }
//!
//!     fn check_work(&self, _work: &Work) -> Result<(), String> {
//!         Ok(())
//!     }
//!
//!     fn draw_work(&self, _wanted: &Wanted<'_>, _rng: &mut Rng) -> Vec<(u64, Work)> {
//!         Vec::new()
//!     }
//!
//!     fn is_settled(&self, _history: &History, _topology: &Topology) -> bool {
//!         true
//!     }
//!
//!     fn checkers(&self) -> &'static [Checker] {
//!         &[]
//!     }
//! }
//!
//! gapless_sim::protocol!(Hello);
//! # assert!(gapless_sim::custom::find("hello").is_some());
//! ```

mod connection;
mod database;
mod node;
mod registry;
mod seen;
mod stage;
mod work;

use std::error::Error;
use std::pin::Pin;

use serde_json::{Map, Value};

pub use self::connection::{Connection, Listener};
pub use self::database::Database;
pub use self::node::Node;
pub(crate) use self::node::name_of_work;
pub use self::registry::{Custom, PROTOCOLS, find};
pub(crate) use self::registry::{command, program, registered};
pub use self::seen::{CustomSeen, Sighting};
pub(crate) use self::stage::enter;
pub use self::work::Work;
use crate::check::Checker;
use crate::history::History;
use crate::mutants::Mutant;
use crate::plan::Topology;

/// What is needed by those who write a protocol, in the versions that the simulator has.
pub mod external {
    pub use gapless::mark;
    pub use {rand, rand_chacha, rusqlite};
}

#[doc(hidden)]
pub mod private {
    pub use linkme;
}

/// Random numbers that follow from the seed.
pub type Rng = rand_chacha::ChaCha12Rng;

/// One life of a host's process. It ends when the process is killed by a fault, or by itself; an error
/// ends the run, as a bug of the protocol that no checker has to find.
pub type Life = Pin<Box<dyn Future<Output = Result<(), Box<dyn Error>>>>>;

/// A protocol between one server and some clients, to be put into the simulated world.
///
/// Everything that an implementation does has to follow from what it is given: time from
/// `tokio::time`, random numbers from [`Node::rng`] and the `rng` of a draw, connections and files from
/// the [`Node`]. Whoever asks the operating system gets runs that cannot be had again; the command
/// `meta` finds that.
pub trait CustomProtocol: Sync {
    /// Its name: that of `protocol = "…"` in a scenario, of the folder of its scenarios, and the
    /// beginning of its marks, as in `pubsub.replayed`. Small letters, digits and `-`.
    fn name(&self) -> &'static str;

    /// The program that runs it.
    fn program(&self) -> Program;

    /// What a run that passes has shown, as a sentence without its full stop: "nothing was lost".
    fn promise(&self) -> &'static str;

    /// The options of both sides, with their defaults. What is not here cannot be set in a scenario.
    fn options(&self) -> Sides;

    /// Options that a seed draws for a swarm; by default those of [`Self::options`].
    fn draw_options(&self, _rng: &mut Rng) -> Sides {
        self.options()
    }

    /// A life of the server. It begins when the run does, and again after each crash; what is to
    /// survive that is in a [`Database`].
    fn server(&self, node: Node) -> Life;

    /// A life of a client; [`Node::host`] says of which.
    fn client(&self, node: Node) -> Life;

    /// Whether a host can do what a step of a scenario wants from it.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong, for the author of the scenario.
    fn check_work(&self, work: &Work) -> Result<(), String>;

    /// What a seed lets the hosts of a swarm do, and when, in milliseconds from the start.
    fn draw_work(&self, wanted: &Wanted<'_>, rng: &mut Rng) -> Vec<(u64, Work)>;

    /// Simpler work that may do as well where a failing run is made small, the simplest first; by
    /// default none. To leave a whole step out is tried anyway.
    fn simpler(&self, _work: &Work) -> Vec<Work> {
        Vec::new()
    }

    /// Whether everything that is owed has arrived. Asked after healing, again and again, once all work
    /// was taken; a run goes on for two seconds after it is so, and ends after `settle` in any case.
    fn is_settled(&self, history: &History, topology: &Topology) -> bool;

    /// What must hold of every history (see [`Checker::custom`]).
    fn checkers(&self) -> &'static [Checker];

    /// Bugs that can be switched on with `--mutant`, each to prove that a checker can see it (see
    /// [`Mutant::custom`] and [`Node::is_mutant`]); by default none.
    fn mutants(&self) -> &'static [Mutant] {
        &[]
    }

    /// Marks at which it matters what goes wrong: a seed lets processes die and connections break
    /// there. By default none.
    fn critical_marks(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the frame of a server that has this text may be lost or doubled by the faults `lose` and
    /// `duplicate`, which stand for a peer that is wrong. By default none may.
    fn is_payload(&self, _text: &str) -> bool {
        false
    }
}

/// How a program is called, and where its scenarios are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// The words before those of a command, for the commands that are printed: `cargo pubsub`.
    pub command: &'static str,
    /// The folder that holds the folder of the protocol's scenarios, and `regressions/` for those that
    /// are frozen, from where the program is called.
    pub scenarios: &'static str,
}

/// Options of both sides, each by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sides {
    /// The server's.
    pub server: Map<String, Value>,
    /// The clients'.
    pub client: Map<String, Value>,
}

impl Sides {
    /// The options that two values are made of; nothing of one that is not a struct or a map.
    pub fn new(server: &impl serde::Serialize, client: &impl serde::Serialize) -> Self {
        Self { server: work::fields(server), client: work::fields(client) }
    }
}

/// What a swarm wants to be drawn.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The hosts.
    pub topology: &'a Topology,
    /// When the faults end; nothing may be later.
    pub duration_ms: u64,
    /// How much is to happen in a minute, as the scenario says with `work-per-minute`.
    pub per_minute: u32,
}
