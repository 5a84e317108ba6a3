//! What makes two violations the same.

use super::{Verdict, Violation, find};

/// What a violation shows. Two are the same if the same invariant does not hold, whatever its
/// sentence says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symptom {
    /// The checker that says so.
    pub checker: String,
    /// Whether it is progress after healing that is missing, instead of safety.
    pub liveness: bool,
    /// When it showed.
    pub at_ms: u64,
}

impl Symptom {
    /// The symptom that a violation is.
    pub fn of(violation: &Violation) -> Self {
        let checker = find(violation.checker);
        Self {
            checker: violation.checker.to_owned(),
            liveness: checker.is_some_and(|checker| checker.liveness),
            at_ms: violation.at_ms,
        }
    }

    /// The first symptom of a verdict; `None` if nothing was violated.
    pub fn first_of(verdict: &Verdict) -> Option<Self> {
        verdict.violations().first().map(Self::of)
    }

    /// Whether both are the same violation.
    pub fn is_same(&self, other: &Self) -> bool {
        self.checker == other.checker && self.liveness == other.liveness
    }

    /// Whether a verdict has a violation that is the same.
    pub fn is_in(&self, verdict: &Verdict) -> bool {
        verdict.violations().iter().any(|violation| self.is_same(&Self::of(violation)))
    }
}
