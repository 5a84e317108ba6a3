//! What a step of the plan does, as a sentence.

use crate::plan::{Action, Answer, Cut, Fault, Host, Protocol, Strange};
use crate::trace::Fact;
use crate::world::Run;

/// What a fault does, for a reader who knows no plan; `None` for what the trace says well itself.
pub(super) fn sentence(action: &Action, protocol: Protocol) -> Option<String> {
    let Action::Fault(fault) = action else { return None };
    let host = |host: Host| host.name(protocol);
    let client = |number: u32| Host::Client(number).name(protocol);
    let server = Host::Server.name(protocol);
    Some(match *fault {
        Fault::Cut { client: of, how, after_frames, for_ms } => {
            let when = match after_frames {
                None | Some(0) => String::new(),
                Some(1) => "after one more frame ".to_owned(),
                Some(frames) => format!("after {frames} more frames "),
            };
            let how = match how {
                Cut::Close => "is closed by the server",
                Cut::Reset => "is reset",
                Cut::MidFrame => "breaks in the middle of a frame",
                Cut::HalfOpen => "goes silent both ways, and nobody is told",
                Cut::HalfOpenUp => "goes silent towards the server, and nobody is told",
                Cut::HalfOpenDown => "goes silent towards the client, and nobody is told",
            };
            let then = match for_ms {
                0 => String::new(),
                _ => format!("; no other opens for {}", span(for_ms)),
            };
            format!("{when}the connection of {} {how}{then}", client(of))
        }
        Fault::Hold { client: of, for_ms } => {
            format!(
                "everything between {} and the {server} is held up for {}",
                client(of),
                span(for_ms)
            )
        }
        Fault::Partition { client: of, for_ms } => {
            format!(
                "nothing gets through between {} and the {server} for {}",
                client(of),
                span(for_ms)
            )
        }
        Fault::Latency { client: of, latency_ms, for_ms } => {
            format!("frames of {} take {latency_ms} ms for {}", client(of), span(for_ms))
        }
        Fault::Refuse { client: of, for_ms } => {
            format!("connections of {} are refused for {}", client(of), span(for_ms))
        }
        Fault::NeverAnswer { client: of, for_ms } => {
            format!("connections of {} open and get no answer for {}", client(of), span(for_ms))
        }
        Fault::Crash { host: of, restart_ms } => {
            format!("{} dies, and starts again after {}", host(of), span(restart_ms))
        }
        Fault::PowerOff { host: of, after_ops, torn_percent, restart_ms } => {
            let kept = match torn_percent {
                None => String::new(),
                Some(percent) => format!(", with {percent} % of the next write"),
            };
            format!(
                "{} loses power after {after_ops} more operations of its disk{kept}, and starts \
                 again after {}",
                host(of),
                span(restart_ms)
            )
        }
        Fault::DiskError { host: of, sync, after_ops, count } => {
            let what = if sync { "syncs" } else { "writes" };
            format!(
                "after {after_ops} more operations the disk of {} fails {count} {what}",
                host(of)
            )
        }
        Fault::DiskFull { host: of, for_ms } => {
            format!("the disk of {} is full for {}", host(of), span(for_ms))
        }
        Fault::SlowCommit { host: of, each_ms, for_ms } => {
            format!("a commit of {} takes {each_ms} ms for {}", host(of), span(for_ms))
        }
        Fault::ClockStep { host: of, by_ms } => {
            let way = if by_ms < 0 { "back" } else { "forward" };
            format!("the wall clock of {} jumps {way} by {}", host(of), span(by_ms.unsigned_abs()))
        }
        Fault::ClockDrift { host: of, ppm, for_ms } => {
            let way = if ppm < 0 { "loses" } else { "gains" };
            let ppm = ppm.unsigned_abs();
            format!("the wall clock of {} {way} {ppm} µs a second for {}", host(of), span(for_ms))
        }
        Fault::Suspend { host: of, for_ms } => {
            format!("the process of {} stands still for {}", host(of), span(for_ms))
        }
        Fault::Backup { host: of } => format!("the database of {} is copied", host(of)),
        Fault::Restore { host: of, restart_ms } => format!(
            "{} dies, and starts again after {} with its newest copy of the database",
            host(of),
            span(restart_ms)
        ),
        Fault::Swap { host: of, restart_ms } => format!(
            "{} dies, and starts again after {}; its database and the copy change places",
            host(of),
            span(restart_ms)
        ),
        Fault::LoseStore { host: of, restart_ms } => {
            format!("{} dies, and starts again after {} with nothing", host(of), span(restart_ms))
        }
        Fault::SlowReader { client: of, pause_ms: None, for_ms } => {
            format!("{} does not read for {}", client(of), span(for_ms))
        }
        Fault::SlowReader { client: of, pause_ms: Some(pause_ms), for_ms } => {
            format!("{} waits {pause_ms} ms before each read for {}", client(of), span(for_ms))
        }
        Fault::SlowHandler { client: of, each_ms, for_ms } => {
            format!("the handler of {} takes {each_ms} ms for {}", client(of), span(for_ms))
        }
        Fault::FailHandler { client: of, times } => {
            format!("the handler of {} fails {}", client(of), often(times))
        }
        Fault::FailOpenHandler { client: of, times } => {
            format!("the open handler of {} fails {}", client(of), often(times))
        }
        Fault::Duplicate { client: of, frames } => {
            format!("the next {} for {} come twice", counted(frames), client(of))
        }
        Fault::Lose { client: of, frames } => {
            format!("the next {} for {} do not arrive", counted(frames), client(of))
        }
        Fault::Answer { client: of, how } => {
            let what = match how {
                Answer::Lost => "does not come",
                Answer::Absent => "says nothing about results and output",
                Answer::Empty => "names no output",
                Answer::DiscardAll => "discards everything",
            };
            format!("the next answer to a hello of {} {what}", client(of))
        }
        Fault::LoseAnswer { client: of, times } => {
            format!("{} gets no answer over HTTP {}", client(of), often(times))
        }
        Fault::Inject { client: of, frame, to_server } => {
            let what = match frame {
                Strange::UnknownType => "of a type that nobody knows",
                Strange::Malformed => "that is no JSON",
                Strange::BadField => "with an impossible field",
                Strange::Binary => "of bytes",
                Strange::Oversize => "beyond every limit",
                Strange::StaleAnswer => "that is an answer of an earlier connection",
            };
            let (from, to) = match to_server {
                true => (client(of), server),
                false => (server, client(of)),
            };
            format!("a frame {what} is put in from {from} to {to}")
        }
        Fault::Retain { agent, keep } => {
            format!("the log forgets all but the newest {keep} events of agent-{agent}")
        }
        Fault::Engine(ref fault) => fault.sentence(span),
    })
}

