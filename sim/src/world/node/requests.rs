//! The HTTP requests of a node: each over a connection of its own, through the link.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gapless::net::{RequestError, Requester};
use http_body_util::Full;
use hyper::Request;
use hyper::header::{HOST, HeaderValue};

use super::Outside;
use crate::conform::Event;
use crate::world::link::LinkConnector;

/// How long connecting, and then an answer, may take. Whoever wants to wait for less gives up
/// earlier, and does not listen to the answer.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// A request as it goes over the wire; a sentence if it makes none.
pub(super) fn request(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: String,
) -> Result<Request<Full<Bytes>>, String> {
    let uri: hyper::Uri = url.parse().map_err(|error| format!("{error}"))?;
    let host = uri.authority().ok_or("it names no host")?.as_str();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = HeaderValue::from_str(host).map_err(|error| error.to_string())?;
    let mut request = Request::builder().method(method).uri(path).header(HOST, host);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Full::new(body.into())).map_err(|error| error.to_string())
}

/// Sends a request, and tells the node of its answer.
pub(super) fn send(
    id: u64,
    connector: &Arc<LinkConnector>,
    request: Request<Full<Bytes>>,
    outside: Outside,
) {
    let connector = Arc::clone(connector);
    tokio::spawn(async move {
        let answer = Requester::new(REQUEST_MAX).send(&*connector, request).await;
        outside.happened(match answer {
            Ok((status, body)) => {
                let body = String::from_utf8_lossy(&body).into_owned();
                Event::HttpResponse { id, status: status.as_u16(), body }
            }
            Err(RequestError::NotSent(message)) => Event::HttpError { id, not_sent: true, message },
            Err(RequestError::Unknown(message)) => {
                Event::HttpError { id, not_sent: false, message }
            }
        });
    });
}
