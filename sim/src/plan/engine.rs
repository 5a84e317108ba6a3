//! What goes wrong with the engine under the log of several servers, and on the way to it.

use serde::{Deserialize, Serialize};

use super::{Host, Protocol};

/// Something that goes wrong with the engine under a shared log, or on the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineFault {
    /// The engine's leader is gone and another one is elected. A node is killed, or loses sight of
    /// the others. Half of the time nobody has noticed, and nobody answers; then there is no leader.
    Election {
        /// How long until another one leads.
        for_ms: u64,
        /// Whether what had no majority yet is lost; if not, the next leader commits it, and tells
        /// nobody.
        lost: bool,
    },
    /// A leader that was deposed has not noticed, and the requests of a server still go to it: it
    /// reads what it knows and commits nothing.
    StaleLeader {
        /// Whose requests.
        host: Host,
        /// How long.
        for_ms: u64,
    },
    /// Nothing passes between a server and the engine. A routing change, a congested link.
    Isolate {
        /// Which server.
        host: Host,
        /// Whether everything arrives afterwards instead of being lost.
        held: bool,
        /// How long.
        for_ms: u64,
    },
    /// Whoever follows the log at a server is told nothing for a while, then everything. A consumer
    /// that is slow.
    LagFollow {
        /// Which server.
        host: Host,
        /// How long.
        for_ms: u64,
    },
    /// Whoever follows the log at a server loses its place. A consumer whose node is gone.
    BreakFollow {
        /// Which server.
        host: Host,
    },
    /// Whoever follows the log at a server is told the newest messages again. An acknowledgement of a
    /// delivery is lost.
    Redeliver {
        /// Which server.
        host: Host,
        /// How many.
        messages: u32,
    },
    /// The next messages are stored, and whoever published them is not told.
    LoseAck {
        /// How many.
        times: u32,
    },
    /// The next messages are not acknowledged, and take effect later if nobody else was faster. They
    /// wait in a buffer on their way.
    LateWrite {
        /// How many.
        times: u32,
        /// How much later.
        after_ms: u64,
    },
    /// The next messages come twice, and only the second one is answered. A client that repeats.
    DoubleWrite {
        /// How many.
        times: u32,
    },
    /// Nothing can be stored. The stream is at its limit.
    Full {
        /// How long.
        for_ms: u64,
    },
}

impl EngineFault {
    /// The host on which it is felt first.
    pub fn host(&self) -> Host {
        match *self {
            Self::StaleLeader { host, .. }
            | Self::Isolate { host, .. }
            | Self::LagFollow { host, .. }
            | Self::BreakFollow { host }
            | Self::Redeliver { host, .. } => host,
            Self::Election { .. }
            | Self::LoseAck { .. }
            | Self::LateWrite { .. }
            | Self::DoubleWrite { .. }
            | Self::Full { .. } => Host::Engine,
        }
    }

    /// The name of the kind, for counting and in files.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Election { .. } => "election",
            Self::StaleLeader { .. } => "stale-leader",
            Self::Isolate { .. } => "isolate",
            Self::LagFollow { .. } => "lag-follow",
            Self::BreakFollow { .. } => "break-follow",
            Self::Redeliver { .. } => "redeliver",
            Self::LoseAck { .. } => "lose-ack",
            Self::LateWrite { .. } => "late-write",
            Self::DoubleWrite { .. } => "double-write",
            Self::Full { .. } => "full",
        }
    }

    /// How long it lasts; nothing if it happens at once.
    pub fn lasts_ms(&self) -> u64 {
        match *self {
            Self::Election { for_ms, .. }
            | Self::StaleLeader { for_ms, .. }
            | Self::Isolate { for_ms, .. }
            | Self::LagFollow { for_ms, .. }
            | Self::Full { for_ms } => for_ms,
            Self::BreakFollow { .. }
            | Self::Redeliver { .. }
            | Self::LoseAck { .. }
            | Self::LateWrite { .. }
            | Self::DoubleWrite { .. } => 0,
        }
    }

    /// What it does, as a sentence; `span` is a duration for a person.
    pub(crate) fn sentence(&self, span: impl Fn(u64) -> String) -> String {
        let host = self.host().name(Protocol::Events);
        match self {
            Self::Election { for_ms, lost } => {
                let what = if *lost { "is lost" } else { "is committed by the next one" };
                let span = span(*for_ms);
                format!("the engine has no leader for {span}; what was on its way {what}")
            }
            Self::StaleLeader { for_ms, .. } => {
                let span = span(*for_ms);
                format!("{host} talks to a leader of the engine that was deposed, for {span}")
            }
            Self::Isolate { held, for_ms, .. } => {
                let what = if *held { "is held up" } else { "gets lost" };
                let span = span(*for_ms);
                format!("everything between {host} and the engine {what} for {span}")
            }
            Self::LagFollow { for_ms, .. } => {
                format!("{host} is told nothing of what the log gets for {}", span(*for_ms))
            }
            Self::BreakFollow { .. } => format!("{host} loses its place in what the log gets"),
            Self::Redeliver { messages, .. } => {
                format!("{host} is told the newest {messages} messages of the log again")
            }
            Self::LoseAck { times } => {
                format!("the engine stores the next {times} messages and does not say so")
            }
            Self::LateWrite { times, after_ms } => {
                let span = span(*after_ms);
                format!("the next {times} messages reach the engine {span} late, and unanswered")
            }
            Self::DoubleWrite { times } => {
                format!("the next {times} messages reach the engine twice")
            }
            Self::Full { for_ms } => format!("the engine stores nothing for {}", span(*for_ms)),
        }
    }
}
