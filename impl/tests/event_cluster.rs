//! The log of several servers, on an engine in memory that loses what the test says.

mod engine;

use gapless::events::AgentId;
use gapless::events::cluster::{EngineFollower, EngineLog, EngineLogConfig};
use gapless::events::driver::Follower as _;
use gapless::events::log::{Append, Appended, Command, Read, Reply, StreamState};
use gapless::events::server::Input;
use gapless::events::wire::EventBody;
use gapless::recovery::{Cursor, Epoch, Verdict, WallTime};
use gapless::storage::{Store as _, StoreError};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::value::RawValue;

use self::engine::{Fault, Memory};

// ---- servers -----------------------------------------------------------------------------------

struct Server {
    log: EngineLog<Memory>,
    follower: EngineFollower<Memory>,
    epoch: Epoch,
}

impl Server {
    async fn start(engine: &Memory, number: u64) -> Self {
        Self::configured(engine, number, EngineLogConfig::default()).await
    }

    async fn configured(engine: &Memory, number: u64, config: EngineLogConfig) -> Self {
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(number));
        let (log, follower) = EngineLog::new(engine.clone(), config, entropy);
        let mut server = Self { log, follower, epoch: epoch(number) };
        let begun = server.follower.next().await;
        assert!(matches!(begun, Input::FollowBegun { resumed: false }), "{begun:?}");
        server.epoch = server.open(number, None).await;
        server
    }

    async fn one(&mut self, command: Command) -> Reply {
        let mut replies = self.log.run(vec![command]).await.expect("each has its own reply");
        assert_eq!(replies.len(), 1);
        replies.remove(0)
    }

    async fn open(&mut self, proposed: u64, broken: Option<Epoch>) -> Epoch {
        match self.one(Command::OpenEpoch { proposed: epoch(proposed), broken }).await {
            Reply::EpochOpened(epoch) => epoch,
            other => panic!("no epoch: {other:?}"),
        }
    }

    async fn append(&mut self, n: u64) -> Appended {
        match self.one(append(n)).await {
            Reply::Appended(appended) => appended,
            other => panic!("not appended: {other:?}"),
        }
    }

    /// Appends and returns the number.
    async fn stored(&mut self, n: u64) -> u64 {
        match self.append(n).await {
            Appended::New { sequence, .. } => sequence,
            other => panic!("not new: {other:?}"),
        }
    }

    async fn load(&mut self, confirmed: bool) -> StreamState {
        match self.one(Command::Load { agent: agent(), confirmed }).await {
            Reply::Loaded(state) => state,
            other => panic!("not loaded: {other:?}"),
        }
    }

    async fn read(&mut self, after: u64, to: u64) -> Vec<(u64, EventBody)> {
        let read = Read { agent: agent(), after, to, count_max: 1_000, bytes_max: 1 << 20 };
        match self.one(Command::Read(read)).await {
            Reply::Page(page) => page,
            other => panic!("not read: {other:?}"),
        }
    }
}

fn agent() -> AgentId {
    AgentId::parse("agent.1").expect("valid")
}

const SUBJECT: &str = "gapless.events.agent=2E1";

fn epoch(n: u64) -> Epoch {
    Epoch::parse(&format!("epoch-{n}")).expect("valid")
}

