//! The host of those who want tasks done.

use std::io;
use std::time::Duration;

use gapless::net::Connector;
use gapless::recovery::BackoffConfig;
use gapless::tasks::TaskId;
use gapless::tasks::driver::{SubmitFailure, Submitter, SubmitterConfig, Wish};
use tokio::sync::mpsc;
use turmoil::net::TcpStream;

use super::{CONTROLLER, Ledger, SUBMITTER_TOKEN, agent_id, script};
use crate::history::TaskSeen;
use crate::plan::{Action, Submit};
use crate::seed::Seed;
use crate::trace::{Fact, Kind};
use crate::world::link::PORT;
use crate::world::record::Recorder;

/// A step of the workload: its number in the plan, and what is wanted.
pub(super) type Job = (usize, Action);

/// The name of the host.
pub(super) const HOST: &str = "submitter";

struct ControllerConnector;

impl Connector for ControllerConnector {
    type Stream = TcpStream;

    fn connect(&self) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static {
        TcpStream::connect((CONTROLLER, PORT))
    }
}

/// Works off the jobs, each in a task of its own.
pub(super) async fn work(
    mut jobs: mpsc::UnboundedReceiver<Job>,
    recorder: Recorder,
    ledger: Ledger,
    seed: Seed,
) -> turmoil::Result {
    while let Some((number, action)) = jobs.recv().await {
        let (recorder, ledger) = (recorder.clone(), ledger.clone());
        tokio::spawn(async move {
            let config = SubmitterConfig {
                timeout: Duration::from_secs(4),
                attempts_max: 12,
                retry: BackoffConfig {
                    min: Duration::from_millis(200),
                    max: Duration::from_secs(4),
                    jitter_percent: 25,
                },
            };
            let entropy = Box::new(seed.stream("submitter", HOST, number as u64));
            let submitter =
                Submitter::new(ControllerConnector, CONTROLLER, SUBMITTER_TOKEN, config, entropy);
            let mut desk = Desk { submitter, recorder, ledger };
            match action {
                Action::Submit(submit) => desk.submit(submit).await,
                Action::Cancel { task } => desk.cancel(&task).await,
                Action::Retry { task } => desk.retry(&task).await,
                _ => {}
            }
            desk.recorder.worker_ended();
        });
    }
    std::future::pending().await
}

struct Desk {
    submitter: Submitter<ControllerConnector>,
    recorder: Recorder,
    ledger: Ledger,
}

fn task_id(name: &str) -> TaskId {
    TaskId::parse(name).expect("the plan was checked")
}

impl Desk {
    fn report(&self, task: &str, text: String) {
        let fact = Fact::Work(vec![task.to_owned()]);
        self.recorder.record(HOST, 1, Kind::App, text, Some(fact));
    }

    async fn submit(&mut self, submit: Submit) {
        for nth in 1..=submit.count {
            let (task, agent) = (submit.task(nth), submit.agent);
            let wish = Wish {
                task: task_id(&task),
                agent: agent_id(agent),
                command: script::command(&submit.script),
                priority: submit.priority,
            };
            self.recorder.see_task(TaskSeen::Submitting { agent, task: task.clone() });
            let first = self.submitter.submit(&wish).await;
            let accepted = first.is_ok();
            self.submitted(&task, first);
            if submit.twice && accepted {
                let again = self.submitter.submit(&wish).await;
                self.submitted(&task, again);
            }
            if submit.every_ms > 0 {
                tokio::time::sleep(Duration::from_millis(submit.every_ms)).await;
            }
        }
    }

    fn submitted(&self, task: &str, result: Result<gapless::tasks::Attempt, SubmitFailure>) {
        let name = task.to_owned();
        let (text, seen) = match result {
            Ok(attempt) => {
                self.ledger.state().tasks.insert(name.clone());
                let attempt = attempt.to_string();
                let text = format!("submitted {task} as {attempt}");
                (text, TaskSeen::Submitted { task: name, attempt })
            }
            Err(problem @ SubmitFailure::Unknown(_)) => (
                format!("does not know about {task}: {problem}"),
                TaskSeen::SubmitUnknown { task: name },
            ),
            Err(problem) => {
                (format!("did not submit {task}: {problem}"), TaskSeen::NotSubmitted { task: name })
            }
        };
        self.report(task, text);
        self.recorder.see_task(seen);
    }

    async fn cancel(&mut self, task: &str) {
        match self.submitter.cancel(&task_id(task)).await {
            Ok(state) => {
                self.report(task, format!("cancelled {task}: {state}"));
                let task = task.to_owned();
                self.recorder.see_task(TaskSeen::Cancelled { task, state });
            }
            Err(problem) => self.report(task, format!("did not cancel {task}: {problem}")),
        }
    }

    async fn retry(&mut self, task: &str) {
        let id = task_id(task);
        let last = match self.submitter.look(&id).await {
            Ok(status) => status.attempts.last().map(|attempt| attempt.ordinal),
            Err(_) => None,
        };
        let Some(last) = last else { return self.report(task, format!("cannot retry {task}")) };
        match self.submitter.retry(&id, last).await {
            Ok(attempt) => self.report(task, format!("retries {task} as {attempt}")),
            Err(problem) => self.report(task, format!("did not retry {task}: {problem}")),
        }
    }
}
