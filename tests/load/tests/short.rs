//! The command, small and short: everything holds, and a client that is wrong is found.

mod common;

use std::process::Command;

use common::{load, said};

#[test]
fn a_mixed_load_with_a_fault_every_second_loses_doubles_and_reorders_nothing() {
    let output = load(&["--connections", "200", "--for", "15s", "--processes", "3"]);
    let said = said(&output);
    println!("{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("faults     15: ") || said.contains("faults     14: "), "{said}");
}

/// What the judge says of a client that does something wrong with one event.
fn judged(mutant: &str) -> String {
    let output = load(&[
        "--connections",
        "20",
        "--for",
        "4s",
        "--fault-every",
        "2s",
        "--processes",
        "1",
        "--mutant",
        mutant,
    ]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[test]
fn one_event_that_a_client_drops_doubles_or_swaps_is_found_and_named_for_what_it_is() {
    let drops = judged("drops");
    assert!(drops.contains("delivered: 1 lost, 0 doubled, 0 swapped, 0 damaged"), "{drops}");
    let doubles = judged("doubles");
    assert!(doubles.contains("delivered: 0 lost, 1 doubled, 0 swapped, 0 damaged"), "{doubles}");
    let swaps = judged("swaps");
    assert!(swaps.contains("delivered: 0 lost, 0 doubled, 1 swapped, 0 damaged"), "{swaps}");
}

#[test]
fn more_connections_than_files_is_an_error_with_a_remedy() {
    let program = env!("CARGO_BIN_EXE_gapless-load");
    let limited = format!("ulimit -n 1200; exec {program} --connections 10000");
    let output = Command::new("sh").args(["-c", &limited]).output().expect("it starts");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("a process may have 1200 open files") && said.contains("hint: "),
        "{said}"
    );
}
