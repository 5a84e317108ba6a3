//! The hosts of sessions.

pub(crate) mod watch;
