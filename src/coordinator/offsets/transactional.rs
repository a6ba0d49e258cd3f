//! Offsets that were committed in transactions which are not decided yet (KIP-98, KIP-447).
//!
//! Each waits with its producer until that producer's marker comes: then it counts, or never did. Until then the
//! partition's offset is unstable for whoever asks for a stable one. Of several commits of one partition that count the
//! one wins that came last, whichever was decided last, as in the log, of which compaction keeps the last; and a
//! partition's offset that is deleted takes those that wait along.
//!
//! Holds what is durable. It must not know the log or who decides.

use std::collections::BTreeMap;

use super::{CommittedOffset, ENTRY_SIZE_BYTES, NODE_SIZE_BYTES, Offsets};
use crate::model::id::{PartitionIndex, ProducerId};

/// Group, topic, partition.
type Key = (Box<str>, Box<str>, PartitionIndex);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    committed: CommittedOffset,
    /// Which of all that have come.
    number: u64,
    /// A later commit counts instead.
    is_superseded: bool,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionalOffsets {
    by_producer: BTreeMap<ProducerId, BTreeMap<Key, Waiting>>,
    /// How many producers have one of a partition.
    unstable: BTreeMap<Key, usize>,
    size_bytes: usize,
    put_count: u64,
}

fn weight_bytes((group, topic, _): &Key, committed: &CommittedOffset) -> usize {
    ENTRY_SIZE_BYTES + 2 * NODE_SIZE_BYTES + 2 * (group.len() + topic.len()) + committed.metadata.len()
}

impl TransactionalOffsets {
    /// A producer has committed an offset in its transaction.
    pub fn put(
        &mut self,
        producer: ProducerId,
        group: &str,
        topic: &str,
        partition: PartitionIndex,
        committed: CommittedOffset,
    ) {
        let key: Key = (group.into(), topic.into(), partition);
        self.size_bytes += weight_bytes(&key, &committed);
        self.put_count += 1;
        let waiting = Waiting { committed, number: self.put_count, is_superseded: false };
        match self.by_producer.entry(producer).or_default().insert(key.clone(), waiting) {
            Some(old) => self.size_bytes -= weight_bytes(&key, &old.committed),
            None => *self.unstable.entry(key).or_default() += 1,
        }
    }

    /// The producer's transaction is decided: what waited for it goes into `offsets`, or nowhere.
    pub fn end(&mut self, producer: ProducerId, commits: bool, offsets: &mut Offsets) {
        for (key, waiting) in self.by_producer.remove(&producer).unwrap_or_default() {
            self.settle(&key, &waiting);
            if commits && !waiting.is_superseded {
                self.supersede_before(&key, waiting.number);
                let (group, topic, partition) = &key;
                offsets.put(group, topic, *partition, waiting.committed);
            }
        }
    }

