//! Clients that misbehave: nobody else notices, and what they took is given back.

use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest};

use super::client::{
    Client, FETCH_BY_ID, METADATA, PRODUCE_BY_ID, PRODUCE_BY_NAME, batch, fetch_request, partition_of, produce_request,
    topic_name,
};
use super::load::Load;
use super::node::{Spec, TestNode};
use crate::base::rng::Rng;
use crate::io::sim::{SimClient, World, WorldOptions};
use crate::model::id::TopicId;

/// Drives some misbehaving clients beside a load, lets them go, and compares what is held before and after.
fn beside_a_load(seed: u64, mut misbehave: impl FnMut(&mut TestNode, &mut Rng) -> Vec<SimClient>) {
    let world = World::new(seed, WorldOptions::default());
    let mut node = TestNode::start(&world, &Spec::new(2).set("socket.request.max.bytes", 4 << 20));
    let mut client = Client::connect(&node, 0);
    let id = client.create(&mut node, "t", 4, &[]);
    let mut load = Load::new(seed);
    load.add_topic(id, 4, None);
    let mut rng = Rng::new(seed);
    assert!(load.connect(&mut node) && load.run(&mut node, 20));
    let quiet = |node: &mut TestNode| {
        // Quiet connections and logs give their memory back by and by.
        node.run_for(Duration::from_secs(60));
        (node.used_bytes(), node.shards.iter().map(|s| s.broker().connection_count()).collect::<Vec<_>>())
    };
    let before = quiet(&mut node);
    for _ in 0..3 {
        let bad = misbehave(&mut node, &mut rng);
        assert!(load.run(&mut node, 20), "seed {seed}");
        drop(bad);
        assert!(load.run(&mut node, 5), "seed {seed}");
    }
    assert_eq!(quiet(&mut node), before, "seed {seed}: memory in use and connections");
    assert!(load.verify(&mut node));
}

#[test]
fn garbage_ends_its_own_connection_only() {
    for seed in 0..20 {
        beside_a_load(seed, |node, rng| {
            (0..10)
                .map(|_| {
                    let link = node.world.connect(node.addresses[rng.in_range(0..2) as usize]).expect("it listens");
                    let mut bytes = vec![0; rng.in_range(1..2_000) as usize];
                    rng.fill(&mut bytes);
                    if rng.chance(1, 2) {
                        // A frame that is none inside.
                        let size = (bytes.len() as u32).saturating_sub(4);
                        bytes.splice(0..4.min(bytes.len()), size.to_be_bytes());
                    }
                    link.send(&bytes);
                    link
                })
                .collect()
        });
    }
}

#[test]
fn changed_requests_end_their_own_connection_only() {
    // Sound requests with a few bytes changed: most of them are decoded a long way.
    for seed in 0..40 {
        beside_a_load(seed, |node, rng| {
            let mut links = Vec::new();
            for _ in 0..10 {
                let mut client = Client::connect(node, rng.in_range(0..2) as usize);
                let topic = TopicId(uuid::Uuid::from_u128(7));
                let mut bytes = match rng.in_range(0..4) {
                    0 => client.encode(METADATA, &MetadataRequest::default().with_topics(None)),
                    1 => client.encode(FETCH_BY_ID, &fetch_request(topic, 0, 0).with_session_epoch(0)),
                    2 => client.encode(super::client::CREATE, &super::client::create_request("bad", 3, &[("x", "y")])),
                    _ => {
                        let records = batch(node.world.now().wall, None, &[b"z"]);
                        client.encode(PRODUCE_BY_ID, &produce_request(topic, 0, records))
                    }
                };
                for _ in 0..rng.in_range(1..4) {
                    let at = rng.in_range(4..bytes.len() as u64) as usize;
                    bytes[at] = rng.next_u64() as u8;
                }
                client.link.send(&bytes);
                links.push(client.link);
            }
            node.run_for(Duration::from_millis(50));
            links
        });
    }
}

#[test]
fn half_frames_and_silent_readers_hold_only_what_is_theirs() {
    for seed in 0..20 {
        beside_a_load(seed, |node, rng| {
            let mut links = Vec::new();
            for _ in 0..6 {
                let link = node.world.connect(node.addresses[rng.in_range(0..2) as usize]).expect("it listens");
                // Claims up to 3 MiB, sends a little of it.
                link.send(&(rng.in_range(100..3 << 20) as u32).to_be_bytes());
                link.send(&vec![0; rng.in_range(0..100) as usize]);
                links.push(link);
            }
            for shard in 0..2 {
                // Asks for everything again and again and reads nothing.
                let mut client = Client::connect(node, shard);
                client.link.set_window(1);
                for _ in 0..50 {
                    client.send(METADATA, &MetadataRequest::default().with_topics(None));
                }
                links.push(client.link);
            }
            node.run_for(Duration::from_millis(rng.in_range(1..200)));
            links
        });
    }
}

#[test]
fn little_memory_slows_down_and_loses_nothing() {
    // Writers whose requests together are many times the pool, on disorderly shards.
    for seed in 0..5 {
        let world = World::new(seed, WorldOptions::default());
        let mut spec = Spec::new(2).set("log.segment.bytes", 1 << 20);
        (spec.pool_size_bytes, spec.tail_size_bytes, spec.is_disorderly) = (2 << 20, 256 << 10, true);
        let mut node = TestNode::start(&world, &spec);
        let mut admin = Client::connect(&node, 0);
        let id = admin.create(&mut node, "t", 8, &[]);
        let metadata = admin.topic(&mut node, "t");
        let value = vec![9u8; 100_000];
        let mut clients: Vec<Client> = (0..8)
            .map(|index| {
                let leader = metadata.topics[0].partitions[index].leader_id.0 as usize - 1;
                let mut client = Client::connect(&node, leader);
                for _ in 0..6 {
                    let bytes = batch(world.now().wall, None, &[&value]);
                    client.send(PRODUCE_BY_ID, &produce_request(id, index as i32, bytes));
                }
                client
            })
            .collect();
        for (index, client) in clients.iter_mut().enumerate() {
            for expected in 0..6 {
                let answer = client.receive::<ProduceRequest>(&mut node, PRODUCE_BY_ID).expect("answered");
                let answer = partition_of(answer);
                assert_eq!((answer.error_code, answer.base_offset), (0, expected), "seed {seed}: {index}");
            }
        }
    }
}

