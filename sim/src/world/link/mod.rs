//! What is wrong with a link, and what becomes of the frames on it.
//!
//! [`Link`] decides; [`FaultyStream`] carries it out on one connection, in the simulated network and
//! on a real one ([`crate::proxy`]). Only the newest connection of a client is hit.

mod stream;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use gapless::net::Connector;
use turmoil::net::TcpStream;

pub(crate) use self::stream::{FaultyStream, Opened, Site, Wire};
use super::frames::Frame;
use super::host::Process;
use crate::plan::{Answer, Cut, Strange};
use crate::trace::{Fact, Kind, Text};

/// What a link knows of the protocol that is spoken on it.
pub(crate) trait Watch: Send + Sync {
    /// The head of a request, or what follows it, as it goes on to the server.
    fn head(&self, bytes: Bytes) -> Bytes {
        bytes
    }

    /// A frame of the client has left for the server, on a connection by number.
    fn sent(&self, connection: u64, frame: &Frame);

    /// A frame of the server came out of the network, before anything could happen to it, and before
    /// the client closed the connection.
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
    to_the_client: Toll,
    to_the_server: Toll,
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
    /// Whether the newest connection carries frames.
    frames: bool,
    waker: Option<Waker>,
}

/// What becomes of the next payloads in one direction.
#[derive(Default)]
struct Toll {
    lose: u32,
    duplicate: u32,
}

impl Toll {
    /// Whether the next payload is lost, and whether it comes twice.
    fn take(&mut self) -> (bool, bool) {
        if self.lose > 0 {
            self.lose -= 1;
            (true, false)
        } else if self.duplicate > 0 {
            self.duplicate -= 1;
            (false, true)
        } else {
            (false, false)
        }
    }
}

/// What becomes of a frame.
#[derive(Default)]
struct Fate {
    lost: bool,
    twice: bool,
    /// The connection ends with it.
    cut: Option<Cut>,
    /// It says something else.
    answer: Option<Answer>,
}

/// What a connection has to do at once.
#[derive(Default)]
struct Orders {
    reading: Reading,
    cut: Option<Cut>,
    to_client: Option<Strange>,
    to_server: Option<Strange>,
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
        self.change(|state| state.to_the_client.lose += frames);
    }

    pub(crate) fn duplicate(&self, frames: u32) {
        self.change(|state| state.to_the_client.duplicate += frames);
    }

    pub(crate) fn lose_to_server(&self, frames: u32) {
        self.change(|state| state.to_the_server.lose += frames);
    }

    pub(crate) fn duplicate_to_server(&self, frames: u32) {
        self.change(|state| state.to_the_server.duplicate += frames);
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

impl Link {
    /// What becomes of a new connection now.
    pub(crate) fn connecting(&self) -> Connecting {
        self.state().connecting
    }

    /// Counts a new connection, and names it.
    pub(crate) fn opens(&self) -> u64 {
        let mut state = self.state();
        state.opened += 1;
        state.opened
    }

    /// From here on the connection is the newest, and the one that is hit.
    pub(crate) fn is_newest(&self, number: u64) {
        self.change(|state| state.newest = number);
    }

    /// Whether the newest connection carries frames.
    pub(crate) fn carries_frames(&self) -> bool {
        self.state().frames
    }

    /// Frames follow on a connection, and on none that is older.
    fn upgraded(&self, number: u64) {
        let mut state = self.state();
        state.newest = number;
        state.frames = true;
        state.cut = None;
        state.after_discard = None;
    }

    /// Whether the answer to a request does not arrive.
    fn answer_is_lost(&self) -> bool {
        let mut state = self.state();
        let lost = state.lose_answers > 0;
        state.lose_answers -= u32::from(lost);
        lost
    }

    /// What becomes of a frame of the server.
    fn frame_in(&self, number: u64, frame: &Frame, watch: &dyn Watch) -> Fate {
        let (is_payload, is_answer) = (watch.is_payload(frame), watch.is_answer(frame));
        let mut fate = Fate::default();
        let mut state = self.state();
        if state.newest != number {
            return fate;
        }
        if is_payload {
            (fate.lost, fate.twice) = state.to_the_client.take();
        }
        if is_answer {
            state.answered = Some((number, frame.wire.clone()));
            fate.answer = state.answer.take();
            if fate.answer == Some(Answer::DiscardAll) {
                // Who said so is gone soon: the other one knows nothing of it until the next hello.
                state.after_discard = Some(FRAMES_AFTER_DISCARD);
            }
        }
        match &mut state.after_discard {
            Some(0) => {
                fate.cut = Some(Cut::Reset);
                state.after_discard = None;
            }
            Some(frames) => *frames -= 1,
            None => {}
        }
        match &mut state.cut {
            Some((how, 0)) => {
                fate.cut = Some(*how);
                state.cut = None;
            }
            Some((_, frames)) => *frames -= 1,
            None => {}
        }
        fate
    }

    /// What becomes of a frame of the client: whether it is lost, and whether it comes twice.
    fn frame_out(&self, number: u64, frame: &Frame, watch: &dyn Watch) -> (bool, bool) {
        let mut state = self.state();
        match state.newest == number && watch.is_payload(frame) {
            true => state.to_the_server.take(),
            false => (false, false),
        }
    }

    /// What a connection has to do at once, on which a frame may be put in for the client, or for the
    /// server; `waker` is woken when something changes.
    fn orders(&self, number: u64, for_client: bool, for_server: bool, waker: &Waker) -> Orders {
        let mut state = self.state();
        if state.newest != number {
            return Orders::default();
        }
        state.waker = Some(waker.clone());
        let cut = match state.cut {
            // A cut in the middle of a frame, or after some, waits for frames.
            Some((how, 0)) if how != Cut::MidFrame => state.cut.take().map(|(how, _)| how),
            _ => None,
        };
        Orders {
            reading: state.reading,
            cut,
            to_client: if for_client { state.to_client.pop_front() } else { None },
            to_server: if for_server { state.to_server.pop_front() } else { None },
        }
    }

    /// The newest answer to a greeting on an earlier connection; nothing if there is none.
    fn stale_answer(&self, number: u64) -> Bytes {
        let state = self.state();
        let stale = state.answered.as_ref().filter(|it| it.0 < number);
        stale.map(|it| it.1.clone()).unwrap_or_default()
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
            let connecting = link.connecting();
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
            let number = link.opens();
            process.record_fact(Kind::Life, format_args!("connection {number} opens"), Fact::Opens);
            let silent = connecting == Connecting::NeverAnswered;
            let opened = Opened { number, port: stream.local_addr()?.port(), silent };
            Ok(FaultyStream::new(stream, link, process, watch, opened))
        }
    }
}

impl Wire for TcpStream {
    const GOODBYE_LOST: Duration = Duration::from_secs(3_600);

    fn break_off(self) {}
}

impl Site for Process {
    fn name(&self) -> &str {
        self.name
    }

    fn record(&self, kind: Kind, text: impl Into<Text>, fact: Option<Fact>) {
        self.recorder.record(self.name, self.life, kind, text, fact);
    }

    fn poll_running(&self, cx: &Context<'_>) -> Poll<()> {
        self.pause.poll_running(cx)
    }
}

/// How many frames arrive after an answer that discards everything.
const FRAMES_AFTER_DISCARD: u32 = 6;

/// Larger than the limit of every receiver in the world.
pub(crate) const OVERSIZE: usize = super::MESSAGE_BYTES_MAX + 1;
