//! Several servers on one log, and the engine of that log, all of which are killed again and again.
//!
//! The load is events only, because sessions and tasks stay on one server. What it does not do: stop
//! the machine, whose memory has what was written, or part the nodes from each other.

mod engine;
mod kills;
mod run;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Result;
use crate::mix::{Mix, Mutant, Protocols};
use crate::nodes::free_address;
use crate::{duration, folder, preflight, seed};

/// Puts several servers on one log under a load of events, kills them and nodes of the engine, and
/// judges what came of it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing is wrong, 1 something is, 2 it could not be found out.

Examples:
  cargo run --release -p gapless-load -- cluster
  cargo run --release -p gapless-load -- cluster --clients 100 --for 20s --engine-killed-every 10s --seed 7"
)]
pub(crate) struct ClusterArgs {
    /// How many subscribers there are.
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = clap::value_parser!(u32).range(20..=14_000))]
    clients: u32,
    /// How many servers they are of.
    #[arg(long, value_name = "COUNT", default_value = "3", value_parser = clap::value_parser!(u8).range(2..=9))]
    servers: u8,
    /// How many nodes the engine has; three of them have the log.
    #[arg(long, value_name = "COUNT", default_value = "3", value_parser = clap::value_parser!(u8).range(3..=5))]
    engine_nodes: u8,
    /// How long there are kills.
    #[arg(long = "for", value_name = "TIME", default_value = "2m", value_parser = duration)]
    length: Duration,
    /// How long after one kill of a server the next one comes.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    server_killed_every: Duration,
    /// How long after one kill of a node of the engine the next one comes, if all nodes have caught up.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    engine_killed_every: Duration,
    /// How long everything may take to arrive after the last kill.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    settle: Duration,
    /// From which the kills are drawn; drawn and printed, if not given.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// How many events are published in a second.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    events_per_second: u32,
    /// How many processes the clients are in.
    #[arg(long, value_name = "COUNT", default_value = "3", value_parser = clap::value_parser!(u8).range(1..=100))]
    processes: u8,
    /// The command `gapless`; built with cargo if not given.
    #[arg(long, value_name = "PATH")]
    gapless: Option<PathBuf>,
    /// The command `nats-server`; the one in `PATH`, if not given.
    #[arg(long, value_name = "PATH", default_value = "nats-server")]
    nats_server: PathBuf,
    /// Keep everything in this new folder, instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Let one client do something wrong, to see that it is found.
    #[arg(long, value_enum)]
    mutant: Option<Mutant>,
}

/// How many publishers a stream has: they are at different servers, which have to agree.
const PUBLISHERS_OF_A_STREAM: usize = 2;

/// How often what is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) server_every: Duration,
    pub(crate) engine_every: Duration,
    /// How long everything may take to arrive after that.
    pub(crate) settle: Duration,
}

/// Carries out the load; whether nothing is wrong.
pub(crate) async fn load(args: ClusterArgs) -> Result<bool> {
    let connections = args.clients as usize;
    preflight::descriptors(connections, 0, args.processes.into())?;
    let engine = preflight::nats_server(args.nats_server)?;
    let gapless = preflight::gapless(args.gapless)?;
    let (_temporary, folder) = folder(args.folder)?;
    let seed = seed(args.seed)?;
    let mut servers = Vec::new();
    for _ in 0..args.servers {
        servers.push(free_address().await?);
    }
    let mix = Mix {
        connections,
        proxied: 0,
        workers: args.processes.into(),
        events_per_second: args.events_per_second,
        publishers_of_a_stream: PUBLISHERS_OF_A_STREAM,
        length: args.length,
        seed,
        protocols: Protocols::Events,
        servers,
        proxy: None,
        folder,
        mutant: args.mutant,
    };
    let pace = Pace {
        server_every: args.server_killed_every,
        engine_every: args.engine_killed_every,
        settle: args.settle,
    };
    println!(
        "  seed       {seed}\n  cluster    {} servers, {} nodes of {}\n  load       {} subscribers of {} streams, \
         of {PUBLISHERS_OF_A_STREAM} publishers each, in {} processes; {} events/s\n  faults     a server killed every {:?}, a node of the engine every {:?}, \
         for {:?}",
        mix.servers.len(),
        args.engine_nodes,
        engine.version,
        mix.subscribers(),
        mix.streams(),
        mix.workers,
        mix.events_per_second,
        pace.server_every,
        pace.engine_every,
        mix.length
    );
    run::run(mix, &gapless, &engine.program, args.engine_nodes.into(), pace).await
}
