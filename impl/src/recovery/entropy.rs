//! Randomness that is handed in.
//!
//! A core draws its ids and its jitter from an [`Entropy`] that it gets at construction, so a seeded generator makes
//! every run repeatable.
//!
//! Deliberately absent: a generator, and access to that of the system.

/// A source of random numbers.
///
/// Every [`rand::Rng`] that is `Send` is one. Epochs and ids are as unguessable and as unique as the source behind
/// them (`[CORE-2]`).
///
/// ```
/// use gapless::recovery::{Entropy, random_hex_128};
///
/// struct Constant;
/// impl Entropy for Constant {
///     fn next_u64(&mut self) -> u64 {
///         0xab
///     }
/// }
/// assert_eq!(random_hex_128(&mut Constant), "00000000000000ab00000000000000ab");
/// ```
pub trait Entropy: Send {
    /// The next 64 random bits.
    fn next_u64(&mut self) -> u64;
}

impl<R: rand::Rng + Send> Entropy for R {
    fn next_u64(&mut self) -> u64 {
        rand::Rng::next_u64(self)
    }
}

/// 128 random bits as 32 lower-case hexadecimal digits.
#[must_use]
pub fn random_hex_128(entropy: &mut dyn Entropy) -> String {
    format!("{:016x}{:016x}", entropy.next_u64(), entropy.next_u64())
}
