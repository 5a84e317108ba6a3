//! Publishing over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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

    async fn attempt(&mut self, publication: &Publication) -> Attempt {
        let request = match self.request(publication) {
            Ok(request) => request,
            Err(problem) => return Attempt::Refused { status: 0, error: problem },
        };
        match self.requester.send(&self.connector, request).await {
            Ok((status, body)) => answer(status, &body),
            Err(RequestError::NotSent(problem)) => Attempt::NotStored(problem),
            Err(RequestError::Unknown(problem)) => Attempt::Unknown(problem),
        }
    }

    fn request(&self, publication: &Publication) -> Result<Request<Full<Bytes>>, String> {
        let body = PublishBody {
            id: publication.id.as_deref(),
            kind: &publication.kind,
            payload: &publication.payload,
            after: publication.after,
        };
        let body = serde_json::to_vec(&body).map_err(|error| error.to_string())?;
        Request::post(format!("/v1/agents/{}/events", publication.agent))
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
