//! The client's end of a connection, where the faults of its link are.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use turmoil::net::TcpStream;

use super::super::frames::{CLOSE, Counted, Frame, Piece, Splitter};
use super::super::host::Process;
use super::{Fate, Link, Orders, Reading, Watch};
use crate::plan::{Cut, Strange};
use crate::trace::{Fact, Kind, Passage, Text};

/// What is under a connection.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// How long the server does not learn that a client has let go of a connection whose packets do
    /// not get through.
    const GOODBYE_LOST: Duration;

    /// Ends it so that the server sees it break, if the network can tell that from a close.
    fn break_off(self);
}

/// Where the client is.
pub(crate) trait Site: Unpin {
    /// What the host of the client is called.
    fn name(&self) -> &str;

    /// Writes down what happens, and what of it a program can use.
    fn record(&self, kind: Kind, text: impl Into<Text>, fact: Option<Fact>);

    /// Ready while the client's process runs.
    fn poll_running(&self, cx: &Context<'_>) -> Poll<()>;
}

/// A connection that has opened.
pub(crate) struct Opened {
    /// Which of its link.
    pub(crate) number: u64,
    /// The client's port.
    pub(crate) port: u16,
    /// Nothing is ever said on it.
    pub(crate) silent: bool,
}

/// The client's end of a connection: passes bytes between the client and the wire, cuts them into
/// frames, writes each down, and does to them what the link says.
pub(crate) struct FaultyStream<W: Wire = TcpStream, S: Site = Process> {
    /// `None` once a fault has ended the connection.
    stream: Option<W>,
    link: Link,
    site: S,
    watch: Arc<dyn Watch>,
    number: u64,
    /// Whether it carries requests instead of frames.
    requests: bool,
    up_dead: bool,
    down_dead: bool,
    /// The client has said goodbye. What comes later tells it nothing [RFC 6455, 7.1.1].
    closed: bool,
    end: Option<End>,
    received: Counted,
    sent: Counted,
    incoming: Splitter,
    /// Where bytes from the network land first.
    chunk: Box<[u8; 4096]>,
    /// What the client may read.
    ready: BytesMut,
    outgoing: Splitter,
    /// What the network has not yet taken.
    unsent: BytesMut,
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// As after a close.
    Quiet,
    /// As after a reset.
    Reset,
}

/// How much may wait for the network before the client has to.
const UNSENT_MAX: usize = 64 << 10;

impl<W: Wire, S: Site> FaultyStream<W, S> {
    /// A connection of a link.
    pub(crate) fn new(wire: W, link: Link, site: S, watch: Arc<dyn Watch>, opened: Opened) -> Self {
        let Opened { number, port, silent } = opened;
        let client = site.name().into();
        Self {
            stream: Some(wire),
            link,
            site,
            watch,
            number,
            requests: false,
            up_dead: silent,
            down_dead: silent,
            closed: false,
            end: None,
            received: Counted::new(&client, port, false),
            sent: Counted::new(&client, port, true),
            incoming: Splitter::default(),
            ready: BytesMut::new(),
            outgoing: Splitter::default(),
            unsent: BytesMut::new(),
            chunk: Box::new([0; 4096]),
            pause: None,
        }
    }

    fn record(&self, kind: Kind, text: impl Into<Text>) {
        self.site.record(kind, text, None);
    }

    fn record_frame(&self, kind: Kind, text: impl Into<Text>, passage: &Passage) {
        self.site.record(kind, text, Some(Fact::Frame(passage.clone())));
    }

    /// Whether nothing of what the client says gets through, its goodbye included.
    pub(crate) fn is_deaf(&self) -> bool {
        self.up_dead
    }

    /// The client has broken the connection.
    pub(crate) fn break_off(&mut self) {
        self.finish(End::Reset);
    }

    /// Carries out a cut.
    fn cut(&mut self, how: Cut) {
        let text = format!("connection {} is cut: {how:?}", self.number);
        self.site.record(Kind::Drop, text, Some(Fact::Cut(how)));
        match how {
            Cut::Close => {
                let mut reason = 1012_u16.to_be_bytes().to_vec();
                reason.extend_from_slice(b"restart");
                self.ready.extend_from_slice(&Frame::encode(CLOSE, &reason, false));
                self.finish(End::Quiet);
            }
            Cut::Reset | Cut::MidFrame => self.finish(End::Reset),
            Cut::HalfOpen => (self.up_dead, self.down_dead) = (true, true),
            Cut::HalfOpenUp => self.up_dead = true,
            Cut::HalfOpenDown => self.down_dead = true,
        }
    }

