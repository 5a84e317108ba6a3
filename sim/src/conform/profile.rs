//! What of the scenarios applies to an implementation.
//!
//! A fixed scenario that needs what the implementation has not announced is `unsupported`: it is
//! never a pass. A swarm draws for everybody; what does not apply is taken out of what was drawn,
//! and said.

use std::collections::BTreeSet;

use gapless::marks::MARKS;

use super::protocol::{Hello, Role, StorageKind, feature};
use crate::plan::{Action, Fault, Host, Options, Plan, When};

/// What an implementation can be asked for.
#[derive(Debug, Clone, Copy)]
pub struct Profile<'a> {
    role: Role,
    hello: &'a Hello,
}

/// What becomes of a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Fit {
    /// It can be carried out, without what is listed.
    Runs {
        /// The plan.
        plan: Box<Plan>,
        /// What was taken out of it, as `crash ×2: needs storage`.
        left_out: Vec<String>,
    },
    /// It needs what the implementation does not have.
    Unsupported(Vec<String>),
}

/// The modules in which the places of a role are that a foreign implementation does not have.
fn modules(role: Role) -> &'static [&'static str] {
    match role {
        Role::EventsClient => &["gapless::events::client", "gapless_sim::world::events::client"],
        Role::EventsServer => &[
            "gapless::events::server",
            "gapless::events::sqlite",
            "gapless::events::driver::server",
        ],
        Role::SessionClient => &[
            "gapless::session::client",
            "gapless::session::view",
            "gapless::session::sqlite::in_flight",
        ],
        Role::SessionServer => &[
            "gapless::session::server",
            "gapless::session::sqlite::conversations",
            "gapless_sim::world::session::node::server",
        ],
        Role::TasksAgent => {
            &["gapless::tasks::agent", "gapless::tasks::store", "gapless::tasks::chunker"]
        }
        Role::TasksController => &["gapless::tasks::controller"],
    }
}

/// Marks of a role that the simulator sees by itself.
fn seen_from_outside(role: Role, extension: bool) -> &'static [&'static str] {
    match role {
        Role::EventsClient => &["events.resync_sent", "events.handler_failed"],
        Role::TasksAgent => &["tasks.hello_sent"],
        // Only the extension says the verdict.
        Role::SessionServer if extension => &[
            "session.replay",
            "session.superseded",
            "session.verdict_ahead",
            "session.verdict_other_epoch",
            "session.verdict_replay",
            "session.verdict_too_old",
            "session.verdict_unknown",
            "session.verdict_up_to_date",
        ],
        Role::SessionServer => &[
            "session.replay",
            "session.superseded",
            "session.verdict_replay",
            "session.verdict_unknown",
        ],
        _ => &[],
    }
}

impl<'a> Profile<'a> {
    /// What an implementation has announced for a role.
    pub fn new(role: Role, hello: &'a Hello) -> Self {
        Self { role, hello }
    }

    fn has(&self, feature: &str) -> bool {
        self.hello.features.iter().any(|known| known == feature)
    }

    fn keeps(&self) -> bool {
        self.hello.storage != StorageKind::None
    }

    /// Whether a mark can only be reached in code that is not there.
    fn lacks_mark(&self, mark: &str, extension: bool) -> bool {
        let seen = seen_from_outside(self.role, extension);
        if self.has(feature::MARKS) || seen.contains(&mark) {
            return false;
        }
        let mut places = MARKS.iter().filter(|place| place.mark == mark).peekable();
        let own = |module: &str| modules(self.role).iter().any(|own| module.starts_with(own));
        places.peek().is_some() && places.all(|place| own(place.module))
    }

    fn is_own(&self, host: Host) -> bool {
        match self.role {
            Role::EventsClient | Role::SessionClient | Role::TasksAgent => host != Host::Server,
            Role::EventsServer | Role::SessionServer | Role::TasksController => {
                host == Host::Server
            }
        }
    }

