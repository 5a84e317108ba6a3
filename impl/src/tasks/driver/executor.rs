//! What runs commands.

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use crate::tasks::agent::Exit;
use crate::tasks::{Attempt, Outcome, OutputStream};

/// What a command has done.
#[derive(Debug)]
pub enum ExecutorEvent {
    /// It has written something.
    Wrote(OutputStream, Bytes),
    /// It has ended; nothing comes after this.
    Exited(Exit),
}

/// A command that runs.
#[derive(Debug)]
pub struct Execution {
    /// What it does, in order. Who does not take it leaves the rest in the pipe.
    pub events: mpsc::Receiver<ExecutorEvent>,
    /// Ends it, with everything that it has started; dropping this does the same.
    pub kill: oneshot::Sender<()>,
}

/// Runs commands.
pub trait Executor: Send + 'static {
    /// Begins to run the command of an attempt. It is called once for each attempt.
    fn start(&mut self, attempt: &Attempt, command: String) -> Execution;
}

/// How many pieces of output wait in memory for whoever takes them.
const EVENTS_MAX: usize = 8;

/// How much is read from a pipe at once, in bytes.
const READ_BYTES: usize = 8 << 10;

/// Runs commands as processes: `/bin/sh -c COMMAND`, each in a process group of its own.
#[derive(Debug, Clone)]
pub struct ProcessExecutor {
    /// How long a process group has to end before it is killed: 5 s.
    pub kill_after: Duration,
    /// How long a pipe may say nothing after the command has ended. Whatever holds it then was
    /// started by the command, and is not waited for: 1 s.
    pub drain_timeout: Duration,
}

impl Default for ProcessExecutor {
    fn default() -> Self {
        Self { kill_after: Duration::from_secs(5), drain_timeout: Duration::from_secs(1) }
    }
}

impl Executor for ProcessExecutor {
    fn start(&mut self, _attempt: &Attempt, command: String) -> Execution {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let (kill, killed) = oneshot::channel();
        tokio::spawn(run(command, self.clone(), events, killed));
        Execution { events: receiver, kill }
    }
}

async fn run(
    command: String,
    config: ProcessExecutor,
    events: mpsc::Sender<ExecutorEvent>,
    killed: oneshot::Receiver<()>,
) {
    let spawned = Command::new("/bin/sh")
        .arg("-c")
        .arg(&command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let exit = Exit {
                outcome: Outcome::Failed,
                exit_code: -1,
                error: format!("the command could not be started: {error}"),
                truncated: vec![],
            };
            // Nobody waits for it any more when the agent has been dropped.
            let _ = events.send(ExecutorEvent::Exited(exit)).await;
            return;
        }
    };
    let (ended, ending) = watch::channel(false);
    let drain = config.drain_timeout;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let out = read(stdout, OutputStream::Stdout, events.clone(), ending.clone(), drain);
    let err = read(stderr, OutputStream::Stderr, events.clone(), ending, drain);
    let group = child.id();
    let waiting = async {
        let status = child.wait().await;
        // Both readers may be gone already.
        let _ = ended.send(true);
        status
    };
    let finished = async { tokio::join!(out, err, waiting) };
    tokio::select! { biased;
        (out_cut, err_cut, status) = finished => {
            let streams = [(OutputStream::Stdout, out_cut), (OutputStream::Stderr, err_cut)];
            let truncated =
                streams.into_iter().filter(|(_, cut)| *cut).map(|(stream, _)| stream).collect();
            let exit = exit_of(status, truncated);
            let _ = events.send(ExecutorEvent::Exited(exit)).await;
        }
        // The pipes are closed with the futures that read them: a child that writes gets a signal
        // instead of waiting for ever.
        _ = killed => end(&mut child, group, &config).await,
    }
}

/// Asks the process group of a child to end, and ends it if it does not.
async fn end(child: &mut Child, group: Option<u32>, config: &ProcessExecutor) {
    const LOOKS: u32 = 50;
    let group = group.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let Some(group) = group else { return };
    // A group that has ended already needs nothing.
    if kill_process_group(group, Signal::TERM).is_err() {
        return;
    }
    for _ in 0..LOOKS {
        // The child is part of the group until somebody takes its status.
        let _ = child.try_wait();
        if test_kill_process_group(group).is_err() {
            return;
        }
        tokio::time::sleep(config.kill_after / LOOKS).await;
    }
    let _ = kill_process_group(group, Signal::KILL);
}

/// Reads a pipe to its end, and says whether it was left before.
async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    stream: OutputStream,
    events: mpsc::Sender<ExecutorEvent>,
    mut ended: watch::Receiver<bool>,
    drain_timeout: Duration,
) -> bool {
    let Some(mut pipe) = pipe else { return false };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let after_the_end = *ended.borrow_and_update();
        let read = match after_the_end {
            true => match tokio::time::timeout(drain_timeout, pipe.read(&mut buffer)).await {
                Ok(read) => read,
                Err(_) => return true,
            },
            false => tokio::select! { biased;
                read = pipe.read(&mut buffer) => read,
                Ok(()) = ended.changed() => continue,
            },
        };
        let Some(length) = read.ok().filter(|length| *length > 0) else { return false };
        let data = Bytes::copy_from_slice(&buffer[..length]);
        if events.send(ExecutorEvent::Wrote(stream, data)).await.is_err() {
            return false;
        }
    }
}

fn exit_of(
    status: std::io::Result<std::process::ExitStatus>,
    truncated: Vec<OutputStream>,
) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    let (outcome, exit_code, error) = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(0), _) => (Outcome::Completed, 0, String::new()),
            (Some(code), _) => (Outcome::Failed, i64::from(code), String::new()),
            (None, Some(signal)) => {
                let error = format!("the command was ended by signal {signal}");
                (Outcome::Failed, 128 + i64::from(signal), error)
            }
            (None, None) => (Outcome::Failed, -1, "the command ended without a code".to_owned()),
        },
        Err(error) => (Outcome::Failed, -1, format!("the command was lost: {error}")),
    };
    Exit { outcome, exit_code, error, truncated }
}
