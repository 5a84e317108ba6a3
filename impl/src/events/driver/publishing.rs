//! `POST /v1/agents/{agent}/events`, and `…/events/batch`: what is asked and what is answered,
//! without the sockets.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::events::server::{PublishError, Receipt};
use crate::events::wire::{EventBody, EventBodyError};
use crate::recovery::MAX_SEQUENCE;

#[derive(Deserialize)]
struct PublishBody<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    after: Option<u64>,
}

/// The event in the body of a request, and the head that its publisher knew.
///
/// # Errors
///
/// The status of the answer, and a sentence that says what is wrong.
pub fn publication(
    body: &[u8],
    bytes_max: usize,
) -> Result<(EventBody, Option<u64>), (StatusCode, String)> {
    // A list would be taken for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        let error = "the body is not an event: it does not begin with `{`".to_owned();
        return Err((StatusCode::BAD_REQUEST, error));
    }
    let parsed: PublishBody<'_> = serde_json::from_slice(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("the body is not an event: {error}")))?;
    event(parsed, bytes_max)
}

/// An event, and the head that its publisher knew.
pub type Parsed = (EventBody, Option<u64>);

/// The events in the body of a request for several, and the head that the publisher of each knew.
/// If one of them is none, the whole request is refused.
///
/// # Errors
///
/// The status of the answer, and a sentence that says what is wrong, and with which of them.
pub fn publications(
    body: &[u8],
    bytes_max: usize,
    count_max: usize,
) -> Result<Vec<Parsed>, (StatusCode, String)> {
    #[derive(Deserialize)]
    struct BatchBody<'a> {
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
    }
    let parsed: BatchBody<'_> = serde_json::from_slice(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("the body is no batch: {error}")))?;
    if parsed.events.len() > count_max {
        let error = format!("a batch has at most {count_max} events");
        return Err((StatusCode::PAYLOAD_TOO_LARGE, error));
    }
    let events = parsed.events.iter().enumerate().map(|(i, event)| {
        publication(event.get().as_bytes(), bytes_max)
            .map_err(|(status, error)| (status, format!("`events[{i}]`: {error}")))
    });
    events.collect()
}

fn event(parsed: PublishBody<'_>, bytes_max: usize) -> Result<Parsed, (StatusCode, String)> {
    if parsed.after.is_some_and(|after| after > MAX_SEQUENCE) {
        let error = format!("`after` must be an integer from 0 to {MAX_SEQUENCE}");
        return Err((StatusCode::BAD_REQUEST, error));
    }
    let empty = RawValue::from_string("{}".to_owned()).expect("an object is JSON");
    let payload = parsed.payload.unwrap_or(&empty);
    EventBody::new(parsed.id.as_deref(), &parsed.kind, payload, bytes_max)
        .map(|body| (body, parsed.after))
        .map_err(|error| match error {
            EventBodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            _ => (StatusCode::BAD_REQUEST, error.to_string()),
        })
}

/// What a publisher is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, a JSON object: `epoch` and `agent_seq`, or `error` and whether it was `stored`.
    pub body: serde_json::Value,
    /// When to try again, in seconds.
    pub retry_after: Option<u32>,
}

/// The answer to a publisher.
pub fn answer(result: &Result<Receipt, PublishError>) -> Answer {
    let error = match result {
        Ok(Receipt { epoch, sequence }) => {
            let body = serde_json::json!({ "epoch": epoch, "agent_seq": sequence });
            return Answer { status: StatusCode::CREATED, body, retry_after: None };
        }
        Err(error) => error,
    };
    let (status, stored) = match error {
        PublishError::Conflict => (StatusCode::CONFLICT, "no"),
        PublishError::Expired => (StatusCode::GONE, "unknown"),
        PublishError::Exhausted => (StatusCode::INSUFFICIENT_STORAGE, "no"),
        PublishError::Overloaded | PublishError::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "no")
        }
        PublishError::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "unknown"),
    };
    let body = serde_json::json!({ "error": error.to_string(), "stored": stored });
    let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS);
    Answer { status, body, retry_after }
}

/// The answer to each event of a batch: that to a publisher of this one, with its status in it.
#[derive(Debug, Serialize)]
pub struct BatchAnswer {
    results: Vec<serde_json::Value>,
}

impl BatchAnswer {
    /// The answer to the events, in their order.
    pub fn new(results: &[Result<Receipt, PublishError>]) -> Self {
        let one = |result| {
            let Answer { status, mut body, .. } = answer(result);
            body["status"] = status.as_u16().into();
            body
        };
        Self { results: results.iter().map(one).collect() }
    }
}

/// When a publisher may try again for whom the server had no room.
const RETRY_AFTER_SECONDS: u32 = 1;
