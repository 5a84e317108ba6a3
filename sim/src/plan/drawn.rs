//! How much a seed lets happen.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a seed drew for a swarm, before it drew the steps. A run does not depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// How many events are published, tasks submitted, or messages said.
    pub work_per_minute: u32,
    /// How many faults there are.
    pub faults_per_minute: u32,
    /// The faults that occur at all, each with its share: of two, one with twice the weight comes
    /// twice as often.
    pub weights: BTreeMap<String, u32>,
}

impl Drawn {
    /// All of it in a few words; `work` is what the workload of the protocol is made of.
    pub fn words(&self, work: &str) -> String {
        let Self { work_per_minute, faults_per_minute, weights } = self;
        let mut words = format!("{work_per_minute} {work} and {faults_per_minute} faults a minute");
        // The most frequent first, and otherwise by name.
        let mut shares: Vec<_> = weights.iter().collect();
        shares.sort_by_key(|(name, weight)| (Reverse(**weight), *name));
        for (index, (name, weight)) in shares.iter().enumerate() {
            let sign = if index == 0 { ":" } else { "," };
            words += &format!("{sign} {name} {weight}");
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_fault_is_named_first() {
        let weights = [("cut", 1), ("hold", 8), ("crash", 1)];
        let weights = weights.map(|(name, weight)| (name.to_owned(), weight)).into();
        let drawn = Drawn { work_per_minute: 60, faults_per_minute: 4, weights };
        let words = drawn.words("events");
        assert_eq!(words, "60 events and 4 faults a minute: hold 8, crash 1, cut 1");
    }
}
