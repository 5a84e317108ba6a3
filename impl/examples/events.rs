//! Event streams: a server, a publisher, and a client that is cut off and misses nothing.
//!
//! ```text
//! cargo run -p gapless --example events
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use gapless::AgentId;
use gapless::events::client::{Client, ClientConfig, StartAt};
use gapless::events::driver::{
    Application, EventService, Handled, HandlerError, Publication, Publisher, PublisherConfig,
    ServerTaskConfig, Target, client, handler_fn, server,
};
use gapless::events::server::{Server, ServerConfig};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::net::http::{self, HttpConfig};
use gapless::net::{Limits, SystemClock, TcpConnector, Tokens};
use gapless::recovery::{BackoffConfig, Entropy};
use gapless::storage::Threaded;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use serde_json::value::to_raw_value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Where epochs, ids and jitter come from.
fn entropy() -> Box<dyn Entropy> {
    Box::new(UnwrapErr(SysRng))
}

/// A way to the server, for as long as it is up.
async fn relay(listener: TcpListener, server: String, up: watch::Receiver<bool>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let (server, mut up) = (server.clone(), up.clone());
        tokio::spawn(async move {
            let carry = async {
                let mut far = TcpStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            };
            tokio::select! { biased;
                _ = up.wait_for(|up| !up) => {}
                _ = carry => {}
            }
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let agent = AgentId::parse("greenhouse")?;
    let wall = Arc::new(SystemClock);

    // The server: a core, a durable log, and HTTP. An event is in the log before anybody sees it.
    let log = SqliteLog::open(LogConfig::new(folder.path().join("events.db")))?;
    let config = ServerConfig::default();
    let (extension, event_bytes_max) = (config.extension, config.event_bytes_max);
    let core = Server::new(config, entropy());
    let (handle, task) =
        server(core, Threaded::spawn(log)?, wall.clone(), ServerTaskConfig::default());
    tokio::spawn(task);
    let tokens =
        Tokens::default().publisher("may-publish", "sensor").subscriber("may-read", agent.clone());
    let service = EventService::new(
        handle,
        Arc::new(tokens),
        wall.clone(),
        Limits::default(),
        extension,
        event_bytes_max,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(http::serve(listener, service, HttpConfig::default(), std::future::pending()));

    // The client. Its position moves when the handler is done, never before. It is kept in memory
    // here; `gapless::events::sqlite::SqliteCursor` keeps it in a database.
    let way = TcpListener::bind("127.0.0.1:0").await?;
    let way_address = way.local_addr()?.to_string();
    let (up, is_up) = watch::channel(true);
    tokio::spawn(relay(way, address.clone(), is_up));
    let (took, mut taken) = mpsc::unbounded_channel();
    let application = Application::new(handler_fn(move |offer| {
        let number = offer.event.sequence();
        took.send(number).map_err(|error| HandlerError(error.to_string()))?;
        Ok(Handled::Done)
    }));
    let reconnect = BackoffConfig {
        min: Duration::from_millis(50),
        max: Duration::from_millis(200),
        jitter_percent: 25,
    };
    let config = ClientConfig { start: StartAt::Beginning, reconnect, ..ClientConfig::default() };
    let target = Target::new(way_address.clone(), "may-read");
    let connector = TcpConnector::new(way_address);
    let (client, run) =
        client(Client::new(config, entropy()), connector, target, wall, application);
    let running = tokio::spawn(run);

    // The publisher. An event with an id can be published again and is stored once.
    let connector = TcpConnector::new(address.clone());
    let config = PublisherConfig::default();
    let mut publisher = Publisher::new(connector, address, "may-publish", config, entropy());
    let reading = |number: u64| -> serde_json::Result<Publication> {
        Ok(Publication {
            agent: agent.clone(),
            id: Some(format!("reading-{number}")),
            kind: "reading".to_owned(),
            payload: to_raw_value(&serde_json::json!({ "celsius": 20 + number }))?,
            after: None,
        })
    };
    for number in 1..=3 {
        publisher.publish(&reading(number)?).await?;
    }
    for number in 1..=3 {
        assert_eq!(taken.recv().await, Some(Some(number)));
    }

    // The client is cut off while three more are published, one of them twice.
    up.send(false)?;
    for number in [4, 5, 5, 6] {
        let receipt = publisher.publish(&reading(number)?).await?;
        assert_eq!(receipt.sequence, number);
    }
    assert!(taken.is_empty());
    up.send(true)?;
    publisher.publish(&reading(7)?).await?;
    for number in 4..=7 {
        assert_eq!(taken.recv().await, Some(Some(number)));
    }

    client.stop().await;
    running.await??;
    assert!(taken.is_empty());
    println!("events 1 to 7 came once and in order, over a connection that was cut");
    Ok(())
}
