//! The server's core on a log that others append to as well, input by input.

use std::time::Duration;

use gapless::Core;
use gapless::events::log::{Appended, Command, Reply, StreamState};
use gapless::events::server::{Input, Output, PublishError, Server, ServerConfig, SharedLog};
use gapless::events::wire::{ClientFrame, EventBody, Resync, ResyncVerdict, ServerFrame};
use gapless::events::{AgentId, CloseCode, ConnectionId, StoreId, Ticket};
use gapless::recovery::{Epoch, EpochStart, Instant, Lineage, WallTime};
use gapless::storage::StoreError;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::value::RawValue;

const CONN: ConnectionId = ConnectionId(1);
const WALL: WallTime = WallTime::from_millis(1_767_225_600_000);

fn agent() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

fn epoch(n: u64) -> Epoch {
    Epoch::parse(&format!("epoch-{n}")).expect("valid")
}

fn body(n: u64) -> EventBody {
    let payload = RawValue::from_string(format!(r#"{{"n":{n}}}"#)).expect("JSON");
    EventBody::new(Some(&format!("id-{n}")), "note", &payload, 1024).expect("valid")
}

/// A stream with events 1 to `head`, in the epoch `of`.
fn state(of: u64, head: u64) -> StreamState {
    let rows = (1..=of).map(|n| EpochStart { epoch: epoch(n), first: (n == 1).then_some(1) });
    StreamState { oldest: 1, head, lineage: Lineage::new(rows.collect()) }
}

/// A server whose log is played by the test.
struct Fixture {
    server: Server,
    now: u64,
}

impl Fixture {
    /// A server that has joined the first epoch and follows.
    fn new() -> Self {
        let config = ServerConfig {
            shared: Some(SharedLog { engine_patience: Duration::from_secs(5), loads_max: 2 }),
            ..ServerConfig::default()
        };
        let server = Server::new(config, Box::new(ChaCha12Rng::seed_from_u64(1)));
        let mut fixture = Self { server, now: 0 };
        let opened = std::iter::from_fn(|| fixture.server.poll()).collect();
        let (id, _) = commands(opened).remove(0);
        fixture.feed(Input::Stored(id, Ok(Reply::EpochOpened(epoch(1)))));
        fixture.feed(Input::FollowBegun { resumed: false });
        fixture
    }

    fn feed(&mut self, input: Input) -> Vec<Output> {
        self.server.handle(Instant::from_millis(self.now), input);
        std::iter::from_fn(|| self.server.poll()).collect()
    }

    fn answer(&mut self, id: StoreId, reply: Reply) -> Vec<Output> {
        self.feed(Input::Stored(id, Ok(reply)))
    }

    /// A client at the end of a stream with events 1 to `head`.
    fn live(&mut self, head: u64) {
        let connected = Input::Connected { conn: CONN, agent: agent(), extension: true };
        let load = load(self.feed(connected), false);
        self.answer(load, Reply::Loaded(state(1, head)));
        let outputs = self.resync(head, 1);
        assert_eq!(verdicts(&outputs), [ResyncVerdict::UpToDate]);
    }

    fn resync(&mut self, last_seen_seq: u64, of: u64) -> Vec<Output> {
        let resync = Resync { last_seen_seq, since: None, epoch: Some(epoch(of)) };
        self.feed(Input::Frame { conn: CONN, frame: ClientFrame::Resync(resync), at: WALL })
    }

    fn publish(&mut self, n: u64) -> Vec<Output> {
        self.feed(Input::Publish {
            ticket: Ticket(n),
            principal: "p".to_owned(),
            agent: agent(),
            body: body(n),
            after: None,
            at: WALL,
        })
    }

    fn appended(&mut self, id: StoreId, sequence: u64) -> Vec<Output> {
        let appended = Appended::New { sequence, oldest: 1, body: body(sequence) };
        self.answer(id, Reply::Appended(appended))
    }

    fn followed(&mut self, first: u64, to: u64, of: u64) -> Vec<Output> {
        let events = (first..=to).map(body).collect();
        self.feed(Input::Followed { agent: agent(), first, events, epoch: epoch(of) })
    }

    /// Lets time pass, with all timers on their way.
    fn pass(&mut self, millis: u64) -> Vec<Output> {
        let end = self.now + millis;
        let mut outputs = Vec::new();
        while let Some(due) = self.server.deadline().filter(|due| due.as_millis() <= end) {
            self.now = due.as_millis();
            outputs.extend(self.feed(Input::Timeout));
        }
        self.now = end;
        outputs
    }
}

fn commands(outputs: Vec<Output>) -> Vec<(StoreId, Command)> {
    let commands = outputs.into_iter().filter_map(|output| match output {
        Output::Store(id, command) => Some((id, command)),
        _ => None,
    });
    commands.collect()
}

/// The one load that is asked for.
fn load(outputs: Vec<Output>, is_confirmed: bool) -> StoreId {
    let mut commands = commands(outputs);
    assert_eq!(commands.len(), 1, "{commands:?}");
    match commands.remove(0) {
        (id, Command::Load { confirmed, .. }) if confirmed == is_confirmed => id,
        other => panic!("no such load: {other:?}"),
    }
}

fn sequences(outputs: &[Output]) -> Vec<u64> {
    let events = outputs.iter().filter_map(|output| match output {
        Output::Send { frame: ServerFrame::Event(event), .. } => event.sequence(),
        _ => None,
    });
    events.collect()
}

fn verdicts(outputs: &[Output]) -> Vec<ResyncVerdict> {
    let verdicts = outputs.iter().filter_map(|output| match output {
        Output::Send { frame: ServerFrame::ResyncBegin(begin), .. } => Some(begin.verdict),
        _ => None,
    });
    verdicts.collect()
}

fn closes(outputs: &[Output]) -> Vec<CloseCode> {
    let closes = outputs.iter().filter_map(|output| match output {
        Output::Close { code, .. } => Some(*code),
        _ => None,
    });
    closes.collect()
}

fn available(outputs: &[Output]) -> Vec<bool> {
    let said = outputs.iter().filter_map(|output| match output {
        Output::Available(available) => Some(*available),
        _ => None,
    });
    said.collect()
}

#[test]
fn an_event_is_shown_once_by_whichever_tells_of_it_first() {
    let mut fixture = Fixture::new();
    fixture.live(0);
    let id = commands(fixture.publish(1)).remove(0).0;
    assert_eq!(sequences(&fixture.appended(id, 1)), [1]);
    assert_eq!(sequences(&fixture.followed(1, 1, 1)), [0; 0]);
    let id = commands(fixture.publish(2)).remove(0).0;
    assert_eq!(sequences(&fixture.followed(2, 2, 1)), [2]);
    let outputs = fixture.appended(id, 2);
    assert_eq!(sequences(&outputs), [0; 0]);
    let acknowledged = outputs.iter().any(|output| {
        matches!(output, Output::Published { result: Ok(receipt), .. } if receipt.sequence == 2)
    });
    assert!(acknowledged, "{outputs:?}");
    assert_eq!(sequences(&fixture.followed(1, 4, 1)), [3, 4], "of what comes again the new part");
}

#[test]
fn a_hole_in_what_is_followed_is_read_from_the_log() {
    let mut fixture = Fixture::new();
    fixture.live(2);
    let outputs = fixture.followed(5, 6, 1);
    assert_eq!(sequences(&outputs), [0; 0]);
    let (id, command) = commands(outputs).remove(0);
    assert!(matches!(&command, Command::Read(read) if read.after == 2), "{command:?}");
    let outputs = fixture.answer(id, Reply::Page(vec![(3, body(3)), (4, body(4))]));
    assert_eq!(sequences(&outputs), [3, 4, 5, 6]);
}

#[test]
fn an_event_that_is_followed_while_the_stream_is_read_is_not_missed() {
    let mut fixture = Fixture::new();
    let connected = Input::Connected { conn: CONN, agent: agent(), extension: true };
    let load = load(fixture.feed(connected), false);
    fixture.followed(4, 4, 1);
    // The leader that answers lags behind what is followed.
    fixture.answer(load, Reply::Loaded(state(1, 3)));
    let outputs = fixture.resync(3, 1);
    let (id, command) = commands(outputs).remove(0);
    assert!(matches!(&command, Command::Read(read) if read.to == 4), "{command:?}");
    assert_eq!(sequences(&fixture.answer(id, Reply::Page(vec![(4, body(4))]))), [4]);
}

#[test]
fn a_cursor_beyond_what_is_known_is_judged_by_a_confirmed_state() {
    let mut fixture = Fixture::new();
    fixture.live(5);
    // The client had 6 and 7 from another server.
    let outputs = fixture.resync(7, 1);
    assert_eq!(verdicts(&outputs), []);
    let confirmed = load(outputs, true);
    let outputs = fixture.answer(confirmed, Reply::Loaded(state(1, 8)));
    assert_eq!(verdicts(&outputs), [ResyncVerdict::Replay]);
    // And one that the log has never given.
    let outputs = fixture.resync(20, 1);
    let confirmed = load(outputs, true);
    let outputs = fixture.answer(confirmed, Reply::Loaded(state(1, 8)));
    assert_eq!(verdicts(&outputs), [ResyncVerdict::Ahead]);
}

#[test]
fn a_cursor_of_an_unknown_epoch_is_judged_by_a_confirmed_state_too() {
    let mut fixture = Fixture::new();
    fixture.live(5);
    let outputs = fixture.resync(3, 2);
    let confirmed = load(outputs, true);
    // The log has another epoch, which this server has not heard of.
    let outputs = fixture.answer(confirmed, Reply::Loaded(state(2, 5)));
    assert_eq!(verdicts(&outputs), []);
    let (id, command) = commands(outputs).remove(0);
    assert!(matches!(command, Command::OpenEpoch { broken: None, .. }), "{command:?}");
    let outputs = fixture.answer(id, Reply::EpochOpened(epoch(2)));
    assert_eq!(closes(&outputs), [CloseCode::RESUME], "its `stream` named another one");
}

/// A server that had shown five events, was then told of four, and asks for the confirmed state.
fn confirming() -> (Fixture, StoreId) {
    let mut fixture = Fixture::new();
    fixture.live(5);
    let id = commands(fixture.publish(6)).remove(0).0;
    let outputs = fixture.feed(Input::Stored(id, Err(StoreError::Unknown("?".to_owned()))));
    let first = load(outputs, false);
    let outputs = fixture.answer(first, Reply::Loaded(state(1, 4)));
    let confirmed = load(outputs, true);
    (fixture, confirmed)
}

#[test]
fn a_state_below_what_was_seen_is_confirmed_before_the_epoch_is_given_up() {
    let (mut fixture, confirmed) = confirming();
    let outputs = fixture.answer(confirmed, Reply::Loaded(state(1, 4)));
    assert_eq!(closes(&outputs), [CloseCode::RESUME]);
    let (_, command) = commands(outputs).remove(0);
    let is_broken =
        matches!(&command, Command::OpenEpoch { broken: Some(broken), .. } if *broken == epoch(1));
    assert!(is_broken, "{command:?}");
}

#[test]
fn a_leader_that_lagged_costs_a_question_and_nothing_else() {
    let (mut fixture, confirmed) = confirming();
    let outputs = fixture.answer(confirmed, Reply::Loaded(state(1, 6)));
    assert_eq!(closes(&outputs), []);
    let (id, _) = commands(outputs).remove(0);
    assert_eq!(sequences(&fixture.answer(id, Reply::Page(vec![(6, body(6))]))), [6]);
}

#[test]
fn streams_are_read_again_a_few_at_a_time_when_what_is_followed_has_a_hole() {
    let mut fixture = Fixture::new();
    for n in 1..=5 {
        let agent = AgentId::parse(&format!("agent-{n}")).expect("valid");
        let connected = Input::Connected { conn: ConnectionId(n), agent, extension: true };
        let load = load(fixture.feed(connected), false);
        fixture.answer(load, Reply::Loaded(state(1, 0)));
    }
    assert_eq!(commands(fixture.feed(Input::FollowBegun { resumed: true })).len(), 0);
    let mut asked = commands(fixture.feed(Input::FollowBegun { resumed: false }));
    assert_eq!(asked.len(), 2, "of five");
    let mut loaded = 0;
    while let Some((id, _)) = asked.pop() {
        loaded += 1;
        asked.extend(commands(fixture.answer(id, Reply::Loaded(state(1, 0)))));
    }
    assert_eq!(loaded, 5);
}

#[test]
fn another_epoch_closes_who_was_served_in_the_one_before() {
    let mut fixture = Fixture::new();
    fixture.live(5);
    let outputs = fixture.feed(Input::EpochChanged(epoch(2)));
    let (id, command) = commands(outputs).remove(0);
    assert!(matches!(command, Command::OpenEpoch { broken: None, .. }), "{command:?}");
    assert!(fixture.publish(6).iter().any(|output| {
        matches!(output, Output::Published { result: Err(PublishError::Unavailable), .. })
    }));
    let outputs = fixture.answer(id, Reply::EpochOpened(epoch(2)));
    assert_eq!(closes(&outputs), [CloseCode::RESUME]);
    assert_eq!(commands(fixture.feed(Input::EpochChanged(epoch(2)))).len(), 0);
}

#[test]
fn a_resync_that_comes_while_an_epoch_is_joined_is_answered_afterwards() {
    let mut fixture = Fixture::new();
    fixture.live(5);
    let opening = commands(fixture.feed(Input::EpochChanged(epoch(2)))).remove(0).0;
    assert_eq!(verdicts(&fixture.resync(4, 1)), []);
    // It was old news.
    let outputs = fixture.answer(opening, Reply::EpochOpened(epoch(1)));
    assert_eq!(closes(&outputs), []);
    let load = load(outputs, false);
    let outputs = fixture.answer(load, Reply::Loaded(state(1, 5)));
    assert_eq!(verdicts(&outputs), [ResyncVerdict::Replay]);
}

#[test]
fn a_log_that_is_away_sends_clients_away_and_takes_them_again_when_it_is_back() {
    let mut fixture = Fixture::new();
    fixture.live(5);
    fixture.feed(Input::FollowBroken);
    assert!(available(&fixture.pass(4_900)).is_empty(), "a new leader takes a while");
    let outputs = fixture.pass(150);
    assert_eq!(closes(&outputs), [CloseCode::TRY_AGAIN_LATER]);
    assert_eq!(available(&outputs), [false]);
    let connected = Input::Connected { conn: ConnectionId(2), agent: agent(), extension: true };
    assert_eq!(closes(&fixture.feed(connected)), [CloseCode::TRY_AGAIN_LATER]);
    let outputs = fixture.publish(6);
    assert!(commands(outputs).is_empty(), "nothing is tried, so nothing can be stored");
    let opening = commands(fixture.pass(1_000)).remove(0).0;
    let failed = StoreError::NotApplied("no answer".to_owned());
    fixture.feed(Input::Stored(opening, Err(failed)));
    let opening = commands(fixture.pass(30_000)).remove(0).0;
    let outputs = fixture.answer(opening, Reply::EpochOpened(epoch(1)));
    assert!(available(&outputs).is_empty(), "it is not followed yet");
    assert_eq!(available(&fixture.feed(Input::FollowBegun { resumed: true })), [true]);
    fixture.live(5);
}

#[test]
fn trouble_that_ends_in_time_is_not_seen_by_clients() {
    let mut fixture = Fixture::new();
    fixture.live(5);
    fixture.feed(Input::FollowBroken);
    fixture.pass(4_000);
    fixture.feed(Input::FollowBegun { resumed: true });
    let outputs = fixture.pass(20_000);
    assert_eq!((closes(&outputs), available(&outputs)), (vec![], vec![]));
    assert_eq!(sequences(&fixture.followed(6, 6, 1)), [6]);
}

#[test]
fn who_comes_while_the_log_is_not_followed_waits_until_it_is() {
    let mut fixture = Fixture::new();
    fixture.feed(Input::FollowBroken);
    let connected = Input::Connected { conn: CONN, agent: agent(), extension: true };
    let outputs = fixture.feed(connected);
    assert_eq!(closes(&outputs), []);
    assert!(commands(outputs).is_empty(), "it is not sure that the log is the same");
    let load = load(fixture.feed(Input::FollowBegun { resumed: true }), false);
    fixture.answer(load, Reply::Loaded(state(1, 3)));
    assert_eq!(verdicts(&fixture.resync(3, 1)), [ResyncVerdict::UpToDate]);
}

#[test]
fn trouble_ends_with_the_next_event_that_is_followed() {
    let mut fixture = Fixture::new();
    fixture.live(1);
    let (id, _) = commands(fixture.publish(2)).remove(0);
    let failed = Err(StoreError::Unknown("no answer".to_owned()));
    fixture.feed(Input::Stored(id, failed));
    fixture.pass(3_000);
    fixture.followed(2, 2, 1);
    let outputs = fixture.pass(10_000);
    assert_eq!((available(&outputs), closes(&outputs)), (vec![], vec![]), "{outputs:?}");
}

#[test]
fn only_the_answer_to_the_last_question_opens_an_epoch() {
    let mut fixture = Fixture::new();
    fixture.live(1);
    let (first, _) = commands(fixture.feed(Input::EpochChanged(epoch(2)))).remove(0);
    let (second, command) = commands(fixture.feed(Input::LogWentBack)).remove(0);
    assert!(
        matches!(&command, Command::OpenEpoch { broken: Some(broken), .. } if *broken == epoch(1)),
        "{command:?}"
    );
    fixture.answer(first, Reply::EpochOpened(epoch(2)));
    let refused = fixture.publish(2);
    assert!(commands(refused).is_empty(), "no epoch is open");
    fixture.answer(second, Reply::EpochOpened(epoch(3)));
    let (id, _) = commands(fixture.publish(3)).remove(0);
    let outputs = fixture.appended(id, 2);
    let receipt = outputs.iter().find_map(|output| match output {
        Output::Published { result, .. } => Some(result.clone()),
        _ => None,
    });
    let receipt = receipt.expect("it is answered").expect("it is stored");
    assert_eq!((receipt.epoch, receipt.sequence), (epoch(3), 2));
}

#[test]
fn one_command_of_a_run_fails_alone() {
    let mut fixture = Fixture::new();
    fixture.live(0);
    let one = commands(fixture.publish(1)).remove(0).0;
    let two = commands(fixture.publish(2)).remove(0).0;
    let failed = Reply::Failed(StoreError::NotApplied("full".to_owned()));
    let outputs = fixture.answer(one, failed);
    let refused = outputs.iter().any(|output| {
        matches!(output, Output::Published { result: Err(PublishError::Unavailable), .. })
    });
    assert!(refused, "{outputs:?}");
    let appended = Appended::New { sequence: 1, oldest: 1, body: body(2) };
    assert_eq!(sequences(&fixture.answer(two, Reply::Appended(appended))), [1]);
}
