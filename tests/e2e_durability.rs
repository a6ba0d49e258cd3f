//! What was acknowledged is there: after a clean stop, after kill -9, once and in order.

mod common;

use std::collections::BTreeMap;

use common::broker::{Broker, Options};
use common::clients::{Admin, Producer, Read, Record, read_all, send_all};
use common::requests::{self, append, batch, connect};
use common::until;

#[test]
fn a_restart_keeps_records_topic_ids_and_producers_and_scans_nothing() {
    // Three shards, a clean stop: the id stays, each partition's leader epoch rises by one, recovery reads no record.
    let mut broker = Broker::start(Options::shards(3));
    Admin::new(&broker.bootstrap()).create("kept", 5, &[]);
    for partition in 0..5 {
        let values: Vec<String> = (0..300).map(|number| format!("{partition} {number}")).collect();
        send_all(&broker.bootstrap(), "kept", partition, &values);
    }
    let cluster_of = |broker: &Broker| {
        let response = requests::metadata(&mut connect(&broker.serving()[0].address), None);
        response.cluster_id.map(|id| id.to_string())
    };
    let topic_of = |broker: &Broker| requests::topic(&mut connect(&broker.serving()[0].address), "kept");
    let (cluster, before, reads) = (cluster_of(&broker), topic_of(&broker), read_all(&broker.bootstrap(), "kept", 5));
    for round in 1..=3 {
        broker.restart();
        assert_eq!(broker.scanned_bytes(), 0, "start {round}");
        let after = topic_of(&broker);
        assert_eq!((cluster_of(&broker), after.id), (cluster.clone(), before.id));
        for (old, new) in before.partitions.iter().zip(&after.partitions) {
            assert_eq!(*new, (old.0, old.1 + round, old.2));
        }
        assert_eq!(read_all(&broker.bootstrap(), "kept", 5), reads, "start {round}");
    }
}

#[test]
fn topics_that_were_created_and_deleted_are_so_after_a_crash() {
    let mut broker = Broker::start(Options::shards(2));
    let admin = Admin::new(&broker.bootstrap());
    admin.create("stays", 3, &[("retention.ms", "1234567")]);
    admin.create("goes", 3, &[]);
    send_all(&broker.bootstrap(), "goes", 0, &["lost".into()]);
    admin.delete("goes").unwrap();
    let id = requests::topic(&mut connect(&broker.serving()[0].address), "stays").id;
    broker.kill9();
    broker.start_again();
    for serving in broker.serving() {
        let mut connection = connect(&serving.address);
        let response = requests::metadata(&mut connection, None);
        let names: Vec<String> = response.topics.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect();
        assert_eq!(names, ["stays"]);
        assert_eq!(response.topics[0].topic_id, id);
    }
}

/// Kills the broker in the middle of an idempotent producer's load, several times, and then reads what is there:
/// everything that was acknowledged at its offset, everything once, each partition in the order of sending.
fn killed_under_load(options: Options, settings: &[(&str, &str)]) {
    const KILL_COUNT: usize = 4;
    const PARTITION_COUNT: i32 = 4;
    /// Records that are sent between two kills; the kill comes when a part of them is acknowledged.
    const RECORD_COUNT: usize = 4000;
    let mut broker = Broker::start(options);
    let bootstrap = broker.bootstrap();
    Admin::new(&bootstrap).create("loaded", PARTITION_COUNT, &[("segment.bytes", "1048576")]);
    let mut settings = settings.to_vec();
    settings.extend([("enable.idempotence", "true"), ("batch.num.messages", "50"), ("linger.ms", "1")]);
    let mut producer = Producer::new(&bootstrap, &settings);
    let mut acknowledged = 0;
    for round in 0..KILL_COUNT {
        for number in round * RECORD_COUNT..(round + 1) * RECORD_COUNT {
            let sent = producer.send("loaded", number as i32 % PARTITION_COUNT, &Record::of(load(number)));
            assert_eq!(sent, number);
        }
        acknowledged = until("a part is acknowledged", || {
            producer.poll();
            Some(producer.reported_count()).filter(|count| *count > acknowledged + RECORD_COUNT / 4)
        });
        broker.kill9();
        broker.start_again();
    }
    let delivered = producer.deliver();
    check_load(&delivered, &read_all(&bootstrap, "loaded", PARTITION_COUNT));
}

/// Record `number` of the load.
fn load(number: usize) -> String {
    format!("{number:08} ").repeat(1 + number % 40)
}

fn check_load(delivered: &BTreeMap<usize, (i32, i64)>, partitions: &[Vec<Read>]) {
    let mut expected: Vec<Vec<usize>> = vec![Vec::new(); partitions.len()];
    for (number, (partition, _)) in delivered {
        expected[*partition as usize].push(*number);
    }
    for (partition, reads) in partitions.iter().enumerate() {
        let offsets: Vec<i64> = reads.iter().map(|read| read.offset).collect();
        assert_eq!(offsets, (0..reads.len() as i64).collect::<Vec<_>>(), "partition {partition} has no gaps");
        let numbers: Vec<usize> = reads.iter().map(|read| read.text()[..8].parse().unwrap()).collect();
        assert_eq!(numbers, expected[partition], "partition {partition}: once each and in order");
        for read in reads {
            let number: usize = read.text()[..8].parse().unwrap();
            assert_eq!(read.text(), load(number));
            assert_eq!(delivered[&number], (read.partition, read.offset), "it is where it was acknowledged");
        }
    }
}

#[test]
fn kill_9_under_load_loses_nothing_and_repeats_nothing() {
    killed_under_load(Options::shards(2), &[]);
}

#[test]
fn kill_9_under_compressed_load_that_is_acknowledged_after_the_write_loses_nothing() {
    // ack.after=write promises to survive kill -9, without a sync.
    let options = Options::shards(3).set("ottla.ack.after", "write");
    killed_under_load(options, &[("compression.type", "zstd")]);
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    // It says so and ends at once; the first one goes on.
    let broker = Broker::start(Options::shards(1));
    Admin::new(&broker.bootstrap()).create("owned", 1, &[]);
    let (status, said) = broker.start_second();
    assert!(!status.success());
    assert!(said.contains("another"), "{said}");
    let mut connection = connect(&broker.bootstrap());
    let topic = requests::topic(&mut connection, "owned");
    assert_eq!(append(&mut connection, &topic, 0, batch(&[b"still"])), Ok(0));
}

#[test]
fn a_crash_costs_a_scan_of_what_was_written_since_the_checkpoint_and_a_clean_stop_none() {
    let mut broker = Broker::start(Options::shards(1));
    Admin::new(&broker.bootstrap()).create("scanned", 1, &[]);
    let values: Vec<String> = (0..100).map(|number| format!("value {number}")).collect();
    send_all(&broker.bootstrap(), "scanned", 0, &values);
    broker.restart();
    assert_eq!(broker.scanned_bytes(), 0);
    send_all(&broker.bootstrap(), "scanned", 0, &values);
    broker.kill9();
    broker.start_again();
    assert!(broker.scanned_bytes() > 0);
    let reads = read_all(&broker.bootstrap(), "scanned", 1).remove(0);
    assert_eq!(reads.iter().map(Read::text).collect::<Vec<_>>(), [&values[..], &values].concat());
}