    /// What a fault needs that is not there.
    fn lacks_for(&self, fault: &Fault) -> Option<&'static str> {
        match fault {
            Fault::Crash { host, .. }
            | Fault::PowerOff { host, .. }
            | Fault::DiskError { host, .. }
            | Fault::DiskFull { host, .. }
            | Fault::SlowCommit { host, .. }
                if self.is_own(*host) && !self.keeps() =>
            {
                Some("storage")
            }
            Fault::Backup { host }
            | Fault::Restore { host, .. }
            | Fault::Swap { host, .. }
            | Fault::LoseStore { host, .. }
                if self.is_own(*host) =>
            {
                match self.role {
                    _ if !self.keeps() => Some("storage"),
                    Role::EventsServer if !self.has(feature::LOG_REPORTS) => {
                        Some(feature::LOG_REPORTS)
                    }
                    _ => None,
                }
            }
            Fault::Suspend { host, .. } if self.is_own(*host) && !self.has(feature::SUSPEND) => {
                Some(feature::SUSPEND)
            }
            Fault::SlowHandler { .. }
                if self.role == Role::EventsClient && !self.has(feature::HANDLER_ASYNC) =>
            {
                Some(feature::HANDLER_ASYNC)
            }
            Fault::FailHandler { .. }
                if self.role == Role::EventsClient && !self.has(feature::HANDLER_FAIL) =>
            {
                Some(feature::HANDLER_FAIL)
            }
            Fault::FailOpenHandler { .. }
                if self.role == Role::EventsClient && !self.has(feature::OPEN_HANDLER_FAIL) =>
            {
                Some(feature::OPEN_HANDLER_FAIL)
            }
            Fault::Retain { .. }
                if self.role == Role::EventsServer && !self.has(feature::RETAIN) =>
            {
                Some(feature::RETAIN)
            }
            _ => None,
        }
    }

    /// Fits a plan to the implementation. `drawn` says that a seed drew it, so that what does not
    /// apply may be left out.
    pub fn fit(&self, plan: &Plan, drawn: bool) -> Fit {
        let mut plan = plan.clone();
        let mut lacks: Vec<(String, &str)> = Vec::new();
        self.fit_options(&mut plan.options, &mut lacks);
        let base = lacks.iter().any(|(_, needs)| *needs == feature::EXTENSION);
        let extension = is_extended(&plan.options);
        plan.steps.retain(|step| {
            let waits = match &step.when {
                When::Mark { mark, .. } if self.lacks_mark(mark, extension) => Some(mark.clone()),
                _ => None,
            };
            if let Some(mark) = waits {
                lacks.push((format!("a step that waits for `{mark}`"), feature::MARKS));
                return false;
            }
            let Action::Fault(fault) = &step.action else { return true };
            let needs = match self.lacks_for(fault) {
                // The base contract has no way to notice these.
                None if base && only_with_extension(fault) => Some(feature::EXTENSION),
                needs => needs,
            };
            if let Some(needs) = needs {
                lacks.push((fault.kind().to_owned(), needs));
            }
            needs.is_none()
        });
        plan.reaches.retain(|mark| !self.lacks_mark(mark, extension));
        match lacks.is_empty() || drawn {
            true => Fit::Runs { plan: Box::new(plan), left_out: counted(&lacks) },
            false => {
                let needs: BTreeSet<&str> = lacks.iter().map(|(_, needs)| *needs).collect();
                Fit::Unsupported(needs.into_iter().map(str::to_owned).collect())
            }
        }
    }

    /// Takes out of the options of the own side what the implementation does not do.
    fn fit_options(&self, options: &mut Options, lacks: &mut Vec<(String, &'static str)>) {
        let mut lack = |what: &str, needs| lacks.push((what.to_owned(), needs));
        match (self.role, options) {
            (Role::EventsClient, Options::Events { client, server }) => {
                if client.extension && !self.has(feature::EXTENSION) {
                    client.extension = false;
                    lack("the extension", feature::EXTENSION);
                }
                if client.from_beginning && !self.has(feature::FROM_BEGINNING) {
                    client.from_beginning = false;
                    lack("from the beginning", feature::FROM_BEGINNING);
                }
                if server.silence_ms < SILENCE_MS && !self.has(feature::PING_CONFIGURED) {
                    server.silence_ms = SILENCE_MS;
                    lack("an impatient server", feature::PING_CONFIGURED);
                }
                let slow = client.handler_ms > 0 || client.open_handler_ms > 0;
                if slow && !self.has(feature::HANDLER_ASYNC) {
                    (client.handler_ms, client.open_handler_ms) = (0, 0);
                    lack("slow handlers", feature::HANDLER_ASYNC);
                }
            }
            (Role::EventsServer, Options::Events { server, .. })
                if server.extension && !self.has(feature::EXTENSION) =>
            {
                server.extension = false;
                lack("the extension", feature::EXTENSION);
            }
            (Role::TasksAgent, Options::Tasks { agent, .. }) => {
                agent.rsa |= !self.has(feature::SIGN_FNV1A);
                if agent.extension && !self.has(feature::EXTENSION) {
                    agent.extension = false;
                    lack("the extension", feature::EXTENSION);
                }
            }
            (Role::TasksController, Options::Tasks { controller, agent }) => {
                agent.rsa |= !self.has(feature::SIGN_FNV1A);
                if controller.extension && !self.has(feature::EXTENSION) {
                    controller.extension = false;
                    lack("the extension", feature::EXTENSION);
                }
            }
            (Role::SessionClient, Options::Session { client, .. })
                if client.extension && !self.has(feature::EXTENSION) =>
            {
                client.extension = false;
                lack("the extension", feature::EXTENSION);
            }
            (Role::SessionServer, Options::Session { server, .. })
                if server.extension && !self.has(feature::EXTENSION) =>
            {
                server.extension = false;
                lack("the extension", feature::EXTENSION);
            }
            _ => {}
        }
    }
}

/// How long a client may say nothing by the specification [CORE-10], in milliseconds.
const SILENCE_MS: u64 = 75_000;

/// Whether only the extension lets anybody notice what the fault does. Swarms draw none of them
/// where one side does not speak it.
fn only_with_extension(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Lose { .. } | Fault::Backup { .. } | Fault::Restore { .. } | Fault::LoseStore { .. }
    )
}

/// Whether the extension is spoken.
fn is_extended(options: &Options) -> bool {
    match options {
        Options::Events { server, client } => server.extension && client.extension,
        Options::Tasks { controller, agent } => controller.extension && agent.extension,
        Options::Session { server, client } => server.extension && client.extension,
        Options::Custom { .. } => true,
    }
}

/// `crash ×2: needs storage`.
fn counted(lacks: &[(String, &str)]) -> Vec<String> {
    let kinds: BTreeSet<&(String, &str)> = lacks.iter().collect();
    kinds
        .into_iter()
        .map(|kind| {
            let times = lacks.iter().filter(|lack| *lack == kind).count();
            let times = if times > 1 { format!(" ×{times}") } else { String::new() };
            format!("{}{times}: needs {}", kind.0, kind.1)
        })
        .collect()
}
