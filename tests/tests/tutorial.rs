//! What the tutorial says is done here, command after command, and what it shows is what comes of it.
//!
//! The example is a part of this program as it is of its own: so this file has nothing else in it.

#[path = "../../sim/examples/pubsub/protocol/mod.rs"]
mod protocol;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tutorial() -> String {
    fs::read_to_string(root().join("docs/tutorial.md")).expect("the tutorial is there")
}

/// The blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let blocks = text.split(begin.as_str()).skip(1);
    blocks.map(|block| block.split_once("```").expect("it ends").0).collect()
}

/// What a command prints, and its exit code.
fn run(command: &str) -> (String, u8) {
    let words = command.strip_prefix("cargo pubsub ").expect("a command is `cargo pubsub …`");
    let args = std::iter::once("pubsub").chain(words.split_whitespace()).map(OsString::from);
    let (mut out, mut err) = (anstream::StripStream::new(Vec::new()), Vec::new());
    let code = gapless_sim::cli::main(args, &mut out, &mut err);
    let mut printed = String::from_utf8(out.into_inner()).expect("UTF-8");
    printed.push_str(&String::from_utf8_lossy(&err));
    (printed, code)
}

/// What of the shown lines is not printed, or not in this order; a line that ends with `…` stands for any.
fn missing<'a>(shown: &'a str, printed: &str) -> Vec<&'a str> {
    let mut lines = printed.lines();
    let told = shown.lines().filter(|line| !line.ends_with('…'));
    told.filter(|shown| !lines.by_ref().any(|line| line == *shown)).collect()
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder can be made");
    for entry in fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("it can be read");
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("the file can be copied")),
        }
    }
}

#[test]
fn whoever_does_what_the_tutorial_says_sees_what_it_shows_and_has_a_frozen_bug() {
    let tutorial = tutorial();
    let scenarios = "sim/examples/pubsub/scenarios";
    let folder = tempfile::tempdir().expect("a folder");
    copy(&root().join(scenarios).join("pubsub"), &folder.path().join(scenarios).join("pubsub"));
    // No other test of this program depends on where it is.
    std::env::set_current_dir(folder.path()).expect("the folder is there");
    let commands = blocks(&tutorial, "console");
    assert_eq!(commands.len(), 9);
    for block in commands {
        let (command, shown) = block.split_once('\n').expect("a command and its output");
        // However slow this machine is, the search comes to its end.
        let patience = if command.contains(" shrink ") { " --for 10m" } else { "" };
        let command = command.strip_prefix("$ ").expect("a prompt");
        let (printed, code) = run(&format!("{command}{patience}"));
        let fails = command.contains("--mutant") && !command.contains(" shrink ");
        assert_eq!(code, u8::from(fails), "{command}\n{printed}");
        let missing = missing(shown, &printed);
        assert!(missing.is_empty(), "{command}\nnot printed, or not here: {missing:#?}\n{printed}");
    }
    let frozen = folder.path().join(scenarios).join("regressions/lost-in-the-queue.toml");
    assert!(frozen.is_file() && frozen.with_extension("snap").is_file());
}

#[test]
fn the_code_in_the_tutorial_is_that_of_the_example() {
    let code = fs::read_to_string(root().join("sim/examples/pubsub/protocol/client.rs"));
    let code = code.expect("the example is there");
    let tutorial = tutorial();
    let excerpts = blocks(&tutorial, "rust");
    assert!(!excerpts.is_empty());
    for excerpt in excerpts {
        assert!(code.contains(excerpt), "not there any more: {excerpt}");
    }
}

#[test]
fn every_file_that_the_tutorial_links_to_is_there() {
    let tutorial = tutorial();
    let links: Vec<&str> = tutorial
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
        .collect();
    assert!(links.len() > 3, "{links:?}");
    for link in links {
        assert!(root().join("docs").join(link).exists(), "{link}");
    }
}

#[test]
fn a_line_that_is_not_printed_or_in_another_order_is_missing() {
    assert_eq!(missing("a\n  …\nc\n", "a\nb\nc\n"), [""; 0]);
    assert_eq!(missing("c\na\n", "a\nb\nc\n"), ["a"]);
    assert_eq!(missing("a\nd\n", "a\nb\nc\n"), ["d"]);
}
