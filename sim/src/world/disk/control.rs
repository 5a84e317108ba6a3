//! The switch box: what may happen on a disk, decided before it happens.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ffi;
use tokio::runtime::{Handle, Id};
use turmoil::fs::shim::std::fs;

use super::content::Content;
use super::{image, vfs};

/// Where the name of a disk stands in a path: `/disk:NAME/rest/of/the/path`.
const PATH_PREFIX: &str = "/disk:";

/// What a [`Disk`] takes from its host.
pub struct DiskConfig {
    /// Unique among the disks installed on this thread, without `/`; say host and incarnation, `client-1.0`.
    pub name: String,
    /// Random words for SQLite's `xRandomness`.
    pub entropy: Box<dyn FnMut() -> u64 + Send>,
    /// The host's wall clock in milliseconds since the Unix epoch.
    pub wall_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Sees every operation after it was done or refused.
    pub observer: Option<Arc<dyn Fn(DiskOp) + Send + Sync>>,
    /// Whether it says that a file is synced without doing it. In reality: a drive with a write cache that ignores
    /// flushes.
    pub lying: bool,
}

/// One operation as the trace sees it. It never holds the bytes: salts and checksums differ between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOp {
    /// What was asked.
    pub kind: DiskOpKind,
    /// Path of the file (of the directory for [`DiskOpKind::SyncDir`]) on the host, without the disk's name.
    pub file: Arc<str>,
    /// First byte concerned; the new size for [`DiskOpKind::Truncate`].
    pub offset: u64,
    /// Number of bytes asked for.
    pub len: u64,
    /// What became of it.
    pub outcome: DiskOutcome,
}

/// Kind of a [`DiskOp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOpKind {
    /// A file was opened, perhaps created. Not counted.
    Open,
    /// A file was closed. Not counted.
    Close,
    /// Bytes were read. Not counted.
    Read,
    /// Bytes were written.
    Write,
    /// The data and the size of a file were made durable.
    Sync,
    /// The entries of a directory were made durable.
    SyncDir,
    /// A file was cut, or extended with zeros.
    Truncate,
    /// A file was deleted.
    Delete,
}

/// Outcome of a [`DiskOp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOutcome {
    /// Done in full; a read past the end counts as done.
    Done,
    /// Refused with an I/O error.
    Failed,
    /// Refused: no space.
    Full,
    /// Only this many bytes were written, then the power went.
    Torn {
        /// Bytes that reached the disk.
        kept_bytes: u64,
    },
    /// The power went before it was done.
    PowerOff,
}

/// A fault that the plan puts on a disk. All counts start at the call of [`Disk::schedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// In reality: the plug is pulled. After this many more operations the disk is dead.
    PowerOff {
        /// Operations that still succeed.
        after_ops: u64,
    },
    /// In reality: the plug is pulled while the head is over the platter. The first write after `after_ops` more
    /// operations leaves only a prefix, which is durable together with all earlier writes to that file.
    TornWrite {
        /// Operations that still succeed.
        after_ops: u64,
        /// Share of the write that stays, cut down to a whole sector of the file.
        keep_percent: u8,
    },
    /// In reality: a bad cable or sector. After `after_ops` more operations, `count` writes give EIO.
    FailWrite {
        /// Operations before it starts.
        after_ops: u64,
        /// Writes that fail; `u32::MAX` is for ever.
        count: u32,
    },
    /// In reality: the write-back of a page cache fails. After `after_ops` more operations, `count` syncs give EIO.
    FailSync {
        /// Operations before it starts.
        after_ops: u64,
        /// Syncs that fail; `u32::MAX` is for ever.
        count: u32,
    },
    /// In reality: the volume is full. From now on a file does not grow while the host's files together would exceed
    /// this; overwriting works.
    Full {
        /// Size of the volume.
        capacity_bytes: u64,
    },
}

/// The disk of one incarnation of a host. A cloneable handle; see the [module](super) for how it is used.
#[derive(Clone)]
pub struct Disk(pub(super) Arc<Inner>);

