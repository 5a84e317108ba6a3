//! The server's core, input by input.

use std::time::Duration;

use gapless::Core;
use gapless::events::log::{Appended, Command, Reply, StreamState};
use gapless::events::server::{Input, Output, PublishError, Server, ServerConfig};
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

fn body(n: u64) -> EventBody {
    let payload = RawValue::from_string(format!(r#"{{"n":{n}}}"#)).expect("JSON");
    EventBody::new(Some(&format!("id-{n}")), "note", &payload, 1024).expect("valid")
}

/// A server whose log is played by the test.
struct Fixture {
    server: Server,
    now: u64,
    epoch: Epoch,
}

impl Fixture {
    /// A server with an open epoch.
    fn new(config: ServerConfig) -> Self {
        let server = Server::new(config, Box::new(ChaCha12Rng::seed_from_u64(1)));
        let epoch = Epoch::parse("none").expect("valid");
        let mut fixture = Self { server, now: 0, epoch };
        let (id, command) = fixture.commands().remove(0);
        let Command::OpenEpoch { proposed: epoch, .. } = command else {
            panic!("an epoch is opened first")
        };
        fixture.epoch = epoch.clone();
        fixture.feed(Input::Stored(id, Ok(Reply::EpochOpened(epoch))));
        fixture
    }

    fn feed(&mut self, input: Input) -> Vec<Output> {
        self.server.handle(Instant::from_millis(self.now), input);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.server.poll()).collect()
    }

    fn commands(&mut self) -> Vec<(StoreId, Command)> {
        commands(self.drain())
    }

    /// Connects to a stream with `head` events, all in the log.
    fn connect(&mut self, extension: bool, oldest: u64, head: u64) -> Vec<Output> {
        let loads = commands(self.feed(Input::Connected { conn: CONN, agent: agent(), extension }));
        let lineage = Lineage::new(vec![EpochStart { epoch: self.epoch.clone(), first: Some(1) }]);
        let state = StreamState { oldest, head, lineage };
        self.feed(Input::Stored(loads[0].0, Ok(Reply::Loaded(state))))
    }

    fn resync(&mut self, last_seen_seq: u64, epoch: Option<Epoch>) -> Vec<Output> {
        let resync = Resync { last_seen_seq, since: None, epoch };
        self.feed(Input::Frame { conn: CONN, frame: ClientFrame::Resync(resync), at: WALL })
    }

    fn publish(&mut self, n: u64) -> StoreId {
        let outputs = self.feed(Input::Publish {
            ticket: Ticket(n),
            principal: "p".to_owned(),
            agent: agent(),
            body: body(n),
            after: None,
            at: WALL,
        });
        assert!(frames(&outputs).is_empty(), "nothing is shown before it is stored");
        commands(outputs).remove(0).0
    }

    fn stored(&mut self, id: StoreId, sequence: u64) -> Vec<Output> {
        let appended = Appended::New { sequence, oldest: 1, body: body(sequence) };
        self.feed(Input::Stored(id, Ok(Reply::Appended(appended))))
    }
}

fn commands(outputs: Vec<Output>) -> Vec<(StoreId, Command)> {
    let commands = outputs.into_iter().filter_map(|output| match output {
        Output::Store(id, command) => Some((id, command)),
        _ => None,
    });
    commands.collect()
}

fn frames(outputs: &[Output]) -> Vec<ServerFrame> {
    let frames = outputs.iter().filter_map(|output| match output {
        Output::Send { frame, .. } => Some(frame.clone()),
        _ => None,
    });
    frames.collect()
}

fn sequences(outputs: &[Output]) -> Vec<u64> {
    let events = frames(outputs).into_iter().filter_map(|frame| match frame {
        ServerFrame::Event(event) => event.sequence(),
        _ => None,
    });
    events.collect()
}

#[test]
fn an_event_is_shown_and_acknowledged_only_after_the_log_has_it() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(true, 1, 0);
    let epoch = fixture.epoch.clone();
    fixture.resync(0, Some(epoch));
    let id = fixture.publish(1);
    let outputs = fixture.stored(id, 1);
    assert_eq!(sequences(&outputs), [1]);
    let acknowledged = outputs.iter().any(|output| {
        matches!(output, Output::Published { ticket: Ticket(1), result: Ok(receipt) } if receipt.sequence == 1)
    });
    assert!(acknowledged, "{outputs:?}");
}

