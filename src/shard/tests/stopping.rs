//! A clean stop as clients see it: what was appended is acknowledged, and nobody holds it up.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{FetchRequest, FindCoordinatorRequest, GroupId, JoinGroupRequest, ProduceRequest};
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, FETCH_BY_ID, PRODUCE_BY_ID, batch, fetch_request, partition_of, produce_request};
use super::node::{Spec, TestNode};
use crate::io::sim::{Fault, Latency, OpKind, Rule, World, WorldOptions};
use crate::shard::event_loop::Phase;

/// Runs until every shard has stopped and returns how long that took.
fn stop(node: &mut TestNode, mut look: impl FnMut()) -> Duration {
    let started = node.world.now().monotonic;
    node.ask_to_stop();
    assert!(node.run_until(|node| {
        look();
        node.shards.iter().all(|shard| shard.phase() == Phase::Stopped)
    }));
    node.world.now().monotonic - started
}

#[test]
fn what_was_appended_is_acknowledged_before_a_stop_ends_the_connection() {
    // Twenty requests on a slow disk; the stop comes when some are appended and none is written.
    for seed in 0..10 {
        let slow = Latency::steady(100_000_000..=200_000_000);
        let world = World::new(seed, WorldOptions { write: slow, ..WorldOptions::default() });
        let mut node = TestNode::start(&world, &Spec::new(1));
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", 2, &[]);
        for index in 0..2 {
            let bytes = batch(world.now().wall, None, &[b"first"]);
            assert_eq!(client.produce(&mut node, id, index, bytes).error_code, 0);
        }
        for number in 0..20 {
            let bytes = batch(world.now().wall, None, &[b"then"]);
            client.send(PRODUCE_BY_ID, &produce_request(id, number % 2, bytes));
        }
        let appended = |node: &TestNode| node.shards[0].broker().counters.produce_batches_appended - 2;
        assert!(node.run_until(|node| appended(node) >= 5));
        let mut acknowledged = 0;
        let took = stop(&mut node, || {
            while let Some(response) = client.take::<ProduceRequest>(PRODUCE_BY_ID) {
                assert_eq!(partition_of(response).error_code, 0, "seed {seed}");
                acknowledged += 1;
            }
        });
        assert_eq!(acknowledged, appended(&node), "seed {seed}: of what was appended");
        assert!(took < Duration::from_secs(1), "seed {seed}: {took:?}");
        // And it is there.
        drop(node);
        let mut node = TestNode::start(&world, &Spec::new(1));
        assert_eq!(node.recovered[0].scanned_bytes, 0, "seed {seed}");
        let mut client = Client::connect(&node, 0);
        let mut found = 0;
        for index in 0..2 {
            let (batches, _) = client.read_all(&mut node, id, index, 0).expect("answered").expect("readable");
            found += batches.len() as u64 - 1;
        }
        assert_eq!(found, acknowledged, "seed {seed}");
    }
}

#[test]
fn a_stop_answers_who_waits_and_waits_for_nobody_who_does_not_take_his_answers() {
    for seed in 0..10 {
        let world = World::new(seed, WorldOptions::default());
        let mut node = TestNode::start(&world, &Spec::new(2));
        let mut client = Client::connect(&node, 0);
        let id = client.create(&mut node, "t", 1, &[]);
        let leader = client.topic(&mut node, "t").topics[0].partitions[0].leader_id.0 as usize - 1;
        let mut writer = Client::connect(&node, leader);
        let bytes = batch(world.now().wall, None, &[&[b'x'; 50_000]]);
        assert_eq!(writer.produce(&mut node, id, 0, bytes).error_code, 0);
        let mut poller = Client::connect(&node, leader);
        poller.send(FETCH_BY_ID, &fetch_request(id, 0, 1).with_max_wait_ms(60_000));
        node.run_for(Duration::from_millis(200));
        let mut answered = false;
        let took = stop(&mut node, || answered |= poller.take::<FetchRequest>(FETCH_BY_ID).is_some());
        assert!(answered && took < Duration::from_millis(900), "seed {seed}: {answered}, {took:?}");

        let mut node = TestNode::start(&world, &Spec::new(2));
        let mut stopped = Client::connect(&node, leader);
        stopped.link.set_window(1);
        stopped.send(FETCH_BY_ID, &fetch_request(id, 0, 0));
        node.run_for(Duration::from_millis(200));
        let took = stop(&mut node, || {});
        assert!(took < Duration::from_secs(2), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_group_that_changes_during_a_stop_does_not_keep_the_shard_from_stopping() {
    // An append that takes two seconds holds up the stop; meanwhile the only member of a group, of which nothing was
    // written yet, is gone, and that would be the first record of its partition. (Found by the simulator: the log was
    // opened after all others had been closed.)
    let world = World::new(4, WorldOptions::calm());
    let mut node = TestNode::start(&world, &Spec::new(1).set("group.min.session.timeout.ms", 200));
    let mut client = Client::connect(&node, 0);
    let id = client.create(&mut node, "t", 1, &[]);
    let bytes = batch(world.now().wall, None, &[b"first"]);
    assert_eq!(client.produce(&mut node, id, 0, bytes).error_code, 0);
    let text = StrBytes::from_static_str;
    let find = FindCoordinatorRequest::default().with_key(text("group"));
    while client.call(&mut node, 0, &find).error_code != 0 {
        node.run_for(Duration::from_millis(10));
    }
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from("topics"));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(text("group")))
        .with_session_timeout_ms(500)
        .with_rebalance_timeout_ms(500)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let joined = client.call(&mut node, 3, &join);
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    world.inject(Rule::new(OpKind::Write, Fault::Delay(Duration::from_secs(2))).path("/t-0/"));
    client.send(PRODUCE_BY_ID, &produce_request(id, 0, batch(world.now().wall, None, &[b"then"])));
    node.run_for(Duration::from_millis(10));
    let took = stop(&mut node, || {});
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&took), "{took:?}");
}
