//! What must not happen to sessions.

mod accepted;
mod applied;
mod bounds;
mod converge;
mod durable;
mod histories;
mod kept;
mod numbers;
mod question;
mod settle;
mod superseded;
mod turns;
mod verdict;
mod views;

use std::collections::{BTreeMap, BTreeSet};

use gapless::session::conversation::Kind;
use gapless::session::wire::Status;

pub(super) use self::accepted::CHECKER as ACCEPTED;
pub(super) use self::applied::CHECKER as APPLIED;
pub(super) use self::bounds::CHECKER as BOUNDS;
pub(super) use self::converge::CHECKER as CONVERGE;
pub(super) use self::durable::CHECKER as DURABLE;
pub(super) use self::histories::CHECKER as HISTORIES;
pub(super) use self::kept::CHECKER as KEPT;
pub(super) use self::numbers::CHECKER as NUMBERS;
pub(super) use self::question::CHECKER as QUESTION;
pub(super) use self::settle::CHECKER as SETTLE;
pub(super) use self::superseded::CHECKER as SUPERSEDED;
pub(super) use self::turns::CHECKER as TURNS;
pub(super) use self::verdict::CHECKER as VERDICT;
pub(super) use self::views::CHECKER as VIEWS;
use super::{Check, Checker, Finding};
use crate::history::{
    Asked, Conn, History, LinkShown, OpenQuestion, RowsShown, Said, Seen, SessionSeen, ShownRow,
    StoredRow, ViewChange,
};
use crate::plan::{Options, Plan};

/// A history, sorted by what checkers ask for.
pub(super) struct Facts<'a> {
    history: &'a History,
    limits: Limits,
    /// Who is at the client's end of the server's connections.
    peers: BTreeMap<Conn, Peer<'a>>,
    /// Whose view each client has.
    viewers: BTreeMap<u32, Viewer>,
    /// What was said, by the id of the input.
    inputs: BTreeMap<&'a str, Submission<'a>>,
    /// The rows of each user's conversation, as they were first seen.
    talks: BTreeMap<u32, Talk<'a>>,
    /// What the conversations were in the end.
    ends: BTreeMap<u32, End<'a>>,
    /// What the server stores could not be seen.
    blind: bool,
    end_ms: u64,
}

/// The bounds of a run.
#[derive(Debug, Clone, Copy)]
struct Limits {
    ring: u64,
    ring_age_ms: u64,
    /// Whether the bytes of a ring are a bound that a run can reach.
    ring_bytes_matter: bool,
    history_messages: usize,
    queue: usize,
    retain_rows: u64,
    in_flight: usize,
    messages: usize,
}

/// The client's end of a connection of the server.
struct Peer<'a> {
    user: u32,
    name: &'a str,
    extension: bool,
    since: u64,
    epoch: Option<&'a str>,
    attempt: Option<&'a (String, u64)>,
}

/// Whose view it is.
struct Viewer {
    user: u32,
    extension: bool,
}

/// Something that a user said.
struct Submission<'a> {
    client: u32,
    what: &'a Said,
    digest: u64,
}

/// A conversation, as far as it was ever seen in the store.
#[derive(Default)]
struct Talk<'a> {
    rows: BTreeMap<u64, &'a StoredRow>,
}

/// A conversation at the end.
struct End<'a> {
    rows: &'a [StoredRow],
    question: Option<&'a OpenQuestion>,
    waiting: &'a [u64],
}

impl<'a> Talk<'a> {
    fn newest(&self) -> u64 {
        self.rows.last_key_value().map_or(0, |(position, _)| *position)
    }

    /// The row of the question that is open when nothing above a position has been said.
    fn question_at(&self, position: u64) -> Option<&'a StoredRow> {
        let mut open = None;
        for row in self.rows.range(..=position).map(|(_, row)| *row) {
            match row.kind {
                Kind::Question => open = Some(row),
                Kind::Answer => open = None,
                Kind::Message | Kind::Interrupted => {}
            }
        }
        open
    }
}

impl<'a> Facts<'a> {
    pub(super) fn new(history: &'a History, plan: &Plan) -> Self {
        let Options::Session { server, client } = &plan.options else {
            return Self::of(history, Limits::NONE);
        };
        let limits = Limits {
            ring: server.ring as u64,
            ring_age_ms: server.ring_age_ms,
            ring_bytes_matter: server.ring_bytes < 1 << 20,
            history_messages: server.history_messages,
            queue: server.queue,
            retain_rows: server.retain_rows,
            in_flight: client.in_flight,
            messages: client.messages,
        };
        Self::of(history, limits)
    }

    fn of(history: &'a History, limits: Limits) -> Self {
        let mut facts = Self {
            history,
            limits,
            peers: BTreeMap::new(),
            viewers: BTreeMap::new(),
            inputs: BTreeMap::new(),
            talks: BTreeMap::new(),
            ends: BTreeMap::new(),
            blind: false,
            end_ms: history.entries.last().map_or(0, |entry| entry.at_ms),
        };
        for (_, _, seen) in facts.seen() {
            facts.take(seen);
        }
        facts
    }

