//! Clients and servers of sessions as nodes: however they are attached, the verdict is the same.

use std::time::Duration;

use gapless_sim::conform::suite::{Played, SEATS_MAX, Source, Verdicted, attach, play};
use gapless_sim::conform::{Launch, Role};
use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;

fn adapter(role: Role) -> Source {
    let words = [env!("CARGO_BIN_EXE_gapless-sim"), "adapter", "--role", role.as_str()];
    Source::Adapter(Launch {
        words: words.map(str::to_owned).to_vec(),
        answer_max: Duration::from_secs(60),
    })
}

fn played(role: Role, source: &Source, id: &str, seeds: std::ops::Range<u64>) -> Vec<Played> {
    let attached = attach(role, source, SEATS_MAX).expect("the node is there");
    let scenario = Library::embedded().get(id).expect("the scenario is there");
    let drawn = scenario.swarm.is_some();
    seeds.map(|seed| play(&attached, &draw(&scenario, Seed(seed)), drawn)).collect()
}

fn hash(played: &Played) -> Option<String> {
    played.run.as_ref().map(|run| run.history.hash())
}

#[test]
fn a_node_in_a_child_process_has_the_verdict_and_the_history_of_one_in_this() {
    for role in [Role::SessionClient, Role::SessionServer] {
        let here = played(role, &Source::Reference(None), "session/swarm", 0..4);
        let there = played(role, &adapter(role), "session/swarm", 0..4);
        for (seed, (here, there)) in here.iter().zip(&there).enumerate() {
            assert_eq!(here.verdict, Verdicted::Pass, "{role}, seed {seed}");
            assert_eq!(here.verdict, there.verdict, "{role}, seed {seed}");
            assert_eq!(hash(here), hash(there), "{role}, seed {seed}");
        }
    }
}

/// Known-bad variants of a role, each in the scenario in which it shows.
fn fails(role: Role, mutants: &[(&str, &str)]) {
    for (mutant, home) in mutants {
        let source = Source::Reference(Some((*mutant).to_owned()));
        let played = played(role, &source, home, 0..1);
        let verdict = &played[0].verdict;
        assert!(matches!(verdict, Verdicted::Fail(_)), "`{mutant}` in `{home}`: {verdict:?}");
    }
}

#[test]
fn a_known_bad_client_fails_as_a_node() {
    fails(
        Role::SessionClient,
        &[
            ("session-cursor-jumps", "session/hole-in-the-live-stream"),
            ("cursor-before-applied", "session/replay-cut-at-each-frame"),
            ("cursor-outlives-view", "session/refresh"),
            ("frames-shown-twice", "session/frames-that-come-twice"),
            ("input-sent-once", "session/message-lost-on-its-way"),
            ("sent-before-kept", "session/power-loss-of-a-client"),
            ("kept-in-memory", "session/power-loss-of-a-client"),
            ("in-flight-forgotten", "session/power-loss-of-a-client"),
            ("rejection-not-shown", "session/queue-full"),
            ("thinking-for-ever", "session/thinking-over-a-reconnect"),
            ("superseded-dials-again", "session/another-client-takes-over"),
        ],
    );
}

#[test]
fn a_known_bad_server_fails_as_a_node() {
    fails(
        Role::SessionServer,
        &[
            ("live-overtakes-replay", "session/live-during-a-replay"),
            ("too-old-up-to-date", "session/ring-overflow"),
            ("lost-outbox-up-to-date", "session/server-restart"),
            ("stale-ack-prunes", "session/outbox-dropped-while-away"),
            ("janitor-drops-live", "session/idle-connection-outlives-its-outbox"),
            ("question-not-in-history", "session/question-over-a-reload"),
            ("history-of-old", "session/history-while-it-speaks"),
            ("answer-to-what-is-open", "session/late-answer"),
            ("one-outbox-for-all-tabs", "session/two-clients-of-one-user"),
            ("old-end-removes-new", "session/old-connection-ends-late"),
            ("turns-side-by-side", "session/crash-with-a-queue"),
            ("acked-before-durable", "session/power-loss-of-the-server"),
            ("accepted-twice", "session/acknowledgement-lost"),
            ("waiting-forgotten", "session/crash-with-a-queue"),
            ("turn-begun-late", "session/crash-with-a-queue"),
            ("messages-without-bound", "session/queue-full"),
        ],
    );
}
