//! The command, as processes on loopback.

mod bar;
mod chat;
mod clients;
mod config;
mod log;
mod mixed;
mod overload;
mod security;
mod serve;
mod support;
mod tasks;
mod tls;
