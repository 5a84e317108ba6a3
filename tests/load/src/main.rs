//! Puts `gapless serve` under a mixed load with a fault every second, and judges what came of it; or
//! several of them on one log, while servers and nodes of its engine are killed.
//!
//! Server, proxy and load are processes of their own, on loopback. The clients are those of the
//! library, with their durable stores; each judges what it is given as it comes, by the rules of the
//! simulator's checkers (every event once, in order and as it was published; every input a row, every
//! attempt run once), so that memory does not grow with the length. What it does not do: measure how
//! fast anything is.

mod cluster;
#[path = "../../peers/src/failure.rs"]
mod failure;
mod faults;
mod judge;
mod memory;
mod mix;
mod nodes;
mod preflight;
mod run;
mod slots;
mod tally;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rand::TryRng as _;
use rand::rngs::SysRng;
use tempfile::TempDir;

use crate::cluster::ClusterArgs;
use crate::failure::{Failure, Result};
use crate::mix::{Mix, Mutant, Protocols};
use crate::nodes::free_address;

/// Puts `gapless serve` under a mixed load with a fault every second, and judges what came of it.
#[derive(Debug, Parser)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 nothing is wrong, 1 something is, 2 it could not be found out.

Examples:
  cargo run --release -p gapless-load
  cargo run --release -p gapless-load -- --connections 200 --for 15s --seed 7
  cargo run --release -p gapless-load -- cluster"
)]
struct Args {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    mixed: MixedArgs,
}

/// Another kind of load.
#[derive(Debug, Subcommand)]
enum Kind {
    Cluster(ClusterArgs),
}

/// The load of one server.
#[derive(Debug, clap::Args)]
struct MixedArgs {
    /// How many WebSockets there are.
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = clap::value_parser!(u32).range(20..=14_000))]
    connections: u32,
    /// How many of them go through the proxy; half, if not given.
    #[arg(long, value_name = "COUNT")]
    through_proxy: Option<u32>,
    /// How long there are faults.
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = duration)]
    length: Duration,
    /// How long after one fault the next one comes.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    fault_every: Duration,
    /// From which the faults are drawn; drawn and printed, if not given.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// How many events are published in a second.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    events_per_second: u32,
    /// How many processes the clients are in.
    #[arg(long, value_name = "COUNT", default_value = "6", value_parser = clap::value_parser!(u8).range(1..=100))]
    processes: u8,
    /// The command `gapless`; built with cargo if not given.
    #[arg(long, value_name = "PATH")]
    gapless: Option<PathBuf>,
    /// The command `gapless-sim`, whose proxy it is; built with cargo if not given.
    #[arg(long, value_name = "PATH")]
    sim: Option<PathBuf>,
    /// Keep everything in this new folder, instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write the memory and connections of the server to this file, a line for each second.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Let one client do something wrong, to see that it is found.
    #[arg(long, value_enum)]
    mutant: Option<Mutant>,
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as `10s` or `1m`"))
}

/// Something is wrong with what was under load.
const WRONG: u8 = 1;

/// It could not be found out.
const NOT_FOUND_OUT: u8 = 2;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let words: Vec<String> = std::env::args().collect();
    let result = match &words[..] {
        [_, role, mix, number] if role == "worker" => match number.parse() {
            Ok(number) => runtime.block_on(worker::run(mix.as_ref(), number)).map(|()| true),
            Err(_) => Err(Failure::new("a worker has a number")),
        },
        _ => match Args::parse() {
            Args { kind: None, mixed } => runtime.block_on(load(mixed)),
            Args { kind: Some(Kind::Cluster(args)), .. } => runtime.block_on(cluster::load(args)),
        },
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG),
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    ExitCode::from(NOT_FOUND_OUT)
}

/// Where everything is kept: the new folder that was named, or a temporary one, which is there as long
/// as its value.
fn folder(named: Option<PathBuf>) -> Result<(TempDir, PathBuf)> {
    let temporary = tempfile::tempdir()?;
    let folder = match named {
        Some(folder) => {
            std::fs::create_dir(&folder)
                .map_err(|error| Failure::from(error).context(folder.display()))?;
            folder.canonicalize()?
        }
        None => temporary.path().to_owned(),
    };
    Ok((temporary, folder))
}

/// The seed that was named, or any.
fn seed(named: Option<u64>) -> Result<u64> {
    Ok(match named {
        Some(seed) => seed,
        None => SysRng.try_next_u64()?,
    })
}

async fn load(args: MixedArgs) -> Result<bool> {
    let connections = args.connections as usize;
    let proxied = args.through_proxy.unwrap_or(args.connections / 2) as usize;
    if proxied > connections {
        return Err(Failure::new(format!(
            "{proxied} of {connections} cannot go through the proxy"
        )));
    }
    preflight::descriptors(connections, proxied, args.processes.into())?;
    let programs = preflight::programs(args.gapless, args.sim)?;
    let (_temporary, folder) = folder(args.folder)?;
    let seed = seed(args.seed)?;
    let proxy = free_address().await?;
    let mix = Mix {
        connections,
        proxied,
        workers: args.processes.into(),
        events_per_second: args.events_per_second,
        publishers_of_a_stream: 1,
        length: args.length,
        seed,
        protocols: Protocols::All,
        servers: vec![free_address().await?],
        proxy: Some(proxy),
        folder,
        mutant: args.mutant,
    };
    println!(
        "  seed       {seed}\n  load       {connections} WebSockets, {proxied} through the proxy, of {} \
         processes: {} subscribers of {} streams, {} users of sessions, {} agents; {} events/s\n  \
         faults     one every {:?} for {:?}",
        mix.workers,
        mix.subscribers(),
        mix.streams(),
        mix.sessions(),
        mix.agents(),
        mix.events_per_second,
        args.fault_every,
        args.length
    );
    run::run(mix, proxy, &programs, args.fault_every, args.csv).await
}
