//! The command, as processes on loopback.

mod bar;
mod clients;
mod config;
mod security;
mod serve;
mod support;
mod tls;
