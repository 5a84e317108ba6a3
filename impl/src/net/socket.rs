//! A WebSocket that one task reads and writes without either waiting for the other.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt as _, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::{CloseCode, mark};

/// How large things may be on a WebSocket.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest message and frame that is read, in bytes: 1 MiB.
    pub message_bytes_max: usize,
    /// How much may wait in the buffer of the socket, in bytes: 4 MiB.
    pub write_bytes_max: usize,
    /// How many frames may come; any number if there is no limit, which is the default.
    pub frame_rate: Option<FrameRate>,
    /// How long a close frame may take to leave: 1 s.
    pub close_timeout: Duration,
}

/// How many frames may come on a connection, of whatever kind: a bucket of `burst` tokens that fills
/// with `per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    /// For long.
    pub per_second: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 1 << 20,
            write_bytes_max: 4 << 20,
            frame_rate: None,
            close_timeout: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// The configuration of every WebSocket, on both sides.
    ///
    /// The read buffer is zeroed before each read, so it is small; the write buffer only has to
    /// join the frames of one turn.
    pub fn websocket(&self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(16 << 10)
            .max_write_buffer_size(self.write_bytes_max)
            .max_message_size(Some(self.message_bytes_max))
            .max_frame_size(Some(self.message_bytes_max))
    }
}

/// Frames that may come, as tokens.
#[derive(Debug)]
struct Bucket {
    /// The time in which one token comes.
    interval: Duration,
    /// How long an empty bucket takes to be full.
    whole: Duration,
    /// When it is full.
    full_at: Instant,
}

impl Bucket {
    fn full(FrameRate { per_second, burst }: FrameRate, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second.get();
        Self { interval, whole: interval * burst.get(), full_at: now }
    }

    /// Takes a token, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.interval;
        let there = full_at <= now + self.whole;
        if there {
            self.full_at = full_at;
        }
        there
    }
}

/// What happened on a socket.
#[derive(Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// The oldest queued frames have left for the network; the number of them.
    Wrote(usize),
    /// A text frame arrived.
    Text(Utf8Bytes),
    /// A binary frame arrived, which no protocol here knows.
    Binary(Bytes),
    /// A control frame arrived: a sign of life.
    Alive,
    /// The peer sent a close frame, or something that no WebSocket may carry or that is over the
    /// limit, or the stream ended.
    Closed {
        /// The code of the close frame, or the one that fits the error.
        code: Option<u16>,
    },
}

/// The code that fits what cannot be read; `None` if the stream has merely ended.
fn failure(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Capacity(_) => Some(CloseCode::TOO_BIG),
        Error::Utf8(_) => Some(CloseCode::NOT_TEXT),
        Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake
            | ProtocolError::ReceivedAfterClosing
            | ProtocolError::SendAfterClosing,
        ) => None,
        Error::Protocol(_) => Some(CloseCode::WEBSOCKET_PROTOCOL),
        _ => None,
    }
}

/// What is said to a peer whose bytes cannot be read, by the code of [`SocketEvent::Closed`]; `None`
/// if there is nothing to say, or nobody to say it to.
pub(crate) fn farewell(code: Option<u16>) -> Option<(CloseCode, &'static str)> {
    match code.map(CloseCode) {
        Some(CloseCode::TOO_BIG) => Some((CloseCode::TOO_BIG, "the message is too large")),
        Some(CloseCode::NOT_TEXT) => Some((CloseCode::NOT_TEXT, "the text is not UTF-8")),
        Some(CloseCode::TOO_MANY_FRAMES) => {
            Some((CloseCode::TOO_MANY_FRAMES, "more frames come than allowed"))
        }
        Some(CloseCode::WEBSOCKET_PROTOCOL) => {
            Some((CloseCode::WEBSOCKET_PROTOCOL, "that is no WebSocket frame"))
        }
        _ => None,
    }
}

