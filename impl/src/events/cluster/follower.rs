//! What is appended to a log, by whichever server, in the order of the engine.

use std::collections::VecDeque;
use std::sync::Arc;

use super::engine::{Engine, EngineError, Feed as _, FollowError, Start, Stored};
use super::log::{Record, Shared};
use super::message::{Epochs, Message};
use crate::events::driver::Follower;
use crate::events::server::Input;
use crate::mark;
use crate::recovery::{Backoff, Entropy};

/// Follows the log of an [`EngineLog`](super::EngineLog), and begins again for as long as it lives.
pub struct EngineFollower<E: Engine> {
    shared: Arc<Shared<E>>,
    entropy: Box<dyn Entropy>,
    backoff: Backoff,
    feed: Option<E::Feed>,
    /// The stream sequence of the last message that was followed.
    after: Option<u64>,
    /// It was said that nothing is followed, or nothing was yet.
    broken: bool,
    inputs: VecDeque<Input>,
}

impl<E: Engine> EngineFollower<E> {
    pub(super) fn new(shared: Arc<Shared<E>>, entropy: Box<dyn Entropy>) -> Self {
        let backoff = Backoff::new(shared.config.follow_retry);
        let (feed, after, inputs) = (None, None, VecDeque::new());
        Self { shared, entropy, backoff, feed, after, broken: false, inputs }
    }

    /// Begins to follow, where it ended if that is possible.
    async fn begin(&mut self) {
        let begun = match self.after {
            Some(after) => self.begin_at(Start::After(after)).await,
            None => self.begin_at(Start::New).await,
        };
        match begun {
            Ok((feed, record)) => {
                self.feed = Some(feed);
                self.broken = false;
                self.inputs.push_back(Input::FollowBegun { resumed: self.after.is_some() });
                let joined = self.shared.state().joined.is_some();
                match record {
                    Some(record) => self.take_epochs(record),
                    // There was one.
                    None if joined => self.shared.went_back(),
                    None => {}
                }
                self.shared.state().blind = false;
                return;
            }
            Err(FollowError::WentBack) => {
                let seen = self.after.unwrap_or(0);
                // A leader that lags has less as well, for a moment.
                if self.shared.confirm().await.is_ok_and(|confirmed| confirmed <= seen) {
                    self.shared.went_back();
                    return;
                }
            }
            Err(FollowError::Engine(error)) => {
                tracing::debug!(%error, "the log cannot be followed");
            }
        }
        self.broke();
        let delay = self.backoff.next_delay(&mut *self.entropy);
        tokio::time::sleep(delay).await;
    }

    /// Follows what comes from a point on. The epoch may have changed before, and the log may have
    /// been replaced by one that has come as far since, so the record of epochs is read again.
    async fn begin_at(&mut self, start: Start) -> Result<(E::Feed, Option<Record>), FollowError> {
        let feed = self.shared.engine.follow(start).await?;
        match self.shared.record().await {
            Ok(record) => Ok((feed, record)),
            Err(error) => Err(FollowError::Engine(EngineError(error.to_string()))),
        }
    }

    fn broke(&mut self) {
        if self.feed.take().is_some() {
            self.shared.state().blind = true;
        }
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
        self.backoff.reset();
        if stored.subject == self.shared.subjects.epoch {
            match Epochs::parse(stored) {
                Ok(epochs) => self.take_epochs(Record { stream_seq: stored.stream_seq, epochs }),
                Err(error) => tracing::error!(%error, "the epochs of the log are passed over"),
            }
        } else if let Some(agent) = self.shared.subjects.agent(&stored.subject) {
            match Message::parse(stored) {
                Ok(message) => {
                    let ids_max = self.shared.config.ids_max;
                    self.shared.state().tell(&agent, stored.stream_seq, &message, ids_max);
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
                    self.after = None;
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
