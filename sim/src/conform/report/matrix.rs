//! Implementations by statements: what each run says of the statements that it is about.

use crate::conform::outcome::{Outcome, Word};
use crate::conform::protocol::Role;
use crate::conform::suite::protocol;
use crate::conform::summary::Results;
use crate::plan::Protocol;
use crate::spec::{Spec, Statement};

/// A row for each statement that one of the implementations can break, a column for each
/// implementation.
pub(super) struct Matrix<'a> {
    pub(super) columns: Vec<&'a Results>,
    pub(super) rows: Vec<Row<'a>>,
}

/// A statement.
pub(super) struct Row<'a> {
    pub(super) statement: &'a Statement,
    pub(super) cells: Vec<Cell<'a>>,
}

/// How an implementation fared with a statement.
#[derive(Default)]
pub(super) struct Cell<'a> {
    /// How many runs about it held.
    pub(super) held: u64,
    /// How many broke it.
    pub(super) broken: u64,
    /// How many of those are expected.
    pub(super) known: u64,
    /// How many about it came to no verdict on it.
    pub(super) open: u64,
    /// How many scenarios about it are not supported.
    pub(super) unsupported: u64,
    /// A run that broke it.
    pub(super) example: Option<&'a Outcome>,
}

/// A cell in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Broken,
    Known,
    Held,
    Open,
    Unsupported,
    Untested,
}

impl Cell<'_> {
    pub(super) fn state(&self) -> State {
        match self {
            Self { broken, known, .. } if broken > known => State::Broken,
            Self { known: 1.., .. } => State::Known,
            Self { held: 1.., .. } => State::Held,
            Self { open: 1.., .. } => State::Open,
            Self { unsupported: 1.., .. } => State::Unsupported,
            _ => State::Untested,
        }
    }

    /// How many runs were about it.
    fn runs(&self) -> u64 {
        self.held + self.broken + self.open
    }

    /// As a few characters.
    pub(super) fn text(&self) -> String {
        match self.state() {
            State::Broken => format!("✗ {} of {}", self.broken, self.runs()),
            State::Known => format!("~ {} of {}", self.known, self.runs()),
            State::Held => format!("✓ {}", self.held),
            State::Open => format!("? {}", self.open),
            State::Unsupported => "–".to_owned(),
            State::Untested => String::new(),
        }
    }
}

impl<'a> Matrix<'a> {
    pub(super) fn new(all: &'a [Results]) -> Self {
        let wanted =
            |statement: &&Statement| all.iter().any(|results| binds(statement, results.start.role));
        let rows = Spec::shared().statements().filter(wanted).map(|statement| Row {
            statement,
            cells: all.iter().map(|results| cell(statement, results)).collect(),
        });
        Self { columns: all.iter().collect(), rows: rows.collect() }
    }
}

/// Whether who plays a role can break a statement.
fn binds(statement: &Statement, role: Role) -> bool {
    let prefix = match protocol(role) {
        Protocol::Events => "EV-",
        Protocol::Tasks => "TK-",
        Protocol::Session => "SE-",
        // No adapter plays one.
        Protocol::Custom(_) => return false,
    };
    let subject = match role {
        Role::EventsClient | Role::SessionClient => "client",
        Role::EventsServer | Role::SessionServer => "server",
        Role::TasksAgent => "agent",
        Role::TasksController => "controller",
    };
    // What holds for every protocol is said of servers and clients.
    let shared = match role {
        Role::TasksAgent => "client",
        Role::TasksController => "server",
        _ => subject,
    };
    let is_shared = statement.id.starts_with("CORE-");
    let subject = if is_shared { shared } else { subject };
    (is_shared || statement.id.starts_with(prefix))
        && (statement.subject == "both" || statement.subject == subject)
}

fn cell<'a>(statement: &Statement, results: &'a Results) -> Cell<'a> {
    let covers = |ids: &[String]| ids.iter().any(|id| statement.is_covered_by(id));
    let mut cell = Cell::default();
    if !binds(statement, results.start.role) {
        return cell;
    }
    for outcome in &results.outcomes {
        if outcome.findings.iter().any(|finding| covers(&finding.statements)) {
            cell.broken += 1;
            cell.known += u64::from(outcome.expected);
            // One that nobody expects says more.
            if cell.example.is_none_or(|example| example.expected && !outcome.expected) {
                cell.example = Some(outcome);
            }
        } else if covers(&outcome.statements) {
            match outcome.verdict {
                Word::Pass | Word::Warn => cell.held += 1,
                Word::Unsupported => cell.unsupported += 1,
                // Where something else is broken, nothing can be said of the rest.
                Word::Fail
                | Word::Inconclusive
                | Word::Crash
                | Word::Error
                | Word::Nondeterminism => cell.open += 1,
            }
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::{Cell, Role, Spec, State, binds};

    #[test]
    fn nobody_is_blamed_for_what_the_other_side_has_to_do() {
        let spec = Spec::shared();
        let bound = |role| {
            move |id: &str| {
                spec.statements().any(|statement| statement.id == id && binds(statement, role))
            }
        };
        let client = bound(Role::EventsClient);
        assert!(client("CORE-2a"), "it binds both");
        assert!(!client("CORE-1a"), "it binds servers");
        assert!(spec.statements().all(|it| !it.id.starts_with("TK-") || !client(&it.id)));
        assert!(bound(Role::EventsServer)("CORE-1a"));
    }

    #[test]
    fn the_worst_of_a_cell_shows() {
        let held = Cell { held: 3, ..Cell::default() };
        let known = Cell { broken: 2, known: 2, held: 3, ..Cell::default() };
        let broken = Cell { broken: 2, known: 1, held: 3, ..Cell::default() };
        let shown = [&held, &known, &broken].map(|cell| (cell.state(), cell.text()));
        assert_eq!(shown[0], (State::Held, "✓ 3".to_owned()));
        assert_eq!(shown[1], (State::Known, "~ 2 of 5".to_owned()));
        assert_eq!(shown[2], (State::Broken, "✗ 2 of 5".to_owned()));
        assert_eq!(Cell::default().state(), State::Untested);
    }
}
