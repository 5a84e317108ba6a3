//! The client's core of the session protocol, input by input.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gapless::Core;
use gapless::Ticket;
use gapless::recovery::{BackoffConfig, Epoch, Instant};
use gapless::session::client::{
    Client, ClientConfig, Input, Output, Resume, Submission, SubmitError,
};
use gapless::session::conversation::{Input as UserInput, Kind, Role, What};
use gapless::session::in_flight::Command;
use gapless::session::view::{Connection, View};
use gapless::session::wire::{
    Assistant, Attachment, Begin, Body, ClientFrame, CursorVerdict, FrameError, History,
    HistoryMessage, InputRejection, Notice, Question, ServerFrame, Status,
};
use gapless::session::{CloseCode, ConnectionId, DialFailure, Name, StoreId};
use gapless::storage::StoreError;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::value::RawValue;

// ---- frames ----------------------------------------------------------------------------------

fn epoch(name: &str) -> Epoch {
    Epoch::parse(name).expect("valid")
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("valid")
}

fn said(position: u64, text: &str) -> Body {
    Body::Assistant(Assistant {
        text: text.to_owned(),
        model: String::new(),
        usage: None,
        position: Some(position),
        kind: None,
    })
}

/// What a base server says.
fn base_said(text: &str) -> Body {
    Body::Assistant(Assistant {
        text: text.to_owned(),
        model: String::new(),
        usage: None,
        position: None,
        kind: None,
    })
}

fn question(id: &str, text: &str) -> Question {
    Question { id: Some(name(id)), text: text.to_owned(), source: String::new() }
}

fn asked(position: u64, id: &str) -> Body {
    Body::Question { question: question(id, "go on?"), position: Some(position) }
}

fn base_asked(text: &str) -> Body {
    Body::Question { question: Question { id: None, ..question("x", text) }, position: None }
}

fn row(position: u64, role: Role, text: &str) -> HistoryMessage {
    HistoryMessage {
        role,
        text: text.to_owned(),
        position: Some(position),
        kind: Some(Kind::Message),
        input: None,
        question: None,
        attachments: vec![],
    }
}

fn base_row(role: Role, text: &str) -> HistoryMessage {
    HistoryMessage { position: None, kind: None, ..row(1, role, text) }
}

fn history(name: &str, messages: Vec<HistoryMessage>) -> History {
    History { epoch: Some(epoch(name)), messages, ..History::default() }
}

fn base_history(messages: Vec<HistoryMessage>) -> Body {
    Body::History(Arc::new(History { messages, ..History::default() }))
}

fn notice(kind: &str) -> Body {
    let fields = RawValue::from_string("{}".to_owned()).expect("JSON");
    Body::Notice(Notice { kind: kind.to_owned(), fields })
}

fn message(id: &str, text: &str) -> UserInput {
    let what = What::Message { attachments: vec![], after: None };
    UserInput { id: name(id), what, text: text.to_owned() }
}

fn base_config() -> ClientConfig {
    ClientConfig { extension: false, ..ClientConfig::default() }
}

// ---- a client whose server and store are played by the test -------------------------------------

struct Fixture {
    client: Client,
    now: u64,
    conn: ConnectionId,
    dials: Vec<(bool, Resume)>,
    sent: Vec<ClientFrame>,
    closed: Vec<CloseCode>,
    stores: VecDeque<(StoreId, Command)>,
    submitted: Vec<Result<Name, SubmitError>>,
    shows: usize,
}

impl Fixture {
    fn start(config: ClientConfig, in_flight: Vec<UserInput>) -> Self {
        let client = Client::new(config, Box::new(ChaCha12Rng::seed_from_u64(1)));
        let mut fixture = Self {
            client,
            now: 0,
            conn: ConnectionId(0),
            dials: vec![],
            sent: vec![],
            closed: vec![],
            stores: VecDeque::new(),
            submitted: vec![],
            shows: 0,
        };
        fixture.feed(Input::Start { in_flight });
        fixture
    }

    /// A client that is live at number 1 of the epoch `e1`, with one row.
    fn live() -> Self {
        let mut fixture = Self::start(ClientConfig::default(), vec![]);
        fixture.open_with_history("e1", 1, vec![row(1, Role::Assistant, "welcome")]);
        assert_eq!(fixture.view().connection, Connection::Live);
        fixture
    }

    /// A client that is live at number 1 of a base server, with one row.
    fn base_live() -> Self {
        let mut fixture = Self::start(base_config(), vec![]);
        fixture.open_base();
        fixture.frame(1, base_history(vec![base_row(Role::Assistant, "welcome")]));
        fixture.wait(1_000);
        assert_eq!(fixture.view().connection, Connection::Live);
        fixture
    }

    fn feed(&mut self, input: Input) {
        self.client.handle(Instant::from_millis(self.now), input);
        let outputs = std::iter::from_fn(|| self.client.poll()).collect::<Vec<_>>();
        for (at, output) in outputs.into_iter().enumerate() {
            match output {
                Output::Dial { conn, offer_extension, resume } => {
                    self.conn = conn;
                    self.dials.push((offer_extension, resume));
                }
                Output::Send { conn, frame } => {
                    assert_eq!(conn, self.conn);
                    self.sent.push(frame);
                }
                Output::Close { code, .. } => self.closed.push(code),
                Output::Store(id, command) => self.stores.push_back((id, command)),
                Output::Submitted { result, .. } => self.submitted.push(result),
                Output::Show(_) => {
                    assert_eq!(at, 0, "what is to be shown comes first, and once");
                    self.shows += 1;
                }
            }
        }
    }

    fn frame(&mut self, seq: u64, body: Body) {
        self.feed(Input::Frame { conn: self.conn, frame: ServerFrame { seq, body } });
    }

    fn open(&mut self, extension: bool) {
        self.feed(Input::Opened { conn: self.conn, extension });
    }

    fn open_base(&mut self) {
        self.open(false);
    }

    fn begin(&mut self, verdict: CursorVerdict, name: &str, from: u64, to: u64) {
        self.frame(0, Body::Begin(Begin { epoch: epoch(name), verdict, from, to }));
    }

    fn open_with_history(&mut self, name: &str, seq: u64, messages: Vec<HistoryMessage>) {
        self.open(true);
        self.begin(CursorVerdict::Unknown, name, seq, seq);
        self.frame(seq, Body::History(Arc::new(history(name, messages))));
    }

