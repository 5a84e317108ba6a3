//! The client's core, and whether the server refuses it.

use gapless::Core;
use gapless::events::client::{DialFailure, Input, Output};
use gapless::recovery::Instant;
use tokio::sync::mpsc;

/// The server answered the handshake with a status that another attempt will hardly change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// It has never let this client in.
    pub(super) first: bool,
}

/// Passes everything on, and reports refusals.
pub(super) struct Watched<C> {
    core: C,
    opened: bool,
    refusals: mpsc::UnboundedSender<Refusal>,
}

impl<C> Watched<C> {
    pub(super) fn new(core: C) -> (Self, mpsc::UnboundedReceiver<Refusal>) {
        let (refusals, inbox) = mpsc::unbounded_channel();
        (Self { core, opened: false, refusals }, inbox)
    }
}

impl<C: Core<Input = Input, Output = Output>> Core for Watched<C> {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match &input {
            Input::Opened { .. } => self.opened = true,
            Input::DialFailed {
                failure: DialFailure::Status(status @ (401 | 403 | 404 | 405 | 426)),
                ..
            } => {
                // Whoever has gone does not care.
                let _ = self.refusals.send(Refusal { status: *status, first: !self.opened });
            }
            _ => {}
        }
        self.core.handle(now, input);
    }

    fn poll(&mut self) -> Option<Output> {
        self.core.poll()
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }
}
