//! What comes to a node that is a server: WebSockets that want to be taken, and requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gapless::events::wire::SUBPROTOCOL as EVENTS;
use gapless::net::http::{self, HttpConfig, Service};
use gapless::net::{Limits, Socket as WebSocket};
use gapless::session::wire::SUBPROTOCOL as SESSION;
use gapless::tasks::wire::EXTENSION as TASKS;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use turmoil::net::TcpListener;

use super::sockets::{Socket, Task, Wants};
use super::{Happening, Outside};
use crate::conform::{Conn, Event};
use crate::world::host::Process;
use crate::world::limits;
use crate::world::link::PORT;
use crate::world::traced::TracedListener;

/// Somebody wants something of the node.
pub(super) enum Call {
    /// A WebSocket; what becomes of it goes to `answer`.
    Socket { socket: Socket, answer: oneshot::Sender<Decision> },
    /// An answer.
    Request { answer: oneshot::Sender<Answer> },
}

/// What becomes of a WebSocket.
pub(super) enum Decision {
    /// It is taken, with this subprotocol.
    Accept(Option<&'static str>),
    Refuse(Answer),
}

/// The answer to a request.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 256 << 10;

/// The subprotocols that a server may take.
const PROTOCOLS: [&str; 3] = [EVENTS, SESSION, TASKS];

/// A subprotocol by its name.
pub(super) fn protocol(name: &str) -> Option<&'static str> {
    PROTOCOLS.into_iter().find(|known| *known == name)
}

/// Listens on the host of a node.
pub(super) async fn listen(
    process: Process,
    wants: Wants,
    outside: Outside,
) -> std::io::Result<()> {
    let listener =
        TracedListener { listener: TcpListener::bind(("0.0.0.0", PORT)).await?, process };
    let service = NodeService { outside, wants, limits: limits(), names: Arc::default() };
    let config = HttpConfig { date_header: false, ..HttpConfig::default() };
    http::serve(listener, service, config, std::future::pending()).await;
    Ok(())
}

/// Passes on what comes.
#[derive(Clone)]
struct NodeService {
    outside: Outside,
    wants: Wants,
    limits: Limits,
    /// The last name that was given to a connection, or to a request.
    names: Arc<AtomicU64>,
}

