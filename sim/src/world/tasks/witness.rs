//! What is seen of an agent's store, whoever tells it.

use std::collections::BTreeSet;

use gapless::tasks::store::Append;
use gapless::tasks::{Attempt, OutputStream};

use super::{Ledger, script};
use crate::history::{Stage, TaskSeen};
use crate::plan::{AgentOptions, Script, Text};
use crate::world::record::Recorder;

/// Writes down what the store of an agent has.
pub(super) struct Witness {
    recorder: Recorder,
    agent: u32,
    /// Whether all bytes can be carried; the base contract carries text.
    lossless: bool,
    ledger: Ledger,
    /// What was accepted and has not begun.
    waiting: BTreeSet<Attempt>,
    waiting_max: usize,
    /// Pieces of which the store may have some, because the transaction of which they were a part
    /// has failed and another part of it may not.
    doubtful: BTreeSet<(Attempt, OutputStream, u64)>,
    /// The most that the database took of the disk.
    spool: u64,
    spool_max: u64,
}

impl Witness {
    pub(super) fn new(
        agent: u32,
        options: &AgentOptions,
        lossless: bool,
        recorder: Recorder,
        ledger: Ledger,
    ) -> Self {
        Self {
            recorder,
            agent,
            lossless,
            ledger,
            waiting: BTreeSet::new(),
            // Those whose turn has come wait as well, until the store knows that they begin.
            waiting_max: options.queue + options.parallel,
            doubtful: BTreeSet::new(),
            spool: 0,
            spool_max: options.spool_bytes,
        }
    }

    fn see(&self, what: TaskSeen) {
        self.recorder.see_task(what);
    }

    /// An attempt is this far.
    pub(super) fn kept(&self, attempt: &Attempt, stage: Stage) {
        let mut state = self.ledger.state();
        state.spoken_of.entry(self.agent).or_default().insert(attempt.clone());
        drop(state);
        let (agent, attempt) = (self.agent, attempt.to_string());
        self.see(TaskSeen::Kept { agent, attempt, stage });
    }

    /// An attempt waits for its turn.
    pub(super) fn waits(&mut self, attempt: &Attempt) {
        if self.waiting.insert(attempt.clone()) {
            let (agent, count, max) = (self.agent, self.waiting.len(), self.waiting_max);
            self.see(TaskSeen::Waiting { agent, count, max });
        }
    }

    /// An attempt has waited since an earlier life.
    pub(super) fn has_waited(&mut self, attempt: &Attempt) {
        self.waiting.insert(attempt.clone());
    }

    /// An attempt does not wait any more.
    pub(super) fn waits_no_more(&mut self, attempt: &Attempt) {
        self.waiting.remove(attempt);
    }

    /// The command of an attempt has this text.
    pub(super) fn commanded(&self, attempt: &Attempt, text: &str) {
        self.ledger.state().commands.insert(attempt.to_string(), text.to_owned());
    }

    /// An attempt begins. It counts from 1, also if a store that is gone had run it before.
    pub(super) fn begins(&mut self, attempt: &Attempt) {
        self.doubtful.retain(|(of, ..)| of != attempt);
        self.ledger.state().bound.retain(|(of, _), _| of != attempt);
    }

    /// It is not known whether the store has this piece.
    pub(super) fn doubts(&mut self, piece: &Append) {
        self.doubtful.insert((piece.attempt.clone(), piece.stream, piece.sequence));
    }

    /// A number names these bytes now.
    pub(super) fn bound(&mut self, piece: &Append) {
        let Append { attempt, stream, sequence, .. } = piece;
        let key = (attempt.clone(), *stream);
        let (_, number) = self.ledger.state().bound.get(&key).copied().unwrap_or_default();
        let next = (attempt.clone(), *stream, number + 1);
        if *sequence > number + 1 && self.doubtful.contains(&next) {
            // The store has those between as well, and says so before anybody is told of any.
            return;
        }
        self.doubtful.remove(&(attempt.clone(), *stream, *sequence));
        let carried = match self.lossless {
            true => script::digest(&piece.data),
            false => script::digest(String::from_utf8_lossy(&piece.data).as_bytes()),
        };
        self.bind(piece, carried, true);
    }

