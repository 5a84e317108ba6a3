//! The log of several servers on a real `nats-server`, if one is installed.

mod nats;

use gapless::events::AgentId;
use gapless::events::cluster::engine::{
    Engine as _, Feed as _, FollowError, PublishFailure, Start,
};
use gapless::events::cluster::nats::{ConnectError, JetStream, JetStreamConfig};
use gapless::events::cluster::{EngineLog, EngineLogConfig};
use gapless::events::driver::Follower as _;
use gapless::events::log::{Append, Appended, Command, Read, Reply};
use gapless::events::server::Input;
use gapless::events::wire::EventBody;
use gapless::recovery::{Epoch, WallTime};
use gapless::storage::Store as _;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::value::RawValue;

use self::nats::Nats;

impl Nats {
    fn config(&self) -> JetStreamConfig {
        JetStreamConfig { replicas: 1, ..JetStreamConfig::new(vec![self.url.clone()]) }
    }

    async fn connect(&self) -> JetStream {
        JetStream::connect(&self.config()).await.expect("it connects")
    }
}

fn agent() -> AgentId {
    AgentId::parse("agent.1").expect("valid")
}

fn append(n: u64) -> Command {
    let payload = RawValue::from_string(format!(r#"{{"n":{n}}}"#)).expect("JSON");
    let body = EventBody::new(Some(&format!("id-{n}")), "note", &payload, 1024).expect("valid");
    let created_at = WallTime::from_millis(0);
    Command::Append(Append {
        principal: "p".to_owned(),
        agent: agent(),
        body,
        after: None,
        created_at,
    })
}

fn open(n: u64) -> Command {
    let proposed = Epoch::parse(&format!("epoch-{n}")).expect("valid");
    Command::OpenEpoch { proposed, broken: None }
}

#[tokio::test]
async fn the_engine_keeps_what_is_counted_on() {
    let Some(nats) = Nats::start().await else { return };
    let engine = nats.connect().await;
    let one = engine.publish("gapless.events.a", 0, b"one".to_vec()).await.expect("stored");
    let again = engine.publish("gapless.events.a", 0, b"one".to_vec()).await;
    assert_eq!(again, Err(PublishFailure::WrongLast));
    let other = engine.publish("gapless.events.b", 0, b"other".to_vec()).await.expect("stored");
    let two = engine.publish("gapless.events.a", one, b"two".to_vec()).await.expect("stored");
    assert!(one < other && other < two);

    let payload = |stored: Option<gapless::events::cluster::engine::Stored>| {
        stored.map(|stored| String::from_utf8(stored.payload).expect("text"))
    };
    assert_eq!(
        payload(engine.last("gapless.events.a").await.expect("read")).as_deref(),
        Some("two")
    );
    assert_eq!(engine.last("gapless.events.c").await, Ok(None));
    let next = engine.next("gapless.events.a", one + 1).await.expect("read");
    assert_eq!(next.map(|stored| stored.stream_seq), Some(two));
    assert_eq!(engine.next("gapless.events.a", two + 1).await, Ok(None));

    let mut last = two;
    for n in 0..20 {
        let payload = format!("{n}").into_bytes();
        last = engine.publish("gapless.events.a", last, payload).await.expect("stored");
    }
    let page = engine.page("gapless.events.a", two, 100, 1 << 20).await.expect("read");
    assert_eq!(page.len(), 21);
    assert!(page.is_sorted_by_key(|stored| stored.stream_seq));
    assert_eq!(engine.page("gapless.events.a", two, 10, 1 << 20).await.expect("read").len(), 10);

    engine.purge_below("gapless.events.a", last).await.expect("purged");
    let page = engine.page("gapless.events.a", 0, 100, 1 << 20).await.expect("read");
    assert_eq!(page.iter().map(|stored| stored.stream_seq).collect::<Vec<_>>(), [last]);

    let mut feed = engine.follow(Start::After(other - 1)).await.expect("followed");
    assert_eq!(feed.next().await.expect("a message").stream_seq, other);
    assert_eq!(feed.next().await.expect("a message").stream_seq, last, "what is purged is not");
    let mut feed = engine.follow(Start::New).await.expect("followed");
    let next = engine.publish("gapless.events.b", other, b"new".to_vec()).await.expect("stored");
    assert_eq!(feed.next().await.expect("a message").stream_seq, next);
    let beyond = engine.follow(Start::After(next + 1)).await;
    assert!(matches!(beyond.err(), Some(FollowError::WentBack)));
}

#[tokio::test]
async fn a_stream_of_another_kind_is_refused_by_what_differs() {
    let Some(nats) = Nats::start().await else { return };
    nats.connect().await;
    let other = JetStreamConfig { messages_per_subject: Some(5), ..nats.config() };
    let error = JetStream::connect(&other).await.expect_err("it keeps all");
    assert!(matches!(&error, ConnectError::Configuration { .. }), "{error}");
    assert!(error.to_string().contains("5 are wanted"), "{error}");
    let nobody = JetStreamConfig::new(vec!["nats://127.0.0.1:1".to_owned()]);
    let error = JetStream::connect(&nobody).await.expect_err("nobody is there");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn servers_share_a_log_which_survives_the_death_of_the_engine() {
    let Some(mut nats) = Nats::start().await else { return };
    let mut logs = Vec::new();
    for seed in 1..=2 {
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(seed));
        let engine = nats.connect().await;
        let (mut log, mut follower) = EngineLog::new(engine, EngineLogConfig::default(), entropy);
        assert!(matches!(follower.next().await, Input::FollowBegun { resumed: false }));
        let opened = log.run(vec![open(seed)]).await.expect("each has its own reply");
        let [Reply::EpochOpened(epoch)] = &opened[..] else { panic!("{opened:?}") };
        assert_eq!(epoch.as_str(), "epoch-1");
        logs.push((log, follower));
    }
    let [(one, _), (two, follower)] = &mut logs[..] else { panic!("there are two") };
    let run = |from: u64| (from..from + 50).map(append).collect::<Vec<_>>();
    let (first, second) = tokio::join!(one.run(run(0)), two.run(run(100)));
    let mut sequences = Vec::new();
    for reply in [first, second].into_iter().flat_map(|replies| replies.expect("replies")) {
        let Reply::Appended(Appended::New { sequence, .. }) = reply else { panic!("{reply:?}") };
        sequences.push(sequence);
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=100).collect::<Vec<_>>());
    for first in [1, 51] {
        match follower.next().await {
            Input::Followed { first: found, events, .. } => {
                assert_eq!((found, events.len()), (first, 50));
            }
            other => panic!("{other:?}"),
        }
    }

    nats.kill();
    assert!(matches!(follower.next().await, Input::FollowBroken));
    nats.restart().await;
    assert!(matches!(follower.next().await, Input::FollowBegun { resumed: true }));
    let replies = one.run(vec![append(7), append(200)]).await.expect("each has its own reply");
    assert!(
        matches!(&replies[0], Reply::Appended(Appended::Existing { .. })),
        "an id is known: {replies:?}"
    );
    assert!(
        matches!(&replies[1], Reply::Appended(Appended::New { sequence: 101, .. })),
        "the numbers go on: {replies:?}"
    );
    match follower.next().await {
        Input::Followed { first: 101, .. } => {}
        other => panic!("{other:?}"),
    }
    let read = Read { agent: agent(), after: 0, to: 101, count_max: 1_000, bytes_max: 1 << 20 };
    let replies = two.run(vec![Command::Read(read)]).await.expect("each has its own reply");
    let [Reply::Page(page)] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(page.len(), 101);
}
