//! A path that can go silent: what was sent on it is swallowed, and neither side is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::failure::Result;

/// How many bytes are passed on at once.
const BUFFER_BYTES: usize = 16 << 10;

/// Passes connections on to a server until it is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    /// Connections up to this number are silent.
    silent: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    running: JoinHandle<Result<()>>,
}

impl Relay {
    pub(crate) async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (silent, accepted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let running = tokio::spawn(accept(listener, server, silent.clone(), accepted.clone()));
        Ok(Self { address, silent, accepted, running })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes nothing more on of the connections that there are; not even that they end.
    pub(crate) fn go_silent(&self) {
        self.silent.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    silent: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
) -> Result<()> {
    // The connections end with the relay.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (near, _) = listener.accept().await?;
        let far = TcpStream::connect(server).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let path =
            Path { number: accepted.fetch_add(1, Ordering::SeqCst) + 1, silent: silent.clone() };
        connections.spawn(async move {
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            tokio::join!(path.pass(near_in, far_out), path.pass(far_in, near_out));
        });
    }
}

struct Path {
    number: u64,
    silent: Arc<AtomicU64>,
}

impl Path {
    async fn pass(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = from.read(&mut buffer).await;
            let ended = !matches!(read, Ok(1..));
            match self.silent.load(Ordering::SeqCst) >= self.number {
                // The other side is not told: its connection stays open.
                true if ended => return std::future::pending().await,
                true => {}
                false => match read {
                    Ok(bytes @ 1..) if to.write_all(&buffer[..bytes]).await.is_ok() => {}
                    // Dropping the writing half tells the other side.
                    Ok(_) | Err(_) => return,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_silent_path_swallows_everything_and_a_new_one_passes_it_on() -> Result<()> {
        let server = TcpListener::bind("127.0.0.1:0").await?;
        let relay = Relay::start(server.local_addr()?).await?;
        let mut near = TcpStream::connect(relay.address()).await?;
        let (mut far, _) = server.accept().await?;
        let mut byte = [0];
        near.write_all(b"a").await?;
        far.read_exact(&mut byte).await?;
        assert_eq!(&byte, b"a");

        relay.go_silent();
        near.write_all(b"b").await?;
        drop(near);
        let mut again = TcpStream::connect(relay.address()).await?;
        let (mut far_again, _) = server.accept().await?;
        again.write_all(b"c").await?;
        far_again.read_exact(&mut byte).await?;
        assert_eq!(&byte, b"c");
        // Neither the byte nor the end has come through.
        let heard = tokio::time::timeout(Duration::from_millis(50), far.read(&mut byte)).await;
        assert!(heard.is_err());
        Ok(())
    }
}