    /// Opens with nothing missed after this number.
    fn open_up_to_date(&mut self, name: &str, seq: u64) {
        self.open(true);
        self.begin(CursorVerdict::UpToDate, name, seq + 1, seq);
    }

    /// Lets time pass, and everything happen that is due.
    fn wait(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(due) = self.client.deadline().map(Instant::as_millis)
            && due <= end
        {
            self.now = self.now.max(due);
            self.feed(Input::Timeout);
        }
        self.now = end;
    }

    fn cut(&mut self) {
        self.feed(Input::Closed { conn: self.conn, code: None });
    }

    /// Loses the connection and dials the next one.
    fn redial(&mut self) {
        self.cut();
        self.feed(Input::Reconnect);
        self.sent.clear();
    }

    fn submit(&mut self, what: Submission) -> Result<Name, SubmitError> {
        self.feed(Input::Submit { ticket: Ticket(1), what });
        self.submitted.pop().expect("it is answered at once")
    }

    /// Has a message said, and stored.
    fn say(&mut self, text: &str) -> Name {
        let what = Submission::Message { text: text.to_owned(), attachments: vec![] };
        let id = self.submit(what).expect("it is taken");
        self.store_all();
        id
    }

    fn answer(&mut self, text: &str) -> Result<Name, SubmitError> {
        let result = self.submit(Submission::Answer { text: text.to_owned() });
        self.store_all();
        result
    }

    fn store_all(&mut self) -> Vec<Command> {
        let mut done = Vec::new();
        while let Some((id, command)) = self.stores.pop_front() {
            done.push(command);
            self.feed(Input::Stored(id, Ok(())));
        }
        done
    }

    fn view(&self) -> &View {
        self.client.view()
    }

    fn texts(&self) -> Vec<&str> {
        self.view().messages.iter().map(|row| row.text.as_str()).collect()
    }

    fn pending(&self) -> Vec<&str> {
        self.view().pending.iter().map(|pending| pending.input.text.as_str()).collect()
    }

    fn rejected(&self) -> Vec<(&str, InputRejection)> {
        let rejected = self.view().rejected.iter();
        rejected.map(|rejected| (rejected.input.text.as_str(), rejected.reason)).collect()
    }

    /// The texts of the inputs that were sent, in order.
    fn said(&self) -> Vec<&str> {
        let sent = self.sent.iter();
        sent.filter_map(|frame| match frame {
            ClientFrame::UserMessage { text, .. } | ClientFrame::UserAnswer { text, .. } => {
                Some(text.as_str())
            }
            ClientFrame::Ack { .. } | ClientFrame::Pong => None,
        })
        .collect()
    }

    fn acks(&self) -> Vec<u64> {
        let seq = |frame: &ClientFrame| match frame {
            ClientFrame::Ack { seq, .. } => Some(*seq),
            _ => None,
        };
        self.sent.iter().filter_map(seq).collect()
    }

    fn since(&self) -> (u64, Option<&str>) {
        let (_, resume) = self.dials.last().expect("it has dialled");
        (resume.since, resume.epoch.as_ref().map(Epoch::as_str))
    }
}

// ---- SE-1, SE-2, SE-10: verdicts and histories --------------------------------------------------

#[test]
fn a_view_that_begins_anew_connects_with_since_0() {
    let fixture = Fixture::start(ClientConfig::default(), vec![message("m", "hello")]);
    let (offered, resume) = &fixture.dials[0];
    assert!(offered);
    assert_eq!((resume.since, &resume.epoch, resume.attempt), (0, &None, 1));
    assert_eq!(resume.view.len(), 32);
    assert_eq!(fixture.pending(), ["hello"]);
    assert!(fixture.view().pending[0].kept && !fixture.view().loaded);
}

#[test]
fn a_view_that_lives_on_connects_with_its_cursor() {
    let mut fixture = Fixture::live();
    fixture.frame(2, said(2, "hi"));
    fixture.redial();
    assert_eq!(fixture.since(), (2, Some("e1")));
    let [(_, first), (_, second)] = &fixture.dials[..] else { panic!("two attempts") };
    assert_eq!((&second.view, second.attempt), (&first.view, 2));
}

#[test]
fn after_a_history_the_cursor_is_its_epoch_and_number() {
    for (verdict, seq) in [
        (CursorVerdict::TooOld, 700),
        (CursorVerdict::OtherEpoch, 1),
        (CursorVerdict::Ahead, 1),
        (CursorVerdict::Unknown, 5),
    ] {
        let mut fixture = Fixture::live();
        fixture.frame(2, said(2, "hi"));
        fixture.redial();
        fixture.open(true);
        fixture.begin(verdict, "e2", seq, seq);
        assert_eq!(fixture.view().connection, Connection::CatchingUp);
        fixture.frame(seq, Body::History(Arc::new(history("e2", vec![]))));
        assert_eq!(fixture.view().connection, Connection::Live, "{verdict:?}");
        fixture.frame(seq + 1, said(9, "on"));
        fixture.redial();
        assert_eq!(fixture.since(), (seq + 1, Some("e2")), "{verdict:?}");
    }
}

#[test]
fn a_history_replaces_what_is_shown_except_what_is_in_flight() {
    let mut fixture = Fixture::live();
    fixture.frame(2, asked(2, "q1"));
    fixture.frame(0, notice("tool_calling"));
    let known = fixture.say("known");
    fixture.say("lost");
    fixture.redial();
    let accepted = HistoryMessage { input: Some(known.clone()), ..row(3, Role::User, "known") };
    fixture.open(true);
    fixture.begin(CursorVerdict::OtherEpoch, "e2", 1, 1);
    let history = History {
        truncated: true,
        status: Some(Status::Thinking),
        ..history("e2", vec![accepted, row(4, Role::Assistant, "anew")])
    };
    fixture.frame(1, Body::History(Arc::new(history)));
    assert_eq!(fixture.texts(), ["known", "anew"]);
    assert_eq!(fixture.pending(), ["lost"]);
    assert_eq!(fixture.said(), ["lost"], "what is shown as a row is accepted");
    assert_eq!(fixture.store_all(), [Command::Drop(known)]);
    let view = fixture.view();
    assert!(view.loaded && view.truncated);
    assert_eq!(
        (view.status, &view.open_question, &view.progress),
        (Status::Thinking, &None, &None)
    );
}

