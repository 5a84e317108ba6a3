//! Is the peer still there?
//!
//! Any inbound frame counts as life, and a silent link is dropped after a bounded time (`[CORE-10]`). A backlog is not
//! punished: the pong timer starts when the ping is written, not when it is queued, and a link that delivers frames is
//! alive even while it takes none.
//!
//! Deliberately absent: sending pings and closing links, which is the caller's, and the round-trip time.

use std::time::Duration;

use super::Instant;

/// The spans of a [`Liveness`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LivenessConfig {
    /// From one ping to the next; below 1 ms counts as 1 ms.
    pub ping_every: Duration,
    /// How long a link may be silent after a ping was written.
    pub pong_timeout: Duration,
}

/// The judge of one link.
///
/// Before [`handle_timeout`](Self::handle_timeout), hand in what has arrived: a frame in hand is proof of life.
/// After any call, [`deadline`](Self::deadline) may have changed.
///
/// ```
/// use std::time::Duration;
/// use gapless::recovery::{Instant, Liveness, LivenessAction, LivenessConfig};
///
/// let at = Instant::from_millis;
/// let config = LivenessConfig {
///     ping_every: Duration::from_millis(100),
///     pong_timeout: Duration::from_millis(30),
/// };
/// let mut liveness = Liveness::new(config, at(0));
/// assert_eq!(liveness.handle_timeout(at(100)), LivenessAction::SendPing);
/// liveness.on_ping_written(at(105));
/// assert_eq!(liveness.deadline(), Some(at(135)));
/// assert_eq!(liveness.handle_timeout(at(135)), LivenessAction::Dead);
/// ```
#[derive(Clone, Debug)]
pub struct Liveness {
    config: LivenessConfig,
    next_ping: Instant,
    /// Set while a ping is asked for and not yet written.
    write_due: Option<Instant>,
    /// Set while a ping is written and nothing has arrived since.
    pong_due: Option<Instant>,
    is_paused: bool,
}

impl Liveness {
    /// A link that opened at `now`. The first ping is due `ping_every` later.
    #[must_use]
    pub fn new(config: LivenessConfig, now: Instant) -> Self {
        let ping_every = config.ping_every.max(Duration::from_millis(1));
        let config = LivenessConfig { ping_every, ..config };
        Self {
            config,
            next_ping: now + ping_every,
            write_due: None,
            pong_due: None,
            is_paused: false,
        }
    }

    /// A frame of any kind arrived.
    pub fn on_inbound(&mut self, now: Instant) {
        self.pong_due = None;
        self.restart_write_timer(now);
    }

    /// The ping that was asked for went out.
    ///
    /// A later ping does not extend the time of an unanswered earlier one.
    pub fn on_ping_written(&mut self, now: Instant) {
        self.write_due = None;
        self.pong_due.get_or_insert(now + self.config.pong_timeout);
    }

    /// We stop reading: silence proves nothing from here on. Pings go on, so that the peer knows that we live.
    ///
    /// The time is taken for uniformity only: what counts is when reading is resumed.
    pub const fn pause(&mut self, _now: Instant) {
        self.is_paused = true;
    }

    /// We read again: an unanswered ping gets its full time anew. Changes nothing if we never stopped.
    pub fn resume(&mut self, now: Instant) {
        if !self.is_paused {
            return;
        }
        self.is_paused = false;
        if self.pong_due.is_some() {
            self.pong_due = Some(now + self.config.pong_timeout);
        }
        self.restart_write_timer(now);
    }

    /// What is to be done at `now`. Harmless when nothing is due.
    ///
    /// [`Dead`](LivenessAction::Dead) is final: the caller drops the link.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Instant) -> LivenessAction {
        if self.death_due().is_some_and(|due| due <= now) {
            return LivenessAction::Dead;
        }
        if now < self.next_ping {
            return LivenessAction::None;
        }
        self.next_ping = now + self.config.ping_every;
        if self.write_due.is_some() {
            // A second ping behind one that is stuck would prove nothing more.
            return LivenessAction::None;
        }
        self.write_due = Some(now + self.write_timeout());
        LivenessAction::SendPing
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    ///
    /// There is always a next ping, so this is never `None`; the type is that of every core's deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.death_due().into_iter().chain([self.next_ping]).min()
    }

    fn death_due(&self) -> Option<Instant> {
        if self.is_paused {
            return None;
        }
        self.pong_due.into_iter().chain(self.write_due).min()
    }

    fn restart_write_timer(&mut self, now: Instant) {
        if self.write_due.is_some() {
            self.write_due = Some(now + self.write_timeout());
        }
    }

    fn write_timeout(&self) -> Duration {
        self.config.ping_every.saturating_add(self.config.pong_timeout)
    }
}

/// What a [`Liveness`] asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LivenessAction {
    /// Nothing is due.
    None,
    /// Write a ping, then call [`Liveness::on_ping_written`].
    SendPing,
    /// The link was silent, or could not even be written, for too long.
    Dead,
}
