//! What an application plugs into a server.

use crate::net::BoxFuture;
use crate::session::Turn;
use crate::session::conversation::{Ending, Saying};
use crate::session::server::Work;
use crate::session::wire::Notice;

/// What the server does when the user says something.
///
/// A turn is run at most once: when the process ends in the middle of it, the user is shown that
/// it was interrupted [SE-3d]. What has to survive is said, or kept by the application itself.
pub trait Application: Send + Sync + 'static {
    /// Runs one turn. In each conversation there is one at a time.
    fn turn(&self, work: Work, speaker: Speaker) -> BoxFuture<'static, Ending>;
}

/// The server has ended: nothing that is said is heard any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server has ended")]
pub struct Stopped;

/// Speaks for a turn.
#[derive(Debug)]
pub struct Speaker {
    pub(super) turn: Turn,
}

impl Speaker {
    /// Which turn it is.
    pub fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Says something: it is durable, and on its way to whoever is connected, when this returns.
    ///
    /// # Errors
    ///
    /// [`Stopped`]
    pub async fn say(&mut self, saying: Saying) -> Result<(), Stopped> {
        let _ = saying;
        todo!()
    }

    /// Tells how it is getting on; shown to whoever is connected, and lost.
    ///
    /// # Errors
    ///
    /// [`Stopped`]
    pub async fn progress(&mut self, notice: Notice) -> Result<(), Stopped> {
        let _ = notice;
        todo!()
    }
}
