//! The adapter of an implementation that runs by itself: a child process, and the lines that it
//! says without having been asked.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek as _, SeekFrom, Write};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::unix::pipe;

use super::super::node::NodeError;
use super::super::process::Launch;
use super::super::protocol::{Effect, Hello, LINE_BYTES_MAX, Live, Reply, Request, VERSION};

/// How long a process may take to end after `stop`.
const STOP_MAX: Duration = Duration::from_secs(2);

/// How often it is looked whether it has.
const STOP_LOOK: Duration = Duration::from_millis(10);

/// How much of what an adapter wrote to its standard error is shown, in bytes.
const STDERR_BYTES_MAX: usize = 4 << 10;

/// How much of a line is shown, in characters.
const SHOWN_MAX: usize = 200;

/// Takes what an implementation does.
pub(super) type Hear = Box<dyn FnMut(Effect) -> Result<(), String> + Send>;

/// An adapter over the lives of its process. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tap(Arc<Mutex<State>>);

struct State {
    launch: Launch,
    /// Where it writes its standard error.
    log: PathBuf,
    running: Option<Running>,
    hear: Hear,
    /// How many events its application has taken, as far as it has said so.
    taken: u64,
    problem: Option<NodeError>,
    /// Whether the implementation has begun to run by itself, in some life.
    began: bool,
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// What was read and is no whole line yet.
    buffer: Vec<u8>,
    /// Answers that nobody has taken yet.
    replies: VecDeque<Reply>,
    asked: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tap {
    pub(super) fn new(launch: Launch, log: PathBuf, hear: Hear) -> Self {
        let (running, taken, problem, began) = (None, 0, None, false);
        Self(Arc::new(Mutex::new(State { launch, log, running, hear, taken, problem, began })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the adapter did wrong, if anything.
    pub(super) fn problem(&self) -> Option<NodeError> {
        self.state().problem.clone()
    }

    /// The adapter did something wrong.
    pub(super) fn fail(&self, error: NodeError) {
        self.state().problem.get_or_insert(error);
    }

    /// Whether the implementation has begun to run by itself.
    pub(super) fn began(&self) -> bool {
        self.state().began
    }

    /// How many events its application has taken.
    pub(super) fn taken(&self) -> u64 {
        self.state().taken
    }

    /// Starts a process and makes its acquaintance.
    pub(super) async fn start(&self, nonce: &str) -> Result<Hello, NodeError> {
        self.state().open()?;
        let ask = Request::Hello { protocol: vec![VERSION], nonce: nonce.to_owned() };
        match self.ask(&ask, "hello").await? {
            Reply::Hello(hello) if hello.protocol != VERSION => Err(NodeError::Misused(format!(
                "it chose version {}, and was offered {VERSION}",
                hello.protocol
            ))),
            Reply::Hello(hello) if hello.nonce != nonce => Err(NodeError::Misused(format!(
                "it said `{}` for the nonce `{nonce}`",
                hello.nonce
            ))),
            Reply::Hello(hello) => Ok(hello),
            _ => Err(NodeError::Misused("its first reply is not `hello`".to_owned())),
        }
    }

    /// Lets the implementation run by itself.
    pub(super) async fn live(&self, live: Live) -> Result<(), NodeError> {
        let n = live.n;
        match self.ask(&Request::Live(Box::new(live)), "live").await? {
            Reply::Done(done) if done.n == n => {
                self.state().began = true;
                Ok(())
            }
            Reply::Unsupported { n: of, what } if of == n => Err(NodeError::Unsupported(what)),
            _ => Err(NodeError::Misused("its reply to `live` is no `done`".to_owned())),
        }
    }

    /// Hears what the process says until it ends, which it does not do by itself.
    pub(super) async fn listen(&self) -> NodeError {
        let ended = async {
            let stdout = self.state().watched()?;
            while self.pull(&stdout) {
                stdout.readable().await.map_err(|error| broken(&error))?;
            }
            Ok::<_, NodeError>(())
        };
        let failed = ended.await.err();
        let mut state = self.state();
        let error = failed.or_else(|| state.problem.clone());
        let error = error.unwrap_or_else(|| state.died("live"));
        state.problem.get_or_insert(error).clone()
    }

    /// Takes what the process has said so far; false once it says nothing more.
    pub(super) fn drain(&self) -> bool {
        self.state().drain()
    }

    /// The same, and lets the pipe be waited for.
    fn pull(&self, stdout: &pipe::Receiver) -> bool {
        self.state().take(|_, chunk| stdout.try_read(chunk))
    }

    /// The process dies at once. What it said before counts.
    pub(super) fn kill(&self) {
        let mut state = self.state();
        if let Some(running) = &mut state.running {
            // One that has ended already cannot be killed.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        state.drain();
        state.running = None;
    }

    /// Asks the process to end, and sees to it that it does.
    pub(super) async fn stop(&self) {
        if let Some(running) = &mut self.state().running {
            // One that has ended already does not take it.
            let _ = running.stdin.write_all(&encode(&Request::Stop));
        }
        let mut left = STOP_MAX;
        while self.drain() && !left.is_zero() {
            tokio::time::sleep(STOP_LOOK).await;
            left = left.saturating_sub(STOP_LOOK);
        }
        self.kill();
    }

    async fn ask(&self, request: &Request, asked: &str) -> Result<Reply, NodeError> {
        let (answer_max, stdout) = {
            let mut state = self.state();
            let stdout = state.watched()?;
            if let Some(running) = &mut state.running {
                running.asked = asked.to_owned();
                let written = running.stdin.write_all(&encode(request));
                if written.is_err() {
                    return Err(state.died(asked));
                }
            }
            (state.launch.answer_max, stdout)
        };
        let answered = async {
            loop {
                let goes_on = self.pull(&stdout);
                {
                    let mut state = self.state();
                    if let Some(problem) = &state.problem {
                        return Err(problem.clone());
                    }
                    if let Some(reply) = state.reply() {
                        return Ok(reply);
                    }
                    if !goes_on {
                        return Err(state.died(asked));
                    }
                }
                stdout.readable().await.map_err(|error| broken(&error))?;
            }
        };
        match tokio::time::timeout(answer_max, answered).await {
            Ok(answered) => answered,
            Err(_) => Err(NodeError::Hung {
                waited_ms: u64::try_from(answer_max.as_millis()).unwrap_or(u64::MAX),
                asked: asked.to_owned(),
                stderr: self.state().stderr(),
            }),
        }
    }
}

impl State {
    fn open(&mut self) -> Result<(), NodeError> {
        let not_started = |error: std::io::Error| {
            NodeError::NotStarted(format!("`{}`: {error}", self.launch.words.join(" ")))
        };
        let Some((program, arguments)) = self.launch.words.split_first() else {
            return Err(NodeError::NotStarted("the command is empty".to_owned()));
        };
        let log = File::options().create(true).append(true).open(&self.log).map_err(not_started)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(not_started)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(NodeError::NotStarted("it has no pipes".to_owned()));
        };
        rustix::io::ioctl_fionbio(&stdout, true).map_err(|error| not_started(error.into()))?;
        let (buffer, replies, asked) = (Vec::new(), VecDeque::new(), String::new());
        self.running = Some(Running { child, stdin, stdout, buffer, replies, asked });
        Ok(())
    }

    /// Its output, to wait for.
    fn watched(&self) -> Result<pipe::Receiver, NodeError> {
        let Some(running) = &self.running else {
            return Err(NodeError::NotStarted("it does not run".to_owned()));
        };
        let stdout = running.stdout.as_fd().try_clone_to_owned();
        stdout.and_then(pipe::Receiver::from_owned_fd).map_err(|error| broken(&error))
    }

    fn reply(&mut self) -> Option<Reply> {
        self.running.as_mut()?.replies.pop_front()
    }

    /// Takes what there is, whether or not anybody has been told that there is something.
    fn drain(&mut self) -> bool {
        self.take(|stdout, chunk| stdout.read(chunk))
    }

    fn take(
        &mut self,
        mut read: impl FnMut(&mut ChildStdout, &mut [u8]) -> std::io::Result<usize>,
    ) -> bool {
        let Some(running) = &mut self.running else { return false };
        let mut chunk = [0; 16 << 10];
        loop {
            let end = match read(&mut running.stdout, &mut chunk) {
                Ok(0) => true,
                Ok(count) => {
                    running.buffer.extend_from_slice(&chunk[..count]);
                    false
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => true,
            };
            if let Err(problem) = running.lines(&mut self.hear, &mut self.taken) {
                self.problem.get_or_insert(problem);
                return false;
            }
            if end {
                return false;
            }
        }
    }

    fn died(&mut self, asked: &str) -> NodeError {
        let status = match self.running.as_mut().map(|running| running.child.wait()) {
            Some(Ok(status)) => status.to_string(),
            Some(Err(error)) => error.to_string(),
            None => "it does not run".to_owned(),
        };
        NodeError::Died { status, asked: asked.to_owned(), stderr: self.stderr() }
    }

    /// The last that it wrote to its standard error.
    fn stderr(&self) -> String {
        let mut end = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(STDERR_BYTES_MAX as u64)))?;
            log.read_to_end(&mut end)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&end).into_owned(),
            Err(error) => format!("(its standard error cannot be read: {error})"),
        }
    }
}

impl Running {
    /// Takes the whole lines that have come.
    fn lines(&mut self, hear: &mut Hear, taken: &mut u64) -> Result<(), NodeError> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let rest = self.buffer.split_off(end + 1);
            let line = std::mem::replace(&mut self.buffer, rest);
            let line = &line[..end];
            let reply = serde_json::from_slice(line).map_err(|error| NodeError::Garbage {
                asked: self.asked.clone(),
                line: shown(line),
                problem: error.to_string(),
            })?;
            match reply {
                Reply::Effect { effect: Effect::Panic { message } } => {
                    return Err(NodeError::Panicked(message));
                }
                Reply::Effect { effect } => {
                    *taken += u64::from(matches!(effect, Effect::AppEvent { failed: false, .. }));
                    hear(effect).map_err(NodeError::Misused)?;
                }
                reply if self.replies.is_empty() => self.replies.push_back(reply),
                _ => return Err(NodeError::Unasked { line: shown(line) }),
            }
        }
        match self.buffer.len() > LINE_BYTES_MAX {
            true => {
                Err(NodeError::Misused(format!("a line is longer than {LINE_BYTES_MAX} bytes")))
            }
            false => Ok(()),
        }
    }
}

fn encode(request: &Request) -> Vec<u8> {
    let mut line = serde_json::to_vec(request).expect("a request is always JSON");
    line.push(b'\n');
    line
}

fn broken(error: &std::io::Error) -> NodeError {
    NodeError::NotStarted(format!("its output cannot be waited for: {error}"))
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().take(SHOWN_MAX).collect()
}
