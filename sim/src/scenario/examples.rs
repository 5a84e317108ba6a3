//! One example of every fault, for the page about the file format and for the test that runs it.

use super::{Invalid, Scenario};
use crate::plan::{Action, Fault};

/// A world for each protocol, in which the examples happen.
pub(super) const WORLDS: [(&str, &str); 4] = [
    (
        "events",
        r#"title    = "a server, two clients of one agent, and something to hear all the time"
protocol = "events"
duration = "20s"
tick     = "10ms"

[topology]
clients = 2

[client]
reconnect = "200ms..2s"

[[step]]
at = "1s"
publish = { to = "agent-1", count = 60, every = "200ms" }
"#,
    ),
    (
        "tasks",
        r#"title    = "a controller, an agent, and a task that takes its time"
protocol = "tasks"
duration = "30s"
tick     = "10ms"

[controller]
redelivery = "1s..5s"
silence = "20s"

[agent]
reconnect = "100ms..2s"

[[step]]
at = "1s"
submit = { to = "agent-1", name = "job", count = 2, stdout = 20, write-every = "200ms" }
"#,
    ),
    (
        "sessions",
        r#"title    = "a server, a user at a client, and something to talk about"
protocol = "session"
duration = "20s"
tick     = "10ms"

[client]
reconnect = "100ms..1s"

[[step]]
at = "1s"
say = { at = "client-1", count = 10, every = "1s", replies = 2 }
"#,
    ),
    (
        "several servers",
        r#"title    = "three servers on one engine, two clients of one agent that go from one to the other"
protocol = "events"
duration = "20s"
tick     = "10ms"

[topology]
clients = 2
servers = 3

[client]
reconnect = "200ms..2s"

[[step]]
at = "1s"
publish = { to = "agent-1", count = 60, every = "200ms" }
"#,
    ),
];

/// An example of a fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Example<'a> {
    /// The kind of the fault.
    pub(super) kind: &'a str,
    /// What happens, as a sentence without an end.
    pub(super) title: &'a str,
    /// Which of the worlds it happens in.
    pub(super) world: usize,
    /// When.
    pub(super) at: &'a str,
    /// What stands in the braces.
    pub(super) fault: &'a str,
    /// What has to happen before.
    pub(super) before: &'a str,
}

/// An example that was read.
pub(super) struct Tried {
    /// All of it.
    pub(super) scenario: Scenario,
    /// The fault.
    pub(super) fault: Fault,
}

impl Example<'_> {
    /// The step, as it stands in a file.
    pub(super) fn step(&self) -> String {
        let before = match self.before {
            "" => String::new(),
            before => format!("[[step]]\nat = \"500ms\"\n{before}\n\n"),
        };
        format!("{before}[[step]]\nat = \"{}\"\nfault = {{ {} }}\n", self.at, self.fault)
    }

    /// The whole file.
    pub(super) fn text(&self) -> String {
        let (_, world) = WORLDS[self.world];
        let (_, rest) = world.split_once('\n').unwrap_or_default();
        format!("title    = \"{}\"\n{rest}\n{}", self.title, self.step())
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if it is no scenario.
    pub(super) fn scenario(&self) -> Result<Tried, Invalid> {
        let scenario = Scenario::parse(&format!("docs/{}", self.kind), &self.text())?;
        let fault = scenario.steps.iter().rev().find_map(|step| match &step.action {
            Action::Fault(fault) => Some(fault.clone()),
            _ => None,
        });
        Ok(Tried { fault: fault.expect("the last step is a fault"), scenario })
    }
}

const EVENTS: usize = 0;
const TASKS: usize = 1;
const CLUSTER: usize = 3;

