//! Publishing over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use super::server::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};
use crate::events::AgentId;
use crate::events::server::Receipt;
use crate::net::{Connector, RequestError, Requester};
use crate::recovery::{Backoff, BackoffConfig, Entropy, Epoch};

/// The limits and intervals of a publisher.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// How long connecting, and then an answer, may take: 10 s.
    pub timeout: Duration,
    /// How often an event with an id is tried before its outcome is reported as unknown: 10.
    pub attempts_max: u32,
    /// The pauses between attempts: 200 ms to 10 s.
    pub retry: BackoffConfig,
}

impl Default for PublisherConfig {
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

/// An event to publish.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The stream.
    pub agent: AgentId,
    /// The idempotency key. Without one an attempt of unknown outcome is not repeated, because
    /// the event could be stored twice.
    pub id: Option<String>,
    /// The type.
    pub kind: String,
    /// A JSON object.
    pub payload: Box<RawValue>,
    /// The head that was known before the first attempt, if any.
    pub after: Option<u64>,
}

/// An event was not published, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishFailure {
    /// The server refused it for good; it is not stored.
    #[error("the server refused the event with status {status}: {error}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server says.
        error: String,
    },
    /// No attempt got an answer that says that it is stored, and some may have stored it.
    #[error("it is not known whether the event was stored; the last attempt: {0}")]
    Unknown(String),
    /// No attempt reached a server that could have stored it.
    #[error("the event was not stored; the last attempt: {0}")]
    NotStored(String),
}

/// Not all events of a batch were published, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {} of the batch: {failure}", receipts.len() + 1)]
pub struct BatchFailure {
    /// The events before the one that failed are stored. Later ones may be stored as well.
    pub receipts: Vec<Receipt>,
    /// What came of the one that failed.
    pub failure: PublishFailure,
}

/// Publishes events over one connection that it keeps open.
pub struct Publisher<N> {
    connector: N,
    host: String,
    token: String,
    config: PublisherConfig,
    entropy: Box<dyn Entropy>,
    requester: Requester,
}

enum Attempt {
    Stored(Receipt),
    Refused {
        status: u16,
        error: String,
    },
    NotStored(String),
    Unknown(String),
    /// The server does not know any more, and never will.
    Forgotten(String),
}

impl<N: Connector> Publisher<N> {
    /// A publisher that connects when it has something to publish.
    pub fn new(
        connector: N,
        host: impl Into<String>,
        token: impl Into<String>,
        config: PublisherConfig,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        let (host, token) = (host.into(), token.into());
        let requester = Requester::new(config.timeout);
        Self { connector, host, token, config, entropy, requester }
    }

    /// Publishes one event, and tries again as long as that is safe and allowed.
    ///
    /// # Errors
    ///
    /// [`PublishFailure`] says whether the event may have been stored.
    pub async fn publish(&mut self, publication: &Publication) -> Result<Receipt, PublishFailure> {
        let mut backoff = Backoff::new(self.config.retry);
        let mut stored_perhaps = false;
        let mut attempt = 1;
        loop {
            let problem = match self.attempt(publication).await {
                Attempt::Stored(receipt) => return Ok(receipt),
                // A refusal after an attempt of unknown outcome speaks for the refused one only.
                Attempt::Refused { error, .. } if stored_perhaps => {
                    return Err(PublishFailure::Unknown(error));
                }
                Attempt::Refused { status, error } => {
                    return Err(PublishFailure::Refused { status, error });
                }
                Attempt::Forgotten(problem) => return Err(PublishFailure::Unknown(problem)),
                Attempt::NotStored(problem) => problem,
                Attempt::Unknown(problem) => {
                    stored_perhaps = true;
                    problem
                }
            };
            let repeatable = publication.id.is_some() || !stored_perhaps;
            if attempt >= self.config.attempts_max || !repeatable {
                return Err(match stored_perhaps {
                    true => PublishFailure::Unknown(problem),
                    false => PublishFailure::NotStored(problem),
                });
            }
            attempt += 1;
            tokio::time::sleep(backoff.next_delay(&mut *self.entropy)).await;
        }
    }

