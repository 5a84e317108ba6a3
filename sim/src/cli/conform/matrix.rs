//! `conform matrix`: several implementations side by side.

use std::io::Write;
use std::path::Path;

use crate::cli::args::MatrixArgs;
use crate::cli::{Failure, save, usage};
use crate::conform::outcome::{FORMAT, Line};
use crate::conform::report::{html, markdown_matrix};
use crate::conform::summary::Results;
use crate::exit;

pub(super) fn run(args: &MatrixArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let all: Vec<Results> =
        args.files.iter().map(|path| read(path)).collect::<Result<_, Failure>>()?;
    if let Some(path) = &args.html {
        save(path, &html(&all))?;
    }
    match &args.markdown {
        Some(path) => save(path, &markdown_matrix(&all))?,
        None if args.html.is_none() => write!(out, "{}", markdown_matrix(&all))?,
        None => {}
    }
    Ok(exit::OK)
}

/// Results from their JSON lines.
fn read(path: &Path) -> Result<Results, Failure> {
    let hint = "give files written by `conform --json FILE`";
    let named = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("`{named}` cannot be read: {error}"), hint))?;
    let (mut start, mut outcomes, mut end) = (None, Vec::new(), None);
    for (number, line) in text.lines().enumerate() {
        let wrong =
            |problem: String| usage(format!("`{named}`, line {}: {problem}", number + 1), hint);
        match serde_json::from_str(line).map_err(|error| wrong(error.to_string()))? {
            Line::Start(first) if first.format != FORMAT => {
                let format = first.format;
                return Err(wrong(format!("it has format {format}, this program knows {FORMAT}")));
            }
            Line::Start(first) if number == 0 => start = Some(*first),
            Line::Run(outcome) if start.is_some() && end.is_none() => outcomes.push(*outcome),
            Line::End(last) if start.is_some() && end.is_none() => end = Some(last),
            _ => return Err(wrong("this line does not belong here".to_owned())),
        }
    }
    match (start, end) {
        (Some(start), Some(end)) => Ok(Results { start, outcomes, end }),
        _ => Err(usage(format!("`{named}` is not whole"), hint)),
    }
}
