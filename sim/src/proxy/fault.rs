//! What a proxy does to a connection, and when.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use crate::plan::{Cut, Strange};
use crate::seed::Seed;

/// Something that goes wrong on a real connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The connection is accepted and broken at once. Only at its beginning.
    Refuse,
    /// The connection is accepted and nothing is ever said on it. Only at its beginning.
    NeverAnswer,
    /// The connection ends.
    Cut {
        /// How.
        how: Cut,
    },
    /// Nothing moves, then everything arrives at once.
    Hold {
        /// How long.
        for_ms: u64,
    },
    /// The link becomes slow.
    Latency {
        /// One way, while it lasts.
        latency_ms: u64,
        /// How long.
        for_ms: u64,
    },
    /// The client's machine reads slowly or not at all.
    SlowReader {
        /// The pause before each read; absent = does not read at all.
        pause_ms: Option<u64>,
        /// How long.
        for_ms: u64,
    },
    /// WebSocket messages do not arrive though the connection lives.
    Lose {
        /// How many of the next.
        frames: u32,
        /// Whether those to the server, instead of those to the client.
        to_server: bool,
    },
    /// WebSocket messages arrive twice.
    Duplicate {
        /// How many of the next.
        frames: u32,
        /// Whether those to the server, instead of those to the client.
        to_server: bool,
    },
    /// A frame that does not belong there arrives.
    Inject {
        /// What.
        frame: Strange,
        /// Whether it goes to the server instead of to the client.
        to_server: bool,
    },
}

impl Fault {
    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::NeverAnswer => "never-answer",
            Self::Cut { .. } => "cut",
            Self::Hold { .. } => "hold",
            Self::Latency { .. } => "latency",
            Self::SlowReader { .. } => "slow-reader",
            Self::Lose { .. } => "lose",
            Self::Duplicate { .. } => "duplicate",
            Self::Inject { .. } => "inject",
        }
    }

    /// Whether it is a matter of frames, which not every connection carries.
    pub(super) fn needs_frames(&self) -> bool {
        match self {
            Self::Lose { .. } | Self::Duplicate { .. } | Self::Inject { .. } => true,
            Self::Refuse
            | Self::NeverAnswer
            | Self::Cut { .. }
            | Self::Hold { .. }
            | Self::Latency { .. }
            | Self::SlowReader { .. } => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |to_server: &bool| if *to_server { "server" } else { "client" };
        match self {
            Self::Refuse => f.write_str("refused"),
            Self::NeverAnswer => f.write_str("never answered"),
            Self::Cut { how } => f.write_str(match how {
                Cut::Close => "closed with code 1012",
                Cut::Reset => "reset",
                Cut::MidFrame => "cut in the middle of the next frame to the client",
                Cut::HalfOpen => "half-open: silent from now on, both ways",
                Cut::HalfOpenUp => "half-open: silent from now on, to the server",
                Cut::HalfOpenDown => "half-open: silent from now on, to the client",
            }),
            Self::Hold { for_ms } => write!(f, "held for {for_ms} ms"),
            Self::Latency { latency_ms, for_ms } => {
                write!(f, "slow for {for_ms} ms: {latency_ms} ms one way")
            }
            Self::SlowReader { pause_ms: None, for_ms } => {
                write!(f, "the client does not read for {for_ms} ms")
            }
            Self::SlowReader { pause_ms: Some(pause), for_ms } => {
                write!(f, "the client reads every {pause} ms, for {for_ms} ms")
            }
            Self::Lose { frames, to_server } => {
                write!(f, "the next {frames} to the {} are lost", side(to_server))
            }
            Self::Duplicate { frames, to_server } => {
                write!(f, "the next {frames} to the {} come twice", side(to_server))
            }
            Self::Inject { frame, to_server } => {
                write!(f, "a strange frame to the {}: {frame:?}", side(to_server))
            }
        }
    }
}

/// A group of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Connections, and how fast they move.
    Link,
    /// Messages that a peer did not send, or sent twice.
    Peer,
    /// Frames that no peer should send.
    Strange,
}