#[test]
fn every_request_is_answered_or_its_connection_ends() {
    // Many kinds of request pipelined by many clients on disorderly shards, topics coming and going; then counted.
    for seed in 0..20 {
        let world = World::new(seed, WorldOptions::harsh());
        let mut spec = Spec::new(1 + (seed % 3) as u16).set("auto.create.topics.enable", "true");
        spec.is_disorderly = true;
        let mut node = TestNode::start(&world, &spec);
        let mut rng = Rng::new(seed);
        let mut clients: Vec<(Client, usize)> =
            (0..10).map(|at| (Client::connect(&node, at % node.shards.len()), 0)).collect();
        let mut asked = 0;
        let done = node.run_until(|node| {
            for (client, answered) in &mut clients {
                while client.take_frame().is_some() {
                    *answered += 1;
                }
                assert!(!client.is_over(), "seed {seed}: a connection has ended");
                if asked < 400 && rng.chance(1, 3) {
                    asked += 1;
                    ask_something(client, node, &mut rng);
                }
            }
            asked == 400 && clients.iter().map(|(_, answered)| answered).sum::<usize>() == 400
        });
        assert!(done);
    }
}

/// One of the requests that clients have.
fn ask_something(client: &mut Client, node: &TestNode, rng: &mut Rng) {
    let name = ["a", "b", "c"][rng.in_range(0..3) as usize];
    let records = batch(node.world.now().wall, None, &[b"something"]);
    let metadata = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    match rng.in_range(0..6) {
        0 => client.send(METADATA, &MetadataRequest::default().with_topics(None)),
        1 => client.send(
            METADATA,
            &MetadataRequest::default().with_topics(Some(vec![metadata])).with_allow_auto_topic_creation(true),
        ),
        2 => client.send(super::client::CREATE, &super::client::create_request(name, 3, &[])),
        3 => client.send(super::client::DELETE, &super::client::delete_request(name)),
        4 => {
            let mut request = fetch_request(TopicId::NONE, 0, 0).with_max_wait_ms(100);
            request.topics[0].topic = topic_name(name);
            client.send(12, &request);
        }
        _ => {
            let mut request = produce_request(TopicId::NONE, rng.in_range(0..3) as i32, records);
            request.topic_data[0].name = topic_name(name);
            client.send(PRODUCE_BY_NAME, &request);
        }
    }
}

#[test]
fn bytes_one_at_a_time_are_a_request_in_the_end() {
    for seed in 0..5 {
        let world = World::new(seed, WorldOptions { segment_bytes_max: 1, ..WorldOptions::default() });
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", 1, &[]);
        let bytes = batch(world.now().wall, None, &[b"one at a time"]);
        for expected in 0..3 {
            let request = client.encode(PRODUCE_BY_ID, &produce_request(id, 0, bytes.clone()));
            let (head, last) = request.split_at(request.len() - 1);
            for byte in head.chunks(1) {
                client.link.send(byte);
                node.step();
            }
            node.run_for(Duration::from_millis(100));
            client.link.send(last);
            client.expect_one();
            let answer = client.receive::<ProduceRequest>(&mut node, PRODUCE_BY_ID).expect("answered");
            assert_eq!(partition_of(answer).base_offset, expected, "seed {seed}");
        }
    }
}

#[test]
fn a_stopped_catch_up_reader_does_not_stop_a_live_one() {
    // Readers that ask for megabytes and take nothing, on one shard with one that reads along.
    for seed in 0..3 {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &Spec::new(1).set("log.segment.bytes", 128 * 1024));
        let mut writer = Client::connect(&node, 0);
        let id = writer.create(&mut node, "t", 1, &[]);
        let value = vec![1u8; 50_000];
        for _ in 0..60 {
            let bytes = batch(world.now().wall, None, &[&value]);
            assert_eq!(writer.produce(&mut node, id, 0, bytes).error_code, 0);
        }
        let stopped: Vec<Client> = (0..100)
            .map(|_| {
                let mut client = Client::connect(&node, 0);
                client.link.set_window(10_000);
                for offset in 0..3 {
                    client.send(FETCH_BY_ID, &fetch_request(id, 0, offset));
                }
                client
            })
            .collect();
        let mut reader = Client::connect(&node, 0);
        for offset in 60..80 {
            reader.send(FETCH_BY_ID, &fetch_request(id, 0, offset).with_max_wait_ms(10_000));
            let bytes = batch(world.now().wall, None, &[&value]);
            let started = world.now().monotonic;
            assert_eq!(writer.produce(&mut node, id, 0, bytes).error_code, 0, "seed {seed}");
            let response = reader.receive::<FetchRequest>(&mut node, FETCH_BY_ID).expect("answered");
            let records = response.responses[0].partitions[0].records.clone().unwrap_or_default();
            assert!(records.len() > 50_000, "seed {seed}");
            assert!(world.now().monotonic - started < Duration::from_secs(2), "seed {seed}");
        }
        drop(stopped);
        let (found, _) = reader.read_all(&mut node, id, 0, 0).expect("answered").expect("readable");
        assert_eq!(found.len(), 80, "seed {seed}");
    }
}
