//! The publishers' host.

use std::io;
use std::time::Duration;

use gapless::events::driver::{Publication, PublishFailure, Publisher, PublisherConfig};
use gapless::events::server::Receipt;
use gapless::events::wire::EventBody;
use gapless::net::Connector;
use gapless::recovery::BackoffConfig;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use turmoil::net::TcpStream;

use super::SERVER;
use super::server::{PUBLISHER_TOKEN, agent_id};
use crate::history::Seen;
use crate::plan::{Publish, Topology};
use crate::seed::Seed;
use crate::trace::{Fact, Kind};
use crate::world::link::{PORT, Route};
use crate::world::record::Recorder;

/// A step of the workload: its number in the plan, and what to publish.
pub(crate) type Job = (usize, Publish);

/// The name of the host.
pub(crate) const HOST: &str = "publisher";

#[derive(Deserialize)]
struct Keyed {
    key: String,
}

/// The key of an event, which is in its payload.
pub(crate) fn key_of(event: &str) -> Option<String> {
    serde_json::from_str::<Keyed>(event).ok().map(|keyed| keyed.key)
}

struct ServerConnector(Route);

impl Connector for ServerConnector {
    type Stream = TcpStream;

    fn connect(&self) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static {
        TcpStream::connect((self.0.next(), PORT))
    }
}

/// Works off the jobs, each in a task of its own.
pub(crate) async fn work(
    mut jobs: mpsc::UnboundedReceiver<Job>,
    recorder: Recorder,
    seed: Seed,
    silent: bool,
    topology: Topology,
) -> turmoil::Result {
    while let Some((number, publish)) = jobs.recv().await {
        let connector = ServerConnector(super::route(&topology, number as u64));
        let press = Press { connector, host: SERVER.to_owned(), speed: 1, silent };
        tokio::spawn(job(number, publish, recorder.clone(), seed, press));
    }
    std::future::pending().await
}

/// Where a job publishes.
pub(crate) struct Press<N> {
    pub(crate) connector: N,
    /// For the `Host` header.
    pub(crate) host: String,
    /// How much faster than in a plan its time goes.
    pub(crate) speed: u64,
    /// Nobody else tells what the log holds.
    pub(crate) silent: bool,
}

/// Works off one job.
pub(crate) async fn job<N: Connector>(
    number: usize,
    publish: Publish,
    recorder: Recorder,
    seed: Seed,
    press: Press<N>,
) {
    let Press { connector, host, speed, silent } = press;
    let scaled = |ms: u64| Duration::from_millis(ms.div_ceil(speed));
    let config = PublisherConfig {
        timeout: scaled(4_000),
        attempts_max: 12,
        retry: BackoffConfig { min: scaled(200), max: scaled(4_000), jitter_percent: 25 },
    };
    let entropy = seed.stream("publisher", HOST, number as u64);
    let mut publisher = Publisher::new(connector, host, PUBLISHER_TOKEN, config, Box::new(entropy));
    for nth in 1..=publish.count {
        let key = format!("p{number}-{nth}");
        let fill = "x".repeat(publish.bytes as usize);
        let payload = RawValue::from_string(format!(r#"{{"key":"{key}","fill":"{fill}"}}"#))
            .expect("a fixed pattern");
        let publication = Publication {
            agent: agent_id(publish.agent),
            id: publish.ids.then(|| key.clone()),
            kind: "note".to_owned(),
            payload,
            after: None,
        };
        let Publication { id, kind, payload, .. } = &publication;
        if let Ok(body) = EventBody::new(id.as_deref(), kind, payload, usize::MAX) {
            recorder.publishing(publish.agent, &key, body);
        }
        recorder.see(Seen::Publishing { agent: publish.agent, key: key.clone() });
        let first = publisher.publish(&publication).await;
        report(&recorder, publish.agent, &key, &first);
        if let Ok(Receipt { sequence, .. }) = &first
            && silent
        {
            recorder.stored(publish.agent, *sequence);
        }
        if publish.twice && publish.ids && first.is_ok() {
            let second = publisher.publish(&publication).await;
            report(&recorder, publish.agent, &key, &second);
        }
        if publish.every_ms > 0 {
            tokio::time::sleep(scaled(publish.every_ms)).await;
        }
    }
    recorder.worker_ended();
}

fn report(recorder: &Recorder, agent: u32, key: &str, result: &Result<Receipt, PublishFailure>) {
    let key = key.to_owned();
    let fact = Fact::Work(vec![key.clone()]);
    let (text, seen) = match result {
        Ok(Receipt { epoch, sequence }) => (
            format!("published {key} as {sequence}"),
            Seen::Published { agent, key, epoch: epoch.to_string(), sequence: *sequence },
        ),
        Err(PublishFailure::Unknown(problem)) => {
            (format!("does not know about {key}: {problem}"), Seen::PublishUnknown { agent, key })
        }
        Err(problem) => {
            (format!("did not publish {key}: {problem}"), Seen::NotPublished { agent, key })
        }
    };
    recorder.record(HOST, 1, Kind::App, text, Some(fact));
    recorder.see(seen);
}
