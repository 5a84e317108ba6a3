//! Reads a `[[step]]`: when, and what.

use super::reader::{At, Table, known_mark, nearest};
use crate::custom::{self, Work};
use crate::plan::{
    Action, Answer, Cut, EngineFault, Fault, Host, Protocol, Publish, Say, Script, Step, Strange,
    Submit, Text, Topology, TurnScript, When,
};
use gapless::tasks::TaskId;

/// The hosts that a step may name: those that are there in every run.
pub(super) struct Hosts {
    pub(super) protocol: Protocol,
    pub(super) clients: u32,
    pub(super) agents: u32,
    pub(super) servers: u32,
    /// The table that says how many there are.
    pub(super) table: &'static str,
}

/// When the faults of a scenario end.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// At a virtual time, after which nothing can come.
    At(u64),
    /// When they do. Nobody chose the times of what was drawn.
    Open,
}

impl End {
    /// Whether a time comes after the end.
    fn is_before(self, ms: u64) -> bool {
        match self {
            Self::At(end_ms) => end_ms < ms,
            Self::Open => false,
        }
    }
}

/// The kinds of faults, by the key that names them.
pub(super) const FAULTS: [&str; 40] = [
    "cut",
    "hold",
    "partition",
    "latency",
    "refuse",
    "never-answer",
    "crash",
    "stop-reading",
    "slow-reader",
    "slow-handler",
    "fail-handler",
    "fail-open-handler",
    "duplicate",
    "lose",
    "inject",
    "retain",
    "power-off",
    "disk-error",
    "disk-full",
    "slow-commit",
    "clock-step",
    "clock-drift",
    "suspend",
    "backup",
    "restore",
    "lose-log",
    "lose-store",
    "swap",
    "answer",
    "lose-answer",
    "election",
    "stale-leader",
    "isolate",
    "lag-follow",
    "break-follow",
    "redeliver",
    "lose-ack",
    "late-write",
    "double-write",
    "full",
];

/// The keys that say more about a fault: none is a misspelt kind.
const DETAILS: [&str; 21] = [
    "after",
    "after-frames",
    "after-ops",
    "back",
    "by",
    "each",
    "for",
    "frame",
    "frames",
    "how",
    "keep",
    "lost",
    "messages",
    "of",
    "pause",
    "ppm",
    "restart",
    "slow",
    "times",
    "to",
    "torn-percent",
];

