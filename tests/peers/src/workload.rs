//! What is done to each peer in the same way.

use std::time::Duration;

use clap::ValueEnum;

use crate::failure::{Failure, Result};
use crate::inbox::now;
use crate::peer::{Arrivals, Peer};
use crate::preflight;
use crate::relay::Relay;
use crate::tally::Counts;

/// How long nothing has to arrive before nothing more is waited for.
const QUIET: Duration = Duration::from_secs(20);

/// The same where a loss is what is looked for.
const QUIET_AFTER_LOSS: Duration = Duration::from_secs(2);

/// How long acknowledgements, ends of connections and memory get to arrive where they belong.
const SETTLE: Duration = Duration::from_millis(200);

/// The same for many connections.
const SETTLE_MANY: Duration = Duration::from_secs(2);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// One receiver comes back after 400 events.
    ReplayRing,
    /// One receiver comes back after 100,000 events.
    ReplayLog,
    /// Events to 1,000 receivers that are there.
    FanOut,
    /// 1,000 receivers come back at once.
    Storm,
    /// Memory of the server per connection, with 10,000 of them.
    Idle,
    /// A path goes silent, 400 events are published, the receiver comes back on another.
    Takeover,
    /// The connection is cut before the first event.
    CutFirst,
    /// One publisher publishes 20,000 events in batches.
    Append,
    /// One publisher publishes 500 events, each after the acknowledgement of the one before.
    AppendEach,
}

impl Workload {
    /// What is measured if nothing is named. Who keeps what how safe is not comparable, so how long
    /// publishing takes is measured only where somebody wants it.
    pub(crate) const ALL: [Self; 7] = [
        Self::ReplayRing,
        Self::ReplayLog,
        Self::FanOut,
        Self::Storm,
        Self::Idle,
        Self::Takeover,
        Self::CutFirst,
    ];
}

/// How much of everything there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// The gap that a ring still has.
    pub(crate) ring: u64,
    /// The gap that only a log has.
    pub(crate) log: u64,
    /// Receivers of a fan-out, and of a storm.
    pub(crate) receivers: usize,
    /// Events of a fan-out.
    pub(crate) fan_out: u64,
    /// Events of it that are published at once.
    pub(crate) fan_out_batch: u64,
    /// The gap of each receiver in a storm.
    pub(crate) storm: u64,
    /// Idle connections.
    pub(crate) idle: usize,
    /// Events that are published in batches.
    pub(crate) append: u64,
    /// Events that are published one after the other.
    pub(crate) append_each: u64,
}

impl Sizes {
    /// Next to nothing, by which every path of a measurement is taken.
    pub(crate) const SMALL: Self = Self {
        ring: 40,
        log: 700,
        receivers: 20,
        fan_out: 40,
        fan_out_batch: 20,
        storm: 10,
        idle: 50,
        append: 600,
        append_each: 10,
    };

