//! What waits for its turn, and what runs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::{Agent, Delivery, Exit, Notice, Output, Pending};
use crate::mark;
use crate::recovery::Instant;
use crate::tasks::chunker::Chunker;
use crate::tasks::store::{
    Append, Appended, Command, Finish, Known, Receipt, Received, Started, StoredFinal,
};
use crate::tasks::wire::{AgentMessage, codes};
use crate::tasks::{Attempt, OutputStream, Status};

/// Attempts, from their acceptance to their result.
#[derive(Default)]
pub(super) struct Runs {
    /// Accepted and not begun.
    waiting: BTreeMap<Attempt, Waiting>,
    /// Counts acceptances.
    accepted: u64,
    /// The store is asked whether they are known, or can be accepted.
    asked: BTreeSet<Attempt>,
    executions: BTreeMap<Attempt, Execution>,
    /// The hello has listed what waits, and is not answered: nothing begins [TK-8].
    held: bool,
}

struct Waiting {
    /// Its place among those of the same priority.
    order: u64,
    command: String,
    priority: i64,
    /// Somebody wanted it since the agent started, and nobody has said since that it is not wanted.
    fresh: bool,
}

/// An attempt that is about to run, runs, or has not stored everything that came of it.
struct Execution {
    command: String,
    begun: bool,
    streams: BTreeMap<OutputStream, Piecework>,
    /// Pieces that are not stored, in the order of their numbers.
    unstored: VecDeque<Append>,
    unstored_bytes: usize,
    /// How many of them the store was given.
    outstanding: usize,
    /// The store could not take one; nothing more is given to it before the rest has come back.
    failed: bool,
    listening: bool,
    exit: Option<Exit>,
    /// Streams of which a piece was lost on the way to the store.
    truncated: BTreeSet<OutputStream>,
}

/// One stream of an attempt, on its way into numbered pieces.
struct Piecework {
    chunker: Chunker,
    next: u64,
}

/// How many pieces the store is given at once.
const PIECES_MAX: usize = 64;

impl Runs {
    /// Lets an attempt wait for its turn.
    pub(super) fn accept(&mut self, attempt: Attempt, command: String, priority: i64, fresh: bool) {
        self.accepted += 1;
        let order = self.accepted;
        let waiting = Waiting { order, command, priority, fresh };
        self.waiting.entry(attempt).or_insert(waiting).fresh |= fresh;
    }

    /// The store did not answer what it was asked about the attempt.
    pub(super) fn forget(&mut self, attempt: &Attempt) {
        self.asked.remove(attempt);
    }

    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// What was begun and has not ended.
    pub(super) fn running(&self) -> Vec<Attempt> {
        let running = self.executions.iter().filter(|(_, run)| run.begun && run.exit.is_none());
        running.map(|(attempt, _)| attempt.clone()).collect()
    }

    /// Whether nothing runs, and everything that came of what ran is stored.
    pub(super) fn are_over(&self) -> bool {
        self.executions.is_empty()
    }

    /// It is not to be run.
    pub(super) fn drop_waiting(&mut self, attempt: &Attempt) {
        self.waiting.remove(attempt);
    }

    /// They are not wanted, and the store does not know it: they wait until both sides agree, or
    /// somebody wants them again.
    pub(super) fn hold_back(&mut self, attempts: &[Attempt]) {
        for attempt in attempts {
            if let Some(waiting) = self.waiting.get_mut(attempt) {
                waiting.fresh = false;
            }
        }
    }

    /// When output that waits for more is due.
    pub(super) fn flush_at(&self) -> Option<Instant> {
        let streams = self.executions.values().flat_map(|run| run.streams.values());
        streams.filter_map(|stream| stream.chunker.deadline()).min()
    }

    /// The next one to begin: the highest priority first, then the one that waits longest. What was
    /// accepted in an earlier life, or is held back, waits until both sides agree that it is to be run.
    fn next(&self, reconciled: bool) -> Option<Attempt> {
        let ready = self.waiting.iter().filter(|(_, waiting)| waiting.fresh || reconciled);
        let first = ready.min_by_key(|(_, waiting)| (Reverse(waiting.priority), waiting.order));
        first.map(|(attempt, _)| attempt.clone())
    }
}

impl Agent {
    // ---- accepting ---------------------------------------------------------------------------

