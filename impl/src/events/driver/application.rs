//! What an application plugs into a client.

use crate::events::client::{Notice, Offer, Position};
use crate::net::BoxFuture;

/// An event was not handled; it will be offered again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(pub String);

/// An event was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// The client stores the position itself. After a crash the event may come again.
    Done,
    /// The handler stored [`Offer::position`] in the same transaction as its effect. After a
    /// crash the event does not come again.
    Stored,
}

/// Takes events, one at a time and in order [EV-12].
pub trait Handler: Send {
    /// Handles one event. The client's position moves when the future is done.
    fn handle<'a>(&'a mut self, offer: &'a Offer) -> BoxFuture<'a, Result<Handled, HandlerError>>;
}

/// A handler from a function that takes the event's offer.
///
/// ```
/// use gapless::events::driver::{Handled, handler_fn};
///
/// let handler = handler_fn(|offer| {
///     println!("{}", offer.event.text());
///     Ok(Handled::Done)
/// });
/// # let _ = handler;
/// ```
pub fn handler_fn<F>(function: F) -> Box<dyn Handler>
where
    F: FnMut(&Offer) -> Result<Handled, HandlerError> + Send + 'static,
{
    struct Function<F>(F);
    impl<F> Handler for Function<F>
    where
        F: FnMut(&Offer) -> Result<Handled, HandlerError> + Send,
    {
        fn handle<'a>(
            &'a mut self,
            offer: &'a Offer,
        ) -> BoxFuture<'a, Result<Handled, HandlerError>> {
            let result = (self.0)(offer);
            Box::pin(async move { result })
        }
    }
    Box::new(Function(function))
}

/// Runs each time a connection opens, before the client asks for what it missed [EV-4].
pub trait OpenHandler: Send {
    /// Runs once for a connection. An error is reported and stops nothing.
    fn opened(&mut self) -> BoxFuture<'_, Result<(), HandlerError>>;
}

/// Keeps the client's position over a restart.
pub trait CursorStore: Send {
    /// The stored position; `None` if nothing was ever stored.
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Position>, String>>;

    /// Stores the position durably.
    fn save(&mut self, position: Position) -> BoxFuture<'_, Result<(), String>>;
}

/// A position that lasts as long as the process.
#[derive(Debug, Clone, Default)]
pub struct MemoryCursor(Option<Position>);

impl CursorStore for MemoryCursor {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Position>, String>> {
        let position = self.0.clone();
        Box::pin(async move { Ok(position) })
    }

    fn save(&mut self, position: Position) -> BoxFuture<'_, Result<(), String>> {
        self.0 = Some(position);
        Box::pin(async { Ok(()) })
    }
}

/// Takes the notices of a client. It must not block.
pub type NoticeSink = Box<dyn FnMut(Notice) + Send>;

/// Everything of an application that a client works for.
pub struct Application {
    /// Take the events; the first owns the cursor. As many as the client's core was told.
    pub handlers: Vec<Box<dyn Handler>>,
    /// Run each time a connection opens.
    pub open_handlers: Vec<Box<dyn OpenHandler>>,
    /// Keeps the position.
    pub cursor: Box<dyn CursorStore>,
    /// Is told what happens.
    pub notices: NoticeSink,
}

impl Application {
    /// One handler, a position in memory, and nobody to tell.
    pub fn new(handler: Box<dyn Handler>) -> Self {
        Self {
            handlers: vec![handler],
            open_handlers: vec![],
            cursor: Box::new(MemoryCursor::default()),
            notices: Box::new(|_| {}),
        }
    }
}
