//! Who leads a partition, seen from this shard.

use super::broker::Broker;
use crate::io::Io;
use crate::model::id::{PartitionIndex, TopicIdPartition};
use crate::protocol::error::ErrorCode;
use crate::protocol::{LeaderIdAndEpoch, Topic};

/// Where a partition is.
#[derive(Clone, Copy, Debug)]
pub enum Located {
    /// In this slot of this shard.
    Here(u32),
    /// At another shard: the client is told and routes itself.
    Elsewhere(LeaderIdAndEpoch),
    /// Nowhere.
    Unknown(ErrorCode),
}

impl<I: Io> Broker<I> {
    /// Finds a partition as a request names it. Leading one for the first time opens its log, which costs nothing
    /// until something is appended.
    pub(super) fn locate(&mut self, topic: Topic<'_>, index: PartitionIndex) -> Located {
        let image = &self.image;
        let topic = match topic {
            Topic::Name(name) => image.topic_by_name(name),
            Topic::Id(id) => match image.topic(id) {
                None => return Located::Unknown(ErrorCode::UnknownTopicId),
                found => found,
            },
        };
        let Some(topic) = topic else { return Located::Unknown(ErrorCode::UnknownTopicOrPartition) };
        let id = TopicIdPartition { topic: topic.id, partition: index };
        if let Some(slot) = self.partitions.find(id) {
            return Located::Here(slot);
        }
        let Some(leader) = image.leader(topic, index) else {
            return Located::Unknown(ErrorCode::UnknownTopicOrPartition);
        };
        let leader_epoch = image.leader_epoch(topic);
        if leader != self.broker_id() {
            return Located::Elsewhere(LeaderIdAndEpoch { leader, leader_epoch });
        }
        let topic = topic.clone();
        Located::Here(self.open_partition(&topic, index, leader_epoch))
    }
}
