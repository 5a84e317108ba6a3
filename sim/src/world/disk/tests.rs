//! Each test is a small simulation with one host.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi, params};
use turmoil::Sim;
use turmoil::fs::shim::std::fs;

use super::vfs::{SimFile, delete};
use super::{
    Disk, DiskConfig, DiskFault, DiskOp, DiskOpKind, DiskOutcome, VFS_NAME, create_dir,
    delete_database, restore, snapshot,
};

const HOST: &str = "host";
const DATABASE: &str = "/data/x.db";

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Runs `host` as the software of a host, again in each incarnation. The number counts incarnations.
fn simulation<'a, F>(host: impl Fn(u32) -> F + 'static) -> Sim<'a>
where
    F: Future<Output = Result> + 'static,
{
    let mut sim =
        turmoil::Builder::new().epoch(UNIX_EPOCH + Duration::from_secs(1_750_000_000)).build();
    let incarnation = Cell::new(0);
    sim.host(HOST, move || {
        let software = host(incarnation.get());
        incarnation.set(incarnation.get() + 1);
        software
    });
    sim
}

fn steps(sim: &mut Sim<'_>) {
    for _ in 0..5 {
        sim.step().expect("the host does not fail");
    }
}

/// Runs `body` once inside of a host.
fn in_a_host(body: impl FnOnce() -> Result + 'static) {
    let done = Rc::new(Cell::new(false));
    let (body, finished) = (Cell::new(Some(body)), Rc::clone(&done));
    let mut sim = simulation(move |_| {
        let (body, finished) = (body.take().expect("started once"), Rc::clone(&finished));
        async move {
            create_dir("/data")?;
            body()?;
            finished.set(true);
            Ok(())
        }
    });
    steps(&mut sim);
    assert!(done.get(), "the body ran to its end");
}

fn disk_with(name: &str, observer: Option<Arc<dyn Fn(DiskOp) + Send + Sync>>) -> Disk {
    let mut word = 0_u64;
    Disk::new(DiskConfig {
        name: name.to_owned(),
        entropy: Box::new(move || {
            word += 1;
            word
        }),
        wall_ms: Arc::new(|| 1_750_000_000_123),
        observer,
        lying: false,
    })
}

fn disk(name: &str) -> Disk {
    disk_with(name, None)
}

fn connect(disk: &Disk, path: &str) -> rusqlite::Result<Connection> {
    Connection::open_with_flags_and_vfs(disk.path(path), OpenFlags::default(), VFS_NAME)
}

/// As production opens a database.
const WAL_FULL: &str =
    "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL";
const WAL_NORMAL: &str =
    "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL";
const ROLLBACK_FULL: &str = "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL";
/// Without WAL, only this one syncs the deletion of the journal.
const ROLLBACK_EXTRA: &str = "PRAGMA journal_mode=DELETE; PRAGMA synchronous=EXTRA";

fn open(disk: &Disk, pragmas: &str) -> rusqlite::Result<Connection> {
    let db = connect(disk, DATABASE)?;
    db.execute_batch(&format!(
        "{pragmas}; PRAGMA temp_store=MEMORY; PRAGMA foreign_keys=ON;
         CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, filler BLOB NOT NULL);"
    ))?;
    Ok(db)
}

fn insert(db: &Connection, n: u32) -> rusqlite::Result<usize> {
    db.execute("INSERT INTO t VALUES(?1, zeroblob(300))", params![n])
}

fn count(db: &Connection) -> rusqlite::Result<u32> {
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
}

fn assert_intact(db: &Connection) -> Result {
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    assert_eq!(verdict, "ok");
    Ok(())
}

#[derive(Clone, Copy)]
enum End {
    PowerLoss,
    Kill,
    Orderly,
}

