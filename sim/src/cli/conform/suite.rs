//! `conform`: the scenarios against an implementation, and what is written of it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::attach::Target;
use super::select::{Selected, Selection};
use super::{case, report};
use crate::cli::args::PlayArgs;
use crate::cli::live::Live;
use crate::cli::progress::Meter;
use crate::cli::{Failure, diagnostic, save, saved, usage};
use crate::conform::Hello;
use crate::conform::expect::Expectations;
use crate::conform::outcome::{FORMAT, Line, Outcome, Start};
use crate::conform::report as render;
use crate::conform::runner::{Case, Progress, Suite, cases};
use crate::conform::suite::{SEATS_MAX, attach, protocol};
use crate::conform::summary::{Results, Tally};
use crate::plan::Plan;
use crate::seed::Seed;
use crate::sweep::cores;
use crate::world::Attached;

/// Where the seeds come from.
enum Seeds {
    /// Many follow from a base.
    From(Seed),
    /// One, for whoever looks at a case.
    One(Seed),
}

/// How many seeds of swarms are played if nothing is said, and on real sockets.
const SEEDS: u64 = 200;
const SEEDS_LIVE: u64 = 20;

/// How the implementation is reached.
enum Player {
    Lockstep(Attached),
    Live(Live),
}

impl Player {
    fn hello(&self) -> &Hello {
        match self {
            Self::Lockstep(attached) => attached.hello(),
            Self::Live(live) => live.hello(),
        }
    }
}

pub(super) fn run(
    args: &PlayArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    let target = Target::new(&args.attach)?;
    let expectations = match &args.expect {
        Some(path) => expectations(path)?,
        None => Expectations::none(),
    };
    let plan = match &args.plan {
        Some(path) => Some(of_role(&target, path)?),
        None => None,
    };
    let seeds = match &args.seed {
        Some(seed) => Seeds::One(seed.parse().map_err(|error| usage(error, "see `--seed`"))?),
        None => Seeds::From(args.base.parse().map_err(|error| usage(error, "see `--base`"))?),
    };
    let selection = Selection {
        role: target.role,
        words: &args.words,
        statements: &args.statement,
        folder: args.scenarios.as_deref(),
    };
    let Selected { known, scenarios } = selection.select()?;
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let cases: Vec<Case<'_>> = match (&plan, &seeds) {
        (Some(plan), _) => vec![Case::Plan(plan)],
        (None, Seeds::From(base)) => {
            let usual = if args.live { SEEDS_LIVE } else { SEEDS };
            cases(&scenarios, *base, args.seeds.unwrap_or(usual))
        }
        (None, Seeds::One(seed)) => {
            scenarios.iter().map(|scenario| Case::Scenario(scenario, *seed)).collect()
        }
    };
    if cases.is_empty() {
        return Err(Failure::NothingRan(format!(
            "error: nothing is selected for {}\n  hint: `gapless-sim scenarios` lists the scenarios; \
             swarms need `--seeds`\n",
            target.role
        )));
    }
    let looked_at = plan.is_some() || matches!(seeds, Seeds::One(_));
    let single = looked_at && cases.len() == 1;
    if !single && !args.live && (args.trace.is_some() || args.save_plan.is_some()) {
        let hint = "name one scenario and its seed: `conform … events/swarm --seed 7 --trace FILE`";
        return Err(usage("`--trace` and `--save-plan` are for a single case", hint));
    }
    let player = match args.live {
        true => Player::Live(Live::meet(&target, args)?),
        false => Player::Lockstep(
            attach(target.role, &target.source, SEATS_MAX)
                .map_err(|error| target.refused(&error))?,
        ),
    };
    let hello = player.hello().clone();
    let start = Start {
        format: FORMAT,
        suite: env!("CARGO_PKG_VERSION").to_owned(),
        role: target.role,
        implementation: hello.clone(),
        adapter: args.attach.adapter.clone(),
        mutant: args.attach.mutant.clone(),
        live: args.live.then_some(args.speed),
        base: match seeds {
            Seeds::From(seed) | Seeds::One(seed) => seed.to_string(),
        },
        cases: cases.len() as u64,
    };
    let mut lines = Lines::open(args.json.as_deref())?;
    lines.write(&Line::Start(Box::new(start.clone())));
    let suite = Suite {
        role: target.role,
        source: &target.source,
        hello: &hello,
        jobs: args.jobs.unwrap_or_else(cores).min(cases.len()),
        cases,
    };
    let mut tally = Tally::new(&expectations);
    let told = single && !args.live && !args.quiet;
    let outcomes = match player {
        Player::Lockstep(attached) if single => {
            case::play(&suite, attached, &target, args, &mut tally, &mut lines, out)?
        }
        player => {
            let mut watch = Watch {
                cases: suite.cases.len(),
                meter: Meter::new(args.quiet, err),
                lines: &mut lines,
                verbose: args.verbose.then_some(&mut *out),
                problem: None,
            };
            let outcomes = match player {
                Player::Lockstep(attached) => suite.play(attached, &mut tally, &mut watch),
                Player::Live(live) => live.play(&suite.cases, &mut tally, &mut watch)?,
            };
            watch.finish()?;
            outcomes
        }
    };
    let stale = tally.ledger().stale(&expectations, &hello.version, &known, !looked_at);
    let results = Results { start, outcomes, end: tally.end(stale) };
    lines.write(&Line::End(results.end.clone()));
    lines.finish()?;
    write!(out, "{}", report::text(&results, &expectations, &tally, told))?;
    for (path, text) in [
        (&args.junit, render::junit as fn(&Results) -> String),
        (&args.markdown, render::markdown),
        (&args.html, |results| render::html(std::slice::from_ref(results))),
    ] {
        if let Some(path) = path {
            save(path, &text(&results))?;
        }
    }
    Ok(results.end.exit)
}

