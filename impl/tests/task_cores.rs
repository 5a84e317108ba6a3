//! Agent and controller, each with its store, in one loop with a clock, a link and faults from a
//! seed. No sockets, no processes: what holds here holds by the cores and the stores alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use gapless::database::Synchronous;
use gapless::recovery::{BackoffConfig, Instant, LivenessConfig, WallTime};
use gapless::storage::{StoreId, Transact};
use gapless::tasks::agent::{self, Agent, AgentConfig, Exit, Posted};
use gapless::tasks::controller::record::{self, AttemptState, FinalTaken, Submission, Submitted};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::controller::{self, Controller, ControllerConfig};
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::wire::{AgentMessage, ControllerMessage, Deliver, Envelope};
use gapless::tasks::{Attempt, Outcome, OutputStream, TaskId};
use gapless::{AgentId, ConnectionId, Core, Ticket};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// One way, in milliseconds.
const LATENCY: u64 = 5;

const DURATION: u64 = 60_000;

/// How long after the last fault everything has to be there.
const SETTLE: u64 = 240_000;

/// What a command does: pieces of output at times after its start, and its end.
#[derive(Debug, Clone)]
struct Script {
    pieces: VecDeque<(u64, OutputStream, Bytes)>,
    ends_at: u64,
}

struct AgentSide {
    core: Agent,
    store: SqliteTaskStore,
    scripts: BTreeMap<Attempt, Script>,
    deaf: BTreeSet<Attempt>,
}

struct ControllerSide {
    core: Controller,
    record: SqliteRecord,
}

#[derive(Default)]
struct Link {
    at_agent: Option<ConnectionId>,
    at_controller: Option<ConnectionId>,
    to_agent: VecDeque<(u64, Envelope<ControllerMessage>)>,
    to_controller: VecDeque<(u64, Envelope<AgentMessage>)>,
}

/// What differs from run to run beside the faults.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// Whether both sides speak the extension.
    extension: bool,
    /// Output is large and the spool is small.
    pressed: bool,
}

struct World {
    kind: Kind,
    now: u64,
    rng: ChaCha12Rng,
    folder: tempfile::TempDir,
    agent: Option<AgentSide>,
    agent_lives: u64,
    agent_back_at: u64,
    controller: Option<ControllerSide>,
    controller_back_at: u64,
    connections: u64,
    link: Link,
    /// No connection can be opened before this time.
    unreachable_until: u64,
    answers: BTreeMap<Ticket, Result<record::Reply, gapless::storage::StoreError>>,
    tickets: u64,
    faults: bool,
    // What really happened.
    begun: BTreeMap<Attempt, u32>,
    wrote: BTreeMap<(Attempt, OutputStream), Vec<u8>>,
    /// What each number names, as it was stored.
    numbers: BTreeMap<(Attempt, OutputStream, u64), Bytes>,
    ended: BTreeMap<Attempt, i64>,
    counters: BTreeMap<&'static str, u64>,
}

fn agent_name() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

fn agent_config(kind: Kind) -> AgentConfig {
    AgentConfig {
        extension: kind.extension,
        reconnect: BackoffConfig {
            min: Duration::from_millis(200),
            max: Duration::from_secs(5),
            jitter_percent: 25,
        },
        liveness: LivenessConfig {
            ping_every: Duration::from_secs(5),
            pong_timeout: Duration::from_secs(3),
        },
        ack_timeout: Duration::from_secs(4),
        window_messages: 8,
        page_messages: 4,
        chunk_bytes: if kind.pressed { 2_048 } else { 64 },
        buffer_bytes: if kind.pressed { 8_192 } else { 512 },
        parallel: 2,
        fallback_after: Duration::from_secs(6),
        poll_every: Duration::from_secs(2),
        ..AgentConfig::default()
    }
}

