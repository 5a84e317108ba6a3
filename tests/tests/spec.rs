//! What scenarios and checkers cite is in the specification, and what it says about tests is true.

use std::path::Path;

use gapless_sim::spec::Spec;

#[test]
fn what_shows_a_statement_that_no_run_shows_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let spec = Spec::embedded();
    for statement in spec.statements() {
        let reason = statement.not_simulated.as_deref().unwrap_or_default();
        for path in reason.split('`').skip(1).step_by(2).filter(|word| word.contains('/')) {
            assert!(root.join(path).is_file(), "{} is to be shown by {path}", statement.id);
        }
    }
}

#[test]
fn every_statement_has_a_scenario_a_checker_or_a_reason() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["gapless-sim", "statements", "--check"].map(Into::into);
    let code = gapless_sim::cli::main(args, &mut out, &mut err);
    assert_eq!(code, gapless_sim::exit::OK, "{}", String::from_utf8_lossy(&err));
}
