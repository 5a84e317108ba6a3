//! `gapless task follow`: what an attempt writes, each byte once, and how it ends.

use std::io::{self, Write as _};
use std::time::Duration;

use gapless::tasks::driver::{AttemptStatus, SubmitFailure};
use gapless::tasks::{Attempt, Outcome, OutputStream, TaskId};
use tokio::time::Instant;

use super::{Server, failed};
use crate::exit;
use crate::failure::Failure;

/// How long to wait before the server is asked again.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long output may be behind the result that names it.
const LATE_OUTPUT: Duration = Duration::from_secs(60);

/// Follows the attempt at a task that is the last one at the beginning.
pub(super) struct Follower {
    server: Server,
    task: TaskId,
    stdout: Position,
    stderr: Position,
}

/// Everything up to this number is written, or told to be lost.
#[derive(Default)]
struct Position(u64);

/// What is told of a stream.
#[derive(Debug, PartialEq)]
enum Step<'a> {
    Write(&'a [u8]),
    Lost { from: u64, to: u64 },
}

impl Position {
    /// What follows from a page that was asked for after this position; `end` is everything that is
    /// there or lost, if the page has all that is there.
    fn advance<'a>(&mut self, pieces: &'a [(u64, impl AsRef<[u8]>)], end: u64) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        for (sequence, data) in pieces {
            // A number that was written is never written again, whatever a server says.
            if *sequence <= self.0 {
                continue;
            }
            self.skip_to(sequence - 1, &mut steps);
            steps.push(Step::Write(data.as_ref()));
            self.0 = *sequence;
        }
        if pieces.is_empty() {
            self.skip_to(end, &mut steps);
        }
        steps
    }

    fn skip_to(&mut self, end: u64, steps: &mut Vec<Step<'_>>) {
        if end > self.0 {
            steps.push(Step::Lost { from: self.0 + 1, to: end });
            self.0 = end;
        }
    }
}

impl Follower {
    pub(super) fn new(server: Server, task: TaskId) -> Self {
        Self { server, task, stdout: Position::default(), stderr: Position::default() }
    }

    /// Follows to the end. Its own failures have a code that is not taken for the task's.
    pub(super) async fn run(mut self) -> Result<u8, Failure> {
        self.follow().await.map_err(|failure| failure.code(exit::NOT_FOLLOWED))
    }

    async fn follow(&mut self) -> Result<u8, Failure> {
        let mut followed = None;
        let mut late = None;
        loop {
            let Some(status) = self.look().await? else { continue };
            let found = match &followed {
                None => status.attempts.last(),
                Some(id) => status.attempts.iter().find(|attempt| attempt.attempt == *id),
            };
            let Some(attempt) = found else {
                return Err(Failure::new(format!("the task `{}` has no attempt", self.task)));
            };
            followed = Some(attempt.attempt.clone());
            self.read(attempt, OutputStream::Stdout).await?;
            self.read(attempt, OutputStream::Stderr).await?;
            if attempt.has_ended() {
                let missing = self.missing(attempt);
                let since = *late.get_or_insert_with(Instant::now);
                if missing.is_empty() || since.elapsed() >= LATE_OUTPUT {
                    for text in missing {
                        eprintln!("{text}");
                    }
                    return Ok(end(attempt));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// `None` if it is to be tried again.
    async fn look(&mut self) -> Result<Option<gapless::tasks::driver::TaskStatus>, Failure> {
        let looked = self.server.look(&self.task).await;
        self.answered(looked)
    }

    fn answered<T>(&self, answer: Result<T, SubmitFailure>) -> Result<Option<T>, Failure> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(refused @ SubmitFailure::Refused { .. }) => Err(failed(&self.task, refused)),
            Err(failure @ (SubmitFailure::NotSent(_) | SubmitFailure::Unknown(_))) => {
                tracing::warn!(%failure, "the server does not answer; it is asked again");
                Ok(None)
            }
        }
    }

    /// Writes what there is of a stream.
    async fn read(&mut self, status: &AttemptStatus, stream: OutputStream) -> Result<(), Failure> {
        let attempt = Attempt { task: self.task.clone(), id: status.attempt.clone() };
        loop {
            let position = match stream {
                OutputStream::Stdout => self.stdout.0,
                OutputStream::Stderr => self.stderr.0,
            };
            let page = self.server.output(&attempt, stream, position).await;
            let Some(page) = self.answered(page)? else { continue };
            let position = match stream {
                OutputStream::Stdout => &mut self.stdout,
                OutputStream::Stderr => &mut self.stderr,
            };
            for step in position.advance(&page.pieces, page.highest) {
                tell(stream, &step)?;
            }
            if page.pieces.is_empty() {
                return Ok(());
            }
        }
    }

    /// What the result names of output that is not here.
    fn missing(&self, attempt: &AttemptStatus) -> Vec<String> {
        let streams =
            [(OutputStream::Stdout, self.stdout.0), (OutputStream::Stderr, self.stderr.0)];
        let missing = streams.into_iter().filter_map(|(stream, position)| {
            let last = attempt.stream(stream).last.filter(|last| *last > position)?;
            let name = stream.as_str();
            Some(format!("{name}: pieces {} to {last} have not come", position + 1))
        });
        missing.collect()
    }
}

fn tell(stream: OutputStream, step: &Step<'_>) -> Result<(), Failure> {
    let written = match (step, stream) {
        (Step::Write(bytes), OutputStream::Stdout) => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        }
        (Step::Write(bytes), OutputStream::Stderr) => io::stderr().lock().write_all(bytes),
        (Step::Lost { from, to }, stream) => {
            let name = stream.as_str();
            writeln!(io::stderr().lock(), "{name}: pieces {from} to {to} are lost")
        }
    };
    written.map_err(|error| Failure::new(format!("the output cannot be written: {error}")))
}

/// The exit code; what is not in it is told.
fn end(attempt: &AttemptStatus) -> u8 {
    for stream in OutputStream::ALL {
        if attempt.stream(stream).truncated == Some(true) {
            eprintln!("{}: some of it is lost, the agent says", stream.as_str());
        }
    }
    if let Some(error) = &attempt.error {
        eprintln!("attempt {}: {error}", attempt.attempt);
    }
    code(attempt).unwrap_or_else(|| {
        eprintln!("attempt {} ended without an exit code: {}", attempt.attempt, attempt.state);
        exit::NO_CODE
    })
}

fn code(attempt: &AttemptStatus) -> Option<u8> {
    match attempt.outcome {
        Some(Outcome::Completed | Outcome::Failed) => u8::try_from(attempt.exit_code?).ok(),
        Some(Outcome::Interrupted) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_written_once_and_each_hole_is_told_once() {
        let mut position = Position::default();
        let steps = position.advance(&[(1, "a"), (4, "d")], 4);
        let lost = |from, to| Step::Lost { from, to };
        assert_eq!(steps, [Step::Write(b"a"), lost(2, 3), Step::Write(b"d")]);
        // A page that is not full says nothing of what comes after it.
        assert_eq!(position.advance(&[(4, "d"), (5, "e")], 9), [Step::Write(b"e")]);
        let nothing: [(u64, &str); 0] = [];
        assert_eq!(position.advance(&nothing, 9), [lost(6, 9)]);
        assert_eq!(position.advance(&nothing, 9), []);
    }
}