#[test]
fn a_replay_under_another_epoch_is_no_replay() {
    for verdict in [CursorVerdict::UpToDate, CursorVerdict::Replay] {
        let mut fixture = Fixture::live();
        fixture.redial();
        fixture.open(true);
        fixture.begin(verdict, "e2", 2, 4);
        assert_eq!(fixture.closed, [CloseCode::PROTOCOL]);
        fixture.feed(Input::Reconnect);
        assert_eq!(fixture.since(), (0, None));
    }
}

#[test]
fn a_replay_is_over_when_its_last_number_is_applied() {
    let mut fixture = Fixture::live();
    fixture.redial();
    fixture.say("mine");
    fixture.open(true);
    fixture.begin(CursorVerdict::Replay, "e1", 2, 3);
    fixture.frame(2, said(2, "two"));
    assert_eq!(fixture.view().connection, Connection::CatchingUp);
    assert_eq!(fixture.said(), [""; 0]);
    fixture.frame(3, said(3, "three"));
    assert_eq!(fixture.view().connection, Connection::Live);
    assert_eq!(fixture.said(), ["mine"]);
    assert_eq!(fixture.texts(), ["welcome", "two", "three"]);
}

#[test]
fn what_has_to_come_has_its_time() {
    // The first frame.
    let mut fixture = Fixture::start(ClientConfig::default(), vec![]);
    fixture.open(true);
    fixture.wait(10_000);
    assert_eq!(fixture.closed, [CloseCode::SILENT]);
    // The history, though the server shows other signs of life.
    let mut fixture = Fixture::start(ClientConfig::default(), vec![]);
    fixture.open(true);
    fixture.begin(CursorVerdict::Unknown, "e1", 1, 1);
    for _ in 0..7 {
        fixture.frame(0, Body::Ping { sent: Some(0) });
        fixture.wait(10_000);
    }
    assert_eq!(fixture.closed, [CloseCode::RESUME]);
    // The connection.
    let mut fixture = Fixture::start(ClientConfig::default(), vec![]);
    fixture.wait(10_000);
    assert_eq!(fixture.closed, [CloseCode::NORMAL]);
    assert!(matches!(fixture.view().connection, Connection::Waiting { .. }));
}

// ---- SE-4: order ---------------------------------------------------------------------------------

#[test]
fn a_frame_is_applied_once() {
    let mut fixture = Fixture::live();
    fixture.frame(2, said(2, "hi"));
    let shows = fixture.shows;
    fixture.frame(2, said(3, "hi"));
    fixture.frame(1, said(4, "hi"));
    let old = history("e1", vec![row(1, Role::Assistant, "old")]);
    fixture.frame(2, Body::History(Arc::new(old)));
    assert_eq!(fixture.texts(), ["welcome", "hi"]);
    assert_eq!(fixture.shows, shows, "nothing has changed");
    assert_eq!(fixture.closed, []);
}

#[test]
fn a_history_above_the_cursor_is_applied_whatever_lies_between() {
    let mut fixture = Fixture::live();
    let later = history("e1", vec![row(7, Role::Assistant, "later")]);
    fixture.frame(40, Body::History(Arc::new(later)));
    fixture.frame(41, said(8, "next"));
    assert_eq!(fixture.texts(), ["later", "next"]);
}

#[test]
fn a_live_frame_does_not_move_the_cursor_past_a_hole() {
    let mut fixture = Fixture::live();
    fixture.frame(3, said(3, "three"));
    assert_eq!(fixture.closed, [CloseCode::RESUME]);
    assert_eq!(fixture.texts(), ["welcome"]);
    fixture.frame(2, said(2, "of a connection that is gone"));
    fixture.wait(2_000);
    assert_eq!(fixture.since(), (1, Some("e1")));
    fixture.open(true);
    fixture.begin(CursorVerdict::Replay, "e1", 2, 3);
    fixture.frame(2, said(2, "two"));
    fixture.frame(3, said(3, "three"));
    assert_eq!(fixture.texts(), ["welcome", "two", "three"]);
}

#[test]
fn nothing_is_taken_before_the_history_that_is_due() {
    let mut fixture = Fixture::start(ClientConfig::default(), vec![]);
    fixture.open(true);
    fixture.begin(CursorVerdict::Unknown, "e1", 1, 1);
    fixture.frame(1, said(1, "live"));
    assert_eq!(fixture.closed, [CloseCode::RESUME]);
    assert_eq!(fixture.texts(), [""; 0]);
}

#[test]
fn a_ping_shows_what_is_missing_at_the_end() {
    let mut fixture = Fixture::live();
    fixture.frame(0, Body::Ping { sent: Some(1) });
    assert_eq!((fixture.closed.len(), &fixture.sent[..]), (0, &[ClientFrame::Pong][..]));
    fixture.frame(0, Body::Ping { sent: Some(2) });
    assert_eq!(fixture.closed, [CloseCode::RESUME]);
    fixture.wait(2_000);
    assert_eq!(fixture.since(), (1, Some("e1")));
}

#[test]
fn a_hole_that_stays_ends_with_a_history() {
    let mut fixture = Fixture::live();
    let mut pauses = Vec::new();
    for attempt in 1..=3 {
        fixture.frame(3, said(3, "three"));
        let lost_at = fixture.now;
        let dials = fixture.dials.len();
        while fixture.dials.len() == dials {
            fixture.wait(100);
        }
        pauses.push(fixture.now - lost_at);
        if attempt < 3 {
            assert_eq!(fixture.since(), (1, Some("e1")));
            fixture.open_up_to_date("e1", 1);
        }
    }
    assert_eq!(fixture.since(), (0, None), "what cannot be had is stepped over [CORE-8]");
    assert!(pauses[0] < pauses[1] && pauses[1] < pauses[2], "{pauses:?}");
    fixture.open_with_history("e1", 4, vec![row(3, Role::Assistant, "three")]);
    fixture.frame(5, said(5, "five"));
    assert_eq!(fixture.texts(), ["three", "five"]);
}

#[test]
fn the_number_of_a_frame_that_is_unknown_or_ephemeral_counts() {
    let mut fixture = Fixture::live();
    fixture.frame(2, Body::Unknown { kind: "later".to_owned() });
    fixture.frame(3, Body::Thinking);
    fixture.frame(4, notice("save_warning"));
    fixture.frame(5, Body::Ping { sent: None });
    fixture.frame(6, said(6, "six"));
    assert_eq!((fixture.texts(), fixture.closed.len()), (vec!["welcome", "six"], 0));
}

