//! What has to be there before anything begins.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Failure, Result};
use crate::nodes::Programs;

/// Descriptors that a process needs beside its connections: databases, publishers, pipes.
const OTHER_DESCRIPTORS: u64 = 1_000;

/// How many connections more than it has clients a server or a proxy may have for a while, in percent:
/// those of which it does not know yet that they are half-open.
const LEFT_PERCENT: u64 = 40;

/// Takes as many descriptors as the system lets this process have, and its children with it; an error
/// if those are too few.
pub(crate) fn descriptors(connections: usize, proxied: usize, workers: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let needed = needed(connections as u64, proxied as u64, workers as u64);
    match limit.maximum {
        Some(most) if most < needed => Err(Failure::new(format!(
            "a process may have {most} open files, and {connections} connections need {needed}"
        ))
        .hint(format!(
            "raise the limit (`ulimit -Hn {needed}` as root, or a `nofile` line in \
             `/etc/security/limits.conf`), or take fewer with `--connections`"
        ))),
        _ => Ok(()),
    }
}

/// The most that one of the processes needs: the server one for each connection, the proxy two, and a
/// load process for its clients three each with a database.
fn needed(connections: u64, proxied: u64, workers: u64) -> u64 {
    let with_left = |count: u64| count + count * LEFT_PERCENT / 100;
    let server = with_left(connections);
    let proxy = 2 * with_left(proxied);
    let worker = 2 * connections.div_ceil(workers);
    server.max(proxy).max(worker) + OTHER_DESCRIPTORS
}

/// The programs, built where they are not given.
pub(crate) fn programs(gapless: Option<PathBuf>, sim: Option<PathBuf>) -> Result<Programs> {
    let gapless = self::gapless(gapless)?;
    let sim = match sim {
        Some(path) => path,
        None => built("gapless-sim", "gapless-sim")?,
    };
    Ok(Programs { gapless, sim })
}

/// The command under load, built if it is not given.
pub(crate) fn gapless(path: Option<PathBuf>) -> Result<PathBuf> {
    path.map_or_else(|| built("gapless-cli", "gapless"), Ok)
}

/// The program of the engine.
#[derive(Debug)]
pub(crate) struct NatsServer {
    pub(crate) program: PathBuf,
    /// What it says of itself.
    pub(crate) version: String,
}

/// Asks the program of the engine for its version; an error if there is none.
pub(crate) fn nats_server(program: PathBuf) -> Result<NatsServer> {
    let said = Command::new(&program).arg("--version").output().map_err(|error| {
        Failure::from(error).context(format_args!("there is no `{}`", program.display())).hint(
            "install Debian's package `nats-server`, or name the program with `--nats-server`",
        )
    })?;
    Ok(NatsServer { program, version: String::from_utf8_lossy(&said.stdout).trim().to_owned() })
}

/// Builds a program in the profile of this one: then it is beside this one.
fn built(package: &str, name: &str) -> Result<PathBuf> {
    let mut command = vec!["build", "--quiet", "--package", package];
    if !cfg!(debug_assertions) {
        command.push("--release");
    }
    let status = Command::new("cargo").args(&command).status();
    let path = std::env::current_exe()?.with_file_name(name);
    match status {
        Ok(status) if status.success() && path.exists() => Ok(path),
        _ => Err(Failure::new(format!("there is no command `{name}`")).hint(format!(
            "build it with `cargo {}`, or name it with `--{}`",
            command.join(" "),
            if name == "gapless" { "gapless" } else { "sim" }
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_connections_half_of_them_through_the_proxy_fit_into_twenty_thousand_files() {
        assert!(needed(10_000, 5_000, 6) <= 20_000);
        assert!(needed(10_000, 10_000, 6) > 20_000, "the proxy has two for each");
        assert!(needed(10_000, 0, 1) > 20_000, "all clients in one process");
    }
}
