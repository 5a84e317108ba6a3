//! A foreign server in the place of the server's host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::publisher::key_of;
use super::server::{Copies, LOG, PUBLISHER_TOKEN, agent_id, agent_token};
use crate::conform::{Config, Effect, Event, EventsServerConfig, feature};
use crate::history::{LogState, Seen};
use crate::plan::{ServerOptions, Topology};
use crate::trace::Kind;
use crate::world::host::Process;
use crate::world::lock;
use crate::world::node::{Attached, Entrance, Outside, Part, Storage, drive, keeps};
use crate::world::vault::Vault;

/// The way to the server that runs.
pub(super) type Line = Arc<Mutex<Option<Outside>>>;

/// What a life of a foreign server is given.
pub(super) struct Side {
    pub(super) attached: Attached,
    pub(super) case: String,
    pub(super) topology: Topology,
    pub(super) options: ServerOptions,
    pub(super) copies: Copies,
    pub(super) vault: Vault,
    pub(super) process: Process,
    pub(super) line: Line,
    /// Whether it is only asked what its log holds.
    pub(super) inspecting: bool,
}

/// How long a server whose storage cannot be opened waits before it tries again.
const OPEN_RETRY: Duration = Duration::from_secs(1);

/// How many events are asked for at once.
const PAGE: usize = 128;

/// One life of a foreign server.
pub(super) async fn serve(side: Side) -> turmoil::Result {
    let Side { attached, case, topology, options, copies, vault, process, line, inspecting } = side;
    process.boot().await;
    let reports = attached.has(feature::LOG_REPORTS);
    if inspecting && !reports {
        return Ok(());
    }
    let storage = match keeps(&attached) {
        true => {
            if !inspecting {
                copies.before_start(&process, &vault, &topology)?;
            }
            Some(open(&process).await)
        }
        false => None,
    };
    let agents =
        (1..=topology.agents).map(|agent| (agent_id(agent).to_string(), agent_token(agent)));
    let config = EventsServerConfig {
        agents: agents.collect(),
        publisher_token: PUBLISHER_TOKEN.to_owned(),
        extension: options.extension,
        ring: options.ring,
        resync_grace_ms: options.resync_grace_ms,
        window_frames: options.window_frames,
        write_stall_ms: options.write_stall_ms,
        silence_ms: options.silence_ms,
        retain_events: options.retain_events,
        page_events: options.page_events,
    };
    let part = ServerPart {
        reports,
        inspecting,
        topology,
        copies,
        process: process.clone(),
        line,
        asked: BTreeSet::new(),
        reading: BTreeMap::new(),
        states: BTreeMap::new(),
    };
    let entrance = Entrance {
        seat: 0,
        case,
        config: Config::EventsServer(config),
        connector: None,
        storage,
        vault,
        commit: Duration::from_millis(options.commit_ms),
        attached,
        process,
    };
    drive(entrance, part).await
}

