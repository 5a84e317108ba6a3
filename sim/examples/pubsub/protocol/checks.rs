//! What must hold of every run.

use std::collections::BTreeMap;

use gapless_sim::check::{Checker, Finding};
use gapless_sim::custom::Sighting;
use gapless_sim::history::History;
use gapless_sim::plan::{Host, Plan, Topology};

use super::Seen;

pub(super) const ALL: &[Checker] = &[
    Checker::custom(
        "nothing_is_skipped",
        "a subscriber handles each message of a topic once, in order",
        nothing_is_skipped,
    ),
    Checker::custom(
        "numbers_hold",
        "a message has the number that its publisher was told",
        numbers_hold,
    ),
    Checker::custom(
        "everything_arrives",
        "a subscriber handles everything in the end that was published",
        everything_arrives,
    )
    .of_progress(),
];

fn name(host: Host) -> String {
    match host {
        Host::Server | Host::Member(_) | Host::Engine => "server".to_owned(),
        Host::Client(number) => format!("client-{number}"),
    }
}

fn nothing_is_skipped(history: &History, _plan: &Plan) -> Vec<Finding> {
    let mut handled: BTreeMap<(Host, u64, String), u64> = BTreeMap::new();
    let mut findings = Vec::new();
    for seen in history.custom::<Seen>() {
        let Seen::Handles { topic, seq, .. } = &seen.what else { continue };
        let last = handled.entry((seen.host, seen.life, topic.clone())).or_default();
        let who = name(seen.host);
        match *seq {
            seq if seq == *last + 1 => {}
            seq if seq <= *last => {
                let message = format!("{who} handles {topic} {seq} again, after {topic} {last}");
                findings.push(Finding::at(&seen, message));
            }
            seq => {
                let lost = match (*last + 1, seq - 1) {
                    (from, to) if from == to => format!("{topic} {from}"),
                    (from, to) => format!("{topic} {from} to {to}"),
                };
                let message = format!("{who} handles {topic} {seq}, but has never handled {lost}");
                findings.push(Finding::at(&seen, message));
            }
        }
        *last = *seq;
    }
    findings
}

fn numbers_hold(history: &History, _plan: &Plan) -> Vec<Finding> {
    let mut keys: BTreeMap<(String, u64), String> = BTreeMap::new();
    let mut findings = Vec::new();
    for seen in history.custom::<Seen>() {
        let (Seen::Published { topic, seq, key } | Seen::Handles { topic, seq, key }) = &seen.what
        else {
            continue;
        };
        let known = keys.entry((topic.clone(), *seq)).or_insert_with(|| key.clone());
        if known != key {
            let message = format!("{topic} {seq} is both {known} and {key}");
            findings.push(Finding::at(&seen, message));
        }
    }
    findings
}

fn everything_arrives(history: &History, plan: &Plan) -> Vec<Finding> {
    let at_ms = history.entries.last().map_or(0, |entry| entry.at_ms);
    let owed = owed(history, &plan.topology).into_iter();
    owed.map(|(client, message)| Finding { at_ms, client: Some(client), message }).collect()
}

/// What has not yet arrived at processes that are still there, by client, as sentences.
pub(super) fn owed(history: &History, topology: &Topology) -> Vec<(u32, String)> {
    let told = history.custom::<Seen>();
    let mut heads: BTreeMap<&str, u64> = BTreeMap::new();
    for seen in &told {
        if let Seen::Published { topic, seq, .. } = &seen.what {
            let head = heads.entry(topic).or_default();
            *head = (*head).max(*seq);
        }
    }
    let mut owed = Vec::new();
    for client in 1..=topology.clients {
        let life = history.life(Host::Client(client));
        let own: Vec<&Sighting<Seen>> = told
            .iter()
            .filter(|seen| seen.host == Host::Client(client) && seen.life == life)
            .collect();
        let mut handled: BTreeMap<&str, u64> = BTreeMap::new();
        let mut waiting: Vec<&str> = Vec::new();
        for seen in own {
            match &seen.what {
                Seen::Subscribes { topic } => drop(handled.insert(topic, 0)),
                Seen::Handles { topic, seq, .. } => drop(handled.insert(topic, *seq)),
                Seen::Publishes { key, .. } => waiting.push(key),
                Seen::Published { key, .. } => waiting.retain(|waiting| waiting != key),
            }
        }
        for (topic, seq) in handled {
            let head = heads.get(topic).copied().unwrap_or(0);
            if seq < head {
                let message = format!("client-{client} has handled {topic} up to {seq} of {head}");
                owed.push((client, message));
            }
        }
        for key in waiting {
            owed.push((client, format!("client-{client} was never told that {key} is stored")));
        }
    }
    owed
}