impl NodeService {
    fn name(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn socket(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let conn = self.name();
        let (orders, inbox) = mpsc::unbounded_channel();
        let (answer, decision) = oneshot::channel();
        let event =
            Event::SockRequest { conn, target: target(&request), headers: headers(&request) };
        let call = Call::Socket { socket: Socket::new(orders), answer };
        self.outside.called(event, call);
        let protocol = match decision.await {
            Ok(Decision::Accept(protocol)) => protocol,
            Ok(Decision::Refuse(answer)) => return response(answer),
            Err(_) => return http::empty(StatusCode::SERVICE_UNAVAILABLE),
        };
        match http::upgrade(request, protocol, &self.limits) {
            Ok(http::Upgrade { response, pending, subprotocol }) => {
                let protocol = protocol.filter(|_| subprotocol).map(str::to_owned);
                let task = Task::new(conn, self.wants, self.outside.clone(), inbox);
                tokio::spawn(self.clone().serve(pending, protocol, task));
                response
            }
            Err(http::NotAnUpgrade) => {
                self.outside.happened(Event::SockClose { conn, code: None });
                http::empty(StatusCode::UPGRADE_REQUIRED)
            }
        }
    }

    async fn serve(self, pending: http::PendingSocket, protocol: Option<String>, task: Task) {
        let conn = task.conn();
        match pending.open().await {
            Some(stream) => {
                self.outside.happened(Event::SockOpen { conn, protocol });
                task.serve(WebSocket::new(stream, &self.limits)).await;
            }
            None => self.outside.happened(Event::SockClose { conn, code: None }),
        }
    }

    async fn request(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let id = self.name();
        let (method, target) = (request.method().to_string(), target(&request));
        let headers = headers(&request);
        let body = match http::body(request, BODY_BYTES_MAX, BODY_TIMEOUT).await {
            Ok(body) => String::from_utf8_lossy(&body).into_owned(),
            Err(http::BodyError::TooLarge) => return http::empty(StatusCode::PAYLOAD_TOO_LARGE),
            Err(http::BodyError::Broken) => return http::empty(StatusCode::BAD_REQUEST),
        };
        let (answer, given) = oneshot::channel();
        let event = Event::HttpRequest { id, method, target, headers, body };
        self.outside.called(event, Call::Request { answer });
        given.await.map_or_else(|_| http::empty(StatusCode::SERVICE_UNAVAILABLE), response)
    }
}

impl Service for NodeService {
    async fn call(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let upgrades = request.headers().contains_key(hyper::header::UPGRADE);
        match upgrades {
            true => self.socket(request).await,
            false => self.request(request).await,
        }
    }
}

fn target(request: &Request<Incoming>) -> String {
    request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned()
}

/// The headers, without those of the WebSocket's handshake, whose key comes from the operating
/// system.
fn headers(request: &Request<Incoming>) -> Vec<(String, String)> {
    let headers = request.headers().iter();
    let told = headers.filter(|(name, _)| **name != hyper::header::SEC_WEBSOCKET_KEY);
    told.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &answer.headers {
        let pair = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value));
        if let (Ok(name), Ok(value)) = pair {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// The calls that the node has not answered.
#[derive(Default)]
pub(super) struct Calls {
    sockets: BTreeMap<Conn, oneshot::Sender<Decision>>,
    requests: BTreeMap<u64, oneshot::Sender<Answer>>,
}

impl Calls {
    pub(super) fn socket(&mut self, conn: Conn, answer: oneshot::Sender<Decision>) {
        self.sockets.insert(conn, answer);
    }

    pub(super) fn request(&mut self, id: u64, answer: oneshot::Sender<Answer>) {
        self.requests.insert(id, answer);
    }

    /// Answers a WebSocket; whether it waited for that.
    pub(super) fn decide(&mut self, conn: Conn, decision: Decision) -> bool {
        let answer = self.sockets.remove(&conn);
        // Whoever asked may have gone.
        answer.map(|answer| answer.send(decision)).is_some()
    }

    /// Answers a request; whether it waited for that.
    pub(super) fn answer(&mut self, id: u64, answer: Answer) -> bool {
        self.requests.remove(&id).map(|waiting| waiting.send(answer)).is_some()
    }
}

/// The names of the simulator's own requests begin here, above those of what comes over the network.
const OWN_NAMES: u64 = 1 << 32;

/// Asks a node for something, without a network in between.
pub(in crate::world) struct Inquirer {
    outside: Outside,
    token: String,
    asked: u64,
}

impl Inquirer {
    /// Asks with a bearer token.
    pub(in crate::world) fn new(outside: &Outside, token: &str) -> Self {
        Self { outside: outside.clone(), token: token.to_owned(), asked: 0 }
    }

    /// Status and body of the answer; `None` if the node gives none.
    pub(in crate::world) async fn get(&mut self, target: String) -> Option<(u16, String)> {
        self.asked += 1;
        let headers = vec![("authorization".to_owned(), format!("Bearer {}", self.token))];
        let (id, method) = (OWN_NAMES + self.asked, "GET".to_owned());
        let (answer, given) = oneshot::channel();
        let event = Event::HttpRequest { id, method, target, headers, body: String::new() };
        self.outside.called(event, Call::Request { answer });
        given.await.ok().map(|answer| (answer.status, answer.body))
    }
}

impl Outside {
    fn called(&self, event: Event, call: Call) {
        // A node that is gone answers nobody.
        let _ = self.happenings.send(Happening { event: Some(event), call: Some(call) });
    }
}
