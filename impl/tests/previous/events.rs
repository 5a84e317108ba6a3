//! Event streams that go on from where the previous release left them.

use std::path::Path;
use std::sync::{Arc, Mutex};

use gapless::events::client::{Client, ClientConfig, Position, StartAt};
use gapless::events::driver::{
    Application, CursorStore, EventService, Handled, HandlerError, Publication, Publisher,
    PublisherConfig, ServerTaskConfig, Target, client, handler_fn, server,
};
use gapless::events::server::{Receipt, Server, ServerConfig};
use gapless::events::sqlite::{LogConfig, SqliteCursor, SqliteLog};
use gapless::events::wire::SUBPROTOCOL;
use gapless::net::{BoxFuture, Limits, SystemClock, TcpConnector, Tokens};
use gapless::storage::Threaded;
use rusqlite::Connection;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::play::{self, Played};
use crate::support::{Line, MIXES, SOON, agent, databases, entropy, serve, tape, until};

/// Today's server, on the database of the previous release.
async fn start_server(folder: &Path) -> String {
    let log = SqliteLog::open(LogConfig::new(folder.join("server.db"))).expect("it opens");
    let config = ServerConfig::default();
    let bytes_max = config.event_bytes_max;
    let wall = Arc::new(SystemClock);
    let (handle, task) = server(
        Server::new(config, entropy()),
        Threaded::spawn(log).expect("a thread"),
        wall.clone(),
        ServerTaskConfig::default(),
    );
    tokio::spawn(task);
    let tokens = Tokens::default().publisher("publish", "somebody").subscriber("read", agent());
    let limits = Limits::default();
    let service = EventService::new(handle, Arc::new(tokens), wall, limits, true, bytes_max);
    serve(service).await.0
}

async fn publish(address: &str, number: u32) -> Receipt {
    let config = PublisherConfig::default();
    let connector = TcpConnector::new(address);
    let mut publisher = Publisher::new(connector, address, "publish", config, entropy());
    let publication = Publication {
        agent: agent(),
        id: Some(format!("e-{number}")),
        kind: "message".to_owned(),
        payload: RawValue::from_string(format!("{{\"text\":\"{number} €\"}}")).expect("JSON"),
        after: None,
    };
    publisher.publish(&publication).await.expect("stored")
}

/// The cursor of a client, in the database of the previous release.
struct Cursor(Arc<Mutex<Connection>>, SqliteCursor);

impl CursorStore for Cursor {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Position>, String>> {
        let loaded = self.1.load(&self.0.lock().expect("no panic"));
        Box::pin(async move { loaded.map_err(|error| error.to_string()) })
    }

    fn save(&mut self, position: Position) -> BoxFuture<'_, Result<(), String>> {
        let stored = self.1.store(&self.0.lock().expect("no panic"), &position);
        Box::pin(async move { stored.map_err(|error| error.to_string()) })
    }
}

/// Today's client goes on with its database until it has taken `e-10`; the ids that it took, before and
/// now.
async fn take(folder: &Path, address: &str) -> Vec<String> {
    let connection = Connection::open(folder.join("client.db")).expect("a database");
    let cursor = SqliteCursor::create(&connection, "agent-1").expect("a cursor");
    let database = Arc::new(Mutex::new(connection));
    let (writes, of) = (database.clone(), cursor.clone());
    let mut application = Application::new(handler_fn(move |offer| {
        let write = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT INTO taken VALUES (?1, ?2)",
                [offer.event.id().unwrap_or(""), offer.event.text()],
            )?;
            if let Some(position) = &offer.position {
                of.store(&transaction, position)?;
            }
            transaction.commit()
        };
        write(&mut writes.lock().expect("no panic"))
            .map_err(|error| HandlerError(error.to_string()))?;
        Ok(match offer.position {
            Some(_) => Handled::Stored,
            None => Handled::Done,
        })
    }));
    application.cursor = Box::new(Cursor(database.clone(), cursor));
    let config =
        ClientConfig { start: StartAt::Beginning, reconnect: SOON, ..ClientConfig::default() };
    let (handle, run) = client(
        Client::new(config, entropy()),
        TcpConnector::new(address),
        Target::new(address, "read"),
        Arc::new(SystemClock),
        application,
    );
    let running = tokio::spawn(run);
    let taken = || -> Vec<String> {
        let database = database.lock().expect("no panic");
        let mut rows = database.prepare("SELECT id FROM taken ORDER BY rowid").expect("a query");
        let ids = rows.query_map([], |row| row.get(0)).expect("rows");
        ids.collect::<Result<_, _>>().expect("text")
    };
    until("the last event is taken", || taken().contains(&"e-10".to_owned())).await;
    handle.stop().await;
    running.await.expect("no panic").expect("it ran");
    taken()
}

/// What the client has in the end.
fn all() -> Vec<String> {
    (1..=10).map(|number| format!("e-{number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_the_previous_release_left_both_sides() {
    for mix in MIXES {
        let folder = databases("events", mix);
        let address = start_server(folder.path()).await;
        let again = publish(&address, 3).await;
        assert_eq!(again.sequence, 3, "{mix}: an id of then is known");
        for number in 9..=10 {
            let receipt = publish(&address, number).await;
            assert_eq!(receipt.sequence, u64::from(number), "{mix}: numbers go on");
            assert_ne!(receipt.epoch, again.epoch);
        }
        assert_eq!(take(folder.path(), &address).await, all(), "{mix}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_previous_release_gets_from_this_server_what_it_missed() {
    for mix in MIXES {
        let folder = databases("events", mix);
        let address = start_server(folder.path()).await;
        for number in 9..=10 {
            publish(&address, number).await;
        }
        let url = format!("ws://{address}/v1/ws?token=read");
        let subprotocol = (mix == "extension").then_some(SUBPROTOCOL);
        let mut old = Played::connect(&url, subprotocol, &[]).await;
        old.play(&tape("events", mix, "then.tape"), '>').await;
        let numbers: Vec<u64> = old
            .heard
            .iter()
            .filter_map(|text| {
                serde_json::from_str::<Value>(text).expect("JSON")["agent_seq"].as_u64()
            })
            .collect();
        assert_eq!(numbers, [6, 7, 8, 9, 10], "{mix}");
    }
}

/// What the server of then said, to a client that offers the extension first.
fn then(mix: &str) -> Vec<Line> {
    let mut then = tape("events", mix, "then.tape");
    if mix == "base-client" {
        let asked = then[0].clone();
        then.insert(0, asked);
    }
    then
}

#[tokio::test(flavor = "multi_thread")]
async fn this_client_gets_from_a_server_of_the_previous_release_what_it_missed() {
    for mix in MIXES {
        let folder = databases("events", mix);
        let subprotocol = (mix == "extension").then_some(SUBPROTOCOL);
        let (address, _playing) = play::server(then(mix), subprotocol).await;
        assert_eq!(take(folder.path(), &address).await, all(), "{mix}");
    }
}
