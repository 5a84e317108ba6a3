//! The specification, statement by statement.
//!
//! A page of `docs/spec/` says each statement once in full, under a heading of its group, and lists
//! it again in its last chapter, the index. The index also says which statements no run shows, why,
//! and which test of the library shows them instead:
//!
//! ```text
//! - Not simulated: CORE-14a (every token of a run is valid; `tests/tests/both_arms.rs::over_real_sockets`).
//! ```
//!
//! A MUST that no run shows needs such a test. [`Manifest`] is all of it for machines, and remembers
//! what an id has meant.

mod manifest;

use std::collections::BTreeSet;
use std::sync::OnceLock;

pub use self::manifest::{Change, Entry, Manifest, ManifestError};

/// The pages that were there when the program was built.
const PAGES: [&str; 3] = [
    include_str!("../../../docs/spec/events.md"),
    include_str!("../../../docs/spec/tasks.md"),
    include_str!("../../../docs/spec/session.md"),
];

/// How ids begin: those that hold for every protocol, and those of each.
const PREFIXES: [&str; 4] = ["CORE-", "EV-", "TK-", "SE-"];

/// The statements of all pages, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    groups: Vec<Group>,
}

/// Statements about one matter. Its id names all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `EV-5`.
    pub id: String,
    /// What they are about.
    pub title: String,
    /// The statements, at least one.
    pub statements: Vec<Statement>,
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// `EV-5a`.
    pub id: String,
    /// MUST, SHOULD or MAY.
    pub level: String,
    /// Whom it binds: server and client, or controller and agent, or both of them.
    pub subject: String,
    /// All of it.
    pub text: String,
    /// Its first sentence.
    pub sentence: String,
    /// Why no run shows it, and what does instead, if that is so.
    pub not_simulated: Option<String>,
}

/// A page is not in order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}\n  hint: {remedy}")]
pub struct SpecError {
    problem: String,
    remedy: &'static str,
}

