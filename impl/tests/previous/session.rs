//! Conversations that go on from where the previous release left them: a question is open, and the
//! client has its answer and a message in flight.

use std::path::Path;
use std::sync::Arc;

use gapless::net::{BoxFuture, Limits, TcpConnector, Tokens};
use gapless::session::client::{Client, ClientConfig};
use gapless::session::conversation::{Ending, Kind, Saying};
use gapless::session::driver::{
    Application, ServerTaskConfig, SessionService, Speaker, Target, client, server,
};
use gapless::session::server::{Server, ServerConfig, ShowAll, Work};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations, SqliteInFlight};
use gapless::session::wire::SUBPROTOCOL;
use gapless::storage::Threaded;
use rusqlite::Connection;

use crate::play::{self, Played};
use crate::support::{MIXES, SOON, databases, entropy, serve, tape, until};

/// What is said in the end; a reply may come before or after what is said next.
const ALL: [&str; 8] = [
    "ask how old?",
    "bye",
    "hello €",
    "how old?",
    "seven",
    "you answered seven",
    "you said bye",
    "you said hello €",
];

/// Repeats what the user says, as the application of then did.
struct Script;

impl Application for Script {
    fn turn(&self, work: Work, mut speaker: Speaker) -> BoxFuture<'static, Ending> {
        Box::pin(async move {
            let verb = match work.input.kind {
                Kind::Answer => "answered",
                _ => "said",
            };
            let text = format!("you {verb} {}", work.input.text);
            match speaker.say(Saying { text, model: "script".to_owned(), usage: None }).await {
                Ok(()) => Ending::Done,
                Err(stopped) => Ending::Failed(stopped.to_string()),
            }
        })
    }
}

/// Today's server, on the database of the previous release.
async fn start_server(folder: &Path) -> String {
    let path = folder.join("server.db");
    let store =
        SqliteConversations::open(&path, &ConversationsConfig::default()).expect("it opens");
    let config = ServerConfig::default();
    let (handle, task) = server(
        Server::new(config, Box::new(ShowAll), entropy()),
        Threaded::spawn(store).expect("a thread"),
        Arc::new(Script),
        ServerTaskConfig::default(),
    );
    tokio::spawn(task);
    let tokens = Tokens::default().user("secret", "somebody");
    let service = SessionService::new(handle, Arc::new(tokens), Limits::default(), true);
    serve(service).await.0
}

/// Today's client goes on with its database until it shows all, and nothing is in flight any more.
async fn go_on(folder: &Path, address: &str, mix: &str) {
    let path = folder.join("client.db");
    let (store, kept) = SqliteInFlight::open(&path, None, &mut *entropy()).expect("it opens");
    assert_eq!(kept.in_flight.len(), 2, "{mix}: both inputs are there");
    let config = ClientConfig { reconnect: SOON, ..ClientConfig::default() };
    let (handle, run) = client(
        Client::new(config, entropy()),
        TcpConnector::new(address),
        Target::new(address, "secret"),
        Threaded::spawn(store).expect("a thread"),
        kept,
    );
    let running = tokio::spawn(run);
    until(&format!("{mix}: it shows all, once"), || {
        let view = handle.view();
        let view = view.borrow();
        let mut shown: Vec<_> = view.messages.iter().map(|it| it.text.as_str()).collect();
        shown.sort_unstable();
        shown == ALL && view.pending.is_empty() && view.open_question.is_none()
    })
    .await;
    handle.stop().await;
    running.await.expect("no panic");
}

/// What is stored of the conversation, sorted.
fn stored(folder: &Path) -> Vec<String> {
    let path = folder.join("server.db");
    // The server has it locked; what is committed is in the copy and its log.
    let copy = folder.join("copy.db");
    for suffix in ["", "-wal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(name(&path), name(&copy)).expect("a copy");
    }
    let connection = Connection::open(copy).expect("a database");
    let mut rows = connection.prepare("SELECT text FROM rows ORDER BY text").expect("a query");
    let texts = rows.query_map([], |row| row.get(0)).expect("rows");
    texts.collect::<Result<_, _>>().expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_where_the_previous_release_left_both_sides() {
    for mix in MIXES {
        let folder = databases("session", mix);
        let address = start_server(folder.path()).await;
        go_on(folder.path(), &address, mix).await;
        assert_eq!(stored(folder.path()), ALL, "{mix}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_of_the_previous_release_has_in_flight_is_accepted_once_by_this_server() {
    for mix in MIXES {
        let folder = databases("session", mix);
        let database = Connection::open(folder.path().join("client.db")).expect("a database");
        let name: String =
            database.query_row("SELECT name FROM client", [], |row| row.get(0)).expect("a name");
        let address = start_server(folder.path()).await;
        let extension = mix == "extension";
        let mut url = format!("ws://{address}/ws?token=secret&client_id={name}&since=0");
        if extension {
            url += "&view=then&attempt=1";
        }
        let mut old = Played::connect(&url, extension.then_some(SUBPROTOCOL), &[]).await;
        old.play(&tape("session", mix, "then.tape"), '>').await;
        assert_eq!(stored(folder.path()), ALL, "{mix}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_client_has_in_flight_is_said_to_a_server_of_the_previous_release() {
    for mix in MIXES {
        let folder = databases("session", mix);
        let subprotocol = (mix == "extension").then_some(SUBPROTOCOL);
        let mut then = tape("session", mix, "then.tape");
        if mix == "base-client" {
            // This client offers the extension first, and the server of then has it: the tape is
            // that of a server that does not answer the offer.
            let offer = then[0].clone();
            then.insert(0, offer);
        }
        let (address, _playing) = play::server(then, subprotocol).await;
        go_on(folder.path(), &address, mix).await;
    }
}
