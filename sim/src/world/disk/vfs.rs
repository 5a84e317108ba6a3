//! The callbacks that SQLite calls.
//!
//! Each is a thin `extern "C"` function that turns pointers into references and a panic into an error code; what it does
//! stands in [`SimFile`] and in the plain functions below.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Once};
use std::{mem, ptr, slice};

use rusqlite::ffi;
use turmoil::fs::shim::std::fs;

use super::control::{self, Busy, DiskOpKind, DiskOutcome, Inner, Slot, Verdict};
use super::image;

/// The name to open connections with. It is not the default VFS.
pub const VFS_NAME: &str = "gapless-sim";

/// Writes of this size or less are not torn; SQLite is told so.
const SECTOR_BYTES: u64 = 512;

/// The longest path, with its terminating zero.
const PATH_BYTES_MAX: c_int = 512;

/// Milliseconds from the beginning of the Julian period to the Unix epoch.
const JULIAN_UNIX_EPOCH_MS: i64 = 210_866_760_000_000;

const DAY_MS: f64 = 86_400_000.0;

/// Makes the VFS known to SQLite, once in a process.
pub(super) fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<FfiFile>() as c_int,
            mxPathname: PATH_BYTES_MAX,
            pNext: ptr::null_mut(),
            zName: c"gapless-sim".as_ptr(),
            pAppData: ptr::null_mut(),
            xOpen: Some(x_open),
            xDelete: Some(x_delete),
            xAccess: Some(x_access),
            xFullPathname: Some(x_full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(x_randomness),
            xSleep: Some(x_sleep),
            xCurrentTime: Some(x_current_time),
            xGetLastError: Some(x_get_last_error),
            xCurrentTimeInt64: Some(x_current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // Nobody asks SQLite how much memory it has, and to count it takes a lock for each allocation.
        // SAFETY: an option with one integer. SQLite refuses it when it is in use already.
        let _in_use_already = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0) };
        // SAFETY: the structure is complete for its version and lives as long as the process.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite takes the VFS");
    });
}

/// Version 1: no shared memory, no memory mapping.
static IO_METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// What SQLite allocates for a file: its own part, then ours.
#[repr(C)]
struct FfiFile {
    base: ffi::sqlite3_file,
    file: *mut File,
}

enum File {
    Named(SimFile),
    /// A temporary file without a name. Nobody else can see it and it dies with the process, so memory will do.
    Temporary(Vec<u8>),
}

/// A file on a host's disk.
pub(super) struct SimFile {
    disk: Arc<Inner>,
    path: Arc<str>,
    file: fs::File,
    slot: Slot,
}

type Code = Result<(), c_int>;

impl SimFile {
    pub(super) fn open(name: &str, flags: c_int) -> Result<Self, c_int> {
        const REFUSED: c_int = ffi::SQLITE_CANTOPEN;
        let (disk, path) = control::find(name).ok_or(REFUSED)?;
        if !disk.is_usable() {
            return Err(REFUSED);
        }
        disk.settle();
        let exists = fs::exists(path);
        let create = flags & ffi::SQLITE_OPEN_CREATE != 0;
        let exclusive = flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0;
        if (exists && exclusive) || (!exists && !create) {
            return Err(REFUSED);
        }
        if !exists {
            // An unsynced deletion of this name would come into force with the entry of the new file, and take it along.
            fs::sync_dir(image::parent_of(Path::new(path))).map_err(|_| REFUSED)?;
        }
        let writable = flags & ffi::SQLITE_OPEN_READONLY == 0;
        let file = fs::OpenOptions::new()
            .read(true)
            .write(writable)
            .create(create)
            .open(path)
            .map_err(|_| REFUSED)?;
        let path = Arc::from(path);
        let slot = disk.enter(&path, || fs::read(&*path), !exists).map_err(|_| REFUSED)?;
        disk.observe(DiskOpKind::Open, &path, 0, 0, DiskOutcome::Done);
        Ok(Self { disk, path, file, slot })
    }

