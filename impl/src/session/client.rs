//! The client's side of the session protocol, without I/O.
//!
//! A [`Client`] keeps one connection alive, applies each numbered frame once and in order to its
//! [`View`], and holds what the user said until the server has given its verdict [SE-4] [SE-5].
//!
//! It does not open sockets or store anything: the driver does, and reports back. Frames and
//! closings of a connection that has been replaced change nothing.

use std::sync::Arc;
use std::time::Duration;

use super::conversation::Input as UserInput;
use super::in_flight::Command;
use super::view::View;
use super::wire::{Attachment, ClientFrame, FrameError, ServerFrame};
use super::{CloseCode, ConnectionId, DialFailure, Name, StoreId, Ticket};
use crate::recovery::{BackoffConfig, Entropy, Epoch, Instant};
use crate::storage::StoreError;

/// The limits and intervals of a client. The defaults are those of the specification.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Whether the extension is offered.
    pub extension: bool,
    /// How long a connection may take to open, and then its first frame to come: 10 s.
    pub connect_timeout: Duration,
    /// How often the server sends a ping: 25 s. After two and a half times that without a frame
    /// the client connects anew [SE-9c].
    pub ping_every: Duration,
    /// The pauses between attempts to connect: 1 s to 10 s, ± 25 %.
    pub reconnect: BackoffConfig,
    /// How often what was applied is acknowledged: 5 s.
    pub ack_every: Duration,
    /// How long a verdict may take before the oldest input in flight is sent again: 30 s.
    pub ack_timeout: Duration,
    /// How many inputs may be in flight: 32.
    pub in_flight_max: usize,
    /// How long after opening the inputs in flight are sent to a base server: 1 s.
    pub base_grace: Duration,
    /// The longest input, text and attachments, in bytes: 64 KiB.
    pub text_bytes_max: usize,
    /// How many rows the view holds: 1,000; the oldest leave first.
    pub messages_max: usize,
    /// How many rejected inputs the view holds: 32; the oldest leave first.
    pub rejected_max: usize,
    /// The pauses between attempts to store: 100 ms to 5 s.
    pub store_retry: BackoffConfig,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            extension: true,
            connect_timeout: Duration::from_secs(10),
            ping_every: Duration::from_secs(25),
            reconnect: BackoffConfig {
                min: Duration::from_secs(1),
                max: Duration::from_secs(10),
                jitter_percent: 25,
            },
            ack_every: Duration::from_secs(5),
            ack_timeout: Duration::from_secs(30),
            in_flight_max: 32,
            base_grace: Duration::from_secs(1),
            text_bytes_max: 64 << 10,
            messages_max: 1_000,
            rejected_max: 32,
            store_retry: BackoffConfig {
                min: Duration::from_millis(100),
                max: Duration::from_secs(5),
                jitter_percent: 25,
            },
        }
    }
}

/// What can happen to a client.
#[derive(Debug)]
pub enum Input {
    /// Begin, with what was in flight when the last process ended.
    Start {
        /// In the order in which it was first sent.
        in_flight: Vec<UserInput>,
    },
    /// The connection is open.
    Opened {
        /// Which.
        conn: ConnectionId,
        /// Whether the server took up the offer of the extension.
        extension: bool,
    },
    /// The connection could not be opened.
    DialFailed {
        /// Which.
        conn: ConnectionId,
        /// Why.
        failure: DialFailure,
    },
    /// A frame arrived.
    Frame {
        /// Where.
        conn: ConnectionId,
        /// What.
        frame: ServerFrame,
    },
    /// A frame arrived that is none of the protocol's.
    Malformed {
        /// Where.
        conn: ConnectionId,
        /// What is wrong with it.
        error: FrameError,
    },
    /// A WebSocket ping or pong arrived: a sign of life and nothing else.
    Alive {
        /// Where.
        conn: ConnectionId,
    },
    /// The connection is gone.
    Closed {
        /// Which.
        conn: ConnectionId,
        /// The code of the close frame, if there was one.
        code: Option<CloseCode>,
    },
    /// The user says something; answered by [`Output::Submitted`].
    Submit {
        /// Names the request.
        ticket: Ticket,
        /// What.
        what: Submission,
    },
    /// The user wants to be connected: now, and also after the connection was superseded.
    Reconnect,
    /// The store answered.
    Stored(StoreId, Result<(), StoreError>),
    /// Close and stay closed.
    Stop,
    /// The deadline has come.
    Timeout,
}

/// Something that the user says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// A message.
    Message {
        /// The text.
        text: String,
        /// What comes with it.
        attachments: Vec<Attachment>,
    },
    /// An answer to the question that is open in the view.
    Answer {
        /// The text.
        text: String,
    },
}

/// What was said is not taken. Nothing of it is stored or sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too much has no verdict yet.
    #[error("too many messages wait for the server; try again when it has answered")]
    TooManyInFlight,
    /// It is longer than allowed.
    #[error("the message has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// There is no question to answer, or it is answered already.
    #[error("no question is open")]
    NoQuestion,
    /// The client was stopped, or has not begun.
    #[error("the client is not running")]
    Stopped,
}

/// What a client wants done.
#[derive(Debug)]
pub enum Output {
    /// Open a connection.
    Dial {
        /// The new connection.
        conn: ConnectionId,
        /// Whether to offer the extension.
        offer_extension: bool,
        /// From where.
        resume: Resume,
    },
    /// Send a frame.
    Send {
        /// Where.
        conn: ConnectionId,
        /// What.
        frame: ClientFrame,
    },
    /// Close a connection, or give up opening it. No [`Input::Closed`] needs to follow.
    Close {
        /// Which.
        conn: ConnectionId,
        /// The code of the close frame.
        code: CloseCode,
        /// The reason in the close frame.
        reason: &'static str,
    },
    /// Change what is kept; answered by [`Input::Stored`].
    Store(StoreId, Command),
    /// What the user said is taken, under this id, or it is not.
    Submitted {
        /// The request.
        ticket: Ticket,
        /// The answer.
        result: Result<Name, SubmitError>,
    },
    /// The view has changed. At most once for each input.
    Show(Arc<View>),
}

/// What a client says about itself on the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The highest contiguous number that was applied; 0 = begin anew [SE-10].
    pub since: u64,
    /// Its epoch, if the server speaks the extension.
    pub epoch: Option<Epoch>,
    /// This life of the client in memory.
    pub view: String,
    /// Which attempt to connect this is, from 1.
    pub attempt: u64,
}

/// The client's core. See the [module](self).
pub struct Client {
    config: ClientConfig,
}

impl Client {
    /// A client that has not begun. Its first input is [`Input::Start`].
    pub fn new(config: ClientConfig, entropy: Box<dyn Entropy>) -> Self {
        let _ = entropy;
        Self { config }
    }

    /// The configuration that the client was made with.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }
}

impl crate::Core for Client {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, _now: Instant, _input: Input) {
        todo!()
    }

    fn poll(&mut self) -> Option<Output> {
        todo!()
    }

    fn deadline(&self) -> Option<Instant> {
        todo!()
    }
}
