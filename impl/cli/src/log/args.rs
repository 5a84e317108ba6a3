//! The command line of `gapless log`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Copy the databases of a server that is stopped.
    Backup(BackupArgs),
    /// Put the databases of a backup into a data folder, in a new epoch.
    Restore(RestoreArgs),
    /// Check a backup, or the data folder of a server that is stopped.
    Verify(VerifyArgs),
}

const BACKUP_HELP: &str = "\
The server must be stopped: its databases belong to it alone while it runs. The backup appears when it is
whole, with the hashes of its files in `backup.json`. Tokens are not part of it.

Examples:
  gapless log backup --data data --to backups/2026-11-29";

#[derive(Debug, Args)]
#[command(after_help = BACKUP_HELP)]
pub(crate) struct BackupArgs {
    /// The data folder of the server.
    #[arg(long, value_name = "DIR", env = "GAPLESS_DATA")]
    pub(crate) data: PathBuf,
    /// Where the backup is to be; there must be nothing yet.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
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
