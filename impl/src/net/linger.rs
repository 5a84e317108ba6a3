//! Connections that end without taking back what was said last.
//!
//! When a socket is closed while bytes of its peer wait in it unread, the system resets the
//! connection, and a reset overtakes what the peer has not read yet: the close frame with its code,
//! or the answer to a request whose body was not read. So the way out is shut first, what still comes
//! is read and thrown away until the peer closes as well, and only then is the socket closed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::open_sockets::OpenSocket;
use super::{Listener, OpenSockets};
use crate::mark;

/// How long a connection lingers that its side has let go of.
#[derive(Debug, Clone)]
pub struct LingerConfig {
    /// How long at most: 2 s.
    pub time: Duration,
    /// How many bytes are thrown away at most: 8 MiB.
    pub bytes_max: usize,
    /// How many connections linger at once: 1,024. Others are closed at once.
    pub connections_max: usize,
}

impl Default for LingerConfig {
    fn default() -> Self {
        Self { time: Duration::from_secs(2), bytes_max: 8 << 20, connections_max: 1_024 }
    }
}

/// How much is thrown away at once, in bytes.
const DISCARD_BYTES: usize = 4096;

/// Accepts connections that linger when they are dropped.
///
/// For listeners of the operating system: what a simulated network does is not its business.
#[derive(Debug)]
pub struct Lingering<L> {
    listener: L,
    config: LingerConfig,
    lingerers: OpenSockets,
}

impl<L> Lingering<L> {
    /// Lets the connections of a listener linger.
    pub fn new(listener: L, config: LingerConfig) -> Self {
        Self { listener, config, lingerers: OpenSockets::default() }
    }

    /// Those that linger now.
    pub fn lingerers(&self) -> &OpenSockets {
        &self.lingerers
    }
}

impl<L: Listener> Listener for Lingering<L> {
    type Stream = LingeringStream<L::Stream>;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        let stream = self.listener.accept().await?;
        let (config, lingerers) = (self.config.clone(), self.lingerers.clone());
        Ok(LingeringStream { stream: Some(stream), is_over: false, config, lingerers })
    }
}

/// A connection that lingers when it is dropped, unless it is over.
#[derive(Debug)]
pub struct LingeringStream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    /// There until it is dropped.
    stream: Option<S>,
    /// The peer has closed it, or it is broken: nobody is left to be heard by.
    is_over: bool,
    config: LingerConfig,
    lingerers: OpenSockets,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> LingeringStream<S> {
    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn look<T>(&mut self, polled: &Poll<io::Result<T>>) {
        self.is_over |= matches!(polled, Poll::Ready(Err(_)));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for LingeringStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.remaining();
        let polled = self.stream()?.poll_read(cx, buffer);
        self.look(&polled);
        let is_end = polled.is_ready() && before > 0 && buffer.remaining() == before;
        self.is_over |= is_end;
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for LingeringStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream()?.poll_write(cx, bytes);
        self.look(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream()?.poll_write_vectored(cx, bytes);
        self.look(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Drop for LingeringStream<S> {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take().filter(|_| !self.is_over) else { return };
        // Outside of a runtime nobody could wait for anything.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.lingerers.count() >= self.config.connections_max {
            mark!("net.closed_without_lingering");
            return;
        }
        runtime.spawn(linger(stream, self.config.clone(), self.lingerers.enter()));
    }
}

/// Waits until the peer has closed the connection too, within the limits.
async fn linger<S>(mut stream: S, config: LingerConfig, _place: OpenSocket)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let discard = async {
        stream.shutdown().await?;
        let (mut buffer, mut discarded) = (vec![0; DISCARD_BYTES], 0);
        while discarded < config.bytes_max {
            match stream.read(&mut buffer).await? {
                0 => break,
                bytes => discarded += bytes,
            }
        }
        Ok::<_, io::Error>(())
    };
    // Whoever does not close it in time, or sends without end, loses what was said.
    let _ = tokio::time::timeout(config.time, discard).await;
}
