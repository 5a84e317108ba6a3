//! The command line of `gapless log`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::ServerArgs;
use crate::engine::{EngineUrls, stream_name};
use crate::serve::backup::BackupName;

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Copy the databases of a server.
    Backup(BackupArgs),
    /// Put the databases of a backup into a data folder, in a new epoch.
    Restore(RestoreArgs),
    /// Check a backup, or the data folder of a server that is stopped.
    Verify(VerifyArgs),
    /// Begin a new epoch on a log that several servers share, after its engine was restored.
    NewEpoch(NewEpochArgs),
}

const BACKUP_HELP: &str = "\
The databases of a server belong to it alone while it runs. With `--online` it makes the backup itself, in
the folder `backups` of its data folder, and goes on serving; the token needs the role `operator`. With
`--data` and `--to` the server must be stopped. The backup appears when it is whole, with the hashes of
its files in `backup.json`. Tokens are not part of it.

Examples:
  gapless log backup --online 2026-11-29 --url https://gapless.example --token-file operator.token
  gapless log backup --data data --to backups/2026-11-29";

#[derive(Debug, Args)]
#[command(after_help = BACKUP_HELP)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Asks a server that runs: the name of the backup, of letters, digits, `-`, `_` and `.`.
    #[arg(long, value_name = "NAME", value_parser = BackupName::parse)]
    pub(crate) online: Option<BackupName>,
    /// The data folder of a server that is stopped.
    #[arg(long, value_name = "DIR", env = "GAPLESS_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Where the backup is to be; there must be nothing yet.
    #[arg(long, value_name = "DIR", conflicts_with = "online")]
    pub(crate) to: Option<PathBuf>,
}

impl LogCommand {
    /// The server that is to be asked, if one is.
    pub(crate) fn server(&self) -> Option<&ServerArgs> {
        match self {
            Self::Backup(args) => args.online.as_ref().map(|_| &args.server),
            Self::Restore(_) | Self::Verify(_) | Self::NewEpoch(_) => None,
        }
    }
}

const RESTORE_HELP: &str = "\
The backup is verified first. A new epoch is opened: no number that was given after the backup is taken
for another event, and clients that have seen more are told what they cannot have. If it is interrupted,
run it again with `--replace`, before the server is started.

Examples:
  gapless log restore --from backups/2026-11-29 --data data
  gapless log restore --from backups/2026-11-29 --data data --replace";

#[derive(Debug, Args)]
#[command(after_help = RESTORE_HELP)]
pub(crate) struct RestoreArgs {
    /// The backup.
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// The data folder; made if there is none.
    #[arg(long, value_name = "DIR", env = "GAPLESS_DATA")]
    pub(crate) data: PathBuf,
    /// Move databases that are there into a folder `replaced-N` beside them.
    #[arg(long)]
    pub(crate) replace: bool,
}

const VERIFY_HELP: &str = "\
Checks what SQLite can check, references, that no number is missing or out of place, the order of epochs,
and for a backup the hashes of its files. No file is changed.

Exit codes: 0 nothing is wrong; 5 something is, and is printed; 1 it could not be checked.

Examples:
  gapless log verify backups/2026-11-29
  gapless log verify data";

#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
pub(crate) struct VerifyArgs {
    /// The folder.
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

const NEW_EPOCH_HELP: &str = "\
An engine that was restored from a backup holds less than it has acknowledged. Nobody can tell, if no server
runs that has seen more; and then numbers are given again. In a new epoch they are other numbers, and
each client is told what it cannot have. So run it after a restore, before the servers start. It does no
harm at any other time: servers that run join the new epoch, and clients come back once.

Example:
  gapless log new-epoch --log nats://n1:4222,n2:4222,n3:4222";

#[derive(Debug, Args)]
#[command(after_help = NEW_EPOCH_HELP)]
pub(crate) struct NewEpochArgs {
    /// The servers of NATS: `nats://HOST:PORT`, several with commas between them.
    #[arg(
        long,
        value_name = "URLS",
        env = "GAPLESS_LOG",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub(crate) log: EngineUrls,
    /// The stream of JetStream.
    #[arg(long, value_name = "NAME", default_value = "gapless", value_parser = stream_name, env = "GAPLESS_LOG_STREAM")]
    pub(crate) log_stream: String,
}
