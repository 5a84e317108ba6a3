//! The command line. Every option can also be in the environment and in a file: see `config`.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use gapless::AgentId;

use crate::agent::args::AgentArgs;
use crate::chat::args::ChatArgs;
use crate::engine::{EngineUrls, stream_name};
use crate::inspect::InspectArgs;
use crate::log::args::LogCommand;
use crate::task::args::TaskCommand;
use crate::url::ServerUrl;

const AFTER_HELP: &str = "\
Two terminals:
  gapless serve --data data
  gapless tail --agent demo --cursor demo.cursor --output demo.jsonl --token-file data/subscriber.token
and in a third:
  echo '{\"text\":\"hi\"}' | gapless publish --agent demo --token-file data/publisher.token

Each option is looked for on the command line, then in the environment, then in the file of
`--config`, then its default holds. `--print-config` shows what that comes to.

Exit codes: 0 done; 1 failed; 2 the command line or the configuration is wrong; 3 `tail`: the server
declared that events are lost; 4 the token is refused; 5 `log`: something is damaged; 124 and 125 `task follow`: no exit code, not
followed; 130 `publish`: stopped before the end.";

/// Event streams, tasks and sessions that survive reconnects.
#[derive(Debug, Parser)]
#[command(name = "gapless", version, about, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all commands have.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// A TOML file with options: those of a command in a table with its name, `data = "…"` under
    /// `[serve]`; those of all commands at the top.
    #[arg(long, global = true, value_name = "FILE", env = "GAPLESS_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print the options as they are after all sources, each with where it comes from, and end.
    #[arg(long, global = true)]
    pub(crate) print_config: bool,
    /// How the log on standard error looks.
    #[arg(long, global = true, value_enum, default_value = "human", env = "GAPLESS_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// How much is logged.
    #[arg(long, global = true, value_enum, default_value = "info", env = "GAPLESS_LOG_LEVEL")]
    pub(crate) log_level: LogLevel,
}

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for a person.
    Human,
    /// One JSON object per line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// What happens seldom.
    Info,
    /// What happens often.
    Debug,
    /// Everything.
    Trace,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve event streams, tasks and sessions, on one port.
    Serve(ServeArgs),
    /// Publish events from standard input, one JSON object per line.
    Publish(PublishArgs),
    /// Write the events of a stream to a file, each exactly once, or to standard output.
    Tail(TailArgs),
    /// Submit tasks to agents, look at them, follow their output.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Run tasks: the agent that a server gives them to.
    Agent(AgentArgs),
    /// Talk: the terminal client of sessions.
    Chat(ChatArgs),
    /// Back up what a server keeps, restore it, verify it.
    #[command(subcommand)]
    Log(LogCommand),
    /// Show what is in a database or a cursor, and change nothing.
    Inspect(InspectArgs),
    /// Make tokens, and hash them for a token file.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the completions for a shell.
    #[command(after_help = "Examples:
  gapless completions bash > ~/.local/share/bash-completion/completions/gapless
  gapless completions zsh > ~/.zfunc/_gapless")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

const SERVE_HELP: &str = "\
Without a token file it listens on a loopback address only; it makes DIR/tokens.toml, and a file with
a token for each of publisher, subscriber and user beside it. They can be read by their owner alone.

With `--log` the events of all servers are in one log, on NATS JetStream, and a client may come back to
any of them. Tasks and sessions stay in the data folder of this server.

SIGTERM and SIGINT: nothing is accepted any more, connections are closed with code 1001 (clients
reconnect after a pause and resume), what was asked is answered; exit code 0. SIGHUP: the token file
is read again, as it is whenever it changes.

Examples:
  gapless serve --data data
  gapless serve --data /var/lib/gapless --listen 0.0.0.0:7117 --tokens /etc/gapless/tokens.toml --log-format json
  gapless serve --data data --log nats://n1:4222,n2:4222,n3:4222
  curl http://127.0.0.1:7117/metrics";