/// A WebSocket with a queue of frames to send.
///
/// The queue has no bound of its own: whoever fills it counts what has been written
/// ([`SocketEvent::Wrote`]) and keeps a window.
#[derive(Debug)]
pub struct Socket<S> {
    stream: WebSocketStream<S>,
    queue: VecDeque<Message>,
    unflushed: usize,
    bucket: Option<Bucket>,
    close_timeout: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Socket<S> {
    /// Takes over an open WebSocket.
    pub fn new(stream: WebSocketStream<S>, limits: &Limits) -> Self {
        Self {
            stream,
            queue: VecDeque::new(),
            unflushed: 0,
            // Tokio's clock, as for every timer of a driver: a simulation moves it.
            bucket: limits.frame_rate.map(|rate| Bucket::full(rate, Instant::now())),
            close_timeout: limits.close_timeout,
        }
    }

    /// Queues a text frame. The bytes must be UTF-8; JSON always is.
    pub fn queue(&mut self, text: Bytes) {
        if let Ok(text) = Utf8Bytes::try_from(text) {
            self.queue.push_back(Message::Text(text));
        }
    }

    /// Queues a ping frame. It counts as written like any other frame.
    pub fn queue_ping(&mut self) {
        self.queue.push_back(Message::Ping(Bytes::new()));
    }

    /// Waits until something happens. With `read` false, nothing is taken from the network.
    ///
    /// Cancel safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self, read: bool) -> SocketEvent {
        poll_fn(|cx| self.poll_next(cx, read)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<SocketEvent> {
        match self.poll_write(cx) {
            Poll::Ready(Ok(frames)) => return Poll::Ready(SocketEvent::Wrote(frames)),
            Poll::Ready(Err(_)) => return Poll::Ready(SocketEvent::Closed { code: None }),
            Poll::Pending => {}
        }
        if !read {
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(_)))
                // Tokio's clock again, which is virtual in a simulation.
                if self.bucket.as_mut().is_some_and(|bucket| !bucket.take(Instant::now())) =>
            {
                mark!("net.too_many_frames");
                Poll::Ready(SocketEvent::Closed { code: Some(CloseCode::TOO_MANY_FRAMES.0) })
            }
            Poll::Ready(message) => Poll::Ready(match message {
                Some(Ok(Message::Text(text))) => SocketEvent::Text(text),
                Some(Ok(Message::Binary(bytes))) => SocketEvent::Binary(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                    SocketEvent::Alive
                }
                Some(Ok(Message::Close(frame))) => {
                    SocketEvent::Closed { code: frame.map(|frame| frame.code.into()) }
                }
                Some(Err(error)) => {
                    SocketEvent::Closed { code: failure(&error).map(|code| code.0) }
                }
                None => SocketEvent::Closed { code: None },
            }),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        while !self.queue.is_empty() {
            match Pin::new(&mut self.stream).poll_ready(cx)? {
                Poll::Pending => break,
                Poll::Ready(()) => {
                    if let Some(message) = self.queue.pop_front() {
                        Pin::new(&mut self.stream).start_send(message)?;
                        self.unflushed += 1;
                    }
                }
            }
        }
        if self.unflushed == 0 {
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_flush(cx)? {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Ok(std::mem::take(&mut self.unflushed))),
        }
    }

    /// Sends what is queued and says goodbye, within the time limit, and drops the connection.
    pub async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        let close = async {
            while let Some(message) = self.queue.pop_front() {
                self.stream.send(message).await?;
            }
            self.stream.close(Some(frame)).await?;
            // The peer answers with its own close frame; only then has ours surely arrived.
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut self.stream).poll_next(cx)).await {}
            Ok::<_, Error>(())
        };
        // A peer that does not take the goodbye is dropped without it.
        let _ = tokio::time::timeout(self.close_timeout, close).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_as_many_as_come() {
        let number = |n| NonZeroU32::new(n).expect("not zero");
        let rate = FrameRate { per_second: number(10), burst: number(5) };
        // Any time will do: only what is added to it counts.
        let start = Instant::now();
        let mut bucket = Bucket::full(rate, start);
        let taken = |bucket: &mut Bucket, at| (0..100).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, start), 5);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(300)), 3);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(100)), 5, "no more than a burst");
    }
}
