//! `sweep` and `merge`: many runs, one verdict.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use super::args::{MergeArgs, SweepArgs};
use super::page::commit;
use super::progress::Meter;
use super::{Failure, diagnostic, library, save, usage, word};
use crate::exit;
use crate::report::{SweepPage, sweep_page};
use crate::scenario::Scenario;
use crate::sweep::{Outcome, Progress, Summary, Sweep, Word, cores, sweep};

pub(super) fn run(
    args: &SweepArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    let scenarios = select(args)?;
    let sweep_plan = Sweep {
        scenarios,
        base: args
            .base
            .parse()
            .map_err(|error| usage(error, "give `--base` a seed or a commit"))?,
        seeds: args.seeds,
        jobs: args.jobs.unwrap_or_else(cores),
        shard: shard(&args.shard)?,
        mutant: match &args.mutant {
            Some(id) => Some(super::mutants::named(id)?.id),
            None => None,
        },
    };
    let lines = match &args.jsonl {
        Some(path) => Some(BufWriter::new(std::fs::File::create(path).map_err(|error| {
            usage(
                format!("`{}` cannot be written: {error}", path.display()),
                "name a file in a folder that exists and is writable",
            )
        })?)),
        None => None,
    };
    let mut watch = Watch {
        seeds: args.seeds.div_ceil(sweep_plan.shard.1),
        meter: Meter::new(args.quiet, err),
        lines,
        problem: None,
    };
    let summary = sweep(&sweep_plan, &mut watch);
    watch.finish()?;
    let real = watch.meter.elapsed();
    let base = format!("base {}", sweep_plan.base);
    let real = Some((real, sweep_plan.jobs));
    tell(&summary, &base, real, args.reach_seeds, out)?;
    if let Some(path) = &args.report {
        let mut again = String::new();
        if let Some(id) = &args.mutant {
            again += &format!(" --mutant {id}");
        }
        if let Some(folder) = &args.scenarios {
            again += &format!(" --scenarios {}", word(folder));
        }
        let commit = commit();
        let page = SweepPage {
            summary: &summary,
            origin: &base,
            real,
            reach_seeds: args.reach_seeds,
            again: &again,
            commit: commit.as_deref(),
        };
        save(path, &sweep_page(&page))?;
    }
    Ok(summary.exit_code(args.reach_seeds))
}

pub(super) fn merge(args: &MergeArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let library = library(args.scenarios.as_deref())?;
    let mut outcomes = Vec::new();
    for path in &args.files {
        read(path, &mut |outcome| outcomes.push(outcome))?;
    }
    let mut ids: Vec<&str> = outcomes.iter().map(|outcome| outcome.scenario.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let scenarios: Result<Vec<Scenario>, _> = ids.iter().map(|id| library.get(id)).collect();
    let mut summary = Summary::new(&scenarios.map_err(diagnostic)?);
    outcomes.iter().for_each(|outcome| summary.add(outcome));
    let origin = format!("{} files", args.files.len());
    tell(&summary, &origin, None, args.reach_seeds, out)?;
    if let Some(path) = &args.report {
        let page = SweepPage {
            summary: &summary,
            origin: &origin,
            real: None,
            reach_seeds: args.reach_seeds,
            again: "",
            commit: None,
        };
        save(path, &sweep_page(&page))?;
    }
    Ok(summary.exit_code(args.reach_seeds))
}

fn read(path: &Path, take: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    let hint = "give files written by `sweep --jsonl FILE`";
    let file = std::fs::File::open(path)
        .map_err(|error| usage(format!("`{}` cannot be read: {error}", path.display()), hint))?;
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let wrong = |problem: String| {
            usage(format!("`{}`, line {}: {problem}", path.display(), number + 1), hint)
        };
        let line = line.map_err(|error| wrong(error.to_string()))?;
        take(serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?);
    }
    Ok(())
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
    seeds: u64,
    meter: Meter<'a>,
    lines: Option<BufWriter<std::fs::File>>,
    problem: Option<std::io::Error>,
}

impl Watch<'_> {
    fn say(&mut self, summary: &Summary) {
        let seeds = self.seeds;
        self.meter.say(|elapsed| {
            format!(
                "  sweep  {} of {seeds} seeds  {} failing  {:.0}/s",
                summary.runs,
                summary.failed(),
                summary.runs as f64 / elapsed.as_secs_f64()
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
    fn ended(&mut self, outcome: &Outcome, summary: &Summary) {
        if let Some(lines) = &mut self.lines {
            let line = serde_json::to_string(outcome).expect("an outcome is always JSON");
            if let Err(error) = writeln!(lines, "{line}") {
                self.problem.get_or_insert(error);
            }
        }
        self.say(summary);
    }

    fn waited(&mut self, summary: &Summary) {
        self.say(summary);
    }
}

/// The report: what ran, what failed and how to see it, what was reached.
fn tell(
    summary: &Summary,
    origin: &str,
    real: Option<(Duration, usize)>,
    reach_seeds: u64,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    writeln!(
        out,
        "  runs       {}, {} passed, {} failed; {origin}",
        summary.runs,
        summary.passed,
        summary.failed()
    )?;
    let faults: Vec<_> =
        summary.faults.iter().map(|(kind, count)| format!("{kind} ×{count}")).collect();
    writeln!(out, "  faults     {}", faults.join(", "))?;
    if summary.delivered > 0 {
        writeln!(out, "  delivered  {} events", summary.delivered)?;
    }
    if let Some((real, jobs)) = real {
        let rate = summary.runs as f64 / real.as_secs_f64().max(0.001);
        writeln!(
            out,
            "  time       {:.1} s on {jobs} threads, {rate:.1} runs a second",
            real.as_secs_f64()
        )?;
    }
    for group in summary.groups() {
        let what = match group.verdict {
            Word::Broken => "the simulation broke",
            Word::Violation => "violation",
            Word::Liveness => "no progress",
            Word::Inconclusive => "inconclusive",
            Word::Pass => continue,
        };
        let runs =
            if group.runs == 1 { "1 run".to_owned() } else { format!("{} runs", group.runs) };
        writeln!(out, "\n  × {what}: {}, in {runs}; the shortest:", group.checker)?;
        for (_, message) in group.shortest.findings.iter().take(1) {
            writeln!(out, "    {message}")?;
        }
        writeln!(
            out,
            "    reproduce  cargo sim {} {}",
            group.shortest.scenario, group.shortest.seed
        )?;
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
        writeln!(out, "\n  ok         nothing lost, duplicated or reordered")?;
    }
    Ok(())
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
