//! The server's end of connections: frames are written down and nothing is changed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use gapless::net::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use super::frames::{Piece, Splitter};
use super::host::Process;
use crate::trace::Kind;

/// Accepts connections and writes their frames down.
pub(crate) struct TracedListener {
    pub(crate) listener: TcpListener,
    pub(crate) process: Process,
}

impl Listener for TracedListener {
    type Stream = TracedStream;

    async fn accept(&mut self) -> io::Result<TracedStream> {
        let (stream, peer) = self.listener.accept().await?;
        let peer = turmoil::reverse_lookup(peer.ip()).unwrap_or_else(|| "somebody".to_owned());
        Ok(TracedStream {
            stream,
            peer,
            process: self.process.clone(),
            incoming: Splitter::default(),
            outgoing: Splitter::default(),
        })
    }
}

/// The server's end of a connection. It changes nothing.
pub(crate) struct TracedStream {
    stream: TcpStream,
    peer: String,
    process: Process,
    incoming: Splitter,
    outgoing: Splitter,
}

impl TracedStream {
    fn record(process: &Process, peer: &str, kind: Kind, splitter: &mut Splitter, bytes: &[u8]) {
        splitter.push(bytes);
        while let Some(piece) = splitter.next() {
            if let Piece::Frame(frame) = piece {
                process.record(kind, format!("{peer}: {}", frame.describe()));
            }
        }
    }
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
        let poll = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let bytes = &buffer.filled()[before..];
        Self::record(&this.process, &this.peer, Kind::Receive, &mut this.incoming, bytes);
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
        let poll = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = poll {
            let bytes = &bytes[..written];
            Self::record(&this.process, &this.peer, Kind::Send, &mut this.outgoing, bytes);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
