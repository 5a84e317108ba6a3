//! The client's side of a WebSocket handshake.

use hyper::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError, SubProtocolError};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::Limits;
use crate::connection::DialFailure;

/// How much a client reads at once. It has one connection, and a replay comes as fast as it is read.
const READ_BUFFER_BYTES: usize = 16 << 10;

/// Opens a stream and a WebSocket on it; with it, whether the server took the subprotocol.
///
/// `place` is `host/path?query`. Whoever calls it sets the time limit.
pub(crate) async fn dial<S>(
    stream: impl Future<Output = std::io::Result<S>> + Send,
    place: &str,
    token: &str,
    subprotocol: Option<&'static str>,
    limits: &Limits,
) -> Result<(WebSocketStream<S>, bool), DialFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let other = |error: &dyn std::fmt::Display| DialFailure::Other(error.to_string());
    let stream = stream.await.map_err(|error| other(&error))?;
    let mut request =
        format!("ws://{place}").into_client_request().map_err(|error| other(&error))?;
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
        DialFailure::Other("the token has characters that no header takes".to_owned())
    })?;
    request.headers_mut().insert(AUTHORIZATION, bearer);
    if let Some(name) = subprotocol {
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    let config = limits.websocket().read_buffer_size(READ_BUFFER_BYTES);
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, response)) => {
            let agreed = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
            let agreed = agreed
                .zip(subprotocol)
                .is_some_and(|(agreed, offered)| agreed.as_bytes() == offered.as_bytes());
            Ok((socket, agreed))
        }
        Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(
            SubProtocolError::NoSubProtocol | SubProtocolError::InvalidSubProtocol,
        ))) => Err(DialFailure::ExtensionRefused),
        Err(Error::Http(response)) => Err(DialFailure::Status(response.status().as_u16())),
        Err(error) => Err(other(&error)),
    }
}
