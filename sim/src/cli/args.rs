//! What may stand on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::proxy::ProxyArgs;
use super::storm::StormArgs;
use super::{Failure, usage};
use crate::custom;
use crate::scenario::Library;
use crate::seed::Seed;

/// The scenario of `run` without one.
const DEFAULT_SCENARIO: &str = "events/swarm";

const SEED_FORMS: &str =
    "a seed is written `42`, `0x2a`, `SEED=42` or as a commit of 40 hexadecimal digits";

/// Runs real clients and servers in a simulated world, and says whether anything was lost,
/// duplicated or reordered.
#[derive(Debug, Parser)]
#[command(name = "gapless-sim", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 ok, 1 violation, 2 usage, 3 inconclusive, 4 nothing ran, \
                        5 stale expectation, 6 no progress after healing, 70 internal error, \
                        71 adapter error, 72 different.")]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Carry out one run and judge it (the default: `gapless-sim 42` is `gapless-sim run 42`)
    Run(RunArgs),
    /// Print everything that happens in a run
    Show(ShowArgs),
    /// Compare two traces and print where they part
    Diff(DiffArgs),
    /// Make a failing plan small, as long as it shows the same violation
    Shrink(ShrinkArgs),
    /// Write a failing plan as a scenario, with a snapshot of what happens in it
    Freeze(FreezeArgs),
    /// Carry out many runs on all cores and judge them together
    Sweep(SweepArgs),
    /// Judge the runs of several sweeps together, from their `--jsonl` files
    Merge(MergeArgs),
    /// Say from when on a failing run could not have ended otherwise
    Localise(LocaliseArgs),
    /// Carry out runs in two processes each, and compare them while they run
    Meta(MetaArgs),
    /// Run the known-bad variants of the implementation: every one has to be caught
    Mutants(MutantsArgs),
    /// List the scenarios
    Scenarios(ScenariosArgs),
    /// Play the scenarios against another implementation, through its adapter
    Conform(Box<ConformArgs>),
    /// Write down what an adapter is asked in a case, to play it under a debugger
    Record(RecordArgs),
    /// Be an adapter: the reference implementation behind the lockstep protocol
    Adapter(AdapterArgs),
    /// Put faults between two foreign parties, on real sockets
    Proxy(ProxyArgs),
    /// List the statements of the specification, and what stands for each
    Statements(StatementsArgs),
    /// Say how long a storm of handshakes lasts, by a model of its own
    Storm(StormArgs),
}

/// From how many runs of a swarm on its marks are judged.
const REACH_SEEDS: &str = "500";

