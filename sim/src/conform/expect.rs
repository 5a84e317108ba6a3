//! What an implementation is known to fail: a file that belongs to whoever owns the implementation.
//!
//! Failures that are expected still run. The file is kept honest: a failure that no longer happens,
//! an entry that fits nothing, and one whose time is over fail the whole ([`crate::exit`], 5).
//! Reading is as strict as that of scenarios.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use globset::{Glob, GlobMatcher};
use miette::{Diagnostic, NamedSource};

use super::outcome::{Finding, Outcome, Word};
use super::version::Version;
use crate::check::CHECKERS;
use crate::scenario::{Problem, Problems, Table, document, nearest};
use crate::spec::{group_of, is_id};

/// The entries of a file.
#[derive(Debug, Clone)]
pub struct Expectations {
    file: String,
    entries: Vec<Entry>,
}

/// One known failure.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which scenarios, as it is written.
    pub id: String,
    /// How they fail.
    pub verdict: Word,
    /// Why that is so.
    pub reason: String,
    /// Where it is reported.
    pub issue: Option<String>,
    glob: GlobMatcher,
    checker: Option<String>,
    statement: Option<String>,
    message: Option<String>,
    until: Option<String>,
    runs: Runs,
    line: usize,
}

/// Which runs of the scenarios fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// Each run of a fixed scenario, and at least one of a swarm.
    Each,
    /// At least one of all.
    Some,
}

/// A file of expectations cannot be used. Every problem is listed, with its place and its remedy.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("the expectations in `{name}` cannot be used")]
pub struct InvalidExpectations {
    name: String,
    #[source_code]
    file: NamedSource<String>,
    #[related]
    problems: Vec<Problem>,
}

impl InvalidExpectations {
    /// What is wrong, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// What the entries say of one outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    /// The entries that apply, by their place in the file.
    pub entries: BTreeSet<usize>,
    /// Whether they cover everything that is wrong.
    pub whole: bool,
}

impl Expectations {
    /// Nothing is known to fail.
    pub fn none() -> Self {
        Self { file: String::new(), entries: Vec::new() }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// [`InvalidExpectations`], with every problem of the file.
    pub fn parse(name: &str, text: &str) -> Result<Self, InvalidExpectations> {
        let problems = Problems::default();
        let entries = document(text, &problems)
            .and_then(|document| read(text, &Table::root(&document, text, &problems)));
        let mut problems = problems.into_inner();
        match entries {
            Some(entries) if problems.is_empty() => Ok(Self { file: name.to_owned(), entries }),
            _ => {
                problems.sort_by_key(|problem| problem.span.offset());
                let file = NamedSource::new(name, text.to_owned()).with_language("TOML");
                Err(InvalidExpectations { name: name.to_owned(), file, problems })
            }
        }
    }

    /// The entries, in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the entries say of an outcome. One that did not fail is covered by nothing.
    pub fn cover(&self, outcome: &Outcome) -> Cover {
        let mut entries = BTreeSet::new();
        if !outcome.verdict.is_failure() && outcome.verdict != Word::Warn {
            return Cover { entries, whole: false };
        }
        let fitting = || self.entries.iter().enumerate().filter(|(_, entry)| entry.fits(outcome));
        if outcome.findings.is_empty() {
            entries.extend(
                fitting().filter(|(_, entry)| entry.says(&outcome.sentence())).map(|(at, _)| at),
            );
            return Cover { whole: !entries.is_empty(), entries };
        }
        let mut whole = true;
        for finding in &outcome.findings {
            let covering: Vec<usize> =
                fitting().filter(|(_, entry)| entry.covers(finding)).map(|(at, _)| at).collect();
            whole &= finding.advice || !covering.is_empty();
            entries.extend(covering);
        }
        Cover { whole: whole && !entries.is_empty(), entries }
    }
}

impl Entry {
    fn fits(&self, outcome: &Outcome) -> bool {
        self.verdict == outcome.verdict && self.glob.is_match(&outcome.case)
    }

