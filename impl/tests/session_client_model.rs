//! The client's core of the session protocol against a small server, over links that lose and
//! double frames, cut, and come back to a server or a client that has restarted.
//!
//! In the end the link is sound, and then the client must show what the server has: every row once
//! and in its place, the open question, and nothing in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gapless::recovery::{Epoch, Instant};
use gapless::session::client::{Client, ClientConfig, Input, Output, Resume, Submission};
use gapless::session::conversation::{Input as UserInput, Kind, Role};
use gapless::session::in_flight::Command;
use gapless::session::view::{Connection, View};
use gapless::session::wire::{
    Assistant, Begin, Body, ClientFrame, CursorVerdict, History, HistoryMessage, InputRejection,
    Question, ServerFrame, Status,
};
use gapless::session::{ConnectionId, Name};
use gapless::storage::StoreError;
use gapless::{Core, Ticket};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

/// Few, so that a short absence is too long for a replay.
const RING_FRAMES: usize = 6;
const PING_EVERY_MS: u64 = 25_000;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// The application says something.
    Say,
    /// The application asks something.
    Ask,
    /// The user says something.
    Submit,
    /// The user answers, if there is a question.
    Answer,
    /// Another client says something, or answers.
    Other,
    /// So many of the next frames of the server are lost.
    Lose(usize),
    /// So many of the next frames of the server come twice.
    Double(usize),
    /// So many of the next frames of the client are lost.
    LoseUp(usize),
    /// So many of the next attempts to store fail.
    StoreFails(usize),
    Cut,
    ServerRestarts,
    ClientRestarts,
    /// Time passes, in seconds.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Say),
        3 => Just(Step::Ask),
        5 => Just(Step::Submit),
        3 => Just(Step::Answer),
        2 => Just(Step::Other),
        2 => (1_usize..4).prop_map(Step::Lose),
        1 => (1_usize..4).prop_map(Step::Double),
        2 => (1_usize..4).prop_map(Step::LoseUp),
        1 => (1_usize..4).prop_map(Step::StoreFails),
        3 => Just(Step::Cut),
        1 => Just(Step::ServerRestarts),
        1 => Just(Step::ClientRestarts),
        6 => (1_u64..40).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..60)
}

// ---- the server --------------------------------------------------------------------------------

struct Outbox {
    epoch: Epoch,
    last: u64,
    ring: VecDeque<ServerFrame>,
}

struct Server {
    extension: bool,
    rows: Vec<HistoryMessage>,
    open: Option<Question>,
    inputs: BTreeMap<Name, (u64, Option<Name>)>,
    outbox: Option<Outbox>,
    outboxes: u64,
    conn: Option<ConnectionId>,
    sent: u64,
    /// What is on its way to the client: text, so that it is read as it is written.
    wire: VecDeque<String>,
}

impl Server {
    fn connect(&mut self, conn: ConnectionId, resume: &Resume) {
        self.conn = Some(conn);
        self.wire.clear();
        self.sent = 0;
        let verdict = self.judge(resume);
        let base_last = if self.extension { 0 } else { resume.since };
        if self.outbox.is_none() {
            self.outboxes += 1;
            let epoch = Epoch::parse(&format!("e{}", self.outboxes)).expect("valid");
            self.outbox = Some(Outbox { epoch, last: base_last, ring: VecDeque::new() });
        }
        let outbox = self.outbox.as_mut().expect("there is one now");
        if !self.extension {
            outbox.last = outbox.last.max(base_last);
        }
        let from = if verdict.is_history() { outbox.last + 1 } else { resume.since + 1 };
        let to = if verdict.is_history() { from } else { outbox.last };
        let begin = Begin { epoch: outbox.epoch.clone(), verdict, from, to };
        let missed: Vec<ServerFrame> =
            outbox.ring.iter().filter(|frame| frame.seq > resume.since).cloned().collect();
        if self.extension {
            self.write(&ServerFrame { seq: 0, body: Body::Begin(begin) });
        }
        if verdict.is_history() {
            self.write_history();
        } else {
            for frame in missed {
                self.write(&frame);
            }
        }
        self.write(&ServerFrame { seq: 0, body: Body::Status(self.status()) });
    }

    fn judge(&self, resume: &Resume) -> CursorVerdict {
        let Some(outbox) = self.outbox.as_ref().filter(|_| resume.since > 0) else {
            return CursorVerdict::Unknown;
        };
        let is_other = resume.epoch.as_ref() != Some(&outbox.epoch);
        if self.extension && is_other {
            return CursorVerdict::OtherEpoch;
        }
        let oldest = outbox.ring.front().map_or(outbox.last + 1, |frame| frame.seq);
        match resume.since {
            since if since > outbox.last => CursorVerdict::Ahead,
            since if since + 1 < oldest => CursorVerdict::TooOld,
            since if since == outbox.last => CursorVerdict::UpToDate,
            _ => CursorVerdict::Replay,
        }
    }