#[derive(Debug, Args)]
#[command(after_help = SERVE_HELP)]
pub(crate) struct ServeArgs {
    /// The folder of the databases; made if there is none.
    #[arg(long, value_name = "DIR", env = "GAPLESS_DATA")]
    pub(crate) data: PathBuf,
    /// Where to listen. Port 0 takes one that is free.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7117", env = "GAPLESS_LISTEN")]
    pub(crate) listen: SocketAddr,
    /// Who may do what; see docs/serve.md. `DIR/tokens.toml` if not given.
    #[arg(long, value_name = "FILE", env = "GAPLESS_TOKENS")]
    pub(crate) tokens: Option<PathBuf>,
    /// The certificate chain in PEM; with it, connections are TLS. It is read again when it changes.
    #[arg(long, value_name = "FILE", env = "GAPLESS_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the certificate in PEM.
    #[arg(long, value_name = "FILE", env = "GAPLESS_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// How long to wait for connections and turns when the server is stopped.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, env = "GAPLESS_DRAIN")]
    pub(crate) drain: Duration,
    /// How many events of each stream are kept at least; all, if not given.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), env = "GAPLESS_RETAIN_EVENTS")]
    pub(crate) retain_events: Option<u64>,
    /// How many subscribers a stream may have at the same time; one more takes the place of the oldest.
    #[arg(long, value_name = "COUNT", default_value = "16", env = "GAPLESS_SOCKETS_PER_AGENT")]
    pub(crate) sockets_per_agent: NonZeroUsize,
    /// Pages that may open WebSockets beside those of this host and port, as `https://app.example`;
    /// several with commas between them.
    #[arg(long, value_name = "ORIGINS", value_parser = origins, env = "GAPLESS_ALLOW_ORIGIN")]
    pub(crate) allow_origin: Option<OriginList>,
    /// How many WebSockets may be open, and how many other connections.
    #[arg(long, value_name = "COUNT", default_value = "20000", value_parser = count, env = "GAPLESS_MAX_CONNECTIONS")]
    pub(crate) max_connections: usize,
    /// How many WebSockets of one principal may be open, or of one agent that runs tasks.
    #[arg(long, value_name = "COUNT", default_value = "16000", value_parser = count, env = "GAPLESS_MAX_CONNECTIONS_PER_PRINCIPAL")]
    pub(crate) max_connections_per_principal: usize,
    /// How many frames may come on a WebSocket in a second; four times as many at once.
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = clap::value_parser!(NonZeroU32), env = "GAPLESS_MAX_FRAME_RATE")]
    pub(crate) max_frame_rate: NonZeroU32,
    /// NATS JetStream as the log of events, which other servers have as well: `nats://HOST:PORT`,
    /// several with commas between them. Without it, the log is in DIR.
    #[arg(
        long,
        value_name = "URLS",
        env = "GAPLESS_LOG",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub(crate) log: Option<EngineUrls>,
    /// The stream of JetStream; made if there is none.
    #[arg(long, value_name = "NAME", default_value = "gapless", value_parser = stream_name, env = "GAPLESS_LOG_STREAM")]
    pub(crate) log_stream: String,
    /// On how many servers of NATS each event is kept.
    #[arg(long, value_name = "COUNT", default_value = "3", value_parser = clap::value_parser!(u8).range(1..=5), env = "GAPLESS_LOG_REPLICAS")]
    pub(crate) log_replicas: u8,
    /// An OpenTelemetry collector that takes OTLP over HTTP, as `http://127.0.0.1:4318`: spans are
    /// exported to it.
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL", env = "GAPLESS_OTLP_ENDPOINT")]
    pub(crate) otlp_endpoint: Option<ServerUrl>,
}

/// Origins of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OriginList(pub(crate) Vec<String>);

/// Where the server is, and with which token to go there.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7117", env = "GAPLESS_URL")]
    pub(crate) url: ServerUrl,
    /// A file whose first line is the token. Without the flag, a token in the environment variable
    /// GAPLESS_TOKEN comes first.
    #[arg(long, value_name = "FILE", env = "GAPLESS_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates in PEM to trust instead of those of the system, for an `https` URL.
    #[arg(long, value_name = "FILE", env = "GAPLESS_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
}

const PUBLISH_HELP: &str = "\
Each line is the payload of one event. An event is tried again, after pauses that grow to 10 s, until
the server says that it is stored; the order is that of the lines. Empty lines are left out.

Every event has an id, and the server stores an id once. With `--id-prefix P` the id of line 7 is
`P-7`. Without it the id is made of the line and all lines before it. Either way, publishing the same
input again (after a crash, or with more lines at its end) publishes only what is not stored yet. To
publish the same lines once more as new events, give another prefix.

Examples:
  gapless publish --agent demo --token-file data/publisher.token < events.jsonl
  generate | gapless publish --agent demo --type order.made --id-prefix import-2026-11-29";