fn body(id: Option<&str>, n: u64) -> EventBody {
    let payload = RawValue::from_string(format!(r#"{{"n":{n}}}"#)).expect("JSON");
    EventBody::new(id, "note", &payload, 1 << 20).expect("valid")
}

fn event(n: u64) -> Append {
    Append {
        principal: "p".to_owned(),
        agent: agent(),
        body: body(Some(&format!("id-{n}")), n),
        after: None,
        created_at: WallTime::from_millis(i64::try_from(n).expect("small")),
    }
}

fn append(n: u64) -> Command {
    Command::Append(event(n))
}

fn unknown(reply: &Reply) -> bool {
    matches!(reply, Reply::Failed(StoreError::Unknown(_)))
}

fn not_applied(reply: &Reply) -> bool {
    matches!(reply, Reply::Failed(StoreError::NotApplied(_)))
}

// ---- appending ---------------------------------------------------------------------------------

#[tokio::test]
async fn servers_that_append_at_once_give_each_number_once() {
    let engine = Memory::default();
    let mut servers = Vec::new();
    for number in 1..=3 {
        servers.push(Server::start(&engine, number).await);
    }
    let appending = servers.into_iter().zip(1..).map(|(mut server, number)| async move {
        let mut sequences = Vec::new();
        for n in 0..30 {
            sequences.push(server.stored(number * 1_000 + n).await);
        }
        (server, sequences)
    });
    let (mut sequences, mut last) = (Vec::new(), None);
    for (server, given) in futures_util::future::join_all(appending).await {
        assert!(given.is_sorted());
        sequences.extend(given);
        last = Some(server);
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=90).collect::<Vec<_>>());
    let page = last.expect("there are three").read(0, 90).await;
    assert_eq!(page.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), sequences);
}

#[tokio::test]
async fn an_event_whose_acknowledgement_was_lost_is_found_and_stored_once() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    assert_eq!(server.stored(1).await, 1);
    engine.fail([Fault::AckLost]);
    assert_eq!(server.stored(2).await, 2);
    assert_eq!(engine.of(SUBJECT).len(), 2);
    assert_eq!(server.stored(3).await, 3);
}

#[tokio::test]
async fn an_event_that_was_lost_on_its_way_is_published_again() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    engine.fail([Fault::Lost, Fault::Lost]);
    assert_eq!(server.stored(1).await, 1);
    assert_eq!(engine.of(SUBJECT).len(), 1);
}

#[tokio::test]
async fn an_event_that_arrives_late_is_one_event_to_whoever_repeats_it() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    assert_eq!(server.stored(1).await, 1);
    engine.fail([Fault::Late; 4]);
    assert!(unknown(&server.one(append(2)).await));
    assert_eq!(engine.deliver(), [true, false, false, false], "copies exclude each other");
    let existing = Appended::Existing { sequence: 2, epoch: epoch(1) };
    assert_eq!(server.append(2).await, existing);
    let mut other = Server::start(&engine, 2).await;
    assert_eq!(other.append(2).await, existing, "and so at every server");
    assert_eq!(other.stored(3).await, 3);
}

#[tokio::test]
async fn a_late_event_that_was_overtaken_is_never_stored() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    let mut other = Server::start(&engine, 2).await;
    engine.fail([Fault::Late; 4]);
    assert!(unknown(&server.one(append(1)).await));
    assert_eq!(other.stored(2).await, 1);
    assert_eq!(engine.deliver(), [false; 4]);
    assert_eq!(server.stored(1).await, 2, "so its repetition is stored");
}

