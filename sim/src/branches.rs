//! Which log an epoch belongs to, when a log was replaced by an older copy of itself.
//!
//! A sequence names an event only within one history of the log. When an older copy takes the
//! log's place, a new *branch* begins: up to the *fork*, the head of the copy, it has what its
//! parent had; above, its numbers name other events. An epoch belongs to the branch in which it
//! was opened.

use std::collections::BTreeMap;

use crate::history::{LogState, Seen};

/// The branches of a run's log. Branch 0 is the first.
#[derive(Debug, Clone)]
pub(crate) struct Branches {
    branches: Vec<Branch>,
    epochs: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Default)]
struct Branch {
    parent: usize,
    /// What the copy held, per agent.
    copy: BTreeMap<u32, LogState>,
}

impl Default for Branches {
    fn default() -> Self {
        Self { branches: vec![Branch::default()], epochs: BTreeMap::new() }
    }
}

impl Branches {
    /// Takes note of what was seen, in the order in which it was.
    pub(crate) fn see(&mut self, what: &Seen) {
        match what {
            Seen::LogReplaced { parent, streams } => {
                let copy = streams.iter().map(|state| (state.agent, *state)).collect();
                self.branches.push(Branch { parent: *parent, copy });
            }
            Seen::EpochOpened { epoch }
            | Seen::Published { epoch, .. }
            | Seen::Joined { epoch: Some(epoch), .. }
            | Seen::Resumed { epoch: Some(epoch), .. }
            | Seen::Delivered { epoch: Some(epoch), .. }
            | Seen::Gap { epoch: Some(epoch), .. }
                if !self.epochs.contains_key(epoch) =>
            {
                self.epochs.insert(epoch.clone(), self.current());
            }
            _ => {}
        }
    }

    /// The newest branch.
    pub(crate) fn current(&self) -> usize {
        self.branches.len() - 1
    }

    /// The branch of an epoch that was seen.
    pub(crate) fn of_epoch(&self, epoch: &str) -> Option<usize> {
        self.epochs.get(epoch).copied()
    }

    /// What the copy held with which a branch began; nothing for the first.
    pub(crate) fn copy(&self, branch: usize, agent: u32) -> Option<LogState> {
        self.branches[branch].copy.get(&agent).copied()
    }

    /// The branch in which a number was given, as seen from a branch that has it.
    pub(crate) fn origin(&self, agent: u32, mut branch: usize, sequence: u64) -> usize {
        while branch > 0 && sequence <= self.fork(agent, branch) {
            branch = self.branches[branch].parent;
        }
        branch
    }

    /// How much of the first `sequence` numbers of one branch another one has too.
    pub(crate) fn common(&self, agent: u32, from: usize, sequence: u64, to: usize) -> u64 {
        let (mut from, mut to, mut common) = (from, to, sequence);
        // A parent is older than its child, so the newer of the two climbs.
        while from != to {
            let newer = if from > to { &mut from } else { &mut to };
            common = common.min(self.fork(agent, *newer));
            *newer = self.branches[*newer].parent;
        }
        common
    }

    fn fork(&self, agent: u32, branch: usize) -> u64 {
        self.copy(branch, agent).map_or(0, |state| state.head)
    }
}

#[cfg(test)]
mod tests {
    use super::Branches;
    use crate::history::{LogState, Seen};

    /// 0 up to 10 ── 1 up to 15; then 0's copy again ── 2.
    fn branches() -> Branches {
        let replaced = |head| Seen::LogReplaced {
            parent: 0,
            streams: vec![LogState { agent: 1, oldest: 1, head }],
        };
        let epoch = |epoch: &str| Seen::EpochOpened { epoch: epoch.to_owned() };
        let mut branches = Branches::default();
        for what in [epoch("a"), replaced(10), epoch("b"), replaced(7), epoch("c"), epoch("b")] {
            branches.see(&what);
        }
        branches
    }

    #[test]
    fn an_epoch_belongs_to_the_branch_in_which_it_was_opened() {
        let branches = branches();
        let of = |epoch| branches.of_epoch(epoch);
        assert_eq!([of("a"), of("b"), of("c"), of("d")], [Some(0), Some(1), Some(2), None]);
    }

    #[test]
    fn a_number_up_to_the_fork_is_the_parents() {
        let branches = branches();
        assert_eq!(branches.origin(1, 1, 10), 0);
        assert_eq!(branches.origin(1, 1, 11), 1);
        assert_eq!(branches.origin(1, 2, 8), 2);
    }

    #[test]
    fn two_branches_have_in_common_what_both_copies_held() {
        let branches = branches();
        assert_eq!(branches.common(1, 1, 15, 2), 7);
        assert_eq!(branches.common(1, 0, 12, 1), 10);
        assert_eq!(branches.common(1, 1, 3, 1), 3);
        assert_eq!(branches.common(2, 0, 12, 1), 0, "a stream that the copy did not hold");
    }
}
