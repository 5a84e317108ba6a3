//! The conversations on SQLite against a model that is too simple to be wrong: any commands, given
//! once or again, over restarts and over crashes that leave a torn write-ahead log.
#![cfg(feature = "sqlite")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use gapless::database::Synchronous;
use gapless::session::conversation::{
    Command, Ending, Input, Kind, Loaded, Reply, Role, Row, Saying, Verdict, What,
};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations};
use gapless::session::wire::InputRejection;
use gapless::session::{Name, Turn};
use gapless::storage::{StoreError, Transact as _};
use proptest::prelude::*;

const PRINCIPALS: [&str; 2] = ["ann", "bob"];
const QUEUE_MAX: usize = 3;

/// What is done next, in terms of what there is.
#[derive(Debug, Clone)]
enum Step {
    Message { id: u8, text: u8, known: Option<u64> },
    Answer { id: u8, text: u8, to: To },
    Begin(Pick),
    Say { turn: Pick, again: u64 },
    End { turn: Pick, how: u8 },
    Recover,
    Waiting { after: u8, count_max: usize },
    Load { count_max: usize, bytes_max: usize },
}

#[derive(Debug, Clone, Copy)]
enum To {
    Nothing,
    Open,
    Other,
}

/// A position: of an input whose turn is not over, if there is one, or so far below the next one.
#[derive(Debug, Clone, Copy)]
struct Pick {
    unfinished: bool,
    index: u64,
}

/// What happens after a transaction.
#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    /// Its outcome was not known, so that it is given again.
    Again,
    Restart,
    /// The process ends while the transaction is written: so much of it, in percent, is in the
    /// log. It is given again to the next process.
    Crash {
        written: u64,
    },
}

fn pick() -> impl Strategy<Value = Pick> {
    (prop::bool::weighted(0.8), 0..8_u64).prop_map(|(unfinished, index)| Pick { unfinished, index })
}

fn step() -> impl Strategy<Value = Step> {
    let to = prop_oneof![Just(To::Nothing), Just(To::Open), Just(To::Other)];
    prop_oneof![
        6 => (0..24_u8, 0..8_u8, prop::option::of(0..12_u64))
            .prop_map(|(id, text, known)| Step::Message { id, text: text / 7, known }),
        3 => (0..24_u8, 0..8_u8, to)
            .prop_map(|(id, text, to)| Step::Answer { id, text: text / 7, to }),
        4 => pick().prop_map(Step::Begin),
        3 => (pick(), 0..3_u64).prop_map(|(turn, again)| Step::Say { turn, again }),
        4 => (pick(), 0..3_u8).prop_map(|(turn, how)| Step::End { turn, how }),
        1 => Just(Step::Recover),
        1 => (0..3_u8, 0..3_usize)
            .prop_map(|(after, count_max)| Step::Waiting { after, count_max }),
        1 => (0..9_usize, 0..2_000_usize)
            .prop_map(|(count_max, bytes_max)| Step::Load { count_max, bytes_max }),
    ]
}

fn then() -> impl Strategy<Value = Then> {
    prop_oneof![
        4 => Just(Then::Nothing),
        3 => Just(Then::Again),
        1 => Just(Then::Restart),
        2 => prop_oneof![Just(0), 0..100_u64, Just(99), Just(100)]
            .prop_map(|written| Then::Crash { written }),
    ]
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("valid")
}

// ---- the model -------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    /// It is over, or the row is no input.
    None,
}

/// A row, and whatever else is known of it.
#[derive(Debug, Clone)]
struct Entry {
    row: Row,
    state: State,
    /// The input, without what the client knew.
    input: Option<Input>,
    /// The turn that it was said in, and as what.
    said: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Default)]
struct Conversation {
    /// Those that are kept.
    entries: Vec<Entry>,
    /// How many there were.
    count: u64,
    rejected: Vec<(Input, InputRejection)>,
    open: Option<Name>,
    kept_from: u64,
}

