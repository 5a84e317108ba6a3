//! What a majority of the engine's nodes has: messages in one order, found by subject.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A message of the engine's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// Its place in the stream, from 1, without a hole while it was written.
    pub(crate) stream_seq: u64,
    pub(crate) subject: Arc<str>,
    pub(crate) payload: Arc<str>,
}

/// The stream. It never gives a number twice, also if the message that had it is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Log {
    messages: BTreeMap<u64, Message>,
    subjects: BTreeMap<Arc<str>, BTreeSet<u64>>,
    last: u64,
}

impl Log {
    /// The number that was given last; 0 if none was.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last
    }

    /// Appends a message.
    pub(super) fn append(&mut self, subject: &Arc<str>, payload: Arc<str>) -> Message {
        self.last += 1;
        let message = Message { stream_seq: self.last, subject: Arc::clone(subject), payload };
        self.messages.insert(self.last, message.clone());
        self.subjects.entry(Arc::clone(subject)).or_default().insert(self.last);
        message
    }

    /// The newest message of a subject.
    pub(crate) fn last(&self, subject: &str) -> Option<&Message> {
        self.messages.get(self.subjects.get(subject)?.last()?)
    }

    /// The number of the newest message of a subject; 0 if there is none.
    pub(super) fn last_seq_of(&self, subject: &str) -> u64 {
        self.last(subject).map_or(0, |message| message.stream_seq)
    }

    /// The messages of a subject from a number on, oldest first.
    pub(crate) fn of<'a>(
        &'a self,
        subject: &str,
        from: u64,
    ) -> impl Iterator<Item = &'a Message> + use<'a> {
        let sequences = self.subjects.get(subject).into_iter();
        sequences.flat_map(move |all| all.range(from..)).filter_map(|at| self.messages.get(at))
    }

    /// The first message from a number on.
    pub(super) fn from(&self, from: u64) -> Option<&Message> {
        self.messages.range(from..).next().map(|(_, message)| message)
    }

    /// Removes the messages of a subject below a number.
    pub(super) fn purge_below(&mut self, subject: &str, below: u64) {
        let Some(all) = self.subjects.get_mut(subject) else { return };
        let kept = all.split_off(&below);
        for gone in std::mem::replace(all, kept) {
            self.messages.remove(&gone);
        }
    }

    /// Removes the oldest messages of a subject until there are `max` of it.
    pub(super) fn keep_newest(&mut self, subject: &str, max: usize) {
        let all = self.subjects.get(subject);
        let Some(extra) = all.and_then(|all| all.len().checked_sub(max)) else { return };
        let below = all.and_then(|all| all.iter().nth(extra)).copied();
        self.purge_below(subject, below.unwrap_or(self.last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(subjects: &[&str]) -> Log {
        let mut log = Log::default();
        for subject in subjects {
            let payload = format!("{subject}{}", log.last + 1);
            log.append(&Arc::from(*subject), payload.into());
        }
        log
    }

    fn of(log: &Log, subject: &str, from: u64) -> Vec<u64> {
        log.of(subject, from).map(|message| message.stream_seq).collect()
    }

    #[test]
    fn a_subject_is_found_by_number() {
        let log = log(&["a", "b", "a", "a"]);
        assert_eq!(of(&log, "a", 1), [1, 3, 4]);
        assert_eq!(of(&log, "a", 2), [3, 4]);
        assert_eq!((log.last_seq_of("b"), log.last_seq_of("c")), (2, 0));
        assert_eq!(log.from(2).map(|message| &*message.payload), Some("b2"));
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let mut log = log(&["a", "a"]);
        log.purge_below("a", 3);
        assert_eq!(log.last_seq_of("a"), 0);
        assert_eq!(log.append(&Arc::from("a"), Arc::from("x")).stream_seq, 3);
    }

    #[test]
    fn retention_removes_the_oldest_of_one_subject() {
        let mut log = log(&["a", "b", "a", "a"]);
        log.keep_newest("a", 2);
        assert_eq!((of(&log, "a", 1), of(&log, "b", 1)), (vec![3, 4], vec![2]));
        log.keep_newest("a", 5);
        assert_eq!(of(&log, "a", 1), [3, 4]);
    }
}
