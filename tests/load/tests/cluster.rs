//! The command with several servers, small and short: everything holds, and a client that is wrong is
//! found.

mod common;

use std::process::{Command, Stdio};

use common::{load, said};

/// Whether there is an engine; says so if there is none.
fn engine() -> bool {
    let program = Command::new("nats-server").arg("--version").stdout(Stdio::null()).status();
    let there = program.is_ok_and(|status| status.success());
    if !there {
        println!("skipped: there is no `nats-server`; install Debian's package of that name");
    }
    there
}

#[test]
fn servers_and_nodes_of_the_engine_are_killed_and_nothing_is_lost_doubled_or_reordered() {
    if !engine() {
        return;
    }
    let output = load(&[
        "cluster",
        "--clients",
        "100",
        "--for",
        "20s",
        "--server-killed-every",
        "4s",
        "--engine-killed-every",
        "10s",
    ]);
    let said = said(&output);
    println!("{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("  killed     5 servers; "), "{said}");
    assert!(!said.contains("; 0 nodes of the engine"), "{said}");
}

#[test]
fn one_event_that_a_client_of_several_servers_drops_is_found() {
    if !engine() {
        return;
    }
    let output = load(&[
        "cluster",
        "--clients",
        "20",
        "--for",
        "6s",
        "--processes",
        "1",
        "--mutant",
        "drops",
    ]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("delivered: 1 lost, 0 doubled, 0 swapped, 0 damaged"), "{said}");
}

#[test]
fn an_engine_that_is_not_there_is_an_error_with_a_remedy() {
    let output = load(&["cluster", "--nats-server", "/nowhere/nats-server"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("/nowhere/nats-server") && said.contains("hint: "), "{said}");
}
