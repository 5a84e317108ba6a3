//! What of sessions the outside can see.
//!
//! A client is known by its number, a user by the number of its principal. What somebody said is
//! seen as a [`digest`]: equal texts of equal roles have equal ones. Views are seen as changes.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};

use gapless::session::conversation::{Kind, Role};
use gapless::session::wire::{CursorVerdict, InputRejection, Status};
use serde::{Deserialize, Serialize};

/// A number for what somebody said, the same in every run.
pub fn digest(role: Role, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(match role {
        Role::User => 0,
        Role::Assistant => 1,
    });
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// A connection, as one of its two ends counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Conn {
    /// Which life of the process.
    pub life: u64,
    /// Which connection of that life.
    pub number: u64,
}

impl fmt::Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.life, self.number)
    }
}

/// What a user says: a message or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// A message.
    Message,
    /// An answer.
    Answer {
        /// To this question; `None` = the base contract has no name for it.
        question: Option<String>,
    },
}

/// A row of a conversation, where it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRow {
    /// Its place.
    pub position: u64,
    /// What it is.
    pub kind: Kind,
    /// What it says, and who.
    pub digest: u64,
    /// The client's id of the input that it came from.
    pub input: Option<String>,
    /// The question that it asks or answers.
    pub question: Option<String>,
}

/// A row of a conversation, where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownRow {
    /// Its place; the base contract does not tell.
    pub position: Option<u64>,
    /// What it says, and who.
    pub digest: u64,
}

/// What a numbered frame says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbered {
    /// Everything that is to be shown.
    History {
        /// The rows, ascending.
        rows: Vec<ShownRow>,
        /// Whether there are older ones.
        truncated: bool,
        /// The question that is open, if there is one.
        question: Option<OpenQuestion>,
    },
    /// A row, whoever said it.
    Row(ShownRow),
    /// The question of a row, or one that was asked before.
    Question {
        /// Its row.
        row: ShownRow,
        /// Its id.
        question: Option<String>,
    },
    /// An input is accepted.
    Accepted {
        /// Which.
        input: String,
        /// The position of its row.
        position: Option<u64>,
    },
    /// An input is rejected.
    Rejected {
        /// Which; a server of the base contract may not say.
        input: Option<String>,
        /// Why.
        reason: InputRejection,
    },
    /// Something else that is good to know.
    Notice,
}

/// A question that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenQuestion {
    /// Its id; the base contract has none.
    pub id: Option<String>,
    /// What it asks.
    pub digest: u64,
}

/// How a client says that its connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkShown {
    /// An attempt to connect is under way.
    Connecting,
    /// The replay or the history is on its way.
    CatchingUp,
    /// Everything is shown.
    Live,
    /// The next attempt follows after a pause.
    Waiting,
    /// Another connection took its place.
    Superseded,
    /// The client was stopped.
    Stopped,
}

/// How the rows of a view changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowsShown {
    /// The oldest left, and new ones follow the newest.
    Moved {
        /// How many left.
        gone: usize,
        /// What is new, ascending.
        new: Vec<ShownRow>,
    },
    /// These took the place of all others.
    Replaced(Vec<ShownRow>),
}

/// What changed in a view, all at once. What is `None` stayed as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewChange {
    /// Whether a history came.
    pub history: bool,
    /// How the connection is.
    pub link: Option<LinkShown>,
    /// The rows.
    pub rows: Option<RowsShown>,
    /// What has no verdict yet, in the order in which it was said.
    pub pending: Option<Vec<String>>,
    /// What is newly shown as rejected.
    pub rejected: Vec<(String, InputRejection)>,
    /// The question that waits for an answer, and whether there is one.
    pub question: Option<Asked>,
    /// What the application is doing.
    pub status: Option<Status>,
}

/// Whether a view shows an open question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// It shows none.
    Nothing,
    /// It shows this one.
    Open(OpenQuestion),
}

