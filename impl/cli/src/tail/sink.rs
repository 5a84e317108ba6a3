//! The output and the cursor, which are one thing in two files.
//!
//! The cursor says up to which byte the output belongs to it. First the output is on the disk, then
//! the cursor takes the place of the one before. So after a crash the output is the one of the
//! cursor, or longer; what is beyond is cut off, and the server sends it again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use gapless::events::client::Position;
use gapless::events::wire::ResyncVerdict;
use gapless::recovery::{Epoch, Range};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// How much is collected before it is written, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// The version of the cursor file.
const FORMAT: u32 = 1;

/// The name of standard output.
const STDOUT: &str = "-";

/// What the cursor file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    /// Whose stream it is, if that was said.
    agent: Option<String>,
    /// The path of the output, or `-`.
    output: PathBuf,
    /// How much of the output belongs to the position; 0 for standard output.
    output_bytes: u64,
    /// `None` before the first connection.
    position: Option<StoredPosition>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredPosition {
    epoch: Option<Epoch>,
    sequence: u64,
}

impl From<Position> for StoredPosition {
    fn from(Position { epoch, sequence }: Position) -> Self {
        Self { epoch, sequence }
    }
}

/// Where events are written, and what is known of it.
pub(super) struct Sink {
    cursor: PathBuf,
    /// Held for as long as the sink is there.
    _lock: File,
    output: Option<File>,
    buffer: Vec<u8>,
    stored: Stored,
    position: Option<Position>,
    dirty: bool,
}

impl Sink {
    /// Opens both, and brings the output to what the cursor says.
    pub(super) fn open(cursor: &Path, output: &Path, agent: Option<&str>) -> Result<Self, Failure> {
        let lock_path = beside(cursor, "lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|error| unusable("the cursor's lock", &lock_path, &error))?;
        lock_file(&lock, cursor)?;
        let found = read_cursor(cursor)?;
        let path = match output.as_os_str() == STDOUT {
            true => PathBuf::from(STDOUT),
            false => std::path::absolute(output)
                .map_err(|error| unusable("the output", output, &error))?,
        };
        let (mut file, length) = match path.as_os_str() == STDOUT {
            true => (None, 0),
            false => open_output(&path).map(|(file, length)| (Some(file), length))?,
        };
        let stored = match found {
            Some(stored) => {
                check(&stored, cursor, &path, length, agent)?;
                stored
            }
            None if length > 0 => {
                return Err(Failure::new(format!(
                    "`{}` is not empty, and `{}` is no cursor of it",
                    path.display(),
                    cursor.display()
                ))
                .hint("name the cursor that belongs to it, or another output"));
            }
            None => Stored {
                format: FORMAT,
                agent: agent.map(str::to_owned),
                output: path.clone(),
                output_bytes: 0,
                position: None,
            },
        };
        if let Some(file) = &mut file {
            cut(file, stored.output_bytes)
                .map_err(|error| unusable("the output", &path, &error))?;
        }
        let position = stored.position.clone();
        let position =
            position.map(|StoredPosition { epoch, sequence }| Position { epoch, sequence });
        let mut sink = Self {
            cursor: cursor.to_owned(),
            _lock: lock,
            output: file,
            buffer: Vec::new(),
            stored,
            position,
            dirty: true,
        };
        // From here on the two belong together.
        sink.commit()?;
        Ok(sink)
    }

    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Adds an event, and the position that holds with it.
    pub(super) fn append(&mut self, text: &str, position: Option<Position>) -> Result<(), Failure> {
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(b'\n');
        self.dirty = true;
        if let Some(position) = position {
            self.position = Some(position);
        }
        match self.buffer.len() >= BUFFER_BYTES {
            true => self.write(),
            false => Ok(()),
        }
    }

    /// Adds that events are lost, and the position from which it goes on. No event has this type.
    pub(super) fn append_gap(
        &mut self,
        verdict: ResyncVerdict,
        lost: &[Range],
        position: &Position,
    ) -> Result<(), Failure> {
        let line = serde_json::json!({
            "type": "gap",
            "verdict": verdict.as_str(),
            "lost": lost,
            "goes_on_after": position.sequence,
        });
        self.append(&line.to_string(), Some(position.clone()))
    }

    /// The position moves without an event.
    pub(super) fn move_to(&mut self, position: Position) {
        self.position = Some(position);
        self.dirty = true;
    }

    /// Makes everything durable: the output, and then the cursor.
    pub(super) fn commit(&mut self) -> Result<(), Failure> {
        if !self.dirty {
            return Ok(());
        }
        self.write()?;
        if let Some(file) = &self.output {
            file.sync_data()
                .map_err(|error| unusable("the output", &self.stored.output, &error))?;
        }
        self.stored.position = self.position.clone().map(StoredPosition::from);
        replace(&self.cursor, &self.stored)
            .map_err(|error| unusable("the cursor", &self.cursor, &error))?;
        self.dirty = false;
        Ok(())
    }

    fn write(&mut self) -> Result<(), Failure> {
        let written = match &mut self.output {
            Some(file) => file.write_all(&self.buffer),
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&self.buffer).and_then(|()| stdout.flush())
            }
        };
        written.map_err(|error| match (&self.output, error.kind()) {
            (None, io::ErrorKind::BrokenPipe) => {
                Failure::new("nobody reads standard output any more")
                    .hint("the cursor is where it was before the lines that were not taken")
            }
            _ => unusable("the output", &self.stored.output, &error),
        })?;
        if self.output.is_some() {
            self.stored.output_bytes += self.buffer.len() as u64;
        }
        self.buffer.clear();
        Ok(())
    }
}

