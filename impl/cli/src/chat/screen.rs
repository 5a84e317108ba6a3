//! What is shown of a view, each thing once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gapless::session::Name;
use gapless::session::conversation::{Kind, Role};
use gapless::session::view::{Connection, View};
use gapless::session::wire::HistoryMessage;

/// Remembers what was shown.
#[derive(Default)]
pub(super) struct Screen {
    /// The rows of the view, by position.
    rows: BTreeMap<u64, Arc<HistoryMessage>>,
    /// How many rows of a server without positions.
    unnumbered: usize,
    rejected: BTreeSet<Name>,
    connection: Option<Connection>,
    truncated: bool,
}

/// What is new.
#[derive(Debug, Default, PartialEq)]
pub(super) struct News {
    /// For standard output.
    pub(super) said: Vec<String>,
    /// For standard error.
    pub(super) told: Vec<String>,
}

impl Screen {
    /// What of a view was not shown before.
    pub(super) fn show(&mut self, view: &View) -> News {
        let mut news = News::default();
        if self.connection.as_ref() != Some(&view.connection) {
            self.connection = Some(view.connection.clone());
            news.told.extend(connection(&view.connection));
        }
        if view.truncated && !self.truncated {
            news.told.push("there is more before this".to_owned());
        }
        self.truncated |= view.truncated;
        let mut rows = BTreeMap::new();
        let mut unnumbered = 0;
        for row in &view.messages {
            match row.position {
                Some(position) => {
                    let shown = self.rows.get(&position);
                    // Another row in its place: the server has another conversation than before.
                    if shown.is_none_or(|shown| shown.text != row.text || shown.role != row.role) {
                        news.said.push(line(row));
                    }
                    rows.insert(position, row.clone());
                }
                None => {
                    unnumbered += 1;
                    if unnumbered > self.unnumbered {
                        news.said.push(line(row));
                    }
                }
            }
        }
        if view.loaded {
            self.rows = rows;
            self.unnumbered = unnumbered;
        }
        for rejected in &view.rejected {
            if self.rejected.insert(rejected.input.id.clone()) {
                let (text, reason) = (&rejected.input.text, rejected.reason.as_str());
                news.told.push(format!("not accepted ({reason}): {text}"));
            }
        }
        self.rejected.retain(|id| view.rejected.iter().any(|rejected| rejected.input.id == *id));
        news
    }
}

fn connection(connection: &Connection) -> Option<String> {
    match connection {
        Connection::Connecting => Some("connecting".to_owned()),
        Connection::CatchingUp => None,
        Connection::Live => Some("connected".to_owned()),
        Connection::Waiting { reason, retry_in } => {
            Some(format!("not connected: {reason}; again in {} ms", retry_in.as_millis()))
        }
        Connection::Superseded | Connection::Stopped => None,
    }
}

/// A row is a line: what would begin another one is shown as what it is.
fn line(row: &HistoryMessage) -> String {
    let who = match (row.role, row.kind) {
        (Role::User, Some(Kind::Answer)) => "you answer",
        (Role::User, _) => "you",
        (Role::Assistant, Some(Kind::Question)) => "question",
        (Role::Assistant, _) => "reply",
    };
    let text: String = row
        .text
        .chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect(),
            false => vec![c],
        })
        .collect();
    format!("{who}: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(position: u64, role: Role, text: &str) -> Arc<HistoryMessage> {
        Arc::new(HistoryMessage {
            role,
            text: text.to_owned(),
            position: Some(position),
            kind: None,
            input: None,
            question: None,
            attachments: vec![],
        })
    }

    #[test]
    fn a_row_is_said_once_whatever_comes_before_it() {
        let mut screen = Screen::default();
        let mut view = View { loaded: true, ..View::default() };
        view.messages = vec![row(2, Role::Assistant, "b\u{1b}[2J")];
        assert_eq!(screen.show(&view).said, ["reply: b\\u{1b}[2J"]);
        view.messages.insert(0, row(1, Role::User, "a"));
        assert_eq!(screen.show(&view).said, ["you: a"]);
        assert_eq!(screen.show(&view), News::default());
        view.messages[1] = row(2, Role::Assistant, "other");
        assert_eq!(screen.show(&view).said, ["reply: other"]);
    }
}
