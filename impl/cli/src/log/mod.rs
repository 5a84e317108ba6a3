//! `gapless log`: backups of what a server keeps.

pub(crate) mod args;
mod epoch;
mod manifest;
mod online;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use gapless::database::{Medium, open_connection};
use gapless::events::log::Command;
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::recovery::Epoch;
use gapless::storage::Transact as _;

use tokio::runtime::Runtime;

use self::args::{LogCommand, RestoreArgs};
use self::manifest::Manifest;
use crate::failure::Failure;
use crate::secret::Secret;
use crate::serve::data::DataFolder;
use crate::{entropy, exit, stores};

/// The databases of a server; the first one is the event log.
const DATABASES: [&str; 3] = [EVENTS, TASKS, SESSIONS];

pub(crate) const EVENTS: &str = "events.db";
pub(crate) const TASKS: &str = "tasks.db";
pub(crate) const SESSIONS: &str = "sessions.db";

/// How often databases may have been replaced.
const REPLACED_MAX: u32 = 10_000;

pub(crate) fn run(
    command: &LogCommand,
    token: Option<&Secret>,
    runtime: &Runtime,
) -> Result<u8, Failure> {
    // What is in a data folder is its owner's matter, and so is a copy.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match command {
        LogCommand::Backup(args) => match (&args.online, token, &args.data, &args.to) {
            (Some(name), Some(token), ..) => runtime.block_on(online::run(args, name, token)),
            (None, _, Some(data), Some(to)) => backup(data, to),
            _ => Err(Failure::usage("a backup needs `--data` and `--to`, or `--online`")),
        },
        LogCommand::Restore(args) => restore(args),
        LogCommand::Verify(args) => verify(&args.folder),
        LogCommand::NewEpoch(args) => runtime.block_on(epoch::run(args)),
    }
}

fn io_failure(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::new(format!("`{}`: {error}", path.display()))
}

/// The databases that are in a folder.
fn present(folder: &Path) -> Result<Vec<&'static str>, Failure> {
    let mut names = DATABASES.to_vec();
    names.retain(|name| folder.join(name).exists());
    match names.is_empty() {
        true => Err(Failure::new(format!("`{}` has no database of a server", folder.display()))
            .hint("there must be an `events.db`, as `gapless serve` makes it")),
        false => Ok(names),
    }
}

// ---- backup ---------------------------------------------------------------------------------------

fn backup(data: &Path, to: &Path) -> Result<u8, Failure> {
    let names = present(data)?;
    let folder = DataFolder::take(data, "server")?;
    let backup = NewBackup::begin(to)?;
    for name in &names {
        copy_database(&folder.file(name), &backup.file(name))?;
    }
    backup.finish(&names)?;
    println!("{}", to.display());
    Ok(exit::OK)
}

/// A backup that is being made. Nothing has its name before it is whole.
pub(crate) struct NewBackup {
    to: PathBuf,
    parent: PathBuf,
    partial: tempfile::TempDir,
}

impl NewBackup {
    pub(crate) fn begin(to: &Path) -> Result<Self, Failure> {
        if to.exists() {
            return Err(Failure::usage(format!("`{}` is there already", to.display()))
                .hint("name a folder that is not there yet"));
        }
        let to = std::path::absolute(to).map_err(io_failure(to))?;
        let parent = to.parent().unwrap_or(Path::new("/")).to_owned();
        std::fs::create_dir_all(&parent).map_err(io_failure(&parent))?;
        let partial = tempfile::Builder::new()
            .prefix(".gapless-backup-")
            .tempdir_in(&parent)
            .map_err(io_failure(&parent))?;
        Ok(Self { to, parent, partial })
    }

    /// Where a database is to be copied to.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.partial.path().join(name)
    }

    /// Gives it its name, with the hashes of its databases.
    pub(crate) fn finish(self, names: &[&str]) -> Result<(), Failure> {
        let mut hashes = BTreeMap::new();
        for name in names {
            let path = self.file(name);
            sync(&path)?;
            hashes.insert((*name).to_owned(), manifest::hash(&path).map_err(io_failure(&path))?);
        }
        let Self { to, parent, partial } = self;
        let manifest = partial.path().join(manifest::NAME);
        let text = serde_json::to_string_pretty(&Manifest::new(hashes))
            .map_err(|error| Failure::new(error.to_string()))?;
        std::fs::write(&manifest, text + "\n").map_err(io_failure(&manifest))?;
        sync(&manifest)?;
        sync(partial.path())?;
        std::fs::rename(partial.path(), &to).map_err(io_failure(&to))?;
        // It has another name now; there is nothing to remove.
        let _ = partial.keep();
        sync(&parent)
    }
}

/// Writes a database into a file of its own, without a write-ahead log.
fn copy_database(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |error: rusqlite::Error| {
        Failure::new(format!("`{}` cannot be copied: {error}", from.display()))
            .hint("`gapless log verify` says what is wrong with it")
    };
    let connection = open_connection(from, Medium::default()).map_err(failed)?;
    let target = to
        .to_str()
        .ok_or_else(|| Failure::usage(format!("the path `{}` is not UTF-8", to.display())))?;
    connection.execute("VACUUM INTO ?1", [target]).map_err(failed)?;
    Ok(())
}