pub(super) fn read(table: &Table<'_>, hosts: &Hosts, end: End, marks: &[&str]) -> Option<Step> {
    let when = when(table, end, marks);
    let begins_ms = when.as_ref().map_or(0, begins_ms);
    // One that begins too late has been reported.
    let late = |ends_ms| !end.is_before(begins_ms + 1) && end.is_before(begins_ms + ends_ms);
    // Both are read even if only one may be there, so that all problems are reported at once.
    let publish = table.table("publish").and_then(|inner| {
        let publish = publish(&inner, hosts)?;
        if late(u64::from(publish.count - 1) * publish.every_ms) {
            let remedy = "lower `count` or `every`, or raise `duration`";
            let label = "goes on for too long";
            inner.problem("the last event comes after the end", &inner.span(), label, remedy);
        }
        Some(publish)
    });
    let fault = table.table("fault").and_then(|inner| {
        let fault = fault(&inner, hosts)?;
        if late(lasts_ms(&fault)) {
            let remedy = "lower `for` or `restart`, or raise `duration`: faults end there";
            inner.problem("the fault goes on after the end", &inner.span(), "too long", remedy);
        }
        Some(fault)
    });
    let submit = table.table("submit").and_then(|inner| {
        let submit = submit(&inner, hosts)?;
        if late(u64::from(submit.count - 1) * submit.every_ms) {
            let remedy = "lower `count` or `every`, or raise `duration`";
            let label = "goes on for too long";
            inner.problem("the last task comes after the end", &inner.span(), label, remedy);
        }
        Some(submit)
    });
    let say = table.table("say").and_then(|inner| {
        let say = say(&inner, hosts)?;
        if late(u64::from(say.count - 1) * say.every_ms) {
            let remedy = "lower `count` or `every`, or raise `duration`";
            let label = "goes on for too long";
            inner.problem("the last message comes after the end", &inner.span(), label, remedy);
        }
        Some(say)
    });
    let work = table.table("work").and_then(|inner| work(&inner, hosts));
    let user = |key| table.text_optional(key).and_then(|name| client(table, &name, hosts));
    let (refresh, reconnect) = (user("refresh"), user("reconnect"));
    let wish = |key| table.text_optional(key).and_then(|name| task_id(table, &name));
    let (cancel, retry) = (wish("cancel"), wish("retry"));
    let named =
        ["publish", "submit", "cancel", "retry", "say", "refresh", "reconnect", "work", "fault"];
    let named: Vec<&str> = named.into_iter().filter(|key| table.has(key)).collect();
    let action = match named[..] {
        ["publish"] => publish.map(Action::Publish),
        ["submit"] => submit.map(Action::Submit),
        ["cancel"] => cancel.map(|task| Action::Cancel { task }),
        ["retry"] => retry.map(|task| Action::Retry { task }),
        ["say"] => say.map(Action::Say),
        ["refresh"] => refresh.map(|client| Action::Refresh { client }),
        ["reconnect"] => reconnect.map(|client| Action::Reconnect { client }),
        ["work"] => work.map(Action::Work),
        ["fault"] => fault.map(Action::Fault),
        _ => {
            let (message, label) = match named.is_empty() {
                false => ("a step does one thing", "does several things"),
                true => ("a step does something", "does nothing"),
            };
            let work = match hosts.protocol {
                Protocol::Events => "`publish = { … }`",
                Protocol::Tasks => "`submit = { … }`, `cancel = \"…\"`, `retry = \"…\"`",
                Protocol::Session => "`say = { … }`, `refresh = \"…\"`, `reconnect = \"…\"`",
                Protocol::Custom(_) => "`work = { … }`",
            };
            let remedy = format!("write {work} or `fault = {{ … }}`, one of them in each step");
            table.problem(message, &table.span(), label, remedy);
            None
        }
    };
    if let Some(action) = action.as_ref().filter(|action| !action.is_of(hosts.protocol)) {
        let what = match action {
            Action::Publish(_) => "events are published",
            Action::Say(_) | Action::Refresh { .. } | Action::Reconnect { .. } => {
                "users say something"
            }
            Action::Work(_) => "hosts are given `work`",
            Action::Fault(_) => "this goes wrong",
            _ => "tasks are submitted",
        };
        let remedy = format!(
            "see what the scenarios of this protocol do; `{} scenarios` lists them",
            custom::command()
        );
        let message = format!("{what} in scenarios of another protocol");
        table.problem(message, &table.span(), "not in this protocol", remedy);
    }
    Some(Step { when: when?, action: action? })
}

/// The earliest time at which a step can happen.
pub(super) fn begins_ms(when: &When) -> u64 {
    match when {
        When::At(at) => *at,
        When::Mark { after_ms, .. } => *after_ms,
    }
}

/// How long a fault lasts; nothing for one that happens at once.
fn lasts_ms(fault: &Fault) -> u64 {
    match *fault {
        Fault::Cut { for_ms, .. }
        | Fault::Hold { for_ms, .. }
        | Fault::Partition { for_ms, .. }
        | Fault::Latency { for_ms, .. }
        | Fault::Refuse { for_ms, .. }
        | Fault::NeverAnswer { for_ms, .. }
        | Fault::SlowReader { for_ms, .. }
        | Fault::SlowHandler { for_ms, .. }
        | Fault::DiskFull { for_ms, .. }
        | Fault::SlowCommit { for_ms, .. }
        | Fault::ClockDrift { for_ms, .. }
        | Fault::Suspend { for_ms, .. } => for_ms,
        Fault::Crash { restart_ms, .. }
        | Fault::PowerOff { restart_ms, .. }
        | Fault::Restore { restart_ms, .. }
        | Fault::Swap { restart_ms, .. }
        | Fault::LoseStore { restart_ms, .. } => restart_ms,
        Fault::Engine(ref fault) => fault.lasts_ms(),
        Fault::FailHandler { .. }
        | Fault::FailOpenHandler { .. }
        | Fault::Duplicate { .. }
        | Fault::Lose { .. }
        | Fault::Inject { .. }
        | Fault::Retain { .. }
        | Fault::DiskError { .. }
        | Fault::ClockStep { .. }
        | Fault::Answer { .. }
        | Fault::LoseAnswer { .. }
        | Fault::Backup { .. } => 0,
    }
}