/// An example of every kind, in the order in which the reader knows them.
pub(super) const EXAMPLES: [Example<'static>; 40] = [
    at(
        EVENTS,
        "cut",
        "the link of client-1 dies silently, and it is kept away for a second",
        r#"cut = "client-1", how = "half-open", for = "1s""#,
    ),
    at(
        EVENTS,
        "hold",
        "what is said to client-1 and by it comes two seconds late, all at once",
        r#"hold = "client-1", for = "2s""#,
    ),
    at(
        EVENTS,
        "partition",
        "no packet passes between client-1 and the server",
        r#"partition = "client-1", for = "2s""#,
    ),
    at(
        EVENTS,
        "latency",
        "client-1 is half a second away for a while",
        r#"latency = "client-1", to = "500ms", for = "5s""#,
    ),
    after(
        EVENTS,
        "refuse",
        "client-1 loses its connection and gets no other one for five seconds",
        r#"refuse = "client-1", for = "5s""#,
        r#"fault = { cut = "client-1", how = "reset", for = "3s" }"#,
    ),
    after(
        EVENTS,
        "never-answer",
        "client-1 loses its connection, and the next ones are not answered",
        r#"never-answer = "client-1", for = "3s""#,
        r#"fault = { cut = "client-1", how = "reset", for = "3s" }"#,
    ),
    at(
        EVENTS,
        "crash",
        "the server is killed and started again",
        r#"crash = "server", restart = "300ms""#,
    ),
    at(
        EVENTS,
        "stop-reading",
        "client-1 takes nothing from its socket for a while",
        r#"stop-reading = "client-1", for = "3s""#,
    ),
    at(
        EVENTS,
        "slow-reader",
        "client-1 takes a little at a time",
        r#"slow-reader = "client-1", pause = "200ms", for = "3s""#,
    ),
    at(
        EVENTS,
        "slow-handler",
        "the application of client-1 takes a third of a second for each event",
        r#"slow-handler = "client-1", each = "300ms", for = "3s""#,
    ),
    at(
        EVENTS,
        "fail-handler",
        "the application of client-1 fails twice at what it is given next",
        r#"fail-handler = "client-1", times = 2"#,
    ),
    after(
        EVENTS,
        "fail-open-handler",
        "client-1 comes back, and its application fails at the greeting",
        r#"fail-open-handler = "client-1", times = 1"#,
        r#"fault = { cut = "client-1", how = "reset", for = "3s" }"#,
    ),
    at(
        EVENTS,
        "duplicate",
        "the next two events come twice to client-1",
        r#"duplicate = "client-1", frames = 2"#,
    ),
    at(
        EVENTS,
        "lose",
        "the next event does not come to client-1",
        r#"lose = "client-1", frames = 1"#,
    ),
    at(
        EVENTS,
        "inject",
        "client-1 gets a frame that nobody knows",
        r#"inject = "client-1", frame = "unknown-type", to = "client""#,
    ),
    at(
        EVENTS,
        "retain",
        "the log forgets all but the five newest events",
        r#"retain = "agent-1", keep = 5"#,
    ),
    at(
        EVENTS,
        "power-off",
        "the plug of the server is pulled, three operations of its disk later, inside a write",
        r#"power-off = "server", after-ops = 3, torn-percent = 50, restart = "500ms""#,
    ),
    at(
        EVENTS,
        "disk-error",
        "the next sync of the server's disk fails",
        r#"disk-error = "server", of = "sync", times = 1"#,
    ),
    at(
        EVENTS,
        "disk-full",
        "the server's disk is full for a while",
        r#"disk-full = "server", for = "2s""#,
    ),
    at(
        EVENTS,
        "slow-commit",
        "each commit of the server takes a third of a second",
        r#"slow-commit = "server", each = "300ms", for = "3s""#,
    ),
    at(
        EVENTS,
        "clock-step",
        "the clock of client-1 is set back by an hour",
        r#"clock-step = "client-1", by = "1h", back = true"#,
    ),
    at(
        EVENTS,
        "clock-drift",
        "the clock of the server gains a tenth of a second in each second",
        r#"clock-drift = "server", ppm = 100000, for = "10s""#,
    ),
    at(
        EVENTS,
        "suspend",
        "the machine of client-1 sleeps for three seconds",
        r#"suspend = "client-1", for = "3s""#,
    ),
    at(EVENTS, "backup", "the log is copied", r#"backup = "server""#),
    after(
        EVENTS,
        "restore",
        "the log goes back to the copy of a moment ago",
        r#"restore = "server", restart = "500ms""#,
        r#"fault = { backup = "server" }"#,
    ),
    at(
        EVENTS,
        "lose-log",
        "the server comes back with an empty log",
        r#"lose-log = "server", restart = "500ms""#,
    ),
    at(
        TASKS,
        "lose-store",
        "the agent comes back with an empty store",
        r#"lose-store = "agent-1", restart = "500ms""#,
    ),
    after(
        TASKS,
        "swap",
        "the agent goes on with the copy of a moment ago",
        r#"swap = "agent-1", restart = "500ms""#,
        r#"fault = { backup = "agent-1" }"#,
    ),
    after(
        TASKS,
        "answer",
        "the agent connects again, and the answer to its hello does not come",
        r#"answer = "agent-1", how = "lost""#,
        r#"fault = { cut = "agent-1", how = "reset", for = "3s" }"#,
    ),
    at(
        TASKS,
        "lose-answer",
        "the next answer over HTTP does not come back to the agent",
        r#"lose-answer = "agent-1", times = 1"#,
    ),
    at(
        CLUSTER,
        "election",
        "the engine loses its leader, and with it what was on its way",
        r#"election = "engine", lost = true, for = "2s""#,
    ),
    at(
        CLUSTER,
        "stale-leader",
        "server-2 talks to a leader that is none any more",
        r#"stale-leader = "server-2", for = "2s""#,
    ),
    at(
        CLUSTER,
        "isolate",
        "server-2 and the engine hear of each other two seconds late",
        r#"isolate = "server-2", how = "held", for = "2s""#,
    ),
    at(
        CLUSTER,
        "lag-follow",
        "server-2 learns two seconds late of what the log gets",
        r#"lag-follow = "server-2", for = "2s""#,
    ),
    at(
        CLUSTER,
        "break-follow",
        "server-2 has to begin anew to follow the log",
        r#"break-follow = "server-2""#,
    ),
    at(
        CLUSTER,
        "redeliver",
        "server-2 is told the newest three messages again",
        r#"redeliver = "server-2", messages = 3"#,
    ),
    at(
        CLUSTER,
        "lose-ack",
        "the next event is stored, and no server is told",
        r#"lose-ack = "engine", times = 1"#,
    ),
    at(
        CLUSTER,
        "late-write",
        "the next event takes a second longer than anybody waits",
        r#"late-write = "engine", times = 1, after = "3s""#,
    ),
    at(
        CLUSTER,
        "double-write",
        "the next event is published twice, and the second time is denied",
        r#"double-write = "engine", times = 1"#,
    ),
    at(CLUSTER, "full", "the engine takes no event for a while", r#"full = "engine", for = "2s""#),
];

const fn at<'a>(world: usize, kind: &'a str, title: &'a str, fault: &'a str) -> Example<'a> {
    after(world, kind, title, fault, "")
}

const fn after<'a>(
    world: usize,
    kind: &'a str,
    title: &'a str,
    fault: &'a str,
    before: &'a str,
) -> Example<'a> {
    Example { kind, title, world, at: "2s", fault, before }
}