    /// Always succeeds: there is nothing that SQLite could do about it.
    pub(super) fn close(mut self) {
        if self.disk.is_usable() {
            let _lost = self.catch_up();
        }
        self.disk.leave(&mut self.slot);
        if self.disk.is_usable() {
            self.disk.observe(DiskOpKind::Close, &self.path, 0, 0, DiskOutcome::Done);
        }
        // The file's own `drop` closes its descriptor in whatever host is current and panics between hosts. It owns no
        // memory, so where it must not run nothing is lost but an entry in turmoil's table.
        if turmoil::in_simulation() && !self.disk.is_at_home() {
            mem::forget(self.file);
        }
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Code {
        const FAILED: c_int = ffi::SQLITE_IOERR_READ;
        if !self.disk.is_usable() {
            return Err(FAILED);
        }
        let read = self.disk.read(&self.slot, buffer, offset);
        self.observe(DiskOpKind::Read, offset, buffer.len(), DiskOutcome::Done);
        zero_rest(buffer, read)
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> Code {
        const FAILED: c_int = ffi::SQLITE_IOERR_WRITE;
        if !self.disk.is_usable() {
            return Err(FAILED);
        }
        if let Some(written) = self.disk.write_if_calm(&self.slot, bytes, offset, &self.file) {
            self.observe(DiskOpKind::Write, offset, bytes.len(), DiskOutcome::Done);
            return written.map_err(|_| FAILED);
        }
        let end = offset + bytes.len() as u64;
        let growth = end.saturating_sub(self.disk.len(&self.slot));
        let (outcome, code) = match self.disk.admit(DiskOpKind::Write, growth) {
            Verdict::Go => (DiskOutcome::Done, self.put(bytes, offset).map_err(|_| FAILED)),
            Verdict::Fail => (DiskOutcome::Failed, Err(FAILED)),
            Verdict::Full => (DiskOutcome::Full, Err(ffi::SQLITE_FULL)),
            Verdict::PowerOff => (DiskOutcome::PowerOff, Err(FAILED)),
            Verdict::Torn { keep_percent } => {
                let kept_bytes = whole_sectors(offset, bytes.len() as u64, keep_percent);
                let kept = &bytes[..kept_bytes as usize];
                // The power goes even if the prefix could not be written.
                let _lost = self.put(kept, offset);
                let _lost = self.catch_up();
                let _lost = self.file.sync_all();
                self.disk.cut_power();
                (DiskOutcome::Torn { kept_bytes }, Err(FAILED))
            }
        };
        self.observe(DiskOpKind::Write, offset, bytes.len(), outcome);
        code
    }

    fn put(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.write(&self.slot, bytes, offset, &self.file)
    }

    fn catch_up(&self) -> io::Result<()> {
        self.disk.catch_up(&self.slot, &self.file)
    }

    pub(super) fn truncate(&mut self, size: u64) -> Code {
        const FAILED: c_int = ffi::SQLITE_IOERR_TRUNCATE;
        if !self.disk.is_usable() {
            return Err(FAILED);
        }
        let growth = size.saturating_sub(self.disk.len(&self.slot));
        let (outcome, code) = match self.disk.admit(DiskOpKind::Truncate, growth) {
            Verdict::Go if growth > 0 => {
                (DiskOutcome::Done, self.put(&[], size).map_err(|_| FAILED))
            }
            Verdict::Go => {
                let cut = self.catch_up().and_then(|()| self.file.set_len(size));
                let cut = cut.map_err(|_| FAILED);
                if cut.is_ok() {
                    self.disk.set_len(&self.slot, size);
                }
                (DiskOutcome::Done, cut)
            }
            Verdict::Full => (DiskOutcome::Full, Err(ffi::SQLITE_FULL)),
            refused => (refusal(refused), Err(FAILED)),
        };
        self.observe(DiskOpKind::Truncate, size, 0, outcome);
        code
    }

    pub(super) fn sync(&mut self) -> Code {
        const FAILED: c_int = ffi::SQLITE_IOERR_FSYNC;
        if !self.disk.is_usable() {
            return Err(FAILED);
        }
        let (outcome, code) = match self.disk.admit(DiskOpKind::Sync, 0) {
            Verdict::Go => {
                let written = self.catch_up();
                let synced = match self.disk.lying {
                    true => written,
                    false => written.and_then(|()| self.file.sync_all()),
                };
                (DiskOutcome::Done, synced.map_err(|_| FAILED))
            }
            refused => (refusal(refused), Err(FAILED)),
        };
        self.observe(DiskOpKind::Sync, 0, 0, outcome);
        code?;
        if self.disk.is_entry_unsynced(&self.slot) {
            sync_parent(&self.disk, &self.path)?;
            self.disk.entry_is_synced(&self.slot);
        }
        Ok(())
    }

    pub(super) fn size(&self) -> Result<u64, c_int> {
        if !self.disk.is_usable() {
            return Err(ffi::SQLITE_IOERR_FSTAT);
        }
        Ok(self.disk.len(&self.slot))
    }

    fn lock(&mut self, level: c_int) -> Code {
        if !self.disk.is_usable() {
            return Err(ffi::SQLITE_IOERR_LOCK);
        }
        let result = self.disk.lock(&mut self.slot, level);
        result.map_err(|Busy| ffi::SQLITE_BUSY)
    }

    fn unlock(&mut self, level: c_int) {
        self.disk.unlock(&mut self.slot, level);
    }

    fn is_reserved(&self) -> Result<bool, c_int> {
        if !self.disk.is_usable() {
            return Err(ffi::SQLITE_IOERR_CHECKRESERVEDLOCK);
        }
        Ok(self.disk.is_reserved(&self.slot))
    }

    fn observe(&self, kind: DiskOpKind, offset: u64, len: usize, outcome: DiskOutcome) {
        self.disk.observe(kind, &self.path, offset, len as u64, outcome);
    }
}

/// The bytes of a write that stay, so that they end with a sector of the file.
fn whole_sectors(offset: u64, len: u64, keep_percent: u8) -> u64 {
    let kept = len * u64::from(keep_percent.min(100)) / 100;
    if kept == len {
        return len;
    }
    let end = (offset + kept) / SECTOR_BYTES * SECTOR_BYTES;
    end.saturating_sub(offset)
}

/// SQLite wants the bytes past the end of a file to be zero, and to be told.
fn zero_rest(buffer: &mut [u8], read: usize) -> Code {
    if read == buffer.len() {
        return Ok(());
    }
    buffer[read..].fill(0);
    Err(ffi::SQLITE_IOERR_SHORT_READ)
}

/// How a refused operation other than a write looks to the trace.
fn refusal(verdict: Verdict) -> DiskOutcome {
    match verdict {
        Verdict::PowerOff => DiskOutcome::PowerOff,
        Verdict::Go | Verdict::Full | Verdict::Fail | Verdict::Torn { .. } => DiskOutcome::Failed,
    }
}

/// Makes the entries beside `path` durable: an operation of its own, so that the power can go before it.
fn sync_parent(disk: &Inner, path: &str) -> Code {
    const FAILED: c_int = ffi::SQLITE_IOERR_DIR_FSYNC;
    let directory = image::parent_of(Path::new(path));
    let (outcome, code) = match disk.admit(DiskOpKind::SyncDir, 0) {
        Verdict::Go => (DiskOutcome::Done, fs::sync_dir(directory).map_err(|_| FAILED)),
        refused => (refusal(refused), Err(FAILED)),
    };
    let name = Arc::from(directory.to_string_lossy());
    disk.observe(DiskOpKind::SyncDir, &name, 0, 0, outcome);
    code
}

pub(super) fn delete(name: &str, sync_dir: bool) -> Code {
    const FAILED: c_int = ffi::SQLITE_IOERR_DELETE;
    let (disk, path) = control::find(name).ok_or(FAILED)?;
    if !disk.is_usable() {
        return Err(FAILED);
    }
    if !fs::exists(path) {
        return Err(ffi::SQLITE_IOERR_DELETE_NOENT);
    }
    disk.catch_up_all().map_err(|_| FAILED)?;
    let (outcome, code) = match disk.admit(DiskOpKind::Delete, 0) {
        Verdict::Go => (DiskOutcome::Done, image::remove(Path::new(path)).map_err(|_| FAILED)),
        refused => (refusal(refused), Err(FAILED)),
    };
    disk.observe(DiskOpKind::Delete, &Arc::from(path), 0, 0, outcome);
    code?;
    if sync_dir {
        sync_parent(&disk, path)?;
    }
    Ok(())
}

/// As SQLite on Unix has it, an empty file does not exist: a journal of no bytes asks for no recovery.
fn exists(name: &str) -> Result<bool, c_int> {
    const FAILED: c_int = ffi::SQLITE_IOERR_ACCESS;
    let (disk, path) = control::find(name).ok_or(FAILED)?;
    if !disk.is_usable() {
        return Err(FAILED);
    }
    disk.catch_up_all().map_err(|_| FAILED)?;
    Ok(fs::metadata(path).is_ok_and(|found| found.is_dir() || found.len() > 0))
}

/// The clock of the host that runs now; the epoch where there is none.
fn julian_ms() -> i64 {
    let unix_ms = control::of_this_host().map_or(0, |disk| disk.wall_ms());
    JULIAN_UNIX_EPOCH_MS + unix_ms
}

/// Runs a callback's body. No panic may unwind into C.
fn guarded(on_panic: c_int, body: impl FnOnce() -> Code) -> c_int {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ffi::SQLITE_OK,
        Ok(Err(code)) => code,
        Err(_) => on_panic,
    }
}

/// The file behind SQLite's pointer.
///
/// # Safety
///
/// `file` was filled by [`x_open`] with success, is not closed, and no other reference to it lives: SQLite uses a file
/// only under the mutex of its connection.
unsafe fn file_of<'a>(file: *mut ffi::sqlite3_file) -> &'a mut File {
    // SAFETY: `x_open` put a `FfiFile` there, whose pointer owns a live `File` until `x_close`.
    unsafe { &mut *(*file.cast::<FfiFile>()).file }
}

/// The text behind a path of SQLite's.
///
/// # Safety
///
/// `path` is null or a string that ends with a zero byte and outlives the use of the result.
unsafe fn text_of<'a>(path: *const c_char) -> Option<&'a str> {
    if path.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(path) }.to_str().ok()
}

