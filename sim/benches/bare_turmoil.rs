//! What a run costs, compared with bare turmoil.
//!
//! ```text
//! cargo bench -p gapless-sim --bench bare_turmoil -- [--pairs N] [--seeds N] [--base SEED] [--ratio-max X]
//! ```
//!
//! Bare turmoil has the same hosts, network, ticks and virtual time as the run, and its WebSockets
//! carry frames of the same sizes at the same times in the same directions; requests of publishers
//! are as many bytes over plain TCP. It has no SQLite, no JSON, no HTTP server, no faults, no
//! trace and no checkers. What it has to send is a script, which is made from one run of each seed
//! before anything is measured ([`script`]).
//!
//! Two workloads are measured: `events/swarm` as it is, and the same swarm with 60 s of workload
//! and faults and always two clients, which still settles afterwards. A sample is the time of all
//! seeds one after the other on one thread; samples of the simulator (draw, run and judge, as a
//! sweep does) and of bare turmoil alternate. The ratio is the median over the pairs of
//! neighbours. Where the system tells how long the thread had the processor, the ratio is of that,
//! else of real time.
//!
//! The bars are a ratio of 1.5 for `events/swarm`, and 15 runs per second and core for 60 s with two
//! clients. Nothing fails below them unless `--ratio-max` is given, because timings are noisy.
//!
//! Without the `--bench` that cargo adds, as under `cargo test --benches`, there is one pair of one
//! seed, and no time is judged. Either way the program fails if bare turmoil delivers less than
//! 90 % of the frames and requests of the script.

#[path = "bare_turmoil/bare.rs"]
mod bare;
#[path = "bare_turmoil/script.rs"]
mod script;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use gapless_sim::scenario::{Library, Scenario, draw};
use gapless_sim::seed::Seed;
use gapless_sim::sweep::outcome;
use gapless_sim::world;

use self::script::Script;

