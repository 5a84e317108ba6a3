//! What is appended to a log, by whichever server, in the order of the engine.

use std::collections::VecDeque;
use std::sync::Arc;

use super::engine::{Engine, Feed as _, FollowError, Start, Stored};
use super::log::{Record, Shared};
use super::message::{Epochs, Message};
use crate::events::driver::Follower;
use crate::events::server::Input;
use crate::mark;
use crate::recovery::{Backoff, Entropy};
use crate::storage::StoreError;

/// The last message with events that was followed.
struct LastFollowed {
    stream_seq: u64,
    subject: String,
    attempt: String,
    /// The number of its last event.
    number: u64,
}

/// What the log holds of what was seen of it.
enum Continuity {
    Whole,
    /// The last event that was seen was removed since, as old ones are.
    Removed,
    WentBack,
}

/// A feed that has begun.
struct Begun<F> {
    feed: F,
    /// It goes on where the one before ended.
    resumed: bool,
    record: Option<Record>,
}

/// Follows the log of an [`EngineLog`](super::EngineLog), and begins again for as long as it lives.
pub struct EngineFollower<E: Engine> {
    shared: Arc<Shared<E>>,
    entropy: Box<dyn Entropy>,
    backoff: Backoff,
    feed: Option<E::Feed>,
    /// The stream sequence of the last message that was followed.
    after: Option<u64>,
    last: Option<LastFollowed>,
    /// As of how many joined epochs that is.
    joins: u64,
    /// It was said that nothing is followed, or nothing was yet.
    broken: bool,
    inputs: VecDeque<Input>,
}

impl<E: Engine> EngineFollower<E> {
    pub(super) fn new(shared: Arc<Shared<E>>, entropy: Box<dyn Entropy>) -> Self {
        let backoff = Backoff::new(shared.config.follow_retry);
        let inputs = VecDeque::new();
        Self {
            shared,
            entropy,
            backoff,
            feed: None,
            after: None,
            last: None,
            joins: 0,
            broken: false,
            inputs,
        }
    }

    /// Begins to follow, where it ended if that is possible.
    async fn begin(&mut self) {
        let begun = self.begun().await;
        let begun = match self.shared.state().joins == self.joins {
            true => begun,
            // What was found may be of the log before.
            false => Err(StoreError::NotApplied("another epoch was joined meanwhile".to_owned())),
        };
        match begun {
            Ok(Some(Begun { feed, resumed, record })) => {
                self.feed = Some(feed);
                self.broken = false;
                self.inputs.push_back(Input::FollowBegun { resumed });
                if let Some(record) = record {
                    self.take_epochs(record);
                }
                self.shared.state().blind = false;
            }
            Ok(None) => self.shared.went_back(self.joins),
            Err(error) => {
                tracing::debug!(%error, "the log cannot be followed");
                self.broke();
                let delay = self.backoff.next_delay(&mut *self.entropy);
                tokio::time::sleep(delay).await;
            }
        }
    }

    /// Follows what comes after the last message that was followed; `None` if the log went back.
    async fn begun(&mut self) -> Result<Option<Begun<E::Feed>>, StoreError> {
        let joins = self.shared.state().joins;
        if self.joins != joins {
            // What was seen may have been of a log that another one has replaced.
            (self.after, self.last, self.joins) = (None, None, joins);
        }
        let start = self.after.map_or(Start::New, Start::After);
        let feed = match self.shared.engine.follow(start).await {
            Ok(feed) => feed,
            Err(FollowError::WentBack) => {
                // A leader that lags has less as well, for a moment.
                let confirmed = self.shared.confirm().await?;
                return match self.after.is_some_and(|seen| confirmed <= seen) {
                    true => Ok(None),
                    false => Err(StoreError::NotApplied("the leader lags".to_owned())),
                };
            }
            Err(FollowError::Engine(error)) => return Err(error.into()),
        };
        // The epoch may have changed before, and the log may have been replaced by one that has come
        // as far since.
        let mut found = self.look().await?;
        if let Continuity::WentBack = found.0 {
            self.shared.confirm().await?;
            found = self.look().await?;
        }
        let (continuity, record) = found;
        let resumed = match continuity {
            Continuity::Whole => self.after.is_some(),
            Continuity::Removed => {
                // What was appended since may be removed as well, so nothing goes on from there.
                self.shared.state().forget();
                false
            }
            Continuity::WentBack => return Ok(None),
        };
        Ok(Some(Begun { feed, resumed, record }))
    }

