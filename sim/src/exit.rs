//! The exit codes of `gapless-sim`: constants that scripts may rely on.

/// Everything held.
pub const OK: u8 = 0;
/// A safety invariant was violated.
pub const VIOLATION: u8 = 1;
/// The command line, a scenario or a plan is wrong.
pub const USAGE: u8 = 2;
/// Nothing was violated, but a required mark was not reached; or what was to be shrunk or frozen
/// does not fail.
pub const INCONCLUSIVE: u8 = 3;
/// The selection was empty: nothing ran.
pub const NOTHING_RAN: u8 = 4;
/// An expectation is stale, or something that was expected to fail passed.
pub const STALE_EXPECTATION: u8 = 5;
/// After healing, progress was not made in time.
pub const LIVENESS: u8 = 6;
/// A bug of the simulator, or a panic in the code under test.
pub const INTERNAL: u8 = 70;
/// A foreign implementation's adapter misbehaved.
pub const ADAPTER: u8 = 71;
/// Two runs of the same plan differ.
pub const NONDETERMINISM: u8 = 72;
