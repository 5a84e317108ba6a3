//! One connection of a proxy between two foreign parties: its faults, each at its time.

use std::convert::Infallible;
use std::io;
use std::iter::Peekable;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::relay::{Carried, Relay, Upstream, break_off, ignore};
use super::{Decision, Fault, Pace, Report, Strike};
use crate::plan::{Cut, Strange};
use crate::trace::{Fact, Kind, Text};
use crate::world::frames::{BINARY, Frame, TEXT};
use crate::world::link::{Connecting, FaultyStream, Link, Opened, Reading, Site, Watch};

/// How long connecting to the upstream may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What a connection is given that was accepted.
pub(crate) struct Accepted<S> {
    pub(crate) client: TcpStream,
    /// Where the upstream is, as `host:port`.
    pub(crate) upstream: String,
    pub(crate) link: Link,
    pub(crate) pace: Pace,
    pub(crate) watch: Arc<dyn Watch>,
    pub(crate) site: S,
    /// Among the connections that may be open.
    pub(crate) place: OwnedSemaphorePermit,
}

impl<S: Site> Accepted<S> {
    /// Carries the connection to its end.
    ///
    /// # Errors
    ///
    /// If the upstream cannot be reached. The client sees its connection break.
    pub(crate) async fn serve(mut self) -> io::Result<Carried> {
        let connecting = self.link.connecting();
        match connecting {
            Connecting::Refused => {
                self.site.record(Kind::Life, "connection refused".to_owned(), None);
                break_off(&self.client);
                return Ok(Carried::default());
            }
            Connecting::Lost => {
                self.site.record(Kind::Life, "connecting, without an answer".to_owned(), None);
                ignore(&mut self.client).await;
                return Ok(Carried::default());
            }
            Connecting::Works | Connecting::NeverAnswered => {}
        }
        let connect = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(&self.upstream));
        let connected = connect.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let server = match connected {
            Ok(server) => server,
            Err(error) => {
                self.site.record(Kind::Life, "connection refused".to_owned(), None);
                break_off(&self.client);
                return Err(error);
            }
        };
        server.set_nodelay(true)?;
        self.client.set_nodelay(true)?;
        let number = self.link.opens();
        let text = format!("connection {number} opens");
        self.site.record(Kind::Life, text, Some(Fact::Opens));
        // A client that is gone already has none.
        let port = self.client.peer_addr().map_or(0, |address| address.port());
        let opened = Opened { number, port, silent: connecting == Connecting::NeverAnswered };
        let server = Upstream::new(server, self.pace, self.place);
        let server = FaultyStream::new(server, self.link, self.site, self.watch, opened);
        Ok(Relay::new(self.client, server).run().await)
    }
}

/// A connection between two foreign parties.
pub(super) struct Foreign<D> {
    pub(super) number: u64,
    pub(super) client: TcpStream,
    pub(super) upstream: String,
    pub(super) decisions: D,
    /// What hits many connections at once.
    pub(super) strikes: broadcast::Receiver<Strike>,
    pub(super) reports: mpsc::Sender<Report>,
    /// When the proxy began.
    pub(super) began: Instant,
    pub(super) place: OwnedSemaphorePermit,
}

