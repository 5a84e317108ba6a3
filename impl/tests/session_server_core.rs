//! The session server's core, input by input, over the real store.

use std::collections::{BTreeMap, VecDeque};

use gapless::Core;
use gapless::recovery::{Epoch, Instant, RingLimits};
use gapless::session::conversation::{Command, Ending, Kind, Reply, Row, Saying};
use gapless::session::server::{
    Attempt, Input, Output, Presentation, Server, ServerConfig, ShowAll, Work,
};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations};
use gapless::session::wire::{
    Begin, Body, ClientFrame, CursorVerdict, FrameError, History, InputRejection, Notice,
    ServerFrame, Status,
};
use gapless::session::{CloseCode, ConnectionId, Identity, Name, StoreId, Turn};
use gapless::storage::{StoreError, Transact};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::value::RawValue;
use tempfile::TempDir;

fn name(text: &str) -> Name {
    Name::parse(text).expect("valid")
}

fn saying(text: &str) -> Saying {
    Saying { text: text.to_owned(), model: "m".to_owned(), usage: None }
}

fn seconds(count: u64) -> u64 {
    count * 1_000
}

/// A server, its store, and sockets that take everything unless they are held.
struct World {
    server: Server,
    store: SqliteConversations,
    folder: TempDir,
    config: ServerConfig,
    now: u64,
    lives: u64,
    connections: u64,
    inputs: VecDeque<Input>,
    frames: BTreeMap<u64, Vec<ServerFrame>>,
    closed: BTreeMap<u64, CloseCode>,
    work: VecDeque<Work>,
    heard: u64,
    /// Sockets take nothing.
    hold_sockets: bool,
    /// Commands get no answer.
    hold_store: bool,
    held: Vec<(StoreId, Command)>,
}

struct Hello {
    client: &'static str,
    extension: bool,
    since: u64,
    epoch: Option<Epoch>,
    attempt: Option<Attempt>,
}

impl Hello {
    fn new(client: &'static str) -> Self {
        Self { client, extension: true, since: 0, epoch: None, attempt: None }
    }

    fn base(client: &'static str, since: u64) -> Self {
        Self { extension: false, since, ..Self::new(client) }
    }

    fn at(self, since: u64, epoch: &Epoch) -> Self {
        Self { since, epoch: Some(epoch.clone()), ..self }
    }
}

impl World {
    fn new(config: ServerConfig) -> Self {
        Self::showing(config, Box::new(ShowAll))
    }

    fn showing(config: ServerConfig, presentation: Box<dyn Presentation>) -> Self {
        let folder = TempDir::new().expect("a folder");
        let store = open(&folder);
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(1));
        let server = Server::new(config.clone(), presentation, entropy);
        let mut world = Self {
            server,
            store,
            folder,
            config,
            now: 0,
            lives: 1,
            connections: 0,
            inputs: VecDeque::new(),
            frames: BTreeMap::new(),
            closed: BTreeMap::new(),
            work: VecDeque::new(),
            heard: 0,
            hold_sockets: false,
            hold_store: false,
            held: Vec::new(),
        };
        world.run();
        world
    }

    /// The process ends, and another begins on the same store.
    fn restart(&mut self) {
        let other = TempDir::new().expect("a folder");
        self.store = open(&other);
        self.store = open(&self.folder);
        self.lives += 1;
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(self.lives));
        self.server = Server::new(self.config.clone(), Box::new(ShowAll), entropy);
        self.inputs.clear();
        self.work.clear();
        self.held.clear();
        self.run();
    }

    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.run();
    }

    fn run(&mut self) {
        loop {
            while let Some(output) = self.server.poll() {
                self.take(output);
            }
            let Some(input) = self.inputs.pop_front() else { return };
            self.server.handle(Instant::from_millis(self.now), input);
        }
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Store(id, command) if self.hold_store => self.held.push((id, command)),
            Output::Store(id, command) => {
                let reply = self.store.transact(vec![command]).map(|mut it| it.remove(0));
                self.inputs.push_back(Input::Stored(id, reply));
            }
            Output::Send { conn, frame } => {
                self.frames.entry(conn.0).or_default().push(frame);
                if !self.hold_sockets {
                    self.inputs.push_back(Input::Written { conn, frames: 1 });
                }
            }
            Output::Close { conn, code, .. } => {
                self.closed.insert(conn.0, code);
            }
            Output::Run(work) => self.work.push_back(work),
            Output::Heard { .. } => self.heard += 1,
        }
    }

    /// The store works again.
    fn release_store(&mut self) {
        self.hold_store = false;
        for (id, command) in std::mem::take(&mut self.held) {
            self.take(Output::Store(id, command));
        }
        self.run();
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some(at) = self.server.deadline()
            && at <= Instant::from_millis(until)
        {
            let start = Instant::from_millis(0);
            self.now = u64::try_from(at.saturating_since(start).as_millis()).expect("small");
            self.feed(Input::Timeout);
        }
        self.now = until;
    }

    fn connect(&mut self, hello: Hello) -> u64 {
        self.connections += 1;
        let Hello { client, extension, since, epoch, attempt } = hello;
        let identity = Identity { principal: "ada".into(), client: name(client) };
        let conn = ConnectionId(self.connections);
        self.feed(Input::Connected { conn, identity, extension, since, epoch, attempt });
        conn.0
    }

    fn disconnect(&mut self, conn: u64) {
        self.feed(Input::Disconnected { conn: ConnectionId(conn) });
    }

    fn send(&mut self, conn: u64, frame: ClientFrame) {
        self.feed(Input::Frame { conn: ConnectionId(conn), frame });
    }

    fn say(&mut self, conn: u64, id: &str, text: &str) {
        let frame = ClientFrame::UserMessage {
            id: Some(name(id)),
            text: text.to_owned(),
            attachments: vec![],
            after: None,
        };
        self.send(conn, frame);
    }

    fn answer(&mut self, conn: u64, id: &str, question: &str, text: &str) {
        let (id, question) = (Some(name(id)), Some(name(question)));
        self.send(conn, ClientFrame::UserAnswer { id, question, text: text.to_owned() });
    }

    fn ack(&mut self, conn: u64, seq: u64, epoch: Option<Epoch>) {
        self.send(conn, ClientFrame::Ack { seq, epoch });
    }

    /// The application says some things in the turn that runs, and ends it.
    fn turn(&mut self, texts: &[&str], ending: Ending) {
        let turn = self.work.pop_front().expect("a turn runs").turn;
        for text in texts {
            self.feed(Input::Say { turn: turn.clone(), saying: saying(text) });
        }
        self.feed(Input::End { turn, ending });
    }

    /// What a connection got since the last look.
    fn got(&mut self, conn: u64) -> Vec<ServerFrame> {
        self.frames.remove(&conn).unwrap_or_default()
    }

    /// The same, without what has no number.
    fn numbered(&mut self, conn: u64) -> Vec<(u64, Body)> {
        let frames = self.got(conn).into_iter().filter(|frame| frame.seq > 0);
        frames.map(|frame| (frame.seq, frame.body)).collect()
    }

    fn begin(&mut self, conn: u64) -> Begin {
        match self.got(conn).into_iter().next().map(|frame| frame.body) {
            Some(Body::Begin(begin)) => begin,
            other => panic!("the first frame is {other:?}"),
        }
    }

    fn closed(&self, conn: u64) -> Option<CloseCode> {
        self.closed.get(&conn).copied()
    }
}

