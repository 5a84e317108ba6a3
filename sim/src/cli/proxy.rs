//! `proxy`.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast;

use super::{Failure, usage};
use crate::exit;
use crate::proxy::{
    CONNECTIONS_MAX, Decision, Faults, Group, Proxy, Report, Strike, Summary, Target,
};
use crate::scenario::parse_duration;

#[derive(Debug, Args)]
pub(super) struct ProxyArgs {
    /// Where connections go, as `ws://127.0.0.1:8080`; without TLS
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// Where to listen; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The seed or commit from which the faults follow
    #[arg(long, value_name = "SEED", default_value = "1", conflicts_with = "plan")]
    seed: String,
    /// What goes wrong: `link`, `peer`, `strange`, with commas between
    #[arg(long, value_name = "GROUPS", default_value = "link,peer", conflicts_with = "plan")]
    faults: String,
    /// How many faults each connection has
    #[arg(long, value_name = "RATE", default_value = "2..20 per minute", conflicts_with = "plan")]
    rate: String,
    /// When to end (default: when it is interrupted)
    #[arg(long, value_name = "TIME")]
    duration: Option<String>,
    /// Inject the faults of a file that was written with `--json` instead
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// How many connections may be open at once
    #[arg(long, value_name = "COUNT", default_value_t = CONNECTIONS_MAX)]
    connections: usize,
    /// Read faults that hit many connections at once from standard input, one JSON object per line:
    /// {"percent":20,"seed":7,"fault":{"cut":{"how":"reset"}}}
    #[arg(long)]
    strikes: bool,
    /// Write everything that happens to a file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &ProxyArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let upstream: Target = args.upstream.parse().map_err(|error| {
        usage(error, "`--upstream ws://127.0.0.1:8080` is where a server listens")
    })?;
    let faults = match &args.plan {
        Some(path) => Faults::Planned(planned(path)?),
        None => Faults::Drawn {
            seed: option("--seed", &args.seed)?,
            groups: groups(&args.faults)?,
            rate: option("--rate", &args.rate)?,
        },
    };
    let duration = args.duration.as_deref().map(duration).transpose()?;
    let mut json = args.json.as_deref().map(create).transpose()?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(format!("error: no sockets can be had: {error}\n")))?;
    let summary = runtime.block_on(async {
        let proxy = Proxy::listen(args.listen, upstream.clone(), faults.clone()).await;
        let proxy = proxy.map_err(|error| {
            let hint = "give an address of this machine whose port is free, or port 0";
            usage(format!("`{}` cannot be listened at: {error}", args.listen), hint)
        })?;
        let proxy = proxy.with_connections_max(args.connections);
        if args.strikes {
            read_strikes(proxy.strikes());
        }
        write!(out, "{}", heading(proxy.address()?, &upstream, &faults))?;
        out.flush()?;
        let end = end(duration)?;
        let mut written = Ok(());
        let summary = proxy
            .run(end, |report| {
                if written.is_ok() {
                    written = tell(report, out, json.as_mut());
                }
            })
            .await;
        written?;
        Ok::<_, Failure>(summary)
    })?;
    write!(out, "{}", text(&summary))?;
    if let Some(file) = &mut json {
        let line = serde_json::json!({ "type": "summary", "summary": summary });
        writeln!(file, "{line}")?;
    }
    Ok(exit::OK)
}

/// Passes on what standard input says, to its end. A line that is no strike is told and hits nobody.
fn read_strikes(strikes: broadcast::Sender<Strike>) {
    // No simulation is near: the proxy stands between real sockets, and standard input blocks its reader.
    #[expect(clippy::disallowed_methods, reason = "standard input blocks whoever reads it")]
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            match serde_json::from_str::<Strike>(&line) {
                // Without connections nobody listens.
                Ok(strike) => drop(strikes.send(strike)),
                Err(error) => eprintln!("no strike: {error}: {line}"),
            }
        }
    });
}

fn option<T: FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error| usage(error, format!("correct `{name}`")))
}

fn groups(text: &str) -> Result<Vec<Group>, Failure> {
    text.split(',').map(|word| option("--faults", word)).collect()
}

fn duration(text: &str) -> Result<Duration, Failure> {
    match parse_duration(text) {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(usage(format!("`{text}` is no duration"), "write `--duration 60s` or `5m`")),
    }
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| {
        usage(
            format!("`{}` cannot be written: {error}", path.display()),
            "name a file in a folder that exists and is writable",
        )
    })
}

/// The faults in a file that was written with `--json`.
fn planned(path: &Path) -> Result<Vec<Decision>, Failure> {
    let hint = "a plan is a file that was written with `proxy --json FILE`; of its lines those with \
                `\"type\":\"fault\"` count";
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("`{}` cannot be read: {error}", path.display()), hint))?;
    let mut decisions = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let problem = |error: serde_json::Error| {
            let place = format!("line {} of `{}`", index + 1, path.display());
            usage(format!("{place} cannot be understood: {error}"), hint)
        };
        let line: serde_json::Value = serde_json::from_str(line).map_err(problem)?;
        if line.get("type").is_some_and(|kind| kind == "fault") {
            decisions.push(serde_json::from_value(line).map_err(problem)?);
        }
    }
    Ok(decisions)
}

