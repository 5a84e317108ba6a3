//! Puts faults between two foreign parties, on real sockets.
//!
//! What a fault does to a connection is done by the link of the simulated world; here are the
//! sockets, real time, and who decides. The decisions about a connection follow from the seed and
//! from its number, not from what happens on it, so two runs with the same traffic make the same.
//!
//! What cannot be done from user space is done in the nearest way: a connection is refused by
//! accepting and breaking it, and what a half-open link swallows is acknowledged by the kernel.

mod connection;
mod fault;
mod pace;
mod relay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::http::Uri;

pub(crate) use self::connection::Accepted;
use self::connection::Foreign;
use self::fault::Draw;
pub use self::fault::{Decision, Fault, Group, InvalidRate, Rate, Strike, UnknownGroup};
pub(crate) use self::pace::Pace;
pub(crate) use self::relay::break_off;
use crate::seed::Seed;

/// How many connections are open at once, if nothing else is said; more are refused.
pub const CONNECTIONS_MAX: usize = 1_024;

/// How many strikes a connection may be behind; it misses older ones.
const STRIKES_MAX: usize = 16;

/// How many reports may wait to be written.
const REPORTS_MAX: usize = 1_024;

/// How long a proxy that can accept no connection waits before it tries again.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Where connections go: `host:port`, from a URL without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(String);

/// The text is no place where a proxy can go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// It is no URL with a host.
    #[error("`{0}` is no URL: write `ws://127.0.0.1:8080`")]
    NotAUrl(String),
    /// It asks for TLS.
    #[error(
        "`{0}` asks for TLS, which this proxy does not speak: it has to see the frames. Give the \
         plain port behind it, or one of a program that adds TLS on the way"
    )]
    Tls(String),
    /// It has a path.
    #[error(
        "`{0}` has a path: what a client asks for is passed on as it is, so leave the path out"
    )]
    Path(String),
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let not_a_url = || InvalidTarget::NotAUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| not_a_url())?;
        match uri.scheme_str() {
            Some("ws" | "http") => {}
            Some("wss" | "https") => return Err(InvalidTarget::Tls(text.to_owned())),
            _ => return Err(not_a_url()),
        }
        if !matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("" | "/")) {
            return Err(InvalidTarget::Path(text.to_owned()));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(not_a_url)?;
        Ok(Self(format!("{host}:{}", uri.port_u16().unwrap_or(80))))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who decides what goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Faults {
    /// A seed.
    Drawn {
        /// From which the decisions follow.
        seed: Seed,
        /// What may go wrong.
        groups: Vec<Group>,
        /// How often.
        rate: Rate,
    },
    /// Whoever wrote these down.
    Planned(Vec<Decision>),
}

impl Faults {
    /// The decisions about a connection.
    fn of(&self, connection: u64) -> Box<dyn Iterator<Item = Decision> + Send> {
        match self {
            Self::Drawn { seed, groups, rate } => {
                Box::new(Draw::new(*seed, connection, groups, *rate))
            }
            Self::Planned(decisions) => {
                let of_it = decisions.iter().filter(|it| it.connection == connection);
                let mut of_it: Vec<Decision> = of_it.cloned().collect();
                of_it.sort_by_key(|decision| decision.due_ms);
                Box::new(of_it.into_iter())
            }
        }
    }
}

/// What happens at a proxy. Times are milliseconds since it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Report {
    /// A connection was accepted.
    Opened {
        /// Its number.
        connection: u64,
        /// When.
        time_ms: u64,
    },
    /// A fault began.
    Fault {
        /// As it was decided.
        #[serde(flatten)]
        decision: Decision,
        /// When.
        time_ms: u64,
        /// Why it did not begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        passed_over: Option<String>,
    },
    /// A connection is over.
    Closed {
        /// Its number.
        connection: u64,
        /// When.
        time_ms: u64,
        /// What it carried, in bytes.
        to_server: u64,
        /// What it carried, in bytes.
        to_client: u64,
    },
    /// The upstream could not be reached, and the connection was broken.
    Unreachable {
        /// Its number.
        connection: u64,
        /// When.
        time_ms: u64,
        /// Why.
        problem: String,
    },
    /// Too many connections were open, and the new one was broken.
    Full {
        /// Its number.
        connection: u64,
        /// When.
        time_ms: u64,
    },
}