fn open(folder: &TempDir) -> SqliteConversations {
    let config = ConversationsConfig::default();
    SqliteConversations::open(&folder.path().join("conversations.db"), &config).expect("opens")
}

fn history(frames: &[ServerFrame]) -> &History {
    let history = frames.iter().find_map(|frame| match &frame.body {
        Body::History(history) => Some(&**history),
        _ => None,
    });
    history.expect("there is a history")
}

fn texts(history: &History) -> Vec<&str> {
    history.messages.iter().map(|message| message.text.as_str()).collect()
}

fn text(body: &Body) -> &str {
    match body {
        Body::Assistant(said) => &said.text,
        Body::UserMessage { text, .. } | Body::UserAnswer { text, .. } => text,
        Body::Question { question, .. } => &question.text,
        Body::MessageAck { id, .. } | Body::AnswerAck { id, .. } => id.as_str(),
        other => panic!("no text: {other:?}"),
    }
}

fn numbered_texts(frames: &[(u64, Body)]) -> Vec<(u64, &str)> {
    frames.iter().map(|(seq, body)| (*seq, text(body))).collect()
}

/// A conversation with one message and `count` replies, by `tab`, which is gone again. The
/// history had number 1, the acknowledgement 2, and the replies follow.
fn with_replies(count: usize) -> (World, Epoch) {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    let epoch = world.begin(conn).epoch;
    world.say(conn, "m1", "hello");
    let replies: Vec<String> = (1..=count).map(|n| format!("reply {n}")).collect();
    world.turn(&replies.iter().map(String::as_str).collect::<Vec<_>>(), Ending::Done);
    world.got(conn);
    world.disconnect(conn);
    (world, epoch)
}

// ---- verdicts ----------------------------------------------------------------------------------

#[test]
fn a_cursor_gets_its_verdict_and_what_follows_from_it() {
    let other = Epoch::parse("other").expect("valid");
    for (since, epoch, verdict, from, to) in [
        (0, None, CursorVerdict::Unknown, 6, 6),
        (5, Some(None), CursorVerdict::UpToDate, 6, 5),
        (3, Some(None), CursorVerdict::Replay, 4, 5),
        (1, Some(None), CursorVerdict::Replay, 2, 5),
        (9, Some(None), CursorVerdict::Ahead, 6, 6),
        (3, Some(Some(other)), CursorVerdict::OtherEpoch, 6, 6),
        (3, None, CursorVerdict::OtherEpoch, 6, 6),
    ] {
        let (mut world, own) = with_replies(3);
        let epoch = epoch.map(|epoch| epoch.unwrap_or(own));
        let hello = Hello { since, epoch, ..Hello::new("tab") };
        let conn = world.connect(hello);
        let frames = world.got(conn);
        let Body::Begin(begin) = &frames[0].body else { panic!("{frames:?}") };
        assert_eq!((begin.verdict, begin.from, begin.to), (verdict, from, to));
        let numbers: Vec<u64> = frames.iter().map(|it| it.seq).filter(|seq| *seq > 0).collect();
        assert_eq!(numbers, (from..=to).collect::<Vec<_>>());
        let is_history = frames.iter().any(|it| matches!(it.body, Body::History(_)));
        assert_eq!(is_history, verdict.is_history(), "{frames:?}");
        // The status is the last thing, and nothing live was before it [SE-6b].
        assert_eq!(frames.last().map(|it| &it.body), Some(&Body::Status(Status::Idle)));
    }
}

