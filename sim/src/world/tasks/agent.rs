//! An agent's host: the production agent, with commands that do what the plan says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::recovery::{BackoffConfig, LivenessConfig};
use gapless::storage::{Store, StoreCommand as _, StoreError, Transact};
use gapless::tasks::agent::{Agent, AgentConfig, Notice};
use gapless::tasks::driver::{AgentTarget, agent as agent_task};
use gapless::tasks::store::sqlite::{SqliteTaskStore, TaskStoreConfig};
use gapless::tasks::store::{
    Appended, Command, Known, MessageBody, Received, RecoveryStore as _, Reply, Snapshot, Started,
};
use gapless::tasks::{Attempt, Status};

use super::executor::ScriptedExecutor;
use super::watch::TaskWatch;
use super::witness::Witness;
use super::{CONTROLLER, Ledger, agent_id, signing};
use crate::conform::keys;
use crate::history::{Stage, TaskSeen};
use crate::mutants::{Distorted, Settings};
use crate::plan::{AgentOptions, Host};
use crate::trace::Kind;
use crate::world::disk::{VFS_NAME, create_dir, size};
use crate::world::host::Process;
use crate::world::link::{Link, LinkConnector};
use crate::world::vault::Vault;
use crate::world::{limits, lock};

/// What a life of an agent is given.
pub(super) struct Side {
    pub(super) process: Process,
    pub(super) number: u32,
    pub(super) options: AgentOptions,
    /// Whether the controller speaks the extension too, so that all bytes can be carried.
    pub(super) extension: bool,
    pub(super) vault: Vault,
    pub(super) ledger: Ledger,
    pub(super) link: Link,
}

/// Where the store is.
pub(super) const STORE: &str = "/data/agent.db";

/// How long an agent that cannot open its store waits before it tries again.
pub(super) const OPEN_RETRY: Duration = Duration::from_secs(1);

/// How often an agent whose link is down asks for tasks.
pub(super) const POLL_EVERY_MS: u64 = 2_000;

/// How long its requests may take.
pub(super) const REQUEST_TIMEOUT_MS: u64 = 4_000;

/// How often it is looked whether there is anything to do.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

fn open(
    process: &Process,
    options: &AgentOptions,
    settings: Settings,
) -> Result<SqliteTaskStore, String> {
    create_dir("/data").map_err(|error| error.to_string())?;
    let mut config = TaskStoreConfig::new(process.disk.path(STORE));
    config.vfs = Some(VFS_NAME.to_owned());
    config.spool_cap_bytes = options.spool_bytes;
    config.terminal_reserve_bytes = match settings.reserve_once {
        true => options.reserve_bytes / 32,
        false => options.reserve_bytes,
    };
    config.finished_max = options.finished;
    config.synchronous = settings.synchronous;
    SqliteTaskStore::open(config).map_err(|error| error.to_string())
}

/// The store, for the agent and for whoever looks into it.
type Shared = Arc<Mutex<Box<dyn Transact<Command>>>>;

fn stage_of(status: Status) -> Stage {
    match status {
        Status::Received => Stage::Received,
        Status::Running => Stage::Running,
        Status::Final(_) => Stage::Ended,
    }
}