    /// Whether the log still has what was seen of it, and its record of epochs.
    async fn look(&mut self) -> Result<(Continuity, Option<Record>), StoreError> {
        let record = self.shared.record().await?;
        let has_joined = {
            let state = self.shared.state();
            let joined = state.joined.as_ref().filter(|_| !state.went_back);
            joined.is_none_or(|joined| record.as_ref().is_some_and(|record| record.follows(joined)))
        };
        let continuity = match (has_joined, &self.last) {
            (false, _) => Continuity::WentBack,
            (true, None) => Continuity::Whole,
            (true, Some(last)) => continuity(&self.shared, last).await?,
        };
        Ok((continuity, record))
    }

    fn broke(&mut self) {
        self.feed = None;
        self.shared.state().blind = true;
        if !self.broken {
            self.broken = true;
            self.inputs.push_back(Input::FollowBroken);
        }
    }

    fn take(&mut self, stored: &Stored) {
        if self.after.is_some_and(|after| stored.stream_seq <= after) {
            mark!("cluster.followed_again");
            return;
        }
        self.after = Some(stored.stream_seq);
        // A feed does not survive that its log is replaced.
        self.joins = self.shared.state().joins;
        self.backoff.reset();
        if stored.subject == self.shared.subjects.epoch {
            match Epochs::parse(stored) {
                Ok(epochs) => self.take_epochs(Record { stream_seq: stored.stream_seq, epochs }),
                Err(error) => tracing::error!(%error, "the epochs of the log are passed over"),
            }
        } else if let Some(agent) = self.shared.subjects.agent(&stored.subject) {
            match Message::parse(stored) {
                Ok(message) => {
                    let (stream_seq, config) = (stored.stream_seq, &self.shared.config);
                    self.shared.state().tell(&agent, stream_seq, &message, config);
                    self.last = Some(LastFollowed {
                        stream_seq,
                        subject: stored.subject.clone(),
                        attempt: message.attempt.clone(),
                        number: message.last(),
                    });
                    let events = message.events.into_iter().map(|item| item.body).collect();
                    let (first, epoch) = (message.first, message.epoch);
                    self.inputs.push_back(Input::Followed { agent, first, events, epoch });
                }
                Err(error) => tracing::error!(%error, "a message is passed over"),
            }
        }
    }

    fn take_epochs(&mut self, record: Record) {
        let mut state = self.shared.state();
        let Some(current) = record.current().cloned() else { return };
        let joined = state.joined.as_ref();
        let is_news = joined.is_some_and(|joined| {
            record.is_newer_than(joined) && joined.current() != Some(&current)
        });
        state.see(record);
        if is_news {
            mark!("cluster.epoch_superseded");
            self.inputs.push_back(Input::EpochChanged(current));
        }
    }
}

/// Whether the log still has the last event that was followed.
async fn continuity<E: Engine>(
    shared: &Shared<E>,
    last: &LastFollowed,
) -> Result<Continuity, StoreError> {
    match shared.next(&last.subject, last.stream_seq).await? {
        Some((stream_seq, message)) if stream_seq == last.stream_seq => {
            return Ok(match message.attempt == last.attempt {
                true => Continuity::Whole,
                false => Continuity::WentBack,
            });
        }
        _ => {}
    }
    // Only the beginning of a stream is ever removed.
    match shared.next(&last.subject, 0).await? {
        Some((_, first)) if first.first > last.number => Ok(Continuity::Removed),
        _ => Ok(Continuity::WentBack),
    }
}

impl<E: Engine> Follower for EngineFollower<E> {
    async fn next(&mut self) -> Input {
        loop {
            if let Some(input) = self.inputs.pop_front() {
                return input;
            }
            let shared = self.shared.clone();
            let event = tokio::select! { biased;
                () = shared.gone_back.notified() => None,
                event = self.step() => Some(event),
            };
            match event {
                Some(Some(stored)) => self.take(&stored),
                Some(None) => {}
                None => {
                    self.feed = None;
                    self.shared.state().blind = true;
                    self.after = None;
                    self.last = None;
                    self.inputs.push_back(Input::LogWentBack);
                }
            }
        }
    }
}

impl<E: Engine> EngineFollower<E> {
    /// The next message, if there is one before something else happens.
    async fn step(&mut self) -> Option<Stored> {
        let Some(feed) = &mut self.feed else {
            self.begin().await;
            return None;
        };
        match feed.next().await {
            Ok(stored) => Some(stored),
            Err(error) => {
                tracing::warn!(%error, "the log is not followed any more");
                self.broke();
                None
            }
        }
    }
}