    fn finish(&mut self, end: End) {
        if let Some(wire) = self.stream.take()
            && end == End::Reset
        {
            wire.break_off();
        }
        self.incoming.clear();
        self.end = Some(end);
    }

    /// Frames that came in, as far as the link lets them through. The state's lock is not held
    /// while a cut is carried out.
    fn take_in(&mut self) {
        while self.end.is_none() && !self.down_dead {
            match self.incoming.next() {
                None => return,
                Some(Piece::Http(bytes)) => self.http_in(&bytes),
                Some(Piece::Part(bytes)) => self.ready.extend_from_slice(&bytes),
                Some(Piece::Frame(frame)) => self.frame_in(&frame),
            }
        }
    }

    /// The head of an answer, or what follows it.
    fn http_in(&mut self, bytes: &[u8]) {
        if self.requests && bytes.starts_with(b"HTTP/") {
            let lost = self.link.answer_is_lost();
            let kind = if lost { Kind::Drop } else { Kind::Receive };
            self.record(kind, first_line(bytes));
            if lost {
                return self.finish(End::Reset);
            }
        }
        self.ready.extend_from_slice(bytes);
    }

    /// The head of a request, or what follows it. Only now it is known what the connection is for.
    fn http_out(&mut self, bytes: &[u8]) {
        if self.outgoing.upgraded() {
            self.link.upgraded(self.number);
        } else if !self.requests {
            self.requests = true;
            self.record(Kind::Send, first_line(bytes));
        }
    }

    fn frame_in(&mut self, frame: &Frame) {
        let passage = &self.received.next(&frame.payload);
        let fate = self.link.frame_in(self.number, frame, &*self.watch);
        let Fate { lost, twice, cut, answer } = fate;
        let mut frame = frame.clone();
        if let Some(how) = answer {
            let text = format!("becomes {how:?}: {}", frame.describe());
            self.record_frame(Kind::Drop, text, passage);
            match self.watch.changed(&frame, how) {
                Some(other) => frame = other,
                None => {
                    self.watch.taken_away(self.number, &frame);
                    return cut.into_iter().for_each(|how| self.cut(how));
                }
            }
        }
        if !self.closed {
            self.watch.arrived(self.number, &frame);
        }
        if let Some(how) = cut {
            if how == Cut::MidFrame {
                let half = &frame.wire[..frame.wire.len() / 2];
                self.record_frame(Kind::Drop, frame.said("half of: "), passage);
                self.ready.extend_from_slice(half);
            } else if how == Cut::HalfOpenUp {
                // What the server says still arrives.
                self.record_frame(Kind::Receive, frame.said(""), passage);
                self.ready.extend_from_slice(&frame.wire);
            } else {
                self.record_frame(Kind::Drop, frame.said(""), passage);
            }
            return self.cut(how);
        }
        if lost {
            return self.record_frame(Kind::Drop, frame.said(""), passage);
        }
        self.record_frame(Kind::Receive, frame.said(""), passage);
        self.ready.extend_from_slice(&frame.wire);
        if twice {
            self.record_frame(Kind::Receive, frame.said("again: "), passage);
            self.ready.extend_from_slice(&frame.wire);
        }
    }

    /// Writes down a frame of the client. One that is lost is not given to the network, and not
    /// counted.
    fn frame_out(&mut self, frame: &Frame, lost: bool, twice: bool) {
        let kind = if self.up_dead { Kind::Drop } else { Kind::Send };
        if lost {
            self.record(Kind::Drop, frame.said(""));
        } else {
            let passage = self.sent.next(&frame.payload);
            self.record_frame(kind, frame.said(""), &passage);
        }
        self.watch.sent(self.number, frame);
        self.closed |= frame.opcode == CLOSE;
        if twice && !self.up_dead {
            let passage = self.sent.next(&frame.payload);
            self.record_frame(kind, frame.said("again: "), &passage);
            self.unsent.extend_from_slice(&frame.wire);
        }
    }

