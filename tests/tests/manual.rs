//! The manual is true: every command in it can be run, every link leads somewhere.
//!
//! `cargo sim` is a release build, and so is what is run here.
//!
//! A block that begins with ```` ```sh ```` is run by a shell, the blocks of a page one after the
//! other in one empty folder, and has to end with exit code 0. Behind `sh` may stand
//!
//! * `exit=1`: it ends with another code;
//! * `short="A=>B"`: instead of A, which would take long, B is run;
//! * `skip="why"`: it is not run, for a reason.
//!
//! Of a ```` ```console ```` block the lines that begin with `$ ` are run, with the same words behind
//! it. What it shows has to be printed, in that order; `…` at the end of a line stands for anything,
//! and lines that say how long something really took are not compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The shortest reason.
const REASON_MIN: usize = 15;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the project is there")
}

/// A page that has a test of its own, which runs its commands in one process: `tutorial.rs`.
const TUTORIAL: &str = "docs/tutorial.md";

/// All pages, by their path in the project.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let mut folders = vec![root().join("docs")];
    let mut files = vec![root().join("README.md"), root().join("ARCHITECTURE.md")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|end| end == "md") => files.push(path),
                false => {}
            }
        }
    }
    for file in files {
        let name = file.strip_prefix(root()).expect("in the project").display().to_string();
        pages.insert(name, fs::read_to_string(&file).expect("a page"));
    }
    pages
}

/// A block of commands.
#[derive(Debug, PartialEq)]
struct Block {
    /// Where it begins.
    line: usize,
    commands: String,
    /// The lines that have to be printed.
    shows: Vec<String>,
    exit: i32,
    /// What is run instead of what.
    short: Vec<(String, String)>,
    skip: Option<String>,
}

/// The blocks of a page.
fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().zip(1..);
    while let Some((opening, line)) = lines.next() {
        let Some(info) = opening.trim_start().strip_prefix("```") else { continue };
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(line, _)| line)
            .take_while(|line| !line.trim_start().starts_with("```"))
            .collect();
        let (language, words) = info.split_once(' ').unwrap_or((info, ""));
        let commands = match language {
            "sh" => body.join("\n"),
            "console" => {
                let shown = body.iter().filter_map(|line| line.strip_prefix("$ "));
                shown.collect::<Vec<_>>().join("\n")
            }
            "bash" | "shell" => return Err(format!("line {line}: write `sh` or `console`")),
            _ => continue,
        };
        let shows = match language {
            "console" => body
                .iter()
                .filter(|line| is_compared(line))
                .map(|line| line.trim_end().to_owned())
                .collect(),
            _ => Vec::new(),
        };
        let mut block = Block { line, commands, shows, exit: 0, short: Vec::new(), skip: None };
        for (key, value) in attributes(words).map_err(|word| format!("line {line}: `{word}`"))? {
            let wrong = || format!("line {line}: `{key}` cannot be `{value}`");
            match key.as_str() {
                "exit" => block.exit = value.parse().map_err(|_| wrong())?,
                "skip" if value.len() >= REASON_MIN => block.skip = Some(value),
                "short" => {
                    let (long, short) = value.split_once("=>").ok_or_else(wrong)?;
                    if !block.commands.contains(long) {
                        return Err(format!("line {line}: there is no `{long}` in the block"));
                    }
                    block.short.push((long.to_owned(), short.to_owned()));
                }
                _ => return Err(wrong()),
            }
        }
        blocks.push(block);
    }
    Ok(blocks)
}

/// Whether a line of a console is printed the same each time.
fn is_compared(line: &str) -> bool {
    let is_timed = line.contains(" ms real") || line.starts_with("  runs ");
    !line.starts_with("$ ") && !line.trim().is_empty() && !line.ends_with('…') && !is_timed
}

