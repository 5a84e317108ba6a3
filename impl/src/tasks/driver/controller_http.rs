//! What a controller is asked over HTTP, and how it answers.
//!
//! Nothing here reads or sends anything: whoever serves says what came, asks the core what
//! [`Route::question`] says, and sends what [`Route::answer`] or [`Route::tasks`] say.

use serde::de::DeserializeOwned;

use super::http_wire::{
    self, ErrorBody, FinalBody, OutputBody, RetryBody, SubmitBody, SubmittedBody, TaskBody,
    TaskListBody, TasksBody,
};
use crate::AgentId;
use crate::recovery::WallTime;
use crate::storage::StoreError;
use crate::tasks::auth::{Refusal, SignedHeaders, Verifier, WINDOW};
use crate::tasks::controller::record::{Command, FinalTaken, Reply, Submission, Submitted};
use crate::tasks::wire::{Deliver, Final};
use crate::tasks::{Attempt, AttemptId, MessageId, OutputStream, TaskId};

/// How many pieces of output one answer has at most.
const PIECES_MAX: usize = 64;

/// An answer, with a JSON body or without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, which is JSON.
    pub body: Option<String>,
    /// After how many seconds the same request may be made again, if it is to be.
    pub retry_after: Option<u64>,
}

impl Answer {
    fn empty(status: u16) -> Self {
        Self { status, body: None, retry_after: None }
    }

    fn json(status: u16, body: &impl serde::Serialize) -> Self {
        let body = serde_json::to_string(body).unwrap_or_default();
        Self { status, body: Some(body), retry_after: None }
    }

    /// Says what is wrong.
    pub fn error(status: u16, error: &str) -> Self {
        Self::json(status, &ErrorBody { error: error.to_owned(), server_time: None })
    }

    /// The outcome may be unknown; the same request may be made again.
    fn unavailable(error: &str) -> Self {
        Self { retry_after: Some(1), ..Self::error(503, error) }
    }
}

// ---- who asks ------------------------------------------------------------------------------------

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// An agent that has signed its request.
    Agent(AgentId),
    /// Somebody with a token that allows tasks: the name of whoever it was given to.
    Submitter(String),
    /// Nobody asked who it is.
    Anybody,
}

/// Who may ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Agents.
    Agents,
    /// Those with a token.
    Submitters,
    /// Anybody.
    All,
}

/// The agent that has signed a request, as far as its headers say; and the question whether its
/// nonce is new, to be asked before any other [TK-14].
///
/// # Errors
///
/// The answer to a request that is refused.
pub fn signed<'a>(
    header: impl Fn(&'static str) -> Option<&'a str>,
    verifier: &dyn Verifier,
    now: WallTime,
) -> Result<(AgentId, Command), Answer> {
    let checked = SignedHeaders::read(header)
        .and_then(|headers| headers.check(verifier, now).map(|()| headers));
    let headers = checked.map_err(|refusal| refused(&refusal, now))?;
    let command = Command::UseNonce {
        agent: headers.agent.clone(),
        nonce: headers.nonce.clone(),
        at: headers.at(),
        forget_before: now.saturating_sub(WINDOW * 2),
    };
    Ok((headers.agent, command))
}

/// Whether a nonce was new.
///
/// # Errors
///
/// The answer to a request that is refused.
pub fn nonce_is_new(reply: Result<Reply, StoreError>, now: WallTime) -> Result<(), Answer> {
    match reply {
        Ok(Reply::Nonce(true)) => Ok(()),
        Ok(_) => Err(refused(&Refusal::Replayed, now)),
        Err(_) => Err(Answer::unavailable("the record cannot be asked")),
    }
}

fn refused(refusal: &Refusal, now: WallTime) -> Answer {
    let server_time = Some(now.as_millis().div_euclid(1_000));
    Answer::json(401, &ErrorBody { error: refusal.to_string(), server_time })
}

// ---- what is asked -------------------------------------------------------------------------------

/// What somebody wants, by method and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The WebSocket of an agent.
    Connect,
    /// What an agent has to do, while its WebSocket is down: its name in the path.
    Tasks(String),
    /// A result, while the WebSocket is down: the task in the path.
    Result(String),
    /// A task is to be done.
    Submit,
    /// What tasks are there?
    List,
    /// What is known of a task?
    Look(String),
    /// A task is not wanted any more.
    Cancel(String),
    /// Another attempt is wanted.
    Retry(String),
    /// The output of a task's attempt.
    Output(String, String, OutputStream),
    /// Whether the controller is there.
    Health,
}