#[derive(Debug, Clone)]
struct Model {
    conversations: BTreeMap<&'static str, Conversation>,
    retain_rows: u64,
    questions: u64,
}

fn content(input: &Input) -> Input {
    let mut input = input.clone();
    if let What::Message { after, .. } = &mut input.what {
        *after = None;
    }
    input
}

fn row(role: Role, kind: Kind, text: &str) -> Row {
    Row {
        position: 0,
        role,
        kind,
        text: text.to_owned(),
        input: None,
        question: None,
        attachments: vec![],
        source: None,
        model: String::new(),
        usage: None,
    }
}

impl Conversation {
    fn append(
        &mut self,
        retain_rows: u64,
        row: Row,
        state: State,
        said: Option<(u64, u64)>,
    ) -> Row {
        self.count += 1;
        let row = Row { position: self.count, ..row };
        self.entries.push(Entry { row: row.clone(), state, input: None, said });
        match row.kind {
            Kind::Question => self.open = row.question.clone(),
            Kind::Answer => self.open = None,
            Kind::Message | Kind::Interrupted => {}
        }
        self.kept_from = self.kept_from.max((self.count + 1).saturating_sub(retain_rows));
        let (from, open) = (self.kept_from, self.open.clone());
        self.entries.retain(|entry| {
            let is_open = entry.row.kind == Kind::Question && entry.row.question == open;
            entry.row.position >= from || entry.state != State::None || is_open && open.is_some()
        });
        row
    }

    fn reject(&mut self, retain_rows: u64, input: &Input, reason: InputRejection) -> Verdict {
        self.rejected.push((content(input), reason));
        while self.rejected.len() as u64 > retain_rows {
            self.rejected.remove(0);
        }
        Verdict::Rejected(reason)
    }

    fn input(&mut self, retain_rows: u64, input: &Input, queue_max: usize) -> Verdict {
        let same_id = |it: &&Input| it.id == input.id;
        let accepted =
            self.entries.iter().find(|entry| entry.input.as_ref().filter(same_id).is_some());
        if let Some(entry) = accepted {
            let (position, question) = (entry.row.position, entry.row.question.clone());
            return match entry.input == Some(content(input)) {
                true => Verdict::Known { position, question },
                false => Verdict::Rejected(InputRejection::Conflict),
            };
        }
        if let Some((known, reason)) = self.rejected.iter().find(|(it, _)| it.id == input.id) {
            let same = *known == content(input);
            return Verdict::Rejected(if same { *reason } else { InputRejection::Conflict });
        }
        let mut row = row(Role::User, Kind::Message, &input.text);
        row.input = Some(input.id.clone());
        match &input.what {
            What::Message { after, .. } => {
                if after.is_some_and(|after| after + 1 < self.kept_from) {
                    return Verdict::Rejected(InputRejection::Expired);
                }
                let waiting = self.entries.iter().filter(|entry| {
                    entry.state == State::Waiting && entry.row.kind == Kind::Message
                });
                if waiting.count() >= queue_max {
                    let reason = InputRejection::QueueFull { queue_cap: queue_max as u64 };
                    return self.reject(retain_rows, input, reason);
                }
            }
            What::Answer { question, .. } => {
                row.kind = Kind::Answer;
                row.question = self.open.clone();
                let named = question.is_none() || *question == self.open;
                if self.open.is_none() || !named {
                    return self.reject(retain_rows, input, InputRejection::NotOpen);
                }
            }
        }
        let row = self.append(retain_rows, row, State::Waiting, None);
        self.entries.last_mut().expect("it waits").input = Some(content(input));
        Verdict::Accepted(row)
    }

