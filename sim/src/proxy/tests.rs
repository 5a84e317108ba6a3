//! A proxy between real sockets on the loopback interface. No test depends on how long things take:
//! what must happen is waited for, and what must not is shown by something that comes after it.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{accept_async, client_async};

use super::*;
use crate::plan::{Cut, Strange};

/// Longer than anything here takes on a machine that is not stuck.
const PATIENCE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<TcpStream>;

/// Runs a test on a runtime with real sockets and real time.
fn real<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let patient = async {
        tokio::time::timeout(PATIENCE, test).await.expect("what is waited for happens");
    };
    runtime.expect("a runtime").block_on(patient);
}

/// What a server hears, and how its connections end.
#[derive(Debug, PartialEq)]
enum Heard {
    Text(String),
    Binary,
    Close,
    Broken,
}

/// A server that says back every text that it hears.
async fn echo() -> (SocketAddr, mpsc::UnboundedReceiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (heard, hearing) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heard = heard.clone();
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else { return };
                loop {
                    let what = match socket.next().await {
                        Some(Ok(Message::Text(text))) => {
                            let echo = Message::Text(text.clone());
                            // Whether that succeeds the next turn tells.
                            let _ = socket.send(echo).await;
                            Heard::Text(text.to_string())
                        }
                        Some(Ok(Message::Binary(_))) => Heard::Binary,
                        Some(Ok(_)) => continue,
                        None => Heard::Close,
                        Some(Err(_)) => Heard::Broken,
                    };
                    let over = matches!(what, Heard::Close | Heard::Broken);
                    if heard.send(what).is_err() || over {
                        return;
                    }
                }
            });
        }
    });
    (address, hearing)
}

/// A proxy whose reports are listened to.
struct Running {
    address: SocketAddr,
    reports: mpsc::UnboundedReceiver<Report>,
    strikes: broadcast::Sender<Strike>,
    end: oneshot::Sender<()>,
}

async fn proxy(upstream: SocketAddr, faults: Faults) -> Running {
    let upstream = format!("ws://{upstream}").parse().expect("a URL");
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let proxy = Proxy::listen(loopback, upstream, faults).await.expect("a port");
    let (address, strikes) = (proxy.address().expect("an address"), proxy.strikes());
    let (sender, reports) = mpsc::unbounded_channel();
    let (end, ended) = oneshot::channel();
    tokio::spawn(async move {
        let until = async {
            let _ = ended.await;
        };
        proxy
            .run(until, |report| {
                let _ = sender.send(report.clone());
            })
            .await
    });
    Running { address, reports, strikes, end }
}

impl Running {
    /// Waits until so many faults have begun.
    async fn faults(&mut self, count: usize) -> Vec<Decision> {
        let mut faults = Vec::new();
        while faults.len() < count {
            let report = self.reports.recv().await.expect("the proxy runs");
            if let Report::Fault { decision, passed_over: None, .. } = report {
                faults.push(decision);
            }
        }
        faults
    }
}

async fn connect(address: SocketAddr) -> Result<Socket, Error> {
    let stream = TcpStream::connect(address).await?;
    Ok(client_async(format!("ws://{address}/"), stream).await?.0)
}

async fn say(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.expect("sent");
}

async fn hear(socket: &mut Socket) -> String {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => text.to_string(),
        other => panic!("a text was expected instead of {other:?}"),
    }
}

/// The faults of the first connection, all of them early.
fn planned(faults: impl IntoIterator<Item = Fault>) -> Faults {
    let due_ms = FIRST_MS;
    let faults = faults.into_iter();
    Faults::Planned(faults.map(|fault| Decision { connection: 1, due_ms, fault }).collect())
}

/// When the faults of a test begin. A test begins only after them, so nothing depends on it but that a
/// connection is open by then.
const FIRST_MS: u64 = 1_000;

/// A client and a server with a proxy between them, after the faults have begun.
async fn after(faults: Vec<Fault>) -> (Socket, mpsc::UnboundedReceiver<Heard>, Running) {
    let (server, heard) = echo().await;
    let count = faults.len();
    let mut proxy = proxy(server, planned(faults)).await;
    let mut client = connect(proxy.address).await.expect("a connection");
    say(&mut client, "before").await;
    assert_eq!(hear(&mut client).await, "before");
    proxy.faults(count).await;
    let mut heard = heard;
    assert_eq!(heard.recv().await, Some(Heard::Text("before".to_owned())));
    (client, heard, proxy)
}

#[test]
fn without_faults_everything_passes() {
    real(async {
        let (server, _heard) = echo().await;
        let proxy = proxy(server, planned([])).await;
        let mut client = connect(proxy.address).await.expect("a connection");
        let long = "x".repeat(300_000);
        for text in ["a", &long, "b"] {
            say(&mut client, text).await;
            assert_eq!(hear(&mut client).await, text);
        }
    });
}

#[test]
fn a_reset_is_seen_as_a_reset_by_both() {
    real(async {
        let faults = vec![Fault::Cut { how: Cut::Reset }];
        let (mut client, mut heard, _proxy) = after(faults).await;
        match client.next().await {
            Some(Err(Error::Io(error))) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
            other => panic!("a reset was expected instead of {other:?}"),
        }
        assert_eq!(heard.recv().await, Some(Heard::Broken));
    });
}

