//! How long to wait before the next attempt.
//!
//! Exponential with jitter, and it never stops for good (`[CORE-11]`).
//!
//! Deliberately absent: the decision that an attempt succeeded. The caller calls [`Backoff::reset`] when a session
//! became active, not when a connection was merely opened.

use std::time::Duration;

use super::Entropy;

/// The shape of a [`Backoff`]. Spans count in whole milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackoffConfig {
    /// The first delay, before jitter.
    pub min: Duration,
    /// The longest delay, before jitter. It wins over `min`.
    pub max: Duration,
    /// How far a delay may be off to either side, in percent; above 100 counts as 100.
    pub jitter_percent: u32,
}

/// Delays that double from `min` to `max`.
///
/// ```
/// use std::time::Duration;
/// use gapless::recovery::{Backoff, BackoffConfig};
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
///
/// let mut entropy = ChaCha8Rng::seed_from_u64(7);
/// let mut backoff = Backoff::new(BackoffConfig {
///     min: Duration::from_secs(1),
///     max: Duration::from_secs(3),
///     jitter_percent: 0,
/// });
/// let delays = [(); 4].map(|()| backoff.next_delay(&mut entropy).as_secs());
/// assert_eq!(delays, [1, 2, 3, 3]);
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    min_ms: u64,
    max_ms: u64,
    jitter_percent: u64,
    attempts: u32,
}

impl Backoff {
    /// A backoff whose next delay is the first.
    #[must_use]
    pub fn new(config: BackoffConfig) -> Self {
        Self {
            min_ms: whole_millis(config.min),
            max_ms: whole_millis(config.max),
            jitter_percent: u64::from(config.jitter_percent.min(100)),
            attempts: 0,
        }
    }

    /// The delay before the next attempt: uniform within the jitter around the span that is due, and at least 1 ms.
    pub fn next_delay(&mut self, entropy: &mut dyn Entropy) -> Duration {
        let factor = 1_u64.checked_shl(self.attempts).unwrap_or(u64::MAX);
        let span_ms = self.min_ms.saturating_mul(factor).min(self.max_ms);
        self.attempts = self.attempts.saturating_add(1);

        let spread_ms = span_ms * self.jitter_percent / 100;
        let delay_ms = span_ms - spread_ms + below(2 * spread_ms + 1, entropy);
        Duration::from_millis(delay_ms.max(1))
    }

    /// Starts over, after a session became active.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Delays given since the last reset.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// Far beyond any sensible delay, and far enough from the end of `u64` for the arithmetic above.
const SPAN_MS_MAX: u64 = 1 << 53;

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).clamp(1, SPAN_MS_MAX)
}

/// A number in `0..bound`. Maps the whole range of a draw, so its bias is below bound / 2^64.
fn below(bound: u64, entropy: &mut dyn Entropy) -> u64 {
    let scaled = (u128::from(entropy.next_u64()) * u128::from(bound)) >> 64;
    u64::try_from(scaled).expect("a product of two u64, shifted by 64 bits, is a u64")
}
