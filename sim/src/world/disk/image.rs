//! Whole databases, handled from outside of SQLite. Everything here runs inside of a host, while no living connection
//! has the database open.

use std::io;
use std::path::{Path, PathBuf};

use turmoil::fs::shim::std::fs;

use super::control::split_path;

/// The files of a database: name without directory, and content.
pub type Snapshot = Vec<(String, Vec<u8>)>;

/// What SQLite appends to the name of a database.
const SUFFIXES: [&str; 3] = ["", "-wal", "-journal"];

/// The files of the database at `path`, as the next open would see them. Empty if there is none.
///
/// `path` may be the host's or one made by [`Disk::path`](super::Disk::path), here and below.
///
/// # Errors
///
/// Those of the filesystem.
pub fn snapshot(path: impl AsRef<Path>) -> io::Result<Snapshot> {
    let mut files = Snapshot::new();
    for file in files_of(path.as_ref())? {
        if fs::exists(&file) {
            files.push((name_of(&file)?.to_owned(), fs::read(&file)?));
        }
    }
    Ok(files)
}

/// How many bytes the database at `path` takes, with its journals.
///
/// # Errors
///
/// Those of the filesystem.
pub fn size(path: impl AsRef<Path>) -> io::Result<u64> {
    let files = files_of(path.as_ref())?;
    let there = files.iter().filter(|file| fs::exists(file));
    there.map(|file| Ok(fs::metadata(file)?.len())).sum()
}

/// Puts a snapshot in the place of the database at `path`, durably. Missing directories are made.
///
/// # Errors
///
/// `InvalidInput` if the snapshot is of a database with another name, and those of the filesystem.
pub fn restore(path: impl AsRef<Path>, snapshot: &Snapshot) -> io::Result<()> {
    let files = files_of(path.as_ref())?;
    let directory = parent_of(&files[0]);
    create_dir(directory)?;
    delete_database(path)?;
    for (name, bytes) in snapshot {
        let file = directory.join(name);
        if !files.contains(&file) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{name}` is no file of the database `{}`", files[0].display()),
            ));
        }
        fs::write(&file, bytes)?;
        sync_file(&file)?;
    }
    fs::sync_dir(directory)
}

/// Deletes the database at `path` with its journals, durably. It is no error if there is none.
///
/// # Errors
///
/// Those of the filesystem.
pub fn delete_database(path: impl AsRef<Path>) -> io::Result<()> {
    for file in files_of(path.as_ref())? {
        if fs::exists(&file) {
            remove(&file)?;
            fs::sync_dir(parent_of(&file))?;
        }
    }
    Ok(())
}

/// Makes a directory with its parents, durably.
///
/// # Errors
///
/// Those of the filesystem.
pub fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = plain(path.as_ref())?;
    fs::create_dir_all(path)?;
    for directory in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        fs::sync_dir(directory)?;
    }
    Ok(())
}

/// Size of all files of the host.
pub(super) fn used_bytes() -> u64 {
    size_below(Path::new("/"))
}

fn size_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Removes a file; its directory is still to be synced.
///
/// Its unsynced writes are flushed first: turmoil keeps them in a queue by path, where they would land in the next
/// file of that name.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    sync_file(path)?;
    fs::remove_file(path)
}

/// The directory of a file.
pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn sync_file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.sync_all()
}

fn files_of(path: &Path) -> io::Result<[PathBuf; SUFFIXES.len()]> {
    let path = plain(path)?;
    let name = name_of(path)?;
    Ok(SUFFIXES.map(|suffix| path.with_file_name(format!("{name}{suffix}"))))
}

/// The path on the host, without the name of a disk.
fn plain(path: &Path) -> io::Result<&Path> {
    let text = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Path::new(split_path(text).map_or(text, |(_, rest)| rest)))
}

fn name_of(path: &Path) -> io::Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.ok_or(io::ErrorKind::InvalidInput)?)
}
