//! Reads a `[[step]]`: when, and what.

use super::reader::{At, Table, known_mark};
use crate::plan::{Action, Cut, Fault, Host, Publish, Step, Strange, Topology, When};

/// The kinds of faults, by the key that names them.
const FAULTS: [&str; 16] = [
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
];

pub(super) fn read(
    table: &Table<'_>,
    topology: &Topology,
    duration_ms: u64,
    marks: &[&str],
) -> Option<Step> {
    let when = when(table, duration_ms, marks);
    let (publish, fault) = (table.table("publish"), table.table("fault"));
    let action = match (&publish, &fault) {
        (Some(publish), None) => self::publish(publish, topology).map(Action::Publish),
        (None, Some(fault)) => self::fault(fault, topology).map(Action::Fault),
        (given, _) => {
            let (message, label) = match given {
                Some(_) => ("a step does one thing", "publishes and breaks something"),
                None => ("a step does something", "does nothing"),
            };
            let remedy = "write `publish = { … }` or `fault = { … }`, one of them in each step";
            table.problem(message, &table.span(), label, remedy);
            None
        }
    };
    Some(Step { when: when?, action: action? })
}

fn when(table: &Table<'_>, duration_ms: u64, marks: &[&str]) -> Option<When> {
    match (table.duration("at"), table.table("on")) {
        (Some((at, span)), None) => {
            if at >= duration_ms {
                let remedy = "move the step, or raise `duration`: faults end there";
                table.problem("the step comes after the end", &span, "too late", remedy);
            }
            Some(When::At(at))
        }
        (None, Some(on)) => {
            let (mark, span) = on.text("mark")?;
            known_mark(&on, &mark, &span, marks);
            let nth = on.integer("nth", 1..=1_000).map_or(1, |(nth, _)| nth);
            let after_ms = on.duration("after").map_or(0, |(after, _)| after);
            on.finish();
            Some(When::Mark { mark, nth: u32::try_from(nth).unwrap_or(1), after_ms })
        }
        (at, _) => {
            let (message, label) = match at {
                Some(_) => ("a step happens once", "two times are given"),
                None => ("a step happens some time", "no time is given"),
            };
            let remedy = "write `at = \"2s\"` or `on = { mark = \"…\", nth = 1 }`, one of them";
            table.problem(message, &table.span(), label, remedy);
            None
        }
    }
}

