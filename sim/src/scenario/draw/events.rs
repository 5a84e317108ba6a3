//! What a seed draws of event streams.

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::pick;
use crate::plan::{Action, ClientOptions, Options, Plan, Publish, ServerOptions, Step, When};

pub(super) fn options(rng: &mut ChaCha12Rng) -> Options {
    let mode = rng.random_range(0..10);
    let server = ServerOptions {
        extension: mode != 0,
        ring: pick(rng, &[16, 32, 100, 500]),
        resync_grace_ms: pick(rng, &[0, 50, 500, 2_000]),
        window_frames: pick(rng, &[4, 16, 64]),
        write_stall_ms: pick(rng, &[2_000, 5_000, 30_000]),
        silence_ms: pick(rng, &[12_000, 20_000]),
        retain_events: None,
        page_events: pick(rng, &[3, 20, 256]),
        commit_ms: pick(rng, &[0, 2, 15, 60]),
    };
    let client = ClientOptions {
        extension: mode != 1,
        from_beginning: rng.random_ratio(1, 4),
        ping_every_ms: pick(rng, &[1_500, 4_000]),
        pong_timeout_ms: pick(rng, &[1_000, 3_000]),
        reconnect_ms: pick(rng, &[(100, 2_000), (400, 5_000)]),
        queue_events: pick(rng, &[2, 8, 256]),
        offers_max: 5,
        open_handler_ms: pick(rng, &[0, 0, 30, 400]),
        handler_ms: pick(rng, &[0, 3, 40, 150]),
    };
    Options::Events { server, client }
}

/// What is published, and when.
pub(super) fn publications(plan: &Plan, per_minute: u32, rng: &mut ChaCha12Rng) -> Vec<Step> {
    let mut left = u64::from(per_minute) * plan.duration_ms / 60_000;
    let mut steps = Vec::new();
    // An early event gives every client something to stand on; the rest comes when it comes.
    let mut at = rng.random_range(0..1_000);
    while left > 0 {
        let count = u64::from(pick(rng, &[1_u32, 1, 3, 8, 25, 60])).min(left);
        left -= count;
        steps.push(Step {
            when: When::At(at),
            action: Action::Publish(Publish {
                agent: rng.random_range(1..=plan.topology.agents),
                count: u32::try_from(count).unwrap_or(u32::MAX),
                every_ms: pick(rng, &[0, 0, 5, 40, 200]),
                bytes: pick(rng, &[0, 20, 200, 2_000]),
                ids: rng.random_ratio(3, 4),
                twice: rng.random_ratio(1, 6),
            }),
        });
        at = rng.random_range(0..plan.duration_ms);
    }
    steps
}