    fn take(&mut self, seen: &'a SessionSeen) {
        match seen {
            SessionSeen::Began { client, user, extension, .. } => {
                let viewer = Viewer { user: *user, extension: *extension };
                self.viewers.insert(*client, viewer);
            }
            SessionSeen::Submitted { client, input, what, digest } => {
                let submission = Submission { client: *client, what, digest: *digest };
                self.inputs.insert(input, submission);
            }
            SessionSeen::Connected { conn, user, name, extension, since, epoch, attempt } => {
                let peer = Peer {
                    user: *user,
                    name,
                    extension: *extension,
                    since: *since,
                    epoch: epoch.as_deref(),
                    attempt: attempt.as_ref(),
                };
                self.peers.insert(*conn, peer);
            }
            SessionSeen::Durable { user, row } => {
                let talk = self.talks.entry(*user).or_default();
                talk.rows.entry(row.position).or_insert(row);
            }
            SessionSeen::ConversationEnd { user, rows, question, waiting } => {
                let end = End { rows, question: question.as_ref(), waiting };
                self.ends.insert(*user, end);
            }
            SessionSeen::Blind => self.blind = true,
            _ => {}
        }
    }

    /// All that was seen of sessions, with its place and time.
    fn seen(&self) -> impl Iterator<Item = (usize, u64, &'a SessionSeen)> + use<'a> {
        self.history.entries.iter().enumerate().filter_map(|(index, entry)| match &entry.what {
            Seen::Session(seen) => Some((index, entry.at_ms, seen)),
            _ => None,
        })
    }

    /// Whether the store may have forgotten a row by the time when it holds another one.
    fn is_forgotten(&self, position: u64, newest: u64) -> bool {
        newest >= position.saturating_add(self.limits.retain_rows)
    }
}

impl Limits {
    const NONE: Self = Self {
        ring: u64::MAX,
        ring_age_ms: u64::MAX,
        ring_bytes_matter: false,
        history_messages: usize::MAX,
        queue: usize::MAX,
        retain_rows: u64::MAX,
        in_flight: usize::MAX,
        messages: usize::MAX,
    };
}

/// What a client shows.
struct Screen<'a> {
    link: LinkShown,
    rows: Vec<ShownRow>,
    pending: &'a [String],
    question: Option<&'a OpenQuestion>,
    status: Status,
}

impl<'a> Screen<'a> {
    /// Of a view that begins.
    fn new() -> Self {
        Self {
            link: LinkShown::Connecting,
            rows: Vec::new(),
            pending: &[],
            question: None,
            status: Status::Idle,
        }
    }

    fn show(&mut self, change: &'a ViewChange) {
        match &change.rows {
            Some(RowsShown::Moved { gone, new }) => {
                self.rows.drain(..(*gone).min(self.rows.len()));
                self.rows.extend(new);
            }
            Some(RowsShown::Replaced(rows)) => self.rows.clone_from(rows),
            None => {}
        }
        if let Some(pending) = &change.pending {
            self.pending = pending;
        }
        match &change.question {
            Some(Asked::Open(question)) => self.question = Some(question),
            Some(Asked::Nothing) => self.question = None,
            None => {}
        }
        self.link = change.link.unwrap_or(self.link);
        self.status = change.status.unwrap_or(self.status);
    }

    /// The position of the newest row; 0 = there is none, or the base contract does not tell.
    fn newest(&self) -> u64 {
        self.rows.last().and_then(|row| row.position).unwrap_or(0)
    }

    fn shows(&self, row: &ShownRow) -> bool {
        match row.position {
            Some(_) => self.rows.contains(row),
            None => self.rows.iter().any(|shown| shown.digest == row.digest),
        }
    }
}

/// What each client shows, advanced entry by entry.
#[derive(Default)]
struct Screens<'a>(BTreeMap<u32, Screen<'a>>);

impl<'a> Screens<'a> {
    fn see(&mut self, seen: &'a SessionSeen) {
        match seen {
            SessionSeen::Began { client, .. } => {
                self.0.insert(*client, Screen::new());
            }
            SessionSeen::Shown { client, change } => {
                self.0.entry(*client).or_insert_with(Screen::new).show(change);
            }
            _ => {}
        }
    }

    fn of(&self, client: u32) -> Option<&Screen<'a>> {
        self.0.get(&client)
    }
}

fn is_answer(said: &Submission<'_>) -> bool {
    matches!(said.what, Said::Answer { .. })
}

/// Inputs of which a client that was asked has shown that they are rejected.
fn shown_as_rejected<'a>(facts: &Facts<'a>) -> BTreeSet<&'a str> {
    let changes = facts.seen().filter_map(|(_, _, seen)| match seen {
        SessionSeen::Shown { change, .. } => Some(change),
        _ => None,
    });
    changes.flat_map(|change| change.rejected.iter().map(|(input, _)| input.as_str())).collect()
}

fn finding(at_ms: u64, client: Option<u32>, message: String) -> Finding {
    Finding { at_ms, client, message }
}

#[cfg(test)]
mod fixture;
