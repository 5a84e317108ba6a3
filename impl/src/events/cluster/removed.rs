//! The ids of events that retention has removed.
//!
//! Whoever repeats an event may do so when it has been removed already, and another server has only
//! the stream to judge it by. So what retention removes leaves its ids behind, in a message of a subject
//! of its own, before it goes. What the engine removes by its own limits leaves nothing.

use serde::{Deserialize, Serialize};

use super::engine::{Engine, PublishFailure, Stored};
use super::index::digest_of;
use super::log::Shared;
use super::message::{Damaged, Message, parsed};
use crate::events::AgentId;
use crate::mark;
use crate::recovery::{Epoch, MAX_SEQUENCE};
use crate::storage::StoreError;

/// The ids of the events with the numbers `from` to `to`, which are removed or are about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removed {
    pub(super) from: u64,
    pub(super) to: u64,
    /// In the order of their numbers.
    pub(super) ids: Vec<RemovedId>,
}

/// An id, and what it was given to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RemovedId {
    pub(super) sequence: u64,
    pub(super) id: String,
    pub(super) principal: String,
    pub(super) digest: [u8; 32],
    pub(super) epoch: Epoch,
}

impl Removed {
    fn parse(stored: &Stored) -> Result<Self, Damaged> {
        let removed: Self = parsed(stored)?;
        let Self { from, to, ids } = &removed;
        if *from == 0 || *to > MAX_SEQUENCE || *from > to + 1 {
            return Err(Damaged::new(stored, format!("{from} to {to} are no range of numbers")));
        }
        let is_within = ids.iter().all(|id| (*from..=*to).contains(&id.sequence));
        if !is_within || !ids.is_sorted_by(|one, next| one.sequence < next.sequence) {
            return Err(Damaged::new(
                stored,
                format!("its ids are not in the order {from} to {to}"),
            ));
        }
        Ok(removed)
    }

    /// Takes in a message; what is not next to what is known takes its place.
    fn take(&mut self, message: &Message) {
        if message.last() <= self.to {
            return;
        }
        if message.first != self.to + 1 {
            *self = Self { from: message.first, to: message.first - 1, ids: Vec::new() };
        }
        for (sequence, item) in (message.first..).zip(&message.events) {
            let Some(id) = item.body.id() else { continue };
            self.ids.push(RemovedId {
                sequence,
                id: id.to_owned(),
                principal: item.principal.clone(),
                digest: digest_of(&item.body),
                epoch: message.epoch.clone(),
            });
        }
        self.to = message.last();
    }

    /// Forgets the ids of the numbers below one.
    fn forget_below(&mut self, from: u64) {
        if from > self.from {
            self.from = from;
            self.ids.retain(|id| id.sequence >= from);
        }
    }

    /// The same in `bytes_max` bytes, by forgetting the oldest.
    fn payload_within(&mut self, bytes_max: usize) -> Vec<u8> {
        loop {
            let payload = serde_json::to_vec(self).expect("ids are JSON");
            if payload.len() <= bytes_max || self.ids.is_empty() {
                return payload;
            }
            let half = self.ids[self.ids.len() / 2].sequence + 1;
            self.forget_below(half);
        }
    }
}

impl<E: Engine> Shared<E> {
    /// The ids of what was removed from a stream, and the stream sequence of the message that has them.
    pub(super) async fn removed(
        &self,
        agent: &AgentId,
    ) -> Result<Option<(u64, Removed)>, StoreError> {
        match self.engine.last(&self.subjects.ids_of(agent)).await? {
            Some(stored) => Ok(Some((stored.stream_seq, Removed::parse(&stored)?))),
            None => Ok(None),
        }
    }

