//! The engine's host.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use gapless::recovery::Epoch;
use rand_chacha::ChaCha12Rng;
use serde_json::Value;
use tokio::time::Sleep;
use turmoil::net::{TcpListener, TcpStream};

use super::lines::Lines;
use super::log::{Log, Message};
use super::model::{Config, Conn, Model, Output};
use super::truth::{EPOCHS, Truth, streams};
use super::wire::{ToEngine, ToServer};
use crate::history::Seen;
use crate::plan::EngineFault;
use crate::trace::Kind;
use crate::world::host::Process;
use crate::world::link::PORT;
use crate::world::record::Recorder;
use crate::world::vault::{Replace, Vault};

/// The engine over the lives of its nodes, which are one host. Shared by the world and the host.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Mutex<State>>);

struct State {
    model: Model,
    truth: Truth,
    /// The copy that a restore puts in the place of the log; the one with which a run begins is
    /// empty.
    copy: Copied,
    waker: Option<Waker>,
}

/// A copy of the log.
#[derive(Clone, Default)]
struct Copied {
    log: Log,
    /// The branch of the log's history.
    branch: usize,
}

impl Engine {
    pub(crate) fn new(
        recorder: &Recorder,
        agents: u32,
        commit_ms: u64,
        per_subject_max: Option<usize>,
    ) -> Self {
        let model = Model::new(Config { commit_ms, per_subject_max });
        let truth = Truth::new(recorder.clone(), agents);
        Self(Arc::new(Mutex::new(State { model, truth, copy: Copied::default(), waker: None })))
    }

    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let done = what(&mut state);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        done
    }

    /// Something goes wrong with it. The way to it is the world's.
    pub(crate) fn fault(&self, now_ms: u64, fault: &EngineFault, host: &str) {
        self.with(|State { model, .. }| match *fault {
            EngineFault::Election { for_ms, lost } => model.elect(now_ms, for_ms, lost),
            EngineFault::StaleLeader { for_ms, .. } => model.depose(now_ms, host, for_ms),
            EngineFault::LagFollow { for_ms, .. } => model.lag(now_ms, host, for_ms),
            EngineFault::Redeliver { messages, .. } => {
                model.redeliver(now_ms, host, u64::from(messages));
            }
            EngineFault::BreakFollow { .. } => model.break_follow(host),
            EngineFault::LoseAck { times } => model.lose_acks(times),
            EngineFault::LateWrite { times, after_ms } => model.late_writes(times, after_ms),
            EngineFault::DoubleWrite { times } => model.double_writes(times),
            EngineFault::Full { for_ms } => model.fill(now_ms, for_ms),
            // The world does it.
            EngineFault::Isolate { .. } => {}
        });
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self, now_ms: u64) {
        self.with(|state| state.model.heal(now_ms));
    }

    /// Copies the log.
    pub(crate) fn back_up(&self, recorder: &Recorder) {
        let branch = recorder.branch();
        self.with(|state| state.copy = Copied { log: state.model.log().clone(), branch });
    }

    /// All nodes start anew, with what is to be in the place of the log.
    fn restart(&self, process: &Process, replace: Option<Replace>) {
        self.with(|state| {
            let copy = match replace {
                None => None,
                Some(Replace::Copy) => Some(state.copy.clone()),
                Some(Replace::Swap) => {
                    let was = Copied {
                        log: state.model.log().clone(),
                        branch: process.recorder.branch(),
                    };
                    Some(std::mem::replace(&mut state.copy, was))
                }
                Some(Replace::Nothing) => Some(Copied::default()),
            };
            let mut log = match &copy {
                Some(copy) => copy.log.clone(),
                None => state.model.log().clone(),
            };
            if let Some(copy) = copy {
                process.record(Kind::Store, "the log is replaced by an older copy");
                gapless::mark!("world.log_replaced");
                let streams = streams(&copy.log, state.truth.agents());
                process.recorder.see(Seen::LogReplaced { parent: copy.branch, streams });
                // As `gapless log new-epoch` does; without any log, servers begin one themselves.
                if log.last(EPOCHS).is_some() {
                    let message = begin_epoch(&mut log, process.entropy("epoch after a restore"));
                    state.truth.committed(process, &log, &message);
                }
            }
            state.model = state.model.restarted(log);
        });
    }

    /// Tells what the log holds at the end.
    pub(crate) fn tell_end(&self) {
        self.with(|state| state.truth.tell_end(state.model.log()));
    }
}