#[test]
fn a_failed_transaction_shows_nothing_and_says_what_is_known() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(true, 1, 0);
    for (error, expected) in [
        (StoreError::NotApplied("no space".to_owned()), PublishError::Unavailable),
        (StoreError::Unknown("the disk is gone".to_owned()), PublishError::Unknown),
    ] {
        let id = fixture.publish(1);
        let outputs = fixture.feed(Input::Stored(id, Err(error)));
        assert_eq!(sequences(&outputs), [0; 0]);
        let said = outputs.iter().find_map(|output| match output {
            Output::Published { result: Err(error), .. } => Some(error.clone()),
            _ => None,
        });
        assert_eq!(said, Some(expected));
    }
}

#[test]
fn after_an_unknown_outcome_the_stream_is_read_again_before_anything_is_sent() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(true, 1, 0);
    let epoch = fixture.epoch.clone();
    fixture.resync(0, Some(epoch.clone()));
    let id = fixture.publish(1);
    let outputs = fixture.feed(Input::Stored(id, Err(StoreError::Unknown("?".to_owned()))));
    let (load, command) = commands(outputs).remove(0);
    assert!(matches!(command, Command::Load { .. }));
    // It was stored after all.
    let lineage = Lineage::new(vec![EpochStart { epoch, first: Some(1) }]);
    let state = StreamState { oldest: 1, head: 1, lineage };
    let outputs = fixture.feed(Input::Stored(load, Ok(Reply::Loaded(state))));
    let (read, command) = commands(outputs).remove(0);
    assert!(matches!(command, Command::Read(_)));
    let outputs = fixture.feed(Input::Stored(read, Ok(Reply::Page(vec![(1, body(1))]))));
    assert_eq!(sequences(&outputs), [1]);
}

#[test]
fn a_log_that_went_back_is_another_epoch() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(true, 1, 0);
    for n in 1..=3 {
        let id = fixture.publish(n);
        fixture.stored(id, n);
    }
    let id = fixture.publish(4);
    let outputs = fixture.feed(Input::Stored(id, Err(StoreError::Unknown("?".to_owned()))));
    let (load, _) = commands(outputs).remove(0);
    let lineage = Lineage::new(vec![EpochStart { epoch: fixture.epoch.clone(), first: Some(1) }]);
    let state = StreamState { oldest: 1, head: 2, lineage };
    let outputs = fixture.feed(Input::Stored(load, Ok(Reply::Loaded(state))));
    let closed = outputs
        .iter()
        .any(|output| matches!(output, Output::Close { code: CloseCode::RESUME, .. }));
    assert!(closed, "{outputs:?}");
    let opened = commands(outputs)
        .into_iter()
        .any(|(_, command)| matches!(command, Command::OpenEpoch { proposed, .. } if proposed != fixture.epoch));
    assert!(opened);
}

#[test]
fn live_events_wait_for_the_replay() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(false, 1, 5);
    let id = fixture.publish(6);
    assert_eq!(sequences(&fixture.stored(id, 6)), [0; 0], "held until the resync");
    let outputs = fixture.resync(3, None);
    let (read, command) = commands(outputs).remove(0);
    assert!(matches!(command, Command::Read(read) if (read.after, read.to) == (3, 6)));
    let id = fixture.publish(7);
    assert_eq!(sequences(&fixture.stored(id, 7)), [0; 0], "the replay is not complete");
    let page = (4..=6).map(|n| (n, body(n))).collect();
    let outputs = fixture.feed(Input::Stored(read, Ok(Reply::Page(page))));
    assert_eq!(sequences(&outputs), [4, 5, 6, 7]);
    let frames = frames(&outputs);
    let ack = frames.iter().position(|frame| matches!(frame, ServerFrame::ResyncAck(_)));
    assert_eq!(ack, Some(3), "the end of the replay comes before what is live: {frames:?}");
}

