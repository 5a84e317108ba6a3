//! What the exit code says. The help and `docs/serve.md` have the same table.

/// Everything was done.
pub(crate) const OK: u8 = 0;
/// It failed; the message says why.
pub(crate) const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub(crate) const USAGE: u8 = 2;
/// `tail`: the server declared that events are lost.
pub(crate) const GAP: u8 = 3;
/// The server does not take the token.
pub(crate) const REFUSED: u8 = 4;
/// `log`: something is damaged.
pub(crate) const DAMAGED: u8 = 5;
/// `task follow`: the attempt ended without an exit code of its own.
pub(crate) const NO_CODE: u8 = 124;
/// `task follow`: it failed itself; every other code is the task's.
pub(crate) const NOT_FOLLOWED: u8 = 125;
/// `publish`: a signal came before the end of the input.
pub(crate) const INTERRUPTED: u8 = 130;
