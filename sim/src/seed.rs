//! Seeds, and the streams of random numbers that are derived from them.

use std::fmt;
use std::str::FromStr;

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use sha2::{Digest, Sha256};

/// The number from which a run follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(pub u64);

/// The text is no seed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a seed: write `42`, `0x2a`, `SEED=42`, or a commit of 40 hexadecimal digits")]
pub struct InvalidSeed(pub String);

impl FromStr for Seed {
    type Err = InvalidSeed;

    /// Takes `42`, `0x2a`, `SEED=42`, `seed=42`, and a commit hash (its last 64 bits).
    fn from_str(text: &str) -> Result<Self, InvalidSeed> {
        let invalid = || InvalidSeed(text.to_owned());
        let digits =
            text.strip_prefix("SEED=").or_else(|| text.strip_prefix("seed=")).unwrap_or(text);
        if digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return u64::from_str_radix(&digits[24..], 16).map(Self).map_err(|_| invalid());
        }
        let (digits, radix) = match digits.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (digits, 10),
        };
        // `from_str_radix` would take a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        u64::from_str_radix(digits, radix).map(Self).map_err(|_| invalid())
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Seed {
    /// The seed of the `index`-th run of a sweep; it reproduces that run alone.
    pub fn derive(self, index: u64) -> Self {
        let digest = digest(self, "sweep", "", index);
        Self(u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes")))
    }

    /// The random numbers for one purpose on one host in one incarnation. Another draw in one
    /// place moves no draw in any other.
    pub fn stream(self, purpose: &str, host: &str, incarnation: u64) -> ChaCha12Rng {
        ChaCha12Rng::from_seed(digest(self, purpose, host, incarnation))
    }
}

fn digest(seed: Seed, purpose: &str, host: &str, number: u64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.0.to_le_bytes());
    for text in [purpose, host] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(number.to_le_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_a_seed_are_read() {
        for text in ["42", "0x2a", "SEED=42", "seed=0x2a"] {
            assert_eq!(text.parse(), Ok(Seed(42)), "{text}");
        }
        let commit = "52ad553f00000000000000000000000000000abc";
        assert_eq!(commit.parse(), Ok(Seed(0xabc)));
    }

    #[test]
    fn what_is_no_seed_is_refused() {
        for text in ["", "nope", "-1", "+1", "0x", "SEED=", "1.5", "18446744073709551616", "4 2"] {
            assert!(text.parse::<Seed>().is_err(), "{text}");
        }
    }

    #[test]
    fn derived_streams_are_independent() {
        use rand::Rng;
        let seed = Seed(1);
        let first = |purpose, host, number| seed.stream(purpose, host, number).next_u64();
        assert_ne!(first("a", "b", 0), first("ab", "", 0));
        assert_ne!(first("a", "b", 0), first("a", "b", 1));
        assert_eq!(first("a", "b", 0), first("a", "b", 0));
        assert_ne!(seed.derive(0), seed.derive(1));
    }
}