    /// Does what has to be done at once, and puts in strange frames where no frame is torn.
    fn obey(&mut self, cx: &Context<'_>) -> Reading {
        let for_client = self.incoming.at_boundary() && !self.down_dead;
        let for_server = self.outgoing.at_boundary() && !self.up_dead;
        let orders = self.link.orders(self.number, for_client, for_server, cx.waker());
        let Orders { reading, cut, to_client, to_server } = orders;
        if self.end.is_none() {
            if let Some(frame) = to_client {
                let wire = match frame {
                    Strange::StaleAnswer => self.link.stale_answer(self.number),
                    _ => self.watch.strange(frame, false),
                };
                self.record(Kind::Receive, format_args!("strange frame: {frame:?}"));
                self.ready.extend_from_slice(&wire);
            }
            if let Some(frame) = to_server {
                let wire = self.watch.strange(frame, true);
                let text = format!("strange frame: {frame:?}");
                let passage = self.sent.next(&Bytes::new());
                self.record_frame(Kind::Send, text, &passage);
                self.unsent.extend_from_slice(&wire);
            }
            if let Some(how) = cut {
                self.cut(how);
            }
        }
        reading
    }

    /// Hands to the network what it takes.
    fn push_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let Some(stream) = &mut self.stream else {
                self.unsent.clear();
                break;
            };
            match Pin::new(stream).poll_write(cx, &self.unsent)? {
                Poll::Ready(written) => self.unsent.advance(written),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: Wire, S: Site> AsyncRead for FaultyStream<W, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        std::task::ready!(this.site.poll_running(cx));
        let reading = this.obey(cx);
        // What was put in for the server must leave even if the client writes nothing.
        if let Poll::Ready(Err(error)) = this.push_out(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            if !this.ready.is_empty() {
                let length = this.ready.len().min(buffer.remaining());
                buffer.put_slice(&this.ready[..length]);
                this.ready.advance(length);
                return Poll::Ready(Ok(()));
            }
            match this.end {
                Some(End::Quiet) => return Poll::Ready(Ok(())),
                Some(End::Reset) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None => {}
            }
            match reading {
                _ if this.down_dead => return Poll::Pending,
                Reading::Stopped => return Poll::Pending,
                Reading::Paused(pause) => {
                    let sleep =
                        this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
                    std::task::ready!(sleep.as_mut().poll(cx));
                }
                Reading::Normal => {}
            }
            let mut chunk = ReadBuf::new(&mut this.chunk[..]);
            let Some(stream) = &mut this.stream else { return Poll::Pending };
            match Pin::new(stream).poll_read(cx, &mut chunk) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if chunk.filled().is_empty() => {
                    this.record(
                        Kind::Life,
                        format_args!("connection {} ended by the server", this.number),
                    );
                    this.finish(End::Quiet);
                }
                Poll::Ready(Ok(())) => {
                    this.pause = None;
                    this.incoming.push(chunk.filled());
                    this.take_in();
                }
            }
        }
    }
}

impl<W: Wire, S: Site> AsyncWrite for FaultyStream<W, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        std::task::ready!(this.site.poll_running(cx));
        this.obey(cx);
        if this.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if let Poll::Ready(Err(error)) = this.push_out(cx) {
            return Poll::Ready(Err(error));
        }
        if this.unsent.len() >= UNSENT_MAX {
            return Poll::Pending;
        }
        this.outgoing.push(bytes);
        while let Some(piece) = this.outgoing.next() {
            let wire = match piece {
                Piece::Http(bytes) => {
                    this.http_out(&bytes);
                    this.watch.head(bytes)
                }
                Piece::Part(bytes) => bytes,
                Piece::Frame(frame) => {
                    let (lost, twice) = this.link.frame_out(this.number, &frame, &*this.watch);
                    this.frame_out(&frame, lost, twice);
                    if lost { Bytes::new() } else { frame.wire }
                }
            };
            if !this.up_dead {
                this.unsent.extend_from_slice(&wire);
            }
        }
        if let Poll::Ready(Err(error)) = this.push_out(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        std::task::ready!(this.site.poll_running(cx));
        std::task::ready!(this.push_out(cx))?;
        match &mut this.stream {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<W: Wire, S: Site> Drop for FaultyStream<W, S> {
    fn drop(&mut self) {
        if self.up_dead
            && let Some(stream) = self.stream.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                tokio::time::sleep(W::GOODBYE_LOST).await;
                drop(stream);
            });
        }
    }
}

/// The first line of an HTTP head.
fn first_line(head: &[u8]) -> String {
    String::from_utf8_lossy(head).lines().next().unwrap_or_default().to_owned()
}
