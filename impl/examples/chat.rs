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
use std::time::Duration;

use gapless::net::http::{self, HttpConfig};
use gapless::net::{BoxFuture, Limits, Tokens};
use gapless::session::conversation::{Ending, Kind, Saying};
use gapless::session::driver::{
    Application, ServerTaskConfig, SessionService, Speaker, Stopped, server,
};
use gapless::session::server::{Server, ServerConfig, ShowAll, Work};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations};
use gapless::session::wire::Notice;
use gapless::session::{Name, web};
use gapless::storage::Threaded;
use rand::SeedableRng as _;
use rand::rngs::SysRng;
use rand_chacha::ChaCha12Rng;
use serde_json::value::to_raw_value;
use tokio::net::TcpListener;

const TOKEN: &str = "demo";

/// How long the demo thinks before each thing that it says.
const PAUSE: Duration = Duration::from_millis(900);

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

/// Says a few things about what the user says, one by one; `ask me …` has it ask back.
struct Demo;

impl Application for Demo {
    fn turn(&self, work: Work, speaker: Speaker) -> BoxFuture<'static, Ending> {
        Box::pin(async move {
            let text = work.input.text.trim().to_owned();
            let asks = text.to_lowercase().starts_with("ask me");
            match work.input.kind {
                Kind::Answer => say(speaker, answered(&text)).await,
                _ if asks => Ending::Ask {
                    question: Name::parse(&format!("question-{}", work.turn.position))
                        .expect("letters and digits are a name"),
                    text: format!(
                        "What do you say{}?",
                        text["ask me".len()..].trim_end_matches('?')
                    ),
                    source: "demo".to_owned(),
                },
                _ => say(speaker, echo(&text)).await,
            }
        })
    }
}

fn echo(text: &str) -> Vec<String> {
    let words = text.split_whitespace().count();
    let backwards: String = text.chars().rev().collect();
    let first = match words {
        1 => "That is one word.".to_owned(),
        words => format!("Those are {words} words."),
    };
    vec![
        first,
        format!("Backwards: {backwards}"),
        "Reload the page or restart the server while I speak: nothing is lost, nothing comes twice."
            .to_owned(),
        "Write “ask me about …” and I will ask you.".to_owned(),
    ]
}

fn answered(text: &str) -> Vec<String> {
    vec![format!("“{text}”, then."), "Thank you. I have written that down.".to_owned()]
}

async fn say(mut speaker: Speaker, sentences: Vec<String>) -> Ending {
    let count = sentences.len();
    for (i, text) in sentences.into_iter().enumerate() {
        let detail = format!("Thinking about sentence {} of {count}…", i + 1);
        if say_one(&mut speaker, &detail, text).await.is_err() {
            break;
        }
    }
    Ending::Done
}

async fn say_one(speaker: &mut Speaker, detail: &str, text: String) -> Result<(), Stopped> {
    let fields = to_raw_value(&serde_json::json!({ "detail": detail })).expect("it is JSON");
    speaker.progress(Notice { kind: "agent_progress".to_owned(), fields }).await?;
    tokio::time::sleep(PAUSE).await;
    speaker.say(Saying { text, model: "demo".to_owned(), usage: None }).await
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