    fn says(&self, sentence: &str) -> bool {
        self.message.as_ref().is_none_or(|message| sentence.contains(message))
    }

    fn covers(&self, finding: &Finding) -> bool {
        let is_about = |id: &str| {
            finding.statements.iter().any(|it| it == id || it == group_of(id) || group_of(it) == id)
        };
        self.checker.as_ref().is_none_or(|checker| *checker == finding.checker)
            && self.statement.as_ref().is_none_or(|id| is_about(id))
            && self.says(&finding.message)
    }
}

/// Keeps count of what the expectations covered, to find those that are stale.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// How many runs each entry applied to.
    applied: BTreeMap<usize, u64>,
    /// The fixed scenarios in which an entry should have applied and did not, and what came instead.
    missed: BTreeMap<usize, Vec<(String, Word)>>,
    /// The entries that some case could have shown, and whether the swarms had their chance.
    tried: BTreeSet<usize>,
}

impl Ledger {
    /// Takes an outcome down, and returns whether it is expected.
    pub fn take(&mut self, expectations: &Expectations, outcome: &Outcome) -> bool {
        let cover = expectations.cover(outcome);
        for (at, entry) in expectations.entries.iter().enumerate() {
            if !entry.glob.is_match(&outcome.case) {
                continue;
            }
            self.tried.insert(at);
            if cover.entries.contains(&at) {
                *self.applied.entry(at).or_default() += 1;
            } else if !outcome.swarm && entry.runs == Runs::Each {
                let missed = self.missed.entry(at).or_default();
                missed.push((outcome.case.clone(), outcome.verdict));
            }
        }
        cover.whole
    }

    /// How many runs an entry applied to.
    pub fn applied(&self, entry: usize) -> u64 {
        self.applied.get(&entry).copied().unwrap_or(0)
    }

    /// What is wrong with the expectations, one sentence each. `known` are the scenarios that there
    /// are for the role; `whole` says that every swarm that was selected had its seeds, and not one
    /// seed to look at.
    pub fn stale(
        &self,
        expectations: &Expectations,
        version: &str,
        known: &[&str],
        whole: bool,
    ) -> Vec<String> {
        let mut stale = Vec::new();
        for (at, entry) in expectations.entries.iter().enumerate() {
            let place = format!("{}:{}: `{}`", expectations.file, entry.line, entry.id);
            if !known.iter().any(|id| entry.glob.is_match(id)) {
                let near = nearest(&entry.id, known.iter().copied());
                let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                stale.push(format!("{place} fits no scenario of this role{near}"));
                continue;
            }
            if !self.tried.contains(&at) {
                continue;
            }
            if let Some(until) = &entry.until {
                match (Version::parse(version), Version::parse(until)) {
                    (Some(version), Some(until)) if version < until => {}
                    (Some(_), _) => stale.push(format!(
                        "{place} holds until version {until}, and this is {version}: remove it, or \
                         move `until`"
                    )),
                    (None, _) => stale.push(format!(
                        "{place} holds until version {until}, which cannot be compared with \
                         `{version}`: leave `until` out"
                    )),
                }
            }
            let verdict = entry.verdict.as_str();
            for (case, word) in self.missed.get(&at).into_iter().flatten() {
                stale.push(match word {
                    Word::Pass => format!(
                        "{place} expects `{verdict}`, and `{case}` passes: remove the entry, or \
                         write `runs = \"some\"` if another scenario still fails"
                    ),
                    word => format!(
                        "{place} expects `{verdict}`, and `{case}` does not fail in that way: its \
                         verdict is `{}`",
                        word.as_str()
                    ),
                });
            }
            if self.applied(at) == 0 && !self.missed.contains_key(&at) && whole {
                stale.push(format!("{place} expects `{verdict}`, and no run fails in that way"));
            }
        }
        stale
    }
}

