//! Everything that happened in a run, in one total order.
//!
//! A record is one line. The lines hold decoded frames and operations, never wire bytes, keys or
//! file contents, so they are the same wherever the run takes place; [`Trace::hash`] says in one
//! number whether two runs were the same.

pub mod causality;
mod text;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use self::text::Text;
use crate::plan::Cut;

/// Everything that happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The records, in order.
    pub records: Vec<Record>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Virtual time.
    pub at_ms: u64,
    /// Where: a host, or the world itself.
    pub host: &'static str,
    /// Which life of the host's process; 0 for the world.
    pub incarnation: u64,
    /// What kind of thing.
    pub kind: Kind,
    /// What, on one line.
    pub text: Text,
    /// What of it a program can use. It is no part of the line, and so of no hash.
    pub fact: Option<Fact>,
}

/// What a record says, for a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The world carried out the step of the plan that has this number.
    Step(usize),
    /// A host did a part of what the workload asks for: events, tasks or messages, by name.
    Work(Vec<String>),
    /// A frame left a host, arrived at it or was swallowed.
    Frame(Passage),
    /// A connection of a client opened.
    Opens,
    /// A fault cut the newest connection of a client.
    Cut(Cut),
    /// A process began.
    Starts,
    /// A process ended.
    Dies,
}

/// One frame on one connection. Both ends count alike, so the record of its departure and that of
/// its arrival have the same `client`, `port`, `to_server` and `nth`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// The host that opened the connection.
    pub client: Arc<str>,
    /// The port from which it did.
    pub port: u16,
    /// Whether the frame goes to the host that accepted the connection.
    pub to_server: bool,
    /// Which frame of this direction that the network was given.
    pub nth: u64,
    /// What is in it, unmasked.
    pub payload: Bytes,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A step of the plan was carried out, or its end came.
    Step,
    /// A process began, ended, or a connection opened or closed.
    Life,
    /// A frame left a host.
    Send,
    /// A frame arrived at a host.
    Receive,
    /// A frame was swallowed by a fault.
    Drop,
    /// The log or a cursor was written.
    Store,
    /// The application saw something.
    App,
    /// A mark was reached.
    Mark,
}

impl Kind {
    /// Two characters for the text form.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Step => "!!",
            Self::Life => "--",
            Self::Send => "->",
            Self::Receive => "<-",
            Self::Drop => "x ",
            Self::Store => "[]",
            Self::App => "* ",
            Self::Mark => "# ",
        }
    }
}

impl Record {
    /// The mark that it is about, and how often it was reached in a row; for a record of another
    /// kind that is its text, once.
    pub fn mark(&self) -> (&str, usize) {
        match self.text.split_once(" ×") {
            Some((mark, times)) if self.kind == Kind::Mark => (mark, times.parse().unwrap_or(1)),
            _ => (&self.text, 1),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at_ms / 1_000;
        let millis = self.at_ms % 1_000;
        let host = match self.incarnation {
            0 => self.host.to_owned(),
            life => format!("{}.{life}", self.host),
        };
        write!(f, "{seconds:>4}.{millis:03}  {host:<11} {} {}", self.kind.sign(), self.text)
    }
}

impl Trace {
    /// A hash over all records, as 16 hexadecimal digits.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for record in &self.records {
            hash.update(record.to_string());
            hash.update(b"\n");
        }
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for record in &self.records {
            writeln!(f, "{record}")?;
        }
        writeln!(f, "hash {}", self.hash())
    }
}
