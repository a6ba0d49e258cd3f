//! The metadata image: everything the cluster has agreed on, as of one record of the metadata log.
//!
//! Immutable to all but [`apply`](super::apply): the controller makes a copy per change and every shard holds one.
//! A copy costs a few reference counts; it shares topics, and buckets of topics, with what it was copied from.
//!
//! A partition's leader, replicas and leader epoch are not stored one by one. The leader follows from
//! [`placement`], or from the assignment that the topic was created with as long as such a broker exists. The leader
//! epoch is the number of starts since the topic was created: a start is one record, and raises all of them.
//!
//! Invariants: a name and an id lead to the same topic; `brokers` are the shards of all nodes, ascending.
//! It must not know endpoints, which are decided at every start and are not durable.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::controller::map::SharedMap;
use crate::controller::placement;
use crate::model::configs::Overrides;
use crate::model::id::{
    BrokerId, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerId, ShardId, TopicId, TopicIdPartition,
};

/// The identity of a cluster, made once. Prints as Kafka's: URL-safe base 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterId(pub Uuid);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TopicId(self.0).fmt(f)
    }
}

/// A node, as its last start left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeImage {
    /// Its shards, each a broker.
    pub shard_count: u16,
    /// How often it was started.
    pub start_count: i32,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions it has.
    pub partition_count: i32,
    /// Replicas that are shown for each partition. One node holds one copy, so this is 1 unless the policy pretends.
    pub replication_factor: i16,
    /// Its own settings.
    pub configs: Arc<Overrides>,
    /// Starts of the cluster before it was created: its leader epochs count from there.
    pub(super) created_at_start: i32,
    /// Brokers per partition that the client chose, leader first; empty: placed.
    pub(super) assignments: Arc<[Vec<BrokerId>]>,
    /// A bit per partition: whether it may have data.
    pub(super) materialized: Vec<u64>,
}

impl TopicImage {
    /// True if the topic has this partition.
    pub fn has(&self, partition: PartitionIndex) -> bool {
        (0..self.partition_count).contains(&partition.0)
    }

    /// Its partitions, ascending.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionIndex> + use<> {
        (0..self.partition_count).map(PartitionIndex)
    }

    /// True once a record says that the partition has a directory: without one it is then offline, not empty.
    pub fn is_materialized(&self, partition: PartitionIndex) -> bool {
        let (word, bit) = bit_of(partition);
        self.has(partition) && self.materialized[word] & bit != 0
    }

    pub(super) fn set_materialized(&mut self, partition: PartitionIndex) {
        let (word, bit) = bit_of(partition);
        self.materialized[word] |= bit;
    }

    /// Words that hold a bit for each of `partition_count` partitions.
    pub(super) fn bit_words(partition_count: i32) -> usize {
        (partition_count as usize).div_ceil(64)
    }
}

fn bit_of(partition: PartitionIndex) -> (usize, u64) {
    (partition.0 as usize / 64, 1 << (partition.0 % 64))
}

/// A partition with everything that Metadata tells about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    /// Which one.
    pub index: PartitionIndex,
    /// The broker that clients produce to and fetch from.
    pub leader: BrokerId,
    /// How often leadership was taken.
    pub leader_epoch: LeaderEpoch,
    /// The brokers that hold it, leader first.
    pub replicas: Vec<BrokerId>,
    /// Those that have everything that was acknowledged. On one node all of them.
    pub isr: Vec<BrokerId>,
}

/// A deleted topic whose directories still are to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name, for the log.
    pub name: Arc<str>,
    /// How many partitions it had.
    pub partition_count: i32,
}

/// Everything the cluster has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub(super) version: Offset,
    pub(super) cluster_id: Option<ClusterId>,
    pub(super) start_count: i32,
    pub(super) nodes: Arc<BTreeMap<NodeId, NodeImage>>,
    pub(super) brokers: Arc<[BrokerId]>,
    pub(super) topics: SharedMap<TopicId, Arc<TopicImage>>,
    pub(super) ids_by_name: SharedMap<Arc<str>, TopicId>,
    /// Names with `.` or `_`, by what they become when the two are not told apart.
    pub(super) names_by_collision: SharedMap<Arc<str>, Arc<str>>,
    pub(super) deleted: SharedMap<TopicId, DeletedTopic>,
    pub(super) partition_count: usize,
    pub(super) next_producer_id: ProducerId,
    pub(super) group_configs: Arc<BTreeMap<Box<str>, Overrides>>,
}

