//! The engine: nodes of `nats-server` that are a cluster, with their files in a folder, and what they
//! say of themselves.

use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use crate::failure::Result;
use crate::nodes::{Node, free_address};

/// How much a node may keep in memory and in files, in MiB.
const MEMORY_MIB: u32 = 256;
const FILES_MIB: u32 = 4_096;

/// Where a node is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// For clients.
    pub(crate) clients: SocketAddr,
    /// For those who ask how it is.
    pub(crate) monitor: SocketAddr,
    /// For the other nodes.
    routes: SocketAddr,
}

impl Place {
    pub(crate) async fn free() -> Result<Self> {
        Ok(Self {
            clients: free_address().await?,
            monitor: free_address().await?,
            routes: free_address().await?,
        })
    }
}

/// What a node is called, by itself and by the others.
pub(crate) fn name(number: usize) -> String {
    format!("engine-{number}")
}

/// The nodes, which are not started yet.
pub(crate) fn nodes(program: &Path, folder: &Path, places: &[Place]) -> Result<Vec<Node>> {
    let routes: Vec<String> =
        places.iter().map(|place| format!("\"nats://{}\"", place.routes)).collect();
    let routes = routes.join(", ");
    let node = |(number, place): (usize, &Place)| {
        let name = name(number);
        let files = folder.join(format!("{name}-data"));
        let config = format!(
            "server_name: \"{name}\"\n\
             listen: \"{}\"\n\
             http: \"{}\"\n\
             jetstream {{ store_dir: \"{}\", max_memory_store: {MEMORY_MIB}MB, max_file_store: {FILES_MIB}MB }}\n\
             cluster {{ name: \"engine\", listen: \"{}\", no_advertise: true, routes: [{routes}] }}\n",
            place.clients,
            place.monitor,
            files.display(),
            place.routes
        );
        let path = folder.join(format!("{name}.conf"));
        std::fs::write(&path, config)?;
        let arguments = vec!["--config".to_owned(), path.display().to_string()];
        Ok(Node::new(&name, program, arguments, folder))
    };
    places.iter().enumerate().map(node).collect()
}

/// The log for `gapless serve --log`.
pub(crate) fn url(places: &[Place]) -> String {
    let clients: Vec<String> = places.iter().map(|place| place.clients.to_string()).collect();
    format!("nats://{}", clients.join(","))
}

// ---- what nodes say ---------------------------------------------------------------------------

/// What a node says of its streams, at `/jsz`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Streams {
    #[serde(default)]
    account_details: Vec<Account>,
}

/// Where a node says it.
pub(crate) const STREAMS: &str = "/jsz?accounts=true&streams=true";

#[derive(Debug, Clone, Deserialize)]
struct Account {
    #[serde(default)]
    stream_detail: Vec<Stream>,
}

#[derive(Debug, Clone, Deserialize)]
struct Stream {
    name: String,
    cluster: Option<Replicas>,
    state: State,
}

#[derive(Debug, Clone, Deserialize)]
struct Replicas {
    #[serde(default)]
    leader: String,
    /// The others, as this node sees them.
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Debug, Clone, Deserialize)]
struct Replica {
    current: bool,
    #[serde(default)]
    offline: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct State {
    last_seq: u64,
}

impl Streams {
    fn all(&self) -> impl Iterator<Item = &Stream> {
        self.account_details.iter().flat_map(|account| &account.stream_detail)
    }

    fn of(&self, name: &str) -> Option<&Stream> {
        self.all().find(|stream| stream.name == name)
    }
}

/// How the engine is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Which node leads the log.
    pub(crate) leader: Option<usize>,
    /// Whether all nodes are well and have everything that the leader had.
    pub(crate) whole: bool,
}

