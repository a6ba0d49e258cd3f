//! OffsetForLeaderEpoch: where an epoch's records end, so that a client knows after a restart whether what it has is
//! still there (KIP-320). Every start of the broker raises the epoch, so clients ask.

use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::broker::Broker;
use super::call::Call;
use super::located::Located;
use crate::io::Io;
use crate::model::id::{LeaderEpoch, PartitionIndex};
use crate::protocol::Topic;
use crate::protocol::error::ErrorCode;

impl<I: Io> Broker<I> {
    /// Answers for each partition that this shard leads.
    pub(super) fn offset_for_leader_epoch(&mut self, call: Call, request: OffsetForLeaderEpochRequest) {
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let answer = EpochEndOffset::default().with_partition(asked.partition);
                let current = LeaderEpoch(asked.current_leader_epoch);
                partitions.push(match self.led_partition(&topic.topic, PartitionIndex(asked.partition), current) {
                    Err(error) => answer.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1),
                    Ok(slot) => {
                        let log = &self.partitions.get_mut(slot).log;
                        let (epoch, end_offset) = log.epoch_end_offset(LeaderEpoch(asked.leader_epoch));
                        answer.with_leader_epoch(epoch.0).with_end_offset(end_offset.0)
                    }
                });
            }
            topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
        }
        self.reply(call, &OffsetForLeaderEpochResponse::default().with_topics(topics));
    }

    /// The slot of a partition that is led here, on line, under the epoch that the client believes in (-1: any).
    pub(super) fn led_partition(
        &mut self,
        topic: &str,
        index: PartitionIndex,
        current: LeaderEpoch,
    ) -> Result<u32, ErrorCode> {
        let slot = match self.locate(Topic::Name(topic), index) {
            Located::Here(slot) => slot,
            Located::Elsewhere(_) => return Err(ErrorCode::NotLeaderOrFollower),
            Located::Unknown(error) => return Err(error),
        };
        let log = &self.partitions.get_mut(slot).log;
        let epoch = log.leader_epoch();
        match current {
            LeaderEpoch::NONE => {}
            current if current < epoch => return Err(ErrorCode::FencedLeaderEpoch),
            current if current > epoch => return Err(ErrorCode::UnknownLeaderEpoch),
            _ => {}
        }
        if log.offline().is_some() { Err(ErrorCode::KafkaStorageError) } else { Ok(slot) }
    }
}
