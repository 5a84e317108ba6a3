//! What a run put on the network, as far as its trace and its history tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use gapless_sim::history::Seen;
use gapless_sim::plan::{Action, Plan, Publish};
use gapless_sim::trace::{Kind, Record};
use gapless_sim::world::Run;

/// Everything that the bare world repeats. All times are virtual milliseconds since the start.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) tick_ms: u64,
    pub(crate) latency_ms: u64,
    pub(crate) tcp_capacity: usize,
    /// How often the world is stepped.
    pub(crate) ticks: u64,
    /// The connections of each client, in the order in which they opened.
    pub(crate) clients: Vec<Arc<[Connection]>>,
    /// The exchanges of each job of the publishers, which has a connection of its own.
    pub(crate) jobs: Arc<[Vec<Post>]>,
    /// How many frames arrived in the run itself.
    pub(crate) received: u64,
}

/// One WebSocket connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// When the TCP connection stood.
    pub(crate) open_ms: u64,
    /// When the client lets go of it.
    pub(crate) end_ms: u64,
    pub(crate) up: Arc<[Frame]>,
    pub(crate) down: Arc<[Frame]>,
}

/// A frame: when it is sent, and how many bytes its payload has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) at_ms: u64,
    pub(crate) bytes: usize,
}

/// A request over HTTP and its answer, heads included.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) request: Frame,
    pub(crate) answer: Frame,
}

/// How many steps the world makes after the end, for a look into the log.
const TICKS_AFTER: u64 = 3;

impl Script {
    pub(crate) fn of(run: &Run) -> Self {
        let (plan, records) = (&run.plan, &run.trace.records);
        let clients = 1..=plan.topology.clients;
        let frames = |kind: Kind| records.iter().filter(move |record| record.kind == kind);
        Self {
            seed: plan.seed,
            tick_ms: plan.tick_ms,
            latency_ms: plan.topology.latency_ms,
            tcp_capacity: plan.topology.tcp_capacity,
            ticks: run.virtual_ms / plan.tick_ms + TICKS_AFTER,
            clients: clients.map(|client| connections(run, client)).collect(),
            jobs: posts(run),
            received: frames(Kind::Receive).count() as u64,
        }
    }

    /// How many frames it has.
    pub(crate) fn frames(&self) -> u64 {
        let connections = self.clients.iter().flat_map(|client| client.iter());
        connections.map(|open| open.up.len() + open.down.len()).sum::<usize>() as u64
    }

    /// How many requests it has.
    pub(crate) fn posts(&self) -> u64 {
        self.jobs.iter().map(Vec::len).sum::<usize>() as u64
    }
}

/// The connections of a client. A frame of the server belongs to the newest one of which the
/// server can know.
fn connections(run: &Run, client: u32) -> Arc<[Connection]> {
    struct Open {
        open_ms: u64,
        end_ms: Option<u64>,
        up: Vec<Frame>,
        down: Vec<Frame>,
    }
    let (plan, name) = (&run.plan, format!("client-{client}"));
    let prefix = format!("{name}: ");
    let frame = |record: &Record, text: &str| Frame {
        at_ms: record.at_ms,
        bytes: payload_bytes(plan, text),
    };
    let mut all: Vec<Open> = Vec::new();
    for record in &run.trace.records {
        if record.host == "server" {
            if let (Kind::Send, Some(text)) = (record.kind, record.text.strip_prefix(&prefix)) {
                let known =
                    |open: &&mut Open| open.open_ms + plan.topology.latency_ms <= record.at_ms;
                let newest = all.iter_mut().rev().find(known);
                newest.expect("an open connection").down.push(frame(record, text));
            }
            continue;
        }
        if record.host != name {
            continue;
        }
        let opens = record.text.starts_with("connection ") && record.text.ends_with(" opens");
        let ends = record.text.starts_with("dies") || record.text.starts_with("loses power");
        let ends = ends || record.text.starts_with("disconnected");
        if let Some(last) = all.last_mut().filter(|_| opens || ends) {
            last.end_ms.get_or_insert(record.at_ms);
        }
        if opens {
            let open_ms = record.at_ms;
            all.push(Open { open_ms, end_ms: None, up: Vec::new(), down: Vec::new() });
        }
        if record.kind == Kind::Send {
            let newest = all.last_mut().expect("an open connection");
            newest.up.push(frame(record, &record.text));
        }
    }
    // What is on its way at the end still arrives.
    let under_way_ms = 2 * (plan.topology.latency_ms + plan.tick_ms);
    let connection = |open: Open| {
        let last = open.up.iter().chain(&open.down).map(|frame| frame.at_ms + under_way_ms).max();
        let end_ms = open.end_ms.unwrap_or(u64::MAX).max(last.unwrap_or(0));
        Connection { open_ms: open.open_ms, end_ms, up: open.up.into(), down: open.down.into() }
    };
    all.into_iter().map(connection).collect()
}

