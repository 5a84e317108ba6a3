//! A client: it publishes and subscribes, and handles one message after the other.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::io;
use std::time::Duration;

use gapless_sim::custom::external::mark;
use gapless_sim::custom::external::rand::RngExt;
use gapless_sim::custom::{Node, Work};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::wire::{SILENCE, Socket, ToClient, ToServer};
use super::{ClientOptions, RESUMES_AFTER_RECEIVED, Seen, Wish};

/// How often the server is told that the client is there.
const PING_EVERY: Duration = Duration::from_secs(1);

/// How many messages may wait to be handled before no more are read.
const QUEUE_MAX: usize = 32;

/// How many messages that it publishes are on their way at once. They have to fit into the network: a
/// client that waits until it can write does not read, and neither does a server.
const WINDOW: usize = 8;

/// A life of a client.
pub(super) async fn live(node: Node) -> Result<(), Box<dyn Error>> {
    let options: ClientOptions = node.options()?;
    let mut rng = node.rng("reconnect");
    let handler = Duration::from_millis(options.handler_ms);
    let mut client =
        Client { node, handler, topics: BTreeMap::new(), outbox: VecDeque::new(), published: 0 };
    loop {
        if let Ok(Ok(socket)) = timeout(SILENCE, connect(&client.node)).await
            && let Err(error) = client.follow(socket).await
        {
            client.node.note(&format!("is disconnected: {}", error.kind()));
        }
        sleep(Duration::from_millis(rng.random_range(0..=options.reconnect_ms))).await;
    }
}

async fn connect(node: &Node) -> io::Result<Socket> {
    let url = format!("ws://{}/", node.server_name());
    let opened = tokio_tungstenite::client_async(url, node.connect().await?).await;
    Ok(Socket(opened.map_err(io::Error::other)?.0))
}

struct Client {
    node: Node,
    /// How long a message is handled.
    handler: Duration,
    topics: BTreeMap<String, Progress>,
    /// What was published and is not known to be stored.
    outbox: VecDeque<(String, String)>,
    /// How many messages this life has published.
    published: u64,
}

/// How far a client is in a topic.
#[derive(Default)]
struct Progress {
    received: u64,
    handled: u64,
}

impl Client {
    /// Does everything that is done on one connection, until it breaks.
    async fn follow(&mut self, mut socket: Socket) -> io::Result<()> {
        for (topic, progress) in &self.topics {
            // What was received and not handled was in the queue of the last connection, and is gone.
            let after = match self.node.is_mutant(RESUMES_AFTER_RECEIVED) {
                false => progress.handled,
                true => progress.received,
            };
            socket.send(&ToServer::Subscribe { topic: topic.clone(), after }).await?;
        }
        // How many of the outbox are on their way, the first ones.
        let mut sent = 0;
        let mut queue: VecDeque<(String, u64, String)> = VecDeque::new();
        let (mut heard, mut ping, mut done) = (Instant::now(), Instant::now(), Instant::now());
        let ended = loop {
            while let Some((topic, key)) = self.outbox.get(sent).filter(|_| sent < WINDOW) {
                let (topic, key) = (topic.clone(), key.clone());
                socket.send(&ToServer::Publish { topic, key }).await?;
                sent += 1;
            }
            tokio::select! { biased;
                frame = socket.receive(), if queue.len() < QUEUE_MAX => {
                    heard = Instant::now();
                    match frame {
                        Err(error) => break error,
                        Ok(ToClient::Message { topic, seq, key }) => {
                            self.topics.entry(topic.clone()).or_default().received = seq;
                            if queue.is_empty() {
                                done = heard + self.handler;
                            }
                            queue.push_back((topic, seq, key));
                        }
                        Ok(ToClient::Published { topic, seq, key }) => {
                            if let Some(at) = self.outbox.iter().position(|(_, it)| *it == key) {
                                self.outbox.remove(at);
                                sent -= 1;
                            }
                            self.node.see(&Seen::Published { topic, seq, key });
                        }
                        Ok(ToClient::Pong) => {}
                    }
                }
                () = sleep_until(done), if !queue.is_empty() => {
                    if let Some((topic, seq, key)) = queue.pop_front() {
                        self.topics.entry(topic.clone()).or_default().handled = seq;
                        self.node.see(&Seen::Handles { topic, seq, key });
                    }
                    done = Instant::now() + self.handler;
                    // It does not read while its queue is full, and hears nothing.
                    heard = heard.max(Instant::now() - SILENCE / 2);
                }
                work = self.node.work() => self.obey(&work, &mut socket).await?,
                () = sleep_until(ping) => {
                    ping = Instant::now() + PING_EVERY;
                    socket.send(&ToServer::Ping).await?;
                }
                () = sleep_until(heard + SILENCE) => break io::ErrorKind::TimedOut.into(),
            }
        };
        if !queue.is_empty() {
            mark!("pubsub.queue_lost");
        }
        Err(ended)
    }

    async fn obey(&mut self, work: &Work, socket: &mut Socket) -> io::Result<()> {
        match work.parse().map_err(io::Error::other)? {
            Wish::Subscribe(topic) if self.topics.contains_key(&topic) => Ok(()),
            Wish::Subscribe(topic) => {
                self.topics.insert(topic.clone(), Progress::default());
                self.node.see(&Seen::Subscribes { topic: topic.clone() });
                socket.send(&ToServer::Subscribe { topic, after: 0 }).await
            }
            Wish::Publish { topic, count } => {
                for _ in 0..count {
                    self.published += 1;
                    let (name, life) = (self.node.name(), self.node.life());
                    let key = format!("{name}.{life}-{}", self.published);
                    self.outbox.push_back((topic.clone(), key.clone()));
                    self.node.see(&Seen::Publishes { topic: topic.clone(), key });
                }
                Ok(())
            }
        }
    }
}
