//! A foreign controller in the place of the controller's host.
//!
//! What its record holds is what it answers to those who have given it tasks: `GET /v1/tasks/…`, as
//! `docs/spec/tasks.md` has it. Whoever does not say up to which number the output of a result goes,
//! or whether some of it is lost, is not asked for more than it says.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gapless::tasks::OutputStream;
use serde::Deserialize;

use super::agent_node::Shelf;
use super::controller::{LOOK_EVERY, OPEN_RETRY, RECORD, Side};
use super::{Ledger, SUBMITTER_TOKEN, script, signing};
use crate::conform::{Config, Effect, Event, StoreProblem, TasksControllerConfig};
use crate::history::{AttemptEnd, StreamEnd, TaskSeen};
use crate::plan::Host;
use crate::trace::Kind;
use crate::world::host::Process;
use crate::world::node::{Attached, Entrance, Inquirer, Outside, Part, Storage, drive, keeps};
use crate::world::record::Recorder;

/// One life of a foreign controller; or a look into its record at the end of a run.
pub(super) async fn serve(
    side: Side,
    attached: Attached,
    case: String,
    inspecting: bool,
) -> turmoil::Result {
    let Side { process, options, vault, ledger, agents, rsa, extension } = side;
    process.boot().await;
    let storage = match keeps(&attached) {
        true => {
            // Opening the database takes what is in the files for true.
            vault.state().unsettled = false;
            vault.back_up_if_due(&process, RECORD)?;
            if vault.replace_if_due(&process, RECORD)?.is_some() {
                gapless::mark!("world.record_replaced");
                process.recorder.see_task(TaskSeen::RecordReplaced);
            }
            Some(open(&process).await)
        }
        false => None,
    };
    let part = ControllerPart {
        shelf: storage.clone().map(|storage| Shelf {
            storage,
            process: process.clone(),
            vault: vault.clone(),
        }),
        recorder: process.recorder.clone(),
        ledger,
        extension,
        inspecting,
    };
    let entrance = Entrance {
        seat: 0,
        case,
        config: Config::TasksController(TasksControllerConfig {
            agents: signing::public_keys(agents, rsa),
            submitter_token: SUBMITTER_TOKEN.to_owned(),
            extension: options.extension,
            silence_ms: options.silence_ms,
            redelivery_ms: options.redelivery_ms,
            deliveries_max: options.deliveries,
        }),
        connector: None,
        storage,
        vault,
        commit: Duration::from_millis(options.commit_ms),
        attached,
        process,
    };
    drive(entrance, part).await
}

