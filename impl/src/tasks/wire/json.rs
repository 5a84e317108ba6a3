//! The frames as JSON: total parsing, and writing for either contract.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{
    Ack, AgentMessage, ControllerMessage, Deliver, Discarded, EARLIER_LIVES_MAX, EXTENSION,
    Envelope, ErrorFrame, Final, FrameError, Hello, HelloAck, LostOutput, Output, PROTOCOL_VERSION,
    ReceivedAttempt, ReplayFrom, RunningAttempt, SpoolStatus, StoreLife, UnackedOutput,
};
use crate::AgentId;
use crate::recovery::{Epoch, MAX_SEQUENCE, Range, WallTime};
use crate::tasks::{Attempt, AttemptId, MessageId, Outcome, OutputStream, TaskId};

// ---- reading -----------------------------------------------------------------------------------

/// The envelope as it travels.
#[derive(Deserialize)]
struct RawEnvelope<'a> {
    protocol_version: u64,
    message_id: MessageId,
    #[serde(rename = "type")]
    kind: String,
    agent_id: String,
    #[serde(default)]
    task_id: Option<TaskId>,
    #[serde(default)]
    execution_attempt_id: Option<AttemptId>,
    #[serde(default)]
    sequence: Option<Whole>,
    sent_at: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// As much of a broken envelope as is needed to answer it.
#[derive(Deserialize)]
struct Named {
    message_id: MessageId,
}

/// A whole number, also written as `4.0`.
#[derive(Debug, Clone, Copy)]
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let whole = number.as_u64().or_else(|| {
            let number = number.as_f64().filter(|it| it.fract() == 0.0 && *it >= 0.0)?;
            // Above 2^53 a float does not say which number it is.
            (number <= MAX_SEQUENCE as f64).then_some(number as u64)
        });
        whole.filter(|it| *it <= MAX_SEQUENCE).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{number} is no whole number from 0 to {MAX_SEQUENCE}"
            ))
        })
    }
}

/// A sequence, or 0.
pub(in crate::tasks) fn whole<'de, D: Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    Whole::deserialize(value).map(|it| it.0)
}

fn whole_or_none<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    Option::<Whole>::deserialize(value).map(|it| it.map(|it| it.0))
}

impl RawEnvelope<'_> {
    fn attempt(&self) -> Result<Attempt, FrameError> {
        match (&self.task_id, &self.execution_attempt_id) {
            (Some(task), Some(id)) => Ok(Attempt { task: task.clone(), id: id.clone() }),
            (None, _) => Err(FrameError::new(format!("`{}` without `task_id`", self.kind))),
            (_, None) => {
                Err(FrameError::new(format!("`{}` without `execution_attempt_id`", self.kind)))
            }
        }
    }

    fn optional_attempt(&self) -> Option<Attempt> {
        self.attempt().ok()
    }

    fn payload<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        // A list would be taken for the fields in their order.
        if !self.payload.get().starts_with('{') {
            return Err(FrameError::new("`payload` is not an object"));
        }
        serde_json::from_str(self.payload.get())
            .map_err(|error| FrameError::new(format!("`payload` of `{}`: {error}", self.kind)))
    }
}

