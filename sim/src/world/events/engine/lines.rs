//! One end of a connection between a server and the engine: lines, and the silence between them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

/// How often an end says that it is still there.
pub(super) const PING_EVERY_MS: u64 = 500;

/// How long the other end may say nothing: what turmoil has dropped, it never sends again.
pub(super) const SILENCE_MS: u64 = 2_000;

/// How much is read at once.
const READ_BYTES: usize = 16 << 10;

/// One end.
pub(super) struct Lines {
    stream: TcpStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    heard_ms: u64,
    said_ms: u64,
}

impl Lines {
    pub(super) fn new(stream: TcpStream, now_ms: u64) -> Self {
        let (heard_ms, said_ms) = (now_ms, now_ms);
        Self { stream, incoming: Vec::new(), outgoing: Vec::new(), heard_ms, said_ms }
    }

    /// Puts a line into the queue.
    pub(super) fn say(&mut self, now_ms: u64, line: &impl Serialize) {
        serde_json::to_writer(&mut self.outgoing, line).expect("lines are always JSON");
        self.outgoing.push(b'\n');
        self.said_ms = now_ms;
    }

    /// The next line of the other end.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub(super) fn poll_line<T: DeserializeOwned>(
        &mut self,
        cx: &mut Context<'_>,
        now_ms: u64,
    ) -> Poll<io::Result<T>> {
        loop {
            if let Some(end) = self.incoming.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.incoming.drain(..=end).collect();
                let line = serde_json::from_slice(&line);
                return Poll::Ready(line.map_err(io::Error::from));
            }
            let mut space = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut space);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.heard_ms = now_ms;
            self.incoming.extend_from_slice(buffer.filled());
        }
    }

    /// Writes what is in the queue, as far as it goes.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.outgoing) {
                Poll::Ready(written) => {
                    self.outgoing.drain(..written?);
                }
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// When to say something at the latest.
    pub(super) fn ping_ms(&self) -> u64 {
        self.said_ms + PING_EVERY_MS
    }

    /// When the other end is taken for gone.
    pub(super) fn silent_ms(&self) -> u64 {
        self.heard_ms + SILENCE_MS
    }
}
