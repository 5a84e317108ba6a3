//! Publishers and subscribers.
//!
//! A stream has one publisher, which publishes `n` 1, 2, 3, … with `n` as id. So the number of an
//! event in its stream has to be its `n`, for the publisher as for each subscriber: whatever is lost,
//! doubled or reordered, and wherever, makes them differ.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gapless::AgentId;
use gapless::events::client::{Client, ClientConfig, Notice, Offer, Position, StartAt};
use gapless::events::driver::{
    Application, BatchFailure, CursorStore, Handled, Handler, HandlerError, Publication,
    PublishFailure, Publisher, PublisherConfig, Target, client,
};
use gapless::events::server::Receipt;
use gapless::net::{BoxFuture, SystemClock};
use gapless::recovery::{Backoff, BackoffConfig, Epoch};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{From, Shop, entropy};
use crate::failure::{Failure, Result};
use crate::mix::{Mix, Mutant, STREAMS, SUBSCRIBERS, TOKEN};
use crate::slots::Slots;
use crate::tally::{Counts, Tally};

/// How many events are published at once, at most.
const BATCH_MAX: u64 = 4;

/// The pauses between two servers, of a publisher that got no acknowledgement.
const BETWEEN_SERVERS: BackoffConfig = BackoffConfig {
    min: Duration::from_millis(100),
    max: Duration::from_secs(2),
    jitter_percent: 50,
};

/// Where there are several servers, a publisher waits so long for one of so many acknowledgements,
/// in milliseconds, before it turns to the next server.
const IMPATIENT_ONE_OF: u32 = 8;
const IMPATIENT_MS: std::ops::Range<u64> = 1..20;

/// How long the filling of an event is, at most.
const PAD_BYTES_MAX: u64 = 300;

/// At which event a mutant goes wrong.
const WRONG_AT: u64 = 5;

/// What a publisher has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// Everything up to this one may be stored.
    pub(crate) begun: u64,
    /// Everything up to this one is acknowledged.
    pub(crate) acknowledged: u64,
    pub(crate) counts: Counts,
    /// How long it took at most until everything of a batch was acknowledged, in milliseconds.
    pub(crate) slowest_ms: u64,
}

/// What a subscriber has.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Subscriber {
    epoch: Option<Epoch>,
    cursor: Option<u64>,
    pub(crate) tally: Tally,
}

fn stream_id(stream: usize) -> Result<AgentId> {
    Ok(AgentId::parse(&format!("stream-{stream}"))?)
}

/// Which stream a subscriber reads.
pub(crate) fn stream_of(mix: &Mix, subscriber: usize) -> usize {
    subscriber % mix.streams()
}

// ---- what is published ------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    stream: u64,
    n: u64,
    #[serde(borrow)]
    pad: Cow<'a, str>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
}