impl Spec {
    /// The specification that was there when the program was built, read once.
    pub fn shared() -> &'static Self {
        static SPEC: OnceLock<Spec> = OnceLock::new();
        SPEC.get_or_init(Self::embedded)
    }

    /// The specification that was there when the program was built.
    pub fn embedded() -> Self {
        Self::of_pages(&PAGES).expect("the tests read every page")
    }

    /// The statements of several pages.
    ///
    /// # Errors
    ///
    /// [`SpecError`] if a page is not in order, or an id stands on two of them.
    pub fn of_pages(pages: &[&str]) -> Result<Self, SpecError> {
        let mut groups: Vec<Group> = Vec::new();
        for page in pages {
            for group in Self::parse(page)?.groups {
                if groups.iter().any(|other| other.id == group.id) {
                    let problem = format!("{} stands on two pages", group.id);
                    return Err(error(problem, "give one of them the next free number"));
                }
                groups.push(group);
            }
        }
        Ok(Self { groups })
    }

    /// The statements of a page.
    ///
    /// # Errors
    ///
    /// [`SpecError`] if a line has not the form of a statement, or the index lists others.
    pub fn parse(page: &str) -> Result<Self, SpecError> {
        let (body, index) =
            page.rsplit_once("\n## ").filter(|(_, last)| title(last) == "Index").ok_or_else(
                || error("the last chapter is not the index", "end the page with `## 18. Index`"),
            )?;
        let mut groups: Vec<Group> = Vec::new();
        for line in body.lines() {
            if let Some((id, title)) = group_heading(line) {
                groups.push(Group {
                    id: id.to_owned(),
                    title: title.to_owned(),
                    statements: Vec::new(),
                });
            } else if line
                .strip_prefix("- **")
                .is_some_and(|text| PREFIXES.iter().any(|prefix| text.starts_with(prefix)))
            {
                let statement = statement(line)?;
                let group = groups.last_mut().filter(|group| group.id == group_of(&statement.id));
                let Some(group) = group else {
                    let problem = format!("{} does not stand under its heading", statement.id);
                    return Err(error(problem, "move it below `### EV-5 …` of the same number"));
                };
                group.statements.push(statement);
            }
        }
        let mut spec = Self { groups };
        let mut ids = BTreeSet::new();
        let heads = spec.groups.iter().map(|group| &group.id);
        for id in heads.chain(spec.statements().map(|statement| &statement.id)) {
            if !ids.insert(id) {
                let remedy =
                    "give one of them the next free number or letter: an id is never reused";
                return Err(error(format!("{id} stands there twice"), remedy));
            }
        }
        spec.compare(index)?;
        spec.except(index)?;
        Ok(spec)
    }

    /// The groups, in the order of the pages.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// All statements, in the order of the pages.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.groups.iter().flat_map(|group| &group.statements)
    }

    /// Whether there is a statement or a group of this id.
    pub fn knows(&self, id: &str) -> bool {
        self.groups.iter().any(|group| {
            group.id == id || group.statements.iter().any(|statement| statement.id == id)
        })
    }

    /// Finds out whether the index lists the statements of the chapters before it, in their order.
    fn compare(&self, index: &str) -> Result<(), SpecError> {
        let remedy = "list every statement in the index, in the order of the chapters, with the \
                      same level and subject";
        let cells = |statement: &Statement| {
            let Statement { id, level, subject, .. } = statement;
            format!("{id} {level} {subject}")
        };
        let mut statements = self.statements().map(cells);
        for row in index.lines().filter_map(|line| line.strip_prefix("| ")) {
            let listed: Vec<&str> = row.split(" | ").take(3).collect();
            if !is_id(listed[0]) {
                continue;
            }
            let listed = listed.join(" ");
            let stated = statements.next();
            if stated.as_deref() != Some(&listed) {
                let stated = stated.unwrap_or_else(|| "nothing more".to_owned());
                let problem = format!("the index lists `{listed}`, the chapters have `{stated}`");
                return Err(error(problem, remedy));
            }
        }
        match statements.next() {
            Some(stated) => Err(error(format!("the index does not list `{stated}`"), remedy)),
            None => Ok(()),
        }
    }

    /// Takes over what the index says about statements that no run shows.
    fn except(&mut self, index: &str) -> Result<(), SpecError> {
        let remedy = "write `- Not simulated: EV-5a, EV-5b (the reason; what shows them).`";
        for line in index.lines().filter_map(|line| line.strip_prefix("- Not simulated: ")) {
            let (ids, reason) = line
                .split_once(" (")
                .and_then(|(ids, reason)| Some((ids, reason.strip_suffix(").")?)))
                .filter(|(_, reason)| !reason.trim().is_empty())
                .ok_or_else(|| error(format!("there is no reason in `{line}`"), remedy))?;
            for id in ids.split(", ") {
                let mut statements = self.groups.iter_mut().flat_map(|group| &mut group.statements);
                let Some(statement) = statements.find(|statement| statement.id == id) else {
                    let problem = format!("`{id}` is not simulated, and no statement either");
                    return Err(error(problem, remedy));
                };
                if statement.not_simulated.replace(reason.to_owned()).is_some() {
                    return Err(error(format!("`{id}` is not simulated for two reasons"), remedy));
                }
            }
        }
        Ok(())
    }
}

impl Statement {
    /// Whether who cites an id stands for this statement. The id of the group stands for all of
    /// its statements except those that no run shows.
    pub fn is_covered_by(&self, id: &str) -> bool {
        self.id == id || (self.not_simulated.is_none() && group_of(&self.id) == id)
    }

    /// The tests that show it if no run does, each as `path::function`.
    pub fn tests(&self) -> Vec<&str> {
        let reason = self.not_simulated.as_deref().unwrap_or_default();
        let words = reason.split('`').skip(1).step_by(2);
        words.filter(|word| word.contains(".rs::")).collect()
    }

