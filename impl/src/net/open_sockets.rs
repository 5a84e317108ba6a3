//! How many WebSockets a service has open.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts the WebSockets of a service, from the handshake to the last byte of the goodbye.
#[derive(Debug, Clone)]
pub struct OpenSockets(Arc<watch::Sender<usize>>);

impl Default for OpenSockets {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl OpenSockets {
    /// How many are open now.
    pub fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until none is open. Whoever calls it sets the time limit.
    pub async fn none(&self) {
        // The sender is in `self`, so it cannot be gone.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Counts one until the returned value is dropped.
    pub(crate) fn enter(&self) -> OpenSocket {
        self.0.send_modify(|count| *count += 1);
        OpenSocket(self.clone())
    }
}

/// A WebSocket that is open.
#[derive(Debug)]
pub(crate) struct OpenSocket(OpenSockets);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
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
