//! An adapter as a child process: one line out, one line back, within a bound of real time.
//!
//! The pipes are read and written without blocking, so a process that neither reads nor writes, or
//! that writes without end, costs the time limit and no more. Nothing here starts a thread: a
//! request is answered before virtual time goes on.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::node::{Node, NodeError};
use super::protocol::{Done, Hello, LINE_BYTES_MAX, Reply, Request, VERSION};
use crate::real_time::now;

/// How an adapter is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// How long an answer may take, in real time.
    pub answer_max: Duration,
}

/// How long an answer may take by default.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How long a process may take to introduce itself, if an answer may not take longer: it has to be
/// loaded first.
const START_MAX: Duration = Duration::from_secs(30);

/// How much of what an adapter writes to its standard error is kept, in bytes.
const STDERR_BYTES_MAX: usize = 4 << 10;

/// How much of it is read before something else is looked at, in pieces.
const STDERR_PIECES_MAX: usize = 64;

/// How long a process may take to end after `stop`, or after it has closed its output.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Between two looks at whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How much of a line is shown, in characters.
const SHOWN_MAX: usize = 200;

/// A running adapter that has introduced itself.
#[derive(Debug)]
pub struct Process {
    pipes: Pipes,
    hello: Hello,
}

/// A child and the lines that go to and fro.
#[derive(Debug)]
struct Pipes {
    launch: Launch,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// `None` after its end.
    stderr: Option<ChildStderr>,
    /// What was read and is no whole line yet, or was not asked for.
    buffer: Vec<u8>,
    /// The end of what it wrote to its standard error.
    log: VecDeque<u8>,
}

impl Process {
    /// Starts an adapter and makes its acquaintance.
    ///
    /// # Errors
    ///
    /// [`NodeError`] if the program cannot be started or does not introduce itself.
    pub fn start(launch: &Launch, nonce: &str) -> Result<Self, NodeError> {
        let mut pipes = Pipes::open(launch)?;
        let ask = Request::Hello { protocol: vec![VERSION], nonce: nonce.to_owned() };
        match pipes.ask(&ask, launch.answer_max.max(START_MAX))? {
            Reply::Hello(hello) if hello.protocol != VERSION => Err(NodeError::Misused(format!(
                "it chose version {}, and was offered {VERSION}",
                hello.protocol
            ))),
            Reply::Hello(hello) if hello.nonce != nonce => Err(NodeError::Misused(format!(
                "it said `{}` for the nonce `{nonce}`: its first line was not an answer",
                hello.nonce
            ))),
            Reply::Hello(hello) => Ok(Self { pipes, hello }),
            _ => Err(NodeError::Misused("its first reply is not `hello`".to_owned())),
        }
    }

    /// Asks the adapter to end, and sees to it that it does.
    ///
    /// # Errors
    ///
    /// [`NodeError::Unasked`] if it had said more than it was asked, [`NodeError::Misused`] if it does
    /// not end, or not with status 0.
    pub fn stop(self) -> Result<(), NodeError> {
        self.pipes.stop()
    }
}