#[test]
fn a_frame_without_a_number_moves_nothing_and_what_must_have_one_is_ignored() {
    let mut fixture = Fixture::live();
    fixture.frame(0, Body::Status(Status::Thinking));
    fixture.frame(0, notice("agent_progress"));
    assert_eq!(fixture.view().status, Status::Thinking);
    assert!(fixture.view().progress.is_some());
    fixture.frame(0, said(2, "it will come again, with its number"));
    fixture.frame(0, Body::History(Arc::new(history("e9", vec![]))));
    assert_eq!(fixture.texts(), ["welcome"]);
    fixture.redial();
    assert_eq!(fixture.since(), (1, Some("e1")));
}

#[test]
fn a_second_verdict_and_a_malformed_frame_change_nothing() {
    let mut fixture = Fixture::live();
    let shows = fixture.shows;
    fixture.begin(CursorVerdict::Unknown, "e7", 1, 1);
    fixture.feed(Input::Malformed { conn: fixture.conn, error: FrameError::NoType });
    fixture.frame(2, said(2, "on"));
    assert_eq!((fixture.texts(), fixture.shows), (vec!["welcome", "on"], shows + 1));
}

// ---- SE-5: inputs ----------------------------------------------------------------------------------

#[test]
fn an_input_is_durable_before_it_is_sent() {
    let mut fixture = Fixture::live();
    let text = "hello".to_owned();
    let id = fixture.submit(Submission::Message { text, attachments: vec![] }).expect("taken");
    assert!(!fixture.view().pending[0].kept);
    assert_eq!(fixture.said(), [""; 0]);
    let stored = fixture.store_all();
    let [Command::Keep(input)] = &stored[..] else { panic!("{stored:?}") };
    assert_eq!(input.id, id);
    assert!(fixture.view().pending[0].kept);
    let text = "hello".to_owned();
    let frame =
        ClientFrame::UserMessage { id: Some(id), text, attachments: vec![], after: Some(1) };
    assert_eq!(fixture.sent, [frame]);
}

#[test]
fn a_store_that_fails_is_asked_again_and_holds_up_what_is_newer() {
    let mut fixture = Fixture::live();
    for text in ["first", "second"] {
        let text = text.to_owned();
        fixture.submit(Submission::Message { text, attachments: vec![] }).expect("taken");
    }
    for error in [StoreError::NotApplied("x".to_owned()), StoreError::Unknown("x".to_owned())] {
        let (id, command) = fixture.stores.pop_front().expect("asked");
        assert!(matches!(&command, Command::Keep(input) if input.text == "first"));
        assert!(fixture.stores.is_empty(), "one after the other");
        fixture.feed(Input::Stored(id, Err(error)));
        fixture.feed(Input::Stored(id, Ok(())));
        assert_eq!(fixture.said(), [""; 0]);
        fixture.wait(1_000);
    }
    let (id, _) = fixture.stores.pop_front().expect("asked");
    fixture.feed(Input::Stored(id, Ok(())));
    assert_eq!(fixture.said(), ["first"]);
    fixture.redial();
    fixture.open_up_to_date("e1", 1);
    assert_eq!(fixture.said(), ["first"], "the second is not stored yet");
    fixture.store_all();
    assert_eq!(fixture.said(), ["first", "second"]);
}

#[test]
fn what_is_in_flight_is_sent_again_on_every_connection_in_order() {
    let in_flight = vec![message("m1", "one"), message("m2", "two")];
    let mut fixture = Fixture::start(ClientConfig::default(), in_flight);
    fixture.say("three");
    fixture.open(true);
    fixture.begin(CursorVerdict::Unknown, "e1", 1, 1);
    assert_eq!(fixture.said(), [""; 0], "the history comes first");
    fixture.frame(1, Body::History(Arc::new(history("e1", vec![]))));
    assert_eq!(fixture.said(), ["one", "two", "three"]);
    fixture.frame(2, Body::MessageAck { id: name("m1"), position: Some(1) });
    fixture.redial();
    fixture.open_up_to_date("e1", 2);
    assert_eq!(fixture.said(), ["two", "three"]);
    let again = fixture.sent.iter().filter_map(|frame| match frame {
        ClientFrame::UserMessage { id, .. } => id.clone(),
        _ => None,
    });
    let pending = fixture.view().pending.iter().map(|pending| pending.input.id.clone());
    assert!(again.eq(pending), "the ids are the same");
}

#[test]
fn a_row_that_only_its_acknowledgement_tells_of_is_had_by_a_history() {
    let mut client = Fixture::live();
    client.frame(2, Body::MessageAck { id: name("of-a-copy"), position: Some(2) });
    assert_eq!(client.closed, [CloseCode::RESUME]);
    client.wait(5_000);
    let (_, resume) = client.dials.last().expect("dials");
    assert_eq!((resume.since, &resume.epoch), (0, &None));
    // One of a row that is shown changes nothing.
    let messages = vec![row(1, Role::Assistant, "welcome"), row(2, Role::User, "hello")];
    client.open_with_history("e1", 3, messages);
    client.frame(4, Body::MessageAck { id: name("of-a-copy"), position: Some(2) });
    client.frame(5, said(3, "so"));
    assert_eq!(client.texts(), ["welcome", "hello", "so"]);
}

#[test]
fn the_oldest_input_is_sent_again_when_there_is_no_verdict() {
    let mut fixture = Fixture::live();
    let one = fixture.say("one");
    fixture.wait(20_000);
    fixture.say("two");
    fixture.sent.clear();
    fixture.wait(10_000);
    assert_eq!(fixture.said(), ["one"]);
    fixture.frame(2, Body::MessageAck { id: one, position: Some(2) });
    fixture.sent.clear();
    fixture.wait(29_000);
    assert_eq!(fixture.said(), [""; 0]);
    fixture.wait(1_000);
    assert_eq!(fixture.said(), ["two"]);
}

#[test]
fn an_accepted_input_is_a_row_in_its_place_and_is_dropped() {
    let mut fixture = Fixture::live();
    let id = fixture.say("mine");
    fixture.frame(2, said(3, "later"));
    fixture.frame(3, Body::MessageAck { id: id.clone(), position: Some(2) });
    assert_eq!(fixture.texts(), ["welcome", "mine", "later"]);
    assert_eq!(fixture.view().messages[1].input.as_ref(), Some(&id));
    assert_eq!(fixture.pending(), [""; 0]);
    assert_eq!(fixture.store_all(), [Command::Drop(id.clone())]);
    fixture.frame(4, Body::MessageAck { id, position: Some(2) });
    assert_eq!(fixture.texts(), ["welcome", "mine", "later"]);
    assert_eq!(fixture.store_all(), []);
}