fn when(table: &Table<'_>, end: End, marks: &[&str]) -> Option<When> {
    let (at, on) = (table.duration("at"), table.table("on"));
    let on = on.map(|on| mark(&on, end, marks));
    match (table.has("at"), table.has("on")) {
        (true, false) => {
            let (at, span) = at?;
            if end.is_before(at + 1) {
                let remedy = "move the step, or raise `duration`: faults end there";
                table.problem("the step comes after the end", &span, "too late", remedy);
            }
            Some(When::At(at))
        }
        (false, true) => on?,
        (both, _) => {
            let (message, label) = match both {
                true => ("a step happens once", "two times are given"),
                false => ("a step happens some time", "no time is given"),
            };
            let remedy = "write `at = \"2s\"` or `on = { mark = \"…\", nth = 1 }`, one of them";
            table.problem(message, &table.span(), label, remedy);
            None
        }
    }
}

fn mark(on: &Table<'_>, end: End, marks: &[&str]) -> Option<When> {
    let mark = on.text("mark");
    if let Some((mark, span)) = &mark {
        known_mark(on, mark, span, marks);
    }
    let nth = on.integer("nth", 1..=1_000).map_or(1, |(nth, _)| nth);
    let after_ms = on.duration("after").map_or(0, |(after, span)| {
        if end.is_before(after + 1) {
            let remedy = "lower `after`, or raise `duration`: faults end there";
            on.problem("the step comes after the end", &span, "too late", remedy);
        }
        after
    });
    on.finish();
    Some(When::Mark { mark: mark?.0, nth: u32::try_from(nth).unwrap_or(1), after_ms })
}

fn publish(table: &Table<'_>, hosts: &Hosts) -> Option<Publish> {
    let agent = table.text("to").and_then(|to| agent(table, &to, hosts));
    let small = |key, range, default: u32| {
        table.integer(key, range).map_or(default, |(n, _)| u32::try_from(n).unwrap_or(default))
    };
    let publish = Publish {
        agent: agent.unwrap_or(1),
        count: small("count", 1..=100_000, 1),
        every_ms: table.duration("every").map_or(0, |(every, _)| every),
        bytes: small("bytes", 0..=15_000, 16),
        ids: table.boolean("ids").is_none_or(|(ids, _)| ids),
        twice: table.boolean("twice").is_some_and(|(twice, _)| twice),
    };
    table.finish();
    agent.map(|_| publish)
}

/// The id of a task.
fn task_id(table: &Table<'_>, (name, span): &At<String>) -> Option<String> {
    match TaskId::parse(name) {
        Ok(_) => Some(name.clone()),
        Err(error) => {
            let remedy = "write a name like `build-1`";
            table.problem(error.to_string(), span, "no name of a task", remedy);
            None
        }
    }
}

fn submit(table: &Table<'_>, hosts: &Hosts) -> Option<Submit> {
    let agent = table.text("to").and_then(|to| client(table, &to, hosts));
    let name = table.text("name").and_then(|name| task_id(table, &name));
    let small = |key, range, default: u32| {
        table.integer(key, range).map_or(default, |(n, _)| u32::try_from(n).unwrap_or(default))
    };
    let text = table.one_of_optional(
        "text",
        &[("plain", Text::Plain), ("wide", Text::Wide), ("binary", Text::Binary)],
    );
    let priority = table.signed("priority", -100..=100).map_or(0, |(priority, _)| priority);
    let submit = Submit {
        name: name.clone().unwrap_or_default(),
        agent: agent.unwrap_or(1),
        count: small("count", 1..=10_000, 1),
        every_ms: table.duration("every").map_or(0, |(every, _)| every),
        priority,
        twice: table.boolean("twice").is_some_and(|(twice, _)| twice),
        script: Script {
            stdout: small("stdout", 0..=100_000, 3),
            stderr: small("stderr", 0..=100_000, 0),
            bytes: small("bytes", 1..=100_000, 40),
            every_ms: table.duration("write-every").map_or(20, |(every, _)| every),
            text: text.unwrap_or(Text::Plain),
            exit: u8::try_from(small("exit", 0..=255, 0)).unwrap_or(0),
        },
    };
    table.finish();
    agent.and(name).map(|_| submit)
}

