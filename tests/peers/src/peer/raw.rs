//! Bare WebSockets: what the network and the framing cost, and nothing else.
//!
//! Nothing is durable, nobody is authenticated, and no slow reader is noticed; it is the ceiling, and
//! nothing that a user could pick. The server is this very program, in a process of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt as _, StreamExt as _};
use gapless::net::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use super::crowd::{Crowd, Seat, Server};
use crate::failure::{Failure, Result};
use crate::inbox::payload;
use crate::process::Process;

/// The argument that makes this program the server.
pub(crate) const SERVE: &str = "serve-raw";

/// How many events are published with one message.
const BATCH: usize = 256;

/// What a subscriber is told once it is one.
const WELCOME: &str = "welcome";

pub(crate) async fn start() -> Result<Crowd<Raw>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(SERVE);
    let mut process = Process::spawn(command)?;
    let address: SocketAddr = process.line().await?.parse()?;
    let publisher = connect(address).await?;
    Ok(Crowd::new(Raw { process, publisher, address }))
}

async fn connect(address: SocketAddr) -> Result<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(client_async(format!("ws://{address}/"), stream).await?.0)
}

pub(crate) struct Raw {
    process: Process,
    publisher: WebSocketStream<TcpStream>,
    address: SocketAddr,
}

impl Server for Raw {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        numbers: RangeInclusive<u64>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let numbers: Vec<_> = numbers.collect();
            for numbers in numbers.chunks(BATCH) {
                let events: Vec<_> = numbers.iter().map(|number| payload(*number)).collect();
                let text = format!("publish\n{topic}\n{}", events.join("\n"));
                self.publisher.send(Message::text(text)).await?;
                self.publisher.next().await.ok_or_else(|| Failure::new("no answer"))??;
            }
            Ok(())
        })
    }

    fn receive(
        &self,
        topic: &str,
        seat: Arc<Seat>,
        via: SocketAddr,
        ready: oneshot::Sender<()>,
    ) -> BoxFuture<'static, Result<()>> {
        let topic = topic.to_owned();
        Box::pin(async move {
            let mut socket = connect(via).await?;
            let after = seat.inbox.position();
            socket.send(Message::text(format!("subscribe\n{topic}\n{after}"))).await?;
            socket.next().await.ok_or_else(|| Failure::new("no welcome"))??;
            // Whoever does not wait has dropped the other end.
            let _ = ready.send(());
            while let Some(message) = socket.next().await {
                if let Message::Text(text) = message? {
                    seat.inbox.take(text.as_bytes());
                }
            }
            Ok(())
        })
    }
}

type Topics = Arc<Mutex<BTreeMap<String, Topic>>>;

#[derive(Default)]
struct Topic {
    events: Vec<Utf8Bytes>,
    subscribers: Vec<mpsc::UnboundedSender<Utf8Bytes>>,
}

/// Serves until it is killed.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let topics = Topics::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let topics = topics.clone();
        // A connection that breaks is the matter of whoever had opened it.
        tokio::spawn(async move { drop(connection(stream, topics).await) });
    }
}

async fn connection(stream: TcpStream, topics: Topics) -> Result<()> {
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let mut lines = text.lines();
        match (lines.next(), lines.next()) {
            (Some("publish"), Some(topic)) => {
                publish(&topics, topic, lines);
                socket.send(Message::text("stored")).await?;
            }
            (Some("subscribe"), Some(topic)) => {
                let after = lines.next().unwrap_or("0").parse()?;
                let live = subscribe(&topics, topic, after);
                return feed(socket, live).await;
            }
            _ => return Err(Failure::new("neither `publish` nor `subscribe`")),
        }
    }
    Ok(())
}

fn publish<'a>(topics: &Topics, topic: &str, events: impl Iterator<Item = &'a str>) {
    let mut topics = topics.lock().unwrap_or_else(PoisonError::into_inner);
    let topic = topics.entry(topic.to_owned()).or_default();
    for event in events {
        let event = Utf8Bytes::from(event);
        topic.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
        topic.events.push(event);
    }
}

/// The events after a number, and then those that are published.
fn subscribe(topics: &Topics, topic: &str, after: usize) -> mpsc::UnboundedReceiver<Utf8Bytes> {
    let (live, events) = mpsc::unbounded_channel();
    let mut topics = topics.lock().unwrap_or_else(PoisonError::into_inner);
    let topic = topics.entry(topic.to_owned()).or_default();
    for event in topic.events.iter().skip(after) {
        // The other end is still here.
        let _ = live.send(event.clone());
    }
    topic.subscribers.push(live);
    events
}

/// Writes what there is, and flushes when there is no more.
async fn feed(
    mut socket: WebSocketStream<TcpStream>,
    mut events: mpsc::UnboundedReceiver<Utf8Bytes>,
) -> Result<()> {
    socket.send(Message::text(WELCOME)).await?;
    loop {
        tokio::select! { biased;
            event = events.recv() => {
                let Some(event) = event else { return Ok(()) };
                socket.feed(Message::Text(event)).await?;
                while let Ok(event) = events.try_recv() {
                    socket.feed(Message::Text(event)).await?;
                }
                socket.flush().await?;
            }
            message = socket.next() => match message {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
        }
    }
}
