//! The bodies of HTTP requests and their answers.

use serde::{Deserialize, Serialize};

use crate::AgentId;
use crate::recovery::MAX_SEQUENCE;
use crate::tasks::controller::record::{
    AttemptState, AttemptView, Listing, OutputPage, TaskPage, TaskView,
};
use crate::tasks::wire::{Deliver, Final, RawFinal, whole};
use crate::tasks::{Attempt, AttemptId, MessageId, Outcome, OutputStream, Range, TaskId};

/// `POST /v1/tasks`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SubmitBody {
    pub(super) id: TaskId,
    pub(super) agent: String,
    pub(super) command: String,
    #[serde(default)]
    pub(super) priority: i64,
}

/// `POST /v1/tasks/{task}/attempts`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RetryBody {
    #[serde(deserialize_with = "whole")]
    pub(super) after: u64,
}

/// The answer to both.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SubmittedBody {
    pub(super) task: TaskId,
    pub(super) attempt: AttemptId,
}

impl From<Attempt> for SubmittedBody {
    fn from(attempt: Attempt) -> Self {
        Self { task: attempt.task, attempt: attempt.id }
    }
}

/// `PUT /api/v1/tasks/{task}`.
#[derive(Serialize, Deserialize)]
pub(super) struct FinalBody {
    pub(super) message_id: MessageId,
    pub(super) execution_attempt_id: AttemptId,
    #[serde(flatten)]
    result: RawFinal,
}

impl FinalBody {
    pub(super) fn of(message_id: MessageId, result: &Final) -> Self {
        let execution_attempt_id = result.attempt.id.clone();
        Self { message_id, execution_attempt_id, result: RawFinal::of_result(result, true) }
    }

    pub(super) fn result(self, task: TaskId) -> (MessageId, Final) {
        let attempt = Attempt { task, id: self.execution_attempt_id };
        (self.message_id, self.result.of(attempt))
    }
}

/// `GET /api/v1/agents/{agent}/tasks`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct TasksBody {
    pub(super) tasks: Vec<DeliverBody>,
}

/// A task in it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeliverBody {
    task_id: TaskId,
    execution_attempt_id: AttemptId,
    command: String,
    #[serde(default)]
    priority: i64,
}

impl From<Deliver> for DeliverBody {
    fn from(deliver: Deliver) -> Self {
        Self {
            task_id: deliver.attempt.task,
            execution_attempt_id: deliver.attempt.id,
            command: deliver.command,
            priority: deliver.priority,
        }
    }
}

impl From<DeliverBody> for Deliver {
    fn from(body: DeliverBody) -> Self {
        Self {
            attempt: Attempt { task: body.task_id, id: body.execution_attempt_id },
            command: body.command,
            priority: body.priority,
        }
    }
}

/// An error, and the controller's time for an agent whose clock is wrong.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default)]
    pub(super) error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server_time: Option<i64>,
}

/// `GET /v1/tasks/{task}`.
#[derive(Debug, Serialize)]
pub(super) struct TaskBody {
    task: TaskId,
    agent: AgentName,
    command: String,
    cancelled: bool,
    attempts: Vec<AttemptBody>,
}

type AgentName = String;

#[derive(Debug, Serialize)]
struct AttemptBody {
    attempt: AttemptId,
    ordinal: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    stdout: StreamBody,
    stderr: StreamBody,
}

#[derive(Debug, Default, Serialize)]
struct StreamBody {
    highest: u64,
    lost: Vec<Range>,
    /// The highest number that the result names.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
    /// Whether the result says that some of it is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
}

