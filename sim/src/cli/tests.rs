//! The command, from its arguments to its output and exit code.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Failure, report};
use crate::check::{Verdict, Violation};
use crate::exit;
use crate::scenario::Library;
use crate::scenario::draw;
use crate::seed::Seed;
use crate::world;

/// Exit code, output and errors of a command line.
fn sim(line: &str) -> (u8, String, String) {
    let args = std::iter::once("gapless-sim").chain(line.split_whitespace()).map(OsString::from);
    let (mut out, mut err) =
        (anstream::StripStream::new(Vec::new()), anstream::StripStream::new(Vec::new()));
    let code = super::main(args, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (code, text(out.into_inner()), text(err.into_inner()))
}

#[test]
fn a_seed_in_any_form_and_place_is_the_same_run() {
    let hash = |line: &str| {
        let (code, out, err) = sim(line);
        assert_eq!(code, exit::OK, "{line}: {out}{err}");
        out.lines().find(|line| line.contains("hash")).map(str::to_owned).expect("a hash")
    };
    let first = hash("42");
    for line in [
        "run 42",
        "SEED=42",
        "run --seed 42",
        "--seed seed=42",
        "0x2a",
        "run events/swarm 42",
        "42 events/swarm",
        "000000000000000000000000000000000000002a",
    ] {
        assert_eq!(hash(line), first, "{line}");
    }
}

#[test]
fn a_run_prints_what_a_person_wants_to_know() {
    let (_, out, _) = sim("events/hole-in-the-live-stream 7");
    for wanted in [
        "seed       7",
        "scenario   events/hole-in-the-live-stream: ",
        "faults     1 injected: lose ×1",
        "✓ events.hole_asked_for",
        "published  6 events: 6 acknowledged, 0 refused, 0 of unknown outcome",
        "delivered  6 events, 0 gaps declared",
        "s virtual",
        "ms real",
        "ok         nothing lost, duplicated or reordered",
    ] {
        assert!(out.contains(wanted), "{wanted:?} is not in\n{out}");
    }
}

#[test]
fn without_a_seed_one_is_drawn_and_printed() {
    let (code, out, _) = sim("events/hole-in-the-live-stream");
    assert_eq!(code, exit::OK);
    let seed = out.lines().find_map(|line| line.trim().strip_prefix("seed")).expect("a seed");
    assert!(seed.trim().parse::<u64>().is_ok(), "{seed}");
}

#[test]
fn what_makes_no_sense_is_refused_with_a_remedy() {
    let cases = [
        ("1 2", "two seeds are given: `1` and `2`"),
        ("run --seed 1 2", "two seeds are given: `1` and `2`"),
        ("nope", "`nope` is neither a seed nor a scenario"),
        ("run --seed nope", "`nope` is not a seed"),
        ("events/swarm events/swarm", "two scenarios are given"),
        ("events/swrm", "did you mean `events/swarm`?"),
        ("swarm 1", "did you mean `events/swarm` or `session/swarm` or `tasks/swarm`?"),
        ("1 --seed 1", "two seeds are given: `1` and `1`"),
        ("run 1 --plan plan.json", "cannot be used with"),
        ("show", "no seed is given"),
        ("show events/held-link", "no seed is given"),
        ("run --plan /does/not/exist.json", "cannot be read"),
        ("run 1 --scenarios /does/not/exist", "cannot be read"),
        ("show events/hole-in-the-live-stream 1 --only client-9", "hosts are client-1"),
        ("diff 1 /does/not/exist", "is no seed, and as a file it cannot be read"),
        ("run --what", "unexpected argument '--what'"),
        ("localise", "no seed is given"),
        ("localise events/held-link 3", "nothing fails in `cargo sim events/held-link 3`"),
        ("run -q events/held-link 3 --report /does/not/exist.html", "cannot be written"),
        ("statements EV5a", "did you mean `EV-5a`?"),
        ("statements CORE-1 nope", "there is no statement `nope`"),
        ("statements --check EV-5", "cannot be used with"),
        ("statements --scenarios /does/not/exist", "cannot be read"),
        ("shrink", "no seed is given"),
        ("shrink events/swarm", "no seed is given"),
        ("shrink 1 --for soon", "`--for soon` is no duration"),
        ("shrink 1 --mutant canry", "did you mean `canary`?"),
        ("freeze", "no seed is given"),
        ("freeze 1 --plan plan.json", "cannot be used with"),
        ("freeze events/server-restart 1 --mutant canary --name Loss", "`Loss` is no name"),
        ("freeze events/server-restart 1 --mutant canary --out x.json", "let it end with `.toml`"),
    ];
    for (line, message) in cases {
        let (code, out, err) = sim(line);
        assert_eq!(code, exit::USAGE, "{line}: {out}{err}");
        assert!(err.contains(message), "{line}: {message:?} is not in\n{err}");
        assert!(
            err.contains("hint:") || err.contains("help:") || err.contains("--help"),
            "{line}: {err}"
        );
    }
}

#[test]
fn a_saved_plan_is_the_same_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("plan.json");
    let plan = plan.to_str().expect("UTF-8");
    let json = |line: &str| -> serde_json::Value {
        let (code, out, err) = sim(line);
        assert_eq!(code, exit::OK, "{line}: {err}");
        serde_json::from_str(&out).expect("JSON")
    };
    let drawn = json(&format!("run 9 --json --save-plan {plan}"));
    let saved = json(&format!("run --json --plan {plan}"));
    assert_eq!(drawn["trace_hash"], saved["trace_hash"]);
    let text = std::fs::read_to_string(plan).expect("the plan");
    let broken = text.replacen("\"clients\": ", "\"clients\": 9", 1);
    std::fs::write(plan, broken).expect("written");
    let (code, _, err) = sim(&format!("run --plan {plan}"));
    assert_eq!(code, exit::USAGE);
    assert!(err.contains("1 to 4 clients"), "{err}");
}

