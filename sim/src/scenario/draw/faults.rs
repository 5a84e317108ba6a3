//! What a seed lets go wrong.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::super::Group;
use super::{pick, session, speaks_extension};
use crate::plan::{
    Action, Answer, Cut, EngineFault, Fault, Host, Options, Plan, Protocol, Step, Strange, When,
};

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
    LoseStore,
    Swap,
    Answer,
    LoseAnswer,
    StaleAnswer,
    Election,
    StaleLeader,
    Isolate,
    HoldUp,
    LagFollow,
    BreakFollow,
    Redeliver,
    LoseAck,
    LateWrite,
    DoubleWrite,
    Full,
    EngineCrash,
    EngineAway,
    Zombie,
}

impl Sort {
    fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::CutReplay => "cut-replay",
            Self::Hold => "hold",
            Self::Partition => "partition",
            Self::Latency => "latency",
            Self::Refuse => "refuse",
            Self::NeverAnswer => "never-answer",
            Self::ServerCrash => "server-crash",
            Self::ClientCrash => "client-crash",
            Self::CrashAtMark => "crash-at-mark",
            Self::Retain => "retain",
            Self::Lose => "lose",
            Self::Duplicate => "duplicate",
            Self::Strange => "strange-frame",
            Self::SlowReader => "slow-reader",
            Self::SlowHandler => "slow-handler",
            Self::FailHandler => "fail-handler",
            Self::FailOpenHandler => "fail-open-handler",
            Self::PowerOff => "power-off",
            Self::DiskError => "disk-error",
            Self::DiskFull => "disk-full",
            Self::SlowCommit => "slow-commit",
            Self::ClockStep => "clock-step",
            Self::ClockDrift => "clock-drift",
            Self::Suspend => "suspend",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::LoseStore => "lose-store",
            Self::Swap => "swap",
            Self::Answer => "answer",
            Self::LoseAnswer => "lose-answer",
            Self::StaleAnswer => "stale-answer",
            Self::Election => "election",
            Self::StaleLeader => "stale-leader",
            Self::Isolate => "isolate",
            Self::HoldUp => "hold-up",
            Self::LagFollow => "lag-follow",
            Self::BreakFollow => "break-follow",
            Self::Redeliver => "redeliver",
            Self::LoseAck => "lose-ack",
            Self::LateWrite => "late-write",
            Self::DoubleWrite => "double-write",
            Self::Full => "full",
            Self::EngineCrash => "engine-crash",
            Self::EngineAway => "engine-away",
            Self::Zombie => "zombie",
        }
    }
}