#[test]
fn a_subscription_neither_ends_the_hold_nor_changes_what_is_sent() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(false, 1, 0);
    let channels = vec!["general".to_owned()];
    let id = fixture.publish(1);
    fixture.stored(id, 1);
    for frame in [
        ClientFrame::Subscribe(channels.clone()),
        ClientFrame::Ping,
        ClientFrame::Unsubscribe(channels),
    ] {
        let outputs = fixture.feed(Input::Frame { conn: CONN, frame, at: WALL });
        assert_eq!(sequences(&outputs), [0; 0], "held until the resync");
    }
    assert_eq!(sequences(&fixture.resync(0, None)), [1]);
    let id = fixture.publish(2);
    assert_eq!(sequences(&fixture.stored(id, 2)), [2]);
}

#[test]
fn the_grace_ends_the_hold_and_loses_nothing() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(false, 1, 0);
    let id = fixture.publish(1);
    assert_eq!(sequences(&fixture.stored(id, 1)), [0; 0]);
    fixture.now = 2_000;
    assert_eq!(fixture.server.deadline(), Some(Instant::from_millis(2_000)));
    assert_eq!(sequences(&fixture.feed(Input::Timeout)), [1]);
}

#[test]
fn each_cursor_gets_its_verdict() {
    let verdict = |oldest, head, cursor: u64, epoch: Option<&str>| {
        let mut fixture = Fixture::new(ServerConfig::default());
        fixture.connect(true, oldest, head);
        let epoch = match epoch {
            Some(epoch) => Some(Epoch::parse(epoch).expect("valid")),
            None => Some(fixture.epoch.clone()),
        };
        let outputs = fixture.resync(cursor, epoch);
        frames(&outputs).into_iter().find_map(|frame| match frame {
            ServerFrame::ResyncBegin(begin) => Some((begin.verdict, begin.from, begin.to)),
            _ => None,
        })
    };
    assert_eq!(verdict(1, 9, 9, None), Some((ResyncVerdict::UpToDate, 10, 9)));
    assert_eq!(verdict(1, 9, 4, None), Some((ResyncVerdict::Replay, 5, 9)));
    assert_eq!(verdict(6, 9, 2, None), Some((ResyncVerdict::TooOld, 6, 9)));
    assert_eq!(verdict(1, 9, 12, None), Some((ResyncVerdict::Ahead, 10, 9)));
    assert_eq!(verdict(3, 9, 4, Some("elsewhere")), Some((ResyncVerdict::OtherEpoch, 3, 9)));
}

#[test]
fn a_number_from_a_base_connection_proves_nothing_to_the_extension() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(true, 1, 9);
    let outputs = fixture.resync(9, None);
    let ack = frames(&outputs).into_iter().find_map(|frame| match frame {
        ServerFrame::ResyncAck(ack) => Some(ack),
        _ => None,
    });
    let ack = ack.expect("the replay is empty and ends at once");
    assert_eq!((ack.verdict, ack.gap_detected), (Some(ResyncVerdict::Unknown), true));
}

#[test]
fn the_window_bounds_what_is_on_its_way() {
    let config = ServerConfig { window_frames: 4, ..ServerConfig::default() };
    let mut fixture = Fixture::new(config);
    fixture.connect(true, 1, 0);
    let epoch = fixture.epoch.clone();
    fixture.resync(0, Some(epoch));
    fixture.feed(Input::Written { conn: CONN, frames: 3 });
    let mut sent = Vec::new();
    for n in 1..=10 {
        let id = fixture.publish(n);
        sent.extend(sequences(&fixture.stored(id, n)));
    }
    assert_eq!(sent, [1, 2, 3, 4]);
    sent.extend(sequences(&fixture.feed(Input::Written { conn: CONN, frames: 2 })));
    assert_eq!(sent, [1, 2, 3, 4, 5, 6]);
    fixture.now = 30_000;
    let outputs = fixture.feed(Input::Timeout);
    let closed = outputs
        .iter()
        .any(|output| matches!(output, Output::Close { code: CloseCode::RESUME, .. }));
    assert!(closed, "a reader that stops is disconnected: {outputs:?}");
}

#[test]
fn a_flood_of_pings_is_cut_off() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(true, 1, 0);
    let closed = (0..1_000).any(|_| {
        let outputs = fixture.feed(Input::Frame { conn: CONN, frame: ClientFrame::Ping, at: WALL });
        outputs
            .iter()
            .any(|output| matches!(output, Output::Close { code: CloseCode::PROTOCOL, .. }))
    });
    assert!(closed);
}