fn unusable(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{what} `{}` cannot be used: {error}", path.display()))
        .hint("check its permissions and the space; nothing is lost, start again to go on")
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn lock_file(file: &File, path: &Path) -> Result<(), Failure> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(format!("`{}` is in use by another `gapless tail`", path.display()))
                .hint("stop that one, or name another file"))
        }
        Err(TryLockError::Error(error)) => Err(unusable("the lock of", path, &error)),
    }
}

fn open_output(path: &Path) -> Result<(File, u64), Failure> {
    let failed = |error: io::Error| unusable("the output", path, &error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Failure::usage(format!("the output `{}` is no file", path.display()))
            .hint("a pipe cannot be cut back after a crash; write to `-` for that"));
    }
    lock_file(&file, path)?;
    sync_folder(path).map_err(failed)?;
    Ok((file, metadata.len()))
}

/// Removes what the cursor does not vouch for.
fn cut(file: &mut File, length: u64) -> io::Result<()> {
    if file.metadata()?.len() > length {
        file.set_len(length)?;
    }
    file.seek(SeekFrom::Start(length))?;
    file.sync_all()
}

fn read_cursor(path: &Path) -> Result<Option<Stored>, Failure> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable("the cursor", path, &error)),
    };
    let wrong = |problem: String| {
        Failure::new(format!("`{}` is no cursor of `gapless tail`: {problem}", path.display()))
            .hint("name another file with `--cursor`")
    };
    let stored: Stored =
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    match stored.format {
        FORMAT => Ok(Some(stored)),
        other => Err(wrong(format!("it has format {other}, this program knows {FORMAT}"))),
    }
}

/// Whether the cursor belongs to this stream and this output.
fn check(
    stored: &Stored,
    cursor: &Path,
    output: &Path,
    length: u64,
    agent: Option<&str>,
) -> Result<(), Failure> {
    let cursor = cursor.display();
    if stored.agent.as_deref() != agent {
        let whose = |agent: Option<&str>| {
            agent.map_or_else(|| "the agent of its token".to_owned(), |agent| format!("`{agent}`"))
        };
        return Err(Failure::usage(format!(
            "the cursor `{cursor}` belongs to the stream of {}, not of {}",
            whose(stored.agent.as_deref()),
            whose(agent)
        ))
        .hint("name another file with `--cursor`"));
    }
    if stored.output != output {
        return Err(Failure::usage(format!(
            "the cursor `{cursor}` belongs to the output `{}`, not to `{}`",
            stored.output.display(),
            output.display()
        ))
        .hint("name another file with `--cursor`, or the output of this one"));
    }
    if length < stored.output_bytes {
        return Err(Failure::new(format!(
            "the output `{}` has {length} bytes, and the cursor `{cursor}` knows of {}",
            output.display(),
            stored.output_bytes
        ))
        .hint(
            "put the output back; or remove both to have everything written again that the server keeps",
        ));
    }
    Ok(())
}