impl<D: Iterator<Item = Decision>> Foreign<D> {
    pub(super) async fn run(self) {
        let Self {
            number: connection,
            client,
            upstream,
            decisions,
            strikes,
            reports,
            began,
            place,
        } = self;
        let (link, pace) = (Link::default(), Pace::default());
        // The only connection of its link, whatever it carries.
        link.is_newest(1);
        let time_ms = || millis(began.elapsed());
        let say = async |report| {
            // Without a reader the proxy is at its end.
            let _ = reports.send(report).await;
        };
        say(Report::Opened { connection, time_ms: time_ms() }).await;
        let mut decisions = decisions.peekable();
        let first = decisions.next_if(|decision| {
            decision.due_ms == 0 && matches!(decision.fault, Fault::Refuse | Fault::NeverAnswer)
        });
        if let Some(decision) = first {
            link.set_connecting(match decision.fault {
                Fault::Refuse => Connecting::Refused,
                _ => Connecting::NeverAnswered,
            });
            say(Report::Fault { decision, time_ms: time_ms(), passed_over: None }).await;
        }
        let course = Course {
            connection,
            link: link.clone(),
            pace: pace.clone(),
            decisions,
            strikes: Some(strikes),
            lasting: Vec::new(),
        };
        let watch = Arc::new(AnyMessages);
        let accepted = Accepted { client, upstream, link, pace, watch, site: Nowhere, place };
        let carried = tokio::select! { biased;
            carried = accepted.serve() => carried,
            never = course.run(began, &reports) => match never {},
        };
        say(match carried {
            Ok(Carried { to_server, to_client }) => {
                Report::Closed { connection, time_ms: time_ms(), to_server, to_client }
            }
            Err(error) => {
                let problem = error.to_string();
                Report::Unreachable { connection, time_ms: time_ms(), problem }
            }
        })
        .await;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How a fault that lasts ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Held,
    Slow,
    Reading,
}

/// The faults of a connection, one after the other.
struct Course<D: Iterator<Item = Decision>> {
    connection: u64,
    link: Link,
    pace: Pace,
    decisions: Peekable<D>,
    /// `None` once nobody can strike any more.
    strikes: Option<broadcast::Receiver<Strike>>,
    /// What lasts, and until when.
    lasting: Vec<(Instant, Lasting)>,
}

impl<D: Iterator<Item = Decision>> Course<D> {
    async fn run(mut self, began: Instant, reports: &mpsc::Sender<Report>) -> Infallible {
        let opened = Instant::now();
        loop {
            let due = |due_ms| opened + Duration::from_millis(due_ms);
            let next = self.decisions.peek().map(|decision| due(decision.due_ms));
            let over = self.lasting.iter().map(|(until, _)| *until).min();
            let at = next.into_iter().chain(over).min();
            tokio::select! { biased;
                strike = struck(&mut self.strikes) => {
                    // A strike comes from outside and hits when it comes: on real sockets real time counts.
                    let now = Instant::now();
                    let due_ms = millis(now.duration_since(opened));
                    if let Some(fault) = strike.hits(self.connection) {
                        let connection = self.connection;
                        self.happen(Decision { connection, due_ms, fault }, now, began, reports).await;
                    }
                }
                at = sleep_until(at) => {
                    self.end(at);
                    while let Some(decision) = self.decisions.next_if(|it| due(it.due_ms) <= at) {
                        self.happen(decision, at, began, reports).await;
                    }
                }
            }
        }
    }

    async fn happen(
        &mut self,
        decision: Decision,
        at: Instant,
        began: Instant,
        reports: &mpsc::Sender<Report>,
    ) {
        let passed_over = self.begin(&decision.fault, at).err().map(str::to_owned);
        let time_ms = millis(began.elapsed());
        // Without a reader the proxy is at its end.
        let _ = reports.send(Report::Fault { decision, time_ms, passed_over }).await;
    }

    /// Lets a fault begin, or says why it cannot.
    fn begin(&mut self, fault: &Fault, at: Instant) -> Result<(), &'static str> {
        let frames = self.link.carries_frames();
        if fault.needs_frames() && !frames {
            return Err("the connection carries no frames");
        }
        match *fault {
            Fault::Refuse | Fault::NeverAnswer => return Err("the connection is open already"),
            Fault::Cut { how: Cut::MidFrame } if !frames => self.link.cut(Cut::Reset, 0),
            Fault::Cut { how } => self.link.cut(how, 0),
            Fault::Hold { for_ms } => {
                self.pace.hold(true);
                self.lasts(at, for_ms, Lasting::Held);
            }
            Fault::Latency { latency_ms, for_ms } => {
                self.pace.set_latency(Duration::from_millis(latency_ms));
                self.lasts(at, for_ms, Lasting::Slow);
            }
            Fault::SlowReader { pause_ms, for_ms } => {
                self.link.set_reading(match pause_ms {
                    Some(pause) => Reading::Paused(Duration::from_millis(pause)),
                    None => Reading::Stopped,
                });
                self.lasts(at, for_ms, Lasting::Reading);
            }
            Fault::Lose { frames, to_server: false } => self.link.lose(frames),
            Fault::Lose { frames, to_server: true } => self.link.lose_to_server(frames),
            Fault::Duplicate { frames, to_server: false } => self.link.duplicate(frames),
            Fault::Duplicate { frames, to_server: true } => self.link.duplicate_to_server(frames),
            Fault::Inject { frame, to_server } => self.link.inject(frame, to_server),
        }
        Ok(())
    }

