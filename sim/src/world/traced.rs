//! The server's end of connections: frames are written down and nothing is changed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use gapless::net::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use super::frames::{Counted, Piece, Splitter};
use super::host::Process;
use crate::trace::{Fact, Kind, Text};

/// Accepts connections and writes their frames down.
pub(crate) struct TracedListener {
    pub(crate) listener: TcpListener,
    pub(crate) process: Process,
}

impl Listener for TracedListener {
    type Stream = TracedStream;

    async fn accept(&mut self) -> io::Result<TracedStream> {
        let (stream, peer) = self.listener.accept().await?;
        let port = peer.port();
        let peer = turmoil::reverse_lookup(peer.ip()).unwrap_or_else(|| "somebody".to_owned());
        let peer: Arc<str> = peer.into();
        Ok(TracedStream {
            stream: Some(stream),
            number: self.process.orphans.number(),
            process: self.process.clone(),
            incoming: (Splitter::default(), Counted::new(&peer, port, true)),
            outgoing: (Splitter::default(), Counted::new(&peer, port, false)),
        })
    }
}

/// The server's end of a connection. It changes nothing.
pub(crate) struct TracedStream {
    /// `None` while it is dropped.
    stream: Option<TcpStream>,
    /// Which connection of its process it is.
    number: u64,
    process: Process,
    incoming: (Splitter, Counted),
    outgoing: (Splitter, Counted),
}

impl TracedStream {
    fn record(process: &Process, kind: Kind, side: &mut (Splitter, Counted), bytes: &[u8]) {
        if process.recorder.is_untraced() {
            return;
        }
        let (splitter, counted) = side;
        splitter.push(bytes);
        while let Some(piece) = splitter.next() {
            if let Piece::Frame(frame) = piece {
                let passage = counted.next(&frame.payload);
                let client = Arc::clone(&counted.client);
                let text = Text::later(move || format!("{client}: {}", frame.describe()));
                process.record_fact(kind, text, Fact::Frame(passage));
            }
        }
    }
}

impl Drop for TracedStream {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take_if(|_| self.process.disk.is_dead()) {
            self.process.orphans.leave(self.number, stream);
        }
    }
}

/// What is read from, or written to, something that is dropped.
fn dropped() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for TracedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        std::task::ready!(this.process.pause.poll_running(cx));
        let before = buffer.filled().len();
        let Some(stream) = &mut this.stream else { return Poll::Ready(Err(dropped())) };
        let poll = Pin::new(stream).poll_read(cx, buffer);
        let bytes = &buffer.filled()[before..];
        Self::record(&this.process, Kind::Receive, &mut this.incoming, bytes);
        poll
    }
}

impl AsyncWrite for TracedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        std::task::ready!(this.process.pause.poll_running(cx));
        let Some(stream) = &mut this.stream else { return Poll::Ready(Err(dropped())) };
        let poll = Pin::new(stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = poll {
            let bytes = &bytes[..written];
            Self::record(&this.process, Kind::Send, &mut this.outgoing, bytes);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => Poll::Ready(Err(dropped())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Err(dropped())),
        }
    }
}
