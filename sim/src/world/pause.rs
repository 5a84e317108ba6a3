//! Processes that are stopped for a while and then go on as if nothing had been.
//!
//! While a process is paused none of its futures is polled and its sockets move no byte. Time goes
//! on: when it wakes, everything that was due meanwhile is due at once, and what its peers sent is
//! waiting.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Whether one life of a process is paused. Shared by the world and everything in the process.
#[derive(Clone, Default)]
pub(crate) struct Pause(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    paused: bool,
    waiting: Vec<Waker>,
}

impl Pause {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the process, or lets it go on.
    pub(crate) fn set(&self, paused: bool) {
        let mut state = self.state();
        state.paused = paused;
        if !paused {
            for waker in std::mem::take(&mut state.waiting) {
                waker.wake();
            }
        }
    }

    /// Ready while the process runs.
    pub(crate) fn poll_running(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if !state.paused {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// A future that makes no progress while the process is paused.
    pub(crate) async fn apply<F: Future>(self, future: F) -> F::Output {
        let mut future = Box::pin(future);
        std::future::poll_fn(|cx| {
            std::task::ready!(self.poll_running(cx));
            Pin::new(&mut future).poll(cx)
        })
        .await
    }
}
