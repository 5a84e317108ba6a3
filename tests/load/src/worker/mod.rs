//! A process of the load: clients of all protocols, each with what it has in a slot.
//!
//! It ends when it is killed, or when its standard input does; `finish` on it says that nothing new is
//! to be begun. It says nothing itself: what came of it is in the slots.

pub(crate) mod events;
pub(crate) mod sessions;
pub(crate) mod tasks;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gapless::net::Connector;
use rand::SeedableRng as _;
use rand::rngs::SysRng;
use rand_chacha::ChaCha12Rng;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::failure::{Failure, Result};
use crate::mix::Mix;

/// What a worker is told to begin nothing new with.
pub(crate) const FINISH: &str = "finish";

/// How long after one client the next one connects.
const ONE_AFTER_THE_OTHER: Duration = Duration::from_millis(4);

/// What the clients of a worker share.
pub(crate) struct Shop {
    pub(crate) mix: Mix,
    pub(crate) worker: usize,
    /// Becomes true when nothing new is to be begun.
    pub(crate) finish: watch::Receiver<bool>,
    /// The first thing that no client can go on after.
    broken: watch::Sender<Option<String>>,
}

impl Shop {
    pub(crate) fn connector(&self, to: Vec<SocketAddr>) -> From {
        From { source: Mix::source(self.worker), to: to.into(), next: Arc::default() }
    }

    /// The load itself is at its end.
    pub(crate) fn fail(&self, failure: &Failure) {
        self.broken.send_if_modified(|broken| {
            let first = broken.is_none();
            broken.get_or_insert_with(|| failure.to_string());
            first
        });
    }
}

/// Connects from an address of its own, each time to the next of some servers.
#[derive(Debug, Clone)]
pub(crate) struct From {
    source: Ipv4Addr,
    to: Arc<[SocketAddr]>,
    /// How often it has connected, or tried to.
    next: Arc<AtomicUsize>,
}

impl Connector for From {
    type Stream = TcpStream;

    fn connect(&self) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static {
        let source = self.source;
        let to = self.to[self.next.fetch_add(1, Ordering::Relaxed) % self.to.len()];
        async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            let stream = socket.connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    }
}

/// Randomness of which nothing depends but ids and jitter.
pub(crate) fn entropy() -> Result<Box<ChaCha12Rng>> {
    Ok(Box::new(ChaCha12Rng::try_from_rng(&mut SysRng)?))
}

/// Runs the clients of a worker.
pub(crate) async fn run(mix: &Path, worker: usize) -> Result<()> {
    let mix = Mix::read(mix)?;
    let (tell, finish) = watch::channel(false);
    let (broken, mut breaking) = watch::channel(None);
    let shop = Arc::new(Shop { mix, worker, finish, broken });
    let begin = async {
        events::begin(&shop)?;
        let mut ramp = tokio::time::interval(ONE_AFTER_THE_OTHER);
        for subscriber in shop.mix.own(shop.mix.subscribers(), worker) {
            ramp.tick().await;
            events::subscribe(&shop, subscriber)?;
        }
        for user in shop.mix.own(shop.mix.sessions(), worker) {
            ramp.tick().await;
            sessions::begin(&shop, user)?;
        }
        for agent in shop.mix.own(shop.mix.agents(), worker) {
            ramp.tick().await;
            tasks::begin(&shop, agent)?;
        }
        std::future::pending().await
    };
    let mut told = BufReader::new(tokio::io::stdin()).lines();
    let listen = async {
        while let Some(line) = told.next_line().await? {
            if line == FINISH {
                tell.send_replace(true);
            }
        }
        Ok(())
    };
    tokio::select! { biased;
        Ok(problem) = breaking.wait_for(Option::is_some) => {
            Err(Failure::new(problem.clone().unwrap_or_default()))
        }
        begun = begin => begun,
        ended = listen => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_connection_goes_to_the_next_server_also_after_one_that_is_away() {
        let bound = || {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
            socket
        };
        // The one in the middle has its port, and does not listen.
        let (first, away, last) = (bound(), bound(), bound());
        let to: Arc<[SocketAddr]> =
            [&first, &away, &last].map(|it| it.local_addr().expect("an address")).into();
        let _listening = [first, last].map(|socket| socket.listen(8).expect("it listens"));
        let from = From { source: Mix::source(0), to: to.clone(), next: Arc::default() };
        let mut came = Vec::new();
        for _ in 0..6 {
            came.push(from.connect().await.ok().and_then(|stream| stream.peer_addr().ok()));
        }
        let round = [Some(to[0]), None, Some(to[2])];
        assert_eq!(came, [round, round].concat());
    }
}
