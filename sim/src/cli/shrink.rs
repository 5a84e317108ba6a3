//! `shrink`: makes a failing plan small.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::args::ShrinkArgs;
use super::report::{self, BAD, QUIET};
use super::{
    Failure, Request, capsule_text, carry_out, certain_request, guarded, save, usage, word,
};
use crate::capsule::Recorded;
use crate::check::{Symptom, Violation, judge, violations};
use crate::conform::profile::{Fit, Profile};
use crate::conform::suite::{SEATS_MAX, Verdicted, attach, play};
use crate::custom::command;
use crate::exit;
use crate::plan::{Plan, Protocol, Step, When};
use crate::real_time;
use crate::scenario::{action_text, duration_text, parse_duration};
use crate::shrink::{Ended, Improvement, Limits, look_for, shrink, symptoms};
use crate::world::{Attached, Run};

pub(super) fn run(
    args: &ShrinkArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    let time_ms = parse_duration(&args.time).ok_or_else(|| {
        let message = format!("`--for {}` is no duration", args.time);
        usage(message, "write how long it may take, as `30s` or `5m`")
    })?;
    let limits = Limits { time: Duration::from_millis(time_ms), runs: args.runs };
    let mut request = certain_request(&args.source)?;
    let foreign = Foreign::new(args)?;
    if let Some(foreign) = &foreign {
        request.plan = foreign.fit(&request.plan)?;
    }
    write!(out, "{}", report::heading(&request.plan, &request.title))?;
    out.flush()?;
    let carry_out = |request: &Request| match &foreign {
        Some(foreign) => foreign.carry_out(&request.plan),
        None => carry_out(request),
    };
    let run = carry_out(&request)?;
    let Some(violation) = the_violation(&run) else {
        return nothing_fails(&request, out);
    };
    if let Some(mutant) = &request.plan.mutant {
        blames_the_mutant(&request.plan, mutant)?;
    }
    let of = Symptom::of(&violation);
    let began = real_time::now();
    let mut watch = Watch { terminal: std::io::stderr().is_terminal(), err };
    let mut look = |plan: &Plan| match &foreign {
        Some(foreign) => foreign.symptoms(plan),
        None => look_for(plan, &of),
    };
    let shrunk = guarded(request.plan.seed, &request.again, || {
        shrink(&request.plan, &of, &mut look, limits, &mut |better| watch.say(better))
    })?;
    watch.finish();
    let seconds = began.elapsed().as_secs_f64();
    let small = Request {
        plan: shrunk.plan,
        title: request.title,
        again: format!("run --plan {}", word(&args.out)),
        recorded: None,
    };
    let run = carry_out(&small)?;
    let recorded = Recorded::new(&judge(&run), run.trace.hash());
    save(&args.out, &capsule_text(&small, &recorded, &args.out))?;
    let ended = match shrunk.ended {
        Ended::Minimal => "nothing more can be left out".to_owned(),
        Ended::Time => {
            format!("the time was over: more may go with a longer `--for` than {}", args.time)
        }
        Ended::Runs => {
            format!("the runs were used up: more may go with more `--runs` than {}", args.runs)
        }
    };
    let steps = &small.plan.steps;
    let before = request.plan.steps.len();
    let mut line = |label: &str, value: &str| write!(out, "{}", report::labelled(label, value));
    line("steps", &format!("{} of {before} remain; {ended}", steps.len()))?;
    line("world", &world_text(&small.plan))?;
    line("runs", &format!("{} in {seconds:.1} s", shrunk.runs))?;
    writeln!(out)?;
    let protocol = small.plan.options.protocol();
    let mut by_time: Vec<&Step> = steps.iter().collect();
    by_time.sort_by_key(|step| match &step.when {
        When::At(at) => *at,
        When::Mark { .. } => u64::MAX,
    });
    for step in by_time {
        writeln!(out, "  {}", step_text(step, protocol))?;
    }
    if let Some(violation) = the_violation(&run) {
        writeln!(out, "\n  {BAD}×{BAD:#} {}", violation.message)?;
        writeln!(out, "    {QUIET}{}{QUIET:#}", report::found_by(&violation))?;
    }
    let program = command();
    match &foreign {
        Some(foreign) => {
            let plan = word(&args.out);
            writeln!(out, "\n  run it       {program} {} --plan {plan}", foreign.again)?;
        }
        None => {
            writeln!(out, "\n  run it       {program} {}", small.again)?;
            writeln!(out, "  whole trace  {program} {}", small.with("show"))?;
        }
    }
    writeln!(out, "  freeze       {program} {}", small.with("freeze"))?;
    Ok(exit::OK)
}

/// A foreign implementation that fails.
struct Foreign {
    attached: Attached,
    /// The words after `cargo sim` that attach it.
    again: String,
}

impl Foreign {
    fn new(args: &ShrinkArgs) -> Result<Option<Self>, Failure> {
        let (Some(role), Some(adapter)) = (&args.role, &args.adapter) else { return Ok(None) };
        let (role, source, again) = super::conform::foreign(role, adapter)?;
        let attached = attach(role, &source, SEATS_MAX)
            .map_err(|error| Failure::Adapter(format!("error: {error}\n")))?;
        Ok(Some(Self { attached, again }))
    }