/// The first incarnation commits 100 rows and holds its connection, the second one counts them.
fn rows_after(end: End, pragmas: &'static str) -> u32 {
    let first = disk("host.0");
    let found = Rc::new(Cell::new(None));
    let (disk_of_first, found_by_second) = (first.clone(), Rc::clone(&found));
    let mut sim = simulation(move |incarnation| {
        let (first, found) = (disk_of_first.clone(), Rc::clone(&found_by_second));
        async move {
            create_dir("/data")?;
            if incarnation == 0 {
                let _installed = first.install();
                let db = open(&first, pragmas)?;
                for n in 0..100 {
                    insert(&db, n)?;
                }
                std::future::pending::<()>().await;
            } else {
                let second = disk("host.1");
                let _installed = second.install();
                let db = open(&second, pragmas)?;
                assert_intact(&db)?;
                found.set(Some(count(&db)?));
            }
            Ok(())
        }
    });
    steps(&mut sim);
    let ops = first.ops();
    match end {
        End::PowerLoss => {
            first.kill();
            sim.crash(HOST);
            sim.bounce(HOST);
        }
        End::Kill => {
            first.kill();
            sim.bounce(HOST);
        }
        End::Orderly => sim.bounce(HOST),
    }
    match end {
        End::PowerLoss | End::Kill => assert_eq!(first.ops(), ops, "a dead disk does nothing"),
        End::Orderly => assert!(first.ops() > ops, "a clean close checkpoints"),
    }
    steps(&mut sim);
    found.get().expect("the second incarnation ran")
}

#[test]
fn synchronous_full_survives_a_power_loss() {
    assert_eq!(rows_after(End::PowerLoss, WAL_FULL), 100);
}

#[test]
fn synchronous_normal_loses_acknowledged_rows_in_a_power_loss() {
    assert!(rows_after(End::PowerLoss, WAL_NORMAL) < 100);
}

#[test]
fn without_wal_a_deletion_of_the_journal_that_was_not_synced_takes_back_the_last_commit() {
    assert_eq!(rows_after(End::PowerLoss, ROLLBACK_FULL), 99);
    assert_eq!(rows_after(End::PowerLoss, ROLLBACK_EXTRA), 100);
}

#[test]
fn a_kill_keeps_what_was_written() {
    assert_eq!(rows_after(End::Kill, WAL_NORMAL), 100);
    assert_eq!(rows_after(End::Kill, WAL_FULL), 100);
}

#[test]
fn a_bounce_without_kill_closes_cleanly() {
    assert_eq!(rows_after(End::Orderly, WAL_NORMAL), 100);
}

fn open_script(disk: &Disk, pragmas: &str) -> rusqlite::Result<Connection> {
    let db = open(disk, pragmas)?;
    db.execute_batch(
        "PRAGMA wal_autocheckpoint=8;
         CREATE TABLE IF NOT EXISTS acked(
             id INTEGER PRIMARY KEY, step INTEGER NOT NULL, print INTEGER NOT NULL);
         INSERT OR IGNORE INTO acked VALUES(0, 0, 0);",
    )?;
    Ok(db)
}

/// What `t` must look like, kept beside it by the same transactions.
const PRINT: &str = "(SELECT coalesce(sum(n * 1000003 + length(filler)), 0) FROM t)";

/// Twelve commits of several shapes with checkpoints between them, and a vacuum. Calls `acknowledged` after each with
/// the number of the step, which goes on from the steps of earlier incarnations.
fn script(disk: &Disk, pragmas: &str, mut acknowledged: impl FnMut(u32)) -> rusqlite::Result<()> {
    let db = open_script(disk, pragmas)?;
    let last: u32 = db.query_row("SELECT step FROM acked", [], |row| row.get(0))?;
    for step in last + 1..=last + 12 {
        let work = match step % 6 {
            0 => "DELETE FROM t WHERE n % 2 = 0",
            3 => "UPDATE t SET filler = zeroblob(length(filler) + 700)",
            _ => "INSERT INTO t SELECT coalesce(max(n), 0) + 1, zeroblob(2500) FROM t",
        };
        db.execute_batch(&format!(
            "BEGIN IMMEDIATE; {work}; UPDATE acked SET step = {step}, print = {PRINT}; COMMIT"
        ))?;
        acknowledged(step);
        if step % 12 == 7 {
            db.execute_batch("VACUUM")?;
        }
    }
    Ok(())
}