#[test]
fn a_trace_is_written_as_it_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trace.txt");
    let run = format!("run --quiet events/held-link 3 --trace {}", file.display());
    assert_eq!(sim(&run), (exit::OK, String::new(), String::new()));
    let (code, shown, _) = sim("show events/held-link 3");
    assert_eq!(code, exit::OK);
    assert_eq!(std::fs::read_to_string(&file).expect("the trace"), shown);
    assert_eq!(sim(&format!("diff --scenario events/held-link 3 {}", file.display())).0, exit::OK);
    let (_, without, _) = sim("show events/held-link 3 --no-marks --only client-1");
    assert!(shown.contains(" # ") && !without.contains(" # "), "{without}");
    assert!(without.contains("  client-1.1 ") && !without.contains("  server.1 "), "{without}");
}

#[test]
fn a_run_is_written_as_a_page_whether_it_is_green_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (green, shown, red) = (file("green"), file("shown"), file("red"));
    assert_eq!(sim(&format!("run -q events/held-link 3 --report {green}")).0, exit::OK);
    assert_eq!(sim(&format!("show events/held-link 3 --report {shown}")).0, exit::OK);
    let read = |path: &str| std::fs::read_to_string(path).expect("the page");
    assert_eq!(read(&green), read(&shown));
    assert!(read(&green).starts_with("<!DOCTYPE html>"));
    let run = format!("run -q events/server-restart 1 --mutant canary --report {red}");
    assert_eq!(sim(&run).0, exit::VIOLATION);
    assert!(read(&red).contains("cargo sim events/server-restart 1 --mutant canary"));
}

