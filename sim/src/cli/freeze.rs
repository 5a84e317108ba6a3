//! `freeze`: writes a failing plan as a scenario, and what happens in it as a snapshot.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::args::FreezeArgs;
use super::shrink::{blames_the_mutant, nothing_fails, the_violation};
use super::{Failure, Request, carry_out, certain_request, report, save, usage, word};
use crate::custom::{command, program};
use crate::exit;
use crate::freeze::{FOLDER, FreezeError, freeze, snapshot};
use crate::plan::Plan;
use crate::scenario::Scenario;

pub(super) fn run(args: &FreezeArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let request = certain_request(&args.source)?;
    write!(out, "{}", report::heading(&request.plan, &request.title))?;
    out.flush()?;
    let run = carry_out(&request)?;
    let Some((checker, shows)) = what_fails(&request, &run) else {
        return nothing_fails(&request, out);
    };
    if let Some(mutant) = &request.plan.mutant {
        blames_the_mutant(&request.plan, mutant)?;
    }
    let (path, name) = target(args, &request.plan, &checker)?;
    let scenario =
        freeze(&request.plan, &name, &checker, &shows).map_err(|error| refused(&error))?;
    // What is kept is what should happen, and not what a known-bad variant makes of it.
    let plan = Plan { mutant: None, ..request.plan.clone() };
    let good = Request { plan, recorded: None, ..request };
    let run = carry_out(&good)?;
    save(&path, &scenario.text())?;
    let story = path.with_extension("snap");
    save(&story, &snapshot(&scenario.title, &run.trace))?;
    tell(&scenario, &path, &story, out)
}

/// The checker that fails and its sentence: now, or when the capsule was made.
fn what_fails(request: &Request, run: &crate::world::Run) -> Option<(String, String)> {
    if let Some(violation) = the_violation(run) {
        return Some((violation.checker.to_owned(), violation.message));
    }
    let once = request.recorded.as_ref()?.recorded.findings.first()?;
    Some((once.checker.clone(), once.message.clone()))
}

/// The file of the scenario, and its name.
fn target(args: &FreezeArgs, plan: &Plan, checker: &str) -> Result<(PathBuf, String), Failure> {
    if let Some(path) = &args.out {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_none_or(|extension| extension != "toml") {
            let message = format!("`{}` is no name for a scenario", path.display());
            return Err(usage(message, "let it end with `.toml`"));
        }
        return Ok((path.clone(), checked(name)?));
    }
    let name = match (&args.name, &plan.mutant) {
        (Some(name), _) => name.clone(),
        (None, Some(mutant)) => mutant.clone(),
        (None, None) => format!("{}-{}", checker.replace('_', "-"), plan.seed),
    };
    let name = checked(&name)?;
    let root = args.source.scenarios.clone().or_else(own);
    let root = root.unwrap_or_else(|| PathBuf::from("scenarios"));
    if !root.is_dir() {
        let message = format!("there is no folder `{}` here", root.display());
        return Err(usage(
            message,
            "go to the root of the project, or name a file with `--out FILE`",
        ));
    }
    let folder = root.join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(|error| {
        let message = format!("`{}` cannot be made: {error}", folder.display());
        usage(message, "name a file in another folder with `--out FILE`")
    })?;
    let path = folder.join(format!("{name}.toml"));
    if path.exists() {
        let message = format!("there is a scenario `{}` already", path.display());
        return Err(usage(message, "give this one another name with `--name NAME`"));
    }
    Ok((path, name))
}

/// The folder of the scenarios of a program that is about protocols of its own.
fn own() -> Option<PathBuf> {
    program().map(|program| PathBuf::from(program.scenarios))
}

/// A name that can be an id.
fn checked(name: &str) -> Result<String, Failure> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !name.is_empty() && name.chars().all(plain) {
        true => Ok(name.to_owned()),
        false => {
            let message = format!("`{name}` is no name for a scenario");
            Err(usage(message, "use small letters, digits and `-`, as in `cut-while-it-replays`"))
        }
    }
}

fn refused(error: &FreezeError) -> Failure {
    let hint = "change the plan by hand, or keep it as it is with `run --capsule FILE`";
    match error {
        FreezeError::Unsaid(invalid) => {
            let problems = invalid.problems().iter().map(|problem| problem.message.as_str());
            let problems: Vec<_> = problems.collect();
            usage(format!("{error}: {}", problems.join("; ")), hint)
        }
        FreezeError::Checker(_) | FreezeError::Differs => usage(error, hint),
    }
}

fn tell(
    scenario: &Scenario,
    path: &Path,
    story: &Path,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let mut line = |label: &str, value: &str| write!(out, "{}", report::labelled(label, value));
    line("frozen", &format!("{}: {}", scenario.id, scenario.title))?;
    line("file", &path.display().to_string())?;
    line("snapshot", &story.display().to_string())?;
    let program = command();
    let seed = scenario.frozen.as_ref().map(|frozen| frozen.seed.to_string()).unwrap_or_default();
    let folder = path.parent().and_then(Path::parent);
    let again = match folder {
        // They are found without being told where.
        Some(folder) if own().is_some_and(|own| own == folder) => format!("{} {seed}", scenario.id),
        Some(folder) if path.parent().is_some_and(|folder| folder.ends_with(FOLDER)) => {
            format!("{} {seed} --scenarios {}", scenario.id, word(folder))
        }
        _ => format!("{} {seed} --scenarios DIR", scenario.id),
    };
    writeln!(out, "\n  run it       {program} {again}")?;
    if let Some(mutant) = scenario.frozen.as_ref().and_then(|frozen| frozen.mutant.as_deref()) {
        writeln!(out, "  see it fail  {program} {again} --mutant {mutant}")?;
    }
    Ok(exit::OK)
}