/// What can be seen of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionSeen {
    // ---- at a client
    /// A view began anew: a process started, or a page was loaded.
    Began {
        /// The client.
        client: u32,
        /// Its user.
        user: u32,
        /// What it calls itself.
        name: String,
        /// Which life of the client's process.
        life: u64,
        /// Whether the extension is spoken on its connections.
        extension: bool,
        /// What had no verdict when the last process ended, in order.
        in_flight: Vec<String>,
    },
    /// The user said something, and the view has taken it.
    Submitted {
        /// The client.
        client: u32,
        /// The id that the client gave it.
        input: String,
        /// A message or an answer.
        what: Said,
        /// What was said.
        digest: u64,
    },
    /// It is durable at the client.
    Kept {
        /// The client.
        client: u32,
        /// Which input.
        input: String,
    },
    /// It is not kept any longer.
    Dropped {
        /// The client.
        client: u32,
        /// Which input.
        input: String,
    },
    /// An older copy took the place of the client's store, or an empty one.
    StoreReplaced {
        /// The client.
        client: u32,
    },
    /// The client began to connect.
    Dialed {
        /// The client.
        client: u32,
        /// The connection, as the client counts.
        conn: Conn,
        /// The highest contiguous number that it says it has applied.
        since: u64,
        /// The epoch of the number.
        epoch: Option<String>,
        /// Which attempt of its life this is.
        attempt: u64,
    },
    /// A connection of the client is gone.
    Lost {
        /// The client.
        client: u32,
        /// Which.
        conn: Conn,
        /// The code of the close frame, if there was one.
        code: Option<u16>,
    },
    /// The user wants the client to connect.
    Wanted {
        /// The client.
        client: u32,
    },
    /// The client sent an input.
    InputSent {
        /// The client.
        client: u32,
        /// Where.
        conn: Conn,
        /// Which.
        input: String,
    },
    /// The client said up to where it has applied everything.
    Acked {
        /// The client.
        client: u32,
        /// Where.
        conn: Conn,
        /// Up to this number.
        seq: u64,
        /// The epoch of the number.
        epoch: Option<String>,
    },
    /// The view of a client changed.
    Shown {
        /// The client.
        client: u32,
        /// In what.
        change: ViewChange,
    },

    // ---- at the server
    /// What a life of the server stores cannot be seen, nor what it begins and ends: whoever needs that
    /// judges nothing.
    Blind,
    /// A connection was accepted.
    Connected {
        /// The connection, as the server counts.
        conn: Conn,
        /// The user.
        user: u32,
        /// What the client calls itself.
        name: String,
        /// Whether the extension was negotiated.
        extension: bool,
        /// The number that the client has applied.
        since: u64,
        /// Its epoch.
        epoch: Option<String>,
        /// The view id, and which attempt of it this is.
        attempt: Option<(String, u64)>,
    },
    /// The answer to the cursor of a connection.
    Verdict {
        /// Where.
        conn: Conn,
        /// The epoch of the numbers.
        epoch: String,
        /// The answer.
        verdict: CursorVerdict,
        /// The first number of what follows.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A frame with a number was sent.
    Sent {
        /// Where.
        conn: Conn,
        /// The number.
        seq: u64,
        /// What it says.
        what: Numbered,
    },
    /// The status was sent, for the first time on this connection.
    Greeted {
        /// Where.
        conn: Conn,
        /// What the application is doing.
        status: Status,
    },
    /// An acknowledgement came.
    AckCame {
        /// Where.
        conn: Conn,
        /// Up to this number.
        seq: u64,
        /// The epoch of the number.
        epoch: Option<String>,
    },
    /// A connection is over, for the server.
    Left {
        /// Which.
        conn: Conn,
        /// The code with which the server closed it; `None` if it did not.
        code: Option<u16>,
    },
    /// The store holds a row.
    Durable {
        /// Whose.
        user: u32,
        /// The row.
        row: StoredRow,
    },
    /// The store holds that an input is rejected, or never will be accepted.
    Refused {
        /// Whose.
        user: u32,
        /// Which.
        input: String,
        /// Why.
        reason: InputRejection,
    },
    /// The store holds that a turn has begun.
    Begun {
        /// Whose.
        user: u32,
        /// The position of the input's row.
        position: u64,
    },
    /// The application was given a turn.
    Ran {
        /// Whose.
        user: u32,
        /// The position of the input's row.
        position: u64,
    },
    /// The store holds that a turn is over.
    Over {
        /// Whose.
        user: u32,
        /// The position of the input's row.
        position: u64,
    },
    /// Nobody knows whether the store holds that a turn has begun, or is over.
    Doubted {
        /// Whose.
        user: u32,
        /// The position of the input's row.
        position: u64,
    },
    /// At the end of the run, the store held this conversation.
    ConversationEnd {
        /// Whose.
        user: u32,
        /// All rows, ascending.
        rows: Vec<StoredRow>,
        /// The question that is open.
        question: Option<OpenQuestion>,
        /// The inputs whose turn has not begun, by their positions.
        waiting: Vec<u64>,
    },
}
