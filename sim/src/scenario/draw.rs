//! Draws a plan from a scenario and a seed.
//!
//! A fixed scenario is its own plan. A swarm draws everything else from the seed: which kinds of
//! faults occur at all, how often and when, how many hosts there are, how large their rings and
//! windows are, and what is published. Each of these has a stream of random numbers of its own.

mod session;

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::{Group, Scenario, Swarm};
use crate::plan::{
    Action, AgentOptions, Answer, ClientOptions, ControllerOptions, Cut, FORMAT, Fault, Host,
    Options, Plan, Protocol, Publish, Script, ServerOptions, Step, Strange, Submit, Text, Topology,
    When,
};
use crate::seed::Seed;

/// The plan of a scenario under a seed.
pub fn draw(scenario: &Scenario, seed: Seed) -> Plan {
    let mut plan = Plan {
        format: FORMAT,
        scenario: scenario.id.clone(),
        seed: seed.0,
        mutant: None,
        tick_ms: scenario.tick_ms,
        duration_ms: scenario.duration_ms,
        settle_ms: scenario.settle_ms,
        statements: scenario.statements.clone(),
        reaches: scenario.reaches.clone(),
        topology: scenario.topology.clone(),
        options: scenario.options.clone(),
        steps: scenario.steps.clone(),
    };
    if let Some(swarm) = &scenario.swarm {
        // What a swarm has to reach is judged over many runs.
        plan.reaches.clear();
        let rng = &mut seed.stream("topology", "", 0);
        plan.topology = topology(swarm, &plan.topology, plan.options.protocol(), rng);
        let rng = &mut seed.stream("options", "", 0);
        plan.options = match plan.options.protocol() {
            Protocol::Events => event_options(rng),
            Protocol::Tasks => task_options(rng),
            Protocol::Session => session::options(&plan.topology, rng),
        };
        fill(&mut plan, swarm, seed);
    }
    plan
}

/// What a swarm draws under another seed for the hosts and options of a plan; `None` if the
/// scenario is no swarm, and draws nothing.
pub fn redraw(scenario: &Scenario, plan: &Plan, seed: Seed) -> Option<Vec<Step>> {
    let swarm = scenario.swarm.as_ref()?;
    let mut plan = Plan { steps: scenario.steps.clone(), ..plan.clone() };
    fill(&mut plan, swarm, seed);
    Some(plan.steps)
}

/// Draws the workload and the faults.
fn fill(plan: &mut Plan, swarm: &Swarm, seed: Seed) {
    let rng = &mut seed.stream("workload", "", 0);
    plan.steps.extend(match plan.options.protocol() {
        Protocol::Events => publications(plan, swarm, rng),
        Protocol::Tasks => submissions(plan, swarm, rng),
        Protocol::Session => session::conversations(plan, swarm, rng),
    });
    plan.steps.extend(faults(plan, swarm, &mut seed.stream("faults", "", 0)));
}

/// One of a few values.
fn pick<T: Copy>(rng: &mut ChaCha12Rng, values: &[T]) -> T {
    values[rng.random_range(0..values.len())]
}

fn topology(swarm: &Swarm, base: &Topology, protocol: Protocol, rng: &mut ChaCha12Rng) -> Topology {
    let clients = rng.random_range(swarm.clients.0..=swarm.clients.1);
    Topology {
        clients,
        agents: match protocol {
            Protocol::Events | Protocol::Session => {
                rng.random_range(swarm.agents.0..=swarm.agents.1.min(clients))
            }
            Protocol::Tasks => clients,
        },
        latency_ms: pick(rng, &[10, 10, 20, 50, 120]),
        // Small enough for a slow reader to be felt, large enough for all that connect at once.
        tcp_capacity: pick(rng, &[24, base.tcp_capacity]),
    }
}

