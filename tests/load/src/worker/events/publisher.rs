//! Publishers.

use std::sync::Arc;
use std::time::Duration;

use gapless::AgentId;
use gapless::events::driver::{
    BatchFailure, Publication, PublishFailure, Publisher, PublisherConfig,
};
use gapless::events::server::Receipt;
use gapless::recovery::{Backoff, BackoffConfig};
use rand::RngExt as _;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Name, stream_id};
use crate::failure::{Failure, Result};
use crate::mix::{Mix, PUBLISHERS, TOKEN};
use crate::slots::Slots;
use crate::tally::Counts;
use crate::worker::{From, Shop, entropy};

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

/// What a publisher has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Published {
    /// Everything up to this one may be stored.
    pub(crate) begun: u64,
    /// Everything up to this one is acknowledged.
    pub(crate) acknowledged: u64,
    /// The number of the last one in the stream.
    last: u64,
    pub(crate) counts: Counts,
    /// How long it took at most until everything of a batch was acknowledged, in milliseconds.
    pub(crate) slowest_ms: u64,
}

impl Published {
    /// The next event is acknowledged, under this number. Another one than there can be says that the
    /// stream is not what was published.
    fn take(&mut self, sequence: u64, publishers_of_a_stream: usize) {
        self.acknowledged += 1;
        let is_right = match publishers_of_a_stream {
            1 => sequence == self.acknowledged,
            _ => sequence > self.last,
        };
        self.counts.damaged += u64::from(!is_right);
        self.last = self.last.max(sequence);
    }
}

/// Begins to publish.
pub(crate) fn begin(shop: &Arc<Shop>) -> Result<()> {
    for number in shop.mix.own(shop.mix.publishers(), shop.worker) {
        let shop = shop.clone();
        let slots = Slots::open(&shop.mix.file(PUBLISHERS))?;
        tokio::spawn(async move {
            if let Err(failure) = publish(&shop, number, &slots).await {
                shop.fail(&failure.context(format_args!("publisher {number}")));
            }
        });
    }
    Ok(())
}

async fn publish(shop: &Shop, number: usize, slots: &Slots) -> Result<()> {
    let mix = &shop.mix;
    let mut rng = entropy()?;
    let mut sender = Sender::new(shop, number)?;
    let mut finish = shop.finish.clone();
    // On average, with batches of half the largest size.
    let mean =
        mix.publishers() as f64 * (1 + BATCH_MAX) as f64 / 2.0 / f64::from(mix.events_per_second);
    let mut state: Published = slots.read(number)?;
    let mut waiting_since = Instant::now();
    loop {
        if state.begun == state.acknowledged {
            let pause = Duration::from_secs_f64(mean * rng.random_range(0.2..1.8));
            let finished = finish.wait_for(|finish| *finish);
            if tokio::time::timeout(pause, finished).await.is_ok() {
                return std::future::pending().await;
            }
            state.begun += rng.random_range(1..=BATCH_MAX);
            slots.write(number, &state)?;
            waiting_since = Instant::now();
        }
        carry_on(&mut sender, mix, number, &mut state).await?;
        if state.begun == state.acknowledged {
            let waited = waiting_since.elapsed().as_millis();
            state.slowest_ms = state.slowest_ms.max(u64::try_from(waited).unwrap_or(u64::MAX));
        }
        slots.write(number, &state)?;
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
    fn new(shop: &Shop, number: usize) -> Result<Self> {
        let mix = &shop.mix;
        let several = mix.servers.len() > 1;
        let connector = shop.connector(mix.way(number));
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
    mix: &Mix,
    number: usize,
    state: &mut Published,
) -> Result<()> {
    let (stream, publisher) = mix.stream_of_publisher(number);
    let id = stream_id(stream)?;
    let (stream, publisher) = (stream as u64, publisher as u64);
    let publications = (state.acknowledged + 1..=state.begun).map(|n| {
        Ok(Publication {
            agent: id.clone(),
            id: Some(format!("{publisher}-{n}")),
            kind: "message".to_owned(),
            payload: RawValue::from_string(Name { stream, publisher, n }.payload())?,
            after: None,
        })
    });
    let publications = publications.collect::<Result<Vec<_>>>()?;
    for receipt in sender.publish_all(&id, &publications).await? {
        state.take(receipt.sequence, mix.publishers_of_a_stream);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_cannot_be_is_counted_as_damage() {
        let damaged = |sequences: &[u64], publishers| {
            let mut published = Published::default();
            sequences.iter().for_each(|sequence| published.take(*sequence, publishers));
            published.counts.damaged
        };
        assert_eq!((damaged(&[1, 2, 3], 1), damaged(&[1, 3, 4], 1)), (0, 2));
        assert_eq!((damaged(&[2, 3, 7], 2), damaged(&[2, 2, 7], 2)), (0, 1));
    }
}
