//! Adapters that misbehave: each gets a verdict and an exit code of its own, and nothing hangs.

use std::ffi::OsString;
use std::path::Path;

use gapless_sim::{cli, exit};

/// An adapter whose implementation does nothing, except for what `sys.argv[1]` says.
const FAKE: &str = r#"
import json, os, sys, time

mode = sys.argv[1]

def say(reply, end="\n"):
    sys.stdout.write(json.dumps(reply) + end)
    sys.stdout.flush()

for line in sys.stdin:
    ask = json.loads(line)
    kind = ask["type"]
    if kind == "stop":
        if mode == "speaks after stop":
            say({"type": "done", "n": 1, "now": 0})
        sys.exit(3 if mode == "ends with 3" else 0)
    if kind == "hello":
        if mode == "dies at once":
            sys.exit(3)
        nonce = "before you asked" if mode == "wrong nonce" else ask["nonce"]
        say({"type": "hello", "protocol": 2 if mode == "another version" else 1, "nonce": nonce,
             "name": "fake", "version": "1.0", "language": "Python",
             "roles": ["tasks.agent" if mode == "another role" else "events.client"],
             "clock": "real" if mode == "real clock" else "virtual", "entropy": "none",
             "storage": "none"})
        continue
    now = ask.get("at", ask.get("until", ask.get("now")))
    done = {"type": "done", "n": ask["n"], "now": now, "effects": []}
    if kind == "deliver":
        if mode == "dies":
            print("it hurts", file=sys.stderr)
            sys.exit(3)
        if mode == "dies in a line":
            say(done, end="")
            sys.exit(3)
        if mode == "hangs":
            time.sleep(600)
        if mode == "closes its output":
            os.close(1)
            time.sleep(600)
        if mode == "only logs":
            while True:
                print("working on it" * 100, file=sys.stderr)
        if mode == "garbage":
            print("connected!", flush=True)
            continue
        if mode == "not a reply":
            say({"type": "don", "n": ask["n"]})
            continue
        if mode == "twice":
            say(done)
        if mode == "another number":
            done["n"] += 1
        if mode == "introduces itself again":
            done = {"type": "hello", "protocol": 1, "nonce": "", "name": "fake", "version": "1",
                    "roles": [], "clock": "virtual", "entropy": "none", "storage": "none"}
        if mode == "too long":
            print("x" * ((1 << 20) + 1), flush=True)
            continue
        if mode == "another time":
            done["now"] += 1
        if mode == "spins":
            done["next"] = now
        if mode == "always busy":
            done["busy"] = True
        if mode == "commits":
            done["effects"] = [{"type": "store.commit", "id": 1, "writes": {"a": ""}}]
        if mode == "serves":
            done["effects"] = [{"type": "log.epoch", "epoch": "e"}]
        if mode == "panics":
            done["effects"] = [{"type": "panic", "message": "index out of range"}]
        if mode == "nondeterministic":
            done["effects"] = [{"type": "app.state", "text": f"I am {os.getpid()}"}]
        if mode == "unsupported":
            done = {"type": "unsupported", "n": ask["n"], "what": ["everything"]}
    if kind == "advance" and mode == "spins":
        done["next"] = now
    if kind == "settle":
        done["now"] = 0
        done["busy"] = mode == "always busy"
    say(done)
"#;

struct Fake(tempfile::TempDir);

impl Fake {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("fake.py"), FAKE).expect("writable");
        Self(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// Exit code and output of `conform` with the adapter in a mode.
    fn conform(&self, mode: &str, options: &str) -> (u8, String) {
        let command = format!("python3 {} '{mode}'", self.path("fake.py").display());
        let mut args: Vec<OsString> =
            ["gapless-sim", "conform", "--role", "events.client", "--adapter"]
                .map(Into::into)
                .into();
        args.push(command.into());
        args.extend(options.split_whitespace().map(OsString::from));
        sim(args)
    }
}

