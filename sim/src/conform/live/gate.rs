//! Where the clients of a live run connect: a real socket each, with the faults behind it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use gapless::net::Connector;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::tap::Tap;
use crate::plan::{Answer, Strange};
use crate::proxy::{Accepted, CONNECTIONS_MAX, Pace, break_off};
use crate::world::events::watch::EventWatch;
use crate::world::frames::Frame;
use crate::world::host::Process;
use crate::world::link::{Link, Watch};

/// Where the server listens, as long as it does.
#[derive(Debug, Clone, Default)]
pub(super) struct Address(Arc<Mutex<Option<SocketAddr>>>);

impl Address {
    pub(super) fn set(&self, address: Option<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    pub(super) fn get(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connector for Address {
    type Stream = TcpStream;

    fn connect(&self) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static {
        let address = self.get().ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused));
        async move {
            let stream = TcpStream::connect(address?).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    }
}

/// Watches the link of a client.
pub(super) struct LiveWatch {
    pub(super) events: EventWatch,
    /// The adapter of the client, if it is a foreign one.
    pub(super) tap: Option<Tap>,
}

impl Watch for LiveWatch {
    /// What the application was given before the client said this was written before it, to another
    /// pipe.
    fn sent(&self, connection: u64, frame: &Frame) {
        if let Some(tap) = &self.tap {
            tap.drain();
        }
        self.events.sent(connection, frame);
    }

    fn arrived(&self, connection: u64, frame: &Frame) {
        self.events.arrived(connection, frame);
    }

    fn is_payload(&self, frame: &Frame) -> bool {
        self.events.is_payload(frame)
    }

    fn changed(&self, frame: &Frame, how: Answer) -> Option<Frame> {
        self.events.changed(frame, how)
    }

    fn strange(&self, frame: Strange, to_server: bool) -> bytes::Bytes {
        self.events.strange(frame, to_server)
    }
}

/// A client's way to the server.
pub(super) struct Gate {
    pub(super) link: Link,
    pub(super) pace: Pace,
    /// Where the client connects.
    pub(super) address: SocketAddr,
    listener: TcpListener,
}

impl Gate {
    pub(super) async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { link: Link::default(), pace: Pace::default(), address, listener })
    }

    /// Carries what comes.
    pub(super) fn carry(
        self,
        server: Address,
        watch: Arc<dyn Watch>,
        process: Arc<Mutex<Process>>,
    ) -> (Link, Pace, impl Future<Output = ()>) {
        let Self { link, pace, address: _, listener } = self;
        let carried = {
            let (link, pace) = (link.clone(), pace.clone());
            async move {
                let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
                let mut connections = JoinSet::new();
                loop {
                    let accepted = tokio::select! { biased;
                        Some(_) = connections.join_next() => continue,
                        accepted = listener.accept() => accepted,
                    };
                    let Ok((client, _)) = accepted else { continue };
                    let place = Arc::clone(&places).try_acquire_owned();
                    let (Some(upstream), Ok(place)) = (server.get(), place) else {
                        break_off(&client);
                        continue;
                    };
                    let site = process.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let accepted = Accepted {
                        client,
                        upstream: upstream.to_string(),
                        link: link.clone(),
                        pace: pace.clone(),
                        watch: Arc::clone(&watch),
                        site,
                        place,
                    };
                    connections.spawn(accepted.serve());
                }
            }
        };
        (link, pace, carried)
    }
}
