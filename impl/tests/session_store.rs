//! The stores of the session protocol on SQLite: what they accept, what they remember, and what
//! they do with databases that are not theirs.
#![cfg(feature = "sqlite")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gapless::database::{OpenError, Synchronous};
use gapless::recovery::Entropy;
use gapless::session::conversation::{
    Command, Ending, Input, Kind, Loaded, Reply, Role, Row, Saying, Verdict, What,
};
use gapless::session::in_flight::{self, Kept};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations, SqliteInFlight};
use gapless::session::wire::{Attachment, InputRejection, Usage};
use gapless::session::{Name, Turn};
use gapless::storage::{StoreError, Transact as _};

fn name(text: &str) -> Name {
    Name::parse(text).expect("valid")
}

fn attachment(slug: &str) -> Attachment {
    Attachment {
        filename: "plan.pdf".to_owned(),
        doc_id: "d-1".to_owned(),
        slug: slug.to_owned(),
        title: None,
    }
}

fn message(id: &str, text: &str) -> Input {
    message_after(id, text, None)
}

fn message_after(id: &str, text: &str, after: Option<u64>) -> Input {
    let what = What::Message { attachments: vec![], after };
    Input { id: name(id), what, text: text.to_owned() }
}

fn answer(id: &str, question: Option<&str>, text: &str) -> Input {
    let what = What::Answer { question: question.map(name), asked: None };
    Input { id: name(id), what, text: text.to_owned() }
}

fn turn(position: u64) -> Turn {
    Turn { principal: "ann".into(), position }
}

fn ask(question: &str) -> Ending {
    let (text, source) = ("which one?".to_owned(), "agent:shop".to_owned());
    Ending::Ask { question: name(question), text, source }
}

fn load(principal: &str) -> Command {
    Command::Load { principal: principal.into(), count_max: 1_000, bytes_max: usize::MAX }
}

fn positions(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(|row| row.position).collect()
}

const NOT_OPEN: Verdict = Verdict::Rejected(InputRejection::NotOpen);
const CONFLICT: Verdict = Verdict::Rejected(InputRejection::Conflict);
const EXPIRED: Verdict = Verdict::Rejected(InputRejection::Expired);
const QUEUE_MAX: usize = 3;
const QUEUE_FULL: Verdict =
    Verdict::Rejected(InputRejection::QueueFull { queue_cap: QUEUE_MAX as u64 });

fn known(position: u64) -> Verdict {
    Verdict::Known { position, question: None }
}

/// A store in a folder of its own. Commands are ann's, where nothing else is said.
struct Fixture {
    folder: tempfile::TempDir,
    config: ConversationsConfig,
    store: Option<SqliteConversations>,
}

impl Fixture {
    fn new() -> Self {
        Self::retaining(100)
    }