#[test]
fn a_failing_run_is_localised() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.html");
    let failing = "events/live-before-replay-cut 1 --mutant cursor-jumps";
    let (code, out, err) = sim(&format!("localise {failing} --report {}", page.display()));
    assert_eq!((code, err.as_str()), (exit::OK, ""), "{out}");
    for wanted in [
        "asking     when `cursor_is_contiguous` becomes inevitable, in at most ",
        "      3.000   no     the connection of client-1 is reset; no other opens for 1 s\n",
        "     13.790   yes    publish 2 events to agent-1",
        "× From 13.790 s on it is inevitable, with this step: publish 2 events",
    ] {
        assert!(out.contains(wanted), "{wanted:?} is not in\n{out}");
    }
    let page = std::fs::read_to_string(page).expect("the page");
    assert!(page.contains("From 13.790 s on it is inevitable"), "{page}");
}

#[test]
fn traces_are_compared_to_where_they_part() {
    assert_eq!(sim("diff 5 5").0, exit::OK);
    let (code, out, _) = sim("diff 5 6");
    assert_eq!(code, exit::NONDETERMINISM);
    assert!(out.contains("then different:"), "{out}");
}

#[test]
fn plans_are_compared_by_what_happens_in_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = |seed: u32| {
        let path = folder.path().join(format!("{seed}.json")).display().to_string();
        assert_eq!(sim(&format!("run -q {seed} --save-plan {path}")).0, exit::OK);
        path
    };
    let (five, six) = (plan(5), plan(6));
    assert_eq!(sim(&format!("diff {five} 5")).0, exit::OK);
    let (code, out, _) = sim(&format!("diff {five} {six}"));
    assert_eq!(code, exit::NONDETERMINISM);
    assert!(out.contains("then different:") && !out.contains("\"seed\""), "{out}");
}

#[test]
fn the_list_of_scenarios_names_each_with_its_statements() {
    let (code, out, _) = sim("scenarios");
    assert_eq!(code, exit::OK);
    assert!(out.contains("events/swarm (swarm)"));
    let (code, out, _) = sim("scenarios --check");
    assert_eq!(code, exit::OK, "{out}");
}

#[test]
fn the_list_of_statements_names_what_stands_for_each() {
    let (code, out, err) = sim("statements");
    assert_eq!((code, err.as_str()), (exit::OK, ""));
    assert!(out.starts_with("CORE-1  Names\n  scenarios  events/"), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
    let groups = crate::spec::Spec::embedded().groups().len();
    assert_eq!(out.matches("\n\n").count(), groups - 1, "one group after the other: {out}");
    let (_, out, _) = sim("statements EV-3 CORE-7a");
    let ids: Vec<&str> = out
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(ids, ["CORE-7", "", "EV-3"]);
    for wanted in [
        "  CORE-7a  MUST   server  A 201 means that the event is durable.\n",
        "           scenarios  events/power-loss\n           checkers   acknowledged_is_durable\n",
        "  EV-3l    MUST   client  ",
        "           not simulated:  no server of a run ",
    ] {
        assert!(out.contains(wanted), "{wanted:?} is not in\n{out}");
    }
    assert!(!out.contains("CORE-7b"), "{out}");
}

#[test]
fn statements_for_a_program_are_one_array() {
    let (code, out, _) = sim("statements --json EV-9");
    assert_eq!((code, out.lines().count()), (exit::OK, 1));
    let rows: Vec<serde_json::Value> = serde_json::from_str(&out).expect("JSON");
    assert_eq!(rows.len(), 9);
    assert_eq!(rows[0]["id"], "EV-9a");
    assert_eq!(rows[0]["sentence"], "A handler that failed leaves the position where it is.");
    let has = |row: usize, key: &str, name: &str| {
        rows[row][key].as_array().expect("a list").contains(&name.into())
    };
    assert!(has(0, "scenarios", "events/handler-fails") && has(0, "checkers", "no_duplicate"));
    assert!(has(0, "mutants", "failure-swallowed"), "{}", rows[0]);
    assert!(rows[0]["not_simulated"].is_null() && rows[3]["not_simulated"].is_string());
    assert!(!has(3, "scenarios", "events/handler-fails"), "its group does not stand for EV-9d");
}

#[test]
fn a_hole_and_a_statement_that_is_none_fail_the_check() {
    let (code, out, err) = sim("statements --check");
    assert_eq!((code, err.as_str()), (exit::OK, ""));
    assert!(out.starts_with("ok: "), "{out}");
    let folder = late();
    let path = folder.path().join("events/x.toml");
    let text = std::fs::read_to_string(&path).expect("the scenario");
    let cites = "statements = [\"EV-3\", \"EV-9d\", \"CORE-99\"]\nprotocol";
    std::fs::write(&path, text.replacen("protocol", cites, 1)).expect("written");
    let check = format!("statements --check --scenarios {}", folder.path().display());
    let (code, out, err) = sim(&check);
    assert_eq!((code, out.as_str()), (exit::VIOLATION, ""));
    for wanted in [
        "× no scenario and no checker stands for TK-14a: A request of an agent",
        "× the scenario `events/x` names `CORE-99`, which is no statement",
        "× the scenario `events/x` names `EV-9d`, which the index calls not simulated",
        "hint: put the id into `statements`",
    ] {
        assert!(err.contains(wanted), "{wanted:?} is not in\n{err}");
    }
    assert!(!err.contains("EV-3a") && !err.contains("stands for EV-9"), "{err}");
}

#[test]
fn a_scenario_whose_marks_are_not_reached_is_inconclusive() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("events")).expect("a folder");
    let text = "title = \"x\"\nprotocol = \"events\"\nreaches = [\"events.hole_seen\"]\nduration = \"2s\"\n\
                [[step]]\nat = \"1s\"\npublish = { to = \"agent-1\" }\n";
    std::fs::write(folder.path().join("events/x.toml"), text).expect("written");
    let (code, out, _) = sim(&format!("events/x 1 --scenarios {}", folder.path().display()));
    assert_eq!(code, exit::INCONCLUSIVE);
    assert!(out.contains("not reached: events.hole_seen"), "{out}");
}

