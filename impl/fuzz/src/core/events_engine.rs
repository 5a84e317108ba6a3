//! The log of several servers, on an engine that holds anything: what somebody else has written
//! below its prefix, and what was damaged; and that loses messages, acknowledgements and its end.

#[path = "../../../tests/engine/mod.rs"]
mod engine;

use std::time::Duration;

use gapless::AgentId;
use gapless::events::cluster::{EngineFollower, EngineLog, EngineLogConfig};
use gapless::events::driver::Follower as _;
use gapless::events::log::{Append, Appended, Command, Read, Reply};
use gapless::events::server::Input;
use gapless::events::wire::EventBody;
use gapless::recovery::{Epoch, MAX_SEQUENCE, WallTime};
use gapless::storage::Store as _;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::value::RawValue;

use self::engine::{Fault, Memory};
use crate::source::{self, Field, Source, quoted};

/// How much is done at most.
const STEPS_MAX: usize = 48;

/// How long one step may take, of the runtime's paused time: more than all pauses of an append whose
/// outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often one step may read: every message has its turn a few times, whatever is tried again.
const READS_MAX: usize = 4_096;

const AGENT: &str = "agent-1";

/// Where messages are put: those of the log, and some that only look like them.
const SUBJECTS: [&str; 6] = [
    "gapless.events.agent-1",
    "gapless.epoch",
    "gapless.ids.agent-1",
    "gapless.events.agent=2D1",
    "gapless.events.=zz",
    "gapless.barrier.00",
];

const EPOCHS: [&str; 4] = ["e1", "e2", "e3", ""];

// ---- what is in a message ----------------------------------------------------------------------

fn epoch(source: &mut Source<'_>) -> String {
    quoted(source.word(&EPOCHS))
}

fn epochs(source: &mut Source<'_>) -> String {
    source::list(source, epoch)
}

fn epochs_from(source: &mut Source<'_>) -> String {
    source::list(source, |source| format!("[{},{}]", epoch(source), source::number(source)))
}

fn body(source: &mut Source<'_>) -> EventBody {
    let id = source.maybe(|source| source.word(&["a", "b", "c"]));
    let payload = RawValue::from_string(format!("{{\"n\":{}}}", source.below(3))).expect("JSON");
    EventBody::new(id, "note", &payload, 1_024).expect("valid")
}

fn events(source: &mut Source<'_>) -> String {
    source::list(source, |source| {
        let body = match source.rarely(8) {
            true => source.json(1),
            false => body(source).as_str().to_owned(),
        };
        format!("[{},{body}]", source::text(source))
    })
}

fn digest(source: &mut Source<'_>) -> String {
    let bytes: Vec<_> = (0..32).map(|_| "0").collect();
    match source.rarely(8) {
        true => source.json(1),
        false => format!("[{}]", bytes.join(",")),
    }
}

fn removed_ids(source: &mut Source<'_>) -> String {
    source::list(source, |source| {
        const FIELDS: [Field; 5] = [
            Field::new("sequence", source::number),
            Field::new("id", source::text),
            Field::new("principal", source::text),
            Field::new("digest", digest),
            Field::new("epoch", epoch),
        ];
        source::object(source, &FIELDS)
    })
}

/// Events as the log itself would have stored them, with any numbers and epochs.
fn appended(source: &mut Source<'_>) -> String {
    let (attempt, own, first) = (source.text(), source.word(&EPOCHS[..3]), source.number());
    let before = source.maybe(|source| format!("[{},{}],", epoch(source), source.below(4)));
    let of_stream = format!("{}[\"{own}\",{first}]", before.unwrap_or_default());
    let events: Vec<_> = (0..1 + source.below(3))
        .map(|_| format!("[\"{}\",{}]", source.word(&["p", "q"]), body(source).as_str()))
        .collect();
    format!(
        r#"{{"attempt":{},"epoch":"{own}","first":{first},"at":{},"epochs":[{of_stream}],"events":[{}]}}"#,
        quoted(&attempt),
        source.below(8),
        events.join(",")
    )
}

/// A message, nearly as it belongs to the subject.
fn payload(source: &mut Source<'_>, subject: &str) -> Vec<u8> {
    const MESSAGE: [Field; 6] = [
        Field::new("attempt", source::text),
        Field::new("epoch", epoch),
        Field::new("first", source::number),
        Field::new("at", source::number),
        Field::new("epochs", epochs_from),
        Field::new("events", events),
    ];
    const RECORD: [Field; 2] = [Field::new("begun", epochs), Field::new("broken", epochs)];
    const REMOVED: [Field; 3] = [
        Field::new("from", source::number),
        Field::new("to", source::number),
        Field::new("ids", removed_ids),
    ];
    if source.rarely(16) {
        return source.bytes(48).to_vec();
    }
    match subject {
        "gapless.epoch" => source::object(source, &RECORD),
        "gapless.ids.agent-1" => source::object(source, &REMOVED),
        _ if source.flip() => appended(source),
        _ => source::object(source, &MESSAGE),
    }
    .into_bytes()
}

// ---- the log -----------------------------------------------------------------------------------

fn agent() -> AgentId {
    AgentId::parse(AGENT).expect("valid")
}