unsafe extern "C" fn x_open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let place = file.cast::<FfiFile>();
    // SAFETY: SQLite gives `szOsFile` bytes. Without methods it does not close the file, so a failed open ends here.
    unsafe { (*place).base.pMethods = ptr::null() };
    guarded(ffi::SQLITE_CANTOPEN, || {
        let opened = if name.is_null() {
            File::Temporary(Vec::new())
        } else {
            // SAFETY: SQLite's names end with a zero and outlive the file.
            let name = unsafe { text_of(name) }.ok_or(ffi::SQLITE_CANTOPEN)?;
            File::Named(SimFile::open(name, flags)?)
        };
        // SAFETY: as above; `x_close` takes the box back. `out_flags` is null or writable.
        unsafe {
            (*place).file = Box::into_raw(Box::new(opened));
            (*place).base.pMethods = &raw const IO_METHODS;
            if !out_flags.is_null() {
                *out_flags = flags;
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    guarded(ffi::SQLITE_IOERR_CLOSE, || {
        let place = file.cast::<FfiFile>();
        // SAFETY: the box is from `x_open`. SQLite closes once; without methods it would not close again.
        let file = unsafe {
            (*place).base.pMethods = ptr::null();
            Box::from_raw(mem::replace(&mut (*place).file, ptr::null_mut()))
        };
        match *file {
            File::Named(file) => file.close(),
            File::Temporary(_) => {}
        }
        Ok(())
    })
}

unsafe extern "C" fn x_read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    guarded(ffi::SQLITE_IOERR_READ, || {
        // SAFETY: an open file, and a buffer of `amount` bytes that nobody else uses during the call.
        let (file, buffer) = unsafe {
            let buffer = slice::from_raw_parts_mut(buffer.cast::<u8>(), amount as usize);
            (file_of(file), buffer)
        };
        match file {
            File::Named(file) => file.read(buffer, offset as u64),
            File::Temporary(bytes) => {
                let rest = bytes.get(offset as usize..).unwrap_or_default();
                let read = rest.len().min(buffer.len());
                buffer[..read].copy_from_slice(&rest[..read]);
                zero_rest(buffer, read)
            }
        }
    })
}

unsafe extern "C" fn x_write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    guarded(ffi::SQLITE_IOERR_WRITE, || {
        // SAFETY: an open file, and `amount` bytes that do not change during the call.
        let (file, bytes) = unsafe {
            let bytes = slice::from_raw_parts(bytes.cast::<u8>(), amount as usize);
            (file_of(file), bytes)
        };
        match file {
            File::Named(file) => file.write(bytes, offset as u64),
            File::Temporary(held) => {
                let (from, to) = (offset as usize, offset as usize + bytes.len());
                held.resize(held.len().max(to), 0);
                held[from..to].copy_from_slice(bytes);
                Ok(())
            }
        }
    })
}

unsafe extern "C" fn x_truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    guarded(ffi::SQLITE_IOERR_TRUNCATE, || {
        // SAFETY: an open file.
        match unsafe { file_of(file) } {
            File::Named(file) => file.truncate(size as u64),
            File::Temporary(bytes) => {
                bytes.resize(size as usize, 0);
                Ok(())
            }
        }
    })
}

