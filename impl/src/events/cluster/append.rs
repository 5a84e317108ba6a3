//! Appending to streams of a log.

use std::collections::BTreeSet;
use std::time::Duration;

use super::engine::{Engine, PublishFailure};
use super::index::{Applied, Index};
use super::log::Shared;
use super::message::{Item, Message};
use crate::events::AgentId;
use crate::events::log::{Append, Appended, Reply};
use crate::mark;
use crate::recovery::{Epoch, MAX_SEQUENCE};
use crate::storage::StoreError;

/// How long an append of unknown outcome waits before it is looked for again; each time twice as long.
const DOUBT_PAUSE: Duration = Duration::from_millis(10);

/// A message to be published.
struct Plan {
    /// The stream sequence of the message before it; 0 = none.
    expected_last: u64,
    message: Message,
    /// What its events come from, with their places among the commands.
    appends: Vec<(usize, Append)>,
    /// The lowest number that can be read, as far as known.
    oldest: u64,
}

/// What is to be done with appends.
enum Planned {
    Message(Plan),
    /// They are answered.
    Nothing,
    /// How far the stream goes has to be read.
    NoIndex,
    /// The stream goes on in an epoch that is not known.
    OtherEpoch(Epoch),
}

/// What became of a message.
#[derive(Debug)]
enum Outcome {
    /// It has this stream sequence.
    Stored(u64),
    /// This one followed the last one that was known, so the other never will.
    Overtaken(u64, Message),
}

impl<E: Engine> Shared<E> {
    /// Appends events to a stream, in their order, and returns the reply to each. Once one of them
    /// fails, those after it are not tried.
    pub(super) async fn append(
        &self,
        agent: AgentId,
        mut waiting: Vec<(usize, Append)>,
    ) -> Vec<(usize, Reply)> {
        let subject = self.subjects.of(&agent);
        let mut replies = Vec::with_capacity(waiting.len());
        let mut conflicts = 0;
        let mut read_on = !self.state().indices.contains(&agent);
        let failure = loop {
            if waiting.is_empty() {
                return replies;
            }
            if read_on && let Err(failure) = self.catch_up(&agent, &subject).await {
                break failure;
            }
            let plan = match self.plan(&agent, &mut waiting, &mut replies) {
                Ok(Planned::Message(plan)) => plan,
                Ok(Planned::Nothing) => continue,
                Ok(Planned::NoIndex) => {
                    read_on = true;
                    continue;
                }
                Ok(Planned::OtherEpoch(epoch)) => match self.look_into(epoch).await {
                    Ok(()) => continue,
                    Err(failure) => break failure,
                },
                Err(failure) => break failure,
            };
            match self.store(&subject, &plan).await {
                Ok(Outcome::Stored(stream_seq)) => {
                    read_on = false;
                    self.state().tell(&agent, stream_seq, &plan.message, &self.config);
                    let oldest = plan.oldest;
                    let stored = (plan.message.first..).zip(plan.appends);
                    replies.extend(stored.map(|(sequence, (at, Append { body, .. }))| {
                        (at, Reply::Appended(Appended::New { sequence, oldest, body }))
                    }));
                }
                Ok(Outcome::Overtaken(stream_seq, message)) => {
                    mark!("cluster.append_overtaken");
                    self.state().tell(&agent, stream_seq, &message, &self.config);
                    conflicts += 1;
                    // Where one more was not enough, there can be many.
                    read_on = conflicts % 2 == 0;
                    waiting.splice(..0, plan.appends);
                    if conflicts == self.config.conflicts_max {
                        let problem = "other servers append to the stream all the time";
                        break StoreError::NotApplied(problem.to_owned());
                    }
                }
                Err(failure) => {
                    // How far the stream goes is in doubt.
                    drop(self.state().take_index(&agent));
                    let problem = format!("an event before it failed: {failure}");
                    let failed = |(at, _)| (at, Reply::Failed(failure.clone()));
                    replies.extend(plan.appends.into_iter().map(failed));
                    break StoreError::NotApplied(problem);
                }
            }
        };
        replies.extend(waiting.into_iter().map(|(at, _)| (at, Reply::Failed(failure.clone()))));
        replies
    }

