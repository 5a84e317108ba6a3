//! Time for the cores.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Sleep;

use crate::recovery::{Instant, WallTime};

/// Monotonic time since the driver was started, from tokio's clock, and the timer of its core.
///
/// It is never carried over a restart of the process.
#[derive(Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
    /// Kept from one wait to the next: most deadlines move away before they come, and a timer that is
    /// moved away is not registered anew.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Clock {
    /// A clock that shows zero now.
    pub fn start() -> Self {
        // Tokio's clock, which a simulation replaces by a virtual one: the same for each run of a seed.
        Self { origin: tokio::time::Instant::now(), timer: None }
    }

    /// The time since the clock was started.
    pub fn now(&self) -> Instant {
        let elapsed = self.origin.elapsed().as_millis();
        Instant::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Sleeps until the clock shows `deadline`; for ever without one.
    ///
    /// Cancel safe: whoever waits again, waits for what they then name.
    pub async fn sleep_until(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return std::future::pending().await };
        let at = self.origin + Duration::from_millis(deadline.as_millis());
        let (armed, sleep) =
            self.timer.get_or_insert_with(|| (deadline, Box::pin(tokio::time::sleep_until(at))));
        if *armed != deadline {
            *armed = deadline;
            sleep.as_mut().reset(at);
        }
        sleep.await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_at_the_deadline_that_it_names() {
        let mut clock = Clock::start();
        let at = Instant::from_millis;
        for (deadlines, ends) in
            [(&[50][..], 50), (&[90, 70, 80], 80), (&[80], 80), (&[200, 300], 300), (&[10], 300)]
        {
            let (last, before) = deadlines.split_last().expect("not empty");
            for deadline in before {
                let wait = clock.sleep_until(Some(at(*deadline)));
                assert!(tokio::time::timeout(Duration::ZERO, wait).await.is_err());
            }
            clock.sleep_until(Some(at(*last))).await;
            assert_eq!(clock.now(), at(ends), "{deadlines:?}");
        }
        let wait = clock.sleep_until(None);
        assert!(tokio::time::timeout(Duration::from_secs(3600), wait).await.is_err());
    }
}