/// `GET /v1/tasks`.
#[derive(Debug, Serialize)]
pub(super) struct TaskListBody {
    tasks: Vec<TaskSummaryBody>,
    /// For `before` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

#[derive(Debug, Serialize)]
struct TaskSummaryBody {
    task: TaskId,
    agent: AgentName,
    command: String,
    priority: i64,
    cancelled: bool,
    attempt: AttemptId,
    ordinal: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
}

impl From<TaskPage> for TaskListBody {
    fn from(page: TaskPage) -> Self {
        let tasks = page.tasks.into_iter().map(|it| TaskSummaryBody {
            task: it.attempt.task,
            agent: AgentId::as_str(&it.agent).to_owned(),
            command: it.command,
            priority: it.priority,
            cancelled: it.cancelled,
            attempt: it.attempt.id,
            ordinal: it.ordinal,
            state: it.state.as_str(),
            outcome: it.outcome,
            exit_code: it.exit_code,
        });
        Self { tasks: tasks.collect(), next: page.next }
    }
}

/// How many tasks a page has if nothing is said.
const TASKS_DEFAULT: usize = 50;

/// How many tasks a page has at most.
pub(super) const TASKS_MAX: usize = 100;

/// How many attempts are looked at for a page.
const ATTEMPTS_LOOKED_AT_MAX: usize = 2_000;

/// What a query wants of a list.
pub(super) fn listing(query: Option<&str>) -> Result<Listing, String> {
    let value = |name| query.and_then(|query| crate::net::http::query(query, name));
    let agent = value("agent").map(|it| AgentId::parse(&it)).transpose();
    let state = value("state").map(|it| {
        AttemptState::parse(&it).ok_or_else(|| {
            let names = AttemptState::ALL.map(AttemptState::as_str).join("`, `");
            format!("`state` must be one of `{names}`")
        })
    });
    let number = |name, max: u64| {
        let number = value(name).map(|text| text.parse().ok().filter(|it| (1..=max).contains(it)));
        number.map(|it| it.ok_or_else(|| format!("`{name}` must be an integer from 1 to {max}")))
    };
    let limit = number("limit", TASKS_MAX as u64).transpose()?;
    Ok(Listing {
        agent: agent.map_err(|error| format!("`agent`: {error}"))?,
        state: state.transpose()?,
        before: number("before", MAX_SEQUENCE).transpose()?,
        count_max: limit.map_or(TASKS_DEFAULT, |limit| limit as usize),
        look_max: ATTEMPTS_LOOKED_AT_MAX,
    })
}

impl TaskBody {
    pub(super) fn of(task: TaskId, view: TaskView) -> Self {
        Self {
            task,
            agent: AgentId::as_str(&view.agent).to_owned(),
            command: view.command,
            cancelled: view.cancelled,
            attempts: view.attempts.into_iter().map(AttemptBody::of).collect(),
        }
    }
}

impl AttemptBody {
    fn of(view: AttemptView) -> Self {
        let result = view.result.as_ref();
        let last = result.and_then(|result| result.last_output.as_ref());
        let truncated = |stream| {
            result.map(|result| match stream {
                OutputStream::Stdout => result.output_truncated,
                OutputStream::Stderr => result.error_truncated,
            })
        };
        let streams: Vec<StreamBody> = view
            .streams
            .into_iter()
            .map(|it| StreamBody {
                highest: it.highest,
                lost: it.lost,
                last: last.and_then(|last| last.get(&it.stream)).copied(),
                truncated: truncated(it.stream),
            })
            .collect();
        let mut streams = streams.into_iter();
        Self {
            attempt: view.attempt.id,
            ordinal: view.ordinal,
            state: view.state.as_str(),
            outcome: view.outcome,
            exit_code: view.result.as_ref().map(|result| result.exit_code),
            error: view.result.map(|result| result.error).filter(|error| !error.is_empty()),
            stdout: streams.next().unwrap_or_default(),
            stderr: streams.next().unwrap_or_default(),
        }
    }
}

/// A page of output ends with the piece with which it has this many bytes.
const PAGE_BYTES: usize = 1 << 20;

/// `GET /v1/tasks/{task}/attempts/{attempt}/{stream}`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OutputBody {
    pieces: Vec<PieceBody>,
    lost: Vec<Range>,
    highest: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct PieceBody {
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_b64: Option<String>,
}

impl OutputBody {
    /// What it says, or why it says nothing.
    pub(super) fn page(self) -> Result<super::submitter::OutputPage, String> {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        let piece = |it: PieceBody| match (it.data, it.data_b64) {
            (Some(text), None) => Ok((it.sequence, bytes::Bytes::from(text))),
            (None, Some(text)) => match base64.decode(text) {
                Ok(bytes) => Ok((it.sequence, bytes.into())),
                Err(error) => Err(format!("piece {} is no base64: {error}", it.sequence)),
            },
            _ => Err(format!("piece {} has not exactly one of its two forms", it.sequence)),
        };
        let pieces = self.pieces.into_iter().map(piece).collect::<Result<_, _>>()?;
        let (lost, highest) = (self.lost, self.highest);
        Ok(super::submitter::OutputPage { pieces, lost, highest })
    }
}

impl From<OutputPage> for OutputBody {
    fn from(page: OutputPage) -> Self {
        use base64::Engine as _;
        let piece = |(sequence, data): (u64, bytes::Bytes)| match std::str::from_utf8(&data) {
            Ok(text) => PieceBody { sequence, data: Some(text.to_owned()), data_b64: None },
            Err(_) => {
                let text = base64::engine::general_purpose::STANDARD.encode(&data);
                PieceBody { sequence, data: None, data_b64: Some(text) }
            }
        };
        let mut bytes = 0;
        let fitting = page.pieces.into_iter().take_while(|(_, data)| {
            let fits = bytes < PAGE_BYTES;
            bytes += data.len();
            fits
        });
        let pieces = fitting.map(piece).collect();
        Self { pieces, lost: page.lost, highest: page.highest }
    }
}

/// The number after which output is wanted, in a query.
pub(super) fn after(query: Option<&str>) -> Result<u64, String> {
    let text = query.and_then(|query| crate::net::http::query(query, "after"));
    let Some(text) = text else { return Ok(0) };
    let number = text.parse::<u64>().ok().filter(|it| *it <= MAX_SEQUENCE);
    number.ok_or_else(|| format!("`after` must be an integer from 0 to {MAX_SEQUENCE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_output_ends_where_it_is_large_and_has_at_least_one_piece() {
        let large = bytes::Bytes::from(vec![b'x'; PAGE_BYTES + 1]);
        let small = bytes::Bytes::from_static(b"\xff");
        let body = |pieces| OutputBody::from(OutputPage { pieces, lost: vec![], highest: 9 });
        let numbers = |body: OutputBody| -> Vec<u64> {
            let page = body.page().expect("a page");
            page.pieces.iter().map(|(sequence, _)| *sequence).collect()
        };
        assert_eq!(numbers(body(vec![(1, large.clone()), (2, small.clone())])), [1]);
        assert_eq!(numbers(body(vec![(1, small), (2, large.clone()), (3, large)])), [1, 2]);
    }
}