#[test]
fn a_row_that_is_older_than_what_is_shown_stays_out_of_sight() {
    let mut fixture =
        Fixture::start(ClientConfig::default(), vec![message("old", "accepted long ago")]);
    fixture.open(true);
    fixture.begin(CursorVerdict::Unknown, "e1", 1, 1);
    let newest = history("e1", vec![row(300, Role::Assistant, "new")]);
    fixture.frame(1, Body::History(Arc::new(History { truncated: true, ..newest })));
    fixture.frame(2, Body::MessageAck { id: name("old"), position: Some(7) });
    assert_eq!((fixture.texts(), fixture.pending().len()), (vec!["new"], 0));
}

#[test]
fn two_equal_texts_are_two_messages() {
    let mut fixture = Fixture::live();
    let first = fixture.say("yes");
    let second = fixture.say("yes");
    assert_ne!(first, second);
    fixture.frame(2, Body::MessageAck { id: second, position: Some(3) });
    assert_eq!(fixture.pending(), ["yes"]);
    fixture.frame(3, Body::MessageAck { id: first, position: Some(2) });
    assert_eq!(fixture.texts(), ["welcome", "yes", "yes"]);
}

#[test]
fn a_rejected_input_is_shown_as_rejected() {
    let mut fixture = Fixture::live();
    let queue_full = InputRejection::QueueFull { queue_cap: 10 };
    for (seq, reason) in (2..).zip([InputRejection::Conflict, InputRejection::Expired, queue_full])
    {
        let id = fixture.say("mine");
        fixture.frame(seq, Body::MessageRejected { id: Some(id.clone()), reason });
        assert_eq!(fixture.rejected().last(), Some(&("mine", reason)));
        assert_eq!(fixture.pending(), [""; 0]);
        assert_eq!(fixture.store_all(), [Command::Drop(id)]);
    }
    assert_eq!(fixture.texts(), ["welcome"]);
}

#[test]
fn an_answer_names_the_open_question_and_there_is_one() {
    let mut fixture = Fixture::live();
    assert_eq!(fixture.answer("to what?"), Err(SubmitError::NoQuestion));
    fixture.frame(2, asked(2, "q1"));
    assert_eq!(fixture.view().status, Status::Waiting);
    let id = fixture.answer("yes").expect("taken");
    let sent = ClientFrame::UserAnswer {
        id: Some(id.clone()),
        question: Some(name("q1")),
        text: "yes".to_owned(),
    };
    assert_eq!(fixture.sent, [sent]);
    assert_eq!(fixture.answer("no"), Err(SubmitError::NoQuestion), "it is answered already");
    assert!(fixture.view().open_question.is_some());
    fixture.frame(3, Body::AnswerAck { id, question: Some(name("q1")), position: 3 });
    assert_eq!(fixture.view().open_question, None);
    assert_eq!(fixture.texts(), ["welcome", "go on?", "yes"]);
    assert_eq!(fixture.view().messages[2].kind, Some(Kind::Answer));
}

#[test]
fn an_answer_that_comes_too_late_is_rejected() {
    let mut fixture = Fixture::live();
    fixture.frame(2, asked(2, "q1"));
    let id = fixture.answer("yes").expect("taken");
    let text = "the other tab was faster".to_owned();
    fixture.frame(3, Body::UserAnswer { position: 3, question: Some(name("q1")), text });
    assert_eq!(fixture.view().open_question, None);
    fixture.frame(4, asked(4, "q2"));
    let (question, reason) = (Some(name("q1")), InputRejection::NotOpen);
    fixture.frame(5, Body::AnswerRejected { id, question, reason });
    assert_eq!(fixture.rejected(), [("yes", InputRejection::NotOpen)]);
    let open = fixture.view().open_question.as_ref().and_then(|open| open.id.clone());
    assert_eq!(open, Some(name("q2")), "that is about another question");
}

#[test]
fn what_another_client_said_is_shown() {
    let mut fixture = Fixture::live();
    let text = "from the other tab".to_owned();
    let body = Body::UserMessage { position: 2, id: Some(name("m")), text, attachments: vec![] };
    fixture.frame(2, body);
    assert_eq!(fixture.texts(), ["welcome", "from the other tab"]);
    // What this client said in another life counts as accepted, too.
    let id = fixture.say("mine");
    let text = "mine".to_owned();
    let (position, attachments) = (3, vec![]);
    fixture.frame(3, Body::UserMessage { position, id: Some(id.clone()), text, attachments });
    assert_eq!(fixture.texts(), ["welcome", "from the other tab", "mine"]);
    assert_eq!((fixture.pending().len(), fixture.store_all()), (0, vec![Command::Drop(id)]));
}

#[test]
fn what_cannot_be_taken_is_refused_at_once() {
    let config = ClientConfig { in_flight_max: 2, text_bytes_max: 100, ..ClientConfig::default() };
    let mut fixture = Fixture::start(config, vec![]);
    let long = Submission::Message { text: "x".repeat(101), attachments: vec![] };
    let too_large = SubmitError::TooLarge { bytes: 101, bytes_max: 100 };
    assert_eq!(fixture.submit(long), Err(too_large));
    let attachment = Attachment {
        filename: "a".repeat(40),
        doc_id: String::new(),
        slug: String::new(),
        title: None,
    };
    let attached = Submission::Message { text: String::new(), attachments: vec![attachment] };
    assert!(matches!(fixture.submit(attached), Err(SubmitError::TooLarge { .. })));
    fixture.say("one");
    fixture.say("two");
    let text = "three".to_owned();
    let three = Submission::Message { text, attachments: vec![] };
    assert_eq!(fixture.submit(three.clone()), Err(SubmitError::TooManyInFlight));
    assert_eq!(fixture.stores.len(), 0);
    fixture.feed(Input::Stop);
    assert_eq!(fixture.submit(three), Err(SubmitError::Stopped));
    assert_eq!(fixture.pending(), ["one", "two"]);
}