#[tokio::test]
async fn what_the_engine_refuses_is_surely_not_stored() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    engine.fail([Fault::Refused]);
    assert!(not_applied(&server.one(append(1)).await));
    // A refusal after an unknown outcome says nothing of the first copy.
    engine.fail([Fault::Late, Fault::Refused, Fault::Refused, Fault::Refused]);
    assert!(unknown(&server.one(append(1)).await));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_denies_what_it_should_take_is_no_log_that_went_back() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    server.stored(1).await;
    engine.fail([Fault::Denied, Fault::Denied]);
    assert_eq!(server.stored(2).await, 2, "it is tried again");
    engine.fail([Fault::Denied; 4]);
    let reply = server.one(append(3)).await;
    assert!(not_applied(&reply), "{reply:?}");
    assert_eq!(server.stored(3).await, 3, "the epoch is the same");
    for first in 1..=3 {
        match server.follower.next().await {
            Input::Followed { first: told, epoch: of, .. } if told == first => {
                assert_eq!(of, epoch(1));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn once_a_message_fails_those_after_it_are_not_tried() {
    let engine = Memory::default();
    let config = EngineLogConfig { message_bytes: 1, ..EngineLogConfig::default() };
    let mut server = Server::configured(&engine, 1, config).await;
    assert_eq!(server.stored(1).await, 1);
    let mut of_another = event(9);
    of_another.agent = AgentId::parse("agent-2").expect("valid");
    engine.fail([Fault::Lost; 5]);
    let commands = vec![append(2), append(3), append(4)];
    let replies = server.log.run(commands).await.expect("each has its own reply");
    assert!(
        unknown(&replies[0]) && not_applied(&replies[1]) && not_applied(&replies[2]),
        "{replies:?}"
    );
    engine.inner().faults.clear();
    let replies = server.log.run(vec![append(2), Command::Append(of_another), append(3)]).await;
    let sequence = |reply: &Reply| match reply {
        Reply::Appended(Appended::New { sequence, .. }) => *sequence,
        other => panic!("{other:?}"),
    };
    let sequences =
        replies.expect("each has its own reply").iter().map(sequence).collect::<Vec<_>>();
    assert_eq!(sequences, [2, 1, 3], "streams have nothing to do with each other");
    assert_eq!(engine.of(SUBJECT).len(), 3, "each is a message of its own");
}

#[tokio::test]
async fn a_batch_is_one_message_and_an_id_that_is_in_it_twice_is_one_event() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    let replies = server.log.run(vec![append(1), append(2), append(1), append(3)]).await;
    let replies = replies.expect("each has its own reply");
    let appended: Vec<_> = replies
        .iter()
        .map(|reply| match reply {
            Reply::Appended(Appended::New { sequence, .. }) => (*sequence, true),
            Reply::Appended(Appended::Existing { sequence, .. }) => (*sequence, false),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(appended, [(1, true), (2, true), (1, false), (3, true)]);
    assert_eq!(engine.of(SUBJECT).len(), 2);
}

// ---- ids ---------------------------------------------------------------------------------------

#[tokio::test]
async fn an_id_is_one_event_at_whichever_server_and_a_conflict_for_others() {
    let engine = Memory::default();
    let mut one = Server::start(&engine, 1).await;
    let mut two = Server::start(&engine, 2).await;
    assert_eq!(one.stored(1).await, 1);
    assert_eq!(two.append(1).await, Appended::Existing { sequence: 1, epoch: epoch(1) });
    let mut of_another = event(1);
    of_another.principal = "q".to_owned();
    let mut with_other_bytes = event(1);
    with_other_bytes.body = body(Some("id-1"), 2);
    for conflicting in [of_another, with_other_bytes] {
        let reply = two.one(Command::Append(conflicting)).await;
        assert!(matches!(reply, Reply::Appended(Appended::Conflict)), "{reply:?}");
    }
}

#[tokio::test]
async fn an_id_that_is_not_remembered_is_refused_to_whoever_says_what_it_knew() {
    let engine = Memory::default();
    let config = EngineLogConfig { ids_max: 4, ..EngineLogConfig::default() };
    let mut writer = Server::configured(&engine, 1, config.clone()).await;
    for n in 1..=10 {
        writer.stored(n).await;
    }
    let mut fresh = Server::configured(&engine, 2, config).await;
    for server in [&mut writer, &mut fresh] {
        let repeated = |n: u64, after| Append { after: Some(after), ..event(n) };
        let reply = server.one(Command::Append(repeated(5, 4))).await;
        assert!(matches!(reply, Reply::Appended(Appended::Expired)), "{reply:?}");
        let reply = server.one(Command::Append(repeated(7, 6))).await;
        assert!(
            matches!(reply, Reply::Appended(Appended::Existing { sequence: 7, .. })),
            "{reply:?}"
        );
    }
}

// ---- reading -----------------------------------------------------------------------------------

#[tokio::test]
async fn any_place_of_a_stream_is_found_with_few_reads_and_pages_go_on_without() {
    let engine = Memory::default();
    let mut writer = Server::start(&engine, 1).await;
    for n in 1..=600 {
        writer.stored(n).await;
        if n % 3 == 0 {
            let mut other = event(n);
            other.agent = AgentId::parse("agent-2").expect("valid");
            writer.one(Command::Append(other)).await;
        }
    }
    let mut reader = Server::start(&engine, 2).await;
    engine.reads();
    for after in [0, 1, 299, 598, 599] {
        let page = reader.read(after, after + 1).await;
        assert_eq!(page.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [after + 1]);
        assert!(engine.reads() <= 14, "by halves");
    }
    let page = reader.read(300, 320).await;
    assert_eq!(page.len(), 20);
    engine.reads();
    assert_eq!(reader.read(320, 340).await.len(), 20);
    assert_eq!(engine.reads(), 1, "the place is known");
}

#[tokio::test]
async fn a_page_can_begin_and_end_inside_of_a_message() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    for batch in [1..=5, 6..=10] {
        server.log.run(batch.map(append).collect()).await.expect("stored");
    }
    for (after, to) in [(0, 3), (3, 7), (7, 7), (2, 10), (9, 10), (10, 10)] {
        let page = server.read(after, to).await;
        let sequences: Vec<_> = page.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(sequences, (after + 1..=to).collect::<Vec<_>>(), "after {after} to {to}");
    }
    let read = Read { agent: agent(), after: 0, to: 10, count_max: 7, bytes_max: 1 };
    let Reply::Page(page) = server.one(Command::Read(read)).await else { panic!("a page") };
    assert_eq!(page.len(), 1, "the bytes end it");
}

#[tokio::test]
async fn the_first_event_since_a_time_is_found_whatever_the_clocks_of_servers() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    for n in [100, 200, 150, 300] {
        server.stored(n).await;
    }
    for (since, expected) in
        [(0, Some(1)), (101, Some(2)), (200, Some(2)), (201, Some(4)), (301, None)]
    {
        let command = Command::FindSince(agent(), WallTime::from_millis(since));
        let Reply::Since(found) = server.one(command).await else { panic!("a place") };
        assert_eq!(found, expected, "since {since}");
    }
}

#[tokio::test]
async fn a_confirmed_load_is_never_answered_by_a_leader_that_lags() {
    let engine = Memory::default();
    let mut one = Server::start(&engine, 1).await;
    let mut two = Server::start(&engine, 2).await;
    one.stored(1).await;
    let known = engine.inner().messages.len();
    one.stored(2).await;
    engine.inner().stale = Some(known);
    assert_eq!(two.load(false).await.head, 1, "it may miss what is new");
    let reply = two.one(Command::Load { agent: agent(), confirmed: true }).await;
    assert!(not_applied(&reply), "{reply:?}");
    engine.inner().stale = None;
    assert_eq!(two.load(true).await.head, 2);
}

// ---- retention ---------------------------------------------------------------------------------

#[tokio::test]
async fn retention_keeps_whole_messages_and_always_the_last_so_no_number_is_given_twice() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    for batch in [1..=2, 3..=5, 6..=9] {
        server.log.run(batch.map(append).collect()).await.expect("stored");
    }
    let mut retained = Vec::new();
    for oldest in [1, 4, 100] {
        let Reply::Retained(kept) = server.one(Command::Retain { agent: agent(), oldest }).await
        else {
            panic!("retained")
        };
        assert_eq!(server.load(false).await.oldest, kept);
        retained.push(kept);
    }
    assert_eq!(retained, [1, 3, 6]);
    let mut fresh = Server::start(&engine, 2).await;
    assert_eq!(fresh.stored(50).await, 10);
    assert_eq!(fresh.read(0, 10).await.first().map(|(sequence, _)| *sequence), Some(6));
}

#[tokio::test]
async fn a_command_removes_a_bounded_number_of_messages_and_says_how_far_it_came() {
    let engine = Memory::default();
    let config = EngineLogConfig { removals_max: 3, ..EngineLogConfig::default() };
    let mut server = Server::configured(&engine, 1, config).await;
    for n in 1..=10 {
        server.stored(n).await;
    }
    for expected in [4, 7, 9, 9] {
        let reply = server.one(Command::Retain { agent: agent(), oldest: 9 }).await;
        assert!(matches!(reply, Reply::Retained(oldest) if oldest == expected), "{reply:?}");
        assert_eq!(server.load(false).await.oldest, expected);
    }
}

// ---- epochs ------------------------------------------------------------------------------------

#[tokio::test]
async fn servers_join_the_epoch_of_the_log_and_begin_another_only_after_a_broken_one() {
    let engine = Memory::default();
    let mut one = Server::start(&engine, 1).await;
    let mut two = Server::start(&engine, 2).await;
    assert_eq!((&one.epoch, &two.epoch), (&epoch(1), &epoch(1)));
    one.stored(1).await;
    assert_eq!(one.open(3, Some(epoch(1))).await, epoch(3));
    assert_eq!(two.open(4, Some(epoch(1))).await, epoch(3), "one other for all of them");
    assert_eq!(one.stored(2).await, 2);
    let state = two.load(false).await;
    let judge = |n: u64, sequence| {
        state.lineage.judge(&Cursor::new(epoch(n), sequence), state.oldest, state.head)
    };
    assert_eq!(judge(1, 1), Verdict::OtherEpoch { from: 1, to: 2 }, "it proves nothing");
    assert_eq!(judge(3, 2), Verdict::UpToDate);
    assert_eq!(judge(4, 2), Verdict::OtherEpoch { from: 1, to: 2 });
    // Who still asks because of one that was broken before has what it asked for.
    assert_eq!(one.open(5, Some(epoch(1))).await, epoch(3));
}

#[tokio::test]
async fn an_epoch_that_is_begun_by_hand_goes_on_from_those_before() {
    let engine = Memory::default();
    let mut one = Server::start(&engine, 1).await;
    one.stored(1).await;
    let (by_hand, _) = EngineLog::new(
        engine.clone(),
        EngineLogConfig::default(),
        Box::new(ChaCha12Rng::seed_from_u64(9)),
    );
    by_hand.begin_epoch(epoch(3)).await.expect("it is stored");
    let mut two = Server::start(&engine, 2).await;
    assert_eq!(two.epoch, epoch(3));
    assert_eq!(two.stored(2).await, 2);
    let state = two.load(false).await;
    let judge = |n: u64, sequence| {
        state.lineage.judge(&Cursor::new(epoch(n), sequence), state.oldest, state.head)
    };
    assert_eq!(judge(1, 1), Verdict::Replay { from: 2, to: 2 });
    assert_eq!(judge(1, 2), Verdict::Ahead { from: 2, to: 2 });
    assert_eq!(judge(3, 2), Verdict::UpToDate);
}

#[tokio::test]
async fn a_server_whose_epoch_was_followed_by_another_appends_nothing_until_it_has_joined_it() {
    let engine = Memory::default();
    let mut one = Server::start(&engine, 1).await;
    let mut zombie = Server::start(&engine, 2).await;
    zombie.stored(1).await;
    one.open(3, Some(epoch(1))).await;
    one.stored(2).await;
    let reply = zombie.one(append(3)).await;
    assert!(not_applied(&reply), "{reply:?}");
    let state = zombie.load(false).await;
    assert_eq!(state.lineage.current(), Some(&epoch(3)), "which tells the core");
    assert!(not_applied(&zombie.one(append(3)).await));
    assert_eq!(zombie.open(4, None).await, epoch(3));
    assert_eq!(zombie.stored(3).await, 3);
}

#[tokio::test]
async fn a_log_that_was_put_back_gives_its_numbers_again_only_in_another_epoch() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    for n in 1..=5 {
        server.stored(n).await;
        let followed = server.follower.next().await;
        assert!(matches!(followed, Input::Followed { .. }), "{followed:?}");
    }
    let two = engine.of(SUBJECT)[1];
    engine.go_back_to(two);
    assert!(not_applied(&server.one(append(6)).await));
    assert!(not_applied(&server.one(append(6)).await), "also when it is tried again");
    let told = loop {
        match server.follower.next().await {
            Input::FollowBroken => {}
            told => break told,
        }
    };
    assert!(matches!(told, Input::LogWentBack), "{told:?}");
    assert_eq!(server.open(7, None).await, epoch(7), "its own is broken");
    assert!(not_applied(&server.one(append(6)).await), "it is not followed again yet");
    assert!(matches!(server.follower.next().await, Input::FollowBegun { resumed: false }));
    assert_eq!(server.stored(6).await, 3);
    let state = server.load(true).await;
    let cursor = Cursor::new(epoch(1), 5);
    let verdict = state.lineage.judge(&cursor, state.oldest, state.head);
    assert_eq!(verdict, Verdict::OtherEpoch { from: 1, to: 3 });
}

