//! What can be wrong with the stores of sessions.

use std::collections::BTreeSet;
use std::sync::Arc;

use gapless::session::conversation::{
    Command, Input, Kind, Loaded, Reply, Role, Row, Verdict, What,
};
use gapless::session::{Name, Turn, in_flight};
use gapless::storage::{StoreError, Transact};

use crate::mutants::{ConversationStore, InFlightStore};

/// Nothing is kept.
struct Memory;

impl Transact<in_flight::Command> for Memory {
    fn transact(&mut self, commands: Vec<in_flight::Command>) -> Result<Vec<()>, StoreError> {
        Ok(vec![(); commands.len()])
    }
}

pub(in crate::mutants) fn kept_in_memory(_: InFlightStore) -> InFlightStore {
    Box::new(Memory)
}

/// Commands or replies are changed on their way.
struct Changed {
    store: ConversationStore,
    command: fn(&mut Command),
    reply: fn(&mut Reply),
}

impl Transact<Command> for Changed {
    fn transact(&mut self, mut commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        commands.iter_mut().for_each(self.command);
        let mut replies = self.store.transact(commands)?;
        replies.iter_mut().for_each(self.reply);
        Ok(replies)
    }
}

pub(in crate::mutants) fn endless_queue(store: ConversationStore) -> ConversationStore {
    let command = |command: &mut Command| {
        if let Command::Input { queue_max, .. } = command {
            *queue_max = usize::MAX;
        }
    };
    Box::new(Changed { store, command, reply: |_| {} })
}

pub(in crate::mutants) fn waiting_forgotten(store: ConversationStore) -> ConversationStore {
    let reply = |reply: &mut Reply| match reply {
        Reply::Waiting(principals) => principals.clear(),
        Reply::Loaded(loaded) => loaded.waiting.clear(),
        _ => {}
    };
    Box::new(Changed { store, command: |_| {}, reply })
}

/// An input that comes again is another one.
struct Forgetful {
    store: ConversationStore,
    again: u64,
}

impl Transact<Command> for Forgetful {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let mut replies = self.store.transact(commands.clone())?;
        for (command, reply) in commands.into_iter().zip(&mut replies) {
            let (Command::Input { principal, input, queue_max }, Reply::Input(verdict)) =
                (command, reply)
            else {
                continue;
            };
            if !matches!(verdict, Verdict::Known { .. }) {
                continue;
            }
            self.again += 1;
            let id = Name::parse(&format!("{}-{}", input.id, self.again)).expect("it is short");
            let other = Input { id, ..input.clone() };
            let command = Command::Input { principal, input: other, queue_max };
            if let Some(Reply::Input(Verdict::Accepted(row))) =
                self.store.transact(vec![command])?.pop()
            {
                *verdict = Verdict::Accepted(Row { input: Some(input.id), ..row });
            }
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn accepted_twice(store: ConversationStore) -> ConversationStore {
    Box::new(Forgetful { store, again: 0 })
}

/// That a turn begins is stored when the application says something.
struct BegunLate {
    store: ConversationStore,
    begun: BTreeSet<Turn>,
}

impl Transact<Command> for BegunLate {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let mut replies = Vec::new();
        for command in commands {
            match &command {
                Command::Begin(turn) => {
                    self.begun.insert(turn.clone());
                    replies.push(Reply::Begun(true));
                    continue;
                }
                Command::Say { turn, .. } | Command::End { turn, .. }
                    if self.begun.remove(turn) =>
                {
                    self.store.transact(vec![Command::Begin(turn.clone())])?;
                }
                _ => {}
            }
            replies.extend(self.store.transact(vec![command])?);
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn begun_late(store: ConversationStore) -> ConversationStore {
    Box::new(BegunLate { store, begun: BTreeSet::new() })
}

/// Messages are accepted in memory, and stored with what comes later.
struct AcceptedInMemory {
    store: ConversationStore,
    later: Vec<Command>,
}

impl AcceptedInMemory {
    /// The row that a message will be, if it is new and has room.
    fn foretold(&mut self, command: &Command) -> Option<Row> {
        let Command::Input { principal, input, queue_max } = command else { return None };
        let What::Message { attachments, .. } = &input.what else { return None };
        let loaded = self.load(principal)?;
        let is_known = loaded.rows.iter().any(|row| row.input.as_ref() == Some(&input.id));
        let is_same =
            |it: &&Command| matches!(it, Command::Input { principal: of, .. } if of == principal);
        let held = self.later.iter().filter(is_same).count();
        let waiting = loaded.waiting.len() + held;
        let newest = loaded.rows.last().map_or(0, |row| row.position);
        (!is_known && waiting < *queue_max).then(|| Row {
            position: newest + held as u64 + 1,
            role: Role::User,
            kind: Kind::Message,
            text: input.text.clone(),
            input: Some(input.id.clone()),
            question: None,
            attachments: attachments.clone(),
            source: None,
            model: String::new(),
            usage: None,
        })
    }

    fn load(&mut self, principal: &Arc<str>) -> Option<Loaded> {
        let (principal, max) = (principal.clone(), usize::MAX);
        let all = Command::Load { principal, count_max: max, bytes_max: max };
        match self.store.transact(vec![all]).ok()?.pop()? {
            Reply::Loaded(loaded) => Some(loaded),
            _ => None,
        }
    }
}

impl Transact<Command> for AcceptedInMemory {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let mut replies = Vec::new();
        for command in commands {
            if let Some(row) = self.foretold(&command) {
                self.later.push(command);
                replies.push(Reply::Input(Verdict::Accepted(row)));
            } else {
                if !self.later.is_empty() {
                    self.store.transact(std::mem::take(&mut self.later))?;
                }
                replies.extend(self.store.transact(vec![command])?);
            }
        }
        Ok(replies)
    }
}

pub(in crate::mutants) fn accepted_in_memory(store: ConversationStore) -> ConversationStore {
    Box::new(AcceptedInMemory { store, later: Vec::new() })
}
