//! The Fetch response: header pieces with gaps for the records.

use super::{API, BY_ID_FROM};
use crate::invariant;
use crate::model::id::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId};
use crate::protocol::encode::{begin_response, end_response};
use crate::protocol::error::ErrorCode;
use crate::protocol::wire::{self, LeaderIdAndEpoch, NodeEndpoint, Topic};

/// The answer for one partition, its record bytes excluded.
#[derive(Clone, Copy, Debug)]
pub struct FetchPartitionResponse<'a> {
    /// The partition.
    pub index: PartitionIndex,
    /// What went wrong, or none.
    pub error: ErrorCode,
    /// The high watermark, or [`Offset::NONE`].
    pub high_watermark: Offset,
    /// The last stable offset, or [`Offset::NONE`].
    pub last_stable_offset: Offset,
    /// The log start offset, or [`Offset::NONE`]. Version 5.
    pub log_start_offset: Offset,
    /// Transactions aborted within the records, for `read_committed`: producer and first offset. `None` (null) for
    /// `read_uncommitted`.
    pub aborted_transactions: Option<&'a [(ProducerId, Offset)]>,
    /// A closer replica, or -1. Version 11.
    pub preferred_read_replica: BrokerId,
    /// Where the follower's log stops to agree: epoch and its end offset. Version 12.
    pub diverging_epoch: Option<(LeaderEpoch, Offset)>,
    /// Who leads instead. Version 12.
    pub current_leader: Option<LeaderIdAndEpoch>,
}

impl FetchPartitionResponse<'_> {
    /// An answer without records: `error`, no offsets.
    pub const fn refused(index: PartitionIndex, error: ErrorCode) -> Self {
        FetchPartitionResponse {
            index,
            error,
            high_watermark: Offset::NONE,
            last_stable_offset: Offset::NONE,
            log_start_offset: Offset::NONE,
            aborted_transactions: None,
            preferred_read_replica: BrokerId(-1),
            diverging_epoch: None,
            current_leader: None,
        }
    }
}

/// Writes a Fetch response but for its record bytes: [`begin`](FetchResponseEncoder::begin), then for each topic
/// [`topic`](FetchResponseEncoder::topic) and its partitions, then [`finish`](FetchResponseEncoder::finish). The counts
/// given must be met: they are on the wire before what they count. Fields that the version does not have are left
/// out.
#[derive(Debug)]
pub struct FetchResponseEncoder<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    version: i16,
    flexible: bool,
    topics_left: usize,
    partitions_left: usize,
    records_size_bytes: usize,
}

/// What a whole response has to say about itself.
#[derive(Clone, Copy, Debug)]
pub struct FetchResponseHead {
    /// The request's version.
    pub version: i16,
    /// The request's correlation id.
    pub correlation_id: i32,
    /// How long the client was or will be held back.
    pub throttle_time_ms: i32,
    /// An error of the whole request. Version 7.
    pub error: ErrorCode,
    /// The fetch session, 0 for none. Version 7.
    pub session_id: i32,
    /// Topics that follow.
    pub topic_count: usize,
}

impl<'o> FetchResponseEncoder<'o> {
    /// Appends size prefix, header and the response's first fields to `out`; `head.topic_count` topics will follow.
    pub fn begin(out: &'o mut Vec<u8>, head: FetchResponseHead) -> Self {
        let version = head.version;
        invariant!(API.serves(version), "Fetch version {version}");
        let flexible = API.is_flexible(version);
        let start = begin_response(out, API, version, head.correlation_id);
        wire::put_i32(out, head.throttle_time_ms);
        if version >= 7 {
            wire::put_i16(out, head.error.code());
            wire::put_i32(out, head.session_id);
        }
        wire::put_length(out, flexible, Some(head.topic_count));
        FetchResponseEncoder {
            out,
            start,
            version,
            flexible,
            topics_left: head.topic_count,
            partitions_left: 0,
            records_size_bytes: 0,
        }
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

    /// The next partition of the last topic with `records_size_bytes` of records. Returns the gap: the position in
    /// the vector before which the records belong. An empty gap may be ignored.
    #[inline]
    pub fn partition(&mut self, partition: &FetchPartitionResponse<'_>, records_size_bytes: usize) -> usize {
        invariant!(self.partitions_left > 0);
        self.partitions_left -= 1;
        self.records_size_bytes += records_size_bytes;
        let out = &mut *self.out;
        wire::put_i32(out, partition.index.0);
        wire::put_i16(out, partition.error.code());
        wire::put_i64(out, partition.high_watermark.0);
        wire::put_i64(out, partition.last_stable_offset.0);
        if self.version >= 5 {
            wire::put_i64(out, partition.log_start_offset.0);
        }
        wire::put_length(out, self.flexible, partition.aborted_transactions.map(<[_]>::len));
        for (producer_id, first_offset) in partition.aborted_transactions.unwrap_or_default() {
            wire::put_i64(out, producer_id.0);
            wire::put_i64(out, first_offset.0);
            if self.flexible {
                wire::put_uvarint(out, 0);
            }
        }
        if self.version >= 11 {
            wire::put_i32(out, partition.preferred_read_replica.0);
        }
        // Kafka writes empty records as bytes of length 0, not as null.
        wire::put_length(out, self.flexible, Some(records_size_bytes));
        let gap = out.len();
        if self.flexible {
            let tagged =
                usize::from(partition.diverging_epoch.is_some()) + usize::from(partition.current_leader.is_some());
            wire::put_uvarint(out, tagged as u32);
            if let Some((epoch, end_offset)) = partition.diverging_epoch {
                wire::put_uvarint(out, 0);
                wire::put_uvarint(out, 13);
                wire::put_i32(out, epoch.0);
                wire::put_i64(out, end_offset.0);
                wire::put_uvarint(out, 0);
            }
            if let Some(leader) = partition.current_leader {
                wire::put_uvarint(out, 1);
                wire::put_tagged_leader(out, leader);
            }
        }
        self.end_topic_if_done();
        gap
    }

    /// Ends the response and patches its size, record bytes included. `endpoints` are written from version 16 on.
    /// Returns the bytes that the whole response takes on the wire: size prefix, what is in the vector, records.
    pub fn finish(self, endpoints: &[NodeEndpoint<'_>]) -> usize {
        invariant!(self.partitions_left == 0 && self.topics_left == 0);
        if self.flexible {
            wire::put_node_endpoints(self.out, if self.version >= 16 { endpoints } else { &[] });
        }
        end_response(self.out, self.start, self.records_size_bytes)
    }

    #[inline]
    fn end_topic_if_done(&mut self) {
        if self.flexible && self.partitions_left == 0 {
            wire::put_uvarint(self.out, 0);
        }
    }
}
