//! The other side of a controller: who wants tasks done.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::http_wire::{ErrorBody, OutputBody, RetryBody, SubmitBody, SubmittedBody};
use crate::AgentId;
use crate::net::{Connector, RequestError, Requester};
use crate::recovery::{Backoff, BackoffConfig, Entropy};
use crate::tasks::{Attempt, AttemptId, Outcome, OutputStream, Range, TaskId};

/// The limits of a [`Submitter`].
#[derive(Debug, Clone)]
pub struct SubmitterConfig {
    /// How long connecting, and then an answer, may take: 10 s.
    pub timeout: Duration,
    /// How often a request is made before its outcome is reported as unknown: 10.
    pub attempts_max: u32,
    /// The pauses between requests: 200 ms to 10 s.
    pub retry: BackoffConfig,
}

impl Default for SubmitterConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            attempts_max: 10,
            retry: BackoffConfig {
                min: Duration::from_millis(200),
                max: Duration::from_secs(10),
                jitter_percent: 25,
            },
        }
    }
}

/// A wish for a task to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Names the wish: the same wish may be made again.
    pub task: TaskId,
    /// Who is to do it.
    pub agent: AgentId,
    /// What to run. Not empty.
    pub command: String,
    /// For the order: higher first.
    pub priority: i64,
}

/// A request came to nothing, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitFailure {
    /// The controller refuses it, now and later.
    #[error("refused with status {status}: {error}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the controller says.
        error: String,
    },
    /// It never left.
    #[error("the controller was not reached: {0}")]
    NotSent(String),
    /// Nobody knows whether it was carried out. It may be made again.
    #[error("it is not known whether it was carried out: {0}")]
    Unknown(String),
}

/// What a controller knows of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The agent that is to do it.
    pub agent: String,
    /// What is to be run; empty if only the agent knows.
    pub command: String,
    /// Whether it is not wanted any more.
    pub cancelled: bool,
    /// The attempts, oldest first.
    pub attempts: Vec<AttemptStatus>,
}

/// Which tasks are to be listed. The newest come first, by their last attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only those of this agent.
    pub agent: Option<AgentId>,
    /// Only those whose last attempt is in this state, as in [`TaskSummary::state`].
    pub state: Option<String>,
    /// How many are on a page: 1 to 100; 50 if it is not said.
    pub limit: Option<u64>,
    /// Only those after [`TaskPage::next`] of the page before.
    pub before: Option<u64>,
}

impl TaskFilter {
    fn query(&self) -> String {
        let Self { agent, state, limit, before } = self;
        let values = [
            ("agent", agent.as_ref().map(ToString::to_string)),
            ("state", state.clone()),
            ("limit", limit.map(|it| it.to_string())),
            ("before", before.map(|it| it.to_string())),
        ];
        let pair = |(name, value): (_, Option<String>)| {
            value.map(|value| format!("{name}={}", crate::net::http::escape(&value)))
        };
        values.into_iter().filter_map(pair).collect::<Vec<_>>().join("&")
    }
}

/// A page of a list of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPage {
    /// The newest first. There may be none although a page follows.
    pub tasks: Vec<TaskSummary>,
    /// For [`TaskFilter::before`] of the next page; absent on the last one.
    pub next: Option<u64>,
}

/// A task in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSummary {
    /// Its id.
    pub task: TaskId,
    /// The agent that is to do it.
    pub agent: String,
    /// How what is to be run begins, 256 characters at most; empty if only the agent knows.
    pub command: String,
    /// For the order: higher first.
    pub priority: i64,
    /// Whether it is not wanted any more.
    pub cancelled: bool,
    /// The last attempt.
    pub attempt: AttemptId,
    /// Counts the attempts of the task; for [`Submitter::retry`].
    pub ordinal: u64,
    /// That of the last attempt, as in [`AttemptStatus::state`].
    pub state: String,
    /// How the last attempt ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The exit code, if the last attempt has a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
}

/// What a controller knows of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptStatus {
    /// Its id.
    pub attempt: AttemptId,
    /// Counts the attempts of the task; for [`Submitter::retry`].
    pub ordinal: u64,
    /// `pending`, `delivered`, `received`, `running`, `discarded`, `interrupted` or `final`.
    pub state: String,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
    /// The exit code, if the attempt has a result.
    pub exit_code: Option<i64>,
    /// What went wrong, if the result says so.
    pub error: Option<String>,
    /// How far its standard output is.
    pub stdout: StreamStatus,
    /// How far its standard error is.
    pub stderr: StreamStatus,
}

impl AttemptStatus {
    /// Whether nothing more is to come but output.
    pub fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "discarded" | "interrupted" | "final")
    }

    /// How far a stream is.
    pub fn stream(&self, stream: OutputStream) -> &StreamStatus {
        match stream {
            OutputStream::Stdout => &self.stdout,
            OutputStream::Stderr => &self.stderr,
        }
    }
}

/// What a controller knows of a stream of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Everything up to this number is there or lost.
    pub highest: u64,
    /// What is lost.
    pub lost: Vec<Range>,
    /// The highest number that the result names.
    pub last: Option<u64>,
    /// Whether the result says that some of it is lost.
    pub truncated: Option<bool>,
}

