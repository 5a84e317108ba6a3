//! Writes when a step happens and what it does. What is as it is without saying is left out.

use super::{duration, json, string};
use crate::custom::Work;
use crate::plan::{
    Action, Answer, Cut, EngineFault, Fault, Host, Protocol, Publish, Say, Strange, Submit, Text,
    When,
};

/// When a step happens, as a line of its table.
pub(super) fn when(when: &When) -> String {
    match when {
        When::At(at) => format!("at = {}", duration(*at)),
        When::Mark { mark, nth, after_ms } => {
            let mut inner = Inline::default();
            inner.key("mark", string(mark));
            inner.key("nth", nth);
            inner.unless(*after_ms, 0, "after", duration);
            format!("on = {}", inner.finish())
        }
    }
}

/// What a step does, as a line of its table.
pub(crate) fn action(action: &Action, protocol: Protocol) -> String {
    let client = |client: u32| string(Host::Client(client).name(protocol));
    match action {
        Action::Publish(what) => format!("publish = {}", publish(what)),
        Action::Submit(what) => format!("submit = {}", submit(what)),
        Action::Cancel { task } => format!("cancel = {}", string(task)),
        Action::Retry { task } => format!("retry = {}", string(task)),
        Action::Say(what) => format!("say = {}", say(what)),
        Action::Refresh { client: number } => format!("refresh = {}", client(*number)),
        Action::Reconnect { client: number } => format!("reconnect = {}", client(*number)),
        Action::Work(what) => format!("work = {}", work(what, protocol)),
        Action::Fault(what) => format!("fault = {}", fault(what, protocol)),
    }
}

/// A table in one line.
#[derive(Default)]
struct Inline(Vec<String>);

impl Inline {
    fn key(&mut self, key: &str, value: impl std::fmt::Display) {
        self.0.push(format!("{key} = {value}"));
    }

    /// A key that is left out where it is what it is without saying.
    fn unless<T: PartialEq, D: std::fmt::Display>(
        &mut self,
        value: T,
        usual: T,
        key: &str,
        write: impl FnOnce(T) -> D,
    ) {
        if value != usual {
            self.key(key, write(value));
        }
    }

    fn finish(self) -> String {
        format!("{{ {} }}", self.0.join(", "))
    }
}

fn same<T>(value: T) -> T {
    value
}

fn agent(number: u32) -> String {
    string(&format!("agent-{number}"))
}

fn publish(publish: &Publish) -> String {
    let mut inner = Inline::default();
    inner.key("to", agent(publish.agent));
    inner.unless(publish.count, 1, "count", same);
    inner.unless(publish.every_ms, 0, "every", duration);
    inner.unless(publish.bytes, 16, "bytes", same);
    inner.unless(publish.ids, true, "ids", same);
    inner.unless(publish.twice, false, "twice", same);
    inner.finish()
}

fn submit(submit: &Submit) -> String {
    let mut inner = Inline::default();
    inner.key("to", agent(submit.agent));
    inner.key("name", string(&submit.name));
    inner.unless(submit.count, 1, "count", same);
    inner.unless(submit.every_ms, 0, "every", duration);
    inner.unless(submit.priority, 0, "priority", same);
    inner.unless(submit.twice, false, "twice", same);
    let script = &submit.script;
    inner.unless(script.stdout, 3, "stdout", same);
    inner.unless(script.stderr, 0, "stderr", same);
    inner.unless(script.bytes, 40, "bytes", same);
    inner.unless(script.every_ms, 20, "write-every", duration);
    inner.unless(script.text, Text::Plain, "text", |text| {
        string(match text {
            Text::Plain => "plain",
            Text::Wide => "wide",
            Text::Binary => "binary",
        })
    });
    inner.unless(script.exit, 0, "exit", same);
    inner.finish()
}

fn work(work: &Work, protocol: Protocol) -> String {
    let mut inner = Inline::default();
    inner.key("at", string(work.at.name(protocol)));
    for (name, value) in &work.what {
        inner.key(name, json(value));
    }
    inner.finish()
}

