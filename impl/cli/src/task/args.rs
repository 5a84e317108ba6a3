//! The command line of `gapless task`.

use std::num::NonZeroU64;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use gapless::AgentId;
use gapless::tasks::TaskId;
use gapless::tasks::controller::record::AttemptState;

use crate::args::ServerArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Give an agent a command to run, once. Prints the id of the task.
    Submit(SubmitArgs),
    /// Show what the server knows of a task.
    Show(ShowArgs),
    /// List the tasks, the newest first.
    List(ListArgs),
    /// Print the output of a task as it comes, and end as the task ends.
    Follow(FollowArgs),
    /// Want a task no more. What has begun goes on.
    Cancel(CancelArgs),
    /// Want another attempt at a task whose last one has ended.
    Retry(RetryArgs),
}

impl TaskCommand {
    pub(crate) fn server(&self) -> &ServerArgs {
        match self {
            Self::Submit(args) => &args.server,
            Self::Show(args) => &args.server,
            Self::List(args) => &args.server,
            Self::Follow(args) => &args.server,
            Self::Cancel(args) => &args.server,
            Self::Retry(args) => &args.server,
        }
    }
}

const SUBMIT_HELP: &str = "\
A task has an id, and a server takes an id once: submitting the same task again changes nothing, so it
may be done after any failure. Without `--id`, a random one is drawn and printed.

Examples:
  gapless task submit --agent worker-1 --token-file tasks.token 'make -C /srv/site'
  gapless task submit --agent worker-1 --id nightly-2026-11-29 --priority 10 --follow ./nightly.sh";

#[derive(Debug, Args)]
#[command(after_help = SUBMIT_HELP)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The agent that is to run it.
    #[arg(long, value_parser = AgentId::parse, env = "GAPLESS_AGENT")]
    pub(crate) agent: AgentId,
    /// Names the task: 1 to 96 printable ASCII characters without spaces or `/`.
    #[arg(long, value_name = "TASK", value_parser = TaskId::parse)]
    pub(crate) id: Option<TaskId>,
    /// Higher ones are run first.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "0",
        allow_negative_numbers = true,
        env = "GAPLESS_PRIORITY"
    )]
    pub(crate) priority: i64,
    /// Go on with what `gapless task follow` does.
    #[arg(long)]
    pub(crate) follow: bool,
    /// What the agent's `/bin/sh -c` is to run.
    #[arg(value_name = "COMMAND")]
    pub(crate) command: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gapless task show --token-file tasks.token nightly-2026-11-29
  gapless task show --json nightly-2026-11-29 | jq .attempts[-1].state")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// The id of the task.
    #[arg(value_name = "TASK", value_parser = TaskId::parse)]
    pub(crate) task: TaskId,
}

const LIST_HELP: &str = "\
A task stands where its last attempt does: one that is retried is first again. The columns are the state
of the last attempt, its exit code, the agent, the task, and how its command begins. With `--json`, each
line is a JSON object with the same and more.

Examples:
  gapless task list --token-file tasks.token
  gapless task list --agent worker-1 --state running
  gapless task list --state final --limit 1000 --json | jq 'select(.exit_code != 0) | .task'";

#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Only those of this agent.
    #[arg(long, value_parser = AgentId::parse)]
    pub(crate) agent: Option<AgentId>,
    /// Only those whose last attempt is in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(AttemptState::ALL.map(AttemptState::as_str)))]
    pub(crate) state: Option<String>,
    /// How many at most.
    #[arg(long, value_name = "COUNT", default_value = "50", env = "GAPLESS_LIMIT")]
    pub(crate) limit: NonZeroU64,
    /// Print one JSON object for each.
    #[arg(long)]
    pub(crate) json: bool,
}

const FOLLOW_HELP: &str = "\
The last attempt is followed: what it writes to standard output and standard error comes out there,
each byte once, from its beginning. Output that is lost is told on standard error. It goes on over
restarts of the server and of the agent.

Exit codes: that of the task, if it has one from 0 to 255; 124 if the attempt ended without one
(interrupted, discarded, not started); 125 if it could not be followed; 2 if the command line is wrong.

Examples:
  gapless task follow --token-file tasks.token nightly-2026-11-29";

#[derive(Debug, Args)]
#[command(after_help = FOLLOW_HELP)]
pub(crate) struct FollowArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The id of the task.
    #[arg(value_name = "TASK", value_parser = TaskId::parse)]
    pub(crate) task: TaskId,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gapless task cancel --token-file tasks.token nightly-2026-11-29")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The id of the task.
    #[arg(value_name = "TASK", value_parser = TaskId::parse)]
    pub(crate) task: TaskId,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gapless task retry --token-file tasks.token --follow nightly-2026-11-29")]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Go on with what `gapless task follow` does.
    #[arg(long)]
    pub(crate) follow: bool,
    /// The id of the task.
    #[arg(value_name = "TASK", value_parser = TaskId::parse)]
    pub(crate) task: TaskId,
}
