//! Whether what the clients have is what was published, said and wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::mix::{JOBS, Mix, PUBLISHERS, SUBSCRIBERS, TALKS, done_file, runs_file};
use crate::slots::Slots;
use crate::tally::Counts;
use crate::worker::events::{Published, Subscriber, stream_of};
use crate::worker::sessions::Talk;
use crate::worker::tasks::Job;

/// What the clients have now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) events: Counts,
    /// How long it took at most until everything of a batch was acknowledged.
    pub(crate) slowest: Duration,
    pub(crate) said: u64,
    pub(crate) turns_interrupted: u64,
    pub(crate) sessions: Counts,
    pub(crate) tasks_done: u64,
    pub(crate) attempts: u64,
    pub(crate) attempts_interrupted: u64,
    pub(crate) tasks: Counts,
    /// What is still on its way, and whose.
    pub(crate) waiting: Vec<String>,
    /// With whom something is wrong, and all that is known of it.
    pub(crate) wrong: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_exact(&self) -> bool {
        self.events.is_exact() && self.sessions.is_exact() && self.tasks.is_exact()
    }

    /// Looks at all slots. While the processes run, one may just be written: then there is an error.
    pub(crate) fn of(mix: &Mix) -> Result<Self> {
        let mut verdict = Self::default();
        verdict.events(mix)?;
        verdict.sessions(mix)?;
        verdict.tasks(mix)?;
        Ok(verdict)
    }

    fn events(&mut self, mix: &Mix) -> Result<()> {
        let slots = Slots::open(&mix.file(PUBLISHERS))?;
        let mut heads = vec![Vec::new(); mix.streams()];
        for number in 0..mix.publishers() {
            let published: Published = slots.read(number)?;
            self.published += published.acknowledged;
            self.slowest = self.slowest.max(Duration::from_millis(published.slowest_ms));
            self.events += published.counts;
            let (stream, _) = mix.stream_of_publisher(number);
            self.accuse(published.counts, || {
                format!("publisher {number}, of stream {stream}: {published:?}")
            });
            if published.acknowledged < published.begun {
                self.waiting.push(format!("publisher {number}, of stream {stream}"));
            }
            heads[stream].push(published.acknowledged);
        }
        let slots = Slots::open(&mix.file(SUBSCRIBERS))?;
        for number in 0..mix.subscribers() {
            let subscriber: Subscriber = slots.read(number)?;
            let heads = &heads[stream_of(mix, number)];
            let (given, head) = (subscriber.given(), heads.iter().sum());
            self.delivered += given;
            let counts = subscriber.counts(heads);
            self.events += counts;
            self.accuse(counts, || format!("subscriber {number} of {head}: {subscriber:?}"));
            if given < head {
                self.waiting
                    .push(format!("subscriber {number}, which has {given} of {head} events"));
            }
        }
        Ok(())
    }

    fn sessions(&mut self, mix: &Mix) -> Result<()> {
        let slots = Slots::open(&mix.file(TALKS))?;
        for number in 0..mix.sessions() {
            let talk: Talk = slots.read(number)?;
            self.said += talk.seen;
            self.turns_interrupted += talk.interrupted;
            self.sessions += talk.counts();
            self.accuse(talk.counts(), || format!("user {number}: {talk:?}"));
            if !talk.settled {
                self.waiting.push(format!("user {number}: {talk:?}"));
            }
        }
        Ok(())
    }

    fn tasks(&mut self, mix: &Mix) -> Result<()> {
        let slots = Slots::open(&mix.file(JOBS))?;
        for number in 0..mix.agents() {
            let job: Job = slots.read(number)?;
            self.tasks_done += job.done;
            self.attempts_interrupted += job.interrupted;
            self.tasks += job.counts;
            self.accuse(job.counts, || format!("agent {number}: {job:?}"));
            if job.done < job.wanted {
                self.waiting.push(format!("task {} of agent {number}", job.wanted));
            }
        }
        let mut runs: BTreeMap<String, u64> = BTreeMap::new();
        for worker in 0..mix.workers {
            for attempt in lines(mix, &runs_file(worker))? {
                *runs.entry(attempt).or_default() += 1;
            }
        }
        self.attempts = runs.values().sum();
        for (attempt, times) in runs.iter().filter(|(_, times)| **times > 1) {
            self.tasks.doubled += times - 1;
            self.wrong.push(format!("attempt {attempt}, which ran {times} times"));
        }
        for worker in 0..mix.workers {
            for attempt in lines(mix, &done_file(worker))? {
                if !runs.contains_key(&attempt) {
                    self.tasks.lost += 1;
                    self.wrong.push(format!("attempt {attempt}, which is done and never ran"));
                }
            }
        }
        Ok(())
    }

    /// What came of the events.
    pub(crate) fn events_told(&self) -> String {
        let Self { published, delivered, events, .. } = self;
        format!("  events     {published} published, {delivered} delivered: {events}\n")
    }

    fn accuse(&mut self, counts: Counts, who: impl FnOnce() -> String) {
        if !counts.is_exact() {
            self.wrong.push(who());
        }
    }
}

/// The whole lines of a file that may not be there.
fn lines(mix: &Mix, name: &str) -> Result<Vec<String>> {
    let text = match std::fs::read_to_string(mix.file(name)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| Failure::from(error).context(name))?,
    };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    Ok(text[..whole].lines().map(str::to_owned).collect())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.events_told())?;
        writeln!(
            f,
            "  sessions   {} inputs, {} turns interrupted: {}",
            self.said, self.turns_interrupted, self.sessions
        )?;
        writeln!(
            f,
            "  tasks      {} done in {} runs, {} interrupted: {}",
            self.tasks_done, self.attempts, self.attempts_interrupted, self.tasks
        )
    }
}