fn say(table: &Table<'_>, hosts: &Hosts) -> Option<Say> {
    let at = table.text("at").and_then(|name| client(table, &name, hosts));
    let small = |key, range, default: u32| {
        table.integer(key, range).map_or(default, |(n, _)| u32::try_from(n).unwrap_or(default))
    };
    let say = Say {
        client: at.unwrap_or(1),
        count: small("count", 1..=10_000, 1),
        every_ms: table.duration("every").map_or(0, |(every, _)| every),
        bytes: small("bytes", 0..=8_192, 16),
        attachments: small("attachments", 0..=8, 0),
        same: table.boolean("same").is_some_and(|(same, _)| same),
        script: TurnScript {
            progress: small("progress", 0..=10_000, 0),
            say: small("replies", 0..=1_000, 1),
            bytes: small("reply-bytes", 0..=8_192, 16),
            each_ms: table.duration("each").map_or(50, |(each, _)| each),
            asks: small("asks", 0..=100, 0),
            fails: table.boolean("fails").is_some_and(|(fails, _)| fails),
        },
    };
    table.finish();
    at.map(|_| say)
}

/// Work for a host of a protocol that the user brought, who knows what it means.
fn work(table: &Table<'_>, hosts: &Hosts) -> Option<Work> {
    let (name, span) = table.text("at")?;
    let at = match name.as_str() {
        _ if name == Host::Server.name(hosts.protocol) => Host::Server,
        _ => Host::Client(client(table, &(name, span), hosts)?),
    };
    let work = Work { at, what: table.json_without("at") };
    if let Protocol::Custom(protocol) = hosts.protocol
        && let Err(problem) = protocol.check_work(&work)
    {
        let remedy = format!("see what other scenarios of `{}` do", protocol.name());
        table.problem(problem, &table.span(), "cannot be done", remedy);
        return None;
    }
    Some(work)
}

fn fault(table: &Table<'_>, hosts: &Hosts) -> Option<Fault> {
    let named: Vec<At<String>> =
        table.keys().into_iter().filter(|(key, _)| FAULTS.contains(&key.as_str())).collect();
    let kind = match named.as_slice() {
        [(kind, _)] => kind.as_str(),
        [] => {
            let kinds = table.keys().into_iter().filter(|(key, _)| !DETAILS.contains(&&**key));
            let near = kinds.into_iter().find_map(|(key, span)| {
                nearest(&key, FAULTS.into_iter()).map(|near| (key, span, near))
            });
            match near {
                Some((key, span, near)) => table.problem(
                    format!("there is no fault `{key}`"),
                    &span,
                    "unknown",
                    format!("did you mean `{near}`?"),
                ),
                None => table.problem(
                    "the fault has no kind",
                    &table.span(),
                    "no kind",
                    format!("name one of: {}", FAULTS.join(", ")),
                ),
            }
            return None;
        }
        [_, (_, second), ..] => {
            let remedy = "give each fault a step of its own";
            table.problem("the fault has two kinds", second, "a second kind", remedy);
            return None;
        }
    };
    let fault = read_fault(table, kind, hosts);
    table.finish();
    let fault = fault?;
    let topology = Topology { servers: hosts.servers, ..Topology::default() };
    if let Err(problem) = fault.check_hosts(&topology) {
        let remedy = format!(
            "with `servers = …` in `[{}]` there are several servers and an engine, whose log is \
             `backup`, `restore` and `lose-log` of `engine`",
            hosts.table
        );
        let message = format!("the fault {problem}");
        table.problem(message, &table.span(), "cannot be here", remedy);
        return None;
    }
    Some(fault)
}

