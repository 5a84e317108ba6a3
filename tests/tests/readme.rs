//! What the README shows is what the command prints.

use std::ffi::OsString;
use std::path::Path;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(path).expect("the README is there")
}

/// The console blocks: a command each, and what it prints.
fn demos(readme: &str) -> Vec<(String, String)> {
    let blocks = readme.split("```console").skip(1);
    blocks
        .map(|block| {
            let block = block.split_once("\n$ ").expect("a command").1;
            let block = block.split_once("```").expect("it ends").0;
            let (command, output) = block.split_once('\n').expect("a command and its output");
            (command.to_owned(), output.to_owned())
        })
        .collect()
}

/// What a command prints, and its exit code.
fn run(command: &str) -> (String, u8) {
    let words = command.strip_prefix("cargo sim ").expect("the demo is `cargo sim …`");
    let args = std::iter::once("gapless-sim").chain(words.split_whitespace()).map(OsString::from);
    let mut out = anstream::StripStream::new(Vec::new());
    let code = gapless_sim::cli::main(args, &mut out, &mut Vec::new());
    (String::from_utf8(out.into_inner()).expect("UTF-8"), code)
}

#[test]
fn the_small_plan_of_the_readme_is_real() {
    let demos = demos(&readme());
    let (command, shown) = &demos[2];
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shrunk.json").display().to_string();
    let (printed, code) = run(&format!("{command} --out {file}"));
    assert_eq!(code, 0, "{printed}");
    let printed = printed.replace(&file, "shrunk.json");
    let without_real_time = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("  runs "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(without_real_time(shown), without_real_time(&printed));
}

/// How long it really took differs.
fn without_real_time(output: &str) -> String {
    output
        .lines()
        .map(|line| match line.split_once(" s virtual, ") {
            Some((before, _)) => format!("{before} s virtual\n"),
            None => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn the_demo_of_the_readme_is_real() {
    let demos = demos(&readme());
    let (command, shown) = &demos[0];
    let (printed, code) = run(command);
    assert_eq!(code, 0, "{printed}");
    assert_eq!(without_real_time(shown), without_real_time(&printed));
}

#[test]
fn the_failure_of_the_readme_is_real() {
    let demos = demos(&readme());
    let (command, shown) = &demos[1];
    let (printed, code) = run(command);
    assert_eq!(code, 1, "{printed}");
    let mut lines = printed.lines();
    for shown in shown.lines().filter(|line| !line.ends_with('…')) {
        assert!(lines.any(|line| line == shown), "not printed, or not here: {shown}\n{printed}");
    }
}