impl Look {
    /// How it is by what the nodes said twice, one after the other, and whether each is well. A node
    /// that has just begun may believe that it leads still, but knows of no replicas; the others
    /// believe for some seconds that one that has been killed does.
    pub(crate) fn of(before: &[Option<Streams>], well: &[bool], after: &[Option<Streams>]) -> Self {
        let said = |node: usize| before[node].as_ref();
        let names = (0..before.len()).filter_map(said).flat_map(Streams::all);
        let Some(log) = names.map(|stream| stream.name.clone()).min() else {
            return Self::default();
        };
        let leads = |node: usize| {
            let stream = said(node)?.of(&log)?;
            let replicas = stream.cluster.as_ref()?;
            let leads = replicas.leader == name(node) && !replicas.replicas.is_empty();
            leads.then_some((node, stream.state.last_seq, &replicas.replicas))
        };
        let leaders: Vec<_> = (0..before.len()).filter_map(leads).collect();
        let [(leader, head, replicas)] = leaders[..] else { return Self::default() };
        let has_all = |streams: &Option<Streams>| {
            let Some(streams) = streams else { return false };
            // With more nodes than replicas, some have none.
            streams.of(&log).is_none_or(|stream| stream.state.last_seq >= head)
        };
        let current = replicas.iter().all(|replica| replica.current && !replica.offline);
        let copies = after.iter().flatten().filter(|streams| streams.of(&log).is_some()).count();
        let whole = current
            && well.iter().all(|well| *well)
            && after.iter().all(has_all)
            && copies == replicas.len() + 1;
        Self { leader: Some(leader), whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node says: who leads, its last message, and which of the others it believes to be
    /// current.
    fn says(leader: usize, last: u64, current: &[bool]) -> Option<Streams> {
        let replicas: Vec<_> = current
            .iter()
            .map(|current| serde_json::json!({ "name": "engine", "current": current, "active": 1 }))
            .collect();
        let said = serde_json::json!({
            "server_id": "N",
            "account_details": [{ "name": "$G", "stream_detail": [{
                "name": "events",
                "cluster": { "name": "engine", "leader": name(leader), "replicas": replicas },
                "state": { "messages": last, "last_seq": last },
            }] }],
        });
        serde_json::from_value(said).expect("it is readable")
    }

    const WELL: [bool; 3] = [true; 3];

    #[test]
    fn the_engine_is_whole_when_every_node_has_what_the_leader_had() {
        let all = [says(1, 5, &[false, true]), says(1, 5, &[true, true]), says(1, 4, &[])];
        let behind = Look { leader: Some(1), whole: false };
        assert_eq!(Look::of(&all, &WELL, &all), behind, "one has less");
        let later = [says(1, 5, &[]), says(1, 9, &[true, true]), says(1, 5, &[])];
        let whole = Look { leader: Some(1), whole: true };
        assert_eq!(Look::of(&all, &WELL, &later), whole);
        assert_eq!(Look::of(&all, &[true, true, false], &later), behind, "one is not well");
        let away = [later[0].clone(), later[1].clone(), None];
        assert_eq!(Look::of(&all, &WELL, &away), behind, "one does not answer");
        let empty = [later[0].clone(), later[1].clone(), Some(Streams::default())];
        assert_eq!(Look::of(&all, &WELL, &empty), behind, "one has lost its copy");
        let lags = [says(1, 5, &[]), says(1, 5, &[true, false]), says(1, 5, &[])];
        assert_eq!(Look::of(&lags, &WELL, &later), behind, "the leader misses one");
    }

    #[test]
    fn whoever_leads_is_not_known_while_none_or_two_say_so() {
        let none = [says(1, 5, &[true, true]), None, says(1, 5, &[true, true])];
        assert_eq!(Look::of(&none, &WELL, &none), Look::default(), "it is believed, and away");
        let two = [says(0, 5, &[true, true]), says(1, 5, &[true, true]), None];
        assert_eq!(Look::of(&two, &WELL, &two), Look::default());
        let begun = [says(0, 5, &[true, true]), says(1, 5, &[]), None];
        assert_eq!(Look::of(&begun, &WELL, &begun).leader, Some(0), "the other has just begun");
        let nothing = [None, None, None];
        assert_eq!(Look::of(&nothing, &WELL, &nothing), Look::default());
    }

    #[test]
    fn of_five_nodes_those_without_a_copy_have_nothing_to_catch_up_with() {
        let bare = || Some(Streams::default());
        let five = [says(0, 5, &[true, true]), says(0, 5, &[]), says(0, 5, &[]), bare(), bare()];
        let whole = Look { leader: Some(0), whole: true };
        assert_eq!(Look::of(&five, &[true; 5], &five), whole);
    }
}
