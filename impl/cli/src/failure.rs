//! Why a command came to nothing, and what to do about it.

use std::fmt;

use crate::exit;

/// Ends a command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// One of [`exit`].
    pub(crate) code: u8,
    problem: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self { code: exit::FAILED, problem: problem.into(), hint: None }
    }

    /// The command line or the configuration is wrong.
    pub(crate) fn usage(problem: impl Into<String>) -> Self {
        Self { code: exit::USAGE, ..Self::new(problem) }
    }

    /// The server does not take the token.
    pub(crate) fn refused(problem: impl Into<String>) -> Self {
        Self { code: exit::REFUSED, ..Self::new(problem) }
    }

    /// The same with another code.
    pub(crate) fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// The remedy.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}
