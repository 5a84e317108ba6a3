//! The log on SQLite: against a naive model, over restarts, and with databases that are no log.
#![cfg(feature = "sqlite")]

use gapless::database::OpenError;
use gapless::events::AgentId;
use gapless::events::log::{Append, Appended, Command, Read, Reply};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::events::wire::EventBody;
use gapless::recovery::{Cursor, Epoch, Verdict, WallTime};
use gapless::storage::{Copied as _, StoreError, Transact as _};
use proptest::prelude::*;
use serde_json::value::RawValue;

/// The largest number that an event can have.
const LARGEST: u64 = (1 << 53) - 1;

fn agent(number: u8) -> AgentId {
    AgentId::parse(&format!("agent-{number}")).expect("valid")
}

fn body(id: Option<&str>, text: u32) -> EventBody {
    let payload = RawValue::from_string(format!(r#"{{"text":{text}}}"#)).expect("JSON");
    EventBody::new(id, "note", &payload, 1024).expect("valid")
}

fn append(number: u8, id: Option<&str>, text: u32) -> Command {
    append_as("p", number, id, text, None)
}

fn append_as(
    principal: &str,
    number: u8,
    id: Option<&str>,
    text: u32,
    after: Option<u64>,
) -> Command {
    Command::Append(Append {
        principal: principal.to_owned(),
        agent: agent(number),
        body: body(id, text),
        after,
        created_at: WallTime::from_millis(i64::from(text)),
    })
}

fn read(number: u8, after: u64, to: u64, count_max: usize) -> Command {
    Command::Read(Read { agent: agent(number), after, to, count_max, bytes_max: usize::MAX })
}

fn epoch(number: u32) -> Epoch {
    Epoch::parse(&format!("epoch-{number}")).expect("valid")
}

fn open(proposed: Epoch) -> Command {
    Command::OpenEpoch { proposed, broken: None }
}

fn load(agent: AgentId) -> Command {
    Command::Load { agent, confirmed: false }
}

fn one(log: &mut SqliteLog, command: Command) -> Reply {
    log.transact(vec![command]).expect("the transaction succeeds").remove(0)
}

fn sequences(reply: Reply) -> Vec<u64> {
    match reply {
        Reply::Page(page) => page.into_iter().map(|(sequence, _)| sequence).collect(),
        other => panic!("a page was expected: {other:?}"),
    }
}

fn appended(reply: Reply) -> Appended {
    match reply {
        Reply::Appended(appended) => appended,
        other => panic!("an append was expected: {other:?}"),
    }
}

fn new_sequence(reply: Reply) -> Option<u64> {
    match appended(reply) {
        Appended::New { sequence, .. } => Some(sequence),
        _ => None,
    }
}

/// A log in memory with an open epoch.
fn memory(change: impl FnOnce(&mut LogConfig)) -> SqliteLog {
    let mut config = LogConfig::new(":memory:");
    change(&mut config);
    let mut log = SqliteLog::open(config).expect("the log opens");
    one(&mut log, open(epoch(1)));
    log
}

#[test]
fn numbers_are_contiguous_per_agent_whatever_is_mixed_in_a_transaction() {
    let mut log = memory(|_| {});
    let batch =
        vec![append(1, None, 1), append(2, None, 2), append(1, None, 3), append(1, None, 4)];
    let numbers: Vec<_> =
        log.transact(batch).expect("it succeeds").into_iter().map(new_sequence).collect();
    assert_eq!(numbers, [Some(1), Some(1), Some(2), Some(3)]);
    assert_eq!(sequences(one(&mut log, read(1, 1, 9, 10))), [2, 3]);
    assert_eq!(sequences(one(&mut log, read(1, 0, 9, 2))), [1, 2]);
}

#[test]
fn the_same_id_with_the_same_bytes_is_the_same_event() {
    let mut log = memory(|_| {});
    assert_eq!(new_sequence(one(&mut log, append(1, Some("a"), 1))), Some(1));
    one(&mut log, open(epoch(2)));
    let again = appended(one(&mut log, append(1, Some("a"), 1)));
    assert_eq!(again, Appended::Existing { sequence: 1, epoch: epoch(1) });
    assert_eq!(appended(one(&mut log, append(1, Some("a"), 2))), Appended::Conflict);
    let other = append_as("q", 1, Some("a"), 1, None);
    assert_eq!(appended(one(&mut log, other)), Appended::Conflict);
    assert_eq!(new_sequence(one(&mut log, append(2, Some("a"), 1))), Some(1), "another agent's id");
}

#[test]
fn an_id_from_beyond_the_memory_of_ids_is_expired_for_who_knows_since_when() {
    let mut log = memory(|config| {
        config.retain_events = Some(16);
        config.remember_ids = 32;
    });
    for text in 1..=100 {
        one(&mut log, append(1, Some(&format!("id-{text}")), text));
    }
    let old = append_as("p", 1, Some("id-1"), 1, Some(0));
    assert_eq!(appended(one(&mut log, old)), Appended::Expired);
    let remembered = append_as("p", 1, Some("id-80"), 80, Some(79));
    assert!(matches!(appended(one(&mut log, remembered)), Appended::Existing { sequence: 80, .. }));
}

#[test]
fn retention_moves_the_oldest_and_never_the_numbers() {
    let mut log = memory(|config| config.retain_events = Some(16));
    for text in 1..=100 {
        one(&mut log, append(1, None, text));
    }
    let Reply::Loaded(state) = one(&mut log, load(agent(1))) else { panic!("loaded") };
    assert_eq!(state.head, 100);
    assert!((84..=86).contains(&state.oldest), "{}", state.oldest);
    let all = Command::Retain { agent: agent(1), oldest: 1_000 };
    assert!(matches!(one(&mut log, all), Reply::Retained(101)));
    assert_eq!(new_sequence(one(&mut log, append(1, None, 1))), Some(101));
}

#[test]
fn a_cursor_is_judged_over_epochs_and_restores() {
    let folder = tempfile();
    let path = folder.join("log.db");
    let mut log = SqliteLog::open(LogConfig::new(&path)).expect("it opens");
    one(&mut log, open(epoch(1)));
    for text in 1..=10 {
        one(&mut log, append(1, None, text));
    }
    drop(log);
    let backup = std::fs::read(&path).expect("the file is there");
    let mut log = SqliteLog::open(LogConfig::new(&path)).expect("it opens");
    one(&mut log, open(epoch(2)));
    for text in 11..=20 {
        one(&mut log, append(1, None, text));
    }
    let judge = |log: &mut SqliteLog, name, sequence| {
        let Reply::Loaded(state) = one(log, load(agent(1))) else { panic!("loaded") };
        state.lineage.judge(&Cursor::new(epoch(name), sequence), state.oldest, state.head)
    };
    assert_eq!(judge(&mut log, 1, 8), Verdict::Replay { from: 9, to: 20 });
    assert_eq!(judge(&mut log, 1, 12), Verdict::Ahead { from: 11, to: 20 });
    drop(log);
    // The log goes back to its backup, and on from there under a new epoch.
    std::fs::write(&path, backup).expect("restored");
    let mut log = SqliteLog::open(LogConfig::new(&path)).expect("it opens");
    one(&mut log, open(epoch(3)));
    one(&mut log, append(1, None, 99));
    assert_eq!(judge(&mut log, 2, 15), Verdict::OtherEpoch { from: 1, to: 11 });
    assert_eq!(judge(&mut log, 1, 10), Verdict::Replay { from: 11, to: 11 });
    std::fs::remove_dir_all(folder).expect("cleaned up");
}

/// The log knows which streams have numbers in its epoch, and does not ask the database again.
#[test]
fn a_stream_with_numbers_in_an_epoch_gets_its_first_one_in_the_next_whatever_is_one_transaction() {
    for grouped in [true, false] {
        let mut log = memory(|_| {});
        one(&mut log, append(1, None, 1));
        let commands = vec![append(1, None, 2), open(epoch(2)), append(1, None, 3)];
        if grouped {
            log.transact(commands).expect("it succeeds");
        } else {
            for command in commands {
                one(&mut log, command);
            }
        }
        one(&mut log, append(1, None, 4));
        let Reply::Loaded(state) = one(&mut log, load(agent(1))) else { panic!("loaded") };
        let judge = |name, sequence| {
            state.lineage.judge(&Cursor::new(epoch(name), sequence), state.oldest, state.head)
        };
        assert_eq!(judge(1, 2), Verdict::Replay { from: 3, to: 4 }, "{grouped}");
        assert_eq!(
            judge(1, 3),
            Verdict::Ahead { from: 3, to: 4 },
            "3 is another epoch's: {grouped}"
        );
        assert_eq!(judge(2, 3), Verdict::Replay { from: 4, to: 4 }, "{grouped}");
    }
}

/// What the log knows of its streams in memory is what was committed, whatever was tried.
#[test]
fn numbers_and_ids_of_a_transaction_that_failed_are_given_to_the_next() {
    let mut log = memory(|_| {});
    one(&mut log, append(1, Some("first"), 1));
    let limit = |log: &SqliteLog, pages: u32| {
        let pragma =
            log.database().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
        pragma.expect("it is a pragma");
    };
    // SQLite takes no limit below what is there already.
    limit(&log, 1);
    let many = (2..400).map(|n| append(1, Some(&format!("id-{n}")), n));
    let failed = log.transact(many.collect());
    assert!(matches!(failed, Err(StoreError::NotApplied(_))), "{failed:?}");
    limit(&log, 1 << 20);
    assert_eq!(new_sequence(one(&mut log, append(1, Some("id-2"), 7))), Some(2));
    assert_eq!(new_sequence(one(&mut log, append(1, Some("id-3"), 8))), Some(3));
    assert_eq!(sequences(one(&mut log, read(1, 0, 9, 9))), [1, 2, 3]);
}

#[test]
fn an_epoch_without_a_row_is_forgotten_behind_epochs_max_newer_ones() {
    let mut log = memory(|config| config.epochs_max = 2);
    one(&mut log, append(1, None, 1));
    let judge = |log: &mut SqliteLog, name| {
        let Reply::Loaded(state) = one(log, load(agent(1))) else { panic!("loaded") };
        let known = state.lineage.judge(&Cursor::new(epoch(name), 1), state.oldest, state.head);
        matches!(known, Verdict::OtherEpoch { .. })
    };
    one(&mut log, open(epoch(2)));
    one(&mut log, open(epoch(3)));
    assert!(!judge(&mut log, 2), "one newer epoch is not enough");
    one(&mut log, open(epoch(4)));
    assert!(judge(&mut log, 2), "two newer ones are");
    assert!(!judge(&mut log, 1), "an epoch with a row is kept whatever its age");
}

#[test]
fn an_event_beyond_the_largest_number_is_refused_and_nothing_is_stored() {
    let folder = tempfile();
    let path = folder.join("log.db");
    let mut log = SqliteLog::open(LogConfig::new(&path)).expect("it opens");
    one(&mut log, open(epoch(1)));
    one(&mut log, append(1, None, 1));
    drop(log);
    let database = rusqlite::Connection::open(&path).expect("nobody has it open");
    database
        .execute("UPDATE streams SET head = ?1, oldest = ?2", [LARGEST - 1, LARGEST])
        .expect("a stream that has come far");
    drop(database);
    let mut log = SqliteLog::open(LogConfig::new(&path)).expect("it opens");
    one(&mut log, open(epoch(2)));
    assert_eq!(new_sequence(one(&mut log, append(1, None, 2))), Some(LARGEST));
    assert_eq!(appended(one(&mut log, append(1, None, 3))), Appended::Exhausted);
    assert_eq!(sequences(one(&mut log, read(1, LARGEST - 1, LARGEST, 10))), [LARGEST]);
    std::fs::remove_dir_all(folder).expect("cleaned up");
}

/// A fresh folder.
fn tempfile() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("gapless-log-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

#[test]
fn a_database_that_is_no_log_of_ours_is_refused_and_left_as_it_is() {
    let folder = tempfile();
    let open = |name: &str| SqliteLog::open(LogConfig::new(folder.join(name))).map(|_| ());
    let make = |name: &str, sql: &str| {
        rusqlite::Connection::open(folder.join(name))
            .expect("it opens")
            .execute_batch(sql)
            .expect("it runs");
    };
    make("foreign.db", "CREATE TABLE t (x)");
    let bytes = |name: &str| std::fs::read(folder.join(name)).expect("read");
    let before = bytes("foreign.db");
    assert!(matches!(open("foreign.db"), Err(OpenError::Foreign { .. })));
    assert!(bytes("foreign.db") == before, "not even its journal mode has changed");
    open("new.db").expect("it is created");
    make("new.db", "PRAGMA user_version = 99");
    let before = bytes("new.db");
    assert!(matches!(open("new.db"), Err(OpenError::TooNew { found: 99, known: 1, .. })));
    assert!(bytes("new.db") == before, "a newer file is left alone");
    std::fs::write(folder.join("text.db"), "this is no database, but it is long enough".repeat(40))
        .expect("written");
    let before = std::fs::read(folder.join("text.db")).expect("read");
    assert!(matches!(open("text.db"), Err(OpenError::Damaged { .. })));
    assert_eq!(std::fs::read(folder.join("text.db")).expect("read"), before);
    assert!(matches!(open("no/such/folder.db"), Err(OpenError::Io { .. })));
    let held = SqliteLog::open(LogConfig::new(folder.join("held.db"))).expect("it opens");
    let error = open("held.db").expect_err("it is in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("use another data folder"), "it names the remedy: {error}");
    drop(held);
    open("held.db").expect("it is free again");
    std::fs::remove_dir_all(folder).expect("cleaned up");
}

/// What a model of the log is told to do.
#[derive(Debug, Clone)]
enum Step {
    Append { agent: u8, id: Option<u8>, text: u32 },
    Retain { agent: u8, keep: u8 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_u8, proptest::option::of(0..20_u8), 0..3_u32)
            .prop_map(|(agent, id, text)| Step::Append { agent, id, text }),
        1 => (0..3_u8, 0..10_u8).prop_map(|(agent, keep)| Step::Retain { agent, keep }),
        1 => Just(Step::Restart),
    ]
}

/// One stream of the model: bodies from number 1 on, ids with their numbers, the oldest that is
/// kept.
#[derive(Default, Clone)]
struct Model {
    bodies: Vec<String>,
    ids: std::collections::BTreeMap<u8, u64>,
    removed: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_does_what_a_list_would_do(
        batches in proptest::collection::vec(proptest::collection::vec(step(), 1..8), 1..20)
    ) {
        let folder = tempfile();
        let open = || {
            let mut log = SqliteLog::open(LogConfig::new(folder.join("log.db"))).expect("it opens");
            let number = rand_epoch();
            one(&mut log, open(number));
            log
        };
        let mut log = open();
        let mut models = vec![Model::default(); 3];
        for batch in batches {
            let mut commands = Vec::new();
            for step in &batch {
                match step {
                    Step::Append { agent, id, text } => {
                        let id = id.map(|id| format!("id-{id}"));
                        commands.push(append(*agent, id.as_deref(), *text));
                    }
                    Step::Retain { agent: number, keep } => {
                        let head = models[usize::from(*number)].bodies.len() as u64;
                        let oldest = (head + 1).saturating_sub(u64::from(*keep)).max(1);
                        commands.push(Command::Retain { agent: agent(*number), oldest });
                    }
                    Step::Restart => {}
                }
            }
            let mut replies = log.transact(commands).expect("it succeeds").into_iter();
            for step in &batch {
                match step {
                    Step::Append { agent, id, text } => {
                        let model = &mut models[usize::from(*agent)];
                        let name = id.map(|id| format!("id-{id}"));
                        let body = body(name.as_deref(), *text).as_str().to_owned();
                        let said = appended(replies.next().expect("a reply"));
                        match id.and_then(|id| model.ids.get(&id).copied()) {
                            Some(sequence) => {
                                let same = model.bodies[sequence as usize - 1] == body;
                                match said {
                                    Appended::Existing { sequence: found, .. } => prop_assert!(same && found == sequence),
                                    Appended::Conflict => prop_assert!(!same),
                                    other => prop_assert!(false, "{other:?}"),
                                }
                            }
                            None => {
                                model.bodies.push(body);
                                let sequence = model.bodies.len() as u64;
                                if let Some(id) = id {
                                    model.ids.insert(*id, sequence);
                                }
                                let is_new = matches!(said, Appended::New { sequence: found, .. } if found == sequence);
                                prop_assert!(is_new);
                            }
                        }
                    }
                    Step::Retain { agent, keep } => {
                        // Within a batch the head may have moved since the command was made.
                        let Some(Reply::Retained(oldest)) = replies.next() else { panic!("a reply") };
                        let model = &mut models[usize::from(*agent)];
                        model.removed = model.removed.max(oldest - 1);
                        prop_assert!(oldest <= model.bodies.len() as u64 + 1, "{keep}");
                    }
                    Step::Restart => {}
                }
            }
            if batch.iter().any(|step| matches!(step, Step::Restart)) {
                drop(log);
                log = open();
            }
            for (number, model) in models.iter().enumerate() {
                let number = u8::try_from(number).expect("three agents");
                let Reply::Loaded(state) = one(&mut log, load(agent(number))) else { panic!("loaded") };
                prop_assert_eq!(state.head, model.bodies.len() as u64);
                prop_assert_eq!(state.oldest, model.removed + 1);
                let Reply::Page(page) = one(&mut log, read(number, 0, u64::from(u32::MAX), 1_000)) else { panic!("a page") };
                let kept: Vec<_> = (model.removed + 1..).zip(&model.bodies[model.removed as usize..]).collect();
                let found: Vec<_> = page.iter().map(|(sequence, body)| (*sequence, body.as_str().to_owned())).collect();
                prop_assert_eq!(found.len(), kept.len());
                for ((sequence, body), (expected, text)) in found.iter().zip(kept) {
                    prop_assert_eq!((*sequence, body), (expected, text));
                }
            }
        }
        drop(log);
        std::fs::remove_dir_all(folder).expect("cleaned up");
    }
}

/// An epoch that no other has.
fn rand_epoch() -> Epoch {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1_000);
    epoch(NEXT.fetch_add(1, Ordering::Relaxed))
}
