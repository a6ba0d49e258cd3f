//! What the sink answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Answer, Part, SinkOptions, owned};
use crate::base::rng::Rng;
use crate::base::time::Timestamp;
use crate::bench::workload::Workload;
use crate::io::{Pool, Slice};
use crate::model::batch::Header;
use crate::model::id::Offset;
use crate::protocol::api::Lookup;
use crate::protocol::decode::decode;
use crate::protocol::encode;
use crate::protocol::fetch::{
    FetchPartitionResponse, FetchRequest, FetchResponseEncoder, FetchResponseHead, FetchStep,
};
use crate::protocol::produce::{ProducePartitionResponse, ProduceRequest, ProduceResponseEncoder, ProduceStep};
use crate::protocol::{ApiKey, ErrorCode, header};

/// The only broker.
const BROKER: i32 = 1;
/// ListOffsets' special timestamp for the first offset.
const EARLIEST: i64 = -2;

/// Topics, and the block of batches that every partition holds.
pub(super) struct Kafka {
    address: SocketAddr,
    partition_count: i32,
    topics: BTreeMap<String, (uuid::Uuid, i32)>,
    block: Slice,
    batch_size_bytes: usize,
    batch_record_count: usize,
}

impl Kafka {
    pub(super) fn new(address: SocketAddr, options: &SinkOptions, pool: &Pool) -> anyhow::Result<Kafka> {
        let workload = Workload {
            batch_size_bytes: options.fetch_batch_size_bytes,
            record_size_bytes: 1024,
            ..Workload::default()
        };
        let mut batch = workload.batch(&mut Rng::new(1), Timestamp(1_700_000_000_000));
        let batch_record_count = Header::parse(&batch).context("a batch")?.record_count as usize;
        let count = (options.fetch_size_bytes / batch.len()).max(1);
        let mut memory = pool.take(count * batch.len()).context("memory for the block that is fetched")?;
        for index in 0..count {
            let offset = (index * batch_record_count) as i64;
            batch[..8].copy_from_slice(&offset.to_be_bytes());
            memory[index * batch.len()..][..batch.len()].copy_from_slice(&batch);
        }
        let block = memory.freeze(count * batch.len());
        Ok(Kafka {
            address,
            partition_count: options.partition_count,
            topics: BTreeMap::new(),
            block,
            batch_size_bytes: batch.len(),
            batch_record_count,
        })
    }

    /// What every partition holds.
    pub(super) fn block(&self) -> &Slice {
        &self.block
    }

    fn high_watermark(&self) -> Offset {
        Offset((self.block.len() / self.batch_size_bytes * self.batch_record_count) as i64)
    }

    /// Answers one request.
    #[inline]
    pub(super) fn request(&mut self, frame: &[u8], mut answer: Answer<'_>, splice: bool) -> anyhow::Result<()> {
        let header = header::parse(frame)?;
        let (version, id, body) = (header.api_version, header.correlation_id, header.body_offset);
        match header.lookup {
            Lookup::Served(ApiKey::Produce) => self.produce(frame, version, id, body, &mut answer),
            Lookup::Served(ApiKey::Fetch) => self.fetch(frame, version, id, body, &mut answer, splice),
            Lookup::Served(api) => {
                let bytes = self.others(api, frame, version, id, body)?;
                answer.bytes(bytes);
                Ok(())
            }
            Lookup::UnknownVersion(ApiKey::ApiVersions) => {
                let mut out = Vec::new();
                encode::encode_unsupported_api_versions(&mut out, id);
                answer.bytes(out);
                Ok(())
            }
            _ => bail!("an API that the sink does not have"),
        }
    }

    #[inline]
    fn produce(
        &mut self,
        frame: &[u8],
        version: i16,
        id: i32,
        body: usize,
        answer: &mut Answer<'_>,
    ) -> anyhow::Result<()> {
        let request = ProduceRequest::parse(frame, body, version)?;
        let mut steps = request.steps();
        while let Some(step) = steps.next(frame) {
            if let ProduceStep::Partition { records: Some(records), .. } = step {
                answer.store(&frame[records]);
            }
        }
        if request.acks == 0 {
            return Ok(());
        }
        answer.produced(|out| {
            let mut encoder = ProduceResponseEncoder::begin(out, version, id, request.topic_count);
            let mut steps = request.steps();
            while let Some(step) = steps.next(frame) {
                match step {
                    ProduceStep::Topic { topic, partition_count } => {
                        encoder.topic(topic.resolve(frame), partition_count);
                    }
                    ProduceStep::Partition { index, .. } => {
                        encoder.partition(&ProducePartitionResponse::appended(index, Offset(0), Offset(0)));
                    }
                }
            }
            encoder.finish(0, &[]);
        });
        Ok(())
    }