    /// What `limit` descriptors allow.
    pub(crate) fn within(limit: u64) -> Self {
        Self {
            ring: 400,
            log: 100_000,
            receivers: preflight::connections(1_000, 200, limit),
            fan_out: 500,
            fan_out_batch: 250,
            storm: 20,
            idle: preflight::connections(10_000, 5_000, limit),
            append: 20_000,
            append_each: 500,
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// What was delivered; memory needs no events.
    pub(crate) counts: Counts,
    /// Seconds, or bytes per connection; `None` if something is missing.
    pub(crate) value: Option<f64>,
}

impl From<Arrivals> for Sample {
    fn from(Arrivals { counts, took }: Arrivals) -> Self {
        Self { counts, value: took.map(|took| took.as_secs_f64()) }
    }
}

impl Workload {
    /// What it is, as the title of a table.
    pub(crate) fn title(self, sizes: &Sizes) -> String {
        match self {
            Self::ReplayRing => format!("Replay after a gap of {} events", sizes.ring),
            Self::ReplayLog => format!("Replay after a gap of {} events", sizes.log),
            Self::FanOut => {
                format!("Fan-out of {} events to {} receivers", sizes.fan_out, sizes.receivers)
            }
            Self::Storm => {
                format!(
                    "{} receivers come back at once, to {} events each",
                    sizes.receivers, sizes.storm
                )
            }
            Self::Idle => format!("Memory per connection, of {} that are idle", sizes.idle),
            Self::Takeover => {
                format!("A path goes silent; {} events later another takes over", sizes.ring)
            }
            Self::CutFirst => format!("Cut before the first of {} events", sizes.ring),
            Self::Append => format!("{} events are published in batches", sizes.append),
            Self::AppendEach => {
                format!("{} events are published one after the other", sizes.append_each)
            }
        }
    }

    /// How often it is worth measuring, when `pairs` are wanted.
    pub(crate) fn repeats(self, pairs: usize) -> usize {
        match self {
            Self::ReplayRing
            | Self::ReplayLog
            | Self::FanOut
            | Self::Storm
            | Self::Append
            | Self::AppendEach => pairs,
            // Bytes and counts differ little, and need no clock.
            Self::Idle | Self::Takeover | Self::CutFirst => pairs.min(3),
        }
    }

    /// How many events one measurement delivers, or publishes.
    pub(crate) fn deliveries(self, sizes: &Sizes) -> Option<u64> {
        match self {
            Self::ReplayRing => Some(sizes.ring),
            Self::ReplayLog => Some(sizes.log),
            Self::FanOut => Some(sizes.fan_out * sizes.receivers as u64),
            Self::Storm => Some(sizes.storm * sizes.receivers as u64),
            Self::Append => Some(sizes.append),
            Self::AppendEach => Some(sizes.append_each),
            Self::Idle | Self::Takeover | Self::CutFirst => None,
        }
    }

    /// Measures once, on a topic of its own.
    pub(crate) async fn run(
        self,
        peer: &mut dyn Peer,
        topic: &str,
        sizes: &Sizes,
    ) -> Result<Sample> {
        let sample = match self {
            Self::ReplayRing => replay(peer, topic, 1, sizes.ring).await,
            Self::ReplayLog => replay(peer, topic, 1, sizes.log).await,
            Self::FanOut => fan_out(peer, topic, sizes).await,
            Self::Storm => replay(peer, topic, sizes.receivers, sizes.storm).await,
            Self::Idle => idle(peer, topic, sizes.idle).await,
            Self::Takeover => takeover(peer, topic, sizes.ring).await,
            Self::CutFirst => cut_first(peer, topic, sizes.ring).await,
            Self::Append => append(peer, topic, sizes.append, sizes.append).await,
            Self::AppendEach => append(peer, topic, sizes.append_each, 1).await,
        };
        sample.map_err(|failure| failure.context(topic))
    }
}

/// Receivers enter, and are given the first event; so each has a position.
async fn enter_and_prime(
    peer: &mut dyn Peer,
    topic: &str,
    count: usize,
    via: std::net::SocketAddr,
) -> Result<()> {
    peer.enter(topic, count, via).await?;
    peer.expect(1).await?;
    peer.publish(topic, 1..=1).await?;
    let Arrivals { counts, took: _ } = peer.collect(QUIET).await?;
    if !counts.is_exact() {
        return Err(Failure::new(format!("the first event: {counts:?}")));
    }
    tokio::time::sleep(SETTLE).await;
    Ok(())
}

async fn replay(peer: &mut dyn Peer, topic: &str, count: usize, gap: u64) -> Result<Sample> {
    let via = peer.address();
    enter_and_prime(peer, topic, count, via).await?;
    peer.cut().await?;
    tokio::time::sleep(SETTLE).await;
    peer.publish(topic, 2..=gap + 1).await?;
    tokio::time::sleep(SETTLE).await;
    peer.expect(gap + 1).await?;
    peer.resume(via).await?;
    Ok(peer.collect(QUIET).await?.into())
}

async fn fan_out(peer: &mut dyn Peer, topic: &str, sizes: &Sizes) -> Result<Sample> {
    let via = peer.address();
    enter_and_prime(peer, topic, sizes.receivers, via).await?;
    let last = sizes.fan_out + 1;
    peer.expect(last).await?;
    let step = usize::try_from(sizes.fan_out_batch).unwrap_or(usize::MAX);
    for first in (2..=last).step_by(step) {
        peer.publish(topic, first..=last.min(first + sizes.fan_out_batch - 1)).await?;
    }
    Ok(peer.collect(QUIET).await?.into())
}

async fn idle(peer: &mut dyn Peer, topic: &str, count: usize) -> Result<Sample> {
    let via = peer.address();
    // What the first connections of all bring into memory belongs to none of them.
    enter_and_prime(peer, topic, 100, via).await?;
    let topic = &format!("{topic}-idle");
    peer.enter(topic, 0, via).await?;
    tokio::time::sleep(SETTLE_MANY).await;
    let before = peer.resident_bytes()?;
    peer.enter(topic, count, via).await?;
    tokio::time::sleep(SETTLE_MANY).await;
    let after = peer.resident_bytes()?;
    // The next peer needs the descriptors.
    peer.cut().await?;
    let value = after.saturating_sub(before) as f64 / count as f64;
    Ok(Sample { counts: Counts::default(), value: Some(value) })
}

async fn takeover(peer: &mut dyn Peer, topic: &str, gap: u64) -> Result<Sample> {
    let relay = Relay::start(peer.address()).await?;
    enter_and_prime(peer, topic, 1, relay.address()).await?;
    relay.go_silent();
    peer.publish(topic, 2..=gap + 1).await?;
    tokio::time::sleep(SETTLE).await;
    peer.expect(gap + 1).await?;
    peer.resume(relay.address()).await?;
    Ok(peer.collect(QUIET_AFTER_LOSS).await?.into())
}

async fn cut_first(peer: &mut dyn Peer, topic: &str, gap: u64) -> Result<Sample> {
    let via = peer.address();
    peer.enter(topic, 1, via).await?;
    tokio::time::sleep(SETTLE).await;
    peer.cut().await?;
    tokio::time::sleep(SETTLE).await;
    peer.publish(topic, 1..=gap).await?;
    peer.expect(gap).await?;
    peer.resume(via).await?;
    Ok(peer.collect(QUIET_AFTER_LOSS).await?.into())
}

/// Publishes `step` events at a time; one of them before the clock starts. Then a receiver reads them
/// all.
async fn append(peer: &mut dyn Peer, topic: &str, count: u64, step: u64) -> Result<Sample> {
    let via = peer.address();
    enter_and_prime(peer, topic, 1, via).await?;
    peer.cut().await?;
    tokio::time::sleep(SETTLE).await;
    let last = count + 1;
    let began = now();
    for first in (2..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        peer.publish(topic, first..=last.min(first + step - 1)).await?;
    }
    let took = began.elapsed();
    peer.expect(last).await?;
    peer.resume(via).await?;
    let Arrivals { counts, took: read } = peer.collect(QUIET).await?;
    Ok(Sample { counts, value: read.map(|_| took.as_secs_f64()) })
}