#[test]
fn a_client_without_an_outbox_is_unknown_whatever_it_claims() {
    let (mut world, epoch) = with_replies(3);
    let conn = world.connect(Hello::new("elsewhere").at(3, &epoch));
    assert_eq!(world.begin(conn).verdict, CursorVerdict::Unknown);
}

#[test]
fn a_cursor_below_a_history_gets_a_fresh_one() {
    let (mut world, epoch) = with_replies(3);
    let reload = world.connect(Hello::new("tab"));
    assert_eq!(history(&world.got(reload)).messages.len(), 4);
    let back = world.connect(Hello::new("tab").at(5, &epoch));
    let begin = world.begin(back);
    assert_eq!((begin.verdict, begin.from), (CursorVerdict::TooOld, 7));
    let current = world.connect(Hello::new("tab").at(7, &epoch));
    assert_eq!(world.begin(current).verdict, CursorVerdict::UpToDate);
}

#[test]
fn a_history_shows_everything_below_its_number_and_nothing_is_sent_twice() {
    let (mut world, epoch) = with_replies(2);
    let first = world.connect(Hello::new("tab"));
    let frames = world.got(first);
    assert_eq!(texts(history(&frames)), ["hello", "reply 1", "reply 2"]);
    assert_eq!(history(&frames).epoch.as_ref(), Some(&epoch));
    world.say(first, "m2", "more");
    world.turn(&["reply 3"], Ending::Done);
    assert_eq!(numbered_texts(&world.numbered(first)), [(6, "m2"), (7, "reply 3")]);
}

#[test]
fn a_history_has_the_newest_rows_and_says_that_there_are_older_ones() {
    let config = ServerConfig { history_messages: 3, ..ServerConfig::default() };
    let mut world = World::new(config);
    let conn = world.connect(Hello::new("tab"));
    assert!(!history(&world.got(conn)).truncated);
    world.say(conn, "m1", "hello");
    world.turn(&["a", "b", "c"], Ending::Done);
    for life in ["live", "loaded"] {
        let reload = world.connect(Hello::new("tab"));
        let frames = world.got(reload);
        assert_eq!(texts(history(&frames)), ["a", "b", "c"], "{life}");
        assert!(history(&frames).truncated, "{life}");
        world.restart();
    }
}

#[test]
fn a_history_has_the_open_question_and_the_ids_of_inputs() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m1", "hello");
    let question = name("q1");
    world.turn(
        &[],
        Ending::Ask { question, text: "which?".to_owned(), source: "cognitive".to_owned() },
    );
    for life in ["live", "loaded"] {
        let reload = world.connect(Hello::new("tab"));
        let frames = world.got(reload);
        let history = history(&frames);
        assert_eq!(history.messages[0].input, Some(name("m1")), "{life}");
        assert_eq!(history.status, Some(Status::Waiting), "{life}");
        let open = history.open_question.as_ref().expect("open");
        assert_eq!((open.id.clone(), open.text.as_str()), (Some(name("q1")), "which?"), "{life}");
        world.restart();
    }
}

#[test]
fn a_base_client_gets_the_open_question_after_each_history() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::base("tab", 0));
    world.say(conn, "m1", "hello");
    let question = name("q1");
    world.turn(&[], Ending::Ask { question, text: "which?".to_owned(), source: String::new() });
    let reload = world.connect(Hello::base("tab", 0));
    let frames = world.numbered(reload);
    assert!(matches!(frames[0].1, Body::History(_)), "{frames:?}");
    assert_eq!((frames[1].0, text(&frames[1].1)), (frames[0].0 + 1, "which?"));
}

#[test]
fn a_base_client_counts_on_from_its_own_number() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::base("tab", 250));
    assert_eq!(world.numbered(conn)[0].0, 251);
    // Ahead of the outbox.
    world.disconnect(conn);
    let conn = world.connect(Hello::base("tab", 300));
    assert_eq!(world.numbered(conn)[0].0, 301);
    let conn = world.connect(Hello::base("far", (1 << 52) + 1));
    assert_eq!(world.numbered(conn)[0].0, 1);
}

#[test]
fn a_client_that_changes_its_mode_gets_another_outbox() {
    let (mut world, epoch) = with_replies(3);
    let base = world.connect(Hello::base("tab", 3));
    assert!(matches!(world.numbered(base)[0].1, Body::History(_)));
    let back = world.connect(Hello::new("tab").at(3, &epoch));
    assert_eq!(world.begin(back).verdict, CursorVerdict::Unknown);
}

