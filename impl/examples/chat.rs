//! A chat that survives reconnects, reloads and restarts: the server, a demo, and a page.
//!
//! ```text
//! cargo run -p gapless --example chat -- [--port 8080] [--data target/chat]
//! ```
//!
//! Open the printed address. While a reply is on its way, reload the page, cut the network, or
//! stop the server and start it again.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use gapless::net::http::{self, HttpConfig};
use gapless::net::{Limits, Tokens};
use gapless::session::demo::Demo;
use gapless::session::driver::{ServerTaskConfig, SessionService, server};
use gapless::session::server::{Server, ServerConfig, ShowAll};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations};
use gapless::session::web;
use gapless::storage::Threaded;
use rand::SeedableRng as _;
use rand::rngs::SysRng;
use rand_chacha::ChaCha12Rng;
use tokio::net::TcpListener;

const TOKEN: &str = "demo";

const USAGE: &str = "usage: chat [--port PORT] [--data FOLDER]";

#[tokio::main]
async fn main() -> ExitCode {
    let failed = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => run(options).await.err(),
        Err(problem) => Some(Failure { problem, hint: USAGE.to_owned() }),
    };
    let Some(Failure { problem, hint }) = failed else { return ExitCode::SUCCESS };
    eprintln!("error: {problem}\n  hint: {hint}");
    ExitCode::FAILURE
}

/// What went wrong, and what to do about it.
struct Failure {
    problem: String,
    hint: String,
}

async fn run(Options { port, data }: Options) -> Result<(), Failure> {
    let data_failed = |problem: String| {
        let hint = "choose another folder with `--data`".to_owned();
        Failure { problem, hint }
    };
    std::fs::create_dir_all(&data)
        .map_err(|error| data_failed(format!("cannot make {}: {error}", data.display())))?;
    let store = SqliteConversations::open(&data.join("chat.db"), &ConversationsConfig::default())
        .map_err(|error| data_failed(error.to_string()))?;
    let system = |problem: String| Failure { problem, hint: "try again".to_owned() };
    let store = Threaded::spawn(store)
        .map_err(|error| system(format!("cannot start a thread: {error}")))?;
    let entropy = ChaCha12Rng::try_from_rng(&mut SysRng)
        .map_err(|error| system(format!("the system has no random numbers: {error}")))?;
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| Failure {
            problem: format!("cannot listen on port {port}: {error}"),
            hint: "choose another port with `--port`".to_owned(),
        })?;
    let address = listener.local_addr().map_err(|error| system(error.to_string()))?;

    let config = ServerConfig::default();
    let extension = config.extension;
    let core = Server::new(config, Box::new(ShowAll), Box::new(entropy));
    let (handle, task) = server(core, store, Arc::new(Demo), ServerTaskConfig::default());
    let access = Tokens::default().user(TOKEN, "you");
    let service = SessionService::new(handle, Arc::new(access), Limits::default(), extension)
        .with_page(web::PAGE);

    println!("http://{address}/?token={TOKEN}");
    println!("conversations are kept in {}", data.display());
    let serving = http::serve(listener, service, HttpConfig::default(), std::future::pending());
    tokio::join!(task, serving);
    Ok(())
}

struct Options {
    port: u16,
    data: PathBuf,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { port: 8080, data: "target/chat".into() };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("`{name}` needs a value"));
            match name.as_str() {
                "--port" => {
                    let text = value()?;
                    let problem = || format!("`{text}` is no port: it must be from 0 to 65535");
                    options.port = text.parse().map_err(|_| problem())?;
                }
                "--data" => options.data = value()?.into(),
                _ => return Err(format!("`{name}` is not known")),
            }
        }
        Ok(options)
    }
}
