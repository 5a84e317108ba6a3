//! What of a plan can be played on real sockets, and how fast.

use std::collections::BTreeSet;
use std::time::Duration;

use gapless::events::client::ClientConfig;
use gapless::marks::MARKS;
use gapless::recovery::BackoffConfig;

use super::super::profile::{Fit, Profile};
use super::super::protocol::{Hello, Role};
use crate::plan::{Action, ClientOptions, Fault, Plan, ServerOptions, When};

/// How much faster than in its scenario the time of a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed(u64);

/// The highest speed: much faster, and the computer itself is what takes time.
pub const SPEED_MAX: u64 = 20;

impl Speed {
    /// From 1 to [`SPEED_MAX`].
    pub fn new(times: u64) -> Option<Self> {
        (1..=SPEED_MAX).contains(&times).then_some(Self(times))
    }

    /// How many times as fast as real time.
    pub fn times(self) -> u64 {
        self.0
    }

    /// A time of the scenario, in real milliseconds: as long as nothing only if it is nothing.
    fn ms(self, ms: u64) -> u64 {
        ms.div_ceil(self.0)
    }

    /// A time of the scenario, in real time.
    pub(super) fn real(self, ms: u64) -> Duration {
        Duration::from_millis(self.ms(ms))
    }

    /// The options of a client, in real time.
    pub(super) fn client(self, options: &ClientOptions) -> ClientOptions {
        ClientOptions {
            ping_every_ms: self.ms(options.ping_every_ms),
            pong_timeout_ms: self.ms(options.pong_timeout_ms),
            reconnect_ms: (self.ms(options.reconnect_ms.0), self.ms(options.reconnect_ms.1)),
            open_handler_ms: self.ms(options.open_handler_ms),
            handler_ms: self.ms(options.handler_ms),
            ..options.clone()
        }
    }

    /// The options of a server, in real time.
    pub(super) fn server(self, options: &ServerOptions) -> ServerOptions {
        ServerOptions {
            resync_grace_ms: self.ms(options.resync_grace_ms),
            write_stall_ms: self.ms(options.write_stall_ms),
            silence_ms: self.ms(options.silence_ms),
            commit_ms: self.ms(options.commit_ms),
            ..options.clone()
        }
    }
}

/// What a client is configured with that is `times` as fast as usual in what no scenario varies.
pub(super) fn hurried(config: ClientConfig, times: u64) -> ClientConfig {
    let times = u32::try_from(times).unwrap_or(u32::MAX).max(1);
    let pauses = |retry: BackoffConfig| BackoffConfig {
        min: retry.min / times,
        max: retry.max / times,
        ..retry
    };
    ClientConfig {
        connect_timeout: config.connect_timeout / times,
        negotiation_timeout: config.negotiation_timeout / times,
        open_handlers_max: config.open_handlers_max / times,
        resync_timeout: config.resync_timeout / times,
        offer_retry: pauses(config.offer_retry),
        save_retry: pauses(config.save_retry),
        ..config
    }
}

/// The modules of the reference that run in this process, opposite to the implementation.
fn opposite(role: Role) -> &'static [&'static str] {
    match role {
        Role::EventsClient => &[
            "gapless::events::server",
            "gapless::events::sqlite",
            "gapless::events::driver::server",
            "gapless_sim::world::events::watch",
        ],
        Role::EventsServer => &["gapless::events::client", "gapless::events::driver::client"],
        Role::SessionClient | Role::SessionServer | Role::TasksAgent | Role::TasksController => &[],
    }
}

/// Whether it shows in this process that a mark was reached.
fn shows(role: Role, mark: &str) -> bool {
    MARKS.iter().any(|place| {
        place.mark == mark && opposite(role).iter().any(|own| place.module.starts_with(own))
    })
}

/// Whether a fault can be injected from outside into real processes and their connections.
fn is_possible(fault: &Fault) -> bool {
    match fault {
        Fault::Cut { .. }
        | Fault::Hold { .. }
        | Fault::Partition { .. }
        | Fault::Latency { .. }
        | Fault::Refuse { .. }
        | Fault::NeverAnswer { .. }
        | Fault::Crash { .. }
        | Fault::SlowReader { .. }
        | Fault::Duplicate { .. }
        | Fault::Lose { .. }
        | Fault::Inject { .. } => true,
        Fault::PowerOff { .. }
        | Fault::DiskError { .. }
        | Fault::DiskFull { .. }
        | Fault::SlowCommit { .. }
        | Fault::ClockStep { .. }
        | Fault::ClockDrift { .. }
        | Fault::Suspend { .. }
        | Fault::Backup { .. }
        | Fault::Restore { .. }
        | Fault::Swap { .. }
        | Fault::LoseStore { .. }
        | Fault::SlowHandler { .. }
        | Fault::FailHandler { .. }
        | Fault::FailOpenHandler { .. }
        | Fault::Answer { .. }
        | Fault::LoseAnswer { .. }
        | Fault::Retain { .. }
        | Fault::Engine(_) => false,
    }
}

/// Fits a plan to an implementation that runs by itself. Of what a seed drew (`drawn`), that is left
/// out which cannot be played; a plan of a fixed scenario is played whole or not at all.
pub(super) fn fit(role: Role, hello: &Hello, plan: &Plan, drawn: bool) -> Fit {
    let (mut plan, mut left_out) = match Profile::new(role, hello).fit(plan, drawn) {
        Fit::Runs { plan, left_out } => (plan, left_out),
        unsupported @ Fit::Unsupported(_) => return unsupported,
    };
    let mut lacks = BTreeSet::new();
    plan.steps.retain(|step| {
        let lack = match (&step.when, &step.action) {
            (When::Mark { mark, .. }, _) if !shows(role, mark) => {
                Some(format!("a step that waits for `{mark}`"))
            }
            (_, Action::Fault(fault)) if !is_possible(fault) => {
                Some(format!("the fault `{}`", fault.kind()))
            }
            _ => None,
        };
        let possible = lack.is_none();
        lacks.extend(lack);
        possible
    });
    // What cannot be seen is not demanded.
    plan.reaches.retain(|mark| shows(role, mark));
    let lacks = lacks.into_iter().map(|lack| format!("{lack}: not live"));
    match drawn || lacks.len() == 0 {
        true => {
            left_out.extend(lacks);
            Fit::Runs { plan, left_out }
        }
        false => Fit::Unsupported(lacks.collect()),
    }
}