// ---- restart -----------------------------------------------------------------------------------

#[test]
fn nothing_is_shown_or_acknowledged_before_it_is_durable() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.got(conn);
    world.hold_store = true;
    world.say(conn, "m1", "hello");
    assert_eq!(world.got(conn), []);
    world.release_store();
    assert_eq!(numbered_texts(&world.numbered(conn)), [(2, "m1")]);
    world.hold_store = true;
    let turn = world.work[0].turn.clone();
    world.feed(Input::Say { turn, saying: saying("reply") });
    assert_eq!(world.numbered(conn), []);
    assert_eq!(world.heard, 0);
    world.release_store();
    assert_eq!(numbered_texts(&world.numbered(conn)), [(3, "reply")]);
    assert_eq!(world.heard, 1);
}

#[test]
fn a_store_that_fails_is_asked_again_and_nothing_is_doubled() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.got(conn);
    world.hold_store = true;
    world.say(conn, "m1", "hello");
    let (id, command) = world.held.remove(0);
    // It was stored, and nobody knows.
    world.store.transact(vec![command]).expect("stored");
    world.feed(Input::Stored(id, Err(StoreError::Unknown("power".to_owned()))));
    assert_eq!(world.numbered(conn), []);
    world.hold_store = false;
    world.pass(seconds(1));
    assert_eq!(numbered_texts(&world.numbered(conn)), [(2, "m1")]);
    assert_eq!(world.work.len(), 1);
}

#[test]
fn an_outbox_has_an_epoch_of_its_own_after_every_start() {
    let (mut world, first) = with_replies(3);
    world.restart();
    let conn = world.connect(Hello::new("tab").at(5, &first));
    let begin = world.begin(conn);
    assert_eq!(begin.verdict, CursorVerdict::Unknown);
    assert_ne!(begin.epoch, first);
    assert!(begin.epoch.as_str().len() >= 32);
}

#[test]
fn a_stale_acknowledgement_frees_nothing() {
    let (mut world, old) = with_replies(3);
    world.restart();
    let conn = world.connect(Hello::new("tab").at(5, &old));
    let epoch = world.begin(conn).epoch;
    world.say(conn, "m2", "more");
    world.turn(&["a", "b", "c"], Ending::Done);
    world.ack(conn, 4, Some(old));
    world.ack(conn, 400, Some(epoch.clone()));
    world.disconnect(conn);
    let back = world.connect(Hello::new("tab").at(1, &epoch));
    assert_eq!(world.begin(back).verdict, CursorVerdict::Replay);
}

#[test]
fn an_acknowledgement_frees_what_it_names() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    let epoch = world.begin(conn).epoch;
    world.say(conn, "m1", "hello");
    world.turn(&["a", "b"], Ending::Done);
    world.ack(conn, 3, Some(epoch.clone()));
    world.disconnect(conn);
    let back = world.connect(Hello::new("tab").at(2, &epoch));
    assert_eq!(world.begin(back).verdict, CursorVerdict::TooOld);
}

#[test]
fn a_turn_that_had_begun_is_shown_as_interrupted_and_not_run_again() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m1", "hello");
    let turn = world.work[0].turn.clone();
    world.feed(Input::Say { turn, saying: saying("half a reply") });
    world.say(conn, "m2", "and then?");
    world.restart();
    assert_eq!(world.work.len(), 1);
    assert_eq!(world.work[0].input.text, "and then?");
    let conn = world.connect(Hello::new("tab"));
    let frames = world.got(conn);
    let kinds: Vec<_> = history(&frames).messages.iter().filter_map(|it| it.kind).collect();
    assert_eq!(kinds, [Kind::Message, Kind::Message, Kind::Message, Kind::Interrupted]);
}

#[test]
fn inputs_that_had_not_begun_are_taken_up_without_anybody_connected() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m1", "one");
    world.say(conn, "m2", "two");
    world.turn(&[], Ending::Done);
    world.work.clear();
    world.restart();
    // The second had begun: it is over.
    assert!(world.work.is_empty());
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m3", "three");
    world.say(conn, "m4", "four");
    world.restart();
    assert_eq!(world.work[0].input.text, "four");
    world.turn(&["a reply"], Ending::Done);
    let conn = world.connect(Hello::new("tab"));
    assert_eq!(texts(history(&world.got(conn))).last(), Some(&"a reply"));
}

#[test]
fn turns_of_other_conversations_wait_while_too_many_run() {
    let config = ServerConfig { turns_max: 1, ..ServerConfig::default() };
    let mut world = World::new(config);
    for (conn, principal) in [(11, "ada"), (12, "bob"), (13, "cyd")] {
        let identity = Identity { principal: principal.into(), client: name("tab") };
        world.feed(Input::Connected {
            conn: ConnectionId(conn),
            identity,
            extension: true,
            since: 0,
            epoch: None,
            attempt: None,
        });
        world.say(conn, "m1", principal);
        // Nobody needs to stay for it.
        world.disconnect(conn);
    }
    let mut order = Vec::new();
    while let Some(work) = world.work.front() {
        assert_eq!(world.work.len(), 1);
        order.push(work.input.text.clone());
        world.turn(&[], Ending::Done);
    }
    assert_eq!(order, ["ada", "bob", "cyd"]);
}

