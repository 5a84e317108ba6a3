//! The fixtures, and what the tests of all protocols need.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gapless::AgentId;
use gapless::net::http::{self, HttpConfig, Service};
use gapless::recovery::BackoffConfig;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The pauses between attempts of a client.
pub(crate) const SOON: BackoffConfig = BackoffConfig {
    min: Duration::from_millis(20),
    max: Duration::from_millis(100),
    jitter_percent: 0,
};

/// Who spoke the base contract when the fixtures were made.
pub(crate) const MIXES: [&str; 3] = ["extension", "base-client", "base-server"];

/// Another stream of random numbers each time, as each life of a process has.
pub(crate) fn entropy() -> Box<ChaCha12Rng> {
    static SEEDS: AtomicU64 = AtomicU64::new(1);
    Box::new(ChaCha12Rng::seed_from_u64(SEEDS.fetch_add(1, Ordering::Relaxed)))
}

pub(crate) fn agent() -> AgentId {
    AgentId::parse("agent-1").expect("valid")
}

/// The folder of the fixtures of a protocol.
pub(crate) fn fixtures(protocol: &str, mix: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/previous/fixtures");
    PathBuf::from(folder).join(protocol).join(mix)
}

/// A copy of the databases of a protocol, as they were left.
pub(crate) fn databases(protocol: &str, mix: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(fixtures(protocol, mix)).expect("fixtures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|it| it == "db") {
            let name = path.file_name().expect("a name");
            fs::write(copy.path().join(name), fs::read(&path).expect("a fixture")).expect("a copy");
        }
    }
    copy
}

/// A line of a tape: who spoke, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// `>` the client or agent, `<` the server or controller, `=` a connection is asked for.
    pub(crate) mark: char,
    pub(crate) text: String,
}

pub(crate) fn tape(protocol: &str, mix: &str, name: &str) -> Vec<Line> {
    let text = fs::read_to_string(fixtures(protocol, mix).join(name)).expect("a tape");
    let lines = text.lines().map(|line| {
        let (mark, text) = line.split_once(' ').expect("a mark and a text");
        Line { mark: mark.chars().next().expect("a mark"), text: text.to_owned() }
    });
    lines.collect()
}

/// Serves a service on a port of its own.
pub(crate) async fn serve<S: Service>(service: S) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let serving = http::serve(listener, service, HttpConfig::default(), std::future::pending());
    (address, tokio::spawn(serving))
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not so: {what}"));
}
