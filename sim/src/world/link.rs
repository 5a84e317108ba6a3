//! The client's end of a connection, where the faults of links are.
//!
//! [`FaultyStream`] passes bytes between the client's driver and turmoil's TCP stream, cuts them
//! into frames, writes each down, and does to them what the link's state says. Only the newest
//! connection of a client is hit.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use gapless::net::Connector;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use turmoil::net::TcpStream;

use super::frames::{CLOSE, Counted, Frame, Piece, Splitter};
use super::host::Process;
use crate::plan::{Answer, Cut, Strange};
use crate::trace::{Fact, Kind, Passage};

/// What a link knows of the protocol that is spoken on it.
pub(crate) trait Watch: Send + Sync {
    /// A frame of the client has left for the server, on a connection by number.
    fn sent(&self, connection: u64, frame: &Frame);

    /// A frame of the server came out of the network, before anything could happen to it.
    fn arrived(&self, connection: u64, frame: &Frame);

    /// An answer to a greeting came out of the network, and a fault took it.
    fn taken_away(&self, _connection: u64, _frame: &Frame) {}

    /// Whether the frame carries something that may be lost or doubled by a peer's mistake.
    fn is_payload(&self, frame: &Frame) -> bool;

    /// Whether the frame answers a greeting.
    fn is_answer(&self, _frame: &Frame) -> bool {
        false
    }

    /// An answer to a greeting that says something else; `None` if it does not come.
    fn changed(&self, frame: &Frame, _how: Answer) -> Option<Frame> {
        Some(frame.clone())
    }

    /// A frame that does not belong there.
    fn strange(&self, frame: Strange, to_server: bool) -> Bytes;
}

/// What is wrong with the link of one client. Shared by the world and the client's connections.
#[derive(Clone, Default)]
pub(crate) struct Link(Arc<Mutex<LinkState>>);

#[derive(Default)]
struct LinkState {
    connecting: Connecting,
    reading: Reading,
    cut: Option<(Cut, u32)>,
    lose: u32,
    duplicate: u32,
    /// What the next answer to a greeting says instead.
    answer: Option<Answer>,
    /// How many frames more arrive after an answer that discards everything.
    after_discard: Option<u32>,
    /// How many requests get no answer.
    lose_answers: u32,
    /// The newest answer to a greeting, and its connection.
    answered: Option<(u64, Bytes)>,
    to_client: VecDeque<Strange>,
    to_server: VecDeque<Strange>,
    /// How many connections there have been.
    opened: u64,
    /// The newest connection for frames; older ones, and those for requests, are left alone.
    newest: u64,
    waker: Option<Waker>,
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Connecting {
    #[default]
    Works,
    /// The port is closed.
    Refused,
    /// Packets get no answer.
    Lost,
    /// The connection opens and nothing is ever said on it.
    NeverAnswered,
}

/// How the client's machine reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    #[default]
    Normal,
    Stopped,
    Paused(Duration),
}

