//! Why there is no measurement, and in `gapless-load`, which shares this file, no verdict.

use std::fmt;

/// What went wrong, for a person.
#[derive(Debug)]
pub(crate) struct Failure(String);

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }

    /// Says what could not be done because of it.
    pub(crate) fn context(self, what: impl fmt::Display) -> Self {
        Self(format!("{what}: {}", self.0))
    }

    /// Says what to do about it.
    pub(crate) fn hint(self, remedy: impl fmt::Display) -> Self {
        Self(format!("{}\n  hint: {remedy}", self.0))
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
