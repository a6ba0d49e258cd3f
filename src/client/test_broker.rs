//! A tiny broker in memory for the client's tests: real sockets on 127.0.0.1, several brokers, one topic `t`.
//!
//! It stores batches as they come, answers fetches at once, and does what a test tells it: move leaders, refuse, close
//! connections.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Decodable;

use super::cluster::{text, topic_name};
use crate::model::batch::{Header, stamp, validate};
use crate::model::id::{LeaderEpoch, Offset};
use crate::protocol::encode::{self, encode_response};
use crate::protocol::header::{self, RequestHeader};
use crate::protocol::{ApiKey, ErrorCode};

/// The topic's id.
pub const TOPIC_ID: uuid::Uuid = uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

/// What the brokers share.
#[derive(Default)]
pub struct State {
    /// Ports by broker, from id 1 on.
    ports: Vec<u16>,
    /// Leader of each partition of `t`.
    pub leaders: Vec<i32>,
    /// Batches of each partition, stamped.
    pub logs: BTreeMap<i32, Vec<Vec<u8>>>,
    /// Close so many connections instead of answering a Produce, after storing its batches.
    pub lose_produce_answers: usize,
    /// Requests seen, by API.
    pub seen: BTreeMap<i16, usize>,
    /// Answer ApiVersions with UNSUPPORTED_VERSION above this version.
    pub api_versions_max: Option<i16>,
    /// Claim this size for the next answer.
    pub lie_about_size: Option<i32>,
}

impl State {
    fn end(&self, partition: i32) -> i64 {
        let last = self.logs.get(&partition).and_then(|log| log.last());
        last.map_or(0, |batch| Header::parse(batch).expect("validated").next_offset().0)
    }

    /// Stores a batch, once per producer sequence.
    fn append(&mut self, partition: i32, batch: &[u8]) -> (ErrorCode, i64) {
        let Ok(header) = validate(batch) else { return (ErrorCode::CorruptMessage, -1) };
        let log = self.logs.entry(partition).or_default();
        let key = |h: &Header| (h.producer_id, h.base_sequence);
        if header.producer_id.0 >= 0
            && let Some(old) = log.iter().map(|b| Header::parse(b).expect("stored")).find(|h| key(h) == key(&header))
        {
            return (ErrorCode::None, old.base_offset.0);
        }
        let base = self.end(partition);
        let mut batch = batch.to_vec();
        stamp(&mut batch, Offset(base), LeaderEpoch(1));
        self.logs.entry(partition).or_default().push(batch);
        (ErrorCode::None, base)
    }
}

/// Brokers that run until this is dropped.
pub struct TestCluster {
    /// To look at and to change.
    pub state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl TestCluster {
    /// So many brokers; partition `p` of `t` is led by broker `p % brokers + 1`.
    pub fn start(broker_count: usize, partition_count: i32) -> TestCluster {
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let listeners: Vec<TcpListener> =
            (0..broker_count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        {
            let mut state = state.lock().unwrap();
            state.ports = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
            state.leaders = (0..partition_count).map(|p| p % broker_count as i32 + 1).collect();
        }
        for (at, listener) in listeners.into_iter().enumerate() {
            let (state, stop) = (state.clone(), stop.clone());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (state, stream) = (state.clone(), stream.expect("accepted"));
                    // A test that hangs is worse than one that fails.
                    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    thread::spawn(move || serve(at as i32 + 1, stream, &state));
                }
            });
        }
        TestCluster { state, stop }
    }

    /// The first broker's address.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.state.lock().unwrap().ports[0])
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for port in self.state.lock().unwrap().ports.clone() {
            let _ = TcpStream::connect(("127.0.0.1", port));
        }
    }
}