// ---- inputs ------------------------------------------------------------------------------------

#[test]
fn an_input_that_comes_again_is_acknowledged_again_and_run_once() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.got(conn);
    world.say(conn, "m1", "hello");
    world.say(conn, "m1", "hello");
    assert_eq!(numbered_texts(&world.numbered(conn)), [(2, "m1"), (3, "m1")]);
    world.turn(&[], Ending::Done);
    assert!(world.work.is_empty());
    world.restart();
    let conn = world.connect(Hello::new("tab"));
    world.got(conn);
    world.say(conn, "m1", "hello");
    assert_eq!(numbered_texts(&world.numbered(conn)), [(2, "m1")]);
    assert!(world.work.is_empty());
}

#[test]
fn another_content_under_the_same_id_is_a_conflict() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m1", "hello");
    world.got(conn);
    world.say(conn, "m1", "something else");
    let rejected = Body::MessageRejected { id: Some(name("m1")), reason: InputRejection::Conflict };
    assert_eq!(world.numbered(conn), [(3, rejected)]);
}

#[test]
fn an_input_that_is_too_large_is_rejected_and_leaves_nothing() {
    let config = ServerConfig { text_bytes_max: 10, ..ServerConfig::default() };
    let mut world = World::new(config);
    let conn = world.connect(Hello::new("tab"));
    world.got(conn);
    world.say(conn, "m1", "hello, hello, hello");
    let rejected = Body::MessageRejected { id: Some(name("m1")), reason: InputRejection::TooLarge };
    assert_eq!(world.numbered(conn), [(2, rejected)]);
    assert!(world.work.is_empty());
}

#[test]
fn a_message_beyond_the_queue_is_rejected_by_name() {
    let config = ServerConfig { queue_max: 1, ..ServerConfig::default() };
    let mut world = World::new(config);
    let conn = world.connect(Hello::new("tab"));
    world.got(conn);
    for id in ["m1", "m2", "m3"] {
        world.say(conn, id, id);
    }
    let frames = world.numbered(conn);
    let full = InputRejection::QueueFull { queue_cap: 1 };
    let rejected = Body::MessageRejected { id: Some(name("m3")), reason: full };
    assert_eq!(frames[2], (4, rejected.clone()));
    // The verdict holds, also when there is room by now.
    world.turn(&[], Ending::Done);
    world.turn(&[], Ending::Done);
    world.got(conn);
    world.say(conn, "m3", "m3");
    assert_eq!(world.numbered(conn)[0].1, rejected);
}

#[test]
fn more_inputs_than_may_wait_for_the_store_are_left_unanswered() {
    let config = ServerConfig { inputs_max: 2, ..ServerConfig::default() };
    let mut world = World::new(config);
    let conn = world.connect(Hello::new("tab"));
    world.got(conn);
    world.hold_store = true;
    for id in ["m1", "m2", "m3"] {
        world.say(conn, id, id);
    }
    world.release_store();
    assert_eq!(numbered_texts(&world.numbered(conn)), [(2, "m1"), (3, "m2")]);
}

#[test]
fn what_one_client_says_is_shown_to_the_others_of_its_principal() {
    let mut world = World::new(ServerConfig::default());
    let (one, two) = (world.connect(Hello::new("one")), world.connect(Hello::new("two")));
    let base = world.connect(Hello::base("base", 0));
    for conn in [one, two, base] {
        world.got(conn);
    }
    world.say(one, "m1", "hello");
    world.turn(&["reply"], Ending::Done);
    assert_eq!(numbered_texts(&world.numbered(one)), [(2, "m1"), (3, "reply")]);
    assert_eq!(numbered_texts(&world.numbered(two)), [(2, "hello"), (3, "reply")]);
    // The base contract has no frame for it, and no number is spent.
    assert_eq!(numbered_texts(&world.numbered(base)), [(2, "reply")]);
}

#[test]
fn an_answer_goes_before_messages_that_wait_and_is_taken_once() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m1", "hello");
    world.say(conn, "m2", "later");
    let question = name("q1");
    world.turn(&[], Ending::Ask { question, text: "which?".to_owned(), source: String::new() });
    assert!(world.work.is_empty(), "messages wait while a question is open");
    world.answer(conn, "a0", "q0", "that one");
    world.got(conn);
    world.answer(conn, "a1", "q1", "this one");
    world.answer(conn, "a2", "q1", "or that one");
    world.answer(conn, "a1", "q1", "this one");
    let frames = world.numbered(conn);
    let bodies: Vec<&Body> = frames.iter().map(|(_, body)| body).collect();
    assert!(matches!(bodies[0], Body::AnswerAck { id, .. } if *id == name("a1")), "{bodies:?}");
    let Body::AnswerRejected { id, reason, .. } = bodies[1] else { panic!("{bodies:?}") };
    assert_eq!((id, *reason), (&name("a2"), InputRejection::NotOpen));
    assert!(matches!(bodies[2], Body::AnswerAck { id, .. } if *id == name("a1")), "{bodies:?}");
    assert_eq!(world.work[0].input.kind, Kind::Answer);
    world.turn(&["thanks"], Ending::Done);
    assert_eq!(world.work[0].input.text, "later");
}