    /// Takes from the appends those that the next message has, and answers those that need none.
    fn plan(
        &self,
        agent: &AgentId,
        waiting: &mut Vec<(usize, Append)>,
        replies: &mut Vec<(usize, Reply)>,
    ) -> Result<Planned, StoreError> {
        let mut state = self.state();
        let epoch = state.epoch()?;
        let known = state.joined.as_ref().map(|joined| joined.epochs.clone()).unwrap_or_default();
        let Some(index) = state.indices.get(agent) else { return Ok(Planned::NoIndex) };
        if let Some((last, _)) = index.epochs.last()
            && !known.begun.contains(last)
            && !known.broken.contains(last)
        {
            let last = last.clone();
            if !state.forgotten.contains(&last) {
                return Ok(Planned::OtherEpoch(last));
            }
        }
        let Some(index) = state.indices.get(agent) else { return Ok(Planned::NoIndex) };
        let (mut appends, mut later, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut ids = BTreeSet::new();
        for (at, append) in waiting.drain(..) {
            let sequence = index.head + 1 + appends.len() as u64;
            let id = append.body.id().map(str::to_owned);
            if !later.is_empty() {
                later.push((at, append));
            } else if let Some(known) = index.judge(&append) {
                replies.push((at, Reply::Appended(known)));
            } else if bytes >= self.config.message_bytes || id.is_some_and(|id| !ids.insert(id)) {
                // What has the same id is judged when the first one is stored.
                later.push((at, append));
            } else if sequence > MAX_SEQUENCE {
                replies.push((at, Reply::Appended(Appended::Exhausted)));
            } else {
                bytes += append.body.as_str().len() + append.principal.len();
                appends.push((at, append));
            }
        }
        *waiting = later;
        let created = appends.iter().map(|(_, append)| append.created_at).max();
        let Some(created) = created else { return Ok(Planned::Nothing) };
        let first = index.head + 1;
        let mut epochs = index.epochs.clone();
        epochs.retain(|(epoch, _)| !known.broken.contains(epoch));
        if epochs.last().is_none_or(|(last, _)| *last != epoch) {
            epochs.push((epoch.clone(), first));
            epochs.drain(..epochs.len().saturating_sub(self.config.epochs_max));
        }
        let item = |(_, append): &(usize, Append)| Item {
            principal: append.principal.clone(),
            body: append.body.clone(),
        };
        let (expected_last, oldest) = (index.stream_seq, index.oldest);
        let at = index.at.map_or(created, |at| at.max(created));
        let message = Message {
            attempt: state.attempt(&self.server),
            epoch,
            first,
            // So that the first one at or after a time is found by halves.
            at,
            epochs,
            events: appends.iter().map(item).collect(),
        };
        Ok(Planned::Message(Plan { expected_last, message, appends, oldest }))
    }

    /// Somebody has appended in an epoch that this server has not seen begin. It is a newer one, in
    /// which others append now, or one that the record has forgotten: an epoch is in the record before
    /// anybody appends in it.
    ///
    /// # Errors
    ///
    /// Why this server must not append.
    async fn look_into(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.confirm().await?;
        let record = self.record().await?;
        let mut state = self.state();
        let is_known = record.as_ref().is_none_or(|record| record.epochs.begun.contains(&epoch));
        if let Some(record) = record {
            state.see(record);
        }
        if is_known || state.epoch().is_err() {
            mark!("cluster.append_fenced");
            state.epoch()?;
            let problem = "the stream has an epoch that the log does not have";
            return Err(StoreError::NotApplied(problem.to_owned()));
        }
        mark!("cluster.epoch_forgotten");
        state.forgotten.push_back(epoch);
        while state.forgotten.len() > self.config.epochs_max {
            state.forgotten.pop_front();
        }
        Ok(())
    }

    /// Publishes a message, and finds out what became of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotApplied`] if it surely is not stored and will not be.
    async fn store(&self, subject: &str, plan: &Plan) -> Result<Outcome, StoreError> {
        let publish =
            || self.engine.publish(subject, plan.expected_last, plan.message.to_payload());
        let joins = self.state().joins;
        let (mut in_doubt, mut denied) = (None, false);
        let mut pause = DOUBT_PAUSE;
        for round in 0..=self.config.doubts_max {
            if round > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            // The same message after the same one: whichever copy comes first, no other follows it.
            match publish().await {
                Ok(stream_seq) => return Ok(Outcome::Stored(stream_seq)),
                Err(PublishFailure::Refused(problem)) if in_doubt.is_none() && !denied => {
                    return Err(StoreError::NotApplied(problem));
                }
                // The last one may be this one, which came twice.
                Err(PublishFailure::WrongLast) => denied = true,
                Err(PublishFailure::Refused(problem) | PublishFailure::Unknown(problem)) => {
                    mark!("cluster.append_in_doubt");
                    in_doubt = Some(problem);
                }
            }
            if let Ok(Some(outcome)) = self.look_for(subject, plan).await {
                return Ok(outcome);
            }
            // The log that it was for may have been replaced.
            if let Err(error) = self.fence_of(plan) {
                let problem = in_doubt.unwrap_or_default();
                return Err(StoreError::Unknown(format!("{error}; {problem}")));
            }
        }
        let unknown = |problem: String| StoreError::Unknown(problem);
        if let Some(problem) = in_doubt {
            return Err(unknown(problem));
        }
        // Every copy was denied, and nothing follows the last one that was known: either the leader did
        // not know that one yet, or it is gone.
        self.confirm().await.map_err(|error| unknown(error.to_string()))?;
        match self.look_for(subject, plan).await {
            Ok(Some(outcome)) => return Ok(outcome),
            Ok(None) => {}
            Err(error) => return Err(unknown(error.to_string())),
        }
        let last = self.engine.last(subject).await.map_err(|error| unknown(error.to_string()))?;
        if last.map_or(0, |last| last.stream_seq) < plan.expected_last {
            self.went_back(joins);
            return Err(StoreError::NotApplied(
                "the engine holds less than it has shown".to_owned(),
            ));
        }
        mark!("cluster.append_denied");
        Err(StoreError::NotApplied("the leader of the engine lags".to_owned()))
    }

    /// Whether a message is still to be stored: the epoch that it has is still the log's.
    fn fence_of(&self, plan: &Plan) -> Result<(), StoreError> {
        match self.state().epoch()? == plan.message.epoch {
            true => Ok(()),
            false => Err(StoreError::NotApplied("the log has another epoch by now".to_owned())),
        }
    }

    /// Looks at what follows the last message that was known.
    async fn look_for(&self, subject: &str, plan: &Plan) -> Result<Option<Outcome>, StoreError> {
        let unknown = || StoreError::Unknown("what followed was forgotten since".to_owned());
        match self.next(subject, plan.expected_last + 1).await? {
            Some((stream_seq, message)) if message.attempt == plan.message.attempt => {
                mark!("cluster.append_found");
                Ok(Some(Outcome::Stored(stream_seq)))
            }
            Some((stream_seq, message)) if message.first == plan.message.first => {
                Ok(Some(Outcome::Overtaken(stream_seq, message)))
            }
            Some(_) => Err(unknown()),
            None => Ok(None),
        }
    }

    /// Reads what was appended to a stream since, or the ids of its newest events.
    async fn catch_up(&self, agent: &AgentId, subject: &str) -> Result<(), StoreError> {
        let ids_max = self.config.ids_max;
        let (joins, index) = {
            let mut state = self.state();
            (state.joins, state.take_index(agent))
        };
        let last = self.last(subject).await?;
        let (end, head) = last.map_or((0, 0), |(end, last)| (end, last.last()));
        if let Some(index) = &index
            && end < index.stream_seq
        {
            return Err(self.missed(joins, subject, index.stream_seq).await);
        }
        let mut index = match index {
            Some(index) => index,
            None if end == 0 => Index::new(1, 1),
            None => {
                mark!("cluster.index_built");
                let oldest = self.next(subject, 0).await?;
                let from = head.saturating_sub(ids_max);
                let first = self.search(subject, |message| message.last() > from).await?;
                let ((_, oldest), (stream_seq, first)) = oldest
                    .zip(first)
                    .ok_or_else(|| StoreError::NotApplied("the stream is being emptied".into()))?;
                let mut index = Index::new(first.first, oldest.first);
                // Read after the stream: it has the ids of whatever is not there any more.
                if let Some((_, removed)) = self.removed(agent).await? {
                    index.remember(removed);
                }
                index.apply(&first, stream_seq, ids_max);
                index
            }
        };
        while index.stream_seq < end {
            let (count, bytes) = (self.config.page_messages, self.config.page_bytes);
            let page = self.page(subject, index.stream_seq + 1, count, bytes).await?;
            if page.is_empty() {
                return Err(StoreError::NotApplied("the engine shows less than before".into()));
            }
            for (stream_seq, message) in page {
                let problem = match index.apply(&message, stream_seq, ids_max) {
                    Applied::Next | Applied::Known => continue,
                    // Forgotten before it was read; the index is built anew the next time.
                    Applied::Hole => "a part of the stream was forgotten while it was read",
                    Applied::Twice => {
                        mark!("cluster.number_given_twice");
                        "the engine has a number twice"
                    }
                };
                return Err(StoreError::NotApplied(problem.to_owned()));
            }
        }
        let mut state = self.state();
        if state.joins != joins {
            return Err(StoreError::NotApplied("the log has another epoch by now".to_owned()));
        }
        state.keep(agent, index, &self.config);
        Ok(())
    }

    /// The last message of a stream is before one that was seen.
    async fn missed(&self, joins: u64, subject: &str, seen: u64) -> StoreError {
        if let Err(error) = self.confirm().await {
            return error;
        }
        match self.engine.last(subject).await {
            Ok(Some(last)) if last.stream_seq >= seen => mark!("cluster.stale_leader"),
            Ok(_) => self.went_back(joins),
            Err(error) => return error.into(),
        }
        StoreError::NotApplied("the engine holds less than it has shown".to_owned())
    }
}
