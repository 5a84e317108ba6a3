//! What scenarios and checkers cite is in the specification, and what it says about tests is true.

use std::path::{Path, PathBuf};

use gapless_sim::spec::{Manifest, Spec};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn what_shows_a_statement_that_no_run_shows_is_there() {
    for statement in Spec::embedded().statements() {
        let reason = statement.not_simulated.as_deref().unwrap_or_default();
        for path in reason.split('`').skip(1).step_by(2).filter(|word| word.contains('/')) {
            let (path, test) = path.split_once("::").unwrap_or((path, ""));
            let text = std::fs::read_to_string(root().join(path)).unwrap_or_default();
            assert!(!text.is_empty(), "{} is to be shown by {path}", statement.id);
            // A test stands below its attribute, in a macro or not.
            let is_test =
                |line: usize| text.lines().nth(line - 1).is_some_and(|line| line.contains("test"));
            let declared = format!("fn {test}(");
            let found = text.lines().enumerate().any(|(line, code)| {
                code.trim_start().trim_start_matches("async ").starts_with(&declared)
                    && line > 0
                    && is_test(line)
            });
            assert!(
                test.is_empty() || found,
                "{}: there is no test {test} in {path}",
                statement.id
            );
        }
    }
}

#[test]
fn every_must_has_a_scenario_a_checker_or_a_test_and_the_manifest_is_up_to_date() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["gapless-sim", "statements", "--check"].map(Into::into);
    let code = gapless_sim::cli::main(args, &mut out, &mut err);
    assert_eq!(code, gapless_sim::exit::OK, "{}", String::from_utf8_lossy(&err));
}

#[test]
fn the_manifest_is_what_the_command_writes() {
    let committed = std::fs::read_to_string(root().join("docs/spec/statements.json"));
    assert_eq!(committed.expect("it is there"), Manifest::of(&Spec::embedded()).text());
}
