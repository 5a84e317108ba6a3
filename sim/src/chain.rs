//! A hash over a run of events, in constant space.
//!
//! The chain of a run is h ← h·B + digest modulo a prime, event after event. Whoever appends keeps
//! it from the beginning of the stream; whoever handles events keeps it from where it was last told
//! that something is missing. From two prefixes of the former follows the chain of what is between,
//! so both can be compared wherever the latter began: loss, order and content, anywhere in the run,
//! with two numbers.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use gapless::events::wire::EventBody;
use serde::{Deserialize, Serialize};

/// 2^61 - 1, a prime.
const PRIME: u64 = (1 << 61) - 1;

/// Any number below the prime that is not small.
const BASE: u64 = 0x0eb6_9a3c_5d1f_0b27;

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) % u128::from(PRIME);
    u64::try_from(product).expect("less than the prime")
}

fn plus(a: u64, b: u64) -> u64 {
    (a + b) % PRIME
}

/// B to the power of `exponent`.
fn power(mut exponent: u64) -> u64 {
    let (mut result, mut square) = (1, BASE);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        exponent /= 2;
    }
    result
}

/// What an event is, without its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    /// Of an event as it is published and stored.
    pub(crate) fn of_body(body: &EventBody) -> Self {
        Self::of_stored(body.as_str())
    }

    /// The same of its text.
    pub(crate) fn of_stored(text: &str) -> Self {
        Self::of(text.strip_prefix('{').unwrap_or(text))
    }

    /// Of an event as it arrives: its number comes first.
    pub(crate) fn of_event(text: &str) -> Self {
        Self::of(text.split_once(',').map_or(text, |(_, rest)| rest))
    }

    fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        Self(hasher.finish() % PRIME)
    }

    /// For a database column.
    pub(crate) fn to_i64(self) -> i64 {
        i64::try_from(self.0).expect("less than 2^61")
    }

    /// The other way round.
    pub(crate) fn from_i64(number: i64) -> Self {
        Self(u64::try_from(number).unwrap_or(0) % PRIME)
    }
}

/// The chain of a run of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The number of the first event.
    pub from: u64,
    /// The number of the last event.
    pub to: u64,
    /// The hash over all of them in their order.
    pub hash: u64,
}

impl Chain {
    /// The chain of one event.
    pub(crate) fn begin(sequence: u64, digest: Digest) -> Self {
        Self { from: sequence, to: sequence, hash: digest.0 }
    }

    /// Goes on with an event, whatever its number.
    pub(crate) fn extend(&mut self, sequence: u64, digest: Digest) {
        self.to = sequence;
        self.hash = plus(times(self.hash, BASE), digest.0);
    }
}

/// The chains of a stream from its beginning to each of its numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefixes(Vec<u64>);

impl Prefixes {
    /// The highest number.
    pub(crate) fn head(&self) -> u64 {
        self.0.len() as u64
    }

    /// The event of a number. One that follows no other tells nothing.
    pub(crate) fn append(&mut self, sequence: u64, digest: Digest) {
        self.cut(sequence - 1);
        if self.head() == sequence - 1 {
            let before = self.0.last().copied().unwrap_or(0);
            self.0.push(plus(times(before, BASE), digest.0));
        }
    }

    /// Numbers above this one are gone.
    pub(crate) fn cut(&mut self, head: u64) {
        self.0.truncate(usize::try_from(head).unwrap_or(usize::MAX));
    }

    /// The chain of a run, as far as it is known.
    pub(crate) fn between(&self, from: u64, to: u64) -> Option<u64> {
        let at = |sequence: u64| match sequence {
            0 => Some(0),
            _ => self.0.get(usize::try_from(sequence - 1).ok()?).copied(),
        };
        let (before, whole) = (at(from.checked_sub(1)?)?, at(to)?);
        let before = times(before, power(to.checked_sub(from)? + 1));
        Some(plus(whole, PRIME - before))
    }
}

/// The prefixes of all streams.
pub(crate) type Streams = BTreeMap<u32, Prefixes>;

#[cfg(test)]
mod tests {
    use super::{Chain, Digest, Prefixes};

    fn digest(of: u64) -> Digest {
        Digest::of(&of.to_string())
    }

    fn prefixes(head: u64) -> Prefixes {
        let mut prefixes = Prefixes::default();
        (1..=head).for_each(|sequence| prefixes.append(sequence, digest(sequence)));
        prefixes
    }

    fn chain(events: impl IntoIterator<Item = u64>) -> Chain {
        let mut events = events.into_iter();
        let first = events.next().expect("one event at least");
        let mut chain = Chain::begin(first, digest(first));
        events.for_each(|sequence| chain.extend(sequence, digest(sequence)));
        chain
    }

    #[test]
    fn a_run_from_anywhere_has_the_chain_of_the_stream() {
        let prefixes = prefixes(40);
        for (from, to) in [(1, 40), (7, 7), (12, 39)] {
            assert_eq!(prefixes.between(from, to), Some(chain(from..=to).hash));
        }
        assert_eq!(prefixes.between(3, 41), None);
    }

    #[test]
    fn loss_order_and_content_show() {
        let prefixes = prefixes(10);
        let whole = prefixes.between(1, 6);
        assert_ne!(whole, Some(chain([1, 2, 3, 5, 6]).hash), "4 is lost");
        assert_ne!(whole, Some(chain([1, 2, 4, 3, 5, 6]).hash), "3 and 4 are swapped");
        assert_ne!(whole, Some(chain([1, 2, 3, 4, 4, 5, 6]).hash), "4 comes twice");
        let mut other = chain(1..=5);
        other.extend(6, digest(60));
        assert_ne!(whole, Some(other.hash), "6 is another");
    }

    #[test]
    fn a_stream_that_went_back_goes_on_from_there() {
        let mut prefixes = prefixes(10);
        prefixes.append(5, digest(50));
        assert_eq!(prefixes.head(), 5);
        assert_ne!(prefixes.between(1, 5), Some(chain(1..=5).hash));
        assert_eq!(prefixes.between(1, 4), Some(chain(1..=4).hash));
    }

    #[test]
    fn the_number_is_no_part_of_the_digest() {
        use gapless::events::wire::{Event, EventBody};
        let payload = serde_json::value::RawValue::from_string(r#"{"key":"k"}"#.to_owned());
        let body = EventBody::new(Some("i"), "note", &payload.expect("JSON"), 1_000);
        let body = body.expect("an event");
        let event = Event::stamped(12, &body);
        assert_eq!(Digest::of_event(event.text()), Digest::of_body(&body));
    }
}