    fn entry(&mut self, position: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.row.position == position)
    }

    fn said(&self, turn: u64, nth: u64) -> Option<Row> {
        let said = self.entries.iter().find(|entry| entry.said == Some((turn, nth)));
        said.map(|entry| entry.row.clone())
    }

    fn end(&mut self, retain_rows: u64, turn: u64, ending: &Ending) -> Option<Row> {
        match self.entry(turn).filter(|entry| entry.state != State::None) {
            Some(entry) => entry.state = State::None,
            None => return self.said(turn, 0),
        }
        let row = match ending {
            Ending::Done => return None,
            Ending::Ask { question, text, source } => Row {
                question: Some(question.clone()),
                source: Some(source.clone()),
                ..row(Role::Assistant, Kind::Question, text)
            },
            Ending::Failed(text) => row(Role::Assistant, Kind::Interrupted, text),
        };
        Some(self.append(retain_rows, row, State::None, Some((turn, 0))))
    }

    fn waiting(&self) -> Vec<Row> {
        let waiting = self.entries.iter().filter(|entry| entry.state == State::Waiting);
        let mut rows: Vec<Row> = waiting.map(|entry| entry.row.clone()).collect();
        rows.sort_by_key(|row| (row.kind != Kind::Answer, row.position));
        rows
    }

    fn load(&self, count_max: usize, bytes_max: usize) -> Loaded {
        let mut rows: Vec<Row> = Vec::new();
        for entry in self.entries.iter().rev().take(count_max) {
            let bytes: usize = rows.iter().map(Row::cost).sum();
            if !rows.is_empty() && bytes + entry.row.cost() > bytes_max {
                break;
            }
            rows.insert(0, entry.row.clone());
        }
        let asked = self.entries.iter().filter(|entry| entry.row.kind == Kind::Question);
        let open = asked.rev().find(|entry| entry.row.question == self.open);
        Loaded {
            truncated: self.kept_from > 1 || rows.len() < self.entries.len(),
            question: open.and_then(|entry| entry.row.as_question()),
            waiting: self.waiting(),
            rows,
        }
    }
}

impl Model {
    fn conversation(&mut self, principal: &str) -> &mut Conversation {
        self.conversations.get_mut(principal).expect("one of two")
    }

    /// The reply, unless the command makes no sense.
    fn run(&mut self, command: &Command) -> Option<Reply> {
        let retain_rows = self.retain_rows;
        Some(match command {
            Command::Recover => {
                let mut count = 0;
                for conversation in self.conversations.values_mut() {
                    let running: Vec<u64> = (conversation.entries.iter())
                        .filter(|entry| entry.state == State::Running)
                        .map(|entry| entry.row.position)
                        .collect();
                    count += running.len() as u64;
                    let ending = Ending::Failed("The reply was interrupted.".to_owned());
                    for turn in running {
                        conversation.end(retain_rows, turn, &ending);
                    }
                }
                Reply::Recovered(count)
            }
            Command::Waiting { after, count_max } => {
                let waiting = self.conversations.iter().filter(|(principal, conversation)| {
                    let later = after.as_deref().is_none_or(|after| **principal > after);
                    later && !conversation.waiting().is_empty()
                });
                let principals = waiting.map(|(principal, _)| Arc::from(*principal));
                Reply::Waiting(principals.take(*count_max).collect())
            }
            Command::Load { principal, count_max, bytes_max } => {
                Reply::Loaded(self.conversation(principal).load(*count_max, *bytes_max))
            }
            Command::Input { principal, input, queue_max } => {
                Reply::Input(self.conversation(principal).input(retain_rows, input, *queue_max))
            }
            Command::Begin(turn) => {
                let entry = self.conversation(&turn.principal).entry(turn.position);
                let unfinished = entry.filter(|entry| entry.state != State::None);
                Reply::Begun(unfinished.map(|entry| entry.state = State::Running).is_some())
            }
            Command::Say { turn, nth, saying } => {
                let conversation = self.conversation(&turn.principal);
                if let Some(said) = conversation.said(turn.position, *nth) {
                    return Some(Reply::Row(said));
                }
                conversation.entry(turn.position)?.input.as_ref()?;
                let row = row(Role::Assistant, Kind::Message, &saying.text);
                let said = Some((turn.position, *nth));
                Reply::Row(conversation.append(retain_rows, row, State::None, said))
            }
            Command::End { turn, ending } => {
                let conversation = self.conversation(&turn.principal);
                Reply::Ended(conversation.end(retain_rows, turn.position, ending))
            }
        })
    }