fn sync(path: &Path) -> Result<(), Failure> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_failure(path))
}

// ---- verify ---------------------------------------------------------------------------------------

fn verify(folder: &Path) -> Result<u8, Failure> {
    let problems = problems(folder)?;
    match problems.is_empty() {
        true => {
            println!("nothing is wrong");
            Ok(exit::OK)
        }
        false => {
            problems.iter().for_each(|problem| println!("{problem}"));
            Ok(exit::DAMAGED)
        }
    }
}

/// What is wrong in a folder, a line for each.
fn problems(folder: &Path) -> Result<Vec<String>, Failure> {
    let manifest = Manifest::read(folder)?;
    let mut found = Vec::new();
    if let Some(manifest) = &manifest {
        for (name, expected) in &manifest.sha256 {
            let path = folder.join(name);
            match manifest::hash(&path) {
                Ok(hash) if hash == *expected => {}
                Ok(_) => found.push(format!("{name}: it is not the file that was backed up")),
                Err(error) => found.push(format!("{name}: {error}")),
            }
        }
    }
    for name in present(folder)? {
        let path = folder.join(name);
        if !stores::is_database(&path).map_err(io_failure(&path))? {
            found.push(format!("{name}: it is no database"));
            continue;
        }
        let opened = stores::open(&path)?;
        match stores::problems(&opened) {
            Ok(problems) => {
                found.extend(problems.into_iter().map(|problem| format!("{name}: {problem}")));
            }
            Err(error) => found.push(format!("{name}: {error}")),
        }
    }
    Ok(found)
}

// ---- restore --------------------------------------------------------------------------------------

fn restore(args: &RestoreArgs) -> Result<u8, Failure> {
    let Some(manifest) = Manifest::read(&args.from)? else {
        return Err(Failure::new(format!("`{}` is no backup", args.from.display()))
            .hint("a backup is a folder that `gapless log backup` has made"));
    };
    let problems = problems(&args.from)?;
    if !problems.is_empty() {
        problems.iter().for_each(|problem| eprintln!("{problem}"));
        let problem = format!("the backup `{}` is damaged", args.from.display());
        return Err(Failure::new(problem).code(exit::DAMAGED));
    }
    let folder = DataFolder::take(&args.data, "server")?;
    let names: Vec<&str> =
        DATABASES.into_iter().filter(|name| manifest.sha256.contains_key(*name)).collect();
    // Whatever belongs to a database that is there, also to one that the backup does not have.
    let mut old = Vec::new();
    for name in DATABASES {
        let path = folder.file(name);
        let files = [path.clone(), stores::beside(&path, "-wal"), stores::beside(&path, "-shm")];
        old.extend(files.into_iter().filter(|file| file.exists()));
    }
    if !old.is_empty() && !args.replace {
        return Err(Failure::usage(format!("`{}` has databases already", args.data.display()))
            .hint("`--replace` moves them aside"));
    }
    let mut fresh = Vec::new();
    for name in names {
        let copy = folder.file(&format!("{name}.restored"));
        std::fs::copy(args.from.join(name), &copy).map_err(io_failure(&copy))?;
        sync(&copy)?;
        fresh.push((copy, folder.file(name)));
    }
    // A server that starts on the copy gives no number of an epoch that may have gone on.
    let epoch = Epoch::random(&mut *entropy()?);
    for (copy, _) in fresh.iter().filter(|(_, path)| path.ends_with(EVENTS)) {
        open_epoch(copy, epoch.clone())?;
    }
    if !old.is_empty() {
        let aside = move_aside(&args.data, &old)?;
        eprintln!("what was there is in `{}`", aside.display());
    }
    for (copy, path) in fresh {
        std::fs::rename(&copy, &path).map_err(io_failure(&path))?;
    }
    sync(&args.data)?;
    println!("restored, in the new epoch {}", epoch.as_str());
    Ok(exit::OK)
}

fn open_epoch(path: &Path, epoch: Epoch) -> Result<(), Failure> {
    let mut log =
        SqliteLog::open(LogConfig::new(path)).map_err(|error| Failure::new(error.to_string()))?;
    log.transact(vec![Command::OpenEpoch { proposed: epoch, broken: None }])
        .map_err(|error| Failure::new(format!("no new epoch can be opened: {error}")))?;
    Ok(())
}

/// Moves files into a fresh folder beside them.
fn move_aside(data: &Path, files: &[PathBuf]) -> Result<PathBuf, Failure> {
    for n in 1..=REPLACED_MAX {
        let aside = data.join(format!("replaced-{n}"));
        match std::fs::create_dir(&aside) {
            Ok(()) => {
                for file in files {
                    let name = file.file_name().unwrap_or_default();
                    std::fs::rename(file, aside.join(name)).map_err(io_failure(file))?;
                }
                sync(&aside)?;
                return Ok(aside);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_failure(&aside)(error)),
        }
    }
    Err(Failure::new(format!("`{}` has too many folders `replaced-N`", data.display()))
        .hint("remove those that nobody needs"))
}
