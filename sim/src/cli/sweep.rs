//! `sweep` and `merge`: many runs, one verdict.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, LineWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{MergeArgs, SweepArgs};
use super::page::commit;
use super::progress::Meter;
use super::{Failure, diagnostic, library, save, usage, word};
use crate::custom;
use crate::exit;
use crate::report::{SweepPage, sweep_page};
use crate::scenario::{Scenario, parse_duration};
use crate::sweep::{
    Ended, Outcome, Progress, Summary, Sweep, Tally, annotations, cores, junit, sweep,
};

/// How many runs there are if nothing else ends a sweep.
const SEEDS: u64 = 200;

pub(super) fn run(
    args: &SweepArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    let time = args.time.as_deref().map(time).transpose()?;
    let is_endless = time.is_none() && args.until_plateau.is_none();
    let plan = Sweep {
        scenarios: select(args)?,
        base: args
            .base
            .parse()
            .map_err(|error| usage(error, "give `--base` a seed or a commit"))?,
        seeds: args.seeds.or(is_endless.then_some(SEEDS)),
        time,
        plateau: args.until_plateau,
        jobs: args.jobs.unwrap_or_else(cores),
        shard: shard(&args.shard)?,
        mutant: match &args.mutant {
            Some(id) => Some(super::mutants::named(id)?.id),
            None => None,
        },
    };
    let mut before = Tally::new(&plan);
    let lines = match &args.jsonl {
        Some(path) => Some(open(path, &plan, args.resume, &mut before)?),
        None => None,
    };
    let first = before.summary.runs;
    let mut watch = Watch {
        seeds: plan.seeds.map(|seeds| seeds.saturating_sub(plan.shard.0).div_ceil(plan.shard.1)),
        first,
        meter: Meter::new(args.quiet, err),
        lines,
        problem: None,
    };
    let (Tally { summary, since_news }, ended) = sweep(&plan, before, &mut watch);
    watch.finish()?;
    let real = watch.meter.elapsed();
    let base = format!("base {}", plan.base);
    let mut again = String::new();
    if let Some(id) = &args.mutant {
        again += &format!(" --mutant {id}");
    }
    if let Some(folder) = &args.scenarios {
        again += &format!(" --scenarios {}", word(folder));
    }
    let speed = Speed { real, jobs: plan.jobs };
    let result = Judged {
        summary: &summary,
        origin: &base,
        speed: Some(speed),
        reach_seeds: args.reach_seeds,
        again: &again,
        end: match ended {
            Ended::Complete => None,
            Ended::Plateau => {
                Some(format!("no scenario reached anything new in the last {since_news} runs"))
            }
            Ended::Time => Some(format!("{} are over", args.time.as_deref().unwrap_or_default())),
        },
        first,
    };
    result.tell(out)?;
    let files = Files { report: &args.report, junit: &args.junit, annotations: args.annotations };
    result.save(&files, commit().as_deref(), out)?;
    Ok(summary.exit_code(args.reach_seeds))
}

pub(super) fn merge(args: &MergeArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let library = library(args.scenarios.as_deref())?;
    // Twice over the files instead of all runs in memory. What is kept of a run is where it was.
    let mut seen: BTreeMap<String, BTreeMap<u64, (usize, usize)>> = BTreeMap::new();
    for (file, path) in args.files.iter().enumerate() {
        read(path, &mut |line, outcome| {
            let seeds = seen.entry(outcome.scenario.clone()).or_default();
            let Some((other, at)) = seeds.insert(outcome.seed, (file, line)) else { return Ok(()) };
            Err(format!(
                "{} {} is also in `{}`, line {at}",
                outcome.scenario,
                outcome.seed,
                args.files[other].display()
            ))
        })?;
    }
    let scenarios: Result<Vec<Scenario>, _> = seen.keys().map(|id| library.get(id)).collect();
    drop(seen);
    let mut summary = Summary::new(&scenarios.map_err(diagnostic)?);
    for path in &args.files {
        read(path, &mut |_, outcome| {
            summary.add(&outcome);
            Ok(())
        })?;
    }
    let origin = match args.files.len() {
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    let result = Judged {
        summary: &summary,
        origin: &origin,
        speed: None,
        reach_seeds: args.reach_seeds,
        again: "",
        end: None,
        first: 0,
    };
    result.tell(out)?;
    let files = Files { report: &args.report, junit: &args.junit, annotations: args.annotations };
    result.save(&files, None, out)?;
    Ok(summary.exit_code(args.reach_seeds))
}

/// Reads runs, with the numbers of their lines.
pub(super) fn read(
    path: &Path,
    take: &mut dyn FnMut(usize, Outcome) -> Result<(), String>,
) -> Result<(), Failure> {
    let hint = "give files written by `sweep --jsonl FILE`, each once";
    let file = File::open(path)
        .map_err(|error| usage(format!("`{}` cannot be read: {error}", path.display()), hint))?;
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let wrong = |problem: String| {
            usage(format!("`{}`, line {number}: {problem}", path.display()), hint)
        };
        let line = line.map_err(|error| wrong(error.to_string()))?;
        let outcome = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
        take(number, outcome).map_err(wrong)?;
    }
    Ok(())
}

