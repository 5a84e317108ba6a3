//! Server, publisher and client of event streams over real sockets, with a real log.
#![cfg(all(feature = "net", feature = "sqlite"))]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use gapless::AgentId;
use gapless::database::Synchronous;
use gapless::events::client::{Client, ClientConfig};
use gapless::events::driver::{
    Application, ClientHandle, EventService, Publication, PublishFailure, Publisher,
    PublisherConfig, ServerHandle, ServerTaskConfig, Target, client, handler_fn, server,
};
use gapless::events::log::{Command, Reply};
use gapless::events::server::{PublishError, Server, ServerConfig};
use gapless::events::sqlite::{LogConfig, SqliteLog};
use gapless::events::wire::EventBody;
use gapless::net::http::{self, HttpConfig};
use gapless::net::{Limits, Replaceable, SystemClock, TcpConnector, Tokens};
use gapless::recovery::BackoffConfig;
use gapless::storage::{Store, StoreError, Threaded};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    _folder: tempfile::TempDir,
    address: String,
    handle: ServerHandle,
    access: Replaceable,
    book: Book,
    task: JoinHandle<()>,
    shutdown: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

fn agent() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

fn tokens() -> Tokens {
    Tokens::default().publisher("may-publish", "somebody").subscriber("may-read", agent())
}

/// A log that keeps book of its transactions: the ids of the events that each has stored.
struct Booked {
    log: Threaded<Command>,
    book: Book,
}

type Book = Arc<Mutex<Vec<Vec<String>>>>;

impl Store<Command> for Booked {
    async fn run(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        let id = |command: &Command| match command {
            Command::Append(append) => append.body.id().map(str::to_owned),
            _ => None,
        };
        let ids = commands.iter().filter_map(id).collect();
        self.book.lock().expect("no panic").push(ids);
        self.log.run(commands).await
    }
}