/// `exit=1 skip="a reason"`. An error is the word that is none.
fn attributes(mut words: &str) -> Result<Vec<(String, String)>, String> {
    let mut attributes = Vec::new();
    loop {
        words = words.trim_start();
        if words.is_empty() {
            return Ok(attributes);
        }
        let (key, rest) = words.split_once('=').ok_or_else(|| words.to_owned())?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or_else(|| words.to_owned())?,
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        attributes.push((key.to_owned(), value.to_owned()));
        words = rest;
    }
}

fn build(what: &[&str]) {
    let build = Command::new(env!("CARGO"))
        .args(["build", "--quiet"])
        .args(what)
        .current_dir(root())
        .status();
    assert!(build.expect("cargo starts").success());
}

/// A folder with the commands of the project, as somebody has them who installed it.
///
/// What runs thousands of seeds is a release build. `gapless` is the one that the tests of its package
/// have built: another build of it, with what this package alone asks of the dependencies, takes minutes.
fn commands(folder: &Path) {
    let test = std::env::current_exe().expect("it has a path");
    let target = test.ancestors().nth(3).expect("TARGET/PROFILE/deps/TEST");
    let (sim, gapless) = (target.join("release/gapless-sim"), target.join("debug/gapless"));
    build(&["--release", "--bin", "gapless-sim", "--package", "gapless-sim"]);
    if !gapless.exists() {
        build(&["--bin", "gapless", "--package", "gapless-cli"]);
    }
    for (command, program) in [("gapless-sim", sim), ("gapless", gapless)] {
        std::os::unix::fs::symlink(program, folder.join(command)).expect("a link");
    }
    let cargo = "#!/bin/sh\ncommand=$1\nshift\ncase $command in\n\
                 sim) exec gapless-sim \"$@\" ;;\ngapless) exec gapless \"$@\" ;;\n\
                 *) echo \"the manual runs cargo $command\" >&2; exit 99 ;;\nesac\n";
    let path = folder.join("cargo");
    fs::write(&path, cargo).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).expect("it can be run");
}