async fn open(process: &Process) -> Storage {
    loop {
        match Storage::open(process, LOG, "") {
            Ok(storage) => return storage,
            Err(problem) => {
                process.powered().await;
                process.record(Kind::Store, format_args!("the log cannot be opened: {problem}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    }
}

/// What can be seen of a foreign server beside what is on the wire.
struct ServerPart {
    /// It says what its log holds.
    reports: bool,
    inspecting: bool,
    topology: Topology,
    copies: Copies,
    process: Process,
    line: Line,
    /// Streams whose state was asked for at the start, and not told yet.
    asked: BTreeSet<u32>,
    /// Streams that are being read.
    reading: BTreeMap<u32, Reading>,
    /// What the log holds of each stream.
    states: BTreeMap<u32, LogState>,
}

/// A stream that is read page by page.
struct Reading {
    /// The last number that is wanted.
    to: u64,
    /// The last number of the page that was asked for.
    page_to: u64,
}

impl ServerPart {
    fn agent(&self, name: &str) -> Result<u32, String> {
        let number = name.strip_prefix("agent-").and_then(|number| number.parse().ok());
        let number = number.filter(|number| (1..=self.topology.agents).contains(number));
        number.ok_or_else(|| format!("there is no agent `{name}`"))
    }

    fn read(&self, agent: u32, after: u64, count: usize) -> Event {
        Event::LogRead { agent: agent_id(agent).to_string(), after, count }
    }

    /// Asks for what is above a number, up to another one.
    fn read_on(&mut self, agent: u32, after: u64, to: u64, outside: &Outside) {
        let page_to = after + PAGE as u64;
        self.reading.insert(agent, Reading { to, page_to });
        outside.happened(self.read(agent, after, PAGE));
    }

    /// What the log held when the life began is known: what of it is not in the history?
    fn known(&mut self, outside: &Outside) {
        let recorder = self.process.recorder.clone();
        let states: Vec<LogState> = self.states.values().copied().collect();
        self.copies.tell_replaced(&recorder, &states);
        if self.inspecting {
            for state in states {
                // A commit whose outcome was unknown may have come back. No server that ran had it.
                let head = state.head.min(recorder.head(state.agent));
                let LogState { agent, oldest, .. } = state;
                recorder.see(Seen::LogEnd { agent, oldest, head });
                self.read_on(state.agent, state.oldest - 1, head, outside);
            }
            return;
        }
        for LogState { agent, oldest, head } in states {
            recorder.stored(agent, head);
            recorder.retained(agent, oldest);
            let chained = recorder.chained(agent);
            if chained < head {
                self.read_on(agent, chained, head, outside);
            }
        }
    }

    fn state(&mut self, state: LogState, outside: &Outside) {
        self.states.insert(state.agent, state);
        if self.asked.remove(&state.agent) {
            if self.asked.is_empty() {
                self.known(outside);
            }
            return;
        }
        if !self.inspecting {
            self.process.recorder.stored(state.agent, state.head);
            self.process.recorder.retained(state.agent, state.oldest);
        }
    }

    fn event(&mut self, agent: u32, sequence: u64, event: &str, outside: &Outside) {
        let key = key_of(event);
        let recorder = &self.process.recorder;
        if self.inspecting {
            let wanted = self.reading.get(&agent);
            if wanted.is_some_and(|reading| sequence <= reading.to) {
                let key = key.unwrap_or_default();
                recorder.see(Seen::Stored { agent, sequence, key });
            }
        } else {
            let digest = recorder.digest_of(agent, key.as_deref(), event);
            recorder.appended(agent, sequence, key, digest);
            recorder.stored(agent, sequence);
        }
        match self.reading.get(&agent) {
            Some(reading) if sequence >= reading.to => {
                self.reading.remove(&agent);
            }
            Some(reading) if sequence == reading.page_to => {
                let to = reading.to;
                self.read_on(agent, sequence, to, outside);
            }
            _ => {}
        }
    }
}

impl Part for ServerPart {
    fn begin(&mut self, outside: &Outside) -> Event {
        *lock(&self.line) = Some(outside.clone());
        if !self.reports {
            return Event::AppConnect;
        }
        self.asked = (1..=self.topology.agents).collect();
        for agent in 2..=self.topology.agents {
            outside.happened(self.read(agent, 0, 0));
        }
        if !self.inspecting {
            outside.happened(Event::AppConnect);
        }
        self.read(1, 0, 0)
    }

    fn listens(&self) -> bool {
        !self.inspecting
    }

    fn changed(&mut self, _entrance: &Entrance) -> std::io::Result<()> {
        Ok(())
    }

    fn settled(&mut self, entrance: &Entrance) -> std::io::Result<()> {
        if self.inspecting || entrance.storage.is_none() {
            return Ok(());
        }
        self.copies.back_up_if_due(&entrance.process, &entrance.vault, &self.topology)
    }

    fn effect(&mut self, effect: Effect, outside: &Outside) -> Result<(), String> {
        match effect {
            Effect::LogEpoch { epoch } => {
                self.process.recorder.see(Seen::EpochOpened { epoch });
            }
            Effect::LogState { agent, oldest, head } => {
                let agent = self.agent(&agent)?;
                self.state(LogState { agent, oldest, head }, outside);
            }
            Effect::LogEvent { agent, sequence, event } => {
                let agent = self.agent(&agent)?;
                self.event(agent, sequence, &event, outside);
            }
            other => return Err(format!("no server of events does {other:?}")),
        }
        Ok(())
    }
}
