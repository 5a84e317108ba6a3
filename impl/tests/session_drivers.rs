//! Server and clients over real sockets, with real files.
#![cfg(all(feature = "net", feature = "sqlite"))]

mod session_support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gapless::net::TcpConnector;
use gapless::recovery::BackoffConfig;
use gapless::session::client::{Client, ClientConfig, Submission, SubmitError};
use gapless::session::conversation::{Kind, Role};
use gapless::session::driver::{ClientHandle, Target, client};
use gapless::session::sqlite::SqliteInFlight;
use gapless::session::view::{Connection, View};
use gapless::session::wire::Status;
use gapless::storage::Threaded;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use session_support::{Host, PATIENCE, Proxy, entropy, patiently};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A client that runs.
struct User {
    handle: ClientHandle,
    running: JoinHandle<()>,
}

impl User {
    /// Whoever has the same name has the same file, and so the same client id.
    async fn start(host: &Host, port: u16, name: &str) -> Self {
        let path = host.folder.path().join(format!("{name}.db"));
        let (store, kept) = patiently(|| SqliteInFlight::open(&path, None, &mut *entropy())).await;
        Self::with(Threaded::spawn(store).expect("a thread"), kept, port)
    }

    fn with(
        store: Threaded<gapless::session::in_flight::Command>,
        kept: gapless::session::in_flight::Kept,
        port: u16,
    ) -> Self {
        let reconnect = BackoffConfig {
            min: Duration::from_millis(50),
            max: Duration::from_millis(500),
            jitter_percent: 25,
        };
        let config = ClientConfig { reconnect, ..ClientConfig::default() };
        let address = format!("127.0.0.1:{port}");
        let (handle, run) = client(
            Client::new(config, entropy()),
            TcpConnector::new(address.clone()),
            Target::new(address, "secret"),
            store,
            kept,
        );
        Self { handle, running: tokio::spawn(run) }
    }

    async fn say(&self, text: &str) {
        let what = Submission::Message { text: text.to_owned(), attachments: vec![] };
        self.handle.submit(what).await.expect("it is taken");
    }

    async fn answer(&self, text: &str) {
        let what = Submission::Answer { text: text.to_owned() };
        self.handle.submit(what).await.expect("it is taken");
    }

    /// Waits until the view is as it should be.
    async fn until(&self, what: &str, holds: impl Fn(&View) -> bool) -> Arc<View> {
        let mut views = self.handle.view();
        let found = tokio::time::timeout(PATIENCE, views.wait_for(|view| holds(view))).await;
        match found {
            Ok(Ok(view)) => return Arc::clone(&view),
            Ok(Err(_)) => panic!("the client ended before this held: {what}"),
            Err(_) => {}
        }
        panic!("it does not come to this: {what}\n{:#?}", self.handle.view().borrow())
    }

    /// Waits until the view shows exactly this, and nothing is under way.
    async fn shows(&self, expected: &[&str]) {
        let what = format!("it shows {expected:?}");
        self.until(&what, |view| {
            view.status != Status::Thinking && view.pending.is_empty() && texts(view) == expected
        })
        .await;
    }

    async fn live(&self) {
        self.until("it is live", |view| view.connection == Connection::Live).await;
    }

    async fn stop(self) {
        self.handle.stop().await;
        tokio::time::timeout(PATIENCE, self.running).await.expect("it ends").expect("no panic");
    }
}

