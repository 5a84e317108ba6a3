//! What scenarios and checkers cite is in the specification.

use std::collections::BTreeSet;
use std::path::Path;

use gapless_sim::check::CHECKERS;
use gapless_sim::scenario::Library;

/// The statement ids that the specification's index lists.
fn statements() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/spec/events.md");
    let text = std::fs::read_to_string(path).expect("the specification is there");
    let index = text.rsplit_once("\n## ").expect("the last chapter is the index").1;
    index
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|row| row.split('|').next())
        .map(|id| id.trim().trim_matches(['*', '`']).to_owned())
        .filter(|id| id.starts_with("CORE-") || id.starts_with("EV-"))
        .collect()
}

/// `EV-5` stands for all of its clauses.
fn is_known(id: &str, statements: &BTreeSet<String>) -> bool {
    statements.iter().any(|known| {
        known == id
            || known.strip_prefix(id).is_some_and(|clause| clause.chars().all(char::is_alphabetic))
    })
}

#[test]
fn every_cited_statement_is_in_the_specification() {
    let statements = statements();
    assert!(statements.len() > 50, "the index was not found: {statements:?}");
    let library = Library::embedded();
    for id in library.ids() {
        for cited in library.get(id).expect("it can be used").statements {
            assert!(is_known(&cited, &statements), "{id} cites {cited}");
        }
    }
    for checker in CHECKERS {
        for cited in checker.statements {
            assert!(is_known(cited, &statements), "{} cites {cited}", checker.name);
        }
    }
}

#[test]
fn every_statement_about_events_has_a_scenario_or_a_checker() {
    let library = Library::embedded();
    let mut cited: BTreeSet<String> =
        CHECKERS.iter().flat_map(|checker| checker.statements).map(|id| (*id).to_owned()).collect();
    for id in library.ids() {
        cited.extend(library.get(id).expect("it can be used").statements);
    }
    // CORE-7 is about acknowledgements, which event streams do not have.
    let uncited: Vec<String> = (1..=14)
        .map(|number| format!("CORE-{number}"))
        .chain((1..=13).map(|number| format!("EV-{number}")))
        .filter(|id| id != "CORE-7" && !cited.contains(id))
        .collect();
    assert_eq!(uncited, [""; 0]);
}