impl Disk {
    /// A working disk without faults.
    ///
    /// # Panics
    ///
    /// If the name is empty or holds a `/`.
    pub fn new(config: DiskConfig) -> Self {
        assert!(
            !config.name.is_empty() && !config.name.contains('/'),
            "a disk's name is one path segment, not `{}`",
            config.name
        );
        Self(Arc::new(Inner {
            name: config.name,
            dead: AtomicBool::new(false),
            runtime: OnceLock::new(),
            wall_ms: config.wall_ms,
            observer: config.observer,
            lying: config.lying,
            entropy: Mutex::new(config.entropy),
            state: Mutex::default(),
        }))
    }

    /// Lets SQLite find this disk by its name on this thread, until the guard is dropped.
    ///
    /// Hold the guard as long as the incarnation lives. Files that are open when it is dropped go on working, but no
    /// file can be opened or deleted any more.
    ///
    /// # Panics
    ///
    /// If a disk of this name is installed already.
    #[must_use = "the disk is found only while the guard lives"]
    pub fn install(&self) -> DiskGuard {
        vfs::register();
        INSTALLED.with_borrow_mut(|disks| {
            assert!(
                disks.iter().all(|disk| disk.name != self.0.name),
                "a disk `{}` is installed already",
                self.0.name
            );
            disks.push(Arc::clone(&self.0));
        });
        DiskGuard { disk: Arc::clone(&self.0), this_thread: PhantomData }
    }

    /// The path under which SQLite opens the host's `path` on this disk.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let mut full = PathBuf::from(format!("{PATH_PREFIX}{}", self.0.name));
        full.extend(path.as_ref().strip_prefix("/").unwrap_or(path.as_ref()));
        full
    }

    /// From now on nothing is read or written, for ever. To be called before the host's futures are dropped.
    pub fn kill(&self) {
        self.0.dead.store(true, Ordering::Relaxed);
    }

    /// Whether the disk was killed, by [`Disk::kill`] or by a fault.
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// Whether a fault cut the power; not set by [`Disk::kill`].
    pub fn powered_off(&self) -> bool {
        self.0.state().powered_off
    }

    /// Counted operations so far: writes, syncs of files and directories, truncations, deletions, including those that
    /// failed, without the one that a power loss prevented.
    pub fn ops(&self) -> u64 {
        self.0.state().ops
    }

    /// Adds a fault. Several may be in force; a power loss wins over a torn write, that over EIO, that over a full disk.
    pub fn schedule(&self, fault: DiskFault) {
        let mut state = self.0.state();
        let (wait, left) = match fault {
            DiskFault::PowerOff { after_ops } | DiskFault::TornWrite { after_ops, .. } => {
                (after_ops, 1)
            }
            DiskFault::FailWrite { after_ops, count }
            | DiskFault::FailSync { after_ops, count } => (after_ops, count),
            DiskFault::Full { .. } => (0, u32::MAX),
        };
        let from = state.ops.saturating_add(wait);
        state.faults.push(Armed { fault, from, left });
    }

    /// Takes back all faults. A disk that lost power stays dead.
    pub fn clear_faults(&self) {
        self.0.state().faults.clear();
    }
}

