//! What a request costs in allocations where nothing is new: a shard on a real ring, a client that allocates nothing,
//! and an allocator that counts.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{CreateTopicsRequest, FetchRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use ottla::base::time::Timestamp;
use ottla::base::units::MIB;
use ottla::handlers::endpoints::Endpoint;
use ottla::handlers::options::BrokerOptions;
use ottla::io::uring::RingOptions;
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::model::configs::BrokerConfig;
use ottla::model::id::NodeId;
use ottla::protocol::encode::encode_request;
use ottla::shard::node::{Node, NodeOptions};
use ottla::storage::layout::Layout;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Requests that are sent before their answers are read.
const AHEAD: usize = 16;

fn name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

/// A connection that sends the same frame again and again.
struct Client {
    stream: TcpStream,
    answers: Vec<u8>,
}

impl Client {
    fn send_all(&mut self, frames: &[u8]) {
        self.stream.write_all(frames).expect("the broker takes it");
    }

    /// Reads whole answers; the greatest fits.
    fn receive(&mut self, count: usize) -> usize {
        let mut last = 0;
        for _ in 0..count {
            let mut size = [0; 4];
            self.stream.read_exact(&mut size).expect("an answer");
            last = u32::from_be_bytes(size) as usize;
            self.stream.read_exact(&mut self.answers[..last]).expect("a whole answer");
        }
        last
    }

    /// Allocations of the process for each request of so many rounds, after as many that are not counted.
    fn allocations_each(&mut self, frame: &[u8], rounds: usize) -> f64 {
        let frames = frame.repeat(AHEAD);
        for _ in 0..rounds {
            self.send_all(&frames);
            self.receive(AHEAD);
        }
        let region = Region::new(ALLOCATOR);
        for _ in 0..rounds {
            self.send_all(&frames);
            self.receive(AHEAD);
        }
        let counted = region.change();
        (counted.allocations + counted.reallocations) as f64 / (rounds * AHEAD) as f64
    }
}

fn start(dir: &std::path::Path) -> Node {
    let config = BrokerConfig::default();
    Node::start(NodeOptions {
        broker: BrokerOptions {
            node: NodeId(0),
            node_name: "test".into(),
            fetch_max_bytes: config.fetch_max_bytes(1),
            config,
            layout: Layout::new(dir),
            shard_count: 1,
            pool_size_bytes: 64 * MIB,
            tail_size_bytes: 16 * MIB,
            splice_size_bytes_min: 32 * 1024,
            reuses_segments: true,
            open_file_count_max: u64::MAX,
            stall_threshold: Duration::from_secs(10),
        },
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        advertise: vec![Endpoint { host: "127.0.0.1".into(), port: 0 }],
        ring: RingOptions::default(),
        cpus: Vec::new(),
        seed: 1,
    })
    .expect("it starts")
}

#[test]
fn a_produce_and_a_fetch_allocate_next_to_nothing() {
    // One test: what another one did at the same time would be counted too.
    let dir = tempfile::tempdir().expect("a directory");
    let node = start(dir.path());
    let stream = TcpStream::connect(("127.0.0.1", node.reports()[0].endpoint.port)).expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let mut client = Client { stream, answers: vec![0; MIB] };

    let topic = CreatableTopic::default().with_name(name("t")).with_num_partitions(1).with_replication_factor(-1);
    let mut frame = Vec::new();
    let create = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    encode_request(&mut frame, 5, 1, None, &create).expect("it fits");
    client.send_all(&frame);
    client.receive(1);

    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(Timestamp(1_760_000_000_000), None, Some(&[7; 180]), &[]);
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(builder.build().into()));
    let topic = TopicProduceData::default().with_name(name("t")).with_partition_data(vec![partition]);
    let produce = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
    let mut frame = Vec::new();
    encode_request(&mut frame, 9, 1, None, &produce).expect("it fits");
    let produced = client.allocations_each(&frame, 300);

    let partition = FetchPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_fetch_offset(5)
        .with_partition_max_bytes(300);
    let topic = FetchTopic::default().with_topic(name("t")).with_partitions(vec![partition]);
    let fetch = FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(MIB as i32)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let mut frame = Vec::new();
    encode_request(&mut frame, 12, 1, None, &fetch).expect("it fits");
    client.send_all(&frame);
    assert!(client.receive(1) > 250, "it carries records");
    let fetched = client.allocations_each(&frame, 300);

    println!("allocations: {produced:.3} for a Produce, {fetched:.3} for a Fetch");
    assert!(produced <= PRODUCE_MAX, "{produced} for each Produce");
    assert!(fetched <= FETCH_MAX, "{fetched} for each Fetch");
    drop(client);
    node.stop();
}

/// Answers of one turn share a send; what is left are the jobs of a log that grows.
const PRODUCE_MAX: f64 = 0.25;
/// The task, its list of parts, the plan's ranges, the answer.
const FETCH_MAX: f64 = 12.0;
