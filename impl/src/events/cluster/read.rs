//! Reading streams of a log, and forgetting their beginnings.

use super::engine::Engine;
use super::log::{Record, Shared};
use super::message::{Epochs, Message};
use crate::events::AgentId;
use crate::events::log::{Read, Reply, StreamState};
use crate::mark;
use crate::recovery::{Epoch, EpochStart, Lineage, WallTime};
use crate::storage::StoreError;

impl<E: Engine> Shared<E> {
    pub(super) async fn load(&self, agent: &AgentId) -> Result<Reply, StoreError> {
        let joins = {
            let state = self.state();
            state.is_in_sight()?;
            state.joins
        };
        let subject = self.subjects.of(agent);
        let (last, first, record) =
            tokio::try_join!(self.last(&subject), self.next(&subject, 0), self.record())?;
        let has_joined = |record: &Option<Record>| match &self.state().joined {
            Some(joined) => record.as_ref().is_some_and(|record| record.follows(joined)),
            None => true,
        };
        if !has_joined(&record) {
            self.confirm().await?;
            if !has_joined(&self.record().await?) {
                self.went_back(joins);
            }
            return Err(StoreError::NotApplied("the epochs of the log were in doubt".to_owned()));
        }
        let epochs = {
            let mut state = self.state();
            // It may have been replaced while it was read.
            state.is_in_sight()?;
            if let Some(record) = record {
                state.see(record);
            }
            state.newest.as_ref().map(|newest| newest.epochs.clone()).unwrap_or_default()
        };
        let Some((_, last)) = last else {
            let lineage = lineage(&epochs, &[]);
            return Ok(Reply::Loaded(StreamState { oldest: 1, head: 0, lineage }));
        };
        let head = last.last();
        // The first one may be gone since, but the last one never is.
        let oldest = first.map_or(last.first, |(_, first)| first.first.min(last.first));
        let lineage = lineage(&epochs, &last.epochs);
        Ok(Reply::Loaded(StreamState { oldest, head, lineage }))
    }

    pub(super) async fn read(&self, read: &Read) -> Result<Reply, StoreError> {
        // What is read is told as of this epoch.
        let epoch = self.state().epoch()?;
        let subject = self.subjects.of(&read.agent);
        let place = self.state().places.get(&(read.agent.clone(), read.after)).copied();
        let from = match place {
            Some(place) => place,
            None => {
                mark!("cluster.place_searched");
                let found = self.search(&subject, |message| message.last() > read.after).await?;
                let Some((stream_seq, _)) = found else { return Ok(Reply::Page(Vec::new())) };
                stream_seq
            }
        };
        let messages_max = read.count_max.min(self.config.page_messages);
        let bytes_max = read.bytes_max.min(self.config.page_bytes);
        let messages = self.page(&subject, from, messages_max, bytes_max).await?;
        let (mut page, mut bytes, mut next) = (Vec::new(), 0, None);
        let mut after = read.after;
        'messages: for (stream_seq, message) in messages {
            if message.first > after + 1 {
                // Nothing is missing but what was forgotten, and that is always the beginning.
                let first = self.next(&subject, 0).await?;
                if after > read.after || first.is_none_or(|(first, _)| first < stream_seq) {
                    // The place may be one of a log that was replaced.
                    self.state().places.pop(&(read.agent.clone(), read.after));
                    let problem = format!("event {} of {} is not there", after + 1, read.agent);
                    return Err(StoreError::NotApplied(problem));
                }
            }
            let last = message.last();
            for (sequence, item) in (message.first..).zip(message.events) {
                if sequence <= after {
                    continue;
                }
                if sequence > read.to || page.len() >= read.count_max || bytes >= read.bytes_max {
                    break 'messages;
                }
                bytes += item.body.as_str().len();
                after = sequence;
                page.push((sequence, item.body));
                next = Some(if sequence == last { stream_seq + 1 } else { stream_seq });
            }
        }
        let mut state = self.state();
        if state.epoch()? != epoch {
            return Err(StoreError::NotApplied("the log has another epoch by now".to_owned()));
        }
        if let Some(next) = next {
            state.places.put((read.agent.clone(), after), next);
        }
        Ok(Reply::Page(page))
    }

    pub(super) async fn find_since(
        &self,
        agent: &AgentId,
        since: WallTime,
    ) -> Result<Reply, StoreError> {
        let found = self.search(&self.subjects.of(agent), |message| message.at >= since).await?;
        Ok(Reply::Since(found.map(|(_, message)| message.first)))
    }

    /// Forgets whole messages, and never the last one, which says how far the stream goes.
    pub(super) async fn retain(&self, agent: &AgentId, oldest: u64) -> Result<Reply, StoreError> {
        // The numbers are of this epoch.
        self.state().epoch()?;
        let subject = self.subjects.of(agent);
        let found = match self.search(&subject, |message| message.last() >= oldest).await? {
            Some(found) => Some(found),
            None => self.last(&subject).await?,
        };
        let Some(wanted) = found else { return Ok(Reply::Retained(1)) };
        // What is more than that waits for the next command.
        let (count, bytes) = (self.config.removals_max + 1, self.config.page_bytes);
        let reached = self.page(&subject, 0, count, bytes).await?.pop();
        let (stream_seq, message) = match reached {
            Some(reached) if reached.0 < wanted.0 => reached,
            _ => wanted,
        };
        self.keep_ids(agent, stream_seq).await?;
        self.engine.purge_below(&subject, stream_seq).await?;
        if let Some(index) = self.state().indices.peek_mut(agent) {
            index.oldest = index.oldest.max(message.first);
        }
        Ok(Reply::Retained(message.first))
    }

    /// The first message of a stream of which something is true that is true of all that follow
    /// it; by halves.
    pub(super) async fn search(
        &self,
        subject: &str,
        is_reached: impl Fn(&Message) -> bool,
    ) -> Result<Option<(u64, Message)>, StoreError> {
        let (first, last) = tokio::try_join!(self.next(subject, 0), self.last(subject))?;
        let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
        if is_reached(&first.1) {
            return Ok(Some(first));
        }
        if !is_reached(&last.1) {
            return Ok(None);
        }
        // It is `found`, or has a stream sequence between the two.
        let (mut below, mut above, mut found) = (first.0, last.0, last);
        while below + 1 < above {
            let middle = below + (above - below) / 2;
            match self.next(subject, middle).await? {
                Some((stream_seq, message)) if stream_seq < above => match is_reached(&message) {
                    true => (above, found) = (middle, (stream_seq, message)),
                    false => below = stream_seq,
                },
                _ => above = middle,
            }
        }
        Ok(Some(found))
    }
}

/// The epochs of the log, with the first number that each has in a stream. The log may have forgotten
/// old ones that the stream still has; broken ones have no part in it.
fn lineage(epochs: &Epochs, of_stream: &[(Epoch, u64)]) -> Lineage {
    let Epochs { begun: epochs, broken } = epochs;
    let forgotten =
        of_stream.iter().filter(|(epoch, _)| !epochs.contains(epoch) && !broken.contains(epoch));
    let forgotten =
        forgotten.map(|(epoch, first)| EpochStart { epoch: epoch.clone(), first: Some(*first) });
    let first =
        |epoch: &Epoch| of_stream.iter().find(|(known, _)| known == epoch).map(|(_, first)| *first);
    let known = epochs.iter().map(|epoch| EpochStart { epoch: epoch.clone(), first: first(epoch) });
    Lineage::new(forgotten.chain(known).collect())
}