thread_local! {
    /// The disks that an open on this thread can name.
    static INSTALLED: RefCell<Vec<Arc<Inner>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a [`Disk`] installed on this thread.
#[must_use = "the disk is found only while the guard lives"]
pub struct DiskGuard {
    disk: Arc<Inner>,
    this_thread: PhantomData<Rc<()>>,
}

impl Drop for DiskGuard {
    fn drop(&mut self) {
        // At the end of a thread the list may be gone already, and then nothing is installed.
        let _gone = INSTALLED.try_with(|disks| {
            disks.borrow_mut().retain(|disk| !Arc::ptr_eq(disk, &self.disk));
        });
    }
}

/// Splits `/disk:NAME/rest` into the name and `/rest`.
pub(super) fn split_path(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(PATH_PREFIX)?;
    rest.find('/').map(|slash| rest.split_at(slash))
}

/// The disk that a path names, and the path on its host.
pub(super) fn find(path: &str) -> Option<(Arc<Inner>, &str)> {
    let (name, rest) = split_path(path)?;
    let disk =
        INSTALLED.with_borrow(|disks| disks.iter().find(|disk| disk.name == name).cloned())?;
    Some((disk, rest))
}

/// The disk of the host that runs now, for callbacks that are given no file.
pub(super) fn of_this_host() -> Option<Arc<Inner>> {
    let here = Handle::try_current().ok()?.id();
    INSTALLED.with_borrow(|disks| {
        let mut latest_first = disks.iter().rev();
        latest_first.find(|disk| disk.runtime.get() == Some(&here)).cloned()
    })
}

/// State shared by the handles of a disk and its open files.
pub(super) struct Inner {
    name: String,
    dead: AtomicBool,
    /// The host's runtime, new in each incarnation; known from the first open.
    runtime: OnceLock<Id>,
    wall_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    observer: Option<Arc<dyn Fn(DiskOp) + Send + Sync>>,
    pub(super) lying: bool,
    entropy: Mutex<Box<dyn FnMut() -> u64 + Send>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ops: u64,
    powered_off: bool,
    faults: Vec<Armed>,
    /// A closed file leaves a hole, so that the index of an open one stays.
    files: Vec<Option<OpenFile>>,
    /// Identity of the next file handle.
    next_handle: u64,
}

struct Armed {
    fault: DiskFault,
    /// The count of operations at which it begins.
    from: u64,
    /// Operations that it may still hit.
    left: u32,
}

/// One file, however many handles have it open.
struct OpenFile {
    path: Arc<str>,
    handles: u32,
    content: Content,
    /// What was written last, one after the other, as far as turmoil was not told of it yet: SQLite writes a
    /// transaction in many small pieces and then syncs, and in turmoil's queue each has its price.
    behind: Option<Range<u64>>,
    /// Created here, and its directory not synced since.
    entry_unsynced: bool,
    /// Handles with a shared lock or more.
    readers: u32,
    /// The one handle with more than a shared lock, and its level.
    writer: Option<(u64, i32)>,
}

/// The most bytes of a file that turmoil is not told of yet.
const BEHIND_BYTES_MAX: u64 = 256 << 10;

impl OpenFile {
    /// Writes, as far as the process can see, and tells turmoil of what it does not follow.
    fn write(&mut self, bytes: &[u8], offset: u64, turmoil: &fs::File) -> io::Result<()> {
        // Turmoil would show between the end of the file and `offset` what stood there before a truncation.
        let from = offset.min(self.content.len());
        let to = offset + bytes.len() as u64;
        let start = match &self.behind {
            Some(last) if last.end == from && to - last.start <= BEHIND_BYTES_MAX => last.start,
            _ => {
                self.catch_up(turmoil)?;
                from
            }
        };
        self.content.write(bytes, offset);
        self.behind = Some(start..to);
        Ok(())
    }

    fn catch_up(&mut self, turmoil: &fs::File) -> io::Result<()> {
        let Some(mut range) = self.behind.take() else { return Ok(()) };
        while !range.is_empty() {
            let bytes = self.content.piece(range.clone());
            turmoil.write_all_at(bytes, range.start)?;
            range.start += bytes.len() as u64;
        }
        Ok(())
    }
}

/// A handle's place in the table of open files, and the lock that it holds.
pub(super) struct Slot {
    index: usize,
    handle: u64,
    level: i32,
}

impl State {
    fn file(&mut self, slot: &Slot) -> &mut OpenFile {
        self.files[slot.index].as_mut().expect("a handle keeps its file in the table")
    }
}

/// What the disk says to an operation. A later one wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Go,
    Full,
    Fail,
    Torn { keep_percent: u8 },
    PowerOff,
}