/// The cost of a run, compared with turmoil that carries the same frames.
#[derive(Debug, Parser)]
struct Args {
    /// How many pairs of samples are taken.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// How many runs a sample has.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The seed from which the seeds of the runs follow.
    #[arg(long, default_value = "1")]
    base: Seed,
    /// Fail if a run of `events/swarm` costs more than this many times what bare turmoil does.
    #[arg(long)]
    ratio_max: Option<f64>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The scenario that is compared.
const SCENARIO: &str = "events/swarm";

/// The least share of the script that bare turmoil has to deliver, in percent.
const DELIVERED_MIN: u64 = 90;

fn main() -> ExitCode {
    gapless_sim::heap::keep();
    let measures = std::env::args().any(|arg| arg == "--bench");
    let words = std::env::args().filter(|_| measures);
    let args = match measures {
        true => Args::parse_from(words),
        false => Args { pairs: 1, seeds: 1, ..Args::parse_from(["bare_turmoil"]) },
    };
    let swarm = Library::embedded().get(SCENARIO).expect("an embedded scenario");
    let ratio = compare(SCENARIO, &swarm, &args);
    if measures {
        compare("60 s, two clients", &minute(&swarm), &args);
    }
    match args.ratio_max {
        Some(most) if ratio > most => {
            eprintln!("error: the ratio {ratio:.2} is above {most}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The swarm with a minute of workload and faults, and two clients.
fn minute(swarm: &Scenario) -> Scenario {
    let mut scenario = swarm.clone();
    scenario.duration_ms = 60_000;
    scenario.tick_ms = 10;
    scenario.swarm.as_mut().expect("a swarm").clients = (2, 2);
    scenario
}

/// Measures one workload and prints what came of it; the median of the ratios.
fn compare(title: &str, scenario: &Scenario, args: &Args) -> f64 {
    let seeds: Vec<Seed> = (0..args.seeds).map(|index| args.base.derive(index)).collect();
    let scripts: Vec<Arc<Script>> = seeds
        .iter()
        .map(|seed| {
            let run = world::run(&draw(scenario, *seed)).expect("the simulator works");
            Arc::new(Script::of(&run))
        })
        .collect();
    let totals = Totals::of(&scripts);
    let (mut ours, mut bares) = (Vec::new(), Vec::new());
    for _ in 0..args.pairs {
        ours.push(Time::of(|| {
            for seed in &seeds {
                std::hint::black_box(outcome(scenario, *seed, None));
            }
        }));
        bares.push(Time::of(|| {
            for script in &scripts {
                std::hint::black_box(bare::run(script));
            }
        }));
    }
    let ratios =
        Spread::of(ours.iter().zip(&bares).map(|(ours, bare)| ours.cost() / bare.cost()).collect());
    totals.print(title, args);
    let runs = args.seeds as f64;
    let row = |name: &str, pick: &dyn Fn(&Time) -> f64| {
        let of = |times: &[Time]| Spread::of(times.iter().map(pick).collect());
        let (ours, bare) = (of(&ours), of(&bares));
        println!("  {name:<26}{:>12.2} {:>14.2}", ours.median, bare.median);
    };
    row("ms of processor per run", &|time| time.cost() * 1_000.0 / runs);
    row("ms of real time per run", &|time| time.real.as_secs_f64() * 1_000.0 / runs);
    row("runs per second and core", &|time| runs / time.cost());
    println!("  ratio {:.2}, from {:.2} to {:.2}\n", ratios.median, ratios.least, ratios.most);
    ratios.median
}

/// What all runs of a sample carry.
struct Totals {
    frames: u64,
    received: u64,
    posts: u64,
    ticks: u64,
    bare_sent: u64,
    bare_received: u64,
    bare_bytes: u64,
    bare_answered: u64,
}

impl Totals {
    /// Counts what bare turmoil moves, beside what it should.
    ///
    /// # Panics
    ///
    /// If it moves too little.
    fn of(scripts: &[Arc<Script>]) -> Self {
        let moved: Vec<_> = scripts.iter().map(bare::run).collect();
        let script = |count: fn(&Script) -> u64| scripts.iter().map(|script| count(script)).sum();
        let bare = |count: fn(&bare::Moved) -> u64| moved.iter().map(|moved| count(moved)).sum();
        let totals = Self {
            frames: script(Script::frames),
            received: script(|script| script.received),
            posts: script(Script::posts),
            ticks: script(|script| script.ticks),
            bare_sent: bare(|moved| moved.sent.load(Ordering::Relaxed)),
            bare_received: bare(|moved| moved.received.load(Ordering::Relaxed)),
            bare_bytes: bare(|moved| moved.bytes.load(Ordering::Relaxed)),
            bare_answered: bare(|moved| moved.answered.load(Ordering::Relaxed)),
        };
        let enough = |got: u64, of: u64| got * 100 >= of * DELIVERED_MIN;
        assert!(totals.frames > 0 && totals.posts > 0, "the scripts are empty");
        assert!(
            enough(totals.bare_received, totals.frames),
            "bare turmoil delivered {} of {} frames",
            totals.bare_received,
            totals.frames
        );
        assert!(
            enough(totals.bare_answered, totals.posts),
            "bare turmoil answered {} of {} requests",
            totals.bare_answered,
            totals.posts
        );
        totals
    }

    fn print(&self, title: &str, args: &Args) {
        let Args { pairs, seeds, base, .. } = args;
        println!("{title}: {pairs} pairs of {seeds} runs, base {base}");
        println!("  {:<26}{:>12} {:>14}", "", "simulator", "bare turmoil");
        let per_run = |count: u64| count as f64 / args.seeds as f64;
        let row = |name: &str, ours: u64, bare: u64| {
            println!("  {name:<26}{:>12.1} {:>14.1}", per_run(ours), per_run(bare));
        };
        row("ticks per run", self.ticks, self.ticks);
        row("frames sent per run", self.frames, self.bare_sent);
        row("frames received per run", self.received, self.bare_received);
        row("requests answered per run", self.posts, self.bare_answered);
        println!(
            "  {:<26}{:>12} {:>14.1}",
            "bytes per frame",
            "",
            self.bare_bytes as f64 / self.bare_received as f64
        );
    }
}

/// How long something took.
struct Time {
    real: Duration,
    /// How long the thread had the processor, where the system tells.
    processor: Option<Duration>,
}

impl Time {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    fn of(work: impl FnOnce()) -> Self {
        let (began, busy) = (Instant::now(), processor());
        work();
        let real = began.elapsed();
        let spent = busy.zip(processor()).and_then(|(before, after)| after.checked_sub(before));
        Self { real, processor: spent.filter(|spent| !spent.is_zero()) }
    }

    /// In seconds.
    fn cost(&self) -> f64 {
        self.processor.unwrap_or(self.real).as_secs_f64()
    }
}

/// How long this thread has had the processor; Linux tells.
fn processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// The middle and the ends of some numbers.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let (least, most) = (numbers[0], numbers[numbers.len() - 1]);
        let median = (numbers[(numbers.len() - 1) / 2] + numbers[numbers.len() / 2]) / 2.0;
        Self { least, median, most }
    }
}