/// The time is over, or somebody wants it to end.
fn end(duration: Option<Duration>) -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let over = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = over => {}
        }
    })
}

fn heading(address: SocketAddr, upstream: &Target, faults: &Faults) -> String {
    let faults = match faults {
        Faults::Drawn { seed, groups, rate } => {
            let rate = match rate.from == rate.to {
                true => rate.to.to_string(),
                false => format!("{}..{}", rate.from, rate.to),
            };
            let names: Vec<&str> = groups.iter().map(|group| group.name()).collect();
            format!("{}, {rate} per minute and connection, seed {seed}", names.join(", "))
        }
        Faults::Planned(decisions) => format!("{} from a plan", decisions.len()),
    };
    format!("  listens    ws://{address}\n  upstream   {upstream}\n  faults     {faults}\n")
}

fn tell(report: &Report, out: &mut dyn Write, json: Option<&mut File>) -> io::Result<()> {
    if let Some(file) = json {
        let line = serde_json::to_string(report).expect("a report is always JSON");
        writeln!(file, "{line}")?;
    }
    let (time_ms, connection, text) = match report {
        Report::Opened { .. } | Report::Closed { .. } => return Ok(()),
        Report::Fault { decision, time_ms, passed_over: None } => {
            (time_ms, decision.connection, decision.fault.to_string())
        }
        Report::Fault { decision, time_ms, passed_over: Some(why) } => {
            (time_ms, decision.connection, format!("passed over, {why}: {}", decision.fault))
        }
        Report::Unreachable { connection, time_ms, problem } => {
            (time_ms, *connection, format!("the upstream cannot be reached: {problem}"))
        }
        Report::Full { connection, time_ms } => {
            (time_ms, *connection, "too many connections are open: broken".to_owned())
        }
    };
    let (seconds, millis) = (time_ms / 1_000, time_ms % 1_000);
    writeln!(out, "  {seconds:>6}.{millis:03}  connection {connection}  {text}")?;
    out.flush()
}

fn text(summary: &Summary) -> String {
    let Summary { connections, unreachable, full, faults, passed_over } = summary;
    let injected: u64 = faults.values().sum();
    let kinds: Vec<String> =
        faults.iter().map(|(kind, count)| format!("{kind} ×{count}")).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
    let mut text = format!("  carried    {connections} connections\n");
    if unreachable + full > 0 {
        text +=
            &format!("  broken     {unreachable} without an upstream, {full} without a place\n");
    }
    text + &format!("  injected   {injected} faults{kinds}; {passed_over} passed over\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_with_json_can_be_injected_again() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let line = r#"{"type":"fault","connection":3,"due_ms":42,"fault":{"cut":{"how":"reset"}},"time_ms":99}"#;
        let text = format!("{{\"type\":\"opened\",\"connection\":3,\"time_ms\":57}}\n{line}\n");
        std::fs::write(file.path(), text).expect("written");
        let Ok(decisions) = planned(file.path()) else { panic!("a plan was expected") };
        let report: Report = serde_json::from_str(line).expect("a report");
        let Report::Fault { decision, .. } = report else { panic!("a fault was expected") };
        assert_eq!(decisions, [decision]);
    }

    fn command(line: &str) -> (u8, String, String) {
        let words = std::iter::once("gapless-sim").chain(line.split_whitespace());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = super::super::main(words.map(Into::into), &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (code, text(out), text(err))
    }

    #[test]
    fn a_proxy_ends_in_order_when_its_time_is_over() {
        let (code, out, err) =
            command("proxy --upstream ws://127.0.0.1:1 --duration 10ms --seed 7");
        assert_eq!(code, exit::OK, "{err}");
        for wanted in ["listens    ws://127.0.0.1:", "seed 7", "carried    0 connections"] {
            assert!(out.contains(wanted), "{wanted:?} is not in\n{out}");
        }
    }

    #[test]
    fn an_upstream_with_tls_is_refused_with_the_reason_and_a_remedy() {
        let (code, _, err) = command("proxy --upstream wss://localhost");
        assert_eq!(code, exit::USAGE);
        assert!(err.contains("asks for TLS, which this proxy does not speak"), "{err}");
        assert!(err.contains("hint: "), "{err}");
    }

    #[test]
    fn a_line_that_is_no_report_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "{}\n{\"type\":\"fault\"}\n").expect("written");
        let Err(Failure::Usage(text)) = planned(file.path()) else { panic!("it is no plan") };
        assert!(text.contains("line 2 of"), "{text}");
    }
}
