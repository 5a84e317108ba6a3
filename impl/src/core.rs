//! The shape that every endpoint of every protocol has.

use crate::recovery::Instant;

/// A sans-IO endpoint: a plain value that maps inputs to outputs.
///
/// The drivers are generic over this trait, so an endpoint can be wrapped by another one that
/// observes or distorts it without either knowing.
pub trait Core: Send + 'static {
    /// What can happen to the endpoint.
    type Input: Send;
    /// What the endpoint wants done.
    type Output: Send;

    /// Takes in exactly one event. Drain [`poll`](Core::poll) before anything is waited for.
    ///
    /// What has happened together, as the replies of one transaction, may be handed in before that,
    /// each in a call of its own; a core can then do for all of it what it would do for each.
    fn handle(&mut self, now: Instant, input: Self::Input);

    /// The next thing to do, in the order in which it must be done. To be called until it
    /// returns `None`.
    #[must_use]
    fn poll(&mut self) -> Option<Self::Output>;

    /// When to feed the endpoint's timeout input at the latest; `None` if nothing is waited for.
    #[must_use]
    fn deadline(&self) -> Option<Instant>;
}

/// Something that is out of the core's hands and will be answered: a publisher's request at the
/// server, an event that is with the application at the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

impl<C: Core + ?Sized> Core for Box<C> {
    type Input = C::Input;
    type Output = C::Output;

    fn handle(&mut self, now: Instant, input: Self::Input) {
        (**self).handle(now, input);
    }

    fn poll(&mut self) -> Option<Self::Output> {
        (**self).poll()
    }

    fn deadline(&self) -> Option<Instant> {
        (**self).deadline()
    }
}