/// What a proxy has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many connections were accepted.
    pub connections: u64,
    /// How many found no upstream.
    pub unreachable: u64,
    /// How many found no place.
    pub full: u64,
    /// How many faults of each kind began.
    pub faults: BTreeMap<&'static str, u64>,
    /// How many did not begin.
    pub passed_over: u64,
}

impl Summary {
    fn count(&mut self, report: &Report) {
        match report {
            Report::Opened { .. } => self.connections += 1,
            Report::Fault { decision, passed_over: None, .. } => {
                *self.faults.entry(decision.fault.kind()).or_default() += 1;
            }
            Report::Fault { passed_over: Some(_), .. } => self.passed_over += 1,
            Report::Unreachable { .. } => self.unreachable += 1,
            Report::Full { .. } => self.full += 1,
            Report::Closed { .. } => {}
        }
    }
}

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    upstream: Target,
    faults: Faults,
    connections_max: usize,
    strikes: broadcast::Sender<Strike>,
}

impl Proxy {
    /// Listens at an address; port 0 is any that is free.
    ///
    /// # Errors
    ///
    /// If nobody can listen there.
    pub async fn listen(at: SocketAddr, upstream: Target, faults: Faults) -> io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let (connections_max, strikes) = (CONNECTIONS_MAX, broadcast::channel(STRIKES_MAX).0);
        Ok(Self { listener, upstream, faults, connections_max, strikes })
    }

    /// With so many connections at once, at most.
    #[must_use]
    pub fn with_connections_max(self, connections_max: usize) -> Self {
        Self { connections_max, ..self }
    }

    /// Hits connections that are open, beside what was decided about each.
    pub fn strikes(&self) -> broadcast::Sender<Strike> {
        self.strikes.clone()
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// If the system does not say so.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `end`, and tells what happens.
    pub async fn run(
        self,
        end: impl Future<Output = ()>,
        mut tell: impl FnMut(&Report),
    ) -> Summary {
        let began = Instant::now();
        let places = Arc::new(Semaphore::new(self.connections_max));
        let (sender, mut reports) = mpsc::channel(REPORTS_MAX);
        let (mut tasks, mut summary) = (JoinSet::new(), Summary::default());
        let mut number = 0;
        let mut end = std::pin::pin!(end);
        let mut tell = |summary: &mut Summary, report: &Report| {
            summary.count(report);
            tell(report);
        };
        loop {
            tokio::select! { biased;
                () = &mut end => break,
                Some(report) = reports.recv() => tell(&mut summary, &report),
                Some(done) = tasks.join_next() => done.expect("a connection does not panic"),
                accepted = self.accept() => {
                    number += 1;
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        relay::break_off(&accepted);
                        let time_ms = began.elapsed().as_millis();
                        let time_ms = u64::try_from(time_ms).unwrap_or(u64::MAX);
                        tell(&mut summary, &Report::Full { connection: number, time_ms });
                        continue;
                    };
                    let connection = Foreign {
                        number,
                        client: accepted,
                        upstream: self.upstream.to_string(),
                        decisions: self.faults.of(number),
                        strikes: self.strikes.subscribe(),
                        reports: sender.clone(),
                        began,
                        place,
                    };
                    tasks.spawn(connection.run());
                }
            }
        }
        tasks.shutdown().await;
        while let Ok(report) = reports.try_recv() {
            tell(&mut summary, &report);
        }
        summary
    }

    async fn accept(&self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                // Most often too many open files.
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            }
        }
    }
}
