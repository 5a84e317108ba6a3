//! Foreign implementations in the place of the hosts of one side.

mod client;
mod server;

pub(super) use self::client::live;
pub(super) use self::server::{inspect, serve};