#[derive(Debug, Args)]
#[command(after_help = PUBLISH_HELP)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The agent whose stream the events go to.
    #[arg(long, value_parser = AgentId::parse, env = "GAPLESS_AGENT")]
    pub(crate) agent: AgentId,
    /// The type of the events.
    #[arg(long = "type", value_name = "TYPE", default_value = "message", env = "GAPLESS_TYPE")]
    pub(crate) kind: String,
    /// Makes the ids: `PREFIX-LINE`.
    #[arg(long, value_name = "PREFIX", value_parser = id_prefix, env = "GAPLESS_ID_PREFIX")]
    pub(crate) id_prefix: Option<String>,
    /// How many events are in flight at most; 1 is for servers that know no batches.
    #[arg(long, value_name = "COUNT", default_value = "256", value_parser = clap::value_parser!(u16).range(1..=256), env = "GAPLESS_BATCH")]
    pub(crate) batch: u16,
}

const TAIL_HELP: &str = "\
With `--output FILE` each event is in the file exactly once, even if this process is killed: the
cursor file says up to which byte the output belongs to it, and what is beyond is cut off at the next
start and fetched again. The file must be left alone while a cursor belongs to it.

On standard output that cannot be: after a kill, some events may be written a second time. What is
written is never missing.

An event is one line, as the server sent it. If the server declares that events are lost, that is told
on standard error, is a line of type `gap` in the output, and makes the exit code 3.

Examples:
  gapless tail --agent demo --cursor demo.cursor --output demo.jsonl --token-file data/subscriber.token
  gapless tail --agent demo --cursor demo.cursor --output - | jq .text";

#[derive(Debug, Args)]
#[command(after_help = TAIL_HELP)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The agent whose stream is wanted, for tokens of `gapless serve` that may read several: it is
    /// sent as `TOKEN@AGENT`. Without it, the token says whose stream it is.
    #[arg(long, value_parser = AgentId::parse, env = "GAPLESS_AGENT")]
    pub(crate) agent: Option<AgentId>,
    /// Keeps the position; made if there is none.
    #[arg(long, value_name = "FILE", env = "GAPLESS_CURSOR")]
    pub(crate) cursor: PathBuf,
    /// Where events are written; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "-", env = "GAPLESS_OUTPUT")]
    pub(crate) output: PathBuf,
    /// Where to begin if there is no cursor yet.
    #[arg(long, value_enum, default_value = "beginning", env = "GAPLESS_START")]
    pub(crate) start: Start,
    /// End after this many events.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), env = "GAPLESS_COUNT")]
    pub(crate) count: Option<u64>,
}

/// Where a new cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Start {
    /// With the oldest event that the server keeps.
    Beginning,
    /// With the first event after the first connection.
    Live,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a fresh token, and on standard error its entry for a token file.
    #[command(after_help = "Examples:
  gapless token new --principal billing --role publish --role subscribe:orders
  gapless token new --principal anna --role user --add data/tokens.toml > anna.token")]
    New {
        /// Whom it stands for.
        #[arg(long)]
        principal: String,
        /// What it allows: `publish`, `tasks`, `user`, `operator`, `subscribe:AGENT` or `subscribe:*`.
        #[arg(long = "role", value_name = "ROLE", required = true)]
        roles: Vec<String>,
        /// Add the entry to this token file instead of printing it.
        #[arg(long, value_name = "FILE")]
        add: Option<PathBuf>,
    },
    /// Print the hash of the token on standard input, for a token file.
    #[command(after_help = "Example:\n  gapless token hash < my.token")]
    Hash,
}

/// A time with its unit: `10s`, `1m 30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as `10s` or `1m`"))
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a whole number from 1".to_owned()),
        Ok(count) => Ok(count),
    }
}

/// Origins as browsers send them: scheme, host, and the port if it is not the scheme's own.
fn origins(text: &str) -> Result<OriginList, String> {
    let origin = |text: &str| {
        let text = text.trim();
        let written = text.split_once("://").is_some_and(|(scheme, authority)| {
            !scheme.is_empty() && !authority.is_empty() && !authority.contains('/')
        });
        match written {
            true => Ok(text.to_owned()),
            false => Err(format!("`{text}` is no origin; write it as `https://app.example`")),
        }
    };
    text.split(',').map(origin).collect::<Result<_, _>>().map(OriginList)
}

/// The longest id is 256 bytes; the number of a line has to fit as well.
const ID_PREFIX_BYTES_MAX: usize = 200;

fn id_prefix(text: &str) -> Result<String, String> {
    match text.len() {
        1..=ID_PREFIX_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!("a prefix has 1 to {ID_PREFIX_BYTES_MAX} bytes")),
    }
}