fn read_fault(table: &Table<'_>, kind: &str, hosts: &Hosts) -> Option<Fault> {
    // Each fault asks for all of its keys before it gives up on one, so that only those are
    // called unknown that are.
    let client = |key| table.text(key).and_then(|name| client(table, &name, hosts));
    let needed = |key, message, remedy| {
        if !table.has(key) {
            table.problem(message, &table.span(), format!("no `{key}`"), remedy);
        }
        table.duration_needed(key).map(|(duration, _)| duration)
    };
    let host = |key| {
        let (name, span) = table.text(key)?;
        match own(&name, hosts) {
            Some(host) => Some(host),
            None => Some(Host::Client(self::client(table, &(name, span), hosts)?)),
        }
    };
    // A server, or the engine, of which there has to be one.
    let of_the_cluster = |key| {
        let (name, span) = table.text(key)?;
        let found = own(&name, hosts);
        if found.is_none() {
            let remedy = "write a server, as `server-2`";
            table.problem(format!("there is no server `{name}`"), &span, "no such server", remedy);
        }
        found
    };
    // What is named after the engine says so.
    let the_engine = |key| {
        let (name, span) = table.text(key)?;
        if name != Host::Engine.name(hosts.protocol) {
            let remedy = format!("write `{key} = \"engine\"`");
            table.problem("this happens to the engine", &span, "not the engine", remedy);
        }
        Some(())
    };
    let restart = || table.duration("restart").map_or(100, |(restart, _)| restart);
    // Of event streams only the server has a database that the world copies and replaces.
    let database = |key| match hosts.protocol {
        Protocol::Tasks | Protocol::Session | Protocol::Custom(_) => host(key),
        Protocol::Events => {
            let (name, span) = table.text(key)?;
            let of = if hosts.servers > 1 { Host::Engine } else { Host::Server };
            if name != of.name(hosts.protocol) {
                let remedy = format!("write `{key} = \"{}\"`", of.name(hosts.protocol));
                table.problem("only the server has a log", &span, "not the server", remedy);
            }
            Some(of)
        }
    };
    let lasts = || needed("for", "the fault does not end", "add how long it lasts: `for = \"2s\"`");
    let client_for = |key| client(key).zip(lasts());
    let small = |key, default: u32| {
        table
            .integer(key, 1..=100_000)
            .map_or(default, |(n, _)| u32::try_from(n).unwrap_or(default))
    };
    Some(match kind {
        "cut" => {
            let how = table.one_of(
                "how",
                &[
                    ("close", Cut::Close),
                    ("reset", Cut::Reset),
                    ("mid-frame", Cut::MidFrame),
                    ("half-open", Cut::HalfOpen),
                    ("half-open-up", Cut::HalfOpenUp),
                    ("half-open-down", Cut::HalfOpenDown),
                ],
            );
            let after_frames = table.integer("after-frames", 0..=100_000);
            let for_ms = table.duration("for").map_or(0, |(for_ms, _)| for_ms);
            Fault::Cut {
                client: client("cut")?,
                how: how?,
                after_frames: after_frames.map(|(n, _)| u32::try_from(n).unwrap_or(0)),
                for_ms,
            }
        }
        "hold" => {
            let (client, for_ms) = client_for("hold")?;
            Fault::Hold { client, for_ms }
        }
        "partition" => {
            let (client, for_ms) = client_for("partition")?;
            Fault::Partition { client, for_ms }
        }
        "latency" => {
            let remedy = "add how slow the link becomes: `to = \"400ms\"`";
            let to = needed("to", "the latency is not given", remedy);
            let ((client, for_ms), latency_ms) = client_for("latency").zip(to)?;
            Fault::Latency { client, latency_ms, for_ms }
        }
        "refuse" => {
            let (client, for_ms) = client_for("refuse")?;
            Fault::Refuse { client, for_ms }
        }
        "never-answer" => {
            let (client, for_ms) = client_for("never-answer")?;
            Fault::NeverAnswer { client, for_ms }
        }
        "crash" => {
            let restart_ms = table.duration("restart").map_or(100, |(restart, _)| restart);
            Fault::Crash { host: host("crash")?, restart_ms }
        }
        "power-off" => {
            let after_ops = table.integer("after-ops", 0..=1_000_000).map_or(0, |(ops, _)| ops);
            let torn = table.integer("torn-percent", 0..=100);
            Fault::PowerOff {
                restart_ms: table.duration("restart").map_or(100, |(restart, _)| restart),
                host: host("power-off")?,
                after_ops,
                torn_percent: torn.map(|(percent, _)| u8::try_from(percent).unwrap_or(100)),
            }
        }
        "disk-error" => {
            let sync = table.one_of("of", &[("sync", true), ("write", false)]);
            let after_ops = table.integer("after-ops", 0..=1_000_000).map_or(0, |(ops, _)| ops);
            let count = small("times", 1);
            Fault::DiskError { host: host("disk-error")?, sync: sync?, after_ops, count }
        }
        "disk-full" => {
            let (host, for_ms) = host("disk-full").zip(lasts())?;
            Fault::DiskFull { host, for_ms }
        }
        "slow-commit" => {
            let each_ms = table.duration("each").map_or(500, |(each, _)| each);
            let (host, for_ms) = database("slow-commit").zip(lasts())?;
            Fault::SlowCommit { host, each_ms, for_ms }
        }
        "clock-step" => {
            let by = table.duration("by").map_or(3_600_000, |(by, _)| by);
            let back = table.boolean("back").is_some_and(|(back, _)| back);
            let by_ms = i64::try_from(by).unwrap_or(i64::MAX);
            Fault::ClockStep { host: host("clock-step")?, by_ms: if back { -by_ms } else { by_ms } }
        }
        "clock-drift" => {
            let ppm = table.integer("ppm", 1..=500_000).map_or(200, |(ppm, _)| ppm);
            let slow = table.boolean("slow").is_some_and(|(slow, _)| slow);
            let ppm = i64::try_from(ppm).unwrap_or(i64::MAX);
            let (host, for_ms) = host("clock-drift").zip(lasts())?;
            Fault::ClockDrift { host, ppm: if slow { -ppm } else { ppm }, for_ms }
        }
        "suspend" => {
            let (host, for_ms) = host("suspend").zip(lasts())?;
            Fault::Suspend { host, for_ms }
        }
        "backup" => Fault::Backup { host: database("backup")? },
        "restore" => {
            let restart_ms = restart();
            Fault::Restore { host: database("restore")?, restart_ms }
        }
        "swap" => {
            let restart_ms = restart();
            Fault::Swap { host: database("swap")?, restart_ms }
        }
        "lose-log" => {
            let restart_ms = restart();
            Fault::LoseStore { host: database("lose-log")?, restart_ms }
        }
        "lose-store" => {
            let restart_ms = restart();
            Fault::LoseStore { host: database("lose-store")?, restart_ms }
        }
        "answer" => {
            let how = table.one_of(
                "how",
                &[
                    ("lost", Answer::Lost),
                    ("absent", Answer::Absent),
                    ("empty", Answer::Empty),
                    ("discard-all", Answer::DiscardAll),
                ],
            );
            Fault::Answer { client: client("answer")?, how: how? }
        }
        "lose-answer" => {
            let times = small("times", 1);
            Fault::LoseAnswer { client: client("lose-answer")?, times }
        }
        "stop-reading" => {
            let (client, for_ms) = client_for("stop-reading")?;
            Fault::SlowReader { client, pause_ms: None, for_ms }
        }
        "slow-reader" => {
            let pause_ms = Some(table.duration("pause").map_or(100, |(pause, _)| pause));
            let (client, for_ms) = client_for("slow-reader")?;
            Fault::SlowReader { client, pause_ms, for_ms }
        }
        "slow-handler" => {
            let each_ms = table.duration("each").map_or(100, |(each, _)| each);
            let (client, for_ms) = client_for("slow-handler")?;
            Fault::SlowHandler { client, each_ms, for_ms }
        }
        "fail-handler" => {
            let times = small("times", 1);
            Fault::FailHandler { client: client("fail-handler")?, times }
        }
        "fail-open-handler" => {
            let times = small("times", 1);
            Fault::FailOpenHandler { client: client("fail-open-handler")?, times }
        }
        "duplicate" => {
            let frames = small("frames", 1);
            Fault::Duplicate { client: client("duplicate")?, frames }
        }
        "lose" => {
            let frames = small("frames", 1);
            Fault::Lose { client: client("lose")?, frames }
        }
        "inject" => {
            let frame = table.one_of(
                "frame",
                &[
                    ("unknown-type", Strange::UnknownType),
                    ("malformed", Strange::Malformed),
                    ("bad-field", Strange::BadField),
                    ("binary", Strange::Binary),
                    ("oversize", Strange::Oversize),
                    ("stale-answer", Strange::StaleAnswer),
                ],
            );
            let ends = match hosts.protocol {
                Protocol::Events | Protocol::Session | Protocol::Custom(_) => {
                    [("server", true), ("client", false)]
                }
                Protocol::Tasks => [("controller", true), ("agent", false)],
            };
            let to_server = table.one_of("to", &ends);
            Fault::Inject { client: client("inject")?, frame: frame?, to_server: to_server? }
        }
        "retain" => {
            let agent = table.text("retain").and_then(|name| agent(table, &name, hosts));
            let keep = table.integer("keep", 0..=1_000_000_000).map_or(0, |(keep, _)| keep);
            Fault::Retain { agent: agent?, keep }
        }
        "election" => {
            let lost = table.boolean("lost").is_some_and(|(lost, _)| lost);
            let (((), for_ms), lost) = (the_engine("election").zip(lasts())?, lost);
            Fault::Engine(EngineFault::Election { for_ms, lost })
        }
        "stale-leader" => {
            let (host, for_ms) = of_the_cluster("stale-leader").zip(lasts())?;
            Fault::Engine(EngineFault::StaleLeader { host, for_ms })
        }
        "isolate" => {
            let held = table.one_of_optional("how", &[("lost", false), ("held", true)]);
            let (host, for_ms) = of_the_cluster("isolate").zip(lasts())?;
            Fault::Engine(EngineFault::Isolate { host, held: held.unwrap_or(false), for_ms })
        }
        "lag-follow" => {
            let (host, for_ms) = of_the_cluster("lag-follow").zip(lasts())?;
            Fault::Engine(EngineFault::LagFollow { host, for_ms })
        }
        "break-follow" => {
            Fault::Engine(EngineFault::BreakFollow { host: of_the_cluster("break-follow")? })
        }
        "redeliver" => {
            let messages = small("messages", 1);
            Fault::Engine(EngineFault::Redeliver { host: of_the_cluster("redeliver")?, messages })
        }
        "lose-ack" => {
            let times = small("times", 1);
            the_engine("lose-ack")?;
            Fault::Engine(EngineFault::LoseAck { times })
        }
        "late-write" => {
            let times = small("times", 1);
            let after_ms = table.duration("after").map_or(1_000, |(after, _)| after);
            the_engine("late-write")?;
            Fault::Engine(EngineFault::LateWrite { times, after_ms })
        }
        "double-write" => {
            let times = small("times", 1);
            the_engine("double-write")?;
            Fault::Engine(EngineFault::DoubleWrite { times })
        }
        "full" => {
            let ((), for_ms) = the_engine("full").zip(lasts())?;
            Fault::Engine(EngineFault::Full { for_ms })
        }
        _ => return None,
    })
}

