//! `conform --live` and `adapter --live`.

use std::fs::File;
use std::io::{BufWriter, Write};

use super::args::{AdapterArgs, PlayArgs};
use super::conform::attach::Target;
use super::{Failure, guarded, mutants, usage};
use crate::conform::live::{Implementation, SPEED_MAX, Speed, adapter as reference};
use crate::conform::outcome::Outcome;
use crate::conform::runner::{ADAPTER_FAILURES_MAX, Case, Progress};
use crate::conform::suite::Source;
use crate::conform::summary::Tally;
use crate::conform::{ANSWER_MAX, Hello, Launch, NodeError, Role};
use crate::exit;

/// Is the reference as one that runs by itself.
pub(super) fn adapter(args: &AdapterArgs, role: Role) -> Result<u8, Failure> {
    let mutant = args.mutant.as_deref().map(mutants::named).transpose()?;
    match reference::serve(role, mutant.map(|mutant| mutant.id)) {
        Ok(()) => Ok(exit::OK),
        Err(problem) => Err(Failure::Run(format!("error: {problem}\n"))),
    }
}

/// The adapter that was named, or the reference in a process of its own.
fn launch(target: &Target) -> Result<Launch, Failure> {
    let mutant = match &target.source {
        Source::Adapter(launch) => return Ok(launch.clone()),
        Source::Reference(mutant) => mutant,
    };
    let program = std::env::current_exe()?.display().to_string();
    let role = target.role.as_str();
    let words = [program.as_str(), "adapter", "--live", "--role", role];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    if let Some(mutant) = mutant {
        words.extend(["--mutant".to_owned(), mutant.clone()]);
    }
    Ok(Launch { words, answer_max: ANSWER_MAX })
}

/// An implementation that runs by itself, and how it is played.
pub(super) struct Live {
    implementation: Implementation,
    speed: Speed,
    /// Where everything is written that happens, if it is wanted.
    trace: Option<BufWriter<File>>,
}

impl Live {
    pub(super) fn meet(target: &Target, args: &PlayArgs) -> Result<Self, Failure> {
        let speed = Speed::new(args.speed).ok_or_else(|| {
            usage(
                format!("`--speed {}` is not possible", args.speed),
                format!("give a number from 1 to {SPEED_MAX}"),
            )
        })?;
        let implementation =
            Implementation::meet(target.role, launch(target)?).map_err(|error| match error {
                NodeError::Unsupported(_) => Failure::NothingRan(format!(
                    "error: {error}\n  hint: give a `--role` that it announces, of those that are \
                     played live\n"
                )),
                error => target.refused(&error),
            })?;
        let trace = match &args.trace {
            None => None,
            Some(path) => Some(BufWriter::new(File::create(path).map_err(|error| {
                usage(
                    format!("`{}` cannot be written: {error}", path.display()),
                    "name a file in a folder that exists and is writable",
                )
            })?)),
        };
        Ok(Self { implementation, speed, trace })
    }

    pub(super) fn hello(&self) -> &Hello {
        self.implementation.hello()
    }

    /// Plays one case after the other: they share the time of one computer.
    pub(super) fn play(
        mut self,
        cases: &[Case<'_>],
        tally: &mut Tally<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = Vec::new();
        for case in cases {
            let (id, seed, plan) = (case.id(), case.seed(), case.plan());
            let again = format!("conform --live {id} --seed {seed}");
            let played = guarded(seed.0, &again, || {
                self.implementation.play(&plan, case.is_drawn(), self.speed)
            })?;
            let outcome = Outcome::new(id, seed.0, case.is_drawn(), case.statements(), &played);
            if let (Some(file), Some(run)) = (&mut self.trace, &played.run) {
                writeln!(file, "{id} {seed}: {}\n{}", outcome.verdict.as_str(), run.trace)?;
            }
            let outcome = tally.take(outcome);
            progress.ended(&outcome, tally);
            outcomes.push(outcome);
            if tally.adapter_failures() > ADAPTER_FAILURES_MAX {
                break;
            }
        }
        tally.not_run(cases.len() - outcomes.len());
        if let Some(mut file) = self.trace {
            file.flush()?;
        }
        Ok(outcomes)
    }
}
