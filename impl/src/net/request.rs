//! HTTP requests to one place, over a connection that is kept open.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Connector;

/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A request was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// It did not leave.
    NotSent(String),
    /// It may have arrived.
    Unknown(String),
}

/// Sends requests, one at a time.
#[derive(Debug)]
pub struct Requester {
    connection: Option<SendRequest<Full<Bytes>>>,
    /// How long connecting, and then an answer, may take.
    timeout: Duration,
}

impl Requester {
    /// Without a connection yet. `timeout` is how long connecting, and then an answer, may take.
    pub fn new(timeout: Duration) -> Self {
        Self { connection: None, timeout }
    }

    /// Sends a request, over a new connection if there is none; its status and body.
    ///
    /// # Errors
    ///
    /// [`RequestError`] says whether it may have arrived.
    pub async fn send<N: Connector>(
        &mut self,
        connector: &N,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), RequestError> {
        let open = self.connection.take().filter(|connection| !connection.is_closed());
        let mut connection = match open {
            Some(connection) => connection,
            None => {
                let connect = connect(connector.connect());
                let connected = tokio::time::timeout(self.timeout, connect).await;
                let late = |_| Err("connecting took too long".to_owned());
                connected.unwrap_or_else(late).map_err(RequestError::NotSent)?
            }
        };
        let deadline = tokio::time::Instant::now() + self.timeout;
        // The task of a connection may be a moment behind the answer before.
        let ready = tokio::time::timeout_at(deadline, connection.ready()).await;
        match ready {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(RequestError::NotSent(error.to_string())),
            Err(_) => {
                return Err(RequestError::NotSent("the connection took too long".to_owned()));
            }
        }
        let exchange = async {
            let response = connection.try_send_request(request).await.map_err(unsent_or_unknown)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
            let body = body.await.map_err(|error| RequestError::Unknown(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        let late = |_| Err(RequestError::Unknown("the answer took too long".to_owned()));
        let answered = tokio::time::timeout_at(deadline, exchange).await;
        let answer = answered.unwrap_or_else(late)?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

/// A request comes back only if none of it was written.
fn unsent_or_unknown(error: TrySendError<Request<Full<Bytes>>>) -> RequestError {
    let problem = error.error().to_string();
    match error.message() {
        Some(_) => RequestError::NotSent(problem),
        None => RequestError::Unknown(problem),
    }
}

async fn connect<S>(
    stream: impl Future<Output = std::io::Result<S>> + Send,
) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = stream.await.map_err(|error| error.to_string())?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection for requests ended with an error");
        }
    });
    Ok(sender)
}