#[test]
fn a_silent_client_is_dropped_and_a_talking_one_is_not() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(true, 1, 0);
    fixture.feed(Input::Written { conn: CONN, frames: 1 });
    for _ in 0..5 {
        fixture.now += 60_000;
        let outputs = fixture.feed(Input::Alive { conn: CONN });
        assert!(outputs.is_empty());
    }
    fixture.now += Duration::from_secs(75).as_millis() as u64;
    let outputs = fixture.feed(Input::Timeout);
    let closed = outputs
        .iter()
        .any(|output| matches!(output, Output::Close { code: CloseCode::SILENT, .. }));
    assert!(closed, "{outputs:?}");
}

#[test]
fn an_epoch_that_could_not_be_opened_is_tried_again_under_another_name() {
    let mut server = Server::new(ServerConfig::default(), Box::new(ChaCha12Rng::seed_from_u64(1)));
    let drain =
        |server: &mut Server| -> Vec<Output> { std::iter::from_fn(|| server.poll()).collect() };
    let (id, first) = commands(drain(&mut server)).remove(0);
    server.handle(
        Instant::from_millis(0),
        Input::Stored(id, Err(StoreError::Unknown("?".to_owned()))),
    );
    assert!(drain(&mut server).is_empty());
    let retry = server.deadline().expect("it tries again");
    server.handle(retry, Input::Timeout);
    let (_, second) = commands(drain(&mut server)).remove(0);
    match (first, second) {
        (
            Command::OpenEpoch { proposed: first, .. },
            Command::OpenEpoch { proposed: second, .. },
        ) => assert_ne!(first, second),
        other => panic!("epochs were expected: {other:?}"),
    }
}

#[test]
fn the_oldest_of_too_many_sockets_is_closed() {
    let config = ServerConfig { sockets_per_agent_max: 2, ..ServerConfig::default() };
    let mut fixture = Fixture::new(config);
    let mut closed = Vec::new();
    for number in 1..=3 {
        let input =
            Input::Connected { conn: ConnectionId(number), agent: agent(), extension: true };
        closed.extend(fixture.feed(input).into_iter().filter_map(|output| match output {
            Output::Close { conn, code, .. } => Some((conn, code)),
            _ => None,
        }));
    }
    assert_eq!(closed, [(ConnectionId(1), CloseCode::TOO_MANY_SOCKETS)]);
}

#[test]
fn a_base_cursor_beyond_the_head_is_served_by_time_and_said_to_have_a_gap() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(false, 1, 9);
    let since = WallTime::from_millis(WALL.as_millis() + 3_600_000);
    let resync = Resync { last_seen_seq: 42, since: Some(since), epoch: None };
    let input = Input::Frame { conn: CONN, frame: ClientFrame::Resync(resync), at: WALL };
    let (find, command) = commands(fixture.feed(input)).remove(0);
    // The client's clock is an hour ahead: the server's own time counts, less the margin.
    let expected = WALL.saturating_sub(Duration::from_secs(5));
    assert!(matches!(command, Command::FindSince(_, at) if at == expected), "{command:?}");
    let outputs = fixture.feed(Input::Stored(find, Ok(Reply::Since(Some(8)))));
    let (read, command) = commands(outputs).remove(0);
    assert!(matches!(command, Command::Read(read) if (read.after, read.to) == (7, 9)));
    let page = (8..=9).map(|n| (n, body(n))).collect();
    let outputs = fixture.feed(Input::Stored(read, Ok(Reply::Page(page))));
    assert_eq!(sequences(&outputs), [8, 9]);
    let ack = frames(&outputs).into_iter().find_map(|frame| match frame {
        ServerFrame::ResyncAck(ack) => Some(ack),
        _ => None,
    });
    let ack = ack.expect("the replay ends");
    assert_eq!((ack.current_seq, ack.replayed, ack.gap_detected), (9, 2, true));
    assert_eq!((ack.epoch, ack.verdict), (None, None), "no word of the extension");
}

