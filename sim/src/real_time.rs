//! Real time, for what a person or a foreign process waits for.
//!
//! Nothing that happens in a run depends on it: it says how long a sweep or a search has taken, when
//! no more of it is begun, and when an adapter has not answered in time.

use std::time::Instant;

#[expect(
    clippy::disallowed_methods,
    reason = "who waits in front of the program does so in real time; no run is told of it"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
