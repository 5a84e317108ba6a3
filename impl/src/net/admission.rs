//! Who may open a WebSocket, and how many: what is looked at after the token, and before anything is
//! upgraded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::http;
use crate::{AgentId, mark};

/// Which pages may open WebSockets. A request without `Origin` comes from no page: no browser.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origins {
    /// All of them.
    #[default]
    Any,
    /// Those that come from the same host and port as the request goes to, and these, each as a
    /// browser writes it: `https://app.example`.
    SameHostAnd(Vec<String>),
}

impl Origins {
    fn allow(&self, headers: &HeaderMap) -> bool {
        let (Self::SameHostAnd(others), Some(origin)) = (self, headers.get(ORIGIN)) else {
            return true;
        };
        let Ok(origin) = origin.to_str() else { return false };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let same = host.zip(authority(origin)).is_some_and(|(host, (authority, port))| {
            let host = host.strip_suffix(port).unwrap_or(host);
            host.eq_ignore_ascii_case(authority)
        });
        same || others.iter().any(|other| other.eq_ignore_ascii_case(origin))
    }
}

/// Host and port of an origin, and what the port is if it is not said.
fn authority(origin: &str) -> Option<(&str, &'static str)> {
    let (scheme, authority) = origin.split_once("://")?;
    match scheme {
        "http" => Some((authority, ":80")),
        "https" => Some((authority, ":443")),
        _ => None,
    }
}

/// Limits of WebSockets.
#[derive(Debug, Clone)]
pub struct AdmissionConfig {
    /// Which pages may open them: any.
    pub origins: Origins,
    /// How many may be open at once: 20,000.
    pub sockets_max: usize,
    /// How many of one principal may be open at once: 20,000.
    pub sockets_per_principal_max: usize,
    /// After which time one that was refused for their number may ask again: 5 s.
    pub retry_after: Duration,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            origins: Origins::default(),
            sockets_max: 20_000,
            sockets_per_principal_max: 20_000,
            retry_after: Duration::from_secs(5),
        }
    }
}

/// Who opens a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// The principal of a token.
    Principal(String),
    /// An agent that has signed.
    Agent(AgentId),
}

/// Counts the WebSockets of services that share it: all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Admission(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    config: AdmissionConfig,
    open: Mutex<Open>,
}

/// What is open now.
#[derive(Debug, Default)]
struct Open {
    all: usize,
    of: BTreeMap<Holder, usize>,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// With these limits.
    pub fn new(config: AdmissionConfig) -> Self {
        Self(Arc::new(Shared { config, open: Mutex::default() }))
    }

    /// Lets somebody in, until the returned value is dropped; or the answer: 403 to a page from
    /// elsewhere, 503 with `Retry-After` at a limit.
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        holder: Holder,
    ) -> Result<Admitted, Box<Response<Full<Bytes>>>> {
        let config = &self.0.config;
        if !config.origins.allow(headers) {
            mark!("net.origin_refused");
            let error = "pages of this origin may not connect here";
            return Err(Box::new(http::error(StatusCode::FORBIDDEN, error)));
        }
        let mut open = self.0.open();
        let own = open.of.get(&holder).copied().unwrap_or(0);
        if open.all >= config.sockets_max || own >= config.sockets_per_principal_max {
            mark!("net.socket_limit");
            return Err(Box::new(busy("too many connections", config.retry_after)));
        }
        open.all += 1;
        *open.of.entry(holder.clone()).or_default() += 1;
        drop(open);
        Ok(Admitted { shared: self.0.clone(), holder })
    }
}

/// Somebody who was let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    shared: Arc<Shared>,
    holder: Holder,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.shared.open();
        open.all -= 1;
        if let Some(count) = open.of.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                open.of.remove(&self.holder);
            }
        }
    }
}

/// 503, and when to ask again.
pub(crate) fn busy(error: &str, retry_after: Duration) -> Response<Full<Bytes>> {
    let mut response = http::error(StatusCode::SERVICE_UNAVAILABLE, error);
    let seconds = HeaderValue::from(retry_after.as_secs().max(1));
    response.headers_mut().insert(RETRY_AFTER, seconds);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &'static str, origin: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        headers
    }

    #[test]
    fn a_page_may_connect_to_where_it_comes_from_and_others_only_if_they_are_named() {
        let origins = Origins::SameHostAnd(vec!["https://app.example".to_owned()]);
        for (host, origin, allowed) in [
            ("127.0.0.1:7117", None, true),
            ("127.0.0.1:7117", Some("http://127.0.0.1:7117"), true),
            ("gapless.example", Some("https://gapless.example"), true),
            ("Gapless.example:443", Some("https://gapless.example"), true),
            ("gapless.example:80", Some("http://gapless.example"), true),
            ("gapless.example", Some("https://app.example"), true),
            ("127.0.0.1:7117", Some("http://127.0.0.1:7118"), false),
            ("127.0.0.1:7117", Some("http://127.0.0.1"), false),
            ("gapless.example:443", Some("http://gapless.example"), false),
            ("gapless.example", Some("https://gapless.example.evil.example"), false),
            ("gapless.example", Some("https://evil.example"), false),
            ("gapless.example", Some("http://app.example"), false),
            ("gapless.example", Some("null"), false),
            ("gapless.example", Some(""), false),
            ("gapless.example", Some("file://gapless.example"), false),
        ] {
            let headers = headers(host, origin);
            assert_eq!(origins.allow(&headers), allowed, "{origin:?} to {host}");
            assert!(Origins::Any.allow(&headers));
        }
    }

    #[test]
    fn a_place_is_free_again_when_its_holder_has_gone() {
        let config = AdmissionConfig {
            sockets_max: 3,
            sockets_per_principal_max: 2,
            ..AdmissionConfig::default()
        };
        let admission = Admission::new(config);
        let headers = headers("h", None);
        let admit = |name: &str| admission.admit(&headers, Holder::Principal(name.to_owned()));
        let (first, second) = (admit("a").expect("free"), admit("a").expect("free"));
        let refused = admit("a").expect_err("one has two at most");
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()[RETRY_AFTER], "5");
        let other = admit("b").expect("free");
        admit("c").expect_err("there are three at most");
        drop(second);
        admit("a").expect("free again");
        drop((first, other));
        let open = admission.0.open();
        assert!(open.all == 0 && open.of.is_empty(), "nothing is left of who has gone");
    }
}