    /// What a step means here.
    fn command(&mut self, principal: &'static str, step: &Step) -> Command {
        let conversation = &self.conversations[principal];
        let input = |id: u8, text: u8, what| Command::Input {
            principal: principal.into(),
            input: Input { id: name(&format!("i-{id}")), what, text: format!("text {text}") },
            queue_max: QUEUE_MAX,
        };
        let turn = |pick: &Pick| {
            let unfinished: Vec<&Entry> =
                conversation.entries.iter().filter(|entry| entry.state != State::None).collect();
            let position = match unfinished.len() as u64 {
                count if pick.unfinished && count > 0 => {
                    unfinished[(pick.index % count) as usize].row.position
                }
                _ => (conversation.count + 1).saturating_sub(pick.index),
            };
            Turn { principal: principal.into(), position }
        };
        match step {
            Step::Message { id, text, known } => {
                let after = known.map(|known| conversation.count.saturating_sub(known));
                input(*id, *text, What::Message { attachments: vec![], after })
            }
            Step::Answer { id, text, to } => {
                let question = match to {
                    To::Nothing => None,
                    To::Open => conversation.open.clone(),
                    To::Other => Some(name(&format!("q-{}", self.questions / 2))),
                };
                input(*id, *text, What::Answer { question, asked: None })
            }
            Step::Begin(pick) => Command::Begin(turn(pick)),
            Step::Say { turn: pick, again } => {
                let turn = turn(pick);
                let said = conversation.entries.iter().filter_map(|entry| entry.said);
                let said = said.filter(|(of, _)| *of == turn.position).map(|(_, nth)| nth);
                let nth = (said.max().unwrap_or(0) + 1).saturating_sub(*again).max(1);
                let text = format!("{nth} of {}", turn.position);
                Command::Say {
                    turn,
                    nth,
                    saying: Saying { text, model: String::new(), usage: None },
                }
            }
            Step::End { turn: pick, how } => {
                let turn = turn(pick);
                self.questions += 1;
                let ending = match how {
                    0 => Ending::Done,
                    1 => Ending::Failed(format!("failed {}", turn.position)),
                    _ => Ending::Ask {
                        question: name(&format!("q-{}", self.questions)),
                        text: "which one?".to_owned(),
                        source: "cognitive".to_owned(),
                    },
                };
                Command::End { turn, ending }
            }
            Step::Recover => Command::Recover,
            Step::Waiting { after, count_max } => {
                let after = PRINCIPALS.get(usize::from(*after)).map(|it| Arc::from(*it));
                Command::Waiting { after, count_max: *count_max }
            }
            Step::Load { count_max, bytes_max } => Command::Load {
                principal: principal.into(),
                count_max: *count_max,
                bytes_max: *bytes_max,
            },
        }
    }
}

// ---- the store beside it ---------------------------------------------------------------------

struct Test {
    folder: tempfile::TempDir,
    config: ConversationsConfig,
    store: Option<SqliteConversations>,
    /// How many files there were: a crash goes on with a copy.
    copies: u32,
    model: Model,
}

