//! What an application plugs into a server.

use tokio::sync::{mpsc, oneshot};

use super::server::ServerRequest;
use crate::net::BoxFuture;
use crate::session::Turn;
use crate::session::conversation::{Ending, Saying};
use crate::session::server::{Input, Work};
use crate::session::wire::Notice;

/// What the server does when the user says something.
///
/// A turn is run at most once: when the process ends in the middle of it, the user is shown that
/// it was interrupted [SE-3d]. What has to survive is said, or kept by the application itself.
pub trait Application: Send + Sync + 'static {
    /// Runs one turn. In each conversation there is one at a time.
    ///
    /// A panic is [`Ending::Failed`]. The future is dropped when the server ends.
    fn turn(&self, work: Work, speaker: Speaker) -> BoxFuture<'static, Ending>;
}

/// The turn or the server has ended: nothing that is said is heard any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the turn or the server has ended")]
pub struct Stopped;

/// Speaks for a turn.
#[derive(Debug)]
pub struct Speaker {
    turn: Turn,
    /// Weak: a turn that goes on does not keep a server alive that nobody else wants.
    requests: mpsc::WeakSender<ServerRequest>,
    /// The last thing that was said, until it is heard.
    unheard: Option<oneshot::Receiver<()>>,
}

impl Speaker {
    pub(super) fn new(turn: Turn, requests: mpsc::WeakSender<ServerRequest>) -> Self {
        Self { turn, requests, unheard: None }
    }

    /// Which turn it is.
    pub fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Says something: it is durable, and on its way to whoever is connected, when this returns.
    ///
    /// If the future is dropped, it may have been said or not.
    ///
    /// # Errors
    ///
    /// [`Stopped`]
    pub async fn say(&mut self, saying: Saying) -> Result<(), Stopped> {
        self.listen().await?;
        let (heard, unheard) = oneshot::channel();
        let turn = self.turn.clone();
        self.request(ServerRequest::Say { turn, saying, heard }).await?;
        self.unheard = Some(unheard);
        self.listen().await
    }

    /// Tells how it is getting on; shown to whoever is connected, and lost.
    ///
    /// # Errors
    ///
    /// [`Stopped`]
    pub async fn progress(&mut self, notice: Notice) -> Result<(), Stopped> {
        let turn = self.turn.clone();
        self.request(ServerRequest::Input(Input::Progress { turn, notice })).await
    }

    /// Waits until the last thing that was said is heard: the next one has to come after it.
    async fn listen(&mut self) -> Result<(), Stopped> {
        let Some(unheard) = &mut self.unheard else { return Ok(()) };
        let heard = unheard.await;
        self.unheard = None;
        heard.map_err(|_| Stopped)
    }

    async fn request(&self, request: ServerRequest) -> Result<(), Stopped> {
        let requests = self.requests.upgrade().ok_or(Stopped)?;
        requests.send(request).await.map_err(|_| Stopped)
    }
}
