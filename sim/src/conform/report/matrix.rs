//! Implementations by statements: what each run says of the statements that it is about.

use crate::conform::outcome::{Outcome, Word};
use crate::conform::protocol::Role;
use crate::conform::suite::protocol;
use crate::conform::summary::Results;
use crate::plan::Protocol;
use crate::spec::{Spec, Statement};

/// A row for each statement, a column for each implementation.
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

    /// As a few characters.
    pub(super) fn text(&self) -> String {
        match self.state() {
            State::Broken => format!("✗ {} of {}", self.broken, self.broken + self.held),
            State::Known => format!("~ {} of {}", self.known, self.broken + self.held),
            State::Held => format!("✓ {}", self.held),
            State::Open => "?".to_owned(),
            State::Unsupported => "–".to_owned(),
            State::Untested => String::new(),
        }
    }
}

impl<'a> Matrix<'a> {
    pub(super) fn new(all: &'a [Results]) -> Self {
        let wanted = |statement: &&Statement| {
            all.iter().any(|results| {
                prefixes(results.start.role).iter().any(|prefix| statement.id.starts_with(prefix))
            })
        };
        let rows = Spec::shared().statements().filter(wanted).map(|statement| Row {
            statement,
            cells: all.iter().map(|results| cell(statement, results)).collect(),
        });
        Self { columns: all.iter().collect(), rows: rows.collect() }
    }
}

fn prefixes(role: Role) -> [&'static str; 2] {
    match protocol(role) {
        Protocol::Events => ["CORE-", "EV-"],
        Protocol::Tasks => ["CORE-", "TK-"],
        Protocol::Session => ["CORE-", "SE-"],
    }
}

fn cell<'a>(statement: &Statement, results: &'a Results) -> Cell<'a> {
    let covers = |ids: &[String]| ids.iter().any(|id| statement.is_covered_by(id));
    let mut cell = Cell::default();
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
                Word::Pass | Word::Warn | Word::Fail => cell.held += 1,
                Word::Unsupported => cell.unsupported += 1,
                Word::Inconclusive | Word::Crash | Word::Error | Word::Nondeterminism => {
                    cell.open += 1;
                }
            }
        }
    }
    cell
}
