//! A Kafka client on the simulated world: frames by ottla's own encoders over a connection driven by hand.
//!
//! It checks what every client may rely on: answers come in the order of requests, with their correlation ids.

use std::collections::VecDeque;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, FetchResponse, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};

use super::node::TestNode;
use crate::base::time::Timestamp;
use crate::io::sim::SimClient;
use crate::model::batch::{self, Header};
use crate::model::builder::BatchBuilder;
use crate::model::compression::Codec;
use crate::model::id::{ProducerEpoch, ProducerId, Sequence, TopicId};
use crate::protocol::ErrorCode;
use crate::protocol::decode::decode_response;
use crate::protocol::encode::encode_request;

pub const METADATA: i16 = 12;
pub const CREATE: i16 = 7;
pub const DELETE: i16 = 6;
pub const PRODUCE_BY_ID: i16 = 13;
pub const PRODUCE_BY_NAME: i16 = 11;
pub const FETCH_BY_ID: i16 = 16;

/// Batches with their headers and what the last answer said, or the answer that refused.
pub type ReadAll = Result<(Vec<(Header, Vec<u8>)>, PartitionData), PartitionData>;

/// One connection.
pub struct Client {
    pub link: SimClient,
    inbox: Vec<u8>,
    next_correlation: i32,
    under_way: VecDeque<i32>,
}

impl Client {
    /// Connects to a shard.
    pub fn connect(node: &TestNode, shard: usize) -> Client {
        let link = node.world.connect(node.addresses[shard]).expect("it listens");
        Client { link, inbox: Vec::new(), next_correlation: 1, under_way: VecDeque::new() }
    }

