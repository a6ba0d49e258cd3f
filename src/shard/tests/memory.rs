//! What clients hold together: answers that they do not take, fetches that wait, places among the reads from disk.

use std::time::Duration;

use kafka_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest};

use super::client::{
    Client, FETCH_BY_ID, METADATA, PRODUCE_BY_ID, batch, fetch_request, partition_of, produce_request,
};
use super::node::{Spec, TestNode};
use crate::base::units::{KIB, MIB};
use crate::io::sim::{Latency, World, WorldOptions};
use crate::model::id::TopicId;
use crate::model::limits::{ANSWERS_POOL_SHARE, FETCH_TASKS_POOL_SHARE};

/// One shard with little memory.
fn small(seed: u64, pool_size_bytes: usize) -> (World, TestNode) {
    let world = World::new(seed, WorldOptions::default());
    let mut spec = Spec::new(1);
    (spec.pool_size_bytes, spec.tail_size_bytes) = (pool_size_bytes, pool_size_bytes / 2);
    let node = TestNode::start(&world, &spec);
    (world, node)
}

/// A live reader and a writer of the last partition, for so many rounds, each of which must not take long. Returns the
/// most that answers held meanwhile.
fn live_rounds(node: &mut TestNode, id: TopicId, index: i32, from: i64, count: i64) -> u64 {
    let seed = node.world.seed();
    let (mut reader, mut writer) = (Client::connect(node, 0), Client::connect(node, 0));
    let mut most = 0;
    for offset in from..from + count {
        let started = node.world.now().monotonic;
        reader.send(FETCH_BY_ID, &fetch_request(id, index, offset).with_max_wait_ms(500));
        let bytes = batch(node.world.now().wall, None, &[&[3; 20_000]]);
        writer.send(PRODUCE_BY_ID, &produce_request(id, index, bytes));
        let (mut is_written, mut read) = (false, 0);
        let done = node.run_until(|node| {
            most = most.max(node.shards[0].broker().answer_bytes());
            if let Some(response) = writer.take::<ProduceRequest>(PRODUCE_BY_ID) {
                assert_eq!(partition_of(response).error_code, 0, "seed {seed}");
                is_written = true;
            }
            if let Some(response) = reader.take::<FetchRequest>(FETCH_BY_ID) {
                read = response.responses[0].partitions[0].records.as_ref().map_or(0, |records| records.len());
                if read == 0 {
                    reader.send(FETCH_BY_ID, &fetch_request(id, index, offset).with_max_wait_ms(500));
                }
            }
            is_written && read > 0
        });
        assert!(done);
        let took = node.world.now().monotonic - started;
        assert!(took < Duration::from_secs(10), "seed {seed}: round {offset} took {took:?}");
    }
    most
}

#[test]
fn answers_that_nobody_takes_stay_within_their_share_and_live_clients_go_on() {
    // 200 clients that ask for what is in memory, two requests ahead, each for other partitions, and take nothing;
    // every fourth asks for the metadata instead. Their answers would fill the memory five times.
    const PARTITIONS: i32 = 100;
    for seed in 0..3 {
        let (world, mut node) = small(seed, 8 * MIB);
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", PARTITIONS + 1, &[]);
        for index in 0..PARTITIONS {
            let bytes = batch(world.now().wall, None, &[&[1; 30_000]]);
            assert_eq!(client.produce(&mut node, id, index, bytes).error_code, 0);
        }
        let stopped: Vec<Client> = (0..200)
            .map(|number| {
                let mut client = Client::connect(&node, 0);
                client.link.set_window(1);
                for ahead in 0..3 {
                    match number % 4 {
                        0 => client.send(METADATA, &MetadataRequest::default().with_topics(None)),
                        _ => client.send(FETCH_BY_ID, &fetch_request(id, (number * 3 + ahead) % PARTITIONS, 0)),
                    }
                }
                client
            })
            .collect();
        let most = live_rounds(&mut node, id, PARTITIONS, 0, 30);
        // A quarter more is kept for live clients; one answer may pass it.
        let max = 8 * MIB / ANSWERS_POOL_SHARE / 4 * 5 + 128 * KIB;
        assert!(most > MIB as u64 / 2 && most <= max as u64, "seed {seed}: {most} of {max}");
        drop(stopped);
        node.run_for(Duration::from_secs(5));
        assert_eq!(node.shards[0].broker().answer_bytes(), 0, "seed {seed}");
    }
}

