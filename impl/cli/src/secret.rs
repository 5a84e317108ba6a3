//! Tokens: made, hashed, and never shown by accident.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng as _;
use rand::rngs::SysRng;
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

/// A token. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How many random bytes a fresh token has.
const RANDOM_BYTES: usize = 32;

/// The shortest token that is taken from a person, in bytes. Hashes have no salt, so a token must
/// not be guessable.
const LENGTH_MIN: usize = 20;

impl Secret {
    /// 256 random bits, in characters that a URL and a header take.
    pub(crate) fn random() -> Result<Self, Failure> {
        let mut bytes = [0; RANDOM_BYTES];
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Failure::new(format!("the system has no random numbers: {error}")))?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// A token as somebody wrote it, without the white space around.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        match text {
            "" => Err(Failure::usage("the token is empty")),
            text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(Failure::usage("the token has characters that no header takes")
                    .hint("a token has printable ASCII characters and no spaces"))
            }
            text => Ok(Self(text.to_owned())),
        }
    }

    /// The first line of a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("the token file `{}` cannot be read: {error}", path.display()))
        })?;
        Self::parse(text.lines().next().unwrap_or_default())
    }

    /// Refuses what could be guessed.
    pub(crate) fn check_length(&self) -> Result<(), Failure> {
        match self.0.len() {
            0..LENGTH_MIN => Err(Failure::usage(format!(
                "the token has fewer than {LENGTH_MIN} characters and could be guessed"
            ))
            .hint("make one with `gapless token new`")),
            _ => Ok(()),
        }
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn hash(&self) -> Hash {
        hash(&self.0)
    }
}

/// What is kept of a token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hash([u8; 32]);

/// The hash of a token that came with a request.
pub(crate) fn hash(token: &str) -> Hash {
    Hash(Sha256::digest(token).into())
}

impl Hash {
    /// Reads 64 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_sha256_and_is_read_back() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash("abc").to_string(), known);
        assert!(Hash::parse(known).is_some_and(|parsed| parsed == hash("abc")));
        assert!(Hash::parse(&known[1..]).is_none());
        assert!(Hash::parse(&known.replace('b', "g")).is_none());
    }

    #[test]
    fn a_fresh_token_is_long_and_new_and_not_in_debug() {
        let (first, second) =
            (Secret::random().expect("random"), Secret::random().expect("random"));
        assert_ne!(first.reveal(), second.reveal());
        assert!(first.check_length().is_ok());
        assert!(!format!("{first:?}").contains(first.reveal()));
    }

    #[test]
    fn what_could_be_guessed_is_refused() {
        assert!(Secret::parse("short").expect("a token").check_length().is_err());
        assert!(Secret::parse("  ").is_err());
        assert!(Secret::parse("two words").is_err());
    }
}