impl Test {
    fn new(retain_rows: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let synchronous = Synchronous::Normal;
        let config = ConversationsConfig { retain_rows, synchronous, vfs: None };
        let new = Conversation { kept_from: 1, ..Conversation::default() };
        let conversations = PRINCIPALS.map(|principal| (principal, new.clone())).into();
        let model = Model { conversations, retain_rows, questions: 0 };
        let mut test = Self { folder, config, store: None, copies: 0, model };
        test.restart();
        test
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("{}.db{suffix}", self.copies))
    }

    fn restart(&mut self) {
        self.store = None;
        let store = SqliteConversations::open(&self.file(""), &self.config).expect("it opens");
        self.store = Some(store);
    }

    fn log_bytes(&self) -> u64 {
        std::fs::metadata(self.file("-wal")).map_or(0, |file| file.len())
    }

    /// All or nothing of a transaction, at the store as in the model.
    fn run(&mut self, commands: &[Command]) -> Option<Vec<Reply>> {
        let before = self.model.clone();
        let expected: Option<Vec<Reply>> = commands.iter().map(|it| self.model.run(it)).collect();
        let store = self.store.as_mut().expect("it is open");
        match (store.transact(commands.to_vec()), &expected) {
            (Ok(replies), Some(expected)) => assert_eq!(replies, *expected, "{commands:?}"),
            (Err(StoreError::NotApplied(_)), None) => self.model = before,
            (replies, _) => panic!("{expected:?} expected of {commands:?}: {replies:?}"),
        }
        expected
    }

    /// One transaction, and what happens after it.
    fn batch(&mut self, steps: &[(usize, Step)], then: Then) {
        let before = self.model.clone();
        let mut commands = Vec::new();
        for (who, step) in steps {
            let command = self.model.command(PRINCIPALS[*who], step);
            self.model.run(&command);
            commands.push(command);
        }
        let before = Model { questions: self.model.questions, ..before };
        self.model = before.clone();
        let log_before = self.log_bytes();
        let replies = self.run(&commands);
        match then {
            Then::Nothing => {}
            Then::Again => {
                let again = self.run(&commands);
                if let [reply] = replies.as_deref().unwrap_or_default() {
                    assert_eq!(again, Some(vec![when_given_again(reply)]), "{commands:?}");
                }
            }
            Then::Restart => self.restart(),
            Then::Crash { written } => {
                let written = (self.log_bytes() - log_before) * written / 100;
                if !self.crash(log_before + written) {
                    self.model = before;
                }
                self.check();
                self.run(&commands);
            }
        }
        self.check();
    }

    /// Goes on with what a crash leaves, with a log that ends at some byte. Says whether the last
    /// transaction is in it: the end of the log is what commits it.
    fn crash(&mut self, log_end: u64) -> bool {
        let survives = log_end == self.log_bytes();
        let (file, log) = (self.file(""), self.file("-wal"));
        self.copies += 1;
        std::fs::copy(file, self.file("")).expect("copied");
        if log.exists() {
            std::fs::copy(log, self.file("-wal")).expect("copied");
            let torn = std::fs::File::options().write(true).open(self.file("-wal"));
            torn.expect("it opens").set_len(log_end).expect("cut");
        }
        self.restart();
        survives
    }

    /// Everything that can be asked for is what the model says.
    fn check(&mut self) {
        let load = |principal: &&str| Command::Load {
            principal: (*principal).into(),
            count_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let mut questions: Vec<Command> = PRINCIPALS.iter().map(load).collect();
        questions.push(Command::Waiting { after: None, count_max: usize::MAX });
        self.run(&questions);
    }
}

/// What a command is answered that is given twice in a row.
fn when_given_again(reply: &Reply) -> Reply {
    match reply {
        Reply::Input(Verdict::Accepted(row)) => {
            let (position, question) = (row.position, row.question.clone());
            Reply::Input(Verdict::Known { position, question })
        }
        Reply::Recovered(_) => Reply::Recovered(0),
        same => same.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_list_would_do(
        retain_rows in prop_oneof![1..4_u64, 4..12_u64, Just(1_000)],
        batches in prop::collection::vec(
            (prop::collection::vec((0..PRINCIPALS.len(), step()), 1..6), then()),
            1..40,
        ),
    ) {
        let mut test = Test::new(retain_rows);
        for (steps, then) in &batches {
            test.batch(steps, *then);
        }
    }

    #[test]
    fn every_command_can_be_given_again(
        steps in prop::collection::vec((0..PRINCIPALS.len(), step(), 0..2_u8), 1..80),
    ) {
        let mut test = Test::new(8);
        for (who, step, again) in steps {
            let then = if again == 0 { Then::Again } else { Then::Nothing };
            test.batch(&[(who, step)], then);
        }
    }
}