fn say(say: &Say) -> String {
    let mut inner = Inline::default();
    inner.key("at", string(Host::Client(say.client).name(Protocol::Session)));
    inner.unless(say.count, 1, "count", same);
    inner.unless(say.every_ms, 0, "every", duration);
    inner.unless(say.bytes, 16, "bytes", same);
    inner.unless(say.attachments, 0, "attachments", same);
    inner.unless(say.same, false, "same", same);
    let script = &say.script;
    inner.unless(script.progress, 0, "progress", same);
    inner.unless(script.say, 1, "replies", same);
    inner.unless(script.bytes, 16, "reply-bytes", same);
    inner.unless(script.each_ms, 50, "each", duration);
    inner.unless(script.asks, 0, "asks", same);
    inner.unless(script.fails, false, "fails", same);
    inner.finish()
}

fn fault(fault: &Fault, protocol: Protocol) -> String {
    let mut inner = Inline::default();
    let client = |number: u32| string(Host::Client(number).name(protocol));
    let host = |host: Host| string(host.name(protocol));
    match *fault {
        Fault::Cut { client: number, how, after_frames, for_ms } => {
            inner.key("cut", client(number));
            inner.key("how", string(cut(how)));
            if let Some(frames) = after_frames {
                inner.key("after-frames", frames);
            }
            inner.unless(for_ms, 0, "for", duration);
        }
        Fault::Hold { client: number, for_ms } => {
            inner.key("hold", client(number));
            inner.key("for", duration(for_ms));
        }
        Fault::Partition { client: number, for_ms } => {
            inner.key("partition", client(number));
            inner.key("for", duration(for_ms));
        }
        Fault::Latency { client: number, latency_ms, for_ms } => {
            inner.key("latency", client(number));
            inner.key("to", duration(latency_ms));
            inner.key("for", duration(for_ms));
        }
        Fault::Refuse { client: number, for_ms } => {
            inner.key("refuse", client(number));
            inner.key("for", duration(for_ms));
        }
        Fault::NeverAnswer { client: number, for_ms } => {
            inner.key("never-answer", client(number));
            inner.key("for", duration(for_ms));
        }
        Fault::Crash { host: which, restart_ms } => {
            inner.key("crash", host(which));
            inner.key("restart", duration(restart_ms));
        }
        Fault::PowerOff { host: which, after_ops, torn_percent, restart_ms } => {
            inner.key("power-off", host(which));
            inner.key("after-ops", after_ops);
            if let Some(percent) = torn_percent {
                inner.key("torn-percent", percent);
            }
            inner.key("restart", duration(restart_ms));
        }
        Fault::DiskError { host: which, sync, after_ops, count } => {
            inner.key("disk-error", host(which));
            inner.key("of", string(if sync { "sync" } else { "write" }));
            inner.key("after-ops", after_ops);
            inner.key("times", count);
        }
        Fault::DiskFull { host: which, for_ms } => {
            inner.key("disk-full", host(which));
            inner.key("for", duration(for_ms));
        }
        Fault::SlowCommit { host: which, each_ms, for_ms } => {
            inner.key("slow-commit", host(which));
            inner.key("each", duration(each_ms));
            inner.key("for", duration(for_ms));
        }
        Fault::ClockStep { host: which, by_ms } => {
            inner.key("clock-step", host(which));
            inner.key("by", duration(by_ms.unsigned_abs()));
            inner.unless(by_ms < 0, false, "back", same);
        }
        Fault::ClockDrift { host: which, ppm, for_ms } => {
            inner.key("clock-drift", host(which));
            inner.key("ppm", ppm.unsigned_abs());
            inner.unless(ppm < 0, false, "slow", same);
            inner.key("for", duration(for_ms));
        }
        Fault::Suspend { host: which, for_ms } => {
            inner.key("suspend", host(which));
            inner.key("for", duration(for_ms));
        }
        Fault::Backup { host: which } => inner.key("backup", host(which)),
        Fault::Restore { host: which, restart_ms } => {
            inner.key("restore", host(which));
            inner.key("restart", duration(restart_ms));
        }
        Fault::Swap { host: which, restart_ms } => {
            inner.key("swap", host(which));
            inner.key("restart", duration(restart_ms));
        }
        Fault::LoseStore { host: which, restart_ms } => {
            let kind = match which {
                Host::Server | Host::Engine => "lose-log",
                Host::Client(_) | Host::Member(_) => "lose-store",
            };
            inner.key(kind, host(which));
            inner.key("restart", duration(restart_ms));
        }
        Fault::SlowReader { client: number, pause_ms, for_ms } => {
            match pause_ms {
                None => inner.key("stop-reading", client(number)),
                Some(pause) => {
                    inner.key("slow-reader", client(number));
                    inner.key("pause", duration(pause));
                }
            }
            inner.key("for", duration(for_ms));
        }
        Fault::SlowHandler { client: number, each_ms, for_ms } => {
            inner.key("slow-handler", client(number));
            inner.key("each", duration(each_ms));
            inner.key("for", duration(for_ms));
        }
        Fault::FailHandler { client: number, times } => {
            inner.key("fail-handler", client(number));
            inner.unless(times, 1, "times", same);
        }
        Fault::FailOpenHandler { client: number, times } => {
            inner.key("fail-open-handler", client(number));
            inner.unless(times, 1, "times", same);
        }
        Fault::Duplicate { client: number, frames } => {
            inner.key("duplicate", client(number));
            inner.unless(frames, 1, "frames", same);
        }
        Fault::Lose { client: number, frames } => {
            inner.key("lose", client(number));
            inner.unless(frames, 1, "frames", same);
        }
        Fault::Answer { client: number, how } => {
            inner.key("answer", client(number));
            inner.key("how", string(answer(how)));
        }
        Fault::LoseAnswer { client: number, times } => {
            inner.key("lose-answer", client(number));
            inner.unless(times, 1, "times", same);
        }
        Fault::Inject { client: number, frame, to_server } => {
            inner.key("inject", client(number));
            inner.key("frame", string(strange(frame)));
            inner.key(
                "to",
                string(match (to_server, protocol) {
                    (true, Protocol::Events | Protocol::Session | Protocol::Custom(_)) => "server",
                    (false, Protocol::Events | Protocol::Session | Protocol::Custom(_)) => "client",
                    (true, Protocol::Tasks) => "controller",
                    (false, Protocol::Tasks) => "agent",
                }),
            );
        }
        Fault::Retain { agent: number, keep } => {
            inner.key("retain", agent(number));
            inner.key("keep", keep);
        }
        Fault::Engine(ref fault) => {
            inner.key(fault.kind(), host(fault.host()));
            engine(&mut inner, fault);
        }
    }
    inner.finish()
}

