//! The command `gapless-sim`.
//!
//! Output goes through two writers, so that a test can read it; colour is put in as escapes and
//! taken out by the writer where nobody wants it. A reader who closes the pipe changes no exit
//! code.

mod args;
mod conform;
mod freeze;
mod live;
mod localise;
mod meta;
mod mutants;
mod output;
mod page;
mod progress;
mod proxy;
mod report;
mod shrink;
mod statements;
mod storm;
mod sweep;
mod swept;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use clap::Parser;
use miette::Diagnostic;

use self::args::{Cli, Command, DiffArgs, RunArgs, ScenariosArgs, ShowArgs, Source};
use self::output::Output;
use crate::capsule::{self, Capsule, Recorded};
use crate::check::{Verdict, judge};
use crate::corpus::Corpus;
use crate::custom::{self, command};
use crate::exit;
use crate::plan::{FORMAT, Plan};
use crate::real_time;
use crate::scenario::{Library, draw, reference};
use crate::seed::Seed;
use crate::trace::Kind;
use crate::world::{self, Run, RunError};

/// Runs the command and returns its exit code (see [`exit`]).
pub fn main(
    args: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let (out, err) = (&mut Output::new(out), &mut Output::new(err));
    let args = args::with_default_command(args.into_iter().collect());
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let help = error.exit_code() == 0;
            let text = error.render().ansi().to_string();
            // Nobody to tell if this cannot be written.
            let _ = if help { write!(out, "{text}") } else { write!(err, "{text}") };
            return if help { exit::OK } else { exit::USAGE };
        }
    };
    let done = match cli.command {
        Command::Run(args) => run(&args, out, err),
        Command::Show(args) => show(&args, out),
        Command::Diff(args) => diff(&args, out),
        Command::Shrink(args) => shrink::run(&args, out, err),
        Command::Freeze(args) => freeze::run(&args, out),
        Command::Sweep(args) => sweep::run(&args, out, err),
        Command::Merge(args) => sweep::merge(&args, out),
        Command::Localise(args) => localise::run(&args, out),
        Command::Meta(args) => meta::run(&args, out),
        Command::Mutants(args) => mutants::run(&args, out),
        Command::Scenarios(args) => scenarios(&args, out, err),
        Command::Conform(args) => conform::run(&args, out, err),
        Command::Record(args) => conform::record(&args, out),
        Command::Adapter(args) => conform::adapter(&args),
        Command::Proxy(args) => proxy::run(&args, out),
        Command::Statements(args) => statements::run(&args, out, err),
        Command::Storm(args) => storm::run(&args, out),
    };
    let code = done.unwrap_or_else(|failure| match failure {
        Failure::Usage(problem) => {
            let _ = write!(err, "{problem}");
            exit::USAGE
        }
        Failure::Run(problem) => {
            let _ = write!(err, "{problem}");
            exit::INTERNAL
        }
        Failure::Adapter(problem) => {
            let _ = write!(err, "{problem}");
            exit::ADAPTER
        }
        Failure::NothingRan(problem) => {
            let _ = write!(err, "{problem}");
            exit::NOTHING_RAN
        }
        Failure::Output(error) => {
            let _ = writeln!(err, "error: the output cannot be written: {error}");
            exit::INTERNAL
        }
    });
    let _ = out.flush();
    code
}

/// Why a command ended early.
enum Failure {
    /// What was asked for makes no sense; the text names the remedy.
    Usage(String),
    /// The simulation broke.
    Run(String),
    /// An adapter cannot be made use of.
    Adapter(String),
    /// There is nothing to do; the text says why.
    NothingRan(String),
    /// Nobody takes the output.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn usage(message: impl std::fmt::Display, hint: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("error: {message}\n  hint: {hint}\n"))
}

fn diagnostic(error: impl Diagnostic + Send + Sync + 'static) -> Failure {
    Failure::Usage(format!("{:?}", miette::Report::new(error)))
}

fn library(folder: Option<&Path>) -> Result<Library, Failure> {
    match folder {
        Some(folder) => Library::from_dir(folder).map_err(diagnostic),
        None => match custom::program() {
            Some(own) => Library::from_dir(Path::new(own.scenarios)).map_err(diagnostic),
            None => Ok(Library::embedded()),
        },
    }
}

