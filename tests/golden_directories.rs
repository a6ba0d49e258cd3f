//! Data directories that earlier versions have written, which every later one must read: `tests/golden/data-VERSION/`
//! holds one that was stopped cleanly and one that was killed, made by `make_a_golden_directory` (below, ignored) of
//! that version. Files of a released version never change; a version that writes another format adds its own.

mod support_bad;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kafka_protocol::messages::InitProducerIdRequest;
use nix::sys::signal::Signal;
use ottla::base::time::Timestamp;
use ottla::model::batch::{self, batches};
use ottla::model::builder::BatchBuilder;
use ottla::model::compression::Codec;
use ottla::model::id::{ProducerEpoch, ProducerId, Sequence};
use ottla::model::records::{Records, section};

use support_bad::{Broker, Wire, binary};

/// Batches of each partition.
const BATCH_COUNT: i64 = 12;
const RECORDS_EACH: i64 = 3;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
/// Topics and their partitions; the first producer that asks gets this id.
const TOPICS: [(&str, i32); 2] = [("plain", 2), ("codecs", 1)];
const PRODUCER: i64 = 0;
/// The partition that an idempotent producer writes to.
const IDEMPOTENT: (&str, i32) = ("plain", 1);

fn value(topic: &str, partition: i32, number: i64) -> Vec<u8> {
    format!("{topic} {partition}: record {number} ").repeat(1 + number as usize % 40).into_bytes()
}

/// Batch `number` of a partition, the same in every version.
fn golden_batch(topic: &str, partition: i32, number: i64) -> Vec<u8> {
    let codec = if topic == "codecs" { CODECS[number as usize % CODECS.len()] } else { Codec::None };
    let mut builder = BatchBuilder::new(codec);
    if (topic, partition) == IDEMPOTENT {
        let sequence = Sequence((number * RECORDS_EACH) as i32);
        builder = builder.producer(ProducerId(PRODUCER), ProducerEpoch(0), sequence);
    }
    for record in number * RECORDS_EACH..(number + 1) * RECORDS_EACH {
        let key = format!("key {record}");
        let at = Timestamp(1_760_000_000_000 + record);
        builder.push(at, Some(key.as_bytes()), Some(&value(topic, partition, record)), &[]);
    }
    builder.build()
}

/// Reads a partition from its start and compares every record.
fn compare(wire: &mut Wire, topic: &str, partition: i32, batch_count: i64) {
    let (mut offset, end) = (0, batch_count * RECORDS_EACH);
    while offset < end {
        let (error, bytes) = wire.fetch(topic, partition, offset, 1 << 20);
        assert_eq!(error, 0, "{topic}-{partition} at {offset}");
        assert!(!bytes.is_empty(), "{topic}-{partition} ends at {offset}, not at {end}");
        for (header, bytes) in batches(&bytes) {
            batch::validate(bytes).expect("a sound batch");
            assert_eq!(header.base_offset.0, offset);
            let records = section(&header, bytes, 1 << 20).expect("it decompresses");
            for record in Records::new(&records, header.record_count) {
                let record = record.expect("a sound record");
                assert_eq!(record.value.expect("a value"), value(topic, partition, offset), "at {offset}");
                assert_eq!(record.timestamp(&header).0, 1_760_000_000_000 + offset);
                offset += 1;
            }
        }
    }
    assert_eq!(offset, end);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// Every golden data directory.
fn golden_directories() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let versions = fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path());
    let is_data = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("data-");
    let mut found: Vec<PathBuf> =
        versions.filter(is_data).flat_map(|version| [version.join("stopped"), version.join("killed")]).collect();
    found.sort();
    found
}

