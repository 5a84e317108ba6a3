//! The controller's host: the production controller on turmoil's network and disk.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::net::Tokens;
use gapless::net::http::{self, HttpConfig};
use gapless::recovery::BackoffConfig;
use gapless::storage::{Store, StoreCommand as _, StoreError, Transact};
use gapless::tasks::controller::record::{
    AttemptState, AttemptView, Command, FinalTaken, OutputTaken, Reconciled, Reply, Submitted,
    TaskView,
};
use gapless::tasks::controller::sqlite::{RecordConfig, SqliteRecord};
use gapless::tasks::controller::{Controller, ControllerConfig, Notice};
use gapless::tasks::driver::{
    ControllerService, ControllerTaskConfig, controller as controller_task,
};
use gapless::tasks::{Attempt, Outcome, OutputStream, TaskId};
use turmoil::net::TcpListener;

use super::watch::digest_of;
use super::{Ledger, SUBMITTER_TOKEN, script, signing};
use crate::conform::keys;
use crate::history::{AttemptEnd, StreamEnd, TaskSeen};
use crate::mutants::{Distorted, Settings};
use crate::plan::{ControllerOptions, Host};
use crate::trace::{Fact, Kind};
use crate::world::disk::{VFS_NAME, create_dir};
use crate::world::host::Process;
use crate::world::link::PORT;
use crate::world::traced::TracedListener;
use crate::world::vault::Vault;
use crate::world::{limits, lock};

/// What a life of the controller is given.
pub(super) struct Side {
    pub(super) process: Process,
    pub(super) options: ControllerOptions,
    pub(super) vault: Vault,
    pub(super) ledger: Ledger,
    /// How many agents have a key.
    pub(super) agents: u32,
    pub(super) rsa: bool,
    /// Whether the agents speak the extension too.
    pub(super) extension: bool,
}

/// Where the record is.
pub(super) const RECORD: &str = "/data/record.db";

/// How long a controller that cannot open its record waits before it tries again.
pub(super) const OPEN_RETRY: Duration = Duration::from_secs(1);

/// How often it is looked whether there is anything to do.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

fn open(process: &Process, settings: Settings) -> Result<SqliteRecord, String> {
    create_dir("/data").map_err(|error| error.to_string())?;
    let mut config = RecordConfig::new(process.disk.path(RECORD));
    config.vfs = Some(VFS_NAME.to_owned());
    config.synchronous = settings.synchronous;
    SqliteRecord::open(config).map_err(|error| error.to_string())
}

/// The record, for the controller and for whoever looks into it.
type Shared = Arc<Mutex<Box<dyn Transact<Command>>>>;

