//! One listener for HTTP requests and WebSocket upgrades.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::Instrument as _;

use super::admission::busy;
use super::{Limits, Listener, trace};
use crate::mark;

/// The stream of an upgraded connection, whatever it was before.
pub type UpgradedStream = TokioIo<hyper::upgrade::Upgraded>;

/// The limits of a listener.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// How long a request head may take to arrive, and a connection be kept without one: 10 s.
    pub header_timeout: Duration,
    /// How many connections are served at once, WebSockets not counted: 20,000. Requests on more are
    /// answered 503, on up to [`REFUSALS_MAX`] at once; beyond, connections are dropped.
    pub connections_max: usize,
    /// After which time whoever was answered 503 may ask again: 5 s.
    pub retry_after: Duration,
    /// Whether responses carry the wall time in `Date`; off where time is not real.
    pub date_header: bool,
    /// The pause after the operating system refused to accept, for example for want of
    /// descriptors: 50 ms.
    pub accept_pause: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            connections_max: 20_000,
            retry_after: Duration::from_secs(5),
            date_header: true,
            accept_pause: Duration::from_millis(50),
        }
    }
}

/// How many connections beyond the limit are told so at once.
pub const REFUSALS_MAX: usize = 64;

/// Answers requests.
pub trait Service: Clone + Send + Sync + 'static {
    /// Answers one request. An upgrade is answered with [`upgrade`].
    fn call(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Serves connections until `shutdown` resolves; those that are open then are dropped.
pub async fn serve<L: Listener, S: Service>(
    listener: L,
    service: S,
    config: HttpConfig,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve_and_drain(listener, service, config, shutdown, Duration::ZERO).await;
}

/// Serves connections until `shutdown` resolves. Then nothing is accepted any more, and requests that
/// have begun are answered for as long as `drain`; what is left after that is dropped.
///
/// WebSockets are not waited for: they belong to the service that upgraded them.
pub async fn serve_and_drain<L: Listener, S: Service>(
    mut listener: L,
    service: S,
    config: HttpConfig,
    shutdown: impl Future<Output = ()> + Send,
    drain: Duration,
) {
    let mut connections = JoinSet::new();
    let (closing, closed) = watch::channel(());
    tokio::pin!(shutdown);
    loop {
        tokio::select! { biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) if connections.len() < config.connections_max => {
                    let (service, config) = (service.clone(), config.clone());
                    connections.spawn(connection(stream, service, config, closed.clone()));
                }
                Ok(stream) if connections.len() < config.connections_max + REFUSALS_MAX => {
                    mark!("net.connection_refused");
                    let (service, config) = (Refuse(config.retry_after), config.clone());
                    connections.spawn(connection(stream, service, config, closed.clone()));
                }
                Ok(stream) => {
                    mark!("net.connection_dropped");
                    drop(stream);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(config.accept_pause).await;
                }
            },
        }
    }
    if drain.is_zero() {
        // Before they are told that it is over.
        drop(connections);
        return;
    }
    drop((listener, closing));
    let ended = async { while connections.join_next().await.is_some() {} };
    // What has not ended by then is dropped with the set.
    let _ = tokio::time::timeout(drain, ended).await;
}

/// Answers every request with 503, and ends the connection.
#[derive(Clone)]
struct Refuse(Duration);

