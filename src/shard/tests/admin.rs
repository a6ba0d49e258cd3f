//! What administration survives: settings, growth and deleted records, cut at any write; and when each is answered.

use std::time::Duration;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    CreatePartitionsRequest, DeleteRecordsRequest, DeleteRecordsResponse, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, batch, topic_name};
use super::node::{Spec, TestNode};
use crate::base::rng::Rng;
use crate::io::sim::{Fault, OpKind, Rule, Tear, World, WorldOptions};
use crate::model::id::TopicId;
use crate::protocol::ErrorCode;

const NAME: &str = "t";

fn spec(shard_count: u16) -> Spec {
    Spec::new(shard_count).set("log.segment.bytes", 8 * 1024)
}

fn retention_request(value: i64) -> IncrementalAlterConfigsRequest {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str("retention.ms"))
        .with_value(Some(StrBytes::from_string(value.to_string())));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str(NAME))
        .with_configs(vec![config]);
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

fn growth_request(count: i32) -> CreatePartitionsRequest {
    let topic = CreatePartitionsTopic::default().with_name(topic_name(NAME)).with_count(count).with_assignments(None);
    CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000)
}

pub fn deletion_request(name: &str, partition: i32, offset: i64, timeout_ms: i32) -> DeleteRecordsRequest {
    let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(topic_name(name)).with_partitions(vec![partition]);
    DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms)
}

/// The only partition's log start or its error.
pub fn deleted(response: DeleteRecordsResponse) -> (i64, ErrorCode) {
    let partition = &response.topics[0].partitions[0];
    (partition.low_watermark, ErrorCode::from_code(partition.error_code).expect("a known code"))
}

fn described_retention(client: &mut Client, node: &mut TestNode) -> i64 {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str(NAME))
        .with_configuration_keys(Some(vec![StrBytes::from_static_str("retention.ms")]));
    let response = client.call(node, 4, &DescribeConfigsRequest::default().with_resources(vec![resource]));
    response.results[0].configs[0].value.as_deref().expect("a value").parse().expect("a number")
}

/// The shard that leads each partition, as one shard tells it.
fn leaders(client: &mut Client, node: &mut TestNode) -> Option<Vec<usize>> {
    let metadata = client.metadata(node)?;
    let mut partitions: Vec<_> = metadata.topics[0].partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    Some(partitions.iter().map(|partition| partition.leader_id.0 as usize - 1).collect())
}

/// What was asked for when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unsure {
    Nothing,
    Retention(i64),
    Growth(i32),
    Deletion(usize, i64),
}

/// What a client was told.
struct Told {
    id: TopicId,
    retention_ms: i64,
    /// Log start and acknowledged end of each partition.
    parts: Vec<(i64, i64)>,
    unsure: Unsure,
}

impl Told {
    /// Changes, grows, writes and deletes by the seed; `None` once the power is cut.
    fn play(&mut self, node: &mut TestNode, rng: &mut Rng, rounds: u32) -> Option<()> {
        let mut clients: Vec<Client> = (0..node.shards.len()).map(|shard| Client::connect(node, shard)).collect();
        for _ in 0..rounds {
            let any = rng.in_range(0..clients.len() as u64) as usize;
            let leaders = leaders(&mut clients[any], node)?;
            let index = rng.in_range(0..leaders.len() as u64) as usize;
            let leader = &mut clients[leaders[index]];
            self.unsure = Unsure::Nothing;
            match rng.in_range(0..10) {
                0..2 => {
                    let value = self.retention_ms + 1;
                    self.unsure = Unsure::Retention(value);
                    let response = clients[any].try_call(node, 1, &retention_request(value))?;
                    assert_eq!(response.responses[0].error_code, 0);
                    self.retention_ms = value;
                }
                2 if leaders.len() < 8 => {
                    let count = leaders.len() as i32 + 1;
                    self.unsure = Unsure::Growth(count);
                    let response = clients[any].try_call(node, 3, &growth_request(count))?;
                    assert_eq!(response.results[0].error_code, 0);
                    self.parts.push((0, 0));
                }
                3..6 => {
                    let (start, end) = self.parts[index];
                    let to = rng.in_range(start as u64..=end as u64) as i64;
                    self.unsure = Unsure::Deletion(index, to);
                    let answer = leader.try_call(node, 2, &deletion_request(NAME, index as i32, to, 60_000))?;
                    assert_eq!(deleted(answer), (to, ErrorCode::None), "seed {}", node.world.seed());
                    self.parts[index].0 = to;
                }
                _ => {
                    let bytes = batch(node.world.now().wall, None, &[&[7; 900], b"two"]);
                    let request = super::client::produce_request(self.id, index as i32, bytes);
                    let answer = leader.try_call(node, super::client::PRODUCE_BY_ID, &request)?;
                    let answer = super::client::partition_of(answer);
                    assert_eq!(answer.error_code, 0, "seed {}: {answer:?}", node.world.seed());
                    self.parts[index].1 = answer.base_offset + 2;
                }
            }
        }
        self.unsure = Unsure::Nothing;
        Some(())
    }