/// What is said of a fault of the engine beyond its kind.
fn engine(inner: &mut Inline, fault: &EngineFault) {
    match *fault {
        EngineFault::Election { for_ms, lost } => {
            inner.unless(lost, false, "lost", same);
            inner.key("for", duration(for_ms));
        }
        EngineFault::Isolate { held, for_ms, .. } => {
            inner.unless(held, false, "how", |_| string("held"));
            inner.key("for", duration(for_ms));
        }
        EngineFault::StaleLeader { for_ms, .. }
        | EngineFault::LagFollow { for_ms, .. }
        | EngineFault::Full { for_ms } => inner.key("for", duration(for_ms)),
        EngineFault::Redeliver { messages, .. } => inner.unless(messages, 1, "messages", same),
        EngineFault::LoseAck { times } | EngineFault::DoubleWrite { times } => {
            inner.unless(times, 1, "times", same);
        }
        EngineFault::LateWrite { times, after_ms } => {
            inner.unless(times, 1, "times", same);
            inner.key("after", duration(after_ms));
        }
        EngineFault::BreakFollow { .. } => {}
    }
}

fn cut(how: Cut) -> &'static str {
    match how {
        Cut::Close => "close",
        Cut::Reset => "reset",
        Cut::MidFrame => "mid-frame",
        Cut::HalfOpen => "half-open",
        Cut::HalfOpenUp => "half-open-up",
        Cut::HalfOpenDown => "half-open-down",
    }
}

fn answer(how: Answer) -> &'static str {
    match how {
        Answer::Lost => "lost",
        Answer::Absent => "absent",
        Answer::Empty => "empty",
        Answer::DiscardAll => "discard-all",
    }
}

fn strange(frame: Strange) -> &'static str {
    match frame {
        Strange::UnknownType => "unknown-type",
        Strange::Malformed => "malformed",
        Strange::BadField => "bad-field",
        Strange::Binary => "binary",
        Strange::Oversize => "oversize",
        Strange::StaleAnswer => "stale-answer",
    }
}
