//! The hosts of sessions: `server`, and `client-1` … with a user in front of each.

mod application;
mod client;
mod link;
mod node;
mod script;
mod server;
mod store;
mod user;
pub(crate) mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use gapless::session::conversation::{Loaded, Role as Speaker, Row};
use gapless::session::view::{Connection, View};
use gapless::session::wire::Status;

use self::user::{User, Wish};
use super::host::HostState;
use super::link::Link;
use super::record::Recorder;
use super::{Cast, Client, Company, Stage, lock};
use crate::conform::Role;
use crate::plan::{
    Action, Fault, Host, Protocol, SessionClientOptions, SessionServerOptions, Topology,
};

/// The name of the server's host.
const SERVER: &str = "server";

/// The token of a user.
fn token(user: u32) -> String {
    format!("ut_live_{user}")
}

/// What the world knows over the lives of all hosts.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<LedgerState>>);

#[derive(Default)]
struct LedgerState {
    /// Faults are over: whoever looks whether everything has arrived may begin.
    healed: bool,
    /// What the server's store holds of each user's conversation, since the faults are over.
    conversations: BTreeMap<u32, Loaded>,
    /// The server does not tell what its store holds.
    blind: bool,
    /// The turns that the application is at.
    running: BTreeSet<(u32, u64)>,
    /// What each client shows.
    views: BTreeMap<u32, Arc<View>>,
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, LedgerState> {
        lock(&self.0)
    }
}

struct Session {
    recorder: Recorder,
    topology: Topology,
    /// Whether clients are told what others of the same user say.
    extension: bool,
    users: Vec<User>,
    ledger: Ledger,
}

/// Lets the hosts of a plan enter.
pub(super) fn enter(
    stage: &mut Stage<'_>,
    server_options: &SessionServerOptions,
    client_options: &SessionClientOptions,
) -> Company {
    let (seed, recorder, distorted) = (stage.seed, stage.recorder.clone(), stage.distorted);
    let topology = &stage.plan.topology;
    let lying = distorted.settings().lying_disk;
    let extension = server_options.extension && client_options.extension;
    let ledger = Ledger::default();
    let server = HostState::new(SERVER, seed, &recorder, lying);
    {
        let (process, vault, ledger) =
            (server.process.clone(), server.vault.clone(), ledger.clone());
        let (options, inspecting) = (server_options.clone(), stage.inspecting.clone());
        let users = topology.agents;
        let nodes = stage.attached.filter(|attached| attached.role() == Role::SessionServer);
        let (nodes, case) = (nodes.cloned(), stage.plan.scenario.clone());
        stage.host(SERVER, move || {
            let process = lock(&process).clone();
            let (nodes, case) = (nodes.clone(), case.clone());
            let side = server::Side {
                process: process.clone(),
                options: options.clone(),
                vault: vault.clone(),
                ledger: ledger.clone(),
                users,
            };
            let inspecting = *lock(&inspecting);
            process.live(async move {
                match (nodes, inspecting) {
                    (None, true) => server::inspect(side).await,
                    (None, false) => server::serve(side, distorted).await,
                    (Some(nodes), true) => node::inspect(side, nodes, case).await,
                    (Some(nodes), false) => node::serve(side, nodes, case).await,
                }
            })
        });
    }
    let (mut clients, mut users) = (Vec::new(), Vec::new());
    let nodes = stage.attached.filter(|attached| attached.role() == Role::SessionClient).cloned();
    for number in 1..=topology.clients {
        let name = Host::Client(number).name(Protocol::Session);
        let state = HostState::new(name, seed, &recorder, lying);
        let (link, user) = (Link::default(), User::default());
        users.push(user.clone());
        let (process, vault, ledger) = (state.process.clone(), state.vault.clone(), ledger.clone());
        clients.push(Client { state, link: link.clone() });
        let (options, of) = (client_options.clone(), topology.user_of(number));
        let inspecting = stage.inspecting.clone();
        let (nodes, case) = (nodes.clone(), stage.plan.scenario.clone());
        stage.host(name, move || {
            let process = lock(&process).clone();
            let side = client::Side {
                process: process.clone(),
                number,
                of,
                options: options.clone(),
                extension,
                vault: vault.clone(),
                ledger: ledger.clone(),
                user: user.clone(),
                link: link.clone(),
            };
            let inspecting = *lock(&inspecting);
            let (nodes, case) = (nodes.clone(), case.clone());
            process.live(async move {
                match nodes {
                    // A client that has ended does not see the server end.
                    _ if inspecting => Ok(()),
                    Some(nodes) => node::live(side, nodes, case).await,
                    None => client::live(side, distorted).await,
                }
            })
        });
    }
    let cast = Session { recorder, topology: topology.clone(), extension, users, ledger };
    Company { server, clients, workload: None, cast: Box::new(cast) }
}

