//! What the drivers of all protocols share: a clock, streams, WebSocket limits, HTTP.
//!
//! Nothing here names `tokio::net`: a driver takes any [`Listener`] and any [`Connector`], so the
//! very same code runs over real sockets, TLS, or a simulated network.

mod clock;
pub mod http;
mod socket;
mod stream;
mod transactions;

pub use clock::{Clock, SystemClock, WallClock};
pub use socket::{Limits, Socket, SocketEvent};
pub use stream::{Connector, Listener, TcpConnector};
pub(crate) use transactions::Transactions;
