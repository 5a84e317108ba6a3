//! What a server makes of the log that takes the epoch that it knows for the newest: a mutant.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::log::Message;
use super::truth::EPOCHS;
use crate::world::lock;

/// The record of epochs as one life of a server saw it first.
#[derive(Clone, Default)]
pub(super) struct Pinned(Arc<Mutex<Option<Message>>>);

impl Pinned {
    /// A message as it is shown to the server.
    pub(super) fn shows(&self, message: Message) -> Message {
        let mut pinned = lock(&self.0);
        if *message.subject == *EPOCHS {
            let first = pinned.get_or_insert_with(|| message.clone());
            return Message { payload: Arc::clone(&first.payload), ..message };
        }
        let Some(first) = &*pinned else { return message };
        let known: Value = serde_json::from_str(&first.payload).unwrap_or_default();
        let Some(known) = known["begun"].as_array() else { return message };
        let Ok(mut batch) = serde_json::from_str::<Value>(&message.payload) else { return message };
        let Some(newest) = known.last() else { return message };
        let mut changed = false;
        let mut pin = |epoch: &mut Value| {
            if !known.contains(epoch) {
                *epoch = newest.clone();
                changed = true;
            }
        };
        batch.get_mut("epoch").map(&mut pin);
        let begun = batch.get_mut("epochs").and_then(Value::as_array_mut);
        for epoch in begun.into_iter().flatten().filter_map(|begun| begun.get_mut(0)) {
            pin(epoch);
        }
        match changed {
            true => Message { payload: batch.to_string().into(), ..message },
            false => message,
        }
    }

    /// What is shown in the place of a record that is not there.
    pub(super) fn first(&self, subject: &str) -> Option<Message> {
        lock(&self.0).clone().filter(|_| subject == EPOCHS)
    }
}
