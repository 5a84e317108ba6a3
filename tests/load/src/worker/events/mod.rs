//! Publishers and subscribers.
//!
//! A publisher publishes `n` 1, 2, 3, … with an id made of it. Where a stream has one publisher, the
//! number of an event in its stream has to be its `n`, for the publisher as for each subscriber; where
//! it has several, each of them has to be there from 1 on. So whatever is lost, doubled or reordered,
//! and wherever, makes a difference.

mod publisher;
mod subscriber;

use std::borrow::Cow;

use gapless::AgentId;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub(crate) use self::publisher::{Published, begin};
pub(crate) use self::subscriber::{Subscriber, subscribe};
use crate::failure::Result;
use crate::mix::Mix;

/// How long the filling of an event is, at most.
const PAD_BYTES_MAX: u64 = 300;

fn stream_id(stream: usize) -> Result<AgentId> {
    Ok(AgentId::parse(&format!("stream-{stream}"))?)
}

/// Which stream a subscriber reads.
pub(crate) fn stream_of(mix: &Mix, subscriber: usize) -> usize {
    subscriber % mix.streams()
}

/// An event, as its publisher calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    stream: u64,
    /// Which of the stream's publishers it is of.
    publisher: u64,
    n: u64,
}

#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    stream: u64,
    publisher: u64,
    n: u64,
    #[serde(borrow)]
    pad: Cow<'a, str>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
}

impl Name {
    fn digest(self, pad: &str) -> String {
        let Self { stream, publisher, n } = self;
        let hash = Sha256::digest(format!("{stream} {publisher} {n} {pad}"));
        hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn payload(self) -> String {
        let Self { stream, publisher, n } = self;
        let mut rng = ChaCha12Rng::seed_from_u64(stream << 40 ^ publisher << 32 ^ n);
        let length = rng.random_range(0..=PAD_BYTES_MAX);
        let pad: String = (0..length).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
        let digest = self.digest(&pad).into();
        let payload = Payload { stream, publisher, n, pad: pad.into(), digest };
        serde_json::to_string(&payload).expect("a payload is always JSON")
    }

    /// Which event it is, if it is as somebody published it in this stream.
    fn read(in_stream: u64, event: &[u8]) -> Option<Self> {
        let Payload { stream, publisher, n, pad, digest } = serde_json::from_slice(event).ok()?;
        let name = Self { stream, publisher, n };
        (stream == in_stream && digest == name.digest(&pad)).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_only_as_it_was_published_and_in_its_stream() {
        for n in [1, 7, 100_000] {
            let name = Name { stream: 3, publisher: 1, n };
            let text = name.payload();
            assert_eq!(Name::read(3, text.as_bytes()), Some(name));
            assert_eq!(Name::read(4, text.as_bytes()), None, "another stream's");
            for (is, would_be) in [("\"n\":", "\"n\":1"), ("\"publisher\":1", "\"publisher\":0")] {
                let other = text.replace(is, would_be);
                assert_eq!(Name::read(3, other.as_bytes()), None, "its digest says another name");
            }
            assert_eq!(Name::read(3, &text.as_bytes()[..text.len() - 2]), None, "it is cut");
        }
    }
}
