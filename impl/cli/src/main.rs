//! The command `gapless`: the library's servers and clients for the terminal.
//!
//! It composes, and decides nothing about protocols: those are in the library.

mod agent;
mod args;
mod chat;
mod config;
mod engine;
mod exit;
mod failure;
mod inspect;
mod log;
mod logging;
#[cfg(feature = "otlp")]
mod otlp;
mod publish;
mod secret;
mod serve;
mod signals;
mod stores;
mod tail;
mod task;
mod tls;
mod token;
mod url;

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;
use rand::SeedableRng as _;
use rand::rngs::SysRng;
use rand_chacha::ChaCha12Rng;

use self::args::{Cli, Command};
use self::config::{Config, NoConfig};
use self::failure::Failure;
use self::logging::MarkCounts;

fn main() -> ExitCode {
    let config = match config::read(std::env::args_os().collect()) {
        Ok(config) => config,
        Err(NoConfig::Clap(error)) => error.exit(),
        Err(NoConfig::File(failure)) => return ended(Err(failure)),
    };
    if config.cli.common.print_config {
        // Whoever closes the pipe has seen enough.
        let _ = std::io::stdout().write_all(config.printed.as_bytes());
        return ExitCode::from(exit::OK);
    }
    ended(run(config))
}

fn ended(result: Result<u8, Failure>) -> ExitCode {
    let code = result.unwrap_or_else(|failure| {
        eprintln!("{failure}");
        failure.code
    });
    ExitCode::from(code)
}

fn run(Config { cli, token_file_is_a_flag, .. }: Config) -> Result<u8, Failure> {
    let marks = match &cli.command {
        Command::Serve(_) => Some(MarkCounts::new()),
        _ => None,
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| {
        Failure::new(format!("the asynchronous runtime does not start: {error}"))
    })?;
    #[cfg(feature = "otlp")]
    let exporter = match &cli.command {
        Command::Serve(args) => args.otlp_endpoint.as_ref(),
        _ => None,
    };
    #[cfg(feature = "otlp")]
    let exporter =
        exporter.map(|url| otlp::Exporter::start(url, runtime.handle().clone())).transpose()?;
    #[cfg(feature = "otlp")]
    let spans = exporter.as_ref().map(otlp::Exporter::layer);
    #[cfg(not(feature = "otlp"))]
    let spans = None;
    logging::start(cli.common.log_format, cli.common.log_level, marks.clone(), spans);
    let code = match cli.command {
        Command::Serve(args) => {
            runtime.block_on(serve::run(args, marks.unwrap_or_else(MarkCounts::new)))
        }
        Command::Publish(args) => {
            let token = args.server.token(token_file_is_a_flag)?;
            runtime.block_on(publish::run(args, token))
        }
        Command::Tail(args) => {
            let token = args.server.token(token_file_is_a_flag)?;
            runtime.block_on(tail::run(args, token))
        }
        Command::Task(command) => {
            let token = command.server().token(token_file_is_a_flag)?;
            runtime.block_on(task::run(command, token))
        }
        Command::Chat(args) => {
            let token = args.server.token(token_file_is_a_flag)?;
            runtime.block_on(chat::run(args, token))
        }
        Command::Agent(args) => agent::run(args, &runtime),
        Command::Log(command) => {
            let token =
                command.server().map(|server| server.token(token_file_is_a_flag)).transpose()?;
            log::run(&command, token.as_ref(), &runtime)
        }
        Command::Inspect(args) => inspect::run(&args),
        Command::Token(command) => token::run(command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "gapless", &mut std::io::stdout());
            Ok(exit::OK)
        }
    };
    #[cfg(feature = "otlp")]
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    // A read from standard input or a database must not keep the process.
    runtime.shutdown_background();
    code
}

/// Random numbers, seeded by the system.
fn entropy() -> Result<Box<ChaCha12Rng>, Failure> {
    ChaCha12Rng::try_from_rng(&mut SysRng)
        .map(Box::new)
        .map_err(|error| Failure::new(format!("the system has no random numbers: {error}")))
}
