//! Measures `gapless serve` side by side with what a user would pick instead, in one run on loopback.
//!
//! Server and receivers are processes of their own; every event is parsed, and loss, duplicates and
//! order are counted exactly. The peers take turns, so whatever else the machine does hits all of
//! them. What it does not do: judge. It says what was measured; `docs/benchmarks.md` says what that
//! means.

mod failure;
mod inbox;
mod peer;
mod preflight;
mod process;
mod relay;
mod report;
mod stats;
mod tally;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::failure::{Failure, Result};
use crate::peer::{Kind, Peer, Programs};
use crate::report::{Row, Table};
use crate::workload::{Sizes, Workload};

/// Measures gapless side by side with what a user would pick instead.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    cargo run --release -p gapless-peers\n  \
    cargo run --release -p gapless-peers -- replay-log --peers gapless,jetstream --pairs 5\n  \
    cargo run --release -p gapless-peers -- replay-log append --peers gapless,other --other PATH")]
struct Args {
    /// What to measure; everything, if nothing is named.
    #[arg(value_enum)]
    workloads: Vec<Workload>,
    /// How often each peer is measured; the peers take turns.
    #[arg(long, default_value = "15", value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// Whom to measure; everybody, if nobody is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Kind>,
    /// The command `gapless` to measure; built with cargo if not given.
    #[arg(long, value_name = "PATH")]
    gapless: Option<PathBuf>,
    /// Another build of the command, to compare with: the peer `other`.
    #[arg(long, value_name = "PATH")]
    other: Option<PathBuf>,
    /// Measure next to nothing, only to see that everything works.
    #[arg(long)]
    small: bool,
    /// Write the tables to this file, in Markdown.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write what was measured to this file, a JSON object per line.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = match std::env::args().nth(1).as_deref() {
        Some(peer::raw::SERVE) => runtime.block_on(serve_raw()),
        _ => runtime.block_on(measure(Args::parse())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    ExitCode::FAILURE
}

async fn serve_raw() -> Result<()> {
    preflight::descriptors()?;
    peer::raw::serve().await
}

async fn measure(args: Args) -> Result<()> {
    let limit = preflight::descriptors()?;
    let sizes = if args.small { Sizes::SMALL } else { Sizes::within(limit) };
    let peers = if args.peers.is_empty() { Kind::ALL.to_vec() } else { args.peers };
    let workloads = if args.workloads.is_empty() { Workload::ALL.to_vec() } else { args.workloads };
    let peers: Vec<_> =
        peers.into_iter().filter(|kind| is_ready(*kind, args.gapless.as_deref())).collect();
    if args.other.is_none() && peers.contains(&Kind::Other) {
        return Err(Failure::new("no other build is named").hint("name its command with `--other`"));
    }
    let gapless = match args.gapless {
        Some(path) => path,
        None if peers.contains(&Kind::Gapless) || peers.contains(&Kind::SharedLog) => {
            preflight::built()?
        }
        None => PathBuf::from("gapless"),
    };
    let programs = Programs { other: args.other.unwrap_or_else(|| gapless.clone()), gapless };
    let mut inexact = vec![];
    let versions =
        peers.iter().map(|kind| format!("* {}: {}\n", kind.title(), preflight::version(*kind)));
    let (mut markdown, mut json) = (versions.collect::<String>() + "\n", String::new());
    print!("{markdown}");
    for workload in workloads {
        let table =
            run(workload, &peers, &programs, workload.repeats(args.pairs.into()), &sizes).await;
        inexact.extend(
            table.inexact().map(|problem| format!("{}: {problem}", workload_name(workload))),
        );
        let text = table.markdown(&sizes);
        println!("{text}");
        markdown += &format!("{text}\n");
        json += &table.json(&sizes, &preflight::version);
    }
    if let Some(path) = args.out {
        std::fs::write(path, markdown)?;
    }
    if let Some(path) = args.json {
        std::fs::write(path, json)?;
    }
    match inexact.as_slice() {
        [] => Ok(()),
        inexact => Err(Failure::new(format!("of gapless itself, {}", inexact.join("; ")))),
    }
}

fn is_ready(kind: Kind, gapless: Option<&Path>) -> bool {
    let prepared = match (kind, gapless) {
        (Kind::Gapless, Some(_)) => Ok(()),
        (Kind::SharedLog, Some(_)) => preflight::prepare(Kind::Jetstream),
        (kind, _) => preflight::prepare(kind),
    };
    match prepared {
        Ok(()) => true,
        Err(failure) => {
            eprintln!("{} is skipped: {failure}", kind.title());
            false
        }
    }
}

/// All rounds of a workload. Each begins with another peer.
async fn run(
    workload: Workload,
    peers: &[Kind],
    programs: &Programs,
    rounds: usize,
    sizes: &Sizes,
) -> Table {
    let mut rows: Vec<_> = peers.iter().map(|kind| Row { kind: *kind, samples: vec![] }).collect();
    let mut servers: BTreeMap<usize, Box<dyn Peer>> = BTreeMap::new();
    for round in 0..rounds {
        for turn in 0..rows.len() {
            let nth = (round + turn) % rows.len();
            let row = &mut rows[nth];
            // Memory is measured in a server that has not had any connections before.
            let kept = servers.remove(&nth).filter(|_| workload != Workload::Idle);
            let topic = format!("{}-{round}", workload_name(workload));
            let measured = async {
                let mut server = match kept {
                    Some(server) => server,
                    None => row.kind.start(programs).await?,
                };
                let sample = workload.run(&mut *server, &topic, sizes).await?;
                Ok::<_, Failure>((server, sample))
            };
            match measured.await {
                Ok((server, sample)) => {
                    servers.insert(nth, server);
                    row.samples.push(Ok(sample));
                }
                Err(failure) => row.samples.push(Err(failure.to_string())),
            }
        }
        eprintln!("{}: round {} of {rounds}", workload_name(workload), round + 1);
    }
    Table { workload, rows }
}

fn workload_name(workload: Workload) -> String {
    use clap::ValueEnum as _;
    workload.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