unsafe extern "C" fn x_sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    guarded(ffi::SQLITE_IOERR_FSYNC, || {
        // SAFETY: an open file.
        match unsafe { file_of(file) } {
            File::Named(file) => file.sync(),
            File::Temporary(_) => Ok(()),
        }
    })
}

unsafe extern "C" fn x_file_size(
    file: *mut ffi::sqlite3_file,
    size: *mut ffi::sqlite3_int64,
) -> c_int {
    guarded(ffi::SQLITE_IOERR_FSTAT, || {
        // SAFETY: an open file.
        let found = match unsafe { file_of(file) } {
            File::Named(file) => file.size()?,
            File::Temporary(bytes) => bytes.len() as u64,
        };
        // SAFETY: SQLite gives a place for the result.
        unsafe { *size = found as ffi::sqlite3_int64 };
        Ok(())
    })
}

unsafe extern "C" fn x_lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    guarded(ffi::SQLITE_IOERR_LOCK, || {
        // SAFETY: an open file.
        match unsafe { file_of(file) } {
            File::Named(file) => file.lock(level),
            File::Temporary(_) => Ok(()),
        }
    })
}

unsafe extern "C" fn x_unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    guarded(ffi::SQLITE_IOERR_UNLOCK, || {
        // SAFETY: an open file.
        match unsafe { file_of(file) } {
            File::Named(file) => file.unlock(level),
            File::Temporary(_) => {}
        }
        Ok(())
    })
}