#[test]
fn a_base_answer_is_for_the_question_that_is_open() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::base("tab", 0));
    world.say(conn, "m1", "hello");
    let question = name("q1");
    world.turn(&[], Ending::Ask { question, text: "which?".to_owned(), source: String::new() });
    world.send(conn, ClientFrame::UserAnswer { id: None, question: None, text: "this".to_owned() });
    assert_eq!(world.work[0].input.text, "this");
}

#[test]
fn a_message_without_an_id_is_taken_and_not_acknowledged() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::base("tab", 0));
    world.got(conn);
    let frame = ClientFrame::UserMessage {
        id: None,
        text: "hello".to_owned(),
        attachments: vec![],
        after: None,
    };
    world.send(conn, frame);
    assert_eq!(world.numbered(conn), []);
    assert_eq!(world.work[0].input.text, "hello");
}

#[test]
fn a_message_that_was_written_before_anything_was_known_is_not_taken_twice() {
    let mut world = World::new(ServerConfig::default());
    let config = ConversationsConfig { retain_rows: 3, ..ConversationsConfig::default() };
    let path = world.folder.path().join("three-rows.db");
    world.store = SqliteConversations::open(&path, &config).expect("opens");
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m1", "hello");
    world.turn(&["a", "b", "c"], Ending::Done);
    let (id, text, attachments) = (Some(name("m2")), "then".to_owned(), vec![]);
    world.send(conn, ClientFrame::UserMessage { id, text, attachments, after: Some(4) });
    world.turn(&["d", "e"], Ending::Done);
    world.got(conn);
    world.say(conn, "m1", "hello");
    let frames = world.numbered(conn);
    let [(_, Body::MessageRejected { reason, .. })] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(*reason, InputRejection::Expired);
    // The base contract has no word for it, so there is nothing to be judged by.
    let base = world.connect(Hello::base("old-tab", 0));
    world.say(base, "m4", "hello");
    let (_, last) = world.numbered(base).pop().expect("an answer");
    assert!(matches!(last, Body::MessageAck { .. }), "{last:?}");
}

// ---- order and windows -------------------------------------------------------------------------

#[test]
fn live_frames_come_after_the_replay_through_a_small_window() {
    let config = ServerConfig { window_frames: 2, ..ServerConfig::default() };
    let mut world = World::new(config);
    let conn = world.connect(Hello::new("tab"));
    let epoch = world.begin(conn).epoch;
    world.say(conn, "m1", "hello");
    let turn = world.work.pop_front().expect("runs").turn;
    for text in ["a", "b", "c"] {
        world.feed(Input::Say { turn: turn.clone(), saying: saying(text) });
    }
    world.disconnect(conn);
    world.hold_sockets = true;
    let back = world.connect(Hello::new("tab").at(1, &epoch));
    world.feed(Input::Say { turn: turn.clone(), saying: saying("live") });
    let notice = Notice {
        kind: "tool_calling".to_owned(),
        fields: RawValue::from_string("{}".to_owned()).expect("JSON"),
    };
    world.feed(Input::Progress { turn, notice });
    let mut seen = world.got(back);
    assert_eq!(seen.len(), 2, "the window is two frames: {seen:?}");
    world.hold_sockets = false;
    world.feed(Input::Written { conn: ConnectionId(back), frames: 2 });
    seen.extend(world.got(back));
    let numbers: Vec<u64> = seen.iter().map(|it| it.seq).collect();
    // The verdict, the replay, the status, and only then what is live.
    assert_eq!(numbers, [0, 2, 3, 4, 5, 0, 6][..numbers.len()].to_vec(), "{seen:?}");
    assert_eq!(numbers.len(), 7);
}

#[test]
fn a_status_that_could_not_be_sent_is_sent_when_there_is_room() {
    let config = ServerConfig { window_frames: 1, ..ServerConfig::default() };
    let mut world = World::new(config);
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m1", "hello");
    let frames = world.got(conn);
    assert!(frames.iter().any(|it| it.body == Body::Status(Status::Thinking)), "{frames:?}");
    world.hold_sockets = true;
    world.turn(&["a"], Ending::Done);
    world.hold_sockets = false;
    world.feed(Input::Written { conn: ConnectionId(conn), frames: 1 });
    let frames = world.got(conn);
    assert_eq!(frames.last().map(|it| &it.body), Some(&Body::Status(Status::Idle)), "{frames:?}");
}

