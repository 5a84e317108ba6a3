//! A relay for TCP that can be cut, and can fall silent one way or both.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How many bytes are on their way at once.
const CHUNK_BYTES: usize = 8 << 10;

/// What the relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Links {
    /// Bytes of clients are passed on.
    up: bool,
    /// Bytes of the server are passed on.
    down: bool,
    /// Connections that were made before this cut are ended.
    cuts: u64,
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    links: watch::Sender<Links>,
    _running: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (links, watched) = watch::channel(Links { up: true, down: true, cuts: 0 });
        let mut running = JoinSet::new();
        running.spawn(accept(listener, to, watched));
        Self { address, links, _running: running }
    }

    /// Ends all connections, and all that are silent.
    pub(crate) fn cut(&self) {
        self.links.send_modify(|links| links.cuts += 1);
    }

    /// Passes nothing on in these directions, without a word: connections are half open, also new ones.
    pub(crate) fn silence(&self, up: bool, down: bool) {
        self.links.send_modify(|links| (links.up, links.down) = (!up, !down));
    }

    /// Passes everything on again, also what was held up.
    pub(crate) fn heal(&self) {
        self.silence(false, false);
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, links: watch::Receiver<Links>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                connections.spawn(relay(client, to, links.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(client: TcpStream, to: SocketAddr, mut links: watch::Receiver<Links>) {
    let cuts = links.borrow().cuts;
    // A server that does not listen is to the client as one that ends the connection.
    let Ok(server) = TcpStream::connect(to).await else { return };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, links.clone(), |links| links.up) => {}
        () = pass(from_server, to_client, links.clone(), |links| links.down) => {}
        // The sender is gone when the campaign is over.
        _ = links.wait_for(|links| links.cuts != cuts) => {}
    }
}

/// Passes bytes on until one side ends.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut links: watch::Receiver<Links>,
    open: impl Fn(&Links) -> bool,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        if links.wait_for(&open).await.is_err() || to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::nodes::in_time;

    /// A relay to a server that says everything back, and a connection through it.
    async fn echo() -> (Relay, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let relay = Relay::start(listener.local_addr().expect("bound")).await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let (mut from, mut to) = stream.split();
            // It ends with the connection.
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let stream = TcpStream::connect(relay.address).await.expect("it listens");
        (relay, stream)
    }

    async fn heard(stream: &mut TcpStream) -> std::io::Result<u8> {
        in_time(stream.read_u8()).await
    }

    #[tokio::test]
    async fn what_is_silent_loses_nothing_and_is_heard_when_it_is_healed() {
        for (up, down) in [(true, false), (false, true), (true, true)] {
            let (relay, mut stream) = echo().await;
            stream.write_all(b"a").await.expect("taken");
            assert_eq!(heard(&mut stream).await.expect("open"), b'a');
            relay.silence(up, down);
            stream.write_all(b"b").await.expect("taken");
            let early = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
            assert!(early.is_err(), "nothing comes");
            relay.heal();
            assert_eq!(heard(&mut stream).await.expect("open"), b'b');
        }
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_silent_too() {
        let (relay, mut stream) = echo().await;
        stream.write_all(b"a").await.expect("taken");
        assert_eq!(heard(&mut stream).await.expect("open"), b'a');
        relay.silence(true, true);
        relay.cut();
        assert!(heard(&mut stream).await.is_err());
    }
}
