//! Times in which something was wrong, from the plan and from what happened.

use serde::Serialize;

use crate::plan::{Action, Cut, EngineFault, Fault, Plan};
use crate::trace::causality::host_of;
use crate::trace::{Fact, Trace};

/// A time in which something was wrong with a host, or with its link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Band {
    /// Whose.
    pub(super) host: String,
    /// Of what kind.
    pub(super) kind: Trouble,
    /// What, for a person.
    pub(super) what: String,
    /// Virtual time.
    pub(super) from_ms: u64,
    /// Virtual time.
    pub(super) to_ms: u64,
}

/// What a band looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Trouble {
    /// The process is not there.
    Down,
    /// The process stands still.
    Suspended,
    /// Something on the host is slower than it should be, or does not work.
    Slow,
    /// Nothing gets through, and somebody may notice.
    Partition,
    /// Nothing gets through, and nobody is told.
    HalfOpen,
    /// The link works, and not as it should.
    Weak,
}

/// All bands of a run, by their beginning.
pub(super) fn bands(trace: &Trace, plan: &Plan) -> Vec<Band> {
    let mut bands = Vec::new();
    let end_ms = trace.records.last().map_or(0, |record| record.at_ms);
    for (at, record) in trace.records.iter().enumerate() {
        let host = record.host;
        // When the host does something that ends what began with this record.
        let until = |ends: fn(&Fact) -> bool| {
            let later = trace.records[at + 1..].iter().filter(|later| later.host == host);
            let end = later.into_iter().find(|later| later.fact.as_ref().is_some_and(ends));
            end.map_or(end_ms, |record| record.at_ms)
        };
        let (host, kind, what, to_ms) = match &record.fact {
            Some(Fact::Dies) => {
                let to_ms = until(|fact| matches!(fact, Fact::Starts));
                (host.to_owned(), Trouble::Down, "the process is down".to_owned(), to_ms)
            }
            Some(Fact::Cut(how)) => {
                let what = match how {
                    Cut::HalfOpen => "half-open, both ways",
                    Cut::HalfOpenUp => "half-open: nothing reaches the server",
                    Cut::HalfOpenDown => "half-open: nothing comes from the server",
                    Cut::Close | Cut::Reset | Cut::MidFrame => continue,
                };
                let to_ms = until(|fact| matches!(fact, Fact::Opens | Fact::Dies));
                (host.to_owned(), Trouble::HalfOpen, what.to_owned(), to_ms)
            }
            Some(Fact::Step(step)) => {
                let Some(Action::Fault(fault)) = plan.steps.get(*step).map(|step| &step.action)
                else {
                    continue;
                };
                let Some((kind, what, for_ms)) = lasting(fault) else { continue };
                // The world heals, whatever the plan says.
                let to_ms = (record.at_ms + for_ms).min(plan.duration_ms);
                let host = host_of(fault).name(plan.options.protocol());
                (host.to_owned(), kind, what, to_ms)
            }
            Some(Fact::Work(_) | Fact::Frame(_) | Fact::Opens | Fact::Starts) | None => continue,
        };
        if to_ms > record.at_ms {
            bands.push(Band { host, kind, what, from_ms: record.at_ms, to_ms });
        }
    }
    bands
}

/// What a fault is as long as it lasts, and how long that is.
fn lasting(fault: &Fault) -> Option<(Trouble, String, u64)> {
    let band = |kind, what: &str, for_ms| Some((kind, what.to_owned(), for_ms));
    match *fault {
        Fault::Cut { for_ms, .. } => band(Trouble::Partition, "no connection opens", for_ms),
        Fault::Hold { for_ms, .. } => band(Trouble::Partition, "everything is held up", for_ms),
        Fault::Partition { for_ms, .. } => band(Trouble::Partition, "partition", for_ms),
        Fault::Refuse { for_ms, .. } => band(Trouble::Partition, "connections are refused", for_ms),
        Fault::NeverAnswer { for_ms, .. } => {
            band(Trouble::HalfOpen, "connections open and get no answer", for_ms)
        }
        Fault::Latency { latency_ms, for_ms, .. } => {
            Some((Trouble::Weak, format!("frames take {latency_ms} ms"), for_ms))
        }
        Fault::SlowReader { pause_ms: None, for_ms, .. } => {
            band(Trouble::Weak, "the client does not read", for_ms)
        }
        Fault::SlowReader { for_ms, .. } => band(Trouble::Weak, "the client reads slowly", for_ms),
        Fault::SlowHandler { each_ms, for_ms, .. } => {
            Some((Trouble::Slow, format!("its handler takes {each_ms} ms"), for_ms))
        }
        Fault::SlowCommit { each_ms, for_ms, .. } => {
            Some((Trouble::Slow, format!("a commit takes {each_ms} ms"), for_ms))
        }
        Fault::DiskFull { for_ms, .. } => band(Trouble::Slow, "its disk is full", for_ms),
        Fault::ClockDrift { ppm, for_ms, .. } => {
            Some((Trouble::Slow, format!("its clock gains {ppm} µs a second"), for_ms))
        }
        Fault::Suspend { for_ms, .. } => {
            band(Trouble::Suspended, "the process stands still", for_ms)
        }
        Fault::Crash { .. }
        | Fault::PowerOff { .. }
        | Fault::DiskError { .. }
        | Fault::ClockStep { .. }
        | Fault::Backup { .. }
        | Fault::Restore { .. }
        | Fault::Swap { .. }
        | Fault::LoseStore { .. }
        | Fault::FailHandler { .. }
        | Fault::FailOpenHandler { .. }
        | Fault::Answer { .. }
        | Fault::LoseAnswer { .. }
        | Fault::Duplicate { .. }
        | Fault::Lose { .. }
        | Fault::Inject { .. }
        | Fault::Retain { .. } => None,
        Fault::Engine(ref fault) => match *fault {
            EngineFault::Isolate { for_ms, .. } => {
                band(Trouble::Partition, "no way to the engine", for_ms)
            }
            EngineFault::Election { for_ms, .. } => {
                band(Trouble::Suspended, "the engine has no leader", for_ms)
            }
            EngineFault::StaleLeader { for_ms, .. } => {
                band(Trouble::Weak, "its leader was deposed", for_ms)
            }
            EngineFault::LagFollow { for_ms, .. } => {
                band(Trouble::Slow, "it follows the log late", for_ms)
            }
            EngineFault::Full { for_ms } => band(Trouble::Slow, "the engine is full", for_ms),
            EngineFault::BreakFollow { .. }
            | EngineFault::Redeliver { .. }
            | EngineFault::LoseAck { .. }
            | EngineFault::LateWrite { .. }
            | EngineFault::DoubleWrite { .. } => None,
        },
    }
}
