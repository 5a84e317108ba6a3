//! What a seed draws of sessions.

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::{pick, speaks_extension};
use crate::plan::{
    Action, Options, Plan, Say, SessionClientOptions, SessionServerOptions, Step, Topology,
    TurnScript, When,
};

/// Where a replay, or a history, is on its way.
pub(super) const MARKS_OF_A_REPLAY: [&str; 3] =
    ["session.replay", "session.verdict_too_old", "session.verdict_unknown"];

/// Where a process that dies leaves something half done.
pub(super) const MARKS_TO_DIE_AT: [&str; 6] = [
    "session.replay",
    "session.verdict_unknown",
    "session.history_applied",
    "session.waiting_taken_up",
    "world.committed",
    "world.committed",
];

pub(super) fn options(topology: &Topology, rng: &mut ChaCha12Rng) -> Options {
    let mode = rng.random_range(0..12);
    // With fewer outboxes than clients somebody would be refused for ever.
    let clients = topology.clients as usize;
    // A base client is not told that an input is too large, or that its id is forgotten.
    let base = mode <= 2;
    let ping_every_ms = pick(rng, &[1_500, 4_000]);
    let server = SessionServerOptions {
        extension: !matches!(mode, 0 | 2),
        ring: pick(rng, &[2, 6, 30, 500]),
        ring_bytes: pick(rng, &[4 << 10, 1 << 20]),
        ring_age_ms: pick(rng, &[3_000, 300_000]),
        prune_every_ms: pick(rng, &[1_000, 5_000]),
        idle_max_ms: pick(rng, &[4_000, 3_600_000]),
        outboxes: pick(rng, &[clients, clients + 1, 20_000]),
        ping_every_ms,
        window_frames: pick(rng, &[1, 4, 64]),
        write_stall_ms: pick(rng, &[1_000, 3_000, 30_000]),
        history_messages: pick(rng, &[4, 30, 200]),
        history_bytes: pick(rng, &[1 << 10, 8 << 10]),
        queue: pick(rng, &[1, 3, 10]),
        inputs: pick(rng, &[2, 64]),
        turns: pick(rng, &[1, 1_024]),
        text_bytes: pick(rng, if base { &[4 << 10] } else { &[600, 4 << 10] }),
        retain_rows: pick(rng, if base { &[100_000] } else { &[20, 100_000] }),
        commit_ms: pick(rng, &[0, 2, 15, 60]),
    };
    let client = SessionClientOptions {
        extension: !matches!(mode, 1 | 2),
        shared_id: matches!(mode, 1 | 2) && rng.random(),
        connect_ms: pick(rng, &[1_500, 4_000]),
        ping_every_ms,
        reconnect_ms: pick(rng, &[(100, 2_000), (400, 5_000)]),
        ack_every_ms: pick(rng, &[300, 2_000]),
        ack_timeout_ms: pick(rng, &[800, 3_000]),
        in_flight: pick(rng, &[2, 32]),
        base_grace_ms: pick(rng, &[100, 1_000]),
        messages: pick(rng, &[10, 1_000]),
        answer_ms: pick(rng, &[50, 500, 3_000]),
        commit_ms: pick(rng, &[0, 2, 15]),
    };
    Options::Session { server, client }
}

/// How long the application tells how it is getting on in one turn, at most: turns are taken one
/// after the other.
const TURN_MS_MAX: u64 = 1_000;

/// What users say, and how they come and go.
pub(super) fn conversations(plan: &Plan, per_minute: u32, rng: &mut ChaCha12Rng) -> Vec<Step> {
    let mut left = (u64::from(per_minute) * plan.duration_ms).div_ceil(60_000);
    let mut steps = Vec::new();
    let mut at = rng.random_range(0..1_000);
    while left > 0 {
        let count = u64::from(pick(rng, &[1_u32, 1, 2, 5])).min(left);
        left -= count;
        let mut say = Say {
            client: rng.random_range(1..=plan.topology.clients),
            count: u32::try_from(count).unwrap_or(u32::MAX),
            every_ms: pick(rng, &[0, 20, 300, 2_000]),
            bytes: pick(rng, &[0, 20, 200, 1_000]),
            attachments: pick(rng, &[0, 0, 0, 2]),
            same: rng.random_ratio(1, 10),
            script: TurnScript {
                progress: pick(rng, &[0, 0, 3, 40]),
                // A base client learns of an accepted answer by what the application says next.
                say: pick(rng, if speaks_extension(plan) { &[0, 1, 1, 3] } else { &[1, 1, 1, 3] }),
                bytes: pick(rng, &[0, 20, 200, 1_000]),
                each_ms: pick(rng, &[0, 10, 100, 500]),
                asks: pick(rng, &[0, 0, 1, 2]),
                fails: rng.random_ratio(1, 10),
            },
        };
        let script = &mut say.script;
        while u64::from(script.progress) * script.each_ms > TURN_MS_MAX {
            script.progress /= 2;
        }
        steps.push(Step { when: When::At(at), action: Action::Say(say) });
        at = rng.random_range(0..plan.duration_ms * 3 / 4);
    }
    for _ in 0..rng.random_range(0..4) {
        let client = rng.random_range(1..=plan.topology.clients);
        let at = When::At(rng.random_range(500..plan.duration_ms));
        let action = match rng.random_ratio(3, 4) {
            true => Action::Refresh { client },
            false => Action::Reconnect { client },
        };
        steps.push(Step { when: at, action });
    }
    steps
}
