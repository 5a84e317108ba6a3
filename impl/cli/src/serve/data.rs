//! The data folder: of one process at a time, and its databases.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gapless::database::OpenError;
use gapless::events::cluster::nats::JetStream;
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};

use crate::failure::Failure;

/// A folder that belongs to this process.
///
/// The lock is the kernel's: it ends with the process, however that ends, so it is never stale.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Where events have their log.
pub(crate) enum EventLog {
    /// In the folder.
    Own(Box<SqliteLog>),
    /// Elsewhere, where other servers have theirs as well.
    Shared(Box<JetStream>),
}

/// The databases of the folder.
pub(crate) struct Stores {
    pub(crate) log: EventLog,
    pub(crate) record: SqliteRecord,
    pub(crate) conversations: SqliteConversations,
}

impl DataFolder {
    /// Takes the folder, and makes it if there is none. `who` says what it is for: a "server".
    pub(crate) fn take(path: &Path, who: &str) -> Result<Self, Failure> {
        let unusable = |what: &str, error: std::io::Error| {
            Failure::new(format!("the data folder `{}` {what}: {error}", path.display())).hint(
                "check its owner, its permissions and the space, or name another folder with `--data`",
            )
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| unusable("cannot be made", error))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| unusable("cannot be written", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, who, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(unusable("cannot be locked", error)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|error| unusable("cannot be written", error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens the databases, and makes those that are not there; none of events if those have their
    /// log elsewhere.
    pub(crate) fn open(
        &self,
        shared: Option<JetStream>,
        retain_events: Option<u64>,
    ) -> Result<Stores, Failure> {
        let log = match shared {
            Some(engine) => EventLog::Shared(Box::new(engine)),
            None => {
                let config = LogConfig { retain_events, ..LogConfig::new(self.file("events.db")) };
                EventLog::Own(Box::new(SqliteLog::open(config).map_err(|error| database(&error))?))
            }
        };
        let record = RecordConfig::new(self.file("tasks.db"));
        let conversations = ConversationsConfig::default();
        Ok(Stores {
            log,
            record: SqliteRecord::open(record).map_err(|error| database(&error))?,
            conversations: SqliteConversations::open(&self.file("sessions.db"), &conversations)
                .map_err(|error| database(&error))?,
        })
    }
}

fn in_use(path: &Path, who: &str, lock: &mut File) -> Failure {
    let mut process = String::new();
    // Without the number the message is still true.
    let _ = lock.take(20).read_to_string(&mut process);
    let process = match process.trim() {
        "" => String::new(),
        id => format!(" (process {id})"),
    };
    Failure::new(format!("`{}` is in use by another {who}{process}", path.display()))
        .hint("stop that one, or name another folder with `--data`")
}

/// The library's message has the remedy in it.
fn database(error: &OpenError) -> Failure {
    Failure::new(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_server_and_is_free_when_that_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/data");
        let first = DataFolder::take(&path, "server").expect("free");
        let refused = DataFolder::take(&path, "server").expect_err("taken").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        DataFolder::take(&path, "server").expect("free again");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told_with_a_remedy() {
        let failure =
            DataFolder::take(Path::new("/dev/null/data"), "server").expect_err("no folder");
        assert!(failure.to_string().contains("--data"), "{failure}");
    }

    #[test]
    fn a_file_that_is_no_database_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = DataFolder::take(folder.path(), "server").expect("free");
        let text = "not a database, but long enough to be looked at as one".repeat(20);
        std::fs::write(data.file("events.db"), &text).expect("written");
        let failure = data.open(None, None).err().expect("refused").to_string();
        assert!(failure.contains("events.db"), "{failure}");
        assert_eq!(std::fs::read_to_string(data.file("events.db")).expect("there"), text);
    }
}
