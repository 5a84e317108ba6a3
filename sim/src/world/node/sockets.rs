//! The connections of a node: real WebSockets, each with a task of its own.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gapless::net::{Connector as _, Socket as WebSocket, SocketEvent};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::{
    HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL,
};

use super::Outside;
use crate::conform::{Conn, DialProblem, Event};
use crate::world::limits;
use crate::world::link::LinkConnector;

/// The node's end of a connection; dropping it gives the connection up.
pub(super) struct Socket {
    orders: mpsc::UnboundedSender<Order>,
}

/// What a node wants of a connection.
pub(super) enum Order {
    Send(String),
    Ping,
    Read(bool),
    Close(u16),
}

/// What a node wants to be told of a connection.
#[derive(Clone, Copy)]
pub(super) struct Wants {
    pub(super) sent: bool,
    pub(super) alive: bool,
}

impl Socket {
    /// Begins to open a connection.
    pub(super) fn dial(
        conn: Conn,
        connector: &Arc<LinkConnector>,
        request: Request,
        protocols: Vec<String>,
        wants: Wants,
        outside: Outside,
    ) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let stream = connector.connect();
        tokio::spawn(async move {
            let mut task = Task::new(conn, wants, outside, inbox);
            let opening = async {
                let stream = stream.await.map_err(Error::Io)?;
                client_async_with_config(request, stream, Some(limits().websocket())).await
            };
            let opened = tokio::select! { biased;
                () = given_up(&mut task.inbox) => {
                    // One that was never open is over all the same.
                    return task.outside.happened(Event::SockClose { conn, code: None });
                }
                opened = opening => opened,
            };
            match opened {
                Ok((stream, response)) => {
                    let protocol = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
                    let protocol = protocol.and_then(|name| name.to_str().ok());
                    let protocol = protocol.filter(|name| protocols.iter().any(|it| it == name));
                    let protocol = protocol.map(str::to_owned);
                    task.outside.happened(Event::SockOpen { conn, protocol });
                    task.serve(WebSocket::new(stream, &limits())).await;
                }
                Err(error) => task.outside.happened(refused(conn, &error)),
            }
        });
        Self { orders }
    }

    /// The node's end of a connection that somebody else opens.
    pub(super) fn new(orders: mpsc::UnboundedSender<Order>) -> Self {
        Self { orders }
    }

    pub(super) fn order(&self, order: Order) {
        // A task that has ended has said that the connection is over.
        let _ = self.orders.send(order);
    }
}

/// The node closes the connection, or has gone.
async fn given_up(inbox: &mut mpsc::UnboundedReceiver<Order>) {
    // Nothing can be sent, and reading not be stopped, before the connection is open.
    while !matches!(inbox.recv().await, None | Some(Order::Close(_))) {}
}

fn refused(conn: Conn, error: &Error) -> Event {
    let (problem, status, body) = match error {
        Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(body).into_owned();
            (DialProblem::Status, Some(response.status().as_u16()), body)
        }
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            (DialProblem::Subprotocol, None, String::new())
        }
        _ => (DialProblem::Network, None, String::new()),
    };
    Event::SockError { conn, problem, status, body, message: error.to_string() }
}

/// The request that opens a WebSocket; a sentence if it makes none.
pub(super) fn request(
    url: &str,
    headers: &[(String, String)],
    protocols: &[String],
) -> Result<Request, String> {
    let mut request = url.into_client_request().map_err(|error| error.to_string())?;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
    for (name, text) in headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|error| error.to_string())?;
        request.headers_mut().append(name, value(text)?);
    }
    if !protocols.is_empty() {
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value(&protocols.join(", "))?);
    }
    Ok(request)
}

/// What serves an open connection.
pub(super) struct Task {
    conn: Conn,
    wants: Wants,
    outside: Outside,
    inbox: mpsc::UnboundedReceiver<Order>,
}

impl Task {
    pub(super) fn new(
        conn: Conn,
        wants: Wants,
        outside: Outside,
        inbox: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self { conn, wants, outside, inbox }
    }

    pub(super) fn conn(&self) -> Conn {
        self.conn
    }

    /// Until the connection is over.
    pub(super) async fn serve<S>(mut self, mut socket: WebSocket<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let conn = self.conn;
        let mut reading = true;
        loop {
            let event = tokio::select! { biased;
                order = self.inbox.recv() => match order {
                    Some(Order::Send(text)) => {
                        socket.queue(text.into());
                        continue;
                    }
                    Some(Order::Ping) => {
                        socket.queue_ping();
                        continue;
                    }
                    Some(Order::Read(on)) => {
                        reading = on;
                        continue;
                    }
                    Some(Order::Close(code)) => {
                        socket.close(code, "").await;
                        return self.outside.happened(Event::SockClose { conn, code: Some(code) });
                    }
                    // The node is gone, and its connections break.
                    None => return,
                },
                event = socket.next(reading) => event,
            };
            match event {
                SocketEvent::Wrote(frames) if self.wants.sent => {
                    self.outside.happened(Event::SockSent { conn, count: frames as u64 });
                }
                SocketEvent::Alive if self.wants.alive => {
                    self.outside.happened(Event::SockAlive { conn });
                }
                SocketEvent::Wrote(_) | SocketEvent::Alive => {}
                SocketEvent::Text(text) => {
                    let text = Some(text.as_str().to_owned());
                    self.outside.happened(Event::SockMessage { conn, text, b64: None });
                }
                SocketEvent::Binary(bytes) => {
                    let b64 = Some(STANDARD.encode(bytes));
                    self.outside.happened(Event::SockMessage { conn, text: None, b64 });
                }
                SocketEvent::Closed { code } => {
                    self.outside.happened(Event::SockClose { conn, code });
                    if code == Some(1009) {
                        socket.close(1009, "the message is too large").await;
                    }
                    return;
                }
            }
        }
    }
}