    /// A fault of the same kind ends when the newest one does.
    fn lasts(&mut self, at: Instant, for_ms: u64, what: Lasting) {
        self.lasting.retain(|(_, lasting)| *lasting != what);
        self.lasting.push((at + Duration::from_millis(for_ms), what));
    }

    fn end(&mut self, now: Instant) {
        let (over, lasting) = self.lasting.drain(..).partition(|(until, _)| *until <= now);
        self.lasting = lasting;
        for (_, what) in over {
            match what {
                Lasting::Held => self.pace.hold(false),
                Lasting::Slow => self.pace.set_latency(Duration::ZERO),
                Lasting::Reading => self.link.set_reading(Reading::Normal),
            }
        }
    }
}

/// The next strike; for ever if there will be none.
async fn struck(strikes: &mut Option<broadcast::Receiver<Strike>>) -> Strike {
    while let Some(receiver) = strikes {
        match receiver.recv().await {
            Ok(strike) => return strike,
            // More came at once than are kept: those that are gone hit nobody here.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => *strikes = None,
        }
    }
    std::future::pending().await
}

/// Sleeps until a time, which it returns; for ever if there is none.
async fn sleep_until(at: Option<Instant>) -> Instant {
    match at {
        Some(at) => {
            tokio::time::sleep_until(at).await;
            at
        }
        None => std::future::pending().await,
    }
}

/// Between two foreign parties: what they say to each other is not written down.
struct Nowhere;

impl Site for Nowhere {
    fn name(&self) -> &str {
        "client"
    }

    fn record(&self, _kind: Kind, _text: impl Into<Text>, _fact: Option<Fact>) {}

    fn poll_running(&self, _cx: &Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Knows of no protocol but WebSocket.
struct AnyMessages;

/// Larger than what most receivers take, in bytes.
const OVERSIZE: usize = (1 << 20) + 1;

impl Watch for AnyMessages {
    /// Takes the offer to compress out of the greeting: a message that depends on those before it
    /// cannot be lost alone.
    fn head(&self, bytes: Bytes) -> Bytes {
        let Ok(head) = std::str::from_utf8(&bytes) else { return bytes };
        let offers = |line: &str| {
            line.split_once(':')
                .is_some_and(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"))
        };
        match head.ends_with("\r\n\r\n") && head.lines().any(offers) {
            true => {
                head.split_inclusive("\r\n").filter(|line| !offers(line)).collect::<String>().into()
            }
            false => bytes,
        }
    }

    fn sent(&self, _connection: u64, _frame: &Frame) {}

    fn arrived(&self, _connection: u64, _frame: &Frame) {}

    fn is_payload(&self, frame: &Frame) -> bool {
        frame.is_message()
    }

    fn strange(&self, frame: Strange, to_server: bool) -> Bytes {
        let text = |text: &str| Frame::encode(TEXT, text.as_bytes(), to_server);
        match frame {
            Strange::UnknownType => text(r#"{"type":"dance","tempo":120}"#),
            Strange::Malformed => text(r#"{"type":"ping""#),
            Strange::BadField => text(r#"{"type":7}"#),
            Strange::Binary => Frame::encode(BINARY, &[0, 1, 2, 255], to_server),
            Strange::Oversize => Frame::encode(TEXT, &vec![b' '; OVERSIZE], to_server),
            Strange::StaleAnswer => Bytes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_to_compress_is_taken_out_and_nothing_else() {
        let head =
            |offer: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{offer}Upgrade: websocket\r\n\r\n");
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        assert_eq!(AnyMessages.head(head(offer).into()), head(""));
        assert_eq!(AnyMessages.head(head("").into()), head(""));
    }
}
