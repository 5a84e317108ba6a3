//! The client's core, input by input.

use gapless::Core;
use gapless::events::client::{
    Client, ClientConfig, DialFailure, HandlerOutcome, Input, Notice, Offer, Output, Position,
    StartAt,
};
use gapless::events::wire::{
    ClientFrame, Event, EventBody, Pong, Range, Resync, ResyncAck, ResyncBegin, ResyncVerdict,
    ServerFrame, Stream,
};
use gapless::events::{ConnectionId, StoreId};
use gapless::recovery::{Epoch, Instant, WallTime};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::value::RawValue;

const WALL: WallTime = WallTime::from_millis(1_767_225_600_000);

fn epoch(name: &str) -> Epoch {
    Epoch::parse(name).expect("valid")
}

fn event(sequence: u64) -> ServerFrame {
    named_event(sequence, &format!("id-{sequence}"))
}

fn named_event(sequence: u64, id: &str) -> ServerFrame {
    let payload = RawValue::from_string("{}".to_owned()).expect("JSON");
    let body = EventBody::new(Some(id), "note", &payload, 1024).expect("valid");
    ServerFrame::Event(Event::stamped(sequence, &body))
}

fn begin(verdict: ResyncVerdict, name: &str, from: u64, to: u64) -> ServerFrame {
    ServerFrame::ResyncBegin(ResyncBegin { epoch: epoch(name), verdict, from, to, lost: vec![] })
}

fn ack(current_seq: u64, gap_detected: bool) -> ServerFrame {
    ServerFrame::ResyncAck(ResyncAck {
        last_seen_seq: 0,
        current_seq,
        replayed: 0,
        gap_detected,
        epoch: None,
        verdict: None,
        lost: vec![],
    })
}

/// A client whose server, application and cursor store are played by the test.
struct Fixture {
    client: Client,
    now: u64,
    conn: ConnectionId,
    offers: Vec<Offer>,
    sent: Vec<ClientFrame>,
    notices: Vec<Notice>,
    saves: Vec<(StoreId, Position)>,
    dials: Vec<bool>,
    reads: Vec<bool>,
}

impl Fixture {
    fn start(config: ClientConfig, position: Option<Position>) -> Self {
        let client = Client::new(config, Box::new(ChaCha12Rng::seed_from_u64(1)));
        let mut fixture = Self {
            client,
            now: 0,
            conn: ConnectionId(0),
            offers: vec![],
            sent: vec![],
            notices: vec![],
            saves: vec![],
            dials: vec![],
            reads: vec![],
        };
        fixture.feed(Input::Start { position });
        fixture
    }

    fn feed(&mut self, input: Input) {
        self.client.handle(Instant::from_millis(self.now), input);
        while let Some(output) = self.client.poll() {
            match output {
                Output::Dial { conn, offer_extension } => {
                    self.conn = conn;
                    self.dials.push(offer_extension);
                }
                Output::Send { frame, .. } => self.sent.push(frame),
                Output::Close { .. } => {}
                Output::Read { on, .. } => self.reads.push(on),
                Output::Offer(offer) => self.offers.push(offer),
                Output::Store(id, position) => self.saves.push((id, position)),
                Output::Notify(notice) => self.notices.push(notice),
            }
        }
    }

    fn frame(&mut self, frame: ServerFrame) {
        self.feed(Input::Frame { conn: self.conn, frame, at: WALL });
    }

    /// Opens the connection, with all handlers done, and answers with the extension's first frame.
    fn open(&mut self, name: &str, head: u64) {
        self.open_base(true);
        self.frame(ServerFrame::Stream(Stream { epoch: epoch(name), oldest: 1, head }));
    }

    fn open_base(&mut self, extension: bool) {
        self.feed(Input::Opened { conn: self.conn, extension, at: WALL });
        self.feed(Input::OpenHandlersRan { conn: self.conn });
    }

    fn reconnect(&mut self) {
        self.feed(Input::Closed { conn: self.conn, code: None });
        self.now += 60_000;
        self.feed(Input::Timeout);
    }

    /// The cursor store and the handlers do their work until nothing is left.
    fn work(&mut self) -> Vec<u64> {
        let mut done = Vec::new();
        loop {
            if let Some((id, _)) = self.saves.pop() {
                self.feed(Input::Stored(id, Ok(())));
            } else if let Some(offer) = self.offers.pop() {
                done.extend(offer.event.sequence());
                let outcomes = vec![HandlerOutcome::Done; offer.handlers.len()];
                self.feed(Input::Handled { ticket: offer.ticket, outcomes });
            } else {
                return done;
            }
        }
    }