fn parse<M>(
    text: &str,
    message: impl FnOnce(&RawEnvelope<'_>) -> Result<M, FrameError>,
) -> Result<Envelope<M>, FrameError> {
    // A list would be taken for the fields in their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(FrameError::new("the frame is not a JSON object"));
    }
    let read = || -> Result<Envelope<M>, FrameError> {
        let raw: RawEnvelope<'_> =
            serde_json::from_str(text).map_err(|error| FrameError::new(error.to_string()))?;
        if raw.protocol_version != PROTOCOL_VERSION {
            let problem = format!(
                "`protocol_version` is {}, and {PROTOCOL_VERSION} is understood",
                raw.protocol_version
            );
            return Err(FrameError::new(problem));
        }
        if raw.sent_at.is_empty() {
            return Err(FrameError::new("`sent_at` is empty"));
        }
        let agent = AgentId::parse(&raw.agent_id)
            .map_err(|error| FrameError::new(format!("`agent_id`: {error}")))?;
        let message = message(&raw)?;
        // It is for people, so what cannot be read is no reason to refuse the message.
        let sent_at = WallTime::parse_rfc3339(&raw.sent_at);
        let sent_at = sent_at.unwrap_or(WallTime::from_millis(0));
        Ok(Envelope { message_id: raw.message_id, agent, sent_at, message })
    };
    read().map_err(|error| {
        let named = serde_json::from_str::<Named>(text).ok();
        FrameError { message_id: named.map(|named| named.message_id), ..error }
    })
}

/// Reads what an agent sends.
///
/// # Errors
///
/// [`FrameError`] says what is wrong.
pub fn parse_agent(text: &str) -> Result<Envelope<AgentMessage>, FrameError> {
    parse(text, |raw| {
        Ok(match raw.kind.as_str() {
            "agent.hello" => {
                let hello: RawHello = raw.payload()?;
                AgentMessage::Hello(Box::new(hello.checked()?))
            }
            "task.received" => AgentMessage::Received(raw.attempt()?),
            "task.started" => AgentMessage::Started(raw.attempt()?),
            "task.output" => {
                let piece: RawOutput = raw.payload()?;
                let sequence = raw.sequence.map(|sequence| sequence.0).filter(|it| *it > 0);
                let sequence = sequence
                    .ok_or_else(|| FrameError::new("`task.output` without a `sequence` from 1"))?;
                AgentMessage::Output(piece.checked(raw.attempt()?, sequence)?)
            }
            "task.output_lost" => {
                let lost: RawLost = raw.payload()?;
                let range = range_of("task.output_lost", lost.first_sequence, lost.last_sequence)?;
                let (attempt, stream) = (raw.attempt()?, lost.stream);
                AgentMessage::Lost(LostOutput { attempt, stream, range })
            }
            "task.final" => {
                let result: RawFinal = raw.payload()?;
                AgentMessage::Final(result.of(raw.attempt()?))
            }
            "error" => AgentMessage::Error(raw.payload::<RawError>()?.of(raw.optional_attempt())),
            kind => return Err(FrameError::new(format!("unknown type {kind:?}"))),
        })
    })
}

/// Reads what a controller sends.
///
/// # Errors
///
/// [`FrameError`] says what is wrong.
pub fn parse_controller(text: &str) -> Result<Envelope<ControllerMessage>, FrameError> {
    parse(text, |raw| {
        Ok(match raw.kind.as_str() {
            "agent.hello_ack" => {
                ControllerMessage::HelloAck(raw.payload::<RawHelloAck>()?.checked()?)
            }
            "task.deliver" => {
                let deliver: RawDeliver = raw.payload()?;
                if deliver.command.is_empty() {
                    return Err(FrameError::new("`command` is empty"));
                }
                ControllerMessage::Deliver(Deliver {
                    attempt: raw.attempt()?,
                    command: deliver.command,
                    priority: deliver.priority,
                })
            }
            "task.query" => ControllerMessage::Query(raw.attempt()?),
            "ack" => ControllerMessage::Ack(raw.payload::<RawAck>()?.checked()?),
            "error" => {
                ControllerMessage::Error(raw.payload::<RawError>()?.of(raw.optional_attempt()))
            }
            kind => return Err(FrameError::new(format!("unknown type {kind:?}"))),
        })
    })
}

// ---- payloads ----------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct RawAttempt {
    task_id: TaskId,
    execution_attempt_id: AttemptId,
}

impl From<&Attempt> for RawAttempt {
    fn from(attempt: &Attempt) -> Self {
        Self { task_id: attempt.task.clone(), execution_attempt_id: attempt.id.clone() }
    }
}