fn event_options(rng: &mut ChaCha12Rng) -> Options {
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

fn task_options(rng: &mut ChaCha12Rng) -> Options {
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

fn submissions(plan: &Plan, swarm: &Swarm, rng: &mut ChaCha12Rng) -> Vec<Step> {
    let per_minute = rng.random_range(swarm.work_per_minute.0..=swarm.work_per_minute.1);
    let mut left = (u64::from(per_minute) * plan.duration_ms).div_ceil(60_000);
    let mut steps = Vec::new();
    let mut at = rng.random_range(0..1_000);
    let (chunk, window) = match &plan.options {
        Options::Tasks { agent, .. } => (agent.chunk_bytes, agent.window),
        Options::Events { .. } | Options::Session { .. } => (1, 1),
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

fn publications(plan: &Plan, swarm: &Swarm, rng: &mut ChaCha12Rng) -> Vec<Step> {
    let per_minute = rng.random_range(swarm.work_per_minute.0..=swarm.work_per_minute.1);
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

/// The kinds of faults that a swarm knows, by group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Cut,
    CutReplay,
    Hold,
    Partition,
    Latency,
    Refuse,
    NeverAnswer,
    ServerCrash,
    ClientCrash,
    CrashAtMark,
    Retain,
    Lose,
    Duplicate,
    Strange,
    SlowReader,
    SlowHandler,
    FailHandler,
    FailOpenHandler,
    PowerOff,
    DiskError,
    DiskFull,
    SlowCommit,
    ClockStep,
    ClockDrift,
    Suspend,
    Backup,
    Restore,
    LoseLog,
    Swap,
    Answer,
    LoseAnswer,
    StaleAnswer,
}

fn sorts(protocol: Protocol, group: Group) -> &'static [Sort] {
    match (protocol, group) {
        (Protocol::Tasks, Group::Peer) => {
            &[Sort::Lose, Sort::Duplicate, Sort::Strange, Sort::Answer, Sort::StaleAnswer]
        }
        (Protocol::Tasks, Group::Server) => {
            &[Sort::Backup, Sort::Restore, Sort::LoseLog, Sort::Swap]
        }
        // What a client keeps; a conversation that goes back is nothing that a client can notice.
        (Protocol::Session, Group::Server) => &[Sort::Backup, Sort::Restore, Sort::LoseLog],
        (Protocol::Session, Group::Application) => &[Sort::SlowReader],
        (Protocol::Tasks, Group::Application) => &[Sort::SlowReader, Sort::LoseAnswer],
        (_, Group::Link) => &[
            Sort::Cut,
            Sort::CutReplay,
            Sort::Hold,
            Sort::Partition,
            Sort::Latency,
            Sort::Refuse,
            Sort::NeverAnswer,
        ],
        (_, Group::Process) => {
            &[Sort::ServerCrash, Sort::ClientCrash, Sort::CrashAtMark, Sort::Suspend]
        }
        (_, Group::Server) => &[Sort::Retain, Sort::Backup, Sort::Restore, Sort::LoseLog],
        (_, Group::Disk) => {
            &[Sort::PowerOff, Sort::PowerOff, Sort::DiskError, Sort::DiskFull, Sort::SlowCommit]
        }
        (_, Group::Clock) => &[Sort::ClockStep, Sort::ClockDrift],
        (_, Group::Peer) => &[Sort::Lose, Sort::Duplicate, Sort::Strange],
        (_, Group::Application) => {
            &[Sort::SlowReader, Sort::SlowHandler, Sort::FailHandler, Sort::FailOpenHandler]
        }
    }
}

/// How often a swarm loses frames at most: one fewer than a client asks for the same gap before it
/// declares it, so that what is declared is never still in the log.
const LOST_FRAMES_MAX: usize = 3;

fn faults(plan: &Plan, swarm: &Swarm, rng: &mut ChaCha12Rng) -> Vec<Step> {
    let all: Vec<Sort> = swarm
        .groups
        .iter()
        .flat_map(|group| sorts(plan.options.protocol(), *group))
        .copied()
        .collect();
    // Rare mixes need some kinds to be absent.
    let mut enabled: Vec<Sort> = all.iter().copied().filter(|_| rng.random_ratio(1, 2)).collect();
    // Turmoil never delivers what was held across a repair, so a run has one or the other.
    let without = if rng.random_ratio(1, 2) { Sort::Hold } else { Sort::Partition };
    enabled.retain(|sort| *sort != without);
    match &plan.options {
        _ if speaks_extension(plan) => {}
        Options::Events { .. } => {
            // The base contract has no way to notice that the last frame before a pause was lost,
            // or that a log which went back has overtaken the cursor since.
            enabled.retain(|sort| !matches!(sort, Sort::Lose | Sort::Restore | Sort::LoseLog));
        }
        Options::Tasks { .. } => {
            // The base contract does not say which store an agent has.
            enabled.retain(|sort| !matches!(sort, Sort::Restore | Sort::LoseLog | Sort::Swap));
        }
        Options::Session { .. } => {
            // The base contract has no way to notice that the last frame before a pause was lost,
            // and no ids by which an answer that comes back with an older store could be known.
            enabled.retain(|sort| !matches!(sort, Sort::Lose | Sort::Restore));
        }
    }
    if enabled.is_empty() {
        return Vec::new();
    }
    let per_minute = rng.random_range(swarm.faults_per_minute.0..=swarm.faults_per_minute.1);
    let count = u64::from(per_minute) * plan.duration_ms / 60_000;
    let mut steps = Vec::new();
    for _ in 0..count {
        let sort = pick(rng, &enabled);
        let lost = steps
            .iter()
            .filter(|step: &&Step| matches!(step.action, Action::Fault(Fault::Lose { .. })))
            .count();
        if sort == Sort::Lose && lost >= LOST_FRAMES_MAX {
            continue;
        }
        let step = step(plan, sort, rng);
        if let (
            When::At(at),
            Action::Fault(Fault::Restore { host, .. } | Fault::Swap { host, .. }),
        ) = (&step.when, &step.action)
        {
            // An older copy has to be there, or it is a loss of the whole database.
            let when = When::At(rng.random_range(0..*at));
            steps.push(Step { when, action: Action::Fault(Fault::Backup { host: *host }) });
        }
        steps.push(step);
    }
    steps
}

/// Whether both sides speak the extension.
fn speaks_extension(plan: &Plan) -> bool {
    match &plan.options {
        Options::Events { server, client } => server.extension && client.extension,
        Options::Tasks { controller, agent } => controller.extension && agent.extension,
        Options::Session { server, client } => server.extension && client.extension,
    }
}

/// When a fault comes: half of them while something is being published, because a fault in a
/// silence shows little.
fn moment(plan: &Plan, rng: &mut ChaCha12Rng) -> u64 {
    let any = rng.random_range(500..plan.duration_ms);
    let bursts: Vec<u64> = plan
        .steps
        .iter()
        .filter_map(|step| match (&step.when, &step.action) {
            (When::At(at), Action::Publish(_) | Action::Submit(_) | Action::Say(_)) => Some(*at),
            _ => None,
        })
        .collect();
    if bursts.is_empty() || rng.random() {
        return any;
    }
    (pick(rng, &bursts) + rng.random_range(20..1_500)).clamp(500, plan.duration_ms - 1)
}

fn step(plan: &Plan, sort: Sort, rng: &mut ChaCha12Rng) -> Step {
    let client = rng.random_range(1..=plan.topology.clients);
    let at = When::At(moment(plan, rng));
    let short = rng.random_range(100..3_000);
    let for_ms = if rng.random_ratio(1, 4) { rng.random_range(3_000..9_000) } else { short };
    let how = pick(
        rng,
        &[
            Cut::Close,
            Cut::Reset,
            Cut::Reset,
            Cut::MidFrame,
            Cut::HalfOpen,
            Cut::HalfOpenUp,
            Cut::HalfOpenDown,
        ],
    );
    let host = if rng.random() { Host::Server } else { Host::Client(client) };
    // Only with tasks have both sides one that can be copied.
    let database = match plan.options.protocol() {
        Protocol::Events => Host::Server,
        Protocol::Tasks => host,
        Protocol::Session => Host::Client(client),
    };
    let slow = if plan.options.protocol() == Protocol::Events { Host::Server } else { host };
    let (when, fault) = match sort {
        Sort::Cut => {
            let after_frames = rng.random_ratio(1, 3).then(|| rng.random_range(0..30));
            let for_ms = if rng.random_ratio(1, 3) { for_ms } else { 0 };
            (at, Fault::Cut { client, how, after_frames, for_ms })
        }
        Sort::CutReplay => {
            let mark = match plan.options.protocol() {
                Protocol::Events => pick(rng, &["events.resync_sent", "events.replay_started"]),
                Protocol::Tasks => pick(rng, &["tasks.hello_sent", "tasks.active"]),
                Protocol::Session => pick(rng, &session::MARKS_OF_A_REPLAY),
            };
            let mark = mark.to_owned();
            let when = When::Mark { mark, nth: rng.random_range(1..12), after_ms: 0 };
            let after_frames = Some(rng.random_range(0..20));
            (when, Fault::Cut { client, how, after_frames, for_ms: 0 })
        }
        Sort::Hold => (at, Fault::Hold { client, for_ms }),
        Sort::Partition => (at, Fault::Partition { client, for_ms }),
        Sort::Latency => {
            (at, Fault::Latency { client, latency_ms: pick(rng, &[80, 300, 1_200]), for_ms })
        }
        Sort::Refuse => (at, Fault::Refuse { client, for_ms }),
        Sort::NeverAnswer => (at, Fault::NeverAnswer { client, for_ms }),
        Sort::ServerCrash => (at, Fault::Crash { host: Host::Server, restart_ms: short }),
        Sort::ClientCrash => (at, Fault::Crash { host: Host::Client(client), restart_ms: short }),
        Sort::CrashAtMark => {
            let marks = [
                "events.replay_started",
                "events.replay_from_log",
                "events.resync_sent",
                "events.joined",
                "events.group_commit",
                "world.committed",
            ];
            let task_marks = [
                "tasks.hello_sent",
                "tasks.active",
                "tasks.replay_directed",
                "tasks.fell_back_to_http",
                "world.committed",
                "world.committed",
            ];
            let marks: &[&str] = match plan.options.protocol() {
                Protocol::Events => &marks,
                Protocol::Tasks => &task_marks,
                Protocol::Session => &session::MARKS_TO_DIE_AT,
            };
            let when = When::Mark {
                mark: pick(rng, marks).to_owned(),
                nth: rng.random_range(1..8),
                after_ms: pick(rng, &[0, 0, 20, 60]),
            };
            (when, Fault::Crash { host, restart_ms: short })
        }
        Sort::PowerOff => {
            let torn_percent = rng.random_ratio(1, 3).then(|| rng.random_range(0..100));
            let after_ops = rng.random_range(0..12);
            (at, Fault::PowerOff { host, after_ops, torn_percent, restart_ms: short })
        }
        Sort::DiskError => {
            let (sync, after_ops) = (rng.random(), rng.random_range(0..8));
            (at, Fault::DiskError { host, sync, after_ops, count: rng.random_range(1..4) })
        }
        Sort::DiskFull => (at, Fault::DiskFull { host, for_ms: short }),
        Sort::SlowCommit => {
            let each_ms = match plan.options.protocol() {
                Protocol::Events | Protocol::Tasks => pick(rng, &[80, 400]),
                // Some as long as a client waits for the first frame.
                Protocol::Session => pick(rng, &[80, 400, 2_000]),
            };
            (at, Fault::SlowCommit { host: slow, each_ms, for_ms })
        }
        Sort::ClockStep => {
            let by_ms: i64 = pick(rng, &[1_000, 3_600_000, 86_400_000]);
            (at, Fault::ClockStep { host, by_ms: if rng.random() { by_ms } else { -by_ms } })
        }
        Sort::ClockDrift => {
            let ppm: i64 = pick(rng, &[200, 20_000, 300_000]);
            let ppm = if rng.random() { ppm } else { -ppm };
            (at, Fault::ClockDrift { host, ppm, for_ms })
        }
        Sort::Suspend => (at, Fault::Suspend { host, for_ms }),
        Sort::Backup => (at, Fault::Backup { host: database }),
        Sort::Restore => (at, Fault::Restore { host: database, restart_ms: short }),
        Sort::LoseLog => (at, Fault::LoseStore { host: database, restart_ms: short }),
        Sort::Swap => (at, Fault::Swap { host: Host::Client(client), restart_ms: short }),
        Sort::Answer => {
            // The base contract has no way to learn that an attempt was discarded by mistake.
            let discard = if speaks_extension(plan) { Answer::DiscardAll } else { Answer::Lost };
            let all = [Answer::Lost, Answer::Absent, Answer::Empty, discard];
            (at, Fault::Answer { client, how: pick(rng, &all) })
        }
        Sort::LoseAnswer => (at, Fault::LoseAnswer { client, times: rng.random_range(1..4) }),
        Sort::StaleAnswer => {
            let frame = Strange::StaleAnswer;
            (at, Fault::Inject { client, frame, to_server: false })
        }
        Sort::Retain => {
            let agent = rng.random_range(1..=plan.topology.agents);
            (at, Fault::Retain { agent, keep: pick(rng, &[0, 1, 3, 10]) })
        }
        Sort::Lose => (at, Fault::Lose { client, frames: 1 }),
        Sort::Duplicate => (at, Fault::Duplicate { client, frames: rng.random_range(1..10) }),
        Sort::Strange => {
            let frame = pick(
                rng,
                &[
                    Strange::UnknownType,
                    Strange::Malformed,
                    Strange::BadField,
                    Strange::Binary,
                    Strange::Oversize,
                ],
            );
            (at, Fault::Inject { client, frame, to_server: rng.random() })
        }
        Sort::SlowReader => {
            let pause_ms = rng.random_ratio(1, 2).then(|| pick(rng, &[20, 200, 1_000]));
            (at, Fault::SlowReader { client, pause_ms, for_ms })
        }
        Sort::SlowHandler => {
            (at, Fault::SlowHandler { client, each_ms: pick(rng, &[30, 300, 2_500]), for_ms })
        }
        Sort::FailHandler => (at, Fault::FailHandler { client, times: rng.random_range(1..4) }),
        Sort::FailOpenHandler => {
            (at, Fault::FailOpenHandler { client, times: rng.random_range(1..4) })
        }
    };
    Step { when, action: Action::Fault(fault) }
}
