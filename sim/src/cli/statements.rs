//! `statements`: what the specification says, and what stands for each statement.

use std::io::Write;
use std::path::Path;

use super::args::StatementsArgs;
use super::report::{BAD, QUIET};
use super::swept::{MEANS, Swept};
use super::{Failure, diagnostic, library, save, usage};
use crate::check::CHECKERS;
use crate::exit;
use crate::mutants::catalogue;
use crate::scenario::{Library, nearest};
use crate::spec::{Change, Group, Manifest, Spec, Statement};

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
    let mut table = Table::new(Spec::embedded(), &library, &mutants)?;
    if let Some(path) = &args.manifest {
        return manifest(path, &table.spec, out);
    }
    if !args.swept.is_empty() {
        table.swept = Some(Swept::of(&args.swept, &table.spec, &library)?);
    }
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
        false => {
            write!(out, "{}", texts.join("\n"))?;
            if let Some(line) = table.exercised() {
                write!(
                    out,
                    "\n{}{}",
                    wrapped("exercised  ", 11, &line),
                    wrapped("           ", 11, MEANS)
                )?;
            }
        }
    }
    Ok(exit::OK)
}

/// Brings a manifest up to date, and says what changes.
fn manifest(path: &Path, spec: &Spec, out: &mut dyn Write) -> Result<u8, Failure> {
    let named = || format!("`{}`", path.display());
    let before = match std::fs::read_to_string(path) {
        Ok(text) => Manifest::parse(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Manifest::default()),
        Err(error) => {
            let hint = "name the committed manifest, docs/spec/statements.json";
            return Err(usage(format!("{} cannot be read: {error}", named()), hint));
        }
    };
    let now = Manifest::of(spec);
    let changes = before.and_then(|before| before.changes(&now));
    let changes = changes.map_err(|error| Failure::Usage(format!("error: {error}\n")))?;
    for change in &changes {
        match change {
            Change::New(id) => writeln!(out, "  new        {id}")?,
            Change::Reworded(id) => {
                writeln!(out, "  reworded   {id}: what can be observed has to be the same")?;
            }
            Change::Retested(id) => writeln!(out, "  retested   {id}")?,
        }
    }
    save(path, &now.text())?;
    writeln!(out, "ok: {} has {} statements", named(), now.entries().len())?;
    Ok(exit::OK)
}

