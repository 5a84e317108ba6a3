//! Looks all the time how the servers and the engine are, beside the run, so that nothing waits for
//! one that does not answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::engine::{Look, Place, STREAMS, Streams};
use crate::nodes::get;

/// How long to wait after one look before the next.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// How long a process may take to say how it is; otherwise it is not well.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// What a look has found.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// When it began.
    pub(crate) at: Instant,
    /// Which servers are ready.
    pub(crate) ready: Vec<bool>,
    /// Which nodes of the engine say that they are well. Before there is a log, that is all there is
    /// to know.
    pub(crate) well: Vec<bool>,
    pub(crate) engine: Look,
}

/// The looks, for as long as it lives.
pub(crate) struct Watch {
    seen: watch::Receiver<Seen>,
    looking: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Watch {
    pub(crate) fn begin(servers: Vec<SocketAddr>, places: Vec<Place>) -> Self {
        let nothing = Seen {
            at: Instant::now(),
            ready: vec![false; servers.len()],
            well: vec![false; places.len()],
            engine: Look::default(),
        };
        let (tell, seen) = watch::channel(nothing);
        let looking = tokio::spawn(async move {
            while !tell.is_closed() {
                tell.send_replace(look(&servers, &places).await);
                sleep(LOOK_EVERY).await;
            }
        });
        Self { seen, looking }
    }

    /// What was found last.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }
}

async fn look(servers: &[SocketAddr], places: &[Place]) -> Seen {
    let at = Instant::now();
    let before = streams(places).await;
    let mut well = Vec::with_capacity(places.len());
    for place in places {
        well.push(is_well(place.monitor).await);
    }
    let after = streams(places).await;
    let mut ready = Vec::with_capacity(servers.len());
    for server in servers {
        ready.push(is_well(*server).await);
    }
    let engine = Look::of(&before, &well, &after);
    Seen { at, ready, well, engine }
}

async fn is_well(at: SocketAddr) -> bool {
    let answer = timeout(ANSWER_MAX, get(at, "/healthz")).await;
    matches!(answer, Ok(Ok((200..=299, _))))
}

/// What each node says of its streams; `None` of one that says nothing.
async fn streams(places: &[Place]) -> Vec<Option<Streams>> {
    let mut all = Vec::with_capacity(places.len());
    for place in places {
        let answer = timeout(ANSWER_MAX, get(place.monitor, STREAMS)).await;
        let answer = answer.ok().and_then(Result::ok);
        all.push(answer.and_then(|(_, body)| serde_json::from_str(&body).ok()));
    }
    all
}
