//! What runs commands, and can be told to end them with a result.

use gapless::tasks::agent::Exit;
use gapless::tasks::driver::{Execution, Executor, ExecutorEvent, ProcessExecutor};
use gapless::tasks::{Attempt, Outcome};
use tokio::sync::{mpsc, oneshot, watch};

/// The exit code of a command that is not allowed: that of a shell for what cannot be executed.
const NOT_ALLOWED: i64 = 126;

/// Runs the commands that are allowed, until they are interrupted all at once.
pub(super) struct Supervised {
    pub(super) processes: ProcessExecutor,
    /// Empty: all are.
    pub(super) allowed: Vec<String>,
    /// Becomes true when all that runs is to end.
    pub(super) interrupt: watch::Receiver<bool>,
}

impl Executor for Supervised {
    fn start(&mut self, attempt: &Attempt, command: String) -> Execution {
        let (sender, events) = mpsc::channel(1);
        let (kill, killed) = oneshot::channel();
        if !self.allowed.is_empty() && !self.allowed.contains(&command) {
            tracing::warn!(%attempt, "the command is not allowed");
            let error = "the agent does not allow this command".to_owned();
            let (outcome, exit_code) = (Outcome::Failed, NOT_ALLOWED);
            let exit = Exit { outcome, exit_code, error, truncated: vec![] };
            // The channel is empty and has room.
            let _ = sender.try_send(ExecutorEvent::Exited(exit));
            return Execution { events, kill };
        }
        tracing::info!(%attempt, "begins");
        let execution = self.processes.start(attempt, command);
        tokio::spawn(relay(execution, sender, killed, self.interrupt.clone()));
        Execution { events, kill }
    }
}

/// Passes on what a command does. One that is interrupted ends with that as its result.
async fn relay(
    Execution { events: mut inner, kill }: Execution,
    events: mpsc::Sender<ExecutorEvent>,
    mut killed: oneshot::Receiver<()>,
    mut interrupt: watch::Receiver<bool>,
) {
    let mut kill = Some(kill);
    let mut interrupted = false;
    loop {
        let next = async {
            let room = events.reserve().await;
            (room, inner.recv().await)
        };
        tokio::select! { biased;
            _ = &mut killed, if kill.is_some() => drop(kill.take()),
            Ok(_) = interrupt.wait_for(|now| *now), if kill.is_some() => {
                interrupted = true;
                drop(kill.take());
            }
            (room, event) = next => match (room, event) {
                (Ok(room), Some(event)) => {
                    interrupted &= !matches!(event, ExecutorEvent::Exited(_));
                    room.send(event);
                }
                // Nobody listens any more: it is only waited for.
                (Err(_), Some(_)) => drop(kill.take()),
                (_, None) => break,
            },
        }
    }
    if interrupted {
        let error = "the agent was stopped".to_owned();
        let (outcome, exit_code) = (Outcome::Interrupted, -1);
        let exit = Exit { outcome, exit_code, error, truncated: vec![] };
        // A driver that has ended does not listen.
        let _ = events.send(ExecutorEvent::Exited(exit)).await;
    }
}