    /// Keeps the ids of a stream's messages below a stream sequence, which are about to be removed.
    pub(super) async fn keep_ids(&self, agent: &AgentId, below: u64) -> Result<(), StoreError> {
        let before = self.removed(agent).await?;
        let (last, mut removed) = match before.clone() {
            Some(known) => known,
            None => (0, Removed { from: 1, to: 0, ids: Vec::new() }),
        };
        let subject = self.subjects.of(agent);
        let mut from = 0;
        'pages: loop {
            let (count, bytes) = (self.config.page_messages, self.config.page_bytes);
            let page = self.page(&subject, from, count, bytes).await?;
            if page.is_empty() {
                break;
            }
            for (stream_seq, message) in page {
                if stream_seq >= below {
                    break 'pages;
                }
                removed.take(&message);
                from = stream_seq + 1;
            }
        }
        removed.forget_below((removed.to + 1).saturating_sub(self.config.ids_max));
        if before.is_some_and(|(_, before)| before == removed) || removed.ids.is_empty() {
            return Ok(());
        }
        let payload = removed.payload_within(self.config.message_bytes);
        let subject = self.subjects.ids_of(agent);
        match self.engine.publish(&subject, last, payload).await {
            Ok(stored) => {
                mark!("cluster.ids_kept");
                // What remains if that fails is one message.
                if let Err(error) = self.engine.purge_below(&subject, stored).await {
                    tracing::debug!(%error, "older ids stay");
                }
                Ok(())
            }
            Err(PublishFailure::WrongLast) => {
                let problem = "another server removes events of the stream";
                Err(StoreError::NotApplied(problem.to_owned()))
            }
            Err(PublishFailure::Refused(problem)) => Err(StoreError::NotApplied(problem)),
            Err(PublishFailure::Unknown(problem)) => Err(StoreError::Unknown(problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::events::cluster::message::Item;
    use crate::events::wire::EventBody;
    use crate::recovery::WallTime;

    fn message(first: u64, ids: &[&str]) -> Message {
        let payload = RawValue::from_string("{}".to_owned()).expect("JSON");
        let events = ids.iter().map(|id| Item {
            principal: "p".to_owned(),
            body: EventBody::new(Some(id), "note", &payload, 1024).expect("valid"),
        });
        Message {
            attempt: "s-1".to_owned(),
            epoch: Epoch::parse("e1").expect("valid"),
            first,
            at: WallTime::from_millis(0),
            epochs: Vec::new(),
            events: events.collect(),
        }
    }

    fn removed(messages: &[Message]) -> Removed {
        let mut removed = Removed { from: 1, to: 0, ids: Vec::new() };
        for message in messages {
            removed.take(message);
        }
        removed
    }

    fn ids(removed: &Removed) -> Vec<&str> {
        removed.ids.iter().map(|id| id.id.as_str()).collect()
    }

    #[test]
    fn what_somebody_else_has_written_is_damaged() {
        let kept = removed(&[message(1, &["a", "b"]), message(3, &["c"])]);
        let stored = |removed: &Removed| Stored {
            stream_seq: 9,
            subject: String::new(),
            payload: serde_json::to_vec(removed).expect("ids are JSON"),
        };
        assert_eq!(Removed::parse(&stored(&kept)), Ok(kept.clone()));
        let nothing = Removed { from: 4, to: 3, ids: Vec::new() };
        assert_eq!(Removed::parse(&stored(&nothing)), Ok(nothing.clone()));
        let mut swapped = kept.clone();
        swapped.ids.swap(0, 1);
        for wrong in [
            swapped,
            Removed { from: 2, ..kept.clone() },
            Removed { to: 2, ..kept },
            Removed { from: 0, ..nothing.clone() },
            Removed { from: 5, ..nothing.clone() },
            Removed { to: MAX_SEQUENCE + 1, ..nothing.clone() },
            Removed { from: u64::MAX, to: u64::MAX, ..nothing },
        ] {
            let damaged = Removed::parse(&stored(&wrong)).expect_err("damaged");
            assert!(damaged.to_string().contains("message 9 "), "{damaged}");
        }
    }

    #[test]
    fn ids_are_kept_in_their_order_and_once() {
        let both = [message(1, &["a", "b"]), message(3, &["c"])];
        let kept = removed(&[both[0].clone(), both[1].clone(), both[0].clone()]);
        assert_eq!((ids(&kept), kept.from, kept.to), (vec!["a", "b", "c"], 1, 3));
    }

    #[test]
    fn what_was_removed_without_a_word_ends_what_is_known() {
        let kept = removed(&[message(1, &["a"]), message(5, &["e"])]);
        assert_eq!((ids(&kept), kept.from, kept.to), (vec!["e"], 5, 5));
    }

    #[test]
    fn the_oldest_ids_are_forgotten_first() {
        let mut kept = removed(&[message(1, &["a", "b", "c", "d"])]);
        kept.forget_below(2);
        assert_eq!((ids(&kept), kept.from), (vec!["b", "c", "d"], 2));
        let payload = kept.payload_within(400);
        assert!(payload.len() <= 400 && ids(&kept) == ["d"], "{kept:?}");
        assert_eq!(serde_json::from_slice::<Removed>(&payload).ok(), Some(kept));
    }
}
