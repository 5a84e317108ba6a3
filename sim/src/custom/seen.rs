//! What a protocol tells of a run, and how its checkers read it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::history::{Entry, History, Seen};
use crate::plan::Host;

/// Something that a host has told with [`Node::see`](super::Node::see).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomSeen {
    /// The host.
    pub host: Host,
    /// Which life of its process, from 1.
    pub life: u64,
    /// What.
    pub what: Value,
}

/// Something that a host has told, as the protocol has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting<T> {
    /// Which entry of the history it is.
    pub entry: usize,
    /// When, in virtual time.
    pub at_ms: u64,
    /// The host.
    pub host: Host,
    /// Which life of its process, from 1.
    pub life: u64,
    /// What.
    pub what: T,
}

impl History {
    /// Everything that the hosts of a protocol have told, in order. What is not a `T` is left out.
    pub fn custom<T: DeserializeOwned>(&self) -> Vec<Sighting<T>> {
        let told = self.entries.iter().enumerate().filter_map(|(entry, seen)| {
            let Seen::Custom(told) = &seen.what else { return None };
            let what = T::deserialize(&told.what).ok()?;
            let (at_ms, host, life) = (seen.at_ms, told.host, told.life);
            Some(Sighting { entry, at_ms, host, life, what })
        });
        told.collect()
    }

    /// Which life of its process a host of a [`CustomProtocol`](super::CustomProtocol) was in at the end,
    /// from 1. Of an earlier one nothing is owed any more.
    pub fn life(&self, host: Host) -> u64 {
        let name = match host {
            Host::Client(number) => format!("client-{number}"),
            // A protocol that was brought has one server.
            Host::Server | Host::Member(_) | Host::Engine => "server".to_owned(),
        };
        let ended = |entry: &&Entry| matches!(&entry.what, Seen::Crashed { host } if *host == name);
        1 + self.entries.iter().filter(ended).count() as u64
    }
}
