//! Turmoil and tungstenite, and nothing else: hosts that send what a script says.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use gapless::net::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};
use turmoil::net::{TcpListener, TcpStream};

use crate::script::{Connection, Frame, Post, Script};

/// What was moved.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Frames that were handed to a WebSocket.
    pub(crate) sent: AtomicU64,
    /// Frames that came out of one.
    pub(crate) received: AtomicU64,
    /// Bytes of the payloads of these.
    pub(crate) bytes: AtomicU64,
    /// Requests that were answered.
    pub(crate) answered: AtomicU64,
}

fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

/// Where WebSockets are accepted.
const SOCKETS: u16 = 80;

/// Where requests are answered.
const REQUESTS: u16 = 81;

/// What all frames and requests are made of.
static FILL: [u8; 1 << 16] = [b'x'; 1 << 16];

/// As in the simulated world.
fn websocket() -> WebSocketConfig {
    Limits { message_bytes_max: 16 << 10, ..Limits::default() }.websocket()
}

/// Carries out a script.
///
/// # Panics
///
/// If the simulation breaks.
pub(crate) fn run(script: &Arc<Script>) -> Arc<Moved> {
    let moved = Arc::new(Moved::default());
    let latency = Duration::from_millis(script.latency_ms);
    let mut sim = turmoil::Builder::new()
        .epoch(SystemTime::UNIX_EPOCH)
        .simulation_duration(Duration::from_millis(u64::MAX / 2))
        .tick_duration(Duration::from_millis(script.tick_ms))
        .min_message_latency(latency)
        .max_message_latency(latency)
        .tcp_capacity(script.tcp_capacity)
        .ephemeral_ports(1_024..=65_535)
        .rng_seed(script.seed)
        .build();
    {
        let (script, moved) = (script.clone(), moved.clone());
        sim.host("server", move || server(script.clone(), moved.clone()));
    }
    for client in 0..script.clients.len() {
        let (script, moved) = (script.clone(), moved.clone());
        let name = format!("client-{}", client + 1);
        sim.host(name, move || self::client(client, script.clone(), moved.clone()));
    }
    {
        let (script, moved) = (script.clone(), moved.clone());
        sim.host("publisher", move || publisher(script.clone(), moved.clone()));
    }
    for _ in 0..script.ticks {
        sim.step().expect("the bare world goes on");
    }
    drop(sim);
    moved
}

/// A host's clock, which shows zero when the world begins.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    async fn reach(self, at_ms: u64) {
        sleep_until(self.0 + Duration::from_millis(at_ms)).await;
    }
}

/// Sends what is due and drops what comes in, until the time is over or the peer is gone.
async fn play(
    socket: &mut WebSocketStream<TcpStream>,
    frames: &[Frame],
    end_ms: u64,
    clock: Clock,
    moved: &Moved,
) -> Result<(), tungstenite::Error> {
    let mut next = 0;
    loop {
        let due_ms = frames.get(next).map_or(end_ms, |frame| frame.at_ms);
        tokio::select! { biased;
            message = socket.next() => match message {
                Some(message) => {
                    count(&moved.bytes, message?.len());
                    count(&moved.received, 1);
                }
                None => return Ok(()),
            },
            () = clock.reach(due_ms), if due_ms < u64::MAX => {
                let due = frames[next..].iter().take_while(|frame| frame.at_ms <= due_ms);
                let due = due.count();
                if due == 0 {
                    return Ok(());
                }
                for frame in &frames[next..next + due] {
                    let text = Bytes::from_static(&FILL).slice(..frame.bytes);
                    socket.feed(Message::Text(Utf8Bytes::try_from(text)?)).await?;
                }
                socket.flush().await?;
                count(&moved.sent, due);
                next += due;
            }
        }
    }
}

