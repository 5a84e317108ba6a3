//! What a seed draws of tasks.

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::pick;
use crate::plan::{
    Action, AgentOptions, ControllerOptions, Options, Plan, Script, Step, Submit, Text, When,
};

pub(super) fn options(rng: &mut ChaCha12Rng) -> Options {
    let mode = rng.random_range(0..10);
    let controller = ControllerOptions {
        extension: mode != 0,
        silence_ms: pick(rng, &[12_000, 20_000]),
        redelivery_ms: pick(rng, &[(300, 3_000), (1_000, 6_000)]),
        deliveries: pick(rng, &[1, 4, 64]),
        commit_ms: pick(rng, &[0, 2, 15, 60]),
    };
    let agent = AgentOptions {
        extension: mode != 1,
        parallel: pick(rng, &[1, 1, 2, 4]),
        queue: pick(rng, &[1, 3, 16]),
        handshake_ms: pick(rng, &[1_500, 4_000]),
        ping_every_ms: pick(rng, &[1_500, 4_000]),
        pong_timeout_ms: pick(rng, &[1_000, 3_000]),
        reconnect_ms: pick(rng, &[(100, 2_000), (400, 5_000)]),
        ack_timeout_ms: pick(rng, &[800, 3_000]),
        window: pick(rng, &[4, 16, 256]),
        page: pick(rng, &[8, 64]),
        chunk_bytes: pick(rng, &[200, 1_000, 4_096]),
        flush_ms: pick(rng, &[20, 100]),
        buffer_bytes: pick(rng, &[8 << 10, 64 << 10]),
        // The base contract has no other way to say that an attempt is lost than to leave it out.
        hello_max: pick(rng, &[3, 50, 1_000]),
        fallback_ms: pick(rng, &[1_500, 6_000, 30_000]),
        spool_bytes: pick(rng, &[256 << 10, 512 << 10, 4 << 20]),
        reserve_bytes: pick(rng, &[4 << 10, 16 << 10]),
        finished: pick(rng, &[50, 1_000]),
        commit_ms: pick(rng, &[0, 2, 15, 60]),
        rsa: false,
    };
    Options::Tasks { controller, agent }
}

/// How long a command of a swarm takes at most: they may all have to run one after the other.
const COMMAND_MS_MAX: u64 = 4_000;

/// What is submitted, cancelled and tried again, and when.
pub(super) fn submissions(plan: &Plan, per_minute: u32, rng: &mut ChaCha12Rng) -> Vec<Step> {
    let mut left = (u64::from(per_minute) * plan.duration_ms).div_ceil(60_000);
    let mut steps = Vec::new();
    let mut at = rng.random_range(0..1_000);
    let (chunk, window) = match &plan.options {
        Options::Tasks { agent, .. } => (agent.chunk_bytes, agent.window),
        Options::Events { .. } | Options::Session { .. } | Options::Custom { .. } => (1, 1),
    };
    let writes_max = u32::try_from(window * 8).unwrap_or(u32::MAX);
    let bytes_max = u32::try_from(chunk).unwrap_or(u32::MAX).saturating_mul(writes_max);
    let mut wishes: Vec<(u64, String)> = Vec::new();
    while left > 0 {
        let count = u64::from(pick(rng, &[1_u32, 1, 2, 4])).min(left);
        left -= count;
        let mut submit = Submit {
            name: format!("t{}", steps.len() + 1),
            agent: rng.random_range(1..=plan.topology.agents),
            count: u32::try_from(count).unwrap_or(u32::MAX),
            every_ms: pick(rng, &[0, 0, 300]),
            priority: pick(rng, &[0, 0, 5, -1]),
            twice: rng.random_ratio(1, 6),
            script: Script {
                stdout: pick(rng, &[0, 1, 6, 30, 120]),
                stderr: pick(rng, &[0, 0, 2, 12]),
                bytes: pick(rng, &[1, 20, 200, 1_500]),
                every_ms: pick(rng, &[0, 10, 60, 250]),
                text: pick(rng, &[Text::Plain, Text::Wide, Text::Binary]),
                exit: pick(rng, &[0, 0, 0, 3]),
            },
        };
        // What cannot be sent in the time that is left shows nothing.
        let script = &mut submit.script;
        script.stdout = script.stdout.min(writes_max);
        script.stderr = script.stderr.min(writes_max / 4);
        let takes_ms = |script: &Script| u64::from(script.stdout) * script.every_ms;
        while script.stdout > 1
            && (script.stdout * script.bytes > bytes_max || takes_ms(script) > COMMAND_MS_MAX)
        {
            script.stdout /= 2;
        }
        wishes.extend((1..=submit.count).map(|nth| (at, submit.task(nth))));
        steps.push(Step { when: When::At(at), action: Action::Submit(submit) });
        at = rng.random_range(0..plan.duration_ms * 3 / 4);
    }
    for (at, task) in wishes {
        let after = at + rng.random_range(100..8_000);
        let action = match rng.random_range(0..12) {
            0 | 1 => Action::Cancel { task },
            2 => Action::Retry { task },
            _ => continue,
        };
        if after < plan.duration_ms {
            steps.push(Step { when: When::At(after), action });
        }
    }
    steps
}