    fn settle(&mut self, key: &Key, waiting: &Waiting) {
        self.size_bytes -= weight_bytes(key, &waiting.committed);
        if let Some(count) = self.unstable.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.unstable.remove(key);
            }
        }
    }

    /// A plain commit of a partition is durable.
    pub fn supersede(&mut self, group: &str, topic: &str, partition: PartitionIndex) {
        if self.by_producer.is_empty() {
            return;
        }
        self.supersede_before(&(group.into(), topic.into(), partition), u64::MAX);
    }

    fn supersede_before(&mut self, key: &Key, number: u64) {
        if !self.unstable.contains_key(key) {
            return;
        }
        let waiting = self.by_producer.values_mut().filter_map(|waiting| waiting.get_mut(key));
        waiting.filter(|waiting| waiting.number < number).for_each(|waiting| waiting.is_superseded = true);
    }

    /// The offset of a partition is deleted. True if something waited.
    pub fn forget(&mut self, group: &str, topic: &str, partition: PartitionIndex) -> bool {
        let key: Key = (group.into(), topic.into(), partition);
        if !self.unstable.contains_key(&key) {
            return false;
        }
        let found = self.by_producer.values_mut().filter_map(|waiting| waiting.remove(&key));
        for waiting in found.collect::<Vec<_>>() {
            self.settle(&key, &waiting);
        }
        self.by_producer.retain(|_, waiting| !waiting.is_empty());
        true
    }

    /// True if a transaction that is not decided has committed an offset of the partition.
    pub fn is_unstable(&self, group: &str, topic: &str, partition: PartitionIndex) -> bool {
        !self.unstable.is_empty() && self.unstable.contains_key(&(group.into(), topic.into(), partition))
    }

    /// Topics and partitions of a group for which offsets wait.
    pub fn of_group(&self, group: &str) -> Vec<(Box<str>, PartitionIndex)> {
        let from: Key = (group.into(), "".into(), PartitionIndex(i32::MIN));
        let own = self.unstable.range(from..).take_while(|((of, ..), _)| **of == *group);
        own.map(|((_, topic, partition), _)| (topic.clone(), *partition)).collect()
    }

    /// Groups and partitions for which offsets of a topic wait.
    pub fn of_topic(&self, topic: &str) -> Vec<(Box<str>, PartitionIndex)> {
        let found = self.unstable.keys().filter(|(_, of, _)| **of == *topic);
        found.map(|(group, _, partition)| (group.clone(), *partition)).collect()
    }

    /// Topics for which offsets wait.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.unstable.keys().map(|(_, topic, _)| &**topic)
    }

    /// About what they take in memory.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;
    use crate::model::id::{LeaderEpoch, Offset};

    const P: PartitionIndex = PartitionIndex(0);

    fn committed(offset: i64) -> CommittedOffset {
        CommittedOffset {
            offset: Offset(offset),
            leader_epoch: LeaderEpoch::NONE,
            metadata: "m".into(),
            commit_timestamp: Timestamp(0),
            expire_timestamp: None,
        }
    }

    fn at(offsets: &Offsets, topic: &str) -> Option<i64> {
        offsets.get("g", topic, P).map(|committed| committed.offset.0)
    }

    #[test]
    fn an_offset_counts_when_its_transaction_commits_and_never_when_it_aborts() {
        let (mut waiting, mut offsets) = (TransactionalOffsets::default(), Offsets::default());
        waiting.put(ProducerId(1), "g", "a", P, committed(5));
        waiting.put(ProducerId(1), "g", "a", P, committed(6));
        waiting.put(ProducerId(2), "g", "b", P, committed(7));
        assert!(waiting.is_unstable("g", "a", P) && waiting.is_unstable("g", "b", P));
        assert_eq!(waiting.of_group("g"), [("a".into(), P), ("b".into(), P)]);
        assert!(waiting.of_group("f").is_empty() && waiting.of_group("h").is_empty());
        waiting.end(ProducerId(2), false, &mut offsets);
        waiting.end(ProducerId(1), true, &mut offsets);
        assert_eq!((at(&offsets, "a"), at(&offsets, "b")), (Some(6), None));
        assert_eq!(nothing_of(waiting.clone()), TransactionalOffsets::default());
        // A transaction without offsets here.
        waiting.end(ProducerId(3), true, &mut offsets);
    }

    #[test]
    fn a_later_plain_commit_wins_and_a_deletion_takes_what_waits_along() {
        let (mut waiting, mut offsets) = (TransactionalOffsets::default(), Offsets::default());
        waiting.put(ProducerId(1), "g", "a", P, committed(5));
        waiting.put(ProducerId(1), "g", "b", P, committed(5));
        waiting.put(ProducerId(2), "g", "b", P, committed(9));
        offsets.put("g", "a", P, committed(8));
        waiting.supersede("g", "a", P);
        assert!(waiting.is_unstable("g", "a", P));
        assert!(waiting.forget("g", "b", P) && !waiting.forget("g", "b", P));
        waiting.end(ProducerId(1), true, &mut offsets);
        waiting.end(ProducerId(2), true, &mut offsets);
        assert_eq!((at(&offsets, "a"), at(&offsets, "b")), (Some(8), None));
        assert_eq!(nothing_of(waiting), TransactionalOffsets::default());
    }

    #[test]
    fn of_two_transactions_the_later_commit_wins_whichever_is_decided_last() {
        // A transaction that was slow to be decided must not bring back an older offset than the log's last one.
        let (mut waiting, mut offsets) = (TransactionalOffsets::default(), Offsets::default());
        waiting.put(ProducerId(1), "g", "a", P, committed(5));
        waiting.put(ProducerId(2), "g", "a", P, committed(9));
        waiting.end(ProducerId(2), true, &mut offsets);
        assert!(waiting.is_unstable("g", "a", P));
        waiting.end(ProducerId(1), true, &mut offsets);
        assert_eq!(at(&offsets, "a"), Some(9));
        // Where the later one is aborted the earlier one counts.
        waiting.put(ProducerId(1), "g", "b", P, committed(5));
        waiting.put(ProducerId(2), "g", "b", P, committed(9));
        waiting.end(ProducerId(2), false, &mut offsets);
        waiting.end(ProducerId(1), true, &mut offsets);
        assert_eq!(at(&offsets, "b"), Some(5));
    }

    /// But for how many there were.
    fn nothing_of(waiting: TransactionalOffsets) -> TransactionalOffsets {
        TransactionalOffsets { put_count: 0, ..waiting }
    }
}