impl Group {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Peer => "peer",
            Self::Strange => "strange",
        }
    }
}

/// The text names no group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no group of faults: there are `link`, `peer` and `strange`")]
pub struct UnknownGroup(String);

impl FromStr for Group {
    type Err = UnknownGroup;

    fn from_str(text: &str) -> Result<Self, UnknownGroup> {
        match text.trim() {
            "link" => Ok(Self::Link),
            "peer" => Ok(Self::Peer),
            "strange" => Ok(Self::Strange),
            _ => Err(UnknownGroup(text.to_owned())),
        }
    }
}

/// How many faults a connection has in a minute, at least and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least.
    pub from: u32,
    /// At most.
    pub to: u32,
}

/// The most faults that a connection may have in a minute.
const PER_MINUTE_MAX: u32 = 6_000;

/// The text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no rate: write `2..20 per minute` or `10`, up to {PER_MINUTE_MAX}")]
pub struct InvalidRate(String);

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let numbers = text.trim().strip_suffix("per minute").unwrap_or(text).trim();
        let (from, to) = numbers.split_once("..").unwrap_or((numbers, numbers));
        let number =
            |text: &str| text.trim().parse::<u32>().ok().filter(|it| *it <= PER_MINUTE_MAX);
        match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Self { from, to }),
            _ => Err(InvalidRate(text.to_owned())),
        }
    }
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The connection, from 1 in the order in which they were accepted.
    pub connection: u64,
    /// When, in milliseconds since the connection was accepted.
    pub due_ms: u64,
    /// What.
    pub fault: Fault,
}

/// A fault that hits a share of the connections that are open, all at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strike {
    /// How many of a hundred.
    pub percent: u32,
    /// From which follows whom it hits.
    pub seed: u64,
    /// What.
    pub fault: Fault,
}

impl Strike {
    /// The fault, if it hits the connection of this number.
    pub(super) fn hits(&self, connection: u64) -> Option<Fault> {
        let mut rng = Seed(self.seed).stream("proxy", "strike", connection);
        (rng.random_range(0..100) < self.percent).then(|| self.fault.clone())
    }
}

/// How many of a hundred connections are refused, and how many are never answered.
const REFUSED_PERCENT: u32 = 8;
const NEVER_ANSWERED_PERCENT: u32 = 5;

/// The decisions about one connection, for as long as it lasts. They follow from the seed and the
/// number of the connection, whatever happens on it.
pub(super) struct Draw {
    connection: u64,
    groups: Vec<Group>,
    /// The mean time from one fault to the next; `None` if there are none.
    every_ms: Option<u64>,
    at_ms: u64,
    first: Option<Fault>,
    rng: ChaCha12Rng,
}

impl Draw {
    pub(super) fn new(seed: Seed, connection: u64, groups: &[Group], rate: Rate) -> Self {
        let mut rng = seed.stream("proxy", "connection", connection);
        let (percent, per_minute) =
            (rng.random_range(0..100), rng.random_range(rate.from..=rate.to));
        let first = match percent {
            _ if !groups.contains(&Group::Link) || per_minute == 0 => None,
            0..REFUSED_PERCENT => Some(Fault::Refuse),
            percent if percent < REFUSED_PERCENT + NEVER_ANSWERED_PERCENT => {
                Some(Fault::NeverAnswer)
            }
            _ => None,
        };
        let every_ms =
            (per_minute > 0 && !groups.is_empty()).then(|| (60_000 / u64::from(per_minute)).max(1));
        Self { connection, groups: groups.to_vec(), every_ms, at_ms: 0, first, rng }
    }