#[test]
fn a_strike_hits_what_is_open_and_nothing_that_is_opened_later() {
    real(async {
        let (server, _heard) = echo().await;
        let mut proxy = proxy(server, planned([])).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = connect(proxy.address).await.expect("a connection");
            say(&mut client, "before").await;
            assert_eq!(hear(&mut client).await, "before");
            clients.push(client);
        }
        let strike = Strike { percent: 100, seed: 1, fault: Fault::Cut { how: Cut::Reset } };
        proxy.strikes.send(strike).expect("the connections listen");
        let mut hit: Vec<u64> =
            proxy.faults(3).await.iter().map(|decision| decision.connection).collect();
        hit.sort_unstable();
        assert_eq!(hit, [1, 2, 3]);
        for mut client in clients {
            assert!(matches!(client.next().await, Some(Err(Error::Io(_)))));
        }
        let mut later = connect(proxy.address).await.expect("a connection");
        say(&mut later, "after").await;
        assert_eq!(hear(&mut later).await, "after");
    });
}

#[test]
fn a_close_comes_with_its_code() {
    real(async {
        let faults = vec![Fault::Cut { how: Cut::Close }];
        let (mut client, mut heard, _proxy) = after(faults).await;
        match client.next().await {
            Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1012),
            other => panic!("a close frame was expected instead of {other:?}"),
        }
        assert_eq!(heard.recv().await, Some(Heard::Broken), "the server sees no goodbye");
    });
}

