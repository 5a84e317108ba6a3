//! The command `gapless-sim conform`, with the reference implementation in this process and behind
//! its adapter.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use gapless_sim::{cli, exit};

const ADAPTER: &str = env!("CARGO_BIN_EXE_gapless-sim");

/// Exit code and output of a command line with shell quotation.
fn sim(line: &str) -> (u8, String) {
    let words = shlex::split(line).expect("closed quotation marks");
    let args = std::iter::once("gapless-sim".to_owned()).chain(words).map(OsString::from);
    let mut out = anstream::StripStream::new(Vec::new());
    let mut err = anstream::StripStream::new(Vec::new());
    let code = cli::main(args, &mut out, &mut err);
    let text = |stream: anstream::StripStream<Vec<u8>>| {
        String::from_utf8(stream.into_inner()).expect("UTF-8")
    };
    (code, text(out) + &text(err))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("written")
}

/// The lines of the runs.
fn runs(path: &Path) -> Vec<String> {
    let is_run = |line: &&str| line.contains(r#""type":"run""#);
    read(path).lines().filter(is_run).map(str::to_owned).collect()
}

#[test]
fn neither_threads_nor_processes_make_a_difference() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let play = |name: &str, options: &str| {
        let (code, output) = sim(&format!(
            "conform --role events.client events/swarm events/server-restart events/failing-disk \
             --seeds 5 --quiet --json {} {options}",
            path(name).display()
        ));
        assert_eq!(code, exit::OK, "{output}");
        assert!(output.contains("Summary: 7 passed"), "{output}");
        runs(&path(name))
    };
    let one = play("one.jsonl", "--jobs 1");
    assert_eq!(one.len(), 7);
    assert!(one.iter().all(|line| line.contains(r#""history":""#)));
    assert_eq!(one.iter().filter(|line| line.contains(r#""repeated":true"#)).count(), 1);
    assert_eq!(play("three.jsonl", "--jobs 3"), one);
    let adapter = format!("--jobs 2 --adapter '{ADAPTER} adapter --role events.client'");
    assert_eq!(play("child.jsonl", &adapter), one);
}

#[test]
fn a_failure_names_what_is_lost_and_the_command_that_shows_it_again() {
    let fails = "conform --role events.client --mutant cursor-jumps";
    let (code, output) =
        sim(&format!("{fails} events/live-before-replay-cut events/server-restart --quiet"));
    assert_eq!(code, exit::VIOLATION, "{output}");
    assert!(output.contains("× fail: cursor_is_contiguous, in 1 run:"), "{output}");
    assert!(output.contains("Summary: 1 passed, 1 failed"), "{output}");
    let again = output
        .lines()
        .find_map(|line| line.trim().strip_prefix("reproduce  gapless-sim "))
        .expect("a command");
    assert_eq!(again, format!("{fails} events/live-before-replay-cut --seed 1"));
    let folder = tempfile::tempdir().expect("a folder");
    let (plan, trace) = (folder.path().join("plan.json"), folder.path().join("trace.txt"));
    let (code, output) =
        sim(&format!("{again} --save-plan {} --trace {}", plan.display(), trace.display()));
    assert_eq!(code, exit::VIOLATION, "{output}");
    assert!(output.contains("was never given"), "{output}");
    assert!(output.contains("│   13."), "{output}");
    assert!(read(&trace).contains("-> resync "));
    let (code, output) = sim(&format!("{fails} --plan {}", plan.display()));
    assert_eq!(code, exit::VIOLATION, "{output}");
    assert!(output.contains(&format!("reproduce    gapless-sim {fails} --plan")), "{output}");
}

#[test]
fn what_is_expected_to_fail_and_passes_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("expect.toml");
    let entry = |id: &str, more: &str| {
        let text = format!(
            "[[expect]]\nid = \"{id}\"\nverdict = \"fail\"\nchecker = \"cursor_is_contiguous\"\n\
             reason = \"the cursor jumps\"\n{more}"
        );
        std::fs::write(&path, text).expect("writable");
    };
    let play = |more: &str| {
        sim(&format!(
            "conform --role events.client events/live-before-replay-cut events/server-restart \
             --quiet --expect {} {more}",
            path.display()
        ))
    };
    entry("events/live-before-replay-cut", "");
    let (code, output) = play("--mutant cursor-jumps");
    assert_eq!(code, exit::OK, "{output}");
    assert!(output.contains("Summary: 1 passed, 1 failed as expected"), "{output}");
    let (code, output) = play("");
    assert_eq!(code, exit::STALE_EXPECTATION, "{output}");
    assert!(output.contains("`events/live-before-replay-cut` passes"), "{output}");
    entry("events/live-before-reply-cut", "");
    let (code, output) = play("");
    assert_eq!(code, exit::STALE_EXPECTATION, "{output}");
    assert!(output.contains("fits no scenario of this role; did you mean"), "{output}");
    entry("events/live-before-replay-cut", "until = \"0.0.1\"\n");
    let (code, output) = play("--mutant cursor-jumps");
    assert_eq!(code, exit::STALE_EXPECTATION, "{output}");
    assert!(output.contains("holds until version 0.0.1"), "{output}");
}

#[test]
fn a_recorded_case_can_be_played_without_the_suite() {
    let folder = tempfile::tempdir().expect("a folder");
    let (asked, answered) = (folder.path().join("asked"), folder.path().join("answered"));
    let attach = format!("--role events.client --adapter '{ADAPTER} adapter --role events.client'");
    let (code, output) = sim(&format!(
        "record {attach} events/server-restart --seed 3 --out {} --replies {}",
        asked.display(),
        answered.display()
    ));
    assert_eq!(code, exit::OK, "{output}");
    let mut adapter = Command::new(ADAPTER)
        .args(["adapter", "--role", "events.client"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = adapter.stdin.take().expect("a pipe");
    let lines = read(&asked);
    assert!(lines.lines().count() > 20 && lines.ends_with("{\"type\":\"stop\"}\n"));
    // It answers less than a pipe holds, so it can be given everything at once.
    stdin.write_all(lines.as_bytes()).expect("it reads");
    drop(stdin);
    let ended = adapter.wait_with_output().expect("it ends");
    assert!(ended.status.success());
    assert_eq!(String::from_utf8(ended.stdout).expect("UTF-8"), read(&answered));
    let (code, output) =
        sim(&format!("record {attach} events/server-restart --host 4 --out {}", asked.display()));
    assert_eq!(code, exit::USAGE, "{output}");
    assert!(output.contains("the case has no host 4"), "{output}");
}

#[test]
fn reports_are_written_and_made_again_from_the_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (code, output) = sim(&format!(
        "conform --role events.client --mutant cursor-jumps events/live-before-replay-cut \
         events/server-restart --quiet --json {} --junit {} --markdown {} --html {}",
        path("it.jsonl"),
        path("it.xml"),
        path("it.md"),
        path("it.html")
    ));
    assert_eq!(code, exit::VIOLATION, "{output}");
    let junit = read(Path::new(&path("it.xml")));
    assert!(junit.contains("<testcase name=\"events/server-restart\""), "{junit}");
    assert!(junit.contains("failures=\"1\"") && junit.contains("was never given"), "{junit}");
    let markdown = read(Path::new(&path("it.md")));
    assert!(markdown.contains("## gapless ") && markdown.contains("| fail |"), "{markdown}");
    let html = read(Path::new(&path("it.html")));
    assert!(html.contains("class=\"broken\"") && html.contains("EV-9"), "{html}");
    let (code, matrix) = sim(&format!("conform matrix {} {0}", path("it.jsonl")));
    assert_eq!(code, exit::OK, "{matrix}");
    assert!(matrix.contains("✗ 1 of "), "{matrix}");
    let (code, _) = sim(&format!("conform matrix {} --html {}", path("it.jsonl"), path("2.html")));
    assert_eq!(code, exit::OK);
    assert_eq!(read(Path::new(&path("2.html"))), html);
}

#[test]
fn selection_is_by_pattern_and_statement() {
    let (code, output) =
        sim("conform --role events.client 'events/{server-restart,*-by-time-base,same-second-*}' \
         --statement EV-8a --verbose --quiet");
    assert_eq!(code, exit::OK, "{output}");
    let played: Vec<&str> =
        output.lines().filter_map(|line| line.strip_prefix("  pass events/")).collect();
    assert_eq!(played, ["lost-log-by-time-base", "same-second-base"]);
    let (code, output) =
        sim("conform --role events.client events/server-restart --verbose --quiet");
    assert_eq!(code, exit::OK, "{output}");
    assert!(output.contains("  pass events/server-restart\n"), "{output}");
}

#[test]
fn what_makes_no_sense_is_refused_with_a_remedy() {
    let cases = [
        ("conform", exit::USAGE, "--role <ROLE>"),
        ("conform --role events", exit::USAGE, "`events` is no role"),
        ("conform --role events.client events/nope", exit::USAGE, "no scenario fits `events/nope`"),
        ("conform --role events.client 'events/{a'", exit::USAGE, "is no pattern"),
        ("conform --role events.client --statement EV-999", exit::USAGE, "no statement `EV-999`"),
        (
            "conform --role events.client --adapter \"a 'b\"",
            exit::USAGE,
            "close its quotation marks",
        ),
        (
            "conform --role events.client --adapter x --answer-timeout 0s",
            exit::USAGE,
            "no time for",
        ),
        ("conform --role events.client --mutant nope", exit::USAGE, "there is no mutant `nope`"),
        ("conform --role events.client --expect nope.toml", exit::USAGE, "cannot be read"),
        ("conform --role events.client --trace x", exit::USAGE, "are for a single case"),
        ("conform --role events.client --seed 1 --seeds 2", exit::USAGE, "cannot be used with"),
        ("conform --role events.client tasks/swarm", exit::NOTHING_RAN, "nothing is selected"),
        (
            "conform --role events.client events/swarm --seeds 0",
            exit::NOTHING_RAN,
            "nothing is selected",
        ),
        ("conform matrix nope.jsonl", exit::USAGE, "give files written by `conform --json FILE`"),
        ("record --role events.client events/nope --out x", exit::USAGE, "there is no scenario"),
    ];
    for (line, wanted, said) in cases {
        let (code, output) = sim(line);
        assert_eq!(code, wanted, "{line}: {output}");
        assert!(output.contains(said), "{line}: {said:?} is not in\n{output}");
    }
}
