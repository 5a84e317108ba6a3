//! Implementations that stand in the place of hosts, driven in lockstep.
//!
//! A node has no network, no clock and no disk of its own. [`drive`] gives it those of a host: its
//! connections are connections of turmoil that carry real WebSocket frames, through the link where
//! the faults are; its timers are due by the virtual time of its host; and what it commits is in a
//! database on the host's disk. What it does for an application is a matter of its role ([`Part`]).

mod requests;
mod serve;
mod sockets;
mod storage;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;

pub(in crate::world) use self::serve::Inquirer;
use self::serve::{Answer, Call, Calls, Decision};
use self::sockets::{Order, Socket};
pub(in crate::world) use self::storage::{Storage, decoded, write};
use super::host::{EPOCH_MS, Process};
use super::link::LinkConnector;
use super::vault::Vault;
use super::{lock, marks};
use crate::conform::{
    Config, Conn, Done, Effect, Event, Hello, NodeError, Reply, Request, Reset, Role,
    STORAGE_BYTES_MAX, SharedNode, StorageKind, StoreProblem, feature,
};
use crate::trace::{Kind, Text};

/// The nodes that stand in the place of the hosts of one side.
#[derive(Clone)]
pub struct Attached {
    role: Role,
    hello: Hello,
    seats: Vec<Arc<Mutex<Seat>>>,
    failure: Arc<Mutex<Option<NodeError>>>,
}

/// A node, and how often it was asked.
struct Seat {
    node: SharedNode,
    asked: u64,
}

impl Attached {
    /// Nodes of one implementation, one for each host that a plan may have on this side.
    pub fn new(role: Role, hello: Hello, nodes: Vec<SharedNode>) -> Self {
        let seats = nodes.into_iter().map(|node| Arc::new(Mutex::new(Seat { node, asked: 0 })));
        Self { role, hello, seats: seats.collect(), failure: Arc::default() }
    }

    /// Which side it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Who the implementation is.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Whether the implementation has announced a feature.
    pub fn has(&self, feature: &str) -> bool {
        self.hello.features.iter().any(|known| known == feature)
    }

    /// No node will be asked anything more.
    ///
    /// # Errors
    ///
    /// What is wrong with the first node with which something is.
    pub fn finish(&self) -> Result<(), NodeError> {
        self.seats.iter().try_for_each(|seat| lock_node(&lock(seat).node).finish())
    }

    /// What went wrong with a node, if anything did; a run that has begun is of no use then.
    pub(in crate::world) fn failure(&self) -> Option<NodeError> {
        lock(&self.failure).clone()
    }

    /// Forgets what went wrong in the last run.
    pub(in crate::world) fn begin(&self) {
        *lock(&self.failure) = None;
    }

    fn fail(&self, error: NodeError) {
        lock(&self.failure).get_or_insert(error);
    }
}

/// Where a node enters.
pub(in crate::world) struct Entrance {
    pub(in crate::world) process: Process,
    pub(in crate::world) attached: Attached,
    /// Which of the nodes it is.
    pub(in crate::world) seat: usize,
    /// The scenario.
    pub(in crate::world) case: String,
    pub(in crate::world) config: Config,
    /// How a client reaches its server; `None` for a server.
    pub(in crate::world) connector: Option<Arc<LinkConnector>>,
    /// What it commits is here; `None` if nothing of it survives its process.
    pub(in crate::world) storage: Option<Storage>,
    pub(in crate::world) vault: Vault,
    /// How long a commit takes.
    pub(in crate::world) commit: Duration,
}

