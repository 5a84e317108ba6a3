//! What the drivers of all protocols share: a clock, streams, WebSocket limits, HTTP, tokens.
//!
//! Nothing here names `tokio::net`: a driver takes any [`Listener`] and any [`Connector`], so the
//! very same code runs over real sockets, TLS, or a simulated network.

mod access;
mod admission;
mod clock;
mod dial;
pub mod http;
mod linger;
mod open_sockets;
mod request;
mod socket;
mod stream;
pub mod trace;
mod transactions;

pub use access::{Access, Grant, Replaceable, Tokens};
pub(crate) use admission::Holder;
pub use admission::{Admission, AdmissionConfig, Origins};
pub use clock::{Clock, SystemClock, WallClock};
pub(crate) use dial::dial;
pub use linger::{LingerConfig, Lingering, LingeringStream};
pub use open_sockets::OpenSockets;
pub use request::{RequestError, Requester};
pub(crate) use socket::farewell;
pub use socket::{FrameRate, Limits, Socket, SocketEvent};
pub use stream::{Connector, Listener, TcpConnector};
pub(crate) use transactions::Transactions;

use std::pin::Pin;

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
