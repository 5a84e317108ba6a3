//! What the log holds, for the history: told by the engine, whatever servers make of it.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::log::{Log, Message};
use crate::chain::Digest;
use crate::history::{LogState, Seen};
use crate::trace::{Fact, Kind};
use crate::world::events::publisher::key_of;
use crate::world::events::server::agent_id;
use crate::world::host::Process;
use crate::world::record::Recorder;

/// The subject of an agent's stream.
fn subject(agent: u32) -> String {
    format!("gapless.events.{}", agent_id(agent).as_str())
}

/// The subject of the epochs.
pub(super) const EPOCHS: &str = "gapless.epoch";

/// Watches what is committed.
pub(super) struct Truth {
    recorder: Recorder,
    agents: u32,
}

impl Truth {
    pub(super) fn new(recorder: Recorder, agents: u32) -> Self {
        Self { recorder, agents }
    }

    pub(super) fn agents(&self) -> u32 {
        self.agents
    }

    /// The agent of a subject.
    fn agent_of(&self, of: &str) -> Option<u32> {
        (1..=self.agents).find(|agent| subject(*agent) == of)
    }
}

/// The events that were appended at once, as a message has them, each with whoever published it.
#[derive(Deserialize)]
struct Batch {
    first: u64,
    events: Vec<(String, Box<RawValue>)>,
}

fn batch(message: &Message) -> Option<Batch> {
    serde_json::from_str(&message.payload).ok()
}

/// How far the streams of a log go.
pub(super) fn streams(log: &Log, agents: u32) -> Vec<LogState> {
    (1..=agents).map(|agent| state(log, agent)).collect()
}

fn state(log: &Log, agent: u32) -> LogState {
    let subject = subject(agent);
    let head = log.last(&subject).and_then(batch);
    let head = head.map_or(0, |batch| batch.first + batch.events.len() as u64 - 1);
    let oldest = log.of(&subject, 1).next().and_then(batch).map_or(head + 1, |batch| batch.first);
    LogState { agent, oldest, head }
}

impl Truth {
    /// A message was committed.
    pub(super) fn committed(&mut self, process: &Process, log: &Log, message: &Message) {
        let Some(agent) = self.agent_of(&message.subject) else {
            let (at, subject) = (message.stream_seq, &message.subject);
            process.record(Kind::Store, format!("{subject} = {at}"));
            if **subject == *EPOCHS {
                let record: Value = serde_json::from_str(&message.payload).unwrap_or_default();
                let opened = record["begun"].as_array().and_then(|begun| begun.last()?.as_str());
                let epoch = opened.unwrap_or_default().to_owned();
                self.recorder.see(Seen::EpochOpened { epoch });
            }
            return;
        };
        let Some(Batch { first, events }) = batch(message) else { return };
        let mut work = Vec::new();
        for (sequence, (_, event)) in (first..).zip(&events) {
            let key = key_of(event.get());
            work.extend(key.clone());
            self.recorder.appended(agent, sequence, key, Digest::of_stored(event.get()));
            self.recorder.stored(agent, sequence);
        }
        let (last, at) = (first + events.len() as u64 - 1, message.stream_seq);
        let text = format!("agent-{agent} {first}..={last} = {at}");
        process.record_fact(Kind::Store, text, Fact::Work(work));
        gapless::mark!("world.committed");
        self.retained(log, agent);
    }

    /// Messages of a subject were removed.
    pub(super) fn purged(&mut self, log: &Log, subject: &str) {
        if let Some(agent) = self.agent_of(subject) {
            self.retained(log, agent);
        }
    }

    fn retained(&self, log: &Log, agent: u32) {
        self.recorder.retained(agent, state(log, agent).oldest);
    }

    /// The run is over.
    pub(super) fn tell_end(&self, log: &Log) {
        for agent in 1..=self.agents {
            let LogState { oldest, head, .. } = state(log, agent);
            self.recorder.see(Seen::LogEnd { agent, oldest, head });
            for Batch { first, events } in log.of(&subject(agent), 1).filter_map(batch) {
                for (sequence, (_, event)) in (first..).zip(&events) {
                    let key = key_of(event.get()).unwrap_or_default();
                    self.recorder.see(Seen::Stored { agent, sequence, key });
                }
            }
        }
    }
}