    /// What was told holds at every shard; what was under way happened or did not.
    fn compare(&mut self, node: &mut TestNode) {
        let seed = node.world.seed();
        let mut clients: Vec<Client> = (0..node.shards.len()).map(|shard| Client::connect(node, shard)).collect();
        for client in &mut clients {
            let retention_ms = described_retention(client, node);
            if self.unsure == Unsure::Retention(retention_ms) {
                self.retention_ms = retention_ms;
            }
            assert_eq!(retention_ms, self.retention_ms, "seed {seed}");
            let count = leaders(client, node).expect("no cut").len();
            if self.unsure == Unsure::Growth(count as i32) && self.parts.len() < count {
                self.parts.push((0, 0));
            }
            assert_eq!(count, self.parts.len(), "seed {seed}");
        }
        let leaders = leaders(&mut clients[0], node).expect("no cut");
        for (index, leader) in leaders.into_iter().enumerate() {
            let client = &mut clients[leader];
            let start = client.try_log_start(node, self.id, index as i32).expect("no cut");
            if self.unsure == Unsure::Deletion(index, start) {
                self.parts[index].0 = start;
            }
            let told = &mut self.parts[index];
            assert_eq!(start, told.0, "seed {seed}: partition {index}, {:?}{}", self.unsure, node.describe_disk());
            let (found, data) = client.read_all(node, self.id, index as i32, start).expect("no cut").expect("readable");
            let first = found.first().map_or(data.high_watermark, |(header, _)| header.base_offset.0);
            assert!(first <= start, "seed {seed}: partition {index}");
            assert!(data.high_watermark >= told.1, "seed {seed}: partition {index} has lost records");
            told.1 = data.high_watermark;
        }
        self.unsure = Unsure::Nothing;
    }
}

/// Plays, cut at a write if one is given, and compares after two more starts, with a play between them. Returns the
/// writes of the first play.
fn cut_and_compare(seed: u64, cut_at: Option<u64>, shards: [u16; 3]) -> u64 {
    let world = World::new(seed, WorldOptions::default());
    let mut rng = Rng::new(seed);
    let mut node = TestNode::start(&world, &spec(shards[0]));
    let id = Client::connect(&node, 0).create(&mut node, NAME, 2, &[("retention.ms", "1000000000")]);
    let mut told = Told { id, retention_ms: 1_000_000_000, parts: vec![(0, 0); 2], unsure: Unsure::Nothing };
    let before = world.write_count();
    if let Some(cut_at) = cut_at {
        world.cut_power_at_write(before + cut_at, Tear::Random);
    }
    let whole = told.play(&mut node, &mut rng, 60).is_some();
    let writes = world.write_count() - before;
    if whole {
        world.power_cut();
    }
    drop(node);
    world.clear_write_hooks();
    for shard_count in &shards[1..] {
        let mut node = TestNode::start(&world, &spec(*shard_count));
        told.compare(&mut node);
        told.play(&mut node, &mut rng, 15).expect("no cut");
        told.compare(&mut node);
        world.power_cut();
    }
    writes
}

#[test]
fn what_was_altered_grown_or_deleted_survives_a_power_cut_at_any_write() {
    // Counts the writes of a whole play, then cuts the power at every k-th of them.
    for (seed, shards) in [(21, [1, 1, 2]), (22, [3, 2, 3]), (23, [2, 3, 1])] {
        let writes = cut_and_compare(seed, None, shards);
        let step = (writes / 40).max(1);
        for cut_at in (seed % step..writes).step_by(step as usize) {
            cut_and_compare(seed, Some(cut_at), shards);
        }
    }
}

/// One partition of ten records on one shard.
fn ten_records(seed: u64) -> (World, TestNode, Client, TopicId) {
    let world = World::new(seed, WorldOptions::calm());
    let mut node = TestNode::start(&world, &spec(1));
    let mut client = Client::connect(&node, 0);
    let id = client.create(&mut node, NAME, 1, &[]);
    for _ in 0..10 {
        let bytes = batch(world.now().wall, None, &[b"one"]);
        assert_eq!(client.produce(&mut node, id, 0, bytes).error_code, 0);
    }
    (world, node, client, id)
}