    fn retaining(retain_rows: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let synchronous = Synchronous::Normal;
        let config = ConversationsConfig { retain_rows, synchronous, vfs: None };
        let mut fixture = Self { folder, config, store: None };
        fixture.reopen();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("conversations.db")
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(SqliteConversations::open(&self.path(), &self.config).expect("it opens"));
    }

    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        self.store.as_mut().expect("it is open").transact(commands)
    }

    fn ask(&mut self, command: Command) -> Reply {
        self.transact(vec![command]).expect("it works").remove(0)
    }

    fn input_of(&mut self, principal: &str, input: Input) -> Verdict {
        let principal = principal.into();
        match self.ask(Command::Input { principal, input, queue_max: QUEUE_MAX }) {
            Reply::Input(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }

    fn input(&mut self, input: Input) -> Verdict {
        self.input_of("ann", input)
    }

    /// The position of an input that is accepted now.
    fn accepted(&mut self, input: Input) -> u64 {
        match self.input(input) {
            Verdict::Accepted(row) => row.position,
            other => panic!("{other:?}"),
        }
    }

    fn begin(&mut self, position: u64) -> bool {
        match self.ask(Command::Begin(turn(position))) {
            Reply::Begun(begun) => begun,
            other => panic!("{other:?}"),
        }
    }

    fn say(&mut self, position: u64, nth: u64) -> Row {
        let saying = Saying {
            text: format!("{nth} of {position}"),
            model: "m".to_owned(),
            usage: Some(Usage { input: u64::MAX, output: 3 }),
        };
        match self.ask(Command::Say { turn: turn(position), nth, saying }) {
            Reply::Row(row) => row,
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, position: u64, ending: Ending) -> Option<Row> {
        match self.ask(Command::End { turn: turn(position), ending }) {
            Reply::Ended(row) => row,
            other => panic!("{other:?}"),
        }
    }

    /// A message and its turn, which ends at once.
    fn exchange(&mut self, id: &str, ending: Ending) -> u64 {
        let position = self.accepted(message(id, "hello"));
        assert!(self.begin(position));
        self.end(position, ending);
        position
    }

    fn recover(&mut self) -> u64 {
        match self.ask(Command::Recover) {
            Reply::Recovered(count) => count,
            other => panic!("{other:?}"),
        }
    }

    fn waiting(&mut self, after: Option<&str>, count_max: usize) -> Vec<String> {
        match self.ask(Command::Waiting { after: after.map(Arc::from), count_max }) {
            Reply::Waiting(principals) => principals.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn load(&mut self) -> Loaded {
        match self.ask(load("ann")) {
            Reply::Loaded(loaded) => loaded,
            other => panic!("{other:?}"),
        }
    }

    fn open_question(&mut self) -> Option<Name> {
        self.load().question.and_then(|question| question.id)
    }

    /// Changes the file behind the store's back.
    fn tamper(&mut self, sql: &str) {
        self.store = None;
        tamper(&self.path(), sql);
        self.reopen();
    }
}

fn tamper(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).expect("it opens").execute_batch(sql).expect("it runs");
}

// ---- inputs ----------------------------------------------------------------------------------

#[test]
fn an_input_is_a_row_with_everything_that_was_said() {
    let mut store = Fixture::new();
    let attachments = vec![attachment("plan"), attachment("other")];
    let what = What::Message { attachments: attachments.clone(), after: Some(0) };
    let input = Input { id: name("m-1"), what, text: "two\nlines, and \"quotes\"".to_owned() };
    let Verdict::Accepted(row) = store.input(input.clone()) else { panic!("accepted") };
    let expected = Row {
        position: 1,
        role: Role::User,
        kind: Kind::Message,
        text: input.text,
        input: Some(name("m-1")),
        question: None,
        attachments,
        source: None,
        model: String::new(),
        usage: None,
    };
    assert_eq!(row, expected);
    store.reopen();
    let loaded = store.load();
    assert_eq!((loaded.rows, loaded.waiting), (vec![expected.clone()], vec![expected]));
    assert!(!loaded.truncated);
}

#[test]
fn an_input_is_accepted_once_whatever_happens_in_between() {
    let mut store = Fixture::new();
    let position = store.accepted(message("m-1", "hello"));
    assert_eq!(store.input(message("m-1", "hello")), known(position));
    store.reopen();
    store.begin(position);
    assert_eq!(store.input(message("m-1", "hello")), known(position));
    store.end(position, Ending::Done);
    assert_eq!(store.recover(), 0);
    assert_eq!(store.input(message("m-1", "hello")), known(position));
    assert_eq!(positions(&store.load().rows), [position]);
}

#[test]
fn an_id_that_comes_again_with_other_content_is_a_conflict_and_the_first_one_stands() {
    let mut store = Fixture::new();
    store.exchange("m-1", ask("q-1"));
    let with_attachment = Input {
        what: What::Message { attachments: vec![attachment("plan")], after: None },
        ..message("m-1", "hello")
    };
    assert_eq!(store.input(message("m-1", "hello!")), CONFLICT);
    assert_eq!(store.input(with_attachment), CONFLICT);
    assert_eq!(store.input(answer("m-1", Some("q-1"), "hello")), CONFLICT);
    assert_eq!(store.open_question(), Some(name("q-1")), "the question is not answered");
    assert_eq!(store.input(message("m-1", "hello")), known(1));
    assert_eq!(store.load().rows.len(), 2);
}

#[test]
fn what_a_client_knew_when_it_wrote_a_message_is_no_part_of_its_content() {
    let mut store = Fixture::new();
    store.accepted(message_after("m-1", "hello", None));
    assert_eq!(store.input(message_after("m-1", "hello", Some(0))), known(1));
    assert_eq!(store.input(message_after("m-1", "hello", Some(u64::MAX))), known(1));
}

#[test]
fn two_principals_that_use_the_same_id_mean_two_inputs() {
    let mut store = Fixture::new();
    store.accepted(message("m-1", "hello"));
    let verdict = store.input_of("bob", message("m-1", "something else"));
    assert!(matches!(verdict, Verdict::Accepted(row) if row.position == 1));
}

#[test]
fn a_message_beyond_those_that_may_wait_is_rejected_for_good() {
    let mut store = Fixture::new();
    store.exchange("m-0", ask("q-1"));
    for n in 1..=3 {
        store.accepted(message(&format!("m-{n}"), "hello"));
    }
    assert_eq!(store.input(message("m-4", "hello")), QUEUE_FULL);
    let first = store.accepted(answer("a-1", Some("q-1"), "an answer does not count"));
    assert_eq!(store.input(message("m-5", "hello")), QUEUE_FULL);
    store.begin(first);
    store.end(first, Ending::Done);
    store.begin(3);
    let room = message("m-6", "there is room now");
    assert!(matches!(store.input(room), Verdict::Accepted(_)));
    store.begin(4);
    store.reopen();
    let (principal, queue_max) = ("ann".into(), 99);
    let again = Command::Input { principal, input: message("m-4", "hello"), queue_max };
    assert_eq!(store.ask(again), Reply::Input(QUEUE_FULL), "the verdict holds");
    assert_eq!(store.input(message("m-4", "hello!")), CONFLICT);
}

// ---- questions -------------------------------------------------------------------------------

#[test]
fn a_question_is_open_until_its_answer_is_a_row() {
    let mut store = Fixture::new();
    store.exchange("m-1", ask("q-1"));
    store.reopen();
    let loaded = store.load();
    let question = loaded.question.expect("it is open");
    assert_eq!(loaded.rows[1].as_question(), Some(question.clone()));
    assert_eq!((question.text.as_str(), question.source.as_str()), ("which one?", "agent:shop"));
    let position = store.accepted(answer("a-1", Some("q-1"), "that one"));
    let loaded = store.load();
    assert_eq!(loaded.question, None);
    assert_eq!(loaded.rows[2].question, Some(name("q-1")));
    let known = Verdict::Known { position, question: Some(name("q-1")) };
    assert_eq!(store.input(answer("a-1", Some("q-1"), "that one")), known);
    assert_eq!(store.input(answer("a-2", Some("q-1"), "that one")), NOT_OPEN);
}

#[test]
fn an_answer_that_names_no_question_is_to_the_open_one() {
    let mut store = Fixture::new();
    assert_eq!(store.input(answer("a-1", None, "yes")), NOT_OPEN);
    store.exchange("m-1", ask("q-1"));
    assert_eq!(store.input(answer("a-1", None, "yes")), NOT_OPEN, "the verdict holds");
    let Verdict::Accepted(row) = store.input(answer("a-2", None, "yes")) else { panic!("open") };
    assert_eq!(row.question, Some(name("q-1")));
    let known = Verdict::Known { position: row.position, question: Some(name("q-1")) };
    assert_eq!(store.input(answer("a-2", None, "yes")), known);
}

#[test]
fn an_answer_to_another_question_is_rejected_for_good() {
    let mut store = Fixture::new();
    let first = store.exchange("m-1", ask("q-1"));
    assert_eq!(store.input(answer("a-1", Some("q-2"), "yes")), NOT_OPEN);
    let position = store.accepted(answer("a-2", Some("q-1"), "no"));
    assert!(position > first && store.begin(position));
    store.end(position, ask("q-2"));
    store.reopen();
    assert_eq!(store.input(answer("a-1", Some("q-2"), "yes")), NOT_OPEN);
    assert_eq!(store.input(answer("a-1", Some("q-2"), "no")), CONFLICT);
    assert_eq!(store.open_question(), Some(name("q-2")));
}

#[test]
fn an_answer_waits_in_front_of_the_messages() {
    let mut store = Fixture::new();
    store.exchange("m-1", ask("q-1"));
    store.accepted(message("m-2", "hello"));
    store.accepted(message("m-3", "hello"));
    store.accepted(answer("a-1", None, "yes"));
    assert_eq!(positions(&store.load().waiting), [5, 3, 4]);
    store.begin(5);
    assert_eq!(positions(&store.load().waiting), [3, 4]);
}

// ---- turns -----------------------------------------------------------------------------------

#[test]
fn a_turn_begins_until_it_is_over() {
    let mut store = Fixture::new();
    assert!(!store.begin(1), "there is no conversation");
    let position = store.accepted(message("m-1", "hello"));
    assert!(store.begin(position));
    assert!(store.begin(position), "it runs already");
    assert!(!store.begin(position + 1), "there is no such row");
    let said = store.say(position, 1);
    assert!(!store.begin(said.position), "that is no input");
    assert_eq!(store.end(position, Ending::Done), None);
    assert!(!store.begin(position));
}

#[test]
fn what_is_said_again_is_the_same_row() {
    let mut store = Fixture::new();
    let position = store.accepted(message("m-1", "hello"));
    store.begin(position);
    let first = store.say(position, 1);
    assert_eq!((first.position, first.text.as_str(), first.model.as_str()), (2, "1 of 1", "m"));
    assert_eq!(first.usage, Some(Usage { input: u64::MAX, output: 3 }));
    let other = store.accepted(message("m-2", "hello"));
    assert_eq!(store.say(position, 1), first);
    store.reopen();
    assert_eq!(store.say(position, 2).position, other + 1);
    store.end(position, Ending::Done);
    assert_eq!(store.say(position, 1), first, "also when the turn is over");
    assert_eq!(positions(&store.load().rows), [1, 2, 3, 4]);
}

#[test]
fn a_turn_ends_once_whatever_is_said_of_it_later() {
    let mut store = Fixture::new();
    for (n, ending) in
        [Ending::Done, ask("q-1"), Ending::Failed("no".to_owned())].iter().enumerate()
    {
        let position = store.accepted(message(&format!("m-{n}"), "hello"));
        store.begin(position);
        let row = store.end(position, ending.clone());
        assert_eq!(row.is_none(), *ending == Ending::Done);
        let rows = store.load().rows;
        assert_eq!(store.end(position, ending.clone()), row);
        assert_eq!(store.end(position, Ending::Failed("late".to_owned())), row);
        assert_eq!(store.load().rows, rows);
    }
    assert_eq!(store.end(99, Ending::Done), None, "there is no such turn");
}

#[test]
fn an_answered_question_does_not_open_again_when_its_turn_ends_again() {
    let mut store = Fixture::new();
    let position = store.exchange("m-1", ask("q-1"));
    store.accepted(answer("a-1", None, "yes"));
    assert!(store.end(position, ask("q-1")).is_some());
    assert_eq!(store.open_question(), None);
}

#[test]
fn a_turn_that_ran_when_the_process_ended_is_interrupted_once() {
    let mut store = Fixture::new();
    store.exchange("m-1", ask("q-1"));
    let position = store.accepted(answer("a-1", None, "yes"));
    let waits = store.accepted(message("m-2", "hello"));
    store.begin(position);
    store.say(position, 1);
    store.reopen();
    assert_eq!(store.recover(), 1);
    assert_eq!(store.recover(), 0);
    let loaded = store.load();
    let last = loaded.rows.last().expect("there is one");
    assert_eq!((last.role, last.kind), (Role::Assistant, Kind::Interrupted));
    assert_eq!(last.text, "The reply was interrupted.");
    assert_eq!(loaded.question, None, "the question stays answered");
    assert_eq!(positions(&loaded.waiting), [waits]);
    assert!(!store.begin(position), "it is not run again");
    assert_eq!(store.end(position, Ending::Done).as_ref(), Some(last));
}

#[test]
fn conversations_with_something_to_do_are_listed_by_principal() {
    let mut store = Fixture::new();
    for principal in ["dora", "bob", "ann", "carl"] {
        store.input_of(principal, message("m-1", "hello"));
        store.input_of(principal, message("m-2", "hello"));
    }
    let carl = Turn { principal: "carl".into(), position: 1 };
    store.ask(Command::Begin(carl.clone()));
    store.ask(Command::Begin(Turn { position: 2, ..carl }));
    store.reopen();
    store.recover();
    assert_eq!(store.waiting(None, 99), ["ann", "bob", "dora"]);
    assert_eq!(store.waiting(None, 2), ["ann", "bob"]);
    assert_eq!(store.waiting(Some("bob"), 2), ["dora"]);
    assert_eq!(store.waiting(Some("c"), 1), ["dora"], "nobody needs to have that name");
    assert!(store.waiting(Some("dora"), 2).is_empty());
}

// ---- histories -------------------------------------------------------------------------------

#[test]
fn a_history_has_the_newest_rows_and_says_whether_there_are_older_ones() {
    let mut store = Fixture::new();
    assert_eq!(store.load(), Loaded::default());
    assert_eq!(store.input(answer("a-1", None, "x")), NOT_OPEN);
    assert_eq!(store.load(), Loaded::default(), "a rejection is no row");
    let first = store.exchange("m-1", ask("q-1"));
    for n in 2..=4 {
        store.accepted(message(&format!("m-{n}"), &"x".repeat(100)));
    }
    let cost = store.load().rows[2].cost();
    let mut of = |count_max, bytes_max| match store.ask(Command::Load {
        principal: "ann".into(),
        count_max,
        bytes_max,
    }) {
        Reply::Loaded(loaded) => {
            assert_eq!(loaded.question.and_then(|it| it.id), Some(name("q-1")));
            assert_eq!(positions(&loaded.waiting), [3, 4, 5]);
            (positions(&loaded.rows), loaded.truncated)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(of(5, usize::MAX), (vec![first, 2, 3, 4, 5], false));
    assert_eq!(of(4, usize::MAX), (vec![2, 3, 4, 5], true));
    assert_eq!(of(0, usize::MAX), (vec![], true));
    assert_eq!(of(5, 3 * cost), (vec![3, 4, 5], true));
    assert_eq!(of(5, 3 * cost - 1), (vec![4, 5], true));
    assert_eq!(of(5, 0), (vec![5], true));
    assert_eq!(of(usize::MAX, usize::MAX).0.len(), 5);
}

// ---- retention -------------------------------------------------------------------------------

#[test]
fn the_oldest_rows_are_forgotten_and_positions_go_on() {
    let mut store = Fixture::retaining(4);
    for n in 1..=10 {
        assert_eq!(store.exchange(&format!("m-{n}"), Ending::Done), n);
    }
    let loaded = store.load();
    assert_eq!(positions(&loaded.rows), [7, 8, 9, 10]);
    assert!(loaded.truncated);
}

#[test]
fn what_somebody_waits_for_is_kept_whatever_its_age() {
    let mut store = Fixture::retaining(4);
    let asks = store.exchange("m-1", ask("q-1"));
    let waits = store.accepted(message("m-2", "hello"));
    let runs = store.accepted(message("m-3", "hello"));
    store.begin(runs);
    for nth in 1..=10 {
        store.say(runs, nth);
    }
    let loaded = store.load();
    assert_eq!(positions(&loaded.rows), [asks + 1, waits, runs, 11, 12, 13, 14]);
    assert_eq!(loaded.question.and_then(|it| it.id), Some(name("q-1")));
    assert_eq!(positions(&loaded.waiting), [waits]);
    assert_eq!(store.input(message("m-2", "hello")), known(waits), "so is its id");
    assert_eq!(store.input(message_after("m-2", "hello", Some(0))), known(waits));
    store.end(runs, Ending::Failed("no".to_owned()));
    let answered = store.accepted(answer("a-1", Some("q-1"), "yes"));
    assert_eq!(positions(&store.load().rows), [waits, 13, 14, 15, answered]);
}

#[test]
fn a_message_whose_id_may_be_forgotten_is_expired_and_stays_so() {
    let mut store = Fixture::retaining(4);
    for n in 1..=10 {
        store.exchange(&format!("m-{n}"), Ending::Done);
    }
    let late = |after| message_after("m-6", "hello", Some(after));
    assert_eq!(store.input(late(5)), EXPIRED);
    assert_eq!(store.input(message_after("m-7", "hello", Some(6))), known(7));
    assert_eq!(store.input(message_after("m-7", "hello", Some(0))), known(7), "it is remembered");
    store.reopen();
    assert_eq!(store.input(late(5)), EXPIRED);
    let new = message_after("m-11", "written after all that is forgotten", Some(6));
    assert_eq!(store.accepted(new), 11);
}

#[test]
fn a_smaller_memory_is_reached_step_by_step() {
    let mut store = Fixture::retaining(1_000);
    for n in 1..=300 {
        store.exchange(&format!("m-{n}"), Ending::Done);
    }
    store.config.retain_rows = 10;
    store.reopen();
    let mut lengths = Vec::new();
    for n in 301..=306 {
        store.exchange(&format!("m-{n}"), Ending::Done);
        lengths.push(store.load().rows.len());
    }
    assert_eq!(lengths, [237, 174, 111, 48, 10, 10]);
}

#[test]
fn no_more_rejections_are_remembered_than_rows() {
    let mut store = Fixture::retaining(4);
    for n in 1..=5 {
        assert_eq!(store.input(answer(&format!("a-{n}"), None, "x")), NOT_OPEN);
    }
    store.exchange("m-1", ask("q-1"));
    assert_eq!(store.input(answer("a-2", None, "x")), NOT_OPEN, "remembered");
    assert!(matches!(store.input(answer("a-1", None, "x")), Verdict::Accepted(_)), "forgotten");
}

// ---- transactions and damage -----------------------------------------------------------------

#[test]
fn a_transaction_that_fails_changes_nothing() {
    let mut store = Fixture::new();
    let saying = Saying { text: "x".to_owned(), model: String::new(), usage: None };
    let input =
        Command::Input { principal: "ann".into(), input: message("m-1", "x"), queue_max: 9 };
    let unknown = Command::Say { turn: turn(7), nth: 1, saying };
    let error = store.transact(vec![input.clone(), unknown]).expect_err("there is no such turn");
    let StoreError::NotApplied(problem) = error else { panic!("{error:?}") };
    assert_eq!(problem, "`ann` has no input at position 7");
    assert_eq!(store.load(), Loaded::default());
    assert!(matches!(store.ask(input), Reply::Input(Verdict::Accepted(row)) if row.position == 1));
}

#[test]
fn the_commands_of_a_transaction_see_each_other() {
    let mut store = Fixture::new();
    let input =
        Command::Input { principal: "ann".into(), input: message("m-1", "x"), queue_max: 9 };
    let (begin, end) = (Command::Begin(turn(1)), Command::End { turn: turn(1), ending: ask("q") });
    let replies = store.transact(vec![input.clone(), begin, end, input, load("ann")]);
    let replies = replies.expect("it works");
    assert_eq!(replies[1], Reply::Begun(true));
    assert_eq!(replies[3], Reply::Input(known(1)));
    assert_eq!(replies[4], Reply::Loaded(store.load()));
}

#[test]
fn a_conversation_without_a_position_left_takes_nothing_more() {
    let mut store = Fixture::new();
    store.accepted(message("m-1", "hello"));
    store.tamper("UPDATE conversations SET next_position = 9007199254740991");
    assert_eq!(store.accepted(message("m-2", "hello")), 9_007_199_254_740_991);
    let (principal, queue_max) = ("ann".into(), 9);
    let error = store
        .transact(vec![Command::Input { principal, input: message("m-3", "hello"), queue_max }])
        .expect_err("there is no position");
    let StoreError::NotApplied(problem) = error else { panic!("{error:?}") };
    assert!(problem.contains("no position left"), "{problem}");
}

#[test]
fn a_value_that_is_damaged_fails_the_command_that_reads_it() {
    let mut store = Fixture::new();
    store.accepted(message("m-1", "hello"));
    for damage in ["kind = 'shout'", "role = ''", "attachments = '{'", "input = 'a b'"] {
        store.tamper(&format!("UPDATE rows SET {damage}"));
        let error = store.transact(vec![load("ann")]).expect_err("it is damaged");
        assert!(matches!(error, StoreError::NotApplied(_)), "{error:?}");
        store.tamper("UPDATE rows SET kind = 'message', role = 'user', attachments = '[]'");
    }
}

// ---- files -----------------------------------------------------------------------------------

/// Opens a store at a path, and closes it.
type Open = fn(&Path) -> Result<(), OpenError>;

/// That of the conversations, and that of what is in flight.
fn opens() -> [Open; 2] {
    [
        |path| SqliteConversations::open(path, &ConversationsConfig::default()).map(drop),
        |path| SqliteInFlight::open(path, None, &mut Count(0)).map(drop),
    ]
}

#[test]
fn a_database_that_is_no_store_of_ours_is_refused_and_left_as_it_is() {
    for open in opens() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let refused = |name: &str| {
            let before = std::fs::read(path(name)).expect("read");
            let error = open(&path(name)).expect_err("it is refused");
            assert!(std::fs::read(path(name)).expect("read") == before, "{name} has changed");
            error
        };
        tamper(&path("foreign.db"), "CREATE TABLE t (x)");
        assert!(matches!(refused("foreign.db"), OpenError::Foreign { .. }));
        open(&path("new.db")).expect("it is created");
        tamper(&path("new.db"), "PRAGMA user_version = 99");
        assert!(matches!(refused("new.db"), OpenError::TooNew { found: 99, known: 1, .. }));
        std::fs::write(path("text.db"), "no database, but long enough to be one".repeat(40))
            .expect("written");
        assert!(matches!(refused("text.db"), OpenError::Damaged { .. }));
        let error = open(&path("no/such/folder.db")).expect_err("there is no folder");
        assert!(matches!(error, OpenError::Io { .. }));
    }
}

#[test]
fn neither_store_opens_the_other_ones_file() {
    let [conversations, in_flight] = opens();
    let folder = tempfile::tempdir().expect("a folder");
    let (one, other) = (folder.path().join("one.db"), folder.path().join("other.db"));
    conversations(&one).expect("it opens");
    in_flight(&other).expect("it opens");
    assert!(matches!(in_flight(&one), Err(OpenError::Foreign { .. })));
    let error = conversations(&other).expect_err("it is the other one");
    assert!(error.to_string().contains("not the conversations of a session server"), "{error}");
}

#[test]
fn a_store_that_is_open_cannot_be_opened_again() {
    let store = Fixture::new();
    let [conversations, in_flight] = opens();
    assert!(matches!(conversations(&store.path()), Err(OpenError::InUse { .. })));
    let path = store.folder.path().join("client.db");
    let (held, _) = SqliteInFlight::open(&path, None, &mut Count(0)).expect("it opens");
    assert!(matches!(in_flight(&path), Err(OpenError::InUse { .. })));
    drop(held);
    in_flight(&path).expect("it is free again");
}

// ---- what a client has in flight -------------------------------------------------------------

/// Counts the numbers that it was asked for.
struct Count(u64);

impl Entropy for Count {
    fn next_u64(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

fn open_in_flight(path: &Path) -> (SqliteInFlight, Kept) {
    SqliteInFlight::open(path, None, &mut Count(0)).expect("it opens")
}

#[test]
fn a_client_has_one_name_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("client.db");
    let drawn = "00000000000000010000000000000002";
    assert_eq!(open_in_flight(&path).1, Kept { client: name(drawn), in_flight: vec![] });
    let mut entropy = Count(7);
    let (_, kept) = SqliteInFlight::open(&path, None, &mut entropy).expect("it opens");
    assert_eq!((kept.client, entropy.0), (name(drawn), 7), "nothing is drawn again");
}

#[test]
fn inputs_in_flight_survive_in_the_order_in_which_they_were_first_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("client.db");
    let attachments = vec![attachment("plan")];
    let what = What::Message { attachments, after: Some(u64::MAX) };
    let inputs = [
        Input { what, ..message("z", "first") },
        message("y", "second"),
        answer("x", Some("q-1"), "third"),
        answer("w", None, "fourth"),
    ];
    let keep = |n: usize| in_flight::Command::Keep(inputs[n].clone());
    let let_go = |id: &str| in_flight::Command::Drop(name(id));
    let (mut store, _) = open_in_flight(&path);
    store.transact(vec![keep(0), keep(1)]).expect("stored");
    store.transact(vec![keep(2), keep(0), keep(3)]).expect("kept already, or stored");
    drop(store);
    let (mut store, kept) = open_in_flight(&path);
    assert_eq!(kept.in_flight, inputs);
    store.transact(vec![let_go("y"), let_go("y"), let_go("unknown")]).expect("dropped");
    store.transact(vec![keep(1)]).expect("it is the newest now");
    drop(store);
    let order = [0, 2, 3, 1].map(|n: usize| inputs[n].clone());
    assert_eq!(open_in_flight(&path).1.in_flight, order);
}

#[test]
fn an_input_that_is_kept_already_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("client.db");
    let (mut store, _) = open_in_flight(&path);
    let keep = |text: &str| in_flight::Command::Keep(message("m-1", text));
    store.transact(vec![keep("hello")]).expect("stored");
    store.transact(vec![keep("something else")]).expect("nothing changes");
    drop(store);
    assert_eq!(open_in_flight(&path).1.in_flight, [message("m-1", "hello")]);
}

#[test]
fn a_damaged_input_in_flight_is_an_error_and_not_left_out() {
    for damage in ["UPDATE inputs SET input = '{'", "UPDATE client SET name = 'a b'"] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("client.db");
        let (mut store, _) = open_in_flight(&path);
        store.transact(vec![in_flight::Command::Keep(message("m-1", "x"))]).expect("stored");
        drop(store);
        tamper(&path, damage);
        let error = opens()[1](&path).expect_err("it is damaged");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    }
}
