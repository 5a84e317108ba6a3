//! The engine under the log of several servers: a model of it, on a host of its own.
//!
//! Servers reach it over turmoil's network, so what the world does to links, processes and clocks
//! happens to it as well: a partition, packets that are held up, a process that stands still. That
//! costs a connection for each server, and no simulated delay has to be made up.
//!
//! * [`model`]: what the documentation of the engine promises, and what it leaves open;
//! * [`log`]: what a majority of its nodes has;
//! * [`host`]: the engine's end of the connections;
//! * [`remote`]: a server's end, which is what production code asks;
//! * [`truth`]: what the log holds, for the history. No server is asked for it.
//!
//! It does not model single nodes: their elections show as times without a leader, as leaders that
//! have been deposed, and as messages whose fate nobody was told.

pub(crate) mod host;
mod lines;
mod log;
mod model;
mod pinned;
pub(crate) mod remote;
mod truth;
mod wire;
