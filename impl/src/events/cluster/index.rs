//! What is known of a stream that is appended to: its end, and the ids of its newest events.
//!
//! An append succeeds only if the message that the index ends with is still the last one. So when it
//! has succeeded, nothing was missing in the index by which the event was judged.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::message::Message;
use super::removed::{Removed, RemovedId};
use crate::events::log::{Append, Appended};
use crate::events::wire::EventBody;
use crate::recovery::{Epoch, WallTime};

/// The end of a stream, as messages tell it one after the other.
#[derive(Debug)]
pub(super) struct Index {
    /// The number of the last event; 0 = none.
    pub(super) head: u64,
    /// The stream sequence of the last message; 0 = none.
    pub(super) stream_seq: u64,
    /// When it was stored.
    pub(super) at: Option<WallTime>,
    /// See [`Message::epochs`].
    pub(super) epochs: Vec<(Epoch, u64)>,
    /// The lowest number that could be read when the index was made.
    pub(super) oldest: u64,
    /// The lowest number from which on all ids are known.
    ids_from: u64,
    ids: BTreeMap<Arc<str>, Known>,
    order: VecDeque<(u64, Arc<str>)>,
}

#[derive(Debug)]
struct Known {
    sequence: u64,
    principal: String,
    digest: [u8; 32],
    epoch: Epoch,
}

/// What a message is to an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// It followed, and is known now.
    Next,
    /// It was known.
    Known,
    /// There is something before it that is not known.
    Hole,
    /// Its numbers belong to others already, which compare and set excludes.
    Twice,
}

impl Index {
    /// Of a stream whose first known event will be `first`, of which `oldest` is the lowest that can
    /// be read.
    pub(super) fn new(first: u64, oldest: u64) -> Self {
        Self {
            head: first - 1,
            stream_seq: 0,
            at: None,
            epochs: Vec::new(),
            oldest,
            ids_from: first,
            ids: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Takes in the ids of events that were removed before the first one that will be known.
    pub(super) fn remember(&mut self, removed: Removed) {
        let next = self.head + 1;
        if removed.to + 1 < next || removed.from >= next {
            return;
        }
        self.ids_from = removed.from;
        for RemovedId { sequence, id, principal, digest, epoch } in removed.ids {
            if sequence < next {
                let id: Arc<str> = id.into();
                self.ids.insert(id.clone(), Known { sequence, principal, digest, epoch });
                self.order.push_back((sequence, id));
            }
        }
    }

    /// How many ids it holds.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Takes in a message, and forgets the ids of all but the newest `ids_max` events.
    pub(super) fn apply(&mut self, message: &Message, stream_seq: u64, ids_max: u64) -> Applied {
        if stream_seq <= self.stream_seq {
            return Applied::Known;
        }
        match message.first.cmp(&(self.head + 1)) {
            Ordering::Less => return Applied::Twice,
            Ordering::Greater => return Applied::Hole,
            Ordering::Equal => {}
        }
        for (sequence, item) in (message.first..).zip(&message.events) {
            let Some(id) = item.body.id() else { continue };
            let known = Known {
                sequence,
                principal: item.principal.clone(),
                digest: digest(item.body.as_str()),
                epoch: message.epoch.clone(),
            };
            let id: Arc<str> = id.into();
            self.ids.insert(id.clone(), known);
            self.order.push_back((sequence, id));
        }
        self.head = message.last();
        self.stream_seq = stream_seq;
        self.at = Some(message.at);
        self.epochs.clone_from(&message.epochs);
        self.ids_from = self.ids_from.max((self.head + 1).saturating_sub(ids_max));
        while let Some((sequence, _)) = self.order.front()
            && *sequence < self.ids_from
        {
            let (sequence, id) = self.order.pop_front().expect("just seen");
            // An id that was forgotten can have been stored again since.
            if self.ids.get(&id).is_some_and(|known| known.sequence == sequence) {
                self.ids.remove(&id);
            }
        }
        Applied::Next
    }

    /// What an append gets without being stored, if that is so.
    pub(super) fn judge(&self, append: &Append) -> Option<Appended> {
        let id = append.body.id()?;
        if let Some(known) = self.ids.get(id) {
            let same =
                known.principal == append.principal && known.digest == digest(append.body.as_str());
            return Some(match same {
                true => Appended::Existing { sequence: known.sequence, epoch: known.epoch.clone() },
                false => Appended::Conflict,
            });
        }
        let expired = append.after.is_some_and(|after| after.saturating_add(1) < self.ids_from);
        expired.then_some(Appended::Expired)
    }
}

/// What tells an event from another one with the same id.
pub(super) fn digest_of(body: &EventBody) -> [u8; 32] {
    digest(body.as_str())
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}