#[test]
fn chatter_has_no_number_and_takes_no_room() {
    let ring = RingLimits { count: 4, bytes: 1 << 20, age: None };
    let mut world = World::new(ServerConfig { ring, ..ServerConfig::default() });
    let conn = world.connect(Hello::new("tab"));
    let epoch = world.begin(conn).epoch;
    world.say(conn, "m1", "hello");
    let turn = world.work[0].turn.clone();
    for n in 0..600 {
        let fields = RawValue::from_string(format!(r#"{{"n":{n}}}"#)).expect("JSON");
        let notice = Notice { kind: "agent_progress".to_owned(), fields };
        world.feed(Input::Progress { turn: turn.clone(), notice });
    }
    let frames = world.got(conn);
    let chatter = frames.iter().filter(|it| matches!(it.body, Body::Notice(_)));
    assert_eq!(chatter.clone().count(), 600);
    assert!(chatter.clone().all(|it| it.seq == 0));
    world.disconnect(conn);
    let back = world.connect(Hello::new("tab").at(1, &epoch));
    assert_eq!(world.begin(back).verdict, CursorVerdict::Replay);
}

// ---- the life of an outbox ---------------------------------------------------------------------

#[test]
fn an_outbox_that_nobody_came_back_for_is_dropped_after_an_hour() {
    let (mut world, epoch) = with_replies(1);
    world.pass(seconds(3_500));
    let conn = world.connect(Hello::new("tab").at(3, &epoch));
    assert_eq!(world.begin(conn).verdict, CursorVerdict::UpToDate);
    world.disconnect(conn);
    world.pass(seconds(3_700));
    let conn = world.connect(Hello::new("tab").at(3, &epoch));
    assert_eq!(world.begin(conn).verdict, CursorVerdict::Unknown);
}

#[test]
fn an_outbox_is_not_dropped_under_an_open_connection() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    let epoch = world.begin(conn).epoch;
    for _ in 0..300 {
        world.pass(seconds(25));
        world.send(conn, ClientFrame::Pong);
    }
    world.say(conn, "m1", "hello");
    assert_eq!(numbered_texts(&world.numbered(conn)), [(2, "m1")]);
    world.disconnect(conn);
    let conn = world.connect(Hello::new("tab").at(1, &epoch));
    assert_eq!(world.begin(conn).verdict, CursorVerdict::Replay);
}

#[test]
fn frames_are_dropped_when_they_are_too_old_and_the_cursor_is_told() {
    let (mut world, epoch) = with_replies(1);
    world.pass(seconds(400));
    let conn = world.connect(Hello::new("tab").at(2, &epoch));
    assert_eq!(world.begin(conn).verdict, CursorVerdict::TooOld);
}

#[test]
fn a_ring_is_bounded_and_the_cursor_is_told() {
    let ring = RingLimits { count: 2, bytes: 1 << 20, age: None };
    let mut world = World::new(ServerConfig { ring, ..ServerConfig::default() });
    let conn = world.connect(Hello::new("tab"));
    let epoch = world.begin(conn).epoch;
    world.say(conn, "m1", "hello");
    world.disconnect(conn);
    world.turn(&["a", "b", "c"], Ending::Done);
    let conn = world.connect(Hello::new("tab").at(2, &epoch));
    assert_eq!(world.begin(conn).verdict, CursorVerdict::TooOld);
}

#[test]
fn a_connection_that_falls_behind_its_ring_is_closed_and_begins_anew() {
    let ring = RingLimits { count: 2, bytes: 1 << 20, age: None };
    let config = ServerConfig { ring, window_frames: 1, ..ServerConfig::default() };
    let mut world = World::new(config);
    let conn = world.connect(Hello::new("tab"));
    let epoch = world.begin(conn).epoch;
    world.hold_sockets = true;
    world.say(conn, "m1", "hello");
    world.turn(&["a", "b", "c", "d"], Ending::Done);
    world.hold_sockets = false;
    world.feed(Input::Written { conn: ConnectionId(conn), frames: 1 });
    assert_eq!(world.closed(conn), Some(CloseCode::RESUME));
    let conn = world.connect(Hello::new("tab").at(2, &epoch));
    assert_eq!(world.begin(conn).verdict, CursorVerdict::TooOld);
}

#[test]
fn the_outbox_that_was_idle_longest_makes_room() {
    let config = ServerConfig { outboxes_max: 2, ..ServerConfig::default() };
    let mut world = World::new(config);
    let one = world.connect(Hello::new("one"));
    let two = world.connect(Hello::new("two"));
    let refused = world.connect(Hello::new("three"));
    assert_eq!(world.closed(refused), Some(CloseCode::TRY_AGAIN_LATER));
    assert_eq!((world.closed(one), world.closed(two)), (None, None));
    world.disconnect(one);
    let three = world.connect(Hello::new("three"));
    assert_eq!(world.closed(three), None);
}

// ---- one connection for an identity ------------------------------------------------------------

#[test]
fn a_newer_connection_supersedes_and_what_the_older_one_still_brings_changes_nothing() {
    let mut world = World::new(ServerConfig::default());
    let old = world.connect(Hello::new("tab"));
    let new = world.connect(Hello::new("tab"));
    assert_eq!(world.closed(old), Some(CloseCode::SUPERSEDED));
    world.got(new);
    world.say(old, "m0", "too late");
    assert!(world.work.is_empty());
    world.disconnect(old);
    world.say(new, "m1", "hello");
    assert_eq!(numbered_texts(&world.numbered(new)), [(3, "m1")]);
    // The outbox is still pinned by the newer one.
    for _ in 0..200 {
        world.pass(seconds(25));
        world.send(new, ClientFrame::Pong);
    }
    world.turn(&["reply"], Ending::Done);
    assert_eq!(numbered_texts(&world.numbered(new)), [(4, "reply")]);
}

#[test]
fn an_earlier_attempt_of_the_same_view_supersedes_nothing() {
    let mut world = World::new(ServerConfig::default());
    let attempt = |view: &str, number| Some(Attempt { view: view.to_owned(), number });
    let hello = |attempt| Hello { attempt, ..Hello::new("tab") };
    let second = world.connect(hello(attempt("v", 2)));
    let first = world.connect(hello(attempt("v", 1)));
    assert_eq!((world.closed(second), world.closed(first)), (None, Some(CloseCode::SUPERSEDED)));
    // Another view of the same client is newer, whatever it counts.
    let other = world.connect(hello(attempt("w", 1)));
    assert_eq!((world.closed(second), world.closed(other)), (Some(CloseCode::SUPERSEDED), None));
}

// ---- signs of life -----------------------------------------------------------------------------

#[test]
fn a_ping_goes_out_every_interval_and_says_what_was_sent() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m1", "hello");
    world.got(conn);
    world.pass(seconds(25));
    let frames = world.got(conn);
    assert_eq!(frames, [ServerFrame { seq: 0, body: Body::Ping { sent: Some(2) } }]);
}