/// Opens the file for the lines of the runs. To go on, it adds the runs that are in it, which have
/// to be the first of this sweep; a line that an interruption cut off is taken away.
fn open(
    path: &Path,
    plan: &Sweep,
    resume: bool,
    before: &mut Tally,
) -> Result<LineWriter<File>, Failure> {
    let unwritable = |error: std::io::Error| {
        usage(
            format!("`{}` cannot be written: {error}", path.display()),
            "name a file in a folder that exists and is writable",
        )
    };
    if !resume || !path.exists() {
        return Ok(LineWriter::new(File::create(path).map_err(unwritable)?));
    }
    let file = File::options().read(true).append(true).open(path).map_err(unwritable)?;
    let (mut lines, mut line, mut whole) = (BufReader::new(&file), String::new(), 0);
    loop {
        line.clear();
        let bytes = lines.read_line(&mut line).map_err(unwritable)?;
        if !line.ends_with('\n') {
            break;
        }
        let wrong = |problem: &str| {
            usage(
                format!("`{}`, line {}: {problem}", path.display(), before.summary.runs + 1),
                "give the same scenarios, `--base`, `--shard` and `--mutant` as before, or another file",
            )
        };
        let outcome: Outcome =
            serde_json::from_str(&line).map_err(|error| wrong(&error.to_string()))?;
        match plan.nth(before.summary.runs) {
            None => return Err(wrong("the sweep has fewer runs")),
            Some((scenario, seed)) if scenario.id != outcome.scenario || seed.0 != outcome.seed => {
                return Err(wrong("it is a run of another sweep"));
            }
            Some(_) => before.add(&outcome),
        }
        whole += bytes as u64;
    }
    file.set_len(whole).map_err(unwritable)?;
    Ok(LineWriter::new(file))
}

fn time(text: &str) -> Result<Duration, Failure> {
    let time_ms = parse_duration(text).filter(|time| *time > 0);
    time_ms.map(Duration::from_millis).ok_or_else(|| {
        usage(
            format!("`--time {text}` is no time"),
            "write how long it may take, as `90s` or `10m`",
        )
    })
}

/// The scenarios that the words name: ids, or patterns with `*`. Without words, all swarms.
fn select(args: &SweepArgs) -> Result<Vec<Scenario>, Failure> {
    let library = library(args.scenarios.as_deref())?;
    let all: Result<Vec<Scenario>, _> =
        library.ids().into_iter().map(|id| library.get(id)).collect();
    let all = all.map_err(diagnostic)?;
    if args.words.is_empty() {
        return Ok(all.into_iter().filter(|scenario| scenario.swarm.is_some()).collect());
    }
    for word in &args.words {
        if !all.iter().any(|scenario| matches(word, &scenario.id)) {
            return Err(match library.get(word) {
                Err(error) if !word.contains('*') => diagnostic(error),
                _ => usage(
                    format!("no scenario fits `{word}`"),
                    "`gapless-sim scenarios` lists the scenarios; `*` stands for anything",
                ),
            });
        }
    }
    let wanted = |scenario: &Scenario| args.words.iter().any(|word| matches(word, &scenario.id));
    Ok(all.into_iter().filter(wanted).collect())
}

/// Whether a pattern with `*` fits.
fn matches(pattern: &str, id: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == id,
        Some((before, after)) => id.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at))
                .any(|at| matches(after, &rest[at..]))
        }),
    }
}

/// `2/4` is the second of four parts.
fn shard(text: &str) -> Result<(u64, u64), Failure> {
    let parts = text.split_once('/').and_then(|(part, of)| {
        let (part, of) = (part.parse::<u64>().ok()?, of.parse::<u64>().ok()?);
        (1..=of).contains(&part).then(|| (part - 1, of))
    });
    parts
        .ok_or_else(|| usage(format!("`{text}` is no shard"), "write `2/4` for the second of four"))
}

/// Shows a sweep while it runs.
struct Watch<'a> {
    seeds: Option<u64>,
    /// How many runs an earlier process did.
    first: u64,
    meter: Meter<'a>,
    /// A line is in the file when its run has been counted.
    lines: Option<LineWriter<File>>,
    problem: Option<std::io::Error>,
}

impl Watch<'_> {
    fn say(&mut self, tally: &Tally) {
        let Tally { summary, since_news } = tally;
        let (seeds, first) = (self.seeds, self.first);
        self.meter.say(|elapsed| {
            let of = seeds.map_or_else(String::new, |seeds| format!(" of {seeds}"));
            format!(
                "  sweep  {}{of} seeds  {} failing  {since_news} since something new  {:.0}/s",
                summary.runs,
                summary.failed(),
                (summary.runs - first) as f64 / elapsed.as_secs_f64()
            )
        });
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.meter.clear();
        if let Some(lines) = &mut self.lines
            && let Err(error) = lines.flush()
        {
            self.problem.get_or_insert(error);
        }
        match self.problem.take() {
            Some(error) => Err(usage(
                format!("the lines of the runs cannot be written: {error}"),
                "give `--jsonl` a file on a disk with space",
            )),
            None => Ok(()),
        }
    }
}

