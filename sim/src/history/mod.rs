//! What of a run the outside can see. Checkers read this and nothing else, so they judge any
//! implementation as they judge ours.

mod session;
mod tasks;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::session::{
    Asked, Conn, LinkShown, Numbered, OpenQuestion, RowsShown, Said, SessionSeen, ShownRow,
    StoredRow, ViewChange, digest,
};
pub use self::tasks::{AttemptEnd, Message, Stage, StreamEnd, TaskSeen};
pub use crate::chain::Chain;
pub use crate::custom::CustomSeen;

/// Everything that could be seen, in the order in which it happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The entries, ascending in time.
    pub entries: Vec<Entry>,
}

impl History {
    /// How many events the applications got.
    pub fn delivered(&self) -> u64 {
        self.entries.iter().filter(|entry| matches!(entry.what, Seen::Delivered { .. })).count()
            as u64
    }

    /// A hash over what was seen, in its order and without the times, as 16 hexadecimal digits: the
    /// same for the same implementation, however it is attached.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for entry in &self.entries {
            hash.update(serde_json::to_vec(&entry.what).expect("what was seen is always JSON"));
            hash.update(b"\n");
        }
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// One thing that could be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Virtual time.
    pub at_ms: u64,
    /// What.
    pub what: Seen,
}

/// What a log holds of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// The stream.
    pub agent: u32,
    /// The lowest number that can be read.
    pub oldest: u64,
    /// The highest number that was given.
    pub head: u64,
}

/// What can be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// A publisher began to publish an event. `key` names it for the checkers: it is in the
    /// payload, whether or not the event has an id.
    Publishing {
        /// The stream.
        agent: u32,
        /// Names the event.
        key: String,
    },
    /// The event was acknowledged under this name [EV-1].
    Published {
        /// The stream.
        agent: u32,
        /// Names the event.
        key: String,
        /// The epoch of the number.
        epoch: String,
        /// The number.
        sequence: u64,
    },
    /// The event was not stored: it may never be delivered.
    NotPublished {
        /// The stream.
        agent: u32,
        /// Names the event.
        key: String,
    },
    /// Nobody knows whether the event was stored: it may be delivered once or never.
    PublishUnknown {
        /// The stream.
        agent: u32,
        /// Names the event.
        key: String,
    },
    /// A client's connection opened.
    Connected {
        /// The client.
        client: u32,
        /// Which life of the client's process.
        incarnation: u64,
    },
    /// A client durably joined a stream: everything after the sequence must reach it.
    Joined {
        /// The client.
        client: u32,
        /// The epoch, if the server has any.
        epoch: Option<String>,
        /// Everything above this number.
        sequence: u64,
    },
    /// A client asked to go on after a sequence: its cursor, as it stood on the wire.
    Resumed {
        /// The client.
        client: u32,
        /// The epoch that it named, if any.
        epoch: Option<String>,
        /// The sequence.
        sequence: u64,
    },
    /// An event frame came out of the network on a client's machine, before anything could happen
    /// to it there.
    Arrived {
        /// The client.
        client: u32,
        /// Which of its connections.
        connection: u64,
        /// The number.
        sequence: u64,
    },
    /// The server's verdict on a resync came out of the network: a replay begins.
    ReplayBegan {
        /// The client.
        client: u32,
        /// Which of its connections.
        connection: u64,
        /// The epoch of what comes from here on.
        epoch: String,
        /// The first number of the replay.
        from: u64,
        /// The last; `from - 1` if there is none.
        to: u64,
    },
    /// The end of a replay came out of the network.
    ReplayEnded {
        /// The client.
        client: u32,
        /// Which of its connections.
        connection: u64,
        /// The last number of the replay.
        to: u64,
        /// How many events it had, by its own count.
        replayed: u64,
    },
    /// The server's word came out of the network that numbers will never come.
    Skipped {
        /// The client.
        client: u32,
        /// Which of its connections.
        connection: u64,
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// The client's application took an event: its effect and the cursor are committed.
    Delivered {
        /// The client.
        client: u32,
        /// Which life of the client's process.
        incarnation: u64,
        /// The epoch of the client's cursor.
        epoch: Option<String>,
        /// The number, if it has one.
        sequence: Option<u64>,
        /// Names the event; `None` if it is none that was published.
        key: Option<String>,
    },
    /// The client's application was told that events will never come.
    Gap {
        /// The client.
        client: u32,
        /// The server's verdict.
        verdict: String,
        /// What is lost, as far as known: inclusive ranges.
        lost: Vec<(u64, u64)>,
        /// The epoch from which it goes on.
        epoch: Option<String>,
        /// The sequence after which it goes on.
        sequence: u64,
    },
    /// The client's application was told that a resync is complete.
    Resynced {
        /// The client.
        client: u32,
        /// How many events it had.
        replayed: u64,
        /// Whether something could not be supplied.
        gap_detected: bool,
    },
    /// The client passed over an event that its handler kept failing on.
    GaveUp {
        /// The client.
        client: u32,
        /// The number.
        sequence: Option<u64>,
        /// Names the event.
        key: Option<String>,
    },
    /// The log forgot the events of a stream below a number.
    Retained {
        /// The stream.
        agent: u32,
        /// The lowest number that is kept.
        oldest: u64,
    },
    /// The server opened an epoch of its log.
    EpochOpened {
        /// The epoch.
        epoch: String,
    },
    /// An older copy took the place of the log, or an empty one: a new branch of its history
    /// begins. Whatever the log held beyond it is gone.
    LogReplaced {
        /// The branch of which it is a copy: 0 before the first replacement, then 1 and so on.
        parent: usize,
        /// What the copy holds; a stream that is not named is empty.
        streams: Vec<LogState>,
    },
    /// A run of events that a client's application took without being told of anything missing.
    Chained {
        /// The client.
        client: u32,
        /// The chain as the application folded it.
        taken: Chain,
        /// The hash over the same numbers as they were published; `None` if that is not known.
        published: Option<u64>,
    },
    /// Something of tasks.
    Task(TaskSeen),
    /// Something of sessions.
    Session(SessionSeen),
    /// Something of a protocol that the user brought.
    Custom(CustomSeen),
    /// A host's process ended.
    Crashed {
        /// The host.
        host: String,
    },
    /// The faults are over; from here on progress is owed.
    Healed,
    /// At the end of the run, the log of the server held this event.
    Stored {
        /// The stream.
        agent: u32,
        /// The number.
        sequence: u64,
        /// Names the event.
        key: String,
    },
    /// At the end of the run, the log of a stream began and ended here.
    LogEnd {
        /// The stream.
        agent: u32,
        /// The lowest number that can be read.
        oldest: u64,
        /// The highest number that was given.
        head: u64,
    },
}
