//! Requests of the clients with a topic of their own, and what their answers come to.

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::admin::topic_name;
use super::link::decode;
use super::scene::error_of;
use super::violation::{Checker, Violation, violated};
use crate::protocol::ErrorCode;

/// The version of a Fetch here.
pub const FETCH: i16 = 16;

/// A topic with these configs.
pub fn create(name: &str, partition_count: usize, configs: &[(&'static str, &str)]) -> CreateTopicsRequest {
    let configs = configs.iter().map(|(name, value)| {
        let value = Some(StrBytes::from_string((*value).to_owned()));
        CreatableTopicConfig::default().with_name(StrBytes::from_static_str(name)).with_value(value)
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partition_count as i32)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000)
}

/// Whether a topic is there, and where.
pub fn metadata(name: &str) -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false)
}

/// What is there of a partition from an offset on, in version [`FETCH`].
pub fn fetch(topic: Uuid, partition: usize, offset: i64, partition_max_bytes: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition as i32)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(partition_max_bytes);
    let topic = FetchTopic::default().with_topic_id(topic).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(200_000)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// The answer for the one partition of a fetch.
pub fn fetched(frame: Bytes) -> Result<PartitionData, Violation> {
    let mut response = decode::<FetchRequest>(frame, FETCH)?;
    match response.responses.pop().and_then(|mut topic| topic.partitions.pop()) {
        Some(data) => Ok(data),
        None => violated(Checker::Answers, "a fetch without its partition".into()),
    }
}

/// The answer for the one partition of a produce request: the error and the base offset.
pub fn produced(frame: Bytes, version: i16) -> Result<(ErrorCode, i64), Violation> {
    let response = decode::<ProduceRequest>(frame, version)?;
    match response.responses.first().and_then(|topic| topic.partition_responses.first()) {
        Some(answer) => Ok((error_of(answer.error_code)?, answer.base_offset)),
        None => violated(Checker::Answers, "a produce answer without its partition".into()),
    }
}
