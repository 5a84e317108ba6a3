//! The three protocols on one port.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use crate::events::driver::EventService;
use crate::net::http::{self, Service};
use crate::session::driver::SessionService;
use crate::tasks::driver::ControllerService;

/// Hands each request to the protocol that its path belongs to.
///
/// | path | protocol |
/// |---|---|
/// | `/v1/ws`, `/v1/agents/…` | events |
/// | `/v1/tasks…`, `/api/v1/…` | tasks |
/// | `/ws`, `/` | sessions |
/// | `/healthz`, `/health` | 204, whatever the state of the stores |
#[derive(Clone)]
pub struct Gateway {
    /// Event streams.
    pub events: EventService,
    /// Tasks.
    pub tasks: ControllerService,
    /// Sessions, and their page.
    pub sessions: SessionService,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Events,
    Tasks,
    Sessions,
}

fn protocol(path: &str) -> Option<Protocol> {
    match path {
        "/v1/ws" | "/healthz" => Some(Protocol::Events),
        "/ws" | "/health" | "/" => Some(Protocol::Sessions),
        "/v1/tasks" => Some(Protocol::Tasks),
        path if path.starts_with("/v1/agents/") => Some(Protocol::Events),
        path if path.starts_with("/v1/tasks/") || path.starts_with("/api/v1/") => {
            Some(Protocol::Tasks)
        }
        _ => None,
    }
}

impl Service for Gateway {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match protocol(request.uri().path()) {
            Some(Protocol::Events) => self.events.call(request).await,
            Some(Protocol::Tasks) => self.tasks.call(request).await,
            Some(Protocol::Sessions) => self.sessions.call(request).await,
            None => http::error(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_protocol_that_serves_it() {
        let expected = [
            ("/v1/ws", Some(Protocol::Events)),
            ("/v1/agents/a/events", Some(Protocol::Events)),
            ("/v1/tasks", Some(Protocol::Tasks)),
            ("/v1/tasks/t/attempts", Some(Protocol::Tasks)),
            ("/api/v1/agents/ws", Some(Protocol::Tasks)),
            ("/ws", Some(Protocol::Sessions)),
            ("/", Some(Protocol::Sessions)),
            ("/v1/tasksandmore", None),
            ("/v1", None),
            ("/metrics", None),
        ];
        for (path, belongs_to) in expected {
            assert_eq!(protocol(path), belongs_to, "{path}");
        }
    }
}
