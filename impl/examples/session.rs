//! Sessions: a conversation that goes on when the server is stopped and started again.
//!
//! ```text
//! cargo run -p gapless --example session
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gapless::net::http::{self, HttpConfig};
use gapless::net::{BoxFuture, Limits, TcpConnector, Tokens};
use gapless::recovery::{BackoffConfig, Entropy};
use gapless::session::client::{Client, ClientConfig, Submission};
use gapless::session::conversation::{Ending, Saying};
use gapless::session::driver::{
    Application, ServerHandle, ServerTaskConfig, SessionService, Speaker, Target, client, server,
};
use gapless::session::server::{Server, ServerConfig, ShowAll, Work};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations, SqliteInFlight};
use gapless::session::view::View;
use gapless::storage::Threaded;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Where epochs, ids and jitter come from.
fn entropy() -> Box<dyn Entropy> {
    Box::new(UnwrapErr(SysRng))
}

/// What the server does when the user says something.
struct Parrot;

impl Application for Parrot {
    fn turn(&self, work: Work, mut speaker: Speaker) -> BoxFuture<'static, Ending> {
        Box::pin(async move {
            let text = format!("you said: {}", work.input.text);
            match speaker.say(Saying { text, model: "parrot".to_owned(), usage: None }).await {
                Ok(()) => Ending::Done,
                Err(stopped) => Ending::Failed(stopped.to_string()),
            }
        })
    }
}

/// A server: a core, the conversations in a database, an application, and HTTP.
fn serve(
    listener: TcpListener,
    folder: &Path,
) -> Result<(ServerHandle, JoinHandle<()>), Box<dyn Error>> {
    let store =
        SqliteConversations::open(&folder.join("server.db"), &ConversationsConfig::default())?;
    let config = ServerConfig::default();
    let extension = config.extension;
    let core = Server::new(config, Box::new(ShowAll), entropy());
    let store = Threaded::spawn(store)?;
    let (handle, task) = server(core, store, Arc::new(Parrot), ServerTaskConfig::default());
    tokio::spawn(task);
    let tokens = Arc::new(Tokens::default().user("secret", "ada"));
    let service = SessionService::new(handle.clone(), tokens, Limits::default(), extension);
    let serving = http::serve(listener, service, HttpConfig::default(), std::future::pending());
    Ok((handle, tokio::spawn(serving)))
}

fn texts(view: &View) -> Vec<&str> {
    view.messages.iter().map(|message| message.text.as_str()).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (handle, serving) = serve(listener, folder.path())?;

    // The client keeps what the user says in a database until the server has given its verdict.
    let path = folder.path().join("client.db");
    let (in_flight, kept) = SqliteInFlight::open(&path, None, &mut *entropy())?;
    let reconnect = BackoffConfig {
        min: Duration::from_millis(50),
        max: Duration::from_millis(200),
        jitter_percent: 25,
    };
    let config = ClientConfig { reconnect, ..ClientConfig::default() };
    let (client, run) = client(
        Client::new(config, entropy()),
        TcpConnector::new(address.to_string()),
        Target::new(address.to_string(), "secret"),
        Threaded::spawn(in_flight)?,
        kept,
    );
    let running = tokio::spawn(run);
    // What a user interface shows, each time it changes.
    let mut view = client.view();

    client.submit(Submission::Message { text: "hello".to_owned(), attachments: vec![] }).await?;
    view.wait_for(|view| texts(view) == ["hello", "you said: hello"]).await?;

    // The server stops. What is said meanwhile waits, and is shown as pending.
    serving.abort();
    drop(serving.await);
    handle.drain().await;
    drop(handle);
    client.submit(Submission::Message { text: "anybody?".to_owned(), attachments: vec![] }).await?;
    view.wait_for(|view| view.pending.len() == 1 && view.pending[0].kept).await?;

    // It is back, with the same database.
    let (_handle, _serving) = serve(TcpListener::bind(address).await?, folder.path())?;
    let all = ["hello", "you said: hello", "anybody?", "you said: anybody?"];
    view.wait_for(|view| texts(view) == all && view.pending.is_empty()).await?;

    client.stop().await;
    running.await?;
    println!("the conversation went on over a restart of the server");
    Ok(())
}