/// An operation on a file met a lock of another handle.
pub(super) struct Busy;

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether turmoil may be asked about files: the disk is alive, and its host is the current one.
    pub(super) fn is_usable(&self) -> bool {
        !self.dead.load(Ordering::Relaxed) && self.is_at_home()
    }

    /// Whether the disk's host is the current one. While a host's tasks are dropped it is current without a runtime.
    pub(super) fn is_at_home(&self) -> bool {
        match (Handle::try_current(), self.runtime.get()) {
            (Ok(here), Some(home)) => here.id() == *home && turmoil::in_simulation(),
            _ => turmoil::since_epoch().is_some(),
        }
    }

    /// Remembers the host of the first open.
    pub(super) fn settle(&self) {
        if let Ok(here) = Handle::try_current() {
            self.runtime.get_or_init(|| here.id());
        }
    }

    pub(super) fn wall_ms(&self) -> i64 {
        (self.wall_ms)()
    }

    pub(super) fn fill_random(&self, bytes: &mut [u8]) {
        let mut next = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(size_of::<u64>()) {
            let word = next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Tells the observer, while no lock is held.
    pub(super) fn observe(
        &self,
        kind: DiskOpKind,
        file: &Arc<str>,
        offset: u64,
        len: u64,
        outcome: DiskOutcome,
    ) {
        if let Some(observer) = &self.observer {
            observer(DiskOp { kind, file: Arc::clone(file), offset, len, outcome });
        }
    }

    /// Counts an operation that grows a file by `growth` bytes, and decides about it.
    ///
    /// [`Verdict::PowerOff`] has killed the disk already; a torn write is finished by [`Inner::cut_power`].
    pub(super) fn admit(&self, kind: DiskOpKind, growth: u64) -> Verdict {
        let mut state = self.state();
        let now = state.ops;
        let mut verdict = Verdict::Go;
        for armed in state.faults.iter_mut().filter(|armed| armed.from <= now) {
            let hit = match (armed.fault, kind) {
                (DiskFault::PowerOff { .. }, _) => Verdict::PowerOff,
                (DiskFault::TornWrite { keep_percent, .. }, DiskOpKind::Write) => {
                    Verdict::Torn { keep_percent }
                }
                (DiskFault::FailWrite { .. }, DiskOpKind::Write)
                | (DiskFault::FailSync { .. }, DiskOpKind::Sync | DiskOpKind::SyncDir)
                    if armed.left > 0 =>
                {
                    armed.left = armed.left.saturating_sub(u32::from(armed.left != u32::MAX));
                    Verdict::Fail
                }
                (DiskFault::Full { capacity_bytes }, _)
                    if growth > 0
                        && image::used_bytes().saturating_add(growth) > capacity_bytes =>
                {
                    Verdict::Full
                }
                _ => Verdict::Go,
            };
            verdict = verdict.max(hit);
        }
        if verdict == Verdict::PowerOff {
            drop(state);
            self.cut_power();
        } else {
            state.ops += 1;
        }
        verdict
    }

    /// The disk is dead from here on, by a fault.
    pub(super) fn cut_power(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.state().powered_off = true;
    }

    /// Enters a handle of a file into the table. The first one brings what is in the file.
    pub(super) fn enter(
        &self,
        path: &Arc<str>,
        content: impl FnOnce() -> io::Result<Vec<u8>>,
        created: bool,
    ) -> io::Result<Slot> {
        let mut state = self.state();
        let handle = state.next_handle;
        let known = state
            .files
            .iter()
            .position(|file| file.as_ref().is_some_and(|file| file.path == *path));
        let index = match known {
            Some(index) => index,
            None => {
                let file = OpenFile {
                    path: Arc::clone(path),
                    handles: 0,
                    content: Content::of(&content()?),
                    behind: None,
                    entry_unsynced: false,
                    readers: 0,
                    writer: None,
                };
                let hole = state.files.iter().position(Option::is_none);
                let index = hole.unwrap_or_else(|| {
                    state.files.push(None);
                    state.files.len() - 1
                });
                state.files[index] = Some(file);
                index
            }
        };
        state.next_handle += 1;
        let slot = Slot { index, handle, level: ffi::SQLITE_LOCK_NONE };
        drop(state);
        self.with_file(&slot, |file| {
            file.handles += 1;
            if created {
                file.content = Content::default();
                file.entry_unsynced = true;
            }
        });
        Ok(slot)
    }

    /// Takes a handle out of the table, with its locks.
    pub(super) fn leave(&self, slot: &mut Slot) {
        self.unlock(slot, ffi::SQLITE_LOCK_NONE);
        let mut state = self.state();
        let place = &mut state.files[slot.index];
        if let Some(file) = place {
            file.handles -= 1;
            if file.handles == 0 {
                *place = None;
            }
        }
    }

    fn with_file<R>(&self, slot: &Slot, f: impl FnOnce(&mut OpenFile) -> R) -> R {
        f(self.state().file(slot))
    }

    pub(super) fn len(&self, slot: &Slot) -> u64 {
        self.with_file(slot, |file| file.content.len())
    }

    pub(super) fn set_len(&self, slot: &Slot, len: u64) {
        self.with_file(slot, |file| file.content.set_len(len));
    }

    /// What [`Content::read`] gives.
    pub(super) fn read(&self, slot: &Slot, buffer: &mut [u8], offset: u64) -> usize {
        self.with_file(slot, |file| file.content.read(buffer, offset))
    }

    /// Admits a write, if no fault is waiting, and writes: as far as the process can see. Turmoil is told when one
    /// comes that does not follow it, or the file is synced.
    pub(super) fn write_if_calm(
        &self,
        slot: &Slot,
        bytes: &[u8],
        offset: u64,
        turmoil: &fs::File,
    ) -> Option<io::Result<()>> {
        let mut state = self.state();
        if !state.faults.is_empty() {
            return None;
        }
        state.ops += 1;
        Some(state.file(slot).write(bytes, offset, turmoil))
    }

    /// Writes what was admitted. A fault that is waiting is to meet what SQLite has written so far.
    pub(super) fn write(
        &self,
        slot: &Slot,
        bytes: &[u8],
        offset: u64,
        turmoil: &fs::File,
    ) -> io::Result<()> {
        let mut state = self.state();
        let calm = state.faults.is_empty();
        let file = state.file(slot);
        file.write(bytes, offset, turmoil)?;
        if calm { Ok(()) } else { file.catch_up(turmoil) }
    }

    /// Tells turmoil of everything that was written to a file.
    pub(super) fn catch_up(&self, slot: &Slot, turmoil: &fs::File) -> io::Result<()> {
        self.with_file(slot, |file| file.catch_up(turmoil))
    }

    /// Tells turmoil of everything that was written: from here on it outlives the process.
    pub(super) fn catch_up_all(&self) -> io::Result<()> {
        let mut state = self.state();
        for file in state.files.iter_mut().flatten().filter(|file| file.behind.is_some()) {
            let turmoil = fs::OpenOptions::new().write(true).open(&*file.path)?;
            file.catch_up(&turmoil)?;
        }
        Ok(())
    }

    pub(super) fn is_entry_unsynced(&self, slot: &Slot) -> bool {
        self.with_file(slot, |file| file.entry_unsynced)
    }

    pub(super) fn entry_is_synced(&self, slot: &Slot) {
        self.with_file(slot, |file| file.entry_unsynced = false);
    }

    /// Raises the lock of a handle, by SQLite's five levels: `SHARED` beside at most `RESERVED`, and so on.
    pub(super) fn lock(&self, slot: &mut Slot, wanted: i32) -> Result<(), Busy> {
        if slot.level >= wanted {
            return Ok(());
        }
        let (handle, mut level) = (slot.handle, slot.level);
        let result = self.with_file(slot, |file| {
            if let Some((other, held)) = file.writer
                && other != handle
                && (wanted > ffi::SQLITE_LOCK_SHARED || held >= ffi::SQLITE_LOCK_PENDING)
            {
                return Err(Busy);
            }
            if level < ffi::SQLITE_LOCK_SHARED {
                file.readers += 1;
                level = ffi::SQLITE_LOCK_SHARED;
            }
            if wanted > ffi::SQLITE_LOCK_SHARED {
                // An exclusive lock waits for the readers, and keeps new ones out meanwhile.
                let waits = wanted == ffi::SQLITE_LOCK_EXCLUSIVE && file.readers > 1;
                level = if waits { ffi::SQLITE_LOCK_PENDING } else { wanted };
                file.writer = Some((handle, level));
                if waits {
                    return Err(Busy);
                }
            }
            Ok(())
        });
        slot.level = level;
        result
    }

    /// Lowers the lock of a handle to `SHARED` or `NONE`.
    pub(super) fn unlock(&self, slot: &mut Slot, wanted: i32) {
        if slot.level <= wanted {
            return;
        }
        let level = slot.level;
        self.with_file(slot, |file| {
            if level > ffi::SQLITE_LOCK_SHARED {
                file.writer = None;
            }
            if wanted == ffi::SQLITE_LOCK_NONE {
                file.readers -= 1;
            }
        });
        slot.level = wanted;
    }

    /// Whether any handle means to write.
    pub(super) fn is_reserved(&self, slot: &Slot) -> bool {
        self.with_file(slot, |file| file.writer.is_some())
    }
}