impl From<RawAttempt> for Attempt {
    fn from(raw: RawAttempt) -> Self {
        Self { task: raw.task_id, id: raw.execution_attempt_id }
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct RawLast {
    #[serde(default, deserialize_with = "whole")]
    stdout: u64,
    #[serde(default, deserialize_with = "whole")]
    stderr: u64,
}

impl RawLast {
    fn of(last: &BTreeMap<OutputStream, u64>) -> Self {
        let of = |stream| last.get(&stream).copied().unwrap_or(0);
        Self { stdout: of(OutputStream::Stdout), stderr: of(OutputStream::Stderr) }
    }

    fn map(self) -> BTreeMap<OutputStream, u64> {
        [(OutputStream::Stdout, self.stdout), (OutputStream::Stderr, self.stderr)].into()
    }
}

#[derive(Serialize, Deserialize)]
struct RawRunning {
    #[serde(flatten)]
    attempt: RawAttempt,
    #[serde(default)]
    started_at: String,
    #[serde(default)]
    last_output_sequence: RawLast,
}

#[derive(Serialize, Deserialize)]
struct RawReceived {
    #[serde(flatten)]
    attempt: RawAttempt,
    #[serde(default)]
    received_at: String,
}

#[derive(Serialize, Deserialize)]
struct RawUnackedFinal {
    message_id: MessageId,
    #[serde(flatten)]
    attempt: RawAttempt,
    #[serde(flatten)]
    result: RawFinal,
}

#[derive(Serialize, Deserialize)]
struct RawUnackedOutput {
    #[serde(flatten)]
    attempt: RawAttempt,
    stream: OutputStream,
    #[serde(deserialize_with = "whole")]
    first_sequence: u64,
    #[serde(deserialize_with = "whole")]
    last_sequence: u64,
    #[serde(default)]
    truncated_locally: bool,
}

#[derive(Serialize, Deserialize)]
struct RawLostOutput {
    #[serde(flatten)]
    attempt: RawAttempt,
    stream: OutputStream,
    #[serde(deserialize_with = "whole")]
    first_sequence: u64,
    #[serde(deserialize_with = "whole")]
    last_sequence: u64,
}

fn range_of(list: &str, from: u64, to: u64) -> Result<Range, FrameError> {
    let range = Range { from, to };
    match from > 0 && to >= from {
        true => Ok(range),
        false => Err(FrameError::new(format!("`{list}` has no range {range}"))),
    }
}

#[derive(Serialize, Deserialize)]
struct RawSpool {
    bytes_used: u64,
    byte_cap: u64,
    #[serde(default)]
    has_rotated_chunks: bool,
}

#[derive(Serialize, Deserialize)]
struct RawLife {
    epoch: Epoch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    predecessor: Option<Epoch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Epoch>,
}

#[derive(Serialize, Deserialize)]
struct RawHello {
    running_task: Option<RawRunning>,
    received_not_started: Vec<RawReceived>,
    unacked_finals: Vec<RawUnackedFinal>,
    unacked_output: Vec<RawUnackedOutput>,
    spool_status: RawSpool,
    client_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extension: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running_tasks: Option<Vec<RawRunning>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost_output: Option<Vec<RawLostOutput>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<RawLife>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
}

fn time_of(text: &str) -> WallTime {
    WallTime::parse_rfc3339(text).unwrap_or(WallTime::from_millis(0))
}

impl RawHello {
    fn of(hello: &Hello, extension: bool) -> Self {
        let running = |it: &RunningAttempt| RawRunning {
            attempt: (&it.attempt).into(),
            started_at: it.started_at.to_rfc3339(),
            last_output_sequence: RawLast::of(&it.last_output),
        };
        let received = hello.received_not_started.iter().map(|it| RawReceived {
            attempt: (&it.attempt).into(),
            received_at: it.received_at.to_rfc3339(),
        });
        let finals = hello.unacked_finals.iter().map(|(message_id, result)| RawUnackedFinal {
            message_id: message_id.clone(),
            attempt: (&result.attempt).into(),
            result: RawFinal::of_result(result, extension),
        });
        let output = hello.unacked_output.iter().map(|it| RawUnackedOutput {
            attempt: (&it.attempt).into(),
            stream: it.stream,
            first_sequence: it.range.from,
            last_sequence: it.range.to,
            truncated_locally: it.truncated_locally,
        });
        let lost = hello.lost_output.iter().map(|it| RawLostOutput {
            attempt: (&it.attempt).into(),
            stream: it.stream,
            first_sequence: it.range.from,
            last_sequence: it.range.to,
        });
        let store = hello.store.as_ref().filter(|_| extension).map(|life| RawLife {
            epoch: life.epoch.clone(),
            predecessor: life.predecessor.clone(),
            earlier: life.earlier.iter().take(EARLIER_LIVES_MAX).cloned().collect(),
        });
        Self {
            running_task: hello.running_task.as_ref().map(running),
            received_not_started: received.collect(),
            unacked_finals: finals.collect(),
            unacked_output: output.collect(),
            spool_status: RawSpool {
                bytes_used: hello.spool.bytes_used,
                byte_cap: hello.spool.byte_cap,
                has_rotated_chunks: hello.spool.has_rotated_chunks,
            },
            client_version: hello.client_version.clone(),
            extension: extension.then(|| EXTENSION.to_owned()),
            lost_output: extension.then(|| lost.collect()),
            running_tasks: extension.then(|| hello.running_tasks.iter().map(running).collect()),
            store,
            complete: extension.then_some(hello.complete),
        }
    }

    fn checked(self) -> Result<Hello, FrameError> {
        let running = |it: RawRunning| RunningAttempt {
            attempt: it.attempt.into(),
            started_at: time_of(&it.started_at),
            last_output: it.last_output_sequence.map(),
        };
        let extension = self.extension.as_deref() == Some(EXTENSION);
        let mut unacked_output = Vec::with_capacity(self.unacked_output.len());
        for it in self.unacked_output {
            let range = range_of("unacked_output", it.first_sequence, it.last_sequence)?;
            unacked_output.push(UnackedOutput {
                attempt: it.attempt.into(),
                stream: it.stream,
                range,
                truncated_locally: it.truncated_locally,
            });
        }
        let mut lost_output = Vec::new();
        for it in self.lost_output.unwrap_or_default() {
            let range = range_of("lost_output", it.first_sequence, it.last_sequence)?;
            lost_output.push(LostOutput { attempt: it.attempt.into(), stream: it.stream, range });
        }
        let finals = self.unacked_finals.into_iter();
        Ok(Hello {
            running_task: self.running_task.map(running),
            running_tasks: self
                .running_tasks
                .unwrap_or_default()
                .into_iter()
                .map(running)
                .collect(),
            received_not_started: self
                .received_not_started
                .into_iter()
                .map(|it| ReceivedAttempt {
                    attempt: it.attempt.into(),
                    received_at: time_of(&it.received_at),
                })
                .collect(),
            unacked_finals: finals
                .map(|it| (it.message_id, it.result.of(it.attempt.into())))
                .collect(),
            unacked_output,
            lost_output,
            spool: SpoolStatus {
                bytes_used: self.spool_status.bytes_used,
                byte_cap: self.spool_status.byte_cap,
                has_rotated_chunks: self.spool_status.has_rotated_chunks,
            },
            client_version: self.client_version,
            store: self.store.filter(|_| extension).map(|life| StoreLife {
                epoch: life.epoch,
                predecessor: life.predecessor,
                earlier: life.earlier.into_iter().take(EARLIER_LIVES_MAX).collect(),
            }),
            complete: extension && self.complete.unwrap_or(false),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct RawLost {
    stream: OutputStream,
    #[serde(deserialize_with = "whole")]
    first_sequence: u64,
    #[serde(deserialize_with = "whole")]
    last_sequence: u64,
}

#[derive(Serialize, Deserialize)]
struct RawOutput {
    stream: OutputStream,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_b64: Option<String>,
    byte_count: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    truncated_locally: bool,
}

impl RawOutput {
    fn of(piece: &Output, extension: bool) -> Self {
        let text = std::str::from_utf8(&piece.data).ok();
        let (data, data_b64) = match text {
            Some(text) => (Some(text.to_owned()), None),
            None if extension => (None, Some(BASE64.encode(&piece.data))),
            None => (Some(String::from_utf8_lossy(&piece.data).into_owned()), None),
        };
        let bytes = data.as_ref().map_or(piece.data.len(), String::len);
        Self {
            stream: piece.stream,
            data,
            data_b64,
            byte_count: bytes as u64,
            truncated_locally: piece.truncated_locally,
        }
    }

    fn checked(self, attempt: Attempt, sequence: u64) -> Result<Output, FrameError> {
        let data = match (self.data, self.data_b64) {
            // Some peers count the bytes before they replace what is no UTF-8.
            (Some(text), None) => Bytes::from(text),
            (None, Some(text)) => {
                let bytes = BASE64
                    .decode(text)
                    .map_err(|error| FrameError::new(format!("`data_b64`: {error}")))?;
                if bytes.len() as u64 != self.byte_count {
                    let problem = format!(
                        "`byte_count` is {}, and `data_b64` has {} bytes",
                        self.byte_count,
                        bytes.len()
                    );
                    return Err(FrameError::new(problem));
                }
                Bytes::from(bytes)
            }
            (None, None) => return Err(FrameError::new("neither `data` nor `data_b64`")),
            (Some(_), Some(_)) => return Err(FrameError::new("both `data` and `data_b64`")),
        };
        let (stream, truncated_locally) = (self.stream, self.truncated_locally);
        Ok(Output { attempt, stream, sequence, data, truncated_locally })
    }
}

/// The payload of a result; over HTTP the body has the same fields.
#[derive(Serialize, Deserialize)]
pub(in crate::tasks) struct RawFinal {
    status: Outcome,
    exit_code: i64,
    #[serde(default)]
    error: String,
    #[serde(default)]
    output_truncated: bool,
    #[serde(default)]
    error_truncated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_output_sequence: Option<RawLast>,
}

impl RawFinal {
    pub(in crate::tasks) fn of_result(result: &Final, extension: bool) -> Self {
        Self {
            status: result.outcome,
            exit_code: result.exit_code,
            error: result.error.clone(),
            output_truncated: result.output_truncated,
            error_truncated: result.error_truncated,
            last_output_sequence: result
                .last_output
                .as_ref()
                .filter(|_| extension)
                .map(RawLast::of),
        }
    }

    pub(in crate::tasks) fn of(self, attempt: Attempt) -> Final {
        Final {
            attempt,
            outcome: self.status,
            exit_code: self.exit_code,
            error: self.error,
            output_truncated: self.output_truncated,
            error_truncated: self.error_truncated,
            last_output: self.last_output_sequence.map(RawLast::map),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RawDiscarded {
    #[serde(flatten)]
    attempt: RawAttempt,
    #[serde(default)]
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct RawReplayFrom {
    #[serde(flatten)]
    attempt: RawAttempt,
    stream: OutputStream,
    #[serde(deserialize_with = "whole")]
    next_sequence: u64,
}

#[derive(Serialize, Deserialize)]
struct RawHelloAck {
    acked_message_id: MessageId,
    acked_type: String,
    acknowledged_final_message_ids: Option<Vec<MessageId>>,
    discarded_attempts: Option<Vec<RawDiscarded>>,
    output_replay: Option<Vec<RawReplayFrom>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extension: Option<String>,
}

impl RawHelloAck {
    fn of(ack: &HelloAck) -> Self {
        let discarded = |it: &Discarded| RawDiscarded {
            attempt: (&it.attempt).into(),
            reason: it.reason.clone(),
        };
        let replay = |it: &ReplayFrom| RawReplayFrom {
            attempt: (&it.attempt).into(),
            stream: it.stream,
            next_sequence: it.next_sequence,
        };
        Self {
            acked_message_id: ack.acked.clone(),
            acked_type: "agent.hello".to_owned(),
            acknowledged_final_message_ids: ack.acknowledged_finals.clone(),
            discarded_attempts: ack
                .discarded
                .as_ref()
                .map(|list| list.iter().map(discarded).collect()),
            output_replay: ack.output_replay.as_ref().map(|list| list.iter().map(replay).collect()),
            extension: ack.extension.then(|| EXTENSION.to_owned()),
        }
    }

    fn checked(self) -> Result<HelloAck, FrameError> {
        let replay = self.output_replay.map(|list| {
            let list = list.into_iter().map(|it| {
                if it.next_sequence == 0 {
                    return Err(FrameError::new("`next_sequence` is not from 1"));
                }
                let (attempt, stream) = (it.attempt.into(), it.stream);
                Ok(ReplayFrom { attempt, stream, next_sequence: it.next_sequence })
            });
            list.collect::<Result<Vec<_>, _>>()
        });
        let discarded =
            |it: RawDiscarded| Discarded { attempt: it.attempt.into(), reason: it.reason };
        Ok(HelloAck {
            acked: self.acked_message_id,
            acknowledged_finals: self.acknowledged_final_message_ids,
            discarded: self
                .discarded_attempts
                .map(|list| list.into_iter().map(discarded).collect()),
            output_replay: replay.transpose()?,
            extension: self.extension.as_deref() == Some(EXTENSION),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct RawDeliver {
    command: String,
    #[serde(default)]
    priority: i64,
}

#[derive(Serialize, Deserialize)]
struct RawAck {
    acked_message_id: MessageId,
    acked_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_id: Option<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execution_attempt_id: Option<AttemptId>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole_or_none")]
    highest_output_sequence: Option<u64>,
}

impl RawAck {
    fn of(ack: &Ack) -> Self {
        Self {
            acked_message_id: ack.acked.clone(),
            acked_type: ack.acked_type.clone(),
            task_id: ack.attempt.as_ref().map(|attempt| attempt.task.clone()),
            execution_attempt_id: ack.attempt.as_ref().map(|attempt| attempt.id.clone()),
            highest_output_sequence: ack.highest_output_sequence,
        }
    }

    fn checked(self) -> Result<Ack, FrameError> {
        let attempt = self.task_id.zip(self.execution_attempt_id);
        Ok(Ack {
            acked: self.acked_message_id,
            acked_type: self.acked_type,
            attempt: attempt.map(|(task, id)| Attempt { task, id }),
            highest_output_sequence: self.highest_output_sequence,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct RawError {
    code: String,
    message: String,
    retryable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    related_message_id: Option<MessageId>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole_or_none")]
    highest_accepted_sequence: Option<u64>,
}

impl RawError {
    fn of_error(error: &ErrorFrame) -> Self {
        Self {
            code: error.code.clone(),
            message: error.message.clone(),
            retryable: error.retryable,
            related_message_id: error.related.clone(),
            highest_accepted_sequence: error.highest_accepted_sequence,
        }
    }

    fn of(self, attempt: Option<Attempt>) -> ErrorFrame {
        ErrorFrame {
            code: self.code,
            message: self.message,
            retryable: self.retryable,
            related: self.related_message_id,
            highest_accepted_sequence: self.highest_accepted_sequence,
            attempt,
        }
    }
}

// ---- writing -----------------------------------------------------------------------------------

#[derive(Serialize)]
struct Outgoing<'a, P> {
    protocol_version: u64,
    message_id: &'a MessageId,
    #[serde(rename = "type")]
    kind: &'a str,
    agent_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_attempt_id: Option<&'a AttemptId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    sent_at: String,
    payload: P,
}

/// `{}`.
#[derive(Serialize)]
struct Nothing {}

impl<M> Envelope<M> {
    fn encode(
        &self,
        kind: &str,
        attempt: Option<&Attempt>,
        sequence: Option<u64>,
        payload: impl Serialize,
    ) -> Bytes {
        let outgoing = Outgoing {
            protocol_version: PROTOCOL_VERSION,
            message_id: &self.message_id,
            kind,
            agent_id: self.agent.as_str(),
            task_id: attempt.map(|attempt| &attempt.task),
            execution_attempt_id: attempt.map(|attempt| &attempt.id),
            sequence,
            sent_at: self.sent_at.to_rfc3339(),
            payload,
        };
        serde_json::to_vec(&outgoing).expect("every frame is JSON").into()
    }
}

impl AgentMessage {
    /// The type on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "agent.hello",
            Self::Received(_) => "task.received",
            Self::Started(_) => "task.started",
            Self::Output(_) => "task.output",
            Self::Lost(_) => "task.output_lost",
            Self::Final(_) => "task.final",
            Self::Error(_) => "error",
        }
    }
}

impl Envelope<AgentMessage> {
    /// The frame as it travels. Without the extension, bytes that are no UTF-8 are replaced.
    pub fn to_bytes(&self, extension: bool) -> Bytes {
        let kind = self.message.kind();
        match &self.message {
            AgentMessage::Hello(hello) => {
                self.encode(kind, None, None, RawHello::of(hello, extension))
            }
            AgentMessage::Received(attempt) | AgentMessage::Started(attempt) => {
                self.encode(kind, Some(attempt), None, Nothing {})
            }
            AgentMessage::Output(piece) => self.encode(
                kind,
                Some(&piece.attempt),
                Some(piece.sequence),
                RawOutput::of(piece, extension),
            ),
            AgentMessage::Lost(lost) => {
                let payload = RawLost {
                    stream: lost.stream,
                    first_sequence: lost.range.from,
                    last_sequence: lost.range.to,
                };
                self.encode(kind, Some(&lost.attempt), None, payload)
            }
            AgentMessage::Final(result) => {
                let payload = RawFinal::of_result(result, extension);
                self.encode(kind, Some(&result.attempt), None, payload)
            }
            AgentMessage::Error(error) => {
                self.encode(kind, error.attempt.as_ref(), None, RawError::of_error(error))
            }
        }
    }
}

impl ControllerMessage {
    /// The type on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::HelloAck(_) => "agent.hello_ack",
            Self::Deliver(_) => "task.deliver",
            Self::Query(_) => "task.query",
            Self::Ack(_) => "ack",
            Self::Error(_) => "error",
        }
    }
}

impl Envelope<ControllerMessage> {
    /// The frame as it travels.
    pub fn to_bytes(&self) -> Bytes {
        let kind = self.message.kind();
        match &self.message {
            ControllerMessage::HelloAck(ack) => self.encode(kind, None, None, RawHelloAck::of(ack)),
            ControllerMessage::Deliver(deliver) => {
                let payload =
                    RawDeliver { command: deliver.command.clone(), priority: deliver.priority };
                self.encode(kind, Some(&deliver.attempt), None, payload)
            }
            ControllerMessage::Query(attempt) => self.encode(kind, Some(attempt), None, Nothing {}),
            ControllerMessage::Ack(ack) => self.encode(kind, None, None, RawAck::of(ack)),
            ControllerMessage::Error(error) => {
                self.encode(kind, error.attempt.as_ref(), None, RawError::of_error(error))
            }
        }
    }
}
