//! The server's core over sockets and HTTP.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::application::Application;
use crate::Core;
use crate::net::http::Service;
use crate::net::{Access, Limits};
use crate::session::conversation::Command;
use crate::session::server::{Input, Output};
use crate::storage::Store;

/// The limits of the task that runs a server's core.
#[derive(Debug, Clone)]
pub struct ServerTaskConfig {
    /// How many requests may wait for the core: 1,024.
    pub requests_max: usize,
    /// How many commands are joined to one transaction: 256.
    pub batch_max: usize,
}

impl Default for ServerTaskConfig {
    fn default() -> Self {
        Self { requests_max: 1_024, batch_max: 256 }
    }
}

/// Talks to the task that runs a server's core.
#[derive(Debug, Clone)]
pub struct ServerHandle {}

/// A server: a handle, and the future that runs it until the last handle is dropped.
pub fn server<C, S>(
    core: C,
    store: S,
    application: Arc<dyn Application>,
    config: ServerTaskConfig,
) -> (ServerHandle, impl Future<Output = ()> + Send)
where
    C: Core<Input = Input, Output = Output>,
    S: Store<Command>,
{
    let _ = (core, store, application, config);
    (ServerHandle {}, async {})
}

/// The HTTP side: `GET /ws`, `GET /health`, and `GET /` if there is a page.
#[derive(Clone)]
pub struct SessionService {
    handle: ServerHandle,
    access: Arc<dyn Access>,
    limits: Limits,
    extension: bool,
    page: Option<&'static str>,
}

impl SessionService {
    /// Serves the conversations of a server; a conversation belongs to the principal of a token.
    /// `extension` is that of the core's configuration.
    pub fn new(
        handle: ServerHandle,
        access: Arc<dyn Access>,
        limits: Limits,
        extension: bool,
    ) -> Self {
        Self { handle, access, limits, extension, page: None }
    }

    /// Serves a page of HTML on `/`.
    pub fn with_page(self, page: &'static str) -> Self {
        Self { page: Some(page), ..self }
    }
}

impl Service for SessionService {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let _ = (request, &self.handle, &self.access, &self.limits, self.extension, self.page);
        todo!()
    }
}