#[test]
fn after_is_what_was_known_when_it_was_written() {
    let after = |fixture: &mut Fixture| {
        let what = Submission::Message { text: "x".to_owned(), attachments: vec![] };
        fixture.submit(what).expect("taken");
        let pending = fixture.view().pending.last().expect("pending");
        match &pending.input.what {
            What::Message { after, .. } => *after,
            What::Answer { .. } => panic!("a message"),
        }
    };
    let mut fixture = Fixture::start(ClientConfig::default(), vec![]);
    assert_eq!(after(&mut fixture), None, "nothing was ever loaded");
    fixture.open_with_history("e1", 1, vec![]);
    assert_eq!(after(&mut fixture), Some(0), "nothing was ever said");
    fixture.frame(2, said(7, "hi"));
    assert_eq!(after(&mut fixture), Some(7));
    assert_eq!(after(&mut Fixture::base_live()), None);
}

// ---- SE-5l, section 10: towards a base server ------------------------------------------------------

#[test]
fn towards_a_base_server_inputs_are_sent_after_the_grace() {
    let mut fixture = Fixture::base_live();
    fixture.redial();
    fixture.say("mine");
    fixture.open_base();
    fixture.wait(999);
    assert_eq!(fixture.said(), [""; 0]);
    fixture.wait(1);
    assert_eq!(fixture.said(), ["mine"]);
    assert_eq!(fixture.view().connection, Connection::Live);
    let ClientFrame::UserMessage { after, .. } = &fixture.sent[0] else { panic!("a message") };
    assert_eq!(*after, None);
}

#[test]
fn a_base_history_is_awaited_and_then_the_question_that_follows_it() {
    let mut fixture = Fixture::start(base_config(), vec![message("m", "mine")]);
    fixture.open_base();
    fixture.wait(3_000);
    assert_eq!(fixture.said(), [""; 0]);
    let rows = vec![base_row(Role::Assistant, "go on?"), base_row(Role::User, "waits")];
    fixture.frame(4, base_history(rows));
    fixture.frame(5, base_asked("go on?"));
    assert_eq!(fixture.texts(), ["go on?", "waits"], "the history has the question");
    assert!(fixture.view().open_question.is_some());
    fixture.wait(1_000);
    assert_eq!(fixture.said(), ["mine"]);
    fixture.frame(6, base_asked("go on?"));
    assert_eq!(fixture.texts(), ["go on?", "waits", "go on?"], "it is asked once more");
}

#[test]
fn a_base_server_that_restarted_is_told_by_its_history() {
    let mut fixture = Fixture::base_live();
    for seq in 2..=250 {
        fixture.frame(seq, base_said("x"));
    }
    fixture.redial();
    assert_eq!(fixture.since(), (250, None));
    fixture.open_base();
    fixture.frame(1, base_history(vec![base_row(Role::Assistant, "anew")]));
    fixture.frame(2, base_said("on"));
    fixture.frame(1, base_history(vec![]));
    assert_eq!(fixture.texts(), ["anew", "on"], "only the first one can be a restart");
    fixture.wait(5_000);
    assert_eq!(fixture.acks(), [2], "no number of the old server is acknowledged");
}

#[test]
fn an_answer_is_not_sent_again_once_a_base_server_has_gone_on() {
    for next in [base_said("done"), base_asked("and now?"), base_asked("go on?")] {
        let mut fixture = Fixture::base_live();
        fixture.frame(2, base_asked("go on?"));
        let id = fixture.answer("yes").expect("taken");
        let text = "yes".to_owned();
        assert_eq!(fixture.sent, [ClientFrame::UserAnswer { id: None, question: None, text }]);
        fixture.wait(29_000);
        assert_eq!(fixture.said(), ["yes"], "the link does not lose it");
        let is_question = matches!(next, Body::Question { .. });
        fixture.frame(3, next);
        assert_eq!(fixture.texts()[2], "yes", "as far as anybody will ever know it is accepted");
        assert_eq!(fixture.store_all(), [Command::Drop(id)]);
        assert_eq!(fixture.view().open_question.is_some(), is_question);
        fixture.sent.clear();
        fixture.redial();
        fixture.open_base();
        fixture.wait(31_000);
        fixture.frame(0, Body::Ping { sent: None });
        assert_eq!(fixture.said(), [""; 0]);
    }
}

#[test]
fn an_answer_is_sent_again_while_its_question_is_open() {
    // Nothing was missed.
    let mut fixture = Fixture::base_live();
    fixture.frame(2, base_asked("go on?"));
    fixture.answer("yes").expect("taken");
    fixture.redial();
    fixture.open_base();
    fixture.wait(10_000);
    assert_eq!(fixture.said(), [""; 0], "what was missed may still be on its way");
    fixture.frame(0, Body::Ping { sent: None });
    fixture.frame(0, Body::Ping { sent: None });
    assert_eq!(fixture.said(), ["yes"]);
    // The server has lost its numbers; it asks still.
    fixture.redial();
    fixture.open_base();
    fixture.frame(1, base_history(vec![base_row(Role::Assistant, "go on?")]));
    fixture.frame(2, base_asked("go on?"));
    fixture.wait(1_000);
    fixture.frame(0, Body::Ping { sent: None });
    assert_eq!((fixture.said(), fixture.texts()), (vec!["yes"], vec!["go on?"]));
    // It does not ask any more, and its history has the answer.
    fixture.redial();
    fixture.open_base();
    let rows = vec![base_row(Role::Assistant, "go on?"), base_row(Role::User, "yes")];
    fixture.frame(1, base_history(rows));
    assert_eq!(fixture.pending(), ["yes"]);
    fixture.wait(1_000);
    assert_eq!((fixture.said(), fixture.texts()), (vec![], vec!["go on?", "yes"]));
    assert_eq!(fixture.pending(), [""; 0]);
}

#[test]
fn a_base_answer_of_which_nothing_comes_is_sent_again_on_another_connection() {
    let mut fixture = Fixture::base_live();
    fixture.frame(2, base_asked("go on?"));
    fixture.answer("yes").expect("taken");
    fixture.wait(29_000);
    fixture.frame(0, Body::Ping { sent: None });
    fixture.wait(1_000);
    assert_eq!(fixture.closed, [CloseCode::RESUME]);
    fixture.sent.clear();
    fixture.feed(Input::Reconnect);
    fixture.open_base();
    fixture.wait(1_000);
    assert_eq!(fixture.said(), [""; 0]);
    fixture.frame(0, Body::Ping { sent: None });
    assert_eq!(fixture.said(), ["yes"]);
}

