//! Subscribers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gapless::events::client::{Client, ClientConfig, Notice, Offer, Position, StartAt};
use gapless::events::driver::{
    Application, CursorStore, Handled, Handler, HandlerError, Target, client,
};
use gapless::net::{BoxFuture, SystemClock};
use gapless::recovery::Epoch;
use serde::{Deserialize, Serialize};

use super::{Name, stream_id, stream_of};
use crate::failure::{Failure, Result};
use crate::mix::{Mutant, SUBSCRIBERS, TOKEN};
use crate::slots::Slots;
use crate::tally::{Counts, Tally};
use crate::worker::{Shop, entropy};

/// At which event a mutant goes wrong.
const WRONG_AT: u64 = 5;

/// What a subscriber has.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Subscriber {
    epoch: Option<Epoch>,
    cursor: Option<u64>,
    /// The highest number of an event that came.
    highest: u64,
    /// The events of each publisher.
    tallies: Vec<Tally>,
    /// What is wrong with no publisher's in particular.
    counts: Counts,
}

/// Lets a subscriber follow its stream from the beginning, or from where it was.
pub(crate) fn subscribe(shop: &Arc<Shop>, subscriber: usize) -> Result<()> {
    let mix = &shop.mix;
    let slots = Slots::open(&mix.file(SUBSCRIBERS))?;
    let stream = stream_of(mix, subscriber);
    let state = slots.read(subscriber)?;
    let seat =
        Arc::new(Seat { shop: shop.clone(), slots, subscriber, stream, state: Mutex::new(state) });
    let judge = Judge(seat.clone());
    let handler: Box<dyn Handler> = match mix.mutant {
        Some(mutant) if subscriber == 0 => Box::new(Wrong { judge, mutant, kept: None }),
        _ => Box::new(judge),
    };
    let application = Application {
        handlers: vec![handler],
        open_handlers: vec![],
        cursor: Box::new(Cursor(seat.clone())),
        notices: Box::new({
            let seat = seat.clone();
            move |notice| seat.notice(&notice)
        }),
    };
    let config = ClientConfig {
        start: StartAt::Beginning,
        liveness: mix.liveness(),
        reconnect: mix.reconnect(),
        ..ClientConfig::default()
    };
    let target = Target::new(mix.host(), format!("{TOKEN}@{}", stream_id(stream)?));
    let core = Client::new(config, entropy()?);
    let connector = shop.connector(mix.way(subscriber));
    let (handle, running) = client(core, connector, target, Arc::new(SystemClock), application);
    tokio::spawn(async move {
        let ended = running.await;
        drop(handle);
        let problem = ended.err().unwrap_or_else(|| "it has ended".to_owned());
        seat.shop.fail(&Failure::new(format!("subscriber {subscriber}: {problem}")));
    });
    Ok(())
}

/// A subscriber, over its connections.
struct Seat {
    shop: Arc<Shop>,
    slots: Slots,
    subscriber: usize,
    stream: usize,
    state: Mutex<Subscriber>,
}

impl Seat {
    fn state(&self) -> MutexGuard<'_, Subscriber> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what the subscriber has, durably or not at all.
    fn change(&self, change: impl FnOnce(&mut Subscriber)) -> Result<()> {
        let mut state = self.state();
        let mut changed = state.clone();
        change(&mut changed);
        self.slots.write(self.subscriber, &changed)?;
        *state = changed;
        Ok(())
    }

    fn notice(&self, notice: &Notice) {
        if let Notice::Gap { .. } | Notice::GaveUp { .. } = notice
            && let Err(failure) = self.change(|state| state.counts.refused += 1)
        {
            self.shop.fail(&failure);
        }
    }

    fn take(&self, offer: &Offer) -> std::result::Result<Handled, HandlerError> {
        let name = Name::read(self.stream as u64, offer.event.bytes());
        let publishers = self.shop.mix.publishers_of_a_stream;
        let taken = self.change(|state| {
            state.take(offer.event.sequence(), name, publishers);
            if let Some(position) = &offer.position {
                state.keep(position.clone());
            }
        });
        match taken {
            Ok(()) => Ok(Handled::Stored),
            Err(failure) => Err(HandlerError(failure.to_string())),
        }
    }
}

impl Subscriber {
    /// An event comes, under a number.
    fn take(&mut self, sequence: Option<u64>, name: Option<Name>, publishers: usize) {
        self.tallies.resize(publishers, Tally::default());
        let (Some(sequence), Some(name)) = (sequence, name) else {
            self.counts.damaged += 1;
            return;
        };
        let of = usize::try_from(name.publisher).ok();
        let is_right = publishers > 1 || sequence == name.n;
        let Some(tally) = of.and_then(|of| self.tallies.get_mut(of)).filter(|_| is_right) else {
            self.counts.damaged += 1;
            return;
        };
        let before = tally.counts;
        tally.see(name.n);
        // Events of two publishers that are in the wrong order are each right by themselves.
        if tally.counts == before && sequence <= self.highest {
            self.counts.swapped += 1;
        }
        self.highest = self.highest.max(sequence);
    }