    fn fault(&mut self) -> Fault {
        let group = self.groups[self.rng.random_range(0..self.groups.len())];
        let short = self.rng.random_range(100..3_000);
        let long = self.rng.random_range(3_000..9_000);
        let for_ms = if self.rng.random_ratio(1, 4) { long } else { short };
        let (to_server, frames) = (self.rng.random(), self.rng.random_range(1..=3));
        match group {
            Group::Link => match self.rng.random_range(0..5) {
                0 | 1 => Fault::Cut { how: CUTS[self.rng.random_range(0..CUTS.len())] },
                2 => Fault::Hold { for_ms },
                3 => Fault::Latency { latency_ms: self.rng.random_range(20..800), for_ms },
                _ => {
                    let pause_ms = self.rng.random_range(20..400);
                    Fault::SlowReader {
                        pause_ms: self.rng.random_ratio(1, 2).then_some(pause_ms),
                        for_ms,
                    }
                }
            },
            Group::Peer if self.rng.random() => Fault::Lose { frames, to_server },
            Group::Peer => Fault::Duplicate { frames, to_server },
            Group::Strange => {
                let frame = STRANGE[self.rng.random_range(0..STRANGE.len())];
                Fault::Inject { frame, to_server }
            }
        }
    }
}

const CUTS: [Cut; 6] =
    [Cut::Close, Cut::Reset, Cut::MidFrame, Cut::HalfOpen, Cut::HalfOpenUp, Cut::HalfOpenDown];

const STRANGE: [Strange; 5] = [
    Strange::UnknownType,
    Strange::Malformed,
    Strange::BadField,
    Strange::Binary,
    Strange::Oversize,
];

impl Iterator for Draw {
    type Item = Decision;

    fn next(&mut self) -> Option<Decision> {
        let connection = self.connection;
        if let Some(fault) = self.first.take() {
            self.every_ms = None;
            return Some(Decision { connection, due_ms: 0, fault });
        }
        let every_ms = self.every_ms?;
        self.at_ms += self.rng.random_range(1..=2 * every_ms);
        let fault = self.fault();
        Some(Decision { connection, due_ms: self.at_ms, fault })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, connection: u64) -> Vec<Decision> {
        let groups = [Group::Link, Group::Peer];
        let rate = Rate { from: 60, to: 600 };
        Draw::new(Seed(seed), connection, &groups, rate).take(50).collect()
    }

    #[test]
    fn the_decisions_about_a_connection_follow_from_the_seed_and_its_number() {
        assert_eq!(draw(1, 3), draw(1, 3));
        assert_ne!(draw(1, 3), draw(2, 3));
        assert_ne!(draw(1, 3)[0].due_ms, draw(1, 4)[0].due_ms);
    }

    #[test]
    fn a_strike_hits_its_share_of_the_connections_and_the_same_ones_for_the_same_seed() {
        let hit = |seed, percent| -> Vec<u64> {
            let strike = Strike { percent, seed, fault: Fault::Hold { for_ms: 1 } };
            (1..=1_000).filter(|connection| strike.hits(*connection).is_some()).collect()
        };
        assert_eq!(hit(1, 20), hit(1, 20));
        assert_ne!(hit(1, 20), hit(2, 20));
        assert!((150..250).contains(&hit(1, 20).len()), "a fifth of them");
        assert_eq!((hit(1, 0).len(), hit(1, 100).len()), (0, 1_000));
    }

    #[test]
    fn every_kind_of_the_groups_that_were_asked_for_is_drawn_and_no_other() {
        let kinds: std::collections::BTreeSet<&str> = (1..=100)
            .flat_map(|connection| draw(1, connection))
            .map(|decision| decision.fault.kind())
            .collect();
        let wanted = [
            "cut",
            "duplicate",
            "hold",
            "latency",
            "lose",
            "never-answer",
            "refuse",
            "slow-reader",
        ];
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_rate_is_read_in_every_form() {
        for text in ["2..20 per minute", "2..20", " 2 .. 20 per minute "] {
            assert_eq!(text.parse(), Ok(Rate { from: 2, to: 20 }), "{text}");
        }
        assert_eq!("7 per minute".parse(), Ok(Rate { from: 7, to: 7 }));
        for text in ["", "20..2", "-1", "2..", "1..7000", "2 per hour"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