#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    /// Scenarios, by id or by a pattern with `*` (default: all swarms)
    #[arg(value_name = "SCENARIO")]
    pub(super) words: Vec<String>,
    /// How many runs at most, over all scenarios and parts (default: 200, or as many as it takes)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seeds: Option<u64>,
    /// Begin runs for so long, in real time: `90s`, `10m`
    #[arg(long, value_name = "TIME")]
    pub(super) time: Option<String>,
    /// End after so many runs in a row in which no scenario reached a new mark
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) until_plateau: Option<u64>,
    /// The seed or commit from which the seeds of the runs follow
    #[arg(long, value_name = "SEED", default_value = "1")]
    pub(super) base: String,
    /// How many threads (default: one per core)
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub(super) jobs: Option<usize>,
    /// Only a part of the runs: `2/4` is the second of four parts
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub(super) shard: String,
    /// From how many runs of a swarm on it has to have reached its marks
    #[arg(long, value_name = "N", default_value = REACH_SEEDS)]
    pub(super) reach_seeds: u64,
    /// Run a known-bad variant of the implementation (see `mutants`)
    #[arg(long, value_name = "ID")]
    pub(super) mutant: Option<String>,
    /// Write one JSON object per run to a file, for `merge`
    #[arg(long, value_name = "FILE")]
    pub(super) jsonl: Option<PathBuf>,
    /// Go on after the last run in the file of `--jsonl`
    #[arg(long, requires = "jsonl")]
    pub(super) resume: bool,
    /// Write what failed for a continuous integration as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Print what failed as annotations of GitHub Actions too, ten at most
    #[arg(long)]
    pub(super) annotations: bool,
    /// Write a page to look at in a browser: what failed, what was reached under which faults
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// No progress
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Read scenarios from a folder instead of those built in
    #[arg(long, value_name = "DIR")]
    pub(super) scenarios: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct MutantsArgs {
    /// Mutants, by id (default: all)
    #[arg(value_name = "MUTANT")]
    pub(super) words: Vec<String>,
    /// Within how many seeds of its home scenario a mutant has to be caught
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seeds: u64,
    /// How often each is tried, with other seeds; the table shows the median of the seeds that it took
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) trials: u64,
    /// The seed or commit from which the seeds of the runs follow
    #[arg(long, value_name = "SEED", default_value = "1")]
    pub(super) base: String,
    /// How many threads (default: one per core)
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Only say what there is
    #[arg(long)]
    pub(super) list: bool,
    /// Instead, run those that have a bug of docs/faults.md in the scenarios that play it
    #[arg(long, conflicts_with = "list")]
    pub(super) corpus: bool,
    /// Write the kill table as a page to look at in a browser
    #[arg(long, value_name = "FILE", conflicts_with_all = ["list", "corpus"])]
    pub(super) report: Option<PathBuf>,
    /// Print one JSON object per mutant
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// Files written by `sweep --jsonl`
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,
    /// Write a page to look at in a browser
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Write what failed for a continuous integration as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Print what failed as annotations of GitHub Actions too, ten at most
    #[arg(long)]
    pub(super) annotations: bool,
    /// From how many runs of a swarm on it has to have reached its marks
    #[arg(long, value_name = "N", default_value = REACH_SEEDS)]
    pub(super) reach_seeds: u64,
    /// Read scenarios from a folder instead of those built in
    #[arg(long, value_name = "DIR")]
    pub(super) scenarios: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct LocaliseArgs {
    #[command(flatten)]
    pub(super) source: Source,
    /// How many threads (default: one per core)
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Write the page of the run with the answer in it
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct MetaArgs {
    #[command(flatten)]
    pub(super) source: Source,
    /// Compare this many runs, whose seeds follow from the seed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seeds: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) source: Source,
    /// Write the plan to a file, to keep it or to change it
    #[arg(long, value_name = "FILE")]
    pub(super) save_plan: Option<PathBuf>,
    /// Write a run that fails to a file: the plan, what came of it, and at which commit
    #[arg(long, value_name = "FILE")]
    pub(super) capsule: Option<PathBuf>,
    /// Write everything that happened to a file
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
    /// Write a page to look at in a browser: everything that happened, and what led to what
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Print nothing if everything holds
    #[arg(long, short)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShrinkArgs {
    #[command(flatten)]
    pub(super) source: Source,
    /// How long it takes at most, as `30s` or `5m`
    #[arg(long = "for", value_name = "DURATION", default_value = "60s")]
    pub(super) time: String,
    /// How many runs it makes at most
    #[arg(long, value_name = "N", default_value = "20000", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) runs: u32,
    /// Where the small plan is written, as a capsule
    #[arg(long, value_name = "FILE", default_value = "shrunk.json")]
    pub(super) out: PathBuf,
    /// Which part a foreign implementation plays, for example `events.client`
    #[arg(long, value_name = "ROLE", requires = "adapter", conflicts_with = "mutant")]
    pub(super) role: Option<String>,
    /// The command that starts the adapter of the foreign implementation that fails
    #[arg(long, value_name = "COMMAND", requires = "role")]
    pub(super) adapter: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct FreezeArgs {
    #[command(flatten)]
    pub(super) source: Source,
    /// The name of the scenario: it becomes `regressions/NAME` (default: the mutant, or the checker
    /// and the seed)
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// The file of the scenario (default: `scenarios/regressions/NAME.toml`)
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    pub(super) source: Source,
    /// Only what happens on one host, for example `client-1`
    #[arg(long, value_name = "HOST")]
    pub(super) only: Option<String>,
    /// Leave the marks out
    #[arg(long)]
    pub(super) no_marks: bool,
    /// Write it as a page to look at in a browser, instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "no_marks"])]
    pub(super) report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// A seed, or a file written by `run --trace` or `run --save-plan`
    pub(super) left: String,
    /// A seed, or a file written by `run --trace` or `run --save-plan`
    pub(super) right: String,
    /// The scenario of the seeds
    #[arg(long, default_value_t = default_scenario())]
    pub(super) scenario: String,
    /// Read scenarios from a folder instead of those built in
    #[arg(long, value_name = "DIR")]
    pub(super) scenarios: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ScenariosArgs {
    /// Only check that all of them can be used, and that every known fault is played or excused
    #[arg(long)]
    pub(super) check: bool,
    /// Instead, print the page about the file format (docs/scenarios.md)
    #[arg(long, conflicts_with_all = ["check", "json", "scenarios"])]
    pub(super) format: bool,
    /// Print one JSON object per scenario
    #[arg(long)]
    pub(super) json: bool,
    /// Read scenarios from a folder instead of those built in
    #[arg(long, value_name = "DIR")]
    pub(super) scenarios: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct ConformArgs {
    #[command(subcommand)]
    pub(super) other: Option<ConformCommand>,
    #[command(flatten)]
    pub(super) play: PlayArgs,
}

/// What else there is to do with conformance.
#[derive(Debug, Subcommand)]
pub(super) enum ConformCommand {
    /// Compare several implementations, from their `--json` files
    Matrix(MatrixArgs),
    /// Print the JSON Schema of the adapter protocol
    Schema(SchemaArgs),
}

#[derive(Debug, Args)]
pub(super) struct PlayArgs {
    /// Scenarios, by id or by a pattern such as `events/*` (default: all of the role)
    #[arg(value_name = "SELECTOR")]
    pub(super) words: Vec<String>,
    #[command(flatten)]
    pub(super) attach: AttachArgs,
    /// Only scenarios about a statement: `EV-5a`, or `EV-5` for all of its clauses
    #[arg(long, value_name = "ID")]
    pub(super) statement: Vec<String>,
    /// Play on real sockets and in real time, for an implementation that cannot be driven in lockstep
    #[arg(long, conflicts_with_all = ["jobs", "save_plan"])]
    pub(super) live: bool,
    /// With `--live`: how many times as fast as in the scenario
    #[arg(long, value_name = "TIMES", default_value_t = 4, requires = "live")]
    pub(super) speed: u64,
    /// How many seeds of swarms are played, over all swarms (default: 200; with `--live` 20)
    #[arg(long, value_name = "N")]
    pub(super) seeds: Option<u64>,
    /// The seed or commit from which the seeds follow
    #[arg(long, value_name = "SEED", default_value = "1")]
    pub(super) base: String,
    /// Play each selected scenario once, with this seed
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "base"])]
    pub(super) seed: Option<String>,
    /// Play a saved plan
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "statement", "seeds", "base", "seed"])]
    pub(super) plan: Option<PathBuf>,
    /// How many threads, each with processes of its own (default: one per core)
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// A file of failures that are known
    #[arg(long, value_name = "FILE")]
    pub(super) expect: Option<PathBuf>,
    /// Write everything that came of it as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write a report for a continuous integration as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Write a summary as Markdown
    #[arg(long, value_name = "FILE")]
    pub(super) markdown: Option<PathBuf>,
    /// Write the statements and how they fared as a page
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Of a single case: write the plan to a file, to keep it or to change it
    #[arg(long, value_name = "FILE")]
    pub(super) save_plan: Option<PathBuf>,
    /// Of a single case, or of all with `--live`: write everything that happened to a file
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
    /// Say what came of each case
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// No progress
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Read scenarios from a folder instead of those built in
    #[arg(long, value_name = "DIR")]
    pub(super) scenarios: Option<PathBuf>,
}