impl Link {
    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something and lets the connection see it.
    fn change(&self, change: impl FnOnce(&mut LinkState)) {
        let waker = {
            let mut state = self.state();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn set_connecting(&self, connecting: Connecting) {
        self.change(|state| state.connecting = connecting);
    }

    pub(crate) fn set_reading(&self, reading: Reading) {
        self.change(|state| state.reading = reading);
    }

    pub(crate) fn cut(&self, how: Cut, after_frames: u32) {
        self.change(|state| state.cut = Some((how, after_frames)));
    }

    pub(crate) fn lose(&self, frames: u32) {
        self.change(|state| state.lose += frames);
    }

    pub(crate) fn duplicate(&self, frames: u32) {
        self.change(|state| state.duplicate += frames);
    }

    pub(crate) fn answer(&self, how: Answer) {
        self.change(|state| state.answer = Some(how));
    }

    pub(crate) fn lose_answers(&self, times: u32) {
        self.change(|state| state.lose_answers += times);
    }

    pub(crate) fn inject(&self, frame: Strange, to_server: bool) {
        self.change(|state| match to_server {
            true => state.to_server.push_back(frame),
            false => state.to_client.push_back(frame),
        });
    }

    /// Nothing is wrong any more. What was already done to a connection stays done.
    pub(crate) fn heal(&self) {
        self.change(|state| {
            let (opened, newest, after_discard) = (state.opened, state.newest, state.after_discard);
            let (waker, answered) = (state.waker.take(), state.answered.take());
            *state = LinkState {
                opened,
                newest,
                after_discard,
                waker,
                answered,
                ..LinkState::default()
            };
        });
    }
}

/// Connects a client to the server over its link.
pub(crate) struct LinkConnector {
    pub(crate) server: &'static str,
    pub(crate) watch: Arc<dyn Watch>,
    pub(crate) link: Link,
    pub(crate) process: Process,
}

/// Where the server listens.
pub(crate) const PORT: u16 = 80;

impl Connector for LinkConnector {
    type Stream = FaultyStream;

    fn connect(&self) -> impl Future<Output = io::Result<FaultyStream>> + Send + 'static {
        let (server, watch) = (self.server, Arc::clone(&self.watch));
        let (link, process) = (self.link.clone(), self.process.clone());
        async move {
            let connecting = link.state().connecting;
            match connecting {
                Connecting::Refused => {
                    process.record(Kind::Life, "connection refused");
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Connecting::Lost => {
                    process.record(Kind::Life, "connecting, without an answer");
                    return std::future::pending().await;
                }
                Connecting::Works | Connecting::NeverAnswered => {}
            }
            let stream = match TcpStream::connect((server, PORT)).await {
                Ok(stream) => stream,
                Err(error) => {
                    process.record(Kind::Life, "connection refused");
                    return Err(io::Error::new(error.kind(), "connection refused"));
                }
            };
            let number = {
                let mut state = link.state();
                state.opened += 1;
                state.opened
            };
            process.record_fact(Kind::Life, format!("connection {number} opens"), Fact::Opens);
            let silent = connecting == Connecting::NeverAnswered;
            let (client, port) = (process.name.into(), stream.local_addr()?.port());
            Ok(FaultyStream {
                stream: Some(stream),
                link,
                process,
                watch,
                number,
                requests: false,
                up_dead: silent,
                down_dead: silent,
                end: None,
                received: Counted::new(&client, port, false),
                sent: Counted::new(&client, port, true),
                incoming: Splitter::default(),
                ready: BytesMut::new(),
                outgoing: Splitter::default(),
                unsent: BytesMut::new(),
                chunk: Box::new([0; 4096]),
                pause: None,
            })
        }
    }
}

/// The client's end of a connection.
pub(crate) struct FaultyStream {
    /// `None` once a fault has ended the connection.
    stream: Option<TcpStream>,
    link: Link,
    process: Process,
    watch: Arc<dyn Watch>,
    number: u64,
    /// Whether it carries requests instead of frames.
    requests: bool,
    up_dead: bool,
    down_dead: bool,
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

impl FaultyStream {
    fn record(&self, kind: Kind, text: String) {
        self.process.record(kind, text);
    }

    fn record_frame(&self, kind: Kind, text: String, passage: &Passage) {
        self.process.record_fact(kind, text, Fact::Frame(passage.clone()));
    }

    /// Carries out a cut.
    fn cut(&mut self, how: Cut) {
        let text = format!("connection {} is cut: {how:?}", self.number);
        self.process.record_fact(Kind::Drop, text, Fact::Cut(how));
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
        self.stream = None;
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
                Some(Piece::Frame(frame)) => self.frame_in(&frame),
            }
        }
    }

    /// The head of an answer, or what follows it.
    fn http_in(&mut self, bytes: &[u8]) {
        if self.requests && bytes.starts_with(b"HTTP/") {
            let lost = {
                let mut state = self.link.state();
                let lost = state.lose_answers > 0;
                state.lose_answers -= u32::from(lost);
                lost
            };
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
            let mut state = self.link.state();
            state.newest = self.number;
            state.cut = None;
            state.after_discard = None;
        } else if !self.requests {
            self.requests = true;
            self.record(Kind::Send, first_line(bytes));
        }
    }

    fn frame_in(&mut self, frame: &Frame) {
        let passage = &self.received.next(&frame.payload);
        let (is_payload, is_answer) = (self.watch.is_payload(frame), self.watch.is_answer(frame));
        let (mut lost, mut twice, mut cut) = (false, false, None);
        let mut changed = None;
        {
            let mut state = self.link.state();
            if state.newest == self.number {
                if is_payload && state.lose > 0 {
                    state.lose -= 1;
                    lost = true;
                } else if is_payload && state.duplicate > 0 {
                    state.duplicate -= 1;
                    twice = true;
                }
                if is_answer {
                    state.answered = Some((self.number, frame.wire.clone()));
                    changed = state.answer.take();
                    if changed == Some(Answer::DiscardAll) {
                        // Who said so is gone soon: the other one knows nothing of it until the next
                        // hello.
                        state.after_discard = Some(FRAMES_AFTER_DISCARD);
                    }
                }
                match &mut state.after_discard {
                    Some(0) => {
                        cut = Some(Cut::Reset);
                        state.after_discard = None;
                    }
                    Some(frames) => *frames -= 1,
                    None => {}
                }
                match &mut state.cut {
                    Some((how, 0)) => {
                        cut = Some(*how);
                        state.cut = None;
                    }
                    Some((_, frames)) => *frames -= 1,
                    None => {}
                }
            }
        }
        let mut frame = frame.clone();
        if let Some(how) = changed {
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
        self.watch.arrived(self.number, &frame);
        if let Some(how) = cut {
            if how == Cut::MidFrame {
                let half = &frame.wire[..frame.wire.len() / 2];
                let text = format!("half of: {}", frame.describe());
                self.record_frame(Kind::Drop, text, passage);
                self.ready.extend_from_slice(half);
            } else if how == Cut::HalfOpenUp {
                // What the server says still arrives.
                self.record_frame(Kind::Receive, frame.describe(), passage);
                self.ready.extend_from_slice(&frame.wire);
            } else {
                self.record_frame(Kind::Drop, frame.describe(), passage);
            }
            return self.cut(how);
        }
        if lost {
            return self.record_frame(Kind::Drop, frame.describe(), passage);
        }
        self.record_frame(Kind::Receive, frame.describe(), passage);
        self.ready.extend_from_slice(&frame.wire);
        if twice {
            self.record_frame(Kind::Receive, format!("again: {}", frame.describe()), passage);
            self.ready.extend_from_slice(&frame.wire);
        }
    }

    /// Does what has to be done at once, and puts in strange frames where no frame is torn.
    fn obey(&mut self, cx: &Context<'_>) -> Reading {
        let mut state = self.link.state();
        if state.newest != self.number {
            return Reading::Normal;
        }
        state.waker = Some(cx.waker().clone());
        let reading = state.reading;
        let cut = match state.cut {
            // A cut in the middle of a frame, or after some, waits for frames.
            Some((how, 0)) if how != Cut::MidFrame => state.cut.take().map(|(how, _)| how),
            _ => None,
        };
        let to_client = match self.incoming.at_boundary() && !self.down_dead {
            true => state.to_client.pop_front(),
            false => None,
        };
        let to_server = match self.outgoing.at_boundary() && !self.up_dead {
            true => state.to_server.pop_front(),
            false => None,
        };
        drop(state);
        if self.end.is_none() {
            if let Some(frame) = to_client {
                let wire = match frame {
                    Strange::StaleAnswer => {
                        let state = self.link.state();
                        let stale = state.answered.as_ref().filter(|it| it.0 < self.number);
                        stale.map(|it| it.1.clone()).unwrap_or_default()
                    }
                    _ => self.watch.strange(frame, false),
                };
                self.record(Kind::Receive, format!("strange frame: {frame:?}"));
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

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        std::task::ready!(this.process.pause.poll_running(cx));
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
                        format!("connection {} ended by the server", this.number),
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

impl AsyncWrite for FaultyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        std::task::ready!(this.process.pause.poll_running(cx));
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
                    bytes
                }
                Piece::Frame(frame) => {
                    let kind = if this.up_dead { Kind::Drop } else { Kind::Send };
                    let passage = this.sent.next(&frame.payload);
                    this.record_frame(kind, frame.describe(), &passage);
                    this.watch.sent(this.number, &frame);
                    frame.wire
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
        std::task::ready!(this.process.pause.poll_running(cx));
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

/// How long the server does not learn that a client has let go of a connection whose packets do
/// not get through.
const UNDELIVERED_GOODBYE: Duration = Duration::from_secs(3_600);

impl Drop for FaultyStream {
    fn drop(&mut self) {
        if self.up_dead
            && let Some(stream) = self.stream.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                tokio::time::sleep(UNDELIVERED_GOODBYE).await;
                drop(stream);
            });
        }
    }
}

/// The first line of an HTTP head.
fn first_line(head: &[u8]) -> String {
    String::from_utf8_lossy(head).lines().next().unwrap_or_default().to_owned()
}

/// How many frames arrive after an answer that discards everything.
const FRAMES_AFTER_DISCARD: u32 = 6;

/// Larger than the limit of every receiver in the world.
pub(crate) const OVERSIZE: usize = super::MESSAGE_BYTES_MAX + 1;
