//! A deterministic simulator for reconnect protocols.
//!
//! ```text
//! scenario file + seed ──plan──▶ Plan ──run──▶ Trace + History ──check──▶ Verdict
//! ```
//!
//! * [`scenario`]: the file format, with diagnostics that point at the place;
//! * [`plan`]: a seed and a scenario become an explicit list of steps, nothing left to draw;
//! * [`world`]: the plan is carried out: real clients and servers in turmoil's network;
//! * [`trace`] and [`history`]: what happened, and what of it the outside can see;
//! * [`check`]: one invariant per file, each a pure function over a history;
//! * [`spec`]: the statements of the specification, for which scenarios and checkers stand;
//! * [`corpus`]: known bugs of real systems, and the scenarios that play them;
//! * [`sweep`]: many runs on all cores, judged together;
//! * [`shrink`]: a failing plan made small; [`freeze`]: a scenario made of it;
//! * [`custom`]: the same for a protocol that is none of the three;
//! * [`capsule`]: a failing run in one file;
//! * [`localise`]: from when on a run could not have ended otherwise;
//! * [`report`]: a run, or many, as a page to be looked at;
//! * [`proxy`]: faults between two foreign parties on real sockets;
//! * [`storm`]: how long it takes until a million clients are back, on paper;
//! * [`cli`]: the command `gapless-sim`.
//!
//! The same seed gives a byte-identical trace: in one process, in another one, and beside others
//! on parallel threads.

#[cfg(not(tokio_unstable))]
compile_error!(
    "gapless-sim needs `--cfg tokio_unstable`: without it the same seed gives different runs. \
     It is set in `.cargo/config.toml`; `RUSTFLAGS` in the environment replaces that setting, \
     so unset it, or add `--cfg tokio_unstable` to it."
);

mod branches;
pub mod capsule;
mod chain;
pub mod check;
pub mod cli;
pub mod conform;
pub mod corpus;
pub mod custom;
pub mod exit;
pub mod freeze;
pub mod heap;
pub mod history;
pub mod localise;
pub mod mutants;
pub mod plan;
pub mod proxy;
mod real_time;
pub mod report;
pub mod scenario;
pub mod seed;
pub mod shrink;
pub mod spec;
pub mod storm;
pub mod sweep;
pub mod trace;
pub mod world;
