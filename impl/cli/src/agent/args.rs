//! The command line of `gapless agent`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use gapless::AgentId;

use crate::args::duration;
use crate::url::ServerUrl;

const AGENT_HELP: &str = "\
It runs what is submitted for its id with `/bin/sh -c`, each attempt once, whatever breaks: what it has
taken, what has begun, output and results are in DIR/agent.db before they are said. An attempt that runs
when this process is killed ends as interrupted and is not run again. Whoever may submit tasks to the
server runs commands as this user; `--allow` restricts that to the commands that are named.

SIGTERM and SIGINT: nothing more is begun, what runs is waited for up to `--drain`, then it is ended with
the result `interrupted`; exit code 0. A second signal ends what runs at once.

Examples:
  gapless agent keygen --id worker-1 --key worker-1.pem --add data/tokens.toml
  gapless agent --id worker-1 --key worker-1.pem --data worker-1
  gapless agent --id worker-1 --key worker-1.pem --data worker-1 --parallel 4 --allow 'make -C /srv/site'";

#[derive(Debug, Args)]
#[command(after_help = AGENT_HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AgentCommand>,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7117", env = "GAPLESS_URL")]
    pub(crate) url: ServerUrl,
    /// Certificates in PEM to trust instead of those of the system, for an `https` URL.
    #[arg(long, value_name = "FILE", env = "GAPLESS_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// The name of the agent, which the server knows the key of.
    #[arg(long, value_name = "AGENT", required = true, value_parser = AgentId::parse, env = "GAPLESS_AGENT")]
    pub(crate) id: Option<AgentId>,
    /// Its RSA key in PKCS#8, PEM or DER.
    #[arg(long, value_name = "FILE", required = true, env = "GAPLESS_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// The folder of its database; made if there is none.
    #[arg(long, value_name = "DIR", required = true, env = "GAPLESS_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// How many tasks run side by side.
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024), env = "GAPLESS_PARALLEL")]
    pub(crate) parallel: u16,
    /// Run this command and no other but those of further flags; all, if there is none. A command is
    /// allowed if it is the same text.
    #[arg(long, value_name = "COMMAND", env = "GAPLESS_ALLOW")]
    pub(crate) allow: Vec<String>,
    /// How long to wait for what runs when the agent is stopped.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, env = "GAPLESS_DRAIN")]
    pub(crate) drain: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Make a key that only its owner can read, and print the entry for the server's token file.
    Keygen(KeygenArgs),
}

const KEYGEN_HELP: &str = "\
A key that is there already is left as it is, and its entry is printed. The key is made by the program
`openssl`, which must be there; it has 3072 bits.

Examples:
  gapless agent keygen --id worker-1 --key worker-1.pem >> data/tokens.toml
  gapless agent keygen --id worker-1 --key worker-1.pem --add data/tokens.toml";

#[derive(Debug, Args)]
#[command(after_help = KEYGEN_HELP)]
pub(crate) struct KeygenArgs {
    /// The name of the agent.
    #[arg(long, value_name = "AGENT", value_parser = AgentId::parse, env = "GAPLESS_AGENT")]
    pub(crate) id: AgentId,
    /// Where the key is written, in PKCS#8, PEM.
    #[arg(long, value_name = "FILE", env = "GAPLESS_KEY")]
    pub(crate) key: PathBuf,
    /// Add the entry to this token file instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) add: Option<PathBuf>,
}