#[test]
fn an_answer_that_begins_a_turn_is_not_sent_in_the_middle_of_it() {
    let mut fixture = Fixture::base_live();
    fixture.frame(2, base_asked("go on?"));
    fixture.answer("yes").expect("taken");
    fixture.frame(0, Body::Thinking);
    fixture.wait(29_000);
    fixture.frame(0, Body::Ping { sent: None });
    fixture.wait(30_000);
    fixture.frame(0, Body::Ping { sent: None });
    assert_eq!(fixture.said(), ["yes"], "it could be taken for the answer to the next question");
}

#[test]
fn an_answer_that_was_never_sent_is_rejected_when_its_question_is_over() {
    let mut fixture = Fixture::base_live();
    fixture.frame(2, base_asked("go on?"));
    fixture.redial();
    fixture.answer("yes").expect("taken");
    fixture.open_base();
    fixture.frame(3, base_said("another client has answered"));
    assert_eq!(fixture.rejected(), [("yes", InputRejection::NotOpen)]);
    fixture.wait(1_000);
    assert_eq!(fixture.said(), [""; 0]);
}

#[test]
fn a_message_that_a_base_history_shows_is_not_shown_twice() {
    let mut fixture = Fixture::base_live();
    let id = fixture.say("mine");
    fixture.redial();
    fixture.open_base();
    let rows = vec![base_row(Role::User, "mine"), base_row(Role::Assistant, "ok")];
    fixture.frame(9, base_history(rows));
    fixture.wait(1_000);
    assert_eq!(fixture.said(), ["mine"]);
    fixture.frame(10, Body::MessageAck { id, position: None });
    assert_eq!(fixture.texts(), ["mine", "ok"]);
    let second = fixture.say("mine");
    fixture.frame(11, Body::MessageAck { id: second, position: None });
    assert_eq!(fixture.texts(), ["mine", "ok", "mine"], "that is another one");
}

#[test]
fn a_full_queue_of_a_base_server_is_about_the_oldest_message() {
    let mut fixture = Fixture::base_live();
    fixture.say("one");
    fixture.say("two");
    let reason = InputRejection::QueueFull { queue_cap: 10 };
    fixture.frame(2, Body::MessageRejected { id: None, reason });
    assert_eq!((fixture.rejected(), fixture.pending()), (vec![("one", reason)], vec!["two"]));
}

#[test]
fn a_base_server_that_acknowledges_and_then_finds_its_queue_full_means_that_message() {
    let mut fixture = Fixture::base_live();
    let one = fixture.say("one");
    fixture.say("two");
    let reason = InputRejection::QueueFull { queue_cap: 10 };
    fixture.frame(2, Body::MessageAck { id: one, position: None });
    assert_eq!(fixture.texts().last(), Some(&"one"));
    fixture.frame(3, Body::MessageRejected { id: None, reason });
    assert_eq!((fixture.rejected(), fixture.pending()), (vec![("one", reason)], vec!["two"]));
    assert!(!fixture.texts().contains(&"one"));
}

#[test]
fn a_server_that_echoes_any_offer_is_a_base_server() {
    let mut fixture = Fixture::start(ClientConfig::default(), vec![]);
    fixture.open(true);
    fixture.frame(0, Body::Ping { sent: None });
    assert_eq!(fixture.sent, [ClientFrame::Pong], "it decides nothing");
    fixture.frame(1, base_history(vec![base_row(Role::Assistant, "welcome")]));
    assert_eq!(fixture.texts(), ["welcome"]);
    fixture.begin(CursorVerdict::Unknown, "e1", 1, 1);
    fixture.wait(1_000);
    assert_eq!(fixture.view().connection, Connection::Live);
    fixture.redial();
    let (offered, resume) = fixture.dials.last().expect("dialled");
    assert_eq!((*offered, resume.since), (false, 1));
}

#[test]
fn a_refused_offer_is_not_made_again() {
    let mut fixture = Fixture::start(ClientConfig::default(), vec![]);
    let (conn, failure) = (fixture.conn, DialFailure::ExtensionRefused);
    fixture.feed(Input::DialFailed { conn, failure });
    let offers: Vec<bool> = fixture.dials.iter().map(|(offered, _)| *offered).collect();
    assert_eq!(offers, [true, false], "at once");
    fixture.redial();
    assert!(!fixture.dials[2].0);
}

#[test]
fn a_number_of_the_extension_means_nothing_to_a_base_server() {
    // The server has lost the extension, as after a downgrade.
    for echoes in [false, true] {
        let mut fixture = Fixture::live();
        fixture.redial();
        fixture.open(echoes);
        if echoes {
            fixture.frame(2, base_said("of other numbers"));
        }
        assert_eq!(fixture.closed, [CloseCode::NORMAL]);
        assert_eq!(fixture.texts(), ["welcome"]);
        fixture.feed(Input::Reconnect);
        assert_eq!(fixture.since(), (0, None));
    }
}

// ---- SE-8, SE-9, SE-11: connections ---------------------------------------------------------------

#[test]
fn a_superseded_client_does_not_connect_again_by_itself() {
    let mut fixture = Fixture::live();
    fixture.feed(Input::Closed { conn: fixture.conn, code: Some(CloseCode::SUPERSEDED) });
    assert_eq!(fixture.view().connection, Connection::Superseded);
    fixture.say("kept for later");
    fixture.wait(3_600_000);
    assert_eq!(fixture.dials.len(), 1);
    fixture.feed(Input::Reconnect);
    assert_eq!(fixture.dials.len(), 2);
    fixture.open_up_to_date("e1", 1);
    assert_eq!(fixture.said(), ["kept for later"]);
}

#[test]
fn two_lives_have_two_names() {
    let dial = |seed| {
        let mut client =
            Client::new(ClientConfig::default(), Box::new(ChaCha12Rng::seed_from_u64(seed)));
        client.handle(Instant::from_millis(0), Input::Start { in_flight: vec![] });
        match client.poll() {
            Some(Output::Dial { resume, .. }) => resume.view,
            other => panic!("{other:?}"),
        }
    };
    assert_ne!(dial(1), dial(2));
}

