//! What the application does, one thing at a time.

use futures_util::FutureExt as _;

use crate::net::BoxFuture;

/// The place of a future, which may be empty.
pub(super) struct Work<T>(Option<BoxFuture<'static, T>>);

impl<T> Work<T> {
    /// Nothing is being done.
    pub(super) const fn idle() -> Self {
        Self(None)
    }

    pub(super) const fn is_running(&self) -> bool {
        self.0.is_some()
    }

    /// Begins, instead of what is being done.
    pub(super) fn begin(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.0 = Some(Box::pin(future));
    }

    /// Waits until it is done; for ever if there is nothing to do. Cancel safe.
    pub(super) async fn done(&mut self) -> T {
        let result = match &mut self.0 {
            Some(future) => future.await,
            None => std::future::pending().await,
        };
        self.0 = None;
        result
    }

    /// The result, if it needs no waiting.
    pub(super) fn done_at_once(&mut self) -> Option<T> {
        self.done().now_or_never()
    }
}
