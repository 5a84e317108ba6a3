//! The epochs of one stream, and what they say about a cursor.
//!
//! The owner of a stream opens an epoch at each start and records the first sequence that the stream gets in it. From
//! these rows follows which cursors are continuous with the log (`[CORE-2]`) and the explicit answer to each of them
//! (`[CORE-4]`). An ordinary restart costs a receiver nothing; a log that was lost or restored from an older backup is
//! noticed.
//!
//! Deliberately absent: storage and pruning of rows, and the replay itself. The caller makes an epoch durable before it
//! announces it, and writes the first sequence in the transaction of the append that allocated it.

use super::{Cursor, Epoch};

/// One epoch as one stream saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The first sequence that the stream got in it; `None` while the stream had no append in it.
    pub first: Option<u64>,
}

/// The epochs of one stream, oldest first.
///
/// The methods that judge take the bounds of the log: `head` is the highest sequence allocated, 0 for none; `oldest` is
/// the lowest one still readable, head + 1 when there is nothing to read.
///
/// ```
/// use gapless::recovery::{Cursor, Epoch, Lineage, Verdict};
///
/// let [before, after] = ["before", "after"].map(|name| Epoch::parse(name).unwrap());
/// let mut lineage = Lineage::default();
/// lineage.push_epoch(before.clone());
/// lineage.record_first(&before, 1);
/// // The log is restored from a backup that ends at 1000, and goes on.
/// lineage.push_epoch(after.clone());
/// lineage.record_first(&after, 1001);
///
/// let judge = |sequence| lineage.judge(&Cursor::new(before.clone(), sequence), 1, 1300);
/// assert_eq!(judge(1000), Verdict::Replay { from: 1001, to: 1300 });
/// assert_eq!(judge(1200), Verdict::Ahead { from: 1001, to: 1300 });
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lineage {
    rows: Vec<EpochStart>,
}

impl Lineage {
    /// The lineage with these rows, oldest first.
    #[must_use]
    pub const fn new(rows: Vec<EpochStart>) -> Self {
        Self { rows }
    }

    /// Opens `epoch`, which must be fresh. Should it be known all the same, its older row goes on to count.
    pub fn push_epoch(&mut self, epoch: Epoch) {
        self.rows.push(EpochStart { epoch, first: None });
    }

    /// Records the first sequence in `epoch`. Changes nothing if it is recorded already or the epoch is unknown.
    pub fn record_first(&mut self, epoch: &Epoch, sequence: u64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.epoch == *epoch) {
            row.first.get_or_insert(sequence);
        }
    }

    /// The newest epoch; `None` before the first.
    #[must_use]
    pub fn current(&self) -> Option<&Epoch> {
        self.rows.last().map(|row| &row.epoch)
    }

    /// The last sequence of `epoch`: where the next epoch with an append begins, less one, else `head`. `None` if the
    /// epoch is unknown.
    ///
    /// Never beyond `head`: what the log does not have, no epoch has.
    #[must_use]
    pub fn end_of(&self, epoch: &Epoch, head: u64) -> Option<u64> {
        let at = self.rows.iter().position(|row| row.epoch == *epoch)?;
        let next_first = self.rows[at + 1..].iter().find_map(|row| row.first);
        Some(next_first.map_or(head, |first| first.saturating_sub(1).min(head)))
    }

    /// The answer to a receiver at `cursor` (`[CORE-4]`).
    pub fn judge(&self, cursor: &Cursor, oldest: u64, head: u64) -> Verdict {
        let Some(end) = self.end_of(&cursor.epoch, head) else {
            return Verdict::OtherEpoch { from: oldest, to: head };
        };
        match cursor.sequence {
            sequence if sequence > end => Verdict::Ahead { from: oldest.max(end + 1), to: head },
            sequence if sequence + 1 < oldest => Verdict::TooOld {
                lost_from: sequence + 1,
                lost_to: oldest - 1,
                from: oldest,
                to: head,
            },
            sequence if sequence == head => Verdict::UpToDate,
            sequence => Verdict::Replay { from: sequence + 1, to: head },
        }
    }

    /// The rows, oldest first.
    #[must_use]
    pub fn rows(&self) -> &[EpochStart] {
        &self.rows
    }
}

/// The answer to a cursor (`[CORE-4]`).
///
/// `from` is the first sequence that will be sent and `to` the head; `from == to + 1` means that there is nothing to
/// send. In all variants but [`UpToDate`](Self::UpToDate) the receiver goes on from the cursor (current epoch,
/// from - 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// The cursor is the head. Proven, not assumed.
    UpToDate,
    /// The cursor is continuous and everything after it can be read.
    Replay {
        /// First sequence sent.
        from: u64,
        /// Last sequence sent.
        to: u64,
    },
    /// The cursor is continuous, but what follows it is pruned.
    TooOld {
        /// First sequence lost.
        lost_from: u64,
        /// Last sequence lost.
        lost_to: u64,
        /// First sequence sent.
        from: u64,
        /// Last sequence sent.
        to: u64,
    },
    /// The receiver has applied numbers that its epoch does not have, or no longer has: they name other payloads now.
    Ahead {
        /// First sequence sent.
        from: u64,
        /// Last sequence sent.
        to: u64,
    },
    /// The epoch is not in the lineage: nothing is known about what the receiver has.
    OtherEpoch {
        /// First sequence sent.
        from: u64,
        /// Last sequence sent.
        to: u64,
    },
}

impl Verdict {
    /// Whether continuity is broken: false for up to date and replay only.
    #[must_use]
    pub const fn is_gap(self) -> bool {
        match self {
            Self::UpToDate | Self::Replay { .. } => false,
            Self::TooOld { .. } | Self::Ahead { .. } | Self::OtherEpoch { .. } => true,
        }
    }

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "up_to_date",
            Self::Replay { .. } => "replay",
            Self::TooOld { .. } => "too_old",
            Self::Ahead { .. } => "ahead",
            Self::OtherEpoch { .. } => "other_epoch",
        }
    }

    /// The first sequence that will be sent; `None` when up to date.
    #[must_use]
    pub const fn from(self) -> Option<u64> {
        match self {
            Self::UpToDate => None,
            Self::Replay { from, .. }
            | Self::TooOld { from, .. }
            | Self::Ahead { from, .. }
            | Self::OtherEpoch { from, .. } => Some(from),
        }
    }

    /// The head; `None` when up to date, where it is the cursor.
    #[must_use]
    pub const fn to(self) -> Option<u64> {
        match self {
            Self::UpToDate => None,
            Self::Replay { to, .. }
            | Self::TooOld { to, .. }
            | Self::Ahead { to, .. }
            | Self::OtherEpoch { to, .. } => Some(to),
        }
    }

    /// The first and last sequence that are lost, when that is known.
    #[must_use]
    pub const fn lost(self) -> Option<(u64, u64)> {
        match self {
            Self::TooOld { lost_from, lost_to, .. } => Some((lost_from, lost_to)),
            Self::UpToDate | Self::Replay { .. } | Self::Ahead { .. } | Self::OtherEpoch { .. } => {
                None
            }
        }
    }
}