    /// Somebody wants an attempt to be made, over whatever path [TK-2].
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        let attempt = &delivery.deliver.attempt;
        if let Some(run) = self.runs.executions.get(attempt) {
            mark!("tasks.delivered_again_while_running");
            if run.begun {
                self.say(AgentMessage::Started(attempt.clone()));
            }
        } else if let Some(waiting) = self.runs.waiting.get_mut(attempt) {
            mark!("tasks.delivered_again_while_waiting");
            waiting.fresh = true;
            self.say(AgentMessage::Received(attempt.clone()));
        } else if self.runs.asked.contains(attempt) {
            mark!("tasks.delivered_again_while_asking");
        } else {
            let full = self.runs.waiting.len() + self.runs.asked.len() >= self.config.queue_max;
            self.runs.asked.insert(attempt.clone());
            if full {
                mark!("tasks.queue_full");
                let command = Command::Find(attempt.clone());
                self.store(Pending::Find(delivery), command);
            } else {
                let (now, _) = self.wall;
                let receipt = Receipt {
                    attempt: attempt.clone(),
                    command: delivery.deliver.command.clone(),
                    priority: delivery.deliver.priority,
                    at: self.wall(now),
                };
                self.store(Pending::Receive(delivery), Command::Receive(receipt));
            }
        }
    }

    pub(super) fn received(&mut self, now: Instant, delivery: Delivery, received: Received) {
        let attempt = delivery.deliver.attempt.clone();
        self.runs.asked.remove(&attempt);
        match received {
            Received::New => {
                let (command, priority) = (delivery.deliver.command, delivery.deliver.priority);
                self.runs.accept(attempt.clone(), command, priority, true);
                self.say(AgentMessage::Received(attempt));
            }
            Received::Known(known) => self.known(now, &delivery, known),
            Received::NoRoom => self.refuse(&delivery, codes::SPOOL_FULL),
        }
    }

    /// There is no room in the queue; what is known is answered all the same [TK-6].
    pub(super) fn found(&mut self, now: Instant, delivery: Delivery, known: Option<Known>) {
        self.runs.asked.remove(&delivery.deliver.attempt);
        match known {
            Some(known) => self.known(now, &delivery, known),
            None => self.refuse(&delivery, codes::QUEUE_FULL),
        }
    }

    fn known(&mut self, _now: Instant, delivery: &Delivery, known: Known) {
        let attempt = delivery.deliver.attempt.clone();
        match (known.status, known.command) {
            (Status::Received, Some(command)) => {
                mark!("tasks.known_attempt_queued");
                self.runs.accept(attempt.clone(), command, delivery.deliver.priority, true);
                self.say(AgentMessage::Received(attempt));
            }
            (Status::Running, _) => self.say(AgentMessage::Started(attempt)),
            (Status::Final(_), _) => {
                mark!("tasks.finished_attempt_answered");
                if let Some(stored) = known.result {
                    self.say_final(stored);
                }
            }
            (Status::Received, None) => {}
        }
    }

    fn refuse(&mut self, delivery: &Delivery, code: &'static str) {
        mark!("tasks.refused");
        let attempt = delivery.deliver.attempt.clone();
        self.notify(Notice::Refused { attempt: attempt.clone(), code });
        if let Some(message_id) = &delivery.message_id {
            let text = "there is no room for another attempt";
            self.say_error((code, true), text, attempt, message_id);
        }
    }

    // ---- running -----------------------------------------------------------------------------

    /// Begins what can begin.
    pub(super) fn run_next(&mut self, now: Instant) {
        while !self.runs.held && self.runs.executions.len() < self.config.parallel {
            let Some(attempt) = self.runs.next(self.reconciled) else { return };
            let Some(waiting) = self.runs.waiting.remove(&attempt) else { return };
            let piecework = || Piecework {
                chunker: Chunker::new(self.config.chunk_bytes, self.config.flush_after),
                next: 1,
            };
            let run = Execution {
                command: waiting.command,
                begun: false,
                streams: OutputStream::ALL.map(|stream| (stream, piecework())).into(),
                unstored: VecDeque::new(),
                unstored_bytes: 0,
                outstanding: 0,
                failed: false,
                listening: true,
                exit: None,
                truncated: BTreeSet::new(),
            };
            self.runs.executions.insert(attempt.clone(), run);
            self.begin(now, attempt);
        }
    }

    fn begin(&mut self, now: Instant, attempt: Attempt) {
        let at = self.wall(now);
        self.store(Pending::Start(attempt.clone()), Command::Start { attempt, at });
    }

    /// The store knows that the attempt begins: now it may [TK-1].
    pub(super) fn started(&mut self, _now: Instant, attempt: &Attempt, started: Started) {
        let Some(run) = self.runs.executions.get_mut(attempt) else { return };
        match started {
            Started::Now | Started::Before if !run.begun => {
                run.begun = true;
                let command = std::mem::take(&mut run.command);
                self.outputs.push_back(Output::Run { attempt: attempt.clone(), command });
                self.say(AgentMessage::Started(attempt.clone()));
            }
            Started::Now | Started::Before => {}
            Started::Ended | Started::Unknown => {
                mark!("tasks.discarded_before_it_began");
                self.runs.executions.remove(attempt);
            }
        }
    }

    pub(super) fn wrote(
        &mut self,
        now: Instant,
        attempt: &Attempt,
        stream: OutputStream,
        data: &Bytes,
    ) {
        if let Some(run) = self.runs.executions.get_mut(attempt)
            && let Some(stream) = run.streams.get_mut(&stream)
        {
            stream.chunker.push(now, data);
            self.cut(now, attempt);
        }
    }

    pub(super) fn exited(&mut self, now: Instant, attempt: &Attempt, exit: Exit) {
        let Some(run) = self.runs.executions.get_mut(attempt) else { return };
        run.truncated.extend(exit.truncated.iter().copied());
        run.exit.get_or_insert(exit);
        self.cut(now, attempt);
    }

    /// Output that has waited long enough is stored.
    pub(super) fn flush_due(&mut self, now: Instant) {
        let due = |run: &Execution| {
            let mut deadlines = run.streams.values().filter_map(|it| it.chunker.deadline());
            deadlines.any(|deadline| deadline <= now)
        };
        let due: Vec<Attempt> = self
            .runs
            .executions
            .iter()
            .filter(|(_, run)| due(run))
            .map(|(attempt, _)| attempt.clone())
            .collect();
        for attempt in due {
            self.cut(now, &attempt);
        }
    }

    /// Gives the next numbers to what has been written.
    fn cut(&mut self, now: Instant, attempt: &Attempt) {
        let Some(run) = self.runs.executions.get_mut(attempt) else { return };
        for (stream, work) in &mut run.streams {
            let mut pieces: Vec<Bytes> = std::iter::from_fn(|| work.chunker.next(now)).collect();
            if run.exit.is_some() {
                pieces.extend(work.chunker.finish());
            }
            for data in pieces {
                run.unstored_bytes += data.len();
                let (attempt, stream, sequence) = (attempt.clone(), *stream, work.next);
                run.unstored.push_back(Append { attempt, stream, sequence, data });
                work.next += 1;
            }
        }
        self.store_pieces(attempt);
    }

    /// What an attempt has come to is given to the store, in order.
    fn store_pieces(&mut self, attempt: &Attempt) {
        let Some(run) = self.runs.executions.get_mut(attempt) else { return };
        let buffered: usize = run.streams.values().map(|it| it.chunker.buffered()).sum();
        let waiting = run.unstored_bytes + buffered;
        let listen = match run.listening {
            true => waiting < self.config.buffer_bytes,
            false => waiting * 2 <= self.config.buffer_bytes,
        };
        if listen != run.listening && run.exit.is_none() {
            if !listen {
                mark!("tasks.output_left_in_the_pipe");
            }
            run.listening = listen;
            self.outputs.push_back(Output::Listen { attempt: attempt.clone(), on: listen });
        }
        if run.outstanding > 0 || run.failed {
            return;
        }
        let pieces: Vec<Append> = run.unstored.iter().take(PIECES_MAX).cloned().collect();
        run.outstanding = pieces.len();
        if pieces.is_empty() {
            self.finish(attempt);
        }
        for piece in pieces {
            self.store(Pending::Append(attempt.clone()), Command::Append(piece));
        }
    }

    /// What came of a piece; `None` if the transaction failed.
    pub(super) fn appended(&mut self, now: Instant, attempt: &Attempt, appended: Option<Appended>) {
        let Some(run) = self.runs.executions.get_mut(attempt) else { return };
        run.outstanding -= 1;
        match appended {
            // Whatever became of it: a piece may be stored again and is the same one.
            None => run.failed = true,
            Some(_) if run.failed => {}
            Some(appended) => {
                let Some(piece) = run.unstored.pop_front() else { return };
                run.unstored_bytes -= piece.data.len();
                match appended {
                    Appended::Stored { row } => self.newest_row = self.newest_row.max(row),
                    Appended::TooLarge => {
                        run.truncated.insert(piece.stream);
                    }
                    Appended::Conflict | Appended::NotRunning => {
                        tracing::error!(%attempt, sequence = piece.sequence, ?appended, "output");
                        run.truncated.insert(piece.stream);
                    }
                }
            }
        }
        let attempt = attempt.clone();
        self.cut(now, &attempt);
    }

    /// All output is stored and the command has ended: so the result is next.
    fn finish(&mut self, attempt: &Attempt) {
        let waits = |pending: &Pending| matches!(pending, Pending::Finish(it) if it == attempt);
        let Some(run) = self.runs.executions.get(attempt) else { return };
        let Some(exit) = &run.exit else { return };
        if self.pending.values().any(waits) {
            return;
        }
        let finish = Finish {
            attempt: attempt.clone(),
            outcome: exit.outcome,
            exit_code: exit.exit_code,
            error: exit.error.clone(),
            truncated: run.truncated.iter().copied().collect(),
        };
        self.store(Pending::Finish(attempt.clone()), Command::Finish(finish));
    }

    pub(super) fn finished(&mut self, now: Instant, attempt: &Attempt, stored: StoredFinal) {
        self.runs.executions.remove(attempt);
        self.newest_row = self.newest_row.max(stored.row);
        self.result_is_there(now);
    }

    /// What could not be stored is given to the store once more.
    pub(super) fn runs_again(&mut self, now: Instant) {
        let attempts: Vec<Attempt> = self.runs.executions.keys().cloned().collect();
        for attempt in attempts {
            let waits = |pending: &Pending| matches!(pending, Pending::Start(it) if *it == attempt);
            let starting = self.pending.values().any(waits);
            let Some(run) = self.runs.executions.get_mut(&attempt) else { continue };
            if run.outstanding == 0 {
                run.failed = false;
            }
            if !run.begun && !starting {
                self.begin(now, attempt);
            } else {
                self.store_pieces(&attempt);
            }
        }
    }
}
