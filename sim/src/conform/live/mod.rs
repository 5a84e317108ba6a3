//! Scenarios on real sockets, for implementations that cannot be driven in lockstep.
//!
//! The implementation runs by itself, by its own clock, and says what it does; the other side is
//! the reference on a loopback socket, and between them stands a proxy with the faults of the plan.
//! The history is judged by the same checkers. Nothing is asserted of how long anything takes: time
//! goes `speed` times as fast as in the plan, and what is owed at the end is waited for.
//!
//! What a plan does to a disk, a clock, a log or a handler is not possible from outside; a scenario
//! that needs it is `unsupported`.

pub mod adapter;
mod client;
mod gate;
mod plan;
mod server;
mod tap;
mod world;

use std::path::Path;

use tempfile::TempDir;
use tokio::runtime;
use tokio::task::LocalSet;

use self::plan::fit;
pub use self::plan::{SPEED_MAX, Speed};
use self::tap::Tap;
use self::world::{Stage, World};
use super::node::NodeError;
use super::process::Launch;
use super::profile::Fit;
use super::protocol::{Hello, Role};
use super::suite::{Played, Verdicted, ended, judged};
use crate::plan::{Options, Plan};
use crate::world::record::Recorder;
use crate::world::{Run, marks};

/// An implementation that runs by itself, behind its adapter.
#[derive(Debug, Clone)]
pub struct Implementation {
    role: Role,
    launch: Launch,
    hello: Hello,
}

impl Implementation {
    /// Makes the acquaintance of an implementation.
    ///
    /// # Errors
    ///
    /// [`NodeError`] if its adapter cannot be started, does not introduce itself, or cannot play the
    /// role.
    pub fn meet(role: Role, launch: Launch) -> Result<Self, NodeError> {
        match role {
            Role::EventsClient | Role::EventsServer => {}
            Role::SessionClient
            | Role::SessionServer
            | Role::TasksAgent
            | Role::TasksController => {
                let what = format!("`{role}` live: only `events.client` and `events.server`");
                return Err(NodeError::Unsupported(vec![what]));
            }
        }
        let hello = on_real_sockets(async |folder| {
            let log = folder.join("hello.stderr");
            let tap = Tap::new(launch.clone(), log, Box::new(|_| Ok(())));
            let hello = tap.start(&format!("{role}-hello")).await;
            tap.stop().await;
            hello
        })?;
        if !hello.roles.contains(&role) {
            return Err(NodeError::Unsupported(vec![role.to_string()]));
        }
        Ok(Self { role, launch, hello })
    }

    /// Who it is.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Plays a case. `drawn` says that a seed drew the plan.
    pub fn play(&self, plan: &Plan, drawn: bool, speed: Speed) -> Played {
        let (plan, left_out) = match fit(self.role, &self.hello, plan, drawn) {
            Fit::Runs { plan, left_out } => (plan, left_out),
            Fit::Unsupported(needs) => {
                let verdict = Verdicted::Unsupported(needs);
                let (left_out, last) = (Vec::new(), Vec::new());
                return Played { verdict, left_out, run: None, error: None, last };
            }
        };
        let last = Vec::new();
        match self.run(&plan, speed) {
            Ok(run) => {
                let (verdict, run) = (judged(&run), Some(Box::new(run)));
                Played { verdict, left_out, run, error: None, last }
            }
            Err(error) => {
                let verdict = ended(Some(&error), error.to_string());
                Played { verdict, left_out, run: None, error: Some(error), last }
            }
        }
    }

    fn run(&self, plan: &Plan, speed: Speed) -> Result<Run, NodeError> {
        let Options::Events { server, client } = &plan.options else {
            return Err(NodeError::Unsupported(vec!["a plan of another protocol".to_owned()]));
        };
        on_real_sockets(async |folder| {
            let recorder = Recorder::real(speed.times());
            let _listening = marks::Listening::start(recorder.clone()).map_err(broken)?;
            let stage = Stage {
                role: self.role,
                launch: &self.launch,
                hello: &self.hello,
                plan,
                speed,
                recorder: recorder.clone(),
                folder,
            };
            for host in 0..=plan.topology.clients {
                let host = match host {
                    0 => "server".to_owned(),
                    client => format!("client-{client}"),
                };
                std::fs::create_dir(folder.join(host)).map_err(broken)?;
            }
            let virtual_ms = World::new(stage, server, client).await?.run().await?;
            let (trace, history, marks, faults) = recorder.finish();
            Ok(Run { plan: plan.clone(), trace, history, marks, faults, virtual_ms })
        })
    }
}

fn broken(problem: impl std::fmt::Display) -> NodeError {
    NodeError::Misused(format!("the simulator: {problem}"))
}

/// Does something with real sockets and in real time, with a folder for its files.
fn on_real_sockets<T>(
    what: impl AsyncFnOnce(&Path) -> Result<T, NodeError>,
) -> Result<T, NodeError> {
    let folder = TempDir::new().map_err(broken)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, what(folder.path()))
}