/// How many bytes the payload of a frame has that a record describes.
///
/// The record has the fields of the JSON object, without quotes and with long values cut, and
/// leaves the filler out. Of an epoch, a time and the filler the length is known; a list that was
/// cut counts as long as it is shown.
fn payload_bytes(plan: &Plan, text: &str) -> usize {
    let number = |text: &str| text.split(' ').next().and_then(|word| word.parse().ok());
    let raw = text.strip_prefix("text of ").or_else(|| text.strip_prefix("binary of "));
    if let Some(bytes) = raw.and_then(number) {
        return bytes;
    }
    if let Some(reason) = text.strip_prefix("close ") {
        return 2 + reason.split_once(' ').map_or(0, |(_, reason)| reason.len());
    }
    let mut words = text.split(' ');
    let mut bytes = r#"{"type":""}"#.len() + words.next().map_or(0, str::len);
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        let plain = value.starts_with(['[', '{'])
            || ["true", "false", "null"].contains(&value)
            || value.bytes().all(|byte| byte.is_ascii_digit());
        let length = match (name, value.strip_suffix('…')) {
            ("epoch", Some(_)) => 32,
            ("since", Some(_)) => 24,
            (_, shown) => shown.unwrap_or(value).len(),
        };
        bytes += r#","":"#.len() + name.len() + length + if plain { 0 } else { 2 };
        if let Some((_, publish)) =
            Some(value).filter(|_| name == "key").and_then(|key| job(plan, key))
        {
            bytes += r#","fill":"""#.len() + publish.bytes as usize;
        }
    }
    bytes
}

/// The job that published an event: its number in the plan, and what it publishes.
fn job<'a>(plan: &'a Plan, key: &str) -> Option<(usize, &'a Publish)> {
    let number: usize = key.strip_prefix('p')?.split_once('-')?.0.parse().ok()?;
    match &plan.steps.get(number)?.action {
        Action::Publish(publish) => Some((number, publish)),
        _ => None,
    }
}

/// What the publishers asked and were answered. A history has no attempts without an answer.
fn posts(run: &Run) -> Arc<[Vec<Post>]> {
    let mut asked_ms = BTreeMap::new();
    let mut jobs: BTreeMap<usize, Vec<Post>> = BTreeMap::new();
    for entry in &run.history.entries {
        match &entry.what {
            Seen::Publishing { key, .. } => {
                asked_ms.insert(key, entry.at_ms);
            }
            Seen::Published { agent, key, epoch, sequence } => {
                let (number, publish) = job(&run.plan, key).expect("published by the plan");
                // An event that is published twice is asked for again as soon as it is answered.
                let at_ms = asked_ms.insert(key, entry.at_ms).expect("asked for before");
                let request = request_bytes(*agent, key, publish);
                let answer = answer_bytes(epoch, *sequence);
                // The answer leaves the server one way earlier than it arrives.
                let left_ms = entry.at_ms.saturating_sub(run.plan.topology.latency_ms);
                jobs.entry(number).or_default().push(Post {
                    request: Frame { at_ms, bytes: request },
                    answer: Frame { at_ms: left_ms.max(at_ms), bytes: answer },
                });
            }
            _ => {}
        }
    }
    jobs.into_values().collect()
}

fn request_bytes(agent: u32, key: &str, publish: &Publish) -> usize {
    let id = if publish.ids { format!(r#""id":"{key}","#) } else { String::new() };
    let payload = format!(r#"{{"key":"{key}","fill":""}}"#);
    let body = format!(r#"{{{id}"type":"note","payload":{payload}}}"#).len();
    let body = body + publish.bytes as usize;
    let head = format!(
        "POST /v1/agents/agent-{agent}/events HTTP/1.1\r\nhost: server\r\n\
         authorization: Bearer pt_live_1\r\ncontent-type: application/json\r\n\
         content-length: {body}\r\n\r\n"
    );
    head.len() + body
}

fn answer_bytes(epoch: &str, sequence: u64) -> usize {
    let body = format!(r#"{{"epoch":"{epoch}","agent_seq":{sequence}}}"#).len();
    let head = format!(
        "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {body}\r\n\r\n"
    );
    head.len() + body
}