unsafe extern "C" fn x_check_reserved_lock(
    file: *mut ffi::sqlite3_file,
    result: *mut c_int,
) -> c_int {
    guarded(ffi::SQLITE_IOERR_CHECKRESERVEDLOCK, || {
        // SAFETY: an open file.
        let reserved = match unsafe { file_of(file) } {
            File::Named(file) => file.is_reserved()?,
            File::Temporary(_) => false,
        };
        // SAFETY: SQLite gives a place for the result.
        unsafe { *result = c_int::from(reserved) };
        Ok(())
    })
}

/// A transaction is over, and it may be that nobody syncs it: what it wrote is to outlive the process.
unsafe extern "C" fn x_file_control(
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    _argument: *mut c_void,
) -> c_int {
    if operation != ffi::SQLITE_FCNTL_COMMIT_PHASETWO {
        return ffi::SQLITE_NOTFOUND;
    }
    guarded(ffi::SQLITE_IOERR_WRITE, || {
        // SAFETY: an open file.
        match unsafe { file_of(file) } {
            File::Named(file) if file.disk.is_usable() => {
                file.disk.catch_up_all().map_err(|_| ffi::SQLITE_IOERR_WRITE)
            }
            File::Named(_) | File::Temporary(_) => Ok(()),
        }
    })
}