/// A page of the output of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPage {
    /// The numbers and their bytes, ascending.
    pub pieces: Vec<(u64, Bytes)>,
    /// What is lost of the stream.
    pub lost: Vec<Range>,
    /// Everything up to this number is there or lost.
    pub highest: u64,
}

/// Gives a controller tasks. All requests may be repeated, so each is made until it is answered.
pub struct Submitter<N> {
    connector: N,
    host: String,
    token: String,
    config: SubmitterConfig,
    entropy: Box<dyn Entropy>,
    requester: Requester,
}

impl<N: Connector> Submitter<N> {
    /// A submitter that connects when it has something to ask.
    pub fn new(
        connector: N,
        host: impl Into<String>,
        token: impl Into<String>,
        config: SubmitterConfig,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        let (host, token) = (host.into(), token.into());
        let requester = Requester::new(config.timeout);
        Self { connector, host, token, config, entropy, requester }
    }

    /// Wants a task to be done; the first attempt at it.
    ///
    /// # Errors
    ///
    /// [`SubmitFailure`] says whether it may be done nevertheless.
    pub async fn submit(&mut self, wish: &Wish) -> Result<Attempt, SubmitFailure> {
        let body = SubmitBody {
            id: wish.task.clone(),
            agent: wish.agent.to_string(),
            command: wish.command.clone(),
            priority: wish.priority,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let done: SubmittedBody = self.ask(Method::POST, "/v1/tasks", body.into()).await?;
        Ok(Attempt { task: done.task, id: done.attempt })
    }

    /// Wants another attempt at a task after the one with this ordinal, which has to have ended.
    ///
    /// # Errors
    ///
    /// [`SubmitFailure`].
    pub async fn retry(&mut self, task: &TaskId, after: u64) -> Result<Attempt, SubmitFailure> {
        let body = serde_json::to_vec(&RetryBody { after }).unwrap_or_default();
        let path = format!("/v1/tasks/{task}/attempts");
        let done: SubmittedBody = self.ask(Method::POST, &path, body.into()).await?;
        Ok(Attempt { task: done.task, id: done.attempt })
    }

    /// Wants a task no more; the state of its last attempt. What has begun goes on.
    ///
    /// # Errors
    ///
    /// [`SubmitFailure`].
    pub async fn cancel(&mut self, task: &TaskId) -> Result<String, SubmitFailure> {
        #[derive(Deserialize)]
        struct Cancelled {
            state: String,
        }
        let path = format!("/v1/tasks/{task}");
        let done: Cancelled = self.ask(Method::DELETE, &path, Bytes::new()).await?;
        Ok(done.state)
    }

    /// What is known of a task?
    ///
    /// # Errors
    ///
    /// [`SubmitFailure`].
    pub async fn look(&mut self, task: &TaskId) -> Result<TaskStatus, SubmitFailure> {
        self.ask(Method::GET, &format!("/v1/tasks/{task}"), Bytes::new()).await
    }

    /// A page of the tasks that there are.
    ///
    /// # Errors
    ///
    /// [`SubmitFailure`].
    pub async fn list(&mut self, filter: &TaskFilter) -> Result<TaskPage, SubmitFailure> {
        self.ask(Method::GET, &format!("/v1/tasks?{}", filter.query()), Bytes::new()).await
    }

    /// A page of what an attempt wrote, after a number; 0 = from the start.
    ///
    /// # Errors
    ///
    /// [`SubmitFailure`].
    pub async fn output(
        &mut self,
        attempt: &Attempt,
        stream: OutputStream,
        after: u64,
    ) -> Result<OutputPage, SubmitFailure> {
        let Attempt { task, id } = attempt;
        let stream = stream.as_str();
        let path = format!("/v1/tasks/{task}/attempts/{id}/{stream}?after={after}");
        let body: OutputBody = self.ask(Method::GET, &path, Bytes::new()).await?;
        body.page().map_err(SubmitFailure::Unknown)
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, SubmitFailure> {
        let mut backoff = Backoff::new(self.config.retry);
        let mut perhaps = false;
        for attempt in 1.. {
            let request = Request::builder()
                .method(method.clone())
                .uri(path)
                .header(HOST, &self.host)
                .header(AUTHORIZATION, format!("Bearer {}", self.token))
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body.clone()));
            let request = request.map_err(|error| SubmitFailure::NotSent(error.to_string()))?;
            let problem = match self.requester.send(&self.connector, request).await {
                Ok((status, body)) if status.is_success() => {
                    return serde_json::from_slice(&body).map_err(|error| {
                        SubmitFailure::Unknown(format!("the answer is not readable: {error}"))
                    });
                }
                Ok((status, body)) => {
                    let said: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
                    if !(status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS) {
                        let (status, error) = (status.as_u16(), said.error);
                        return Err(SubmitFailure::Refused { status, error });
                    }
                    perhaps = true;
                    format!("status {status}: {}", said.error)
                }
                Err(RequestError::NotSent(problem)) => problem,
                Err(RequestError::Unknown(problem)) => {
                    perhaps = true;
                    problem
                }
            };
            if attempt >= self.config.attempts_max {
                return Err(match perhaps {
                    true => SubmitFailure::Unknown(problem),
                    false => SubmitFailure::NotSent(problem),
                });
            }
            tokio::time::sleep(backoff.next_delay(&mut *self.entropy)).await;
        }
        unreachable!("attempts are counted without end")
    }
}
