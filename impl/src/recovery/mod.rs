//! The building blocks of recovery, each written once and used by every protocol core.
//!
//! Nothing here does input or output, reads a clock, draws randomness of its own or starts a thread.
//! Time comes in as an [`Instant`], randomness as an [`Entropy`]: the same calls give the same answers.
//!
//! Deliberately absent: wire formats, storage, and everything that is particular to one protocol.
//!
//! | block | question that it answers | statements |
//! |---|---|---|
//! | [`Epoch`], [`Cursor`] | where is this receiver? | `[CORE-1]` `[CORE-2]` `[CORE-3]` |
//! | [`Lineage`] | is that cursor still continuous with the log? | `[CORE-2]` `[CORE-4]` |
//! | [`ReplayRing`] | can it be served from memory? | `[CORE-4]` `[CORE-5]` `[EV-1]` |
//! | [`Range`] | which numbers? | `[CORE-4]` |
//! | [`SequenceTracker`] | is this frame the next one? | `[CORE-3]` `[CORE-6]` |
//! | [`SeenIds`] | was this id handled before? | `[CORE-12]` |
//! | [`Liveness`] | is the peer still there? | `[CORE-10]` |
//! | [`Backoff`] | when is the next attempt? | `[CORE-11]` |
//! | [`Generations`] | which connection of an identity is the live one? | `[CORE-9]` |
//! | [`Timers`] | what is due next? | `[CORE-10]` `[CORE-11]` |
//! | [`Instant`], [`WallTime`] | when? | `[CORE-10]` |

pub mod backoff;
pub mod cursor;
pub mod entropy;
pub mod generation;
pub mod lineage;
pub mod liveness;
pub mod range;
pub mod ring;
pub mod seen;
pub mod time;
pub mod timers;
pub mod tracker;

pub use backoff::{Backoff, BackoffConfig};
pub use cursor::{Cursor, Epoch, InvalidEpoch, MAX_SEQUENCE};
pub use entropy::{Entropy, random_hex_128};
pub use generation::{Accepted, Generation, Generations};
pub use lineage::{EpochStart, Lineage, Verdict};
pub use liveness::{Liveness, LivenessAction, LivenessConfig};
pub use range::Range;
pub use ring::{ReplayRing, RingAnswer, RingLimits};
pub use seen::SeenIds;
pub use time::{Instant, WallTime};
pub use timers::Timers;
pub use tracker::{Observed, SequenceTracker};
