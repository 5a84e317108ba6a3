//! Writes a scenario as the text of a file, from which it can be read again as it is.
//!
//! Hosts and options are spelled out, so that the file means the same when a default changes.

mod options;
mod step;

use std::fmt::{Display, Write};

pub(crate) use step::action;
use step::when;

use serde_json::Value;

use super::{Frozen, Group, Scenario, Swarm};
use crate::plan::{Options, Protocol, Topology};

impl Scenario {
    /// The text of a file that says the same.
    pub fn text(&self) -> String {
        let protocol = self.options.protocol();
        let mut text = Text::default();
        text.key("title", string(&self.title));
        text.key("protocol", string(name(protocol)));
        text.list("statements", &self.statements);
        text.list("reference", &self.reference);
        text.list("reaches", &self.reaches);
        text.key("duration", duration(self.duration_ms));
        text.key("settle", duration(self.settle_ms));
        text.key("tick", duration(self.tick_ms));
        text.table("topology");
        topology(&mut text, &self.topology, protocol);
        match &self.swarm {
            Some(drawn) => {
                text.table("swarm");
                swarm(&mut text, drawn, protocol);
            }
            None => self.sides(&mut text),
        }
        if let Some(from) = &self.frozen {
            text.table("frozen");
            frozen(&mut text, from);
        }
        for step in &self.steps {
            text.line("\n[[step]]");
            text.line(&when(&step.when));
            text.line(&action(&step.action, protocol));
        }
        text.finish()
    }

    /// The options, which a seed draws if there is a swarm.
    fn sides(&self, text: &mut Text) {
        match &self.options {
            Options::Events { server, client } => {
                text.table("server");
                options::server(text, server);
                text.table("client");
                options::client(text, client);
            }
            Options::Tasks { controller, agent } => {
                text.table("controller");
                options::controller(text, controller);
                text.table("agent");
                options::agent(text, agent);
            }
            Options::Session { server, client } => {
                text.table("server");
                options::session_server(text, server);
                text.table("client");
                options::session_client(text, client);
            }
            Options::Custom { server, client, .. } => {
                text.table("server");
                options::custom(text, server);
                text.table("client");
                options::custom(text, client);
            }
        }
    }
}

/// A text with tables in which the values stand below each other.
#[derive(Default)]
struct Text {
    text: String,
    /// The keys of the table that is being written.
    keys: Vec<(String, String)>,
}

impl Text {
    fn key(&mut self, key: &str, value: impl Display) {
        self.keys.push((key.to_owned(), value.to_string()));
    }

    /// A list that is left out where nothing is in it.
    fn list(&mut self, key: &str, items: &[String]) {
        if !items.is_empty() {
            let items: Vec<String> = items.iter().map(|item| string(item)).collect();
            self.key(key, format_args!("[{}]", items.join(", ")));
        }
    }

    fn table(&mut self, name: &str) {
        self.line(&format!("\n[{name}]"));
    }

    fn line(&mut self, line: &str) {
        let width = self.keys.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        for (key, value) in self.keys.drain(..) {
            let _ = writeln!(self.text, "{key:<width$} = {value}");
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn finish(mut self) -> String {
        self.line("");
        self.text.trim_end().to_owned() + "\n"
    }
}

fn string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Milliseconds, in the largest unit that they are a few of.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0 => "\"0s\"".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("\"{}h\"", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) && ms > 120_000 => format!("\"{}m\"", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("\"{}s\"", ms / 1_000),
        _ => format!("\"{ms}ms\""),
    }
}

fn range((from, to): (u32, u32)) -> String {
    format!("\"{from}..{to}\"")
}

/// A value as it stands in one line of a file; nothing for what TOML does not have.
fn json(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| "\"\"".to_owned(), |value| value.to_string())
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Events => "events",
        Protocol::Tasks => "tasks",
        Protocol::Session => "session",
        Protocol::Custom(protocol) => protocol.name(),
    }
}

fn topology(text: &mut Text, topology: &Topology, protocol: Protocol) {
    match protocol {
        Protocol::Events => {
            text.key("clients", topology.clients);
            text.key("agents", topology.agents);
            if topology.is_cluster() {
                text.key("servers", topology.servers);
                text.key("stays", topology.stays);
            }
        }
        Protocol::Tasks => text.key("agents", topology.agents),
        Protocol::Session => {
            text.key("clients", topology.clients);
            text.key("users", topology.agents);
        }
        Protocol::Custom(_) => text.key("clients", topology.clients),
    }
    text.key("latency", duration(topology.latency_ms));
    text.key("tcp-capacity", topology.tcp_capacity);
    let order = topology.order.iter().map(|host| host.name(protocol).to_owned());
    text.list("order", &order.collect::<Vec<_>>());
}

fn swarm(text: &mut Text, swarm: &Swarm, protocol: Protocol) {
    let groups: Vec<String> = swarm.groups.iter().map(|group| group_name(*group)).collect();
    text.key("faults", format_args!("[{}]", groups.join(", ")));
    let work = match protocol {
        Protocol::Events => {
            text.key("clients", range(swarm.clients));
            text.key("agents", range(swarm.agents));
            if swarm.servers.1 > 1 {
                text.key("servers", range(swarm.servers));
            }
            "events-per-minute"
        }
        Protocol::Tasks => {
            text.key("agents", range(swarm.agents));
            "tasks-per-minute"
        }
        Protocol::Session => {
            text.key("clients", range(swarm.clients));
            text.key("users", range(swarm.agents));
            "messages-per-minute"
        }
        Protocol::Custom(_) => {
            text.key("clients", range(swarm.clients));
            "work-per-minute"
        }
    };
    text.key("faults-per-minute", range(swarm.faults_per_minute));
    text.key(work, range(swarm.work_per_minute));
}

fn group_name(group: Group) -> String {
    string(match group {
        Group::Link => "link",
        Group::Process => "process",
        Group::Server => "server",
        Group::Peer => "peer",
        Group::Application => "application",
        Group::Disk => "disk",
        Group::Clock => "clock",
        Group::Engine => "engine",
    })
}

fn frozen(text: &mut Text, frozen: &Frozen) {
    text.key("seed", string(&frozen.seed.to_string()));
    if let Some(mutant) = &frozen.mutant {
        text.key("mutant", string(mutant));
    }
    text.key("checker", string(&frozen.checker));
    text.key("shows", string(&frozen.shows));
}
