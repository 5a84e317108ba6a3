//! Socket.IO with connection state recovery, server and client on Node.js.
//!
//! No Rust client knows recovery, so the receivers are those of `socket.io-client`, in one process.
//! They report the numbers that they were given, and those are judged here like all others.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use gapless::net::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Arrivals, Peer};
use crate::failure::{Failure, Result};
use crate::process::Process;
use crate::tally::Counts;

/// Where the scripts are.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("socket-io")
}

pub(crate) async fn start() -> Result<SocketIo> {
    let node = |script| {
        let mut command = Command::new("node");
        command.arg(folder().join(script));
        Process::spawn(command)
    };
    let (mut server, receivers) = (node("server.mjs")?, node("receivers.mjs")?);
    let port: u16 = server.line().await?.parse()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Ok(SocketIo { server, receivers, address })
}

pub(crate) struct SocketIo {
    server: Process,
    receivers: Process,
    address: SocketAddr,
}

impl SocketIo {
    async fn tell_receivers(&mut self, request: Value) -> Result<String> {
        ask(&mut self.receivers, request).await
    }
}

/// One request, one answer.
async fn ask(process: &mut Process, request: Value) -> Result<String> {
    process.say(&request.to_string()).await?;
    let answer = process.line().await?;
    match answer.strip_prefix("error ") {
        Some(problem) => Err(Failure::new(problem)),
        None => Ok(answer),
    }
}

#[derive(Deserialize)]
struct Collected {
    /// What each receiver was given.
    numbers: Vec<Vec<u64>>,
    last: u64,
    took_ns: Option<u64>,
}

impl Peer for SocketIo {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn resident_bytes(&self) -> Result<u64> {
        self.server.resident_bytes()
    }

    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        numbers: RangeInclusive<u64>,
    ) -> BoxFuture<'a, Result<()>> {
        let request = json!({ "topic": topic, "first": numbers.start(), "last": numbers.end() });
        Box::pin(async move { ask(&mut self.server, request).await.map(drop) })
    }

    fn enter<'a>(
        &'a mut self,
        topic: &'a str,
        count: usize,
        via: SocketAddr,
    ) -> BoxFuture<'a, Result<()>> {
        let request = json!({ "do": "enter", "topic": topic, "count": count, "port": via.port() });
        Box::pin(async move { self.tell_receivers(request).await.map(drop) })
    }

    fn cut(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { self.tell_receivers(json!({ "do": "cut" })).await.map(drop) })
    }

    fn expect(&mut self, last: u64) -> BoxFuture<'_, Result<()>> {
        let request = json!({ "do": "expect", "last": last });
        Box::pin(async { self.tell_receivers(request).await.map(drop) })
    }

    fn resume(&mut self, _via: SocketAddr) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { self.tell_receivers(json!({ "do": "resume" })).await.map(drop) })
    }

    fn collect(&mut self, quiet: Duration) -> BoxFuture<'_, Result<Arrivals>> {
        let quiet_ms = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        Box::pin(async move {
            let request = json!({ "do": "collect", "quiet_ms": quiet_ms });
            let answer = self.tell_receivers(request).await?;
            let Collected { numbers, last, took_ns } = serde_json::from_str(&answer)?;
            let mut counts = Counts::default();
            for numbers in &numbers {
                counts += Counts::of(numbers, last);
            }
            Ok(Arrivals { counts, took: took_ns.map(Duration::from_nanos) })
        })
    }
}