/// What is to be run, how it is called, and how it is asked for again.
struct Request {
    plan: Plan,
    title: String,
    /// The words after `cargo sim` that repeat it.
    again: String,
    /// What came of it once, if it is from a capsule.
    recorded: Option<Capsule>,
}

impl Request {
    /// The words after `cargo sim` with which another command takes it.
    fn with(&self, command: &str) -> String {
        format!("{command} {}", self.again.strip_prefix("run ").unwrap_or(&self.again))
    }
}

/// What is asked for by a command that is about one run, and not about any.
fn certain_request(source: &Source) -> Result<Request, Failure> {
    match source.is_certain() {
        true => request(source),
        false => {
            let hint = "`gapless-sim run` prints the seed of a run; take that one";
            Err(usage("no seed is given", hint))
        }
    }
}

fn request(source: &Source) -> Result<Request, Failure> {
    if let Some(path) = &source.plan {
        return saved(path);
    }
    let library = library(source.scenarios.as_deref())?;
    let (id, seed) = source.resolve(&library)?;
    let mut request = drawn(&library, &id, seed, source.scenarios.as_deref())?;
    if let Some(id) = &source.mutant {
        let mutant = mutants::named(id)?;
        request.plan.mutant = Some(mutant.id.to_owned());
        request.again = format!("{} --mutant {id}", request.again);
    }
    Ok(request)
}

/// The plan in a file, alone or in a capsule.
fn saved(path: &Path) -> Result<Request, Failure> {
    let named = || format!("`{}`", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| {
        usage(
            format!("the plan {} cannot be read: {error}", named()),
            "make one with `--save-plan FILE`",
        )
    })?;
    let no_plan = |error: serde_json::Error| {
        usage(format!("{} is no plan: {error}", named()), "make one with `--save-plan FILE`")
    };
    let versions: Versions = serde_json::from_str(&text).map_err(no_plan)?;
    let other_version = |what: &str, has: u32, known: u32| {
        let message = format!("{} has {what} format {has}, this program knows {known}", named());
        usage(message, "draw it again from its seed, or use the program that wrote it")
    };
    let recorded: Option<Capsule> = match versions.capsule {
        Some(capsule::FORMAT) => Some(serde_json::from_str(&text).map_err(no_plan)?),
        Some(other) => return Err(other_version("capsule", other, capsule::FORMAT)),
        None => None,
    };
    let plan: Plan = match &recorded {
        Some(capsule) => capsule.plan.clone(),
        None => serde_json::from_str(&text).map_err(no_plan)?,
    };
    if plan.format != FORMAT {
        return Err(other_version("plan", plan.format, FORMAT));
    }
    plan.check().map_err(|problem| {
        usage(
            format!("{} cannot be carried out: {problem}", named()),
            "correct it, or make one with `--save-plan FILE`",
        )
    })?;
    let again = format!("run --plan {}", word(path));
    Ok(Request { plan, title: "a saved plan".to_owned(), again, recorded })
}

/// What says how a file is to be read.
#[derive(serde::Deserialize)]
struct Versions {
    /// The version of a capsule; a plan has none.
    capsule: Option<u32>,
}

/// What a scenario and a seed give.
fn drawn(
    library: &Library,
    id: &str,
    seed: Seed,
    folder: Option<&Path>,
) -> Result<Request, Failure> {
    let scenario = library.get(id).map_err(diagnostic)?;
    let mut again = format!("{id} {seed}");
    if let Some(folder) = folder {
        again = format!("{again} --scenarios {}", word(folder));
    }
    let plan = guarded(seed.0, &again, || draw(&scenario, seed))?;
    Ok(Request { plan, title: scenario.title, again, recorded: None })
}

/// A path as a word for a shell.
fn word(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-+=:@".contains(c);
    match !path.is_empty() && path.chars().all(plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

fn carry_out(request: &Request) -> Result<Run, Failure> {
    let (seed, again) = (request.plan.seed, request.again.as_str());
    let run = guarded(seed, again, || world::run(&request.plan))?;
    run.map_err(|error| broke(seed, again, &error))
}

/// Makes a panic a failure that says how to have it again.
fn guarded<T>(seed: u64, again: &str, what: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        let problem = format!("panic: {}", said.unwrap_or("without a message"));
        broke(seed, again, &RunError { problem, node: None, last: Vec::new() })
    })
}