impl Pipes {
    fn open(launch: &Launch) -> Result<Self, NodeError> {
        let not_started = |error: std::io::Error| {
            let words = launch.words.join(" ");
            NodeError::NotStarted(format!("`{words}`: {error}"))
        };
        let Some((program, arguments)) = launch.words.split_first() else {
            return Err(NodeError::NotStarted("the command is empty".to_owned()));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // So that what the program has started ends with it.
            .process_group(0)
            .spawn()
            .map_err(not_started)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(NodeError::NotStarted("it has no pipes".to_owned()));
        };
        for pipe in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
            rustix::io::ioctl_fionbio(pipe, true).map_err(|error| not_started(error.into()))?;
        }
        Ok(Self {
            launch: launch.clone(),
            child,
            stdin: Some(stdin),
            stdout,
            stderr: Some(stderr),
            buffer: Vec::new(),
            log: VecDeque::new(),
        })
    }

    fn stop(mut self) -> Result<(), NodeError> {
        let line = encode(&Request::Stop);
        // One that has ended already does not take it.
        let _ = self.write_all(&line, &Request::Stop);
        self.stdin = None;
        let status = self.ended(STOP_MAX);
        let _ = self.read_some();
        if !self.buffer.is_empty() {
            return Err(NodeError::Unasked { line: shown(&self.buffer) });
        }
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(NodeError::Misused(format!("after `stop` it ended with {status}"))),
            None => {
                Err(NodeError::Misused(format!("it did not end within {STOP_MAX:?} of `stop`")))
            }
        }
    }

    /// How it has ended, if it does in time; what it writes meanwhile is read.
    fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = now() + within;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if now() >= deadline {
                return None;
            }
            let _ = self.read_some();
            // Pipes that are closed already are always ready, so it is not them that is waited for.
            let _ = poll(&mut [], Timespec::try_from(LOOK_EVERY).ok().as_ref());
        }
    }

    /// Writes a request and reads the one line that answers it.
    fn ask(&mut self, request: &Request, within: Duration) -> Result<Reply, NodeError> {
        self.read_some().map_err(|()| self.died(request))?;
        if !self.buffer.is_empty() {
            return Err(NodeError::Unasked { line: shown(&self.buffer) });
        }
        let line = encode(request);
        if line.len() > LINE_BYTES_MAX {
            return Err(NodeError::Misused(format!(
                "`{}` has {} bytes: its storage is too large",
                asked_for(request),
                line.len()
            )));
        }
        let deadline = now() + within;
        self.write_all(&line, request)?;
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                let line = &line[..end];
                if line.len() > LINE_BYTES_MAX {
                    return Err(too_long());
                }
                // What is there already tells on the request that it belongs to, not on the next.
                let _ = self.read_some();
                if !self.buffer.is_empty() {
                    return Err(NodeError::Unasked { line: shown(&self.buffer) });
                }
                return serde_json::from_slice(line).map_err(|error| NodeError::Garbage {
                    asked: asked_for(request),
                    line: shown(line),
                    problem: error.to_string(),
                });
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(too_long());
            }
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return Err(self.hung(request, within));
            }
            self.wait(false, left).map_err(|()| self.died(request))?;
            self.read_some().map_err(|()| self.died(request))?;
        }
    }

    /// Writes a line, and reads meanwhile, so that neither side waits for the other.
    fn write_all(&mut self, line: &[u8], request: &Request) -> Result<(), NodeError> {
        let deadline = now() + self.launch.answer_max;
        let mut written = 0;
        while written < line.len() {
            let Some(stdin) = &mut self.stdin else { return Err(self.died(request)) };
            match stdin.write(&line[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.buffer.len() > LINE_BYTES_MAX {
                        return Err(too_long());
                    }
                    let left = deadline.saturating_duration_since(now());
                    if left.is_zero() {
                        return Err(self.hung(request, self.launch.answer_max));
                    }
                    self.wait(true, left).map_err(|()| self.died(request))?;
                    self.read_some().map_err(|()| self.died(request))?;
                }
                Err(_) => return Err(self.died(request)),
            }
        }
        Ok(())
    }

    /// Waits until a pipe has something, or takes something.
    fn wait(&self, writing: bool, time: Duration) -> Result<(), ()> {
        let mut pipes = vec![PollFd::new(&self.stdout, PollFlags::IN)];
        if let Some(stderr) = &self.stderr {
            pipes.push(PollFd::new(stderr, PollFlags::IN));
        }
        if let Some(stdin) = self.stdin.as_ref().filter(|_| writing) {
            pipes.push(PollFd::new(stdin, PollFlags::OUT));
        }
        let time = Timespec::try_from(time).map_err(|_| ())?;
        match poll(&mut pipes, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(_) => Err(()),
        }
    }

    /// Reads what there is, up to a little more than a line may have; fails at the end of the output.
    fn read_some(&mut self) -> Result<(), ()> {
        let mut chunk = [0; 16 << 10];
        for _ in 0..STDERR_PIECES_MAX {
            let Some(stderr) = &mut self.stderr else { break };
            match stderr.read(&mut chunk) {
                Ok(0) => self.stderr = None,
                Ok(count) => {
                    self.log.extend(&chunk[..count]);
                    let surplus = self.log.len().saturating_sub(STDERR_BYTES_MAX);
                    self.log.drain(..surplus);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        while self.buffer.len() <= LINE_BYTES_MAX {
            match self.stdout.read(&mut chunk) {
                // A line that came with the end is still read.
                Ok(0) if self.buffer.contains(&b'\n') => return Ok(()),
                Ok(0) => return Err(()),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(()),
            }
        }
        Ok(())
    }

    fn stderr(&self) -> String {
        let bytes: Vec<u8> = self.log.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn died(&mut self, request: &Request) -> NodeError {
        // It closed its output; how it ended is known a little later, and what it wrote of that too.
        let status = self.ended(STOP_MAX);
        let _ = self.read_some();
        let mut status = status.map_or("it closed its output".to_owned(), |it| it.to_string());
        if !self.buffer.is_empty() {
            status += &format!(", in the middle of the line `{}`", shown(&self.buffer));
        }
        NodeError::Died { status, asked: asked_for(request), stderr: self.stderr() }
    }

    fn hung(&self, request: &Request, waited: Duration) -> NodeError {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        NodeError::Hung { waited_ms, asked: asked_for(request), stderr: self.stderr() }
    }
}

impl Node for Process {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn exchange(&mut self, request: &Request) -> Result<Reply, NodeError> {
        let reply = self.pipes.ask(request, self.pipes.launch.answer_max)?;
        let said = match &reply {
            Reply::Hello(_) => {
                return Err(NodeError::Misused("it introduced itself twice".to_owned()));
            }
            Reply::Effect { .. } => {
                let line = "an effect, as only those say that run by themselves".to_owned();
                return Err(NodeError::Unasked { line });
            }
            Reply::Unsupported { n, .. } | Reply::Done(Done { n, .. }) => *n,
        };
        match request.n() {
            Some(asked) if said == asked => Ok(reply),
            Some(asked) if said < asked => Err(NodeError::Unasked {
                line: format!(
                    "a reply with `n` of an earlier request than `{}`",
                    asked_for(request)
                ),
            }),
            _ => Err(NodeError::Misused(format!(
                "it replied to `{}` with the `n` of another request",
                asked_for(request)
            ))),
        }
    }
}

impl Drop for Pipes {
    /// No adapter outlives the program, nor does what it has started.
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn too_long() -> NodeError {
    NodeError::Misused(format!("it wrote a line of more than {LINE_BYTES_MAX} bytes"))
}

fn encode(request: &Request) -> Vec<u8> {
    let mut line = serde_json::to_vec(request).expect("a request is always JSON");
    line.push(b'\n');
    line
}

/// What kind of a request it is, for a message. Its number is left out: it depends on how many
/// cases the process has played before.
fn asked_for(request: &Request) -> String {
    match request {
        Request::Hello { .. } => "hello".to_owned(),
        Request::Reset(reset) => format!("reset of {} at {} ms", reset.host, reset.now),
        Request::Deliver { at, event, .. } => {
            let kind = serde_json::to_value(event).ok().and_then(|value| {
                value.get("type").and_then(|kind| kind.as_str().map(str::to_owned))
            });
            format!("deliver {} at {at} ms", kind.unwrap_or_default())
        }
        Request::Advance { until, .. } => format!("advance to {until} ms"),
        Request::Load { .. } => "load".to_owned(),
        Request::Settle { .. } => "settle".to_owned(),
        Request::Live(_) => "live".to_owned(),
        Request::Stop => "stop".to_owned(),
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(SHOWN_MAX) {
        None => line.to_owned(),
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}