    fn fetch(
        &mut self,
        frame: &[u8],
        version: i16,
        id: i32,
        body: usize,
        answer: &mut Answer<'_>,
        splice: bool,
    ) -> anyhow::Result<()> {
        let request = FetchRequest::parse(frame, body, version)?;
        let mut out = Vec::new();
        let head = FetchResponseHead {
            version,
            correlation_id: id,
            throttle_time_ms: 0,
            error: ErrorCode::None,
            session_id: 0,
            topic_count: request.topic_count,
        };
        let mut encoder = FetchResponseEncoder::begin(&mut out, head);
        let mut steps = request.steps();
        let mut gaps = Vec::new();
        let mut left_bytes = request.max_bytes.max(0) as usize;
        while let Some(step) = steps.next(frame) {
            match step {
                FetchStep::Topic { topic, partition_count } => encoder.topic(topic.resolve(frame), partition_count),
                FetchStep::Partition(partition) => {
                    let first = partition.fetch_offset.0.max(0) as usize / self.batch_record_count;
                    let start = (first * self.batch_size_bytes).min(self.block.len());
                    let most = left_bytes.min(partition.max_bytes.max(0) as usize).min(self.block.len() - start);
                    let whole = most / self.batch_size_bytes * self.batch_size_bytes;
                    // The first batch is given whatever the bounds are.
                    let size_bytes = match whole {
                        0 if gaps.is_empty() => self.batch_size_bytes.min(self.block.len() - start),
                        whole => whole,
                    };
                    left_bytes = left_bytes.saturating_sub(size_bytes);
                    let response = FetchPartitionResponse {
                        high_watermark: self.high_watermark(),
                        last_stable_offset: self.high_watermark(),
                        log_start_offset: Offset(0),
                        ..FetchPartitionResponse::refused(partition.index, ErrorCode::None)
                    };
                    let gap = encoder.partition(&response, size_bytes);
                    if size_bytes > 0 {
                        gaps.push((gap, start, size_bytes));
                    }
                }
            }
        }
        encoder.finish(&[]);
        let parts = &mut answer.connection.parts;
        let mut at = 0;
        for (gap, start, size_bytes) in gaps {
            parts.push_back(Part::Bytes(out[at..gap].to_vec()));
            parts.push_back(match splice {
                true => Part::File { offset: start as u64, length_bytes: size_bytes as u32 },
                false => Part::Memory(self.block.slice(start..start + size_bytes)),
            });
            at = gap;
        }
        parts.push_back(Part::Bytes(out.split_off(at)));
        Ok(())
    }

    fn others(&mut self, api: ApiKey, frame: &[u8], version: i16, id: i32, body: usize) -> anyhow::Result<Vec<u8>> {
        let body = owned(&frame[body..]);
        match api {
            ApiKey::ApiVersions => {
                let response = ApiVersionsResponse::default().with_api_keys(encode::api_versions());
                encoded(api, version, id, &response)
            }
            ApiKey::Metadata => {
                let request: MetadataRequest = decode(body, version)?;
                encoded(api, version, id, &self.metadata(&request))
            }
            ApiKey::CreateTopics => {
                let request: CreateTopicsRequest = decode(body, version)?;
                let mut results = Vec::new();
                for topic in &request.topics {
                    let count = if topic.num_partitions > 0 { topic.num_partitions } else { self.partition_count };
                    let topic_id = topic_id(&topic.name);
                    self.topics.insert(topic.name.to_string(), (topic_id, count));
                    let mut result = CreatableTopicResult::default().with_name(topic.name.clone());
                    if version >= 7 {
                        result.topic_id = topic_id;
                    }
                    if version >= 5 {
                        (result.num_partitions, result.replication_factor) = (count, 1);
                    }
                    results.push(result);
                }
                encoded(api, version, id, &CreateTopicsResponse::default().with_topics(results))
            }
            ApiKey::ListOffsets => {
                let request: ListOffsetsRequest = decode(body, version)?;
                let topics = request.topics.into_iter().map(|topic| {
                    let partitions = topic.partitions.iter().map(|partition| {
                        let offset = if partition.timestamp == EARLIEST { 0 } else { self.high_watermark().0 };
                        let mut answer = ListOffsetsPartitionResponse::default()
                            .with_partition_index(partition.partition_index)
                            .with_timestamp(-1)
                            .with_offset(offset);
                        if version >= 4 {
                            answer.leader_epoch = 0;
                        }
                        answer
                    });
                    ListOffsetsTopicResponse::default()
                        .with_name(topic.name.clone())
                        .with_partitions(partitions.collect())
                });
                encoded(api, version, id, &ListOffsetsResponse::default().with_topics(topics.collect()))
            }
            _ => bail!("an API that the sink does not have"),
        }
    }

    fn metadata(&mut self, request: &MetadataRequest) -> MetadataResponse {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BROKER.into())
            .with_host(StrBytes::from_string(self.address.ip().to_string()))
            .with_port(i32::from(self.address.port()));
        let default_count = self.partition_count;
        let asked = request.topics.iter().flatten().filter_map(|topic| topic.name.clone());
        let topics = asked.map(|name| {
            let (id, count) = *self.topics.entry(name.to_string()).or_insert_with(|| (topic_id(&name), default_count));
            let partitions = (0..count).map(|index| {
                MetadataResponsePartition::default()
                    .with_partition_index(index)
                    .with_leader_id(BROKER.into())
                    .with_leader_epoch(0)
                    .with_replica_nodes(vec![BROKER.into()])
                    .with_isr_nodes(vec![BROKER.into()])
            });
            MetadataResponseTopic::default()
                .with_name(Some(name))
                .with_topic_id(id)
                .with_partitions(partitions.collect())
        });
        MetadataResponse::default()
            .with_topics(topics.collect())
            .with_brokers(vec![broker])
            .with_cluster_id(Some(StrBytes::from_static_str("sink")))
            .with_controller_id(BROKER.into())
    }
}

/// The same for the same name, whoever asks.
fn topic_id(name: &TopicName) -> uuid::Uuid {
    let mut seed = 0xcbf2_9ce4_8422_2325u64;
    for byte in name.bytes() {
        seed = (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut rng = Rng::new(seed);
    uuid::Uuid::from_u128(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64() | 1))
}

fn encoded(api: ApiKey, version: i16, id: i32, response: &impl Encodable) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    encode::encode_response(&mut out, api, version, id, response)?;
    Ok(out)
}