#[test]
fn a_frame_that_is_cut_ends_in_its_middle() {
    real(async {
        let (server, _heard) = echo().await;
        let mut proxy = proxy(server, planned([Fault::Cut { how: Cut::MidFrame }])).await;
        let mut raw = TcpStream::connect(proxy.address).await.expect("a connection");
        let greeting = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            proxy.address
        );
        raw.write_all(greeting.as_bytes()).await.expect("sent");
        let mut head = [0; 1_024];
        let length = raw.read(&mut head).await.expect("an answer");
        assert!(head[..length].ends_with(b"\r\n\r\n"));
        proxy.faults(1).await;
        let frame = crate::world::frames::Frame::encode(1, b"0123456789", true);
        raw.write_all(&frame).await.expect("sent");
        let mut rest = Vec::new();
        let end = raw.read_to_end(&mut rest).await;
        assert_eq!(rest, [0x81, 10, b'0', b'1', b'2', b'3'], "half of 12 bytes");
        assert_eq!(end.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_half_open_connection_is_silent_both_ways_and_stays_open() {
    real(async {
        let faults = vec![Fault::Cut { how: Cut::HalfOpenUp }];
        let (mut client, mut heard, mut proxy) = after(faults).await;
        say(&mut client, "swallowed").await;
        drop(client);
        // The relay of the client is over, and the server has heard neither the text nor its end.
        while !matches!(proxy.reports.recv().await, Some(Report::Closed { connection: 1, .. })) {}
        let mut second = connect(proxy.address).await.expect("a connection");
        say(&mut second, "second").await;
        assert_eq!(hear(&mut second).await, "second");
        assert_eq!(heard.recv().await, Some(Heard::Text("second".to_owned())));
        assert_eq!(heard.try_recv(), Err(mpsc::error::TryRecvError::Empty));
    });
}

#[test]
fn a_half_open_connection_to_the_client_swallows_what_the_server_says() {
    real(async {
        let faults = vec![Fault::Cut { how: Cut::HalfOpenDown }];
        let (mut client, mut heard, proxy) = after(faults).await;
        say(&mut client, "heard").await;
        assert_eq!(heard.recv().await, Some(Heard::Text("heard".to_owned())));
        // The echo of what comes later on another connection arrives, this one's never does.
        let mut second = connect(proxy.address).await.expect("a connection");
        say(&mut second, "second").await;
        assert_eq!(hear(&mut second).await, "second");
        let nothing = futures_util::FutureExt::now_or_never(client.next());
        assert!(nothing.is_none(), "{nothing:?}");
    });
}

#[test]
fn lost_and_doubled_messages_are_those_that_were_named() {
    real(async {
        let faults = vec![
            Fault::Lose { frames: 2, to_server: true },
            Fault::Duplicate { frames: 1, to_server: false },
        ];
        let (mut client, mut heard, _proxy) = after(faults).await;
        for text in ["1", "2", "3", "4"] {
            say(&mut client, text).await;
        }
        for text in ["3", "3", "4"] {
            assert_eq!(hear(&mut client).await, text);
        }
        for text in ["3", "4"] {
            assert_eq!(heard.recv().await, Some(Heard::Text(text.to_owned())));
        }
    });
}

#[test]
fn pings_are_never_lost_in_the_place_of_messages() {
    real(async {
        let (mut client, mut heard, _proxy) =
            after(vec![Fault::Lose { frames: 1, to_server: true }]).await;
        client.send(Message::Ping(vec![7].into())).await.expect("sent");
        assert!(matches!(client.next().await, Some(Ok(Message::Pong(_)))));
        say(&mut client, "lost").await;
        say(&mut client, "not lost").await;
        assert_eq!(heard.recv().await, Some(Heard::Text("not lost".to_owned())));
    });
}

#[test]
fn what_was_held_arrives_in_order_when_it_is_let_go() {
    real(async {
        let (mut client, mut heard, _proxy) = after(vec![Fault::Hold { for_ms: 2_000 }]).await;
        for text in ["1", "2"] {
            say(&mut client, text).await;
        }
        assert_eq!(heard.try_recv(), Err(mpsc::error::TryRecvError::Empty));
        for text in ["1", "2"] {
            assert_eq!(hear(&mut client).await, text);
        }
    });
}

#[test]
fn a_strange_frame_arrives_whole_between_others() {
    real(async {
        let faults = vec![
            Fault::Inject { frame: Strange::Binary, to_server: true },
            Fault::Inject { frame: Strange::Malformed, to_server: false },
        ];
        let (mut client, mut heard, _proxy) = after(faults).await;
        assert_eq!(hear(&mut client).await, r#"{"type":"ping""#);
        assert_eq!(heard.recv().await, Some(Heard::Binary));
        say(&mut client, "after").await;
        assert_eq!(hear(&mut client).await, "after");
    });
}

#[test]
fn a_refused_connection_breaks_and_an_unanswered_one_says_nothing() {
    real(async {
        let (server, _heard) = echo().await;
        let at = |connection, fault| Decision { connection, due_ms: 0, fault };
        let plan = vec![at(1, Fault::Refuse), at(2, Fault::NeverAnswer)];
        let proxy = proxy(server, Faults::Planned(plan)).await;
        assert!(matches!(connect(proxy.address).await, Err(Error::Io(_))));
        let mut second = std::pin::pin!(connect(proxy.address));
        let mut third = tokio::select! { biased;
            _ = &mut second => panic!("the second connection is never answered"),
            third = async { loop {
                // Connections are numbered as they are accepted: the second one first.
                if let Ok(third) = connect(proxy.address).await { break third; }
            } } => third,
        };
        say(&mut third, "a").await;
        assert_eq!(hear(&mut third).await, "a");
    });
}

#[test]
fn faults_of_frames_are_passed_over_on_a_connection_without_frames() {
    real(async {
        let (server, _heard) = echo().await;
        let mut proxy = proxy(server, planned([Fault::Lose { frames: 1, to_server: true }])).await;
        let _raw = TcpStream::connect(proxy.address).await.expect("a connection");
        loop {
            match proxy.reports.recv().await.expect("the proxy runs") {
                Report::Fault { passed_over: Some(_), .. } => break,
                Report::Fault { .. } => panic!("there are no frames to lose"),
                _ => {}
            }
        }
    });
}

/// What is decided in a session of three connections that end after five faults each.
async fn decisions(seed: u64) -> Vec<Decision> {
    let (server, _heard) = echo().await;
    let faults = Faults::Drawn {
        seed: Seed(seed),
        groups: vec![Group::Peer, Group::Strange],
        rate: Rate { from: 3_000, to: 6_000 },
    };
    let mut proxy = proxy(server, faults).await;
    let mut decisions = Vec::new();
    for connection in 1..=3 {
        let raw = TcpStream::connect(proxy.address).await.expect("a connection");
        let mut count = 0;
        while count < 5 {
            if let Report::Fault { decision, .. } =
                proxy.reports.recv().await.expect("the proxy runs")
                && decision.connection == connection
            {
                decisions.push(decision);
                count += 1;
            }
        }
        drop(raw);
    }
    let _ = proxy.end.send(());
    decisions
}

#[test]
fn the_same_seed_decides_the_same_about_the_same_connections() {
    real(async {
        assert_eq!(decisions(7).await, decisions(7).await);
        assert_ne!(decisions(7).await, decisions(8).await);
    });
}

#[test]
fn an_upstream_that_is_not_there_is_reported_and_breaks_the_connection() {
    real(async {
        let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = nobody.local_addr().expect("an address");
        drop(nobody);
        let mut proxy = proxy(address, planned([])).await;
        assert!(connect(proxy.address).await.is_err());
        while !matches!(proxy.reports.recv().await, Some(Report::Unreachable { .. })) {}
    });
}

#[test]
fn an_upstream_is_a_url_without_tls_and_path() {
    for (text, target) in
        [("ws://a:1", "a:1"), ("http://a", "a:80"), ("ws://127.0.0.1:9/", "127.0.0.1:9")]
    {
        assert_eq!(text.parse::<Target>().expect(text).to_string(), target);
    }
    assert!(matches!("wss://a".parse::<Target>(), Err(InvalidTarget::Tls(_))));
    assert!(matches!("ws://a/b".parse::<Target>(), Err(InvalidTarget::Path(_))));
    for text in ["", "a:1", "127.0.0.1", "ftp://a", "ws://"] {
        assert!(matches!(text.parse::<Target>(), Err(InvalidTarget::NotAUrl(_))), "{text}");
    }
}
