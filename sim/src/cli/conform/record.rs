//! `record`: what an adapter is asked in a case, so that it can be played under a debugger.

use std::io::Write;
use std::sync::PoisonError;

use super::attach::Target;
use crate::cli::args::RecordArgs;
use crate::cli::{Failure, diagnostic, library, save, usage, word};
use crate::conform::suite::{SEATS_MAX, Verdicted, attach_recorded, play};
use crate::exit;
use crate::scenario::draw;
use crate::seed::Seed;

pub(in crate::cli) fn record(args: &RecordArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let target = Target::new(&args.attach)?;
    let seed: Seed = args.seed.parse().map_err(|error| usage(error, "see `--seed`"))?;
    let library = library(args.scenarios.as_deref())?;
    let scenario = library.get(&args.id).map_err(diagnostic)?;
    let (attached, lines) = attach_recorded(target.role, &target.source, SEATS_MAX)
        .map_err(|error| target.refused(&error))?;
    let played = play(&attached, &draw(&scenario, seed), scenario.swarm.is_some());
    let ended = attached.finish();
    if let Verdicted::Unsupported(needs) = &played.verdict {
        return Err(Failure::NothingRan(format!(
            "error: it is not played: it needs {}\n  hint: record a scenario that the \
             implementation supports\n",
            needs.join(", ")
        )));
    }
    let said = |seat: usize| {
        let lines = lines.get(seat)?.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The introduction and the end are said to every host, also to one that is not there.
        (lines.asked.lines().count() > 2).then_some(lines)
    };
    let host = args.host as usize - 1;
    let hosts = (0..lines.len()).filter(|seat| said(*seat).is_some()).count();
    let Some(said) = said(host) else {
        let message = format!("the case has no host {}", args.host);
        return Err(usage(message, format!("`--host` is at most {hosts} here")));
    };
    save(&args.out, &said.asked)?;
    if let Some(path) = &args.replies {
        save(path, &said.answered)?;
    }
    let lines = said.asked.lines().count();
    writeln!(out, "  {lines} lines for host {} of {hosts}: `{}`", args.host, args.out.display())?;
    let problem = match (&played.verdict, ended) {
        (Verdicted::Crash(problem) | Verdicted::Error(problem), _) => Some(problem.clone()),
        (_, Err(error)) => Some(error.to_string()),
        _ => None,
    };
    if let Some(problem) = problem {
        writeln!(out, "  the case did not come to its end: {problem}")?;
    }
    let command = args
        .attach
        .adapter
        .as_deref()
        .map_or_else(|| format!("gapless-sim adapter --role {}", target.role), str::to_owned);
    writeln!(out, "  play it    {command} < {}", word(&args.out))?;
    Ok(exit::OK)
}