    /// A request as it goes over the wire.
    pub fn encode<R: Request>(&mut self, version: i16, request: &R) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_request(&mut bytes, version, self.next_correlation, Some("sim"), request).expect("it fits the version");
        self.next_correlation += 1;
        bytes
    }

    /// Sends a request that will be answered.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.under_way.push_back(self.next_correlation);
        let bytes = self.encode(version, request);
        self.link.send(&bytes);
    }

    /// What was sent by hand since the last [`encode`](Self::encode) will be answered.
    pub fn expect_one(&mut self) {
        self.under_way.push_back(self.next_correlation - 1);
    }

    /// The next answer, if it is complete.
    pub fn take_frame(&mut self) -> Option<Bytes> {
        self.inbox.extend(self.link.recv_available());
        let size = u32::from_be_bytes(*self.inbox.first_chunk()?) as usize;
        if self.inbox.len() < 4 + size {
            return None;
        }
        let frame = self.inbox.drain(..4 + size).skip(4).collect::<Vec<u8>>();
        let expected = self.under_way.pop_front().expect("an answer to a question");
        assert_eq!(i32::from_be_bytes(*frame.first_chunk().expect("a header")), expected, "answers come in order");
        Some(frame.into())
    }

    /// The next answer, if it is complete, decoded.
    pub fn take<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        self.take_frame().map(|frame| decode_response::<R>(frame, version).expect("an answer of this version").1)
    }

    /// True once nothing more will come.
    pub fn is_over(&self) -> bool {
        self.link.is_ended() && self.link.available_bytes() == 0
    }

    /// Waits for the next answer; `None` if the connection ends first.
    pub fn receive<R: Request>(&mut self, node: &mut TestNode, version: i16) -> Option<R::Response> {
        let mut frame = None;
        node.run_until(|_| {
            frame = self.take_frame();
            frame.is_some() || self.is_over()
        });
        frame.map(|frame| decode_response::<R>(frame, version).expect("an answer of this version").1)
    }

    /// Asks and waits.
    pub fn try_call<R: Request>(&mut self, node: &mut TestNode, version: i16, request: &R) -> Option<R::Response> {
        self.send(version, request);
        self.receive::<R>(node, version)
    }

    /// Asks and waits where nothing may go wrong.
    pub fn call<R: Request>(&mut self, node: &mut TestNode, version: i16, request: &R) -> R::Response {
        let seed = node.world.seed();
        self.try_call(node, version, request).unwrap_or_else(|| panic!("seed {seed}: the connection ended"))
    }

    /// Creates a topic; its id if that was answered without an error.
    pub fn try_create(
        &mut self,
        node: &mut TestNode,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Option<Result<TopicId, ErrorCode>> {
        let response = self.try_call(node, CREATE, &create_request(name, partitions, configs))?;
        let topic = &response.topics[0];
        Some(match ErrorCode::from_code(topic.error_code) {
            Some(ErrorCode::None) => Ok(TopicId(topic.topic_id)),
            other => Err(other.expect("a known code")),
        })
    }

    /// Creates a topic where nothing may go wrong.
    pub fn create(&mut self, node: &mut TestNode, name: &str, partitions: i32, configs: &[(&str, &str)]) -> TopicId {
        self.try_create(node, name, partitions, configs).expect("answered").expect("created")
    }

    /// Deletes a topic.
    pub fn try_delete(&mut self, node: &mut TestNode, name: &str) -> Option<ErrorCode> {
        let response = self.try_call(node, DELETE, &delete_request(name))?;
        Some(ErrorCode::from_code(response.responses[0].error_code).expect("a known code"))
    }

    /// Everything that this shard knows.
    pub fn metadata(&mut self, node: &mut TestNode) -> Option<MetadataResponse> {
        self.try_call(node, METADATA, &MetadataRequest::default().with_topics(None))
    }

    /// Where a partition begins: told by name, for which the metadata is asked.
    pub fn try_log_start(&mut self, node: &mut TestNode, topic: TopicId, index: i32) -> Option<i64> {
        let metadata = self.metadata(node)?;
        let found = metadata.topics.into_iter().find(|found| found.topic_id == topic.0).expect("it is listed");
        let partition = ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_current_leader_epoch(-1)
            .with_timestamp(-2);
        let topic =
            ListOffsetsTopic::default().with_name(found.name.expect("it has a name")).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let response = self.try_call(node, 7, &request)?;
        let answer = &response.topics[0].partitions[0];
        assert_eq!(answer.error_code, 0, "{answer:?}");
        Some(answer.offset)
    }

    /// One topic as this shard knows it.
    pub fn topic(&mut self, node: &mut TestNode, name: &str) -> MetadataResponse {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        self.call(node, METADATA, &MetadataRequest::default().with_topics(Some(vec![topic])))
    }

    /// A producer id.
    pub fn try_producer(&mut self, node: &mut TestNode) -> Option<ProducerId> {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let response = self.try_call(node, 4, &request)?;
        assert_eq!(response.error_code, 0);
        Some(ProducerId(response.producer_id.0))
    }

    /// Appends one batch with acks=all.
    pub fn produce(
        &mut self,
        node: &mut TestNode,
        topic: TopicId,
        index: i32,
        batch: Vec<u8>,
    ) -> PartitionProduceResponse {
        let response = self.call(node, PRODUCE_BY_ID, &produce_request(topic, index, batch));
        partition_of(response)
    }

    /// One Fetch of one partition, without a session.
    pub fn fetch(&mut self, node: &mut TestNode, request: &FetchRequest) -> Option<PartitionData> {
        let response: FetchResponse = self.try_call(node, FETCH_BY_ID, request)?;
        assert_eq!(response.error_code, 0, "{response:?}");
        Some(response.responses.into_iter().next()?.partitions.remove(0))
    }

    /// Every batch from `offset` to the high watermark, and what the last answer said.
    pub fn read_all(&mut self, node: &mut TestNode, topic: TopicId, index: i32, mut offset: i64) -> Option<ReadAll> {
        let mut found = Vec::new();
        loop {
            let data = self.fetch(node, &fetch_request(topic, index, offset).with_max_bytes(200_000))?;
            if data.error_code != 0 {
                return Some(Err(data));
            }
            if offset >= data.high_watermark {
                return Some(Ok((found, data)));
            }
            let records = data.records.clone().unwrap_or_default();
            let before = offset;
            for (header, bytes) in batch::batches(&records) {
                batch::validate(bytes).expect("a sound batch");
                offset = header.next_offset().0;
                found.push((header, bytes.to_vec()));
            }
            assert!(offset > before, "seed {}: nothing at {before} below {}", node.world.seed(), data.high_watermark);
        }
    }
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub fn create_request(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreateTopicsRequest {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string((*name).to_owned()))
            .with_value(Some(StrBytes::from_string((*value).to_owned())))
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(configs.collect());
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000)
}

pub fn delete_request(name: &str) -> DeleteTopicsRequest {
    let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
    DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000)
}

pub fn produce_request(topic: TopicId, index: i32, batch: Vec<u8>) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(index).with_records(Some(batch.into()));
    let topic = TopicProduceData::default().with_topic_id(topic.0).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// The only partition of an answer.
pub fn partition_of(mut response: ProduceResponse) -> PartitionProduceResponse {
    response.responses.remove(0).partition_responses.remove(0)
}

pub fn fetch_request(topic: TopicId, index: i32, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(index)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(100_000);
    let topic = FetchTopic::default().with_topic_id(topic.0).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// A batch of these values.
pub fn batch(now: Timestamp, producer: Option<(ProducerId, i32)>, values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(id, ProducerEpoch(0), Sequence(sequence));
    }
    for value in values {
        builder.push(now, None, Some(value), &[]);
    }
    builder.build()
}