/// What the core is to be asked.
#[derive(Debug)]
pub enum Question {
    /// The record.
    Ask(Command),
    /// To take a result.
    Post {
        /// From whom.
        agent: AgentId,
        /// The name of the message.
        message_id: MessageId,
        /// The result.
        result: Final,
    },
    /// What there is for an agent.
    Poll(AgentId),
}

impl Route {
    /// What a request wants.
    ///
    /// # Errors
    ///
    /// The answer, if there is nothing, or nothing of the kind.
    pub fn of(method: &str, path: &str) -> Result<Self, Answer> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let text = |text: &str| text.to_owned();
        match (method, &parts[..]) {
            ("GET", ["api", "v1", "agents", "ws"]) => Ok(Self::Connect),
            ("GET", ["api", "v1", "agents", agent, "tasks"]) => Ok(Self::Tasks(text(agent))),
            ("PUT", ["api", "v1", "tasks", task]) => Ok(Self::Result(text(task))),
            ("POST", ["v1", "tasks"]) => Ok(Self::Submit),
            ("GET", ["v1", "tasks"]) => Ok(Self::List),
            ("GET", ["v1", "tasks", task]) => Ok(Self::Look(text(task))),
            ("DELETE", ["v1", "tasks", task]) => Ok(Self::Cancel(text(task))),
            ("POST", ["v1", "tasks", task, "attempts"]) => Ok(Self::Retry(text(task))),
            ("GET", ["v1", "tasks", task, "attempts", attempt, "stdout"]) => {
                Ok(Self::Output(text(task), text(attempt), OutputStream::Stdout))
            }
            ("GET", ["v1", "tasks", task, "attempts", attempt, "stderr"]) => {
                Ok(Self::Output(text(task), text(attempt), OutputStream::Stderr))
            }
            ("GET", ["healthz"]) => Ok(Self::Health),
            (
                _,
                ["api", "v1", "agents", "ws"]
                | ["api", "v1", "agents", _, "tasks"]
                | ["api", "v1", "tasks", _]
                | ["v1", "tasks", ..]
                | ["healthz"],
            ) => Err(Answer::error(405, "this path has another method")),
            _ => Err(Answer::error(404, "there is nothing here")),
        }
    }

    /// The path, with names in place of what differs.
    pub fn template(&self) -> &'static str {
        match self {
            Self::Connect => "/api/v1/agents/ws",
            Self::Tasks(_) => "/api/v1/agents/{agent}/tasks",
            Self::Result(_) => "/api/v1/tasks/{task}",
            Self::Submit | Self::List => "/v1/tasks",
            Self::Look(_) | Self::Cancel(_) => "/v1/tasks/{task}",
            Self::Retry(_) => "/v1/tasks/{task}/attempts",
            Self::Output(..) => "/v1/tasks/{task}/attempts/{attempt}/{stream}",
            Self::Health => "/healthz",
        }
    }

    /// Who may ask for it.
    pub fn callers(&self) -> Callers {
        match self {
            Self::Connect | Self::Tasks(_) | Self::Result(_) => Callers::Agents,
            Self::Submit
            | Self::List
            | Self::Look(_)
            | Self::Cancel(_)
            | Self::Retry(_)
            | Self::Output(..) => Callers::Submitters,
            Self::Health => Callers::All,
        }
    }

    /// Whether it comes with a body.
    pub fn has_body(&self) -> bool {
        matches!(self, Self::Result(_) | Self::Submit | Self::Retry(_))
    }

    /// What the core is to be asked.
    ///
    /// # Errors
    ///
    /// The answer, if it need not be asked.
    pub fn question(
        &self,
        caller: Caller,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<Question, Answer> {
        Ok(match (self, caller) {
            (Self::Tasks(asked), Caller::Agent(agent)) => {
                if agent.as_str() != asked {
                    return Err(Answer::error(403, "these are another agent's tasks"));
                }
                Question::Poll(agent)
            }
            (Self::Result(task), Caller::Agent(agent)) => {
                let task = id(task, TaskId::parse)?;
                let (message_id, result) = parsed::<FinalBody>(body)?.result(task);
                Question::Post { agent, message_id, result }
            }
            (Self::Submit, Caller::Submitter(principal)) => {
                let wish: SubmitBody = parsed(body)?;
                if wish.command.is_empty() {
                    return Err(Answer::error(400, "`command` is empty"));
                }
                let agent = id(&wish.agent, AgentId::parse)?;
                let SubmitBody { id: task, command, priority, .. } = wish;
                let submission = Submission { task, principal, agent, command, priority };
                Question::Ask(Command::Submit(submission))
            }
            (Self::List, Caller::Submitter(_)) => {
                let listing = http_wire::listing(query);
                let listing = listing.map_err(|error| Answer::error(400, &error))?;
                Question::Ask(Command::List(listing))
            }
            (Self::Look(task), Caller::Submitter(_)) => {
                Question::Ask(Command::Look(id(task, TaskId::parse)?))
            }
            (Self::Cancel(task), Caller::Submitter(_)) => {
                Question::Ask(Command::Cancel(id(task, TaskId::parse)?))
            }
            (Self::Retry(task), Caller::Submitter(_)) => {
                let task = id(task, TaskId::parse)?;
                let RetryBody { after } = parsed(body)?;
                Question::Ask(Command::Retry { task, after })
            }
            (Self::Output(task, attempt, stream), Caller::Submitter(_)) => {
                let attempt =
                    Attempt { task: id(task, TaskId::parse)?, id: id(attempt, AttemptId::parse)? };
                let after = http_wire::after(query).map_err(|error| Answer::error(400, &error))?;
                let (stream, count_max) = (*stream, PIECES_MAX);
                Question::Ask(Command::ReadOutput { attempt, stream, after, count_max })
            }
            (Self::Health, _) => return Err(Answer::empty(204)),
            (Self::Connect, Caller::Agent(_)) => {
                return Err(Answer::error(426, "this is a WebSocket endpoint"));
            }
            _ => return Err(Answer::error(403, "this is not for whoever asks")),
        })
    }

    /// The answer to [`Question::Ask`] and [`Question::Post`].
    pub fn answer(&self, reply: Result<Reply, StoreError>) -> Answer {
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return Answer::unavailable(&error.to_string()),
        };
        match (self, reply) {
            (Self::Result(_), Reply::FinalTaken(FinalTaken::Stored | FinalTaken::TooLate)) => {
                Answer::empty(204)
            }
            (Self::Result(_), _) => Answer::error(403, "the attempt is another agent's"),
            (_, Reply::Submitted(submitted)) => match submitted {
                Submitted::Stored { attempt, .. } => {
                    Answer::json(201, &SubmittedBody::from(attempt))
                }
                Submitted::Conflict => Answer::error(409, "the id names another task"),
                Submitted::NotEnded => Answer::error(409, "the last attempt has not ended"),
                Submitted::NoCommand => {
                    let error = "the command is not known any more; submit the task again first";
                    Answer::error(409, error)
                }
                Submitted::Unknown => Answer::error(404, "there is no such task"),
            },
            (_, Reply::Cancelled(Some(cancelled))) => {
                let state = cancelled.state.as_str();
                Answer::json(200, &serde_json::json!({ "state": state }))
            }
            (Self::Look(task), Reply::Task(Some(view))) => match TaskId::parse(task) {
                Ok(task) => Answer::json(200, &TaskBody::of(task, view)),
                Err(error) => Answer::error(400, &error.to_string()),
            },
            (_, Reply::Tasks(page)) => Answer::json(200, &TaskListBody::from(page)),
            (_, Reply::Output(page)) => Answer::json(200, &OutputBody::from(page)),
            (Self::Output(..), _) => Answer::error(404, "there is no such attempt"),
            _ => Answer::error(404, "there is no such task"),
        }
    }

    /// The answer to [`Question::Poll`].
    pub fn tasks(result: Result<Vec<Deliver>, StoreError>) -> Answer {
        match result {
            Ok(tasks) => {
                let tasks = tasks.into_iter().map(Into::into).collect();
                Answer::json(200, &TasksBody { tasks })
            }
            Err(error) => Answer::unavailable(&error.to_string()),
        }
    }
}

fn id<T, E: std::fmt::Display>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Answer> {
    parse(text).map_err(|error| Answer::error(400, &error.to_string()))
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Answer> {
    // A list would be taken for the fields in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Answer::error(400, "the body does not begin with `{`"));
    }
    serde_json::from_slice(bytes).map_err(|error| Answer::error(400, &format!("the body: {error}")))
}
