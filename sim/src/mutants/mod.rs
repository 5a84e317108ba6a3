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

use crate::custom;
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
    Custom,
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
    /// Servers of a shared log publish without comparing.
    pub(crate) counts_alone: bool,
    /// Servers of a shared log follow what no majority has yet.
    pub(crate) reads_uncommitted: bool,
    /// Servers of a shared log take the epoch that they know for the newest.
    pub(crate) unfenced: bool,
}

/// The mutant that always has to fail: it shows that a failure is reported as one.
pub const CANARY: &str = "canary";

/// Every mutant; the canary is the first.
pub fn catalogue() -> impl Iterator<Item = &'static Mutant> {
    let custom = custom::registered().into_iter().flat_map(|protocol| protocol.mutants());
    [events::CATALOGUE, tasks::CATALOGUE, session::CATALOGUE].into_iter().flatten().chain(custom)
}

/// The mutant of a name.
pub fn find(id: &str) -> Option<&'static Mutant> {
    catalogue().find(|mutant| mutant.id == id)
}

impl Mutant {
    /// A bug of a protocol that the user brought, which asks for it with
    /// [`Node::is_mutant`](crate::custom::Node::is_mutant). `does` is a sentence without a subject; in the
    /// scenario `home` the checker has to catch it.
    pub const fn custom(
        id: &'static str,
        does: &'static str,
        home: &'static str,
        checker: &'static str,
    ) -> Self {
        let distortion = Distortion::Custom;
        Self { id, does, reference: &[], statements: &[], home, checker, distortion }
    }

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
            Distortion::Custom => "protocol",
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

    use super::catalogue;
    use crate::check::CHECKERS;
    use crate::scenario::Library;

    #[test]
    fn every_checker_has_a_mutant_that_it_has_to_catch() {
        for checker in CHECKERS {
            assert!(
                catalogue().any(|mutant| mutant.checker == checker.name),
                "nothing shows that `{}` can see",
                checker.name
            );
        }
    }

    #[test]
    fn every_mutant_has_a_name_of_its_own_a_home_and_a_checker() {
        let ids: BTreeSet<_> = catalogue().map(|mutant| mutant.id).collect();
        assert_eq!(ids.len(), catalogue().count());
        let library = Library::embedded();
        for mutant in catalogue() {
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