fn command(source: &mut Source<'_>) -> Command {
    let time = |source: &mut Source<'_>| {
        WallTime::from_millis(i64::try_from(source.number()).unwrap_or(i64::MIN))
    };
    match source.below(8) {
        0 => Command::OpenEpoch {
            proposed: Epoch::parse(source.word(&["e4", "e5", "e1"])).expect("valid"),
            broken: source.maybe(|source| Epoch::parse(source.word(&EPOCHS)).ok()).flatten(),
        },
        1 => Command::Load { agent: agent(), confirmed: source.flip() },
        2 => Command::FindSince(agent(), time(source)),
        3 => Command::Retain { agent: agent(), oldest: source.sequence() },
        4 | 5 => Command::Read(Read {
            agent: agent(),
            after: source.sequence(),
            to: source.sequence(),
            count_max: 1 + source.below(4),
            bytes_max: 1 + source.below(256),
        }),
        _ => Command::Append(Append {
            principal: source.word(&["p", "q"]).to_owned(),
            agent: agent(),
            body: body(source),
            after: source.maybe(Source::sequence),
            created_at: time(source),
        }),
    }
}

/// What holds of an answer, whatever is in the engine.
fn judge(command: &Command, reply: &Reply) {
    let is_number = |sequence: &u64| (1..=MAX_SEQUENCE).contains(sequence);
    match (command, reply) {
        (_, Reply::Failed(_)) => {}
        (Command::OpenEpoch { .. }, Reply::EpochOpened(_)) => {}
        (Command::Load { .. }, Reply::Loaded(state)) => {
            assert!(state.head <= MAX_SEQUENCE, "{state:?}");
            assert!((1..=state.head + 1).contains(&state.oldest), "{state:?}");
        }
        (Command::Append(_), Reply::Appended(Appended::New { sequence, oldest, .. })) => {
            assert!(is_number(sequence) && (1..=*sequence).contains(oldest), "{reply:?}");
        }
        (Command::Append(_), Reply::Appended(Appended::Existing { sequence, .. })) => {
            assert!(is_number(sequence), "{reply:?}");
        }
        (Command::Append(_), Reply::Appended(_)) => {}
        (Command::Read(read), Reply::Page(page)) => {
            let numbers: Vec<_> = page.iter().map(|(sequence, _)| *sequence).collect();
            let within = |number: &u64| *number > read.after && *number <= read.to;
            assert!(numbers.is_sorted_by(|a, b| a < b), "{read:?}: {numbers:?}");
            assert!(numbers.iter().all(within), "{read:?}: {numbers:?}");
            assert!(numbers.len() <= read.count_max, "{read:?}: {numbers:?}");
        }
        (Command::FindSince(..), Reply::Since(first)) => {
            assert!(first.as_ref().is_none_or(is_number), "{reply:?}");
        }
        (Command::Retain { .. }, Reply::Retained(oldest)) => assert!(is_number(oldest)),
        _ => panic!("{command:?} was answered with {reply:?}"),
    }
}

fn judge_followed(input: &Input) {
    if let Input::Followed { first, events, .. } = input {
        let last = first.checked_add(events.len() as u64).expect("a number") - 1;
        assert!(*first >= 1 && last >= *first && last <= MAX_SEQUENCE, "{first} to {last}");
    }
}

/// What the follower tells, until it has nothing more to tell.
async fn follow(follower: &mut EngineFollower<Memory>) {
    for _ in 0..STEPS_MAX {
        match tokio::time::timeout(Duration::from_millis(1), follower.next()).await {
            Ok(input) => judge_followed(&input),
            Err(_) => return,
        }
    }
}

/// A message of anybody, as the last of its subject.
fn put(source: &mut Source<'_>, memory: &Memory) {
    let subject = source.word(&SUBJECTS);
    let payload = payload(source, subject);
    let last = memory.of(subject).last().copied().unwrap_or(0);
    memory.inner().store(subject, last, payload).expect("it follows the last one");
}

/// Something that happens to the engine.
fn fault(source: &mut Source<'_>, memory: &Memory) {
    const FAULTS: [Fault; 5] =
        [Fault::AckLost, Fault::Late, Fault::Lost, Fault::Refused, Fault::Denied];
    match source.below(8) {
        0..=2 => memory.fail([*source.pick(&FAULTS)]),
        3 => drop(memory.deliver()),
        4 => memory.end_feeds(),
        5 => {
            let messages = memory.inner().messages.len();
            memory.inner().stale = source.maybe(|source| messages.saturating_sub(source.below(3)));
        }
        6 => {
            let last = memory.inner().last_seq;
            memory.go_back_to(last.saturating_sub(source.below(4) as u64));
        }
        _ => {
            let down = source.rarely(3);
            memory.inner().down = down;
        }
    }
}

async fn run(source: &mut Source<'_>) {
    let memory = Memory::default();
    for _ in 0..source.below(8) {
        put(source, &memory);
    }
    let config = EngineLogConfig {
        ids_max: 1 + source.below(8) as u64,
        epochs_max: 1 + source.below(4),
        page_messages: 1 + source.below(3),
        removals_max: 1 + source.below(4),
        message_bytes: 64,
        ..EngineLogConfig::default()
    };
    let entropy = Box::new(ChaCha12Rng::seed_from_u64(1));
    let (mut log, mut follower) = EngineLog::new(memory.clone(), config, entropy);
    follow(&mut follower).await;
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        match source.below(8) {
            0 => put(source, &memory),
            1 => fault(source, &memory),
            2 => follow(&mut follower).await,
            _ => {
                let commands: Vec<_> = (0..1 + source.below(3)).map(|_| command(source)).collect();
                memory.reads();
                let running = log.run(commands.clone());
                let replies = tokio::time::timeout(PATIENCE, running).await;
                let replies = replies.expect("a run ends").expect("each has its own reply");
                assert!(memory.reads() <= READS_MAX, "a run reads more than {READS_MAX} times");
                assert_eq!(replies.len(), commands.len());
                for (command, reply) in commands.iter().zip(&replies) {
                    judge(command, reply);
                }
            }
        }
    }
    follow(&mut follower).await;
}

/// Feeds the log on an engine with messages of anybody, and with commands.
pub fn events_engine(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(run(&mut Source::new(bytes)));
}
