//! `conform --live` and `adapter --live`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

use super::args::{AdapterArgs, ConformArgs};
use super::{Failure, diagnostic, guarded, library, mutants, usage};
use crate::conform::live::{Implementation, SPEED_MAX, Speed, adapter as reference};
use crate::conform::suite::Verdicted;
use crate::conform::{ANSWER_MAX, Launch, NodeError, Role};
use crate::exit;
use crate::plan::Protocol;
use crate::scenario::draw;
use crate::seed::Seed;

/// How many sentences are shown about a case.
const SHOWN_MAX: usize = 5;

/// Is the reference as one that runs by itself.
pub(super) fn adapter(args: &AdapterArgs, role: Role) -> Result<u8, Failure> {
    let mutant = args.mutant.as_deref().map(mutants::named).transpose()?;
    match reference::serve(role, mutant.map(|mutant| mutant.id)) {
        Ok(()) => Ok(exit::OK),
        Err(problem) => Err(Failure::Run(format!("error: {problem}\n"))),
    }
}

/// The adapter that was named, or the reference in a process of its own.
fn launch(args: &ConformArgs, role: Role) -> Result<Launch, Failure> {
    let words = match &args.adapter {
        Some(command) => shlex::split(command).ok_or_else(|| {
            usage(format!("`{command}` is no command"), "close its quotation marks")
        })?,
        None => {
            let program = std::env::current_exe()?.display().to_string();
            let mut words = vec![program, "adapter".to_owned(), "--live".to_owned()];
            words.extend(["--role".to_owned(), role.to_string()]);
            if let Some(mutant) = &args.mutant {
                words.extend(["--mutant".to_owned(), mutants::named(mutant)?.id.to_owned()]);
            }
            words
        }
    };
    Ok(Launch { words, answer_max: ANSWER_MAX })
}

/// Plays scenarios on real sockets.
pub(super) fn run(args: &ConformArgs, role: Role, out: &mut dyn Write) -> Result<u8, Failure> {
    let speed = Speed::new(args.speed).ok_or_else(|| {
        usage(
            format!("`--speed {}` is not possible", args.speed),
            format!("give a number from 1 to {SPEED_MAX}"),
        )
    })?;
    let implementation = match Implementation::meet(role, launch(args, role)?) {
        Ok(implementation) => implementation,
        Err(error @ NodeError::Unsupported(_)) => {
            writeln!(out, "unsupported: {error}")?;
            return Ok(exit::NOTHING_RAN);
        }
        Err(error) => {
            let (error, code) = (format!("error: {error}\n"), exit::ADAPTER);
            write!(out, "{error}")?;
            return Ok(code);
        }
    };
    let library = library(None)?;
    for word in &args.words {
        library.get(word).map_err(diagnostic)?;
    }
    let base = args.base.parse::<Seed>().map_err(|error| usage(error, "see `--base`"))?;
    let mut trace = match &args.trace {
        None => None,
        Some(path) => Some(File::create(path).map_err(|error| {
            usage(
                format!("`{}` cannot be written: {error}", path.display()),
                "name a file in a folder that exists and is writable",
            )
        })?),
    };
    let (mut counts, mut code) = (BTreeMap::<&str, u64>::new(), exit::OK);
    for id in library.ids() {
        if !args.words.is_empty() && !args.words.iter().any(|word| word == id) {
            continue;
        }
        let scenario = library.get(id).map_err(diagnostic)?;
        if scenario.options.protocol() != Protocol::Events {
            continue;
        }
        let drawn = scenario.swarm.is_some();
        for index in 0..if drawn { args.seeds } else { 1 } {
            let seed = base.derive(index);
            let plan = draw(&scenario, seed);
            let played = guarded(seed.0, id, || implementation.play(&plan, drawn, speed))?;
            let (word, about, grave) = match &played.verdict {
                Verdicted::Pass => ("pass", Vec::new(), exit::OK),
                Verdicted::Fail(violations) => {
                    let messages = violations
                        .iter()
                        .map(|violation| format!("{} ({})", violation.message, violation.checker));
                    ("fail", messages.collect(), exit::VIOLATION)
                }
                Verdicted::Inconclusive(marks) => ("inconclusive", marks.clone(), exit::OK),
                Verdicted::Unsupported(needs) => ("unsupported", needs.clone(), exit::OK),
                Verdicted::Crash(problem) => ("crash", vec![problem.clone()], exit::VIOLATION),
                Verdicted::Error(problem) => ("error", vec![problem.clone()], exit::ADAPTER),
                Verdicted::Nondeterminism(problem) => {
                    ("error", vec![problem.clone()], exit::ADAPTER)
                }
            };
            if let (Some(file), Some(run)) = (&mut trace, &played.run) {
                writeln!(file, "{id} {seed}: {word}\n{}", run.trace)?;
            }
            *counts.entry(word).or_default() += 1;
            writeln!(out, "  {word:<13}{id} {seed}")?;
            for line in about.iter().take(SHOWN_MAX) {
                writeln!(out, "               {line}")?;
            }
            if about.len() > SHOWN_MAX {
                writeln!(out, "               and {} more", about.len() - SHOWN_MAX)?;
            }
            out.flush()?;
            code = code.max(grave);
        }
    }
    let counts: Vec<String> =
        counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    if counts.is_empty() {
        writeln!(out, "  nothing ran")?;
        return Ok(exit::NOTHING_RAN);
    }
    writeln!(out, "  {}", counts.join(", "))?;
    Ok(code)
}
