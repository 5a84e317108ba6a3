//! The command, as processes on loopback.

mod bar;
mod chat;
mod clients;
mod cluster;
mod config;
mod log;
mod security;
mod serve;
mod support;
mod tasks;
mod tls;
