//! What a server tells a tracer: `tracing` spans with names and fields that stay.
//!
//! | span | from | to | fields |
//! |---|---|---|---|
//! | `gapless.request` | the head of a request | its answer | `method`, `route`, `agent`, `traceparent`, `status` |
//! | `gapless.connection` | the answer to a WebSocket handshake | the last byte | `protocol`, `connection`, `principal`, `agent`, `client_id`, `extension`, `traceparent`, `close_code` |
//!
//! The level of all is `INFO`, their target [`TARGET`]. The request of a handshake is the parent of
//! its connection. What is not known, or does not apply, is left out. No field has a token or a
//! signature in it, nor a path with its query.

use hyper::header::HeaderMap;
use tracing::field::Empty;
use tracing::{Span, info_span};

/// The `tracing` target of the spans.
pub const TARGET: &str = "gapless.trace";

/// What a caller says of the trace that its request belongs to, as in the W3C's Trace Context; `None`
/// if it says nothing, or something else.
pub fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let mut part = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        let is_hex = part.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it));
        is_hex.then_some(part)
    };
    let (version, trace, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_zero = |part: &str| part.bytes().all(|it| it == b'0');
    // Later versions may have more at their end, which nobody knows yet.
    let is_known = version == "00" && parts.next().is_none();
    (is_known && !is_zero(trace) && !is_zero(parent)).then_some(text)
}

/// The span of a request.
pub(crate) fn request(method: &str, headers: &HeaderMap) -> Span {
    info_span!(
        target: TARGET,
        "gapless.request",
        method,
        route = Empty,
        agent = Empty,
        traceparent = traceparent(headers),
        status = Empty,
    )
}

/// Says where the request goes that is being answered: its path, with names in place of what differs.
pub(crate) fn route(route: &'static str) {
    Span::current().record("route", route);
}

/// Says whom the request is about that is being answered.
pub(crate) fn agent(agent: &str) {
    Span::current().record("agent", agent);
}

/// Who is on a connection.
#[derive(Debug, Default)]
pub(crate) struct Connected<'a> {
    pub(crate) protocol: &'static str,
    pub(crate) principal: Option<&'a str>,
    pub(crate) agent: Option<&'a str>,
    pub(crate) client_id: Option<&'a str>,
    pub(crate) extension: Option<bool>,
}

/// The span of a connection.
pub(crate) fn connection(who: &Connected<'_>, headers: &HeaderMap) -> Span {
    let Connected { protocol, principal, agent, client_id, extension } = *who;
    info_span!(
        target: TARGET,
        "gapless.connection",
        protocol,
        connection = Empty,
        principal,
        agent,
        client_id,
        extension,
        traceparent = traceparent(headers),
        close_code = Empty,
    )
}

/// Says the number of the connection that is being served.
pub(crate) fn connection_number(number: u64) {
    Span::current().record("connection", number);
}

/// Says with which code the connection ends that is being served, whichever side has said it; `None`
/// if it breaks off.
pub(crate) fn closed(code: Option<u16>) {
    if let Some(code) = code {
        Span::current().record("close_code", code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_if_it_is_one() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let taken = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().expect("a value"));
            traceparent(&headers).is_some()
        };
        assert!(taken(&format!("00-{trace}-00f067aa0ba902b7-01")));
        for text in [
            String::new(),
            "secret".to_owned(),
            format!("00-{trace}-00f067aa0ba902b7"),
            format!("00-{trace}-00f067aa0ba902b7-01-secret"),
            format!("01-{trace}-00f067aa0ba902b7-01"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}g-00f067aa0ba902b7-01", &trace[1..]),
        ] {
            assert!(!taken(&text), "{text}");
        }
        assert_eq!(traceparent(&HeaderMap::new()), None);
    }
}
