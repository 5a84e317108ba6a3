//! Mosquitto: QoS 1 and persistent sessions, whose queues are the broker's.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use gapless::net::BoxFuture;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS};
use tokio::process::Command;
use tokio::sync::oneshot;

use super::crowd::{Crowd, Seat, Server};
use crate::failure::{Failure, Result};
use crate::inbox::payload;
use crate::process::{Process, free_address, listening};

/// How many events wait for their acknowledgement at the same time.
const IN_FLIGHT: u16 = 1_000;

/// How many requests may wait for a connection.
const REQUESTS: usize = 1_000;

pub(crate) async fn start() -> Result<Crowd<Mosquitto>> {
    let folder = tempfile::tempdir()?;
    let address = free_address().await?;
    let (port, store) = (address.port(), folder.path().display());
    let config = folder.path().join("mosquitto.conf");
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n\
         persistence true\npersistence_location {store}/\n\
         max_queued_messages 0\nmax_inflight_messages 0\nlog_type none\n\
         {}",
        if rustix::process::geteuid().is_root() { "user root\n" } else { "" }
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new("/usr/sbin/mosquitto");
    command.arg("-c").arg(config);
    let process = Process::spawn(command)?;
    listening(address).await?;
    let (publisher, events) = connect("publisher", address);
    Ok(Crowd::new(Mosquitto { process, publisher, events, address, _folder: folder }))
}

fn connect(name: &str, address: SocketAddr) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, address.ip().to_string(), address.port());
    options
        .set_clean_session(false)
        .set_inflight(IN_FLIGHT)
        .set_keep_alive(Duration::from_secs(60));
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    (client, events)
}

pub(crate) struct Mosquitto {
    process: Process,
    publisher: AsyncClient,
    events: EventLoop,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server for Mosquitto {
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
        let Self { publisher, events, .. } = self;
        Box::pin(async move {
            let mut waiting = numbers.clone().count();
            let publishing = async {
                for number in numbers {
                    publisher.publish(topic, QoS::AtLeastOnce, false, payload(number)).await?;
                }
                Ok::<_, Failure>(())
            };
            let acknowledging = async {
                while waiting > 0 {
                    if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
                        waiting -= 1;
                    }
                }
                Ok::<_, Failure>(())
            };
            tokio::try_join!(publishing, acknowledging)?;
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
            let (client, mut events) = connect(&seat.name, via);
            let mut ready = Some(ready);
            loop {
                match events.poll().await? {
                    Event::Incoming(Packet::ConnAck(welcome)) if !welcome.session_present => {
                        client.subscribe(&topic, QoS::AtLeastOnce).await?;
                    }
                    Event::Incoming(Packet::SubAck(_)) => {
                        // Whoever does not wait has dropped the other end.
                        let _ = ready.take().map(|ready| ready.send(()));
                    }
                    Event::Incoming(Packet::Publish(event)) => seat.inbox.take(&event.payload),
                    Event::Incoming(_) | Event::Outgoing(_) => {}
                }
            }
        })
    }
}
