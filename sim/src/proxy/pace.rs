//! How fast a real connection moves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

/// How fast the connections of a link move. In the simulated network that is turmoil's matter.
#[derive(Clone, Default)]
pub(crate) struct Pace(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    held: bool,
    latency: Duration,
    waiting: Vec<Waker>,
}

impl Pace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waiting = {
            let mut state = self.state();
            change(&mut state);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Lets nothing move, or everything that waits.
    pub(crate) fn hold(&self, held: bool) {
        self.change(|state| state.held = held);
    }

    /// Sets how long bytes are on their way, one way.
    pub(crate) fn set_latency(&self, latency: Duration) {
        self.change(|state| state.latency = latency);
    }

    /// Whether nothing moves, and how long bytes are on their way; the caller is woken when that
    /// changes.
    pub(super) fn look(&self, cx: &Context<'_>) -> (bool, Duration) {
        let mut state = self.state();
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        (state.held, state.latency)
    }
}
