//! `gapless task`: tasks for agents, by way of a server.

pub(crate) mod args;
mod follow;
mod list;
mod show;

use gapless::recovery::random_hex_128;
use gapless::tasks::TaskId;
use gapless::tasks::driver::{SubmitFailure, Submitter, SubmitterConfig, TaskStatus, Wish};

use self::args::{RetryArgs, SubmitArgs, TaskCommand};
use self::follow::Follower;
use crate::args::ServerArgs;
use crate::failure::Failure;
use crate::secret::Secret;
use crate::tls::ServerConnector;
use crate::{entropy, exit};

type Server = Submitter<ServerConnector>;

pub(crate) async fn run(command: TaskCommand, token: Secret) -> Result<u8, Failure> {
    let server = connect(command.server(), &token)?;
    match command {
        TaskCommand::Submit(args) => submit(server, args).await,
        TaskCommand::Show(args) => show::run(server, &args.task, args.json).await,
        TaskCommand::List(args) => list::run(server, args).await,
        TaskCommand::Follow(args) => Follower::new(server, args.task).run().await,
        TaskCommand::Cancel(args) => cancel(server, &args.task).await,
        TaskCommand::Retry(args) => retry(server, args).await,
    }
}

fn connect(args: &ServerArgs, token: &Secret) -> Result<Server, Failure> {
    let connector = ServerConnector::new(&args.url, args.tls_ca.as_deref())?;
    let config = SubmitterConfig::default();
    Ok(Submitter::new(connector, args.url.authority(), token.reveal(), config, entropy()?))
}

async fn submit(mut server: Server, args: SubmitArgs) -> Result<u8, Failure> {
    let task = match args.id {
        Some(task) => task,
        None => TaskId::parse(&random_hex_128(&mut *entropy()?))
            .map_err(|error| Failure::new(error.to_string()))?,
    };
    let SubmitArgs { agent, command, priority, .. } = args;
    let wish = Wish { task: task.clone(), agent, command, priority };
    server.submit(&wish).await.map_err(|failure| match &failure {
        SubmitFailure::Unknown(_) | SubmitFailure::NotSent(_) => {
            Failure::new(format!("the task `{task}` is not submitted, as far as known: {failure}"))
                .hint(format!("submit it again with `--id {task}`; it is run once"))
        }
        SubmitFailure::Refused { .. } => failed(&task, failure),
    })?;
    match args.follow {
        true => {
            eprintln!("task {task}");
            Follower::new(server, task).run().await
        }
        false => {
            println!("{task}");
            Ok(exit::OK)
        }
    }
}

async fn cancel(mut server: Server, task: &TaskId) -> Result<u8, Failure> {
    let state = server.cancel(task).await.map_err(|failure| failed(task, failure))?;
    println!("{state}");
    match state.as_str() {
        "running" => eprintln!("the last attempt has begun, and goes on"),
        "final" | "interrupted" => eprintln!("the last attempt has ended already"),
        _ => {}
    }
    Ok(exit::OK)
}

async fn retry(mut server: Server, args: RetryArgs) -> Result<u8, Failure> {
    let task = args.task;
    let status = look(&mut server, &task).await?;
    let last = status.attempts.last().map_or(0, |attempt| attempt.ordinal);
    let attempt = server.retry(&task, last).await.map_err(|failure| failed(&task, failure))?;
    match args.follow {
        true => Follower::new(server, task).run().await,
        false => {
            println!("{}", attempt.id);
            Ok(exit::OK)
        }
    }
}

async fn look(server: &mut Server, task: &TaskId) -> Result<TaskStatus, Failure> {
    server.look(task).await.map_err(|failure| failed(task, failure))
}

/// What a person can do about it.
fn failed(task: &TaskId, failure: SubmitFailure) -> Failure {
    hinted(format!("the task `{task}`: {failure}"), &failure)
}

fn hinted(problem: String, failure: &SubmitFailure) -> Failure {
    match failure {
        SubmitFailure::Refused { status: 401, .. } => Failure::refused(problem)
            .hint("check the token, and that the server's token file has its hash"),
        SubmitFailure::Refused { status: 403, .. } => {
            Failure::refused(problem).hint("the token needs the role `tasks`")
        }
        SubmitFailure::Refused { status: 404, .. } => {
            Failure::new(problem).hint("check the id, and that `--url` names the right server")
        }
        SubmitFailure::Refused { status: 409, .. } => Failure::new(problem)
            .hint("`gapless task show` says what there is; another task needs another id"),
        SubmitFailure::Refused { .. } => Failure::new(problem),
        SubmitFailure::NotSent(_) | SubmitFailure::Unknown(_) => {
            Failure::new(problem).hint("is the server there? the same may be asked again")
        }
    }
}