unsafe extern "C" fn x_sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES as c_int
}

/// What SQLite takes a disk of its own for, on Unix: a power loss damages nothing beside what was being written. Writes
/// are not atomic.
unsafe extern "C" fn x_device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn x_delete(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_dir: c_int,
) -> c_int {
    guarded(ffi::SQLITE_IOERR_DELETE, || {
        // SAFETY: SQLite's paths end with a zero.
        let name = unsafe { text_of(name) }.ok_or(ffi::SQLITE_IOERR_DELETE)?;
        delete(name, sync_dir != 0)
    })
}

unsafe extern "C" fn x_access(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    result: *mut c_int,
) -> c_int {
    guarded(ffi::SQLITE_IOERR_ACCESS, || {
        // SAFETY: SQLite's paths end with a zero.
        let name = unsafe { text_of(name) }.ok_or(ffi::SQLITE_IOERR_ACCESS)?;
        let found = exists(name)?;
        // SAFETY: SQLite gives a place for the result.
        unsafe { *result = c_int::from(found) };
        Ok(())
    })
}

/// Paths are absolute already.
unsafe extern "C" fn x_full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    out_bytes: c_int,
    out: *mut c_char,
) -> c_int {
    guarded(ffi::SQLITE_CANTOPEN_FULLPATH, || {
        // SAFETY: SQLite's paths end with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
        if name.len() > out_bytes as usize {
            return Err(ffi::SQLITE_CANTOPEN_FULLPATH);
        }
        // SAFETY: `out` has `out_bytes` bytes, enough for the name, and is not the name.
        unsafe { ptr::copy_nonoverlapping(name.as_ptr().cast(), out, name.len()) };
        Ok(())
    })
}

/// Returns the number of bytes filled.
unsafe extern "C" fn x_randomness(
    _vfs: *mut ffi::sqlite3_vfs,
    amount: c_int,
    out: *mut c_char,
) -> c_int {
    let filled = catch_unwind(|| {
        // SAFETY: SQLite gives `amount` bytes, which nobody else uses during the call.
        let bytes = unsafe { slice::from_raw_parts_mut(out.cast::<u8>(), amount as usize) };
        bytes.fill(0);
        if let Some(disk) = control::of_this_host() {
            disk.fill_random(bytes);
        }
        amount
    });
    filled.unwrap_or(0)
}

/// Virtual time does not pass here. Returns the microseconds slept, as if they had been.
unsafe extern "C" fn x_sleep(_vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    microseconds
}

unsafe extern "C" fn x_current_time(_vfs: *mut ffi::sqlite3_vfs, days: *mut f64) -> c_int {
    guarded(ffi::SQLITE_ERROR, || {
        // SAFETY: SQLite gives a place for the result.
        unsafe { *days = julian_ms() as f64 / DAY_MS };
        Ok(())
    })
}

unsafe extern "C" fn x_current_time_int64(
    _vfs: *mut ffi::sqlite3_vfs,
    milliseconds: *mut ffi::sqlite3_int64,
) -> c_int {
    guarded(ffi::SQLITE_ERROR, || {
        // SAFETY: SQLite gives a place for the result.
        unsafe { *milliseconds = julian_ms() };
        Ok(())
    })
}

unsafe extern "C" fn x_get_last_error(
    _vfs: *mut ffi::sqlite3_vfs,
    _amount: c_int,
    _out: *mut c_char,
) -> c_int {
    0
}