/// One life of an agent.
pub(super) async fn live(side: Side, distorted: Distorted) -> turmoil::Result {
    let Side { process, number, options, extension, vault, ledger, link } = side;
    process.boot().await;
    // Opening the store takes what is in the files for true.
    vault.state().unsettled = false;
    vault.back_up_if_due(&process, STORE)?;
    if vault.replace_if_due(&process, STORE)?.is_some() {
        gapless::mark!("world.store_replaced");
        process.recorder.see_task(TaskSeen::StoreReplaced { agent: number });
    }
    let mut store = loop {
        match open(&process, &options, distorted.settings()) {
            Ok(store) => break distorted.task_store(store, &process.clock),
            Err(problem) => {
                process.powered().await;
                process.record(Kind::Store, format_args!("the store cannot be opened: {problem}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    };
    tell_remembered(&mut *store, &process, number, &ledger)?;
    let store: Shared = Arc::new(Mutex::new(store));
    let written = vault.clone();
    let inline = InlineStore {
        store: Arc::clone(&store),
        process: process.clone(),
        commit: Duration::from_millis(options.commit_ms),
        vault,
        witness: Witness::new(
            number,
            &options,
            extension,
            process.recorder.clone(),
            ledger.clone(),
        ),
    };
    let range = |(min, max): (u64, u64)| BackoffConfig {
        min: Duration::from_millis(min),
        max: Duration::from_millis(max),
        jitter_percent: 25,
    };
    let config = AgentConfig {
        extension: options.extension,
        parallel: options.parallel,
        queue_max: match distorted.settings().endless_queue {
            true => usize::MAX,
            false => options.queue,
        },
        handshake_timeout: Duration::from_millis(options.handshake_ms),
        liveness: LivenessConfig {
            ping_every: Duration::from_millis(options.ping_every_ms),
            pong_timeout: Duration::from_millis(options.pong_timeout_ms),
        },
        reconnect: range(options.reconnect_ms),
        ack_timeout: Duration::from_millis(options.ack_timeout_ms),
        window_messages: options.window,
        page_messages: options.page,
        chunk_bytes: options.chunk_bytes,
        flush_after: Duration::from_millis(options.flush_ms),
        buffer_bytes: options.buffer_bytes,
        hello_finals_max: options.hello_max,
        hello_ranges_max: options.hello_max,
        hello_bytes_max: crate::world::HELLO_BYTES_MAX / 2,
        fallback_after: Duration::from_millis(options.fallback_ms),
        poll_every: Duration::from_millis(POLL_EVERY_MS),
        request_timeout: Duration::from_millis(REQUEST_TIMEOUT_MS),
        ..AgentConfig::default()
    };
    let request_timeout = config.request_timeout;
    let entropy = distorted.entropy(Box::new(process.entropy("agent")));
    let core = distorted.agent(Agent::new(config, entropy));
    let watch = Arc::new(TaskWatch::new(number, process.recorder.clone()));
    let connector = LinkConnector { server: CONTROLLER, watch, link, process: process.clone() };
    let target = AgentTarget {
        host: CONTROLLER.to_owned(),
        agent: agent_id(number),
        signer: keys::signer(&signing::private_key(number, options.rsa))?,
        limits: limits(),
        request_timeout,
    };
    let executor = ScriptedExecutor { process: process.clone(), agent: number };
    let wall = Arc::new(process.clock.clone());
    let entropy = Box::new(process.entropy("nonces"));
    let notices = {
        let process = process.clone();
        Box::new(move |notice: Notice| process.record(Kind::App, notice.to_string()))
    };
    let (_handle, run) =
        agent_task(core, connector, target, inline, executor, wall, entropy, notices);
    tokio::select! { biased;
        () = run => {}
        () = audit(store, written, ledger, number) => {}
    }
    Ok(())
}

/// Tells what the store knows of all attempts of which the agent has spoken.
fn tell_remembered(
    store: &mut dyn Transact<Command>,
    process: &Process,
    agent: u32,
    ledger: &Ledger,
) -> Result<(), String> {
    let spoken_of = ledger.state().spoken_of.get(&agent).cloned().unwrap_or_default();
    for attempt in spoken_of {
        let replies = store.transact(vec![Command::Find(attempt.clone())]);
        let replies = replies.map_err(|error| error.to_string())?;
        if let [Reply::Found(known)] = &replies[..] {
            let stage = known.as_ref().map(|known| stage_of(known.status));
            let attempt = attempt.to_string();
            process.recorder.see_task(TaskSeen::Remembered { agent, attempt, stage });
        }
    }
    Ok(())
}

/// Looks, once the faults are over and whenever something was written, whether anything waits.
async fn audit(store: Shared, vault: Vault, ledger: Ledger, agent: u32) {
    let mut seen = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let written = vault.state().written;
        if ledger.state().healed && seen != Some(written) {
            let idle = lock(&store).snapshot().map(|snapshot| is_idle(&snapshot));
            seen = idle.is_ok().then_some(written);
            ledger.set_idle(Host::Client(agent), idle.unwrap_or(false));
        }
    }
}

fn is_idle(snapshot: &Snapshot) -> bool {
    snapshot.running.is_empty()
        && snapshot.received.is_empty()
        && snapshot.finals.is_empty()
        && snapshot.output.is_empty()
}

/// Reads what waits in the store at the end of a run.
pub(super) async fn inspect(side: Side) -> turmoil::Result {
    let Side { process, number, options, ledger, .. } = side;
    process.boot().await;
    let mut store = open(&process, &options, Settings::default())?;
    tell_remembered(&mut store, &process, number, &ledger)?;
    let snapshot = store.snapshot()?;
    // A commit whose sync failed is rolled back, and may come back when the store is opened anew, as
    // it was just now. The agent that ran had nothing of it.
    let had = ledger.state().spoken_of.get(&number).cloned().unwrap_or_default();
    let running = snapshot.running.iter().map(|it| &it.attempt);
    let received = snapshot.received.iter().map(|it| &it.attempt);
    let open = running.chain(received).filter(|attempt| had.contains(*attempt));
    process.recorder.see_task(TaskSeen::AgentEnd {
        agent: number,
        open: open.map(ToString::to_string).collect(),
        results: snapshot.finals.iter().map(|(_, result)| result.attempt.to_string()).collect(),
        output: snapshot.output.len(),
    });
    Ok(())
}

/// The store on the simulation's own thread, with the virtual time that a disk would take.
struct InlineStore {
    store: Shared,
    process: Process,
    commit: Duration,
    vault: Vault,
    witness: Witness,
}

impl Store<Command> for InlineStore {
    async fn run(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let writes = commands.iter().any(|command| !command.is_read_only());
        let asked = commands.clone();
        for command in &asked {
            if let Command::Receive(receipt) = command {
                self.witness.commanded(&receipt.attempt, &receipt.command);
            }
        }
        let result = lock(&self.store).transact(commands);
        for (command, reply) in asked.iter().zip(result.iter().flatten()) {
            self.see(command, reply);
        }
        for command in asked.iter().filter(|_| result.is_err()) {
            if let Command::Append(piece) = command {
                self.witness.doubts(piece);
            }
        }
        if writes {
            self.vault.state().written += 1;
            self.vault.state().unsettled = matches!(result, Err(StoreError::Unknown(_)));
            if let Err(error) = self.vault.back_up_if_due(&self.process, STORE) {
                let text = format!("the store cannot be copied: {error}");
                self.process.record(Kind::Store, text);
            }
            self.measure();
        }
        let wanted: Vec<String> = asked.iter().map(describe).collect();
        let outcome = match &result {
            Ok(replies) => replies.iter().map(describe_reply).collect::<Vec<_>>(),
            Err(error) => vec![error.to_string()],
        };
        let text = format!("store: {} = {}", wanted.join(", "), outcome.join(", "));
        self.process.record(Kind::Store, text);
        self.process.powered().await;
        let committed = writes && result.is_ok();
        if committed {
            gapless::mark!("world.committed");
        }
        self.vault.state().committed = committed;
        let slow = self.vault.state().slow;
        tokio::time::sleep(slow.unwrap_or(self.commit)).await;
        self.vault.state().committed = false;
        result
    }
}

impl InlineStore {
    fn known(&self, attempt: &Attempt, known: &Known) {
        self.witness.kept(attempt, stage_of(known.status));
    }

    /// What a reply says of the store.
    fn see(&mut self, command: &Command, reply: &Reply) {
        let witness = &mut self.witness;
        match (command, reply) {
            (Command::Receive(receipt), Reply::Received(Received::New)) => {
                witness.kept(&receipt.attempt, Stage::Received);
                witness.waits(&receipt.attempt);
            }
            (Command::Receive(receipt), Reply::Received(Received::Known(known))) => {
                self.known(&receipt.attempt, known);
            }
            (Command::Find(attempt), Reply::Found(Some(known))) => self.known(attempt, known),
            (Command::Recover { .. }, Reply::Recovered(recovered)) => {
                for receipt in &recovered.received {
                    witness.kept(&receipt.attempt, Stage::Received);
                    witness.has_waited(&receipt.attempt);
                }
                for attempt in &recovered.interrupted {
                    witness.kept(attempt, Stage::Ended);
                }
            }
            (Command::Start { attempt, .. }, Reply::Started(started)) => {
                witness.waits_no_more(attempt);
                if *started == Started::Now {
                    witness.begins(attempt);
                }
                if matches!(started, Started::Now | Started::Before) {
                    witness.kept(attempt, Stage::Running);
                }
            }
            (Command::Discard(_), Reply::Discarded(gone)) => {
                for attempt in gone {
                    witness.waits_no_more(attempt);
                }
            }
            (Command::Append(piece), Reply::Appended(Appended::Stored { .. })) => {
                witness.bound(piece);
            }
            (Command::Finish(finish), Reply::Finished(_)) => {
                witness.kept(&finish.attempt, Stage::Ended);
            }
            (_, Reply::Outbox(messages)) => {
                for message in messages {
                    match &message.body {
                        MessageBody::Final(result) => witness.kept(&result.attempt, Stage::Ended),
                        MessageBody::Output { chunk, .. } => witness.bound(chunk),
                    }
                }
            }
            _ => {}
        }
    }

    /// How much of the disk the database takes.
    fn measure(&mut self) {
        if !self.process.disk.powered_off() {
            let bytes = size(self.process.disk.path(STORE)).unwrap_or(0);
            self.witness.takes(bytes);
        }
    }
}

fn describe(command: &Command) -> String {
    match command {
        Command::Recover { .. } => "a new life".to_owned(),
        Command::Acknowledged(_) => "the life is known".to_owned(),
        Command::Receive(receipt) => format!("receive {}", receipt.attempt),
        Command::Start { attempt, .. } => format!("start {attempt}"),
        Command::Append(piece) => format!(
            "{} {} {} of {} bytes",
            piece.attempt,
            piece.stream.as_str(),
            piece.sequence,
            piece.data.len()
        ),
        Command::Finish(finish) => format!("end {}", finish.attempt),
        Command::Ack(message) => format!("release {}", message.as_str()),
        Command::AckOutput { attempt, stream, through } => {
            format!("release {attempt} {} up to {through}", stream.as_str())
        }
        Command::Quarantine(message) => format!("pass over {}", message.as_str()),
        Command::Discard(attempts) => {
            let names: Vec<_> = attempts.iter().map(ToString::to_string).collect();
            format!("discard {}", names.join(" "))
        }
        Command::Find(attempt) => format!("find {attempt}"),
        Command::Snapshot { .. } => "what is there?".to_owned(),
        Command::LostEnds { .. } => "which ends are lost?".to_owned(),
        Command::ReadOutbox { after, count_max, .. } => {
            format!("read {count_max} after row {after}")
        }
    }
}

fn describe_reply(reply: &Reply) -> String {
    match reply {
        Reply::Recovered(recovered) => format!(
            "{} received, {} interrupted",
            recovered.received.len(),
            recovered.interrupted.len()
        ),
        Reply::Received(Received::New) => "new".to_owned(),
        Reply::Received(Received::Known(known)) => format!("known: {:?}", known.status),
        Reply::Received(Received::NoRoom) => "no room".to_owned(),
        Reply::Started(started) => format!("{started:?}"),
        Reply::Appended(Appended::Stored { row }) => format!("row {row}"),
        Reply::Appended(other) => format!("{other:?}"),
        Reply::Finished(result) => format!("row {}", result.row),
        Reply::Released(count) => format!("{count} released"),
        Reply::Discarded(gone) => format!("{} discarded", gone.len()),
        Reply::Found(known) => match known {
            Some(known) => format!("{:?}", known.status),
            None => "unknown".to_owned(),
        },
        Reply::Snapshot(snapshot) => format!(
            "{} run, {} wait, {} results, {} runs of output, {} bytes",
            snapshot.running.len(),
            snapshot.received.len(),
            snapshot.finals.len(),
            snapshot.output.len(),
            snapshot.spool.bytes_used
        ),
        Reply::LostEnds(ends) => format!("{} ends", ends.len()),
        Reply::Outbox(messages) => format!("{} messages", messages.len()),
    }
}