/// How long an answer of an adapter may take.
pub(super) const DEFAULT_ANSWER_TIMEOUT: &str = "10s";

/// Which implementation is meant.
#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// Which part is played, for example `events.client`
    #[arg(long, value_name = "ROLE", required = true)]
    pub(super) role: Option<String>,
    /// The command that starts the adapter (default: the reference implementation, in this process)
    #[arg(long, value_name = "COMMAND")]
    pub(super) adapter: Option<String>,
    /// Play a known-bad variant of the reference implementation
    #[arg(long, value_name = "ID", conflicts_with = "adapter")]
    pub(super) mutant: Option<String>,
    /// How long an answer of the adapter may take, in real time
    #[arg(long, value_name = "TIME", default_value = DEFAULT_ANSWER_TIMEOUT)]
    pub(super) answer_timeout: String,
}

#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    /// The scenario
    #[arg(value_name = "ID")]
    pub(super) id: String,
    #[command(flatten)]
    pub(super) attach: AttachArgs,
    /// The seed
    #[arg(long, value_name = "SEED", default_value = "1")]
    pub(super) seed: String,
    /// Which of the hosts, if the case has several: `1` is the first
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) host: u32,
    /// The file for the lines that the adapter gets
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    /// A file for the lines that it answered
    #[arg(long, value_name = "FILE")]
    pub(super) replies: Option<PathBuf>,
    /// Read scenarios from a folder instead of those built in
    #[arg(long, value_name = "DIR")]
    pub(super) scenarios: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct MatrixArgs {
    /// Files written by `conform --json`
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,
    /// Write a page
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Write Markdown (default: print it)
    #[arg(long, value_name = "FILE")]
    pub(super) markdown: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Which side's lines
    #[arg(value_enum, default_value = "request")]
    pub(super) side: Side,
}

/// Who says something in the adapter protocol.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Side {
    /// The suite.
    Request,
    /// The adapter.
    Reply,
}