/// What a step of a run's plan did, as a sentence or as the trace says it.
pub(crate) fn step_of_run(run: &Run, step: usize) -> String {
    let action = run.plan.steps.get(step).map(|step| &step.action);
    let said = action.and_then(|action| sentence(action, run.plan.options.protocol()));
    said.unwrap_or_else(|| {
        let about = Some(Fact::Step(step));
        let record = run.trace.records.iter().find(|record| record.fact == about);
        record.map_or_else(String::new, |record| record.text.to_string())
    })
}

fn often(times: u32) -> String {
    match times {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        times => format!("{times} times"),
    }
}

fn counted(frames: u32) -> String {
    match frames {
        1 => "event frame".to_owned(),
        frames => format!("{frames} event frames"),
    }
}

/// A duration for a person.
fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        _ if ms.is_multiple_of(1_000) => format!("{} s", ms / 1_000),
        _ => format!("{}.{} s", ms / 1_000, format!("{:03}", ms % 1_000).trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_without_the_words_of_the_program() {
        let told = |fault| sentence(&Action::Fault(fault), Protocol::Tasks).expect("a fault");
        let cut =
            Fault::Cut { client: 2, how: Cut::HalfOpen, after_frames: Some(3), for_ms: 1_500 };
        assert_eq!(
            told(cut),
            "after 3 more frames the connection of agent-2 goes silent both ways, and nobody is \
             told; no other opens for 1.5 s"
        );
        let crash = Fault::Crash { host: Host::Server, restart_ms: 0 };
        assert_eq!(told(crash), "controller dies, and starts again after 0 ms");
        assert_eq!(sentence(&Action::Refresh { client: 1 }, Protocol::Session), None);
    }
}