    fn last_resync(&self) -> Option<Resync> {
        self.sent.iter().rev().find_map(|frame| match frame {
            ClientFrame::Resync(resync) => Some(resync.clone()),
            _ => None,
        })
    }

    fn position(&self) -> Option<u64> {
        self.client.position().map(|position| position.sequence)
    }

    fn is_told_that_the_log_went_back(&self) -> bool {
        self.notices.iter().any(|notice| {
            matches!(notice, Notice::Gap { verdict, .. } if *verdict == ResyncVerdict::Ahead)
        })
    }

    fn finish(&mut self, offer: &Offer) {
        let outcomes = vec![HandlerOutcome::Done; offer.handlers.len()];
        self.feed(Input::Handled { ticket: offer.ticket, outcomes });
    }
}

fn at(name: &str, sequence: u64) -> Position {
    Position { epoch: Some(epoch(name)), sequence }
}

/// A client whose application handles event 10 of epoch `e1`, and that has just asked a server of
/// epoch `e2` for what follows 9.
fn asking_while_10_is_handled() -> (Fixture, Offer) {
    let mut fixture = live(ClientConfig::default(), 9);
    fixture.frame(event(10));
    let offer = fixture.offers.pop().expect("offered");
    fixture.reconnect();
    fixture.open("e2", 9);
    assert_eq!(fixture.last_resync().map(|resync| resync.last_seen_seq), Some(9));
    (fixture, offer)
}

/// A client that is live at `head` in the epoch `e1`.
fn live(config: ClientConfig, head: u64) -> Fixture {
    let mut fixture = Fixture::start(config, None);
    fixture.open("e1", head);
    fixture.work();
    fixture.frame(begin(ResyncVerdict::UpToDate, "e1", head + 1, head));
    fixture.frame(ack(head, false));
    fixture
}

#[test]
fn the_cursor_is_there_before_the_first_event_and_stored_before_it_is_offered() {
    let mut fixture = Fixture::start(ClientConfig::default(), None);
    fixture.open("e1", 7);
    assert_eq!(fixture.position(), Some(7));
    fixture.frame(begin(ResyncVerdict::Replay, "e1", 8, 8));
    fixture.frame(event(8));
    assert!(fixture.offers.is_empty(), "the cursor is not stored yet");
    assert_eq!(fixture.work(), [8]);
    assert_eq!(fixture.position(), Some(8));
}

#[test]
fn absent_and_zero_are_different_cursors() {
    let config = ClientConfig { start: StartAt::Beginning, ..ClientConfig::default() };
    let mut fixture = Fixture::start(config, None);
    fixture.open("e1", 7);
    assert_eq!(fixture.position(), Some(0));
    assert_eq!(fixture.last_resync().map(|resync| resync.last_seen_seq), Some(0));
}

#[test]
fn live_event_does_not_move_the_cursor_past_a_gap() {
    let mut fixture = live(ClientConfig::default(), 4);
    fixture.reconnect();
    fixture.open("e1", 8);
    // Before the verdict, and before the replay of 5 to 7.
    fixture.frame(event(8));
    fixture.work();
    fixture.reconnect();
    fixture.open("e1", 8);
    assert_eq!(fixture.last_resync().map(|resync| resync.last_seen_seq), Some(4));
}

#[test]
fn the_cursor_moves_when_the_handler_is_done() {
    let mut fixture = live(ClientConfig::default(), 0);
    fixture.frame(event(1));
    fixture.frame(event(2));
    assert_eq!(fixture.position(), Some(0), "received is not applied");
    fixture.reconnect();
    fixture.open("e1", 2);
    assert_eq!(fixture.last_resync().map(|resync| resync.last_seen_seq), Some(0));
}

#[test]
fn an_event_that_is_being_handled_is_not_offered_again() {
    let mut fixture = live(ClientConfig::default(), 0);
    fixture.frame(event(1));
    let first = fixture.offers.pop().expect("offered");
    fixture.reconnect();
    fixture.open("e1", 2);
    fixture.frame(begin(ResyncVerdict::Replay, "e1", 1, 2));
    fixture.frame(event(1));
    fixture.frame(event(2));
    assert!(fixture.offers.is_empty(), "the first is still with the handler");
    fixture.feed(Input::Handled { ticket: first.ticket, outcomes: vec![HandlerOutcome::Done] });
    assert_eq!(fixture.work(), [2]);
}

