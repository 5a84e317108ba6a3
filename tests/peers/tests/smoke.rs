//! The command, once and small, with ours and the ceiling: everything arrives, and no time is judged.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn every_workload_delivers_everything_once_in_order() {
    let program = Path::new(env!("CARGO_BIN_EXE_gapless-peers"));
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("lines.jsonl");
    let mut command = Command::new(program);
    command.args(["--small", "--pairs", "1", "--peers", "gapless,raw", "--json"]).arg(&json);
    // Tests of the whole workspace have built it; otherwise the command does.
    let gapless = program.with_file_name("gapless");
    if gapless.exists() {
        command.arg("--gapless").arg(gapless);
    }
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{output:?}");

    let text = std::fs::read_to_string(json).expect("it is written");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let lines: Vec<Value> = lines.collect();
    assert_eq!(lines.len(), 7 * 2, "seven workloads, two peers");
    for line in &lines {
        assert_eq!((&line["rounds"], &line["failure"]), (&1.into(), &Value::Null), "{line}");
        assert!(line["value"].is_object(), "nothing is missing: {line}");
        for fault in ["lost", "doubled", "swapped", "foreign"] {
            assert_eq!(line["counts"][fault], 0, "{line}");
        }
    }
    let delivering = lines.iter().filter(|line| line["counts"]["expected"] != 0).count();
    assert_eq!(delivering, 6 * 2, "idle connections are given nothing");
}

#[test]
fn another_build_has_to_be_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gapless-peers"));
    let output = command.args(["--small", "--peers", "other"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--other"), "{said}");
}
