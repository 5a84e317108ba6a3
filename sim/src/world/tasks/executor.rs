//! Runs commands that do what the plan says.

use std::time::Duration;

use bytes::Bytes;
use gapless::tasks::agent::Exit;
use gapless::tasks::driver::{Execution, Executor, ExecutorEvent};
use gapless::tasks::{Attempt, Outcome, OutputStream};
use tokio::sync::{mpsc, oneshot};

use super::script;
use crate::history::TaskSeen;
use crate::plan::Script;
use crate::trace::Kind;
use crate::world::host::Process;

/// How many pieces of output fit into the pipes of a command.
const PIPE_MAX: usize = 8;

/// How long a command that fails says what went wrong.
const ERROR_WORDS: usize = 300;

/// The commands of one life of an agent.
pub(super) struct ScriptedExecutor {
    pub(super) process: Process,
    pub(super) agent: u32,
}

impl Executor for ScriptedExecutor {
    fn start(&mut self, attempt: &Attempt, command: String) -> Execution {
        let (events, receiver) = mpsc::channel(PIPE_MAX);
        let (kill, killed) = oneshot::channel();
        let process = self.process.clone();
        process.record(Kind::App, format_args!("runs {attempt}"));
        let agent = self.agent;
        process.recorder.see_task(TaskSeen::Ran { agent, attempt: attempt.to_string() });
        let run = run(process.clone(), agent, attempt.clone(), command, events);
        let pause = process.pause;
        tokio::spawn(async move {
            tokio::select! { biased;
                () = pause.apply(run) => {}
                _ = killed => {}
            }
        });
        Execution { events: receiver, kill }
    }
}

async fn run(
    process: Process,
    agent: u32,
    attempt: Attempt,
    command: String,
    events: mpsc::Sender<ExecutorEvent>,
) {
    let Some(does) = script::parse(&command) else {
        let exit = Exit {
            outcome: Outcome::Failed,
            exit_code: 127,
            error: format!("there is no command `{command}`"),
            truncated: vec![],
        };
        // An agent that has ended waits for nothing.
        let _ = events.send(ExecutorEvent::Exited(exit)).await;
        return;
    };
    let Script { stdout, stderr, bytes, every_ms, text, exit } = does;
    let bytes = u64::from(bytes);
    for nth in 0..u64::from(stdout.max(stderr)) {
        let streams = [(OutputStream::Stdout, stdout), (OutputStream::Stderr, stderr)];
        for (stream, _) in streams.into_iter().filter(|(_, times)| nth < u64::from(*times)) {
            let data = script::bytes(&attempt, stream, text, nth * bytes, (nth + 1) * bytes);
            if events.send(ExecutorEvent::Wrote(stream, Bytes::from(data))).await.is_err() {
                return;
            }
        }
        if every_ms > 0 {
            tokio::time::sleep(Duration::from_millis(every_ms)).await;
        }
    }
    let exit_code = i64::from(exit);
    process.record(Kind::App, format_args!("{attempt} ends with code {exit_code}"));
    let wrote = OutputStream::ALL.map(|stream| script::length(&does, stream));
    let error = if exit == 0 { String::new() } else { "it failed ".repeat(ERROR_WORDS) };
    let error_bytes = error.len() as u64;
    let seen =
        TaskSeen::Ended { agent, attempt: attempt.to_string(), exit_code, wrote, error_bytes };
    process.recorder.see_task(seen);
    let outcome = if exit == 0 { Outcome::Completed } else { Outcome::Failed };
    let exit = Exit { outcome, exit_code, error, truncated: vec![] };
    let _ = events.send(ExecutorEvent::Exited(exit)).await;
}
