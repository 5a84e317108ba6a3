//! Known bugs of real systems: each is played by scenarios, or has a reason why it cannot be.
//!
//! `docs/corpus.txt` lists the ids; `docs/faults.md` has a row for each. A scenario names the bugs
//! that it plays in its `reference`, a mutant those that it has. What is said in one place is
//! compared with what is said in the others, so that no bug gets lost on the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::judge;
use crate::mutants::Mutant;
use crate::plan::Plan;
use crate::scenario::{Library, LibraryError, draw};
use crate::seed::Seed;
use crate::world;

const IDS: &str = include_str!("../../docs/corpus.txt");
const ROWS: &str = include_str!("../../docs/faults.md");

/// How many letters a reason has at least.
const REASON_MIN: usize = 10;

/// How many seeds of a scenario are tried with a mutant; fixed scenarios differ in ids and jitter
/// only.
const SEEDS_MAX: u64 = 10;

/// The known bugs, by what scenarios call them: `FS-07`, `hostlink:H3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// What is wrong with the files themselves, as sentences.
    problems: Vec<String>,
    ids: BTreeSet<String>,
    rows: BTreeMap<String, Row>,
}

/// What is said of a bug.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Row {
    /// The scenarios that play it.
    scenarios: BTreeSet<String>,
    /// The rest of the cell.
    reason: String,
}

/// Where a mutant was caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: Seed,
    /// The checker that said so.
    pub checker: &'static str,
}

impl Corpus {
    /// The known bugs that there were when the program was built.
    pub fn embedded() -> Self {
        Self::parse(IDS, ROWS)
    }

    /// Reads the list of ids, and the tables.
    fn parse(list: &str, tables: &str) -> Self {
        let mut problems = Vec::new();
        let mut ids = BTreeSet::new();
        for id in list.lines().map(str::trim).filter(|id| !id.is_empty() && !id.starts_with('#')) {
            let Some(reference) = reference_of(id) else {
                problems.push(format!("docs/corpus.txt: `{id}` is no id of a known fault"));
                continue;
            };
            if !ids.insert(reference) {
                problems.push(format!("docs/corpus.txt lists {id} twice"));
            }
        }
        let mut rows = BTreeMap::new();
        for line in tables.lines().filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let (Some(id), Some(last)) = (cells.first(), cells.last()) else { continue };
            let Some(reference) = reference_of(id) else { continue };
            if rows.insert(reference, row(last)).is_some() {
                problems.push(format!("docs/faults.md has two rows for {id}"));
            }
        }
        Self { problems, ids, rows }
    }

    /// How many bugs there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many of them no scenario plays, for a reason.
    pub fn excused(&self) -> usize {
        self.rows.values().filter(|row| row.scenarios.is_empty()).count()
    }

    /// Whether a `reference` names a known bug.
    pub fn knows(&self, reference: &str) -> bool {
        self.ids.contains(reference)
    }

    /// The scenarios that play a bug.
    pub fn scenarios(&self, reference: &str) -> impl Iterator<Item = &str> {
        self.rows.get(reference).into_iter().flat_map(|row| &row.scenarios).map(String::as_str)
    }

    /// Everything that is wrong, as sentences: bugs without a row, rows without a scenario or a
    /// reason, and scenarios that say something else than the rows.
    ///
    /// # Errors
    ///
    /// [`LibraryError`] if a scenario cannot be used.
    pub fn problems(&self, library: &Library) -> Result<Vec<String>, LibraryError> {
        let mut problems = self.problems.clone();
        let mut claims: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for id in library.ids() {
            for reference in library.get(id)?.reference {
                if names_a_bug(&reference) {
                    claims.entry(reference).or_default().insert(id.to_owned());
                }
            }
        }
        for id in self.ids.iter().filter(|id| !self.rows.contains_key(*id)) {
            problems.push(format!("{id} has no row in docs/faults.md"));
        }
        let none = BTreeSet::new();
        for (id, row) in &self.rows {
            if !self.ids.contains(id) {
                problems.push(format!("{id} has a row and is not in docs/corpus.txt"));
            }
            if row.scenarios.is_empty() && row.reason.len() < REASON_MIN {
                problems.push(format!("{id} has neither a scenario nor a reason"));
            }
            let claimed = claims.get(id).unwrap_or(&none);
            for scenario in claimed.difference(&row.scenarios) {
                problems.push(format!("`{scenario}` plays {id}, and its row does not say so"));
            }
            for scenario in row.scenarios.difference(claimed) {
                problems.push(format!(
                    "the row of {id} names `{scenario}`, which does not have it in `reference`"
                ));
            }
        }
        for (reference, scenarios) in claims.iter().filter(|(id, _)| !self.rows.contains_key(*id)) {
            let scenarios: Vec<_> = scenarios.iter().map(|id| format!("`{id}`")).collect();
            problems.push(format!("{} plays {reference}, which has no row", scenarios.join(", ")));
        }
        Ok(problems)
    }

    /// Runs a mutant in the scenarios of a bug that it has, until one of them says so.
    ///
    /// # Errors
    ///
    /// [`LibraryError`] if a scenario cannot be used.
    pub fn catch(
        &self,
        library: &Library,
        mutant: &Mutant,
        reference: &str,
    ) -> Result<Option<Caught>, LibraryError> {
        let mut scenarios = Vec::new();
        for id in self.scenarios(reference) {
            scenarios.push(library.get(id)?);
        }
        // Where it lives it shows soonest.
        scenarios.sort_by_key(|scenario| scenario.id != mutant.home);
        for seed in (1..=SEEDS_MAX).map(Seed) {
            for scenario in &scenarios {
                let plan = draw(scenario, seed);
                let plan = Plan { mutant: Some(mutant.id.to_owned()), ..plan };
                let Ok(run) = world::run_untraced(&plan) else { continue };
                if let Some(found) = judge(&run).violations().first() {
                    let (scenario, checker) = (scenario.id.clone(), found.checker);
                    return Ok(Some(Caught { scenario, seed, checker }));
                }
            }
        }
        Ok(None)
    }
}

