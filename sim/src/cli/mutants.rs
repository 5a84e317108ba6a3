//! `mutants`: proof that the checkers can see.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::args::MutantsArgs;
use super::page::commit;
use super::{Failure, diagnostic, library, save, usage};
use crate::check::violations;
use crate::corpus::{Caught, Corpus};
use crate::custom;
use crate::exit;
use crate::mutants::{Mutant, catalogue};
use crate::plan::Plan;
use crate::report::{Kill, mutants_page};
use crate::scenario::{Scenario, draw, nearest};
use crate::seed::Seed;
use crate::sweep::cores;
use crate::world;

/// The mutant of a name.
pub(super) fn named(id: &str) -> Result<&'static Mutant, Failure> {
    crate::mutants::find(id).ok_or_else(|| {
        let ids: Vec<_> = catalogue().map(|mutant| mutant.id).collect();
        let near = nearest(id, ids.iter().copied());
        let hint = near.map_or_else(
            || format!("there are {}", ids.join(", ")),
            |near| format!("did you mean `{near}`? `gapless-sim mutants --list` names all"),
        );
        usage(format!("there is no mutant `{id}`"), hint)
    })
}

/// Those of the protocols that this program is about.
fn all() -> Vec<&'static Mutant> {
    match custom::registered().as_slice() {
        [] => catalogue().collect(),
        own => own.iter().flat_map(|protocol| protocol.mutants()).collect(),
    }
}

/// What came of a mutant.
struct Row {
    mutant: &'static Mutant,
    trials: Vec<Trial>,
}

/// One attempt to catch a mutant.
#[derive(Default)]
struct Trial {
    /// How many seeds it took, and the one that caught it.
    caught: Option<(u64, u64)>,
    /// What else was said before, if anything.
    others: Vec<&'static str>,
}

pub(super) fn run(args: &MutantsArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let wanted: Vec<&'static Mutant> = match args.words.is_empty() {
        true => all(),
        false => args.words.iter().map(|id| named(id)).collect::<Result<_, _>>()?,
    };
    if args.list {
        return list(&wanted, args.json, out);
    }
    if args.corpus {
        return known_faults(&wanted, args.json, out);
    }
    let base: Seed =
        args.base.parse().map_err(|error| usage(error, "give `--base` a seed or a commit"))?;
    let library = library(None)?;
    let homes: Vec<Scenario> = wanted
        .iter()
        .map(|mutant| library.get(mutant.home).map_err(diagnostic))
        .collect::<Result<_, _>>()?;
    let rows = hunt(args, base, &wanted, &homes);
    let survived = rows.iter().filter(|row| !row.is_caught()).count();
    for row in &rows {
        match args.json {
            true => writeln!(out, "{}", row.json())?,
            false => row.tell(args.seeds, out)?,
        }
    }
    if let Some(path) = &args.report {
        let kills: Vec<Kill> = rows.iter().map(Row::kill).collect();
        save(path, &mutants_page(&kills, args.seeds, commit().as_deref()))?;
    }
    if !args.json {
        match survived {
            0 => writeln!(
                out,
                "\n  ok         all {} are caught within {} seeds",
                rows.len(),
                args.seeds
            )?,
            _ => writeln!(
                out,
                "\n  × {survived} of {} survive: what they break is not checked, or not reached",
                rows.len()
            )?,
        }
    }
    Ok(if survived == 0 { exit::OK } else { exit::VIOLATION })
}