fn publish(table: &Table<'_>, topology: &Topology) -> Option<Publish> {
    let agent = table.text("to").and_then(|to| agent(table, &to, topology));
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

fn fault(table: &Table<'_>, topology: &Topology) -> Option<Fault> {
    let named: Vec<At<String>> =
        table.keys().into_iter().filter(|(key, _)| FAULTS.contains(&key.as_str())).collect();
    let kind = match named.as_slice() {
        [(kind, _)] => kind.as_str(),
        [] => {
            let remedy = format!("name one of: {}", FAULTS.join(", "));
            table.problem("the fault has no kind", &table.span(), "no kind", remedy);
            return None;
        }
        [_, (_, second), ..] => {
            let remedy = "give each fault a step of its own";
            table.problem("the fault has two kinds", second, "a second kind", remedy);
            return None;
        }
    };
    let fault = read_fault(table, kind, topology);
    table.finish();
    fault
}

fn read_fault(table: &Table<'_>, kind: &str, topology: &Topology) -> Option<Fault> {
    // Each fault asks for its own key, so that an unknown one is noticed.
    let client = |key| table.text(key).and_then(|name| client(table, &name, topology));
    let lasts = || match table.duration("for") {
        Some((for_ms, _)) => Some(for_ms),
        None => {
            let remedy = "add how long it lasts: `for = \"2s\"`";
            table.problem("the fault does not end", &table.span(), "no `for`", remedy);
            None
        }
    };
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
            Fault::Cut {
                client: client("cut")?,
                how: how?,
                after_frames: after_frames.map(|(n, _)| u32::try_from(n).unwrap_or(0)),
                for_ms: table.duration("for").map_or(0, |(for_ms, _)| for_ms),
            }
        }
        "hold" => Fault::Hold { client: client("hold")?, for_ms: lasts()? },
        "partition" => Fault::Partition { client: client("partition")?, for_ms: lasts()? },
        "latency" => Fault::Latency {
            client: client("latency")?,
            latency_ms: table.duration("to").map_or(0, |(to, _)| to),
            for_ms: lasts()?,
        },
        "refuse" => Fault::Refuse { client: client("refuse")?, for_ms: lasts()? },
        "never-answer" => Fault::NeverAnswer { client: client("never-answer")?, for_ms: lasts()? },
        "crash" => {
            let restart_ms = table.duration("restart").map_or(100, |(restart, _)| restart);
            let (name, span) = table.text("crash")?;
            let host = match name.as_str() {
                "server" => Host::Server,
                _ => Host::Client(self::client(table, &(name, span), topology)?),
            };
            Fault::Crash { host, restart_ms }
        }
        "stop-reading" => {
            Fault::SlowReader { client: client("stop-reading")?, pause_ms: None, for_ms: lasts()? }
        }
        "slow-reader" => Fault::SlowReader {
            client: client("slow-reader")?,
            pause_ms: Some(table.duration("pause").map_or(100, |(pause, _)| pause)),
            for_ms: lasts()?,
        },
        "slow-handler" => Fault::SlowHandler {
            client: client("slow-handler")?,
            each_ms: table.duration("each").map_or(100, |(each, _)| each),
            for_ms: lasts()?,
        },
        "fail-handler" => {
            Fault::FailHandler { client: client("fail-handler")?, times: small("times", 1) }
        }
        "fail-open-handler" => {
            let times = small("times", 1);
            Fault::FailOpenHandler { client: client("fail-open-handler")?, times }
        }
        "duplicate" => {
            Fault::Duplicate { client: client("duplicate")?, frames: small("frames", 1) }
        }
        "lose" => Fault::Lose { client: client("lose")?, frames: small("frames", 1) },
        "inject" => {
            let frame = table.one_of(
                "frame",
                &[
                    ("unknown-type", Strange::UnknownType),
                    ("malformed", Strange::Malformed),
                    ("bad-field", Strange::BadField),
                    ("binary", Strange::Binary),
                    ("oversize", Strange::Oversize),
                ],
            );
            let to_server = table.one_of("to", &[("server", true), ("client", false)]);
            Fault::Inject { client: client("inject")?, frame: frame?, to_server: to_server? }
        }
        "retain" => {
            let agent = table.text("retain").and_then(|name| agent(table, &name, topology));
            let keep = table.integer("keep", 0..=1_000_000_000).map_or(0, |(keep, _)| keep);
            Fault::Retain { agent: agent?, keep }
        }
        _ => return None,
    })
}

fn client(table: &Table<'_>, name: &At<String>, topology: &Topology) -> Option<u32> {
    numbered(table, name, "client", topology.clients)
}

fn agent(table: &Table<'_>, name: &At<String>, topology: &Topology) -> Option<u32> {
    numbered(table, name, "agent", topology.agents)
}

/// `client-2` → 2, if there are as many.
fn numbered(table: &Table<'_>, (name, span): &At<String>, what: &str, count: u32) -> Option<u32> {
    let number = name.strip_prefix(what).and_then(|rest| rest.strip_prefix('-'));
    let number = number.and_then(|number| number.parse::<u32>().ok());
    let found = number.filter(|number| (1..=count).contains(number));
    if found.is_none() {
        let remedy = match count {
            1 => format!("there is `{what}-1`; `[topology] {what}s = …` makes more"),
            _ => format!(
                "there are `{what}-1` to `{what}-{count}`; `[topology] {what}s = …` makes more"
            ),
        };
        table.problem(format!("there is no `{name}`"), span, format!("no such {what}"), remedy);
    }
    found
}
