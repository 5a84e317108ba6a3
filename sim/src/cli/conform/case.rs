//! A single case, with everything that is known of it.

use std::io::Write;

use super::attach::Target;
use super::suite::Lines;
use crate::check::judge;
use crate::cli::args::PlayArgs;
use crate::cli::report::{Report, heading};
use crate::cli::{Failure, plan_text, save, word};
use crate::conform::outcome::{Line, Outcome};
use crate::conform::runner::{Case, Suite};
use crate::conform::suite::Played;
use crate::conform::summary::Tally;
use crate::world::Attached;

/// Plays the first case of the suite, and says what happened.
pub(super) fn play(
    suite: &Suite<'_>,
    attached: Attached,
    target: &Target,
    args: &PlayArgs,
    tally: &mut Tally<'_>,
    lines: &mut Lines,
    out: &mut dyn Write,
) -> Result<Vec<Outcome>, Failure> {
    let Some(case) = suite.cases.first() else { return Ok(Vec::new()) };
    let title = match case {
        Case::Scenario(scenario, _) => scenario.title.as_str(),
        Case::Plan(_) => "a saved plan",
    };
    if !args.quiet {
        // Before the run: whoever ends one that hangs knows its seed.
        write!(out, "{}", heading(&case.plan(), title))?;
        out.flush()?;
    }
    let meter = crate::cli::progress::Meter::new(true, out);
    let Some((played, outcome, ended)) = suite.play_first(attached) else { return Ok(Vec::new()) };
    let real = meter.elapsed();
    if let Err(error) = ended {
        tally.problem(&error);
    }
    if let Some(path) = &args.save_plan {
        let carried_out = played.run.as_ref().map_or_else(|| case.plan(), |run| run.plan.clone());
        save(path, &plan_text(&carried_out))?;
    }
    if let Some(path) = &args.trace {
        let trace = match &played.run {
            Some(run) => run.trace.to_string(),
            None => played.last.iter().map(|line| format!("{line}\n")).collect(),
        };
        save(path, &trace)?;
    }
    let again = target.again("conform");
    let again = again.strip_prefix("gapless-sim ").unwrap_or(&again);
    let again = match &args.plan {
        Some(path) => format!("{again} --plan {}", word(path)),
        None => format!("{again} {} --seed {}", case.id(), case.seed()),
    };
    match &played.run {
        Some(run) => {
            let verdict = judge(run);
            let report = Report { run, verdict: &verdict, again: &again, once: None, real };
            if !args.quiet {
                write!(out, "{}", report.text())?;
            }
        }
        None => write!(out, "{}", last(&played))?,
    }
    let outcome = tally.take(outcome);
    lines.write(&Line::Run(Box::new(outcome.clone())));
    Ok(vec![outcome])
}

/// What is known of a case that did not come to its end.
fn last(played: &Played) -> String {
    if played.last.is_empty() {
        return String::new();
    }
    let mut text = "\n  ╭─ the last things that happened\n".to_owned();
    for line in &played.last {
        text += &format!("  │ {line}\n");
    }
    text + "  ╰─\n"
}