#[test]
fn the_next_page_is_read_while_half_of_one_is_still_to_be_sent() {
    let config = ServerConfig { window_frames: 3, page_events: 4, ..ServerConfig::default() };
    let mut fixture = Fixture::new(config);
    fixture.connect(true, 1, 10);
    let epoch = fixture.epoch.clone();
    let mut outputs = fixture.resync(0, Some(epoch));
    let (mut seen, mut reads) = (Vec::new(), Vec::new());
    while seen.last() != Some(&10) {
        seen.extend(sequences(&outputs));
        let asked = commands(outputs);
        outputs = match asked.into_iter().next() {
            Some((id, Command::Read(read))) => {
                reads.push((read.after, seen.len()));
                let page = (read.after + 1..=10).take(read.count_max);
                let page = page.map(|n| (n, body(n))).collect();
                fixture.feed(Input::Stored(id, Ok(Reply::Page(page))))
            }
            Some((_, other)) => panic!("only pages are asked for: {other:?}"),
            None => fixture.feed(Input::Written { conn: CONN, frames: 1 }),
        };
        assert!(reads.len() < 20 && seen.len() <= 10, "{seen:?}");
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    assert_eq!(reads, [(0, 0), (4, 2), (8, 6)], "after which event, and when so many were sent");
}

#[test]
fn retention_that_passes_a_pump_is_declared_in_the_extension_and_closes_a_base_connection() {
    let stalled = |extension| {
        let config = ServerConfig {
            window_frames: 4,
            ring: gapless::recovery::RingLimits { count: 2, bytes: usize::MAX, age: None },
            ..ServerConfig::default()
        };
        let mut fixture = Fixture::new(config);
        fixture.connect(extension, 1, 0);
        let epoch = extension.then(|| fixture.epoch.clone());
        fixture.resync(0, epoch);
        for n in 1..=20 {
            let id = fixture.publish(n);
            fixture.stored(id, n);
        }
        let retain =
            commands(fixture.feed(Input::Retain { agent: agent(), oldest: 15 })).remove(0).0;
        fixture.feed(Input::Stored(retain, Ok(Reply::Retained(15))));
        fixture.feed(Input::Written { conn: CONN, frames: 4 })
    };
    let declared = frames(&stalled(true)).into_iter().find_map(|frame| match frame {
        ServerFrame::Gap(gap) => Some(gap.to),
        _ => None,
    });
    assert_eq!(declared, Some(14));
    let closed = stalled(false)
        .iter()
        .any(|output| matches!(output, Output::Close { code: CloseCode::RESUME, .. }));
    assert!(closed, "the base contract has no word for it on a live link");
}

/// What follows if one transaction stores the events from 1 to `count`, and the log keeps the newest
/// `kept` of them.
fn stored_together(config: ServerConfig, count: u64, kept: u64) -> Vec<Output> {
    let mut fixture = Fixture::new(config);
    fixture.connect(true, 1, 0);
    let epoch = fixture.epoch.clone();
    fixture.resync(0, Some(epoch));
    let ids: Vec<_> = (1..=count).map(|n| fixture.publish(n)).collect();
    for (sequence, id) in (1_u64..).zip(ids) {
        let oldest = (sequence + 1).saturating_sub(kept).max(1);
        let appended = Appended::New { sequence, oldest, body: body(sequence) };
        let input = Input::Stored(id, Ok(Reply::Appended(appended)));
        fixture.server.handle(Instant::from_millis(fixture.now), input);
    }
    fixture.drain()
}

#[test]
fn what_is_stored_together_is_sent_before_retention_or_the_ring_can_lose_it() {
    let ring = |count, bytes| ServerConfig {
        ring: gapless::recovery::RingLimits { count, bytes, age: None },
        ..ServerConfig::default()
    };
    let of_bytes = ring(usize::MAX, 300);
    for (config, kept) in [(ring(500, 4 << 20), 2), (ring(2, usize::MAX), 100), (of_bytes, 100)] {
        let outputs = stored_together(config, 30, kept);
        assert_eq!(sequences(&outputs), (1..=30).collect::<Vec<_>>());
        assert_eq!(frames(&outputs).len(), 30, "no gap is declared");
        assert!(commands(outputs).is_empty(), "nothing is read from the log");
    }
}

#[test]
fn what_is_stored_together_goes_to_one_connection_after_the_other() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(true, 1, 0);
    let other = ConnectionId(2);
    fixture.feed(Input::Connected { conn: other, agent: agent(), extension: true });
    let resync = Resync { last_seen_seq: 0, since: None, epoch: Some(fixture.epoch.clone()) };
    for conn in [CONN, other] {
        let frame = ClientFrame::Resync(resync.clone());
        fixture.feed(Input::Frame { conn, frame, at: WALL });
    }
    let ids: Vec<_> = (1..=3).map(|n| fixture.publish(n)).collect();
    for (sequence, id) in (1..).zip(ids) {
        let appended = Appended::New { sequence, oldest: 1, body: body(sequence) };
        let input = Input::Stored(id, Ok(Reply::Appended(appended)));
        fixture.server.handle(Instant::from_millis(0), input);
    }
    let sent = fixture.drain().into_iter().filter_map(|output| match output {
        Output::Send { conn, frame: ServerFrame::Event(event) } => {
            Some((conn.0, event.sequence()?))
        }
        _ => None,
    });
    assert_eq!(sent.collect::<Vec<_>>(), [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]);
}