    fn write_history(&mut self) {
        let status = self.status();
        let outbox = self.outbox.as_mut().expect("it is connected");
        outbox.last += 1;
        let history = History {
            epoch: Some(outbox.epoch.clone()),
            messages: self.rows.clone(),
            status: Some(status),
            open_question: self.open.clone(),
            truncated: false,
        };
        let seq = outbox.last;
        // It is not kept, and neither is what it shows.
        outbox.ring.clear();
        self.write(&ServerFrame { seq, body: Body::History(Arc::new(history)) });
        if let Some(question) = self.open.clone().filter(|_| !self.extension) {
            self.tell(Body::Question { question, position: None });
        }
    }

    fn write(&mut self, frame: &ServerFrame) {
        self.sent = self.sent.max(frame.seq);
        self.wire.push_back(frame.to_text(self.extension));
    }

    fn tell(&mut self, body: Body) {
        let Some(outbox) = self.outbox.as_mut() else { return };
        if body.is_extension() && !self.extension {
            return;
        }
        outbox.last += 1;
        let frame = ServerFrame { seq: outbox.last, body };
        outbox.ring.push_back(frame.clone());
        if outbox.ring.len() > RING_FRAMES {
            outbox.ring.pop_front();
        }
        if self.conn.is_some() {
            self.write(&frame);
        }
    }

    fn tell_status(&mut self) {
        if self.conn.is_some() {
            self.write(&ServerFrame { seq: 0, body: Body::Status(self.status()) });
        }
    }

    fn status(&self) -> Status {
        if self.open.is_some() { Status::Waiting } else { Status::Idle }
    }

    fn add(&mut self, role: Role, kind: Kind, text: &str) -> &mut HistoryMessage {
        self.rows.push(HistoryMessage {
            role,
            text: text.to_owned(),
            position: Some(self.rows.len() as u64 + 1),
            kind: Some(kind),
            input: None,
            question: None,
            attachments: vec![],
        });
        self.rows.last_mut().expect("just added")
    }

    fn say(&mut self, text: &str) {
        if self.open.is_some() {
            return;
        }
        let position = self.add(Role::Assistant, Kind::Message, text).position;
        self.tell(Body::Assistant(Assistant {
            text: text.to_owned(),
            model: String::new(),
            usage: None,
            position,
            kind: None,
        }));
    }

    fn ask(&mut self, id: Name, text: &str) {
        if self.open.is_some() {
            return;
        }
        let row = self.add(Role::Assistant, Kind::Question, text);
        row.question = Some(id.clone());
        let position = row.position;
        let question = Question { id: Some(id), text: text.to_owned(), source: String::new() };
        self.open = Some(question.clone());
        self.tell(Body::Question { question, position });
        self.tell_status();
    }

    /// Another client answers, or says something.
    fn other(&mut self, text: &str) {
        let body = match self.open.take() {
            Some(question) => {
                let row = self.add(Role::User, Kind::Answer, text);
                row.question = question.id.clone();
                let position = row.position.expect("each has one");
                Body::UserAnswer { position, question: question.id, text: text.to_owned() }
            }
            None => {
                let row = self.add(Role::User, Kind::Message, text);
                let position = row.position.expect("each has one");
                let text = text.to_owned();
                Body::UserMessage { position, id: None, text, attachments: vec![] }
            }
        };
        self.tell(body);
        self.tell_status();
    }

    fn receive(&mut self, text: &str) {
        match ClientFrame::parse(text).expect("a client's frame is well-formed") {
            ClientFrame::UserMessage { id, text, .. } => {
                let id = id.expect("this client names them");
                let position = match self.inputs.get(&id) {
                    Some((position, _)) => *position,
                    None => {
                        let row = self.add(Role::User, Kind::Message, &text);
                        row.input = Some(id.clone());
                        let position = row.position.expect("each has one");
                        self.inputs.insert(id.clone(), (position, None));
                        position
                    }
                };
                self.tell(Body::MessageAck { id, position: Some(position) });
            }
            ClientFrame::UserAnswer { id, question, text } => self.answered(id, question, &text),
            ClientFrame::Ack { seq, epoch } => {
                let outbox = self.outbox.as_mut().expect("it is connected");
                assert!(seq <= outbox.last, "{seq} was never sent");
                if !self.extension || epoch.as_ref() == Some(&outbox.epoch) {
                    outbox.ring.retain(|frame| frame.seq > seq);
                }
            }
            ClientFrame::Pong => {}
        }
    }