#[test]
fn where_answers_hold_all_the_memory_clients_that_stall_are_closed_and_others_are_served() {
    // Batches so large that a few answers are all there is room for.
    for seed in 0..3 {
        let (world, mut node) = small(seed, 8 * MIB);
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", 9, &[("max.message.bytes", "1000000")]);
        for index in 0..8 {
            let bytes = batch(world.now().wall, None, &[&[1; 600_000]]);
            assert_eq!(client.produce(&mut node, id, index, bytes).error_code, 0);
        }
        let stopped: Vec<Client> = (0..24)
            .map(|number| {
                let mut client = Client::connect(&node, 0);
                client.link.set_window(1);
                client.send(FETCH_BY_ID, &fetch_request(id, number % 8, 0));
                client
            })
            .collect();
        live_rounds(&mut node, id, 8, 0, 5);
        node.run_for(Duration::from_secs(20));
        assert!(node.shards[0].broker().counters.room_waits > 0, "seed {seed}");
        let closed = stopped.iter().filter(|client| client.link.is_ended()).count();
        assert!(closed > 0, "seed {seed}: nobody made room");
        live_rounds(&mut node, id, 8, 5, 5);
        drop(stopped);
    }
}

#[test]
fn fetches_that_wait_stay_within_their_share_and_all_are_answered() {
    // Ten clients send 200 long polls ahead each; together they would take eight times the share.
    for seed in 0..3 {
        let (world, mut node) = small(seed, 2 * MIB);
        let mut admin = Client::connect(&node, 0);
        let id = admin.create(&mut node, "t", 2, &[]);
        assert_eq!(admin.produce(&mut node, id, 1, batch(world.now().wall, None, &[b"x"])).error_code, 0);
        let mut many: Vec<(Client, usize)> = (0..10).map(|_| (Client::connect(&node, 0), 0)).collect();
        for (client, _) in &mut many {
            (0..200).for_each(|_| client.send(FETCH_BY_ID, &fetch_request(id, 0, 0).with_max_wait_ms(2_000)));
        }
        node.run_for(Duration::from_secs(1));
        assert!(node.shards[0].broker().counters.fetch_held > 0, "seed {seed}");
        live_rounds(&mut node, id, 1, 1, 10);
        let mut most = 0;
        let done = node.run_until(|node| {
            most = most.max(node.shards[0].broker().fetch_task_bytes());
            for (client, answered) in &mut many {
                while client.take_frame().is_some() {
                    *answered += 1;
                }
            }
            many.iter().all(|(_, answered)| *answered == 200)
        });
        assert!(done && most <= 2 * MIB / FETCH_TASKS_POOL_SHARE + KIB, "seed {seed}: {most}");
        assert_eq!(node.shards[0].broker().fetch_task_bytes(), 0);
    }
}

#[test]
fn reads_from_disk_are_few_at_a_time_and_clients_take_turns() {
    // Twenty clients ask for old records, eight requests ahead each, on a disk that is slow to read; then one more asks
    // once. It waits for one turn of the others, not for all that they asked before.
    for seed in 0..3 {
        let slow = Latency::steady(50_000_000..=60_000_000);
        let world = World::new(seed, WorldOptions { read: slow, ..WorldOptions::default() });
        let mut spec = Spec::new(1);
        (spec.pool_size_bytes, spec.tail_size_bytes) = (64 * MIB, 64 * KIB);
        let mut node = TestNode::start(&world, &spec);
        let mut writer = Client::connect(&node, 0);
        let id = writer.create(&mut node, "t", 1, &[]);
        for _ in 0..40 {
            let bytes = batch(world.now().wall, None, &[&[1; 20_000]]);
            assert_eq!(writer.produce(&mut node, id, 0, bytes).error_code, 0);
        }
        let fetch = |offset: i64| fetch_request(id, 0, offset).with_max_bytes(30_000);
        let mut many: Vec<Client> = (0..20).map(|_| Client::connect(&node, 0)).collect();
        for (number, client) in many.iter_mut().enumerate() {
            (0..8).for_each(|ahead| client.send(FETCH_BY_ID, &fetch((number + ahead) as i64)));
        }
        node.run_for(Duration::from_millis(20));
        let mut last = Client::connect(&node, 0);
        last.send(FETCH_BY_ID, &fetch(5));
        let (mut answered, mut before, mut most) = (0, None, 0);
        let done = node.run_until(|node| {
            most = most.max(node.shards[0].broker().cold_read_count());
            answered += many.iter_mut().filter_map(|client| client.take::<FetchRequest>(FETCH_BY_ID)).count();
            if last.take::<FetchRequest>(FETCH_BY_ID).is_some() {
                before = Some(answered);
            }
            answered == 160 && before.is_some()
        });
        assert!(done && (1..=8).contains(&most), "seed {seed}: {most} at a time");
        assert!(node.shards[0].broker().counters.cold_waits > 0, "seed {seed}");
        let before = before.expect("answered");
        assert!(before < 60, "seed {seed}: {before} were answered before it");
    }
}
