use std::sync::Arc;

use super::*;

const A: &str = "gapless.events.a";

struct Engine {
    model: Model,
    asked: u64,
}

/// Nothing that the engine said names a commit.
fn told(outputs: Vec<Output>) -> Vec<Output> {
    outputs.into_iter().filter(|output| !matches!(output, Output::Committed(_))).collect()
}

impl Engine {
    fn new() -> Self {
        let mut model = Model::new(Config { commit_ms: 10, per_subject_max: None });
        for (conn, host) in [(1, "server"), (2, "server-2")] {
            model.connected(conn, Arc::from(host));
        }
        Self { model, asked: 0 }
    }

    fn ask(&mut self, now_ms: u64, conn: Conn, request: Request) -> u64 {
        self.asked += 1;
        self.model.request(now_ms, conn, self.asked, request);
        self.asked
    }

    fn publish(&mut self, now_ms: u64, conn: Conn, expected_last: u64, payload: &str) -> u64 {
        let (subject, payload) = (Arc::from(A), Arc::from(payload));
        let expected_last = Some(expected_last);
        self.ask(now_ms, conn, Request::Publish { subject, expected_last, payload })
    }

    fn follow(&mut self, now_ms: u64, conn: Conn, uncommitted: bool) {
        self.ask(now_ms, conn, Request::Follow { from: FollowFrom::After(0), uncommitted });
    }

    fn at(&mut self, now_ms: u64) -> Vec<Output> {
        self.model.advance(now_ms);
        std::iter::from_fn(|| self.model.poll()).collect()
    }

    fn payloads(&self) -> Vec<&str> {
        self.model.log().of(A, 1).map(|message| &*message.payload).collect()
    }

