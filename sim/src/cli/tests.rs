//! The command, from its arguments to its output and exit code.

use std::ffi::OsString;

use crate::exit;

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
    for line in
        ["run 42", "SEED=42", "run --seed 42", "0x2a", "run events/swarm 42", "42 events/swarm"]
    {
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
        ("run --plan /does/not/exist.json", "cannot be read"),
        ("run 1 --scenarios /does/not/exist", "cannot be read"),
        ("show events/hole-in-the-live-stream 1 --only client-9", "hosts are client-1"),
        ("diff 1 /does/not/exist", "is no seed, and as a file it cannot be read"),
        ("run --what", "unexpected argument '--what'"),
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
fn traces_are_compared_to_where_they_part() {
    assert_eq!(sim("diff 5 5").0, exit::OK);
    let (code, out, _) = sim("diff 5 6");
    assert_eq!(code, exit::NONDETERMINISM);
    assert!(out.contains("then different:"), "{out}");
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
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (one, two) = (file("one"), file("two"));
    let parts = [("1/2", &one), ("2/2", &two)];
    for (shard, file) in parts {
        let line = format!("sweep --seeds 10 --base 3 --quiet --shard {shard} --jsonl {file}");
        let (code, out, err) = sim(&line);
        assert_eq!(code, exit::OK, "{out}{err}");
        assert!(out.contains("runs       5, 5 passed"), "{out}");
    }
    let (code, merged, err) = sim(&format!("merge {one} {two}"));
    assert_eq!(code, exit::OK, "{merged}{err}");
    let (_, whole, _) = sim("sweep --seeds 10 --base 3 --quiet --jobs 1");
    let facts = |text: &str| -> Vec<String> {
        let lines =
            text.lines().filter(|line| !line.contains("time") && !line.contains("runs     "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(facts(&merged), facts(&whole));
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
        ("merge /does/not/exist", "cannot be read"),
    ];
    for (line, message) in cases {
        let (code, out, err) = sim(line);
        assert_eq!(code, exit::USAGE, "{line}: {out}");
        assert!(err.contains(message), "{line}: {err}");
    }
}
