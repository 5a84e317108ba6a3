//! The signals that a command takes notice of.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// `SIGTERM` and `SIGINT`.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From here on the signals do not end the process by themselves.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them; its name.
    pub(crate) async fn asked(&mut self) -> &'static str {
        tokio::select! { biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// `SIGHUP`.
pub(crate) fn hang_up() -> Result<Signal, Failure> {
    listen(SignalKind::hangup())
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(format!("signals cannot be taken: {error}")))
}