/// What a role does for its application, and what of it can be seen.
pub(in crate::world) trait Part: Send + 'static {
    /// What the node is to be told before anything else that happens now.
    fn first(&mut self) -> Vec<Event> {
        Vec::new()
    }

    /// With what a life begins.
    fn begin(&mut self, _outside: &Outside) -> Event {
        Event::AppConnect
    }

    /// Whether a server takes connections.
    fn listens(&self) -> bool {
        true
    }

    /// Nothing is on its way to the store: where it matters that the node knows of all that is in a
    /// copy, one that is due is made now.
    ///
    /// # Errors
    ///
    /// The disk's.
    fn settled(&mut self, _entrance: &Entrance) -> std::io::Result<()> {
        Ok(())
    }

    /// The store has changed: if a copy of it is due, it is made.
    ///
    /// # Errors
    ///
    /// The disk's.
    fn changed(&mut self, entrance: &Entrance) -> std::io::Result<()> {
        match &entrance.storage {
            Some(storage) => storage.back_up_if_due(&entrance.process, &entrance.vault),
            None => Ok(()),
        }
    }

    /// An effect that is not about sockets, requests or the store.
    ///
    /// # Errors
    ///
    /// A sentence, if no node of this role does such a thing.
    fn effect(&mut self, effect: Effect, outside: &Outside) -> Result<(), String>;

    /// Which life it is, if not that of the process.
    fn life(&self) -> Option<u64> {
        None
    }

    /// Something happens to the node, and it is told next.
    fn happens(&mut self, _event: &Event) {}

    /// The node does something, of whatever kind, and it takes effect next.
    fn does(&mut self, _effect: &Effect) {}

    /// A commit of the node is durable, or it failed; the node does not know yet.
    fn committed(&mut self, _id: u64, _error: Option<StoreProblem>) {}
}

/// The way back to a node for what takes time.
#[derive(Clone)]
pub(in crate::world) struct Outside {
    happenings: mpsc::UnboundedSender<Happening>,
}

/// Something that a node is to be told, and who waits for an answer.
struct Happening {
    event: Option<Event>,
    call: Option<Call>,
}

impl Outside {
    /// The node is to look whether anything is due. One that is gone does not.
    pub(in crate::world) fn nudge(&self) {
        let _ = self.happenings.send(Happening { event: None, call: None });
    }

    /// The way to nobody: an implementation that runs by itself is not told.
    pub(in crate::world) fn nowhere() -> Self {
        Self { happenings: mpsc::unbounded_channel().0 }
    }

    /// Something has happened. A node that is gone does not hear of it.
    pub(in crate::world) fn happened(&self, event: Event) {
        let _ = self.happenings.send(Happening { event: Some(event), call: None });
    }
}

/// How often a node may do something at one instant without anything new having happened.
const SPINS_MAX: u32 = 10_000;

/// How often a node may ask for real time before it answers.
const SETTLES_MAX: u32 = 1_000;

/// Later than this after its time, a timer was held up by a process that was stopped.
const LATE_MS: u64 = 1;

/// One life of a node.
pub(in crate::world) async fn drive<P: Part>(entrance: Entrance, part: P) -> turmoil::Result {
    let attached = entrance.attached.clone();
    let (happenings, inbox) = mpsc::unbounded_channel();
    let driver = Driver {
        entrance,
        part,
        outside: Outside { happenings },
        sockets: BTreeMap::new(),
        calls: Calls::default(),
        committing: 0,
        next: None,
        last_ms: now_ms(),
        spins: 0,
    };
    if let Err(error) = driver.run(inbox).await {
        attached.fail(error);
    }
    std::future::pending().await
}

/// The virtual time of the host that runs.
fn now_ms() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

struct Driver<P> {
    entrance: Entrance,
    part: P,
    outside: Outside,
    sockets: BTreeMap<Conn, Socket>,
    calls: Calls,
    /// How many commits are on their way.
    committing: u32,
    /// When the node wants to be woken.
    next: Option<u64>,
    /// When it was told something the last time.
    last_ms: u64,
    /// How often it was woken at this instant.
    spins: u32,
}