async fn client(number: usize, script: Arc<Script>, moved: Arc<Moved>) -> turmoil::Result {
    let clock = Clock::start();
    for (nth, connection) in script.clients[number].iter().enumerate() {
        // A connection stands after one round trip.
        clock.reach(connection.open_ms.saturating_sub(2 * script.latency_ms)).await;
        let (up, end_ms, moved) = (connection.up.clone(), connection.end_ms, moved.clone());
        tokio::spawn(async move {
            let stream = TcpStream::connect(("server", SOCKETS)).await?;
            let url = format!("ws://server/{number}/{nth}");
            let (mut socket, _) = client_async_with_config(url, stream, Some(websocket())).await?;
            play(&mut socket, &up, end_ms, clock, &moved).await
        });
    }
    std::future::pending().await
}

async fn server(script: Arc<Script>, moved: Arc<Moved>) -> turmoil::Result {
    let clock = Clock::start();
    let sockets = TcpListener::bind(("0.0.0.0", SOCKETS)).await?;
    let requests = TcpListener::bind(("0.0.0.0", REQUESTS)).await?;
    loop {
        tokio::select! { biased;
            accepted = sockets.accept() => {
                let (script, moved) = (script.clone(), moved.clone());
                let stream = accepted?.0;
                tokio::spawn(async move { serve(stream, &script, clock, &moved).await });
            }
            accepted = requests.accept() => {
                let stream = accepted?.0;
                tokio::spawn(async move { answer(stream, clock).await });
            }
        }
    }
}

/// The server's end of a connection; the client says which one it is.
async fn serve(
    stream: TcpStream,
    script: &Script,
    clock: Clock,
    moved: &Moved,
) -> Result<(), tungstenite::Error> {
    let mut connection: Option<&Connection> = None;
    #[expect(clippy::result_large_err, reason = "tungstenite says what a callback returns")]
    let greet = |request: &Request, response: Response| {
        let path = request.uri().path();
        connection = path[1..].split_once('/').and_then(|(client, nth)| {
            script.clients.get(client.parse::<usize>().ok()?)?.get(nth.parse::<usize>().ok()?)
        });
        Ok(response)
    };
    let mut socket = accept_hdr_async_with_config(stream, greet, Some(websocket())).await?;
    let Some(connection) = connection else { return Ok(()) };
    // It is the client that lets go.
    play(&mut socket, &connection.down, u64::MAX, clock, moved).await
}

/// What a request begins with: its length, that of the answer, and when it is due.
const HEAD_BYTES: usize = 16;

async fn publisher(script: Arc<Script>, moved: Arc<Moved>) -> turmoil::Result {
    let clock = Clock::start();
    let mut jobs: Vec<usize> = (0..script.jobs.len()).collect();
    let begins_ms = |job: &usize| script.jobs[*job].first().map(|post| post.request.at_ms);
    jobs.sort_by_key(begins_ms);
    for job in jobs {
        clock.reach(begins_ms(&job).unwrap_or(0)).await;
        let (script, moved) = (script.clone(), moved.clone());
        tokio::spawn(async move { ask(&script.jobs[job], clock, &moved).await });
    }
    std::future::pending().await
}

async fn ask(posts: &[Post], clock: Clock, moved: &Moved) -> io::Result<()> {
    let mut stream = TcpStream::connect(("server", REQUESTS)).await?;
    for Post { request, answer } in posts {
        clock.reach(request.at_ms).await;
        let mut bytes = Vec::with_capacity(request.bytes);
        bytes.extend_from_slice(&(request.bytes as u32).to_be_bytes());
        bytes.extend_from_slice(&(answer.bytes as u32).to_be_bytes());
        bytes.extend_from_slice(&answer.at_ms.to_be_bytes());
        bytes.extend_from_slice(&FILL[HEAD_BYTES..request.bytes]);
        stream.write_all(&bytes).await?;
        bytes.resize(answer.bytes, 0);
        stream.read_exact(&mut bytes[..answer.bytes]).await?;
        count(&moved.answered, 1);
    }
    Ok(())
}

async fn answer(mut stream: TcpStream, clock: Clock) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let request = stream.read_u32().await? as usize;
        let answer = stream.read_u32().await? as usize;
        let due_ms = stream.read_u64().await?;
        bytes.resize(request - HEAD_BYTES, 0);
        stream.read_exact(&mut bytes).await?;
        clock.reach(due_ms).await;
        stream.write_all(&FILL[..answer]).await?;
    }
}
