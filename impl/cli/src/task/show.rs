//! What the server knows of a task.

use gapless::tasks::TaskId;
use gapless::tasks::driver::{AttemptStatus, StreamStatus, TaskStatus};

use super::{Server, look};
use crate::exit;
use crate::failure::Failure;

pub(super) async fn run(mut server: Server, task: &TaskId, json: bool) -> Result<u8, Failure> {
    let status = look(&mut server, task).await?;
    match json {
        true => {
            let text = serde_json::to_string(&status)
                .map_err(|error| Failure::new(format!("it is no JSON: {error}")))?;
            println!("{text}");
        }
        false => print!("{}", text(task, &status)),
    }
    Ok(exit::OK)
}

fn text(task: &TaskId, status: &TaskStatus) -> String {
    let cancelled = if status.cancelled { ", cancelled" } else { "" };
    let mut text = format!("task {task} of agent {}{cancelled}\n", status.agent);
    match status.command.as_str() {
        "" => text += "command: not known to the server\n",
        command => text += &format!("command: {command}\n"),
    }
    for attempt in &status.attempts {
        text += &line(attempt);
    }
    text
}

fn line(attempt: &AttemptStatus) -> String {
    let mut line = format!("attempt {}: {}", attempt.attempt, attempt.state);
    if let Some(code) = attempt.exit_code {
        line += &format!(", exit code {code}");
    }
    if let Some(error) = &attempt.error {
        line += &format!(", {error}");
    }
    line += &stream("stdout", &attempt.stdout);
    line += &stream("stderr", &attempt.stderr);
    line + "\n"
}

fn stream(name: &str, stream: &StreamStatus) -> String {
    let lost = match stream.lost.is_empty() {
        true => "",
        false => ", some of it lost",
    };
    match stream.highest {
        0 => String::new(),
        highest => format!("; {name}: {highest} pieces{lost}"),
    }
}