fn broke(seed: u64, again: &str, error: &RunError) -> Failure {
    let mut text = format!("error: the simulation broke: {}\n", error.problem);
    if !error.last.is_empty() {
        text += "  ╭─ the last things that happened\n";
        for line in &error.last {
            text += &format!("  │ {line}\n");
        }
        text += "  ╰─\n";
    }
    let program = command();
    Failure::Run(text + &format!("  seed       {seed}\n  reproduce  {program} {again}\n"))
}

fn save(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| {
        usage(
            format!("`{}` cannot be written: {error}", path.display()),
            "name a file in a folder that exists and is writable",
        )
    })
}

fn plan_text(plan: &Plan) -> String {
    serde_json::to_string_pretty(plan).expect("a plan is always JSON") + "\n"
}

/// The capsule of a run, for a file.
fn capsule_text(request: &Request, recorded: &Recorded, path: &Path) -> String {
    let (path, program) = (word(path), command());
    let mut commands = BTreeMap::from([
        ("run".to_owned(), format!("{program} run --plan {path}")),
        ("show".to_owned(), format!("{program} show --plan {path}")),
    ]);
    if !recorded.findings.is_empty() {
        commands.insert("shrink".to_owned(), format!("{program} shrink --plan {path}"));
        commands.insert("freeze".to_owned(), format!("{program} freeze --plan {path}"));
    }
    let capsule = Capsule {
        capsule: capsule::FORMAT,
        commit: capsule::commit(),
        recorded: recorded.clone(),
        commands,
        plan: request.plan.clone(),
    };
    serde_json::to_string_pretty(&capsule).expect("a capsule is always JSON") + "\n"
}