fn digest(stream: u64, n: u64, pad: &str) -> String {
    let hash = Sha256::digest(format!("{stream} {n} {pad}"));
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn payload(stream: u64, n: u64) -> String {
    let mut rng = ChaCha12Rng::seed_from_u64(stream << 32 ^ n);
    let length = rng.random_range(0..=PAD_BYTES_MAX);
    let pad: String = (0..length).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
    let digest = digest(stream, n, &pad).into();
    let payload = Payload { stream, n, pad: pad.into(), digest };
    serde_json::to_string(&payload).expect("a payload is always JSON")
}

/// The `n` of an event, if it is as it was published in this stream.
fn read(stream: u64, event: &[u8]) -> Option<u64> {
    let payload: Payload<'_> = serde_json::from_slice(event).ok()?;
    let whole =
        payload.stream == stream && payload.digest == digest(stream, payload.n, &payload.pad);
    whole.then_some(payload.n)
}

// ---- publishers -------------------------------------------------------------------------------

/// Begins to publish.
pub(crate) fn begin(shop: &Arc<Shop>) -> Result<()> {
    for stream in shop.mix.own(shop.mix.streams(), shop.worker) {
        let shop = shop.clone();
        let slots = Slots::open(&shop.mix.file(STREAMS))?;
        tokio::spawn(async move {
            if let Err(failure) = publish(&shop, stream, &slots).await {
                shop.fail(&failure.context(format_args!("the publisher of stream {stream}")));
            }
        });
    }
    Ok(())
}

async fn publish(shop: &Shop, stream: usize, slots: &Slots) -> Result<()> {
    let mix = &shop.mix;
    let (id, mut rng) = (stream_id(stream)?, entropy()?);
    let mut publisher = Sender::new(shop, stream)?;
    let mut finish = shop.finish.clone();
    // On average, with batches of half the largest size.
    let mean =
        mix.streams() as f64 * (1 + BATCH_MAX) as f64 / 2.0 / f64::from(mix.events_per_second);
    let mut state: Stream = slots.read(stream)?;
    let mut waiting_since = Instant::now();
    loop {
        if state.begun == state.acknowledged {
            let pause = Duration::from_secs_f64(mean * rng.random_range(0.2..1.8));
            let finished = finish.wait_for(|finish| *finish);
            if tokio::time::timeout(pause, finished).await.is_ok() {
                return std::future::pending().await;
            }
            state.begun += rng.random_range(1..=BATCH_MAX);
            slots.write(stream, &state)?;
            waiting_since = Instant::now();
        }
        carry_on(&mut publisher, &id, stream, &mut state).await?;
        if state.begun == state.acknowledged {
            let waited = waiting_since.elapsed().as_millis();
            state.slowest_ms = state.slowest_ms.max(u64::try_from(waited).unwrap_or(u64::MAX));
        }
        slots.write(stream, &state)?;
    }
}

/// Publishes. Where there are several servers, it does not ask the same one again: what is not
/// acknowledged is published at the next.
struct Sender {
    publisher: Publisher<From>,
    connector: From,
    host: String,
    /// How long to wait between two servers; none, if there is one only.
    between: Option<Backoff>,
    rng: Box<ChaCha12Rng>,
}

impl Sender {
    fn new(shop: &Shop, stream: usize) -> Result<Self> {
        let mix = &shop.mix;
        let several = mix.servers.len() > 1;
        let connector = shop.connector(mix.way(stream));
        let host = mix.host();
        let publisher = Self::publisher(&connector, &host, several)?;
        let between = several.then(|| Backoff::new(BETWEEN_SERVERS));
        Ok(Self { publisher, connector, host, between, rng: entropy()? })
    }

    fn publisher(connector: &From, host: &str, several: bool) -> Result<Publisher<From>> {
        let mut config = PublisherConfig::default();
        if several {
            config.attempts_max = 1;
        }
        Ok(Publisher::new(connector.clone(), host, TOKEN, config, entropy()?))
    }

    /// What is stored of it for sure.
    async fn publish_all(
        &mut self,
        id: &AgentId,
        publications: &[Publication],
    ) -> Result<Vec<Receipt>> {
        let Some(between) = &mut self.between else {
            return stored(self.publisher.publish_all(id, publications).await);
        };
        // Now and then it has no patience, and two servers have the same events at the same time.
        let patience = match self.rng.random_ratio(1, IMPATIENT_ONE_OF) {
            true => Duration::from_millis(self.rng.random_range(IMPATIENT_MS)),
            false => Duration::MAX,
        };
        let publishing = self.publisher.publish_all(id, publications);
        match tokio::time::timeout(patience, publishing).await {
            Ok(Ok(receipts)) => {
                between.reset();
                Ok(receipts)
            }
            Ok(failed @ Err(_)) => {
                let receipts = stored(failed)?;
                tokio::time::sleep(between.next_delay(&mut *self.rng)).await;
                self.publisher = Self::publisher(&self.connector, &self.host, true)?;
                Ok(receipts)
            }
            Err(_) => {
                self.publisher = Self::publisher(&self.connector, &self.host, true)?;
                Ok(vec![])
            }
        }
    }
}

/// What is stored for sure. What is not is published again for as long as it takes, except where it
/// was refused.
fn stored(result: std::result::Result<Vec<Receipt>, BatchFailure>) -> Result<Vec<Receipt>> {
    match result {
        Ok(receipts) => Ok(receipts),
        Err(failed) => match failed.failure {
            PublishFailure::Refused { .. } => Err(Failure::new(failed.to_string())),
            PublishFailure::Unknown(_) | PublishFailure::NotStored(_) => Ok(failed.receipts),
        },
    }
}

/// Publishes what may have been stored already, and only once in any case.
async fn carry_on(
    sender: &mut Sender,
    id: &AgentId,
    stream: usize,
    state: &mut Stream,
) -> Result<()> {
    let publications = (state.acknowledged + 1..=state.begun).map(|n| {
        Ok(Publication {
            agent: id.clone(),
            id: Some(n.to_string()),
            kind: "message".to_owned(),
            payload: RawValue::from_string(payload(stream as u64, n))?,
            after: None,
        })
    });
    let publications = publications.collect::<Result<Vec<_>>>()?;
    for receipt in sender.publish_all(id, &publications).await? {
        state.acknowledged += 1;
        // A receipt with another number says that the stream is not what was published.
        state.counts.damaged += u64::from(receipt.sequence != state.acknowledged);
    }
    Ok(())
}

// ---- subscribers ------------------------------------------------------------------------------

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
            && let Err(failure) = self.change(|state| state.tally.counts.refused += 1)
        {
            self.shop.fail(&failure);
        }
    }

    fn take(&self, offer: &Offer) -> std::result::Result<Handled, HandlerError> {
        let number = read(self.stream as u64, offer.event.bytes());
        let taken = self.change(|state| {
            match number {
                Some(n) if offer.event.sequence() == Some(n) => state.tally.see(n),
                _ => state.tally.counts.damaged += 1,
            }
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

    #[test]
    fn an_event_is_read_only_as_it_was_published_and_in_its_stream() {
        for n in [1, 7, 100_000] {
            let text = payload(3, n);
            assert_eq!(read(3, text.as_bytes()), Some(n));
            assert_eq!(read(4, text.as_bytes()), None, "another stream's");
            let other = text.replace(&format!("\"n\":{n}"), &format!("\"n\":{}", n + 1));
            assert_eq!(read(3, other.as_bytes()), None, "its digest says another number");
            assert_eq!(read(3, &text.as_bytes()[..text.len() - 2]), None, "it is cut");
        }
    }
}
