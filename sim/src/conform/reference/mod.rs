//! The reference implementation as a node: its cores, without its drivers.
//!
//! It shows that the adapter layer is honest: the same node in this process and behind a pipe has
//! the same history. And it is what an adapter may look like.

pub(super) mod events_client;
mod events_server;
mod session_client;
mod session_server;
mod store;
mod tasks_agent;
mod tasks_controller;

use std::collections::BTreeMap;

use gapless::recovery::{Instant, WallTime};

use super::node::{Node, NodeError};
use super::protocol::{
    ClockKind, Done, Effect, EntropyKind, Event, Hello, Reply, Request, Reset, Role, StorageKind,
    VERSION, feature,
};
use crate::mutants::Distorted;
use crate::world::marks;

/// One life of an endpoint.
trait Endpoint: Send {
    /// Something has happened, [`Event::AppConnect`] first.
    ///
    /// # Errors
    ///
    /// A sentence, if that cannot happen to it.
    fn event(&mut self, moment: Moment, event: Event) -> Result<(), String>;

    /// Timers are due.
    fn timeout(&mut self, moment: Moment);

    /// When timers are due next.
    fn deadline(&self) -> Option<Instant>;

    /// What it did since it was asked last.
    fn effects(&mut self) -> Vec<Effect>;
}

/// When something happens.
#[derive(Clone, Copy)]
struct Moment {
    now: Instant,
    wall: WallTime,
}

/// The reference implementation of a role.
pub struct Reference {
    hello: Hello,
    distorted: Distorted,
    epoch_ms: i64,
    /// A reset of which not all of the storage has come.
    beginning: Option<Reset>,
    endpoint: Option<Box<dyn Endpoint>>,
}

/// The reference has no node for a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the reference implementation cannot be attached as `{0}`")]
pub struct NotAttachable(pub Role);

impl Reference {
    /// A node of a role, as it is or as the known-bad variant with this id.
    ///
    /// # Errors
    ///
    /// [`NotAttachable`].
    pub fn new(role: Role, mutant: Option<&str>) -> Result<Self, NotAttachable> {
        let features: &[&str] = match role {
            Role::EventsClient => events_client::FEATURES,
            Role::EventsServer => events_server::FEATURES,
            Role::TasksAgent => tasks_agent::FEATURES,
            Role::TasksController => tasks_controller::FEATURES,
            Role::SessionClient => session_client::FEATURES,
            Role::SessionServer => session_server::FEATURES,
        };
        let hello = Hello {
            protocol: VERSION,
            nonce: String::new(),
            name: "gapless".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            language: "Rust".to_owned(),
            homepage: None,
            issues: None,
            roles: vec![role],
            features: features.iter().chain(&[feature::MARKS]).map(ToString::to_string).collect(),
            clock: ClockKind::Virtual,
            entropy: EntropyKind::Seeded,
            storage: StorageKind::Virtual,
        };
        Ok(Self {
            hello,
            distorted: Distorted::by(mutant),
            epoch_ms: 0,
            beginning: None,
            endpoint: None,
        })
    }

    fn moment(&self, at: u64, skew_ms: i64) -> Moment {
        let wall = i64::try_from(at).unwrap_or(i64::MAX).saturating_add(self.epoch_ms);
        let wall = WallTime::from_millis(wall.saturating_add(skew_ms));
        Moment { now: Instant::from_millis(at), wall }
    }

    /// Does something with the endpoint; what it did, and its marks first.
    fn with(
        &mut self,
        n: u64,
        now: u64,
        what: impl FnOnce(&mut dyn Endpoint) -> Result<(), String>,
    ) -> Result<Reply, NodeError> {
        let Some(endpoint) = &mut self.endpoint else {
            return Err(NodeError::Misused("it was not reset before".to_owned()));
        };
        let (done, reached) =
            marks::captured(|| what(&mut **endpoint)).map_err(NodeError::NotStarted)?;
        done.map_err(NodeError::Misused)?;
        let reached = reached.into_iter().map(|mark| Effect::Mark { name: mark.to_owned() });
        let effects = reached.chain(endpoint.effects()).collect();
        // What was due is done, or its time has come again.
        let next = endpoint.deadline().map(|at| at.as_millis().max(now));
        Ok(Reply::Done(Done { n, now, effects, next, busy: false }))
    }

    fn load(
        &mut self,
        n: u64,
        storage: &BTreeMap<String, String>,
        more: bool,
    ) -> Result<Reply, NodeError> {
        let Some(mut reset) = self.beginning.take() else {
            return Err(NodeError::Misused("no `reset` has said that more follows".to_owned()));
        };
        reset.storage.extend(storage.clone());
        self.reset(&Reset { n, more, ..reset })
    }

    fn reset(&mut self, reset: &Reset) -> Result<Reply, NodeError> {
        let done = Done { n: reset.n, now: reset.now, ..Done::default() };
        if reset.more {
            self.beginning = Some(reset.clone());
            return Ok(Reply::Done(done));
        }
        self.beginning = None;
        self.epoch_ms = reset.epoch_ms;
        let endpoint = match reset.role {
            Role::EventsClient => events_client::begin(reset, self.distorted),
            Role::EventsServer => events_server::begin(reset, self.distorted),
            Role::TasksAgent => tasks_agent::begin(reset, self.distorted),
            Role::TasksController => tasks_controller::begin(reset, self.distorted),
            Role::SessionClient => session_client::begin(reset, self.distorted),
            Role::SessionServer => session_server::begin(reset, self.distorted),
        };
        self.endpoint = Some(endpoint.map_err(NodeError::Misused)?);
        Ok(Reply::Done(done))
    }
}

impl Node for Reference {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn exchange(&mut self, request: &Request) -> Result<Reply, NodeError> {
        match request {
            Request::Hello { nonce, .. } => {
                Ok(Reply::Hello(Hello { nonce: nonce.clone(), ..self.hello.clone() }))
            }
            Request::Reset(reset) => self.reset(reset),
            Request::Load { n, storage, more } => self.load(*n, storage, *more),
            Request::Deliver { n, at, skew_ms, event } => {
                let moment = self.moment(*at, *skew_ms);
                let event = event.clone();
                self.with(*n, *at, |endpoint| match event {
                    // The core's time has gone on, and it notices that now.
                    Event::OsSuspend { .. } => {
                        endpoint.timeout(moment);
                        Ok(())
                    }
                    event => endpoint.event(moment, event),
                })
            }
            Request::Advance { n, until, skew_ms } => {
                let moment = self.moment(*until, *skew_ms);
                self.with(*n, *until, |endpoint| {
                    endpoint.timeout(moment);
                    Ok(())
                })
            }
            Request::Settle { n } => Ok(Reply::Done(Done { n: *n, ..Done::default() })),
            Request::Live(live) => {
                let what = vec!["live: start it with `adapter --live`".to_owned()];
                Ok(Reply::Unsupported { n: live.n, what })
            }
            Request::Stop => Err(NodeError::Misused("it cannot be asked to stop".to_owned())),
        }
    }
}