/// What there is of a group.
fn sorts(protocol: Protocol, group: Group) -> &'static [Sort] {
    match (protocol, group) {
        (Protocol::Tasks, Group::Peer) => {
            &[Sort::Lose, Sort::Duplicate, Sort::Strange, Sort::Answer, Sort::StaleAnswer]
        }
        (Protocol::Tasks, Group::Server) => {
            &[Sort::Backup, Sort::Restore, Sort::LoseStore, Sort::Swap]
        }
        // What a client keeps; a conversation that goes back is nothing that a client can notice.
        (Protocol::Session, Group::Server) => &[Sort::Backup, Sort::Restore, Sort::LoseStore],
        (Protocol::Session, Group::Application) => &[Sort::SlowReader],
        (Protocol::Tasks, Group::Application) => &[Sort::SlowReader, Sort::LoseAnswer],
        // Files that are in use are copied by nobody, and there is no handler that the world knows.
        (Protocol::Custom(_), Group::Server) => &[Sort::LoseStore],
        (Protocol::Custom(_), Group::Application) => &[Sort::SlowReader],
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
        (_, Group::Server) => &[Sort::Retain, Sort::Backup, Sort::Restore, Sort::LoseStore],
        (_, Group::Disk) => &[Sort::PowerOff, Sort::DiskError, Sort::DiskFull, Sort::SlowCommit],
        (_, Group::Engine) => &[
            Sort::Election,
            Sort::StaleLeader,
            Sort::Isolate,
            Sort::HoldUp,
            Sort::LagFollow,
            Sort::BreakFollow,
            Sort::Redeliver,
            Sort::LoseAck,
            Sort::LateWrite,
            Sort::DoubleWrite,
            Sort::Full,
            Sort::EngineCrash,
            Sort::EngineAway,
            Sort::Zombie,
        ],
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

/// The weights of which each kind has one. Half of them are usual, so that a kind that is rare, or
/// that drowns all others, stands out.
const WEIGHTS: [u32; 4] = [1, 4, 4, 16];

/// Which faults occur, and how often each of them as compared with the others.
pub(super) struct Mix(Vec<(Sort, u32)>);

impl Mix {
    /// The weights by the names of the kinds.
    pub(super) fn weights(&self) -> BTreeMap<String, u32> {
        self.0.iter().map(|(sort, weight)| (sort.name().to_owned(), *weight)).collect()
    }

    /// One of the kinds; `None` if there is none.
    fn pick(&self, rng: &mut ChaCha12Rng) -> Option<Sort> {
        let sum: u32 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut left = if sum == 0 { return None } else { rng.random_range(0..sum) };
        self.0.iter().find_map(|(sort, weight)| match left.checked_sub(*weight) {
            Some(rest) => {
                left = rest;
                None
            }
            None => Some(*sort),
        })
    }
}

/// Draws which faults of some groups occur.
pub(super) fn mix(plan: &Plan, groups: &[Group], rng: &mut ChaCha12Rng) -> Mix {
    let protocol = plan.options.protocol();
    let all = groups.iter().flat_map(|group| sorts(protocol, *group)).copied();
    // Rare mixes need some kinds to be absent.
    let mut enabled: Vec<Sort> = all.filter(|_| rng.random_ratio(1, 2)).collect();
    // Turmoil never delivers what was held across a repair, so a run has one or the other.
    let without = if rng.random_ratio(1, 2) { Sort::Hold } else { Sort::Partition };
    enabled.retain(|sort| *sort != without);
    let without = if without == Sort::Hold { Sort::HoldUp } else { Sort::Isolate };
    enabled.retain(|sort| *sort != without);
    match &plan.options {
        Options::Custom { protocol, .. } => {
            // There is nothing to wait for.
            if protocol.critical_marks().is_empty() {
                enabled.retain(|sort| *sort != Sort::CutReplay);
            }
        }
        _ if speaks_extension(plan) => {}
        Options::Events { .. } => {
            // The base contract has no way to notice that the last frame before a pause was lost,
            // or that a log which went back has overtaken the cursor since.
            enabled.retain(|sort| !matches!(sort, Sort::Lose | Sort::Restore | Sort::LoseStore));
        }
        Options::Tasks { .. } => {
            // The base contract does not say which store an agent has.
            enabled.retain(|sort| !matches!(sort, Sort::Restore | Sort::LoseStore | Sort::Swap));
        }
        Options::Session { .. } => {
            // The base contract has no way to notice that the last frame before a pause was lost,
            // and no ids by which an answer that comes back with an older store could be known.
            enabled.retain(|sort| !matches!(sort, Sort::Lose | Sort::Restore));
        }
    }
    Mix(enabled.into_iter().map(|sort| (sort, pick(rng, &WEIGHTS))).collect())
}

/// Draws the faults of a plan.
pub(super) fn faults(plan: &Plan, mix: &Mix, per_minute: u32, rng: &mut ChaCha12Rng) -> Vec<Step> {
    let count = u64::from(per_minute) * plan.duration_ms / 60_000;
    let mut steps = Vec::new();
    for _ in 0..count {
        let Some(sort) = mix.pick(rng) else { break };
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
        if sort == Sort::Zombie
            && let When::At(at) = step.when
        {
            // While it sleeps the others go on with another leader.
            let for_ms = rng.random_range(100..1_500);
            let election = EngineFault::Election { for_ms, lost: rng.random() };
            let action = Action::Fault(Fault::Engine(election));
            steps.push(Step { when: When::At(at + rng.random_range(0..500)), action });
        }
        steps.push(step);
    }
    steps
}

/// When a fault comes: half of them while something is being published, because a fault in a
/// silence shows little.
fn moment(plan: &Plan, rng: &mut ChaCha12Rng) -> u64 {
    let any = rng.random_range(500..plan.duration_ms);
    let bursts: Vec<u64> = plan
        .steps
        .iter()
        .filter_map(|step| match (&step.when, &step.action) {
            (
                When::At(at),
                Action::Publish(_) | Action::Submit(_) | Action::Say(_) | Action::Work(_),
            ) => Some(*at),
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
    let cluster = plan.topology.is_cluster();
    let server = if cluster { pick(rng, &plan.topology.servers()) } else { Host::Server };
    let host = if host == Host::Server { server } else { host };
    // Only with tasks have both sides one that can be copied.
    let database = match plan.options.protocol() {
        Protocol::Events if cluster => Host::Engine,
        Protocol::Events => Host::Server,
        Protocol::Tasks | Protocol::Custom(_) => host,
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
                Protocol::Custom(protocol) => pick(rng, protocol.critical_marks()),
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
        Sort::ServerCrash => (at, Fault::Crash { host: server, restart_ms: short }),
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
                Protocol::Custom(protocol) => match protocol.critical_marks() {
                    [] => &["world.committed"],
                    critical => critical,
                },
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
                Protocol::Events | Protocol::Tasks | Protocol::Custom(_) => pick(rng, &[80, 400]),
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
        Sort::LoseStore => (at, Fault::LoseStore { host: database, restart_ms: short }),
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
        Sort::Election => {
            let lost = rng.random();
            (at, Fault::Engine(EngineFault::Election { for_ms: short, lost }))
        }
        Sort::StaleLeader => (at, Fault::Engine(EngineFault::StaleLeader { host: server, for_ms })),
        Sort::Isolate | Sort::HoldUp => {
            let held = sort == Sort::HoldUp;
            (at, Fault::Engine(EngineFault::Isolate { host: server, held, for_ms }))
        }
        Sort::LagFollow => (at, Fault::Engine(EngineFault::LagFollow { host: server, for_ms })),
        Sort::BreakFollow => (at, Fault::Engine(EngineFault::BreakFollow { host: server })),
        Sort::Redeliver => {
            let messages = rng.random_range(1..20);
            (at, Fault::Engine(EngineFault::Redeliver { host: server, messages }))
        }
        Sort::LoseAck => {
            (at, Fault::Engine(EngineFault::LoseAck { times: rng.random_range(1..4) }))
        }
        Sort::LateWrite => {
            let (times, after_ms) = (rng.random_range(1..4), pick(rng, &[300, 2_500, 6_000]));
            (at, Fault::Engine(EngineFault::LateWrite { times, after_ms }))
        }
        Sort::DoubleWrite => {
            (at, Fault::Engine(EngineFault::DoubleWrite { times: rng.random_range(1..4) }))
        }
        Sort::Full => (at, Fault::Engine(EngineFault::Full { for_ms: short })),
        Sort::EngineCrash => (at, Fault::Crash { host: Host::Engine, restart_ms: for_ms }),
        Sort::EngineAway => (at, Fault::Suspend { host: Host::Engine, for_ms }),
        Sort::Zombie => {
            (at, Fault::Suspend { host: server, for_ms: rng.random_range(2_000..9_000) })
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