impl Default for Image {
    /// The image before the first record.
    fn default() -> Image {
        Image {
            version: Offset::NONE,
            cluster_id: None,
            start_count: 0,
            nodes: Arc::default(),
            brokers: Arc::from([]),
            topics: SharedMap::default(),
            ids_by_name: SharedMap::default(),
            names_by_collision: SharedMap::default(),
            deleted: SharedMap::default(),
            partition_count: 0,
            next_producer_id: ProducerId(0),
            group_configs: Arc::default(),
        }
    }
}

impl Image {
    /// Offset of the last record that is in it; -1 before the first.
    pub fn version(&self) -> Offset {
        self.version
    }

    /// The cluster's identity; `None` only before the first start.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id
    }

    /// How often nodes were started in all.
    pub fn start_count(&self) -> i32 {
        self.start_count
    }

    /// The nodes, by id.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeImage> {
        &self.nodes
    }

    /// All brokers, ascending: the shards of all nodes.
    pub fn brokers(&self) -> &[BrokerId] {
        &self.brokers
    }

    /// The first producer id that no block holds yet.
    pub fn next_producer_id(&self) -> ProducerId {
        self.next_producer_id
    }

    /// Settings of groups that have some of their own, by the group's id.
    pub fn group_configs(&self) -> &Arc<BTreeMap<Box<str>, Overrides>> {
        &self.group_configs
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// How many partitions there are in all.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// All topics, in no order that means anything, but always the same one.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.iter().map(|(_, topic)| topic)
    }

    /// The topics that were created or changed since `before`, an earlier image of the same log, and perhaps others:
    /// what the two share is not looked at.
    pub fn topics_changed_since<'a>(&'a self, before: &Image) -> impl Iterator<Item = &'a Arc<TopicImage>> {
        self.topics.not_shared_with(&before.topics).map(|(_, topic)| topic)
    }

    /// The topic with this id.
    pub fn topic(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(&id)
    }

    /// The topic with this name.
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topic(*self.ids_by_name.get(name)?)
    }

    /// Deleted topics whose directories still are to be removed, by id.
    pub fn deleted_topics(&self) -> impl Iterator<Item = (TopicId, &DeletedTopic)> {
        self.deleted.iter().map(|(id, topic)| (*id, topic))
    }

    /// True if this id is a deleted topic's whose directories still are to be removed.
    pub fn is_deleted(&self, id: TopicId) -> bool {
        self.deleted.get(&id).is_some()
    }

    /// The broker that leads `partition`; `None` if the topic does not have it or there is no broker.
    pub fn leader(&self, topic: &TopicImage, partition: PartitionIndex) -> Option<BrokerId> {
        if !topic.has(partition) {
            return None;
        }
        match self.assigned(topic, partition).next() {
            Some(broker) => Some(broker),
            None => placement::leader(topic.id, partition, &self.brokers),
        }
    }

    /// The node and shard that own a partition; `None` if it does not exist.
    pub fn owner(&self, partition: TopicIdPartition) -> Option<(NodeId, ShardId)> {
        let topic = self.topic(partition.topic)?;
        self.leader(topic, partition.partition).map(locate)
    }

    /// How often leadership of the topic's partitions was taken.
    pub fn leader_epoch(&self, topic: &TopicImage) -> LeaderEpoch {
        LeaderEpoch(self.start_count - topic.created_at_start)
    }

    /// Everything that Metadata tells about a partition.
    pub fn partition(&self, topic: &TopicImage, index: PartitionIndex) -> Option<PartitionImage> {
        let leader = self.leader(topic, index)?;
        let assigned: Vec<BrokerId> = self.assigned(topic, index).collect();
        let replicas = if assigned.is_empty() {
            placement::replicas(topic.id, index, &self.brokers, topic.replication_factor.max(1) as usize).collect()
        } else {
            assigned
        };
        let isr = replicas.clone();
        Some(PartitionImage { index, leader, leader_epoch: self.leader_epoch(topic), replicas, isr })
    }

    /// The brokers that the client chose for a partition, as far as they exist.
    fn assigned<'a>(&self, topic: &'a TopicImage, partition: PartitionIndex) -> impl Iterator<Item = BrokerId> + 'a {
        let brokers = Arc::clone(&self.brokers);
        let chosen = topic.assignments.get(partition.0 as usize).map_or(&[][..], Vec::as_slice);
        chosen.iter().copied().filter(move |broker| brokers.binary_search(broker).is_ok())
    }
}

/// The node and shard that a broker is: the inverse of [`ShardId::broker`].
pub fn locate(broker: BrokerId) -> (NodeId, ShardId) {
    let number = broker.0 - 1;
    (NodeId(number / 1000), ShardId((number % 1000) as u16))
}