impl Progress for Watch<'_> {
    fn ended(&mut self, outcome: &Outcome, tally: &Tally) {
        if let Some(lines) = &mut self.lines {
            let line = serde_json::to_string(outcome).expect("an outcome is always JSON");
            if let Err(error) = writeln!(lines, "{line}") {
                self.problem.get_or_insert(error);
            }
        }
        self.say(tally);
    }

    fn waited(&mut self, tally: &Tally) {
        self.say(tally);
    }
}

/// How fast it went.
struct Speed {
    real: Duration,
    jobs: usize,
}

/// Runs, and how they are judged.
struct Judged<'a> {
    summary: &'a Summary,
    /// Where they are from.
    origin: &'a str,
    speed: Option<Speed>,
    reach_seeds: u64,
    /// What is added to the commands.
    again: &'a str,
    /// Why there are no more.
    end: Option<String>,
    /// How many an earlier process did.
    first: u64,
}

/// What is written besides.
struct Files<'a> {
    report: &'a Option<PathBuf>,
    junit: &'a Option<PathBuf>,
    annotations: bool,
}

impl Judged<'_> {
    /// The report: what ran, what failed and how to see it, what was reached.
    fn tell(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let (summary, reach_seeds) = (self.summary, self.reach_seeds);
        writeln!(
            out,
            "  runs       {}, {} passed, {} failed; {}",
            summary.runs,
            summary.passed,
            summary.failed(),
            self.origin
        )?;
        if self.first > 0 {
            writeln!(out, "  resumed    after {} runs", self.first)?;
        }
        if let Some(end) = &self.end {
            writeln!(out, "  ended      {end}")?;
        }
        let faults: Vec<_> =
            summary.faults.iter().map(|(kind, count)| format!("{kind} ×{count}")).collect();
        writeln!(out, "  faults     {}", faults.join(", "))?;
        if summary.delivered > 0 {
            writeln!(out, "  delivered  {} events", summary.delivered)?;
        }
        if let Some(Speed { real, jobs }) = self.speed {
            let rate = (summary.runs - self.first) as f64 / real.as_secs_f64().max(0.001);
            writeln!(
                out,
                "  time       {:.1} s on {jobs} threads, {rate:.1} runs a second",
                real.as_secs_f64()
            )?;
        }
        for group in summary.groups() {
            writeln!(out, "\n  × {}; the shortest:", group.title())?;
            writeln!(out, "    {}", group.sentence())?;
            writeln!(out, "    reproduce  {}", group.again(self.again))?;
        }
        for reach in summary.reach() {
            let missing = reach.marks.iter().filter(|(_, runs)| *runs == 0).count();
            let judged = match (reach.runs >= reach_seeds, missing) {
                (false, _) => format!("not judged below {reach_seeds} runs"),
                (true, 0) => "complete".to_owned(),
                (true, missing) => format!("{missing} never reached"),
            };
            writeln!(out, "\n  reachability of {}, {} runs: {judged}", reach.scenario, reach.runs)?;
            for (mark, runs) in &reach.marks {
                let sign = if *runs > 0 { '✓' } else { '×' };
                writeln!(out, "    {sign} {mark:<44} {runs:>7}")?;
            }
        }
        if summary.exit_code(reach_seeds) == exit::OK {
            let own = custom::registered().first().map(|protocol| protocol.promise());
            let promise = own.unwrap_or("nothing lost, duplicated or reordered");
            writeln!(out, "\n  ok         {promise}")?;
        }
        Ok(())
    }

    fn save(
        &self,
        files: &Files<'_>,
        commit: Option<&str>,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let Self { summary, origin, reach_seeds, again, .. } = *self;
        if let Some(path) = files.report {
            // The rate of a part would be shown as that of the whole.
            let speed = self.speed.as_ref().filter(|_| self.first == 0);
            let real = speed.map(|speed| (speed.real, speed.jobs));
            let page = SweepPage { summary, origin, real, reach_seeds, again, commit };
            save(path, &sweep_page(&page))?;
        }
        if let Some(path) = files.junit {
            save(path, &junit(summary, origin, reach_seeds, again))?;
        }
        if files.annotations {
            write!(out, "{}", annotations(summary, reach_seeds, again))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("events/*", "events/swarm"));
        assert!(matches("*overflow*", "events/ring-overflow-501"));
        assert!(matches("events/swarm", "events/swarm"));
        assert!(!matches("events/s", "events/swarm"));
        assert!(!matches("session/*", "events/swarm"));
    }
}
