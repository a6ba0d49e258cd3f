//! What the groups of one partition of the offsets topic have committed.
//!
//! Holds what is durable: a commit is put in when it is, never before, so that nobody reads what could still vanish.
//!
//! Invariants: no group and no topic is empty; `count` and `size_bytes` are those of what is there.
//! It must not know the log, the members of a group, or the time.

pub mod transactional;

use std::collections::BTreeMap;

use crate::base::time::Timestamp;
use crate::model::id::{LeaderEpoch, Offset, PartitionIndex};

/// What an entry takes beside its metadata and its share of the names: the structure and its place in the maps.
const ENTRY_SIZE_BYTES: usize = 112;
/// What a topic of a group, or a group, takes beside its name.
const NODE_SIZE_BYTES: usize = 96;

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record that the group wants.
    pub offset: Offset,
    /// Epoch of the last record that it has seen; none if the client did not say.
    pub leader_epoch: LeaderEpoch,
    /// Whatever the client wants to keep with it.
    pub metadata: Box<str>,
    /// When it was committed.
    pub commit_timestamp: Timestamp,
    /// When it expires, if an old client gave it a retention of its own.
    pub expire_timestamp: Option<Timestamp>,
}

/// The partitions of one topic.
pub type TopicOffsets = BTreeMap<PartitionIndex, CommittedOffset>;
/// The topics of one group.
pub type GroupOffsets = BTreeMap<Box<str>, TopicOffsets>;

/// From when on the retention of a group's offsets counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionBase {
    /// The group is in use: they stay.
    Never,
    /// The group is empty since then.
    Since(Timestamp),
    /// Each counts from its own commit: of a consumer without a group, or a topic that the group no longer reads.
    Commit,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    groups: BTreeMap<Box<str>, GroupOffsets>,
    count: usize,
    size_bytes: usize,
}

impl CommittedOffset {
    /// True if it need not be kept any longer (KIP-211, Kafka 2.1 and later).
    pub fn is_expired(&self, base: RetentionBase, now: Timestamp, retention_ms: u64) -> bool {
        let since = match base {
            RetentionBase::Never => return false,
            RetentionBase::Since(since) => since,
            RetentionBase::Commit => self.commit_timestamp,
        };
        match self.expire_timestamp {
            Some(at) => now >= at,
            None => u64::try_from(now.0.saturating_sub(since.0)).is_ok_and(|age_ms| age_ms >= retention_ms),
        }
    }
}

impl Offsets {
    /// What a group has committed for a partition.
    pub fn get(&self, group: &str, topic: &str, partition: PartitionIndex) -> Option<&CommittedOffset> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    /// Everything that a group has committed; `None` if it is nothing.
    pub fn group(&self, group: &str) -> Option<&GroupOffsets> {
        self.groups.get(group)
    }