fn expectations(path: &Path) -> Result<Expectations, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("the expectations `{}` cannot be read: {error}", path.display());
        usage(message, "name a TOML file with an `[[expect]]` for each known failure")
    })?;
    Expectations::parse(&path.display().to_string(), &text).map_err(diagnostic)
}

/// The plan of a file, if it is for the role.
fn of_role(target: &Target, path: &Path) -> Result<Plan, Failure> {
    let plan = saved(path)?.plan;
    match plan.options.protocol() == protocol(target.role) {
        true => Ok(plan),
        false => Err(usage(
            format!("`{}` is no plan for {}", path.display(), target.role),
            "give the `--role` for which it was made",
        )),
    }
}

/// The JSON lines, if they are wanted. An error is told at the end.
pub(super) struct Lines {
    file: Option<BufWriter<File>>,
    problem: Option<std::io::Error>,
}

impl Lines {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let file = match path {
            Some(path) => Some(BufWriter::new(File::create(path).map_err(|error| {
                usage(
                    format!("`{}` cannot be written: {error}", path.display()),
                    "name a file in a folder that exists and is writable",
                )
            })?)),
            None => None,
        };
        Ok(Self { file, problem: None })
    }

    pub(super) fn write(&mut self, line: &Line) {
        if let Some(file) = &mut self.file {
            let line = serde_json::to_string(line).expect("a line is always JSON");
            if let Err(error) = writeln!(file, "{line}") {
                self.problem.get_or_insert(error);
            }
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        if let Some(Err(error)) = self.file.as_mut().map(Write::flush) {
            self.problem.get_or_insert(error);
        }
        match self.problem {
            Some(error) => Err(usage(
                format!("the JSON lines cannot be written: {error}"),
                "give `--json` a file on a disk with space",
            )),
            None => Ok(()),
        }
    }
}

/// Shows how it gets on.
struct Watch<'a> {
    cases: usize,
    meter: Meter<'a>,
    lines: &'a mut Lines,
    verbose: Option<&'a mut dyn Write>,
    problem: Option<std::io::Error>,
}

impl Watch<'_> {
    fn say(&mut self, tally: &Tally<'_>) {
        let cases = self.cases;
        self.meter.say(|elapsed| {
            let played = tally.played();
            format!(
                "  conform  {played} of {cases} runs  {} failing  {:.0}/s",
                tally.failed(),
                played as f64 / elapsed.as_secs_f64()
            )
        });
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.meter.clear();
        self.problem.map_or(Ok(()), |error| Err(Failure::Output(error)))
    }
}

impl Progress for Watch<'_> {
    fn ended(&mut self, outcome: &Outcome, tally: &Tally<'_>) {
        self.lines.write(&Line::Run(Box::new(outcome.clone())));
        if let Some(out) = &mut self.verbose {
            self.meter.clear();
            if let Err(error) = write!(out, "{}", report::line(outcome)) {
                self.problem.get_or_insert(error);
            }
        }
        self.say(tally);
    }

    fn waited(&mut self, tally: &Tally<'_>) {
        self.say(tally);
    }
}
