//! A server that can be killed and started again on the same database, and a way to it that can
//! be cut.
#![allow(dead_code, reason = "each of the tests uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gapless::database::Synchronous;
use gapless::net::http::{self, HttpConfig};
use gapless::net::{BoxFuture, Limits, Tokens};
use gapless::session::conversation::{Command, Ending, Kind, Reply, Role, Saying};
use gapless::session::driver::{Application, ServerTaskConfig, SessionService, Speaker, server};
use gapless::session::server::{Server, ServerConfig, ShowAll, Work};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations};
use gapless::session::{Name, web};
use gapless::storage::{Threaded, Transact as _};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks at something that is waited for.
pub(crate) const SOON: Duration = Duration::from_millis(20);

/// Another stream of random numbers each time, as each life of a process has.
pub(crate) fn entropy() -> Box<ChaCha12Rng> {
    static SEEDS: AtomicU64 = AtomicU64::new(1);
    Box::new(ChaCha12Rng::seed_from_u64(SEEDS.fetch_add(1, Ordering::Relaxed)))
}

/// Does what the user says: `count N` says N things, each when a permit is given; `ask X` asks X;
/// `fail` panics. Anything else, it repeats.
struct Script {
    permits: Arc<Semaphore>,
}

impl Application for Script {
    fn turn(&self, work: Work, mut speaker: Speaker) -> BoxFuture<'static, Ending> {
        let permits = self.permits.clone();
        Box::pin(async move {
            let text = work.input.text;
            let words = text.split_once(' ').unwrap_or((&text, ""));
            let said: Vec<String> = match (work.input.kind, words) {
                (Kind::Answer, _) => vec![format!("you answered {text}")],
                (_, ("ask", what)) => {
                    let question = format!("question-{}", work.turn.position);
                    let question = Name::parse(&question).expect("a name");
                    let (text, source) = (what.to_owned(), "cognitive".to_owned());
                    return Ending::Ask { question, text, source };
                }
                (_, ("fail", _)) => panic!("the application is told to panic"),
                (_, ("count", n)) => {
                    let n: u64 = n.parse().expect("a number");
                    (1..=n).map(|i| format!("{i} of {n}")).collect()
                }
                _ => vec![format!("you said {text}")],
            };
            for text in said {
                if text.contains(" of ") {
                    permits.acquire().await.expect("it is never closed").forget();
                }
                let saying = Saying { text, model: "script".to_owned(), usage: None };
                if speaker.say(saying).await.is_err() {
                    break;
                }
            }
            Ending::Done
        })
    }
}

/// A server, its database and its port.
pub(crate) struct Host {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    permits: Arc<Semaphore>,
    running: Option<(JoinHandle<()>, JoinHandle<()>)>,
}

impl Host {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let mut host = Self { folder, port, permits: Arc::new(Semaphore::new(0)), running: None };
        host.serve(listener).await;
        host
    }

    /// The process ends, without a word.
    pub(crate) async fn kill(&mut self) {
        let (serving, task) = self.running.take().expect("it runs");
        serving.abort();
        task.abort();
        let _ = (serving.await, task.await);
    }

    pub(crate) async fn start_again(&mut self) {
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(SOON).await,
            }
        };
        self.serve(listener).await;
    }

    /// Lets `count N` say so many more things.
    pub(crate) fn permit(&self, things: usize) {
        self.permits.add_permits(things);
    }

    /// Ends the server, and reads what the store holds.
    pub(crate) async fn stored(mut self, principal: &str) -> Vec<(Role, String)> {
        self.kill().await;
        let mut store = self.open().await;
        let (count_max, bytes_max) = (1_000, 1 << 20);
        let load = Command::Load { principal: principal.into(), count_max, bytes_max };
        let replies = store.transact(vec![load]).expect("it reads");
        let [Reply::Loaded(loaded)] = &replies[..] else { panic!("{replies:?}") };
        loaded.rows.iter().map(|row| (row.role, row.text.clone())).collect()
    }

    async fn serve(&mut self, listener: TcpListener) {
        let store = Threaded::spawn(self.open().await).expect("a thread");
        let config = ServerConfig::default();
        let extension = config.extension;
        let core = Server::new(config, Box::new(ShowAll), entropy());
        let script = Arc::new(Script { permits: self.permits.clone() });
        let (handle, task) = server(core, store, script, ServerTaskConfig::default());
        let access = Tokens::default().user("secret", "somebody").user("other", "somebody-else");
        let service = SessionService::new(handle, Arc::new(access), Limits::default(), extension)
            .with_page(web::PAGE);
        let serving = http::serve(listener, service, HttpConfig::default(), std::future::pending());
        self.running = Some((tokio::spawn(serving), tokio::spawn(task)));
    }

    async fn open(&self) -> SqliteConversations {
        let path = self.folder.path().join("server.db");
        let config = ConversationsConfig { synchronous: Synchronous::Normal, ..Default::default() };
        patiently(|| SqliteConversations::open(&path, &config)).await
    }
}

/// Opens a database that the one before may be about to let go of.
pub(crate) async fn patiently<T, E: std::fmt::Display>(
    mut open: impl FnMut() -> Result<T, E>,
) -> T {
    let mut tries = 0;
    loop {
        match open() {
            Ok(opened) => return opened,
            Err(error) if tries > 50 => panic!("{error}"),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(SOON).await;
    }
}

/// A port that leads to another one, until it is cut.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    cuts: watch::Sender<u64>,
    muted: watch::Sender<bool>,
    refusing: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (cuts, cut) = watch::channel(0);
        let (muted, mute) = watch::channel(false);
        let refusing = Arc::new(AtomicBool::new(false));
        let refuses = refusing.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if refuses.load(Ordering::Relaxed) {
                    continue;
                }
                tokio::spawn(carry(stream, to, cut.clone(), mute.clone()));
            }
        });
        Self { port, cuts, muted, refusing, accepting }
    }

    /// Breaks every connection.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Whether new connections are broken at once.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::Relaxed);
    }

    /// Whether what the server says is held back.
    pub(crate) fn mute(&self, muted: bool) {
        self.muted.send_replace(muted);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(
    client: TcpStream,
    to: u16,
    mut cuts: watch::Receiver<u64>,
    mut muted: watch::Receiver<bool>,
) {
    cuts.mark_unchanged();
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let copied = tokio::io::copy(&mut from_client, &mut to_server).await;
        copied.map(|_| ())
    };
    let down = async {
        let mut bytes = vec![0; 16 << 10];
        loop {
            let count = from_server.read(&mut bytes).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            // The sender lives as long as the proxy.
            let _ = muted.wait_for(|muted| !muted).await;
            to_client.write_all(&bytes[..count]).await?;
        }
    };
    tokio::select! {
        _ = cuts.changed() => {}
        _ = up => {}
        _ = down => {}
    }
}