#[test]
fn deleted_records_are_there_for_everybody_until_their_deletion_is_durable() {
    // The checkpoint takes ten seconds: nobody is told meanwhile, not the one who asked, nor readers.
    let (world, mut node, mut client, id) = ten_records(1);
    world.inject(Rule::new(OpKind::Write, Fault::Delay(Duration::from_secs(10))).path("/t-0/checkpoint").times(1));
    client.send(2, &deletion_request(NAME, 0, 5, 60_000));
    assert!(node.run_for(Duration::from_secs(8)));
    assert!(client.take_frame().is_none(), "it is not durable");
    let mut reader = Client::connect(&node, 0);
    assert_eq!(reader.try_log_start(&mut node, id, 0), Some(0));
    let (found, data) = reader.read_all(&mut node, id, 0, 0).expect("no cut").expect("readable");
    assert_eq!((found.len(), data.log_start_offset), (10, 0));
    let answer = client.receive::<DeleteRecordsRequest>(&mut node, 2).expect("it is answered");
    assert_eq!(deleted(answer), (5, ErrorCode::None));
    assert_eq!(reader.try_log_start(&mut node, id, 0), Some(5));
    world.power_cut();
    drop(node);
    let mut node = TestNode::start(&world, &spec(1));
    let mut reader = Client::connect(&node, 0);
    assert_eq!(reader.try_log_start(&mut node, id, 0), Some(5));
}

#[test]
fn a_deletion_that_cannot_be_made_durable_times_out_and_happens_when_it_can() {
    let (world, mut node, mut client, id) = ten_records(2);
    world.inject(Rule::new(OpKind::Write, Fault::Error(libc::ENOSPC)).path("/t-0/checkpoint"));
    let answer = client.call(&mut node, 2, &deletion_request(NAME, 0, 5, 1_000));
    assert_eq!(deleted(answer), (-1, ErrorCode::RequestTimedOut));
    assert_eq!(client.try_log_start(&mut node, id, 0), Some(0));
    // A client that would wait for weeks does not wait longer than the broker's bound.
    let started = world.now().monotonic;
    let answer = client.call(&mut node, 2, &deletion_request(NAME, 0, -1, i32::MAX));
    assert_eq!(deleted(answer), (-1, ErrorCode::RequestTimedOut));
    assert!(world.now().monotonic.since(started) <= Duration::from_secs(70));
    world.clear_faults();
    assert!(node.run_for(Duration::from_secs(12)));
    assert_eq!(client.try_log_start(&mut node, id, 0), Some(10));
}

#[test]
fn a_deletion_whose_partition_fails_or_goes_is_told_so() {
    let (world, mut node, mut client, _) = ten_records(3);
    world.inject(Rule::new(OpKind::Write, Fault::Error(libc::EIO)).path("/t-0/checkpoint").times(1));
    let answer = client.call(&mut node, 2, &deletion_request(NAME, 0, 5, 60_000));
    assert_eq!(deleted(answer), (-1, ErrorCode::KafkaStorageError));

    let (world, mut node, mut client, _) = ten_records(4);
    world.inject(Rule::new(OpKind::Write, Fault::Delay(Duration::from_secs(10))).path("/t-0/checkpoint").times(1));
    client.send(2, &deletion_request(NAME, 0, 5, 60_000));
    assert!(node.run_for(Duration::from_millis(100)));
    assert_eq!(Client::connect(&node, 0).try_delete(&mut node, NAME), Some(ErrorCode::None));
    let answer = client.receive::<DeleteRecordsRequest>(&mut node, 2).expect("it is answered");
    assert_eq!(deleted(answer), (-1, ErrorCode::UnknownTopicOrPartition));
}

#[test]
fn deletions_at_once_and_from_clients_that_leave_are_all_settled() {
    // Several requests wait for one checkpoint, for different offsets; one client does not wait for its answer.
    let (world, mut node, client, id) = ten_records(5);
    world.inject(Rule::new(OpKind::Write, Fault::Delay(Duration::from_secs(5))).path("/t-0/checkpoint").times(2));
    let mut waiting: Vec<Client> = (0..4).map(|_| Client::connect(&node, 0)).collect();
    for (client, offset) in waiting.iter_mut().zip([3, 7, 2, -1]) {
        client.send(2, &deletion_request(NAME, 0, offset, 60_000));
        assert!(node.run_for(Duration::from_millis(10)));
    }
    drop(waiting.remove(1));
    drop(client);
    for client in &mut waiting {
        let answer = client.receive::<DeleteRecordsRequest>(&mut node, 2).expect("it is answered");
        let (low_watermark, code) = deleted(answer);
        assert!(code == ErrorCode::None && low_watermark >= 2, "{low_watermark} {code:?}");
    }
    assert_eq!(Client::connect(&node, 0).try_log_start(&mut node, id, 0), Some(10));
}
