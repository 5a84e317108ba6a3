//! One body, two networks: the drivers run on `tokio::net` and on `turmoil::net` alike.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::events::AgentId;
use gapless::events::client::{Client, ClientConfig, Position, StartAt};
use gapless::events::driver::{
    Application, CursorStore, EventService, Handled, Publication, PublishFailure, Publisher,
    PublisherConfig, ServerTaskConfig, Target, client, handler_fn, server,
};
use gapless::events::log::Command;
use gapless::events::server::{Server, ServerConfig};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::net::http::{HttpConfig, serve};
use gapless::net::{
    BoxFuture, Connector, Limits, Listener, SystemClock, TcpConnector, Tokens, WallClock,
};
use gapless::recovery::{BackoffConfig, WallTime};
use gapless::storage::{Inline, Store, Threaded};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::value::RawValue;

/// What a network has to offer to the body.
struct Arm<L, N, S> {
    listener: L,
    connect: fn() -> N,
    store: S,
    wall: Arc<dyn WallClock>,
}

/// A cursor that outlives the client that moves it.
#[derive(Clone, Default)]
struct SharedCursor(Arc<Mutex<Option<Position>>>);

impl CursorStore for SharedCursor {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Position>, String>> {
        let position = self.0.lock().expect("nobody panicked").clone();
        Box::pin(async move { Ok(position) })
    }

    fn save(&mut self, position: Position) -> BoxFuture<'_, Result<(), String>> {
        *self.0.lock().expect("nobody panicked") = Some(position);
        Box::pin(async { Ok(()) })
    }
}

fn agent() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

fn entropy() -> Box<ChaCha12Rng> {
    Box::new(ChaCha12Rng::seed_from_u64(1))
}

fn publication(key: u32) -> Publication {
    Publication {
        agent: agent(),
        id: Some(format!("id-{key}")),
        kind: "note".to_owned(),
        payload: RawValue::from_string(format!(r#"{{"n":{key}}}"#)).expect("JSON"),
        after: None,
    }
}

/// Waits for a condition, a while.
async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("what was waited for did not come");
}

/// The body: publish, receive, stop, publish, resume; then what cannot be published.
async fn body<L: Listener, N: Connector, S: Store<Command>>(arm: Arm<L, N, S>) {
    let Arm { listener, connect, store, wall } = arm;
    let config = ServerConfig::default();
    let bytes_max = config.event_bytes_max;
    let core = Server::new(config, entropy());
    let (handle, task) = server(core, store, wall.clone(), ServerTaskConfig::default());
    tokio::spawn(task);
    let access = Tokens::default().subscriber("at", agent()).publisher("pt", "somebody");
    let service = EventService::new(
        handle,
        Arc::new(access),
        wall.clone(),
        Limits::default(),
        true,
        bytes_max,
    );
    let http = HttpConfig { date_header: false, ..HttpConfig::default() };
    tokio::spawn(serve(listener, service, http, std::future::pending()));

    let mut publisher =
        Publisher::new(connect(), "server", "pt", PublisherConfig::default(), entropy());
    let cursor = SharedCursor::default();
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let mut published = 0;
    for round in 1..=3_u64 {
        let config = ClientConfig {
            start: StartAt::Beginning,
            reconnect: BackoffConfig {
                min: Duration::from_millis(50),
                max: Duration::from_secs(1),
                jitter_percent: 50,
            },
            ..ClientConfig::default()
        };
        let sink = seen.clone();
        let handler = handler_fn(move |offer| {
            sink.lock().expect("nobody panicked").extend(offer.event.sequence());
            Ok(Handled::Done)
        });
        let application =
            Application { cursor: Box::new(cursor.clone()), ..Application::new(handler) };
        let core = Client::new(config, entropy());
        let target = Target::new("server", "at");
        let (handle, run) = client(core, connect(), target, wall.clone(), application);
        let running = tokio::spawn(run);
        for _ in 0..10 {
            published += 1;
            let receipt = publisher.publish(&publication(published)).await.expect("stored");
            assert_eq!(receipt.sequence, u64::from(published));
        }
        until(|| seen.lock().expect("nobody panicked").len() as u64 == round * 20 - 10).await;
        handle.stop().await;
        running.await.expect("the client ends well").expect("the cursor can be read");
        // Nobody listens to these.
        for _ in 0..10 {
            published += 1;
            publisher.publish(&publication(published)).await.expect("stored");
        }
    }
    let expected: Vec<u64> = (1..=50).collect();
    assert_eq!(*seen.lock().expect("nobody panicked"), expected);

    let again = publisher.publish(&publication(7)).await.expect("stored already");
    assert_eq!(again.sequence, 7);
    let other = Publication {
        payload: RawValue::from_string("{}".to_owned()).expect("JSON"),
        ..publication(7)
    };
    let refused = publisher.publish(&other).await;
    assert!(matches!(refused, Err(PublishFailure::Refused { status: 409, .. })), "{refused:?}");
    let mut stranger =
        Publisher::new(connect(), "server", "at", PublisherConfig::default(), entropy());
    let refused = stranger.publish(&publication(99)).await;
    assert!(matches!(refused, Err(PublishFailure::Refused { status: 403, .. })), "{refused:?}");
    let mut nobody =
        Publisher::new(connect(), "server", "nope", PublisherConfig::default(), entropy());
    let refused = nobody.publish(&publication(99)).await;
    assert!(matches!(refused, Err(PublishFailure::Refused { status: 401, .. })), "{refused:?}");
    let receipt = publisher.publish(&publication(99)).await.expect("nobody has stored it before");
    assert_eq!(receipt.sequence, u64::from(published) + 1);
}

fn log(folder: &tempfile::TempDir) -> SqliteLog {
    SqliteLog::open(LogConfig::new(folder.path().join("log.db"))).expect("the log opens")
}

#[tokio::test]
async fn over_real_sockets() {
    static ADDRESS: Mutex<String> = Mutex::new(String::new());
    let folder = tempfile::tempdir().expect("a folder");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    *ADDRESS.lock().expect("nobody panicked") = listener.local_addr().expect("bound").to_string();
    body(Arm {
        listener,
        connect: || TcpConnector::new(ADDRESS.lock().expect("nobody panicked").clone()),
        store: Threaded::spawn(log(&folder)).expect("a thread"),
        wall: Arc::new(SystemClock),
    })
    .await;
}

struct TurmoilListener(turmoil::net::TcpListener);

impl Listener for TurmoilListener {
    type Stream = turmoil::net::TcpStream;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        self.0.accept().await.map(|(stream, _)| stream)
    }
}

struct TurmoilConnector;

impl Connector for TurmoilConnector {
    type Stream = turmoil::net::TcpStream;

    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static {
        turmoil::net::TcpStream::connect(("127.0.0.1", 80))
    }
}

struct FixedClock;

impl WallClock for FixedClock {
    fn wall_time(&self) -> WallTime {
        WallTime::from_millis(1_767_225_600_000)
    }
}

#[test]
fn over_simulated_sockets() {
    let mut sim = turmoil::Builder::new()
        .epoch(std::time::SystemTime::UNIX_EPOCH)
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(5))
        .build();
    sim.client("machine", async {
        let folder = tempfile::tempdir()?;
        let listener = turmoil::net::TcpListener::bind(("127.0.0.1", 80)).await?;
        body(Arm {
            listener: TurmoilListener(listener),
            connect: || TurmoilConnector,
            store: Inline(log(&folder)),
            wall: Arc::new(FixedClock),
        })
        .await;
        Ok(())
    });
    sim.run().expect("the body holds");
}
