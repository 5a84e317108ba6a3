//! The server: one log on its disk, from which every connection reads by itself.

use std::collections::BTreeMap;
use std::error::Error;

use gapless_sim::custom::external::{mark, rusqlite};
use gapless_sim::custom::{Connection, Database, Node};
use rusqlite::params;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::ServerOptions;
use super::wire::{SILENCE, Socket, ToClient, ToServer};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS messages (
    topic TEXT, seq INTEGER, key TEXT,
    PRIMARY KEY (topic, seq), UNIQUE (topic, key)) STRICT";

/// A life of the server.
pub(super) async fn serve(node: Node) -> Result<(), Box<dyn Error>> {
    let log = Log { database: node.database(SCHEMA).await, grew: watch::Sender::new(()) };
    let page = node.options::<ServerOptions>()?.page;
    let mut listener = node.listen().await?;
    loop {
        let connection = listener.accept().await?;
        let log = log.clone();
        node.spawn(async move {
            // A connection that breaks is the client's to open again.
            let _ = talk(connection, &log, page).await;
        });
    }
}

async fn talk(
    connection: Connection,
    log: &Log,
    page: u32,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut socket = Socket(tokio_tungstenite::accept_async(connection).await?);
    let mut grew = log.grew.subscribe();
    // The number up to which each topic was sent.
    let mut subscriptions: BTreeMap<String, u64> = BTreeMap::new();
    let mut heard = Instant::now();
    loop {
        for (topic, after) in &mut subscriptions {
            loop {
                let messages = log.read(topic, *after, page).await?;
                for (seq, key) in &messages {
                    let (topic, key) = (topic.clone(), key.clone());
                    socket.send(&ToClient::Message { topic, seq: *seq, key }).await?;
                    *after = *seq;
                }
                if messages.is_empty() {
                    break;
                }
            }
        }
        tokio::select! { biased;
            frame = socket.receive() => {
                heard = Instant::now();
                match frame? {
                    ToServer::Subscribe { topic, after } => {
                        if after > 0 {
                            mark!("pubsub.resumed");
                        }
                        subscriptions.insert(topic, after);
                    }
                    ToServer::Publish { topic, key } => {
                        let seq = log.append(&topic, &key).await?;
                        mark!("pubsub.stored");
                        socket.send(&ToClient::Published { topic, seq, key }).await?;
                    }
                    ToServer::Ping => socket.send(&ToClient::Pong).await?,
                }
            }
            changed = grew.changed() => changed?,
            () = sleep_until(heard + SILENCE) => return Ok(()),
        }
    }
}

#[derive(Clone)]
struct Log {
    database: Database,
    /// Tells all connections that there is more to read.
    grew: watch::Sender<()>,
}

impl Log {
    /// The number of a message, which is stored unless it was already.
    async fn append(&self, topic: &str, key: &str) -> rusqlite::Result<u64> {
        let what = format!("stores {key} of {topic}");
        let seq = self.database.write(&what, |transaction| {
            transaction.execute(
                "INSERT OR IGNORE INTO messages
                 SELECT ?1, 1 + coalesce(max(seq), 0), ?2 FROM messages WHERE topic = ?1",
                params![topic, key],
            )?;
            let query = "SELECT seq FROM messages WHERE topic = ?1 AND key = ?2";
            transaction.query_row(query, params![topic, key], |row| row.get(0))
        });
        let seq = seq.await?;
        self.grew.send_replace(());
        Ok(seq)
    }

    /// The messages after a number, up to `count`.
    async fn read(
        &self,
        topic: &str,
        after: u64,
        count: u32,
    ) -> rusqlite::Result<Vec<(u64, String)>> {
        let read = self.database.read(|database| {
            let query =
                "SELECT seq, key FROM messages WHERE topic = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
            let mut query = database.prepare_cached(query)?;
            let rows = query
                .query_map(params![topic, after, count], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        });
        read.await
    }
}