    fn last(&mut self, now_ms: u64, conn: Conn) -> Option<String> {
        self.ask(now_ms, conn, Request::Last { subject: Arc::from(A) });
        match self.at(now_ms).pop() {
            Some(Output::Answer { answer: Answer::Message(message), .. }) => {
                message.map(|message| message.payload.to_string())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn answers(outputs: Vec<Output>) -> Vec<(u64, Answer)> {
    let answers = outputs.into_iter().filter_map(|output| match output {
        Output::Answer { id, answer, .. } => Some((id, answer)),
        _ => None,
    });
    answers.collect()
}

fn followed(outputs: Vec<Output>) -> Vec<(Conn, String)> {
    let messages = outputs.into_iter().filter_map(|output| match output {
        Output::Follow { conn, message, .. } => Some((conn, message.payload.to_string())),
        _ => None,
    });
    messages.collect()
}

#[test]
fn of_two_that_expect_the_same_one_is_stored() {
    let mut engine = Engine::new();
    let (first, second) = (engine.publish(0, 1, 0, "x"), engine.publish(3, 2, 0, "y"));
    assert_eq!(engine.at(9), []);
    assert_eq!(answers(engine.at(10)), [(first, Answer::Stored(1))]);
    assert_eq!(answers(engine.at(13)), [(second, Answer::WrongLast)]);
    assert_eq!(engine.payloads(), ["x"]);
}

#[test]
fn what_is_not_committed_is_seen_by_nobody_who_follows_what_is() {
    let mut engine = Engine::new();
    engine.follow(0, 1, false);
    engine.follow(0, 2, true);
    engine.at(0);
    engine.publish(1, 1, 0, "x");
    assert_eq!(followed(engine.at(1)), [(2, "x".to_owned())]);
    assert_eq!(followed(engine.at(11)), [(1, "x".to_owned())]);
}

#[test]
fn a_new_leader_commits_what_it_finds_and_tells_nobody() {
    let mut engine = Engine::new();
    engine.publish(0, 1, 0, "x");
    engine.model.elect(5, 100, false);
    assert_eq!(answers(engine.at(99)), []);
    assert_eq!(engine.payloads(), [""; 0]);
    assert_eq!(told(engine.at(105)), []);
    assert_eq!(engine.payloads(), ["x"]);
}

#[test]
fn what_an_election_loses_never_comes() {
    let mut engine = Engine::new();
    engine.publish(0, 1, 0, "x");
    engine.model.elect(5, 100, true);
    assert_eq!(engine.at(1_000), []);
    assert_eq!(engine.payloads(), [""; 0]);
}

#[test]
fn without_a_leader_nobody_answers_and_then_there_is_none() {
    let mut engine = Engine::new();
    engine.model.elect(0, 100, true);
    assert_eq!(engine.model.deadline(), Some(500), "it waits for something to lose");
    engine.publish(10, 1, 0, "w");
    engine.publish(59, 1, 0, "x");
    assert_eq!(engine.at(59), []);
    let refused = engine.publish(60, 1, 0, "y");
    let answered = answers(engine.at(60));
    assert_eq!(answered, [(refused, Answer::Unavailable("no leader".to_owned()))]);
    engine.publish(110, 1, 0, "z");
    engine.at(200);
    assert_eq!(engine.payloads(), ["z"]);
}

#[test]
fn a_leader_that_nobody_writes_to_goes_all_the_same() {
    let mut engine = Engine::new();
    engine.model.elect(0, 100, false);
    engine.at(500);
    engine.publish(501, 1, 0, "x");
    assert_eq!(engine.at(599), []);
    engine.publish(600, 1, 0, "y");
    engine.at(610);
    assert_eq!(engine.payloads(), ["y"]);
}

#[test]
fn a_deposed_leader_reads_the_past_and_stores_nothing() {
    let mut engine = Engine::new();
    engine.publish(0, 1, 0, "old");
    engine.at(10);
    engine.model.depose(20, "server-2", 100);
    engine.publish(20, 1, 1, "new");
    engine.publish(20, 2, 1, "lost");
    engine.at(30);
    assert_eq!(engine.last(31, 1).as_deref(), Some("new"));
    assert_eq!(engine.last(31, 2).as_deref(), Some("old"));
    assert_eq!(engine.last(121, 2).as_deref(), Some("new"));
    assert_eq!(engine.payloads(), ["old", "new"]);
}

#[test]
fn a_lost_acknowledgement_is_of_a_message_that_is_stored() {
    let mut engine = Engine::new();
    engine.model.lose_acks(1);
    engine.publish(0, 1, 0, "x");
    assert_eq!(told(engine.at(10)), []);
    assert_eq!(engine.payloads(), ["x"]);
}

#[test]
fn a_late_message_is_stored_if_nobody_came_before_it() {
    let mut engine = Engine::new();
    engine.model.late_writes(2, 500);
    engine.publish(0, 1, 0, "first");
    assert_eq!(engine.model.deadline(), Some(500));
    assert_eq!(told(engine.at(500)), []);
    assert_eq!(engine.payloads(), ["first"]);
    engine.publish(600, 1, 1, "late");
    engine.publish(700, 2, 1, "other");
    engine.at(2_000);
    assert_eq!(engine.payloads(), ["first", "other"]);
}

#[test]
fn a_message_that_comes_twice_is_stored_once_and_denied() {
    let mut engine = Engine::new();
    engine.model.double_writes(1);
    let id = engine.publish(0, 1, 0, "x");
    assert_eq!(answers(engine.at(10)), [(id, Answer::WrongLast)]);
    assert_eq!(engine.payloads(), ["x"]);
}

#[test]
fn followers_are_told_again_lag_and_lose_their_place() {
    let mut engine = Engine::new();
    engine.follow(0, 1, false);
    for (nth, payload) in ["x", "y"].into_iter().enumerate() {
        engine.publish(10 * nth as u64, 1, nth as u64, payload);
    }
    engine.at(30);
    engine.model.redeliver(31, "server", 1);
    assert_eq!(followed(engine.at(31)), [(1, "y".to_owned())]);
    engine.model.lag(40, "server", 100);
    engine.publish(40, 2, 2, "z");
    assert_eq!(followed(engine.at(139)), []);
    assert_eq!(engine.model.deadline(), Some(140));
    assert_eq!(followed(engine.at(140)), [(1, "z".to_owned())]);
    engine.model.break_follow("server");
    assert_eq!(engine.at(150), [Output::FollowEnds { conn: 1, id: 1 }]);
}

#[test]
fn a_full_engine_refuses_and_the_message_never_comes() {
    let mut engine = Engine::new();
    engine.model.fill(0, 100);
    let id = engine.publish(50, 1, 0, "x");
    assert_eq!(answers(engine.at(50)), [(id, Answer::Refused("no space is left".to_owned()))]);
    engine.publish(100, 1, 0, "y");
    engine.at(110);
    assert_eq!(engine.payloads(), ["y"]);
}

#[test]
fn nodes_that_start_anew_have_what_was_committed_and_nothing_else() {
    let mut engine = Engine::new();
    engine.publish(0, 1, 0, "x");
    engine.at(10);
    engine.publish(15, 1, 1, "y");
    let log = engine.model.log().clone();
    engine.model = engine.model.restarted(log);
    assert_eq!(engine.at(1_000), []);
    assert_eq!(engine.payloads(), ["x"]);
}

#[test]
fn whoever_asks_for_more_than_there_is_gets_what_comes_next() {
    let mut engine = Engine::new();
    engine.ask(0, 1, Request::Follow { from: FollowFrom::After(7), uncommitted: false });
    assert_eq!(answers(engine.at(0)), [(1, Answer::Follows { last: 0 })]);
    engine.publish(0, 1, 0, "x");
    assert_eq!(followed(engine.at(10)), [(1, "x".to_owned())]);
}

#[test]
fn healing_ends_what_lasts() {
    let mut engine = Engine::new();
    engine.model.elect(0, 10_000, false);
    engine.model.lose_acks(5);
    engine.publish(50, 1, 0, "w");
    engine.model.heal(100);
    engine.at(100);
    let id = engine.publish(100, 1, 1, "x");
    assert_eq!(answers(engine.at(110)), [(id, Answer::Stored(2))]);
}
