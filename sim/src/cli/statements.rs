//! `statements`: what the specification says, and what stands for each statement.

use std::io::Write;

use super::args::StatementsArgs;
use super::report::{BAD, QUIET};
use super::{Failure, diagnostic, library, usage};
use crate::check::CHECKERS;
use crate::exit;
use crate::mutants::catalogue;
use crate::scenario::{Library, nearest};
use crate::spec::{Group, Spec, Statement};

/// How many columns a line of the list has.
const COLUMNS_MAX: usize = 100;

/// Mutants by id, each with the statements that it breaks.
type Mutants<'a> = [(&'a str, &'a [&'a str])];

pub(super) fn run(
    args: &StatementsArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    let library = library(args.scenarios.as_deref())?;
    let mutants: Vec<_> = catalogue().map(|mutant| (mutant.id, mutant.statements)).collect();
    let table = Table::new(Spec::embedded(), &library, &mutants)?;
    if args.check {
        return check(&table, out, err);
    }
    for id in &args.words {
        if !table.spec.knows(id) {
            return Err(usage(format!("there is no statement `{id}`"), table.suggestion(id)));
        }
    }
    let wanted = |group: &Group, statement: &Statement| {
        args.words.is_empty() || args.words.iter().any(|id| group.id == *id || statement.id == *id)
    };
    let mut rows = Vec::new();
    let mut texts = Vec::new();
    for group in table.spec.groups() {
        let statements: Vec<&Statement> =
            group.statements.iter().filter(|statement| wanted(group, statement)).collect();
        if statements.is_empty() {
            continue;
        }
        rows.extend(statements.iter().map(|statement| table.json(group, statement)));
        texts.push(table.text(group, &statements));
    }
    match args.json {
        true => writeln!(out, "{}", serde_json::Value::from(rows))?,
        false => write!(out, "{}", texts.join("\n"))?,
    }
    Ok(exit::OK)
}

/// Says whether every statement is stood for.
fn check(table: &Table, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Failure> {
    let count = table.spec.statements().count();
    let problems = table.problems();
    if problems.is_empty() {
        let exempt = table.spec.statements().filter(|one| one.not_simulated.is_some()).count();
        let simulated = count - exempt;
        writeln!(
            out,
            "ok: {count} statements: {simulated} have a scenario or a checker, {exempt} a reason \
             why no run shows them"
        )?;
        return Ok(exit::OK);
    }
    for problem in &problems {
        writeln!(err, "  {BAD}×{BAD:#} {problem}")?;
    }
    writeln!(
        err,
        "error: {} of the table of {count} statements\n  hint: put the id into `statements` of \
         the scenario or checker that shows it, or say in the\n        index of docs/spec why no \
         run does",
        match problems.len() {
            1 => "one hole or error".to_owned(),
            count => format!("{count} holes or errors"),
        }
    )?;
    Ok(exit::VIOLATION)
}

/// Stands for statements.
struct Advocate {
    kind: Kind,
    name: String,
    /// The ids that it cites.
    cites: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Shows that statements hold.
    Scenario,
    /// Judges whether statements hold.
    Checker,
    /// Breaks statements.
    Mutant,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Scenario, Self::Checker, Self::Mutant];

    fn word(self) -> &'static str {
        match self {
            Self::Scenario => "scenario",
            Self::Checker => "checker",
            Self::Mutant => "mutant",
        }
    }
}

/// The specification, and what stands for it.
struct Table {
    spec: Spec,
    advocates: Vec<Advocate>,
}

impl Table {
    fn new(spec: Spec, library: &Library, mutants: &Mutants<'_>) -> Result<Self, Failure> {
        let mut advocates = Vec::new();
        for id in library.ids() {
            let scenario = library.get(id).map_err(diagnostic)?;
            let (name, cites) = (scenario.id, scenario.statements);
            advocates.push(Advocate { kind: Kind::Scenario, name, cites });
        }
        let checkers = CHECKERS.iter().map(|checker| (checker.name, checker.statements));
        let fixed = checkers.map(|fixed| (Kind::Checker, fixed));
        for (kind, (name, cites)) in
            fixed.chain(mutants.iter().map(|mutant| (Kind::Mutant, *mutant)))
        {
            let cites = cites.iter().map(|id| (*id).to_owned()).collect();
            advocates.push(Advocate { kind, name: name.to_owned(), cites });
        }
        Ok(Self { spec, advocates })
    }

    /// The names of those of a kind that cite an id that fits.
    fn names(&self, kind: Kind, fits: impl Fn(&str) -> bool) -> Vec<&str> {
        let cite = |advocate: &&Advocate| {
            advocate.kind == kind && advocate.cites.iter().any(|id| fits(id))
        };
        self.advocates.iter().filter(cite).map(|advocate| advocate.name.as_str()).collect()
    }

    /// Whether a scenario or checker is missing.
    fn is_hole(&self, statement: &Statement) -> bool {
        let covered = |kind| !self.names(kind, |id| statement.is_covered_by(id)).is_empty();
        statement.not_simulated.is_none() && !covered(Kind::Scenario) && !covered(Kind::Checker)
    }

    /// Everything that is wrong, as sentences.
    fn problems(&self) -> Vec<String> {
        let holes = self.spec.statements().filter(|statement| self.is_hole(statement));
        let mut problems: Vec<String> = holes
            .map(|hole| {
                format!("no scenario and no checker stands for {}: {}", hole.id, hole.sentence)
            })
            .collect();
        for Advocate { kind, name, cites } in &self.advocates {
            let who = format!("the {} `{name}`", kind.word());
            for id in cites {
                if !self.spec.knows(id) {
                    problems.push(format!("{who} names `{id}`, which is no statement"));
                }
                let exempt = |one: &Statement| one.id == *id && one.not_simulated.is_some();
                if self.spec.statements().any(exempt) {
                    problems
                        .push(format!("{who} names `{id}`, which the index calls not simulated"));
                }
            }
        }
        problems
    }

