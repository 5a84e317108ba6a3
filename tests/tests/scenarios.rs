//! Every scenario file is a test: it has to hold under several seeds, and to reach what it is
//! about.

use gapless_sim::check::{Verdict, judge};
use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;
use gapless_sim::world;
use libtest_mimic::{Arguments, Failed, Trial};

/// How many seeds of a fixed scenario are tried; they differ in ids and jitter.
const SEEDS_FIXED: u64 = 3;

/// How many seeds of a swarm are tried here; the sweep of the continuous integration has more.
const SEEDS_SWARM: u64 = 60;

fn main() {
    let trials = Library::embedded()
        .ids()
        .into_iter()
        .map(|id| {
            let id = id.to_owned();
            Trial::test(id.clone(), move || scenario(&id))
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn scenario(id: &str) -> Result<(), Failed> {
    let scenario = Library::embedded().get(id).map_err(|error| format!("{error:?}"))?;
    let seeds = if scenario.swarm.is_some() { SEEDS_SWARM } else { SEEDS_FIXED };
    for seed in (0..seeds).map(|index| Seed(1_000).derive(index)) {
        let reproduce = format!("reproduce: cargo sim {id} {seed}");
        let run =
            world::run(&draw(&scenario, seed)).map_err(|error| format!("{error}\n{reproduce}"))?;
        let verdict = judge(&run);
        if verdict != Verdict::Pass {
            return Err(format!("{verdict:#?}\n{reproduce}").into());
        }
    }
    Ok(())
}