#[test]
fn a_sweep_in_parts_is_the_sweep_in_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = ["1", "2", "3", "4", "whole"];
    let files = files.map(|name| folder.path().join(name).display().to_string());
    let [parts @ .., whole] = &files;
    for (file, part) in parts.iter().zip(1..) {
        let line = format!("sweep --seeds 10 --base 3 --quiet --shard {part}/4 --jsonl {file}");
        let (code, out, err) = sim(&line);
        assert_eq!(code, exit::OK, "{out}{err}");
        let runs = if part <= 2 { 3 } else { 2 };
        assert!(out.contains(&format!("runs       {runs}, {runs} passed")), "{out}");
    }
    let (code, merged, err) = sim(&format!("merge {}", parts.join(" ")));
    assert_eq!(code, exit::OK, "{merged}{err}");
    let line = format!("sweep --seeds 10 --base 3 --quiet --jobs 1 --jsonl {whole}");
    let (_, in_one, _) = sim(&line);
    let facts = |text: &str| -> Vec<String> {
        let lines =
            text.lines().filter(|line| !line.contains("time") && !line.contains("runs     "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(facts(&merged), facts(&in_one));
    let runs = |files: &[String]| {
        let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("written"));
        let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.collect::<std::collections::BTreeSet<String>>()
    };
    assert_eq!(runs(parts), runs(std::slice::from_ref(whole)), "verdicts, marks and faults");
    let (code, _, err) = sim(&format!("merge {whole} {}", parts[0]));
    assert_eq!(code, exit::USAGE);
    assert!(err.contains("is also in"), "{err}");
}

#[test]
fn a_sweep_goes_on_where_it_was_interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("runs.jsonl");
    let line = format!("sweep --seeds 8 --base 3 --quiet --jsonl {}", file.display());
    assert_eq!(sim(&line).0, exit::OK);
    let whole = std::fs::read_to_string(&file).expect("written");
    let third = whole.match_indices('\n').nth(2).expect("eight lines").0;
    std::fs::write(&file, &whole[..third + 20]).expect("cut off in the fourth line");
    let (code, out, err) = sim(&format!("{line} --resume"));
    assert_eq!(code, exit::OK, "{out}{err}");
    assert!(out.contains("runs       8, 8 passed"), "{out}");
    assert!(out.contains("resumed    after 3 runs"), "{out}");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), whole);
    let other = line.replace("--base 3", "--base 4");
    let (code, _, err) = sim(&format!("{other} --resume"));
    assert_eq!(code, exit::USAGE);
    assert!(err.contains("line 1: it is a run of another sweep"), "{err}");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), whole, "nothing was lost");
}

