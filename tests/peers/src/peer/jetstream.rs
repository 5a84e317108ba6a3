//! NATS JetStream: a stream in files, and an ordered consumer that starts after the last number.
//!
//! The position is the receiver's own, as with gapless: an ordered consumer acknowledges nothing.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt as _;
use gapless::net::BoxFuture;
use tokio::process::Command;
use tokio::sync::oneshot;

use super::crowd::{Crowd, Seat, Server};
use crate::failure::{Failure, Result};
use crate::inbox::payload;
use crate::process::{Process, free_address, listening};

/// How many events wait for their acknowledgement at the same time.
const IN_FLIGHT: usize = 1_000;

pub(crate) async fn start() -> Result<Crowd<JetStream>> {
    let folder = tempfile::tempdir()?;
    let address = free_address().await?;
    let mut command = Command::new("nats-server");
    command.args(["--addr", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.args(["--jetstream", "--store_dir"]).arg(folder.path());
    let process = Process::spawn(command)?;
    listening(address).await?;
    let context = jetstream::new(async_nats::connect(address.to_string()).await?);
    Ok(Crowd::new(JetStream { process, context, address, _folder: folder }))
}

pub(crate) struct JetStream {
    process: Process,
    context: jetstream::Context,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server for JetStream {
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
            self.context.get_or_create_stream(of_topic(topic)).await?;
            let numbers: Vec<_> = numbers.collect();
            for numbers in numbers.chunks(IN_FLIGHT) {
                let mut acknowledged = Vec::with_capacity(numbers.len());
                for number in numbers {
                    let payload = payload(*number).into();
                    acknowledged.push(self.context.publish(topic.to_owned(), payload).await?);
                }
                for acknowledged in acknowledged {
                    acknowledged.await?;
                }
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
            let client = async_nats::connect(via.to_string()).await?;
            let after = seat.inbox.position();
            let config = push::OrderedConfig {
                deliver_subject: client.new_inbox(),
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
                ..push::OrderedConfig::default()
            };
            let context = jetstream::new(client);
            let stream = context.get_or_create_stream(of_topic(&topic)).await?;
            let mut events = stream.create_consumer(config).await?.messages().await?;
            // Whoever does not wait has dropped the other end.
            let _ = ready.send(());
            while let Some(event) = events.next().await {
                let event = event.map_err(|error| Failure::new(error.to_string()))?;
                seat.inbox.take(&event.payload);
            }
            Ok(())
        })
    }
}

fn of_topic(topic: &str) -> stream::Config {
    stream::Config {
        name: topic.to_owned(),
        subjects: vec![topic.to_owned()],
        storage: stream::StorageType::File,
        ..stream::Config::default()
    }
}