#[test]
fn every_command_of_the_manual_does_what_the_manual_says() {
    let bin = tempfile::tempdir().expect("a folder");
    commands(bin.path());
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").expect("a path"));
    let mut failed = Vec::new();
    for (name, page) in pages().into_iter().filter(|(name, _)| name != TUTORIAL) {
        let blocks = blocks(&page).unwrap_or_else(|problem| panic!("{name}, {problem}"));
        let folder = tempfile::tempdir().expect("a folder");
        for block in blocks.iter().filter(|block| block.skip.is_none()) {
            let mut script = block.commands.clone();
            for (long, short) in &block.short {
                script = script.replace(long, short);
            }
            let done = Command::new("sh")
                .args(["-e", "-c", &script])
                .current_dir(folder.path())
                .env("PATH", &path)
                .stdin(Stdio::null())
                .output()
                .expect("a shell starts");
            let printed = String::from_utf8_lossy(&done.stdout).into_owned();
            let mut lines = printed.lines().map(str::trim_end);
            let missing = block.shows.iter().find(|shown| !lines.any(|line| line == *shown));
            if let Some(missing) = missing.filter(|_| block.short.is_empty()) {
                failed.push(format!(
                    "{name}, line {}: not printed, or not there: {missing}\n{printed}",
                    block.line
                ));
            }
            if done.status.code() != Some(block.exit) {
                let tail = |bytes: &[u8]| {
                    let text = String::from_utf8_lossy(bytes).into_owned();
                    let lines: Vec<&str> = text.lines().collect();
                    lines[lines.len().saturating_sub(15)..].join("\n")
                };
                failed.push(format!(
                    "{name}, line {}: {} instead of {}\n{script}\n{}\n{}",
                    block.line,
                    done.status,
                    block.exit,
                    tail(&done.stdout),
                    tail(&done.stderr)
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// How GitHub names the heading of a chapter.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

/// The lines of a page that are no code.
fn prose(page: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut prose = Vec::new();
    for line in page.lines() {
        match line.trim_start().starts_with("```") {
            true => is_code = !is_code,
            false if !is_code => prose.push(line),
            false => {}
        }
    }
    prose
}

fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(page).iter().filter(|line| line.starts_with('#')) {
        let anchor = anchor(line.trim_start_matches('#'));
        let again = (1..).map(|nth| format!("{anchor}-{nth}"));
        let free =
            std::iter::once(anchor.clone()).chain(again).find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

/// Where the links of a page lead.
fn links(page: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(page) {
        // What is quoted is shown and not linked.
        let shown: String = line.split('`').step_by(2).collect();
        for rest in shown.split("](").skip(1) {
            links.extend(rest.split_once(')').map(|(link, _)| link.to_owned()));
        }
    }
    links
}

/// What is wrong with the links of some pages.
fn broken(pages: &BTreeMap<String, String>, is_there: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, page) in pages {
        for link in links(page).iter().filter(|link| !link.starts_with("https://")) {
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let mut path = Path::new(name).parent().expect("a page has a folder").to_owned();
            for step in file.split('/').filter(|step| !step.is_empty()) {
                match step {
                    ".." => drop(path.pop()),
                    step => path.push(step),
                }
            }
            let path = if file.is_empty() { PathBuf::from(name) } else { path };
            let target = pages.get(&path.display().to_string());
            if target.is_none() && !is_there(&path) {
                broken.push(format!("{name} links to {link}, which is not there"));
            } else if !part.is_empty() && !target.is_some_and(|page| anchors(page).contains(part)) {
                broken.push(format!("{name} links to {link}, and there is no such heading"));
            }
        }
    }
    broken
}

#[test]
fn every_link_of_the_manual_leads_somewhere() {
    let pages = pages();
    assert!(pages.values().map(|page| links(page).len()).sum::<usize>() > 100);
    assert_eq!(broken(&pages, |path| root().join(path).exists()), [""; 0]);
}

#[test]
fn every_page_of_the_manual_is_linked_from_the_readme_or_from_a_page_that_is() {
    let pages = pages();
    let (mut found, mut waiting) = (BTreeSet::new(), vec!["README.md".to_owned()]);
    while let Some(name) = waiting.pop() {
        let Some(page) = pages.get(&name).filter(|_| found.insert(name.clone())) else { continue };
        for link in links(page) {
            let file = link.split('#').next().unwrap_or_default();
            let mut path = Path::new(&name).parent().expect("a page has a folder").to_owned();
            for step in file.split('/') {
                match step {
                    ".." => drop(path.pop()),
                    step => path.push(step),
                }
            }
            waiting.push(path.display().to_string());
        }
    }
    let lost: Vec<&String> = pages.keys().filter(|name| !found.contains(*name)).collect();
    assert_eq!(lost, [""; 0]);
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page = "# A page\n[a](b.md) [c](#a-page) [d](#b) [e](b.md#x) `[f](g)` [h](https://x.org)\n";
    let pages = BTreeMap::from([
        ("docs/a.md".to_owned(), page.to_owned()),
        ("docs/b.md".to_owned(), "## 3. X, `Y`\n".to_owned()),
    ]);
    let found = broken(&pages, |_| false);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("#b") && found[1].contains("b.md#x"), "{found:?}");
    assert_eq!(anchor(" 3. X, `Y`-z"), "3-x-y-z");
}

#[test]
fn a_block_says_how_it_is_run() {
    let page = "```sh exit=1 short=\"2000=>20\"\nsweep 2000\n```\n```console skip=\"it goes on for ever\"\n$ serve\nok\n```\n```json\n{}\n```\n";
    let found = blocks(page).expect("in order");
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].exit, found[0].line), (1, 1));
    assert_eq!(found[0].short, [("2000".to_owned(), "20".to_owned())]);
    assert_eq!(found[1].commands, "serve");
    assert_eq!(found[1].shows, ["ok"]);
    assert_eq!(found[1].skip.as_deref(), Some("it goes on for ever"));
    for wrong in [
        "```sh skip=\"no\"\n```",
        "```sh exit=x\n```",
        "```sh short=\"a=>b\"\nc\n```",
        "```bash\n```",
    ] {
        assert!(blocks(wrong).is_err(), "{wrong}");
    }
}
