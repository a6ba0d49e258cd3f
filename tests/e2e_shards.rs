//! Every shard is a broker: leaders, wrong shards, changed numbers of shards, and what crosses between them.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::broker::{Broker, Options};
use common::clients::{Admin, Producer, Read, Record, read_all};
use common::requests::{self, AT_ONCE, Topic, append, batch, connect, error_of, fetched, produced};
use ottla::protocol::ErrorCode;

const PARTITION_COUNT: i32 = 7;
const RECORD_COUNT: i32 = 2100;

/// Numbers 0 to `RECORD_COUNT` by one producer, round the partitions.
fn produce_numbers(bootstrap: &str, topic: &str) {
    let mut producer = Producer::new(bootstrap, &[]);
    for number in 0..RECORD_COUNT {
        producer.send(topic, number % PARTITION_COUNT, &Record::of(number.to_string()));
    }
    producer.deliver();
}

fn assert_numbers(partitions: &[Vec<Read>]) {
    for (partition, reads) in partitions.iter().enumerate() {
        let found: Vec<(i64, i32)> = reads.iter().map(|read| (read.offset, read.text().parse().unwrap())).collect();
        let expected = (0..RECORD_COUNT).filter(|number| number % PARTITION_COUNT == partition as i32);
        assert_eq!(found, (0..).zip(expected).collect::<Vec<_>>(), "partition {partition}");
    }
}

fn topic_of(broker: &Broker, name: &str) -> Topic {
    requests::topic(&mut connect(&broker.serving()[0].address), name)
}

fn leaders(topic: &Topic) -> BTreeSet<i32> {
    topic.partitions.iter().map(|(leader, ..)| *leader).collect()
}

/// On so many shards: write with librdkafka, read with librdkafka, ask every leader by hand, and look at what crossed.
fn partitions_over(shard_count: usize) {
    let broker = Broker::start(Options::shards(shard_count));
    let bootstrap = broker.bootstrap();
    Admin::new(&bootstrap).create("numbers", PARTITION_COUNT, &[]);
    let topic = topic_of(&broker, "numbers");
    let brokers: BTreeSet<i32> = broker.serving().iter().map(|serving| serving.broker).collect();
    assert_eq!(brokers, (1..=shard_count as i32).collect());
    assert_eq!(leaders(&topic), brokers, "every shard leads something");
    for serving in broker.serving() {
        assert_eq!(requests::topic(&mut connect(&serving.address), "numbers"), topic, "all shards say the same");
    }

    produce_numbers(&bootstrap, "numbers");
    assert_numbers(&read_all(&bootstrap, "numbers", PARTITION_COUNT));
    for (partition, (leader, ..)) in (0..).zip(&topic.partitions) {
        let mut connection = connect(broker.address_of(*leader));
        let response = requests::fetch(&mut connection, requests::FETCH, &topic, &[(partition, 0)], AT_ONCE);
        assert_eq!(fetched(&response).high_watermark, i64::from(RECORD_COUNT / PARTITION_COUNT));
        let records = fetched(&response).records.as_deref().unwrap();
        assert!(requests::headers(records).iter().all(|header| header.leader_epoch.0 == topic.partitions[0].1));
    }

    for (shard, counters) in broker.counters().iter().enumerate() {
        let count = |name: &str| counters.get(name).copied().unwrap_or(0);
        assert!(count("produce_bytes_received") > 0, "shard {shard} got records");
        assert_eq!(count("produce_bytes_received"), count("produce_bytes_appended") + count("produce_bytes_refused"));
        assert_eq!(count("mailbox_record_bytes"), 0, "no record byte crosses between shards");
    }
}

#[test]
fn every_partition_comes_back_in_order_from_one_shard() {
    partitions_over(1);
}

#[test]
fn every_partition_comes_back_in_order_from_two_shards() {
    partitions_over(2);
}

#[test]
fn every_partition_comes_back_in_order_from_three_shards() {
    partitions_over(3);
}

#[test]
fn every_partition_comes_back_in_order_from_five_shards() {
    partitions_over(5);
}

