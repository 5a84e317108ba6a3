//! What can be wrong with a log.

use std::collections::BTreeMap;

use gapless::events::AgentId;
use gapless::events::log::{Append, Appended, Command, Reply};
use gapless::events::sqlite::SqliteLog;
use gapless::events::wire::EventBody;
use gapless::storage::{StoreError, Transact};
use serde_json::value::RawValue;

/// Numbers of a stream begin anew when retention has removed all of its events.
struct NumbersReused {
    log: SqliteLog,
    /// How many numbers of each stream are forgotten.
    forgotten: BTreeMap<AgentId, u64>,
}

/// The stream that a command is about.
fn stream_of(command: &Command) -> Option<AgentId> {
    match command {
        Command::OpenEpoch { .. } => None,
        Command::Load { agent, .. }
        | Command::FindSince(agent, _)
        | Command::Retain { agent, .. } => Some(agent.clone()),
        Command::Append(append) => Some(append.agent.clone()),
        Command::Read(read) => Some(read.agent.clone()),
    }
}

impl Transact<Command> for NumbersReused {
    fn transact(&mut self, mut commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let streams: Vec<_> = commands.iter().map(stream_of).collect();
        let of = |forgotten: &BTreeMap<AgentId, u64>, agent: &Option<AgentId>| {
            agent.as_ref().and_then(|agent| forgotten.get(agent)).copied().unwrap_or(0)
        };
        for (command, agent) in commands.iter_mut().zip(&streams) {
            let forgotten = of(&self.forgotten, agent);
            match command {
                Command::Read(read) => {
                    read.after += forgotten;
                    read.to += forgotten;
                }
                Command::Retain { oldest, .. } => *oldest += forgotten,
                _ => {}
            }
        }
        let mut replies = self.log.transact(commands)?;
        for (reply, agent) in replies.iter_mut().zip(streams) {
            let forgotten = of(&self.forgotten, &agent);
            match reply {
                Reply::Loaded(state) => {
                    state.oldest -= forgotten.min(state.oldest - 1);
                    state.head -= forgotten.min(state.head);
                }
                Reply::Appended(Appended::New { sequence, oldest, .. }) => {
                    *sequence -= forgotten;
                    *oldest -= forgotten.min(*oldest - 1);
                }
                Reply::Appended(Appended::Existing { sequence, .. }) => *sequence -= forgotten,
                Reply::Page(page) => {
                    for (sequence, _) in page {
                        *sequence -= forgotten;
                    }
                }
                Reply::Retained(oldest) => {
                    if let Some(agent) = agent {
                        let load = Command::Load { agent: agent.clone(), confirmed: true };
                        if let [Reply::Loaded(state)] = &self.log.transact(vec![load])?[..]
                            && state.oldest > state.head
                        {
                            self.forgotten.insert(agent, state.head);
                        }
                    }
                    *oldest -= forgotten.min(*oldest - 1);
                }
                _ => {}
            }
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn numbers_reused(log: SqliteLog) -> Box<dyn Transact<Command>> {
    Box::new(NumbersReused { log, forgotten: BTreeMap::new() })
}

/// Ids are unique because each publication gets another one.
struct StoredTwice {
    log: SqliteLog,
    stored: u64,
}

impl Transact<Command> for StoredTwice {
    fn transact(&mut self, mut commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        for command in &mut commands {
            if let Command::Append(append) = command {
                self.stored += 1;
                if let Some(body) = renamed(append, self.stored) {
                    append.body = body;
                }
            }
        }
        self.log.transact(commands)
    }
}

/// The event of an append under another id.
fn renamed(append: &Append, nth: u64) -> Option<EventBody> {
    let id = format!("{}/{nth}", append.body.id()?);
    rebuilt(&append.body, Some(&id), |_| {})
}

/// An event with other fields.
fn rebuilt(
    body: &EventBody,
    id: Option<&str>,
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) -> Option<EventBody> {
    let mut fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(body.as_str()).ok()?;
    fields.remove("id");
    let kind = fields.remove("type")?;
    change(&mut fields);
    let payload = RawValue::from_string(serde_json::to_string(&fields).ok()?).ok()?;
    EventBody::new(id, kind.as_str()?, &payload, usize::MAX).ok()
}

pub(in crate::mutants) fn stored_twice(log: SqliteLog) -> Box<dyn Transact<Command>> {
    Box::new(StoredTwice { log, stored: 0 })
}

/// What is read from the log has lost a field that live events have.
struct ReplayDiffers(SqliteLog);

impl Transact<Command> for ReplayDiffers {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let mut replies = self.0.transact(commands)?;
        for reply in &mut replies {
            if let Reply::Page(page) = reply {
                for (_, body) in page {
                    if let Some(other) = rebuilt(body, body.id(), |fields| {
                        fields.remove("fill");
                    }) {
                        *body = other;
                    }
                }
            }
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn replay_differs(log: SqliteLog) -> Box<dyn Transact<Command>> {
    Box::new(ReplayDiffers(log))
}