/// Checks the database after a power loss, when the steps up to `acked` were acknowledged. Returns the last step in it.
fn check_script(disk: &Disk, pragmas: &str, acked: u32) -> Result<u32> {
    let db = connect(disk, DATABASE)?;
    db.execute_batch("PRAGMA locking_mode=EXCLUSIVE")?;
    assert_intact(&db)?;
    drop(db);
    let db = open_script(disk, pragmas)?;
    let sql = format!("SELECT step, print, {PRINT} FROM acked");
    let (step, print, now): (u32, i64, i64) = db.query_row(&sql, [], |row| row.try_into())?;
    assert!(step >= acked, "step {step} is there of {acked} acknowledged");
    assert!(step <= acked + 1, "step {step} was not asked for after {acked}");
    assert_eq!(print, now, "a transaction is there as a whole or not at all");
    Ok(step)
}

/// Runs the script in one incarnation per fault, each ended by a power loss, and checks the database in the beginning
/// of each and in a last one. Returns how many of the faults fired.
fn survives(pragmas: &'static str, faults: &[DiskFault]) -> usize {
    let disks: Vec<Disk> =
        (0..=faults.len()).map(|incarnation| disk(&format!("host.{incarnation}"))).collect();
    let acked = Rc::new(Cell::new(0));
    let shared = (disks.clone(), faults.to_owned(), Rc::clone(&acked));
    let mut sim = simulation(move |incarnation| {
        let (disks, faults, acked) = shared.clone();
        async move {
            create_dir("/data")?;
            let disk = &disks[incarnation as usize];
            let fault = faults.get(incarnation as usize);
            let _installed = disk.install();
            fault.into_iter().for_each(|fault| disk.schedule(*fault));
            match check_script(disk, pragmas, acked.get()) {
                Ok(step) => acked.set(step),
                Err(error) => assert!(disk.powered_off(), "{faults:?}: {error:?}"),
            }
            // SQLite reports no error if the power goes in a checkpoint after the commit.
            let ran = script(disk, pragmas, |step| acked.set(step));
            assert!(ran.is_ok() || disk.powered_off(), "{faults:?}: {ran:?}");
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    steps(&mut sim);
    for disk in &disks[..faults.len()] {
        disk.kill();
        sim.crash(HOST);
        sim.bounce(HOST);
        steps(&mut sim);
    }
    assert!(acked.get() >= 12, "the last incarnation ran");
    disks.iter().filter(|disk| disk.powered_off()).count()
}

#[test]
fn power_off_at_any_operation_keeps_acknowledged_commits() {
    for pragmas in [WAL_FULL, ROLLBACK_EXTRA] {
        let fired = (0..)
            .take_while(|&after_ops| survives(pragmas, &[DiskFault::PowerOff { after_ops }]) == 1);
        let operations = fired.count();
        assert!(operations > 150, "{operations} with {pragmas}");
    }
}

#[test]
fn power_off_during_recovery_keeps_acknowledged_commits() {
    for pragmas in [WAL_FULL, ROLLBACK_EXTRA] {
        for first in (0..200).step_by(13) {
            for second in (0..60).step_by(3) {
                let faults =
                    [first, second, second / 2].map(|after_ops| DiskFault::PowerOff { after_ops });
                assert_eq!(survives(pragmas, &faults), 3);
            }
        }
    }
}

#[test]
fn a_torn_write_at_any_operation_keeps_acknowledged_commits() {
    for pragmas in [WAL_FULL, ROLLBACK_EXTRA] {
        for keep_percent in [0, 30, 70, 100] {
            let fired = (0..).step_by(2).take_while(|&after_ops| {
                let fault = DiskFault::TornWrite { after_ops, keep_percent };
                survives(pragmas, &[fault]) == 1
            });
            assert!(fired.count() > 50, "{keep_percent}");
        }
    }
}

#[test]
fn a_torn_write_keeps_whole_sectors() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observer = {
        let seen = Arc::clone(&seen);
        Arc::new(move |op: DiskOp| {
            if let DiskOutcome::Torn { kept_bytes } = op.outcome {
                seen.lock().unwrap().push((op.offset, op.len, kept_bytes));
            }
        })
    };
    in_a_host(move || {
        let disk = disk_with("host.0", Some(observer));
        let _installed = disk.install();
        let db = open(&disk, WAL_FULL)?;
        insert(&db, 1)?;
        // The header of the frame is a write of its own.
        disk.schedule(DiskFault::TornWrite { after_ops: 1, keep_percent: 50 });
        assert!(insert(&db, 2).is_err());
        assert!(disk.powered_off() && disk.is_dead());
        Ok(())
    });
    let seen = seen.lock().unwrap();
    let &[(offset, len, kept_bytes)] = seen.as_slice() else {
        panic!("one torn write, not {seen:?}");
    };
    assert_eq!(len, 4096);
    assert!(kept_bytes > 2048 - 512 && kept_bytes <= 2048, "{kept_bytes}");
    assert_eq!((offset + kept_bytes) % 512, 0);
}

#[test]
fn a_failed_write_is_an_error_and_the_database_stays_usable() {
    in_a_host(|| {
        let disk = disk("host.0");
        let _installed = disk.install();
        let db = open(&disk, WAL_FULL)?;
        insert(&db, 1)?;
        disk.schedule(DiskFault::FailWrite { after_ops: 0, count: 1 });
        let error = insert(&db, 2).expect_err("the write fails");
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure));
        insert(&db, 3)?;
        assert_eq!(count(&db)?, 2);
        assert_intact(&db)
    });
}

