//! A storm on paper: many clients lose their connections at the same moment, and all come back.
//!
//! A model of handshakes and nothing else. A server makes one after the other, each in the same time,
//! in the order in which they came; clients have the [`Backoff`] of the library. So it says how long a
//! storm lasts and what ends it, for more clients than fit into a simulated world.
//!
//! What it does not have: the network, its limits and losses; replays, which come after the handshakes;
//! the time in which clients notice that their connection is gone.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use gapless::recovery::{Backoff, BackoffConfig};
use rand::RngExt as _;
use rand_chacha::ChaCha12Rng;

use crate::seed::Seed;

/// How many refusals take a server as long as one handshake. A refusal needs no key exchange on a
/// connection that is kept, nothing is looked up, and no state is made.
const REFUSALS_PER_HANDSHAKE: u64 = 20;

/// How far clients are apart that do the same at the same time, because of their ways to the server.
const APART: Duration = Duration::from_millis(50);

/// How exact `Retry-After` is.
const RETRY_AFTER_STEP: Duration = Duration::from_secs(1);

/// The pauses of a client of the library.
const PAUSES: BackoffConfig =
    BackoffConfig { min: Duration::from_secs(1), max: Duration::from_secs(30), jitter_percent: 50 };

/// Who comes back to whom.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many clients there are.
    pub clients: u32,
    /// How many servers. Each attempt goes to any of them.
    pub servers: u32,
    /// How many handshakes a server makes in a second.
    pub handshakes_per_second: u32,
    /// How long a client waits for the answer to an attempt. The server makes the handshake all the
    /// same: it finds out when it answers.
    pub patience: Duration,
    /// How much a server that refuses lets wait, as the time that it takes for that.
    pub admitted: Duration,
    /// When to stop looking.
    pub horizon: Duration,
    /// From which everything is drawn.
    pub seed: Seed,
}

/// What clients and servers do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// Clients try again after one second, each time.
    Fixed,
    /// Their pauses double, from 1 s to 30 s.
    Backoff,
    /// And differ from client to client, by half to both sides: the clients of the library.
    Jitter,
    /// And a server refuses at once what would have to wait for long.
    Admission,
    /// And says when there will be room (`Retry-After`), each time later: it keeps one number, the
    /// time until which it has promised its handshakes.
    Appointment,
}

impl Variant {
    /// All of them, each with one thing more than the one before it.
    pub const ALL: [Self; 5] =
        [Self::Fixed, Self::Backoff, Self::Jitter, Self::Admission, Self::Appointment];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Backoff => "backoff",
            Self::Jitter => "jitter",
            Self::Admission => "admission",
            Self::Appointment => "appointment",
        }
    }

    const fn pauses(self) -> BackoffConfig {
        match self {
            Self::Fixed => BackoffConfig { max: PAUSES.min, jitter_percent: 0, ..PAUSES },
            Self::Backoff => BackoffConfig { jitter_percent: 0, ..PAUSES },
            Self::Jitter | Self::Admission | Self::Appointment => PAUSES,
        }
    }
}

/// A second of a storm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Second {
    /// How many attempts reached a server.
    pub attempts: u64,
    /// How many handshakes came to their end in time.
    pub connected: u64,
}

/// What came of a storm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Its seconds, up to the horizon.
    pub seconds: Vec<Second>,
    /// How many attempts there were.
    pub attempts: u64,
    /// How many handshakes nobody waited for any more.
    pub wasted: u64,
    /// How many attempts were refused at once.
    pub refused: u64,
    /// When the clients were connected, in microseconds, ascending.
    connected: Vec<u64>,
}

impl Outcome {
    /// When so many of 100 clients were connected again; `None`, if they were not up to the horizon.
    pub fn connected(&self, percent: u32, clients: u32) -> Option<Duration> {
        let count = (u64::from(clients) * u64::from(percent)).div_ceil(100);
        let last = usize::try_from(count).ok()?.checked_sub(1)?;
        self.connected.get(last).copied().map(Duration::from_micros)
    }

