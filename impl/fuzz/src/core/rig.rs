//! A core and its clock.

use gapless::Core;
use gapless::recovery::{Instant, WallTime};

use crate::source::Source;

/// How many inputs a run has at most, so that no run takes long.
pub(crate) const STEPS_MAX: usize = 400;

/// How many outputs one input leads to at most. The configurations of the targets keep everything
/// that a core can have to say far below.
const OUTPUTS_MAX: usize = 2_048;

/// After so many timeouts at one moment nothing may be due any more: a driver would spin.
const TIMEOUTS_MAX: usize = 32;

/// The wall clock at the start of a run.
const WALL_MS: i64 = 1_767_225_600_000;

/// A core, driven as its contract demands: one input, then every output.
pub(crate) struct Rig<C> {
    pub(crate) core: C,
    now: u64,
}

impl<C: Core> Rig<C> {
    pub(crate) fn new(core: C) -> Self {
        Self { core, now: 0 }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    /// The wall clock, which jumps about.
    pub(crate) fn wall(&self, source: &mut Source<'_>) -> WallTime {
        let jump = match source.below(16) {
            0..=12 => 0,
            13 => 3_600_000,
            14 => -86_400_000,
            _ => i64::MIN / 2,
        };
        WallTime::from_millis(WALL_MS + self.now as i64 + jump)
    }

    pub(crate) fn feed(&mut self, input: C::Input) -> Vec<C::Output> {
        self.core.handle(self.now(), input);
        self.drain()
    }

    pub(crate) fn drain(&mut self) -> Vec<C::Output> {
        let mut outputs = Vec::new();
        while let Some(output) = self.core.poll() {
            outputs.push(output);
            assert!(outputs.len() <= OUTPUTS_MAX, "one input has more than {OUTPUTS_MAX} outputs");
        }
        outputs
    }

    /// Lets time pass: a moment, until something is due, or long.
    pub(crate) fn pass(&mut self, source: &mut Source<'_>) {
        let due = self.core.deadline().map_or(0, |due| due.as_millis().saturating_sub(self.now));
        self.now += match source.below(8) {
            0..=2 => u64::from(source.byte()),
            3..=6 => due,
            _ => due + 1_000 * u64::from(source.byte()),
        };
    }

    /// Feeds a timeout if one is due. Whether another one was to follow at once too often.
    pub(crate) fn due(&self) -> bool {
        self.core.deadline().is_some_and(|due| due <= self.now())
    }

    /// For each moment: a guard against deadlines that stay in the past.
    pub(crate) fn rounds() -> impl Iterator<Item = ()> {
        (0..=TIMEOUTS_MAX).map(|round| {
            assert!(round < TIMEOUTS_MAX, "after {TIMEOUTS_MAX} timeouts something is still due");
        })
    }
}
