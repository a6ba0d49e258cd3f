//! Requests at the right and the wrong shard, in order, and the state of a node that nothing goes wrong with.

use kafka_protocol::messages::ProduceRequest;

use super::client::{Client, PRODUCE_BY_ID, batch, create_request, fetch_request, partition_of, produce_request};
use super::node::{Spec, TestNode};
use crate::io::sim::{World, WorldOptions};
use crate::protocol::ErrorCode;

#[test]
fn a_topic_created_at_any_shard_takes_records_at_once_at_its_leader() {
    // On disorderly nodes, each shard creates a topic and the moment that is answered every partition is written to.
    for seed in 0..20 {
        let world = World::new(seed, WorldOptions::default());
        let mut spec = Spec::new(1 + (seed % 5) as u16);
        spec.is_disorderly = seed % 2 == 0;
        let mut node = TestNode::start(&world, &spec);
        let mut clients: Vec<Client> = (0..node.shards.len()).map(|shard| Client::connect(&node, shard)).collect();
        for shard in 0..clients.len() {
            let name = format!("topic-{shard}");
            let id = clients[shard].create(&mut node, &name, 4, &[]);
            let metadata = clients[shard].topic(&mut node, &name);
            for index in 0..4 {
                let leader = metadata.topics[0].partitions[index].leader_id.0 as usize - 1;
                let bytes = batch(world.now().wall, None, &[b"at once"]);
                let answer = clients[leader].produce(&mut node, id, index as i32, bytes);
                assert_eq!((answer.error_code, answer.base_offset), (0, 0), "seed {seed}: {answer:?}");
            }
        }
    }
}

#[test]
fn a_wrong_shard_names_the_leader() {
    let seed = 1;
    let world = World::new(seed, WorldOptions::default());
    let mut node = TestNode::start(&world, &Spec::new(3));
    let mut clients: Vec<Client> = (0..3).map(|shard| Client::connect(&node, shard)).collect();
    let id = clients[2].create(&mut node, "t", 3, &[]);
    let metadata = clients[0].topic(&mut node, "t");
    assert_eq!(metadata.brokers.len(), 3);
    for index in 0..3 {
        let partition = &metadata.topics[0].partitions[index];
        let (leader, epoch) = (partition.leader_id.0, partition.leader_epoch);
        for wrong in (0..3).filter(|shard| *shard != leader as usize - 1) {
            let bytes = batch(world.now().wall, None, &[b"x"]);
            let response = clients[wrong].call(&mut node, PRODUCE_BY_ID, &produce_request(id, index as i32, bytes));
            let told: Vec<(i32, i32)> = response.node_endpoints.iter().map(|e| (e.node_id.0, e.port)).collect();
            let listed: Vec<(i32, i32)> = metadata.brokers.iter().map(|b| (b.node_id.0, b.port)).collect();
            assert_eq!(told, listed);
            let answer = partition_of(response);
            assert_eq!(answer.error_code, ErrorCode::NotLeaderOrFollower.code());
            assert_eq!((answer.current_leader.leader_id.0, answer.current_leader.leader_epoch), (leader, epoch));
            let data = clients[wrong].fetch(&mut node, &fetch_request(id, index as i32, 0)).expect("answered");
            assert_eq!(data.error_code, ErrorCode::NotLeaderOrFollower.code());
            assert_eq!((data.current_leader.leader_id.0, data.current_leader.leader_epoch), (leader, epoch));
        }
    }
}

#[test]
fn a_produce_that_must_wait_holds_back_what_follows() {
    // The first append to a partition waits for its directory and its record in the metadata log; the second request
    // goes to a partition that is ready, the third is a fetch, the fourth creates a topic, the fifth appends to both.
    // The client checks that answers come in order; here it is checked that the fetch behind the held request sees
    // what the requests before it did.
    for seed in 0..20 {
        let world = World::new(seed, WorldOptions::harsh());
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let ready = client.create(&mut node, "ready", 1, &[]);
        let fresh = client.create(&mut node, "fresh", 1, &[]);
        let now = world.now().wall;
        client.produce(&mut node, ready, 0, batch(now, None, &[b"0"]));
        client.send(PRODUCE_BY_ID, &produce_request(fresh, 0, batch(now, None, &[b"a"])));
        client.send(PRODUCE_BY_ID, &produce_request(ready, 0, batch(now, None, &[b"1"])));
        client.send(super::client::CREATE, &create_request("late", 1, &[]));
        client.send(PRODUCE_BY_ID, &produce_request(fresh, 0, batch(now, None, &[b"b"])));
        let mut other = Client::connect(&node, 0);
        let mut saw_wait = false;
        node.run_until(|node| {
            saw_wait |= node.shards[0].broker().counters.produce_held > 0;
            saw_wait
        });
        // While the first is held nothing behind it has happened.
        let data = other.fetch(&mut node, &fetch_request(ready, 0, 0)).expect("answered");
        if client.link.available_bytes() == 0 && node.shards[0].broker().counters.produce_batches_appended == 1 {
            assert_eq!(data.high_watermark, 1, "seed {seed}");
        }
        let first = partition_of(client.receive::<ProduceRequest>(&mut node, PRODUCE_BY_ID).expect("answered"));
        let second = partition_of(client.receive::<ProduceRequest>(&mut node, PRODUCE_BY_ID).expect("answered"));
        client.receive::<kafka_protocol::messages::CreateTopicsRequest>(&mut node, super::client::CREATE);
        let last = partition_of(client.receive::<ProduceRequest>(&mut node, PRODUCE_BY_ID).expect("answered"));
        let offsets = [first.base_offset, second.base_offset, last.base_offset];
        assert_eq!(offsets, [0, 1, 1], "seed {seed}: {first:?} {second:?} {last:?}");
    }
}