#[test]
fn what_fails_in_a_sweep_is_told_to_continuous_integrations() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("junit.xml");
    let line = "sweep events/server-restart --seeds 2 --mutant canary --annotations --quiet";
    let (code, out, _) = sim(&format!("{line} --junit {}", file.display()));
    assert_eq!(code, exit::VIOLATION);
    assert!(out.contains("::error title=no_loss::violation: no_loss, in 2 runs%0A"), "{out}");
    assert!(out.contains(" --mutant canary\n"), "the command reproduces it: {out}");
    let xml = std::fs::read_to_string(file).expect("written");
    assert!(
        xml.contains(r#"<testcase name="no_loss" classname="events.server-restart">"#),
        "{xml}"
    );
}

#[test]
fn a_sweep_of_fixed_scenarios_takes_patterns() {
    let (code, out, err) = sim("sweep events/hole-* --seeds 6 --quiet");
    assert_eq!(code, exit::OK, "{out}{err}");
    assert!(out.contains("runs       6, 6 passed"), "{out}");
}

#[test]
fn a_sweep_that_makes_no_sense_is_refused() {
    let cases = [
        ("sweep events/none-*", "no scenario fits"),
        ("sweep --shard 5/4", "is no shard"),
        ("sweep --base nope", "is not a seed"),
        ("sweep --seeds 0", "invalid value '0'"),
        ("sweep --jobs 0", "0 is not in 1..=1024"),
        ("sweep --time nope", "is no time"),
        ("sweep --resume", "--jsonl <FILE>"),
        ("merge /does/not/exist", "cannot be read"),
    ];
    for (line, message) in cases {
        let (code, out, err) = sim(line);
        assert_eq!(code, exit::USAGE, "{line}: {out}");
        assert!(err.contains(message), "{line}: {err}");
    }
}

/// A folder with one scenario, `events/x`, in which nothing arrives in time.
fn late() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("events")).expect("a folder");
    let text = "title = \"x\"\nprotocol = \"events\"\nduration = \"2s\"\nsettle = \"1s\"\n\
                [client]\nhandler = \"5s\"\n\
                [[step]]\nat = \"1s\"\npublish = { to = \"agent-1\", count = 9 }\n";
    std::fs::write(folder.path().join("events/x.toml"), text).expect("written");
    folder
}

#[test]
fn a_failing_run_says_what_is_wrong_what_led_to_it_and_how_to_have_it_again() {
    let folder = late();
    let folder = folder.path().display();
    let (code, out, _) = sim(&format!("--quiet events/x 7 --scenarios {folder}"));
    assert_eq!(code, exit::LIVENESS, "{out}");
    assert!(out.starts_with("  seed       7\n  scenario   events/x: x\n"), "{out}");
    for wanted in [
        "no progress  within 1 s after healing",
        "    progress (",
        "records before 3.000 s, client-1",
        &format!("cargo sim events/x 7 --scenarios {folder}\n"),
        &format!("cargo sim show events/x 7 --scenarios {folder}\n"),
        &format!("cargo sim shrink events/x 7 --scenarios {folder}\n"),
        &format!("cargo sim freeze events/x 7 --scenarios {folder}\n"),
        "--capsule failing.json",
    ] {
        assert!(out.contains(wanted), "{wanted:?} is not in\n{out}");
    }
    assert!(!out.lines().any(|line| line.contains("│") && line.contains(" #  ")), "{out}");
}

