//! One real connection: bytes between a client's socket and the faulty connection to the upstream.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use super::Pace;
use crate::world::link::{FaultyStream, Site, Wire};

/// How much may be on its way in one direction, in bytes; who sends more has to wait.
const LANE_BYTES_MAX: usize = 256 << 10;

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 16 << 10;

/// How long a client may take to close after the server has.
const CLIENT_GOODBYE_MAX: Duration = Duration::from_secs(2);

/// How long a server may take to close after the client has said all that it will say.
const SERVER_GOODBYE_MAX: Duration = Duration::from_secs(60);

/// A connection to the upstream, as fast as the link lets it be, and its place among those that may be
/// open.
pub(crate) struct Upstream {
    stream: TcpStream,
    pace: Pace,
    up: Lane,
    down: Lane,
    timer: Pin<Box<Sleep>>,
    chunk: Box<[u8; CHUNK_BYTES]>,
    _place: OwnedSemaphorePermit,
}

impl Upstream {
    pub(crate) fn new(stream: TcpStream, pace: Pace, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            pace,
            up: Lane::default(),
            down: Lane::default(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            chunk: Box::new([0; CHUNK_BYTES]),
            _place: place,
        }
    }

    /// Lets move what is on its way, and takes from the network if that is wanted; whether what has
    /// come may be read now.
    fn advance(&mut self, cx: &mut Context<'_>, reads: bool) -> bool {
        loop {
            let (held, latency) = self.pace.look(cx);
            let mut moved = false;
            if reads {
                moved |=
                    self.down.fill(cx, Pin::new(&mut self.stream), &mut self.chunk[..], latency);
            }
            if !held {
                moved |= self.up.drain(cx, Pin::new(&mut self.stream));
                if self.up.ending().is_some() {
                    // If it cannot be told, it will be found out by reading.
                    self.up.over = Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
                }
            }
            if moved {
                continue;
            }
            let dues = [self.up.due(), self.down.due()];
            if held || !sleeps(&mut self.timer, cx, dues) {
                return !held;
            }
        }
    }
}

/// Sleeps until the first of some times that is not over yet; false while that lasts, or if there is
/// none. What is due already waits for something else.
fn sleeps(
    timer: &mut Pin<Box<Sleep>>,
    cx: &mut Context<'_>,
    times: impl IntoIterator<Item = Option<Instant>>,
) -> bool {
    let now = Instant::now();
    let Some(next) = times.into_iter().flatten().filter(|at| *at > now).min() else {
        return false;
    };
    if timer.deadline() != next {
        timer.as_mut().reset(next);
    }
    timer.as_mut().poll(cx).is_ready()
}

impl Wire for Upstream {
    const GOODBYE_LOST: Duration = Duration::from_secs(600);

    fn break_off(self) {
        break_off(&self.stream);
    }
}

/// Makes the end of a connection a reset.
pub(crate) fn break_off(stream: &TcpStream) {
    // One that has ended by itself needs none.
    let _ = stream.set_zero_linger();
}

impl AsyncRead for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.advance(cx, true) {
            true => self.down.read(buffer),
            false => Poll::Pending,
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.advance(cx, false);
        if self.up.over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.up.bytes >= LANE_BYTES_MAX {
            return Poll::Pending;
        }
        let (_, latency) = self.pace.look(cx);
        self.up.push(bytes, latency);
        self.advance(cx, false);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.advance(cx, false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.up.end.get_or_insert(End::Close);
        self.advance(cx, false);
        Poll::Ready(Ok(()))
    }
}

/// How a direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Close,
    Reset,
}

/// What is on its way in one direction.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// Nothing follows what waits.
    end: Option<End>,
    /// That was passed on, or nobody is there to take it.
    over: bool,
    passed: u64,
}

