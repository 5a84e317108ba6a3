//! The frames: JSON, one object in each text frame of a WebSocket.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gapless_sim::custom::Connection;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long a peer may say nothing, or take nothing, before its connection counts as dead.
pub(super) const SILENCE: Duration = Duration::from_secs(4);

/// What a client says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ToServer {
    /// Send me what comes after this number; 0 is before the first.
    Subscribe { topic: String, after: u64 },
    /// Store this. Of messages with the same key only the first is stored.
    Publish { topic: String, key: String },
    /// I am there.
    Ping,
}

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ToClient {
    /// A message of a topic that you have subscribed to.
    Message { topic: String, seq: u64, key: String },
    /// What you have published is stored.
    Published { topic: String, seq: u64, key: String },
    /// I am there as well.
    Pong,
}

/// One end of a connection.
pub(super) struct Socket(pub(super) WebSocketStream<Connection>);

impl Socket {
    /// The next frame that can be read; whatever else happens ends the connection.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Ok(serde_json::from_str(&text)?),
            Some(Err(error)) => Err(io::Error::other(error)),
            Some(Ok(_)) | None => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    pub(super) async fn send(&mut self, frame: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(frame)?;
        let sent = tokio::time::timeout(SILENCE, self.0.send(Message::text(text))).await;
        sent?.map_err(io::Error::other)
    }
}