    fn answered(&mut self, id: Option<Name>, question: Option<Name>, text: &str) {
        if let Some(id) = &id
            && let Some((position, question)) = self.inputs.get(id).cloned()
        {
            self.tell(Body::AnswerAck { id: id.clone(), question, position });
            return;
        }
        let open = self.open.as_ref().and_then(|open| open.id.clone());
        let is_open = open.is_some() && (question == open || !self.extension);
        match id {
            Some(id) if !is_open => {
                let reason = InputRejection::NotOpen;
                self.tell(Body::AnswerRejected { id, question, reason });
            }
            _ if !is_open => {}
            id => {
                self.open = None;
                let row = self.add(Role::User, Kind::Answer, text);
                (row.input, row.question) = (id.clone(), open.clone());
                let position = row.position.expect("each has one");
                if let Some(id) = id {
                    self.inputs.insert(id.clone(), (position, open.clone()));
                    self.tell(Body::AnswerAck { id, question: open, position });
                }
                self.tell_status();
            }
        }
    }
}

// ---- the world ---------------------------------------------------------------------------------

struct World {
    client: Client,
    server: Server,
    now: u64,
    next_ping: u64,
    dialled: Option<(ConnectionId, Resume)>,
    store: Vec<UserInput>,
    shown: Arc<View>,
    lose: usize,
    double: usize,
    lose_up: usize,
    store_fails: usize,
    texts: u64,
    lives: u64,
}

fn client(extension: bool, life: u64) -> Client {
    let config = ClientConfig { extension, ..ClientConfig::default() };
    Client::new(config, Box::new(ChaCha12Rng::seed_from_u64(life)))
}

impl World {
    fn new(extension: bool) -> Self {
        let server = Server {
            extension,
            rows: vec![],
            open: None,
            inputs: BTreeMap::new(),
            outbox: None,
            outboxes: 0,
            conn: None,
            sent: 0,
            wire: VecDeque::new(),
        };
        let mut world = Self {
            client: client(extension, 0),
            server,
            now: 0,
            next_ping: PING_EVERY_MS,
            dialled: None,
            store: vec![],
            shown: Arc::default(),
            lose: 0,
            double: 0,
            lose_up: 0,
            store_fails: 0,
            texts: 0,
            lives: 0,
        };
        world.feed(Input::Start { in_flight: vec![] });
        world
    }

