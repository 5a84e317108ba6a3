//! What the load is made of, and whose each part is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gapless::recovery::{BackoffConfig, LivenessConfig};
use serde::{Deserialize, Serialize};

/// Of so many connections one is a session.
const ONE_SESSION_OF: usize = 20;

/// Of so many connections one is an agent that runs tasks.
const ONE_AGENT_OF: usize = 100;

/// How many subscribers a stream has, about.
const SUBSCRIBERS_OF_A_STREAM: usize = 50;

/// From this length on, the clients have the intervals of clients at work.
const LONG: Duration = Duration::from_secs(120);

/// Everything that a process of the load has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mix {
    /// WebSockets, each of one client.
    pub(crate) connections: usize,
    /// How many of them go through the proxy.
    pub(crate) proxied: usize,
    /// How many processes they are in.
    pub(crate) workers: usize,
    pub(crate) events_per_second: u32,
    pub(crate) publishers_of_a_stream: usize,
    /// How long there are faults.
    pub(crate) length: Duration,
    pub(crate) seed: u64,
    /// Whether there are sessions and tasks as well.
    pub(crate) protocols: Protocols,
    /// The servers; several are on one log.
    pub(crate) servers: Vec<SocketAddr>,
    /// What stands before a part of the connections.
    pub(crate) proxy: Option<SocketAddr>,
    /// The folder that the processes share.
    pub(crate) folder: PathBuf,
    /// A client that is wrong on purpose.
    pub(crate) mutant: Option<Mutant>,
}

/// What the load is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocols {
    All,
    /// Sessions and tasks stay on one server, so several have none.
    Events,
}

/// What the first subscriber does wrong, to show that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mutant {
    /// It forgets one event.
    Drops,
    /// It takes one event twice.
    Doubles,
    /// It takes two events in the wrong order.
    Swaps,
}

impl Mix {
    pub(crate) fn read(path: &Path) -> crate::failure::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }

    pub(crate) fn sessions(&self) -> usize {
        self.one_of(ONE_SESSION_OF)
    }

    pub(crate) fn agents(&self) -> usize {
        self.one_of(ONE_AGENT_OF)
    }

    fn one_of(&self, connections: usize) -> usize {
        match self.protocols {
            Protocols::All => self.connections.div_ceil(connections),
            Protocols::Events => 0,
        }
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.connections - self.sessions() - self.agents()
    }

    pub(crate) fn streams(&self) -> usize {
        self.subscribers().div_ceil(SUBSCRIBERS_OF_A_STREAM)
    }

    pub(crate) fn publishers(&self) -> usize {
        self.streams() * self.publishers_of_a_stream
    }

    /// In which stream a publisher publishes, and which of its publishers it is.
    pub(crate) fn stream_of_publisher(&self, number: usize) -> (usize, usize) {
        (number / self.publishers_of_a_stream, number % self.publishers_of_a_stream)
    }

    /// The numbers of `count` things that belong to a worker.
    pub(crate) fn own(&self, count: usize, worker: usize) -> impl Iterator<Item = usize> + use<> {
        (worker..count).step_by(self.workers)
    }

    /// Where the n-th of some clients connects, each time to the next of them: evenly, those that go
    /// through the proxy among others, and the first time as many to each server.
    pub(crate) fn way(&self, nth: usize) -> Vec<SocketAddr> {
        let through = |nth: usize| nth * self.proxied / self.connections;
        match self.proxy {
            Some(proxy) if through(nth + 1) > through(nth) => vec![proxy],
            Some(_) | None => {
                let mut servers = self.servers.clone();
                servers.rotate_left(nth % self.servers.len());
                servers
            }
        }
    }

    /// What clients call the server, whichever it is.
    pub(crate) fn host(&self) -> String {
        self.servers[0].to_string()
    }

    /// From where a worker connects: each has its own address, and with it its own ports.
    pub(crate) fn source(worker: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 1, u8::try_from(worker + 1).unwrap_or(u8::MAX))
    }

    /// Pings: a short run has to see what is half-open as well.
    pub(crate) fn liveness(&self) -> LivenessConfig {
        let seconds = |every, pong| LivenessConfig {
            ping_every: Duration::from_secs(every),
            pong_timeout: Duration::from_secs(pong),
        };
        if self.length < LONG { seconds(3, 2) } else { seconds(15, 5) }
    }

    /// The pauses between attempts to connect.
    pub(crate) fn reconnect(&self) -> BackoffConfig {
        let between = |min, max| BackoffConfig {
            min: Duration::from_millis(min),
            max: Duration::from_millis(max),
            jitter_percent: 50,
        };
        if self.length < LONG { between(200, 2_000) } else { between(1_000, 15_000) }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The files of slots.
pub(crate) const PUBLISHERS: &str = "publishers";
pub(crate) const SUBSCRIBERS: &str = "subscribers";
pub(crate) const TALKS: &str = "sessions";
pub(crate) const JOBS: &str = "jobs";

/// The token of everybody but users of sessions.
pub(crate) const TOKEN: &str = "load-token-for-publishers-subscribers-and-submitters";

/// The token of a user of sessions.
pub(crate) fn user_token(user: usize) -> String {
    format!("load-token-of-user-{user}-on-loopback-only")
}

/// Where the attempts are that a worker has run, and those that ended well.
pub(crate) fn runs_file(worker: usize) -> String {
    format!("runs-{worker}")
}

pub(crate) fn done_file(worker: usize) -> String {
    format!("done-{worker}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(connections: usize, proxied: usize) -> Mix {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Mix {
            connections,
            proxied,
            workers: 3,
            events_per_second: 1,
            publishers_of_a_stream: 1,
            length: LONG,
            seed: 1,
            protocols: Protocols::All,
            servers: vec![address(1)],
            proxy: Some(address(2)),
            folder: PathBuf::new(),
            mutant: None,
        }
    }

    #[test]
    fn as_many_go_through_the_proxy_as_were_asked_for() {
        for proxied in [0, 1, 33, 50, 100] {
            let mix = mix(100, proxied);
            let through = |nth: &usize| mix.proxy.is_some_and(|proxy| mix.way(*nth) == [proxy]);
            assert_eq!((0..100).filter(through).count(), proxied);
        }
    }

    #[test]
    fn clients_of_several_servers_are_spread_over_them_and_know_them_all() {
        let mut mix = mix(100, 0);
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        mix.servers = vec![address(1), address(2), address(3)];
        let ways: Vec<Vec<SocketAddr>> = (0..3).map(|nth| mix.way(nth)).collect();
        assert_eq!(ways[0], [address(1), address(2), address(3)]);
        assert_eq!(ways[1], [address(2), address(3), address(1)]);
        assert_eq!(ways[2], [address(3), address(1), address(2)]);
    }

    #[test]
    fn a_load_of_events_has_no_sessions_and_no_tasks() {
        let mut mix = mix(100, 0);
        mix.protocols = Protocols::Events;
        assert_eq!((mix.subscribers(), mix.sessions(), mix.agents()), (100, 0, 0));
    }

    #[test]
    fn every_client_belongs_to_one_worker() {
        let mix = mix(100, 50);
        let mut all: Vec<usize> = (0..3).flat_map(|worker| mix.own(10, worker)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert_eq!(mix.subscribers() + mix.sessions() + mix.agents(), 100);
    }
}
