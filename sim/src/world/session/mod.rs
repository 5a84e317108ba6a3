//! The hosts of sessions: `server` and `client-1` ….

pub(crate) mod watch;

use super::{Company, Stage};
use crate::plan::{SessionClientOptions, SessionServerOptions};

/// Lets the hosts of a plan enter.
pub(super) fn enter(
    _stage: &mut Stage<'_>,
    _server_options: &SessionServerOptions,
    _client_options: &SessionClientOptions,
) -> Company {
    todo!()
}