fn serve(id: i32, mut stream: TcpStream, state: &Mutex<State>) {
    loop {
        let mut prefix = [0; 4];
        if stream.read_exact(&mut prefix).is_err() {
            return;
        }
        let mut frame = vec![0; i32::from_be_bytes(prefix) as usize];
        stream.read_exact(&mut frame).unwrap();
        let Some(mut answer) = answer(id, &frame, &mut state.lock().unwrap()) else { return };
        if let Some(claimed) = state.lock().unwrap().lie_about_size.take() {
            answer[..4].copy_from_slice(&claimed.to_be_bytes());
        }
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// The answer, or `None` to close the connection.
fn answer(id: i32, frame: &[u8], state: &mut State) -> Option<Vec<u8>> {
    let request = header::parse(frame).expect("our client's header");
    let body = Bytes::copy_from_slice(&frame[request.body_offset..]);
    *state.seen.entry(request.api_key).or_default() += 1;
    let api = ApiKey::from_key(request.api_key).expect("an API of the table");
    Some(match api {
        ApiKey::ApiVersions if state.api_versions_max.is_some_and(|max| request.api_version > max) => {
            let mut out = Vec::new();
            encode::encode_unsupported_api_versions(&mut out, request.correlation_id);
            out
        }
        ApiKey::ApiVersions => {
            reply(&request, api, &ApiVersionsResponse::default().with_api_keys(encode::api_versions()))
        }
        ApiKey::Metadata => reply(&request, api, &metadata(state, &parse::<MetadataRequest>(body, &request))),
        ApiKey::InitProducerId => {
            reply(&request, api, &InitProducerIdResponse::default().with_producer_id(77.into()).with_producer_epoch(0))
        }
        ApiKey::Produce => {
            let produce = parse::<ProduceRequest>(body, &request);
            let response = store(id, state, &produce);
            if state.lose_produce_answers > 0 {
                state.lose_produce_answers -= 1;
                return None;
            }
            reply(&request, api, &response)
        }
        ApiKey::ListOffsets => reply(&request, api, &list_offsets(state, &parse::<ListOffsetsRequest>(body, &request))),
        ApiKey::Fetch => reply(&request, api, &fetch(id, state, &parse::<FetchRequest>(body, &request))),
        other => panic!("{other:?} is not served by the test broker"),
    })
}

fn parse<T: Decodable>(mut body: Bytes, request: &RequestHeader<'_>) -> T {
    T::decode(&mut body, request.api_version.min(if request.api_key == 2 { 10 } else { i16::MAX })).expect("our body")
}

fn reply<T: kafka_protocol::protocol::Encodable>(request: &RequestHeader<'_>, api: ApiKey, response: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_response(&mut out, api, request.api_version, request.correlation_id, response).expect("encodes");
    out
}

fn metadata(state: &State, request: &MetadataRequest) -> MetadataResponse {
    let brokers = state
        .ports
        .iter()
        .enumerate()
        .map(|(at, port)| {
            MetadataResponseBroker::default()
                .with_node_id((at as i32 + 1).into())
                .with_host(text("127.0.0.1"))
                .with_port(i32::from(*port))
        })
        .collect();
    let names: Vec<String> = match &request.topics {
        None => vec!["t".into()],
        Some(topics) => topics.iter().filter_map(|t| t.name.as_ref().map(|n| n.0.to_string())).collect(),
    };
    let topics = names
        .iter()
        .map(|name| {
            let topic = MetadataResponseTopic::default().with_name(Some(topic_name(name)));
            if name != "t" {
                return topic.with_error_code(ErrorCode::UnknownTopicOrPartition.code());
            }
            let partitions = state
                .leaders
                .iter()
                .enumerate()
                .map(|(p, leader)| {
                    MetadataResponsePartition::default()
                        .with_partition_index(p as i32)
                        .with_leader_id((*leader).into())
                        .with_replica_nodes(vec![(*leader).into()])
                })
                .collect();
            topic.with_topic_id(TOPIC_ID).with_partitions(partitions)
        })
        .collect();
    MetadataResponse::default().with_brokers(brokers).with_controller_id(1.into()).with_topics(topics)
}

fn store(id: i32, state: &mut State, request: &ProduceRequest) -> ProduceResponse {
    let topics = request
        .topic_data
        .iter()
        .map(|topic| {
            let partitions = topic
                .partition_data
                .iter()
                .map(|data| {
                    let (error, base) = match state.leaders[data.index as usize] == id {
                        true => state.append(data.index, data.records.as_ref().expect("records")),
                        false => (ErrorCode::NotLeaderOrFollower, -1),
                    };
                    PartitionProduceResponse::default()
                        .with_index(data.index)
                        .with_error_code(error.code())
                        .with_base_offset(base)
                })
                .collect();
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_topic_id(topic.topic_id)
                .with_partition_responses(partitions)
        })
        .collect();
    ProduceResponse::default().with_responses(topics)
}

fn list_offsets(state: &State, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|p| {
                    let offset = if p.timestamp == -1 { state.end(p.partition_index) } else { 0 };
                    ListOffsetsPartitionResponse::default().with_partition_index(p.partition_index).with_offset(offset)
                })
                .collect();
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
        })
        .collect();
    ListOffsetsResponse::default().with_topics(topics)
}

/// One batch per partition and answer, so that a reader needs many.
fn fetch(id: i32, state: &State, request: &FetchRequest) -> FetchResponse {
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|p| {
                    let data = PartitionData::default().with_partition_index(p.partition);
                    if state.leaders[p.partition as usize] != id {
                        return data.with_error_code(ErrorCode::NotLeaderOrFollower.code()).with_records(None);
                    }
                    let batch = state
                        .logs
                        .get(&p.partition)
                        .into_iter()
                        .flatten()
                        .find(|batch| Header::parse(batch).expect("stored").next_offset().0 > p.fetch_offset);
                    let end = state.end(p.partition);
                    data.with_high_watermark(end)
                        .with_last_stable_offset(end)
                        .with_records(Some(batch.map(|b| Bytes::copy_from_slice(b)).unwrap_or_default()))
                })
                .collect();
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions)
        })
        .collect();
    FetchResponse::default().with_responses(topics)
}
