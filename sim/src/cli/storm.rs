//! `storm`: how long a storm of handshakes lasts, and what ends it.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::{Failure, usage};
use crate::exit;
use crate::scenario::parse_duration;
use crate::storm::{Config, Outcome, Second, Variant, storm};

/// Where the parts begin for which rates are printed, in seconds.
const PARTS: [usize; 14] = [0, 1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180];

#[derive(Debug, Args)]
pub(super) struct StormArgs {
    /// How many clients lose their connections at the same moment
    #[arg(long, value_name = "COUNT", default_value = "1000000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    clients: u32,
    /// How many servers they come back to
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    servers: u32,
    /// How many handshakes a server makes in a second
    #[arg(long, value_name = "COUNT", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    handshakes_per_second: u32,
    /// How long a client waits for an answer
    #[arg(long, value_name = "TIME", default_value = "10s")]
    patience: String,
    /// How much a server that refuses lets wait, as the time that it takes for that
    #[arg(long, value_name = "TIME", default_value = "2s")]
    admitted: String,
    /// When to stop looking
    #[arg(long = "for", value_name = "TIME", default_value = "5m")]
    horizon: String,
    /// From which everything is drawn
    #[arg(long, value_name = "SEED", default_value = "1")]
    seed: String,
}

pub(super) fn run(args: &StormArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let config = Config {
        clients: args.clients,
        servers: args.servers,
        handshakes_per_second: args.handshakes_per_second,
        patience: duration("--patience", &args.patience)?,
        admitted: duration("--admitted", &args.admitted)?,
        horizon: duration("--for", &args.horizon)?,
        seed: args.seed.parse().map_err(|error| usage(error, "give `--seed` a seed"))?,
    };
    let least = f64::from(config.clients)
        / f64::from(config.servers)
        / f64::from(config.handshakes_per_second);
    writeln!(
        out,
        "  {} clients lose their connections at once; {} servers make {} handshakes per second each, so\n  \
         it takes {least:.1} s at least",
        config.clients, config.servers, config.handshakes_per_second
    )?;
    let outcomes = Variant::ALL.map(|variant| (variant, storm(&config, variant)));
    writeln!(
        out,
        "\n  {:<12} {:>7} {:>7} {:>7} {:>9} {:>8} {:>8} {:>9}",
        "", "half", "99 %", "all", "attempts", "refused", "wasted", "peak"
    )?;
    for (variant, outcome) in &outcomes {
        let when = |percent| match outcome.connected(percent, config.clients) {
            Some(time) => format!("{:.1} s", time.as_secs_f64()),
            None => "never".to_owned(),
        };
        let each = |count: u64| format!("{:.2}", count as f64 / f64::from(config.clients));
        writeln!(
            out,
            "  {:<12} {:>7} {:>7} {:>7} {:>9} {:>8} {:>8} {:>9}",
            variant.name(),
            when(50),
            when(99),
            when(100),
            each(outcome.attempts),
            each(outcome.refused),
            each(outcome.wasted),
            outcome.peak() / u64::from(config.servers)
        )?;
    }
    writeln!(
        out,
        "\n  attempts, refused, wasted: for each client. peak: attempts that one server gets in one second.\n\n  \
         thousands per second: attempts that come, handshakes that somebody has waited for"
    )?;
    rates(&outcomes, out)?;
    Ok(exit::OK)
}

fn duration(option: &str, text: &str) -> Result<Duration, Failure> {
    let hint = format!("write `{option} 10s` or `{option} 5m`");
    parse_duration(text)
        .map(Duration::from_millis)
        .ok_or_else(|| usage(format!("`{text}` is no duration"), hint))
}

/// A line for each part of the time, with the rates of all.
fn rates(outcomes: &[(Variant, Outcome)], out: &mut dyn Write) -> Result<(), Failure> {
    write!(out, "  {:>6}", "from")?;
    for (variant, _) in outcomes {
        write!(out, " {:>15}", variant.name())?;
    }
    writeln!(out)?;
    let end = outcomes.iter().map(|(_, outcome)| outcome.seconds.len()).min().unwrap_or(0);
    let ends = PARTS[1..].iter().copied().chain([end]);
    for (from, to) in PARTS.into_iter().zip(ends) {
        let to = to.min(end);
        let rates = outcomes.iter().map(|(_, outcome)| rate(outcome.seconds.get(from..to)));
        let Some(rates) = rates.collect::<Option<Vec<_>>>() else { break };
        write!(out, "  {:>6}", format!("{from} s"))?;
        for (attempts, connected) in rates {
            write!(out, " {attempts:>8.1} {connected:>6.1}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// How many thousands of attempts and of handshakes there are in a second; `None` of no time.
fn rate(seconds: Option<&[Second]>) -> Option<(f64, f64)> {
    let seconds = seconds.filter(|seconds| !seconds.is_empty())?;
    let each = |of: fn(&Second) -> u64| {
        seconds.iter().map(of).sum::<u64>() as f64 / seconds.len() as f64 / 1_000.0
    };
    Some((each(|second| second.attempts), each(|second| second.connected)))
}