    /// The groups that have committed something, by id.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &GroupOffsets)> {
        self.groups.iter().map(|(group, topics)| (&**group, topics))
    }

    /// How many offsets there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// About what they take in memory.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// About what an offset would add to [`size_bytes`](Self::size_bytes) if it were put in: 0 if it replaces one that
    /// is not smaller.
    pub fn growth_bytes(
        &self,
        group: &str,
        topic: &str,
        partition: PartitionIndex,
        metadata_size_bytes: usize,
    ) -> usize {
        let Some(topics) = self.groups.get(group) else {
            return 2 * NODE_SIZE_BYTES + group.len() + topic.len() + ENTRY_SIZE_BYTES + metadata_size_bytes;
        };
        let Some(partitions) = topics.get(topic) else {
            return NODE_SIZE_BYTES + topic.len() + ENTRY_SIZE_BYTES + metadata_size_bytes;
        };
        match partitions.get(&partition) {
            None => ENTRY_SIZE_BYTES + metadata_size_bytes,
            Some(old) => metadata_size_bytes.saturating_sub(old.metadata.len()),
        }
    }

    /// A group has committed an offset.
    pub fn put(&mut self, group: &str, topic: &str, partition: PartitionIndex, committed: CommittedOffset) {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.into(), GroupOffsets::new());
            self.size_bytes += NODE_SIZE_BYTES + group.len();
        }
        let topics = self.groups.get_mut(group).expect("it is there now");
        if !topics.contains_key(topic) {
            topics.insert(topic.into(), TopicOffsets::new());
            self.size_bytes += NODE_SIZE_BYTES + topic.len();
        }
        let partitions = topics.get_mut(topic).expect("it is there now");
        self.size_bytes += committed.metadata.len();
        match partitions.insert(partition, committed) {
            Some(old) => self.size_bytes -= old.metadata.len(),
            None => {
                self.size_bytes += ENTRY_SIZE_BYTES;
                self.count += 1;
            }
        }
    }

    /// What a group has committed for a partition is forgotten. True if there was something.
    pub fn remove(&mut self, group: &str, topic: &str, partition: PartitionIndex) -> bool {
        let Some(topics) = self.groups.get_mut(group) else { return false };
        let Some(partitions) = topics.get_mut(topic) else { return false };
        let Some(old) = partitions.remove(&partition) else { return false };
        self.size_bytes -= ENTRY_SIZE_BYTES + old.metadata.len();
        self.count -= 1;
        if partitions.is_empty() {
            topics.remove(topic);
            self.size_bytes -= NODE_SIZE_BYTES + topic.len();
        }
        if topics.is_empty() {
            self.groups.remove(group);
            self.size_bytes -= NODE_SIZE_BYTES + group.len();
        }
        true
    }

    /// Groups and partitions for which offsets of `topic` are there.
    pub fn of_topic(&self, topic: &str) -> Vec<(Box<str>, PartitionIndex)> {
        let mut found = Vec::new();
        for (group, topics) in &self.groups {
            let partitions = topics.get(topic).into_iter().flat_map(BTreeMap::keys);
            found.extend(partitions.map(|partition| (group.clone(), *partition)));
        }
        found
    }

    /// Offsets of a group that need not be kept any longer. `is_subscribed` says which topics the group reads: theirs
    /// stay.
    pub fn expired_of(
        &self,
        group: &str,
        base: RetentionBase,
        is_subscribed: impl Fn(&str) -> bool,
        now: Timestamp,
        retention_ms: u64,
    ) -> Vec<(Box<str>, PartitionIndex)> {
        let mut expired = Vec::new();
        for (topic, partitions) in self.groups.get(group).into_iter().flatten() {
            if base == RetentionBase::Never || is_subscribed(topic) {
                continue;
            }
            let due = partitions.iter().filter(|(_, committed)| committed.is_expired(base, now, retention_ms));
            expired.extend(due.map(|(partition, _)| (topic.clone(), *partition)));
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn committed(offset: i64, metadata: &str, at: i64) -> CommittedOffset {
        CommittedOffset {
            offset: Offset(offset),
            leader_epoch: LeaderEpoch::NONE,
            metadata: metadata.into(),
            commit_timestamp: Timestamp(at),
            expire_timestamp: None,
        }
    }

    #[test]
    fn what_is_there_is_what_was_put_last_and_not_removed() {
        // Random changes against a flat map; empty again, nothing is counted any more.
        let mut rng = Rng::new(1);
        let (mut offsets, mut model) = (Offsets::default(), BTreeMap::new());
        let names = ["a", "b", "c"];
        for step in 0..2000 {
            let group = names[rng.in_range(0..3) as usize];
            let topic = names[rng.in_range(0..3) as usize];
            let partition = PartitionIndex(rng.in_range(0..4) as i32);
            if rng.chance(2, 3) {
                let value = committed(step, &"x".repeat(rng.in_range(0..9) as usize), step);
                let before = offsets.size_bytes();
                let growth = offsets.growth_bytes(group, topic, partition, value.metadata.len());
                model.insert((group, topic, partition), value.clone());
                offsets.put(group, topic, partition, value);
                assert!(offsets.size_bytes() <= before + growth);
                assert!(growth == 0 || offsets.size_bytes() == before + growth);
            } else {
                assert_eq!(offsets.remove(group, topic, partition), model.remove(&(group, topic, partition)).is_some());
            }
            assert_eq!(offsets.count(), model.len());
            assert_eq!(offsets.get(group, topic, partition), model.get(&(group, topic, partition)));
        }
        let all: Vec<_> = model.keys().copied().collect();
        let listed = offsets.groups().flat_map(|(group, topics)| {
            topics.iter().flat_map(move |(topic, p)| p.keys().map(move |p| (group, &**topic, *p)))
        });
        assert_eq!(listed.collect::<Vec<_>>(), all);
        for (group, topic, partition) in all {
            assert!(offsets.remove(group, topic, partition));
        }
        assert_eq!(offsets, Offsets::default());
    }

    #[test]
    fn offsets_expire_when_their_group_is_empty_and_not_before() {
        let old = committed(1, "", 100);
        assert!(!old.is_expired(RetentionBase::Never, Timestamp(10_000), 50));
        assert!(old.is_expired(RetentionBase::Commit, Timestamp(150), 50));
        assert!(!old.is_expired(RetentionBase::Commit, Timestamp(149), 50));
        assert!(!old.is_expired(RetentionBase::Since(Timestamp(120)), Timestamp(169), 50));
        assert!(old.is_expired(RetentionBase::Since(Timestamp(120)), Timestamp(170), 50));
        // A retention of its own counts alone.
        let own = CommittedOffset { expire_timestamp: Some(Timestamp(105)), ..old };
        assert!(own.is_expired(RetentionBase::Commit, Timestamp(105), 50));
        assert!(!own.is_expired(RetentionBase::Commit, Timestamp(104), 0));

        let mut offsets = Offsets::default();
        offsets.put("g", "read", PartitionIndex(0), committed(1, "", 0));
        offsets.put("g", "left", PartitionIndex(0), committed(1, "", 0));
        offsets.put("g", "left", PartitionIndex(1), committed(1, "", 90));
        let expired = offsets.expired_of("g", RetentionBase::Commit, |topic| topic == "read", Timestamp(100), 50);
        assert_eq!(expired, [("left".into(), PartitionIndex(0))]);
        assert_eq!(offsets.of_topic("left").len(), 2);
    }
}