impl Session {
    fn user(&self, client: u32) -> &User {
        &self.users[client as usize - 1]
    }

    /// Whether a client shows what the server holds, and nothing is left to be done about it.
    fn is_settled(&self, client: u32) -> bool {
        let state = self.ledger.state();
        let Some(view) = state.views.get(&client) else { return false };
        if !view.pending.is_empty() || !self.user(client).has_said_all() {
            return false;
        }
        if view.connection == Connection::Superseded {
            return true;
        }
        // That nothing goes on is told as well, and may be lost like anything else.
        let quiet = view.open_question.is_none()
            && view.status == Status::Idle
            && view.connection == Connection::Live;
        let shows_all = match state.conversations.get(&self.topology.user_of(client)) {
            Some(held) => {
                held.question.is_none()
                    && held.waiting.is_empty()
                    && self.shows_the_newest(view, &held.rows)
            }
            None => state.blind,
        };
        quiet && view.loaded && shows_all
    }

    /// Whether a view shows the newest row; to a base client only those of the application are
    /// sent.
    fn shows_the_newest(&self, view: &View, rows: &[Row]) -> bool {
        let sent = |role: Speaker| self.extension || role == Speaker::Assistant;
        let newest = rows.iter().rfind(|row| sent(row.role));
        let shown = view.messages.iter().rfind(|message| sent(message.role));
        match (newest, shown) {
            // The same words may have been said before.
            (Some(row), Some(shown)) if self.extension => shown.position == Some(row.position),
            (newest, shown) => newest.map(|row| &row.text) == shown.map(|message| &message.text),
        }
    }
}

impl Cast for Session {
    fn work(&mut self, index: usize, action: &Action, now_ms: u64) {
        match action {
            Action::Say(say) => {
                self.recorder.step(format_args!(
                    "say {} messages at client-{}, one every {} ms",
                    say.count, say.client, say.every_ms
                ));
                for nth in 1..=say.count {
                    let at_ms = now_ms + u64::from(nth - 1) * say.every_ms;
                    let wish = Wish::Say(script::message(index, nth, say));
                    self.user(say.client).wish(at_ms, wish);
                }
            }
            Action::Refresh { client } => {
                self.recorder.step(format_args!("client-{client} loads its page again"));
                self.user(*client).wish(now_ms, Wish::Refresh);
            }
            Action::Reconnect { client } => {
                self.recorder.step(format_args!("the user comes back to client-{client}"));
                self.user(*client).wish(now_ms, Wish::Reconnect);
            }
            _ => {}
        }
    }

    fn fault(&mut self, _fault: &Fault) {}

    fn handler_recovers(&mut self, _client: u32) {}

    // A copy is made after the next transaction.
    fn backup_due(&mut self, _host: Host) {}

    fn killed(&mut self, host: Host, committed: bool) {
        let mut state = self.ledger.state();
        match host {
            Host::Server => {
                state.running.clear();
                state.conversations.clear();
            }
            Host::Client(client) => {
                state.views.remove(&client);
            }
        }
        if committed {
            gapless::mark!("world.died_between_commit_and_send");
        }
    }

    fn heal(&mut self) {
        self.ledger.state().healed = true;
    }

    fn is_converged(&mut self) -> bool {
        let idle = self.ledger.state().running.is_empty();
        idle && (1..=self.topology.clients).all(|client| self.is_settled(client))
    }

    fn finish(&mut self) -> Vec<Host> {
        self.recorder.step("over: a look into the conversations".to_owned());
        let clients = (1..=self.topology.clients).map(Host::Client);
        clients.chain([Host::Server]).collect()
    }
}
