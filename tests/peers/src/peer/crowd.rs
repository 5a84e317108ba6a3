//! Receivers in this process.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use gapless::events::client::Position;
use gapless::net::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Arrivals, Peer};
use crate::failure::{Failure, Result};
use crate::inbox::{Inbox, now};
use crate::process::PATIENCE;
use crate::tally::Counts;

/// How many connect at the same time where it is not a storm.
const ENTER_AT_ONCE: usize = 100;

/// How often to look whether something has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A server that receivers in Rust connect to.
pub(crate) trait Server: Send {
    fn address(&self) -> SocketAddr;

    fn resident_bytes(&self) -> Result<u64>;

    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        numbers: RangeInclusive<u64>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Runs a receiver over one connection for as long as that lasts. Tells `ready` once nothing
    /// that is published from then on can be missed.
    fn receive(
        &self,
        topic: &str,
        seat: Arc<Seat>,
        via: SocketAddr,
        ready: oneshot::Sender<()>,
    ) -> BoxFuture<'static, Result<()>>;
}

/// A receiver: what outlives its connections.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// Names it, where the server has to know it again.
    pub(crate) name: String,
    pub(crate) inbox: Arc<Inbox>,
    /// Where it was, for those who store that.
    pub(crate) position: Mutex<Option<Position>>,
}

/// A server with its receivers.
pub(crate) struct Crowd<S> {
    server: S,
    topic: String,
    seats: Vec<Arc<Seat>>,
    running: Vec<JoinHandle<Result<()>>>,
    started: Instant,
}

impl<S: Server> Crowd<S> {
    pub(crate) fn new(server: S) -> Self {
        Self { server, topic: String::new(), seats: vec![], running: vec![], started: now() }
    }

    fn connect(&mut self, seat: usize, via: SocketAddr) -> oneshot::Receiver<()> {
        let (ready, entered) = oneshot::channel();
        let receiving = self.server.receive(&self.topic, self.seats[seat].clone(), via, ready);
        self.running.push(tokio::spawn(receiving));
        entered
    }

    /// Drops all connections, and waits until they are.
    async fn drop_connections(&mut self) {
        for running in self.running.drain(..) {
            running.abort();
            // It was cancelled, or had ended before.
            let _ = running.await;
        }
    }

    fn arrived(&self) -> usize {
        self.seats.iter().map(|seat| seat.inbox.arrived()).sum()
    }
}

impl<S> Drop for Crowd<S> {
    fn drop(&mut self) {
        for running in &self.running {
            running.abort();
        }
    }
}

impl<S: Server> Peer for Crowd<S> {
    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn resident_bytes(&self) -> Result<u64> {
        self.server.resident_bytes()
    }

    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        numbers: RangeInclusive<u64>,
    ) -> BoxFuture<'a, Result<()>> {
        self.server.publish(topic, numbers)
    }

    fn enter<'a>(
        &'a mut self,
        topic: &'a str,
        count: usize,
        via: SocketAddr,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.drop_connections().await;
            topic.clone_into(&mut self.topic);
            let seat = |nth| Arc::new(Seat { name: format!("{topic}-{nth}"), ..Seat::default() });
            self.seats = (0..count).map(seat).collect();
            for first in (0..count).step_by(ENTER_AT_ONCE) {
                let last = count.min(first + ENTER_AT_ONCE);
                let entering: Vec<_> = (first..last).map(|nth| self.connect(nth, via)).collect();
                match tokio::time::timeout(PATIENCE, try_join_all(entering)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => return Err(self.why().await),
                    Err(_) => return Err(Failure::new("connecting takes too long")),
                }
            }
            Ok(())
        })
    }

    fn cut(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.drop_connections().await;
            Ok(())
        })
    }

    fn expect(&mut self, last: u64) -> BoxFuture<'_, Result<()>> {
        for seat in &self.seats {
            seat.inbox.expect(last);
        }
        self.started = now();
        Box::pin(async { Ok(()) })
    }

    fn resume(&mut self, via: SocketAddr) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // On a path that went silent the old connections are still open here as well.
            self.drop_connections().await;
            for nth in 0..self.seats.len() {
                // Nobody waits for them to be ready, only for the events.
                drop(self.connect(nth, via));
            }
            Ok(())
        })
    }

    fn collect(&mut self, quiet: Duration) -> BoxFuture<'_, Result<Arrivals>> {
        Box::pin(async move {
            let (mut arrived, mut since) = (self.arrived(), now());
            let is_complete = |seat: &Arc<Seat>| seat.inbox.complete().is_some();
            while !self.seats.iter().all(is_complete) && since.elapsed() < quiet {
                tokio::time::sleep(LOOK_EVERY).await;
                let arrived_now = self.arrived();
                if arrived_now != arrived {
                    (arrived, since) = (arrived_now, now());
                }
            }
            let mut counts = Counts::default();
            for seat in &self.seats {
                counts += seat.inbox.counts();
            }
            let done = self.seats.iter().map(|seat| seat.inbox.complete());
            let last = done.collect::<Option<Vec<_>>>().and_then(|done| done.into_iter().max());
            Ok(Arrivals { counts, took: last.map(|last| last - self.started) })
        })
    }
}

impl<S> Crowd<S> {
    /// Why a receiver has ended that should not have.
    async fn why(&mut self) -> Failure {
        for running in self.running.drain(..) {
            if running.is_finished()
                && let Ok(Err(failure)) = running.await
            {
                return failure;
            }
        }
        Failure::new("a receiver has ended")
    }
}
