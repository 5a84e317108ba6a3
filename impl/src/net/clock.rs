//! Time for the cores.

use std::sync::Arc;
use std::time::Duration;

use crate::recovery::{Instant, WallTime};

/// Monotonic time since the driver was started, from tokio's clock.
///
/// It is never carried over a restart of the process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    /// A clock that shows zero now.
    pub fn start() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }

    /// The time since the clock was started.
    pub fn now(&self) -> Instant {
        let elapsed = self.origin.elapsed().as_millis();
        Instant::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Sleeps until the clock shows `deadline`; for ever without one.
    pub async fn sleep_until(&self, deadline: Option<Instant>) {
        match deadline {
            Some(at) => {
                tokio::time::sleep_until(self.origin + Duration::from_millis(at.as_millis())).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Where wall time comes from: for display and for foreign cursors, never for ordering.
pub trait WallClock: Send + Sync + 'static {
    /// The wall time now.
    fn wall_time(&self) -> WallTime;
}

impl<W: WallClock + ?Sized> WallClock for Arc<W> {
    fn wall_time(&self) -> WallTime {
        (**self).wall_time()
    }
}

/// The operating system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where production reads wall time")]
    fn wall_time(&self) -> WallTime {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        WallTime::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}