#[test]
fn what_earlier_versions_have_written_is_read_and_written_on() {
    // On one shard and on two; then a duplicate of the last batch of the idempotent producer, whose state is known,
    // and one batch more everywhere; then killed, and all of it again.
    let directories = golden_directories();
    assert!(directories.len() >= 2, "there is none");
    for directory in directories {
        for shards in ["1", "2"] {
            let dir = tempfile::tempdir().unwrap();
            copy(&directory, &dir.path().join("data"));
            let sound = Command::new(binary()).arg("inspect").arg(dir.path().join("data")).output().unwrap();
            assert!(sound.status.success(), "{}: {sound:?}", directory.display());
            let mut broker = Broker::start_in(dir.path(), &["--shards", shards]);
            let wires = |broker: &Broker| -> Vec<Wire> { broker.addresses.iter().map(|at| Wire::open(*at)).collect() };
            let mut all = wires(&broker);
            let led = |all: &mut [Wire], topic: &str, partition: i32| -> usize {
                let metadata = all[0].metadata(Some(topic));
                let mut partitions = metadata.topics[0].partitions.iter();
                let found = partitions.find(|found| found.partition_index == partition).expect("it is listed");
                found.leader_id.0 as usize - 1
            };
            for (topic, partitions) in TOPICS {
                for partition in 0..partitions {
                    let leader = led(&mut all, topic, partition);
                    let wire = &mut all[leader];
                    compare(wire, topic, partition, BATCH_COUNT);
                    if (topic, partition) == IDEMPOTENT {
                        let last = golden_batch(topic, partition, BATCH_COUNT - 1);
                        let offset = (BATCH_COUNT - 1) * RECORDS_EACH;
                        assert_eq!(wire.produce(topic, partition, last), (0, offset), "known as a duplicate");
                    }
                    let more = golden_batch(topic, partition, BATCH_COUNT);
                    assert_eq!(wire.produce(topic, partition, more), (0, BATCH_COUNT * RECORDS_EACH));
                }
            }
            drop(all);
            broker.end(Signal::SIGKILL);
            let broker = Broker::start_in(dir.path(), &["--shards", shards]);
            let mut all = wires(&broker);
            for (topic, partitions) in TOPICS {
                for partition in 0..partitions {
                    let leader = led(&mut all, topic, partition);
                    compare(&mut all[leader], topic, partition, BATCH_COUNT + 1);
                }
            }
        }
    }
}

/// `OTTLA_GOLDEN=DIR cargo test --test golden_directories -- --ignored` writes the directories of this version.
#[test]
#[ignore = "makes what the other test reads; once for each version that changes a format"]
fn make_a_golden_directory() {
    let target = PathBuf::from(std::env::var_os("OTTLA_GOLDEN").expect("OTTLA_GOLDEN names the directory to make"));
    for (name, signal) in [("stopped", Signal::SIGTERM), ("killed", Signal::SIGKILL)] {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Broker::start_in(dir.path(), &[]);
        let mut wire = Wire::open(broker.address());
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let producer = wire.call(4, &request.with_producer_id((-1).into()).with_producer_epoch(-1));
        assert_eq!(producer.producer_id.0, PRODUCER);
        // Each batch is younger than the last by more than a segment may be: every partition has several.
        for (topic, partitions) in TOPICS {
            let configs = [("retention.ms", "-1"), ("segment.ms", "7")];
            wire.create_topic(topic, partitions, &configs);
            for partition in 0..partitions {
                for number in 0..BATCH_COUNT {
                    let batch = golden_batch(topic, partition, number);
                    assert_eq!(wire.produce(topic, partition, batch), (0, number * RECORDS_EACH));
                }
            }
        }
        wire.create_topic("gone", 1, &[]);
        assert_eq!(wire.produce("gone", 0, golden_batch("plain", 0, 0)), (0, 0));
        wire.delete_topic("gone");
        drop(wire);
        std::thread::sleep(std::time::Duration::from_millis(500));
        broker.end(signal);
        let to = target.join(name);
        let _ = fs::remove_dir_all(&to);
        copy(&dir.path().join("data"), &to);
        let _ = fs::remove_file(to.join(".lock"));
    }
}