#[test]
fn a_completion_of_a_replaced_timeline_moves_nothing() {
    let mut fixture = live(ClientConfig::default(), 9);
    fixture.frame(event(10));
    let old = fixture.offers.pop().expect("offered");
    fixture.reconnect();
    fixture.open("e2", 6);
    fixture.frame(begin(ResyncVerdict::Ahead, "e2", 6, 6));
    fixture.feed(Input::Handled { ticket: old.ticket, outcomes: vec![HandlerOutcome::Done] });
    assert_eq!(fixture.position(), Some(5));
    fixture.frame(named_event(6, "other"));
    assert_eq!(fixture.work(), [6]);
    let stored = fixture.client.position().cloned();
    assert_eq!(stored, Some(Position { epoch: Some(epoch("e2")), sequence: 6 }));
}

#[test]
fn a_log_that_ends_below_what_is_being_handled_has_gone_back() {
    for finished_before_the_verdict in [false, true] {
        let (mut fixture, offer) = asking_while_10_is_handled();
        if finished_before_the_verdict {
            fixture.finish(&offer);
        }
        fixture.frame(begin(ResyncVerdict::UpToDate, "e2", 10, 9));
        fixture.frame(ack(9, false));
        fixture.finish(&offer);
        assert!(fixture.is_told_that_the_log_went_back());
        assert_eq!(fixture.client.position(), Some(&at("e2", 9)));
        fixture.frame(named_event(10, "new"));
        assert_eq!(fixture.work(), [10], "it is another event");
    }
}

#[test]
fn a_log_with_another_event_under_the_number_has_gone_back() {
    let (mut fixture, offer) = asking_while_10_is_handled();
    fixture.frame(begin(ResyncVerdict::Replay, "e2", 10, 11));
    fixture.finish(&offer);
    assert_eq!(fixture.client.position(), Some(&at("e1", 10)), "nothing shows yet whose 10 it is");
    fixture.frame(named_event(10, "new"));
    fixture.frame(event(11));
    fixture.frame(ack(11, false));
    assert!(fixture.is_told_that_the_log_went_back());
    assert_eq!(fixture.work(), [10, 11]);
    assert_eq!(fixture.client.position(), Some(&at("e2", 11)));
}

#[test]
fn a_log_that_brings_the_event_again_has_not_gone_back() {
    let (mut fixture, offer) = asking_while_10_is_handled();
    fixture.frame(begin(ResyncVerdict::Replay, "e2", 10, 11));
    fixture.frame(event(10));
    fixture.frame(event(11));
    fixture.finish(&offer);
    assert_eq!(fixture.work(), [11]);
    assert_eq!(fixture.client.position(), Some(&at("e2", 11)));
    assert!(!fixture.is_told_that_the_log_went_back());
}

#[test]
fn a_base_server_that_ends_below_what_is_being_handled_counts_anew() {
    let config = ClientConfig { extension: false, ..ClientConfig::default() };
    let mut fixture = Fixture::start(config, Some(Position { epoch: None, sequence: 9 }));
    fixture.open_base(false);
    fixture.frame(event(10));
    fixture.frame(ack(10, false));
    let offer = fixture.offers.pop().expect("offered");
    fixture.reconnect();
    fixture.open_base(false);
    fixture.frame(ack(9, false));
    fixture.finish(&offer);
    assert!(fixture.is_told_that_the_log_went_back());
    fixture.frame(named_event(10, "new"));
    assert_eq!(fixture.work(), [10], "it is another event");
}

#[test]
fn a_hole_is_asked_for_on_the_open_connection_and_declared_in_the_end() {
    let mut fixture = live(ClientConfig::default(), 0);
    for attempt in 1..=3 {
        fixture.sent.clear();
        fixture.frame(event(2));
        assert_eq!(fixture.last_resync().map(|resync| resync.last_seen_seq), Some(0), "{attempt}");
        fixture.frame(begin(ResyncVerdict::Replay, "e1", 1, 2));
    }
    fixture.sent.clear();
    fixture.frame(event(2));
    assert_eq!(fixture.last_resync(), None, "it has been asked for often enough");
    assert_eq!(fixture.work(), [2]);
    let declared = fixture.notices.iter().any(
        |notice| matches!(notice, Notice::Gap { lost, .. } if *lost == [Range { from: 1, to: 1 }]),
    );
    assert!(declared, "{:?}", fixture.notices);
}