async fn open(process: &Process) -> Storage {
    loop {
        match Storage::open(process, RECORD, "") {
            Ok(storage) => return storage,
            Err(problem) => {
                process.powered().await;
                process.record(Kind::Store, format_args!("the record cannot be opened: {problem}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    }
}

/// What is seen of a foreign controller.
struct ControllerPart {
    shelf: Option<Shelf>,
    recorder: Recorder,
    ledger: Ledger,
    extension: bool,
    inspecting: bool,
}

impl Part for ControllerPart {
    fn begin(&mut self, outside: &Outside) -> Event {
        let clerk = Clerk { inquirer: Inquirer::new(outside, SUBMITTER_TOKEN) };
        let (ledger, recorder) = (self.ledger.clone(), self.recorder.clone());
        match self.inspecting {
            true => tokio::spawn(inspect(clerk, ledger, recorder)),
            false => tokio::spawn(audit(clerk, ledger, self.extension)),
        };
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

    fn effect(&mut self, effect: Effect, _: &Outside) -> Result<(), String> {
        match effect {
            Effect::RecordState { attempt, state } => {
                self.recorder.see_task(TaskSeen::State { attempt, state });
                Ok(())
            }
            other => Err(format!("no controller does {other:?}")),
        }
    }
}

/// Looks, once the faults are over, whether all tasks have come to their end.
async fn audit(mut clerk: Clerk, ledger: Ledger, extension: bool) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let tasks = {
            let state = ledger.state();
            state.healed.then(|| state.tasks.clone())
        };
        let Some(tasks) = tasks else { continue };
        let mut over = true;
        for task in tasks {
            over = clerk.task(&task).await.is_some_and(|view| view.is_over(extension));
            if !over {
                break;
            }
        }
        ledger.set_idle(Host::Server, over);
    }
}

/// Reads what the record holds at the end of a run.
async fn inspect(mut clerk: Clerk, ledger: Ledger, recorder: Recorder) {
    let tasks = ledger.state().tasks.clone();
    for task in tasks {
        let Some(view) = clerk.task(&task).await else { continue };
        let mut attempts = Vec::new();
        for attempt in &view.attempts {
            attempts.push(clerk.end_of(&task, attempt).await);
        }
        recorder.see_task(TaskSeen::TaskEnd { task, cancelled: view.cancelled, attempts });
    }
}

// ---- what it answers -----------------------------------------------------------------------------

/// The answer to `GET /v1/tasks/{task}`.
#[derive(Deserialize)]
struct TaskView {
    #[serde(default)]
    cancelled: bool,
    attempts: Vec<AttemptView>,
}

#[derive(Deserialize)]
struct AttemptView {
    attempt: String,
    state: String,
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    exit_code: Option<i64>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    stdout: StreamView,
    #[serde(default)]
    stderr: StreamView,
}

#[derive(Default, Deserialize)]
struct StreamView {
    #[serde(default)]
    highest: u64,
    /// The highest number that the result names.
    #[serde(default)]
    last: Option<u64>,
    #[serde(default)]
    truncated: Option<bool>,
}

impl TaskView {
    /// Whether all attempts have ended, and their output is there or declared lost. Of one that is
    /// not wanted any more, and was delivered, the base contract has no way to learn more.
    fn is_over(&self, extension: bool) -> bool {
        self.attempts.iter().all(|attempt| {
            let state = attempt.state.as_str();
            if self.cancelled && !extension && matches!(state, "pending" | "delivered" | "received")
            {
                return true;
            }
            matches!(state, "discarded" | "interrupted" | "final")
                && [&attempt.stdout, &attempt.stderr]
                    .iter()
                    .all(|stream| stream.highest >= stream.last.unwrap_or(0))
        })
    }
}

/// A page of the answer to `GET /v1/tasks/{task}/attempts/{attempt}/{stream}`.
#[derive(Deserialize)]
struct OutputPage {
    pieces: Vec<Piece>,
    #[serde(default)]
    lost: Vec<Range>,
    highest: u64,
}

#[derive(Deserialize)]
struct Piece {
    sequence: u64,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    data_b64: Option<String>,
}

#[derive(Deserialize)]
struct Range {
    from: u64,
    to: u64,
}

impl Piece {
    fn digest(&self) -> u64 {
        match (&self.data, &self.data_b64) {
            (_, Some(b64)) => script::digest(&STANDARD.decode(b64).unwrap_or_default()),
            (Some(text), None) => script::digest(text.as_bytes()),
            (None, None) => script::digest(b""),
        }
    }
}

/// Asks for what those may know who have given tasks.
struct Clerk {
    inquirer: Inquirer,
}

impl Clerk {
    async fn get<T: serde::de::DeserializeOwned>(&mut self, target: String) -> Option<T> {
        match self.inquirer.get(target).await? {
            (200, body) => serde_json::from_str(&body).ok(),
            _ => None,
        }
    }

    async fn task(&mut self, task: &str) -> Option<TaskView> {
        self.get(format!("/v1/tasks/{task}")).await
    }

    async fn end_of(&mut self, task: &str, view: &AttemptView) -> AttemptEnd {
        let (id, state) = (&view.attempt, view.state.clone());
        let result = view.exit_code.map(|exit_code| {
            let AttemptView { outcome, error, .. } = view;
            script::digest(format!("{task}/{id} {outcome:?} {exit_code} {error}").as_bytes())
        });
        AttemptEnd {
            attempt: format!("{task}/{id}"),
            result,
            exit_code: view.exit_code,
            error_bytes: view.error.len() as u64,
            interrupted: view.outcome.as_deref() == Some("interrupted"),
            truncated: [&view.stdout, &view.stderr]
                .map(|stream| result.is_some() && stream.truncated.unwrap_or(true)),
            streams: [
                self.stream(task, id, OutputStream::Stdout).await,
                self.stream(task, id, OutputStream::Stderr).await,
            ],
            state,
        }
    }

    async fn stream(&mut self, task: &str, attempt: &str, stream: OutputStream) -> StreamEnd {
        let mut end = StreamEnd::default();
        let mut after = 0;
        loop {
            let stream = stream.as_str();
            let target = format!("/v1/tasks/{task}/attempts/{attempt}/{stream}?after={after}");
            let Some(page) = self.get::<OutputPage>(target).await else { return end };
            end.highest = page.highest;
            if after == 0 {
                end.lost = page.lost.iter().map(|range| (range.from, range.to)).collect();
            }
            // Who says the same again has nothing more.
            let Some(last) = page.pieces.last().map(|it| it.sequence).filter(|it| *it > after)
            else {
                return end;
            };
            end.pieces.extend(page.pieces.iter().map(|piece| (piece.sequence, piece.digest())));
            after = last;
        }
    }
}
