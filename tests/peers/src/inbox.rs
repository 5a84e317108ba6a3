//! What a receiver does with an event: it parses it, counts it, and notes when it was done.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Deserialize;

use crate::tally::{Counts, Tally};

/// How many bytes the payload of an event has.
pub(crate) const PAYLOAD_BYTES: usize = 200;

/// The payload with a number: a JSON object of [`PAYLOAD_BYTES`].
pub(crate) fn payload(number: u64) -> String {
    let mut text = format!(r#"{{"n":{number},"pad":""#);
    let pad = PAYLOAD_BYTES - text.len() - 2;
    // Writing to a string cannot fail.
    let _ = write!(text, r#"{:x<pad$}"}}"#, "");
    text
}

/// The number of an event, if its payload is whole.
pub(crate) fn number(event: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Payload<'a> {
        n: u64,
        #[serde(borrow)]
        pad: Cow<'a, str>,
    }
    let Payload { n, pad } = serde_json::from_slice(event).ok()?;
    let digits = n.checked_ilog10().unwrap_or(0) as usize + 1;
    (pad.len() + digits + r#"{"n":,"pad":""}"#.len() == PAYLOAD_BYTES).then_some(n)
}

/// The time that everything is measured with.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Where the events of one receiver go; it outlives its connections.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    tally: Tally,
    /// What it waits for.
    last: u64,
    complete: Option<Instant>,
}

impl Inbox {
    /// The handler of an event. What cannot be read counts as foreign.
    pub(crate) fn take(&self, event: &[u8]) {
        let mut state = self.state();
        state.tally.see(number(event).unwrap_or(0));
        if state.complete.is_none() && state.tally.contiguous() >= state.last {
            state.complete = Some(now());
        }
    }

    /// Waits from now on for everything up to `last`.
    pub(crate) fn expect(&self, last: u64) {
        let mut state = self.state();
        state.last = last;
        state.complete = None;
        let missing = last.saturating_sub(state.tally.contiguous());
        state.tally.reserve(usize::try_from(missing).unwrap_or(0));
    }

    /// When the last one was handled, if none is missing.
    pub(crate) fn complete(&self) -> Option<Instant> {
        self.state().complete
    }

    /// The number that a receiver resumes after.
    pub(crate) fn position(&self) -> u64 {
        self.state().tally.contiguous()
    }

    pub(crate) fn arrived(&self) -> usize {
        self.state().tally.arrived()
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state();
        state.tally.counts(state.last)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_size_and_its_number_whatever_that_is() {
        for n in [0, 1, 9, 10, 100_000, u64::MAX] {
            let payload = payload(n);
            assert_eq!(payload.len(), PAYLOAD_BYTES);
            assert_eq!(number(payload.as_bytes()), Some(n));
        }
    }

    #[test]
    fn a_payload_that_is_not_whole_has_no_number() {
        let short = payload(7).replace("xx", "x");
        assert_eq!(number(short.as_bytes()), None);
        assert_eq!(number(&payload(7).as_bytes()[..100]), None);
    }

    #[test]
    fn an_inbox_is_complete_with_the_last_missing_event_and_not_before() {
        let inbox = Inbox::default();
        inbox.expect(3);
        for n in [1, 3] {
            inbox.take(payload(n).as_bytes());
        }
        assert_eq!(inbox.complete(), None);
        inbox.take(payload(2).as_bytes());
        assert!(inbox.complete().is_some());
        assert_eq!(inbox.counts(), Counts { expected: 3, swapped: 1, ..Counts::default() });
    }

    #[test]
    fn what_cannot_be_read_is_foreign() {
        let inbox = Inbox::default();
        inbox.expect(0);
        inbox.take(b"{}");
        assert_eq!(inbox.counts().foreign, 1);
    }
}
