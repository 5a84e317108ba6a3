//! Databases and cursors as files: what they are, opened without changing a byte.

mod facts;

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::failure::Failure;

pub(crate) use self::facts::{problems, summary};

/// How a database begins.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// What a database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Events,
    Tasks,
    Sessions,
    Agent,
    InFlight,
}

impl Kind {
    /// The mark of the library in each of its databases.
    fn of(application_id: i64) -> Option<Self> {
        match &u32::try_from(application_id).ok()?.to_be_bytes() {
            b"gple" => Some(Self::Events),
            b"gplc" => Some(Self::Tasks),
            b"gpsc" => Some(Self::Sessions),
            b"gplt" => Some(Self::Agent),
            b"gpsi" => Some(Self::InFlight),
            _ => None,
        }
    }

    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Events => "event log",
            Self::Tasks => "record of tasks",
            Self::Sessions => "conversations",
            Self::Agent => "store of an agent",
            Self::InFlight => "inputs in flight of a chat",
        }
    }
}

/// A database that is looked at.
pub(crate) struct Opened {
    pub(crate) kind: Kind,
    pub(crate) version: i64,
    pub(crate) connection: Connection,
    /// Where the copy is, if it had to be copied.
    _copy: Option<tempfile::TempDir>,
    /// Keeps others from beginning to write.
    _lock: Option<File>,
}

/// Whether a file is a database, as far as its beginning says.
pub(crate) fn is_database(path: &Path) -> std::io::Result<bool> {
    let mut beginning = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut beginning)?;
    Ok(beginning == MAGIC)
}

/// The folder's lock, shared with others who only look.
pub(crate) fn lock_to_look(path: &Path) -> Result<Option<File>, Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Ok(mut lock) = File::open(folder.unwrap_or(Path::new(".")).join("lock")) else {
        return Ok(None);
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            // Without the number the message is still true.
            let _ = (&mut lock).take(20).read_to_string(&mut process);
            let problem = format!("`{}` is in use by process {}", path.display(), process.trim());
            Err(Failure::new(problem).hint("stop it first, or look at a backup"))
        }
        Err(TryLockError::Error(error)) => {
            Err(Failure::new(format!("`{}` cannot be locked: {error}", path.display())))
        }
    }
}

/// Opens a database to look at it. One with a write-ahead log is copied first: SQLite would have to
/// write beside it.
pub(crate) fn open(path: &Path) -> Result<Opened, Failure> {
    let unreadable =
        |problem: String| Failure::new(format!("`{}` cannot be read: {problem}", path.display()));
    let failed = |error: rusqlite::Error| unreadable(error.to_string());
    let lock = lock_to_look(path)?;
    let wal = beside(path, "-wal");
    let has_wal = std::fs::metadata(&wal).is_ok_and(|metadata| metadata.len() > 0);
    let (connection, copy) = match has_wal {
        true => {
            let folder = tempfile::tempdir().map_err(|error| unreadable(error.to_string()))?;
            let copy = folder.path().join("copy.db");
            std::fs::copy(path, &copy)
                .and_then(|_| std::fs::copy(&wal, beside(&copy, "-wal")))
                .map_err(|error| unreadable(format!("it cannot be copied: {error}")))?;
            (Connection::open(&copy).map_err(failed)?, Some(folder))
        }
        false => {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            let uri = format!("file:{}?immutable=1", escaped(path));
            (Connection::open_with_flags(uri, flags).map_err(failed)?, None)
        }
    };
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(failed)?;
    let version = pragma("user_version").map_err(failed)?;
    let kind = Kind::of(application)
        .ok_or_else(|| unreadable("it is a database of another program".to_owned()))?;
    Ok(Opened { kind, version, connection, _copy: copy, _lock: lock })
}

/// The same path with more at its end.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A path in a URI of SQLite.
fn escaped(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let escape = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
            char::from(*byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    absolute.as_os_str().as_encoded_bytes().iter().map(escape).collect()
}