#[test]
fn loss_at_the_tail_shows_in_the_next_pong() {
    let mut fixture = live(ClientConfig::default(), 0);
    fixture.sent.clear();
    fixture.frame(ServerFrame::Pong(Pong { sent: Some(1), head: Some(1) }));
    assert!(fixture.last_resync().is_some(), "1 was sent on this connection and is not here");
}

#[test]
fn a_head_beyond_is_acted_on_after_two_pongs_without_progress() {
    let mut fixture = live(ClientConfig::default(), 0);
    fixture.sent.clear();
    fixture.frame(ServerFrame::Pong(Pong { sent: Some(0), head: Some(1) }));
    assert_eq!(fixture.last_resync(), None, "it may be on its way");
    fixture.frame(ServerFrame::Pong(Pong { sent: Some(0), head: Some(2) }));
    assert!(fixture.last_resync().is_some());
}

#[test]
fn a_failing_handler_gets_the_event_again_and_is_passed_over_in_the_end() {
    let config = ClientConfig { handlers: 2, offers_max: 2, ..ClientConfig::default() };
    let mut fixture = live(config, 0);
    fixture.frame(event(1));
    let mut offered = Vec::new();
    while let Some(offer) = fixture.offers.pop() {
        offered.push(offer.handlers.to_vec());
        let outcome = match offer.handlers[..] {
            [0] => HandlerOutcome::Done,
            _ => HandlerOutcome::Failed("no".to_owned()),
        };
        fixture.feed(Input::Handled { ticket: offer.ticket, outcomes: vec![outcome] });
        fixture.now += 10_000;
        fixture.feed(Input::Timeout);
    }
    assert_eq!(offered, [vec![1], vec![1], vec![0]], "the owner of the cursor comes last");
    assert_eq!(fixture.position(), Some(1));
    let told = fixture
        .notices
        .iter()
        .any(|notice| matches!(notice, Notice::GaveUp { failures, .. } if failures[0].0 == 1));
    assert!(told);
}

#[test]
fn no_event_is_offered_while_a_cursor_is_being_stored() {
    let mut fixture = live(ClientConfig::default(), 0);
    fixture.frame(event(1));
    fixture.frame(event(2));
    let offer = fixture.offers.pop().expect("offered");
    fixture.feed(Input::Handled { ticket: offer.ticket, outcomes: vec![HandlerOutcome::Done] });
    assert!(fixture.offers.is_empty(), "the handler could store a newer one");
    let (id, position) = fixture.saves.pop().expect("stored");
    assert_eq!(position.sequence, 1);
    fixture.feed(Input::Stored(id, Err("no space".to_owned())));
    assert_eq!(fixture.offers.len(), 1, "a cursor that cannot be stored stops nothing");
}

#[test]
fn a_known_id_under_a_new_number_is_dropped_and_moves_the_cursor() {
    let mut fixture = live(ClientConfig::default(), 0);
    fixture.frame(named_event(1, "same"));
    assert_eq!(fixture.work(), [1]);
    fixture.frame(named_event(2, "same"));
    assert_eq!(fixture.work(), [0; 0]);
    assert_eq!(fixture.position(), Some(2));
}