    /// A number names these bytes on the wire, and nobody says what the store has. Where the base
    /// contract cannot carry what was written, that is not judged.
    pub(super) fn said(&self, piece: &Append) {
        let does = self.does(&piece.attempt);
        let judged = self.lossless || does.is_none_or(|does| does.text == Text::Plain);
        self.bind(piece, script::digest(&piece.data), judged);
    }

    fn does(&self, attempt: &Attempt) -> Option<Script> {
        self.ledger.state().commands.get(&attempt.to_string()).and_then(|it| script::parse(it))
    }

    fn bind(&self, piece: &Append, digest: u64, judged: bool) {
        let Append { attempt, stream, sequence, data } = piece;
        let key = (attempt.clone(), *stream);
        let (before, number) = self.ledger.state().bound.get(&key).copied().unwrap_or_default();
        // The same piece may be stored again after an unknown outcome.
        if *sequence <= number {
            return;
        }
        let place = match (judged, self.does(attempt)) {
            (false, _) => Some(0),
            (true, None) => None,
            (true, Some(does)) => {
                let length = script::length(&does, *stream).max(before);
                let written = |to| script::bytes(attempt, *stream, does.text, before, to);
                let end = before + data.len() as u64;
                match *sequence == number + 1 {
                    true => (end <= length && written(end) == data[..]).then_some(0),
                    // Those between are gone without a trace.
                    false => {
                        let rest = written(length);
                        rest.windows(data.len().max(1)).position(|window| window == &data[..])
                    }
                }
            }
        };
        let after = before + place.unwrap_or(0) as u64 + data.len() as u64;
        self.ledger.state().bound.insert(key, (after, *sequence));
        self.see(TaskSeen::Bound {
            agent: self.agent,
            attempt: attempt.to_string(),
            stream: stream.as_str().to_owned(),
            sequence: *sequence,
            digest,
            bytes: data.len() as u64,
            as_written: place.is_some(),
        });
    }

    /// The database takes so much of the disk.
    pub(super) fn takes(&mut self, bytes: u64) {
        if bytes > self.spool {
            self.spool = bytes;
            let (agent, cap) = (self.agent, self.spool_max);
            self.see(TaskSeen::Spool { agent, bytes, cap });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gapless::tasks::{AttemptId, TaskId};

    use super::*;
    use crate::history::Seen;

    #[test]
    fn a_piece_beyond_a_group_that_failed_in_part_is_seen_once_those_before_it_are() {
        let recorder = Recorder::default();
        let options = AgentOptions::default();
        let mut witness = Witness::new(1, &options, true, recorder.clone(), Ledger::default());
        let attempt = Attempt {
            task: TaskId::parse("t1").expect("valid"),
            id: AttemptId::parse("a1").expect("valid"),
        };
        let does =
            Script { stdout: 3, stderr: 0, bytes: 4, every_ms: 0, text: Text::Plain, exit: 0 };
        witness.commanded(&attempt, &script::command(&does));
        witness.begins(&attempt);
        let piece = |sequence: u64| {
            let (stream, attempt) = (OutputStream::Stdout, attempt.clone());
            let (from, to) = (4 * (sequence - 1), 4 * sequence);
            let data = Bytes::from(script::bytes(&attempt, stream, does.text, from, to));
            Append { attempt, stream, sequence, data }
        };
        // A group that failed in part had all three; the store says that it has the last.
        (1..=3).for_each(|sequence| witness.doubts(&piece(sequence)));
        witness.bound(&piece(3));
        (1..=3).for_each(|sequence| witness.bound(&piece(sequence)));
        let (_, history, ..) = recorder.finish();
        let bound = history.entries.iter().filter_map(|entry| match &entry.what {
            Seen::Task(TaskSeen::Bound { sequence, as_written, .. }) => {
                Some((*sequence, *as_written))
            }
            _ => None,
        });
        assert_eq!(bound.collect::<Vec<_>>(), [(1, true), (2, true), (3, true)]);
    }
}
