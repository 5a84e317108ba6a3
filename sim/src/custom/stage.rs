//! Lets the hosts of a protocol enter the world.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::node::Inbox;
use super::{Custom, Node, Sides};
use crate::plan::{Action, Fault, Host, Protocol, Strange, Topology};
use crate::world::frames::{BINARY, Frame, TEXT};
use crate::world::host::HostState;
use crate::world::link::{Link, LinkConnector, OVERSIZE, Watch};
use crate::world::record::Recorder;
use crate::world::{Cast, Client, Company, Stage, lock};

struct Hosts {
    protocol: Custom,
    topology: Topology,
    recorder: Recorder,
    server: Inbox,
    clients: Vec<Inbox>,
}

/// Lets the hosts of a plan enter.
pub(crate) fn enter(stage: &mut Stage<'_>, protocol: Custom, options: &Sides) -> Company {
    let topology = stage.plan.topology.clone();
    let (server, inbox) = host(stage, protocol, Host::Server, &options.server, None);
    let mut hosts = Hosts {
        protocol,
        topology: topology.clone(),
        recorder: stage.recorder.clone(),
        server: inbox,
        clients: Vec::new(),
    };
    let mut clients = Vec::new();
    for number in 1..=topology.clients {
        let link = Link::default();
        let of = Host::Client(number);
        let (state, inbox) = host(stage, protocol, of, &options.client, Some(link.clone()));
        hosts.clients.push(inbox);
        clients.push(Client { state, link });
    }
    Company { server, clients, workload: None, cast: Box::new(hosts) }
}

fn host(
    stage: &mut Stage<'_>,
    protocol: Custom,
    host: Host,
    options: &Map<String, Value>,
    link: Option<Link>,
) -> (HostState, Inbox) {
    let name = host.name(Protocol::Custom(protocol));
    let server = Host::Server.name(Protocol::Custom(protocol));
    let state = HostState::new(name, stage.seed, stage.recorder, false);
    let inbox = Inbox::default();
    let mutant = stage.plan.mutant.as_deref().and_then(crate::mutants::find);
    let (process, vault, clients) =
        (state.process.clone(), state.vault.clone(), stage.plan.topology.clients);
    let (work, options) = (inbox.clone(), Arc::new(options.clone()));
    stage.host(name, move || {
        let process = lock(&process).clone();
        let link = link.clone().map(|link| {
            let (watch, process) = (Arc::new(CustomLink(protocol)), process.clone());
            Arc::new(LinkConnector { server, watch, link, process })
        });
        let node = Node {
            host,
            server,
            clients,
            mutant: mutant.map(|mutant| mutant.id),
            options: Arc::clone(&options),
            inbox: work.clone(),
            vault: vault.clone(),
            link,
            process: process.clone(),
        };
        process.clone().live(async move {
            process.boot().await;
            match host {
                Host::Server => protocol.server(node).await,
                Host::Client(_) => protocol.client(node).await,
            }
        })
    });
    (state, inbox)
}

impl Cast for Hosts {
    fn work(&mut self, index: usize, action: &Action, _now_ms: u64) {
        let Action::Work(work) = action else { return };
        let protocol = Protocol::Custom(self.protocol);
        self.recorder.step(format_args!("{}: {}", work.at.name(protocol), work.describe()));
        let inbox = match work.at {
            Host::Server => &self.server,
            Host::Client(number) => &self.clients[number as usize - 1],
        };
        inbox.put(index, work.clone());
    }

    /// There is none that only this protocol knows.
    fn fault(&mut self, _fault: &Fault) {}

    fn handler_recovers(&mut self, _client: u32) {}

    fn backup_due(&mut self, _host: Host) {}

    fn killed(&mut self, _host: Host, committed: bool) {
        if committed {
            gapless::mark!("world.died_between_commit_and_send");
        }
    }

    fn heal(&mut self) {}

    fn is_converged(&mut self) -> bool {
        let taken = self.server.is_empty() && self.clients.iter().all(Inbox::is_empty);
        taken && self.protocol.is_settled(&self.recorder.so_far(), &self.topology)
    }

    fn finish(&mut self) -> Vec<Host> {
        Vec::new()
    }
}

/// What a link knows of the frames of a protocol.
struct CustomLink(Custom);

impl Watch for CustomLink {
    fn sent(&self, _connection: u64, _frame: &Frame) {}

    fn arrived(&self, _connection: u64, _frame: &Frame) {}

    fn is_payload(&self, frame: &Frame) -> bool {
        frame.text().is_some_and(|text| self.0.is_payload(text))
    }

    fn strange(&self, frame: Strange, to_server: bool) -> Bytes {
        let text = |text: &str| Frame::encode(TEXT, text.as_bytes(), to_server);
        match frame {
            Strange::UnknownType => text(r#"{"type":"unheard-of"}"#),
            Strange::Malformed => text(r#"{"type":"unheard-of""#),
            Strange::BadField => text(r#"{"type":-1}"#),
            Strange::Binary => Frame::encode(BINARY, &[0, 1, 2, 255], to_server),
            Strange::Oversize => Frame::encode(TEXT, &vec![b' '; OVERSIZE], to_server),
            Strange::StaleAnswer => Bytes::new(),
        }
    }
}
