//! The tasks that there are.

use gapless::tasks::driver::{SubmitFailure, TaskFilter, TaskSummary};

use super::args::ListArgs;
use super::{Server, hinted};
use crate::exit;
use crate::failure::Failure;

/// How many tasks are asked for at once: as many as a server gives.
const PAGE: u64 = 100;

/// How much of a command is shown to a person, in characters.
const COMMAND_CHARS: usize = 60;

pub(super) async fn run(mut server: Server, args: ListArgs) -> Result<u8, Failure> {
    let mut left = args.limit.get();
    let mut filter = TaskFilter { agent: args.agent, state: args.state, ..TaskFilter::default() };
    while left > 0 {
        filter.limit = Some(left.min(PAGE));
        let page = server.list(&filter).await.map_err(failed)?;
        left = left.saturating_sub(page.tasks.len() as u64);
        for task in &page.tasks {
            match args.json {
                true => {
                    let text = serde_json::to_string(task)
                        .map_err(|error| Failure::new(format!("it is no JSON: {error}")))?;
                    println!("{text}");
                }
                false => println!("{}", line(task)),
            }
        }
        match page.next {
            // Downwards, so that it comes to an end whatever the server says.
            Some(next) if filter.before.is_none_or(|before| next < before) => {
                filter.before = Some(next);
            }
            Some(_) | None => break,
        }
    }
    Ok(exit::OK)
}

fn failed(failure: SubmitFailure) -> Failure {
    hinted(format!("the list of tasks: {failure}"), &failure)
}

fn line(task: &TaskSummary) -> String {
    let code = task.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string());
    let cancelled = if task.cancelled { " (cancelled)" } else { "" };
    let shown: String = task
        .command
        .chars()
        .take(COMMAND_CHARS)
        .map(|it| if it.is_control() { ' ' } else { it })
        .collect();
    let more = if task.command.chars().nth(COMMAND_CHARS).is_some() { "…" } else { "" };
    format!(
        "{:<11} {code:>3} {:<16} {:<32}{cancelled} {shown}{more}",
        task.state, task.agent, task.task
    )
}
