//! SQLite on a simulated disk.
//!
//! A SQLite VFS over turmoil's filesystem, which is per host and forgets on [`Sim::crash`] whatever was not synced. So
//! the production store runs unchanged, with real SQLite, and loses what a machine would lose. A [`Disk`] is the switch
//! box of one *incarnation* of a host: it counts operations, injects the faults of the plan, shows operations to a
//! trace, and cuts the disk off.
//!
//! # How an open finds its disk
//!
//! A VFS callback knows a path and nothing else, so the disk's name travels in the path: [`Disk::path`] makes
//! `/data/x.db` into `/disk:client-1.0/data/x.db`. [`Disk::install`] registers the name for this thread until its guard
//! is dropped; open files do not need the registration any more. The name is chosen by the caller and not numbered here,
//! because SQLite puts the path into error messages, and those must be the same in every run. Paths derived from such
//! a path (`-wal`, `VACUUM INTO`, a backup beside it) stay on the same disk.
//!
//! ```no_run
//! use std::sync::Arc;
//! use rusqlite::{Connection, OpenFlags};
//! # use gapless_sim::world::disk::{Disk, DiskConfig, DiskFault, VFS_NAME};
//! # fn in_a_host() -> rusqlite::Result<()> {
//! let disk = Disk::new(DiskConfig {
//!     name: "client-1.0".to_owned(), // host and incarnation
//!     entropy: Box::new(|| 4),
//!     wall_ms: Arc::new(|| 1_750_000_000_000),
//!     observer: None,
//!     lying: false,
//! });
//! let _installed = disk.install();
//! disk.schedule(DiskFault::PowerOff { after_ops: 12 });
//! let path = disk.path("/data/outbox.db"); // the directory exists and is synced
//! let db = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), VFS_NAME)?;
//! db.execute_batch("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")?;
//! # Ok(())
//! # }
//! ```
//!
//! # Ending an incarnation
//!
//! [`Sim::crash`] and [`Sim::bounce`] first drop the host's futures, and with them its connections, whose clean close
//! would checkpoint and sync what the fault is to lose. Therefore **call [`Disk::kill`] before** either, and before the
//! simulation is dropped:
//!
//! | fault | calls |
//! |---|---|
//! | power loss | `kill`, `Sim::crash` (unsynced writes are gone), `Sim::bounce` |
//! | kill of the process | `kill`, `Sim::bounce` (everything written is kept) |
//! | orderly stop | `Sim::bounce` alone: connections close cleanly |
//!
//! A fault that cuts the power ([`DiskFault::PowerOff`], [`DiskFault::TornWrite`]) kills by itself, in the middle of
//! a transaction; the world sees [`Disk::powered_off`] and must crash the host before an answer leaves it. Each
//! incarnation has its own `Disk`: a dead one stays dead, and its locks die with it.
//!
//! A dead disk touches nothing: reads, writes, syncs, deletions and opens fail, closing succeeds, and files are dropped
//! without a leak. A callback outside of a host, or in another host than the one that opened the disk's first file, is
//! treated as dead too, since turmoil would panic or serve the wrong files.
//!
//! # What a read sees
//!
//! The bytes of an open file are also kept here, as a kernel's page cache has them, and reads are answered from there:
//! turmoil would put them together anew from its queue of writes, each time. Writes that follow each other go to that
//! queue as one, at the latest when the file is synced or the transaction is over, so that a kill keeps what was
//! committed. While a fault is scheduled each write goes there at once.
//!
//! # What this does not model
//!
//! - Shared memory: WAL needs `locking_mode=EXCLUSIVE`. Memory mapping and atomic writes are not offered either.
//! - Reordering of unsynced writes: on a power loss all of them are lost, or with a torn write those of that file kept.
//! - Damage beside a write: a loss of power leaves what was not being written as it was. SQLite is told so; of a disk
//!   of its own on Unix it believes the same.
//! - A failed sync keeps the unsynced data pending; on some kernels it is lost.
//! - Temporary files without a name live in memory, uncounted, as `temp_store=MEMORY` has them.
//! - The creation of a file makes earlier creations and deletions in its directory durable, because turmoil cannot
//!   represent "deleted, not synced, created again". The file's own entry is made durable by its first sync, a deletion
//!   by the sync that SQLite asks for, so without one a deleted journal can come back.
//! - Time: operations take none. `xSleep` returns at once.
//! - SQLite's own random generator (salts of the WAL) is one per process and seeded by the *default* VFS, never by this
//!   one. File contents therefore differ between runs, file names, offsets and lengths do not.
//!
//! [`Sim::crash`]: turmoil::Sim::crash
//! [`Sim::bounce`]: turmoil::Sim::bounce

mod content;
mod control;
mod image;
#[cfg(test)]
mod tests;
mod vfs;

pub use control::{Disk, DiskConfig, DiskFault, DiskGuard, DiskOp, DiskOpKind, DiskOutcome};
pub use image::{Snapshot, create_dir, delete_database, restore, size, snapshot};
pub use vfs::VFS_NAME;