fn texts(view: &View) -> Vec<&str> {
    view.messages.iter().map(|message| message.text.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_acknowledged_and_answered() {
    let host = Host::start().await;
    let user = User::start(&host, host.port, "a").await;
    user.say("hello").await;
    user.shows(&["hello", "you said hello"]).await;
    user.stop().await;
    let stored = host.stored("somebody").await;
    assert_eq!(
        stored,
        [(Role::User, "hello".to_owned()), (Role::Assistant, "you said hello".to_owned())]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_goes_on_where_the_connection_broke() {
    let host = Host::start().await;
    let proxy = Proxy::start(host.port).await;
    let user = User::start(&host, proxy.port, "a").await;
    user.say("count 6").await;
    host.permit(2);
    user.until("two have come", |view| texts(view).len() == 3).await;
    proxy.cut();
    host.permit(2);
    user.until("four have come", |view| texts(view).len() == 5).await;
    proxy.mute(true);
    host.permit(2);
    proxy.cut();
    proxy.mute(false);
    user.shows(&["count 6", "1 of 6", "2 of 6", "3 of 6", "4 of 6", "5 of 6", "6 of 6"]).await;
    user.stop().await;
    assert_eq!(host.stored("somebody").await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_flight_survives_a_restart_of_the_server() {
    let mut host = Host::start().await;
    let proxy = Proxy::start(host.port).await;
    let user = User::start(&host, proxy.port, "a").await;
    let witness = User::start(&host, host.port, "b").await;
    user.live().await;
    // It is accepted, and the user is not told.
    proxy.mute(true);
    user.say("hello").await;
    witness.shows(&["hello", "you said hello"]).await;
    host.kill().await;
    // It does not even leave.
    user.say("again").await;
    proxy.cut();
    proxy.mute(false);
    host.start_again().await;
    let all = ["hello", "you said hello", "again", "you said again"];
    user.shows(&all).await;
    witness.shows(&all).await;
    user.stop().await;
    witness.stop().await;
    assert_eq!(host.stored("somebody").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_a_restart_of_the_server_ends_is_shown_as_interrupted() {
    let mut host = Host::start().await;
    let user = User::start(&host, host.port, "a").await;
    user.say("count 3").await;
    host.permit(1);
    user.until("one has come", |view| texts(view).len() == 2).await;
    user.say("next").await;
    user.until("it waits", |view| view.pending.is_empty()).await;
    host.kill().await;
    host.start_again().await;
    let view = user.until("the next is answered", |view| texts(view).len() == 5).await;
    assert_eq!(texts(&view)[..3], ["count 3", "1 of 3", "next"]);
    assert_eq!(texts(&view)[4], "you said next");
    let interrupted =
        |view: &View| view.messages.iter().any(|it| it.kind == Some(Kind::Interrupted));
    assert!(interrupted(&view), "{view:#?}");
    user.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_while_there_was_no_server_survives_the_client() {
    let mut host = Host::start().await;
    host.kill().await;
    let user = User::start(&host, host.port, "a").await;
    user.say("one").await;
    user.say("two").await;
    user.until("both are kept", |view| {
        view.pending.len() == 2 && view.pending.iter().all(|it| it.kept)
    })
    .await;
    user.stop().await;
    host.start_again().await;
    let user = User::start(&host, host.port, "a").await;
    user.shows(&["one", "two", "you said one", "you said two"]).await;
    user.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_waits_for_its_answer_over_restarts_of_both() {
    let mut host = Host::start().await;
    let user = User::start(&host, host.port, "a").await;
    user.say("ask how old?").await;
    let asked = |view: &View| view.open_question.as_ref().is_some_and(|it| it.text == "how old?");
    user.until("it is asked", asked).await;
    user.stop().await;
    host.kill().await;
    host.start_again().await;
    let user = User::start(&host, host.port, "a").await;
    user.until("it is still asked", asked).await;
    user.answer("seven").await;
    user.shows(&["ask how old?", "how old?", "seven", "you answered seven"]).await;
    user.until("nothing is asked", |view| view.open_question.is_none()).await;
    let late = user.handle.submit(Submission::Answer { text: "eight".to_owned() }).await;
    assert_eq!(late, Err(SubmitError::NoQuestion));
    user.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_of_one_principal_see_the_same() {
    let host = Host::start().await;
    let one = User::start(&host, host.port, "a").await;
    let two = User::start(&host, host.port, "b").await;
    one.live().await;
    two.live().await;
    one.say("from one").await;
    one.shows(&["from one", "you said from one"]).await;
    two.say("from two").await;
    let all = ["from one", "you said from one", "from two", "you said from two"];
    one.shows(&all).await;
    two.shows(&all).await;
    one.stop().await;
    two.say("ask what?").await;
    two.until("it is asked", |view| view.open_question.is_some()).await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_with_the_same_client_id_supersedes_the_first() {
    let host = Host::start().await;
    let path = host.folder.path().join("a.db");
    let (store, kept) = SqliteInFlight::open(&path, None, &mut *entropy()).expect("it opens");
    let one = User::with(Threaded::spawn(store).expect("a thread"), kept.clone(), host.port);
    one.live().await;
    let path = host.folder.path().join("b.db");
    let (store, _) = SqliteInFlight::open(&path, None, &mut *entropy()).expect("it opens");
    let two = User::with(Threaded::spawn(store).expect("a thread"), kept, host.port);
    two.live().await;
    one.until("it is told", |view| view.connection == Connection::Superseded).await;
    two.say("hello").await;
    two.shows(&["hello", "you said hello"]).await;
    one.handle.reconnect().await;
    one.shows(&["hello", "you said hello"]).await;
    two.until("it is told, too", |view| view.connection == Connection::Superseded).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_panics_has_failed_at_its_turn_and_nothing_else() {
    let host = Host::start().await;
    let user = User::start(&host, host.port, "a").await;
    user.say("fail").await;
    user.shows(&["fail", "the application failed"]).await;
    user.say("hello").await;
    user.shows(&["fail", "the application failed", "hello", "you said hello"]).await;
    user.stop().await;
}

/// Asks for something over HTTP; with `upgrade` as a WebSocket would.
async fn get(port: u16, path: &str, upgrade: bool) -> (StatusCode, String) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let mut request = Request::get(path).header("host", "x");
    if upgrade {
        request = request
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return (status, String::new());
    }
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_by_what_is_wrong_with_them() {
    let host = Host::start().await;
    for (path, upgrade, expected, says) in [
        ("/ws?client_id=a", true, StatusCode::UNAUTHORIZED, "token"),
        ("/ws?client_id=a&token=wrong", true, StatusCode::UNAUTHORIZED, "token"),
        ("/ws?client_id=a%20b&token=wrong", true, StatusCode::UNAUTHORIZED, "token"),
        ("/ws?client_id=a%20b&token=secret", true, StatusCode::BAD_REQUEST, "`client_id`"),
        ("/ws?client_id=%C3%BC&token=secret", true, StatusCode::BAD_REQUEST, "`client_id`"),
        ("/ws?client_id=a&token=secret", false, StatusCode::UPGRADE_REQUIRED, "WebSocket"),
        ("/ws?client_id=a&token=secret", true, StatusCode::SWITCHING_PROTOCOLS, ""),
        ("/ws?token=secret", true, StatusCode::SWITCHING_PROTOCOLS, ""),
        ("/ws?token=secret&client_id=&since=x", true, StatusCode::SWITCHING_PROTOCOLS, ""),
        ("/health", false, StatusCode::NO_CONTENT, ""),
        ("/", false, StatusCode::OK, "gapless.session.v1"),
        ("/nowhere", false, StatusCode::NOT_FOUND, "nothing"),
    ] {
        let (status, body) = get(host.port, path, upgrade).await;
        assert_eq!(status, expected, "{path}: {body}");
        assert!(body.contains(says), "{path}: {body}");
    }
}

#[test]
fn tokens_are_not_printed() {
    let target = Target::new("localhost", "a-secret");
    assert!(!format!("{target:?}").contains("a-secret"));
}
