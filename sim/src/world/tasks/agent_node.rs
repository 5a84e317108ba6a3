//! A foreign agent in the place of an agent's host, with the same commands to run.
//!
//! What its store holds is what it reports; without reports it is taken at its word, and what waits
//! in it is not looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gapless::tasks::driver::{Executor as _, ExecutorEvent};
use gapless::tasks::store::Append;
use gapless::tasks::{Attempt, AttemptId, TaskId};
use tokio::sync::{mpsc, oneshot, watch};

use super::agent::{LOOK_EVERY, OPEN_RETRY, POLL_EVERY_MS, REQUEST_TIMEOUT_MS, STORE, Side};
use super::executor::ScriptedExecutor;
use super::watch::TaskWatch;
use super::witness::Witness;
use super::{CONTROLLER, Ledger, agent_id, signing};
use crate::conform::{Config, Effect, Event, StoreProblem, TasksAgentConfig, feature};
use crate::history::{Stage, TaskSeen};
use crate::plan::{AgentOptions, Host};
use crate::trace::Kind;
use crate::world::host::Process;
use crate::world::link::LinkConnector;
use crate::world::lock;
use crate::world::node::{Attached, Entrance, Outside, Part, Storage, drive, keeps};
use crate::world::vault::Vault;

/// One life of a foreign agent; or a look into its store at the end of a run.
pub(super) async fn live(
    side: Side,
    attached: Attached,
    case: String,
    inspecting: bool,
) -> turmoil::Result {
    let Side { process, number, options, extension, vault, ledger, link } = side;
    process.boot().await;
    let reports = attached.has(feature::TASK_REPORTS);
    if inspecting && !reports {
        return Ok(());
    }
    let storage = match keeps(&attached) {
        true => {
            // Opening the database takes what is in the files for true.
            vault.state().unsettled = false;
            vault.back_up_if_due(&process, STORE)?;
            if vault.replace_if_due(&process, STORE)?.is_some() {
                gapless::mark!("world.store_replaced");
                process.recorder.see_task(TaskSeen::StoreReplaced { agent: number });
            }
            Some(open(&process).await)
        }
        false => None,
    };
    let recorder = process.recorder.clone();
    let witness = Witness::new(number, &options, extension, recorder.clone(), ledger.clone());
    let witness = Arc::new(Mutex::new(witness));
    let mut watch = TaskWatch::new(number, recorder);
    if !reports {
        watch = watch.trusting(Arc::clone(&witness));
    }
    if !attached.has(feature::MARKS) {
        watch = watch.marking();
    }
    let connector = LinkConnector {
        server: CONTROLLER,
        watch: Arc::new(watch),
        link,
        process: process.clone(),
    };
    let part = AgentPart {
        number,
        reports,
        look: match (reports, inspecting) {
            (false, _) => Look::Never,
            (true, false) => Look::First,
            (true, true) => Look::Last,
        },
        executor: ScriptedExecutor { process: process.clone(), agent: number },
        running: BTreeMap::new(),
        process: process.clone(),
        shelf: storage.clone().map(|storage| Shelf {
            storage,
            process: process.clone(),
            vault: vault.clone(),
        }),
        ledger,
        witness,
    };
    let entrance = Entrance {
        seat: number as usize - 1,
        case,
        config: Config::TasksAgent(Box::new(config(number, &options))),
        connector: Some(Arc::new(connector)),
        storage,
        vault,
        commit: Duration::from_millis(options.commit_ms),
        attached,
        process,
    };
    drive(entrance, part).await
}

/// What a node commits, and the copies of it.
pub(super) struct Shelf {
    pub(super) storage: Storage,
    pub(super) process: Process,
    pub(super) vault: Vault,
}

impl Shelf {
    /// A transaction has ended: a copy that is due is made, if it would be one of what is there.
    pub(super) fn committed(&self, error: Option<StoreProblem>) {
        self.vault.state().unsettled = error == Some(StoreProblem::Unknown);
        if let Err(error) = self.storage.back_up_if_due(&self.process, &self.vault) {
            self.process.record(Kind::Store, format_args!("the store cannot be copied: {error}"));
        }
    }
}