#[test]
fn a_failing_plan_is_made_small_and_frozen() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let small = path("small.json");
    let line = format!("shrink events/server-restart 1 --mutant out-of-order --out {small}");
    let (code, out, err) = sim(&line);
    assert_eq!((code, err.as_str()), (exit::OK, ""), "{out}");
    for wanted in [
        " remain; nothing more can be left out\n",
        "  world      1 client of 1 agent, 5 ms apart, for ",
        "  publish = { to = \"agent-1\"",
        "\n  × client-1 ",
        "    in_order (",
        &format!("cargo sim run --plan {small}\n"),
        &format!("cargo sim freeze --plan {small}\n"),
    ] {
        assert!(out.contains(wanted), "{wanted:?} is not in\n{out}");
    }
    let (code, out, _) = sim(&format!("run --plan {small}"));
    assert_eq!(code, exit::VIOLATION);
    assert!(out.contains("  recorded   the same run at "), "{out}");
    let (code, _, err) = sim(&format!("freeze --plan {small} --out {}", path("nowhere/x.toml")));
    assert_eq!(code, exit::USAGE);
    assert!(err.contains("cannot be written"), "{err}");
    std::fs::create_dir(folder.path().join("regressions")).expect("a folder");
    let file = path("regressions/out-of-order.toml");
    let (code, out, err) = sim(&format!("freeze --plan {small} --out {file}"));
    assert_eq!((code, err.as_str()), (exit::OK, ""), "{out}");
    assert!(out.contains("  frozen     regressions/out-of-order: "), "{out}");
    assert!(folder.path().join("regressions/out-of-order.snap").exists(), "{out}");
    let again = out.lines().find_map(|line| line.trim().strip_prefix("run it")).expect("a command");
    let again = again.trim().strip_prefix("cargo sim ").expect("of the simulator");
    assert_eq!(sim(&format!("run -q {again}")), (exit::OK, String::new(), String::new()));
    assert_eq!(sim(&format!("run -q {again} --mutant out-of-order")).0, exit::VIOLATION);
}

#[test]
fn no_scenario_is_frozen_over_another_one() {
    let folder = late();
    let freeze = format!("freeze events/x 7 --scenarios {}", folder.path().display());
    let (code, out, err) = sim(&freeze);
    assert_eq!((code, err.as_str()), (exit::OK, ""), "{out}");
    assert!(folder.path().join("regressions/progress-7.toml").exists(), "{out}");
    let (code, _, err) = sim(&freeze);
    assert_eq!(code, exit::USAGE);
    assert!(err.contains("already") && err.contains("--name NAME"), "{err}");
    assert_eq!(sim(&format!("{freeze} --name late")).0, exit::OK);
}

#[test]
fn a_plan_that_does_not_fail_is_neither_made_small_nor_frozen() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.toml");
    for line in ["shrink 42", &format!("freeze 42 --out {}", file.display())] {
        let (code, out, err) = sim(line);
        assert_eq!((code, err.as_str()), (exit::INCONCLUSIVE, ""), "{line}");
        assert!(out.contains("no invariant is violated in this run"), "{out}");
    }
    assert!(!file.exists());
}

#[test]
fn what_fails_without_the_mutant_is_not_blamed_on_it() {
    let folder = late();
    let line = format!("shrink events/x 7 --scenarios {} --mutant canary", folder.path().display());
    let (code, _, err) = sim(&line);
    assert_eq!(code, exit::USAGE);
    assert!(err.contains("the run fails without `canary` as well: progress"), "{err}");
}