fn run(args: &RunArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Failure> {
    let request = request(&args.source)?;
    if let Some(path) = &args.save_plan {
        save(path, &plan_text(&request.plan))?;
    }
    let heading = report::heading(&request.plan, &request.title);
    if !args.json && !args.quiet {
        // Before the run: whoever ends one that hangs knows its seed.
        write!(out, "{heading}")?;
        out.flush()?;
    }
    let began = real_time::now();
    let run = carry_out(&request)?;
    let real = began.elapsed();
    if let Some(path) = &args.trace {
        save(path, &run.trace.to_string())?;
    }
    let verdict = guarded(request.plan.seed, &request.again, || judge(&run))?;
    let recorded = Recorded::new(&verdict, run.trace.hash());
    if let Some(path) = args.capsule.as_ref().filter(|_| verdict != Verdict::Pass) {
        save(path, &capsule_text(&request, &recorded, path))?;
    }
    let report = report::Report {
        run: &run,
        verdict: &verdict,
        again: &request.again,
        once: request.recorded.as_ref(),
        real,
    };
    if let Some(path) = &args.report {
        page::write(path, &request, &run, &verdict, None)?;
    }
    match (args.json, args.quiet) {
        (true, _) => writeln!(out, "{}", report.json())?,
        (false, true) if verdict == Verdict::Pass => {}
        (false, true) => write!(out, "{heading}{}", report.text())?,
        (false, false) => write!(out, "{}", report.text())?,
    }
    out.flush()?;
    err.flush()?;
    Ok(match verdict {
        Verdict::Pass => exit::OK,
        Verdict::Violation(_) => exit::VIOLATION,
        Verdict::Liveness(_) => exit::LIVENESS,
        Verdict::Inconclusive(_) => exit::INCONCLUSIVE,
    })
}

fn show(args: &ShowArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let request = certain_request(&args.source)?;
    let run = carry_out(&request)?;
    if let Some(path) = &args.report {
        let verdict = guarded(request.plan.seed, &request.again, || judge(&run))?;
        page::write(path, &request, &run, &verdict, None)?;
        return Ok(exit::OK);
    }
    if let Some(host) = &args.only
        && !run.trace.records.iter().any(|record| record.host == *host)
    {
        let hosts: std::collections::BTreeSet<&str> =
            run.trace.records.iter().map(|record| record.host).collect();
        let hosts: Vec<_> = hosts.into_iter().collect();
        return Err(usage(
            format!("nothing happened on a host `{host}`"),
            format!("hosts are {}", hosts.join(", ")),
        ));
    }
    for record in &run.trace.records {
        let wanted =
            args.only.as_ref().is_none_or(|host| *host == record.host || record.host == "world");
        if wanted && !(args.no_marks && record.kind == Kind::Mark) {
            writeln!(out, "{record}")?;
        }
    }
    writeln!(out, "hash {}", run.trace.hash())?;
    Ok(exit::OK)
}

fn diff(args: &DiffArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let library = library(args.scenarios.as_deref())?;
    let trace = |request: &Request| -> Result<Vec<String>, Failure> {
        Ok(carry_out(request)?.trace.to_string().lines().map(str::to_owned).collect())
    };
    let read = |side: &str| -> Result<Vec<String>, Failure> {
        if let Ok(seed) = side.parse::<Seed>() {
            let folder = args.scenarios.as_deref();
            return trace(&drawn(&library, &args.scenario, seed, folder)?);
        }
        let text = std::fs::read_to_string(side).map_err(|error| {
            usage(
                format!("`{side}` is no seed, and as a file it cannot be read: {error}"),
                "give two seeds, or two files written by `--trace FILE` or `--save-plan FILE`",
            )
        })?;
        // No line of a trace begins like that.
        if text.starts_with('{') {
            return trace(&saved(side.as_ref())?);
        }
        Ok(text.lines().map(str::to_owned).collect())
    };
    let (left, right) = (read(&args.left)?, read(&args.right)?);
    let same = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
    if same == left.len() && same == right.len() {
        writeln!(out, "the same: {same} lines")?;
        return Ok(exit::OK);
    }
    writeln!(out, "the same for {same} lines, then different:")?;
    for line in &left[same.saturating_sub(5)..same] {
        writeln!(out, "    {line}")?;
    }
    for (sign, lines) in [('-', &left), ('+', &right)] {
        for line in lines.iter().skip(same).take(5) {
            writeln!(out, "  {sign} {line}")?;
        }
        if lines.len() <= same {
            writeln!(out, "  {sign} (ends here)")?;
        }
    }
    Ok(exit::NONDETERMINISM)
}

fn scenarios(
    args: &ScenariosArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    if args.format {
        write!(out, "{}", reference())?;
        return Ok(exit::OK);
    }
    let library = library(args.scenarios.as_deref())?;
    let mut broken = 0;
    for id in library.ids() {
        let scenario = match library.get(id) {
            Ok(scenario) => scenario,
            Err(error) => {
                broken += 1;
                writeln!(err, "{:?}", miette::Report::new(error))?;
                continue;
            }
        };
        if args.json {
            let line = serde_json::json!({
                "id": scenario.id, "title": scenario.title, "statements": scenario.statements,
                "reference": scenario.reference, "reaches": scenario.reaches,
                "swarm": scenario.swarm.is_some(),
            });
            writeln!(out, "{line}")?;
        } else if !args.check {
            writeln!(out, "{}", report::scenario(&scenario))?;
        }
    }
    match (library.ids().len(), broken) {
        (0, _) => {
            writeln!(
                err,
                "error: there are no scenarios here\n  hint: give the folder that holds `events/`"
            )?;
            Ok(exit::NOTHING_RAN)
        }
        (count, 0) if args.check => {
            writeln!(out, "ok: {count} scenarios can be used")?;
            // What is known is played by the scenarios of the project.
            match args.scenarios {
                None => known_faults(&library, out, err),
                Some(_) => Ok(exit::OK),
            }
        }
        (_, 0) => Ok(exit::OK),
        (count, broken) => {
            writeln!(err, "error: {broken} of {count} scenarios cannot be used")?;
            Ok(exit::USAGE)
        }
    }
}

/// Says whether every known fault is played by a scenario or excused.
fn known_faults(
    library: &Library,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    let corpus = Corpus::embedded();
    let problems = corpus.problems(library).map_err(diagnostic)?;
    if problems.is_empty() {
        let (count, excused) = (corpus.len(), corpus.excused());
        let played = count - excused;
        writeln!(
            out,
            "ok: {count} known faults: {played} have a scenario, {excused} a reason why none plays them"
        )?;
        return Ok(exit::OK);
    }
    for problem in &problems {
        writeln!(err, "  × {problem}")?;
    }
    writeln!(
        err,
        "error: known faults are unaccounted for\n  hint: docs/corpus.txt lists their ids, \
         docs/faults.md has a row for each, and scenarios name them in `reference`"
    )?;
    Ok(exit::VIOLATION)
}

#[cfg(test)]
mod tests;