    /// The plan without what the implementation does not have.
    fn fit(&self, plan: &Plan) -> Result<Plan, Failure> {
        match Profile::new(self.attached.role(), self.attached.hello()).fit(plan, true) {
            Fit::Runs { plan, .. } => Ok(*plan),
            Fit::Unsupported(needs) => Err(usage(
                format!("the implementation does not have what this needs: {}", needs.join(", ")),
                "give another scenario, or another `--role`",
            )),
        }
    }

    fn carry_out(&self, plan: &Plan) -> Result<Run, Failure> {
        let played = play(&self.attached, plan, true);
        let problem = || format!("error: the run did not come to its end: {:?}\n", played.verdict);
        played.run.map(|run| *run).ok_or_else(|| Failure::Adapter(problem()))
    }

    /// What fails. A run that does not come to its end shows nothing, and neither does a plan that
    /// would have to be fitted first: what is kept is what was carried out.
    fn symptoms(&self, plan: &Plan) -> Vec<Symptom> {
        if self.fit(plan).ok().as_ref() != Some(plan) {
            return Vec::new();
        }
        match play(&self.attached, plan, true).verdict {
            Verdicted::Fail(found) | Verdicted::Warn(found) => {
                found.iter().map(Symptom::of).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The violation that a run is about: of a known-bad variant the one that has to be found, else
/// the first, safety before progress.
pub(super) fn the_violation(run: &Run) -> Option<Violation> {
    let (safety, liveness) = violations(&run.history, &run.plan);
    let mutant = run.plan.mutant.as_deref().and_then(crate::mutants::find);
    let all = || safety.iter().chain(&liveness);
    let wanted = mutant.and_then(|mutant| all().find(|found| found.checker == mutant.checker));
    wanted.or_else(|| all().next()).cloned()
}

/// Says that there is nothing to do.
pub(super) fn nothing_fails(request: &Request, out: &mut dyn Write) -> Result<u8, Failure> {
    writeln!(
        out,
        "  {BAD}nothing{BAD:#}    no invariant is violated in this run, so there is nothing to keep"
    )?;
    writeln!(out, "\n  look at it   {} {}", command(), request.again)?;
    Ok(exit::INCONCLUSIVE)
}

/// Makes sure that it is the known-bad variant that fails, and not the plan as such.
pub(super) fn blames_the_mutant(plan: &Plan, mutant: &str) -> Result<(), Failure> {
    let reference = Plan { mutant: None, ..plan.clone() };
    match symptoms(&reference).map(|symptoms| symptoms.into_iter().next()) {
        Ok(None) => Ok(()),
        Ok(Some(symptom)) => Err(usage(
            format!("the run fails without `{mutant}` as well: {}", symptom.checker),
            "leave `--mutant` out: this is a bug of the implementation as it is",
        )),
        Err(error) => Err(Failure::Run(format!("error: the simulation broke: {error}\n"))),
    }
}

/// Hosts, network and time of a plan, in a line.
fn world_text(plan: &Plan) -> String {
    let topology = &plan.topology;
    let counted = |count: u32, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let hosts = match plan.options.protocol() {
        Protocol::Events => format!(
            "{} of {}",
            counted(topology.clients, "client"),
            counted(topology.agents, "agent")
        ),
        Protocol::Tasks => counted(topology.agents, "agent"),
        Protocol::Custom(_) => counted(topology.clients, "client"),
        Protocol::Session => {
            format!(
                "{} of {}",
                counted(topology.clients, "client"),
                counted(topology.agents, "user")
            )
        }
    };
    let time = duration_text(plan.duration_ms);
    format!("{hosts}, {} ms apart, for {}", topology.latency_ms, time.trim_matches('"'))
}

/// A step as a line: when, and what, as it would stand in a scenario.
fn step_text(step: &Step, protocol: Protocol) -> String {
    let when = match &step.when {
        When::At(at) => format!("{:>4}.{:03}", at / 1_000, at % 1_000),
        When::Mark { mark, nth, after_ms } => {
            let later = match after_ms {
                0 => String::new(),
                _ => format!(" + {}", duration_text(*after_ms).trim_matches('"')),
            };
            format!("at the {} {mark}{later}", ordinal(*nth))
        }
    };
    format!("{when}  {}", action_text(&step.action, protocol))
}

fn ordinal(nth: u32) -> String {
    let ending = match (nth % 10, nth % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{nth}{ending}")
}

/// Shows how a search gets on, on a terminal.
struct Watch<'a> {
    terminal: bool,
    err: &'a mut dyn Write,
}

impl Watch<'_> {
    fn say(&mut self, better: Improvement<'_>) {
        if self.terminal {
            let steps = better.plan.steps.len();
            // Progress that nobody can see stops nothing.
            let _ = write!(
                self.err,
                "\r\x1b[2K  shrink  {steps} steps, {}, after {} runs",
                world_text(better.plan),
                better.runs
            );
            let _ = self.err.flush();
        }
    }

    fn finish(&mut self) {
        if self.terminal {
            let _ = write!(self.err, "\r\x1b[2K");
        }
    }
}