    /// The most attempts in a second.
    pub fn peak(&self) -> u64 {
        self.seconds.iter().map(|second| second.attempts).max().unwrap_or(0)
    }
}

/// A server, which is a queue.
#[derive(Debug, Clone, Copy, Default)]
struct Server {
    /// When it has done everything that has come.
    done: u64,
    /// Until when it has promised its handshakes to those that it has refused.
    promised: u64,
}

/// What came of an attempt.
enum Answer {
    /// The handshake ends at this time.
    At(u64),
    Refused {
        /// How long to wait, if it says that.
        retry_after: Option<u64>,
    },
}

/// Times in microseconds.
struct Costs {
    handshake: u64,
    refusal: u64,
    admitted: u64,
}

impl Server {
    fn attempt(&mut self, now: u64, variant: Variant, costs: &Costs) -> Answer {
        let free = self.done.max(now);
        let says_when = match variant {
            Variant::Fixed | Variant::Backoff | Variant::Jitter => None,
            Variant::Admission => Some(false),
            Variant::Appointment => Some(true),
        };
        match says_when {
            Some(says_when) if free - now > costs.admitted => {
                self.done = free + costs.refusal;
                let retry_after = says_when.then(|| {
                    self.promised = self.promised.max(self.done) + costs.handshake;
                    self.promised - now
                });
                Answer::Refused { retry_after }
            }
            Some(_) | None => {
                self.done = free + costs.handshake;
                Answer::At(self.done)
            }
        }
    }
}

/// Lets a storm come to its end, or to the horizon.
pub fn storm(config: &Config, variant: Variant) -> Outcome {
    let handshake = 1_000_000 / u64::from(config.handshakes_per_second);
    let costs = Costs {
        handshake,
        refusal: handshake / REFUSALS_PER_HANDSHAKE,
        admitted: micros(config.admitted),
    };
    let (horizon, patience) = (micros(config.horizon), micros(config.patience));
    let mut rng = config.seed.stream("storm", variant.name(), 0);
    let mut servers = vec![Server::default(); config.servers as usize];
    let mut backoffs = vec![Backoff::new(variant.pauses()); config.clients as usize];
    let mut outcome = Outcome { seconds: seconds(horizon), ..Outcome::default() };
    let mut coming = BinaryHeap::with_capacity(backoffs.len());
    for (client, backoff) in (0_u32..).zip(&mut backoffs) {
        coming.push(Reverse((pause(backoff, &mut rng), client)));
    }
    while let Some(Reverse((now, client))) = coming.pop() {
        if now >= horizon {
            break;
        }
        outcome.attempts += 1;
        outcome.seconds[second(now)].attempts += 1;
        let server = rng.random_range(0..servers.len());
        let backoff = &mut backoffs[client as usize];
        let again = match servers[server].attempt(now, variant, &costs) {
            Answer::At(done) if done - now <= patience => {
                if done < horizon {
                    outcome.seconds[second(done)].connected += 1;
                    outcome.connected.push(done);
                }
                continue;
            }
            Answer::At(_) => {
                outcome.wasted += 1;
                now + patience + pause(backoff, &mut rng)
            }
            Answer::Refused { retry_after: None } => {
                outcome.refused += 1;
                now + pause(backoff, &mut rng)
            }
            Answer::Refused { retry_after: Some(wait) } => {
                outcome.refused += 1;
                let step = micros(RETRY_AFTER_STEP);
                now + wait.div_ceil(step) * step + rng.random_range(0..step)
            }
        };
        coming.push(Reverse((again, client)));
    }
    outcome.connected.sort_unstable();
    outcome
}

/// How long until a client has come to a server again.
fn pause(backoff: &mut Backoff, rng: &mut ChaCha12Rng) -> u64 {
    micros(backoff.next_delay(rng)) + rng.random_range(0..micros(APART))
}

fn seconds(horizon: u64) -> Vec<Second> {
    vec![Second::default(); second(horizon.saturating_add(999_999))]
}

fn second(at: u64) -> usize {
    usize::try_from(at / 1_000_000).unwrap_or(usize::MAX)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