/// A host that is no client, by its name.
fn own(name: &str, hosts: &Hosts) -> Option<Host> {
    let topology = Topology { servers: hosts.servers, ..Topology::default() };
    let own = topology.servers().into_iter().chain(topology.engine());
    own.into_iter().find(|host| host.name(hosts.protocol) == name)
}

fn client(table: &Table<'_>, name: &At<String>, hosts: &Hosts) -> Option<u32> {
    let what = match hosts.protocol {
        Protocol::Events | Protocol::Session | Protocol::Custom(_) => "client",
        Protocol::Tasks => "agent",
    };
    numbered(table, name, (what, hosts.clients), hosts.table)
}

fn agent(table: &Table<'_>, name: &At<String>, hosts: &Hosts) -> Option<u32> {
    numbered(table, name, ("agent", hosts.agents), hosts.table)
}

/// `client-2` → 2, if there are as many.
fn numbered(
    table: &Table<'_>,
    (name, span): &At<String>,
    (what, count): (&str, u32),
    said_in: &str,
) -> Option<u32> {
    let number = name.strip_prefix(what).and_then(|rest| rest.strip_prefix('-'));
    let number = number.and_then(|number| number.parse::<u32>().ok());
    let found = number.filter(|number| (1..=count).contains(number));
    if found.is_none() {
        let there = match count {
            1 => format!("there is `{what}-1`"),
            _ => format!("there are `{what}-1` to `{what}-{count}`"),
        };
        let remedy = format!("{there}; `[{said_in}] {what}s = …` makes more");
        table.problem(format!("there is no `{name}`"), span, format!("no such {what}"), remedy);
    }
    found
}
