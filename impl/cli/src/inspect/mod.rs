//! `gapless inspect`: what is in the files of servers and clients. It changes none of them.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::{exit, stores};

/// The largest cursor file, in bytes.
const CURSOR_BYTES_MAX: u64 = 64 << 10;

const INSPECT_HELP: &str = "\
It knows the databases of `serve`, `agent` and `chat`, and the cursors of `tail`. No file is changed:
a database that was not closed is copied to a temporary folder and looked at there. What is in use by a
process is not looked at.

Examples:
  gapless inspect data
  gapless inspect --json demo.cursor | jq .sequence";

#[derive(Debug, Args)]
#[command(after_help = INSPECT_HELP)]
pub(crate) struct InspectArgs {
    /// Print one JSON object: of the file, or an array of those in the folder.
    #[arg(long)]
    json: bool,
    /// A database, a cursor, or a folder with some.
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

pub(crate) fn run(args: &InspectArgs) -> Result<u8, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(format!("`{}` cannot be read: {error}", args.path.display()))
    };
    let is_folder = std::fs::metadata(&args.path).map_err(unreadable)?.is_dir();
    let found = match is_folder {
        true => {
            let mut found = Vec::new();
            for path in databases(&args.path).map_err(unreadable)? {
                found.push(inspect(&path)?);
            }
            match found.is_empty() {
                true => {
                    let problem = format!("`{}` has no database in it", args.path.display());
                    return Err(Failure::new(problem));
                }
                false => Value::Array(found),
            }
        }
        false => inspect(&args.path)?,
    };
    match (args.json, &found) {
        (true, found) => println!("{found}"),
        (false, Value::Array(all)) => all.iter().for_each(|one| print!("{}", text(one))),
        (false, one) => print!("{}", text(one)),
    }
    Ok(exit::OK)
}

/// The databases of a folder, by name.
fn databases(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "db") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn inspect(path: &Path) -> Result<Value, Failure> {
    let unreadable =
        |problem: String| Failure::new(format!("`{}` cannot be read: {problem}", path.display()));
    if !stores::is_database(path).map_err(|error| unreadable(error.to_string()))? {
        return cursor(path);
    }
    let opened = stores::open(path)?;
    let mut facts = stores::summary(&opened).map_err(|error| unreadable(error.to_string()))?;
    facts["path"] = path.display().to_string().into();
    facts["what"] = opened.kind.what().into();
    facts["schema_version"] = opened.version.into();
    Ok(facts)
}

/// The cursor of `tail`.
fn cursor(path: &Path) -> Result<Value, Failure> {
    let unknown = || {
        let problem = format!("`{}` is neither a database nor a cursor", path.display());
        Failure::new(problem).hint("cursors are those of `gapless tail --cursor`")
    };
    let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if length > CURSOR_BYTES_MAX {
        return Err(unknown());
    }
    let text = std::fs::read_to_string(path).map_err(|_| unknown())?;
    let stored: Value = serde_json::from_str(&text).map_err(|_| unknown())?;
    match (stored["format"].as_u64(), stored.get("output_bytes")) {
        (Some(format), Some(bytes)) => Ok(json!({
            "path": path.display().to_string(),
            "what": "cursor",
            "format": format,
            "agent": stored["agent"],
            "output": stored["output"],
            "output_bytes": bytes,
            "epoch": stored["position"]["epoch"],
            "sequence": stored["position"]["sequence"],
        })),
        _ => Err(unknown()),
    }
}

/// For a person: what it is first, then the rest, a line for each.
fn text(value: &Value) -> String {
    let Value::Object(object) = value else { return format!("{}\n", plain(value)) };
    let mut lines = String::new();
    if let (Some(path), Some(what)) = (object.get("path"), object.get("what")) {
        lines += &format!("{}: {}\n", plain(path), plain(what));
    }
    for (name, value) in object.iter().filter(|(name, _)| !matches!(name.as_str(), "path" | "what"))
    {
        match value {
            Value::Array(items) if items.is_empty() => {
                lines += &format!("  {name}: none\n");
            }
            Value::Array(items) => {
                lines += &format!("  {name}:\n");
                items.iter().for_each(|item| lines += &format!("    {}\n", row(item)));
            }
            value => lines += &format!("  {name}: {}\n", row(value)),
        }
    }
    lines
}

fn row(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let pairs = object.iter().map(|(name, value)| format!("{name} {}", plain(value)));
            pairs.collect::<Vec<_>>().join(", ")
        }
        value => plain(value),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}
