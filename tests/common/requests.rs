//! Single requests of chosen versions, to a chosen shard: what a well-behaved client never sends.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest, MetadataRequest,
    MetadataResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use ottla::base::time::Timestamp;
use ottla::client::{Connection, ConnectionOptions};
use ottla::model::batch::Header;
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::protocol::ErrorCode;
use uuid::Uuid;

/// The newest version of each API that these requests use.
pub const PRODUCE: i16 = 13;
/// See [`PRODUCE`].
pub const FETCH: i16 = 18;

/// A topic as both kinds of versions name it, with its partitions' leaders and epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// Leader, leader epoch and replica count of each partition.
    pub partitions: Vec<(i32, i32, usize)>,
}

/// A connection to one shard.
pub fn connect(address: &str) -> Connection {
    Connection::open(address, &ConnectionOptions::default()).expect("a connection")
}

/// A batch without compression or producer.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    for value in values {
        builder.push(Timestamp(1_700_000_000_000), None, Some(value), &[]);
    }
    builder.build().into()
}

/// Metadata of one topic, or of all; nothing is created.
pub fn metadata(connection: &mut Connection, topic: Option<&str>) -> MetadataResponse {
    let topics = topic.map(|name| vec![MetadataRequestTopic::default().with_name(Some(topic_name(name)))]);
    let request = MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
    connection.call(12, &request).expect("Metadata is answered")
}

/// A topic that exists.
pub fn topic(connection: &mut Connection, name: &str) -> Topic {
    let response = metadata(connection, Some(name));
    let topic = &response.topics[0];
    assert_eq!(topic.error_code, 0, "topic {name}");
    let mut partitions: Vec<_> = topic.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    let of = |p: &&kafka_protocol::messages::metadata_response::MetadataResponsePartition| {
        (p.leader_id.0, p.leader_epoch, p.replica_nodes.len())
    };
    Topic { name: name.into(), id: topic.topic_id, partitions: partitions.iter().map(of).collect() }
}

/// One batch to one partition; the whole answer.
pub fn produce(
    connection: &mut Connection,
    version: i16,
    topic: &Topic,
    partition: i32,
    records: Bytes,
) -> ProduceResponse {
    connection.call(version, &produce_request(version, topic, partition, records)).expect("Produce is answered")
}

/// The request of [`produce`].
pub fn produce_request(version: i16, topic: &Topic, partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let mut topic_data = TopicProduceData::default().with_partition_data(vec![data]);
    match version >= 13 {
        true => topic_data.topic_id = topic.id,
        false => topic_data.name = topic_name(&topic.name),
    }
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic_data])
}

/// The only partition of an answer.
pub fn produced(response: &ProduceResponse) -> &PartitionProduceResponse {
    &response.responses[0].partition_responses[0]
}

/// One batch to one partition in the newest version: base offset or error.
pub fn append(connection: &mut Connection, topic: &Topic, partition: i32, records: Bytes) -> Result<i64, ErrorCode> {
    let response = produce(connection, PRODUCE, topic, partition, records);
    let partition = produced(&response);
    match error_of(partition.error_code) {
        ErrorCode::None => Ok(partition.base_offset),
        error => Err(error),
    }
}

/// How a Fetch waits and what it may return.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `min_bytes`
    pub min_bytes: i32,
    /// `max_wait_ms`
    pub wait_ms_max: i32,
    /// `max_bytes`, of the request and of each partition.
    pub max_bytes: i32,
}

/// Whatever there is, at once.
pub const AT_ONCE: Limits = Limits { min_bytes: 0, wait_ms_max: 0, max_bytes: 64 << 20 };

/// A Fetch outside of sessions.
pub fn fetch_request(version: i16, topic: &Topic, from: &[(i32, i64)], limits: Limits) -> FetchRequest {
    let partitions = from.iter().map(|(partition, offset)| {
        FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(limits.max_bytes)
    });
    let mut fetch_topic = FetchTopic::default().with_partitions(partitions.collect());
    match version >= 13 {
        true => fetch_topic.topic_id = topic.id,
        false => fetch_topic.topic = topic_name(&topic.name),
    }
    let mut request = FetchRequest::default()
        .with_min_bytes(limits.min_bytes)
        .with_max_wait_ms(limits.wait_ms_max)
        .with_max_bytes(limits.max_bytes)
        .with_session_epoch(-1)
        .with_topics(vec![fetch_topic]);
    if version < 15 {
        request.replica_id = (-1).into();
    }
    request
}

/// Sends a Fetch and waits for its answer.
pub fn fetch(
    connection: &mut Connection,
    version: i16,
    topic: &Topic,
    from: &[(i32, i64)],
    limits: Limits,
) -> FetchResponse {
    connection.call(version, &fetch_request(version, topic, from, limits)).expect("Fetch is answered")
}

/// The only partition of an answer.
pub fn fetched(response: &FetchResponse) -> &PartitionData {
    assert_eq!(response.error_code, 0);
    &response.responses[0].partitions[0]
}

/// Everything from an offset to the end of a partition, as the broker has it.
pub fn fetch_to_end(connection: &mut Connection, topic: &Topic, partition: i32, offset: i64) -> Vec<u8> {
    let (mut bytes, mut offset) = (Vec::new(), offset);
    loop {
        let response = fetch(connection, FETCH, topic, &[(partition, offset)], AT_ONCE);
        let data = fetched(&response);
        assert_eq!(error_of(data.error_code), ErrorCode::None);
        let records = data.records.as_deref().unwrap_or_default();
        if offset == data.high_watermark {
            assert!(records.is_empty());
            return bytes;
        }
        offset = headers(records).last().expect("there is more below the high watermark").next_offset().0;
        bytes.extend_from_slice(records);
    }
}

/// The headers of whole batches.
pub fn headers(mut bytes: &[u8]) -> Vec<Header> {
    let mut headers = Vec::new();
    while !bytes.is_empty() {
        let header = Header::parse(bytes).expect("a whole header");
        bytes = bytes.get(header.size_bytes..).expect("a whole batch");
        headers.push(header);
    }
    headers
}

/// Bytes of record batches without what brokers stamp into them: base offset and leader epoch.
pub fn without_stamps(bytes: &[u8]) -> Vec<u8> {
    let mut plain = bytes.to_vec();
    let mut position = 0;
    for header in headers(bytes) {
        plain[position..position + 8].fill(0);
        plain[position + 12..position + 16].fill(0);
        position += header.size_bytes;
    }
    plain
}

/// ListOffsets of one partition.
pub fn list_offsets(
    connection: &mut Connection,
    version: i16,
    topic: &str,
    partition: i32,
    timestamp: i64,
) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let response = connection.call(version, &request).expect("ListOffsets is answered");
    response.topics[0].partitions[0].clone()
}

/// A producer id, or the next epoch of one.
pub fn init_producer_id(connection: &mut Connection, own: Option<(i64, i16)>) -> InitProducerIdResponse {
    let (id, epoch) = own.unwrap_or((-1, -1));
    // The codec's default is an empty transactional id, not none.
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(id.into())
        .with_producer_epoch(epoch);
    connection.call(4, &request).expect("InitProducerId is answered")
}

/// The error behind a code.
pub fn error_of(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or_else(|| panic!("error code {code}"))
}

/// A name as the codec wants it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}