fn sim(args: Vec<OsString>) -> (u8, String) {
    let mut out = anstream::StripStream::new(Vec::new());
    let mut err = anstream::StripStream::new(Vec::new());
    let code = cli::main(args, &mut out, &mut err);
    let text = |stream: anstream::StripStream<Vec<u8>>| {
        String::from_utf8(stream.into_inner()).expect("UTF-8")
    };
    (code, text(out) + &text(err))
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).expect("written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn each_way_to_misbehave_has_its_verdict() {
    let fake = Fake::new();
    let cases = [
        ("dies", exit::ADAPTER, "crash", "ended (exit status: 3)"),
        ("dies in a line", exit::ADAPTER, "crash", "in the middle of the line `{\"type\""),
        ("hangs", exit::ADAPTER, "error", "did not answer `deliver app.connect at 0 ms` within 2s"),
        ("closes its output", exit::ADAPTER, "crash", "ended (it closed its output)"),
        ("only logs", exit::ADAPTER, "error", "did not answer"),
        ("garbage", exit::ADAPTER, "error", "with `connected!`, which is no reply"),
        ("not a reply", exit::ADAPTER, "error", "which is no reply: unknown variant `don`"),
        ("twice", exit::ADAPTER, "error", "answered twice"),
        ("another number", exit::ADAPTER, "error", "with the `n` of another request"),
        ("introduces itself again", exit::ADAPTER, "error", "introduced itself twice"),
        ("too long", exit::ADAPTER, "error", "a line of more than 1048576 bytes"),
        ("another time", exit::NONDETERMINISM, "nondeterminism", "it acted at 1 ms, when it was 0"),
        ("spins", exit::ADAPTER, "error", "again and again"),
        ("always busy", exit::ADAPTER, "error", "it is busy after"),
        ("commits", exit::ADAPTER, "error", "has announced no storage"),
        ("serves", exit::ADAPTER, "error", "no client of events does"),
        ("panics", exit::VIOLATION, "crash", "the implementation crashed: index out of range"),
        ("nondeterministic", exit::NONDETERMINISM, "nondeterminism", "of the trace was `"),
        ("unsupported", exit::NOTHING_RAN, "unsupported", ""),
        ("speaks after stop", exit::ADAPTER, "error", "answered twice, or without"),
        ("ends with 3", exit::ADAPTER, "error", "after `stop` it ended with exit status: 3"),
        ("does nothing", exit::LIVENESS, "fail", "progress"),
    ];
    for (mode, code, verdict, said) in cases {
        let json = fake.path("out.jsonl");
        let options =
            format!("events/swarm --seed 1 --answer-timeout 2s --json {}", json.display());
        let (ended, output) = fake.conform(mode, &options);
        assert_eq!(ended, code, "{mode}: {output}");
        assert!(output.contains(said), "{mode}: {said:?} is not in\n{output}");
        assert_eq!(lines(&json)[1]["verdict"], verdict, "{mode}: {output}");
    }
}

#[test]
fn one_that_cannot_be_made_use_of_is_told_at_once() {
    let fake = Fake::new();
    let cases = [
        ("dies at once", exit::ADAPTER, "ended (exit status: 3) without an answer to `hello`"),
        ("wrong nonce", exit::ADAPTER, "its first line was not an answer"),
        ("another version", exit::ADAPTER, "it chose version 2, and was offered 1"),
        ("another role", exit::NOTHING_RAN, "the role events.client (it plays tasks.agent)"),
        ("real clock", exit::NOTHING_RAN, "its clock is real"),
    ];
    for (mode, code, said) in cases {
        let (ended, output) = fake.conform(mode, "events/swarm --seeds 1");
        assert_eq!(ended, code, "{mode}: {output}");
        assert!(output.contains(said) && output.contains("hint: "), "{mode}: {output}");
    }
    let args = ["gapless-sim", "conform", "--role", "events.client", "--adapter", "./nowhere"];
    let (code, output) = sim(args.map(Into::into).into());
    assert_eq!(code, exit::ADAPTER, "{output}");
    assert!(output.contains("the adapter cannot be started: `./nowhere`"), "{output}");
}

#[test]
fn an_adapter_that_keeps_failing_is_given_up() {
    let fake = Fake::new();
    let json = fake.path("out.jsonl");
    for jobs in [1, 3] {
        let options =
            format!("events/swarm --seeds 20 --quiet --jobs {jobs} --json {}", json.display());
        let (code, output) = fake.conform("dies", &options);
        assert_eq!(code, exit::ADAPTER, "{output}");
        assert!(output.contains("Summary: 0 passed, 11 crashed, 9 not run"), "{output}");
        let lines = lines(&json);
        assert_eq!(lines.len(), 1 + 11 + 1);
        assert_eq!(lines[12]["not_run"], 9);
    }
}

#[test]
fn what_is_known_of_an_adapter_is_expected() {
    let fake = Fake::new();
    let expect = fake.path("expect.toml");
    let entry = "[[expect]]\nid = \"events/swarm\"\nverdict = \"crash\"\nmessage = \"it hurts\"\n\
                 reason = \"it is a fake\"\n";
    std::fs::write(&expect, entry).expect("writable");
    let options = format!("events/swarm --seeds 20 --quiet --expect {}", expect.display());
    let (code, output) = fake.conform("dies", &options);
    assert_eq!(code, exit::OK, "{output}");
    assert!(output.contains("Summary: 0 passed, 20 failed as expected"), "{output}");
    assert!(output.contains("~ expected `crash` of `events/swarm` ×20: it is a fake"), "{output}");
    let (code, output) = fake.conform("panics", &options);
    assert_eq!(code, exit::VIOLATION, "{output}");
    assert!(output.contains("no run fails in that way"), "{output}");
}