#[tokio::test]
async fn an_epoch_that_the_log_has_lost_with_its_record_is_not_joined_again() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    server.stored(1).await;
    engine.go_back_to(0);
    assert_eq!(server.open(2, Some(epoch(1))).await, epoch(2));
    let state = server.load(false).await;
    assert_eq!((state.head, state.lineage.current()), (0, Some(&epoch(2))));
}

#[tokio::test]
async fn a_log_whose_record_of_epochs_was_removed_goes_on_in_a_new_one_and_knows_the_old() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    server.stored(1).await;
    engine.inner().messages.retain(|message| message.subject != "gapless.epoch");
    let mut fresh = Server::start(&engine, 2).await;
    assert_eq!(fresh.epoch, epoch(2));
    assert_eq!(fresh.stored(2).await, 2);
    let state = fresh.load(false).await;
    let judge = |n, sequence| {
        state.lineage.judge(&Cursor::new(epoch(n), sequence), state.oldest, state.head)
    };
    assert_eq!(judge(1, 1), Verdict::Replay { from: 2, to: 2 });
    assert_eq!(judge(1, 2), Verdict::Ahead { from: 2, to: 2 });
    assert!(not_applied(&server.one(append(3)).await), "the one before is fenced");
}

// ---- following ---------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn who_follows_is_told_of_every_append_once_and_goes_on_where_it_broke() {
    let engine = Memory::default();
    let mut one = Server::start(&engine, 1).await;
    let mut two = Server::start(&engine, 2).await;
    one.log.run(vec![append(1), append(2)]).await.expect("stored");
    two.stored(3).await;
    for (expected, count) in [(1, 2), (3, 1)] {
        match two.follower.next().await {
            Input::Followed { agent: of, first, events, epoch: e } => {
                assert_eq!((of, first, events.len(), e), (agent(), expected, count, epoch(1)));
            }
            other => panic!("{other:?}"),
        }
    }
    engine.end_feeds();
    assert!(matches!(two.follower.next().await, Input::FollowBroken));
    engine.inner().down = true;
    let nothing = tokio::time::timeout(std::time::Duration::from_secs(60), two.follower.next());
    assert!(nothing.await.is_err(), "it goes on trying, and says so once");
    engine.inner().down = false;
    one.stored(4).await;
    assert!(matches!(two.follower.next().await, Input::FollowBegun { resumed: true }));
    match two.follower.next().await {
        Input::Followed { first: 4, .. } => {}
        other => panic!("{other:?}"),
    }
}