    /// A text that nobody has used, so that rows of a base server can be told apart.
    fn text(&mut self, what: &str) -> String {
        self.texts += 1;
        format!("{what}-{}", self.texts)
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.client.handle(Instant::from_millis(self.now), input);
            while let Some(output) = self.client.poll() {
                match output {
                    Output::Dial { conn, resume, .. } => self.dialled = Some((conn, resume)),
                    Output::Send { conn, frame } => {
                        let is_lost = self.lose_up > 0;
                        self.lose_up = self.lose_up.saturating_sub(1);
                        if self.server.conn == Some(conn) && !is_lost {
                            self.server.receive(&frame.to_text(self.server.extension));
                        }
                    }
                    Output::Close { conn, .. } => {
                        if self.server.conn == Some(conn) {
                            self.server.conn = None;
                        }
                    }
                    Output::Store(id, command) => {
                        let result = self.run(command);
                        inputs.push_back(Input::Stored(id, result));
                    }
                    Output::Submitted { .. } => {}
                    Output::Show(view) => self.look(view),
                }
            }
        }
    }

    /// A failure of unknown outcome may have stored it.
    fn run(&mut self, command: Command) -> Result<(), StoreError> {
        let fails = self.store_fails > 0;
        self.store_fails = self.store_fails.saturating_sub(1);
        if fails && self.store_fails.is_multiple_of(2) {
            return Err(StoreError::NotApplied("a fault".to_owned()));
        }
        match command {
            Command::Keep(input) => {
                if self.store.iter().all(|kept| kept.id != input.id) {
                    self.store.push(input);
                }
            }
            Command::Drop(id) => self.store.retain(|kept| kept.id != id),
        }
        if fails { Err(StoreError::Unknown("a fault".to_owned())) } else { Ok(()) }
    }

    /// Nothing is ever shown twice, and every row is in its place.
    fn look(&mut self, view: Arc<View>) {
        let positions: Vec<_> = view.messages.iter().map(|row| row.position).collect();
        if self.server.extension {
            assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
        }
        let mut texts: Vec<&str> = view.messages.iter().map(|row| row.text.as_str()).collect();
        texts.extend(view.rejected.iter().map(|rejected| rejected.input.text.as_str()));
        if self.server.extension {
            // The history of a base server does not say what it has of that.
            texts.extend(view.pending.iter().map(|pending| pending.input.text.as_str()));
        }
        texts.sort_unstable();
        assert!(texts.is_sorted_by(|a, b| a < b), "shown twice: {texts:?}");
        self.shown = view;
    }

    /// Everything arrives that is on its way.
    fn settle(&mut self) {
        loop {
            if let Some((conn, resume)) = self.dialled.take() {
                self.server.connect(conn, &resume);
                let extension = self.server.extension;
                self.feed(Input::Opened { conn, extension });
            } else if let Some(conn) = self.server.conn
                && let Some(text) = self.server.wire.pop_front()
            {
                if self.lose > 0 {
                    self.lose -= 1;
                    if !self.server.extension || text.contains("session_begin") {
                        // Nothing but a new connection shows what is lacking.
                        self.cut();
                    }
                    continue;
                }
                if self.double > 0 {
                    self.double -= 1;
                    self.server.wire.push_front(text.clone());
                }
                let frame = ServerFrame::parse(&text).expect("a server's frame is well-formed");
                self.feed(Input::Frame { conn, frame });
            } else {
                return;
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        let end = self.now + ms;
        self.settle();
        loop {
            let due = self.client.deadline().map_or(u64::MAX, Instant::as_millis);
            let next = due.min(self.next_ping);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if self.next_ping <= self.now {
                self.next_ping = self.now + PING_EVERY_MS;
                if self.server.conn.is_some() {
                    let body = Body::Ping { sent: Some(self.server.sent) };
                    self.server
                        .wire
                        .push_back(ServerFrame { seq: 0, body }.to_text(self.server.extension));
                }
            } else {
                self.feed(Input::Timeout);
            }
            self.settle();
        }
        self.now = end;
    }

    fn cut(&mut self) {
        if let Some(conn) = self.server.conn.take() {
            self.server.wire.clear();
            self.feed(Input::Closed { conn, code: None });
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Say => {
                let text = self.text("said");
                self.server.say(&text);
            }
            Step::Ask => {
                let text = self.text("asked");
                self.server.ask(Name::parse(&text).expect("valid"), &text);
            }
            Step::Submit => {
                let text = self.text("mine");
                let what = Submission::Message { text, attachments: vec![] };
                self.feed(Input::Submit { ticket: Ticket(0), what });
            }
            Step::Answer => {
                let text = self.text("answer");
                let what = Submission::Answer { text };
                self.feed(Input::Submit { ticket: Ticket(0), what });
            }
            // The base contract has no frame for it.
            Step::Other if !self.server.extension => {}
            Step::Other => {
                let text = self.text("other");
                self.server.other(&text);
            }
            Step::Lose(frames) => self.lose = *frames,
            Step::Double(frames) => self.double = *frames,
            Step::LoseUp(frames) => self.lose_up = *frames,
            Step::StoreFails(times) => self.store_fails = *times,
            Step::Cut => self.cut(),
            Step::ServerRestarts => {
                self.server.outbox = None;
                self.cut();
            }
            Step::ClientRestarts => self.restart_client(),
            Step::Wait(seconds) => self.wait(seconds * 1_000),
        }
        self.settle();
    }

    fn restart_client(&mut self) {
        self.server.conn = None;
        self.dialled = None;
        self.lives += 1;
        self.client = client(self.server.extension, self.lives);
        self.shown = Arc::default();
        self.feed(Input::Start { in_flight: self.store.clone() });
    }

    /// The faults are over.
    fn heal(&mut self) {
        (self.lose, self.double, self.lose_up, self.store_fails) = (0, 0, 0, 0);
        for _ in 0..3 {
            self.wait(120_000);
            let text = self.text("end");
            self.server.say(&text);
            self.wait(120_000);
        }
    }

    fn check(&self) {
        let view = &*self.shown;
        assert_eq!(view.connection, Connection::Live);
        assert_eq!((&view.pending, &self.store), (&vec![], &vec![]), "everything has a verdict");
        assert_eq!(view.status, self.server.status());
        if self.server.extension {
            let shown: Vec<&HistoryMessage> = view.messages.iter().map(|row| &**row).collect();
            assert_eq!(shown, self.server.rows.iter().collect::<Vec<_>>());
            assert_eq!(view.open_question, self.server.open);
        } else {
            // A base server does not say where an answer belongs.
            let mut shown: Vec<_> = view.messages.iter().map(|row| row.text.as_str()).collect();
            let mut rows: Vec<_> = self.server.rows.iter().map(|row| row.text.as_str()).collect();
            shown.sort_unstable();
            rows.sort_unstable();
            assert_eq!(shown, rows);
            let text = |question: &Option<Question>| question.as_ref().map(|it| it.text.clone());
            assert_eq!(text(&view.open_question), text(&self.server.open));
        }
    }
}

fn run(extension: bool, steps: &[Step]) {
    let mut world = World::new(extension);
    world.settle();
    for step in steps {
        world.step(step);
    }
    world.heal();
    world.check();
}

proptest! {
    #[test]
    fn the_view_becomes_what_the_server_has(steps in steps()) {
        run(true, &steps);
    }

    #[test]
    fn the_view_becomes_what_a_base_server_has(steps in steps()) {
        run(false, &steps);
    }
}
