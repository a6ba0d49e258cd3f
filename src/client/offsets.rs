//! ListOffsets: where a partition begins and ends, and which offset belongs to a time.

use std::collections::BTreeMap;

use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

use super::cluster::{Client, topic_name};
use super::error::ClientError;
use crate::base::time::Timestamp;
use crate::model::id::{LeaderEpoch, Offset};

/// Kafka's special timestamp for the offset after the last record.
pub const LATEST: Timestamp = Timestamp(-1);
/// Kafka's special timestamp for the first offset that is kept.
pub const EARLIEST: Timestamp = Timestamp(-2);
/// Newer versions than this add tiers of storage.
const VERSION_MAX: i16 = 7;

/// What consumers may see of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationLevel {
    /// Everything up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset, without aborted records.
    ReadCommitted,
}

impl IsolationLevel {
    pub(super) fn code(self) -> i8 {
        match self {
            IsolationLevel::ReadUncommitted => 0,
            IsolationLevel::ReadCommitted => 1,
        }
    }
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAt {
    /// The offset; [`Offset::NONE`] if no record has that time or a later one.
    pub offset: Offset,
    /// The record's timestamp, for searches by time.
    pub timestamp: Timestamp,
    /// The epoch of the record's leader.
    pub leader_epoch: LeaderEpoch,
}

impl Client {
    /// Asks the partitions' leaders. Retriable refusals are retried.
    pub fn list_offsets(
        &mut self,
        topic: &str,
        wanted: &[(i32, Timestamp)],
        isolation: IsolationLevel,
    ) -> Result<BTreeMap<i32, OffsetAt>, ClientError> {
        let mut found = BTreeMap::new();
        if !self.info().topics.contains_key(topic) {
            self.topic(topic, false)?;
        }
        self.retry(Some(topic), |client| {
            let mut by_leader: BTreeMap<i32, Vec<(i32, Timestamp)>> = BTreeMap::new();
            for (partition, timestamp) in wanted.iter().filter(|(partition, _)| !found.contains_key(partition)) {
                let leader = client.leader(topic, *partition)?;
                by_leader.entry(leader.0).or_default().push((*partition, *timestamp));
            }
            for (leader, partitions) in by_leader {
                ask(client, topic, crate::model::id::BrokerId(leader), &partitions, isolation, &mut found)?;
            }
            Ok(())
        })?;
        Ok(found)
    }
}

fn ask(
    client: &mut Client,
    topic: &str,
    leader: crate::model::id::BrokerId,
    partitions: &[(i32, Timestamp)],
    isolation: IsolationLevel,
    found: &mut BTreeMap<i32, OffsetAt>,
) -> Result<(), ClientError> {
    let entries = partitions
        .iter()
        .map(|(partition, timestamp)| {
            ListOffsetsPartition::default()
                .with_partition_index(*partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp.0)
        })
        .collect();
    let build = |version: i16| {
        let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(Vec::clone(&entries));
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        if version >= 2 { request.with_isolation_level(isolation.code()) } else { request }
    };
    let response = client.call_broker(leader, VERSION_MAX, build)?;
    for answer in response.topics.iter().flat_map(|t| &t.partitions) {
        ClientError::check(answer.error_code, None, || {
            format!("offsets of partition {} of topic {topic}", answer.partition_index)
        })?;
        found.insert(
            answer.partition_index,
            OffsetAt {
                offset: Offset(answer.offset),
                timestamp: Timestamp(answer.timestamp),
                leader_epoch: LeaderEpoch(answer.leader_epoch),
            },
        );
    }
    match partitions.iter().find(|(partition, _)| !found.contains_key(partition)) {
        Some((partition, _)) => Err(ClientError::Request(format!("ListOffsets left out partition {partition}"))),
        None => Ok(()),
    }
}