/// A server that has followed five events, whose feed has ended.
async fn cut_off_after_five(engine: &Memory) -> Server {
    let mut server = Server::start(engine, 1).await;
    for n in 1..=5 {
        server.stored(n).await;
        assert!(matches!(server.follower.next().await, Input::Followed { .. }));
    }
    engine.end_feeds();
    assert!(matches!(server.follower.next().await, Input::FollowBroken));
    server
}

#[tokio::test]
async fn a_log_that_lost_its_end_and_grew_beyond_it_since_went_back() {
    let engine = Memory::default();
    let mut one = cut_off_after_five(&engine).await;
    let three = engine.of(SUBJECT)[2];
    engine.go_back_to(three);
    let mut two = Server::start(&engine, 2).await;
    assert_eq!(two.epoch, one.epoch, "nobody has told it");
    for n in 11..=19 {
        two.stored(n).await;
    }
    let told = one.follower.next().await;
    assert!(matches!(told, Input::LogWentBack), "{told:?}");
    assert_eq!(one.open(7, None).await, epoch(7));
    assert!(matches!(one.follower.next().await, Input::FollowBegun { .. }));
    assert_eq!(one.stored(20).await, 13);
    let state = one.load(true).await;
    let cursor = Cursor::new(epoch(1), 5);
    let verdict = state.lineage.judge(&cursor, state.oldest, state.head);
    assert_eq!(verdict, Verdict::OtherEpoch { from: 1, to: 13 }, "5 is another event now");
    assert!(not_applied(&two.one(append(21)).await), "the epoch is another one for all");
}