impl<P: Part> Driver<P> {
    /// Until the machine loses power.
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Happening>) -> Result<(), NodeError> {
        self.reset()?;
        let begin = self.part.begin(&self.outside);
        self.deliver(begin)?;
        if self.entrance.connector.is_none() && self.part.listens() {
            let (process, outside) = (self.entrance.process.clone(), self.outside.clone());
            tokio::spawn(serve::listen(process, self.wants(), outside));
        }
        loop {
            self.settle();
            self.entrance.process.powered().await;
            let wait = self.next.map(|at| Duration::from_millis(at.saturating_sub(now_ms())));
            tokio::select! { biased;
                Some(happening) = inbox.recv() => self.happened(happening)?,
                () = sleep(wait) => self.wake()?,
            }
        }
    }

    fn record(&self, kind: Kind, text: impl Into<Text>) {
        self.entrance.process.record(kind, text);
    }

    fn has(&self, feature: &str) -> bool {
        self.entrance.attached.has(feature)
    }

    fn skew_ms(&self) -> i64 {
        self.entrance.process.clock.skew_ms()
    }

    /// Lets a copy be made while nothing is on its way to the store.
    fn settle(&mut self) {
        if self.committing == 0
            && let Err(error) = self.part.settled(&self.entrance)
        {
            self.record(Kind::Store, format_args!("the store cannot be copied: {error}"));
        }
    }

    fn reset(&mut self) -> Result<(), NodeError> {
        let process = self.entrance.process.clone();
        let mut parts = parts(match &self.entrance.storage {
            Some(storage) => storage.load().map_err(|error| {
                NodeError::NotStarted(format!("its storage cannot be read: {error}"))
            })?,
            None => BTreeMap::new(),
        });
        let storage = parts.pop_front().unwrap_or_default();
        let reset = Reset {
            n: 0,
            case: self.entrance.case.clone(),
            seed: process.seed.to_string(),
            role: self.entrance.attached.role,
            host: process.name.to_owned(),
            life: self.part.life().unwrap_or(process.life),
            now: now_ms(),
            epoch_ms: EPOCH_MS,
            skew_ms: self.skew_ms(),
            config: self.entrance.config.clone(),
            storage,
            more: !parts.is_empty(),
        };
        self.ask(|n| Request::Reset(Box::new(Reset { n, ..reset })), now_ms())?;
        while let Some(storage) = parts.pop_front() {
            let more = !parts.is_empty();
            self.ask(|n| Request::Load { n, storage, more }, now_ms())?;
        }
        Ok(())
    }

    /// What is due comes first, then this.
    fn happened(&mut self, happening: Happening) -> Result<(), NodeError> {
        let Happening { event: Some(event), call } = happening else { return Ok(()) };
        while self.next.is_some_and(|next| next <= now_ms()) {
            self.wake()?;
        }
        match (&event, call) {
            (Event::SockRequest { conn, .. }, Some(Call::Socket { socket, answer })) => {
                self.sockets.insert(*conn, socket);
                self.calls.socket(*conn, answer);
            }
            (Event::StoreDone { .. }, None) => self.committing -= 1,
            (Event::HttpRequest { id, .. }, Some(Call::Request { answer })) => {
                self.calls.request(*id, answer);
            }
            _ => {}
        }
        if let Event::SockClose { conn, .. } | Event::SockError { conn, .. } = &event {
            // It is over for the node as well: unless the node has let go of it before.
            let known = self.sockets.remove(conn).is_some();
            if !known && !self.has(feature::SOCK_CLOSED) {
                return Ok(());
            }
        } else if let Event::SockOpen { conn, .. }
        | Event::SockMessage { conn, .. }
        | Event::SockSent { conn, .. }
        | Event::SockAlive { conn } = &event
            && !self.sockets.contains_key(conn)
        {
            return Ok(());
        }
        self.deliver(event)
    }

    fn deliver(&mut self, event: Event) -> Result<(), NodeError> {
        for first in self.part.first() {
            self.tell(first)?;
        }
        self.tell(event)
    }

    fn tell(&mut self, event: Event) -> Result<(), NodeError> {
        self.spins = 0;
        self.part.happens(&event);
        let (at, skew_ms) = (now_ms(), self.skew_ms());
        self.ask(|n| Request::Deliver { n, at, skew_ms, event }, at)
    }

    /// A timer of the node is due, if it is its time.
    fn wake(&mut self) -> Result<(), NodeError> {
        let now = now_ms();
        let Some(next) = self.next.filter(|next| *next <= now) else { return Ok(()) };
        if now > next + LATE_MS {
            return self.tell(Event::OsSuspend { for_ms: now - self.last_ms });
        }
        self.spins = if now == self.last_ms { self.spins + 1 } else { 0 };
        if self.spins > SPINS_MAX {
            return Err(NodeError::Misused(format!(
                "at {now} ms it wants to be woken at {next} ms again and again"
            )));
        }
        let skew_ms = self.skew_ms();
        self.ask(|n| Request::Advance { n, until: now, skew_ms }, now)
    }

    /// Asks something, and does what comes of it. The node's time is `now` afterwards.
    fn ask(&mut self, request: impl FnOnce(u64) -> Request, now: u64) -> Result<(), NodeError> {
        self.last_ms = now;
        let mut done = self.exchange(request)?;
        let mut settles = 0;
        loop {
            if done.now != now {
                return Err(NodeError::Nondeterministic(format!(
                    "it acted at {} ms, when it was {now} ms, and had said nothing of that",
                    done.now
                )));
            }
            if let Some(next) = done.next.filter(|next| *next < now) {
                return Err(NodeError::Misused(format!(
                    "at {now} ms it wants to be woken at {next} ms, which is over"
                )));
            }
            self.next = done.next;
            for effect in done.effects {
                self.perform(effect)?;
                if self.entrance.process.disk.powered_off() {
                    return Ok(());
                }
            }
            if !done.busy {
                return Ok(());
            }
            settles += 1;
            if settles > SETTLES_MAX {
                return Err(NodeError::Misused(format!(
                    "it is busy after it was given time {SETTLES_MAX} times"
                )));
            }
            done = self.exchange(|n| Request::Settle { n })?;
        }
    }

    fn exchange(&mut self, request: impl FnOnce(u64) -> Request) -> Result<Done, NodeError> {
        let mut seat = lock(&self.entrance.attached.seats[self.entrance.seat]);
        seat.asked += 1;
        let request = request(seat.asked);
        let reply = lock_node(&seat.node).exchange(&request)?;
        match reply {
            Reply::Done(done) => Ok(done),
            Reply::Unsupported { what, .. } => Err(NodeError::Unsupported(what)),
            Reply::Hello(_) => {
                Err(NodeError::Misused("it introduced itself without having been asked".to_owned()))
            }
            Reply::Effect { .. } => {
                Err(NodeError::Misused("it said an effect instead of a reply".to_owned()))
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Result<(), NodeError> {
        self.part.does(&effect);
        match effect {
            Effect::SockConnect { conn, url, headers, protocols } => {
                let misused = |problem: String| NodeError::Misused(format!("{problem}: `{url}`"));
                let Some(connector) = &self.entrance.connector else {
                    return Err(misused("a server does not connect".to_owned()));
                };
                if self.sockets.contains_key(&conn) {
                    return Err(misused(format!("connection {conn} exists already")));
                }
                let request = sockets::request(&url, &headers, &protocols).map_err(misused)?;
                let wants = self.wants();
                let socket =
                    Socket::dial(conn, connector, request, protocols, wants, self.outside.clone());
                self.sockets.insert(conn, socket);
            }
            Effect::SockSend { conn, text } => self.order(conn, Order::Send(text)),
            Effect::SockPing { conn } => self.order(conn, Order::Ping),
            Effect::SockRead { conn, on } => self.order(conn, Order::Read(on)),
            Effect::SockClose { conn, code, .. } => {
                self.order(conn, Order::Close(code.unwrap_or(1000)));
                self.sockets.remove(&conn);
            }
            Effect::HttpRequest { id, method, url, headers, body } => {
                let misused = |problem: String| NodeError::Misused(format!("{problem}: `{url}`"));
                let Some(connector) = &self.entrance.connector else {
                    return Err(misused("a server sends no requests".to_owned()));
                };
                let request = requests::request(&method, &url, &headers, body).map_err(misused)?;
                requests::send(id, connector, request, self.outside.clone());
            }
            Effect::SockAccept { conn, protocol } => {
                let known = protocol.as_deref().map(|name| {
                    serve::protocol(name).ok_or_else(|| {
                        NodeError::Misused(format!("no protocol here is called `{name}`"))
                    })
                });
                let decision = Decision::Accept(known.transpose()?);
                answered(self.calls.decide(conn, decision), "connection", conn)?;
            }
            Effect::SockRefuse { conn, status, headers, body } => {
                let decision = Decision::Refuse(Answer { status, headers, body });
                let waited = self.calls.decide(conn, decision);
                self.sockets.remove(&conn);
                answered(waited, "connection", conn)?;
            }
            Effect::HttpResponse { id, status, headers, body } => {
                let waited = self.calls.answer(id, Answer { status, headers, body });
                answered(waited, "request", id)?;
            }
            Effect::StoreCommit { id, writes } => self.commit(id, &writes)?,
            Effect::Mark { name } => {
                if let Some(mark) = marks::known(&name) {
                    self.entrance.process.recorder.mark(mark);
                }
            }
            Effect::AppState { text } => self.record(Kind::App, text),
            Effect::Panic { message } => return Err(NodeError::Panicked(message)),
            other => self.part.effect(other, &self.outside).map_err(NodeError::Misused)?,
        }
        Ok(())
    }

    fn wants(&self) -> sockets::Wants {
        sockets::Wants { sent: self.has(feature::SOCK_SENT), alive: self.has(feature::SOCK_ALIVE) }
    }

    /// A connection that is gone takes no orders.
    fn order(&self, conn: Conn, order: Order) {
        if let Some(socket) = self.sockets.get(&conn) {
            socket.order(order);
        }
    }

    fn commit(
        &mut self,
        id: u64,
        writes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), NodeError> {
        self.settle();
        let Some(storage) = &self.entrance.storage else {
            return Err(NodeError::Misused("it commits, and has announced no storage".to_owned()));
        };
        let error = storage.commit(writes).map_err(NodeError::Misused)?;
        self.part.committed(id, error);
        let (process, vault) = (self.entrance.process.clone(), self.entrance.vault.clone());
        vault.state().unsettled = error == Some(StoreProblem::Unknown);
        self.committing += 1;
        if let Err(error) = self.part.changed(&self.entrance) {
            process.record(Kind::Store, format_args!("the store cannot be copied: {error}"));
        }
        let keys: Vec<&str> = writes.keys().map(String::as_str).collect();
        let outcome = match error {
            None => "done",
            Some(StoreProblem::NotApplied) => "not applied",
            Some(StoreProblem::Unknown) => "unknown",
        };
        process.record(Kind::Store, format_args!("store: {} = {outcome}", keys.join(", ")));
        let (outside, commit) = (self.outside.clone(), self.entrance.commit);
        tokio::spawn(async move {
            process.powered().await;
            if error.is_none() {
                gapless::mark!("world.committed");
            }
            vault.state().committed = error.is_none();
            let slow = vault.state().slow;
            tokio::time::sleep(slow.unwrap_or(commit)).await;
            vault.state().committed = false;
            outside.happened(Event::StoreDone { id, error });
        });
        Ok(())
    }
}

fn lock_node(node: &SharedNode) -> MutexGuard<'_, dyn crate::conform::Node + 'static> {
    node.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn answered(waited: bool, what: &str, name: u64) -> Result<(), NodeError> {
    match waited {
        true => Ok(()),
        false => Err(NodeError::Misused(format!("{what} {name} does not wait for an answer"))),
    }
}

/// What is stored, in parts of which each fits into a line, unless one value alone does not.
fn parts(storage: BTreeMap<String, String>) -> VecDeque<BTreeMap<String, String>> {
    let mut parts = VecDeque::from([BTreeMap::new()]);
    let mut bytes = 0;
    for (key, value) in storage {
        let length = key.len() + value.len();
        if bytes > 0 && bytes + length > STORAGE_BYTES_MAX {
            parts.push_back(BTreeMap::new());
            bytes = 0;
        }
        bytes += length;
        if let Some(part) = parts.back_mut() {
            part.insert(key, value);
        }
    }
    parts
}

/// Sleeps for a while; for ever without one.
async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Whether what a node commits survives its process.
pub(in crate::world) fn keeps(attached: &Attached) -> bool {
    attached.hello.storage == StorageKind::Virtual
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(lengths: &[usize]) -> BTreeMap<String, String> {
        let pages = lengths.iter().enumerate();
        pages.map(|(number, length)| (format!("{number:04}"), "x".repeat(*length))).collect()
    }

    #[test]
    fn what_is_stored_comes_whole_and_in_parts_that_fit_into_a_line() {
        let storage = stored(&[5_000; 400]);
        let parts = parts(storage.clone());
        assert_eq!(parts.len(), 4);
        let bytes = |part: &BTreeMap<String, String>| {
            part.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
        };
        assert!(parts.iter().all(|part| bytes(part) <= STORAGE_BYTES_MAX));
        let joined: BTreeMap<_, _> = parts.into_iter().flatten().collect();
        assert!(joined == storage);
    }

    #[test]
    fn nothing_is_one_part_and_a_value_that_is_too_long_is_one_of_its_own() {
        assert_eq!(parts(BTreeMap::new()).len(), 1);
        let lengths = [10, 2 * STORAGE_BYTES_MAX, 10];
        let counts: Vec<_> = parts(stored(&lengths)).iter().map(BTreeMap::len).collect();
        assert_eq!(counts, [1, 1, 1]);
    }
}
