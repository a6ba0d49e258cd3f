//! DescribeProducers: who writes into partitions that are led here, and which of them have a transaction under way.

use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};

use super::broker::Broker;
use super::call::Call;
use super::located::Located;
use crate::io::Io;
use crate::model::id::PartitionIndex;
use crate::model::limits::DESCRIBED_PRODUCER_COUNT_MAX;
use crate::protocol::Topic;
use crate::protocol::error::ErrorCode;

impl<I: Io> Broker<I> {
    /// Answers a DescribeProducers.
    pub(super) fn describe_producers(&mut self, call: Call, request: &DescribeProducersRequest) {
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut producer_count = 0;
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for index in &topic.partition_indexes {
                let found = match producer_count < DESCRIBED_PRODUCER_COUNT_MAX {
                    true => self.producers_of(&topic.name, PartitionIndex(*index)),
                    // The client asks for the rest again.
                    false => Err(ErrorCode::NotLeaderOrFollower),
                };
                producer_count += found.as_ref().map_or(0, Vec::len);
                let answer = PartitionResponse::default().with_partition_index(*index).with_error_message(None);
                partitions.push(match found {
                    Ok(producers) => answer.with_active_producers(producers),
                    Err(error) => answer.with_error_code(error.code()),
                });
            }
            topics.push(TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions));
        }
        self.reply(call, &DescribeProducersResponse::default().with_topics(topics));
    }

    fn producers_of(&mut self, topic: &str, index: PartitionIndex) -> Result<Vec<ProducerState>, ErrorCode> {
        let slot = match self.locate(Topic::Name(topic), index) {
            Located::Here(slot) => slot,
            Located::Elsewhere(_) => return Err(ErrorCode::NotLeaderOrFollower),
            Located::Unknown(error) => return Err(error),
        };
        let log = &self.partitions.get_mut(slot).log;
        if log.offline().is_some() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let producers = log.active_producers().into_iter().map(|producer| {
            ProducerState::default()
                .with_producer_id(producer.producer_id.0.into())
                .with_producer_epoch(i32::from(producer.producer_epoch.0))
                .with_last_sequence(producer.last_sequence)
                .with_last_timestamp(producer.last_timestamp.0)
                .with_coordinator_epoch(producer.coordinator_epoch)
                .with_current_txn_start_offset(producer.transaction_start.map_or(-1, |offset| offset.0))
        });
        Ok(producers.collect())
    }
}