/// Says whether every statement is stood for.
fn check(table: &Table, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Failure> {
    let count = table.spec.statements().count();
    let problems = table.problems();
    if problems.is_empty() {
        let exempt: Vec<_> =
            table.spec.statements().filter(|one| one.not_simulated.is_some()).collect();
        let tested = exempt.iter().filter(|one| !one.tests().is_empty()).count();
        let simulated = count - exempt.len();
        writeln!(
            out,
            "ok: {count} statements: {simulated} have a scenario or a checker, {tested} a test \
             instead, {} only a reason why no run shows them; no MUST is uncovered",
            exempt.len() - tested
        )?;
        if let Some(line) = table.exercised() {
            writeln!(out, "exercised: {line}; {MEANS}")?;
        }
        return Ok(exit::OK);
    }
    for problem in &problems {
        writeln!(err, "  {BAD}×{BAD:#} {problem}")?;
    }
    writeln!(
        err,
        "error: {} of the table of {count} statements\n  hint: put the id into `statements` of \
         the scenario or checker that shows it, or say in the\n        index of docs/spec why no \
         run does, and which test does",
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
    /// What a sweep has exercised, if one is given.
    swept: Option<Swept>,
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
        Ok(Self { spec, advocates, swept: None })
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
        statement.not_simulated.is_none()
            && !statement.is_withdrawn()
            && !covered(Kind::Scenario)
            && !covered(Kind::Checker)
    }

    /// How many statements the sweep has exercised, as a sentence without an end.
    fn exercised(&self) -> Option<String> {
        let swept = self.swept.as_ref()?;
        let simulated = || self.spec.statements().filter(|one| one.not_simulated.is_none());
        let exercised = simulated().filter(|one| swept.runs_of(&one.id).is_some()).count();
        let (count, runs) = (simulated().count(), swept.runs);
        Some(format!("{exercised} of {count} simulated statements in {runs} runs"))
    }

    /// Everything that is wrong, as sentences.
    fn problems(&self) -> Vec<String> {
        let holes = self.spec.statements().filter(|statement| self.is_hole(statement));
        let mut problems: Vec<String> = holes
            .map(|hole| {
                format!("no scenario and no checker stands for {}: {}", hole.id, hole.sentence)
            })
            .collect();
        let must = |one: &&Statement| one.level == "MUST" && !one.is_withdrawn();
        for one in self.spec.statements().filter(must) {
            if one.not_simulated.is_some() && one.tests().is_empty() {
                problems.push(format!("no run shows the MUST {}, and no test is named", one.id));
            }
            if let Some(swept) = self.swept.as_ref().filter(|_| one.not_simulated.is_none())
                && swept.runs_of(&one.id).is_none()
            {
                problems.push(format!("the sweep has not exercised the MUST {}", one.id));
            }
        }
        problems.extend(drift(&self.spec));
        for Advocate { kind, name, cites } in &self.advocates {
            let who = format!("the {} `{name}`", kind.word());
            for id in cites {
                if !self.spec.knows(id) {
                    problems.push(format!("{who} names `{id}`, which is no statement"));
                }
                if self.spec.statements().any(|one| one.id == *id && one.is_withdrawn()) {
                    problems.push(format!("{who} names `{id}`, which was withdrawn"));
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
            "tests": statement.tests(),
            "exercised": self.swept.as_ref().map(|swept| swept.runs_of(&statement.id).map_or(0, |(runs, _)| runs)),
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
            let Statement { id, level, subject, sentence, not_simulated, .. } = statement;
            let heading = format!("  {id:<8} {level:<6} {subject:<6}  ");
            text += &wrapped(&heading, heading.len(), sentence);
            for kind in Kind::ALL {
                let names = self.names(kind, |cited| cited == *id);
                if !names.is_empty() {
                    text += &labelled(11, &format!("{}s", kind.word()), &names.join(", "));
                }
            }
            if not_simulated.is_some() {
                text += &labelled(11, "not simulated:", statement.reason());
            }
            for test in statement.tests() {
                let (path, name) = test.split_once("::").unwrap_or((test, ""));
                text += &labelled(11, "tested by", path);
                text += &format!("{:13}{name}\n", "");
            }
            if let Some(swept) = self.swept.as_ref().filter(|_| not_simulated.is_none()) {
                let said = match swept.runs_of(id) {
                    Some((runs, first)) => {
                        format!("by {runs} of {} runs, the first: {first}", swept.runs)
                    }
                    None => format!("by none of {} runs", swept.runs),
                };
                text += &labelled(11, "exercised", &said);
            }
            if self.is_hole(statement) {
                text += &format!("{:11}{BAD}no scenario and no checker{BAD:#}\n", "");
            }
        }
        text
    }
}

/// How the pages differ from the committed manifest, as sentences.
fn drift(spec: &Spec) -> Vec<String> {
    let remedy = "look at the change, then run `cargo sim statements --manifest \
                  docs/spec/statements.json`";
    let changes = Manifest::committed().and_then(|before| before.changes(&Manifest::of(spec)));
    match changes {
        Err(error) => vec![error.to_string()],
        Ok(changes) => changes
            .into_iter()
            .map(|change| match change {
                Change::New(id) => format!("{id} is not in the manifest: {remedy}"),
                Change::Reworded(id) => format!("the manifest has other words for {id}: {remedy}"),
                Change::Retested(id) => format!("the manifest has other tests for {id}: {remedy}"),
            })
            .collect(),
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
    use super::{COLUMNS_MAX, Table, drift, wrapped};
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
        let nothing = Table { spec: table.spec, advocates: Vec::new(), swept: None };
        assert!(nothing.problems().iter().any(|hole| hole.contains("stands for EV-5b: ")));
    }

    #[test]
    fn a_must_that_no_run_shows_needs_a_test() {
        let page = "### EV-99 More\n- **EV-99a** MUST, server: It sings.\n\n## 2. Index\n\n\
                    - Not simulated: EV-99a (nobody listens).\n\n| EV-99a | MUST | server | It sings. |\n";
        let Ok(table) = Table::new(Spec::parse(page).expect("one"), &Library::embedded(), &[])
        else {
            panic!("every scenario can be read")
        };
        let found = table.problems();
        assert!(found.contains(&"no run shows the MUST EV-99a, and no test is named".to_owned()));
        assert!(
            found.iter().any(|one| one.starts_with("CORE-1a is in the manifest and on no page"))
        );
    }

    #[test]
    fn words_that_changed_without_the_manifest_are_told() {
        let events = include_str!("../../../docs/spec/events.md");
        assert!(drift(&Spec::embedded()).is_empty());
        let pages = [
            events.replace("the same bytes for ever", "the same bytes"),
            include_str!("../../../docs/spec/tasks.md").to_owned(),
            include_str!("../../../docs/spec/session.md").to_owned(),
        ];
        let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
        let found = drift(&Spec::of_pages(&pages).expect("in order"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("the manifest has other words for CORE-1a: "), "{found:?}");
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