/// What a command writes follows from its text: `<seed of the script>`.
fn script(command: &str, started: u64, kind: Kind) -> Script {
    let seed: u64 = command.parse().expect("the commands of this test are numbers");
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let mut at = started;
    let mut pieces = VecDeque::new();
    for _ in 0..rng.random_range(0..30) {
        at += rng.random_range(0..400);
        let stream = OutputStream::ALL[rng.random_range(0..2)];
        let length = rng.random_range(1..if kind.pressed { 6_000 } else { 200 });
        let data: Vec<u8> = match rng.random_range(0..3) {
            0 if kind.extension => (0..length).map(|_| rng.random()).collect(),
            1 => "10 € und ein paar Zeichen mehr ".bytes().cycle().take(length).collect(),
            _ => vec![b'x'; length],
        };
        pieces.push_back((at, stream, data.into()));
    }
    Script { pieces, ends_at: at + rng.random_range(0..500) }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let kind =
            Kind { extension: rng.random_range(0..4) > 0, pressed: rng.random_range(0..3) == 0 };
        let mut world = Self {
            kind,
            now: 0,
            rng,
            folder: tempfile::tempdir().expect("a folder"),
            agent: None,
            agent_lives: 0,
            agent_back_at: 0,
            controller: None,
            controller_back_at: 0,
            connections: 0,
            link: Link::default(),
            unreachable_until: 0,
            answers: BTreeMap::new(),
            tickets: 0,
            faults: true,
            begun: BTreeMap::new(),
            wrote: BTreeMap::new(),
            numbers: BTreeMap::new(),
            ended: BTreeMap::new(),
            counters: BTreeMap::new(),
        };
        world.start_controller();
        world.start_agent();
        world
    }

    fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_default() += 1;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start_agent(&mut self) {
        let mut config = TaskStoreConfig::new(self.path("agent.db"));
        config.synchronous = Synchronous::Normal;
        if self.kind.pressed {
            config.spool_cap_bytes = 192 << 10;
            config.terminal_reserve_bytes = 4 << 10;
        }
        let store = SqliteTaskStore::open(config).expect("the store opens");
        self.agent_lives += 1;
        let entropy = ChaCha12Rng::seed_from_u64(self.rng.random());
        let core = Agent::new(agent_config(self.kind), Box::new(entropy));
        let (scripts, deaf) = Default::default();
        self.agent = Some(AgentSide { core, store, scripts, deaf });
        self.feed_agent(agent::Input::Start { at: WallTime::from_millis(1_000) });
    }

    fn start_controller(&mut self) {
        let mut config = RecordConfig::new(self.path("controller.db"));
        config.synchronous = Synchronous::Normal;
        let record = SqliteRecord::open(config).expect("the record opens");
        let entropy = ChaCha12Rng::seed_from_u64(self.rng.random());
        let config =
            ControllerConfig { extension: self.kind.extension, ..ControllerConfig::default() };
        let core = Controller::new(config, Box::new(entropy));
        self.controller = Some(ControllerSide { core, record });
    }

    // ---- the two sides -----------------------------------------------------------------------

    fn feed_agent(&mut self, input: agent::Input) {
        let Some(side) = &mut self.agent else { return };
        side.core.handle(Instant::from_millis(self.now), input);
        loop {
            let mut commands: Vec<(StoreId, _)> = Vec::new();
            while let Some(output) = self.agent.as_mut().and_then(|side| side.core.poll()) {
                match output {
                    agent::Output::Store(id, command) => commands.push((id, command)),
                    other => self.agent_does(other),
                }
            }
            if commands.is_empty() || !self.agent_stores(commands) {
                return;
            }
        }
    }

    /// One transaction; `false` if the process died around it.
    fn agent_stores(&mut self, commands: Vec<(StoreId, gapless::tasks::store::Command)>) -> bool {
        let dies = self.faults && self.rng.random_range(0..400) == 0;
        if dies && self.rng.random() {
            self.count("agent died before a commit");
            self.kill_agent();
            return false;
        }
        let Some(side) = &mut self.agent else { return false };
        let (ids, commands): (Vec<_>, Vec<_>) = commands.into_iter().unzip();
        for command in &commands {
            if let gapless::tasks::store::Command::Append(piece) = command {
                let name = (piece.attempt.clone(), piece.stream, piece.sequence);
                let bound = self.numbers.entry(name).or_insert_with(|| piece.data.clone());
                assert_eq!(*bound, piece.data, "a number names one piece");
            }
        }
        let replies = side.store.transact(commands);
        if dies {
            self.count("agent died after a commit");
            self.kill_agent();
            return false;
        }
        let now = Instant::from_millis(self.now);
        let replies = replies.expect("the store works");
        for (id, reply) in ids.into_iter().zip(replies) {
            side.core.handle(now, agent::Input::Stored(id, Ok(reply)));
        }
        true
    }

    fn agent_does(&mut self, output: agent::Output) {
        match output {
            agent::Output::Dial { conn } => self.dial(conn),
            agent::Output::Send { conn, message_id, message, .. } => {
                if self.link.at_agent == Some(conn) {
                    let envelope = Envelope {
                        message_id,
                        agent: agent_name(),
                        sent_at: WallTime::from_millis(0),
                        message,
                    };
                    self.link.to_controller.push_back((self.now + LATENCY, envelope));
                }
            }
            agent::Output::Ping { conn } => {
                self.feed_agent_later(agent::Input::PingWritten { conn });
                if self.link.at_agent == Some(conn) && self.link.at_controller.is_some() {
                    self.feed_agent_later(agent::Input::Alive { conn });
                    if let (Some(conn), Some(side)) =
                        (self.link.at_controller, self.controller.as_mut())
                    {
                        let now = Instant::from_millis(self.now);
                        side.core.handle(now, controller::Input::Alive { conn });
                    }
                }
            }
            agent::Output::Close { conn, .. } => {
                if self.link.at_agent == Some(conn) {
                    self.cut(false, true);
                }
            }
            agent::Output::Run { attempt, command } => {
                *self.begun.entry(attempt.clone()).or_default() += 1;
                let script = script(&command, self.now, self.kind);
                if let Some(side) = &mut self.agent {
                    side.scripts.insert(attempt, script);
                }
            }
            agent::Output::Listen { attempt, on } => {
                if let Some(side) = &mut self.agent {
                    match on {
                        true => side.deaf.remove(&attempt),
                        false => side.deaf.insert(attempt),
                    };
                }
            }
            agent::Output::Kill { attempt } => {
                if let Some(side) = &mut self.agent {
                    side.scripts.remove(&attempt);
                }
            }
            agent::Output::Post { ticket, message_id, result } => {
                self.count("posted");
                let reachable = self.now >= self.unreachable_until;
                let at = self.ask(|ticket| controller::Input::Post {
                    ticket,
                    agent: agent_name(),
                    message_id,
                    result,
                });
                let lost = self.faults && self.rng.random_range(0..4) == 0;
                let answer = match at.and_then(|at| self.answers.remove(&at)) {
                    Some(Ok(record::Reply::FinalTaken(taken))) if reachable && !lost => {
                        assert_ne!(taken, FinalTaken::Foreign);
                        Posted::Accepted
                    }
                    _ => Posted::Unknown("no answer".to_owned()),
                };
                self.feed_agent_later(agent::Input::Posted { ticket, answer });
            }
            agent::Output::Poll { ticket } => {
                let answer = match self.now >= self.unreachable_until {
                    true => self.poll_controller(),
                    false => Err("unreachable".to_owned()),
                };
                let at = WallTime::from_millis(0);
                self.feed_agent_later(agent::Input::Polled { ticket, answer, at });
            }
            agent::Output::Store(..) => unreachable!("taken before"),
            agent::Output::Notify(_) => {}
        }
    }

    /// Inputs that follow at once from an output, in the same turn.
    fn feed_agent_later(&mut self, input: agent::Input) {
        if let Some(side) = &mut self.agent {
            side.core.handle(Instant::from_millis(self.now), input);
        }
    }

    fn feed_controller(&mut self, input: controller::Input) {
        let Some(side) = &mut self.controller else { return };
        side.core.handle(Instant::from_millis(self.now), input);
        self.drain_controller();
    }

    fn drain_controller(&mut self) -> Vec<(Ticket, Vec<Deliver>)> {
        let mut polled = Vec::new();
        loop {
            let mut commands: Vec<(StoreId, _)> = Vec::new();
            while let Some(output) = self.controller.as_mut().and_then(|side| side.core.poll()) {
                match output {
                    controller::Output::Store(id, command) => commands.push((id, command)),
                    controller::Output::Send { conn, message_id, message, .. } => {
                        if self.link.at_controller == Some(conn) {
                            let envelope = Envelope {
                                message_id,
                                agent: agent_name(),
                                sent_at: WallTime::from_millis(0),
                                message,
                            };
                            self.link.to_agent.push_back((self.now + LATENCY, envelope));
                        }
                    }
                    controller::Output::Close { conn, .. } => {
                        if self.link.at_controller == Some(conn) {
                            self.link.at_controller = None;
                            self.cut(true, false);
                        }
                    }
                    controller::Output::Answer { ticket, result } => {
                        self.answers.insert(ticket, result);
                    }
                    controller::Output::Tasks { ticket, result } => {
                        polled.push((ticket, result.expect("the record works")));
                    }
                    controller::Output::Notify(_) => {}
                }
            }
            if commands.is_empty() {
                return polled;
            }
            let dies = self.faults && self.rng.random_range(0..400) == 0;
            let (ids, commands): (Vec<_>, Vec<_>) = commands.into_iter().unzip();
            let Some(side) = &mut self.controller else { return polled };
            let replies = side.record.transact(commands).expect("the record works");
            if dies {
                self.count("controller died after a commit");
                self.kill_controller();
                return polled;
            }
            let now = Instant::from_millis(self.now);
            for (id, reply) in ids.into_iter().zip(replies) {
                side.core.handle(now, controller::Input::Stored(id, Ok(reply)));
            }
        }
    }

    fn ask(&mut self, input: impl FnOnce(Ticket) -> controller::Input) -> Option<Ticket> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.feed_controller(input(ticket));
        self.controller.is_some().then_some(ticket)
    }

    fn poll_controller(&mut self) -> Result<Vec<Deliver>, String> {
        self.count("polled");
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let Some(side) = &mut self.controller else { return Err("down".to_owned()) };
        let input = controller::Input::Poll { ticket, agent: agent_name() };
        side.core.handle(Instant::from_millis(self.now), input);
        let polled = self.drain_controller();
        polled.into_iter().next().map(|(_, tasks)| tasks).ok_or_else(|| "down".to_owned())
    }

    // ---- the link ----------------------------------------------------------------------------

    fn dial(&mut self, conn: ConnectionId) {
        if self.now < self.unreachable_until || self.controller.is_none() {
            let reason = "unreachable".to_owned();
            self.feed_agent_later(agent::Input::DialFailed { conn, reason });
            return;
        }
        self.connections += 1;
        let at_controller = ConnectionId(self.connections);
        self.link =
            Link { at_agent: Some(conn), at_controller: Some(at_controller), ..Link::default() };
        self.feed_controller(controller::Input::Connected {
            conn: at_controller,
            agent: agent_name(),
        });
        let at = WallTime::from_millis(0);
        self.feed_agent_later(agent::Input::Opened { conn, at });
    }

    /// Ends the connection; who is not told believes in it.
    fn cut(&mut self, tell_agent: bool, tell_controller: bool) {
        let link = std::mem::take(&mut self.link);
        if let (true, Some(conn)) = (tell_agent, link.at_agent) {
            self.feed_agent_later(agent::Input::Closed { conn, code: None });
        } else {
            self.link.at_agent = link.at_agent;
        }
        if let (true, Some(conn)) = (tell_controller, link.at_controller) {
            self.feed_controller(controller::Input::Disconnected { conn });
        }
    }

    fn kill_agent(&mut self) {
        self.agent = None;
        self.agent_back_at = self.now + self.rng.random_range(1..3_000);
        self.link.at_agent = None;
        if let Some(conn) = self.link.at_controller.take() {
            self.feed_controller(controller::Input::Disconnected { conn });
        }
        self.link = Link::default();
    }

    fn kill_controller(&mut self) {
        self.controller = None;
        self.controller_back_at = self.now + self.rng.random_range(1..3_000);
        let conn = self.link.at_agent;
        self.link = Link::default();
        if let Some(conn) = conn {
            self.feed_agent_later(agent::Input::Closed { conn, code: None });
        }
    }

    // ---- time --------------------------------------------------------------------------------

    fn step(&mut self) {
        if self.agent.is_none() && self.now >= self.agent_back_at {
            self.start_agent();
        }
        if self.controller.is_none() && self.now >= self.controller_back_at {
            self.start_controller();
        }
        while self.link.to_controller.front().is_some_and(|(due, _)| *due <= self.now) {
            let (_, frame) = self.link.to_controller.pop_front().expect("looked at");
            if let Some(conn) = self.link.at_controller {
                self.feed_controller(controller::Input::Frame { conn, frame });
            }
        }
        while self.link.to_agent.front().is_some_and(|(due, _)| *due <= self.now) {
            let (_, frame) = self.link.to_agent.pop_front().expect("looked at");
            if let Some(conn) = self.link.at_agent {
                let at = WallTime::from_millis(0);
                self.feed_agent(agent::Input::Frame { conn, frame, at });
            }
        }
        self.run_scripts();
        let now = Instant::from_millis(self.now);
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.agent.as_ref().and_then(|side| side.core.deadline())) {
            self.feed_agent(agent::Input::Timeout);
        }
        if due(self.controller.as_ref().and_then(|side| side.core.deadline())) {
            self.feed_controller(controller::Input::Timeout);
        }
        self.now += 1;
    }

    fn run_scripts(&mut self) {
        let Some(side) = &mut self.agent else { return };
        let attempts: Vec<Attempt> =
            side.scripts.keys().filter(|it| !side.deaf.contains(it)).cloned().collect();
        for attempt in attempts {
            loop {
                let Some(side) = &mut self.agent else { return };
                if side.deaf.contains(&attempt) {
                    break;
                }
                let Some(script) = side.scripts.get_mut(&attempt) else { break };
                match script.pieces.front() {
                    Some((due, ..)) if *due <= self.now => {
                        let (_, stream, data) = script.pieces.pop_front().expect("looked at");
                        let key = (attempt.clone(), stream);
                        self.wrote.entry(key).or_default().extend_from_slice(&data);
                        let attempt = attempt.clone();
                        self.feed_agent(agent::Input::Wrote { attempt, stream, data });
                    }
                    None if script.ends_at <= self.now => {
                        side.scripts.remove(&attempt);
                        let exit = Exit {
                            outcome: Outcome::Completed,
                            exit_code: 0,
                            error: String::new(),
                            truncated: vec![],
                        };
                        self.ended.insert(attempt.clone(), 0);
                        let attempt = attempt.clone();
                        self.feed_agent(agent::Input::Exited { attempt, exit });
                        break;
                    }
                    _ => break,
                }
            }
        }
    }

    fn submit(&mut self, task: &str, seed: u64) -> bool {
        let submission = Submission {
            task: TaskId::parse(task).expect("valid"),
            principal: "somebody".to_owned(),
            agent: agent_name(),
            command: seed.to_string(),
            priority: 0,
        };
        let at = self.ask(|ticket| controller::Input::Ask {
            ticket,
            command: record::Command::Submit(submission),
        });
        matches!(
            at.and_then(|at| self.answers.remove(&at)),
            Some(Ok(record::Reply::Submitted(Submitted::Stored { .. })))
        )
    }

    fn look(&mut self, command: record::Command) -> record::Reply {
        let side = self.controller.as_mut().expect("the controller is there");
        side.record.transact(vec![command]).expect("the record works").remove(0)
    }
}

