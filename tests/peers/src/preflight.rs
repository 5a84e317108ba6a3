//! What has to be there before anything is measured.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Failure, Result};
use crate::peer::{Kind, socket_io_folder};

/// Descriptors that a process needs beside its connections.
const OTHER_DESCRIPTORS: u64 = 500;

/// Takes as many descriptors as the system lets this process have, and its children with it.
pub(crate) fn descriptors() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// `wanted` connections if the limit allows them, else `fewer`; says so.
pub(crate) fn connections(wanted: usize, fewer: usize, limit: u64) -> usize {
    let needed = wanted as u64 + OTHER_DESCRIPTORS;
    if needed <= limit {
        return wanted;
    }
    eprintln!(
        "only {fewer} connections instead of {wanted}: this process may have {limit} descriptors, and \
         needs {needed}\n  hint: `ulimit -Hn {needed}` as root, or a `nofile` line in \
         `/etc/security/limits.conf`"
    );
    fewer
}

/// How the command under test is built, in the profile of this one.
fn build_command() -> Vec<&'static str> {
    let mut command = vec!["cargo", "build", "--quiet", "--package", "gapless-cli"];
    if !cfg!(debug_assertions) {
        command.push("--release");
    }
    command
}

/// Where cargo has put the command: beside this one.
pub(crate) fn built() -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("gapless");
    match program.exists() {
        true => Ok(program),
        false => Err(Failure::new("there is no command `gapless` beside this one").hint(format!(
            "build it with `{}`, or name it with `--gapless`",
            build_command().join(" ")
        ))),
    }
}

/// Builds, or installs, what a peer needs; says why not, if that fails.
pub(crate) fn prepare(kind: Kind) -> Result<()> {
    match kind {
        Kind::Raw | Kind::Other => Ok(()),
        Kind::Gapless => run(&build_command()),
        Kind::Jetstream => package("nats-server", "nats-server"),
        Kind::SharedLog => {
            run(&build_command())?;
            package("nats-server", "nats-server")
        }
        Kind::Mosquitto => package("/usr/sbin/mosquitto", "mosquitto"),
        Kind::SocketIo => {
            if !is_there("node") || !is_there("npm") {
                return Err(Failure::new("there is no Node.js").hint("install `nodejs` and `npm`"));
            }
            let folder = socket_io_folder();
            run(&["npm", "ci", "--silent", "--prefix", &folder.to_string_lossy()])
        }
    }
}

/// Which version of a peer it is.
pub(crate) fn version(kind: Kind) -> String {
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
    };
    match kind {
        Kind::Gapless => format!("gapless {}", env!("CARGO_PKG_VERSION")),
        Kind::Other => "as named with `--other`".to_owned(),
        Kind::SharedLog => {
            format!("gapless {}, {}", env!("CARGO_PKG_VERSION"), said("nats-server", "--version"))
        }
        Kind::Raw => "tokio-tungstenite, feed and flush".to_owned(),
        Kind::Jetstream => said("nats-server", "--version"),
        Kind::Mosquitto => said("/usr/sbin/mosquitto", "-h"),
        Kind::SocketIo => {
            let package = std::fs::read_to_string(socket_io_folder().join("package.json"));
            let package: serde_json::Value =
                package.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let version = package["dependencies"]["socket.io"].as_str().unwrap_or_default();
            format!("socket.io {version}, Node.js {}", said("node", "--version"))
        }
    }
}

/// Installs a Debian package if its program is missing and that is allowed.
fn package(program: &str, package: &str) -> Result<()> {
    if is_there(program) {
        return Ok(());
    }
    let missing = || Failure::new(format!("there is no `{program}`"));
    if !rustix::process::geteuid().is_root() || !is_there("apt-get") {
        return Err(missing().hint(format!("install the package `{package}`")));
    }
    // A package that starts its server would be in the way of nobody: every port here is a free one.
    run(&["apt-get", "install", "-qq", "-y", "--no-install-recommends", package])?;
    if is_there(program) { Ok(()) } else { Err(missing()) }
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn run(command: &[&str]) -> Result<()> {
    let (program, arguments) = command.split_first().ok_or_else(|| Failure::new("no command"))?;
    let output = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("`{}` failed: {}", command.join(" "), said.trim())))
}
