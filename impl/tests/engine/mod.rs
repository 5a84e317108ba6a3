//! A storage engine in memory that keeps its promises, and loses what it is told to lose.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use gapless::events::cluster::engine::{
    Engine, EngineError, Feed, FollowError, PublishFailure, Start, Stored,
};
use tokio::sync::Notify;

/// What happens to the next publication of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// It is stored and not acknowledged.
    AckLost,
    /// It is not acknowledged, and arrives when the test lets it.
    Late,
    /// It never arrives.
    Lost,
    Refused,
    /// The leader lags: it denies what it should take.
    Denied,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) messages: Vec<Stored>,
    pub(crate) last_seq: u64,
    pub(crate) faults: VecDeque<Fault>,
    late: Vec<(String, u64, Vec<u8>)>,
    /// Reads are answered by a leader that knows this many messages.
    pub(crate) stale: Option<usize>,
    reads: usize,
    /// Feeds of before have ended.
    feeds: u64,
    pub(crate) down: bool,
}

impl Inner {
    fn shown(&self) -> &[Stored] {
        &self.messages[..self.stale.unwrap_or(usize::MAX).min(self.messages.len())]
    }

    pub(crate) fn store(
        &mut self,
        subject: &str,
        expected: u64,
        payload: Vec<u8>,
    ) -> Result<u64, PublishFailure> {
        let last = self.messages.iter().rev().find(|message| message.subject == subject);
        if last.map_or(0, |last| last.stream_seq) != expected {
            return Err(PublishFailure::WrongLast);
        }
        self.last_seq += 1;
        let (stream_seq, subject) = (self.last_seq, subject.to_owned());
        self.messages.push(Stored { stream_seq, subject, payload });
        Ok(stream_seq)
    }
}

#[derive(Clone, Default)]
pub(crate) struct Memory {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
}

impl Memory {
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test panics in it")
    }

    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner().faults.extend(faults);
    }

    /// What was late arrives; whether each is stored.
    pub(crate) fn deliver(&self) -> Vec<bool> {
        let mut inner = self.inner();
        let late = std::mem::take(&mut inner.late);
        let stored = late
            .into_iter()
            .map(|(subject, expected, payload)| inner.store(&subject, expected, payload).is_ok());
        let stored = stored.collect();
        drop(inner);
        self.changed.notify_waiters();
        stored
    }

    /// An older copy takes the place of what is there.
    pub(crate) fn go_back_to(&self, stream_seq: u64) {
        let mut inner = self.inner();
        inner.messages.retain(|message| message.stream_seq <= stream_seq);
        inner.last_seq = stream_seq;
        inner.feeds += 1;
        drop(inner);
        self.changed.notify_waiters();
    }

    pub(crate) fn end_feeds(&self) {
        self.inner().feeds += 1;
        self.changed.notify_waiters();
    }

    pub(crate) fn of(&self, subject: &str) -> Vec<u64> {
        let inner = self.inner();
        let of = inner.messages.iter().filter(|message| message.subject == subject);
        of.map(|message| message.stream_seq).collect()
    }

    pub(crate) fn reads(&self) -> usize {
        std::mem::take(&mut self.inner().reads)
    }
}

fn away<T>(inner: &Inner) -> Result<(), T>
where
    EngineError: Into<T>,
{
    match inner.down {
        true => Err(EngineError("it is away".to_owned()).into()),
        false => Ok(()),
    }
}

pub(crate) struct MemoryFeed {
    engine: Memory,
    after: u64,
    of: u64,
}

impl Feed for MemoryFeed {
    async fn next(&mut self) -> Result<Stored, EngineError> {
        loop {
            let changed = self.engine.changed.clone();
            let changed = changed.notified();
            {
                let inner = self.engine.inner();
                if inner.feeds != self.of || inner.down {
                    return Err(EngineError("the feed ended".to_owned()));
                }
                let next = inner.messages.iter().find(|message| message.stream_seq > self.after);
                if let Some(next) = next {
                    self.after = next.stream_seq;
                    return Ok(next.clone());
                }
            }
            changed.await;
        }
    }
}

impl Engine for Memory {
    type Feed = MemoryFeed;

    async fn publish(
        &self,
        subject: &str,
        expected_last: u64,
        payload: Vec<u8>,
    ) -> Result<u64, PublishFailure> {
        // Others have their turn, as they do on a network.
        tokio::task::yield_now().await;
        let result = {
            let mut inner = self.inner();
            if inner.down {
                return Err(PublishFailure::Unknown("it is away".to_owned()));
            }
            let is_event = subject.contains(".events.");
            match if is_event { inner.faults.pop_front() } else { None } {
                None => inner.store(subject, expected_last, payload),
                Some(Fault::AckLost) => {
                    let _ = inner.store(subject, expected_last, payload);
                    Err(PublishFailure::Unknown("no answer".to_owned()))
                }
                Some(Fault::Late) => {
                    inner.late.push((subject.to_owned(), expected_last, payload));
                    Err(PublishFailure::Unknown("no answer".to_owned()))
                }
                Some(Fault::Lost) => Err(PublishFailure::Unknown("no answer".to_owned())),
                Some(Fault::Denied) => Err(PublishFailure::WrongLast),
                Some(Fault::Refused) => Err(PublishFailure::Refused("full".to_owned())),
            }
        };
        self.changed.notify_waiters();
        result
    }

    async fn last(&self, subject: &str) -> Result<Option<Stored>, EngineError> {
        let mut inner = self.inner();
        inner.reads += 1;
        away::<EngineError>(&inner)?;
        Ok(inner.shown().iter().rev().find(|message| message.subject == subject).cloned())
    }

    async fn next(&self, subject: &str, from: u64) -> Result<Option<Stored>, EngineError> {
        Ok(self.page(subject, from, 1, usize::MAX).await?.pop())
    }

    async fn page(
        &self,
        subject: &str,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Stored>, EngineError> {
        let mut inner = self.inner();
        inner.reads += 1;
        away::<EngineError>(&inner)?;
        let mut bytes = 0;
        let of = inner.shown().iter().filter(|message| message.subject == subject);
        let page = of.filter(|message| message.stream_seq >= from).take(messages_max);
        let page = page.take_while(|message| {
            let fits = bytes < bytes_max;
            bytes += message.payload.len();
            fits
        });
        Ok(page.cloned().collect())
    }

    async fn purge_below(&self, subject: &str, stream_seq: u64) -> Result<(), EngineError> {
        let mut inner = self.inner();
        away::<EngineError>(&inner)?;
        inner
            .messages
            .retain(|message| message.subject != subject || message.stream_seq >= stream_seq);
        Ok(())
    }

    async fn follow(&self, from: Start) -> Result<MemoryFeed, FollowError> {
        let inner = self.inner();
        away::<FollowError>(&inner)?;
        let after = match from {
            Start::New => inner.last_seq,
            Start::After(seq) if seq > inner.last_seq => return Err(FollowError::WentBack),
            Start::After(seq) => seq,
        };
        Ok(MemoryFeed { engine: self.clone(), after, of: inner.feeds })
    }
}
