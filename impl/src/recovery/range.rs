//! Runs of numbers.
//!
//! Deliberately absent: sets of ranges; who keeps several decides how they merge.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An inclusive range of sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first sequence of the range.
    pub from: u64,
    /// The last sequence of the range.
    pub to: u64,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.from, self.to)
    }
}