#[test]
fn a_failed_sync_is_an_error_and_the_database_can_be_opened_again() {
    in_a_host(|| {
        let disk = disk("host.0");
        let _installed = disk.install();
        let db = open(&disk, WAL_FULL)?;
        insert(&db, 1)?;
        disk.schedule(DiskFault::FailSync { after_ops: 0, count: u32::MAX });
        let error = insert(&db, 2).expect_err("the sync fails");
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure));
        disk.clear_faults();
        drop(db);
        let db = open(&disk, WAL_FULL)?;
        insert(&db, 3)?;
        assert_intact(&db)?;
        assert!(count(&db)? >= 2, "the acknowledged rows are there");
        Ok(())
    });
}

#[test]
fn a_full_disk_refuses_growth_until_there_is_space() {
    in_a_host(|| {
        let disk = disk("host.0");
        let _installed = disk.install();
        let db = open(&disk, WAL_FULL)?;
        insert(&db, 1)?;
        disk.schedule(DiskFault::Full { capacity_bytes: 64 * 1024 });
        let error = (2..100).find_map(|n| insert(&db, n).err()).expect("the disk fills up");
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
        let rows = count(&db)?;
        assert!(rows > 3, "{rows}");
        disk.clear_faults();
        insert(&db, 1000)?;
        assert_eq!(count(&db)?, rows + 1);
        assert_intact(&db)
    });
}

#[test]
fn faults_that_do_not_fire_are_harmless() {
    in_a_host(|| {
        let disk = disk("host.0");
        let _installed = disk.install();
        let far = u64::MAX;
        for fault in [
            DiskFault::PowerOff { after_ops: far },
            DiskFault::TornWrite { after_ops: far, keep_percent: 0 },
            DiskFault::FailWrite { after_ops: far, count: 1 },
            DiskFault::FailSync { after_ops: 0, count: 0 },
            DiskFault::Full { capacity_bytes: far },
        ] {
            disk.schedule(fault);
        }
        script(&disk, WAL_FULL, |_| {})?;
        assert!(!disk.is_dead() && !disk.powered_off());
        Ok(())
    });
}

fn operations() -> Vec<DiskOp> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observer = {
        let seen = Arc::clone(&seen);
        Arc::new(move |op| seen.lock().unwrap().push(op))
    };
    in_a_host(move || {
        let disk = disk_with("host.0", Some(observer));
        let _installed = disk.install();
        script(&disk, WAL_FULL, |_| {})?;
        Ok(())
    });
    seen.lock().unwrap().split_off(0)
}