/// What the last cell of a row says.
fn row(cell: &str) -> Row {
    let mut row = Row::default();
    for (nth, part) in cell.split('`').enumerate() {
        let is_scenario =
            ["events/", "tasks/", "session/"].iter().any(|folder| part.starts_with(folder));
        match nth % 2 == 1 && is_scenario {
            true => drop(row.scenarios.insert(part.to_owned())),
            false => row.reason.push_str(part.trim_matches([' ', ',', ';'])),
        }
    }
    row
}

/// How scenarios and mutants name a bug: `hostlink:H3` for `H3`. `None` if it is no id.
fn reference_of(id: &str) -> Option<String> {
    let letters = id.len() - id.trim_start_matches(|c: char| c.is_ascii_uppercase()).len();
    let (kind, number) = id.split_at(letters);
    let digits = number.strip_prefix('-').unwrap_or(number);
    let digits = digits.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let source = match kind {
        "FS" => "",
        "R" | "N" | "RC" => "relaycast:",
        "H" | "HL" => "hostlink:",
        "S" | "SD" => "springdrift:",
        _ => return None,
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| format!("{source}{id}"))
}

/// Whether a `reference` has the form of a known bug; others say in words where a scenario is from.
fn names_a_bug(reference: &str) -> bool {
    ["FS-", "relaycast:", "hostlink:", "springdrift:"]
        .iter()
        .any(|prefix| reference.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::{Corpus, IDS, ROWS, reference_of};
    use crate::scenario::Library;

    fn problems(list: &str, tables: &str) -> Vec<String> {
        Corpus::parse(list, tables).problems(&Library::embedded()).expect("all can be used")
    }

    #[test]
    fn an_id_says_where_it_is_from() {
        let named = |id| reference_of(id);
        assert_eq!(named("FS-07").as_deref(), Some("FS-07"));
        assert_eq!(named("R5a").as_deref(), Some("relaycast:R5a"));
        assert_eq!(named("SD-03").as_deref(), Some("springdrift:SD-03"));
        assert!(["id", "", "---", "R", "X1", "R1!"].iter().all(|id| reference_of(id).is_none()));
    }

    #[test]
    fn every_known_fault_is_played_or_excused() {
        assert_eq!(problems(IDS, ROWS), [""; 0]);
        let corpus = Corpus::embedded();
        assert!(corpus.len() > 190 && corpus.excused() < corpus.len() / 10, "{}", corpus.excused());
    }

    #[test]
    fn a_fault_that_got_lost_is_told() {
        let cases = [
            (
                IDS.replace("FS-41\n", ""),
                ROWS.to_owned(),
                "FS-41 has a row and is not in docs/corpus.txt",
            ),
            (
                IDS.replace("FS-41\n", "FS-41\nFS-41\n"),
                ROWS.to_owned(),
                "docs/corpus.txt lists FS-41 twice",
            ),
            (
                IDS.replace("FS-41\n", "FS-41\nx\n"),
                ROWS.to_owned(),
                "`x` is no id of a known fault",
            ),
            (IDS.to_owned(), ROWS.replace("| R17 |", "| R16 |"), "relaycast:R17 has no row"),
            (IDS.to_owned(), ROWS.replace("| R17 |", "| R16 |"), "has two rows for R16"),
            (
                IDS.to_owned(),
                ROWS.replace("| `events/ring-overflow-700` |", "| |"),
                "R17 has neither",
            ),
            (
                IDS.to_owned(),
                ROWS.replace("| `events/ring-overflow-700` |", "| |"),
                "`events/ring-overflow-700` plays relaycast:R17, and its row does not say so",
            ),
            (
                IDS.to_owned(),
                ROWS.replace(
                    "| `events/ring-overflow-700` |",
                    "| `events/ring-overflow-700`, `events/swarm` |",
                ),
                "the row of relaycast:R17 names `events/swarm`, which does not have it",
            ),
        ];
        for (list, tables, said) in cases {
            assert!(list != IDS || tables != ROWS, "{said}");
            let found = problems(&list, &tables);
            assert!(found.iter().any(|one| one.contains(said)), "{said:?} is not in {found:#?}");
        }
    }
}