#[derive(Debug, Args)]
pub(super) struct AdapterArgs {
    /// Which part is played, for example `events.client`
    #[arg(long, value_name = "ROLE")]
    pub(super) role: String,
    /// Run by itself, on real sockets, as `conform --live` wants it
    #[arg(long)]
    pub(super) live: bool,
    /// Play a known-bad variant of the reference implementation
    #[arg(long, value_name = "ID")]
    pub(super) mutant: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct StatementsArgs {
    /// Statements, by id: `EV-5a`, or `EV-5` for all of its clauses (default: all)
    #[arg(value_name = "ID")]
    pub(super) words: Vec<String>,
    /// Only check that scenarios and checkers leave no hole, and name nothing that is not there
    #[arg(long, conflicts_with_all = ["words", "json"])]
    pub(super) check: bool,
    /// Say which were exercised by the runs in a file of `sweep --jsonl`; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(super) swept: Vec<PathBuf>,
    /// Bring the manifest in a file up to date (docs/spec/statements.json), and say what changes
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "json", "check", "swept"])]
    pub(super) manifest: Option<PathBuf>,
    /// Print one JSON array
    #[arg(long)]
    pub(super) json: bool,
    /// Read scenarios from a folder instead of those built in
    #[arg(long, value_name = "DIR")]
    pub(super) scenarios: Option<PathBuf>,
}

/// What to run: a scenario and a seed, in any order, or a plan.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// A scenario (default: events/swarm) and a seed (default: a random one), in any order
    #[arg(value_name = "SCENARIO|SEED", num_args = 0..=2)]
    pub(super) words: Vec<String>,
    /// The seed
    #[arg(long, value_name = "SEED")]
    pub(super) seed: Option<String>,
    /// Run a known-bad variant of the implementation (see `mutants`)
    #[arg(long, value_name = "ID")]
    pub(super) mutant: Option<String>,
    /// Carry out a saved plan, or the one in a capsule, instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "seed", "scenarios", "mutant"])]
    pub(super) plan: Option<PathBuf>,
    /// Read scenarios from a folder instead of those built in
    #[arg(long, value_name = "DIR")]
    pub(super) scenarios: Option<PathBuf>,
}

impl Source {
    /// Whether it is said which run is meant, instead of any.
    pub(super) fn is_certain(&self) -> bool {
        let is_seed = |word: &String| word.parse::<Seed>().is_ok();
        self.plan.is_some() || self.seed.is_some() || self.words.iter().any(is_seed)
    }

    /// The scenario and the seed. A word that is a seed is the seed, one that names a scenario is
    /// the scenario; two of a kind, or neither, is an error.
    pub(super) fn resolve(&self, library: &Library) -> Result<(String, Seed), Failure> {
        let (mut scenario, mut seed): (Option<&str>, Option<(&str, Seed)>) = (None, None);
        if let Some(text) = &self.seed {
            let parsed = text.parse::<Seed>().map_err(|error| usage(error, SEED_FORMS))?;
            seed = Some((text, parsed));
        }
        for word in &self.words {
            match (word.parse::<Seed>(), library.ids().contains(&word.as_str())) {
                (Ok(parsed), _) => match seed.replace((word, parsed)) {
                    None => {}
                    Some((first, _)) => {
                        let message = format!("two seeds are given: `{first}` and `{word}`");
                        return Err(usage(message, "leave one out; a run has one seed"));
                    }
                },
                (Err(_), true) => match scenario.replace(word) {
                    None => {}
                    Some(first) => {
                        let message = format!("two scenarios are given: `{first}` and `{word}`");
                        return Err(usage(message, "leave one out; a run has one scenario"));
                    }
                },
                (Err(_), false) => {
                    let message = format!("`{word}` is neither a seed nor a scenario");
                    let hint = format!("{}; {SEED_FORMS}", library.suggestion(word));
                    return Err(usage(message, hint));
                }
            }
        }
        let seed = seed.map_or_else(random_seed, |(_, seed)| seed);
        Ok((scenario.map_or_else(default_scenario, str::to_owned), seed))
    }
}

/// The scenario that is run if none is named.
fn default_scenario() -> String {
    let own = custom::registered().first().map(|protocol| format!("{}/swarm", protocol.name()));
    own.unwrap_or_else(|| DEFAULT_SCENARIO.to_owned())
}

/// A seed that nobody has chosen. It is printed, so the run can be had again.
fn random_seed() -> Seed {
    use std::hash::{BuildHasher, RandomState};
    // Short enough to be read out.
    Seed(RandomState::new().hash_one(0) % 1_000_000_000)
}

/// Puts `run` in where the first word is no command.
pub(super) fn with_default_command(mut args: Vec<OsString>) -> Vec<OsString> {
    const COMMANDS: [&str; 22] = [
        "conform",
        "record",
        "adapter",
        "proxy",
        "run",
        "show",
        "diff",
        "shrink",
        "freeze",
        "sweep",
        "merge",
        "localise",
        "meta",
        "mutants",
        "scenarios",
        "statements",
        "storm",
        "help",
        "-h",
        "--help",
        "-V",
        "--version",
    ];
    let known =
        args.get(1).and_then(|word| word.to_str()).is_some_and(|word| COMMANDS.contains(&word));
    if !known {
        args.insert(args.len().min(1), "run".into());
    }
    args
}