/// A run under faults, then the checks. What was counted comes back.
fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut world = World::new(seed);
    let mut tasks: Vec<(String, u64)> = Vec::new();
    while world.now < DURATION {
        if tasks.len() < 12 && world.rng.random_range(0..3_000) == 0 {
            let script: u64 = world.rng.random_range(0..1_000_000);
            tasks.push((format!("task-{}", tasks.len() + 1), script));
        }
        // A wish of unknown outcome is wished again.
        if world.now.is_multiple_of(500) {
            for (task, script) in tasks.clone() {
                world.submit(&task, script);
            }
        }
        match world.rng.random_range(0..12_000) {
            0 => {
                world.count("cut");
                world.cut(true, true);
            }
            1 => {
                world.count("half open at the agent");
                world.cut(false, true);
            }
            2 => {
                world.count("half open at the controller");
                world.cut(true, false);
            }
            3 if world.agent.is_some() => {
                world.count("agent killed");
                world.kill_agent();
            }
            4 if world.controller.is_some() => {
                world.count("controller killed");
                world.kill_controller();
            }
            5 => {
                world.count("unreachable");
                world.unreachable_until = world.now + world.rng.random_range(0..15_000);
                world.cut(true, true);
            }
            6 => {
                world.count("frame to the agent lost");
                world.link.to_agent.pop_front();
            }
            7 => {
                world.count("frame to the controller lost");
                world.link.to_controller.pop_front();
            }
            8 if world.agent.is_some() && world.kind.extension && !world.kind.pressed => {
                world.count("agent store lost");
                world.kill_agent();
                for file in ["agent.db", "agent.db-wal", "agent.db-shm"] {
                    let _ = std::fs::remove_file(world.path(file));
                }
            }
            _ => {}
        }
        world.step();
    }
    world.faults = false;
    world.unreachable_until = 0;
    let end = world.now + SETTLE;
    while world.now < end {
        if world.now == end - SETTLE / 4 {
            // The ends of streams that were given up are declared in a hello.
            world.cut(true, true);
        }
        if world.now.is_multiple_of(500) {
            for (task, script) in tasks.clone() {
                world.submit(&task, script);
            }
        }
        world.step();
    }
    check(seed, &mut world, &tasks);
    let interrupted = world.begun.len() - world.ended.len();
    world.counters.insert("interrupted", interrupted as u64);
    world.counters
}

