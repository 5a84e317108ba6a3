//! What goes wrong, drawn from a seed.
//!
//! The kinds come from a deck that is shuffled and dealt: the first deck has each kind once, so that a
//! short run has them all, the later ones have what is costly seldom.

use std::fmt;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use serde_json::{Value, json};

/// A kind of fault, and how many cards of it are in a deck after the first.
const DECK: [(Kind, usize); 11] = [
    (Kind::Cut, 30),
    (Kind::HalfOpen, 16),
    (Kind::Hold, 16),
    (Kind::Latency, 14),
    (Kind::SlowReader, 12),
    (Kind::FreezeServer, 10),
    (Kind::FreezeWorker, 8),
    (Kind::FullDisk, 6),
    (Kind::KillWorker, 5),
    (Kind::KillProxy, 1),
    (Kind::KillServer, 2),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Cut,
    HalfOpen,
    Hold,
    Latency,
    SlowReader,
    FreezeServer,
    FreezeWorker,
    FullDisk,
    KillWorker,
    KillProxy,
    KillServer,
}

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The proxy does something to a share of its connections: a line for its standard input.
    Strike {
        kind: Kind,
        strike: Value,
    },
    /// A process does not run for a while (`SIGSTOP`).
    FreezeServer(Duration),
    FreezeWorker(usize, Duration),
    /// The server cannot write to any file for a while.
    FullDisk(Duration),
    /// `SIGKILL`, and after a while it is started again.
    KillServer(Duration),
    KillWorker(usize, Duration),
    KillProxy(Duration),
}

impl Fault {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Strike { kind, .. } => *kind,
            Self::FreezeServer(_) => Kind::FreezeServer,
            Self::FreezeWorker(..) => Kind::FreezeWorker,
            Self::FullDisk(_) => Kind::FullDisk,
            Self::KillServer(_) => Kind::KillServer,
            Self::KillWorker(..) => Kind::KillWorker,
            Self::KillProxy(_) => Kind::KillProxy,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strike { strike, .. } => {
                write!(f, "{} % of the proxied links: {}", strike["percent"], strike["fault"])
            }
            Self::FreezeServer(length) => write!(f, "the server is frozen for {length:?}"),
            Self::FreezeWorker(worker, length) => {
                write!(f, "load process {worker} is frozen for {length:?}")
            }
            Self::FullDisk(length) => write!(f, "the disk of the server is full for {length:?}"),
            Self::KillServer(pause) => write!(f, "the server is killed, and is away for {pause:?}"),
            Self::KillWorker(worker, pause) => {
                write!(f, "load process {worker} is killed, and is away for {pause:?}")
            }
            Self::KillProxy(pause) => write!(f, "the proxy is killed, and is away for {pause:?}"),
        }
    }
}

/// Draws faults without end.
pub(crate) struct Faults {
    rng: ChaCha12Rng,
    deck: Vec<Kind>,
    workers: usize,
}

impl Faults {
    pub(crate) fn new(seed: u64, workers: usize) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut deck: Vec<Kind> = DECK.iter().map(|(kind, _)| *kind).collect();
        deck.shuffle(&mut rng);
        Self { rng, deck, workers }
    }

    fn length(&mut self, ms: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(ms))
    }

    fn strike(&mut self, kind: Kind, percent_max: u32, fault: Value) -> Fault {
        let percent = self.rng.random_range(1..=percent_max);
        let strike =
            json!({ "percent": percent, "seed": self.rng.random::<u64>(), "fault": fault });
        Fault::Strike { kind, strike }
    }

    fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        words[self.rng.random_range(0..words.len())]
    }
}

impl Iterator for Faults {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.deck.is_empty() {
            self.deck = DECK.iter().flat_map(|(kind, count)| vec![*kind; *count]).collect();
            self.deck.shuffle(&mut self.rng);
        }
        let kind = self.deck.pop()?;
        let worker = self.rng.random_range(0..self.workers);
        Some(match kind {
            Kind::Cut => {
                let how = self.one_of(&["reset", "close", "mid_frame"]);
                self.strike(kind, 10, json!({ "cut": { "how": how } }))
            }
            Kind::HalfOpen => {
                let how = self.one_of(&["half_open", "half_open_up", "half_open_down"]);
                self.strike(kind, 4, json!({ "cut": { "how": how } }))
            }
            Kind::Hold => {
                let for_ms = self.rng.random_range(200..3_000);
                self.strike(kind, 30, json!({ "hold": { "for_ms": for_ms } }))
            }
            Kind::Latency => {
                let latency_ms = self.rng.random_range(20..600);
                let for_ms = self.rng.random_range(1_000..5_000);
                let fault = json!({ "latency": { "latency_ms": latency_ms, "for_ms": for_ms } });
                self.strike(kind, 30, fault)
            }
            Kind::SlowReader => {
                let pause_ms = self.rng.random_ratio(1, 2).then(|| self.rng.random_range(20..400));
                let for_ms = self.rng.random_range(500..5_000);
                let fault = json!({ "slow_reader": { "pause_ms": pause_ms, "for_ms": for_ms } });
                self.strike(kind, 20, fault)
            }
            Kind::FreezeServer => Fault::FreezeServer(self.length(200..2_500)),
            Kind::FreezeWorker => Fault::FreezeWorker(worker, self.length(200..4_000)),
            Kind::FullDisk => Fault::FullDisk(self.length(200..2_000)),
            Kind::KillServer => Fault::KillServer(self.length(0..1_500)),
            Kind::KillWorker => Fault::KillWorker(worker, self.length(0..2_000)),
            Kind::KillProxy => Fault::KillProxy(self.length(0..1_500)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_each_kind_comes_soon() {
        let draw = |seed| Faults::new(seed, 3).take(300).collect::<Vec<_>>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let first: BTreeSet<Kind> = draw(1).iter().take(DECK.len()).map(Fault::kind).collect();
        assert_eq!(first.len(), DECK.len());
    }
}
