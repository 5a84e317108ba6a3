//! The whole story of a few runs, to be read. A change of behaviour shows as a change of a story.

use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;
use gapless_sim::world;

/// Compares the trace of a scenario with the one that was reviewed.
fn check(id: &str, name: &str) {
    let scenario = Library::embedded().get(id).expect("the scenario is there");
    let run = world::run(&draw(&scenario, Seed(42))).expect("the run is carried out");
    let story = format!("{}\n\n{}", scenario.title, run.trace);
    insta::with_settings!({
        snapshot_path => "snapshots",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(name, story);
    });
}

#[test]
fn live_before_replay_cut() {
    check("events/live-before-replay-cut", "live-before-replay-cut");
}

#[test]
fn hole_in_the_live_stream() {
    check("events/hole-in-the-live-stream", "hole-in-the-live-stream");
}

#[test]
fn hole_at_the_tail() {
    check("events/hole-at-the-tail", "hole-at-the-tail");
}

#[test]
fn first_connection_without_events() {
    check("events/first-connection-without-events", "first-connection-without-events");
}

#[test]
fn first_connection_without_events_between_base_peers() {
    check("events/first-connection-without-events-base", "first-connection-without-events-base");
}

#[test]
fn handler_fails() {
    check("events/handler-fails", "handler-fails");
}

#[test]
fn slow_handler_over_reconnect() {
    check("events/slow-handler-over-reconnect", "slow-handler-over-reconnect");
}

#[test]
fn retention_past_the_cursor() {
    check("events/retention-past-the-cursor", "retention-past-the-cursor");
}

#[test]
fn received_reply_lost() {
    check("tasks/received-reply-lost", "received-reply-lost");
}

#[test]
fn hello_answer_lost() {
    check("tasks/hello-answer-lost", "hello-answer-lost");
}

#[test]
fn discard_in_each_state() {
    check("tasks/discard-in-each-state", "discard-in-each-state");
}

#[test]
fn result_over_http() {
    check("tasks/result-over-http", "result-over-http");
}

#[test]
fn store_went_back() {
    check("tasks/store-went-back", "store-went-back");
}

#[test]
fn record_restored() {
    check("tasks/record-restored", "record-restored");
}

#[test]
fn one_answer_lost() {
    check("tasks/one-answer-lost", "one-answer-lost");
}

#[test]
fn two_copies_of_a_store() {
    check("tasks/two-copies-of-a-store", "two-copies-of-a-store");
}

#[test]
fn question_over_a_reload() {
    check("session/question-over-a-reload", "question-over-a-reload");
}

#[test]
fn acknowledgement_lost() {
    check("session/acknowledgement-lost", "acknowledgement-lost");
}

#[test]
fn late_answer() {
    check("session/late-answer", "late-answer");
}

#[test]
fn thinking_over_a_reconnect() {
    check("session/thinking-over-a-reconnect", "thinking-over-a-reconnect");
}