impl Lane {
    /// Takes what there is; whether there was something.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut impl AsyncRead>,
        chunk: &mut [u8],
        latency: Duration,
    ) -> bool {
        if self.end.is_some() || self.bytes >= LANE_BYTES_MAX {
            return false;
        }
        let mut chunk = ReadBuf::new(chunk);
        match from.poll_read(cx, &mut chunk) {
            Poll::Pending => return false,
            Poll::Ready(Err(_)) => self.end = Some(End::Reset),
            Poll::Ready(Ok(())) if chunk.filled().is_empty() => self.end = Some(End::Close),
            Poll::Ready(Ok(())) if self.over => {}
            Poll::Ready(Ok(())) => self.push(chunk.filled(), latency),
        }
        true
    }

    fn push(&mut self, bytes: &[u8], latency: Duration) {
        self.bytes += bytes.len();
        self.waiting.push_back((Instant::now() + latency, Bytes::copy_from_slice(bytes)));
    }

    /// Hands out what is due, and then how it ends.
    fn read(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match (self.waiting.front_mut(), self.end) {
            (Some((due, bytes)), _) if *due <= Instant::now() => {
                let length = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..length]);
                bytes.advance(length);
                self.bytes -= length;
                if bytes.is_empty() {
                    self.waiting.pop_front();
                }
                Poll::Ready(Ok(()))
            }
            (None, Some(End::Close)) => Poll::Ready(Ok(())),
            (None, Some(End::Reset)) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            (Some(_), _) | (None, None) => Poll::Pending,
        }
    }

    /// Passes on what is due; whether something was.
    fn drain(&mut self, cx: &mut Context<'_>, mut to: Pin<&mut impl AsyncWrite>) -> bool {
        let mut moved = false;
        while let Some((due, bytes)) = self.waiting.front_mut() {
            if *due > Instant::now() {
                break;
            }
            match to.as_mut().poll_write(cx, bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(written)) => {
                    bytes.advance(written);
                    self.bytes -= written;
                    self.passed += written as u64;
                    if bytes.is_empty() {
                        self.waiting.pop_front();
                    }
                }
                Poll::Ready(Err(_)) => self.give_up(),
            }
            moved = true;
        }
        moved
    }

    /// Nobody takes what waits.
    fn give_up(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
        self.over = true;
    }

    /// How it ends, once everything has been passed on, and that has not been.
    fn ending(&self) -> Option<End> {
        self.end.filter(|_| self.waiting.is_empty() && !self.over)
    }

    fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(due, _)| *due)
    }
}

/// How much a connection has carried, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) to_server: u64,
    pub(crate) to_client: u64,
}

/// A client's socket and the connection that it stands for.
pub(crate) struct Relay<S: Site> {
    client: TcpStream,
    server: FaultyStream<Upstream, S>,
    up: Lane,
    down: Lane,
    /// When the connection is over at the latest.
    goodbye: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    chunk: Box<[u8; CHUNK_BYTES]>,
}

impl<S: Site> Relay<S> {
    pub(crate) fn new(client: TcpStream, server: FaultyStream<Upstream, S>) -> Self {
        Self {
            client,
            server,
            up: Lane::default(),
            down: Lane::default(),
            goodbye: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            chunk: Box::new([0; CHUNK_BYTES]),
        }
    }

    /// Carries until both sides are done.
    pub(crate) async fn run(mut self) -> Carried {
        poll_fn(|cx| self.poll(cx)).await;
        Carried { to_server: self.up.passed, to_client: self.down.passed }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let (client, server) = (Pin::new(&mut self.client), Pin::new(&mut self.server));
            let mut moved = self.up.fill(cx, client, &mut self.chunk[..], Duration::ZERO);
            moved |= self.down.fill(cx, server, &mut self.chunk[..], Duration::ZERO);
            moved |= self.up.drain(cx, Pin::new(&mut self.server));
            moved |= self.down.drain(cx, Pin::new(&mut self.client));
            // What the server's socket did not take at once still leaves.
            let _ = Pin::new(&mut self.server).poll_flush(cx);
            if self.take_leave(cx) {
                return Poll::Ready(());
            }
            if !moved && !sleeps(&mut self.timer, cx, [self.goodbye]) {
                return Poll::Pending;
            }
        }
    }

    /// Passes on how the sides end; whether both have.
    fn take_leave(&mut self, cx: &mut Context<'_>) -> bool {
        if self.up.end.is_some() && self.server.is_deaf() {
            // The client is gone, and the server does not learn of it.
            return true;
        }
        if let Some(end) = self.up.ending() {
            match end {
                End::Reset => {
                    self.server.break_off();
                    return true;
                }
                End::Close => {
                    // If it cannot be told, it will be found out by reading.
                    if Pin::new(&mut self.server).poll_shutdown(cx).is_ready() {
                        self.up.over = true;
                        self.ends_within(SERVER_GOODBYE_MAX);
                    }
                }
            }
        }
        if let Some(end) = self.down.ending() {
            match end {
                End::Reset => {
                    break_off(&self.client);
                    return true;
                }
                End::Close => {
                    if Pin::new(&mut self.client).poll_shutdown(cx).is_ready() {
                        self.down.over = true;
                        self.ends_within(CLIENT_GOODBYE_MAX);
                    }
                }
            }
        }
        let late = self.goodbye.is_some_and(|at| at <= Instant::now());
        let up_is_done = self.up.end.is_some() && (self.up.over || self.up.waiting.is_empty());
        late || (self.down.over && up_is_done)
    }

    fn ends_within(&mut self, time: Duration) {
        let at = Instant::now() + time;
        self.goodbye = Some(self.goodbye.map_or(at, |goodbye| goodbye.min(at)));
    }
}

/// Reads from a client to whom nobody will answer, until it gives up.
pub(crate) async fn ignore(client: &mut TcpStream) {
    use tokio::io::AsyncReadExt as _;
    let mut chunk = [0; 1 << 10];
    while client.read(&mut chunk).await.is_ok_and(|length| length > 0) {}
}