#[test]
fn a_capsule_says_whether_the_same_comes_of_it_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("failing.json");
    let path = file.display();
    let run = "run -q events/server-restart 1 --mutant canary";
    assert_eq!(sim(&format!("{run} --capsule {path}")).0, exit::VIOLATION);
    let text = std::fs::read_to_string(&file).expect("the capsule");
    let capsule: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(capsule["plan"]["mutant"], "canary");
    assert_eq!(capsule["recorded"]["verdict"], "violation");
    assert_eq!(capsule["recorded"]["findings"][0]["checker"], "no_loss");
    assert_eq!(capsule["commands"]["shrink"], format!("cargo sim shrink --plan {path}"));
    let says = |text: &str, wanted: &str| {
        std::fs::write(&file, text).expect("written");
        let (code, out, err) = sim(&format!("run --plan {path}"));
        assert!(out.contains(wanted), "{wanted:?} is not in\n{out}{err}");
        code
    };
    assert_eq!(says(&text, "  recorded   the same run at "), exit::VIOLATION);
    let other = text.replace("\"trace_hash\": \"", "\"trace_hash\": \"0");
    assert_eq!(says(&other, "the same verdict at "), exit::VIOLATION);
    let fixed = text.replace("\"mutant\": \"canary\",", "");
    let wanted = ", no_loss; now everything held\n";
    assert_eq!(says(&fixed, wanted), exit::OK);
    // What was found once can be frozen after it was put right.
    let out = folder.path().join("lost.toml");
    assert_eq!(sim(&format!("freeze --plan {path} --out {}", out.display())).0, exit::OK);
    let newer = text.replace("\"capsule\": 1", "\"capsule\": 9");
    std::fs::write(&file, newer).expect("written");
    let (code, _, err) = sim(&format!("run --plan {path}"));
    assert_eq!(code, exit::USAGE);
    assert!(err.contains("has capsule format 9, this program knows 1"), "{err}");
}

#[test]
fn a_run_that_holds_leaves_no_capsule() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("failing.json");
    assert_eq!(sim(&format!("run -q 42 --capsule {}", file.display())).0, exit::OK);
    assert!(!file.exists());
}

#[test]
fn a_report_has_at_most_sixty_lines() {
    let scenario = Library::embedded().get("events/swarm").expect("the scenario is there");
    let run = world::run(&draw(&scenario, Seed(1))).expect("it can be carried out");
    let violation = Violation {
        checker: "loss",
        statements: &["CORE-1"],
        message: "an event is lost".to_owned(),
        at_ms: run.virtual_ms,
        client: None,
    };
    for count in 1..9 {
        let verdict = Verdict::Violation(vec![violation.clone(); count]);
        let real = Duration::ZERO;
        let report = report::Report { run: &run, verdict: &verdict, again: "1", once: None, real };
        let lines = (report::heading(&run.plan, "x") + &report.text()).lines().count();
        assert!((50..=60).contains(&lines), "{count} violations: {lines} lines");
    }
}

#[test]
fn a_reader_who_has_seen_enough_does_not_change_the_verdict() {
    struct Closed;

    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let folder = late();
    let line = format!("gapless-sim events/x 7 --scenarios {}", folder.path().display());
    let code = super::main(line.split(' ').map(OsString::from), &mut Closed, &mut Closed);
    assert_eq!(code, exit::LIVENESS);
}

#[test]
fn a_panic_is_an_internal_error_with_its_seed_and_command() {
    let broken = super::guarded(7, "events/x 7", || panic!("index {} of {}", 3, 2));
    let Err::<(), _>(Failure::Run(text)) = broken else { panic!("it went well") };
    assert_eq!(
        text,
        "error: the simulation broke: panic: index 3 of 2\n  \
           seed       7\n  reproduce  cargo sim events/x 7\n"
    );
}

#[test]
fn a_path_is_one_word_of_the_command_to_reproduce() {
    let word = |path| super::word(Path::new(path));
    assert_eq!(word("target/plan-1.json"), "target/plan-1.json");
    assert_eq!(word("my plan.json"), "'my plan.json'");
    assert_eq!(word("it's;rm"), r"'it'\''s;rm'");
}