    /// How many events it has been given.
    pub(crate) fn given(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.highest).sum()
    }

    /// What is wrong if the publishers have published so many.
    pub(crate) fn counts(&self, acknowledged: &[u64]) -> Counts {
        let mut counts = self.counts;
        for (publisher, last) in acknowledged.iter().enumerate() {
            counts += self.tallies.get(publisher).cloned().unwrap_or_default().counts(*last);
        }
        counts
    }

    fn keep(&mut self, position: Position) {
        self.epoch = position.epoch;
        self.cursor = Some(position.sequence);
    }
}

/// Judges each event as it comes, and keeps the cursor with the verdict.
struct Judge(Arc<Seat>);

impl Handler for Judge {
    fn handle<'a>(
        &'a mut self,
        offer: &'a Offer,
    ) -> BoxFuture<'a, std::result::Result<Handled, HandlerError>> {
        let taken = self.0.take(offer);
        Box::pin(async { taken })
    }
}

/// Keeps the positions that belong to no event.
struct Cursor(Arc<Seat>);

impl CursorStore for Cursor {
    fn load(&mut self) -> BoxFuture<'_, std::result::Result<Option<Position>, String>> {
        let Subscriber { epoch, cursor, .. } = self.0.state().clone();
        let position = cursor.map(|sequence| Position { epoch, sequence });
        Box::pin(async move { Ok(position) })
    }

    fn save(&mut self, position: Position) -> BoxFuture<'_, std::result::Result<(), String>> {
        let saved = self.0.change(|state| state.keep(position));
        Box::pin(async move { saved.map_err(|failure| failure.to_string()) })
    }
}

/// Stands between the client and the judge, and does one thing wrong.
struct Wrong {
    judge: Judge,
    mutant: Mutant,
    kept: Option<Offer>,
}

impl Wrong {
    fn take(&mut self, offer: &Offer) -> std::result::Result<Handled, HandlerError> {
        let here = offer.event.sequence() == Some(WRONG_AT);
        match self.mutant {
            Mutant::Drops if here => return Ok(Handled::Done),
            Mutant::Doubles if here => drop(self.judge.0.take(offer)?),
            Mutant::Swaps if here => {
                self.kept = Some(offer.clone());
                return Ok(Handled::Done);
            }
            Mutant::Drops | Mutant::Doubles | Mutant::Swaps => {}
        }
        let handled = self.judge.0.take(offer);
        if let Some(kept) = self.kept.take() {
            self.judge.0.take(&Offer { position: None, ..kept })?;
        }
        handled
    }
}

impl Handler for Wrong {
    fn handle<'a>(
        &'a mut self,
        offer: &'a Offer,
    ) -> BoxFuture<'a, std::result::Result<Handled, HandlerError>> {
        let taken = self.take(offer);
        Box::pin(async { taken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a subscriber of two publishers was given: under which number, of which publisher, and
    /// which of its events.
    fn given(events: &[(u64, u64, u64)]) -> Subscriber {
        let mut subscriber = Subscriber::default();
        for (sequence, publisher, n) in events {
            let name = Name { stream: 0, publisher: *publisher, n: *n };
            subscriber.take(Some(*sequence), Some(name), 2);
        }
        subscriber
    }

    #[test]
    fn the_events_of_two_publishers_are_exact_if_each_has_all_of_its_own_in_the_order_of_the_stream()
     {
        let right = given(&[(1, 0, 1), (2, 1, 1), (3, 1, 2), (4, 0, 2)]);
        assert!(right.counts(&[2, 2]).is_exact());
        assert_eq!(right.given(), 4);
        let none = Counts::default();
        assert_eq!(right.counts(&[2, 3]), Counts { lost: 1, ..none });
        let swapped = given(&[(2, 1, 1), (1, 0, 1)]);
        assert_eq!(swapped.counts(&[1, 1]), Counts { swapped: 1, ..none });
        let own = given(&[(1, 0, 1), (3, 0, 3), (2, 0, 2)]);
        assert_eq!(own.counts(&[3, 0]), Counts { swapped: 1, ..none }, "counted once");
        let twice = given(&[(1, 0, 1), (2, 0, 1)]);
        assert_eq!(twice.counts(&[1, 0]), Counts { doubled: 1, ..none });
        let nobodys = given(&[(1, 2, 1)]);
        assert_eq!(nobodys.counts(&[0, 0]), Counts { damaged: 1, ..none });
    }
}