/// One life of the controller.
pub(super) async fn serve(side: Side, distorted: Distorted) -> turmoil::Result {
    let Side { process, options, vault, ledger, agents, rsa, extension } = side;
    process.boot().await;
    // Opening the record takes what is in the files for true.
    vault.state().unsettled = false;
    vault.back_up_if_due(&process, RECORD)?;
    if vault.replace_if_due(&process, RECORD)?.is_some() {
        gapless::mark!("world.record_replaced");
        process.recorder.see_task(TaskSeen::RecordReplaced);
    }
    let record = loop {
        match open(&process, distorted.settings()) {
            Ok(record) => break record,
            Err(problem) => {
                process.powered().await;
                process.record(Kind::Store, format_args!("the record cannot be opened: {problem}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    };
    let record: Shared = Arc::new(Mutex::new(distorted.record(record)));
    let written = vault.clone();
    let store = InlineRecord {
        record: Arc::clone(&record),
        process: process.clone(),
        commit: Duration::from_millis(options.commit_ms),
        vault,
    };
    let config = ControllerConfig {
        extension: options.extension,
        silence: Duration::from_millis(options.silence_ms),
        redelivery: BackoffConfig {
            min: Duration::from_millis(options.redelivery_ms.0),
            max: Duration::from_millis(options.redelivery_ms.1),
            jitter_percent: 25,
        },
        deliveries_max: options.deliveries,
        ..ControllerConfig::default()
    };
    let entropy = distorted.entropy(Box::new(process.entropy("controller")));
    let core = distorted.controller(Controller::new(config, entropy));
    let wall = Arc::new(process.clock.clone());
    let notices = {
        let process = process.clone();
        Box::new(move |notice: Notice| process.record(Kind::App, notice.to_string()))
    };
    let (handle, task) =
        controller_task(core, store, wall.clone(), notices, ControllerTaskConfig::default());
    let tokens = Tokens::default().publisher(SUBMITTER_TOKEN, "submitter");
    let verifier = keys::verifier(&signing::public_keys(agents, rsa))?;
    let service = ControllerService::new(handle, Arc::new(tokens), verifier, wall, limits());
    let listener = TracedListener {
        listener: TcpListener::bind(("0.0.0.0", PORT)).await?,
        process: process.clone(),
    };
    let http = HttpConfig { date_header: false, ..HttpConfig::default() };
    let never = std::future::pending();
    tokio::select! { biased;
        () = task => {}
        () = http::serve(listener, service, http, never) => {}
        () = audit(record, written, ledger, extension) => {}
    }
    Ok(())
}

/// Looks, once the faults are over and whenever something was written, whether all tasks have come to
/// their end.
async fn audit(record: Shared, vault: Vault, ledger: Ledger, extension: bool) {
    let mut seen = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let tasks = {
            let state = ledger.state();
            state.healed.then(|| state.tasks.clone())
        };
        let Some(tasks) = tasks else { continue };
        let newest = Some((vault.state().written, tasks.len()));
        if std::mem::replace(&mut seen, newest) == newest {
            continue;
        }
        let open = tasks.iter().any(|task| {
            let view = look(&mut **lock(&record), task);
            view.is_none_or(|view| {
                let over = |attempt| is_over(attempt, view.cancelled, extension);
                !view.attempts.iter().all(over)
            })
        });
        ledger.set_idle(Host::Server, !open);
    }
}

/// Whether an attempt has ended, and its output is there or declared lost. Of one that is not wanted
/// any more, and was delivered, the base contract has no way to learn more.
fn is_over(attempt: &AttemptView, cancelled: bool, extension: bool) -> bool {
    if cancelled && !extension && attempt.state < AttemptState::Running {
        return true;
    }
    let last = attempt.result.as_ref().and_then(|result| result.last_output.as_ref());
    attempt.state.has_ended()
        && attempt.streams.iter().all(|stream| {
            let last = last.and_then(|last| last.get(&stream.stream)).copied().unwrap_or(0);
            stream.highest >= last
        })
}

fn look(record: &mut dyn Transact<Command>, task: &str) -> Option<TaskView> {
    let task = TaskId::parse(task).ok()?;
    match record.transact(vec![Command::Look(task)]).ok()?.pop()? {
        Reply::Task(view) => view,
        _ => None,
    }
}

/// Reads what the record holds at the end of a run.
pub(super) async fn inspect(side: Side) -> turmoil::Result {
    let Side { process, ledger, .. } = side;
    process.boot().await;
    let mut record = open(&process, Settings::default())?;
    let tasks = ledger.state().tasks.clone();
    for task in tasks {
        let Some(view) = look(&mut record, &task) else { continue };
        let attempts = view.attempts.iter().map(|attempt| end_of(&mut record, attempt)).collect();
        let cancelled = view.cancelled;
        process.recorder.see_task(TaskSeen::TaskEnd { task, cancelled, attempts });
    }
    Ok(())
}

fn end_of(record: &mut SqliteRecord, view: &AttemptView) -> AttemptEnd {
    let result = view.result.as_ref();
    AttemptEnd {
        attempt: view.attempt.to_string(),
        state: view.state.as_str().to_owned(),
        result: result.map(digest_of),
        exit_code: result.map(|result| result.exit_code),
        error_bytes: result.map_or(0, |result| result.error.len() as u64),
        interrupted: result.is_some_and(|result| result.outcome == Outcome::Interrupted),
        truncated: result
            .map_or([false; 2], |result| [result.output_truncated, result.error_truncated]),
        streams: OutputStream::ALL.map(|stream| stream_end(record, &view.attempt, stream)),
    }
}

fn stream_end(record: &mut SqliteRecord, attempt: &Attempt, stream: OutputStream) -> StreamEnd {
    let (after, count_max) = (0, usize::MAX);
    let command = Command::ReadOutput { attempt: attempt.clone(), stream, after, count_max };
    let page = record.transact(vec![command]).ok().and_then(|mut replies| replies.pop());
    let Some(Reply::Output(page)) = page else { return StreamEnd::default() };
    let pieces = page.pieces.iter().map(|(number, data)| (*number, script::digest(data)));
    StreamEnd {
        pieces: pieces.collect(),
        lost: page.lost.iter().map(|range| (range.from, range.to)).collect(),
        highest: page.highest,
    }
}

/// The record on the simulation's own thread, with the virtual time that a disk would take.
struct InlineRecord {
    record: Shared,
    process: Process,
    commit: Duration,
    vault: Vault,
}

impl Store<Command> for InlineRecord {
    async fn run(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let wanted: Vec<String> = commands.iter().map(describe).collect();
        for command in &commands {
            if let Command::Final { message_id, result, .. } = command {
                let (attempt, message_id) =
                    (result.attempt.to_string(), message_id.as_str().to_owned());
                let digest = digest_of(result);
                self.process.recorder.see_task(TaskSeen::Came { attempt, message_id, digest });
            }
        }
        let about: Vec<Option<Attempt>> = commands.iter().map(attempt_of).collect();
        let work = commands.iter().filter_map(asked_for).collect();
        let writes = commands.iter().any(|command| !command.is_read_only());
        let result = lock(&self.record).transact(commands);
        for (attempt, reply) in about.into_iter().zip(result.iter().flatten()) {
            self.see(attempt, reply);
        }
        if writes {
            self.vault.state().written += 1;
            self.vault.state().unsettled = matches!(result, Err(StoreError::Unknown(_)));
            if let Err(error) = self.vault.back_up_if_due(&self.process, RECORD) {
                let text = format!("the record cannot be copied: {error}");
                self.process.record(Kind::Store, text);
            }
        }
        let outcome = match &result {
            Ok(replies) => replies.iter().map(describe_reply).collect::<Vec<_>>(),
            Err(error) => vec![error.to_string()],
        };
        let text = format!("record: {} = {}", wanted.join(", "), outcome.join(", "));
        self.process.record_fact(Kind::Store, text, Fact::Work(work));
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

impl InlineRecord {
    /// What a reply says of the state of attempts.
    fn see(&self, attempt: Option<Attempt>, reply: &Reply) {
        let see = |attempt: &Attempt, state: &str| {
            let (attempt, state) = (attempt.to_string(), state.to_owned());
            self.process.recorder.see_task(TaskSeen::State { attempt, state });
        };
        match (attempt, reply) {
            (Some(attempt), Reply::State(Some(state))) => see(&attempt, state.as_str()),
            (Some(attempt), Reply::FinalTaken(FinalTaken::Stored)) => see(&attempt, "final"),
            (_, Reply::Reconciled(Reconciled::Agreed(agreement))) => {
                for attempt in &agreement.interrupted {
                    see(attempt, "interrupted");
                }
            }
            _ => {}
        }
    }
}

/// The task about which the submitter wants something.
fn asked_for(command: &Command) -> Option<String> {
    match command {
        Command::Submit(wish) => Some(wish.task.to_string()),
        Command::Retry { task, .. } | Command::Cancel(task) => Some(task.to_string()),
        _ => None,
    }
}

fn attempt_of(command: &Command) -> Option<Attempt> {
    match command {
        Command::Delivering { attempt, .. }
        | Command::Progress { attempt, .. }
        | Command::Absent { attempt, .. } => Some(attempt.clone()),
        Command::Output { piece, .. } => Some(piece.attempt.clone()),
        Command::Final { result, .. } => Some(result.attempt.clone()),
        _ => None,
    }
}

fn describe(command: &Command) -> String {
    match command {
        Command::Submit(wish) => format!("submit {}", wish.task),
        Command::Retry { task, after } => format!("retry {task} after {after}"),
        Command::Cancel(task) => format!("cancel {task}"),
        Command::Look(task) => format!("look at {task}"),
        Command::List(_) => "list the tasks".to_owned(),
        Command::ReadOutput { attempt, stream, after, .. } => {
            format!("read {attempt} {} after {after}", stream.as_str())
        }
        Command::Reconcile { agent, .. } => format!("reconcile {agent}"),
        Command::Confirm { agent, .. } => format!("confirm the life of {agent}"),
        Command::Deliverable { agent, .. } => format!("what is for {agent}?"),
        Command::Delivering { attempt, .. } => format!("delivering {attempt}"),
        Command::Progress { attempt, started: false, .. } => format!("received {attempt}"),
        Command::Progress { attempt, started: true, .. } => format!("started {attempt}"),
        Command::Absent { attempt, .. } => format!("nothing known of {attempt}"),
        Command::Lost { lost, .. } => {
            format!("{} {} {} lost", lost.attempt, lost.stream.as_str(), lost.range)
        }
        Command::Output { piece, .. } => {
            format!("{} {} {}", piece.attempt, piece.stream.as_str(), piece.sequence)
        }
        Command::Final { result, .. } => format!("result of {}", result.attempt),
        Command::UseNonce { agent, .. } => format!("nonce of {agent}"),
    }
}

fn describe_reply(reply: &Reply) -> String {
    match reply {
        Reply::Submitted(Submitted::Stored { attempt, new, .. }) => {
            format!("{attempt}{}", if *new { "" } else { " already" })
        }
        Reply::Submitted(other) => format!("{other:?}"),
        Reply::Cancelled(cancelled) => {
            cancelled.as_ref().map_or("unknown", |it| it.state.as_str()).to_owned()
        }
        Reply::Task(view) => view.as_ref().map_or("unknown", |_| "known").to_owned(),
        Reply::Tasks(page) => format!("{} tasks", page.tasks.len()),
        Reply::Output(page) => format!("{} pieces", page.pieces.len()),
        Reply::Reconciled(Reconciled::Forked) => "forked".to_owned(),
        Reply::Reconciled(Reconciled::Agreed(agreement)) => format!(
            "agreed: {} results, {} discards, {} interrupted, {} to ask about",
            agreement.acknowledged_finals.len(),
            agreement.discarded.len(),
            agreement.interrupted.len(),
            agreement.unnamed.len()
        ),
        Reply::Deliverable(list) => format!("{} attempts", list.len()),
        Reply::State(state) => state.map_or("not its own", AttemptState::as_str).to_owned(),
        Reply::OutputTaken(OutputTaken::Stored { highest, .. }) => format!("up to {highest}"),
        Reply::OutputTaken(other) => format!("{other:?}"),
        Reply::FinalTaken(taken) => format!("{taken:?}"),
        Reply::Nonce(new) => if *new { "new" } else { "used" }.to_owned(),
    }
}
