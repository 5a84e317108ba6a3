//! The exit codes of `gapless-sim`: constants that scripts may rely on.

/// Everything held.
pub const OK: u8 = 0;
/// A safety invariant was violated, or an implementation under test crashed and said so.
pub const VIOLATION: u8 = 1;
/// The command line, a scenario or a plan is wrong.
pub const USAGE: u8 = 2;
/// Nothing was violated, but a required mark was not reached; or what was to be shrunk or frozen
/// does not fail.
pub const INCONCLUSIVE: u8 = 3;
/// Nothing ran: the selection was empty, or an implementation supports none of it.
pub const NOTHING_RAN: u8 = 4;
/// An expectation is stale, or something that was expected to fail passed.
pub const STALE_EXPECTATION: u8 = 5;
/// After healing, progress was not made in time, and nothing else was violated.
pub const LIVENESS: u8 = 6;
/// A bug of the simulator, or a panic in the code under test.
pub const INTERNAL: u8 = 70;
/// A foreign implementation's adapter misbehaved: it cannot be started, died, hung, or broke the
/// adapter protocol.
pub const ADAPTER: u8 = 71;
/// Two runs of the same plan differ.
pub const NONDETERMINISM: u8 = 72;

/// Which code stands for many runs: the first of these that one of them has.
pub const PRECEDENCE: [u8; 9] = [
    INTERNAL,
    NONDETERMINISM,
    ADAPTER,
    VIOLATION,
    LIVENESS,
    STALE_EXPECTATION,
    INCONCLUSIVE,
    NOTHING_RAN,
    OK,
];

/// The code that stands for all of these; [`OK`] for none.
pub fn worst(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: &u8| PRECEDENCE.iter().position(|known| known == code);
    codes.into_iter().min_by_key(rank).unwrap_or(OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_many_stands_for_all() {
        assert_eq!(worst([OK, INCONCLUSIVE, LIVENESS, VIOLATION, OK]), VIOLATION);
        assert_eq!(worst([VIOLATION, ADAPTER, NONDETERMINISM]), NONDETERMINISM);
        assert_eq!(worst([NOTHING_RAN, STALE_EXPECTATION]), STALE_EXPECTATION);
        assert_eq!(worst([]), OK);
    }
}