    /// What somebody may have meant by a word that is no id.
    fn suggestion(&self, word: &str) -> String {
        let groups = self.spec.groups().iter().map(|group| group.id.as_str());
        let statements = self.spec.statements().map(|statement| statement.id.as_str());
        let all = "`gapless-sim statements` lists the statements";
        match nearest(word, groups.chain(statements)) {
            Some(near) => format!("did you mean `{near}`? {all}"),
            None => all.to_owned(),
        }
    }

    fn json(&self, group: &Group, statement: &Statement) -> serde_json::Value {
        let names = |kind| self.names(kind, |id| statement.is_covered_by(id));
        serde_json::json!({
            "id": statement.id, "group": group.title, "level": statement.level,
            "subject": statement.subject, "sentence": statement.sentence,
            "scenarios": names(Kind::Scenario), "checkers": names(Kind::Checker),
            "mutants": names(Kind::Mutant), "not_simulated": statement.not_simulated,
        })
    }

    /// A group: what stands for all of it, then each statement with what names it alone.
    fn text(&self, group: &Group, statements: &[&Statement]) -> String {
        let mut text = format!("{}  {}\n", group.id, group.title);
        for kind in Kind::ALL {
            let names = self.names(kind, |id| id == group.id);
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            text += &labelled(2, &format!("{}s", kind.word()), &names);
        }
        for statement in statements {
            let Statement { id, level, subject, sentence, not_simulated } = statement;
            let heading = format!("  {id:<8} {level:<6} {subject:<6}  ");
            text += &wrapped(&heading, heading.len(), sentence);
            for kind in Kind::ALL {
                let names = self.names(kind, |cited| cited == *id);
                if !names.is_empty() {
                    text += &labelled(11, &format!("{}s", kind.word()), &names.join(", "));
                }
            }
            if let Some(reason) = not_simulated {
                text += &labelled(11, "not simulated:", reason);
            }
            if self.is_hole(statement) {
                text += &format!("{:11}{BAD}no scenario and no checker{BAD:#}\n", "");
            }
        }
        text
    }
}

/// A value behind a label, from a column on.
fn labelled(column: usize, label: &str, value: &str) -> String {
    let indent = column + label.len().max(9) + 2;
    wrapped(&format!("{:column$}{QUIET}{label:<9}{QUIET:#}  ", ""), indent, value)
}

/// A text behind a heading of some columns, broken between words; further lines begin where the
/// first text does.
fn wrapped(heading: &str, columns: usize, text: &str) -> String {
    let mut lines = heading.to_owned();
    let mut used = columns;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if used > columns && used + 1 + width > COLUMNS_MAX {
            lines += &format!("\n{:columns$}", "");
            used = columns;
        } else if used > columns {
            lines.push(' ');
            used += 1;
        }
        lines += word;
        used += width;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS_MAX, Table, wrapped};
    use crate::scenario::Library;
    use crate::spec::Spec;

    fn problems(mutants: &super::Mutants<'_>) -> Vec<String> {
        match Table::new(Spec::embedded(), &Library::embedded(), mutants) {
            Ok(table) => table.problems(),
            Err(_) => panic!("every scenario can be read"),
        }
    }

    #[test]
    fn who_names_what_is_no_statement_or_not_simulated_is_told() {
        assert_eq!(problems(&[]), [""; 0]);
        assert_eq!(problems(&[("m", &["CORE-3", "EV-5a", "CORE-14"])]), [""; 0]);
        let found = problems(&[("m", &["EV-99", "CORE-14a"])]);
        assert_eq!(
            found,
            [
                "the mutant `m` names `EV-99`, which is no statement",
                "the mutant `m` names `CORE-14a`, which the index calls not simulated",
            ]
        );
    }

    #[test]
    fn a_mutant_shows_at_what_it_breaks_and_covers_nothing() {
        let library = Library::embedded();
        let mutants: &super::Mutants<'_> = &[("m1", &["EV-5"]), ("m2", &["EV-5b"])];
        let Ok(table) = Table::new(Spec::embedded(), &library, mutants) else { panic!("readable") };
        let group =
            table.spec.groups().iter().find(|group| group.id == "EV-5").expect("it is there");
        let json = table.json(group, &group.statements[1]);
        assert_eq!(json["mutants"], serde_json::json!(["m1", "m2"]));
        let text = table.text(group, &group.statements.iter().collect::<Vec<_>>());
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.contains("  mutants    m1\n"), "{text}");
        assert!(text.contains("           mutants    m2\n  EV-5c"), "{text}");
        let nothing = Table { spec: table.spec, advocates: Vec::new() };
        assert!(nothing.problems().iter().any(|hole| hole.contains("stands for EV-5b: ")));
    }

    #[test]
    fn a_long_text_is_broken_between_words() {
        let lines = wrapped("  label  ", 9, &"word ".repeat(40));
        assert!(lines.lines().count() == 3 && lines.lines().all(|line| line.len() <= COLUMNS_MAX));
        assert!(lines.starts_with("  label  word word"));
        assert!(lines.lines().skip(1).all(|line| line.starts_with("         word")));
        let long = "x".repeat(COLUMNS_MAX);
        assert_eq!(wrapped("- ", 2, &long), format!("- {long}\n"));
    }
}
