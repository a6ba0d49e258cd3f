//! DescribeTopicPartitions (KIP-966): like Metadata for tools, page by page.

use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::authorized::{NOT_ASKED, TOPIC_OPERATIONS};
use super::broker::Broker;
use super::call::Call;
use super::metadata::is_internal;
use crate::io::Io;
use crate::model::id::{BrokerId, PartitionIndex};
use crate::protocol::error::ErrorCode;
use crate::storage::layout::check_topic_name;

/// Kafka's `max.request.partition.size.limit`.
const PARTITION_COUNT_MAX: usize = 2000;

impl<I: Io> Broker<I> {
    /// Answers topics in order of their names, from the cursor on, up to the limit of partitions.
    pub(super) fn describe_topic_partitions(&mut self, call: Call, request: &DescribeTopicPartitionsRequest) {
        let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PARTITION_COUNT_MAX);
        let mut names: Vec<String> = match request.topics.is_empty() {
            true => self.image.topics().map(|topic| topic.name.to_string()).collect(),
            false => request.topics.iter().map(|topic| topic.name.to_string()).collect(),
        };
        names.sort_unstable();
        names.dedup();
        let (from_name, from_index) = match &request.cursor {
            Some(cursor) => (cursor.topic_name.to_string(), cursor.partition_index.max(0)),
            None => (String::new(), 0),
        };
        let mut left = limit;
        let mut response = DescribeTopicPartitionsResponse::default();
        for name in names.into_iter().filter(|name| *name >= from_name) {
            let first = if name == from_name { from_index } else { 0 };
            let wire_name = TopicName(StrBytes::from_string(name.clone()));
            let Some(topic) = self.image.topic_by_name(&name) else {
                let error = match check_topic_name(&name).is_ok() {
                    true => ErrorCode::UnknownTopicOrPartition,
                    false => ErrorCode::InvalidTopicException,
                };
                response.topics.push(
                    DescribeTopicPartitionsResponseTopic::default()
                        .with_error_code(error.code())
                        .with_name(Some(wire_name))
                        .with_topic_authorized_operations(NOT_ASKED),
                );
                continue;
            };
            if left == 0 {
                let cursor = Cursor::default().with_topic_name(wire_name).with_partition_index(first);
                response.next_cursor = Some(cursor);
                break;
            }
            let end = topic.partition_count.min(first.saturating_add(left as i32));
            let partitions: Vec<_> = (first..end)
                .map(|index| {
                    let partition =
                        self.image.partition(topic, PartitionIndex(index)).expect("the index is within the count");
                    let brokers = |ids: &[BrokerId]| ids.iter().map(|id| id.0.into()).collect::<Vec<_>>();
                    DescribeTopicPartitionsResponsePartition::default()
                        .with_partition_index(index)
                        .with_leader_id(partition.leader.0.into())
                        .with_leader_epoch(partition.leader_epoch.0)
                        .with_replica_nodes(brokers(&partition.replicas))
                        .with_isr_nodes(brokers(&partition.isr))
                        .with_eligible_leader_replicas(Some(Vec::new()))
                        .with_last_known_elr(Some(Vec::new()))
                })
                .collect();
            left -= partitions.len();
            response.topics.push(
                DescribeTopicPartitionsResponseTopic::default()
                    .with_name(Some(wire_name.clone()))
                    .with_topic_id(topic.id.0)
                    .with_is_internal(is_internal(&name))
                    .with_partitions(partitions)
                    .with_topic_authorized_operations(TOPIC_OPERATIONS),
            );
            if end < topic.partition_count {
                let cursor = Cursor::default().with_topic_name(wire_name).with_partition_index(end);
                response.next_cursor = Some(cursor);
                break;
            }
        }
        self.reply(call, &response);
    }
}
