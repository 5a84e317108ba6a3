//! The numbered frames for one client, and the answer to its cursor.

use crate::mark;
use crate::recovery::{
    Cursor, Entropy, Epoch, Generation, Instant, MAX_SEQUENCE, ReplayRing, RingLimits,
};
use crate::session::ConnectionId;
use crate::session::server::Attempt;
use crate::session::wire::{Begin, Body, CursorVerdict};

/// The number up to which a base client's cursor is taken for where its outbox begins. Beyond
/// it, too few numbers would be left.
const BASE_START_MAX: u64 = 1 << 52;

/// What a client said about where it is.
#[derive(Debug, Clone)]
pub(super) struct Since {
    pub(super) number: u64,
    pub(super) epoch: Option<Epoch>,
}

/// The frames for one identity, in memory.
pub(super) struct Outbox {
    epoch: Epoch,
    /// Whether the frames are for a client that speaks the extension. Base clients get fewer, so
    /// their numbers are others.
    extension: bool,
    ring: ReplayRing<Body>,
    /// Nothing was ever numbered for a client.
    fresh: bool,
    /// The connection that is live.
    pub(super) live: Option<(ConnectionId, Generation)>,
    /// The newest attempt to connect that was accepted.
    pub(super) attempt: Option<Attempt>,
    /// Since when there is no connection.
    pub(super) idle_since: Instant,
}

impl Outbox {
    pub(super) fn new(
        now: Instant,
        limits: RingLimits,
        extension: bool,
        entropy: &mut dyn Entropy,
    ) -> Self {
        Self {
            epoch: Epoch::random(entropy),
            extension,
            ring: ReplayRing::new(limits),
            fresh: true,
            live: None,
            attempt: None,
            idle_since: now,
        }
    }

    pub(super) fn extension(&self) -> bool {
        self.extension
    }

    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The highest number.
    pub(super) fn last(&self) -> u64 {
        self.ring.last()
    }

    /// Whether there is no number left for a frame.
    pub(super) fn is_exhausted(&self) -> bool {
        self.last() >= MAX_SEQUENCE
    }

    pub(super) fn get(&self, number: u64) -> Option<&Body> {
        self.ring.get(number)
    }

    /// Gives the next number to a frame. A base client's outbox takes no frame that the base
    /// contract does not have.
    pub(super) fn push(&mut self, now: Instant, body: Body) {
        if self.is_exhausted() || (body.is_extension() && !self.extension) {
            return;
        }
        let before = self.ring.len();
        self.ring.push(now, self.last() + 1, body.cost(), body);
        if self.ring.len() <= before {
            mark!("session.ring_overflow");
        }
    }

    /// What the cursor is worth, and the numbers of what follows [SE-1a].
    pub(super) fn judge(&self, since: &Since) -> Begin {
        let of_this_outbox = match (&since.epoch, self.extension) {
            (Some(epoch), _) => *epoch == self.epoch,
            // The base contract has no epochs; its numbers are taken as they are.
            (None, extension) => !extension,
        };
        let verdict = if since.number == 0 || self.fresh {
            CursorVerdict::Unknown
        } else if !of_this_outbox {
            CursorVerdict::OtherEpoch
        } else {
            let cursor = Cursor::new(self.epoch.clone(), since.number);
            self.ring.answer_cursor(&cursor, &self.epoch).into()
        };
        let (from, to) = match verdict.is_history() {
            false => (since.number + 1, self.last()),
            true => {
                let number = self.history_number(since);
                (number, number)
            }
        };
        Begin { epoch: self.epoch.clone(), verdict, from, to }
    }

    /// The number of a history for this cursor. A base client takes a lower number than its own
    /// for a repetition, so its count goes on from there.
    fn history_number(&self, since: &Since) -> u64 {
        let heard = match self.extension {
            false if since.number <= BASE_START_MAX => since.number,
            _ => 0,
        };
        self.last().max(heard) + 1
    }

    /// A history goes out under this number. It is not kept, and neither is what it covers: a
    /// cursor below it gets a fresh one [SE-1d].
    pub(super) fn begin_after_history(&mut self, limits: RingLimits, number: u64) {
        self.ring = ReplayRing::starting_after(limits, number);
        self.fresh = false;
    }

    /// The client has applied everything up to the number.
    pub(super) fn prune_through(&mut self, number: u64) {
        self.ring.prune_through(number);
    }

    /// Drops what is too old.
    pub(super) fn prune_age(&mut self, now: Instant) {
        let before = self.ring.len();
        self.ring.prune_age(now);
        if self.ring.len() < before {
            mark!("session.ring_aged");
        }
    }
}
