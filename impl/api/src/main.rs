//! Compares the public API of `gapless` with the one that was reviewed, and with the last release.
//!
//! The API is a list of lines, one per item, made of rustdoc's JSON; see `run` beside. What rustdoc's
//! JSON does not say is not seen: behaviour, and auto traits like `Send`.

mod breaks;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::breaks::breaks;

/// The format of rustdoc's JSON that the `public-api` of `Cargo.toml` reads.
const FORMAT: u64 = 57;

const USAGE: &str = "gapless-api check|update|release RUSTDOC-JSON FOLDER VERSION";

struct Failure {
    problem: String,
    hint: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [mode, json, folder, version] => Version::parse(version).and_then(|version| {
            let (json, folder) = (Path::new(json), Path::new(folder));
            match mode {
                "check" => check(json, folder, version),
                "update" => update(json, folder),
                "release" => release(json, folder, version),
                _ => Err(usage()),
            }
        }),
        _ => Err(usage()),
    };
    match done {
        Ok(says) => {
            println!("{says}");
            ExitCode::SUCCESS
        }
        Err(Failure { problem, hint }) => {
            eprintln!("error: {problem}\n  hint: {hint}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> Failure {
    Failure { problem: "the arguments are not understood".to_owned(), hint: USAGE.to_owned() }
}

/// What the version promises: another `breaking` may break what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u64,
    minor: u64,
    patch: u64,
}

impl Version {
    fn parse(text: &str) -> Result<Self, Failure> {
        let numbers: Option<Vec<u64>> = text.split('.').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[major, minor, patch]) => Ok(Self { major, minor, patch }),
            _ => Err(Failure {
                problem: format!("`{text}` is no version"),
                hint: "write three numbers, as in 0.1.0".to_owned(),
            }),
        }
    }

    fn is_compatible_with(self, other: Self) -> bool {
        match (self.major, other.major) {
            (0, 0) => self.minor == other.minor,
            (mine, its) => mine == its,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

fn check(json: &Path, folder: &Path, version: Version) -> Result<String, Failure> {
    let reviewed = read(&folder.join("current.txt"))?;
    let mut says = match api(json)? {
        Api::Lines(now) => {
            compare(&reviewed, &now)?;
            format!("the public API is the reviewed one: {} items", now.lines().count())
        }
        Api::OtherFormat(found) => format!(
            "skipped: whether the public API is the reviewed one. rustdoc of this compiler writes \
             JSON format {found}, the pinned `public-api` reads {FORMAT}.\n  hint: raise it in \
             impl/api/Cargo.toml, or use the compiler of `rust-version`"
        ),
    };
    let Some((released, api)) = last_release(folder)? else {
        return Ok(says + "; nothing is released");
    };
    if !version.is_compatible_with(released) {
        return Ok(format!("{says}; {version} may break {released}"));
    }
    let broken = breaks(&api, &reviewed);
    if !broken.is_empty() {
        return Err(Failure {
            problem: format!("version {version} breaks version {released}:\n{}", broken.join("\n")),
            hint: "put back what is missing, or raise the version in Cargo.toml: the minor one \
                   below 1.0, the major one from there on"
                .to_owned(),
        });
    }
    says.push_str(&format!("\nversion {version} breaks nothing of version {released}"));
    Ok(says)
}

fn compare(reviewed: &str, now: &str) -> Result<(), Failure> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
        (reviewed.lines().collect(), now.lines().collect());
    let removed = old.difference(&new).map(|line| format!("  - {line}"));
    let added = new.difference(&old).map(|line| format!("  + {line}"));
    let changes: Vec<String> = removed.chain(added).collect();
    match changes.is_empty() {
        true => Ok(()),
        false => Err(Failure {
            problem: format!("the public API has changed:\n{}", changes.join("\n")),
            hint: "if that is meant, run `impl/api/run update` and commit impl/api/current.txt"
                .to_owned(),
        }),
    }
}

fn update(json: &Path, folder: &Path) -> Result<String, Failure> {
    let path = folder.join("current.txt");
    write(&path, &lines(json)?)?;
    Ok(format!("wrote {}", path.display()))
}

fn release(json: &Path, folder: &Path, version: Version) -> Result<String, Failure> {
    let now = lines(json)?;
    compare(&read(&folder.join("current.txt"))?, &now)?;
    let path = folder.join("released").join(format!("{version}.txt"));
    write(&path, &now)?;
    Ok(format!("wrote {}", path.display()))
}

enum Api {
    /// One line for each item.
    Lines(String),
    /// This compiler's rustdoc writes something else.
    OtherFormat(u64),
}

fn lines(json: &Path) -> Result<String, Failure> {
    match api(json)? {
        Api::Lines(lines) => Ok(lines),
        Api::OtherFormat(found) => Err(Failure {
            problem: format!("rustdoc writes JSON format {found}, and {FORMAT} is read"),
            hint: "use the compiler of `rust-version`, or raise `public-api`".to_owned(),
        }),
    }
}

fn api(json: &Path) -> Result<Api, Failure> {
    #[derive(serde::Deserialize)]
    struct Header {
        format_version: u64,
    }
    let unreadable = |problem: String| Failure {
        problem: format!("`{}` is not what rustdoc writes: {problem}", json.display()),
        hint: "run it as impl/api/run".to_owned(),
    };
    let header: Header =
        serde_json::from_str(&read(json)?).map_err(|error| unreadable(error.to_string()))?;
    if header.format_version != FORMAT {
        return Ok(Api::OtherFormat(header.format_version));
    }
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .map_err(|error| unreadable(error.to_string()))?;
    let mut lines: Vec<String> = api.items().map(ToString::to_string).collect();
    lines.sort();
    lines.dedup();
    Ok(Api::Lines(lines.join("\n") + "\n"))
}

/// The newest of the released versions, and its API.
fn last_release(folder: &Path) -> Result<Option<(Version, String)>, Failure> {
    let folder = folder.join("released");
    let failed = |error: std::io::Error| io_failure(&folder, &error);
    let mut versions = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(version) = name.to_str().and_then(|name| name.strip_suffix(".txt")) {
            versions.push(Version::parse(version)?);
        }
    }
    let Some(newest) = versions.into_iter().max() else { return Ok(None) };
    let path: PathBuf = folder.join(format!("{newest}.txt"));
    Ok(Some((newest, read(&path)?)))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| io_failure(path, &error))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| io_failure(path, &error))
}

fn io_failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure {
        problem: format!("`{}`: {error}", path.display()),
        hint: "run it as impl/api/run, from a whole checkout".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap_or_else(|failure| panic!("{}", failure.problem))
    }

    #[test]
    fn below_one_the_minor_version_may_break_and_from_there_on_the_major_one() {
        assert!(version("0.1.9").is_compatible_with(version("0.1.0")));
        assert!(!version("0.2.0").is_compatible_with(version("0.1.0")));
        assert!(version("1.2.0").is_compatible_with(version("1.1.0")));
        assert!(!version("2.0.0").is_compatible_with(version("1.9.0")));
        assert!(!version("1.0.0").is_compatible_with(version("0.1.0")));
    }

    #[test]
    fn what_is_not_three_numbers_is_no_version() {
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.3-rc1"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_change_of_the_reviewed_api_is_named() {
        assert!(compare("pub fn a::b()\n", "pub fn a::b()\n").is_ok());
        let changed = compare("pub fn a::b()\n", "pub fn a::c()\n");
        let problem = changed.err().map(|failure| failure.problem).unwrap_or_default();
        assert!(problem.contains("- pub fn a::b()"), "{problem}");
        assert!(problem.contains("+ pub fn a::c()"), "{problem}");
    }
}