/// Adds an epoch to those that a log has had.
fn begin_epoch(log: &mut Log, mut entropy: ChaCha12Rng) -> Message {
    let record = log.last(EPOCHS).map_or("", |message| &*message.payload);
    let mut record: Value = serde_json::from_str(record).unwrap_or_default();
    if let Some(begun) = record["begun"].as_array_mut() {
        begun.push(Epoch::random(&mut entropy).as_str().into());
    }
    log.append(&Arc::from(EPOCHS), record.to_string().into())
}

/// One life of the engine.
pub(crate) async fn serve(process: Process, engine: Engine, vault: Vault) -> turmoil::Result {
    process.boot().await;
    let replace = vault.state().replace.take();
    engine.restart(&process, replace);
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut hub = Hub { process, engine, connections: BTreeMap::new(), accepted: 0, timer };
    loop {
        tokio::select! { biased;
            accepted = listener.accept() => {
                let (stream, peer) = accepted?;
                let host = turmoil::reverse_lookup(peer.ip()).unwrap_or_default();
                hub.accept(stream, &host);
            }
            () = std::future::poll_fn(|cx| hub.poll(cx)) => {}
        }
    }
}

/// Every connection of the engine. They are no tasks, so they end in their order.
struct Hub {
    process: Process,
    engine: Engine,
    connections: BTreeMap<Conn, Lines>,
    accepted: Conn,
    timer: Pin<Box<Sleep>>,
}

impl Hub {
    fn accept(&mut self, stream: TcpStream, host: &str) {
        self.accepted += 1;
        let now_ms = self.process.recorder.now_ms();
        self.connections.insert(self.accepted, Lines::new(stream, now_ms));
        self.engine.with(|state| state.model.connected(self.accepted, host.into()));
    }

    /// Does all that can be done now.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now_ms = self.process.recorder.now_ms();
            let Self { process, engine, connections, .. } = self;
            let mut state = engine.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut gone = Vec::new();
            for (conn, lines) in connections.iter_mut() {
                if hear(&mut state.model, *conn, lines, now_ms, cx).is_err() {
                    gone.push(*conn);
                }
            }
            state.model.advance(now_ms);
            while let Some(output) = state.model.poll() {
                carry_out(&mut state, connections, process, now_ms, output);
            }
            for (conn, lines) in connections.iter_mut() {
                if lines.ping_ms() <= now_ms {
                    lines.say(now_ms, &ToServer::Ping);
                }
                if lines.write(cx).is_err() || lines.silent_ms() <= now_ms {
                    gone.push(*conn);
                }
            }
            for conn in gone {
                state.model.disconnected(conn);
                connections.remove(&conn);
            }
            let lines = connections.values();
            let spoken = lines.flat_map(|lines| [lines.ping_ms(), lines.silent_ms()]);
            let due_ms = spoken.chain(state.model.deadline()).min();
            state.waker = Some(cx.waker().clone());
            drop(state);
            // Something is due by then, or whatever comes first wakes it.
            let wait_ms = due_ms.map_or(u64::MAX / 4, |due| due.saturating_sub(now_ms).max(1));
            // Tokio's clock on a host is turmoil's, which is virtual and the same for each run of a seed.
            let at = tokio::time::Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
            self.timer.as_mut().reset(at);
            std::task::ready!(Future::poll(self.timer.as_mut(), cx));
        }
    }
}

/// How long the host sleeps at most, in milliseconds.
const WAIT_MS_MAX: u64 = 3_600_000;

/// Takes what a server says.
fn hear(
    model: &mut Model,
    conn: Conn,
    lines: &mut Lines,
    now_ms: u64,
    cx: &mut Context<'_>,
) -> io::Result<()> {
    while let Poll::Ready(line) = lines.poll_line(cx, now_ms) {
        match line? {
            ToEngine::Request { id, request } => model.request(now_ms, conn, id, request),
            ToEngine::Unfollow { id } => model.unfollow(conn, id),
            ToEngine::Ping => {}
        }
    }
    Ok(())
}

fn carry_out(
    state: &mut State,
    connections: &mut BTreeMap<Conn, Lines>,
    process: &Process,
    now_ms: u64,
    output: Output,
) {
    let (conn, line) = match output {
        Output::Answer { conn, id, answer } => (conn, ToServer::Answer { id, answer }),
        Output::Follow { conn, id, message } => (conn, ToServer::Follow { id, message }),
        Output::FollowEnds { conn, id } => (conn, ToServer::FollowEnds { id }),
        Output::Committed(message) => {
            state.truth.committed(process, state.model.log(), &message);
            return;
        }
        Output::Purged(subject) => {
            state.truth.purged(state.model.log(), &subject);
            return;
        }
    };
    if let Some(lines) = connections.get_mut(&conn) {
        lines.say(now_ms, &line);
    }
}