    /// Publishes events of one stream, each with an id, in their order; the server stores them in
    /// one transaction. All of them are tried again as long as that is allowed, so they are in their
    /// order however often the connection breaks.
    ///
    /// Take at most [`BATCH_EVENTS_MAX`] events, and bodies of [`BATCH_BYTES_MAX`] bytes together.
    /// Servers without batches refuse with status 404.
    ///
    /// # Errors
    ///
    /// [`BatchFailure`] says which event failed, and how.
    pub async fn publish_all(
        &mut self,
        agent: &AgentId,
        publications: &[Publication],
    ) -> Result<Vec<Receipt>, BatchFailure> {
        let mut backoff = Backoff::new(self.config.retry);
        let mut stored_perhaps = false;
        let mut attempt = 1;
        loop {
            let mut receipts = Vec::with_capacity(publications.len());
            let mut failed = None;
            for result in self.attempt_all(agent, publications).await {
                match result {
                    Attempt::Stored(receipt) if failed.is_none() => receipts.push(receipt),
                    Attempt::Stored(_) => {}
                    other => {
                        stored_perhaps |= matches!(other, Attempt::Unknown(_));
                        failed.get_or_insert(other);
                    }
                }
            }
            let fail = |failure| Err(BatchFailure { receipts: receipts.clone(), failure });
            let problem = match failed {
                None if receipts.len() == publications.len() => return Ok(receipts),
                None => "the answer is too short".to_owned(),
                Some(Attempt::Refused { error, .. }) if stored_perhaps => {
                    return fail(PublishFailure::Unknown(error));
                }
                Some(Attempt::Refused { status, error }) => {
                    return fail(PublishFailure::Refused { status, error });
                }
                Some(Attempt::Forgotten(problem)) => {
                    return fail(PublishFailure::Unknown(problem));
                }
                Some(Attempt::NotStored(problem) | Attempt::Unknown(problem)) => problem,
                Some(Attempt::Stored(_)) => unreachable!("only what is not stored has failed"),
            };
            let unrepeatable = publications.iter().any(|publication| publication.id.is_none());
            if attempt >= self.config.attempts_max || (unrepeatable && stored_perhaps) {
                return fail(match stored_perhaps {
                    true => PublishFailure::Unknown(problem),
                    false => PublishFailure::NotStored(problem),
                });
            }
            attempt += 1;
            let pause = backoff.next_delay(&mut *self.entropy);
            tracing::info!(%problem, ?pause, "events are published again");
            tokio::time::sleep(pause).await;
        }
    }

    /// What came of each; one for all of them, if the whole request failed.
    async fn attempt_all(&mut self, agent: &AgentId, events: &[Publication]) -> Vec<Attempt> {
        let bodies = events.iter().map(PublishBody::from).collect();
        let request = match self.request(agent, "/batch", &BatchBody { events: bodies }) {
            Ok(request) => request,
            Err(problem) => return vec![Attempt::Refused { status: 0, error: problem }],
        };
        match self.requester.send(&self.connector, request).await {
            Ok((StatusCode::OK, body)) => match serde_json::from_slice::<Results<'_>>(&body) {
                Ok(Results { results }) => results.into_iter().map(one_answer).collect(),
                Err(error) => {
                    vec![Attempt::Unknown(format!("the answer is not readable: {error}"))]
                }
            },
            Ok((status, body)) => vec![answer(status, &body)],
            Err(RequestError::NotSent(problem)) => vec![Attempt::NotStored(problem)],
            Err(RequestError::Unknown(problem)) => vec![Attempt::Unknown(problem)],
        }
    }

    async fn attempt(&mut self, publication: &Publication) -> Attempt {
        let body = PublishBody::from(publication);
        let request = match self.request(&publication.agent, "", &body) {
            Ok(request) => request,
            Err(problem) => return Attempt::Refused { status: 0, error: problem },
        };
        match self.requester.send(&self.connector, request).await {
            Ok((status, body)) => answer(status, &body),
            Err(RequestError::NotSent(problem)) => Attempt::NotStored(problem),
            Err(RequestError::Unknown(problem)) => Attempt::Unknown(problem),
        }
    }

    fn request(
        &self,
        agent: &AgentId,
        batch: &str,
        body: &impl Serialize,
    ) -> Result<Request<Full<Bytes>>, String> {
        let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
        Request::post(format!("/v1/agents/{agent}/events{batch}"))
            .header(HOST, &self.host)
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))
            .map_err(|error| error.to_string())
    }
}

#[derive(Serialize)]
struct PublishBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
}

impl<'a> From<&'a Publication> for PublishBody<'a> {
    fn from(publication: &'a Publication) -> Self {
        Self {
            id: publication.id.as_deref(),
            kind: &publication.kind,
            payload: &publication.payload,
            after: publication.after,
        }
    }
}

#[derive(Serialize)]
struct BatchBody<'a> {
    events: Vec<PublishBody<'a>>,
}

#[derive(Deserialize)]
struct Results<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}

/// What came of one event of a batch.
fn one_answer(result: &RawValue) -> Attempt {
    #[derive(Deserialize)]
    struct Status {
        status: u16,
    }
    let status = serde_json::from_str(result.get()).ok();
    match status.and_then(|Status { status }| StatusCode::from_u16(status).ok()) {
        Some(status) => answer(status, result.get().as_bytes()),
        None => Attempt::Unknown("the answer has no status".to_owned()),
    }
}

#[derive(Deserialize)]
struct Stored {
    epoch: Epoch,
    agent_seq: u64,
}

#[derive(Deserialize, Default)]
struct NotStored {
    #[serde(default)]
    error: String,
    #[serde(default)]
    stored: String,
}

fn answer(status: StatusCode, body: &[u8]) -> Attempt {
    if status == StatusCode::CREATED {
        return match serde_json::from_slice(body) {
            Ok(Stored { epoch, agent_seq }) => {
                Attempt::Stored(Receipt { epoch, sequence: agent_seq })
            }
            Err(error) => Attempt::Unknown(format!("the answer is not readable: {error}")),
        };
    }
    let said: NotStored = serde_json::from_slice(body).unwrap_or_default();
    let problem = format!("status {status}: {}", said.error);
    match (status.is_server_error(), said.stored.as_str()) {
        // Asking again would get the same answer.
        (false, "unknown") => Attempt::Forgotten(problem),
        (false, _) => Attempt::Refused { status: status.as_u16(), error: said.error },
        (true, "no") => Attempt::NotStored(problem),
        (true, _) => Attempt::Unknown(problem),
    }
}