#[test]
fn the_wrong_shard_says_who_leads_and_where_it_is() {
    // Produce and Fetch of every version at the shard that does not lead: the code always, leader and endpoints in
    // the versions that have them (Produce 10, Fetch 12 and 16).
    let broker = Broker::start(Options::shards(3));
    Admin::new(&broker.bootstrap()).create("elsewhere", 3, &[]);
    let topic = topic_of(&broker, "elsewhere");
    let (leader, epoch, _) = topic.partitions[0];
    let wrong = broker.serving().iter().find(|serving| serving.broker != leader).unwrap();
    let mut connection = connect(&wrong.address);
    let expected: BTreeMap<i32, String> =
        broker.serving().iter().map(|serving| (serving.broker, serving.address.clone())).collect();

    for version in 3..=requests::PRODUCE {
        let response = requests::produce(&mut connection, version, &topic, 0, batch(&[b"lost"]));
        let partition = produced(&response);
        assert_eq!(error_of(partition.error_code), ErrorCode::NotLeaderOrFollower, "Produce {version}");
        if version >= 10 {
            let told = (partition.current_leader.leader_id.0, partition.current_leader.leader_epoch);
            assert_eq!(told, (leader, epoch), "Produce {version}");
            let endpoints = response.node_endpoints.iter();
            let endpoints: BTreeMap<i32, String> =
                endpoints.map(|node| (node.node_id.0, format!("{}:{}", node.host.as_str(), node.port))).collect();
            assert_eq!(endpoints[&leader], expected[&leader], "Produce {version}");
        }
    }
    for version in 4..=requests::FETCH {
        let response = requests::fetch(&mut connection, version, &topic, &[(0, 0)], AT_ONCE);
        let partition = fetched(&response);
        assert_eq!(error_of(partition.error_code), ErrorCode::NotLeaderOrFollower, "Fetch {version}");
        if version >= 12 {
            let told = (partition.current_leader.leader_id.0, partition.current_leader.leader_epoch);
            assert_eq!(told, (leader, epoch), "Fetch {version}");
        }
        if version >= 16 {
            let endpoints = response.node_endpoints.iter();
            let endpoints: BTreeMap<i32, String> =
                endpoints.map(|node| (node.node_id.0, format!("{}:{}", node.host.as_str(), node.port))).collect();
            assert_eq!(endpoints[&leader], expected[&leader], "Fetch {version}");
        }
    }
    let offsets = requests::list_offsets(&mut connection, 7, "elsewhere", 0, -1);
    assert_eq!(error_of(offsets.error_code), ErrorCode::NotLeaderOrFollower);
    // Nothing of it was kept, here or there.
    let mut right = connect(broker.address_of(leader));
    assert_eq!(append(&mut right, &topic, 0, batch(&[b"kept"])), Ok(0));
    let refused = broker.counter("produce_bytes_refused");
    assert_eq!(broker.counter("produce_bytes_received"), broker.counter("produce_bytes_appended") + refused);
    assert_eq!(broker.counter("mailbox_record_bytes"), 0);
}

#[test]
fn running_clients_follow_partitions_to_their_new_owners() {
    // One producer lives through starts with 2, 3, 1 and 2 shards on the same ports, so that what it believes about
    // leaders is wrong each time; everything it sends arrives once and in order.
    let mut broker = Broker::start(Options::shards(2));
    let bootstrap = broker.bootstrap();
    Admin::new(&bootstrap).create("followed", PARTITION_COUNT, &[]);
    let mut producer = Producer::new(&bootstrap, &[("enable.idempotence", "true")]);
    let mut next = 0;
    let mut owners = vec![topic_of(&broker, "followed")];
    for shard_count in [3, 1, 2] {
        for _ in 0..RECORD_COUNT / 3 {
            producer.send("followed", next % PARTITION_COUNT, &Record::of(next.to_string()));
            next += 1;
        }
        producer.poll();
        broker.stop();
        broker.start_with(Options::shards(shard_count));
        owners.push(topic_of(&broker, "followed"));
        producer.deliver();
    }
    assert_eq!(owners.iter().map(|topic| leaders(topic).len()).collect::<Vec<_>>(), [2, 3, 1, 2]);
    assert!(owners.iter().all(|topic| topic.id == owners[0].id));
    assert_numbers(&read_all(&broker.bootstrap(), "followed", PARTITION_COUNT));
}

#[test]
fn changing_the_number_of_shards_moves_partitions_and_keeps_every_record() {
    // 1, 3 and 2 shards on one directory, clean stops in between. Each start raises the leader epoch, and appends go
    // on where they were.
    let mut broker = Broker::start(Options::shards(1));
    Admin::new(&broker.bootstrap()).create("moved", PARTITION_COUNT, &[]);
    produce_numbers(&broker.bootstrap(), "moved");
    let before = topic_of(&broker, "moved");
    for (round, shard_count) in [3, 2].into_iter().enumerate() {
        broker.stop();
        broker.start_with(Options::shards(shard_count));
        assert_eq!(broker.scanned_bytes(), 0, "after a clean stop nothing is scanned");
        let now = topic_of(&broker, "moved");
        assert_eq!((now.id, leaders(&now).len()), (before.id, shard_count));
        let epoch = before.partitions[0].1 + 1 + round as i32;
        assert!(now.partitions.iter().all(|(_, now, _)| *now == epoch), "{:?} in epoch {epoch}", now.partitions);
        let mut partitions = read_all(&broker.bootstrap(), "moved", PARTITION_COUNT);
        for reads in &mut partitions {
            // What the rounds before this one appended.
            let more = reads.split_off((RECORD_COUNT / PARTITION_COUNT) as usize);
            assert_eq!(more.len(), round);
        }
        assert_numbers(&partitions);
        for (partition, (leader, ..)) in (0..).zip(&now.partitions) {
            let mut connection = connect(broker.address_of(*leader));
            let offset = i64::from(RECORD_COUNT / PARTITION_COUNT) + round as i64;
            assert_eq!(append(&mut connection, &now, partition, batch(&[b"more"])), Ok(offset));
        }
    }
}