fn check(seed: u64, world: &mut World, tasks: &[(String, u64)]) {
    for (attempt, times) in &world.begun {
        assert_eq!(*times, 1, "seed {seed}: {attempt} was begun {times} times");
    }
    let mut holes = 0;
    for (task, _) in tasks {
        let id = TaskId::parse(task).expect("valid");
        let record::Reply::Task(Some(view)) = world.look(record::Command::Look(id)) else {
            panic!("seed {seed}: {task} is not known")
        };
        let last = view.attempts.last().expect("a task has an attempt").clone();
        let attempt = last.attempt.clone();
        assert!(
            matches!(last.state, AttemptState::Final | AttemptState::Interrupted),
            "seed {seed}: {attempt} is {:?}",
            last.state
        );
        let ended = world.ended.contains_key(&attempt);
        if let Some(result) = &last.result {
            let stored_as_ended = result.outcome == Outcome::Completed;
            assert!(!stored_as_ended || ended, "seed {seed}: {attempt} never ended");
        }
        for stream in OutputStream::ALL {
            let (after, count_max) = (0, usize::MAX);
            let attempt = attempt.clone();
            let command =
                record::Command::ReadOutput { attempt: attempt.clone(), stream, after, count_max };
            let record::Reply::Output(page) = world.look(command) else { panic!("an answer") };
            let key = (attempt.clone(), stream);
            let wrote = world.wrote.get(&key).cloned().unwrap_or_default();
            let (mut taken, mut next, mut lost) = (Vec::new(), 1, page.lost.iter().peekable());
            for (sequence, data) in &page.pieces {
                while let Some(range) = lost.next_if(|range| range.from == next) {
                    next = range.to + 1;
                }
                assert_eq!(*sequence, next, "seed {seed}: {attempt} {stream:?}");
                let name = (attempt.clone(), stream, next);
                assert!(*data == world.numbers[&name], "seed {seed}: {attempt} {stream:?} differs");
                taken.extend_from_slice(data);
                next += 1;
            }
            if !page.lost.is_empty() || (!world.kind.extension && world.kind.pressed) {
                holes += u64::from(!page.lost.is_empty());
                assert!(world.kind.pressed, "seed {seed}: {attempt} {stream:?} has holes");
                continue;
            }
            let completed = last.result.as_ref().is_some_and(|it| it.outcome == Outcome::Completed);
            let cut = last.result.as_ref().is_some_and(|it| match stream {
                OutputStream::Stdout => it.output_truncated,
                OutputStream::Stderr => it.error_truncated,
            });
            // What was in a store that is lost is lost with it, but nothing runs twice for that.
            let kept = !world.counters.contains_key("agent store lost");
            match completed && !cut && kept {
                true => assert!(taken == wrote, "seed {seed}: {attempt} {stream:?} differs"),
                // What was not in the store when the process died is lost with it.
                false => assert!(wrote.starts_with(&taken), "seed {seed}: {attempt} {stream:?}"),
            }
        }
    }
    world.counters.insert("streams with declared holes", holes);
    let what = if world.kind.extension { "extension" } else { "base contract" };
    world.counters.insert(what, 1);
    // Everything is acknowledged, so nothing waits any more.
    let side = world.agent.as_mut().expect("the agent is there");
    let command = gapless::tasks::store::Command::Snapshot { finals_max: 99, ranges_max: 99 };
    let replies = side.store.transact(vec![command]).expect("the store works");
    let [gapless::tasks::store::Reply::Snapshot(snapshot)] = &replies[..] else { panic!("one") };
    assert_eq!(snapshot.finals, [], "seed {seed}");
    assert_eq!(snapshot.output, [], "seed {seed}");
    assert_eq!(snapshot.running, [], "seed {seed}");
    assert_eq!(snapshot.received, [], "seed {seed}");
}

#[test]
fn everything_runs_once_and_arrives_whole_whatever_breaks() {
    let mut sum: BTreeMap<&'static str, u64> = BTreeMap::new();
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let from = number("SEED").unwrap_or(1);
    let count = number("SEEDS").unwrap_or(if from == 1 { 40 } else { 1 });
    let seeds = from..from + count;
    for seed in seeds {
        for (what, count) in run(seed) {
            *sum.entry(what).or_default() += count;
        }
    }
    println!("{sum:#?}");
    if count >= 40 {
        for what in [
            "agent died before a commit",
            "agent died after a commit",
            "controller died after a commit",
            "cut",
            "half open at the agent",
            "half open at the controller",
            "agent killed",
            "controller killed",
            "unreachable",
            "posted",
            "polled",
            "interrupted",
            "agent store lost",
            "streams with declared holes",
            "extension",
            "base contract",
        ] {
            assert!(
                sum.get(what).is_some_and(|count| *count > 0),
                "{what} never happened: {sum:?}"
            );
        }
    }
}
