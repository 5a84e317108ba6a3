//! The client's core over sockets.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::Core;
use crate::net::{Connector, Limits};
use crate::session::Name;
use crate::session::client::{Input, Output, Submission, SubmitError};
use crate::session::in_flight::{Command, Kept};
use crate::session::view::View;
use crate::storage::Store;

/// What a client connects to, besides the network address.
#[derive(Clone)]
pub struct Target {
    /// The host for the `Host` header, with the port if it is not the default.
    pub host: String,
    /// The token that says whose conversation is wanted.
    pub token: String,
    /// The limits of the WebSocket.
    pub limits: Limits,
}

impl fmt::Debug for Target {
    /// Without the token, so that it does not end up in a log [CORE-14].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, token: _, limits } = self;
        f.debug_struct("Target").field("host", host).field("limits", limits).finish_non_exhaustive()
    }
}

/// Talks to a running client.
#[derive(Debug, Clone)]
pub struct ClientHandle {
    view: watch::Receiver<Arc<View>>,
}

impl ClientHandle {
    /// The newest view, and each one that follows.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Says something, and returns its id when it is taken: it is in the view then. What becomes
    /// of it is told by the view.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]
    pub async fn submit(&self, what: Submission) -> Result<Name, SubmitError> {
        let _ = what;
        todo!()
    }

    /// Connects now, also after the connection was superseded.
    pub async fn reconnect(&self) {
        todo!()
    }

    /// Closes the connection and ends the client.
    pub async fn stop(&self) {
        todo!()
    }
}

/// A client: a handle, and the future that runs it until it is stopped. `kept` is what the store
/// had when it was opened.
pub fn client<C, N, S>(
    core: C,
    connector: N,
    target: Target,
    store: S,
    kept: Kept,
) -> (ClientHandle, impl Future<Output = ()> + Send)
where
    C: Core<Input = Input, Output = Output>,
    N: Connector,
    S: Store<Command>,
{
    let _ = (core, connector, target, store, kept);
    let (_, view) = watch::channel(Arc::default());
    (ClientHandle { view }, async {})
}
