//! The statements for machines: a committed file with one line for each, made from the pages.
//!
//! It remembers what an id has meant. A page that says something else under an id no longer agrees
//! with it, and the command that brings it up to date names every change, so that nobody changes the
//! meaning of a statement without noticing.

use serde::{Deserialize, Serialize};

use super::{Spec, Statement};

/// The manifest that was there when the program was built.
const COMMITTED: &str = include_str!("../../../docs/spec/statements.json");

/// What the pages have said so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// A statement in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `EV-5a`.
    pub id: String,
    /// MUST, SHOULD or MAY.
    pub level: String,
    /// Whom it binds.
    pub subject: String,
    /// All of it.
    pub text: String,
    /// The tests that show it because no run does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<String>,
}

/// How the pages differ from a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A statement that the manifest has not.
    New(String),
    /// Other words under the same id.
    Reworded(String),
    /// Other tests under the same id.
    Retested(String),
}

/// A manifest cannot be read, or the pages use an id for something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}\n  hint: {remedy}")]
pub struct ManifestError {
    problem: String,
    remedy: &'static str,
}

impl Manifest {
    /// The manifest that was there when the program was built.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if it is none.
    pub fn committed() -> Result<Self, ManifestError> {
        Self::parse(COMMITTED)
    }

    /// Reads the text of a manifest.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if it is none.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        match serde_json::from_str(text) {
            Ok(entries) => Ok(Self { entries }),
            Err(problem) => Err(error(
                format!("this is no manifest of statements: {problem}"),
                "take the committed one back, and make it anew from there",
            )),
        }
    }

    /// What a specification says now.
    pub fn of(spec: &Spec) -> Self {
        let entry = |statement: &Statement| Entry {
            id: statement.id.clone(),
            level: statement.level.clone(),
            subject: statement.subject.clone(),
            text: statement.text.clone(),
            tests: statement.tests().into_iter().map(str::to_owned).collect(),
        };
        Self { entries: spec.statements().map(entry).collect() }
    }

    /// The statements, in the order of the pages.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Its text: a JSON array with a line for each statement.
    pub fn text(&self) -> String {
        let line = |entry| serde_json::to_string(entry).expect("an entry is always JSON");
        let lines: Vec<_> = self.entries.iter().map(line).collect();
        format!("[\n{}\n]\n", lines.join(",\n"))
    }

    /// What changes from this manifest to a newer one.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if an id is gone, or binds otherwise: it was given to something else.
    pub fn changes(&self, newer: &Self) -> Result<Vec<Change>, ManifestError> {
        let find = |entries: &[Entry], id: &str| entries.iter().find(|one| one.id == id).cloned();
        for Entry { id, .. } in &self.entries {
            if find(&newer.entries, id).is_none() {
                return Err(error(
                    format!("{id} is in the manifest and on no page"),
                    "keep the statement, with the text `Withdrawn.` or `Replaced by …`",
                ));
            }
        }
        let mut changes = Vec::new();
        for now in &newer.entries {
            let Some(before) = find(&self.entries, &now.id) else {
                changes.push(Change::New(now.id.clone()));
                continue;
            };
            let bound = |entry: &Entry| format!("{} {}", entry.level, entry.subject);
            let remedy = "a change of what is observable is a new id: give it the next free one, \
                          and leave the old one `Replaced by …`";
            if bound(&before) != bound(now) {
                let problem =
                    format!("{} was `{}` and is `{}` now", now.id, bound(&before), bound(now));
                return Err(error(problem, remedy));
            }
            if is_withdrawn(&before.text) && !is_withdrawn(&now.text) {
                let problem = format!("{} was withdrawn and says something again", now.id);
                return Err(error(problem, remedy));
            }
            if before.text != now.text {
                changes.push(Change::Reworded(now.id.clone()));
            } else if before.tests != now.tests {
                changes.push(Change::Retested(now.id.clone()));
            }
        }
        Ok(changes)
    }
}

/// Whether a statement says no more than that it is gone.
pub(super) fn is_withdrawn(text: &str) -> bool {
    ["Withdrawn", "Replaced by "].iter().any(|word| text.starts_with(word))
}

fn error(problem: impl Into<String>, remedy: &'static str) -> ManifestError {
    ManifestError { problem: problem.into(), remedy }
}

#[cfg(test)]
mod tests {
    use super::{Change, Manifest};

    const BEFORE: &str = r#"[
{"id":"EV-1a","level":"MUST","subject":"server","text":"It counts."},
{"id":"EV-1b","level":"MUST","subject":"client","text":"Withdrawn."}
]
"#;

    fn changed(from: &str, to: &str) -> Result<Vec<Change>, String> {
        let after = BEFORE.replacen(from, to, 1);
        let (before, after) = (Manifest::parse(BEFORE), Manifest::parse(&after));
        let (before, after) = (before.expect("one"), after.expect("one"));
        before.changes(&after).map_err(|error| error.to_string())
    }

    #[test]
    fn a_manifest_is_written_as_it_was_read() {
        assert_eq!(Manifest::parse(BEFORE).expect("one").text(), BEFORE);
        assert!(Manifest::parse("[{}]").is_err());
    }

    #[test]
    fn what_is_new_or_reworded_is_named() {
        assert_eq!(changed("", ""), Ok(vec![]));
        let reworded = Ok(vec![Change::Reworded("EV-1a".to_owned())]);
        assert_eq!(changed("It counts.", "It counts up."), reworded);
        let more = "[\n{\"id\":\"EV-1c\",\"level\":\"MAY\",\"subject\":\"both\",\"text\":\"x\"},";
        assert_eq!(changed("[", more), Ok(vec![Change::New("EV-1c".to_owned())]));
        let tests = "\"It counts.\",\"tests\":[\"a.rs::b\"]";
        assert_eq!(
            changed("\"It counts.\"", tests),
            Ok(vec![Change::Retested("EV-1a".to_owned())])
        );
    }

    #[test]
    fn an_id_that_is_given_to_something_else_is_refused() {
        for (from, to, said) in [
            ("EV-1a", "EV-1d", "EV-1a is in the manifest and on no page"),
            ("MUST", "SHOULD", "EV-1a was `MUST server` and is `SHOULD server` now"),
            ("\"server\"", "\"both\"", "EV-1a was `MUST server` and is `MUST both` now"),
            ("Withdrawn.", "It sings.", "EV-1b was withdrawn and says something again"),
        ] {
            let error = changed(from, to).expect_err(said);
            assert!(
                error.contains(said) && error.contains("hint: "),
                "{said:?} is not in\n{error}"
            );
        }
    }
}