#[tokio::test]
async fn a_log_that_has_forgotten_the_epoch_of_a_server_went_back() {
    let engine = Memory::default();
    let mut one = Server::start(&engine, 1).await;
    one.stored(1).await;
    let end = engine.inner().last_seq;
    assert_eq!(one.open(3, Some(epoch(1))).await, epoch(3));
    engine.go_back_to(end);
    engine.end_feeds();
    let told = loop {
        match one.follower.next().await {
            Input::FollowBroken => {}
            told => break told,
        }
    };
    assert!(matches!(told, Input::LogWentBack), "{told:?}");
    assert_eq!(one.open(4, None).await, epoch(4));
}

#[tokio::test]
async fn what_was_removed_from_the_beginning_meanwhile_is_no_log_that_went_back() {
    let engine = Memory::default();
    let mut one = cut_off_after_five(&engine).await;
    let mut two = Server::start(&engine, 2).await;
    for n in 6..=8 {
        two.stored(n).await;
    }
    two.one(Command::Retain { agent: agent(), oldest: 8 }).await;
    let told = one.follower.next().await;
    assert!(matches!(told, Input::FollowBegun { resumed: false }), "{told:?}");
    assert_eq!(one.stored(9).await, 9);
}

#[tokio::test]
async fn who_follows_is_told_of_another_epoch() {
    let engine = Memory::default();
    let mut one = Server::start(&engine, 1).await;
    let mut two = Server::start(&engine, 2).await;
    one.open(3, Some(epoch(1))).await;
    match two.follower.next().await {
        Input::EpochChanged(current) => assert_eq!(current, epoch(3)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_engine_that_is_away_fails_what_was_not_tried_as_not_applied() {
    let engine = Memory::default();
    let mut server = Server::start(&engine, 1).await;
    server.stored(1).await;
    engine.inner().down = true;
    assert!(unknown(&server.one(append(2)).await), "it was tried");
    assert!(not_applied(&server.one(append(2)).await), "how far the stream goes cannot be read");
    assert!(not_applied(&server.one(Command::Load { agent: agent(), confirmed: false }).await));
    engine.inner().down = false;
    assert_eq!(server.stored(2).await, 2);
}

#[tokio::test]
async fn ids_of_streams_that_grow_are_bounded_together() {
    let engine = Memory::default();
    let config = EngineLogConfig { ids_total_max: 30, ..EngineLogConfig::default() };
    let mut server = Server::configured(&engine, 1, config).await;
    let of = |agent: u64, n: u64| {
        let agent = AgentId::parse(&format!("agent-{agent}")).expect("valid");
        Command::Append(Append { agent, ..event(n) })
    };
    for n in 1..=20 {
        for agent in 1..=3 {
            server.one(of(agent, n)).await;
        }
    }
    // Two of the three do not fit: whose turn it is has to read its ids again, and knows them all.
    engine.reads();
    let reply = server.one(of(1, 7)).await;
    let is_known = matches!(&reply, Reply::Appended(Appended::Existing { sequence: 7, .. }));
    assert!(is_known && engine.reads() > 0, "{reply:?}");
}

#[tokio::test]
async fn what_does_not_fit_into_memory_is_read_again_from_the_engine() {
    let engine = Memory::default();
    let config = EngineLogConfig {
        ids_total_max: 3,
        streams_max: std::num::NonZeroUsize::MIN,
        places_max: std::num::NonZeroUsize::MIN,
        ..EngineLogConfig::default()
    };
    let mut server = Server::configured(&engine, 1, config).await;
    for n in 1..=20 {
        let mut commands = Vec::new();
        for agent in 1..=3 {
            let agent = AgentId::parse(&format!("agent-{agent}")).expect("valid");
            commands.push(Command::Append(Append { agent, ..event(n) }));
        }
        let replies = server.log.run(commands).await.expect("each has its own reply");
        for reply in replies {
            let is_next =
                matches!(&reply, Reply::Appended(Appended::New { sequence, .. }) if *sequence == n);
            assert!(is_next, "{reply:?}");
        }
    }
}
