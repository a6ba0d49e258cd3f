//! The Produce response.

use super::{API, BY_ID_FROM};
use crate::base::time::Timestamp;
use crate::invariant;
use crate::model::id::{Offset, PartitionIndex};
use crate::protocol::encode::{begin_response, end_response};
use crate::protocol::error::ErrorCode;
use crate::protocol::wire::{self, LeaderIdAndEpoch, NodeEndpoint, Topic};

/// The answer for one partition.
#[derive(Clone, Copy, Debug)]
pub struct ProducePartitionResponse<'a> {
    /// The partition.
    pub index: PartitionIndex,
    /// What went wrong, or none.
    pub error: ErrorCode,
    /// Offset of the first record, or [`Offset::NONE`].
    pub base_offset: Offset,
    /// When the broker appended, for LogAppendTime topics; else [`Timestamp::NONE`].
    pub log_append_time: Timestamp,
    /// The partition's log start offset, or [`Offset::NONE`]. Version 5.
    pub log_start_offset: Offset,
    /// Which records made the batch be refused. Version 8.
    pub record_errors: &'a [RecordError<'a>],
    /// Why the batch was refused, for people. Version 8.
    pub error_message: Option<&'a str>,
    /// Who leads instead. Version 10.
    pub current_leader: Option<LeaderIdAndEpoch>,
}

/// One record that made its batch be refused (KIP-467).
#[derive(Clone, Copy, Debug)]
pub struct RecordError<'a> {
    /// The record's place in its batch, counted from 0.
    pub batch_index: i32,
    /// Why.
    pub message: Option<&'a str>,
}

impl<'a> ProducePartitionResponse<'a> {
    /// The batch was appended at `base_offset`.
    pub const fn appended(index: PartitionIndex, base_offset: Offset, log_start_offset: Offset) -> Self {
        ProducePartitionResponse {
            index,
            error: ErrorCode::None,
            base_offset,
            log_append_time: Timestamp::NONE,
            log_start_offset,
            record_errors: &[],
            error_message: None,
            current_leader: None,
        }
    }

    /// The batch was refused.
    pub const fn refused(index: PartitionIndex, error: ErrorCode, error_message: Option<&'a str>) -> Self {
        ProducePartitionResponse {
            error,
            error_message,
            ..ProducePartitionResponse::appended(index, Offset::NONE, Offset::NONE)
        }
    }
}

/// Writes a Produce response, front to back: [`begin`](ProduceResponseEncoder::begin), then for each topic
/// [`topic`](ProduceResponseEncoder::topic) and its partitions, then [`finish`](ProduceResponseEncoder::finish).
/// The counts given must be met: they are on the wire before what they count. Fields that the version does not have
/// are left out.
#[derive(Debug)]
pub struct ProduceResponseEncoder<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    version: i16,
    flexible: bool,
    topics_left: usize,
    partitions_left: usize,
}

impl<'o> ProduceResponseEncoder<'o> {
    /// Appends size prefix and header to `out`; `topic_count` topics will follow.
    pub fn begin(out: &'o mut Vec<u8>, version: i16, correlation_id: i32, topic_count: usize) -> Self {
        invariant!(API.serves(version), "Produce version {version}");
        let flexible = API.is_flexible(version);
        let start = begin_response(out, API, version, correlation_id);
        wire::put_length(out, flexible, Some(topic_count));
        ProduceResponseEncoder { out, start, version, flexible, topics_left: topic_count, partitions_left: 0 }
    }

    /// The next topic, named as the request named it; `partition_count` partitions will follow.
    #[inline]
    pub fn topic(&mut self, topic: Topic<'_>, partition_count: usize) {
        invariant!(self.partitions_left == 0 && self.topics_left > 0);
        self.topics_left -= 1;
        self.partitions_left = partition_count;
        wire::put_topic(self.out, self.flexible, self.version >= BY_ID_FROM, topic);
        wire::put_length(self.out, self.flexible, Some(partition_count));
        self.end_topic_if_done();
    }

    /// The next partition of the last topic.
    #[inline]
    pub fn partition(&mut self, partition: &ProducePartitionResponse<'_>) {
        invariant!(self.partitions_left > 0);
        self.partitions_left -= 1;
        let out = &mut *self.out;
        wire::put_i32(out, partition.index.0);
        wire::put_i16(out, partition.error.code());
        wire::put_i64(out, partition.base_offset.0);
        wire::put_i64(out, partition.log_append_time.0);
        if self.version >= 5 {
            wire::put_i64(out, partition.log_start_offset.0);
        }
        if self.version >= 8 {
            wire::put_length(out, self.flexible, Some(partition.record_errors.len()));
            for error in partition.record_errors {
                wire::put_i32(out, error.batch_index);
                wire::put_text(out, self.flexible, error.message);
                if self.flexible {
                    wire::put_uvarint(out, 0);
                }
            }
            wire::put_text(out, self.flexible, partition.error_message);
        }
        if self.flexible {
            match partition.current_leader.filter(|_| self.version >= 10) {
                None => wire::put_uvarint(out, 0),
                Some(leader) => {
                    wire::put_uvarint(out, 1);
                    wire::put_uvarint(out, 0);
                    wire::put_tagged_leader(out, leader);
                }
            }
        }
        self.end_topic_if_done();
    }

    /// Ends the response and patches its size. `endpoints` are written from version 10 on.
    pub fn finish(self, throttle_time_ms: i32, endpoints: &[NodeEndpoint<'_>]) {
        invariant!(self.partitions_left == 0 && self.topics_left == 0);
        wire::put_i32(self.out, throttle_time_ms);
        if self.flexible {
            wire::put_node_endpoints(self.out, if self.version >= 10 { endpoints } else { &[] });
        }
        end_response(self.out, self.start, 0);
    }

    #[inline]
    fn end_topic_if_done(&mut self) {
        if self.flexible && self.partitions_left == 0 {
            wire::put_uvarint(self.out, 0);
        }
    }
}