impl Service for Refuse {
    async fn call(&self, _request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = busy("too many connections", self.0);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Answers the requests of one connection; once the sender of `closed` is gone, no further one.
async fn connection<T, S>(
    stream: T,
    service: S,
    config: HttpConfig,
    mut closed: watch::Receiver<()>,
) where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    S: Service,
{
    let asked = AtomicBool::new(false);
    let answer = service_fn(|request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let service = service.clone();
        let span = trace::request(request.method().as_str(), request.headers());
        async move {
            let response = service.call(request).instrument(span.clone()).await;
            span.record("status", response.status().as_u16());
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .auto_date_header(config.date_header)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    tokio::pin!(serving);
    let served = tokio::select! { biased;
        served = &mut serving => served,
        // Nothing is ever sent: it ends with the sender.
        _ = closed.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        // One that is kept without a further request ends in the same way.
        if error.is_timeout() && !asked.load(Ordering::Relaxed) {
            mark!("net.first_request_late");
        }
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// Why a request is no WebSocket handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnUpgrade;

/// A WebSocket handshake that is being answered.
#[derive(Debug)]
pub struct Upgrade {
    /// The answer, to be returned by the service.
    pub response: Response<Full<Bytes>>,
    /// Whether the client offered the subprotocol, and so got it.
    pub subprotocol: bool,
    /// The socket to be.
    pub pending: PendingSocket,
}

/// A socket whose handshake is being answered.
#[derive(Debug)]
pub struct PendingSocket {
    upgraded: hyper::upgrade::OnUpgrade,
    limits: Limits,
}

impl PendingSocket {
    /// The socket, once the answer has left; `None` if the connection broke before.
    pub async fn open(self) -> Option<WebSocketStream<UpgradedStream>> {
        let stream = TokioIo::new(self.upgraded.await.ok()?);
        let config = self.limits.websocket();
        Some(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)
    }
}

/// Answers a WebSocket handshake, with `subprotocol` if the client offers it.
///
/// # Errors
///
/// [`NotAnUpgrade`] if the request is none; answer with status 426.
pub fn upgrade(
    mut request: Request<Incoming>,
    subprotocol: Option<&'static str>,
    limits: &Limits,
) -> Result<Upgrade, NotAnUpgrade> {
    let headers = request.headers();
    let has = |name: hyper::header::HeaderName, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    let is_handshake =
        has(CONNECTION, "upgrade") && has(UPGRADE, "websocket") && has(SEC_WEBSOCKET_VERSION, "13");
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_handshake) else {
        return Err(NotAnUpgrade);
    };
    let accept = derive_accept_key(key.as_bytes());
    let agreed = subprotocol.filter(|name| has(SEC_WEBSOCKET_PROTOCOL, name));
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).map_err(|_| NotAnUpgrade)?);
    if let Some(name) = agreed {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    let pending = PendingSocket { upgraded: hyper::upgrade::on(&mut request), limits: *limits };
    Ok(Upgrade { response, subprotocol: agreed.is_some(), pending })
}

/// The token of a request: `Authorization: Bearer`, or the base contracts' `token` in the query.
pub fn token(request: &Request<Incoming>) -> Option<String> {
    let bearer = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    bearer.or_else(|| query(request.uri().query()?, "token"))
}

/// The value of a parameter of a query, with its escapes resolved.
pub fn query(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| unescape(value))
    })
}

/// Resolves `%41` and `+`; what is no escape stays as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escaped = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let value = std::str::from_utf8(&digits)
                    .ok()
                    .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                value.map(|value| (value, after))
            }
            _ => None,
        };
        match (escaped, first) {
            (Some((value, after)), _) => {
                bytes.push(value);
                rest = after;
            }
            (None, b'+') => bytes.push(b' '),
            (None, other) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Escapes a value for a query; [`query`] finds it again.
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It has more bytes than allowed.
    TooLarge,
    /// It did not arrive whole, or not in time.
    Broken,
}

/// Reads a whole body.
///
/// # Errors
///
/// [`BodyError`] if it is too large, too slow, or breaks off.
pub async fn body(
    request: Request<Incoming>,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, BodyError> {
    let body = Limited::new(request.into_body(), bytes_max).collect();
    match tokio::time::timeout(timeout, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(_)) | Err(_) => Err(BodyError::Broken),
    }
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A response with a JSON body.
pub fn json(status: StatusCode, body: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response `{"error": …}`.
pub fn error(status: StatusCode, error: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": error }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_parameter_is_found_and_unescaped() {
        assert_eq!(query("a=1&token=x%2By%20z+w", "token"), Some("x+y z w".to_owned()));
        assert_eq!(query("token=%zz%4", "token"), Some("%zz%4".to_owned()));
        assert_eq!(query("tokens=1", "token"), None);
    }

    #[test]
    fn an_escaped_value_is_found_again() {
        let value = "a-b_c.d~ &=+%41#?/ü";
        assert!(escape(value).is_ascii());
        assert_eq!(query(&format!("x=1&v={}&y=2", escape(value)), "v"), Some(value.to_owned()));
    }
}
