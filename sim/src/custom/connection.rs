//! Connections through the simulated network.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use gapless::net::Listener as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::world::link::FaultyStream;
use crate::world::traced::{TracedListener, TracedStream};

/// A connection between a client and the server: a stream of bytes, as TCP is.
///
/// It carries a WebSocket, which is the caller's to make, for instance with `tokio-tungstenite`. The
/// world cuts what passes into frames: the trace and the page show each of them, and faults hit a
/// whole one.
pub struct Connection(End);

enum End {
    Client(Box<FaultyStream>),
    Server(Box<TracedStream>),
}

impl Connection {
    pub(super) fn of_client(stream: FaultyStream) -> Self {
        Self(End::Client(Box::new(stream)))
    }
}

/// Where a server listens.
pub struct Listener(pub(super) TracedListener);

impl Listener {
    /// The next client that connects.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        Ok(Connection(End::Server(Box::new(self.0.accept().await?))))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            End::Client(stream) => Pin::new(stream).poll_read(cx, buffer),
            End::Server(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            End::Client(stream) => Pin::new(stream).poll_write(cx, bytes),
            End::Server(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            End::Client(stream) => Pin::new(stream).poll_flush(cx),
            End::Server(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            End::Client(stream) => Pin::new(stream).poll_shutdown(cx),
            End::Server(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