#[test]
fn a_client_that_says_nothing_for_two_intervals_after_a_ping_is_closed() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.pass(seconds(74));
    assert_eq!(world.closed(conn), None);
    world.pass(seconds(1));
    assert_eq!(world.closed(conn), Some(CloseCode::SILENT));
    // Anything is a sign of life.
    let conn = world.connect(Hello::new("tab"));
    for turn in 0..8 {
        world.pass(seconds(20));
        let (conn, error) = (ConnectionId(conn), FrameError::NoType);
        match turn % 2 {
            0 => world.feed(Input::Alive { conn }),
            _ => world.feed(Input::Malformed { conn, error }),
        }
    }
    assert_eq!(world.closed(conn), None);
}

#[test]
fn a_socket_that_takes_nothing_is_closed() {
    let mut world = World::new(ServerConfig::default());
    world.hold_sockets = true;
    let conn = world.connect(Hello::new("tab"));
    world.pass(seconds(31));
    assert_eq!(world.closed(conn), Some(CloseCode::RESUME));
}

// ---- turns and presentation --------------------------------------------------------------------

#[test]
fn turns_begin_one_at_a_time_and_only_when_that_is_durable() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m0", "first");
    world.turn(&[], Ending::Done);
    world.hold_store = true;
    world.say(conn, "m1", "hello");
    world.say(conn, "m2", "more");
    while let Some((id, command)) = world.held.pop() {
        assert!(world.work.is_empty(), "nothing runs before {command:?} is stored");
        let begins = matches!(command, Command::Begin(_));
        let reply = world.store.transact(vec![command]).map(|mut it| it.remove(0));
        assert_eq!(begins, matches!(reply, Ok(Reply::Begun(true))));
        world.feed(Input::Stored(id, reply));
        if begins {
            break;
        }
    }
    assert_eq!(world.work.len(), 1);
    world.release_store();
    assert_eq!(world.work.len(), 1);
}

#[test]
fn what_is_said_after_the_end_of_a_turn_is_not_taken() {
    let mut world = World::new(ServerConfig::default());
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m1", "hello");
    let turn: Turn = world.work[0].turn.clone();
    world.turn(&["a"], Ending::Failed("it broke".to_owned()));
    world.got(conn);
    world.feed(Input::Say { turn: turn.clone(), saying: saying("late") });
    world.feed(Input::End { turn, ending: Ending::Done });
    assert_eq!(world.numbered(conn), []);
    let reload = world.connect(Hello::new("tab"));
    assert_eq!(texts(history(&world.got(reload))), ["hello", "a", "it broke"]);
}

#[test]
fn a_row_that_is_not_shown_is_in_no_frame_and_no_history() {
    struct WithoutSecrets;
    impl Presentation for WithoutSecrets {
        fn shows(&self, row: &Row) -> bool {
            !row.text.starts_with("secret")
        }
    }
    let mut world = World::showing(ServerConfig::default(), Box::new(WithoutSecrets));
    let conn = world.connect(Hello::new("tab"));
    world.got(conn);
    world.say(conn, "m1", "secret of the user");
    world.turn(&["secret", "public"], Ending::Done);
    assert_eq!(numbered_texts(&world.numbered(conn)), [(2, "m1"), (3, "public")]);
    let reload = world.connect(Hello::new("tab"));
    assert_eq!(texts(history(&world.got(reload))), ["secret of the user", "public"]);
}

#[test]
fn what_the_application_says_at_too_great_length_is_cut_where_everybody_sees_it() {
    let config = ServerConfig { text_bytes_max: 12, ..ServerConfig::default() };
    let mut world = World::new(config);
    let conn = world.connect(Hello::new("tab"));
    world.say(conn, "m1", "hello");
    world.got(conn);
    world.turn(&["ääääääääää"], Ending::Done);
    assert_eq!(numbered_texts(&world.numbered(conn)), [(3, "äää […]")]);
}