async fn world() -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = LogConfig::new(folder.path().join("events.db"));
    config.synchronous = Synchronous::Normal;
    let log = SqliteLog::open(config).expect("a log");
    let config = ServerConfig::default();
    let bytes_max = config.event_bytes_max;
    let core = Server::new(config, Box::new(ChaCha12Rng::seed_from_u64(1)));
    let (wall, book) = (Arc::new(SystemClock), Book::default());
    let store = Booked { log: Threaded::spawn(log).expect("a thread"), book: book.clone() };
    let (handle, task) = server(core, store, wall.clone(), ServerTaskConfig::default());
    let access = Replaceable::new(Arc::new(tokens()));
    let service = EventService::new(
        handle.clone(),
        Arc::new(access.clone()),
        wall,
        Limits::default(),
        true,
        bytes_max,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (shutdown, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let serving =
        http::serve_and_drain(listener, service, HttpConfig::default(), stopped, PATIENCE);
    World {
        _folder: folder,
        address,
        handle,
        access,
        book,
        task: tokio::spawn(task),
        shutdown,
        serving: tokio::spawn(serving),
    }
}

impl World {
    fn publisher(&self, token: &str) -> Publisher<TcpConnector> {
        self.publisher_with(token, 1_000)
    }

    fn publisher_with(&self, token: &str, attempts_max: u32) -> Publisher<TcpConnector> {
        let retry = BackoffConfig {
            min: Duration::from_millis(20),
            max: Duration::from_millis(20),
            jitter_percent: 0,
        };
        let config = PublisherConfig { attempts_max, retry, ..PublisherConfig::default() };
        let entropy = Box::new(ChaCha12Rng::seed_from_u64(2));
        let connector = TcpConnector::new(self.address.clone());
        Publisher::new(connector, self.address.clone(), token, config, entropy)
    }

    async fn subscribe(
        &self,
        token: &str,
    ) -> Result<tokio_tungstenite::WebSocketStream<TcpStream>, tokio_tungstenite::tungstenite::Error>
    {
        let stream = TcpStream::connect(&self.address).await.expect("it listens");
        let url = format!("ws://{}/v1/ws?token={token}", self.address);
        Ok(tokio_tungstenite::client_async(url, stream).await?.0)
    }
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

fn event(id: &str, text: &str) -> Publication {
    let payload = serde_json::json!({ "text": text }).to_string();
    Publication {
        agent: agent(),
        id: Some(id.to_owned()),
        kind: "message".to_owned(),
        payload: RawValue::from_string(payload).expect("JSON"),
        after: None,
    }
}

#[tokio::test]
async fn a_batch_has_one_number_after_the_other_and_the_same_ones_when_it_is_repeated() {
    let world = world().await;
    let mut publisher = world.publisher("may-publish");
    let batch: Vec<_> = (1..=200).map(|i| event(&format!("m-{i}"), "hi")).collect();
    let first = in_time(publisher.publish_all(&agent(), &batch)).await.expect("stored");
    let numbers: Vec<_> = first.iter().map(|receipt| receipt.sequence).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    let again = in_time(publisher.publish_all(&agent(), &batch)).await.expect("stored before");
    assert_eq!(again, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_answered_can_ask_again_at_once() {
    let world = world().await;
    in_time(world.publisher("may-publish").publish(&event("first", "hi"))).await.expect("stored");
    // On this thread, while the connections are on others.
    let publish = (0..2).map(|who| {
        let mut publisher = world.publisher_with("may-publish", 1);
        async move {
            for i in 0..60 {
                let events = (0..250).map(|n| event(&format!("{who}-{i}-{n}"), "hi"));
                let events: Vec<_> = events.collect();
                publisher.publish_all(&agent(), &events).await.expect("answered");
            }
        }
    });
    in_time(futures_util::future::join_all(publish)).await;
}

#[tokio::test]
async fn a_batch_is_one_transaction_however_many_come_at_once() {
    const BATCHES: usize = 9;
    let world = world().await;
    in_time(world.publisher("may-publish").publish(&event("first", "hi"))).await.expect("stored");
    let publish = (0..BATCHES).map(|batch| {
        let mut publisher = world.publisher("may-publish");
        async move {
            let events = (0..100).map(|i| event(&format!("{batch}-{i}"), "hi"));
            let events: Vec<_> = events.collect();
            publisher.publish_all(&agent(), &events).await.expect("stored");
        }
    });
    in_time(futures_util::future::join_all(publish)).await;
    let book = world.book.lock().expect("no panic");
    for batch in 0..BATCHES {
        let of_batch = |ids: &Vec<String>| {
            let prefix = format!("{batch}-");
            ids.iter().filter(|id| id.starts_with(&prefix)).count()
        };
        let parts: Vec<_> = book.iter().map(of_batch).filter(|count| *count > 0).collect();
        assert_eq!(parts, [100], "batch {batch}");
    }
}

#[tokio::test]
async fn a_batch_says_which_event_was_refused() {
    let world = world().await;
    let mut publisher = world.publisher("may-publish");
    in_time(publisher.publish(&event("m-2", "taken"))).await.expect("stored");
    let batch = [event("m-1", "hi"), event("m-2", "other bytes"), event("m-3", "hi")];
    let failed = in_time(publisher.publish_all(&agent(), &batch)).await.expect_err("a conflict");
    assert_eq!(failed.receipts.len(), 1);
    assert!(matches!(failed.failure, PublishFailure::Refused { status: 409, .. }), "{failed}");
    let too_many: Vec<_> = (0..257).map(|i| event(&format!("n-{i}"), "hi")).collect();
    let failed = in_time(publisher.publish_all(&agent(), &too_many)).await.expect_err("too many");
    assert_eq!(failed.receipts.len(), 0);
    assert!(matches!(failed.failure, PublishFailure::Refused { status: 413, .. }), "{failed}");
    let reserved = Publication { kind: "pong".to_owned(), ..event("m-9", "hi") };
    let batch = [event("m-8", "hi"), reserved];
    let failed = in_time(publisher.publish_all(&agent(), &batch)).await.expect_err("reserved");
    assert!(failed.to_string().contains("events[1]"), "{failed}");
    let next = in_time(publisher.publish(&event("m-10", "hi"))).await.expect("stored");
    assert_eq!(next.sequence, 4, "nothing of a batch with a bad event is stored");
}

#[tokio::test]
async fn a_token_that_was_replaced_opens_nothing_more_and_closes_nothing() {
    let world = world().await;
    let mut open = in_time(world.subscribe("may-read")).await.expect("let in");
    world.access.replace(Arc::new(Tokens::default().publisher("new", "somebody")));
    assert!(in_time(world.subscribe("may-read")).await.is_err());
    let refused = in_time(world.publisher("may-publish").publish(&event("m-1", "hi"))).await;
    assert!(matches!(refused, Err(PublishFailure::Refused { status: 401, .. })), "{refused:?}");
    in_time(world.publisher("new").publish(&event("m-1", "hi"))).await.expect("stored");
    let frame = in_time(futures_util::StreamExt::next(&mut open)).await;
    assert!(matches!(frame, Some(Ok(Message::Text(text))) if text.contains("\"m-1\"")));
}

#[tokio::test]
async fn a_server_that_is_drained_says_goodbye_and_ends() {
    let world = world().await;
    let mut socket = in_time(world.subscribe("may-read")).await.expect("let in");
    in_time(world.publisher("may-publish").publish(&event("m-1", "hi"))).await.expect("stored");
    assert_eq!(world.handle.sockets().count(), 1);
    let draining = tokio::spawn({
        let handle = world.handle.clone();
        async move { handle.drain().await }
    });
    let code = in_time(async {
        loop {
            match futures_util::StreamExt::next(&mut socket).await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                other => panic!("no goodbye: {other:?}"),
            }
        }
    })
    .await;
    assert_eq!(code, Some(1001));
    while let Some(Ok(_)) = in_time(futures_util::StreamExt::next(&mut socket)).await {}
    in_time(draining).await.expect("no panic");
    in_time(world.task).await.expect("no panic");
    assert_eq!(world.handle.sockets().count(), 0);
    let payload = RawValue::from_string("{}".to_owned()).expect("JSON");
    let body = EventBody::new(None, "message", &payload, 1_000).expect("an event");
    let late = in_time(world.handle.publish("somebody".to_owned(), agent(), body, None)).await;
    assert_eq!(late, Err(PublishError::Unavailable));
    world.shutdown.send(()).expect("it serves");
    in_time(world.serving).await.expect("no panic");
}

#[tokio::test]
async fn a_handler_that_is_always_ready_leaves_room_for_commands() {
    const EVENTS: u64 = 2_000;
    /// How much a client may do before it looks for commands, frames and events of them together.
    const TURNS: usize = 100;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut socket = tokio_tungstenite::accept_async(stream).await.expect("a handshake");
        for n in 1..=EVENTS {
            let text = format!(r#"{{"type":"note","agent_seq":{n}}}"#);
            socket.feed(Message::text(text)).await.expect("room");
        }
        socket.flush().await.expect("room");
        while let Some(Ok(_)) = socket.next().await {}
    });
    let handled = Arc::new(Mutex::new(Vec::new()));
    let commands = Arc::new(std::sync::OnceLock::<ClientHandle>::new());
    let (numbers, stopper) = (handled.clone(), commands.clone());
    let handler = handler_fn(move |offer| {
        let mut numbers = numbers.lock().expect("no panic");
        numbers.extend(offer.event.sequence());
        if numbers.len() == 10 {
            let handle = stopper.get().expect("it is set before anything runs");
            handle.stop().now_or_never().expect("there is room for a command");
        }
        Ok(gapless::events::driver::Handled::Done)
    });
    let config = ClientConfig { extension: false, ..ClientConfig::default() };
    let core = Client::new(config, Box::new(ChaCha12Rng::seed_from_u64(3)));
    let target = Target::new(address.clone(), "any");
    let application = Application::new(handler);
    let (handle, running) =
        client(core, TcpConnector::new(address), target, Arc::new(SystemClock), application);
    commands.set(handle).expect("set once");
    in_time(running).await.expect("a position");
    let handled = handled.lock().expect("no panic").clone();
    assert_eq!(handled, (1..=handled.len() as u64).collect::<Vec<_>>());
    assert!((10..10 + TURNS).contains(&handled.len()), "{} were handled", handled.len());
    serving.abort();
}