#[test]
fn a_gap_in_a_replay_ends_where_the_replay_ends() {
    let config = ServerConfig {
        ring: gapless::recovery::RingLimits { count: 2, bytes: usize::MAX, age: None },
        ..ServerConfig::default()
    };
    let mut fixture = Fixture::new(config);
    fixture.connect(true, 1, 10);
    let epoch = fixture.epoch.clone();
    let read = commands(fixture.resync(1, Some(epoch))).remove(0).0;
    for n in 11..=20 {
        let id = fixture.publish(n);
        fixture.stored(id, n);
    }
    let retain = commands(fixture.feed(Input::Retain { agent: agent(), oldest: 15 })).remove(0).0;
    let mut said = fixture.feed(Input::Stored(retain, Ok(Reply::Retained(15))));
    said.extend(fixture.feed(Input::Stored(read, Ok(Reply::Page(vec![])))));
    let said: Vec<_> = frames(&said)
        .into_iter()
        .filter_map(|frame| match frame {
            ServerFrame::Gap(gap) => Some(format!("gap {}..={}", gap.from, gap.to)),
            ServerFrame::ResyncAck(ack) => Some(format!("ack {}", ack.current_seq)),
            _ => None,
        })
        .collect();
    assert_eq!(said, ["gap 2..=10", "ack 10", "gap 11..=14"]);
}

/// The reads that outputs lead to, as (name, first number asked for).
fn reads(outputs: Vec<Output>) -> Vec<(StoreId, u64)> {
    let reads = commands(outputs).into_iter().filter_map(|(id, command)| match command {
        Command::Read(read) => Some((id, read.after + 1)),
        Command::FindSince(..) => Some((id, 0)),
        _ => None,
    });
    reads.collect()
}

#[test]
fn who_resyncs_again_and_again_while_the_log_is_slow_makes_few_reads_and_gets_the_newest() {
    for extension in [false, true] {
        // Questions that lead to frames are bounded by the window: here there are none.
        let mut fixture =
            Fixture::new(ServerConfig { window_frames: 10_000, ..Default::default() });
        fixture.connect(extension, 1, 9);
        let epoch = extension.then(|| fixture.epoch.clone());
        let mut waiting = Vec::new();
        for n in 0..1_000 {
            waiting.extend(reads(fixture.resync(n % 8, epoch.clone())));
        }
        waiting.extend(reads(fixture.resync(7, epoch.clone())));
        assert_eq!(waiting.len(), 8, "the ninth waits for an answer");
        let mut sent = Vec::new();
        let mut asked = 0;
        while let Some((id, from)) = waiting.pop() {
            asked += 1;
            let page = (from..=9).map(|n| (n, body(n))).collect();
            let outputs = fixture.feed(Input::Stored(id, Ok(Reply::Page(page))));
            sent.extend(sequences(&outputs));
            waiting.extend(reads(outputs));
        }
        assert_eq!(asked, 9, "one more, for the newest");
        assert_eq!(sent[sent.len() - 2..], [8, 9], "what the newest one asked for");
        let outputs = fixture.resync(9, epoch.clone());
        assert!(!frames(&outputs).is_empty(), "it is answered at once, as before: {outputs:?}");
    }
}

#[test]
fn who_asks_for_times_again_and_again_makes_few_reads() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(false, 1, 9);
    let mut count = 0;
    for _ in 0..1_000 {
        let resync = Resync { last_seen_seq: 42, since: Some(WALL), epoch: None };
        let input = Input::Frame { conn: CONN, frame: ClientFrame::Resync(resync), at: WALL };
        count += reads(fixture.feed(input)).len();
    }
    assert_eq!(count, 8);
}