#[test]
fn a_slow_application_stops_the_reading_and_nothing_else() {
    let config = ClientConfig { queue_events: 4, ..ClientConfig::default() };
    let mut fixture = live(config, 0);
    for sequence in 1..=6 {
        fixture.frame(event(sequence));
    }
    assert_eq!(fixture.reads, [false]);
    fixture.sent.clear();
    for _ in 0..10 {
        fixture.now += 30_000;
        fixture.feed(Input::Timeout);
        fixture.feed(Input::PingWritten { conn: fixture.conn });
    }
    let pings = fixture.sent.iter().filter(|frame| **frame == ClientFrame::Ping).count();
    assert_eq!(pings, 10, "its own pause is no reason to take the link for dead");
    assert_eq!(fixture.work(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(fixture.reads, [false, true]);
}

#[test]
fn a_server_without_the_extension_is_dialed_without_it() {
    let mut fixture = Fixture::start(ClientConfig::default(), None);
    let (conn, failure) = (fixture.conn, DialFailure::ExtensionRefused);
    fixture.feed(Input::DialFailed { conn, failure });
    assert_eq!(fixture.dials, [true, false], "at once, and remembered");
    fixture.open_base(false);
    fixture.reconnect();
    assert_eq!(fixture.dials, [true, false, false]);
}

#[test]
fn an_end_of_a_replay_that_comes_before_it_was_asked_for_is_no_answer() {
    let mut fixture = Fixture::start(ClientConfig::default(), Some(at("e1", 24)));
    fixture.open_base(true);
    fixture.frame(ack(23, false));
    assert_eq!(fixture.last_resync().map(|resync| resync.last_seen_seq), Some(24));
    assert!(!fixture.is_told_that_the_log_went_back());
    assert_eq!(fixture.position(), Some(24));
    fixture.frame(ack(24, false));
    fixture.work();
    assert!(matches!(fixture.notices.last(), Some(Notice::Resynced { .. })));
}

#[test]
fn a_server_that_only_echoes_the_offer_is_a_base_server() {
    let mut fixture = Fixture::start(ClientConfig::default(), None);
    fixture.open_base(true);
    fixture.frame(event(5));
    assert_eq!(fixture.work(), [5]);
    assert_eq!(fixture.position(), Some(5));
}

#[test]
fn a_base_server_that_counts_anew_is_noticed_and_followed() {
    let position = Position { epoch: None, sequence: 42 };
    let config = ClientConfig { extension: false, ..ClientConfig::default() };
    let mut fixture = Fixture::start(config, Some(position));
    fixture.open_base(false);
    assert!(fixture.last_resync().expect("asked").since.is_some());
    fixture.frame(named_event(1, "a"));
    fixture.frame(named_event(2, "b"));
    fixture.frame(ack(2, false));
    assert_eq!(fixture.work(), [1, 2]);
    assert_eq!(fixture.position(), Some(2));
    assert!(fixture.is_told_that_the_log_went_back(), "{:?}", fixture.notices);
}

#[test]
fn frames_of_a_base_server_are_sorted_out_at_the_end_of_its_replay() {
    let position = Position { epoch: None, sequence: 4 };
    let config = ClientConfig { extension: false, ..ClientConfig::default() };
    let mut fixture = Fixture::start(config, Some(position));
    fixture.open_base(false);
    // Live before the replay, and one of them twice.
    for sequence in [8, 5, 6, 6, 7] {
        fixture.frame(event(sequence));
    }
    assert!(fixture.offers.is_empty(), "held until the end of the replay");
    fixture.frame(ack(7, false));
    assert_eq!(fixture.work(), [5, 6, 7, 8]);
}

#[test]
fn the_pause_before_reconnecting_grows_and_shrinks_again_once_live() {
    let config = ClientConfig::default();
    let mut fixture = live(config, 0);
    let mut pauses = Vec::new();
    for _ in 0..40 {
        fixture.feed(Input::Closed { conn: fixture.conn, code: None });
        let Some(Notice::Disconnected { retry_in, .. }) = fixture.notices.pop() else {
            panic!("it says when it tries again")
        };
        pauses.push(retry_in.as_millis());
        fixture.now += 60_000;
        fixture.feed(Input::Timeout);
    }
    assert!(pauses[0] <= 1_500 && pauses[39] >= 15_000, "{pauses:?}");
    assert_eq!(fixture.dials.len(), 41, "it never stops");
    fixture.open("e1", 0);
    fixture.frame(begin(ResyncVerdict::UpToDate, "e1", 1, 0));
    fixture.frame(ack(0, false));
    fixture.feed(Input::Closed { conn: fixture.conn, code: None });
    let again = fixture.notices.iter().rev().find_map(|notice| match notice {
        Notice::Disconnected { retry_in, .. } => Some(retry_in.as_millis()),
        _ => None,
    });
    assert!(again.is_some_and(|pause| pause <= 1_500), "{again:?}");
}

#[test]
fn a_busy_stream_does_not_hide_that_the_verdict_was_lost() {
    let mut fixture = live(ClientConfig::default(), 4);
    fixture.reconnect();
    fixture.open("e1", 8);
    for sequence in 9..40 {
        fixture.now += 1_000;
        fixture.feed(Input::Timeout);
        fixture.frame(event(sequence));
    }
    let gave_up = fixture.notices.iter().any(
        |notice| matches!(notice, Notice::Disconnected { reason, .. } if reason.contains("resync")),
    );
    assert!(gave_up, "{:?}", fixture.notices);
}

#[test]
fn what_a_replaced_connection_still_says_changes_nothing() {
    let mut fixture = live(ClientConfig::default(), 0);
    let old = fixture.conn;
    fixture.reconnect();
    fixture.feed(Input::Frame { conn: old, frame: event(1), at: WALL });
    fixture.feed(Input::Closed { conn: old, code: None });
    assert!(fixture.offers.is_empty());
    fixture.open("e1", 0);
    assert_eq!(fixture.dials.len(), 2, "the late close did not cut the new connection");
}

#[test]
fn a_server_that_is_slow_to_begin_is_not_taken_for_a_base_server() {
    let mut fixture = live(ClientConfig::default(), 4);
    for _ in 0..5 {
        fixture.reconnect();
        fixture.open_base(true);
        fixture.sent.clear();
        fixture.now += 5_000;
        fixture.feed(Input::Timeout);
        assert_eq!(fixture.last_resync(), None, "a cursor without an epoch would prove nothing");
    }
    fixture.reconnect();
    fixture.open("e1", 4);
    let resync = fixture.last_resync().expect("asked");
    assert_eq!((resync.last_seen_seq, resync.epoch), (4, Some(epoch("e1"))));
}

#[test]
fn a_server_that_has_forgotten_the_extension_is_a_base_server_in_the_end() {
    let mut fixture = live(ClientConfig::default(), 4);
    for _ in 0..6 {
        fixture.reconnect();
        fixture.open_base(true);
        fixture.sent.clear();
        fixture.now += 5_000;
        fixture.feed(Input::Timeout);
    }
    assert_eq!(fixture.last_resync().map(|resync| resync.epoch), Some(None));
}

#[test]
fn the_extension_that_comes_late_gets_another_connection() {
    let mut fixture = Fixture::start(ClientConfig::default(), None);
    fixture.open_base(true);
    fixture.now += 5_000;
    fixture.feed(Input::Timeout);
    fixture.frame(ServerFrame::Stream(Stream { epoch: epoch("e1"), oldest: 1, head: 7 }));
    let told = fixture.notices.iter().any(|notice| matches!(notice, Notice::Disconnected { .. }));
    assert!(told, "{:?}", fixture.notices);
}

#[test]
fn a_hole_that_the_declared_gap_does_not_explain_is_asked_for() {
    let position = Position { epoch: None, sequence: 4 };
    let config = ClientConfig { extension: false, ..ClientConfig::default() };
    let mut fixture = Fixture::start(config, Some(position));
    fixture.open_base(false);
    fixture.sent.clear();
    // 5 to 7 were removed by retention, which the server says; 9 got lost on the way.
    for sequence in [8, 10] {
        fixture.frame(event(sequence));
    }
    fixture.frame(ack(10, true));
    assert_eq!(fixture.last_resync().map(|resync| resync.last_seen_seq), Some(4));
    for sequence in [8, 9, 10] {
        fixture.frame(event(sequence));
    }
    fixture.frame(ack(10, true));
    assert_eq!(fixture.work(), [8, 9, 10]);
    let gaps: Vec<_> = fixture
        .notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::Gap { lost, .. } => Some(lost.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(gaps, [vec![Range { from: 5, to: 7 }]]);
}

#[test]
fn an_open_handler_that_does_not_end_delays_the_resync_by_its_limit_and_no_longer() {
    let config = ClientConfig::default();
    let limit = u64::try_from(config.open_handlers_max.as_millis()).expect("short");
    let mut fixture = Fixture::start(config, Some(at("e1", 4)));
    fixture.feed(Input::Opened { conn: fixture.conn, extension: true, at: WALL });
    fixture.frame(ServerFrame::Stream(Stream { epoch: epoch("e1"), oldest: 1, head: 7 }));
    fixture.now += limit - 1;
    fixture.feed(Input::Timeout);
    assert_eq!(fixture.last_resync(), None, "the handler still has time");
    fixture.now += 1;
    fixture.feed(Input::Timeout);
    assert_eq!(fixture.last_resync().map(|resync| resync.last_seen_seq), Some(4));
}

#[test]
fn what_is_held_of_a_base_server_is_bounded_by_number_and_by_bytes() {
    for (held_events, held_bytes) in [(4, usize::MAX), (usize::MAX, 1)] {
        let position = Position { epoch: None, sequence: 4 };
        let config =
            ClientConfig { extension: false, held_events, held_bytes, ..ClientConfig::default() };
        let mut fixture = Fixture::start(config, Some(position));
        fixture.open_base(false);
        for sequence in [8, 5, 6, 7] {
            fixture.frame(event(sequence));
        }
        let told = fixture.notices.iter().any(|notice| matches!(notice, Notice::Gap { .. }));
        assert!(told, "something may be missing among what could not be held");
        assert_eq!(fixture.work().last(), Some(&8), "nothing waits for the end of the replay");
    }
}