    /// Why no run shows it, without the tests; empty if one does.
    pub fn reason(&self) -> &str {
        let reason = self.not_simulated.as_deref().unwrap_or_default();
        match self.tests().first() {
            Some(test) => reason.split(&format!("; `{test}`")).next().unwrap_or_default(),
            None => reason,
        }
    }

    /// Whether it binds nobody any more. Its id stays, so that nothing else can have it.
    pub fn is_withdrawn(&self) -> bool {
        manifest::is_withdrawn(&self.text)
    }
}

/// `EV-5` of `EV-5a`.
pub(crate) fn group_of(id: &str) -> &str {
    id.strip_suffix(|letter: char| letter.is_ascii_lowercase()).unwrap_or(id)
}

/// Whether a word has the form of an id: `CORE-5`, `EV-12`, `EV-5a`.
pub(crate) fn is_id(word: &str) -> bool {
    PREFIXES.iter().find_map(|prefix| group_of(word).strip_prefix(prefix)).is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// `Index` of `18. Index`.
fn title(chapter: &str) -> &str {
    let heading = chapter.lines().next().unwrap_or_default();
    heading.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim()
}

/// `CORE-1` and `Names` of `### CORE-1 Names`.
fn group_heading(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("### ")?.split_once(' ').filter(|(id, _)| is_id(id))
}

/// The statement of `- **EV-5a** MUST, server: Its first sentence. Others.`
fn statement(line: &str) -> Result<Statement, SpecError> {
    let parts = || {
        let (id, rest) = line.strip_prefix("- **")?.split_once("** ")?;
        let (binds, text) = rest.split_once(": ")?;
        let (level, subject) = binds.split_once(", ")?;
        let sentence =
            text.split_once(". ").map_or(text.to_owned(), |(first, _)| format!("{first}."));
        let formed = is_id(id)
            && id != group_of(id)
            && ["MUST", "SHOULD", "MAY"].contains(&level)
            && ["server", "client", "controller", "agent", "both"].contains(&subject);
        formed.then(|| Statement {
            id: id.to_owned(),
            level: level.to_owned(),
            subject: subject.to_owned(),
            text: text.to_owned(),
            sentence,
            not_simulated: None,
        })
    };
    parts().ok_or_else(|| {
        error(
            format!("`{line}` has not the form of a statement"),
            "write `- **EV-5a** MUST, server: One observable. What explains it.`",
        )
    })
}

fn error(problem: impl Into<String>, remedy: &'static str) -> SpecError {
    SpecError { problem: problem.into(), remedy }
}

#[cfg(test)]
mod tests {
    use super::{Spec, Statement, group_of, is_id};

    const PAGE: &str = "\
# A protocol

## 1. Statements

### CORE-1 Names
- **CORE-1a** MUST, server: A name is for ever. That is long.
- **CORE-1b** SHOULD, both: No number is above 2^53 - 1.

### EV-2 The counter
- **EV-2a** MAY, client: It counts.

## 2. Index

- Not simulated: CORE-1b (no run is that long; `tests/tests/long.rs::it_ends`).

| id | level | subject | statement |
|---|---|---|---|
| CORE-1a | MUST | server | A name is for ever. |
| CORE-1b | SHOULD | both | No number is above 2^53 - 1. |
| EV-2a | MAY | client | It counts. |
";

    #[test]
    fn a_page_is_read_with_its_exceptions() {
        let spec = Spec::parse(PAGE).expect("in order");
        let titles: Vec<_> =
            spec.groups().iter().map(|group| (group.id.as_str(), group.title.as_str())).collect();
        assert_eq!(titles, [("CORE-1", "Names"), ("EV-2", "The counter")]);
        let all: Vec<&Statement> = spec.statements().collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].sentence, "A name is for ever.");
        assert_eq!((all[1].level.as_str(), all[1].subject.as_str()), ("SHOULD", "both"));
        assert_eq!(all[1].sentence, "No number is above 2^53 - 1.");
        let reason = Some("no run is that long; `tests/tests/long.rs::it_ends`");
        assert_eq!(all[1].not_simulated.as_deref(), reason);
        assert_eq!(all[1].tests(), ["tests/tests/long.rs::it_ends"]);
        assert_eq!(all[1].reason(), "no run is that long");
        assert_eq!(all[0].text, "A name is for ever. That is long.");
        assert_eq!(all[0].not_simulated, None);
    }

    #[test]
    fn the_id_of_a_group_covers_all_but_those_that_no_run_shows() {
        let spec = Spec::parse(PAGE).expect("in order");
        assert!(["CORE-1", "CORE-1a", "EV-2"].iter().all(|id| spec.knows(id)));
        assert!(["CORE-1c", "CORE-2", "EV-", "EV-2aa"].iter().all(|id| !spec.knows(id)));
        let names = &spec.groups()[0];
        let covered = |id| names.statements.iter().map(|s| s.is_covered_by(id)).collect::<Vec<_>>();
        assert_eq!(covered("CORE-1"), [true, false]);
        assert_eq!(covered("CORE-1b"), [false, true]);
        assert_eq!(covered("EV-2"), [false, false]);
    }

    #[test]
    fn a_page_that_is_not_in_order_is_refused() {
        let cases = [
            ("## 2. Index", "## 2. Annex", "the last chapter is not the index"),
            ("MUST, server", "MUST, nobody", "has not the form of a statement"),
            ("**EV-2a**", "**EV-3a**", "EV-3a does not stand under its heading"),
            ("| EV-2a | MAY |", "| EV-2a | MUST |", "the chapters have `EV-2a MAY client`"),
            ("| CORE-1a | MUST | server | A name is for ever. |\n", "", "lists `CORE-1b"),
            ("| EV-2a | MAY | client | It counts. |\n", "", "does not list `EV-2a MAY client`"),
            ("(no run is that long; `tests/tests/long.rs::it_ends`).", "().", "there is no reason"),
            (
                "- **CORE-1b** SHOULD, both",
                "- **CORE-1a** SHOULD, both",
                "CORE-1a stands there twice",
            ),
            ("simulated: CORE-1b", "simulated: CORE-9", "`CORE-9` is not simulated, and no"),
            ("simulated: CORE-1b", "simulated: CORE-1b, CORE-1b", "for two reasons"),
        ];
        for (right, wrong, said) in cases {
            let page = PAGE.replacen(right, wrong, 1);
            assert_ne!(page, PAGE, "{right:?}");
            let error = Spec::parse(&page).expect_err(said).to_string();
            assert!(
                error.contains(said) && error.contains("hint: "),
                "{said:?} is not in\n{error}"
            );
        }
    }

    #[test]
    fn an_id_that_stands_on_two_pages_is_refused() {
        let error = Spec::of_pages(&[PAGE, PAGE]).expect_err("twice").to_string();
        assert!(error.contains("CORE-1 stands on two pages"), "{error}");
    }

    #[test]
    fn an_id_has_a_number_and_perhaps_a_letter() {
        assert!(["CORE-14", "EV-5a", "EV-12"].iter().all(|id| is_id(id)));
        assert!(["CORE-", "EV-a", "EV5", "XX-1", "EV-5A"].iter().all(|id| !is_id(id)));
        assert_eq!((group_of("EV-5a"), group_of("EV-5")), ("EV-5", "EV-5"));
    }

    #[test]
    fn the_pages_of_this_project_are_in_order() {
        let spec = Spec::embedded();
        assert_eq!(spec.groups().len(), 28 + 18 + 12);
        assert!(spec.statements().count() > 150);
        assert!(
            spec.knows("CORE-3")
                && spec.knows("EV-1m")
                && spec.knows("TK-16b")
                && spec.knows("SE-12c")
        );
        assert!(spec.groups().iter().all(|group| !group.statements.is_empty()));
    }
}
