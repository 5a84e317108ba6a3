//! How many WebSockets a service has open, and with which codes it has closed others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::CloseCode;

/// Counts the WebSockets of a service, from the handshake to the last byte of the goodbye.
#[derive(Debug, Clone)]
pub struct OpenSockets(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    open: watch::Sender<usize>,
    closes: Mutex<BTreeMap<CloseCode, u64>>,
}

impl Default for OpenSockets {
    fn default() -> Self {
        let (open, closes) = (watch::Sender::new(0), Mutex::default());
        Self(Arc::new(Counts { open, closes }))
    }
}

impl OpenSockets {
    /// How many are open now.
    pub fn count(&self) -> usize {
        *self.0.open.borrow()
    }

    /// With which codes this side has closed sockets, and how many with each.
    pub fn closes(&self) -> BTreeMap<CloseCode, u64> {
        self.0.closes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts one that this side closes.
    pub(crate) fn closed(&self, code: CloseCode) {
        let mut closes = self.0.closes.lock().unwrap_or_else(PoisonError::into_inner);
        *closes.entry(code).or_default() += 1;
    }

    /// Waits until none is open. Whoever calls it sets the time limit.
    pub async fn none(&self) {
        // The sender is in `self`, so it cannot be gone.
        let _ = self.0.open.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Counts one until the returned value is dropped.
    pub(crate) fn enter(&self) -> OpenSocket {
        self.0.open.send_modify(|count| *count += 1);
        OpenSocket(self.clone())
    }
}

/// A WebSocket that is open.
#[derive(Debug)]
pub(crate) struct OpenSocket(OpenSockets);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.0.open.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_none_waits_for_the_last_one() {
        let sockets = OpenSockets::default();
        let (first, second) = (sockets.enter(), sockets.enter());
        assert_eq!(sockets.count(), 2);
        drop(first);
        let waiting = tokio::spawn({
            let sockets = sockets.clone();
            async move { sockets.none().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.expect("it ends");
    }
}
