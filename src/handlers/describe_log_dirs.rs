//! DescribeLogDirs: how much the partitions of this shard hold, and how much room their disk has.
//!
//! Answered for the asked shard only: clients ask every broker and put the answers together. All shards share one data
//! directory, so each of them tells the same disk.

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use kafka_protocol::protocol::StrBytes;

use super::broker::Broker;
use super::call::Call;
use super::topics::topic_name;
use crate::controller::image::TopicImage;
use crate::io::Io;
use crate::model::id::{PartitionIndex, TopicIdPartition};
use crate::protocol::error::ErrorCode;

impl<I: Io> Broker<I> {
    /// Answers for the named partitions that this shard leads, or for all of them.
    pub(super) fn describe_log_dirs(&mut self, call: Call, request: &DescribeLogDirsRequest) {
        let image = self.image.clone();
        let topics: Vec<DescribeLogDirsTopic> = match &request.topics {
            None => image.topics().filter_map(|topic| self.sizes_of(topic, topic.partitions())).collect(),
            Some(named) => named
                .iter()
                .filter_map(|named| {
                    let topic = image.topic_by_name(&named.topic)?;
                    self.sizes_of(topic, named.partitions.iter().copied().map(PartitionIndex))
                })
                .collect(),
        };
        let data_dir = self.options.layout.data_dir().to_owned();
        let mut result = DescribeLogDirsResult::default()
            .with_log_dir(StrBytes::from_string(data_dir.display().to_string()))
            .with_topics(topics);
        match self.io.space(&data_dir) {
            Ok(space) if call.version >= 4 => {
                let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
                result.total_bytes = bytes(space.total_bytes);
                result.usable_bytes = bytes(space.usable_bytes);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the file system does not tell its size");
                result.error_code = ErrorCode::KafkaStorageError.code();
            }
        }
        self.reply(call, &DescribeLogDirsResponse::default().with_results(vec![result]));
    }

    /// What this shard holds of a topic; `None` if it leads none of the partitions.
    fn sizes_of(
        &mut self,
        topic: &TopicImage,
        partitions: impl Iterator<Item = PartitionIndex>,
    ) -> Option<DescribeLogDirsTopic> {
        let own = self.broker_id();
        let led: Vec<_> = partitions
            .filter(|index| self.image.leader(topic, *index) == Some(own))
            .map(|index| {
                // A partition whose log was never opened has no records.
                let slot = self.partitions.find(TopicIdPartition { topic: topic.id, partition: index });
                let size_bytes = slot.map_or(0, |slot| self.partitions.get_mut(slot).log.size_bytes());
                DescribeLogDirsPartition::default()
                    .with_partition_index(index.0)
                    .with_partition_size(i64::try_from(size_bytes).unwrap_or(i64::MAX))
            })
            .collect();
        (!led.is_empty())
            .then(|| DescribeLogDirsTopic::default().with_name(topic_name(&topic.name)).with_partitions(led))
    }
}
