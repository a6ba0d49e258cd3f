//! Which leader epoch began at which offset: what `OffsetForLeaderEpoch` is answered from (KIP-101, KIP-320).
//!
//! Invariants: epochs and start offsets both ascend strictly. A log without records has no entry and no heap.
//!
//! It must not know where it is kept: checkpoints and sidecars carry [`EpochEntry`]s.

use rkyv::{Archive, Deserialize, Serialize};

use crate::model::id::{LeaderEpoch, Offset};
use crate::model::limits::LEADER_EPOCH_COUNT_MAX;

/// One epoch's beginning, as it is archived: integers of fixed size and order.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// Offset of the first record of the epoch.
    pub start_offset: i64,
    /// The epoch.
    pub epoch: i32,
}

/// The history of one partition's leader epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochs {
    /// Takes archived entries back. Entries that do not ascend were never written by us, so they are refused.
    pub fn restore(entries: Vec<EpochEntry>) -> Option<LeaderEpochs> {
        let sound = entries.iter().all(|entry| entry.epoch >= 0 && entry.start_offset >= 0)
            && entries.is_sorted_by(|a, b| a.epoch < b.epoch && a.start_offset < b.start_offset);
        sound.then_some(LeaderEpochs { entries })
    }

    /// Notes that `epoch` begins at `start_offset`; nothing happens if it is the latest already. To be called when
    /// leadership is taken (with the log end offset) and for every appended batch. Entries that contradict the new
    /// one (an epoch in which nothing was written, a tail that was cut) are dropped, as Kafka does.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        debug_assert!(epoch.0 >= 0 && start_offset.0 >= 0);
        let new = EpochEntry { start_offset: start_offset.0, epoch: epoch.0 };
        if let Some(last) = self.entries.last()
            && last.epoch == new.epoch
            && last.start_offset <= new.start_offset
        {
            return;
        }
        while self.entries.last().is_some_and(|last| last.epoch >= new.epoch || last.start_offset >= new.start_offset) {
            self.entries.pop();
        }
        if self.entries.len() == LEADER_EPOCH_COUNT_MAX {
            // A client that asks for the dropped epoch is sent to the start of the next one, as after retention.
            self.entries.remove(0);
        }
        self.entries.push(new);
    }

    /// The answer to `OffsetForLeaderEpoch`: the greatest known epoch that is not above `requested`, and the offset
    /// behind its last record. An epoch older than all we know is answered with itself and the first start offset
    /// that we know; one that we have not reached, or `NONE`, with `(NONE, Offset::NONE)`.
    pub fn end_offset_for(&self, requested: LeaderEpoch, log_end: Offset) -> (LeaderEpoch, Offset) {
        const UNDEFINED: (LeaderEpoch, Offset) = (LeaderEpoch::NONE, Offset::NONE);
        if requested == LeaderEpoch::NONE {
            return UNDEFINED;
        }
        if self.latest() == Some(requested) {
            return (requested, log_end);
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= requested.0);
        let Some(higher) = self.entries.get(above) else { return UNDEFINED };
        let epoch = match above.checked_sub(1) {
            Some(floor) => LeaderEpoch(self.entries[floor].epoch),
            None => requested,
        };
        (epoch, Offset(higher.start_offset))
    }

    /// The epoch of the record at `offset`, if it is known.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let above = self.entries.partition_point(|entry| entry.start_offset <= offset.0);
        above.checked_sub(1).map(|at| LeaderEpoch(self.entries[at].epoch))
    }

    /// The greatest epoch that was assigned.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| LeaderEpoch(entry.epoch))
    }

    /// Forgets epochs that ended at or before `log_start`; the one that contains it now begins there.
    pub fn truncate_start(&mut self, log_start: Offset) {
        let below = self.entries.partition_point(|entry| entry.start_offset <= log_start.0);
        if below > 0 {
            self.entries.drain(..below - 1);
            self.entries[0].start_offset = log_start.0;
        }
    }

    /// Forgets epochs that begin at or behind `log_end`.
    pub fn truncate_end(&mut self, log_end: Offset) {
        let below = self.entries.partition_point(|entry| entry.start_offset < log_end.0);
        self.entries.truncate(below);
    }

    /// The entries for an archive, oldest first.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for &(epoch, start) in entries {
            epochs.assign(LeaderEpoch(epoch), Offset(start));
        }
        epochs
    }

    fn pairs(epochs: &LeaderEpochs) -> Vec<(i32, i64)> {
        epochs.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
    }

    #[test]
    fn end_offsets_follow_kip_320() {
        // Every kind of question, on a history with gaps between the epochs.
        let epochs = history(&[(2, 10), (4, 20), (7, 30)]);
        let ask = |epoch| {
            let (epoch, offset) = epochs.end_offset_for(LeaderEpoch(epoch), Offset(35));
            (epoch.0, offset.0)
        };
        assert_eq!(ask(7), (7, 35));
        assert_eq!(ask(4), (4, 30));
        assert_eq!(ask(5), (4, 30));
        assert_eq!(ask(2), (2, 20));
        assert_eq!(ask(1), (1, 10));
        assert_eq!(ask(8), (-1, -1));
        assert_eq!(ask(-1), (-1, -1));
        let empty = LeaderEpochs::default();
        assert_eq!(empty.end_offset_for(LeaderEpoch(0), Offset(0)), (LeaderEpoch::NONE, Offset::NONE));
    }

    #[test]
    fn an_epoch_without_records_leaves_no_entry() {
        // Three starts without an append between: only the last epoch remains at that offset.
        let mut epochs = history(&[(0, 0), (1, 10), (2, 10), (3, 10)]);
        assert_eq!(pairs(&epochs), [(0, 0), (3, 10)]);
        epochs.assign(LeaderEpoch(3), Offset(50));
        assert_eq!(pairs(&epochs), [(0, 0), (3, 10)]);
        assert_eq!(epochs.epoch_at(Offset(9)), Some(LeaderEpoch(0)));
        assert_eq!(epochs.epoch_at(Offset(10)), Some(LeaderEpoch(3)));
    }

    #[test]
    fn the_log_start_cuts_the_history_but_keeps_the_epoch_that_contains_it() {
        let mut epochs = history(&[(2, 10), (4, 20), (7, 30)]);
        epochs.truncate_start(Offset(5));
        assert_eq!(pairs(&epochs), [(2, 10), (4, 20), (7, 30)]);
        epochs.truncate_start(Offset(25));
        assert_eq!(pairs(&epochs), [(4, 25), (7, 30)]);
        epochs.truncate_start(Offset(30));
        assert_eq!(pairs(&epochs), [(7, 30)]);
        epochs.truncate_start(Offset(99));
        assert_eq!(pairs(&epochs), [(7, 99)]);
    }

    #[test]
    fn cutting_the_end_forgets_later_epochs() {
        let mut epochs = history(&[(2, 10), (4, 20), (7, 30)]);
        epochs.truncate_end(Offset(20));
        assert_eq!(pairs(&epochs), [(2, 10)]);
    }

    #[test]
    fn the_history_is_bounded_and_restores_only_what_ascends() {
        let mut epochs = LeaderEpochs::default();
        for epoch in 0..2 * LEADER_EPOCH_COUNT_MAX as i32 {
            epochs.assign(LeaderEpoch(epoch), Offset(i64::from(epoch) * 10));
        }
        assert_eq!(epochs.entries().len(), LEADER_EPOCH_COUNT_MAX);
        assert_eq!(LeaderEpochs::restore(epochs.entries().to_vec()), Some(epochs));
        let backwards = [(5, 10), (4, 20)].map(|(epoch, start_offset)| EpochEntry { start_offset, epoch });
        assert_eq!(LeaderEpochs::restore(backwards.to_vec()), None);
    }
}