fn read(text: &str, root: &Table<'_>) -> Option<Vec<Entry>> {
    let tables = root.tables("expect")?;
    root.finish();
    let entries: Vec<Option<Entry>> = tables.iter().map(|table| entry(text, table)).collect();
    entries.into_iter().collect()
}

fn entry(text: &str, table: &Table<'_>) -> Option<Entry> {
    const VERDICTS: [Word; 6] = [
        Word::Fail,
        Word::Warn,
        Word::Crash,
        Word::Error,
        Word::Inconclusive,
        Word::Nondeterminism,
    ];
    let id = table.text("id");
    let glob = id.as_ref().and_then(|(id, span)| match Glob::new(id) {
        Ok(glob) => Some(glob.compile_matcher()),
        Err(error) => {
            let message = format!("`{id}` is no pattern: {}", error.kind());
            table.problem(message, span, "no pattern", "`*` stands for anything, as in `events/*`");
            None
        }
    });
    let verdict = table.one_of("verdict", &VERDICTS.map(|word| (word.as_str(), word)));
    let checker = table.text_optional("checker");
    let statement = table.text_optional("statement");
    narrowed(table, verdict, checker.as_ref(), statement.as_ref());
    let message = not_empty(table, "message", table.text_optional("message"));
    let reason = not_empty(table, "reason", table.text("reason"));
    let issue = not_empty(table, "issue", table.text_optional("issue"));
    let until = table.text_optional("until");
    if let Some((until, span)) = &until
        && Version::parse(until).is_none()
    {
        table.problem(
            format!("`{until}` is no version"),
            span,
            "no version",
            "write the version of the implementation in which it is mended, as `6.1.0`",
        );
    }
    let runs = table.one_of_optional("runs", &[("each", Runs::Each), ("some", Runs::Some)]);
    table.finish();
    Some(Entry {
        glob: glob?,
        id: id?.0,
        verdict: verdict?,
        reason: reason?,
        issue,
        checker: checker.map(|(checker, _)| checker),
        statement: statement.map(|(statement, _)| statement),
        message,
        until: until.map(|(until, _)| until),
        runs: runs.unwrap_or(Runs::Each),
        line: 1 + text[..table.span().start].matches('\n').count(),
    })
}

type Text = (String, Range<usize>);

/// Only what a checker has found has a checker and statements, and they have to be known.
fn narrowed(
    table: &Table<'_>,
    verdict: Option<Word>,
    checker: Option<&Text>,
    statement: Option<&Text>,
) {
    let found = verdict.is_none_or(|verdict| matches!(verdict, Word::Fail | Word::Warn));
    for (key, value) in [("checker", checker), ("statement", statement)] {
        let Some((_, span)) = value.filter(|_| !found) else { continue };
        table.problem(
            format!("`{key}` says nothing here"),
            span,
            "only checkers have it",
            "leave it out, or write `verdict = \"fail\"`; `message` narrows the others",
        );
    }
    if let Some((checker, span)) = checker
        && !CHECKERS.iter().any(|known| known.name == checker)
    {
        let remedy = match nearest(checker, CHECKERS.iter().map(|checker| checker.name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "a failure names its checker below its sentence".to_owned(),
        };
        table.problem(format!("there is no checker `{checker}`"), span, "unknown", remedy);
    }
    if let Some((statement, span)) = statement
        && !is_id(statement)
    {
        table.problem(
            format!("`{statement}` is no statement"),
            span,
            "not the form of a statement",
            "statements are written `CORE-5`, `EV-12` or `EV-5a`; see docs/spec",
        );
    }
}

fn not_empty(table: &Table<'_>, key: &str, value: Option<Text>) -> Option<String> {
    let (text, span) = value?;
    if text.trim().is_empty() {
        let remedy = format!("say something, or leave `{key}` out if it may be");
        table.problem(format!("`{key}` says nothing"), &span, "empty", remedy);
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests;