/// Puts a cursor in the place of the one before, in one step.
fn replace(path: &Path, stored: &Stored) -> io::Result<()> {
    let new = beside(path, "new");
    let mut file = File::create(&new)?;
    serde_json::to_writer(&mut file, stored)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Ranges of sequences, for a person.
pub(super) fn ranges(ranges: &[Range]) -> String {
    match ranges {
        [] => "not known".to_owned(),
        ranges => ranges
            .iter()
            .map(|range| format!("{} to {}", range.from, range.to))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        _folder: tempfile::TempDir,
        cursor: PathBuf,
        output: PathBuf,
    }

    impl Files {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let (cursor, output) = (folder.path().join("cursor"), folder.path().join("output"));
            Self { _folder: folder, cursor, output }
        }

        fn open(&self) -> Result<Sink, Failure> {
            Sink::open(&self.cursor, &self.output, Some("a"))
        }

        fn text(&self) -> String {
            std::fs::read_to_string(&self.output).expect("there")
        }
    }

    fn at(sequence: u64) -> Option<Position> {
        Some(Position { epoch: Some(Epoch::parse("e").expect("valid")), sequence })
    }

    #[test]
    fn what_the_cursor_does_not_vouch_for_is_cut_off() {
        let files = Files::new();
        let mut sink = files.open().expect("opened");
        sink.append("one", at(1)).expect("written");
        sink.commit().expect("committed");
        sink.append("two", at(2)).expect("written");
        sink.write().expect("written");
        drop(sink);
        assert_eq!(files.text(), "one\ntwo\n");
        let mut sink = files.open().expect("opened");
        assert_eq!(sink.position().cloned(), at(1));
        assert_eq!(files.text(), "one\n");
        sink.append("two", at(2)).expect("written");
        sink.commit().expect("committed");
        assert_eq!(files.text(), "one\ntwo\n");
    }

    #[test]
    fn a_gap_is_a_line_and_moves_the_position_with_it() {
        let files = Files::new();
        let mut sink = files.open().expect("opened");
        let position = at(9).expect("a position");
        let lost = [Range { from: 3, to: 9 }];
        sink.append_gap(ResyncVerdict::TooOld, &lost, &position).expect("written");
        sink.commit().expect("committed");
        drop(sink);
        assert!(files.text().contains("\"lost\":[{\"from\":3,\"to\":9}]"), "{}", files.text());
        assert_eq!(files.open().expect("opened").position().cloned(), at(9));
    }

    #[test]
    fn an_output_that_is_shorter_than_the_cursor_says_is_refused() {
        let files = Files::new();
        let mut sink = files.open().expect("opened");
        sink.append("one", at(1)).expect("written");
        sink.commit().expect("committed");
        drop(sink);
        std::fs::write(&files.output, "on").expect("written");
        let refused = files.open().err().expect("refused").to_string();
        assert!(refused.contains("has 2 bytes"), "{refused}");
        assert_eq!(files.text(), "on");
    }

    #[test]
    fn a_file_that_belongs_to_nobody_is_not_touched() {
        let files = Files::new();
        std::fs::write(&files.output, "somebody else's").expect("written");
        assert!(files.open().is_err());
        assert_eq!(files.text(), "somebody else's");
        std::fs::write(&files.cursor, "{}").expect("written");
        assert!(files.open().err().is_some_and(|error| error.to_string().contains("no cursor")));
    }

    #[test]
    fn a_cursor_belongs_to_one_stream_one_output_and_one_process() {
        let files = Files::new();
        let sink = files.open().expect("opened");
        let in_use = files.open().err().expect("refused").to_string();
        assert!(in_use.contains("in use"), "{in_use}");
        drop(sink);
        assert!(Sink::open(&files.cursor, &files.output, Some("b")).is_err());
        assert!(Sink::open(&files.cursor, Path::new("-"), Some("a")).is_err());
        assert!(
            Sink::open(&files.cursor, &files.cursor.with_file_name("other"), Some("a")).is_err()
        );
        files.open().expect("opened");
    }
}