/// Runs each mutant that has a known fault in the scenarios that play it: one has to see it.
fn known_faults(
    wanted: &[&'static Mutant],
    json: bool,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let (corpus, library) = (Corpus::embedded(), library(None)?);
    let (mut count, mut survived) = (0, 0);
    for mutant in wanted {
        for reference in mutant.reference.iter().filter(|reference| corpus.knows(reference)) {
            count += 1;
            let caught = corpus.catch(&library, mutant, reference).map_err(diagnostic)?;
            survived += usize::from(caught.is_none());
            let id = mutant.id;
            match (json, caught) {
                (true, caught) => {
                    let line = serde_json::json!({
                        "fault": reference, "mutant": id,
                        "scenario": caught.as_ref().map(|caught| &caught.scenario),
                        "seed": caught.as_ref().map(|caught| caught.seed.0),
                        "checker": caught.as_ref().map(|caught| caught.checker),
                    });
                    writeln!(out, "{line}")?;
                }
                (false, Some(Caught { scenario, seed, checker })) => {
                    writeln!(out, "  ✓ {reference:<18}{id:<28}{checker:<26}{scenario} {seed}")?;
                }
                (false, None) => {
                    writeln!(out, "  × {reference:<18}{id:<28}passes all scenarios of the fault")?;
                }
            }
        }
    }
    if count == 0 {
        let hint = "`gapless-sim mutants --list` says which faults each has";
        return Err(Failure::NothingRan(format!(
            "error: none has a known fault\n  hint: {hint}\n"
        )));
    }
    if !json {
        match survived {
            0 => writeln!(out, "\n  ok         all {count} fail where the fault is played")?,
            _ => writeln!(out, "\n  × {survived} of {count} pass where the fault is played")?,
        }
    }
    Ok(if survived == 0 { exit::OK } else { exit::VIOLATION })
}

/// Tries every mutant as often as asked for, each trial on a thread of its own.
fn hunt(
    args: &MutantsArgs,
    base: Seed,
    wanted: &[&'static Mutant],
    homes: &[Scenario],
) -> Vec<Row> {
    let trials = usize::try_from(args.trials).unwrap_or(usize::MAX);
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Trial)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.unwrap_or_else(cores).max(1) {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = wanted.get(nth / trials) else { break };
                    let first = (nth % trials) as u64 * args.seeds;
                    let trial = attempt(mutant, &homes[nth / trials], base, first, args.seeds);
                    done.lock().expect("no thread panics while it holds this").push((nth, trial));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics while it holds this");
    done.sort_by_key(|(nth, _)| *nth);
    let mut rows: Vec<Row> =
        wanted.iter().map(|mutant| Row { mutant, trials: Vec::new() }).collect();
    for (nth, trial) in done {
        rows[nth / trials].trials.push(trial);
    }
    rows
}

/// Runs seed after seed until the checker that has to catch the mutant does.
fn attempt(mutant: &'static Mutant, home: &Scenario, base: Seed, first: u64, seeds: u64) -> Trial {
    let mut trial = Trial::default();
    for nth in 0..seeds {
        let seed = base.derive(first + nth);
        let checkers = findings(mutant, home, seed);
        if checkers.contains(&mutant.checker) {
            trial.caught = Some((nth + 1, seed.0));
            break;
        }
        trial.others.extend(checkers);
        trial.others.sort_unstable();
        trial.others.dedup();
    }
    trial
}

/// The checkers that have something to say of a run.
fn findings(mutant: &Mutant, home: &Scenario, seed: Seed) -> Vec<&'static str> {
    let plan = Plan { mutant: Some(mutant.id.to_owned()), ..draw(home, seed) };
    match world::run_untraced(&plan) {
        Ok(run) => {
            let (safety, liveness) = violations(&run.history, &plan);
            safety.iter().chain(&liveness).map(|violation| violation.checker).collect()
        }
        Err(_) => vec!["the simulation broke"],
    }
}

impl Row {
    fn is_caught(&self) -> bool {
        self.trials.iter().all(|trial| trial.caught.is_some())
    }

    /// The median of the seeds that it took.
    fn median(&self) -> Option<u64> {
        let mut seeds: Vec<u64> =
            self.trials.iter().filter_map(|trial| Some(trial.caught?.0)).collect();
        seeds.sort_unstable();
        seeds.get(seeds.len().saturating_sub(1) / 2).copied()
    }

    fn seed(&self) -> Option<u64> {
        self.trials.iter().find_map(|trial| Some(trial.caught?.1))
    }

    fn tell(&self, seeds: u64, out: &mut dyn Write) -> Result<(), Failure> {
        let Mutant { id, home, checker, .. } = *self.mutant;
        match (self.is_caught(), self.median(), self.seed()) {
            (true, Some(median), Some(seed)) => {
                let word = if median == 1 { "seed" } else { "seeds" };
                writeln!(out, "  ✓ {id:<28}{checker:<26}{median:>4} {word:<7}{home} {seed}")?;
            }
            _ => {
                let others = self.others();
                let others = match others.is_empty() {
                    true => "nothing was found".to_owned(),
                    false => format!("only found: {}", others.join(", ")),
                };
                writeln!(
                    out,
                    "  × {id:<28}{checker:<26}not within {seeds} seeds of {home}; {others}"
                )?;
            }
        }
        Ok(())
    }

    /// What else was said, if it was not caught at once.
    fn others(&self) -> Vec<&'static str> {
        let others = self.trials.iter().flat_map(|trial| trial.others.iter().copied());
        let mut others: Vec<&'static str> = others.collect();
        others.sort_unstable();
        others.dedup();
        others
    }

    fn kill(&self) -> Kill {
        Kill {
            mutant: self.mutant.id,
            caught: self.is_caught(),
            median_seeds: self.median(),
            seed: self.seed(),
            others: self.others(),
        }
    }

    fn json(&self) -> serde_json::Value {
        let mut object = description(self.mutant);
        object["caught"] = self.is_caught().into();
        object["median_seeds"] = self.median().into();
        object["seed"] = self.seed().into();
        object
    }
}

fn description(mutant: &Mutant) -> serde_json::Value {
    serde_json::json!({
        "id": mutant.id, "does": mutant.does, "seam": mutant.seam(), "home": mutant.home,
        "checker": mutant.checker, "reference": mutant.reference,
        "statements": mutant.statements,
    })
}

fn list(wanted: &[&'static Mutant], json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    for mutant in wanted {
        if json {
            writeln!(out, "{}", description(mutant))?;
            continue;
        }
        writeln!(out, "{}\n    {}", mutant.id, mutant.does)?;
        writeln!(
            out,
            "    enters {}; caught by {} in {}",
            mutant.seam(),
            mutant.checker,
            mutant.home
        )?;
        let also: Vec<&str> = mutant.statements.iter().chain(mutant.reference).copied().collect();
        writeln!(out, "    {}", also.join(", "))?;
    }
    Ok(exit::OK)
}
