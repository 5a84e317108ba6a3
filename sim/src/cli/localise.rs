//! `localise`: from when on a failing run could not have ended otherwise.

use std::io::Write;

use super::args::LocaliseArgs;
use super::report::{BAD, QUIET, heading};
use super::{Failure, Request, carry_out, guarded, library, page, request, usage};
use crate::check::{Symptom, Verdict, judge};
use crate::custom::command;
use crate::exit;
use crate::localise::{DRAWS, Failing, Likelihood, Point, RUNS_MAX, localise};
use crate::plan::Plan;
use crate::report::{step_of_run, told};
use crate::scenario::redraw;
use crate::sweep::cores;
use crate::world::{self, Run};

/// How wide a bar is.
const BAR: usize = 24;

pub(super) fn run(args: &LocaliseArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    if !args.source.is_certain() {
        let hint = "`gapless-sim run` prints the seed of a run; give that of one that fails";
        return Err(usage("no seed is given", hint));
    }
    let request = request(&args.source)?;
    let library = library(args.source.scenarios.as_deref())?;
    // A plan may have outlived its scenario; then there is no other rest to be drawn.
    let scenario = library.get(&request.plan.scenario).ok();
    let failed = carry_out(&request)?;
    let verdict = guarded(request.plan.seed, &request.again, || judge(&failed))?;
    let Some(symptom) = Symptom::first_of(&verdict) else {
        return Err(usage(
            format!("nothing fails in `{} {}`", command(), request.again),
            "give the seed of a run that fails; `gapless-sim sweep` finds some",
        ));
    };
    let failing = Failing::new(&failed, symptom.at_ms);
    let rest = |seed| redraw(scenario.as_ref()?, &failing.plan, seed);
    let recurs =
        |plan: &Plan| world::run_untraced(plan).is_ok_and(|run| symptom.is_in(&judge(&run)));
    writeln!(
        out,
        "{}  asking     when `{}` becomes inevitable, in at most {RUNS_MAX} runs",
        heading(&request.plan, &request.title),
        symptom.checker
    )?;
    out.flush()?;
    let likelihood = localise(&failing, &rest, &recurs, args.jobs.unwrap_or_else(cores));
    plot(&likelihood, &failed, out)?;
    writeln!(out, "\n  {BAD}×{BAD:#} {}", told(&likelihood, &failed))?;
    report(args, &request, &failed, &verdict, &likelihood)?;
    Ok(exit::OK)
}

fn report(
    args: &LocaliseArgs,
    request: &Request,
    run: &Run,
    verdict: &Verdict,
    likelihood: &Likelihood,
) -> Result<(), Failure> {
    match &args.report {
        Some(path) => page::write(path, request, run, verdict, Some(likelihood)),
        None => Ok(()),
    }
}

/// One line for each point: what is kept, how likely the violation is then, and the step.
fn plot(likelihood: &Likelihood, run: &Run, out: &mut dyn Write) -> Result<(), Failure> {
    let redrawn = likelihood.points.iter().any(|point| point.redrawn.is_some());
    let second = if redrawn { "comes back with another rest" } else { "" };
    let width = if redrawn { BAR + 10 } else { 0 };
    writeln!(
        out,
        "\n  {QUIET}{:>9}  {second:<width$} alone  last step that is kept{QUIET:#}",
        "kept to"
    )?;
    for point in &likelihood.points {
        let share = match point.redrawn {
            Some(recurred) => format!("{} {recurred:>2} of {DRAWS}", bar(point.percent())),
            None => String::new(),
        };
        let alone = if point.alone { "yes" } else { "no" };
        let (at, what) = told_step(point, run);
        writeln!(out, "  {at:>9}  {share:<width$} {alone:<5}  {what}")?;
    }
    writeln!(
        out,
        "\n  {QUIET}{} runs; \"alone\" is with nothing after it{QUIET:#}",
        likelihood.runs
    )?;
    Ok(())
}

fn bar(percent: u32) -> String {
    let full = (percent as usize * BAR).div_ceil(100);
    format!("{}{}", "█".repeat(full), "·".repeat(BAR - full))
}

fn told_step(point: &Point, run: &Run) -> (String, String) {
    match point.last {
        None => ("nothing".to_owned(), String::new()),
        Some((step, at_ms)) => {
            let at = format!("{}.{:03}", at_ms / 1_000, at_ms % 1_000);
            (at, step_of_run(run, step))
        }
    }
}
