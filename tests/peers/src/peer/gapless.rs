//! `gapless serve` with its own client.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use gapless::events::AgentId;
use gapless::events::client::{Client, ClientConfig, Notice, Offer, Position};
use gapless::events::driver::{
    Application, BATCH_EVENTS_MAX, CursorStore, Handled, Handler, HandlerError, Publication,
    Publisher, PublisherConfig, Target, client,
};
use gapless::net::{BoxFuture, SystemClock, TcpConnector};
use rand::SeedableRng as _;
use rand::rngs::SysRng;
use rand_chacha::ChaCha12Rng;
use serde_json::value::RawValue;
use tokio::process::Command;
use tokio::sync::oneshot;

use super::crowd::{Crowd, Seat, Server};
use super::engine::Engine;
use crate::failure::{Failure, Result};
use crate::inbox::payload;
use crate::process::Process;

/// More than any workload has receivers.
const SOCKETS: &str = "20000";

/// Starts it, with its log on an engine if there is one.
pub(crate) async fn start(program: &Path, engine: Option<Engine>) -> Result<Crowd<Gapless>> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--sockets-per-agent", SOCKETS]);
    command.arg("--data").arg(folder.path());
    if let Some(engine) = &engine {
        command.args(["--log-replicas", "3", "--log", &engine.url()]);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GAPLESS_") {
            command.env_remove(name);
        }
    }
    let mut process = Process::spawn(command)?;
    let first = process.line().await?;
    let address = first
        .split_once("http://")
        .and_then(|(_, rest)| rest.split('/').next()?.parse().ok())
        .ok_or_else(|| Failure::new(format!("the server's first line has no address: {first}")))?;
    let token =
        |name| std::fs::read_to_string(folder.path().join(name)).map(|text| text.trim().to_owned());
    let (publishes, subscribes) = (token("publisher.token")?, token("subscriber.token")?);
    let host = format!("{address}");
    let connector = TcpConnector::new(host.clone());
    let config = PublisherConfig::default();
    let publisher = Publisher::new(connector, host, publishes, config, entropy()?);
    let token = subscribes;
    Ok(Crowd::new(Gapless { process, publisher, address, token, _folder: folder, _engine: engine }))
}

fn entropy() -> Result<Box<ChaCha12Rng>> {
    Ok(Box::new(ChaCha12Rng::try_from_rng(&mut SysRng)?))
}

pub(crate) struct Gapless {
    process: Process,
    publisher: Publisher<TcpConnector>,
    address: SocketAddr,
    token: String,
    _folder: tempfile::TempDir,
    _engine: Option<Engine>,
}

impl Server for Gapless {
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
            let agent = AgentId::parse(topic)?;
            let numbers: Vec<_> = numbers.collect();
            for numbers in numbers.chunks(BATCH_EVENTS_MAX) {
                let publications = numbers.iter().map(|number| {
                    Ok(Publication {
                        agent: agent.clone(),
                        id: Some(format!("{number}")),
                        kind: "message".to_owned(),
                        payload: RawValue::from_string(payload(*number))?,
                        after: None,
                    })
                });
                let publications = publications.collect::<Result<Vec<_>>>()?;
                self.publisher.publish_all(&agent, &publications).await?;
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
        let target = Target::new(self.address.to_string(), format!("{}@{topic}", self.token));
        Box::pin(async move {
            let mut ready = Some(ready);
            let application = Application {
                handlers: vec![Box::new(Counting(seat.clone()))],
                open_handlers: vec![],
                cursor: Box::new(Kept(seat)),
                notices: Box::new(move |notice| {
                    if let Notice::Resynced { .. } = notice
                        && let Some(ready) = ready.take()
                    {
                        // Whoever does not wait has dropped the other end.
                        let _ = ready.send(());
                    }
                }),
            };
            let core = Client::new(ClientConfig::default(), entropy()?);
            let connector = TcpConnector::new(via.to_string());
            let (_handle, running) =
                client(core, connector, target, Arc::new(SystemClock), application);
            running.await.map_err(Failure::new)
        })
    }
}

/// Handles an event, and keeps the position with its effect.
struct Counting(Arc<Seat>);

impl Handler for Counting {
    fn handle<'a>(
        &'a mut self,
        offer: &'a Offer,
    ) -> BoxFuture<'a, std::result::Result<Handled, HandlerError>> {
        self.0.inbox.take(offer.event.bytes());
        keep(&self.0, offer.position.clone());
        Box::pin(async { Ok(Handled::Stored) })
    }
}

/// Keeps the positions that belong to no event.
struct Kept(Arc<Seat>);

impl CursorStore for Kept {
    fn load(&mut self) -> BoxFuture<'_, std::result::Result<Option<Position>, String>> {
        let position = self.0.position.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move { Ok(position) })
    }

    fn save(&mut self, position: Position) -> BoxFuture<'_, std::result::Result<(), String>> {
        keep(&self.0, Some(position));
        Box::pin(async { Ok(()) })
    }
}

fn keep(seat: &Seat, position: Option<Position>) {
    *seat.position.lock().unwrap_or_else(PoisonError::into_inner) = position;
}
