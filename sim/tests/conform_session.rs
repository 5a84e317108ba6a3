//! Clients and servers of sessions as nodes: however they are attached, the verdict is the same.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless_sim::conform::suite::{Played, SEATS_MAX, Source, Verdicted, attach, play};
use gapless_sim::conform::{
    Done, Effect, Hello, Launch, Node, NodeError, Reference, Reply, Request, Role, SharedNode,
    feature,
};
use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;
use gapless_sim::world::Attached;

fn adapter(role: Role) -> Source {
    let words = [env!("CARGO_BIN_EXE_gapless-sim"), "adapter", "--role", role.as_str()];
    Source::Adapter(Launch {
        words: words.map(str::to_owned).to_vec(),
        answer_max: Duration::from_secs(60),
    })
}

fn played(role: Role, source: &Source, id: &str, seeds: std::ops::Range<u64>) -> Vec<Played> {
    let attached = attach(role, source, SEATS_MAX).expect("the node is there");
    played_by(&attached, id, seeds)
}

fn played_by(attached: &Attached, id: &str, seeds: std::ops::Range<u64>) -> Vec<Played> {
    let scenario = Library::embedded().get(id).expect("the scenario is there");
    let drawn = scenario.swarm.is_some();
    seeds.map(|seed| play(attached, &draw(&scenario, Seed(seed)), drawn)).collect()
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

/// The reference, of which nothing is known but what it does: as somebody else's is.
struct Taciturn {
    hello: Hello,
    reference: Reference,
}

impl Taciturn {
    fn attached(role: Role, mutant: Option<&str>) -> Attached {
        let node = || {
            let reference = Reference::new(role, mutant).expect("it has this role");
            let mut hello = reference.hello().clone();
            let kept = [feature::MARKS, feature::IN_FLIGHT_REPORTS, feature::CONVERSATION_REPORTS];
            hello.features.retain(|name| !kept.contains(&name.as_str()));
            Self { hello, reference }
        };
        let hello = node().hello;
        let shared = |_| -> SharedNode { Arc::new(Mutex::new(node())) };
        Attached::new(role, hello, (0..SEATS_MAX).map(shared).collect())
    }
}

impl Node for Taciturn {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn exchange(&mut self, request: &Request) -> Result<Reply, NodeError> {
        let mut reply = self.reference.exchange(request)?;
        if let Reply::Done(Done { effects, .. }) = &mut reply {
            effects.retain(|effect| {
                !matches!(
                    effect,
                    Effect::Mark { .. }
                        | Effect::StoreInFlight { .. }
                        | Effect::StoreConversations { .. }
                        | Effect::SessionFrame { .. }
                )
            });
        }
        Ok(reply)
    }
}

#[test]
fn who_reports_nothing_is_not_judged_falsely() {
    let library = Library::embedded();
    let mut wrong = Vec::new();
    for role in [Role::SessionClient, Role::SessionServer] {
        let attached = Taciturn::attached(role, None);
        for id in library.ids().into_iter().filter(|id| id.starts_with("session/")) {
            let seeds = if id == "session/swarm" { 0..6 } else { 0..1 };
            for (seed, played) in played_by(&attached, id, seeds).iter().enumerate() {
                if played.verdict != Verdicted::Pass {
                    wrong.push(format!("{role} in `{id}`, seed {seed}: {:?}", played.verdict));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn who_reports_nothing_is_judged_by_what_it_does() {
    for (role, mutant, home) in [
        (Role::SessionClient, "session-cursor-jumps", "session/hole-in-the-live-stream"),
        (Role::SessionClient, "frames-shown-twice", "session/frames-that-come-twice"),
        (Role::SessionClient, "input-sent-once", "session/message-lost-on-its-way"),
        (Role::SessionClient, "superseded-dials-again", "session/another-client-takes-over"),
        (Role::SessionServer, "live-overtakes-replay", "session/live-during-a-replay"),
        (Role::SessionServer, "too-old-up-to-date", "session/ring-overflow"),
        (Role::SessionServer, "history-of-old", "session/history-while-it-speaks"),
    ] {
        let played = played_by(&Taciturn::attached(role, Some(mutant)), home, 0..1);
        let verdict = &played[0].verdict;
        assert!(matches!(verdict, Verdicted::Fail(_)), "`{mutant}` in `{home}`: {verdict:?}");
    }
}