#[test]
fn connections_that_come_and_go_while_the_log_is_slow_do_not_pile_up_reads() {
    let config = ServerConfig { reads_max: 5, ..ServerConfig::default() };
    let mut fixture = Fixture::new(config);
    fixture.connect(false, 1, 9);
    let mut waiting = reads(fixture.resync(1, None));
    let mut refused = 0;
    for n in 2..10 {
        let conn = ConnectionId(n);
        fixture.feed(Input::Connected { conn, agent: agent(), extension: false });
        let resync = Resync { last_seen_seq: 1, since: None, epoch: None };
        let frame = ClientFrame::Resync(resync);
        let outputs = fixture.feed(Input::Frame { conn, frame, at: WALL });
        refused += outputs
            .iter()
            .filter(|it| matches!(it, Output::Close { code: CloseCode::TRY_AGAIN_LATER, .. }))
            .count();
        waiting.extend(reads(outputs));
        fixture.feed(Input::Disconnected { conn });
    }
    assert_eq!((waiting.len(), refused), (5, 4));
    for (id, _) in waiting {
        fixture.feed(Input::Stored(id, Ok(Reply::Page(vec![(2, body(2))]))));
    }
    let conn = ConnectionId(20);
    fixture.feed(Input::Connected { conn, agent: agent(), extension: false });
    let resync = Resync { last_seen_seq: 3, since: None, epoch: None };
    let frame = ClientFrame::Resync(resync);
    let outputs = fixture.feed(Input::Frame { conn, frame, at: WALL });
    assert_eq!(reads(outputs).len(), 1, "what was answered makes room");
}

#[test]
fn more_events_than_may_wait_for_the_log_are_refused_and_not_stored() {
    let config = ServerConfig { publishes_max: 10, ..ServerConfig::default() };
    let mut fixture = Fixture::new(config);
    fixture.connect(true, 1, 0);
    let ids: Vec<_> = (1..=10).map(|n| fixture.publish(n)).collect();
    let publish = |fixture: &mut Fixture| {
        fixture.feed(Input::Publish {
            ticket: Ticket(11),
            principal: "p".to_owned(),
            agent: agent(),
            body: body(11),
            after: None,
            at: WALL,
        })
    };
    let outputs = publish(&mut fixture);
    assert!(
        matches!(outputs[..], [Output::Published { result: Err(PublishError::Overloaded), .. }]),
        "{outputs:?}"
    );
    fixture.stored(ids[0], 1);
    assert_eq!(commands(publish(&mut fixture)).len(), 1, "there is room again");
}

#[test]
fn a_replay_that_retention_has_passed_ends_with_a_gap_on_a_base_connection() {
    let config = ServerConfig {
        ring: gapless::recovery::RingLimits { count: 2, bytes: usize::MAX, age: None },
        ..ServerConfig::default()
    };
    let mut fixture = Fixture::new(config);
    fixture.connect(false, 1, 10);
    let read = commands(fixture.resync(1, None)).remove(0).0;
    for n in 11..=20 {
        let id = fixture.publish(n);
        fixture.stored(id, n);
    }
    let retain = commands(fixture.feed(Input::Retain { agent: agent(), oldest: 15 })).remove(0).0;
    let mut said = fixture.feed(Input::Stored(retain, Ok(Reply::Retained(15))));
    said.extend(fixture.feed(Input::Stored(read, Ok(Reply::Page(vec![])))));
    let told = frames(&said).into_iter().find_map(|frame| match frame {
        ServerFrame::ResyncAck(ack) => Some(ack.gap_detected),
        _ => None,
    });
    assert_eq!(told, Some(true), "{said:?}");
}

#[test]
fn an_event_for_which_there_is_no_number_is_refused() {
    let mut fixture = Fixture::new(ServerConfig::default());
    fixture.connect(true, 1, 0);
    let id = fixture.publish(1);
    let outputs = fixture.feed(Input::Stored(id, Ok(Reply::Appended(Appended::Exhausted))));
    let said = outputs.iter().find_map(|output| match output {
        Output::Published { result: Err(error), .. } => Some(error.clone()),
        _ => None,
    });
    assert_eq!(said, Some(PublishError::Exhausted));
}