#[test]
fn two_runs_give_the_same_operations() {
    let once = operations();
    assert_eq!(once, operations());
    let has = |kind| once.iter().any(|op| op.kind == kind);
    assert!(has(DiskOpKind::Open) && has(DiskOpKind::Close) && has(DiskOpKind::Read));
    assert!(has(DiskOpKind::Write) && has(DiskOpKind::Sync) && has(DiskOpKind::SyncDir));
    assert!(has(DiskOpKind::Truncate) && has(DiskOpKind::Delete));
    assert!(once.iter().all(|op| op.file.starts_with("/data")), "without the disk's name");
}

#[test]
fn a_second_connection_is_busy() {
    in_a_host(|| {
        let disk = disk("host.0");
        let _installed = disk.install();
        let first = open(&disk, WAL_FULL)?;
        insert(&first, 1)?;
        let second = connect(&disk, DATABASE)?;
        let error = count(&second).expect_err("the first one holds the exclusive lock");
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
        drop(first);
        second.execute_batch("PRAGMA locking_mode=EXCLUSIVE")?;
        assert_eq!(count(&second)?, 1);
        Ok(())
    });
}

#[test]
fn readers_and_one_writer_share_a_database_without_wal() {
    in_a_host(|| {
        let disk = disk("host.0");
        let _installed = disk.install();
        let writer = connect(&disk, DATABASE)?;
        writer.execute_batch("CREATE TABLE t(n, filler); BEGIN IMMEDIATE")?;
        let reader = connect(&disk, DATABASE)?;
        assert_eq!(count(&reader)?, 0, "a reserved lock lets readers in");
        let error = reader.execute_batch("BEGIN IMMEDIATE").expect_err("but no other writer");
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
        insert(&writer, 1)?;
        reader.execute_batch("BEGIN")?;
        assert_eq!(count(&reader)?, 0);
        let error = writer.execute_batch("COMMIT").expect_err("a reader is in");
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
        reader.execute_batch("COMMIT")?;
        writer.execute_batch("COMMIT")?;
        assert_eq!(count(&reader)?, 1);
        Ok(())
    });
}

#[test]
fn a_connection_may_outlive_its_host_and_its_simulation() {
    let kept = Rc::new(RefCell::new(Vec::new()));
    let keep = Rc::clone(&kept);
    let living = disk("host.0");
    let dead = disk("host.0-b");
    let disks = (living.clone(), dead.clone());
    let mut sim = simulation(move |_| {
        let (keep, disks) = (Rc::clone(&keep), disks.clone());
        async move {
            create_dir("/data")?;
            for disk in [disks.0, disks.1] {
                let _installed = disk.install();
                let db = connect(&disk, &format!("/data/{}.db", keep.borrow().len()))?;
                db.execute_batch("CREATE TABLE t(n); BEGIN; INSERT INTO t VALUES(1)")?;
                keep.borrow_mut().push(db);
            }
            Ok(())
        }
    });
    steps(&mut sim);
    dead.kill();
    let ops = (living.ops(), dead.ops());
    let [first, second] = kept.take().try_into().expect("two connections");
    drop(first);
    drop(sim);
    assert!(second.execute_batch("INSERT INTO t VALUES(2)").is_ok(), "in the cache");
    assert!(second.execute_batch("COMMIT").is_err());
    drop(second);
    assert_eq!((living.ops(), dead.ops()), ops, "nothing was written");
}