async fn open(process: &Process) -> Storage {
    loop {
        match Storage::open(process, STORE, "") {
            Ok(storage) => return storage,
            Err(problem) => {
                process.powered().await;
                process.record(Kind::Store, format_args!("the store cannot be opened: {problem}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    }
}

fn config(number: u32, options: &AgentOptions) -> TasksAgentConfig {
    TasksAgentConfig {
        base_url: format!("http://{CONTROLLER}"),
        agent: agent_id(number).to_string(),
        key: signing::private_key(number, options.rsa),
        extension: options.extension,
        parallel: options.parallel,
        queue_max: options.queue,
        handshake_timeout_ms: options.handshake_ms,
        ping_every_ms: options.ping_every_ms,
        pong_timeout_ms: options.pong_timeout_ms,
        reconnect_ms: options.reconnect_ms,
        ack_timeout_ms: options.ack_timeout_ms,
        window_messages: options.window,
        page_messages: options.page,
        chunk_bytes: options.chunk_bytes,
        flush_after_ms: options.flush_ms,
        buffer_bytes: options.buffer_bytes,
        hello_finals_max: options.hello_max,
        hello_ranges_max: options.hello_max,
        hello_bytes_max: crate::world::HELLO_BYTES_MAX / 2,
        fallback_after_ms: options.fallback_ms,
        poll_every_ms: POLL_EVERY_MS,
        request_timeout_ms: REQUEST_TIMEOUT_MS,
        spool_cap_bytes: options.spool_bytes,
        terminal_reserve_bytes: options.reserve_bytes,
        finished_max: options.finished,
    }
}

/// When the node is asked what its store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It cannot say.
    Never,
    /// Before anything else happens.
    First,
    /// It was asked; again when the faults are over.
    Later,
    /// Nothing else is wanted of it any more.
    Last,
}

/// What a foreign agent runs, and what is seen of it.
struct AgentPart {
    process: Process,
    shelf: Option<Shelf>,
    number: u32,
    reports: bool,
    look: Look,
    executor: ScriptedExecutor,
    running: BTreeMap<String, Running>,
    ledger: Ledger,
    witness: Arc<Mutex<Witness>>,
}

/// A command that runs.
struct Running {
    reading: watch::Sender<bool>,
    kill: Option<oneshot::Sender<()>>,
}

impl AgentPart {
    /// Everything of which the store has ever held something.
    fn look(&self) -> Event {
        let spoken_of = self.ledger.state().spoken_of.get(&self.number).cloned();
        let attempts = spoken_of.iter().flatten().map(ToString::to_string).collect();
        Event::TaskLook { attempts }
    }

    fn start(&mut self, name: String, command: String, outside: &Outside) -> Result<(), String> {
        let attempt = attempt(&name)?;
        {
            let mut witness = lock(&self.witness);
            witness.commanded(&attempt, &command);
            witness.begins(&attempt);
            if !self.reports {
                witness.kept(&attempt, Stage::Running);
            }
        }
        let execution = self.executor.start(&attempt, command);
        let (reading, read) = watch::channel(true);
        tokio::spawn(tell(name.clone(), execution.events, read, outside.clone()));
        self.running.insert(name, Running { reading, kill: Some(execution.kill) });
        Ok(())
    }

    fn kept(&self, attempt: &Attempt, stage: Stage) {
        let mut witness = lock(&self.witness);
        witness.kept(attempt, stage);
        match stage {
            Stage::Received => witness.waits(attempt),
            Stage::Running | Stage::Ended => witness.waits_no_more(attempt),
        }
    }

    /// What waits in the store.
    fn waits(&self, open: Vec<String>, results: Vec<String>, output: usize) {
        if self.look != Look::Last {
            let idle = open.is_empty() && results.is_empty() && output == 0;
            return self.ledger.set_idle(Host::Client(self.number), idle);
        }
        // What a commit of unknown outcome has left may come back, as it did now. The agent that ran
        // had nothing of it.
        let had = self.ledger.state().spoken_of.get(&self.number).cloned().unwrap_or_default();
        let had: Vec<String> = had.iter().map(ToString::to_string).collect();
        let open = open.into_iter().filter(|attempt| had.contains(attempt)).collect();
        let agent = self.number;
        self.process.recorder.see_task(TaskSeen::AgentEnd { agent, open, results, output });
    }
}

/// Tells what a command does, as long as it is read.
async fn tell(
    attempt: String,
    mut events: mpsc::Receiver<ExecutorEvent>,
    mut reading: watch::Receiver<bool>,
    outside: Outside,
) {
    loop {
        // Who does not say that it reads again has gone.
        if reading.wait_for(|on| *on).await.is_err() {
            return;
        }
        let (code, error) = match events.recv().await {
            Some(ExecutorEvent::Wrote(stream, data)) => {
                let (attempt, b64) = (attempt.clone(), STANDARD.encode(data));
                outside.happened(Event::ExecOutput { attempt, stream: stream.into(), b64 });
                continue;
            }
            Some(ExecutorEvent::Exited(exit)) => (exit.exit_code, exit.error),
            None => (-1, "the command was ended".to_owned()),
        };
        return outside.happened(Event::ExecExit { attempt, code, error });
    }
}

fn attempt(name: &str) -> Result<Attempt, String> {
    let problem = || format!("`{name}` names no attempt");
    let (task, id) = name.split_once('/').ok_or_else(problem)?;
    let task = TaskId::parse(task).map_err(|_| problem())?;
    Ok(Attempt { task, id: AttemptId::parse(id).map_err(|_| problem())? })
}

impl Part for AgentPart {
    fn first(&mut self) -> Vec<Event> {
        if self.look == Look::First {
            self.look = Look::Later;
            return vec![self.look()];
        }
        Vec::new()
    }

    fn begin(&mut self, outside: &Outside) -> Event {
        if self.look == Look::Last {
            return self.look();
        }
        let (ledger, host, reports) =
            (self.ledger.clone(), Host::Client(self.number), self.reports);
        let outside = outside.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let healed = ledger.state().healed;
                match reports {
                    true if healed => {
                        outside.happened(Event::TaskLook { attempts: Vec::new() });
                    }
                    true => {}
                    false => ledger.set_idle(host, healed),
                }
            }
        });
        Event::AppConnect
    }

    /// A copy is made right after a transaction, as of the production store.
    fn settled(&mut self, _: &Entrance) -> std::io::Result<()> {
        Ok(())
    }

    fn committed(&mut self, _: u64, error: Option<StoreProblem>) {
        if let Some(shelf) = &self.shelf {
            shelf.committed(error);
        }
    }

    fn effect(&mut self, effect: Effect, outside: &Outside) -> Result<(), String> {
        match effect {
            Effect::ExecStart { attempt, command } => self.start(attempt, command, outside)?,
            Effect::ExecRead { attempt, on } => {
                if let Some(running) = self.running.get(&attempt) {
                    // One that has ended is not read any more.
                    let _ = running.reading.send(on);
                }
            }
            Effect::ExecKill { attempt } => {
                if let Some(running) = self.running.get_mut(&attempt) {
                    drop(running.kill.take());
                }
            }
            Effect::TaskKept { attempt: name, stage } => self.kept(&attempt(&name)?, stage),
            Effect::TaskForgot { attempt: name } => {
                lock(&self.witness).waits_no_more(&attempt(&name)?);
            }
            Effect::TaskBound { attempt: name, stream, sequence, b64 } => {
                let data = STANDARD.decode(&b64).map_err(|error| {
                    format!("what it bound to {sequence} of {name} is no base64: {error}")
                })?;
                let (attempt, stream, data) = (attempt(&name)?, stream.into(), data.into());
                lock(&self.witness).bound(&Append { attempt, stream, sequence, data });
            }
            Effect::TaskSpool { bytes } => lock(&self.witness).takes(bytes),
            Effect::TaskKnown { attempt, stage } => {
                let agent = self.number;
                let recorder = &self.process.recorder;
                recorder.see_task(TaskSeen::Remembered { agent, attempt, stage });
            }
            Effect::TaskWaits { open, results, output } => self.waits(open, results, output),
            other => return Err(format!("no agent does {other:?}")),
        }
        Ok(())
    }
}
