//! A peer of the previous release, played from its tape.

use std::collections::BTreeMap;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use crate::support::{Line, PATIENCE};

/// What a server need not say as often as it did then: signs of life, progress, and what is joined.
const OPTIONAL: [&str; 5] = ["ack", "notification", "ping", "task.query", "thinking"];

/// One side of a tape, on a connection.
pub(crate) struct Played {
    socket: WebSocketStream<TcpStream>,
    /// Everything that the other side said.
    pub(crate) heard: Vec<String>,
    /// The ids of messages on the tape, and those that stand in their place now.
    ids: BTreeMap<String, String>,
}

impl Played {
    fn new(socket: WebSocketStream<TcpStream>) -> Self {
        Self { socket, heard: Vec::new(), ids: BTreeMap::new() }
    }

    /// Connects as a client did.
    pub(crate) async fn connect(
        url: &str,
        subprotocol: Option<&'static str>,
        headers: &[(&'static str, String)],
    ) -> Self {
        let mut request = url.into_client_request().expect("a URL");
        if let Some(name) = subprotocol {
            let value = HeaderValue::from_static(name);
            request.headers_mut().insert("sec-websocket-protocol", value);
        }
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).expect("a header");
            request.headers_mut().insert(*name, value);
        }
        let address = request.uri().authority().expect("a host").to_string();
        let stream = TcpStream::connect(address).await.expect("it listens");
        let (socket, response) = client_async(request, stream).await.expect("it is let in");
        let agreed = response.headers().get("sec-websocket-protocol");
        assert_eq!(agreed.map(HeaderValue::as_bytes), subprotocol.map(str::as_bytes));
        Self::new(socket)
    }

    /// Says what one side said, each thing once the other has said what it said before it.
    pub(crate) async fn play(&mut self, tape: &[Line], mine: char) {
        let mut wanted = BTreeMap::new();
        for line in tape.iter().filter(|line| line.mark != '=') {
            if line.mark == mine {
                let text = self
                    .ids
                    .iter()
                    .fold(line.text.clone(), |text, (then, now)| text.replace(then.as_str(), now));
                self.socket.send(Message::text(text)).await.expect("it is connected");
                continue;
            }
            let kind = kind(&line.text);
            if line.mark == '<' && OPTIONAL.contains(&kind.as_str()) {
                continue;
            }
            let count = wanted.entry(kind.clone()).or_insert(0);
            *count += 1;
            let heard = loop {
                let mut alike = self.heard.iter().filter(|text| self::kind(text) == kind);
                match alike.nth(*count - 1) {
                    Some(text) => break text.clone(),
                    None => self.hear(&kind).await,
                }
            };
            if let (Some(then), Some(now)) = (id(&line.text), id(&heard)) {
                self.ids.insert(then, now);
            }
        }
    }

    async fn hear(&mut self, awaited: &str) {
        let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await;
        let frame = frame.unwrap_or_else(|_| panic!("no `{awaited}` after {:#?}", self.heard));
        match frame {
            Some(Ok(Message::Text(text))) => self.heard.push(text.to_string()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("{other:?} instead of `{awaited}` after {:#?}", self.heard),
        }
    }
}

/// What a frame is.
fn kind(text: &str) -> String {
    let frame: Value = serde_json::from_str(text).expect("JSON");
    frame["type"].as_str().expect("a type").to_owned()
}

/// What names a frame, if anything does.
fn id(text: &str) -> Option<String> {
    let frame: Value = serde_json::from_str(text).expect("JSON");
    frame["message_id"].as_str().map(str::to_owned)
}

/// A server that says what one said then, on the last of the connections that were asked for then.
pub(crate) async fn server(
    tape: Vec<Line>,
    subprotocol: Option<&'static str>,
) -> (String, JoinHandle<Played>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let playing = tokio::spawn(async move {
        #[expect(clippy::result_large_err, reason = "the shape of tungstenite's callback")]
        let agree = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            if let Some(name) = subprotocol {
                let value = HeaderValue::from_static(name);
                response.headers_mut().insert("sec-websocket-protocol", value);
            }
            Ok(response)
        };
        let mut asked = tape.iter().filter(|line| line.mark == '=').count();
        let socket = loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let socket = accept_hdr_async(stream, agree).await.expect("a handshake");
            asked -= 1;
            if asked == 0 {
                break socket;
            }
        };
        let mut played = Played::new(socket);
        played.play(&tape, '<').await;
        played
    });
    (address, playing)
}