#[test]
fn a_simulation_may_end_with_open_connections() {
    let first = disk("host.0");
    let disk = first.clone();
    let mut sim = simulation(move |_| {
        let disk = disk.clone();
        async move {
            create_dir("/data")?;
            let _installed = disk.install();
            let db = open(&disk, WAL_FULL)?;
            insert(&db, 1)?;
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    steps(&mut sim);
    let ops = first.ops();
    drop(sim);
    assert_eq!(first.ops(), ops);
    assert_eq!(Arc::strong_count(&first.0), 1, "no file is left");
}

#[test]
fn a_dead_connection_leaks_nothing() {
    let first = disk("host.0");
    let give = first.clone();
    let mut sim = simulation(move |incarnation| {
        let disk = give.clone();
        async move {
            create_dir("/data")?;
            if incarnation == 0 {
                let _installed = disk.install();
                let db = open(&disk, WAL_FULL)?;
                insert(&db, 1)?;
                disk.schedule(DiskFault::PowerOff { after_ops: 2 });
                assert!(insert(&db, 2).is_err());
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    steps(&mut sim);
    assert!(first.powered_off());
    assert!(Arc::strong_count(&first.0) > 4, "the two files hold it too");
    sim.crash(HOST);
    // This handle, and the one that the host keeps for a restart.
    assert_eq!(Arc::strong_count(&first.0), 2);
    drop(sim);
    assert_eq!(Arc::strong_count(&first.0), 1);
}

#[test]
fn a_panic_in_a_callback_is_an_error_of_sqlite() {
    in_a_host(|| {
        let observer = Arc::new(|op: DiskOp| {
            assert!(op.kind != DiskOpKind::Sync, "the test's panic");
        });
        let disk = disk_with("host.0", Some(observer));
        let _installed = disk.install();
        let error = open(&disk, WAL_FULL).expect_err("the first sync panics");
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure));
        Ok(())
    });
}

#[test]
fn a_connection_in_another_host_does_not_touch_its_files() {
    let handed = Rc::new(RefCell::new(None));
    let disk = disk("a.0");
    let give = (disk.clone(), Rc::clone(&handed));
    let mut sim = turmoil::Builder::new().build();
    sim.host("a", move || {
        let (disk, handed) = give.clone();
        async move {
            create_dir("/data")?;
            let _installed = disk.install();
            let db = open(&disk, WAL_FULL)?;
            insert(&db, 1)?;
            handed.replace(Some(db));
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let take = Rc::clone(&handed);
    sim.client("b", async move {
        create_dir("/data")?;
        fs::write(DATABASE, b"mine")?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        // Both hosts count their descriptors from zero.
        let files: Vec<_> = (0..8).map(|_| fs::File::open(DATABASE)).collect();
        let foreign: Connection = take.take().expect("handed over");
        assert!(insert(&foreign, 2).is_err());
        drop(foreign);
        for file in files {
            assert_eq!(file?.metadata()?.len(), 4, "the descriptor is still open");
        }
        Ok(())
    });
    sim.run().expect("no panic");
}

#[test]
fn a_snapshot_can_be_restored_on_a_later_incarnation() {
    let found = Rc::new(Cell::new(None));
    let found_by_second = Rc::clone(&found);
    let mut sim = simulation(move |incarnation| {
        let found = Rc::clone(&found_by_second);
        async move {
            let disk = disk(&format!("host.{incarnation}"));
            let _installed = disk.install();
            if incarnation == 1 {
                let db = open(&disk, WAL_FULL)?;
                assert_intact(&db)?;
                found.set(Some(count(&db)?));
                return Ok(());
            }
            create_dir("/data")?;
            let db = open(&disk, WAL_FULL)?;
            insert(&db, 1)?;
            let backup = snapshot(disk.path(DATABASE))?;
            let names: Vec<&str> = backup.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["x.db", "x.db-wal"]);
            insert(&db, 2)?;
            drop(db);
            assert_eq!(count(&open(&disk, WAL_FULL)?)?, 2);
            restore(DATABASE, &backup)?;
            assert_eq!(count(&open(&disk, WAL_FULL)?)?, 1);
            delete_database(DATABASE)?;
            assert_eq!(snapshot(DATABASE)?, []);
            delete_database(DATABASE)?;
            restore("/elsewhere/x.db", &backup)?;
            restore(DATABASE, &backup)?;
            assert!(restore("/data/y.db", &backup).is_err(), "another name");
            Ok(())
        }
    });
    steps(&mut sim);
    sim.crash(HOST);
    sim.bounce(HOST);
    steps(&mut sim);
    assert_eq!(found.get(), Some(1), "the restore was durable");
}

#[test]
fn sqlite_reads_the_clock_of_the_host() {
    in_a_host(|| {
        let disk = disk("host.0");
        let _installed = disk.install();
        let db = connect(&disk, DATABASE)?;
        let now: String =
            db.query_row("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')", [], |row| row.get(0))?;
        assert_eq!(now, "2025-06-15 15:06:40.123");
        Ok(())
    });
}

#[test]
fn an_open_without_an_installed_disk_fails() {
    in_a_host(|| {
        let disk = disk("host.0");
        let installed = disk.install();
        drop(connect(&disk, DATABASE)?);
        drop(installed);
        assert!(connect(&disk, DATABASE).is_err());
        let installed = disk.install();
        drop(connect(&disk, DATABASE)?);
        disk.kill();
        assert!(connect(&disk, DATABASE).is_err());
        drop(installed);
        let flags = OpenFlags::default();
        assert!(Connection::open_with_flags_and_vfs(DATABASE, flags, VFS_NAME).is_err());
        Ok(())
    });
}

#[test]
fn temporary_files_need_no_disk() {
    in_a_host(|| {
        let disk = disk("host.0");
        let _installed = disk.install();
        let db = open(&disk, WAL_FULL)?;
        // A savepoint's journal beyond 64 KiB, a sorter that spills, a temporary table.
        db.execute_batch(
            "PRAGMA temp_store=FILE; PRAGMA cache_size=10;
             CREATE TEMP TABLE scratch(n, filler);
             WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000)
             INSERT INTO scratch SELECT n, zeroblob(500) FROM c;
             INSERT INTO t SELECT n, filler FROM scratch;
             SAVEPOINT s; UPDATE t SET filler = zeroblob(600); ROLLBACK TO s; RELEASE s;",
        )?;
        let first: u32 = db.query_row(
            "SELECT n FROM scratch ORDER BY filler, n DESC LIMIT 1 OFFSET 10",
            [],
            |row| row.get(0),
        )?;
        assert_eq!(first, 1990);
        assert_eq!(count(&db)?, 2000);
        assert_intact(&db)
    });
}

fn open_file(disk: &Disk) -> std::result::Result<SimFile, i32> {
    let path = disk.path("/data/file");
    let flags = ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_READWRITE;
    SimFile::open(path.to_str().expect("a text"), flags)
}

#[test]
fn a_hole_and_the_bytes_past_the_end_are_zero() {
    in_a_host(|| {
        let disk = disk("host.0");
        let _installed = disk.install();
        let mut file = open_file(&disk).expect("opened");
        assert_eq!(file.write(&[7; 100], 0), Ok(()));
        assert_eq!(file.sync(), Ok(()));
        assert_eq!(file.truncate(10), Ok(()));
        assert_eq!(file.write(&[9; 10], 50), Ok(()));
        assert_eq!(file.size(), Ok(60));
        let mut buffer = [1; 100];
        assert_eq!(file.read(&mut buffer, 0), Err(ffi::SQLITE_IOERR_SHORT_READ));
        let mut expected = [0; 100];
        expected[..10].fill(7);
        expected[50..60].fill(9);
        assert_eq!(buffer, expected);
        assert_eq!(file.truncate(80), Ok(()));
        assert_eq!(file.read(&mut buffer[..80], 0), Ok(()));
        assert_eq!(buffer, expected);
        assert_eq!(file.size(), Ok(80));
        file.close();
        Ok(())
    });
}

#[test]
fn a_deleted_file_leaves_nothing_to_its_successor() {
    in_a_host(|| {
        let disk = disk("host.0");
        let _installed = disk.install();
        let path = disk.path("/data/file");
        for sync_dir in [false, true] {
            let mut file = open_file(&disk).expect("opened");
            assert_eq!(file.size(), Ok(0));
            assert_eq!(file.write(&[7; 100], 0), Ok(()));
            file.close();
            assert_eq!(delete(path.to_str().expect("a text"), sync_dir), Ok(()));
        }
        open_file(&disk).expect("opened").close();
        assert_eq!(fs::metadata("/data/file")?.len(), 0);
        Ok(())
    });
}
