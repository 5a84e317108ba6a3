//! What is measured: a server in a process of its own, and receivers that come back to it.

mod crowd;
mod engine;
mod gapless;
mod jetstream;
mod mosquitto;
pub(crate) mod raw;
mod socket_io;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::gapless::net::BoxFuture;
use clap::ValueEnum;

use self::crowd::Crowd;
use self::engine::Engine;
use self::gapless::Gapless;
pub(crate) use self::socket_io::folder as socket_io_folder;

use crate::failure::Result;
use crate::tally::Counts;

/// Which server is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Gapless,
    /// Another build of it, see `--other`.
    Other,
    /// The same with its log on three nodes of JetStream.
    SharedLog,
    Raw,
    Jetstream,
    Mosquitto,
    SocketIo,
}

impl Kind {
    /// Who is measured if nobody is named.
    pub(crate) const ALL: [Self; 5] =
        [Self::Gapless, Self::Raw, Self::Jetstream, Self::Mosquitto, Self::SocketIo];

    /// The name in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Gapless => "gapless",
            Self::Other => "gapless, another build",
            Self::SharedLog => "gapless, log on JetStream ×3",
            Self::Raw => "raw WebSocket",
            Self::Jetstream => "NATS JetStream",
            Self::Mosquitto => "Mosquitto, QoS 1",
            Self::SocketIo => "Socket.IO, recovery",
        }
    }

    /// Whether it is `gapless`, of which everything is expected.
    pub(crate) fn is_ours(self) -> bool {
        match self {
            Self::Gapless | Self::Other | Self::SharedLog => true,
            Self::Raw | Self::Jetstream | Self::Mosquitto | Self::SocketIo => false,
        }
    }

    /// Starts a server without any events.
    pub(crate) async fn start(self, programs: &Programs) -> Result<Box<dyn Peer>> {
        let Programs { gapless, other } = programs;
        let started: Result<Box<dyn Peer>> = match self {
            Self::Gapless => gapless::start(gapless, None).await.map(|peer| Box::new(peer) as _),
            Self::Other => gapless::start(other, None).await.map(|peer| Box::new(peer) as _),
            Self::SharedLog => shared_log(gapless).await.map(|peer| Box::new(peer) as _),
            Self::Raw => raw::start().await.map(|peer| Box::new(peer) as _),
            Self::Jetstream => jetstream::start().await.map(|peer| Box::new(peer) as _),
            Self::Mosquitto => mosquitto::start().await.map(|peer| Box::new(peer) as _),
            Self::SocketIo => socket_io::start().await.map(|peer| Box::new(peer) as _),
        };
        started.map_err(|failure| failure.context(self.title()))
    }
}

/// The commands that are measured.
pub(crate) struct Programs {
    pub(crate) gapless: PathBuf,
    pub(crate) other: PathBuf,
}

async fn shared_log(program: &Path) -> Result<Crowd<Gapless>> {
    gapless::start(program, Some(Engine::start().await?)).await
}

/// A server with its receivers.
pub(crate) trait Peer: Send {
    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// How much memory of the server is resident, in bytes.
    fn resident_bytes(&self) -> Result<u64>;

    /// Stores events with these numbers, in their order, and waits until all are acknowledged.
    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        numbers: RangeInclusive<u64>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Lets the receivers that there were go, and connects `count` new ones to `via`. What is
    /// published after it returns is theirs.
    fn enter<'a>(
        &'a mut self,
        topic: &'a str,
        count: usize,
        via: SocketAddr,
    ) -> BoxFuture<'a, Result<()>>;

    /// The connections of all receivers end without a goodbye.
    fn cut(&mut self) -> BoxFuture<'_, Result<()>>;

    /// The clock starts: from now on all events up to `last` are waited for.
    fn expect(&mut self, last: u64) -> BoxFuture<'_, Result<()>>;

    /// All receivers come back to `via` at once. Does not wait for them.
    fn resume(&mut self, via: SocketAddr) -> BoxFuture<'_, Result<()>>;

    /// Waits until all receivers have everything, or nothing has arrived for `quiet`.
    fn collect(&mut self, quiet: Duration) -> BoxFuture<'_, Result<Arrivals>>;
}

/// What came of a workload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrivals {
    pub(crate) counts: Counts,
    /// From [`Peer::expect`] to the return of the last handler; `None` if something is missing.
    pub(crate) took: Option<Duration>,
}