#[test]
fn a_replaced_connection_changes_nothing() {
    let mut fixture = Fixture::live();
    let old = fixture.conn;
    fixture.redial();
    fixture.open_up_to_date("e1", 1);
    let shows = fixture.shows;
    let late = ServerFrame { seq: 2, body: said(2, "late") };
    fixture.feed(Input::Frame { conn: old, frame: late });
    fixture.feed(Input::Malformed { conn: old, error: FrameError::NoType });
    fixture.feed(Input::Alive { conn: old });
    fixture.feed(Input::Closed { conn: old, code: Some(CloseCode::SUPERSEDED) });
    let failure = DialFailure::Status(503);
    fixture.feed(Input::DialFailed { conn: old, failure });
    assert_eq!((fixture.shows, fixture.texts()), (shows, vec!["welcome"]));
    fixture.feed(Input::Opened { conn: old, extension: true });
    assert_eq!(fixture.closed, [CloseCode::NORMAL], "nobody needs it");
}

#[test]
fn a_silent_server_is_left() {
    let mut fixture = Fixture::live();
    for input in 0..3 {
        fixture.wait(62_000);
        let conn = fixture.conn;
        match input {
            0 => fixture.feed(Input::Alive { conn }),
            1 => fixture.feed(Input::Malformed { conn, error: FrameError::NoType }),
            _ => fixture.frame(0, Body::Thinking),
        }
    }
    assert_eq!(fixture.closed, []);
    fixture.wait(62_500);
    assert_eq!(fixture.closed, [CloseCode::SILENT]);
}

#[test]
fn pauses_grow_until_a_connection_is_live() {
    let reconnect = BackoffConfig { jitter_percent: 0, ..ClientConfig::default().reconnect };
    let mut fixture = Fixture::start(ClientConfig { reconnect, ..ClientConfig::default() }, vec![]);
    let pause = |fixture: &mut Fixture| {
        let Connection::Waiting { retry_in, .. } = fixture.view().connection.clone() else {
            panic!("{:?}", fixture.view().connection)
        };
        fixture.wait(retry_in.as_millis() as u64);
        retry_in
    };
    let mut pauses = Vec::new();
    for _ in 0..5 {
        fixture.open(true);
        fixture.cut();
        pauses.push(pause(&mut fixture).as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 10], "an open connection is not a live one");
    fixture.open_with_history("e1", 1, vec![]);
    fixture.cut();
    assert_eq!(pause(&mut fixture), Duration::from_secs(1));
    let (conn, failure) = (fixture.conn, DialFailure::Status(401));
    fixture.feed(Input::DialFailed { conn, failure });
    assert_eq!(pause(&mut fixture), Duration::from_secs(2));
}

#[test]
fn what_was_applied_is_acknowledged_and_nothing_beyond() {
    let mut fixture = Fixture::live();
    fixture.frame(2, said(2, "two"));
    fixture.frame(3, said(3, "three"));
    fixture.wait(4_999);
    assert_eq!(fixture.acks(), [0; 0]);
    fixture.wait(1);
    assert_eq!(fixture.sent, [ClientFrame::Ack { seq: 3, epoch: Some(epoch("e1")) }]);
    fixture.wait(20_000);
    assert_eq!(fixture.acks(), [3], "nothing has moved");
    fixture.frame(4, said(4, "four"));
    fixture.frame(6, said(6, "six"));
    fixture.wait(20_000);
    assert_eq!(fixture.acks(), [3], "the connection is gone");
}

#[test]
fn a_client_that_was_stopped_says_nothing() {
    let mut fixture = Fixture::live();
    fixture.frame(2, said(2, "two"));
    let text = "not stored yet".to_owned();
    fixture.submit(Submission::Message { text, attachments: vec![] }).expect("taken");
    fixture.feed(Input::Stop);
    assert_eq!(fixture.closed, [CloseCode::NORMAL]);
    fixture.store_all();
    fixture.feed(Input::Reconnect);
    fixture.feed(Input::Start { in_flight: vec![] });
    fixture.wait(3_600_000);
    assert_eq!((fixture.dials.len(), fixture.sent.len()), (1, 0));
    assert_eq!(fixture.view().connection, Connection::Stopped);
    assert_eq!(fixture.client.deadline(), None);
}

// ---- what is shown ---------------------------------------------------------------------------------

#[test]
fn nothing_of_a_moment_outlives_its_connection() {
    let mut fixture = Fixture::live();
    fixture.frame(0, Body::Thinking);
    fixture.frame(0, notice("tool_calling"));
    fixture.cut();
    assert_eq!((fixture.view().status, &fixture.view().progress), (Status::Idle, &None));
    fixture.feed(Input::Reconnect);
    fixture.open_up_to_date("e1", 1);
    fixture.frame(0, Body::Status(Status::Thinking));
    assert_eq!(fixture.view().status, Status::Thinking);
    fixture.frame(2, asked(2, "q1"));
    fixture.cut();
    assert_eq!(fixture.view().status, Status::Waiting);
    assert!(fixture.view().open_question.is_some());
}

#[test]
fn progress_ends_with_what_it_led_to() {
    let mut fixture = Fixture::live();
    for (seq, end) in [(2, said(2, "done")), (0, Body::Status(Status::Idle)), (3, asked(3, "q"))] {
        fixture.frame(0, notice("agent_progress"));
        assert!(fixture.view().progress.is_some());
        fixture.frame(seq, end);
        assert_eq!(fixture.view().progress, None);
    }
    fixture.frame(0, notice("affect_tick"));
    assert_eq!(fixture.view().progress, None);
}

#[test]
fn the_view_is_bounded() {
    let config = ClientConfig { messages_max: 3, rejected_max: 2, ..ClientConfig::default() };
    let mut fixture = Fixture::start(config, vec![message("old", "accepted long ago")]);
    fixture.open_with_history("e1", 1, vec![]);
    for seq in 2..=6 {
        fixture.frame(seq, said(seq, &seq.to_string()));
    }
    assert_eq!(fixture.texts(), ["4", "5", "6"]);
    assert!(fixture.view().truncated);
    fixture.frame(7, Body::MessageAck { id: name("old"), position: Some(1) });
    assert_eq!((fixture.texts(), fixture.pending().len()), (vec!["4", "5", "6"], 0));
    for (seq, text) in [(8, "a"), (9, "b"), (10, "c")] {
        let id = Some(fixture.say(text));
        fixture.frame(seq, Body::MessageRejected { id, reason: InputRejection::Conflict });
    }
    let kept: Vec<&str> = fixture.rejected().into_iter().map(|(text, _)| text).collect();
    assert_eq!(kept, ["b", "c"]);
}
